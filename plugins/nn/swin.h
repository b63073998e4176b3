/* Swin transformer as a backbone: attention inside windows that shift from block to block.
 *
 *   x [B, 3, H, W] -> patches 4x4, norm -> tokens [B, H/4 W/4, C]
 *     stage s: depth[s] blocks of width C 2^s, then patches merge 2x2 (not after the last)
 *     block:   x += proj(window_attention(norm1 x));  x += fc2(gelu(fc1(norm2 x)))
 *
 * Maps that are no multiple of the window are padded with zeros after the norm: padded tokens take
 * part as keys and are cut off again. Official: microsoft/Swin-Transformer as DINO and Group Pose
 * use it; transformers' SwinModel. */
#ifndef PLUGINS_NN_SWIN_H
#define PLUGINS_NN_SWIN_H

#include "nn/modules.h"

enum { NN_SWIN_BLOCKS = 64, NN_SWIN_STAGES = 4 };

enum nn_swin_names {
  NN_SWIN_ORIGINAL = 0, /* patch_embed.proj, layers.0.blocks.0.attn.qkv, norm1 */
  NN_SWIN_TRANSFORMERS =
      1 /* embeddings.patch_embeddings.projection, encoder.layers.0.blocks.0... */
};

typedef struct nn_swin_spec {
  int32_t names;              /* enum nn_swin_names */
  int32_t in_channels, patch; /* 0: 3 and 4 */
  int32_t embed;              /* C */
  int32_t stages;             /* 1 to NN_SWIN_STAGES */
  int32_t depths[NN_SWIN_STAGES], heads[NN_SWIN_STAGES];
  int32_t window;
  float mlp_ratio; /* 0: 4 */
  float eps;       /* of the norms; 0: 1e-5 */
  int32_t act;     /* 0: VIV_GELU */
  bool no_qkv_bias;
  bool still_when_small; /* transformers: no shift in maps that are no larger than the window */
  uint32_t norms;        /* bit s: the map of stage s (from 1) has a norm of its own: norm{s-1}, or
                     transformers' hidden_states_norms.stage{s} */
} nn_swin_spec;

typedef struct nn_swin_block {
  nn_norm before, after;
  nn_linear q, k, v, o, up, down;
  const float *table; /* [(2 window - 1)^2, heads] */
} nn_swin_block;

typedef struct nn_swin {
  nn_swin_spec spec;
  nn_conv patches;
  nn_norm patch_norm;
  nn_swin_block block[NN_SWIN_BLOCKS]; /* stage after stage */
  nn_norm merge_norm[NN_SWIN_STAGES];  /* of the stage whose tokens merge */
  nn_linear merge[NN_SWIN_STAGES];
  nn_norm out_norm[NN_SWIN_STAGES];
} nn_swin;

/* "swin_T_224_1k" and the like; widths and depths of the official releases. False: no such name. */
bool nn_swin_named(viv_str name, nn_swin_spec *spec);
/* For every walk of the tables; the caller has checked the spec (blocks <= NN_SWIN_BLOCKS, widths
 * divisible by heads). */
void nn_load_swin(nn_loader *l, const nn_swin_spec *spec, nn_swin *net);
/* maps[s]: tokens after stage s (from 1), before they merge, after their norm where they have one;
 * channels last. Filled are those with bit s of `wanted`. Taps: embeddings, stage.s.block.b and
 * stage.s.downsample (from 0). */
void nn_apply_swin(nn_pass *p, const nn_swin *net, const nn_map *x, uint32_t wanted,
                   nn_map maps[NN_SWIN_STAGES + 1]);

#endif
