/* Many callers on one runtime: submitting, reading, cancelling, sessions, loading and unloading, all at
 * once. Prints nothing and exits 0 when every job ended exactly once and the texts of equal requests
 * are equal. Built by `make tsan`; usage: stress MODEL THREADS. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

enum { ROUNDS = 12 };

static viv_runtime *rt;
static viv_model *model;
static const char *path;
static atomic_int failures;
static char reference[4096];

static void complain(const char *what) {
  fprintf(stderr, "stress: %s\n", what);
  atomic_fetch_add(&failures, 1);
}

/* Reads a job to its end; text may be NULL. cancel_after events the job is cancelled. */
static int32_t drain(viv_job *job, char *text, size_t cap, int cancel_after) {
  viv_event e = {0};
  size_t len = 0;
  uint64_t seq = 0;
  while (viv_next_event(job, 60000, &e) == VIV_OK) {
    if (e.seq != seq++) complain("event numbers have a gap");
    if (e.kind == VIV_KIND_TEXT && text && len + e.bytes.len < cap) {
      memcpy(text + len, e.bytes.ptr, e.bytes.len);
      len += e.bytes.len;
    }
    if (cancel_after && --cancel_after == 0) viv_job_cancel(job);
  }
  if (text) text[len] = 0;
  if (!(e.flags & VIV_EVENT_FINAL)) complain("a job did not end");
  return e.status;
}

static void *caller(void *arg) {
  int id = (int)(intptr_t)arg;
  char text[4096];
  for (int i = 0; i < ROUNDS; i++) {
    viv_job *job = NULL;
    viv_error e = VIV_ERROR_INIT;
    if (viv_submit_text(model, "Once upon a time", "{\"max_new_tokens\":24,\"ignore_eos\":true}",
                        &job, &e) != VIV_OK) {
      complain(e.message);
      continue;
    }
    if ((i + id) % 3 == 0) {
      drain(job, NULL, 0, 1 + i % 4);
    } else if ((i + id) % 7 == 0) {
      viv_job_free(job); /* walks away */
      continue;
    } else if (drain(job, text, sizeof text, 0) != VIV_OK || strcmp(text, reference)) {
      complain("a text differs from the reference");
    }
    viv_job_free(job);
    if (i % 5 == id % 5) {
      viv_session *s = NULL;
      viv_text json;
      if (viv_session_open(model, &s, &e) == VIV_OK) viv_session_close(s);
      if (viv_describe(model, &json, &e) == VIV_OK) viv_text_free(&json);
    }
    if (id == 0 && i % 4 == 0) {
      viv_model *other = NULL;
      if (viv_load(rt, path, NULL, &other, &e) == VIV_OK)
        viv_unload(other);
      else
        complain(e.message);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  int n = argc > 2 ? atoi(argv[2]) : 4;
  viv_error e = VIV_ERROR_INIT;
  viv_options o = {
      .struct_size = sizeof o, .threads = 2, .plugin_path = getenv("VIV_TEST_PLUGINS")};
  path = argc > 1 ? argv[1] : "tests/models/stories260K";
  if (n < 1 || n > 32 || viv_open(&o, &rt, &e) < 0 || viv_load(rt, path, NULL, &model, &e) < 0) {
    fprintf(stderr, "stress: %s: %s\n", e.where, e.message);
    return 1;
  }
  viv_job *job = NULL;
  if (viv_submit_text(model, "Once upon a time", "{\"max_new_tokens\":24,\"ignore_eos\":true}",
                      &job, &e))
    return 1;
  drain(job, reference, sizeof reference, 0);
  viv_job_free(job);
  pthread_t threads[32];
  for (int i = 0; i < n; i++) pthread_create(&threads[i], NULL, caller, (void *)(intptr_t)i);
  for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
  viv_close(rt);
  return atomic_load(&failures) != 0;
}
