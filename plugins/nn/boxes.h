/* Boxes and positions of detectors. Boxes are four floats, x0 y0 x1 y1 unless said otherwise. */
#ifndef PLUGINS_NN_BOXES_H
#define PLUGINS_NN_BOXES_H

#include "nn/nn.h"

/* ---- boxes.c ---- */

void nn_boxes_to_corners(const float *cxcywh, int64_t n, float *xyxy); /* in place too */
void nn_boxes_to_centres(const float *xyxy, int64_t n, float *cxcywh);
/* Of every a [n] with every b [m]: intersection over union, and the union (or NULL). */
void nn_box_iou(const float *a, int64_t n, const float *b, int64_t m, float *iou, float *unions);
/* IoU - (hull - union) / hull. */
void nn_box_giou(const float *a, int64_t n, const float *b, int64_t m, float *giou);
/* Non-maximum suppression: the kept indices by descending score (the lower index first among equals);
 * a box goes when its IoU with a kept one is above the threshold. Answers how many are kept. keep
 * and order have room for n. Official: torchvision.ops.nms; with classes (or NULL) batched_nms. */
int64_t nn_nms(const float *boxes, const float *scores, const int64_t *classes, int64_t n,
               float threshold, int32_t *order, int32_t *keep);

/* Sizes after a resize that keeps the aspect: the short side becomes `size` unless the long one would
 * exceed max_size (0: no limit). unrounded: the long side follows from the short one before its
 * rounding, as transformers' get_size_with_aspect_ratio; else as DETR's own. */
void nn_aspect_size(int64_t height, int64_t width, int64_t size, int64_t max_size, bool unrounded,
                    int64_t *out_height, int64_t *out_width);

/* Sizes after a resize towards height x width with both sides a multiple: by one scale, which reaches
 * both sides (LOWER), exceeds neither (UPPER) or is the one nearer to 1 (NEAREST), or by a scale for
 * each side (FREE). Halves round to even; never below one multiple. Official: Resize.get_size of MiDaS
 * and Depth Anything, transformers' DPTImageProcessor. */
enum nn_multiple_rule { NN_FREE = 0, NN_LOWER = 1, NN_UPPER = 2, NN_NEAREST = 3 };
void nn_multiple_size(int64_t height, int64_t width, int64_t to_height, int64_t to_width,
                      int32_t rule, int64_t multiple, int64_t *out_height, int64_t *out_width);

/* ---- positions.c ---- */

/* Sine embedding of a map's cells, out [2 n, height, width], y's half first. padding [height, width]:
 * 1 where there is nothing, or NULL. deformable: Deformable DETR's form, 0.5 off the cells' index.
 * Official: DetrSinePositionEmbedding; DINO's PositionEmbeddingSineHW. */
typedef struct nn_sine {
  int64_t height, width, n;
  double temperature_h, temperature_w;
  bool deformable;
} nn_sine;
void nn_sine_positions(const nn_sine *s, const uint8_t *padding, float *out);
/* RT-DETR's: out [height width, d], sine and cosine of the row, then of the column. */
void nn_sine_grid(int64_t height, int64_t width, int64_t d, double temperature, float *out);
/* Sine embedding of coordinates in [0, 1]: x [rows, coordinates], 2 or 4 of them (x, y, w, h) -> out
 * [rows, coordinates n], y's part before x's. Official: gen_sineembed_for_position. */
void nn_sine_coordinates(const float *x, int64_t rows, int64_t coordinates, int64_t n, float *out);
/* The T5-style bucket of key - query, as wav2vec-like encoders round it (in f32). */
int32_t nn_relative_bucket(int64_t relative, bool bidirectional, int32_t buckets,
                           int32_t max_distance);

#endif
