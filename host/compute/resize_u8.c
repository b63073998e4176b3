/* Resampling of 8-bit pictures, equal to the byte to the pipelines that models were trained with. Every
 * form is two passes, along rows and then across them, over tables of taps made from the same filters;
 * they differ in how weights and the picture between the passes are rounded. A pass whose size does not
 * change is left out, as the official code does. */
#include "compute/internal.h"
#include "compute/ops.h"

#include <math.h>
#include <string.h>

/* ---- filters, in double as Pillow and PyTorch have them ---- */

static double sinc(double x) {
  if (x == 0) return 1;
  x *= 3.14159265358979323846;
  return sin(x) / x;
}

static double weight_of(int32_t filter, double x) {
  double a = -0.5, t = fabs(x);
  switch (filter) {
  case VIV_BOX:
    return x > -0.5 && x <= 0.5 ? 1 : 0;
  case VIV_HAMMING:
    if (t == 0 || t >= 1) return t == 0 ? 1 : 0;
    t *= 3.14159265358979323846;
    return sin(t) / t * (0.54 + 0.46 * cos(t));
  case VIV_CUBIC:
    if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
  case VIV_LANCZOS:
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
  default:
    return t < 1 ? 1 - t : 0;
  }
}

static double support_of(int32_t filter) {
  return filter == VIV_BOX ? 0.5 : filter == VIV_CUBIC ? 2 : filter == VIV_LANCZOS ? 3 : 1;
}

/* ---- tables ---- */

struct axis {
  int32_t in, out;
  double low, high; /* the part of the source that is spread over the output */
  bool needed;
  int32_t taps; /* of an output, at most */
};

static struct axis axis_of(const viv_resize_u8 *a, int i) {
  struct axis s = {.in = i ? a->height : a->width, .out = i ? a->out_height : a->out_width};
  bool whole = a->box[0] == 0 && a->box[1] == 0 && a->box[2] == 0 && a->box[3] == 0;
  s.low = whole ? 0 : (double)(float)a->box[i];
  s.high = whole ? s.in : (double)(float)a->box[i + 2];
  s.needed = s.in != s.out || s.low != 0 || s.high != s.in;
  double scale = (s.high - s.low) / s.out;
  s.taps = (int32_t)ceil(support_of(a->filter) * (scale < 1 ? 1 : scale)) * 2 + 1;
  if (a->form == VIV_RESIZE_OPENCV) s.taps = 2;
  return s;
}

/* The taps of every output, their weights summing to 1; the largest weight of all. They come twice: as
 * doubles they would need as much room again. */
static void fill_taps(const viv_resize_u8 *a, const struct axis *s, viv__taps *t) {
  double scale = (s->high - s->low) / s->out, stretch = scale < 1 ? 1 : scale;
  double support = support_of(a->filter) * stretch, inverse = 1 / stretch, largest = 0;
  t->shift = 22;
  for (int pass = a->form == VIV_RESIZE_TORCH_INT16 ? 0 : 1; pass < 2; pass++) {
    for (int32_t o = 0; o < s->out; o++) {
      double centre = s->low + (o + 0.5) * scale, sum = 0;
      int32_t first = (int32_t)viv__max((int64_t)(centre - support + 0.5), 0);
      int32_t n = (int32_t)viv__min((int64_t)(centre + support + 0.5), s->in) - first;
      t->first[o] = first;
      t->count[o] = n;
      for (int32_t i = 0; i < n; i++)
        sum += weight_of(a->filter, (i + first - centre + 0.5) * inverse);
      for (int32_t i = 0; i < n; i++) {
        double w = weight_of(a->filter, (i + first - centre + 0.5) * inverse);
        if (sum != 0) w /= sum;
        if (w > largest) largest = w;
        if (!pass) continue;
        if (a->form == VIV_RESIZE_TORCH_FLOAT)
          t->real[(int64_t)o * t->stride + i] = (float)w;
        else
          t->fixed[(int64_t)o * t->stride + i] =
              (int32_t)((w < 0 ? -0.5 : 0.5) + w * (double)(1 << t->shift));
      }
    }
    if (pass) break;
    /* The most bits with which the largest weight still is an int16. */
    for (t->shift = 0; t->shift < 22; t->shift++)
      if ((int32_t)(0.5 + largest * (double)(1 << (t->shift + 1))) >= 1 << 15) break;
  }
}

/* OpenCV's two taps, 11 bits. Along rows the fraction is cut at the edges; across them the row is. */
static void fill_opencv(const struct axis *s, bool across, viv__taps *t) {
  double scale = 1 / ((double)s->out / s->in);
  for (int32_t o = 0; o < s->out; o++) {
    float at = (float)((o + 0.5) * scale - 0.5);
    int32_t first = (int32_t)floorf(at);
    at -= (float)first;
    if (!across && (first < 0 || first >= s->in - 1)) at = 0;
    int32_t second = first + 1;
    first = (int32_t)viv__min(viv__max(first, 0), s->in - 1);
    second = (int32_t)viv__min(viv__max(second, 0), s->in - 1);
    t->first[o] = first;
    t->count[o] = second - first + 1;
    t->fixed[2 * o] = (int32_t)lrintf((1 - at) * 2048);
    t->fixed[2 * o + 1] = (int32_t)lrintf(at * 2048);
  }
}

/* ---- scratch: two tables, then the picture between the passes ---- */

static uint64_t table_bytes(const struct axis *s) {
  return (uint64_t)s->out * (2 + (uint64_t)s->taps) * sizeof(int32_t);
}

static uint64_t resize_u8_scratch(const viv_compute *c, const viv_resize_u8 *a) {
  (void)c;
  struct axis x = axis_of(a, 0), y = axis_of(a, 1);
  uint64_t wide = a->form == VIV_RESIZE_PILLOW || a->form == VIV_RESIZE_TORCH_INT16 ? 1 : 4;
  uint64_t rows = wide * (uint64_t)a->height * (uint64_t)a->out_width * (uint64_t)a->channels;
  return table_bytes(&x) + table_bytes(&y) + rows + 64;
}

static char *table_at(char *at, const struct axis *s, viv__taps *t) {
  t->first = (int32_t *)(void *)at;
  t->count = t->first + s->out;
  t->fixed = t->count + s->out;
  t->real = (float *)(void *)t->fixed;
  t->stride = s->taps;
  return at + table_bytes(s);
}

/* ---- passes ---- */

struct picture {
  const viv__ops *ops;
  const viv_resize_u8 *a;
  viv__taps x, y;
  int32_t first_row; /* of the source that the second pass reads */
  char *between;     /* [rows from first_row, out_width, channels] */
};

static void across_range(void *ctx, int64_t begin, int64_t end) {
  const struct picture *s = ctx;
  const viv_resize_u8 *a = s->a;
  int64_t n = (int64_t)a->out_width * a->channels;
  for (int64_t r = begin; r < end; r++) {
    const uint8_t *x = a->x + (r + s->first_row) * a->width * a->channels;
    if (a->form == VIV_RESIZE_TORCH_FLOAT)
      s->ops->real_across(&s->x, x, a->out_width, a->channels, (float *)(void *)s->between + r * n);
    else if (a->form == VIV_RESIZE_OPENCV)
      s->ops->cv_across(&s->x, x, a->out_width, a->channels, (int32_t *)(void *)s->between + r * n);
    else
      s->ops->u8_across(&s->x, x, a->out_width, a->channels, (uint8_t *)s->between + r * n);
  }
}

static void down_range(void *ctx, int64_t begin, int64_t end) {
  const struct picture *s = ctx;
  const viv_resize_u8 *a = s->a;
  int64_t n = (int64_t)a->out_width * a->channels;
  for (int64_t r = begin; r < end; r++) {
    int32_t o = (int32_t)r;
    uint8_t *y = a->out + r * n;
    int64_t from = (s->y.first[o] - s->first_row) * n;
    if (a->form == VIV_RESIZE_TORCH_FLOAT) {
      s->ops->real_down(&s->y, o, (const float *)(void *)s->between + from, n, n, y);
    } else if (a->form == VIV_RESIZE_OPENCV) {
      const int32_t *top = (const int32_t *)(void *)s->between + from;
      s->ops->cv_down(&s->y, o, top, top + (s->y.count[o] - 1) * n, n, y);
    } else {
      s->ops->u8_down(&s->y, o, (const uint8_t *)s->between + from, n, n, y);
    }
  }
}

/* ---- nearest ---- */

static int32_t nearest_of(const viv_resize_u8 *a, const struct axis *s, int32_t o, double *at) {
  int32_t from;
  if (a->form == VIV_RESIZE_PILLOW) { /* Pillow adds the scale up from output to output */
    from = (int32_t)*at;
    *at += (s->high - s->low) / s->out;
  } else {
    from = (int32_t)floorf((float)o * ((float)s->in / (float)s->out));
  }
  return (int32_t)viv__min(viv__max(from, 0), s->in - 1);
}

static void nearest(const viv_resize_u8 *a) {
  struct axis x = axis_of(a, 0), y = axis_of(a, 1);
  double top = y.low + (y.high - y.low) / y.out * 0.5;
  uint8_t *out = a->out;
  for (int32_t r = 0; r < a->out_height; r++) {
    const uint8_t *row = a->x + (int64_t)nearest_of(a, &y, r, &top) * a->width * a->channels;
    double left = x.low + (x.high - x.low) / x.out * 0.5;
    for (int32_t o = 0; o < a->out_width; o++) {
      const uint8_t *from = row + (int64_t)nearest_of(a, &x, o, &left) * a->channels;
      for (int32_t c = 0; c < a->channels; c++) *out++ = from[c];
    }
  }
}

/* ---- the table ---- */

/* OpenCV turns an exact halving into the mean of 2 x 2 pixels. */
static bool halves(const viv_resize_u8 *a) {
  return a->width == 2 * a->out_width && a->height == 2 * a->out_height;
}

static void halve(const viv_resize_u8 *a) {
  int64_t ch = a->channels, row = a->width * ch;
  uint8_t *out = a->out;
  for (int32_t r = 0; r < a->out_height; r++)
    for (int32_t o = 0; o < a->out_width; o++) {
      const uint8_t *x = a->x + 2 * r * row + 2 * o * ch;
      for (int64_t c = 0; c < ch; c++)
        *out++ = (uint8_t)((x[c] + x[c + ch] + x[c + row] + x[c + ch + row] + 2) >> 2);
    }
}

/* Both passes, or the one that changes a size; the other's table copies. */
static void two_passes(const viv_compute *c, const viv_resize_u8 *a, const struct axis *x,
                       const struct axis *y) {
  struct picture s = {.ops = viv__compute_of(c)->kernels->ops, .a = a};
  int64_t n = (int64_t)a->out_width * a->channels;
  char *at = (char *)a->scratch + (64 - (uintptr_t)a->scratch % 64) % 64;
  at = table_at(at, x, &s.x);
  s.between = table_at(at, y, &s.y);
  if (a->form == VIV_RESIZE_OPENCV) {
    fill_opencv(x, false, &s.x);
    fill_opencv(y, true, &s.y);
  } else {
    fill_taps(a, x, &s.x);
    fill_taps(a, y, &s.y);
  }
  bool fixed = a->form == VIV_RESIZE_PILLOW || a->form == VIV_RESIZE_TORCH_INT16;
  int64_t work = n * 4;
  if (fixed && !y->needed) { /* straight into the result */
    s.between = (char *)a->out;
    viv__parallel(c, a->out_height, viv__grain(work), across_range, &s);
    return;
  }
  if (fixed && !x->needed) { /* from the picture itself; the source is only read */
    s.between = (char *)(uintptr_t)a->x;
    viv__parallel(c, a->out_height, viv__grain(work), down_range, &s);
    return;
  }
  s.first_row = s.y.first[0];
  int32_t end = 0;
  for (int32_t o = 0; o < a->out_height; o++)
    end = (int32_t)viv__max(end, s.y.first[o] + s.y.count[o]);
  viv__parallel(c, end - s.first_row, viv__grain(work), across_range, &s);
  viv__parallel(c, a->out_height, viv__grain(work), down_range, &s);
}

static void resize_u8(const viv_compute *c, const viv_resize_u8 *a) {
  struct axis x = axis_of(a, 0), y = axis_of(a, 1);
  if (!x.needed && !y.needed)
    memcpy(a->out, a->x, (size_t)a->height * (size_t)a->width * (size_t)a->channels);
  else if (a->filter == VIV_NEAREST)
    nearest(a);
  else if (a->form == VIV_RESIZE_OPENCV && halves(a))
    halve(a);
  else
    two_passes(c, a, &x, &y);
}

void viv__table_resize_u8(viv_compute *t) {
  t->resize_u8 = resize_u8;
  t->resize_u8_scratch = resize_u8_scratch;
}
