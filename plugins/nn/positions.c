/* Position embeddings made from sines, and relative position buckets. */
#include "nn/boxes.h"

#include <math.h>

#define PI 3.14159265358979323846

/* What a coordinate is divided by for values 2 i and 2 i + 1 of n. */
static double period(double temperature, int64_t k, int64_t n) {
  return pow(temperature, (double)(k / 2 * 2) / (double)n);
}

/* Even values are sines, odd ones cosines. */
static float wave(double at, int64_t k) {
  return (float)(k % 2 ? cos(at) : sin(at));
}

static bool free_cell(const uint8_t *padding, int64_t at) {
  return !padding || !padding[at];
}

/* One axis of a map: lines along it and the cells of a line, each with the step to the next one. */
struct axis {
  int64_t lines, line_step, cells, cell_step;
};

static bool same_line(const struct axis *a, const uint8_t *padding, int64_t from, int64_t to) {
  for (int64_t i = 0; padding && i < a->cells; i++)
    if (padding[from + i * a->cell_step] != padding[to + i * a->cell_step]) return false;
  return true;
}

/* The waves of a line's cells, by the number of free cells up to each and in all. */
static void fill_line(const struct axis *a, const nn_sine *s, const uint8_t *padding, int64_t line,
                      double by, int64_t k, float *out) {
  double shift = s->deformable ? 0.5 : 0;
  int64_t all = 0, so_far = 0;
  for (int64_t i = 0; i < a->cells; i++) all += free_cell(padding, line + i * a->cell_step);
  for (int64_t i = 0; i < a->cells; i++) {
    int64_t at = line + i * a->cell_step;
    so_far += free_cell(padding, at);
    double place = ((double)so_far - shift) / ((double)all + 1e-6) * 2 * PI;
    out[at] = wave(place / by, k);
  }
}

/* out [n, h, w]. Lines with the same padding as the one before have the same values. */
static void fill_axis(const struct axis *a, const nn_sine *s, double temperature,
                      const uint8_t *padding, float *out) {
  for (int64_t k = 0; k < s->n; k++, out += s->height * s->width) {
    double by = period(temperature, k, s->n);
    for (int64_t l = 0; l < a->lines; l++) {
      int64_t line = l * a->line_step, before = line - a->line_step;
      if (!l || !same_line(a, padding, before, line)) {
        fill_line(a, s, padding, line, by, k, out);
        continue;
      }
      for (int64_t i = 0; i < a->cells; i++)
        out[line + i * a->cell_step] = out[before + i * a->cell_step];
    }
  }
}

void nn_sine_positions(const nn_sine *s, const uint8_t *padding, float *out) {
  struct axis down = {s->width, 1, s->height, s->width};
  struct axis across = {s->height, s->width, s->width, 1};
  fill_axis(&down, s, s->temperature_h, padding, out);
  fill_axis(&across, s, s->temperature_w, padding, out + s->n * s->height * s->width);
}

void nn_sine_grid(int64_t height, int64_t width, int64_t d, double temperature, float *out) {
  int64_t n = d / 4;
  for (int64_t k = 0; k < n; k++) {
    double omega = pow(temperature, -(double)k / (double)n);
    for (int64_t i = 0; i < height; i++) {
      float down[2] = {(float)sin((double)i * omega), (float)cos((double)i * omega)};
      for (int64_t j = 0; j < width; j++) {
        float *to = out + (i * width + j) * d + k;
        const float *above = i ? to - width * d : to;
        to[0] = down[0];
        to[n] = down[1];
        to[2 * n] = i ? above[2 * n] : (float)sin((double)j * omega);
        to[3 * n] = i ? above[3 * n] : (float)cos((double)j * omega);
      }
    }
  }
}

void nn_sine_coordinates(const float *x, int64_t rows, int64_t coordinates, int64_t n, float *out) {
  for (int64_t k = 0; k < n; k++) {
    double by = period(10000, k, n);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < coordinates; i++) {
        int64_t from = i == 0 ? 1 : i == 1 ? 0 : i; /* y, x, w, h */
        out[(r * coordinates + i) * n + k] =
            wave((double)x[r * coordinates + from] * 2 * PI / by, k);
      }
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
