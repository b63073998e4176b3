/* Convolution: the tile of pixels by outputs. Part of kernels_impl.h. */

/* R pixels by O vectors of outputs, all sums in registers. */
INLINE void conv_tile_of(int R, int O, const viv__conv_tile *t, int64_t first_col) {
  vf acc[6][4];
  int64_t n = t->cols - first_col, last = viv__min(LANES, n - (O - 1) * LANES);
  if (t->add) {
    UNROLL for (int r = 0; r < R; r++) {
      const float *from = t->out[r] + first_col;
      UNROLL for (int o = 0; o < O; o++) acc[r][o] =
          o + 1 < O ? v_load(from + o * LANES) : v_load_n(from + o * LANES, last);
    }
  } else {
    UNROLL for (int o = 0; o < O; o++) {
      vf start = t->bias ? v_load(t->bias + first_col + o * LANES) : v_set(0.0f);
      UNROLL for (int r = 0; r < R; r++) acc[r][o] = start;
    }
    if (t->residual) {
      UNROLL for (int r = 0; r < R; r++) {
        const float *from = t->residual[r] + first_col;
        UNROLL for (int o = 0; o < O; o++) acc[r][o] +=
            o + 1 < O ? v_load(from + o * LANES) : v_load_n(from + o * LANES, last);
      }
    }
  }
  const float *weights[4];
  UNROLL for (int o = 0; o < O; o++) {
    int64_t col = first_col + o * LANES;
    weights[o] = t->w + col / VIV__CONV_BLOCK * t->w_block + col % VIV__CONV_BLOCK;
  }
  if (t->offset) {
    const float *row[6], *w[4];
    UNROLL for (int r = 0; r < R; r++) row[r] = t->x[r];
    UNROLL for (int o = 0; o < O; o++) w[o] = weights[o] + t->segment->weight;
    const int32_t *offset = t->offset;
    for (int64_t i = 0, n_inputs = t->segment->length; i < n_inputs; i++) {
      vf wv[4];
      int64_t at = offset[i];
      UNROLL for (int o = 0; o < O; o++) wv[o] = v_load(w[o] + i * VIV__CONV_BLOCK);
      UNROLL for (int r = 0; r < R; r++) {
        vf xv = v_set(row[r][at]);
        UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_fma(xv, wv[o], acc[r][o]);
      }
    }
  }
  int64_t segments = t->offset ? 0 : t->segments;
  const char *ahead = t->ahead ? t->ahead : (const char *)t->x[0];
  for (int64_t s = 0; s < segments; s++) {
    const viv__conv_segment *segment = t->segment + s;
    const float *const *x = t->x + segment->tap * VIV__CONV_ROWS;
    const float *row[6], *w[4];
    UNROLL for (int r = 0; r < R; r++) row[r] = x[r] + segment->x;
    UNROLL for (int o = 0; o < O; o++) w[o] = weights[o] + segment->weight;
    for (int64_t i = 0; i < segment->length; i++) {
      vf wv[4];
      __builtin_prefetch(ahead + i % VIV__CONV_AHEAD * t->ahead_stride + 4 * i, 0, 2);
      UNROLL for (int o = 0; o < O; o++) wv[o] = v_load(w[o] + i * VIV__CONV_BLOCK);
      UNROLL for (int r = 0; r < R; r++) {
        vf xv = v_set(row[r][i]);
        UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_fma(xv, wv[o], acc[r][o]);
      }
    }
  }
  if (t->low > -INFINITY || t->high < INFINITY) {
    vf low = v_set(t->low), high = v_set(t->high);
    UNROLL for (int r = 0; r < R; r++) {
      UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_min(high, v_max(low, acc[r][o]));
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    float *to = t->out[r] + first_col;
    UNROLL for (int o = 0; o < O; o++) {
      if (o + 1 < O)
        v_store(to + o * LANES, acc[r][o]);
      else
        v_store_n(to + o * LANES, acc[r][o], last);
    }
  }
}

/* R pixels by one vector of outputs whose groups read four inputs each. */
INLINE void conv_tile_quads(int R, const viv__conv_tile *t, int64_t col) {
  vf acc[6];
  int64_t n = viv__min(LANES, t->cols - col);
  vf start = t->bias ? v_load(t->bias + col) : v_set(0.0f);
  UNROLL for (int r = 0; r < R; r++) {
    acc[r] = t->add ? v_load_n(t->out[r] + col, n) : start;
    if (!t->add && t->residual) acc[r] += v_load_n(t->residual[r] + col, n);
  }
  const float *weights = t->w + col / VIV__CONV_BLOCK * t->w_block + col % VIV__CONV_BLOCK;
  for (int64_t s = 0; s < t->segments; s++) {
    const viv__conv_segment *segment = t->segment + s;
    const float *const *x = t->x + segment->tap * VIV__CONV_ROWS;
    const float *w = weights + segment->weight;
    vf wv[4];
    UNROLL for (int i = 0; i < 4; i++) wv[i] = v_load(w + i * VIV__CONV_BLOCK);
    UNROLL for (int r = 0; r < R; r++) {
      vf xv = v_load_n(x[r] + segment->x + t->first + col, n);
      acc[r] = v_fma(v_quad_lane(xv, 0), wv[0], acc[r]);
      acc[r] = v_fma(v_quad_lane(xv, 1), wv[1], acc[r]);
      acc[r] = v_fma(v_quad_lane(xv, 2), wv[2], acc[r]);
      acc[r] = v_fma(v_quad_lane(xv, 3), wv[3], acc[r]);
    }
  }
  vf low = v_set(t->low), high = v_set(t->high);
  UNROLL for (int r = 0; r < R; r++) {
    v_store_n(t->out[r] + col, v_min(high, v_max(low, acc[r])), n);
  }
}

INLINE void conv_tile_rows(int R, const viv__conv_tile *t) {
  if (t->quads) {
    for (int64_t col = 0; col < t->cols; col += LANES) conv_tile_quads(R, t, col);
    return;
  }
  enum { WIDE = LANES == 16 ? 4 : 2 };
  for (int64_t col = 0; col < t->cols; col += WIDE * LANES) {
    switch (viv__min(WIDE, (t->cols - col + LANES - 1) / LANES)) {
    case 1:
      conv_tile_of(R, 1, t, col);
      break;
    case 2:
      conv_tile_of(R, 2, t, col);
      break;
#if LANES == 16
    case 3:
      conv_tile_of(R, 3, t, col);
      break;
    case 4:
      conv_tile_of(R, 4, t, col);
      break;
#endif
    }
  }
}

static void conv_tile(const viv__conv_tile *t) {
  switch (t->rows) {
  case 1:
    conv_tile_rows(1, t);
    break;
  case 2:
    conv_tile_rows(2, t);
    break;
  case 3:
    conv_tile_rows(3, t);
    break;
  case 4:
    conv_tile_rows(4, t);
    break;
  case 5:
    conv_tile_rows(5, t);
    break;
  case 6:
    conv_tile_rows(6, t);
    break;
  }
}

/* Whole tiles that follow one another, O vectors of outputs from `col` on. */
INLINE void conv_strip_of(int O, const viv__conv_tile *t, int64_t col, int64_t tiles,
                          int64_t x_step, int64_t out_step) {
  const float *w = t->w + col / VIV__CONV_BLOCK * t->w_block + col % VIV__CONV_BLOCK;
  const float *x = t->x[0];
  float *out = t->out[0] + col;
  vf low = v_set(t->low), high = v_set(t->high), start[4];
  UNROLL for (int o = 0; o < O; o++) start[o] =
      t->bias ? v_load(t->bias + col + o * LANES) : v_set(0.0f);
  w += t->segment->weight;
  for (int64_t tile = 0; tile < tiles; tile++, x += VIV__CONV_ROWS * x_step) {
    vf acc[VIV__CONV_ROWS][4];
    UNROLL for (int r = 0; r < VIV__CONV_ROWS; r++) {
      UNROLL for (int o = 0; o < O; o++) acc[r][o] = start[o];
    }
    for (int64_t i = 0; i < t->segment->length; i++) {
      vf wv[4];
      const float *at = x + t->offset[i];
      UNROLL for (int o = 0; o < O; o++) {
        int64_t block = (col % VIV__CONV_BLOCK + o * LANES) / VIV__CONV_BLOCK;
        wv[o] =
            v_load(w + block * t->w_block + (o * LANES) % VIV__CONV_BLOCK + i * VIV__CONV_BLOCK);
      }
      UNROLL for (int r = 0; r < VIV__CONV_ROWS; r++) {
        vf xv = v_set(at[r * x_step]);
        UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_fma(xv, wv[o], acc[r][o]);
      }
    }
    UNROLL for (int r = 0; r < VIV__CONV_ROWS; r++, out += out_step) {
      UNROLL for (int o = 0; o < O; o++)
          v_store(out + o * LANES, v_min(high, v_max(low, acc[r][o])));
    }
  }
}

static void conv_strip(const viv__conv_tile *t, int64_t tiles, int64_t x_step, int64_t out_step) {
  enum { WIDE = LANES == 16 ? 4 : 2 };
  int64_t col = 0;
  for (; col + WIDE * LANES <= t->cols; col += WIDE * LANES)
    conv_strip_of(WIDE, t, col, tiles, x_step, out_step);
  for (; col < t->cols; col += LANES) conv_strip_of(1, t, col, tiles, x_step, out_step);
}

/* ---- depthwise ---- */

/* n is LANES where that is known when this is compiled. */
INLINE vf load_first(const float *p, int64_t n) {
  return n == LANES ? v_load(p) : v_load_n(p, n);
}
INLINE void store_first(float *p, vf v, int64_t n) {
  if (n == LANES)
    v_store(p, v);
  else
    v_store_n(p, v, n);
}

/* N outputs from j on of one vector of channels. K > 0: so many taps, side by side, stride S; each
 * column of x is loaded once for all outputs that it meets. edge: columns are looked up. */
INLINE void depthwise_tile(int N, int K, int S, bool edge, const viv__conv_depthwise *d, int64_t j,
                           int64_t c, int64_t n) {
  vf acc[8];
  vf start = d->bias ? v_load(d->bias + c) : v_set(0.0f);
  UNROLL for (int i = 0; i < N; i++) {
    acc[i] = start;
    if (d->residual) acc[i] += load_first(d->residual + (j + i) * d->out_step + c, n);
  }
  for (int64_t r = 0; r < d->rows; r++) {
    const float *x = d->x[r], *w = d->weights + d->w[r] + c;
    if (!x) continue;
    x += c;
    if (K > 0) {
      vf taps[8];
      UNROLL for (int t = 0; t < K; t++) taps[t] = v_load(w + d->tap[t]);
      const float *first = edge ? x : x + d->index[j] * d->channels;
      UNROLL for (int col = 0; col < (N - 1) * S + K; col++) {
        vf xv;
        if (edge) { /* the output and tap that meet this column */
          int o = col / S < N ? col / S : N - 1;
          int64_t i = d->index[(col - o * S) * d->width + j + o];
          xv = i < 0 ? v_set(0.0f) : load_first(x + i * d->channels, n);
        } else {
          xv = load_first(first + col * d->channels, n);
        }
        UNROLL for (int t = 0; t < K; t++) {
          int o = (col - t) / S;
          if (col >= t && (col - t) % S == 0 && o < N) acc[o] = v_fma(xv, taps[t], acc[o]);
        }
      }
      continue;
    }
    for (int64_t t = 0; t < d->taps; t++) {
      vf tap = v_load(w + d->tap[t]);
      const int64_t *index = d->index + t * d->width + j;
      UNROLL for (int i = 0; i < N; i++) {
        if (index[i] >= 0) acc[i] = v_fma(load_first(x + index[i] * d->channels, n), tap, acc[i]);
      }
    }
  }
  UNROLL for (int i = 0; i < N; i++) {
    vf v = v_min(v_set(d->high), v_max(v_set(d->low), acc[i]));
    store_first(d->out + (j + i) * d->out_step + c, v, n);
  }
}

/* All outputs of one vector of channels; n is a constant where the vector is full. */
INLINE void depthwise_vector(int K, int S, const viv__conv_depthwise *d, int64_t c, int64_t n) {
  enum { WIDE = LANES == 16 ? 8 : 4 };
  for (int64_t j = 0; j < d->width;) {
    if (j >= d->inner && j + WIDE <= d->inner_end) {
      depthwise_tile(WIDE, K, S, false, d, j, c, n);
      j += WIDE;
      continue;
    }
    /* Looked-up columns are right everywhere, so a tile at an edge may reach inside. */
    int64_t step = viv__min(WIDE, d->width - j);
    switch (step) {
    case 1:
      depthwise_tile(1, K, S, true, d, j, c, n);
      break;
    case 2:
      depthwise_tile(2, K, S, true, d, j, c, n);
      break;
    case 3:
      depthwise_tile(3, K, S, true, d, j, c, n);
      break;
    case 4:
      depthwise_tile(4, K, S, true, d, j, c, n);
      break;
#if LANES == 16
    case 5:
      depthwise_tile(5, K, S, true, d, j, c, n);
      break;
    case 6:
      depthwise_tile(6, K, S, true, d, j, c, n);
      break;
    case 7:
      depthwise_tile(7, K, S, true, d, j, c, n);
      break;
    case 8:
      depthwise_tile(8, K, S, true, d, j, c, n);
      break;
#endif
    }
    j += step;
  }
}

static void conv_depthwise(const viv__conv_depthwise *d, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    int kind = d->dilation == 1 ? (int)(d->taps * 8 + d->stride) : 0;
    if (n < LANES) kind = 0;
    switch (kind) {
    case 3 * 8 + 1:
      depthwise_vector(3, 1, d, c, LANES);
      break;
    case 3 * 8 + 2:
      depthwise_vector(3, 2, d, c, LANES);
      break;
    case 5 * 8 + 1:
      depthwise_vector(5, 1, d, c, LANES);
      break;
    case 5 * 8 + 2:
      depthwise_vector(5, 2, d, c, LANES);
      break;
    case 7 * 8 + 1:
      depthwise_vector(7, 1, d, c, LANES);
      break;
    default:
      depthwise_vector(0, 1, d, c, n);
      break;
    }
  }
}

/* ---- Winograd ---- */

/* B' d B of a 4x4 tile for all channels: v[point * step + channel]. */
static void winograd_in(const float *const *d, int64_t channels, float *v, int64_t step) {
  for (int64_t c = 0; c < channels; c += LANES) {
    int64_t n = viv__min(LANES, channels - c);
    vf t[4][4];
    UNROLL for (int j = 0; j < 4; j++) {
      vf a = v_load_n(d[j] + c, n), b = v_load_n(d[4 + j] + c, n);
      vf e = v_load_n(d[8 + j] + c, n), f = v_load_n(d[12 + j] + c, n);
      t[0][j] = a - e;
      t[1][j] = b + e;
      t[2][j] = e - b;
      t[3][j] = b - f;
    }
    UNROLL for (int i = 0; i < 4; i++) {
      float *to = v + i * 4 * step + c;
      v_store_n(to, t[i][0] - t[i][2], n);
      v_store_n(to + step, t[i][1] + t[i][2], n);
      v_store_n(to + 2 * step, t[i][2] - t[i][1], n);
      v_store_n(to + 3 * step, t[i][1] - t[i][3], n);
    }
  }
}

/* A' m A of one tile: four pixels of cols outputs; out [4], NULL beyond the edge. */
static void winograd_out(const float *m, int64_t step, int64_t cols, const float *bias,
                         const float *const *residual, float low, float high, float *const *out) {
  for (int64_t c = 0; c < cols; c += LANES) {
    int64_t n = viv__min(LANES, cols - c);
    vf t[2][4], start = bias ? v_load(bias + c) : v_set(0.0f);
    UNROLL for (int j = 0; j < 4; j++) {
      const float *at = m + j * step + c;
      vf a = v_load_n(at, n), b = v_load_n(at + 4 * step, n);
      vf e = v_load_n(at + 8 * step, n), f = v_load_n(at + 12 * step, n);
      t[0][j] = a + b + e;
      t[1][j] = b - e - f;
    }
    UNROLL for (int k = 0; k < 4; k++) {
      if (!out[k]) continue;
      int i = k / 2;
      vf y = k % 2 ? t[i][1] - t[i][2] - t[i][3] : t[i][0] + t[i][1] + t[i][2];
      y += start;
      if (residual[k]) y += v_load_n(residual[k] + c, n);
      v_store_n(out[k] + c, v_min(v_set(high), v_max(v_set(low), y)), n);
    }
  }
}

/* ---- transpose ---- */

INLINE void transpose_square(const float *x, int64_t x_stride, int64_t rows, int64_t cols, float *y,
                             int64_t y_stride) {
  vf r[LANES];
  UNROLL for (int i = 0; i < LANES; i++) r[i] =
      i < rows ? load_first(x + i * x_stride, cols) : v_set(0.0f);
  v_transpose(r);
  UNROLL for (int i = 0; i < LANES; i++) {
    if (i < cols) store_first(y + i * y_stride, r[i], rows);
  }
}

/* y[c][r] = x[r][c]. Whole lines of y are finished before the next ones are begun, and wide strips
 * of x are read along, so that strides of whole pages cost little. */
static void transpose(const float *x, int64_t x_stride, int64_t rows, int64_t cols, float *y,
                      int64_t y_stride) {
  for (int64_t r = 0; r < rows; r += LANES) {
    int64_t nr = viv__min(LANES, rows - r);
    for (int64_t c = 0; c < cols; c += LANES) {
      int64_t nc = viv__min(LANES, cols - c);
      const float *from = x + r * x_stride + c;
      float *to = y + c * y_stride + r;
      if (nr == LANES && nc == LANES)
        transpose_square(from, x_stride, LANES, LANES, to, y_stride);
      else
        transpose_square(from, x_stride, nr, nc, to, y_stride);
    }
  }
}

#include "compute/kernels_pool.h"
