/* What the files of convolution share: the prepared weights and the plan of a pass. Internal. */
#ifndef VIV_HOST_COMPUTE_CONV_H
#define VIV_HOST_COMPUTE_CONV_H

#include "compute/internal.h"

struct viv_conv_weight {
  int32_t dims;
  bool transposed;
  bool depthwise; /* one input and one output in a group */
  bool winograd;  /* packed holds transformed weights */
  int64_t groups, in, out, in_group, out_group;
  bool quads;     /* groups of four inputs and outputs; counted as one group */
  int64_t joined; /* of the description's groups that make one here, with zeros between them */
  int64_t kernel[3], stride[3], dilation[3]; /* unused axes stand first here and are 1 */
  int64_t taps;                              /* the product of kernel */
  int64_t blocks;                            /* of 16 outputs, in a group */
  /* [groups, blocks, taps, in_group, 16], outputs filled up with zeros; depthwise [taps, channels
   * rounded up to 16]; winograd [16 points, blocks, in, 16]; quads [blocks, taps, 4, 16] */
  const float *packed;
  const float *bias; /* [groups, blocks * 16], depthwise [channels rounded up], or NULL */
};

/* One axis of one pass over outputs begin, begin + step, ...: a convolution has one such pass, a
 * transposed one as many as its stride, each with the taps that meet an input there. */
typedef struct viv__conv_axis {
  int64_t taps, count, begin, step;
  int64_t *tap;   /* [taps] indices into the kernel */
  int64_t *index; /* [taps, count] of the input, -1: a zero; NULL where nobody asks */
} viv__conv_axis;

typedef struct viv__conv_plan {
  const viv_compute *c;
  const viv__kernels *kernels;
  const viv_conv *a;
  const viv_conv_weight *w;
  int64_t size[3], out[3], pad[3]; /* before the first; unused axes stand first */
  int64_t in_space, out_space;     /* elements of a channel */
  int64_t batch;
  bool x_last, out_last; /* layouts; true where both are the same */
  float low, high;       /* what of the activation is a cut */
  int32_t act;           /* what remains to be applied, or 0 */
  float *scratch;        /* what is left of it; NULL while it is measured */
} viv__conv_plan;

void viv__conv_plan_make(const viv_compute *c, const viv_conv *a, viv__conv_plan *p);
/* Taken from the scratch at a cache line; NULL while it is measured. bytes are counted either way. */
void *viv__conv_take(viv__conv_plan *p, uint64_t *floats, int64_t bytes);
/* Where index i of an axis lies in x for the padding; -1: a zero. */
int64_t viv__conv_index(const viv__conv_plan *p, int axis, int64_t i);
/* The tables of an axis for one phase of a transposed convolution (0 otherwise). */
void viv__conv_axis_fill(const viv__conv_plan *p, int axis, int64_t phase, viv__conv_axis *s);
/* Applies what the plan leaves of the activation to n elements. */
void viv__conv_act(const viv__conv_plan *p, float *x, int64_t n);

/* Each way of computing: measures its scratch (run false) or computes. The floats that it needs. */
uint64_t viv__conv_direct(viv__conv_plan *p, bool run);
uint64_t viv__conv_depthwise_pass(viv__conv_plan *p, bool run);
uint64_t viv__conv_winograd(viv__conv_plan *p, bool run);
bool viv__conv_winograd_fits(const viv_conv_weight *w);
/* The 16 transformed weights of one 3x3 kernel. */
void viv__conv_winograd_weights(const float *g, float scale, float *u);
/* x, turned into channels-last order where it is not; taken from the scratch. */
float *viv__conv_take_turned(viv__conv_plan *p, uint64_t *floats);
void viv__conv_turn_in(const viv__conv_plan *p, float *to);
/* sums [batch, space, out], channels last -> the channels-first result with residual and act. */
void viv__conv_turn_out(const viv__conv_plan *p, const float *sums);
/* The same for at most 256 pixels and 64 channels; at is where the first stands in out. */
void viv__conv_turn_tile(const viv__conv_plan *p, const float *sums, int64_t stride, int64_t pixels,
                         int64_t channels, int64_t at);

void viv__table_conv_prepare(viv_compute *t);
void viv__table_gemm(viv_compute *t);
void viv__table_pool(viv_compute *t);

#endif
