/* The warper and the random generator that all strategies share (viv.sampler/1). */
#include "tasks/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct candidate {
  float logit;
  int32_t id;
} candidate;

struct viv_sampler {
  int32_t vocab_size;
  float temperature, top_p, min_p, repetition, presence, frequency;
  int32_t top_k;
  uint8_t *seen;      /* [vocab_size] 1: in the prompt or generated */
  int32_t *generated; /* [vocab_size] how often */
  int32_t n_bias;
  candidate *bias;   /* [n_bias]; -inf for suppressed tokens */
  candidate *sorted; /* [vocab_size] scratch */
  uint64_t state[4]; /* xoshiro256** */
};

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

static int32_t read_bias(viv_sampler *s, const viv_host *host, viv_arena *arena,
                         const viv_json *params, viv_error *error) {
  const viv_json *bias = viv__json_get(params, "logit_bias");
  const viv_json *suppress = viv__json_get(params, "suppress_tokens");
  int64_t n = viv__json_count(bias) + viv__json_count(suppress);
  if (!n) return VIV_OK;
  s->bias = host->arena_alloc(arena, (uint64_t)n * sizeof *s->bias);
  if (!s->bias) return VIV_FAIL(error, VIV_NOT_NOW, "logit_bias", "no memory");
  for (int64_t i = 0; i < viv__json_count(bias); i++) {
    const viv_json *item = viv__json_item(bias, i);
    char *end = NULL;
    viv_str key = viv__json_key(item);
    long id = key.len ? strtol(key.ptr, &end, 10) : -1;
    if (!end || *end || id < 0 || id >= s->vocab_size)
      return VIV_FAIL(error, VIV_BAD_INPUT, "logit_bias", "\"%.*s\" is no token id below %d",
                      (int)key.len, key.ptr, s->vocab_size);
    s->bias[s->n_bias++] = (candidate){(float)viv__json_number(item), (int32_t)id};
  }
  for (int64_t i = 0; i < viv__json_count(suppress); i++) {
    double id = viv__json_number(viv__json_item(suppress, i));
    if (!(id >= 0 && id < s->vocab_size))
      return VIV_FAIL(error, VIV_BAD_INPUT, "suppress_tokens", "%g is no token id below %d", id,
                      s->vocab_size);
    s->bias[s->n_bias++] = (candidate){-INFINITY, (int32_t)id};
  }
  return VIV_OK;
}

static int32_t create(const viv_host *host, viv_arena *arena, const viv_json *params,
                      int32_t vocab_size, uint64_t seed, viv_sampler **out, viv_error *error) {
  viv_sampler *s = host->arena_alloc(arena, sizeof *s);
  if (!s) return VIV_FAIL(error, VIV_NOT_NOW, "sampler", "no memory");
  s->vocab_size = vocab_size;
  s->seen = host->arena_alloc(arena, (uint64_t)vocab_size);
  s->generated = host->arena_alloc(arena, (uint64_t)vocab_size * sizeof *s->generated);
  s->sorted = host->arena_alloc(arena, (uint64_t)vocab_size * sizeof *s->sorted);
  if (!s->seen || !s->generated || !s->sorted)
    return VIV_FAIL(error, VIV_NOT_NOW, "sampler", "no memory for %d tokens", vocab_size);
  double t, k, p, m, r, pr, f;
  int32_t status = number(params, "temperature", 1, 0, 100, &t, error);
  if (status == VIV_OK) status = number(params, "top_k", 0, 0, 1e9, &k, error);
  if (status == VIV_OK) status = number(params, "top_p", 1, 0, 1, &p, error);
  if (status == VIV_OK) status = number(params, "min_p", 0, 0, 1, &m, error);
  if (status == VIV_OK) status = number(params, "repetition_penalty", 1, 1e-3, 1e3, &r, error);
  if (status == VIV_OK) status = number(params, "presence_penalty", 0, -100, 100, &pr, error);
  if (status == VIV_OK) status = number(params, "frequency_penalty", 0, -100, 100, &f, error);
  if (status == VIV_OK) status = read_bias(s, host, arena, params, error);
  if (status < 0) return status;
  s->temperature = (float)t;
  s->top_k = (int32_t)k;
  s->top_p = (float)p;
  s->min_p = (float)m;
  s->repetition = (float)r;
  s->presence = (float)pr;
  s->frequency = (float)f;
  seed_state(s, seed);
  *out = s;
  return VIV_OK;
}

static void accept_token(viv_sampler *s, int32_t token, int32_t generated) {
  if (token < 0 || token >= s->vocab_size) return;
  s->seen[token] = 1;
  if (generated) s->generated[token]++;
}

/* ---- choosing ---- */

static void process(viv_sampler *s, float *logits) {
  if (s->repetition != 1)
    for (int32_t i = 0; i < s->vocab_size; i++)
      if (s->seen[i])
        logits[i] = logits[i] > 0 ? logits[i] / s->repetition : logits[i] * s->repetition;
  if (s->presence != 0 || s->frequency != 0)
    for (int32_t i = 0; i < s->vocab_size; i++)
      if (s->generated[i]) logits[i] -= s->presence + s->frequency * (float)s->generated[i];
  for (int32_t i = 0; i < s->n_bias; i++) logits[s->bias[i].id] += s->bias[i].logit;
}

static int32_t argmax(viv_sampler *s, const float *logits) {
  int32_t best = 0;
  for (int32_t i = 1; i < s->vocab_size; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

static int by_logit(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
  return x->id < y->id ? -1 : 1;
}

/* Sets the logits that top-k, top-p and min-p remove to -inf. */
static void warp(viv_sampler *s, float *logits) {
  int32_t n = s->vocab_size, keep = n;
  bool k_on = s->top_k > 0 && s->top_k < n, p_on = s->top_p<1, m_on = s->min_p> 0;
  if (!k_on && !p_on && !m_on) return;
  int32_t m = 0;
  for (int32_t i = 0; i < n; i++)
    if (logits[i] > -INFINITY) s->sorted[m++] = (candidate){logits[i], i};
  qsort(s->sorted, (size_t)m, sizeof *s->sorted, by_logit);
  keep = k_on && s->top_k < m ? s->top_k : m;
  double sum = 0, part = 0, top = m ? s->sorted[0].logit : 0;
  for (int32_t i = 0; i < keep; i++) sum += exp(s->sorted[i].logit - top);
  if (p_on) {
    int32_t i = 0;
    while (i < keep && (i == 0 || part < s->top_p * sum)) part += exp(s->sorted[i++].logit - top);
    keep = i;
  }
  while (m_on && keep > 1 && exp(s->sorted[keep - 1].logit - top) < s->min_p) keep--;
  for (int32_t i = keep; i < m; i++) logits[s->sorted[i].id] = -INFINITY;
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
  for (int32_t i = 0; i < s->vocab_size; i++) logits[i] = (logits[i] - top) / s->temperature;
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
