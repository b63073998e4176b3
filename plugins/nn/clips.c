/* Recordings as rows of samples. */
#include "nn/clips.h"

#include <math.h>
#include <string.h>

static nn_clip resampled(nn_pass *p, const float *x, int64_t samples, int64_t from, int64_t to) {
  nn_resample r = nn_resample_default(from, to);
  int64_t n = nn_resample_length(&r, samples);
  float *y = nn_room(p, n), *scratch = nn_room(p, (int64_t)nn_resample_scratch(&r) + 1);
  nn_resample_run(nn_compute_of(p), &r, x, samples, y, scratch);
  return (nn_clip){y, n};
}

nn_clip nn_clip_at(nn_pass *p, const char *name, int32_t at, int64_t rate) {
  const viv_tensor *t = nn_input_at(p, name, at);
  if (!t) nn_stop(p, VIV_BAD_INPUT, name, "is missing: a recording as a file or a tensor");
  int64_t channels = 1, samples = t->ndim > 0 ? t->shape[t->ndim - 1] : 0;
  for (int32_t i = 0; i + 1 < t->ndim; i++) channels *= t->shape[i];
  int64_t from = nn_param_int(p, "sampling_rate", rate, 1000, 768000);
  if (channels < 1 || samples < 1) nn_stop(p, VIV_BAD_INPUT, name, "holds no samples");
  if (channels > 64)
    nn_stop(p, VIV_BAD_INPUT, name, "has %lld channels; 64 are possible", (long long)channels);
  const float *x = nn_as_floats(p, t, name);
  float *mono = nn_room(p, samples);
  for (int64_t i = 0; i < samples; i++) {
    float sum = 0;
    for (int64_t k = 0; k < channels; k++) sum += x[k * samples + i];
    mono[i] = channels > 1 ? sum / (float)channels : sum;
    if (!isfinite(mono[i]))
      nn_stop(p, VIV_BAD_INPUT, name, "sample %lld is no finite number", (long long)i);
  }
  if (from == rate) return (nn_clip){mono, samples};
  return resampled(p, mono, samples, from, rate);
}

/* lengths become a mask where they differ from the whole. */
static void mask_of_lengths(nn_pass *p, nn_clips *c) {
  bool padded = false;
  for (int64_t r = 0; r < c->rows; r++) padded = padded || c->lengths[r] < c->samples;
  if (!padded) return;
  uint8_t *mask = nn_bytes(p, c->rows * c->samples, 1);
  for (int64_t r = 0; r < c->rows; r++)
    for (int64_t i = 0; i < c->samples; i++) mask[r * c->samples + i] = i < c->lengths[r];
  c->mask = mask;
}

nn_clips nn_clips_of(nn_pass *p, const char *name, int64_t rate) {
  int32_t n = nn_count(p, name);
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, name, "is missing: a recording as a file or a tensor");
  nn_clip *clip = nn_bytes(p, n, sizeof *clip);
  int64_t *lengths = nn_bytes(p, n, sizeof *lengths), longest = 0;
  for (int32_t i = 0; i < n; i++) {
    clip[i] = nn_clip_at(p, name, i, rate);
    lengths[i] = clip[i].samples;
    if (lengths[i] > longest) longest = lengths[i];
  }
  nn_clips c = {.rows = n, .samples = longest, .lengths = lengths};
  c.x = nn_room(p, n * longest);
  memset(c.x, 0, (size_t)(n * longest) * sizeof *c.x);
  for (int32_t i = 0; i < n; i++)
    memcpy(c.x + i * longest, clip[i].x, (size_t)lengths[i] * sizeof *c.x);
  mask_of_lengths(p, &c);
  return c;
}

nn_clips nn_clips_prepared(nn_pass *p, const char *values, const char *mask) {
  int64_t shape[2] = {0, 0};
  const float *x = nn_need_floats(p, values, 2, shape);
  nn_clips c = {.rows = shape[0], .samples = shape[1]};
  if (c.rows < 1 || c.samples < 1) nn_stop(p, VIV_BAD_INPUT, values, "holds no samples");
  for (int64_t i = 0; i < c.rows * c.samples; i++)
    if (!isfinite(x[i]))
      nn_stop(p, VIV_BAD_INPUT, values, "sample %lld is no finite number", (long long)i);
  c.x = nn_room(p, c.rows * c.samples);
  memcpy(c.x, x, (size_t)(c.rows * c.samples) * sizeof *x);
  const int64_t *real = mask ? nn_some_ints(p, mask, 2, shape) : NULL;
  int64_t *lengths = nn_bytes(p, c.rows, sizeof *lengths);
  for (int64_t r = 0; r < c.rows; r++) {
    int64_t n = c.samples, last = 0;
    if (real) {
      for (n = 0; n < c.samples && real[r * c.samples + n];) n++;
      for (last = n; last < c.samples && !real[r * c.samples + last];) last++;
      if (!n || last < c.samples)
        nn_stop(p, VIV_BAD_INPUT, mask,
                "row %lld must be ones from its beginning on and zeros after them", (long long)r);
    }
    lengths[r] = n;
  }
  c.lengths = lengths;
  mask_of_lengths(p, &c);
  return c;
}

void nn_clips_normalize(nn_clips *c) {
  for (int64_t r = 0; r < c->rows; r++) {
    float *x = c->x + r * c->samples;
    int64_t n = c->lengths[r];
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean);
    double scale = 1.0 / sqrt(square / (double)n + 1e-7);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - mean) * scale);
    memset(x + n, 0, (size_t)(c->samples - n) * sizeof *x);
  }
}
