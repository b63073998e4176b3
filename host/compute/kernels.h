/* The inner kernels of the compute table, one set for each instruction set. Internal.
 *
 * A kernel runs on one thread over the range that it is given; compute.c splits the work. What
 * holds in every set, because the table promises it (STRICT): the result of a row, query, sequence
 * or element does not depend on the ranges, on its neighbours or on where it lies in a block. */
#ifndef VIV_HOST_KERNELS_H
#define VIV_HOST_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "compute/conv_kernels.h"
#include "vivarium/compute.h"

/* Keys are taken in blocks of this many, counted from the start of their page. */
enum { VIV__KEY_BLOCK = 64 };

/* The keys of a query are summed up in splits of this many, counted from the sequence's start, and
 * the splits then added in order: threads may share out a long cache, and its result stays the
 * same. Values wider than VIV__SPLIT_DIM are not split. */
enum { VIV__KEY_SPLIT = 512, VIV__SPLIT_DIM = 4096 };

/* Queries (rows times heads) that a call of the kernel takes at once. */
enum { VIV__TASK_QUERIES = 512 };

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
  void (*unary_with)(int32_t kind, float p, const float *x, float *y, int64_t n);
  /* y[i] = f(gate[i]) * value[i]; y may be gate. */
  void (*gate)(int32_t kind, const float *gate, const float *value, float *y, int64_t n);
  void (*axpy)(float a, const float *x, float *y, int64_t n); /* y += a x */
  void (*multiply)(float *x, const float *y, int64_t n);      /* x *= y */
  /* y = x w + b over n elements: of one channel, or (each) of n of them; w and b may be NULL. */
  void (*scale_shift)(const float *x, const float *w, const float *b, bool each, int64_t n,
                      float *y);

  void (*rope)(float *x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
               const float *cos_sin, int64_t half, int32_t interleaved);

  /* Rows [row_begin, row_end), which share one viv_kv, and heads[0 .. n_heads). Heads that read the
   * same values stand side by side, and among them those that read the same keys. part NULL: all
   * keys, into a->out. Else only those of a split, into part [rows, heads, value_dim + 2]: the
   * weighted sum, the maximum and the sum of the weights. */
  void (*attention)(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                    int32_t row_begin, int32_t row_end, int64_t split, float *part);
  /* The result of a row and head from its parts, which lie stride apart. */
  void (*attention_merge)(const viv_attention *a, int32_t head, int32_t row, const float *part,
                          int64_t stride, int64_t parts);

  /* Channels [begin, end). */
  void (*causal_conv)(const viv_causal_conv *a, int32_t begin, int32_t end);
  void (*scan)(const viv_scan *a, int32_t begin, int32_t end);

  /* F32, F16, BF16 or one slice of I8 (see viv_kv), at any alignment. */
  void (*store)(int32_t dtype, const float *x, void *y, int64_t n);
  void (*load)(int32_t dtype, const void *x, float *y, int64_t n);

  const struct viv__ops *ops; /* maps, sequences, signals: ops.h */

  void (*conv_tile)(const viv__conv_tile *t);
  /* tiles of CONV_ROWS pixels behind one another, of which t holds the first pixel's x and out: with
   * offset, whole blocks of outputs, neither add nor residual */
  void (*conv_strip)(const viv__conv_tile *t, int64_t tiles, int64_t x_step, int64_t out_step);
  /* Channels [begin, end); begin is a multiple of 16. */
  void (*conv_depthwise)(const viv__conv_depthwise *d, int64_t begin, int64_t end);
  /* The transforms of Winograd's F(2x2, 3x3): see conv_winograd.c. d [16] points to the pixels of a
   * tile; v and m hold point after point, step floats apart; residual and out [4]. */
  void (*winograd_in)(const float *const *d, int64_t channels, float *v, int64_t step);
  void (*winograd_out)(const float *m, int64_t step, int64_t cols, const float *bias,
                       const float *const *residual, float low, float high, float *const *out);
  /* y[c][r] = x[r][c] of a [rows, cols] matrix; strides count elements. */
  void (*transpose)(const float *x, int64_t x_stride, int64_t rows, int64_t cols, float *y,
                    int64_t y_stride);
  /* Rows [begin, end) of batch * out[0] * out[1]. */
  void (*pool_rows)(const viv__pool_pass *p, int64_t begin, int64_t end);
} viv__kernels;

extern const viv__kernels viv__kernels_portable;
extern const struct viv__ops viv__ops_portable;
#if defined(__x86_64__)
extern const viv__kernels viv__kernels_avx2;
extern const viv__kernels viv__kernels_avx512;
#endif

/* The parameter of a kind that is not given one: PyTorch's default. */
static inline float viv__unary_default(int32_t kind) {
  return kind == VIV_LEAKY_RELU ? 0.01f : 1.0f;
}

/* A slice of n int8 values and their scale: the values from -127 to 127, rounded to nearest even. A
 * slice with an infinity or a NaN comes back as NaN. */
void viv__store_i8(const float *x, void *y, int64_t n);
void viv__load_i8(const void *x, float *y, int64_t n);

/* The rule of viv_attention for the keys and values of head h, in elements of a token's row. */
static inline int32_t viv__slice(const viv_attention *a, int32_t dim) {
  return a->kv_dtype == VIV_I8 ? dim + 4 : dim;
}
static inline int32_t viv__k_offset(const viv_attention *a, int32_t h) {
  return a->k_offset ? a->k_offset[h] : h / (a->heads / a->kv_heads) * viv__slice(a, a->head_dim);
}
static inline int32_t viv__v_offset(const viv_attention *a, int32_t h) {
  int32_t dim = a->value_dim ? a->value_dim : a->head_dim;
  return a->v_offset ? a->v_offset[h] : h / (a->heads / a->kv_heads) * viv__slice(a, dim);
}
static inline bool viv__same_kv(const viv_attention *a, int32_t h, int32_t g) {
  return viv__k_offset(a, h) == viv__k_offset(a, g) && viv__v_offset(a, h) == viv__v_offset(a, g);
}
/* Bit i of a row's mask. */
static inline bool viv__mask_bit(const uint8_t *mask, int64_t i) {
  return mask[i >> 3] >> (i & 7) & 1;
}
static inline int64_t viv__split_keys(const viv_attention *a) {
  int32_t dim = a->value_dim ? a->value_dim : a->head_dim;
  return dim > VIV__SPLIT_DIM ? INT64_MAX / 4 : VIV__KEY_SPLIT;
}

static inline int64_t viv__min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t viv__max(int64_t a, int64_t b) {
  return a > b ? a : b;
}

#endif
