/* What generating text promises: lossless strategies, seeds, stop texts, sessions that continue and
 * survive the process. */
#include "rt.h"

static const char *const models[] = {STORIES, REASONER};
static const char *const prompts[] = {"Once upon a time, there was a little girl named Lily.",
                                      "abc abc abc", "What is 12 + 30? What is 12 + 30? What is",
                                      "One day, One day, One"};

Test(generate, prompt_lookup_equals_greedy_to_the_bit) {
  for (int k = 0; k < 2; k++) {
    viv_runtime *rt = open_runtime();
    viv_model *m = load(rt, models[k]);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
      result greedy, lookup;
      run(m, NULL, prompts[i], "{\"max_new_tokens\":120,\"ignore_eos\":true}", &greedy);
      run(m, NULL, prompts[i],
          "{\"max_new_tokens\":120,\"ignore_eos\":true,\"strategy\":\"prompt-lookup\"}", &lookup);
      cr_assert_eq(greedy.status, VIV_OK, "%s", greedy.error.message);
      cr_assert_eq(lookup.status, VIV_OK, "%s", lookup.error.message);
      cr_assert_str_eq(greedy.text, lookup.text, "%s: prompt %zu", models[k], i);
    }
    viv_close(rt);
  }
}

Test(generate, prompt_lookup_needs_fewer_evaluations_on_repeating_text) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result r;
  run(m, NULL, "The cat sat. The cat sat. The cat sat. The cat",
      "{\"max_new_tokens\":100,\"ignore_eos\":true,\"strategy\":\"prompt-lookup\"}", &r);
  long calls = strtol(strstr(r.counters, "\"target_calls\":") + 15, NULL, 10);
  cr_assert_lt(calls, 100, "%s", r.counters);
  viv_close(rt);
}

Test(generate, equal_seeds_draw_the_same_and_others_differ) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result a, b, c, d;
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1.0,\"seed\":7}", &a);
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1.0,\"seed\":7}", &b);
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1.0,\"seed\":8}", &c);
  run(m, NULL, "Once",
      "{\"max_new_tokens\":60,\"temperature\":1.0,\"seed\":7,\"strategy\":\"prompt-lookup\"}", &d);
  cr_assert_str_eq(a.text, b.text);
  cr_assert_str_neq(a.text, c.text);
  cr_assert_str_eq(a.text, d.text, "sampling through prompt-lookup drew differently");
  viv_close(rt);
}

Test(generate, top_k_1_and_temperature_near_0_are_greedy) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result greedy, k1, cold, p0;
  run(m, NULL, "Once", "{\"max_new_tokens\":60}", &greedy);
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1,\"top_k\":1}", &k1);
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1e-4}", &cold);
  run(m, NULL, "Once", "{\"max_new_tokens\":60,\"temperature\":1,\"top_p\":0}", &p0);
  cr_assert_str_eq(greedy.text, k1.text);
  cr_assert_str_eq(greedy.text, cold.text);
  cr_assert_str_eq(greedy.text, p0.text);
  viv_close(rt);
}

Test(generate, penalties_change_what_repeats) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result plain, penalised;
  run(m, NULL, "the the the the", "{\"max_new_tokens\":60,\"ignore_eos\":true}", &plain);
  run(m, NULL, "the the the the",
      "{\"max_new_tokens\":60,\"ignore_eos\":true,\"repetition_penalty\":1.5}", &penalised);
  cr_assert_str_neq(plain.text, penalised.text);
  viv_close(rt);
}

Test(generate, a_stop_text_ends_it_and_is_not_shown) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, STORIES);
  result whole, cut;
  run(m, NULL, "Once upon a time", "{\"max_new_tokens\":100}", &whole);
  char *at = strstr(whole.text, "She");
  cr_assert_not_null(at);
  run(m, NULL, "Once upon a time", "{\"max_new_tokens\":100,\"stop\":[\"She\",\"zebra\"]}", &cut);
  *at = 0;
  cr_assert_str_eq(cut.text, whole.text);
  cr_assert(strstr(cut.counters, "\"finish_reason\":\"stop\""));
  viv_close(rt);
}

/* A conversation in pieces gives what the whole would give at once. */
static void check_session(const char *model, const char *params) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, model);
  viv_session *s = NULL;
  cr_assert_eq(viv_session_open(m, &s, NULL), VIV_OK);
  int64_t all[256], n = 0;
  for (int turn = 0; turn < 4; turn++) {
    int64_t said[] = {5 + turn, 9, 30 + 2 * turn};
    result part, whole;
    run_ids(m, s, said, 3, params, &part);
    cr_assert_eq(part.status, VIV_OK, "%s", part.error.message);
    memcpy(all + n, said, sizeof said);
    n += 3;
    run_ids(m, NULL, all, n, params, &whole);
    cr_assert_eq(part.n_ids, whole.n_ids);
    cr_assert_arr_eq(part.ids, whole.ids, (size_t)part.n_ids * 8, "%s turn %d", model, turn);
    memcpy(all + n, part.ids, (size_t)part.n_ids * 8);
    n += part.n_ids;
  }
  viv_session_close(s);
  viv_close(rt);
}

Test(generate, a_session_continues_as_if_said_at_once) {
  for (int k = 0; k < 2; k++) {
    check_session(models[k], "{\"max_new_tokens\":20,\"ignore_eos\":true}");
    check_session(models[k],
                  "{\"max_new_tokens\":20,\"ignore_eos\":true,\"strategy\":\"prompt-lookup\"}");
  }
}

Test(generate, a_saved_session_continues_in_another_runtime_to_the_bit) {
  for (int k = 0; k < 2; k++) {
    char path[] = "/tmp/viv-session-XXXXXX";
    close(mkstemp(path));
    int64_t first[] = {5, 6, 7, 8, 9}, second[] = {10, 11};
    const char *params = "{\"max_new_tokens\":90,\"ignore_eos\":true}";
    result before, after, ignored;
    viv_runtime *rt = open_runtime();
    viv_model *m = load(rt, models[k]);
    viv_session *s = NULL;
    viv_error e = VIV_ERROR_INIT;
    cr_assert_eq(viv_session_open(m, &s, NULL), VIV_OK);
    run_ids(m, s, first, 5, params, &ignored);
    cr_assert_eq(viv_session_save(s, path, &e), VIV_OK, "%s", e.message);
    run_ids(m, s, second, 2, params, &before);
    viv_session_close(s);
    viv_close(rt);
    rt = open_runtime();
    m = load(rt, models[k]);
    cr_assert_eq(viv_session_resume(m, path, &s, &e), VIV_OK, "%s", e.message);
    run_ids(m, s, second, 2, params, &after);
    cr_assert_eq(before.n_ids, 90);
    cr_assert_arr_eq(before.ids, after.ids, 90 * 8);
    viv_session_close(s);
    viv_close(rt);
    unlink(path);
  }
}

Test(generate, a_damaged_session_file_is_refused_or_fed_again) {
  char path[] = "/tmp/viv-session-XXXXXX", *data = NULL;
  close(mkstemp(path));
  size_t len = 0;
  viv_error e = VIV_ERROR_INIT;
  result ignored;
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, REASONER);
  viv_session *s = NULL;
  cr_assert_eq(viv_session_open(m, &s, NULL), VIV_OK);
  int64_t ids[] = {5, 6, 7};
  run_ids(m, s, ids, 3, "{\"max_new_tokens\":4,\"ignore_eos\":true}", &ignored);
  cr_assert_eq(viv_session_save(s, path, &e), VIV_OK);
  viv_session_close(s);
  cr_assert_eq(viv__read_file(path, 1 << 24, &data, &len, NULL), VIV_OK);
  for (size_t cut = 0; cut < len; cut += cut < 200 ? 1 : 4099) {
    cr_assert_eq(viv__write_file(path, data, cut, NULL), VIV_OK);
    cr_assert_eq(viv_session_resume(m, path, &s, &e), VIV_BAD_INPUT, "cut at %zu was taken", cut);
  }
  for (size_t at = 0; at < len; at += at < 400 ? 1 : 997) {
    data[at] ^= 0x55;
    cr_assert_eq(viv__write_file(path, data, len, NULL), VIV_OK);
    if (viv_session_resume(m, path, &s, &e) == VIV_OK) viv_session_close(s);
    data[at] ^= 0x55;
  }
  viv__free(data);
  unlink(path);
  viv_close(rt);
}

Test(generate, a_further_token_takes_nothing_from_the_heap) {
  static const char *params[] = {"{\"max_new_tokens\":8,\"ignore_eos\":true}",
                                 "{\"max_new_tokens\":200,\"ignore_eos\":true}"};
  for (int with_session = 0; with_session < 2; with_session++) {
    viv_runtime *rt = open_runtime();
    viv_model *m = load(rt, REASONER);
    int64_t ids[] = {5, 6, 7};
    long made[2];
    result ignored;
    run_ids(m, NULL, ids, 3, params[1], &ignored); /* scratch grows once */
    for (int i = 0; i < 2; i++) {
      viv_session *s = NULL;
      if (with_session) cr_assert_eq(viv_session_open(m, &s, NULL), VIV_OK);
      viv__fail_alloc(0);
      run_ids(m, s, ids, 3, params[i], &ignored);
      made[i] = viv__fail_alloc(0);
      if (s) viv_session_close(s);
    }
    cr_assert_leq(made[1], made[0], "%ld allocations for 8 tokens, %ld for 200", made[0], made[1]);
    viv_close(rt);
  }
}

/* Opens, loads and runs one job with the k-th allocation failing. True when all k were made. */
static bool run_with_failure(const char *model, long k) {
  viv_runtime *rt = NULL;
  viv_model *m = NULL;
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  viv_options o = {.struct_size = sizeof o,
                   .threads = 1,
                   .plugin_path = env("VIV_TEST_PLUGINS", "build/plugins"),
                   .log_level = VIV_LOG_ERROR};
  viv__fail_alloc(k);
  int32_t status = viv_open(&o, &rt, &e);
  if (status == VIV_OK) status = viv_load(rt, model, NULL, &m, &e);
  if (status == VIV_OK)
    status = viv_submit_text(m, "Once upon", "{\"max_new_tokens\":6,\"temperature\":1}", &job, &e);
  if (status == VIV_OK) {
    viv_event event;
    do {
      cr_assert_eq(viv_next_event(job, 20000, &event), VIV_OK, "allocation %ld: the job hangs", k);
    } while (!(event.flags & VIV_EVENT_FINAL));
    status = event.status;
  }
  bool missed = viv__fail_alloc(0) < k;
  viv_job_free(job);
  viv_close(rt);
  if (missed) cr_assert_eq(status, VIV_OK, "%s", e.message);
  return !missed;
}

Test(generate, every_allocation_may_fail) {
  for (int i = 0; i < 2; i++) {
    long k = 1;
    while (k < 4000 && run_with_failure(models[i], k)) k++;
    cr_assert_lt(k, 4000);
    cr_assert_gt(k, 50);
  }
}
