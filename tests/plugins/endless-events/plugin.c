/* Emits without end. Back-pressure bounds it, and a cancel ends it. */
#define STEP bad_step
#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  (void)error;
  int32_t status = emit_y(job);
  return status == VIV_OK ? VIV_MORE : status;
}

PLUGIN("endless-events");
