/* Attention over paged keys and values. Part of kernels_impl.h.
 *
 * A block of keys is turned once so that a vector holds four dimensions of LANES / 4 keys: scores
 * come out of multiply-adds alone, and only the last four partial sums of each are added up across
 * lanes. The order of every sum is the same for one query and for many. */

enum {
  QUERIES = VIV__TASK_QUERIES,
  CHUNK = 4 * LINEAR_ROWS, /* queries whose scores stay in the first cache */
  MAX_DIM = 256,           /* of keys turned, or values copied, at a time */
  SHARED = 8               /* from this many queries on, a block's values are worth a copy */
};

struct query {
  const float *q;
  int32_t head, row;
  int32_t k_offset, v_offset;
  float *out;          /* the weighted sum so far */
  const uint8_t *mask; /* for key s bit s - mask_begin; NULL where the row has none */
  int64_t mask_begin;
  const float *bias;  /* for key s at bias[s]; NULL: none */
  int64_t begin, end; /* visible keys */
  float max, sum;
};

/* One block of keys of one page, and what of it the queries see. */
struct block {
  int64_t at;         /* the first key */
  int64_t begin, end; /* keys that any of the queries sees, from at */
  const char *k;      /* the first key's row in its page */
};

/* ---- scores ---- */

/* Keys [begin, end) of a block, dims of each, turned; the others of a tile of LANES keys as zeros:
 * the vector at [(tile * quads + quad) * 4 + j] holds dimensions 4 quad .. 4 quad + 3 of the keys
 * tile * LANES + 4 l + j, l = 0 .. LANES / 4 - 1. */
INLINE void turn_keys_of(int32_t dtype, const char *k, int64_t stride, int64_t begin, int64_t end,
                         int64_t dims, float *to) {
  enum { GROUP = LANES / 4 };
  int64_t quads = (dims + 3) / 4;
  for (int64_t t = begin / LANES * LANES; t < end; t += LANES) {
    bool whole = t >= begin && t + LANES <= end;
    float *at = to + t * quads * 4;
    int64_t d = 0;
    for (; whole && d + LANES <= dims; d += LANES, at += 4 * LANES * GROUP) {
      UNROLL for (int j = 0; j < 4; j++) {
        vf in[GROUP];
        const char *from = element(k, dtype, (t + j) * stride + d);
        UNROLL for (int l = 0; l < GROUP; l++) in[l] =
            load_any(element(from, dtype, 4 * l * stride), dtype);
        v_turn_quads(in);
        UNROLL for (int q = 0; q < GROUP; q++) v_store(at + (q * 4 + j) * LANES, in[q]);
      }
    }
    for (; d < dims; d += LANES, at += 4 * LANES * GROUP) {
      int64_t n = viv__min(LANES, dims - d);
      for (int j = 0; j < 4; j++) {
        vf in[GROUP];
        UNROLL for (int l = 0; l < GROUP; l++) {
          int64_t s = t + 4 * l + j;
          in[l] = v_set(0.0f);
          if (s >= begin && s < end)
            in[l] = load_any_n(element(k, dtype, s * stride + d), dtype, n);
        }
        v_turn_quads(in);
        UNROLL for (int q = 0; q < GROUP; q++) {
          if (4 * q < n) v_store(at + (q * 4 + j) * LANES, in[q]);
        }
      }
    }
  }
}

static void turn_keys(int32_t dtype, const char *k, int64_t stride, int64_t begin, int64_t end,
                      int64_t dims, float *to) {
  if (dtype == VIV_F32)
    turn_keys_of(VIV_F32, k, stride, begin, end, dims, to);
  else if (dtype == VIV_F16)
    turn_keys_of(VIV_F16, k, stride, begin, end, dims, to);
  else if (dtype == VIV_BF16)
    turn_keys_of(VIV_BF16, k, stride, begin, end, dims, to);
  else
    turn_keys_of(VIV_I8, k, stride, begin, end, dims, to);
}

/* The scores of R queries for a tile of turned keys; more: added to what stands there. */
INLINE void score_tile(int R, const float *const *q, const float *k, int64_t dims, bool more,
                       float *const *score) {
  vf acc[6][4];
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int j = 0; j < 4; j++) acc[r][j] = v_set(0.0f);
  }
  int64_t d = 0;
  for (; d + 4 <= dims; d += 4, k += 4 * LANES) {
    if (LANES == 16) {
      vf kv[4];
      UNROLL for (int j = 0; j < 4; j++) kv[j] = v_load(k + j * LANES);
      UNROLL for (int r = 0; r < R; r++) {
        vf qv = v_quad(q[r] + d);
        UNROLL for (int j = 0; j < 4; j++) acc[r][j] = v_fma(qv, kv[j], acc[r][j]);
      }
    } else {
      vf qv[6];
      UNROLL for (int r = 0; r < R; r++) qv[r] = v_quad(q[r] + d);
      UNROLL for (int j = 0; j < 4; j++) {
        vf kv = v_load(k + j * LANES);
        UNROLL for (int r = 0; r < R; r++) acc[r][j] = v_fma(qv[r], kv, acc[r][j]);
      }
    }
  }
  if (d < dims) {
    UNROLL for (int r = 0; r < R; r++) {
      float rest[4] = {0};
      for (int64_t i = d; i < dims; i++) rest[i - d] = q[r][i];
      vf qv = v_quad(rest);
      UNROLL for (int j = 0; j < 4; j++) acc[r][j] = v_fma(qv, v_load(k + j * LANES), acc[r][j]);
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    vf sum = v_quad_sums(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
    if (more) sum += v_load(score[r]);
    v_store(score[r], sum);
  }
}

static void score_tiles(int R, const float *const *q, const float *k, int64_t dims, int64_t begin,
                        int64_t end, bool more, float *const *score) {
  int64_t quads = (dims + 3) / 4;
  for (int64_t t = begin / LANES * LANES; t < end; t += LANES) {
    const float *tile_keys = k + t * quads * 4;
    float *at[LINEAR_ROWS];
    for (int r = 0; r < R; r++) at[r] = score[r] + t;
    switch (R) {
    case 1:
      score_tile(1, q, tile_keys, dims, more, at);
      break;
    case 2:
      score_tile(2, q, tile_keys, dims, more, at);
      break;
    case 3:
      score_tile(3, q, tile_keys, dims, more, at);
      break;
#if LINEAR_ROWS > 3
    case 4:
      score_tile(4, q, tile_keys, dims, more, at);
      break;
    case 5:
      score_tile(5, q, tile_keys, dims, more, at);
      break;
    case 6:
      score_tile(6, q, tile_keys, dims, more, at);
      break;
#endif
    }
  }
}

/* The scales of keys [begin, end) whose slices of dim int8 values start at from. */
static void load_scales(const char *from, int64_t stride, int64_t dim, int64_t begin, int64_t end,
                        float *scale) {
  for (int64_t s = begin; s < end; s++) memcpy(scale + s, from + s * stride + dim, sizeof *scale);
}

/* The keys that some queries see of a block. */
INLINE void seen_by(const struct query *const *query, int n, const struct block *b, int64_t *begin,
                    int64_t *end) {
  *begin = b->end;
  *end = b->begin;
  for (int i = 0; i < n; i++) {
    *begin = viv__min(*begin, viv__max(b->begin, query[i]->begin - b->at));
    *end = viv__max(*end, viv__min(b->end, query[i]->end - b->at));
  }
}

/* Queries that read the same keys: their scores for the keys of the block that they see. turned
 * holds dims of the keys from dimension d on. */
static void score_queries(const struct query *const *query, int n, const struct block *b,
                          const float *turned, int64_t d, int64_t dims,
                          float (*score)[VIV__KEY_BLOCK]) {
  for (int i = 0, left = (n + LINEAR_ROWS - 1) / LINEAR_ROWS; i < n; left--) {
    int R = (n - i + left - 1) / left;
    int64_t begin, end;
    const float *in[LINEAR_ROWS];
    float *out[LINEAR_ROWS];
    for (int r = 0; r < R; r++) {
      in[r] = query[i + r]->q + d;
      out[r] = score[i + r];
    }
    seen_by(query + i, R, b, &begin, &end);
    if (begin < end) score_tiles(R, in, turned, dims, begin, end, d > 0, out);
    i += R;
  }
}

/* ---- weights ---- */

INLINE void shrink(float *out, int64_t n, float by) {
  vf s = v_set(by);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    v_store_n(out + i, v_load_n(out + i, len) * s, len);
  }
}

#define LOG2E 1.44269504088896341f

/* A new maximum: the query's sum and output so far count less. */
INLINE void raise_max(struct query *q, float max, int64_t vdim) {
  if (q->max > -INFINITY) {
    float by = v_exp2_negative(v_set((q->max - max) * LOG2E))[0];
    q->sum *= by;
    shrink(q->out, vdim, by);
  }
  q->max = max;
}

/* weigh for a whole block without bias, cap and mask: the scores stay in registers. */
static bool weigh_block(float scale, struct query *q, float *score, int64_t vdim) {
  enum { N = VIV__KEY_BLOCK / LANES };
  vf s[N], max_of_lane = v_set(-INFINITY), by = v_set(scale);
  UNROLL for (int i = 0; i < N; i++) {
    s[i] = v_load(score + i * LANES) * by;
    max_of_lane = v_max(max_of_lane, s[i]);
  }
  float max = v_top(max_of_lane);
  if (!(max > -INFINITY && max < INFINITY)) return false;
  if (max > q->max) raise_max(q, max, vdim);
  vf sum = v_set(0.0f), m = v_set(q->max), per_two = v_set(LOG2E);
  UNROLL for (int i = 0; i < N; i++) {
    s[i] = v_exp2_negative((s[i] - m) * per_two);
    v_store(score + i * LANES, s[i]);
    sum += s[i];
  }
  q->sum += sum_of(sum);
  return true;
}

/* Turns the scores of the keys [from, to) of a block into weights e^(score - max), brings the
 * query's running sum and output up to date with a new maximum. Answers the number of keys that
 * are not masked; 0: the query is left as it was. */
static int64_t weigh(const viv_attention *a, struct query *q, float *score, int64_t from,
                     int64_t to, int64_t block, int64_t vdim) {
  vf scale = v_set(a->scale), cap = v_set(a->softcap), per_cap = v_set(1.0f / a->softcap);
  vf low = v_set(-INFINITY), max_of_lane = low;
  if (to - from == VIV__KEY_BLOCK && !q->mask && !q->bias && !(a->softcap > 0) &&
      weigh_block(a->scale, q, score, vdim))
    return VIV__KEY_BLOCK;
  /* Key block + i is masked by bit i - first. */
  int64_t first = q->mask ? q->mask_begin - block : to, seen = to - from;
  for (int64_t i = viv__max(from, first); i < to; i++) seen -= !viv__mask_bit(q->mask, i - first);
  if (!seen) return 0;
  for (int64_t i = from; i < to; i += LANES) {
    int64_t n = viv__min(LANES, to - i);
    vf s = v_load_n(score + i, n) * scale;
    if (q->bias) s += v_load_n(q->bias + block + i, n);
    if (a->softcap > 0) s = v_tanh(s * per_cap) * cap;
    v_store_n(score + i, s, n);
    if (seen == to - from) max_of_lane = v_max(max_of_lane, v_keep_n(s, low, n));
  }
  float max;
  if (seen < to - from) {
    for (int64_t i = viv__max(from, first); i < to; i++)
      if (!viv__mask_bit(q->mask, i - first)) score[i] = -INFINITY;
    max = max_row(score + from, to - from);
  } else {
    max = v_top(max_of_lane);
  }
  if (max == -INFINITY) { /* nothing to weigh, unless a NaN was passed over */
    bool nan = false;
    for (int64_t i = from; i < to; i++) nan |= score[i] != score[i];
    if (!nan) return 0;
  }
  if (max > q->max) raise_max(q, max, vdim);
  vf sum = v_set(0.0f), m = v_set(q->max), per_two = v_set(LOG2E);
  for (int64_t i = from; i < to; i += LANES) {
    int64_t n = viv__min(LANES, to - i);
    vf s = v_load_n(score + i, n);
    /* What is masked weighs nothing, even where the maximum is infinite. */
    vf p = v_exp2_negative((s - m) * per_two);
    if (seen < to - from) p = v_if_equal(s, low, v_set(0.0f), p);
    p = v_keep_n(p, v_set(0.0f), n);
    v_store_n(score + i, p, n);
    sum += p;
  }
  q->sum += sum_of(sum);
  return seen;
}

/* ---- values ---- */

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
    } else if (dim - i >= 2 * LANES) {
      values_tile(R, 2, dtype, p, lane, v_stride, keys, at, 2 * LANES);
      i += 2 * LANES;
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
  else if (dtype == VIV_BF16)
    values_rows(R, VIV_BF16, p, v, v_stride, keys, out, dim);
  else
    values_rows(R, VIV_I8, p, v, v_stride, keys, out, dim);
}

/* The values of a block, as they lie or copied side by side as f32: rows of a wide page lie a memory
 * page apart, which costs more than the copy when many queries read them. */
struct block_values {
  const char *at;
  int64_t stride, dim;
  int32_t dtype;
};

/* Up to four queries, each with the keys [from, to) that it sees: together where they see the same,
 * alone before and after that. */
struct seen {
  const float *p; /* of the block's first key */
  float *out;
  int64_t from, to;
};

static void values_span(const struct block_values *v, const struct seen *w, int R, int64_t from,
                        int64_t to) {
  const float *p[4];
  float *out[4];
  if (from >= to) return;
  for (int r = 0; r < R; r++) {
    p[r] = w[r].p + from;
    out[r] = w[r].out;
  }
  values(R, v->dtype, p, element(v->at, v->dtype, from * v->stride), v->stride, to - from, out,
         v->dim);
}

static void values_flush(const struct block_values *v, const struct seen *w, int R) {
  int64_t from = 0, to = VIV__KEY_BLOCK;
  for (int r = 0; r < R; r++) {
    from = viv__max(from, w[r].from);
    to = viv__min(to, w[r].to);
  }
  if (from >= to) {
    for (int r = 0; r < R; r++) values_span(v, w + r, 1, w[r].from, w[r].to);
    return;
  }
  for (int r = 0; r < R; r++) values_span(v, w + r, 1, w[r].from, from);
  values_span(v, w, R, from, to);
  for (int r = 0; r < R; r++) values_span(v, w + r, 1, to, w[r].to);
}

/* A query with hidden keys: they are stepped over, so that whatever their values hold stays out of
 * the result. */
static void values_masked(const struct block_values *v, const struct query *q, struct seen w,
                          int64_t block) {
  int64_t stop = w.to;
  for (w.to = w.from; w.from < stop; w.from = w.to) {
    bool hidden = true;
    while (w.to < stop && hidden) {
      int64_t s = block + w.to;
      hidden = s >= q->mask_begin && !viv__mask_bit(q->mask, s - q->mask_begin);
      if (hidden) w.to++;
    }
    w.from = w.to;
    while (w.to < stop && !hidden) {
      int64_t s = block + w.to;
      hidden = s >= q->mask_begin && !viv__mask_bit(q->mask, s - q->mask_begin);
      if (!hidden) w.to++;
    }
    values_span(v, &w, 1, w.from, w.to);
  }
}

/* ---- blocks ---- */

/* Weighs a chunk of queries and adds up their values. v_scale: of VIV_I8. */
static void add_values(const viv_attention *a, struct query *const *query, int n,
                       const struct block *b, const struct block_values *v, const float *v_scale,
                       float (*score)[VIV__KEY_BLOCK]) {
  struct seen waiting[4];
  int R = 0;
  for (int i = 0; i < n; i++) {
    struct query *q = query[i];
    int64_t from = viv__max(b->begin, q->begin - b->at), to = viv__min(b->end, q->end - b->at);
    int64_t seen = weigh(a, q, score[i], from, to, b->at, v->dim);
    if (!seen) continue;
    if (v_scale)
      for (int64_t s = from; s < to; s++) score[i][s] *= v_scale[s];
    struct seen w = {score[i], q->out, from, to};
    if (seen < to - from) {
      values_masked(v, q, w, b->at);
      continue;
    }
    waiting[R++] = w;
    if (R == 4) {
      values_flush(v, waiting, R);
      R = 0;
    }
  }
  if (R) values_flush(v, waiting, R);
}

/* Queries that read the same keys and values against a block, a chunk of them after the other. */
static void attend_queries(const viv_attention *a, struct query *const *query, int n,
                           const struct block *b, const struct block_values *v,
                           const float *v_scale) {
  _Alignas(64) float turned[VIV__KEY_BLOCK * MAX_DIM];
  _Alignas(64) float score[CHUNK][VIV__KEY_BLOCK];
  float k_scale[VIV__KEY_BLOCK];
  const char *k = element(b->k, a->kv_dtype, query[0]->k_offset);
  int64_t dims = viv__min(MAX_DIM, a->head_dim), turned_from = 0;
  turn_keys(a->kv_dtype, k, a->k_width, b->begin, b->end, dims, turned);
  if (v_scale) load_scales(k, a->k_width, a->head_dim, b->begin, b->end, k_scale);
  for (int i = 0; i < n; i += CHUNK) {
    const struct query *const *chunk = (const struct query *const *)query + i;
    int count = (int)viv__min(CHUNK, n - i);
    for (int64_t d = 0; d < a->head_dim; d += MAX_DIM) {
      if (d != turned_from) { /* keys wider than fit are turned again for each chunk */
        dims = viv__min(MAX_DIM, a->head_dim - d);
        turn_keys(a->kv_dtype, element(k, a->kv_dtype, d), a->k_width, b->begin, b->end, dims,
                  turned);
        turned_from = d;
      }
      score_queries(chunk, count, b, turned, d, dims, score);
    }
    for (int c = 0; v_scale && c < count; c++)
      for (int64_t s = b->begin; s < b->end; s++) score[c][s] *= k_scale[s];
    add_values(a, query + i, count, b, v, v_scale, score);
  }
}

/* Queries that read the same values, those with the same keys side by side, against a block. */
static void attend_block(const viv_attention *a, struct query *query, int n_queries, int64_t at,
                         int64_t at_end, const char *k, const char *v) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  struct query *active[QUERIES];
  struct block b = {at, at_end - at, 0, k};
  int n = 0;
  for (int i = 0; i < n_queries; i++) {
    int64_t from = viv__max(at, query[i].begin) - at, to = viv__min(at_end, query[i].end) - at;
    if (from >= to) continue;
    active[n++] = &query[i];
    b.begin = viv__min(b.begin, from);
    b.end = viv__max(b.end, to);
  }
  if (!n) return;

  _Alignas(64) float v_copy[VIV__KEY_BLOCK * MAX_DIM];
  float v_scale[VIV__KEY_BLOCK];
  bool scaled = a->kv_dtype == VIV_I8;
  struct block_values bv = {element(v, a->kv_dtype, query[0].v_offset), a->v_width, vdim,
                            a->kv_dtype};
  if (scaled) load_scales(bv.at, bv.stride, vdim, b.begin, b.end, v_scale);
  if (n >= SHARED && vdim <= MAX_DIM) {
    for (int64_t s = b.begin; s < b.end; s++)
      load_raw(bv.dtype, element(bv.at, bv.dtype, s * bv.stride), v_copy + s * vdim, vdim);
    bv = (struct block_values){(const char *)v_copy, vdim, vdim, VIV_F32};
  }
  for (int i = 0, next; i < n; i = next) {
    for (next = i + 1; next < n && active[next]->k_offset == active[i]->k_offset;) next++;
    attend_queries(a, active + i, next - i, &b, &bv, scaled ? v_scale : NULL);
  }
}

/* ---- a long cache ---- */

/* What some queries read of a token's rows, in bytes. */
struct reach {
  int64_t k, k_end, v, v_end;
};

static struct reach reach_of(const viv_attention *a, const struct query *query, int n) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  int64_t size = element(NULL, a->kv_dtype, 1) - (const char *)NULL;
  struct reach s = {INT64_MAX, 0, INT64_MAX, 0};
  for (int i = 0; i < n; i++) {
    s.k = viv__min(s.k, query[i].k_offset * size);
    s.k_end = viv__max(s.k_end, (query[i].k_offset + a->head_dim) * size);
    s.v = viv__min(s.v, query[i].v_offset * size);
    s.v_end = viv__max(s.v_end, (query[i].v_offset + vdim) * size);
  }
  return s;
}

/* Loads, not prefetches: those made no difference. */
INLINE void announce(const char *rows, int64_t stride, int64_t begin, int64_t end, int64_t from,
                     int64_t to) {
  for (int64_t r = begin; r < end; r++)
    for (int64_t i = from; i < to; i += 64) (void)*(volatile const char *)(rows + r * stride + i);
}

/* A few heads' slices of each row are too far apart for the processor to see the next ones coming:
 * reading a cache by slices takes three times as long as reading its rows in order. So the rows of
 * the block at key `next` are announced in order, a part with each group of heads. */
static void announce_block(const viv_attention *a, const viv_kv *kv, const struct reach *s,
                           int64_t next, int64_t end, int64_t part, int64_t parts) {
  int64_t page = next / a->page_tokens, inside = next % a->page_tokens;
  if (next >= end || !kv->k[page] || !kv->v[page]) return;
  int64_t rows = viv__min(VIV__KEY_BLOCK, viv__min(a->page_tokens - inside, end - next));
  int64_t begin = rows * part / parts, stop = rows * (part + 1) / parts;
  const char *k = element(kv->k[page], a->kv_dtype, inside * a->k_width);
  const char *v = element(kv->v[page], a->kv_dtype, inside * a->v_width);
  int64_t k_stride = element(k, a->kv_dtype, a->k_width) - k;
  int64_t v_stride = element(v, a->kv_dtype, a->v_width) - v;
  announce(k, k_stride, begin, stop, s->k, s->k_end);
  announce(v, v_stride, begin, stop, s->v, s->v_end);
}

/* The keys of one split, block by block, and in a block one after the other the queries that share
 * values: all heads pass over the same memory pages together. */
static void attend_keys(const viv_attention *a, struct query *query, int n, const viv_kv *kv,
                        int64_t begin, int64_t end) {
  int groups = 1;
  for (int i = 1; i < n; i++) groups += query[i].v_offset != query[i - 1].v_offset;
  bool few = groups > 1 && n < groups * SHARED;
  struct reach s = few ? reach_of(a, query, n) : (struct reach){0, 0, 0, 0};
  if (few) announce_block(a, kv, &s, begin, end, 0, 1);
  while (begin < end) {
    int64_t page = begin / a->page_tokens, inside = begin % a->page_tokens;
    inside = inside / VIV__KEY_BLOCK * VIV__KEY_BLOCK;
    int64_t first_key = page * a->page_tokens + inside;
    int64_t stop = viv__min(first_key + VIV__KEY_BLOCK, (page + 1) * a->page_tokens);
    stop = viv__min(stop, end);
    int group = 0;
    for (int i = 0, next; i < n && kv->k[page] && kv->v[page]; i = next) {
      for (next = i + 1; next < n && query[next].v_offset == query[i].v_offset;) next++;
      if (few) announce_block(a, kv, &s, stop, end, group++, groups);
      attend_block(a, query + i, next - i, first_key, stop,
                   element(kv->k[page], a->kv_dtype, inside * a->k_width),
                   element(kv->v[page], a->kv_dtype, inside * a->v_width));
    }
    begin = stop;
  }
}

/* Adds a later split's sums to a query's. */
static __attribute__((noinline)) void merge(float *out, float *max, float *sum, const float *part,
                                            float part_max, float part_sum, int64_t n) {
  if (part_max == -INFINITY) return;
  if (*max == -INFINITY) {
    memcpy(out, part, (size_t)n * sizeof *out);
    *max = part_max;
    *sum = part_sum;
    return;
  }
  float top = part_max > *max ? part_max : *max;
  float mine = v_exp2_negative(v_set((*max - top) * LOG2E))[0];
  float other = v_exp2_negative(v_set((part_max - top) * LOG2E))[0];
  if (*max == top) mine = 1.0f; /* also where it is infinite */
  if (part_max == top) other = 1.0f;
  *sum = *sum * mine + part_sum * other;
  *max = top;
  vf vm = v_set(mine), vo = v_set(other);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    v_store_n(out + i, v_fma(v_load_n(part + i, len), vo, v_load_n(out + i, len) * vm), len);
  }
}

static void finish(float *out, float max, float sum, int64_t n) {
  shrink(out, n, max == -INFINITY ? 0.0f : 1.0f / sum);
}

/* Queries of one viv_kv: over one split of the keys, or over all. */
static void attend(const viv_attention *a, struct query *query, int n, const viv_kv *kv,
                   int64_t split) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim, split_keys = viv__split_keys(a);
  int64_t begin = INT64_MAX, end = 0;
  for (int i = 0; i < n; i++) {
    if (query[i].begin < query[i].end) begin = viv__min(begin, query[i].begin);
    end = viv__max(end, query[i].end);
    memset(query[i].out, 0, (size_t)vdim * sizeof(float));
  }
  if (split >= 0) {
    begin = viv__max(begin, split * split_keys);
    end = viv__min(end, (split + 1) * split_keys);
    for (int i = 0; i < n; i++) query[i].begin = viv__max(query[i].begin, begin);
  }
  if (begin >= end) return;
  int64_t stop = (begin / split_keys + 1) * split_keys;
  attend_keys(a, query, n, kv, begin, viv__min(stop, end));
  /* Later splits are summed beside. */
  for (int64_t at = stop; at < end; at += split_keys) {
    _Alignas(64) float beside[VIV__SPLIT_DIM];
    int step = (int)viv__min(n, VIV__SPLIT_DIM / vdim);
    for (int i = 0; i < n; i += step) {
      struct query later[QUERIES];
      int count = (int)viv__min(step, n - i);
      for (int j = 0; j < count; j++) {
        later[j] = query[i + j];
        later[j].begin = viv__max(later[j].begin, at);
        later[j].out = beside + j * vdim;
        later[j].max = -INFINITY;
        later[j].sum = 0.0f;
      }
      memset(beside, 0, (size_t)(count * vdim) * sizeof *beside);
      attend_keys(a, later, count, kv, at, viv__min(at + split_keys, end));
      for (int j = 0; j < count; j++)
        merge(query[i + j].out, &query[i + j].max, &query[i + j].sum, later[j].out, later[j].max,
              later[j].sum, vdim);
    }
  }
}

static struct query query_of(const viv_attention *a, int32_t h, int32_t r) {
  int64_t dim = a->head_dim, vdim = a->value_dim ? a->value_dim : dim, end = a->visible[r];
  bool masked = a->mask && a->mask_begin[r] < end;
  return (struct query){
      .q = a->q + r * (a->q_stride ? a->q_stride : a->heads * dim) + h * dim,
      .head = h,
      .row = r,
      .k_offset = viv__k_offset(a, h),
      .v_offset = viv__v_offset(a, h),
      .out = a->out + r * (a->out_stride ? a->out_stride : a->heads * vdim) + h * vdim,
      .mask = masked ? a->mask + r * a->mask_stride : NULL,
      .mask_begin = masked ? a->mask_begin[r] : 0,
      .bias = a->bias ? a->bias + r * a->bias_row_stride + h * a->bias_head_stride : NULL,
      .begin = a->window > 0 ? viv__max(0, end - a->window) : 0,
      .end = end,
      .max = -INFINITY,
  };
}

static void attend_all(const viv_attention *a, struct query *query, int n, int64_t split,
                       float *part) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  for (int i = 0; i < n && part; i++)
    query[i].out = part + (query[i].row * a->heads + query[i].head) * (vdim + 2);
  attend(a, query, n, a->kv[query[0].row], part ? split : -1);
  for (int i = 0; i < n; i++)
    if (part) {
      query[i].out[vdim] = query[i].max;
      query[i].out[vdim + 1] = query[i].sum;
    } else {
      finish(query[i].out, query[i].max, query[i].sum, vdim);
    }
}

static void attention(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                      int32_t row_begin, int32_t row_end, int64_t split, float *part) {
  struct query query[QUERIES];
  int n = 0;
  for (int32_t h = 0, next; h < n_heads; h = next) { /* by keys and values, then row */
    for (next = h + 1; next < n_heads && viv__same_kv(a, heads[h], heads[next]);) next++;
    for (int32_t r = row_begin; r < row_end; r++)
      for (int32_t i = h; i < next; i++) {
        query[n++] = query_of(a, heads[i], r);
        if (n < QUERIES && (next < n_heads || r + 1 < row_end || i + 1 < next)) continue;
        attend_all(a, query, n, split, part);
        n = 0;
      }
  }
}

static void attention_merge(const viv_attention *a, int32_t head, int32_t row, const float *part,
                            int64_t stride, int64_t parts) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  struct query q = query_of(a, head, row);
  for (int64_t i = 0; i < parts; i++, part += stride)
    merge(q.out, &q.max, &q.sum, part, part[vdim], part[vdim + 1], vdim);
  if (q.max == -INFINITY) memset(q.out, 0, (size_t)vdim * sizeof *q.out);
  finish(q.out, q.max, q.sum, vdim);
}
