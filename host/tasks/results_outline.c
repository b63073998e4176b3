/* Masks as polygons: their outlines along the edges of pixels, with fewer corners if so wanted. */
#include <math.h>
#include <string.h>

#include "tasks/results.h"

struct mask {
  const uint8_t *x; /* [h, w] */
  int64_t h, w;
};

struct corner {
  double x, y;
};

static bool inside(const struct mask *m, int64_t y, int64_t x) {
  return y >= 0 && y < m->h && x >= 0 && x < m->w && m->x[y * m->w + x];
}

/* Along the outline that begins with the upper edge of a pixel, the inside at the right hand, until it
 * closes. Pixels that touch in a corner alone are not joined. Upper edges that are passed are marked. */
static void follow(const struct mask *m, int64_t y, int64_t x, uint8_t *seen, viv__buf *out) {
  static const int64_t ahead[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}}; /* x, y: east first */
  /* The pixels at the left and the right hand ahead of a corner, from the corner. */
  static const int64_t left[4][2] = {{0, -1}, {0, 0}, {-1, 0}, {-1, -1}};
  static const int64_t right[4][2] = {{0, 0}, {-1, 0}, {-1, -1}, {0, -1}};
  int64_t at[2] = {x, y};
  int way = 0;
  struct corner first = {(double)x, (double)y};
  viv__buf_add(out, &first, sizeof first);
  do {
    if (way == 0) seen[at[1] * m->w + at[0]] = 1;
    at[0] += ahead[way][0];
    at[1] += ahead[way][1];
    int turn = !inside(m, at[1] + right[way][1], at[0] + right[way][0]) ? 1
               : inside(m, at[1] + left[way][1], at[0] + left[way][0])  ? 3
                                                                        : 0;
    if (!turn) continue;
    way = (way + turn) % 4;
    if (way == 0 && at[0] == x && at[1] == y) break;
    struct corner c = {(double)at[0], (double)at[1]};
    viv__buf_add(out, &c, sizeof c);
  } while (!out->failed && !(way == 0 && at[0] == x && at[1] == y));
}

static double away(struct corner p, struct corner a, struct corner b) {
  double dx = b.x - a.x, dy = b.y - a.y, n = dx * dx + dy * dy;
  double t = n > 0 ? fmin(1, fmax(0, ((p.x - a.x) * dx + (p.y - a.y) * dy) / n)) : 0;
  return hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/* Douglas and Peucker: keeps of the corners between first and last those that the line between kept
 * ones would miss by more than the tolerance. Corner n is corner 0 again. */
static void thin(const struct corner *c, size_t n, size_t first, size_t last, double tolerance,
                 uint8_t *keep) {
  while (last - first > 1) {
    double most = tolerance;
    size_t at = 0;
    for (size_t i = first + 1; i < last; i++) {
      double d = away(c[i], c[first], c[last % n]);
      if (d > most) {
        most = d;
        at = i;
      }
    }
    if (!at) return;
    keep[at] = 1;
    /* The shorter part by recursion, so that it goes no deeper than log2 of the corners. */
    if (at - first < last - at) {
      thin(c, n, first, at, tolerance, keep);
      first = at;
    } else {
      thin(c, n, at, last, tolerance, keep);
      last = at;
    }
  }
}

static double area(const struct corner *c, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    struct corner a = c[i], b = c[(i + 1) % n];
    sum += a.x * b.y - b.x * a.y;
  }
  return sum / 2;
}

/* One closed outline as [x0, y0, x1, y1, ...]. NULL: no memory. */
static cJSON *ring(const struct corner *c, size_t n, double tolerance) {
  uint8_t *keep = viv__calloc(n, 1);
  cJSON *list = keep ? cJSON_CreateArray() : NULL;
  size_t far = 0, kept = 0;
  for (size_t i = 1; keep && i < n; i++)
    if (hypot(c[i].x - c[0].x, c[i].y - c[0].y) > hypot(c[far].x - c[0].x, c[far].y - c[0].y))
      far = i;
  if (keep) {
    keep[0] = keep[far] = 1;
    thin(c, n, 0, far, tolerance, keep);
    thin(c, n, far, n, tolerance, keep);
  }
  for (size_t i = 0; keep && i < n; i++) kept += keep[i];
  bool whole = !(tolerance > 0) || kept < 3; /* nothing would be left */
  for (size_t i = 0; list && i < n; i++) {
    if (!whole && !keep[i]) continue;
    cJSON_AddItemToArray(list, cJSON_CreateNumber(c[i].x));
    cJSON_AddItemToArray(list, cJSON_CreateNumber(c[i].y));
  }
  viv__free(keep);
  return list;
}

int32_t viv__mask_polygons(const uint8_t *mask, int64_t h, int64_t w, double tolerance,
                           cJSON *outer, cJSON *holes, viv_error *error) {
  struct mask m = {mask, h, w};
  uint8_t *seen = viv__calloc((size_t)(h * w) + 1, 1);
  bool failed = !seen;
  for (int64_t y = 0; y < h && !failed; y++)
    for (int64_t x = 0; x < w && !failed; x++) {
      if (seen[y * w + x] || !inside(&m, y, x) || inside(&m, y - 1, x)) continue;
      viv__buf corners = {0};
      follow(&m, y, x, seen, &corners);
      const struct corner *c = (const struct corner *)(const void *)corners.ptr;
      size_t n = corners.len / sizeof *c;
      bool hole = !corners.failed && area(c, n) < 0;
      cJSON *list = corners.failed || (hole && !holes) ? NULL : ring(c, n, tolerance);
      failed = corners.failed || (!list && (!hole || holes));
      if (list) cJSON_AddItemToArray(hole ? holes : outer, list);
      viv__buf_free(&corners);
    }
  viv__free(seen);
  return failed ? VIV_FAIL(error, VIV_NOT_NOW, "masks", "no memory") : VIV_OK;
}
