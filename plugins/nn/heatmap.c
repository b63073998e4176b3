/* Crops around persons, and keypoints from heat maps. */
#include "nn/heatmap.h"

#include <float.h>
#include <math.h>

enum { MAX_RADIUS = 64 };

/* ---- crops ---- */

/* Numbers are rounded to f32 where the official code keeps them so: results are compared to the
 * pixel. */
nn_crop nn_crop_of(const float box[4], int64_t width, int64_t height) {
  double aspect = (double)width / (double)height;
  double w = (double)box[2], h = (double)box[3];
  nn_crop c = {.centre = {(float)((double)box[0] + w * 0.5), (float)((double)box[1] + h * 0.5)}};
  if (w > aspect * h)
    h = w / aspect;
  else if (w < aspect * h)
    w = h * aspect;
  c.scale[0] = (float)(w / 200.0) * 1.25f;
  c.scale[1] = (float)(h / 200.0) * 1.25f;
  return c;
}

void nn_crop_matrix(const nn_crop *crop, int64_t width, int64_t height, float matrix[6]) {
  double size[2] = {(double)width, (double)height}, factor[2], shift[2];
  for (int i = 0; i < 2; i++) {
    double target = (double)(crop->scale[i] * 200.0f), middle = (double)(crop->centre[i] * 2.0f);
    factor[i] = (size[i] - 1.0) / target;
    shift[i] = factor[i] * (-0.5 * middle + 0.5 * target);
  }
  matrix[0] = (float)factor[0];
  matrix[1] = 0;
  matrix[2] = (float)shift[0];
  matrix[3] = 0;
  matrix[4] = (float)factor[1];
  matrix[5] = (float)shift[1];
}

static double lerp(double a, double b, double t) {
  return a * (1 - t) + b * t;
}

void nn_crop_pixels(const uint8_t *picture, int64_t height, int64_t width, const float matrix[6],
                    int64_t out_height, int64_t out_width, uint8_t *out) {
  double sx = 1.0 / (double)matrix[0], sy = 1.0 / (double)matrix[4];
  double ox = -(double)matrix[2] * sx, oy = -(double)matrix[5] * sy;
  for (int64_t i = 0; i < out_height; i++) {
    double y = (double)i * sy + oy;
    for (int64_t j = 0; j < out_width; j++, out += 3) {
      double x = (double)j * sx + ox;
      /* The negated form also refuses what is no number. */
      if (!(x >= 0 && y >= 0 && x <= (double)(width - 1) && y <= (double)(height - 1))) {
        out[0] = out[1] = out[2] = 0;
        continue;
      }
      int64_t x0 = (int64_t)x, y0 = (int64_t)y;
      int64_t x1 = x0 + 1 < width ? x0 + 1 : x0, y1 = y0 + 1 < height ? y0 + 1 : y0;
      double fx = x - (double)x0, fy = y - (double)y0;
      for (int64_t c = 0; c < 3; c++) {
        double upper =
            lerp(picture[(y0 * width + x0) * 3 + c], picture[(y0 * width + x1) * 3 + c], fx);
        double lower =
            lerp(picture[(y1 * width + x0) * 3 + c], picture[(y1 * width + x1) * 3 + c], fx);
        out[c] = (uint8_t)(lerp(upper, lower, fy) + 0.5);
      }
    }
  }
}

/* ---- heat maps ---- */

/* d c b a | a b c d | d c b a */
static int64_t reflect(int64_t i, int64_t n) {
  int64_t at = i % (2 * n);
  if (at < 0) at += 2 * n;
  return at < n ? at : 2 * n - 1 - at;
}

/* y = x [n lines] blurred along a line of `count` cells that stand `step` apart. */
static void blur_line(const double *x, int64_t count, int64_t step, const double *weight,
                      int32_t radius, double *y) {
  for (int64_t i = 0; i < count; i++) {
    double sum = 0;
    for (int32_t k = -radius; k <= radius; k++)
      sum += weight[k + radius] * x[reflect(i + k, count) * step];
    y[i * step] = sum;
  }
}

static double log_at(const double *map, int64_t height, int64_t width, int64_t x, int64_t y) {
  x = x < 0 ? 0 : x >= width ? width - 1 : x;
  y = y < 0 ? 0 : y >= height ? height - 1 : y;
  double v = map[y * width + x];
  return log(v < 0.001 ? 0.001 : v > 50 ? 50 : v);
}

float nn_heatmap_keypoint(const float *map, int64_t height, int64_t width, int32_t kernel,
                          double *room, int32_t peak[2], double refined[2]) {
  int64_t n = height * width, best = 0;
  for (int64_t i = 1; i < n; i++)
    if (map[i] > map[best]) best = i;
  float score = map[best];
  peak[0] = peak[1] = -1;
  refined[0] = refined[1] = -1;
  if (!(score > 0)) return score;
  peak[0] = (int32_t)(best % width);
  peak[1] = (int32_t)(best / width);

  double weight[2 * MAX_RADIUS + 1], sum = 0;
  int32_t radius = (kernel - 1) / 2;
  if (radius > MAX_RADIUS) radius = MAX_RADIUS;
  for (int32_t k = -radius; k <= radius; k++)
    sum += weight[k + radius] = exp(-0.5 / (0.8 * 0.8) * (double)k * (double)k);
  for (int32_t k = 0; k <= 2 * radius; k++) weight[k] /= sum;
  double *blurred = room, *half = room + n;
  for (int64_t i = 0; i < n; i++) blurred[i] = (double)map[i];
  for (int64_t j = 0; j < width; j++)
    blur_line(blurred + j, height, width, weight, radius, half + j);
  for (int64_t i = 0; i < height; i++)
    blur_line(half + i * width, width, 1, weight, radius, blurred + i * width);

  int64_t x = peak[0], y = peak[1];
#define L(dx, dy) log_at(blurred, height, width, x + (dx), y + (dy))
  double here = L(0, 0), dx = 0.5 * (L(1, 0) - L(-1, 0)), dy = 0.5 * (L(0, 1) - L(0, -1));
  double dxx = L(1, 0) - 2 * here + L(-1, 0) + (double)FLT_EPSILON;
  double dyy = L(0, 1) - 2 * here + L(0, -1) + (double)FLT_EPSILON;
  double dxy = 0.5 * (L(1, 1) - L(1, 0) - L(0, 1) + 2 * here - L(-1, 0) - L(0, -1) + L(-1, -1));
#undef L
  double det = dxx * dyy - dxy * dxy;
  refined[0] = (double)x;
  refined[1] = (double)y;
  if (det == 0) return score; /* flat: nowhere to step to */
  refined[0] -= (dyy * dx - dxy * dy) / det;
  refined[1] -= (dxx * dy - dxy * dx) / det;
  return score;
}

void nn_heatmap_to_picture(const nn_crop *crop, int64_t height, int64_t width,
                           const double refined[2], float out[2]) {
  int64_t size[2] = {width, height};
  for (int i = 0; i < 2; i++) {
    double span = (double)(crop->scale[i] * 200.0f);
    double step = span / ((double)size[i] - 1.0);
    out[i] = (float)(refined[i] * step + (double)crop->centre[i] - span * 0.5);
  }
}
