/* Rows of block formats from and to floats. */
#include "compute/quant.h"

#include <math.h>

#include "base/base.h"
#include "compute/half.h"

static inline float half_float(const void *p) {
  uint16_t h;
  memcpy(&h, p, sizeof h);
  return viv__from_f16(h);
}

#include "compute/quant_blocks.h"

static const viv__format formats[] = {
    {VIV_INT8_ROW, 32, 32, 128, false}, {VIV_INT8_G128, 128, 32, 128, false},
    {VIV_INT4_G128, 128, 32, 0, true},  {VIV_Q4_0, 32, 32, 8, false},
    {VIV_Q4_1, 32, 32, 0, true},        {VIV_Q5_0, 32, 32, 16, false},
    {VIV_Q5_1, 32, 32, 0, true},        {VIV_Q8_0, 32, 32, 128, false},
    {VIV_Q2_K, 256, 16, 0, true},       {VIV_Q3_K, 256, 16, 4, false},
    {VIV_Q4_K, 256, 32, 0, true},       {VIV_Q5_K, 256, 32, 0, true},
    {VIV_Q6_K, 256, 16, 32, false}};

const viv__format *viv__format_of(int32_t dtype) {
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
    if (formats[i].dtype == dtype) return &formats[i];
  return NULL;
}

void viv__dequantize_row(int32_t dtype, const void *row, int64_t cols, int64_t begin, int64_t n,
                         float *x) {
  const viv__format *f = viv__format_of(dtype);
  uint8_t q[256];
  float d[16], m[16] = {0};
  for (int64_t k = 0; k < n; k += f->span) {
    unpack_span(dtype, row, begin + k, cols, q, d, m);
    int64_t len = n - k < f->span ? n - k : f->span;
    for (int64_t i = 0; i < len; i++)
      x[k + i] = d[i / f->unit] * (float)(q[i] - f->zero) + m[i / f->unit];
  }
}

/* ---- to blocks ---- */

bool viv__can_quantize(int32_t dtype) {
  return dtype == VIV_INT8_ROW || dtype == VIV_INT8_G128 || dtype == VIV_INT4_G128 ||
         dtype == VIV_Q4_0 || dtype == VIV_Q4_1 || dtype == VIV_Q8_0;
}

enum { GROUP_MAX = 128 };

/* Finite values that f16 scales can reach. */
static void tame(const float *x, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    y[i] = isnan(x[i]) ? 0.0f : fminf(65504.0f, fmaxf(-65504.0f, x[i]));
}

/* x rounded to f16, in both forms. */
static float to_half(float x, uint8_t *to) {
  uint16_t h = viv__to_f16(x);
  memcpy(to, &h, sizeof h);
  return viv__from_f16(h);
}

static float magnitude(const float *x, int64_t n) {
  float max = 0.0f;
  for (int64_t i = 0; i < n; i++) max = fmaxf(max, fabsf(x[i]));
  return max;
}

static int round_to(float x, int low, int high) {
  int q = (int)lrintf(x);
  return q < low ? low : q > high ? high : q;
}

static void bytes_at(const float *x, float scale, uint8_t *to, int64_t n) {
  float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int64_t i = 0; i < n; i++) {
    int8_t q = (int8_t)round_to(x[i] * inverse, -127, 127);
    memcpy(to + i, &q, 1);
  }
}

/* A group's q for x = d q + m, and its weighted squared error. */
static double fit(const float *x, const float *weight, float d, float m, int low, int high, int *q,
                  int n) {
  double error = 0;
  float inverse = d != 0 ? 1.0f / d : 0.0f;
  for (int i = 0; i < n; i++) {
    q[i] = round_to((x[i] - m) * inverse, low, high);
    float off = x[i] - (d * (float)q[i] + m);
    error += (double)(weight[i] * off) * off;
  }
  return error;
}

/* The d and m (m stays 0 without minimum) that fit given q best: weighted least squares. False: they
 * are not determined. */
static bool solve(const float *x, const float *weight, const int *q, int n, bool minimum, float *d,
                  float *m) {
  double sw = 0, sq = 0, sqq = 0, sx = 0, sqx = 0;
  for (int i = 0; i < n; i++) {
    double w = weight[i];
    sw += w;
    sq += w * q[i];
    sqq += w * q[i] * q[i];
    sx += w * x[i];
    sqx += w * q[i] * x[i];
  }
  double det = minimum ? sw * sqq - sq * sq : sqq;
  if (!(det > 1e-12 * sw * sqq)) return false;
  *d = (float)(minimum ? (sw * sqx - sq * sx) / det : sqx / sqq);
  *m = (float)(minimum ? (sqq * sx - sq * sqx) / det : 0);
  return fabsf(*d) < 65504.0f && fabsf(*m) < 65504.0f;
}

/* Four bits: scales from a little inside the range to all of it, each then solved for; the best by
 * error. Writes the halves to d and m (NULL: no minimum, q from -8) and q as 0 .. 15. */
static void four_bits(const float *x, const float *weight, int n, uint8_t *d, uint8_t *m,
                      uint8_t *out) {
  enum { STEPS = 9, ROUNDS = 2 };
  float low = x[0], high = x[0], widest = x[0];
  for (int i = 1; i < n; i++) {
    low = fminf(low, x[i]);
    high = fmaxf(high, x[i]);
    if (fabsf(x[i]) > fabsf(widest)) widest = x[i];
  }
  int from = m ? 0 : -8, to = m ? 15 : 7, q[GROUP_MAX];
  double best = INFINITY;
  for (int step = 0; step < STEPS; step++) {
    /* A minimum: 15 steps cover the range. None: the value farthest out stands at -8. */
    float shrink = 1.0f - 0.03f * (float)step;
    float scale = m ? (high - low) / 15.0f * shrink : widest / -8.0f * shrink;
    float offset = m ? low + (high - low) * (1.0f - shrink) * 0.5f : 0.0f;
    for (int round = 0; round <= ROUNDS; round++) {
      uint8_t at[4] = {0};
      float ds = to_half(scale, at), ms = m ? to_half(offset, at + 2) : 0.0f;
      double error = fit(x, weight, ds, ms, from, to, q, n);
      if (error < best) {
        best = error;
        memcpy(d, at, 2);
        if (m) memcpy(m, at + 2, 2);
        for (int i = 0; i < n; i++) out[i] = (uint8_t)(q[i] - from);
      }
      if (!solve(x, weight, q, n, m != NULL, &scale, &offset)) break;
    }
  }
}

/* A block of n elements: halves, then nibbles, element i low and i + n / 2 high. */
static void four_bit_block(const float *x, const float *weight, int n, bool minimum, uint8_t *to) {
  uint8_t q[GROUP_MAX] = {0};
  four_bits(x, weight, n, to, minimum ? to + 2 : NULL, q);
  uint8_t *packed = to + (minimum ? 4 : 2);
  for (int i = 0; i < n / 2; i++) packed[i] = (uint8_t)(q[i] | q[i + n / 2] << 4);
}

void viv__quantize_row(int32_t dtype, const float *x, const float *importance, void *row,
                       int64_t n) {
  uint8_t *to = row;
  if (dtype == VIV_INT8_ROW) {
    float largest = 0.0f, block[GROUP_MAX];
    for (int64_t k = 0; k < n; k += GROUP_MAX) {
      int64_t len = n - k < GROUP_MAX ? n - k : GROUP_MAX;
      tame(x + k, block, len);
      largest = fmaxf(largest, magnitude(block, len));
    }
    float scale = largest / 127.0f;
    memcpy(to, &scale, sizeof scale);
    for (int64_t k = 0; k < n; k += GROUP_MAX) {
      int64_t len = n - k < GROUP_MAX ? n - k : GROUP_MAX;
      tame(x + k, block, len);
      bytes_at(block, scale, to + 4 + k, len);
    }
    return;
  }
  int group = dtype == VIV_INT8_G128 || dtype == VIV_INT4_G128 ? 128 : 32;
  uint64_t bytes = viv__row_bytes(dtype, group);
  float block[GROUP_MAX], weight[GROUP_MAX];
  for (int64_t k = 0; k < n; k += group, to += bytes) {
    tame(x + k, block, group);
    for (int i = 0; i < group; i++) weight[i] = importance ? importance[k + i] : 1.0f;
    if (dtype == VIV_INT8_G128 || dtype == VIV_Q8_0)
      bytes_at(block, to_half(magnitude(block, group) / 127.0f, to), to + 2, group);
    else
      four_bit_block(block, weight, group, dtype != VIV_Q4_0, to);
  }
}
