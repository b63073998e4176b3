/* Keeps every promise, and answers with the first number of what it got: a large tensor there, a small one
 * back. */
#define STEP first_step
#include "../common.h"

static int32_t first_step(viv_plugin_job *j, viv_error *error) {
  if (j->x->bytes < sizeof(float)) return fail(error, VIV_BAD_INPUT, "x", "is empty");
  viv_tensor y = {.struct_size = sizeof y,
                  .data = j->x->data,
                  .bytes = sizeof(float),
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {1}};
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = STR("y"), .tensor = &y};
  int32_t status = j->host->job_poll(j->job);
  if (status >= 0) status = j->host->job_emit(j->job, &event);
  return status == VIV_OK ? VIV_DONE : status;
}

PLUGIN("first");
