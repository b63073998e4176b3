/* SpeechT5's encoder behind its two nets.
 *
 *   speech: samples -> convolutions, projection (nn/wave.h); x + gelu(conv(x)); + sinusoids
 *   text:   E[ids] + alpha sinusoids
 *     |  LayerNorm
 *     |  layer, `encoder_layers` times:  x = LN(x + A(x));  x = LN(x + F(x))
 *     |    scores + s q . r[clip(i - j)]: one table of relative positions for all layers and heads
 *   encoded [rows, length, d]
 *
 * Official: transformers models/speecht5 (modeling_speecht5.py). */
#include <math.h>
#include <string.h>

#include "speecht5/speecht5.h"

/* ---- places ---- */

void speecht5_add_place(const struct speecht5_config *c, int64_t place, float *out) {
  int64_t half = c->d / 2;
  double step = half > 1 ? log(10000.0) / (double)(half - 1) : 0;
  if (place == c->pad) return;
  for (int64_t i = 0; i < half; i++) {
    double angle = (double)place * exp(-step * (double)i);
    out[i] += (float)sin(angle);
    out[half + i] += (float)cos(angle);
  }
}

void speecht5_add_scaled_place(const struct speecht5_config *c, float alpha, int64_t place,
                               float *out) {
  double step = log(10000.0) / (double)c->d;
  for (int64_t i = 0; i < c->d; i++) {
    double angle = (double)place * exp(-step * (double)(i - i % 2));
    out[i] += alpha * (float)(i % 2 ? cos(angle) : sin(angle));
  }
}

/* ---- what comes in ---- */

static nn_clips read_clips(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  if (!nn_count(p, "input_values")) {
    nn_clips clips = nn_clips_of(p, "audio", m->front.rate);
    if (m->front.normalize) nn_clips_normalize(&clips);
    return clips;
  }
  int64_t rate = nn_param_int(p, "sampling_rate", m->front.rate, 1, INT32_MAX);
  if (rate != m->front.rate)
    nn_stop(p, VIV_BAD_INPUT, "sampling_rate",
            "input_values at %lld Hz; this model takes %lld (audio is resampled)", (long long)rate,
            (long long)m->front.rate);
  return nn_clips_prepared(p, "input_values", "attention_mask");
}

/* Frames behind a row's end have no place; the pads' own numbers go on through the net, as in the
 * official pass. */
static struct speecht5_encoded from_speech(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  nn_clips clips = read_clips(p);
  const char *name = nn_count(p, "input_values") ? "input_values" : "audio";
  struct speecht5_encoded e = {.rows = clips.rows};
  e.x = nn_wave_encode(p, &c->wave, &m->wave, name, clips.x, clips.rows, clips.samples, "encoder.");
  e.length = nn_wave_frames(&c->wave, clips.samples);
  uint8_t *mask = clips.mask ? nn_bytes(p, e.rows * e.length, 1) : NULL;
  nn_mark mark = nn_here(p);
  float *places = nn_pos_conv(p, &m->positions, c->wave.act, e.x, e.rows, e.length);
  nn_tap(p, places, NN_DIMS(e.rows, e.length, c->d), "encoder.pos_conv");
  nn_compute_of(p)->add(nn_compute_of(p), e.x, places, e.rows * e.length * c->d);
  nn_release(p, mark);
  for (int64_t r = 0; r < e.rows; r++) {
    int64_t valid = nn_wave_frames(&c->wave, clips.lengths[r]);
    if (valid < 1)
      nn_stop(p, VIV_BAD_INPUT, name, "row %lld: %lld samples are too few for one frame",
              (long long)r, (long long)clips.lengths[r]);
    for (int64_t t = 0; t < e.length; t++) {
      if (mask) mask[r * e.length + t] = t < valid;
      if (t < valid) speecht5_add_place(c, c->pad + 1 + t, e.x + (r * e.length + t) * c->d);
    }
  }
  e.mask = mask;
  return e;
}

static struct speecht5_encoded from_text(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  int64_t shape[2] = {0, 0};
  const int64_t *ids = nn_some_ints(p, "input_ids", 2, shape);
  if (!ids)
    nn_stop(p, VIV_BAD_INPUT, "text",
            "is missing: what to say (needs the model's tokenizer), or input_ids");
  int64_t n = shape[0] * shape[1];
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, "input_ids", "is empty");
  struct speecht5_encoded e = {.rows = shape[0], .length = shape[1], .x = nn_room(p, n * c->d)};
  int32_t *index = nn_bytes(p, n, sizeof *index);
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= c->vocab)
      nn_stop(p, VIV_BAD_INPUT, "input_ids", "item %lld is %lld, but must be below %lld",
              (long long)i, (long long)ids[i], (long long)c->vocab);
    index[i] = (int32_t)ids[i];
  }
  nn_compute_of(p)->gather(nn_compute_of(p), m->encoder_tokens.w, index, n, e.x);
  for (int64_t i = 0; i < n; i++)
    speecht5_add_scaled_place(c, m->encoder_alpha[0], i % e.length, e.x + i * c->d);
  const int64_t *real = nn_some_ints(p, "attention_mask", 2, shape);
  if (!real) return e;
  uint8_t *mask = nn_bytes(p, n, 1);
  for (int64_t i = 0; i < n; i++) mask[i] = real[i] != 0;
  e.mask = mask;
  return e;
}

/* ---- relative keys ---- */

struct relative {
  const float *table; /* [2 reach, dim] */
  int64_t length, d;
  int32_t heads, reach;
};

struct fill {
  const struct relative *r;
  const float *q; /* [length, d] */
  int64_t begin, n;
  float *out; /* [heads, n, length] */
};

/* The query against each distance once, then each key takes its own. */
static void fill_rows(void *ctx, int64_t from, int64_t to) {
  const struct fill *f = ctx;
  const struct relative *r = f->r;
  int64_t t = r->length, dim = r->d / r->heads, reach = r->reach;
  float scale = 1.0f / sqrtf((float)dim);
  for (int64_t at = from; at < to; at++) {
    int64_t h = at / f->n, i = f->begin + at % f->n;
    const float *q = f->q + i * r->d + h * dim;
    float *out = f->out + at * t;
    int64_t last = -1;
    float score = 0;
    for (int64_t j = 0; j < t; j++) {
      int64_t away = i - j < -reach ? -reach : i - j >= reach ? reach - 1 : i - j;
      if (away + reach != last) {
        const float *key = r->table + (away + reach) * dim;
        last = away + reach;
        score = 0;
        for (int64_t k = 0; k < dim; k++) score += q[k] * key[k];
        score *= scale;
      }
      out[j] = score;
    }
  }
}

static void relative_bias(nn_pass *p, void *self, const float *x, const float *q, int64_t begin,
                          int64_t n, float *out) {
  const viv_compute *c = nn_compute_of(p);
  const struct relative *r = self;
  (void)x;
  struct fill f = {.r = r, .q = q, .begin = begin, .n = n, .out = out};
  c->parallel_for(c, r->heads * n, 4, fill_rows, &f);
}

/* ---- the encoder ---- */

struct speecht5_encoded speecht5_encode(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  struct speecht5_encoded e = c->hears ? from_speech(p) : from_text(p);
  nn_tap(p, e.x, NN_DIMS(e.rows, e.length, c->d), "encoder.prenet");
  nn_layer_norm(p, &m->encoder_norm, e.x, e.rows * e.length, e.x);
  nn_tap(p, e.x, NN_DIMS(e.rows, e.length, c->d), "encoder.layer_norm");
  struct relative relative = {.table = m->relative,
                              .length = e.length,
                              .d = c->d,
                              .heads = c->encoder_heads,
                              .reach = c->reach};
  nn_encoder_run run = {.rows = e.rows,
                        .length = e.length,
                        .d = c->d,
                        .act = c->act,
                        .mask = e.mask,
                        .bias = relative_bias,
                        .self = &relative};
  for (int32_t i = 0; i < c->encoder_layers; i++) {
    nn_pass_poll(p);
    nn_encode_layer(p, &m->encoder[i], &run, e.x);
    nn_tap(p, e.x, NN_DIMS(e.rows, e.length, c->d), "encoder.layer.%d", (int)i);
  }
  return e;
}

/* ---- the front end ---- */

/* Magnitudes of 64 ms windows, 80 Slaney bands, log10. Official: SpeechT5FeatureExtractor. */
static void tell_log_mel(nn_pass *p) {
  const struct speecht5_front *f = &((const struct speecht5_model *)nn_net_of(p))->front;
  const viv_compute *k = nn_compute_of(p);
  nn_clip clip = nn_clip_at(p, "audio_target", 0, f->rate);
  int64_t half = f->n_fft / 2, bins = half + 1, t = 1 + clip.samples / f->hop;
  int64_t left = (f->n_fft - f->window) / 2;
  if (clip.samples <= half)
    nn_stop(p, VIV_BAD_INPUT, "audio_target", "%lld samples are too few; %lld are needed",
            (long long)clip.samples, (long long)half + 1);
  nn_mel mel = {NN_MEL_SLANEY, false,  true, f->mels, bins, (double)f->rate / f->n_fft,
                f->low,        f->high};
  float *x = nn_room(p, clip.samples + 2 * half), *window = nn_room(p, f->n_fft);
  float *bank = nn_room(p, f->mels * bins), *spectrum = nn_room(p, t * bins * 2);
  float *out = nn_room(p, t * f->mels);
  memset(window, 0, (size_t)f->n_fft * sizeof *window);
  nn_window_fill(NN_WINDOW_HANN, true, 0, f->window, window + left);
  nn_mel_bank_floats(&mel, bank);
  nn_pad_signal(clip.x, clip.samples, half, half, VIV_PAD_REFLECT, x);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = f->n_fft,
                .hop = f->hop,
                .rows = 1,
                .samples = clip.samples + 2 * half,
                .frames = t,
                .window = window,
                .x = x,
                .out = spectrum};
  k->stft(k, &a);
  for (int64_t i = 0; i < t * bins; i++) spectrum[i] = hypotf(spectrum[2 * i], spectrum[2 * i + 1]);
  k->gemm(k, 0, 1, t, f->mels, bins, 1.0f, spectrum, bins, bank, bins, 0.0f, out, f->mels);
  for (int64_t i = 0; i < t * f->mels; i++) out[i] = log10f(out[i] > f->floor ? out[i] : f->floor);
  nn_result(p, VIV_F32, out, NN_DIMS(t, f->mels), "log_mel");
}

int32_t speecht5_preprocess(nn_pass *p) {
  const struct speecht5_front *f = &((const struct speecht5_model *)nn_net_of(p))->front;
  bool target = nn_count(p, "audio_target") > 0;
  if (!target && !nn_count(p, "audio"))
    nn_stop(p, VIV_BAD_INPUT, "audio", "is missing, and so is audio_target");
  if (target) tell_log_mel(p);
  if (!nn_count(p, "audio")) return VIV_DONE;
  nn_clips clips = nn_clips_of(p, "audio", f->rate);
  int64_t n = clips.rows * clips.samples;
  if (nn_param_flag(p, "do_normalize", f->normalize)) nn_clips_normalize(&clips);
  nn_result(p, VIV_F32, clips.x, NN_DIMS(clips.rows, clips.samples), "input_values");
  if (!nn_wants_result(p, "attention_mask")) return VIV_DONE;
  int32_t *mask = nn_bytes(p, n, sizeof *mask);
  for (int64_t i = 0; i < n; i++) mask[i] = clips.mask ? clips.mask[i] : 1;
  nn_result(p, VIV_I32, mask, NN_DIMS(clips.rows, clips.samples), "attention_mask");
  return VIV_DONE;
}
