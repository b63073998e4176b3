/* What people and official callers ask of BEATs: classes, codes, features. */
#include <math.h>
#include <string.h>

#include "beats/beats.h"

/* Recordings longer than this are classified window by window. */
enum { WHOLE_SECONDS = 30, WINDOW_SECONDS = 10 };

/* ---- recordings ---- */

/* Rows as they are in `source` with `padding_mask` (1 = padding), or recordings of a person. */
struct sound {
  nn_clips clips;
  const uint8_t *mask; /* [rows, samples], 1 = real; NULL: all are */
  const char *name;
};

static struct sound read_sound(nn_pass *p) {
  if (!nn_count(p, "source")) {
    struct sound s = {.clips = nn_clips_of(p, "audio", BEATS_RATE), .name = "audio"};
    s.mask = s.clips.mask;
    return s;
  }
  int64_t rate = nn_param_int(p, "sampling_rate", BEATS_RATE, 1, INT32_MAX);
  if (rate != BEATS_RATE)
    nn_stop(p, VIV_BAD_INPUT, "sampling_rate",
            "source at %lld Hz; this model takes 16000 (audio is resampled)", (long long)rate);
  struct sound s = {.clips = nn_clips_prepared(p, "source", NULL), .name = "source"};
  int64_t shape[2] = {s.clips.rows, s.clips.samples}, n = shape[0] * shape[1];
  const int64_t *padding = nn_some_ints(p, "padding_mask", 2, shape);
  if (!padding) return s;
  uint8_t *real = nn_bytes(p, n, 1);
  for (int64_t i = 0; i < n; i++) real[i] = !padding[i];
  s.mask = real;
  return s;
}

static struct beats_heard hear(nn_pass *p, int32_t upto) {
  struct sound s = read_sound(p);
  return beats_encode(p, s.clips.x, s.mask, s.clips.rows, s.clips.samples, upto, s.name);
}

static void tell_mask(nn_pass *p, const struct beats_heard *h) {
  if (!h->mask || !nn_wants_result(p, "padding_mask")) return;
  uint8_t *padding = nn_bytes(p, h->rows * h->tokens, 1);
  for (int64_t i = 0; i < h->rows * h->tokens; i++) padding[i] = !h->mask[i];
  nn_result(p, VIV_U8, padding, NN_DIMS(h->rows, h->tokens), "padding_mask");
}

/* ---- classes ---- */

/* out [rows, classes]: the sigmoid of the mean over real tokens. */
static void probabilities(nn_pass *p, const struct beats_heard *h, float *out) {
  const struct beats_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t classes = m->config.classes;
  float *logits = nn_apply_linear(p, &m->head, 0, h->x, h->rows * h->tokens);
  nn_tap(p, logits, NN_DIMS(h->rows, h->tokens, classes), "token_logits");
  for (int64_t r = 0; r < h->rows; r++)
    for (int64_t i = 0; i < classes; i++) {
      double sum = 0, n = 0;
      for (int64_t t = 0; t < h->tokens; t++) {
        if (h->mask && !h->mask[r * h->tokens + t]) continue;
        sum += (double)logits[(r * h->tokens + t) * classes + i];
        n++;
      }
      out[r * classes + i] = (float)(sum / n);
    }
  c->unary(c, VIV_SIGMOID, out, out, h->rows * classes);
}

/* The mean over the windows of one long recording. The last window is the recording's end. */
static void by_windows(nn_pass *p, const nn_clip *clip, float *out) {
  const struct beats_model *m = nn_net_of(p);
  int64_t classes = m->config.classes, size = (int64_t)WINDOW_SECONDS * BEATS_RATE;
  int64_t windows = (clip->samples + size - 1) / size;
  float *one = nn_room(p, classes);
  double *sum = nn_bytes(p, classes, sizeof *sum);
  memset(sum, 0, (size_t)classes * sizeof *sum);
  for (int64_t w = 0; w < windows; w++) {
    nn_mark mark = nn_here(p);
    int64_t at = w + 1 < windows ? w * size : clip->samples - size;
    struct beats_heard h = beats_encode(p, clip->x + at, NULL, 1, size, m->config.layers, "audio");
    probabilities(p, &h, one);
    for (int64_t i = 0; i < classes; i++) sum[i] += (double)one[i];
    nn_release(p, mark);
    nn_progress(p, (double)(w + 1) / (double)windows);
  }
  for (int64_t i = 0; i < classes; i++) out[i] = (float)(sum[i] / (double)windows);
}

/* Each recording by itself, so that its length is its own. */
int32_t beats_classify(nn_pass *p) {
  const struct beats_model *m = nn_net_of(p);
  int32_t rows = nn_count(p, "audio");
  int64_t classes = m->config.classes;
  if (!rows) nn_stop(p, VIV_BAD_INPUT, "audio", "is missing: a recording as a file or a tensor");
  float *out = nn_room(p, rows * classes);
  for (int32_t r = 0; r < rows; r++) {
    nn_mark mark = nn_here(p);
    nn_clip clip = nn_clip_at(p, "audio", r, BEATS_RATE);
    if (clip.samples > (int64_t)WHOLE_SECONDS * BEATS_RATE) {
      by_windows(p, &clip, out + r * classes);
    } else {
      struct beats_heard h =
          beats_encode(p, clip.x, NULL, 1, clip.samples, m->config.layers, "audio");
      probabilities(p, &h, out + r * classes);
    }
    nn_release(p, mark);
  }
  nn_result(p, VIV_F32, out, NN_DIMS(rows, classes), "probabilities");
  return VIV_DONE;
}

/* ---- codes ---- */

/* |z|^2 + |e|^2 - 2 z e, which only a tap shows: [n, codes]. */
static void tap_distances(nn_pass *p, const float *z, int64_t n) {
  const struct beats_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t k = m->config.codes, d = m->config.code_dim;
  if (!nn_taps(p, "distances")) return;
  nn_mark mark = nn_here(p);
  float *out = nn_room(p, n * k);
  double *squares = nn_bytes(p, n + k, sizeof *squares);
  for (int64_t i = 0; i < n + k; i++) {
    const float *x = i < n ? z + i * d : m->codebook + (i - n) * d;
    squares[i] = 0;
    for (int64_t j = 0; j < d; j++) squares[i] += (double)x[j] * (double)x[j];
  }
  c->gemm(c, 0, 1, n, k, d, 1.0f, z, d, m->codebook, d, 0.0f, out, k);
  for (int64_t i = 0; i < n * k; i++)
    out[i] = (float)(squares[i / k] + squares[n + i % k] - 2 * (double)out[i]);
  nn_tap(p, out, NN_DIMS(n, k), "distances");
  nn_release(p, mark);
}

int32_t beats_tokens(nn_pass *p) {
  const struct beats_model *m = nn_net_of(p);
  const struct beats_config *c = &m->config;
  int64_t offset = nn_param_int(p, "token_offset", 0, 0, INT32_MAX);
  struct beats_heard h = hear(p, c->layers);
  int64_t n = h.rows * h.tokens;
  float *z = nn_apply_linear(p, &m->code_in, VIV_TANH, h.x, n);
  z = nn_apply_linear(p, &m->code_out, 0, z, n);
  nn_tap(p, z, NN_DIMS(h.rows, h.tokens, c->code_dim), "quantize_input");
  nn_unit_rows(z, n, c->code_dim, 1e-12, z);
  tap_distances(p, z, n);
  int32_t *nearest = nn_bytes(p, n, sizeof *nearest);
  int64_t *codes = nn_bytes(p, n, sizeof *codes);
  float *scratch = nn_room(p, (int64_t)nn_nearest_scratch(c->codes, c->code_dim));
  nn_nearest(nn_compute_of(p), m->codebook, c->codes, c->code_dim, z, n, nearest, scratch);
  for (int64_t i = 0; i < n; i++) codes[i] = nearest[i] + offset;
  nn_result(p, VIV_I64, codes, NN_DIMS(n), "audio_codes");
  tell_mask(p, &h);
  return VIV_DONE;
}

/* ---- features ---- */

/* The mean over a recording's real tokens, behind `layer` layers (all). */
int32_t beats_embed(nn_pass *p) {
  const struct beats_config *c = &((const struct beats_model *)nn_net_of(p))->config;
  int64_t layer = nn_param_int(p, "layer", c->layers, 0, c->layers);
  struct beats_heard h = hear(p, (int32_t)layer);
  float *mean = nn_room(p, h.rows * c->d);
  for (int64_t r = 0; r < h.rows; r++)
    for (int64_t i = 0; i < c->d; i++) {
      double sum = 0, n = 0;
      for (int64_t t = 0; t < h.tokens; t++) {
        if (h.mask && !h.mask[r * h.tokens + t]) continue;
        sum += (double)h.x[(r * h.tokens + t) * c->d + i];
        n++;
      }
      mean[r * c->d + i] = (float)(sum / n);
    }
  nn_result(p, VIV_F32, mean, NN_DIMS(h.rows, c->d), "embeddings");
  return VIV_DONE;
}

int32_t beats_forward(nn_pass *p) {
  const struct beats_model *m = nn_net_of(p);
  const struct beats_config *c = &m->config;
  struct beats_heard h = hear(p, c->layers);
  if (c->classes) {
    float *out = nn_room(p, h.rows * c->classes);
    probabilities(p, &h, out);
    nn_result(p, VIV_F32, out, NN_DIMS(h.rows, c->classes), "probabilities");
  } else {
    nn_result(p, VIV_F32, h.x, NN_DIMS(h.rows, h.tokens, c->d), "features");
  }
  tell_mask(p, &h);
  return VIV_DONE;
}
