/* Position embeddings made from sines, and relative position buckets. */
#include "nn/boxes.h"

#include <math.h>

#define PI 3.14159265358979323846

/* Value k of n for a coordinate: even sine, odd cosine of v / T^(2 floor(k/2) / n). */
static float wave(double v, double temperature, int64_t k, int64_t n) {
  double at = v / pow(temperature, (double)(k / 2 * 2) / (double)n);
  return (float)(k % 2 ? cos(at) : sin(at));
}

static bool free_cell(const uint8_t *padding, int64_t at) {
  return !padding || !padding[at];
}

void nn_sine_positions(const nn_sine *s, const uint8_t *padding, float *out) {
  int64_t h = s->height, w = s->width;
  double shift = s->deformable ? 0.5 : 0;
  for (int64_t i = 0; i < h; i++)
    for (int64_t j = 0; j < w; j++) {
      int64_t y = 0, x = 0, all_y = 0, all_x = 0; /* free cells so far, and of the whole line */
      for (int64_t a = 0; a < h; a++) {
        all_y += free_cell(padding, a * w + j);
        if (a == i) y = all_y;
      }
      for (int64_t b = 0; b < w; b++) {
        all_x += free_cell(padding, i * w + b);
        if (b == j) x = all_x;
      }
      double py = ((double)y - shift) / ((double)all_y + 1e-6) * 2 * PI;
      double px = ((double)x - shift) / ((double)all_x + 1e-6) * 2 * PI;
      for (int64_t k = 0; k < s->n; k++) {
        out[(k * h + i) * w + j] = wave(py, s->temperature_h, k, s->n);
        out[((s->n + k) * h + i) * w + j] = wave(px, s->temperature_w, k, s->n);
      }
    }
}

void nn_sine_grid(int64_t height, int64_t width, int64_t d, double temperature, float *out) {
  int64_t n = d / 4;
  for (int64_t i = 0; i < height; i++)
    for (int64_t j = 0; j < width; j++, out += d)
      for (int64_t k = 0; k < n; k++) {
        double omega = pow(temperature, -(double)k / (double)n);
        out[k] = (float)sin((double)i * omega);
        out[n + k] = (float)cos((double)i * omega);
        out[2 * n + k] = (float)sin((double)j * omega);
        out[3 * n + k] = (float)cos((double)j * omega);
      }
}

void nn_sine_coordinates(const float *x, int64_t rows, int64_t coordinates, int64_t n, float *out) {
  for (int64_t r = 0; r < rows; r++, x += coordinates)
    for (int64_t i = 0; i < coordinates; i++)
      for (int64_t k = 0; k < n; k++) {
        int64_t from = i == 0 ? 1 : i == 1 ? 0 : i; /* y, x, w, h */
        *out++ = wave((double)x[from] * 2 * PI, 10000, k, n);
      }
}

int32_t nn_relative_bucket(int64_t relative, bool bidirectional, int32_t buckets,
                           int32_t max_distance) {
  int32_t base = 0;
  int64_t away = relative < 0 ? -relative : relative;
  if (bidirectional) {
    buckets /= 2;
    if (relative > 0) base = buckets;
  } else if (relative > 0) {
    away = 0;
  }
  int32_t exact = buckets / 2;
  if (away < exact) return base + (int32_t)away;
  float ratio = logf((float)away / (float)exact) / (float)log((double)max_distance / exact);
  int32_t far = exact + (int32_t)(ratio * (float)(buckets - exact));
  return base + (far < buckets - 1 ? far : buckets - 1);
}
