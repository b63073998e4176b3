/* Kernels of signals and of choosing: fft, top_k. Plain C like kernels_maps.h, which is included
 * before. */

/* ---- fft ---- */

/* Stockham's form, which needs no reordering: a stage of radix R takes
 *   y[q + s (R p + r)] = e^(-2 pi i p r / m R) sum_j x[q + s (p + m j)] e^(-2 pi i j r / R)
 * for p < m and q < s, and the next stage has n = m and s R in place of s. Every value stands for 16
 * transforms side by side. turn[k] = e^(-2 pi i k / n) of the whole length. */
struct fft_stage {
  int64_t n, m, s; /* the whole length; m R s = n */
  const float *turn;
};

#define AT(base, i) ((v16 *)((base) + (i)*2 * VIV__FFT_LANES))

INLINE void fft_put(const struct fft_stage *f, int64_t power, const v16 *re, const v16 *im,
                    float *y, int64_t to) {
  float c = f->turn[2 * power], s = f->turn[2 * power + 1];
  AT(y, to)[0] = *re * c - *im * s;
  AT(y, to)[1] = *re * s + *im * c;
}

static void fft_radix2(const struct fft_stage *f, const float *x, float *y) {
  for (int64_t p = 0; p < f->m; p++)
    for (int64_t q = 0; q < f->s; q++) {
      const v16 *a = AT((float *)(uintptr_t)x, q + f->s * p);
      const v16 *b = AT((float *)(uintptr_t)x, q + f->s * (p + f->m));
      v16 re = a[0] - b[0], im = a[1] - b[1];
      v16 *out = AT(y, q + f->s * 2 * p);
      out[0] = a[0] + b[0];
      out[1] = a[1] + b[1];
      fft_put(f, p * f->s, &re, &im, y, q + f->s * (2 * p + 1));
    }
}

static void fft_radix4(const struct fft_stage *f, const float *x, float *y) {
  for (int64_t p = 0; p < f->m; p++)
    for (int64_t q = 0; q < f->s; q++) {
      const float *from = x + (q + f->s * p) * 2 * VIV__FFT_LANES;
      int64_t step = f->s * f->m * 2 * VIV__FFT_LANES;
      const v16 *a = (const v16 *)from, *b = (const v16 *)(from + step);
      const v16 *c = (const v16 *)(from + 2 * step), *d = (const v16 *)(from + 3 * step);
      v16 acr = a[0] + c[0], aci = a[1] + c[1], bdr = b[0] + d[0], bdi = b[1] + d[1];
      v16 sr = a[0] - c[0], si = a[1] - c[1], tr = b[0] - d[0], ti = b[1] - d[1];
      int64_t to = q + f->s * 4 * p;
      v16 *out = AT(y, to);
      out[0] = acr + bdr;
      out[1] = aci + bdi;
      v16 re = sr + ti, im = si - tr;
      fft_put(f, p * f->s, &re, &im, y, to + f->s);
      re = acr - bdr;
      im = aci - bdi;
      fft_put(f, 2 * p * f->s, &re, &im, y, to + 2 * f->s);
      re = sr - ti;
      im = si + tr;
      fft_put(f, 3 * p * f->s, &re, &im, y, to + 3 * f->s);
    }
}

/* An odd radix: pairs j and R - j share their products with cosines and sines. */
INLINE void fft_odd(const struct fft_stage *f, int64_t radix, const float *x, float *y) {
  int64_t half = radix / 2, around = f->n / radix; /* e^(-2 pi i / radix) is turn[around] */
  for (int64_t p = 0; p < f->m; p++)
    for (int64_t q = 0; q < f->s; q++) {
      const float *from = x + (q + f->s * p) * 2 * VIV__FFT_LANES;
      int64_t step = f->s * f->m * 2 * VIV__FFT_LANES, to = q + f->s * radix * p;
      const v16 *first = (const v16 *)from;
      v16 sum_re = first[0], sum_im = first[1];
      for (int64_t j = 1; j < radix; j++) {
        const v16 *a = (const v16 *)(from + j * step);
        sum_re += a[0];
        sum_im += a[1];
      }
      AT(y, to)[0] = sum_re;
      AT(y, to)[1] = sum_im;
      for (int64_t r = 1; r <= half; r++) {
        v16 even_re = first[0], even_im = first[1], odd_re = {0}, odd_im = {0};
        for (int64_t j = 1; j <= half; j++) {
          const v16 *a = (const v16 *)(from + j * step);
          const v16 *b = (const v16 *)(from + (radix - j) * step);
          const float *w = f->turn + 2 * (j * r % radix * around);
          even_re += (a[0] + b[0]) * w[0];
          even_im += (a[1] + b[1]) * w[0];
          odd_re += (a[1] - b[1]) * w[1];
          odd_im += (a[0] - b[0]) * w[1];
        }
        v16 re = even_re - odd_re, im = even_im + odd_im;
        fft_put(f, p * r * f->s, &re, &im, y, to + f->s * r);
        re = even_re + odd_re;
        im = even_im - odd_im;
        fft_put(f, p * (radix - r) * f->s, &re, &im, y, to + f->s * (radix - r));
      }
    }
}

static float *fft_kernel(int64_t n, const float *turn, float *x, float *y) {
  struct fft_stage f = {.n = n, .s = 1, .turn = turn};
  for (int64_t left = n; left > 1;) {
    int64_t radix = left % 4 == 0 ? 4 : left % 2 == 0 ? 2 : 3;
    while (left % radix) radix = radix * radix > left ? left : radix + 2;
    f.m = left / radix;
    if (radix == 4)
      fft_radix4(&f, x, y);
    else if (radix == 2)
      fft_radix2(&f, x, y);
    else if (radix == 3)
      fft_odd(&f, 3, x, y);
    else if (radix == 5)
      fft_odd(&f, 5, x, y);
    else
      fft_odd(&f, radix, x, y);
    left = f.m;
    f.s *= radix;
    float *swap = x;
    x = y;
    y = swap;
  }
  return x;
}
#undef AT

/* 16 frames of `length` samples, `stride` apart, to x[j][part] times the window. */
static void frames_in_kernel(const float *frames, int64_t stride, int64_t length,
                             const float *window, int32_t part, float *x) {
  float block[16 * 16];
  for (int64_t at = 0; at < length; at += 16) {
    int64_t n = viv__min(16, length - at);
    if (n == 16)
      turn_block(frames + at, stride, block, 16);
    else
      for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < 16; l++) block[i * 16 + l] = frames[l * stride + at + i];
    for (int64_t i = 0; i < n; i++) {
      v16 *to = (v16 *)(x + ((at + i) * 2 + part) * VIV__FFT_LANES);
      *to = *(const v16 *)(block + i * 16) * (window ? window[at + i] : 1.0f);
    }
  }
}

/* Half spectra of 2 x 16 real frames out of the transform z of their pairs. Frames of the even (the
 * real part's) and the odd ones are 2 * stride apart. */
static void spectra_out_kernel(const float *z, int64_t n, float *out, int64_t stride) {
  int64_t bins = n / 2 + 1;
  float even[16 * 16], odd[16 * 16];
  for (int64_t at = 0; at < bins; at += 8) {
    int64_t some = viv__min(8, bins - at);
    for (int64_t i = 0; i < some; i++) {
      int64_t k = at + i, mirror = k ? n - k : 0;
      const v16 *a = (const v16 *)(z + k * 2 * VIV__FFT_LANES);
      const v16 *b = (const v16 *)(z + mirror * 2 * VIV__FFT_LANES);
      *(v16 *)(even + 32 * i) = (a[0] + b[0]) * 0.5f;
      *(v16 *)(even + 32 * i + 16) = (a[1] - b[1]) * 0.5f;
      *(v16 *)(odd + 32 * i) = (a[1] + b[1]) * 0.5f;
      *(v16 *)(odd + 32 * i + 16) = (b[0] - a[0]) * 0.5f;
    }
    float *to = out + 2 * at;
    if (some == 8) {
      turn_block(even, 16, to, 2 * stride);
      turn_block(odd, 16, to + stride, 2 * stride);
      continue;
    }
    for (int64_t l = 0; l < 16; l++)
      for (int64_t i = 0; i < 2 * some; i++) {
        to[2 * l * stride + i] = even[16 * i + l];
        to[(2 * l + 1) * stride + i] = odd[16 * i + l];
      }
  }
}

/* y[16][n] = the part of x as rows, times scale. */
static void frames_out_kernel(const float *x, int64_t n, int32_t part, float scale, float *y) {
  for (int64_t at = 0; at < n; at += 16) {
    int64_t some = viv__min(16, n - at);
    if (some == 16) turn_block(x + (at * 2 + part) * VIV__FFT_LANES, 2 * VIV__FFT_LANES, y + at, n);
    for (int64_t i = 0; some < 16 && i < some; i++)
      for (int64_t l = 0; l < 16; l++)
        y[l * n + at + i] = x[((at + i) * 2 + part) * VIV__FFT_LANES + l];
  }
  for (int64_t i = 0; i < 16 * n; i++) y[i] *= scale;
}

/* ---- top_k ---- */

/* Whether element a stands before b: the larger, NaN the largest, the lower index among equals. */
INLINE bool before(const float *x, int32_t a, int32_t b) {
  bool nan_a = x[a] != x[a], nan_b = x[b] != x[b];
  if (nan_a || nan_b) return nan_a && (!nan_b || a < b);
  return x[a] > x[b] || (x[a] == x[b] && a < b);
}

/* heap [k]: the root is the last of those kept. */
static void heap_down(const float *x, int32_t *heap, int64_t k, int64_t at) {
  int32_t moved = heap[at];
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= k) break;
    if (child + 1 < k && before(x, heap[child], heap[child + 1])) child++;
    if (before(x, heap[child], moved)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moved;
}

static void top_k_kernel(const float *x, int64_t n, int64_t k, float *values, int32_t *indices) {
  if (k < 1) return;
  for (int64_t i = 0; i < k; i++) indices[i] = (int32_t)i;
  for (int64_t i = k / 2; i-- > 0;) heap_down(x, indices, k, i);
  for (int64_t at = k; at < n; at += 64) {
    int64_t end = viv__min(at + 64, n);
    float last = x[indices[0]];
    if (last != last) break; /* NaN all over */
    int32_t any = 0;
    for (int64_t i = at; i < end; i++) any |= !(x[i] <= last);
    for (int64_t i = at; any && i < end; i++)
      if (before(x, (int32_t)i, indices[0])) {
        indices[0] = (int32_t)i;
        heap_down(x, indices, k, 0);
      }
  }
  for (int64_t left = k - 1; left > 0; left--) {
    int32_t last = indices[0];
    indices[0] = indices[left];
    indices[left] = last;
    heap_down(x, indices, left, 0);
  }
  for (int64_t i = 0; values && i < k; i++) values[i] = x[indices[i]];
}
