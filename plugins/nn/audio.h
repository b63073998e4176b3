/* What models of sound share before and around their network: windows, mel filter banks, Kaldi's
 * features, Whisper's log-mel, resampling, the padding of codecs' convolutions, weight norms, vector
 * quantisation. Samples are f32, times frames-first unless said otherwise. Nothing allocates: where
 * room is needed, X_scratch() says how many floats. */
#ifndef PLUGINS_NN_AUDIO_H
#define PLUGINS_NN_AUDIO_H

#include "nn/nn.h"

/* ---- windows (audio.c) ---- */

enum nn_window {
  NN_WINDOW_HANN = 1, /* periodic 1: torch.hann_window's default; 0: symmetric, as Kaldi's */
  NN_WINDOW_HAMMING = 2,
  NN_WINDOW_POVEY = 3, /* Hann to the power of 0.85 */
  NN_WINDOW_BLACKMAN = 4,
  NN_WINDOW_RECTANGULAR = 5
};
/* out [n]. blackman: Kaldi's coefficient, 0.42. */
void nn_window_fill(enum nn_window kind, bool periodic, double blackman, int64_t n, float *out);
/* "hanning", "povey", ... as Kaldi's window_type; 0: none of them. */
int32_t nn_window_named(viv_str name);

/* y [left + n + right] from x [n], as torch's pad modes. A reflection wider than the signal first
 * appends zeros to it and cuts them again, as EnCodec does. y must not be x. */
void nn_pad_signal(const float *x, int64_t n, int64_t left, int64_t right, enum viv_pad mode,
                   float *y);

/* ---- mel filter banks (audio.c) ---- */

enum nn_mel_scale {
  NN_MEL_SLANEY = 1, /* linear below 1 kHz */
  NN_MEL_HTK = 2,    /* 2595 log10(1 + f/700) */
  NN_MEL_KALDI = 3   /* 1127 ln(1 + f/700) */
};
/* Triangles over the bins k * bin_width. Official: transformers.audio_utils.mel_filter_bank,
 * librosa.filters.mel, torchaudio's melscale_fbanks and kaldi.get_mel_banks. */
typedef struct nn_mel {
  enum nn_mel_scale scale;
  bool in_mel; /* triangles straight in mel instead of in Hz */
  bool area;   /* each times 2 / its width in Hz: the norm "slaney" */
  int64_t mels, bins;
  double bin_width, low, high; /* Hz */
} nn_mel;
void nn_mel_bank(const nn_mel *m, double *out);       /* [mels, bins] */
void nn_mel_bank_floats(const nn_mel *m, float *out); /* the same, rounded */

/* Whisper's features: |STFT|^2 (centred, reflect, last frame dropped), Slaney mel up to sample_rate/2,
 * log10, floor at the clip's maximum - 8, (x + 4) / 4. out [mels, frames]. Official:
 * WhisperFeatureExtractor. */
typedef struct nn_log_mel {
  int32_t n_fft, hop, mels;
  double sample_rate;
} nn_log_mel;
int64_t nn_log_mel_frames(const nn_log_mel *m, int64_t samples); /* samples / hop */
uint64_t nn_log_mel_scratch(const nn_log_mel *m, int64_t samples);
void nn_log_mel_whisper(const viv_compute *c, const nn_log_mel *m, const float *x, int64_t samples,
                        float *out, float *scratch);
/* The same for a long signal in parts: the log10 of frames whose samples are x [(frames - 1) hop + n_fft],
 * and the largest of them; then floor and scale under the largest of all. scratch as for frames * hop
 * samples. */
float nn_log_mel_part(const viv_compute *c, const nn_log_mel *m, const float *x, int64_t frames,
                      float *out, float *scratch);
void nn_log_mel_scale(float *x, int64_t n, float top);

/* ---- Kaldi's features (kaldi.c) ---- */

enum nn_kaldi_kind { NN_KALDI_FBANK = 1, NN_KALDI_MFCC = 2, NN_KALDI_SPECTROGRAM = 3 };
/* The options of torchaudio.compliance.kaldi under their names; nn_kaldi_default has its defaults but
 * no dither. */
typedef struct nn_kaldi {
  enum nn_kaldi_kind kind;
  double sample_frequency, frame_length, frame_shift; /* Hz, ms, ms */
  double preemphasis_coefficient, energy_floor, blackman_coeff;
  double low_freq, high_freq; /* high_freq <= 0: that much below half the sample frequency */
  double cepstral_lifter;
  int32_t window_type; /* enum nn_window */
  int32_t num_mel_bins, num_ceps;
  bool round_to_power_of_two, snip_edges, remove_dc_offset, raw_energy, use_energy, htk_compat;
  bool use_log_fbank, use_power, subtract_mean;
} nn_kaldi;
nn_kaldi nn_kaldi_default(enum nn_kaldi_kind kind);
int64_t nn_kaldi_frames(const nn_kaldi *k, int64_t samples);
int64_t nn_kaldi_width(const nn_kaldi *k); /* values of a frame */
uint64_t nn_kaldi_scratch(const nn_kaldi *k, int64_t samples);
/* x [samples], times `scale` (32768 for models that were fed 16-bit numbers) -> out [frames, width]. */
void nn_kaldi_features(const viv_compute *c, const nn_kaldi *k, const float *x, int64_t samples,
                       float scale, float *out, float *scratch);

/* ---- resampling (resample.c) ---- */

/* torchaudio.functional.resample: a windowed sinc for each phase. nn_resample_default has its width 6,
 * rolloff 0.99 and the Hann window. */
typedef struct nn_resample {
  int64_t from, to; /* Hz, above 0 */
  int32_t width;
  double rolloff;
  double beta; /* above 0: a Kaiser window with this beta */
} nn_resample;
nn_resample nn_resample_default(int64_t from, int64_t to);
int64_t nn_resample_length(const nn_resample *r, int64_t samples); /* ceil(samples to / from) */
uint64_t nn_resample_scratch(const nn_resample *r);
void nn_resample_run(const viv_compute *c, const nn_resample *r, const float *x, int64_t samples,
                     float *out, float *scratch);
/* The same in parts, for signals that come in pieces. kernels [nn_resample_scratch] are made once. Of a
 * signal of which `samples` have come, so many output samples are known (it may go on; at its end they
 * are nn_resample_length); output i looks at no sample before nn_resample_first. A part: x holds
 * samples [begin, samples), outputs [at, at + n) are made. The rates differ. */
void nn_resample_kernels(const nn_resample *r, float *kernels);
int64_t nn_resample_ready(const nn_resample *r, int64_t samples);
int64_t nn_resample_first(const nn_resample *r, int64_t i);
void nn_resample_part(const viv_compute *c, const nn_resample *r, const float *kernels,
                      const float *x, int64_t begin, int64_t samples, int64_t at, int64_t n,
                      float *out);

/* ---- codecs (codec.c) ---- */

/* Samples to pad (or, of a transposed convolution's output, to cut) on both sides, as EnCodec's
 * SConv1d and SConvTranspose1d do. */
void nn_conv_pads(int64_t samples, int64_t kernel, int64_t stride, int64_t dilation, bool causal,
                  int64_t *left, int64_t *right);
void nn_conv_trims(int64_t kernel, int64_t stride, bool causal, double right_ratio, int64_t *left,
                   int64_t *right);

/* w = g v / |v|, the norm over all axes but dim; dim -1: over all. g has one value per index of dim. */
void nn_weight_norm(const float *g, const float *v, int32_t ndim, const int64_t *shape, int32_t dim,
                    float *w);

/* codes[i] = the row of the codebook [k, d] nearest to x[i] (Euclidean; the first of equals). The
 * candidates come from one product, the choice among them from their distances in double. */
uint64_t nn_nearest_scratch(int64_t k, int64_t d);
void nn_nearest(const viv_compute *c, const float *codebook, int64_t k, int64_t d, const float *x,
                int64_t n, int32_t *codes, float *scratch);
/* Rows divided by max(their length, eps); y may be x. */
void nn_unit_rows(const float *x, int64_t rows, int64_t d, double eps, float *y);
/* Residual vector quantisation over `levels` codebooks [levels, k, d]: codes [n, levels], the sum of
 * the chosen rows in quantized [n, d], what is left of x in residual [n, d]. */
void nn_residual_vq(const viv_compute *c, const float *codebooks, int64_t levels, int64_t k,
                    int64_t d, const float *x, int64_t n, int32_t *codes, float *quantized,
                    float *residual, float *scratch);

#endif
