/* Gated relative positions. */
#include "nn/relative.h"

#include <math.h>
#include <string.h>

int32_t nn_relative_bucket(int64_t key_minus_query, int32_t n, int32_t max_distance) {
  int32_t half = n / 2, exact = half / 2, base = key_minus_query > 0 ? half : 0;
  int64_t away = key_minus_query < 0 ? -key_minus_query : key_minus_query;
  if (away < exact) return base + (int32_t)away;
  double share = log((double)away / exact) / log((double)max_distance / exact);
  int64_t bucket = exact + (int64_t)(share * (half - exact));
  return base + (int32_t)(bucket < half - 1 ? bucket : half - 1);
}

void nn_load_gate(nn_loader *l, const char *linear, const char *a, int64_t heads, int64_t dim,
                  nn_gate *gate) {
  size_t outer = nn_in(l, "%s.", linear);
  nn_load_tensor(l, "weight", true, 2, (const int64_t[]){8, dim}, &gate->w);
  nn_load_tensor(l, "bias", true, 1, (const int64_t[]){8}, &gate->b);
  nn_out(l, outer);
  nn_load_tensor(l, a, true, 1, (const int64_t[]){heads}, &gate->a);
}

nn_relative nn_new_relative(nn_pass *p, const float *table, int32_t n, int32_t max_distance,
                            int64_t length, int64_t d, int32_t heads) {
  nn_relative r = {.length = length, .d = d, .heads = heads};
  int64_t width = 2 * length - 1;
  r.line = nn_room(p, heads * width);
  for (int64_t i = 0; i < width; i++) {
    int32_t bucket = nn_relative_bucket(i - (length - 1), n, max_distance);
    for (int32_t h = 0; h < heads; h++) r.line[h * width + i] = table[bucket * heads + h];
  }
  return r;
}

static float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

static float gate_of(const nn_gate *g, int32_t head, const float *u, int64_t dim) {
  float sum[2] = {0, 0};
  for (int32_t o = 0; o < 8; o++) {
    float dot = g->b[o];
    for (int64_t i = 0; i < dim; i++) dot += g->w[o * dim + i] * u[i];
    sum[o / 4] += dot;
  }
  return sigmoid(sum[0]) * (sigmoid(sum[1]) * g->a[head] - 1.0f) + 2.0f;
}

struct fill {
  const nn_relative *r;
  const float *u; /* [length, d] */
  int64_t begin, n;
  float *out; /* [heads, n, length] */
};

static void fill_rows(void *ctx, int64_t from, int64_t to) {
  const struct fill *f = ctx;
  const nn_relative *r = f->r;
  int64_t t = r->length, dim = r->d / r->heads;
  for (int64_t at = from; at < to; at++) {
    int64_t h = at / f->n, i = f->begin + at % f->n;
    const float *line = r->line + h * (2 * t - 1) + (t - 1 - i);
    float gate = r->gate->w ? gate_of(r->gate, (int32_t)h, f->u + i * r->d + h * dim, dim) : 1.0f;
    float *out = f->out + at * t;
    for (int64_t j = 0; j < t; j++) out[j] = gate * line[j];
  }
}

void nn_relative_bias(nn_pass *p, void *self, const float *x, const float *q, int64_t begin,
                      int64_t n, float *out) {
  const viv_compute *c = nn_compute_of(p);
  const nn_relative *r = self;
  struct fill f = {.r = r, .u = r->of_query ? q : x, .begin = begin, .n = n, .out = out};
  c->parallel_for(c, r->heads * n, 16, fill_rows, &f);
}
