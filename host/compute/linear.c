/* linear over prepared weights, and rows of them. Weights in block formats: quant_linear.c. */
#include "compute/internal.h"
#include "compute/quant.h"

#include <string.h>

/* Rows are taken in blocks whose x stays in the cache that the cores share while the weights pass
 * by once; a block's outputs are cut into chunks. A task is one chunk of one block. */
struct dense {
  const viv__kernels *kernels;
  const viv__linear *l;
  int64_t row_block, out_chunk, chunks;
};

/* What follows the product: act, then residual. y holds the product, and may be residual only where
 * sum, which then holds it, is apart. */
static void finish(const struct dense *s, int64_t row, int64_t out, int64_t n, float *sum) {
  const viv__linear *l = s->l;
  float *y = l->y + row * l->y_stride + out;
  if (l->act) s->kernels->unary(l->act, sum, sum, n);
  if (l->residual) {
    const float *residual = l->residual + row * l->y_stride + out;
    for (int64_t i = 0; i < n; i++) y[i] = sum[i] + residual[i];
  } else if (sum != y) {
    memcpy(y, sum, (size_t)n * sizeof *y);
  }
}

static void dense_task(const struct dense *s, int64_t row, int64_t out, int64_t rows,
                       int64_t outs) {
  const viv__linear *l = s->l;
  const viv_weight *w = l->w;
  const char *weights = (const char *)w->data + out * w->in * (w->dtype == VIV_F32 ? 4 : 2);
  const float *bias = l->bias ? l->bias + out : NULL, *x = l->x + row * l->x_stride;
  float *y = l->y + row * l->y_stride + out;
  if (!l->residual) {
    s->kernels->linear(weights, w->dtype, w->in, outs, w->in, bias, x, l->x_stride, rows, y,
                       l->y_stride);
    if (l->act)
      for (int64_t r = 0; r < rows; r++) finish(s, row + r, out, outs, y + r * l->y_stride);
    return;
  }
  /* residual may be y: the product stands apart until it is added. */
  float sum[4096];
  enum { ROOM = sizeof sum / sizeof *sum, OUTS = 64, ROWS = ROOM / OUTS };
  for (int64_t o = 0; o < outs; o += OUTS)
    for (int64_t r = 0; r < rows; r += ROWS) {
      int64_t n_outs = viv__min(OUTS, outs - o), n_rows = viv__min(ROWS, rows - r);
      s->kernels->linear(weights + o * w->in * (w->dtype == VIV_F32 ? 4 : 2), w->dtype, w->in,
                         n_outs, w->in, bias ? bias + o : NULL, x + r * l->x_stride, l->x_stride,
                         n_rows, sum, n_outs);
      for (int64_t i = 0; i < n_rows; i++)
        finish(s, row + r + i, out + o, n_outs, sum + i * n_outs);
    }
}

static void dense_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct dense *s = ctx;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / s->chunks * s->row_block, out = i % s->chunks * s->out_chunk;
    dense_task(s, row, out, viv__min(s->row_block, s->l->rows - row),
               viv__min(s->out_chunk, s->l->w->out - out));
  }
}

static void dense_linear(const viv_compute *c, const viv__linear *l) {
  const viv_weight *w = l->w;
  struct dense s = {viv__compute_of(c)->kernels, l, 0, 0, 0};
  enum { BLOCK_BYTES = 4 << 20, TILE_OUTS = 8, CHUNK_OUTS = 64 };
  int64_t rows = l->rows, tile = s.kernels->tile_rows, tasks = c->threads > 1 ? c->threads * 8 : 1;
  int64_t tiles = (rows + tile - 1) / tile; /* of rows */
  int64_t fit = viv__max(1, BLOCK_BYTES / (tile * viv__max(1, w->in) * (int64_t)sizeof(float)));
  int64_t blocks = (tiles + fit - 1) / fit;

  /* Outputs are cut first, down to a width that still uses each row of x well; then rows. */
  int64_t per_block = (tasks + blocks - 1) / blocks;
  s.out_chunk = viv__max((w->out + per_block - 1) / per_block, rows > tile ? CHUNK_OUTS : 1);
  s.out_chunk = viv__max(s.out_chunk, viv__grain(viv__min(rows, fit * tile) * w->in));
  s.out_chunk = (s.out_chunk + TILE_OUTS - 1) / TILE_OUTS * TILE_OUTS;
  s.chunks = (w->out + s.out_chunk - 1) / s.out_chunk;
  blocks =
      viv__max(blocks, viv__min(tasks / s.chunks, tiles * tile * w->in * w->out / VIV__MIN_WORK));
  s.row_block = (tiles + blocks - 1) / blocks * tile;
  blocks = (rows + s.row_block - 1) / s.row_block;
  viv__parallel(c, blocks * s.chunks, 1, dense_tasks, &s);
}

static void run(const viv_compute *c, const viv_weight *w, const float *bias, int32_t act,
                const float *residual, const float *x, int64_t x_stride, float *y, int64_t y_stride,
                int64_t rows, bool strict) {
  if (rows < 1 || w->out < 1) return;
  viv__linear l = {.w = w,
                   .bias = bias,
                   .residual = residual,
                   .x = x,
                   .x_stride = x_stride,
                   .y = y,
                   .y_stride = y_stride,
                   .rows = rows,
                   .act = act};
  if (viv__is_block(w->dtype))
    viv__quant_linears(c, &l, 1);
  else if (strict || !viv__packed_linear(c, &l))
    dense_linear(c, &l);
}

static void linear(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                   float *y, int64_t rows) {
  run(c, w, bias, 0, NULL, x, w->in, y, w->out, rows, true);
}

static void linear_to(const viv_compute *c, const viv_weight *w, const float *bias, int32_t act,
                      const float *residual, const float *x, int64_t x_stride, float *y,
                      int64_t y_stride, int64_t rows) {
  run(c, w, bias, act, residual, x, x_stride, y, y_stride, rows, false);
}

static void linears(const viv_compute *c, int32_t n, const viv_weight *const *w,
                    const float *const *bias, const float *x, float *const *y, int64_t rows) {
  viv__linear l[VIV__MOST_LINEARS];
  int32_t held = 0;
  for (int32_t i = 0; i < n && rows > 0; i++) {
    if (!viv__is_block(w[i]->dtype)) {
      linear(c, w[i], bias ? bias[i] : NULL, x, y[i], rows);
      continue;
    }
    if (w[i]->out < 1) continue;
    l[held++] = (viv__linear){.w = w[i],
                              .bias = bias ? bias[i] : NULL,
                              .x = x,
                              .x_stride = w[i]->in,
                              .y = y[i],
                              .y_stride = w[i]->out,
                              .rows = rows};
    if (held < VIV__MOST_LINEARS) continue;
    viv__quant_linears(c, l, held);
    held = 0;
  }
  if (held) viv__quant_linears(c, l, held);
}

static void gather(const viv_compute *c, const viv_weight *w, const int32_t *ids, int64_t n,
                   float *y) {
  const viv__kernels *kernels = viv__compute_of(c)->kernels;
  bool block = viv__is_block(w->dtype);
  int64_t bytes = (int64_t)viv__row_bytes(w->dtype, w->in);
  for (int64_t i = 0; i < n; i++, y += w->in) {
    const char *row = (const char *)w->data + ids[i] * bytes;
    if (block)
      viv__dequantize_row(w->dtype, row, w->in, 0, w->in, y);
    else
      kernels->load(w->dtype, row, y, w->in);
  }
}

void viv__table_linear(viv_compute *t) {
  t->linear = linear;
  t->linear_to = linear_to;
  t->linears = linears;
  t->gather = gather;
}
