/* CCNeXt: disparity of the left picture of a rectified pair.
 *
 *   both pictures, (x - 0.45) / 0.225 -> one ConvNeXt for both, with a stem of its own:
 *     7x7 stride 2, LN, 1x1, GELU, 1x1 -> feature 0 -> max pool -> LN -> stage 1 -> feature 1
 *   after stages 1 to 3 each row of a view looks at the same row of the other, in a window:
 *     z1 = x1 + W softmax(Q x1 (K x2)^T) V x2, and the other way round -> next stage -> next feature
 *   decoder: m_i = relu(3x3 [left_i, right_i]); x = m_4; for i = 4 .. 0:
 *     x = block(x); x = block([x, m_i]) (i = 4: block(x)); i >= 2: x += W g x; x = up(x);
 *     disp.i = sigmoid(3x3 x) for i = 3 .. 0
 *
 * The dual decoder has a second such branch for the right picture; the units W g are shared. Official:
 * alelopes/CCNext, models.py (ConvnextCAEncoder, W_CA_Module, IDEP_Skip, IDEP_Skip_Dual). Weights: the
 * union of encoder.pth and decoder.pth. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "depth/depth.h"
#include "depth/mono.h"
#include "nn/convnext.h"

enum { LEVELS = 5, CROSSINGS = 3, SCALES = 4, SKIPS = 3, BRANCHES = 2 };

struct crossing {
  nn_linear q, k;
  nn_conv v, w;
};

struct branch {
  nn_conv mix[LEVELS], up[LEVELS][2], disp[SCALES];
};

struct ccnext {
  struct depth_model base;
  int32_t size[2];
  double window; /* of a row's width, to each side */
  double nearest, farthest;
  float length; /* stereo_scale_factor */
  int32_t branches;
  int32_t dec[LEVELS], enc[LEVELS]; /* channels of the decoder, and of the features it joins */
  nn_conv stem;
  nn_norm stem_norm, norm;
  nn_linear stem_up, stem_down;
  nn_convnext encoder;
  struct crossing cross[CROSSINGS];
  nn_conv skip[SKIPS][2]; /* g, W of levels 4, 3, 2 */
  struct branch branch[BRANCHES];
};
_Static_assert(sizeof(struct ccnext) <= DEPTH_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void fail(nn_config *k, const char *what) {
  if (!k->status) k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s", what);
}

static void list(nn_config *k, const char *key, int32_t *out, int32_t n, int64_t hi) {
  if (!nn_key(k, key)) return;
  if (nn_ints(k, key, out, n, 1, hi) != n && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be %d numbers", key, (int)n);
}

static void config(nn_config *k, const viv_model_source *source, struct depth_model *b) {
  static const nn_convnext_spec pico = {.names = NN_CONVNEXT_FEATURES,
                                        .stages = 4,
                                        .depths = {2, 2, 6, 2},
                                        .dims = {64, 128, 256, 512},
                                        .no_stem = true};
  static const int32_t usual[LEVELS] = {16, 32, 64, 128, 256};
  struct ccnext *m = (struct ccnext *)(void *)b;
  nn_convnext_spec *s = &m->encoder.spec;
  (void)source;
  b->kind = "metric";
  *s = pico;
  list(k, "encoder_dims", s->dims, 4, 1 << 14);
  list(k, "encoder_depths", s->depths, 4, NN_CONVNEXT_BLOCKS / 4);
  memcpy(m->dec, usual, sizeof usual);
  list(k, "num_ch_dec", m->dec, LEVELS, 1 << 14);
  m->enc[0] = s->dims[0];
  for (int i = 1; i < LEVELS; i++) m->enc[i] = s->dims[i - 1];
  /* A level's first block takes what the level below it gave. */
  for (int i = 0; i < LEVELS - 2; i++)
    if (m->dec[i + 2] != s->dims[i])
      fail(k, "num_ch_dec from its third number on must be encoder_dims without the last");
  m->size[0] = (int32_t)nn_int(k, "height", 384, 32, 1 << 13);
  m->size[1] = (int32_t)nn_int(k, "width", 1280, 32, 1 << 13);
  nn_divides(k, m->size[0], 32, "height and 32");
  nn_divides(k, m->size[1], 32, "width and 32");
  m->window = nn_num(k, "window_size", 0.26, 0, 1);
  m->nearest = nn_num(k, "min_depth", 0.1, 1e-9, 1e9);
  m->farthest = nn_num(k, "max_depth", 100, 1e-9, 1e9);
  m->length = (float)nn_num(k, "stereo_scale_factor", 5.4, 1e-9, 1e9);
  m->branches = nn_flag(k, "reduced_decoder", true) ? 1 : 2;
}

/* ---- weights ---- */

static void load_unit(nn_loader *l, const char *name, int32_t d, nn_conv *conv) {
  nn_conv_spec spec = {.in = d, .out = d, .kernel = 1, .bias = true, .norm = "1"};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, "0", &spec, conv);
  nn_out(l, outer);
}

static void load_encoder(nn_loader *l, struct ccnext *m) {
  int32_t d = m->encoder.spec.dims[0];
  nn_conv_spec stem = {.in = 3, .out = d, .kernel = 7, .stride = 2, .pad = 3, .bias = true};
  nn_at(l, "encoder.");
  nn_load_conv(l, "stem_0.0", &stem, &m->stem);
  nn_load_norm(l, "stem_0.1", d, 1e-6f, &m->stem_norm);
  nn_load_linear(l, "stem_0.2", 4 * (int64_t)d, d, true, &m->stem_up);
  nn_load_linear(l, "stem_0.4", d, 4 * (int64_t)d, true, &m->stem_down);
  nn_load_norm(l, "stem_1", d, 1e-6f, &m->norm);
  nn_convnext_spec spec = m->encoder.spec;
  nn_load_convnext(l, &spec, &m->encoder);
  for (int32_t i = 0; i < CROSSINGS; i++) {
    struct crossing *c = &m->cross[i];
    int32_t e = m->encoder.spec.dims[i];
    nn_at(l, "ca_%d.", (int)i + 1);
    nn_load_linear(l, "Q", e, e, true, &c->q);
    nn_load_linear(l, "K", e, e, true, &c->k);
    load_unit(l, "V", e, &c->v);
    load_unit(l, "W", e, &c->w);
  }
}

/* Numbers of the official ModuleLists: the skips, then branch after branch from level 4 down, then the
 * disparities of all branches scale after scale. */
static void load_branch(nn_loader *l, struct ccnext *m, int32_t which, struct branch *w) {
  char name[32];
  int32_t n = SKIPS + which * 2 * LEVELS;
  for (int32_t i = LEVELS - 1; i >= 0; i--) {
    nn_conv_spec mix = {.in = 2 * m->enc[i], .out = m->enc[i], .kernel = 3, .pad = 1};
    int32_t in = i == LEVELS - 1 ? m->enc[i] : m->dec[i + 1];
    int32_t join = i == LEVELS - 1 ? 0 : m->enc[i];
    nn_at(l, "%s", "");
    snprintf(name, sizeof name, "middle.%d", (int)(i * m->branches + which));
    nn_load_conv(l, name, &mix, &w->mix[i]);
    nn_at(l, "decoder.");
    snprintf(name, sizeof name, "%d", (int)n++);
    mono_load_block(l, name, in, m->dec[i], &w->up[i][0]);
    snprintf(name, sizeof name, "%d", (int)n++);
    mono_load_block(l, name, m->dec[i] + join, m->dec[i], &w->up[i][1]);
  }
  n = SKIPS + m->branches * 2 * LEVELS;
  for (int32_t s = 0; s < SCALES; s++) {
    snprintf(name, sizeof name, "%d", (int)(n + s * m->branches + which));
    mono_load_disp(l, name, m->dec[s], &w->disp[s]);
  }
}

static void tables(nn_loader *l, void *model) {
  struct ccnext *m = model;
  load_encoder(l, m);
  for (int32_t i = 0; i < SKIPS; i++) {
    nn_at(l, "decoder.%d.", (int)i);
    load_unit(l, "g", m->dec[LEVELS - 1 - i], &m->skip[i][0]);
    load_unit(l, "W", m->dec[LEVELS - 1 - i], &m->skip[i][1]);
  }
  for (int32_t b = 0; b < m->branches; b++) load_branch(l, m, b, &m->branch[b]);
}

/* ---- encoder ---- */

/* Feature 0 of both views. The wide middle is made in pieces: it is the largest tensor by far. */
static nn_map stem(nn_pass *p, const struct ccnext *m, const nn_map *pixels) {
  enum { PIECE = 8192 };
  nn_map y = nn_conv_shape(p, &m->stem, pixels, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_mark mark = nn_here(p);
  nn_map z = y;
  z.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &m->stem, 0, NULL, pixels, &z);
  int64_t rows = y.batch * nn_space(&y), d = y.channels;
  nn_layer_norm(p, &m->stem_norm, z.x, rows, z.x);
  for (int64_t r = 0; r < rows; r += PIECE) {
    nn_mark inner = nn_here(p);
    int64_t n = rows - r < PIECE ? rows - r : PIECE;
    float *wide = nn_apply_linear(p, &m->stem_up, VIV_GELU, z.x + r * d, n);
    nn_linear_to(p, &m->stem_down, 0, NULL, wide, n, y.x + r * d);
    nn_release(p, inner);
  }
  nn_release(p, mark);
  return y;
}

/* Each row of both views [2 n, h, w, d] looks at the same row of the other view. */
static nn_map cross(nn_pass *p, const struct ccnext *m, const struct crossing *w, const nn_map *x) {
  int64_t n = x->size[1], d = x->channels, rows = x->batch * nn_space(x), half = rows / 2 * d;
  int64_t reach = (int64_t)((double)n * m->window);
  nn_map out = *x, y = *x;
  out.x = nn_room(p, nn_elements(x));
  nn_mark mark = nn_here(p);
  float *hide = nn_room(p, n * n); /* what a pixel does not see */
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      hide[i * n + j] = (i < j ? j - i : i - j) < reach ? 0 : -INFINITY;
  const float *q = nn_apply_linear(p, &w->q, 0, x->x, rows); /* [2 n, h, w, d] */
  const float *k = nn_apply_linear(p, &w->k, 0, x->x, rows);
  nn_map v = nn_apply_conv(p, &w->v, 0, x);
  y.x = nn_room(p, nn_elements(x));
  for (int view = 0; view < 2; view++) {
    nn_attention a = {.batch = rows / 2 / n,
                      .nq = n,
                      .nk = n,
                      .heads = 1,
                      .dim = (int32_t)d,
                      .q = q + view * half,
                      .k = k + (1 - view) * half,
                      .v = v.x + (1 - view) * half,
                      .scale = 1,
                      .bias = hide};
    nn_attend(p, &a, y.x + view * half);
  }
  nn_conv_to(p, &w->w, 0, x->x, &y, &out);
  nn_release(p, mark);
  return out;
}

/* View 0 or 1 of a map of both. */
static nn_map view_of(const nn_map *x, int32_t view) {
  nn_map y = *x;
  y.batch /= 2;
  y.x += view * nn_elements(&y);
  return y;
}

static void tap_view(nn_pass *p, const nn_map *x, int32_t view, const char *format,
                     int32_t number) {
  nn_map one = view_of(x, view);
  dpt_tap(p, &one, format, number);
}

static void encode(nn_pass *p, const struct ccnext *m, const nn_map *pixels,
                   nn_map features[LEVELS]) {
  features[0] = stem(p, m, pixels);
  nn_map x = nn_pool2d(p, VIV_POOL_MAX, 3, 2, 1, false, &features[0]);
  nn_layer_norm(p, &m->norm, x.x, x.batch * nn_space(&x), x.x);
  for (int32_t i = 0; i < 4; i++) {
    features[i + 1] = nn_convnext_stage(p, &m->encoder, i, &x);
    tap_view(p, &features[i + 1], 0, "features.left.%d", i + 1);
    tap_view(p, &features[i + 1], 1, "features.right.%d", i + 1);
    if (i == CROSSINGS) break;
    x = cross(p, m, &m->cross[i], &features[i + 1]);
    tap_view(p, &x, 0, "ca_%d.left", i + 1);
    tap_view(p, &x, 1, "ca_%d.right", i + 1);
  }
}

/* ---- decoder ---- */

static nn_map mixed(nn_pass *p, const nn_conv *mix, const nn_map *feature) {
  nn_map views[2] = {view_of(feature, 0), view_of(feature, 1)};
  nn_map both = nn_join_channels(p, 2, views);
  return nn_apply_conv(p, mix, VIV_RELU, &both);
}

/* disp[s] of a branch. */
static void decode(nn_pass *p, const struct ccnext *m, const struct branch *w,
                   const nn_map features[LEVELS], nn_map disp[SCALES]) {
  nn_map x = mixed(p, &w->mix[LEVELS - 1], &features[LEVELS - 1]);
  for (int32_t i = LEVELS - 1; i >= 0; i--) {
    nn_pass_poll(p);
    x = mono_block(p, &w->up[i][0], &x);
    if (i < LEVELS - 1) {
      nn_map parts[2] = {x, mixed(p, &w->mix[i], &features[i])};
      x = nn_join_channels(p, 2, parts);
    }
    x = mono_block(p, &w->up[i][1], &x);
    if (i >= 2) {
      const nn_conv *skip = m->skip[LEVELS - 1 - i];
      nn_map g = nn_apply_conv(p, &skip[0], 0, &x), y = x;
      y.x = nn_room(p, nn_elements(&x));
      nn_conv_to(p, &skip[1], 0, x.x, &g, &y);
      x = y;
    }
    x = mono_up(p, &x);
    if (i < SCALES) disp[i] = mono_disp(p, &w->disp[i], &x);
  }
}

/* ---- the task ---- */

static nn_map pair(nn_pass *p, const struct ccnext *m) {
  depth_batch left = depth_frames(p, "left", m->size, false);
  depth_batch right = depth_frames(p, "right", m->size, false);
  if (left.n != right.n)
    nn_stop(p, VIV_BAD_INPUT, "right", "%d left pictures and %d right ones", (int)left.n,
            (int)right.n);
  int64_t half = left.n * 3 * (int64_t)m->size[0] * m->size[1];
  depth_batch both = {2 * left.n, m->size[0], m->size[1], nn_room(p, 2 * half)};
  for (int64_t i = 0; i < half; i++) {
    both.pixels[i] = (left.pixels[i] - 0.45f) / 0.225f;
    both.pixels[half + i] = (right.pixels[i] - 0.45f) / 0.225f;
  }
  return depth_map_of(&both, 3);
}

static int32_t stereo_depth(nn_pass *p) {
  static const char *const names[BRANCHES] = {"disp.%d", "disp_s.%d"};
  const struct ccnext *m = nn_net_of(p);
  nn_map pixels = pair(p, m), features[LEVELS], disp[SCALES] = {{0}};
  encode(p, m, &pixels, features);
  for (int32_t b = m->branches - 1; b >= 0; b--) {
    decode(p, m, &m->branch[b], features, disp);
    for (int32_t s = 0; s < SCALES; s++) {
      char name[16];
      snprintf(name, sizeof name, names[b], (int)s);
      nn_result(p, VIV_F32, disp[s].x, NN_DIMS(disp[s].batch, 1, disp[s].size[0], disp[s].size[1]),
                "%s", name);
    }
  }
  int64_t n = nn_elements(&disp[0]);
  nn_map depth = disp[0];
  depth.x = depth_inverse(p, depth_scaled(p, disp[0].x, n, m->nearest, m->farthest), n);
  depth_give(p, "left", &depth, m->length);
  return VIV_DONE;
}

static const nn_task tasks[] = {{"stereo_depth", stereo_depth}, {NULL, NULL}};

const struct depth_variant depth_ccnext = {.model_type = "ccnext",
                                           .bytes = sizeof(struct ccnext),
                                           .config = config,
                                           .tables = tables,
                                           .tasks = tasks};
