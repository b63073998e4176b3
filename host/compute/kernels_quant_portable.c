/* The kernels for block formats in plain C: what runs where nothing better does, and what the others
 * are tested against. */
#include <math.h>

#include "compute/half.h"
#include "compute/quant_kernels.h"

static inline float half_float(const void *p) {
  uint16_t h;
  memcpy(&h, p, sizeof h);
  return viv__from_f16(h);
}

#include "compute/quant_blocks.h"

/* Rounds to nearest even, for |x| < 2^22. */
static int to_int(float x) {
  return (int)((x + 12582912.0f) - 12582912.0f);
}

static float quantize_group(const float *x, int8_t *a) {
  uint32_t largest = 0;
  for (int i = 0; i < VIV__GROUP; i++) {
    uint32_t bits = viv__to_bits(x[i]) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  float max = viv__from_bits(largest);
  memset(a, 0, VIV__GROUP);
  if (largest >= 0x7f800000) return NAN;
  if (max < 1e-30f) return 0.0f;
  float inverse = 127.0f / max;
  for (int i = 0; i < VIV__GROUP; i++) a[i] = (int8_t)to_int(x[i] * inverse);
  return max / 127.0f;
}

static void quantize(const viv__format *f, const float *x, int64_t x_stride, int64_t rows,
                     int64_t k, char *to) {
  viv__row_layout l = viv__row_layout_of(f, k);
  for (int64_t r = 0; r < rows; r++, x += x_stride, to += l.bytes) {
    int8_t *a = (int8_t *)to;
    float *scale = (float *)(void *)(to + l.scale_at), *sum = (float *)(void *)(to + l.sum_at);
    int32_t *shift = (int32_t *)(void *)(to + l.shift_at);
    for (int64_t i = 0; i < l.cols; i += VIV__GROUP) {
      float group[VIV__GROUP] = {0};
      memcpy(group, x + i, (size_t)(k - i < VIV__GROUP ? k - i : VIV__GROUP) * sizeof *group);
      scale[i / VIV__GROUP] = quantize_group(group, a + i);
    }
    for (int64_t u = 0; u < l.units; u++) {
      int32_t total = 0;
      for (int i = 0; i < f->unit; i++) total += a[u * f->unit + i];
      shift[u] = -f->zero * total;
      sum[u] = scale[u * f->unit / VIV__GROUP] * (float)total;
    }
  }
}

/* n <= PANEL outputs from out on, beside one another. */
static void make_panel(const viv__product *p, const viv__row_layout *l, int64_t out, int64_t n) {
  const viv__format *f = p->format;
  float *scale = (float *)(void *)(p->panel + l->cols * VIV__PANEL);
  float *minimum = scale + l->units * VIV__PANEL;
  for (int64_t o = 0; o < n; o++)
    for (int64_t k = 0; k < l->cols; k += f->span) {
      uint8_t q[256];
      float d[16], m[16];
      unpack_span(f->dtype, p->w + (out + o) * p->row_bytes, k, p->k, q, d, m);
      for (int i = 0; i < f->span; i += 4)
        memcpy(p->panel + (k + i) * VIV__PANEL + o * 4, q + i, 4);
      for (int u = 0; u < f->span / f->unit; u++) {
        scale[(k / f->unit + u) * VIV__PANEL + o] = d[u];
        if (f->minimum) minimum[(k / f->unit + u) * VIV__PANEL + o] = m[u];
      }
    }
}

static void panel_row(const viv__product *p, const viv__row_layout *l, int64_t row, float *y) {
  const viv__format *f = p->format;
  const char *x = p->x + row * l->bytes;
  const int8_t *a = (const int8_t *)x;
  const float *a_scale = (const float *)(const void *)(x + l->scale_at);
  const float *a_sum = (const float *)(const void *)(x + l->sum_at);
  const int32_t *shift = (const int32_t *)(const void *)(x + l->shift_at);
  const uint8_t *q = (const uint8_t *)p->panel;
  const float *scale = (const float *)(const void *)(p->panel + l->cols * VIV__PANEL);
  const float *minimum = scale + l->units * VIV__PANEL;
  for (int o = 0; o < VIV__PANEL; o++) y[o] = 0.0f;
  for (int64_t u = 0; u < l->units; u++) {
    int32_t acc[VIV__PANEL];
    for (int o = 0; o < VIV__PANEL; o++) acc[o] = shift[u];
    for (int i = 0; i < f->unit; i += 4, q += 4 * VIV__PANEL, a += 4)
      for (int o = 0; o < VIV__PANEL; o++)
        acc[o] += q[o * 4] * a[0] + q[o * 4 + 1] * a[1] + q[o * 4 + 2] * a[2] + q[o * 4 + 3] * a[3];
    float group_scale = a_scale[u * f->unit / VIV__GROUP];
    for (int o = 0; o < VIV__PANEL; o++)
      y[o] += (float)acc[o] * group_scale * scale[u * VIV__PANEL + o];
    if (f->minimum)
      for (int o = 0; o < VIV__PANEL; o++) y[o] += a_sum[u] * minimum[u * VIV__PANEL + o];
  }
}

static void product(const viv__product *p) {
  viv__row_layout l = viv__row_layout_of(p->format, p->k);
  for (int64_t out = p->begin; out < p->end; out += VIV__PANEL) {
    int64_t n = p->end - out < VIV__PANEL ? p->end - out : VIV__PANEL;
    /* Lanes without an output must not hold what an earlier product left: it could be a NaN. */
    if (n < VIV__PANEL) memset(p->panel, 0, (size_t)viv__panel_bytes(&l));
    make_panel(p, &l, out, n);
    for (int64_t r = 0; r < p->rows; r++) {
      float y[VIV__PANEL];
      panel_row(p, &l, r, y);
      viv__finish(p, y, r, out, n);
    }
  }
}

const viv__quant_kernels viv__quant_portable = {.quantize = quantize, .product = product};
