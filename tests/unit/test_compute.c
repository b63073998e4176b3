/* The compute table: its pool, half precision, weights, gemm, for every instruction set. */
#include "compute_rt.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

/* ---- the pool ---- */

struct marks {
  _Atomic int *hit;
  int64_t n, grain;
  _Atomic int short_ranges;
};

static void mark(void *ctx, int64_t begin, int64_t end) {
  struct marks *m = ctx;
  cr_assert(begin < end);
  if (end - begin < m->grain && end != m->n) m->short_ranges++;
  for (int64_t i = begin; i < end; i++) m->hit[i]++;
}

static void cover(const viv_compute *c, int64_t n, int64_t grain) {
  struct marks m = {calloc((size_t)n + 1, sizeof(int)), n, grain, 0};
  c->parallel_for(c, n, grain, mark, &m);
  for (int64_t i = 0; i < n; i++) cr_assert_eq(m.hit[i], 1);
  cr_assert_eq(m.short_ranges, 0);
  free(m.hit);
}

Test(compute, pool_covers_each_index_once) {
  for (int32_t threads = 1; threads <= 5; threads++) {
    const viv_compute *c = table(VIV__ISA_PORTABLE, threads);
    cr_assert_eq(c->threads, threads);
    for (int64_t n = 0; n < 40; n++)
      for (int64_t grain = 0; grain < 9; grain += 4) cover(c, n, grain);
    cover(c, 100003, 7);
    viv__compute_free(c);
  }
}

static void *pool_caller(void *arg) {
  for (int i = 0; i < 2000; i++) cover(arg, 1 + i % 97, 1 + i % 3);
  return NULL;
}

Test(compute, pool_serves_concurrent_callers) {
  const viv_compute *c = table(VIV__ISA_PORTABLE, 3);
  pthread_t caller[4];
  for (int i = 0; i < 4; i++) {
    union {
      const void *in;
      void *out;
    } plain = {c};
    pthread_create(&caller[i], NULL, pool_caller, plain.out);
  }
  for (int i = 0; i < 4; i++) pthread_join(caller[i], NULL);
  viv__compute_free(c);
}

struct cores {
  _Atomic int single, pieces; /* pieces run by a thread that is bound to one core */
};

static void count_cores(void *ctx, int64_t begin, int64_t end) {
  struct cores *k = ctx;
  cpu_set_t set;
  cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
  k->single += CPU_COUNT(&set) == 1;
  k->pieces += (int)(end - begin);
  usleep(1000);
}

Test(compute, pool_pins_its_workers_on_request) {
  cpu_set_t mine;
  cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
  if (CPU_COUNT(&mine) < 2) cr_skip("one core");
  for (int wanted = 0; wanted < 2; wanted++) {
    setenv("VIV_PIN", wanted ? "1" : "0", 1);
    const viv_compute *c = table(VIV__ISA_PORTABLE, 2);
    struct cores k = {0, 0};
    for (int i = 0; i < 20; i++) c->parallel_for(c, 8, 1, count_cores, &k);
    cr_assert_eq(k.pieces, 160);
    cr_assert_eq(k.single > 0, wanted);
    viv__compute_free(c);
  }
  cpu_set_t after;
  cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
  cr_assert(CPU_EQUAL(&mine, &after));
}

/* ---- half precision ---- */

static double f16_value(uint16_t h) {
  int e = h >> 10 & 31, m = h & 1023;
  double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
  return h & 0x8000 ? -v : v;
}

Test(compute, halves_load_exactly_and_round_to_nearest_even) {
  EACH_SET(c, 1) {
    uint16_t *bits = malloc(65536 * 2), *back = malloc(65536 * 2);
    float *x = zeros(65536);
    for (int i = 0; i < 65536; i++) bits[i] = (uint16_t)i;
    for (int f16 = 0; f16 < 2; f16++) {
      int32_t dtype = f16 ? VIV_F16 : VIV_BF16;
      c->load(c, dtype, bits, x, 65536);
      c->store(c, dtype, x, back, 65536);
      for (int i = 0; i < 65536; i++) {
        if (isnan(x[i])) { /* quiet or signalling, a NaN stays one */
          uint16_t top = f16 ? 0x7c00 : 0x7f80;
          cr_assert((back[i] & top) == top && (back[i] & (uint16_t) ~(top | 0x8000)));
          continue;
        }
        cr_assert_eq(back[i], bits[i], "%s: %04x came back as %04x", viv__compute_isa(c), i,
                     back[i]);
        uint32_t wide = (uint32_t)i << 16;
        float want;
        memcpy(&want, &wide, 4);
        if (f16 && (i & 0x7c00) != 0x7c00) cr_assert_eq((double)x[i], f16_value((uint16_t)i));
        if (!f16) cr_assert_eq(x[i], want);
      }
      /* Between two neighbours: below the middle, the middle (to even), above it. */
      for (int i = 0; i + 1 < (f16 ? 0x7c00 : 0x7f80); i++) {
        float low = x[i], high = x[i + 1], middle = low + (high - low) / 2;
        if (!f16 && i < 0x80) continue; /* the middle of bf16 denormals may be denormal itself */
        float in[3] = {nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
        uint16_t out[3];
        c->store(c, dtype, in, out, 3);
        cr_assert(out[0] == i && out[1] == i + (i & 1) && out[2] == i + 1,
                  "%s: between %04x and its neighbour: %04x %04x %04x", viv__compute_isa(c), i,
                  out[0], out[1], out[2]);
      }
      float big[4] = {65519.0f, 65520.0f, -1e30f, INFINITY};
      uint16_t out[4];
      c->store(c, VIV_F16, big, out, 4);
      cr_assert(out[0] == 0x7bff && out[1] == 0x7c00 && out[2] == 0xfc00 && out[3] == 0x7c00);
    }
    /* Odd lengths at odd addresses write nothing beyond. */
    for (int64_t n = 0; n < 40; n++) {
      unsigned char raw[120];
      float values[40], read[41];
      memset(raw, 0xaa, sizeof raw);
      for (int i = 0; i < 40; i++) values[i] = (float)i;
      c->store(c, VIV_F16, values, raw + 1, n);
      cr_assert(raw[0] == 0xaa && raw[1 + 2 * n] == 0xaa);
      read[n] = 77;
      c->load(c, VIV_F16, raw + 1, read, n);
      for (int i = 0; i < n; i++) cr_assert_eq(read[i], values[i]);
      cr_assert_eq(read[n], 77);
    }
    free(bits);
    free(back);
    free(x);
  }
}

/* ---- weights ---- */

Test(compute, weights_by_policy) {
  EACH_SET(c, 2) {
    viv_arena *arena = viv__arena_new(0);
    double wide[12];
    float single[12], y[12];
    for (int i = 0; i < 12; i++) wide[i] = single[i] = (float)i - 5.5f;
    viv_tensor f64 = tensor_of(wide, VIV_F64, 4, 3), f32 = tensor_of(single, VIV_F32, 4, 3);
    viv_weight *w = NULL;
    viv_error error = VIV_ERROR_INIT;
    int32_t ids[4] = {3, 0, 1, 3};

    for (int32_t policy = VIV_WEIGHTS_AS_STORED; policy <= VIV_WEIGHTS_F16; policy++)
      for (int i = 0; i < 2; i++) {
        viv_tensor *t = i ? &f64 : &f32;
        uint64_t before = viv__arena_used(arena);
        cr_assert_eq(c->weight_prepare(c, arena, t, policy, &w, &error), VIV_OK);
        cr_assert_eq(viv__arena_used(arena) - before, c->weight_bytes(c, t, policy));
        c->gather(c, w, ids, 4, y);
        for (int k = 0; k < 12; k++) cr_assert_eq(y[k], single[ids[k / 3] * 3 + k % 3]);
      }
    /* Nothing is copied where nothing has to be. */
    cr_assert_lt(c->weight_bytes(c, &f32, VIV_WEIGHTS_AS_STORED), 128);
    cr_assert_eq(c->weight_rows(c, arena, &f32, 1, 3, VIV_WEIGHTS_AS_STORED, &w, &error), VIV_OK);
    single[3] = 42;
    ids[0] = 0;
    c->gather(c, w, ids, 1, y);
    cr_assert_eq(y[0], 42);

    w = NULL;
    cr_assert_eq(c->weight_rows(c, arena, &f32, 1, 5, 0, &w, &error), VIV_BAD_INPUT);
    cr_assert_eq(c->weight_rows(c, arena, &f32, 0, -1, 0, &w, &error), VIV_BAD_INPUT);
    viv_tensor whole = tensor_of(single, VIV_I32, 4, 3);
    cr_assert_eq(c->weight_prepare(c, arena, &whole, 0, &w, &error), VIV_BAD_INPUT);
    cr_assert(strstr(error.message, "I32"));
    viv_arena *small = viv__arena_new(64);
    cr_assert_eq(c->weight_prepare(c, small, &f64, 0, &w, &error), VIV_NOT_NOW);
    cr_assert_null(w);
    viv__arena_free(small);

    cr_assert_eq(c->floats(c, arena, &f32), single);
    unsigned char raw[64];
    memcpy(raw + 1, single, 48);
    viv_tensor crooked = tensor_of(raw + 1, VIV_F32, 4, 3);
    const float *copy = c->floats(c, arena, &crooked);
    cr_assert(copy && (uintptr_t)copy % 4 == 0 && !memcmp(copy, single, 48));
    int64_t ints[3] = {-7, 0, 1 << 20};
    viv_tensor i64 = tensor_of(ints, VIV_I64, 1, 3);
    copy = c->floats(c, arena, &i64);
    cr_assert(copy && copy[0] == -7 && copy[2] == 1 << 20);
    i64.dtype = 99;
    cr_assert_null(c->floats(c, arena, &i64));
    viv__arena_free(arena);
  }
}

/* ---- gemm ---- */

Test(compute, gemm) {
  static const int64_t shape[][3] = {
      {1, 1, 1}, {5, 3, 7}, {33, 70, 300}, {130, 9, 17}, {64, 200, 64}};
  EACH_SET(c, 3) {
    /* With OpenBLAS where there is one, and with what stands in for it. */
    viv__compute own = *viv__compute_of(c);
    own.blas = false;
    own.table.self = &own;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
      for (int way = 0; way < 8; way++) {
        int64_t m = shape[i][0], n = shape[i][1], k = shape[i][2];
        bool ta = way & 1, tb = way & 2;
        float beta = way & 4 ? 0.5f : 0.0f;
        int64_t lda = (ta ? m : k) + 2, ldb = (tb ? k : n) + 1, ldc = n + 3;
        float *a = numbers((ta ? k : m) * lda), *b = numbers((tb ? n : k) * ldb);
        float *y = numbers(m * ldc), *z = zeros(m * ldc), *want = zeros(m * ldc);
        for (int64_t r = 0; r < m; r++)
          for (int64_t s = 0; s < ldc; s++) {
            double sum = y[r * ldc + s];
            if (s < n) {
              sum *= beta;
              for (int64_t p = 0; p < k; p++)
                sum += 1.5 * a[ta ? p * lda + r : r * lda + p] * b[tb ? s * ldb + p : p * ldb + s];
            }
            want[r * ldc + s] = (float)sum;
          }
        memcpy(z, y, (size_t)(m * ldc) * sizeof *y);
        if (beta == 0.0f) y[0] = z[0] = NAN; /* not read */
        c->gemm(c, ta, tb, m, n, k, 1.5f, a, lda, b, ldb, beta, y, ldc);
        near(c, "gemm", y, want, m * ldc, 2e-6);
        own.table.gemm(&own.table, ta, tb, m, n, k, 1.5f, a, lda, b, ldb, beta, z, ldc);
        near(c, "gemm without OpenBLAS", z, want, m * ldc, 2e-6);
        float *all[] = {a, b, y, z, want};
        for (size_t f = 0; f < sizeof all / sizeof *all; f++) free(all[f]);
      }
  }
}

Test(compute, features_and_names) {
  cr_assert(viv__compute_isa(table(VIV__ISA_PORTABLE, 1))[0] == 'p');
  cr_assert_not(viv__cpu_has(viv__str("avx")) && !strstr(viv__cpu_features(), "avx"));
  cr_assert_not(viv__cpu_has(viv__str("no-such-feature")));
  const viv_compute *c = table(VIV__ISA_AUTO, 1);
  printf("test_compute: %s kernels, OpenBLAS core %s\n", viv__compute_isa(c), viv__compute_blas(c));
  viv__compute_free(c);
}
