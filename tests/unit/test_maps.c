/* Operations that sample and lay out maps, for every instruction set, against their definitions in
 * double. The byte-exact forms of resize_u8 have golden cases as well (detr-ops/op-resize). */
#include "compute_rt.h"

/* ---- resize ---- */

static double cubic(double x, double a) {
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * a - 4 * a : 0;
}

static int64_t clamp(int64_t i, int64_t n) {
  return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* One axis: weights [out, in] of the definition. */
static double *axis_weights(const viv_resize *a, int axis) {
  int64_t in = a->size[axis], out = a->out_size[axis];
  double *w = calloc((size_t)(in * out), sizeof *w);
  double scale = a->scale[axis] > 0 ? 1 / a->scale[axis] : (double)in / (double)out;
  bool smooth = a->filter == VIV_LINEAR || a->filter == VIV_CUBIC;
  if (a->align_corners && smooth) scale = out > 1 ? (double)(in - 1) / (double)(out - 1) : 0;
  double half = a->align_corners && smooth ? 0 : 0.5;
  for (int64_t o = 0; o < out; o++) {
    double *row = w + o * in, at = scale * ((double)o + half) - half;
    if (a->filter == VIV_NEAREST) {
      row[clamp((int64_t)(float)((float)o * (float)scale), in)] = 1;
    } else if (a->filter == VIV_NEAREST_EXACT) {
      row[clamp((int64_t)(((double)o + 0.5) * scale), in)] = 1;
    } else if (a->filter == VIV_AREA) {
      int64_t from = o * in / out, to = (int64_t)ceil((double)((o + 1) * in) / (double)out);
      for (int64_t i = from; i < to; i++) row[i] = 1 / (double)(to - from);
    } else if (a->antialias) {
      double stretch = fmax(scale, 1), sum = 0;
      for (int64_t i = 0; i < in; i++) {
        double x = ((double)i - at) / stretch;
        double v = a->filter == VIV_LINEAR ? fmax(0, 1 - fabs(x)) : cubic(x, -0.5);
        double reach = (a->filter == VIV_LINEAR ? 1 : 2) * stretch;
        /* The window is cut at whole elements, as Pillow does. */
        int64_t first = (int64_t)fmax(at + half - reach + 0.5, 0);
        int64_t last = (int64_t)fmin(at + half + reach + 0.5, (double)in);
        if (i < first || i >= last) v = 0;
        row[i] = v;
        sum += v;
      }
      for (int64_t i = 0; i < in; i++) row[i] /= sum;
    } else if (a->filter == VIV_LINEAR) {
      at = fmin(fmax(at, 0), (double)(in - 1));
      row[clamp((int64_t)floor(at), in)] += 1 - (at - floor(at));
      row[clamp((int64_t)floor(at) + 1, in)] += at - floor(at);
    } else {
      for (int64_t t = -1; t <= 2; t++)
        row[clamp((int64_t)floor(at) + t, in)] += cubic(at - floor(at) - (double)t, -0.75);
    }
  }
  return w;
}

/* y[b, o, c] = sum w[o, i] x[b, i, c] along the axis whose inner part is `inner` long. */
static double *along(const double *w, const double *x, int64_t outer, int64_t in, int64_t out,
                     int64_t inner) {
  double *y = calloc((size_t)(outer * out * inner + 1), sizeof *y);
  for (int64_t b = 0; b < outer; b++)
    for (int64_t o = 0; o < out; o++)
      for (int64_t i = 0; i < in; i++)
        for (int64_t c = 0; c < inner; c++)
          y[(b * out + o) * inner + c] += w[o * in + i] * x[(b * in + i) * inner + c];
  return y;
}

static void check_resize(viv_resize a) {
  int64_t n = a.batch * a.channels, m = n, outer = a.batch;
  for (int i = 0; i < a.dims; i++) {
    n *= a.size[i];
    m *= a.out_size[i];
  }
  float *x = numbers(n), *y = zeros(m), *want = zeros(m);
  double *now = calloc((size_t)n, sizeof *now);
  for (int64_t i = 0; i < n; i++) now[i] = x[i];
  for (int axis = 0; axis < a.dims; axis++) {
    int64_t inner = a.channels;
    for (int i = axis + 1; i < a.dims; i++) inner *= a.size[i];
    double *w = axis_weights(&a, axis);
    double *next = along(w, now, outer, a.size[axis], a.out_size[axis], inner);
    free(w);
    free(now);
    now = next;
    outer *= a.out_size[axis];
  }
  for (int64_t i = 0; i < m; i++) want[i] = (float)now[i];
  a.struct_size = sizeof a;
  a.x = x;
  a.out = y;
  char what[128];
  snprintf(what, sizeof what, "resize filter %d dims %d to %d, align %d antialias %d", a.filter,
           a.dims, a.out_size[a.dims - 1], a.align_corners, a.antialias);
  for (int32_t threads = 1; threads <= 3; threads += 2) EACH_SET(c, threads) {
      memset(y, 0xff, (size_t)m * sizeof *y);
      c->resize(c, &a);
      near(c, what, y, want, m, 3e-6);
    }
  free(x);
  free(y);
  free(want);
  free(now);
}

Test(maps, resize_is_the_definition) {
  static const int32_t outs[] = {1, 2, 5, 16, 33, 70};
  for (int32_t filter = VIV_NEAREST; filter <= VIV_AREA; filter++)
    for (int i = 0; i < 6; i++)
      for (int how = 0; how < 4; how++) {
        viv_resize a = {.filter = filter, .channels = 1, .batch = 2, .dims = 2};
        a.size[0] = 9;
        a.size[1] = 16;
        a.out_size[0] = outs[5 - i];
        a.out_size[1] = outs[i];
        a.align_corners = how % 2;
        a.antialias = how / 2;
        if (how && filter != VIV_LINEAR && filter != VIV_CUBIC) continue;
        check_resize(a);
        a.channels = 3;
        check_resize(a);
      }
}

Test(maps, resize_of_one_and_three_axes_wide_rows_and_scales) {
  check_resize((viv_resize){
      .filter = VIV_LINEAR, .dims = 1, .channels = 1, .batch = 3, .size = {7}, .out_size = {900}});
  check_resize((viv_resize){
      .filter = VIV_LINEAR, .dims = 1, .channels = 300, .batch = 1, .size = {7}, .out_size = {90}});
  check_resize((viv_resize){.filter = VIV_LINEAR,
                            .dims = 3,
                            .channels = 2,
                            .batch = 2,
                            .size = {3, 5, 4},
                            .out_size = {6, 4, 9}});
  check_resize((viv_resize){.filter = VIV_NEAREST,
                            .dims = 3,
                            .channels = 1,
                            .batch = 2,
                            .size = {3, 5, 4},
                            .out_size = {6, 10, 8}});
  check_resize((viv_resize){.filter = VIV_CUBIC,
                            .dims = 2,
                            .channels = 1,
                            .batch = 1,
                            .size = {6, 9},
                            .out_size = {15, 22},
                            .scale = {2.5, 2.5}});
}

/* More taps than a table holds at once, along both axes. */
Test(maps, resize_shrinks_by_hundreds) {
  for (int32_t filter = VIV_LINEAR; filter <= VIV_AREA; filter++)
    check_resize((viv_resize){.filter = filter,
                              .dims = 2,
                              .channels = 1,
                              .batch = 1,
                              .size = {700, 900},
                              .out_size = {2, 3},
                              .antialias = filter != VIV_AREA});
}

/* ---- resize_u8 ---- */

static uint8_t *bytes(int64_t n) {
  uint8_t *x = malloc((size_t)n + 1);
  for (int64_t i = 0; i < n; i++) x[i] = (uint8_t)((uniform() + 1) * 127.9f);
  return x;
}

static uint8_t *resized(const viv_compute *c, viv_resize_u8 a) {
  a.struct_size = sizeof a;
  a.out = malloc((size_t)a.out_height * (size_t)a.out_width * (size_t)a.channels);
  a.scratch = malloc(c->resize_u8_scratch(c, &a));
  c->resize_u8(c, &a);
  free(a.scratch);
  return a.out;
}

static const struct {
  int32_t form, filter;
} u8_forms[] = {
    {VIV_RESIZE_PILLOW, VIV_NEAREST},     {VIV_RESIZE_PILLOW, VIV_LINEAR},
    {VIV_RESIZE_PILLOW, VIV_CUBIC},       {VIV_RESIZE_PILLOW, VIV_LANCZOS},
    {VIV_RESIZE_PILLOW, VIV_BOX},         {VIV_RESIZE_PILLOW, VIV_HAMMING},
    {VIV_RESIZE_TORCH_INT16, VIV_LINEAR}, {VIV_RESIZE_TORCH_INT16, VIV_CUBIC},
    {VIV_RESIZE_TORCH_FLOAT, VIV_LINEAR}, {VIV_RESIZE_TORCH_FLOAT, VIV_CUBIC},
    {VIV_RESIZE_OPENCV, VIV_LINEAR},
};

Test(maps, resize_u8_keeps_what_must_not_change) {
  EACH_SET(c, 2) for (size_t f = 0; f < sizeof u8_forms / sizeof *u8_forms; f++) {
    for (int32_t channels = 1; channels <= 4; channels++) {
      viv_resize_u8 a = {.form = u8_forms[f].form,
                         .filter = u8_forms[f].filter,
                         .height = 13,
                         .width = 21,
                         .channels = channels,
                         .out_height = 13,
                         .out_width = 21};
      uint8_t *x = bytes(13 * 21 * 4);
      a.x = x;
      uint8_t *y = resized(c, a);
      cr_assert(!memcmp(x, y, (size_t)(13 * 21 * channels)), "%s: form %d changes a picture",
                viv__compute_isa(c), a.form);
      free(y);
      memset(x, 201, 13 * 21 * 4);
      a.out_height = 7;
      a.out_width = 40;
      y = resized(c, a);
      for (int64_t i = 0; i < 7 * 40 * channels; i++)
        cr_assert_eq(y[i], 201, "%s: form %d filter %d: [%lld] %d", viv__compute_isa(c), a.form,
                     a.filter, (long long)i, y[i]);
      free(y);
      free(x);
    }
  }
}

/* Every set gives the portable one's bytes, and all are near to the filter in float. */
Test(maps, resize_u8_is_the_same_everywhere) {
  static const int32_t sizes[][2] = {{5, 9}, {64, 3}, {30, 77}, {19, 101}, {1, 1}};
  const viv_compute *plain = table(VIV__ISA_PORTABLE, 1);
  uint8_t *x = bytes(37 * 53 * 4);
  for (size_t f = 0; f < sizeof u8_forms / sizeof *u8_forms; f++)
    for (int32_t channels = 1; channels <= 4; channels++)
      for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        viv_resize_u8 a = {.form = u8_forms[f].form,
                           .filter = u8_forms[f].filter,
                           .height = 37,
                           .width = 53,
                           .channels = channels,
                           .out_height = sizes[s][0],
                           .out_width = sizes[s][1],
                           .x = x};
        int64_t n = (int64_t)a.out_height * a.out_width * channels;
        if (a.form == VIV_RESIZE_PILLOW && s % 2) { /* a part of the picture */
          a.box[0] = 3.5;
          a.box[1] = 2;
          a.box[2] = 50;
          a.box[3] = 30.25;
        }
        uint8_t *want = resized(plain, a);
        EACH_SET(c, 3) {
          uint8_t *y = resized(c, a);
          for (int64_t i = 0; i < n; i++) {
            int away = abs(y[i] - want[i]);
            /* The float form may round the last bit of a sum otherwise. */
            cr_assert(away <= (a.form == VIV_RESIZE_TORCH_FLOAT),
                      "%s: form %d filter %d: [%lld] %d %d", viv__compute_isa(c), a.form, a.filter,
                      (long long)i, y[i], want[i]);
          }
          free(y);
        }
        free(want);
      }
  free(x);
  viv__compute_free(plain);
}

Test(maps, resize_u8_of_opencv_halves_by_means_and_blends_by_hand) {
  EACH_SET(c, 1) {
    const uint8_t x[] = {10, 20, 31, 40, 50, 61, 70, 80, 90, 100, 111, 120, 0, 255, 7, 9};
    viv_resize_u8 a = {.form = VIV_RESIZE_OPENCV,
                       .filter = VIV_LINEAR,
                       .height = 4,
                       .width = 4,
                       .channels = 1,
                       .out_height = 2,
                       .out_width = 2,
                       .x = x};
    uint8_t *y = resized(c, a);
    cr_assert_eq(y[0], (10 + 20 + 50 + 61 + 2) / 4);
    cr_assert_eq(y[3], (111 + 120 + 7 + 9 + 2) / 4);
    free(y);
    const uint8_t row[] = {0, 100};
    a = (viv_resize_u8){.form = VIV_RESIZE_OPENCV,
                        .filter = VIV_LINEAR,
                        .height = 1,
                        .width = 2,
                        .channels = 1,
                        .out_height = 1,
                        .out_width = 4,
                        .x = row};
    y = resized(c, a);
    cr_assert_eq(y[0], 0);
    cr_assert_eq(y[1], 25);
    cr_assert_eq(y[2], 75);
    cr_assert_eq(y[3], 100);
    free(y);
  }
}

/* ---- grid_sample ---- */

static double reflect(double x, double low, double high) {
  if (high <= low) return 0;
  while (x < low || x > high) x = x < low ? 2 * low - x : 2 * high - x;
  return x;
}

static double border(double x, int64_t n, int32_t how, bool align) {
  double last = (double)(n - 1);
  if (how == VIV_BORDER_REFLECT) x = align ? reflect(x, 0, last) : reflect(x, -0.5, last + 0.5);
  return how == VIV_BORDER_ZEROS ? x : fmin(fmax(x, 0), last);
}

static double pixel(const viv_grid_sample *a, const float *plane, double x, double y, bool fold) {
  if (fold) {
    x = border(x, a->width, a->border, a->align_corners);
    y = border(y, a->height, a->border, a->align_corners);
  }
  if (x < 0 || y < 0 || x >= a->width || y >= a->height) return 0;
  return (double)plane[(int64_t)y * a->width + (int64_t)x];
}

static double sample(const viv_grid_sample *a, const float *plane, const float *at) {
  bool align = a->align_corners;
  double x =
      align ? ((double)at[0] + 1) / 2 * (a->width - 1) : (((double)at[0] + 1) * a->width - 1) / 2;
  double y =
      align ? ((double)at[1] + 1) / 2 * (a->height - 1) : (((double)at[1] + 1) * a->height - 1) / 2;
  double sum = 0;
  if (a->filter == VIV_CUBIC) {
    double x0 = floor(x), y0 = floor(y);
    for (int j = -1; j <= 2; j++)
      for (int i = -1; i <= 2; i++)
        sum += cubic(x - x0 - i, -0.75) * cubic(y - y0 - j, -0.75) *
               pixel(a, plane, x0 + i, y0 + j, true);
    return sum;
  }
  x = border(x, a->width, a->border, align);
  y = border(y, a->height, a->border, align);
  if (a->filter == VIV_NEAREST) return pixel(a, plane, nearbyint(x), nearbyint(y), false);
  double x0 = floor(x), y0 = floor(y);
  for (int j = 0; j < 2; j++)
    for (int i = 0; i < 2; i++)
      sum +=
          (1 - fabs(x - x0 - i)) * (1 - fabs(y - y0 - j)) * pixel(a, plane, x0 + i, y0 + j, false);
  return sum;
}

Test(maps, grid_sample_is_the_definition_in_both_layouts) {
  enum { B = 2, C = 5, H = 7, W = 11, OH = 3, OW = 83 };
  float *x = numbers(B * C * H * W), *turned = zeros(B * C * H * W);
  float *grid = numbers(B * OH * OW * 2), *y = zeros(B * C * OH * OW);
  float *want = zeros(B * C * OH * OW), *back = zeros(B * C * OH * OW);
  for (int i = 0; i < B * OH * OW * 2; i++) grid[i] *= 2.5f;
  for (int b = 0; b < B; b++)
    for (int k = 0; k < C; k++)
      for (int p = 0; p < H * W; p++) turned[(b * H * W + p) * C + k] = x[(b * C + k) * H * W + p];
  static const int32_t filters[] = {VIV_NEAREST, VIV_LINEAR, VIV_CUBIC};
  for (int how = 0; how < 18; how++) {
    viv_grid_sample a = {
      .struct_size = sizeof a,
      .filter = filters[how / 6],
      .border = how / 2 % 3,
      .align_corners = how % 2,
      .batch = B,
      .channels = C,
      .height = H,
      .width = W,
      .out_height = OH,
      .out_width = OW,
      .grid = grid,
      .out = y
    };
    for (int i = 0; i < B * C * OH * OW; i++) {
      int b = i / (C * OH * OW);
      want[i] =
          (float)sample(&a, x + i / (OH * OW) * H * W, grid + (b * OH * OW + i % (OH * OW)) * 2);
    }
    EACH_SET(c, 2) {
      a.x = x;
      a.layout = VIV_CHANNELS_FIRST;
      c->grid_sample(c, &a);
      near(c, "grid_sample", y, want, B * C * OH * OW, 3e-5);
      a.x = turned;
      a.layout = VIV_CHANNELS_LAST;
      c->grid_sample(c, &a);
      for (int i = 0; i < B * C * OH * OW; i++)
        back[i] = y[(i / (C * OH * OW) * OH * OW + i % (OH * OW)) * C + i / (OH * OW) % C];
      near(c, "grid_sample, channels last", back, want, B * C * OH * OW, 3e-5);
    }
  }
  free(x);
  free(turned);
  free(grid);
  free(y);
  free(want);
  free(back);
}

Test(maps, grid_sample_survives_wild_positions) {
  static const float wild[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 1e9f, 0, 3};
  float x[12], grid[128], y[64];
  for (int i = 0; i < 12; i++) x[i] = (float)i;
  for (int i = 0; i < 64; i++) {
    grid[2 * i] = wild[i / 8];
    grid[2 * i + 1] = wild[i % 8];
  }
  EACH_SET(c, 1) for (int how = 0; how < 18; how++) {
    static const int32_t filters[] = {VIV_NEAREST, VIV_LINEAR, VIV_CUBIC};
    viv_grid_sample a = {.struct_size = sizeof a,
                         .filter = filters[how / 6],
                         .border = how / 2 % 3,
                         .align_corners = how % 2,
                         .batch = 1,
                         .channels = 1,
                         .height = 3,
                         .width = 4,
                         .out_height = 8,
                         .out_width = 8,
                         .x = x,
                         .grid = grid,
                         .out = y};
    c->grid_sample(c, &a);
    for (int i = 0; i < 64; i++)
      cr_assert(a.border != VIV_BORDER_ZEROS || (i / 8 == 6 && i % 8 == 6) || y[i] == 0,
                "%s: (%g, %g) gives %g", viv__compute_isa(c), grid[2 * i], grid[2 * i + 1], y[i]);
  }
}

/* ---- deform ---- */

Test(maps, deform_is_the_definition) {
  static const int32_t shapes[] = {6, 9, 3, 5, 1, 2};
  static const int32_t dims[] = {4, 16, 21, 32, 48};
  enum { LEVELS = 3, S = 54 + 15 + 2 };
  for (int which = 0; which < 5; which++) {
    int32_t d = dims[which];
    viv_deform a = {.struct_size = sizeof a,
                    .batch = 2,
                    .queries = 13,
                    .heads = 3,
                    .head_dim = d,
                    .levels = LEVELS,
                    .points = which == 4 ? 60 : 4,
                    .shapes = shapes,
                    .values = S};
    int64_t items = 2 * 13 * 3, samples = LEVELS * a.points, n = items * d;
    float *value = numbers(2 * S * 3 * d), *at = numbers(items * samples * 2);
    float *w = numbers(items * samples), *y = zeros(n), *want = zeros(n), *first = zeros(n);
    for (int64_t i = 0; i < items * samples * 2; i++) at[i] = 0.5f + 0.8f * at[i];
    for (int64_t i = 0; i < items; i++) {
      int64_t head = i % 3, batch = i / 39, base = 0;
      for (int l = 0; l < LEVELS; l++) {
        int64_t height = shapes[2 * l], width = shapes[2 * l + 1];
        for (int p = 0; p < a.points; p++) {
          int64_t k = (i * LEVELS + l) * a.points + p;
          double x = (double)(at[2 * k] * (float)width - 0.5f);
          double v = (double)(at[2 * k + 1] * (float)height - 0.5f);
          for (int corner = 0; corner < 4; corner++) {
            int64_t cx = (int64_t)floor(x) + corner % 2, cy = (int64_t)floor(v) + corner / 2;
            if (cx < 0 || cy < 0 || cx >= width || cy >= height) continue;
            double weight = (double)w[k] * (1 - fabs(x - (double)cx)) * (1 - fabs(v - (double)cy));
            for (int32_t e = 0; e < d; e++)
              want[i * d + e] +=
                  (float)(weight *
                          (double)value[((batch * S + base + cy * width + cx) * 3 + head) * d + e]);
          }
        }
        base += height * width;
      }
    }
    a.value = value;
    a.locations = at;
    a.weights = w;
    a.out = y;
    EACH_SET(c, 2) {
      c->deform(c, &a);
      near(c, "deform", y, want, n, 1e-5);
      memcpy(first, y, (size_t)n * sizeof *y);
      viv_deform one = a; /* the last query of the first picture alone */
      one.batch = one.queries = 1;
      one.locations += 12 * 3 * samples * 2;
      one.weights += 12 * 3 * samples;
      one.out = y;
      c->deform(c, &one);
      same(c, "deform", y, first + 12 * 3 * d, 3 * d);
    }
    free(value);
    free(at);
    free(w);
    free(y);
    free(want);
    free(first);
  }
}

Test(maps, deform_never_reads_beyond_the_map) {
  static const int32_t shape[] = {2, 2};
  static const float at[] = {NAN, 0.5f, 9e9f, -9e9f, -INFINITY, INFINITY, 1.2f, 0.5f, 0.25f, 0.25f};
  static const float w[] = {1, 1, 1, 1, 1}, value[] = {7, INFINITY, INFINITY, INFINITY};
  EACH_SET(c, 1) {
    float y = 0;
    viv_deform a = {.struct_size = sizeof a,
                    .batch = 1,
                    .queries = 1,
                    .heads = 1,
                    .head_dim = 1,
                    .levels = 1,
                    .points = 5,
                    .shapes = shape,
                    .values = 4,
                    .value = value,
                    .locations = at,
                    .weights = w,
                    .out = &y};
    c->deform(c, &a);
    cr_assert(y == INFINITY); /* (1.2, 0.5) touches the right column */
    a.points = 3;
    c->deform(c, &a);
    cr_assert_eq(y, 0);
    a.points = 1;
    a.locations += 8;
    c->deform(c, &a);
    cr_assert_eq(y, 7); /* exactly on the first value: its neighbours have no weight */
  }
}

/* ---- roi_align ---- */

Test(maps, roi_align_means_and_survives_wild_boxes) {
  enum { H = 6, W = 8 };
  float x[2 * H * W], y[5 * 2 * 4];
  for (int i = 0; i < H * W; i++) {
    x[i] = (float)(i % W); /* a plane that rises to the right has its centre as its mean */
    x[H * W + i] = 3;
  }
  const float box[] = {0,     1,     1, 5, 5, 0, NAN, 1, NAN, 2, 0,      -1e30f, -1e30f,
                       1e30f, 1e30f, 0, 5, 5, 1, 1,   0, 2,   2, 2.001f, 2.001f};
  EACH_SET(c, 1) for (int ratio = 0; ratio < 3; ratio++) {
    viv_roi_align a = {
      .struct_size = sizeof a,
      .channels = 2,
      .height = H,
      .width = W,
      .out_height = 2,
      .out_width = 2,
      .sampling_ratio = ratio,
      .aligned = 1,
      .spatial_scale = 1,
      .boxes = 5,
      .x = x,
      .box = box,
      .out = y
    };
    c->roi_align(c, &a);
    cr_assert_float_eq(y[0], 1.5f, 1e-5f);
    cr_assert_float_eq(y[1], 3.5f, 1e-5f);
    cr_assert_float_eq(y[4], 3, 1e-5f);
  }
}

/* ---- permute ---- */

static void check_permute(int32_t ndim, const int64_t *shape, const int32_t *perm) {
  int64_t n = 1, stride[8], out[8], at[8] = {0};
  for (int32_t i = ndim - 1; i >= 0; i--) {
    stride[i] = n;
    n *= shape[i];
  }
  for (int32_t i = 0; i < ndim; i++) out[i] = shape[perm[i]];
  float *x = numbers(n), *y = zeros(n), *want = zeros(n);
  for (int64_t k = 0; k < n; k++) {
    int64_t from = 0;
    for (int32_t i = 0; i < ndim; i++) from += at[i] * stride[perm[i]];
    want[k] = x[from];
    for (int32_t i = ndim - 1; i >= 0 && ++at[i] == out[i]; i--) at[i] = 0;
  }
  EACH_SET(c, 2) {
    memset(y, 0xff, (size_t)n * sizeof *y);
    c->permute(c, x, ndim, shape, perm, y);
    same(c, "permute", y, want, n);
  }
  free(x);
  free(y);
  free(want);
}

Test(maps, permute_moves_every_element) {
  static const int64_t shapes[][4] = {
      {3, 5, 7, 2}, {1, 17, 1, 33}, {2, 16, 16, 16}, {4, 1, 50, 3}, {1, 1, 1, 1}};
  for (int s = 0; s < 5; s++)
    for (int code = 0; code < 256; code++) {
      int32_t perm[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6};
      if ((1 << perm[0] | 1 << perm[1] | 1 << perm[2] | 1 << perm[3]) == 15)
        check_permute(4, shapes[s], perm);
    }
  check_permute(2, (const int64_t[]){769, 513}, (const int32_t[]){1, 0});
  check_permute(2, (const int64_t[]){1024, 640}, (const int32_t[]){1, 0});
  check_permute(1, (const int64_t[]){9}, (const int32_t[]){0});
  check_permute(3, (const int64_t[]){2, 0, 3}, (const int32_t[]){2, 0, 1});
  check_permute(8, (const int64_t[]){2, 3, 2, 1, 3, 2, 3, 2},
                (const int32_t[]){7, 0, 6, 1, 5, 2, 4, 3});
}

/* ---- norms and snakes ---- */

Test(maps, group_norm_in_both_layouts) {
  static const int32_t groups[] = {1, 4, 12, 96};
  enum { B = 2, C = 96, N = 301 };
  float *x = numbers(B * C * N), *last = zeros(B * C * N), *y = zeros(B * C * N);
  float *want = zeros(B * C * N), *back = zeros(B * C * N), *w = numbers(C), *b = numbers(C);
  for (int i = 0; i < B * C * N; i++) x[i] += 100; /* a mean that f32 must not lose */
  for (int i = 0; i < B * C * N; i++) last[(i / (C * N) * N + i % N) * C + i / N % C] = x[i];
  for (int g = 0; g < 4; g++) {
    int64_t n = (int64_t)C / groups[g] * N;
    for (int64_t at = 0; at < (int64_t)B * C * N; at += n) {
      double mean = 0, var = 0;
      for (int64_t i = at; i < at + n; i++) mean += (double)x[i] / (double)n;
      for (int64_t i = at; i < at + n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
      for (int64_t i = at; i < at + n; i++)
        want[i] = (float)(((double)x[i] - mean) / sqrt(var + 1e-5) * (double)w[i / N % C] +
                          (double)b[i / N % C]);
    }
    EACH_SET(c, 2) {
      c->group_norm(c, x, w, b, 1e-5f, groups[g], B, C, N, VIV_CHANNELS_FIRST, y);
      near(c, "group_norm", y, want, B * C * N, 1e-5);
      memcpy(y, last, (size_t)(B * C * N) * sizeof *y);
      c->group_norm(c, y, w, b, 1e-5f, groups[g], B, C, N, VIV_CHANNELS_LAST, y);
      for (int i = 0; i < B * C * N; i++) back[i] = y[(i / (C * N) * N + i % N) * C + i / N % C];
      near(c, "group_norm, channels last", back, want, B * C * N, 1e-5);
    }
  }
  free(x);
  free(last);
  free(y);
  free(want);
  free(back);
  free(w);
  free(b);
}

Test(maps, snake_from_tiny_to_huge) {
  enum { C = 5, N = 1000 };
  static const float alpha[C] = {1, -0.7f, 12, 0, 1e-4f};
  float *x = numbers(C * N), *y = zeros(C * N);
  for (int i = 0; i < C * N; i++) x[i] *= powf(10, (float)(i % 8) - 2);
  EACH_SET(c, 2) {
    c->snake(c, x, alpha, 1, C, N, y);
    for (int i = 0; i < C * N; i++) {
      double s = sin((double)(alpha[i / N] * x[i]));
      double want = (double)x[i] + s * s / (double)(alpha[i / N] + 1e-9f);
      double atol = 4e-7 * fmax(fabs(want), fabs(s * s / (double)(alpha[i / N] + 1e-9f)));
      cr_assert(fabs((double)y[i] - want) <=
                    atol + 2e-7 / fabs((double)(alpha[i / N] + 1e-9f)) * fabs(s),
                "%s: snake(%g, %g) = %.9g, not %.9g", viv__compute_isa(c), x[i], alpha[i / N], y[i],
                want);
    }
  }
  free(x);
  free(y);
}
