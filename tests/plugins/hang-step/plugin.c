/* Never comes back from a step, and never polls. */
#define STEP bad_step
#include <time.h>

#include "../common.h"

static volatile int forever = 1;

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  while (forever) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
  return good_step(job, error);
}

PLUGIN("hang-step");
