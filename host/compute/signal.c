/* Short-time Fourier transforms. Thirty-two frames go through one complex transform of any length:
 * sixteen lanes, two real frames in each as its real and imaginary part. Memory for a thread's batch is
 * taken for the call; should there be none, the sums are made as they stand in the definition. */
#include "compute/internal.h"
#include "compute/ops.h"

#include <math.h>
#include <string.h>

enum { BATCH = 2 * VIV__FFT_LANES, SEGMENT_FRAMES = 96 };

#define TWO_PI 6.283185307179586476925

static void fill_turn(int64_t n, float *turn) {
  for (int64_t k = 0; k < n; k++) {
    turn[2 * k] = (float)cos(TWO_PI * (double)k / (double)n);
    turn[2 * k + 1] = (float)-sin(TWO_PI * (double)k / (double)n);
  }
}

/* A thread's floats: two transforms, and for istft 32 frames and a segment's sums. */
static float *piece_at(float *memory, int64_t floats, int64_t piece) {
  return memory + piece * floats;
}

static float *aligned(char *memory) {
  return (float *)(void *)(memory + (64 - (uintptr_t)memory % 64) % 64);
}

/* ---- stft ---- */

struct stft {
  const viv_stft *a;
  const viv__ops *ops;
  float *turn, *memory;
  int64_t floats; /* of a piece */
  int64_t items, pieces;
};

/* Frames [first, first + n) of a row, n up to BATCH. */
static void stft_batch(const struct stft *s, const float *row, int64_t first, int64_t n, float *out,
                       float *x) {
  const viv_stft *a = s->a;
  int64_t size = (int64_t)a->n_fft * 2 * VIV__FFT_LANES, bins = a->n_fft / 2 + 1;
  float *y = x + size, *tail = y + size;
  if (n == BATCH) {
    for (int32_t part = 0; part < 2; part++)
      s->ops->frames_in(row + (first + part) * a->hop, 2 * (int64_t)a->hop, a->n_fft, a->window,
                        part, x);
    s->ops->spectra_out(s->ops->fft(a->n_fft, s->turn, x, y), a->n_fft, out, 2 * bins);
    return;
  }
  memset(x, 0, (size_t)size * sizeof *x);
  for (int64_t f = 0; f < n; f++)
    for (int64_t j = 0; j < a->n_fft; j++)
      x[(j * 2 + f % 2) * VIV__FFT_LANES + f / 2] =
          row[(first + f) * a->hop + j] * (a->window ? a->window[j] : 1.0f);
  s->ops->spectra_out(s->ops->fft(a->n_fft, s->turn, x, y), a->n_fft, tail, 2 * bins);
  memcpy(out, tail, (size_t)(n * 2 * bins) * sizeof *out);
}

static void stft_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct stft *s = ctx;
  const viv_stft *a = s->a;
  int64_t batches = (a->frames + BATCH - 1) / BATCH, bins = a->n_fft / 2 + 1;
  for (int64_t piece = begin; piece < end; piece++)
    for (int64_t i = s->items * piece / s->pieces; i < s->items * (piece + 1) / s->pieces; i++) {
      int64_t row = i / batches, first = i % batches * BATCH;
      stft_batch(s, a->x + row * a->samples, first, viv__min(BATCH, a->frames - first),
                 a->out + (row * a->frames + first) * 2 * bins,
                 piece_at(s->memory, s->floats, piece));
    }
}

/* The definition, without any memory. */
static void stft_direct(void *ctx, int64_t begin, int64_t end) {
  const struct stft *s = ctx;
  const viv_stft *a = s->a;
  int64_t n = a->n_fft, bins = n / 2 + 1;
  for (int64_t f = begin; f < end; f++) {
    const float *x = a->x + f / a->frames * a->samples + f % a->frames * a->hop;
    for (int64_t k = 0; k < bins; k++) {
      double re = 0, im = 0;
      for (int64_t j = 0; j < n; j++) {
        double v = (double)x[j] * (a->window ? (double)a->window[j] : 1);
        double angle = TWO_PI * (double)(j * k % n) / (double)n;
        re += v * cos(angle);
        im -= v * sin(angle);
      }
      a->out[(f * bins + k) * 2] = (float)re;
      a->out[(f * bins + k) * 2 + 1] = (float)im;
    }
  }
}

static void stft(const viv_compute *c, const viv_stft *a) {
  struct stft s = {.a = a, .ops = viv__compute_of(c)->kernels->ops};
  int64_t n = a->n_fft;
  s.items = a->rows * ((a->frames + BATCH - 1) / BATCH);
  s.pieces = viv__min(c->threads, s.items);
  if (s.items < 1) return;
  s.floats = (4 * n * VIV__FFT_LANES + BATCH * 2 * (n / 2 + 1) + 15) / 16 * 16;
  char *memory = viv__malloc((size_t)(s.pieces * s.floats + 2 * n) * sizeof(float) + 64);
  if (!memory) {
    viv__parallel(c, a->rows * a->frames, 1, stft_direct, &s);
    return;
  }
  s.memory = aligned(memory);
  s.turn = s.memory + s.pieces * s.floats;
  fill_turn(n, s.turn);
  viv__parallel(c, s.pieces, 1, stft_pieces, &s);
  viv__free(memory);
}

/* ---- istft ---- */

struct istft {
  const viv__ops *ops;
  int64_t n, hop, frames, rows, length;
  const float *window, *spectrum;
  float *out, *turn, *memory;
  int64_t floats, items, pieces;
  int64_t segment; /* samples of an item */
};

/* The pairs' transforms from half spectra, real and imaginary parts exchanged for the inverse.
 * Frames beyond n_frames are silent. */
static void spectra_in(const struct istft *s, const float *spectrum, int64_t n_frames, float *x) {
  int64_t n = s->n, bins = n / 2 + 1;
  for (int64_t k = 0; k < bins; k++) {
    bool real = k == 0 || 2 * k == n; /* bins whose imaginary part has no meaning */
    float *at = x + k * 2 * VIV__FFT_LANES, *mirror = x + (n - k) * 2 * VIV__FFT_LANES;
    for (int64_t l = 0; l < VIV__FFT_LANES; l++) {
      const float *a = spectrum + (2 * l * bins + k) * 2, *b = a + 2 * bins;
      bool even = 2 * l < n_frames, odd = 2 * l + 1 < n_frames;
      float ar = even ? a[0] : 0, ai = even && !real ? a[1] : 0;
      float br = odd ? b[0] : 0, bi = odd && !real ? b[1] : 0;
      at[l] = ai + br;
      at[VIV__FFT_LANES + l] = ar - bi;
      if (real) continue;
      mirror[l] = br - ai;
      mirror[VIV__FFT_LANES + l] = ar + bi;
    }
  }
}

/* out [begin, end) of a row from all the frames that reach into it, in their order. */
static void istft_segment(const struct istft *s, const float *spectrum, int64_t begin, int64_t end,
                          float *out, float *memory) {
  int64_t n = s->n, size = n * 2 * VIV__FFT_LANES;
  float *x = memory, *y = x + size, *frames = y + size, *weight = frames + BATCH * n;
  int64_t first = begin < n ? 0 : (begin - n) / s->hop + 1;
  int64_t last = viv__min((end - 1) / s->hop + 1, s->frames);
  memset(out, 0, (size_t)(end - begin) * sizeof *out);
  memset(weight, 0, (size_t)(end - begin) * sizeof *weight);
  for (int64_t f = first; f < last; f += BATCH) {
    int64_t some = viv__min(BATCH, last - f);
    spectra_in(s, spectrum + f * (n / 2 + 1) * 2, some, x);
    const float *z = s->ops->fft(n, s->turn, x, y);
    for (int32_t part = 0; part < 2; part++) /* exchanged: the even frames are in part 1 */
      s->ops->frames_out(z, n, 1 - part, 1.0f / (float)n, frames + part * VIV__FFT_LANES * n);
    for (int64_t i = 0; i < some; i++) {
      const float *frame = frames + (i % 2 * VIV__FFT_LANES + i / 2) * n;
      int64_t start = (f + i) * s->hop, from = viv__max(begin, start);
      int64_t to = viv__min(end, start + n);
      for (int64_t t = from; t < to; t++) {
        float w = s->window ? s->window[t - start] : 1.0f;
        out[t - begin] += frame[t - start] * w;
        weight[t - begin] += w * w;
      }
    }
  }
  for (int64_t t = 0; t < end - begin; t++)
    if (weight[t] > 1e-11f) out[t] /= weight[t];
}

static void istft_pieces(void *ctx, int64_t begin, int64_t end) {
  const struct istft *s = ctx;
  int64_t segments = (s->length + s->segment - 1) / s->segment;
  for (int64_t piece = begin; piece < end; piece++)
    for (int64_t i = s->items * piece / s->pieces; i < s->items * (piece + 1) / s->pieces; i++) {
      int64_t row = i / segments, at = i % segments * s->segment;
      istft_segment(s, s->spectrum + row * s->frames * (s->n / 2 + 1) * 2, at,
                    viv__min(at + s->segment, s->length), s->out + row * s->length + at,
                    piece_at(s->memory, s->floats, piece));
    }
}

/* Samples [begin, end) of all rows by the definition. */
static void istft_direct(void *ctx, int64_t begin, int64_t end) {
  const struct istft *s = ctx;
  int64_t n = s->n, bins = n / 2 + 1;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / s->length, t = i % s->length;
    double sum = 0, weight = 0;
    for (int64_t f = t < n ? 0 : (t - n) / s->hop + 1; f < s->frames && f * s->hop <= t; f++) {
      int64_t j = t - f * s->hop;
      const float *bin = s->spectrum + (row * s->frames + f) * bins * 2;
      double w = s->window ? (double)s->window[j] : 1, value = (double)bin[0];
      for (int64_t k = 1; k < bins; k++) {
        double angle = TWO_PI * (double)(j * k % n) / (double)n;
        bool middle = 2 * k == n;
        value += (middle ? 1 : 2) * (double)bin[2 * k] * cos(angle);
        if (!middle) value -= 2 * (double)bin[2 * k + 1] * sin(angle);
      }
      sum += value / (double)n * w;
      weight += w * w;
    }
    s->out[i] = (float)(weight > 1e-11 ? sum / weight : sum);
  }
}

static void istft(const viv_compute *c, int32_t n_fft, int32_t hop, const float *window,
                  const float *spectrum, int64_t rows, int64_t frames, float *out) {
  struct istft s = {.ops = viv__compute_of(c)->kernels->ops,
                    .n = n_fft,
                    .hop = hop,
                    .frames = frames,
                    .rows = rows,
                    .length = n_fft + (int64_t)hop * (frames - 1),
                    .window = window,
                    .spectrum = spectrum,
                    .out = out};
  if (frames < 1 || rows < 1) return;
  s.segment = viv__max((int64_t)hop * SEGMENT_FRAMES, n_fft);
  s.items = rows * ((s.length + s.segment - 1) / s.segment);
  s.pieces = viv__min(c->threads, s.items);
  s.floats = (4 * s.n * VIV__FFT_LANES + BATCH * s.n + s.segment + 15) / 16 * 16;
  char *memory = viv__malloc((size_t)(s.pieces * s.floats + 2 * s.n) * sizeof(float) + 64);
  if (!memory) {
    viv__parallel(c, rows * s.length, 1, istft_direct, &s);
    return;
  }
  s.memory = aligned(memory);
  s.turn = s.memory + s.pieces * s.floats;
  fill_turn(s.n, s.turn);
  viv__parallel(c, s.pieces, 1, istft_pieces, &s);
  viv__free(memory);
}

void viv__table_signal(viv_compute *t) {
  t->stft = stft;
  t->istft = istft;
}
