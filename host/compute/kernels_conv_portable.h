/* Convolution's kernels in plain C. Part of kernels_portable.c. */

static void conv_tile(const viv__conv_tile *t) {
  for (int32_t r = 0; r < t->rows; r++)
    for (int32_t col = 0; col < t->cols; col += VIV__CONV_BLOCK) {
      int32_t n = (int32_t)viv__min(VIV__CONV_BLOCK, t->cols - col);
      float sum[VIV__CONV_BLOCK] = {0};
      float *out = t->out[r] + col;
      for (int32_t o = 0; o < n; o++) {
        sum[o] = t->add ? out[o] : t->bias ? t->bias[col + o] : 0.0f;
        if (!t->add && t->residual) sum[o] += t->residual[r][col + o];
      }
      const float *weights = t->w + col / VIV__CONV_BLOCK * t->w_block;
      for (int64_t s = 0; s < t->segments; s++) {
        const viv__conv_segment *segment = t->segment + s;
        const float *x = t->x[segment->tap * VIV__CONV_ROWS + r] + segment->x;
        const float *w = weights + segment->weight;
        if (t->quads)
          for (int64_t i = 0; i < 4; i++)
            for (int o = 0; o < n; o++)
              sum[o] += x[t->first + col + o / 4 * 4 + i] * w[i * VIV__CONV_BLOCK + o];
        for (int64_t i = 0; i < segment->length && !t->quads; i++) {
          float xi = t->offset ? t->x[r][t->offset[i]] : x[i];
          for (int o = 0; o < VIV__CONV_BLOCK; o++) sum[o] += xi * w[i * VIV__CONV_BLOCK + o];
        }
      }
      for (int32_t o = 0; o < n; o++) {
        float v = sum[o] < t->low ? t->low : sum[o];
        out[o] = v > t->high ? t->high : v;
      }
    }
}

static void conv_strip(const viv__conv_tile *t, int64_t tiles, int64_t x_step, int64_t out_step) {
  for (int64_t i = 0; i < tiles * VIV__CONV_ROWS; i++) {
    const float *x = t->x[0] + i * x_step;
    float *out = t->out[0] + i * out_step;
    viv__conv_tile pixel = *t;
    pixel.rows = 1;
    pixel.x = &x;
    pixel.out = &out;
    conv_tile(&pixel);
  }
}

static void conv_depthwise(const viv__conv_depthwise *d, int64_t begin, int64_t end) {
  for (int64_t j = 0; j < d->width; j++)
    for (int64_t c = begin; c < end; c++) {
      float sum = d->bias ? d->bias[c] : 0.0f;
      if (d->residual) sum += d->residual[j * d->out_step + c];
      for (int64_t r = 0; r < d->rows; r++)
        for (int64_t t = 0; d->x[r] && t < d->taps; t++) {
          int64_t i = d->index[t * d->width + j];
          if (i >= 0) sum += d->weights[d->w[r] + d->tap[t] + c] * d->x[r][i * d->channels + c];
        }
      sum = sum < d->low ? d->low : sum;
      d->out[j * d->out_step + c] = sum > d->high ? d->high : sum;
    }
}

static void winograd_in(const float *const *d, int64_t channels, float *v, int64_t step) {
  for (int64_t c = 0; c < channels; c++) {
    float t[4][4];
    for (int j = 0; j < 4; j++) {
      float a = d[j][c], b = d[4 + j][c], e = d[8 + j][c], f = d[12 + j][c];
      t[0][j] = a - e;
      t[1][j] = b + e;
      t[2][j] = e - b;
      t[3][j] = b - f;
    }
    for (int i = 0; i < 4; i++) {
      float *to = v + i * 4 * step + c;
      to[0] = t[i][0] - t[i][2];
      to[step] = t[i][1] + t[i][2];
      to[2 * step] = t[i][2] - t[i][1];
      to[3 * step] = t[i][1] - t[i][3];
    }
  }
}

static void winograd_out(const float *m, int64_t step, int64_t cols, const float *bias,
                         const float *const *residual, float low, float high, float *const *out) {
  for (int64_t c = 0; c < cols; c++) {
    float t[2][4];
    for (int j = 0; j < 4; j++) {
      const float *at = m + j * step + c;
      t[0][j] = at[0] + at[4 * step] + at[8 * step];
      t[1][j] = at[4 * step] - at[8 * step] - at[12 * step];
    }
    for (int k = 0; k < 4; k++) {
      if (!out[k]) continue;
      const float *r = t[k / 2];
      float y = k % 2 ? r[1] - r[2] - r[3] : r[0] + r[1] + r[2];
      if (bias) y += bias[c];
      if (residual[k]) y += residual[k][c];
      y = y < low ? low : y;
      out[k][c] = y > high ? high : y;
    }
  }
}

static void transpose(const float *x, int64_t x_stride, int64_t rows, int64_t cols, float *y,
                      int64_t y_stride) {
  for (int64_t j = 0; j < cols; j++)
    for (int64_t i = 0; i < rows; i++) y[j * y_stride + i] = x[i * x_stride + j];
}

#include "compute/kernels_pool.h"
