/* The kernels for AVX-512 (F, BW, VL, DQ, CD): sixteen floats at a time. Called only after the
 * check in compute.c; the Makefile gives this file its instruction set. */
#if defined(__x86_64__)
#include "compute/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 16
#define LINEAR_ROWS 6 /* 6 x 4 sums, 4 weights, 1 x: 29 of 32 registers */
#define VALUE_VECTORS 4
#define KERNELS viv__kernels_avx512
#define KERNELS_NAME "avx512"

typedef __m512 vf;
typedef __m512i vi;

static inline __mmask16 first(int64_t n) {
  return (__mmask16)((1u << n) - 1);
}
static inline vf v_set(float f) {
  return _mm512_set1_ps(f);
}
static inline vf v_load(const void *p) {
  return _mm512_loadu_ps(p);
}
static inline vf v_load_n(const void *p, int64_t n) {
  return _mm512_maskz_loadu_ps(first(n), p);
}
static inline void v_store(void *p, vf v) {
  _mm512_storeu_ps(p, v);
}
static inline void v_store_n(void *p, vf v, int64_t n) {
  _mm512_mask_storeu_ps(p, first(n), v);
}
static inline vf v_load_f16(const void *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline vf v_load_f16_n(const void *p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}
static inline vf bf16_to_floats(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline vf v_load_bf16(const void *p) {
  return bf16_to_floats(_mm256_loadu_si256(p));
}
static inline vf v_load_bf16_n(const void *p, int64_t n) {
  return bf16_to_floats(_mm256_maskz_loadu_epi16(first(n), p));
}
static inline void v_store_f16_n(void *p, vf v, int64_t n) {
  __m256i h = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_mask_storeu_epi16(p, first(n), h);
}
static inline void v_store_bf16_n(void *p, vf v, int64_t n) {
  __m512i u = _mm512_castps_si512(v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  __m512i bits = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtepi32_epi16(bits));
}
/* stride counts elements; lanes from n on are 0. */
static inline vf v_gather_n(const float *p, int64_t stride, int64_t n) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), first(n), index, p, 4);
}
static inline void v_scatter_n(float *p, int64_t stride, vf v, int64_t n) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)stride));
  _mm512_mask_i32scatter_ps(p, first(n), index, v, 4);
}
static inline vf v_fma(vf a, vf b, vf c) {
  return _mm512_fmadd_ps(a, b, c);
}
/* A NaN in b is kept. */
static inline vf v_max(vf a, vf b) {
  return _mm512_max_ps(a, b);
}
static inline vf v_min(vf a, vf b) {
  return _mm512_min_ps(a, b);
}
static inline vf v_abs(vf a) {
  return _mm512_abs_ps(a);
}
static inline vf v_sign_of(vf value, vf sign) { /* value >= 0 with the sign of sign */
  return _mm512_or_ps(value, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
static inline vf v_sqrt(vf a) {
  return _mm512_sqrt_ps(a);
}
static inline vf v_round(vf a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a > b ? x : y */
static inline vf v_if_greater(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
/* Lanes from n on become fill. */
static inline vf v_keep_n(vf a, vf fill, int64_t n) {
  return _mm512_mask_blend_ps(first(n), fill, a);
}
/* a 2^e; e is whole. */
static inline vf v_scale(vf a, vf e) {
  return _mm512_scalef_ps(a, e);
}
/* The sums of four vectors' lanes, each made in the same order. */
static inline __m128 v_sums4(vf a, vf b, vf c, vf d) {
  __m512 ab = _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xee);
  __m512 cd = _mm512_shuffle_f32x4(c, d, 0x44) + _mm512_shuffle_f32x4(c, d, 0xee);
  __m512 s = _mm512_shuffle_f32x4(ab, cd, 0x88) + _mm512_shuffle_f32x4(ab, cd, 0xdd);
  s += _mm512_permute_ps(s, 0xb1);
  s += _mm512_permute_ps(s, 0x4e);
  const __m512i heads = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(heads, s));
}

/* The square of 16 vectors is turned: pairs, then quads, then lanes of 128 bits twice. */
static inline __attribute__((always_inline)) void v_transpose(vf r[16]) {
  vf t[16];
  for (int i = 0; i < 16; i += 4) {
    vf a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
    vf c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; i++) {
    vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
    vf b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
    vf d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

static inline vf v_load_i8(const void *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
static inline vf v_load_i8_n(const void *p, int64_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p)));
}
/* The four floats at p in each quarter. */
static inline vf v_quad(const float *p) {
  return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
}
/* Lane i of each quarter, i a constant, in all of it. */
#define v_quad_lane(v, i) _mm512_permute_ps(v, (i)*0x55)
/* Quads of four rows: v[i] becomes quad i of each. */
static inline void v_turn_quads(vf *v) {
  vf a = _mm512_shuffle_f32x4(v[0], v[1], 0x44), b = _mm512_shuffle_f32x4(v[0], v[1], 0xee);
  vf c = _mm512_shuffle_f32x4(v[2], v[3], 0x44), d = _mm512_shuffle_f32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_f32x4(a, c, 0x88);
  v[1] = _mm512_shuffle_f32x4(a, c, 0xdd);
  v[2] = _mm512_shuffle_f32x4(b, d, 0x88);
  v[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
}
/* Lane 4 q + j: the sum of quad q of vector j. */
static inline vf v_quad_sums(vf a, vf b, vf c, vf d) {
  vf s = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
  vf t = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
  __m512d u = _mm512_castps_pd(s), v = _mm512_castps_pd(t);
  return _mm512_castpd_ps(_mm512_unpacklo_pd(u, v)) + _mm512_castpd_ps(_mm512_unpackhi_pd(u, v));
}
static inline float v_top(vf v) { /* the largest lane */
  return _mm512_reduce_max_ps(v);
}
/* a == b ? x : y */
static inline vf v_if_equal(vf a, vf b, vf x, vf y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), y, x);
}

/* x = the result, in [1, 2), times 2^e; for x that is positive and finite. */
static inline vf v_frexp(vf x, vf *e) {
  *e = _mm512_getexp_ps(x);
  return _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
}

#include "compute/kernels_impl.h"
#endif
