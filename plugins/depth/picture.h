/* Pictures to pixel_values, and maps back to the pictures' sizes. */
#ifndef PLUGINS_DEPTH_PICTURE_H
#define PLUGINS_DEPTH_PICTURE_H

#include "nn/modules.h"
#include "nn/picture.h"

enum { DEPTH_PICTURE_MAX = 1 << 16 };

typedef struct depth_rules {
  int64_t height, width; /* what the resize aims at */
  int32_t rule;          /* enum nn_multiple_rule */
  int64_t multiple;
  bool bytes;     /* Pillow's resize of bytes with a filter; else floats, bicubic, as OpenCV */
  int32_t filter; /* enum viv_filter, with bytes */
  bool resize, rescale, normalize;
  double factor;
  float mean[3], std[3];
  bool back_cubic; /* maps go back by bicubic; else linear with align_corners */
} depth_rules;

/* Pictures that come out in one size. */
typedef struct depth_batch {
  int32_t n, height, width;
  float *pixels; /* [n, 3, height, width] */
} depth_batch;

/* The official release's rules towards a square of that side, in multiples. */
depth_rules depth_official_rules(int64_t side, int64_t multiple);
/* preprocessor_config.json over *how; a failure is left in k->status. */
void depth_read_rules(nn_config *k, const viv_model_source *source, depth_rules *how);
/* input_size, ensure_multiple_of, resize_method, image_mean and image_std of the request over how. */
depth_rules depth_request_rules(nn_pass *p, const depth_rules *how);

void depth_size_of(nn_pass *p, const depth_rules *how, const nn_pixels *from, int32_t size[2]);
/* pixels [3, size] of one picture. */
void depth_prepare(nn_pass *p, const depth_rules *how, const nn_pixels *from, const int32_t size[2],
                   float *pixels);
/* Bytes [size, 3] by Pillow's rules; the picture's own where the size is that already. filter: enum
 * viv_filter. */
const uint8_t *depth_bytes(nn_pass *p, int32_t filter, const nn_pixels *from,
                           const int32_t size[2]);
/* All pictures of that name at one size, values in [0, 1]: Pillow's Lanczos filter and a factor of
 * 1 / 255, or `resample` and `rescale_factor` of the request. tap: the bytes as `resized`. */
depth_batch depth_frames(nn_pass *p, const char *name, const int32_t size[2], bool tap);
nn_map depth_map_of(const depth_batch *b, int32_t channels);
/* 1 / farthest + (1 / nearest - 1 / farthest) disp. Official: disp_to_depth of Monodepth2. */
float *depth_scaled(nn_pass *p, const float *disp, int64_t n, double nearest, double farthest);
float *depth_inverse(nn_pass *p, const float *x, int64_t n); /* 1 / x */
/* depth [batch, 1, h, w] times the factor as depth.i at the size of picture i of that name, linear
 * between the centres of pixels as OpenCV. */
void depth_give(nn_pass *p, const char *name, const nn_map *depth, float factor);
/* map [size] as [height, width]. */
float *depth_restore(nn_pass *p, const depth_rules *how, const float *map, const int32_t size[2],
                     int32_t height, int32_t width);

#endif
