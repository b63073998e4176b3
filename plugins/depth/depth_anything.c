/* Depth Anything V2, official names (DepthAnythingV2) and transformers'.
 *
 *   x = DINOv2's tokens; after the blocks that config.json lists, the last norm: four levels
 *   DPT's head at the grid's size times the patch -> ReLU (relative), or sigmoid times max_depth
 *
 * Relative depth is inverse depth up to a scale and a shift: larger is nearer. Yang et al.,
 * arXiv:2406.09414; depth_anything_v2/dpt.py; DepthAnythingForDepthEstimation. */
#include <stdio.h>
#include <string.h>

#include "depth/depth.h"
#include "nn/boxes.h"

struct anything {
  struct depth_model base;
  nn_vit vit;
  dpt_head head;
  depth_rules rules;
  int32_t level[DPT_LEVELS]; /* the blocks whose results the head reads */
  bool normed;               /* after the last norm */
  bool metric;
  float most; /* max_depth: what the head's result is multiplied with */
};
_Static_assert(sizeof(struct anything) <= DEPTH_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static const struct size {
  const char *name;
  int32_t d, layers, heads, features, out[DPT_LEVELS], level[DPT_LEVELS];
} sizes[] = {
    {"vits", 384, 12, 6, 64, {48, 96, 192, 384}, {2, 5, 8, 11}},
    {"vitb", 768, 12, 12, 128, {96, 192, 384, 768}, {2, 5, 8, 11}},
    {"vitl", 1024, 24, 16, 256, {256, 512, 1024, 1024}, {4, 11, 17, 23}},
    {"vitg", 1536, 40, 24, 384, {1536, 1536, 1536, 1536}, {9, 19, 29, 39}},
};

static void fail(nn_config *k, const char *what) {
  if (!k->status) k->status = nn_fail(k->error, VIV_NEVER, k->where, "%s", what);
}

static void four(nn_config *k, const char *key, int32_t out[DPT_LEVELS], int64_t lo, int64_t hi) {
  if (!nn_key(k, key)) return;
  if (nn_ints(k, key, out, DPT_LEVELS, lo, hi) != DPT_LEVELS && !k->status)
    k->status =
        nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be %d numbers", key, DPT_LEVELS);
}

static void read_kind(nn_config *k, struct anything *m) {
  viv_str kind = nn_text(k, "depth_estimation_type", "relative");
  m->metric = nn_is(kind, "metric");
  m->base.kind = m->metric ? "metric" : "inverse";
  if (!m->metric && !nn_is(kind, "relative"))
    fail(k, "depth_estimation_type must be relative or metric");
}

static void check(nn_config *k, struct anything *m) {
  const nn_vit_config *c = &m->vit.config;
  for (int i = 0; i < DPT_LEVELS && !k->status; i++)
    if (m->level[i] >= c->layers || (i && m->level[i] <= m->level[i - 1]))
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                          "level %d is read after block %d, but blocks must ascend below %d", i,
                          (int)m->level[i], (int)c->layers);
  nn_divides(k, m->head.config.features, 2, "the head's features and 2");
  if (c->patch[0] != c->patch[1]) fail(k, "patches must be square");
  nn_vit_check(k, &m->vit.config);
}

static void official_config(nn_config *k, const viv_model_source *source, struct depth_model *b) {
  struct anything *m = (struct anything *)(void *)b;
  nn_vit_config *c = &m->vit.config;
  dpt_config *h = &m->head.config;
  const struct size *s = NULL;
  (void)source;
  read_kind(k, m);
  m->most = m->metric ? (float)nn_num(k, "max_depth", 20, 1e-6, 1e9) : 1;
  m->rules = depth_official_rules(518, 14);
  m->normed = true;
  if (b->weightless) return;
  viv_str name = nn_text(k, "encoder", "");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (nn_is(name, sizes[i].name)) s = &sizes[i];
  if (!s && !nn_is(name, "custom")) fail(k, "encoder must be vits, vitb, vitl, vitg or custom");
  c->d = s ? s->d : nn_need_int(k, "embed_dim", 1, 1 << 14);
  c->layers = s ? s->layers : (int32_t)nn_need_int(k, "depth", 1, NN_VIT_MAX_LAYERS);
  c->heads = s ? s->heads : (int32_t)nn_need_int(k, "num_heads", 1, 1024);
  c->image[0] = c->image[1] = (int32_t)nn_int(k, "img_size", 518, 1, 1 << 13);
  c->patch[0] = c->patch[1] = (int32_t)nn_int(k, "patch_size", 14, 1, 1 << 10);
  viv_str ffn = nn_text(k, "ffn_layer", s == &sizes[3] ? "swiglufused" : "mlp");
  c->swiglu = nn_is(ffn, "swiglufused") || nn_is(ffn, "swiglu");
  if (!c->swiglu && !nn_is(ffn, "mlp")) fail(k, "ffn_layer must be mlp or swiglufused");
  c->ff = (int64_t)((double)c->d * nn_num(k, "mlp_ratio", 4, 0.01, 64));
  if (c->swiglu) c->ff = (c->ff * 2 / 3 + 7) / 8 * 8;
  c->channels = 3;
  c->cls = c->cls_position = c->bias = c->key_bias = true;
  c->act = VIV_GELU;
  c->eps = 1e-6f;
  c->resize = NN_VIT_BICUBIC_OFFSET;
  c->names = c->swiglu ? &nn_vit_timm_swiglu_names : &nn_vit_timm_names;
  nn_divides(k, c->d, c->heads, "embed_dim and num_heads");
  static const int32_t factors[] = {4, 2, 1, -2};
  memcpy(h->factor, factors, sizeof h->factor);
  if (s) {
    memcpy(h->out, s->out, sizeof h->out);
    memcpy(m->level, s->level, sizeof m->level);
  } else if (!nn_key(k, "out_channels") || !nn_key(k, "intermediate_layers")) {
    fail(k, "encoder custom needs out_channels and intermediate_layers");
  }
  four(k, "out_channels", h->out, 1, 1 << 14);
  four(k, "intermediate_layers", m->level, 0, NN_VIT_MAX_LAYERS);
  h->d = c->d;
  h->features = s ? (int32_t)nn_int(k, "features", s->features, 2, 1 << 14)
                  : (int32_t)nn_need_int(k, "features", 2, 1 << 14);
  h->hidden = 32;
  h->use_bn = nn_flag(k, "use_bn", false);
  h->use_cls = nn_flag(k, "use_clstoken", false);
  check(k, m);
}

/* out_indices, or out_features ["stage3", ..]; stage n is the result of block n - 1. */
static void read_stages(nn_config *k, struct anything *m) {
  const viv_host *host = k->host;
  if (nn_key(k, "out_indices")) {
    four(k, "out_indices", m->level, 1, NN_VIT_MAX_LAYERS);
  } else {
    const viv_json *list = nn_key(k, "out_features");
    for (int i = 0; i < DPT_LEVELS; i++) {
      const viv_json *item = list ? host->json_item(list, i) : NULL;
      viv_str s = item ? host->json_string(item) : nn_str("");
      char text[16] = {0};
      if (s.len > 5 && s.len < sizeof text) memcpy(text, s.ptr, s.len);
      if (sscanf(text, "stage%d", &m->level[i]) != 1) {
        fail(k, "backbone_config needs out_indices or out_features of four stages");
        return;
      }
    }
  }
  for (int i = 0; i < DPT_LEVELS; i++) m->level[i]--;
}

static void read_factors(nn_config *k, dpt_config *h) {
  static const int32_t usual[] = {4, 2, 1, -2};
  memcpy(h->factor, usual, sizeof usual);
  if (!nn_key(k, "reassemble_factors") || k->status) return;
  float f[DPT_LEVELS];
  nn_numbers(k, "reassemble_factors", f, DPT_LEVELS, 1e-3);
  for (int i = 0; i < DPT_LEVELS; i++)
    h->factor[i] = f[i] >= 1 ? (int32_t)f[i] : -(int32_t)(1 / f[i]);
  for (int i = 0; i < DPT_LEVELS && !k->status; i++)
    if (h->factor[i] > 64 || h->factor[i] < -64) fail(k, "reassemble_factors are out of range");
}

static void hf_config(nn_config *k, const viv_model_source *source, struct depth_model *b) {
  struct anything *m = (struct anything *)(void *)b;
  nn_vit_config *c = &m->vit.config;
  dpt_config *h = &m->head.config;
  read_kind(k, m);
  m->most = (float)nn_num(k, "max_depth", 1, 1e-6, 1e9);
  m->rules = depth_official_rules(518, 14);
  m->rules.bytes = m->rules.back_cubic = true;
  m->rules.filter = VIV_CUBIC;
  m->rules.rule = NN_NEAREST;
  depth_read_rules(k, source, &m->rules);
  if (b->weightless) return;
  const viv_json *backbone = nn_key(k, "backbone_config");
  if (!backbone) {
    fail(k, "backbone_config is missing; only a DINOv2 described there is supported");
    return;
  }
  nn_config v = nn_config_open(k->host, backbone, "config.json, backbone_config", k->error);
  if (!nn_is(nn_text(&v, "model_type", ""), "dinov2")) fail(&v, "model_type must be dinov2");
  c->d = 768;
  c->layers = c->heads = 12;
  c->image[0] = 224;
  c->patch[0] = 14;
  c->eps = 1e-6f;
  nn_vit_read(&v, c);
  c->cls = c->cls_position = true;
  c->registers = 0;
  c->resize = NN_VIT_BICUBIC;
  c->names = c->swiglu ? &nn_vit_swiglu_names : &nn_vit_dinov2_names;
  if (!v.status && c->channels != 3) fail(&v, "num_channels must be 3");
  m->normed = nn_flag(&v, "apply_layernorm", true);
  if (nn_flag(&v, "reshape_hidden_states", false)) fail(&v, "reshape_hidden_states must be false");
  read_stages(&v, m);
  if (v.status) k->status = v.status;
  h->transformers = true;
  h->d = nn_int(k, "reassemble_hidden_size", 384, 1, 1 << 14);
  h->features = (int32_t)nn_int(k, "fusion_hidden_size", 64, 2, 1 << 14);
  h->hidden = (int32_t)nn_int(k, "head_hidden_size", 32, 1, 1 << 14);
  static const int32_t out[] = {48, 96, 192, 384};
  memcpy(h->out, out, sizeof out);
  four(k, "neck_hidden_sizes", h->out, 1, 1 << 14);
  read_factors(k, h);
  int64_t at = nn_key(k, "head_in_index") ? nn_int(k, "head_in_index", -1, -4, 3) : -1;
  if (at != -1 && at != 3) fail(k, "head_in_index must be -1");
  if (!k->status && h->d != c->d) fail(k, "reassemble_hidden_size must be the backbone's width");
  check(k, m);
}

/* ---- weights ---- */

static uint64_t more(const struct depth_model *b) {
  return nn_vit_bytes(&((const struct anything *)(const void *)b)->vit.config);
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct depth_model *b,
                     viv_error *error) {
  return nn_vit_begin(host, arena, &((struct anything *)(void *)b)->vit, error);
}

static void tables(nn_loader *l, void *model) {
  struct anything *m = model;
  bool hf = m->head.config.transformers;
  nn_at(l, "%s", hf ? "backbone." : "pretrained.");
  nn_vit_load(l, &m->vit);
  nn_at(l, "%s", hf ? "" : "depth_head.");
  dpt_load(l, &m->head, true);
  nn_ignore(l, "*mask_token"); /* pre-training only */
}

/* ---- the pass ---- */

static void tap_positions(nn_pass *p, const nn_vit *vit, nn_vit_grid grid) {
  if (!nn_taps(p, "pos_embed")) return;
  nn_mark mark = nn_here(p);
  int64_t d = vit->config.d, cells = (int64_t)grid.height * grid.width;
  float *all = nn_room(p, (1 + cells) * d);
  memcpy(all, vit->positions, (size_t)d * sizeof *all);
  memcpy(all + d, nn_vit_positions(p, vit, grid), (size_t)(cells * d) * sizeof *all);
  nn_tap(p, all, NN_DIMS(1, 1 + cells, d), "pos_embed");
  nn_release(p, mark);
}

/* [n, height, width] of pixels [n, 3, height, width]; the map is a little smaller when the sides are
 * no multiples of the patch. */
static nn_map network(nn_pass *p, const depth_batch *in) {
  const struct anything *m = nn_net_of(p);
  const nn_vit_config *c = &m->vit.config;
  const viv_compute *k = nn_compute_of(p);
  bool hf = m->head.config.transformers;
  nn_vit_grid grid = nn_vit_grid_of(p, &m->vit, in->height, in->width);
  int64_t extra = nn_vit_extra(&m->vit), n = extra + (int64_t)grid.height * grid.width;
  int32_t size[2] = {grid.height * c->patch[0], grid.width * c->patch[1]};
  if (!hf && (size[0] != in->height || size[1] != in->width))
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%d x %d pixels: both must be multiples of %d",
            (int)in->height, (int)in->width, (int)c->patch[0]);
  nn_map level[DPT_LEVELS], path[DPT_LEVELS];
  nn_map out = nn_new_map(p, in->n, 1, 2, size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  tap_positions(p, &m->vit, grid);
  float *x = nn_vit_embed(p, &m->vit, in->pixels, in->n, in->height, in->width);
  float *normed = nn_room(p, in->n * n * c->d);
  if (hf) nn_tap(p, x, NN_DIMS(in->n, n, c->d), "embeddings");
  for (int32_t i = 0, at = 0; at < DPT_LEVELS; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &m->vit, i, in->n, n, x);
    nn_tap(p, x, NN_DIMS(in->n, n, c->d), hf ? "layer.%d" : "blocks.%d", (int)i);
    if (i != m->level[at]) continue;
    if (m->normed) nn_layer_norm(p, &m->vit.norm, x, in->n * n, normed);
    level[at] = dpt_level_of(p, &m->head, at, m->normed ? normed : x, in->n, extra, grid);
    at++;
  }
  dpt_fuse(p, &m->head, level, path);
  nn_map last = dpt_output(p, &m->head, &path[0], size, m->metric ? VIV_SIGMOID : VIV_RELU);
  int64_t total = nn_elements(&out);
  k->scale_shift(k, last.x, &m->most, NULL, 1, 1, total, out.x);
  nn_release(p, mark);
  return out;
}

/* ---- tasks ---- */

static depth_batch read_batch(nn_pass *p) {
  int64_t shape[4] = {0, 3, 0, 0};
  const float *x = nn_need_floats(p, "pixel_values", 4, shape);
  for (int i = 0; i < 4; i++)
    if (shape[i] < 1 || shape[i] > 1 << 13)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values", "axis %d has the length %lld", i,
              (long long)shape[i]);
  return (depth_batch){(int32_t)shape[0], (int32_t)shape[2], (int32_t)shape[3],
                       (float *)(uintptr_t)x};
}

static int32_t forward(nn_pass *p) {
  depth_batch in = read_batch(p);
  nn_map y = network(p, &in);
  nn_result(p, VIV_F32, y.x, NN_DIMS(y.batch, y.size[0], y.size[1]), "predicted_depth");
  return VIV_DONE;
}

/* The pictures [first, first + n) as a batch; all have that size. */
static depth_batch prepared(nn_pass *p, const depth_rules *how, int32_t first, int32_t n,
                            const int32_t size[2]) {
  int64_t one = 3 * (int64_t)size[0] * size[1];
  depth_batch b = {n, size[0], size[1], nn_room(p, n * one)};
  for (int32_t i = 0; i < n; i++) {
    nn_pixels from = nn_picture_at(p, "image", first + i, DEPTH_PICTURE_MAX);
    nn_pass_poll(p);
    depth_prepare(p, how, &from, size, b.pixels + i * one);
  }
  return b;
}

/* The size of each picture [n, 2]; *same: they all agree. */
static int32_t (*sizes_of(nn_pass *p, const depth_rules *how, int32_t *n, bool *same))[2] {
  *n = nn_count(p, "image");
  if (*n < 1) nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  int32_t(*size)[2] = nn_bytes(p, *n, sizeof *size);
  *same = true;
  for (int32_t i = 0; i < *n; i++) {
    nn_pixels from = nn_picture_at(p, "image", i, DEPTH_PICTURE_MAX);
    depth_size_of(p, how, &from, size[i]);
    *same = *same && size[i][0] == size[0][0] && size[i][1] == size[0][1];
  }
  return size;
}

static int32_t preprocess(nn_pass *p) {
  const struct anything *m = nn_net_of(p);
  depth_rules how = depth_request_rules(p, &m->rules);
  int32_t n;
  bool same;
  int32_t(*size)[2] = sizes_of(p, &how, &n, &same);
  if (!same) nn_stop(p, VIV_BAD_INPUT, "image", "the pictures come out in different sizes");
  depth_batch b = prepared(p, &how, 0, n, size[0]);
  nn_result(p, VIV_F32, b.pixels, NN_DIMS(n, 3, b.height, b.width), "pixel_values");
  return VIV_DONE;
}

/* Pictures that come out in one size are one batch; else each is its own. */
static int32_t depth(nn_pass *p) {
  const struct anything *m = nn_net_of(p);
  depth_rules how = depth_request_rules(p, &m->rules);
  int32_t n;
  bool same;
  int32_t(*size)[2] = sizes_of(p, &how, &n, &same);
  for (int32_t i = 0; i < n; i += same ? n : 1) {
    nn_mark mark = nn_here(p);
    depth_batch b = prepared(p, &how, i, same ? n : 1, size[i]);
    nn_tap(p, b.pixels, NN_DIMS(b.n, 3, b.height, b.width), "pixel_values");
    nn_map y = network(p, &b);
    if (same && nn_wants_result(p, "predicted_depth"))
      nn_result(p, VIV_F32, y.x, NN_DIMS(y.batch, y.size[0], y.size[1]), "predicted_depth");
    for (int32_t j = 0; j < b.n; j++) {
      nn_pixels from = nn_picture_at(p, "image", i + j, DEPTH_PICTURE_MAX);
      nn_mark inner = nn_here(p);
      const float *map =
          depth_restore(p, &how, y.x + j * nn_space(&y), y.size, from.height, from.width);
      nn_result(p, VIV_F32, map, NN_DIMS(from.height, from.width), "depth.%d", (int)(i + j));
      nn_release(p, inner);
    }
    nn_release(p, mark);
  }
  return VIV_DONE;
}

static int32_t postprocess(nn_pass *p) {
  const struct anything *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, 0};
  const viv_tensor *t = nn_need(p, "predicted_depth");
  /* A single map may come with or without its batch and channel. */
  const float *x = nn_as_floats(p, t, "predicted_depth");
  shape[0] = 1;
  for (int32_t i = 0; i < t->ndim - 2; i++) shape[0] *= t->shape[i];
  shape[1] = t->ndim > 1 ? t->shape[t->ndim - 2] : 0;
  shape[2] = t->ndim > 1 ? t->shape[t->ndim - 1] : 0;
  const viv_host *h = nn_host_of(p);
  const viv_json *list = nn_param(p, "target_sizes");
  if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1 || shape[1] > 1 << 13 || shape[2] > 1 << 13)
    nn_stop(p, VIV_BAD_INPUT, "predicted_depth", "must be [B, height, width]");
  if (!list || h->json_type(list) != VIV_JSON_ARRAY || h->json_count(list) != shape[0])
    nn_stop(p, VIV_BAD_INPUT, "params", "target_sizes must be a list of %lld pairs",
            (long long)shape[0]);
  for (int64_t i = 0; i < shape[0]; i++) {
    const viv_json *pair = h->json_item(list, i);
    double to[2] = {0, 0};
    for (int k = 0; k < 2 && h->json_type(pair) == VIV_JSON_ARRAY; k++)
      to[k] = h->json_number(h->json_item(pair, k));
    if (!(to[0] >= 1 && to[1] >= 1 && to[0] <= 1 << 16 && to[1] <= 1 << 16))
      nn_stop(p, VIV_BAD_INPUT, "params", "target_sizes[%lld] must be a height and a width",
              (long long)i);
    int32_t size[2] = {(int32_t)shape[1], (int32_t)shape[2]};
    const float *map = depth_restore(p, &m->rules, x + i * shape[1] * shape[2], size,
                                     (int32_t)to[0], (int32_t)to[1]);
    nn_result(p, VIV_F32, map, NN_DIMS((int64_t)to[0], (int64_t)to[1]), "depth.%d", (int)i);
  }
  return VIV_DONE;
}

static const nn_task tasks[] = {{"depth", depth},
                                {"forward", forward},
                                {"preprocess", preprocess},
                                {"postprocess", postprocess},
                                {NULL, NULL}};
static const nn_task weightless[] = {
    {"preprocess", preprocess}, {"postprocess", postprocess}, {NULL, NULL}};

#define VARIANT(symbol, type, reader)                                                              \
  const struct depth_variant symbol = {.model_type = (type),                                       \
                                       .bytes = sizeof(struct anything),                           \
                                       .config = (reader),                                         \
                                       .more = more,                                               \
                                       .begin = begin,                                             \
                                       .tables = tables,                                           \
                                       .tasks = tasks,                                             \
                                       .weightless = weightless}
VARIANT(depth_anything, "depth_anything_v2", official_config);
VARIANT(depth_anything_hf, "depth_anything", hf_config);
