/* What the inner kernels of convolution and pooling are asked. Part of kernels.h. Internal.
 *
 * Weights are packed as [block of 16 outputs][tap][input channel][16], outputs filled up with zeros,
 * so that one form serves every instruction set and every way of computing. */
#ifndef VIV_HOST_CONV_KERNELS_H
#define VIV_HOST_CONV_KERNELS_H

#include <stdint.h>

enum {
  VIV__CONV_BLOCK = 16, /* outputs of a block of packed weights */
  VIV__CONV_ROWS = 6,   /* pixels of a tile */
  VIV__CONV_COLS = 64,  /* outputs of a tile */
  VIV__CONV_AHEAD = 4   /* rows that are fetched ahead */
};

/* A run of the sum: input channels of one tap, or of several taps that lie behind one another. */
typedef struct viv__conv_segment {
  int64_t weight; /* floats from the block's beginning */
  int64_t length;
  int64_t x;   /* floats from where the tap's pointer points */
  int64_t tap; /* row of the pointers */
} viv__conv_segment;

/* A tile of up to CONV_ROWS pixels and CONV_COLS outputs:
 *   out[r][o] = start + sum over segments, i: x[tap][r][segment.x + i] * w[o / 16][segment.weight +
 *   i][o % 16], then cut to [low, high]
 * start is out itself with add, else bias + residual, each 0 where NULL. */
typedef struct viv__conv_tile {
  int32_t rows, cols;
  int32_t add;
  float low, high;
  const float *w;
  int64_t w_block; /* floats between blocks */
  int64_t segments;
  const viv__conv_segment *segment;
  const float *const *x;        /* [taps][CONV_ROWS] */
  const float *bias;            /* [cols rounded up to 16] or NULL */
  const float *const *residual; /* [rows] or NULL */
  float *const *out;            /* [rows] */
  /* With one segment: x[0][r][offset[i]] instead of x[tap][r][segment.x + i]; or NULL. */
  const int32_t *offset;
  /* Groups of four inputs and outputs: segments are four long, and output o of the tile reads the four
   * inputs from segment.x + (first + o) / 4 * 4 on. */
  int32_t quads;
  int64_t first;
  /* What is wanted next: without offset, 4 bytes for each step of a segment's sum, of AHEAD rows that
   * lie ahead_stride bytes apart, are fetched into the second-level cache. NULL: none are. */
  const char *ahead;
  int64_t ahead_stride;
} viv__conv_tile;

/* One row of outputs of a depthwise convolution over channels-last data:
 *   out[j][c] = cut(bias[c] + residual[j][c] + sum over rows r, t: w[r][t][c] * x[r][index[t][j]][c])
 * A row that is NULL and an index below 0 are zeros. */
typedef struct viv__conv_depthwise {
  int64_t channels; /* between two pixels, and weights of a tap rounded up to 16 */
  int64_t width;    /* outputs */
  int64_t rows, taps;
  const float *const *x;    /* [rows] */
  const int64_t *w;         /* [rows] floats from `weights` to the row's first tap */
  const int64_t *tap;       /* [taps] floats from there to each tap */
  const int64_t *index;     /* [taps, width] */
  int64_t inner, inner_end; /* outputs whose taps all lie inside: index is j * stride + its first */
  int64_t stride, dilation; /* of those; both 0 where there is no such pattern */
  const float *weights, *bias, *residual; /* bias and residual may be NULL */
  float *out;
  int64_t out_step; /* floats between outputs, and residuals */
  float low, high;
} viv__conv_depthwise;

/* Pooling over three axes, the unused ones first. */
typedef struct viv__pool_pass {
  int32_t kind, count_pad;
  int64_t channels;
  int64_t size[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
  const float *x; /* [batch, size..., channels] */
  float *to;      /* [batch, out..., channels] */
} viv__pool_pass;

#endif
