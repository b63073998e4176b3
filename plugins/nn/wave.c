/* Convolutions over samples, positions by convolution. */
#include "nn/wave.h"

#include <stdio.h>

/* ---- config.json ---- */

static void read_list(nn_config *k, const char *key, int32_t n, int32_t *out, int64_t hi) {
  int32_t have = nn_ints(k, key, out, NN_WAVE_MAX, 1, hi);
  if (!k->status && have != n)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s has %d entries, but conv_dim has %d",
                        key, (int)have, (int)n);
}

void nn_wave_read(nn_config *k, int64_t d, nn_wave_config *c) {
  *c = (nn_wave_config){.d = d};
  c->layers = nn_ints(k, "conv_dim", c->dim, NN_WAVE_MAX, 1, 1 << 16);
  if (!k->status && c->layers < 1)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "conv_dim names no convolution");
  read_list(k, "conv_kernel", c->layers, c->kernel, 1 << 12);
  read_list(k, "conv_stride", c->layers, c->stride, 1 << 12);
  viv_str norm = nn_text(k, "feat_extract_norm", "group");
  c->frame_norm = nn_is(norm, "layer");
  if (!k->status && !c->frame_norm && !nn_is(norm, "group"))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "feat_extract_norm is \"%.*s\", but must be group or layer", (int)norm.len,
                        norm.ptr);
  c->bias = nn_flag(k, "conv_bias", false);
  c->projection_norm = nn_flag(k, "feat_proj_layer_norm", true);
  c->act = nn_activation(k, "feat_extract_activation", "gelu");
  c->eps = (float)nn_num(k, "layer_norm_eps", 1e-5, 0, 1);
  c->pos_kernel = (int32_t)nn_int(k, "num_conv_pos_embeddings", 128, 1, 1 << 14);
  c->pos_groups = (int32_t)nn_int(k, "num_conv_pos_embedding_groups", 16, 1, 1 << 14);
  nn_divides(k, d, c->pos_groups, "hidden_size and num_conv_pos_embedding_groups");
  if (!k->status && nn_flag(k, "conv_pos_batch_norm", false))
    k->status =
        nn_fail(k->error, VIV_NEVER, k->where,
                "conv_pos_batch_norm is true; positions with a batch norm are not computed");
}

/* ---- loading ---- */

void nn_load_wave(nn_loader *l, const nn_wave_config *c, const char *extractor, nn_wave *w) {
  for (int32_t i = 0; i < c->layers; i++) {
    size_t outer = nn_in(l, "%s.conv_layers.%d.", extractor, (int)i);
    nn_conv_spec s = {.dims = 1,
                      .in = i ? c->dim[i - 1] : 1,
                      .out = c->dim[i],
                      .kernel = c->kernel[i],
                      .stride = c->stride[i],
                      .bias = c->bias};
    nn_load_conv(l, "conv", &s, &w->conv[i]);
    if (c->frame_norm || !i) nn_load_norm(l, "layer_norm", c->dim[i], 1e-5f, &w->norm[i]);
    nn_out(l, outer);
  }
  int32_t last = c->dim[c->layers - 1];
  if (c->projection_norm)
    nn_load_norm(l, "feature_projection.layer_norm", last, c->eps, &w->projection_norm);
  nn_load_linear(l, "feature_projection.projection", c->d, last, true, &w->projection);
}

void nn_load_pos_conv(nn_loader *l, const char *name, int64_t d, int32_t kernel, int32_t groups,
                      nn_conv *conv) {
  nn_conv_spec s = {.dims = 1,
                    .in = (int32_t)d,
                    .out = (int32_t)d,
                    .kernel = kernel,
                    .groups = groups,
                    .bias = true,
                    .weight_norm = true,
                    .norm_axis = 2};
  nn_load_conv(l, name, &s, conv);
}

/* ---- in a pass ---- */

int64_t nn_wave_frames(const nn_wave_config *c, int64_t samples) {
  for (int32_t i = 0; i < c->layers; i++) {
    if (samples < c->kernel[i]) return 0;
    samples = (samples - c->kernel[i]) / c->stride[i] + 1;
  }
  return samples;
}

/* [rows, channels, frames], as PyTorch has it. */
static void tap_map(nn_pass *p, const nn_map *map, const char *prefix, int32_t i) {
  if (!nn_taps(p, "%sconv.%d", prefix, (int)i)) return;
  nn_mark mark = nn_here(p);
  nn_map first = nn_to_layout(p, map, VIV_CHANNELS_FIRST);
  nn_tap(p, first.x, NN_DIMS(map->batch, map->channels, map->size[0]), "%sconv.%d", prefix, (int)i);
  nn_release(p, mark);
}

float *nn_wave_encode(nn_pass *p, const nn_wave_config *c, const nn_wave *w, const char *name,
                      const float *x, int64_t rows, int64_t samples, const char *prefix) {
  const viv_compute *k = nn_compute_of(p);
  int64_t frames = nn_wave_frames(c, samples);
  if (frames < 1)
    nn_stop(p, VIV_BAD_INPUT, name, "%lld samples are too few for one frame of this model",
            (long long)samples);
  if (samples > INT32_MAX || rows > INT32_MAX)
    nn_stop(p, VIV_BAD_INPUT, name, "%lld samples are too many for one pass", (long long)samples);
  float *out = nn_room(p, rows * frames * c->d);
  nn_mark mark = nn_here(p);
  nn_map map = {.x = (float *)(uintptr_t)x, /* read only */
                .batch = (int32_t)rows,
                .channels = 1,
                .dims = 1,
                .size = {(int32_t)samples, 1, 1},
                .layout = VIV_CHANNELS_LAST};
  for (int32_t i = 0; i < c->layers; i++) {
    nn_pass_poll(p);
    const nn_norm *norm = &w->norm[i];
    map = nn_apply_conv(p, &w->conv[i], norm->w ? 0 : c->act, &map);
    int64_t n = nn_elements(&map);
    if (norm->w && c->frame_norm)
      nn_layer_norm(p, norm, map.x, n / map.channels, map.x);
    else if (norm->w)
      k->group_norm(k, map.x, norm->w, norm->b, norm->eps, map.channels, rows, map.channels,
                    map.size[0], map.layout, map.x);
    if (norm->w) k->unary(k, c->act, map.x, map.x, n);
    tap_map(p, &map, prefix, i);
  }
  if (w->projection_norm.w) nn_layer_norm(p, &w->projection_norm, map.x, rows * frames, map.x);
  nn_linear_to(p, &w->projection, 0, NULL, map.x, rows * frames, out);
  nn_release(p, mark);
  nn_tap(p, out, NN_DIMS(rows, frames, c->d), "%sfeature_projection", prefix);
  return out;
}

float *nn_pos_conv(nn_pass *p, const nn_conv *conv, int32_t act, const float *x, int64_t rows,
                   int64_t length) {
  const viv_compute *k = nn_compute_of(p);
  float *out = nn_room(p, rows * length * conv->out);
  int32_t half = conv->kernel[0] / 2;
  viv_conv a = {.struct_size = sizeof a,
                .batch = (int32_t)rows,
                .weight = conv->w,
                .size = {(int32_t)length, 1, 1},
                .pad_begin = {half, 0, 0},
                .pad_end = {half - (conv->kernel[0] % 2 ? 0 : 1), 0, 0},
                .x_layout = VIV_CHANNELS_LAST,
                .out_layout = VIV_CHANNELS_LAST,
                .act = act,
                .x = x,
                .out = out};
  nn_mark mark = nn_here(p);
  a.scratch = nn_room(p, (int64_t)k->conv_scratch(k, &a));
  k->conv(k, &a);
  nn_release(p, mark);
  return out;
}
