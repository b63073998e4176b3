/* Products of weights in block formats with rows of floats: the kernels' interface. Internal.
 *
 * A row of activations becomes int8 in groups of 32, each with its scale; a unit of weights is
 * multiplied with it in integers, and the units' sums are added in f32, one after the other:
 *
 *   y = bias + sum_u (sum_i (q[i] - zero) a[i]) a_scale scale[u] + a_sum[u] minimum[u]
 *
 * where a_sum[u] = a_scale sum_i a[i]. The order is the same for any number of rows. Weights are taken
 * PANEL outputs at a time and laid side by side for it: that is a panel. */
#ifndef VIV_HOST_QUANT_KERNELS_H
#define VIV_HOST_QUANT_KERNELS_H

#include "compute/quant.h"

enum { VIV__PANEL = 16, VIV__GROUP = 32 };

/* Where the parts of a quantised row lie: int8 values [cols], then scales [cols / 32] as f32, then per
 * unit -zero sum_i a[i] as int32, then per unit a_sum as f32. Offsets and bytes are in bytes. */
typedef struct viv__row_layout {
  int64_t cols; /* k, rounded up to whole spans */
  int64_t units;
  int64_t scale_at, shift_at, sum_at, bytes;
} viv__row_layout;

static inline viv__row_layout viv__row_layout_of(const viv__format *f, int64_t k) {
  viv__row_layout l = {0};
  l.cols = (k + f->span - 1) / f->span * f->span;
  l.units = l.cols / f->unit;
  l.scale_at = l.cols;
  l.shift_at = l.scale_at + l.cols / VIV__GROUP * 4;
  l.sum_at = l.shift_at + l.units * 4;
  l.bytes = (l.sum_at + l.units * 4 + 63) / 64 * 64;
  return l;
}

/* Bytes of a panel: q [cols / 4][PANEL][4], scales [units][PANEL], minima [units][PANEL]. */
static inline int64_t viv__panel_bytes(const viv__row_layout *l) {
  return l->cols * VIV__PANEL + l->units * VIV__PANEL * 8;
}

typedef struct viv__product {
  const viv__format *format;
  const char *w; /* [outs] rows, row_bytes apart, at any alignment */
  int64_t row_bytes, outs, k;
  int64_t begin, end; /* the outputs that are wanted; begin is a multiple of PANEL */
  const float *bias;  /* [outs] or NULL */
  const char *x;      /* [rows] quantised, as viv__row_layout_of(format, k) */
  int64_t rows;
  char *panel; /* viv__panel_bytes, aligned to 64 */
  float *y;    /* [rows, outs], row stride y_stride */
  int64_t y_stride;
  const float *residual; /* as y, added after act; NULL: none; may be y */
  int32_t act;           /* 0 or an enum viv_unary */
  void (*unary)(int32_t kind, const float *x, float *y, int64_t n);
} viv__product;

typedef struct viv__quant_kernels {
  /* rows of x [rows, k] (x_stride floats apart) quantised for that format to to. A group that holds
   * a NaN or an infinity gets the scale NaN; one whose largest magnitude is below 1e-30 is 0. */
  void (*quantize)(const viv__format *f, const float *x, int64_t x_stride, int64_t rows, int64_t k,
                   char *to);
  void (*product)(const viv__product *p);
} viv__quant_kernels;

extern const viv__quant_kernels viv__quant_portable;
#if defined(__x86_64__)
extern const viv__quant_kernels viv__quant_avx2;
extern const viv__quant_kernels viv__quant_avx512;
extern const viv__quant_kernels viv__quant_avx512vnni;
#endif

/* What follows a sum: n outputs of one row, from sum (which is overwritten) to y. */
static inline void viv__finish(const viv__product *p, float *sum, int64_t row, int64_t out,
                               int64_t n) {
  float *y = p->y + row * p->y_stride + out;
  if (p->bias)
    for (int64_t i = 0; i < n; i++) sum[i] += p->bias[out + i];
  if (p->act) p->unary(p->act, sum, sum, n);
  if (p->residual) {
    const float *residual = p->residual + row * p->y_stride + out;
    for (int64_t i = 0; i < n; i++) y[i] = sum[i] + residual[i];
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = sum[i];
  }
}

#endif
