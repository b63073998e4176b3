/* Works for three seconds in one step without a poll, though its manifest promises 50 ms. */
#define STEP bad_step
#include <time.h>

#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  (void)error;
  if (!job->step++) nanosleep(&(struct timespec){.tv_sec = 3}, NULL);
  int32_t status = emit_y(job);
  return status == VIV_WAIT ? VIV_WAIT : VIV_DONE;
}

PLUGIN("ignores-cancel");
