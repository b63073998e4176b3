/* ResNet and its relatives as a backbone: four stages of residual blocks, batch norms folded in.
 *
 *   x [B, 3, H, W] -> stem (stride 4 with its pool) -> stage 1 -> 2 -> 3 -> 4 (strides 4 to 32)
 *   bottleneck:  y = relu(c3(relu(c2(relu(c1 x)))) + shortcut x), the stride on the 3x3 (v1.5)
 *   basic:       y = relu(c2(relu(c1 x)) + shortcut x), the stride on the first
 *
 * Official: torchvision.models.resnet; transformers' ResNetModel and RTDetrResNetBackbone. */
#ifndef PLUGINS_NN_RESNET_H
#define PLUGINS_NN_RESNET_H

#include "nn/modules.h"

enum { NN_RESNET_BLOCKS = 128 };

enum nn_resnet_names {
  NN_RESNET_TORCHVISION = 0,  /* conv1, bn1, layer1.0.conv1, layer1.0.downsample.0 */
  NN_RESNET_TRANSFORMERS = 1, /* embedder.embedder.convolution, encoder.stages.0.layers.0.layer.0,
                                 layers.0.shortcut */
  NN_RESNET_RT_DETR = 2,      /* the same with a deep stem, and pools in the shortcuts */
  NN_RESNET_SEQUENTIAL =
      3,                 /* torchvision's cut into sequences: layer0.0, layer0.1, layer1.1.0.conv1
                                 (after the pool), layer2.0.conv1 */
  NN_RESNET_NUMBERED = 4 /* torchvision's as one sequence: 0, 1, 4.0.conv1 */
};

typedef struct nn_resnet_spec {
  int32_t names;             /* enum nn_resnet_names */
  int32_t in_channels;       /* 0: 3 */
  int32_t stem;              /* channels; deep: half of them, half, all */
  bool deep_stem;            /* three 3x3 convolutions instead of one 7x7 */
  bool basic;                /* blocks of two 3x3 */
  bool pool_shortcut;        /* ResNet-D: a shortcut averages 2x2 first instead of striding */
  bool stride_first;         /* bottleneck: the stride on the first 1x1 */
  int32_t groups;            /* of the 3x3 of a bottleneck; 0: 1 */
  int32_t layers[4];         /* blocks of each stage */
  int32_t inner[4];          /* channels inside a bottleneck; unused by basic blocks */
  int32_t out[4];            /* channels of each stage's map */
  bool gated;                /* conv1.gate of each block (and conv2.gate of a bottleneck) */
  bool no_stem;              /* x is what a stem of the caller's own gave, `stem` channels */
  int32_t strides[4];        /* of each stage; 0: 1 for the first, 2 for the others */
  int32_t dilations[4];      /* of each stage's 3x3; 0: 1 */
  int32_t first_dilation[4]; /* of each stage's first block; 0: as the others */
  int32_t multi_grid[3];     /* factors of both for the last stage's blocks; 0: 1 */
  float eps;                 /* of the norms; 0: 1e-5 */
  const char *taps; /* what stands before the taps maxpool, layer1.0, layer1, ... (channels first);
                       NULL: no taps */
} nn_resnet_spec;

typedef struct nn_resnet_block {
  nn_conv conv[3];
  nn_conv shortcut;  /* w NULL: x itself */
  nn_linear gate[2]; /* of conv[0] and a bottleneck's conv[1]; w NULL: none */
  bool pool;
} nn_resnet_block;

typedef struct nn_resnet {
  nn_resnet_spec spec;
  nn_conv stem[3];
  nn_resnet_block block[NN_RESNET_BLOCKS]; /* stage after stage */
} nn_resnet;

/* "resnet50" and the like: blocks, kind, 64 channels and their multiples. False: no such name. */
bool nn_resnet_named(viv_str name, nn_resnet_spec *spec);
/* The keys of transformers' ResNetConfig (embedding_size, hidden_sizes, depths, layer_type, ...); a
 * failure is left in k->status. */
void nn_resnet_read(nn_config *k, nn_resnet_spec *spec);
/* For every walk of the tables; spec is checked by the caller (blocks <= NN_RESNET_BLOCKS). */
void nn_load_resnet(nn_loader *l, const nn_resnet_spec *spec, nn_resnet *net);
/* maps[0]: after the stem's pool, maps[s]: after stage s, channels last. Filled are those with bit
 * s of `wanted`; stages beyond the last wanted one are not computed. */
void nn_apply_resnet(nn_pass *p, const nn_resnet *net, const nn_map *x, uint32_t wanted,
                     nn_map maps[5]);

/* The same step by step, for networks that do something between the stages (0 to 3): the map after the
 * stem's pool, and each stage's; channels last, room of the pass. */
nn_map nn_resnet_stem(nn_pass *p, const nn_resnet *net, const nn_map *x);
nn_map nn_resnet_stage(nn_pass *p, const nn_resnet *net, int32_t stage, const nn_map *x);

/* Channels that a picture can do without (Fire Together Wire Together, dynamic pruning): an output of
 * a gated convolution stays where sigmoid(gate(largest of each input)) >= threshold and is 0 after its
 * ReLU else. The kernels compute all of them: what is left out is counted, not skipped.
 * Results mask.layer1.0.conv1 U8 [B, channels], taps layer1.0.conv1.gate [B, channels]. */
typedef struct nn_gates {
  float threshold;
  bool open;     /* every channel stays */
  int64_t *macs; /* [B] multiply-adds of the convolutions that remain; added to */
} nn_gates;
void nn_apply_gated_resnet(nn_pass *p, const nn_resnet *net, const nn_map *x, uint32_t wanted,
                           nn_map maps[5], const nn_gates *gates);

#endif
