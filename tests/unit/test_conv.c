/* Convolution and pooling: every way of computing and every instruction set against the definition in
 * double, over shapes that a seeded generator draws and over the shapes of real networks. */
#include "compute/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 1;

static float uniform(void) { /* [-1, 1) */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static int draw(int low, int high) { /* [low, high] */
  uniform();
  return low + (int)((seed >> 33) % (uint64_t)(high - low + 1));
}

static float *numbers(int64_t n) {
  float *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = uniform();
  return x;
}

static const viv_compute *table(int32_t isa, int32_t threads) {
  const viv_compute *c = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__compute_new(threads, isa, &c, &error);
  if (status == VIV_NEVER) return NULL;
  cr_assert_eq(status, VIV_OK, "%s", error.message);
  return c;
}

#define EACH_SET(c, threads)                                                                       \
  for (int32_t isa = VIV__ISA_PORTABLE; isa <= VIV__ISA_AVX512; isa++)                             \
    for (const viv_compute *c = table(isa, threads); c; viv__compute_free(c), c = NULL)

/* ---- the definition ---- */

struct shape {
  viv_conv_desc d;
  viv_conv a;
  bool scale, bias, residual, in_place;
};

/* Index i of an axis as the padding continues it; -1: a zero. One step at a time, so that it stays
 * obvious: mirrored at the ends, clamped, or wrapped until it lies inside. */
static int64_t padded(int32_t pad, int64_t i, int64_t n) {
  while (i < 0 || i >= n) {
    if (pad == VIV_PAD_ZEROS) return -1;
    if (pad == VIV_PAD_REPLICATE) i = i < 0 ? 0 : n - 1;
    if (pad == VIV_PAD_CIRCULAR) i += i < 0 ? n : -n;
    if (pad == VIV_PAD_REFLECT) i = n == 1 ? 0 : i < 0 ? -i : 2 * (n - 1) - i;
  }
  return i;
}

static void sizes(const struct shape *s, int64_t in[3], int64_t out[3], int64_t kernel[3]) {
  for (int i = 0; i < 3; i++) {
    in[i] = out[i] = kernel[i] = 1;
    if (i >= s->d.dims) continue;
    in[i] = s->a.size[i];
    kernel[i] = s->d.kernel[i];
    int64_t pads = (int64_t)s->a.pad_begin[i] + s->a.pad_end[i];
    int64_t span = (int64_t)s->d.dilation[i] * (kernel[i] - 1) + 1;
    if (s->d.transposed)
      out[i] = (in[i] - 1) * s->d.stride[i] - pads + span + s->a.output_pad[i];
    else
      out[i] = in[i] + pads < span ? 0 : (in[i] + pads - span) / s->d.stride[i] + 1;
    if (out[i] < 0) out[i] = 0;
  }
}

static int64_t at(int32_t layout, int64_t b, int64_t ch, const int64_t i[3], int64_t channels,
                  const int64_t size[3]) {
  int64_t space = size[0] * size[1] * size[2], pos = (i[0] * size[1] + i[1]) * size[2] + i[2];
  return layout == VIV_CHANNELS_LAST ? (b * space + pos) * channels + ch
                                     : (b * channels + ch) * space + pos;
}

static double activation(int32_t act, float p, double v) {
  switch (act) {
  case VIV_RELU:
    return fmax(v, 0);
  case VIV_RELU6:
    return fmin(fmax(v, 0), 6);
  case VIV_SILU:
    return v / (1 + exp(-v));
  case VIV_GELU:
    return 0.5 * v * erfc(-v * sqrt(0.5));
  case VIV_LEAKY_RELU:
    return v < 0 ? p * v : v;
  default:
    return v;
  }
}

/* want and the sum of magnitudes, which bounds the rounding. */
static void reference(const struct shape *s, const float *x, const float *weight,
                      const float *scale, const float *bias, const float *residual, double *want,
                      double *size_of) {
  int64_t in[3], out[3], k[3], t[3], o[3], i[3];
  sizes(s, in, out, k);
  const viv_conv_desc *d = &s->d;
  int64_t ig = d->in_channels / d->groups, og = d->out_channels / d->groups;
  int64_t taps = k[0] * k[1] * k[2];
  for (int64_t b = 0; b < s->a.batch; b++)
    for (int64_t oc = 0; oc < d->out_channels; oc++)
      for (o[0] = 0; o[0] < out[0]; o[0]++)
        for (o[1] = 0; o[1] < out[1]; o[1]++)
          for (o[2] = 0; o[2] < out[2]; o[2]++) {
            int64_t place = at(s->a.out_layout, b, oc, o, d->out_channels, out);
            double sum = (bias ? bias[oc] : 0) + (residual ? residual[place] : 0), sizes_sum = 1;
            for (t[0] = 0; t[0] < k[0]; t[0]++)
              for (t[1] = 0; t[1] < k[1]; t[1]++)
                for (t[2] = 0; t[2] < k[2]; t[2]++) {
                  bool inside = true;
                  for (int n = 0; n < 3; n++) {
                    int used = n < d->dims;
                    int64_t stride = used ? d->stride[n] : 1, pad = used ? s->a.pad_begin[n] : 0;
                    int64_t step = t[n] * (used ? d->dilation[n] : 1);
                    if (d->transposed) {
                      int64_t from = o[n] + pad - step;
                      inside &= from >= 0 && from % stride == 0 && from / stride < in[n];
                      i[n] = from / stride;
                    } else {
                      i[n] = padded(s->a.pad, o[n] * stride - pad + step, in[n]);
                      inside &= i[n] >= 0;
                    }
                  }
                  if (!inside) continue;
                  for (int64_t c = 0; c < ig; c++) {
                    int64_t ic = oc / og * ig + c, tap = (t[0] * k[1] + t[1]) * k[2] + t[2];
                    int64_t w = d->transposed ? (ic * og + oc % og) * taps + tap
                                              : (oc * ig + c) * taps + tap;
                    double term = (double)weight[w] * (scale ? scale[oc] : 1) *
                                  x[at(s->a.x_layout, b, ic, i, d->in_channels, in)];
                    sum += term;
                    sizes_sum += fabs(term);
                  }
                }
            want[place] = activation(s->a.act, s->a.act_param, sum);
            size_of[place] = sizes_sum;
          }
}

static const char *describe(const struct shape *s) {
  static char text[512];
  snprintf(
      text, sizeof text,
      "dims %d batch %d in %d out %d groups %d%s size %d %d %d kernel %d %d %d stride %d %d %d "
      "dilation %d %d %d pads %d+%d %d+%d %d+%d kind %d layouts %d>%d act %d residual %d",
      s->d.dims, s->a.batch, s->d.in_channels, s->d.out_channels, s->d.groups,
      s->d.transposed ? " transposed" : "", s->a.size[0], s->a.size[1], s->a.size[2],
      s->d.kernel[0], s->d.kernel[1], s->d.kernel[2], s->d.stride[0], s->d.stride[1],
      s->d.stride[2], s->d.dilation[0], s->d.dilation[1], s->d.dilation[2], s->a.pad_begin[0],
      s->a.pad_end[0], s->a.pad_begin[1], s->a.pad_end[1], s->a.pad_begin[2], s->a.pad_end[2],
      s->a.pad, s->a.x_layout, s->a.out_layout, s->a.act, s->residual);
  return text;
}

static void check(const viv_compute *c, struct shape s) {
  int64_t in[3], out[3], k[3];
  sizes(&s, in, out, k);
  viv_conv_desc *d = &s.d;
  int64_t nx = s.a.batch * in[0] * in[1] * in[2] * d->in_channels;
  int64_t ny = s.a.batch * out[0] * out[1] * out[2] * d->out_channels;
  int64_t nw = (int64_t)d->in_channels * d->out_channels / d->groups * k[0] * k[1] * k[2];
  float *x = numbers(nx), *w = numbers(nw), *bias = numbers(d->out_channels);
  float *scale = numbers(d->out_channels), *residual = numbers(ny), *y = numbers(ny);
  double *want = calloc((size_t)ny + 1, sizeof *want), *size = calloc((size_t)ny + 1, sizeof *want);
  d->struct_size = sizeof *d;
  s.a.struct_size = sizeof s.a;
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w,
                  .bytes = (uint64_t)nw * 4,
                  .dtype = VIV_F32,
                  .ndim = d->dims + 2,
                  .shape = {d->transposed ? d->in_channels : d->out_channels,
                            (d->transposed ? d->out_channels : d->in_channels) / d->groups, k[0],
                            k[1], k[2]}};
  d->weight = &t;
  d->scale = s.scale ? scale : NULL;
  d->bias = s.bias ? bias : NULL;
  viv_arena *arena = viv__arena_new(0);
  viv_conv_weight *weight = NULL;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(c->conv_prepare(c, arena, d, &weight, &error), VIV_OK, "%s", error.message);
  cr_assert_eq(viv__arena_used(arena), c->conv_bytes(c, d), "the memory plan: %s", describe(&s));

  s.a.weight = weight;
  s.a.x = x;
  s.a.out = y;
  s.a.residual = s.residual ? s.in_place ? y : residual : NULL;
  if (s.in_place) memcpy(y, residual, (size_t)ny * sizeof *y);
  y[ny] = 77;
  uint64_t scratch = c->conv_scratch(c, &s.a);
  s.a.scratch = numbers((int64_t)scratch + 1);
  for (uint64_t i = 0; i < scratch; i++) s.a.scratch[i] = NAN; /* nothing of it is read */
  s.a.scratch[scratch] = 77;
  c->conv(c, &s.a);
  cr_assert(s.a.scratch[scratch] == 77 && y[ny] == 77, "wrote too far: %s", describe(&s));
  reference(&s, x, w, d->scale, d->bias, s.residual ? residual : NULL, want, size);
  for (int64_t i = 0; i < ny; i++)
    cr_assert(fabs(y[i] - want[i]) <= 3e-6 * size[i], "%s: [%lld] is %.9g, not %.9g: %s",
              viv__compute_isa(c), (long long)i, y[i], want[i], describe(&s));
  void *all[] = {x, w, bias, scale, residual, y, want, size, s.a.scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  viv__arena_free(arena);
}

static struct shape drawn(void) {
  static const int32_t acts[] = {0, 0, VIV_RELU, VIV_SILU, VIV_GELU, VIV_RELU6};
  struct shape s = {0};
  viv_conv_desc *d = &s.d;
  d->dims = draw(1, 3);
  d->transposed = draw(0, 3) == 0;
  d->groups = draw(0, 2) ? 1 : draw(1, 5);
  bool depthwise = draw(0, 5) == 0;
  d->in_channels = d->groups * draw(1, draw(0, 1) ? 40 : 5);
  d->out_channels = d->groups * draw(1, draw(0, 1) ? 90 : 5);
  if (depthwise) d->groups = d->in_channels = d->out_channels = draw(1, 70);
  s.a.batch = draw(1, 2);
  s.a.pad = d->transposed ? VIV_PAD_ZEROS : draw(0, 3);
  int limit = d->dims == 1 ? 60 : d->dims == 2 ? 15 : 6;
  for (int i = 0; i < d->dims; i++) {
    s.a.size[i] = draw(1, limit);
    d->kernel[i] = draw(1, draw(0, 2) ? 3 : 7);
    d->stride[i] = draw(0, 1) ? 1 : draw(1, 4);
    d->dilation[i] = draw(0, 2) ? 1 : draw(1, 3);
    int widest = d->dilation[i] * (d->kernel[i] - 1);
    if (d->transposed) {
      s.a.pad_begin[i] = draw(0, widest);
      s.a.pad_end[i] = draw(0, widest);
      s.a.output_pad[i] = draw(0, d->stride[i] - 1);
    } else if (draw(0, 2)) {
      s.a.pad_begin[i] = draw(0, 1) ? widest / 2 : draw(0, 9);
      s.a.pad_end[i] = draw(0, 1) ? widest / 2 : draw(0, 9);
    }
  }
  s.a.x_layout = draw(0, 1);
  s.a.out_layout = draw(0, 1);
  s.a.act = acts[draw(0, 5)];
  s.a.act_param = 0.1f;
  s.scale = draw(0, 1);
  s.bias = draw(0, 1);
  s.residual = draw(0, 2) == 0;
  s.in_place = s.residual && draw(0, 1);
  return s;
}

Test(conv, drawn_shapes_equal_the_definition) {
  for (int threads = 1; threads <= 3; threads += 2) EACH_SET(c, threads) {
      seed = 7;
      for (int i = 0; i < 400; i++) check(c, drawn());
    }
}

/* dims, batch, in, out, groups, size, kernel, stride, dilation, pad; square, all of one padding. */
static struct shape square(int dims, int in, int out, int groups, int size, int kernel, int stride,
                           int dilation, int pad) {
  struct shape s = {0};
  s.d.dims = dims;
  s.d.groups = groups;
  s.d.in_channels = in;
  s.d.out_channels = out;
  s.a.batch = 1;
  s.bias = true;
  for (int i = 0; i < dims; i++) {
    s.a.size[i] = size;
    s.d.kernel[i] = kernel;
    s.d.stride[i] = stride;
    s.d.dilation[i] = dilation;
    s.a.pad_begin[i] = s.a.pad_end[i] = pad;
  }
  return s;
}

static void all_layouts(const viv_compute *c, struct shape s) {
  for (int way = 0; way < 4; way++) {
    s.a.x_layout = way & 1;
    s.a.out_layout = way >> 1;
    s.residual = way == 1 || way == 2;
    s.in_place = way == 2;
    s.a.act = way & 1 ? VIV_RELU : 0;
    check(c, s);
  }
}

/* Long sums, many outputs, odd tails: what takes the blocked and the transformed ways. */
Test(conv, shapes_of_networks) {
  EACH_SET(c, 2) {
    all_layouts(c, square(2, 3, 70, 1, 33, 7, 2, 1, 3));    /* a first layer */
    all_layouts(c, square(2, 64, 65, 1, 13, 3, 1, 1, 1));   /* 3x3 */
    all_layouts(c, square(2, 200, 80, 1, 7, 3, 1, 1, 1));   /* many chunks of depth */
    all_layouts(c, square(2, 66, 34, 1, 9, 3, 2, 1, 1));    /* strided */
    all_layouts(c, square(2, 2500, 20, 1, 3, 1, 1, 1, 0));  /* deeper than a panel */
    all_layouts(c, square(2, 70, 130, 1, 11, 1, 1, 1, 0));  /* 1x1 */
    all_layouts(c, square(2, 3, 48, 1, 32, 4, 4, 1, 0));    /* patches */
    all_layouts(c, square(2, 50, 50, 50, 20, 7, 1, 1, 3));  /* depthwise */
    all_layouts(c, square(2, 33, 33, 33, 21, 3, 2, 1, 1));  /* depthwise, strided */
    all_layouts(c, square(2, 20, 20, 20, 19, 5, 1, 2, 4));  /* depthwise, dilated */
    all_layouts(c, square(2, 64, 64, 8, 10, 3, 1, 1, 1));   /* grouped */
    all_layouts(c, square(2, 128, 128, 32, 9, 3, 1, 1, 1)); /* groups of four */
    all_layouts(c, square(2, 84, 84, 21, 9, 3, 2, 1, 1));   /* the same, not whole vectors */
    all_layouts(c, square(2, 40, 1, 1, 40, 3, 1, 1, 1));    /* one output */
    all_layouts(c, square(3, 16, 20, 1, 6, 5, 1, 1, 2));    /* short runs, deeper than a panel */
    all_layouts(c, square(2, 5, 40, 1, 20, 3, 1, 3, 2));    /* short runs, dilated */
    all_layouts(c, square(3, 16, 24, 1, 7, 3, 1, 1, 1));    /* a volume */
    all_layouts(c, square(1, 1, 32, 1, 3000, 7, 1, 1, 3));  /* sound */
    all_layouts(c, square(2, 3, 64, 1, 61, 7, 2, 1, 3));    /* rows of pixels by one step */
    all_layouts(c, square(2, 2, 72, 1, 27, 3, 1, 1, 1));    /* the same, a last half block */
    all_layouts(c, square(1, 48, 48, 1, 500, 7, 1, 9, 27)); /* dilated sound */
    all_layouts(c, square(1, 96, 96, 1, 300, 3, 2, 1, 1));
  }
}

Test(conv, transposed_in_phases) {
  EACH_SET(c, 2) {
    struct shape s = square(2, 20, 35, 1, 9, 4, 2, 1, 1);
    s.d.transposed = 1;
    all_layouts(c, s);
    s = square(2, 20, 35, 1, 9, 2, 2, 1, 0); /* a U-Net's */
    s.d.transposed = 1;
    all_layouts(c, s);
    s = square(2, 6, 8, 2, 5, 3, 4, 1, 0); /* outputs that no tap meets */
    s.d.transposed = 1;
    s.a.output_pad[1] = 3;
    all_layouts(c, s);
    s = square(1, 16, 8, 1, 50, 16, 8, 1, 4); /* a vocoder's */
    s.d.transposed = 1;
    all_layouts(c, s);
  }
}

Test(conv, empty_outputs_write_nothing) {
  EACH_SET(c, 2) {
    struct shape s = square(2, 3, 4, 1, 2, 5, 1, 1, 0); /* the kernel does not fit */
    check(c, s);
    s = square(2, 3, 4, 1, 8, 3, 1, 1, 1);
    s.a.batch = 0;
    check(c, s);
    s.a.batch = 1;
    s.a.size[0] = 0;
    s.a.pad_begin[0] = s.a.pad_end[0] = 0;
    check(c, s);
    s = square(1, 3, 4, 1, 1, 1, 1, 1, 3); /* padding cuts everything */
    s.d.transposed = 1;
    check(c, s);
  }
}

Test(conv, other_dtypes_are_converted_once) {
  EACH_SET(c, 1) {
    enum { N = 5 * 4 * 3 };
    float x[4 * 9], values[N], out[2][5 * 9], *scratch;
    double wide[N];
    uint16_t half[N];
    for (int i = 0; i < 36; i++) x[i] = uniform();
    for (int i = 0; i < N; i++)
      wide[i] = values[i] = (float)draw(-128, 128) / 64; /* exact in f16 */
    c->store(c, VIV_F16, values, half, N);
    for (int way = 0; way < 3; way++) {
      static const int32_t dtypes[] = {VIV_F32, VIV_F64, VIV_F16};
      void *data[] = {values, wide, half};
      viv_tensor t = {.struct_size = sizeof t,
                      .data = data[way],
                      .dtype = dtypes[way],
                      .ndim = 3,
                      .bytes = N * viv__dtype_size(dtypes[way]),
                      .shape = {5, 4, 3}};
      viv_conv_desc d = {.struct_size = sizeof d,
                         .dims = 1,
                         .groups = 1,
                         .in_channels = 4,
                         .out_channels = 5,
                         .kernel = {3},
                         .stride = {1},
                         .dilation = {1},
                         .weight = &t};
      viv_arena *arena = viv__arena_new(0);
      viv_conv_weight *w;
      cr_assert_eq(c->conv_prepare(c, arena, &d, &w, NULL), VIV_OK);
      viv_conv a = {.struct_size = sizeof a,
                    .batch = 1,
                    .weight = w,
                    .size = {9},
                    .pad_begin = {1},
                    .pad_end = {1},
                    .x = x,
                    .out = out[way > 0]};
      a.scratch = scratch = numbers((int64_t)c->conv_scratch(c, &a));
      c->conv(c, &a);
      if (way) cr_assert(!memcmp(out[0], out[1], sizeof out[0]));
      free(scratch);
      viv__arena_free(arena);
    }
  }
}

static void refused(const viv_compute *c, viv_conv_desc d, const char *word) {
  viv_arena *arena = viv__arena_new(0);
  viv_conv_weight *w = NULL;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(c->conv_prepare(c, arena, &d, &w, &error), VIV_BAD_INPUT);
  cr_assert(strstr(error.message, word), "\"%s\" lacks %s", error.message, word);
  cr_assert_null(w);
  viv__arena_free(arena);
}

Test(conv, wrong_descriptions_are_refused) {
  const viv_compute *c = table(VIV__ISA_PORTABLE, 1);
  float data[24];
  viv_tensor t = {.struct_size = sizeof t,
                  .data = data,
                  .bytes = sizeof data,
                  .dtype = VIV_F32,
                  .ndim = 3,
                  .shape = {4, 2, 3}};
  viv_conv_desc good = {.struct_size = sizeof good,
                        .dims = 1,
                        .groups = 2,
                        .in_channels = 4,
                        .out_channels = 4,
                        .kernel = {3},
                        .stride = {1},
                        .dilation = {1},
                        .weight = &t};
  viv_conv_desc d = good;
  d.dims = 4;
  refused(c, d, "dims");
  d = good;
  d.groups = 3;
  refused(c, d, "groups");
  d = good;
  d.groups = 0;
  refused(c, d, "groups");
  d = good;
  d.in_channels = 8;
  refused(c, d, "dimension 1");
  d = good;
  d.stride[0] = 0;
  refused(c, d, "stride 0");
  d = good;
  d.kernel[0] = 2;
  refused(c, d, "dimension 2");
  d = good;
  d.dims = 2;
  d.kernel[1] = d.stride[1] = d.dilation[1] = 1;
  refused(c, d, "4 dimensions");
  t.dtype = VIV_I32;
  refused(c, good, "I32");
  viv__compute_free(c);
}

Test(conv, a_nan_reaches_what_it_touches_and_nothing_else) {
  EACH_SET(c, 2) {
    enum { IN = 32, OUT = 40, SIDE = 40 };
    static float x[SIDE * SIDE * IN], out[SIDE * SIDE * OUT];
    float *w = numbers(OUT * IN * 9);
    viv_tensor t = {.struct_size = sizeof t,
                    .data = w,
                    .bytes = OUT * IN * 9 * 4,
                    .dtype = VIV_F32,
                    .ndim = 4,
                    .shape = {OUT, IN, 3, 3}};
    struct shape s = square(2, IN, OUT, 1, SIDE, 3, 1, 1, 1);
    s.d.weight = &t;
    viv_arena *arena = viv__arena_new(0);
    viv_conv_weight *weight;
    cr_assert_eq(c->conv_prepare(c, arena, &s.d, &weight, NULL), VIV_OK);
    for (int i = 0; i < SIDE * SIDE * IN; i++) x[i] = uniform();
    x[(20 * SIDE + 20) * IN + 3] = NAN;
    s.a.weight = weight;
    s.a.x_layout = s.a.out_layout = VIV_CHANNELS_LAST;
    s.a.act = VIV_RELU;
    s.a.x = x;
    s.a.out = out;
    s.a.scratch = numbers((int64_t)c->conv_scratch(c, &s.a));
    c->conv(c, &s.a);
    /* A transformed way may spread it over the tile of outputs, never farther. */
    for (int y = 0; y < SIDE; y++)
      for (int px = 0; px < SIDE; px++) {
        bool touched = abs(y - 20) <= 1 && abs(px - 20) <= 1;
        bool far = abs(y - 20) > 8 || abs(px - 20) > 8;
        for (int o = 0; o < OUT; o++) {
          if (touched) cr_assert(isnan(out[(y * SIDE + px) * OUT + o]));
          if (far) cr_assert(!isnan(out[(y * SIDE + px) * OUT + o]));
        }
      }
    free(w);
    free(s.a.scratch);
    viv__arena_free(arena);
  }
}

/* ---- pooling ---- */

static int64_t pooled(const viv_pool *a, int i) {
  int64_t room = a->size[i] + a->pad_begin[i] + a->pad_end[i] - a->dilation[i] * (a->kernel[i] - 1);
  if (room < 1) return 0;
  int64_t out = (room - 1) / a->stride[i] + 1;
  if (a->ceil_mode && (room - 1) % a->stride[i] &&
      out * a->stride[i] < a->size[i] + a->pad_begin[i])
    out++;
  return out;
}

static void check_pool(const viv_compute *c, viv_pool a) {
  int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, o[3], k[3], kernel[3] = {1, 1, 1};
  for (int i = 0; i < a.dims; i++) {
    in[i] = a.size[i];
    out[i] = pooled(&a, i);
    kernel[i] = a.kernel[i];
  }
  int64_t nx = a.batch * in[0] * in[1] * in[2] * a.channels;
  int64_t ny = a.batch * out[0] * out[1] * out[2] * a.channels;
  float *x = numbers(nx), *y = numbers(ny);
  a.struct_size = sizeof a;
  a.x = x;
  a.out = y;
  y[ny] = 77;
  c->pool(c, &a);
  cr_assert_eq(y[ny], 77);
  for (int64_t n = 0; n < ny; n++) {
    int64_t ch = n % a.channels, rest = n / a.channels;
    o[2] = rest % out[2];
    o[1] = rest / out[2] % out[1];
    o[0] = rest / out[2] / out[1] % out[0];
    const float *image = x + rest / out[2] / out[1] / out[0] * in[0] * in[1] * in[2] * a.channels;
    double max = -INFINITY, sum = 0;
    int inside = 0, counted = 0;
    for (k[0] = 0; k[0] < kernel[0]; k[0]++)
      for (k[1] = 0; k[1] < kernel[1]; k[1]++)
        for (k[2] = 0; k[2] < kernel[2]; k[2]++) {
          int64_t i[3] = {0, 0, 0};
          bool hit = true, padded_hit = true;
          for (int d = 0; d < a.dims; d++) {
            i[d] = o[d] * a.stride[d] - a.pad_begin[d] + k[d] * a.dilation[d];
            hit &= i[d] >= 0 && i[d] < in[d];
            padded_hit &= i[d] < in[d] + a.pad_end[d];
          }
          counted += padded_hit;
          if (!hit) continue;
          inside++;
          double v = image[((i[0] * in[1] + i[1]) * in[2] + i[2]) * a.channels + ch];
          max = fmax(max, v);
          sum += v;
        }
    int divide = a.count_pad ? counted : inside;
    double want = a.kind == VIV_POOL_MAX ? max : divide ? sum / divide : 0;
    cr_assert(a.kind == VIV_POOL_MAX ? y[n] == (float)want : fabs(y[n] - want) < 1e-5,
              "%s: pool [%lld] is %g, not %g", viv__compute_isa(c), (long long)n, y[n], want);
  }
  free(x);
  free(y);
}

Test(conv, drawn_pools_equal_the_definition) {
  EACH_SET(c, 2) {
    seed = 3;
    for (int n = 0; n < 400; n++) {
      viv_pool a = {.kind = draw(1, 2), .dims = draw(1, 3), .batch = draw(1, 5)};
      a.channels = draw(0, 1) ? 1 : draw(1, 40);
      a.ceil_mode = draw(0, 1);
      a.count_pad = draw(0, 1);
      for (int i = 0; i < a.dims; i++) {
        a.kernel[i] = draw(1, 4);
        a.stride[i] = draw(1, 3);
        a.dilation[i] = draw(0, 2) ? 1 : draw(1, 2);
        a.pad_begin[i] = draw(0, a.kernel[i] / 2);
        a.pad_end[i] = draw(0, a.kernel[i] / 2);
        a.size[i] = draw(1, a.dims == 3 ? 8 : 20);
      }
      check_pool(c, a);
    }
  }
}

Test(conv, a_nan_wins_a_maximum) {
  EACH_SET(c, 1) {
    float x[4] = {1, NAN, 3, 2}, out[2];
    viv_pool a = {.struct_size = sizeof a,
                  .kind = VIV_POOL_MAX,
                  .dims = 1,
                  .channels = 1,
                  .batch = 1,
                  .size = {4},
                  .kernel = {2},
                  .stride = {2},
                  .dilation = {1},
                  .x = x,
                  .out = out};
    c->pool(c, &a);
    cr_assert(isnan(out[0]) && out[1] == 3);
  }
}
