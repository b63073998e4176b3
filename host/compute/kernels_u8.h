/* The passes of resize_u8. Plain C like kernels_maps.h, which is included before. */

INLINE uint8_t clip8(int32_t v) {
  return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

INLINE void u8_across_of(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                         uint8_t *y) {
  int32_t half = 1 << (t->shift - 1);
  for (int32_t o = 0; o < out; o++, y += channels) {
    const int32_t *w = t->fixed + (int64_t)o * t->stride;
    const uint8_t *from = x + (int64_t)t->first[o] * channels;
    int32_t sum[4] = {half, half, half, half};
    for (int32_t k = 0; k < t->count[o]; k++, from += channels)
      for (int32_t c = 0; c < channels; c++) sum[c] += w[k] * from[c];
    for (int32_t c = 0; c < channels; c++) y[c] = clip8(sum[c] >> t->shift);
  }
}

static void u8_across_kernel(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                             uint8_t *y) {
  if (channels == 3) {
    u8_across_of(t, x, out, 3, y);
  } else if (channels == 1) {
    u8_across_of(t, x, out, 1, y);
  } else {
    int32_t half = 1 << (t->shift - 1);
    for (int32_t o = 0; o < out; o++)
      for (int32_t c = 0; c < channels; c++) {
        int32_t sum = half;
        for (int32_t k = 0; k < t->count[o]; k++)
          sum +=
              t->fixed[(int64_t)o * t->stride + k] * x[(int64_t)(t->first[o] + k) * channels + c];
        y[(int64_t)o * channels + c] = clip8(sum >> t->shift);
      }
  }
}

enum { U8_BLOCK = 512 };

static void u8_down_kernel(const viv__taps *t, int32_t o, const uint8_t *x, int64_t stride,
                           int64_t n, uint8_t *y) {
  const int32_t *w = t->fixed + (int64_t)o * t->stride;
  for (int64_t at = 0; at < n; at += U8_BLOCK) {
    int32_t sum[U8_BLOCK];
    int64_t len = viv__min(U8_BLOCK, n - at);
    for (int64_t i = 0; i < len; i++) sum[i] = 1 << (t->shift - 1);
    for (int32_t k = 0; k < t->count[o]; k++) {
      const uint8_t *from = x + k * stride + at;
      int32_t weight = w[k];
      for (int64_t i = 0; i < len; i++) sum[i] += weight * from[i];
    }
    for (int64_t i = 0; i < len; i++) y[at + i] = clip8(sum[i] >> t->shift);
  }
}

static void real_across_kernel(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                               float *y) {
  for (int32_t o = 0; o < out; o++)
    for (int32_t c = 0; c < channels; c++) {
      const float *w = t->real + (int64_t)o * t->stride;
      const uint8_t *from = x + (int64_t)t->first[o] * channels + c;
      float sum = w[0] * from[0];
      for (int32_t k = 1; k < t->count[o]; k++) sum += w[k] * from[(int64_t)k * channels];
      *y++ = sum;
    }
}

static void real_down_kernel(const viv__taps *t, int32_t o, const float *x, int64_t stride,
                             int64_t n, uint8_t *y) {
  const float *w = t->real + (int64_t)o * t->stride;
  for (int64_t at = 0; at < n; at += U8_BLOCK) {
    float sum[U8_BLOCK];
    int64_t len = viv__min(U8_BLOCK, n - at);
    for (int64_t i = 0; i < len; i++) sum[i] = w[0] * x[at + i];
    for (int32_t k = 1; k < t->count[o]; k++) {
      const float *from = x + k * stride + at;
      for (int64_t i = 0; i < len; i++) sum[i] += w[k] * from[i];
    }
    /* Adding 1.5 * 2^23 leaves whole numbers, rounded half to even. */
    for (int64_t i = 0; i < len; i++) {
      float v = sum[i] > 0 ? sum[i] < 255 ? sum[i] : 255 : 0;
      y[at + i] = (uint8_t)(int32_t)((v + 0x1.8p23f) - 0x1.8p23f);
    }
  }
}

static void cv_across_kernel(const viv__taps *t, const uint8_t *x, int32_t out, int32_t channels,
                             int32_t *y) {
  for (int32_t o = 0; o < out; o++) {
    const uint8_t *a = x + (int64_t)t->first[o] * channels, *b = a + (t->count[o] - 1) * channels;
    for (int32_t c = 0; c < channels; c++)
      *y++ = t->fixed[2 * o] * a[c] + t->fixed[2 * o + 1] * b[c];
  }
}

static void cv_down_kernel(const viv__taps *t, int32_t o, const int32_t *a, const int32_t *b,
                           int64_t n, uint8_t *y) {
  int32_t wa = t->fixed[2 * o], wb = t->fixed[2 * o + 1];
  for (int64_t i = 0; i < n; i++)
    y[i] = clip8((((wa * (a[i] >> 4)) >> 16) + ((wb * (b[i] >> 4)) >> 16) + 2) >> 2);
}
