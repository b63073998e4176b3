/* Unpacking of block formats, in plain C that compilers turn into vector code. Included by each file
 * that needs it, so that it is compiled for that file's instruction set; all static. The includer
 * defines half_float(const void *) before: the f16 at an address as f32. */

#include <string.h>

/* The nibbles of n bytes: low ones first, high ones to q + distance. */
static inline void nibbles(const uint8_t *from, uint8_t *q, int distance, int n) {
  for (int i = 0; i < n; i++) {
    q[i] = from[i] & 15;
    q[i + distance] = from[i] >> 4;
  }
}

/* Adds bit i of a 32-bit mask to element i as its fifth bit. */
static inline void fifth_bits(const uint8_t *from, uint8_t *q) {
  for (int i = 0; i < 32; i++) q[i] |= (uint8_t)((from[i / 8] >> (i % 8) & 1) << 4);
}

static inline void shifted(const uint8_t *from, uint8_t *q, int n) { /* signed bytes, plus 128 */
  for (int i = 0; i < n; i++) q[i] = from[i] ^ 128;
}

/* Eight scales and minima of six bits each in 12 bytes, as Q4_K and Q5_K keep them. */
static inline void six_bit_scales(const uint8_t *s, const uint8_t *halves, float *d, float *m) {
  float scale = half_float(halves), min = half_float(halves + 2);
  for (int j = 0; j < 4; j++) {
    d[j] = scale * (float)(s[j] & 63);
    m[j] = -(min * (float)(s[j + 4] & 63));
    d[j + 4] = scale * (float)((s[j + 8] & 15) | (s[j] >> 6) << 4);
    m[j + 4] = -(min * (float)(s[j + 8] >> 4 | (s[j + 4] >> 6) << 4));
  }
}

static inline void unpack_q2_k(const uint8_t *b, uint8_t *q, float *d, float *m) {
  float scale = half_float(b + 80), min = half_float(b + 82);
  for (int i = 0; i < 16; i++) {
    d[i] = scale * (float)(b[i] & 15);
    m[i] = -(min * (float)(b[i] >> 4));
  }
  for (int half = 0; half < 2; half++)
    for (int j = 0; j < 4; j++)
      for (int i = 0; i < 32; i++)
        q[half * 128 + j * 32 + i] = b[16 + half * 32 + i] >> (2 * j) & 3;
}

static inline void unpack_q3_k(const uint8_t *b, uint8_t *q, float *d) {
  const uint8_t *s = b + 96;
  float scale = half_float(b + 108);
  for (int i = 0; i < 16; i++) {
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> (2 * (i / 4)) & 3;
    d[i] = scale * (float)((low | high << 4) - 32);
  }
  for (int half = 0; half < 2; half++)
    for (int j = 0; j < 4; j++)
      for (int i = 0; i < 32; i++)
        q[half * 128 + j * 32 + i] =
            (uint8_t)((b[32 + half * 32 + i] >> (2 * j) & 3) | (b[i] >> (half * 4 + j) & 1) << 2);
}

static inline void unpack_q5_k(const uint8_t *b, uint8_t *q, float *d, float *m) {
  six_bit_scales(b + 4, b, d, m);
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 32; i++) {
      int low = b[48 + j * 32 + i], high = b[16 + i] >> (2 * j);
      q[j * 64 + i] = (uint8_t)((low & 15) | (high & 1) << 4);
      q[j * 64 + 32 + i] = (uint8_t)(low >> 4 | (high & 2) << 3);
    }
}

static inline void unpack_q6_k(const uint8_t *b, uint8_t *q, float *d) {
  float scale = half_float(b + 208);
  for (int i = 0; i < 16; i++) d[i] = scale * (float)(int8_t)b[192 + i];
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < 32; i++) {
      const uint8_t *low = b + half * 64 + i;
      int high = b[128 + half * 32 + i];
      uint8_t *to = q + half * 128 + i;
      to[0] = (uint8_t)((low[0] & 15) | (high & 3) << 4);
      to[32] = (uint8_t)((low[32] & 15) | (high >> 2 & 3) << 4);
      to[64] = (uint8_t)(low[0] >> 4 | (high >> 4 & 3) << 4);
      to[96] = (uint8_t)(low[32] >> 4 | (high >> 6 & 3) << 4);
    }
}

/* Unpacks the span that begins at element k of a row of cols elements: q [span], and d and m [span /
 * unit] (m is written for formats with a minimum only). Of an INT8_ROW the last span may be cut: the
 * rest of q becomes the value 0. */
static inline __attribute__((always_inline)) void unpack_span(int32_t dtype, const void *row,
                                                              int64_t k, int64_t cols, uint8_t *q,
                                                              float *d, float *m) {
  const uint8_t *b = row;
  switch (dtype) {
  case VIV_INT8_ROW: {
    memcpy(d, b, sizeof *d);
    b += 4 + k;
    if (cols - k >= 32) {
      shifted(b, q, 32);
    } else {
      memset(q, 128, 32);
      for (int64_t i = 0; i < cols - k; i++) q[i] = b[i] ^ 128;
    }
    return;
  }
  case VIV_INT8_G128:
    b += k / 128 * 130;
    for (int i = 0; i < 4; i++) d[i] = half_float(b);
    shifted(b + 2, q, 128);
    return;
  case VIV_INT4_G128:
    b += k / 128 * 68;
    for (int i = 0; i < 4; i++) {
      d[i] = half_float(b);
      m[i] = half_float(b + 2);
    }
    nibbles(b + 4, q, 64, 64);
    return;
  case VIV_Q4_0:
    b += k / 32 * 18;
    d[0] = half_float(b);
    nibbles(b + 2, q, 16, 16);
    return;
  case VIV_Q4_1:
    b += k / 32 * 20;
    d[0] = half_float(b);
    m[0] = half_float(b + 2);
    nibbles(b + 4, q, 16, 16);
    return;
  case VIV_Q5_0:
    b += k / 32 * 22;
    d[0] = half_float(b);
    nibbles(b + 6, q, 16, 16);
    fifth_bits(b + 2, q);
    return;
  case VIV_Q5_1:
    b += k / 32 * 24;
    d[0] = half_float(b);
    m[0] = half_float(b + 2);
    nibbles(b + 8, q, 16, 16);
    fifth_bits(b + 4, q);
    return;
  case VIV_Q8_0:
    b += k / 32 * 34;
    d[0] = half_float(b);
    shifted(b + 2, q, 32);
    return;
  case VIV_Q2_K:
    unpack_q2_k(b + k / 256 * 84, q, d, m);
    return;
  case VIV_Q3_K:
    unpack_q3_k(b + k / 256 * 110, q, d);
    return;
  case VIV_Q4_K:
    b += k / 256 * 144;
    six_bit_scales(b + 4, b, d, m);
    for (int j = 0; j < 4; j++) nibbles(b + 16 + j * 32, q + j * 64, 32, 32);
    return;
  case VIV_Q5_K:
    unpack_q5_k(b + k / 256 * 176, q, d, m);
    return;
  case VIV_Q6_K:
    unpack_q6_k(b + k / 256 * 210, q, d);
    return;
  }
}
