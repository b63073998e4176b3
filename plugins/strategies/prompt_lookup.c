/* Prompt-lookup speculative decoding, lossless: the draft is what followed the last n-gram when it
 * occurred before (in the prompt or in what was generated). No draft model.
 *
 *   draft   d_1..d_m after the newest token x[s]
 *   verify  rows x[s], d_1..d_m in one evaluation; row i gives the choice a_i after d_1..d_i
 *   accept  while a_i = d_{i+1}; then emit a_i of the first row that differs, too
 *
 * The rows behind the accepted ones are cut from the sequence. With STRICT_ROWS the emitted tokens are
 * those of plain greedy decoding to the bit; with sampling the draws come from the same random
 * numbers in the same order, one per emitted token, so they are those of plain sampling. */
#include <stdio.h>
#include <string.h>

#include "strategies/strategies.h"

enum { MAX_DRAFT = 64 };

struct prompt_lookup {
  viv_strategy base;
  int32_t *history; /* [n_history] prompt and accepted tokens; the last has not been evaluated */
  int64_t n_history, cap_history;
  int32_t ngram_max, draft_max;
  int32_t n_draft;
  int32_t rows[MAX_DRAFT + 1];       /* x[s], d_1.. */
  int32_t logit_rows[MAX_DRAFT + 1]; /* 0.. */
  int32_t emit[MAX_DRAFT + 1], emit_row[MAX_DRAFT + 1];
  viv_seq_op cut;
  viv_batch batch;
};

static int32_t bad(viv_error *error, int32_t code, const char *where, const char *message) {
  if (error) {
    error->code = code;
    snprintf(error->source, sizeof error->source, "strategies/prompt_lookup.c");
    snprintf(error->where, sizeof error->where, "%s", where);
    snprintf(error->message, sizeof error->message, "%s", message);
  }
  return code;
}

static int32_t read_count(const viv_strategy *s, const viv_json *params, const char *key,
                          int32_t fallback, int32_t most, int32_t *out, viv_error *error) {
  viv_str k = {key, strlen(key)};
  const viv_json *node = s->host->json_member(params, k);
  *out = fallback;
  if (s->host->json_type(node) <= VIV_JSON_NULL) return VIV_OK;
  double v = s->host->json_number(node);
  if (!(v >= 1 && v <= most))
    return bad(error, VIV_BAD_INPUT, key, "must be a whole number from 1 to 64");
  *out = (int32_t)v;
  return VIV_OK;
}

static int32_t create(viv_strategy *s, const viv_strategy_setup *setup, viv_error *error) {
  struct prompt_lookup *p = (struct prompt_lookup *)s;
  viv_str key = {"temperature", 11};
  const viv_json *t = s->host->json_member(setup->params, key);
  s->sampled = s->host->json_number(t) > 0;
  if (s->sampled) s->plain = 0;
  int32_t status =
      read_count(s, setup->params, "prompt_lookup_max_ngram", 3, MAX_DRAFT, &p->ngram_max, error);
  if (status == VIV_OK)
    status = read_count(s, setup->params, "prompt_lookup_num_tokens", 10, MAX_DRAFT, &p->draft_max,
                        error);
  if (status < 0) return status;
  p->cap_history = setup->n_prompt + setup->max_new_tokens + MAX_DRAFT + 2;
  p->history = s->host->arena_alloc(s->arena, (uint64_t)p->cap_history * sizeof *p->history);
  if (!p->history) return bad(error, VIV_NOT_NOW, "strategy", "no memory");
  memcpy(p->history, setup->prompt, (size_t)setup->n_prompt * sizeof *p->history);
  p->n_history = setup->n_prompt;
  for (int32_t i = 0; i <= MAX_DRAFT; i++) p->logit_rows[i] = i;
  return VIV_OK;
}

/* What followed the latest earlier occurrence of the last n tokens, longest n first. */
static int32_t find_draft(const struct prompt_lookup *p, int32_t *draft) {
  const int32_t *h = p->history;
  for (int32_t n = p->ngram_max; n >= 1; n--) {
    if (p->n_history <= n) continue;
    const int32_t *tail = h + p->n_history - n;
    for (int64_t at = p->n_history - n - 1; at >= 0; at--) {
      if (memcmp(h + at, tail, (size_t)n * sizeof *h)) continue;
      int64_t follow = at + n, m = p->n_history - follow;
      if (m > p->draft_max) m = p->draft_max;
      memcpy(draft, h + follow, (size_t)m * sizeof *draft);
      return (int32_t)m;
    }
  }
  return 0;
}

/* Takes the choices row by row until one differs from the draft. */
static int32_t accept(struct prompt_lookup *p, const viv_strategy_result *r) {
  viv_strategy *s = &p->base;
  int32_t n = 0;
  for (int32_t i = 0; i <= p->n_draft && i < r->n_rows; i++) {
    float *row = (float *)(uintptr_t)r->logits + (s->plain ? 0 : (int64_t)i * s->vocab_size);
    int32_t token = s->plain ? r->ids[i] : choose(s, row);
    s->sampling->accept(s->sampler, token, 1);
    p->emit[n] = token;
    p->emit_row[n++] = i;
    if (p->n_history < p->cap_history) p->history[p->n_history++] = token;
    if (i == p->n_draft || token != p->rows[i + 1]) break;
  }
  s->counters.target_calls++;
  s->counters.drafted += p->n_draft;
  s->counters.accepted += n - 1;
  return n;
}

static int32_t resume(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                      viv_error *error) {
  struct prompt_lookup *p = (struct prompt_lookup *)s;
  (void)error;
  if (result) {
    int32_t n = accept(p, result), rejected = p->n_draft + 1 - n;
    want->n_emit = n;
    want->emit = p->emit;
    want->emit_row = p->emit_row;
    if (rejected) {
      p->cut = (viv_seq_op){.kind = VIV_SEQ_TRUNCATE, .a = rejected};
      want->ops = &p->cut;
      want->n_ops = 1;
    }
  }
  p->rows[0] = p->history[p->n_history - 1];
  p->n_draft = find_draft(p, p->rows + 1);
  want->logit_mode = s->plain ? VIV_LOGITS_TOPK : VIV_LOGITS_FULL;
  want->top_k = 1;
  p->batch = (viv_batch){.struct_size = sizeof p->batch,
                         .flags = p->n_draft ? VIV_BATCH_KEEP_STATES : 0,
                         .n_rows = p->n_draft + 1,
                         .tokens = p->rows,
                         .logit_rows = p->logit_rows,
                         .n_logit_rows = p->n_draft + 1};
  want->batch = &p->batch;
  return VIV_MORE;
}

const struct strategy_kind prompt_lookup = {
    "prompt-lookup", 0,     VIV_CAP_TRUNCATE | VIV_CAP_TRUNCATE_KEPT, sizeof(struct prompt_lookup),
    create,          resume};
