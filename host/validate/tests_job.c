/* Tests of jobs: that they run, wait, stop when cancelled, and survive bad requests. */
#include <string.h>

#include "validate/tests.h"

static bool lists(const viv_json *manifest, const char *key, const char *name) {
  const viv_json *list = viv__json_get(manifest, key);
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (viv__str_eq(viv__json_string(viv__json_item(list, i)), name)) return true;
  return false;
}

/* ---- level 6: jobs ---- */

struct job_setup {
  struct opened o;
  viv_job job;
  viv_json *doc;
  viv_tensor tensor[8];
  viv_value value[8];
  const viv_value *inputs[8];
  char names[8][64];
  float data[12];
  viv_plugin_request request;
  viv_plugin_job *running;
};

/* Opens the model and makes a request of the first task, with small tensors for the inputs that
 * describe names (x when it names none). */
static bool job_start(struct context *c, struct job_setup *j, int flags) {
  memset(j, 0, sizeof *j);
  if (!viv__v_start(c, &j->o, flags)) return false;
  if (!c->api->job_begin) {
    viv__v_skip(c, "a token model: the host runs its jobs");
    return false;
  }
  if (!viv__v_readable_describe(c, &j->o, &j->doc)) return false;
  const viv_json *tasks = viv__json_get(c->manifest, "tasks");
  viv_str task = viv__json_string(viv__json_item(tasks, 0));
  if (lists(c->manifest, "tasks", "forward")) task = viv__str("forward");
  const viv_json *described = viv__json_member(viv__json_get(j->doc, "tasks"), task);
  const viv_json *inputs = viv__json_get(described, "inputs");
  int64_t n = viv__json_count(inputs);
  if (n > 8) n = 8;
  if (n < 1) n = 1;
  for (int i = 0; i < 12; i++) j->data[i] = (float)i / 8.0f - 0.5f;
  for (int64_t i = 0; i < n; i++) {
    viv_str key = viv__json_key(viv__json_item(inputs, i));
    snprintf(j->names[i], sizeof j->names[i], "%.*s", (int)(key.len ? key.len : 1),
             key.len ? key.ptr : "x");
    j->tensor[i] = (viv_tensor){.struct_size = sizeof j->tensor[i],
                                .flags = VIV_TENSOR_READ_ONLY,
                                .data = j->data,
                                .bytes = 4 * sizeof(float),
                                .dtype = VIV_F32,
                                .ndim = 2,
                                .shape = {1, 4}};
    j->value[i] = (viv_value){.struct_size = sizeof j->value[i],
                              .kind = VIV_KIND_TENSOR,
                              .name = viv__str(j->names[i]),
                              .tensor = &j->tensor[i]};
    j->inputs[i] = &j->value[i];
  }
  j->request = (viv_plugin_request){
      .struct_size = sizeof j->request, .n_inputs = (int32_t)n, .task = task, .inputs = j->inputs};
  j->job.c = c;
  j->job.arena = viv__arena_new(ARENA_LIMIT);
  return true;
}

static int32_t job_begin(struct context *c, struct job_setup *j, viv_error *error) {
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "job_begin (task %.*s)", (int)j->request.task.len,
                j->request.task.ptr);
  int32_t status = c->api->job_begin(j->o.model, &j->request, &j->job, &j->running, error);
  viv__v_after(c);
  viv__v_check_failure(c, "job_begin", status, error);
  return status;
}

static int32_t job_step(struct context *c, struct job_setup *j, viv_error *error) {
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "job_step");
  int32_t status = c->api->job_step(j->running, error);
  viv__v_after(c);
  if (status == VIV_CANCELLED || status == VIV_DEADLINE) {
    if (!j->job.stop) viv__v_fail(c, "job_step answered %d, but nobody cancelled", status);
  } else {
    viv__v_check_failure(c, "job_step", status, error);
  }
  if (status == VIV_OK) viv__v_fail(c, "job_step answered OK; MORE, WAIT and DONE exist");
  return status;
}

static void job_end(struct context *c, struct job_setup *j) {
  if (j->running) {
    viv__v_before(c, VIV_THREAD_JOB, "job_end");
    c->api->job_end(j->running);
    viv__v_after(c);
  }
  j->running = NULL;
}

static void job_stop(struct context *c, struct job_setup *j) {
  job_end(c, j);
  viv__v_arena_free(c, j->job.arena);
  j->job.arena = NULL;
  viv__json_free(j->doc);
  j->doc = NULL;
  viv__v_close_it(c, &j->o);
}

enum { MAX_STEPS = 100000, MAX_EVENTS = 10000 };

/* Runs to the end, or until the job is plainly endless. */
static int32_t job_run(struct context *c, struct job_setup *j, viv_error *error) {
  int32_t status = VIV_MORE;
  uint64_t until = viv__now_ns() + 6000000000u;
  for (int i = 0; status > 0 && status != VIV_DONE && !viv__v_failed(c); i++) {
    if (i == MAX_STEPS || j->job.n_events > MAX_EVENTS || viv__now_ns() > until) {
      viv__v_fail(c, "the job does not end: %d steps and %lld events so far", i,
                  (long long)j->job.n_events);
      break;
    }
    int64_t waits = j->job.n_waits;
    status = job_step(c, j, error);
    if (j->job.n_waits > waits && status != VIV_WAIT)
      viv__v_fail(c, "emit answered WAIT, but the step answered %d instead of WAIT", status);
    else if (status == VIV_WAIT && j->job.n_waits == waits)
      viv__v_fail(c, "job_step answered WAIT, but nothing made it wait");
  }
  return status;
}

/* Begins, or skips the test when the request that could be made up is not to the plugin's liking.
 * */
static bool begun(struct context *c, struct job_setup *j, viv_error *error) {
  if (job_begin(c, j, error) >= 0) return !viv__v_failed(c);
  if (!viv__v_failed(c))
    viv__v_skip(c, "the inputs that the validator can make up are refused: %s", error->message);
  return false;
}

void viv__v_test_job_runs(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    int32_t status = job_run(c, &j, &error);
    if (status < 0)
      viv__v_skip(c, "the job of made-up inputs ended with %d: %s", status, error.message);
    else if (!j.job.n_events)
      viv__v_fail(c, "the job was done without one event");
    if (j.job.nan_seen) viv__v_fail(c, "a tensor holds NaN or infinity, from finite inputs");
  }
  job_stop(c, &j);
}

void viv__v_test_job_wait(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  j.job.wait_first = 3;
  if (begun(c, &j, &error)) {
    job_run(c, &j, &error);
    if (j.job.n_waits && j.job.repeated_wrong)
      viv__v_fail(c, "after WAIT another event came than the one that was not taken");
    else if (j.job.refused_hash && !viv__v_failed(c))
      viv__v_fail(c, "an event that was answered with WAIT never came again");
  }
  job_stop(c, &j);
}

void viv__v_test_job_bad_input(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  const viv_plugin_request good = j.request;
  for (int kind = 0; kind < 6; kind++) {
    j.request = good;
    j.value[0].kind = VIV_KIND_TENSOR;
    j.value[0].bytes = (viv_str){NULL, 0};
    j.value[0].tensor = &j.tensor[0];
    j.tensor[0].ndim = 2;
    j.tensor[0].dtype = VIV_F32;
    j.tensor[0].shape[0] = 1;
    j.tensor[0].bytes = 16;
    if (kind == 0) j.request.n_inputs = 0;
    if (kind == 1) j.request.task = viv__str("no-such-task");
    if (kind == 2) {
      j.value[0].kind = VIV_KIND_TEXT;
      j.value[0].bytes = viv__str("text where a tensor belongs");
      j.value[0].tensor = NULL;
    }
    if (kind == 3) { /* an empty tensor */
      j.tensor[0].shape[0] = 0;
      j.tensor[0].bytes = 0;
    }
    if (kind == 4) { /* a scalar of another type */
      j.tensor[0].ndim = 0;
      j.tensor[0].dtype = VIV_I64;
      j.tensor[0].bytes = 8;
    }
    if (kind == 5) {
      j.tensor[0].ndim = VIV_MAX_DIMS;
      for (int i = 0; i < VIV_MAX_DIMS; i++) j.tensor[0].shape[i] = 1;
      j.tensor[0].bytes = 4;
    }
    j.running = NULL;
    int32_t status = job_begin(c, &j, &error);
    if (status < 0 && j.running) viv__v_fail(c, "a failing job_begin wrote to its out-parameter");
    if (status >= 0 && kind == 1) viv__v_fail(c, "takes a task that it does not know");
    if (status >= 0 && j.running) {
      job_run(c, &j, &error);
      job_end(c, &j);
    }
    j.running = NULL;
    if (viv__v_failed(c)) break;
  }
  job_stop(c, &j);
}

/* ---- level 7 ---- */

struct canceller {
  viv_job *job;
  uint64_t at;
};

static void *cancel_later(void *arg) {
  struct canceller *k = arg;
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  k->at = viv__now_ns();
  k->job->stop = VIV_CANCELLED;
  return NULL;
}

void viv__v_test_cancel(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    struct canceller k = {.job = &j.job};
    pthread_t thread;
    viv__v_watch_state(false);
    int32_t status = VIV_MORE;
    if (!pthread_create(&thread, NULL, cancel_later, &k)) {
      uint64_t returned = 0;
      while (status > 0 && status != VIV_DONE && !viv__v_failed(c)) {
        status = job_step(c, &j, &error);
        returned = viv__now_ns();
        if (j.job.stop) break; /* between steps the host cancels by itself */
      }
      pthread_join(thread, NULL);
      double declared = viv__json_num(c->manifest, "cancel_latency_ms", 50);
      double took = k.at && returned > k.at ? (double)(returned - k.at) / 1e6 : 0;
      if (took > declared + 100)
        viv__v_fail(c, "a cancel took %.0f ms; the manifest declares %.0f", took, declared);
    }
    viv__v_watch_state(true);
  }
  job_stop(c, &j);
}

void viv__v_test_cancelled_before(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    j.job.stop = VIV_CANCELLED;
    for (int i = 0; i < 1000; i++) {
      int32_t status = job_step(c, &j, &error);
      if (status < 0 || status == VIV_DONE) break;
      if (i == 999) viv__v_fail(c, "1000 steps after a cancel the job still goes on");
    }
    if (j.job.n_events) viv__v_fail(c, "an event was taken after the cancel");
  }
  job_stop(c, &j);
}

/* ---- level 8: resources ---- */

void viv__v_test_job_no_memory(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  for (long k = 1; k <= 64 && !viv__v_failed(c); k++) {
    viv__v_fail_arena(k);
    int32_t status = job_begin(c, &j, &error);
    if (status >= 0) status = job_run(c, &j, &error);
    bool reached = viv__v_fail_arena(0) >= k;
    job_end(c, &j);
    if (!reached) break; /* the job needs fewer allocations than that */
  }
  job_stop(c, &j);
}

/* ---- level 9: fuzz ---- */

void viv__v_test_fuzz_job(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  uint64_t random = c->seed, until = viv__now_ns() + 6000000000u;
  static const int32_t sizes[] = {0, 4, 8, 2, 2, 8, 4, 2, 1, 1, 1};
  for (int i = 0; i < 300 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    for (int32_t k = 0; k < j.request.n_inputs; k++) {
      viv_tensor *t = &j.tensor[k];
      t->dtype = viv__v_next_random(&random) % 3 ? VIV_F32
                                                 : (int32_t)(1 + viv__v_next_random(&random) % 10);
      t->ndim = (int32_t)(viv__v_next_random(&random) % 5);
      int64_t n = 1;
      for (int32_t d = 0; d < t->ndim; d++) {
        t->shape[d] = (int64_t)(viv__v_next_random(&random) % 4);
        if (n * t->shape[d] * sizes[t->dtype] > (int64_t)sizeof j.data) t->shape[d] = 1;
        n *= t->shape[d];
      }
      t->bytes = (uint64_t)(n * sizes[t->dtype]);
      uint64_t noise = viv__v_next_random(&random);
      memcpy(j.data, &noise, sizeof noise);
    }
    viv__v_watch_state(i % 16 == 0);
    j.job.n_events = 0;
    int32_t status = job_begin(c, &j, &error);
    if (status >= 0) status = job_run(c, &j, &error);
    job_end(c, &j);
  }
  viv__v_watch_state(true);
  job_stop(c, &j);
}
