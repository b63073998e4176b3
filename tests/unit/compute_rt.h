/* What the tests of the compute table share: random numbers, a table of each instruction set that this
 * processor runs, comparisons. */
#ifndef VIV_TESTS_COMPUTE_RT_H
#define VIV_TESTS_COMPUTE_RT_H

#include "compute/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 1;

static inline float uniform(void) { /* [-1, 1) */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static inline float *numbers(int64_t n) {
  cr_assert(n >= 0 && n < 1 << 30);
  float *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = uniform();
  return x;
}

static inline float *zeros(int64_t n) {
  cr_assert(n >= 0 && n < 1 << 30);
  return calloc((size_t)n + 1, sizeof(float));
}

/* NULL where this machine can't run the set; said once. */
static inline const viv_compute *table(int32_t isa, int32_t threads) {
  static bool said[VIV__ISA_LAST + 1];
  const viv_compute *c = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__compute_new(threads, isa, &c, &error);
  if (status == VIV_NEVER) {
    if (!said[isa]) printf("test_compute: skipped a set: %s\n", error.message);
    said[isa] = true;
    return NULL;
  }
  cr_assert_eq(status, VIV_OK, "%s", error.message);
  return c;
}

#define EACH_SET(c, threads)                                                                       \
  for (int32_t isa = VIV__ISA_PORTABLE; isa <= VIV__ISA_LAST; isa++)                               \
    for (const viv_compute *c = table(isa, threads); c; viv__compute_free(c), c = NULL)

static inline void near(const viv_compute *c, const char *what, const float *ours,
                        const float *want, int64_t n, double relative) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)want[i]));
  for (int64_t i = 0; i < n; i++)
    cr_assert(fabs((double)ours[i] - want[i]) <= relative * fmax(largest, 1e-30),
              "%s, %s: [%lld] is %.9g, not %.9g (largest %.3g)", viv__compute_isa(c), what,
              (long long)i, ours[i], want[i], largest);
}

static inline void same(const viv_compute *c, const char *what, const float *ours,
                        const float *want, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    cr_assert(!memcmp(ours + i, want + i, sizeof *ours),
              "%s, %s: [%lld] is %.9g, and elsewhere %.9g: not STRICT", viv__compute_isa(c), what,
              (long long)i, ours[i], want[i]);
}

static inline viv_tensor tensor_of(void *data, int32_t dtype, int64_t rows, int64_t cols) {
  return (viv_tensor){.struct_size = sizeof(viv_tensor),
                      .data = data,
                      .dtype = dtype,
                      .ndim = 2,
                      .bytes = (uint64_t)(rows * cols) * viv__dtype_size(dtype),
                      .shape = {rows, cols}};
}

#endif
