/* Whisper: the pass.
 *
 *   recording, 30 s of it                                        [480000]
 *     |  log-mel: 25 ms windows every 10 ms, floor at the maximum - 8   [80, 3000]
 *     |  gelu(conv k3), gelu(conv k3, stride 2), + positions     [1500, d]
 *     |  encoder layers, pre-norm; layer_norm
 *     |                                                     encoded [1500, d]
 *   tokens [n] --- E[id] + P[place] --- decoder layers, pre-norm:
 *     |    x = x + A(LN x)          over the tokens so far
 *     |    x = x + C(LN x, encoded)
 *     |    x = x + F(LN x)
 *     |  layer_norm, E^T
 *   logits [n, vocab]
 *
 * Official: transformers models/whisper (modeling_whisper.py, feature_extraction_whisper.py). */
#include <math.h>
#include <string.h>

#include "whisper/whisper.h"

/* ---- the front end ---- */

void whisper_features(nn_pass *p, const float *x, int64_t samples, float *out) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  nn_mark mark = nn_here(p);
  float *padded = nn_room(p, c->window);
  int64_t n = samples < c->window ? samples : c->window;
  if (n < 0) n = 0;
  memcpy(padded, x, (size_t)n * sizeof *padded);
  memset(padded + n, 0, (size_t)(c->window - n) * sizeof *padded);
  float *scratch = nn_room(p, (int64_t)nn_log_mel_scratch(&c->mel, c->window));
  nn_log_mel_whisper(nn_compute_of(p), &c->mel, padded, c->window, out, scratch);
  nn_release(p, mark);
}

/* ---- encoder ---- */

/* gelu(conv x), tapped before the gelu. */
static nn_map conv_gelu(nn_pass *p, const nn_conv *conv, const nn_map *x, const char *name) {
  const viv_compute *k = nn_compute_of(p);
  nn_map y = nn_apply_conv(p, conv, 0, x);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0]), "%s", name);
  k->unary(k, VIV_GELU, y.x, y.x, nn_elements(&y));
  return y;
}

float *whisper_encode(nn_pass *p, const float *features, int64_t rows, int64_t frames) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  const viv_compute *k = nn_compute_of(p);
  if (frames != 2 * c->source)
    nn_stop(p, VIV_BAD_INPUT, "input_features", "has %lld frames, the encoder takes %lld",
            (long long)frames, (long long)(2 * c->source));
  float *x = nn_room(p, rows * c->source * c->d);
  nn_mark mark = nn_here(p);
  nn_map map = {.x = (float *)(uintptr_t)features, /* read only */
                .batch = (int32_t)rows,
                .channels = (int32_t)c->mels,
                .dims = 1,
                .size = {(int32_t)frames, 1, 1},
                .layout = VIV_CHANNELS_FIRST};
  map = conv_gelu(p, &m->conv1, &map, "encoder.conv1");
  map = conv_gelu(p, &m->conv2, &map, "encoder.conv2");
  map = nn_to_layout(p, &map, VIV_CHANNELS_LAST); /* [rows, source, d] */
  memcpy(x, map.x, (size_t)(rows * c->source * c->d) * sizeof *x);
  nn_release(p, mark);
  for (int64_t r = 0; r < rows; r++)
    k->add(k, x + r * c->source * c->d, m->encoder_positions, c->source * c->d);
  nn_encoder_run run = {
      .rows = rows, .length = c->source, .d = c->d, .pre_norm = true, .act = c->act};
  for (int32_t i = 0; i < c->encoder_layers; i++) {
    nn_pass_poll(p);
    nn_encode_layer(p, &m->encoder[i], &run, x);
    nn_tap(p, x, NN_DIMS(rows, c->source, c->d), "encoder.%d", (int)i);
  }
  nn_layer_norm(p, &m->encoder_norm, x, rows * c->source, x);
  nn_tap(p, x, NN_DIMS(rows, c->source, c->d), "encoder.layer_norm");
  return x;
}

/* ---- decoder ---- */

struct whisper_text whisper_begin(nn_pass *p, const float *encoded, int64_t rows, int64_t tokens) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  struct whisper_text t = {.rows = rows};
  t.memory = nn_bytes(p, c->decoder_layers, sizeof *t.memory);
  for (int32_t i = 0; i < c->decoder_layers; i++)
    t.memory[i] = nn_new_memory(p, &m->decoder[i], rows, tokens, encoded, c->source);
  return t;
}

float *whisper_read(nn_pass *p, struct whisper_text *t, const int64_t *ids, int64_t n, bool taps) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  const viv_compute *k = nn_compute_of(p);
  int64_t rows = t->rows;
  if (t->past + n > c->target)
    nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "%lld tokens, the decoder has places for %lld",
            (long long)(t->past + n), (long long)c->target);
  float *x = nn_room(p, rows * n * c->d);
  int32_t *index = nn_bytes(p, rows * n, sizeof *index);
  for (int64_t i = 0; i < rows * n; i++) {
    if (ids[i] < 0 || ids[i] >= c->vocab)
      nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "item %lld is %lld, but must be below %lld",
              (long long)i, (long long)ids[i], (long long)c->vocab);
    index[i] = (int32_t)ids[i];
  }
  k->gather(k, m->tokens.w, index, rows * n, x);
  float scale = sqrtf((float)c->d);
  if (c->scale_embedding) k->scale_shift(k, x, &scale, NULL, 1, 1, rows * n * c->d, x);
  for (int64_t r = 0; r < rows; r++)
    k->add(k, x + r * n * c->d, m->decoder_positions + t->past * c->d, n * c->d);
  nn_decoder_run run = {.rows = rows, .n = n, .d = c->d, .pre_norm = true, .act = c->act};
  for (int32_t i = 0; i < c->decoder_layers; i++) {
    nn_pass_poll(p);
    run.cross_queries = t->queries ? t->queries + i * rows * n * c->d : NULL;
    nn_decode_layer(p, &m->decoder[i], &run, &t->memory[i], x);
    if (taps) nn_tap(p, x, NN_DIMS(rows, n, c->d), "decoder.%d", (int)i);
  }
  nn_layer_norm(p, &m->decoder_norm, x, rows * n, x);
  t->past += n;
  return x;
}

void whisper_logits(nn_pass *p, const float *states, int64_t n, float *out) {
  const struct whisper_model *m = nn_net_of(p);
  nn_linear_to(p, &m->tokens, 0, NULL, states, n, out);
}

/* ---- tasks ---- */

static int32_t preprocess(nn_pass *p) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  int32_t rows = nn_count(p, "audio");
  int64_t frames = 2 * c->source;
  if (!rows) nn_stop(p, VIV_BAD_INPUT, "audio", "is missing: a recording as a file or a tensor");
  float *out = nn_room(p, rows * c->mels * frames);
  for (int32_t i = 0; i < rows; i++) {
    nn_mark mark = nn_here(p);
    nn_clip clip = nn_clip_at(p, "audio", i, c->rate);
    whisper_features(p, clip.x, clip.samples, out + i * c->mels * frames);
    nn_release(p, mark);
  }
  nn_result(p, VIV_F32, out, NN_DIMS(rows, c->mels, frames), "input_features");
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  int64_t shape[3] = {0, c->mels, 0};
  const float *features = nn_need_floats(p, "input_features", 3, shape);
  if (shape[0] < 1) nn_stop(p, VIV_BAD_INPUT, "input_features", "is empty");
  float *encoded = whisper_encode(p, features, shape[0], shape[2]);
  if (nn_wants_result(p, "encoder_last_hidden_state"))
    nn_result(p, VIV_F32, encoded, NN_DIMS(shape[0], c->source, c->d), "encoder_last_hidden_state");
  int64_t prompt[2] = {shape[0], 0};
  const int64_t *ids = nn_some_ints(p, "decoder_input_ids", 2, prompt);
  if (!ids) return VIV_DONE; /* the encoder alone */
  if (prompt[1] < 1) nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "is empty");
  struct whisper_text text = whisper_begin(p, encoded, shape[0], prompt[1]);
  float *x = whisper_read(p, &text, ids, prompt[1], true);
  if (nn_wants_result(p, "last_hidden_state"))
    nn_result(p, VIV_F32, x, NN_DIMS(shape[0], prompt[1], c->d), "last_hidden_state");
  if (!nn_wants_result(p, "logits")) return VIV_DONE;
  float *logits = nn_room(p, shape[0] * prompt[1] * c->vocab);
  whisper_logits(p, x, shape[0] * prompt[1], logits);
  nn_result(p, VIV_F32, logits, NN_DIMS(shape[0], prompt[1], c->vocab), "logits");
  return VIV_DONE;
}

const nn_task whisper_tasks[] = {
    {"transcribe", whisper_transcribe}, {"detect_language", whisper_detect_language},
    {"preprocess", preprocess},         {"forward", forward},
    {"generate", whisper_generate},     {NULL, NULL}};
