/* Norms, softmax and rotary embeddings, row by row. Part of kernels_impl.h. */

/* ---- rows ---- */

/* Sum of x[i], or of (x[i] - mean)^2, in four vectors of partial sums. */
INLINE float sum_row(const float *x, int64_t d) {
  vf part[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)};
  int64_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES) {
    UNROLL for (int j = 0; j < 4; j++) part[j] += v_load(x + i + j * LANES);
  }
  for (; i < d; i += LANES) part[0] += v_load_n(x + i, viv__min(LANES, d - i));
  return sum_of((part[0] + part[1]) + (part[2] + part[3]));
}

INLINE float square_row(const float *x, float mean, int64_t d) {
  vf part[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)}, m = v_set(mean);
  int64_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES) {
    UNROLL for (int j = 0; j < 4; j++) {
      vf v = v_load(x + i + j * LANES) - m;
      part[j] = v_fma(v, v, part[j]);
    }
  }
  for (; i < d; i += LANES) {
    int64_t n = viv__min(LANES, d - i);
    vf v = v_keep_n(v_load_n(x + i, n) - m, v_set(0.0f), n);
    part[0] = v_fma(v, v, part[0]);
  }
  return sum_of((part[0] + part[1]) + (part[2] + part[3]));
}

static void layer_norm(const float *x, const float *w, const float *b, float eps, int64_t rows,
                       int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    float mean = sum_row(x, d) / (float)d;
    float scale = 1.0f / sqrtf(square_row(x, mean, d) / (float)d + eps);
    vf m = v_set(mean), s = v_set(scale);
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf v = (v_load_n(x + i, n) - m) * s;
      vf wv = w ? v_load_n(w + i, n) : v_set(1.0f);
      v_store_n(y + i, v_fma(v, wv, b ? v_load_n(b + i, n) : v_set(0.0f)), n);
    }
  }
}

static void rms_norm(const float *x, const float *w, float eps, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    vf s = v_set(1.0f / sqrtf(square_row(x, 0.0f, d) / (float)d + eps));
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf v = v_load_n(x + i, n) * s;
      if (w) v = v * v_load_n(w + i, n);
      v_store_n(y + i, v, n);
    }
  }
}

/* The largest of x[0 .. n); lanes that are missing count as -infinity. */
INLINE float max_row(const float *x, int64_t n) {
  vf max = v_set(-INFINITY);
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    max = v_max(max, v_keep_n(v_load_n(x + i, len), v_set(-INFINITY), len));
  }
  return v_top(max);
}

static void softmax(const float *x, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    float max = max_row(x, d);
    if (max == -INFINITY) { /* all masked: zeros, not NaN */
      memset(y, 0, (size_t)d * sizeof *y);
      continue;
    }
    vf sum = v_set(0.0f), m = v_set(max);
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      vf e = v_exp(v_load_n(x + i, n) - m);
      v_store_n(y + i, e, n);
      sum += v_keep_n(e, v_set(0.0f), n);
    }
    vf scale = v_set(1.0f / sum_of(sum));
    for (int64_t i = 0; i < d; i += LANES) {
      int64_t n = viv__min(LANES, d - i);
      v_store_n(y + i, v_load_n(y + i, n) * scale, n);
    }
  }
}

/* ---- rotary embeddings ---- */

static void rope(float *x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
                 const float *cos_sin, int64_t half, int32_t interleaved) {
  for (int64_t r = 0; r < rows; r++, cos_sin += 2 * half) {
    const float *cosine = cos_sin, *sine = cos_sin + half;
    for (int64_t h = 0; h < heads; h++) {
      float *at = x + r * x_stride + h * head_dim;
      if (interleaved) {
        for (int64_t i = 0; i < half; i++) {
          float a = at[2 * i], b = at[2 * i + 1];
          at[2 * i] = a * cosine[i] - b * sine[i];
          at[2 * i + 1] = b * cosine[i] + a * sine[i];
        }
        continue;
      }
      for (int64_t i = 0; i < half; i += LANES) {
        int64_t n = viv__min(LANES, half - i);
        vf c = v_load_n(cosine + i, n), s = v_load_n(sine + i, n);
        vf a = v_load_n(at + i, n), b = v_load_n(at + half + i, n);
        v_store_n(at + i, v_fma(a, c, v_set(0.0f) - b * s), n);
        v_store_n(at + half + i, v_fma(b, c, a * s), n);
      }
    }
  }
}
