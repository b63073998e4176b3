/* DETR, the first of the family:
 *
 *   C5 [B, h, w, 2048] -> 1x1 convolution -> x [B, S, d]; pos: sines of the cells
 *   encoder layer:  x = LN(x + SA(q = k = x + pos, v = x));  x = LN(x + FFN(x))
 *   decoder layer, t from zeros, qp the learned queries [Q, d]:
 *     t = LN(t + SA(q = k = t + qp, v = t))
 *     t = LN(t + CA(q = t + qp, k = x + pos, v = x))
 *     t = LN(t + FFN(t))
 *   logits = W LN(t) [B, Q, classes + 1], boxes = sigmoid(MLP(LN(t))) [B, Q, 4]
 *
 * Official: facebookresearch/detr; weights as transformers' DetrForObjectDetection saves them. */
#include <string.h>

#include "detr/detr.h"

struct layer {
  nn_mha self, cross;
  nn_norm self_norm, cross_norm;
  struct detr_ffn ffn;
};

struct model {
  struct detr_model m;
  struct detr_backbone backbone;
  struct detr_sizes s;
  nn_conv input;
  const viv_weight *queries; /* [Q, d] */
  struct detr_encoder_layer encoder[DETR_MAX_LAYERS];
  struct layer decoder[DETR_MAX_LAYERS];
  nn_norm norm;
  nn_linear classes;
  nn_mlp boxes;
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration and weights ---- */

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  detr_read_sizes(k, 2048, base, &m->s);
  base->softmax = true;
  base->queries = nn_int(k, "num_queries", 100, 1, 1 << 16);
  base->labels =
      1 + detr_labels(k, nn_axis(k->host, source, "class_labels_classifier.bias", 0, 92) - 1);
  detr_read_backbone(k, source, "model.backbone.conv_encoder.model.", 1u << 4, &m->backbone);
}

static void load_layer(nn_loader *l, const struct model *m, struct layer *w) {
  int64_t d = m->m.d;
  detr_load_attention(l, "self_attn", d, m->m.heads, &w->self);
  nn_load_norm(l, "self_attn_layer_norm", d, 1e-5f, &w->self_norm);
  detr_load_attention(l, "encoder_attn", d, m->m.heads, &w->cross);
  nn_load_norm(l, "encoder_attn_layer_norm", d, 1e-5f, &w->cross_norm);
  detr_load_ffn(l, d, m->s.decoder_ff, m->s.act, &w->ffn);
}

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  int64_t d = m->m.d;
  nn_at(l, "%s", "");
  detr_load_backbone(l, &m->backbone);
  nn_conv_spec input = {
      .in = m->backbone.channels[3], .out = (int32_t)d, .kernel = 1, .bias = true};
  nn_load_conv(l, "model.input_projection", &input, &m->input);
  nn_load(l, "model.query_position_embeddings.weight", &m->queries, ROWS(m->m.queries), d,
          NN_MATRIX, true);
  for (int32_t i = 0; i < m->s.encoder_layers; i++) {
    size_t outer = nn_in(l, "model.encoder.layers.%d.", (int)i);
    detr_load_encoder(l, d, m->s.encoder_heads, m->s.encoder_ff, m->s.act, &m->encoder[i]);
    nn_out(l, outer);
  }
  for (int32_t i = 0; i < m->s.decoder_layers; i++) {
    size_t outer = nn_in(l, "model.decoder.layers.%d.", (int)i);
    load_layer(l, m, &m->decoder[i]);
    nn_out(l, outer);
  }
  nn_load_norm(l, "model.decoder.layernorm", d, 1e-5f, &m->norm);
  nn_load_linear(l, "class_labels_classifier", m->m.labels, d, true, &m->classes);
  nn_load_mlp(l, "bbox_predictor", d, d, 4, 3, VIV_RELU, &m->boxes);
}

/* ---- the network ---- */

static void decoder_layer(nn_pass *p, const struct layer *w, int64_t batch, int64_t queries,
                          int64_t cells, int64_t d, const float *places, const float *keys,
                          const float *memory, const uint8_t *real, int32_t at, float *t) {
  int64_t n = batch * queries * d, rows = batch * queries;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, n);
  float *placed = detr_sum(p, t, n, places, n); /* [B, Q, d] */
  nn_apply_mha(p, &w->self, batch, placed, queries, placed, t, queries, NULL, NULL, y);
  detr_add_norm(p, &w->self_norm, y, rows, t);
  nn_tap(p, t, NN_DIMS(batch, queries, d), "decoder.layers.%d.self", (int)at);
  placed = detr_sum(p, t, n, places, n);
  nn_apply_mha(p, &w->cross, batch, placed, queries, keys, memory, cells, NULL, real, y);
  detr_add_norm(p, &w->cross_norm, y, rows, t);
  nn_tap(p, t, NN_DIMS(batch, queries, d), "decoder.layers.%d.cross", (int)at);
  detr_apply_ffn(p, &w->ffn, rows, t);
  nn_tap(p, t, NN_DIMS(batch, queries, d), "decoder.layers.%d", (int)at);
  nn_release(p, mark);
}

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  int64_t d = m->m.d, queries = m->m.queries, b = batch->n;
  struct detr_memory s = detr_project(p, &m->backbone, &m->input, "input_projection", batch);
  for (int32_t i = 0; i < m->s.encoder_layers; i++) {
    nn_pass_poll(p);
    detr_apply_encoder(p, &m->encoder[i], b, s.cells, s.position, s.real, s.x);
    nn_tap(p, s.x, NN_DIMS(b, s.cells, d), "encoder.layers.%d", (int)i);
  }
  int64_t n = b * queries * d;
  float *keys = detr_sum(p, s.x, b * s.cells * d, s.position, b * s.cells * d);
  float *places = detr_repeat(p, detr_rows(p, m->queries, queries, d), queries * d, b);
  float *t = nn_room(p, n); /* [B, Q, d] */
  memset(t, 0, (size_t)n * sizeof *t);
  for (int32_t i = 0; i < m->s.decoder_layers; i++) {
    nn_pass_poll(p);
    decoder_layer(p, &m->decoder[i], b, queries, s.cells, d, places, keys, s.x, s.real, i, t);
  }
  nn_layer_norm(p, &m->norm, t, b * queries, t);
  float *boxes = nn_apply_mlp(p, &m->boxes, t, b * queries);
  const viv_compute *c = nn_compute_of(p);
  c->unary(c, VIV_SIGMOID, boxes, boxes, b * queries * 4);
  return (struct detr_found){.batch = (int32_t)b,
                             .queries = (int32_t)queries,
                             .classes = (int32_t)m->m.labels,
                             .logits = nn_apply_linear(p, &m->classes, 0, t, b * queries),
                             .boxes = boxes};
}

const struct detr_variant detr_variant_detr = {.model_type = "detr",
                                               .processor = "DetrImageProcessor",
                                               .bytes = sizeof(struct model),
                                               .tasks = detr_tasks,
                                               .prepare = detr_usual_prepare,
                                               .config = config,
                                               .tables = tables,
                                               .network = network};
