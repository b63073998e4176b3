/* What this machine can do, which the other figures are held against: one JSON object.
 *
 *   build/bench/bench_limits [THREADS]      (the processor's)
 *
 * read: bytes per second of a plain pass over 256 MiB in large pages, if the system has them; fma: operations per second of independent
 * multiply-adds in registers; sgemm: OpenBLAS, 1024 x 1024 x 1024, one product to each thread. The
 * fastest of several runs counts. */
#include "compute/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const viv_compute *table;

/* One thread is measured by its processor time, which others on the machine disturb less. */
static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(table->threads > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double fastest(void (*run)(void *ctx), void *ctx) {
  double best = INFINITY;
  run(ctx);
  for (int i = 0; i < 15; i++) {
    uint64_t start = now_ns();
    run(ctx);
    double s = (double)(now_ns() - start) * 1e-9;
    if (s < best) best = s;
  }
  return best;
}

/* ---- memory ---- */

enum { PAGE = 4096, PAGES = 1 << 16 };

struct stream {
  const char *data;
  _Atomic int64_t sink;
};

/* Eight streams of one page each, so that the hardware fetches ahead in all of them. */
static void read_range(void *ctx, int64_t begin, int64_t end) {
  struct stream *s = ctx;
  typedef int64_t vec __attribute__((vector_size(64), aligned(8)));
  vec sum[8] = {{0}};
  for (int64_t i = begin * PAGE; i < end * PAGE; i += 8 * PAGE)
    for (int64_t k = 0; k < PAGE; k += 64)
      for (int j = 0; j < 8; j++)
        sum[j] += *(const vec *)(const void *)(s->data + i + j * PAGE + k);
  int64_t folded = 0;
  for (int j = 0; j < 8; j++)
    for (int k = 0; k < 8; k++) folded += sum[j][k];
  s->sink += folded;
}

static void read_groups(void *ctx, int64_t begin, int64_t end) {
  read_range(ctx, begin * 8, end * 8);
}

/* One stream: better on machines that follow few. */
static void read_plain(void *ctx, int64_t begin, int64_t end) {
  struct stream *s = ctx;
  typedef int64_t vec __attribute__((vector_size(64), aligned(8)));
  vec sum[4] = {{0}};
  for (int64_t i = begin * 8 * PAGE; i < end * 8 * PAGE; i += 256)
    for (int j = 0; j < 4; j++) sum[j] += *(const vec *)(const void *)(s->data + i + j * 64);
  int64_t folded = 0;
  for (int j = 0; j < 4; j++)
    for (int k = 0; k < 8; k++) folded += sum[j][k];
  s->sink += folded;
}

static void run_groups(void *ctx) {
  table->parallel_for(table, PAGES / 8, 64, read_groups, ctx);
}
static void run_plain(void *ctx) {
  table->parallel_for(table, PAGES / 8, 64, read_plain, ctx);
}

/* ---- arithmetic ---- */

enum { CHAINS = 12, STEPS = 1 << 20 };

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void fma_512(void *ctx, int64_t begin, int64_t end) {
  __m512 acc[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
  for (int j = 0; j < CHAINS; j++) acc[j] = _mm512_setzero_ps();
  for (int64_t i = begin; i < end; i++) {
    _Pragma("GCC unroll 16") for (int j = 0; j < CHAINS; j++) acc[j] =
        _mm512_fmadd_ps(acc[j], a, b);
    __asm__ volatile("" : "+v"(a), "+v"(b));
  }
  for (int j = 1; j < CHAINS; j++) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  *(_Atomic int *)ctx += (int)_mm512_reduce_add_ps(acc[0]);
}
__attribute__((target("avx2,fma"))) static void fma_256(void *ctx, int64_t begin, int64_t end) {
  __m256 acc[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
  for (int j = 0; j < CHAINS; j++) acc[j] = _mm256_setzero_ps();
  for (int64_t i = begin; i < end; i++) {
    _Pragma("GCC unroll 16") for (int j = 0; j < CHAINS; j++) acc[j] =
        _mm256_fmadd_ps(acc[j], a, b);
    __asm__ volatile("" : "+x"(a), "+x"(b));
  }
  for (int j = 1; j < CHAINS; j++) acc[0] = _mm256_add_ps(acc[0], acc[j]);
  *(_Atomic int *)ctx += (int)_mm256_cvtss_f32(acc[0]);
}
static void run_fma_512(void *ctx) {
  table->parallel_for(table, STEPS, STEPS / 64, fma_512, ctx);
}
static void run_fma_256(void *ctx) {
  table->parallel_for(table, STEPS, STEPS / 64, fma_256, ctx);
}
#endif

static double fma_peak(void) { /* 0: not measured */
#if defined(__x86_64__)
  _Atomic int sink = 0;
  if (viv__cpu_has(viv__str("avx512f"))) return 32.0 * CHAINS * STEPS / fastest(run_fma_512, &sink);
  if (viv__cpu_has(viv__str("fma"))) return 16.0 * CHAINS * STEPS / fastest(run_fma_256, &sink);
#endif
  return 0;
}

enum { SIDE = 1024 };

static void sgemm(void *ctx, int64_t begin, int64_t end) {
  float *m = ctx;
  for (int64_t i = begin; i < end; i++)
    viv__blas_sgemm(false, true, SIDE, SIDE, SIDE, 1.0f, m, SIDE, m + SIDE * SIDE, SIDE, 0.0f,
                    m + (2 + i) * SIDE * SIDE, SIDE);
}
static void run_sgemm(void *ctx) {
  table->parallel_for(table, table->threads, 1, sgemm, ctx);
}

int main(int argc, char **argv) {
  viv_error error = VIV_ERROR_INIT;
  int threads = argc > 1 ? atoi(argv[1]) : 0;
  if (viv__compute_new(threads, VIV__ISA_AUTO, &table, &error) < 0) {
    fprintf(stderr, "bench_limits: %s: %s\n", error.where, error.message);
    return 1;
  }
  struct stream s = {.data = aligned_alloc(2 << 20, (size_t)PAGE * PAGES)};
  size_t floats = (size_t)(2 + table->threads) * SIDE * SIDE;
  float *m = malloc(floats * sizeof *m);
  if (!s.data || !m) return 1;
#ifdef MADV_HUGEPAGE
  (void)madvise((void *)(uintptr_t)s.data, (size_t)PAGE * PAGES, MADV_HUGEPAGE);
#endif
  memset((void *)(uintptr_t)s.data, 1, (size_t)PAGE * PAGES);
  for (size_t i = 0; i < floats; i++) m[i] = (float)(i % 7) * 0.1f;
  double read = (double)PAGE * PAGES / fmin(fastest(run_groups, &s), fastest(run_plain, &s));
  double product = 0;
  if (viv__blas_load()) product = 2.0 * SIDE * SIDE * SIDE * table->threads / fastest(run_sgemm, m);
  printf("{\"threads\": %d, \"kernels\": \"%s\", \"read\": %.4g, \"fma\": %.4g, \"sgemm\": %.4g}\n",
         (int)table->threads, viv__compute_isa(table), read, fma_peak(), product);
  free((void *)(uintptr_t)s.data);
  free(m);
  viv__compute_free(table);
  return 0;
}
