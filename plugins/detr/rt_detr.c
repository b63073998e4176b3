/* RT-DETR and RT-DETR v2:
 *
 *   ResNet-D maps of strides 8, 16, 32 -> hybrid encoder (hybrid_encoder.c) -> 1x1 and norm
 *     -> memory [B, S, d]
 *   two-stage: m = LN(W memory), rows of cells at the border 0;  the Q cells with the largest class
 *     logit: reference = sigmoid(MLP(m) + logit of the cell's box), target = m
 *   decoder layer, pos = MLP(reference), anew in each:
 *     t = LN(t + SA(q = k = t + pos, v = t))
 *     t = LN(t + deformable(t + pos, reference, memory))
 *     t = LN(t + FFN(t))
 *     reference = sigmoid(MLP_i(t) + inverse sigmoid(reference))
 *   logits = W t [B, Q, classes], boxes = the last reference
 *
 * v2 scales the sampling offsets and may sample single cells. Official: lyuwenyu/RT-DETR
 * (rtdetr_pytorch, rtdetrv2_pytorch); weights as transformers saves them. */
#include <float.h>
#include <string.h>

#include "detr/neck.h"

struct layer {
  nn_mha self;
  struct detr_msda cross;
  nn_norm self_norm, cross_norm;
  struct detr_ffn ffn;
  nn_linear classes;
  nn_mlp boxes;
};

struct model {
  struct detr_model m;
  nn_resnet backbone;
  uint32_t stages; /* bit s: the stage's map goes on */
  struct detr_hybrid hybrid;
  int32_t levels, in[DETR_MAX_LEVELS], layers, points, act;
  int64_t ff;
  float eps, norm_eps, offset_scale;
  bool nearest, learned, outside; /* learned: queries; outside: heads stand without a prefix */
  nn_conv input[DETR_MAX_LEVELS];
  const viv_weight *queries; /* [Q, d] or NULL */
  nn_linear memory, score;
  nn_norm memory_norm;
  nn_mlp box, position;
  struct layer layer[DETR_MAX_LAYERS];
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
                               .factor = 1.0 / 255,
                               .mean = {0.485f, 0.456f, 0.406f},
                               .std = {0.229f, 0.224f, 0.225f}};
}

/* The maps that the backbone hands on: out_indices, or the last three. */
static void read_backbone(nn_config *k, struct model *m) {
  nn_config b = nn_config_open(k->host, nn_key(k, "backbone_config"),
                               "config.json, backbone_config", k->error);
  nn_resnet_spec *s = &m->backbone.spec;
  int32_t at[4] = {2, 3, 4, 0}, n = 3, blocks = 0;
  nn_resnet_read(&b, s);
  s->names = NN_RESNET_RT_DETR;
  s->deep_stem = s->pool_shortcut = true;
  if (nn_key(&b, "out_indices")) n = nn_ints(&b, "out_indices", at, 4, 1, 4);
  if (!k->status) k->status = b.status;
  for (int32_t i = 0; i < n; i++) m->stages |= 1u << at[i];
  for (int32_t i = 0; i < 4; i++) blocks += s->layers[i];
  if (!k->status && (n != m->hybrid.levels || blocks > NN_RESNET_BLOCKS))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, b.where,
                        "%d maps of %d blocks come out, but encoder_in_channels lists %d", (int)n,
                        (int)blocks, (int)m->hybrid.levels);
  for (int32_t i = 0, l = 0; i < 4 && !k->status; i++) {
    if (!(m->stages >> (i + 1) & 1)) continue;
    if (s->out[i] != m->hybrid.in[l++])
      k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                          "encoder_in_channels says %d for a map of %d channels",
                          (int)m->hybrid.in[l - 1], (int)s->out[i]);
  }
}

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  int32_t in[DETR_MAX_LEVELS] = {256, 256, 256};
  base->d = nn_int(k, "d_model", 256, 4, 1 << 14);
  base->queries = nn_int(k, "num_queries", 300, 1, 1 << 16);
  base->heads = (int32_t)nn_int(k, "decoder_attention_heads", 8, 1, 1024);
  base->labels = detr_labels(k, nn_axis(k->host, source, "model.enc_score_head.bias", 0, 80));
  detr_read_hybrid(k, &m->hybrid);
  m->levels = (int32_t)nn_int(k, "num_feature_levels", 3, 1, DETR_MAX_LEVELS);
  int32_t maps = nn_key(k, "decoder_in_channels")
                     ? nn_ints(k, "decoder_in_channels", in, DETR_MAX_LEVELS, 1, 1 << 14)
                     : 3;
  memcpy(m->in, in, sizeof in);
  m->layers = (int32_t)nn_int(k, "decoder_layers", 6, 1, DETR_MAX_LAYERS);
  m->points = (int32_t)nn_int(k, "decoder_n_points", 4, 1, 64);
  m->act = nn_activation(k, "decoder_activation_function", "relu");
  m->ff = nn_int(k, "decoder_ffn_dim", 1024, 1, 1 << 18);
  m->eps = m->hybrid.layer_eps;
  m->norm_eps = m->hybrid.norm_eps;
  m->learned = nn_flag(k, "learn_initial_query", false);
  m->outside = !nn_has(k->host, source, "model.decoder.class_embed.0.weight");
  if (nn_is(nn_text(k, "model_type", ""), "rt_detr_v2")) {
    m->offset_scale = (float)nn_num(k, "decoder_offset_scale", 0.5, 1e-6, 1e6);
    m->nearest = nn_is(nn_text(k, "decoder_method", "default"), "discrete");
  }
  nn_divides(k, base->d, base->heads, "d_model and decoder_attention_heads");
  if (!k->status && (maps != m->levels || maps != m->hybrid.levels))
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "num_feature_levels is %d with %d maps: levels beyond the encoder's are "
                        "not computed here",
                        (int)m->levels, (int)m->hybrid.levels);
  for (int32_t i = 0; i < maps && !k->status; i++)
    if (in[i] != m->hybrid.d)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                          "decoder_in_channels says %d for maps of %d channels", (int)in[i],
                          (int)m->hybrid.d);
  if (!k->status) read_backbone(k, m);
}

/* ---- weights ---- */

static void load_layer(nn_loader *l, const struct model *m, int32_t i, struct layer *w) {
  int64_t d = m->m.d;
  char number[12] = {(char)(i < 10 ? '0' + i : '0' + i / 10), (char)(i < 10 ? 0 : '0' + i % 10)};
  size_t outer = nn_in(l, "model.decoder.layers.%s.", number);
  detr_load_attention(l, "self_attn", d, m->m.heads, &w->self);
  nn_load_norm(l, "self_attn_layer_norm", d, m->eps, &w->self_norm);
  detr_load_msda(l, "encoder_attn", d, m->m.heads, m->levels, m->points, &w->cross);
  nn_load_norm(l, "encoder_attn_layer_norm", d, m->eps, &w->cross_norm);
  detr_load_ffn(l, d, m->ff, m->act, &w->ffn);
  w->ffn.norm.eps = m->eps;
  w->cross.offset_scale = m->offset_scale;
  w->cross.nearest = m->nearest;
  nn_out(l, outer);
  outer = nn_in(l, "%s", m->outside ? "class_embed." : "model.decoder.class_embed.");
  nn_load_linear(l, number, m->m.labels, d, true, &w->classes);
  nn_out(l, outer);
  outer = nn_in(l, "%s", m->outside ? "bbox_embed." : "model.decoder.bbox_embed.");
  nn_load_mlp(l, number, d, d, 4, 3, VIV_RELU, &w->boxes);
  nn_out(l, outer);
}

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  int64_t d = m->m.d;
  nn_at(l, "%s", "model.backbone.model.");
  nn_load_resnet(l, &m->backbone.spec, &m->backbone);
  nn_at(l, "%s", "model.");
  detr_load_hybrid(l, &m->hybrid);
  for (int32_t i = 0; i < m->levels; i++) {
    nn_conv_spec s = {
        .in = m->in[i], .out = (int32_t)d, .kernel = 1, .norm = "1", .norm_eps = m->norm_eps};
    size_t outer = nn_in(l, "decoder_input_proj.%d.", (int)i);
    nn_load_conv(l, "0", &s, &m->input[i]);
    nn_out(l, outer);
  }
  if (m->learned)
    nn_load(l, "weight_embedding.weight", &m->queries, ROWS(m->m.queries), d, NN_MATRIX, true);
  nn_load_linear(l, "enc_output.0", d, d, true, &m->memory);
  nn_load_norm(l, "enc_output.1", d, m->eps, &m->memory_norm);
  nn_load_linear(l, "enc_score_head", m->m.labels, d, true, &m->score);
  nn_load_mlp(l, "enc_bbox_head", d, d, 4, 3, VIV_RELU, &m->box);
  nn_load_mlp(l, "decoder.query_pos_head", 4, 2 * d, d, 2, VIV_RELU, &m->position);
  nn_at(l, "%s", "");
  for (int32_t i = 0; i < m->layers; i++) load_layer(l, m, i, &m->layer[i]);
  nn_ignore(l, "model.denoising_class_embed.weight"); /* training only */
  nn_ignore(l, "*.n_points_scale");                   /* 1 / points */
  if (!m->outside) {                                  /* the same heads once more */
    nn_ignore(l, "class_embed.*");
    nn_ignore(l, "bbox_embed.*");
  }
}

/* ---- the network ---- */

/* The Q best cells: *reference [B, Q, 4], target [B, Q, d]. */
static float *choose(nn_pass *p, const struct model *m, const struct detr_levels *lv,
                     const float *memory, float **reference) {
  const viv_compute *c = nn_compute_of(p);
  int64_t b = lv->batch, cells = lv->start[lv->n], rows = b * cells, d = m->m.d, q = m->m.queries;
  uint8_t *usable = nn_bytes(p, rows, 1);
  float *anchors = detr_proposals(p, lv, true, FLT_MAX, usable); /* [B, S, 4] */
  float *x = nn_room(p, rows * d);                               /* [B, S, d] */
  memcpy(x, memory, (size_t)(rows * d) * sizeof *x);
  detr_drop_rows(x, usable, rows, d);
  x = nn_apply_linear(p, &m->memory, 0, x, rows);
  nn_layer_norm(p, &m->memory_norm, x, rows, x);
  nn_tap(p, x, NN_DIMS(b, cells, d), "enc_output");
  float *logits = nn_apply_linear(p, &m->score, 0, x, rows); /* [B, S, classes] */
  int32_t *index = detr_top_cells(p, logits, b, cells, m->m.labels, m->m.labels, q);
  float *target = detr_pick_rows(p, x, index, b, cells, q, d);
  float *anchor = detr_pick_rows(p, anchors, index, b, cells, q, 4);
  *reference = nn_apply_mlp(p, &m->box, target, b * q);
  c->add(c, *reference, anchor, b * q * 4);
  nn_tap(p, *reference, NN_DIMS(b, q, 4), "init_reference_unact");
  c->unary(c, VIV_SIGMOID, *reference, *reference, b * q * 4);
  if (m->learned) return detr_repeat(p, detr_rows(p, m->queries, q, d), q * d, b);
  return target;
}

static void decoder_layer(nn_pass *p, const struct model *m, int32_t i,
                          const struct detr_levels *lv, const float *memory, float *reference,
                          float *t) {
  const struct layer *w = &m->layer[i];
  int64_t b = lv->batch, q = m->m.queries, d = m->m.d, n = b * q * d;
  nn_mark mark = nn_here(p);
  float *position = nn_apply_mlp(p, &m->position, reference, b * q); /* [B, Q, d] */
  float *y = nn_room(p, n), *placed = detr_sum(p, t, n, position, n);
  nn_apply_mha(p, &w->self, b, placed, q, placed, t, q, NULL, NULL, y);
  detr_add_norm(p, &w->self_norm, y, b * q, t);
  nn_tap(p, t, NN_DIMS(b, q, d), "decoder.layers.%d.self", (int)i);
  placed = detr_sum(p, t, n, position, n);
  detr_apply_msda(p, &w->cross, lv, placed, q, reference, 4, memory, y);
  detr_add_norm(p, &w->cross_norm, y, b * q, t);
  nn_tap(p, t, NN_DIMS(b, q, d), "decoder.layers.%d.cross", (int)i);
  detr_apply_ffn(p, &w->ffn, b * q, t);
  nn_tap(p, t, NN_DIMS(b, q, d), "decoder.layers.%d", (int)i);
  float *delta = nn_apply_mlp(p, &w->boxes, t, b * q);
  for (int64_t k = 0; k < b * q * 4; k++)
    reference[k] = detr_sigmoid(delta[k] + detr_inverse_sigmoid(reference[k], 1e-5f));
  nn_release(p, mark);
}

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  nn_map x = {.x = (float *)(uintptr_t)batch->pixels, /* read only */
              .batch = batch->n,
              .channels = 3,
              .dims = 2,
              .size = {batch->height, batch->width, 1},
              .layout = VIV_CHANNELS_FIRST};
  nn_map stage[5], maps[DETR_MAX_LEVELS];
  uint32_t wanted = m->stages;
  for (int32_t s = 1; s < 5; s++)
    if (nn_taps(p, "backbone.stage%d", (int)s)) wanted |= 1u << s;
  nn_apply_resnet(p, &m->backbone, &x, wanted, stage);
  for (int32_t s = 1, l = 0; s < 5; s++) {
    if (wanted >> s & 1) detr_tap_map(p, &stage[s], "backbone.stage%d", (int)s);
    if (m->stages >> s & 1) maps[l++] = stage[s];
  }
  detr_apply_hybrid(p, &m->hybrid, maps);
  for (int32_t i = 0; i < m->levels; i++) maps[i] = nn_apply_conv(p, &m->input[i], 0, &maps[i]);
  struct detr_levels lv;
  struct detr_batch whole = *batch; /* the official network takes no notice of padding */
  whole.padding = NULL;
  float *memory = detr_flatten_maps(p, maps, m->levels, &whole, &lv), *reference = NULL;
  float *t = choose(p, m, &lv, memory, &reference);
  int64_t b = batch->n, q = m->m.queries, labels = m->m.labels, rows = b * q;
  float *all_boxes = nn_room(p, m->layers * rows * 4);
  float *all_logits = nn_room(p, m->layers * rows * labels);
  float *last = all_logits + (m->layers - 1) * rows * labels;
  bool every = nn_taps(p, "logits");
  for (int32_t i = 0; i < m->layers; i++) {
    nn_pass_poll(p);
    decoder_layer(p, m, i, &lv, memory, reference, t);
    memcpy(all_boxes + i * rows * 4, reference, (size_t)(rows * 4) * sizeof(float));
    if (every || i == m->layers - 1)
      nn_linear_to(p, &m->layer[i].classes, 0, NULL, t, rows, all_logits + i * rows * labels);
  }
  nn_tap(p, all_boxes, NN_DIMS(m->layers, b, q, 4), "references");
  if (every) nn_tap(p, all_logits, NN_DIMS(m->layers, b, q, labels), "logits");
  return (struct detr_found){.batch = (int32_t)b,
                             .queries = (int32_t)q,
                             .classes = (int32_t)labels,
                             .logits = last,
                             .boxes = reference};
}

#define RT_DETR(type)                                                                              \
  {                                                                                                \
    .model_type = type, .processor = "RTDetrImageProcessor", .bytes = sizeof(struct model),        \
    .tasks = detr_tasks, .prepare = prepare, .config = config, .tables = tables,                   \
    .network = network                                                                             \
  }
const struct detr_variant detr_variant_rt_detr = RT_DETR("rt_detr");
const struct detr_variant detr_variant_rt_detr_v2 = RT_DETR("rt_detr_v2");
