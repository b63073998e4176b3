/* Loads of any stored type, and functions of vectors. Part of kernels_impl.h. */

/* ---- loads of any stored type ---- */

INLINE vf load_any(const void *p, int32_t dtype) {
  return dtype == VIV_F32 ? v_load(p) : dtype == VIV_F16 ? v_load_f16(p) : v_load_bf16(p);
}

INLINE vf load_any_n(const void *p, int32_t dtype, int64_t n) {
  return dtype == VIV_F32   ? v_load_n(p, n)
         : dtype == VIV_F16 ? v_load_f16_n(p, n)
                            : v_load_bf16_n(p, n);
}

INLINE const char *element(const void *p, int32_t dtype, int64_t i) {
  return (const char *)p + i * (dtype == VIV_F32 ? 4 : 2);
}

static void load(int32_t dtype, const void *x, float *y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, load_any(element(x, dtype, i), dtype));
  if (i < n) v_store_n(y + i, load_any_n(element(x, dtype, i), dtype, n - i), n - i);
}

static void store(int32_t dtype, const float *x, void *y, int64_t n) {
  if (dtype == VIV_F32) {
    memcpy(y, x, (size_t)n * sizeof *x);
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

INLINE float max_of(vf v) {
  float lane[LANES];
  v_store(lane, v);
  float max = lane[0];
  for (int i = 1; i < LANES; i++) max = lane[i] > max ? lane[i] : max;
  return max;
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

INLINE vf v_apply(int32_t kind, vf x) {
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
  default:
    return x;
  }
}

INLINE void unary_of(int32_t kind, const float *x, float *y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, v_apply(kind, v_load(x + i)));
  if (i < n) v_store_n(y + i, v_apply(kind, v_load_n(x + i, n - i)), n - i);
}

INLINE void gate_of(int32_t kind, const float *gate, const float *value, float *y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_apply(kind, v_load(gate + i)) * v_load(value + i));
  if (i < n)
    v_store_n(y + i, v_apply(kind, v_load_n(gate + i, n - i)) * v_load_n(value + i, n - i), n - i);
}

/* One loop for each function, so that the choice is not made for each vector. */
#define FOR_KIND(kind, CALL)                                                                       \
  switch (kind) {                                                                                  \
  case VIV_SILU:                                                                                   \
    CALL(VIV_SILU);                                                                                \
    break;                                                                                         \
  case VIV_GELU:                                                                                   \
    CALL(VIV_GELU);                                                                                \
    break;                                                                                         \
  case VIV_GELU_TANH:                                                                              \
    CALL(VIV_GELU_TANH);                                                                           \
    break;                                                                                         \
  case VIV_RELU:                                                                                   \
    CALL(VIV_RELU);                                                                                \
    break;                                                                                         \
  case VIV_SIGMOID:                                                                                \
    CALL(VIV_SIGMOID);                                                                             \
    break;                                                                                         \
  case VIV_TANH:                                                                                   \
    CALL(VIV_TANH);                                                                                \
    break;                                                                                         \
  case VIV_SOFTPLUS:                                                                               \
    CALL(VIV_SOFTPLUS);                                                                            \
    break;                                                                                         \
  case VIV_EXP:                                                                                    \
    CALL(VIV_EXP);                                                                                 \
    break;                                                                                         \
  default:                                                                                         \
    CALL(0);                                                                                       \
    break;                                                                                         \
  }

static void unary(int32_t kind, const float *x, float *y, int64_t n) {
#define CALL(k) unary_of(k, x, y, n)
  FOR_KIND(kind, CALL)
#undef CALL
}

static void gate_kernel(int32_t kind, const float *gate, const float *value, float *y, int64_t n) {
#define CALL(k) gate_of(k, gate, value, y, n)
  FOR_KIND(kind, CALL)
#undef CALL
}

static void axpy(float a, const float *x, float *y, int64_t n) {
  vf va = v_set(a);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) v_store(y + i, v_fma(va, v_load(x + i), v_load(y + i)));
  if (i < n) v_store_n(y + i, v_fma(va, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}
