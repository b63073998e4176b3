/* Modules of TensorFlow checkpoints: kernels [height, width, in, out], padding "SAME", batch norms of
 * gamma, beta, moving_mean and moving_variance. Maps are channels last.
 *
 * "SAME":  out = ceil(in / stride), what is padded is shared, an odd rest goes to the end.
 * Transposed:  out = in stride, the gradient of that convolution; kernels [height, width, out, in]. */
#ifndef PLUGINS_NN_TENSORFLOW_H
#define PLUGINS_NN_TENSORFLOW_H

#include "nn/modules.h"

typedef struct nn_same_spec {
  const char *kernel; /* names under the prefix; one slash more at the end is taken too */
  const char *bias;   /* NULL: none */
  const char *norm;   /* a batch norm's scope to fold in; NULL: none */
  int32_t in, out, size, stride, dilation; /* stride and dilation 0: 1 */
  bool depthwise;                          /* kernels [height, width, in, 1] */
  bool transposed;
  int32_t first, total; /* outputs [first, first + out) of a kernel of total; total 0: of out */
} nn_same_spec;

typedef struct nn_same_conv {
  viv_conv_weight *w;
  int32_t in, out, size, stride, dilation;
  bool transposed;
} nn_same_conv;

void nn_load_same_conv(nn_loader *l, const nn_same_spec *spec, nn_same_conv *conv);
/* act(conv(x) + residual); x channels last. residual NULL: none. */
nn_map nn_apply_same_conv(nn_pass *p, const nn_same_conv *conv, int32_t act, const float *residual,
                          const nn_map *x);
/* Max pooling of that padding. */
nn_map nn_same_max_pool(nn_pass *p, int32_t size, int32_t stride, const nn_map *x);

/* A batch norm of its own: (x - mean) scale + beta for each channel. */
typedef struct nn_same_norm {
  const float *mean, *scale, *beta; /* [d] */
  int32_t d;
} nn_same_norm;
void nn_load_same_norm(nn_loader *l, const char *scope, int32_t d, nn_same_norm *norm);
/* max((x - mean) scale + beta, least) into y, which may be x; least -INFINITY: all of it. */
void nn_apply_same_norm(const nn_same_norm *norm, const float *x, int64_t rows, float least,
                        float *y);

#endif
