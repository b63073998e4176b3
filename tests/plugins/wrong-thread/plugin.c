/* Starts a thread of its own and emits from there. */
#define STEP bad_step
#include <pthread.h>

#include "../common.h"

static void *other(void *arg) {
  viv_plugin_job *job = arg;
  job->step = emit_y(job);
  return NULL;
}

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, other, job))
    return fail(error, VIV_NOT_NOW, "job", "no thread");
  pthread_join(thread, NULL);
  return job->step == VIV_OK ? VIV_DONE : (int32_t)job->step;
}

PLUGIN("wrong-thread");
