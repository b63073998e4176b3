/* SwinUNETR: shifted windows over the volume, whose stages feed a convolutional decoder.
 *
 *   x0 = conv 2 / 2;  stage: pairs of blocks (windows, shifted windows), then patches merge: 2^3 to 1
 *   block:  x += attention(windows(LN x)),  x += W2 gelu(W1 LN x)
 *   the hidden maps h_0 .. h_4, each normed without weights, feed the encoders
 *
 * Zeros are appended after the norm until the window divides the map. Where an axis is no longer than
 * the window, the window is the axis and does not shift; its biases are the first rows and columns of
 * the full window's table, as the official code has it. Hatamizadeh et al., arXiv:2201.01266;
 * monai/networks/nets/swin_unetr.py. */
#include <stdio.h>
#include <string.h>

#include "nn/volume.h"
#include "unet3d/unet3d.h"

/* ---- configuration ---- */

static void config(nn_config *k, struct u3_model *m) {
  static const int32_t usual_depths[] = {2, 2, 2, 2}, usual_heads[] = {3, 6, 12, 24};
  struct u3_swinunetr *s = &m->as.swinunetr;
  m->style = (struct u3_style){
      .norm = U3_INSTANCE, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.01f};
  u3_read_norm(k, "norm_name", &m->style);
  u3_triple(k, "img_size", 96, m->roi);
  u3_triple(k, "window_size", 7, s->window);
  s->feature = (int32_t)nn_int(k, "feature_size", 24, 1, 1 << 10);
  memcpy(s->depths, usual_depths, sizeof s->depths);
  memcpy(s->heads, usual_heads, sizeof s->heads);
  if (nn_key(k, "depths") && nn_ints(k, "depths", s->depths, 4, 1, 32) != 4 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "depths must be four numbers");
  if (nn_key(k, "num_heads") && nn_ints(k, "num_heads", s->heads, 4, 1, 256) != 4 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "num_heads must be four numbers");
  int32_t blocks = 0;
  for (int i = 0; i < 4; i++) {
    blocks += s->depths[i];
    nn_divides(k, s->feature << i, s->heads[i], "the stage's width and its heads");
    if (i < 3) nn_divides(k, m->roi[i], 32, "img_size and 32");
  }
  if (blocks > U3_SWIN_BLOCKS && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "depths are %d in all, at most %d",
                        (int)blocks, U3_SWIN_BLOCKS);
  s->mlp_ratio = nn_num(k, "mlp_ratio", 4, 0.01, 64);
  s->qkv_bias = nn_flag(k, "qkv_bias", true);
  s->normalize = nn_flag(k, "normalize", true);
  s->v2 = nn_flag(k, "use_v2", false);
  viv_str down = nn_text(k, "downsample", "merging");
  viv_str order = nn_text(k, "patch_merging", nn_is(down, "mergingv2") ? "v2" : "v0.9.0");
  s->merging = nn_is(order, "v2")     ? NN_MERGE_V2
               : nn_is(order, "v1.6") ? NN_MERGE_V1_6
                                      : NN_MERGE_V0_9;
  if (s->merging == NN_MERGE_V0_9 && !nn_is(order, "v0.9.0") && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "patch_merging must be v0.9.0, v1.6 or v2");
  if (nn_flag(k, "patch_norm", false) && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "patch_norm is not supported");
}

/* ---- weights ---- */

static void load_stage(nn_loader *l, const struct u3_model *m, int32_t stage,
                       struct u3_swin_block *block) {
  struct u3_swinunetr *s = &((struct u3_model *)(uintptr_t)m)->as.swinunetr;
  const int32_t *w = s->window;
  int64_t d = (int64_t)s->feature << stage, ff = (int64_t)((double)d * s->mlp_ratio);
  int64_t cells = (int64_t)(2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1);
  size_t outer = nn_in(l, "swinViT.layers%d.0.", (int)stage + 1);
  for (int32_t i = 0; i < s->depths[stage]; i++) {
    size_t inner = nn_in(l, "blocks.%d.", (int)i);
    nn_load_norm(l, "norm1", d, 1e-5f, &block[i].norm1);
    nn_load_norm(l, "norm2", d, 1e-5f, &block[i].norm2);
    nn_load_linear(l, "attn.qkv", 3 * d, d, s->qkv_bias, &block[i].qkv);
    nn_load_linear(l, "attn.proj", d, d, true, &block[i].proj);
    nn_load_linear(l, "mlp.linear1", ff, d, true, &block[i].up);
    nn_load_linear(l, "mlp.linear2", d, ff, true, &block[i].down);
    nn_load_tensor(l, "attn.relative_position_bias_table", true, 2,
                   (const int64_t[]){cells, s->heads[stage]}, &block[i].table);
    nn_out(l, inner);
  }
  nn_load_norm(l, "downsample.norm", 8 * d, 1e-5f, &s->merge_norm[stage]);
  nn_load_linear(l, "downsample.reduction", 2 * d, 8 * d, false, &s->merge[stage]);
  nn_out(l, outer);
}

static void load_swin(nn_loader *l, struct u3_model *m) {
  static const int32_t three[] = {3, 3, 3}, one[] = {1, 1, 1};
  struct u3_swinunetr *s = &m->as.swinunetr;
  nn_conv_spec embed = {
      .dims = 3, .in = m->in_channels, .out = s->feature, .kernel = 2, .stride = 2, .bias = true};
  struct u3_swin_block *block = s->block;
  struct u3_style instance = {
      .norm = U3_INSTANCE, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.01f};
  nn_load_conv(l, "swinViT.patch_embed.proj", &embed, &s->embed);
  for (int32_t i = 0; i < 4; i++) {
    char name[32];
    int32_t d = s->feature << i;
    load_stage(l, m, i, block);
    block += s->depths[i];
    snprintf(name, sizeof name, "swinViT.layers%dc.0.layer.", (int)i + 1);
    if (s->v2) u3_load_block(l, &instance, name, d, d, three, one, true, &s->before[i]);
  }
  nn_ignore(l, "*relative_position_index");
}

static void tables(nn_loader *l, void *model) {
  static const int32_t two[] = {2, 2, 2}, three[] = {3, 3, 3}, one[] = {1, 1, 1};
  static const char *const encoders[] = {"encoder1", "encoder2", "encoder3", "encoder4",
                                         "encoder10"};
  struct u3_model *m = model;
  struct u3_swinunetr *s = &m->as.swinunetr;
  int32_t f = s->feature;
  load_swin(l, m);
  for (int32_t i = 0; i < 5; i++) {
    int32_t out = i == 4 ? 16 * f : i ? f << (i - 1) : f;
    char name[40];
    snprintf(name, sizeof name, "%s.layer.", encoders[i]);
    u3_load_block(l, &m->style, name, i ? out : m->in_channels, out, three, one, true,
                  &s->encode[i]);
  }
  for (int32_t i = 0; i < 5; i++) { /* decoder5 first */
    int32_t in = i < 4 ? f << (4 - i) : f, out = i < 4 ? in / 2 : f;
    char name[40];
    snprintf(name, sizeof name, "decoder%d.transp_conv.conv", 5 - (int)i);
    u3_load_up(l, name, in, out, two, false, &s->up[i]);
    snprintf(name, sizeof name, "decoder%d.conv_block.", 5 - (int)i);
    u3_load_block(l, &m->style, name, 2 * out, out, three, one, true, &s->decode[i]);
  }
  u3_load_point(l, "out.conv.conv", f, m->classes, true, &m->out);
  nn_ignore(l, "deep_*");
  nn_ignore(l, "self_distillation_*");
}

/* ---- windows ---- */

/* The windows of a map: sides, shifts, and how many there are along each axis. */
struct windows {
  int32_t side[3], shift[3], count[3];
  int64_t cells, n; /* of a window; windows of a map */
};

static struct windows windows_of(const int32_t size[3], const int32_t window[3], bool shifted) {
  struct windows w = {.cells = 1, .n = 1};
  for (int k = 0; k < 3; k++) {
    bool whole = size[k] <= window[k];
    w.side[k] = whole ? size[k] : window[k];
    w.shift[k] = whole || !shifted ? 0 : window[k] / 2;
    w.count[k] = (size[k] + w.side[k] - 1) / w.side[k];
    w.cells *= w.side[k];
    w.n *= w.count[k];
  }
  return w;
}

/* Cell `cell` of window `at`: its row in the map, -1 where the padding is. region: which part of the
 * shifted map it comes from; cells of different parts do not see one another. */
static int64_t row_of(const struct windows *w, const int32_t size[3], int64_t at, int64_t cell,
                      int32_t *region) {
  int64_t window[3] = {at / (w->count[1] * w->count[2]), at / w->count[2] % w->count[1],
                       at % w->count[2]};
  int64_t in[3] = {cell / (w->side[1] * w->side[2]), cell / w->side[2] % w->side[1],
                   cell % w->side[2]};
  int64_t row = 0;
  bool inside = true;
  *region = 0;
  for (int k = 0; k < 3; k++) {
    int64_t padded = (int64_t)w->count[k] * w->side[k], pos = window[k] * w->side[k] + in[k];
    int64_t from = (pos + w->shift[k]) % padded;
    int32_t part = pos < padded - w->side[k] ? 0 : pos < padded - w->shift[k] ? 1 : 2;
    *region = *region * 3 + (w->shift[k] ? part : 0);
    inside = inside && from < size[k];
    row = row * size[k] + from;
  }
  return inside ? row : -1;
}

struct moving {
  const struct windows *w;
  const int32_t *size;
  int64_t d, space;
  const float *from;
  float *to;
};

/* Rows of the map [batch, space, d] to windows [batch n, cells, d]; the padding is zero. */
static void gather(void *ctx, int64_t begin, int64_t end) {
  const struct moving *g = ctx;
  int32_t region;
  for (int64_t i = begin; i < end; i++) {
    int64_t batch = i / g->w->n, at = i % g->w->n;
    for (int64_t c = 0; c < g->w->cells; c++) {
      int64_t row = row_of(g->w, g->size, at, c, &region);
      float *to = g->to + (i * g->w->cells + c) * g->d;
      if (row < 0)
        memset(to, 0, (size_t)g->d * sizeof *to);
      else
        memcpy(to, g->from + (batch * g->space + row) * g->d, (size_t)g->d * sizeof *to);
    }
  }
}

/* Adds the windows' rows to the map's. */
static void scatter(void *ctx, int64_t begin, int64_t end) {
  const struct moving *g = ctx;
  int32_t region;
  for (int64_t i = begin; i < end; i++) {
    int64_t batch = i / g->w->n, at = i % g->w->n;
    for (int64_t c = 0; c < g->w->cells; c++) {
      int64_t row = row_of(g->w, g->size, at, c, &region);
      const float *from = g->from + (i * g->w->cells + c) * g->d;
      float *to = g->to + (batch * g->space + row) * g->d;
      for (int64_t k = 0; row >= 0 && k < g->d; k++) to[k] += from[k];
    }
  }
}

/* Which kind of mask a window has: one bit for each axis along which it is the last. */
static int32_t kind_of(const struct windows *w, int64_t at) {
  int64_t window[3] = {at / (w->count[1] * w->count[2]), at / w->count[2] % w->count[1],
                       at % w->count[2]};
  int32_t kind = 0;
  for (int k = 0; k < 3; k++) kind |= (w->shift[k] && window[k] == w->count[k] - 1) << k;
  return kind;
}

/* Biases [heads, cells, cells] of a window: the table's, and -100 between parts of the shifted map. */
static float *biases(nn_pass *p, const struct u3_swinunetr *s, const struct u3_swin_block *b,
                     int32_t heads, const struct windows *w, const int32_t size[3], int64_t at) {
  const int32_t *full = s->window;
  int64_t n = w->cells;
  float *y = nn_room(p, heads * n * n);
  int32_t *region = nn_bytes(p, n, sizeof *region);
  int64_t(*where)[3] = nn_bytes(p, n, sizeof *where);
  for (int64_t i = 0; i < n; i++) {
    row_of(w, size, at, i, &region[i]);
    where[i][0] = i / (full[1] * full[2]);
    where[i][1] = i / full[2] % full[1];
    where[i][2] = i % full[2];
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      int64_t index = 0;
      for (int k = 0; k < 3; k++)
        index = index * (2 * full[k] - 1) + where[i][k] - where[j][k] + full[k] - 1;
      float mask = region[i] != region[j] ? -100.0f : 0.0f;
      for (int32_t h = 0; h < heads; h++)
        y[(h * n + i) * n + j] = b->table[index * heads + h] + mask;
    }
  return y;
}

/* ---- blocks ---- */

static void attend(nn_pass *p, const struct u3_swinunetr *s, const struct u3_swin_block *b,
                   int32_t heads, bool shifted, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = x->channels, space = nn_space(x);
  struct windows w = windows_of(x->size, s->window, shifted);
  int64_t rows = x->batch * w.n * w.cells;
  nn_mark mark = nn_here(p);
  float *inside = nn_room(p, rows * d), *kinds[8] = {NULL};
  nn_mark inner = nn_here(p);
  float *normed = nn_room(p, x->batch * space * d);
  nn_layer_norm(p, &b->norm1, x->x, x->batch * space, normed);
  struct moving in = {&w, x->size, d, space, normed, inside};
  c->parallel_for(c, x->batch * w.n, 1, gather, &in);
  nn_release(p, inner);
  float *qkv = nn_apply_linear(p, &b->qkv, 0, inside, rows);
  for (int64_t at = 0; at < w.n; at++)
    if (!kinds[kind_of(&w, at)]) kinds[kind_of(&w, at)] = biases(p, s, b, heads, &w, x->size, at);
  for (int64_t i = 0; i < x->batch * w.n; i++) {
    const float *q = qkv + i * w.cells * 3 * d;
    nn_attention a = {.batch = 1,
                      .nq = w.cells,
                      .nk = w.cells,
                      .heads = heads,
                      .dim = (int32_t)(d / heads),
                      .q = q,
                      .k = q + d,
                      .v = q + 2 * d,
                      .q_stride = 3 * d,
                      .k_stride = 3 * d,
                      .v_stride = 3 * d,
                      .bias = kinds[kind_of(&w, i % w.n)],
                      .bias_per_head = true};
    nn_attend(p, &a, inside + i * w.cells * d);
  }
  float *out = qkv; /* its rows are three times as long */
  nn_linear_to(p, &b->proj, 0, NULL, inside, rows, out);
  struct moving back = {&w, x->size, d, space, out, x->x};
  c->parallel_for(c, x->batch * w.n, 1, scatter, &back);
  nn_release(p, mark);
}

static void apply_block(nn_pass *p, const struct u3_swinunetr *s, const struct u3_swin_block *b,
                        int32_t heads, bool shifted, nn_map *x) {
  int64_t rows = x->batch * nn_space(x);
  nn_pass_poll(p);
  attend(p, s, b, heads, shifted, x);
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * x->channels);
  nn_layer_norm(p, &b->norm2, x->x, rows, u);
  float *h = nn_apply_linear(p, &b->up, VIV_GELU, u, rows);
  nn_linear_to(p, &b->down, 0, x->x, h, rows, x->x);
  nn_release(p, mark);
}

static nn_map merged(nn_pass *p, const struct u3_swinunetr *s, int32_t stage, const nn_map *x) {
  int32_t half[3];
  for (int k = 0; k < 3; k++) half[k] = (x->size[k] + 1) / 2;
  nn_map y = nn_new_map(p, x->batch, 2 * x->channels, 3, half, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  int64_t cells = nn_space(&y), d = x->channels, rows = x->batch * cells;
  float *parts = nn_room(p, rows * 8 * d);
  for (int64_t b = 0; b < x->batch; b++)
    nn_merge_patches(x->x + b * nn_space(x) * d, x->size, d, s->merging, parts + b * cells * 8 * d);
  nn_layer_norm(p, &s->merge_norm[stage], parts, rows, parts);
  nn_linear_to(p, &s->merge[stage], 0, NULL, parts, rows, y.x);
  nn_release(p, mark);
  return y;
}

/* The map as the encoders read it. */
static nn_map hidden(nn_pass *p, const struct u3_swinunetr *s, const nn_map *x, int32_t number) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = *x;
  y.x = nn_room(p, nn_elements(x));
  if (s->normalize)
    c->layer_norm(c, x->x, NULL, NULL, 1e-5f, x->batch * nn_space(x), x->channels, y.x);
  else
    memcpy(y.x, x->x, (size_t)nn_elements(x) * sizeof *y.x);
  u3_tap(p, &y, "hidden.", number);
  return y;
}

static void transform(nn_pass *p, const struct u3_model *m, const nn_map *x, nn_map out[5]) {
  static const struct u3_style instance = {
      .norm = U3_INSTANCE, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.01f};
  const struct u3_swinunetr *s = &m->as.swinunetr;
  const struct u3_swin_block *block = s->block;
  nn_map y = nn_apply_conv(p, &s->embed, 0, x);
  out[0] = hidden(p, s, &y, 0);
  for (int32_t stage = 0; stage < 4; stage++) {
    if (s->v2) y = u3_apply_block(p, &instance, &s->before[stage], &y);
    for (int32_t i = 0; i < s->depths[stage]; i++, block++) {
      apply_block(p, s, block, s->heads[stage], i % 2 == 1, &y);
      nn_tap(p, y.x, NN_DIMS(y.batch, y.size[0], y.size[1], y.size[2], y.channels),
             "layers%d.block%d", (int)stage + 1, (int)i);
    }
    y = merged(p, s, stage, &y);
    out[stage + 1] = hidden(p, s, &y, stage + 1);
  }
}

static nn_map network(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  const struct u3_swinunetr *s = &m->as.swinunetr;
  nn_map h[5], skip[5];
  for (int i = 0; i < 3; i++)
    if (x->size[i] % 32)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "%d x %d x %d voxels: each side must be a multiple of 32; segment3d slides windows "
              "over any volume",
              (int)x->size[0], (int)x->size[1], (int)x->size[2]);
  transform(p, m, x, h);
  skip[0] = u3_apply_block(p, &m->style, &s->encode[0], x);
  for (int32_t i = 1; i < 4; i++) skip[i] = u3_apply_block(p, &m->style, &s->encode[i], &h[i - 1]);
  skip[4] = h[3];
  for (int32_t i = 0; i < 4; i++) u3_tap(p, &skip[i], "encoder", i + 1);
  nn_map y = u3_apply_block(p, &m->style, &s->encode[4], &h[4]);
  u3_tap(p, &y, "encoder10", -1);
  for (int32_t i = 0; i < 5; i++) {
    nn_map up = nn_apply_conv(p, &s->up[i], 0, &y);
    up = u3_join(p, &up, &skip[4 - i]);
    y = u3_apply_block(p, &m->style, &s->decode[i], &up);
    u3_tap(p, &y, "decoder", 5 - i);
  }
  return nn_apply_conv(p, &m->out, 0, &y);
}

const struct u3_family u3_swinunetr = {"SwinUNETR", config, tables, network};
