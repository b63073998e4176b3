/* Probabilities to stretches of speech. Official: silero_vad/utils_vad.py, get_speech_timestamps and
 * VADIterator. */
#include <math.h>

#include "silero/silero.h"

/* What is known while the windows pass. 0 stands for "none" in ends as in the official code, so that
 * a silence from the very first sample on is not one. */
struct state {
  const struct silero_rules *rules;
  struct silero_segment *out;
  struct silero_segment *silences; /* within this speech, {begin, length} */
  int64_t n, n_silences;
  int64_t start; /* of the speech that is going on; -1: none */
  bool triggered;
  int64_t silent_since, last_end, next_start;
};

static void forget(struct state *s) {
  s->silent_since = s->last_end = s->next_start = 0;
  s->n_silences = 0;
}

static void close_speech(struct state *s, int64_t end) {
  s->out[s->n++] = (struct silero_segment){s->start, end};
  s->start = -1;
}

/* The speech is longer than it may be: it is cut at its longest silence, at its last one, or here.
 * true: the window is dealt with. */
static bool cut(struct state *s, int64_t now) {
  if (s->rules->longest_silence && s->n_silences) {
    struct silero_segment longest = s->silences[0];
    for (int64_t i = 1; i < s->n_silences; i++)
      if (s->silences[i].end > longest.end) longest = s->silences[i];
    close_speech(s, longest.start);
    int64_t again = longest.start + longest.end;
    s->triggered = again < longest.start + now;
    if (s->triggered) s->start = again;
    forget(s);
    return false;
  }
  if (s->last_end) {
    close_speech(s, s->last_end);
    s->triggered = s->next_start >= s->last_end;
    if (s->triggered) s->start = s->next_start;
    forget(s);
    return false;
  }
  close_speech(s, now);
  s->triggered = false;
  forget(s);
  return true;
}

static void silence(struct state *s, int64_t now) {
  if (!s->silent_since) s->silent_since = now;
  double lasted = (double)(now - s->silent_since);
  if (!s->rules->longest_silence && lasted > s->rules->min_silence_at_max)
    s->last_end = s->silent_since;
  if (lasted < s->rules->min_silence) return;
  int64_t end = s->silent_since;
  if ((double)(end - s->start) > s->rules->min_speech) close_speech(s, end);
  s->start = -1;
  s->triggered = false;
  forget(s);
}

static void window(struct state *s, double probability, int64_t now) {
  const struct silero_rules *r = s->rules;
  bool speech = probability >= r->threshold;
  if (speech && s->silent_since) {
    int64_t lasted = now - s->silent_since;
    if ((double)lasted > r->min_silence_at_max)
      s->silences[s->n_silences++] = (struct silero_segment){s->silent_since, lasted};
    s->silent_since = 0;
    if (s->next_start < s->last_end) s->next_start = now;
  }
  if (speech && !s->triggered) {
    s->triggered = true;
    s->start = now;
    return;
  }
  if (s->triggered && (double)(now - s->start) > r->max_speech && cut(s, now)) return;
  if (probability < r->neg_threshold && s->triggered) silence(s, now);
}

/* Segments grow by the pad on both sides, and share a silence that is too short for two. */
static void widen(const struct silero_rules *r, struct silero_segment *s, int64_t n,
                  int64_t samples) {
  if (n) s[0].start = (int64_t)fmax(0, (double)s[0].start - r->pad);
  for (int64_t i = 0; i < n; i++) {
    double padded = fmin((double)samples, (double)s[i].end + r->pad);
    if (i == n - 1) {
      s[i].end = (int64_t)padded;
      continue;
    }
    int64_t gap = s[i + 1].start - s[i].end;
    if ((double)gap < 2 * r->pad) {
      int64_t half = gap >= 0 ? gap / 2 : -((1 - gap) / 2); /* rounds down, as Python's // */
      s[i].end += half;
      s[i + 1].start = s[i + 1].start > half ? s[i + 1].start - half : 0;
    } else {
      s[i].end = (int64_t)padded;
      s[i + 1].start = (int64_t)fmax(0, (double)s[i + 1].start - r->pad);
    }
  }
}

int64_t silero_segments(const struct silero_rules *r, const double *probabilities, int64_t n,
                        int64_t samples, struct silero_segment *out,
                        struct silero_segment *silences) {
  struct state s = {.rules = r, .out = out, .silences = silences, .start = -1};
  for (int64_t i = 0; i < n; i++) window(&s, probabilities[i], i * r->window);
  if (s.start >= 0 && (double)(samples - s.start) > r->min_speech) close_speech(&s, samples);
  widen(r, out, s.n, samples);
  return s.n;
}

bool silero_watch(struct silero_watch *w, double probability, int32_t *event) {
  const struct silero_rules *r = &w->rules;
  int64_t now = ++w->windows * r->window; /* the end of this window */
  double at;
  if (probability >= r->threshold) {
    w->silent_since = 0;
    if (w->triggered) return false;
    w->triggered = true;
    at = fmax(0, (double)(now - r->window) - r->pad);
  } else if (w->triggered && probability < r->neg_threshold) {
    if (!w->silent_since) w->silent_since = now;
    if ((double)(now - w->silent_since) < r->min_silence) return false;
    w->triggered = false;
    at = (double)(w->silent_since - r->window) + r->pad;
    w->silent_since = 0;
  } else {
    return false;
  }
  event[0] = !w->triggered;
  event[1] = (int32_t)at;
  return true;
}

int64_t silero_events(const struct silero_rules *r, const double *probabilities, int64_t n,
                      int32_t *events) {
  struct silero_watch w = {.rules = *r};
  int64_t found = 0;
  for (int64_t i = 0; i < n; i++) found += silero_watch(&w, probabilities[i], events + 2 * found);
  return found;
}
