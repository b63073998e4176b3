/* Pooling: shapes, and rows shared out over the pool. */
#include "compute/conv.h"

struct rows {
  const viv__kernels *kernels;
  viv__pool_pass pass;
};

static void rows_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->pool_rows(&s->pass, begin, end);
}

/* As PyTorch counts: with ceil_mode a last window may lean over the end, but must begin inside. */
static int64_t out_size(const viv_pool *a, int axis) {
  int64_t stride = a->stride[axis];
  int64_t room = (int64_t)a->size[axis] + a->pad_begin[axis] + a->pad_end[axis] - 1 -
                 (int64_t)a->dilation[axis] * (a->kernel[axis] - 1);
  if (room < 0) return 0;
  int64_t out = (room + (a->ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (a->ceil_mode && (out - 1) * stride >= (int64_t)a->size[axis] + a->pad_begin[axis]) out--;
  return out;
}

static void pool(const viv_compute *c, const viv_pool *a) {
  struct rows s = {viv__compute_of(c)->kernels,
                   {.kind = a->kind,
                    .count_pad = a->count_pad,
                    .channels = a->channels,
                    .size = {1, 1, 1},
                    .out = {1, 1, 1},
                    .kernel = {1, 1, 1},
                    .stride = {1, 1, 1},
                    .dilation = {1, 1, 1},
                    .x = a->x,
                    .to = a->out}};
  int64_t taps = 1;
  for (int i = 0; i < a->dims; i++) {
    int at = 3 - a->dims + i;
    s.pass.size[at] = a->size[i];
    s.pass.out[at] = out_size(a, i);
    s.pass.kernel[at] = a->kernel[i];
    s.pass.stride[at] = a->stride[i];
    s.pass.dilation[at] = a->dilation[i];
    s.pass.pad[at] = a->pad_begin[i];
    s.pass.pad_end[at] = a->pad_end[i];
    taps *= a->kernel[i];
  }
  if (s.pass.out[2] < 1) return;
  int64_t rows = a->batch * s.pass.out[0] * s.pass.out[1];
  viv__parallel(c, rows, viv__grain(s.pass.out[2] * a->channels * taps), rows_range, &s);
}

void viv__table_pool(viv_compute *t) {
  t->pool = pool;
}
