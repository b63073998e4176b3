/* Depthwise convolution over channels-last data: a vector of channels at a time, rows of outputs
 * shared out over the pool. Channels-first data are turned on their way in and out. */
#include "compute/conv.h"

#include <math.h>
#include <string.h>

struct depthwise {
  const viv__conv_plan *p;
  const float *x; /* channels last */
  float *to;      /* channels last: out, or sums that are turned afterwards */
  viv__conv_axis axis[3];
  int64_t *tap;          /* [taps of the last axis], floats */
  int64_t up;            /* channels rounded up: floats of a tap's weights */
  int64_t chunk, chunks; /* channels of a task */
  int64_t rows;          /* of outputs of an image */
  const float **pointer; /* [rows, row taps] of x; NULL: zeros */
  int64_t *weight;       /* [row taps] */
};

enum { CHANNELS = 64 };

/* A task is one row of outputs of an image, for one chunk of channels. Rows follow one another, so
 * that they find what they share in the cache. */
static void rows_range(void *ctx, int64_t begin, int64_t end) {
  const struct depthwise *s = ctx;
  const viv__conv_plan *p = s->p;
  const viv_conv_weight *w = p->w;
  const viv__conv_axis *a = s->axis;
  bool final = s->to == p->a->out;
  viv__conv_depthwise d = {.channels = w->in,
                           .width = a[2].count,
                           .rows = a[0].taps * a[1].taps,
                           .taps = a[2].taps,
                           .w = s->weight,
                           .tap = s->tap,
                           .index = a[2].index,
                           .weights = w->packed,
                           .bias = w->bias,
                           .out_step = a[2].step * w->out,
                           .low = final ? p->low : -INFINITY,
                           .high = final ? p->high : INFINITY};
  if (!w->transposed) {
    int64_t span = (w->kernel[2] - 1) * w->dilation[2], last = p->size[2] - 1 + p->pad[2] - span;
    d.stride = w->stride[2];
    d.dilation = w->dilation[2];
    d.inner = viv__min(d.width, viv__max(0, (p->pad[2] + d.stride - 1) / d.stride));
    d.inner_end = last < 0 ? 0 : viv__min(d.width, last / d.stride + 1);
  }
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i % s->rows, chunk = i / s->rows % s->chunks, image = i / s->rows / s->chunks;
    int64_t j0 = row / a[1].count, j1 = row % a[1].count;
    int64_t at = (a[0].begin + j0 * a[0].step) * p->out[1] + a[1].begin + j1 * a[1].step;
    at = (image * p->out_space + at * p->out[2] + a[2].begin) * w->out;
    d.x = s->pointer + (image * s->rows + row) * d.rows;
    d.out = s->to + at;
    d.residual = final && p->a->residual ? p->a->residual + at : NULL;
    int64_t first = chunk * s->chunk, stop = viv__min(w->out, first + s->chunk);
    p->kernels->conv_depthwise(&d, first, stop);
    for (int64_t j = 0; final && p->act && j < d.width; j++)
      viv__conv_act(p, d.out + j * d.out_step + first, stop - first);
  }
}

static void point_rows(struct depthwise *s) {
  const viv__conv_plan *p = s->p;
  const viv__conv_axis *a = s->axis;
  const float **to = s->pointer;
  for (int64_t image = 0; image < p->batch; image++)
    for (int64_t j0 = 0; j0 < a[0].count; j0++)
      for (int64_t j1 = 0; j1 < a[1].count; j1++)
        for (int64_t t0 = 0; t0 < a[0].taps; t0++)
          for (int64_t t1 = 0; t1 < a[1].taps; t1++) {
            int64_t i0 = a[0].index[t0 * a[0].count + j0], i1 = a[1].index[t1 * a[1].count + j1];
            int64_t at = (image * p->size[0] + i0) * p->size[1] + i1;
            *to++ = i0 < 0 || i1 < 0 ? NULL : s->x + at * p->size[2] * p->w->in;
          }
  int64_t *weight = s->weight;
  for (int64_t t0 = 0; t0 < a[0].taps; t0++)
    for (int64_t t1 = 0; t1 < a[1].taps; t1++)
      *weight++ = (a[0].tap[t0] * p->w->kernel[1] + a[1].tap[t1]) * p->w->kernel[2] * s->up;
  for (int64_t t2 = 0; t2 < a[2].taps; t2++) s->tap[t2] = a[2].tap[t2] * s->up;
}

uint64_t viv__conv_depthwise_pass(viv__conv_plan *p, bool run) {
  const viv_conv_weight *w = p->w;
  struct depthwise s = {.p = p};
  uint64_t floats = 0;
  for (int i = 0; i < 3; i++) {
    s.axis[i].tap = viv__conv_take(p, &floats, w->kernel[i] * 8);
    s.axis[i].index = viv__conv_take(p, &floats, w->kernel[i] * p->out[i] * 8);
  }
  s.tap = viv__conv_take(p, &floats, w->kernel[2] * 8);
  s.weight = viv__conv_take(p, &floats, w->kernel[0] * w->kernel[1] * 8);
  s.pointer = viv__conv_take(p, &floats,
                             p->batch * p->out[0] * p->out[1] * w->kernel[0] * w->kernel[1] * 8);
  float *turned = viv__conv_take_turned(p, &floats), *sums = NULL;
  if (!p->out_last) sums = viv__conv_take(p, &floats, p->batch * p->out_space * w->out * 4);
  if (!run) return floats;

  viv__conv_turn_in(p, turned);
  s.x = p->x_last ? p->a->x : turned;
  s.to = p->out_last ? p->a->out : sums;
  s.up = (w->out + VIV__CONV_BLOCK - 1) / VIV__CONV_BLOCK * VIV__CONV_BLOCK;
  s.chunk = CHANNELS;
  s.chunks = (w->out + s.chunk - 1) / s.chunk;
  int64_t phases[3] = {1, 1, 1}, phase[3];
  for (int i = 0; i < 3 && w->transposed; i++) phases[i] = w->stride[i];
  for (phase[0] = 0; phase[0] < phases[0]; phase[0]++)
    for (phase[1] = 0; phase[1] < phases[1]; phase[1]++)
      for (phase[2] = 0; phase[2] < phases[2]; phase[2]++) {
        int64_t work = CHANNELS;
        for (int i = 0; i < 3; i++) {
          viv__conv_axis_fill(p, i, phase[i], &s.axis[i]);
          work *= viv__max(1, s.axis[i].taps);
        }
        s.rows = s.axis[0].count * s.axis[1].count;
        if (s.rows < 1 || s.axis[2].count < 1) continue;
        point_rows(&s);
        int64_t grain = viv__max(viv__min(4, s.rows), viv__grain(work * s.axis[2].count / 8));
        viv__parallel(p->c, p->batch * s.chunks * s.rows, grain, rows_range, &s);
      }
  if (!p->out_last) viv__conv_turn_out(p, sums);
  return floats;
}
