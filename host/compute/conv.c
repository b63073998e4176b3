/* gemm and conv2d: the operations that are not STRICT and therefore may use OpenBLAS. */
#include "compute/internal.h"

#include <stdatomic.h>
#include <string.h>

/* ---- gemm ---- */

/* What is done where OpenBLAS is absent: blocks of B are turned so that each column lies in a row,
 * then the kernel of linear makes the products. */
static void own_sgemm(const viv__kernels *kernels, bool trans_a, bool trans_b, int64_t m, int64_t n,
                      int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                      int64_t ldb, float beta, float *c, int64_t ldc) {
  enum { ROWS = 32, COLS = 64, DEPTH = 256 };
  float a_block[ROWS * DEPTH], b_block[COLS * DEPTH], product[ROWS * COLS];
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
  for (int64_t p = 0; p < k; p += DEPTH) {
    int64_t depth = viv__min(DEPTH, k - p);
    for (int64_t j = 0; j < n; j += COLS) {
      int64_t cols = viv__min(COLS, n - j);
      if (!trans_b)
        for (int64_t s = 0; s < depth; s++)
          for (int64_t t = 0; t < cols; t++) b_block[t * DEPTH + s] = b[(p + s) * ldb + j + t];
      for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = viv__min(ROWS, m - i);
        if (trans_a)
          for (int64_t s = 0; s < depth; s++)
            for (int64_t r = 0; r < rows; r++) a_block[r * DEPTH + s] = a[(p + s) * lda + i + r];
        kernels->linear(trans_b ? b + j * ldb + p : b_block, VIV_F32, trans_b ? ldb : DEPTH, cols,
                        depth, NULL, trans_a ? a_block : a + i * lda + p, trans_a ? DEPTH : lda,
                        rows, product, COLS);
        for (int64_t r = 0; r < rows; r++)
          kernels->axpy(alpha, product + r * COLS, c + (i + r) * ldc + j, cols);
      }
    }
  }
}

/* On the calling thread. OpenBLAS counts in int, so what does not fit goes the other way. */
static void sgemm(const viv__compute *c, bool trans_a, bool trans_b, int64_t m, int64_t n,
                  int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                  float beta, float *out, int64_t ldc) {
  int64_t largest = viv__max(viv__max(m, n), viv__max(k, lda));
  largest = viv__max(largest, viv__max(ldb, ldc));
  if (c->blas && largest <= INT32_MAX)
    viv__blas_sgemm(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
  else
    own_sgemm(c->kernels, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
}

struct gemm {
  const viv__compute *c;
  bool trans_a, trans_b, by_columns;
  int64_t m, n, k, lda, ldb, ldc, piece;
  float alpha, beta;
  const float *a, *b;
  float *out;
};

static void gemm_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct gemm *s = ctx;
  int64_t first = begin * s->piece;
  int64_t count = viv__min(end * s->piece, s->by_columns ? s->n : s->m) - first;
  if (s->by_columns)
    sgemm(s->c, s->trans_a, s->trans_b, s->m, count, s->k, s->alpha, s->a, s->lda,
          s->b + (s->trans_b ? first * s->ldb : first), s->ldb, s->beta, s->out + first, s->ldc);
  else
    sgemm(s->c, s->trans_a, s->trans_b, count, s->n, s->k, s->alpha,
          s->a + (s->trans_a ? first : first * s->lda), s->lda, s->b, s->ldb, s->beta,
          s->out + first * s->ldc, s->ldc);
}

static void gemm(const viv_compute *c, int32_t trans_a, int32_t trans_b, int64_t m, int64_t n,
                 int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                 float beta, float *out, int64_t ldc) {
  if (m < 1 || n < 1) return;
  struct gemm s = {viv__compute_of(c),
                   trans_a != 0,
                   trans_b != 0,
                   n >= m,
                   m,
                   n,
                   k,
                   lda,
                   ldb,
                   ldc,
                   0,
                   alpha,
                   beta,
                   a,
                   b,
                   out};
  int64_t length = s.by_columns ? n : m;
  /* One piece for each thread: each packs the other operand for itself. */
  int64_t pieces = viv__min(c->threads, 1 + m * n * viv__max(1, k) / (1 << 17));
  s.piece = ((length + pieces - 1) / pieces + 15) / 16 * 16;
  viv__pool_run(s.c->pool, (length + s.piece - 1) / s.piece, 1, gemm_pieces, &s);
}

/* ---- conv2d ---- */

/* A convolution is a product of the weights [out, in * kh * kw] of a group with the columns under
 * the kernel [in * kh * kw, pixels]. Columns are made for a tile of pixels that stays in the cache;
 * a task is one tile of one group of one image. */
struct conv {
  const viv__compute *c;
  const viv_conv2d *a;
  int64_t out_h, out_w, in_group, out_group, depth;
  int64_t tile, tiles; /* pixels of a tile, tiles of an image */
  int64_t tasks;
  bool direct; /* the image itself is the columns */
  bool depthwise;
  _Atomic int64_t next;
};

static int64_t out_size(int64_t size, int64_t pads, int64_t kernel, int64_t dilation,
                        int64_t stride) {
  int64_t span = size + pads - (dilation * (kernel - 1) + 1);
  return span < 0 ? 0 : span / stride + 1;
}

static void conv_plan(const viv_compute *c, const viv_conv2d *a, struct conv *s) {
  s->c = viv__compute_of(c);
  s->a = a;
  s->out_h = out_size(a->height, (int64_t)a->pad_top + a->pad_bottom, a->kernel_h, a->dilation_h,
                      a->stride_h);
  s->out_w = out_size(a->width, (int64_t)a->pad_left + a->pad_right, a->kernel_w, a->dilation_w,
                      a->stride_w);
  s->in_group = a->in_channels / a->groups;
  s->out_group = a->out_channels / a->groups;
  s->depth = s->in_group * a->kernel_h * a->kernel_w;
  int64_t pixels = s->out_h * s->out_w;
  s->depthwise = s->in_group == 1 && s->out_group == 1;
  s->direct = a->kernel_h == 1 && a->kernel_w == 1 && a->stride_h == 1 && a->stride_w == 1 &&
              !a->pad_top && !a->pad_left && !a->pad_bottom && !a->pad_right;
  /* 512 KB of columns, and enough tiles for every thread; below 64 pixels the product would spend
   * its time on packing the weights. */
  int64_t fit = (512 * 1024 / 4) / viv__max(1, s->depth);
  int64_t share = (pixels + c->threads - 1) / c->threads;
  s->tile = viv__max(64, viv__min(fit, share)) / 16 * 16;
  s->tile = viv__min(s->tile, viv__max(1, pixels));
  s->tiles = (pixels + s->tile - 1) / s->tile;
  s->tasks = (int64_t)a->batch * a->groups * s->tiles;
}

static uint64_t conv2d_scratch(const viv_compute *c, const viv_conv2d *args) {
  struct conv s = {0};
  conv_plan(c, args, &s);
  if (s.direct || s.depthwise) return 0;
  return (uint64_t)viv__min(c->threads, s.tasks) * (uint64_t)(s.depth * s.tile);
}

/* The columns of pixels [begin, end) of one group: [depth, end - begin]. */
static void make_columns(const struct conv *s, const float *x, int64_t begin, int64_t end,
                         float *columns) {
  const viv_conv2d *a = s->a;
  for (int64_t ch = 0; ch < s->in_group; ch++, x += (int64_t)a->height * a->width)
    for (int64_t kh = 0; kh < a->kernel_h; kh++)
      for (int64_t kw = 0; kw < a->kernel_w; kw++) {
        int64_t pixel = begin;
        while (pixel < end) {
          int64_t oh = pixel / s->out_w, ow = pixel % s->out_w;
          int64_t stop = viv__min(s->out_w, ow + (end - pixel));
          int64_t ih = oh * a->stride_h - a->pad_top + kh * a->dilation_h;
          int64_t shift = kw * a->dilation_w - a->pad_left; /* iw = ow * stride + shift */
          pixel += stop - ow;
          if (ih < 0 || ih >= a->height) {
            memset(columns, 0, (size_t)(stop - ow) * sizeof *columns);
            columns += stop - ow;
            continue;
          }
          const float *row = x + ih * a->width;
          for (; ow < stop && ow * a->stride_w + shift < 0; ow++) *columns++ = 0.0f;
          int64_t inside = (a->width - 1 - shift) / a->stride_w + 1; /* first ow beyond the row */
          if (a->width - 1 - shift < 0) inside = 0;
          inside = viv__min(stop, inside);
          if (a->stride_w == 1 && ow < inside) {
            memcpy(columns, row + ow + shift, (size_t)(inside - ow) * sizeof *columns);
            columns += inside - ow;
            ow = inside;
          }
          for (; ow < inside; ow++) *columns++ = row[ow * a->stride_w + shift];
          for (; ow < stop; ow++) *columns++ = 0.0f;
        }
      }
}

static void conv_task(struct conv *s, int64_t task, float *columns) {
  const viv_conv2d *a = s->a;
  int64_t pixels = s->out_h * s->out_w, plane = (int64_t)a->height * a->width;
  int64_t begin = task % s->tiles * s->tile, image_group = task / s->tiles;
  int64_t n = viv__min(s->tile, pixels - begin), group = image_group % a->groups;
  const float *x = a->x + image_group * s->in_group * plane;
  const float *w = a->weight + group * s->out_group * s->depth;
  float *out = a->out + image_group * s->out_group * pixels + begin;
  for (int64_t o = 0; o < s->out_group; o++) {
    float bias = a->bias ? a->bias[group * s->out_group + o] : 0.0f;
    for (int64_t i = 0; i < n; i++) out[o * pixels + i] = bias;
  }
  if (!s->direct) make_columns(s, x, begin, begin + n, columns);
  sgemm(s->c, false, false, s->out_group, n, s->depth, 1.0f, w, s->depth,
        s->direct ? x + begin : columns, s->direct ? pixels : n, 1.0f, out, pixels);
}

/* One plane of a depthwise convolution: a shifted multiply-add for each tap. */
static void depthwise_plane(const struct conv *s, int64_t image_channel) {
  const viv_conv2d *a = s->a;
  int64_t ch = image_channel % a->in_channels;
  const float *x = a->x + image_channel * a->height * a->width;
  const float *w = a->weight + ch * s->depth;
  float *out = a->out + image_channel * s->out_h * s->out_w;
  for (int64_t oh = 0; oh < s->out_h; oh++, out += s->out_w) {
    for (int64_t ow = 0; ow < s->out_w; ow++) out[ow] = a->bias ? a->bias[ch] : 0.0f;
    for (int64_t kh = 0; kh < a->kernel_h; kh++) {
      int64_t ih = oh * a->stride_h - a->pad_top + kh * a->dilation_h;
      if (ih < 0 || ih >= a->height) continue;
      for (int64_t kw = 0; kw < a->kernel_w; kw++) {
        int64_t shift = kw * a->dilation_w - a->pad_left, first = 0;
        if (shift < 0) first = (-shift + a->stride_w - 1) / a->stride_w;
        int64_t end = a->width - 1 - shift < 0 ? 0 : (a->width - 1 - shift) / a->stride_w + 1;
        end = viv__min(end, s->out_w);
        if (first >= end) continue;
        const float *row = x + ih * a->width + shift;
        float tap = w[kh * a->kernel_w + kw];
        if (a->stride_w == 1)
          s->c->kernels->axpy(tap, row + first, out + first, end - first);
        else
          for (int64_t ow = first; ow < end; ow++) out[ow] += tap * row[ow * a->stride_w];
      }
    }
  }
}

static void depthwise_range(void *ctx, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) depthwise_plane(ctx, i);
}

/* One range for each part of the scratch; each takes tasks until none is left. */
static void conv_worker(void *ctx, int64_t begin, int64_t end) {
  struct conv *s = ctx;
  for (int64_t slot = begin; slot < end; slot++) {
    float *columns = s->direct ? NULL : s->a->scratch + slot * s->depth * s->tile;
    for (;;) {
      int64_t task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
      if (task >= s->tasks) break;
      conv_task(s, task, columns);
    }
  }
}

static void conv2d(const viv_compute *c, const viv_conv2d *args) {
  struct conv s = {0};
  conv_plan(c, args, &s);
  if (s.tasks < 1) return;
  if (s.depthwise) {
    int64_t work = s.out_h * s.out_w * s.depth;
    viv__pool_run(s.c->pool, (int64_t)args->batch * args->in_channels,
                  viv__max(1, (1 << 15) / viv__max(1, work)), depthwise_range, &s);
    return;
  }
  viv__pool_run(s.c->pool, viv__min(c->threads, s.tasks), 1, conv_worker, &s);
}

void viv__table_conv(viv_compute *t) {
  t->gemm = gemm;
  t->conv2d = conv2d;
  t->conv2d_scratch = conv2d_scratch;
}
