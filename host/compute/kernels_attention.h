/* Attention over paged keys and values. Part of kernels_impl.h. */

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
