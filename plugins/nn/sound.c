/* Streams of sound, mixed and resampled piece by piece. */
#include "nn/sound.h"

#include <math.h>
#include <string.h>

enum { PIECE = 1024 }; /* samples that are read at once */

bool nn_streamed(nn_pass *p, const char *name) {
  const viv_value *v = nn_value(p, name, 0);
  return v && v->kind == VIV_KIND_STREAM;
}

void nn_sound_open(nn_pass *p, nn_sound *s, const char *name, int64_t rate, int64_t channels,
                   bool decimate) {
  *s = (nn_sound){.name = name, .to = rate, .out = channels, .step = 1};
  s->from = nn_param_int(p, "sampling_rate", rate, 1000, 768000);
  s->in = nn_param_int(p, "input_channels", channels, 1, 64);
  s->bytes = nn_keep(p, PIECE * s->in, sizeof(float));
  if (decimate && s->from % s->to == 0) s->step = s->from / s->to;
  if (s->from == s->to || s->step > 1) return;
  s->r = nn_resample_default(s->from, s->to);
  s->kernels = nn_keep(p, (int64_t)nn_resample_scratch(&s->r), sizeof(float));
  nn_resample_kernels(&s->r, s->kernels);
  /* What an output looks at, and a piece. An output is known once that has come. */
  int64_t reach = 0;
  while (nn_resample_ready(&s->r, reach) < 1) reach++;
  s->window = 2 * reach + s->from / s->to + 2 + PIECE;
  s->line = nn_keep(p, s->window * s->out, sizeof(float));
}

/* Whole samples into s->bytes: how many, or VIV_WAIT or VIV_DONE in *rc. */
static int64_t fetch(nn_pass *p, nn_sound *s, int64_t most, int32_t *rc) {
  int64_t unit = s->in * (int64_t)sizeof(float);
  if (most > PIECE) most = PIECE;
  while (s->have < unit) {
    uint64_t got = 0;
    *rc = nn_host_of(p)->stream_read(nn_value(p, s->name, 0)->stream, s->bytes + s->have,
                                     (uint64_t)(most * unit - s->have), &got);
    if (*rc < 0) nn_stop(p, *rc, s->name, "the stream could not be read");
    if (*rc == VIV_DONE) {
      s->ended = true;
      if (s->have)
        nn_stop(p, VIV_BAD_INPUT, s->name,
                "the stream ends within sample %lld: %lld bytes of %lld are there",
                (long long)s->came, (long long)s->have, (long long)unit);
    }
    if (*rc) return 0;
    s->have += (int64_t)got;
  }
  *rc = VIV_OK;
  const float *x = (const float *)(const void *)s->bytes;
  int64_t n = s->have / unit;
  for (int64_t i = 0; i < n * s->in; i++)
    if (!isfinite(x[i]))
      nn_stop(p, VIV_BAD_INPUT, s->name, "sample %lld of the stream is no finite number",
              (long long)(s->came + i / s->in));
  return n;
}

/* The first n samples of the piece were used. */
static void used(nn_sound *s, int64_t n) {
  int64_t bytes = n * s->in * (int64_t)sizeof(float);
  memmove(s->bytes, s->bytes + bytes, (size_t)(s->have - bytes));
  s->have -= bytes;
  s->came += n;
}

/* Channel c of the model in sample i of the piece; many channels become their mean. */
static float mixed(const nn_sound *s, int64_t i, int64_t c) {
  const float *x = (const float *)(const void *)s->bytes + i * s->in;
  if (s->in == s->out) return x[c];
  float sum = 0;
  for (int64_t k = 0; k < s->in; k++) sum += x[k];
  return sum / (float)s->in;
}

static int32_t read_plain(nn_pass *p, nn_sound *s, float *y, int64_t want, int64_t *got) {
  for (;;) {
    int32_t rc;
    int64_t n = fetch(p, s, s->step > 1 ? PIECE : want, &rc), out = 0;
    if (rc) return rc;
    if (n > want * s->step) n = want * s->step;
    for (int64_t i = (s->step - s->came % s->step) % s->step; i < n; i += s->step, out++)
      for (int64_t c = 0; c < s->out; c++) y[out * s->out + c] = mixed(s, i, c);
    used(s, n);
    if (!out) continue;
    s->given += out;
    *got = out;
    return VIV_OK;
  }
}

/* The piece joins the line; what no output looks at any more goes. */
static void take_piece(nn_sound *s, int64_t n) {
  int64_t keep = nn_resample_first(&s->r, s->given), gone = keep - s->begin;
  if (keep > s->came) gone = s->came - s->begin;
  int64_t rest = s->came - s->begin - gone;
  for (int64_t c = 0; c < s->out; c++) {
    float *line = s->line + c * s->window;
    memmove(line, line + gone, (size_t)rest * sizeof *line);
    for (int64_t i = 0; i < n; i++) line[rest + i] = mixed(s, i, c);
  }
  s->begin += gone;
  used(s, n);
}

static int32_t read_resampled(nn_pass *p, nn_sound *s, float *y, int64_t want, int64_t *got) {
  for (;;) {
    int64_t known =
        s->ended ? nn_resample_length(&s->r, s->came) : nn_resample_ready(&s->r, s->came);
    int64_t n = known - s->given < want ? known - s->given : want;
    if (n > 0) {
      nn_mark mark = nn_here(p);
      float *part = nn_room(p, n);
      for (int64_t c = 0; c < s->out; c++) {
        nn_resample_part(nn_compute_of(p), &s->r, s->kernels, s->line + c * s->window, s->begin,
                         s->came, s->given, n, part);
        for (int64_t i = 0; i < n; i++) y[i * s->out + c] = part[i];
      }
      nn_release(p, mark);
      s->given += n;
      *got = n;
      return VIV_OK;
    }
    if (s->ended) return VIV_DONE;
    int32_t rc;
    n = fetch(p, s, PIECE, &rc);
    if (rc == VIV_WAIT) return rc;
    if (rc == VIV_OK) take_piece(s, n);
  }
}

int32_t nn_sound_read(nn_pass *p, nn_sound *s, float *y, int64_t want, int64_t *got) {
  *got = 0;
  return s->kernels ? read_resampled(p, s, y, want, got) : read_plain(p, s, y, want, got);
}
