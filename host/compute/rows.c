/* Operations on rows and elements: norms, softmax, activations, rotary embeddings, conversions. */
#include "compute/internal.h"

#include <math.h>

/* ---- rows ---- */

struct rows {
  const viv__kernels *kernels;
  const float *x, *w, *b;
  float *y;
  float eps;
  int64_t d;
};

static void layer_norm_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->layer_norm(s->x + begin * s->d, s->w, s->b, s->eps, end - begin, s->d,
                         s->y + begin * s->d);
}

static void layer_norm(const viv_compute *c, const float *x, const float *w, const float *b,
                       float eps, int64_t rows, int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, w, b, y, eps, d};
  viv__parallel(c, rows, viv__grain(d), layer_norm_range, &s);
}

static void rms_norm_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->rms_norm(s->x + begin * s->d, s->w, s->eps, end - begin, s->d, s->y + begin * s->d);
}

static void rms_norm(const viv_compute *c, const float *x, const float *w, float eps, int64_t rows,
                     int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, w, NULL, y, eps, d};
  viv__parallel(c, rows, viv__grain(d), rms_norm_range, &s);
}

static void softmax_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->softmax(s->x + begin * s->d, end - begin, s->d, s->y + begin * s->d);
}

static void softmax(const viv_compute *c, const float *x, int64_t rows, int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, NULL, NULL, y, 0.0f, d};
  viv__parallel(c, rows, viv__grain(d * 4), softmax_range, &s);
}

/* ---- elements ---- */

struct elements {
  const viv__kernels *kernels;
  const float *x, *value;
  float *y;
  int64_t n; /* of a row, for glu */
  int32_t kind;
  float p;
};

static void unary_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->unary_with(s->kind, s->p, s->x + begin, s->y + begin, end - begin);
}

static void unary_with(const viv_compute *c, int32_t kind, float p, const float *x, float *y,
                       int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, x, NULL, y, n, kind, p};
  viv__parallel(c, n, viv__grain(4), unary_range, &s);
}

static void unary(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t n) {
  unary_with(c, kind, viv__unary_default(kind), x, y, n);
}

static void gate_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->gate(s->kind, s->x + begin, s->value + begin, s->y + begin, end - begin);
}

static void gate_elements(const viv_compute *c, int32_t kind, float *gate, const float *value,
                          int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, gate, value, gate, n, kind, 0.0f};
  viv__parallel(c, n, viv__grain(4), gate_range, &s);
}

static void glu_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  for (int64_t r = begin; r < end; r++)
    s->kernels->gate(s->kind, s->x + r * 2 * s->n, s->x + (r * 2 + 1) * s->n, s->y + r * s->n,
                     s->n);
}

static void glu(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t rows,
                int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, x, x + n, y, n, kind, 0.0f};
  if (rows == 1)
    viv__parallel(c, n, viv__grain(4), gate_range, &s);
  else
    viv__parallel(c, rows, viv__grain(n * 4), glu_range, &s);
}

static void add_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->axpy(1.0f, s->x + begin, s->y + begin, end - begin);
}

static void add(const viv_compute *c, float *x, const float *y, int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, y, NULL, x, n, 0, 0.0f};
  viv__parallel(c, n, 1 << 16, add_range, &s);
}

static void multiply_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->multiply(s->y + begin, s->x + begin, end - begin);
}

static void multiply(const viv_compute *c, float *x, const float *y, int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, y, NULL, x, n, 0, 0.0f};
  viv__parallel(c, n, 1 << 16, multiply_range, &s);
}

/* ---- channels ---- */

struct scale {
  const viv__kernels *kernels;
  const float *x, *w, *b;
  float *y;
  int64_t channels, n;
};

/* Elements [begin, end), cut where a channel ends; channels of one element each are taken by rows. */
static void scale_range(void *ctx, int64_t begin, int64_t end) {
  const struct scale *s = ctx;
  bool each = s->n == 1;
  int64_t span = each ? s->channels : s->n;
  for (int64_t i = begin, stop; i < end; i = stop) {
    stop = viv__min(end, (i / span + 1) * span);
    int64_t channel = each ? i % s->channels : i / s->n % s->channels;
    s->kernels->scale_shift(s->x + i, s->w ? s->w + channel : NULL, s->b ? s->b + channel : NULL,
                            each, stop - i, s->y + i);
  }
}

static void scale_shift(const viv_compute *c, const float *x, const float *w, const float *b,
                        int64_t batch, int64_t channels, int64_t n, float *y) {
  struct scale s = {viv__compute_of(c)->kernels, x, w, b, y, channels, n};
  viv__parallel(c, batch * channels * n, 1 << 15, scale_range, &s);
}

/* ---- rotary embeddings ---- */

struct rope {
  const viv__kernels *kernels;
  const int32_t *pos;
  const float *inv_freq;
  float *x, *cos_sin;
  int64_t x_stride, heads, head_dim, half;
  float m;
  int32_t interleaved;
};

/* In double: an angle of 100000 radians has only two digits of its phase left in f32. */
static void rope_table_range(void *ctx, int64_t begin, int64_t end) {
  const struct rope *s = ctx;
  for (int64_t r = begin; r < end; r++)
    for (int64_t i = 0; i < s->half; i++) {
      double angle = (double)s->pos[r] * s->inv_freq[i];
      s->cos_sin[r * 2 * s->half + i] = (float)(cos(angle) * s->m);
      s->cos_sin[r * 2 * s->half + s->half + i] = (float)(sin(angle) * s->m);
    }
}

static void rope_table(const viv_compute *c, const int32_t *pos, int64_t rows,
                       const float *inv_freq, int64_t half, float m, float *cos_sin) {
  struct rope s = {.pos = pos, .inv_freq = inv_freq, .half = half, .m = m, .cos_sin = cos_sin};
  viv__parallel(c, rows, viv__grain(half * 64), rope_table_range, &s);
}

static void rope_apply_range(void *ctx, int64_t begin, int64_t end) {
  struct rope *s = ctx;
  s->kernels->rope(s->x + begin * s->x_stride, s->x_stride, end - begin, s->heads, s->head_dim,
                   s->cos_sin + begin * 2 * s->half, s->half, s->interleaved);
}

static void rope_apply(const viv_compute *c, float *x, int64_t x_stride, int64_t rows,
                       int64_t heads, int64_t head_dim, const float *cos_sin, int64_t half,
                       int32_t interleaved) {
  float *table = (float *)(uintptr_t)cos_sin; /* read only here */
  struct rope s = {.kernels = viv__compute_of(c)->kernels,
                   .x = x,
                   .x_stride = x_stride,
                   .heads = heads,
                   .head_dim = head_dim,
                   .cos_sin = table,
                   .half = half,
                   .interleaved = interleaved};
  if (!s.x_stride) s.x_stride = heads * head_dim;
  viv__parallel(c, rows, viv__grain(heads * half * 2), rope_apply_range, &s);
}

/* ---- caches ---- */

static void store(const viv_compute *c, int32_t dtype, const float *x, void *y, int64_t n) {
  viv__compute_of(c)->kernels->store(dtype, x, y, n);
}

static void load(const viv_compute *c, int32_t dtype, const void *x, float *y, int64_t n) {
  viv__compute_of(c)->kernels->load(dtype, x, y, n);
}

void viv__table_rows(viv_compute *t) {
  t->layer_norm = layer_norm;
  t->rms_norm = rms_norm;
  t->softmax = softmax;
  t->unary = unary;
  t->unary_with = unary_with;
  t->gate = gate_elements;
  t->glu = glu;
  t->add = add;
  t->multiply = multiply;
  t->scale_shift = scale_shift;
  t->rope_table = rope_table;
  t->rope_apply = rope_apply;
  t->store = store;
  t->load = load;
}
