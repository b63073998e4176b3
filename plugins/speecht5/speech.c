/* SpeechT5 with a decoder of speech: a spectrogram, a few frames a step, each step fed with the last
 * frame of the one before.
 *
 *   frame [mels] -> relu(Linear), dropout that stays on, twice; Linear; + alpha sinusoids
 *     |  relu(Linear [x | speaker / |speaker|])                      [d]
 *     |  decoder layers, post-norm, over the frames so far
 *   feat_out -> frames of the step; prob_out -> how sure it is that this was the last
 *   all frames -> five convolutions over time, added to them
 *
 * Official: transformers models/speecht5 (_generate_speech, SpeechT5SpeechDecoderPrenet and Postnet). */
#include <math.h>
#include <string.h>

#include "speecht5/speecht5.h"

struct talk {
  int64_t least, most; /* steps */
  double threshold, dropout;
  const float *masks; /* [steps, layers, units]; NULL: drawn */
  int64_t mask_steps;
  uint64_t random;
  const float *voice; /* [speaker], of length 1; NULL: nobody's, and its layer is left out */
};

struct spectrogram {
  int64_t steps;
  float *frames; /* [steps * frames, mels] */
  float *stops;  /* [steps, frames] */
};

/* splitmix64, as a number in [0, 1) */
static double draw(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* ---- what is asked ---- */

static const float *voice_of(nn_pass *p) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  int64_t shape[2] = {1, c->speaker};
  const float *x = nn_some_floats(p, "speaker_embeddings", 2, shape);
  if (!x) return NULL;
  float *unit = nn_room(p, c->speaker);
  for (int64_t i = 0; i < c->speaker; i++)
    if (!isfinite(x[i]))
      nn_stop(p, VIV_BAD_INPUT, "speaker_embeddings", "number %lld is not finite", (long long)i);
  nn_unit_rows(x, 1, c->speaker, 1e-12, unit);
  return unit;
}

static struct talk asked(nn_pass *p, int64_t encoded) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct talk t = {.voice = voice_of(p)};
  double least = nn_param_num(p, "minlenratio", 0, 0, 1000);
  double most = nn_param_num(p, "maxlenratio", 20, 0, 1000);
  t.threshold = nn_param_num(p, "threshold", 0.5, 0, 1e6);
  t.dropout = nn_param_num(p, "prenet_dropout", c->dropout, 0, 0.99);
  t.random = (uint64_t)nn_param_int(p, "seed", 0, 0, INT64_C(1) << 52);
  t.least = (int64_t)((double)encoded * least / (double)c->frames);
  t.most = (int64_t)((double)encoded * most / (double)c->frames);
  if (t.most < 1) t.most = 1;
  if (t.most < t.least) t.most = t.least;
  int64_t shape[3] = {0, c->prenet_layers, c->prenet};
  t.masks = nn_some_floats(p, "prenet_masks", 3, shape);
  t.mask_steps = shape[0];
  if (t.masks && t.mask_steps < t.most)
    nn_stop(p, VIV_BAD_INPUT, "prenet_masks", "has %lld steps, the job may take %lld",
            (long long)t.mask_steps, (long long)t.most);
  return t;
}

/* ---- one step ---- */

/* Keeps a unit with probability p and divides by 1 - p, as the official code does at p = 0.5, the only
 * value for which that is a dropout. */
static void drop(const struct speecht5_config *c, struct talk *t, int64_t step, int32_t layer,
                 float *x) {
  double p = t->masks ? c->dropout : t->dropout;
  if (!t->masks && p == 0) return;
  for (int64_t i = 0; i < c->prenet; i++) {
    bool kept = t->masks ? t->masks[(step * c->prenet_layers + layer) * c->prenet + i] != 0.0f
                         : draw(&t->random) < p;
    x[i] = kept ? (float)((double)x[i] / (1 - p)) : 0.0f;
  }
}

/* x [d] of the frame that step `step` is fed with. */
static void prenet(nn_pass *p, struct talk *t, const float *frame, int64_t step, float *x) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  for (int32_t i = 0; i < c->prenet_layers; i++) {
    float *y = nn_apply_linear(p, &m->prenet[i], VIV_RELU, frame, 1);
    drop(c, t, step, i, y);
    frame = y;
  }
  nn_linear_to(p, &m->prenet_out, 0, NULL, frame, 1, x);
  speecht5_add_scaled_place(c, m->decoder_alpha[0], step, x);
  if (!t->voice) return;
  float *both = nn_room(p, c->d + c->speaker);
  memcpy(both, x, (size_t)c->d * sizeof *x);
  memcpy(both + c->d, t->voice, (size_t)c->speaker * sizeof *x);
  nn_linear_to(p, &m->speaker, VIV_RELU, NULL, both, 1, x);
}

/* Taps hold all steps: what each layer gave, gathered as it comes. */
struct gathered {
  float **layer; /* [decoder_layers + 1][most, d], the pre-net first; NULL: nobody listens */
};

static struct gathered gather(nn_pass *p, int64_t most) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct gathered g = {nn_bytes(p, c->decoder_layers + 1, sizeof *g.layer)};
  for (int32_t i = 0; i <= c->decoder_layers; i++) {
    bool wanted = i ? nn_taps(p, "decoder.layer.%d", (int)i - 1) : nn_taps(p, "decoder.prenet");
    g.layer[i] = wanted ? nn_room(p, most * c->d) : NULL;
  }
  return g;
}

static void tell(nn_pass *p, const struct gathered *g, int64_t steps) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  for (int32_t i = 0; i <= c->decoder_layers; i++)
    if (g->layer[i] && i)
      nn_tap(p, g->layer[i], NN_DIMS(1, steps, c->d), "decoder.layer.%d", (int)i - 1);
    else if (g->layer[i])
      nn_tap(p, g->layer[i], NN_DIMS(1, steps, c->d), "decoder.prenet");
}

/* ---- the loop ---- */

static struct spectrogram talk(nn_pass *p, const struct speecht5_encoded *e, struct talk *t) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  const viv_compute *k = nn_compute_of(p);
  int64_t wide = c->frames * c->mels;
  struct spectrogram s = {.frames = nn_room(p, t->most * wide),
                          .stops = nn_room(p, t->most * c->frames)};
  struct gathered g = gather(p, t->most);
  nn_decoder_memory *memory = nn_bytes(p, c->decoder_layers, sizeof *memory);
  for (int32_t i = 0; i < c->decoder_layers; i++)
    memory[i] = nn_new_memory(p, &m->decoder[i], 1, t->most, e->x, e->length);
  nn_decoder_run run = {.rows = 1, .n = 1, .d = c->d, .act = c->act, .mask = e->mask};
  float *x = nn_room(p, c->d), *frame = nn_room(p, c->mels);
  memset(frame, 0, (size_t)c->mels * sizeof *frame);
  while (s.steps < t->most) {
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    prenet(p, t, frame, s.steps, x);
    for (int32_t i = 0; i <= c->decoder_layers; i++) {
      if (i) nn_decode_layer(p, &m->decoder[i - 1], &run, &memory[i - 1], x);
      if (g.layer[i]) memcpy(g.layer[i] + s.steps * c->d, x, (size_t)c->d * sizeof *x);
    }
    float *made = s.frames + s.steps * wide, *stop = s.stops + s.steps * c->frames;
    nn_linear_to(p, &m->feat_out, 0, NULL, x, 1, made);
    nn_linear_to(p, &m->prob_out, 0, NULL, x, 1, stop);
    k->unary(k, VIV_SIGMOID, stop, stop, c->frames);
    memcpy(frame, made + wide - c->mels, (size_t)c->mels * sizeof *frame);
    nn_release(p, mark);
    double sure = 0;
    for (int64_t i = 0; i < c->frames; i++) sure += (double)stop[i];
    s.steps++;
    if (s.steps % 16 == 0) nn_progress(p, (double)s.steps / (double)t->most);
    if (s.steps >= t->least && sure >= t->threshold) break;
  }
  tell(p, &g, s.steps);
  return s;
}

/* frames + what five convolutions over time make of them: [n, mels] */
static float *polish(nn_pass *p, const float *frames, int64_t n) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  nn_map map = {.x = (float *)(uintptr_t)frames, /* read only */
                .batch = 1,
                .channels = (int32_t)c->mels,
                .dims = 1,
                .size = {(int32_t)n, 1, 1},
                .layout = VIV_CHANNELS_LAST};
  for (int32_t i = 0; i < c->postnet_layers; i++)
    map = nn_apply_conv(p, &m->postnet[i], i + 1 < c->postnet_layers ? VIV_TANH : 0, &map);
  float *out = nn_room(p, n * c->mels);
  memcpy(out, frames, (size_t)(n * c->mels) * sizeof *out);
  if (c->postnet_layers) nn_compute_of(p)->add(nn_compute_of(p), out, map.x, n * c->mels);
  return out;
}

/* ---- tasks ---- */

static float *speech_of(nn_pass *p, struct spectrogram *s, int64_t *frames) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct speecht5_encoded e = speecht5_encode(p);
  if (e.rows != 1)
    nn_stop(p, VIV_BAD_INPUT, c->hears ? "audio" : "input_ids",
            "%lld rows; speech is made of one text or recording at a time", (long long)e.rows);
  struct talk t = asked(p, e.length);
  *s = talk(p, &e, &t);
  *frames = s->steps * c->frames;
  nn_tap(p, s->frames, NN_DIMS(*frames, c->mels), "frames_before_postnet");
  return polish(p, s->frames, *frames);
}

int32_t speecht5_generate_speech(nn_pass *p) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct spectrogram s;
  int64_t frames;
  float *mel = speech_of(p, &s, &frames);
  nn_result(p, VIV_F32, mel, NN_DIMS(frames, c->mels), "spectrogram");
  if (nn_wants_result(p, "stop_probabilities"))
    nn_result(p, VIV_F32, s.stops, NN_DIMS(s.steps, c->frames), "stop_probabilities");
  return VIV_DONE;
}

/* The spectrogram, and the sound of it where the checkpoint holds a vocoder. */
int32_t speecht5_speak(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  struct spectrogram s;
  int64_t frames, samples;
  float *mel = speech_of(p, &s, &frames);
  nn_result(p, VIV_F32, mel, NN_DIMS(frames, m->config.mels), "spectrogram");
  if (!m->vocoder) return VIV_DONE;
  float *wave = vocoder_run(p, m->vocoder, mel, 1, frames, &samples);
  nn_result(p, VIV_F32, wave, NN_DIMS(1, samples), "waveform");
  return VIV_DONE;
}
