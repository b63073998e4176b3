/* AudioNTT2020: the pass.
 *
 *   clip, in the middle of `unit` samples
 *     |  ln(mel |STFT|^2 + 1.19e-7), (x - mean) / std            [mels, frames]
 *     |  three times: conv 3x3, batch norm, relu, max 2x2         [64, mels / 8, frames / 8]
 *     |  a vector per time step, index mel * 64 + channel         [steps, 64 mels / 8]
 *     |  relu(Linear), relu(Linear)                               [steps, width]
 *   embedding: maximum + mean over time; logits: Linear of the mean
 *
 * Official: Sreyan88/LAPE, src/encoder/audiontt.py; its front end is librosa 0.8.1's. */
#include <math.h>
#include <string.h>

#include "audiontt/audiontt.h"

/* ---- the front end ---- */

/* The middle of a long clip, or a short one between zeros. */
static void centred(const nn_clip *clip, int64_t unit, float *out) {
  int64_t left = (unit - clip->samples) / 2, from = 0, n = clip->samples;
  if (n > unit) {
    from = (n - unit) / 2;
    left = 0;
    n = unit;
  }
  memset(out, 0, (size_t)unit * sizeof *out);
  memcpy(out + left, clip->x + from, (size_t)n * sizeof *out);
}

float *audiontt_log_mel(nn_pass *p, int64_t *rows, int64_t *frames) {
  const struct audiontt_config *c = &((const struct audiontt_model *)nn_net_of(p))->config;
  const viv_compute *k = nn_compute_of(p);
  int32_t n = nn_count(p, "audio"), half = c->n_fft / 2;
  int64_t bins = half + 1, t = 1 + c->unit / c->hop, padded = c->unit + 2 * half;
  if (!n) nn_stop(p, VIV_BAD_INPUT, "audio", "is missing: a recording as a file or a tensor");
  nn_mel mel = {NN_MEL_SLANEY, false,  true, c->mels, bins, (double)c->rate / c->n_fft,
                c->low,        c->high};
  float *out = nn_room(p, n * c->mels * t), *unit = nn_room(p, c->unit), *x = nn_room(p, padded);
  float *window = nn_room(p, c->n_fft), *bank = nn_room(p, c->mels * bins);
  float *spectrum = nn_room(p, t * bins * 2);
  nn_window_fill(NN_WINDOW_HANN, true, 0, c->n_fft, window);
  nn_mel_bank_floats(&mel, bank);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = c->n_fft,
                .hop = c->hop,
                .rows = 1,
                .samples = padded,
                .frames = t,
                .window = window,
                .x = x,
                .out = spectrum};
  for (int32_t r = 0; r < n; r++) {
    nn_mark mark = nn_here(p);
    nn_clip clip = nn_clip_at(p, "audio", r, c->rate);
    centred(&clip, c->unit, unit);
    nn_release(p, mark);
    nn_pad_signal(unit, c->unit, half, half, c->reflect ? VIV_PAD_REFLECT : VIV_PAD_ZEROS, x);
    k->stft(k, &a);
    for (int64_t i = 0; i < t * bins; i++)
      spectrum[i] = spectrum[2 * i] * spectrum[2 * i] + spectrum[2 * i + 1] * spectrum[2 * i + 1];
    float *y = out + r * c->mels * t;
    k->gemm(k, 0, 1, c->mels, t, bins, 1.0f, bank, bins, spectrum, bins, 0.0f, y, t);
    for (int64_t i = 0; i < c->mels * t; i++) y[i] = logf(y[i] + 1.1920929e-7f);
  }
  *rows = n;
  *frames = t;
  return out;
}

/* ---- the network ---- */

/* [rows, mel * channel]: the mean over time of a map [rows, mel, time, channel]. */
static float *mean_over_time(nn_pass *p, const nn_map *m) {
  int64_t mels = m->size[0], steps = m->size[1], ch = m->channels, n = m->batch * mels;
  float *out = nn_room(p, n * ch);
  for (int64_t r = 0; r < n; r++)
    for (int64_t i = 0; i < ch; i++) {
      double sum = 0;
      for (int64_t t = 0; t < steps; t++) sum += (double)m->x[(r * steps + t) * ch + i];
      out[r * ch + i] = (float)(sum / (double)steps);
    }
  return out;
}

static void tap_block(nn_pass *p, const nn_map *m, int32_t i) {
  if (!nn_taps(p, "features_%d", (int)i)) return;
  nn_mark mark = nn_here(p);
  nn_map first = nn_to_layout(p, m, VIV_CHANNELS_FIRST);
  nn_tap(p, first.x, NN_DIMS(m->batch, m->channels, m->size[0], m->size[1]), "features_%d", (int)i);
  nn_release(p, mark);
}

/* [rows, mel, time, channel] -> [rows, time, mel, channel] -> fc */
static float *steps_of(nn_pass *p, const nn_map *m) {
  const struct audiontt_model *w = nn_net_of(p);
  const viv_compute *k = nn_compute_of(p);
  int64_t shape[4] = {m->batch, m->size[0], m->size[1], m->channels};
  float *x = nn_room(p, nn_elements(m));
  k->permute(k, m->x, 4, shape, (const int32_t[]){0, 2, 1, 3}, x);
  int64_t n = shape[0] * shape[2];
  x = nn_apply_linear(p, &w->fc[0], VIV_RELU, x, n);
  return nn_apply_linear(p, &w->fc[1], VIV_RELU, x, n);
}

struct audiontt_seen audiontt_look(nn_pass *p, bool whole) {
  const struct audiontt_model *w = nn_net_of(p);
  const struct audiontt_config *c = &w->config;
  struct audiontt_seen s = {0};
  int64_t frames;
  float *mel = audiontt_log_mel(p, &s.rows, &frames);
  for (int64_t i = 0; i < s.rows * c->mels * frames; i++) mel[i] = (mel[i] - c->mean) / c->std;
  nn_map map = {.x = mel,
                .batch = (int32_t)s.rows,
                .channels = 1,
                .dims = 2,
                .size = {(int32_t)c->mels, (int32_t)frames, 1},
                .layout = VIV_CHANNELS_LAST};
  for (int32_t i = 0; i < (whole ? AUDIONTT_BLOCKS : 1); i++) {
    nn_pass_poll(p);
    map = nn_apply_conv(p, &w->block[i], VIV_RELU, &map);
    map = nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, &map);
    tap_block(p, &map, i + 1);
    if (i && !nn_taps(p, "mean.features_%d", (int)i + 1)) continue;
    float *mean = mean_over_time(p, &map);
    int64_t width = map.size[0] * map.channels;
    nn_tap(p, mean, NN_DIMS(s.rows, width), "mean.features_%d", (int)i + 1);
    if (i) continue;
    s.first = mean;
    s.first_width = width;
  }
  if (!whole) return s;
  s.steps = map.size[1];
  s.fc = steps_of(p, &map);
  nn_tap(p, s.fc, NN_DIMS(s.rows, s.steps, c->width), "fc");
  return s;
}

/* [rows, width]: the mean over time, and what `most` times the maximum adds to it. */
static float *pooled(nn_pass *p, const struct audiontt_seen *s, float most) {
  int64_t d = ((const struct audiontt_model *)nn_net_of(p))->config.width;
  float *out = nn_room(p, s->rows * d);
  for (int64_t r = 0; r < s->rows; r++)
    for (int64_t i = 0; i < d; i++) {
      double sum = 0;
      float top = -INFINITY;
      for (int64_t t = 0; t < s->steps; t++) {
        float x = s->fc[(r * s->steps + t) * d + i];
        sum += (double)x;
        if (x > top) top = x;
      }
      out[r * d + i] = (float)(sum / (double)s->steps) + most * top;
    }
  return out;
}

/* ---- tasks ---- */

int32_t audiontt_preprocess(nn_pass *p) {
  const struct audiontt_config *c = &((const struct audiontt_model *)nn_net_of(p))->config;
  int64_t rows, frames;
  float *mel = audiontt_log_mel(p, &rows, &frames);
  nn_result(p, VIV_F32, mel, NN_DIMS(rows, c->mels, frames), "log_mel");
  return VIV_DONE;
}

int32_t audiontt_forward(nn_pass *p) {
  const struct audiontt_model *w = nn_net_of(p);
  const struct audiontt_config *c = &w->config;
  struct audiontt_seen s = audiontt_look(p, true);
  if (c->classes) {
    float *logits = nn_apply_linear(p, &w->head, 0, pooled(p, &s, 0), s.rows);
    nn_result(p, VIV_F32, logits, NN_DIMS(s.rows, c->classes), "logits");
  }
  if (nn_wants_result(p, "embedding"))
    nn_result(p, VIV_F32, pooled(p, &s, 1), NN_DIMS(s.rows, c->width), "embedding");
  return VIV_DONE;
}

int32_t audiontt_classify(nn_pass *p) {
  const struct audiontt_model *w = nn_net_of(p);
  const viv_compute *k = nn_compute_of(p);
  int64_t n = w->config.classes;
  struct audiontt_seen s = audiontt_look(p, true);
  float *logits = nn_apply_linear(p, &w->head, 0, pooled(p, &s, 0), s.rows);
  k->softmax(k, logits, s.rows, n, logits);
  nn_result(p, VIV_F32, logits, NN_DIMS(s.rows, n), "probabilities");
  return VIV_DONE;
}

int32_t audiontt_embed(nn_pass *p) {
  int64_t d = ((const struct audiontt_model *)nn_net_of(p))->config.width;
  struct audiontt_seen s = audiontt_look(p, true);
  nn_result(p, VIV_F32, pooled(p, &s, 1), NN_DIMS(s.rows, d), "embeddings");
  return VIV_DONE;
}
