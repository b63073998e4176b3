/* TensorFlow's convolutions and batch norms on the compute table's kernels. */
#include "nn/tensorflow.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- loading ---- */

static void *memory(nn_loader *l, uint64_t bytes) {
  void *at = l->host->arena_alloc(l->source->arena, bytes);
  if (!at)
    l->status = nn_fail(l->error, VIV_NOT_NOW, "memory", "no memory for %llu bytes of weights",
                        (unsigned long long)bytes);
  return at;
}

/* [h, w, in, total] -> [out, in, h, w] of the outputs from first; transposed [h, w, out, in] -> [in,
 * out, h, w]; a depthwise kernel's `in` become its outputs. NULL: no memory, reported. */
static const float *turned(nn_loader *l, const viv_tensor *t, const nn_same_spec *s) {
  int64_t taps = (int64_t)s->size * s->size, in = s->depthwise ? 1 : s->in, out = s->out;
  int64_t total = s->total ? s->total : out;
  const float *x = l->compute->floats(l->compute, l->source->arena, t);
  float *y = x ? memory(l, (uint64_t)(taps * in * out) * sizeof *y) : NULL;
  if (!y && !l->status)
    l->status = nn_fail(l->error, VIV_NOT_NOW, "memory", "no memory for the weights");
  if (!y) return NULL;
  for (int64_t k = 0; k < taps; k++)
    for (int64_t i = 0; i < in; i++)
      for (int64_t o = 0; o < out; o++)
        if (s->transposed)
          y[(i * out + o) * taps + k] = x[(k * out + o) * in + i];
        else
          y[(o * in + i) * taps + k] = x[(k * in + i) * total + s->first + o];
  return y;
}

static void load_norm(nn_loader *l, const char *scope, int32_t d, const float *v[4]) {
  static const char *const part[] = {"gamma", "beta", "moving_mean", "moving_variance"};
  const int64_t shape[1] = {d};
  size_t outer = nn_in(l, "%s/", scope);
  for (int i = 0; i < 4; i++) nn_load_tensor(l, part[i], true, 1, shape, &v[i]);
  nn_out(l, outer);
}

static double factor_of(const float *const v[4], int32_t c) {
  return v[0][c] / sqrt((double)v[3][c] + 1e-5);
}

/* scale = gamma / sqrt(moving_variance + eps), add = beta - moving_mean scale of n channels from first
 * on, of d. */
static void fold(nn_loader *l, const char *scope, int32_t d, int32_t first, int32_t n,
                 const float *bias, const float **scale, const float **add) {
  const float *v[4] = {0};
  load_norm(l, scope, d, v);
  l->bytes += 2 * ((uint64_t)n * sizeof(float) + 64);
  if (l->pass != NN_PREPARE || l->status) return;
  float *a = memory(l, (uint64_t)n * sizeof *a), *b = a ? memory(l, (uint64_t)n * sizeof *b) : NULL;
  if (!b) return;
  for (int32_t i = 0; i < n; i++) {
    double factor = factor_of(v, first + i);
    a[i] = (float)factor;
    b[i] = (float)(v[1][first + i] + ((bias ? (double)bias[i] : 0.0) - v[2][first + i]) * factor);
  }
  *scale = a;
  *add = b;
}

void nn_load_same_conv(nn_loader *l, const nn_same_spec *s, nn_same_conv *conv) {
  int64_t total = s->total ? s->total : s->out, k = s->size;
  int64_t shape[4] = {k, k, s->transposed ? s->out : s->in,
                      s->transposed  ? s->in
                      : s->depthwise ? 1
                                     : total};
  int64_t bias_shape[1] = {total};
  char slashed[192];
  viv_tensor t;
  const float *bias = NULL, *scale = NULL, *add = NULL;
  snprintf(slashed, sizeof slashed, "%s/", s->kernel);
  const char *kernel = !nn_there(l, s->kernel) && nn_there(l, slashed) ? slashed : s->kernel;
  bool found = nn_find(l, kernel, 4, shape, &t);
  if (s->bias) nn_load_tensor(l, s->bias, true, 1, bias_shape, &bias);
  if (bias) bias += s->first;
  if (s->norm) fold(l, s->norm, (int32_t)total, s->first, s->out, bias, &scale, &add);
  if (!found || l->status || l->pass == NN_CLAIM) return;
  int64_t in = s->depthwise ? 1 : s->in;
  viv_tensor w = {.struct_size = sizeof w,
                  .dtype = VIV_F32,
                  .ndim = 4,
                  .shape = {s->transposed ? s->in : s->out, s->transposed ? s->out : in, k, k},
                  .bytes = (uint64_t)(k * k * in * s->out) * sizeof(float)};
  int32_t stride = s->stride ? s->stride : 1, dilation = s->dilation ? s->dilation : 1;
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = 2,
                     .groups = s->depthwise ? s->in : 1,
                     .transposed = s->transposed,
                     .in_channels = s->in,
                     .out_channels = s->out,
                     .kernel = {s->size, s->size, 1},
                     .stride = {stride, stride, 1},
                     .dilation = {dilation, dilation, 1},
                     .weight = &w,
                     .scale = scale,
                     .bias = s->norm ? add : bias};
  if (l->pass == NN_CHECK) {
    l->bytes += (uint64_t)(k * k * in * total) * sizeof(float) + w.bytes + 128 +
                l->compute->conv_bytes(l->compute, &d);
    return;
  }
  t.ndim = 4; /* as found: lengths of 1 count here */
  memcpy(t.shape, shape, sizeof shape);
  const float *data = turned(l, &t, s);
  memcpy(&w.data, &data, sizeof data);
  if (!data) return;
  int32_t rc = l->compute->conv_prepare(l->compute, l->source->arena, &d, &conv->w, l->error);
  if (rc < 0) l->status = rc;
  conv->in = s->in;
  conv->out = s->out;
  conv->size = s->size;
  conv->stride = stride;
  conv->dilation = dilation;
  conv->transposed = s->transposed;
}

void nn_load_same_norm(nn_loader *l, const char *scope, int32_t d, nn_same_norm *norm) {
  const float *v[4] = {0};
  load_norm(l, scope, d, v);
  l->bytes += (uint64_t)d * sizeof(float) + 64;
  if (l->pass != NN_PREPARE || l->status) return;
  float *scale = memory(l, (uint64_t)d * sizeof *scale);
  for (int32_t i = 0; scale && i < d; i++) scale[i] = (float)factor_of(v, i);
  *norm = (nn_same_norm){.mean = v[2], .scale = scale, .beta = v[1], .d = d};
}

/* ---- in a pass ---- */

/* The sizes after a step of that stride, and what is padded around each axis. */
static void same(const nn_map *x, int32_t span, int32_t stride, bool transposed, int32_t out[2],
                 int32_t begin[3], int32_t end[3]) {
  for (int i = 0; i < 2; i++) {
    int32_t small = transposed ? x->size[i] : (x->size[i] + stride - 1) / stride;
    int32_t large = transposed ? x->size[i] * stride : x->size[i];
    int32_t pad = (small - 1) * stride + span - large;
    if (pad < 0) pad = 0;
    out[i] = transposed ? large : small;
    begin[i] = pad / 2;
    end[i] = pad - begin[i];
  }
  begin[2] = end[2] = 0;
}

nn_map nn_apply_same_conv(nn_pass *p, const nn_same_conv *m, int32_t act, const float *residual,
                          const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int32_t out[2];
  viv_conv a = {.struct_size = sizeof a,
                .batch = x->batch,
                .weight = m->w,
                .size = {x->size[0], x->size[1], 1},
                .x_layout = VIV_CHANNELS_LAST,
                .out_layout = VIV_CHANNELS_LAST,
                .act = act,
                .x = x->x,
                .residual = residual};
  same(x, (m->size - 1) * m->dilation + 1, m->stride, m->transposed, out, a.pad_begin, a.pad_end);
  nn_map y = nn_new_map(p, x->batch, m->out, 2, out, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  a.out = y.x;
  a.scratch = nn_room(p, (int64_t)c->conv_scratch(c, &a));
  c->conv(c, &a);
  nn_release(p, mark);
  return y;
}

nn_map nn_same_max_pool(nn_pass *p, int32_t size, int32_t stride, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int32_t out[2];
  viv_pool a = {.struct_size = sizeof a,
                .kind = VIV_POOL_MAX,
                .dims = 2,
                .channels = x->channels,
                .batch = x->batch,
                .size = {x->size[0], x->size[1], 1},
                .kernel = {size, size, 1},
                .stride = {stride, stride, 1},
                .dilation = {1, 1, 1},
                .x = x->x};
  same(x, size, stride, false, out, a.pad_begin, a.pad_end);
  nn_map y = nn_new_map(p, x->batch, x->channels, 2, out, VIV_CHANNELS_LAST);
  a.out = y.x;
  c->pool(c, &a);
  return y;
}

void nn_apply_same_norm(const nn_same_norm *n, const float *x, int64_t rows, float least,
                        float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int32_t c = 0; c < n->d; c++) {
      float v = (x[r * n->d + c] - n->mean[c]) * n->scale[c] + n->beta[c];
      y[r * n->d + c] = v > least ? v : least;
    }
}
