/* Norms, softmax, functions of elements and rotary embeddings against references in double. */
#include "compute_rt.h"

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

static double function(int32_t kind, double p, double x) {
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
  case VIV_LEAKY_RELU:
    return x < 0 ? p * x : x;
  case VIV_ELU:
    return x < 0 ? p * expm1(x) : x;
  case VIV_HARDSWISH:
    return x * fmin(fmax(x + 3, 0), 6) / 6;
  case VIV_HARDSIGMOID:
    return fmin(fmax(x + 3, 0), 6) / 6;
  case VIV_MISH:
    return x * tanh(log1p(exp(x)));
  case VIV_RELU6:
    return fmin(fmax(x, 0), 6);
  case VIV_QUICK_GELU:
    return x / (1 + exp(-1.702 * x));
  case VIV_SQUARED_RELU:
    return x > 0 ? x * x : 0;
  case VIV_LOG:
    return log(x);
  case VIV_SQRT:
    return sqrt(x);
  default:
    return exp(x);
  }
}

/* The bounds, in units of the last place of the exact result, that hold for every set. Sums within
 * (x + 3 of the hard kinds) and the exponent of the gelus carry rounding of their arguments: there
 * the bound grows with x. */
static double allowed_ulps(int32_t kind, double x) {
  switch (kind) {
  case VIV_RELU:
  case VIV_RELU6:
  case VIV_SQRT:
  case VIV_LEAKY_RELU:
  case VIV_SQUARED_RELU:
    return 0.5001;
  case VIV_GELU:
    return 3 + 1.3 * x * x;
  case VIV_GELU_TANH:
    return 3 + 2.2 * x * x;
  case VIV_QUICK_GELU:
    return 3 + 1.9 * fabs(x);
  case VIV_HARDSWISH:
  case VIV_HARDSIGMOID: /* 3 + x near -3 loses what x's last place is worth */
    return 2 + 8 / fmax(fabs(x + 3), 1e-3);
  case VIV_MISH:
    return 4;
  default:
    return 2;
  }
}

static void function_check(const viv_compute *c, int32_t kind, double p, float x, float y) {
  double want = function(kind, p, x);
  if (isnan(want) || isinf(want)) {
    cr_assert(isnan(want) ? isnan(y) : (double)y == want, "%s, function %d of %.9g: %.9g, not %g",
              viv__compute_isa(c), kind, x, y, want);
    return;
  }
  if (fabs(want) < 1e-30) {
    cr_assert(fabsf(y) < 2e-30f);
    return;
  }
  int e;
  frexp(want, &e);
  double ulps = fabs(y - want) / ldexp(1, e - 24);
  cr_assert(ulps <= allowed_ulps(kind, x), "%s, function %d of %.9g: %.9g, not %.9g (%.2f ulp)",
            viv__compute_isa(c), kind, x, y, want, ulps);
}

Test(compute, functions) {
  enum { N = 40001 };
  EACH_SET(c, 2) {
    float *x = zeros(N), *y = zeros(N + 1), *value = numbers(N), *pair = zeros(2 * N);
    for (int i = 0; i < N; i++) x[i] = ((float)i - 20000) * (i % 7 ? 0.0005f : 0.004f);
    for (int32_t kind = VIV_SILU; kind <= VIV_SQRT; kind++) {
      double p = kind == VIV_LEAKY_RELU ? (double)0.01f : 1;
      y[N] = 77;
      c->unary(c, kind, x, y, N);
      cr_assert_eq(y[N], 77);
      for (int i = 0; i < N; i++) function_check(c, kind, p, x[i], y[i]);
      c->unary_with(c, kind, 0.3f, x, y, N);
      for (int i = 0; i < N; i++) function_check(c, kind, 0.3f, x[i], y[i]);
      c->unary(c, kind, x, y, N);
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

    for (int32_t kind = VIV_SILU; kind <= VIV_SQRT; kind++) {
      c->unary(c, kind, edge, out, 6);
      cr_assert(isnan(out[2]), "%s, function %d of NaN: %g", viv__compute_isa(c), kind, out[2]);
    }
    c->unary(c, VIV_LOG, edge, out, 6);
    cr_assert(isinf(out[0]) && isnan(out[1]) && out[3] == -INFINITY && isnan(out[5]));
    float tiny[2] = {1e-40f, 1.17549435e-38f};
    c->unary(c, VIV_LOG, tiny, out, 2);
    cr_assert(fabs(out[0] - log(1e-40f)) < 1e-5 && fabs(out[1] - log(1.17549435e-38f)) < 1e-5);
    c->unary(c, VIV_ELU, edge, out, 6);
    cr_assert(isinf(out[0]) && out[1] == -1 && out[3] == 0 && out[5] == -1);
    c->unary(c, VIV_RELU6, edge, out, 6);
    cr_assert(out[0] == 6 && out[1] == 0);

    memcpy(y, x, N * sizeof *x);
    c->add(c, y, value, N);
    for (int i = 0; i < N; i++) cr_assert_eq(y[i], x[i] + value[i]);
    memcpy(y, x, N * sizeof *x);
    c->multiply(c, y, value, N);
    for (int i = 0; i < N; i++) cr_assert_eq(y[i], x[i] * value[i]);
    free(x);
    free(y);
    free(value);
    free(pair);
  }
}

Test(compute, scale_shift) {
  static const int64_t shape[][3] = {{1, 1, 1},   {2, 3, 17}, {3, 5, 1},     {1, 40, 1},
                                     {70, 33, 1}, {2, 7, 64}, {1, 3, 70001}, {40, 2000, 1}};
  EACH_SET(c, 3) {
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
      for (int way = 0; way < 4; way++) {
        int64_t channels = shape[i][1], n = shape[i][2], all = shape[i][0] * channels * n;
        float *x = numbers(all), *w = numbers(channels), *b = numbers(channels);
        float *y = zeros(all), *want = zeros(all);
        y[all] = 77;
        for (int64_t k = 0; k < all; k++) {
          double scale = way & 1 ? w[k / n % channels] : 1,
                 shift = way & 2 ? b[k / n % channels] : 0;
          want[k] = (float)(x[k] * scale + shift);
        }
        c->scale_shift(c, x, way & 1 ? w : NULL, way & 2 ? b : NULL, shape[i][0], channels, n, y);
        cr_assert_eq(y[all], 77);
        near(c, "scale_shift", y, want, all, 2e-7);
        c->scale_shift(c, x, way & 1 ? w : NULL, way & 2 ? b : NULL, shape[i][0], channels, n, x);
        same(c, "scale_shift in place", x, y, all);
        float *free_them[] = {x, w, b, y, want};
        for (size_t k = 0; k < 5; k++) free(free_them[k]);
      }
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
