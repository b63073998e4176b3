/* EndoDAC: Depth Anything with adapters, for endoscopes, with the camera's motion and intrinsics.
 *
 *   picture at width x height, values in [0, 1] -> image_shape -> DINOv2, whose MLPs hold adapters; after
 *   the blocks of residual_block_indexes a neck of convolutions is added to the patches
 *   the last norm of the last four blocks -> DPT's levels and paths P1 .. P4
 *   disp.s = sigmoid(1x1(relu(3x3(up(3x3 P_{s+1})))))   s = 0: 16 times the grid
 *   scaled_disp = 1 / max + (1 / min - 1 / max) disp.0,  depth = 1 / scaled_disp, up to a scale
 *
 *   (frame_1, frame_0) -> pose.h -> axis-angle and translation; the mean of its third convolution
 *   -> focal lengths (softplus(x) + 1/2) and centre (x + 1/2), times width and height
 *
 * Cui et al., EndoDAC, arXiv:2405.08672 (the public base of Endo3DAC, arXiv:2503.15917); official:
 * models/endodac/endodac.py, models/backbones, models/decoders. Weights: depth_model.*, pose_encoder.*,
 * pose.*, intrinsics_head.*, the stems of the official files. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "depth/depth.h"
#include "depth/pose.h"

typedef struct neck {
  nn_conv conv[3];
  nn_norm norm[3];
} neck;

struct endodac {
  struct depth_model base;
  nn_vit vit;
  dpt_head head;
  nn_conv scale[DPT_LEVELS][3]; /* conv_depth_1 .. 4 */
  pose_net pose;
  nn_linear focal, offsets; /* of the intrinsics' head */
  int32_t size[2];          /* height, width of the frames */
  int32_t shape[2];         /* of the network's input */
  int32_t necks, at[NN_VIT_MAX_LAYERS];
  neck *neck; /* [necks] */
  double nearest, farthest;
  bool has_pose, has_intrinsics;
};
_Static_assert(sizeof(struct endodac) <= DEPTH_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static const struct size {
  const char *name;
  int32_t d, layers, heads, features, out[DPT_LEVELS];
} sizes[] = {
    {"small", 384, 12, 6, 64, {48, 96, 192, 384}},
    {"base", 768, 12, 12, 128, {96, 192, 384, 768}},
    {"large", 1024, 24, 16, 256, {256, 512, 1024, 1024}},
};

static void fail(nn_config *k, const char *what) {
  if (!k->status) k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s", what);
}

static void read_backbone(nn_config *k, struct endodac *m) {
  nn_vit_config *c = &m->vit.config;
  dpt_config *h = &m->head.config;
  const struct size *s = NULL;
  viv_str name = nn_text(k, "backbone_size", "base");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (nn_is(name, sizes[i].name)) s = &sizes[i];
  if (!s && !nn_is(name, "custom")) fail(k, "backbone_size must be small, base, large or custom");
  c->d = s ? s->d : nn_need_int(k, "embed_dim", 1, 1 << 14);
  c->layers = s ? s->layers : (int32_t)nn_need_int(k, "depth", DPT_LEVELS, NN_VIT_MAX_LAYERS);
  c->heads = s ? s->heads : (int32_t)nn_need_int(k, "num_heads", 1, 1024);
  c->image[0] = c->image[1] = (int32_t)nn_int(k, "img_size", 518, 1, 1 << 13);
  c->patch[0] = c->patch[1] = (int32_t)nn_int(k, "patch_size", 14, 1, 1 << 10);
  c->ff = (int64_t)((double)c->d * nn_num(k, "mlp_ratio", 4, 0.01, 64));
  c->channels = 3;
  c->cls = c->cls_position = c->bias = c->key_bias = true;
  c->act = VIV_GELU;
  c->eps = 1e-6f;
  c->resize = NN_VIT_BICUBIC_OFFSET;
  c->names = &nn_vit_timm_names;
  nn_divides(k, c->d, c->heads, "embed_dim and num_heads");
  static const int32_t factors[] = {4, 2, 1, -2};
  memcpy(h->factor, factors, sizeof h->factor);
  if (s) memcpy(h->out, s->out, sizeof h->out);
  if (nn_ints(k, "out_channels", h->out, DPT_LEVELS, 1, 1 << 14) != DPT_LEVELS &&
      (!s || nn_key(k, "out_channels")))
    fail(k, "out_channels must be four numbers");
  h->d = c->d;
  h->features = s ? (int32_t)nn_int(k, "features", s->features, 2, 1 << 14)
                  : (int32_t)nn_need_int(k, "features", 2, 1 << 14);
  h->use_bn = nn_flag(k, "use_bn", false);
  h->use_cls = nn_flag(k, "use_cls_token", false);
}

/* Official: with plain LoRA the factor is 1 / r, for alpha stays 1. */
static void read_adapters(nn_config *k, nn_lora *lora) {
  viv_str type = nn_text(k, "lora_type", "dvlora");
  int32_t rank = (int32_t)nn_int(k, "r", 4, 1, 1 << 12);
  lora->scaled = nn_is(type, "dvlora");
  lora->rank = nn_is(type, "none") ? 0 : rank;
  lora->factor = lora->scaled ? 1 : 1.0f / (float)rank;
  if (!lora->scaled && lora->rank && !nn_is(type, "lora"))
    fail(k, "lora_type must be dvlora, lora or none");
}

static void config(nn_config *k, const viv_model_source *source, struct depth_model *b) {
  static const int32_t usual[] = {2, 5, 8, 11};
  struct endodac *m = (struct endodac *)(void *)b;
  nn_vit_config *c = &m->vit.config;
  b->kind = "scaled";
  read_backbone(k, m);
  read_adapters(k, &c->lora);
  m->shape[0] = 224;
  m->shape[1] = 280;
  if (nn_key(k, "image_shape") && nn_ints(k, "image_shape", m->shape, 2, 1, 1 << 13) != 2)
    fail(k, "image_shape must be a height and a width");
  for (int i = 0; i < 2; i++) nn_divides(k, m->shape[i], c->patch[0], "image_shape and the patch");
  memcpy(m->at, usual, sizeof usual);
  m->necks = 4;
  if (nn_key(k, "residual_block_indexes"))
    m->necks = nn_ints(k, "residual_block_indexes", m->at, NN_VIT_MAX_LAYERS, 0, 1 << 20);
  for (int32_t i = 0; i < m->necks && !k->status; i++)
    if (m->at[i] >= c->layers || (i && m->at[i] <= m->at[i - 1]))
      fail(k, "residual_block_indexes must ascend below the number of blocks");
  if (m->necks && !k->status && c->d < 8) fail(k, "embed_dim must be 8 at least with a neck");
  if (!nn_flag(k, "include_cls_token", true))
    fail(k, "include_cls_token must be true: the patches alone are a grid");
  m->size[0] = (int32_t)nn_int(k, "height", 256, 32, 1 << 13);
  m->size[1] = (int32_t)nn_int(k, "width", 320, 32, 1 << 13);
  m->nearest = nn_num(k, "min_depth", 0.1, 1e-9, 1e9);
  m->farthest = nn_num(k, "max_depth", 150, 1e-9, 1e9);
  m->has_pose = nn_has(k->host, source, "pose.net.0.weight");
  if (m->has_pose) {
    b->other = "frame_1";
    b->motion = "T";
    memcpy(b->motion_size, m->size, sizeof m->size);
  }
  m->has_intrinsics = m->has_pose && nn_flag(k, "learn_intrinsics", true);
  pose_read(k, nn_int(k, "num_layers", 18, 1, 1000), 0.001f, &m->pose);
  nn_divides(k, m->head.config.features, 2, "features and 2");
  nn_vit_check(k, c);
}

/* ---- weights ---- */

static uint64_t more(const struct depth_model *b) {
  const struct endodac *m = (const struct endodac *)(const void *)b;
  return nn_vit_bytes(&m->vit.config) + (uint64_t)m->necks * sizeof(neck) + 64;
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct depth_model *b,
                     viv_error *error) {
  struct endodac *m = (struct endodac *)(void *)b;
  m->neck = host->arena_alloc(arena, (uint64_t)m->necks * sizeof *m->neck + 1);
  if (!m->neck) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  return nn_vit_begin(host, arena, &m->vit, error);
}

static void load_neck(nn_loader *l, int32_t d, neck *w) {
  int32_t inner = d / 8;
  nn_conv_spec spec[3] = {{.in = d, .out = inner, .kernel = 1},
                          {.in = inner, .out = inner, .kernel = 3, .pad = 1},
                          {.in = inner, .out = d, .kernel = 1}};
  for (int i = 0; i < 3; i++) {
    char name[16];
    snprintf(name, sizeof name, "conv%d", i + 1);
    nn_load_conv(l, name, &spec[i], &w->conv[i]);
    snprintf(name, sizeof name, "norm%d", i + 1);
    nn_load_norm(l, name, spec[i].out, 1e-6f, &w->norm[i]);
  }
}

static void load_head(nn_loader *l, struct endodac *m) {
  static const char *const names[] = {"head.0", "head.2", "head.4"};
  int32_t f = m->head.config.features;
  nn_conv_spec spec[3] = {{.in = f, .out = f / 2, .kernel = 3, .pad = 1, .bias = true},
                          {.in = f / 2, .out = 32, .kernel = 3, .pad = 1, .bias = true},
                          {.in = 32, .out = 1, .kernel = 1, .bias = true}};
  dpt_load(l, &m->head, false);
  for (int s = 0; s < DPT_LEVELS; s++) {
    size_t outer = nn_in(l, "conv_depth_%d.", s + 1);
    for (int i = 0; i < 3; i++) nn_load_conv(l, names[i], &spec[i], &m->scale[s][i]);
    nn_out(l, outer);
  }
}

static void tables(nn_loader *l, void *model) {
  struct endodac *m = model;
  neck none = {0};
  nn_at(l, "depth_model.encoder.");
  nn_vit_load(l, &m->vit);
  for (int32_t i = 0; i < m->necks; i++) {
    size_t outer = nn_in(l, "blocks.%d.residual_.", (int)m->at[i]);
    load_neck(l, (int32_t)m->vit.config.d, m->neck ? &m->neck[i] : &none);
    nn_out(l, outer);
  }
  nn_at(l, "depth_model.depth_head.");
  load_head(l, m);
  nn_at(l, "%s", "");
  if (m->has_pose) pose_load(l, &m->pose);
  if (m->has_intrinsics) {
    nn_at(l, "intrinsics_head.");
    nn_load_linear(l, "focal_length_conv", 2, m->pose.hidden, false, &m->focal);
    nn_load_linear(l, "offsets_conv", 2, m->pose.hidden, false, &m->offsets);
  }
  nn_ignore(l, "intrinsics_head.convs_suqeeze.*"); /* stored, never run */
  nn_ignore(l, "depth_model.encoder.mask_token");  /* pre-training only */
}

/* ---- depth ---- */

/* Adds the neck of block `at` to the patches of x [batch, 1 + cells, d]. */
static void add_neck(nn_pass *p, const struct endodac *m, int32_t which, int32_t batch,
                     nn_vit_grid grid, float *x) {
  static const int32_t acts[] = {VIV_GELU, VIV_GELU, 0};
  const viv_compute *c = nn_compute_of(p);
  const neck *w = &m->neck[which];
  int64_t d = m->vit.config.d, cells = (int64_t)grid.height * grid.width;
  int32_t size[2] = {grid.height, grid.width};
  nn_mark mark = nn_here(p);
  nn_map y = nn_new_map(p, batch, (int32_t)d, 2, size, VIV_CHANNELS_LAST);
  for (int64_t b = 0; b < batch; b++)
    memcpy(y.x + b * cells * d, x + (b * (1 + cells) + 1) * d, (size_t)(cells * d) * sizeof *y.x);
  for (int i = 0; i < 3; i++) {
    y = nn_apply_conv(p, &w->conv[i], 0, &y);
    nn_layer_norm(p, &w->norm[i], y.x, batch * cells, y.x);
    if (acts[i]) c->unary(c, acts[i], y.x, y.x, nn_elements(&y));
  }
  dpt_tap(p, &y, "blocks.%d.residual_", m->at[which]);
  for (int64_t b = 0; b < batch; b++)
    c->add(c, x + (b * (1 + cells) + 1) * d, y.x + b * cells * d, cells * d);
  nn_release(p, mark);
}

/* The four paths of frames, finest first. */
static void paths(nn_pass *p, const struct endodac *m, const depth_batch *in,
                  nn_map path[DPT_LEVELS]) {
  const nn_vit_config *c = &m->vit.config;
  nn_map frames = depth_map_of(in, 3);
  nn_map x = nn_resize_map(p, VIV_LINEAR, true, m->shape, &frames);
  nn_vit_grid grid = nn_vit_grid_of(p, &m->vit, m->shape[0], m->shape[1]);
  int64_t n = 1 + (int64_t)grid.height * grid.width;
  float *token = nn_vit_embed(p, &m->vit, x.x, in->n, m->shape[0], m->shape[1]);
  float *normed = nn_room(p, in->n * n * c->d);
  nn_map level[DPT_LEVELS];
  for (int32_t i = 0, which = 0; i < c->layers; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &m->vit, i, in->n, n, token);
    if (which < m->necks && m->at[which] == i) add_neck(p, m, which++, in->n, grid, token);
    nn_tap(p, token, NN_DIMS(in->n, n, c->d), "blocks.%d", (int)i);
    int32_t at = i - (c->layers - DPT_LEVELS);
    if (at < 0) continue;
    nn_layer_norm(p, &m->vit.norm, token, in->n * n, normed);
    level[at] = dpt_level_of(p, &m->head, at, normed, in->n, 1, grid);
  }
  dpt_fuse(p, &m->head, level, path);
}

static nn_map disparity(nn_pass *p, const nn_conv w[3], const nn_map *path) {
  nn_map half = nn_apply_conv(p, &w[0], 0, path);
  int32_t size[2] = {2 * half.size[0], 2 * half.size[1]};
  nn_map out = nn_new_map(p, path->batch, 1, 2, size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  nn_map y = nn_resize_map(p, VIV_LINEAR, true, size, &half);
  y = nn_apply_conv(p, &w[1], VIV_RELU, &y);
  nn_conv_to(p, &w[2], VIV_SIGMOID, NULL, &y, &out);
  nn_release(p, mark);
  return out;
}

static int32_t depth(nn_pass *p) {
  const struct endodac *m = nn_net_of(p);
  depth_batch in = depth_frames(p, "image", m->size, true);
  nn_map path[DPT_LEVELS], finest = {0};
  paths(p, m, &in, path);
  for (int32_t s = 0; s < DPT_LEVELS; s++) {
    if (s && !nn_wants_result(p, "disp.%d", (int)s)) continue;
    nn_map d = disparity(p, m->scale[s], &path[s]);
    nn_result(p, VIV_F32, d.x, NN_DIMS(d.batch, 1, d.size[0], d.size[1]), "disp.%d", (int)s);
    if (!s) finest = d;
  }
  int64_t n = nn_elements(&finest);
  nn_map y = finest;
  float *scaled = depth_scaled(p, finest.x, n, m->nearest, m->farthest);
  y.x = depth_inverse(p, scaled, n);
  nn_result(p, VIV_F32, scaled, NN_DIMS(y.batch, 1, y.size[0], y.size[1]), "scaled_disp");
  nn_result(p, VIV_F32, y.x, NN_DIMS(y.batch, 1, y.size[0], y.size[1]), "predicted_depth");
  depth_give(p, "image", &y, 1);
  return VIV_DONE;
}

/* ---- the camera ---- */

/* K [B, 4, 4] in pixels of the frames. middle: the pose decoder's third convolution. */
static float *intrinsics(nn_pass *p, const struct endodac *m, const nn_map *middle) {
  const viv_compute *c = nn_compute_of(p);
  int64_t space = nn_space(middle), channels = middle->channels;
  float *out = nn_room(p, 16 * (int64_t)middle->batch);
  float *mean = nn_room(p, middle->batch * channels);
  memset(out, 0, 16 * (size_t)middle->batch * sizeof *out);
  for (int64_t b = 0; b < middle->batch; b++)
    for (int64_t k = 0; k < channels; k++) {
      double sum = 0;
      for (int64_t i = 0; i < space; i++) sum += (double)middle->x[(b * space + i) * channels + k];
      mean[b * channels + k] = (float)(sum / (double)space);
    }
  float *focal = nn_apply_linear(p, &m->focal, 0, mean, middle->batch);
  float *offset = nn_apply_linear(p, &m->offsets, 0, mean, middle->batch);
  c->unary(c, VIV_SOFTPLUS, focal, focal, 2 * (int64_t)middle->batch);
  for (int64_t b = 0; b < middle->batch; b++)
    for (int i = 0; i < 2; i++) {
      float side = (float)m->size[1 - i]; /* width for x */
      out[16 * b + 5 * i] = (focal[2 * b + i] + 0.5f) * side;
      out[16 * b + 4 * i + 2] = (offset[2 * b + i] + 0.5f) * side;
      out[16 * b + 10 + 5 * i] = 1;
    }
  return out;
}

static int32_t pose(nn_pass *p) {
  const struct endodac *m = nn_net_of(p);
  if (!m->has_pose)
    nn_stop(p, VIV_NEVER, "weights", "this folder holds no pose network (pose.*, pose_encoder.*)");
  depth_batch from = depth_frames(p, "frame_0", m->size, false);
  depth_batch to = depth_frames(p, "frame_1", m->size, false);
  pose_motion motion = pose_of(p, &m->pose, &to, &from, true);
  float *t = nn_room(p, 16 * (int64_t)from.n), *inverted = nn_room(p, 16 * (int64_t)from.n);
  for (int32_t b = 0; b < from.n; b++) {
    pose_matrix(motion.axisangle + 6 * b, motion.translation + 6 * b, false, t + 16 * b);
    pose_matrix(motion.axisangle + 6 * b, motion.translation + 6 * b, true, inverted + 16 * b);
  }
  nn_result(p, VIV_F32, motion.axisangle, NN_DIMS(from.n, 2, 1, 3), "axisangle");
  nn_result(p, VIV_F32, motion.translation, NN_DIMS(from.n, 2, 1, 3), "translation");
  nn_result(p, VIV_F32, t, NN_DIMS(from.n, 4, 4), "T");
  nn_result(p, VIV_F32, inverted, NN_DIMS(from.n, 4, 4), "T_inverted");
  if (m->has_intrinsics)
    nn_result(p, VIV_F32, intrinsics(p, m, &motion.middle), NN_DIMS(from.n, 4, 4), "K");
  return VIV_DONE;
}

static const nn_task tasks[] = {{"depth", depth}, {"pose", pose}, {NULL, NULL}};

const struct depth_variant depth_endodac = {.model_type = "endodac",
                                            .bytes = sizeof(struct endodac),
                                            .config = config,
                                            .more = more,
                                            .begin = begin,
                                            .tables = tables,
                                            .tasks = tasks};
