/* What a program that embeds libvivarium relies on: jobs, events, cancelling, deadlines, order,
 * back-pressure, budgets, and clear answers to wrong requests. */
#include <poll.h>
#include <time.h>

#include "rt.h"

Test(runtime, without_plugins_it_says_where_it_looked) {
  viv_runtime *rt = NULL;
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  viv_text why = {0};
  viv_options o = {.struct_size = sizeof o, .plugin_path = "/no/such/folder:/nor/this"};
  cr_assert_eq(viv_open(&o, &rt, &e), VIV_OK);
  cr_assert_eq(viv_load(rt, STORIES, NULL, &m, &e), VIV_NEVER);
  cr_assert(strstr(e.message, "/no/such/folder (absent), /nor/this (absent)"), "%s", e.message);
  cr_assert_eq(viv_why(rt, STORIES, &why, &e), VIV_OK);
  cr_assert(strstr(why.ptr, "no plugin found"), "%s", why.ptr);
  viv_text_free(&why);
  viv_close(rt);
}

Test(runtime, stories260K_gives_its_200_greedy_ids) {
  char *text = NULL;
  size_t len = 0;
  viv_json *ids = NULL;
  cr_assert_eq(viv__read_file(STORIES "/greedy_200_ids.json", 1 << 20, &text, &len, NULL), VIV_OK);
  cr_assert_eq(viv__json_parse(text, len, "ids", &ids, NULL), VIV_OK);
  const viv_json *list = viv__json_type(ids) == VIV_JSON_ARRAY ? ids : viv__json_item(ids, 0);
  int64_t n = viv__json_count(list), first = (int64_t)viv__json_number(viv__json_item(list, 0));
  cr_assert_geq(n, 200);
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result r;
  run_ids(m, NULL, &first, 1, "{\"max_new_tokens\":199,\"ignore_eos\":true}", &r);
  cr_assert_eq(r.status, VIV_OK);
  cr_assert_eq(r.n_ids, 199);
  for (int64_t i = 1; i < 200; i++)
    cr_assert_eq(r.ids[i - 1], (int64_t)viv__json_number(viv__json_item(list, i)), "id %d", (int)i);
  viv_unload(m);
  viv_close(rt);
  viv__json_free(ids);
  viv__free(text);
}

Test(runtime, a_cancelled_job_ends_as_cancelled_and_the_next_one_runs) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_job *job = submit(m, NULL, "Once", "{\"max_new_tokens\":500,\"ignore_eos\":true}");
  viv_event e;
  cr_assert_eq(viv_next_event(job, 10000, &e), VIV_OK);
  viv_job_cancel(job);
  while (!(e.flags & VIV_EVENT_FINAL)) cr_assert_eq(viv_next_event(job, 10000, &e), VIV_OK);
  cr_assert_eq(e.status, VIV_CANCELLED);
  cr_assert_not_null(e.error);
  cr_assert_eq(viv_next_event(job, 0, &e), VIV_DONE);
  viv_job_free(job);
  result r;
  run(m, NULL, "Once", "{\"max_new_tokens\":5}", &r);
  cr_assert_eq(r.status, VIV_OK);
  viv_close(rt);
}

Test(runtime, a_deadline_ends_a_job_that_runs_and_one_that_waits) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_value text = {.struct_size = sizeof text,
                    .kind = VIV_KIND_TEXT,
                    .name = viv__str("text"),
                    .bytes = viv__str("Once")};
  const viv_value *inputs[] = {&text};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .n_inputs = 1,
                   .inputs = inputs,
                   .params = "{\"max_new_tokens\":500,\"ignore_eos\":true}",
                   .deadline_ms = 30,
                   .max_queued_events = 1};
  viv_job *job = NULL;
  cr_assert_eq(viv_submit(m, &q, &job, NULL), VIV_OK);
  usleep(100000); /* nobody reads, so the job can only stand and wait */
  result r;
  drain(job, &r);
  cr_assert_eq(r.status, VIV_DEADLINE);
  viv_job_free(job);
  viv_close(rt);
}

Test(runtime, a_slow_reader_loses_nothing) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result fast, slow;
  run(m, NULL, "Once upon a time", "{\"max_new_tokens\":80}", &fast);
  viv_value text = {.struct_size = sizeof text,
                    .kind = VIV_KIND_TEXT,
                    .name = viv__str("text"),
                    .bytes = viv__str("Once upon a time")};
  const viv_value *inputs[] = {&text};
  for (int64_t queue = 1; queue <= 3; queue++) {
    viv_request q = {.struct_size = sizeof q,
                     .task = "generate",
                     .n_inputs = 1,
                     .inputs = inputs,
                     .params = "{\"max_new_tokens\":80}",
                     .max_queued_events = queue};
    viv_job *job = NULL;
    cr_assert_eq(viv_submit(m, &q, &job, NULL), VIV_OK);
    usleep(20000);
    drain(job, &slow);
    cr_assert_eq(slow.status, VIV_OK);
    cr_assert_str_eq(slow.text, fast.text);
    viv_job_free(job);
  }
  viv_close(rt);
}

Test(runtime, jobs_in_one_batch_give_what_each_gives_alone) {
  static const char *const prompts[] = {
      "Once upon a time", "Lily",     "The dog", "A",   "One day, Tom and", "She saw a big",
      "In the park",      "Mom said", "The end", "Bob", "It was cold",      "They ran"};
  enum { N = sizeof prompts / sizeof *prompts };
  const char *models[] = {STORIES, REASONER};
  for (int k = 0; k < 2; k++) {
    viv_runtime *rt = open_runtime();
    viv_model *m = load(rt, models[k]);
    result alone[N], joined;
    viv_job *jobs[N];
    const char *params = "{\"max_new_tokens\":60,\"ignore_eos\":true}";
    for (int i = 0; i < N; i++) run(m, NULL, prompts[i], params, &alone[i]);
    for (int i = 0; i < N; i++) jobs[i] = submit(m, NULL, prompts[i], params);
    for (int i = 0; i < N; i++) {
      drain(jobs[i], &joined);
      cr_assert_eq(joined.status, VIV_OK);
      cr_assert_str_eq(joined.text, alone[i].text, "%s: prompt %d", models[k], i);
      viv_job_free(jobs[i]);
    }
    viv_close(rt);
  }
}

Test(runtime, a_more_urgent_job_goes_first) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  enum { N = 48 };
  viv_job *jobs[N];
  for (int i = 0; i < N; i++)
    jobs[i] = submit(m, NULL, "Once", "{\"max_new_tokens\":200,\"ignore_eos\":true}");
  viv_value text = {.struct_size = sizeof text,
                    .kind = VIV_KIND_TEXT,
                    .name = viv__str("text"),
                    .bytes = viv__str("Once")};
  const viv_value *inputs[] = {&text};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .n_inputs = 1,
                   .inputs = inputs,
                   .params = "{\"max_new_tokens\":1}",
                   .priority = 5};
  viv_job *urgent = NULL;
  cr_assert_eq(viv_submit(m, &q, &urgent, NULL), VIV_OK);
  result r;
  drain(urgent, &r);
  viv_event e;
  int32_t last = viv_next_event(jobs[N - 1], 0, &e);
  cr_assert_eq(last, VIV_WAIT, "the job that was queued before began before the urgent one");
  viv_job_free(urgent);
  for (int i = 0; i < N; i++) viv_job_free(jobs[i]);
  viv_close(rt);
}

Test(runtime, the_descriptor_is_readable_while_events_wait) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_job *job = submit(m, NULL, "Once", "{\"max_new_tokens\":20}");
  struct pollfd p = {.fd = viv_job_fd(job), .events = POLLIN};
  viv_event e = {0};
  int events = 0;
  while (!(e.flags & VIV_EVENT_FINAL)) {
    cr_assert_eq(poll(&p, 1, 10000), 1);
    while (viv_next_event(job, 0, &e) == VIV_OK) events++;
  }
  cr_assert_gt(events, 2);
  viv_job_free(job);
  viv_close(rt);
}

Test(runtime, inline_jobs_give_the_same_and_refuse_when_busy) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result queued, direct;
  viv_error e = VIV_ERROR_INIT;
  run(m, NULL, "Once", "{\"max_new_tokens\":300}", &queued);
  viv_value text = {.struct_size = sizeof text,
                    .kind = VIV_KIND_TEXT,
                    .name = viv__str("text"),
                    .bytes = viv__str("Once")};
  const viv_value *inputs[] = {&text};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .n_inputs = 1,
                   .inputs = inputs,
                   .params = "{\"max_new_tokens\":300}"};
  viv_job *job = NULL;
  cr_assert_eq(viv_run_inline(m, &q, &job, &e), VIV_OK, "%s", e.message);
  drain(job, &direct);
  viv_job_free(job);
  cr_assert_str_eq(queued.text, direct.text);
  q.max_queued_events = 1; /* stands still, so the model is surely busy */
  cr_assert_eq(viv_submit(m, &q, &job, NULL), VIV_OK);
  viv_job *second = NULL;
  viv_event event;
  cr_assert_eq(viv_next_event(job, 10000, &event), VIV_OK);
  cr_assert_eq(viv_run_inline(m, &q, &second, &e), VIV_NOT_NOW);
  viv_job_free(job);
  viv_close(rt);
}

Test(runtime, a_model_beyond_the_budget_is_refused_with_both_numbers) {
  viv_runtime *rt = open_runtime_with(600 * 1024);
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_load(rt, STORIES, NULL, &m, &e), VIV_NOT_NOW);
  cr_assert(strstr(e.message, "needs 1.0 MiB, available are 0.6 MiB"), "%s", e.message);
  viv_close(rt);
}

Test(runtime, two_runtimes_live_side_by_side) {
  viv_runtime *a = open_runtime(), *b = open_runtime();
  viv_model *ma = load(a, STORIES), *mb = load(b, STORIES);
  viv_job *ja = submit(ma, NULL, "Once", "{\"max_new_tokens\":50}");
  viv_job *jb = submit(mb, NULL, "Once", "{\"max_new_tokens\":50}");
  result ra, rb;
  drain(ja, &ra);
  viv_job_free(ja);
  viv_close(a);
  drain(jb, &rb);
  cr_assert_str_eq(ra.text, rb.text);
  viv_job_free(jb);
  viv_close(b);
}

Test(runtime, closing_ends_what_runs) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_job *jobs[30];
  for (int i = 0; i < 30; i++)
    jobs[i] = submit(m, NULL, "Once", "{\"max_new_tokens\":500,\"ignore_eos\":true}");
  uint64_t before = viv__now_ns();
  for (int i = 0; i < 30; i++) viv_job_free(jobs[i]);
  viv_close(rt);
  cr_assert_lt(viv__now_ns() - before, 5000000000u, "closing took over five seconds");
}

/* What is wrong, and a word that the answer must hold. */
static const struct {
  const char *params, *where, *word;
} wrong[] = {
    {"{", "params", "JSON"},
    {"[1]", "params", "object"},
    {"{\"max_new_tokens\":-1}", "max_new_tokens", "whole number"},
    {"{\"max_new_tokens\":1.5}", "max_new_tokens", "whole number"},
    {"{\"temperature\":\"hot\",\"do_sample\":true}", "temperature", "number"},
    {"{\"top_p\":2,\"do_sample\":true}", "top_p", "from 0 to 1"},
    {"{\"strategy\":\"oracle\"}", "strategy", "oracle"},
    {"{\"eos_token_id\":99999}", "eos_token_id", "512"},
    {"{\"stop\":[\"a\",7]}", "stop", "text"},
    {"{\"num_beams\":0}", "num_beams", "1"},
    {"{\"chunk\":0}", "params.chunk", "1 or more"},
    {"{\"logit_bias\":{\"x\":1}}", "logit_bias", "token id"},
    {"{\"taps\":\"layer.0\"}", "params.taps", "list"},
    {"{\"strategy\":\"prompt-lookup\",\"prompt_lookup_num_tokens\":0}", "prompt_lookup_num_tokens",
     "1"},
};

Test(runtime, wrong_parameters_are_named) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    viv_job *job = NULL;
    viv_error e = VIV_ERROR_INIT;
    int32_t status = viv_submit_text(m, "Once", wrong[i].params, &job, &e);
    if (status == VIV_OK) {
      result r;
      drain(job, &r);
      viv_job_free(job);
      status = r.status;
      e = r.error;
    }
    cr_assert_lt(status, 0, "%s was accepted", wrong[i].params);
    cr_assert_str_eq(e.where, wrong[i].where, "%s: %s: %s", wrong[i].params, e.where, e.message);
    cr_assert(strstr(e.message, wrong[i].word), "%s: %s", wrong[i].params, e.message);
  }
  viv_close(rt);
}

static int32_t submit_one(viv_model *m, const char *task, const viv_value *input,
                          viv_error *error) {
  const viv_value *inputs[] = {input};
  viv_request q = {
      .struct_size = sizeof q, .task = task, .n_inputs = input ? 1 : 0, .inputs = inputs};
  viv_job *job = NULL;
  int32_t status = viv_submit(m, &q, &job, error);
  if (status < 0) return status;
  result r;
  drain(job, &r);
  viv_job_free(job);
  *error = r.error;
  return r.status;
}

Test(runtime, wrong_inputs_are_named) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_error e = VIV_ERROR_INIT;
  int64_t ids[] = {1, 512, -3};
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_I64,
                  .ndim = 2,
                  .shape = {1, 3},
                  .bytes = 24,
                  .data = ids};
  viv_value v = {.struct_size = sizeof v,
                 .kind = VIV_KIND_TENSOR,
                 .name = viv__str("input_ids"),
                 .tensor = &t};
  cr_assert_eq(submit_one(m, "forward", &v, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "token 512 at [0, 1]"), "%s", e.message);
  t.bytes = 23;
  cr_assert_eq(submit_one(m, "forward", &v, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "needs 24 bytes"), "%s", e.message);
  t = (viv_tensor){.struct_size = sizeof t, .dtype = VIV_I64, .ndim = 2, .shape = {INT64_MAX, 9}};
  cr_assert_eq(submit_one(m, "forward", &v, &e), VIV_BAD_INPUT);
  viv_value text = {.struct_size = sizeof text,
                    .kind = VIV_KIND_TEXT,
                    .name = viv__str("text"),
                    .bytes = {"ab\xff", 3}};
  cr_assert_eq(submit_one(m, "generate", &text, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "byte 2"), "%s", e.message);
  cr_assert_eq(submit_one(m, "generate", NULL, &e), VIV_BAD_INPUT);
  cr_assert_eq(submit_one(m, "fly", &text, &e), VIV_BAD_INPUT);
  text.bytes = viv__str("ab");
  cr_assert_eq(submit_one(m, "fly", &text, &e), VIV_NEVER);
  cr_assert(strstr(e.message, "generate"), "the tasks that exist are not named: %s", e.message);
  char *longer = calloc(1, 20000);
  memset(longer, 'a', 19999);
  text.bytes = viv__str(longer);
  cr_assert_eq(submit_one(m, "generate", &text, &e), VIV_BAD_INPUT);
  cr_assert_str_eq(e.where, "context_length_exceeded");
  free(longer);
  viv_close(rt);
}

static int32_t load_with(viv_runtime *rt, const char *params, viv_model **m, viv_error *e) {
  return viv_load(rt, STORIES, params, m, e);
}

Test(runtime, parameters_of_loading_count) {
  viv_runtime *rt = open_runtime();
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  result r;
  cr_assert_eq(load_with(rt, "{\"context\":12,\"max_jobs\":1}", &m, &e), VIV_OK, "%s", e.message);
  run(m, NULL, "Once", "{\"max_new_tokens\":100,\"ignore_eos\":true,\"outputs\":[\"ids\"]}", &r);
  cr_assert(r.n_ids > 0 && r.n_ids < 12, "%d tokens in a context of 12", (int)r.n_ids);
  run(m, NULL, "Once upon a time there was a little girl who loved to play", NULL, &r);
  cr_assert_str_eq(r.error.where, "context_length_exceeded");
  viv_unload(m);
  const char *bad[] = {"{\"context\":0}",
                       "{\"context\":100000}",
                       "{\"max_jobs\":0}",
                       "{\"max_jobs\":2.5}",
                       "{\"weights\":\"int9\"}",
                       "{\"plugin\":\"nobody\"}",
                       "7"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    cr_assert_lt(load_with(rt, bad[i], &m, &e), 0, "%s was accepted", bad[i]);
  viv_close(rt);
}

Test(runtime, a_session_counts_in_the_budget_until_it_is_closed) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  viv_session *s = NULL;
  viv_text before = {0}, during = {0}, after = {0};
  result r;
  cr_assert_eq(viv_session_open(m, &s, NULL), VIV_OK);
  cr_assert_eq(viv_machine(rt, &before, NULL), VIV_OK);
  run(m, s, "Once", "{\"max_new_tokens\":20}", &r);
  cr_assert_eq(viv_machine(rt, &during, NULL), VIV_OK);
  viv_session_close(s);
  run(m, NULL, "Once", "{\"max_new_tokens\":1}",
      &r); /* the job's own hold on the session is gone */
  cr_assert_eq(viv_machine(rt, &after, NULL), VIV_OK);
  const char *key = "\"reserved_bytes\":";
  long held[] = {strtol(strstr(before.ptr, key) + 17, NULL, 10),
                 strtol(strstr(during.ptr, key) + 17, NULL, 10),
                 strtol(strstr(after.ptr, key) + 17, NULL, 10)};
  cr_assert_gt(held[1], held[0]);
  cr_assert_lt(held[2], held[1]);
  viv_text_free(&before);
  viv_text_free(&during);
  viv_text_free(&after);
  viv_close(rt);
}
