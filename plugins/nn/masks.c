/* Masks of instances. Official: segment_anything.utils.amg. */
#include "nn/masks.h"

#include <math.h>
#include <string.h>

void nn_mask_box(const uint8_t *mask, int64_t h, int64_t w, int64_t box[4]) {
  int64_t x0 = w, x1 = -1, y0 = -1, y1 = -1;
  for (int64_t y = 0; y < h; y++) {
    const uint8_t *row = mask + y * w;
    int64_t a = 0, b = w - 1;
    while (a < w && !row[a]) a++;
    if (a == w) continue;
    while (!row[b]) b--;
    if (a < x0) x0 = a;
    if (b > x1) x1 = b;
    if (y0 < 0) y0 = y;
    y1 = y;
  }
  bool empty = y0 < 0;
  box[0] = empty ? 0 : x0;
  box[1] = empty ? 0 : y0;
  box[2] = empty ? 0 : x1;
  box[3] = empty ? 0 : y1;
}

float nn_mask_stability(const float *logits, int64_t n, float threshold, float offset) {
  int64_t inner = 0, outer = 0;
  for (int64_t i = 0; i < n; i++) {
    inner += logits[i] > threshold + offset;
    outer += logits[i] > threshold - offset;
  }
  return outer ? (float)((double)inner / (double)outer) : NAN;
}

int64_t nn_mask_runs(const uint8_t *mask, int64_t h, int64_t w, int64_t left, int64_t top,
                     int64_t height, int64_t width, int64_t *counts) {
  int64_t n = 0, run = 0;
  bool now = false;
  for (int64_t x = 0; x < width; x++)
    for (int64_t y = 0; y < height; y++) {
      int64_t mx = x - left, my = y - top;
      bool set = mx >= 0 && mx < w && my >= 0 && my < h && mask[my * w + mx];
      if (set != now) {
        if (counts) counts[n] = run;
        n++;
        run = 0;
        now = set;
      }
      run++;
    }
  if (counts) counts[n] = run;
  return n + 1;
}

void nn_mask_from_runs(const int64_t *counts, int64_t n, int64_t height, int64_t width,
                       uint8_t *mask) {
  int64_t at = 0;
  memset(mask, 0, (size_t)(height * width));
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < counts[i] && at < height * width; k++, at++)
      if (i % 2) mask[at % height * width + at / height] = 1;
}

int64_t nn_mask_runs_area(const int64_t *counts, int64_t n) {
  int64_t area = 0;
  for (int64_t i = 1; i < n; i += 2) area += counts[i];
  return area;
}

/* Marks the component of pixels equal to `set` that begins at `from` with its label; answers how many
 * there are. stack [h w]. */
static int64_t flood(const uint8_t *mask, int64_t h, int64_t w, bool set, int64_t from,
                     int32_t label, int32_t *labels, int32_t *stack) {
  int64_t depth = 0, size = 0;
  stack[depth++] = (int32_t)from;
  labels[from] = label;
  while (depth) {
    int64_t at = stack[--depth], y = at / w, x = at % w;
    size++;
    for (int64_t v = y > 0 ? y - 1 : 0; v <= y + 1 && v < h; v++)
      for (int64_t u = x > 0 ? x - 1 : 0; u <= x + 1 && u < w; u++) {
        int64_t to = v * w + u;
        if (labels[to] || (mask[to] != 0) != set) continue;
        labels[to] = label;
        stack[depth++] = (int32_t)to;
      }
  }
  return size;
}

bool nn_mask_small_regions(uint8_t *mask, int64_t h, int64_t w, double area, bool holes,
                           int32_t *scratch) {
  int32_t *labels = scratch, *stack = scratch + h * w, label = 0, largest = 0;
  int64_t most = 0, n_large = 0;
  bool small = false;
  memset(labels, 0, (size_t)(h * w) * sizeof *labels);
  /* A small region's label is made negative once its size is known: the map is the only memory. */
  for (int64_t i = 0; i < h * w; i++) {
    if (labels[i] || (mask[i] != 0) == holes) continue;
    int64_t size = flood(mask, h, w, !holes, i, ++label, labels, stack);
    if (size > most) {
      most = size;
      largest = label;
    }
    if ((double)size >= area) {
      n_large++;
      continue;
    }
    small = true;
    int64_t left = size;
    for (int64_t k = i; left && k < h * w; k++)
      if (labels[k] == label) {
        labels[k] = -label;
        left--;
      }
  }
  if (!small) return false;
  for (int64_t i = 0; i < h * w; i++) {
    if (labels[i] >= 0) continue;
    if (holes)
      mask[i] = 1;
    else if (n_large || -labels[i] != largest)
      mask[i] = 0;
  }
  return true;
}

bool nn_box_near_edge(const float box[4], const float crop[4], const float picture[4],
                      double atol) {
  for (int i = 0; i < 4; i++)
    if (fabs((double)box[i] - (double)crop[i]) <= atol &&
        fabs((double)box[i] - (double)picture[i]) > atol)
      return true;
  return false;
}

int64_t nn_crop_count(int64_t layers) {
  int64_t n = 1;
  for (int64_t i = 0; i < layers; i++) n += (int64_t)1 << 2 * (i + 1);
  return n;
}

void nn_crop_boxes(int64_t height, int64_t width, int64_t layers, double overlap,
                   int64_t (*boxes)[4], int64_t *layer) {
  int64_t at = 0, shorter = height < width ? height : width;
  boxes[0][0] = boxes[0][1] = layer[0] = 0;
  boxes[0][2] = width;
  boxes[0][3] = height;
  for (int64_t i = 0; i < layers; i++) {
    int64_t n = (int64_t)1 << (i + 1);
    int64_t shared = (int64_t)(overlap * (double)shorter * (2.0 / (double)n));
    int64_t w = (int64_t)ceil((double)(shared * (n - 1) + width) / (double)n);
    int64_t h = (int64_t)ceil((double)(shared * (n - 1) + height) / (double)n);
    for (int64_t x = 0; x < n; x++)
      for (int64_t y = 0; y < n; y++) {
        int64_t *b = boxes[++at];
        b[0] = (w - shared) * x;
        b[1] = (h - shared) * y;
        b[2] = b[0] + w < width ? b[0] + w : width;
        b[3] = b[1] + h < height ? b[1] + h : height;
        layer[at] = i + 1;
      }
  }
}

void nn_point_grid(int64_t n, double *xy) {
  double first = 1.0 / (2.0 * (double)n), step = n > 1 ? (1 - 2 * first) / (double)(n - 1) : 0;
  for (int64_t y = 0; y < n; y++)
    for (int64_t x = 0; x < n; x++) {
      *xy++ = first + step * (double)x;
      *xy++ = first + step * (double)y;
    }
}
