/* Emits events that break the ABI: too short, of no known kind, END, an impossible tensor. It ends
 * with a text that counts how many of them the host took: none, if the host looks. */
#define STEP bad_step
#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  (void)error;
  viv_tensor no_dtype = *job->x, negative = *job->x, short_data = *job->x, deep = *job->x;
  no_dtype.dtype = 77;
  negative.ndim = 1;
  negative.shape[0] = -4;
  short_data.bytes = 1;
  deep.ndim = VIV_MAX_DIMS + 1;
  viv_event good = {
      .struct_size = sizeof good, .kind = VIV_KIND_TENSOR, .name = STR("bad"), .tensor = job->x};
  viv_event bad[8];
  for (int i = 0; i < 8; i++) bad[i] = good;
  bad[0].struct_size = 0;
  bad[1].kind = 99;
  bad[2].kind = VIV_KIND_END;
  bad[3].tensor = NULL;
  bad[4].tensor = &no_dtype;
  bad[5].tensor = &negative;
  bad[6].tensor = &short_data;
  bad[7].tensor = &deep;
  int taken = 0;
  for (int i = 0; i < 8; i++)
    if (job->host->job_emit(job->job, &bad[i]) >= 0) taken++;
  char digit = (char)('0' + taken);
  viv_event count = {.struct_size = sizeof count,
                     .kind = VIV_KIND_TEXT,
                     .name = STR("taken"),
                     .bytes = {&digit, 1}};
  int32_t status = job->host->job_emit(job->job, &count);
  return status < 0 ? status : VIV_DONE;
}

PLUGIN("bad-emit");
