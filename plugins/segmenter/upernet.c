/* UPerNet over CAE's transformer: all of a pyramid's levels that one stride of patches can give.
 *
 *   picture -> windows of the crop size, the last ones shifted back inside; each:
 *     tokens + positions -> blocks -> those of out_indices as maps at 1/p of the crop
 *     -> levels at 1/4, 1/8, 1/16, 1/32 of it: transposed convolutions, itself, largest values
 *     -> deepest: [x, means over s x s bins, 1x1, resized] -> 3x3                "psp"
 *     -> 1x1 each, summed from the deepest up, 3x3 each, resized to the finest and joined
 *     -> 3x3 -> classes -> resized to the crop
 *   logits = the mean over the windows that hold a pixel
 *
 * Xiao et al., arXiv:1807.10221; Chen et al., arXiv:2202.03026. Official: CAE's segmentation in
 * mmsegmentation (EncoderDecoder, UPerHead, slide inference). Every convolution of the head but the
 * last is followed by a batch norm, folded in, and ReLU. */
#include <stdio.h>
#include <string.h>

#include "nn/vit.h"
#include "segmenter/segmenter.h"

enum { LEVELS = 4, LAYERS = 64, POOLS = 8 };

struct upernet {
  struct segmenter_model base;
  nn_vit net;
  nn_vit_names names;
  nn_vit_block block[LAYERS];
  int32_t taken[LEVELS]; /* blocks whose tokens become maps */
  int32_t pools[POOLS], n_pools;
  int32_t channels, crop[2], stride[2];
  nn_conv up[3]; /* fpn1.0, fpn1.3, fpn2.0 */
  nn_conv pool[POOLS], psp, lateral[LEVELS - 1], smooth[LEVELS - 1], join, classify;
};
_Static_assert(sizeof(struct upernet) <= SEGMENTER_MODEL_BYTES, "plan's room");

/* ---- configuration and weights ---- */

static void read_windows(nn_config *k, struct upernet *m) {
  const nn_vit_config *c = &m->net.config;
  int32_t crop = nn_ints(k, "crop_size", m->crop, 2, 1, 1 << 13);
  int32_t stride = nn_ints(k, "stride", m->stride, 2, 1, 1 << 13);
  for (int i = 0; i < 2 && !k->status; i++) {
    if (crop != 2) m->crop[i] = c->image[i];
    if (stride != 2) m->stride[i] = m->crop[i] * 2 / 3;
    if (m->crop[i] != c->image[i] || m->stride[i] < 1)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                          "crop_size must be img_size, whose positions the model has, and stride "
                          "at least 1");
  }
}

static void config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  struct upernet *m = (struct upernet *)(void *)base;
  nn_vit_config *c = &m->net.config;
  nn_vit_read_cae(k, source, "backbone.", c);
  m->names = nn_vit_cae_names;
  if (!nn_flag(k, "out_with_norm", false)) m->names.norm = NULL;
  c->names = &m->names;
  m->net.block = m->block;
  int32_t n = nn_ints(k, "out_indices", m->taken, LEVELS, 0, LAYERS - 1);
  for (int i = 0; i < LEVELS && !k->status; i++)
    if (n != LEVELS || m->taken[i] >= c->layers || c->layers > LAYERS ||
        (i && m->taken[i] <= m->taken[i - 1]))
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                          "out_indices must be four of the %d blocks, ascending, of at most %d",
                          (int)c->layers, (int)LAYERS);
  if (!k->status && (c->patch[0] != c->patch[1] || (c->patch[0] != 8 && c->patch[0] != 16)))
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "patch_size is %d, the pyramid has 8 or 16",
                        (int)c->patch[0]);
  m->channels = (int32_t)nn_int(k, "channels", 512, 1, 1 << 14);
  m->n_pools = nn_key(k, "pool_scales") ? nn_ints(k, "pool_scales", m->pools, POOLS, 1, 64) : 0;
  for (int i = 0; i < 4 && !nn_key(k, "pool_scales"); i++, m->n_pools++)
    m->pools[i] = (const int32_t[]){1, 2, 3, 6}[i];
  read_windows(k, m);
  base->classes = nn_axis(k->host, source, "decode_head.conv_seg.weight", 0, 1);
  base->prepare.resize = true;
  base->prepare.shortest = m->crop[0] > m->crop[1] ? m->crop[0] : m->crop[1];
}

/* name.conv without a bias, name.bn. */
static void load_cbr(nn_loader *l, const char *name, int32_t in, int32_t out, int32_t kernel,
                     nn_conv *conv) {
  nn_conv_spec c = {.in = in, .out = out, .kernel = kernel, .pad = kernel / 2, .norm = "bn"};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, "conv", &c, conv);
  nn_out(l, outer);
}

static void load_head(nn_loader *l, struct upernet *m) {
  int32_t d = (int32_t)m->net.config.d, c = m->channels;
  char name[48];
  for (int32_t i = 0; i < m->n_pools; i++) {
    snprintf(name, sizeof name, "psp_modules.%d.1", (int)i);
    load_cbr(l, name, d, c, 1, &m->pool[i]);
  }
  load_cbr(l, "bottleneck", d + m->n_pools * c, c, 3, &m->psp);
  for (int32_t i = 0; i < LEVELS - 1; i++) {
    snprintf(name, sizeof name, "lateral_convs.%d", (int)i);
    load_cbr(l, name, d, c, 1, &m->lateral[i]);
    snprintf(name, sizeof name, "fpn_convs.%d", (int)i);
    load_cbr(l, name, c, c, 3, &m->smooth[i]);
  }
  load_cbr(l, "fpn_bottleneck", LEVELS * c, c, 3, &m->join);
  nn_conv_spec last = {.in = c, .out = (int32_t)m->base.classes, .kernel = 1, .bias = true};
  nn_load_conv(l, "conv_seg", &last, &m->classify);
}

static void tables(nn_loader *l, void *model) {
  struct upernet *m = model;
  int32_t d = (int32_t)m->net.config.d;
  nn_conv_spec up = {.in = d, .out = d, .kernel = 2, .stride = 2, .bias = true, .transposed = true};
  nn_at(l, "backbone.");
  nn_vit_load(l, &m->net);
  if (m->net.config.patch[0] == 16) {
    nn_load_conv(l, "fpn1.3", &up, &m->up[1]);
    nn_load_conv(l, "fpn2.0", &up, &m->up[2]);
    up.norm = "fpn1.1";
  }
  nn_load_conv(l, "fpn1.0", &up, &m->up[0]);
  nn_at(l, "decode_head.");
  load_head(l, m);
  nn_at(l, "%s", "");
  nn_ignore(l, "auxiliary_head.*"); /* training only */
  nn_ignore(l, "*relative_position_index");
}

/* ---- the backbone ---- */

/* Tokens [B, 1 + cells, d] as a map, the class token left out. */
static nn_map map_of(nn_pass *p, const struct upernet *m, const float *x, int32_t batch) {
  const nn_vit_config *c = &m->net.config;
  nn_map y = nn_new_map(p, batch, (int32_t)c->d, 2, c->grid, VIV_CHANNELS_LAST);
  int64_t part = nn_space(&y) * c->d;
  for (int32_t b = 0; b < batch; b++)
    memcpy(y.x + b * part, x + b * (part + c->d) + c->d, (size_t)part * sizeof *x);
  if (m->names.norm) nn_layer_norm(p, &m->net.norm, y.x, batch * nn_space(&y), y.x);
  return y;
}

static nn_map level_of(nn_pass *p, const struct upernet *m, int32_t level, const nn_map *x) {
  int32_t at = level - (m->net.config.patch[0] == 8); /* 1/8 of the picture is level 1 */
  nn_map y;
  switch (at) {
  case -1:
    return nn_apply_conv(p, &m->up[0], 0, x);
  case 0:
    if (m->net.config.patch[0] == 8) return *x;
    y = nn_apply_conv(p, &m->up[0], VIV_GELU, x);
    return nn_apply_conv(p, &m->up[1], 0, &y);
  case 1:
    if (m->net.config.patch[0] == 16) return nn_apply_conv(p, &m->up[2], 0, x);
    return nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, x);
  default:
    break;
  }
  if (m->net.config.patch[0] == 8) return nn_pool2d(p, VIV_POOL_MAX, 4, 4, 0, false, x);
  return at == 2 ? *x : nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, x);
}

static void backbone(nn_pass *p, const struct upernet *m, const nn_map *crop, bool taps,
                     nn_map level[LEVELS]) {
  const nn_vit *net = &m->net;
  nn_vit_grid grid = {net->config.grid[0], net->config.grid[1]};
  int64_t n = 1 + (int64_t)grid.height * grid.width;
  float *x = nn_vit_embed(p, net, crop->x, crop->batch, crop->size[0], crop->size[1]);
  for (int32_t i = 0, at = 0; at < LEVELS; i++) {
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    const float *bias = nn_vit_relative_bias(p, net, i, grid);
    nn_vit_block_biased(p, net, i, crop->batch, n, bias, x);
    if (taps) nn_tap(p, x, NN_DIMS(crop->batch, n, net->config.d), "blocks.%d", (int)i);
    nn_release(p, mark);
    if (i != m->taken[at]) continue;
    nn_map y = map_of(p, m, x, crop->batch);
    level[at] = level_of(p, m, at, &y);
    if (taps) segmenter_tap(p, &level[at], "backbone.%d", (int)at);
    at++;
  }
}

/* ---- the head ---- */

/* Means over s x s bins, which share cells where the sizes don't divide. Official: torch's
 * adaptive_avg_pool2d. */
static nn_map bins(nn_pass *p, const nn_map *x, int32_t s) {
  int32_t size[2] = {s, s}, h = x->size[0], w = x->size[1], d = x->channels;
  nn_map y = nn_new_map(p, x->batch, d, 2, size, VIV_CHANNELS_LAST);
  memset(y.x, 0, (size_t)nn_elements(&y) * sizeof *y.x);
  for (int32_t b = 0; b < x->batch; b++)
    for (int32_t t = 0; t < s * s; t++) {
      int32_t i = t / s, j = t % s, top = i * h / s, left = j * w / s;
      int32_t bottom = ((i + 1) * h + s - 1) / s, right = ((j + 1) * w + s - 1) / s;
      float *to = y.x + ((int64_t)b * s * s + t) * d;
      for (int32_t r = top; r < bottom; r++)
        for (int32_t c = left; c < right; c++)
          for (int32_t e = 0; e < d; e++) to[e] += x->x[(((int64_t)b * h + r) * w + c) * d + e];
      for (int32_t e = 0; e < d; e++) to[e] /= (float)((bottom - top) * (right - left));
    }
  return y;
}

/* Classes at the finest level's size. */
static nn_map head(nn_pass *p, const struct upernet *m, const nn_map *level, bool taps) {
  const viv_compute *c = nn_compute_of(p);
  nn_map part[POOLS + 1], side[LEVELS];
  const nn_map *deep = &level[LEVELS - 1];
  part[0] = *deep;
  for (int32_t i = 0; i < m->n_pools; i++) {
    nn_map y = bins(p, deep, m->pools[i]);
    y = nn_apply_conv(p, &m->pool[i], VIV_RELU, &y);
    part[1 + i] = nn_resize_map(p, VIV_LINEAR, false, deep->size, &y);
  }
  nn_map y = nn_join_channels(p, 1 + m->n_pools, part);
  side[LEVELS - 1] = nn_apply_conv(p, &m->psp, VIV_RELU, &y);
  if (taps) segmenter_tap(p, &side[LEVELS - 1], "head.psp");
  for (int32_t i = LEVELS - 2; i >= 0; i--) {
    side[i] = nn_apply_conv(p, &m->lateral[i], VIV_RELU, &level[i]);
    nn_map above = nn_resize_map(p, VIV_LINEAR, false, side[i].size, &side[i + 1]);
    c->add(c, side[i].x, above.x, nn_elements(&above));
  }
  for (int32_t i = 0; i < LEVELS; i++) {
    if (i < LEVELS - 1) side[i] = nn_apply_conv(p, &m->smooth[i], VIV_RELU, &side[i]);
    if (i) side[i] = nn_resize_map(p, VIV_LINEAR, false, side[0].size, &side[i]);
  }
  y = nn_join_channels(p, LEVELS, side);
  y = nn_apply_conv(p, &m->join, VIV_RELU, &y);
  if (taps) segmenter_tap(p, &y, "head.fpn_bottleneck");
  y = nn_apply_conv(p, &m->classify, 0, &y);
  if (taps) segmenter_tap(p, &y, "head.first_crop");
  return y;
}

/* ---- windows ---- */

static nn_map cut(nn_pass *p, const nn_map *x, const int32_t at[2], const int32_t size[2]) {
  nn_map y = nn_new_map(p, x->batch, x->channels, 2, size, VIV_CHANNELS_FIRST);
  for (int32_t plane = 0; plane < x->batch * x->channels; plane++)
    for (int32_t r = 0; r < size[0]; r++)
      memcpy(y.x + ((int64_t)plane * size[0] + r) * size[1],
             x->x + ((int64_t)plane * x->size[0] + at[0] + r) * x->size[1] + at[1],
             (size_t)size[1] * sizeof *y.x);
  return y;
}

static nn_map network(nn_pass *p, const nn_map *x, bool extras) {
  const struct upernet *m = nn_net_of(p);
  int32_t n[2];
  (void)extras;
  for (int i = 0; i < 2; i++) {
    if (x->size[i] < m->crop[i])
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "%d x %d pixels, but each side must have those of a window of %d x %d",
              (int)x->size[1], (int)x->size[0], (int)m->crop[1], (int)m->crop[0]);
    n[i] = (x->size[i] - m->crop[i] + m->stride[i] - 1) / m->stride[i] + 1;
  }
  nn_map sum = nn_new_map(p, x->batch, (int32_t)m->base.classes, 2, x->size, VIV_CHANNELS_LAST);
  float *count = nn_room(p, nn_space(&sum)); /* windows that hold a pixel */
  memset(sum.x, 0, (size_t)nn_elements(&sum) * sizeof *sum.x);
  memset(count, 0, (size_t)nn_space(&sum) * sizeof *count);
  for (int32_t w = 0; w < n[0] * n[1]; w++) {
    nn_mark mark = nn_here(p);
    nn_map level[LEVELS];
    int32_t at[2] = {w / n[1] * m->stride[0], w % n[1] * m->stride[1]};
    for (int i = 0; i < 2; i++)
      if (at[i] > x->size[i] - m->crop[i]) at[i] = x->size[i] - m->crop[i];
    nn_map crop = cut(p, x, at, m->crop);
    backbone(p, m, &crop, w == 0, level);
    nn_map y = head(p, m, level, w == 0);
    y = nn_resize_map(p, VIV_LINEAR, false, m->crop, &y);
    int64_t row = (int64_t)m->crop[1] * y.channels;
    for (int32_t b = 0; b < y.batch; b++)
      for (int32_t r = 0; r < m->crop[0]; r++) {
        int64_t place = (int64_t)(at[0] + r) * x->size[1] + at[1];
        float *to = sum.x + (b * nn_space(&sum) + place) * y.channels;
        const float *from = y.x + ((int64_t)b * m->crop[0] + r) * row;
        for (int64_t i = 0; i < row; i++) to[i] += from[i];
        for (int32_t i = 0; !b && i < m->crop[1]; i++) count[place + i]++;
      }
    nn_release(p, mark);
    nn_progress(p, (double)(w + 1) / (n[0] * n[1]));
  }
  for (int64_t i = 0; i < sum.batch * nn_space(&sum); i++)
    for (int32_t e = 0; e < sum.channels; e++)
      sum.x[i * sum.channels + e] /= count[i % nn_space(&sum)];
  return nn_to_layout(p, &sum, VIV_CHANNELS_FIRST);
}

const struct segmenter_variant segmenter_upernet = {.model_type = "cae",
                                                    .architecture = "EncoderDecoder",
                                                    .bytes = sizeof(struct upernet),
                                                    .config = config,
                                                    .tables = tables,
                                                    .network = network};
