/* The task "generate": a strategy per lane chooses tokens; the text goes out as it comes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tasks/constraint.h"
#include "tasks/task.h"

enum { DEFAULT_NEW_TOKENS = 512 };

/* ---- parameters ---- */

static int32_t count_param(const viv__task *t, const char *key, int64_t fallback, int64_t *out,
                           viv_error *error) {
  double v = viv__json_num(t->job->params, key, (double)fallback);
  if (!(v >= 0 && v <= 1e9) || v != floor(v))
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must be a whole number from 0 to 1e9");
  *out = (int64_t)v;
  return VIV_OK;
}

static int32_t add_eos(viv__task *t, const viv_json *node, viv_error *error) {
  double id = viv__json_number(node);
  if (viv__json_type(node) != VIV_JSON_NUMBER || id < 0 || id >= t->m->info.vocab_size)
    return VIV_FAIL(error, VIV_BAD_INPUT, "eos_token_id", "must be token ids below %d",
                    t->m->info.vocab_size);
  if (t->n_eos < VIV__MAX_EOS) t->eos[t->n_eos++] = (int32_t)id;
  return VIV_OK;
}

static int32_t read_eos(viv__task *t, viv_error *error) {
  const viv_json *node = viv__json_get(t->job->params, "eos_token_id");
  int32_t type = viv__json_type(node), status = VIV_OK;
  t->ignore_eos = viv__json_bool(t->job->params, "ignore_eos", false);
  if (type == VIV_JSON_ARRAY)
    for (int64_t i = 0; status == VIV_OK && i < viv__json_count(node); i++)
      status = add_eos(t, viv__json_item(node, i), error);
  else if (type != VIV_JSON_ABSENT && type != VIV_JSON_NULL)
    status = add_eos(t, node, error);
  else
    for (int32_t i = 0; i < t->m->info.n_eos && i < VIV__MAX_EOS; i++)
      t->eos[t->n_eos++] = t->m->info.eos[i];
  return status;
}

static int32_t read_stop(viv__task *t, viv_error *error) {
  const viv_json *node = viv__json_get(t->job->params, "stop");
  int32_t type = viv__json_type(node);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  int64_t n = type == VIV_JSON_ARRAY ? viv__json_count(node) : 1;
  if (n > VIV__MAX_STOP)
    return VIV_FAIL(error, VIV_BAD_INPUT, "stop", "at most %d texts", VIV__MAX_STOP);
  for (int64_t i = 0; i < n; i++) {
    viv_str s = viv__json_string(type == VIV_JSON_ARRAY ? viv__json_item(node, i) : node);
    if (!s.len) return VIV_FAIL(error, VIV_BAD_INPUT, "stop", "must be a text or a list of texts");
    t->stop[t->n_stop++] = s;
  }
  return VIV_OK;
}

static int32_t read_params(viv__task *t, viv_error *error) {
  const viv_json *params = t->job->params;
  int64_t max_length = 0;
  int32_t status = count_param(t, "max_new_tokens", DEFAULT_NEW_TOKENS, &t->max_new, error);
  if (status == VIV_OK) status = count_param(t, "min_new_tokens", 0, &t->min_new, error);
  if (status == VIV_OK) status = count_param(t, "max_length", 0, &max_length, error);
  if (status == VIV_OK) status = read_eos(t, error);
  if (status == VIV_OK) status = read_stop(t, error);
  if (status == VIV_OK) status = viv__logprobs_read(t, error);
  if (status < 0) return status;
  if (max_length && viv__json_type(viv__json_get(params, "max_new_tokens")) == VIV_JSON_ABSENT)
    t->max_new = max_length > t->columns ? max_length - t->columns : 0;
  t->beams = viv__json_num(params, "num_beams", 1) > 1;
  if (t->beams && viv__json_bool(params, "do_sample", false))
    return VIV_FAIL(error, VIV_NEVER, "num_beams",
                    "beams are not sampled: do_sample must be false");
  t->pad = (int32_t)viv__json_num(params, "pad_token_id", t->m->info.pad >= 0 ? t->m->info.pad : 0);
  t->skip_special = viv__json_bool(params, "skip_special_tokens", true);
  bool asked = viv__json_type(viv__json_get(params, "outputs")) == VIV_JSON_ARRAY;
  bool by_ids = viv__job_input(t->job, "input_ids", VIV_KIND_TENSOR) != NULL;
  t->want_ids = asked ? viv__task_wants(t, "ids") : by_ids;
  t->want_sequences = viv__task_wants(t, "sequences");
  t->want_step_logits = viv__task_wants(t, "step_logits");
  t->want_text = viv__task_wants(t, "text_utf8");
  t->stream_text = t->m->tokenizer && (!by_ids || t->want_text || t->n_stop);
  return VIV_OK;
}

/* ---- beginning ---- */

static viv_str strategy_name(const viv_json *params) {
  const char *name = viv__json_text(params, "strategy", NULL);
  if (name) return viv__str(name);
  if (viv__json_num(params, "num_beams", 1) != 1) return viv__str("beam-search");
  bool sample = viv__json_bool(params, "do_sample", viv__json_num(params, "temperature", 0) > 0);
  return viv__str(sample ? "sample" : "greedy");
}

static int32_t find_strategy(viv__task *t, viv_str name, const viv_strategy_api **api,
                             viv_error *error) {
  viv_runtime *rt = t->m->rt;
  pthread_mutex_lock(&rt->lock);
  viv__plugin *p = viv__find_strategy(rt, name);
  pthread_mutex_unlock(&rt->lock);
  if (!p)
    return VIV_FAIL(error, VIV_NEVER, "strategy", "no plugin offers the strategy \"%.*s\"",
                    (int)name.len, name.ptr);
  uint32_t all = 0, any = 0, caps = t->m->info.caps;
  int32_t status = p->strategy->requires_caps(name, &all, &any);
  if (status < 0)
    return VIV_FAIL(error, VIV_BUG, p->id, "promises the strategy \"%.*s\" and does not know it",
                    (int)name.len, name.ptr);
  if ((caps & all) != all || (any && !(caps & any)))
    return VIV_FAIL(error, VIV_NEVER, "strategy",
                    "\"%.*s\" needs abilities that %s lacks (has %#x, needs all of %#x and one of "
                    "%#x): %.*s",
                    (int)name.len, name.ptr, t->m->plugin->id, caps, all, any,
                    (int)t->m->info.cannot.len, t->m->info.cannot.len ? t->m->info.cannot.ptr : "");
  *api = p->strategy;
  return VIV_OK;
}

static int32_t start_lane(viv__lane *lane, const viv_strategy_api *api, viv_str name, uint64_t seed,
                          viv_error *error) {
  viv__task *t = lane->task;
  lane->api = api;
  viv_strategy_setup setup = {.struct_size = sizeof setup,
                              .n_prompt = (int32_t)lane->n_prompt,
                              .name = name,
                              .params = t->job->params,
                              .info = &t->m->info,
                              .prompt = lane->prompt,
                              .seed = seed + (uint64_t)lane->row,
                              .arena = viv__job_arena(t->job),
                              .max_new_tokens = t->max_new};
  if (!setup.arena) return VIV_FAIL(error, VIV_NOT_NOW, "strategy", "no memory");
  if (t->stream_text) {
    lane->detokenizer = viv__detokenizer_new(t->m->tokenizer, t->skip_special);
    if (!lane->detokenizer) return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
  }
  int32_t status = VIV_OK;
  if (t->grammar) status = viv__constraint_open(t, t->grammar, &lane->constraint, error);
  if (status < 0) return status;
  viv__sampler_offer(viv__constraint_guide(lane->constraint));
  status = api->create(&t->m->rt->host, &setup, &lane->strategy, error);
  viv__sampler_offer(NULL);
  if (status < 0) return status;
  return viv__generate_resume(lane, NULL, error);
}

int32_t viv__generate_begin(viv__task *t, viv_error *error) {
  const viv_strategy_api *api = NULL;
  viv_str name = strategy_name(t->job->params);
  int32_t status = viv__task_read_tokens(t, true, error);
  if (status == VIV_OK) status = read_params(t, error);
  if (status == VIV_OK) status = viv__constraint_grammar(t, &t->grammar, error);
  if (status == VIV_OK && t->grammar && t->n_stop)
    return VIV_FAIL(error, VIV_BAD_INPUT, "stop",
                    "would cut what json_schema or grammar asks for: give one of them");
  if (status == VIV_OK) status = find_strategy(t, name, &api, error);
  if (status < 0) return status;
  int64_t context = t->m->info.context_max, longest = 0;
  for (int32_t i = 0; i < t->n_rows; i++)
    if (t->lanes[i].n_prompt > longest) longest = t->lanes[i].n_prompt;
  if (t->job->session) longest += t->job->session->n_tokens;
  if (context && longest + t->max_new > context)
    t->max_new = context > longest ? context - longest : 0;
  status = viv__task_open_seqs(t, t->max_new, error);
  for (int32_t i = 0; status >= 0 && t->max_new && i < t->n_rows; i++)
    status = viv__prompt_take_up(&t->lanes[i], error);
  if (status < 0) return status;
  uint64_t seed;
  const viv_json *given = viv__json_get(t->job->params, "seed");
  if (viv__json_type(given) == VIV_JSON_NUMBER)
    seed = (uint64_t)(int64_t)viv__json_number(given);
  else if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
    seed = viv__now_ns();
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    if (t->max_new == 0) {
      lane->done = true;
      lane->finish = "length";
      continue;
    }
    status = start_lane(lane, api, name, seed, error);
    if (status < 0) return status;
  }
  return t->max_new ? VIV_OK : viv__generate_finish(t, error);
}

/* ---- tokens ---- */

static bool grow(void **array, int64_t *cap, int64_t need, size_t size) {
  if (need <= *cap) return true;
  int64_t wider = *cap ? *cap : 64;
  while (wider < need) wider *= 2;
  void *grown = viv__realloc(*array, (size_t)wider * size);
  if (!grown) return false;
  *array = grown;
  *cap = wider;
  return true;
}

/* Room for the tokens that may come, so that a step takes nothing from the heap. */
static int64_t expected(const viv__task *t) {
  enum { MOST = 1 << 16 };
  return t->max_new < MOST ? t->max_new : MOST;
}

static bool is_eos(const viv__task *t, int32_t id) {
  for (int32_t i = 0; !t->ignore_eos && i < t->n_eos; i++)
    if (t->eos[i] == id) return true;
  return false;
}

/* Cuts the unsent text at the first stop text. */
static bool cut_at_stop(viv__lane *lane) {
  viv__task *t = lane->task;
  char *first = NULL;
  for (int32_t i = 0; i < t->n_stop && lane->text.len; i++) {
    char *at = memmem(lane->text.ptr, lane->text.len, t->stop[i].ptr, t->stop[i].len);
    if (at && (!first || at < first)) first = at;
  }
  if (!first) return false;
  lane->text.len = (size_t)(first - lane->text.ptr);
  return true;
}

static void finish_lane(viv__lane *lane, const char *why) {
  viv_str text = {NULL, 0};
  lane->done = true;
  lane->has_want = false;
  lane->finish = why;
  if (lane->detokenizer && viv__detokenizer_finish(lane->detokenizer, &text) == VIV_OK)
    viv__buf_add(&lane->text, text.ptr, text.len);
  cut_at_stop(lane);
}

/* A lane that is done wrote a whole text of its grammar, or the job fails. */
static int32_t obeyed(const viv__lane *lane, viv_error *error) {
  if (lane->constraint && !viv__constraint_complete(lane->constraint))
    return VIV_FAIL(error, VIV_BAD_INPUT, "max_new_tokens",
                    "%lld tokens were too few to complete what the grammar asks for",
                    (long long)lane->task->max_new);
  return VIV_OK;
}

/* One accepted token, and the row of raw logits it was chosen from (or -1). */
static int32_t take_token(viv__lane *lane, int32_t id, int32_t row, viv_error *error) {
  viv__task *t = lane->task;
  int32_t vocab = t->m->info.vocab_size;
  if (id < 0 || id >= vocab)
    return VIV_FAIL(error, VIV_BUG, "strategy", "emitted token %d of %d", id, vocab);
  int64_t cap = lane->cap_out, need = lane->n_out + 1;
  if (!cap && !t->want_step_logits && need < expected(t)) need = expected(t);
  if (!grow((void **)&lane->out, &lane->cap_out, need, sizeof *lane->out))
    return VIV_FAIL(error, VIV_NOT_NOW, "generate", "no memory");
  if (t->want_step_logits && cap != lane->cap_out) {
    float *grown = viv__realloc(lane->step_logits, (size_t)lane->cap_out * (size_t)vocab * 4);
    if (!grown) return VIV_FAIL(error, VIV_NOT_NOW, "step_logits", "no memory");
    lane->step_logits = grown;
  }
  if (t->want_step_logits) {
    float *to = lane->step_logits + lane->n_out * vocab;
    if (row >= 0 && row < lane->n_raw && lane->raw)
      memcpy(to, lane->raw + (size_t)row * (size_t)vocab, (size_t)vocab * 4);
    else
      memset(to, 0, (size_t)vocab * 4);
  }
  if (t->logprobs) {
    bool known = row >= 0 && row < lane->n_raw && lane->raw;
    int32_t status =
        viv__logprobs_add(lane, known ? lane->raw + (size_t)row * (size_t)vocab : NULL, id, error);
    if (status < 0) return status;
  }
  lane->out[lane->n_out++] = id;
  t->new_tokens++;
  bool ends = is_eos(t, id), over = false;
  if (lane->constraint) {
    int32_t status = viv__constraint_take(lane->constraint, id, ends, &over, error);
    if (status < 0) return status;
  }
  /* The token that ends a text is part of it only for a caller who wants special tokens shown. */
  if (lane->detokenizer && (!ends || !t->skip_special)) {
    viv_str text = {NULL, 0};
    /* Ids that the tokenizer does not know (a padded vocabulary) have no text. */
    if (viv__detokenizer_add(lane->detokenizer, id, &text) == VIV_NOT_NOW)
      return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
    viv__buf_add(&lane->text, text.ptr, text.len);
    if (lane->text.failed) return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
    if (t->n_stop && cut_at_stop(lane)) {
      lane->done = true;
      lane->has_want = false;
      lane->finish = "stop";
      return VIV_OK;
    }
  }
  if (ends || over)
    finish_lane(lane, "stop");
  else if (lane->n_out >= t->max_new)
    finish_lane(lane, "length");
  return lane->done ? obeyed(lane, error) : VIV_OK;
}

/* ---- the strategy ---- */

static int32_t local_seq(const viv__lane *lane, int32_t seq) {
  return seq >= 0 && seq < VIV__MAX_LOCAL ? lane->local[seq] : -1;
}

static int32_t run_op(viv__lane *lane, const viv_seq_op *op, viv_error *error) {
  viv_model *m = lane->task->m;
  int32_t seq = local_seq(lane, op->seq);
  if (seq < 0)
    return VIV_FAIL(error, VIV_BUG, "strategy", "names the unknown sequence %d", op->seq);
  int64_t held = m->token->seq_len(m->handle, seq);
  if ((op->kind == VIV_SEQ_TRUNCATE || op->kind == VIV_SEQ_GATHER) && (op->a < 0 || op->a > held))
    return VIV_FAIL(error, VIV_BUG, "strategy", "cuts %lld of %lld tokens", (long long)op->a,
                    (long long)held);
  switch (op->kind) {
  case VIV_SEQ_TRUNCATE:
    if (op->seq == 0) lane->n_mirror = op->a < lane->n_mirror ? lane->n_mirror - op->a : 0;
    return m->token->seq_truncate(m->handle, seq, held - op->a, error);
  case VIV_SEQ_FORK:
    if (op->b <= 0 || op->b >= VIV__MAX_LOCAL || lane->local[op->b] >= 0)
      return VIV_FAIL(error, VIV_BUG, "strategy", "forks to the sequence %d", op->b);
    return m->token->seq_fork(m->handle, seq, &lane->local[op->b], error);
  case VIV_SEQ_DROP:
    if (op->seq == 0) return VIV_FAIL(error, VIV_BUG, "strategy", "drops its first sequence");
    m->token->seq_close(m->handle, seq);
    lane->local[op->seq] = -1;
    return VIV_OK;
  case VIV_SEQ_GATHER:
    if (op->seq == 0) lane->n_mirror = 0; /* a session rebuilds its sequence afterwards */
    return m->token->seq_gather(m->handle, seq, held - op->a, op->index, op->n, error);
  default:
    return VIV_FAIL(error, VIV_BUG, "strategy", "asks for the unknown operation %d", op->kind);
  }
}

/* A strategy is a plugin too: what it asks for is checked before it reaches the model. */
static int32_t check_want(const viv__lane *lane, viv_error *error) {
  const viv_batch *b = lane->want.batch;
  if (!b || !VIV_HAS(b, poll))
    return VIV_FAIL(error, VIV_BUG, "strategy", "wants nothing evaluated and is not done");
  if (b->n_rows < 1 || b->n_rows > VIV__MAX_ROWS || b->n_logit_rows < 0 ||
      b->n_logit_rows > b->n_rows || (b->n_logit_rows && !b->logit_rows))
    return VIV_FAIL(error, VIV_BUG, "strategy", "wants %d rows and %d of logits", b->n_rows,
                    b->n_logit_rows);
  if (b->input_kind == VIV_INPUT_TOKENS ? !b->tokens : !b->rows)
    return VIV_FAIL(error, VIV_BUG, "strategy", "wants rows without saying which");
  for (int32_t i = 0; b->seq && i < b->n_rows; i++)
    if (local_seq(lane, b->seq[i]) < 0)
      return VIV_FAIL(error, VIV_BUG, "strategy", "names the unknown sequence %d", b->seq[i]);
  for (int32_t i = 0; i < b->n_logit_rows; i++)
    if (b->logit_rows[i] < 0 || b->logit_rows[i] >= b->n_rows ||
        (i && b->logit_rows[i] <= b->logit_rows[i - 1]))
      return VIV_FAIL(error, VIV_BUG, "strategy", "its logit rows do not ascend");
  return VIV_OK;
}

int32_t viv__generate_resume(viv__lane *lane, const viv_strategy_result *result, viv_error *error) {
  viv_strategy_want *w = &lane->want;
  *w = (viv_strategy_want){.struct_size = sizeof *w};
  lane->has_want = false;
  int32_t status = lane->api->resume(lane->strategy, result, w, error);
  if (status < 0) return status;
  bool over = status == VIV_DONE;
  if (over && w->annotate.len) {
    status = viv__json_parse(w->annotate.ptr, w->annotate.len, "annotate", &lane->results, error);
    if (status < 0) return status;
  }
  for (int32_t i = 0; i < w->n_emit && !lane->done; i++) {
    status = take_token(lane, w->emit[i], w->emit_row ? w->emit_row[i] : -1, error);
    if (status < 0) return status;
  }
  if (lane->done) return VIV_OK;
  if (over) {
    finish_lane(lane, "stop");
    return obeyed(lane, error);
  }
  for (int32_t i = 0; i < w->n_ops; i++) {
    status = run_op(lane, &w->ops[i], error);
    if (status < 0) return status;
  }
  status = check_want(lane, error);
  lane->has_want = status == VIV_OK;
  return status;
}

static void argmax_confidence(const float *row, int32_t vocab, int32_t *id, float values[4]) {
  int32_t two[2];
  float best[2] = {-INFINITY, -INFINITY};
  viv__top_k(row, vocab, vocab > 1 ? 2 : 1, two, best);
  double sum = 0, weighted = 0;
  for (int32_t i = 0; i < vocab; i++) {
    double e = exp((double)row[i] - best[0]);
    sum += e;
    if (e > 0) weighted += e * ((double)row[i] - best[0]);
  }
  *id = two[0];
  values[0] = best[0];
  values[1] = (float)(1 / sum);
  values[2] = (float)(log(sum) - weighted / sum);
  values[3] = (float)((1 - exp((double)best[1] - best[0])) / sum);
}

static int32_t reduce(viv__lane *lane, float *logits, viv_strategy_result *r, viv_error *error) {
  viv_model *m = lane->task->m;
  viv__engine *e = m->engine;
  int32_t vocab = m->info.vocab_size, mode = lane->want.logit_mode;
  int32_t k = mode == VIV_LOGITS_ARGMAX ? 4 : lane->want.top_k;
  if (mode == VIV_LOGITS_FULL) {
    r->logits = logits;
    return VIV_OK;
  }
  if (k < 1 || k > vocab)
    return VIV_FAIL(error, VIV_BUG, "strategy", "wants the top %d of %d tokens", k, vocab);
  size_t need = (size_t)r->n_rows * (size_t)k;
  if (need > e->cap_values) {
    int32_t *ids = viv__realloc(e->ids, need * sizeof *ids);
    if (ids) e->ids = ids;
    float *values = ids ? viv__realloc(e->values, need * sizeof *values) : NULL;
    if (!values) return VIV_FAIL(error, VIV_NOT_NOW, "generate", "no memory");
    e->values = values;
    e->cap_values = need;
  }
  for (int32_t i = 0; i < r->n_rows; i++) {
    const float *row = logits + (size_t)i * (size_t)vocab;
    if (mode == VIV_LOGITS_TOPK)
      viv__top_k(row, vocab, k, e->ids + i * k, e->values + i * k);
    else
      argmax_confidence(row, vocab, &e->ids[i], e->values + 4 * i);
  }
  r->ids = e->ids;
  r->values = e->values;
  return VIV_OK;
}

/* What sequence 0 holds now, for the session's bookkeeping. */
static int32_t mirror(viv__lane *lane, viv_error *error) {
  const viv_batch *b = lane->want.batch;
  if (!lane->task->job->session || b->kv_write != VIV_KV_APPEND || !b->tokens) return VIV_OK;
  int64_t need = lane->n_mirror + b->n_rows + (lane->cap_mirror ? 0 : expected(lane->task));
  if (!grow((void **)&lane->mirror, &lane->cap_mirror, need, sizeof *lane->mirror))
    return VIV_FAIL(error, VIV_NOT_NOW, "session", "no memory");
  for (int32_t i = 0; i < b->n_rows; i++)
    if (!b->seq || b->seq[i] == 0) lane->mirror[lane->n_mirror++] = b->tokens[i];
  return VIV_OK;
}

int32_t viv__generate_result(viv__lane *lane, float *logits, viv_error *error) {
  viv__task *t = lane->task;
  int32_t vocab = t->m->info.vocab_size, n = lane->want.batch->n_logit_rows;
  if (!t->prefilled_ns) t->prefilled_ns = viv__now_ns();
  int32_t status = mirror(lane, error);
  if (status < 0) return status;
  if (t->want_step_logits || t->logprobs) {
    if (n > lane->n_raw || !lane->raw) {
      float *grown = viv__realloc(lane->raw, (size_t)n * (size_t)vocab * 4);
      if (!grown) return VIV_FAIL(error, VIV_NOT_NOW, "step_logits", "no memory");
      lane->raw = grown;
    }
    lane->n_raw = n;
    memcpy(lane->raw, logits, (size_t)n * (size_t)vocab * 4);
  }
  for (int32_t i = 0; !t->beams && i < n && lane->n_out + i < t->min_new; i++)
    for (int32_t k = 0; k < t->n_eos; k++)
      logits[(size_t)i * (size_t)vocab + (size_t)t->eos[k]] = -INFINITY;
  viv_strategy_result r = {.struct_size = sizeof r, .n_rows = n};
  status = reduce(lane, logits, &r, error);
  if (status == VIV_OK) status = viv__generate_resume(lane, &r, error);
  if (status < 0) return status;
  for (int32_t i = 0; i < t->n_rows; i++)
    if (!t->lanes[i].done) return VIV_OK;
  return viv__generate_finish(t, error);
}

/* ---- text ---- */

/* How much of the unsent text can't be the beginning of a stop text. */
static size_t safe_len(const viv__lane *lane) {
  const viv__task *t = lane->task;
  size_t safe = lane->text.len;
  for (int32_t i = 0; i < t->n_stop && !lane->done; i++) {
    size_t most = t->stop[i].len - 1 < lane->text.len ? t->stop[i].len - 1 : lane->text.len;
    for (size_t k = most; k > 0; k--)
      if (!memcmp(lane->text.ptr + lane->text.len - k, t->stop[i].ptr, k)) {
        if (lane->text.len - k < safe) safe = lane->text.len - k;
        break;
      }
  }
  return viv__utf8_whole(lane->text.ptr, safe);
}

bool viv__generate_flush(viv__lane *lane) {
  viv__task *t = lane->task;
  size_t n = lane->text.len ? safe_len(lane) : 0;
  if (!n) return true;
  char name[32] = "text";
  if (t->n_rows > 1) snprintf(name, sizeof name, "text.%d", lane->row);
  viv_event e = {.struct_size = sizeof e,
                 .kind = VIV_KIND_TEXT,
                 .name = viv__str(name),
                 .bytes = {lane->text.ptr, n}};
  int32_t status = viv__job_emit(t->job, &e);
  if (status == VIV_WAIT) {
    t->job->waiting = true;
    return false;
  }
  if (status < 0) {
    viv__task_fail(t, status, NULL);
    return false;
  }
  if (t->want_text) viv__buf_add(&lane->whole, lane->text.ptr, n);
  memmove(lane->text.ptr, lane->text.ptr + n, lane->text.len - n);
  lane->text.len -= n;
  return true;
}

/* ---- the end ---- */

/* Rows of different lengths are filled with pad. */
static int32_t give_ids(viv__task *t, viv_error *error) {
  int64_t longest = 0, vocab = t->m->info.vocab_size;
  for (int32_t i = 0; i < t->n_rows; i++)
    if (t->lanes[i].n_out > longest) longest = t->lanes[i].n_out;
  int32_t status = VIV_OK;
  for (int which = 0; which < 2 && status == VIV_OK; which++) {
    if (!(which ? t->want_sequences : t->want_ids)) continue;
    int64_t lead = which ? t->columns : 0, shape[] = {t->n_rows, lead + longest};
    int64_t *data = viv__malloc((size_t)(shape[0] * shape[1]) * sizeof *data);
    for (int32_t i = 0; data && i < t->n_rows; i++) {
      const viv__lane *lane = &t->lanes[i];
      int64_t *row = data + i * shape[1];
      for (int64_t c = 0; c < shape[1]; c++) row[c] = t->pad;
      for (int64_t c = 0; which && c < lane->n_prompt; c++)
        if (lane->column[c] >= 0) row[lane->column[c]] = lane->prompt[c];
      for (int64_t c = 0; c < lane->n_out; c++) row[lead + c] = lane->out[c];
    }
    status = viv__task_out(t, which ? "sequences" : "ids", VIV_I64, 2, shape, data, 0);
  }
  if (status == VIV_OK && t->want_step_logits) {
    int64_t shape[] = {t->n_rows, longest, vocab};
    float *data = viv__calloc((size_t)(shape[0] * shape[1]), (size_t)vocab * sizeof *data);
    for (int32_t i = 0; data && i < t->n_rows; i++)
      if (t->lanes[i].n_out)
        memcpy(data + i * longest * vocab, t->lanes[i].step_logits,
               (size_t)t->lanes[i].n_out * (size_t)vocab * sizeof *data);
    status = viv__task_out(t, "step_logits", VIV_F32, 3, shape, data, 0);
  }
  return status < 0 ? VIV_FAIL(error, status, "generate", "no memory for the results") : VIV_OK;
}

/* A strategy that found several texts lists them in its last annotation: as the outputs sequences
 * (the prompt first, pad behind the end) and sequences_scores, of all rows one after another. */
static int32_t give_results(viv__task *t, viv_error *error) {
  int64_t n = 0, longest = 0, at = 0, k = 0;
  for (int32_t i = 0; i < t->n_rows; i++) {
    const viv_json *list = viv__json_get(t->lanes[i].results, "sequences");
    n += viv__json_count(list);
    for (k = 0; k < viv__json_count(list); k++)
      if (viv__json_count(viv__json_item(list, k)) > longest)
        longest = viv__json_count(viv__json_item(list, k));
  }
  bool all = viv__task_wants(t, "sequences"), scores = viv__task_wants(t, "sequences_scores");
  if (!n || (!all && !scores)) return VIV_OK;
  int64_t shape[] = {n, t->columns + longest};
  int64_t *ids = viv__malloc((size_t)(shape[0] * shape[1]) * sizeof *ids);
  float *score = viv__malloc((size_t)n * sizeof *score);
  for (int32_t i = 0; ids && score && i < t->n_rows; i++) {
    const viv__lane *lane = &t->lanes[i];
    const viv_json *list = viv__json_get(lane->results, "sequences");
    for (k = 0; k < viv__json_count(list); k++, at++) {
      int64_t *row = ids + at * shape[1];
      const viv_json *one = viv__json_item(list, k);
      for (int64_t c = 0; c < shape[1]; c++) row[c] = t->pad;
      for (int64_t c = 0; c < lane->n_prompt; c++)
        if (lane->column[c] >= 0) row[lane->column[c]] = lane->prompt[c];
      for (int64_t c = 0; c < viv__json_count(one); c++)
        row[t->columns + c] = (int64_t)viv__json_number(viv__json_item(one, c));
      score[at] =
          (float)viv__json_number(viv__json_item(viv__json_get(lane->results, "scores"), k));
    }
  }
  int32_t status = VIV_OK;
  if (all)
    status = viv__task_out(t, "sequences", VIV_I64, 2, shape, ids, 0);
  else
    viv__free(ids);
  if (status == VIV_OK && scores)
    status = viv__task_out(t, "sequences_scores", VIV_F32, 1, shape, score, 0);
  else
    viv__free(score);
  return status < 0 ? VIV_FAIL(error, status, "sequences", "no memory for the results") : VIV_OK;
}

static int32_t give_text(viv__task *t, viv_error *error) {
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    size_t len = lane->whole.len + lane->text.len;
    char *data = viv__malloc(len + 1);
    if (data && lane->whole.len) memcpy(data, lane->whole.ptr, lane->whole.len);
    if (data && lane->text.len) memcpy(data + lane->whole.len, lane->text.ptr, lane->text.len);
    char name[40] = "text_utf8";
    if (t->n_rows > 1) snprintf(name, sizeof name, "text_utf8.%d", i);
    int64_t shape[] = {(int64_t)len};
    int32_t status = viv__task_out(t, name, VIV_U8, 1, shape, data, 0);
    if (status < 0) return VIV_FAIL(error, status, "text_utf8", "no memory");
  }
  return VIV_OK;
}

/* The session learns what was said, and its sequence is cut back to what is a prefix of that; a model
 * that can't cut loses the sequence, and the next job feeds everything again. */
static void update_session(viv__lane *lane) {
  viv_session *s = lane->task->job->session;
  viv_model *m = lane->task->m;
  int64_t n = lane->base + lane->n_prompt + lane->n_out;
  if (!grow((void **)&s->tokens, &s->cap_tokens, n, sizeof *s->tokens)) {
    m->token->seq_close(m->handle, s->seq);
    s->seq = -1;
    return;
  }
  memcpy(s->tokens + lane->base, lane->prompt, (size_t)lane->n_prompt * sizeof *s->tokens);
  if (lane->n_out)
    memcpy(s->tokens + lane->base + lane->n_prompt, lane->out,
           (size_t)lane->n_out * sizeof *s->tokens);
  s->n_tokens = n;
  int64_t same = lane->base + lane->fed, held = m->token->seq_len(m->handle, s->seq);
  for (int64_t i = 0; i < lane->n_mirror && same < n && s->tokens[same] == lane->mirror[i]; i++)
    same++;
  if (held > same &&
      (!m->token->seq_truncate || m->token->seq_truncate(m->handle, s->seq, same, NULL) < 0)) {
    m->token->seq_close(m->handle, s->seq);
    s->seq = -1;
  }
}

int32_t viv__generate_finish(viv__task *t, viv_error *error) {
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    viv_strategy_counters c = {.struct_size = sizeof c};
    if (lane->strategy) lane->api->counters(lane->strategy, &c);
    t->counters.target_calls += c.target_calls;
    t->counters.drafted += c.drafted;
    t->counters.accepted += c.accepted;
  }
  if (t->job->session && t->lanes[0].strategy) update_session(&t->lanes[0]);
  bool listed = t->lanes[0].results != NULL;
  if (listed) t->want_sequences = false;
  int32_t status = give_ids(t, error);
  if (status == VIV_OK && listed) status = give_results(t, error);
  if (status == VIV_OK && t->logprobs) status = viv__logprobs_give(t, error);
  if (status == VIV_OK && t->want_text) status = give_text(t, error);
  t->complete = true;
  return status;
}

void viv__generate_release(viv__lane *lane) {
  viv_model *m = lane->task->m;
  if (lane->strategy) lane->api->destroy(lane->strategy);
  lane->strategy = NULL;
  for (int i = 1; i < VIV__MAX_LOCAL; i++)
    if (lane->local[i] >= 0) m->token->seq_close(m->handle, lane->local[i]);
  viv_session *s = lane->task->job->session;
  if (lane->owns_seq && lane->seq >= 0) {
    m->token->seq_close(m->handle, lane->seq);
  } else if (s && !lane->task->complete && s->seq >= 0) {
    /* The job broke off: nobody knows what the sequence holds. What was said stays known. */
    m->token->seq_close(m->handle, s->seq);
    s->seq = -1;
  }
}
