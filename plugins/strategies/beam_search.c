/* Beam search (transformers' generate with num_beams above 1).
 *
 *   score(y) = sum of log p(y_t | y_<t)          of a beam that goes on
 *   final(y) = score(y) / length(y)^length_penalty of one that has ended; its end token counts
 *
 * Each step takes the best max(2, 1 + end tokens) * num_beams continuations of all beams; those of
 * the first num_beams that end are kept when they are better than an ended one, the best num_beams
 * that do not end go on. It stops when no going beam can become better than the worst ended one:
 * early_stopping true stops at num_beams ended ones, false judges by the present length, "never" by
 * the longest one. Nothing is emitted before the end; annotate then holds all results:
 * {"sequences": [[token ids], ...], "scores": [...]}. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "strategies/strategies.h"

enum { MAX_BEAMS = 15, MAX_ENDS = 8, MAX_KEEP = MAX_BEAMS * (MAX_ENDS + 1) };

struct beam {
  int32_t *token; /* [length] generated */
  double score;
  int32_t seq; /* the host's number */
};

struct ended {
  int32_t *token; /* [length] */
  int32_t length;
  double score;
};

struct candidate {
  double score;
  int32_t beam, token;
};

struct beam_search {
  viv_strategy base;
  struct beam beam[MAX_BEAMS], next[MAX_BEAMS];
  struct ended ended[MAX_BEAMS];
  struct candidate best[MAX_KEEP];
  const int32_t *prompt;
  int32_t *memory; /* [3 * MAX_BEAMS][max_new + 1] */
  int32_t n_prompt, n_beams, n_running, n_return, length, max_new, min_new, n_ends, n_ended;
  int32_t end[MAX_ENDS];
  int32_t stop_when;   /* 0 false, 1 true, 2 never */
  int32_t constrained; /* a grammar says what may follow */
  double penalty;
  int32_t rows[MAX_BEAMS], seq[MAX_BEAMS], logit_rows[MAX_BEAMS];
  viv_seq_op ops[2 * MAX_BEAMS];
  viv_batch batch;
  char *text; /* annotate */
  uint64_t cap_text;
};

static int32_t bad(viv_error *error, int32_t code, const char *where, const char *message) {
  if (error) {
    error->code = code;
    snprintf(error->source, sizeof error->source, "strategies/beam_search.c");
    snprintf(error->where, sizeof error->where, "%s", where);
    snprintf(error->message, sizeof error->message, "%s", message);
  }
  return code;
}

static const viv_json *param(const viv_strategy *s, const viv_json *params, const char *key) {
  viv_str k = {key, strlen(key)};
  return s->host->json_member(params, k);
}

static double number(const viv_strategy *s, const viv_json *params, const char *key,
                     double fallback) {
  const viv_json *node = param(s, params, key);
  return s->host->json_type(node) == VIV_JSON_NUMBER ? s->host->json_number(node) : fallback;
}

static int32_t read_ends(struct beam_search *b, const viv_strategy_setup *setup, viv_error *error) {
  const viv_host *host = b->base.host;
  const viv_json *node = param(&b->base, setup->params, "eos_token_id");
  int32_t type = host->json_type(node);
  int64_t n = type == VIV_JSON_ARRAY ? host->json_count(node) : type == VIV_JSON_NUMBER ? 1 : -1;
  if (n < 0) n = setup->info->n_eos;
  if (n > MAX_ENDS) return bad(error, VIV_NEVER, "eos_token_id", "more than 8 with beam search");
  for (int64_t i = 0; i < n; i++)
    b->end[b->n_ends++] = type == VIV_JSON_ARRAY
                              ? (int32_t)host->json_number(host->json_item(node, i))
                          : type == VIV_JSON_NUMBER ? (int32_t)host->json_number(node)
                                                    : setup->info->eos[i];
  return VIV_OK;
}

static int32_t create(viv_strategy *s, const viv_strategy_setup *setup, viv_error *error) {
  struct beam_search *b = (struct beam_search *)s;
  const viv_json *early = param(s, setup->params, "early_stopping");
  double beams = number(s, setup->params, "num_beams", 4),
         give = number(s, setup->params, "num_return_sequences", 1);
  if (!(beams >= 1 && beams <= MAX_BEAMS))
    return bad(error, VIV_BAD_INPUT, "num_beams", "must be a whole number from 1 to 15");
  if (!(give >= 1 && give <= beams))
    return bad(error, VIV_BAD_INPUT, "num_return_sequences", "must be from 1 to num_beams");
  b->constrained = s->host->json_type(param(s, setup->params, "json_schema")) > VIV_JSON_NULL ||
                   s->host->json_type(param(s, setup->params, "grammar")) > VIV_JSON_NULL;
  b->n_beams = (int32_t)beams;
  b->n_return = (int32_t)give;
  b->penalty = number(s, setup->params, "length_penalty", 1);
  b->min_new = (int32_t)number(s, setup->params, "min_new_tokens", 0);
  b->max_new = (int32_t)setup->max_new_tokens;
  if (s->host->json_type(early) == VIV_JSON_STRING)
    b->stop_when = 2;
  else
    b->stop_when = s->host->json_boolean(early) ? 1 : 0;
  int32_t status = read_ends(b, setup, error);
  if (status < 0) return status;
  b->prompt = setup->prompt;
  b->n_prompt = setup->n_prompt;
  uint64_t rows = 3 * MAX_BEAMS;
  b->memory = s->host->arena_alloc(s->arena, rows * (uint64_t)(b->max_new + 1) * sizeof *b->memory);
  b->cap_text = 256 + (uint64_t)b->n_return * (32 + 12 * (uint64_t)b->max_new);
  b->text = s->host->arena_alloc(s->arena, b->cap_text);
  if (!b->memory || !b->text) return bad(error, VIV_NOT_NOW, "num_beams", "no memory");
  for (int32_t i = 0; i < b->n_beams; i++) {
    b->beam[i].token = b->memory + (int64_t)i * (b->max_new + 1);
    b->next[i].token = b->memory + (int64_t)(MAX_BEAMS + i) * (b->max_new + 1);
    b->ended[i].token = b->memory + (int64_t)(2 * MAX_BEAMS + i) * (b->max_new + 1);
    b->logit_rows[i] = i;
  }
  b->n_running = 1;
  return VIV_OK;
}

/* ---- one step ---- */

static int32_t is_end(const struct beam_search *b, int32_t token) {
  for (int32_t i = 0; i < b->n_ends; i++)
    if (b->end[i] == token) return 1;
  return 0;
}

/* Logits to processed log probabilities. */
static void log_probabilities(struct beam_search *b, const struct beam *beam, float *row) {
  viv_strategy *s = &b->base;
  double top = -INFINITY, sum = 0;
  for (int32_t i = 0; i < s->vocab_size; i++)
    if (row[i] > top) top = row[i];
  for (int32_t i = 0; i < s->vocab_size; i++) sum += exp(row[i] - top);
  for (int32_t i = 0; i < s->vocab_size; i++) row[i] = (float)(row[i] - top - log(sum));
  if (!s->plain) {
    s->sampling->accept(s->sampler, 0, -1);
    for (int32_t i = 0; i < b->n_prompt; i++) s->sampling->accept(s->sampler, b->prompt[i], 0);
    for (int32_t i = 0; i < b->length; i++) s->sampling->accept(s->sampler, beam->token[i], 1);
    s->sampling->process(s->sampler, row);
  }
  for (int32_t i = 0; b->length < b->min_new && i < b->n_ends; i++) row[b->end[i]] = -INFINITY;
}

/* Keeps an ended text among the best num_beams: a beam, and the token that ends it unless negative. */
static void keep_ended(struct beam_search *b, double sum, int32_t beam, int32_t last) {
  int32_t length = b->length + (last >= 0), at = b->n_ended;
  double score = sum / pow(length, b->penalty);
  if (at == b->n_beams && !(score > b->ended[at - 1].score)) return;
  if (at == b->n_beams) at--;
  int32_t *token = b->ended[at].token;
  for (; at > 0 && score > b->ended[at - 1].score; at--) b->ended[at] = b->ended[at - 1];
  memcpy(token, b->beam[beam].token, (size_t)b->length * sizeof *token);
  if (last >= 0) token[b->length] = last;
  b->ended[at] = (struct ended){token, length, score};
  if (b->n_ended < b->n_beams) b->n_ended++;
}

/* The best continuations of all beams, best first. */
static int32_t gather(struct beam_search *b, float *logits) {
  int32_t n = 0, keep = b->n_beams * (b->n_ends > 1 ? 1 + b->n_ends : 2);
  for (int32_t i = 0; i < b->n_running; i++) {
    float *row = logits + (int64_t)i * b->base.vocab_size;
    int32_t possible = 0;
    log_probabilities(b, &b->beam[i], row);
    for (int32_t t = 0; t < b->base.vocab_size; t++) {
      double score = b->beam[i].score + row[t];
      if (!(score > -INFINITY)) continue;
      possible = 1;
      if (n == keep && !(score > b->best[n - 1].score)) continue;
      int32_t at = n < keep ? n++ : n - 1;
      for (; at > 0 && score > b->best[at - 1].score; at--) b->best[at] = b->best[at - 1];
      b->best[at] = (struct candidate){score, i, t};
    }
    /* Where the grammar's text is whole and the vocabulary has no token that ends it. */
    if (!possible && b->constrained && b->length) keep_ended(b, b->beam[i].score, i, -1);
  }
  return n;
}

/* Each going beam keeps its parent's sequence, or a fork of it where a sibling has that one. */
static int32_t move_sequences(struct beam_search *b, const int32_t *parent, int32_t n) {
  uint8_t taken[MAX_BEAMS] = {0}, used[MAX_BEAMS + 1] = {0};
  int32_t n_ops = 0;
  used[0] = 1; /* the first sequence can't be dropped or made anew */
  for (int32_t i = 0; i < n; i++) {
    b->next[i].seq = taken[parent[i]] ? -1 : b->beam[parent[i]].seq;
    taken[parent[i]] = 1;
  }
  for (int32_t i = 0; i < b->n_running; i++) {
    if (taken[i] || !b->beam[i].seq) used[b->beam[i].seq] = 1;
    if (!taken[i] && b->beam[i].seq)
      b->ops[n_ops++] = (viv_seq_op){.kind = VIV_SEQ_DROP, .seq = b->beam[i].seq};
  }
  for (int32_t i = 0; i < n; i++) {
    if (b->next[i].seq >= 0) continue;
    int32_t free_seq = 1;
    while (used[free_seq]) free_seq++;
    used[free_seq] = 1;
    b->next[i].seq = free_seq;
    b->ops[n_ops++] =
        (viv_seq_op){.kind = VIV_SEQ_FORK, .seq = b->beam[parent[i]].seq, .b = free_seq};
  }
  return n_ops;
}

static int32_t go_on(struct beam_search *b, int32_t n) {
  int32_t parent[MAX_BEAMS], going = 0, last = b->length + 1 >= b->max_new;
  for (int32_t i = 0; i < n; i++) {
    const struct candidate *c = &b->best[i];
    int32_t whole = is_end(b, c->token), ends = last || whole;
    if (ends && i < b->n_beams && (whole || !b->constrained))
      keep_ended(b, c->score, c->beam, c->token);
    if (ends || going == b->n_beams) continue;
    struct beam *to = &b->next[going];
    memcpy(to->token, b->beam[c->beam].token, (size_t)b->length * sizeof *to->token);
    to->token[b->length] = c->token;
    to->score = c->score;
    parent[going++] = c->beam;
  }
  /* What a grammar's text was cut off at counts only where no text came to its end. */
  for (int32_t i = 0; last && b->constrained && !b->n_ended && i < n && i < b->n_beams; i++)
    if (!is_end(b, b->best[i].token))
      keep_ended(b, b->best[i].score, b->best[i].beam, b->best[i].token);
  int32_t n_ops = move_sequences(b, parent, going);
  for (int32_t i = 0; i < b->n_beams; i++) {
    struct beam old = b->beam[i];
    b->beam[i] = b->next[i];
    b->next[i] = old;
  }
  b->n_running = going;
  b->length++;
  return n_ops;
}

static int32_t over(const struct beam_search *b) {
  if (!b->n_running) return 1;
  if (b->n_ended < b->n_beams) return 0;
  if (b->stop_when == 1) return 1;
  double length = b->stop_when == 2 && b->penalty > 0 ? b->max_new : b->length;
  return !(b->beam[0].score / pow(length, b->penalty) > b->ended[b->n_ended - 1].score);
}

static void finish(struct beam_search *b, viv_strategy_want *want) {
  uint64_t n = 0;
  int32_t give = b->n_return < b->n_ended ? b->n_return : b->n_ended;
  n += (uint64_t)snprintf(b->text, b->cap_text, "{\"sequences\":[");
  for (int32_t i = 0; i < give; i++) {
    n += (uint64_t)snprintf(b->text + n, b->cap_text - n, i ? ",[" : "[");
    for (int32_t k = 0; k < b->ended[i].length; k++)
      n += (uint64_t)snprintf(b->text + n, b->cap_text - n, k ? ",%d" : "%d", b->ended[i].token[k]);
    n += (uint64_t)snprintf(b->text + n, b->cap_text - n, "]");
  }
  n += (uint64_t)snprintf(b->text + n, b->cap_text - n, "],\"scores\":[");
  for (int32_t i = 0; i < give; i++)
    n += (uint64_t)snprintf(b->text + n, b->cap_text - n, i ? ",%.9g" : "%.9g", b->ended[i].score);
  n += (uint64_t)snprintf(b->text + n, b->cap_text - n, "]}");
  want->annotate = (viv_str){b->text, n};
  if (!b->n_ended) return;
  want->emit = b->ended[0].token;
  want->n_emit = b->ended[0].length;
}

static int32_t resume(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                      viv_error *error) {
  struct beam_search *b = (struct beam_search *)s;
  (void)error;
  if (result) {
    s->counters.target_calls++;
    want->ops = b->ops;
    want->n_ops = go_on(b, gather(b, (float *)(uintptr_t)result->logits));
    if (over(b)) {
      finish(b, want);
      return VIV_DONE;
    }
  }
  for (int32_t i = 0; i < b->n_running; i++) {
    b->rows[i] = b->length ? b->beam[i].token[b->length - 1] : b->prompt[b->n_prompt - 1];
    b->seq[i] = b->beam[i].seq;
  }
  want->logit_mode = VIV_LOGITS_FULL;
  b->batch = (viv_batch){.struct_size = sizeof b->batch,
                         .n_rows = b->n_running,
                         .tokens = b->rows,
                         .seq = b->seq,
                         .logit_rows = b->logit_rows,
                         .n_logit_rows = b->n_running};
  want->batch = &b->batch;
  return VIV_MORE;
}

const struct strategy_kind beam_search = {
    "beam-search", VIV_CAP_FORK, 0, sizeof(struct beam_search), create, resume};
