/* The projector of LW-DETR and RF-DETR: a vision transformer's maps, all of one size, to a pyramid.
 *
 *   scale 2:    each map by a transposed 2x2 of stride 2 to half the channels (more than 512: first
 *               1x1 to the half, then to the quarter)
 *   scale 1:    each map as it is
 *   scale 0.5:  each map by a 3x3 of stride 2
 *   C2f: [a, b] = one(join of the maps);  m_j = b_j(a_j(m_(j-1))), m_0 = b
 *        y = LN(two([a, b, m_1, ..]))
 *
 * Official: Atten4Vis/LW-DETR, models/backbone/projector.py; roboflow/rf-detr. */
#include <string.h>

#include "detr/neck.h"

enum { WIDE = 512 };

/* ---- configuration ---- */

void detr_read_projector(nn_config *k, struct detr_projector *j) {
  double factor = 1, expansion = nn_num(k, "hidden_expansion", 0.5, 0.001, 16);
  const viv_json *list = nn_key(k, "projector_scale_factors");
  j->out = (int32_t)nn_int(k, "d_model", 256, 4, 1 << 14);
  j->blocks = (int32_t)nn_int(k, "c2f_num_blocks", 3, 1, DETR_C2F_BLOCKS);
  j->act = nn_activation(k, "activation_function", "silu");
  j->inner = (int32_t)(j->out * expansion);
  int64_t n = list ? k->host->json_count(list) : 1;
  if (!k->status && (n < 1 || n > DETR_MAX_LEVELS || j->inner < 1))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "projector_scale_factors lists %lld, but 1 to %d are expected",
                        (long long)n, DETR_MAX_LEVELS);
  for (int64_t i = 0; i < n && !k->status; i++) {
    if (list) factor = k->host->json_number(k->host->json_item(list, i));
    j->scale[i].factor = factor;
    if (factor != 2 && factor != 1 && factor != 0.5)
      k->status = nn_fail(k->error, VIV_NEVER, k->where,
                          "projector_scale_factors has %g: 2, 1 and 0.5 are computed here", factor);
  }
  j->scales = (int32_t)n;
}

/* ---- weights ---- */

static void load_normed(nn_loader *l, const struct detr_projector *j, const char *name,
                        nn_conv_spec s, struct detr_normed *w) {
  const char *norm = j->original ? "bn" : "norm";
  s.pad = s.kernel / 2;
  s.norm = j->layer_norms ? NULL : norm;
  s.norm_eps = j->eps;
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, "conv", &s, &w->conv);
  if (j->layer_norms) nn_load_norm(l, norm, s.out, j->eps, &w->norm);
  nn_out(l, outer);
}

/* Answers the channels of one sampled map. */
static int32_t load_sampling(nn_loader *l, const struct detr_projector *j, struct detr_scale *w) {
  int32_t in = j->in, out = in;
  if (w->factor == 1) return in;
  for (int32_t i = 0; i < j->features; i++) {
    size_t outer = nn_in(l, "sampling_layers.%d.layers.", (int)i);
    if (w->factor < 1) {
      nn_conv_spec s = {.in = in, .out = in, .kernel = 3, .stride = 2};
      load_normed(l, j, "0", s, &w->sample[i]);
    } else {
      bool wide = in > WIDE;
      out = wide ? in / 4 : in / 2;
      nn_conv_spec narrow = {.in = in, .out = in / 2, .kernel = 1};
      if (wide) load_normed(l, j, "0", narrow, &w->narrow[i]);
      nn_conv_spec up = {.in = wide ? in / 2 : in,
                         .out = out,
                         .kernel = 2,
                         .stride = 2,
                         .bias = true,
                         .transposed = true};
      nn_load_conv(l, wide ? "1" : "0", &up, &w->sample[i].conv);
    }
    nn_out(l, outer);
  }
  return out;
}

static void load_c2f(nn_loader *l, const struct detr_projector *j, int32_t in,
                     struct detr_scale *w) {
  const char *one = j->original ? "cv1" : "conv1", *two = j->original ? "cv2" : "conv2";
  nn_conv_spec first = {.in = in, .out = 2 * j->inner, .kernel = 1};
  nn_conv_spec last = {.in = (2 + j->blocks) * j->inner, .out = j->out, .kernel = 1};
  nn_conv_spec inner = {.in = j->inner, .out = j->inner, .kernel = 3};
  load_normed(l, j, one, first, &w->one);
  load_normed(l, j, two, last, &w->two);
  for (int32_t i = 0; i < j->blocks; i++) {
    size_t outer = nn_in(l, "%s.%d.", j->original ? "m" : "bottlenecks", (int)i);
    load_normed(l, j, one, inner, &w->a[i]);
    load_normed(l, j, two, inner, &w->b[i]);
    nn_out(l, outer);
  }
}

void detr_load_projector(nn_loader *l, struct detr_projector *j) {
  for (int32_t i = 0; i < j->scales; i++) {
    struct detr_scale *w = &j->scale[i];
    size_t outer = nn_in(l, "%s.%d.", j->original ? "stages" : "scale_layers", (int)i);
    int32_t in = load_sampling(l, j, w) * j->features;
    size_t inside = nn_in(l, "%s", j->original ? "0." : "projector_layer.");
    load_c2f(l, j, in, w);
    nn_out(l, inside);
    nn_load_norm(l, j->original ? "1" : "layer_norm", j->out, 1e-6f, &w->norm);
    nn_out(l, outer);
  }
}

/* ---- the pass ---- */

static nn_map normed(nn_pass *p, const struct detr_normed *w, int32_t act, const nn_map *x) {
  if (!w->norm.w) return nn_apply_conv(p, &w->conv, act, x);
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_apply_conv(p, &w->conv, 0, x);
  nn_layer_norm(p, &w->norm, y.x, nn_space(&y) * y.batch, y.x);
  c->unary(c, act, y.x, y.x, nn_elements(&y));
  return y;
}

static nn_map sampled(nn_pass *p, const struct detr_scale *w, int32_t i, const nn_map *x) {
  if (w->factor == 1) return *x;
  if (w->factor < 1) return normed(p, &w->sample[i], VIV_RELU, x);
  nn_map y = w->narrow[i].conv.w ? normed(p, &w->narrow[i], VIV_RELU, x) : *x;
  return nn_apply_conv(p, &w->sample[i].conv, 0, &y);
}

static nn_map c2f(nn_pass *p, const struct detr_projector *j, const struct detr_scale *w,
                  const nn_map *x) {
  nn_map parts[1 + DETR_C2F_BLOCKS];
  nn_map both = normed(p, &w->one, j->act, x); /* a and b side by side */
  if (j->scales == 1) detr_tap_map(p, &both, "projector.cv1");
  nn_map m = detr_cut_map(p, &both, j->inner, j->inner);
  parts[0] = both;
  for (int32_t i = 0; i < j->blocks; i++) {
    m = normed(p, &w->a[i], j->act, &m);
    m = normed(p, &w->b[i], j->act, &m);
    parts[1 + i] = m;
  }
  nn_map all = detr_join_maps(p, parts, 1 + j->blocks);
  return normed(p, &w->two, j->act, &all);
}

void detr_apply_projector(nn_pass *p, const struct detr_projector *j, const nn_map *maps,
                          nn_map *out) {
  for (int32_t s = 0; s < j->scales; s++) {
    const struct detr_scale *w = &j->scale[s];
    nn_map part[DETR_MAX_FEATURES];
    nn_pass_poll(p);
    for (int32_t i = 0; i < j->features; i++) part[i] = sampled(p, w, i, &maps[i]);
    nn_map joined = detr_join_maps(p, part, j->features);
    out[s] = c2f(p, j, w, &joined);
    nn_layer_norm(p, &w->norm, out[s].x, nn_space(&out[s]) * out[s].batch, out[s].x);
    detr_tap_map(p, &out[s], "projector.%d", (int)s);
    if (j->scales == 1) detr_tap_map(p, &out[s], "projector");
  }
}

/* ---- windows ---- */

nn_map detr_window_map(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                       int64_t extra, int64_t d) {
  int32_t size[2] = {grid.height, grid.width};
  int64_t windows = batch * side * side;
  int64_t n = (int64_t)grid.height * grid.width / (side * side);
  nn_map map = nn_new_map(p, (int32_t)batch, (int32_t)d, 2, size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  float *plain = nn_room(p, windows * n * d);
  for (int64_t i = 0; i < windows; i++)
    memcpy(plain + i * n * d, x + (i * (n + extra) + extra) * d, (size_t)(n * d) * sizeof *plain);
  nn_vit_unwindows(p, plain, batch, grid, side, d, map.x);
  nn_release(p, mark);
  return map;
}

nn_vit_grid detr_window_grid(nn_pass *p, const nn_vit *vit, const struct detr_batch *batch,
                             int32_t side) {
  nn_vit_grid grid = nn_vit_grid_of(p, vit, batch->height, batch->width);
  const int32_t *patch = vit->config.patch;
  if (grid.height % side || grid.width % side)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values",
            "%d x %d pixels: the sides must be multiples of %d and %d (%d windows of patches)",
            (int)batch->height, (int)batch->width, (int)(patch[0] * side), (int)(patch[1] * side),
            (int)(side * side));
  return grid;
}
