/* Conditional DETR: DETR whose cross-attention looks for content and place apart.
 *
 *   r = sigmoid(ref_point_head(qp)) [Q, 2], the same in all layers
 *   decoder layer, t from zeros:
 *     q = Wqc t + Wqp qp, k = Wkc t + Wkp qp, v = Wv t;  t = LN(t + Wo attention)
 *     qc = Wqc t, kc = Wkc x, kp = Wkp pos, v = Wv x; in layer 0 also qc += Wqp qp, kc += kp
 *     qs = Ws(sine(r) scale), scale = 1 in layer 0, else query_scale(t as it came)
 *     head h: [qc_h; qs_h] . [kc_h; kp_h] (2 d/heads)^-1/2 over values v_h;  t = LN(t + Wo ...)
 *     t = LN(t + FFN(t))
 *   boxes = sigmoid(MLP(LN t) + [sigmoid^-1(r), 0, 0])
 *
 * Official: Atten4Vis/ConditionalDETR; weights as transformers'
 * ConditionalDetrForObjectDetection saves them. */
#include <string.h>

#include "detr/detr.h"

struct layer {
  nn_linear sa_qc, sa_qp, sa_kc, sa_kp, sa_v, sa_out;
  nn_linear ca_qc, ca_qp, ca_kc, ca_kp, ca_v, ca_qs, ca_out; /* ca_qp: layer 0 only */
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
  nn_mlp query_scale, reference;
  nn_norm norm;
  nn_linear classes;
  nn_mlp boxes;
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration and weights ---- */

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  detr_read_sizes(k, 2048, base, &m->s);
  base->queries = nn_int(k, "num_queries", 300, 1, 1 << 16);
  base->labels = detr_labels(k, nn_axis(k->host, source, "class_labels_classifier.bias", 0, 91));
  base->top_k = 100;
  detr_read_backbone(k, source, "model.backbone.conv_encoder.model.", 1u << 4, &m->backbone);
}

static void load_layer(nn_loader *l, const struct model *m, bool first, struct layer *w) {
  const struct {
    const char *name;
    nn_linear *to;
  } square[] = {{"sa_qcontent_proj", &w->sa_qc},  {"sa_qpos_proj", &w->sa_qp},
                {"sa_kcontent_proj", &w->sa_kc},  {"sa_kpos_proj", &w->sa_kp},
                {"sa_v_proj", &w->sa_v},          {"self_attn.out_proj", &w->sa_out},
                {"ca_qcontent_proj", &w->ca_qc},  {"ca_kcontent_proj", &w->ca_kc},
                {"ca_kpos_proj", &w->ca_kp},      {"ca_v_proj", &w->ca_v},
                {"ca_qpos_sine_proj", &w->ca_qs}, {"encoder_attn.out_proj", &w->ca_out}};
  int64_t d = m->m.d;
  for (size_t i = 0; i < sizeof square / sizeof *square; i++)
    nn_load_linear(l, square[i].name, d, d, true, square[i].to);
  if (first) nn_load_linear(l, "ca_qpos_proj", d, d, true, &w->ca_qp);
  nn_load_norm(l, "self_attn_layer_norm", d, 1e-5f, &w->self_norm);
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
    load_layer(l, m, i == 0, &m->decoder[i]);
    nn_out(l, outer);
  }
  nn_load_mlp(l, "model.decoder.query_scale", d, d, d, 2, VIV_RELU, &m->query_scale);
  nn_load_mlp(l, "model.decoder.ref_point_head", d, d, 2, 2, VIV_RELU, &m->reference);
  nn_load_norm(l, "model.decoder.layernorm", d, 1e-5f, &m->norm);
  nn_load_linear(l, "class_labels_classifier", m->m.labels, d, true, &m->classes);
  nn_load_mlp(l, "bbox_predictor", d, d, 4, 3, VIV_RELU, &m->boxes);
}

/* ---- the decoder ---- */

/* What all layers of the decoder read. */
struct scene {
  int64_t batch, queries, cells, d;
  int32_t heads;
  const float *places;            /* [B, Q, d]: qp */
  const float *sines;             /* [B, Q, d]: sine embedding of the reference points */
  const float *memory, *position; /* [B, S, d] */
  const uint8_t *real;
};

/* Heads of two arrays side by side: [rows, heads, d/heads] twice -> [rows, heads, 2 d/heads]. */
static float *beside(nn_pass *p, const float *a, const float *b, int64_t rows, int64_t d,
                     int32_t heads) {
  size_t dim = (size_t)(d / heads);
  float *out = nn_room(p, 2 * rows * d), *to = out;
  for (int64_t i = 0; i < rows * heads; i++, to += 2 * dim) {
    memcpy(to, a + (size_t)i * dim, dim * sizeof *to);
    memcpy(to + dim, b + (size_t)i * dim, dim * sizeof *to);
  }
  return out;
}

/* w1 a + w2 b, rows of d */
static float *two_sums(nn_pass *p, const nn_linear *w1, const float *a, const nn_linear *w2,
                       const float *b, int64_t rows) {
  float *y = nn_apply_linear(p, w1, 0, a, rows);
  nn_linear_to(p, w2, 0, y, b, rows, y);
  return y;
}

static void self_attention(nn_pass *p, const struct layer *w, const struct scene *s, float *t) {
  int64_t rows = s->batch * s->queries;
  nn_mark mark = nn_here(p);
  nn_attention a = {.batch = s->batch,
                    .nq = s->queries,
                    .nk = s->queries,
                    .heads = s->heads,
                    .dim = (int32_t)(s->d / s->heads),
                    .q = two_sums(p, &w->sa_qc, t, &w->sa_qp, s->places, rows),
                    .k = two_sums(p, &w->sa_kc, t, &w->sa_kp, s->places, rows),
                    .v = nn_apply_linear(p, &w->sa_v, 0, t, rows)};
  float *y = nn_room(p, rows * s->d);
  nn_attend(p, &a, y);
  nn_linear_to(p, &w->sa_out, 0, t, y, rows, t);
  nn_layer_norm(p, &w->self_norm, t, rows, t);
  nn_release(p, mark);
}

/* scale [B, Q, d] NULL: layer 0. */
static void cross_attention(nn_pass *p, const struct layer *w, const struct scene *s,
                            const float *scale, float *t) {
  const viv_compute *c = nn_compute_of(p);
  int64_t rows = s->batch * s->queries, cells = s->batch * s->cells, n = rows * s->d;
  nn_mark mark = nn_here(p);
  float *content = nn_apply_linear(p, &w->ca_qc, 0, t, rows);              /* [B, Q, d] */
  float *key = nn_apply_linear(p, &w->ca_kc, 0, s->memory, cells);         /* [B, S, d] */
  float *key_place = nn_apply_linear(p, &w->ca_kp, 0, s->position, cells); /* [B, S, d] */
  float *sines = nn_room(p, n);
  memcpy(sines, s->sines, (size_t)n * sizeof *sines);
  if (!scale) {
    nn_linear_to(p, &w->ca_qp, 0, content, s->places, rows, content);
    c->add(c, key, key_place, cells * s->d);
  } else {
    c->multiply(c, sines, scale, n);
  }
  float *place = nn_apply_linear(p, &w->ca_qs, 0, sines, rows);
  nn_attention a = {.batch = s->batch,
                    .nq = s->queries,
                    .nk = s->cells,
                    .heads = s->heads,
                    .dim = (int32_t)(2 * s->d / s->heads),
                    .value_dim = (int32_t)(s->d / s->heads),
                    .q = beside(p, content, place, rows, s->d, s->heads),
                    .k = beside(p, key, key_place, cells, s->d, s->heads),
                    .v = nn_apply_linear(p, &w->ca_v, 0, s->memory, cells),
                    .mask = s->real};
  float *y = nn_room(p, n);
  nn_attend(p, &a, y);
  nn_linear_to(p, &w->ca_out, 0, t, y, rows, t);
  nn_layer_norm(p, &w->cross_norm, t, rows, t);
  nn_release(p, mark);
}

static void decode(nn_pass *p, const struct model *m, const struct scene *s, float *t) {
  int64_t rows = s->batch * s->queries;
  for (int32_t i = 0; i < m->s.decoder_layers; i++) {
    const struct layer *w = &m->decoder[i];
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    const float *scale = i ? nn_apply_mlp(p, &m->query_scale, t, rows) : NULL;
    self_attention(p, w, s, t);
    nn_tap(p, t, NN_DIMS(s->batch, s->queries, s->d), "decoder.layers.%d.self", (int)i);
    cross_attention(p, w, s, scale, t);
    nn_tap(p, t, NN_DIMS(s->batch, s->queries, s->d), "decoder.layers.%d.cross", (int)i);
    detr_apply_ffn(p, &w->ffn, rows, t);
    nn_tap(p, t, NN_DIMS(s->batch, s->queries, s->d), "decoder.layers.%d", (int)i);
    nn_release(p, mark);
  }
  nn_layer_norm(p, &m->norm, t, rows, t);
}

/* ---- the network ---- */

static struct detr_found network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  int64_t d = m->m.d, queries = m->m.queries, b = batch->n, rows = b * queries;
  struct detr_memory memory = detr_project(p, &m->backbone, &m->input, "input_projection", batch);
  for (int32_t i = 0; i < m->s.encoder_layers; i++) {
    nn_pass_poll(p);
    detr_apply_encoder(p, &m->encoder[i], b, memory.cells, memory.position, memory.real, memory.x);
    nn_tap(p, memory.x, NN_DIMS(b, memory.cells, d), "encoder.layers.%d", (int)i);
  }
  float *learned = detr_rows(p, m->queries, queries, d);        /* [Q, d] */
  float *at = nn_apply_mlp(p, &m->reference, learned, queries); /* [Q, 2], before the sigmoid */
  float *points = nn_room(p, 2 * queries), *sines = nn_room(p, queries * d);
  for (int64_t i = 0; i < 2 * queries; i++) points[i] = detr_sigmoid(at[i]);
  nn_sine_coordinates(points, queries, 2, d / 2, sines);
  struct scene s = {.batch = b,
                    .queries = queries,
                    .cells = memory.cells,
                    .d = d,
                    .heads = m->m.heads,
                    .places = detr_repeat(p, learned, queries * d, b),
                    .sines = detr_repeat(p, sines, queries * d, b),
                    .memory = memory.x,
                    .position = memory.position,
                    .real = memory.real};
  float *t = nn_room(p, rows * d); /* [B, Q, d] */
  memset(t, 0, (size_t)(rows * d) * sizeof *t);
  decode(p, m, &s, t);
  float *boxes = nn_apply_mlp(p, &m->boxes, t, rows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < 4; k++) {
      float shift = k < 2 ? detr_inverse_sigmoid(points[r % queries * 2 + k], 1e-5f) : 0;
      boxes[4 * r + k] = detr_sigmoid(boxes[4 * r + k] + shift);
    }
  return (struct detr_found){.batch = (int32_t)b,
                             .queries = (int32_t)queries,
                             .classes = (int32_t)m->m.labels,
                             .logits = nn_apply_linear(p, &m->classes, 0, t, rows),
                             .boxes = boxes};
}

const struct detr_variant detr_variant_conditional = {.model_type = "conditional_detr",
                                                      .processor = "ConditionalDetrImageProcessor",
                                                      .bytes = sizeof(struct model),
                                                      .tasks = detr_tasks,
                                                      .prepare = detr_usual_prepare,
                                                      .config = config,
                                                      .tables = tables,
                                                      .network = network};
