/* Rollout, class activation, gradients by differences. */
#include "nn/explain.h"

#include <math.h>
#include <string.h>

void nn_rollout(const viv_compute *c, const float *attention, int64_t n, float *rollout,
                float *room) {
  float *a = room, *before = room + n * n;
  memcpy(before, rollout, (size_t)(n * n) * sizeof *before);
  for (int64_t i = 0; i < n; i++) {
    double sum = 1;
    for (int64_t j = 0; j < n; j++) sum += (double)attention[i * n + j];
    for (int64_t j = 0; j < n; j++)
      a[i * n + j] = (float)(((double)attention[i * n + j] + (i == j)) / sum);
  }
  c->gemm(c, 0, 0, n, n, n, 1, a, n, before, n, 0, rollout, n);
}

struct scores {
  const float *q, *k, *bias; /* [batch, n, heads, dim]; [heads, n, n] or NULL */
  float *out;                /* [batch, n, n] */
  float *row;                /* [batch n, n] */
  int64_t n, dim;
  int32_t heads;
};

/* A task is one query of one sequence. */
static void add_scores(void *ctx, int64_t begin, int64_t end) {
  const struct scores *s = ctx;
  int64_t n = s->n, d = s->heads * s->dim;
  float scale = 1 / sqrtf((float)s->dim);
  for (int64_t t = begin; t < end; t++) {
    float *out = s->out + t * n, *row = s->row + t * n;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int32_t h = 0; h < s->heads; h++) {
      const float *q = s->q + t * d + h * s->dim, *k = s->k + t / n * n * d + h * s->dim;
      const float *bias = s->bias ? s->bias + (h * n + t % n) * n : NULL;
      float top = -INFINITY, sum = 0;
      for (int64_t j = 0; j < n; j++) {
        float dot = 0;
        for (int64_t e = 0; e < s->dim; e++) dot += q[e] * k[j * d + e];
        row[j] = dot * scale + (bias ? bias[j] : 0);
        top = fmaxf(top, row[j]);
      }
      for (int64_t j = 0; j < n; j++) sum += row[j] = expf(row[j] - top);
      for (int64_t j = 0; j < n; j++) out[j] += row[j] / sum / (float)s->heads;
    }
  }
}

void nn_vit_attention_mean(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                           const float *bias, const float *x, float *out) {
  const nn_vit_block *w = &vit->block[layer];
  const viv_compute *c = nn_compute_of(p);
  int64_t rows = batch * n, d = vit->config.d;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * d), *q, *k;
  nn_layer_norm(p, &w->norm1, x, rows, u);
  if (w->qkv.w) {
    const float *qkv = nn_apply_linear(p, &w->qkv, 0, u, rows);
    q = nn_room(p, rows * d);
    k = nn_room(p, rows * d);
    for (int64_t r = 0; r < rows; r++) {
      memcpy(q + r * d, qkv + r * 3 * d, (size_t)d * sizeof *q);
      memcpy(k + r * d, qkv + r * 3 * d + d, (size_t)d * sizeof *k);
    }
  } else {
    q = nn_apply_linear(p, &w->query, 0, u, rows);
    k = nn_apply_linear(p, &w->key, 0, u, rows);
  }
  struct scores s = {.q = q,
                     .k = k,
                     .bias = bias,
                     .out = out,
                     .row = nn_room(p, rows * n),
                     .n = n,
                     .dim = d / vit->config.heads,
                     .heads = vit->config.heads};
  c->parallel_for(c, rows, 4, add_scores, &s);
  nn_release(p, mark);
}

void nn_class_activation(const float *map, int64_t n, int64_t place, const float *gradient,
                         int64_t channels, int64_t channel, bool relu, float *out) {
  for (int64_t s = 0; s < n; s++) {
    double sum = 0;
    for (int64_t c = 0; c < channels; c++)
      sum += (double)gradient[c] * (double)map[s * place + c * channel];
    out[s] = relu && !(sum > 0) ? 0 : (float)sum;
  }
}

/* y = w x' + b, x' = (x - mean) / deviation:
 *   dx_i = (w_i g_i - mean(w g) - x'_i mean(w g x')) / deviation */
void nn_norm_gradient(const nn_norm *norm, const float *x, const float *g, float *out) {
  double mean = 0, square = 0, flat = 0, along = 0, d = (double)norm->d;
  for (int64_t i = 0; i < norm->d; i++) mean += (double)x[i] / d;
  for (int64_t i = 0; i < norm->d; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean) / d;
  double deviation = sqrt(square + (double)norm->eps);
  for (int64_t i = 0; i < norm->d; i++) {
    double wg = (double)norm->w[i] * (double)g[i];
    flat += wg / d;
    along += wg * ((double)x[i] - mean) / deviation / d;
  }
  for (int64_t i = 0; i < norm->d; i++) {
    double wg = (double)norm->w[i] * (double)g[i], at = ((double)x[i] - mean) / deviation;
    out[i] = (float)((wg - flat - at * along) / deviation);
  }
}

void nn_occlude(const float *x, int64_t height, int64_t width, int64_t patch, int64_t at,
                float value, float *out) {
  int64_t across = (width + patch - 1) / patch, top = at / across * patch;
  int64_t left = at % across * patch, bottom = top + patch < height ? top + patch : height;
  int64_t right = left + patch < width ? left + patch : width;
  memcpy(out, x, (size_t)(3 * height * width) * sizeof *out);
  for (int64_t c = 0; c < 3; c++)
    for (int64_t i = top; i < bottom; i++)
      for (int64_t j = left; j < right; j++) out[(c * height + i) * width + j] = value;
}

void nn_gradient(nn_number_of f, void *self, double *x, int64_t n, double h, double *out) {
  for (int64_t i = 0; i < n; i++) {
    double at = x[i];
    x[i] = at + h;
    double above = f(self, x);
    x[i] = at - h;
    out[i] = (above - f(self, x)) / (2 * h);
    x[i] = at;
  }
}

double nn_integrated_gradients(nn_number_of f, void *self, const double *x, const double *from,
                               int64_t n, int32_t steps, double h, double *room, double *out) {
  double *at = room, *slope = room + n, sum = 0;
  for (int64_t i = 0; i < n; i++) out[i] = 0;
  for (int32_t s = 0; s < steps; s++) {
    for (int64_t i = 0; i < n; i++) at[i] = from[i] + (s + 0.5) / steps * (x[i] - from[i]);
    nn_gradient(f, self, at, n, h, slope);
    for (int64_t i = 0; i < n; i++) out[i] += slope[i] / steps;
  }
  for (int64_t i = 0; i < n; i++) sum += out[i] *= x[i] - from[i];
  return sum - (f(self, x) - f(self, from));
}

void nn_deletion_insertion(nn_number_of f, void *self, const double *x, const double *from,
                           const double *scores, int64_t n, double *room, double *deletion,
                           double *insertion) {
  double *less = room, *more = room + n;
  for (int64_t i = 0; i < n; i++) {
    less[i] = x[i];
    more[i] = from[i];
  }
  deletion[0] = f(self, less);
  insertion[0] = f(self, more);
  int64_t last = -1; /* the feature that went last */
  for (int64_t k = 1; k <= n; k++) {
    int64_t next = -1;
    for (int64_t i = 0; i < n; i++) {
      bool gone =
          last >= 0 && (scores[i] > scores[last] || (scores[i] == scores[last] && i <= last));
      if (!gone && (next < 0 || scores[i] > scores[next])) next = i;
    }
    less[next] = from[next];
    more[next] = x[next];
    deletion[k] = f(self, less);
    insertion[k] = f(self, more);
    last = next;
  }
}

double nn_curve_area(const double *curve, int64_t n) {
  double sum = (curve[0] + curve[n - 1]) / 2;
  for (int64_t i = 1; i + 1 < n; i++) sum += curve[i];
  return sum / (double)(n - 1);
}
