/* Loads of any stored type, and functions of vectors. Part of kernels_impl.h. */

/* ---- loads of any stored type ---- */

INLINE vf load_any(const void *p, int32_t dtype) {
  return dtype == VIV_F32    ? v_load(p)
         : dtype == VIV_F16  ? v_load_f16(p)
         : dtype == VIV_BF16 ? v_load_bf16(p)
                             : v_load_i8(p);
}

INLINE vf load_any_n(const void *p, int32_t dtype, int64_t n) {
  return dtype == VIV_F32    ? v_load_n(p, n)
         : dtype == VIV_F16  ? v_load_f16_n(p, n)
         : dtype == VIV_BF16 ? v_load_bf16_n(p, n)
                             : v_load_i8_n(p, n);
}

INLINE const char *element(const void *p, int32_t dtype, int64_t i) {
  return (const char *)p + i * (dtype == VIV_F32 ? 4 : dtype == VIV_I8 ? 1 : 2);
}

INLINE void load_of(int32_t dtype, const void *x, float *y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, load_any(element(x, dtype, i), dtype));
  if (i < n) v_store_n(y + i, load_any_n(element(x, dtype, i), dtype, n - i), n - i);
}

/* As floats; VIV_I8 without its scale. */
static void load_raw(int32_t dtype, const void *x, float *y, int64_t n) {
  if (dtype == VIV_F32)
    load_of(VIV_F32, x, y, n);
  else if (dtype == VIV_F16)
    load_of(VIV_F16, x, y, n);
  else if (dtype == VIV_BF16)
    load_of(VIV_BF16, x, y, n);
  else
    load_of(VIV_I8, x, y, n);
}

static void load(int32_t dtype, const void *x, float *y, int64_t n) {
  if (dtype == VIV_I8)
    viv__load_i8(x, y, n);
  else
    load_raw(dtype, x, y, n);
}

static void store(int32_t dtype, const float *x, void *y, int64_t n) {
  if (dtype == VIV_F32) {
    memcpy(y, x, (size_t)n * sizeof *x);
    return;
  }
  if (dtype == VIV_I8) {
    viv__store_i8(x, y, n);
    return;
  }
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    vf v = len == LANES ? v_load(x + i) : v_load_n(x + i, len);
    if (dtype == VIV_F16)
      v_store_f16_n((char *)y + i * 2, v, len);
    else
      v_store_bf16_n((char *)y + i * 2, v, len);
  }
}

/* ---- functions ---- */

INLINE float sum_of(vf v) {
  return _mm_cvtss_f32(v_sums4(v, v, v, v));
}

/* e^x, to about one unit in the last place: x = n ln 2 + r, e^r by the polynomial of Cephes. */
INLINE vf v_exp(vf x) {
  x = v_max(v_set(-106.0f), v_min(v_set(89.0f), x)); /* beyond: 0 and infinity */
  vf n = v_round(x * v_set(1.44269504088896341f));
  vf r = v_fma(n, v_set(-0.693359375f), x);
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vf p = v_set(1.9875691500e-4f);
  p = v_fma(p, r, v_set(1.3981999507e-3f));
  p = v_fma(p, r, v_set(8.3334519073e-3f));
  p = v_fma(p, r, v_set(4.1665795894e-2f));
  p = v_fma(p, r, v_set(1.6666665459e-1f));
  p = v_fma(p, r, v_set(5.0000001201e-1f));
  p = v_fma(p * r, r, r) + v_set(1.0f);
  return v_scale(p, n);
}

/* ln(1 + u) for u in [0, 1]. Above sqrt(2) - 1 it is ln 2 + ln(1 + (u - 1) / 2). */
INLINE vf v_log1p01(vf u) {
  vf split = v_set(0.41421356f);
  vf f = v_if_greater(u, split, (u - v_set(1.0f)) * v_set(0.5f), u);
  vf z = f * f;
  vf p = v_set(7.0376836292e-2f);
  p = v_fma(p, f, v_set(-1.1514610310e-1f));
  p = v_fma(p, f, v_set(1.1676998740e-1f));
  p = v_fma(p, f, v_set(-1.2420140846e-1f));
  p = v_fma(p, f, v_set(1.4249322787e-1f));
  p = v_fma(p, f, v_set(-1.6668057665e-1f));
  p = v_fma(p, f, v_set(2.0000714765e-1f));
  p = v_fma(p, f, v_set(-2.4999993993e-1f));
  p = v_fma(p, f, v_set(3.3333331174e-1f));
  vf y = v_fma(z * f, p, z * v_set(-0.5f)) + f;
  return y + v_if_greater(u, split, v_set(0.693147180559945f), v_set(0.0f));
}

/* tanh: near 0 a polynomial, beyond 1 - 2 / (e^2x + 1). */
INLINE vf v_tanh(vf x) {
  vf t = v_abs(x), z = x * x;
  vf p = v_set(-5.70498872745e-3f);
  p = v_fma(p, z, v_set(2.06390887954e-2f));
  p = v_fma(p, z, v_set(-5.37397155531e-2f));
  p = v_fma(p, z, v_set(1.33314422036e-1f));
  p = v_fma(p, z, v_set(-3.33332819422e-1f));
  vf near = v_fma(p * z, x, x);
  vf far = v_set(1.0f) - v_set(2.0f) / (v_exp(t + t) + v_set(1.0f));
  return v_if_greater(t, v_set(0.625f), v_sign_of(far, x), near);
}

/* gelu(x) = x/2 erfc(-x / sqrt 2). erf near 0 and erfc = e^r beyond are polynomials by N. Juffa;
 * taking erfc itself keeps the digits of the negative tail. */
INLINE vf v_gelu(vf x) {
  vf a = x * v_set(0.70710678118654752f);
  vf s = a * a, t = v_min(v_set(10.5f), v_abs(a)); /* erfc(10.5) is 0 in f32 */
  vf near = v_set(-5.96761703e-4f);
  near = v_fma(near, s, v_set(4.99119423e-3f));
  near = v_fma(near, s, v_set(-2.67681349e-2f));
  near = v_fma(near, s, v_set(1.12819925e-1f));
  near = v_fma(near, s, v_set(-3.76125336e-1f));
  near = v_fma(near, s, v_set(1.28379166e-1f));
  near = v_fma(near, a, a); /* erf(a) */
  /* (1 + 2t) e^(t^2) erfc(t) - 1 as a polynomial of u, which maps [0, inf) to [-1, 1). */
  vf u = (t - v_set(2.0f)) / (t + v_set(2.0f));
  vf q = v_set(-4.01139259e-4f);
  q = v_fma(q, u, v_set(-1.23075210e-3f));
  q = v_fma(q, u, v_set(1.31355342e-3f));
  q = v_fma(q, u, v_set(8.63227434e-3f));
  q = v_fma(q, u, v_set(-8.05991981e-3f));
  q = v_fma(q, u, v_set(-5.42046614e-2f));
  q = v_fma(q, u, v_set(1.64055392e-1f));
  q = v_fma(q, u, v_set(-1.66031361e-1f));
  q = v_fma(q, u, v_set(-9.27639827e-2f));
  q = v_fma(q, u, v_set(2.76978403e-1f));
  /* e^(-t^2) with t^2 in two parts: its rounding would cost t^2 units. */
  vf e = (q + v_set(1.0f)) / v_fma(v_set(2.0f), t, v_set(1.0f));
  vf square = t * t, rest = v_fma(t, t, v_set(0.0f) - square);
  vf far = v_exp(v_set(0.0f) - square) * e * (v_set(1.0f) - rest);
  vf half = x * v_set(0.5f);
  vf right = v_fma(half, near, half); /* x/2 (1 + erf a) */
  vf beyond = v_if_greater(v_set(0.0f), a, half * far, half * (v_set(2.0f) - far));
  return v_if_greater(v_abs(a), v_set(0.75f), beyond, right);
}

INLINE vf v_sigmoid(vf x) {
  return v_set(1.0f) / (v_set(1.0f) + v_exp(v_set(0.0f) - x));
}

/* 2^x for x <= 0, to about two units in the last place; 0 below -150. */
INLINE vf v_exp2_negative(vf x) {
  x = v_max(v_set(-150.0f), x);
  vf n = v_round(x), r = x - n;
  vf p = v_set(1.535336188e-4f);
  p = v_fma(p, r, v_set(1.339887440e-3f));
  p = v_fma(p, r, v_set(9.618437358e-3f));
  p = v_fma(p, r, v_set(5.550332471e-2f));
  p = v_fma(p, r, v_set(2.402264791e-1f));
  p = v_fma(p, r, v_set(6.931472029e-1f));
  return v_scale(v_fma(p, r, v_set(1.0f)), n);
}

/* e^x - 1 for x <= 0: with x = n ln 2 + r it is 2^n (e^r - 1) + (2^n - 1). */
INLINE vf v_expm1_negative(vf x) {
  x = v_max(v_set(-88.0f), x);
  vf n = v_round(x * v_set(1.44269504088896341f));
  vf r = v_fma(n, v_set(-0.693359375f), x);
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vf p = v_set(1.9875691500e-4f);
  p = v_fma(p, r, v_set(1.3981999507e-3f));
  p = v_fma(p, r, v_set(8.3334519073e-3f));
  p = v_fma(p, r, v_set(4.1665795894e-2f));
  p = v_fma(p, r, v_set(1.6666665459e-1f));
  p = v_fma(p, r, v_set(5.0000001201e-1f));
  p = v_fma(p * r, r, r);
  vf two = v_scale(v_set(1.0f), n);
  return v_fma(p, two, two - v_set(1.0f));
}

/* ln x: x = m 2^e with m around 1, ln m by the polynomial of Cephes. */
INLINE vf v_log(vf x) {
  vf e, m = v_frexp(x, &e); /* in [1, 2) */
  vf high = v_set(1.41421356f);
  e += v_if_greater(m, high, v_set(1.0f), v_set(0.0f));
  vf f = v_if_greater(m, high, m * v_set(0.5f), m) - v_set(1.0f), z = f * f;
  vf p = v_set(7.0376836292e-2f);
  p = v_fma(p, f, v_set(-1.1514610310e-1f));
  p = v_fma(p, f, v_set(1.1676998740e-1f));
  p = v_fma(p, f, v_set(-1.2420140846e-1f));
  p = v_fma(p, f, v_set(1.4249322787e-1f));
  p = v_fma(p, f, v_set(-1.6668057665e-1f));
  p = v_fma(p, f, v_set(2.0000714765e-1f));
  p = v_fma(p, f, v_set(-2.4999993993e-1f));
  p = v_fma(p, f, v_set(3.3333331174e-1f));
  vf y = v_fma(e, v_set(-2.12194440e-4f), z * f * p);
  y = v_fma(z, v_set(-0.5f), y);
  y = v_fma(e, v_set(0.693359375f), f + y);
  vf infinite = v_set(INFINITY), zero = v_set(0.0f);
  y = v_if_equal(x, infinite, infinite, y);
  y = v_if_equal(x, zero, zero - infinite, y);
  return v_if_greater(zero, x, v_set(NAN), v_if_equal(x, x, y, x));
}

/* x tanh(ln(1 + e^x)), without the cancellation: with t = e^-|x| it is x n / (n + d). */
INLINE vf v_mish(vf x) {
  vf t = v_exp(v_set(0.0f) - v_abs(x)), zero = v_set(0.0f), two = v_set(2.0f);
  vf n = v_if_greater(x, zero, v_fma(two, t, v_set(1.0f)), v_fma(t, t, t + t));
  vf d = v_if_greater(x, zero, two * t * t, two);
  return x * (n / (n + d));
}

/* p: the parameter of the kinds that have one. */
INLINE vf v_apply(int32_t kind, vf p, vf x) {
  vf zero = v_set(0.0f);
  switch (kind) {
  case VIV_SILU:
    return x / (v_set(1.0f) + v_exp(zero - x));
  case VIV_GELU:
    return v_gelu(x);
  case VIV_GELU_TANH: { /* x/2 (1 + tanh z) = x sigmoid(2z), without the cancellation */
    vf z = x * v_fma(x * x, v_set(-1.5957691216057308f * 0.044715f), v_set(-1.5957691216057308f));
    return x / (v_set(1.0f) + v_exp(z));
  }
  case VIV_RELU:
    return v_max(zero, x);
  case VIV_SIGMOID:
    return v_sigmoid(x);
  case VIV_TANH:
    return v_tanh(x);
  case VIV_SOFTPLUS: /* max(x, 0) + ln(1 + e^-|x|) is x itself in f32 long before 20 */
    return v_max(zero, x) + v_log1p01(v_exp(zero - v_abs(x)));
  case VIV_EXP:
    return v_exp(x);
  case VIV_LEAKY_RELU:
    return v_if_greater(zero, x, p * x, x);
  case VIV_ELU:
    return v_if_greater(zero, x, p * v_expm1_negative(v_min(zero, x)), x);
  case VIV_HARDSWISH:
    return x * v_min(v_set(6.0f), v_max(zero, x + v_set(3.0f))) / v_set(6.0f);
  case VIV_HARDSIGMOID:
    return v_min(v_set(6.0f), v_max(zero, x + v_set(3.0f))) / v_set(6.0f);
  case VIV_MISH:
    return v_mish(x);
  case VIV_RELU6:
    return v_min(v_set(6.0f), v_max(zero, x));
  case VIV_QUICK_GELU:
    return x / (v_set(1.0f) + v_exp(v_set(-1.702f) * x));
  case VIV_SQUARED_RELU: {
    vf positive = v_max(zero, x);
    return positive * positive;
  }
  case VIV_LOG:
    return v_log(x);
  case VIV_SQRT:
    return v_sqrt(x);
  default:
    return x;
  }
}

INLINE void unary_of(int32_t kind, float p, const float *x, float *y, int64_t n) {
  vf vp = v_set(p);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, v_apply(kind, vp, v_load(x + i)));
  if (i < n) v_store_n(y + i, v_apply(kind, vp, v_load_n(x + i, n - i)), n - i);
}

INLINE void gate_of(int32_t kind, float p, const float *gate, const float *value, float *y,
                    int64_t n) {
  vf vp = v_set(p);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_apply(kind, vp, v_load(gate + i)) * v_load(value + i));
  if (i < n)
    v_store_n(y + i, v_apply(kind, vp, v_load_n(gate + i, n - i)) * v_load_n(value + i, n - i),
              n - i);
}

/* One loop for each function, so that the choice is not made for each vector. */
#define KIND(k, CALL)                                                                              \
  case k:                                                                                          \
    CALL(k);                                                                                       \
    break
#define FOR_KIND(kind, CALL)                                                                       \
  switch (kind) {                                                                                  \
    KIND(VIV_SILU, CALL);                                                                          \
    KIND(VIV_GELU, CALL);                                                                          \
    KIND(VIV_GELU_TANH, CALL);                                                                     \
    KIND(VIV_RELU, CALL);                                                                          \
    KIND(VIV_SIGMOID, CALL);                                                                       \
    KIND(VIV_TANH, CALL);                                                                          \
    KIND(VIV_SOFTPLUS, CALL);                                                                      \
    KIND(VIV_EXP, CALL);                                                                           \
    KIND(VIV_LEAKY_RELU, CALL);                                                                    \
    KIND(VIV_ELU, CALL);                                                                           \
    KIND(VIV_HARDSWISH, CALL);                                                                     \
    KIND(VIV_HARDSIGMOID, CALL);                                                                   \
    KIND(VIV_MISH, CALL);                                                                          \
    KIND(VIV_RELU6, CALL);                                                                         \
    KIND(VIV_QUICK_GELU, CALL);                                                                    \
    KIND(VIV_SQUARED_RELU, CALL);                                                                  \
    KIND(VIV_LOG, CALL);                                                                           \
    KIND(VIV_SQRT, CALL);                                                                          \
  default:                                                                                         \
    CALL(0);                                                                                       \
    break;                                                                                         \
  }

static void unary_with(int32_t kind, float p, const float *x, float *y, int64_t n) {
#define CALL(k) unary_of(k, p, x, y, n)
  FOR_KIND(kind, CALL)
#undef CALL
}

static void unary(int32_t kind, const float *x, float *y, int64_t n) {
  unary_with(kind, viv__unary_default(kind), x, y, n);
}

static void gate_kernel(int32_t kind, const float *gate, const float *value, float *y, int64_t n) {
  float p = viv__unary_default(kind);
#define CALL(k) gate_of(k, p, gate, value, y, n)
  FOR_KIND(kind, CALL)
#undef CALL
}

static void axpy(float a, const float *x, float *y, int64_t n) {
  vf va = v_set(a);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, v_fma(va, v_load(x + i), v_load(y + i)));
  if (i < n) v_store_n(y + i, v_fma(va, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

static void multiply(float *x, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    v_store_n(x + i, v_load_n(x + i, len) * v_load_n(y + i, len), len);
  }
}

/* n elements of one channel, or (each) of n channels. */
static void scale_shift(const float *x, const float *w, const float *b, bool each, int64_t n,
                        float *y) {
  vf one_w = v_set(w ? *w : 1.0f), one_b = v_set(b ? *b : 0.0f);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    vf wv = each && w ? v_load_n(w + i, len) : one_w, bv = each && b ? v_load_n(b + i, len) : one_b;
    vf v = v_load_n(x + i, len);
    if (w && b)
      v = v_fma(v, wv, bv);
    else if (w)
      v = v * wv;
    else
      v = v + bv;
    v_store_n(y + i, v, len);
  }
}
