/* The tokens of one window, under Whisper's rules for timestamps, at temperatures that rise while the
 * text is improbable or repeats itself.
 *
 * Official: openai/whisper decoding.py (DecodingTask, ApplyTimestampRules) and transcribe.py
 * (decode_with_fallback); no beam search. transformers' WhisperTimeStampLogitsProcessor. */
#include <math.h>
#include <string.h>
#include <zlib.h>

#include "whisper/listen.h"

/* ---- choosing a token ---- */

static double log_sum(const float *x, int64_t n, float top) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)top);
  return log(sum) + (double)top;
}

static float top_of(const float *x, int64_t n) {
  float top = -INFINITY;
  for (int64_t i = 0; i < n; i++)
    if (x[i] > top) top = x[i];
  return top;
}

static void shut(float *row, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) row[i] = -INFINITY;
}

/* Times come in pairs, never go back, and come when they are together likelier than any text. */
static void obey_stamps(const struct whisper_model *m, const struct listener *l,
                        const struct whisper_window *w, float *row) {
  int64_t vocab = m->config.vocab, first = l->first_stamp;
  bool last = w->n > 0 && w->ids[w->n - 1] >= first;
  bool before = w->n < 2 || w->ids[w->n - 2] >= first;
  row[m->rules.no_timestamps] = -INFINITY;
  if (last && before)
    shut(row, first, vocab);
  else if (last)
    shut(row, 0, m->rules.end);
  for (int64_t i = w->n - 1; i >= 0; i--) {
    if (w->ids[i] < first) continue;
    shut(row, first, w->ids[i] + (last && !before ? 0 : 1));
    break;
  }
  if (!w->n) {
    shut(row, 0, first);
    int64_t latest = first + m->rules.max_initial_timestamp + 1;
    if (m->rules.max_initial_timestamp >= 0 && latest < vocab) shut(row, latest, vocab);
  }
  float text = top_of(row, first), stamp = top_of(row + first, vocab - first);
  if (stamp > -INFINITY && log_sum(row + first, vocab - first, stamp) > (double)text)
    shut(row, 0, first);
}

/* Between 0 and 1 (SplitMix64). */
static double chance(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* One of the tokens by its probability at the temperature. */
static int64_t sample(const float *row, int64_t n, double temperature, uint64_t *random) {
  double top = (double)top_of(row, n), sum = 0, at;
  for (int64_t i = 0; i < n; i++) sum += exp(((double)row[i] - top) / temperature);
  at = chance(random) * sum;
  int64_t best = 0;
  for (int64_t i = 0; i < n; i++) {
    double one = exp(((double)row[i] - top) / temperature);
    if (one > 0) best = i;
    if ((at -= one) < 0) break;
  }
  return best;
}

/* The next token; its log-probability is added to *sum. */
static int32_t choose(const struct whisper_model *m, struct listener *l,
                      const struct whisper_window *w, float *row, double *sum) {
  int64_t vocab = m->config.vocab, best = 0;
  for (int32_t i = 0; i < m->rules.suppress.n; i++) row[m->rules.suppress.id[i]] = -INFINITY;
  for (int32_t i = 0; !w->n && i < m->rules.begin_suppress.n; i++)
    row[m->rules.begin_suppress.id[i]] = -INFINITY;
  if (l->stamps) obey_stamps(m, l, w, row);
  if (w->temperature > 0) {
    best = sample(row, vocab, w->temperature, &l->random);
  } else {
    for (int64_t i = 1; i < vocab; i++)
      if (row[i] > row[best]) best = i;
  }
  *sum += (double)row[best] - log_sum(row, vocab, top_of(row, vocab));
  return (int32_t)best;
}

/* ---- features ---- */

void whisper_look(nn_pass *p, struct listener *l, const nn_clip *clip) {
  const struct whisper_model *m = nn_net_of(p);
  const nn_log_mel *k = &m->config.mel;
  int64_t step = 2 * m->config.source, half = k->n_fft / 2, mels = k->mels;
  l->frames = nn_log_mel_frames(k, clip->samples);
  l->total = l->frames + step;
  l->mel = nn_room(p, mels * l->total);
  nn_mark mark = nn_here(p);
  float *x = nn_room(p, (step - 1) * k->hop + k->n_fft), *part = nn_room(p, mels * step);
  float *scratch = nn_room(p, (int64_t)nn_log_mel_scratch(k, step * k->hop)), top = -INFINITY;
  for (int64_t begin = 0; begin < l->total; begin += step) {
    int64_t n = l->total - begin < step ? l->total - begin : step;
    for (int64_t i = 0; i < (n - 1) * k->hop + k->n_fft; i++) {
      int64_t at = begin * k->hop + i - half;
      if (at < 0) at = -at; /* reflected at the start */
      x[i] = at < clip->samples ? clip->x[at] : 0;
    }
    nn_pass_poll(p);
    float most = nn_log_mel_part(nn_compute_of(p), k, x, n, part, scratch);
    top = most > top ? most : top;
    for (int64_t i = 0; i < mels; i++)
      memcpy(l->mel + i * l->total + begin, part + i * n, (size_t)n * sizeof *part);
  }
  nn_log_mel_scale(l->mel, mels * l->total, top);
  nn_release(p, mark);
}

float *whisper_encode_part(nn_pass *p, const struct listener *l, int64_t from, int64_t n) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t window = 2 * m->config.source, mels = m->config.mels;
  float *features = nn_room(p, mels * window);
  if (n > window) n = window;
  memset(features, 0, (size_t)(mels * window) * sizeof *features);
  for (int64_t i = 0; i < mels; i++)
    memcpy(features + i * window, l->mel + i * l->total + from, (size_t)n * sizeof *features);
  return whisper_encode(p, features, 1, window);
}

/* ---- one try ---- */

/* Probability of the token <|nospeech|>, which stands before the one that switches times off. */
static double silence(const struct whisper_model *m, const float *row) {
  int32_t id = m->rules.no_timestamps - 1;
  float top = top_of(row, m->config.vocab);
  return id < 0 ? 0 : exp((double)row[id] - log_sum(row, m->config.vocab, top));
}

/* What stands before the window's text: the last tokens heard, then the start. *begin: its place. */
static int64_t *prompt_of(nn_pass *p, const struct listener *l, int64_t *n, int64_t *begin) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t most = m->config.target / 2 - 1, before = l->n_before < most ? l->n_before : most;
  int64_t *prompt = nn_bytes(p, before + 1 + l->n_start, sizeof *prompt);
  *begin = 0;
  if (before > 0 && m->rules.previous >= 0) {
    prompt[0] = m->rules.previous;
    memcpy(prompt + 1, l->before + l->n_before - before, (size_t)before * sizeof *prompt);
    *begin = before + 1;
  }
  memcpy(prompt + *begin, l->start, (size_t)l->n_start * sizeof *prompt);
  *n = *begin + l->n_start;
  return prompt;
}

static void write_window(nn_pass *p, struct listener *l, struct whisper_window *w) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t d = m->config.d, n_prompt, begin, next, most = l->most;
  nn_mark all = nn_here(p);
  int64_t *prompt = prompt_of(p, l, &n_prompt, &begin);
  if (most > m->config.target - n_prompt) most = m->config.target - n_prompt;
  struct whisper_text text = whisper_begin(p, w->encoded, 1, n_prompt + most);
  float *row = nn_room(p, m->config.vocab);
  double sum = 0;
  w->n = 0;
  for (;;) {
    nn_mark mark = nn_here(p);
    next = w->n ? w->ids[w->n - 1] : 0;
    int64_t n = w->n ? 1 : n_prompt;
    float *x = whisper_read(p, &text, w->n ? &next : prompt, n, false);
    if (!w->n) {
      whisper_logits(p, x + begin * d, 1, row); /* behind the start token */
      w->silent = silence(m, row);
    }
    whisper_logits(p, x + (n - 1) * d, 1, row);
    int32_t id = choose(m, l, w, row, &sum);
    nn_release(p, mark);
    if (id == m->rules.end || w->n >= most) break;
    w->ids[w->n++] = id;
  }
  w->mean_log = sum / (double)(w->n + 1);
  nn_release(p, all);
}

/* ---- several ---- */

/* How many times smaller zlib makes the window's text: much for one that repeats itself. Without a
 * tokenizer the ids stand for it. */
static double compression(nn_pass *p, const struct whisper_window *w) {
  viv_str text;
  nn_mark mark = nn_here(p);
  if (!nn_text_of(p, w->ids, w->n, true, &text))
    text = (viv_str){(const char *)w->ids, (uint64_t)w->n * sizeof *w->ids};
  uLongf size = compressBound((uLong)text.len);
  Bytef *room = nn_bytes(p, (int64_t)size, 1);
  if (compress(room, &size, (const Bytef *)text.ptr, (uLong)text.len) != Z_OK) size = 1;
  nn_release(p, mark);
  return (double)text.len / (double)size;
}

static bool good_enough(nn_pass *p, const struct listener *l, const struct whisper_window *w) {
  if (w->silent > l->no_speech && w->mean_log < l->worst) return true; /* nobody speaks */
  return w->mean_log >= l->worst && compression(p, w) <= l->repeated;
}

void whisper_hear(nn_pass *p, struct listener *l, int64_t from, struct whisper_window *w) {
  w->encoded = whisper_encode_part(p, l, from, l->frames - from);
  struct whisper_window best = {.ids = nn_bytes(p, l->most + 1, sizeof *best.ids)};
  for (int32_t t = 0; t < l->n_temperatures; t++) {
    int32_t tries = l->temperature[t] > 0 ? l->best_of : 1;
    for (int32_t i = 0; i < tries; i++) {
      w->temperature = l->temperature[t];
      write_window(p, l, w);
      if (i && w->mean_log <= best.mean_log) continue;
      memcpy(best.ids, w->ids, (size_t)w->n * sizeof *w->ids);
      best.n = w->n;
      best.mean_log = w->mean_log;
    }
    memcpy(w->ids, best.ids, (size_t)best.n * sizeof *w->ids);
    w->n = best.n;
    w->mean_log = best.mean_log;
    if (good_enough(p, l, w)) return;
  }
}
