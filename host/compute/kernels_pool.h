/* Pooling in plain C, which the compiler turns into each set's instructions. Part of kernels_impl.h
 * and of kernels_portable.c. */

static inline float larger(float a, float b) { /* a NaN wins */
  return b > a || b != b ? b : a;
}

/* One tap of one row of n outputs; step is the stride in x. */
static void pool_tap(int32_t kind, const float *x, int64_t step, int64_t channels, int64_t n,
                     float *out) {
  if (channels == 1 && step == 1) {
    channels = n;
    n = 1;
  }
  if (channels == 1) {
    if (kind == VIV_POOL_MAX)
      for (int64_t i = 0; i < n; i++) out[i] = larger(out[i], x[i * step]);
    else
      for (int64_t i = 0; i < n; i++) out[i] += x[i * step];
    return;
  }
  for (int64_t i = 0; i < n; i++, x += step * channels, out += channels) {
    if (kind == VIV_POOL_MAX)
      for (int64_t c = 0; c < channels; c++) out[c] = larger(out[c], x[c]);
    else
      for (int64_t c = 0; c < channels; c++) out[c] += x[c];
  }
}

static void pool_rows(const viv__pool_pass *p, int64_t begin, int64_t end) {
  int64_t width = p->out[2], channels = p->channels;
  for (int64_t row = begin; row < end; row++) {
    int64_t o1 = row % p->out[1], o0 = row / p->out[1] % p->out[0];
    const float *image =
        p->x + row / p->out[1] / p->out[0] * p->size[0] * p->size[1] * p->size[2] * channels;
    float *out = p->to + row * width * channels;
    float start = p->kind == VIV_POOL_MAX ? -__builtin_inff() : 0.0f;
    for (int64_t i = 0; i < width * channels; i++) out[i] = start;
    int64_t at[2] = {o0 * p->stride[0] - p->pad[0], o1 * p->stride[1] - p->pad[1]};
    int64_t hits = 0, counted[2] = {0, 0}; /* taps that count where padding does */
    for (int i = 0; i < 2; i++)
      for (int64_t k = 0; k < p->kernel[i]; k++)
        counted[i] += at[i] + k * p->dilation[i] < p->size[i] + p->pad_end[i];
    for (int64_t k0 = 0; k0 < p->kernel[0]; k0++) {
      int64_t i0 = at[0] + k0 * p->dilation[0];
      if (i0 < 0 || i0 >= p->size[0]) continue;
      for (int64_t k1 = 0; k1 < p->kernel[1]; k1++) {
        int64_t i1 = at[1] + k1 * p->dilation[1];
        if (i1 < 0 || i1 >= p->size[1]) continue;
        hits++;
        const float *line = image + (i0 * p->size[1] + i1) * p->size[2] * channels;
        for (int64_t k2 = 0; k2 < p->kernel[2]; k2++) {
          int64_t shift = k2 * p->dilation[2] - p->pad[2];
          int64_t first = shift < 0 ? (-shift + p->stride[2] - 1) / p->stride[2] : 0;
          int64_t stop = p->size[2] > shift ? (p->size[2] - 1 - shift) / p->stride[2] + 1 : 0;
          stop = viv__min(stop, width);
          if (first < stop)
            pool_tap(p->kind, line + (first * p->stride[2] + shift) * channels, p->stride[2],
                     channels, stop - first, out + first * channels);
        }
      }
    }
    if (p->kind == VIV_POOL_MAX) continue;
    for (int64_t o = 0; o < width; o++) {
      int64_t taps = 0;
      for (int64_t k = 0; k < p->kernel[2]; k++) {
        int64_t i = o * p->stride[2] - p->pad[2] + k * p->dilation[2];
        taps += p->count_pad ? i < p->size[2] + p->pad_end[2] : i >= 0 && i < p->size[2];
      }
      taps *= p->count_pad ? counted[0] * counted[1] : hits;
      float scale = taps ? 1.0f / (float)taps : 0.0f;
      for (int64_t c = 0; c < channels; c++) out[o * channels + c] *= scale;
    }
  }
}
