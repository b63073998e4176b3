/* RelTR, which Hydra-SGG is at inference: who does what to what.
 *
 *   memory x [B, S, d] by DETR's encoder, pos its sines
 *   entities e [Ne, d] with places pe; triplets s, o [Nt, d] with places pt; role codes r0, r1
 *   decoder layer:
 *     e = LN2(e + SA(e + pe, e)); e = LN1(e + CA(e + pe, x + pos, x)); e = LN3(e + FFN e)
 *     [s; o] = LN([s; o] + SA([s + pt + r0; o + pt + r1], [s; o]))
 *     s = LN1(s + CA(s + pt, x + pos, x)), whose map, averaged over the heads, is A_s [Nt, S]
 *     s = LN2(s + CA(s + pt, e, e)); s = LN3(s + FFN s);   o likewise
 *   masks: [A_s; A_o] as a picture -> 28 x 28 -> two convolutions -> 2048 -> 512 -> 128
 *   heads on the last layer: classes and boxes of e, s, o; predicate = MLP([s | o | masks])
 *
 * Official: yrcong/RelTR, models/reltr.py and models/transformer.py. Hydra-SGG trains one more
 * decoder without self-attention that shares these weights and is not used afterwards. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

enum { SIDE = 28 }; /* of the attention maps' pictures */

/* A decoder's subject half, or its object half. */
struct half {
  nn_mha picture, entities;
  nn_norm norm1, norm2;
  struct detr_ffn ffn;
};

struct layer {
  nn_mha self_entity, cross_entity, self_so;
  nn_norm norm1_entity, norm2_entity, norm2_so;
  struct detr_ffn ffn_entity;
  struct half part[2]; /* subject, object */
};

/* A batch norm that follows a ReLU, so that it cannot be folded. */
struct late_norm {
  const float *w, *b, *mean, *var;
};

struct model {
  struct detr_model m;
  struct detr_backbone backbone;
  int32_t encoder_layers, decoder_layers;
  int64_t ff, entities, triplets, predicates; /* predicates: columns of that head */
  int32_t mask_channels[2], mask_fc[2];
  nn_conv input;
  struct detr_encoder_layer encoder[DETR_MAX_LAYERS];
  struct layer decoder[DETR_MAX_LAYERS];
  const viv_weight *entity_embed, *triplet_embed, *so_embed; /* [Ne, 2d], [Nt, 3d], [2, d] */
  nn_linear entity_classes, classes[2];
  nn_mlp entity_boxes, boxes[2], relations;
  nn_conv mask_conv[2];
  struct late_norm mask_norm[2];
  nn_linear mask_linear[2];
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration and weights ---- */

static void prepare(struct detr_prepare *how) {
  detr_usual_prepare(how);
  how->rule = DETR_ASPECT_ROUNDED;
  how->backend = DETR_PIL;
  how->mask_is_padding = true;
}

static void two(nn_config *k, const char *key, int32_t first, int32_t second, int32_t out[2]) {
  out[0] = first;
  out[1] = second;
  if (nn_key(k, key) && nn_ints(k, key, out, 2, 1, 1 << 14) != 2 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json", "%s must be two numbers", key);
}

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  base->d = nn_int(k, "hidden_dim", 256, 4, 1 << 14);
  base->heads = (int32_t)nn_int(k, "nheads", 8, 1, 1024);
  base->labels = 1 + nn_int(k, "num_classes", 151, 1, 1 << 20);
  m->predicates = 1 + nn_int(k, "num_rel_classes", 51, 2, 1 << 16);
  m->entities = nn_int(k, "num_entities", 100, 1, 1 << 14);
  m->triplets = nn_int(k, "num_triplets", 200, 1, 1 << 14);
  base->queries = m->triplets;
  m->encoder_layers = (int32_t)nn_int(k, "enc_layers", 6, 0, DETR_MAX_LAYERS);
  m->decoder_layers = (int32_t)nn_int(k, "dec_layers", 6, 1, DETR_MAX_LAYERS);
  m->ff = nn_int(k, "dim_feedforward", 2048, 1, 1 << 18);
  two(k, "mask_channels", 64, 32, m->mask_channels);
  two(k, "mask_fc_dims", 512, 128, m->mask_fc);
  nn_divides(k, base->d, 4, "hidden_dim and the four sines of a cell");
  nn_divides(k, base->d, base->heads, "hidden_dim and nheads");
  if (nn_flag(k, "pre_norm", false) && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "pre_norm is in no released model and not computed");
  if (base->labels == 152 && m->predicates == 52) base->details = detr_visual_genome;
  detr_read_backbone(k, source, "backbone.0.body.", 1u << 4, &m->backbone);
}

static void load_half(nn_loader *l, const struct model *m, const char *role, struct half *w) {
  int64_t d = m->m.d;
  char name[40], norm[40];
  snprintf(name, sizeof name, "cross_attn_%s", role);
  nn_load_mha(l, name, d, m->m.heads, &w->picture);
  snprintf(name, sizeof name, "cross_%s_entity", role);
  nn_load_mha(l, name, d, m->m.heads, &w->entities);
  snprintf(name, sizeof name, "norm1_%s", role);
  nn_load_norm(l, name, d, 1e-5f, &w->norm1);
  snprintf(name, sizeof name, "norm2_%s", role);
  nn_load_norm(l, name, d, 1e-5f, &w->norm2);
  snprintf(name, sizeof name, "_%s", role);
  snprintf(norm, sizeof norm, "norm3_%s", role);
  detr_load_official_ffn(l, name, norm, d, m->ff, VIV_RELU, &w->ffn);
}

static void load_layers(nn_loader *l, struct model *m) {
  int64_t d = m->m.d;
  for (int32_t i = 0; i < m->encoder_layers; i++) {
    struct detr_encoder_layer *w = &m->encoder[i];
    size_t outer = nn_in(l, "transformer.encoder.layers.%d.", (int)i);
    nn_load_mha(l, "self_attn", d, m->m.heads, &w->attention);
    nn_load_norm(l, "norm1", d, 1e-5f, &w->norm);
    detr_load_official_ffn(l, "", "norm2", d, m->ff, VIV_RELU, &w->ffn);
    nn_out(l, outer);
  }
  for (int32_t i = 0; i < m->decoder_layers; i++) {
    struct layer *w = &m->decoder[i];
    size_t outer = nn_in(l, "transformer.decoder.layers.%d.", (int)i);
    nn_load_mha(l, "self_attn_entity", d, m->m.heads, &w->self_entity);
    nn_load_mha(l, "cross_attn_entity", d, m->m.heads, &w->cross_entity);
    nn_load_mha(l, "self_attn_so", d, m->m.heads, &w->self_so);
    nn_load_norm(l, "norm1_entity", d, 1e-5f, &w->norm1_entity);
    nn_load_norm(l, "norm2_entity", d, 1e-5f, &w->norm2_entity);
    nn_load_norm(l, "norm2_so", d, 1e-5f, &w->norm2_so);
    detr_load_official_ffn(l, "_entity", "norm3_entity", d, m->ff, VIV_RELU, &w->ffn_entity);
    load_half(l, m, "sub", &w->part[0]);
    load_half(l, m, "obj", &w->part[1]);
    nn_out(l, outer);
  }
}

static void load_late_norm(nn_loader *l, const char *name, int64_t channels, struct late_norm *w) {
  int64_t shape[1] = {channels};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_tensor(l, "weight", true, 1, shape, &w->w);
  nn_load_tensor(l, "bias", true, 1, shape, &w->b);
  nn_load_tensor(l, "running_mean", true, 1, shape, &w->mean);
  nn_load_tensor(l, "running_var", true, 1, shape, &w->var);
  nn_out(l, outer);
}

static void load_masks(nn_loader *l, struct model *m) {
  nn_conv_spec one = {
      .in = 2, .out = m->mask_channels[0], .kernel = 3, .stride = 2, .pad = 3, .bias = true};
  nn_conv_spec two_of = {
      .in = m->mask_channels[0], .out = m->mask_channels[1], .kernel = 3, .pad = 1, .bias = true};
  nn_load_conv(l, "so_mask_conv.1", &one, &m->mask_conv[0]);
  load_late_norm(l, "so_mask_conv.3", m->mask_channels[0], &m->mask_norm[0]);
  nn_load_conv(l, "so_mask_conv.5", &two_of, &m->mask_conv[1]);
  load_late_norm(l, "so_mask_conv.7", m->mask_channels[1], &m->mask_norm[1]);
  nn_load_linear(l, "so_mask_fc.0", m->mask_fc[0], 64 * m->mask_channels[1], true,
                 &m->mask_linear[0]);
  nn_load_linear(l, "so_mask_fc.2", m->mask_fc[1], m->mask_fc[0], true, &m->mask_linear[1]);
}

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  int64_t d = m->m.d;
  nn_at(l, "%s", "");
  detr_load_backbone(l, &m->backbone);
  nn_conv_spec input = {
      .in = m->backbone.channels[3], .out = (int32_t)d, .kernel = 1, .bias = true};
  nn_load_conv(l, "input_proj", &input, &m->input);
  nn_load(l, "entity_embed.weight", &m->entity_embed, ROWS(m->entities), 2 * d, NN_MATRIX, true);
  nn_load(l, "triplet_embed.weight", &m->triplet_embed, ROWS(m->triplets), 3 * d, NN_MATRIX, true);
  nn_load(l, "so_embed.weight", &m->so_embed, ROWS(2), d, NN_MATRIX, true);
  load_layers(l, m);
  load_masks(l, m);
  nn_load_linear(l, "entity_class_embed", m->m.labels, d, true, &m->entity_classes);
  nn_load_linear(l, "sub_class_embed", m->m.labels, d, true, &m->classes[0]);
  nn_load_linear(l, "obj_class_embed", m->m.labels, d, true, &m->classes[1]);
  nn_load_mlp(l, "entity_bbox_embed", d, d, 4, 3, VIV_RELU, &m->entity_boxes);
  nn_load_mlp(l, "sub_bbox_embed", d, d, 4, 3, VIV_RELU, &m->boxes[0]);
  nn_load_mlp(l, "obj_bbox_embed", d, d, 4, 3, VIV_RELU, &m->boxes[1]);
  nn_load_mlp(l, "rel_class_embed", 2 * d + m->mask_fc[1], d, m->predicates, 2, VIV_RELU,
              &m->relations);
  nn_ignore(l, "so_mask_conv.*.num_batches_tracked");
  nn_ignore(l, "*hydra*");
}

/* ---- the decoder ---- */

struct state {
  int64_t batch, entities, triplets, d;
  struct detr_memory memory;
  const float *keys;                    /* [B, S, d]: memory + position */
  float *e, *part[2];                   /* [B, Ne, d], [B, Nt, d]: subjects, objects */
  const float *e_place, *place, *roles; /* [B, Ne, d], [B, Nt, d], [2, d] */
  float *map[2];                        /* [B, Nt, S], of the last layer */
};

static void entity_layer(nn_pass *p, const struct layer *w, const struct state *s) {
  int64_t rows = s->batch * s->entities, n = rows * s->d;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, n);
  float *q = detr_sum(p, s->e, n, s->e_place, n);
  nn_apply_mha(p, &w->self_entity, s->batch, q, s->entities, q, s->e, s->entities, NULL, NULL, y);
  detr_add_norm(p, &w->norm2_entity, y, rows, s->e);
  q = detr_sum(p, s->e, n, s->e_place, n);
  nn_apply_mha(p, &w->cross_entity, s->batch, q, s->entities, s->keys, s->memory.x, s->memory.cells,
               NULL, s->memory.real, y);
  detr_add_norm(p, &w->norm1_entity, y, rows, s->e);
  detr_apply_ffn(p, &w->ffn_entity, rows, s->e);
  nn_release(p, mark);
}

/* Subjects and objects attend to each other as one sequence of 2 Nt. */
static void coupled(nn_pass *p, const struct layer *w, const struct state *s, int32_t at) {
  const viv_compute *c = nn_compute_of(p);
  int64_t half = s->triplets * s->d, rows = s->batch * 2 * s->triplets;
  nn_mark mark = nn_here(p);
  float *both = nn_room(p, rows * s->d), *y = nn_room(p, rows * s->d);
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t k = 0; k < 2; k++)
      memcpy(both + (2 * b + k) * half, s->part[k] + b * half, (size_t)half * sizeof *both);
  float *q = nn_room(p, rows * s->d);
  memcpy(q, both, (size_t)(rows * s->d) * sizeof *q);
  for (int64_t i = 0; i < 2 * s->batch; i++) {
    c->add(c, q + i * half, s->place + i / 2 * half, half);
    for (int64_t r = 0; r < s->triplets; r++)
      c->add(c, q + i * half + r * s->d, s->roles + i % 2 * s->d, s->d);
  }
  nn_apply_mha(p, &w->self_so, s->batch, q, 2 * s->triplets, q, both, 2 * s->triplets, NULL, NULL,
               y);
  detr_add_norm(p, &w->norm2_so, y, rows, both);
  nn_tap(p, both, NN_DIMS(s->batch, 2 * s->triplets, s->d), "decoder.layers.%d.so", (int)at);
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t k = 0; k < 2; k++)
      memcpy(s->part[k] + b * half, both + (2 * b + k) * half, (size_t)half * sizeof *both);
  nn_release(p, mark);
}

/* The attention's weights, averaged over the heads: [B, nq, nk]. */
static void attention_map(nn_pass *p, const nn_mha *w, int64_t batch, const float *query,
                          int64_t nq, const float *key, int64_t nk, const uint8_t *real,
                          float *map) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = w->q.out, dim = d / w->heads;
  nn_mark mark = nn_here(p);
  float *q = nn_apply_linear(p, &w->q, 0, query, batch * nq);
  float *k = nn_apply_linear(p, &w->k, 0, key, batch * nk);
  float *scores = nn_room(p, nq * nk), share = 1.0f / (float)w->heads;
  memset(map, 0, (size_t)(batch * nq * nk) * sizeof *map);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t h = 0; h < w->heads; h++) {
      c->gemm(c, 0, 1, nq, nk, dim, 1.0f / sqrtf((float)dim), q + b * nq * d + h * dim, d,
              k + b * nk * d + h * dim, d, 0, scores, nk);
      for (int64_t i = 0; real && i < nq * nk; i++)
        if (!real[b * nk + i % nk]) scores[i] = -INFINITY;
      c->softmax(c, scores, nq, nk, scores);
      for (int64_t i = 0; i < nq * nk; i++) map[b * nq * nk + i] += scores[i] * share;
    }
  nn_release(p, mark);
}

/* x: s->part[k]; map NULL: nobody reads it. */
static void half_layer(nn_pass *p, const struct half *w, const struct state *s, float *x,
                       float *map) {
  int64_t rows = s->batch * s->triplets, n = rows * s->d;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, n);
  float *q = detr_sum(p, x, n, s->place, n);
  nn_apply_mha(p, &w->picture, s->batch, q, s->triplets, s->keys, s->memory.x, s->memory.cells,
               NULL, s->memory.real, y);
  if (map)
    attention_map(p, &w->picture, s->batch, q, s->triplets, s->keys, s->memory.cells,
                  s->memory.real, map);
  detr_add_norm(p, &w->norm1, y, rows, x);
  q = detr_sum(p, x, n, s->place, n);
  nn_apply_mha(p, &w->entities, s->batch, q, s->triplets, s->e, s->e, s->entities, NULL, NULL, y);
  detr_add_norm(p, &w->norm2, y, rows, x);
  detr_apply_ffn(p, &w->ffn, rows, x);
  nn_release(p, mark);
}

static void tap_triplets(nn_pass *p, const struct state *s, int32_t at) {
  if (!nn_taps(p, "decoder.layers.%d.triplet", (int)at)) return;
  nn_mark mark = nn_here(p);
  int64_t rows = s->batch * s->triplets;
  float *both = nn_room(p, rows * 2 * s->d);
  for (int64_t i = 0; i < 2 * rows; i++)
    memcpy(both + i * s->d, s->part[i % 2] + i / 2 * s->d, (size_t)s->d * sizeof *both);
  nn_tap(p, both, NN_DIMS(s->batch, s->triplets, 2 * s->d), "decoder.layers.%d.triplet", (int)at);
  nn_release(p, mark);
}

static void decode(nn_pass *p, const struct model *m, const struct state *s) {
  for (int32_t i = 0; i < m->decoder_layers; i++) {
    const struct layer *w = &m->decoder[i];
    bool last = i + 1 == m->decoder_layers;
    nn_pass_poll(p);
    entity_layer(p, w, s);
    nn_tap(p, s->e, NN_DIMS(s->batch, s->entities, s->d), "decoder.layers.%d.entity", (int)i);
    coupled(p, w, s, i);
    for (int k = 0; k < 2; k++) half_layer(p, &w->part[k], s, s->part[k], last ? s->map[k] : NULL);
    tap_triplets(p, s, i);
  }
}

/* ---- the network ---- */

/* Columns [from, from + d) of a table [rows, width], once for each picture. */
static float *columns(nn_pass *p, const float *table, int64_t rows, int64_t width, int64_t from,
                      int64_t d, int64_t batch) {
  float *out = nn_room(p, batch * rows * d);
  for (int64_t r = 0; r < batch * rows; r++)
    memcpy(out + r * d, table + r % rows * width + from, (size_t)d * sizeof *out);
  return out;
}

/* y = (x - mean) / sqrt(var + 1e-5) w + b over [n, channels, space] */
static void apply_late_norm(nn_pass *p, const struct late_norm *w, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  float *scale = nn_room(p, x->channels), *shift = nn_room(p, x->channels);
  for (int32_t i = 0; i < x->channels; i++) {
    double factor = (double)w->w[i] / sqrt((double)w->var[i] + 1e-5);
    scale[i] = (float)factor;
    shift[i] = (float)((double)w->b[i] - (double)w->mean[i] * factor);
  }
  c->scale_shift(c, x->x, scale, shift, x->batch, x->channels, nn_space(x), x->x);
  nn_release(p, mark);
}

/* [B Nt, mask_fc[1]] from the two maps of each triplet. */
static float *mask_features(nn_pass *p, const struct model *m, const struct state *s) {
  int64_t rows = s->batch * s->triplets, cells = s->memory.cells;
  float *out = nn_room(p, rows * m->mask_fc[1]);
  nn_mark mark = nn_here(p);
  int32_t size[2] = {s->memory.height, s->memory.width}, wide[2] = {SIDE, SIDE};
  nn_map x = nn_new_map(p, (int32_t)rows, 2, 2, size, VIV_CHANNELS_FIRST);
  for (int64_t i = 0; i < 2 * rows; i++)
    memcpy(x.x + i * cells, s->map[i % 2] + i / 2 * cells, (size_t)cells * sizeof *x.x);
  x = nn_resize_map(p, VIV_NEAREST, false, wide, &x);
  x = nn_apply_conv(p, &m->mask_conv[0], VIV_RELU, &x);
  apply_late_norm(p, &m->mask_norm[0], &x);
  x = nn_pool2d(p, VIV_POOL_MAX, 3, 2, 1, false, &x);
  x = nn_apply_conv(p, &m->mask_conv[1], VIV_RELU, &x);
  apply_late_norm(p, &m->mask_norm[1], &x);
  nn_tap(p, x.x, NN_DIMS(rows, x.channels, x.size[0], x.size[1]), "mask_conv");
  float *inner = nn_apply_linear(p, &m->mask_linear[0], VIV_RELU, x.x, rows);
  nn_linear_to(p, &m->mask_linear[1], 0, NULL, inner, rows, out);
  nn_release(p, mark);
  nn_tap(p, out, NN_DIMS(s->batch, s->triplets, m->mask_fc[1]), "mask_feature");
  return out;
}

/* What the network answers: of entities (0), subjects (1) and objects (2). */
struct graph {
  int64_t batch, count[3], classes, predicates;
  const float *logits[3], *boxes[3]; /* [B, count, classes], [B, count, 4] */
  const float *relations;            /* [B, Nt, predicates] */
};

static void head(nn_pass *p, const nn_linear *classes, const nn_mlp *boxes, const float *x,
                 int64_t rows, struct graph *g, int at) {
  const viv_compute *c = nn_compute_of(p);
  g->logits[at] = nn_apply_linear(p, classes, 0, x, rows);
  float *box = nn_apply_mlp(p, boxes, x, rows);
  c->unary(c, VIV_SIGMOID, box, box, 4 * rows);
  g->boxes[at] = box;
}

static struct state begin(nn_pass *p, const struct model *m, const struct detr_batch *batch) {
  struct state s = {
      .batch = batch->n, .entities = m->entities, .triplets = m->triplets, .d = m->m.d};
  int64_t d = s.d, b = s.batch;
  s.memory = detr_project(p, &m->backbone, &m->input, "input_proj", batch);
  for (int32_t i = 0; i < m->encoder_layers; i++) {
    nn_pass_poll(p);
    detr_apply_encoder(p, &m->encoder[i], b, s.memory.cells, s.memory.position, s.memory.real,
                       s.memory.x);
    nn_tap(p, s.memory.x, NN_DIMS(b, s.memory.cells, d), "encoder.layers.%d", (int)i);
  }
  int64_t n = b * s.memory.cells * d;
  s.keys = detr_sum(p, s.memory.x, n, s.memory.position, n);
  const float *entity = detr_rows(p, m->entity_embed, m->entities, 2 * d);
  const float *triplet = detr_rows(p, m->triplet_embed, m->triplets, 3 * d);
  s.e_place = columns(p, entity, m->entities, 2 * d, 0, d, b);
  s.e = columns(p, entity, m->entities, 2 * d, d, d, b);
  s.place = columns(p, triplet, m->triplets, 3 * d, 0, d, b);
  s.roles = detr_rows(p, m->so_embed, 2, d);
  for (int k = 0; k < 2; k++) {
    s.part[k] = columns(p, triplet, m->triplets, 3 * d, (1 + k) * d, d, b);
    s.map[k] = nn_room(p, b * m->triplets * s.memory.cells);
  }
  return s;
}

static struct graph network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  int64_t d = m->m.d, b = batch->n, rows = b * m->triplets;
  struct state s = begin(p, m, batch);
  decode(p, m, &s);
  nn_tap(p, s.map[0], NN_DIMS(b, m->triplets, s.memory.cells), "sub_maps");
  nn_tap(p, s.map[1], NN_DIMS(b, m->triplets, s.memory.cells), "obj_maps");
  struct graph g = {.batch = b,
                    .count = {m->entities, m->triplets, m->triplets},
                    .classes = m->m.labels,
                    .predicates = m->predicates};
  head(p, &m->entity_classes, &m->entity_boxes, s.e, b * m->entities, &g, 0);
  for (int k = 0; k < 2; k++) head(p, &m->classes[k], &m->boxes[k], s.part[k], rows, &g, 1 + k);
  int64_t mask = m->mask_fc[1], width = 2 * d + mask;
  const float *masks = mask_features(p, m, &s);
  float *all = nn_room(p, rows * width); /* [s | o | masks] */
  for (int64_t r = 0; r < rows; r++) {
    memcpy(all + r * width, s.part[0] + r * d, (size_t)d * sizeof *all);
    memcpy(all + r * width + d, s.part[1] + r * d, (size_t)d * sizeof *all);
    memcpy(all + r * width + 2 * d, masks + r * mask, (size_t)mask * sizeof *all);
  }
  g.relations = nn_apply_mlp(p, &m->relations, all, rows);
  return g;
}

static int32_t forward(nn_pass *p) {
  static const char *const names[] = {"pred", "sub", "obj"};
  const struct detr_model *m = nn_net_of(p);
  struct detr_batch batch = detr_read_batch(p, &m->prepare);
  struct graph g = network(p, &batch);
  for (int k = 0; k < 3; k++) {
    nn_result(p, VIV_F32, g.logits[k], NN_DIMS(g.batch, g.count[k], g.classes), "%s_logits",
              names[k]);
    nn_result(p, VIV_F32, g.boxes[k], NN_DIMS(g.batch, g.count[k], 4), "%s_boxes", names[k]);
  }
  nn_result(p, VIV_F32, g.relations, NN_DIMS(g.batch, g.count[1], g.predicates), "rel_logits");
  return VIV_DONE;
}

/* ---- triplets ---- */

struct triplets {
  int64_t n;
  float *scores;           /* [n] */
  int32_t *queries, *what; /* [n], [n, 3]: subject, predicate, object */
  float *boxes[2];         /* [n, 4] corners in pixels: subject, object */
};

/* Of each row the likeliest of columns [first, last), drop_last leaving the last of them out after
 * the softmax over all of them: its odds and its number. */
static void likeliest(nn_pass *p, const float *logits, int64_t rows, int64_t width, int64_t first,
                      int64_t last, bool drop_last, float *odds, int32_t *label) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = last - first;
  nn_mark mark = nn_here(p);
  float *x = nn_room(p, rows * n);
  for (int64_t r = 0; r < rows; r++)
    memcpy(x + r * n, logits + r * width + first, (size_t)n * sizeof *x);
  c->softmax(c, x, rows, n, x);
  for (int64_t r = 0; r < rows; r++) {
    int64_t best = 0;
    for (int64_t k = 1; k < n - drop_last; k++)
      if (x[r * n + k] > x[r * n + best]) best = k;
    odds[r] = x[r * n + best];
    label[r] = (int32_t)(first + best);
  }
  nn_release(p, mark);
}

/* evaluation: all queries, and the predicate among columns 1 to the last but one, as engine.py
 * ranks them for Visual Genome; else those whose three odds pass the threshold, the best `most`, as
 * inference.py shows them. */
static struct triplets rank(nn_pass *p, const struct graph *g, int64_t b, bool evaluation,
                            double threshold, int64_t most, const int64_t *size) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = g->count[1], last = g->predicates - evaluation;
  if (most > n || evaluation) most = n;
  struct triplets t = {.scores = nn_room(p, n),
                       .queries = nn_bytes(p, n, sizeof(int32_t)),
                       .what = nn_bytes(p, 3 * n, sizeof(int32_t)),
                       .boxes = {nn_room(p, 4 * n), nn_room(p, 4 * n)}};
  float *odds[3], *product = nn_room(p, n), *values = nn_room(p, n);
  int32_t *label[3], *order = nn_bytes(p, n, sizeof *order);
  for (int k = 0; k < 3; k++) {
    odds[k] = nn_room(p, n);
    label[k] = nn_bytes(p, n, sizeof *label[k]);
  }
  likeliest(p, g->logits[1] + b * n * g->classes, n, g->classes, 0, g->classes, true, odds[0],
            label[0]);
  likeliest(p, g->relations + b * n * g->predicates, n, g->predicates, evaluation, last,
            !evaluation, odds[1], label[1]);
  likeliest(p, g->logits[2] + b * n * g->classes, n, g->classes, 0, g->classes, true, odds[2],
            label[2]);
  for (int64_t i = 0; i < n; i++) {
    bool kept = evaluation;
    kept = kept || ((double)odds[0][i] > threshold && (double)odds[1][i] > threshold &&
                    (double)odds[2][i] > threshold);
    product[i] = kept ? odds[0][i] * odds[1][i] * odds[2][i] : -1;
  }
  c->top_k(c, product, 1, n, most, values, order);
  for (int64_t i = 0; i < most && values[i] >= 0; i++, t.n++) {
    t.scores[i] = values[i];
    t.queries[i] = order[i];
    for (int k = 0; k < 3; k++) t.what[3 * i + k] = label[k][order[i]];
    for (int k = 0; k < 2 && g->boxes[1 + k]; k++) {
      float *box = t.boxes[k] + 4 * i;
      nn_boxes_to_corners(g->boxes[1 + k] + (b * n + order[i]) * 4, 1, box);
      for (int j = 0; j < 4; j++) box[j] *= size ? (float)size[j % 2 ? 0 : 1] : 1;
    }
  }
  return t;
}

static int32_t postprocess(nn_pass *p) {
  const struct model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, m->m.labels};
  struct graph g = {.classes = m->m.labels, .predicates = m->predicates};
  g.logits[1] = nn_need_floats(p, "sub_logits", 3, shape);
  g.logits[2] = nn_need_floats(p, "obj_logits", 3, shape);
  int64_t relations[3] = {shape[0], shape[1], m->predicates}, boxes[3] = {shape[0], shape[1], 4};
  g.relations = nn_need_floats(p, "rel_logits", 3, relations);
  g.batch = shape[0];
  g.count[1] = g.count[2] = shape[1];
  bool evaluation = nn_param_flag(p, "evaluation", false);
  if (!evaluation) {
    g.boxes[1] = nn_need_floats(p, "sub_boxes", 3, boxes);
    g.boxes[2] = nn_need_floats(p, "obj_boxes", 3, boxes);
  }
  double threshold = nn_param_num(p, "threshold", 0.3, -1, 1);
  int64_t most = nn_param_int(p, "top_k", 10, 1, 1 << 24);
  const int64_t *sizes = detr_target_sizes(p, (int32_t)g.batch);
  for (int64_t b = 0; b < g.batch; b++) {
    nn_mark mark = nn_here(p);
    struct triplets t = rank(p, &g, b, evaluation, threshold, most, sizes ? sizes + 2 * b : NULL);
    nn_result(p, VIV_I32, t.queries, NN_DIMS(t.n), "queries.%d", (int)b);
    nn_result(p, VIV_F32, t.scores, NN_DIMS(t.n), "scores.%d", (int)b);
    nn_result(p, VIV_I32, t.what, NN_DIMS(t.n, 3), "triplets.%d", (int)b);
    if (!evaluation) {
      nn_result(p, VIV_F32, t.boxes[0], NN_DIMS(t.n, 4), "sub_boxes.%d", (int)b);
      nn_result(p, VIV_F32, t.boxes[1], NN_DIMS(t.n, 4), "obj_boxes.%d", (int)b);
    }
    nn_release(p, mark);
  }
  return VIV_DONE;
}

/* A person's picture: what postprocess gives, under the names of the task. */
static int32_t relations(nn_pass *p) {
  static const char *const names[] = {"subject_labels", "predicates", "object_labels"};
  const struct detr_model *m = nn_net_of(p);
  double threshold = nn_param_num(p, "threshold", 0.3, -1, 1);
  int64_t most = nn_param_int(p, "top_k", 10, 1, 1 << 24);
  struct detr_batch batch = detr_prepare_images(p, &m->prepare, false);
  struct graph g = network(p, &batch);
  for (int64_t b = 0; b < g.batch; b++) {
    nn_mark mark = nn_here(p);
    struct triplets t = rank(p, &g, b, false, threshold, most, batch.sizes + 2 * b);
    int32_t *one = nn_bytes(p, t.n, sizeof *one);
    nn_result(p, VIV_F32, t.boxes[0], NN_DIMS(t.n, 4), "subject_boxes.%d", (int)b);
    nn_result(p, VIV_F32, t.boxes[1], NN_DIMS(t.n, 4), "object_boxes.%d", (int)b);
    for (int k = 0; k < 3; k++) {
      for (int64_t i = 0; i < t.n; i++) one[i] = t.what[3 * i + k];
      nn_result(p, VIV_I32, one, NN_DIMS(t.n), "%s.%d", names[k], (int)b);
    }
    nn_result(p, VIV_F32, t.scores, NN_DIMS(t.n), "scores.%d", (int)b);
    nn_release(p, mark);
  }
  return VIV_DONE;
}

static const nn_task tasks[] = {{"preprocess", detr_preprocess_task}, {"forward", forward},
                                {"postprocess", postprocess},         {"relations", relations},
                                {"scene_graph", relations},           {NULL, NULL}};

const struct detr_variant detr_variant_reltr = {.model_type = "reltr",
                                                .bytes = sizeof(struct model),
                                                .tasks = tasks,
                                                .prepare = prepare,
                                                .config = config,
                                                .tables = tables};
const struct detr_variant detr_variant_hydra_sgg = {.model_type = "hydra_sgg",
                                                    .bytes = sizeof(struct model),
                                                    .tasks = tasks,
                                                    .prepare = prepare,
                                                    .config = config,
                                                    .tables = tables};
