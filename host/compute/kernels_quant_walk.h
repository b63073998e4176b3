/* Block formats read with vectors: the rows of LANES outputs at once. Part of kernels_impl.h, after
 * kernels_quant.h's vectors.
 *
 * A strip is a vector that holds four consecutive bytes of each output. A walk goes over the units
 * of its format in order; R rows of activations meet each unit as it is read (R = 0: it is put into
 * a panel instead). Loads stay within the block that they read. */

/* Where a walk reads and what it meets. */
struct walk {
  const char *w;    /* the first of LANES rows of blocks */
  int64_t stride;   /* bytes from one to the next */
  const char *next; /* the blocks that will be read after these: fetched ahead; NULL: none */
  const viv__row_layout *l;
  const char *const *x; /* [R] quantised rows */
  char *panel;          /* R = 0: where the panel begins, and which vector of it this is */
  int lane;
};

/* ---- strips ---- */

INLINE __m128i sixteen_bytes(const char *p) {
  return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Rows o, o + 4 and so on. */
#if LANES == 16
INLINE vi four_rows(const char *p, int64_t stride) {
  vi v = _mm512_castsi128_si512(sixteen_bytes(p));
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, sixteen_bytes(p + 4 * stride));
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, sixteen_bytes(p + 8 * stride));
  return _mm512_mask_broadcast_i32x4(v, 0xf000, sixteen_bytes(p + 12 * stride));
}
#else
INLINE vi four_rows(const char *p, int64_t stride) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_bytes(p)),
                                 sixteen_bytes(p + 4 * stride), 1);
}
#endif

INLINE void all_rows(const struct walk *t, int64_t at, vi *in) {
  const char *p = t->w + at;
  UNROLL for (int o = 0; o < 4; o++) in[o] = four_rows(p + o * t->stride, t->stride);
}

/* Bytes [at, at + 16) of each row as four strips. */
INLINE void strips_of(const struct walk *t, int64_t at, vi *strip) {
  vi in[4];
  all_rows(t, at, in);
  vi a = q_unpack_low32(in[0], in[1]), b = q_unpack_low32(in[2], in[3]);
  vi c = q_unpack_high32(in[0], in[1]), d = q_unpack_high32(in[2], in[3]);
  strip[0] = q_unpack_low64(a, b);
  strip[1] = q_unpack_high64(a, b);
  strip[2] = q_unpack_low64(c, d);
  strip[3] = q_unpack_high64(c, d);
}

/* Bytes [at, at + 4) of each row; 16 bytes are read. */
INLINE vi first_strip(const struct walk *t, int64_t at) {
  vi in[4];
  all_rows(t, at, in);
  return q_unpack_low64(q_unpack_low32(in[0], in[1]), q_unpack_low32(in[2], in[3]));
}

/* Bytes [at + 12, at + 16) of each row; 16 bytes are read. */
INLINE vi last_strip(const struct walk *t, int64_t at) {
  vi in[4];
  all_rows(t, at, in);
  return q_unpack_high64(q_unpack_high32(in[0], in[1]), q_unpack_high32(in[2], in[3]));
}

#if LANES == 16
#define q_and(a, b) _mm512_and_si512(a, b)
#define q_or(a, b) _mm512_or_si512(a, b)
#define q_xor(a, b) _mm512_xor_si512(a, b)
#define q_right(a, n) _mm512_srli_epi32(a, (unsigned)(n))
#define q_left(a, n) _mm512_slli_epi32(a, (unsigned)(n))
#define q_right_signed(a, n) _mm512_srai_epi32(a, (unsigned)(n))
#define q_add32(a, b) _mm512_add_epi32(a, b)
#define q_shuffle(a, b) _mm512_shuffle_epi8(a, b)
INLINE vf low_halves(vi v) { /* f16 in the low 16 bits of each lane */
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}
/* 16 in the bytes whose bit is set, as a strip. */
INLINE vi sixteen_where(vi bits, vi which) {
  return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(bits, which), 16);
}
#else
#define q_and(a, b) _mm256_and_si256(a, b)
#define q_or(a, b) _mm256_or_si256(a, b)
#define q_xor(a, b) _mm256_xor_si256(a, b)
#define q_right(a, n) _mm256_srli_epi32(a, n)
#define q_left(a, n) _mm256_slli_epi32(a, n)
#define q_right_signed(a, n) _mm256_srai_epi32(a, n)
#define q_add32(a, b) _mm256_add_epi32(a, b)
#define q_shuffle(a, b) _mm256_shuffle_epi8(a, b)
INLINE vf low_halves(vi v) {
  v = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
  v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0xd8);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(v));
}
INLINE vi sixteen_where(vi bits, vi which) {
  vi set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, which), which);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}
#endif

INLINE vi lane_bytes(int byte) { /* in each byte of a lane: where that byte of the lane stands */
  __m128i first = _mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
  first = _mm_or_si128(first, _mm_set1_epi8((char)byte));
#if LANES == 16
  return _mm512_broadcast_i32x4(first);
#else
  return _mm256_broadcastsi128_si256(first);
#endif
}
INLINE vf high_halves(vi v) {
  return low_halves(q_right(v, 16));
}
INLINE vi low_nibbles(vi v) {
  return q_and(v, q_set32(0x0f0f0f0f));
}
INLINE vi high_nibbles(vi v) {
  return q_and(q_right(v, 4), q_set32(0x0f0f0f0f));
}
INLINE vf byte_as_float(vi v, int i) { /* byte i of each lane, unsigned */
  return q_to_float(q_and(q_right(v, 8 * i), q_set32(0xff)));
}
INLINE vf negated(vf v) {
  return v_set(-0.0f) - v;
}

/* ---- what a unit meets ---- */

INLINE bool shifted_start(enum q_kind kind) {
#if defined(__AVX512VNNI__)
  return kind != Q_MINIMUM;
#else
  return kind == Q_SHIFT;
#endif
}

INLINE void unit_begin(int R, enum q_kind kind, const struct walk *t, int64_t u, vi *acc) {
  UNROLL for (int r = 0; r < R; r++) {
    int32_t start = 0;
    if (shifted_start(kind)) memcpy(&start, t->x[r] + t->l->shift_at + u * 4, sizeof start);
    acc[r] = q_set32(start);
  }
}

/* n strips, the first of them strip i of the row's cols / 4. */
INLINE void unit_strips(int R, enum q_kind kind, const struct walk *t, int64_t i, int n,
                        const vi *q, vi *acc) {
  UNROLL for (int s = 0; s < n; s++) {
    if (R == 0) q_store(t->panel + ((i + s) * VIV__PANEL + t->lane) * 4, q[s]);
    UNROLL for (int r = 0; r < R; r++) {
      int32_t four;
      memcpy(&four, t->x[r] + (i + s) * 4, sizeof four);
      acc[r] = q_dot(acc[r], q[s], q_set32(four), kind == Q_WIDE);
    }
  }
}

INLINE void unit_end(int R, enum q_kind kind, int unit, const struct walk *t, int64_t u,
                     const vi *acc, vf d, vf m, vf *sum) {
  if (R == 0) {
    float *scale = (float *)(void *)(t->panel + t->l->cols * VIV__PANEL) + t->lane;
    v_store(scale + u * VIV__PANEL, d);
    if (kind == Q_MINIMUM) v_store(scale + (t->l->units + u) * VIV__PANEL, m);
  }
  UNROLL for (int r = 0; r < R; r++) {
    float group, total;
    memcpy(&group, t->x[r] + t->l->scale_at + u * unit / VIV__GROUP * 4, sizeof group);
    memcpy(&total, t->x[r] + t->l->sum_at + u * 4, sizeof total);
    vf product = q_to_float(acc[r]) * v_set(group);
    sum[r] = v_fma(product, d, sum[r]);
    if (kind == Q_MINIMUM) sum[r] = v_fma(v_set(total), m, sum[r]);
  }
}

/* A unit of 32 in eight strips. */
INLINE void unit_32(int R, enum q_kind kind, const struct walk *t, int64_t u, const vi *q, vf d,
                    vf m, vf *sum) {
  vi acc[8];
  unit_begin(R, kind, t, u, acc);
  unit_strips(R, kind, t, u * 8, 4, q, acc);
  if (R > 4) { /* the rows' sums are chains enough */
    unit_strips(R, kind, t, u * 8 + 4, 4, q + 4, acc);
  } else { /* two chains of sums: one is as long as several units take otherwise */
    vi more[4];
    UNROLL for (int r = 0; r < R; r++) more[r] = q_set32(0);
    unit_strips(R, kind, t, u * 8 + 4, 4, q + 4, more);
    UNROLL for (int r = 0; r < R; r++) acc[r] = q_add32(acc[r], more[r]);
  }
  unit_end(R, kind, 32, t, u, acc, d, m, sum);
}

/* The rows that follow lie behind one another: the share of them that belongs to bytes of each of
 * these rows is asked for, into the second-level cache. */
INLINE void fetch_ahead(const struct walk *t, int64_t at, int bytes) {
  if (!t->next) return;
  for (int i = 0; i < bytes * LANES; i += 64) _mm_prefetch(t->next + at * LANES + i, _MM_HINT_T1);
}

/* ---- formats of 32 ---- */

/* A unit of Q4_1 whose five strips were read. */
INLINE void unit_q4_1(int R, const struct walk *t, int64_t u, const vi *strip, vf *sum) {
  vi q[8];
  UNROLL for (int s = 0; s < 4; s++) {
    q[s] = low_nibbles(strip[1 + s]);
    q[4 + s] = high_nibbles(strip[1 + s]);
  }
  unit_32(R, Q_MINIMUM, t, u, q, low_halves(strip[0]), high_halves(strip[0]), sum);
}

/* Four blocks of Q4_1 are twenty strips: read as five times sixteen bytes, of which none is read
 * twice. Answers how many units it went over. */
INLINE int64_t walk_q4_1_fours(int R, const struct walk *t, vf *sum) {
  int64_t u = 0;
  for (int64_t at = 0; u + 4 <= t->l->units; u += 4, at += 80) {
    vi strip[20];
    fetch_ahead(t, at, 80);
    UNROLL for (int i = 0; i < 5; i++) {
      strips_of(t, at + i * 16, strip + i * 4);
      if (i) unit_q4_1(R, t, u + i - 1, strip + (i - 1) * 5, sum);
    }
  }
  return u;
}

INLINE void walk_q4(int R, bool minimum, const struct walk *t, vf *sum) {
  enum q_kind kind = minimum ? Q_MINIMUM : Q_SHIFT;
  int bytes = minimum ? 20 : 18;
  int64_t u = minimum ? walk_q4_1_fours(R, t, sum) : 0;
  for (int64_t at = u * bytes; u < t->l->units; u++, at += bytes) {
    fetch_ahead(t, at, bytes);
    vi head = first_strip(t, at), q[8];
    strips_of(t, at + bytes - 16, q);
    UNROLL for (int s = 0; s < 4; s++) {
      q[4 + s] = high_nibbles(q[s]);
      q[s] = low_nibbles(q[s]);
    }
    unit_32(R, kind, t, u, q, low_halves(head), minimum ? high_halves(head) : v_set(0), sum);
  }
}

INLINE void walk_q5(int R, bool minimum, const struct walk *t, vf *sum) {
  enum q_kind kind = minimum ? Q_MINIMUM : Q_SHIFT;
  int bytes = minimum ? 24 : 22;
  for (int64_t u = 0, at = 0; u < t->l->units; u++, at += bytes) {
    fetch_ahead(t, at, bytes);
    vi head[4], q[8];
    strips_of(t, at, head);
    vi fifth = minimum ? head[1] : q_or(q_right(head[0], 16), q_left(head[1], 16));
    strips_of(t, at + bytes - 16, q);
    UNROLL for (int s = 0; s < 4; s++) {
      q[4 + s] = high_nibbles(q[s]);
      q[s] = low_nibbles(q[s]);
    }
    UNROLL for (int s = 0; s < 8; s++) { /* its four bits stand in byte s / 2 */
      vi bits = q_shuffle(fifth, lane_bytes(s / 2));
      q[s] = q_or(q[s], sixteen_where(bits, q_set32(s & 1 ? (int)0x80402010u : 0x08040201)));
    }
    unit_32(R, kind, t, u, q, low_halves(head[0]), minimum ? high_halves(head[0]) : v_set(0), sum);
  }
}

/* Eight bits: head bytes before each group of values; 0: the scale stands before the row. */
INLINE void walk_bytes(int R, int head, int group, const struct walk *t, vf *sum) {
  vf d = v_set(0);
  int64_t at = head ? 0 : 4;
  if (!head) {
    float scale[LANES];
    for (int o = 0; o < LANES; o++) memcpy(&scale[o], t->w + o * t->stride, sizeof *scale);
    d = v_load(scale);
  }
  const vi top = q_set32((int)0x80808080u);
  for (int64_t u = 0; u < t->l->units; u++, at += 32) {
    fetch_ahead(t, at, 34);
    if (head && u % (group / 32) == 0) {
      d = low_halves(first_strip(t, at));
      at += head;
    }
    vi q[8];
    strips_of(t, at, q);
    strips_of(t, at + 16, q + 4);
    UNROLL for (int s = 0; s < 8; s++) q[s] = q_xor(q[s], top);
    unit_32(R, Q_WIDE, t, u, q, d, v_set(0), sum);
  }
}

/* ---- formats of 256 ---- */

/* The eight scales and minima of Q4_K and Q5_K: d and m of each unit. */
INLINE void six_bit_strips(const vi *head, vf *d, vf *m) {
  vf scale = low_halves(head[0]), min = negated(high_halves(head[0]));
  const vi six = q_set32(0x3f3f3f3f), two = q_set32(0x30303030);
  vi ds[2], ms[2];
  ds[0] = q_and(head[1], six);
  ms[0] = q_and(head[2], six);
  ds[1] = q_or(low_nibbles(head[3]), q_and(q_right(head[1], 2), two));
  ms[1] = q_or(high_nibbles(head[3]), q_and(q_right(head[2], 2), two));
  UNROLL for (int u = 0; u < 8; u++) {
    d[u] = scale * byte_as_float(ds[u / 4], u % 4);
    m[u] = min * byte_as_float(ms[u / 4], u % 4);
  }
}

INLINE void walk_q45_k(int R, bool five, const struct walk *t, vf *sum) {
  int bytes = five ? 176 : 144;
  for (int64_t b = 0, at = 0; b < t->l->cols / 256; b++, at += bytes) {
    vi head[4], fifth[8];
    vf d[8], m[8];
    strips_of(t, at, head);
    six_bit_strips(head, d, m);
    if (five) {
      strips_of(t, at + 16, fifth);
      strips_of(t, at + 32, fifth + 4);
    }
    UNROLL for (int j = 0; j < 4; j++) {
      vi q[8], high[8];
      fetch_ahead(t, at + j * bytes / 4, bytes / 4);
      strips_of(t, at + bytes - 128 + j * 32, q);
      strips_of(t, at + bytes - 128 + j * 32 + 16, q + 4);
      UNROLL for (int s = 0; s < 8; s++) {
        high[s] = high_nibbles(q[s]);
        q[s] = low_nibbles(q[s]);
        if (!five) continue;
        const vi bit = q_set32(0x01010101);
        q[s] = q_or(q[s], q_left(q_and(q_right(fifth[s], 2 * j), bit), 4));
        high[s] = q_or(high[s], q_left(q_and(q_right(fifth[s], 2 * j + 1), bit), 4));
      }
      unit_32(R, Q_MINIMUM, t, b * 8 + 2 * j, q, d[2 * j], m[2 * j], sum);
      unit_32(R, Q_MINIMUM, t, b * 8 + 2 * j + 1, high, d[2 * j + 1], m[2 * j + 1], sum);
    }
  }
}

/* A unit of 16 in four strips. */
INLINE void unit_16(int R, enum q_kind kind, const struct walk *t, int64_t u, const vi *q, vf d,
                    vf m, vf *sum) {
  vi acc[4];
  unit_begin(R, kind, t, u, acc);
  unit_strips(R, kind, t, u * 4, 4, q, acc);
  unit_end(R, kind, 16, t, u, acc, d, m, sum);
}

INLINE void walk_q6_k(int R, const struct walk *t, vf *sum) {
  const vi two = q_set32(0x30303030);
  for (int64_t b = 0, at = 0; b < t->l->cols / 256; b++, at += 210) {
    vi scales[4];
    strips_of(t, at + 192, scales);
    vf scale = high_halves(last_strip(t, at + 194));
    for (int half = 0; half < 2; half++) {
      vi low[16], high[8];
      fetch_ahead(t, at + half * 105, 105);
      UNROLL for (int i = 0; i < 4; i++) strips_of(t, at + half * 64 + i * 16, low + 4 * i);
      UNROLL for (int i = 0; i < 2; i++) strips_of(t, at + 128 + half * 32 + i * 16, high + 4 * i);
      UNROLL for (int n = 0; n < 8; n++) { /* units of this half, 16 elements each */
        vi q[4];
        int first = n % 4 * 4, part = n / 2, u = half * 8 + n;
        UNROLL for (int s = 0; s < 4; s++) {
          vi h = high[first % 8 + s];
          h = part == 0 ? q_left(h, 4) : part == 1 ? q_left(h, 2) : part == 2 ? h : q_right(h, 2);
          vi l = n < 4 ? low_nibbles(low[first + s]) : high_nibbles(low[first + s]);
          q[s] = q_or(l, q_and(h, two));
        }
        vf d = q_to_float(q_right_signed(q_left(scales[u / 4], 24 - 8 * (u % 4)), 24));
        unit_16(R, Q_SHIFT, t, b * 16 + u, q, scale * d, v_set(0), sum);
      }
    }
  }
}

INLINE void walk_q2_k(int R, const struct walk *t, vf *sum) {
  const vi two = q_set32(0x03030303);
  for (int64_t b = 0, at = 0; b < t->l->cols / 256; b++, at += 84) {
    vi scales[4], tail = last_strip(t, at + 68);
    strips_of(t, at, scales);
    vf scale = low_halves(tail), min = negated(high_halves(tail));
    for (int half = 0; half < 2; half++) {
      vi bits[8];
      fetch_ahead(t, at + half * 42, 42);
      strips_of(t, at + 16 + half * 32, bits);
      strips_of(t, at + 32 + half * 32, bits + 4);
      UNROLL for (int n = 0; n < 8; n++) {
        vi q[4];
        int u = half * 8 + n;
        UNROLL for (int s = 0; s < 4; s++) q[s] =
            q_and(q_right(bits[n % 2 * 4 + s], n / 2 * 2), two);
        vf d = byte_as_float(low_nibbles(scales[u / 4]), u % 4);
        vf m = byte_as_float(high_nibbles(scales[u / 4]), u % 4);
        unit_16(R, Q_MINIMUM, t, b * 16 + u, q, scale * d, min * m, sum);
      }
    }
  }
}

INLINE void walk_q3_k(int R, const struct walk *t, vf *sum) {
  const vi two = q_set32(0x03030303), four = q_set32(0x04040404);
  for (int64_t b = 0, at = 0; b < t->l->cols / 256; b++, at += 110) {
    vi third[8], tail[4], scales[4]; /* tail: two bytes of qs, the scales, d */
    strips_of(t, at, third);
    strips_of(t, at + 16, third + 4);
    strips_of(t, at + 94, tail);
    vf scale = high_halves(tail[3]);
    vi s0 = q_or(q_right(tail[0], 16), q_left(tail[1], 16));
    vi s1 = q_or(q_right(tail[1], 16), q_left(tail[2], 16));
    vi s2 = q_or(q_right(tail[2], 16), q_left(tail[3], 16));
    UNROLL for (int i = 0; i < 4; i++) {
      vi low = i == 0   ? low_nibbles(s0)
               : i == 1 ? low_nibbles(s1)
               : i == 2 ? high_nibbles(s0)
                        : high_nibbles(s1);
      scales[i] = q_or(low, q_left(q_and(q_right(s2, 2 * i), two), 4));
    }
    for (int half = 0; half < 2; half++) {
      vi bits[8];
      fetch_ahead(t, at + half * 55, 55);
      strips_of(t, at + 32 + half * 32, bits);
      strips_of(t, at + 48 + half * 32, bits + 4);
      UNROLL for (int n = 0; n < 8; n++) {
        vi q[4];
        int u = half * 8 + n, bit = half * 4 + n / 2;
        UNROLL for (int s = 0; s < 4; s++) {
          vi h = third[n % 2 * 4 + s];
          h = bit < 2 ? q_left(h, 2 - bit) : q_right(h, bit - 2);
          q[s] = q_or(q_and(q_right(bits[n % 2 * 4 + s], n / 2 * 2), two), q_and(h, four));
        }
        vf d = byte_as_float(scales[u / 4], u % 4) - v_set(32.0f);
        unit_16(R, Q_SHIFT, t, b * 16 + u, q, scale * d, v_set(0), sum);
      }
    }
  }
}

/* Four bits in groups of 128: low nibbles are the first two units, high ones the others. */
INLINE void walk_int4_g128(int R, const struct walk *t, vf *sum) {
  for (int64_t b = 0, at = 0; b < t->l->cols / 128; b++, at += 68) {
    vi head = first_strip(t, at), q[16];
    vf d = low_halves(head), m = high_halves(head);
    fetch_ahead(t, at, 68);
    UNROLL for (int i = 0; i < 4; i++) strips_of(t, at + 4 + 16 * i, q + 4 * i);
    UNROLL for (int u = 0; u < 4; u++) {
      vi part[8];
      UNROLL for (int s = 0; s < 8; s++) part[s] =
          u < 2 ? low_nibbles(q[u * 8 + s]) : high_nibbles(q[u * 8 - 16 + s]);
      unit_32(R, Q_MINIMUM, t, b * 4 + u, part, d, m, sum);
    }
  }
}

/* ---- any format ---- */

INLINE void walk_any(int R, int32_t dtype, const struct walk *t, vf *sum) {
  switch (dtype) {
  case VIV_INT8_ROW:
    walk_bytes(R, 0, 32, t, sum);
    break;
  case VIV_INT8_G128:
    walk_bytes(R, 2, 128, t, sum);
    break;
  case VIV_INT4_G128:
    walk_int4_g128(R, t, sum);
    break;
  case VIV_Q4_0:
    walk_q4(R, false, t, sum);
    break;
  case VIV_Q4_1:
    walk_q4(R, true, t, sum);
    break;
  case VIV_Q5_0:
    walk_q5(R, false, t, sum);
    break;
  case VIV_Q5_1:
    walk_q5(R, true, t, sum);
    break;
  case VIV_Q8_0:
    walk_bytes(R, 2, 32, t, sum);
    break;
  case VIV_Q2_K: /* formats of 256 take one row */
    if (R < 2) walk_q2_k(R, t, sum);
    break;
  case VIV_Q3_K:
    if (R < 2) walk_q3_k(R, t, sum);
    break;
  case VIV_Q4_K:
    if (R < 2) walk_q45_k(R, false, t, sum);
    break;
  case VIV_Q5_K:
    if (R < 2) walk_q45_k(R, true, t, sum);
    break;
  case VIV_Q6_K:
    if (R < 2) walk_q6_k(R, t, sum);
    break;
  }
}

/* A function for each number of rows, so that the format's branch is taken once. */
static void walk_0(int32_t dtype, const struct walk *t, vf *sum) {
  walk_any(0, dtype, t, sum);
}
static void walk_1(int32_t dtype, const struct walk *t, vf *sum) {
  vf own[1] = {v_set(0)};
  walk_any(1, dtype, t, own);
  sum[0] = own[0];
}
static void walk_2(int32_t dtype, const struct walk *t, vf *sum) {
  vf own[2] = {v_set(0), v_set(0)};
  walk_any(2, dtype, t, own);
  for (int r = 0; r < 2; r++) sum[r] = own[r];
}
static void walk_4(int32_t dtype, const struct walk *t, vf *sum) {
  vf own[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};
  walk_any(4, dtype, t, own);
  for (int r = 0; r < 4; r++) sum[r] = own[r];
}
#if LANES == 16
static void walk_8(int32_t dtype, const struct walk *t, vf *sum) {
  vf own[8];
  UNROLL for (int r = 0; r < 8; r++) own[r] = v_set(0);
  walk_any(8, dtype, t, own);
  for (int r = 0; r < 8; r++) sum[r] = own[r];
}
#endif
