/* Dies of a segmentation fault in the middle of a job. */
#define STEP bad_step
#include "../common.h"

static int *volatile nowhere;

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  *nowhere = 1;
  return good_step(job, error);
}

PLUGIN("crash-step");
