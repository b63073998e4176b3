/* Kernels over layouts and channels: permute, group_norm, snake. Plain C like kernels_maps.h, which
 * is included before. */

/* ---- permute ---- */

/* Turning a square of L x L: log2 L rounds that interleave row i with row i + L/2. */
#if TURN_LANES == 16
typedef v16 turned;
typedef int32_t turned_index __attribute__((vector_size(64)));
#define TURN_LOW                                                                                   \
  { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23 }
#define TURN_HIGH                                                                                  \
  { 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 }
#elif TURN_LANES == 8
typedef float turned __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t turned_index __attribute__((vector_size(32)));
#define TURN_LOW                                                                                   \
  { 0, 8, 1, 9, 2, 10, 3, 11 }
#define TURN_HIGH                                                                                  \
  { 4, 12, 5, 13, 6, 14, 7, 15 }
#else
typedef float turned __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t turned_index __attribute__((vector_size(16)));
#define TURN_LOW                                                                                   \
  { 0, 4, 1, 5 }
#define TURN_HIGH                                                                                  \
  { 2, 6, 3, 7 }
#endif

INLINE void turn_square(const float *x, int64_t x_stride, float *y, int64_t y_stride) {
  const turned_index low = TURN_LOW, high = TURN_HIGH;
  turned row[TURN_LANES], next[TURN_LANES];
  for (int i = 0; i < TURN_LANES; i++) row[i] = *(const turned *)(x + i * x_stride);
#pragma GCC unroll 4
  for (int round = 1; round < TURN_LANES; round *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < TURN_LANES / 2; i++) {
      next[2 * i] = __builtin_shuffle(row[i], row[i + TURN_LANES / 2], low);
      next[2 * i + 1] = __builtin_shuffle(row[i], row[i + TURN_LANES / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < TURN_LANES; i++) row[i] = next[i];
  }
  for (int i = 0; i < TURN_LANES; i++) *(turned *)(y + i * y_stride) = row[i];
}

/* y[i * y_stride + j] = x[i + j * x_stride] for 16 x 16 elements. */
static void turn_block(const float *x, int64_t x_stride, float *y, int64_t y_stride) {
  for (int j = 0; j < 16; j += TURN_LANES)
    for (int i = 0; i < 16; i += TURN_LANES)
      turn_square(x + j * x_stride + i, x_stride, y + i * y_stride + j, y_stride);
}

/* One slice: y's last axis (n elements, x_stride apart in x) and the axis that is dense in x. */
static void turn_slice(const float *x, int64_t x_stride, int64_t n, float *y, int64_t y_stride,
                       int64_t m) {
  for (int64_t j = 0; j < n; j += 16)
    for (int64_t i = 0; i < m; i += 16) {
      if (j + 16 <= n && i + 16 <= m) {
        turn_block(x + j * x_stride + i, x_stride, y + i * y_stride + j, y_stride);
        continue;
      }
      for (int64_t a = i; a < viv__min(i + 16, m); a++)
        for (int64_t b = j; b < viv__min(j + 16, n); b++) y[a * y_stride + b] = x[b * x_stride + a];
    }
}

static void permute_kernel(const viv__permute *p, int64_t begin, int64_t end) {
  int32_t last = p->ndim - 1, fast = p->fast;
  for (int64_t slice = begin; slice < end; slice++) {
    int64_t rest = slice, from = 0, to = 0;
    for (int32_t i = last - 1; i >= 0; i--) {
      if (i == fast) continue;
      int64_t at = rest % p->size[i];
      rest /= p->size[i];
      from += at * p->x_stride[i];
      to += at * p->y_stride[i];
    }
    if (fast == last)
      memcpy(p->y + to, p->x + from, (size_t)p->size[last] * sizeof(float));
    else
      turn_slice(p->x + from, p->x_stride[last], p->size[last], p->y + to, p->y_stride[fast],
                 p->size[fast]);
  }
}

/* ---- group_norm ---- */

/* The sum of x - shift, or of its squares, over n elements: 16 sums side by side over blocks that f32
 * adds up without harm, the blocks in double. */
static double sum_about(const float *x, int64_t n, float shift, bool squares) {
  double total = 0;
  for (int64_t at = 0; at < n; at += 4096) {
    int64_t len = viv__min(4096, n - at), i = 0;
    v16 sum[2] = {{0}, {0}};
    for (; i + 32 <= len; i += 32)
      for (int k = 0; k < 2; k++) {
        v16 d = *(const v16 *)(x + at + i + 16 * k) - shift;
        if (squares) d *= d;
        sum[k] += d;
      }
    float rest = 0;
    for (; i < len; i++) {
      float d = x[at + i] - shift;
      rest += squares ? d * d : d;
    }
    for (int k = 0; k < 16; k++) total += (double)(sum[0][k] + sum[1][k]);
    total += (double)rest;
  }
  return total;
}

static void norm_planes(const viv__group_norm *a, int64_t g) {
  int64_t in_group = a->channels / a->groups, n = in_group * a->space;
  int64_t first = g % a->groups * in_group;
  const float *x = a->x + g * n;
  float *y = a->y + g * n;
  /* Around the first element, so that a large mean costs no digits. */
  float mean = (float)((double)x[0] + sum_about(x, n, x[0], false) / (double)n);
  double squares = sum_about(x, n, mean, true);
  float scale = (float)(1 / sqrt(squares / (double)n + (double)a->eps));
  for (int64_t c = first; c < first + in_group; c++, x += a->space, y += a->space) {
    float m = scale * (a->w ? a->w[c] : 1.0f), add = a->b ? a->b[c] : 0.0f;
    for (int64_t i = 0; i < a->space; i++) y[i] = (x[i] - mean) * m + add;
  }
}

/* Channels last: neighbouring groups at once, up to this many channels side by side. */
enum { NORM_CHANNELS = 256 };

/* total[c] = the sum over space of x[c] - shift[c], or of its squares, for n channels. */
static void sum_columns(const viv__group_norm *a, const float *x, int64_t n, const float *shift,
                        bool squares, double *total) {
  for (int64_t c = 0; c < n; c++) total[c] = 0;
  for (int64_t at = 0; at < a->space; at += 256) {
    float sum[NORM_CHANNELS] = {0};
    int64_t end = viv__min(at + 256, a->space);
    for (int64_t r = at; r < end; r++) {
      const float *row = x + r * a->channels;
      if (squares)
        for (int64_t c = 0; c < n; c++) sum[c] += (row[c] - shift[c]) * (row[c] - shift[c]);
      else
        for (int64_t c = 0; c < n; c++) sum[c] += row[c] - shift[c];
    }
    for (int64_t c = 0; c < n; c++) total[c] += (double)sum[c];
  }
}

/* The sums of the groups [first, last) of a picture: sum[group]. value [group] is what is taken off. */
static void sum_groups(const viv__group_norm *a, const float *x, int64_t first, int64_t last,
                       const float *value, bool squares, double *sum) {
  int64_t in_group = a->channels / a->groups, begin = first * in_group, end = last * in_group;
  float shift[NORM_CHANNELS];
  double total[NORM_CHANNELS];
  for (int64_t g = first; g < last; g++) sum[g - first] = 0;
  for (int64_t c = begin; c < end; c += NORM_CHANNELS) {
    int64_t n = viv__min(NORM_CHANNELS, end - c);
    for (int64_t i = 0; i < n; i++) shift[i] = value[(c + i) / in_group - first];
    sum_columns(a, x + c, n, shift, squares, total);
    for (int64_t i = 0; i < n; i++) sum[(c + i) / in_group - first] += total[i];
  }
}

/* Groups [first, last) of a picture: one, or as many as have NORM_CHANNELS channels together. */
static void norm_pixels(const viv__group_norm *a, int64_t batch, int64_t first, int64_t last) {
  int64_t in_group = a->channels / a->groups, begin = first * in_group, end = last * in_group;
  const float *x = a->x + batch * a->channels * a->space;
  float *y = a->y + batch * a->channels * a->space;
  float mean[NORM_CHANNELS], scale[NORM_CHANNELS], off[NORM_CHANNELS], m[NORM_CHANNELS];
  double sum[NORM_CHANNELS], n = (double)(in_group * a->space);
  for (int64_t g = first; g < last; g++) mean[g - first] = x[g * in_group];
  sum_groups(a, x, first, last, mean, false, sum);
  for (int64_t g = 0; g < last - first; g++) mean[g] = (float)((double)mean[g] + sum[g] / n);
  sum_groups(a, x, first, last, mean, true, sum);
  for (int64_t g = 0; g < last - first; g++)
    scale[g] = (float)(1 / sqrt(sum[g] / n + (double)a->eps));
  for (int64_t c = begin; c < end; c += NORM_CHANNELS) {
    int64_t some = viv__min(NORM_CHANNELS, end - c);
    float add[NORM_CHANNELS];
    for (int64_t i = 0; i < some; i++) {
      int64_t g = (c + i) / in_group - first;
      off[i] = mean[g];
      m[i] = scale[g] * (a->w ? a->w[c + i] : 1.0f);
      add[i] = a->b ? a->b[c + i] : 0.0f;
    }
    for (int64_t r = 0; r < a->space; r++) {
      const float *from = x + r * a->channels + c;
      float *to = y + r * a->channels + c;
      for (int64_t i = 0; i < some; i++) to[i] = (from[i] - off[i]) * m[i] + add[i];
    }
  }
}

static void group_norm_kernel(const viv__group_norm *a, int64_t begin, int64_t end) {
  int64_t together = viv__max(1, NORM_CHANNELS / (a->channels / a->groups));
  for (int64_t g = begin; g < end;) {
    if (a->layout != VIV_CHANNELS_LAST) {
      norm_planes(a, g++);
      continue;
    }
    int64_t batch = g / a->groups, stop = viv__min(end, (batch + 1) * a->groups);
    int64_t last = viv__min(g + together, stop);
    norm_pixels(a, batch, g - batch * a->groups, last - batch * a->groups);
    g = last;
  }
}

/* ---- snake ---- */

/* sin^2 has period pi: z = k pi + r, with pi in three parts whose products with k are exact for k
 * below 2^11 and good enough to 2^15; beyond that, libm. */
static float snake_far(float z) {
  double s = sin((double)z);
  return (float)(s * s);
}

static void snake_kernel(const viv__snake *a, int64_t begin, int64_t end) {
  const float limit = 1e5f, magic = 0x1.8p23f;
  for (int64_t row = begin; row < end; row++) {
    const float *x = a->x + row * a->n;
    float *y = a->y + row * a->n, alpha = a->alpha[row % a->channels];
    float scale = 1.0f / (alpha + 1e-9f);
    for (int64_t at = 0; at < a->n; at += 256) {
      int64_t n = viv__min(256, a->n - at);
      bool far = false;
      for (int64_t i = at; i < at + n; i++) far |= !(fabsf(alpha * x[i]) < limit);
      if (far) {
        for (int64_t i = at; i < at + n; i++) y[i] = x[i] + scale * snake_far(alpha * x[i]);
        continue;
      }
      for (int64_t i = at; i < at + n; i++) {
        float z = alpha * x[i];
        float k = (z * 0.318309886f + magic) - magic;
        float r = ((z - k * 3.140625f) - k * 9.67502593994140625e-4f) - k * 1.509957990978376e-7f;
        float q = r * r, p = -2.3889859e-8f;
        p = p * q + 2.7525562e-6f;
        p = p * q - 1.9840874e-4f;
        p = p * q + 8.3333310e-3f;
        p = p * q - 1.6666667e-1f;
        float s = r + r * q * p;
        y[i] = x[i] + scale * (s * s);
      }
    }
  }
}
