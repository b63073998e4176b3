/* Slices to pixels in [0, 1], and classes back at the picture's size. */
#include <string.h>

#include "nn/picture.h"
#include "unet/daf.h"

/* H/4 and W/4 must be even and at least 4. */
enum { SIDE_STEP = 8, SIDE_MIN = 16, SIDE_MAX = 1 << 13 };

/* Grey levels (as Pillow's mode L) or colours, times factor, into x [channels, height, width]; what
 * lies outside the slice is zero. */
static void prepare(const nn_pixels *s, int32_t channels, double factor, int32_t height,
                    int32_t width, float *x) {
  memset(x, 0, (size_t)channels * (size_t)height * (size_t)width * sizeof *x);
  for (int64_t y = 0; y < s->height; y++)
    for (int64_t j = 0; j < s->width; j++) {
      const uint8_t *rgb = s->x + (y * s->width + j) * 3;
      int32_t grey = (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
      for (int64_t c = 0; c < channels; c++)
        x[(c * height + y) * width + j] = (float)((channels == 1 ? grey : rgb[c]) * factor);
    }
}

static double factor_of(nn_pass *p) {
  const struct daf_model *m = nn_net_of(p);
  if (m->in_channels != 1 && m->in_channels != 3)
    nn_stop(p, VIV_BAD_INPUT, "image", "this network takes %d channels: give pixel_values",
            (int)m->in_channels);
  return nn_param_num(p, "rescale_factor", 1.0 / 255, 1e-12, 1e12);
}

static nn_map map_of(const struct daf_model *m, const float *x, int64_t n, int64_t height,
                     int64_t width) {
  return (nn_map){.x = (float *)(uintptr_t)x, /* read only */
                  .batch = (int32_t)n,
                  .channels = m->in_channels,
                  .dims = 2,
                  .size = {(int32_t)height, (int32_t)width, 1},
                  .layout = VIV_CHANNELS_FIRST};
}

static int32_t preprocess(nn_pass *p) {
  const struct daf_model *m = nn_net_of(p);
  double factor = factor_of(p);
  nn_pixels s = nn_picture_at(p, "image", 0, SIDE_MAX);
  float *x = nn_room(p, (int64_t)m->in_channels * s.height * s.width);
  prepare(&s, m->in_channels, factor, s.height, s.width, x);
  nn_result(p, VIV_F32, x, NN_DIMS(1, m->in_channels, s.height, s.width), "pixel_values");
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct daf_model *m = nn_net_of(p);
  int64_t shape[4] = {0, m->in_channels, 0, 0};
  const float *x = nn_need_floats(p, "pixel_values", 4, shape);
  for (int i = 2; i < 4; i++)
    if (shape[i] % SIDE_STEP || shape[i] < SIDE_MIN || shape[i] > SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "%lld x %lld pixels: both must be multiples of %d from %d to %d", (long long)shape[2],
              (long long)shape[3], SIDE_STEP, SIDE_MIN, SIDE_MAX);
  if (shape[0] < 1 || shape[0] > 1 << 16)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "a batch of %lld slices", (long long)shape[0]);
  nn_map in = map_of(m, x, shape[0], shape[2], shape[3]);
  nn_map y = daf_network(p, m, &in);
  y = nn_to_layout(p, &y, VIV_CHANNELS_FIRST);
  nn_result(p, VIV_F32, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "logits");
  return VIV_DONE;
}

static int32_t padded(int32_t side) {
  int32_t up = (side + SIDE_STEP - 1) / SIDE_STEP * SIDE_STEP;
  return up < SIDE_MIN ? SIDE_MIN : up;
}

/* The likeliest class of each pixel; the slice is filled up with zeros at its right and lower edge. */
static int32_t segment(nn_pass *p) {
  const struct daf_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  double factor = factor_of(p);
  int32_t n = nn_count(p, "image");
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  for (int32_t i = 0; i < n; i++) {
    nn_mark mark = nn_here(p);
    nn_pixels s = nn_picture_at(p, "image", i, SIDE_MAX);
    int32_t height = padded(s.height), width = padded(s.width);
    float *x = nn_room(p, (int64_t)m->in_channels * height * width);
    prepare(&s, m->in_channels, factor, height, width, x);
    nn_map in = map_of(m, x, 1, height, width), y = daf_network(p, m, &in);
    int32_t *best = nn_bytes(p, nn_space(&y), sizeof *best);
    int32_t *labels = nn_bytes(p, (int64_t)s.height * s.width, sizeof *labels);
    c->top_k(c, y.x, nn_space(&y), m->classes, 1, NULL, best);
    for (int64_t r = 0; r < s.height; r++)
      memcpy(labels + r * s.width, best + r * width, (size_t)s.width * sizeof *labels);
    nn_result(p, VIV_I32, labels, NN_DIMS(s.height, s.width), "labels.%d", (int)i);
    nn_release(p, mark);
  }
  return VIV_DONE;
}

const nn_task daf_tasks[] = {
    {"segment", segment}, {"forward", forward}, {"preprocess", preprocess}, {NULL, NULL}};
