/* The front ends of sound: any samples (also such that are no numbers) under any options that a request
 * may name end within the memory that was asked for, and resampling in pieces gives what it gives whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute/compute.h"
#include "nn/audio.h"

struct bytes {
  const uint8_t *ptr;
  size_t len;
};

static uint32_t take(struct bytes *b, uint32_t below) {
  uint32_t x = 0;
  for (int i = 0; i < 3 && b->len; i++, b->len--) x = x << 8 | *b->ptr++;
  return x % below;
}

static float *room(int64_t n) {
  float *x = calloc((size_t)n + 1, sizeof *x);
  if (!x) exit(0);
  return x;
}

static void kaldi(const viv_compute *c, struct bytes *b, const float *x, int64_t n) {
  nn_kaldi k = nn_kaldi_default((enum nn_kaldi_kind)(1 + take(b, 3)));
  k.sample_frequency = 1000 + take(b, 48000);
  k.frame_length = 4 + take(b, 60);
  k.frame_shift = 1 + take(b, 30);
  k.preemphasis_coefficient = take(b, 100) / 100.0;
  k.energy_floor = take(b, 3);
  k.cepstral_lifter = take(b, 40);
  k.window_type = 1 + (int32_t)take(b, 5);
  k.num_mel_bins = 4 + (int32_t)take(b, 200);
  k.num_ceps = 1 + (int32_t)take(b, (uint32_t)k.num_mel_bins);
  uint32_t flags = take(b, 512);
  k.round_to_power_of_two = flags & 1;
  k.snip_edges = flags & 2;
  k.remove_dc_offset = flags & 4;
  k.raw_energy = flags & 8;
  k.use_energy = flags & 16;
  k.htk_compat = flags & 32;
  k.use_log_fbank = flags & 64;
  k.use_power = flags & 128;
  k.subtract_mean = flags & 256;
  int64_t frames = nn_kaldi_frames(&k, n);
  if (frames < 1) return;
  float *out = room(frames * nn_kaldi_width(&k)), *scratch = room((int64_t)nn_kaldi_scratch(&k, n));
  nn_kaldi_features(c, &k, x, n, 32768, out, scratch);
  free(out);
  free(scratch);
}

static void log_mel(const viv_compute *c, struct bytes *b, const float *x, int64_t n) {
  nn_log_mel m = {.n_fft = 16 + (int32_t)take(b, 1000), .mels = 1 + (int32_t)take(b, 128)};
  m.hop = 1 + (int32_t)take(b, (uint32_t)m.n_fft);
  m.sample_rate = 1000 + take(b, 48000);
  if (n <= m.n_fft) return; /* Whisper's windows are padded to 30 s */
  float *out = room(nn_log_mel_frames(&m, n) * m.mels);
  float *scratch = room((int64_t)nn_log_mel_scratch(&m, n));
  nn_log_mel_whisper(c, &m, x, n, out, scratch);
  free(out);
  free(scratch);
}

static void resample(const viv_compute *c, struct bytes *b, const float *x, int64_t n) {
  nn_resample r = nn_resample_default(1000 + take(b, 200), 1000 + take(b, 200));
  r.width = 1 + (int32_t)take(b, 16);
  if (take(b, 2)) r.beta = 1 + take(b, 16);
  if (n < 1 || r.from == r.to) return;
  int64_t all = nn_resample_length(&r, n), done = 0;
  float *whole = room(all), *pieces = room(all);
  float *scratch = room((int64_t)nn_resample_scratch(&r)),
        *kernels = room((int64_t)nn_resample_scratch(&r));
  nn_resample_run(c, &r, x, n, whole, scratch);
  nn_resample_kernels(&r, kernels);
  for (int64_t have = 0; done < all;) {
    have += 1 + take(b, 400);
    if (have > n || !b->len) have = n;
    int64_t ready = have == n ? all : nn_resample_ready(&r, have);
    if (ready > all || ready < done) abort();
    if (ready == done) continue;
    int64_t begin = nn_resample_first(&r, done);
    if (begin < 0) begin = 0;
    nn_resample_part(c, &r, kernels, x + begin, begin, have, done, ready - done, pieces + done);
    done = ready;
  }
  for (int64_t i = 0; i < all; i++)
    if (isfinite(whole[i]) && isfinite(pieces[i]) &&
        fabsf(whole[i] - pieces[i]) > 1e-4f * (1 + fabsf(whole[i])))
      abort();
  free(whole);
  free(pieces);
  free(scratch);
  free(kernels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const viv_compute *c;
  viv_error error = VIV_ERROR_INIT;
  if (!c && viv__compute_new(1, VIV__ISA_AUTO, &c, &error) < 0) abort();
  struct bytes b = {data, size};
  uint32_t kind = take(&b, 4), samples = take(&b, 4000);
  float *x = room(samples);
  for (uint32_t i = 0; i < samples; i++) {
    int16_t small = (int16_t)((i * 7919u) ^ (i < size ? data[i] * 257u : 0));
    x[i] = (float)small / 32768;
    if (kind == 3 && size >= 4 && i % 97 == 5) memcpy(&x[i], data + i % (size - 3), sizeof *x);
  }
  uint32_t which = kind == 3 ? take(&b, 3) : kind;
  if (which == 0) kaldi(c, &b, x, samples);
  if (which == 1) log_mel(c, &b, x, samples);
  if (which == 2) resample(c, &b, x, samples);
  free(x);
  return 0;
}
