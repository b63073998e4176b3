/* COCO's evaluation, step for step as COCOeval does it: detections are matched with ground truths per
 * picture and category, then ranked over all pictures of a category. */
#include "tasks/coco.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AREAS = 4, RECALLS = 101, MAX_DETS = 3 };

/* all, small, medium, large */
static const double area_range[AREAS][2] = {
    {0, 1e10}, {0, 32 * 32}, {32 * 32, 96 * 96}, {96 * 96, 1e10}};
static const double sigmas[VIV__COCO_JOINTS] = {.026, .025, .025, .035, .035, .079,
                                                .079, .072, .072, .062, .062, .107,
                                                .107, .087, .087, .089, .089};

/* ---- similarity ---- */

static double box_iou(const double *d, const double *g, bool crowd) {
  double w = fmin(d[0] + d[2], g[0] + g[2]) - fmax(d[0], g[0]);
  double h = fmin(d[1] + d[3], g[1] + g[3]) - fmax(d[1], g[1]);
  if (w <= 0 || h <= 0) return 0;
  double inter = w * h, own = d[2] * d[3];
  return inter / (crowd ? own : own + g[2] * g[3] - inter);
}

static double keypoint_similarity(const double *d, const viv__coco_truth *t) {
  const double *g = t->joints, *b = t->box;
  int32_t labelled = 0, n = 0;
  double sum = 0;
  for (int i = 0; i < VIV__COCO_JOINTS; i++) labelled += g[3 * i + 2] > 0;
  for (int i = 0; i < VIV__COCO_JOINTS; i++) {
    double x = d[3 * i], y = d[3 * i + 1], dx = x - g[3 * i], dy = y - g[3 * i + 1];
    if (labelled && !(g[3 * i + 2] > 0)) continue;
    if (!labelled) { /* the distance to twice the box */
      dx = fmax(0, b[0] - b[2] - x) + fmax(0, x - (b[0] + 2 * b[2]));
      dy = fmax(0, b[1] - b[3] - y) + fmax(0, y - (b[1] + 2 * b[3]));
    }
    double spread = 2 * sigmas[i];
    sum += exp(-((dx * dx + dy * dy) / (spread * spread) / (t->area + 0x1p-52) / 2));
    n++;
  }
  return sum / n;
}

double viv__coco_similarity(enum viv__coco_kind kind, const viv__coco_detection *d,
                            const viv__coco_truth *t) {
  return kind == VIV__COCO_BOXES ? box_iou(d->box, t->box, t->crowd)
                                 : keypoint_similarity(d->joints, t);
}

static double detection_area(enum viv__coco_kind kind, const viv__coco_detection *d) {
  if (kind == VIV__COCO_BOXES) return d->box[2] * d->box[3];
  double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  for (int i = 0; i < VIV__COCO_JOINTS; i++)
    for (int k = 0; k < 2; k++) {
      low[k] = fmin(low[k], d->joints[3 * i + k]);
      high[k] = fmax(high[k], d->joints[3 * i + k]);
    }
  return (high[0] - low[0]) * (high[1] - low[1]);
}

/* ---- order ---- */

/* A detection's fate for each area and threshold, as bits over the thresholds. */
struct verdict {
  const viv__coco_detection *d;
  int64_t at;   /* in the caller's list */
  int32_t rank; /* by score within its picture and category */
  uint16_t matched[AREAS], ignored[AREAS];
};

struct truth {
  const viv__coco_truth *t;
  int64_t at;
};

struct work {
  const viv__coco_input *in;
  struct verdict *verdicts;
  struct truth *truths;
  double *precision, *similarity;
  int32_t *order;
  uint8_t *taken;
  int32_t areas[AREAS], n_areas;
  int32_t max_dets[MAX_DETS], n_max_dets;
  double threshold[VIV__COCO_THRESHOLDS];
  /* Means over categories: [thresholds][areas][max_dets]. */
  double ap[VIV__COCO_THRESHOLDS][AREAS][MAX_DETS], ar[VIV__COCO_THRESHOLDS][AREAS][MAX_DETS];
  int64_t counted[AREAS];
};

static int compare(int64_t a, int64_t b) {
  return (a > b) - (a < b);
}

static int by_cell_truth(const void *pa, const void *pb) {
  const struct truth *a = pa, *b = pb;
  int c = compare(a->t->category, b->t->category);
  if (!c) c = compare(a->t->image, b->t->image);
  return c ? c : compare(a->at, b->at);
}

static int by_cell(const void *pa, const void *pb) {
  const struct verdict *a = pa, *b = pb;
  int c = compare(a->d->category, b->d->category);
  if (!c) c = compare(a->d->image, b->d->image);
  if (!c) c = (a->d->score < b->d->score) - (a->d->score > b->d->score);
  return c ? c : compare(a->at, b->at);
}

/* All pictures of a category together: by score, pictures ascending among equals. */
static int by_score(const void *pa, const void *pb) {
  const struct verdict *a = pa, *b = pb;
  int c = (a->d->score < b->d->score) - (a->d->score > b->d->score);
  if (!c) c = compare(a->d->image, b->d->image);
  if (!c) c = compare(a->rank, b->rank);
  return c;
}

/* ---- matching ---- */

static bool outside(double area, const double *range) {
  return area < range[0] || area > range[1];
}

static bool ignored_truth(const struct work *w, const viv__coco_truth *t, const double *range) {
  bool empty = w->in->kind == VIV__COCO_KEYPOINTS && t->num_keypoints == 0;
  return t->crowd || empty || outside(t->area, range);
}

/* One picture and category under one area and threshold. order holds the truths, those that are not
 * ignored first (`regular` of them); similarity [detections, truths] is in the truths' own order. */
static void match(struct work *w, struct verdict *v, int64_t n, const struct truth *t, int64_t m,
                  int64_t regular, int32_t area, int32_t at) {
  uint16_t bit = (uint16_t)(1u << at);
  memset(w->taken, 0, (size_t)m);
  for (int64_t i = 0; i < n; i++) {
    double best = fmin(w->threshold[at], 1 - 1e-10);
    int64_t found = -1;
    for (int64_t k = 0; k < m; k++) {
      int32_t g = w->order[k];
      if (w->taken[g] && !t[g].t->crowd) continue;
      if (found >= 0 && found < regular && k >= regular) break;
      double s = w->similarity[i * m + g];
      if (s < best) continue;
      best = s;
      found = k;
    }
    const double *range = area_range[w->areas[area]];
    if (found >= 0) {
      w->taken[w->order[found]] = 1;
      v[i].matched[area] |= bit;
      if (found >= regular) v[i].ignored[area] |= bit;
    } else if (outside(detection_area(w->in->kind, v[i].d), range)) {
      v[i].ignored[area] |= bit;
    }
  }
}

/* Answers by area how many truths count. */
static void match_cell(struct work *w, struct verdict *v, int64_t n, const struct truth *t,
                       int64_t m, int64_t *positives) {
  int32_t most = w->max_dets[w->n_max_dets - 1];
  for (int64_t i = 0; i < n; i++) v[i].rank = (int32_t)i;
  if (n > most) n = most;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < m; k++)
      w->similarity[i * m + k] = viv__coco_similarity(w->in->kind, v[i].d, t[k].t);
  for (int32_t a = 0; a < w->n_areas; a++) {
    const double *range = area_range[w->areas[a]];
    int64_t regular = 0, last = m;
    for (int64_t k = 0; k < m; k++)
      if (!ignored_truth(w, t[k].t, range)) w->order[regular++] = (int32_t)k;
    for (int64_t k = m; k-- > 0;)
      if (ignored_truth(w, t[k].t, range)) w->order[--last] = (int32_t)k;
    positives[a] += regular;
    for (int32_t i = 0; i < VIV__COCO_THRESHOLDS; i++) match(w, v, n, t, m, regular, a, i);
  }
}

/* ---- precision and recall ---- */

/* One curve; the mean precision at 101 recalls, and the last recall. */
static double curve(struct work *w, const struct verdict *v, int64_t n, int64_t positives,
                    int32_t a, int32_t at, int32_t most, double *last_recall) {
  uint16_t bit = (uint16_t)(1u << at);
  int64_t tp = 0, fp = 0, points = 0;
  double *precision = w->precision, *recall = precision + n, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (v[i].rank >= most) continue;
    if (!(v[i].ignored[a] & bit)) {
      tp += (v[i].matched[a] & bit) != 0;
      fp += (v[i].matched[a] & bit) == 0;
    }
    recall[points] = (double)tp / (double)positives;
    precision[points++] = (double)tp / ((double)(fp + tp) + 0x1p-52);
  }
  *last_recall = points ? recall[points - 1] : 0;
  for (int64_t i = points - 1; i > 0; i--)
    if (precision[i] > precision[i - 1]) precision[i - 1] = precision[i];
  int64_t i = 0;
  for (int r = 0; r < RECALLS; r++) {
    double wanted = r == RECALLS - 1 ? 1.0 : r * 0.01;
    while (i < points && recall[i] < wanted) i++;
    if (i < points) sum += precision[i];
  }
  return sum / RECALLS;
}

static void category(struct work *w, int64_t at, struct verdict *v, int64_t n,
                     const struct truth *t, int64_t m, double *recall) {
  int64_t positives[AREAS] = {0}, i = 0, k = 0;
  while (i < n || k < m) {
    int64_t image =
        k >= m || (i < n && v[i].d->image < t[k].t->image) ? v[i].d->image : t[k].t->image;
    int64_t i_end = i, k_end = k;
    while (i_end < n && v[i_end].d->image == image) i_end++;
    while (k_end < m && t[k_end].t->image == image) k_end++;
    match_cell(w, v + i, i_end - i, t + k, k_end - k, positives);
    i = i_end;
    k = k_end;
  }
  qsort(v, (size_t)n, sizeof *v, by_score);
  for (int32_t a = 0; a < w->n_areas; a++) {
    if (!positives[a]) continue;
    w->counted[a]++;
    for (int32_t d = 0; d < w->n_max_dets; d++)
      for (int32_t th = 0; th < VIV__COCO_THRESHOLDS; th++) {
        double last;
        w->ap[th][a][d] += curve(w, v, n, positives[a], a, th, w->max_dets[d], &last);
        w->ar[th][a][d] += last;
        if (recall && !a && d == w->n_max_dets - 1) recall[th * w->in->n_categories + at] = last;
      }
  }
}

/* Over thresholds [from, to). */
static double mean(const struct work *w, bool precision, int32_t from, int32_t to, int32_t a,
                   int32_t d) {
  double sum = 0;
  if (!w->counted[a]) return -1;
  for (int32_t t = from; t < to; t++) sum += precision ? w->ap[t][a][d] : w->ar[t][a][d];
  return sum / (double)w->counted[a] / (to - from);
}

static void summarize(const struct work *w, viv__coco_result *out) {
  int32_t all = VIV__COCO_THRESHOLDS, last = w->n_max_dets - 1, n = 0;
  double *s = out->stats;
  s[n++] = mean(w, true, 0, all, 0, last);
  s[n++] = mean(w, true, 0, 1, 0, last);
  s[n++] = mean(w, true, 5, 6, 0, last);
  for (int32_t a = 1; a < w->n_areas; a++) s[n++] = mean(w, true, 0, all, a, last);
  for (int32_t d = 0; d <= last; d++) s[n++] = mean(w, false, 0, all, 0, d);
  if (w->in->kind == VIV__COCO_KEYPOINTS) {
    s[n++] = mean(w, false, 0, 1, 0, last);
    s[n++] = mean(w, false, 5, 6, 0, last);
  }
  for (int32_t a = 1; a < w->n_areas; a++) s[n++] = mean(w, false, 0, all, a, last);
  out->n_stats = n;
  for (int32_t t = 0; t < all; t++) out->ap[t] = mean(w, true, t, t + 1, 0, last);
}

static void set_up(struct work *w, const viv__coco_input *in) {
  static const int32_t box_dets[] = {1, 10, 100};
  w->in = in;
  for (int32_t a = 0; a < AREAS; a++) /* keypoints of small persons are not measured */
    if (in->kind == VIV__COCO_BOXES || a != 1) w->areas[w->n_areas++] = a;
  w->n_max_dets = in->kind == VIV__COCO_BOXES ? 3 : 1;
  for (int32_t d = 0; d < w->n_max_dets; d++)
    w->max_dets[d] = in->kind == VIV__COCO_BOXES ? box_dets[d] : 20;
  double step = (0.95 - 0.5) / 9;
  for (int32_t t = 0; t < VIV__COCO_THRESHOLDS; t++) w->threshold[t] = 0.5 + t * step;
  w->threshold[9] = 0.95;
  for (int64_t i = 0; i < in->n_detections; i++) {
    w->verdicts[i].d = in->detections + i;
    w->verdicts[i].at = i;
  }
  for (int64_t i = 0; i < in->n_truths; i++) w->truths[i] = (struct truth){in->truths + i, i};
  qsort(w->verdicts, (size_t)in->n_detections, sizeof *w->verdicts, by_cell);
  qsort(w->truths, (size_t)in->n_truths, sizeof *w->truths, by_cell_truth);
}

int32_t viv__coco_evaluate(const viv__coco_input *in, viv__coco_result *out, double *recall,
                           viv_error *error) {
  struct work *w = viv__calloc(1, sizeof *w);
  int32_t status = VIV_OK;
  size_t n = (size_t)in->n_detections, m = (size_t)in->n_truths;
  memset(out, 0, sizeof *out);
  if (w) {
    w->verdicts = viv__calloc(n + 1, sizeof *w->verdicts);
    w->truths = viv__calloc(m + 1, sizeof *w->truths);
    w->precision = viv__calloc(2 * n + 1, sizeof *w->precision);
    w->similarity = viv__calloc(100 * m + 1, sizeof *w->similarity);
    w->order = viv__calloc(m + 1, sizeof *w->order);
    w->taken = viv__calloc(m + 1, 1);
  }
  if (!w || !w->verdicts || !w->truths || !w->precision || !w->similarity || !w->order ||
      !w->taken) {
    status = VIV_FAIL(error, VIV_NOT_NOW, "memory", "no memory for the evaluation");
  } else {
    set_up(w, in);
    for (int64_t i = 0; recall && i < VIV__COCO_THRESHOLDS * in->n_categories; i++) recall[i] = -1;
    struct verdict *v = w->verdicts, *v_end = v + n;
    struct truth *t = w->truths, *t_end = t + m;
    for (int64_t c = 0; c < in->n_categories; c++) {
      int64_t id = in->categories[c];
      while (v < v_end && v->d->category < id) v++;
      while (t < t_end && t->t->category < id) t++;
      struct verdict *v_next = v;
      struct truth *t_next = t;
      while (v_next < v_end && v_next->d->category == id) v_next++;
      while (t_next < t_end && t_next->t->category == id) t_next++;
      category(w, c, v, v_next - v, t, t_next - t, recall);
      v = v_next;
      t = t_next;
    }
    summarize(w, out);
  }
  if (w) {
    viv__free(w->verdicts);
    viv__free(w->truths);
    viv__free(w->precision);
    viv__free(w->similarity);
    viv__free(w->order);
    viv__free(w->taken);
  }
  viv__free(w);
  return status;
}
