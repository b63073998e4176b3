/* ProDepth: depth of a frame from itself and from the frames before it.
 *
 *   mono   frame -> Lite-Mono -> disp.s, and uncert.s by a second decoder
 *   pose   (frame -k, frame -k+1) -> T(-k+1 -> -k); the motions from frame 0 are their products
 *   multi  frame -> encoder to 1/4 -> costs against the frames before (matching.h)
 *     cv     [s, costs seen] -> 3x3, ELU -> the rest of a second Lite-Mono -> cv_disp
 *     the costs are moderated by mono's disparity and uncertainty and by cv_disp
 *     [s, moderated costs] -> 3x3, ReLU -> the rest of the encoder -> decoder -> disp.s
 *   depth = 1 / (1 / max + (1 / min - 1 / max) disp.0), up to a scale
 *
 * The encoder is a Lite-Mono or, as in ManyDepth, a ResNet. Woo et al., ProDepth, arXiv:2407.09303;
 * official: ProDepth/networks, evaluate_kitti_depth.py. Weights: encoder.*, depth.*, mono_encoder.*,
 * mono_depth.*, mono_uncert.*, pose_encoder.*, pose.*, the stems of the official files. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "depth/depth.h"
#include "depth/lite_mono.h"
#include "depth/matching.h"
#include "depth/mono.h"
#include "depth/pose.h"

enum { LITE_TOP = 3, RESNET_TOP = 4 };

struct prodepth {
  struct depth_model base;
  int32_t size[2];
  int32_t bins, dec[MONO_LEVELS];
  float bin[MATCHING_BINS];
  double nearest, farthest;
  float variance; /* mono_var_scale */
  bool resnet;    /* the encoder of several frames */
  lite_net mono, lite, cv;
  nn_resnet net;
  mono_decoder mono_disp, mono_uncert, cv_disp, disp;
  nn_conv join, reduce; /* cv's up0, reduce_conv */
  pose_net pose;
};
_Static_assert(sizeof(struct prodepth) <= DEPTH_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void fail(nn_config *k, const char *what) {
  if (!k->status) k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s", what);
}

static void read_bins(nn_config *k, struct prodepth *m) {
  double low = nn_num(k, "min_depth_bin", 0.1, 1e-9, 1e9);
  double high = nn_num(k, "max_depth_bin", 20, 1e-9, 1e9);
  viv_str form = nn_text(k, "depth_binning", "sid");
  m->bins = (int32_t)nn_int(k, "num_depth_bins", 128, 2, MATCHING_BINS);
  if (low >= high) fail(k, "min_depth_bin must be below max_depth_bin");
  if (!nn_is(form, "sid") && !nn_is(form, "linear") && !nn_is(form, "inverse"))
    fail(k, "depth_binning must be sid, linear or inverse");
  for (int32_t i = 0; i < m->bins && !k->status; i++) {
    double at = (double)i / (m->bins - 1);
    double sid = exp(log(low) + log(high / low) * at), linear = low + (high - low) * at;
    double inverse = 1 / (1 / low + (1 / high - 1 / low) * at);
    m->bin[i] = (float)(nn_is(form, "sid") ? sid : nn_is(form, "linear") ? linear : inverse);
  }
}

static void config(nn_config *k, const viv_model_source *source, struct depth_model *b) {
  static const int32_t usual[MONO_LEVELS] = {16, 32, 64, 128, 256};
  struct prodepth *m = (struct prodepth *)(void *)b;
  viv_str encoder = nn_text(k, "encoder", "lite");
  (void)source;
  b->kind = "scaled";
  m->resnet = nn_is(encoder, "resnet");
  if (!m->resnet && !nn_is(encoder, "lite")) fail(k, "encoder must be lite or resnet");
  int32_t most = m->resnet ? RESNET_TOP : LITE_TOP;
  memcpy(m->dec, usual, sizeof usual);
  if (nn_key(k, "num_ch_dec") && nn_ints(k, "num_ch_dec", m->dec, MONO_LEVELS, 1, 1 << 14) <= most)
    fail(k, "num_ch_dec must have a number for each level");
  m->size[0] = (int32_t)nn_need_int(k, "height", 32, 1 << 13);
  m->size[1] = (int32_t)nn_need_int(k, "width", 32, 1 << 13);
  for (int i = 0; i < 2; i++)
    nn_divides(k, m->size[i], 2 << most,
               i ? "width and the coarsest map" : "height and the coarsest map");
  read_bins(k, m);
  lite_read(k, &m->mono.spec);
  m->lite.spec = m->cv.spec = m->mono.spec;
  if (m->resnet) {
    pose_resnet(k, nn_int(k, "num_layers", 18, 1, 1000),
                (int32_t)nn_int(k, "resnet_width", 64, 1, 1024), &m->net.spec);
    m->net.spec.names = NN_RESNET_SEQUENTIAL;
  }
  m->variance = (float)nn_num(k, "mono_var_scale", 20, 1e-9, 1e9);
  m->nearest = nn_num(k, "min_depth", 0.1, 1e-9, 1e9);
  m->farthest = nn_num(k, "max_depth", 100, 1e-9, 1e9);
  pose_read(k, 18, 0.01f, &m->pose);
  m->pose.normalised = true;
  b->other = "frame_-1";
  b->motion = "relative_poses";
  memcpy(b->motion_size, m->size, sizeof m->size);
}

/* ---- weights ---- */

static void load_multi(nn_loader *l, struct prodepth *m) {
  const lite_spec *s = &m->mono.spec;
  const int32_t lite[] = {s->dims[0], s->dims[0], s->dims[1], s->dims[2]};
  const nn_resnet_spec *r = &m->net.spec;
  const int32_t deep[] = {r->stem, r->out[0], r->out[1], r->out[2], r->out[3]};
  int32_t wide = m->resnet ? deep[1] : lite[1];
  nn_conv_spec reduce = {.in = wide + m->bins, .out = wide, .kernel = 3, .pad = 1, .bias = true};
  nn_at(l, "encoder.");
  nn_load_conv(l, "reduce_conv.0", &reduce, &m->reduce);
  nn_at(l, "encoder.cv_encoder.");
  lite_load(l, s, m->resnet, &m->cv);
  mono_load_block(l, "up0.0", s->dims[0] + m->bins, s->dims[0], &m->join);
  if (m->resnet) {
    nn_at(l, "encoder.");
    nn_resnet_spec spec = *r;
    nn_load_resnet(l, &spec, &m->net);
  } else {
    nn_at(l, "encoder.lite_encoder.");
    lite_load(l, s, true, &m->lite);
    /* The second Lite-Mono begins with what the first one computed. */
    nn_ignore(l, "encoder.cv_encoder.downsample_layers.0.*");
    nn_ignore(l, "encoder.cv_encoder.stem2.*");
    nn_ignore(l, "encoder.cv_encoder.stages.0.*");
  }
  nn_at(l, "%s", "");
  mono_load_decoder(l, "encoder.cv_decoder", LITE_TOP, lite, m->dec, 1, &m->cv_disp);
  mono_load_decoder(l, "depth", m->resnet ? RESNET_TOP : LITE_TOP, m->resnet ? deep : lite, m->dec,
                    m->resnet ? RESNET_TOP : LITE_TOP, &m->disp);
}

static void tables(nn_loader *l, void *model) {
  struct prodepth *m = model;
  const lite_spec *s = &m->mono.spec, spec = *s;
  const int32_t enc[] = {s->dims[0], s->dims[0], s->dims[1], s->dims[2]};
  load_multi(l, m);
  nn_at(l, "mono_encoder.");
  lite_load(l, &spec, true, &m->mono);
  nn_at(l, "%s", "");
  mono_load_decoder(l, "mono_depth", LITE_TOP, enc, m->dec, LITE_TOP, &m->mono_disp);
  mono_load_decoder(l, "mono_uncert", LITE_TOP, enc, m->dec, LITE_TOP, &m->mono_uncert);
  pose_load(l, &m->pose);
  nn_ignore(l, "*stages.*.norm.*");           /* of dilated blocks: stored, not applied */
  nn_ignore(l, "encoder.prematching_conv.*"); /* stored, never run */
  nn_ignore(l, "encoder.backprojector.*");    /* tables of coordinates */
}

/* ---- one frame ---- */

static void give(nn_pass *p, const nn_map *maps, int32_t n, const char *format) {
  for (int32_t s = 0; s < n; s++) {
    char name[32];
    snprintf(name, sizeof name, format, (int)s); /* formats of this file, one %d each */
    nn_result(p, VIV_F32, maps[s].x, NN_DIMS(maps[s].batch, 1, maps[s].size[0], maps[s].size[1]),
              "%s", name);
  }
}

/* Disparities and uncertainties of frames. */
static void mono(nn_pass *p, const struct prodepth *m, const nn_map *frames, int32_t scales,
                 bool tap, nn_map disp[LITE_TOP], nn_map uncert[LITE_TOP]) {
  lite_state s = lite_begin(p, &m->mono, frames, tap);
  nn_map features[4] = {s.f, s.s};
  lite_finish(p, &m->mono, &s, features);
  mono_decode(p, &m->mono_disp, features, scales, disp);
  mono_decode(p, &m->mono_uncert, features, scales, uncert);
}

static nn_map depth_of(nn_pass *p, const struct prodepth *m, const nn_map *disp) {
  nn_map y = *disp;
  int64_t n = nn_elements(disp);
  y.x = depth_inverse(p, depth_scaled(p, disp->x, n, m->nearest, m->farthest), n);
  return y;
}

static int32_t depth(nn_pass *p) {
  const struct prodepth *m = nn_net_of(p);
  depth_batch in = depth_frames(p, "image", m->size, false);
  nn_map frames = depth_map_of(&in, 3), disp[LITE_TOP], uncert[LITE_TOP];
  mono(p, m, &frames, LITE_TOP, true, disp, uncert);
  give(p, disp, LITE_TOP, "disp.%d");
  give(p, uncert, LITE_TOP, "uncert.%d");
  nn_map y = depth_of(p, m, &disp[0]);
  depth_give(p, "image", &y, 1);
  return VIV_DONE;
}

/* ---- several frames ---- */

struct frames {
  int32_t n;                            /* before frame 0 */
  depth_batch at[1 + MATCHING_LOOKUPS]; /* frame 0, -1, .. */
  float *motion[MATCHING_LOOKUPS];      /* [B, 4, 4] from frame 0 to frame -1 - i */
};

static void read_frames(nn_pass *p, const struct prodepth *m, struct frames *f) {
  char name[24];
  memset(f, 0, sizeof *f);
  f->at[0] = depth_frames(p, "frame_0", m->size, false);
  for (int32_t i = 1; i <= MATCHING_LOOKUPS; i++) {
    snprintf(name, sizeof name, "frame_-%d", (int)i);
    if (!nn_count(p, name)) break;
    f->at[i] = depth_frames(p, name, m->size, false);
    f->n = i;
    if (f->at[i].n != f->at[0].n)
      nn_stop(p, VIV_BAD_INPUT, name, "%d pictures, but frame_0 has %d", (int)f->at[i].n,
              (int)f->at[0].n);
  }
}

/* T(0 -> -i-1) = P T(0 -> -i), P of the pair (-i-1, -i), inverted. */
static void find_motions(nn_pass *p, const struct prodepth *m, struct frames *f) {
  int32_t n = f->at[0].n;
  for (int32_t i = 0; i < f->n; i++) {
    float *out = f->motion[i] = nn_room(p, 16 * (int64_t)n);
    nn_mark mark = nn_here(p);
    pose_motion found = pose_of(p, &m->pose, &f->at[i + 1], &f->at[i], false);
    for (int32_t b = 0; b < n; b++) {
      float one[16];
      pose_matrix(found.axisangle + 6 * b, found.translation + 6 * b, true, one);
      for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++) {
          double sum = i ? 0 : (double)one[4 * r + c];
          for (int k = 0; i && k < 4; k++)
            sum += (double)one[4 * r + k] * (double)f->motion[i - 1][16 * b + 4 * k + c];
          out[16 * b + 4 * r + c] = (float)sum;
        }
    }
    nn_release(p, mark);
  }
}

static void give_motions(nn_pass *p, const struct frames *f) {
  int64_t n = f->at[0].n;
  float *all = nn_room(p, n * f->n * 16);
  for (int64_t b = 0; b < n; b++)
    for (int32_t i = 0; i < f->n; i++)
      memcpy(all + (b * f->n + i) * 16, f->motion[i] + b * 16, 16 * sizeof *all);
  nn_result(p, VIV_F32, all, NN_DIMS(n, f->n, 4, 4), "relative_poses");
}

static int32_t pose(nn_pass *p) {
  const struct prodepth *m = nn_net_of(p);
  struct frames f;
  read_frames(p, m, &f);
  if (!f.n)
    nn_stop(p, VIV_BAD_INPUT, "frame_-1", "is missing: motion needs a frame before frame_0");
  find_motions(p, m, &f);
  give_motions(p, &f);
  return VIV_DONE;
}

/* Gauss-Jordan elimination. False: singular. */
static bool invert(const double a[16], double out[16]) {
  double m[4][8] = {{0}};
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 4; j++) m[i][j] = a[4 * i + j];
    m[i][4 + i] = 1;
  }
  for (int c = 0; c < 4; c++) {
    int best = c;
    for (int i = c + 1; i < 4; i++)
      if (fabs(m[i][c]) > fabs(m[best][c])) best = i;
    if (!(fabs(m[best][c]) > 1e-12)) return false;
    for (int j = 0; j < 8; j++) {
      double t = m[c][j];
      m[c][j] = m[best][j];
      m[best][j] = t;
    }
    for (int i = 0; i < 4; i++) {
      double by = i == c ? 0 : m[i][c] / m[c][c];
      for (int j = 0; j < 8; j++) m[i][j] -= by * m[c][j];
    }
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) out[4 * i + j] = m[i][4 + j] / m[i][i];
  return true;
}

/* K in pixels of the maps that are matched, and its inverse. */
static void read_camera(nn_pass *p, const int32_t size[2], double k[16], double inverse[16]) {
  int64_t shape[2] = {4, 4};
  const float *x = nn_need_floats(p, "K", 2, shape);
  for (int i = 0; i < 16; i++) {
    k[i] = (double)x[i] * (i < 4 ? size[1] : i < 8 ? size[0] : 1);
    if (!isfinite(k[i])) nn_stop(p, VIV_BAD_INPUT, "K", "holds numbers that are not finite");
  }
  if (!invert(k, inverse))
    nn_stop(p, VIV_BAD_INPUT, "K",
            "has no inverse: row 0 in widths, row 1 in heights, last row 0 0 0 1");
}

/* The encoder up to the quarter of the size. */
struct front {
  lite_state lite;
  nn_map half, quarter; /* what the decoder reads of them */
};

static struct front front_of(nn_pass *p, const struct prodepth *m, const depth_batch *in) {
  struct front f = {0};
  nn_map x = depth_map_of(in, 3);
  if (!m->resnet) {
    f.lite = lite_begin(p, &m->lite, &x, false);
    f.half = f.lite.f;
    f.quarter = f.lite.s;
    return f;
  }
  nn_map y = x;
  y.x = nn_room(p, nn_elements(&x));
  for (int64_t i = 0; i < nn_elements(&x); i++) y.x[i] = (x.x[i] - 0.45f) / 0.225f;
  f.half = nn_conv_shape(p, &m->net.stem[0], &y, VIV_CHANNELS_LAST);
  f.half.x = nn_room(p, nn_elements(&f.half));
  nn_conv_to(p, &m->net.stem[0], VIV_RELU, NULL, &y, &f.half);
  nn_map pooled = nn_pool2d(p, VIV_POOL_MAX, 3, 2, 1, false, &f.half);
  f.quarter = nn_resnet_stage(p, &m->net, 0, &pooled);
  return f;
}

/* Disparity of the costs alone, from the second Lite-Mono. */
static nn_map cv_disparity(nn_pass *p, const struct prodepth *m, const depth_batch *in,
                           const struct front *front, const nn_map *raw) {
  lite_state s = front->lite;
  if (m->resnet) {
    nn_map x = depth_map_of(in, 3);
    s = lite_begin(p, &m->cv, &x, false);
  }
  nn_map parts[2] = {s.s, *raw}, disp;
  nn_map both = nn_join_channels(p, 2, parts);
  s.s = mono_block(p, &m->join, &both);
  nn_map features[4] = {s.f, s.s};
  lite_finish(p, &m->cv, &s, features);
  mono_decode(p, &m->cv_disp, features, 1, &disp);
  return disp;
}

/* A disparity at the costs' size, scaled: official code has these two bounds here, whatever the
 * model's own are. */
static nn_map guess_of(nn_pass *p, const nn_map *disp, const nn_map *like) {
  nn_map y = nn_resize_map(p, VIV_LINEAR, false, like->size, disp);
  y.x = depth_scaled(p, y.x, nn_elements(&y), 0.1, 100);
  return y;
}

static nn_map moderate(nn_pass *p, const struct prodepth *m, const depth_batch *in,
                       const nn_map *cost, const nn_map *cv_disp) {
  nn_map disp[LITE_TOP], uncert[LITE_TOP], gauss, weight, x = depth_map_of(in, 3);
  const viv_compute *c = nn_compute_of(p);
  mono(p, m, &x, 1, false, disp, uncert);
  matching_guess guess = {.mono = guess_of(p, &disp[0], cost),
                          .matched = guess_of(p, cv_disp, cost),
                          .sigma = nn_resize_map(p, VIV_LINEAR, false, cost->size, &uncert[0])};
  c->scale_shift(c, guess.sigma.x, &m->variance, NULL, 1, 1, nn_elements(&guess.sigma),
                 guess.sigma.x);
  uint8_t *still = nn_bytes(p, nn_elements(&guess.sigma), 1);
  nn_map y = matching_moderate(p, cost, m->bin, &guess, &gauss, &weight, still);
  dpt_tap(p, &gauss, "gauss", 0);
  dpt_tap(p, &weight, "weighted_mask", 0);
  dpt_tap(p, &y, "refined_cost_volumes", 0);
  nn_result(p, VIV_U8, still, NN_DIMS(in->n, 1, cost->size[0], cost->size[1]), "static_mask");
  return y;
}

/* Levels from the quarter on. */
static void back_of(nn_pass *p, const struct prodepth *m, const struct front *front,
                    const nn_map *moderated, nn_map features[MONO_LEVELS]) {
  nn_map parts[2] = {front->quarter, *moderated};
  nn_map x = nn_join_channels(p, 2, parts);
  x = nn_apply_conv(p, &m->reduce, VIV_RELU, &x);
  features[0] = front->half;
  features[1] = front->quarter;
  if (m->resnet) {
    for (int32_t s = 1; s < 4; s++) features[s + 1] = x = nn_resnet_stage(p, &m->net, s, &x);
  } else {
    lite_state s = front->lite;
    s.s = x;
    lite_finish(p, &m->lite, &s, features);
  }
}

static int32_t video_depth(nn_pass *p) {
  const struct prodepth *m = nn_net_of(p);
  struct frames f;
  double k[16] = {0}, inverse[16] = {0};
  read_frames(p, m, &f);
  find_motions(p, m, &f);
  struct front front = front_of(p, m, &f.at[0]);
  nn_map lookup[MATCHING_LOOKUPS], raw, cost, features[MONO_LEVELS], disp[MONO_LEVELS];
  for (int32_t i = 0; i < f.n; i++) lookup[i] = front_of(p, m, &f.at[i + 1]).quarter;
  matching_input in = {.bins = m->bins,
                       .lookups = f.n,
                       .bin = m->bin,
                       .current = &front.quarter,
                       .lookup = lookup,
                       .k = k,
                       .inverse = inverse};
  for (int32_t i = 0; i < f.n; i++) in.motion[i] = f.motion[i];
  if (f.n) read_camera(p, front.quarter.size, k, inverse);
  matching_cost(p, &in, &raw, &cost);
  dpt_tap(p, &raw, "cv_feature", 0);
  dpt_tap(p, &cost, "cost_volume", 0);
  nn_map cv_disp = cv_disparity(p, m, &f.at[0], &front, &raw);
  nn_map moderated = moderate(p, m, &f.at[0], &cost, &cv_disp);
  back_of(p, m, &front, &moderated, features);
  for (int32_t i = 1; i <= m->disp.top; i++) dpt_tap(p, &features[i], "features.%d", i);
  mono_decode(p, &m->disp, features, m->disp.top, disp);
  nn_map y = depth_of(p, m, &disp[0]);
  give(p, disp, m->disp.top, "disp.%d");
  give(p, &cv_disp, 1, "cv_disp");
  give(p, &y, 1, "predicted_depth");
  if (f.n) give_motions(p, &f);
  depth_give(p, "frame_0", &y, 1);
  return VIV_DONE;
}

static const nn_task tasks[] = {
    {"depth", depth}, {"pose", pose}, {"video_depth", video_depth}, {NULL, NULL}};

const struct depth_variant depth_prodepth = {.model_type = "prodepth",
                                             .bytes = sizeof(struct prodepth),
                                             .config = config,
                                             .tables = tables,
                                             .tasks = tasks};
