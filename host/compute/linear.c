/* linear over prepared weights, and rows of them. */
#include "compute/internal.h"

/* Rows are taken in blocks whose x stays in the cache that the cores share while the weights pass
 * by once; a block's outputs are cut into chunks. A task is one chunk of one block. */
struct linear {
  const viv__kernels *kernels;
  const viv_weight *w;
  const float *bias, *x;
  float *y;
  int64_t rows, row_block, out_chunk, chunks;
};

static void linear_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct linear *s = ctx;
  const viv_weight *w = s->w;
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / s->chunks * s->row_block, out = i % s->chunks * s->out_chunk;
    s->kernels->linear((const char *)w->data + out * w->in * size, w->dtype, w->in,
                       viv__min(s->out_chunk, w->out - out), w->in, s->bias ? s->bias + out : NULL,
                       s->x + row * w->in, w->in, viv__min(s->row_block, s->rows - row),
                       s->y + row * w->out + out, w->out);
  }
}

static void linear(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                   float *y, int64_t rows) {
  if (rows < 1 || w->out < 1) return;
  struct linear s = {viv__compute_of(c)->kernels, w, bias, x, y, rows, 0, 0, 0};
  enum { BLOCK_BYTES = 4 << 20, TILE_OUTS = 8, CHUNK_OUTS = 64 };
  int64_t tile = s.kernels->tile_rows, tasks = c->threads > 1 ? c->threads * 8 : 1;
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
  viv__parallel(c, blocks * s.chunks, 1, linear_tasks, &s);
}

static void gather(const viv_compute *c, const viv_weight *w, const int32_t *ids, int64_t n,
                   float *y) {
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  for (int64_t i = 0; i < n; i++)
    viv__compute_of(c)->kernels->load(w->dtype, (const char *)w->data + ids[i] * w->in * size,
                                      y + i * w->in, w->in);
}

void viv__table_linear(viv_compute *t) {
  t->linear = linear;
  t->gather = gather;
}
