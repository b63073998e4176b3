/* Products of weights in block formats over vectors of LANES floats; what is computed stands in
 * quant_kernels.h. Included once by each instruction set's file, which defines LANES and
 * QUANT_KERNELS. Everything here is static: a function with a symbol of its own, compiled for a wide
 * instruction set, could be the copy that the linker picks for the whole program.
 *
 * A panel's PANEL outputs are the lanes of one vector (two where vectors have eight lanes): four
 * bytes of each output's weights meet four broadcast bytes of a row at a time. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/kernels.h"
#include "compute/quant_kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#if LANES == 16
typedef __m512 vf;
typedef __m512i vi;
#define v_set(f) _mm512_set1_ps(f)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#else
typedef __m256 vf;
typedef __m256i vi;
#define v_set(f) _mm256_set1_ps(f)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#endif

static inline float half_float(const void *p) {
  uint16_t h;
  memcpy(&h, p, sizeof h);
  return _cvtsh_ss(h);
}

#include "compute/quant_blocks.h"

enum { VECS = VIV__PANEL / LANES };

#if LANES == 16
#define q_load(p) _mm512_load_si512(p)
#define q_store(p, v) _mm512_store_si512(p, v)
#define q_set32(i) _mm512_set1_epi32(i)
#define q_to_float(v) _mm512_cvtepi32_ps(v)
#define q_from_float(v) _mm512_cvtps_epi32(v)
#define q_max32(a, b) _mm512_max_epi32(a, b)
#define q_bits(v) _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff))
#define q_unpack_low32(a, b) _mm512_unpacklo_epi32(a, b)
#define q_unpack_high32(a, b) _mm512_unpackhi_epi32(a, b)
#define q_unpack_low64(a, b) _mm512_unpacklo_epi64(a, b)
#define q_unpack_high64(a, b) _mm512_unpackhi_epi64(a, b)
#else
#define q_load(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define q_store(p, v) _mm256_store_si256((__m256i *)(void *)(p), v)
#define q_set32(i) _mm256_set1_epi32(i)
#define q_to_float(v) _mm256_cvtepi32_ps(v)
#define q_from_float(v) _mm256_cvtps_epi32(v)
#define q_max32(a, b) _mm256_max_epi32(a, b)
#define q_bits(v) _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff))
#define q_unpack_low32(a, b) _mm256_unpacklo_epi32(a, b)
#define q_unpack_high32(a, b) _mm256_unpackhi_epi32(a, b)
#define q_unpack_low64(a, b) _mm256_unpacklo_epi64(a, b)
#define q_unpack_high64(a, b) _mm256_unpackhi_epi64(a, b)
#endif

/* ---- dot products ---- */

/* acc += sums of four products, q unsigned and a signed. wide: q may be above 127. Without VNNI a
 * wide q is made signed first, q - 128, and pairs of products stay within 16 bits. */
INLINE vi q_dot(vi acc, vi q, vi a, bool wide) {
#if defined(__AVX512VNNI__)
  (void)wide;
  return _mm512_dpbusd_epi32(acc, q, a);
#elif LANES == 16
  if (wide) {
    q = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
    a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(q), _mm512_setzero_si512(), a);
    q = _mm512_abs_epi8(q);
  }
  __m512i pairs = _mm512_maddubs_epi16(q, a);
  return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#else
  if (wide) {
    q = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
    a = _mm256_sign_epi8(a, q);
    q = _mm256_abs_epi8(q);
  }
  __m256i pairs = _mm256_maddubs_epi16(q, a);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

/* What kinds of formats there are for a product. */
enum q_kind { Q_MINIMUM, Q_SHIFT, Q_WIDE };

/* ---- rows of activations ---- */

INLINE uint32_t q_largest32(vi v) {
#if LANES == 16
  return (uint32_t)_mm512_reduce_max_epi32(v);
#else
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(m);
#endif
}

/* The low bytes of the lanes, which hold int8 values. */
INLINE void q_store_bytes(int8_t *p, vi v) {
#if LANES == 16
  _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(v));
#else
  __m128i s = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(s, s));
#endif
}

INLINE float quantize_group(const float *x, int8_t *a) {
  enum { N = VIV__GROUP / LANES };
  vf v[N];
  vi largest = q_set32(0);
  UNROLL for (int i = 0; i < N; i++) {
    v[i] = v_load(x + i * LANES);
    largest = q_max32(largest, q_bits(v[i]));
  }
  uint32_t bits = q_largest32(largest); /* floats without sign are ordered like their bits */
  float max;
  memcpy(&max, &bits, sizeof max);
  if (bits >= 0x7f800000 || max < 1e-30f) {
    memset(a, 0, VIV__GROUP);
    return bits >= 0x7f800000 ? NAN : 0.0f;
  }
  vf inverse = v_set(127.0f / max);
  UNROLL for (int i = 0; i < N; i++) q_store_bytes(a + i * LANES, q_from_float(v[i] * inverse));
  return max / 127.0f;
}

/* The sum of 16 int8 values. */
INLINE int32_t sum_of_bytes(const int8_t *a) {
  __m128i v = _mm_loadu_si128((const __m128i *)(const void *)a);
  v = _mm_sad_epu8(_mm_xor_si128(v, _mm_set1_epi8(-128)), _mm_setzero_si128());
  return _mm_cvtsi128_si32(v) + _mm_extract_epi16(v, 4) - 16 * 128;
}

static void quantize_rows(const viv__format *f, const float *x, int64_t x_stride, int64_t rows,
                          int64_t k, char *to) {
  viv__row_layout l = viv__row_layout_of(f, k);
  for (int64_t r = 0; r < rows; r++, x += x_stride, to += l.bytes) {
    int8_t *a = (int8_t *)to;
    float *scale = (float *)(void *)(to + l.scale_at), *sum = (float *)(void *)(to + l.sum_at);
    int32_t *shift = (int32_t *)(void *)(to + l.shift_at);
    for (int64_t i = 0; i < l.cols; i += VIV__GROUP) {
      float group[VIV__GROUP] = {0};
      const float *from = x + i;
      if (k - i < VIV__GROUP) from = memcpy(group, from, (size_t)(k - i) * sizeof *group);
      scale[i / VIV__GROUP] = quantize_group(from, a + i);
    }
    for (int64_t u = 0; u < l.units; u++) {
      int32_t total = 0;
      for (int i = 0; i < f->unit; i += 16) total += sum_of_bytes(a + u * f->unit + i);
      shift[u] = -f->zero * total;
      sum[u] = scale[u * f->unit / VIV__GROUP] * (float)total;
    }
  }
}

/* ---- panels ---- */

/* 16 bytes of each of the panel's outputs, stride apart, side by side four at a time: 4 * PANEL
 * bytes to to, four times. */
INLINE void side_by_side(const uint8_t *q, int64_t stride, uint8_t *to) {
#define HALF(o) _mm_load_si128((const __m128i *)(const void *)(q + (o)*stride))
  for (int v = 0; v < VECS; v++) {
    vi in[4];
    UNROLL for (int i = 0; i < 4; i++) {
      int o = v * LANES + i;
#if LANES == 16
      __m512i w = _mm512_castsi128_si512(HALF(o));
      w = _mm512_inserti32x4(w, HALF(o + 4), 1);
      w = _mm512_inserti32x4(w, HALF(o + 8), 2);
      in[i] = _mm512_inserti32x4(w, HALF(o + 12), 3);
#else
      in[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(HALF(o)), HALF(o + 4), 1);
#endif
    }
    vi a = q_unpack_low32(in[0], in[1]), b = q_unpack_low32(in[2], in[3]);
    vi c = q_unpack_high32(in[0], in[1]), d = q_unpack_high32(in[2], in[3]);
    uint8_t *at = to + v * LANES * 4;
    q_store(at, q_unpack_low64(a, b));
    q_store(at + 4 * VIV__PANEL, q_unpack_high64(a, b));
    q_store(at + 8 * VIV__PANEL, q_unpack_low64(c, d));
    q_store(at + 12 * VIV__PANEL, q_unpack_high64(c, d));
  }
#undef HALF
}

/* A panel of rows in INT8_ROW whose end is no whole unit. */
static void make_cut_panel(const char *w, int64_t stride, int64_t k, const viv__row_layout *l,
                           char *panel) {
  float *scale = (float *)(void *)(panel + l->cols * VIV__PANEL);
  _Alignas(64) uint8_t q[VIV__PANEL][VIV__GROUP];
  for (int64_t u = 0; u < l->units; u++) {
    float minimum;
    for (int o = 0; o < VIV__PANEL; o++)
      unpack_span(VIV_INT8_ROW, w + o * stride, u * VIV__GROUP, k, q[o], scale + u * VIV__PANEL + o,
                  &minimum);
    for (int s = 0; s < VIV__GROUP; s += 16)
      side_by_side(&q[0][s], sizeof q[0], (uint8_t *)panel + (u * VIV__GROUP + s) * VIV__PANEL);
  }
}

#include "compute/kernels_quant_walk.h"

/* ---- products of many rows ---- */

/* R rows, x[r], by a panel: sums without bias to y[r] [PANEL]. */
INLINE void tile_blocks(int R, int unit, enum q_kind kind, const viv__row_layout *l,
                        const char *panel, const char *const *x, float (*y)[VIV__PANEL]) {
#if defined(__AVX512VNNI__)
  bool shift = kind != Q_MINIMUM;
#else
  bool shift = kind == Q_SHIFT;
#endif
  const float *scale = (const float *)(const void *)(panel + l->cols * VIV__PANEL);
  const float *low = scale + l->units * VIV__PANEL;
  vf sum[8][VECS];
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int v = 0; v < VECS; v++) sum[r][v] = v_set(0.0f);
  }
  for (int64_t u = 0; u < l->units; u++) {
    vi acc[8][VECS];
    UNROLL for (int r = 0; r < R; r++) {
      int32_t start = 0;
      if (shift) memcpy(&start, x[r] + l->shift_at + u * 4, sizeof start);
      UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = q_set32(start);
    }
    UNROLL for (int i = 0; i < unit; i += 4) {
      vi q[VECS];
      const char *at = panel + (u * unit + i) * VIV__PANEL;
      UNROLL for (int v = 0; v < VECS; v++) q[v] = q_load(at + v * LANES * 4);
      UNROLL for (int r = 0; r < R; r++) {
        int32_t four;
        memcpy(&four, x[r] + u * unit + i, sizeof four);
        vi a = q_set32(four);
        UNROLL for (int v = 0; v < VECS; v++) {
          acc[r][v] = q_dot(acc[r][v], q[v], a, kind == Q_WIDE);
        }
      }
    }
    UNROLL for (int r = 0; r < R; r++) {
      float group, total;
      memcpy(&group, x[r] + l->scale_at + u * unit / VIV__GROUP * 4, sizeof group);
      memcpy(&total, x[r] + l->sum_at + u * 4, sizeof total);
      UNROLL for (int v = 0; v < VECS; v++) {
        vf product = q_to_float(acc[r][v]) * v_set(group);
        sum[r][v] = v_fma(product, v_load(scale + u * VIV__PANEL + v * LANES), sum[r][v]);
        if (kind == Q_MINIMUM)
          sum[r][v] = v_fma(v_set(total), v_load(low + u * VIV__PANEL + v * LANES), sum[r][v]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int v = 0; v < VECS; v++) v_store(&y[r][v * LANES], sum[r][v]);
  }
}

#if LANES == 16
enum { BLOCK_ROWS = 8 };
#else
enum { BLOCK_ROWS = 4 };
#endif

INLINE void panel_rows(int unit, enum q_kind kind, const viv__product *p, const viv__row_layout *l,
                       int64_t out, int lane, int64_t n) {
  float y[8][VIV__PANEL];
  const char *x[8];
  for (int64_t r = 0; r < p->rows;) {
    int64_t left = p->rows - r;
    int R = left >= BLOCK_ROWS ? BLOCK_ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    for (int i = 0; i < R; i++) x[i] = p->x + (r + i) * l->bytes;
    if (R == BLOCK_ROWS)
      tile_blocks(BLOCK_ROWS, unit, kind, l, p->panel, x, y);
    else if (R == 4)
      tile_blocks(4, unit, kind, l, p->panel, x, y);
    else if (R == 2)
      tile_blocks(2, unit, kind, l, p->panel, x, y);
    else
      tile_blocks(1, unit, kind, l, p->panel, x, y);
    for (int i = 0; i < R; i++) viv__finish(p, y[i] + lane, r + i, out, n);
    r += R;
  }
}

static void panel_rows_32_minimum(const viv__product *p, const viv__row_layout *l, int64_t out,
                                  int lane, int64_t n) {
  panel_rows(32, Q_MINIMUM, p, l, out, lane, n);
}
static void panel_rows_16_minimum(const viv__product *p, const viv__row_layout *l, int64_t out,
                                  int lane, int64_t n) {
  panel_rows(16, Q_MINIMUM, p, l, out, lane, n);
}
static void panel_rows_32_shift(const viv__product *p, const viv__row_layout *l, int64_t out,
                                int lane, int64_t n) {
  panel_rows(32, Q_SHIFT, p, l, out, lane, n);
}
static void panel_rows_16_shift(const viv__product *p, const viv__row_layout *l, int64_t out,
                                int lane, int64_t n) {
  panel_rows(16, Q_SHIFT, p, l, out, lane, n);
}
static void panel_rows_32_wide(const viv__product *p, const viv__row_layout *l, int64_t out,
                               int lane, int64_t n) {
  panel_rows(32, Q_WIDE, p, l, out, lane, n);
}

static void panel_by_rows(const viv__product *p, const viv__row_layout *l, int64_t out, int lane,
                          int64_t n) {
  const viv__format *f = p->format;
  if (f->minimum && f->unit == 32)
    panel_rows_32_minimum(p, l, out, lane, n);
  else if (f->minimum)
    panel_rows_16_minimum(p, l, out, lane, n);
  else if (f->zero == 128)
    panel_rows_32_wide(p, l, out, lane, n);
  else if (f->unit == 32)
    panel_rows_32_shift(p, l, out, lane, n);
  else
    panel_rows_16_shift(p, l, out, lane, n);
}

/* Up to this many rows meet the weights as they are read; for more a panel is made first. Blocks of
 * 256 take longer to read and are read again for each row. */
#if LANES == 16
enum { WALK_ROWS = 8 };
#else
enum { WALK_ROWS = 4 };
#endif

/* The PANEL weights that begin stride bytes apart at w; the outputs of lanes [lane, lane + n) are
 * wanted, the first of them is out. */
static void one_panel(const viv__product *p, const viv__row_layout *l, const char *w,
                      int64_t stride, const char *next, int64_t out, int lane, int64_t n) {
  int32_t dtype = p->format->dtype;
  bool cut = p->k < l->cols;
  int64_t most = cut ? 0 : p->format->span == 256 ? 1 : WALK_ROWS;
  bool walked = p->rows <= most;
  const char *x[WALK_ROWS]; /* where there are fewer rows, some meet the weights twice */
  vf sum[VECS][WALK_ROWS];
  for (int64_t r = 0; walked && r < WALK_ROWS; r++)
    x[r] = p->x + viv__min(r, p->rows - 1) * l->bytes;
  if (cut) make_cut_panel(w, stride, p->k, l, p->panel);
  for (int v = 0; !cut && v < VECS; v++) {
    struct walk t = {w + v * LANES * stride, stride, next, l, x, p->panel, v * LANES};
    if (v + 1 < VECS) t.next = w + (v + 1) * LANES * stride;
    if (!walked)
      walk_0(dtype, &t, NULL);
    else if (p->rows == 1)
      walk_1(dtype, &t, sum[v]);
    else if (p->rows == 2)
      walk_2(dtype, &t, sum[v]);
#if LANES == 16
    else if (p->rows > 4)
      walk_8(dtype, &t, sum[v]);
#endif
    else
      walk_4(dtype, &t, sum[v]);
  }
  if (!walked) {
    panel_by_rows(p, l, out, lane, n);
    return;
  }
  for (int64_t r = 0; r < p->rows; r++) {
    float y[VIV__PANEL];
    for (int v = 0; v < VECS; v++) v_store(y + v * LANES, sum[v][r]);
    viv__finish(p, y + lane, r, out, n);
  }
}

static void block_product(const viv__product *p) {
  viv__row_layout l = viv__row_layout_of(p->format, p->k);
  for (int64_t out = p->begin; out < p->end;) {
    const char *w = p->w + out * p->row_bytes;
    int64_t n = p->end - out;
    if (n >= VIV__PANEL) {
      n = VIV__PANEL;
      one_panel(p, &l, w, p->row_bytes,
                out + 2 * VIV__PANEL <= p->end ? w + n * p->row_bytes : NULL, out, 0, n);
    } else if (p->outs >= VIV__PANEL) { /* the last: some outputs before it are computed again */
      int lane = (int)(VIV__PANEL - n);
      one_panel(p, &l, w - lane * p->row_bytes, p->row_bytes, NULL, out, lane, n);
    } else { /* a small matrix: one output in all lanes */
      n = 1;
      one_panel(p, &l, w, 0, NULL, out, 0, n);
    }
    out += n;
  }
}

const viv__quant_kernels QUANT_KERNELS = {.quantize = quantize_rows, .product = block_product};
