/* A whole recording to text: windows one after another, each begun where the last whole segment of the
 * one before ended and told what was said before it.
 *
 * Official: openai/whisper transcribe.py. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "whisper/listen.h"

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

static void begin_start(nn_pass *p, struct listener *l) {
  const struct whisper_rules *r = &((const struct whisper_model *)nn_net_of(p))->rules;
  viv_str task = nn_param_text(p, "task", "transcribe");
  bool translate = nn_is(task, "translate");
  if (!translate && !nn_is(task, "transcribe"))
    nn_stop(p, VIV_BAD_INPUT, "task", "\"%.*s\" is neither transcribe nor translate", (int)task.len,
            task.ptr);
  l->start[l->n_start++] = r->start;
  if (l->language >= 0) l->start[l->n_start++] = r->language[l->language].id;
  int32_t id = translate ? r->translate : r->transcribe;
  if (translate && (id < 0 || !r->multilingual))
    nn_stop(p, VIV_NEVER, "task", "this model does not translate");
  if (id >= 0 && r->multilingual) l->start[l->n_start++] = id;
  if (!l->stamps && r->no_timestamps >= 0) l->start[l->n_start++] = r->no_timestamps;
}

/* Adds to what was said before; only the last of it is kept. */
static void remember(struct listener *l, const int32_t *ids, int64_t n) {
  int64_t skip = n > WHISPER_MAX_BEFORE ? n - WHISPER_MAX_BEFORE : 0;
  int64_t drop = l->n_before + n - skip - WHISPER_MAX_BEFORE;
  if (drop > 0) {
    memmove(l->before, l->before + drop, (size_t)(l->n_before - drop) * sizeof *l->before);
    l->n_before -= drop;
  }
  for (int64_t i = skip; i < n; i++) l->before[l->n_before++] = ids[i];
}

static void how_to_choose(nn_pass *p, struct listener *l) {
  static const double rising[] = {0, 0.2, 0.4, 0.6, 0.8, 1};
  const struct whisper_model *m = nn_net_of(p);
  double *before = nn_bytes(p, WHISPER_MAX_BEFORE, sizeof *before);
  l->n_temperatures = nn_param_numbers(p, "temperature", l->temperature, WHISPER_MAX_TEMPERATURES);
  if (!l->n_temperatures) {
    l->n_temperatures = sizeof rising / sizeof *rising;
    memcpy(l->temperature, rising, sizeof rising);
  }
  for (int32_t i = 0; i < l->n_temperatures; i++)
    if (!(l->temperature[i] >= 0 && l->temperature[i] <= 10))
      nn_stop(p, VIV_BAD_INPUT, "temperature", "%g is not between 0 and 10", l->temperature[i]);
  l->best_of = (int32_t)nn_param_int(p, "best_of", 1, 1, 64);
  l->random = (uint64_t)nn_param_int(p, "seed", 0, 0, INT64_MAX);
  l->no_speech = nn_param_num(p, "no_speech_threshold", 0.6, 0, 1);
  l->worst = nn_param_num(p, "logprob_threshold", -1, -1000, 0);
  l->repeated = nn_param_num(p, "compression_ratio_threshold", 2.4, 0, 1e9);
  l->remember = nn_param_flag(p, "condition_on_previous_text", true);
  int32_t n = nn_param_numbers(p, "prompt_ids", before, WHISPER_MAX_BEFORE);
  for (int32_t i = 0; i < n; i++) {
    int32_t id = (int32_t)before[i];
    if (!((double)id == before[i] && id >= 0 && id < m->config.vocab))
      nn_stop(p, VIV_BAD_INPUT, "prompt_ids", "%g is no token of this model", before[i]);
    if (i || id != m->rules.previous) remember(l, &id, 1);
  }
}

static void begin(nn_pass *p, struct listener *l) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  *l = (struct listener){.language = -1, .first_stamp = m->rules.no_timestamps + 1};
  bool known = m->rules.no_timestamps >= 0 && l->first_stamp < c->vocab;
  nn_clip clip = nn_clip_at(p, "audio", 0, c->rate);
  whisper_look(p, l, &clip);
  l->show_stamps = nn_param_flag(p, "return_timestamps", false);
  l->words = nn_param_flag(p, "word_timestamps", false);
  l->show_stamps |= l->words;
  l->stamps = known && (l->show_stamps || l->frames > 2 * c->source);
  if (l->show_stamps && !known)
    nn_stop(p, VIV_NEVER, "return_timestamps",
            "generation_config.json names no no_timestamps_token_id: the model's tokens for times "
            "are unknown");
  how_to_choose(p, l);
  viv_str language = nn_param_text(p, "language", "");
  if (language.len) {
    l->language = language_named(p, language);
  } else if (m->rules.multilingual && m->rules.n_languages) {
    nn_mark mark = nn_here(p);
    float *chance = nn_room(p, m->rules.n_languages);
    l->language = language_of(p, whisper_encode_part(p, l, 0, l->total), chance);
    nn_release(p, mark);
  }
  begin_start(p, l);
  int64_t room = c->target - l->n_start, usual = c->target / 2;
  if (room < 1)
    nn_stop(p, VIV_BAD_INPUT, "config.json", "max_target_positions leaves no room for text");
  l->most = nn_param_int(p, "max_new_tokens", usual < room ? usual : room, 1, room);
  l->cap_all = l->frames / 2 + 2 * l->most + 64;
  l->all = nn_bytes(p, l->cap_all, sizeof *l->all);
}

/* ---- text ---- */

struct segment {
  int64_t begin, end;        /* tokens of the window */
  double from, to;           /* seconds from the window's start */
  struct whisper_word *word; /* [words] */
  int64_t words;
};

static char *quote(char *at, viv_str text) {
  for (uint64_t i = 0; i < text.len; i++) {
    unsigned char byte = (unsigned char)text.ptr[i];
    if (byte == '"' || byte == '\\')
      at += sprintf(at, "\\%c", byte);
    else if (byte < 0x20)
      at += sprintf(at, "\\u%04x", byte);
    else
      *at++ = (char)byte;
  }
  return at;
}

static void tell_segment(nn_pass *p, const struct whisper_window *w, const struct segment *s,
                         double offset, viv_str text) {
  uint64_t size = text.len * 6 + 256; /* every byte may take six in JSON */
  for (int64_t i = 0; i < s->words; i++) size += s->word[i].text.len * 6 + 160;
  char *json = nn_bytes(p, (int64_t)size, 1), *at = json;
  at += sprintf(at, "{\"start\":%.2f,\"end\":%.2f,\"text\":\"", offset + s->from, offset + s->to);
  at = quote(at, text);
  at += sprintf(at, "\",\"temperature\":%g,\"avg_logprob\":%.6g,\"no_speech_prob\":%.6g",
                w->temperature, w->mean_log, w->silent);
  bool any = false;
  for (int64_t i = 0; i < s->words; i++) {
    const struct whisper_word *word = &s->word[i];
    if (!word->text.len) continue;
    at += sprintf(at, "%s{\"word\":\"", any ? "," : ",\"words\":[");
    at = quote(at, word->text);
    at += sprintf(at, "\",\"start\":%.2f,\"end\":%.2f,\"probability\":%.6g}", offset + word->from,
                  offset + word->to, word->chance);
    any = true;
  }
  at += sprintf(at, any ? "]}" : "}");
  nn_result_text(p, VIV_KIND_JSON, "segments", (viv_str){json, (uint64_t)(at - json)});
}

static bool is_text(const struct listener *l, const struct whisper_model *m, int32_t id) {
  return id < m->rules.end || (l->first_stamp <= 0 && id != m->rules.end);
}

/* The tokens of text of a segment, handed over with its times. */
static void tell(nn_pass *p, struct listener *l, const struct whisper_window *w,
                 const struct segment *s, double offset) {
  const struct whisper_model *m = nn_net_of(p);
  int64_t first = l->n_all;
  for (int64_t i = s->begin; i < s->end && l->n_all < l->cap_all; i++)
    if (is_text(l, m, w->ids[i])) l->all[l->n_all++] = w->ids[i];
  viv_str text;
  if (l->n_all == first || !nn_text_of(p, l->all + first, l->n_all - first, true, &text)) return;
  if (l->show_stamps)
    tell_segment(p, w, s, offset, text);
  else
    nn_result_text(p, VIV_KIND_TEXT, "text", text);
}

/* ---- segments ---- */

/* Cuts the window's tokens where two times meet: out [w->n + 1]; answers how many. *done: frames after
 * which the next window begins; *ended: the window ends with a single time, behind which nobody speaks. */
static int64_t cut(const struct listener *l, const struct whisper_window *w, int64_t size,
                   struct segment *out, int64_t *done, bool *ended) {
  int32_t first = l->first_stamp;
  int64_t begin = 0, n = 0;
  const int32_t *t = w->ids;
  bool whole = l->stamps && w->n >= 2 && t[w->n - 1] >= first && t[w->n - 2] < first;
  *done = size;
  *ended = whole;
  for (int64_t i = 1; l->stamps && i <= w->n; i++) {
    if (i < w->n ? t[i - 1] < first || t[i] < first : !whole || !n) continue;
    out[n++] = (struct segment){.begin = begin,
                                .end = i,
                                .from = (t[begin] - first) * WHISPER_STAMP_SECONDS,
                                .to = (t[i - 1] - first) * WHISPER_STAMP_SECONDS};
    begin = i;
  }
  if (n) {
    int64_t at = (t[begin - 1] - first) * WHISPER_STAMP_FRAMES;
    if (!whole && at > 0 && at < size) *done = at;
    return n;
  }
  out[0] = (struct segment){.end = w->n, .to = (double)size / WHISPER_FRAMES_PER_SECOND};
  for (int64_t i = w->n - 1; l->stamps && i >= 0; i--)
    if (t[i] > first) {
      out[0].to = (t[i] - first) * WHISPER_STAMP_SECONDS;
      break;
    }
  return 1;
}

/* Gives the segments their words. Answers where the last one ends, in seconds from the window's start; 0:
 * there are none. *last: where speech ended, from the recording's start. */
static double add_words(nn_pass *p, const struct listener *l, const struct whisper_window *w,
                        int64_t size, double offset, struct segment *s, int64_t n, double *last) {
  const struct whisper_model *m = nn_net_of(p);
  int32_t *ids = nn_bytes(p, w->n, sizeof *ids);
  int64_t texts = 0, at = 0;
  double usual, end = 0, before = *last - offset;
  struct whisper_word *words;
  for (int64_t k = 0; k < n; k++)
    for (int64_t i = s[k].begin; i < s[k].end; i++)
      if (is_text(l, m, w->ids[i])) ids[texts++] = w->ids[i];
  int64_t count = whisper_words(p, l, w->encoded, ids, texts, size, &words, &usual);
  for (int64_t k = 0; k < n; k++) {
    int64_t own = 0, taken = 0;
    for (int64_t i = s[k].begin; i < s[k].end; i++) own += is_text(l, m, w->ids[i]);
    s[k].word = count ? words + at : NULL;
    int64_t from = at;
    while (at < count && taken < own) {
      taken += words[at].end - words[at].begin;
      at++;
    }
    /* Words that went into a neighbour move to the end. */
    int64_t kept = from;
    for (int64_t i = from; i < at; i++)
      if (words[i].text.len) words[kept++] = words[i];
    s[k].words = kept - from;
    whisper_fit_words(s[k].word, s[k].words, usual, before, &s[k].from, &s[k].to);
    if (s[k].words) before = end = s[k].to;
  }
  if (end > 0) *last = offset + end;
  return end;
}

/* Hands the window's segments over; answers how many frames are done. A segment that the window's end
 * cuts is heard again from its start. */
static int64_t take_segments(nn_pass *p, struct listener *l, const struct whisper_window *w,
                             int64_t from, int64_t size, double *last) {
  double offset = (double)from / WHISPER_FRAMES_PER_SECOND;
  struct segment *s = nn_bytes(p, w->n + 1, sizeof *s);
  int64_t done;
  bool ended;
  int64_t n = cut(l, w, size, s, &done, &ended);
  if (l->words) {
    double end = add_words(p, l, w, size, offset, s, n, last);
    int64_t at = llround(end * WHISPER_FRAMES_PER_SECOND);
    if (!ended && at > 0 && at < size) done = at;
  }
  for (int64_t i = 0; i < n; i++) {
    tell(p, l, w, &s[i], offset);
    if (s[i].to > s[i].from) remember(l, w->ids + s[i].begin, s[i].end - s[i].begin);
  }
  if (!l->remember || w->temperature > 0.5) l->n_before = 0;
  return done;
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
  struct whisper_window w = {.ids = nn_bytes(p, l->most + 1, sizeof *w.ids)};
  double last = 0;
  for (int64_t at = 0; at < l->frames;) {
    nn_mark mark = nn_here(p);
    int64_t left = l->frames - at, size = left < 2 * c->source ? left : 2 * c->source;
    whisper_hear(p, l, at, &w);
    bool nobody = w.silent > l->no_speech && w.mean_log < l->worst;
    at += nobody ? size : take_segments(p, l, &w, at, size, &last);
    nn_release(p, mark);
    nn_progress(p, (double)at / (double)l->frames);
  }
  viv_str unused;
  if (!nn_text_of(p, l->all, 0, true, &unused))
    nn_result(p, VIV_I32, l->all, NN_DIMS(1, l->n_all), "ids");
  return VIV_DONE;
}
