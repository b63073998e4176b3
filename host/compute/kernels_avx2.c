/* The kernels for AVX2 with FMA and F16C: eight floats at a time. Called only after the check in
 * compute.c; the Makefile gives this file its instruction set. */
#if defined(__x86_64__)
#include "compute/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 8
#define LINEAR_ROWS 3 /* 3 x 4 sums, 3 of x, 1 weight: all 16 registers */
#define VALUE_VECTORS 2
#define KERNELS viv__kernels_avx2
#define KERNELS_NAME "avx2"

typedef __m256 vf;
typedef __m256i vi;

static inline __m256i first(int64_t n) {
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
static inline vf v_set(float f) {
  return _mm256_set1_ps(f);
}
static inline vf v_load(const void *p) {
  return _mm256_loadu_ps(p);
}
static inline vf v_load_n(const void *p, int64_t n) {
  return _mm256_maskload_ps(p, first(n));
}
static inline void v_store(void *p, vf v) {
  _mm256_storeu_ps(p, v);
}
static inline void v_store_n(void *p, vf v, int64_t n) {
  _mm256_maskstore_ps(p, first(n), v);
}
static inline __m128i halves_n(const void *p, int64_t n) {
  uint16_t buffer[8] = {0};
  memcpy(buffer, p, (size_t)n * sizeof *buffer);
  return _mm_loadu_si128((const __m128i *)buffer);
}
static inline void store_halves_n(void *p, __m128i h, int64_t n) {
  uint16_t buffer[8];
  _mm_storeu_si128((__m128i *)buffer, h);
  memcpy(p, buffer, (size_t)n * sizeof *buffer);
}
static inline vf v_load_f16(const void *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
static inline vf v_load_f16_n(const void *p, int64_t n) {
  return _mm256_cvtph_ps(halves_n(p, n));
}
static inline vf bf16_to_floats(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline vf v_load_bf16(const void *p) {
  return bf16_to_floats(_mm_loadu_si128(p));
}
static inline vf v_load_bf16_n(const void *p, int64_t n) {
  return bf16_to_floats(halves_n(p, n));
}
static inline void v_store_f16_n(void *p, vf v, int64_t n) {
  store_halves_n(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}
static inline void v_store_bf16_n(void *p, vf v, int64_t n) {
  __m256i u = _mm256_castps_si256(v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  __m256i packed = _mm256_packus_epi32(bits, bits);
  packed = _mm256_permute4x64_epi64(packed, 0xd8);
  store_halves_n(p, _mm256_castsi256_si128(packed), n);
}
/* stride counts elements; lanes from n on are 0. */
static inline vf v_gather_n(const float *p, int64_t stride, int64_t n) {
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32((int)stride));
  return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), p, index, _mm256_castsi256_ps(first(n)), 4);
}
static inline void v_scatter_n(float *p, int64_t stride, vf v, int64_t n) {
  float buffer[8];
  _mm256_storeu_ps(buffer, v);
  for (int64_t i = 0; i < n; i++) p[i * stride] = buffer[i];
}
static inline vf v_fma(vf a, vf b, vf c) {
  return _mm256_fmadd_ps(a, b, c);
}
/* A NaN in b is kept. */
static inline vf v_max(vf a, vf b) {
  return _mm256_max_ps(a, b);
}
static inline vf v_min(vf a, vf b) {
  return _mm256_min_ps(a, b);
}
static inline vf v_abs(vf a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf v_sign_of(vf value, vf sign) { /* value >= 0 with the sign of sign */
  return _mm256_or_ps(value, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
static inline vf v_sqrt(vf a) {
  return _mm256_sqrt_ps(a);
}
static inline vf v_round(vf a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a > b ? x : y */
static inline vf v_if_greater(vf a, vf b, vf x, vf y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
/* Lanes from n on become fill. */
static inline vf v_keep_n(vf a, vf fill, int64_t n) {
  return _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(first(n)));
}
/* a 2^e; e is whole, within +-252. In two steps, so that results may be denormal. */
static inline vf v_scale(vf a, vf e) {
  __m256i n = _mm256_cvtps_epi32(e), half = _mm256_srai_epi32(n, 1);
  __m256i rest = _mm256_sub_epi32(n, half), bias = _mm256_set1_epi32(127);
  vf x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  vf y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return a * x * y;
}
/* The sums of four vectors' lanes, each made in the same order. */
static inline __m128 v_sums4(vf a, vf b, vf c, vf d) {
  __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm256_castps256_ps128(s) + _mm256_extractf128_ps(s, 1);
}

/* The square of 8 vectors is turned: pairs, then quads, then halves. */
static inline __attribute__((always_inline)) void v_transpose(vf r[8]) {
  vf t[8];
  for (int i = 0; i < 8; i += 4) {
    vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}

static inline vf v_load_i8(const void *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}
static inline vf v_load_i8_n(const void *p, int64_t n) {
  int8_t buffer[8] = {0};
  memcpy(buffer, p, (size_t)n);
  return v_load_i8(buffer);
}
/* Lane i of each quarter, i a constant, in all of it. */
#define v_quad_lane(v, i) _mm256_permute_ps(v, (i)*0x55)
/* The four floats at p in each half. */
static inline vf v_quad(const float *p) {
  return _mm256_broadcast_ps((const __m128 *)(const void *)p);
}
/* Quads of two rows: v[i] becomes quad i of each. */
static inline void v_turn_quads(vf *v) {
  vf a = v[0], b = v[1];
  v[0] = _mm256_permute2f128_ps(a, b, 0x20);
  v[1] = _mm256_permute2f128_ps(a, b, 0x31);
}
/* Lane 4 q + j: the sum of quad q of vector j. */
static inline vf v_quad_sums(vf a, vf b, vf c, vf d) {
  vf s = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b);
  vf t = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
  __m256d u = _mm256_castps_pd(s), v = _mm256_castps_pd(t);
  return _mm256_castpd_ps(_mm256_unpacklo_pd(u, v)) + _mm256_castpd_ps(_mm256_unpackhi_pd(u, v));
}
static inline float v_top(vf v) { /* the largest lane */
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
/* a == b ? x : y */
static inline vf v_if_equal(vf a, vf b, vf x, vf y) {
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

/* x = the result, in [1, 2), times 2^e; for x that is positive and finite. */
static inline vf v_frexp(vf x, vf *e) {
  vf tiny = _mm256_cmp_ps(x, _mm256_set1_ps(0x1p-126f), _CMP_LT_OQ);
  x = _mm256_blendv_ps(x, x * _mm256_set1_ps(0x1p24f), tiny);
  __m256i u = _mm256_castps_si256(x), field = _mm256_srli_epi32(u, 23);
  *e = _mm256_cvtepi32_ps(_mm256_sub_epi32(field, _mm256_set1_epi32(127)));
  *e -= _mm256_and_ps(tiny, _mm256_set1_ps(24.0f));
  u = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(u, _mm256_set1_epi32(0x3f800000)));
}

#include "compute/kernels_impl.h"
#endif
