/* Choosing: the k largest of each row. */
#include "compute/internal.h"
#include "compute/ops.h"

struct top_k {
  const viv__ops *ops;
  const float *x;
  int64_t n, k;
  float *values;
  int32_t *indices;
};

static void top_k_range(void *ctx, int64_t begin, int64_t end) {
  const struct top_k *s = ctx;
  for (int64_t r = begin; r < end; r++)
    s->ops->top_k(s->x + r * s->n, s->n, s->k, s->values ? s->values + r * s->k : NULL,
                  s->indices + r * s->k);
}

static void top_k(const viv_compute *c, const float *x, int64_t rows, int64_t n, int64_t k,
                  float *values, int32_t *indices) {
  struct top_k s = {viv__compute_of(c)->kernels->ops, x, n, k, values, indices};
  viv__parallel(c, rows, viv__grain(n), top_k_range, &s);
}

void viv__table_select(viv_compute *t) {
  t->top_k = top_k;
}
