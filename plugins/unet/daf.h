/* DAF_stack: multi-scale guided attention over a ResNeXt, one slice to a map of classes.
 *
 *   x [B, c, H, W] -> ResNeXt -> four maps -> down_s: conv 1x1 -> all at H/4: d_1 .. d_4   [., w]
 *   fuse = MultiConv([d_4, d_3, d_2, d_1])
 *   stage k, scale s:  z = [d_s, fuse]  (k = 1),  [d_s, a_1s * fuse]  (k = 2)
 *                      a_ks = conv((CAM(z) + PAM(z)) * conv_sem(semantic_k(z)))
 *   logits = the mean over s of predict_s(a_2s), at the picture's size
 *
 * Maps are channels-last inside; every norm is folded into its convolution. */
#ifndef PLUGINS_UNET_DAF_H
#define PLUGINS_UNET_DAF_H

#include "nn/modules.h"
#include "nn/resnet.h"

enum { DAF_SCALES = 4, DAF_STAGES = 2 };

/* A convolution with its norm folded in, then PReLU of one slope. */
struct daf_conv {
  nn_conv conv;
  const float *slope; /* [1] */
};

struct daf_attention {
  struct daf_conv in, out;
  nn_conv query, key, value; /* of places; w NULL: over channels */
  const float *gamma;        /* [1] */
};

/* Two convolutions and a pool, or two convolutions and their transposed one. */
struct daf_step {
  nn_conv conv[2], up;
};

struct daf_stage {
  struct daf_step encode[2], decode[2];
  struct daf_attention places[DAF_SCALES], channels[DAF_SCALES];
  nn_conv guide[DAF_SCALES]; /* conv_sem */
  nn_conv last[DAF_SCALES];  /* conv8 */
};

struct daf_model {
  nn_net net;
  int32_t in_channels, classes, width, reduction;
  nn_resnet_spec spec;
  nn_resnet backbone;
  struct daf_conv down[DAF_SCALES]; /* 0: the finest */
  struct daf_conv fuse[3];
  struct daf_stage stage[DAF_STAGES];
  nn_conv predict[DAF_SCALES];
  char about[256];
};

/* daf.c */
void daf_tables(nn_loader *l, void *model);
/* [B, classes, H, W], channels last, of x [B, c, H, W] in either layout. */
nn_map daf_network(nn_pass *p, const struct daf_model *m, const nn_map *x);

/* tasks.c */
extern const nn_task daf_tasks[];

#endif
