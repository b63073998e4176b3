/* Kernels that sample maps: resize, grid_sample, deform, roi_align. Plain C, for every instruction
 * set; included by kernels_impl.h and kernels_portable_ops.c, whose flags decide what the loops
 * become.
 *
 * A sample is a short list of taps (where, weight). The taps are made once for a tile of outputs, in
 * tables on the stack, and then run over all channels. A tap of weight 0 is not read, so that an
 * infinity outside of a sample's reach never becomes a NaN. */

/* Sixteen floats at any alignment; narrower sets take them in parts. */
typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

/* ---- resize ---- */

enum { TAP_BLOCK = 64, TAP_TABLE = 4096, TILE_MAX = 256, SEGMENT = 8192, CHANNEL_BLOCK = 128 };

struct axis {
  int64_t in, out;
  int32_t filter, align;
  bool antialias;
  double scale;   /* source elements per output element */
  double stretch; /* antialias: of the filter, 1 or more */
  float scale32;  /* nearest: official code rounds positions as f32 does */
};

/* What an output element is made from: elements [first, first + count) of the source. */
struct span {
  int64_t first, count;
  double at;   /* the position; linear and cubic: the fraction after `base` */
  double norm; /* antialias: the sum of the weights */
  int64_t base;
};

static struct axis axis_of(const viv_resize *a, int32_t i) {
  struct axis s = {.in = 1, .out = 1, .filter = VIV_NEAREST, .scale = 1, .scale32 = 1};
  if (i < 0) return s;
  s.in = a->size[i];
  s.out = a->out_size[i];
  s.filter = a->filter;
  bool smooth = s.filter == VIV_LINEAR || s.filter == VIV_CUBIC;
  s.align = a->align_corners && smooth;
  s.antialias = a->antialias && smooth;
  double given = a->scale[i];
  s.scale = given > 0 ? 1 / given : (double)s.in / (double)s.out;
  s.scale32 = given > 0 ? (float)(1 / given) : (float)s.in / (float)s.out;
  if (s.align) s.scale = s.out > 1 ? (double)(s.in - 1) / (double)(s.out - 1) : 0;
  s.stretch = s.scale > 1 ? s.scale : 1;
  return s;
}

static double filter_linear(double x) {
  x = fabs(x);
  return x < 1 ? 1 - x : 0;
}

static double filter_cubic(double x, double a) {
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double antialias_weight(const struct axis *s, const struct span *p, int64_t i) {
  double x = ((double)i - p->at + (s->align ? 0 : 0.5)) / s->stretch;
  return s->filter == VIV_LINEAR ? filter_linear(x) : filter_cubic(x, -0.5);
}

static struct span span_of(const struct axis *s, int64_t o) {
  struct span p = {.count = 1};
  if (s->filter == VIV_NEAREST) {
    p.first = viv__min((int64_t)floorf((float)o * s->scale32), s->in - 1);
  } else if (s->filter == VIV_NEAREST_EXACT) {
    p.first = viv__min((int64_t)floorf(((float)o + 0.5f) * s->scale32), s->in - 1);
  } else if (s->filter == VIV_AREA) {
    p.first = o * s->in / s->out;
    p.count = ((o + 1) * s->in + s->out - 1) / s->out - p.first;
  } else if (s->antialias) {
    double support = (s->filter == VIV_LINEAR ? 1 : 2) * s->stretch;
    p.at = s->scale * ((double)o + (s->align ? 0 : 0.5));
    p.first = viv__min(viv__max((int64_t)(p.at - support + 0.5), 0), s->in - 1);
    p.count = viv__max(viv__min((int64_t)(p.at + support + 0.5), s->in) - p.first, 1);
    for (int64_t i = p.first; i < p.first + p.count; i++) p.norm += antialias_weight(s, &p, i);
  } else {
    double x = s->align ? s->scale * (double)o : s->scale * ((double)o + 0.5) - 0.5;
    if (s->filter == VIV_LINEAR && x < 0) x = 0;
    p.base = viv__min((int64_t)floor(x), s->in - 1);
    p.at = fmin(x - (double)p.base, 1);
    int64_t reach = s->filter == VIV_CUBIC;
    p.first = viv__min(viv__max(p.base - reach, 0), s->in - 1);
    p.count = viv__max(viv__min(p.base + 1 + reach, s->in - 1), p.first) - p.first + 1;
  }
  return p;
}

/* Weights of the span's elements [from, from + n). */
static void span_weights(const struct axis *s, const struct span *p, int64_t from, int64_t n,
                         float *w) {
  if (s->antialias) {
    for (int64_t i = 0; i < n; i++)
      w[i] = p->norm != 0 ? (float)(antialias_weight(s, p, p->first + from + i) / p->norm) : 1.0f;
  } else if (s->filter == VIV_LINEAR) {
    w[0] = p->count > 1 ? (float)(1 - p->at) : 1.0f;
    if (n > 1) w[1] = (float)p->at;
  } else if (s->filter == VIV_CUBIC) { /* positions beyond the edge are the edge */
    for (int64_t i = 0; i < n; i++) w[i] = 0;
    for (int64_t t = -1; t <= 2; t++) {
      int64_t i = viv__min(viv__max(p->base + t, 0), s->in - 1) - p->first;
      w[i] += (float)filter_cubic(p->at - (double)t, -0.75);
    }
  } else {
    for (int64_t i = 0; i < n; i++) w[i] = 1.0f / (float)p->count;
  }
}

/* Outputs [begin, end) of a row and their taps; all read elements [low, high) of the source. A tile of
 * one output may have more taps than a table holds: they come in blocks. */
struct tile {
  int64_t begin, end, low, high;
  int64_t taps; /* the most of an output; the table's stride */
  int32_t first[TILE_MAX], count[TILE_MAX];
  float w[TAP_TABLE];
};

static void tile_make(struct tile *t, const struct axis *s, int64_t begin, int64_t block,
                      int64_t channels) {
  t->begin = t->end = begin;
  struct span p = span_of(s, begin);
  if (p.count > TAP_BLOCK) {
    int64_t from = block * TAP_BLOCK, n = viv__min(TAP_BLOCK, p.count - from);
    span_weights(s, &p, from, n, t->w);
    t->end++;
    t->taps = n;
    t->low = p.first + from;
    t->high = t->low + n;
    t->first[0] = 0;
    t->count[0] = (int32_t)n;
    return;
  }
  int64_t widest = (int64_t)ceil(2 * s->stretch) + 2;
  t->taps = s->filter == VIV_CUBIC ? 2 * widest : s->filter == VIV_LINEAR ? widest : 1;
  if (!s->antialias && s->filter == VIV_LINEAR) t->taps = 2;
  if (!s->antialias && s->filter == VIV_CUBIC) t->taps = 4;
  if (s->filter == VIV_AREA) t->taps = s->in / s->out + 2;
  t->taps = viv__min(viv__max(t->taps, p.count), TAP_BLOCK);
  int64_t most = viv__min(viv__min(TILE_MAX, TAP_TABLE / t->taps), s->out - begin);
  t->low = p.first;
  t->high = p.first + p.count;
  while (t->end < begin + most) {
    p = span_of(s, t->end);
    if (p.count > t->taps || (p.first + p.count - t->low) * channels > SEGMENT) break;
    int64_t i = t->end++ - begin;
    float *w = t->w + i * t->taps;
    for (int64_t k = p.count; k < t->taps; k++) w[k] = 0;
    span_weights(s, &p, 0, p.count, w);
    t->first[i] = (int32_t)(p.first - t->low);
    t->count[i] = (int32_t)p.count;
    t->high = viv__max(t->high, p.first + p.count);
  }
}

/* segment += weight * x over the tile's elements, `channels` of each pixel's `stride`. */
INLINE void segment_add(float *segment, const float *x, float weight, int64_t pixels,
                        int64_t channels, int64_t stride, bool fresh) {
  if (channels == stride) {
    channels *= pixels;
    pixels = 1;
  }
  for (int64_t i = 0; i < pixels; i++, x += stride, segment += channels) {
    if (fresh)
      for (int64_t k = 0; k < channels; k++) segment[k] = weight * x[k];
    else
      for (int64_t k = 0; k < channels; k++) segment[k] += weight * x[k];
  }
}

/* The tile's source elements, combined over the outer two axes. */
static void segment_make(const struct axis *axis, const struct span *z, const struct span *y,
                         const struct tile *t, const float *x, int64_t channels, int64_t stride,
                         float *segment) {
  bool fresh = true;
  float wz[TAP_BLOCK], wy[TAP_BLOCK];
  for (int64_t i = 0; i < z->count; i++) {
    if (i % TAP_BLOCK == 0) span_weights(axis, z, i, viv__min(TAP_BLOCK, z->count - i), wz);
    for (int64_t k = 0; k < y->count; k++) {
      if (k % TAP_BLOCK == 0) span_weights(axis + 1, y, k, viv__min(TAP_BLOCK, y->count - k), wy);
      float w = wz[i % TAP_BLOCK] * wy[k % TAP_BLOCK];
      if (w == 0 && !(fresh && i + 1 == z->count && k + 1 == y->count)) continue;
      const float *row =
          x + (((z->first + i) * axis[1].in + y->first + k) * axis[2].in + t->low) * stride;
      segment_add(segment, row, w, t->high - t->low, channels, stride, fresh);
      fresh = false;
    }
  }
}

static void tile_apply(const struct tile *t, const float *x, int64_t x_stride, int64_t channels,
                       int64_t stride, bool fresh, float *out) {
  int64_t n = t->end - t->begin, taps = t->taps;
  if (channels == 1 && x_stride == 1 && stride == 1 && taps <= 2 && fresh) {
    const int32_t *first = t->first;
    if (taps == 1) {
      for (int64_t i = 0; i < n; i++) out[i] = x[first[i]];
      return;
    }
    for (int64_t i = 0; i < n; i++) {
      int32_t second = first[i] + (t->count[i] > 1);
      out[i] = t->w[2 * i] * x[first[i]] + t->w[2 * i + 1] * x[second];
    }
    return;
  }
  for (int64_t i = 0; i < n; i++, out += stride) {
    const float *w = t->w + i * taps, *from = x + t->first[i] * x_stride;
    for (int64_t k = 0; k < channels; k++) {
      float sum = fresh ? 0.0f : out[k];
      out[k] = sum + w[0] * from[k];
    }
    for (int64_t tap = 1; tap < t->count[i]; tap++) {
      from += x_stride;
      for (int64_t k = 0; k < channels; k++) out[k] += w[tap] * from[k];
    }
  }
}

static void resize_kernel(const viv_resize *a, int64_t begin, int64_t end) {
  struct axis axis[3];
  for (int32_t i = 0; i < 3; i++) axis[i] = axis_of(a, a->dims - 3 + i);
  struct tile t;
  float segment[SEGMENT];
  int64_t all = a->channels, block = viv__min(all, CHANNEL_BLOCK);
  int64_t plane = axis[0].in * axis[1].in * axis[2].in * all;
  for (int64_t at = 0, part = 0; at < axis[2].out;) {
    tile_make(&t, &axis[2], at, part, block);
    for (int64_t r = begin; r < end; r++) {
      struct span y = span_of(&axis[1], r % axis[1].out);
      struct span z = span_of(&axis[0], r / axis[1].out % axis[0].out);
      const float *x = a->x + r / axis[1].out / axis[0].out * plane;
      float *out = a->out + (r * axis[2].out + at) * all;
      for (int64_t c = 0; c < all; c += block) {
        int64_t n = viv__min(block, all - c);
        if (z.count * y.count == 1) {
          const float *row = x + ((z.first * axis[1].in + y.first) * axis[2].in + t.low) * all;
          tile_apply(&t, row + c, all, n, all, part == 0, out + c);
          continue;
        }
        segment_make(axis, &z, &y, &t, x + c, n, all, segment);
        tile_apply(&t, segment, n, n, all, part == 0, out + c);
      }
    }
    struct span p = span_of(&axis[2], at);
    if (p.count > TAP_BLOCK && ++part * TAP_BLOCK < p.count) continue;
    part = 0;
    at = t.end;
  }
}

/* ---- grid_sample ---- */

enum { GRID_TILE = 64, GRID_TAPS = 16 };

struct grid_taps {
  int32_t n; /* pixels, rounded up to 16 with taps of weight 0 */
  int32_t per_pixel;
  int32_t at[GRID_TAPS][GRID_TILE];
  float w[GRID_TAPS][GRID_TILE];
};

static float grid_position(float x, int64_t size, int32_t align) {
  return align ? (x + 1) / 2 * (float)(size - 1) : ((x + 1) * (float)size - 1) / 2;
}

/* Brings a position to the map as the border says; zeros: only near enough to be a number. */
static float grid_border(float x, int64_t size, int32_t border, int32_t align) {
  float last = (float)(size - 1);
  if (border == VIV_BORDER_REFLECT) {
    float low = align ? 0.0f : -0.5f, span = align ? last : (float)size;
    if (span <= 0) return 0;
    float d = fabsf(x - low), extra = fmodf(d, span);
    x = fmodf(floorf(d / span), 2) == 0 ? extra + low : span - extra + low;
  }
  if (border != VIV_BORDER_ZEROS) return x > 0 ? x < last ? x : last : 0;
  return x > -4 ? x < (float)size + 4 ? x : (float)size + 4 : -4;
}

INLINE void grid_tap(struct grid_taps *t, int32_t tap, int32_t pixel, int64_t x, int64_t y, float w,
                     const viv_grid_sample *a) {
  bool inside = x >= 0 && y >= 0 && x < a->width && y < a->height;
  t->at[tap][pixel] = inside ? (int32_t)(y * a->width + x) : 0;
  t->w[tap][pixel] = inside ? w : 0;
}

static void grid_cubic(struct grid_taps *t, int32_t i, float x, float y, const viv_grid_sample *a) {
  /* The border applies to each tap, not to the position. */
  x = x > -1e6f ? x < 1e6f ? x : 1e6f : -1e6f;
  y = y > -1e6f ? y < 1e6f ? y : 1e6f : -1e6f;
  float x0 = floorf(x), y0 = floorf(y);
  int64_t at_x[4], at_y[4];
  float wx[4], wy[4];
  for (int k = 0; k < 4; k++) {
    wx[k] = (float)filter_cubic((double)(x - x0) - (k - 1), -0.75);
    wy[k] = (float)filter_cubic((double)(y - y0) - (k - 1), -0.75);
    at_x[k] = (int64_t)grid_border(x0 + (float)(k - 1), a->width, a->border, a->align_corners);
    at_y[k] = (int64_t)grid_border(y0 + (float)(k - 1), a->height, a->border, a->align_corners);
  }
  for (int k = 0; k < 16; k++)
    grid_tap(t, k, i, at_x[k % 4], at_y[k / 4], wx[k % 4] * wy[k / 4], a);
}

static void grid_make(struct grid_taps *t, const viv_grid_sample *a, const float *grid,
                      int32_t pixels) {
  t->n = (pixels + 15) / 16 * 16;
  t->per_pixel = a->filter == VIV_CUBIC ? 16 : a->filter == VIV_LINEAR ? 4 : 1;
  for (int32_t i = 0; i < t->n; i++) {
    if (i >= pixels) {
      for (int32_t k = 0; k < t->per_pixel; k++) grid_tap(t, k, i, -1, -1, 0, a);
      continue;
    }
    float x = grid_position(grid[2 * i], a->width, a->align_corners);
    float y = grid_position(grid[2 * i + 1], a->height, a->align_corners);
    if (a->filter == VIV_CUBIC) {
      grid_cubic(t, i, x, y, a);
      continue;
    }
    x = grid_border(x, a->width, a->border, a->align_corners);
    y = grid_border(y, a->height, a->border, a->align_corners);
    if (a->filter == VIV_NEAREST) {
      grid_tap(t, 0, i, (int64_t)nearbyintf(x), (int64_t)nearbyintf(y), 1, a);
      continue;
    }
    float fx = floorf(x), fy = floorf(y), lx = x - fx, ly = y - fy;
    int64_t x0 = (int64_t)fx, y0 = (int64_t)fy;
    grid_tap(t, 0, i, x0, y0, (1 - ly) * (1 - lx), a);
    grid_tap(t, 1, i, x0 + 1, y0, (1 - ly) * lx, a);
    grid_tap(t, 2, i, x0, y0 + 1, ly * (1 - lx), a);
    grid_tap(t, 3, i, x0 + 1, y0 + 1, ly * lx, a);
  }
}

static void grid_planes(const struct grid_taps *t, const viv_grid_sample *a, const float *x,
                        int64_t out_step, int32_t pixels, float *out) {
  int64_t step = (int64_t)a->height * a->width;
  for (int32_t c = 0; c < a->channels; c++, x += step, out += out_step) {
    float sum[GRID_TILE] = {0};
    for (int32_t k = 0; k < t->per_pixel; k++)
      for (int32_t i = 0; i < t->n; i++) {
        float v = x[t->at[k][i]], w = t->w[k][i];
        sum[i] += w != 0 ? w * v : 0;
      }
    memcpy(out, sum, (size_t)pixels * sizeof *out);
  }
}

static void grid_pixels(const struct grid_taps *t, const viv_grid_sample *a, const float *x,
                        int32_t pixels, float *out) {
  int64_t n = a->channels;
  for (int32_t i = 0; i < pixels; i++, out += n) {
    memset(out, 0, (size_t)n * sizeof *out);
    for (int32_t k = 0; k < t->per_pixel; k++) {
      float w = t->w[k][i];
      const float *from = x + t->at[k][i] * n;
      if (w != 0)
        for (int64_t c = 0; c < n; c++) out[c] += w * from[c];
    }
  }
}

static void grid_sample_kernel(const viv_grid_sample *a, int64_t begin, int64_t end) {
  struct grid_taps t;
  int64_t in = (int64_t)a->height * a->width * a->channels;
  int64_t plane = (int64_t)a->out_height * a->out_width;
  for (int64_t r = begin; r < end; r++) {
    int64_t batch = r / a->out_height, row = r % a->out_height;
    const float *x = a->x + batch * in;
    float *image = a->out + batch * plane * a->channels;
    for (int32_t at = 0; at < a->out_width; at += GRID_TILE) {
      int32_t n = (int32_t)viv__min(GRID_TILE, a->out_width - at);
      int64_t pixel = row * a->out_width + at;
      grid_make(&t, a, a->grid + (batch * plane + pixel) * 2, n);
      if (a->layout == VIV_CHANNELS_LAST)
        grid_pixels(&t, a, x, n, image + pixel * a->channels);
      else
        grid_planes(&t, a, x, plane, n, image + pixel);
    }
  }
}

/* ---- deform ---- */

enum { DEFORM_TAPS = 256 };

struct deform_taps {
  int32_t n;
  float w[DEFORM_TAPS];
  int64_t at[DEFORM_TAPS]; /* in floats, from the item's head of the first value */
};

/* Adds the corners of one sample that lie inside of the map; base: the level's first value. */
INLINE void deform_sample(struct deform_taps *t, float x, float y, float weight, int64_t height,
                          int64_t width, int64_t base, int64_t stride) {
  if (!(x > -1 && y > -1 && x < (float)width && y < (float)height) || weight == 0) return;
  float fx = floorf(x), fy = floorf(y), lx = x - fx, ly = y - fy;
  int64_t x0 = (int64_t)fx, y0 = (int64_t)fy;
  float w[4] = {(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx};
  for (int k = 0; k < 4; k++) {
    int64_t cx = x0 + k % 2, cy = y0 + k / 2;
    bool inside = cx >= 0 && cy >= 0 && cx < width && cy < height && w[k] != 0;
    t->w[t->n] = weight * w[k];
    t->at[t->n] = (base + cy * width + cx) * stride;
    t->n += inside;
  }
}

static void deform_add(const struct deform_taps *t, const float *value, int64_t n, bool fresh,
                       float *out) {
  int64_t d = 0;
  for (; d + 32 <= n; d += 32) {
    v16 a = {0}, b = {0};
    if (!fresh) {
      a = *(const v16 *)(out + d);
      b = *(const v16 *)(out + d + 16);
    }
    for (int32_t i = 0; i < t->n; i++) {
      const float *from = value + t->at[i] + d;
      a += t->w[i] * *(const v16 *)from;
      b += t->w[i] * *(const v16 *)(from + 16);
    }
    *(v16 *)(out + d) = a;
    *(v16 *)(out + d + 16) = b;
  }
  for (; d + 16 <= n; d += 16) {
    v16 a = {0};
    if (!fresh) a = *(const v16 *)(out + d);
    for (int32_t i = 0; i < t->n; i++) a += t->w[i] * *(const v16 *)(value + t->at[i] + d);
    *(v16 *)(out + d) = a;
  }
  if (d == n) return;
  float rest[16] = {0};
  if (!fresh) memcpy(rest, out + d, (size_t)(n - d) * sizeof *out);
  for (int32_t i = 0; i < t->n; i++)
    for (int64_t k = 0; k < n - d; k++) rest[k] += t->w[i] * value[t->at[i] + d + k];
  memcpy(out + d, rest, (size_t)(n - d) * sizeof *out);
}

static void deform_kernel(const viv_deform *a, int64_t begin, int64_t end) {
  struct deform_taps t;
  int64_t samples = (int64_t)a->levels * a->points, stride = (int64_t)a->heads * a->head_dim;
  for (int64_t item = begin; item < end; item++) {
    int64_t head = item % a->heads, batch = item / a->heads / a->queries;
    const float *value = a->value + batch * a->values * stride + head * a->head_dim;
    const float *at = a->locations + item * samples * 2, *w = a->weights + item * samples;
    float *out = a->out + item * a->head_dim;
    bool fresh = true;
    int64_t base = 0;
    t.n = 0;
    for (int32_t l = 0; l < a->levels; l++) {
      int64_t height = a->shapes[2 * l], width = a->shapes[2 * l + 1];
      for (int32_t p = 0; p < a->points; p++, at += 2, w++) {
        deform_sample(&t, at[0] * (float)width - 0.5f, at[1] * (float)height - 0.5f, *w, height,
                      width, base, stride);
        if (t.n + 4 <= DEFORM_TAPS) continue;
        deform_add(&t, value, a->head_dim, fresh, out);
        fresh = false;
        t.n = 0;
      }
      base += height * width;
    }
    deform_add(&t, value, a->head_dim, fresh, out);
  }
}

/* ---- roi_align ---- */

enum { ROI_TAPS = 256, ROI_GRID_MAX = 1024 };

struct roi_taps {
  int32_t n;
  int32_t at[ROI_TAPS];
  float w[ROI_TAPS];
};

INLINE void roi_sample(struct roi_taps *t, float x, float y, float weight, int64_t height,
                       int64_t width) {
  if (!(y >= -1 && x >= -1 && y <= (float)height && x <= (float)width)) return;
  x = x > 0 ? x : 0;
  y = y > 0 ? y : 0;
  int64_t x0 = (int64_t)x, y0 = (int64_t)y;
  int64_t x1 = x0 + 1, y1 = y0 + 1;
  if (x0 >= width - 1) {
    x0 = x1 = width - 1;
    x = (float)x0;
  }
  if (y0 >= height - 1) {
    y0 = y1 = height - 1;
    y = (float)y0;
  }
  float lx = x - (float)x0, ly = y - (float)y0;
  int64_t at[4] = {y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1};
  float w[4] = {(1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx};
  for (int k = 0; k < 4; k++) {
    t->at[t->n] = (int32_t)at[k];
    t->w[t->n] = weight * w[k];
    t->n += w[k] != 0;
  }
}

static void roi_add(const struct roi_taps *t, const float *x, int64_t channels, int64_t plane,
                    int64_t out_step, float *out) {
  for (int64_t c = 0; c < channels; c++, x += plane, out += out_step)
    for (int32_t i = 0; i < t->n; i++) *out += t->w[i] * x[t->at[i]];
}

static int64_t roi_grid(int32_t ratio, float bin) {
  if (ratio > 0) return ratio;
  float n = ceilf(bin);
  return n > 0 ? n < ROI_GRID_MAX ? (int64_t)n : ROI_GRID_MAX : 0;
}

static void roi_align_kernel(const viv_roi_align *a, int64_t begin, int64_t end) {
  struct roi_taps t;
  int64_t plane = (int64_t)a->height * a->width;
  int64_t bins = (int64_t)a->out_height * a->out_width;
  for (int64_t item = begin; item < end; item++) {
    const float *box = a->box + item / bins * 5;
    int64_t row = item % bins / a->out_width, column = item % a->out_width;
    float shift = a->aligned ? 0.5f : 0.0f;
    float x0 = box[1] * a->spatial_scale - shift, y0 = box[2] * a->spatial_scale - shift;
    float w = box[3] * a->spatial_scale - shift - x0, h = box[4] * a->spatial_scale - shift - y0;
    if (!a->aligned) {
      w = w > 1 ? w : 1;
      h = h > 1 ? h : 1;
    }
    w /= (float)a->out_width;
    h /= (float)a->out_height;
    int64_t nx = roi_grid(a->sampling_ratio, w), ny = roi_grid(a->sampling_ratio, h);
    float weight = 1.0f / (float)viv__max(nx * ny, 1);
    const float *x = a->x + (int64_t)box[0] * a->channels * plane;
    float *out = a->out + item / bins * a->channels * bins + item % bins;
    for (int64_t c = 0; c < a->channels; c++) out[c * bins] = 0;
    t.n = 0;
    for (int64_t i = 0; i < ny * nx; i++) {
      float sy = y0 + h * ((float)row + ((float)(i / nx) + 0.5f) / (float)ny);
      float sx = x0 + w * ((float)column + ((float)(i % nx) + 0.5f) / (float)nx);
      roi_sample(&t, sx, sy, weight, a->height, a->width);
      if (t.n + 4 <= ROI_TAPS) continue;
      roi_add(&t, x, a->channels, plane, bins, out);
      t.n = 0;
    }
    roi_add(&t, x, a->channels, plane, bins, out);
  }
}
