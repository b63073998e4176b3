/* Pictures to tensors as transformers' image processors do it for classifiers and encoders: resize to
 * a size or a shortest edge (Pillow's filters), crop the middle, rescale, normalise. */
#ifndef PLUGINS_NN_PICTURE_H
#define PLUGINS_NN_PICTURE_H

#include "nn/pass.h"

/* A picture as it came. */
typedef struct nn_pixels {
  const uint8_t *x; /* [height, width, 3] */
  int32_t height, width;
} nn_pixels;

/* The request's picture number `at` of that name. What is no picture, or has a side above `most`, ends the pass. */
nn_pixels nn_picture_at(nn_pass *p, const char *name, int32_t at, int64_t most);
/* enum viv_filter of Pillow's number (0 to 5), which is what "resample" means in official files. */
int32_t nn_pillow_filter(int64_t number);

typedef struct nn_picture {
  bool resize, crop, rescale, normalize;
  int32_t height, width; /* to resize to; 0: the shortest edge rules */
  int32_t shortest;
  int32_t crop_height, crop_width;
  int32_t
      resample; /* Pillow's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming */
  double factor; /* of rescale */
  float mean[3], std[3];
} nn_picture;

/* preprocessor_config.json over what `how` holds already; nothing changes when there is none. A
 * failure is left in k->status. */
void nn_read_picture(nn_config *k, const viv_model_source *source, nn_picture *how);
/* The request's pictures of that name (usually `image`) as one batch [n, 3, height, width]; all must come out in one
 * size. *n 0: the request brings none. */
float *nn_take_pictures(nn_pass *p, const nn_picture *how, const char *name, int64_t *n,
                        int64_t *height, int64_t *width);

#endif
