/* The measures of detectors. */
#include "ops.h"

#include "tasks/coco.h"

static viv_json *json_file(struct golden *g, const char *name) {
  viv_error error = VIV_ERROR_INIT;
  char *path = file_input(g, name), *text = NULL;
  size_t len = 0;
  viv_json *json = NULL;
  if (!path) die(name, "no file");
  if (viv__read_file(path, 64 << 20, &text, &len, &error) ||
      viv__json_parse(text, len, path, &json, &error))
    die(path, error.message);
  viv__free(text);
  return json;
}

static void numbers(const viv_json *list, double *out, int n) {
  for (int i = 0; i < n; i++) out[i] = viv__json_number(viv__json_item(list, i));
}

static const double *joints(struct golden *g, const viv_json *node) {
  const viv_json *list = viv__json_get(node, "keypoints");
  if (!list) return NULL;
  double *out = take(g, VIV__COCO_JOINTS * 3 * (int64_t)sizeof *out);
  numbers(list, out, VIV__COCO_JOINTS * 3);
  return out;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int falling(const void *pa, const void *pb) {
  const viv__coco_detection *const *a = pa, *const *b = pb;
  int c = ((*a)->score < (*b)->score) - ((*a)->score > (*b)->score);
  return c ? c : (*a > *b) - (*a < *b);
}

/* The similarities of one picture and category: detections by score, truths in their order. */
static void similarity(struct golden *g, const viv__coco_input *in) {
  const viv_json *of = viv__json_get(g->params, "similarity_of");
  int64_t image = (int64_t)viv__json_num(of, "image_id", 0), n = 0, m = 0;
  int64_t category = (int64_t)viv__json_num(of, "category_id", 0);
  const viv__coco_detection **d = take(g, in->n_detections * (int64_t)sizeof *d);
  const viv__coco_truth **t = take(g, in->n_truths * (int64_t)sizeof *t);
  for (int64_t i = 0; i < in->n_detections; i++)
    if (in->detections[i].image == image && in->detections[i].category == category)
      d[n++] = in->detections + i;
  for (int64_t i = 0; i < in->n_truths; i++)
    if (in->truths[i].image == image && in->truths[i].category == category) t[m++] = in->truths + i;
  qsort(d, (size_t)n, sizeof *d, falling);
  int64_t most = in->kind == VIV__COCO_BOXES ? 100 : 20;
  if (n > most) n = most;
  double *y = take(g, n * m * (int64_t)sizeof *y);
  for (int64_t i = 0; i < n * m; i++) y[i] = viv__coco_similarity(in->kind, d[i / m], t[i % m]);
  output_doubles(g, "similarity", y, n * m);
}

static bool coco_evaluation(struct golden *g) {
  viv_error error = VIV_ERROR_INIT;
  viv_json *truth = json_file(g, "ground_truth"), *found = json_file(g, "predictions");
  const viv_json *marks = viv__json_get(truth, "annotations");
  const viv_json *kinds = viv__json_get(truth, "categories");
  viv__coco_input in = {.n_truths = viv__json_count(marks),
                        .n_detections = viv__json_count(found),
                        .n_categories = viv__json_count(kinds)};
  in.kind = !strcmp(text_param(g, "iou_type", ""), "bbox") ? VIV__COCO_BOXES : VIV__COCO_KEYPOINTS;
  viv__coco_truth *t = take(g, in.n_truths * (int64_t)sizeof *t);
  viv__coco_detection *d = take(g, in.n_detections * (int64_t)sizeof *d);
  int64_t *categories = take(g, in.n_categories * (int64_t)sizeof *categories);
  for (int64_t i = 0; i < in.n_truths; i++) {
    const viv_json *node = viv__json_item(marks, i);
    t[i] = (viv__coco_truth){.image = (int64_t)viv__json_num(node, "image_id", 0),
                             .category = (int64_t)viv__json_num(node, "category_id", 0),
                             .area = viv__json_num(node, "area", 0),
                             .crowd = viv__json_num(node, "iscrowd", 0) != 0,
                             .num_keypoints = (int32_t)viv__json_num(node, "num_keypoints", 0),
                             .joints = joints(g, node)};
    numbers(viv__json_get(node, "bbox"), t[i].box, 4);
  }
  for (int64_t i = 0; i < in.n_detections; i++) {
    const viv_json *node = viv__json_item(found, i);
    d[i] = (viv__coco_detection){.image = (int64_t)viv__json_num(node, "image_id", 0),
                                 .category = (int64_t)viv__json_num(node, "category_id", 0),
                                 .score = viv__json_num(node, "score", 0),
                                 .joints = joints(g, node)};
    numbers(viv__json_get(node, "bbox"), d[i].box, 4);
  }
  for (int64_t i = 0; i < in.n_categories; i++)
    categories[i] = (int64_t)viv__json_num(viv__json_item(kinds, i), "id", 0);
  qsort(categories, (size_t)in.n_categories, sizeof *categories, ascending);
  in.truths = t;
  in.detections = d;
  in.categories = categories;
  viv__coco_result result;
  double *recall = take(g, VIV__COCO_THRESHOLDS * in.n_categories * (int64_t)sizeof *recall);
  if (viv__coco_evaluate(&in, &result, recall, &error)) die("coco_evaluate", error.message);
  output_doubles(g, "stats", result.stats, result.n_stats);
  output_doubles(g, "ap_per_threshold", result.ap, VIV__COCO_THRESHOLDS);
  output_doubles(g, "recall_all", recall, VIV__COCO_THRESHOLDS * in.n_categories);
  similarity(g, &in);
  viv__json_free(truth);
  viv__json_free(found);
  return true;
}

const struct op evaluation_ops[] = {{"coco_evaluation", coco_evaluation}, {NULL, NULL}};
