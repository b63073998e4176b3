/* linear over many rows of dense weights: outputs lie in the lanes of a vector, so that a sum needs no
 * last addition across lanes, which costs as much as the multiply-adds where rows are short.
 *
 * A task packs a panel of weights into the form of the tile behind convolutions (conv_kernels.h), a
 * part of the depth at a time, and its rows pass by while the panel lies in the second-level cache.
 * Packing takes about as long as the products of five rows. A sum is made in the order of k, other than
 * in the kernel of linear, and the way is chosen by the weights alone, but for a single row: two rows
 * and more are STRICT among each other. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "compute/internal.h"

enum {
  MIN_ROWS = 2,  /* one row is read faster than packed */
  MIN_OUTS = 32, /* fewer leave lanes empty */
  MIN_DEPTH = 16,
  DEPTH = 768,           /* of a panel: 192 KB */
  BLOCK_BYTES = 4 << 20, /* of x, for the cache that the cores share */
  SHARED_ROWS = 192,     /* rows that a block keeps where threads share out a panel */
  PIECE = 256            /* elements that are converted at once */
};

struct packed {
  const viv__compute *c;
  const viv__linear *l;
  int64_t row_block, blocks, panels, tasks;
  float *scratch;
  _Atomic int64_t next;
};

/* Depths [from, from + depth) of outputs [out, out + outs) -> to [outs / 16, depth, 16]; what fills up
 * the last block of outputs is zeros. */
static void pack(const struct packed *s, int64_t out, int64_t outs, int64_t from, int64_t depth,
                 float *to) {
  const viv__kernels *kernels = s->c->kernels;
  const viv_weight *w = s->l->w;
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  for (int64_t o = 0; o < outs; o += VIV__CONV_BLOCK, to += depth * VIV__CONV_BLOCK) {
    int64_t n = viv__min(VIV__CONV_BLOCK, outs - o);
    const char *rows = (const char *)w->data + ((out + o) * w->in + from) * size;
    if (n < VIV__CONV_BLOCK) memset(to, 0, (size_t)(depth * VIV__CONV_BLOCK) * sizeof *to);
    if (w->dtype == VIV_F32 && (uintptr_t)rows % sizeof(float) == 0) {
      kernels->transpose((const float *)(const void *)rows, w->in, n, depth, to, VIV__CONV_BLOCK);
      continue;
    }
    float piece[VIV__CONV_BLOCK * PIECE];
    for (int64_t k = 0; k < depth; k += PIECE) {
      int64_t count = viv__min(PIECE, depth - k);
      for (int64_t r = 0; r < n; r++)
        kernels->load(w->dtype, rows + (r * w->in + k) * size, piece + r * PIECE, count);
      kernels->transpose(piece, PIECE, n, count, to + k * VIV__CONV_BLOCK, VIV__CONV_BLOCK);
    }
  }
}

/* Weights that are packed next: their rows are fetched while a panel is at work, since packing does
 * nothing but wait for memory. */
struct ahead {
  const char *row;
  int64_t rows, stride; /* bytes */
};

/* What follows depth `from` of the panel of outputs [out, ...): its next part, or the panel that is
 * shared out next. */
static struct ahead ahead_of(struct packed *s, int64_t out, int64_t from) {
  const viv_weight *w = s->l->w;
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  if (from >= w->in) {
    int64_t next = atomic_load_explicit(&s->next, memory_order_relaxed);
    out = next / s->blocks * VIV__CONV_COLS;
    from = 0;
    if (next >= s->tasks) return (struct ahead){NULL, 0, 0};
  }
  return (struct ahead){.row = (const char *)w->data + (out * w->in + from) * size,
                        .rows = viv__min(VIV__CONV_COLS, w->out - out),
                        .stride = w->in * size};
}

/* Rows [row, end) by the packed panel of outputs [out, out + outs) over depths [from, from + depth). */
static void multiply(const struct packed *s, int64_t row, int64_t end, int64_t out, int64_t outs,
                     int64_t from, int64_t depth, const float *panel, struct ahead ahead) {
  const viv__linear *l = s->l;
  bool last = from + depth == l->w->in;
  _Alignas(64) float bias[VIV__CONV_COLS] = {0};
  if (l->bias) memcpy(bias, l->bias + out, (size_t)outs * sizeof *bias);
  const float *x[VIV__CONV_ROWS], *residual[VIV__CONV_ROWS];
  float *y[VIV__CONV_ROWS];
  viv__conv_segment segment = {.length = depth};
  viv__conv_tile t = {.cols = (int32_t)outs,
                      .add = from > 0,
                      .low = -INFINITY,
                      .high = INFINITY,
                      .w = panel,
                      .w_block = depth * VIV__CONV_BLOCK,
                      .segments = 1,
                      .segment = &segment,
                      .x = x,
                      .bias = l->bias ? bias : NULL,
                      .residual = l->residual ? residual : NULL,
                      .out = y};
  for (int64_t left = (end - row + VIV__CONV_ROWS - 1) / VIV__CONV_ROWS; left > 0; left--) {
    t.rows = (int32_t)((end - row + left - 1) / left); /* evenly, not 6, 6, ..., 1 */
    for (int64_t r = 0; r < t.rows; r++) {
      x[r] = l->x + (row + r) * l->x_stride + from;
      y[r] = l->y + (row + r) * l->y_stride + out;
      if (l->residual) residual[r] = l->residual + (row + r) * l->y_stride + out;
    }
    bool fetch = ahead.rows >= VIV__CONV_AHEAD;
    t.ahead = fetch ? ahead.row : NULL;
    t.ahead_stride = fetch ? ahead.stride : 0;
    if (fetch) ahead.row += VIV__CONV_AHEAD * ahead.stride;
    ahead.rows -= VIV__CONV_AHEAD;
    s->c->kernels->conv_tile(&t);
    for (int64_t r = 0; r < t.rows && last && l->act; r++)
      s->c->kernels->unary(l->act, y[r], y[r], outs);
    row += t.rows;
  }
}

static void run_task(struct packed *s, int64_t task, float *panel) {
  const viv_weight *w = s->l->w;
  int64_t out = task / s->blocks * VIV__CONV_COLS, row = task % s->blocks * s->row_block;
  int64_t outs = viv__min(VIV__CONV_COLS, w->out - out);
  int64_t end = viv__min(s->l->rows, row + s->row_block);
  int64_t parts = (w->in + DEPTH - 1) / DEPTH, part = (w->in + parts - 1) / parts;
  for (int64_t from = 0; from < w->in; from += part) {
    int64_t depth = viv__min(part, w->in - from);
    pack(s, out, outs, from, depth, panel);
    multiply(s, row, end, out, outs, from, depth, panel, ahead_of(s, out, from + depth));
  }
}

static void worker(void *ctx, int64_t begin, int64_t end) {
  struct packed *s = ctx;
  for (int64_t slot = begin; slot < end; slot++)
    for (;;) {
      int64_t task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
      if (task >= s->tasks) break;
      run_task(s, task, s->scratch + slot * DEPTH * VIV__CONV_COLS);
    }
}

bool viv__packed_linear(const viv_compute *c, const viv__linear *l) {
  const viv_weight *w = l->w;
  if (l->rows < MIN_ROWS || w->out < MIN_OUTS || w->in < MIN_DEPTH) return false;
  if (l->act && l->residual) return false;
  struct packed s = {.c = viv__compute_of(c), .l = l};
  s.panels = (w->out + VIV__CONV_COLS - 1) / VIV__CONV_COLS;
  int64_t fit = viv__max(SHARED_ROWS, BLOCK_BYTES / (w->in * (int64_t)sizeof(float)));
  s.blocks = (l->rows + fit - 1) / fit;
  int64_t wanted = c->threads > 1 ? 8 * c->threads : 1;
  s.blocks =
      viv__max(s.blocks, viv__min((wanted + s.panels - 1) / s.panels, l->rows / SHARED_ROWS));
  s.row_block = (l->rows + s.blocks - 1) / s.blocks;
  s.row_block = (s.row_block + VIV__CONV_ROWS - 1) / VIV__CONV_ROWS * VIV__CONV_ROWS;
  s.blocks = (l->rows + s.row_block - 1) / s.row_block;
  s.tasks = s.blocks * s.panels;
  s.scratch = viv__scratch_take(s.c->scratch);
  viv__parallel(c, viv__min(c->threads, s.tasks), 1, worker, &s);
  viv__scratch_give(s.c->scratch, s.scratch);
  return true;
}
