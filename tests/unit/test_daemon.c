/* vivd from outside: the same results as in this process, and what survives which accident. */
#include "vivd_rt.h"

#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/client.h"
#include "wire/wire.h"

TestSuite(daemon, .init = setup_daemon, .fini = teardown_daemon, .timeout = 120);

static const char greedy[] = "{\"max_new_tokens\": 60}";

/* What ps says; the caller frees it. */
static viv_json *ps(viv_runtime *rt) {
  viv_text text = {0};
  viv_json *json = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__remote_call(rt, 0, "ps", NULL, &text, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(viv__json_parse(text.ptr, text.len, "ps", &json, &e), VIV_OK);
  viv_text_free(&text);
  return json;
}

/* One member of the only model that the daemon has. */
static double number_of_model(viv_runtime *rt, const char *field) {
  viv_json *json = ps(rt);
  double v = viv__json_num(viv__json_item(viv__json_get(json, "models"), 0), field, -1);
  viv__json_free(json);
  return v;
}

static pid_t worker_of_model(viv_runtime *rt) {
  for (int i = 0; i < 500; i++) {
    double pid = number_of_model(rt, "pid");
    if (pid > 0) return (pid_t)pid;
    pause_ms(10);
  }
  cr_assert_fail("the model has no worker");
  return 0;
}

/* ---- the same as in this process ---- */

Test(daemon, answers_as_in_process) {
  viv_runtime *here = open_runtime(), *there = connect_daemon();
  viv_model *a = load(here, STORIES), *b = load(there, STORIES);
  result mine, theirs;
  static const char *const params[] = {"{\"max_new_tokens\": 60}",
                                       "{\"max_new_tokens\": 60, \"do_sample\": true, "
                                       "\"temperature\": 0.9, \"seed\": 7}"};
  for (int i = 0; i < 2; i++) {
    run(a, NULL, "Once upon a time", params[i], &mine);
    run(b, NULL, "Once upon a time", params[i], &theirs);
    cr_assert_eq(theirs.status, VIV_OK, "%s", theirs.error.message);
    cr_assert_str_eq(mine.text, theirs.text);
    cr_assert_eq(mine.n_ids, theirs.n_ids);
    cr_assert_eq(memcmp(mine.ids, theirs.ids, (size_t)mine.n_ids * 8), 0);
    cr_assert_eq(mine.n_events, theirs.n_events);
  }
  int32_t *ids[2];
  uint64_t n[2];
  viv_text text = {0};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_tokenize(a, "a little \"dog\"\n", 15, 1, &ids[0], &n[0], &e), VIV_OK);
  cr_assert_eq(viv_tokenize(b, "a little \"dog\"\n", 15, 1, &ids[1], &n[1], &e), VIV_OK);
  cr_assert_eq(n[0], n[1]);
  cr_assert_eq(memcmp(ids[0], ids[1], n[0] * 4), 0);
  cr_assert_eq(viv_detokenize(b, ids[1], n[1], 1, &text, &e), VIV_OK, "%s", e.message);
  cr_assert(strstr(text.ptr, "little \"dog\"\n"));
  viv_text_free(&text);
  cr_assert_eq(viv_describe(b, &text, &e), VIV_OK);
  cr_assert(strstr(text.ptr, "\"generate\""));
  viv_text_free(&text);
  viv_close(there);
  viv_close(here);
}

Test(daemon, refuses_in_the_same_words) {
  viv_runtime *here = open_runtime(), *there = connect_daemon();
  viv_model *m[2] = {load(here, STORIES), load(there, STORIES)};
  result r[2];
  for (int i = 0; i < 2; i++) run(m[i], NULL, "x", "{\"top_p\": 7}", &r[i]);
  cr_assert_eq(r[0].status, VIV_BAD_INPUT);
  cr_assert_eq(r[1].status, VIV_BAD_INPUT);
  cr_assert_str_eq(r[0].error.message, r[1].error.message);
  cr_assert_str_eq(r[0].error.where, r[1].error.where);
  viv_model *none = NULL;
  viv_error e = VIV_ERROR_INIT;
  char path[128];
  snprintf(path, sizeof path, "%s", model_dir("nobody"));
  cr_assert_eq(viv_load(there, path, NULL, &none, &e), VIV_NEVER);
  cr_assert(strstr(e.message, "test-nobody"), "%s", e.message);
  cr_assert_eq(viv_load(there, "/nowhere", NULL, &none, &e), VIV_NEVER);
  cr_assert_eq(viv_load(there, STORIES, "{\"weights\": \"int3\"}", &none, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "int3"), "%s", e.message);
  viv_close(there);
  viv_close(here);
}

Test(daemon, sessions_go_on_and_end_with_their_connection) {
  viv_runtime *here = open_runtime(), *there = connect_daemon(), *other = connect_daemon();
  viv_model *m[2] = {load(here, STORIES), load(there, STORIES)};
  viv_session *s[2];
  viv_error e = VIV_ERROR_INIT;
  result r[2];
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(viv_session_open(m[i], &s[i], &e), VIV_OK, "%s", e.message);
    run(m[i], s[i], "Once upon a time", "{\"max_new_tokens\": 20}", &r[i]);
    run(m[i], s[i], " Then", "{\"max_new_tokens\": 20}", &r[i]);
    viv_session_close(s[i]);
  }
  cr_assert_str_eq(r[0].text, r[1].text);
  /* Another connection can't guess its way into a session. */
  viv_model *theirs = load(other, STORIES);
  cr_assert_eq(viv_session_open(m[1], &s[0], &e), VIV_OK);
  cr_assert_eq(viv_session_open(theirs, &s[1], &e), VIV_OK);
  s[1]->remote_id = s[0]->remote_id;
  run(theirs, s[1], "x", greedy, &r[1]);
  cr_assert_eq(r[1].status, VIV_NOT_NOW, "%s", r[1].error.message);
  viv_close(other);
  viv_close(there);
  viv_close(here);
}

/* Saved through one daemon, resumed through the next one and in no daemon: bit for bit the same. */
Test(daemon, a_saved_session_survives_the_daemon) {
  char path[128];
  const char *twenty = "{\"max_new_tokens\": 20}";
  viv_error e = VIV_ERROR_INIT;
  viv_session *s, *resumed;
  result expected, r;
  snprintf(path, sizeof path, "%s/session", dir);
  viv_runtime *there = connect_daemon();
  viv_model *m = load(there, STORIES);
  cr_assert_eq(viv_session_open(m, &s, &e), VIV_OK);
  run(m, s, "Once upon a time", twenty, &r);
  cr_assert_eq(viv_session_save(s, path, &e), VIV_OK, "%s", e.message);
  run(m, s, " Then", twenty, &expected);
  viv_close(there);
  kill(daemon_pid, SIGKILL);
  wait_daemon(10);
  start_daemon();
  for (int i = 0; i < 2; i++) {
    viv_runtime *rt = i ? open_runtime() : connect_daemon();
    m = load(rt, STORIES);
    cr_assert_eq(viv_session_resume(m, path, &resumed, &e), VIV_OK, "%s", e.message);
    run(m, resumed, " Then", twenty, &r);
    cr_assert_str_eq(r.text, expected.text);
    viv_session_close(resumed);
    viv_close(rt);
  }
  /* What is no session of this model is refused, in the same words as without a daemon. */
  viv_error here_e = VIV_ERROR_INIT;
  write_text(
      path,
      "this is no session at all, but it is long enough to be taken for one by its length alone."
      "........................");
  viv_runtime *here = open_runtime();
  there = connect_daemon();
  cr_assert_eq(viv_session_resume(load(there, STORIES), path, &resumed, &e), VIV_BAD_INPUT);
  cr_assert_eq(viv_session_resume(load(here, STORIES), path, &resumed, &here_e), VIV_BAD_INPUT);
  cr_assert_str_eq(e.message, here_e.message);
  viv_close(there);
  viv_close(here);
}

/* ---- tensors ---- */

Test(daemon, large_tensors_cross_in_memory) {
  enum { N = 150528 }; /* a picture of 224 by 224, in floats */
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  float *x = malloc(N * sizeof *x);
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < N; i++) x[i] = (float)(i + round);
    viv_job *jobs[4];
    for (int k = 0; k < 4; k++) jobs[k] = submit_floats(m, x, N >> k, 0, 0);
    for (int k = 0; k < 4; k++) {
      viv_event e;
      cr_assert_eq(viv_next_event(jobs[k], 20000, &e), VIV_OK);
      cr_assert_eq(e.kind, VIV_KIND_TENSOR);
      cr_assert_eq(e.tensor->bytes, (uint64_t)(N >> k) * 4);
      cr_assert_eq(memcmp(e.tensor->data, x, e.tensor->bytes), 0);
      cr_assert_eq(viv_next_event(jobs[k], 20000, &e), VIV_OK);
      cr_assert_eq(e.status, VIV_OK);
      viv_job_free(jobs[k]);
    }
  }
  free(x);
  viv_close(rt);
}

/* Results that nobody has read yet keep their memory to themselves, those that find no shared region come by
 * themselves, and memory that was read is used again. */
Test(daemon, unread_results_are_not_overwritten) {
  enum { N = 40000, JOBS = 48, ROUNDS = 4 };
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  float *x = malloc(N * sizeof *x);
  for (int round = 0; round < ROUNDS; round++) {
    viv_job *jobs[JOBS];
    viv_event e;
    for (int k = 0; k < JOBS; k++) {
      for (int i = 0; i < N; i++) x[i] = (float)(round * 1000 + k);
      /* Large inputs of more than 32 jobs at once are refused: each is through before the next. */
      jobs[k] = submit_floats(m, x, N, 0, 0);
      struct pollfd done = {.fd = viv_job_fd(jobs[k]), .events = POLLIN};
      cr_assert_eq(poll(&done, 1, 20000), 1);
    }
    for (int k = 0; k < JOBS; k++) {
      cr_assert_eq(viv_next_event(jobs[k], 20000, &e), VIV_OK);
      cr_assert_eq(e.tensor->bytes, N * sizeof *x);
      const float *y = e.tensor->data;
      for (int i = 0; i < N; i++) cr_assert_eq(y[i], (float)(round * 1000 + k));
    }
    for (int k = 0; k < JOBS; k++) {
      cr_assert_eq(viv_next_event(jobs[k], 20000, &e), VIV_OK);
      cr_assert_eq(e.status, VIV_OK);
      viv_job_free(jobs[k]);
    }
  }
  free(x);
  viv_close(rt);
}

/* A result stays readable when the worker that made it is gone. */
Test(daemon, a_result_outlives_its_worker) {
  enum { N = 40000 };
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  float *x = calloc(N, sizeof *x);
  x[N - 1] = 7;
  viv_job *job = submit_floats(m, x, N, 0, 0);
  viv_event e;
  cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
  viv_error why = VIV_ERROR_INIT;
  cr_assert_eq(viv__remote_call(rt, 0, "reload", "{\"model\": \"1\"}", NULL, &why), VIV_OK, "%s",
               why.message);
  for (int i = 0; i < 5; i++) { /* the new worker takes over meanwhile */
    viv_job *other = submit_floats(m, x, N, 0, 0);
    viv_event event;
    while (viv_next_event(other, 20000, &event) == VIV_OK) cr_assert_geq(event.status, 0);
    viv_job_free(other);
    pause_ms(100);
  }
  cr_assert_eq(((const float *)e.tensor->data)[N - 1], 7);
  viv_job_free(job);
  free(x);
  viv_close(rt);
}

/* ---- stopping ---- */

Test(daemon, cancels_and_leaves_neighbours_alone) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, STORIES);
  result alone, beside, r;
  run(m, NULL, "Lily saw a", "{\"max_new_tokens\": 150}", &alone);
  srand(1);
  for (int i = 0; i < 20; i++) {
    viv_job *neighbour = submit(m, NULL, "Lily saw a", "{\"max_new_tokens\": 150}");
    viv_job *job =
        submit(m, NULL, "Once upon a time", "{\"max_new_tokens\": 100000, \"ignore_eos\": true}");
    pause_ms(rand() % 30);
    viv_job_cancel(job);
    uint64_t from = viv__now_ns();
    drain(job, &r);
    cr_assert_eq(r.status, VIV_CANCELLED, "%s", r.error.message);
    cr_assert_lt(viv__now_ns() - from, UINT64_C(2000000000));
    drain(neighbour, &beside);
    cr_assert_str_eq(alone.text, beside.text);
    viv_job_free(job);
    viv_job_free(neighbour);
  }
  viv_close(rt);
}

Test(daemon, deadlines_hold_while_running_and_unread) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("endless-events"));
  float x = 1;
  viv_job *job = submit_floats(m, &x, 1, 200, 8);
  viv_event e;
  int events = 0;
  pause_ms(600);
  do {
    cr_assert_eq(viv_next_event(job, 5000, &e), VIV_OK);
    events++;
  } while (!(e.flags & VIV_EVENT_FINAL));
  cr_assert_eq(e.status, VIV_DEADLINE);
  cr_assert_leq(events, 17, "%d events came to one who reads nothing", events);
  viv_job_free(job);
  viv_close(rt);
}

Test(daemon, a_reader_that_reads_gets_everything_in_order) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("endless-events"));
  float x = 1;
  viv_job *job = submit_floats(m, &x, 1, 0, 8);
  viv_event e;
  for (uint64_t i = 0; i < 5000; i++) {
    cr_assert_eq(viv_next_event(job, 5000, &e), VIV_OK);
    cr_assert_eq(e.seq, i);
  }
  viv_job_free(job);
  viv_close(rt);
}

Test(daemon, a_hang_costs_its_worker) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("hang-step"));
  float x = 1;
  viv_job *job = submit_floats(m, &x, 1, 0, 0);
  viv_event e;
  pause_ms(50);
  viv_job_cancel(job);
  cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
  cr_assert(e.flags & VIV_EVENT_FINAL);
  cr_assert_eq(e.status, VIV_BUG);
  cr_assert(strstr(e.error->message, "did not stop"), "%s", e.error->message);
  viv_job_free(job);
  viv_close(rt);
}

/* ---- deaths ---- */

Test(daemon, a_killed_worker_costs_its_running_jobs_one_error_each) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("endless-events")), *other = load(rt, STORIES);
  result before, after;
  float x = 1;
  run(other, NULL, "Once upon a time", greedy, &before);
  viv_job *bystander = submit(other, NULL, "Once upon a time", greedy);
  viv_unload(other);
  other = load(rt, STORIES);
  viv_job *jobs[3];
  for (int i = 0; i < 3; i++) jobs[i] = submit_floats(m, &x, 1, 0, 4);
  viv_event e;
  cr_assert_eq(viv_next_event(jobs[0], 5000, &e), VIV_OK);
  /* The newest model comes first in ps: the one whose worker is to die was loaded before. */
  viv_text ps = {0};
  viv_json *json = NULL;
  viv__remote_call(rt, 0, "ps", NULL, &ps, NULL);
  cr_assert_eq(viv__json_parse(ps.ptr, ps.len, "ps", &json, NULL), VIV_OK);
  const viv_json *models = viv__json_get(json, "models");
  for (int64_t i = 0; i < viv__json_count(models); i++) {
    const viv_json *one = viv__json_item(models, i);
    if (!strcmp(viv__json_text(one, "name", ""), "endless-events"))
      kill((pid_t)viv__json_num(one, "pid", -1), SIGKILL);
  }
  viv__json_free(json);
  viv_text_free(&ps);
  for (int i = 0; i < 3; i++) {
    result r;
    int ends = 0;
    memset(&r, 0, sizeof r);
    while (viv_next_event(jobs[i], 20000, &e) == VIV_OK)
      if (e.flags & VIV_EVENT_FINAL) {
        ends++;
        r.status = e.status;
        if (e.error) r.error = *e.error;
      }
    cr_assert_eq(ends, 1);
    cr_assert_eq(r.status, VIV_BUG);
    cr_assert(strstr(r.error.message, "signal 9"), "%s", r.error.message);
    viv_job_free(jobs[i]);
  }
  drain(bystander, &after);
  viv_job_free(bystander);
  cr_assert_str_eq(before.text, after.text);
  /* It comes again by itself. */
  viv_job *again = submit_floats(m, &x, 1, 0, 4);
  cr_assert_eq(viv_next_event(again, 20000, &e), VIV_OK);
  cr_assert_eq(e.kind, VIV_KIND_TENSOR, "%s", e.error ? e.error->message : "");
  viv_job_free(again);
  viv_close(rt);
}

Test(daemon, a_plugin_that_keeps_dying_is_put_away) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("crash-step"));
  float x = 1;
  viv_event e;
  bool quarantined = false;
  for (int i = 0; i < 60 && !quarantined; i++) {
    viv_job *job = submit_floats(m, &x, 1, 0, 0);
    cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
    cr_assert(e.flags & VIV_EVENT_FINAL);
    quarantined = strstr(e.error->message, "quarantine");
    cr_assert(quarantined || e.status == VIV_BUG || e.status == VIV_NOT_NOW, "%s",
              e.error->message);
    viv_job_free(job);
    pause_ms(100);
  }
  cr_assert(quarantined, "%s", e.error->message);
  /* Also after a restart of the daemon. */
  viv_close(rt);
  kill(daemon_pid, SIGKILL);
  wait_daemon(10);
  start_daemon();
  rt = connect_daemon();
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv_load(rt, model_dir("crash-step"), NULL, &m, &error), VIV_NEVER);
  cr_assert(strstr(error.message, "quarantine"), "%s", error.message);
  viv_close(rt);
}

Test(daemon, a_killed_daemon_ends_every_job_and_leaves_no_stale_socket) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("endless-events"));
  float x = 1;
  viv_job *job = submit_floats(m, &x, 1, 0, 4);
  viv_event e;
  cr_assert_eq(viv_next_event(job, 5000, &e), VIV_OK);
  pid_t worker = worker_of_model(rt);
  kill(daemon_pid, SIGKILL);
  wait_daemon(10);
  int ends = 0;
  while (viv_next_event(job, 5000, &e) == VIV_OK)
    if (e.flags & VIV_EVENT_FINAL) {
      ends++;
      cr_assert_eq(e.status, VIV_NOT_NOW);
    }
  cr_assert_eq(ends, 1);
  viv_error error = VIV_ERROR_INIT;
  viv_model *none = NULL;
  cr_assert_eq(viv_load(rt, STORIES, NULL, &none, &error), VIV_NOT_NOW);
  viv_job_free(job);
  viv_close(rt);
  for (int i = 0; i < 300 && !kill(worker, 0); i++) pause_ms(10);
  cr_assert(kill(worker, 0) && errno == ESRCH, "the worker outlives its daemon");
  start_daemon();
  rt = connect_daemon();
  result r;
  run(load(rt, STORIES), NULL, "Once", greedy, &r);
  cr_assert_eq(r.status, VIV_OK);
  viv_close(rt);
}

Test(daemon, sigterm_lets_running_jobs_end) {
  viv_runtime *rt = connect_daemon(), *other = NULL;
  viv_model *m = load(rt, STORIES);
  result r, late;
  viv_job *job =
      submit(m, NULL, "Once upon a time", "{\"max_new_tokens\": 400, \"ignore_eos\": true}");
  viv_event e;
  cr_assert_eq(viv_next_event(job, 5000, &e), VIV_OK);
  kill(daemon_pid, SIGTERM);
  viv_error error = VIV_ERROR_INIT;
  for (int i = 0; i < 200 && access(socket_path, F_OK) == 0; i++) pause_ms(5);
  cr_assert_eq(viv_connect(socket_path, &other, &error), VIV_NOT_NOW);
  run(m, NULL, "x", greedy, &late);
  cr_assert_neq(late.status, VIV_OK);
  int ends = 0;
  memset(&r, 0, sizeof r);
  while (viv_next_event(job, 20000, &e) == VIV_OK)
    if (e.flags & VIV_EVENT_FINAL) {
      ends++;
      r.status = e.status;
    }
  cr_assert_eq(ends, 1);
  cr_assert_eq(r.status, VIV_OK);
  cr_assert_eq(wait_daemon(5), 0);
  viv_job_free(job);
  viv_close(rt);
}

/* ---- many ---- */

static void *many(void *context) {
  const result *expected = context;
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, STORIES);
  for (int i = 0; i < 3; i++) {
    result r;
    run(m, NULL, "Once upon a time", greedy, &r);
    if (r.status != VIV_OK || strcmp(r.text, expected->text)) return "another answer";
    free(r.text);
  }
  viv_close(rt);
  return NULL;
}

Test(daemon, sixty_four_connections_get_the_same_answer) {
  enum { N = 64 };
  viv_runtime *rt = connect_daemon();
  result expected;
  run(load(rt, STORIES), NULL, "Once upon a time", greedy, &expected);
  pthread_t threads[N];
  for (int i = 0; i < N; i++) cr_assert_eq(pthread_create(&threads[i], NULL, many, &expected), 0);
  for (int i = 0; i < N; i++) {
    void *wrong = NULL;
    pthread_join(threads[i], &wrong);
    cr_assert_null(wrong, "%s", (const char *)wrong);
  }
  viv_close(rt);
}

Test(daemon, a_reload_under_load_fails_nothing) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, STORIES);
  result expected, r;
  run(m, NULL, "Once upon a time", greedy, &expected);
  pid_t first = worker_of_model(rt);
  viv_error e = VIV_ERROR_INIT;
  for (int i = 0; i < 10; i++) {
    int32_t status = viv__remote_call(rt, 0, "reload", "{\"model\": \"1\"}", NULL, &e);
    cr_assert(status == VIV_OK || status == VIV_NOT_NOW, "%s", e.message);
    for (int k = 0; k < 10; k++) {
      run(m, NULL, "Once upon a time", greedy, &r);
      cr_assert_eq(r.status, VIV_OK, "%s", r.error.message);
      cr_assert_str_eq(r.text, expected.text);
      free(r.text);
    }
  }
  cr_assert_neq(worker_of_model(rt), first);
  viv_close(rt);
}

Test(daemon, an_unloaded_model_comes_back_when_it_is_wanted) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, STORIES);
  result r;
  viv_error e = VIV_ERROR_INIT;
  for (int i = 0; i < 5; i++) {
    cr_assert_eq(viv__remote_call(rt, 0, "unload", "{\"model\": \"1\"}", NULL, &e), VIV_OK);
    for (int k = 0; k < 200 && number_of_model(rt, "pid") > 0; k++) pause_ms(10);
    cr_assert_eq(number_of_model(rt, "pid"), 0);
    run(m, NULL, "Once upon a time", greedy, &r);
    cr_assert_eq(r.status, VIV_OK, "%s", r.error.message);
  }
  viv_close(rt);
}

Test(daemon, a_worker_can_reach_nothing_but_its_model) {
  static const char *const what[] = {
      "/etc/passwd was opened",      "a file was made in /tmp", "/tmp was opened",
      "an Internet socket was made", "a Unix socket was made",  "a program was run",
      "the daemon was signalled",    "ptrace was allowed",      "a namespace was made"};
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("escapes"));
  viv_text ps = {0};
  cr_assert_eq(viv__remote_call(rt, 0, "ps", NULL, &ps, NULL), VIV_OK);
  bool files = !strstr(ps.ptr, "\"landlock_abi\":0"), calls = strstr(ps.ptr, "\"seccomp\":true");
  bool signals = strstr(ps.ptr, "\"signals\":\"own processes only\"");
  float x = 1;
  viv_job *job = submit_floats(m, &x, 1, 0, 0);
  viv_event e;
  cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
  cr_assert_eq(e.kind, VIV_KIND_TENSOR, "%s", e.error ? e.error->message : "");
  const float *failed = e.tensor->data;
  for (int i = 0; i < 9; i++) {
    /* What the kernel does not offer can't be asked for; doctor and ps say so. */
    bool ours = i < 3 ? files : i == 6 ? signals : calls;
    cr_assert(!ours || failed[i] != 0, "%s", what[i]);
  }
  viv_text_free(&ps);
  viv_job_free(job);
  viv_close(rt);
}

/* The state of the model of that name, as ps says it. */
static void state_of(viv_runtime *rt, const char *name, char out[16]) {
  viv_json *json = ps(rt);
  *out = 0;
  const viv_json *models = viv__json_get(json, "models");
  for (int64_t i = 0; i < viv__json_count(models); i++) {
    const char *path = viv__json_text(viv__json_item(models, i), "path", "");
    const char *slash = strrchr(path, '/');
    if (slash && !strcmp(slash + 1, name))
      snprintf(out, 16, "%s", viv__json_text(viv__json_item(models, i), "state", ""));
  }
  viv__json_free(json);
}

static bool comes_to(viv_runtime *rt, const char *name, const char *state) {
  char now[16] = "";
  for (int i = 0; i < 500; i++) {
    state_of(rt, name, now);
    if (!strcmp(now, state)) return true;
    pause_ms(10);
  }
  return false;
}

/* Of three models two fit: the one that was unused longest leaves, a pinned one never. */
Test(daemon, the_budget_unloads_what_was_unused_longest) {
  char paths[3][128], text[640];
  const char *names[] = {"a", "b", "c"};
  float x[4] = {1, 2, 3, 4};
  viv_runtime *rt = connect_daemon();
  viv_model *m[3];
  viv_event e;
  viv_error why = VIV_ERROR_INIT;
  for (int i = 0; i < 3; i++) {
    snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i]);
    mkdir(paths[i], 0755);
    snprintf(text, sizeof text, "%s/config.json", paths[i]);
    write_text(text, "{\"model_type\": \"test-good\"}");
  }
  m[0] = load(rt, paths[0]);
  double bytes = number_of_model(rt, "bytes");
  cr_assert_gt(bytes, 0);
  snprintf(text, sizeof text, "{\"memory_budget\": %.0f}", bytes * 2.5);
  write_text(config_path, text);
  kill(daemon_pid, SIGHUP);
  pause_ms(200);
  m[1] = load(rt, paths[1]);
  viv_job *job = submit_floats(m[0], x, 4, 0, 0);
  while (viv_next_event(job, 20000, &e) == VIV_OK) cr_assert_geq(e.status, 0);
  viv_job_free(job);
  m[2] = load(rt, paths[2]);
  cr_assert(comes_to(rt, "b", "unloaded"), "the one that was unused longest stays");
  cr_assert(comes_to(rt, "a", "ready") && comes_to(rt, "c", "ready"));
  snprintf(text, sizeof text, "{\"model\": \"%s\", \"pin\": true}", paths[0]);
  cr_assert_eq(viv__remote_call(rt, 0, "pin", text, NULL, &why), VIV_OK);
  m[1] = load(rt, paths[1]);
  cr_assert(comes_to(rt, "c", "unloaded"), "the one that is not pinned stays");
  cr_assert(comes_to(rt, "a", "ready") && comes_to(rt, "b", "ready"));
  snprintf(text, sizeof text, "{\"model\": \"%s\", \"pin\": true}", paths[1]);
  cr_assert_eq(viv__remote_call(rt, 0, "pin", text, NULL, &why), VIV_OK);
  cr_assert_eq(viv_load(rt, paths[2], NULL, &m[2], &why), VIV_NOT_NOW);
  cr_assert(strstr(why.message, "busy or pinned"), "%s", why.message);
  cr_assert(comes_to(rt, "a", "ready") && comes_to(rt, "b", "ready"));
  viv_close(rt);
}
