/* LW-DETR: a plain vision transformer with windows, a projector to a pyramid, and its decoder.
 *
 *   pixels [B, 3, H, W] -> patches + positions (no class token) [B, gh gw, c], cut into windows
 *   blocks (nn/vit.h) with a scale for each channel, keys without bias; window_block_indices inside
 *     windows, the others over all windows of a picture
 *   features: the tokens after the blocks of out_indices, windows put back, no norm
 *   projector (projector.c) -> memory -> decoder (lw_decoder.c)
 *
 * Official: Atten4Vis/LW-DETR; weights as transformers' LwDetrForObjectDetection saves them. */
#include "detr/neck.h"

static const nn_vit_names names = {.patch = "embeddings.projection",
                                   .positions = "embeddings.position_embeddings",
                                   .layer = "encoder.layer",
                                   .norm1 = "layernorm_before",
                                   .norm2 = "layernorm_after",
                                   .query = "attention.attention.query",
                                   .key = "attention.attention.key",
                                   .value = "attention.attention.value",
                                   .out = "attention.output",
                                   .scale1 = "gamma_1",
                                   .scale2 = "gamma_2",
                                   .up = "intermediate.fc1",
                                   .down = "intermediate.fc2"};

struct model {
  struct detr_model m;
  nn_vit vit;
  nn_vit_block block[NN_VIT_MAX_LAYERS];
  int32_t side;                               /* windows a side */
  int32_t features, after[DETR_MAX_FEATURES]; /* a feature is the state after so many blocks */
  bool windowed[NN_VIT_MAX_LAYERS];
  struct detr_projector projector;
  struct detr_lw_decoder decoder;
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration ---- */

static void prepare(struct detr_prepare *how) {
  *how = (struct detr_prepare){.rule = DETR_EXACT,
                               .height = 640,
                               .width = 640,
                               .resample = 2,
                               .resize = true,
                               .rescale = true,
                               .normalize = true,
                               .factor = 1.0 / 255,
                               .mean = {0.485f, 0.456f, 0.406f},
                               .std = {0.229f, 0.224f, 0.225f}};
}

static void read_backbone(nn_config *k, struct model *m) {
  nn_vit_config *c = &m->vit.config;
  nn_config b = nn_config_open(k->host, nn_key(k, "backbone_config"),
                               "config.json, backbone_config", k->error);
  nn_vit_read(&b, c);
  c->eps = (float)nn_num(&b, "layer_norm_eps", 1e-6, 0, 1);
  c->image[0] = c->image[1] = (int32_t)nn_int(&b, "pretrain_image_size", 224, 1, 1 << 16);
  c->cls_position = true;
  c->key_bias = false;
  c->resize = NN_VIT_BICUBIC;
  c->names = &names;
  nn_vit_check(&b, c);
  int32_t windows = (int32_t)nn_int(&b, "num_windows", 16, 1, 1 << 12);
  for (m->side = 1; m->side * m->side < windows;) m->side++;
  if (!b.status && m->side * m->side != windows)
    b.status = nn_fail(b.error, VIV_BAD_INPUT, b.where, "num_windows is %d, which is no square",
                       (int)windows);
  if (!b.status && (!nn_key(&b, "out_indices") || !nn_key(&b, "window_block_indices")))
    b.status = nn_fail(b.error, VIV_BAD_INPUT, b.where,
                       "out_indices and window_block_indices must both be given");
  m->features = nn_ints(&b, "out_indices", m->after, DETR_MAX_FEATURES, 1, NN_VIT_MAX_LAYERS - 1);
  for (int32_t i = 0; i < m->features && !b.status; i++)
    if (m->after[i] > c->layers || (i && m->after[i] <= m->after[i - 1]))
      b.status = nn_fail(b.error, VIV_BAD_INPUT, b.where,
                         "out_indices must rise and stay below the %d blocks", (int)c->layers + 1);
  int32_t list[NN_VIT_MAX_LAYERS];
  int32_t n = b.status ? 0
                       : nn_ints(&b, "window_block_indices", list, NN_VIT_MAX_LAYERS, 0,
                                 NN_VIT_MAX_LAYERS - 1);
  for (int32_t i = 0; i < n; i++) m->windowed[list[i]] = true;
  if (!b.status && !nn_flag(&b, "use_absolute_position_embeddings", true))
    b.status = nn_fail(b.error, VIV_NEVER, b.where, "a model without positions is not computed");
  if (!k->status) k->status = b.status;
}

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  detr_read_lw_decoder(k, source, base, &m->decoder);
  if (!k->status && m->decoder.original)
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "weights under the first repository's names: transformers' are read here");
  if (!k->status) read_backbone(k, m);
  detr_read_projector(k, &m->projector);
  m->projector.features = m->features;
  m->projector.in = (int32_t)m->vit.config.d;
  m->projector.eps = (float)nn_num(k, "batch_norm_eps", 1e-5, 0, 1);
  if (!k->status && m->projector.scales != m->decoder.levels)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                        "num_feature_levels is %d with %d projector_scale_factors",
                        (int)m->decoder.levels, (int)m->projector.scales);
}

/* ---- weights ---- */

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  m->vit.block = m->block;
  nn_at(l, "%s", "model.backbone.backbone.");
  nn_vit_load(l, &m->vit);
  nn_at(l, "%s", "model.backbone.projector.");
  detr_load_projector(l, &m->projector);
  detr_load_lw_decoder(l, &m->decoder);
  nn_ignore(l, "*mask_token"); /* pre-training only */
}

/* ---- the network ---- */

/* [batch side side, n, c] */
static float *embed(nn_pass *p, const struct model *m, const struct detr_batch *batch,
                    nn_vit_grid grid) {
  int64_t d = m->vit.config.d;
  nn_map map = {.x = nn_vit_embed(p, &m->vit, batch->pixels, batch->n, batch->height, batch->width),
                .batch = batch->n,
                .channels = (int32_t)d,
                .dims = 2,
                .size = {grid.height, grid.width, 1},
                .layout = VIV_CHANNELS_LAST};
  detr_tap_map(p, &map, "backbone.embeddings");
  float *x = nn_room(p, nn_elements(&map));
  nn_vit_windows(p, map.x, batch->n, grid, m->side, d, x);
  return x;
}

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  nn_vit_grid grid = detr_window_grid(p, &m->vit, batch, m->side);
  int64_t d = m->vit.config.d, each = m->side * m->side, windows = batch->n * each;
  int64_t n = (int64_t)grid.height * grid.width / each;
  float *x = embed(p, m, batch, grid);
  nn_map features[DETR_MAX_FEATURES], maps[DETR_MAX_LEVELS];
  int32_t found = 0;
  for (int32_t i = 0; found < m->features; i++) {
    nn_pass_poll(p);
    if (m->windowed[i])
      nn_vit_block_apply(p, &m->vit, i, windows, n, x);
    else
      nn_vit_block_apply(p, &m->vit, i, batch->n, each * n, x);
    nn_tap(p, x, NN_DIMS(windows, n, d), "backbone.layer.%d", (int)i);
    if (m->after[found] == i + 1)
      features[found++] = detr_window_map(p, x, batch->n, grid, m->side, 0, d);
  }
  detr_apply_projector(p, &m->projector, features, maps);
  struct detr_levels lv;
  float *memory = detr_flatten_maps(p, maps, m->projector.scales, batch, &lv);
  return detr_apply_lw_decoder(p, &m->decoder, &lv, memory);
}

const struct detr_variant detr_variant_lw_detr = {.model_type = "lw_detr",
                                                  .bytes = sizeof(struct model),
                                                  .tasks = detr_tasks,
                                                  .prepare = prepare,
                                                  .config = config,
                                                  .tables = tables,
                                                  .network = network};
