/* The inner kernels of the compute table, one set for each instruction set. Internal.
 *
 * A kernel runs on one thread over the range that it is given; compute.c splits the work. What
 * holds in every set, because the table promises it (STRICT): the result of a row, query, sequence
 * or element does not depend on the ranges, on its neighbours or on where it lies in a block. */
#ifndef VIV_HOST_KERNELS_H
#define VIV_HOST_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "vivarium/compute.h"

/* Keys are taken in blocks of this many, counted from the start of their page. */
enum { VIV__KEY_BLOCK = 64 };

typedef struct viv__kernels {
  const char *name;
  int32_t lanes;     /* floats of a vector: ranges of channels start at multiples of it */
  int32_t tile_rows; /* rows that linear takes at once */

  /* y[r, o] = sum_k x[r, k] w[o, k] + bias[o]; strides count elements; bias may be NULL. w holds
   * F32, F16 or BF16 at any alignment. */
  void (*linear)(const void *w, int32_t dtype, int64_t w_stride, int64_t outs, int64_t k,
                 const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
                 int64_t y_stride);

  void (*layer_norm)(const float *x, const float *w, const float *b, float eps, int64_t rows,
                     int64_t d, float *y);
  void (*rms_norm)(const float *x, const float *w, float eps, int64_t rows, int64_t d, float *y);
  void (*softmax)(const float *x, int64_t rows, int64_t d, float *y);

  void (*unary)(int32_t kind, const float *x, float *y, int64_t n);
  /* y[i] = f(gate[i]) * value[i]; y may be gate. */
  void (*gate)(int32_t kind, const float *gate, const float *value, float *y, int64_t n);
  void (*axpy)(float a, const float *x, float *y, int64_t n); /* y += a x */

  void (*rope)(float *x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
               const float *cos_sin, int64_t half, int32_t interleaved);

  /* Rows [row_begin, row_end), which share one viv_kv, and heads[0 .. n_heads). Heads that read the
   * same keys and values stand side by side. */
  void (*attention)(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                    int32_t row_begin, int32_t row_end);

  /* Channels [begin, end). */
  void (*causal_conv)(const viv_causal_conv *a, int32_t begin, int32_t end);
  void (*scan)(const viv_scan *a, int32_t begin, int32_t end);

  /* F32, F16 or BF16, at any alignment. */
  void (*store)(int32_t dtype, const float *x, void *y, int64_t n);
  void (*load)(int32_t dtype, const void *x, float *y, int64_t n);
} viv__kernels;

extern const viv__kernels viv__kernels_portable;
#if defined(__x86_64__)
extern const viv__kernels viv__kernels_avx2;
extern const viv__kernels viv__kernels_avx512;
#endif

/* The rule of viv_attention for the keys and values of head h, in elements of a token's row. */
static inline int32_t viv__k_offset(const viv_attention *a, int32_t h) {
  return a->k_offset ? a->k_offset[h] : h / (a->heads / a->kv_heads) * a->head_dim;
}
static inline int32_t viv__v_offset(const viv_attention *a, int32_t h) {
  int32_t dim = a->value_dim ? a->value_dim : a->head_dim;
  return a->v_offset ? a->v_offset[h] : h / (a->heads / a->kv_heads) * dim;
}

static inline int64_t viv__min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t viv__max(int64_t a, int64_t b) {
  return a > b ? a : b;
}

#endif
