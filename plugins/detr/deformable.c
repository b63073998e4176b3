/* Deformable DETR: a pyramid of maps, and queries that look at few points around their own place.
 *
 *   one stage:  [qp | t] = query_position_embeddings, r = sigmoid(W qp) [Q, 2]
 *   two stages: every cell of the encoder's output m' = LN(W m) proposes sigmoid(box(m') + its own
 *               square); the Q cells with the largest first logit become r [Q, 4], and
 *               [qp | t] = LN(W sine(r)), sines in the order x, y, w, h
 *   decoder layer:
 *     t = LN(t + SA(q = k = t + qp, v = t))
 *     t = LN(t + MSDA(t + qp, r, memory))
 *     t = LN(t + FFN(t))
 *     box_l = sigmoid(MLP_l(t) + sigmoid^-1(r)); with refinement r is box_l from now on
 *   logits = class_embed_last(t)
 *
 * Official: fundamentalvision/Deformable-DETR; weights as transformers'
 * DeformableDetrForObjectDetection saves them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

struct layer {
  nn_mha self;
  nn_norm self_norm, cross_norm;
  struct detr_msda cross;
  struct detr_ffn ffn;
};

struct model {
  struct detr_model m;
  struct detr_backbone backbone;
  struct detr_pyramid pyramid;
  struct detr_sizes s;
  int32_t encoder_points, decoder_points;
  bool two_stage, refine;
  struct detr_deform_layer encoder[DETR_MAX_LAYERS];
  struct layer decoder[DETR_MAX_LAYERS];
  const viv_weight *queries; /* [Q, 2 d] */
  nn_linear reference;
  nn_linear enc_output, pos_trans;
  nn_norm enc_norm, pos_norm;
  nn_linear classes, enc_classes;
  nn_mlp boxes[DETR_MAX_LAYERS], enc_boxes; /* without refinement boxes[0] serves all layers */
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration and weights ---- */

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  detr_read_sizes(k, 1024, base, &m->s);
  base->labels = detr_labels(k, 91);
  base->top_k = 100;
  m->two_stage = nn_flag(k, "two_stage", false);
  m->refine = nn_flag(k, "with_box_refine", false);
  base->queries =
      nn_int(k, m->two_stage ? "two_stage_num_proposals" : "num_queries", 300, 1, 1 << 16);
  m->encoder_points = (int32_t)nn_int(k, "encoder_n_points", 4, 1, 64);
  m->decoder_points = (int32_t)nn_int(k, "decoder_n_points", 4, 1, 64);
  m->pyramid.levels = (int32_t)nn_int(k, "num_feature_levels", 4, 1, DETR_MAX_LEVELS);
  m->pyramid.maps = m->pyramid.levels > 1 ? 3 : 1;
  detr_check_pyramid(k, &m->pyramid, base->d);
  uint32_t stages = m->pyramid.maps == 3 ? 7u << 2 : 1u << 4;
  detr_read_backbone(k, source, "model.backbone.conv_encoder.model.", stages, &m->backbone);
}

static void load_layer(nn_loader *l, const struct model *m, struct layer *w) {
  int64_t d = m->m.d;
  detr_load_attention(l, "self_attn", d, m->m.heads, &w->self);
  nn_load_norm(l, "self_attn_layer_norm", d, 1e-5f, &w->self_norm);
  detr_load_msda(l, "encoder_attn", d, m->m.heads, m->pyramid.levels, m->decoder_points, &w->cross);
  nn_load_norm(l, "encoder_attn_layer_norm", d, 1e-5f, &w->cross_norm);
  detr_load_ffn(l, d, m->s.decoder_ff, m->s.act, &w->ffn);
}

/* class_embed.i and bbox_embed.i stand at the top, or under model.decoder. where boxes are refined,
 * or in both places. Without refinement all are one, and only the first may be there. */
static void load_heads(nn_loader *l, struct model *m) {
  int64_t d = m->m.d;
  int32_t last = m->s.decoder_layers - 1;
  size_t outer = nn_in(l, nn_there(l, "class_embed.0.weight") ? "%s" : "%smodel.decoder.", "");
  char name[40];
  snprintf(name, sizeof name, "class_embed.%d.weight", (int)last);
  snprintf(name, sizeof name, "class_embed.%d", nn_there(l, name) || m->refine ? (int)last : 0);
  nn_load_linear(l, name, m->m.labels, d, true, &m->classes);
  for (int32_t i = 0; i < (m->refine ? last + 1 : 1); i++) {
    snprintf(name, sizeof name, "bbox_embed.%d", (int)i);
    nn_load_mlp(l, name, d, d, 4, 3, VIV_RELU, &m->boxes[i]);
  }
  if (m->two_stage) {
    snprintf(name, sizeof name, "class_embed.%d", (int)last + 1);
    nn_load_linear(l, name, m->m.labels, d, true, &m->enc_classes);
    snprintf(name, sizeof name, "bbox_embed.%d", (int)last + 1);
    nn_load_mlp(l, name, d, d, 4, 3, VIV_RELU, &m->enc_boxes);
  }
  nn_out(l, outer);
  /* Heads of the other layers are for training; the rest are the same tensors once more. */
  nn_ignore(l, "*class_embed.*");
  nn_ignore(l, "*bbox_embed.*");
}

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  int64_t d = m->m.d, queries = m->m.queries;
  nn_at(l, "%s", "");
  detr_load_backbone(l, &m->backbone);
  detr_load_pyramid(l, "model.", "model.level_embed", d, &m->backbone, &m->pyramid);
  for (int32_t i = 0; i < m->s.encoder_layers; i++) {
    size_t outer = nn_in(l, "model.encoder.layers.%d.", (int)i);
    detr_load_deform_layer(l, false, d, m->s.encoder_ff, m->s.encoder_heads, m->pyramid.levels,
                           m->encoder_points, m->s.act, &m->encoder[i]);
    nn_out(l, outer);
  }
  for (int32_t i = 0; i < m->s.decoder_layers; i++) {
    size_t outer = nn_in(l, "model.decoder.layers.%d.", (int)i);
    load_layer(l, m, &m->decoder[i]);
    nn_out(l, outer);
  }
  if (m->two_stage) {
    nn_load_linear(l, "model.enc_output", d, d, true, &m->enc_output);
    nn_load_norm(l, "model.enc_output_norm", d, 1e-5f, &m->enc_norm);
    nn_load_linear(l, "model.pos_trans", 2 * d, 2 * d, true, &m->pos_trans);
    nn_load_norm(l, "model.pos_trans_norm", 2 * d, 1e-5f, &m->pos_norm);
  } else {
    nn_load(l, "model.query_position_embeddings.weight", &m->queries, ROWS(queries), 2 * d,
            NN_MATRIX, true);
    nn_load_linear(l, "model.reference_points", 2, d, true, &m->reference);
  }
  load_heads(l, m);
}

/* ---- queries ---- */

struct queries {
  float *places, *content; /* [B, Q, d]: qp, t */
  float *reference;        /* [B, Q, coordinates] */
  int32_t coordinates;
};

/* [rows, 2 d] -> two arrays [rows, d] */
static void halves(nn_pass *p, const float *both, int64_t rows, int64_t d, struct queries *q) {
  q->places = nn_room(p, rows * d);
  q->content = nn_room(p, rows * d);
  for (int64_t r = 0; r < rows; r++) {
    memcpy(q->places + r * d, both + 2 * r * d, (size_t)d * sizeof *both);
    memcpy(q->content + r * d, both + (2 * r + 1) * d, (size_t)d * sizeof *both);
  }
}

static struct queries learned(nn_pass *p, const struct model *m, int64_t batch) {
  struct queries q = {.coordinates = 2};
  int64_t n = m->m.queries, d = m->m.d, rows = batch * n;
  const float *both = detr_rows(p, m->queries, n, 2 * d);
  halves(p, detr_repeat(p, both, 2 * n * d, batch), rows, d, &q);
  q.reference = nn_apply_linear(p, &m->reference, 0, q.places, rows);
  const viv_compute *c = nn_compute_of(p);
  c->unary(c, VIV_SIGMOID, q.reference, q.reference, 2 * rows);
  return q;
}

static struct queries proposed(nn_pass *p, const struct model *m, const struct detr_scene *s) {
  struct queries q = {.coordinates = 4};
  int64_t batch = s->lv.batch, cells = batch * s->cells, n = m->m.queries, d = m->m.d;
  float *reference = nn_room(p, batch * n * 4), *both = nn_room(p, batch * n * 2 * d);
  nn_mark mark = nn_here(p);
  uint8_t *usable = nn_bytes(p, cells, 1);
  float *squares = detr_proposals(p, &s->lv, true, INFINITY, usable); /* [B, S, 4] */
  float *x = nn_room(p, cells * d);
  memcpy(x, s->x, (size_t)(cells * d) * sizeof *x);
  detr_drop_rows(x, usable, cells, d);
  x = nn_apply_linear(p, &m->enc_output, 0, x, cells);
  nn_layer_norm(p, &m->enc_norm, x, cells, x);
  float *logits = nn_apply_linear(p, &m->enc_classes, 0, x, cells); /* [B, S, classes] */
  int32_t *best = detr_top_cells(p, logits, batch, s->cells, m->m.labels, 1, n);
  float *chosen = detr_pick_rows(p, x, best, batch, s->cells, n, d);
  float *around = detr_pick_rows(p, squares, best, batch, s->cells, n, 4);
  float *box = nn_apply_mlp(p, &m->enc_boxes, chosen, batch * n); /* [B, Q, 4] */
  float *turned = nn_room(p, batch * n * 4);
  for (int64_t i = 0; i < batch * n * 4; i++) reference[i] = detr_sigmoid(box[i] + around[i]);
  for (int64_t i = 0; i < batch * n * 4; i++) /* the sines' order is y first */
    turned[i] = reference[i % 4 < 2 ? i / 4 * 4 + 1 - i % 4 : i];
  float *sines = nn_room(p, batch * n * 2 * d);
  nn_sine_coordinates(turned, batch * n, 4, d / 2, sines);
  nn_linear_to(p, &m->pos_trans, 0, NULL, sines, batch * n, both);
  nn_layer_norm(p, &m->pos_norm, both, batch * n, both);
  nn_release(p, mark);
  nn_tap(p, reference, NN_DIMS(batch, n, 4), "init_reference_points");
  q.reference = reference;
  halves(p, both, batch * n, d, &q);
  return q;
}

/* ---- the decoder ---- */

/* box [rows, 4] = sigmoid(head(t) + sigmoid^-1(reference)) */
static void refine(nn_pass *p, const nn_mlp *head, const struct queries *q, int64_t rows,
                   float *box) {
  nn_mark mark = nn_here(p);
  const float *delta = nn_apply_mlp(p, head, q->content, rows);
  for (int64_t i = 0; i < rows * 4; i++) {
    int64_t at = i % 4;
    float from = at < q->coordinates
                     ? detr_inverse_sigmoid(q->reference[i / 4 * q->coordinates + at], 1e-5f)
                     : 0;
    box[i] = detr_sigmoid(delta[i] + from);
  }
  nn_release(p, mark);
}

static void decoder_layer(nn_pass *p, const struct layer *w, const struct detr_scene *s,
                          struct queries *q, int64_t n) {
  int64_t batch = s->lv.batch, rows = batch * n, all = rows * s->d;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, all);
  float *placed = detr_sum(p, q->content, all, q->places, all);
  nn_apply_mha(p, &w->self, batch, placed, n, placed, q->content, n, NULL, NULL, y);
  detr_add_norm(p, &w->self_norm, y, rows, q->content);
  placed = detr_sum(p, q->content, all, q->places, all);
  detr_apply_msda(p, &w->cross, &s->lv, placed, n, q->reference, q->coordinates, s->x, y);
  detr_add_norm(p, &w->cross_norm, y, rows, q->content);
  detr_apply_ffn(p, &w->ffn, rows, q->content);
  nn_release(p, mark);
}

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  int64_t d = m->m.d, n = m->m.queries, rows = batch->n * n;
  nn_sine sine = {.n = d / 2, .temperature_h = 10000, .temperature_w = 10000, .deformable = true};
  struct detr_scene s = detr_apply_pyramid(p, &m->pyramid, &m->backbone, sine, batch);
  detr_apply_deform_encoder(p, m->encoder, m->s.encoder_layers, true, &s);
  struct queries q = m->two_stage ? proposed(p, m, &s) : learned(p, m, batch->n);
  float *boxes = nn_room(p, rows * 4); /* of the last layer */
  int32_t kept = m->refine ? 4 : q.coordinates;
  float *history = nn_room(p, m->s.decoder_layers * rows * 4);
  for (int32_t i = 0; i < m->s.decoder_layers; i++) {
    nn_pass_poll(p);
    decoder_layer(p, &m->decoder[i], &s, &q, n);
    nn_tap(p, q.content, NN_DIMS(batch->n, n, d), "decoder.layers.%d", (int)i);
    if (m->refine || i + 1 == m->s.decoder_layers)
      refine(p, &m->boxes[m->refine ? i : 0], &q, rows, boxes);
    if (m->refine) {
      q.reference = history + i * rows * kept;
      q.coordinates = 4;
      memcpy(q.reference, boxes, (size_t)(rows * 4) * sizeof *boxes);
    } else {
      memcpy(history + i * rows * kept, q.reference, (size_t)(rows * kept) * sizeof *history);
    }
  }
  nn_tap(p, history, NN_DIMS(m->s.decoder_layers, batch->n, n, kept), "references");
  return (struct detr_found){.batch = batch->n,
                             .queries = (int32_t)n,
                             .classes = (int32_t)m->m.labels,
                             .logits = nn_apply_linear(p, &m->classes, 0, q.content, rows),
                             .boxes = boxes};
}

const struct detr_variant detr_variant_deformable = {.model_type = "deformable_detr",
                                                     .processor = "DeformableDetrImageProcessor",
                                                     .bytes = sizeof(struct model),
                                                     .tasks = detr_tasks,
                                                     .prepare = detr_usual_prepare,
                                                     .config = config,
                                                     .tables = tables,
                                                     .network = network};
