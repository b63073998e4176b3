#include "depth/lite_mono.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "depth/dpt.h"

enum { FOURIER = 32 }; /* numbers of one coordinate */

/* ---- configuration ---- */

static void fail(nn_config *k, const char *what) {
  if (!k->status) k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s", what);
}

static void three(nn_config *k, const char *key, int32_t *out, int64_t hi) {
  if (nn_key(k, key) && nn_ints(k, key, out, LITE_STAGES, 1, hi) != LITE_STAGES && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be three numbers", key);
}

static void read_dilation(nn_config *k, lite_spec *s) {
  const viv_json *list = nn_key(k, "dilation");
  const viv_host *h = k->host;
  if (!list) return;
  if (h->json_type(list) != VIV_JSON_ARRAY || h->json_count(list) != LITE_STAGES) {
    fail(k, "dilation must be three lists");
    return;
  }
  for (int32_t i = 0; i < LITE_STAGES; i++) {
    const viv_json *stage = h->json_item(list, i);
    int64_t n = h->json_type(stage) == VIV_JSON_ARRAY ? h->json_count(stage) : -1;
    if (n < s->depth[i] - 1 || n > LITE_BLOCKS) {
      fail(k, "dilation must have a number for each block of a stage but the last");
      return;
    }
    for (int32_t b = 0; b < n; b++) {
      double d = h->json_number(h->json_item(stage, b));
      if (!(d >= 1 && d <= 1 << 10)) fail(k, "dilation must hold numbers of 1 to 1024");
      s->dilation[i][b] = k->status ? 1 : (int32_t)d;
    }
  }
}

void lite_read(nn_config *k, lite_spec *s) {
  static const lite_spec usual = {.dims = {64, 128, 224},
                                  .depth = {4, 4, 10},
                                  .heads = {8, 8, 8},
                                  .dilation = {{1, 2, 3}, {1, 2, 3}, {1, 2, 3, 1, 2, 3, 2, 4, 6}}};
  *s = usual;
  three(k, "dims", s->dims, 1 << 14);
  three(k, "depth", s->depth, LITE_BLOCKS);
  three(k, "heads", s->heads, 1024);
  read_dilation(k, s);
  s->expand = (int32_t)nn_int(k, "expan_ratio", 6, 1, 64);
  for (int i = 0; i < LITE_STAGES; i++) {
    nn_divides(k, s->dims[i], s->heads[i], "dims and heads");
    for (int32_t b = 0; b < s->depth[i] - 1 && b < LITE_BLOCKS; b++)
      if (s->dilation[i][b] < 1) fail(k, "dilation must have a number for each block of a stage");
  }
}

/* ---- weights ---- */

static void load_block(nn_loader *l, const lite_spec *s, int32_t stage, bool global,
                       int32_t dilation, lite_block *w) {
  int64_t d = s->dims[stage], vector[1] = {d}, heads[1] = {s->heads[stage]};
  if (global) {
    if (stage == 0)
      nn_load_linear(l, "pos_embd.token_projection", d, 2 * FOURIER, true, &w->positions);
    nn_load_norm(l, "norm_xca", d, 1e-6f, &w->norm_xca);
    nn_load_norm(l, "norm", d, 1e-6f, &w->norm);
    nn_load_tensor(l, "gamma_xca", true, 1, vector, &w->gamma_xca);
    nn_load_tensor(l, "xca.temperature", true, 1, heads, &w->temperature);
    nn_load_linear(l, "xca.qkv", 3 * d, d, true, &w->qkv);
    nn_load_linear(l, "xca.proj", d, d, true, &w->proj);
  } else {
    nn_conv_spec spec = {.in = (int32_t)d,
                         .out = (int32_t)d,
                         .kernel = 3,
                         .pad = dilation,
                         .dilation = dilation,
                         .groups = (int32_t)d,
                         .norm = "bn1"};
    nn_load_conv(l, "ddwconv.conv", &spec, &w->depthwise);
  }
  nn_load_linear(l, "pwconv1", s->expand * d, d, true, &w->up);
  nn_load_linear(l, "pwconv2", d, s->expand * d, true, &w->down);
  nn_load_tensor(l, "gamma", true, 1, vector, &w->gamma);
  if (l->pass == NN_PREPARE) w->global = global;
}

static void load_stem(nn_loader *l, const lite_spec *s, lite_net *net) {
  for (int i = 0; i < 3; i++) {
    nn_conv_spec spec = {.in = i ? s->dims[0] : 3,
                         .out = s->dims[0],
                         .kernel = 3,
                         .stride = i ? 1 : 2,
                         .pad = 1,
                         .norm = "bn_gelu.bn"};
    size_t outer = nn_in(l, "downsample_layers.0.%d.", i);
    nn_load_conv(l, "conv", &spec, &net->stem[i]);
    nn_out(l, outer);
  }
  nn_conv_spec spec = {.in = s->dims[0] + 3, .out = s->dims[0], .kernel = 3, .stride = 2, .pad = 1};
  nn_load_conv(l, "stem2.0.conv", &spec, &net->stem2);
}

void lite_load(nn_loader *l, const lite_spec *s, bool first, lite_net *net) {
  if (first) load_stem(l, s, net);
  for (int32_t i = first ? 0 : 1; i < LITE_STAGES; i++) {
    nn_conv_spec spec = {.in = 2 * s->dims[i ? i - 1 : 0] + 3,
                         .out = s->dims[i],
                         .kernel = 3,
                         .stride = 2,
                         .pad = 1};
    char name[40];
    snprintf(name, sizeof name, "downsample_layers.%d.0.conv", (int)i);
    if (i) nn_load_conv(l, name, &spec, &net->down[i - 1]);
    for (int32_t b = 0; b < s->depth[i]; b++) {
      size_t outer = nn_in(l, "stages.%d.%d.", (int)i, (int)b);
      load_block(l, s, i, b == s->depth[i] - 1, s->dilation[i][b], &net->block[i][b]);
      nn_out(l, outer);
    }
  }
  if (l->pass == NN_PREPARE) net->spec = *s;
}

/* ---- blocks ---- */

struct scaled {
  float *x;
  const float *y, *scale;
  int64_t d;
};

static void add_rows(void *ctx, int64_t begin, int64_t end) {
  const struct scaled *s = ctx;
  for (int64_t r = begin; r < end; r++)
    for (int64_t i = 0; i < s->d; i++) s->x[r * s->d + i] += s->scale[i] * s->y[r * s->d + i];
}

/* x [rows, d] += scale * y */
static void add_scaled(nn_pass *p, const float *scale, const float *y, int64_t rows, int64_t d,
                       float *x) {
  const viv_compute *c = nn_compute_of(p);
  struct scaled s = {x, y, scale, d};
  c->parallel_for(c, rows, 64, add_rows, &s);
}

/* Adds W [y positions, x positions] to tokens [batch, h, w, d]. */
static void add_positions(nn_pass *p, const nn_linear *w, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int32_t height = x->size[0], width = x->size[1];
  int64_t cells = nn_space(x);
  nn_mark mark = nn_here(p);
  float *code = nn_room(p, cells * 2 * FOURIER);
  for (int32_t i = 0; i < height; i++)
    for (int32_t j = 0; j < width; j++) {
      float *to = code + ((int64_t)i * width + j) * 2 * FOURIER;
      double at[2] = {(i + 1) / (height + 1e-6), (j + 1) / (width + 1e-6)};
      for (int axis = 0; axis < 2; axis++)
        for (int k = 0; k < FOURIER; k++) {
          double angle = at[axis] * 2 * acos(-1.0) / pow(10000, (double)(k / 2 * 2) / FOURIER);
          to[axis * FOURIER + k] = (float)(k % 2 ? cos(angle) : sin(angle));
        }
    }
  float *y = nn_apply_linear(p, w, 0, code, cells);
  for (int32_t b = 0; b < x->batch; b++)
    c->add(c, x->x + b * cells * x->channels, y, cells * x->channels);
  nn_release(p, mark);
}

/* Columns of x [n, d], a row stride apart, divided by their length. */
static void normalize_columns(float *x, int64_t n, int64_t d, int64_t stride, double *length) {
  for (int64_t k = 0; k < d; k++) length[k] = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < d; k++)
      length[k] += (double)x[i * stride + k] * (double)x[i * stride + k];
  for (int64_t k = 0; k < d; k++) length[k] = 1 / fmax(sqrt(length[k]), 1e-12);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < d; k++) x[i * stride + k] *= (float)length[k];
}

/* Attention of channels over channels; x [batch, n, d] -> y. */
static void attend_channels(nn_pass *p, const lite_block *w, int32_t heads, int32_t batch,
                            int64_t n, const float *x, float *y) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = w->proj.in, each = d / heads;
  nn_mark mark = nn_here(p);
  float *qkv = nn_apply_linear(p, &w->qkv, 0, x, batch * n); /* [batch, n, 3, heads, each] */
  float *mixed = nn_room(p, batch * n * d), *logit = nn_room(p, each * each);
  double *length = nn_bytes(p, 2 * d, sizeof *length);
  for (int32_t b = 0; b < batch; b++) {
    float *q = qkv + b * n * 3 * d;
    normalize_columns(q, n, 2 * d, 3 * d, length); /* q and k */
    for (int32_t h = 0; h < heads; h++) {
      float *at = q + h * each;
      c->gemm(c, 1, 0, each, each, n, w->temperature[h], at, 3 * d, at + d, 3 * d, 0, logit, each);
      c->softmax(c, logit, each, each, logit);
      c->gemm(c, 0, 1, n, each, each, 1, at + 2 * d, 3 * d, logit, each, 0,
              mixed + b * n * d + h * each, d);
    }
  }
  nn_linear_to(p, &w->proj, 0, NULL, mixed, batch * n, y);
  nn_release(p, mark);
}

static void mlp(nn_pass *p, const lite_block *w, const float *y, int64_t rows, nn_map *x) {
  float *h = nn_apply_linear(p, &w->up, VIV_GELU, y, rows);
  add_scaled(p, w->gamma, nn_apply_linear(p, &w->down, 0, h, rows), rows, x->channels, x->x);
}

static void run_block(nn_pass *p, const lite_net *net, int32_t stage, const lite_block *w,
                      nn_map *x) {
  nn_mark mark = nn_here(p);
  int64_t cells = nn_space(x), rows = x->batch * cells, d = x->channels;
  nn_pass_poll(p);
  if (!w->global) {
    nn_map y = nn_apply_conv(p, &w->depthwise, 0, x);
    mlp(p, w, y.x, rows, x);
  } else {
    nn_map t = *x;
    t.x = nn_room(p, rows * d);
    float *y = nn_room(p, rows * d);
    memcpy(t.x, x->x, (size_t)(rows * d) * sizeof *y);
    if (w->positions.w) add_positions(p, &w->positions, &t);
    nn_layer_norm(p, &w->norm_xca, t.x, rows, y);
    attend_channels(p, w, net->spec.heads[stage], x->batch, cells, y, y);
    add_scaled(p, w->gamma_xca, y, rows, d, t.x);
    nn_layer_norm(p, &w->norm, t.x, rows, t.x);
    mlp(p, w, t.x, rows, x);
  }
  nn_release(p, mark);
}

static nn_map stage_of(nn_pass *p, const lite_net *net, int32_t stage, const nn_map *t, bool tap) {
  nn_map x = *t;
  x.x = nn_room(p, nn_elements(t));
  memcpy(x.x, t->x, (size_t)nn_elements(t) * sizeof *x.x);
  for (int32_t b = 0; b < net->spec.depth[stage]; b++) {
    run_block(p, net, stage, &net->block[stage][b], &x);
    if (tap && !b) dpt_tap(p, &x, "stage%d.0", stage);
  }
  return x;
}

/* ---- the pass ---- */

lite_state lite_begin(nn_pass *p, const lite_net *net, const nn_map *pixels, bool tap) {
  lite_state s;
  nn_map x = nn_to_layout(p, pixels, VIV_CHANNELS_LAST);
  if (x.x == pixels->x) x.x = nn_room(p, nn_elements(pixels));
  for (int64_t i = 0; i < nn_elements(&x); i++) x.x[i] = (x.x[i] - 0.45f) / 0.225f;
  nn_map below = x;
  for (int i = 0; i < LITE_STAGES; i++)
    s.below[i] = below = nn_pool2d(p, VIV_POOL_AVERAGE, 3, 2, 1, false, &below);
  for (int i = 0; i < 3; i++) x = nn_apply_conv(p, &net->stem[i], VIV_GELU, &x);
  s.f = x;
  if (tap) dpt_tap(p, &s.f, "feature%d", 0);
  nn_map parts[2] = {s.f, s.below[0]};
  x = nn_join_channels(p, 2, parts);
  s.t = nn_apply_conv(p, &net->stem2, 0, &x);
  s.s = stage_of(p, net, 0, &s.t, tap);
  return s;
}

void lite_finish(nn_pass *p, const lite_net *net, const lite_state *state, nn_map features[4]) {
  nn_map t = state->t, s = state->s;
  for (int32_t i = 1; i < LITE_STAGES; i++) {
    nn_map parts[3] = {t, s, state->below[i]};
    nn_map x = nn_join_channels(p, 3, parts);
    t = nn_apply_conv(p, &net->down[i - 1], 0, &x);
    features[i + 1] = s = stage_of(p, net, i, &t, false);
  }
}
