/* The test of strategies. */
#include "validate/tests.h"

void viv__v_test_strategy(struct context *c) {
  const viv_host *host = viv__v_load(c, 0);
  if (!host) return;
  const viv_strategy_api *s = c->table->get_interface(viv__str(VIV_STRATEGY_ID));
  if (!s) {
    viv__v_skip(c, "offers no " VIV_STRATEGY_ID);
    return;
  }
  viv_error error = VIV_ERROR_INIT;
  uint32_t all = 0, any = 0;
  viv__v_before(c, VIV_THREAD_JOB, "requires_caps of an unknown strategy");
  int32_t status = s->requires_caps(viv__str("no-such-strategy"), &all, &any);
  viv__v_after(c);
  if (status != VIV_NEVER) viv__v_fail(c, "requires_caps of an unknown strategy is not NEVER");
  const viv_json *names = viv__json_get(c->manifest, "strategies");
  int32_t eos = 3, prompt[4] = {1, 2, 3, 4};
  viv_token_info info = {.struct_size = sizeof info,
                         .caps = ~0u,
                         .n_layers = 2,
                         .d_model = 8,
                         .vocab_size = 16,
                         .n_eos = 1,
                         .eos = &eos,
                         .context_max = 128,
                         .bos = 0,
                         .pad = -1,
                         .decoder_start = -1,
                         .mask_token = 5};
  for (int64_t i = 0; i < viv__json_count(names) && !viv__v_failed(c); i++) {
    viv_str name = viv__json_string(viv__json_item(names, i));
    viv__v_before(c, VIV_THREAD_JOB, "requires_caps(\"%.*s\")", (int)name.len, name.ptr);
    status = s->requires_caps(name, &all, &any);
    viv__v_after(c);
    if (status < 0) {
      viv__v_fail(c, "the manifest lists the strategy %.*s; requires_caps answers %d",
                  (int)name.len, name.ptr, status);
      break;
    }
    viv_arena *arena = viv__arena_new(ARENA_LIMIT);
    viv_strategy_setup setup = {.struct_size = sizeof setup,
                                .n_prompt = 4,
                                .name = name,
                                .info = &info,
                                .prompt = prompt,
                                .seed = c->seed,
                                .arena = arena,
                                .max_new_tokens = 8};
    viv_strategy *made = NULL;
    error = (viv_error)VIV_ERROR_INIT;
    viv__v_before(c, VIV_THREAD_JOB, "create(\"%.*s\")", (int)name.len, name.ptr);
    status = s->create(host, &setup, &made, &error);
    viv__v_after(c);
    viv__v_check_failure(c, "create", status, &error);
    if (status >= 0 && made) {
      viv_strategy_want want = {.struct_size = sizeof want};
      viv__v_before(c, VIV_THREAD_JOB, "resume(\"%.*s\"), first", (int)name.len, name.ptr);
      status = s->resume(made, NULL, &want, &error);
      viv__v_after(c);
      viv__v_check_failure(c, "resume", status, &error);
      if (status == VIV_MORE && (!want.batch || want.batch->n_rows < 1) && want.n_emit < 1 &&
          want.n_ops < 1)
        viv__v_fail(c, "%.*s: resume answers MORE and wants nothing", (int)name.len, name.ptr);
      for (int32_t r = 0; status == VIV_MORE && want.batch && r < want.batch->n_rows; r++)
        if (want.batch->tokens && want.batch->input_kind == VIV_INPUT_TOKENS &&
            (want.batch->tokens[r] < 0 || want.batch->tokens[r] >= info.vocab_size))
          viv__v_fail(c, "%.*s: wants the token %d of a vocabulary of 16 evaluated", (int)name.len,
                      name.ptr, want.batch->tokens[r]);
      viv_strategy_counters counters = {.struct_size = sizeof counters};
      viv__v_before(c, VIV_THREAD_JOB, "counters and destroy");
      s->counters(made, &counters);
      s->destroy(made);
      viv__v_after(c);
    } else if (status >= 0) {
      viv__v_fail(c, "create answered %d but gave no strategy", status);
    }
    viv__v_arena_free(c, arena);
  }
}
