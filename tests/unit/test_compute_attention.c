/* attention: every instruction set against a plain reference in double, and STRICT to the bit. */
#include "compute_rt.h"

struct scene {
  viv_attention a;
  viv_kv kv[3];
  const viv_kv **rows_kv;
  int64_t *visible, *mask_begin;
  float *dense_k[3], *dense_v[3]; /* [tokens, width] as stored, in f32 */
  int64_t tokens;
};

/* A token's row as a cache has it, and what it holds back in dense; what follows the last head is left
 * out of VIV_I8, whose slices are stored one by one. */
static void store_row(const viv_compute *c, int32_t dtype, float *dense, void *page, int64_t at,
                      int32_t width, int32_t dim) {
  char *to = (char *)page + at * (int64_t)viv__dtype_size(dtype);
  int32_t step = dtype == VIV_I8 ? dim + 4 : width;
  for (int32_t i = 0; i + step <= width; i += step) {
    int64_t n = dtype == VIV_I8 ? dim : width;
    c->store(c, dtype, dense + i, to + i * (int64_t)viv__dtype_size(dtype), n);
    c->load(c, dtype, to + i * (int64_t)viv__dtype_size(dtype), dense + i, n);
  }
}

/* Pages of `tokens` keys for three sequences, rows spread over them. */
static struct scene scene_new(const viv_compute *c, int32_t dtype, int32_t page_tokens,
                              int64_t tokens, int32_t rows, int32_t heads, int32_t kv_heads,
                              int32_t dim, int32_t vdim) {
  struct scene s = {.tokens = tokens};
  int32_t more = dtype == VIV_I8 ? 4 : 0; /* the scale of a slice */
  int32_t k_width = kv_heads * (dim + more) + 3, v_width = kv_heads * (vdim + more) + 1;
  size_t size = viv__dtype_size(dtype);
  int64_t pages = (tokens + page_tokens - 1) / page_tokens;
  for (int i = 0; i < 3; i++) {
    s.dense_k[i] = numbers(pages * page_tokens * k_width);
    s.dense_v[i] = numbers(pages * page_tokens * v_width);
    void **k = calloc((size_t)pages, sizeof *k), **v = calloc((size_t)pages, sizeof *v);
    for (int64_t p = 0; p < pages; p++) {
      int64_t nk = (int64_t)page_tokens * k_width, nv = (int64_t)page_tokens * v_width;
      k[p] = malloc((size_t)nk * size);
      v[p] = malloc((size_t)nv * size);
      for (int32_t t = 0; t < page_tokens; t++) {
        store_row(c, dtype, s.dense_k[i] + p * nk + t * k_width, k[p], t * k_width, k_width, dim);
        store_row(c, dtype, s.dense_v[i] + p * nv + t * v_width, v[p], t * v_width, v_width, vdim);
      }
    }
    s.kv[i] = (viv_kv){(const void *const *)k, (const void *const *)v};
  }
  s.rows_kv = calloc((size_t)rows, sizeof *s.rows_kv);
  s.visible = calloc((size_t)rows, sizeof *s.visible);
  s.mask_begin = calloc((size_t)rows, sizeof *s.mask_begin);
  s.a = (viv_attention){
      .struct_size = sizeof s.a,
      .kv_dtype = dtype,
      .rows = rows,
      .heads = heads,
      .head_dim = dim,
      .value_dim = vdim == dim ? 0 : vdim,
      .kv_heads = kv_heads,
      .page_tokens = page_tokens,
      .k_width = k_width,
      .v_width = v_width,
      .scale = 1.0f / sqrtf((float)dim),
      .q = numbers((int64_t)rows * heads * dim),
      .out = zeros((int64_t)rows * heads * vdim),
      .kv = s.rows_kv,
      .visible = s.visible,
  };
  return s;
}

static void scene_rows(struct scene *s, int kind) {
  for (int32_t r = 0; r < s->a.rows; r++) {
    int i = kind == 0 ? 0 : kind == 1 ? r * 3 / s->a.rows : (int)((unsigned)r * 7 % 3);
    s->rows_kv[r] = &s->kv[i];
    s->visible[r] = kind == 2 ? (r * 37) % (s->tokens + 1)
                              : viv__min(s->tokens, viv__max(0, s->tokens - s->a.rows + r + 1));
  }
}

static void scene_free(struct scene *s) {
  int64_t pages = (s->tokens + s->a.page_tokens - 1) / s->a.page_tokens;
  for (int i = 0; i < 3; i++) {
    union {
      const void *const *in;
      void **out;
    } k = {s->kv[i].k}, v = {s->kv[i].v};
    for (int64_t p = 0; p < pages; p++) {
      free(k.out[p]);
      free(v.out[p]);
    }
    free(k.out);
    free(v.out);
    free(s->dense_k[i]);
    free(s->dense_v[i]);
  }
  free(s->rows_kv);
  free(s->visible);
  free(s->mask_begin);
  union {
    const float *in;
    float *out;
  } q = {s->a.q};
  free(q.out);
  free(s->a.out);
}

/* Bit i of the row's mask, as the ABI words it. */
static bool seen(const viv_attention *a, int64_t row, int64_t i) {
  return a->mask[row * a->mask_stride + i / 8] & 1 << i % 8;
}

static float *attention_reference(const struct scene *s) {
  const viv_attention *a = &s->a;
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  float *out = zeros((int64_t)a->rows * a->heads * vdim);
  double *score = calloc((size_t)s->tokens + 1, sizeof *score);
  for (int32_t r = 0; r < a->rows; r++)
    for (int32_t h = 0; h < a->heads; h++) {
      int64_t i = a->kv[r] - s->kv, end = a->visible[r];
      int64_t begin = a->window ? viv__max(0, end - a->window) : 0;
      const float *q = a->q + ((int64_t)r * a->heads + h) * a->head_dim;
      double max = -INFINITY, sum = 0;
      for (int64_t t = begin; t < end; t++) {
        const float *k = s->dense_k[i] + t * a->k_width + viv__k_offset(a, h);
        double dot = 0;
        for (int32_t d = 0; d < a->head_dim; d++) dot += (double)q[d] * k[d];
        dot *= a->scale;
        if (a->bias) dot += a->bias[r * a->bias_row_stride + h * a->bias_head_stride + t];
        if (a->softcap > 0) dot = a->softcap * tanh(dot / a->softcap);
        if (a->mask && t >= a->mask_begin[r] && !seen(a, r, t - a->mask_begin[r])) dot = -INFINITY;
        score[t] = dot;
        max = fmax(max, dot);
      }
      for (int64_t t = begin; t < end; t++)
        sum += score[t] = max > -INFINITY ? exp(score[t] - max) : 0;
      for (int64_t d = 0; d < vdim; d++) {
        double o = 0;
        for (int64_t t = begin; t < end; t++)
          if (score[t] != 0)
            o += score[t] * s->dense_v[i][t * a->v_width + viv__v_offset(a, h) + d];
        out[((int64_t)r * a->heads + h) * vdim + d] = sum > 0 ? (float)(o / sum) : 0;
      }
    }
  free(score);
  return out;
}

/* Against the reference, and each row alone against the batch. */
static void attention_check(const viv_compute *c, const viv_compute *three, struct scene *s,
                            const char *what) {
  viv_attention *a = &s->a;
  int64_t width = (int64_t)a->heads * (a->value_dim ? a->value_dim : a->head_dim);
  c->attention(c, a);
  float *want = attention_reference(s);
  near(c, what, a->out, want, a->rows * width, 3e-6);
  memcpy(want, a->out, (size_t)(a->rows * width) * sizeof *want);
  memset(a->out, 0xff, (size_t)(a->rows * width) * sizeof *want);
  three->attention(three, a);
  same(c, what, a->out, want, a->rows * width);
  for (int32_t r = 0; r < a->rows; r++) {
    viv_attention one = *a;
    one.rows = 1;
    one.q += (int64_t)r * a->heads * a->head_dim;
    one.out += r * width;
    one.kv += r;
    one.visible += r;
    if (one.bias) one.bias += r * a->bias_row_stride;
    if (one.mask) {
      one.mask += r * a->mask_stride;
      one.mask_begin += r;
    }
    memset(one.out, 0xff, (size_t)width * sizeof *want);
    three->attention(three, &one);
  }
  same(c, what, a->out, want, a->rows * width);
  free(want);
}

Test(compute, attention) {
  static const struct {
    int32_t page, rows, heads, kv_heads, dim, vdim;
    int64_t tokens, window;
    float softcap;
  } cases[] = {
      {16, 9, 4, 2, 8, 8, 50, 0, 0},         {64, 70, 4, 1, 16, 16, 200, 0, 0},
      {1, 5, 3, 3, 7, 5, 20, 6, 0},          {100, 40, 2, 2, 33, 33, 333, 0, 2},
      {256, 37, 8, 2, 64, 128, 300, 100, 0}, {4096, 3, 2, 1, 128, 96, 150, 0, 0},
      {33, 66, 6, 2, 20, 70, 130, 17, 1.5f}, {64, 1, 40, 20, 64, 128, 700, 0, 0},
      {64, 130, 2, 1, 40, 24, 140, 0, 0},    {64, 3, 2, 2, 300, 270, 90, 0, 0},
  };
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      for (int32_t d = 0; d < 4; d++)
        for (int kind = 0; kind < 3; kind++) {
          struct scene s = scene_new(c,
                                     d == 0   ? VIV_F32
                                     : d == 1 ? VIV_F16
                                     : d == 2 ? VIV_BF16
                                              : VIV_I8,
                                     cases[i].page, cases[i].tokens, cases[i].rows, cases[i].heads,
                                     cases[i].kv_heads, cases[i].dim, cases[i].vdim);
          s.a.window = cases[i].window;
          s.a.softcap = cases[i].softcap;
          scene_rows(&s, kind);
          attention_check(c, three, &s, "attention");
          scene_free(&s);
        }
    viv__compute_free(three);
  }
}

Test(compute, attention_mask_and_offsets) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    struct scene s = scene_new(c, VIV_F32, 48, 150, 21, 6, 4, 12, 24);
    static const int32_t k_offset[6] = {0, 12, 24, 0, 12, 36}, v_offset[6] = {0, 0, 24, 0, 0, 48};
    s.a.k_offset = k_offset;
    s.a.v_offset = v_offset;
    s.a.v_width = 4 * 24 + 1;
    uint8_t *mask = calloc(21, 7); /* 56 bits, of which 40 are met: rows end within a byte */
    for (int i = 0; i < 21 * 56; i++) mask[i / 8] |= (uint8_t)((uniform() > 0) << i % 8);
    for (int kind = 0; kind < 3; kind++) {
      scene_rows(&s, kind);
      s.a.mask = NULL;
      attention_check(c, three, &s, "offsets");
      s.a.mask = mask;
      s.a.mask_stride = 7;
      s.a.mask_begin = s.mask_begin;
      for (int r = 0; r < 21; r++) s.mask_begin[r] = viv__max(0, s.visible[r] - r * 2);
      s.mask_begin[20] = s.visible[20]; /* a row without a mask */
      memset(mask + 19 * 7, 0, 7);      /* one that loses its last keys */
      if (kind == 1) memset(mask, 0, 21 * 7);
      s.a.window = kind == 1 ? 5 : 0; /* with it, rows that see nothing: zeros */
      attention_check(c, three, &s, "mask");
    }
    free(mask);
    scene_free(&s);
    viv__compute_free(three);
  }
}

Test(compute, attention_bias) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    struct scene s = scene_new(c, VIV_BF16, 40, 170, 30, 4, 2, 20, 20);
    float *bias = numbers(30 * 4 * 180);
    s.a.bias = bias;
    for (int way = 0; way < 4; way++) { /* of each row, each head, both, neither */
      s.a.bias_head_stride = way & 1 ? 180 : 0;
      s.a.bias_row_stride = way & 2 ? 4 * 180 : 0;
      s.a.softcap = way == 3 ? 1.5f : 0;
      scene_rows(&s, way % 3);
      attention_check(c, three, &s, "bias");
    }
    /* -infinity hides a key as a mask does. */
    for (int i = 0; i < 30 * 4 * 180; i++)
      if (i % 3 == 0) bias[i] = -INFINITY;
    attention_check(c, three, &s, "bias that hides");
    free(bias);
    scene_free(&s);
    viv__compute_free(three);
  }
}

/* A cache of several splits, which threads share out, with few heads; the same numbers when one
 * thread takes them all, and when many rows do. */
Test(compute, attention_long_cache) {
  static const struct {
    int32_t rows, heads, kv_heads, vdim;
    int64_t tokens, window;
  } cases[] = {{1, 2, 1, 16, 2000, 0},  {5, 3, 3, 16, 1100, 0},   {1, 9, 3, 16, 3000, 1500},
               {2, 1, 1, 300, 1030, 0}, {100, 2, 1, 16, 1200, 0}, {1, 1, 1, 5000, 600, 0}};
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      for (int kind = 0; kind < 2; kind++) {
        struct scene s = scene_new(c, kind ? VIV_F32 : VIV_I8, 100, cases[i].tokens, cases[i].rows,
                                   cases[i].heads, cases[i].kv_heads, 16, cases[i].vdim);
        s.a.window = cases[i].window;
        scene_rows(&s, kind * 2);
        attention_check(c, three, &s, "long cache");
        scene_free(&s);
      }
    viv__compute_free(three);
  }
}

/* A slice of int8: the largest value is met, the others within half a step; what isn't finite is not
 * hidden. */
Test(compute, attention_i8_slices) {
  EACH_SET(c, 1) {
    for (int64_t n = 1; n < 70; n++) {
      float *x = numbers(n), *y = zeros(n), largest = 0;
      int8_t *slice = calloc((size_t)n + 5, 1);
      for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(x[i]));
      slice[n + 4] = 77;
      c->store(c, VIV_I8, x, slice, n);
      c->load(c, VIV_I8, slice, y, n);
      cr_assert_eq(slice[n + 4], 77);
      for (int64_t i = 0; i < n; i++)
        cr_assert(fabsf(x[i] - y[i]) <= largest / 127 * 0.50001f, "%g came back as %g", x[i], y[i]);
      x[n / 2] = INFINITY;
      c->store(c, VIV_I8, x, slice, n);
      c->load(c, VIV_I8, slice, y, n);
      cr_assert(isnan(y[0]));
      memset(x, 0, (size_t)n * sizeof *x);
      c->store(c, VIV_I8, x, slice, n);
      c->load(c, VIV_I8, slice, y, n);
      cr_assert(y[n / 2] == 0);
      free(x);
      free(y);
      free(slice);
    }
  }
}

/* Pages out of the window are NULL, what no row sees holds NaN. */
Test(compute, attention_reads_only_what_is_visible) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    struct scene s = scene_new(c, VIV_F32, 8, 100, 6, 2, 1, 16, 16);
    scene_rows(&s, 0);
    s.a.window = 20;
    float *want = attention_reference(&s);
    union {
      const void *const *in;
      void **out;
    } k = {s.kv[0].k}, v = {s.kv[0].v};
    for (int64_t p = 0; p < (100 - 6 + 1 - 20) / 8; p++) {
      free(k.out[p]);
      free(v.out[p]);
      k.out[p] = v.out[p] = NULL;
    }
    for (int64_t t = 100; t < 104; t++)
      for (int i = 0; i < s.a.v_width; i++)
        ((float *)v.out[t / 8])[t % 8 * s.a.v_width + i] = ((float *)k.out[t / 8])[t % 8 * 19 + i] =
            NAN;
    /* The last key is visible to the last row only. */
    for (int i = 0; i < 16; i++) ((float *)v.out[99 / 8])[99 % 8 * s.a.v_width + i] = NAN;
    three->attention(three, &s.a);
    near(c, "window over NULL pages", s.a.out, want, 5 * 32, 3e-6);
    for (int i = 0; i < 32; i++) cr_assert(isnan(s.a.out[5 * 32 + i]));
    free(want);
    scene_free(&s);
    viv__compute_free(three);
  }
}
