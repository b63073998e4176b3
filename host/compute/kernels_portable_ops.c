/* The operations on maps, sequences and signals without any particular instruction set. */
#include "compute/ops.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TURN_LANES 4

#include "compute/kernels_maps.h"
#include "compute/kernels_u8.h"
#include "compute/kernels_layout.h"
#include "compute/kernels_signal.h"

static float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

static void lstm_kernel(const float *in, const float *rec, int64_t n, float *h, float *c) {
  for (int64_t i = 0; i < n; i++) {
    float enter = sigmoid(in[i] + rec[i]), keep = sigmoid(in[n + i] + rec[n + i]);
    float value = tanhf(in[2 * n + i] + rec[2 * n + i]), out = in[3 * n + i] + rec[3 * n + i];
    c[i] = keep * c[i] + enter * value;
    h[i] = sigmoid(out) * tanhf(c[i]);
  }
}

static void gru_kernel(const float *in, const float *rec, int64_t n, float *h) {
  for (int64_t i = 0; i < n; i++) {
    float reset = sigmoid(in[i] + rec[i]), update = sigmoid(in[n + i] + rec[n + i]);
    float fresh = tanhf(in[2 * n + i] + reset * rec[2 * n + i]);
    h[i] = update * (h[i] - fresh) + fresh;
  }
}

#define OPS const viv__ops viv__ops_portable
#include "compute/kernels_ops.h"
