/* A window of the network's size slides over a volume of any size; where windows overlap their logits
 * are averaged, with equal weights or a Gaussian's.
 *
 *   the volume is filled up to the window, half before and the rest after, and cut back at the end
 *
 * Official: monai.inferers.sliding_window_inference. */
#include <string.h>

#include "nn/volume.h"
#include "unet3d/unet3d.h"

enum border { BORDER_CONSTANT, BORDER_REPLICATE, BORDER_REFLECT, BORDER_CIRCULAR };

struct slide {
  int32_t roi[3], size[3], before[3]; /* size: of the volume as it came; before: filled up there */
  double overlap[3];
  bool gaussian;
  int32_t border;
  float fill;
  float *weight;      /* [roi] */
  const float *x;     /* [C, size] */
  float *sum, *count; /* [classes, size], [size] */
};

static void three(nn_pass *p, const char *key, double fallback, double lo, double hi,
                  double out[3]) {
  double v[3];
  int32_t n = nn_param_numbers(p, key, v, 3);
  if (n == 2) nn_stop(p, VIV_BAD_INPUT, "params", "%s must be a number or three, it is two", key);
  for (int k = 0; k < 3; k++) {
    out[k] = n == 0 ? fallback : n == 3 ? v[k] : v[0];
    if (!(out[k] >= lo && out[k] <= hi))
      nn_stop(p, VIV_BAD_INPUT, "params", "%s is %g, but must be from %g to %g", key, out[k], lo,
              hi);
  }
}

static int32_t choice(nn_pass *p, const char *key, const char *const *names, int32_t n) {
  viv_str name = nn_param_text(p, key, names[0]);
  for (int32_t i = 0; i < n; i++)
    if (nn_is(name, names[i])) return i;
  nn_stop(p, VIV_BAD_INPUT, "params", "%s is \"%.*s\", but must be %s, %s ...", key,
          (int)(name.len < 40 ? name.len : 40), name.ptr, names[0], names[1]);
}

static void read_params(nn_pass *p, const struct u3_model *m, struct slide *s) {
  static const char *const modes[] = {"constant", "gaussian"};
  static const char *const borders[] = {"constant", "replicate", "reflect", "circular"};
  double roi[3], sigma[3];
  three(p, "roi_size", 0, -1, U3_SIDE_MAX, roi);
  three(p, "overlap", 0.25, 0, 0.99, s->overlap);
  three(p, "sigma_scale", 0.125, 1e-3, 1e3, sigma);
  bool given = nn_param(p, "roi_size") != NULL;
  for (int k = 0; k < 3; k++) {
    s->roi[k] = given ? (int32_t)roi[k] : m->roi[k];
    if (s->roi[k] < 1) s->roi[k] = s->size[k]; /* the whole axis */
    if (s->size[k] < s->roi[k]) s->before[k] = (s->roi[k] - s->size[k]) / 2;
  }
  s->gaussian = choice(p, "mode", modes, 2) == 1;
  s->border = choice(p, "padding_mode", borders, 4);
  s->fill = (float)nn_param_num(p, "cval", 0, -1e30, 1e30);
  int64_t n = (int64_t)s->roi[0] * s->roi[1] * s->roi[2];
  s->weight = nn_room(p, n);
  if (s->gaussian)
    nn_window_gaussian(s->roi, sigma, s->weight);
  else
    for (int64_t i = 0; i < n; i++) s->weight[i] = 1;
  nn_tap(p, s->weight, NN_DIMS(s->roi[0], s->roi[1], s->roi[2]), "importance_map");
}

/* The place in the volume of a place in the filled-up one; -1: the fill. */
static int64_t inside(const struct slide *s, int axis, int64_t at) {
  int64_t n = s->size[axis], i = at - s->before[axis];
  if (i >= 0 && i < n) return i;
  if (s->border == BORDER_CONSTANT) return -1;
  if (s->border == BORDER_REPLICATE) return i < 0 ? 0 : n - 1;
  if (s->border == BORDER_CIRCULAR) return (i % n + n) % n;
  int64_t period = n > 1 ? 2 * (n - 1) : 1;
  i = (i % period + period) % period;
  return i < n ? i : period - i;
}

/* The window [C, roi] that begins there. */
static void cut(const struct slide *s, const int64_t start[3], int32_t channels, float *y) {
  const int32_t *r = s->roi;
  int64_t space = (int64_t)s->size[0] * s->size[1] * s->size[2];
  for (int32_t c = 0; c < channels; c++)
    for (int64_t a = 0; a < r[0]; a++)
      for (int64_t b = 0; b < r[1]; b++) {
        int64_t i = inside(s, 0, start[0] + a), j = inside(s, 1, start[1] + b);
        const float *row = s->x + c * space + (i * s->size[1] + j) * s->size[2];
        for (int64_t d = 0; d < r[2]; d++, y++) {
          int64_t k = inside(s, 2, start[2] + d);
          *y = i < 0 || j < 0 || k < 0 ? s->fill : row[k];
        }
      }
}

/* Adds the weighted logits [roi, classes] of that window. */
static void add(const struct slide *s, const int64_t start[3], int32_t classes, const float *y) {
  const int32_t *r = s->roi;
  int64_t space = (int64_t)s->size[0] * s->size[1] * s->size[2];
  const float *w = s->weight;
  for (int64_t a = 0; a < r[0]; a++)
    for (int64_t b = 0; b < r[1]; b++)
      for (int64_t d = 0; d < r[2]; d++, y += classes, w++) {
        int64_t at[3] = {start[0] + a - s->before[0], start[1] + b - s->before[1],
                         start[2] + d - s->before[2]};
        bool in = true;
        for (int k = 0; k < 3; k++) in = in && at[k] >= 0 && at[k] < s->size[k];
        if (!in) continue;
        int64_t row = (at[0] * s->size[1] + at[1]) * s->size[2] + at[2];
        for (int32_t c = 0; c < classes; c++) s->sum[c * space + row] += *w * y[c];
        s->count[row] += *w;
      }
}

static void run_window(nn_pass *p, const struct u3_model *m, const struct slide *s,
                       const int64_t start[3]) {
  int64_t n = (int64_t)s->roi[0] * s->roi[1] * s->roi[2];
  nn_mark mark = nn_here(p);
  nn_pass_poll(p);
  float *x = nn_room(p, m->in_channels * n);
  cut(s, start, m->in_channels, x);
  nn_map y = u3_network(p, m, x, 1, s->roi);
  add(s, start, m->classes, y.x);
  nn_release(p, mark);
}

float *u3_slide(nn_pass *p, const struct u3_model *m, const float *x, const int32_t size[3]) {
  struct slide s = {.size = {size[0], size[1], size[2]}, .x = x};
  int64_t space = (int64_t)size[0] * size[1] * size[2], n[3], *starts[3], at[3];
  s.sum = nn_room(p, m->classes * space);
  nn_mark mark = nn_here(p);
  s.count = nn_room(p, space);
  memset(s.sum, 0, (size_t)(m->classes * space) * sizeof *s.sum);
  memset(s.count, 0, (size_t)space * sizeof *s.count);
  read_params(p, m, &s);
  for (int k = 0; k < 3; k++) {
    int64_t padded = size[k] > s.roi[k] ? size[k] : s.roi[k];
    n[k] = nn_window_starts(padded, s.roi[k], s.overlap[k], NULL);
    starts[k] = nn_bytes(p, n[k], sizeof *starts[k]);
    nn_window_starts(padded, s.roi[k], s.overlap[k], starts[k]);
  }
  int64_t total = n[0] * n[1] * n[2];
  for (int64_t i = 0; i < total; i++) {
    at[0] = starts[0][i / (n[1] * n[2])];
    at[1] = starts[1][i / n[2] % n[1]];
    at[2] = starts[2][i % n[2]];
    run_window(p, m, &s, at);
    nn_progress(p, (double)(i + 1) / (double)total);
  }
  for (int32_t c = 0; c < m->classes; c++)
    for (int64_t i = 0; i < space; i++) s.sum[c * space + i] /= s.count[i];
  nn_release(p, mark);
  return s.sum;
}
