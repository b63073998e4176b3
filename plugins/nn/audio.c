/* Windows, padding, mel filter banks and Whisper's log-mel. */
#include "nn/audio.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* ---- windows ---- */

void nn_window_fill(enum nn_window kind, bool periodic, double blackman, int64_t n, float *out) {
  double step = 2 * PI / (double)(periodic ? n : n > 1 ? n - 1 : 1);
  for (int64_t i = 0; i < n; i++) {
    double at = cos(step * (double)i), hann = 0.5 - 0.5 * at, w = 1;
    if (kind == NN_WINDOW_HANN) w = hann;
    if (kind == NN_WINDOW_HAMMING) w = 0.54 - 0.46 * at;
    if (kind == NN_WINDOW_POVEY) w = pow(hann, 0.85);
    if (kind == NN_WINDOW_BLACKMAN)
      w = blackman - 0.5 * at + (0.5 - blackman) * cos(2 * step * (double)i);
    out[i] = (float)w;
  }
}

int32_t nn_window_named(viv_str name) {
  static const char *const names[] = {"hanning", "hamming", "povey", "blackman", "rectangular"};
  for (int32_t i = 0; i < 5; i++)
    if (nn_is(name, names[i])) return i + 1;
  return 0;
}

/* ---- padding ---- */

void nn_pad_signal(const float *x, int64_t n, int64_t left, int64_t right, enum viv_pad mode,
                   float *y) {
  int64_t wide = left > right ? left : right;
  int64_t length = mode == VIV_PAD_REFLECT && n <= wide ? wide + 1 : n; /* with zeros appended */
  for (int64_t i = -left; i < n + right; i++) {
    int64_t at = i;
    if (mode == VIV_PAD_REFLECT && (i < 0 || i >= n)) {
      if (at < 0) at = -at;
      if (at >= length) at = 2 * (length - 1) - at;
    } else if (mode == VIV_PAD_REPLICATE) {
      at = i < 0 ? 0 : i >= n ? n - 1 : i;
    } else if (mode == VIV_PAD_CIRCULAR) {
      at = (i % n + n) % n;
    }
    y[i + left] = at >= 0 && at < n ? x[at] : 0.0f;
  }
}

/* ---- mel ---- */

static double to_mel(enum nn_mel_scale scale, double hz) {
  switch (scale) {
  case NN_MEL_HTK:
    return 2595 * log10(1 + hz / 700);
  case NN_MEL_KALDI:
    return 1127 * log(1 + hz / 700);
  default:
    return hz < 1000 ? 3 * hz / 200 : 15 + log(hz / 1000) * (27 / log(6.4));
  }
}

static double to_hz(enum nn_mel_scale scale, double mel) {
  switch (scale) {
  case NN_MEL_HTK:
    return 700 * (pow(10, mel / 2595) - 1);
  case NN_MEL_KALDI:
    return 700 * (exp(mel / 1127) - 1);
  default:
    return mel < 15 ? 200 * mel / 3 : 1000 * exp(log(6.4) / 27 * (mel - 15));
  }
}

/* Edge i of mels + 2. */
static double edge(const nn_mel *m, int64_t i) {
  double low = to_mel(m->scale, m->low), high = to_mel(m->scale, m->high);
  double mel = i == m->mels + 1 ? high : low + (double)i * ((high - low) / (double)(m->mels + 1));
  return m->in_mel ? mel : to_hz(m->scale, mel);
}

static double mel_weight(const nn_mel *m, const double *edges, int64_t bin) {
  double hz = (double)bin * m->bin_width, at = m->in_mel ? to_mel(m->scale, hz) : hz;
  double up = (at - edges[0]) / (edges[1] - edges[0]);
  double down = (edges[2] - at) / (edges[2] - edges[1]);
  double w = up < down ? up : down;
  if (!(w > 0)) return 0;
  return m->area ? w * (2 / (edges[2] - edges[0])) : w;
}

void nn_mel_bank(const nn_mel *m, double *out) {
  for (int64_t i = 0; i < m->mels; i++) {
    double edges[3] = {edge(m, i), edge(m, i + 1), edge(m, i + 2)};
    for (int64_t k = 0; k < m->bins; k++) *out++ = mel_weight(m, edges, k);
  }
}

void nn_mel_bank_floats(const nn_mel *m, float *out) {
  for (int64_t i = 0; i < m->mels; i++) {
    double edges[3] = {edge(m, i), edge(m, i + 1), edge(m, i + 2)};
    for (int64_t k = 0; k < m->bins; k++) *out++ = (float)mel_weight(m, edges, k);
  }
}

/* ---- Whisper ---- */

int64_t nn_log_mel_frames(const nn_log_mel *m, int64_t samples) {
  return samples / m->hop;
}

static int64_t bins_of(const nn_log_mel *m) {
  return m->n_fft / 2 + 1;
}

uint64_t nn_log_mel_scratch(const nn_log_mel *m, int64_t samples) {
  int64_t frames = nn_log_mel_frames(m, samples);
  return (uint64_t)(samples + 2 * m->n_fft + frames * bins_of(m) * 2 + m->mels * bins_of(m));
}

float nn_log_mel_part(const viv_compute *c, const nn_log_mel *m, const float *x, int64_t frames,
                      float *out, float *scratch) {
  int64_t bins = bins_of(m);
  float *window = scratch, *spectrum = window + m->n_fft;
  float *bank = spectrum + frames * bins * 2, top = -INFINITY; /* [mels, bins] */
  nn_mel mel = {NN_MEL_SLANEY,     false, true, m->mels, bins, m->sample_rate / m->n_fft, 0,
                m->sample_rate / 2};
  nn_window_fill(NN_WINDOW_HANN, true, 0, m->n_fft, window);
  nn_mel_bank_floats(&mel, bank);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = m->n_fft,
                .hop = m->hop,
                .rows = 1,
                .samples = (frames - 1) * m->hop + m->n_fft,
                .frames = frames,
                .window = window,
                .x = x,
                .out = spectrum};
  c->stft(c, &a);
  for (int64_t i = 0; i < frames * bins; i++)
    spectrum[i] = spectrum[2 * i] * spectrum[2 * i] + spectrum[2 * i + 1] * spectrum[2 * i + 1];
  c->gemm(c, 0, 1, m->mels, frames, bins, 1.0f, bank, bins, spectrum, bins, 0.0f, out, frames);
  for (int64_t i = 0; i < m->mels * frames; i++) {
    out[i] = log10f(out[i] > 1e-10f ? out[i] : 1e-10f);
    if (out[i] > top) top = out[i];
  }
  return top;
}

void nn_log_mel_scale(float *x, int64_t n, float top) {
  for (int64_t i = 0; i < n; i++) x[i] = ((x[i] > top - 8 ? x[i] : top - 8) + 4) / 4;
}

void nn_log_mel_whisper(const viv_compute *c, const nn_log_mel *m, const float *x, int64_t samples,
                        float *out, float *scratch) {
  int64_t frames = nn_log_mel_frames(m, samples), half = m->n_fft / 2;
  float *padded = scratch, *rest = padded + samples + m->n_fft;
  if (frames < 1) return;
  nn_pad_signal(x, samples, half, half, VIV_PAD_REFLECT, padded);
  float top = nn_log_mel_part(c, m, padded, frames, out, rest);
  nn_log_mel_scale(out, m->mels * frames, top);
}
