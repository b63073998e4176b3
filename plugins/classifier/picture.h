/* Pictures to the batch that a network of one picture size takes:
 *
 *   U8 [h, w, 3] -> Pillow's resize -> centre crop -> (x factor - mean) / std -> planes
 *     -> pixel_values [B, 3, H, W]
 *
 * Official: torchvision's Resize, CenterCrop, ToTensor, Normalize; transformers' ViTImageProcessor,
 * BitImageProcessor, BeitImageProcessor and ConvNextImageProcessor. */
#ifndef PLUGINS_CLASSIFIER_PICTURE_H
#define PLUGINS_CLASSIFIER_PICTURE_H

#include "nn/pass.h"

enum { CLASSIFIER_SIDE_MAX = 1 << 15 };

typedef struct classifier_rules {
  bool resize, crop, rescale, normalize;
  bool shortest;         /* height is the shorter side's length, the other keeps the aspect */
  int32_t height, width; /* to resize to */
  int32_t crop_height, crop_width;
  bool round_crop; /* torchvision's place of the crop: half to even; else rounded down */
  int32_t filter;  /* enum viv_filter */
  double factor;
  float mean[3], std[3];
} classifier_rules;

/* A square of that side, bilinear, ImageNet's mean and deviation, no crop. */
classifier_rules classifier_square(int32_t side);
/* What config.json's `preprocess` (resize_size, crop_size, mean, std, interpolation) and
 * preprocessor_config.json say; a failure is left in k->status. */
void classifier_read_rules(nn_config *k, const viv_model_source *source, classifier_rules *how);

typedef struct classifier_pictures {
  int32_t n, height, width;
  const float *pixels; /* [n, 3, height, width] */
} classifier_pictures;

/* All inputs named `image`; leaves the task when there is none, or when they come out in different
 * sizes. emit: hands over resized.i (resized for a single picture) and pixel_values. */
classifier_pictures classifier_prepare(nn_pass *p, const classifier_rules *how, bool emit);
/* The input pixel_values, or the pictures when it is absent (tap pixel_values). */
classifier_pictures classifier_read_pictures(nn_pass *p, const classifier_rules *how);

/* Where what the network sees of picture b lies: in the picture resized to size (height, width) it
 * begins at row at[0] and column at[1]. */
void classifier_place(nn_pass *p, const classifier_rules *how, const classifier_pictures *in,
                      int32_t b, int32_t size[2], int32_t at[2]);

#endif
