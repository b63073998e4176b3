/* Logits and boxes to detections. Official: post_process_object_detection of transformers. */
#include <string.h>

#include "detr/detr.h"

const int64_t *detr_target_sizes(nn_pass *p, int32_t n) {
  int64_t shape[2] = {n, 2};
  const int64_t *sizes = nn_some_ints(p, "target_sizes", 2, shape);
  for (int32_t i = 0; sizes && i < 2 * n; i++)
    if (sizes[i] < 1)
      nn_stop(p, VIV_BAD_INPUT, "target_sizes", "picture %d is %lld high and %lld wide",
              (int)(i / 2), (long long)sizes[i / 2 * 2], (long long)sizes[i / 2 * 2 + 1]);
  return sizes;
}

struct list {
  int32_t n;
  float *scores, *boxes; /* [n], [n, 4] */
  int32_t *labels;       /* [n] */
};

static void add(struct list *list, const float *box, float score, int32_t label) {
  nn_boxes_to_corners(box, 1, list->boxes + 4 * list->n);
  list->scores[list->n] = score;
  list->labels[list->n++] = label;
}

/* The best class of every query; the last column is "nothing". */
static void by_softmax(nn_pass *p, const float *logits, const float *boxes, int64_t queries,
                       int64_t classes, double threshold, struct list *list) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  float *odds = nn_room(p, queries * classes);
  c->softmax(c, logits, queries, classes, odds);
  for (int64_t q = 0; q < queries; q++) {
    int32_t best = 0;
    for (int32_t k = 1; k < classes - 1; k++)
      if (odds[q * classes + k] > odds[q * classes + best]) best = k;
    if ((double)odds[q * classes + best] > threshold)
      add(list, boxes + 4 * q, odds[q * classes + best], best);
  }
  nn_release(p, mark);
}

/* The best pairs of query and class. */
static void by_sigmoid(nn_pass *p, const float *logits, const float *boxes, int64_t queries,
                       int64_t classes, int64_t k, double threshold, struct list *list) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = queries * classes;
  nn_mark mark = nn_here(p);
  float *odds = nn_room(p, n), *values = nn_room(p, k);
  int32_t *index = nn_bytes(p, k, sizeof *index);
  c->unary(c, VIV_SIGMOID, logits, odds, n);
  c->top_k(c, odds, 1, n, k, values, index);
  for (int64_t i = 0; i < k; i++)
    if ((double)values[i] > threshold)
      add(list, boxes + 4 * (index[i] / classes), values[i], (int32_t)(index[i] % classes));
  nn_release(p, mark);
}

void detr_emit_detections(nn_pass *p, const struct detr_found *f, int32_t b, bool softmax,
                          int64_t top_k, double threshold, int64_t height, int64_t width) {
  int64_t all = (int64_t)f->queries * f->classes, most = softmax ? f->queries : top_k;
  if (most > all) most = all;
  nn_mark mark = nn_here(p);
  struct list list = {.scores = nn_room(p, most),
                      .boxes = nn_room(p, 4 * most),
                      .labels = nn_bytes(p, most, sizeof(int32_t))};
  const float *logits = f->logits + b * all, *boxes = f->boxes + (int64_t)b * f->queries * 4;
  if (softmax)
    by_softmax(p, logits, boxes, f->queries, f->classes, threshold, &list);
  else
    by_sigmoid(p, logits, boxes, f->queries, f->classes, most, threshold, &list);
  for (int32_t i = 0; i < list.n; i++)
    for (int k = 0; k < 4; k++) list.boxes[4 * i + k] *= (float)(k % 2 ? height : width);
  nn_result(p, VIV_F32, list.scores, NN_DIMS(list.n), "scores.%d", (int)b);
  nn_result(p, VIV_I32, list.labels, NN_DIMS(list.n), "labels.%d", (int)b);
  nn_result(p, VIV_F32, list.boxes, NN_DIMS(list.n, 4), "boxes.%d", (int)b);
  nn_release(p, mark);
}
