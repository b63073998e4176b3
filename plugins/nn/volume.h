/* Volumes of medical pictures: intensities, windows that slide over a volume, patches that merge. Plain
 * functions over arrays; any thread. */
#ifndef PLUGINS_NN_VOLUME_H
#define PLUGINS_NN_VOLUME_H

#include "nn/nn.h"

/* x = (x - a_min) / (a_max - a_min) (b_max - b_min) + b_min, clipped to [b_min, b_max] if so wanted.
 * Official: monai.transforms.ScaleIntensityRange. */
void nn_scale_range(float *x, int64_t n, double a_min, double a_max, double b_min, double b_max,
                    bool clip);
/* x = (x - mean) / deviation, both over the values that are not 0, which stay 0 (nonzero), or over all.
 * The deviation is the population's; where it is 0 only the mean is subtracted. Official:
 * monai.transforms.NormalizeIntensity. */
void nn_normalize_intensity(float *x, int64_t n, bool nonzero);

/* Where windows of `roi` begin along an axis of `size` >= roi, with that share of overlap: start [ceil
 * (size / interval)] ascending; answers how many. NULL only counts. Official:
 * monai.data.utils.dense_patch_slices. */
int64_t nn_window_starts(int64_t size, int64_t roi, double overlap, int64_t *start);
/* Weights of a window's voxels, w [roi]: exp(-t^2 / (2 s^2)) along each axis, t from the middle and s =
 * sigma roi; at least 0.001 and at least the smallest. */
void nn_window_gaussian(const int32_t roi[3], const double sigma[3], float *w);

/* Patch merging of three-dimensional Swin transformers: the eight neighbours of each 2 x 2 x 2 side by
 * side, x [size, d] -> y [(size + 1) / 2, 8 d]; beyond an odd axis stand zeros. The orders differ by
 * release of MONAI: V0.9 takes two neighbours twice and two never. */
enum nn_merge_order { NN_MERGE_V0_9 = 0, NN_MERGE_V1_6 = 1, NN_MERGE_V2 = 2 };
void nn_merge_patches(const float *x, const int32_t size[3], int64_t d, int32_t order, float *y);

#endif
