/* BasicUNet: two units on each of five levels, halved by pooling.
 *
 *   down_i: max pool 2, two units;  upcat_i: up x2, replicate at the far end where the skip is larger,
 *   two units over [skip, up]
 *
 * Official: monai/networks/nets/basic_unet.py. */
#include <stdio.h>
#include <string.h>

#include "unet3d/unet3d.h"

static void config(nn_config *k, struct u3_model *m) {
  struct u3_basicunet *b = &m->as.basicunet;
  static const int32_t usual[] = {32, 32, 64, 128, 256, 32};
  m->style = (struct u3_style){
      .norm = U3_INSTANCE, .affine = true, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.1f};
  u3_read_norm(k, "norm", &m->style);
  u3_read_act(k, "act", &m->style);
  memcpy(b->features, usual, sizeof usual);
  if (nn_key(k, "features") && nn_ints(k, "features", b->features, 6, 1, 1 << 14) != 6 &&
      !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "features must be six numbers");
  b->bias = nn_flag(k, "bias", true);
  viv_str up = nn_text(k, "upsample", "deconv");
  b->interpolate = nn_is(up, "nontrainable");
  if (!b->interpolate && !nn_is(up, "deconv") && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "upsample must be deconv or nontrainable");
}

static void load_two(nn_loader *l, const struct u3_model *m, const char *prefix, int32_t in,
                     int32_t out, struct u3_unit unit[2]) {
  for (int i = 0; i < 2; i++) {
    nn_conv_spec spec = {
        .in = i ? out : in, .out = out, .kernel = 3, .pad = 1, .bias = m->as.basicunet.bias};
    size_t outer = nn_in(l, "%sconv_%d.", prefix, i);
    u3_load_unit(l, &m->style, "conv", "adn.N", spec, &unit[i]);
    nn_out(l, outer);
  }
}

static void tables(nn_loader *l, void *model) {
  struct u3_model *m = model;
  struct u3_basicunet *b = &m->as.basicunet;
  static const int32_t two[] = {2, 2, 2};
  const int32_t *f = b->features;
  load_two(l, m, "conv_0.", m->in_channels, f[0], b->down[0]);
  for (int i = 1; i < 5; i++) {
    char name[24];
    snprintf(name, sizeof name, "down_%d.convs.", i);
    load_two(l, m, name, f[i - 1], f[i], b->down[i]);
  }
  for (int i = 0; i < 4; i++) {
    int level = 4 - i; /* upcat_4 first */
    int32_t in = f[level], up = level > 1 ? in / 2 : in, out = level > 1 ? f[level - 1] : f[5];
    char name[32];
    size_t outer = nn_in(l, "upcat_%d.", level);
    if (!b->interpolate)
      u3_load_up(l, "upsample.deconv", in, up, two, true, &b->up[i]);
    else if (in != up)
      u3_load_point(l, "upsample.preconv", in, up, true, &b->up[i]);
    snprintf(name, sizeof name, "convs.");
    load_two(l, m, name, up + f[level - 1], out, b->decode[i]);
    nn_out(l, outer);
  }
  u3_load_point(l, "final_conv", f[5], m->classes, true, &m->out);
}

static nn_map twice(nn_pass *p, const struct u3_model *m, const struct u3_unit unit[2],
                    const nn_map *x) {
  nn_map y = u3_apply_unit(p, &m->style, &unit[0], true, x);
  return u3_apply_unit(p, &m->style, &unit[1], true, &y);
}

static nn_map halved(nn_pass *p, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int32_t size[3];
  for (int i = 0; i < 3; i++) {
    size[i] = x->size[i] / 2;
    if (size[i] < 1)
      nn_stop(p, VIV_BAD_INPUT, "size", "a volume of %d x %d x %d is too small on level 1 to 4",
              (int)x->size[0], (int)x->size[1], (int)x->size[2]);
  }
  nn_map y = nn_new_map(p, x->batch, x->channels, 3, size, VIV_CHANNELS_LAST);
  viv_pool a = {.struct_size = sizeof a,
                .kind = VIV_POOL_MAX,
                .dims = 3,
                .channels = x->channels,
                .batch = x->batch,
                .size = {x->size[0], x->size[1], x->size[2]},
                .kernel = {2, 2, 2},
                .stride = {2, 2, 2},
                .dilation = {1, 1, 1},
                .x = x->x,
                .out = y.x};
  c->pool(c, &a);
  return y;
}

/* x with its last rows repeated up to a size that is larger by at most one. */
static nn_map grown(nn_pass *p, const nn_map *x, const int32_t size[3]) {
  bool same = true;
  for (int i = 0; i < 3; i++) {
    same = same && x->size[i] == size[i];
    if (size[i] < x->size[i] || size[i] > x->size[i] + 1)
      nn_stop(p, VIV_BUG, "size", "%d came up as %d", (int)size[i], (int)x->size[i]);
  }
  if (same) return *x;
  nn_map y = nn_new_map(p, x->batch, x->channels, 3, size, VIV_CHANNELS_LAST);
  int64_t d = x->channels, rows = nn_space(&y), from[3];
  for (int64_t b = 0; b < x->batch; b++)
    for (int64_t i = 0; i < rows; i++) {
      int64_t at[3] = {i / ((int64_t)size[1] * size[2]), i / size[2] % size[1], i % size[2]};
      for (int k = 0; k < 3; k++) from[k] = at[k] < x->size[k] ? at[k] : x->size[k] - 1;
      int64_t cell = (from[0] * x->size[1] + from[1]) * x->size[2] + from[2];
      memcpy(y.x + (b * rows + i) * d, x->x + (b * nn_space(x) + cell) * d,
             (size_t)d * sizeof *y.x);
    }
  return y;
}

static nn_map raised(nn_pass *p, const struct u3_basicunet *b, const nn_conv *up, const nn_map *x) {
  if (!b->interpolate) return nn_apply_conv(p, up, 0, x);
  nn_map y = up->w ? nn_apply_conv(p, up, 0, x) : *x;
  int32_t size[3] = {2 * x->size[0], 2 * x->size[1], 2 * x->size[2]};
  return nn_resize_map(p, VIV_LINEAR, true, size, &y);
}

static nn_map network(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  const struct u3_basicunet *b = &m->as.basicunet;
  nn_map skip[5];
  for (int i = 0; i < 5; i++) {
    nn_map in = i ? halved(p, &skip[i - 1]) : *x;
    nn_pass_poll(p);
    skip[i] = twice(p, m, b->down[i], &in);
    if (i) u3_tap(p, &skip[i], "down_", i);
  }
  nn_map y = skip[4];
  for (int i = 0; i < 4; i++) {
    nn_map up = raised(p, b, &b->up[i], &y);
    nn_pass_poll(p);
    up = grown(p, &up, skip[3 - i].size);
    up = u3_join(p, &skip[3 - i], &up);
    y = twice(p, m, b->decode[i], &up);
    u3_tap(p, &y, "upcat_", 4 - i);
  }
  return nn_apply_conv(p, &m->out, 0, &y);
}

const struct u3_family u3_basicunet = {"BasicUNet", config, tables, network};
