/* MoveNet single pose: the network and its weights; forward.c is the model. */
#ifndef PLUGINS_MOVENET_H
#define PLUGINS_MOVENET_H

#include "nn/tensorflow.h"

enum { MOVENET_BLOCKS = 17, MOVENET_LEVELS = 3, MOVENET_KEYPOINTS = 17 };

struct movenet_block {
  nn_same_conv expand; /* w NULL: the first block has none */
  nn_same_conv depthwise, project;
};

struct movenet_level {
  nn_same_conv lateral;              /* 1x1 on the backbone's map of that size */
  nn_same_conv depthwise, pointwise; /* after the sum */
};

struct movenet_head {
  nn_same_conv depthwise, hidden, out;
};

struct movenet_model {
  nn_net net;
  int32_t size, cells;                 /* sides of the input and of the heads' maps */
  const float *offset, *scale, *shift; /* [3], [3], [1]: (pixel - offset) scale - shift */
  nn_same_conv stem, last, top;
  struct movenet_block block[MOVENET_BLOCKS];
  struct movenet_level level[MOVENET_LEVELS]; /* coarse to fine */
  struct movenet_head centre, heatmap, regress, offsets;
  const float *centre_weight; /* [cells, cells]: favours persons in the middle */
  const float *row, *column;  /* [cells, cells]: each cell's own */
  const float *away;          /* [1]: added to a distance before it divides a score */
  const float *unit;          /* [2]: a cell's height and width, of the input */
  char about[160];
};

/* forward.c */
extern const nn_task movenet_tasks[];

#endif
