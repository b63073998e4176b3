/* 3x3 convolution with stride 1 by Winograd's F(2x2, 3x3): four outputs from sixteen products instead
 * of thirty-six (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015).
 *
 *   Y = A' [ (G g G') . (B' d B) ] A
 *
 * over tiles d of 4x4 inputs that give 2x2 outputs. Its transforms have only sums and halves, so the
 * error stays near that of the plain sum; the larger F(4x4, 3x3) multiplies by up to 8 and loses
 * about a digit, which the tolerance of golden vectors would not bear. */
#include "compute/conv.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { POINTS = 16, V_BYTES = 512 * 1024, MAX_TILES = 96, MIN_TILES = 24 };

struct winograd {
  viv__conv_plan *p;
  const float *x;  /* channels last */
  float *to;       /* channels last: out, or sums that are turned afterwards */
  int64_t *row[2]; /* [2 tiles + 2] of an axis: where the padded row lies, -1: zeros */
  const float *zeros;
  int64_t tiles_h, tiles_w, tiles; /* of an image */
  int64_t block, blocks;           /* tiles of a task; tasks of an image */
  int64_t part, parts;             /* outputs of a task, in CONV_COLS; parts of them */
  int64_t v_floats, thread_floats, tasks;
  float *threads;
  _Atomic int64_t next;
};

/* G g G' for one kernel. */
void viv__conv_winograd_weights(const float *g, float scale, float *u) {
  double t[4][3];
  for (int i = 0; i < 3; i++) {
    double a = g[i], b = g[3 + i], c = g[6 + i];
    t[0][i] = a;
    t[1][i] = (a + b + c) / 2;
    t[2][i] = (a - b + c) / 2;
    t[3][i] = c;
  }
  for (int i = 0; i < 4; i++) {
    double a = t[i][0] * scale, b = t[i][1] * scale, c = t[i][2] * scale;
    u[i * 4] = (float)a;
    u[i * 4 + 1] = (float)((a + b + c) / 2);
    u[i * 4 + 2] = (float)((a - b + c) / 2);
    u[i * 4 + 3] = (float)c;
  }
}

bool viv__conv_winograd_fits(const viv_conv_weight *w) {
  bool square = w->kernel[0] == 1 && w->kernel[1] == 3 && w->kernel[2] == 3;
  for (int i = 0; i < 3; i++) square = square && w->stride[i] == 1 && w->dilation[i] == 1;
  return square && !w->transposed && w->groups == 1 && w->in >= 32 && w->out >= 32;
}

static void run_task(struct winograd *s, int64_t task, float *v) {
  const viv__conv_plan *p = s->p;
  const viv_conv_weight *w = p->w;
  float *m = v + s->v_floats;
  int64_t part = task % s->parts, block = task / s->parts % s->blocks;
  int64_t image = task / s->parts / s->blocks;
  int64_t first = s->tiles * block / s->blocks, n = s->tiles * (block + 1) / s->blocks - first;
  int64_t in = w->in, v_step = n * in, m_step = n * VIV__CONV_COLS;
  const float *x = s->x + image * p->in_space * in;
  bool final = s->to == p->a->out;

  for (int64_t i = 0; i < n; i++) {
    int64_t th = (first + i) / s->tiles_w, tw = (first + i) % s->tiles_w;
    const float *d[POINTS];
    for (int a = 0; a < 4; a++)
      for (int b = 0; b < 4; b++) {
        int64_t ih = s->row[0][2 * th + a], iw = s->row[1][2 * tw + b];
        d[a * 4 + b] = ih < 0 || iw < 0 ? s->zeros : x + (ih * p->size[2] + iw) * in;
      }
    p->kernels->winograd_in(d, in, v + i * in, v_step);
  }

  int64_t tiles = (n + VIV__CONV_ROWS - 1) / VIV__CONV_ROWS;
  int64_t end = viv__min(w->out, (part + 1) * s->part);
  viv__conv_segment segment = {.length = in};
  const float *rows[VIV__CONV_ROWS];
  float *sums[VIV__CONV_ROWS];
  viv__conv_tile t = {.low = -INFINITY,
                      .high = INFINITY,
                      .w_block = in * VIV__CONV_BLOCK,
                      .segments = 1,
                      .segment = &segment,
                      .x = rows,
                      .out = sums};
  for (int64_t col = part * s->part; col < end; col += VIV__CONV_COLS) {
    int64_t cols = viv__min(VIV__CONV_COLS, w->out - col);
    t.cols = (int32_t)cols;
    for (int point = 0; point < POINTS; point++) {
      t.w = w->packed + (point * w->blocks + col / VIV__CONV_BLOCK) * t.w_block;
      for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t begin = n * tile / tiles;
        t.rows = (int32_t)(n * (tile + 1) / tiles - begin);
        for (int r = 0; r < t.rows; r++) {
          rows[r] = v + point * v_step + (begin + r) * in;
          sums[r] = m + point * m_step + (begin + r) * VIV__CONV_COLS;
        }
        p->kernels->conv_tile(&t);
      }
    }
    for (int64_t i = 0; i < n; i++) {
      int64_t th = (first + i) / s->tiles_w, tw = (first + i) % s->tiles_w;
      float *out[4];
      const float *residual[4];
      for (int k = 0; k < 4; k++) {
        int64_t oh = 2 * th + k / 2, ow = 2 * tw + k % 2;
        int64_t at = (image * p->out_space + oh * p->out[2] + ow) * w->out + col;
        bool there = oh < p->out[1] && ow < p->out[2];
        out[k] = there ? s->to + at : NULL;
        residual[k] = there && final && p->a->residual ? p->a->residual + at : NULL;
      }
      p->kernels->winograd_out(m + i * VIV__CONV_COLS, m_step, cols, w->bias ? w->bias + col : NULL,
                               residual, final ? p->low : -INFINITY, final ? p->high : INFINITY,
                               out);
      for (int k = 0; k < 4 && final && p->act; k++)
        if (out[k]) viv__conv_act(p, out[k], cols);
    }
  }
}

static void worker(void *ctx, int64_t begin, int64_t end) {
  struct winograd *s = ctx;
  for (int64_t slot = begin; slot < end; slot++)
    for (;;) {
      int64_t task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
      if (task >= s->tasks) break;
      run_task(s, task, s->threads + slot * s->thread_floats);
    }
}

uint64_t viv__conv_winograd(viv__conv_plan *p, bool run) {
  const viv_conv_weight *w = p->w;
  struct winograd s = {.p = p, .tiles_h = (p->out[1] + 1) / 2, .tiles_w = (p->out[2] + 1) / 2};
  uint64_t floats = 0;
  s.tiles = s.tiles_h * s.tiles_w;
  /* Transformed inputs of a task stay in the second-level cache while the weights pass by. */
  int64_t fit = V_BYTES / (POINTS * w->in * (int64_t)sizeof(float));
  s.block = viv__max(MIN_TILES, viv__min(MAX_TILES, fit / VIV__CONV_ROWS * VIV__CONV_ROWS));
  s.blocks = (s.tiles + s.block - 1) / s.block;
  s.row[0] = viv__conv_take(p, &floats, (2 * s.tiles_h + 2) * 8);
  s.row[1] = viv__conv_take(p, &floats, (2 * s.tiles_w + 2) * 8);
  float *zeros = viv__conv_take(p, &floats, w->in * 4);
  s.v_floats = POINTS * s.block * w->in;
  s.thread_floats = s.v_floats + POINTS * s.block * VIV__CONV_COLS;
  s.threads = viv__conv_take(p, &floats, p->c->threads * s.thread_floats * 4);
  float *turned = viv__conv_take_turned(p, &floats), *sums = NULL;
  if (!p->out_last) sums = viv__conv_take(p, &floats, p->batch * p->out_space * w->out * 4);
  if (!run) return floats;

  viv__conv_turn_in(p, turned);
  memset(zeros, 0, (size_t)w->in * sizeof *zeros);
  s.zeros = zeros;
  s.x = p->x_last ? p->a->x : turned;
  s.to = p->out_last ? p->a->out : sums;
  for (int64_t i = 0; i < 2 * s.tiles_h + 2; i++)
    s.row[0][i] = viv__conv_index(p, 1, i - p->pad[1]);
  for (int64_t i = 0; i < 2 * s.tiles_w + 2; i++)
    s.row[1][i] = viv__conv_index(p, 2, i - p->pad[2]);
  int64_t wanted = p->c->threads > 1 ? 3 * p->c->threads : 1;
  int64_t cols = (w->out + VIV__CONV_COLS - 1) / VIV__CONV_COLS;
  int64_t parts = viv__min(cols, (wanted + p->batch * s.blocks - 1) / (p->batch * s.blocks));
  s.part = (cols + parts - 1) / parts * VIV__CONV_COLS;
  s.parts = (w->out + s.part - 1) / s.part;
  s.tasks = p->batch * s.blocks * s.parts;
  atomic_store_explicit(&s.next, 0, memory_order_relaxed);
  viv__parallel(p->c, viv__min(p->c->threads, s.tasks), 1, worker, &s);
  if (!p->out_last) viv__conv_turn_out(p, sums);
  return floats;
}
