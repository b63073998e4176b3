/* viv.compute/1: the host's kernels, asked for with get_extension(VIV_COMPUTE_ID).
 *
 * Hot loops live here once, for all plugins: they run on the host's thread pool, choose the
 * processor's best code at run time, and have a portable reference that the others are tested
 * against. Kernels don't fail: the plugin has checked its shapes when it opened the model. All
 * arrays are dense and row-major unless a stride is given; strides count elements.
 *
 * STRICT: the result of a row (or a query row, or a sequence) is the same to the bit whatever other
 * rows share the call, however many threads run. Functions are STRICT unless they say otherwise. */
#ifndef VIVARIUM_COMPUTE_H
#define VIVARIUM_COMPUTE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_COMPUTE_ID "viv.compute/1"

typedef struct viv_compute viv_compute;
typedef struct viv_weight viv_weight; /* a prepared matrix; lives in the arena it was made in */

enum viv_unary {
  VIV_SILU = 1,
  VIV_GELU = 2,      /* exact, with erf */
  VIV_GELU_TANH = 3,
  VIV_RELU = 4,
  VIV_SIGMOID = 5,
  VIV_TANH = 6,
  VIV_SOFTPLUS = 7,  /* x for x > 20 */
  VIV_EXP = 8
};

/* Keys and values of one layer of one sequence, in pages of page_tokens tokens each: token t lies in
 * page t / page_tokens at row t % page_tokens. A page whose tokens are all out of every window may
 * be NULL. */
typedef struct viv_kv {
  const void *const *k; /* [pages] -> [page_tokens, k_width] */
  const void *const *v; /* [pages] -> [page_tokens, v_width] */
} viv_kv;

/* Attention of rows over paged keys and values: for row r and head h
 *   out[r,h] = sum_s softmax_s( scale * q[r,h] . k[s, k_offset[h] ..] ) v[s, v_offset[h] ..]
 * over the keys s < visible[r], s >= visible[r] - window when window > 0, and, when mask is given,
 * for keys s >= mask_begin[r] only where mask[r * mask_stride + (s - mask_begin[r])] is not 0. A row
 * that sees nothing gives zeros. */
typedef struct viv_attention {
  uint32_t struct_size;
  int32_t kv_dtype;        /* VIV_F32, VIV_F16 or VIV_BF16 */
  int32_t rows;
  int32_t heads;
  int32_t head_dim;        /* of q and k */
  int32_t value_dim;       /* of v and out; 0: head_dim */
  int32_t kv_heads;        /* used when the offsets are NULL: head h reads kv head h/(heads/kv_heads) */
  int32_t page_tokens;
  int32_t k_width;         /* elements of one token's row in a page */
  int32_t v_width;
  const int32_t *k_offset; /* [heads] or NULL */
  const int32_t *v_offset; /* [heads] or NULL */
  float scale;
  float softcap;           /* > 0: scores become softcap * tanh(score / softcap) */
  int64_t window;          /* 0: none, else this many keys including the row's own position */
  const float *q;          /* [rows, heads, head_dim], row stride q_stride */
  int64_t q_stride;        /* 0: heads * head_dim */
  float *out;              /* [rows, heads, value_dim], row stride out_stride */
  int64_t out_stride;      /* 0: heads * value_dim */
  const viv_kv *const *kv; /* [rows] */
  const int64_t *visible;  /* [rows] keys [0, visible) may be seen */
  const uint8_t *mask;     /* NULL: none */
  int64_t mask_stride;
  const int64_t *mask_begin; /* [rows] with mask */
} viv_attention;

/* Causal depthwise convolution over the rows of one sequence. out must not be x. */
typedef struct viv_causal_conv {
  uint32_t struct_size;
  int32_t silu;        /* 1: apply silu to the result */
  int64_t rows;
  int32_t channels;
  int32_t taps;        /* K, 2 or more */
  const float *x;      /* [rows, channels], row stride x_stride */
  int64_t x_stride;    /* 0: channels */
  const float *weight; /* [channels, K]; index K-1 multiplies the current row */
  const float *bias;   /* [channels] or NULL */
  float *tail;         /* [channels, K-1], the rows before this call, oldest first; updated */
  float *out;          /* [rows, channels] */
} viv_causal_conv;

/* Selective scan (Mamba-1) over the rows of one sequence, in row order:
 *   S[c,n] = exp(delta[t,c] A[c,n]) S[c,n] + delta[t,c] B[t,n] u[t,c]
 *   y[t,c] = sum_n S[c,n] C[t,n] + D[c] u[t,c] */
typedef struct viv_scan {
  uint32_t struct_size;
  int32_t channels;
  int32_t states;      /* N */
  int32_t reserved;
  int64_t rows;
  const float *u;      /* [rows, channels] */
  const float *delta;  /* [rows, channels], after softplus */
  const float *a;      /* [channels, N], = -exp(A_log) */
  const float *b;      /* [rows, N], row stride bc_stride */
  const float *c;      /* [rows, N], row stride bc_stride */
  int64_t bc_stride;
  const float *d;      /* [channels] or NULL */
  float *state;        /* [channels, N]; updated */
  float *states_out;   /* [rows, channels, N] state after each row, or NULL */
  float *y;            /* [rows, channels]; may be u */
} viv_scan;

/* 2-d convolution, NCHW. One dimension: height 1. Not STRICT. */
typedef struct viv_conv2d {
  uint32_t struct_size;
  int32_t groups;
  int32_t batch, in_channels, height, width;
  int32_t out_channels, kernel_h, kernel_w;
  int32_t stride_h, stride_w;
  int32_t dilation_h, dilation_w;
  int32_t pad_top, pad_left, pad_bottom, pad_right; /* zeros */
  int32_t reserved;
  const float *x;      /* [batch, in_channels, height, width] */
  const float *weight; /* [out_channels, in_channels/groups, kernel_h, kernel_w] */
  const float *bias;   /* [out_channels] or NULL */
  float *out;          /* [batch, out_channels, out_h, out_w] */
  float *scratch;      /* conv2d_scratch(args) floats */
} viv_conv2d;

/* All functions take the table itself first. [job], and weight_prepare and floats [loader]. */
struct viv_compute {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  int32_t threads; /* of the pool, the caller included */
  void *self;

  /* body(ctx, begin, end) over disjoint ranges that cover [0, n), of at least grain each except the
   * last, on pool threads and the calling one; returns when all are done. body must not call
   * parallel_for again. */
  void (*parallel_for)(const viv_compute *c, int64_t n, int64_t grain,
                       void (*body)(void *ctx, int64_t begin, int64_t end), void *ctx);

  /* A matrix [out, in] (leading dimensions are folded into out) for linear, from a tensor that lives
   * as long as the arena. With AS_STORED nothing is copied. BAD_INPUT: dtype is no float. */
  int32_t (*weight_prepare)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                            int32_t policy, viv_weight **out, viv_error *error);
  /* The same from rows [row_begin, row_end) of the tensor, for fused projections. */
  int32_t (*weight_rows)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                         int64_t row_begin, int64_t row_end, int32_t policy, viv_weight **out,
                         viv_error *error);
  /* Bytes that weight_prepare will take from the arena, for the memory plan. */
  uint64_t (*weight_bytes)(const viv_compute *c, const viv_tensor *tensor, int32_t policy);

  /* A small tensor as f32: the mapped data itself when it is aligned f32, else a copy in the arena.
   * NULL: the arena is full or the dtype has no numbers. */
  const float *(*floats)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor);

  /* y[r] = W x[r] + bias, x [rows, in], y [rows, out]; bias may be NULL; y must not be x. */
  void (*linear)(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                 float *y, int64_t rows);
  /* y[i] = row ids[i] of the matrix as f32; ids are valid. */
  void (*gather)(const viv_compute *c, const viv_weight *w, const int32_t *ids, int64_t n, float *y);

  /* C = alpha op(A) op(B) + beta C, row-major, op(A) [m,k], op(B) [k,n]. Not STRICT. */
  void (*gemm)(const viv_compute *c, int32_t trans_a, int32_t trans_b, int64_t m, int64_t n,
               int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
               float beta, float *out, int64_t ldc);

  /* Row-wise; y may be x. w and b may be NULL. Softmax of a row of -infinity gives zeros. */
  void (*layer_norm)(const viv_compute *c, const float *x, const float *w, const float *b, float eps,
                     int64_t rows, int64_t d, float *y);
  void (*rms_norm)(const viv_compute *c, const float *x, const float *w, float eps, int64_t rows,
                   int64_t d, float *y);
  void (*softmax)(const viv_compute *c, const float *x, int64_t rows, int64_t d, float *y);

  void (*unary)(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t n);
  /* gate[i] = f(gate[i]) * value[i] */
  void (*gate)(const viv_compute *c, int32_t kind, float *gate, const float *value, int64_t n);
  /* x [rows, 2n] = [gate | value] -> y [rows, n] = f(gate) * value */
  void (*glu)(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t rows, int64_t n);
  void (*add)(const viv_compute *c, float *x, const float *y, int64_t n); /* x += y */

  /* Rotary embeddings. table: cos_sin [rows, R] = R/2 cosines, R/2 sines of pos[r] * inv_freq[i],
   * both times m. apply rotates the first R of each head's head_dim in place; interleaved 0: pairs
   * (i, i+R/2); 1: pairs (2i, 2i+1). x_stride 0: heads * head_dim. */
  void (*rope_table)(const viv_compute *c, const int32_t *pos, int64_t rows, const float *inv_freq,
                     int64_t half, float m, float *cos_sin);
  void (*rope_apply)(const viv_compute *c, float *x, int64_t x_stride, int64_t rows, int64_t heads,
                     int64_t head_dim, const float *cos_sin, int64_t half, int32_t interleaved);

  void (*attention)(const viv_compute *c, const viv_attention *args);
  void (*causal_conv)(const viv_compute *c, const viv_causal_conv *args);
  void (*scan)(const viv_compute *c, const viv_scan *args);
  void (*conv2d)(const viv_compute *c, const viv_conv2d *args);
  uint64_t (*conv2d_scratch)(const viv_compute *c, const viv_conv2d *args); /* floats */

  /* n values of dtype (F32, F16, BF16) from f32, round to nearest even: for caches. */
  void (*store)(const viv_compute *c, int32_t dtype, const float *x, void *y, int64_t n);
  void (*load)(const viv_compute *c, int32_t dtype, const void *x, float *y, int64_t n);
};

#ifdef __cplusplus
}
#endif
#endif
