/* The warper and the random generator that all strategies share (viv.sampler/1). */
#include "tasks/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct candidate {
  float logit;
  int32_t id;
} candidate;

/* Token ids and what is added to the logit of the last one when the others stand right before. */
typedef struct phrase {
  const int32_t *id; /* [n] */
  int32_t n;
  float bias; /* -inf: forbidden */
} phrase;

typedef struct id_list {
  int32_t *id; /* [n] */
  int32_t n;
} id_list;

typedef struct id_range {
  int32_t first, n;
} id_range;

struct viv_sampler {
  int32_t vocab_size;
  const viv_host *host;
  viv_arena *arena;
  const viv__sampler_guide *guide; /* NULL: none */
  double temperature, top_p, min_p, typical, epsilon, eta, top_h, n_sigma;
  float repetition, encoder_repetition, presence, frequency;
  int32_t top_k, no_repeat, encoder_no_repeat;
  int64_t min_length, min_new, max_length, max_new; /* max: 0 unknown */
  double decay_start, decay_factor;                 /* factor 0: off */
  bool finite;
  id_list eos, forced_eos, suppress, begin_suppress, allowed;
  id_range *cycle; /* [n_cycle] new token k lies in cycle[k % n_cycle], or ends before cycle[0] */
  int32_t n_cycle;
  phrase *phrases; /* [n_phrases]; sequence_bias, then the forbidden ones from first_bad on */
  int32_t n_phrases, first_bad;
  uint8_t *seen, *prompted; /* [vocab_size] 1: in the history; in the prompt */
  int32_t *generated;       /* [vocab_size] how often */
  int32_t *history;         /* [n_history] the prompt and what was generated */
  int64_t n_history, n_prompt, cap_history;
  int32_t n_bias;
  candidate *bias;   /* [n_bias] */
  candidate *sorted; /* [vocab_size] scratch */
  uint64_t state[4]; /* xoshiro256** */
};

static _Thread_local const viv__sampler_guide *offered;

void viv__sampler_offer(const viv__sampler_guide *guide) {
  offered = guide;
}

/* ---- random numbers: xoshiro256** seeded by splitmix64 ---- */

static uint64_t rotl(uint64_t x, int k) {
  return (x << k) | (x >> (64 - k));
}

static void seed_state(viv_sampler *s, uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    s->state[i] = z ^ (z >> 31);
  }
}

static uint64_t next(viv_sampler *s) {
  uint64_t *t = s->state, result = rotl(t[1] * 5, 7) * 9, x = t[1] << 17;
  t[2] ^= t[0];
  t[3] ^= t[1];
  t[1] ^= t[2];
  t[0] ^= t[3];
  t[2] ^= x;
  t[3] = rotl(t[3], 45);
  return result;
}

static double uniform(viv_sampler *s) {
  return (double)(next(s) >> 11) * 0x1.0p-53;
}

/* ---- parameters ---- */

static int32_t number(const viv_json *params, const char *key, double fallback, double low,
                      double high, double *out, viv_error *error) {
  const viv_json *node = viv__json_get(params, key);
  int32_t type = viv__json_type(node);
  *out = fallback;
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  double v = viv__json_number(node);
  if (type != VIV_JSON_NUMBER || !(v >= low && v <= high))
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must be a number from %g to %g", low, high);
  *out = v;
  return VIV_OK;
}

static int32_t read_id(const viv_sampler *s, const char *key, const viv_json *node, int32_t *out,
                       viv_error *error) {
  double id = viv__json_number(node);
  if (viv__json_type(node) != VIV_JSON_NUMBER || !(id >= 0 && id < s->vocab_size) ||
      id != floor(id))
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must hold token ids below %d", s->vocab_size);
  *out = (int32_t)id;
  return VIV_OK;
}

/* "token_cycle": [[first token, how many], ...] */
static int32_t read_cycle(viv_sampler *s, const viv_json *params, viv_error *error) {
  static const char key[] = "token_cycle";
  const viv_json *list = viv__json_get(params, key);
  int32_t type = viv__json_type(list);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  int64_t n = type == VIV_JSON_ARRAY ? viv__json_count(list) : 0;
  if (n < 1 || n > 4096)
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must be a list of 1 to 4096 [first token, number]");
  s->cycle = s->host->arena_alloc(s->arena, (uint64_t)n * sizeof *s->cycle);
  if (!s->cycle) return VIV_FAIL(error, VIV_NOT_NOW, key, "no memory");
  for (int64_t i = 0; i < n; i++) {
    const viv_json *pair = viv__json_item(list, i);
    double first = viv__json_number(viv__json_item(pair, 0)),
           count = viv__json_number(viv__json_item(pair, 1));
    if (viv__json_count(pair) != 2 || first != floor(first) || count != floor(count) ||
        !(first >= 0 && count >= 1 && first + count <= s->vocab_size))
      return VIV_FAIL(error, VIV_BAD_INPUT, key, "range %lld is not within the %d tokens",
                      (long long)i, s->vocab_size);
    s->cycle[i] = (id_range){(int32_t)first, (int32_t)count};
  }
  s->n_cycle = (int32_t)n;
  return VIV_OK;
}

/* A token id or a list of them; absent: none. */
static int32_t read_ids(viv_sampler *s, const char *key, const viv_json *node, id_list *out,
                        viv_error *error) {
  int32_t type = viv__json_type(node), status = VIV_OK;
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  int64_t n = type == VIV_JSON_ARRAY ? viv__json_count(node) : 1;
  if (n > s->vocab_size)
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "holds more ids than there are tokens");
  out->id = s->host->arena_alloc(s->arena, (uint64_t)(n + 1) * sizeof *out->id);
  if (!out->id) return VIV_FAIL(error, VIV_NOT_NOW, key, "no memory");
  for (int64_t i = 0; i < n && status == VIV_OK; i++)
    status = read_id(s, key, type == VIV_JSON_ARRAY ? viv__json_item(node, i) : node,
                     &out->id[out->n++], error);
  return status;
}

static int32_t read_bias(viv_sampler *s, const viv_json *params, viv_error *error) {
  const viv_json *bias = viv__json_get(params, "logit_bias");
  int64_t n = viv__json_count(bias);
  int32_t type = viv__json_type(bias);
  if (type != VIV_JSON_ABSENT && type != VIV_JSON_NULL && type != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, "logit_bias", "must be an object {\"token id\": number}");
  if (!n) return VIV_OK;
  s->bias = s->host->arena_alloc(s->arena, (uint64_t)n * sizeof *s->bias);
  if (!s->bias) return VIV_FAIL(error, VIV_NOT_NOW, "logit_bias", "no memory");
  for (int64_t i = 0; i < n; i++) {
    const viv_json *item = viv__json_item(bias, i);
    char *end = NULL;
    viv_str key = viv__json_key(item);
    long id = key.len ? strtol(key.ptr, &end, 10) : -1;
    if (!end || *end || id < 0 || id >= s->vocab_size)
      return VIV_FAIL(error, VIV_BAD_INPUT, "logit_bias", "\"%.*s\" is no token id below %d",
                      (int)key.len, key.ptr, s->vocab_size);
    if (viv__json_type(item) != VIV_JSON_NUMBER)
      return VIV_FAIL(error, VIV_BAD_INPUT, "logit_bias", "the bias of token %ld is no number", id);
    s->bias[s->n_bias++] = (candidate){(float)viv__json_number(item), (int32_t)id};
  }
  return VIV_OK;
}

/* sequence_bias: [[[ids], bias], ...]; bad_words_ids: [[ids], ...]. */
static int32_t read_phrases(viv_sampler *s, const viv_json *params, viv_error *error) {
  static const char *const keys[] = {"sequence_bias", "bad_words_ids"};
  const viv_json *lists[] = {viv__json_get(params, keys[0]), viv__json_get(params, keys[1])};
  int64_t n = viv__json_count(lists[0]) + viv__json_count(lists[1]);
  for (int which = 0; which < 2; which++) {
    int32_t type = viv__json_type(lists[which]);
    if (type != VIV_JSON_ABSENT && type != VIV_JSON_NULL && type != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, keys[which], "must be a list");
  }
  if (!n) return VIV_OK;
  s->phrases = s->host->arena_alloc(s->arena, (uint64_t)n * sizeof *s->phrases);
  if (!s->phrases) return VIV_FAIL(error, VIV_NOT_NOW, keys[0], "no memory");
  for (int which = 0; which < 2; which++) {
    if (which) s->first_bad = s->n_phrases;
    for (int64_t i = 0; i < viv__json_count(lists[which]); i++) {
      const viv_json *item = viv__json_item(lists[which], i), *value = viv__json_item(item, 1);
      id_list ids = {0};
      const viv_json *words = which ? item : viv__json_item(item, 0);
      if (viv__json_type(words) != VIV_JSON_ARRAY || !viv__json_count(words) ||
          (!which && viv__json_type(value) != VIV_JSON_NUMBER))
        return VIV_FAIL(error, VIV_BAD_INPUT, keys[which], "entry %lld must be %s", (long long)i,
                        which ? "a list of token ids" : "[[token ids], number]");
      int32_t status = read_ids(s, keys[which], words, &ids, error);
      if (status < 0) return status;
      /* The end of the text can't be a bad word. */
      bool end = false;
      for (int32_t k = 0; which && ids.n == 1 && k < s->eos.n; k++) end |= s->eos.id[k] == *ids.id;
      if (!end)
        s->phrases[s->n_phrases++] =
            (phrase){ids.id, ids.n, which ? -INFINITY : (float)viv__json_number(value)};
    }
  }
  return VIV_OK;
}

static int32_t read_decay(viv_sampler *s, const viv_json *params, viv_error *error) {
  static const char key[] = "exponential_decay_length_penalty";
  const viv_json *node = viv__json_get(params, key);
  int32_t type = viv__json_type(node);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  s->decay_start = viv__json_number(viv__json_item(node, 0));
  s->decay_factor = viv__json_number(viv__json_item(node, 1));
  if (viv__json_count(node) != 2 || !(s->decay_start >= 0) || !(s->decay_factor > 0))
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must be [tokens, factor above 0]");
  if (!s->eos.n) return VIV_FAIL(error, VIV_BAD_INPUT, key, "needs eos_token_id");
  return VIV_OK;
}

struct numeric {
  const char *key;
  double fallback, low, high, *out;
};

static int32_t read_numbers(viv_sampler *s, const viv_json *params, viv_error *error) {
  double k, r, er, pr, f, ng, eng, min_length, min_new, max_length, max_new;
  const struct numeric all[] = {
      {"temperature", 1, 0, 100, &s->temperature},
      {"top_k", 0, 0, 1e9, &k},
      {"top_p", 1, 0, 1, &s->top_p},
      {"min_p", 0, 0, 1, &s->min_p},
      {"typical_p", 1, 0, 1, &s->typical},
      {"epsilon_cutoff", 0, 0, 1, &s->epsilon},
      {"eta_cutoff", 0, 0, 1, &s->eta},
      {"top_h", 0, 0, 1, &s->top_h},
      {"top_n_sigma", 0, 0, 1e6, &s->n_sigma},
      {"repetition_penalty", 1, 1e-3, 1e3, &r},
      {"encoder_repetition_penalty", 1, 1e-3, 1e3, &er},
      {"presence_penalty", 0, -100, 100, &pr},
      {"frequency_penalty", 0, -100, 100, &f},
      {"no_repeat_ngram_size", 0, 0, 1e6, &ng},
      {"encoder_no_repeat_ngram_size", 0, 0, 1e6, &eng},
      {"min_length", 0, 0, 1e9, &min_length},
      {"min_new_tokens", 0, 0, 1e9, &min_new},
      {"max_length", 0, 0, 1e9, &max_length},
      {"max_new_tokens", 0, 0, 1e9, &max_new},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    int32_t status =
        number(params, all[i].key, all[i].fallback, all[i].low, all[i].high, all[i].out, error);
    if (status < 0) return status;
  }
  s->top_k = (int32_t)k;
  s->repetition = (float)r;
  s->encoder_repetition = (float)er;
  s->presence = (float)pr;
  s->frequency = (float)f;
  s->no_repeat = (int32_t)ng;
  s->encoder_no_repeat = (int32_t)eng;
  s->min_length = (int64_t)min_length;
  s->min_new = (int64_t)min_new;
  s->max_length = (int64_t)max_length;
  s->max_new = (int64_t)max_new;
  s->finite = viv__json_bool(params, "remove_invalid_values", false);
  return VIV_OK;
}

static int32_t create(const viv_host *host, viv_arena *arena, const viv_json *params,
                      int32_t vocab_size, uint64_t seed, viv_sampler **out, viv_error *error) {
  viv_sampler *s = host->arena_alloc(arena, sizeof *s);
  if (!s) return VIV_FAIL(error, VIV_NOT_NOW, "sampler", "no memory");
  s->vocab_size = vocab_size;
  s->host = host;
  s->arena = arena;
  s->guide = offered;
  s->seen = host->arena_alloc(arena, (uint64_t)vocab_size);
  s->prompted = host->arena_alloc(arena, (uint64_t)vocab_size);
  s->generated = host->arena_alloc(arena, (uint64_t)vocab_size * sizeof *s->generated);
  s->sorted = host->arena_alloc(arena, (uint64_t)vocab_size * sizeof *s->sorted);
  if (!s->seen || !s->prompted || !s->generated || !s->sorted)
    return VIV_FAIL(error, VIV_NOT_NOW, "sampler", "no memory for %d tokens", vocab_size);
  const struct {
    const char *key;
    id_list *list;
  } lists[] = {{"eos_token_id", &s->eos},
               {"forced_eos_token_id", &s->forced_eos},
               {"suppress_tokens", &s->suppress},
               {"begin_suppress_tokens", &s->begin_suppress},
               {"allowed_token_ids", &s->allowed}};
  int32_t status = read_numbers(s, params, error);
  for (size_t i = 0; i < sizeof lists / sizeof *lists && status == VIV_OK; i++)
    status = read_ids(s, lists[i].key, viv__json_get(params, lists[i].key), lists[i].list, error);
  if (status == VIV_OK) status = read_cycle(s, params, error);
  if (status == VIV_OK) status = read_bias(s, params, error);
  if (status == VIV_OK) status = read_phrases(s, params, error);
  if (status == VIV_OK) status = read_decay(s, params, error);
  if (status < 0) return status;
  seed_state(s, seed);
  *out = s;
  return VIV_OK;
}

static void accept_token(viv_sampler *s, int32_t token, int32_t generated) {
  if (generated < 0) {
    memset(s->seen, 0, (size_t)s->vocab_size);
    memset(s->prompted, 0, (size_t)s->vocab_size);
    memset(s->generated, 0, (size_t)s->vocab_size * sizeof *s->generated);
    s->n_history = s->n_prompt = 0;
    if (s->guide) s->guide->restart(s->guide->context);
    return;
  }
  if (token < 0 || token >= s->vocab_size) return;
  if (s->n_history == s->cap_history) {
    int64_t cap = s->cap_history ? 2 * s->cap_history : 256;
    int32_t *wider = s->host->arena_alloc(s->arena, (uint64_t)cap * sizeof *wider);
    if (!wider) return;
    if (s->n_history) memcpy(wider, s->history, (size_t)s->n_history * sizeof *wider);
    s->history = wider;
    s->cap_history = cap;
  }
  s->history[s->n_history++] = token;
  s->seen[token] = 1;
  if (generated) {
    s->generated[token]++;
    if (s->guide) s->guide->advance(s->guide->context, token);
  } else {
    s->prompted[token] = 1;
    s->n_prompt = s->n_history;
  }
}

/* ---- processors, in transformers' order (generation/logits_process.py) ---- */

static void add_phrases(viv_sampler *s, float *logits, int32_t from, int32_t to) {
  for (int32_t i = from; i < to; i++) {
    const phrase *p = &s->phrases[i];
    int32_t before = p->n - 1;
    if (p->n > s->n_history && p->n > 1) continue;
    if (before && memcmp(s->history + s->n_history - before, p->id, (size_t)before * sizeof *p->id))
      continue;
    logits[p->id[before]] += p->bias;
  }
}

/* Forbids what followed the last n - 1 tokens anywhere in the first `within` tokens. */
static void forbid_ngrams(viv_sampler *s, float *logits, int32_t n, int64_t within) {
  if (n < 1 || s->n_history + 1 < n) return;
  const int32_t *tail = s->history + s->n_history - (n - 1);
  for (int64_t at = 0; at + n <= within; at++)
    if (n == 1 || !memcmp(s->history + at, tail, (size_t)(n - 1) * sizeof *tail))
      logits[s->history[at + n - 1]] = -INFINITY;
}

static void forbid(float *logits, const id_list *list) {
  for (int32_t i = 0; i < list->n; i++) logits[list->id[i]] = -INFINITY;
}

/* Of the code book (or whatever the ranges mean) whose turn it is. */
static void keep_turn(viv_sampler *s, float *logits) {
  int64_t turn = (s->n_history - s->n_prompt) % s->n_cycle;
  const id_range *r = &s->cycle[turn];
  for (int32_t i = 0; i < s->eos.n; i++)
    s->sorted[i].logit = turn ? -INFINITY : logits[s->eos.id[i]];
  for (int32_t i = 0; i < s->vocab_size; i++)
    if (i < r->first || i - r->first >= r->n) logits[i] = -INFINITY;
  for (int32_t i = 0; i < s->eos.n; i++)
    if (!turn) logits[s->eos.id[i]] = s->sorted[i].logit;
}

static void keep_only(viv_sampler *s, float *logits, const id_list *list, bool as_zero) {
  for (int32_t i = 0; i < list->n; i++) s->sorted[i].logit = as_zero ? 0 : logits[list->id[i]];
  for (int32_t i = 0; i < s->vocab_size; i++) logits[i] = -INFINITY;
  for (int32_t i = 0; i < list->n; i++) logits[list->id[i]] = s->sorted[i].logit;
}

static void penalise(viv_sampler *s, float *logits) {
  float r = s->repetition, e = s->encoder_repetition;
  for (int32_t i = 0; e != 1 && i < s->vocab_size; i++)
    if (s->prompted[i]) logits[i] = logits[i] < 0 ? logits[i] / e : logits[i] * e;
  for (int32_t i = 0; r != 1 && i < s->vocab_size; i++)
    if (s->seen[i]) logits[i] = logits[i] < 0 ? logits[i] * r : logits[i] / r;
}

static void lengths(viv_sampler *s, float *logits) {
  int64_t n = s->n_history;
  if (n < s->min_length || n - s->n_prompt < s->min_new) forbid(logits, &s->eos);
  if (s->allowed.n) keep_only(s, logits, &s->allowed, false);
  if (s->n_cycle) keep_turn(s, logits);
  int64_t most = s->max_new ? s->n_prompt + s->max_new : s->max_length;
  if (s->forced_eos.n && n == most - 1) keep_only(s, logits, &s->forced_eos, true);
  if (s->finite)
    for (int32_t i = 0; i < s->vocab_size; i++)
      logits[i] = isnan(logits[i])       ? 0
                  : logits[i] > FLT_MAX  ? FLT_MAX
                  : logits[i] < -FLT_MAX ? -FLT_MAX
                                         : logits[i];
  double over = (double)(n - s->n_prompt) - s->decay_start;
  for (int32_t i = 0; s->decay_factor > 0 && over > 0 && i < s->eos.n; i++) {
    float *logit = &logits[s->eos.id[i]];
    if (isfinite(*logit)) *logit += fabsf(*logit) * (float)(pow(s->decay_factor, over) - 1);
  }
}

static void obey(viv_sampler *s, float *logits) {
  const uint64_t *mask = s->guide->next(s->guide->context);
  for (int32_t i = 0; i < s->vocab_size; i += 64) {
    uint64_t word = mask ? mask[i / 64] : 0;
    int32_t end = s->vocab_size - i < 64 ? s->vocab_size - i : 64;
    if (word == ~(uint64_t)0) continue;
    for (int32_t k = 0; k < end; k++) logits[i + k] = word >> k & 1 ? logits[i + k] : -INFINITY;
  }
}

static void process(viv_sampler *s, float *logits) {
  add_phrases(s, logits, 0, s->first_bad);
  penalise(s, logits);
  forbid_ngrams(s, logits, s->no_repeat, s->n_history);
  forbid_ngrams(s, logits, s->encoder_no_repeat, s->n_prompt);
  add_phrases(s, logits, s->first_bad, s->n_phrases);
  lengths(s, logits);
  forbid(logits, &s->suppress);
  if (s->n_history == s->n_prompt) forbid(logits, &s->begin_suppress);
  if (s->presence != 0 || s->frequency != 0)
    for (int32_t i = 0; i < s->vocab_size; i++)
      if (s->generated[i]) logits[i] -= s->presence + s->frequency * (float)s->generated[i];
  for (int32_t i = 0; i < s->n_bias; i++) logits[s->bias[i].id] += s->bias[i].logit;
  if (s->guide) obey(s, logits);
}

static int32_t argmax(viv_sampler *s, const float *logits) {
  int32_t best = 0;
  for (int32_t i = 1; i < s->vocab_size; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* ---- warpers: each sets the logits that it removes to -inf ---- */

/* Largest first; of equals the higher id, which is what an ascending stable sort keeps longest. */
static int by_logit(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
  return x->id < y->id ? 1 : -1;
}

static int32_t sort_finite(viv_sampler *s, const float *logits) {
  int32_t m = 0;
  for (int32_t i = 0; i < s->vocab_size; i++)
    if (logits[i] > -INFINITY) s->sorted[m++] = (candidate){logits[i], i};
  qsort(s->sorted, (size_t)m, sizeof *s->sorted, by_logit);
  return m;
}

static void below(viv_sampler *s, float *logits, double least) {
  for (int32_t i = 0; i < s->vocab_size; i++)
    if (logits[i] < least) logits[i] = -INFINITY;
}

/* log(sum(exp(x))) and the entropy of softmax(x), over sorted[0..n). */
static double normaliser(const viv_sampler *s, int32_t n, double *entropy) {
  double top = s->sorted[0].logit, sum = 0, weighted = 0;
  for (int32_t i = 0; i < n; i++) {
    double x = s->sorted[i].logit - top, e = exp(x);
    sum += e;
    weighted += e * x;
  }
  *entropy = log(sum) - weighted / sum;
  return top + log(sum);
}

static void warp_n_sigma(viv_sampler *s, float *logits) {
  double sum = 0, squares = 0, mean, top = -INFINITY;
  int32_t n = 0;
  for (int32_t i = 0; i < s->vocab_size; i++) {
    if (!(logits[i] > -INFINITY)) continue;
    sum += logits[i];
    n++;
    if (logits[i] > top) top = logits[i];
  }
  if (n < 2) return;
  mean = sum / n;
  for (int32_t i = 0; i < s->vocab_size; i++)
    if (logits[i] > -INFINITY) squares += (logits[i] - mean) * (logits[i] - mean);
  below(s, logits, top - s->n_sigma * sqrt(squares / (n - 1)));
}

/* Top-H: the largest tokens whose part of the entropy is at most top_h of the whole. */
static void warp_top_h(viv_sampler *s, float *logits) {
  enum { MOST = 100 };
  int32_t m = sort_finite(s, logits), n = m < MOST ? m : MOST;
  double entropy, norm = m ? normaliser(s, n, &entropy) : 0, part = 0;
  for (int32_t i = 0; i < m; i++) {
    double l = s->sorted[i].logit - norm;
    part += -exp(l) * l;
    if (i && (i >= n || part > entropy * s->top_h)) logits[s->sorted[i].id] = -INFINITY;
  }
}

static void warp_top_p(viv_sampler *s, float *logits) {
  int32_t m = sort_finite(s, logits);
  double entropy, norm = m ? normaliser(s, m, &entropy) : 0, part = 0;
  for (int32_t i = m - 1; i > 0; i--) {
    part += exp(s->sorted[i].logit - norm);
    if (part > 1 - s->top_p) break;
    logits[s->sorted[i].id] = -INFINITY;
  }
}

/* Locally typical sampling: the tokens whose surprise is nearest to the entropy. */
static void warp_typical(viv_sampler *s, float *logits) {
  int32_t m = sort_finite(s, logits);
  if (!m) return;
  double entropy, norm = normaliser(s, m, &entropy), part = 0;
  for (int32_t i = 0; i < m; i++) {
    int32_t id = s->sorted[i].id;
    s->sorted[i].logit = -(float)fabs(norm - logits[id] - entropy);
  }
  qsort(s->sorted, (size_t)m, sizeof *s->sorted, by_logit);
  int32_t last = 0;
  for (; last < m - 1; last++) {
    part += exp(logits[s->sorted[last].id] - norm);
    if (part >= s->typical) break;
  }
  for (int32_t i = last + 1; i < m; i++)
    if (s->sorted[i].logit < s->sorted[last].logit) logits[s->sorted[i].id] = -INFINITY;
}

static void warp_cutoff(viv_sampler *s, float *logits, double epsilon, bool eta) {
  int32_t m = sort_finite(s, logits);
  if (!m) return;
  double entropy, norm = normaliser(s, m, &entropy), least = epsilon, top = s->sorted[0].logit;
  if (eta && sqrt(epsilon) * exp(-entropy) < least) least = sqrt(epsilon) * exp(-entropy);
  for (int32_t i = 0; i < m; i++)
    if (exp(s->sorted[i].logit - norm) < least && s->sorted[i].logit < top)
      logits[s->sorted[i].id] = -INFINITY;
}

static void warp(viv_sampler *s, float *logits) {
  if (s->n_sigma > 0) warp_n_sigma(s, logits);
  if (s->top_h > 0) warp_top_h(s, logits);
  if (s->top_k > 0 && s->top_k < s->vocab_size) {
    int32_t m = sort_finite(s, logits);
    if (s->top_k < m) below(s, logits, s->sorted[s->top_k - 1].logit);
  }
  if (s->top_p < 1) warp_top_p(s, logits);
  if (s->min_p > 0) {
    double top = logits[argmax(s, logits)];
    for (int32_t i = 0; i < s->vocab_size; i++)
      if (exp(logits[i] - top) < s->min_p) logits[i] = -INFINITY;
  }
  if (s->typical < 1) warp_typical(s, logits);
  if (s->epsilon > 0) warp_cutoff(s, logits, s->epsilon, false);
  if (s->eta > 0) warp_cutoff(s, logits, s->eta, true);
}

static void probabilities(viv_sampler *s, float *logits) {
  process(s, logits);
  int32_t best = argmax(s, logits);
  if (s->temperature <= 0) { /* the limit: all on the largest */
    memset(logits, 0, (size_t)s->vocab_size * sizeof *logits);
    logits[best] = 1;
    return;
  }
  float top = logits[best];
  for (int32_t i = 0; i < s->vocab_size; i++)
    logits[i] = (float)(((double)logits[i] - top) / s->temperature);
  warp(s, logits);
  double sum = 0;
  for (int32_t i = 0; i < s->vocab_size; i++) sum += logits[i] = expf(logits[i]);
  for (int32_t i = 0; i < s->vocab_size; i++) logits[i] = (float)(logits[i] / sum);
}

static int32_t draw(viv_sampler *s, const float *p) {
  double u = uniform(s), sum = 0;
  int32_t last = 0;
  for (int32_t i = 0; i < s->vocab_size; i++) {
    if (p[i] <= 0) continue;
    last = i;
    if ((sum += p[i]) > u) return i;
  }
  return last;
}

const viv_sampler_api viv__sampler_api = {
    .struct_size = sizeof(viv_sampler_api),
    .abi_major = VIV_ABI_MAJOR,
    .abi_minor = VIV_ABI_MINOR,
    .create = create,
    .accept = accept_token,
    .process = process,
    .probabilities = probabilities,
    .draw = draw,
    .argmax = argmax,
    .uniform = uniform,
};
