/* The compute table: every kernel of every instruction set against a plain reference in double, the
 * sets against one another, and the promise STRICT to the bit. */
#include "compute/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- help ---- */

static uint64_t seed = 1;

static float uniform(void) { /* [-1, 1) */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(seed >> 32) * 0x1p-31f;
}

static float *numbers(int64_t n) {
  float *x = malloc((size_t)(n ? n : 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = uniform();
  return x;
}

static float *zeros(int64_t n) {
  cr_assert(n >= 0 && n < 1 << 30);
  return calloc((size_t)n + 1, sizeof(float));
}

/* NULL where this machine can't run the set; said once. */
static const viv_compute *table(int32_t isa, int32_t threads) {
  static bool said[4];
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
  for (int32_t isa = VIV__ISA_PORTABLE; isa <= VIV__ISA_AVX512; isa++)                             \
    for (const viv_compute *c = table(isa, threads); c; viv__compute_free(c), c = NULL)

static void near(const viv_compute *c, const char *what, const float *ours, const float *want,
                 int64_t n, double relative) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)want[i]));
  for (int64_t i = 0; i < n; i++)
    cr_assert(fabs((double)ours[i] - want[i]) <= relative * fmax(largest, 1e-30),
              "%s, %s: [%lld] is %.9g, not %.9g (largest %.3g)", viv__compute_isa(c), what,
              (long long)i, ours[i], want[i], largest);
}

static void same(const viv_compute *c, const char *what, const float *ours, const float *want,
                 int64_t n) {
  for (int64_t i = 0; i < n; i++)
    cr_assert(!memcmp(ours + i, want + i, sizeof *ours),
              "%s, %s: [%lld] is %.9g, and elsewhere %.9g: not STRICT", viv__compute_isa(c), what,
              (long long)i, ours[i], want[i]);
}

static viv_tensor tensor_of(void *data, int32_t dtype, int64_t rows, int64_t cols) {
  return (viv_tensor){.struct_size = sizeof(viv_tensor),
                      .data = data,
                      .dtype = dtype,
                      .ndim = 2,
                      .bytes = (uint64_t)(rows * cols) * viv__dtype_size(dtype),
                      .shape = {rows, cols}};
}

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
    cr_assert_eq(c->weight_prepare(c, arena, &f32, VIV_WEIGHTS_INT4, &w, &error), VIV_NEVER);
    cr_assert(strstr(error.message, "int4"));
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

/* ---- linear ---- */

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

/* ---- rows and elements ---- */

Test(compute, norms_and_softmax) {
  static const int64_t width[] = {1, 3, 8, 15, 16, 17, 63, 64, 65, 200, 1000};
  enum { ROWS = 40 };
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof width / sizeof *width; i++) {
      int64_t d = width[i];
      float *x = numbers(ROWS * d), *w = numbers(d), *b = numbers(d), *y = zeros(ROWS * d);
      float *want = zeros(ROWS * d), *other = zeros(ROWS * d);
      for (int64_t k = 0; k < ROWS * d; k++) x[k] = 3 * x[k] + 2;
      for (int64_t r = 0; r < ROWS; r++) {
        double mean = 0, var = 0;
        for (int64_t k = 0; k < d; k++) mean += x[r * d + k] / (double)d;
        for (int64_t k = 0; k < d; k++) var += pow(x[r * d + k] - mean, 2) / (double)d;
        for (int64_t k = 0; k < d; k++)
          want[r * d + k] = (float)((x[r * d + k] - mean) / sqrt(var + 1e-5) * w[k] + b[k]);
      }
      c->layer_norm(c, x, w, b, 1e-5f, ROWS, d, y);
      near(c, "layer_norm", y, want, ROWS * d, 4e-6);
      three->layer_norm(three, x, w, b, 1e-5f, ROWS, d, other);
      same(c, "layer_norm", other, y, ROWS * d);
      c->layer_norm(c, x + d, w, b, 1e-5f, 1, d, other);
      same(c, "layer_norm", other, y + d, d);

      for (int64_t r = 0; r < ROWS; r++) {
        double square = 0;
        for (int64_t k = 0; k < d; k++) square += pow(x[r * d + k], 2) / (double)d;
        for (int64_t k = 0; k < d; k++)
          want[r * d + k] = (float)(x[r * d + k] / sqrt(square + 1e-6) * w[k]);
      }
      memcpy(y, x, (size_t)(ROWS * d) * sizeof *y);
      c->rms_norm(c, y, w, 1e-6f, ROWS, d, y);
      near(c, "rms_norm", y, want, ROWS * d, 1e-6);
      three->rms_norm(three, x, w, 1e-6f, ROWS, d, other);
      same(c, "rms_norm", other, y, ROWS * d);

      x[0] = -INFINITY;
      for (int64_t r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int64_t k = 0; k < d; k++) sum += exp(x[r * d + k]);
        for (int64_t k = 0; k < d; k++)
          want[r * d + k] = sum > 0 ? (float)(exp(x[r * d + k]) / sum) : 0.0f;
      }
      memcpy(y, x, (size_t)(ROWS * d) * sizeof *y);
      c->softmax(c, y, ROWS, d, y);
      near(c, "softmax", y, want, ROWS * d, 1e-6);
      three->softmax(three, x, ROWS, d, other);
      same(c, "softmax", other, y, ROWS * d);
      free(x);
      free(w);
      free(b);
      free(y);
      free(want);
      free(other);
    }
    viv__compute_free(three);
  }
}

static double function(int32_t kind, double x) {
  switch (kind) {
  case VIV_SILU:
    return x / (1 + exp(-x));
  case VIV_GELU:
    return 0.5 * x * erfc(-x / sqrt(2));
  case VIV_GELU_TANH:
    return x / (1 + exp(-2 * sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
  case VIV_RELU:
    return x > 0 ? x : 0;
  case VIV_SIGMOID:
    return 1 / (1 + exp(-x));
  case VIV_TANH:
    return tanh(x);
  case VIV_SOFTPLUS:
    return x > 20 ? x : log1p(exp(x));
  default:
    return exp(x);
  }
}

Test(compute, functions) {
  enum { N = 40001 };
  EACH_SET(c, 2) {
    float *x = zeros(N), *y = zeros(N + 1), *value = numbers(N), *pair = zeros(2 * N);
    for (int i = 0; i < N; i++) x[i] = ((float)i - 20000) * (i % 7 ? 0.0005f : 0.004f);
    for (int32_t kind = VIV_SILU; kind <= VIV_EXP; kind++) {
      y[N] = 77;
      c->unary(c, kind, x, y, N);
      cr_assert_eq(y[N], 77);
      for (int i = 0; i < N; i++) {
        double want = function(kind, x[i]);
        if (fabs(want) < 1e-30) {
          cr_assert(fabs(y[i]) < 2e-30);
          continue;
        }
        /* e^x as such carries the rounding of its argument: x units in the last place. */
        double allow = kind == VIV_TANH || kind == VIV_RELU ? 4e-7 : 6e-7;
        if (kind == VIV_GELU_TANH || kind == VIV_GELU) allow = 6e-7 + 3e-7 * x[i] * x[i];
        cr_assert(fabs(y[i] - want) <= allow * fabs(want),
                  "%s, function %d of %.9g: %.9g, not %.9g", viv__compute_isa(c), kind, x[i], y[i],
                  want);
      }
      /* An element's result is the same wherever it stands. */
      float one[3];
      c->unary(c, kind, x + 12345, one, 3);
      same(c, "unary", one, y + 12345, 3);

      float *gated = zeros(N), *glued = zeros(N);
      memcpy(gated, x, N * sizeof *x);
      c->gate(c, kind, gated, value, N);
      for (int i = 0; i < N; i++) y[i] *= value[i];
      same(c, "gate", gated, y, N);
      enum { ROWS = 13, D = 77 };
      for (int r = 0; r < ROWS; r++) {
        memcpy(pair + r * 2 * D, x + r * D, D * sizeof *x);
        memcpy(pair + (r * 2 + 1) * D, value + r * D, D * sizeof *x);
      }
      c->glu(c, kind, pair, glued, ROWS, D);
      same(c, "glu", glued, y, ROWS * D);
      free(gated);
      free(glued);
    }
    /* The ends of the line. */
    float edge[6] = {INFINITY, -INFINITY, NAN, 0, 200, -200}, out[6];
    c->unary(c, VIV_SILU, edge, out, 6);
    cr_assert(isinf(out[0]) && isnan(out[2]) && out[3] == 0 && out[4] == 200 && fabsf(out[5]) == 0);
    c->unary(c, VIV_SOFTPLUS, edge, out, 6);
    cr_assert(isinf(out[0]) && out[1] == 0 && isnan(out[2]) && out[4] == 200 && out[5] < 1e-30f);
    c->unary(c, VIV_TANH, edge, out, 6);
    cr_assert(out[0] == 1 && out[1] == -1 && isnan(out[2]) && out[4] == 1);
    c->unary(c, VIV_EXP, edge, out, 6);
    cr_assert(isinf(out[0]) && out[1] == 0 && isnan(out[2]) && out[3] == 1 && isinf(out[4]));
    c->unary(c, VIV_GELU, edge, out, 6);
    cr_assert(isinf(out[0]) && isnan(out[2]) && out[3] == 0 && out[4] == 200 && fabsf(out[5]) == 0);

    memcpy(y, x, N * sizeof *x);
    c->add(c, y, value, N);
    for (int i = 0; i < N; i++) cr_assert_eq(y[i], x[i] + value[i]);
    free(x);
    free(y);
    free(value);
    free(pair);
  }
}

Test(compute, rope) {
  enum { ROWS = 7, HEADS = 3 };
  EACH_SET(c, 2) {
    for (int64_t half = 1; half < 40; half += half < 4 ? 1 : 7)
      for (int32_t interleaved = 0; interleaved < 2; interleaved++) {
        int64_t dim = 2 * half + 5, stride = HEADS * dim + 3;
        float *x = numbers(ROWS * stride), *y = zeros(ROWS * stride), *freq = zeros(half);
        float *angles = zeros(ROWS * 2 * half), *want = zeros(ROWS * stride);
        int32_t pos[ROWS] = {0, 1, 2, 100, 5000, 131071, 7};
        for (int64_t i = 0; i < half; i++) freq[i] = powf(10000.0f, -(float)i / (float)half);
        c->rope_table(c, pos, ROWS, freq, half, 1.25f, angles);
        memcpy(y, x, (size_t)(ROWS * stride) * sizeof *x);
        memcpy(want, x, (size_t)(ROWS * stride) * sizeof *x);
        c->rope_apply(c, y, stride, ROWS, HEADS, dim, angles, half, interleaved);
        for (int64_t r = 0; r < ROWS; r++)
          for (int64_t h = 0; h < HEADS; h++)
            for (int64_t i = 0; i < half; i++) {
              double angle = (double)pos[r] * freq[i];
              float *at = want + r * stride + h * dim;
              int64_t p = interleaved ? 2 * i : i, q = interleaved ? 2 * i + 1 : i + half;
              double a = at[p], b = at[q];
              at[p] = (float)(1.25 * (a * cos(angle) - b * sin(angle)));
              at[q] = (float)(1.25 * (b * cos(angle) + a * sin(angle)));
            }
        near(c, "rope", y, want, ROWS * stride, 5e-7);
        float *alone = zeros(stride);
        memcpy(alone, x + 4 * stride, (size_t)stride * sizeof *x);
        c->rope_apply(c, alone, stride, 1, HEADS, dim, angles + 4 * 2 * half, half, interleaved);
        same(c, "rope", alone, y + 4 * stride, stride);
        free(x);
        free(y);
        free(freq);
        free(angles);
        free(want);
        free(alone);
      }
  }
}

/* ---- attention ---- */

struct scene {
  viv_attention a;
  viv_kv kv[3];
  const viv_kv **rows_kv;
  int64_t *visible, *mask_begin;
  float *dense_k[3], *dense_v[3]; /* [tokens, width] as stored, in f32 */
  int64_t tokens;
};

/* Pages of `tokens` keys for three sequences, rows spread over them. */
static struct scene scene_new(const viv_compute *c, int32_t dtype, int32_t page_tokens,
                              int64_t tokens, int32_t rows, int32_t heads, int32_t kv_heads,
                              int32_t dim, int32_t vdim) {
  struct scene s = {.tokens = tokens};
  int32_t k_width = kv_heads * dim + 3, v_width = kv_heads * vdim + 1;
  size_t size = viv__dtype_size(dtype);
  int64_t pages = (tokens + page_tokens - 1) / page_tokens;
  for (int i = 0; i < 3; i++) {
    s.dense_k[i] = numbers(pages * page_tokens * k_width);
    s.dense_v[i] = numbers(pages * page_tokens * v_width);
    void **k = calloc((size_t)pages, sizeof *k), **v = calloc((size_t)pages, sizeof *v);
    for (int64_t p = 0; p < pages; p++) {
      int64_t nk = (int64_t)page_tokens * k_width, nv = (int64_t)page_tokens * v_width;
      k[p] = malloc((size_t)nk * size);
      v[p] = malloc((size_t)nv * size);
      c->store(c, dtype, s.dense_k[i] + p * nk, k[p], nk);
      c->store(c, dtype, s.dense_v[i] + p * nv, v[p], nv);
      c->load(c, dtype, k[p], s.dense_k[i] + p * nk, nk);
      c->load(c, dtype, v[p], s.dense_v[i] + p * nv, nv);
    }
    s.kv[i] = (viv_kv){(const void *const *)k, (const void *const *)v};
  }
  s.rows_kv = calloc((size_t)rows, sizeof *s.rows_kv);
  s.visible = calloc((size_t)rows, sizeof *s.visible);
  s.mask_begin = calloc((size_t)rows, sizeof *s.mask_begin);
  s.a = (viv_attention){
      .struct_size = sizeof s.a,
      .kv_dtype = dtype,
      .rows = rows,
      .heads = heads,
      .head_dim = dim,
      .value_dim = vdim == dim ? 0 : vdim,
      .kv_heads = kv_heads,
      .page_tokens = page_tokens,
      .k_width = k_width,
      .v_width = v_width,
      .scale = 1.0f / sqrtf((float)dim),
      .q = numbers((int64_t)rows * heads * dim),
      .out = zeros((int64_t)rows * heads * vdim),
      .kv = s.rows_kv,
      .visible = s.visible,
  };
  return s;
}

static void scene_rows(struct scene *s, int kind) {
  for (int32_t r = 0; r < s->a.rows; r++) {
    int i = kind == 0 ? 0 : kind == 1 ? r * 3 / s->a.rows : (int)((unsigned)r * 7 % 3);
    s->rows_kv[r] = &s->kv[i];
    s->visible[r] = kind == 2 ? (r * 37) % (s->tokens + 1)
                              : viv__min(s->tokens, viv__max(0, s->tokens - s->a.rows + r + 1));
  }
}

static void scene_free(struct scene *s) {
  int64_t pages = (s->tokens + s->a.page_tokens - 1) / s->a.page_tokens;
  for (int i = 0; i < 3; i++) {
    union {
      const void *const *in;
      void **out;
    } k = {s->kv[i].k}, v = {s->kv[i].v};
    for (int64_t p = 0; p < pages; p++) {
      free(k.out[p]);
      free(v.out[p]);
    }
    free(k.out);
    free(v.out);
    free(s->dense_k[i]);
    free(s->dense_v[i]);
  }
  free(s->rows_kv);
  free(s->visible);
  free(s->mask_begin);
  union {
    const float *in;
    float *out;
  } q = {s->a.q};
  free(q.out);
  free(s->a.out);
}

static float *attention_reference(const struct scene *s) {
  const viv_attention *a = &s->a;
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  float *out = zeros((int64_t)a->rows * a->heads * vdim);
  double *score = calloc((size_t)s->tokens + 1, sizeof *score);
  for (int32_t r = 0; r < a->rows; r++)
    for (int32_t h = 0; h < a->heads; h++) {
      int64_t i = a->kv[r] - s->kv, end = a->visible[r];
      int64_t begin = a->window ? viv__max(0, end - a->window) : 0;
      const float *q = a->q + ((int64_t)r * a->heads + h) * a->head_dim;
      double max = -INFINITY, sum = 0;
      for (int64_t t = begin; t < end; t++) {
        const float *k = s->dense_k[i] + t * a->k_width + viv__k_offset(a, h);
        double dot = 0;
        for (int32_t d = 0; d < a->head_dim; d++) dot += (double)q[d] * k[d];
        dot *= a->scale;
        if (a->softcap > 0) dot = a->softcap * tanh(dot / a->softcap);
        if (a->mask && t >= a->mask_begin[r] && !a->mask[r * a->mask_stride + t - a->mask_begin[r]])
          dot = -INFINITY;
        score[t] = dot;
        max = fmax(max, dot);
      }
      for (int64_t t = begin; t < end; t++)
        sum += score[t] = max > -INFINITY ? exp(score[t] - max) : 0;
      for (int64_t d = 0; d < vdim; d++) {
        double o = 0;
        for (int64_t t = begin; t < end; t++)
          o += score[t] * s->dense_v[i][t * a->v_width + viv__v_offset(a, h) + d];
        out[((int64_t)r * a->heads + h) * vdim + d] = sum > 0 ? (float)(o / sum) : 0;
      }
    }
  free(score);
  return out;
}

/* Against the reference, and each row alone against the batch. */
static void attention_check(const viv_compute *c, const viv_compute *three, struct scene *s,
                            const char *what) {
  viv_attention *a = &s->a;
  int64_t width = (int64_t)a->heads * (a->value_dim ? a->value_dim : a->head_dim);
  c->attention(c, a);
  float *want = attention_reference(s);
  near(c, what, a->out, want, a->rows * width, 3e-6);
  memcpy(want, a->out, (size_t)(a->rows * width) * sizeof *want);
  memset(a->out, 0xff, (size_t)(a->rows * width) * sizeof *want);
  three->attention(three, a);
  same(c, what, a->out, want, a->rows * width);
  for (int32_t r = 0; r < a->rows; r++) {
    viv_attention one = *a;
    one.rows = 1;
    one.q += (int64_t)r * a->heads * a->head_dim;
    one.out += r * width;
    one.kv += r;
    one.visible += r;
    if (one.mask) {
      one.mask += r * a->mask_stride;
      one.mask_begin += r;
    }
    memset(one.out, 0xff, (size_t)width * sizeof *want);
    three->attention(three, &one);
  }
  same(c, what, a->out, want, a->rows * width);
  free(want);
}

Test(compute, attention) {
  static const struct {
    int32_t page, rows, heads, kv_heads, dim, vdim;
    int64_t tokens, window;
    float softcap;
  } cases[] = {
      {16, 9, 4, 2, 8, 8, 50, 0, 0},         {64, 70, 4, 1, 16, 16, 200, 0, 0},
      {1, 5, 3, 3, 7, 5, 20, 6, 0},          {100, 40, 2, 2, 33, 33, 333, 0, 2},
      {256, 37, 8, 2, 64, 128, 300, 100, 0}, {4096, 3, 2, 1, 128, 96, 150, 0, 0},
      {33, 66, 6, 2, 20, 70, 130, 17, 1.5f}, {64, 1, 40, 20, 64, 128, 700, 0, 0},
  };
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      for (int32_t d = 0; d < 3; d++)
        for (int kind = 0; kind < 3; kind++) {
          struct scene s = scene_new(c,
                                     d == 0   ? VIV_F32
                                     : d == 1 ? VIV_F16
                                              : VIV_BF16,
                                     cases[i].page, cases[i].tokens, cases[i].rows, cases[i].heads,
                                     cases[i].kv_heads, cases[i].dim, cases[i].vdim);
          s.a.window = cases[i].window;
          s.a.softcap = cases[i].softcap;
          scene_rows(&s, kind);
          attention_check(c, three, &s, "attention");
          scene_free(&s);
        }
    viv__compute_free(three);
  }
}

Test(compute, attention_mask_and_offsets) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    struct scene s = scene_new(c, VIV_F32, 48, 150, 21, 6, 4, 12, 24);
    static const int32_t k_offset[6] = {0, 12, 24, 0, 12, 36}, v_offset[6] = {0, 0, 24, 0, 0, 48};
    s.a.k_offset = k_offset;
    s.a.v_offset = v_offset;
    s.a.v_width = 4 * 24 + 1;
    uint8_t *mask = malloc(21 * 40);
    for (int i = 0; i < 21 * 40; i++) mask[i] = uniform() > 0;
    for (int kind = 0; kind < 3; kind++) {
      scene_rows(&s, kind);
      s.a.mask = NULL;
      attention_check(c, three, &s, "offsets");
      s.a.mask = mask;
      s.a.mask_stride = 40;
      s.a.mask_begin = s.mask_begin;
      for (int r = 0; r < 21; r++) s.mask_begin[r] = viv__max(0, s.visible[r] - r * 2);
      s.mask_begin[20] = s.visible[20]; /* a row without a mask */
      memset(mask + 19 * 40, 0, 40);    /* one that loses its last keys */
      if (kind == 1) memset(mask, 0, 21 * 40);
      s.a.window = kind == 1 ? 5 : 0; /* with it, rows that see nothing: zeros */
      attention_check(c, three, &s, "mask");
    }
    free(mask);
    scene_free(&s);
    viv__compute_free(three);
  }
}

/* Pages out of the window are NULL, what no row sees holds NaN. */
Test(compute, attention_reads_only_what_is_visible) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    struct scene s = scene_new(c, VIV_F32, 8, 100, 6, 2, 1, 16, 16);
    scene_rows(&s, 0);
    s.a.window = 20;
    float *want = attention_reference(&s);
    union {
      const void *const *in;
      void **out;
    } k = {s.kv[0].k}, v = {s.kv[0].v};
    for (int64_t p = 0; p < (100 - 6 + 1 - 20) / 8; p++) {
      free(k.out[p]);
      free(v.out[p]);
      k.out[p] = v.out[p] = NULL;
    }
    for (int64_t t = 100; t < 104; t++)
      for (int i = 0; i < s.a.v_width; i++)
        ((float *)v.out[t / 8])[t % 8 * s.a.v_width + i] = ((float *)k.out[t / 8])[t % 8 * 19 + i] =
            NAN;
    /* The last key is visible to the last row only. */
    for (int i = 0; i < 16; i++) ((float *)v.out[99 / 8])[99 % 8 * s.a.v_width + i] = NAN;
    three->attention(three, &s.a);
    near(c, "window over NULL pages", s.a.out, want, 5 * 32, 3e-6);
    for (int i = 0; i < 32; i++) cr_assert(isnan(s.a.out[5 * 32 + i]));
    free(want);
    scene_free(&s);
    viv__compute_free(three);
  }
}

/* ---- state-space models ---- */

Test(compute, causal_conv) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (int32_t taps = 2; taps < 20; taps += taps < 5 ? 1 : 7)
      for (int32_t channels = 1; channels < 80; channels += 13)
        for (int32_t silu = 0; silu < 2; silu++) {
          enum { ROWS = 23 };
          int64_t stride = channels + 5, hist = taps - 1;
          float *x = numbers(ROWS * stride), *w = numbers(channels * taps);
          float *bias = numbers(channels);
          float *tail = numbers(channels * hist), *first = zeros(channels * hist);
          float *y = zeros(ROWS * channels), *want = zeros(ROWS * channels);
          memcpy(first, tail, (size_t)(channels * hist) * sizeof *tail);
          for (int64_t t = 0; t < ROWS; t++)
            for (int64_t ch = 0; ch < channels; ch++) {
              double sum = bias[ch];
              for (int64_t k = 0; k < taps; k++) {
                int64_t from = t + k - hist;
                sum += (double)w[ch * taps + k] *
                       (from < 0 ? tail[ch * hist + hist + from] : x[from * stride + ch]);
              }
              want[t * channels + ch] = (float)(silu ? sum / (1 + exp(-sum)) : sum);
            }
          viv_causal_conv a = {sizeof a, silu, ROWS, channels, taps, x, stride, w, bias, tail, y};
          three->causal_conv(three, &a);
          near(c, "causal_conv", y, want, ROWS * channels, 1e-6);
          for (int64_t ch = 0; ch < channels; ch++)
            for (int64_t k = 0; k < hist; k++) {
              int64_t from = ROWS + k - hist;
              cr_assert_eq(tail[ch * hist + k],
                           from < 0 ? first[ch * hist + hist + from] : x[from * stride + ch]);
            }
          /* In pieces: the same numbers. */
          a.tail = first;
          a.out = want;
          for (int64_t t = 0, n = 1; t < ROWS; t += n, n = viv__min(n + 1, ROWS - t)) {
            a.x = x + t * stride;
            a.out = want + t * channels;
            a.rows = n;
            c->causal_conv(c, &a);
            if (t + n >= ROWS) break;
          }
          same(c, "causal_conv", want, y, ROWS * channels);
          same(c, "causal_conv tail", first, tail, channels * hist);
          free(x);
          free(w);
          free(bias);
          free(tail);
          free(first);
          free(y);
          free(want);
        }
    viv__compute_free(three);
  }
}

Test(compute, scan) {
  static const int32_t sizes[][2] = {{1, 1}, {8, 16}, {33, 16}, {70, 8}, {17, 5}, {40, 70}};
  enum { ROWS = 31 };
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      int64_t channels = sizes[i][0], n = sizes[i][1], stride = 2 * n + 3;
      float *u = numbers(ROWS * channels), *delta = numbers(ROWS * channels);
      float *a = numbers(channels * n), *bc = numbers(ROWS * stride), *d = numbers(channels);
      float *state = numbers(channels * n), *start = zeros(channels * n);
      float *states = zeros(ROWS * channels * n), *y = zeros(ROWS * channels);
      float *want = zeros(ROWS * channels), *want_states = zeros(ROWS * channels * n);
      double *exact = calloc((size_t)(channels * n), sizeof *exact);
      for (int64_t k = 0; k < ROWS * channels; k++) delta[k] = fabsf(delta[k]);
      for (int64_t k = 0; k < channels * n; k++) {
        a[k] = -fabsf(a[k]) * 4;
        exact[k] = start[k] = state[k];
      }
      for (int64_t t = 0; t < ROWS; t++)
        for (int64_t ch = 0; ch < channels; ch++) {
          int64_t at = t * channels + ch;
          double sum = (double)d[ch] * u[at];
          for (int64_t k = 0; k < n; k++) {
            double *s = exact + ch * n + k;
            *s = exp((double)delta[at] * a[ch * n + k]) * *s +
                 (double)delta[at] * bc[t * stride + k] * u[at];
            sum += *s * bc[t * stride + n + k];
            want_states[at * n + k] = (float)*s;
          }
          want[at] = (float)sum;
        }
      viv_scan args = {sizeof args,
                       (int32_t)channels,
                       (int32_t)n,
                       0,
                       ROWS,
                       u,
                       delta,
                       a,
                       bc,
                       bc + n,
                       stride,
                       d,
                       state,
                       states,
                       y};
      three->scan(three, &args);
      near(c, "scan", y, want, ROWS * channels, 1e-6);
      near(c, "scan states", states, want_states, ROWS * channels * n, 1e-6);
      same(c, "scan state", state, states + (ROWS - 1) * channels * n, channels * n);
      /* Row by row, in place of u, without the states. */
      args.state = start;
      args.states_out = NULL;
      args.rows = 1;
      for (int64_t t = 0; t < ROWS; t++) {
        args.u = u + t * channels;
        args.y = u + t * channels;
        args.delta = delta + t * channels;
        args.b = bc + t * stride;
        args.c = args.b + n;
        c->scan(c, &args);
      }
      same(c, "scan", u, y, ROWS * channels);
      same(c, "scan state", start, state, channels * n);
      float *all[] = {u, delta, a, bc, d, state, start, states, y, want, want_states};
      for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
      free(exact);
    }
    viv__compute_free(three);
  }
}

/* ---- gemm and conv2d ---- */

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

static void conv_case(const viv_compute *c, viv_conv2d a, const char *what) {
  int64_t span_h = a.dilation_h * (a.kernel_h - 1) + 1;
  int64_t span_w = a.dilation_w * (a.kernel_w - 1) + 1;
  int64_t oh = (a.height + a.pad_top + a.pad_bottom - span_h) / a.stride_h + 1;
  int64_t ow = (a.width + a.pad_left + a.pad_right - span_w) / a.stride_w + 1;
  int64_t ig = a.in_channels / a.groups, og = a.out_channels / a.groups;
  float *x = numbers((int64_t)a.batch * a.in_channels * a.height * a.width);
  float *w = numbers(a.out_channels * ig * a.kernel_h * a.kernel_w);
  float *bias = numbers(a.out_channels);
  int64_t n = a.batch * a.out_channels * oh * ow;
  float *out = zeros(n + 1), *want = zeros(n);
  for (int64_t i = 0; i < n; i++) {
    int64_t px = i % ow, py = i / ow % oh;
    int64_t o = i / ow / oh % a.out_channels, b = i / ow / oh / a.out_channels;
    double sum = bias[o];
    for (int64_t ch = 0; ch < ig; ch++)
      for (int64_t kh = 0; kh < a.kernel_h; kh++)
        for (int64_t kw = 0; kw < a.kernel_w; kw++) {
          int64_t iy = py * a.stride_h - a.pad_top + kh * a.dilation_h;
          int64_t ix = px * a.stride_w - a.pad_left + kw * a.dilation_w;
          if (iy < 0 || iy >= a.height || ix < 0 || ix >= a.width) continue;
          sum += (double)w[((o * ig + ch) * a.kernel_h + kh) * a.kernel_w + kw] *
                 x[((b * a.in_channels + o / og * ig + ch) * a.height + iy) * a.width + ix];
        }
    want[i] = (float)sum;
  }
  a.x = x;
  a.weight = w;
  a.bias = bias;
  a.out = out;
  uint64_t scratch = c->conv2d_scratch(c, &a);
  a.scratch = zeros((int64_t)scratch + 1);
  a.scratch[scratch] = out[n] = 77;
  c->conv2d(c, &a);
  cr_assert(a.scratch[scratch] == 77 && out[n] == 77);
  near(c, what, out, want, n, 2e-6);
  float *all[] = {x, w, bias, out, want, a.scratch};
  for (size_t f = 0; f < sizeof all / sizeof *all; f++) free(all[f]);
}

Test(compute, conv2d) {
  EACH_SET(c, 3) {
    viv_conv2d a = {.struct_size = sizeof a,
                    .groups = 1,
                    .batch = 2,
                    .in_channels = 3,
                    .height = 17,
                    .width = 23,
                    .out_channels = 5,
                    .kernel_h = 3,
                    .kernel_w = 3,
                    .stride_h = 1,
                    .stride_w = 1,
                    .dilation_h = 1,
                    .dilation_w = 1,
                    .pad_top = 1,
                    .pad_left = 1,
                    .pad_bottom = 1,
                    .pad_right = 1};
    conv_case(c, a, "3x3");
    viv_conv2d s = a;
    s.stride_h = s.stride_w = 2;
    s.pad_bottom = s.pad_right = 0;
    conv_case(c, s, "stride 2, one-sided padding");
    s = a;
    s.dilation_h = 2;
    s.dilation_w = 3;
    s.pad_left = 9;
    s.pad_right = 30;
    conv_case(c, s, "dilated, padded beyond the image");
    s = a;
    s.kernel_h = s.kernel_w = 1;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = 0;
    s.groups = 1;
    conv_case(c, s, "1x1");
    s.stride_w = 3;
    conv_case(c, s, "1x1, strided");
    s = a;
    s.in_channels = 6;
    s.out_channels = 8;
    s.groups = 2;
    conv_case(c, s, "groups");
    s.in_channels = s.out_channels = s.groups = 7;
    conv_case(c, s, "depthwise");
    s.stride_h = s.stride_w = 2;
    s.dilation_w = 2;
    s.pad_left = 3;
    conv_case(c, s, "depthwise, strided");
    s.out_channels = 14;
    conv_case(c, s, "depthwise, two for each");
    viv_conv2d line = {.struct_size = sizeof a,
                       .groups = 1,
                       .batch = 1,
                       .in_channels = 4,
                       .height = 1,
                       .width = 900,
                       .out_channels = 9,
                       .kernel_h = 1,
                       .kernel_w = 10,
                       .stride_h = 1,
                       .stride_w = 5,
                       .dilation_h = 1,
                       .dilation_w = 1,
                       .pad_left = 4,
                       .pad_right = 2};
    conv_case(c, line, "one dimension");
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
