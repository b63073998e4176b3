/* Writes past the end of memory that the host's arena lent it. */
#define STEP bad_step
#include "../common.h"

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  volatile char *block = job->host->arena_alloc(job->host->job_arena(job->job), 128);
  if (!block) return VIV_NOT_NOW;
  for (int i = 0; i < 128 + 32; i++) block[i] = 0x55;
  return good_step(job, error);
}

PLUGIN("overruns-output");
