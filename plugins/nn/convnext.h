/* ConvNeXt as a backbone, channels last throughout.
 *
 *   x [B, 3, H, W] -> conv 4x4 stride 4, LN -> stage 1 -> 2 -> 3 -> 4 (strides 4 to 32)
 *   before stages 2 to 4:  LN, conv 2x2 stride 2 (remaining rows and columns are dropped)
 *   block:  x += gamma * W2 gelu(W1 LN(depthwise 7x7 x))
 *
 * Liu et al., A ConvNet for the 2020s, arXiv:2201.03545. Official: facebookresearch/ConvNeXt; timm's
 * and transformers' names. */
#ifndef PLUGINS_NN_CONVNEXT_H
#define PLUGINS_NN_CONVNEXT_H

#include "nn/modules.h"

enum { NN_CONVNEXT_BLOCKS = 96, NN_CONVNEXT_STAGES = 4 };

enum nn_convnext_names {
  NN_CONVNEXT_TIMM = 0,        /* stem.0, stages.1.downsample.1, stages.0.blocks.0.conv_dw */
  NN_CONVNEXT_FEATURES = 1,    /* the same with stem_0 and stages_0 (features_only) */
  NN_CONVNEXT_TRANSFORMERS = 2 /* embeddings.patch_embeddings, encoder.stages.0.layers.0.dwconv */
};

typedef struct nn_convnext_spec {
  int32_t names;       /* enum nn_convnext_names */
  int32_t in_channels; /* 0: 3 */
  int32_t patch;       /* of the stem; 0: 4 */
  int32_t stages;
  int32_t depths[NN_CONVNEXT_STAGES], dims[NN_CONVNEXT_STAGES];
  int32_t act; /* 0: VIV_GELU */
  bool no_gamma;
  bool no_stem; /* the caller has a stem of its own, and goes stage by stage */
} nn_convnext_spec;

typedef struct nn_convnext_block {
  nn_conv depthwise;
  nn_norm norm;
  nn_linear up, down;
  const float *gamma; /* [d] or NULL */
} nn_convnext_block;

typedef struct nn_convnext {
  nn_convnext_spec spec;
  nn_conv stem;
  nn_norm stem_norm;
  nn_norm down_norm[NN_CONVNEXT_STAGES]; /* before the stage; the first has none */
  nn_conv down[NN_CONVNEXT_STAGES];
  nn_convnext_block block[NN_CONVNEXT_BLOCKS]; /* stage after stage */
} nn_convnext;

/* For every walk of the tables; the caller has checked the spec (blocks <= NN_CONVNEXT_BLOCKS). */
void nn_load_convnext(nn_loader *l, const nn_convnext_spec *spec, nn_convnext *net);
/* maps[s]: after stage s (from 1), channels last; filled are those with bit s of `wanted`. Taps: stem,
 * stages.s, stages.s.blocks.b (from 0, channels first). */
void nn_apply_convnext(nn_pass *p, const nn_convnext *net, const nn_map *x, uint32_t wanted,
                       nn_map maps[NN_CONVNEXT_STAGES + 1]);

/* The map after stage s (from 0) of the map before it, channels last; x may change where no stage stands
 * before it. For networks that do something between the stages. */
nn_map nn_convnext_stage(nn_pass *p, const nn_convnext *net, int32_t s, const nn_map *x);

#endif
