/* Assignment of queries and recall of scene graphs. */
#include "ops.h"

#include "checkpoint/checkpoint.h"
#include "nn/boxes.h"
#include "nn/scene_graph.h"

/* Element i of an input that is a list. */
static struct array item(struct golden *g, const char *name, int64_t i) {
  const viv_json *list = viv__json_get(viv__json_get(g->call, "inputs"), name);
  viv_str tensor = viv__json_string(viv__json_item(list, i));
  viv_tensor t = {.struct_size = sizeof t};
  struct array a = {.n = 1};
  if (!tensor.len || viv__safetensors_find(g->inputs, tensor, &t)) die("no such input", name);
  const float *data = g->c->floats(g->c, g->arena, &t);
  a.ndim = t.ndim;
  for (int32_t k = 0; k < t.ndim; k++) a.n *= a.shape[k] = t.shape[k];
  a.data = take_floats(g, a.n);
  if (data) memcpy(a.data, data, (size_t)a.n * sizeof *data);
  return a;
}

static int64_t items(struct golden *g, const char *name) {
  return viv__json_count(viv__json_get(viv__json_get(g->call, "inputs"), name));
}

static int32_t *ints(struct golden *g, struct array a) {
  int32_t *out = take(g, a.n * (int64_t)sizeof *out);
  for (int64_t i = 0; i < a.n; i++) out[i] = (int32_t)a.data[i];
  return out;
}

/* ---- assignment ---- */

/* Picture b of a batch's [batch, n, width]. */
static struct array picture(struct array all, int64_t b) {
  struct array a = {.ndim = 2, .n = all.n / all.shape[0], .shape = {all.shape[1], all.shape[2]}};
  a.data = all.data + b * a.n;
  return a;
}

/* cost += 5 L1 + 2 (-GIoU) of boxes, and weight times the focal cost of the wanted classes. */
static void add_boxes(struct golden *g, struct array boxes, const float *target, int64_t n,
                      double *cost) {
  int64_t queries = boxes.n / 4;
  double l1 = viv__json_num(g->config, "cost_bbox", 5);
  double giou_weight = viv__json_num(g->config, "cost_giou", 2);
  float *a = take_floats(g, boxes.n), *b = take_floats(g, 4 * n),
        *giou = take_floats(g, queries * n);
  nn_boxes_to_corners(boxes.data, queries, a);
  nn_boxes_to_corners(target, n, b);
  nn_box_giou(a, queries, b, n, giou);
  for (int64_t i = 0; i < queries * n; i++) {
    double sum = 0;
    for (int k = 0; k < 4; k++)
      sum += fabs((double)boxes.data[i / n * 4 + k] - (double)target[i % n * 4 + k]);
    cost[i] += l1 * sum - giou_weight * (double)giou[i];
  }
}

static void add_classes(struct golden *g, struct array logits, const int32_t *wanted, int64_t n,
                        double weight, double *cost) {
  double all = viv__json_num(g->config, "cost_class", 1);
  for (int64_t i = 0; i < logits.shape[0] * n; i++)
    cost[i] += all * weight * nn_focal_cost(logits.data[i / n * logits.shape[1] + wanted[i % n]]);
}

/* What each of n relations says: the boxes and classes of its ends, and its predicate. */
struct ends {
  int64_t n;
  float *box[2];
  int32_t *class[2], *predicate;
};

static struct ends relation_ends(struct golden *g, struct array relations, struct array boxes,
                                 const int32_t *labels) {
  struct ends e = {.n = relations.n / 3, .predicate = take(g, relations.n * 4)};
  for (int k = 0; k < 2; k++) {
    e.box[k] = take_floats(g, 4 * e.n);
    e.class[k] = take(g, relations.n * 4);
    for (int64_t i = 0; i < e.n; i++) {
      int64_t at = (int64_t)relations.data[3 * i + k];
      memcpy(e.box[k] + 4 * i, boxes.data + 4 * at, 4 * sizeof(float));
      e.class[k][i] = labels[at];
      e.predicate[i] = (int32_t)relations.data[3 * i + 2];
    }
  }
  return e;
}

static struct ends target_ends(struct golden *g, int64_t b) {
  return relation_ends(g, item(g, "targets.rel_annotations", b), item(g, "targets.boxes", b),
                       ints(g, item(g, "targets.labels", b)));
}

/* Pairs (query, truth) in the queries' order. */
static int32_t *pairs_of(struct golden *g, const int32_t *match, int64_t queries, int64_t *n) {
  int32_t *out = take(g, 2 * queries * (int64_t)sizeof *out);
  *n = 0;
  for (int64_t q = 0; q < queries; q++) {
    if (match[q] < 0) continue;
    out[2 * *n] = (int32_t)q;
    out[2 * (*n)++ + 1] = match[q];
  }
  return out;
}

static int32_t *assigned(struct golden *g, const double *cost, int64_t queries, int64_t n) {
  int32_t *match = take(g, queries * (int64_t)sizeof *match);
  nn_assign(cost, queries, n, match, take(g, (int64_t)nn_assign_scratch(queries, n)));
  return match;
}

static double *zeros(struct golden *g, int64_t n) {
  double *x = take(g, n * (int64_t)sizeof *x);
  memset(x, 0, (size_t)n * sizeof *x);
  return x;
}

static int32_t *match_triplets(struct golden *g, int64_t b, const struct ends *e) {
  static const char *const roles[] = {"sub", "obj"};
  int64_t queries = input(g, "rel_logits").shape[1];
  double *cost = zeros(g, queries * e->n);
  char name[16];
  for (int k = 0; k < 2; k++) {
    snprintf(name, sizeof name, "%s_logits", roles[k]);
    add_classes(g, picture(input(g, name), b), e->class[k], e -> n, 1, cost);
    snprintf(name, sizeof name, "%s_boxes", roles[k]);
    add_boxes(g, picture(input(g, name), b), e->box[k], e->n, cost);
  }
  add_classes(g, picture(input(g, "rel_logits"), b), e->predicate, e->n, 0.5, cost);
  return assigned(g, cost, queries, e->n);
}

static bool hungarian_matcher(struct golden *g) {
  struct array logits = input(g, "pred_logits"), boxes = input(g, "pred_boxes");
  for (int64_t b = 0; b < logits.shape[0]; b++) {
    struct array target = item(g, "targets.boxes", b);
    int64_t n = target.n / 4, queries = logits.shape[1], kept;
    double *cost = zeros(g, queries * n);
    char name[32];
    add_classes(g, picture(logits, b), ints(g, item(g, "targets.labels", b)), n, 1, cost);
    add_boxes(g, picture(boxes, b), target.data, n, cost);
    int32_t *pairs = pairs_of(g, assigned(g, cost, queries, n), queries, &kept);
    snprintf(name, sizeof name, "entity_pairs.%d", (int)b);
    output_ints(g, name, pairs, 2 * kept);
    struct ends e = target_ends(g, b);
    queries = input(g, "rel_logits").shape[1];
    pairs = pairs_of(g, match_triplets(g, b, &e), queries, &kept);
    snprintf(name, sizeof name, "A1.%d", (int)b);
    output_ints(g, name, pairs, 2 * kept);
  }
  return true;
}

static void corners_iou(struct golden *g, struct array boxes, const float *target, int64_t n,
                        float *iou) {
  int64_t queries = boxes.n / 4;
  float *a = take_floats(g, boxes.n), *b = take_floats(g, 4 * n);
  nn_boxes_to_corners(boxes.data, queries, a);
  nn_boxes_to_corners(target, n, b);
  nn_box_iou(a, queries, b, n, iou, NULL);
}

static bool hybrid_assignment(struct golden *g) {
  int64_t batch = input(g, "rel_logits").shape[0], queries = input(g, "rel_logits").shape[1];
  for (int64_t b = 0; b < batch; b++) {
    struct ends e = target_ends(g, b);
    float *iou = take_floats(g, queries * e.n), *other = take_floats(g, queries * e.n);
    int32_t *many = take(g, queries * 4), *both = take(g, 4 * queries * 4);
    char name[32];
    corners_iou(g, picture(input(g, "sub_boxes"), b), e.box[0], e.n, iou);
    corners_iou(g, picture(input(g, "obj_boxes"), b), e.box[1], e.n, other);
    for (int64_t i = 0; i < queries * e.n; i++) iou[i] = fminf(iou[i], other[i]);
    snprintf(name, sizeof name, "min_iou.%d", (int)b);
    output(g, name, iou, queries * e.n);
    nn_one_to_many(iou, queries, e.n, (float)viv__json_num(g->config, "tau", 0.5),
                   (int32_t)viv__json_num(g->config, "cap", 6), many);
    int64_t n = 0;
    int32_t *pairs = pairs_of(g, many, queries, &n);
    snprintf(name, sizeof name, "A2.%d", (int)b);
    output_ints(g, name, pairs, 2 * n);
    int32_t *one = match_triplets(g, b, &e);
    n = 0;
    for (int64_t q = 0; q < queries; q++)
      for (int64_t t = 0; t < e.n; t++) {
        if (one[q] != t && many[q] != t) continue;
        both[2 * n] = (int32_t)q;
        both[2 * n++ + 1] = (int32_t)t;
      }
    snprintf(name, sizeof name, "union.%d", (int)b);
    output_ints(g, name, both, 2 * n);
  }
  return true;
}

/* ---- recall ---- */

/* The predictions of picture i, best first: one predicate a pair, score the product of three. */
static nn_graph predictions(struct golden *g, int64_t i) {
  struct array sub = item(g, "sub_boxes", i), obj = item(g, "obj_boxes", i);
  struct array rel = item(g, "rel_scores", i);
  struct array sub_score = item(g, "sub_scores", i), obj_score = item(g, "obj_scores", i);
  int32_t *sub_class = ints(g, item(g, "sub_classes", i));
  int32_t *obj_class = ints(g, item(g, "obj_classes", i));
  int64_t n = sub.n / 4, width = n ? rel.n / n : 1;
  float *score = take_floats(g, n), *box[2] = {take_floats(g, 4 * n), take_floats(g, 4 * n)};
  int32_t *best = take(g, n * 4), *order = take(g, n * 4);
  int32_t *what[3] = {take(g, n * 4), take(g, n * 4), take(g, n * 4)};
  g->c->top_k(g->c, rel.data, n, width, 1, score, best);
  for (int64_t k = 0; k < n; k++) score[k] *= sub_score.data[k] * obj_score.data[k];
  g->c->top_k(g->c, score, 1, n, n, NULL, order);
  for (int64_t k = 0; k < n; k++) {
    memcpy(box[0] + 4 * k, sub.data + 4 * order[k], 4 * sizeof(float));
    memcpy(box[1] + 4 * k, obj.data + 4 * order[k], 4 * sizeof(float));
    what[0][k] = sub_class[order[k]];
    what[1][k] = 1 + best[order[k]];
    what[2][k] = obj_class[order[k]];
  }
  return (nn_graph){n, box[0], box[1], what[0], what[1], what[2]};
}

enum { PREDICATES = 512, CUTS = 8 };

static bool sgdet_recall(struct golden *g) {
  int64_t pictures = items(g, "gt_boxes"), cuts = viv__json_count(viv__json_get(g->params, "k"));
  int64_t predicates = item(g, "rel_scores", 0).shape[1];
  if (cuts > CUTS || predicates > PREDICATES || flag_param(g, "multiple_preds", false))
    return false;
  float all[CUTS] = {0}, mean[CUTS] = {0}, *each = take_floats(g, predicates * cuts);
  for (int64_t c = 0; c < cuts; c++) {
    double total = 0, defined = 0;
    double sum[PREDICATES] = {0}, seen[PREDICATES] = {0};
    for (int64_t i = 0; i < pictures; i++) {
      struct ends e = relation_ends(g, item(g, "gt_relations", i), item(g, "gt_boxes", i),
                                    ints(g, item(g, "gt_classes", i)));
      nn_graph truth = {e.n, e.box[0], e.box[1], e.class[0], e.predicate, e.class[1]};
      nn_graph found = predictions(g, i);
      int64_t *rank = take(g, e.n * (int64_t)sizeof *rank), hits = 0;
      double hit_of[PREDICATES] = {0}, n_of[PREDICATES] = {0};
      nn_first_hits(&truth, &found, viv__json_num(g->config, "iou_threshold", 0.5), rank);
      for (int64_t t = 0; t < e.n; t++) {
        bool hit = rank[t] >= 0 && rank[t] < (int64_t)list_param(g, "k", c);
        hits += hit;
        hit_of[e.predicate[t] - 1] += hit;
        n_of[e.predicate[t] - 1] += 1;
      }
      total += (double)hits / (double)e.n;
      for (int64_t p = 0; p < predicates; p++)
        if (n_of[p] > 0) {
          sum[p] += hit_of[p] / n_of[p];
          seen[p] += 1;
        }
    }
    for (int64_t p = 0; p < predicates; p++) {
      each[p * cuts + c] = seen[p] > 0 ? (float)(sum[p] / seen[p]) : -1;
      if (seen[p] > 0) defined += sum[p] / seen[p];
    }
    all[c] = (float)(total / (double)pictures);
    mean[c] = (float)(defined / (double)predicates);
  }
  output(g, "R", all, cuts);
  output(g, "mR", mean, cuts);
  output(g, "per_predicate", each, predicates * cuts);
  return true;
}

const struct op scene_ops[] = {{"hungarian_matcher", hungarian_matcher},
                               {"hybrid_assignment", hybrid_assignment},
                               {"sgdet_recall", sgdet_recall},
                               {NULL, NULL}};
