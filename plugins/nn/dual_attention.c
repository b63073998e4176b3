#include "nn/dual_attention.h"

#include <string.h>

enum { ROWS = 256 }; /* of the table of scores that stands at once */

int64_t nn_position_scratch(int64_t n) {
  return (n < ROWS ? n : ROWS) * n;
}

void nn_position_attention(const viv_compute *c, int64_t n, int64_t dk, int64_t d, const float *q,
                           const float *k, const float *v, float gamma, const float *x,
                           float *scratch, float *y) {
  memcpy(y, x, (size_t)(n * d) * sizeof *y);
  for (int64_t at = 0; at < n; at += ROWS) {
    int64_t rows = n - at < ROWS ? n - at : ROWS;
    c->gemm(c, 0, 1, rows, n, dk, 1, q + at * dk, dk, k, dk, 0, scratch, n);
    c->softmax(c, scratch, rows, n, scratch);
    c->gemm(c, 0, 0, rows, d, n, gamma, scratch, n, v, d, 1, y + at * d, d);
  }
}

void nn_channel_attention(const viv_compute *c, int64_t n, int64_t d, const float *x, float gamma,
                          float *scratch, float *y) {
  /* The row's maximum cancels in the softmax, which subtracts its own. */
  c->gemm(c, 1, 0, d, d, n, -1, x, d, x, d, 0, scratch, d);
  c->softmax(c, scratch, d, d, scratch);
  memcpy(y, x, (size_t)(n * d) * sizeof *y);
  c->gemm(c, 0, 1, n, d, d, gamma, x, d, scratch, d, 1, y, d);
}
