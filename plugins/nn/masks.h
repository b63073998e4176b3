/* Masks of instances: boxes, run lengths, stability, small regions, and the crops and point grids by
 * which a whole picture is searched. Official: segment_anything.utils.amg. */
#ifndef PLUGINS_NN_MASKS_H
#define PLUGINS_NN_MASKS_H

#include "nn/nn.h"

/* First and last column and row that are set, x0 y0 x1 y1, inclusive; zeros for an empty mask. */
void nn_mask_box(const uint8_t *mask, int64_t h, int64_t w, int64_t box[4]);
/* How many of n logits exceed threshold + offset, divided by how many exceed threshold - offset; NaN
 * when none do. */
float nn_mask_stability(const float *logits, int64_t n, float threshold, float offset);
/* Runs of a mask [h, w] that lies at (left, top) of a picture [height, width]: down the columns,
 * beginning with zeros. counts NULL: only how many there are. */
int64_t nn_mask_runs(const uint8_t *mask, int64_t h, int64_t w, int64_t left, int64_t top,
                     int64_t height, int64_t width, int64_t *counts);
/* The mask [height, width] of those runs, and the number of its pixels. */
void nn_mask_from_runs(const int64_t *counts, int64_t n, int64_t height, int64_t width,
                       uint8_t *mask);
int64_t nn_mask_runs_area(const int64_t *counts, int64_t n);
/* Flips the 8-connected holes (or islands) that are smaller than area; of islands that are all small
 * the largest stays. scratch [2 h w]. False: nothing was small. */
bool nn_mask_small_regions(uint8_t *mask, int64_t h, int64_t w, double area, bool holes,
                           int32_t *scratch);

/* A side of the box within atol pixels of the crop's, but not of the picture's. */
bool nn_box_near_edge(const float box[4], const float crop[4], const float picture[4], double atol);
/* How many crops nn_crop_boxes makes. */
int64_t nn_crop_count(int64_t layers);
/* The picture, then 2^(i+1) x 2^(i+1) overlapping crops for each layer i, x0 y0 x1 y1, columns outer;
 * layer [n]: 0 is the picture. */
void nn_crop_boxes(int64_t height, int64_t width, int64_t layers, double overlap,
                   int64_t (*boxes)[4], int64_t *layer);
/* n x n points in (0, 1), row by row: xy [n n, 2]. */
void nn_point_grid(int64_t n, double *xy);

#endif
