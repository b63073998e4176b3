/* Boxes: conversions, overlaps, non-maximum suppression, sizes that keep the aspect. */
#include "nn/boxes.h"

#include <math.h>

void nn_boxes_to_corners(const float *from, int64_t n, float *to) {
  for (int64_t i = 0; i < n; i++, from += 4, to += 4) {
    float cx = from[0], cy = from[1], w = from[2], h = from[3];
    to[0] = cx - 0.5f * w;
    to[1] = cy - 0.5f * h;
    to[2] = cx + 0.5f * w;
    to[3] = cy + 0.5f * h;
  }
}

void nn_boxes_to_centres(const float *from, int64_t n, float *to) {
  for (int64_t i = 0; i < n; i++, from += 4, to += 4) {
    float x0 = from[0], y0 = from[1], x1 = from[2], y1 = from[3];
    to[0] = (x0 + x1) / 2;
    to[1] = (y0 + y1) / 2;
    to[2] = x1 - x0;
    to[3] = y1 - y0;
  }
}

static float area(const float *b) {
  return (b[2] - b[0]) * (b[3] - b[1]);
}

static float overlap(const float *a, const float *b) {
  float w = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), h = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
  return w > 0 && h > 0 ? w * h : 0;
}

void nn_box_iou(const float *a, int64_t n, const float *b, int64_t m, float *iou, float *unions) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      float inter = overlap(a + 4 * i, b + 4 * j);
      float all = area(a + 4 * i) + area(b + 4 * j) - inter;
      iou[i * m + j] = inter / all;
      if (unions) unions[i * m + j] = all;
    }
}

void nn_box_giou(const float *a, int64_t n, const float *b, int64_t m, float *giou) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      const float *p = a + 4 * i, *q = b + 4 * j;
      float inter = overlap(p, q), all = area(p) + area(q) - inter;
      float hull =
          (fmaxf(p[2], q[2]) - fminf(p[0], q[0])) * (fmaxf(p[3], q[3]) - fminf(p[1], q[1]));
      giou[i * m + j] = inter / all - (hull - all) / hull;
    }
}

/* order[begin, end) by descending score, stable; spare has room for as many. */
static void sort_scores(const float *scores, int32_t *order, int64_t n, int32_t *spare) {
  for (int64_t width = 1; width < n; width *= 2)
    for (int64_t at = 0; at < n; at += 2 * width) {
      int64_t middle = at + width < n ? at + width : n,
              end = middle + width < n ? middle + width : n;
      int64_t a = at, b = middle;
      for (int64_t i = at; i < end; i++)
        spare[i] = a < middle && (b >= end || !(scores[order[b]] > scores[order[a]])) ? order[a++]
                                                                                      : order[b++];
      for (int64_t i = at; i < end; i++) order[i] = spare[i];
    }
}

int64_t nn_nms(const float *boxes, const float *scores, const int64_t *classes, int64_t n,
               float threshold, int32_t *order, int32_t *keep) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  sort_scores(scores, order, n, keep);
  for (int64_t i = 0; i < n; i++) {
    const float *box = boxes + 4 * order[i];
    bool stays = true;
    for (int64_t k = 0; k < kept && stays; k++) {
      const float *other = boxes + 4 * keep[k];
      if (classes && classes[keep[k]] != classes[order[i]]) continue;
      float inter = overlap(other, box);
      stays = !(inter / (area(other) + area(box) - inter) > threshold);
    }
    if (stays) keep[kept++] = order[i];
  }
  return kept;
}

/* Python's round: half to even. */
static int64_t round_even(double x) {
  double low = floor(x), rest = x - low;
  if (rest != 0.5) return (int64_t)floor(x + 0.5);
  return (int64_t)(fmod(low, 2) == 0 ? low : low + 1);
}

void nn_aspect_size(int64_t height, int64_t width, int64_t size, int64_t max_size, bool unrounded,
                    int64_t *out_height, int64_t *out_width) {
  double shorter = (double)(height < width ? height : width);
  double longer = (double)(height < width ? width : height), raw = (double)size;
  if (max_size > 0 && longer / shorter * (double)size > (double)max_size) {
    raw = (double)max_size * shorter / longer;
    size = round_even(raw);
  }
  if (!unrounded) raw = (double)size;
  *out_height = height;
  *out_width = width;
  if ((height <= width && height == size) || (width <= height && width == size)) return;
  if (width < height) {
    *out_width = size;
    *out_height = (int64_t)(raw * (double)height / (double)width);
  } else {
    *out_height = size;
    *out_width = (int64_t)(raw * (double)width / (double)height);
  }
}

/* value to a multiple; lower: not below it, upper: not above it; 0: no such bound. */
static int64_t to_multiple(double value, int64_t multiple, int64_t lower, int64_t upper) {
  double steps = value / (double)multiple;
  int64_t y = (int64_t)nearbyint(steps) * multiple;
  if (upper && y > upper) y = (int64_t)floor(steps) * multiple;
  if (lower && y < lower) y = (int64_t)ceil(steps) * multiple;
  return y < multiple ? multiple : y;
}

void nn_multiple_size(int64_t height, int64_t width, int64_t to_height, int64_t to_width,
                      int32_t rule, int64_t multiple, int64_t *out_height, int64_t *out_width) {
  double h = (double)to_height / (double)height, w = (double)to_width / (double)width;
  bool lower = rule == NN_LOWER, upper = rule == NN_UPPER;
  bool by_width = lower ? w > h : upper ? w < h : fabs(1 - w) < fabs(1 - h);
  if (rule != NN_FREE) h = w = by_width ? w : h;
  *out_height =
      to_multiple(h * (double)height, multiple, lower ? to_height : 0, upper ? to_height : 0);
  *out_width = to_multiple(w * (double)width, multiple, lower ? to_width : 0, upper ? to_width : 0);
}
