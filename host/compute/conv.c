/* Convolution over one to three axes: which way is taken, and what all ways share. */
#include "compute/conv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 }; /* bytes of a cache line */

/* n counts the caller's axes, i the plan's. */
static int64_t out_size(const viv_conv *a, const viv_conv_weight *w, int n, int i) {
  int64_t size = a->size[n], pads = (int64_t)a->pad_begin[n] + a->pad_end[n];
  int64_t span = w->dilation[i] * (w->kernel[i] - 1) + 1;
  if (w->transposed) {
    int64_t out = (size - 1) * w->stride[i] - pads + span + a->output_pad[n];
    return size < 1 ? 0 : viv__max(0, out);
  }
  return size + pads < span ? 0 : (size + pads - span) / w->stride[i] + 1;
}

void viv__conv_plan_make(const viv_compute *c, const viv_conv *a, viv__conv_plan *p) {
  const viv_conv_weight *w = a->weight;
  *p = (viv__conv_plan){.c = c,
                        .kernels = viv__compute_of(c)->kernels,
                        .a = a,
                        .w = w,
                        .in_space = 1,
                        .out_space = 1,
                        .batch = a->batch,
                        .low = -INFINITY,
                        .high = INFINITY,
                        .act = a->act};
  for (int i = 0; i < 3; i++) {
    int n = i - (3 - w->dims);
    p->size[i] = n < 0 ? 1 : a->size[n];
    p->out[i] = n < 0 ? 1 : out_size(a, w, n, i);
    p->pad[i] = n < 0 ? 0 : a->pad_begin[n];
    p->in_space *= p->size[i];
    p->out_space *= p->out[i];
  }
  p->x_last = a->x_layout == VIV_CHANNELS_LAST || w->in == 1 || p->in_space == 1;
  p->out_last = a->out_layout == VIV_CHANNELS_LAST || w->out == 1 || p->out_space == 1;
  if (p->act == VIV_RELU || p->act == VIV_RELU6) {
    p->low = 0.0f;
    if (p->act == VIV_RELU6) p->high = 6.0f;
    p->act = 0;
  }
}

void *viv__conv_take(viv__conv_plan *p, uint64_t *floats, int64_t bytes) {
  uint64_t rounded = ((uint64_t)bytes + LINE - 1) / LINE * LINE;
  *floats += rounded / sizeof(float);
  if (!p->scratch) return NULL;
  void *at = p->scratch;
  p->scratch += rounded / sizeof(float);
  return at;
}

/* Where index i of an axis of n elements lies for the padding; -1: a zero. Patterns go on
 * periodically where a pad is larger than the input. */
static int64_t padded_index(int32_t pad, int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  if (n < 1) return -1;
  switch (pad) {
  case VIV_PAD_REFLECT: {
    if (n == 1) return 0;
    int64_t period = 2 * (n - 1), at = (i % period + period) % period;
    return at < n ? at : period - at;
  }
  case VIV_PAD_REPLICATE:
    return i < 0 ? 0 : n - 1;
  case VIV_PAD_CIRCULAR:
    return (i % n + n) % n;
  default:
    return -1;
  }
}

int64_t viv__conv_index(const viv__conv_plan *p, int axis, int64_t i) {
  return padded_index(p->a->pad, i, p->size[axis]);
}

void viv__conv_axis_fill(const viv__conv_plan *p, int axis, int64_t phase, viv__conv_axis *s) {
  const viv_conv_weight *w = p->w;
  int64_t stride = w->stride[axis], dilation = w->dilation[axis], size = p->size[axis];
  int64_t pad = p->pad[axis];
  s->taps = 0;
  if (!w->transposed) {
    s->begin = 0;
    s->step = 1;
    s->count = p->out[axis];
    for (int64_t t = 0; t < w->kernel[axis]; t++) {
      for (int64_t j = 0; s->index && j < s->count; j++)
        s->index[s->taps * s->count + j] =
            padded_index(p->a->pad, j * stride - pad + t * dilation, size);
      s->tap[s->taps++] = t;
    }
    return;
  }
  /* Output o gets input i through tap t where i stride = o + pad - t dilation. */
  s->begin = phase;
  s->step = stride;
  s->count = p->out[axis] > phase ? (p->out[axis] - phase - 1) / stride + 1 : 0;
  for (int64_t t = 0; t < w->kernel[axis]; t++) {
    int64_t shift = phase + pad - t * dilation;
    if (shift % stride) continue;
    for (int64_t j = 0; s->index && j < s->count; j++) {
      int64_t i = j + shift / stride;
      s->index[s->taps * s->count + j] = i >= 0 && i < size ? i : -1;
    }
    s->tap[s->taps++] = t;
  }
}

void viv__conv_act(const viv__conv_plan *p, float *x, int64_t n) {
  if (!p->act) return;
  bool plain = p->act <= VIV_EXP;
  if (plain || !p->c->unary_with)
    p->kernels->unary(p->act, x, x, n);
  else
    p->c->unary_with(p->c, p->act, p->a->act_param, x, x, n);
}

/* ---- channels-first data ---- */

struct turn {
  const viv__conv_plan *p;
  const float *from;
  float *to;
  int64_t pieces; /* of an image */
};

enum { TURN_PIECE = 256, TURN_CHANNELS = 64 };

static void turn_in_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct turn *s = ctx;
  int64_t in = s->p->w->in, space = s->p->in_space;
  for (int64_t i = begin; i < end; i++) {
    int64_t image = i / s->pieces * in * space, pixel = i % s->pieces * TURN_PIECE;
    s->p->kernels->transpose(s->from + image + pixel, space, in,
                             viv__min(TURN_PIECE, space - pixel), s->to + image + pixel * in, in);
  }
}

float *viv__conv_take_turned(viv__conv_plan *p, uint64_t *floats) {
  if (p->x_last) return NULL;
  return viv__conv_take(p, floats, p->batch * p->in_space * p->w->in * (int64_t)sizeof(float));
}

void viv__conv_turn_in(const viv__conv_plan *p, float *to) {
  if (p->x_last) return;
  struct turn s = {p, p->a->x, to, (p->in_space + TURN_PIECE - 1) / TURN_PIECE};
  viv__parallel(p->c, p->batch * s.pieces, viv__grain(TURN_PIECE * p->w->in), turn_in_pieces, &s);
}

void viv__conv_turn_tile(const viv__conv_plan *p, const float *sums, int64_t stride, int64_t pixels,
                         int64_t channels, int64_t at) {
  const viv_conv *a = p->a;
  float turned[TURN_CHANNELS * TURN_PIECE];
  bool plain = !a->residual && p->low == -INFINITY && p->high == INFINITY;
  if (plain) {
    p->kernels->transpose(sums, stride, pixels, channels, a->out + at, p->out_space);
  } else {
    p->kernels->transpose(sums, stride, pixels, channels, turned, TURN_PIECE);
    for (int64_t o = 0; o < channels; o++) {
      const float *row = turned + o * TURN_PIECE;
      const float *residual = a->residual ? a->residual + at + o * p->out_space : NULL;
      float *out = a->out + at + o * p->out_space;
      for (int64_t i = 0; i < pixels; i++) {
        float v = residual ? row[i] + residual[i] : row[i];
        v = v < p->low ? p->low : v;
        out[i] = v > p->high ? p->high : v;
      }
    }
  }
  for (int64_t o = 0; p->act && o < channels; o++)
    viv__conv_act(p, a->out + at + o * p->out_space, pixels);
}

static void turn_out_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct turn *s = ctx;
  const viv__conv_plan *p = s->p;
  int64_t out = p->w->out, space = p->out_space;
  for (int64_t i = begin; i < end; i++) {
    int64_t image = i / s->pieces * out * space, pixel = i % s->pieces * TURN_PIECE;
    int64_t n = viv__min(TURN_PIECE, space - pixel);
    for (int64_t ch = 0; ch < out; ch += TURN_CHANNELS)
      viv__conv_turn_tile(p, s->from + image + pixel * out + ch, out, n,
                          viv__min(TURN_CHANNELS, out - ch), image + ch * space + pixel);
  }
}

void viv__conv_turn_out(const viv__conv_plan *p, const float *sums) {
  struct turn s = {p, sums, NULL, (p->out_space + TURN_PIECE - 1) / TURN_PIECE};
  viv__parallel(p->c, p->batch * s.pieces, viv__grain(TURN_PIECE * p->w->out), turn_out_pieces, &s);
}

/* ---- the pass ---- */

static uint64_t pass(viv__conv_plan *p, bool run) {
  if (p->w->winograd) return viv__conv_winograd(p, run);
  if (p->w->depthwise) return viv__conv_depthwise_pass(p, run);
  return viv__conv_direct(p, run);
}

static uint64_t conv_scratch(const viv_compute *c, const viv_conv *args) {
  viv__conv_plan p;
  viv__conv_plan_make(c, args, &p);
  return pass(&p, false) + LINE / sizeof(float); /* to begin at a line */
}

static void conv(const viv_compute *c, const viv_conv *args) {
  viv__conv_plan p;
  viv__conv_plan_make(c, args, &p);
  if (p.out_space < 1 || p.batch < 1) return;
  uintptr_t at = (uintptr_t)args->scratch;
  p.scratch = args->scratch + (LINE - at % LINE) % LINE / sizeof(float);
  pass(&p, true);
}

void viv__table_conv(viv_compute *t) {
  t->conv = conv;
  t->conv_scratch = conv_scratch;
  viv__table_conv_prepare(t);
  viv__table_gemm(t);
  viv__table_pool(t);
}
