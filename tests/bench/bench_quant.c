/* How near products with weights in block formats come to what the machine can do.
 *
 *   build/bench/bench_quant [format...]
 *
 * Matrix-vector products (1 and 4 rows) against a plain read of memory by as many threads; products
 * of 512 rows in GOP/s (two operations a multiply-add) against the peak of int8 dot products where
 * the processor has them; then all of a SmolLM2-135M's matrices in Q4_1 with a head in Q8_0, one
 * token and 512. VIV_CPU chooses the kernels. The fastest of several runs counts. */
#include "compute/internal.h"
#include "compute/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const viv_compute *table;

static double fastest(void (*run)(void *ctx), void *ctx) {
  double best = INFINITY, total = 0;
  run(ctx);
  for (int i = 0; i < 5 || (total < 0.25 && i < 2000); i++) {
    uint64_t start = viv__now_ns();
    run(ctx);
    double s = (double)(viv__now_ns() - start) * 1e-9;
    total += s;
    if (s < best) best = s;
  }
  return best;
}

/* ---- the limits ---- */

struct stream {
  const char *data;
  int64_t bytes;
  _Atomic int64_t sink;
};

static void read_range(void *ctx, int64_t begin, int64_t end) {
  struct stream *s = ctx;
  typedef int64_t vec __attribute__((vector_size(64), aligned(8)));
  vec sum[4] = {{0}};
  for (int64_t i = begin * 4096; i < end * 4096; i += 256)
    for (int j = 0; j < 4; j++) sum[j] += *(const vec *)(const void *)(s->data + i + j * 64);
  vec all = sum[0] + sum[1] + sum[2] + sum[3];
  int64_t folded = 0;
  for (int j = 0; j < 8; j++) folded += all[j];
  s->sink += folded;
}

static void run_stream(void *ctx) {
  struct stream *s = ctx;
  table->parallel_for(table, s->bytes / 4096, 256, read_range, s);
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static void dots(void *ctx, int64_t begin,
                                                               int64_t end) {
  __m512i acc[12], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (int j = 0; j < 12; j++) acc[j] = _mm512_setzero_si512();
  for (int64_t i = begin; i < end; i++) {
    for (int j = 0; j < 12; j++) acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
    __asm__ volatile("" : "+v"(a), "+v"(b));
  }
  for (int j = 1; j < 12; j++) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
  *(_Atomic int *)ctx += _mm512_reduce_add_epi32(acc[0]);
}
static void run_dots(void *ctx) {
  table->parallel_for(table, 1 << 20, 1 << 12, dots, ctx);
}
#endif

static double int8_peak(void) { /* operations per second; 0: not measured */
#if defined(__x86_64__)
  _Atomic int sink = 0;
  if (viv__cpu_has(viv__str("avx512vnni")))
    return 12.0 * 128 * (1 << 20) / fastest(run_dots, &sink);
#endif
  return 0;
}

/* ---- products ---- */

struct matrix {
  viv_weight *w;
  int64_t out, in;
};

struct products {
  struct matrix *m;
  int n;
  int64_t rows;
  float *x, *y;
};

static void run_products(void *ctx) {
  struct products *p = ctx;
  for (int i = 0; i < p->n; i++) table->linear(table, p->m[i].w, NULL, p->x, p->y, p->rows);
}

static char *noise(int64_t bytes) {
  char *data = aligned_alloc(4096, (size_t)((bytes + 4095) / 4096 * 4096));
  uint32_t seed = 1;
  for (int64_t i = 0; i + 4 <= bytes; i += 4) {
    seed = seed * 1664525 + 1013904223;
    uint32_t small = seed & 0x3fff3fff; /* as f16: no NaN */
    memcpy(data + i, &small, 4);
  }
  return data;
}

static struct matrix matrix_at(viv_arena *arena, int32_t dtype, int64_t out, int64_t in,
                               char *data) {
  struct matrix m = {NULL, out, in};
  viv_tensor t = {.struct_size = sizeof t,
                  .data = data,
                  .dtype = dtype,
                  .ndim = 2,
                  .bytes = (uint64_t)out * viv__row_bytes(dtype, in),
                  .shape = {out, in}};
  viv_error error = VIV_ERROR_INIT;
  if (table->weight_prepare(table, arena, &t, VIV_WEIGHTS_AS_STORED, &m.w, &error)) {
    fprintf(stderr, "bench_quant: %s\n", error.message);
    exit(1);
  }
  return m;
}

static void bench_format(int32_t dtype, double memory, double peak, char *data, int64_t bytes,
                         float *x, float *y) {
  static const int64_t shape[][2] = {{576, 576}, {1536, 576}, {576, 1536}, {2048, 2048}};
  viv_arena *arena = viv__arena_new(0);
  int64_t in = 2304, out = bytes / (int64_t)viv__row_bytes(dtype, in);
  struct matrix m = matrix_at(arena, dtype, out, in, data);
  double touched = (double)out * (double)viv__row_bytes(dtype, in);
  struct products one = {&m, 1, 1, x, y}, four = {&m, 1, 4, x, y};
  double t1 = fastest(run_products, &one), t4 = fastest(run_products, &four);
  printf("%-10s %6.2f %5.0f%% %8.2f %5.0f%%", viv__dtype_name(dtype), touched / t1 * 1e-9,
         100 * touched / t1 / memory, touched / t4 * 1e-9, 100 * touched / t4 / memory);
  for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
    if (!viv__row_bytes(dtype, shape[i][1])) {
      printf("            - ");
      continue;
    }
    struct matrix s = matrix_at(arena, dtype, shape[i][0], shape[i][1], data);
    struct products many = {&s, 1, 512, x, y};
    double speed = 2.0 * 512 * (double)(shape[i][0] * shape[i][1]) / fastest(run_products, &many);
    printf("  %7.1f %3.0f%%", speed * 1e-9, peak > 0 ? 100 * speed / peak : 0);
  }
  printf("\n");
  viv__arena_free(arena);
}

/* A SmolLM2-135M: 30 layers of seven matrices, and its head. */
static void bench_model(double memory, char *data, int64_t bytes, float *x, float *y) {
  static const int64_t shape[][2] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                                     {1536, 576}, {1536, 576}, {576, 1536}};
  enum { LAYERS = 30, EACH = 7 };
  static struct matrix m[LAYERS * EACH + 1];
  viv_arena *arena = viv__arena_new(0);
  int64_t at = 0;
  double ops = 0;
  for (int i = 0; i < LAYERS * EACH; i++) {
    int64_t out = shape[i % EACH][0], in = shape[i % EACH][1];
    m[i] = matrix_at(arena, VIV_Q4_1, out, in, data + at);
    at += (out * (int64_t)viv__row_bytes(VIV_Q4_1, in) + 63) / 64 * 64;
    ops += 2.0 * (double)(out * in);
  }
  int64_t head = 49152 * (int64_t)viv__row_bytes(VIV_Q8_0, 576);
  if (at + head > bytes) abort();
  m[LAYERS * EACH] = matrix_at(arena, VIV_Q8_0, 49152, 576, data + at);
  struct products token = {m, LAYERS * EACH + 1, 1, x, y};
  struct products prompt = {m, LAYERS * EACH, 512, x, y};
  double t = fastest(run_products, &token), p = fastest(run_products, &prompt);
  printf("SmolLM2-135M Q4_1, matrices only: a token %.2f ms (%.0f a second, %.1f GB/s, %.0f %% of "
         "memory); a prompt of 512 %.0f ms (%.0f tokens a second, %.0f GOP/s)\n",
         t * 1e3, 1 / t, (double)(at + head) / t * 1e-9, 100 * (double)(at + head) / t / memory,
         p * 1e3, 512 / p, ops * 512 / p * 1e-9);
  viv__arena_free(arena);
}

int main(int argc, char **argv) {
  static const int32_t all[] = {VIV_Q4_0,     VIV_Q4_1,      VIV_Q5_0,     VIV_Q5_1, VIV_Q8_0,
                                VIV_Q2_K,     VIV_Q3_K,      VIV_Q4_K,     VIV_Q5_K, VIV_Q6_K,
                                VIV_INT8_ROW, VIV_INT8_G128, VIV_INT4_G128};
  enum { BYTES = 104 << 20, FLOATS = 4 << 20 };
  char *data = noise(BYTES);
  float *x = malloc(FLOATS * sizeof *x), *y = malloc(FLOATS * sizeof *y);
  for (int64_t i = 0; i < FLOATS; i++) x[i] = (float)(i % 1021) * 0.01f - 5.0f;
  for (int32_t threads = 1; threads <= 2; threads++) {
    viv_error error = VIV_ERROR_INIT;
    if (viv__compute_new(threads, VIV__ISA_AUTO, &table, &error)) {
      fprintf(stderr, "bench_quant: %s\n", error.message);
      return 1;
    }
    struct stream s = {data, BYTES, 0};
    double memory = BYTES / fastest(run_stream, &s), peak = int8_peak();
    printf("%d threads, %s kernels: memory %.1f GB/s, int8 dot products %.0f GOP/s\n", threads,
           viv__compute_isa(table), memory * 1e-9, peak * 1e-9);
    printf("512 rows: GOP/s and share of peak for matrices of 576x576, 1536x576, 576x1536, "
           "2048x2048\n");
    printf("            1 row GB/s    4 rows GB/s    512 rows\n");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
      bool wanted = argc < 2;
      for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], viv__dtype_name(all[i]));
      if (wanted) bench_format(all[i], memory, peak, data, BYTES, x, y);
    }
    bench_model(memory, data, BYTES, x, y);
    viv__compute_free(table);
  }
  free(data);
  free(x);
  free(y);
  return 0;
}
