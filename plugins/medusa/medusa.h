/* MEDUSA: one attention map of the whole picture, refined at each stage of a classifier.
 *
 *   grey picture [B, 1, m, m], standardised -> U-Net -> G = sigmoid [B, 1, m, m]   global attention
 *   picture [B, 3, s, s] -> ResNet; after stage i with the map F [B, C, h, w]:
 *     A_i = sigmoid(conv(relu(BN(conv [G resized, F]))))  [B, 1, h, w]             local attention
 *     F A_i goes on (with attn_residual F (1 + A_i))
 *   mean of the last map -> logits [B, classes]
 *
 * Aboutalebi et al., Frontiers in Medicine 2022. The official weights are a frozen TensorFlow graph
 * that is not public in parts; names and constants are this project's own form, fixed by its golden
 * vectors. Pictures as in lindawangg/COVID-Net, data.py: blue first, OpenCV's resize. */
#ifndef PLUGINS_MEDUSA_H
#define PLUGINS_MEDUSA_H

#include "nn/resnet.h"

enum { MEDUSA_DEPTH = 8 };

/* conv 3x3, BN, ReLU, twice */
struct medusa_pair {
  nn_conv a, b;
};

struct medusa_model {
  nn_net net;
  int32_t base, depth; /* of the U-Net */
  int32_t size, grey_size;
  int64_t classes;
  bool residual;
  struct medusa_pair down[MEDUSA_DEPTH], mid, up[MEDUSA_DEPTH];
  nn_conv out;
  nn_resnet classifier;
  nn_conv hidden[4], local[4];
  nn_linear head;
  char about[256];
};

/* forward.c */
extern const nn_task medusa_tasks[];

#endif
