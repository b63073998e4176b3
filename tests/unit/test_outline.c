/* Masks as polygons: the even-odd rule gives the mask back, and fewer corners miss it by no more than
 * was allowed. */
#include <criterion/criterion.h>
#include <math.h>

#include "base/base.h"
#include "tasks/results.h"

enum { H = 23, W = 31 };

/* How often a ray to the right from a pixel's middle crosses the polygons. */
static int crossings(const cJSON *rings, double x, double y) {
  const cJSON *ring;
  int n = 0;
  cJSON_ArrayForEach(ring, rings) {
    int k = cJSON_GetArraySize(ring) / 2;
    double c[2 * H * W];
    const cJSON *number = ring->child;
    for (int i = 0; i < 2 * k; i++, number = number->next) c[i] = number->valuedouble;
    for (int i = 0; i < k; i++) {
      const double *a = c + 2 * i, *b = c + 2 * ((i + 1) % k);
      if ((a[1] > y) == (b[1] > y)) continue;
      n += x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]);
    }
  }
  return n;
}

static int wrong(const uint8_t *mask, const cJSON *outer, const cJSON *holes) {
  int n = 0;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++)
      n += ((crossings(outer, x + .5, y + .5) + crossings(holes, x + .5, y + .5)) % 2 != 0) !=
           (mask[y * W + x] != 0);
  return n;
}

Test(outline, any_mask_comes_back) {
  uint8_t mask[H * W];
  uint32_t seed = 1;
  for (int round = 0; round < 40; round++) {
    cJSON *outer = cJSON_CreateArray(), *holes = cJSON_CreateArray();
    for (int i = 0; i < H * W; i++) {
      seed = seed * 1664525u + 1013904223u;
      mask[i] = (seed >> 16) % 40 < (uint32_t)round;
    }
    cr_assert_eq(viv__mask_polygons(mask, H, W, 0, outer, holes, NULL), VIV_OK);
    cr_assert_eq(wrong(mask, outer, holes), 0, "round %d", round);
    cJSON_Delete(outer);
    cJSON_Delete(holes);
  }
}

static int corners(const cJSON *rings) {
  const cJSON *ring;
  int n = 0;
  cJSON_ArrayForEach(ring, rings) n += cJSON_GetArraySize(ring) / 2;
  return n;
}

/* A ring between two circles: an outer outline and a hole. */
Test(outline, fewer_corners_miss_little) {
  uint8_t mask[H * W];
  int before = 1 << 20;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) {
      double r = hypot(x - 15, y - 11);
      mask[y * W + x] = r < 10 && r > 4;
    }
  for (int t = 0; t < 3; t++) {
    cJSON *outer = cJSON_CreateArray(), *holes = cJSON_CreateArray();
    viv__mask_polygons(mask, H, W, 0.8 * t, outer, holes, NULL);
    cr_assert_eq(cJSON_GetArraySize(outer), 1);
    cr_assert_eq(cJSON_GetArraySize(holes), 1);
    int n = corners(outer) + corners(holes);
    cr_assert_lt(n, before, "%d corners at %g pixels, %d before", n, 0.8 * t, before);
    cr_assert_leq(wrong(mask, outer, holes), 0.8 * t * n * 4); /* a strip along the lines */
    before = n;
    cJSON_Delete(outer);
    cJSON_Delete(holes);
  }
}

/* However much may be missed, a pixel stays one, and nothing has no outline. */
Test(outline, small_things_stay) {
  uint8_t mask[H * W] = {0};
  cJSON *outer = cJSON_CreateArray();
  cr_assert_eq(viv__mask_polygons(mask, H, W, 5, outer, NULL, NULL), VIV_OK);
  cr_assert_eq(cJSON_GetArraySize(outer), 0);
  mask[H * W - 1] = 1;
  cr_assert_eq(viv__mask_polygons(mask, H, W, 5, outer, NULL, NULL), VIV_OK);
  cr_assert_eq(corners(outer), 4);
  cJSON_Delete(outer);
}
