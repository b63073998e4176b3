/* A whole recording to text: windows one after another, each begun where the last whole segment of the
 * one before ended, tokens chosen greedily under Whisper's rules for timestamps.
 *
 * Official: openai/whisper transcribe.py and decoding.py (ApplyTimestampRules), at temperature 0;
 * transformers' WhisperTimeStampLogitsProcessor. Not done: other temperatures after a failed window,
 * and text of earlier windows in the prompt. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/text.h"
#include "whisper/whisper.h"

enum { PROMPT_MAX = 4 };
static const double STAMP_SECONDS = 0.02;

struct listener {
  struct nn_clip clip;
  int64_t prompt[PROMPT_MAX], n_prompt;
  int32_t language, first_stamp; /* ids; -1: none */
  bool stamps;                   /* are written and obeyed */
  bool show_stamps;
  double no_speech, worst; /* thresholds */
  int64_t most;
  int32_t *all; /* every token of text, for a model without a tokenizer */
  int64_t n_all, cap_all;
};

/* The tokens of one window. */
struct window {
  int32_t *ids;
  int64_t n;
  double mean_log, silent; /* mean log-probability; that nobody speaks */
};

/* ---- languages ---- */

static float *start_logits(nn_pass *p, const float *encoded) {
  const struct whisper_model *m = nn_net_of(p);
  float *logits = nn_room(p, m->config.vocab);
  nn_mark mark = nn_here(p);
  struct whisper_text text = whisper_begin(p, encoded, 1, 1);
  const int64_t start[1] = {m->rules.start};
  whisper_logits(p, whisper_read(p, &text, start, 1, false), 1, logits);
  nn_release(p, mark);
  return logits;
}

/* Place of the most likely language in the list; out [n_languages] their probabilities. */
static int32_t language_of(nn_pass *p, const float *encoded, float *out) {
  const struct whisper_model *m = nn_net_of(p);
  const viv_compute *k = nn_compute_of(p);
  int32_t n = m->rules.n_languages, best = 0;
  const float *logits = start_logits(p, encoded);
  for (int32_t i = 0; i < n; i++) out[i] = logits[m->rules.language[i].id];
  k->softmax(k, out, 1, n, out);
  for (int32_t i = 1; i < n; i++)
    if (out[i] > out[best]) best = i;
  return best;
}

static float *encode_window(nn_pass *p, const float *x, int64_t samples) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t frames = 2 * m->config.source;
  float *features = nn_room(p, m->config.mels * frames);
  whisper_features(p, x, samples, features);
  return whisper_encode(p, features, 1, frames);
}

static void say(nn_pass *p, int32_t kind, const char *name, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (n > 0 && n < (int)sizeof text) nn_result_text(p, kind, name, (viv_str){text, (uint64_t)n});
}

int32_t whisper_detect_language(nn_pass *p) {
  const struct whisper_model *m = nn_net_of(p);
  int32_t n = m->rules.n_languages;
  if (!n)
    nn_stop(p, VIV_NEVER, "generation_config.json",
            "names no languages (lang_to_id); this model knows one only");
  nn_clip clip = nn_clip_at(p, "audio", 0, m->config.rate);
  float *chance = nn_room(p, n);
  int32_t best = language_of(p, encode_window(p, clip.x, clip.samples), chance);
  viv_str code = m->rules.language[best].code;
  say(p, VIV_KIND_JSON, "language", "{\"language\":\"%.*s\",\"probability\":%.6g}", (int)code.len,
      code.ptr, (double)chance[best]);
  if (nn_wants_result(p, "probabilities"))
    nn_result(p, VIV_F32, chance, NN_DIMS(1, n), "probabilities");
  return VIV_DONE;
}

/* ---- what a job asks for ---- */

static int32_t language_named(nn_pass *p, viv_str name) {
  const struct whisper_rules *r = &((const struct whisper_model *)nn_net_of(p))->rules;
  for (int32_t i = 0; i < r->n_languages; i++)
    if (r->language[i].code.len == name.len && !memcmp(r->language[i].code.ptr, name.ptr, name.len))
      return i;
  nn_stop(p, VIV_BAD_INPUT, "language",
          "\"%.*s\" is none of the model's %d languages (en, de, ...)", (int)name.len, name.ptr,
          (int)r->n_languages);
}

static void begin_prompt(nn_pass *p, struct listener *l) {
  const struct whisper_rules *r = &((const struct whisper_model *)nn_net_of(p))->rules;
  viv_str task = nn_param_text(p, "task", "transcribe");
  bool translate = nn_is(task, "translate");
  if (!translate && !nn_is(task, "transcribe"))
    nn_stop(p, VIV_BAD_INPUT, "task", "\"%.*s\" is neither transcribe nor translate", (int)task.len,
            task.ptr);
  l->prompt[l->n_prompt++] = r->start;
  if (l->language >= 0) l->prompt[l->n_prompt++] = r->language[l->language].id;
  int32_t id = translate ? r->translate : r->transcribe;
  if (translate && (id < 0 || !r->multilingual))
    nn_stop(p, VIV_NEVER, "task", "this model does not translate");
  if (id >= 0 && r->multilingual) l->prompt[l->n_prompt++] = id;
  if (!l->stamps && r->no_timestamps >= 0) l->prompt[l->n_prompt++] = r->no_timestamps;
}

static void begin(nn_pass *p, struct listener *l) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  *l = (struct listener){.language = -1, .first_stamp = m->rules.no_timestamps + 1};
  bool known = m->rules.no_timestamps >= 0 && l->first_stamp < c->vocab;
  l->clip = nn_clip_at(p, "audio", 0, c->rate);
  l->show_stamps = nn_param_flag(p, "return_timestamps", false);
  l->stamps = known && (l->show_stamps || l->clip.samples > c->window);
  if (l->show_stamps && !known)
    nn_stop(p, VIV_NEVER, "return_timestamps",
            "generation_config.json names no no_timestamps_token_id: the model's tokens for times "
            "are unknown");
  l->no_speech = nn_param_num(p, "no_speech_threshold", 0.6, 0, 1);
  l->worst = nn_param_num(p, "logprob_threshold", -1, -1000, 0);
  viv_str language = nn_param_text(p, "language", "");
  if (language.len) {
    l->language = language_named(p, language);
  } else if (m->rules.multilingual && m->rules.n_languages) {
    nn_mark mark = nn_here(p);
    float *chance = nn_room(p, m->rules.n_languages);
    l->language = language_of(p, encode_window(p, l->clip.x, l->clip.samples), chance);
    nn_release(p, mark);
  }
  begin_prompt(p, l);
  int64_t room = c->target - l->n_prompt, usual = c->target / 2;
  if (room < 1)
    nn_stop(p, VIV_BAD_INPUT, "config.json", "max_target_positions leaves no room for text");
  l->most = nn_param_int(p, "max_new_tokens", usual < room ? usual : room, 1, room);
  l->cap_all = (l->clip.samples / (c->rate / 50) + 2 * l->most) + 64;
  l->all = nn_bytes(p, l->cap_all, sizeof *l->all);
}

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
                        const struct window *w, float *row) {
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

/* The next token; its log-probability is added to *sum. */
static int32_t choose(const struct whisper_model *m, const struct listener *l,
                      const struct window *w, float *row, double *sum) {
  int64_t vocab = m->config.vocab, best = 0;
  for (int32_t i = 0; i < m->rules.suppress.n; i++) row[m->rules.suppress.id[i]] = -INFINITY;
  for (int32_t i = 0; !w->n && i < m->rules.begin_suppress.n; i++)
    row[m->rules.begin_suppress.id[i]] = -INFINITY;
  if (l->stamps) obey_stamps(m, l, w, row);
  for (int64_t i = 1; i < vocab; i++)
    if (row[i] > row[best]) best = i;
  *sum += (double)row[best] - log_sum(row, vocab, row[best]);
  return (int32_t)best;
}

/* ---- one window ---- */

/* Probability of the token <|nospeech|>, which stands before the one that switches times off. */
static double silence(const struct whisper_model *m, const float *row) {
  int32_t id = m->rules.no_timestamps - 1;
  float top = top_of(row, m->config.vocab);
  return id < 0 ? 0 : exp((double)row[id] - log_sum(row, m->config.vocab, top));
}

static void hear(nn_pass *p, const struct listener *l, int64_t from, struct window *w) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t vocab = m->config.vocab, d = m->config.d, left = l->clip.samples - from, next;
  float *encoded = encode_window(p, l->clip.x + from, left);
  struct whisper_text text = whisper_begin(p, encoded, 1, l->n_prompt + l->most);
  float *row = nn_room(p, l->n_prompt * vocab);
  double sum = 0;
  w->n = 0;
  for (;;) {
    nn_mark mark = nn_here(p);
    next = w->n ? w->ids[w->n - 1] : 0;
    int64_t n = w->n ? 1 : l->n_prompt;
    float *x = whisper_read(p, &text, w->n ? &next : l->prompt, n, false);
    if (!w->n) {
      whisper_logits(p, x, 1, row); /* behind the start token */
      w->silent = silence(m, row);
    }
    whisper_logits(p, x + (n - 1) * d, 1, row);
    int32_t id = choose(m, l, w, row, &sum);
    nn_release(p, mark);
    if (id == m->rules.end || w->n == l->most) break;
    w->ids[w->n++] = id;
  }
  w->mean_log = sum / (double)(w->n + 1);
}

/* ---- text ---- */

/* The tokens of text among ids, handed over with the segment's times. */
static void tell(nn_pass *p, struct listener *l, const int32_t *ids, int64_t n, double start,
                 double end) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t first = l->n_all;
  for (int64_t i = 0; i < n && l->n_all < l->cap_all; i++)
    if (ids[i] < m->rules.end || (l->first_stamp <= 0 && ids[i] != m->rules.end))
      l->all[l->n_all++] = ids[i];
  viv_str text;
  if (l->n_all == first || !nn_text_of(p, l->all + first, l->n_all - first, true, &text)) return;
  if (!l->show_stamps) {
    nn_result_text(p, VIV_KIND_TEXT, "text", text);
    return;
  }
  /* Every byte may take six in JSON. */
  char *json = nn_bytes(p, (int64_t)text.len * 6 + 128, 1);
  char *at = json + sprintf(json, "{\"start\":%.2f,\"end\":%.2f,\"text\":\"", start, end);
  for (uint64_t i = 0; i < text.len; i++) {
    unsigned char byte = (unsigned char)text.ptr[i];
    if (byte == '"' || byte == '\\')
      at += sprintf(at, "\\%c", byte);
    else if (byte < 0x20)
      at += sprintf(at, "\\u%04x", byte);
    else
      *at++ = (char)byte;
  }
  at += sprintf(at, "\"}");
  nn_result_text(p, VIV_KIND_JSON, "segments", (viv_str){json, (uint64_t)(at - json)});
}

/* Hands the window's segments over; answers how many samples are done. A segment that the window's end
 * cuts is heard again from its start. */
static int64_t take_segments(nn_pass *p, struct listener *l, const struct window *w, int64_t from,
                             int64_t size) {
  const struct whisper_model *m = nn_net_of(p);
  double rate = (double)m->config.rate, offset = (double)from / rate;
  int32_t first = l->first_stamp;
  int64_t begin = 0, done = size;
  bool any = false;
  const int32_t *t = w->ids;
  bool whole = w->n >= 2 && t[w->n - 1] >= first && t[w->n - 2] < first;
  for (int64_t i = 1; i <= w->n; i++) {
    bool cut = i < w->n ? t[i - 1] >= first && t[i] >= first : whole && any;
    if (!cut) continue;
    any = true;
    tell(p, l, t + begin, i - begin, offset + (t[begin] - first) * STAMP_SECONDS,
         offset + (t[i - 1] - first) * STAMP_SECONDS);
    begin = i;
  }
  if (any) {
    if (!whole) done = (int64_t)((t[begin - 1] - first) * STAMP_SECONDS * rate);
    return done > 0 && done < size ? done : size;
  }
  double end = offset + (double)size / rate;
  for (int64_t i = w->n - 1; i >= 0; i--)
    if (t[i] > first) {
      end = offset + (t[i] - first) * STAMP_SECONDS;
      break;
    }
  tell(p, l, t, w->n, offset, end);
  return size;
}

int32_t whisper_transcribe(nn_pass *p) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  struct listener *l = nn_bytes(p, 1, sizeof *l);
  begin(p, l);
  if (l->language >= 0 && nn_wants_result(p, "language")) {
    viv_str code = m->rules.language[l->language].code;
    if (l->show_stamps)
      say(p, VIV_KIND_JSON, "language", "{\"language\":\"%.*s\"}", (int)code.len, code.ptr);
  }
  struct window w = {.ids = nn_bytes(p, l->most + 1, sizeof *w.ids)};
  for (int64_t at = 0; at < l->clip.samples;) {
    nn_mark mark = nn_here(p);
    int64_t left = l->clip.samples - at, size = left < c->window ? left : c->window;
    hear(p, l, at, &w);
    bool nobody = w.silent > l->no_speech && w.mean_log < l->worst;
    if (nobody)
      at += size;
    else if (l->stamps)
      at += take_segments(p, l, &w, at, size);
    else {
      tell(p, l, w.ids, w.n, (double)at / (double)c->rate, (double)(at + size) / (double)c->rate);
      at += size;
    }
    nn_release(p, mark);
    nn_progress(p, (double)at / (double)l->clip.samples);
  }
  viv_str unused;
  if (!nn_text_of(p, l->all, 0, true, &unused))
    nn_result(p, VIV_I32, l->all, NN_DIMS(1, l->n_all), "ids");
  return VIV_DONE;
}
