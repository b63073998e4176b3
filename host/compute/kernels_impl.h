/* The kernels over vectors of LANES floats. Included once by each instruction set's file, which
 * defines the vector type vf and its operations (v_load, v_fma, ...) before; see kernels_avx2.c.
 *
 * Everything here is static: a function with a symbol of its own, compiled for a wide instruction
 * set, could be the copy that the linker picks for the whole program. */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

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

/* ---- linear ---- */

/* A tile of R rows and O outputs: R * O sums, each over k in steps of LANES and then over its
 * lanes. The order of a sum is the same in every tile, whatever R and O. x [R] points to the rows,
 * y [R] to the places of the first output, w to the first output's weights. */
INLINE void tile(int R, int O, int32_t dtype, const float *const *x, const void *w,
                 int64_t w_stride, int64_t k, const float *bias, float *const *y) {
  vf acc[6][8];
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_set(0.0f);
  }
  const float *row[6];
  const char *weight[8];
  UNROLL for (int r = 0; r < R; r++) row[r] = x[r];
  UNROLL for (int o = 0; o < O; o++) weight[o] = element(w, dtype, o * w_stride);

  int64_t i = 0;
  for (; i + LANES <= k; i += LANES) {
    if (LANES == 16) { /* enough registers to hold the weights */
      vf wv[8];
      UNROLL for (int o = 0; o < O; o++) wv[o] = load_any(element(weight[o], dtype, i), dtype);
      UNROLL for (int r = 0; r < R; r++) {
        vf xv = v_load(row[r] + i);
        UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_fma(xv, wv[o], acc[r][o]);
      }
    } else {
      vf xv[6];
      UNROLL for (int r = 0; r < R; r++) xv[r] = v_load(row[r] + i);
      UNROLL for (int o = 0; o < O; o++) {
        vf wv = load_any(element(weight[o], dtype, i), dtype);
        UNROLL for (int r = 0; r < R; r++) acc[r][o] = v_fma(xv[r], wv, acc[r][o]);
      }
    }
  }
  if (i < k) {
    int64_t n = k - i;
    UNROLL for (int o = 0; o < O; o++) {
      vf wv = load_any_n(element(weight[o], dtype, i), dtype, n);
      UNROLL for (int r = 0; r < R; r++) {
        acc[r][o] = v_fma(v_load_n(row[r] + i, n), wv, acc[r][o]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    if (O == 1) {
      y[r][0] = sum_of(acc[r][0]) + (bias ? bias[0] : 0.0f);
    } else {
      UNROLL for (int o = 0; o < O; o += 4) {
        __m128 s = v_sums4(acc[r][o], acc[r][o + 1], acc[r][o + 2], acc[r][o + 3]);
        _mm_storeu_ps(y[r] + o, s + (bias ? _mm_loadu_ps(bias + o) : _mm_setzero_ps()));
      }
    }
  }
}

/* All outputs for up to LINEAR_ROWS rows. */
INLINE void tile_row(int R, int32_t dtype, const float *const *x, const void *w, int64_t w_stride,
                     int64_t outs, int64_t k, const float *bias, float *const *y) {
  enum { WIDE = LANES == 16 ? 8 : 4 };
  int64_t o = 0;
  int wide = R == 1 ? 8 : R == 2 ? WIDE : 4;
  float *at[6];
  for (; o < outs;) {
    int64_t step = outs - o >= wide ? wide : outs - o >= 4 ? 4 : 1;
    const void *weight = element(w, dtype, o * w_stride);
    const float *b = bias ? bias + o : NULL;
    UNROLL for (int r = 0; r < R; r++) at[r] = y[r] + o;
    if (step == 8 && wide == 8)
      tile(R, R <= 2 ? 8 : 4, dtype, x, weight, w_stride, k, b, at);
    else if (step == 4)
      tile(R, 4, dtype, x, weight, w_stride, k, b, at);
    else
      tile(R, 1, dtype, x, weight, w_stride, k, b, at);
    o += step;
  }
}

INLINE void tile_rows(int R, int32_t dtype, const float *const *x, const void *w, int64_t w_stride,
                      int64_t outs, int64_t k, const float *bias, float *const *y) {
  switch (R) {
  case 1:
    tile_row(1, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 2:
    tile_row(2, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 3:
    tile_row(3, dtype, x, w, w_stride, outs, k, bias, y);
    break;
#if LINEAR_ROWS > 3
  case 4:
    tile_row(4, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 5:
    tile_row(5, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 6:
    tile_row(6, dtype, x, w, w_stride, outs, k, bias, y);
    break;
#endif
  }
}

static void tiles_f32(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                      int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_F32, x, w, w_stride, outs, k, bias, y);
}
static void tiles_f16(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                      int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_F16, x, w, w_stride, outs, k, bias, y);
}
static void tiles_bf16(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                       int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_BF16, x, w, w_stride, outs, k, bias, y);
}

typedef void (*tiles_fn)(int R, const float *const *x, const void *w, int64_t w_stride,
                         int64_t outs, int64_t k, const float *bias, float *const *y);

INLINE tiles_fn tiles_of(int32_t dtype) {
  return dtype == VIV_F32 ? tiles_f32 : dtype == VIV_F16 ? tiles_f16 : tiles_bf16;
}

/* A panel of weights stays in the second-level cache while all rows pass by it, a tile of them at a
 * time: the weights come from memory once. */
static void linear(const void *w, int32_t dtype, int64_t w_stride, int64_t outs, int64_t k,
                   const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
                   int64_t y_stride) {
  tiles_fn tiles = tiles_of(dtype);
  int64_t panel = outs;
  if (rows > LINEAR_ROWS) { /* 256 KB, or eight outputs */
    panel = 256 * 1024 / (viv__max(1, k) * (dtype == VIV_F32 ? 4 : 2)) / 8 * 8;
    if (panel < 8) panel = 8;
  }
  for (int64_t o = 0; o < outs; o += panel) {
    int64_t count = viv__min(panel, outs - o);
    int64_t left = (rows + LINEAR_ROWS - 1) / LINEAR_ROWS;
    for (int64_t r = 0; r < rows; left--) {
      int R = (int)((rows - r + left - 1) / left); /* evenly, not 6, 6, ..., 1 */
      const float *in[LINEAR_ROWS];
      float *out[LINEAR_ROWS];
      for (int i = 0; i < R; i++) {
        in[i] = x + (r + i) * x_stride;
        out[i] = y + (r + i) * y_stride + o;
      }
      tiles(R, in, element(w, dtype, o * w_stride), w_stride, count, k, bias ? bias + o : NULL,
            out);
      r += R;
    }
  }
}

/* ---- rows ---- */

/* Sum of x[i], or of (x[i] - mean)^2, in four vectors of partial sums. */
INLINE float sum_row(const float *x, int64_t d) {
  vf part[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES) {
    UNROLL for (int j = 0; j < 4; j++) part[j] += v_load(x + i + j * LANES);
  }
  for (; i < d; i += LANES) part[0] += v_load_n(x + i, viv__min(LANES, d - i));
  return sum_of((part[0] + part[1]) + (part[2] + part[3]));
}

INLINE float square_row(const float *x, float mean, int64_t d) {
  vf part[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)}, m = v_set(mean);
  int64_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES) {
    UNROLL for (int j = 0; j < 4; j++) {
      vf v = v_load(x + i + j * LANES) - m;
      part[j] = v_fma(v, v, part[j]);
    }
  }
  for (; i < d; i += LANES) {
    int64_t n = viv__min(LANES, d - i);
    vf v = v_keep_n(v_load_n(x + i, n) - m, v_set(0.0f), n);
    part[0] = v_fma(v, v, part[0]);
  }
  return sum_of((part[0] + part[1]) + (part[2] + part[3]));
}

static void layer_norm(const float *x, const float *w, const float *b, float eps, int64_t rows,
                       int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    float mean = sum_row(x, d) / (float)d;
    float scale = 1.0f / sqrtf(square_row(x, mean, d) / (float)d + eps);
    vf m = v_set(mean), s = v_set(scale);
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf v = (v_load_n(x + i, n) - m) * s;
      vf wv = w ? v_load_n(w + i, n) : v_set(1.0f);
      v_store_n(y + i, v_fma(v, wv, b ? v_load_n(b + i, n) : v_set(0.0f)), n);
    }
  }
}

static void rms_norm(const float *x, const float *w, float eps, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    vf s = v_set(1.0f / sqrtf(square_row(x, 0.0f, d) / (float)d + eps));
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf v = v_load_n(x + i, n) * s;
      if (w) v = v * v_load_n(w + i, n);
      v_store_n(y + i, v, n);
    }
  }
}

/* The largest of x[0 .. n); lanes that are missing count as -infinity. */
INLINE float max_row(const float *x, int64_t n) {
  vf max = v_set(-INFINITY);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    max = v_max(max, v_keep_n(v_load_n(x + i, len), v_set(-INFINITY), len));
  }
  return max_of(max);
}

static void softmax(const float *x, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    float max = max_row(x, d);
    if (max == -INFINITY) { /* all masked: zeros, not NaN */
      memset(y, 0, (size_t)d * sizeof *y);
      continue;
    }
    vf sum = v_set(0.0f), m = v_set(max);
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf e = v_exp(v_load_n(x + i, n) - m);
      v_store_n(y + i, e, n);
      sum += v_keep_n(e, v_set(0.0f), n);
    }
    vf scale = v_set(1.0f / sum_of(sum));
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      v_store_n(y + i, v_load_n(y + i, n) * scale, n);
    }
  }
}

/* ---- rotary embeddings ---- */

static void rope(float *x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
                 const float *cos_sin, int64_t half, int32_t interleaved) {
  for (int64_t r = 0; r < rows; r++, cos_sin += 2 * half) {
    const float *cosine = cos_sin, *sine = cos_sin + half;
    for (int64_t h = 0; h < heads; h++) {
      float *at = x + r * x_stride + h * head_dim;
      if (interleaved) {
        for (int64_t i = 0; i < half; i++) {
          float a = at[2 * i], b = at[2 * i + 1];
          at[2 * i] = a * cosine[i] - b * sine[i];
          at[2 * i + 1] = b * cosine[i] + a * sine[i];
        }
        continue;
      }
      for (int64_t i = 0; i < half; i += LANES) {
        int64_t n = viv__min(LANES, half - i);
        vf c = v_load_n(cosine + i, n), s = v_load_n(sine + i, n);
        vf a = v_load_n(at + i, n), b = v_load_n(at + half + i, n);
        v_store_n(at + i, v_fma(a, c, v_set(0.0f) - b * s), n);
        v_store_n(at + half + i, v_fma(b, c, a * s), n);
      }
    }
  }
}

/* ---- attention ---- */

enum {
  QUERIES = 64,
  SHARED = 8 /* from this many queries on, a block's keys are worth a copy */
};

struct query {
  const float *q;
  int32_t k_offset, v_offset;
  float *out;          /* the weighted sum so far, in place of the result */
  const uint8_t *mask; /* for key s at mask[s]; NULL where the row has none */
  int64_t mask_begin;
  int64_t begin, end; /* visible keys */
  float max, sum;
};

/* out[r][0 .. V * LANES) += sum_s p[r][s] v[s]. Keys are added one after another, whatever R and
 * V. */
INLINE void values_tile(int R, int V, int32_t dtype, const float *const *p, const void *v,
                        int64_t v_stride, int64_t keys, float *const *out, int64_t n) {
  vf acc[4][8];
  bool whole = n >= (int64_t)V * LANES; /* else V is 1 and n lanes are meant */
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int i = 0; i < V; i++) acc[r][i] =
        whole ? v_load(out[r] + i * LANES) : v_load_n(out[r], n);
  }
  for (int64_t s = 0; s < keys; s++) {
    const char *at = element(v, dtype, s * v_stride);
    vf value[8];
    UNROLL for (int i = 0; i < V; i++) {
      const char *lane = element(at, dtype, i * LANES);
      value[i] = whole ? load_any(lane, dtype) : load_any_n(lane, dtype, n);
    }
    UNROLL for (int r = 0; r < R; r++) {
      vf weight = v_set(p[r][s]);
      UNROLL for (int i = 0; i < V; i++) acc[r][i] = v_fma(weight, value[i], acc[r][i]);
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int i = 0; i < V; i++) {
      if (whole)
        v_store(out[r] + i * LANES, acc[r][i]);
      else
        v_store_n(out[r], acc[r][i], n);
    }
  }
}

INLINE void values_of(int R, int32_t dtype, const float *const *p, const void *v, int64_t v_stride,
                      int64_t keys, float *const *out, int64_t dim) {
  enum { ALONE = 64 / LANES };
  int64_t i = 0;
  float *at[4];
  while (i < dim) {
    const int V = R == 1 ? ALONE : VALUE_VECTORS;
    int64_t wide = V * LANES;
    UNROLL for (int r = 0; r < R; r++) at[r] = out[r] + i;
    const void *lane = element(v, dtype, i);
    if (dim - i >= wide) {
      values_tile(R, V, dtype, p, lane, v_stride, keys, at, wide);
      i += wide;
    } else {
      values_tile(R, 1, dtype, p, lane, v_stride, keys, at, viv__min(LANES, dim - i));
      i += LANES;
    }
  }
}

INLINE void values_rows(int R, int32_t dtype, const float *const *p, const void *v,
                        int64_t v_stride, int64_t keys, float *const *out, int64_t dim) {
  switch (R) {
  case 1:
    values_of(1, dtype, p, v, v_stride, keys, out, dim);
    break;
  case 2:
    values_of(2, dtype, p, v, v_stride, keys, out, dim);
    break;
  case 3:
    values_of(3, dtype, p, v, v_stride, keys, out, dim);
    break;
  case 4:
    values_of(4, dtype, p, v, v_stride, keys, out, dim);
    break;
  }
}

/* out[r] += sum_s p[r][s] v[s] for up to four rows. */
static void values(int R, int32_t dtype, const float *const *p, const void *v, int64_t v_stride,
                   int64_t keys, float *const *out, int64_t dim) {
  if (dtype == VIV_F32)
    values_rows(R, VIV_F32, p, v, v_stride, keys, out, dim);
  else if (dtype == VIV_F16)
    values_rows(R, VIV_F16, p, v, v_stride, keys, out, dim);
  else
    values_rows(R, VIV_BF16, p, v, v_stride, keys, out, dim);
}

/* Turns the scores of the keys [begin, end) of a block into weights e^(score - max), brings the
 * query's running sum and output up to date with a new maximum. Answers false when the query sees
 * none of these keys. score is indexed from the block's start. */
static bool weigh(const viv_attention *a, struct query *q, float *score, int64_t begin, int64_t end,
                  int64_t block, int64_t vdim) {
  vf scale = v_set(a->scale), cap = v_set(a->softcap), per_cap = v_set(1.0f / a->softcap);
  int64_t from = begin - block, to = end - block;
  for (int64_t i = from; i < to; i += LANES) {
    int64_t n = viv__min(LANES, to - i);
    vf s = v_load_n(score + i, n) * scale;
    if (a->softcap > 0) s = v_tanh(s * per_cap) * cap;
    v_store_n(score + i, s, n);
  }
  if (q->mask)
    for (int64_t s = viv__max(begin, q->mask_begin); s < end; s++)
      if (!q->mask[s - q->mask_begin]) score[s - block] = -INFINITY;
  float max = max_row(score + from, to - from);
  if (max == -INFINITY) return false;
  if (max > q->max) {
    if (q->max > -INFINITY) {
      vf shrink = v_exp(v_set(q->max - max));
      q->sum *= shrink[0];
      for (int64_t i = 0; i < vdim; i += LANES) {
        int64_t n = viv__min(LANES, vdim - i);
        v_store_n(q->out + i, v_load_n(q->out + i, n) * shrink, n);
      }
    }
    q->max = max;
  }
  vf sum = v_set(0.0f), m = v_set(q->max);
  for (int64_t i = from; i < to; i += LANES) {
    int64_t n = viv__min(LANES, to - i);
    vf s = v_load_n(score + i, n);
    /* What is masked weighs nothing, even where the maximum is infinite. */
    vf p = v_if_greater(s, v_set(-INFINITY), v_exp(s - m), v_set(0.0f));
    p = v_keep_n(p, v_set(0.0f), n);
    v_store_n(score + i, p, n);
    sum += p;
  }
  q->sum += sum_of(sum);
  return true;
}

/* A query with a mask: its hidden keys are stepped over, so that whatever their values hold stays
 * out of the result. */
static void values_masked(const struct query *q, const float *p, int32_t dtype, const char *v,
                          int64_t v_stride, int64_t begin, int64_t end, int64_t block,
                          int64_t vdim) {
  float *out = q->out;
  for (int64_t s = begin; s < end; s++) {
    if (s >= q->mask_begin && !q->mask[s - q->mask_begin]) continue;
    const float *weight = p + (s - block);
    values(1, dtype, &weight, element(v, dtype, (s - block) * v_stride), v_stride, 1, &out, vdim);
  }
}

/* Copies keys (or values) [begin, end) of a block side by side as f32: rows of a wide page lie a
 * memory page apart, which costs more than the copy when many queries read them. */
static void gather_keys(int32_t dtype, const char *from, int64_t stride, int64_t begin, int64_t end,
                        int64_t dim, float *to) {
  for (int64_t s = begin; s < end; s++)
    load(dtype, element(from, dtype, s * stride), to + s * dim, dim);
}

/* Queries that share keys against the keys [block, block_end) of one page; k and v point to the
 * first of them. */
static void attend_block(const viv_attention *a, struct query *query, int n_queries, int64_t block,
                         int64_t block_end, const char *k, const char *v) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  float score[QUERIES][VIV__KEY_BLOCK];
  int active[QUERIES], n = 0;
  int64_t begin = block_end, end = block; /* keys that any of them sees */
  for (int i = 0; i < n_queries; i++) {
    int64_t b = viv__max(block, query[i].begin), e = viv__min(block_end, query[i].end);
    if (b >= e) continue;
    active[n++] = i;
    begin = viv__min(begin, b);
    end = viv__max(end, e);
  }
  if (!n) return;

  enum { MAX_DIM = 256 };
  float k_copy[VIV__KEY_BLOCK * MAX_DIM], v_copy[VIV__KEY_BLOCK * MAX_DIM];
  int64_t dim = a->head_dim, k_stride = a->k_width, v_stride = a->v_width;
  int32_t dtype = a->kv_dtype;
  if (n >= SHARED && dim <= MAX_DIM && vdim <= MAX_DIM) {
    gather_keys(dtype, k, k_stride, begin - block, end - block, dim, k_copy);
    gather_keys(dtype, v, v_stride, begin - block, end - block, vdim, v_copy);
    k = (const char *)k_copy;
    v = (const char *)v_copy;
    k_stride = dim;
    v_stride = vdim;
    dtype = VIV_F32;
  }

  tiles_fn tiles = tiles_of(dtype);
  for (int i = 0, left = (n + LINEAR_ROWS - 1) / LINEAR_ROWS; i < n; left--) {
    int R = (n - i + left - 1) / left;
    const float *in[LINEAR_ROWS];
    float *out[LINEAR_ROWS];
    for (int r = 0; r < R; r++) {
      in[r] = query[active[i + r]].q;
      out[r] = score[i + r] + (begin - block);
    }
    tiles(R, in, element(k, dtype, (begin - block) * k_stride), k_stride, end - begin, dim, NULL,
          out);
    i += R;
  }

  /* Four queries at a time where they see the same keys. */
  const float *p[4];
  float *out[4];
  int64_t from = 0, to = 0;
  int waiting = 0;
  for (int i = 0; i <= n; i++) {
    struct query *q = i < n ? &query[active[i]] : NULL;
    int64_t b = q ? viv__max(block, q->begin) : 0, e = q ? viv__min(block_end, q->end) : 0;
    bool alive = q && weigh(a, q, score[i], b, e, block, vdim);
    if (q && !alive) continue;
    if (waiting && (!q || q->mask || b != from || e != to || waiting == 4)) {
      const char *first_value = element(v, dtype, (from - block) * v_stride);
      values(waiting, dtype, p, first_value, v_stride, to - from, out, vdim);
      waiting = 0;
    }
    if (!q) break;
    if (q->mask) {
      values_masked(q, score[i], dtype, v, v_stride, b, e, block, vdim);
      continue;
    }
    from = b;
    to = e;
    p[waiting] = score[i] + (b - block);
    out[waiting++] = q->out;
  }
}

/* Block by block, and in a block one after the other the queries that share keys: all heads pass
 * over the same memory pages together. */
static void attend(const viv_attention *a, struct query *query, int n, const viv_kv *kv) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim, size = a->kv_dtype == VIV_F32 ? 4 : 2;
  int64_t begin = INT64_MAX, end = 0;
  for (int i = 0; i < n; i++) {
    if (query[i].begin < query[i].end) begin = viv__min(begin, query[i].begin);
    end = viv__max(end, query[i].end);
    memset(query[i].out, 0, (size_t)vdim * sizeof(float));
  }
  while (begin < end) {
    int64_t page = begin / a->page_tokens, inside = begin % a->page_tokens;
    inside = inside / VIV__KEY_BLOCK * VIV__KEY_BLOCK;
    int64_t block = page * a->page_tokens + inside;
    int64_t stop = viv__min(block + VIV__KEY_BLOCK, (page + 1) * a->page_tokens);
    stop = viv__min(stop, end);
    for (int i = 0, next; i < n && kv->k[page] && kv->v[page]; i = next) {
      const struct query *q = query + i;
      for (next = i + 1;
           next < n && query[next].k_offset == q->k_offset && query[next].v_offset == q->v_offset;)
        next++;
      attend_block(a, query + i, next - i, block, stop,
                   (const char *)kv->k[page] + (inside * a->k_width + q->k_offset) * size,
                   (const char *)kv->v[page] + (inside * a->v_width + q->v_offset) * size);
    }
    begin = stop;
  }
  for (int i = 0; i < n; i++) {
    vf scale = v_set(query[i].max > -INFINITY ? 1.0f / query[i].sum : 0.0f);
    for (int64_t d = 0; d < vdim; d += LANES) {
      int64_t len = viv__min(LANES, vdim - d);
      v_store_n(query[i].out + d, v_load_n(query[i].out + d, len) * scale, len);
    }
  }
}

static void attention(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                      int32_t row_begin, int32_t row_end) {
  int64_t dim = a->head_dim, vdim = a->value_dim ? a->value_dim : dim;
  int64_t q_stride = a->q_stride ? a->q_stride : a->heads * dim;
  int64_t out_stride = a->out_stride ? a->out_stride : a->heads * vdim;
  struct query query[QUERIES];
  int n = 0;
  for (int32_t h = 0, next; h < n_heads; h = next) { /* by group of heads, then row */
    int32_t k_offset = viv__k_offset(a, heads[h]), v_offset = viv__v_offset(a, heads[h]);
    for (next = h + 1; next < n_heads && viv__k_offset(a, heads[next]) == k_offset &&
                       viv__v_offset(a, heads[next]) == v_offset;)
      next++;
    for (int32_t r = row_begin; r < row_end; r++)
      for (int32_t i = h; i < next; i++) {
        int64_t end = a->visible[r];
        query[n++] = (struct query){
            .q = a->q + r * q_stride + heads[i] * dim,
            .k_offset = k_offset,
            .v_offset = v_offset,
            .out = a->out + r * out_stride + heads[i] * vdim,
            .mask = a->mask && a->mask_begin[r] < end ? a->mask + r * a->mask_stride : NULL,
            .mask_begin = a->mask ? a->mask_begin[r] : 0,
            .begin = a->window > 0 ? viv__max(0, end - a->window) : 0,
            .end = end,
            .max = -INFINITY,
        };
        if (n == QUERIES || (next == n_heads && r + 1 == row_end && i + 1 == next)) {
          attend(a, query, n, a->kv[r]);
          n = 0;
        }
      }
  }
}

/* ---- state-space models ---- */

/* A vector of channels at a time. Weights and the rows before the call lie by channel, so they are
 * turned first; more taps than fit are read where they lie. */
static void causal_conv(const viv_causal_conv *a, int32_t begin, int32_t end) {
  enum { TURNED = 16 };
  int64_t stride = a->x_stride ? a->x_stride : a->channels, taps = a->taps, hist = taps - 1;
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    vf w[TURNED], bias = a->bias ? v_load_n(a->bias + c, n) : v_set(0.0f);
    for (int64_t k = 0; k < taps && k < TURNED; k++)
      w[k] = v_gather_n(a->weight + c * taps + k, taps, n);
    for (int64_t t = 0; t < a->rows; t++) {
      vf sum = bias;
      for (int64_t k = 0; k < taps; k++) {
        int64_t from = t + k - hist;
        vf x = from < 0 ? v_gather_n(a->tail + c * hist + hist + from, hist, n)
                        : v_load_n(a->x + from * stride + c, n);
        sum = v_fma(k < TURNED ? w[k] : v_gather_n(a->weight + c * taps + k, taps, n), x, sum);
      }
      v_store_n(a->out + t * a->channels + c, a->silu ? v_apply(VIV_SILU, sum) : sum, n);
    }
    for (int64_t k = 0; k < hist; k++) {
      int64_t from = a->rows + k - hist;
      vf x = from < 0 ? v_gather_n(a->tail + c * hist + hist + from, hist, n)
                      : v_load_n(a->x + from * stride + c, n);
      v_scatter_n(a->tail + c * hist + k, hist, x, n);
    }
  }
}

/* One row of a vector of channels. state and rate are [N] vectors. */
INLINE vf scan_row(vf *state, const vf *rate, int64_t states, vf delta, vf u, const float *b,
                   const float *c, vf y) {
  vf du = delta * u;
  for (int64_t i = 0; i < states; i++) {
    state[i] = v_fma(v_exp(delta * rate[i]), state[i], du * v_set(b[i]));
    y = v_fma(state[i], v_set(c[i]), y);
  }
  return y;
}

/* A vector of channels at a time, their states turned into vectors of one state each; more states
 * than fit are taken in several passes, each of which adds to y. */
static void scan(const viv_scan *a, int32_t begin, int32_t end) {
  enum { TURNED = 64 };
  int64_t states = a->states;
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    vf d = a->d ? v_load_n(a->d + c, n) : v_set(0.0f);
    vf state[TURNED], rate[TURNED];
    if (states <= TURNED) {
      for (int64_t i = 0; i < states; i++) {
        state[i] = v_gather_n(a->state + c * states + i, states, n);
        rate[i] = v_gather_n(a->a + c * states + i, states, n);
      }
      for (int64_t t = 0; t < a->rows; t++) {
        int64_t at = t * a->channels + c;
        vf u = v_load_n(a->u + at, n), delta = v_load_n(a->delta + at, n);
        vf y = scan_row(state, rate, states, delta, u, a->b + t * a->bc_stride,
                        a->c + t * a->bc_stride, d * u);
        v_store_n(a->y + at, y, n);
        if (a->states_out)
          for (int64_t i = 0; i < states; i++)
            v_scatter_n(a->states_out + at * states + i, states, state[i], n);
      }
      for (int64_t i = 0; i < states; i++)
        v_scatter_n(a->state + c * states + i, states, state[i], n);
      continue;
    }
    for (int64_t t = 0; t < a->rows; t++) { /* rare: the state stays in memory */
      int64_t at = t * a->channels + c;
      vf u = v_load_n(a->u + at, n), delta = v_load_n(a->delta + at, n), y = d * u;
      for (int64_t i = 0; i < states; i++) {
        vf one = v_gather_n(a->state + c * states + i, states, n);
        vf r = v_gather_n(a->a + c * states + i, states, n);
        y = scan_row(&one, &r, 1, delta, u, a->b + t * a->bc_stride + i,
                     a->c + t * a->bc_stride + i, y);
        v_scatter_n(a->state + c * states + i, states, one, n);
        if (a->states_out) v_scatter_n(a->states_out + at * states + i, states, one, n);
      }
      v_store_n(a->y + at, y, n);
    }
  }
}

const viv__kernels KERNELS = {
    .name = KERNELS_NAME,
    .lanes = LANES,
    .tile_rows = LINEAR_ROWS,
    .linear = linear,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .unary = unary,
    .gate = gate_kernel,
    .axpy = axpy,
    .rope = rope,
    .attention = attention,
    .causal_conv = causal_conv,
    .scan = scan,
    .store = store,
    .load = load,
};
