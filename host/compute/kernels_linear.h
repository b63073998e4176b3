/* linear over dense weights. Part of kernels_impl.h. */

/* A tile of R rows and O outputs: R * O sums, each over k in steps of LANES and then over its
 * lanes. The order of a sum is the same in every tile, whatever R and O. x [R] points to the rows,
 * y [R] to the places of the first output, w to the first output's weights. */
INLINE void tile(int R, int O, int32_t dtype, const float *const *x, const void *w,
                 int64_t w_stride, int64_t k, const float *bias, float *const *y) {
  vf acc[6][8];
  UNROLL for (int r = 0; r < R; r++) {
    UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_set(0.0f);
  }
  const float *row[6];
  const char *weight[8];
  UNROLL for (int r = 0; r < R; r++) row[r] = x[r];
  UNROLL for (int o = 0; o < O; o++) weight[o] = element(w, dtype, o * w_stride);

  /* One or two rows wait for memory: the next tile's weights, which follow these, are asked for
   * ahead, since its eight short streams end before the processor has seen what they are. */
  const char *ahead = element(w, dtype, O * w_stride);
  int64_t i = 0;
  for (; i + LANES <= k; i += LANES) {
    if (R <= 2 && O == 8 && dtype != VIV_F32) {
      const int bytes = O * LANES * 2;
      UNROLL for (int line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 3);
      ahead += bytes;
    }
    if (LANES == 16) { /* enough registers to hold the weights */
      vf wv[8];
      UNROLL for (int o = 0; o < O; o++) wv[o] = load_any(element(weight[o], dtype, i), dtype);
      UNROLL for (int r = 0; r < R; r++) {
        vf xv = v_load(row[r] + i);
        UNROLL for (int o = 0; o < O; o++) acc[r][o] = v_fma(xv, wv[o], acc[r][o]);
      }
    } else {
      vf xv[6];
      UNROLL for (int r = 0; r < R; r++) xv[r] = v_load(row[r] + i);
      UNROLL for (int o = 0; o < O; o++) {
        vf wv = load_any(element(weight[o], dtype, i), dtype);
        UNROLL for (int r = 0; r < R; r++) acc[r][o] = v_fma(xv[r], wv, acc[r][o]);
      }
    }
  }
  if (i < k) {
    int64_t n = k - i;
    UNROLL for (int o = 0; o < O; o++) {
      vf wv = load_any_n(element(weight[o], dtype, i), dtype, n);
      UNROLL for (int r = 0; r < R; r++) {
        acc[r][o] = v_fma(v_load_n(row[r] + i, n), wv, acc[r][o]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; r++) {
    if (O == 1) {
      y[r][0] = sum_of(acc[r][0]) + (bias ? bias[0] : 0.0f);
    } else {
      UNROLL for (int o = 0; o < O; o += 4) {
        __m128 s = v_sums4(acc[r][o], acc[r][o + 1], acc[r][o + 2], acc[r][o + 3]);
        _mm_storeu_ps(y[r] + o, s + (bias ? _mm_loadu_ps(bias + o) : _mm_setzero_ps()));
      }
    }
  }
}

/* All outputs for up to LINEAR_ROWS rows. */
INLINE void tile_row(int R, int32_t dtype, const float *const *x, const void *w, int64_t w_stride,
                     int64_t outs, int64_t k, const float *bias, float *const *y) {
  enum { WIDE = LANES == 16 ? 8 : 4 };
  int64_t o = 0;
  int wide = R == 1 ? 8 : R == 2 ? WIDE : 4;
  float *at[6];
  for (; o < outs;) {
    int64_t step = outs - o >= wide ? wide : outs - o >= 4 ? 4 : 1;
    const void *weight = element(w, dtype, o * w_stride);
    const float *b = bias ? bias + o : NULL;
    UNROLL for (int r = 0; r < R; r++) at[r] = y[r] + o;
    if (step == 8 && wide == 8)
      tile(R, R <= 2 ? 8 : 4, dtype, x, weight, w_stride, k, b, at);
    else if (step == 4)
      tile(R, 4, dtype, x, weight, w_stride, k, b, at);
    else
      tile(R, 1, dtype, x, weight, w_stride, k, b, at);
    o += step;
  }
}

INLINE void tile_rows(int R, int32_t dtype, const float *const *x, const void *w, int64_t w_stride,
                      int64_t outs, int64_t k, const float *bias, float *const *y) {
  switch (R) {
  case 1:
    tile_row(1, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 2:
    tile_row(2, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 3:
    tile_row(3, dtype, x, w, w_stride, outs, k, bias, y);
    break;
#if LINEAR_ROWS > 3
  case 4:
    tile_row(4, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 5:
    tile_row(5, dtype, x, w, w_stride, outs, k, bias, y);
    break;
  case 6:
    tile_row(6, dtype, x, w, w_stride, outs, k, bias, y);
    break;
#endif
  }
}

static void tiles_f32(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                      int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_F32, x, w, w_stride, outs, k, bias, y);
}
static void tiles_f16(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                      int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_F16, x, w, w_stride, outs, k, bias, y);
}
static void tiles_bf16(int R, const float *const *x, const void *w, int64_t w_stride, int64_t outs,
                       int64_t k, const float *bias, float *const *y) {
  tile_rows(R, VIV_BF16, x, w, w_stride, outs, k, bias, y);
}

typedef void (*tiles_fn)(int R, const float *const *x, const void *w, int64_t w_stride,
                         int64_t outs, int64_t k, const float *bias, float *const *y);

INLINE tiles_fn tiles_of(int32_t dtype) {
  return dtype == VIV_F32 ? tiles_f32 : dtype == VIV_F16 ? tiles_f16 : tiles_bf16;
}

/* A panel of weights stays in the second-level cache while all rows pass by it, a tile of them at a
 * time: the weights come from memory once. */
static void linear(const void *w, int32_t dtype, int64_t w_stride, int64_t outs, int64_t k,
                   const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
                   int64_t y_stride) {
  tiles_fn tiles = tiles_of(dtype);
  int64_t panel = outs;
  if (rows > LINEAR_ROWS) { /* 256 KB, or eight outputs */
    panel = 256 * 1024 / (viv__max(1, k) * (dtype == VIV_F32 ? 4 : 2)) / 8 * 8;
    if (panel < 8) panel = 8;
  }
  for (int64_t o = 0; o < outs; o += panel) {
    int64_t count = viv__min(panel, outs - o);
    int64_t left = (rows + LINEAR_ROWS - 1) / LINEAR_ROWS;
    for (int64_t r = 0; r < rows; left--) {
      int R = (int)((rows - r + left - 1) / left); /* evenly, not 6, 6, ..., 1 */
      const float *in[LINEAR_ROWS];
      float *out[LINEAR_ROWS];
      for (int i = 0; i < R; i++) {
        in[i] = x + (r + i) * x_stride;
        out[i] = y + (r + i) * y_stride + o;
      }
      tiles(R, in, element(w, dtype, o * w_stride), w_stride, count, k, bias ? bias + o : NULL,
            out);
      r += R;
    }
  }
}
