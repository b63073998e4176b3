/* Running a task over tensors and pictures and keeping what comes out, for tests of models that
 * answer by passes. */
#ifndef TESTS_PASS_RT_H
#define TESTS_PASS_RT_H

#include "checkpoint/checkpoint.h"
#include "rt.h"

enum { MAX_RESULTS = 64, MAX_INPUTS = 8 };

typedef struct results {
  int32_t status, n;
  char name[MAX_RESULTS][64];
  viv_tensor tensor[MAX_RESULTS]; /* owns its data */
  viv_error error;
} results;

typedef struct inputs {
  int32_t n;
  viv_value value[MAX_INPUTS];
  viv_tensor tensor[MAX_INPUTS];
} inputs;

static inline void add_tensor(inputs *in, const char *name, const viv_tensor *t) {
  cr_assert_lt(in->n, MAX_INPUTS);
  in->tensor[in->n] = *t;
  in->value[in->n++] = (viv_value){
      .struct_size = sizeof(viv_value), .kind = VIV_KIND_TENSOR, .name = viv__str(name)};
}

/* data is not copied. */
static inline void add_data(inputs *in, const char *name, int32_t dtype, const void *data,
                            int32_t ndim, const int64_t *shape) {
  viv_tensor t = {.struct_size = sizeof t, .dtype = dtype, .ndim = ndim};
  t.bytes = viv__dtype_size(dtype);
  for (int32_t i = 0; i < ndim; i++) t.bytes *= (uint64_t)(t.shape[i] = shape[i]);
  memcpy(&t.data, &data, sizeof data);
  add_tensor(in, name, &t);
}

/* A picture's file. */
static inline void add_named_image(inputs *in, const char *name, const char *path) {
  viv_error e = VIV_ERROR_INIT;
  char *bytes = NULL;
  size_t n = 0;
  cr_assert_eq(viv__read_file(path, 1 << 24, &bytes, &n, &e), VIV_OK, "%s: %s", e.where, e.message);
  cr_assert_lt(in->n, MAX_INPUTS);
  in->value[in->n++] = (viv_value){.struct_size = sizeof(viv_value),
                                   .kind = VIV_KIND_IMAGE,
                                   .name = viv__str(name),
                                   .bytes = {bytes, n}};
}

static inline void add_image(inputs *in, const char *path) {
  add_named_image(in, "image", path);
}

static inline void run_in_session(viv_model *m, viv_session *session, const char *task, inputs *in,
                                  const char *params, results *r) {
  const viv_value *list[MAX_INPUTS];
  for (int32_t i = 0; i < in->n; i++) {
    if (in->value[i].kind == VIV_KIND_TENSOR) in->value[i].tensor = &in->tensor[i];
    list[i] = &in->value[i];
  }
  viv_request q = {.struct_size = sizeof q,
                   .task = task,
                   .params = params,
                   .n_inputs = in->n,
                   .inputs = list,
                   .session = session};
  viv_job *job = NULL;
  viv_event e;
  memset(r, 0, sizeof *r);
  r->status = viv_submit(m, &q, &job, &r->error);
  if (r->status < 0) return;
  while (viv_next_event(job, 60000, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TENSOR) {
      cr_assert_lt(r->n, MAX_RESULTS);
      snprintf(r->name[r->n], sizeof r->name[0], "%.*s", (int)e.name.len, e.name.ptr);
      r->tensor[r->n] = *e.tensor;
      r->tensor[r->n].data = malloc(e.tensor->bytes + 1);
      memcpy(r->tensor[r->n++].data, e.tensor->data, e.tensor->bytes);
    }
    if (e.kind != VIV_KIND_END) continue;
    r->status = e.status;
    if (e.error) r->error = *e.error;
  }
  viv_job_free(job);
}

static inline void run_task(viv_model *m, const char *task, inputs *in, const char *params,
                            results *r) {
  run_in_session(m, NULL, task, in, params, r);
}

static inline const viv_tensor *result_of(const results *r, const char *name) {
  for (int32_t i = 0; i < r->n; i++)
    if (!strcmp(r->name[i], name)) return &r->tensor[i];
  cr_assert_fail("no result %s (status %d, %s: %s)", name, (int)r->status, r->error.where,
                 r->error.message);
  return NULL;
}

static inline void free_results(results *r) {
  for (int32_t i = 0; i < r->n; i++) free(r->tensor[i].data);
  r->n = 0;
}

static inline void free_inputs(inputs *in) {
  for (int32_t i = 0; i < in->n; i++)
    if (in->value[i].kind == VIV_KIND_IMAGE) viv__free((char *)(uintptr_t)in->value[i].bytes.ptr);
  in->n = 0;
}

/* The task fails with that code, and its message holds these words. */
static inline void expect_error(viv_model *m, const char *task, inputs *in, const char *params,
                                int32_t code, const char *words) {
  results r;
  run_task(m, task, in, params, &r);
  cr_assert_eq(r.status, code, "%s: %s", r.error.where, r.error.message);
  bool there = strstr(r.error.message, words) || strstr(r.error.where, words);
  cr_assert(there, "\"%s\" is not in \"%s: %s\"", words, r.error.where, r.error.message);
  free_results(&r);
}

#endif
