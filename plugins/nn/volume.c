#include "nn/volume.h"

#include <math.h>
#include <string.h>

/* ---- intensities ---- */

void nn_scale_range(float *x, int64_t n, double a_min, double a_max, double b_min, double b_max,
                    bool clip) {
  double span = a_max - a_min;
  for (int64_t i = 0; i < n; i++) {
    double v = (double)x[i] - a_min;
    v = span != 0 ? v / span * (b_max - b_min) + b_min : v + b_min;
    if (clip) v = v < b_min ? b_min : v > b_max ? b_max : v;
    x[i] = (float)v;
  }
}

void nn_normalize_intensity(float *x, int64_t n, bool nonzero) {
  double sum = 0, square = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) {
    if (nonzero && x[i] == 0) continue;
    sum += (double)x[i];
    count++;
  }
  if (!count) return;
  double mean = sum / (double)count;
  for (int64_t i = 0; i < n; i++)
    if (!nonzero || x[i] != 0) square += ((double)x[i] - mean) * ((double)x[i] - mean);
  double deviation = sqrt(square / (double)count);
  if (deviation == 0) deviation = 1;
  for (int64_t i = 0; i < n; i++)
    if (!nonzero || x[i] != 0) x[i] = (float)(((double)x[i] - mean) / deviation);
}

/* ---- windows ---- */

int64_t nn_window_starts(int64_t size, int64_t roi, double overlap, int64_t *start) {
  int64_t interval = roi == size ? roi : (int64_t)((double)roi * (1 - overlap)), n = 0;
  if (interval < 1) interval = 1;
  for (;; n++) {
    int64_t at = n * interval;
    bool last = at + roi >= size;
    if (start) start[n] = last ? size - roi : at;
    if (last) return n + 1;
  }
}

void nn_window_gaussian(const int32_t roi[3], const double sigma[3], float *w) {
  int64_t n = (int64_t)roi[0] * roi[1] * roi[2];
  float least = INFINITY;
  for (int64_t i = 0; i < n; i++) {
    int64_t at[3] = {i / ((int64_t)roi[1] * roi[2]), i / roi[2] % roi[1], i % roi[2]};
    float product = 1;
    for (int k = 0; k < 3; k++) {
      double t = (double)at[k] - (roi[k] - 1) / 2.0, s = sigma[k] * roi[k];
      product *= (float)exp(-t * t / (2 * s * s));
    }
    w[i] = product;
    least = product < least ? product : least;
  }
  if (least < 1e-3f) least = 1e-3f;
  for (int64_t i = 0; i < n; i++)
    if (w[i] < least) w[i] = least;
}

/* ---- patches ---- */

void nn_merge_patches(const float *x, const int32_t size[3], int64_t d, int32_t order, float *y) {
  /* Parities along the three axes, as bits 4, 2, 1. */
  static const uint8_t orders[3][8] = {
      {0, 4, 2, 1, 5, 2, 1, 7}, {0, 4, 2, 1, 6, 5, 3, 7}, {0, 1, 2, 3, 4, 5, 6, 7}};
  int64_t half[3];
  for (int k = 0; k < 3; k++) half[k] = (size[k] + 1) / 2;
  for (int64_t i = 0; i < half[0] * half[1] * half[2]; i++)
    for (int part = 0; part < 8; part++, y += d) {
      int parity = orders[order][part];
      int64_t a = i / (half[1] * half[2]) * 2 + (parity >> 2 & 1);
      int64_t b = i / half[2] % half[1] * 2 + (parity >> 1 & 1);
      int64_t c = i % half[2] * 2 + (parity & 1);
      if (a < size[0] && b < size[1] && c < size[2])
        memcpy(y, x + ((a * size[1] + b) * size[2] + c) * d, (size_t)d * sizeof *y);
      else
        memset(y, 0, (size_t)d * sizeof *y);
    }
}
