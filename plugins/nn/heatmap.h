/* Top-down keypoints: the crop around a person's box, and keypoints from heat maps by the
 * distribution-aware refinement in unbiased coordinates. Official: ViTPose and its processor in
 * transformers (VitPoseImageProcessor); Zhang et al., arXiv:1910.06278; Huang et al.,
 * arXiv:1911.07524. */
#ifndef PLUGINS_NN_HEATMAP_H
#define PLUGINS_NN_HEATMAP_H

#include "nn/nn.h"

/* The part of a picture that is cut out for a box (x, y, w, h): the box made as wide, relative to
 * its height, as width / height, and a quarter larger. */
typedef struct nn_crop {
  float centre[2]; /* x, y */
  float scale[2];  /* width, height in units of 200 pixels */
} nn_crop;
nn_crop nn_crop_of(const float box[4], int64_t width, int64_t height);
/* Picture to crop of width x height, [2, 3] row by row: the corners' pixel centres meet. */
void nn_crop_matrix(const nn_crop *crop, int64_t width, int64_t height, float matrix[6]);
/* The crop itself, [out_height, out_width, 3], bilinear, half rounded up; what lies outside the
 * picture [height, width, 3] is 0 and not blended into the border. */
void nn_crop_pixels(const uint8_t *picture, int64_t height, int64_t width, const float matrix[6],
                    int64_t out_height, int64_t out_width, uint8_t *out);

/* One heat map [height, width] to its keypoint, in cells: peak is the largest cell (x, y), refined the
 * Newton step from there on the logarithm of the map blurred by a Gaussian (sigma 0.8, `kernel` taps).
 * Answers the peak's value; when that is not above 0 there is no keypoint and both are -1. room has
 * 2 * height * width doubles. */
float nn_heatmap_keypoint(const float *map, int64_t height, int64_t width, int32_t kernel,
                          double *room, int32_t peak[2], double refined[2]);
/* From cells of a map of height x width to pixels of the picture that the crop is of. */
void nn_heatmap_to_picture(const nn_crop *crop, int64_t height, int64_t width,
                           const double refined[2], float out[2]);

#endif
