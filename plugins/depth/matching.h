/* Matching of a frame with others over hypotheses of depth, and its moderation by a monocular guess.
 *
 *   cost[d] of a pixel x: X = b_d K^-1 [x, 1]; p = K T X for a lookup frame of motion T;
 *     mean over channels of |lookup(p) - current(x)|, where p and x keep 2 pixels off the borders;
 *     averaged over the lookups where it is above 0; where none is, the largest of the pixel
 *   moderation (ProDepth), per pixel: p = softmax(-cost), g = Gaussian of the monocular depth and its
 *     uncertainty at the bins, w = exp(-2/3 |z_cv - z_mono|) exp(-2/3 |d_cv - d_mono|);
 *     refined = w > 0.4 ? p : p^w g^(1-w); back to the range that the costs had
 *
 * Watson et al., The Temporal Opportunist (ManyDepth), arXiv:2104.14540; Woo et al., ProDepth,
 * arXiv:2407.09303; official: ResnetEncoderMatching of networks/resnet_encoder.py. */
#ifndef PLUGINS_DEPTH_MATCHING_H
#define PLUGINS_DEPTH_MATCHING_H

#include "nn/modules.h"

enum { MATCHING_BINS = 1024, MATCHING_LOOKUPS = 8 };

typedef struct matching_input {
  int32_t bins, lookups;
  const float *bin;                      /* [bins] depths */
  const nn_map *current;                 /* channels last */
  const nn_map *lookup;                  /* [lookups] */
  const float *motion[MATCHING_LOOKUPS]; /* [B, 4, 4] from the frame to the lookup */
  const double *k, *inverse;             /* [4, 4] in pixels of the maps */
} matching_input;

/* raw: averaged costs, 0 where nothing was seen; cost: those filled up. Maps of `bins` channels. */
void matching_cost(nn_pass *p, const matching_input *in, nn_map *raw, nn_map *cost);

/* Maps of one channel: scaled disparity, which is 1 / depth, and uncertainty; at the costs' size. */
typedef struct matching_guess {
  nn_map mono, sigma, matched;
} matching_guess;
/* The costs, moderated; gauss [bins], weight [1] and still (U8, 1: static) of each pixel are filled. */
nn_map matching_moderate(nn_pass *p, const nn_map *cost, const float *bin,
                         const matching_guess *guess, nn_map *gauss, nn_map *weight,
                         uint8_t *still);

#endif
