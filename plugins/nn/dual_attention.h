/* Self-attention over places and over channels, each with a learnt share (Fu et al., Dual Attention
 * Network, arXiv:1809.02983). Maps are channels-last, one picture each. Any thread. */
#ifndef PLUGINS_NN_DUAL_ATTENTION_H
#define PLUGINS_NN_DUAL_ATTENTION_H

#include "nn/nn.h"

/* y = gamma softmax(q k^T) v + x. q, k [n, dk]; v, x, y [n, d]; y may not be v. scratch:
 * nn_position_scratch(n) floats. */
int64_t nn_position_scratch(int64_t n);
void nn_position_attention(const viv_compute *c, int64_t n, int64_t dk, int64_t d, const float *q,
                           const float *k, const float *v, float gamma, const float *x,
                           float *scratch, float *y);

/* y = gamma x A^T + x with A = softmax(max(E) - E) by rows, E = x^T x [d, d]: channels that are alike
 * weigh least. x, y [n, d]; y may not be x. scratch: d * d floats. */
void nn_channel_attention(const viv_compute *c, int64_t n, int64_t d, const float *x, float gamma,
                          float *scratch, float *y);

#endif
