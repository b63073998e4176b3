/* The inner kernels of the operations on maps, sequences and signals: one set for each instruction
 * set, like kernels.h. All sets are made from the same plain C (kernels_maps.h and its neighbours),
 * which the compiler turns into each set's instructions; only the gates of recurrent networks use
 * the functions of kernels_math.h. Internal. */
#ifndef VIV_HOST_COMPUTE_OPS_H
#define VIV_HOST_COMPUTE_OPS_H

#include "compute/kernels.h"

/* Axes after merging: y's axis i has size[i] elements that lie x_stride[i] apart in x. */
typedef struct viv__permute {
  const float *x;
  float *y;
  int32_t ndim; /* 1 or more */
  int64_t size[VIV_MAX_DIMS], x_stride[VIV_MAX_DIMS], y_stride[VIV_MAX_DIMS];
  int32_t fast; /* y's axis that is dense in x */
} viv__permute;

typedef struct viv__group_norm {
  const float *x, *w, *b;
  float *y;
  float eps;
  int32_t groups, layout;
  int64_t channels, space;
} viv__group_norm;

typedef struct viv__snake {
  const float *x, *alpha;
  float *y;
  int64_t channels, n;
} viv__snake;

/* One pass of resize_u8: taps[o] sources from first[o] on, with weights at o * stride. */
typedef struct viv__taps {
  int32_t *first, *count;
  int32_t stride;
  int32_t shift;  /* fixed point: a sum >> shift is a pixel */
  int32_t *fixed; /* or */
  float *real;
} viv__taps;

/* Complex values of VIV__FFT_LANES transforms side by side. */
enum { VIV__FFT_LANES = 16 };

typedef struct viv__ops {
  /* Rows [begin, end) of the output; a row is one index of all axes but the last. */
  void (*resize)(const viv_resize *a, int64_t begin, int64_t end);
  /* One row of pixels along its axis of pixels: from [width, channels] to [out_width, channels]. */
  void (*u8_across)(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                    uint8_t *y);
  /* One output row from the source rows x + k * stride, n bytes each. */
  void (*u8_down)(const viv__taps *t, int32_t o, const uint8_t *x, int64_t stride, int64_t n,
                  uint8_t *y);
  void (*real_across)(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                      float *y);
  /* Rounds half to even. */
  void (*real_down)(const viv__taps *t, int32_t o, const float *x, int64_t stride, int64_t n,
                    uint8_t *y);
  /* Two taps each, as OpenCV's fixed point has them: 11 bits, then 22 of which 20 are kept. */
  void (*cv_across)(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                    int32_t *y);
  void (*cv_down)(const viv__taps *t, int32_t o, const int32_t *a, const int32_t *b, int64_t n,
                  uint8_t *y);
  /* Rows [begin, end) of batch * out_height. */
  void (*grid_sample)(const viv_grid_sample *a, int64_t begin, int64_t end);
  /* Items [begin, end) of batch * queries * heads. */
  void (*deform)(const viv_deform *a, int64_t begin, int64_t end);
  /* Items [begin, end) of boxes * out_height * out_width. */
  void (*roi_align)(const viv_roi_align *a, int64_t begin, int64_t end);
  /* Slices [begin, end): all axes of y but the last and `fast`. */
  void (*permute)(const viv__permute *p, int64_t begin, int64_t end);
  /* Groups [begin, end) of batch * groups. */
  void (*group_norm)(const viv__group_norm *a, int64_t begin, int64_t end);
  /* Rows [begin, end) of batch * channels. */
  void (*snake)(const viv__snake *a, int64_t begin, int64_t end);
  void (*top_k)(const float *x, int64_t n, int64_t k, float *values, int32_t *indices);
  /* One row's step from the gates' sums: in [4n] + rec [4n] -> h [n], c [n]. */
  void (*lstm)(const float *in, const float *rec, int64_t n, float *h, float *c);
  /* in [3n], rec [3n], each with its bias. */
  void (*gru)(const float *in, const float *rec, int64_t n, float *h);
  /* The transforms sum_j x[j] e^(-2 pi i j k / n) of x [n][2][VIV__FFT_LANES], real parts first; the
   * result lies in x or y, which are both overwritten. turn [n, 2]: e^(-2 pi i k / n). The inverse,
   * times n, is the same with real and imaginary parts exchanged on both sides. */
  float *(*fft)(int64_t n, const float *turn, float *x, float *y);
  /* VIV__FFT_LANES real frames of n samples, stride apart, times the window (or NULL), become the
   * real (0) or imaginary (1) part of x. */
  void (*frames_in)(const float *frames, int64_t stride, int64_t n, const float *window,
                    int32_t part, float *x);
  /* From the transform z of frames 0, 2, .. as real and 1, 3, .. as imaginary parts: the half
   * spectrum of each, interleaved, stride floats apart. */
  void (*spectra_out)(const float *z, int64_t n, float *out, int64_t stride);
  /* y [VIV__FFT_LANES, n] = a part of x times scale. */
  void (*frames_out)(const float *x, int64_t n, int32_t part, float scale, float *y);
} viv__ops;

#endif
