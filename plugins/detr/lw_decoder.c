/* The decoder of LW-DETR and RF-DETR. Both are trained with groups of queries; the first group is
 * the model.
 *
 *   two-stage: m = LN(W memory), rows that are padded or at the border 0; the Q cells with the largest
 *     class logit give boxes b = (d.xy g.wh + g.xy, exp(d.wh) g.wh), g the cell's box, d = MLP(m)
 *   reference = (e.xy b.wh + b.xy, exp(e.wh) b.wh), e learned; content t learned, not m
 *   pos = MLP(sines of the reference), once
 *   layer: t = LN(t + SA(q = k = t + pos, v = t))
 *          t = LN(t + deformable(t + pos, reference, memory))
 *          t = LN(t + FFN(t))
 *   logits = W LN(t), boxes = (d.xy r.wh + r.xy, exp(d.wh) r.wh), r the reference, d = MLP(LN(t))
 *
 * Official: Atten4Vis/LW-DETR, models/transformer.py; roboflow/rf-detr. */
#include <math.h>
#include <string.h>

#include "detr/neck.h"

#define EPS 1e-5f

/* ---- configuration ---- */

void detr_read_lw_decoder(nn_config *k, const viv_model_source *source, struct detr_model *m,
                          struct detr_lw_decoder *d) {
  m->d = d->d = nn_int(k, "d_model", 256, 4, 1 << 14);
  m->queries = d->queries = nn_int(k, "num_queries", 300, 1, 1 << 16);
  m->labels = d->labels = detr_labels(k, nn_axis(k->host, source, "class_embed.bias", 0, 91));
  m->heads = d->self_heads = (int32_t)nn_int(k, "decoder_self_attention_heads", 8, 1, 1024);
  d->cross_heads = (int32_t)nn_int(k, "decoder_cross_attention_heads", 16, 1, 1024);
  d->points = (int32_t)nn_int(k, "decoder_n_points", 2, 1, 64);
  d->levels = (int32_t)nn_int(k, "num_feature_levels", 1, 1, DETR_MAX_LEVELS);
  d->layers = (int32_t)nn_int(k, "decoder_layers", 3, 1, DETR_MAX_LAYERS);
  d->ff = nn_int(k, "decoder_ffn_dim", 2048, 1, 1 << 18);
  d->act = nn_activation(k, "decoder_activation_function", "relu");
  d->original = nn_has(k->host, source, "transformer.decoder.norm.weight");
  d->stored = nn_axis(k->host, source,
                      d->original ? "query_feat.weight" : "model.query_feat.weight", 0, d->queries);
  nn_divides(k, d->d, d->self_heads, "d_model and decoder_self_attention_heads");
  nn_divides(k, d->d, d->cross_heads, "d_model and decoder_cross_attention_heads");
  nn_divides(k, d->d, 4, "d_model and the four sines of a box");
  if (!k->status && d->stored < d->queries)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                        "num_queries is %lld, but the checkpoint holds %lld", (long long)d->queries,
                        (long long)d->stored);
}

/* ---- weights ---- */

static void load_layer(nn_loader *l, const struct detr_lw_decoder *m, struct detr_lw_layer *w) {
  int64_t d = m->d;
  bool old = m->original;
  if (old)
    nn_load_mha(l, "self_attn", d, m->self_heads, &w->self);
  else
    detr_load_attention(l, "self_attn", d, m->self_heads, &w->self);
  nn_load_norm(l, old ? "norm1" : "self_attn_layer_norm", d, EPS, &w->self_norm);
  detr_load_msda(l, "cross_attn", d, m->cross_heads, m->levels, m->points, &w->cross);
  nn_load_norm(l, old ? "norm2" : "cross_attn_layer_norm", d, EPS, &w->cross_norm);
  nn_load_linear(l, old ? "linear1" : "mlp.fc1", m->ff, d, true, &w->ffn.one);
  nn_load_linear(l, old ? "linear2" : "mlp.fc2", d, m->ff, true, &w->ffn.two);
  nn_load_norm(l, old ? "norm3" : "layer_norm", d, EPS, &w->ffn.norm);
  w->ffn.act = m->act;
}

void detr_load_lw_decoder(nn_loader *l, struct detr_lw_decoder *m) {
  int64_t d = m->d;
  bool old = m->original;
  nn_at(l, "%s", old ? "" : "model.");
  nn_load(l, "query_feat.weight", &m->content, 0, m->queries, m->stored, d, NN_FLOATS, true);
  nn_load(l, old ? "refpoint_embed.weight" : "reference_point_embed.weight", &m->place, 0,
          m->queries, m->stored, 4, NN_FLOATS, true);
  nn_at(l, "%s", old ? "transformer." : "model.");
  nn_load_linear(l, "enc_output.0", d, d, true, &m->memory);
  nn_load_norm(l, "enc_output_norm.0", d, EPS, &m->memory_norm);
  nn_load_linear(l, "enc_out_class_embed.0", m->labels, d, true, &m->score);
  nn_load_mlp(l, "enc_out_bbox_embed.0", d, d, 4, 3, VIV_RELU, &m->proposal);
  nn_load_mlp(l, "decoder.ref_point_head", 2 * d, d, d, 2, VIV_RELU, &m->position);
  nn_load_norm(l, old ? "decoder.norm" : "decoder.layernorm", d, EPS, &m->norm);
  for (int32_t i = 0; i < m->layers; i++) {
    size_t outer = nn_in(l, "decoder.layers.%d.", (int)i);
    load_layer(l, m, &m->layer[i]);
    nn_out(l, outer);
  }
  nn_at(l, "%s", "");
  nn_load_linear(l, "class_embed", m->labels, d, true, &m->classes);
  nn_load_mlp(l, "bbox_embed", d, d, 4, 3, VIV_RELU, &m->boxes);
  /* The other groups' heads, which only training uses. */
  nn_ignore(l, "*enc_output.*");
  nn_ignore(l, "*enc_output_norm.*");
  nn_ignore(l, "*enc_out_class_embed.*");
  nn_ignore(l, "*enc_out_bbox_embed.*");
}

/* ---- the pass ---- */

/* out = (d.xy box.wh + box.xy, exp(d.wh) box.wh), rows of four; out may be d. */
static void move_boxes(const float *d, const float *box, int64_t rows, float *out) {
  for (int64_t i = 0; i < 4 * rows; i += 4)
    for (int64_t k = 0; k < 2; k++) {
      float side = box[i + 2 + k];
      out[i + k] = d[i + k] * side + box[i + k];
      out[i + 2 + k] = expf(d[i + 2 + k]) * side;
    }
}

/* The boxes of the Q best cells, [B, Q, 4]. */
static float *choose(nn_pass *p, const struct detr_lw_decoder *m, const struct detr_levels *lv,
                     const float *memory) {
  int64_t b = lv->batch, cells = lv->start[lv->n], rows = b * cells, d = m->d, q = m->queries;
  uint8_t *usable = nn_bytes(p, rows, 1);
  float *places = detr_proposals(p, lv, false, 0, usable); /* [B, S, 4] */
  float *x = nn_room(p, rows * d);                         /* [B, S, d] */
  memcpy(x, memory, (size_t)(rows * d) * sizeof *x);
  detr_drop_rows(x, usable, rows, d);
  x = nn_apply_linear(p, &m->memory, 0, x, rows);
  nn_layer_norm(p, &m->memory_norm, x, rows, x);
  nn_tap(p, x, NN_DIMS(b, cells, d), "enc_output");
  float *logits = nn_apply_linear(p, &m->score, 0, x, rows); /* [B, S, classes] */
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; !usable[r] && k < m->labels; k++) logits[r * m->labels + k] = -INFINITY;
  int32_t *index = detr_top_cells(p, logits, b, cells, m->labels, m->labels, q);
  nn_tap(p, detr_pick_rows(p, logits, index, b, cells, q, m->labels), NN_DIMS(b, q, m->labels),
         "enc_class");
  float *box = detr_pick_rows(p, places, index, b, cells, q, 4);
  float *delta = nn_apply_mlp(p, &m->proposal, detr_pick_rows(p, x, index, b, cells, q, d), b * q);
  move_boxes(delta, box, b * q, delta);
  return delta;
}

static void decoder_layer(nn_pass *p, const struct detr_lw_decoder *m, int32_t i,
                          const struct detr_levels *lv, const float *memory, const float *reference,
                          const float *position, float *t) {
  const struct detr_lw_layer *w = &m->layer[i];
  int64_t b = lv->batch, q = m->queries, d = m->d, n = b * q * d;
  nn_mark mark = nn_here(p);
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
  nn_release(p, mark);
}

struct detr_found detr_apply_lw_decoder(nn_pass *p, const struct detr_lw_decoder *m,
                                        const struct detr_levels *lv, const float *memory) {
  int64_t b = lv->batch, q = m->queries, d = m->d, rows = b * q;
  float *best = choose(p, m, lv, memory);                /* [B, Q, 4] */
  float *reference = detr_repeat(p, m->place, q * 4, b); /* [B, Q, 4] */
  float *t = detr_repeat(p, m->content, q * d, b);       /* [B, Q, d] */
  move_boxes(reference, best, rows, reference);
  nn_tap(p, reference, NN_DIMS(b, q, 4), "init_reference_points");
  float *sines = nn_room(p, rows * 2 * d);
  nn_sine_coordinates(reference, rows, 4, d / 2, sines);
  float *position = nn_apply_mlp(p, &m->position, sines, rows); /* [B, Q, d] */
  nn_tap(p, position, NN_DIMS(b, q, d), "query_pos");
  for (int32_t i = 0; i < m->layers; i++) {
    nn_pass_poll(p);
    decoder_layer(p, m, i, lv, memory, reference, position, t);
  }
  nn_layer_norm(p, &m->norm, t, rows, t);
  float *boxes = nn_apply_mlp(p, &m->boxes, t, rows);
  move_boxes(boxes, reference, rows, boxes);
  return (struct detr_found){.batch = (int32_t)b,
                             .queries = (int32_t)q,
                             .classes = (int32_t)m->labels,
                             .logits = nn_apply_linear(p, &m->classes, 0, t, rows),
                             .boxes = boxes};
}
