/* Layouts and what is done per channel: permute, group_norm, snake. */
#include "compute/internal.h"
#include "compute/ops.h"

/* ---- permute ---- */

struct permute {
  const viv__ops *ops;
  viv__permute p;
};

static void permute_range(void *ctx, int64_t begin, int64_t end) {
  const struct permute *s = ctx;
  s->ops->permute(&s->p, begin, end);
}

/* y's axes of length 1 are left out, and neighbours that are neighbours in x as well become one. */
static void merge_axes(int32_t ndim, const int64_t *shape, const int32_t *perm, viv__permute *p) {
  int64_t stride[VIV_MAX_DIMS], step = 1;
  for (int32_t i = ndim - 1; i >= 0; i--) {
    stride[i] = step;
    step *= shape[i];
  }
  for (int32_t i = 0; i < ndim; i++) {
    int64_t size = shape[perm[i]], at = stride[perm[i]];
    int32_t before = p->ndim - 1;
    if (size == 1) continue;
    if (p->ndim && p->x_stride[before] == size * at) {
      p->size[before] *= size;
      p->x_stride[before] = at;
      continue;
    }
    p->size[p->ndim] = size;
    p->x_stride[p->ndim++] = at;
  }
  if (!p->ndim) {
    p->size[0] = p->x_stride[0] = 1;
    p->ndim = 1;
  }
  step = 1;
  for (int32_t i = p->ndim - 1; i >= 0; i--) {
    p->y_stride[i] = step;
    step *= p->size[i];
    if (p->x_stride[i] == 1) p->fast = i;
  }
}

/* A long axis of a permutation with few slices is cut in two, so that all threads have work. */
static void cut_axis(viv__permute *p, int32_t axis, int64_t pieces) {
  if (p->ndim == VIV_MAX_DIMS) return;
  while (pieces > 1 && p->size[axis] % pieces) pieces--;
  if (pieces < 2) return;
  for (int32_t i = p->ndim; i > axis; i--) {
    p->size[i] = p->size[i - 1];
    p->x_stride[i] = p->x_stride[i - 1];
    p->y_stride[i] = p->y_stride[i - 1];
  }
  p->ndim++;
  p->fast += p->fast >= axis;
  p->size[axis] = pieces;
  p->size[axis + 1] /= pieces;
  p->x_stride[axis] *= p->size[axis + 1];
  p->y_stride[axis] *= p->size[axis + 1];
}

static int64_t slices_of(const viv__permute *p) {
  int64_t n = 1;
  for (int32_t i = 0; i + 1 < p->ndim; i++) n *= i == p->fast ? 1 : p->size[i];
  return n;
}

static void permute(const viv_compute *c, const float *x, int32_t ndim, const int64_t *shape,
                    const int32_t *perm, float *y) {
  struct permute s = {.ops = viv__compute_of(c)->kernels->ops, .p = {.x = x, .y = y}};
  for (int32_t i = 0; i < ndim; i++)
    if (shape[i] < 1) return;
  merge_axes(ndim, shape, perm, &s.p);
  int64_t slices = slices_of(&s.p), n = s.p.size[s.p.ndim - 1];
  if (s.p.fast != s.p.ndim - 1) n *= s.p.size[s.p.fast];
  if (slices < 16 && slices * n > 4 * VIV__MIN_WORK) {
    cut_axis(&s.p, s.p.fast, 16);
    n = s.p.size[s.p.ndim - 1];
    if (s.p.fast != s.p.ndim - 1) n *= s.p.size[s.p.fast];
    slices = slices_of(&s.p);
  }
  viv__parallel(c, slices, viv__grain(n), permute_range, &s);
}

/* ---- channels ---- */

struct channels {
  const viv__ops *ops;
  viv__group_norm norm;
  viv__snake snake;
};

static void group_norm_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  s->ops->group_norm(&s->norm, begin, end);
}

static void group_norm(const viv_compute *c, const float *x, const float *w, const float *b,
                       float eps, int32_t groups, int64_t batch, int64_t channels, int64_t space,
                       int32_t layout, float *y) {
  struct channels s = {
      .ops = viv__compute_of(c)->kernels->ops,
      .norm = {x, w, b, y, eps, groups, layout, channels, space},
  };
  viv__parallel(c, batch * groups, viv__grain(channels / groups * space * 2), group_norm_range, &s);
}

static void snake_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  s->ops->snake(&s->snake, begin, end);
}

static void snake(const viv_compute *c, const float *x, const float *alpha, int64_t batch,
                  int64_t channels, int64_t n, float *y) {
  struct channels s = {
      .ops = viv__compute_of(c)->kernels->ops,
      .snake = {x, alpha, y, channels, n},
  };
  viv__parallel(c, batch * channels, viv__grain(n * 4), snake_range, &s);
}

void viv__table_layout(viv_compute *t) {
  t->permute = permute;
  t->group_norm = group_norm;
  t->snake = snake;
}
