/* What benches work on: n numbers of noise in -1 to 1, the same in each run, 64 bytes aligned, with room behind them. */
#include <stdint.h>
#include <stdlib.h>

static inline float *numbers(int64_t n) {
  float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 127) / 64 * 64);
  uint32_t seed = 12345;
  if (!x) exit(1);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 1664525 + 1013904223;
    x[i] = (float)(int32_t)seed * 0x1p-31f;
  }
  return x;
}
