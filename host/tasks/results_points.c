/* Depth as a cloud of coloured points: binary PLY, which viewers and tools of 3-D read. */
#include <math.h>

#include "tasks/results.h"

/* Of inverse depth only what is nearer than 1/100 of the nearest is kept: the rest is sky. */
#define FARTHEST 100.0

/* The depth of a pixel; 0: there is none. nearest: the largest inverse depth. */
static double depth_of(double value, bool inverse, double nearest) {
  if (!isfinite(value) || value <= 0) return 0;
  if (!inverse) return value;
  return value * FARTHEST < nearest ? 0 : nearest / value;
}

int32_t viv__results_points(const viv__results *r, int64_t i, const viv__picture *picture,
                            const double intrinsics[4], bool inverse, viv__buf *out,
                            viv_error *error) {
  const viv_tensor *depth = viv__result(r, i, VIV__DEPTH);
  if (!depth)
    return VIV_FAIL(error, VIV_NEVER, r->schema->name, "only depth can be given as points");
  const float *z = depth->data;
  int64_t h = depth->shape[0], w = depth->shape[1], n = 0;
  double nearest = 0;
  for (int64_t k = 0; k < h * w; k++)
    if (isfinite(z[k])) nearest = fmax(nearest, (double)z[k]);
  for (int64_t k = 0; k < h * w; k++) n += depth_of((double)z[k], inverse, nearest) > 0;
  viv__buf_fmt(out,
               "ply\nformat binary_little_endian 1.0\n"
               "comment camera frame: x right, y down, z forward%s\n"
               "element vertex %lld\nproperty float x\nproperty float y\nproperty float z\n"
               "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n",
               inverse ? "; up to a scale, the nearest point at z = 1" : "", (long long)n);
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++) {
      double d = depth_of((double)z[y * w + x], inverse, nearest);
      if (!(d > 0)) continue;
      /* Intrinsics belong to the picture, whose pixels the map may have in other numbers. */
      double u = ((double)x + 0.5) * picture->width / (double)w - 0.5;
      double v = ((double)y + 0.5) * picture->height / (double)h - 0.5;
      int64_t at = (y * picture->height / h) * picture->width + x * picture->width / w;
      const uint8_t *rgb = (const uint8_t *)picture->data + at * 3;
      float xyz[3] = {(float)((u - intrinsics[2]) / intrinsics[0] * d),
                      (float)((v - intrinsics[3]) / intrinsics[1] * d), (float)d};
      viv__buf_add(out, xyz, sizeof xyz);
      viv__buf_add(out, rgb, 3);
    }
  return out->failed ? VIV_FAIL(error, VIV_NOT_NOW, "points", "no memory") : VIV_OK;
}
