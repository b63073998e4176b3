/* Loading PyTorch's modules by the names they are saved under, and calling them in a pass. */
#include "nn/modules.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "nn/audio.h"

/* ---- loading ---- */

size_t nn_in(nn_loader *l, const char *format, ...) {
  size_t outer = strlen(l->prefix);
  va_list args;
  va_start(args, format);
  if (vsnprintf(l->prefix + outer, sizeof l->prefix - outer, format, args) < 0)
    l->prefix[outer] = 0;
  va_end(args);
  return outer;
}

void nn_out(nn_loader *l, size_t outer) {
  l->prefix[outer] = 0;
}

bool nn_there(const nn_loader *l, const char *name) {
  char full[320];
  snprintf(full, sizeof full, "%s%s", l->prefix, name);
  return nn_has(l->host, l->source, full);
}

/* Memory of the model's arena in the last walk, counted in the first; NULL: failed. */
static void *table_memory(nn_loader *l, uint64_t bytes) {
  void *at = l->host->arena_alloc(l->source->arena, bytes);
  if (!at)
    l->status = nn_fail(l->error, VIV_NOT_NOW, "memory", "no memory for %llu bytes of weights",
                        (unsigned long long)bytes);
  return at;
}

void nn_load_tensor(nn_loader *l, const char *name, bool wanted, int32_t ndim, const int64_t *shape,
                    const float **out) {
  viv_tensor t;
  if (!wanted || !nn_find(l, name, ndim, shape, &t)) return;
  if (l->pass == NN_CHECK) {
    uint64_t n = 1;
    for (int32_t i = 0; i < ndim; i++) n *= (uint64_t)shape[i];
    l->bytes += n * sizeof(float) + 64;
    return;
  }
  *out = l->compute->floats(l->compute, l->source->arena, &t);
  if (!*out)
    l->status = nn_fail(l->error, VIV_NOT_NOW, name, "no memory for a copy of this tensor");
}

void nn_load_rows(nn_loader *l, const char *weight, const char *bias, int64_t begin, int64_t out,
                  int64_t total, int64_t in, nn_linear *linear) {
  nn_load(l, weight, &linear->w, begin, begin + out, total, in, NN_MATRIX, true);
  if (bias) nn_load(l, bias, &linear->b, begin, begin + out, total, 1, NN_FLOATS, true);
  if (l->pass != NN_PREPARE) return;
  linear->in = in;
  linear->out = out;
}

void nn_load_linear(nn_loader *l, const char *name, int64_t out, int64_t in, bool bias,
                    nn_linear *linear) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load_rows(l, "weight", bias ? "bias" : NULL, 0, out, out, in, linear);
  nn_out(l, outer);
}

void nn_load_norm(nn_loader *l, const char *name, int64_t d, float eps, nn_norm *norm) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load(l, "weight", &norm->w, 0, d, d, 1, NN_FLOATS, true);
  nn_load(l, "bias", &norm->b, 0, d, d, 1, NN_FLOATS, true);
  nn_out(l, outer);
  if (l->pass != NN_PREPARE) return;
  norm->d = d;
  norm->eps = eps;
}

void nn_load_rms_norm(nn_loader *l, const char *name, int64_t d, float eps, nn_norm *norm) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load(l, "weight", &norm->w, 0, d, d, 1, NN_FLOATS, true);
  nn_out(l, outer);
  if (l->pass != NN_PREPARE) return;
  norm->d = d;
  norm->eps = eps;
}

/* A batch norm as a scale of the outputs and what is added to them:
 *   scale = weight / sqrt(running_var + eps), add = bias - running_mean scale + conv_bias scale */
static void fold_norm(nn_loader *l, const nn_conv_spec *s, const float *conv_bias,
                      const float **scale, const float **add) {
  static const char *const part[] = {"weight", "bias", "running_mean", "running_var"};
  const float *v[4] = {0};
  int64_t shape[1] = {s->out};
  size_t outer = nn_in(l, "%s.", s->norm);
  for (int i = 0; i < 4; i++) nn_load_tensor(l, part[i], true, 1, shape, &v[i]);
  if (l->pass == NN_CLAIM && nn_there(l, "num_batches_tracked")) {
    viv_tensor ignored;
    nn_find(l, "num_batches_tracked", 0, NULL, &ignored);
  }
  nn_out(l, outer);
  l->bytes += 2 * ((uint64_t)s->out * sizeof(float) + 64);
  if (l->pass != NN_PREPARE || l->status) return;
  float *a = table_memory(l, (uint64_t)s->out * sizeof *a);
  float *b = a ? table_memory(l, (uint64_t)s->out * sizeof *b) : NULL;
  if (!b) return;
  double eps = s->norm_eps > 0 ? (double)s->norm_eps : 1e-5;
  for (int32_t i = 0; i < s->out; i++) {
    double factor = v[0][i] / sqrt((double)v[3][i] + eps);
    a[i] = (float)factor;
    b[i] = (float)(v[1][i] + ((conv_bias ? (double)conv_bias[i] : 0.0) - v[2][i]) * factor);
  }
  *scale = a;
  *add = b;
}

/* weight = g v / ||v||, the norm over all axes but one. False: reported. */
static bool weight_norm(nn_loader *l, int32_t ndim, const int64_t *shape, int32_t axis,
                        viv_tensor *t) {
  int64_t n = 1;
  const float *g = NULL, *v = NULL;
  for (int32_t i = 0; i < ndim; i++) n *= shape[i];
  /* torch's newer parametrisation saves the same two tensors under other names. */
  bool newer = nn_there(l, "parametrizations.weight.original0");
  if (!newer && !nn_there(l, "weight_g") && nn_there(l, "weight"))
    return nn_find(l, "weight", ndim, shape, t);
  const char *g_name = newer ? "parametrizations.weight.original0" : "weight_g";
  const char *v_name = newer ? "parametrizations.weight.original1" : "weight_v";
  nn_load_tensor(l, g_name, true, 1, &shape[axis], &g);
  nn_load_tensor(l, v_name, true, ndim, shape, &v);
  uint64_t bytes = (uint64_t)n * sizeof(float);
  *t = (viv_tensor){.struct_size = sizeof *t, .dtype = VIV_F32, .ndim = ndim, .bytes = bytes};
  memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
  l->bytes += bytes + 64;
  if (l->pass != NN_PREPARE) return l->pass == NN_CHECK;
  float *w = l->status ? NULL : table_memory(l, bytes);
  if (!w) return false;
  nn_weight_norm(g, v, ndim, shape, axis, w);
  t->data = w;
  return true;
}

static void spread(int32_t out[3], int32_t dims, int32_t all, const int32_t list[3], bool use_list,
                   int32_t unused) {
  for (int32_t i = 0; i < 3; i++) out[i] = i >= dims ? unused : use_list ? list[i] : all;
}

void nn_load_conv(nn_loader *l, const char *name, const nn_conv_spec *s, nn_conv *conv) {
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = s->dims ? s->dims : 2,
                     .groups = s->groups ? s->groups : 1,
                     .transposed = s->transposed,
                     .in_channels = s->in,
                     .out_channels = s->out};
  spread(d.kernel, d.dims, s->kernel, s->kernels, s->kernels[0] != 0, 1);
  spread(d.stride, d.dims, s->stride ? s->stride : 1, s->strides, s->strides[0] != 0, 1);
  spread(d.dilation, d.dims, s->dilation ? s->dilation : 1, s->dilations, s->dilations[0] != 0, 1);
  int64_t shape[5] = {s->transposed ? s->in : s->out, (s->transposed ? s->out : s->in) / d.groups};
  for (int32_t i = 0; i < d.dims; i++) shape[2 + i] = d.kernel[i];

  viv_tensor t;
  const float *bias = NULL, *scale = NULL, *add = NULL;
  int64_t bias_shape[1] = {s->out};
  size_t outer = nn_in(l, "%s.", name);
  bool found = s->weight_norm ? weight_norm(l, 2 + d.dims, shape, s->norm_axis, &t)
                              : nn_find(l, "weight", 2 + d.dims, shape, &t);
  nn_load_tensor(l, "bias", s->bias, 1, bias_shape, &bias);
  nn_out(l, outer);
  if (s->norm) fold_norm(l, s, bias, &scale, &add);
  if (!found || l->status || l->pass == NN_CLAIM) return;
  d.weight = &t;
  d.scale = scale;
  d.bias = s->norm ? add : bias;
  if (l->pass == NN_CHECK) {
    l->bytes += l->compute->conv_bytes(l->compute, &d);
    return;
  }
  viv_conv_weight *w = NULL;
  int32_t rc = l->compute->conv_prepare(l->compute, l->source->arena, &d, &w, l->error);
  if (rc < 0) {
    l->status = rc;
    return;
  }
  *conv = (nn_conv){.w = w,
                    .dims = d.dims,
                    .in = s->in,
                    .out = s->out,
                    .pad_kind = s->pad_kind,
                    .output_pad = s->output_pad,
                    .transposed = s->transposed};
  memcpy(conv->kernel, d.kernel, sizeof conv->kernel);
  memcpy(conv->stride, d.stride, sizeof conv->stride);
  memcpy(conv->dilation, d.dilation, sizeof conv->dilation);
  spread(conv->pad, d.dims, s->pad, s->pads, s->list_pad, 0);
}

void nn_load_mha(nn_loader *l, const char *name, int64_t d, int32_t heads, nn_mha *mha) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load_rows(l, "in_proj_weight", "in_proj_bias", 0, d, 3 * d, d, &mha->q);
  nn_load_rows(l, "in_proj_weight", "in_proj_bias", d, d, 3 * d, d, &mha->k);
  nn_load_rows(l, "in_proj_weight", "in_proj_bias", 2 * d, d, 3 * d, d, &mha->v);
  nn_load_linear(l, "out_proj", d, d, true, &mha->o);
  nn_out(l, outer);
  if (l->pass == NN_PREPARE) mha->heads = heads;
}

void nn_load_mlp(nn_loader *l, const char *name, int64_t in, int64_t hidden, int64_t out, int32_t n,
                 int32_t act, nn_mlp *mlp) {
  size_t outer = nn_in(l, "%s.layers.", name);
  for (int32_t i = 0; i < n && i < NN_MLP_MAX; i++) {
    char number[12];
    snprintf(number, sizeof number, "%d", (int)i);
    nn_load_linear(l, number, i + 1 < n ? hidden : out, i ? hidden : in, true, &mlp->layer[i]);
  }
  nn_out(l, outer);
  if (l->pass != NN_PREPARE) return;
  mlp->n = n;
  mlp->act = act;
}

/* ---- linear and norms ---- */

void nn_linear_to(nn_pass *p, const nn_linear *m, int32_t act, const float *residual,
                  const float *x, int64_t rows, float *y) {
  const viv_compute *c = nn_compute_of(p);
  c->linear_to(c, m->w, m->b, act, residual, x, m->in, y, m->out, rows);
}

float *nn_apply_linear(nn_pass *p, const nn_linear *m, int32_t act, const float *x, int64_t rows) {
  float *y = nn_room(p, rows * m->out);
  nn_linear_to(p, m, act, NULL, x, rows, y);
  return y;
}

void nn_layer_norm(nn_pass *p, const nn_norm *norm, const float *x, int64_t rows, float *y) {
  const viv_compute *c = nn_compute_of(p);
  c->layer_norm(c, x, norm->w, norm->b, norm->eps, rows, norm->d, y);
}

float *nn_apply_mlp(nn_pass *p, const nn_mlp *mlp, const float *x, int64_t rows) {
  for (int32_t i = 0; i < mlp->n; i++)
    x = nn_apply_linear(p, &mlp->layer[i], i + 1 < mlp->n ? mlp->act : 0, x, rows);
  return (float *)(uintptr_t)x; /* the last layer's own room */
}

/* ---- maps ---- */

int64_t nn_space(const nn_map *map) {
  int64_t n = 1;
  for (int32_t i = 0; i < map->dims; i++) n *= map->size[i];
  return n;
}

int64_t nn_elements(const nn_map *map) {
  return nn_space(map) * map->batch * map->channels;
}

nn_map nn_new_map(nn_pass *p, int32_t batch, int32_t channels, int32_t dims, const int32_t *size,
                  int32_t layout) {
  nn_map map = {
      .batch = batch, .channels = channels, .dims = dims, .size = {1, 1, 1}, .layout = layout};
  for (int32_t i = 0; i < dims; i++) map.size[i] = size[i];
  map.x = nn_room(p, nn_elements(&map));
  return map;
}

nn_map nn_conv_shape(nn_pass *p, const nn_conv *m, const nn_map *x, int32_t layout) {
  nn_map y = {.batch = x->batch,
              .channels = m->out,
              .dims = m->dims,
              .size = {1, 1, 1},
              .layout = layout < 0 ? x->layout : layout};
  if (x->channels != m->in || x->dims != m->dims)
    nn_stop(p, VIV_BUG, "convolution", "a map of %d channels came to a convolution of %d",
            (int)x->channels, (int)m->in);
  for (int32_t i = 0; i < m->dims; i++) {
    int64_t span = (int64_t)m->dilation[i] * (m->kernel[i] - 1) + 1, in = x->size[i];
    int64_t out = m->transposed ? (in - 1) * m->stride[i] - 2 * m->pad[i] + span + m->output_pad
                  : in + 2 * m->pad[i] < span ? 0
                                              : (in + 2 * m->pad[i] - span) / m->stride[i] + 1;
    if (out < 1 || out > INT32_MAX)
      nn_stop(p, VIV_BAD_INPUT, "size", "an input of %lld is too small for this network",
              (long long)in);
    y.size[i] = (int32_t)out;
  }
  return y;
}

void nn_conv_to(nn_pass *p, const nn_conv *m, int32_t act, const float *residual, const nn_map *x,
                nn_map *out) {
  const viv_compute *c = nn_compute_of(p);
  viv_conv a = {.struct_size = sizeof a,
                .batch = x->batch,
                .weight = m->w,
                .x_layout = x->layout,
                .out_layout = out->layout,
                .pad = m->pad_kind,
                .act = act,
                .act_param = act == VIV_ELU ? 1 : 0,
                .x = x->x,
                .residual = residual,
                .out = out->x};
  for (int32_t i = 0; i < 3; i++) {
    a.size[i] = i < m->dims ? x->size[i] : 1;
    a.pad_begin[i] = a.pad_end[i] = m->pad[i];
    a.output_pad[i] = i < m->dims ? m->output_pad : 0;
  }
  nn_mark mark = nn_here(p);
  a.scratch = nn_room(p, (int64_t)c->conv_scratch(c, &a));
  c->conv(c, &a);
  nn_release(p, mark);
}

nn_map nn_apply_conv(nn_pass *p, const nn_conv *m, int32_t act, const nn_map *x) {
  nn_map y = nn_conv_shape(p, m, x, -1);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, m, act, NULL, x, &y);
  return y;
}

nn_map nn_to_layout(nn_pass *p, const nn_map *x, int32_t layout) {
  if (x->layout == layout) return *x;
  const viv_compute *c = nn_compute_of(p);
  nn_map y = *x;
  y.layout = layout;
  y.x = nn_room(p, nn_elements(x));
  int64_t space = nn_space(x);
  bool last = x->layout == VIV_CHANNELS_LAST;
  int64_t shape[3] = {x->batch, last ? space : x->channels, last ? x->channels : space};
  int32_t perm[3] = {0, 2, 1};
  c->permute(c, x->x, 3, shape, perm, y.x);
  return y;
}

struct join {
  int32_t n;
  const nn_map *maps;
  int64_t channels;
  float *y;
};

static void join_rows(void *ctx, int64_t begin, int64_t end) {
  const struct join *j = ctx;
  for (int64_t r = begin; r < end; r++) {
    float *y = j->y + r * j->channels;
    for (int32_t i = 0; i < j->n; i++) {
      int64_t c = j->maps[i].channels;
      memcpy(y, j->maps[i].x + r * c, (size_t)c * sizeof *y);
      y += c;
    }
  }
}

nn_map nn_join_channels(nn_pass *p, int32_t n, const nn_map *maps) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = maps[0];
  y.channels = 0;
  for (int32_t i = 0; i < n; i++) {
    y.channels += maps[i].channels;
    bool fits = maps[i].layout == VIV_CHANNELS_LAST && maps[i].batch == y.batch;
    for (int32_t k = 0; k < 3; k++) fits = fits && maps[i].size[k] == y.size[k];
    if (!fits) nn_stop(p, VIV_BAD_INPUT, "size", "this size does not go through the network");
  }
  y.x = nn_room(p, nn_elements(&y));
  struct join j = {n, maps, y.channels, y.x};
  c->parallel_for(c, nn_space(&y) * y.batch, 256, join_rows, &j);
  return y;
}

nn_map nn_pool2d(nn_pass *p, int32_t kind, int32_t kernel, int32_t stride, int32_t pad,
                 bool ceil_mode, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int32_t size[2];
  for (int32_t i = 0; i < 2; i++) {
    int32_t room = x->size[i] + 2 * pad - kernel;
    if (room < 0)
      nn_stop(p, VIV_BAD_INPUT, "size", "a map of %d is too small for this network",
              (int)x->size[i]);
    size[i] = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    /* torch: the last window must begin inside the map or its padding at the beginning. */
    if (ceil_mode && (size[i] - 1) * stride >= x->size[i] + pad) size[i]--;
  }
  nn_map y = nn_new_map(p, x->batch, x->channels, 2, size, x->layout);
  bool last = x->layout == VIV_CHANNELS_LAST;
  viv_pool a = {.struct_size = sizeof a,
                .kind = kind,
                .dims = 2,
                .channels = last ? x->channels : 1,
                .batch = last ? x->batch : (int64_t)x->batch * x->channels,
                .size = {x->size[0], x->size[1], 1},
                .kernel = {kernel, kernel, 1},
                .stride = {stride, stride, 1},
                .dilation = {1, 1, 1},
                .pad_begin = {pad, pad, 0},
                .pad_end = {pad, pad, 0},
                .ceil_mode = ceil_mode,
                .count_pad = 1,
                .x = x->x,
                .out = y.x};
  c->pool(c, &a);
  return y;
}

nn_map nn_resize_map(nn_pass *p, int32_t filter, bool align_corners, const int32_t *size,
                     const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_new_map(p, x->batch, x->channels, x->dims, size, x->layout);
  bool last = x->layout == VIV_CHANNELS_LAST;
  viv_resize a = {.struct_size = sizeof a,
                  .filter = filter,
                  .dims = x->dims,
                  .channels = last ? x->channels : 1,
                  .batch = last ? x->batch : (int64_t)x->batch * x->channels,
                  .align_corners = align_corners,
                  .x = x->x,
                  .out = y.x};
  for (int32_t i = 0; i < 3; i++) {
    a.size[i] = x->size[i];
    a.out_size[i] = y.size[i];
  }
  c->resize(c, &a);
  return y;
}

/* ---- attention ---- */

/* How many keys a sequence sees if it sees the first ones and no others (padding on the right), else
 * -1. Such a sequence needs no mask, and its results are those of the sequence alone, to the bit. */
static int64_t prefix_of(const uint8_t *mask, int64_t nk) {
  int64_t n = 0, i;
  while (n < nk && mask[n]) n++;
  for (i = n; i < nk && !mask[i];) i++;
  return i == nk ? n : -1;
}

/* The keys of a sequence are one page; a mask or a bias is a row's own. */
void nn_attend(nn_pass *p, const nn_attention *a, float *out) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  int32_t kv_heads = a->kv_heads ? a->kv_heads : a->heads;
  int32_t vdim = a->value_dim ? a->value_dim : a->dim;
  int64_t rows = a->batch * a->nq, n_bias = a->n_bias ? a->n_bias : 1;
  int64_t k_stride = a->k_stride ? a->k_stride : (int64_t)kv_heads * a->dim;
  int64_t v_stride = a->v_stride ? a->v_stride : (int64_t)kv_heads * vdim;
  int64_t q_stride = a->q_stride ? a->q_stride : (int64_t)a->heads * a->dim;
  if (!rows) return;
  viv_kv *kv = nn_bytes(p, a->batch, sizeof *kv);
  const void **page = nn_bytes(p, 2 * a->batch, sizeof *page);
  const viv_kv **of_row = nn_bytes(p, rows, sizeof *of_row);
  int64_t *visible = nn_bytes(p, rows, sizeof *visible);
  bool masked = false;
  for (int64_t b = 0; b < a->batch; b++) {
    int64_t seen = a->mask ? prefix_of(a->mask + b * a->nk, a->nk) : a->nk;
    if (seen < 0) {
      masked = true;
      seen = a->nk;
    }
    page[2 * b] = a->k + b * a->nk * k_stride;
    page[2 * b + 1] = a->v + b * a->nk * v_stride;
    kv[b] = (viv_kv){&page[2 * b], &page[2 * b + 1]};
    for (int64_t i = 0; i < a->nq; i++) {
      of_row[b * a->nq + i] = &kv[b];
      int64_t past = a->causal ? a->nk - a->nq + i + 1 : seen;
      visible[b * a->nq + i] = past < seen ? past : seen;
    }
  }
  uint8_t *bits = NULL;
  int64_t *mask_begin = NULL, mask_stride = nn_mask_stride(a->nk);
  if (masked) {
    mask_begin = nn_bytes(p, rows, sizeof *mask_begin);
    bits = nn_bytes(p, rows * mask_stride, 1);
    memset(mask_begin, 0, (size_t)rows * sizeof *mask_begin);
    for (int64_t r = 0; r < rows; r++)
      nn_mask_bits(a->mask + r / a->nq * a->nk, a->nk, bits + r * mask_stride);
  }
  viv_attention args = {.struct_size = sizeof args,
                        .kv_dtype = VIV_F32,
                        .heads = a->heads,
                        .head_dim = a->dim,
                        .value_dim = vdim,
                        .kv_heads = kv_heads,
                        .page_tokens = (int32_t)a->nk,
                        .k_width = (int32_t)k_stride,
                        .v_width = (int32_t)v_stride,
                        .scale = a->scale != 0.0f ? a->scale : 1.0f / sqrtf((float)a->dim),
                        .q_stride = q_stride,
                        .mask_stride = mask_stride,
                        .bias_row_stride = a->nk,
                        .bias_head_stride = a->bias_per_head ? a->nq * a->nk : 0};
  /* Rows that share one table of biases go together: all of them, or one sequence. */
  int64_t step = a->bias ? a->nq : rows;
  for (int64_t r = 0; r < rows; r += step) {
    args.rows = (int32_t)step;
    args.q = a->q + r * q_stride;
    args.out = out + r * a->heads * vdim;
    args.kv = of_row + r;
    args.visible = visible + r;
    args.mask = bits ? bits + r * mask_stride : NULL;
    args.mask_begin = mask_begin ? mask_begin + r : NULL;
    int64_t one = (a->bias_per_head ? a->heads : 1) * a->nq * a->nk;
    if (a->bias) args.bias = a->bias + r / a->nq % n_bias * one;
    c->attention(c, &args);
  }
  nn_release(p, mark);
}

void nn_apply_mha(nn_pass *p, const nn_mha *m, int64_t batch, const float *query, int64_t nq,
                  const float *key, const float *value, int64_t nk, const float *bias,
                  const uint8_t *mask, float *y) {
  nn_mark mark = nn_here(p);
  nn_attention a = {.batch = batch,
                    .nq = nq,
                    .nk = nk,
                    .heads = m->heads,
                    .dim = (int32_t)(m->q.out / m->heads),
                    .value_dim = (int32_t)(m->v.out / m->heads),
                    .bias = bias,
                    .bias_per_head = true,
                    .mask = mask};
  a.q = nn_apply_linear(p, &m->q, 0, query, batch * nq); /* [batch, nq, heads, dim] */
  a.k = nn_apply_linear(p, &m->k, 0, key, batch * nk);   /* [batch, nk, heads, dim] */
  a.v = nn_apply_linear(p, &m->v, 0, value, batch * nk); /* [batch, nk, heads, dim] */
  float *out = nn_room(p, batch * nq * m->v.out);
  nn_attend(p, &a, out);
  nn_linear_to(p, &m->o, 0, NULL, out, batch * nq, y);
  nn_release(p, mark);
}
