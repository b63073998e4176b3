/* Front ends and codecs of sound: plugins/nn/audio.h. */
#include "ops.h"

#include "nn/audio.h"
#include "nn/cluster.h"

/* ---- filter banks ---- */

static bool mel_bank(struct golden *g) {
  const char *op = text_param(g, "op", ""), *scale = text_param(g, "mel_scale", "slaney");
  nn_mel m = {.area = !strcmp(text_param(g, "norm", ""), "slaney")};
  if (!strcmp(op, "mel_filter_bank")) {
    double rate = num_param(g, "sampling_rate", 0);
    m.bins = (int64_t)num_param(g, "num_frequency_bins", 0);
    m.mels = (int64_t)num_param(g, "num_mel_filters", 0);
    m.low = num_param(g, "min_frequency", 0);
    m.high = num_param(g, "max_frequency", 0);
    m.in_mel = flag_param(g, "triangularize_in_mel_space", false);
    m.bin_width = rate / 2 / (double)(m.bins - 1);
  } else if (!strcmp(op, "librosa_mel")) {
    double rate = num_param(g, "sr", 0), n_fft = num_param(g, "n_fft", 0);
    m.bins = (int64_t)n_fft / 2 + 1;
    m.mels = (int64_t)num_param(g, "n_mels", 0);
    m.low = num_param(g, "fmin", 0);
    m.high = num_param(g, "fmax", rate / 2);
    m.bin_width = rate / n_fft;
    scale = flag_param(g, "htk", false) ? "htk" : "slaney";
  } else if (!strcmp(op, "melscale_fbanks")) {
    m.bins = (int64_t)num_param(g, "n_freqs", 0);
    m.mels = (int64_t)num_param(g, "n_mels", 0);
    m.low = num_param(g, "f_min", 0);
    m.high = num_param(g, "f_max", 0);
    m.bin_width = num_param(g, "sample_rate", 0) / 2 / (double)(m.bins - 1);
  } else { /* kaldi_mel_banks */
    double rate = num_param(g, "sample_freq", 0), n = num_param(g, "window_length_padded", 0);
    double high = num_param(g, "high_freq", 0);
    m.bins = (int64_t)n / 2;
    m.mels = (int64_t)num_param(g, "num_bins", 0);
    m.low = num_param(g, "low_freq", 0);
    m.high = high > 0 ? high : rate / 2 + high;
    m.bin_width = rate / n;
    m.in_mel = true;
    scale = "kaldi";
  }
  m.scale = !strcmp(scale, "htk")     ? NN_MEL_HTK
            : !strcmp(scale, "kaldi") ? NN_MEL_KALDI
                                      : NN_MEL_SLANEY;
  int64_t n = m.mels * m.bins, some = 0;
  double *bank = take(g, n * (int64_t)sizeof *bank);
  double *sums = take(g, m.mels * (int64_t)sizeof *sums);
  float *weights = take_floats(g, n);
  int32_t *index = take(g, 2 * n * (int64_t)sizeof *index);
  nn_mel_bank(&m, bank);
  for (int64_t i = 0; i < m.mels; i++) sums[i] = 0;
  for (int64_t i = 0; i < n; i++) {
    sums[i / m.bins] += bank[i];
    if (!(bank[i] > 0)) continue;
    index[2 * some] = (int32_t)(i / m.bins);
    index[2 * some + 1] = (int32_t)(i % m.bins);
    weights[some++] = (float)bank[i];
  }
  output_ints(g, "index", index, 2 * some);
  output(g, "weight", weights, some);
  output_doubles(g, "row_sum", sums, m.mels);
  return true;
}

static bool kaldi_window(struct golden *g) {
  int64_t n = (int64_t)num_param(g, "window_size", 0);
  float *y = take_floats(g, n);
  nn_window_fill(nn_window_named(viv__str(text_param(g, "window_type", ""))), false,
                 num_param(g, "blackman_coeff", 0.42), n, y);
  output(g, "window", y, n);
  return true;
}

/* ---- features ---- */

static bool kaldi(struct golden *g) {
  const char *op = text_param(g, "op", "");
  struct array x = input(g, "waveform");
  nn_kaldi k = nn_kaldi_default(!strcmp(op, "kaldi_fbank")  ? NN_KALDI_FBANK
                                : !strcmp(op, "kaldi_mfcc") ? NN_KALDI_MFCC
                                                            : NN_KALDI_SPECTROGRAM);
#define NUMBER(name) k.name = num_param(g, #name, k.name)
#define FLAG(name) k.name = flag_param(g, #name, k.name)
#define COUNT(name) k.name = (int32_t)num_param(g, #name, k.name)
  NUMBER(sample_frequency);
  NUMBER(frame_length);
  NUMBER(frame_shift);
  NUMBER(preemphasis_coefficient);
  NUMBER(energy_floor);
  NUMBER(blackman_coeff);
  NUMBER(low_freq);
  NUMBER(high_freq);
  NUMBER(cepstral_lifter);
  COUNT(num_mel_bins);
  COUNT(num_ceps);
  FLAG(round_to_power_of_two);
  FLAG(snip_edges);
  FLAG(remove_dc_offset);
  FLAG(raw_energy);
  FLAG(use_energy);
  FLAG(htk_compat);
  FLAG(use_log_fbank);
  FLAG(use_power);
  FLAG(subtract_mean);
#undef NUMBER
#undef FLAG
#undef COUNT
  k.window_type = nn_window_named(viv__str(text_param(g, "window_type", "povey")));
  int64_t n = nn_kaldi_frames(&k, x.n) * nn_kaldi_width(&k);
  float *y = take_floats(g, n), *scratch = take_floats(g, (int64_t)nn_kaldi_scratch(&k, x.n));
  nn_kaldi_features(g->c, &k, x.data, x.n, (float)num_param(g, "input_scale", 1), y, scratch);
  output(g, "features", y, n);
  return true;
}

static bool whisper_log_mel(struct golden *g) {
  struct array x = input(g, "raw_speech");
  nn_log_mel m = {.n_fft = (int32_t)num_param(g, "n_fft", 400),
                  .hop = (int32_t)num_param(g, "hop_length", 160),
                  .mels = (int32_t)num_param(g, "feature_size", 80),
                  .sample_rate = num_param(g, "sampling_rate", 16000)};
  float scale = (float)num_param(g, "input_scale", 1);
  for (int64_t i = 0; i < x.n; i++) x.data[i] *= scale;
  int64_t n = nn_log_mel_frames(&m, x.n) * m.mels;
  float *y = take_floats(g, n), *scratch = take_floats(g, (int64_t)nn_log_mel_scratch(&m, x.n));
  nn_log_mel_whisper(g->c, &m, x.data, x.n, y, scratch);
  output(g, "input_features", y, n);
  return true;
}

static bool resample(struct golden *g) {
  struct array x = input(g, "waveform");
  nn_resample r = nn_resample_default((int64_t)num_param(g, "orig_freq", 1),
                                      (int64_t)num_param(g, "new_freq", 1));
  r.width = (int32_t)num_param(g, "lowpass_filter_width", r.width);
  r.rolloff = num_param(g, "rolloff", r.rolloff);
  if (!strcmp(text_param(g, "resampling_method", ""), "sinc_interp_kaiser"))
    r.beta = num_param(g, "beta", 14.769656459379492);
  int64_t n = nn_resample_length(&r, x.n);
  float *y = take_floats(g, n);
  nn_resample_run(g->c, &r, x.data, x.n, y, take_floats(g, (int64_t)nn_resample_scratch(&r)));
  output(g, "y", y, n);
  return true;
}

/* ---- codecs ---- */

static bool sconv(struct golden *g) {
  bool transposed = !strcmp(text_param(g, "op", ""), "sconv_transpose1d");
  viv_error error = VIV_ERROR_INIT;
  struct array x = input(g, "x"), w = input(g, "weight"), b = input(g, "bias");
  int64_t stride = (int64_t)num_param(g, "stride", 1),
          dilation = (int64_t)num_param(g, "dilation", 1);
  int64_t samples = x.shape[2], in = x.shape[1], kernel = w.shape[2], left, right;
  int64_t outs = w.shape[transposed ? 1 : 0];
  bool causal = flag_param(g, "causal", false);
  const char *mode = text_param(g, "pad_mode", "reflect");
  if (!g->c->conv) return false;
  float *from = x.data;
  if (transposed) {
    nn_conv_trims(kernel, stride, causal, num_param(g, "trim_right_ratio", 1), &left, &right);
  } else {
    nn_conv_pads(samples, kernel, stride, dilation, causal, &left, &right);
    int64_t padded = samples + left + right;
    from = take_floats(g, in * padded);
    for (int64_t c = 0; c < in; c++)
      nn_pad_signal(x.data + c * samples, samples, left, right,
                    !strcmp(mode, "reflect")     ? VIV_PAD_REFLECT
                    : !strcmp(mode, "replicate") ? VIV_PAD_REPLICATE
                                                 : VIV_PAD_ZEROS,
                    from + c * padded);
    samples = padded;
  }
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w.data,
                  .bytes = (uint64_t)w.n * sizeof(float),
                  .dtype = VIV_F32,
                  .ndim = 3,
                  .shape = {w.shape[0], w.shape[1], w.shape[2]}};
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = 1,
                     .groups = 1,
                     .transposed = transposed,
                     .in_channels = (int32_t)in,
                     .out_channels = (int32_t)outs,
                     .kernel = {(int32_t)kernel, 1, 1},
                     .stride = {(int32_t)stride, 1, 1},
                     .dilation = {(int32_t)dilation, 1, 1},
                     .weight = &t,
                     .bias = b.data};
  viv_conv_weight *weights = NULL;
  if (g->c->conv_prepare(g->c, g->arena, &d, &weights, &error)) die("conv_prepare", error.message);
  viv_conv a = {.struct_size = sizeof a,
                .batch = 1,
                .weight = weights,
                .size = {(int32_t)samples, 1, 1},
                .x = from};
  int64_t n = transposed ? (samples - 1) * stride + kernel
                         : (samples - dilation * (kernel - 1) - 1) / stride + 1;
  a.out = take_floats(g, outs * n);
  a.scratch = take_floats(g, (int64_t)g->c->conv_scratch(g->c, &a));
  g->c->conv(g->c, &a);
  float *y = a.out;
  if (transposed) {
    int64_t kept = n - left - right;
    y = take_floats(g, outs * kept);
    for (int64_t c = 0; c < outs; c++)
      memcpy(y + c * kept, a.out + c * n + left, (size_t)kept * sizeof *y);
    n = kept;
  }
  output(g, "y", y, outs * n);
  return true;
}

/* ---- clusters ---- */

static bool pseudo_label(struct golden *g) {
  struct array f = input(g, "features"), first = input(g, "first_centroids");
  int64_t n = f.shape[0], d = f.shape[1], m = (int64_t)num_param(g, "pca", 0);
  int64_t k = (int64_t)num_param(g, "clusters", 0), size = (int64_t)sizeof(double);
  double *x = take(g, n * m * size), *centroids = take(g, k * m * size);
  double *scratch = take(g, (int64_t)nn_pca_scratch(n, d) * size);
  double *cosines = take(g, n * n * size), *found = take(g, k * n * size);
  int32_t *labels = take(g, n * (int64_t)sizeof *labels);
  if (!nn_pca(f.data, n, d, m, num_param(g, "eigen_power", 0), x, scratch)) return false;
  nn_unit_doubles(x, n, m);
  for (int64_t i = 0; i < k; i++)
    memcpy(centroids + i * m, x + (int64_t)first.data[i] * m, (size_t)(m * size));
  nn_kmeans(x, n, m, k, (int32_t)num_param(g, "iterations", 0), centroids, labels);
  for (int64_t i = 0; i < (n + k) * n; i++) {
    const double *a = i < n * n ? x + i / n * m : centroids + (i / n - n) * m;
    double sum = 0;
    for (int64_t j = 0; j < m; j++) sum += a[j] * x[i % n * m + j];
    *(i < n * n ? cosines + i : found + i - n * n) = sum;
  }
  output_ints(g, "labels", labels, n);
  output_doubles(g, "cosines", cosines, n * n);
  output_doubles(g, "centroid_cosines", found, k * n);
  return true;
}

/* ---- vector quantisation ---- */

static void euclidean(struct golden *g, const float *books, int64_t levels, int64_t k, int64_t d,
                      struct array x, int32_t *codes, float *quantized, float *residual) {
  float *scratch = take_floats(g, (int64_t)nn_nearest_scratch(k, d));
  nn_residual_vq(g->c, books, levels, k, d, x.data, x.n / d, codes, quantized, residual, scratch);
}

/* Factorised codes (DAC): each level looks for the unit vector nearest to its projection's. */
static bool cosine(struct golden *g) {
  struct array books = input(g, "codebooks"), x = input(g, "x");
  struct array wi = input(g, "in_proj.weight"), bi = input(g, "in_proj.bias");
  struct array wo = input(g, "out_proj.weight"), bo = input(g, "out_proj.bias");
  int64_t levels = books.shape[0], k = books.shape[1], d = books.shape[2], width = x.shape[1];
  int64_t n = x.shape[0];
  double eps = num_param(g, "eps", 1e-12);
  float *scratch = take_floats(g, (int64_t)nn_nearest_scratch(k, d));
  float *unit = take_floats(g, k * d), *latents = take_floats(g, n * levels * d);
  float *sum = take_floats(g, n * width), *chosen = take_floats(g, n * d);
  float *look = take_floats(g, n * d);
  int32_t *codes = take(g, n * levels * (int64_t)sizeof *codes), *level = take(g, n * 8);
  memset(sum, 0, (size_t)(n * width) * sizeof *sum);
  for (int64_t l = 0; l < levels; l++) {
    struct array w = {wi.data + l * d * width, d * width, 2, {d, width}};
    struct array back = {wo.data + l * d * width, d * width, 2, {width, d}};
    const float *book = books.data + l * k * d;
    float *z = apply(g, w, bi.data + l * d, x.data, n);
    nn_unit_rows(z, n, d, eps, look);
    nn_unit_rows(book, k, d, eps, unit);
    nn_nearest(g->c, unit, k, d, look, n, level, scratch);
    for (int64_t i = 0; i < n; i++) {
      codes[i * levels + l] = level[i];
      memcpy(chosen + i * d, book + level[i] * d, (size_t)d * sizeof *chosen);
      memcpy(latents + (i * levels + l) * d, z + i * d, (size_t)d * sizeof *z);
    }
    float *y = apply(g, back, bo.data + l * width, chosen, n);
    for (int64_t i = 0; i < n * width; i++) {
      sum[i] += y[i];
      x.data[i] -= y[i];
    }
  }
  output_ints(g, "codes", codes, n * levels);
  output(g, "quantized", sum, n * width);
  output(g, "latents", latents, n * levels * d);
  return true;
}

static bool residual_vq(struct golden *g) {
  if (!strcmp(text_param(g, "distance", ""), "cosine")) return cosine(g);
  struct array books = input(g, "codebooks"), x = input(g, "x");
  int64_t levels = books.shape[0], d = books.shape[2], n = x.shape[0];
  int32_t *codes = take(g, n * levels * (int64_t)sizeof *codes);
  float *quantized = take_floats(g, x.n), *residual = take_floats(g, x.n);
  euclidean(g, books.data, levels, books.shape[1], d, x, codes, quantized, residual);
  output_ints(g, "codes", codes, n * levels);
  output(g, "quantized", quantized, x.n);
  output(g, "residual", residual, x.n);
  return true;
}

/* Mimi: the first quantisers and the others both take the input itself. */
static bool split_vq(struct golden *g) {
  struct array usage = input(g, "cluster_usage"), sums = input(g, "embed_sum"), x = input(g, "x");
  int64_t levels = sums.shape[0], k = sums.shape[1], d = sums.shape[2], n = x.shape[0];
  int64_t first = (int64_t)num_param(g, "num_semantic_quantizers", 1);
  float eps = (float)num_param(g, "epsilon", 1e-5), *books = take_floats(g, sums.n);
  for (int64_t i = 0; i < sums.n; i++) books[i] = sums.data[i] / fmaxf(usage.data[i / d], eps);
  int32_t *codes = take(g, n * levels * (int64_t)sizeof *codes);
  int32_t *part = take(g, n * levels * (int64_t)sizeof *part);
  float *all = take_floats(g, x.n), *some = take_floats(g, x.n), *rest = take_floats(g, x.n);
  memset(all, 0, (size_t)x.n * sizeof *all);
  for (int64_t at = 0, count = first; at < levels; at += count, count = levels - first) {
    euclidean(g, books + at * k * d, count, k, d, x, part, some, rest);
    for (int64_t i = 0; i < n * count; i++) codes[i / count * levels + at + i % count] = part[i];
    for (int64_t i = 0; i < x.n; i++) all[i] += some[i];
  }
  output_ints(g, "codes", codes, n * levels);
  output(g, "quantized", all, x.n);
  return true;
}

static bool norm_ema(struct golden *g) {
  struct array book = input(g, "codebook"), z = input(g, "z");
  int64_t k = book.shape[0], d = book.shape[1], n = z.shape[0];
  float *look = take_floats(g, z.n), *far = take_floats(g, n * k);
  int32_t *codes = take(g, n * (int64_t)sizeof *codes);
  nn_unit_rows(z.data, n, d, num_param(g, "eps", 1e-12), look);
  nn_nearest(g->c, book.data, k, d, look, n, codes,
             take_floats(g, (int64_t)nn_nearest_scratch(k, d)));
  for (int64_t i = 0; i < n * k; i++) {
    const float *a = look + i / k * d, *b = book.data + i % k * d;
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
    far[i] = (float)sum;
  }
  output_ints(g, "codes", codes, n);
  output(g, "distances", far, n * k);
  return true;
}

const struct op audio_ops[] = {
    {"mel_filter_bank", mel_bank},
    {"librosa_mel", mel_bank},
    {"melscale_fbanks", mel_bank},
    {"kaldi_mel_banks", mel_bank},
    {"kaldi_window", kaldi_window},
    {"kaldi_fbank", kaldi},
    {"kaldi_mfcc", kaldi},
    {"kaldi_spectrogram", kaldi},
    {"whisper_log_mel", whisper_log_mel},
    {"resample", resample},
    {"sconv1d", sconv},
    {"sconv_transpose1d", sconv},
    {"pseudo_label", pseudo_label},
    {"residual_vq", residual_vq},
    {"split_residual_vq", split_vq},
    {"norm_ema_lookup", norm_ema},
    {NULL, NULL},
};
