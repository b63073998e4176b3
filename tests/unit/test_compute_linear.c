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
