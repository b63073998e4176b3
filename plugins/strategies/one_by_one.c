/* Greedy and sampled decoding: one row per step.
 *
 *   x[s+1] = argmax p(. | x[..s])   or   x[s+1] ~ warp(p(. | x[..s])) */
#include "strategies/strategies.h"

struct one_by_one {
  viv_strategy base;
  int32_t token; /* the newest token, which has not been evaluated */
  int32_t emit_row;
  viv_batch batch;
};

static const int32_t first_row = 0;

static int32_t create_greedy(viv_strategy *s, const viv_strategy_setup *setup, viv_error *error) {
  struct one_by_one *o = (struct one_by_one *)s;
  (void)error;
  o->token = setup->prompt[setup->n_prompt - 1];
  return VIV_OK;
}

static int32_t create_sample(viv_strategy *s, const viv_strategy_setup *setup, viv_error *error) {
  s->sampled = 1;
  s->plain = 0;
  return create_greedy(s, setup, error);
}

static int32_t resume(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                      viv_error *error) {
  struct one_by_one *o = (struct one_by_one *)s;
  (void)error;
  if (result) {
    o->token = s->plain ? result->ids[0] : choose(s, (float *)(uintptr_t)result->logits);
    s->sampling->accept(s->sampler, o->token, 1);
    s->counters.target_calls++;
    want->n_emit = 1;
    want->emit = &o->token;
    want->emit_row = &o->emit_row;
  }
  want->logit_mode = s->plain ? VIV_LOGITS_TOPK : VIV_LOGITS_FULL;
  want->top_k = 1;
  o->batch = (viv_batch){.struct_size = sizeof o->batch,
                         .n_rows = 1,
                         .tokens = &o->token,
                         .logit_rows = &first_row,
                         .n_logit_rows = 1};
  want->batch = &o->batch;
  return VIV_MORE;
}

const struct strategy_kind one_by_one_greedy = {"greedy",      0,     0, sizeof(struct one_by_one),
                                                create_greedy, resume};
const struct strategy_kind one_by_one_sample = {"sample",      0,     0, sizeof(struct one_by_one),
                                                create_sample, resume};
