/* BEATs: the pass.
 *
 *   samples [rows, T] at 16 kHz
 *     |  Kaldi's log-mel of 25 ms every 10 ms, scaled               [rows, frames, 128]
 *     |  patches of 16 x 16, row by row: time, then mel             [rows, tokens, embed]
 *     |  LayerNorm, Linear; padded tokens become zeros              [rows, tokens, d]
 *     |  x + gelu(conv(x)) over the tokens, LayerNorm
 *     |  layer, `layers` times, post-norm with DeepNorm's alpha:
 *     |    x = LN(alpha x + A(x));  x = LN(alpha x + F(x))
 *     |    scores + gate * bias of the relative position, gate from the query
 *   features [rows, tokens, d]
 *
 * With layer_norm_first the norms stand before attention and feed-forward, alpha falls away, and the
 * encoder's norm stands behind the last layer. Official: unilm beats/BEATs.py, backbone.py. */
#include <string.h>

#include "beats/beats.h"

static const float FBANK_MEAN = 15.41663f, FBANK_STD = 6.55582f;

/* ---- the front end ---- */

/* [rows, frames, 128] */
static float *fbank(nn_pass *p, const float *samples, int64_t rows, int64_t n, int64_t *frames,
                    const char *name) {
  const struct beats_model *m = nn_net_of(p);
  nn_kaldi k = nn_kaldi_default(NN_KALDI_FBANK);
  k.num_mel_bins = BEATS_MELS;
  *frames = nn_kaldi_frames(&k, n);
  if (*frames < m->config.patch)
    nn_stop(p, VIV_BAD_INPUT, name,
            "%lld samples at 16 kHz are %lld frames; a patch takes %d (%.3f s)", (long long)n,
            (long long)*frames, (int)m->config.patch, 0.015 + 0.01 * m->config.patch);
  float *out = nn_room(p, rows * *frames * BEATS_MELS);
  nn_mark mark = nn_here(p);
  float *scratch = nn_room(p, (int64_t)nn_kaldi_scratch(&k, n));
  for (int64_t r = 0; r < rows; r++)
    nn_kaldi_features(nn_compute_of(p), &k, samples + r * n, n, 32768,
                      out + r * *frames * BEATS_MELS, scratch);
  nn_release(p, mark);
  for (int64_t i = 0; i < rows * *frames * BEATS_MELS; i++)
    out[i] = (out[i] - FBANK_MEAN) / (2 * FBANK_STD);
  nn_tap(p, out, NN_DIMS(rows, *frames, BEATS_MELS), "fbank");
  return out;
}

/* mask [rows, n] of shorter parts: whole runs of n / parts items must be padding for a part to be it;
 * what is left over at the end counts for nothing. */
static uint8_t *fewer(nn_pass *p, const uint8_t *mask, int64_t rows, int64_t n, int64_t parts) {
  uint8_t *out = nn_bytes(p, rows * parts, 1);
  int64_t each = n / parts;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < parts; i++) {
      uint8_t real = 0;
      for (int64_t k = 0; k < each; k++) real |= mask[r * n + i * each + k];
      out[r * parts + i] = real;
    }
  return out;
}

/* Zeroes padded tokens; a row that is nothing else can't be computed. */
static void blank(nn_pass *p, struct beats_heard *h, int64_t d) {
  for (int64_t r = 0; h->mask && r < h->rows; r++) {
    bool any = false;
    for (int64_t t = 0; t < h->tokens; t++) {
      if (h->mask[r * h->tokens + t])
        any = true;
      else
        memset(h->x + (r * h->tokens + t) * d, 0, (size_t)d * sizeof *h->x);
    }
    if (!any)
      nn_stop(p, VIV_BAD_INPUT, "padding_mask", "row %lld is padding from end to end",
              (long long)r);
  }
}

/* ---- the encoder ---- */

static void run_layers(nn_pass *p, struct beats_heard *h, int32_t upto) {
  const struct beats_model *m = nn_net_of(p);
  const struct beats_config *c = &m->config;
  nn_encoder_run run = {.rows = h->rows,
                        .length = h->tokens,
                        .d = c->d,
                        .pre_norm = c->pre_norm,
                        .alpha = c->alpha,
                        .act = c->act,
                        .mask = h->mask,
                        .tap = "layer%d.attn"};
  nn_relative relative;
  if (c->buckets) {
    relative = nn_new_relative(p, m->table, c->buckets, c->far, h->tokens, c->d, c->heads);
    relative.of_query = true;
    run.bias = nn_relative_bias;
    run.self = &relative;
  }
  for (int32_t i = 0; i < upto; i++) {
    nn_pass_poll(p);
    run.layer = i;
    if (c->buckets) relative.gate = &m->gate[i];
    nn_encode_layer(p, &m->layer[i], &run, h->x);
    nn_tap(p, h->x, NN_DIMS(h->rows, h->tokens, c->d), "layer%d", (int)i);
  }
}

struct beats_heard beats_encode(nn_pass *p, const float *samples, const uint8_t *mask, int64_t rows,
                                int64_t n, int32_t upto, const char *name) {
  const struct beats_model *m = nn_net_of(p);
  const struct beats_config *c = &m->config;
  const viv_compute *k = nn_compute_of(p);
  int64_t frames;
  float *mel = fbank(p, samples, rows, n, &frames, name);
  nn_map map = {.x = mel,
                .batch = (int32_t)rows,
                .channels = 1,
                .dims = 2,
                .size = {(int32_t)frames, BEATS_MELS, 1},
                .layout = VIV_CHANNELS_LAST};
  map = nn_apply_conv(p, &m->patches, 0, &map); /* [rows, time, mel, embed] */
  struct beats_heard h = {.rows = rows, .tokens = nn_space(&map), .x = map.x};
  int64_t all = rows * h.tokens;
  nn_layer_norm(p, &m->patch_norm, h.x, all, h.x);
  nn_tap(p, h.x, NN_DIMS(rows, h.tokens, c->embed), "patch_norm");
  if (mask) h.mask = fewer(p, fewer(p, mask, rows, n, frames), rows, frames, h.tokens);
  if (m->projection.w) {
    h.x = nn_apply_linear(p, &m->projection, 0, h.x, all);
    nn_tap(p, h.x, NN_DIMS(rows, h.tokens, c->d), "post_extract_proj");
  }
  blank(p, &h, c->d);

  nn_mark here = nn_here(p);
  float *places = nn_pos_conv(p, &m->positions, VIV_GELU, h.x, rows, h.tokens);
  nn_tap(p, places, NN_DIMS(rows, h.tokens, c->d), "pos_conv");
  k->add(k, h.x, places, all * c->d);
  nn_release(p, here);
  if (!c->pre_norm) nn_layer_norm(p, &m->norm, h.x, all, h.x);
  nn_tap(p, h.x, NN_DIMS(rows, h.tokens, c->d), "encoder_in");
  run_layers(p, &h, upto);
  if (c->pre_norm && upto == c->layers) nn_layer_norm(p, &m->norm, h.x, all, h.x);
  return h;
}
