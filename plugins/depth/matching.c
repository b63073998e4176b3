#include "depth/matching.h"

#include <math.h>
#include <string.h>

static const double border = 2; /* pixels that are left out, of both frames */

/* ---- cost volume ---- */

struct volume {
  const matching_input *in;
  double project[MATCHING_LOOKUPS][12]; /* (K T)[:3] of picture `at` */
  int32_t at;
  float *raw, *cost;
};

/* Mean over channels of |lookup at (u, v) - current|; (u, v) has four neighbours. */
static double difference(const nn_map *lookup, const float *current, int32_t at, double u,
                         double v) {
  int64_t c = lookup->channels, width = lookup->size[1];
  int64_t x = (int64_t)u, y = (int64_t)v;
  if (x > width - 2) x = width - 2;
  if (y > lookup->size[0] - 2) y = lookup->size[0] - 2;
  float fx = (float)(u - (double)x), fy = (float)(v - (double)y);
  const float *a = lookup->x + (at * nn_space(lookup) + y * width + x) * c, *b = a + width * c;
  float w[4] = {(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy}, sum = 0;
  for (int64_t k = 0; k < c; k++)
    sum += fabsf(w[0] * a[k] + w[1] * a[c + k] + w[2] * b[k] + w[3] * b[c + k] - current[k]);
  return (double)(sum / (float)c);
}

static void match_pixel(const struct volume *v, int64_t row, int64_t column, float *raw) {
  const matching_input *in = v->in;
  const nn_map *current = in->current;
  int64_t width = current->size[1], height = current->size[0];
  const double *k = in->inverse;
  const float *mine =
      current->x + (v->at * nn_space(current) + row * width + column) * current->channels;
  double x = (double)column, y = (double)row, ray[3];
  memset(raw, 0, (size_t)in->bins * sizeof *raw);
  if (row < border || column < border || row >= height - border || column >= width - border) return;
  for (int i = 0; i < 3; i++) ray[i] = k[4 * i] * x + k[4 * i + 1] * y + k[4 * i + 2];
  for (int32_t d = 0; d < in->bins; d++) {
    double sum = 0, count = 0, z = (double)in->bin[d];
    for (int32_t f = 0; f < in->lookups; f++) {
      const double *m = v->project[f];
      double to[3];
      for (int i = 0; i < 3; i++)
        to[i] =
            (m[4 * i] * ray[0] + m[4 * i + 1] * ray[1] + m[4 * i + 2] * ray[2]) * z + m[4 * i + 3];
      double px = to[0] / (to[2] + 1e-7), py = to[1] / (to[2] + 1e-7);
      if (!(px >= border && px <= (double)width - border && py >= border &&
            py <= (double)height - border))
        continue;
      double one = difference(&in->lookup[f], mine, v->at, px, py);
      sum += one;
      count += one > 0;
    }
    raw[d] = (float)(sum / (count + 1e-7));
  }
}

static void match_rows(void *ctx, int64_t begin, int64_t end) {
  const struct volume *v = ctx;
  const matching_input *in = v->in;
  int64_t width = in->current->size[1], cells = nn_space(in->current);
  for (int64_t row = begin; row < end; row++)
    for (int64_t column = 0; column < width; column++) {
      int64_t at = (v->at * cells + row * width + column) * in->bins;
      float most = 0;
      match_pixel(v, row, column, v->raw + at);
      for (int32_t d = 0; d < in->bins; d++) most = fmaxf(most, v->raw[at + d]);
      for (int32_t d = 0; d < in->bins; d++)
        v->cost[at + d] = v->raw[at + d] == 0 ? most : v->raw[at + d];
    }
}

void matching_cost(nn_pass *p, const matching_input *in, nn_map *raw, nn_map *cost) {
  const viv_compute *c = nn_compute_of(p);
  const nn_map *x = in->current;
  *raw = nn_new_map(p, x->batch, in->bins, 2, x->size, VIV_CHANNELS_LAST);
  *cost = nn_new_map(p, x->batch, in->bins, 2, x->size, VIV_CHANNELS_LAST);
  struct volume v = {.in = in, .raw = raw->x, .cost = cost->x};
  for (v.at = 0; v.at < x->batch; v.at++) {
    nn_pass_poll(p);
    for (int32_t f = 0; f < in->lookups; f++)
      for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
          double sum = 0;
          for (int k = 0; k < 4; k++)
            sum += in->k[4 * i + k] * (double)in->motion[f][16 * v.at + 4 * k + j];
          v.project[f][4 * i + j] = sum;
        }
    c->parallel_for(c, x->size[0], 1, match_rows, &v);
  }
}

/* ---- moderation ---- */

struct moderation {
  const float *bin, *cost;
  int32_t bins;
  const matching_guess *guess;
  float *gauss, *weight, *refined;
  uint8_t *still;
};

/* (x - least) / (largest - least + 1e-7) */
static void spread(float *x, int32_t n) {
  float low = x[0], high = x[0];
  for (int32_t i = 1; i < n; i++) {
    low = fminf(low, x[i]);
    high = fmaxf(high, x[i]);
  }
  float by = high - low + 1e-7f;
  for (int32_t i = 0; i < n; i++) x[i] = (x[i] - low) / by;
}

static void gaussian(const struct moderation *m, double depth, double sigma, float *out) {
  double peak = 1 / (sigma * sqrt(2 * acos(-1.0)));
  for (int32_t d = 0; d < m->bins; d++) {
    double off = (double)m->bin[d] - depth;
    out[d] = (float)(peak * exp(-off * off / (2 * sigma * sigma)));
  }
  spread(out, m->bins);
}

static void moderate_pixel(const struct moderation *m, int64_t at) {
  const matching_guess *g = m->guess;
  const float *cost = m->cost + at * m->bins;
  float *gauss = m->gauss + at * m->bins, *out = m->refined + at * m->bins, chance[MATCHING_BINS];
  float low = cost[0], high = cost[0];
  double mono = (double)g->mono.x[at], matched = (double)g->matched.x[at], sum = 0;
  gaussian(m, 1 / mono, (double)g->sigma.x[at], gauss);
  double w =
      exp(-fabs(1 / matched - 1 / mono) * (2.0 / 3)) * exp(-fabs(matched - mono) * (2.0 / 3));
  m->weight[at] = (float)w;
  m->still[at] = m->weight[at] > 0.4f;
  for (int32_t d = 0; d < m->bins; d++) {
    low = fminf(low, cost[d]);
    high = fmaxf(high, cost[d]);
  }
  for (int32_t d = 0; d < m->bins; d++) {
    chance[d] = expf(-(cost[d] - low) / (high - low + 1e-7f));
    sum += (double)chance[d];
  }
  for (int32_t d = 0; d < m->bins; d++) chance[d] = (float)((double)chance[d] / sum);
  spread(chance, m->bins);
  for (int32_t d = 0; d < m->bins; d++)
    out[d] = m->still[at] ? chance[d]
                          : (float)(pow((double)chance[d], w) * pow((double)gauss[d], 1 - w));
  float least = out[0], most = out[0];
  for (int32_t d = 0; d < m->bins; d++) {
    least = fminf(least, out[d]);
    most = fmaxf(most, out[d]);
  }
  for (int32_t d = 0; d < m->bins; d++)
    out[d] = (most - out[d]) / (most - least + 1e-7f) * (high - low) + low;
}

static void moderate(void *ctx, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) moderate_pixel(ctx, i);
}

nn_map matching_moderate(nn_pass *p, const nn_map *cost, const float *bin,
                         const matching_guess *guess, nn_map *gauss, nn_map *weight,
                         uint8_t *still) {
  const viv_compute *c = nn_compute_of(p);
  nn_map out = nn_new_map(p, cost->batch, cost->channels, 2, cost->size, VIV_CHANNELS_LAST);
  *gauss = nn_new_map(p, cost->batch, cost->channels, 2, cost->size, VIV_CHANNELS_LAST);
  *weight = nn_new_map(p, cost->batch, 1, 2, cost->size, VIV_CHANNELS_LAST);
  struct moderation m = {.bin = bin,
                         .cost = cost->x,
                         .bins = cost->channels,
                         .guess = guess,
                         .gauss = gauss->x,
                         .weight = weight->x,
                         .refined = out.x,
                         .still = still};
  c->parallel_for(c, cost->batch * nn_space(cost), 64, moderate, &m);
  return out;
}
