/* The task "generate": greedy tokens behind a prompt, for a batch of windows. */
#include <math.h>
#include <string.h>

#include "whisper/whisper.h"

/* What one job of generate asks for. */
struct options {
  int64_t most; /* new tokens */
  bool ignore_eos;
  int32_t pad;
  struct whisper_ids end, suppress, begin_suppress;
};

static void ids_of(nn_pass *p, const char *key, struct whisper_ids *out) {
  const struct whisper_model *m = nn_net_of(p);
  double *values = nn_bytes(p, WHISPER_MAX_SUPPRESSED, sizeof *values);
  out->n = nn_param_numbers(p, key, values, WHISPER_MAX_SUPPRESSED);
  for (int32_t i = 0; i < out->n; i++) {
    if (values[i] < 0 || values[i] >= (double)m->config.vocab || values[i] != floor(values[i]))
      nn_stop(p, VIV_BAD_INPUT, key, "%g is no token of this model", values[i]);
    out->id[i] = (int32_t)values[i];
  }
}

static struct options options_of(nn_pass *p, int64_t prompt) {
  const struct whisper_model *m = nn_net_of(p);
  struct options o = {.ignore_eos = nn_param_flag(p, "ignore_eos", false)};
  int64_t target = m->config.target, room = target - prompt;
  if (room < 1)
    nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids",
            "%lld tokens leave no room; the decoder has places for %lld", (long long)prompt,
            (long long)target);
  int64_t length = nn_param_int(p, "max_length", target, prompt + 1, target);
  o.most = nn_param_int(p, "max_new_tokens", length - prompt, 1, target);
  if (o.most > room) o.most = room;
  o.pad = (int32_t)nn_param_int(p, "pad_token_id", m->rules.pad, 0, m->config.vocab - 1);
  ids_of(p, "suppress_tokens", &o.suppress);
  ids_of(p, "begin_suppress_tokens", &o.begin_suppress);
  ids_of(p, "eos_token_id", &o.end);
  if (!o.end.n) o.end = (struct whisper_ids){1, {m->rules.end}};
  return o;
}

static void forbid(float *row, const struct whisper_ids *ids) {
  for (int32_t i = 0; i < ids->n; i++) row[ids->id[i]] = -INFINITY;
}

static bool holds(const struct whisper_ids *ids, int64_t id) {
  for (int32_t i = 0; i < ids->n; i++)
    if (ids->id[i] == id) return true;
  return false;
}

static int64_t largest(const float *row, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (row[i] > row[best]) best = i;
  return best;
}

/* features by a front end of the caller's or of the recordings: [*rows, mels, frames] */
static const float *features_of(nn_pass *p, int64_t *rows, int64_t *frames) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  int64_t shape[3] = {0, c->mels, 0};
  const float *given = nn_some_floats(p, "input_features", 3, shape);
  *rows = shape[0];
  *frames = shape[2];
  if (given) return given;
  int32_t n = nn_count(p, "audio");
  if (!n) nn_stop(p, VIV_BAD_INPUT, "input_features", "is missing, and so is audio");
  *rows = n;
  *frames = 2 * c->source;
  float *out = nn_room(p, n * c->mels * *frames);
  for (int32_t i = 0; i < n; i++) {
    nn_clip clip = nn_clip_at(p, "audio", i, c->rate);
    whisper_features(p, clip.x, clip.samples, out + i * c->mels * *frames);
  }
  return out;
}

/* New tokens of all rows: ids [rows, most] and, when it is wanted, their raw logits
 * [rows, most, vocab]. Answers how many steps were made. */
static int64_t write_tokens(nn_pass *p, const struct options *o, struct whisper_text *text,
                            const int64_t *prompt, int64_t n_prompt, int64_t *ids, float *kept) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t vocab = m->config.vocab, d = m->config.d, rows = text->rows, step = 0, open = rows;
  int64_t *next = nn_bytes(p, rows, sizeof *next);
  bool *done = nn_bytes(p, rows, sizeof *done);
  float *logits = nn_room(p, rows * vocab), *last = nn_room(p, rows * d);
  memset(done, 0, (size_t)rows * sizeof *done);
  for (; step < o->most && open; step++) {
    nn_mark mark = nn_here(p);
    int64_t n = step ? 1 : n_prompt;
    float *x = whisper_read(p, text, step ? next : prompt, n, false);
    for (int64_t r = 0; r < rows; r++)
      memcpy(last + r * d, x + (r * n + n - 1) * d, (size_t)d * sizeof *last);
    whisper_logits(p, last, rows, logits);
    for (int64_t r = 0; r < rows; r++) {
      float *row = logits + r * vocab;
      if (kept) memcpy(kept + (r * o->most + step) * vocab, row, (size_t)vocab * sizeof *kept);
      forbid(row, &o->suppress);
      if (!step) forbid(row, &o->begin_suppress);
      next[r] = done[r] ? o->pad : largest(row, vocab);
      ids[r * o->most + step] = next[r];
      if (done[r] || o->ignore_eos || !holds(&o->end, next[r])) continue;
      done[r] = true;
      open--;
    }
    nn_release(p, mark);
  }
  return step;
}

int32_t whisper_generate(nn_pass *p) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t rows, frames, shape[2] = {0, 0}, vocab = m->config.vocab;
  const float *features = features_of(p, &rows, &frames);
  if (rows < 1) nn_stop(p, VIV_BAD_INPUT, "input_features", "is empty");
  shape[0] = rows;
  int64_t start = m->rules.start;
  const int64_t *prompt = nn_some_ints(p, "decoder_input_ids", 2, shape);
  if (!prompt) { /* the start token alone, as the official generate does */
    int64_t *same = nn_bytes(p, rows, sizeof *same);
    for (int64_t r = 0; r < rows; r++) same[r] = start;
    prompt = same;
    shape[1] = 1;
  }
  int64_t n = shape[1];
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "is empty");
  struct options *o = nn_bytes(p, 1, sizeof *o);
  *o = options_of(p, n);
  float *encoded = whisper_encode(p, features, rows, frames);
  struct whisper_text text = whisper_begin(p, encoded, rows, n + o->most);
  int64_t *ids = nn_bytes(p, rows * o->most, sizeof *ids);
  float *kept = nn_wants_result(p, "step_logits") ? nn_room(p, rows * o->most * vocab) : NULL;
  int64_t steps = write_tokens(p, o, &text, prompt, n, ids, kept);

  int64_t *sequences = nn_bytes(p, rows * (n + steps), sizeof *sequences);
  for (int64_t r = 0; r < rows; r++) {
    int64_t *to = sequences + r * (n + steps);
    memcpy(to, prompt + r * n, (size_t)n * sizeof *to);
    memcpy(to + n, ids + r * o->most, (size_t)steps * sizeof *to);
    memmove(ids + r * steps, ids + r * o->most, (size_t)steps * sizeof *ids);
    if (kept)
      memmove(kept + r * steps * vocab, kept + r * o->most * vocab,
              (size_t)(steps * vocab) * sizeof *kept);
  }
  nn_result(p, VIV_I64, sequences, NN_DIMS(rows, n + steps), "sequences");
  if (nn_wants_result(p, "ids")) nn_result(p, VIV_I64, ids, NN_DIMS(rows, steps), "ids");
  if (kept) nn_result(p, VIV_F32, kept, NN_DIMS(rows, steps, vocab), "step_logits");
  return VIV_DONE;
}
