/* RF-DETR: a windowed DINOv2, one level, LW-DETR's decoder.
 *
 *   pixels [B, 3, H, W] -> patches + positions [B, gh gw, c], cut into w x w windows, each behind its
 *     own copy of the class token                                 [B w w, 1 + n, c]
 *   blocks (nn/vit.h) inside windows; the global ones over all windows of a picture side by side
 *   features: LN of the tokens after the blocks of out_indices, without class tokens, windows put back
 *   projector (projector.c) -> memory -> decoder (lw_decoder.c)
 *
 * Official: roboflow/rf-detr, whose names transformers keeps; transformers' own are read too. */
#include <stdio.h>
#include <string.h>

#include "detr/neck.h"

struct model {
  struct detr_model m;
  nn_vit vit;
  nn_vit_block block[NN_VIT_MAX_LAYERS];
  char backbone[64];                          /* prefix */
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
                               .height = 560,
                               .width = 560,
                               .resample = 2,
                               .resize = true,
                               .rescale = true,
                               .normalize = true,
                               .on_floats = true,
                               .factor = 1.0 / 255,
                               .mean = {0.485f, 0.456f, 0.406f},
                               .std = {0.229f, 0.224f, 0.225f}};
}

/* Which blocks stay inside windows: as listed, else all up to the last feature but those that
 * follow a feature. */
static void read_windows(nn_config *b, struct model *m) {
  int32_t list[NN_VIT_MAX_LAYERS], last = m->after[m->features - 1];
  if (nn_key(b, "window_block_indexes")) {
    int32_t n =
        nn_ints(b, "window_block_indexes", list, NN_VIT_MAX_LAYERS, 0, NN_VIT_MAX_LAYERS - 1);
    for (int32_t i = 0; i < n; i++) m->windowed[list[i]] = true;
    return;
  }
  for (int32_t i = 0; i <= last && i < NN_VIT_MAX_LAYERS; i++) m->windowed[i] = true;
  for (int32_t i = 0; i < m->features; i++) m->windowed[m->after[i]] = false;
}

/* The table's own grid: a model may run at another size than its positions were made for. */
static void read_grid(nn_config *b, const viv_model_source *source, struct model *m) {
  char name[128];
  snprintf(name, sizeof name, "%sembeddings.position_embeddings", m->backbone);
  int64_t cells = nn_axis(b->host, source, name, 1, 0) - 1, g = 1;
  while (g * g < cells && g < 1 << 12) g++;
  if (g * g == cells) m->vit.config.grid[0] = m->vit.config.grid[1] = (int32_t)g;
}

static void read_backbone(nn_config *k, const viv_model_source *source, struct model *m) {
  nn_vit_config *c = &m->vit.config;
  nn_config b = nn_config_open(k->host, nn_key(k, "backbone_config"),
                               "config.json, backbone_config", k->error);
  nn_vit_read(&b, c);
  c->cls = c->cls_position = true;
  c->resize = NN_VIT_BICUBIC_ANTIALIAS;
  c->names = c->swiglu ? &nn_vit_swiglu_names : &nn_vit_dinov2_names;
  nn_vit_check(&b, c);
  m->side = (int32_t)nn_int(&b, "num_windows", 2, 1, 64);
  if (!nn_key(&b, "out_indices") && !b.status)
    b.status = nn_fail(b.error, VIV_BAD_INPUT, b.where, "out_indices is missing");
  m->features = nn_ints(&b, "out_indices", m->after, DETR_MAX_FEATURES, 1, NN_VIT_MAX_LAYERS - 1);
  for (int32_t i = 0; i < m->features && !b.status; i++)
    if (m->after[i] > c->layers || (i && m->after[i] <= m->after[i - 1]))
      b.status = nn_fail(b.error, VIV_BAD_INPUT, b.where,
                         "out_indices must rise and stay below the %d blocks", (int)c->layers + 1);
  if (!b.status && !nn_flag(&b, "apply_layernorm", true))
    b.status = nn_fail(b.error, VIV_NEVER, b.where, "apply_layernorm false is not computed here");
  if (!b.status && m->features > 0) {
    read_windows(&b, m);
    read_grid(&b, source, m);
  }
  if (!k->status) k->status = b.status;
}

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  detr_read_lw_decoder(k, source, base, &m->decoder);
  bool original = m->decoder.original;
  snprintf(m->backbone, sizeof m->backbone, "%s",
           original ? "backbone.0.encoder.encoder." : "model.backbone.backbone.");
  if (!k->status) read_backbone(k, source, m);
  detr_read_projector(k, &m->projector);
  m->projector.features = m->features;
  m->projector.in = (int32_t)m->vit.config.d;
  m->projector.layer_norms = true;
  m->projector.original = original;
  m->projector.eps = (float)nn_num(k, "layer_norm_eps", 1e-6, 0, 1);
  if (!k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"))) {
    base->prepare.height = m->vit.config.image[0];
    base->prepare.width = m->vit.config.image[1];
  }
  if (!k->status &&
      (m->projector.scales != 1 || m->projector.scale[0].factor != 1 || m->decoder.levels != 1))
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "RF-DETR with %d levels is not computed here: its projector of one level "
                        "is",
                        (int)m->decoder.levels);
}

/* ---- weights ---- */

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  m->vit.block = m->block;
  nn_at(l, "%s", m->backbone);
  nn_vit_load(l, &m->vit);
  nn_at(l, "%s", m->decoder.original ? "backbone.0.projector." : "model.backbone.projector.");
  detr_load_projector(l, &m->projector);
  detr_load_lw_decoder(l, &m->decoder);
  nn_ignore(l, "*mask_token"); /* pre-training only */
}

/* ---- the network ---- */

/* Windows of tokens, each behind the class token: [batch side side, 1 + n, c]. */
static float *embed(nn_pass *p, const struct model *m, const struct detr_batch *batch,
                    nn_vit_grid grid) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = m->vit.config.d, cells = (int64_t)grid.height * grid.width;
  int64_t windows = (int64_t)batch->n * m->side * m->side, n = cells * batch->n / windows;
  float *x = nn_room(p, windows * (n + 1) * d), *cls = nn_room(p, d);
  nn_mark mark = nn_here(p);
  const float *positions = nn_vit_positions(p, &m->vit, grid);
  float *patches = nn_vit_patches(p, &m->vit, batch->pixels, batch->n, batch->height, batch->width);
  float *cut = nn_room(p, windows * n * d);
  for (int32_t b = 0; b < batch->n; b++) c->add(c, patches + b * cells * d, positions, cells * d);
  nn_vit_windows(p, patches, batch->n, grid, m->side, d, cut);
  memcpy(cls, m->vit.cls, (size_t)d * sizeof *cls);
  c->add(c, cls, m->vit.positions, d);
  for (int64_t w = 0; w < windows; w++) {
    memcpy(x + w * (n + 1) * d, cls, (size_t)d * sizeof *x);
    memcpy(x + (w * (n + 1) + 1) * d, cut + w * n * d, (size_t)(n * d) * sizeof *x);
  }
  nn_release(p, mark);
  nn_tap(p, x, NN_DIMS(windows, n + 1, d), "backbone.embeddings");
  return x;
}

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  nn_vit_grid grid = detr_window_grid(p, &m->vit, batch, m->side);
  int64_t d = m->vit.config.d, each = m->side * m->side, windows = batch->n * each;
  int64_t n = (int64_t)grid.height * grid.width / each + 1;
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
    if (m->after[found] != i + 1) continue;
    float *normed = nn_room(p, windows * n * d);
    nn_layer_norm(p, &m->vit.norm, x, windows * n, normed);
    features[found++] = detr_window_map(p, normed, batch->n, grid, m->side, 1, d);
  }
  detr_apply_projector(p, &m->projector, features, maps);
  struct detr_levels lv;
  float *memory = detr_flatten_maps(p, maps, 1, batch, &lv);
  return detr_apply_lw_decoder(p, &m->decoder, &lv, memory);
}

const struct detr_variant detr_variant_rf_detr = {.model_type = "rf_detr",
                                                  .processor = "RfDetrImageProcessor",
                                                  .bytes = sizeof(struct model),
                                                  .tasks = detr_tasks,
                                                  .prepare = prepare,
                                                  .config = config,
                                                  .tables = tables,
                                                  .network = network};
