/* Computes NaN from finite numbers. */
#define STEP bad_step
#include <math.h>

#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  float *data = job->host->arena_alloc(job->host->job_arena(job->job), sizeof *data);
  if (!data) return fail(error, VIV_NOT_NOW, "job", "no memory");
  *data = NAN;
  viv_tensor y = {.struct_size = sizeof y, .data = data, .bytes = sizeof *data, .dtype = VIV_F32};
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = STR("y"), .tensor = &y};
  int32_t status = job->host->job_emit(job->job, &event);
  return status == VIV_OK ? VIV_DONE : status;
}

PLUGIN("emits-nan");
