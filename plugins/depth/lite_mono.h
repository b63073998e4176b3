/* Lite-Mono, the encoder of ProDepth's branches.
 *
 *   x = (picture - 0.45) / 0.225, d_i = i + 1 times averaged 3x3 stride 2
 *   f0 = three 3x3, the first of stride 2, batch norm, GELU                            1/2
 *   t0 = 3x3 stride 2 [f0, d_0];  s0 = stage 0 of t0                                   1/4
 *   t_i = 3x3 stride 2 [t_{i-1}, s_{i-1}, d_i];  s_i = stage i of t_i, i = 1, 2        1/8, 1/16
 *   a stage: blocks x += gamma W2 gelu(W1 bn(dilated depthwise 3x3 x)), and last one where channels
 *   attend to one another over all tokens (LGFI, XCA):
 *     t = x [+ Fourier positions, stage 0];  t += gamma_xca XCA(LN t);  x += gamma W2 gelu(W1 LN t)
 *
 * Zhang et al., Lite-Mono, arXiv:2211.13202; official: ProDepth/networks/depth_encoder.py, where the
 * norm of a dilated block is stored and not applied. Maps are channels last. */
#ifndef PLUGINS_DEPTH_LITE_MONO_H
#define PLUGINS_DEPTH_LITE_MONO_H

#include "depth/picture.h"

enum { LITE_STAGES = 3, LITE_BLOCKS = 24 };

typedef struct lite_spec {
  int32_t dims[LITE_STAGES], depth[LITE_STAGES], heads[LITE_STAGES];
  int32_t dilation[LITE_STAGES][LITE_BLOCKS];
  int32_t expand;
} lite_spec;

typedef struct lite_block {
  bool global; /* the last of a stage */
  nn_conv depthwise;
  nn_norm norm, norm_xca;
  nn_linear up, down, qkv, proj, positions; /* positions.w NULL: none */
  const float *gamma, *gamma_xca, *temperature;
} lite_block;

typedef struct lite_net {
  lite_spec spec;
  nn_conv stem[3], stem2, down[2];
  lite_block block[LITE_STAGES][LITE_BLOCKS];
} lite_net;

/* The maps up to stage 0; s may be exchanged before the rest is computed. */
typedef struct lite_state {
  nn_map f, t, s; /* f0, t0, s0 */
  nn_map below[LITE_STAGES];
} lite_state;

/* dims, depth, dilation, heads and expan_ratio; a failure is left in k->status. */
void lite_read(nn_config *k, lite_spec *spec);
/* In a tables function. first: with the stem and stage 0, else those after them alone. */
void lite_load(nn_loader *l, const lite_spec *spec, bool first, lite_net *net);
/* tap: feature0 and stage0.0. */
lite_state lite_begin(nn_pass *p, const lite_net *net, const nn_map *pixels, bool tap);
/* features[2] and [3]: s_1, s_2. */
void lite_finish(nn_pass *p, const lite_net *net, const lite_state *state, nn_map features[4]);

#endif
