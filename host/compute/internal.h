/* What the files of host/compute share: the pool, OpenBLAS, the table's private part. Internal. */
#ifndef VIV_HOST_COMPUTE_INTERNAL_H
#define VIV_HOST_COMPUTE_INTERNAL_H

#include "compute/compute.h"
#include "compute/kernels.h"
#include "compute/scratch.h"

/* ---- pool.c ---- */

typedef struct viv__pool viv__pool;
typedef void (*viv__body)(void *ctx, int64_t begin, int64_t end);

/* A pool of threads - 1 workers; fewer when the system grants no more. NULL: no memory. */
viv__pool *viv__pool_new(int32_t threads);
void viv__pool_free(viv__pool *p);
int32_t viv__pool_threads(const viv__pool *p); /* the caller included */
/* As parallel_for of the table. */
void viv__pool_run(viv__pool *p, int64_t n, int64_t grain, viv__body body, void *ctx);

/* ---- blas.c ---- */

bool viv__blas_load(void);            /* once per process; false: there is no OpenBLAS */
const char *viv__blas_corename(void); /* "SkylakeX", ...; "none" without OpenBLAS */
/* C = alpha op(A) op(B) + beta C, row-major, on the calling thread; only after a load that
 * worked. */
void viv__blas_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc);

/* ---- compute.c ---- */

struct viv_weight {
  const void *data; /* [out, in] of dtype, at any alignment */
  int64_t out, in;
  int32_t dtype; /* VIV_F32, VIV_F16, VIV_BF16 or a block format */
};

/* y = act(W x + bias) + residual, as linear_to of the table. */
typedef struct viv__linear {
  const viv_weight *w;
  const float *bias, *residual, *x;
  int64_t x_stride;
  float *y;
  int64_t y_stride, rows;
  int32_t act;
} viv__linear;

/* quant_linear.c: n <= MOST matrices in block formats over the same rows: x, x_stride, rows and w->in
 * are alike. */
enum { VIV__MOST_LINEARS = 4 };
void viv__quant_linears(const viv_compute *c, const viv__linear *l, int32_t n);

/* linear_packed.c: dense weights over many rows; false, and nothing is done, where that would not be
 * faster. */
bool viv__packed_linear(const viv_compute *c, const viv__linear *l);

/* Bytes of a scratch buffer: room for each thread's panel of weights and some rows of x. */
static inline int64_t viv__scratch_bytes(int32_t threads) {
  return ((int64_t)threads + 1) << 21;
}

typedef struct viv__compute {
  viv_compute table; /* first: the table's address is this struct's */
  const char *isa;   /* the set of kernels */
  const viv__kernels *kernels;
  const struct viv__quant_kernels *quant; /* weights in block formats: quant_kernels.h */
  viv__pool *pool;
  viv__scratch *scratch; /* buffers of viv__scratch_bytes */
  bool blas;
} viv__compute;

static inline const viv__compute *viv__compute_of(const viv_compute *c) {
  return c->self;
}

/* parallel_for of the table. */
void viv__parallel(const viv_compute *c, int64_t n, int64_t grain, viv__body body, void *ctx);

/* Work below this many multiply-adds (or so) is not worth waking a thread for. */
enum { VIV__MIN_WORK = 1 << 15 };
/* Units of that much work each that make a piece for a thread. */
static inline int64_t viv__grain(int64_t work_of_unit) {
  return viv__max(1, VIV__MIN_WORK / viv__max(1, work_of_unit));
}

/* Each file fills its members of the table. */
void viv__table_weights(viv_compute *t);
void viv__table_linear(viv_compute *t);
void viv__table_rows(viv_compute *t);
void viv__table_attention(viv_compute *t);
void viv__table_state(viv_compute *t);
void viv__table_conv(viv_compute *t);
void viv__table_maps(viv_compute *t);
void viv__table_resize_u8(viv_compute *t);
void viv__table_layout(viv_compute *t);
void viv__table_select(viv_compute *t);
void viv__table_sequence(viv_compute *t);
void viv__table_signal(viv_compute *t);

#endif
