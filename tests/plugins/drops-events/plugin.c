/* Takes WAIT for an answer like any other: the event is lost. */
#define STEP bad_step
#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  (void)error;
  int32_t status = emit_y(job);
  return status < 0 ? status : VIV_DONE;
}

PLUGIN("drops-events");
