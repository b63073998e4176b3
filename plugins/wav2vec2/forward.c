/* wav2vec 2.0, HuBERT, WavLM: the pass.
 *
 *   samples [rows, T] at 16 kHz, zero mean and unit variance where the release asks for it
 *     |  convolutions, LayerNorm, Linear (nn/wave.h)                [rows, frames, d], 50 a second
 *     |  frames behind a row's end become zeros
 *     |  x + gelu(conv(x)); LayerNorm (base)
 *     |  layer i, `layers` times:                                    hidden.i -> hidden.i + 1
 *     |    base:   x = LN(x + A(x));  x = LN(x + F(x))
 *     |    large:  x = x + A(LN x);   x = x + F(LN x)                (do_stable_layer_norm)
 *     |    WavLM adds gated relative positions to the scores
 *     |  LayerNorm (large)
 *   last_hidden_state; CTC: Linear to letters; units: the nearest of K centroids to hidden.N
 *
 * Official: transformers models/hubert, wav2vec2, wavlm; units: fairseq examples/hubert/simple_kmeans
 * (dump_km_label.py). */
#include <string.h>

#include "wav2vec2/wav2vec2.h"

/* ---- recordings ---- */

/* The feature extractor's work: a batch that gives no mask is normalised with its pads. */
static nn_clips read_audio(nn_pass *p) {
  const struct wav2vec2_config *c = &((const struct wav2vec2_model *)nn_net_of(p))->config;
  nn_clips clips = nn_clips_of(p, "audio", c->rate);
  if (!c->gives_mask) {
    int64_t *whole = nn_bytes(p, clips.rows, sizeof *whole);
    for (int64_t r = 0; r < clips.rows; r++) whole[r] = clips.samples;
    clips.lengths = whole;
    clips.mask = NULL;
  }
  if (c->normalize) nn_clips_normalize(&clips);
  return clips;
}

static nn_clips read_samples(nn_pass *p) {
  const struct wav2vec2_config *c = &((const struct wav2vec2_model *)nn_net_of(p))->config;
  if (!nn_count(p, "input_values")) return read_audio(p);
  int64_t rate = nn_param_int(p, "sampling_rate", c->rate, 1, INT32_MAX);
  if (rate != c->rate)
    nn_stop(p, VIV_BAD_INPUT, "sampling_rate",
            "input_values at %lld Hz; this model takes %lld (audio is resampled)", (long long)rate,
            (long long)c->rate);
  return nn_clips_prepared(p, "input_values", "attention_mask");
}

int64_t wav2vec2_frames(const struct wav2vec2_model *m, int64_t samples) {
  return nn_wave_frames(&m->config.wave, samples);
}

/* ---- the encoder ---- */

/* Marks the frames behind a row's end and zeroes them. */
static void mask_frames(nn_pass *p, const nn_clips *clips, struct wav2vec2_heard *h, int64_t d) {
  const struct wav2vec2_model *m = nn_net_of(p);
  uint8_t *mask = clips->mask ? nn_bytes(p, h->rows * h->frames, 1) : NULL;
  h->valid = nn_bytes(p, h->rows, sizeof *h->valid);
  for (int64_t r = 0; r < h->rows; r++) {
    h->valid[r] = wav2vec2_frames(m, clips->lengths[r]);
    if (!mask) continue;
    for (int64_t t = 0; t < h->frames; t++) mask[r * h->frames + t] = t < h->valid[r];
    memset(h->x + (r * h->frames + h->valid[r]) * d, 0,
           (size_t)((h->frames - h->valid[r]) * d) * sizeof *h->x);
  }
  h->mask = mask;
}

struct wav2vec2_heard wav2vec2_hear(nn_pass *p, int32_t upto) {
  const struct wav2vec2_model *m = nn_net_of(p);
  const struct wav2vec2_config *c = &m->config;
  nn_clips clips = read_samples(p);
  const char *name = nn_count(p, "input_values") ? "input_values" : "audio";
  struct wav2vec2_heard h = {.rows = clips.rows};
  h.x = nn_wave_encode(p, &c->wave, &m->wave, name, clips.x, clips.rows, clips.samples, "");
  h.frames = wav2vec2_frames(m, clips.samples);
  mask_frames(p, &clips, &h, c->d);

  int64_t n = h.rows * h.frames;
  nn_mark mark = nn_here(p);
  float *places = nn_pos_conv(p, &m->positions, c->wave.act, h.x, h.rows, h.frames);
  nn_tap(p, places, NN_DIMS(h.rows, h.frames, c->d), "pos_conv");
  nn_compute_of(p)->add(nn_compute_of(p), h.x, places, n * c->d);
  nn_release(p, mark);
  if (!c->stable) nn_layer_norm(p, &m->norm, h.x, n, h.x);
  nn_tap(p, h.x, NN_DIMS(h.rows, h.frames, c->d), "hidden.0");

  nn_encoder_run run = {.rows = h.rows,
                        .length = h.frames,
                        .d = c->d,
                        .pre_norm = c->stable,
                        .act = c->act,
                        .mask = h.mask};
  nn_relative relative;
  if (c->buckets) {
    relative = nn_new_relative(p, m->table, c->buckets, c->far, h.frames, c->d, c->heads);
    run.bias = nn_relative_bias;
    run.self = &relative;
  }
  for (int32_t i = 0; i < upto; i++) {
    nn_pass_poll(p);
    if (c->buckets) relative.gate = &m->gate[i];
    nn_encode_layer(p, &m->layer[i], &run, h.x);
    nn_tap(p, h.x, NN_DIMS(h.rows, h.frames, c->d), "hidden.%d", (int)i + 1);
  }
  return h;
}

struct wav2vec2_heard wav2vec2_hear_all(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  struct wav2vec2_heard h = wav2vec2_hear(p, m->config.layers);
  if (m->config.stable) nn_layer_norm(p, &m->norm, h.x, h.rows * h.frames, h.x);
  return h;
}

float *wav2vec2_logits(nn_pass *p, const struct wav2vec2_heard *h) {
  const struct wav2vec2_model *m = nn_net_of(p);
  if (!m->config.vocab)
    nn_stop(p, VIV_NEVER, "task", "this checkpoint has no CTC head (lm_head): it writes no text");
  return nn_apply_linear(p, &m->head, 0, h->x, h->rows * h->frames);
}

/* ---- tasks ---- */

int32_t wav2vec2_preprocess(nn_pass *p) {
  const struct wav2vec2_config *c = &((const struct wav2vec2_model *)nn_net_of(p))->config;
  nn_clips clips = read_audio(p);
  int64_t n = clips.rows * clips.samples;
  nn_result(p, VIV_F32, clips.x, NN_DIMS(clips.rows, clips.samples), "input_values");
  if (!c->gives_mask) return VIV_DONE;
  int32_t *mask = nn_bytes(p, n, sizeof *mask);
  for (int64_t i = 0; i < n; i++) mask[i] = clips.mask ? clips.mask[i] : 1;
  nn_result(p, VIV_I32, mask, NN_DIMS(clips.rows, clips.samples), "attention_mask");
  return VIV_DONE;
}

int32_t wav2vec2_forward(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  const struct wav2vec2_config *c = &m->config;
  struct wav2vec2_heard h = wav2vec2_hear_all(p);
  if (nn_wants_result(p, "last_hidden_state"))
    nn_result(p, VIV_F32, h.x, NN_DIMS(h.rows, h.frames, c->d), "last_hidden_state");
  if (c->vocab && nn_wants_result(p, "logits"))
    nn_result(p, VIV_F32, wav2vec2_logits(p, &h), NN_DIMS(h.rows, h.frames, c->vocab), "logits");
  nn_result(p, VIV_I64, h.valid, NN_DIMS(h.rows), "output_lengths");
  return VIV_DONE;
}

/* The centroids of the request, else those that the checkpoint brought. */
static const float *centroids_of(nn_pass *p, int64_t *k) {
  const struct wav2vec2_model *m = nn_net_of(p);
  int64_t shape[2] = {0, m->config.d};
  const float *given = nn_some_floats(p, "centroids", 2, shape);
  *k = given ? shape[0] : m->config.units;
  if (*k < 1 || *k > INT32_MAX)
    nn_stop(p, VIV_BAD_INPUT, "centroids",
            "is missing: the k-means centroids [K, %lld] of hidden state kmeans_layer, as an input "
            "or as the checkpoint's tensor kmeans.centroids",
            (long long)m->config.d);
  return given ? given : m->centroids;
}

/* Runs of one unit as one: units and how many frames each lasted, of row r. */
static void tell_runs(nn_pass *p, const int64_t *units, int64_t n, int64_t r) {
  int64_t *unit = nn_bytes(p, n, sizeof *unit), *frames = nn_bytes(p, n, sizeof *frames), m = 0;
  for (int64_t t = 0; t < n; t++) {
    if (!m || unit[m - 1] != units[t]) {
      unit[m] = units[t];
      frames[m++] = 0;
    }
    frames[m - 1]++;
  }
  nn_result(p, VIV_I64, unit, NN_DIMS(m), "audio_codes.%d", (int)r);
  nn_result(p, VIV_I64, frames, NN_DIMS(m), "durations.%d", (int)r);
}

/* Units: the nearest centroid of each frame, in the numbers of a language model that knows them from
 * token_offset on. */
int32_t wav2vec2_encode(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  const struct wav2vec2_config *c = &m->config;
  int64_t k, at = nn_param_int(p, "kmeans_layer", c->kmeans_layer, 0, c->layers);
  const float *centroids = centroids_of(p, &k);
  int64_t offset = nn_param_int(p, "token_offset", 0, 0, INT32_MAX);
  bool merge = nn_param_flag(p, "deduplicate", false);
  struct wav2vec2_heard h = wav2vec2_hear(p, (int32_t)at);
  int64_t n = h.rows * h.frames;
  int32_t *nearest = nn_bytes(p, n, sizeof *nearest);
  int64_t *units = nn_bytes(p, n, sizeof *units);
  float *scratch = nn_room(p, (int64_t)nn_nearest_scratch(k, c->d));
  nn_nearest(nn_compute_of(p), centroids, k, c->d, h.x, n, nearest, scratch);
  for (int64_t i = 0; i < n; i++) units[i] = nearest[i] + offset;
  if (!merge) nn_result(p, VIV_I64, units, NN_DIMS(h.rows, h.frames), "audio_codes");
  for (int64_t r = 0; merge && r < h.rows; r++) tell_runs(p, units + r * h.frames, h.valid[r], r);
  return VIV_DONE;
}

/* The mean over a recording's frames of the last hidden state, or of hidden.layer. */
int32_t wav2vec2_embed(nn_pass *p) {
  const struct wav2vec2_config *c = &((const struct wav2vec2_model *)nn_net_of(p))->config;
  int64_t layer = nn_param_int(p, "layer", -1, 0, c->layers);
  struct wav2vec2_heard h = layer < 0 ? wav2vec2_hear_all(p) : wav2vec2_hear(p, (int32_t)layer);
  float *mean = nn_room(p, h.rows * c->d);
  for (int64_t r = 0; r < h.rows; r++)
    for (int64_t i = 0; i < c->d; i++) {
      double sum = 0;
      for (int64_t t = 0; t < h.valid[r]; t++) sum += (double)h.x[(r * h.frames + t) * c->d + i];
      mean[r * c->d + i] = (float)(sum / (double)(h.valid[r] > 0 ? h.valid[r] : 1));
    }
  nn_result(p, VIV_F32, mean, NN_DIMS(h.rows, c->d), "embeddings");
  return VIV_DONE;
}
