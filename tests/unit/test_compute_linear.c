/* linear: every instruction set and dtype against a plain reference in double, and STRICT to the bit. */
#include "compute_rt.h"

static void linear_case(const viv_compute *c, const viv_compute *two, const viv_compute *three,
                        int32_t dtype, int64_t in, int64_t out, int crooked) {
  enum { ROWS = 70 };
  size_t size = viv__dtype_size(dtype);
  viv_arena *arena = viv__arena_new(0);
  float *w32 = numbers(in * out), *x = numbers(ROWS * in), *bias = numbers(out);
  char *raw = malloc((size_t)(in * out) * size + 8), *w = raw + crooked;
  c->store(c, dtype, w32, w, in * out);
  c->load(c, dtype, w, w32, in * out);
  viv_tensor t = tensor_of(w, dtype, out, in);
  viv_weight *weight = NULL;
  cr_assert_eq(c->weight_prepare(c, arena, &t, 0, &weight, NULL), VIV_OK);

  float *y = zeros(ROWS * out), *other = zeros(ROWS * out + 1);
  c->linear(c, weight, bias, x, y, ROWS);
  for (int64_t r = 0; r < ROWS; r++)
    for (int64_t o = 0; o < out; o++) {
      double want = bias[o], scale = fabs(want);
      for (int64_t k = 0; k < in; k++) {
        want += (double)x[r * in + k] * w32[o * in + k];
        scale += fabs((double)x[r * in + k] * w32[o * in + k]);
      }
      cr_assert(fabs(y[r * out + o] - want) <= 5e-7 * scale,
                "%s, linear %lldx%lld dtype %d: [%lld, %lld] is %.9g, not %.9g",
                viv__compute_isa(c), (long long)out, (long long)in, dtype, (long long)r,
                (long long)o, y[r * out + o], want);
    }
  for (int64_t rows = 1; rows <= ROWS; rows++) {
    const viv_compute *with = rows % 3 == 0 ? c : rows % 3 == 1 ? two : three;
    other[rows * out] = 77;
    with->linear(with, weight, bias, x + (ROWS - rows) * in, other, rows);
    cr_assert_eq(other[rows * out], 77);
    same(c, "linear", other, y + (ROWS - rows) * out, rows * out);
  }
  c->linear(c, weight, NULL, x, other, 1);
  for (int64_t o = 0; o < out; o++) other[o] += bias[o];
  near(c, "linear without bias", other, y, out, 1e-6);
  free(w32);
  free(x);
  free(bias);
  free(raw);
  free(y);
  free(other);
  viv__arena_free(arena);
}

Test(compute, linear) {
  static const int64_t shape[][2] = {{1, 1},    {3, 2},  {16, 8},   {17, 9},  {64, 35},
                                     {100, 70}, {15, 5}, {257, 41}, {31, 300}};
  EACH_SET(c, 1) {
    const viv_compute *two = table(isa, 2), *three = table(isa, 3);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
      for (int32_t d = 0; d < 3; d++)
        linear_case(c, two, three,
                    d == 0   ? VIV_F32
                    : d == 1 ? VIV_F16
                             : VIV_BF16,
                    shape[i][0], shape[i][1], (int)(i % 2) * (d == 0 ? 2 : 1));
    linear_case(c, two, three, VIV_BF16, 1030, 203, 0); /* several chunks, several threads */
    linear_case(c, two, three, VIV_F32, 3001, 40, 1);   /* several blocks of rows */
    viv__compute_free(two);
    viv__compute_free(three);
  }
}

/* A NaN or an infinity in a row of x stays in that row, one in the weights in its output. */
static void odd_numbers(const viv_compute *c, int32_t dtype, int64_t in, int64_t out, int64_t rows,
                        float odd) {
  viv_arena *arena = viv__arena_new(0);
  float *w32 = numbers(in * out), *x = numbers(rows * in), *y = zeros(rows * out);
  float *plain = zeros(rows * out);
  char *w = malloc((size_t)(in * out) * viv__dtype_size(dtype));
  for (int where = 0; where < 2; where++) {
    viv_tensor t = tensor_of(w, dtype, out, in);
    viv_weight *weight = NULL;
    int64_t row = rows / 2, output = out - 1, k = in - 1;
    float kept = where ? w32[output * in + k] : x[row * in + k];
    c->store(c, dtype, w32, w, in * out);
    cr_assert_eq(c->weight_prepare(c, arena, &t, 0, &weight, NULL), VIV_OK);
    c->linear(c, weight, NULL, x, plain, rows);
    if (where) {
      w32[output * in + k] = odd;
      c->store(c, dtype, w32, w, in * out);
      cr_assert_eq(c->weight_prepare(c, arena, &t, 0, &weight, NULL), VIV_OK);
    } else {
      x[row * in + k] = odd;
    }
    c->linear(c, weight, NULL, x, y, rows);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t o = 0; o < out; o++) {
        float got = y[r * out + o];
        if (where ? o == output : r == row)
          cr_assert(isnan(odd) ? isnan(got) : !isfinite(got), "%s, dtype %d: [%lld, %lld] is %g",
                    viv__compute_isa(c), dtype, (long long)r, (long long)o, (double)got);
        else
          cr_assert_eq(got, plain[r * out + o], "%s, dtype %d: [%lld, %lld] was touched",
                       viv__compute_isa(c), dtype, (long long)r, (long long)o);
      }
    *(where ? &w32[output * in + k] : &x[row * in + k]) = kept;
  }
  free(w32);
  free(x);
  free(y);
  free(plain);
  free(w);
  viv__arena_free(arena);
}

Test(compute, linear_keeps_odd_numbers_apart) {
  static const int32_t dtypes[] = {VIV_F32, VIV_F16, VIV_BF16};
  static const float odd[] = {NAN, INFINITY, -INFINITY};
  EACH_SET(c, 2) {
    for (int d = 0; d < 3; d++)
      for (int i = 0; i < 3; i++)
        for (int64_t rows = 1; rows < 20; rows += 6)
          odd_numbers(c, dtypes[d], 5 + 16 * i, 13 + d, rows, odd[i]);
  }
}

/* linear_to over many rows takes another way: strided rows that stay clear of what lies between them,
 * every dtype, a residual in place, an activation, STRICT among two rows and more, a NaN that stays in
 * its row. */
static void many_rows(const viv_compute *c, int32_t dtype, int64_t in, int64_t out, int64_t rows,
                      int crooked) {
  viv_arena *arena = viv__arena_new(0);
  int64_t xs = in + 3, ys = out + 2;
  float *w32 = numbers(in * out), *x = numbers(rows * xs), *bias = numbers(out);
  float *y = numbers(rows * ys), *before = numbers(rows * ys);
  char *raw = malloc((size_t)(in * out) * viv__dtype_size(dtype) + 8), *w = raw + crooked;
  c->store(c, dtype, w32, w, in * out);
  c->load(c, dtype, w, w32, in * out);
  viv_tensor t = tensor_of(w, dtype, out, in);
  viv_weight *weight = NULL;
  cr_assert_eq(c->weight_prepare(c, arena, &t, 0, &weight, NULL), VIV_OK);
  for (int act = 0; act < 2; act++) {
    memcpy(y, before, (size_t)(rows * ys) * sizeof *y);
    c->linear_to(c, weight, bias, act ? VIV_RELU : 0, act ? NULL : y, x, xs, y, ys, rows);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t o = 0; o < ys; o++) {
        double want = before[r * ys + o], scale = 1;
        if (o < out) {
          want = bias[o] + (act ? 0.0 : want);
          for (int64_t k = 0; k < in; k++) {
            want += (double)x[r * xs + k] * w32[o * in + k];
            scale += fabs((double)x[r * xs + k] * w32[o * in + k]);
          }
          if (act) want = fmax(want, 0.0);
        }
        cr_assert(fabs(y[r * ys + o] - want) <= 5e-7 * scale,
                  "%s, linear_to %lldx%lld dtype %d: [%lld, %lld] is %.9g, not %.9g",
                  viv__compute_isa(c), (long long)out, (long long)in, dtype, (long long)r,
                  (long long)o, y[r * ys + o], want);
      }
  }
  float *other = zeros(rows * ys);
  c->linear_to(c, weight, NULL, 0, NULL, x, xs, y, ys, rows);
  for (int64_t some = 2; some < rows; some = some * 3 - 1) {
    int64_t first = rows - some;
    c->linear_to(c, weight, NULL, 0, NULL, x + first * xs, xs, other, ys, some);
    for (int64_t r = 0; r < some; r++)
      same(c, "linear_to", other + r * ys, y + (first + r) * ys, out);
  }
  x[rows / 2 * xs + in - 1] = NAN;
  c->linear_to(c, weight, NULL, 0, NULL, x, xs, other, ys, rows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < out; o++)
      cr_assert(r == rows / 2 ? isnan(other[r * ys + o]) : other[r * ys + o] == y[r * ys + o],
                "%s, linear_to with a NaN: [%lld, %lld]", viv__compute_isa(c), (long long)r,
                (long long)o);
  free(w32);
  free(x);
  free(bias);
  free(y);
  free(before);
  free(other);
  free(raw);
  viv__arena_free(arena);
}

Test(compute, linear_to_over_many_rows) {
  static const int32_t dtypes[] = {VIV_F32, VIV_F16, VIV_BF16};
  for (int32_t threads = 1; threads < 4; threads += 2) EACH_SET(c, threads) {
      for (int d = 0; d < 3; d++) {
        many_rows(c, dtypes[d], 16, 32, 32, 0);
        many_rows(c, dtypes[d], 37, 67, 49, d ? 1 : 2);
        many_rows(c, dtypes[d], 259, 131, 53, 0);
      }
      many_rows(c, VIV_F32, 1537, 96, 401, 0); /* several parts of the depth, several blocks */
    }
}
