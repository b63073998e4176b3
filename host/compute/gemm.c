/* gemm: products of plain matrices, which are not STRICT and therefore may use OpenBLAS. */
#include "compute/conv.h"

/* What is done where OpenBLAS is absent: blocks of B are turned so that each column lies in a row,
 * then the kernel of linear makes the products. */
static void own_sgemm(const viv__kernels *kernels, bool trans_a, bool trans_b, int64_t m, int64_t n,
                      int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                      int64_t ldb, float beta, float *c, int64_t ldc) {
  enum { ROWS = 32, COLS = 64, DEPTH = 256 };
  float a_block[ROWS * DEPTH], b_block[COLS * DEPTH], product[ROWS * COLS];
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
  for (int64_t p = 0; p < k; p += DEPTH) {
    int64_t depth = viv__min(DEPTH, k - p);
    for (int64_t j = 0; j < n; j += COLS) {
      int64_t cols = viv__min(COLS, n - j);
      if (!trans_b)
        for (int64_t s = 0; s < depth; s++)
          for (int64_t t = 0; t < cols; t++) b_block[t * DEPTH + s] = b[(p + s) * ldb + j + t];
      for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = viv__min(ROWS, m - i);
        if (trans_a)
          for (int64_t s = 0; s < depth; s++)
            for (int64_t r = 0; r < rows; r++) a_block[r * DEPTH + s] = a[(p + s) * lda + i + r];
        kernels->linear(trans_b ? b + j * ldb + p : b_block, VIV_F32, trans_b ? ldb : DEPTH, cols,
                        depth, NULL, trans_a ? a_block : a + i * lda + p, trans_a ? DEPTH : lda,
                        rows, product, COLS);
        for (int64_t r = 0; r < rows; r++)
          kernels->axpy(alpha, product + r * COLS, c + (i + r) * ldc + j, cols);
      }
    }
  }
}

/* On the calling thread. OpenBLAS counts in int, so what does not fit goes the other way. */
static void sgemm(const viv__compute *c, bool trans_a, bool trans_b, int64_t m, int64_t n,
                  int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                  float beta, float *out, int64_t ldc) {
  int64_t largest = viv__max(viv__max(m, n), viv__max(k, lda));
  largest = viv__max(largest, viv__max(ldb, ldc));
  if (c->blas && largest <= INT32_MAX)
    viv__blas_sgemm(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
  else
    own_sgemm(c->kernels, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
}

struct gemm {
  const viv__compute *c;
  bool trans_a, trans_b, by_columns;
  int64_t m, n, k, lda, ldb, ldc, piece;
  float alpha, beta;
  const float *a, *b;
  float *out;
};

static void gemm_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct gemm *s = ctx;
  int64_t first = begin * s->piece;
  int64_t count = viv__min(end * s->piece, s->by_columns ? s->n : s->m) - first;
  if (s->by_columns)
    sgemm(s->c, s->trans_a, s->trans_b, s->m, count, s->k, s->alpha, s->a, s->lda,
          s->b + (s->trans_b ? first * s->ldb : first), s->ldb, s->beta, s->out + first, s->ldc);
  else
    sgemm(s->c, s->trans_a, s->trans_b, count, s->n, s->k, s->alpha,
          s->a + (s->trans_a ? first : first * s->lda), s->lda, s->b, s->ldb, s->beta,
          s->out + first * s->ldc, s->ldc);
}

static void gemm(const viv_compute *c, int32_t trans_a, int32_t trans_b, int64_t m, int64_t n,
                 int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                 float beta, float *out, int64_t ldc) {
  if (m < 1 || n < 1) return;
  struct gemm s = {viv__compute_of(c),
                   trans_a != 0,
                   trans_b != 0,
                   n >= m,
                   m,
                   n,
                   k,
                   lda,
                   ldb,
                   ldc,
                   0,
                   alpha,
                   beta,
                   a,
                   b,
                   out};
  int64_t length = s.by_columns ? n : m;
  /* One piece for each thread: each packs the other operand for itself. */
  int64_t pieces = viv__min(c->threads, 1 + m * n * viv__max(1, k) / (1 << 17));
  s.piece = ((length + pieces - 1) / pieces + 15) / 16 * 16;
  viv__pool_run(s.c->pool, (length + s.piece - 1) / s.piece, 1, gemm_pieces, &s);
}

void viv__table_gemm(viv_compute *t) {
  t->gemm = gemm;
}
