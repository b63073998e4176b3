/* DPT's head (Depth Anything): four levels of tokens of one grid to a map.
 *
 *   level i   [B, gh, gw, d] -> project 1x1 -> x4, x2, x1, /2 -> 3x3 -> L_i      [B, f, ., .]
 *   fusion    P4 = R4(L4), P3 = R3(P4, L3), P2 = R2(P3, L2), P1 = R1(P2, L1)
 *             R(x, y) = out(up(RCU2(x + RCU1(y)))),  RCU(z) = z + conv(relu(conv(relu(z))))
 *   output    conv 3x3 -> up to the picture -> conv 3x3, ReLU -> conv 1x1 -> ReLU or sigmoid
 *
 * Maps are channels-last inside. Ranftl et al., Vision Transformers for Dense Prediction,
 * arXiv:2103.13413; Depth-Anything-V2, depth_anything_v2/dpt.py and util/blocks.py. */
#ifndef PLUGINS_DEPTH_DPT_H
#define PLUGINS_DEPTH_DPT_H

#include "nn/modules.h"
#include "nn/vit.h"

enum { DPT_LEVELS = 4 };

typedef struct dpt_config {
  int64_t d;                  /* of the tokens */
  int32_t out[DPT_LEVELS];    /* channels after projection */
  int32_t factor[DPT_LEVELS]; /* 4: four times the grid; 1; -2: half of it */
  int32_t features;           /* f */
  int32_t hidden;             /* between the last two convolutions */
  bool use_bn;                /* the residual units have batch norms */
  bool use_cls;               /* levels read the class token too */
  bool transformers;          /* names of transformers, and of their taps */
} dpt_config;

typedef struct dpt_residual {
  nn_conv conv[2];
} dpt_residual;

typedef struct dpt_level {
  nn_linear readout; /* [d, 2 d], with use_cls */
  nn_conv project, resize, shape;
  dpt_residual residual[2];
  nn_conv out;
} dpt_level;

typedef struct dpt_head {
  dpt_config config;
  dpt_level level[DPT_LEVELS]; /* 0: the finest */
  nn_conv output[3];
} dpt_head;

/* In a tables function, at the head's prefix (official: depth_head; transformers: none). output: the
 * last convolutions are part of it. */
void dpt_load(nn_loader *l, dpt_head *head, bool output);

/* Level i of tokens x [batch, extra + gh gw, d], the first of which is the class token: L_i. */
nn_map dpt_level_of(nn_pass *p, const dpt_head *head, int32_t i, const float *x, int64_t batch,
                    int64_t extra, nn_vit_grid grid);
/* Fuses the levels into paths[0..3], the finest first; the memory of all stays. */
void dpt_fuse(nn_pass *p, const dpt_head *head, const nn_map level[DPT_LEVELS],
              nn_map path[DPT_LEVELS]);
/* [batch, 1, size] of the finest path; act: of the last convolution. */
nn_map dpt_output(nn_pass *p, const dpt_head *head, const nn_map *path, const int32_t size[2],
                  int32_t act);
/* A map as official code has it, channels first. format: of this plugin, at most one %d. */
void dpt_tap(nn_pass *p, const nn_map *x, const char *format, int32_t number);

#endif
