/* Official: sinAshish/Multi-Scale-Attention, src/models/my_stacked_danet.py and attention.py. The
 * scales of the release count from 4, the deepest, to 1. */
#include "unet/daf.h"

#include <stdio.h>
#include <string.h>

#include "nn/dual_attention.h"

/* ---- weights ---- */

static void conv_prelu(nn_loader *l, const char *prefix, int32_t at, int32_t in, int32_t out,
                       int32_t kernel, struct daf_conv *w) {
  char conv[16], norm[16], slope[24];
  snprintf(conv, sizeof conv, "%d", (int)at);
  snprintf(norm, sizeof norm, "%d", (int)at + 1);
  snprintf(slope, sizeof slope, "%d.weight", (int)at + 2);
  nn_conv_spec spec = {
      .in = in, .out = out, .kernel = kernel, .pad = kernel / 2, .bias = true, .norm = norm};
  size_t outer = nn_in(l, "%s", prefix);
  nn_load_conv(l, conv, &spec, &w->conv);
  nn_load_tensor(l, slope, true, 1, (const int64_t[]){1}, &w->slope);
  nn_out(l, outer);
}

static void load_step(nn_loader *l, const char *prefix, int32_t in, int32_t out, bool up,
                      struct daf_step *w) {
  size_t outer = nn_in(l, "%s", prefix);
  for (int i = 0; i < 2; i++) {
    nn_conv_spec spec = {
        .in = i ? out : in, .out = out, .kernel = 3, .pad = 1, .bias = true, .norm = i ? "4" : "1"};
    nn_load_conv(l, i ? "3" : "0", &spec, &w->conv[i]);
  }
  nn_conv_spec twice = {
      .in = out, .out = out, .kernel = 2, .stride = 2, .bias = true, .transposed = true};
  if (up) nn_load_conv(l, "6", &twice, &w->up);
  nn_out(l, outer);
}

static void load_attention(nn_loader *l, const struct daf_model *m, bool places, int32_t stage,
                           int32_t scale, struct daf_attention *w) {
  int32_t d = m->width, inner = d / m->reduction;
  nn_conv_spec one = {.in = d, .out = inner, .kernel = 1, .bias = true};
  nn_conv_spec same = {.in = d, .out = d, .kernel = 1, .bias = true};
  size_t outer = nn_in(l, "%s_attention_%d_%d.", places ? "pam" : "cam", (int)stage, (int)scale);
  conv_prelu(l, "attn.", 0, 2 * d, d, 3, &w->in);
  if (places) {
    nn_load_conv(l, "attn.3.query_conv", &one, &w->query);
    nn_load_conv(l, "attn.3.key_conv", &one, &w->key);
    nn_load_conv(l, "attn.3.value_conv", &same, &w->value);
  }
  nn_load_tensor(l, "attn.3.gamma", true, 1, (const int64_t[]){1}, &w->gamma);
  conv_prelu(l, "attn.", 4, d, d, 3, &w->out);
  nn_out(l, outer);
}

static void load_stage(nn_loader *l, const struct daf_model *m, int32_t k, struct daf_stage *w) {
  int32_t d = m->width;
  nn_conv_spec guide = {.in = 2 * d, .out = d, .kernel = 3, .pad = 1, .bias = true};
  nn_conv_spec last = {.in = d, .out = d, .kernel = 1, .bias = true};
  size_t outer = nn_in(l, "semanticModule_%d_1.", (int)k);
  load_step(l, "enc1.encode.", 2 * d, 4 * d, false, &w->encode[0]);
  load_step(l, "enc2.encode.", 4 * d, 8 * d, false, &w->encode[1]);
  load_step(l, "dec2.decode.", 8 * d, 4 * d, true, &w->decode[0]);
  load_step(l, "dec1.decode.", 4 * d, 2 * d, true, &w->decode[1]);
  nn_out(l, outer);
  for (int32_t i = 0; i < DAF_SCALES; i++) {
    int32_t scale = i + 1, turn = DAF_SCALES - i; /* guides count from the deepest scale */
    char name[32];
    load_attention(l, m, true, k, scale, &w->places[i]);
    load_attention(l, m, false, k, scale, &w->channels[i]);
    snprintf(name, sizeof name, "conv_sem_%d_%d", (int)k, (int)turn);
    nn_load_conv(l, name, &guide, &w->guide[i]);
    snprintf(name, sizeof name, k == 1 ? "conv8_%d" : "conv8_1%d", (int)turn);
    nn_load_conv(l, name, &last, &w->last[i]);
  }
}

void daf_tables(nn_loader *l, void *model) {
  struct daf_model *m = model;
  int32_t d = m->width;
  nn_at(l, "%s", "resnext.");
  nn_load_resnet(l, &m->spec, &m->backbone);
  nn_at(l, "%s", "");
  for (int32_t i = 0; i < DAF_SCALES; i++) {
    char name[24];
    nn_conv_spec predict = {.in = d, .out = m->classes, .kernel = 1, .bias = true};
    snprintf(name, sizeof name, "down%d.", (int)i + 1);
    conv_prelu(l, name, 0, m->spec.out[i], d, 1, &m->down[i]);
    snprintf(name, sizeof name, "predict%d_2", (int)i + 1);
    nn_load_conv(l, name, &predict, &m->predict[i]);
  }
  for (int32_t i = 0; i < 3; i++)
    conv_prelu(l, "fuse1.fuse_attn.", 3 * i, i ? d : DAF_SCALES * d, d, i < 2 ? 3 : 1, &m->fuse[i]);
  for (int32_t k = 0; k < DAF_STAGES; k++) load_stage(l, m, k + 1, &m->stage[k]);
  /* What the official class holds and never calls, and the heads of training. */
  static const char *const unused[] = {
      "conv6_*",      "conv7_*",    "attention1.*", "attention2.*", "attention3.*",
      "attention4.*", "refine1.*",  "refine2.*",    "refine3.*",    "refine4.*",
      "predict1.*",   "predict2.*", "predict3.*",   "predict4.*"};
  for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) nn_ignore(l, unused[i]);
}

/* ---- the pass ---- */

static void tap(nn_pass *p, const nn_map *x, const char *name) {
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s", name);
  nn_release(p, mark);
}

static void tap_numbered(nn_pass *p, const nn_map *x, const char *before, int32_t a, int32_t b) {
  char name[32];
  if (b)
    snprintf(name, sizeof name, "%s%d_%d", before, (int)a, (int)b);
  else
    snprintf(name, sizeof name, "%s%d", before, (int)a);
  tap(p, x, name);
}

static nn_map apply(nn_pass *p, const struct daf_conv *w, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_apply_conv(p, &w->conv, 0, x);
  c->unary_with(c, VIV_LEAKY_RELU, w->slope[0], y.x, y.x, nn_elements(&y));
  return y;
}

static nn_map attend(nn_pass *p, const struct daf_attention *w, const nn_map *z) {
  const viv_compute *c = nn_compute_of(p);
  nn_map x = apply(p, &w->in, z), y = x;
  int64_t n = nn_space(&x), d = x.channels;
  y.x = nn_room(p, nn_elements(&x));
  if (w->query.w) {
    nn_map q = nn_apply_conv(p, &w->query, 0, &x), k = nn_apply_conv(p, &w->key, 0, &x);
    nn_map v = nn_apply_conv(p, &w->value, 0, &x);
    float *scratch = nn_room(p, nn_position_scratch(n));
    for (int64_t b = 0; b < x.batch; b++)
      nn_position_attention(c, n, q.channels, d, q.x + b * n * q.channels, k.x + b * n * q.channels,
                            v.x + b * n * d, w->gamma[0], x.x + b * n * d, scratch,
                            y.x + b * n * d);
  } else {
    float *scratch = nn_room(p, d * d);
    for (int64_t b = 0; b < x.batch; b++)
      nn_channel_attention(c, n, d, x.x + b * n * d, w->gamma[0], scratch, y.x + b * n * d);
  }
  return apply(p, &w->out, &y);
}

static nn_map two(nn_pass *p, const struct daf_step *w, const nn_map *x) {
  nn_map y = nn_apply_conv(p, &w->conv[0], VIV_RELU, x);
  return nn_apply_conv(p, &w->conv[1], VIV_RELU, &y);
}

/* The small U-Net that both attentions are guided by. */
static nn_map semantic(nn_pass *p, const struct daf_stage *w, const nn_map *z) {
  nn_map a = two(p, &w->encode[0], z);
  nn_map first = nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, &a);
  nn_map b = two(p, &w->encode[1], &first);
  b = nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, &b);
  b = two(p, &w->decode[0], &b);
  b = nn_apply_conv(p, &w->decode[0].up, 0, &b);
  if (b.size[0] != first.size[0] || b.size[1] != first.size[1])
    b = nn_resize_map(p, VIV_LINEAR, false, first.size, &b);
  b = two(p, &w->decode[1], &b);
  return nn_apply_conv(p, &w->decode[1].up, 0, &b);
}

/* a_ks into out, which has z's size and half its channels. */
static void guided(nn_pass *p, const struct daf_model *m, int32_t k, int32_t i, const nn_map *z,
                   nn_map *out) {
  const viv_compute *c = nn_compute_of(p);
  const struct daf_stage *w = &m->stage[k];
  nn_mark mark = nn_here(p);
  nn_pass_poll(p);
  nn_map sum = nn_new_map(p, z->batch, m->width, 2, z->size, VIV_CHANNELS_LAST);
  int64_t n = nn_elements(&sum);
  nn_mark inner = nn_here(p);
  nn_map places = attend(p, &w->places[i], z);
  tap_numbered(p, &places, k ? "pam_2_" : "pam_1_", i + 1, 0);
  memcpy(sum.x, places.x, (size_t)n * sizeof *sum.x);
  nn_release(p, inner);
  nn_map channels = attend(p, &w->channels[i], z);
  tap_numbered(p, &channels, k ? "cam_2_" : "cam_1_", i + 1, 0);
  c->add(c, sum.x, channels.x, n);
  nn_release(p, inner);
  nn_map guide = semantic(p, w, z);
  tap_numbered(p, &guide, "sem", k + 1, i + 1);
  guide = nn_apply_conv(p, &w->guide[i], 0, &guide);
  c->multiply(c, sum.x, guide.x, n);
  nn_conv_to(p, &w->last[i], 0, NULL, &sum, out);
  nn_release(p, mark);
  tap_numbered(p, out, k ? "refine" : "attn1_", i + 1, 0);
}

/* The four maps at the size of the finest, and what is made of all. */
static nn_map fuse(nn_pass *p, const struct daf_model *m, const nn_map maps[5],
                   nn_map d[DAF_SCALES]) {
  nn_map all = {0};
  for (int32_t i = 0; i < DAF_SCALES; i++) {
    d[i] = apply(p, &m->down[i], &maps[i + 1]);
    tap_numbered(p, &d[i], "down", i + 1, 0);
    if (i) d[i] = nn_resize_map(p, VIV_LINEAR, false, d[0].size, &d[i]);
  }
  all = nn_join_channels(p, 4, (const nn_map[]){d[3], d[2], d[1], d[0]});
  for (int32_t i = 0; i < 3; i++) all = apply(p, &m->fuse[i], &all);
  tap(p, &all, "fuse1");
  return all;
}

nn_map daf_network(nn_pass *p, const struct daf_model *m, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map maps[5], d[DAF_SCALES];
  nn_map out = nn_new_map(p, x->batch, m->classes, 2, x->size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  nn_apply_resnet(p, &m->backbone, x, 0x1e, maps);
  for (int32_t i = 1; i < 5; i++) tap_numbered(p, &maps[i], "layer", i, 0);
  nn_map fused = fuse(p, m, maps, d);
  nn_map mean = nn_new_map(p, x->batch, m->classes, 2, fused.size, VIV_CHANNELS_LAST);
  int64_t n = nn_elements(&fused);
  memset(mean.x, 0, (size_t)nn_elements(&mean) * sizeof *mean.x);
  for (int32_t i = DAF_SCALES - 1; i >= 0; i--) {
    nn_mark inner = nn_here(p);
    nn_map a = fused, refined = fused;
    a.x = nn_room(p, n);
    refined.x = nn_room(p, n);
    nn_map z = nn_join_channels(p, 2, (const nn_map[]){d[i], fused});
    guided(p, m, 0, i, &z, &a);
    c->multiply(c, a.x, fused.x, n);
    z = nn_join_channels(p, 2, (const nn_map[]){d[i], a});
    guided(p, m, 1, i, &z, &refined);
    nn_map logits = nn_apply_conv(p, &m->predict[i], 0, &refined);
    char name[24];
    snprintf(name, sizeof name, "predict%d_2", (int)i + 1);
    tap(p, &logits, name);
    c->add(c, mean.x, logits.x, nn_elements(&mean));
    nn_release(p, inner);
  }
  /* The mean of resized maps is the resized mean. */
  float quarter = 0.25f;
  c->scale_shift(c, mean.x, &quarter, NULL, 1, 1, nn_elements(&mean), mean.x);
  nn_map full = nn_resize_map(p, VIV_LINEAR, false, x->size, &mean);
  memcpy(out.x, full.x, (size_t)nn_elements(&out) * sizeof *out.x);
  nn_release(p, mark);
  return out;
}
