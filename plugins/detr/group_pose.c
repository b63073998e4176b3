/* Group Pose: people as groups of queries, one for the person and one for each joint.
 *
 *   pyramid and encoder of Deformable DETR (sines with T = 20, input_proj.3 reads raw C5)
 *   m' = LN(W memory); the N cells with the largest class logit become people:
 *     joints = sigmoid(MLP(m') + sigmoid^-1(cell)) [K, 2], centre = their mean
 *     X = [instance; joint_k + m'] [B, N, K + 1, d],  R = [centre; joints] [B, N, K + 1, 2]
 *   decoder layer, p = MLP(sine(R)) for the joints:
 *     X[1:] += p;  X = LN(X + attention within each person)
 *     X = LN(X + attention across people, joint by joint)
 *     X[1:] += p;  X = LN(X + MSDA(X, R, memory));  X = LN(X + FFN(X))
 *     joints = sigmoid(sigmoid^-1(joints) + MLP_i(X[1:])), centre = their mean
 *   logits = class_embed(X[0]) [B, N, classes]
 *
 * The position is added to the tensor itself, twice a layer, as the official code does it.
 * Official: Michel-liu/GroupPose, models/grouppose. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

enum { MAX_JOINTS = 256 };

struct layer {
  nn_mha within, across;
  nn_norm within_norm, across_norm, cross_norm;
  struct detr_msda cross;
  struct detr_ffn ffn;
  nn_mlp joints; /* pose_embed */
};

struct model {
  struct detr_model m;
  struct detr_backbone backbone;
  struct detr_pyramid pyramid;
  int32_t encoder_layers, decoder_layers, encoder_points, decoder_points;
  int64_t ff, joints, select;
  double temperature_h, temperature_w;
  struct detr_deform_layer encoder[DETR_MAX_LAYERS];
  struct layer decoder[DETR_MAX_LAYERS];
  nn_linear enc_output, enc_classes, classes;
  nn_norm enc_norm;
  nn_mlp enc_joints, places;
  const viv_weight *joint_tokens, *person_token; /* [K, d], [1, d] */
};
_Static_assert(sizeof(struct model) <= DETR_MODEL_BYTES, "plan() keeps it on its stack");

/* ---- configuration and weights ---- */

static void prepare(struct detr_prepare *how) {
  detr_usual_prepare(how);
  how->rule = DETR_ASPECT_ROUNDED;
  how->backend = DETR_PIL;
  how->mask_is_padding = true;
}

/* CrowdPose; a model of 17 joints has COCO's, which need no names. */
static const char crowd_pose[] =
    ",\"keypoints\":[\"left_shoulder\",\"right_shoulder\",\"left_elbow\",\"right_elbow\","
    "\"left_wrist\",\"right_wrist\",\"left_hip\",\"right_hip\",\"left_knee\",\"right_knee\","
    "\"left_ankle\",\"right_ankle\",\"head\",\"neck\"],\"skeleton\":[[12,13],[13,0],[13,1],[0,2],"
    "[2,4],[1,3],[3,5],[13,6],[13,7],[6,8],[8,10],[7,9],[9,11]]";

static void read_maps(nn_config *k, struct model *m) {
  int32_t list[4] = {1, 2, 3}, n = 3;
  if (nn_key(k, "return_interm_indices")) n = nn_ints(k, "return_interm_indices", list, 4, 0, 3);
  for (int32_t i = 0; i < n; i++)
    if (list[i] != 4 - n + i && !k->status)
      k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                          "return_interm_indices must end with 3 and leave none out");
  m->pyramid.maps = n;
}

static void config(nn_config *k, const viv_model_source *source, struct detr_model *base) {
  struct model *m = (struct model *)(void *)base;
  base->d = nn_int(k, "hidden_dim", 256, 4, 1 << 14);
  base->heads = (int32_t)nn_int(k, "nheads", 8, 1, 1024);
  base->queries = nn_int(k, "num_queries", 100, 1, 1 << 14);
  base->labels = nn_int(k, "num_classes", 2, 1, 1 << 16);
  m->joints = nn_int(k, "num_body_points", 17, 1, MAX_JOINTS);
  m->select = nn_int(k, "num_select", 50, 1, 1 << 16);
  m->encoder_layers = (int32_t)nn_int(k, "enc_layers", 6, 0, DETR_MAX_LAYERS);
  m->decoder_layers = (int32_t)nn_int(k, "dec_layers", 6, 1, DETR_MAX_LAYERS);
  m->encoder_points = (int32_t)nn_int(k, "enc_n_points", 4, 1, 64);
  m->decoder_points = (int32_t)nn_int(k, "dec_n_points", 4, 1, 64);
  m->ff = nn_int(k, "dim_feedforward", 2048, 1, 1 << 18);
  m->temperature_h = nn_num(k, "pe_temperatureH", 20, 1e-3, 1e9);
  m->temperature_w = nn_num(k, "pe_temperatureW", 20, 1e-3, 1e9);
  m->pyramid.levels = (int32_t)nn_int(k, "num_feature_levels", 4, 1, DETR_MAX_LEVELS);
  read_maps(k, m);
  if ((nn_flag(k, "learnable_tgt_init", false) || nn_flag(k, "pre_norm", false) ||
       !nn_is(nn_text(k, "two_stage_type", "standard"), "standard")) &&
      !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "learnable_tgt_init, pre_norm and two_stage_type other than \"standard\" "
                        "are in no released model and not computed");
  nn_divides(k, base->d, base->heads, "hidden_dim and nheads");
  detr_check_pyramid(k, &m->pyramid, base->d);
  if (m->joints == 14) base->details = crowd_pose;
  uint32_t stages = 0;
  for (int32_t i = 0; i < m->pyramid.maps; i++) stages |= 1u << (4 - i);
  bool swin = nn_text(k, "backbone", "resnet50").len >= 4 &&
              !memcmp(nn_text(k, "backbone", "resnet50").ptr, "swin", 4);
  detr_read_backbone(k, source, swin ? "backbone.0." : "backbone.0.body.", stages, &m->backbone);
}

static void load_layer(nn_loader *l, const struct model *m, struct layer *w) {
  int64_t d = m->m.d;
  nn_load_mha(l, "within_attn", d, m->m.heads, &w->within);
  nn_load_norm(l, "within_norm", d, 1e-5f, &w->within_norm);
  nn_load_mha(l, "across_attn", d, m->m.heads, &w->across);
  nn_load_norm(l, "across_norm", d, 1e-5f, &w->across_norm);
  detr_load_msda(l, "cross_attn", d, m->m.heads, m->pyramid.levels, m->decoder_points, &w->cross);
  nn_load_norm(l, "norm1", d, 1e-5f, &w->cross_norm);
  detr_load_official_ffn(l, "", "norm2", d, m->ff, VIV_RELU, &w->ffn);
}

static void load_transformer(nn_loader *l, struct model *m) {
  int64_t d = m->m.d;
  for (int32_t i = 0; i < m->encoder_layers; i++) {
    size_t outer = nn_in(l, "encoder.layers.%d.", (int)i);
    detr_load_deform_layer(l, true, d, m->ff, m->m.heads, m->pyramid.levels, m->encoder_points,
                           VIV_RELU, &m->encoder[i]);
    nn_out(l, outer);
  }
  for (int32_t i = 0; i < m->decoder_layers; i++) {
    size_t outer = nn_in(l, "decoder.layers.%d.", (int)i);
    load_layer(l, m, &m->decoder[i]);
    nn_out(l, outer);
  }
  nn_load_linear(l, "enc_output", d, d, true, &m->enc_output);
  nn_load_norm(l, "enc_output_norm", d, 1e-5f, &m->enc_norm);
  nn_load_linear(l, "enc_out_class_embed", m->m.labels, d, true, &m->enc_classes);
  nn_load_mlp(l, "enc_pose_embed", d, 2 * d, 2 * m->joints, 4, VIV_RELU, &m->enc_joints);
  nn_load_mlp(l, "decoder.half_pose_ref_point_head", d, d, d, 2, VIV_RELU, &m->places);
  nn_load(l, "keypoint_embedding.weight", &m->joint_tokens, ROWS(m->joints), d, NN_MATRIX, true);
  nn_load(l, "instance_embedding.weight", &m->person_token, ROWS(1), d, NN_MATRIX, true);
}

static void tables(nn_loader *l, void *model) {
  struct model *m = model;
  int64_t d = m->m.d;
  nn_at(l, "%s", "");
  detr_load_backbone(l, &m->backbone);
  detr_load_pyramid(l, "", "transformer.level_embed", d, &m->backbone, &m->pyramid);
  size_t outer = nn_in(l, "transformer.");
  load_transformer(l, m);
  nn_out(l, outer);
  /* The heads stand at the top and once more in the decoder: the same storage. */
  char name[40];
  outer = nn_in(l, "%s", nn_there(l, "pose_embed.0.layers.0.weight") ? "" : "transformer.decoder.");
  for (int32_t i = 0; i < m->decoder_layers; i++) {
    snprintf(name, sizeof name, "pose_embed.%d", (int)i);
    nn_load_mlp(l, name, d, d, 2, 3, VIV_RELU, &m->decoder[i].joints);
  }
  snprintf(name, sizeof name, "class_embed.%d", (int)m->decoder_layers - 1);
  nn_load_linear(l, name, m->m.labels, d, true, &m->classes);
  nn_out(l, outer);
  nn_ignore(l, "class_embed.*"); /* of the other layers: for training */
  nn_ignore(l, "transformer.decoder.class_embed.*");
  nn_ignore(l, "transformer.decoder.pose_embed.*");
}

/* ---- people ---- */

struct people {
  int64_t batch, n, tokens, d; /* B, N, K + 1 */
  float *x;                    /* [B, N, K + 1, d] */
  float *at;                   /* [B, N, K + 1, 2] */
  float *first_logits;         /* [B, N, classes] of the chosen cells */
};

/* The first of each K + 1 points is the mean of the others. */
static void set_centres(const struct people *o) {
  for (int64_t r = 0; r < o->batch * o->n; r++) {
    float *at = o->at + r * o->tokens * 2, sum[2] = {0, 0};
    for (int64_t k = 1; k < o->tokens; k++)
      for (int i = 0; i < 2; i++) sum[i] += at[2 * k + i];
    for (int i = 0; i < 2; i++) at[i] = sum[i] / (float)(o->tokens - 1);
  }
}

static void fill_tokens(nn_pass *p, const struct model *m, const float *chosen,
                        const struct people *o) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  const float *person = detr_rows(p, m->person_token, 1, o->d);
  const float *joints = detr_rows(p, m->joint_tokens, o->tokens - 1, o->d);
  for (int64_t r = 0; r < o->batch * o->n; r++) {
    float *x = o->x + r * o->tokens * o->d;
    memcpy(x, person, (size_t)o->d * sizeof *x);
    memcpy(x + o->d, joints, (size_t)((o->tokens - 1) * o->d) * sizeof *x);
    for (int64_t k = 1; k < o->tokens; k++) c->add(c, x + k * o->d, chosen + r * o->d, o->d);
  }
  nn_release(p, mark);
}

static struct people choose(nn_pass *p, const struct model *m, const struct detr_scene *s) {
  int64_t b = s->lv.batch, cells = b * s->cells, n = m->m.queries, d = m->m.d;
  struct people o = {.batch = b, .n = n, .tokens = m->joints + 1, .d = d};
  o.x = nn_room(p, b * n * o.tokens * d);
  o.at = nn_room(p, b * n * o.tokens * 2);
  o.first_logits = nn_room(p, b * n * m->m.labels);
  nn_mark mark = nn_here(p);
  uint8_t *usable = nn_bytes(p, cells, 1);
  float *squares = detr_proposals(p, &s->lv, true, INFINITY, usable);
  float *x = nn_room(p, cells * d);
  memcpy(x, s->x, (size_t)(cells * d) * sizeof *x);
  detr_drop_rows(x, usable, cells, d);
  x = nn_apply_linear(p, &m->enc_output, 0, x, cells);
  nn_layer_norm(p, &m->enc_norm, x, cells, x);
  nn_tap(p, x, NN_DIMS(b, s->cells, d), "enc_output_norm");
  float *logits = nn_apply_linear(p, &m->enc_classes, 0, x, cells);
  int32_t *best = detr_top_cells(p, logits, b, s->cells, m->m.labels, m->m.labels, n);
  float *chosen = detr_pick_rows(p, x, best, b, s->cells, n, d);
  float *around = detr_pick_rows(p, squares, best, b, s->cells, n, 4);
  float *delta = nn_apply_mlp(p, &m->enc_joints, chosen, b * n); /* [B, N, K, 2] */
  memcpy(o.first_logits, detr_pick_rows(p, logits, best, b, s->cells, n, m->m.labels),
         (size_t)(b * n * m->m.labels) * sizeof *logits);
  for (int64_t r = 0; r < b * n; r++)
    for (int64_t i = 0; i < 2 * m->joints; i++)
      o.at[r * o.tokens * 2 + 2 + i] =
          detr_sigmoid(delta[r * 2 * m->joints + i] + around[4 * r + i % 2]);
  set_centres(&o);
  fill_tokens(p, m, chosen, &o);
  nn_release(p, mark);
  nn_tap(p, o.at, NN_DIMS(b, n, o.tokens, 2), "references.0");
  return o;
}

/* ---- the decoder ---- */

/* x of the joints += place, [B, N, K + 1, d]; the person has none. */
static void add_places(nn_pass *p, const struct people *o, const float *place) {
  const viv_compute *c = nn_compute_of(p);
  for (int64_t r = 0; r < o->batch * o->n; r++) {
    int64_t at = (r * o->tokens + 1) * o->d;
    c->add(c, o->x + at, place + at, (o->tokens - 1) * o->d);
  }
}

static void tap_people(nn_pass *p, const struct people *o, int32_t layer, const char *part) {
  nn_tap(p, o->x, NN_DIMS(o->batch, o->n, o->tokens, o->d), "decoder.layers.%d%s", (int)layer,
         part);
}

static void within(nn_pass *p, const struct layer *w, const struct people *o) {
  int64_t rows = o->batch * o->n * o->tokens;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, rows * o->d);
  nn_apply_mha(p, &w->within, o->batch * o->n, o->x, o->tokens, o->x, o->x, o->tokens, NULL, NULL,
               y);
  detr_add_norm(p, &w->within_norm, y, rows, o->x);
  nn_release(p, mark);
}

static void across(nn_pass *p, const struct layer *w, const struct people *o) {
  const viv_compute *c = nn_compute_of(p);
  int64_t rows = o->batch * o->n * o->tokens;
  int64_t by_person[4] = {o->batch, o->n, o->tokens, o->d};
  int64_t by_joint[4] = {o->batch, o->tokens, o->n, o->d};
  int32_t turn[4] = {0, 2, 1, 3};
  nn_mark mark = nn_here(p);
  float *x = nn_room(p, rows * o->d), *y = nn_room(p, rows * o->d);
  c->permute(c, o->x, 4, by_person, turn, x); /* [B, K + 1, N, d] */
  nn_apply_mha(p, &w->across, o->batch * o->tokens, x, o->n, x, x, o->n, NULL, NULL, y);
  c->permute(c, y, 4, by_joint, turn, x);
  detr_add_norm(p, &w->across_norm, x, rows, o->x);
  nn_release(p, mark);
}

/* MLP(sine(R)), R by the ratios of level 0: [B, N, K + 1, d] */
static float *places_of(nn_pass *p, const struct model *m, const struct detr_levels *lv,
                        const struct people *o) {
  int64_t rows = o->batch * o->n * o->tokens, per = o->n * o->tokens;
  float *out = nn_room(p, rows * o->d);
  nn_mark mark = nn_here(p);
  float *at = nn_room(p, 2 * rows), *sines = nn_room(p, rows * o->d);
  for (int64_t i = 0; i < 2 * rows; i++) {
    float ratio = lv->ratios ? lv->ratios[i / 2 / per * lv->n * 2 + i % 2] : 1;
    at[i] = o->at[i] * ratio;
  }
  nn_sine_coordinates(at, rows, 2, o->d / 2, sines);
  memcpy(out, nn_apply_mlp(p, &m->places, sines, rows), (size_t)(rows * o->d) * sizeof *out);
  nn_release(p, mark);
  return out;
}

static void move_joints(nn_pass *p, const struct layer *w, const struct people *o) {
  nn_mark mark = nn_here(p);
  const float *delta = nn_apply_mlp(p, &w->joints, o->x, o->batch * o->n * o->tokens);
  for (int64_t r = 0; r < o->batch * o->n * o->tokens; r++)
    for (int64_t i = 2 * r; r % o->tokens && i < 2 * r + 2; i++)
      o->at[i] = detr_sigmoid(detr_inverse_sigmoid(o->at[i], 1e-3f) + delta[i]);
  set_centres(o);
  nn_release(p, mark);
}

static void decode(nn_pass *p, const struct model *m, const struct detr_scene *s,
                   const struct people *o) {
  int64_t rows = o->batch * o->n * o->tokens;
  for (int32_t i = 0; i < m->decoder_layers; i++) {
    const struct layer *w = &m->decoder[i];
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    float *place = places_of(p, m, &s->lv, o), *y = nn_room(p, rows * o->d);
    add_places(p, o, place);
    within(p, w, o);
    tap_people(p, o, i, ".within");
    across(p, w, o);
    tap_people(p, o, i, ".across");
    add_places(p, o, place);
    detr_apply_msda(p, &w->cross, &s->lv, o->x, o->n * o->tokens, o->at, 2, s->x, y);
    detr_add_norm(p, &w->cross_norm, y, rows, o->x);
    tap_people(p, o, i, ".cross");
    detr_apply_ffn(p, &w->ffn, rows, o->x);
    tap_people(p, o, i, "");
    move_joints(p, w, o);
    nn_tap(p, o->at, NN_DIMS(o->batch, o->n, o->tokens, 2), "references.%d", (int)i + 1);
    nn_release(p, mark);
  }
}

/* ---- tasks ---- */

/* What the network answers. */
struct poses {
  int64_t batch, n, classes, joints;
  const float *logits;       /* [B, N, classes] */
  const float *keypoints;    /* [B, N, 3 K]: x, y of each joint, then the constant third values */
  const float *first_logits; /* [B, N, classes] */
};

static struct poses network(nn_pass *p, const struct detr_batch *batch) {
  const struct model *m = nn_net_of(p);
  int64_t d = m->m.d, joints = m->joints, rows = batch->n * m->m.queries;
  nn_sine sine = {.n = d / 2, .temperature_h = m->temperature_h, .temperature_w = m->temperature_w};
  struct detr_scene s = detr_apply_pyramid(p, &m->pyramid, &m->backbone, sine, batch);
  detr_apply_deform_encoder(p, m->encoder, m->encoder_layers, false, &s);
  struct people o = choose(p, m, &s);
  decode(p, m, &s, &o);
  float *keypoints = nn_room(p, rows * 3 * joints), *persons = nn_room(p, rows * d);
  for (int64_t r = 0; r < rows; r++) {
    float *to = keypoints + r * 3 * joints;
    memcpy(to, o.at + (r * o.tokens + 1) * 2, (size_t)(2 * joints) * sizeof *to);
    for (int64_t k = 0; k < joints; k++) to[2 * joints + k] = detr_sigmoid(1);
    memcpy(persons + r * d, o.x + r * o.tokens * d, (size_t)d * sizeof *persons);
  }
  return (struct poses){.batch = batch->n,
                        .n = m->m.queries,
                        .classes = m->m.labels,
                        .joints = joints,
                        .logits = nn_apply_linear(p, &m->classes, 0, persons, rows),
                        .keypoints = keypoints,
                        .first_logits = o.first_logits};
}

static int32_t forward(nn_pass *p) {
  const struct detr_model *m = nn_net_of(p);
  struct detr_batch batch = detr_read_batch(p, &m->prepare);
  struct poses o = network(p, &batch);
  nn_result(p, VIV_F32, o.logits, NN_DIMS(o.batch, o.n, o.classes), "pred_logits");
  nn_result(p, VIV_F32, o.keypoints, NN_DIMS(o.batch, o.n, 3 * o.joints), "pred_keypoints");
  nn_result(p, VIV_F32, o.first_logits, NN_DIMS(o.batch, o.n, o.classes),
            "interm_outputs.pred_logits");
  return VIV_DONE;
}

/* The best `keep` pairs of person and class of one picture. */
static void rank(nn_pass *p, const struct poses *o, int64_t b, int64_t keep, float *scores,
                 int32_t *index) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = o->n * o->classes;
  nn_mark mark = nn_here(p);
  float *odds = nn_room(p, n);
  c->unary(c, VIV_SIGMOID, o->logits + b * n, odds, n);
  c->top_k(c, odds, 1, n, keep, scores, index);
  nn_release(p, mark);
}

/* Always num_select of each picture; points x, y, third in pixels. */
static int32_t postprocess(nn_pass *p) {
  const struct model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, m->m.labels}, k = m->joints;
  struct poses o = {.joints = k, .logits = nn_need_floats(p, "pred_logits", 3, shape)};
  int64_t points_shape[3] = {shape[0], shape[1], 3 * k};
  o.keypoints = nn_need_floats(p, "pred_keypoints", 3, points_shape);
  o.batch = shape[0];
  o.n = shape[1];
  o.classes = shape[2];
  int64_t keep = m->select < o.n * o.classes ? m->select : o.n * o.classes;
  const int64_t *sizes = detr_target_sizes(p, (int32_t)o.batch);
  float *scores = nn_room(p, o.batch * keep), *points = nn_room(p, o.batch * keep * 3 * k);
  int32_t *labels = nn_bytes(p, o.batch * keep, sizeof *labels);
  for (int64_t b = 0; b < o.batch; b++) {
    rank(p, &o, b, keep, scores + b * keep, labels + b * keep);
    for (int64_t i = b * keep; i < (b + 1) * keep; i++) {
      const float *from = o.keypoints + (b * o.n + labels[i] / o.classes) * 3 * k;
      for (int64_t j = 0; j < k; j++) {
        points[(i * k + j) * 3] = from[2 * j] * (float)(sizes ? sizes[2 * b + 1] : 1);
        points[(i * k + j) * 3 + 1] = from[2 * j + 1] * (float)(sizes ? sizes[2 * b] : 1);
        points[(i * k + j) * 3 + 2] = from[2 * k + j];
      }
      labels[i] = (int32_t)(labels[i] % o.classes);
    }
  }
  nn_result(p, VIV_F32, scores, NN_DIMS(o.batch, keep), "scores");
  nn_result(p, VIV_I32, labels, NN_DIMS(o.batch, keep), "labels");
  nn_result(p, VIV_F32, points, NN_DIMS(o.batch, keep, 3 * k), "keypoints");
  return VIV_DONE;
}

/* One picture's people: those of label 1 (label 0 is no class of COCO), with the box around their
 * joints. Joints have no scores of their own. */
static void emit_people(nn_pass *p, const struct poses *o, int64_t b, int64_t keep,
                        double threshold, const int64_t *size) {
  nn_mark mark = nn_here(p);
  float *scores = nn_room(p, keep), *points = nn_room(p, keep * 2 * o->joints);
  float *boxes = nn_room(p, keep * 4);
  int32_t *index = nn_bytes(p, keep, sizeof *index);
  int64_t n = 0;
  rank(p, o, b, keep, scores, index);
  for (int64_t i = 0; i < keep; i++) {
    if ((o->classes > 1 && index[i] % o->classes != 1) || (double)scores[i] <= threshold) continue;
    const float *from = o->keypoints + (b * o->n + index[i] / o->classes) * 3 * o->joints;
    float *to = points + n * 2 * o->joints, *box = boxes + 4 * n;
    for (int64_t j = 0; j < 2 * o->joints; j++) {
      to[j] = from[j] * (float)size[j % 2 ? 0 : 1];
      if (j < 2) box[j] = box[2 + j] = to[j];
      if (to[j] < box[j % 2]) box[j % 2] = to[j];
      if (to[j] > box[2 + j % 2]) box[2 + j % 2] = to[j];
    }
    scores[n++] = scores[i];
  }
  nn_result(p, VIV_F32, points, NN_DIMS(n, o->joints, 2), "keypoints.%d", (int)b);
  nn_result(p, VIV_F32, scores, NN_DIMS(n), "scores.%d", (int)b);
  nn_result(p, VIV_F32, boxes, NN_DIMS(n, 4), "boxes.%d", (int)b);
  nn_release(p, mark);
}

static int32_t pose(nn_pass *p) {
  const struct model *m = nn_net_of(p);
  struct detr_batch batch = detr_prepare_images(p, &m->m.prepare, false);
  double threshold = nn_param_num(p, "threshold", 0, -1, 1);
  struct poses o = network(p, &batch);
  int64_t keep = m->select < o.n * o.classes ? m->select : o.n * o.classes;
  for (int64_t b = 0; b < o.batch; b++) emit_people(p, &o, b, keep, threshold, batch.sizes + 2 * b);
  return VIV_DONE;
}

static const nn_task tasks[] = {{"preprocess", detr_preprocess_task},
                                {"forward", forward},
                                {"postprocess", postprocess},
                                {"pose", pose},
                                {NULL, NULL}};

const struct detr_variant detr_variant_group_pose = {.model_type = "group_pose",
                                                     .bytes = sizeof(struct model),
                                                     .tasks = tasks,
                                                     .prepare = prepare,
                                                     .config = config,
                                                     .tables = tables};
