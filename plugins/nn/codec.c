/* What neural audio codecs share: the padding of their convolutions, folded weight norms, vector
 * quantisation. */
#include "nn/audio.h"

#include <math.h>
#include <string.h>

/* ---- convolutions ---- */

void nn_conv_pads(int64_t samples, int64_t kernel, int64_t stride, int64_t dilation, bool causal,
                  int64_t *left, int64_t *right) {
  int64_t reach = (kernel - 1) * dilation + 1, total = reach - stride;
  int64_t frames = (samples - reach + total + stride - 1) / stride + 1; /* the last one whole */
  if (samples - reach + total < 0) frames = 1;
  int64_t extra = (frames - 1) * stride + reach - total - samples;
  *right = causal ? extra : total / 2 + extra;
  *left = causal ? total : total - total / 2;
}

void nn_conv_trims(int64_t kernel, int64_t stride, bool causal, double right_ratio, int64_t *left,
                   int64_t *right) {
  int64_t total = kernel - stride;
  *right = causal ? (int64_t)ceil((double)total * right_ratio) : total / 2;
  *left = total - *right;
}

/* ---- weight norm ---- */

void nn_weight_norm(const float *g, const float *v, int32_t ndim, const int64_t *shape, int32_t dim,
                    float *w) {
  int64_t before = 1, n = 1, after = 1;
  for (int32_t i = 0; i < ndim; i++)
    *(dim < 0 || i > dim ? &after : i < dim ? &before : &n) *= shape[i];
  for (int64_t k = 0; k < n; k++) {
    double sum = 0;
    for (int64_t i = 0; i < before; i++)
      for (int64_t j = 0; j < after; j++) {
        double e = (double)v[(i * n + k) * after + j];
        sum += e * e;
      }
    double scale = (double)g[k] / sqrt(sum);
    for (int64_t i = 0; i < before; i++)
      for (int64_t j = 0; j < after; j++) {
        int64_t at = (i * n + k) * after + j;
        w[at] = (float)((double)v[at] * scale);
      }
  }
}

/* ---- vector quantisation ---- */

enum { VQ_ROWS = 64, VQ_CANDIDATES = 8 };

uint64_t nn_nearest_scratch(int64_t k, int64_t d) {
  (void)d;
  return (uint64_t)(k + VQ_ROWS * (k + VQ_CANDIDATES));
}

static double distance(const float *a, const float *b, int64_t d) {
  double sum = 0;
  for (int64_t i = 0; i < d; i++) {
    double e = (double)a[i] - (double)b[i];
    sum += e * e;
  }
  return sum;
}

void nn_nearest(const viv_compute *c, const float *codebook, int64_t k, int64_t d, const float *x,
                int64_t n, int32_t *codes, float *scratch) {
  float *half = scratch, *scores = half + k; /* |e|^2 / 2; x e - |e|^2 / 2 */
  int32_t *best = (int32_t *)(void *)(scores + VQ_ROWS * k);
  int64_t some = k < VQ_CANDIDATES ? k : VQ_CANDIDATES;
  for (int64_t i = 0; i < k; i++) {
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += (double)codebook[i * d + j] * codebook[i * d + j];
    half[i] = (float)(sum / 2);
  }
  for (int64_t at = 0; at < n; at += VQ_ROWS, x += VQ_ROWS * d) {
    int64_t rows = n - at < VQ_ROWS ? n - at : VQ_ROWS;
    c->gemm(c, 0, 1, rows, k, d, 1.0f, x, d, codebook, d, 0.0f, scores, k);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < k; i++) scores[r * k + i] -= half[i];
    c->top_k(c, scores, rows, k, some, NULL, best);
    for (int64_t r = 0; r < rows; r++) {
      double nearest = INFINITY;
      int32_t code = best[r * some];
      for (int64_t i = 0; i < some; i++) {
        int32_t candidate = best[r * some + i];
        double away = distance(x + r * d, codebook + candidate * d, d);
        if (away < nearest || (away == nearest && candidate < code)) {
          nearest = away;
          code = candidate;
        }
      }
      codes[at + r] = code;
    }
  }
}

void nn_unit_rows(const float *x, int64_t rows, int64_t d, double eps, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)x[i] * x[i];
    double length = sqrt(sum) > eps ? sqrt(sum) : eps;
    for (int64_t i = 0; i < d; i++) y[i] = (float)((double)x[i] / length);
  }
}

void nn_residual_vq(const viv_compute *c, const float *codebooks, int64_t levels, int64_t k,
                    int64_t d, const float *x, int64_t n, int32_t *codes, float *quantized,
                    float *residual, float *scratch) {
  memmove(residual, x, (size_t)(n * d) * sizeof *x);
  memset(quantized, 0, (size_t)(n * d) * sizeof *x);
  for (int64_t l = 0; l < levels; l++, codebooks += k * d) {
    int32_t *chosen = codes + l; /* in blocks: [n, levels] is not dense in one level */
    for (int64_t at = 0; at < n; at += VQ_ROWS) {
      int32_t block[VQ_ROWS];
      int64_t rows = n - at < VQ_ROWS ? n - at : VQ_ROWS;
      nn_nearest(c, codebooks, k, d, residual + at * d, rows, block, scratch);
      for (int64_t r = 0; r < rows; r++) {
        const float *e = codebooks + block[r] * d;
        chosen[(at + r) * levels] = block[r];
        for (int64_t i = 0; i < d; i++) {
          residual[(at + r) * d + i] -= e[i];
          quantized[(at + r) * d + i] += e[i];
        }
      }
    }
  }
}
