/* Kaldi's fbank, mfcc and spectrogram as torchaudio.compliance.kaldi has them. */
#include "nn/audio.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846
#define EPSILON 1.1920928955078125e-07 /* the smallest energy that is taken the logarithm of */

nn_kaldi nn_kaldi_default(enum nn_kaldi_kind kind) {
  return (nn_kaldi){
      .kind = kind,
      .sample_frequency = 16000,
      .frame_length = 25,
      .frame_shift = 10,
      .preemphasis_coefficient = 0.97,
      .energy_floor = 1,
      .blackman_coeff = 0.42,
      .low_freq = 20,
      .cepstral_lifter = 22,
      .window_type = NN_WINDOW_POVEY,
      .num_mel_bins = 23,
      .num_ceps = 13,
      .round_to_power_of_two = true,
      .snip_edges = true,
      .remove_dc_offset = true,
      .raw_energy = true,
      .use_log_fbank = true,
      .use_power = true,
  };
}

struct sizes {
  int64_t shift, window, padded, bins;
};

static struct sizes sizes_of(const nn_kaldi *k) {
  struct sizes s;
  s.shift = (int64_t)(k->sample_frequency * k->frame_shift * 0.001);
  s.window = (int64_t)(k->sample_frequency * k->frame_length * 0.001);
  s.padded = s.window;
  if (k->round_to_power_of_two)
    for (s.padded = 1; s.padded < s.window;) s.padded *= 2;
  s.bins = s.padded / 2 + 1;
  return s;
}

int64_t nn_kaldi_frames(const nn_kaldi *k, int64_t samples) {
  struct sizes s = sizes_of(k);
  if (!k->snip_edges) return (samples + s.shift / 2) / s.shift;
  return samples < s.window ? 0 : 1 + (samples - s.window) / s.shift;
}

static bool first_energy(const nn_kaldi *k) {
  return k->kind == NN_KALDI_FBANK && k->use_energy && !k->htk_compat;
}

int64_t nn_kaldi_width(const nn_kaldi *k) {
  if (k->kind == NN_KALDI_SPECTROGRAM) return sizes_of(k).bins;
  return k->kind == NN_KALDI_MFCC ? k->num_ceps : k->num_mel_bins + k->use_energy;
}

uint64_t nn_kaldi_scratch(const nn_kaldi *k, int64_t samples) {
  struct sizes s = sizes_of(k);
  int64_t frames = nn_kaldi_frames(k, samples), mels = k->num_mel_bins;
  return (uint64_t)(s.window + frames * (s.padded + 2 * s.bins + 1 + mels) + mels * s.bins);
}

/* Sample i of the signal, which goes on mirrored, edges repeated, where edges are not snipped. */
static float sample_at(const float *x, int64_t n, int64_t i) {
  int64_t period = 2 * n;
  i = (i % period + period) % period;
  return i < n ? x[i] : x[period - 1 - i];
}

static float log_energy(const nn_kaldi *k, double sum) {
  double e = log(sum > EPSILON ? sum : EPSILON);
  if (k->energy_floor > 0 && e < log(k->energy_floor)) e = log(k->energy_floor);
  return (float)e;
}

static double squares(const float *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
  return sum;
}

/* Frame f, windowed, in frame [padded]; answers its log energy. */
static float one_frame(const nn_kaldi *k, const struct sizes *s, const float *window,
                       const float *x, int64_t samples, float scale, int64_t f, float *frame) {
  int64_t start = f * s->shift - (k->snip_edges ? 0 : s->window / 2 - s->shift / 2);
  double mean = 0;
  for (int64_t i = 0; i < s->window; i++) {
    frame[i] = scale * sample_at(x, samples, start + i);
    mean += (double)frame[i];
  }
  mean = k->remove_dc_offset ? mean / (double)s->window : 0;
  for (int64_t i = 0; i < s->window; i++) frame[i] = (float)((double)frame[i] - mean);
  double energy = k->raw_energy ? squares(frame, s->window) : 0;
  float coefficient = (float)k->preemphasis_coefficient;
  for (int64_t i = s->window - 1; i > 0; i--) frame[i] -= coefficient * frame[i - 1];
  frame[0] -= coefficient * frame[0];
  for (int64_t i = 0; i < s->window; i++) frame[i] *= window[i];
  memset(frame + s->window, 0, (size_t)(s->padded - s->window) * sizeof *frame);
  return log_energy(k, k->raw_energy ? energy : squares(frame, s->window));
}

static float log_of(float v) {
  return logf(v > (float)EPSILON ? v : (float)EPSILON);
}

/* mels [n, num_mel_bins] -> out [n, num_ceps]: an orthonormal cosine transform and the lifter. */
static void cepstra(const nn_kaldi *k, const float *mels, const float *energy, int64_t n,
                    float *out) {
  int64_t m = k->num_mel_bins, ceps = k->num_ceps;
  for (int64_t f = 0; f < n; f++, mels += m, out += ceps) {
    float first = 0;
    for (int64_t q = 0; q < ceps; q++) {
      double sum = 0, norm = q ? sqrt(2.0 / (double)m) : sqrt(1.0 / (double)m);
      for (int64_t i = 0; i < m; i++)
        sum += (double)mels[i] * cos(PI / (double)m * ((double)i + 0.5) * (double)q);
      if (k->cepstral_lifter != 0)
        norm *= 1 + 0.5 * k->cepstral_lifter * sin(PI * (double)q / k->cepstral_lifter);
      float value = (float)(sum * norm);
      if (q == 0) {
        first = k->use_energy ? energy[f] : value;
        value = first;
      }
      if (!k->htk_compat)
        out[q] = value;
      else if (q > 0)
        out[q - 1] = value;
    }
    if (k->htk_compat) out[ceps - 1] = k->use_energy ? first : first * 1.41421356f;
  }
}

static void subtract_mean(float *x, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < width; i++) {
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) sum += (double)x[r * width + i];
    for (int64_t r = 0; r < rows; r++) x[r * width + i] -= (float)(sum / (double)rows);
  }
}

/* power [n, bins] -> mels [n, num_mel_bins]. */
static void mel_energies(const viv_compute *c, const nn_kaldi *k, const struct sizes *s,
                         const float *power, int64_t n, float *bank, float *mels) {
  double nyquist = k->sample_frequency / 2;
  nn_mel m = {.scale = NN_MEL_KALDI,
              .in_mel = true,
              .mels = k->num_mel_bins,
              .bins = s->bins,
              .bin_width = k->sample_frequency / (double)s->padded,
              .low = k->low_freq,
              .high = k->high_freq > 0 ? k->high_freq : nyquist + k->high_freq};
  nn_mel_bank_floats(&m, bank);
  for (int64_t i = 0; i < m.mels && s->padded % 2 == 0; i++) bank[(i + 1) * s->bins - 1] = 0;
  c->gemm(c, 0, 1, n, m.mels, s->bins, 1.0f, power, s->bins, bank, s->bins, 0.0f, mels, m.mels);
}

void nn_kaldi_features(const viv_compute *c, const nn_kaldi *k, const float *x, int64_t samples,
                       float scale, float *out, float *scratch) {
  struct sizes s = sizes_of(k);
  int64_t n = nn_kaldi_frames(k, samples), width = nn_kaldi_width(k), mels = k->num_mel_bins;
  float *window = scratch, *frames = window + s.window, *spectrum = frames + n * s.padded;
  float *energy = spectrum + n * 2 * s.bins, *mel = energy + n, *bank = mel + n * mels;
  if (n < 1) return;
  nn_window_fill(k->window_type, false, k->blackman_coeff, s.window, window);
  for (int64_t f = 0; f < n; f++)
    energy[f] = one_frame(k, &s, window, x, samples, scale, f, frames + f * s.padded);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = (int32_t)s.padded,
                .hop = (int32_t)s.padded,
                .rows = 1,
                .samples = n * s.padded,
                .frames = n,
                .x = frames,
                .out = spectrum};
  c->stft(c, &a);
  bool power = k->use_power || k->kind != NN_KALDI_FBANK;
  for (int64_t i = 0; i < n * s.bins; i++) {
    float re = spectrum[2 * i], im = spectrum[2 * i + 1], square = re * re + im * im;
    spectrum[i] = power ? square : sqrtf(square);
  }
  if (k->kind == NN_KALDI_SPECTROGRAM) {
    for (int64_t i = 0; i < n * s.bins; i++)
      out[i] = i % s.bins ? log_of(spectrum[i]) : energy[i / s.bins];
  } else {
    mel_energies(c, k, &s, spectrum, n, bank, mel);
    bool logs = k->use_log_fbank || k->kind == NN_KALDI_MFCC;
    for (int64_t i = 0; i < n * mels && logs; i++) mel[i] = log_of(mel[i]);
    if (k->kind == NN_KALDI_MFCC) cepstra(k, mel, energy, n, out);
  }
  for (int64_t f = 0; f < n && k->kind == NN_KALDI_FBANK; f++) {
    memcpy(out + f * width + first_energy(k), mel + f * mels, (size_t)mels * sizeof *out);
    if (k->use_energy) out[f * width + (first_energy(k) ? 0 : mels)] = energy[f];
  }
  if (k->subtract_mean) subtract_mean(out, n, width);
}
