/* What the runtime's tests share: opening a runtime on the build tree's plugins, and running a job to
 * its end while checking what every job must keep to (numbered events, one END). */
#ifndef TESTS_RT_H
#define TESTS_RT_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

#define STORIES "tests/models/stories260K"
#define REASONER "zoo/models/sambay-reasoner"

static inline const char *env(const char *name, const char *fallback) {
  const char *v = getenv(name);
  return v && *v ? v : fallback;
}

static inline viv_runtime *open_runtime_with(uint64_t budget) {
  viv_runtime *rt = NULL;
  viv_error e = VIV_ERROR_INIT;
  viv_options o = {.struct_size = sizeof o,
                   .threads = 2,
                   .plugin_path = env("VIV_TEST_PLUGINS", "build/plugins"),
                   .memory_budget = budget,
                   .log_level = VIV_LOG_ERROR};
  cr_assert_eq(viv_open(&o, &rt, &e), VIV_OK, "%s: %s", e.where, e.message);
  return rt;
}

static inline viv_runtime *open_runtime(void) {
  return open_runtime_with(0);
}

static inline viv_model *load(viv_runtime *rt, const char *path) {
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_load(rt, path, NULL, &m, &e), VIV_OK, "%s: %s", e.where, e.message);
  return m;
}

/* What came out of a job. */
typedef struct result {
  int32_t status;
  char *text;        /* all TEXT events joined */
  int64_t ids[4096]; /* the tensor "ids" */
  int64_t n_ids;
  char counters[1024];
  viv_error error;
  int n_events;
} result;

static inline void take_event(result *r, const viv_event *e) {
  if (e->kind == VIV_KIND_TEXT) {
    size_t had = r->text ? strlen(r->text) : 0;
    r->text = realloc(r->text, had + e->bytes.len + 1);
    memcpy(r->text + had, e->bytes.ptr, e->bytes.len);
    r->text[had + e->bytes.len] = 0;
  }
  if (e->kind == VIV_KIND_TENSOR && viv__str_eq(e->name, "ids")) {
    r->n_ids = (int64_t)(e->tensor->bytes / 8);
    memcpy(r->ids, e->tensor->data, e->tensor->bytes);
  }
}

static inline void drain(viv_job *job, result *r) {
  viv_event e;
  uint64_t expected = 0;
  bool ended = false;
  memset(r, 0, sizeof *r);
  r->text = strdup("");
  for (;;) {
    int32_t status = viv_next_event(job, 60000, &e);
    if (status == VIV_DONE) break;
    cr_assert_eq(status, VIV_OK, "no event within a minute");
    cr_assert_not(ended, "an event follows END");
    cr_assert_eq(e.seq, expected++, "event numbers have a gap");
    r->n_events++;
    take_event(r, &e);
    if (!(e.flags & VIV_EVENT_FINAL)) continue;
    cr_assert_eq(e.kind, VIV_KIND_END);
    ended = true;
    r->status = e.status;
    snprintf(r->counters, sizeof r->counters, "%.*s", (int)e.bytes.len, e.bytes.ptr);
    if (e.error) r->error = *e.error;
  }
  cr_assert(ended, "the job ended without END");
}

static inline viv_job *submit(viv_model *m, viv_session *session, const char *text,
                              const char *params) {
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TEXT,
                     .name = viv__str("text"),
                     .bytes = viv__str(text)};
  const viv_value *inputs[] = {&input};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .params = params,
                   .n_inputs = 1,
                   .inputs = inputs,
                   .session = session};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  return job;
}

static inline void run(viv_model *m, viv_session *session, const char *text, const char *params,
                       result *r) {
  viv_job *job = submit(m, session, text, params);
  drain(job, r);
  viv_job_free(job);
}

static inline viv_job *submit_ids(viv_model *m, viv_session *session, const int64_t *ids, int64_t n,
                                  const char *params) {
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_I64,
                  .ndim = 2,
                  .shape = {1, n},
                  .bytes = (uint64_t)n * 8};
  t.data = malloc(t.bytes);
  memcpy(t.data, ids, t.bytes);
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TENSOR,
                     .name = viv__str("input_ids"),
                     .tensor = &t};
  const viv_value *inputs[] = {&input};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .params = params,
                   .n_inputs = 1,
                   .inputs = inputs,
                   .session = session};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  free(t.data);
  return job;
}

static inline void run_ids(viv_model *m, viv_session *session, const int64_t *ids, int64_t n,
                           const char *params, result *r) {
  viv_job *job = submit_ids(m, session, ids, n, params);
  drain(job, r);
  viv_job_free(job);
}

#endif
