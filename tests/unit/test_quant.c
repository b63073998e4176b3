/* Weights in block formats: every kernel of every instruction set against a plain reference, the
 * promise STRICT to the bit, what happens to numbers that are none, and how good the quantisation of
 * the policies int8 and int4 is. What the formats' bytes mean is held by goldens/gguf/op-dequant. */
#include "compute_rt.h"

#include "compute/half.h"
#include "compute/quant.h"

/* Every block format, with where its f16 numbers lie in a block; -1: none. */
static const struct form {
  int32_t dtype;
  int halves[2];
} forms[] = {{VIV_INT8_ROW, {-1, -1}}, {VIV_INT8_G128, {0, -1}}, {VIV_INT4_G128, {0, 2}},
             {VIV_Q4_0, {0, -1}},      {VIV_Q4_1, {0, 2}},       {VIV_Q5_0, {0, -1}},
             {VIV_Q5_1, {0, 2}},       {VIV_Q8_0, {0, -1}},      {VIV_Q2_K, {80, 82}},
             {VIV_Q3_K, {108, -1}},    {VIV_Q4_K, {0, 2}},       {VIV_Q5_K, {0, 2}},
             {VIV_Q6_K, {208, -1}}};
enum { FORMS = sizeof forms / sizeof *forms };

/* A matrix of random blocks, crooked bytes behind an aligned address. */
struct matrix {
  viv_arena *arena;
  char *raw;
  viv_tensor tensor;
  viv_weight *weight;
  float *values; /* [out, in], what the blocks mean */
};

static struct matrix matrix_new(const viv_compute *c, const struct form *f, int64_t out, int64_t in,
                                int crooked) {
  struct matrix m = {.arena = viv__arena_new(0)};
  int64_t row = (int64_t)viv__row_bytes(f->dtype, in);
  int64_t span = viv__format_of(f->dtype)->span;
  cr_assert_gt(row, 0);
  /* Exactly as long as the blocks: a kernel that reads on is seen by the sanitizer. */
  m.raw = malloc((size_t)(out * row + crooked));
  uint8_t *b = (uint8_t *)m.raw + crooked;
  for (int64_t i = 0; i < out * row; i++) b[i] = (uint8_t)(int)(uniform() * 128);
  for (int64_t o = 0; o < out; o++) {
    if (f->dtype == VIV_INT8_ROW) {
      float scale = 0.01f + 0.01f * uniform();
      memcpy(b + o * row, &scale, sizeof scale);
      continue;
    }
    int64_t block = row / (in / span);
    for (int64_t k = 0; k < in / span; k++)
      for (int h = 0; h < 2 && f->halves[h] >= 0; h++) {
        uint16_t half = viv__to_f16(0.1f * uniform());
        memcpy(b + o * row + k * block + f->halves[h], &half, sizeof half);
      }
  }
  m.tensor = tensor_of(b, f->dtype, out, in);
  m.tensor.bytes = (uint64_t)(out * row);
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(c->weight_prepare(c, m.arena, &m.tensor, VIV_WEIGHTS_AS_STORED, &m.weight, &error),
               VIV_OK, "%s", error.message);
  m.values = zeros(out * in);
  int32_t *ids = malloc((size_t)out * sizeof *ids);
  for (int32_t o = 0; o < out; o++) ids[o] = o;
  c->gather(c, m.weight, ids, out, m.values);
  free(ids);
  return m;
}

static void matrix_free(struct matrix *m) {
  viv__arena_free(m->arena);
  free(m->raw);
  free(m->values);
}

/* What the kernels see of a row of activations: rounded to 127 steps in groups of 32. */
static void rounded(const float *x, double *y, int64_t n) {
  for (int64_t g = 0; g < n; g += 32) {
    int64_t end = g + 32 < n ? g + 32 : n;
    float max = 0;
    for (int64_t i = g; i < end; i++) max = fmaxf(max, fabsf(x[i]));
    for (int64_t i = g; i < end; i++)
      y[i] = max > 0 ? (double)rintf(x[i] * (127.0f / max)) * (max / 127.0f) : 0;
  }
}

static const int64_t strict_rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64};
enum { ROWS = 64 };

static void product_case(const viv_compute *c, const viv_compute *other, const struct form *f,
                         int64_t out, int64_t in, int crooked) {
  struct matrix m = matrix_new(c, f, out, in, crooked);
  const char *name = viv__dtype_name(f->dtype);
  float *x = numbers(ROWS * in), *bias = numbers(out), *y = zeros(ROWS * out);
  float *part = zeros(ROWS * out + 1);
  double *a = malloc((size_t)in * sizeof *a);
  c->linear(c, m.weight, bias, x, y, ROWS);
  for (int64_t r = 0; r < ROWS; r++) {
    rounded(x + r * in, a, in);
    for (int64_t o = 0; o < out; o++) {
      double want = bias[o], scale = fabs(want);
      for (int64_t k = 0; k < in; k++) {
        want += a[k] * m.values[o * in + k];
        scale += fabs(a[k] * m.values[o * in + k]);
      }
      cr_assert(fabs(y[r * out + o] - want) <= 4e-6 * scale,
                "%s, %s %lldx%lld: [%lld, %lld] is %.9g, not %.9g", viv__compute_isa(c), name,
                (long long)out, (long long)in, (long long)r, (long long)o, y[r * out + o], want);
    }
  }
  for (size_t i = 0; i < sizeof strict_rows / sizeof *strict_rows; i++) {
    int64_t rows = strict_rows[i], first = ROWS - rows;
    const viv_compute *with = i % 2 ? other : c;
    part[rows * out] = 77;
    with->linear(with, m.weight, bias, x + first * in, part, rows);
    cr_assert_eq(part[rows * out], 77);
    same(c, name, part, y + first * out, rows * out);
  }
  free(x);
  free(bias);
  free(y);
  free(part);
  free(a);
  matrix_free(&m);
}

Test(quant, products) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (int i = 0; i < FORMS; i++) {
      int64_t span = viv__format_of(forms[i].dtype)->span;
      product_case(c, three, &forms[i], 1, span, 0);
      product_case(c, three, &forms[i], 37, 3 * span, 1);
      product_case(c, three, &forms[i], 64, 768, 3);
      if (forms[i].dtype != VIV_INT8_ROW) continue;
      static const int64_t odd[] = {1, 3, 31, 33, 63, 100, 577};
      for (size_t k = 0; k < sizeof odd / sizeof *odd; k++)
        product_case(c, three, &forms[i], 19, odd[k], 1);
    }
    viv__compute_free(three);
  }
}

/* Largest magnitudes everywhere: sums of pairs must not saturate. */
Test(quant, extremes) {
  enum { IN = 512, OUT = 16 };
  EACH_SET(c, 1) {
    for (int i = 0; i < FORMS; i++) {
      struct matrix m = matrix_new(c, &forms[i], OUT, IN, 0);
      float x[IN], y[OUT];
      double a[IN];
      for (int s = 0; s < 4; s++) {
        /* Half the bytes 0x80 or 0xff: the lowest and the highest q, where no scale stands. */
        if (forms[i].dtype == VIV_Q8_0 || forms[i].dtype == VIV_Q4_1) {
          int64_t block = forms[i].dtype == VIV_Q8_0 ? 34 : 20, at = block == 34 ? 2 : 4;
          for (int64_t b = 0; b < OUT * IN / 32; b++)
            memset(m.raw + b * block + at, s & 1 ? 0x80 : 0x7f, (size_t)(block - at));
          int32_t ids[OUT];
          for (int32_t o = 0; o < OUT; o++) ids[o] = o;
          c->gather(c, m.weight, ids, OUT, m.values);
        }
        for (int k = 0; k < IN; k++) x[k] = s & 2 ? -5.0f : 5.0f;
        rounded(x, a, IN);
        c->linear(c, m.weight, NULL, x, y, 1);
        for (int o = 0; o < OUT; o++) {
          double want = 0, scale = 0;
          for (int k = 0; k < IN; k++) {
            want += a[k] * m.values[o * IN + k];
            scale += fabs(a[k] * m.values[o * IN + k]);
          }
          cr_assert(fabs(y[o] - want) <= 4e-6 * scale, "%s, %s: %.9g, not %.9g",
                    viv__compute_isa(c), viv__dtype_name(forms[i].dtype), y[o], want);
        }
      }
      matrix_free(&m);
    }
  }
}

Test(quant, numbers_that_are_none_stay_in_their_row) {
  enum { IN = 256, OUT = 21, BAD = 4 };
  static const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
  EACH_SET(c, 1) {
    for (int i = 0; i < FORMS; i++)
      for (int b = 0; b < BAD; b++) {
        struct matrix m = matrix_new(c, &forms[i], OUT, IN, 0);
        float *x = numbers(9 * IN), *y = zeros(9 * OUT), *clean = zeros(9 * OUT);
        c->linear(c, m.weight, NULL, x, clean, 9);
        x[4 * IN + 37 + b] = bad[b];
        memset(x + 5 * IN, 0, IN * sizeof *x); /* a row of zeros gives zeros */
        x[5 * IN] = 1e-40f;
        c->linear(c, m.weight, NULL, x, y, 9);
        for (int64_t r = 0; r < 9; r++)
          for (int64_t o = 0; o < OUT; o++) {
            float v = y[r * OUT + o];
            if (r == 4)
              cr_assert(isnan(v), "%s, %s: %g", viv__compute_isa(c),
                        viv__dtype_name(forms[i].dtype), v);
            else if (r == 5)
              cr_assert_eq(v, 0.0f);
            else
              same(c, "a row beside a NaN", &v, &clean[r * OUT + o], 1);
          }
        free(x);
        free(y);
        free(clean);
        matrix_free(&m);
      }
  }
}

/* linear_to: strides, an activation, and a residual that may be y itself; dense formats as well. */
Test(quant, linear_to) {
  enum { IN = 512, OUT = 75, N = 70, XS = IN + 5, YS = OUT + 3 };
  static const struct form dense[] = {{VIV_F32, {-1, -1}}, {VIV_BF16, {-1, -1}}};
  EACH_SET(c, 2) {
    for (int i = 0; i < FORMS + 2; i++) {
      struct matrix m = {.arena = viv__arena_new(0)};
      if (i < FORMS) {
        viv__arena_free(m.arena);
        m = matrix_new(c, &forms[i], OUT, IN, 0);
      } else {
        float *w = numbers(OUT * IN);
        m.raw = malloc(OUT * IN * 4);
        c->store(c, dense[i - FORMS].dtype, w, m.raw, OUT * IN);
        m.tensor = tensor_of(m.raw, dense[i - FORMS].dtype, OUT, IN);
        cr_assert_eq(c->weight_prepare(c, m.arena, &m.tensor, 0, &m.weight, NULL), VIV_OK);
        m.values = w;
      }
      float *x = numbers(N * XS), *packed = zeros(N * IN), *bias = numbers(OUT);
      float *y = numbers(N * YS), *residual = zeros(N * YS), *plain = zeros(N * OUT);
      memcpy(residual, y, N * YS * sizeof *y);
      for (int64_t r = 0; r < N; r++) memcpy(packed + r * IN, x + r * XS, IN * sizeof *x);
      for (int64_t rows = 1; rows <= N; rows += 23) {
        c->linear(c, m.weight, bias, packed, plain, rows);
        c->unary(c, VIV_SILU, plain, plain, rows * OUT);
        memcpy(y, residual, N * YS * sizeof *y);
        c->linear_to(c, m.weight, bias, VIV_SILU, y, x, XS, y, YS, rows);
        for (int64_t r = 0; r < N; r++)
          for (int64_t o = 0; o < YS; o++) {
            float want = residual[r * YS + o];
            if (r < rows && o < OUT) want += plain[r * OUT + o];
            cr_assert_float_eq(y[r * YS + o], want, 1e-5 * (1 + fabsf(want)), "%s, %s",
                               viv__compute_isa(c), viv__dtype_name(m.tensor.dtype));
          }
        c->linear_to(c, m.weight, bias, VIV_SILU, NULL, x, XS, y, YS, rows);
        for (int64_t r = 0; r < rows; r++)
          near(c, "linear_to without residual", y + r * YS, plain + r * OUT, OUT,
               3e-6); /* many rows are summed in another order */
      }
      free(x);
      free(packed);
      free(bias);
      free(y);
      free(residual);
      free(plain);
      matrix_free(&m);
    }
  }
}

/* ---- policies ---- */

static double error_of(const viv_compute *c, const viv_tensor *t, int32_t policy,
                       const float *want) {
  viv_arena *arena = viv__arena_new(0);
  viv_weight *w = NULL;
  viv_error error = VIV_ERROR_INIT;
  int64_t out = t->shape[0], in = t->shape[1];
  uint64_t plan = c->weight_bytes(c, t, policy);
  cr_assert_eq(c->weight_prepare(c, arena, t, policy, &w, &error), VIV_OK, "%s", error.message);
  cr_assert_eq(viv__arena_used(arena), plan);
  float *back = zeros(out * in);
  int32_t *ids = malloc((size_t)out * sizeof *ids);
  for (int32_t o = 0; o < out; o++) ids[o] = o;
  c->gather(c, w, ids, out, back);
  double off = 0, all = 0;
  for (int64_t i = 0; i < out * in; i++) {
    off += pow(back[i] - want[i], 2);
    all += pow(want[i], 2);
  }
  free(back);
  free(ids);
  viv__arena_free(arena);
  return sqrt(off / all);
}

Test(quant, policies_quantise_any_dtype_well) {
  enum { OUT = 50, IN = 96 };
  EACH_SET(c, 2) {
    float *w = zeros(OUT * IN);
    for (int64_t i = 0; i < OUT * IN; i++) /* nearly normal */
      w[i] = 0.02f * (uniform() + uniform() + uniform() + uniform());
    viv_tensor t = tensor_of(w, VIV_F32, OUT, IN);
    double int8 = error_of(c, &t, VIV_WEIGHTS_INT8, w), int4 = error_of(c, &t, VIV_WEIGHTS_INT4, w);
    cr_assert_lt(int8, 0.006, "%g", int8);
    cr_assert_lt(int4, 0.075, "%g", int4);
    cr_assert_lt(c->weight_bytes(c, &t, VIV_WEIGHTS_INT4), OUT * IN * 5 / 8 + 256);
    t = tensor_of(w, VIV_F32, OUT * IN / 75, 75); /* no multiple of 32: a scale for each row */
    double row8 = error_of(c, &t, VIV_WEIGHTS_INT8, w);
    cr_assert_lt(row8, 0.008, "%g", row8);
    cr_assert_eq(error_of(c, &t, VIV_WEIGHTS_INT4, w), row8);
    t = tensor_of(w, VIV_F32, OUT, IN);

    /* From another stored dtype, and from blocks to floats and to other blocks. */
    uint16_t *half = malloc(OUT * IN * 2);
    c->store(c, VIV_BF16, w, half, OUT * IN);
    viv_tensor b = tensor_of(half, VIV_BF16, OUT, IN);
    cr_assert_lt(error_of(c, &b, VIV_WEIGHTS_INT8, w), 0.008);
    for (int i = 0; i < FORMS; i++) {
      struct matrix m = matrix_new(c, &forms[i], 9, 512, 1);
      cr_assert_lt(error_of(c, &m.tensor, VIV_WEIGHTS_F32, m.values), 1e-30);
      cr_assert_lt(error_of(c, &m.tensor, VIV_WEIGHTS_BF16, m.values), 0.004);
      cr_assert_lt(error_of(c, &m.tensor, VIV_WEIGHTS_INT8, m.values), 0.01);
      cr_assert_lt(c->weight_bytes(c, &m.tensor, VIV_WEIGHTS_AS_STORED), 129); /* no copy */
      cr_assert_eq(c->weight_rows_bytes(c, &m.tensor, 4, VIV_WEIGHTS_AS_STORED), 64);
      viv_arena *arena = viv__arena_new(0);
      const float *x = c->floats(c, arena, &m.tensor);
      cr_assert(x && !memcmp(x, m.values, 9 * 512 * sizeof *x));
      viv_weight *rows = NULL;
      int32_t id = 1;
      float one[512];
      cr_assert_eq(c->weight_rows(c, arena, &m.tensor, 4, 7, 0, &rows, NULL), VIV_OK);
      c->gather(c, rows, &id, 1, one);
      cr_assert(!memcmp(one, m.values + 5 * 512, sizeof one));
      viv__arena_free(arena);
      matrix_free(&m);
    }
    free(half);
    free(w);
  }
}

Test(quant, what_cannot_be_scaled) {
  float w[4 * 32] = {0}, y[4 * 32];
  int32_t ids[] = {0, 1, 2, 3};
  w[0] = NAN;
  w[32] = INFINITY;
  w[64] = -1e30f;
  w[96] = 1e-30f;
  EACH_SET(c, 1) {
    for (int32_t policy = VIV_WEIGHTS_INT8; policy <= VIV_WEIGHTS_INT4; policy++) {
      viv_arena *arena = viv__arena_new(0);
      viv_tensor t = tensor_of(w, VIV_F32, 4, 32);
      viv_weight *q = NULL;
      cr_assert_eq(c->weight_prepare(c, arena, &t, policy, &q, NULL), VIV_OK);
      c->gather(c, q, ids, 4, y);
      for (int i = 0; i < 128; i++) cr_assert(isfinite(y[i]) && fabsf(y[i]) < 7e4f);
      cr_assert_eq(y[0], 0.0f);
      cr_assert_gt(y[32], 6e4f);
      cr_assert_lt(y[64], -6e4f);
      viv__arena_free(arena);
    }
  }
}

Test(quant, shapes_that_are_no_blocks_are_refused) {
  const viv_compute *c = table(VIV__ISA_PORTABLE, 1);
  viv_arena *arena = viv__arena_new(0);
  viv_error error = VIV_ERROR_INIT;
  char raw[4096] = {0};
  viv_weight *w = NULL;
  for (int i = 0; i < FORMS; i++) {
    if (forms[i].dtype == VIV_INT8_ROW) continue;
    viv_tensor t = tensor_of(raw, forms[i].dtype, 2, 48);
    cr_assert_eq(c->weight_prepare(c, arena, &t, VIV_WEIGHTS_AS_STORED, &w, &error), VIV_BAD_INPUT);
    cr_assert(strstr(error.message, viv__dtype_name(forms[i].dtype)) && strstr(error.message, "48"),
              "%s", error.message);
    cr_assert_null(c->floats(c, arena, &t));
  }
  cr_assert_null(w);
  viv__arena_free(arena);
  viv__compute_free(c);
}

/* linears: several matrices over the same rows are, to the bit, what linear says of each. */
Test(quant, linears) {
  enum { IN = 512, MOST = 70 };
  static const int64_t outs[] = {75, 16, 33, 5, 130, 64};
  static const int which[] = {4, 12, -1, 4, 0, 7}; /* forms; -1: f32 */
  enum { N = sizeof outs / sizeof *outs };
  EACH_SET(c, 2) {
    struct matrix m[N];
    const viv_weight *w[N];
    const float *bias[N];
    float *y[N], *want[N], *x = numbers(MOST * IN);
    for (int i = 0; i < N; i++) {
      if (which[i] >= 0) {
        m[i] = matrix_new(c, &forms[which[i]], outs[i], IN, 0);
      } else {
        m[i] = (struct matrix){.arena = viv__arena_new(0), .values = numbers(outs[i] * IN)};
        m[i].tensor = tensor_of(m[i].values, VIV_F32, outs[i], IN);
        cr_assert_eq(c->weight_prepare(c, m[i].arena, &m[i].tensor, 0, &m[i].weight, NULL), VIV_OK);
      }
      w[i] = m[i].weight;
      bias[i] = i % 2 ? numbers(outs[i]) : NULL;
      y[i] = zeros(MOST * outs[i]);
      want[i] = zeros(MOST * outs[i]);
    }
    for (int64_t rows = 1; rows <= MOST; rows += 23)
      for (int n = 1; n <= N; n++)
        for (int biased = 0; biased < 2; biased++) {
          for (int i = 0; i < n; i++) {
            memset(y[i], 0x7f, (size_t)(MOST * outs[i]) * sizeof **y);
            c->linear(c, w[i], biased ? bias[i] : NULL, x, want[i], rows);
          }
          c->linears(c, n, w, biased ? bias : NULL, x, y, rows);
          for (int i = 0; i < n; i++)
            cr_assert_arr_eq(y[i], want[i], (size_t)(rows * outs[i]) * sizeof **y,
                             "%s, matrix %d of %d, %d rows", viv__compute_isa(c), i, n, (int)rows);
        }
    for (int i = 0; i < N; i++) {
      matrix_free(&m[i]);
      free((void *)(uintptr_t)bias[i]);
      free(y[i]);
      free(want[i]);
    }
    free(x);
  }
}
