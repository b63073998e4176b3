/* When each word is spoken: the decoder reads the window's text once more, and the attention of some of
 * its heads to the encoder is aligned with time.
 *
 *   tokens = start, no times, text, end;  S = softmax over frames of the heads' scores
 *   A = mean over heads of the median (7 frames) of (S - mean over tokens) / deviation over tokens
 *   dynamic time warping through -A: a token begins at the first frame of its row
 *
 * Official: openai/whisper timing.py (find_alignment, dtw, merge_punctuations, add_word_timestamps) and
 * tokenizer.py (split_to_word_tokens). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "whisper/listen.h"

enum { MEDIAN = 7, FRAMES_PER_SECOND = 50 };

/* ---- alignment ---- */

/* The scores of one head, as above up to the deviation: out [tokens, frames]. */
static void score(const nn_cache *keys, const float *q, int32_t head, int32_t heads, int64_t tokens,
                  int64_t frames, float *out) {
  int64_t d = keys->width, dim = d / heads;
  float scale = 1.0f / sqrtf((float)dim);
  for (int64_t t = 0; t < tokens; t++) {
    float *row = out + t * frames, top = -INFINITY;
    double sum = 0;
    for (int64_t f = 0; f < frames; f++) {
      const float *a = q + t * d + head * dim, *b = keys->k + f * d + head * dim;
      float x = 0;
      for (int64_t i = 0; i < dim; i++) x += a[i] * b[i];
      row[f] = x * scale;
      if (row[f] > top) top = row[f];
    }
    for (int64_t f = 0; f < frames; f++) sum += (double)(row[f] = expf(row[f] - top));
    for (int64_t f = 0; f < frames; f++) row[f] = (float)((double)row[f] / sum);
  }
  for (int64_t f = 0; f < frames; f++) {
    double mean = 0, square = 0;
    for (int64_t t = 0; t < tokens; t++) mean += (double)out[t * frames + f];
    mean /= (double)tokens;
    for (int64_t t = 0; t < tokens; t++) {
      double off = (double)out[t * frames + f] - mean;
      square += off * off;
    }
    double deviation = sqrt(square / (double)tokens);
    for (int64_t t = 0; t < tokens; t++) {
      double off = (double)out[t * frames + f] - mean;
      out[t * frames + f] = deviation > 0 ? (float)(off / deviation) : 0;
    }
  }
}

/* Adds the median of the MEDIAN numbers around each of n, which are reflected at the ends. */
static void add_medians(const float *x, int64_t n, float *sum) {
  enum { HALF = MEDIAN / 2 };
  for (int64_t i = 0; i < n; i++) {
    float near[MEDIAN];
    for (int64_t k = 0; k < MEDIAN; k++) {
      int64_t at = i + k - HALF;
      at = at < 0 ? -at : at >= n ? 2 * (n - 1) - at : at;
      int64_t place = k;
      for (; place > 0 && near[place - 1] > x[at]; place--) near[place] = near[place - 1];
      near[place] = x[at];
    }
    sum[i] += n > HALF ? near[HALF] : x[i];
  }
}

/* begin[i]: the first frame of row i on the cheapest way through -a [rows, frames]. */
static void warp(nn_pass *p, const float *a, int64_t rows, int64_t frames, int64_t *begin) {
  int64_t w = frames + 1;
  float *cost = nn_room(p, (rows + 1) * w);
  uint8_t *from = nn_bytes(p, (rows + 1) * w, 1);
  for (int64_t i = 0; i < (rows + 1) * w; i++) cost[i] = INFINITY;
  cost[0] = 0;
  for (int64_t j = 1; j <= frames; j++)
    for (int64_t i = 1; i <= rows; i++) {
      float both = cost[(i - 1) * w + j - 1], up = cost[(i - 1) * w + j],
            left = cost[i * w + j - 1];
      uint8_t way = both < up && both < left ? 0 : up < both && up < left ? 1 : 2;
      float least = way == 0 ? both : way == 1 ? up : left;
      cost[i * w + j] = (float)((double)least - (double)a[(i - 1) * frames + j - 1]);
      from[i * w + j] = way;
    }
  for (int64_t i = rows, j = frames; i > 0 || j > 0;) {
    uint8_t way = !i ? 2 : !j ? 1 : from[i * w + j];
    if (i > 0) begin[i - 1] = j > 0 ? j - 1 : 0;
    if (way != 2) i--;
    if (way != 1) j--;
  }
}

/* Seconds at which each token of text begins, and the end: at [n + 1]; the tokens' probabilities. */
static void align(nn_pass *p, const struct listener *l, const float *encoded, const int32_t *ids,
                  int64_t n, int64_t frames, double *at, double *chance) {
  const struct whisper_model *m = nn_net_of(p);
  const struct whisper_config *c = &m->config;
  const struct whisper_rules *r = &m->rules;
  int64_t start = l->n_start - (l->start[l->n_start - 1] == r->no_timestamps), all = start + n + 2;
  int64_t *tokens = nn_bytes(p, all, sizeof *tokens), *begin = nn_bytes(p, n + 1, sizeof *begin);
  memcpy(tokens, l->start, (size_t)start * sizeof *tokens);
  tokens[start] = r->no_timestamps;
  for (int64_t i = 0; i < n; i++) tokens[start + 1 + i] = ids[i];
  tokens[all - 1] = r->end;
  struct whisper_text text = whisper_begin(p, encoded, 1, all);
  text.queries = nn_room(p, c->decoder_layers * all * c->d);
  float *x = whisper_read(p, &text, tokens, all, false), *row = nn_room(p, c->vocab);
  for (int64_t i = 0; i < n; i++) {
    whisper_logits(p, x + (start + i) * c->d, 1, row);
    nn_compute_of(p)->softmax(nn_compute_of(p), row, 1, r->end, row);
    chance[i] = (double)row[ids[i]];
  }
  float *scores = nn_room(p, all * frames), *mean = nn_room(p, (n + 1) * frames);
  memset(mean, 0, (size_t)((n + 1) * frames) * sizeof *mean);
  int32_t heads = c->decoder_heads, half = c->decoder_layers / 2;
  int32_t count = r->n_heads ? r->n_heads : (c->decoder_layers - half) * heads;
  for (int32_t h = 0; h < count; h++) {
    int32_t layer = r->n_heads ? r->head[h][0] : half + h / heads;
    int32_t head = r->n_heads ? r->head[h][1] : h % heads;
    nn_pass_poll(p);
    score(&text.memory[layer].cross, text.queries + layer * all * c->d, head, heads, all, frames,
          scores);
    for (int64_t i = 0; i <= n; i++)
      add_medians(scores + (start + i) * frames, frames, mean + i * frames);
  }
  warp(p, mean, n + 1, frames, begin);
  for (int64_t i = 0; i <= n; i++) at[i] = (double)begin[i] / FRAMES_PER_SECOND;
}

/* ---- words ---- */

static viv_str trimmed(viv_str s) {
  while (s.len && s.ptr[0] == ' ') s.ptr++, s.len--;
  while (s.len && s.ptr[s.len - 1] == ' ') s.len--;
  return s;
}

/* Whether a text holds another, which is not empty. */
static bool holds(viv_str all, viv_str part) {
  for (uint64_t i = 0; part.len && i + part.len <= all.len; i++)
    if (!memcmp(all.ptr + i, part.ptr, part.len)) return true;
  return false;
}

static bool among(viv_str s, const char *list) {
  return holds(nn_str(list), s);
}

static viv_str text_of(nn_pass *p, const int32_t *ids, int64_t begin, int64_t end) {
  viv_str text = {"", 0};
  if (end > begin && !nn_text_of(p, ids + begin, end - begin, true, &text)) text.len = 0;
  return text;
}

/* Languages that put no spaces between words: each character that is complete is one. */
static bool without_spaces(const struct whisper_model *m, int32_t language) {
  static const char *const codes[] = {"zh", "ja", "th", "lo", "my", "yue"};
  for (size_t i = 0; language >= 0 && i < sizeof codes / sizeof *codes; i++)
    if (nn_is(m->rules.language[language].code, codes[i])) return true;
  return false;
}

static int64_t split(nn_pass *p, const struct listener *l, const int32_t *ids, int64_t n,
                     struct whisper_word *words) {
  static const char punctuation[] = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  bool characters = without_spaces(nn_net_of(p), l->language);
  int64_t count = 0;
  for (int64_t begin = 0, end = 1; end <= n; end++) {
    viv_str text = text_of(p, ids, begin, end);
    if (end < n && holds(text, nn_str("\xef\xbf\xbd"))) continue; /* half a character */
    bool fresh =
        !count || characters || (text.len && *text.ptr == ' ') || among(trimmed(text), punctuation);
    if (fresh) words[count++] = (struct whisper_word){.begin = begin};
    words[count - 1].end = end;
    begin = end;
  }
  for (int64_t i = 0; i < count; i++) words[i].text = text_of(p, ids, words[i].begin, words[i].end);
  return count;
}

static void take_over(nn_pass *p, const int32_t *ids, struct whisper_word *to,
                      struct whisper_word *from) {
  to->begin = from->begin < to->begin ? from->begin : to->begin;
  to->end = from->end > to->end ? from->end : to->end;
  to->text = text_of(p, ids, to->begin, to->end);
  from->begin = from->end;
  from->text.len = 0;
}

/* Punctuation goes to the word that it belongs to, which keeps its times. */
static void merge(nn_pass *p, const int32_t *ids, struct whisper_word *words, int64_t n) {
  static const char before[] = "\"'\u201c\u00bf([{-";
  static const char behind[] = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001";
  for (int64_t i = n - 2, j = n - 1; i >= 0; i--) {
    struct whisper_word *w = &words[i];
    if (w->text.len && *w->text.ptr == ' ' && among(trimmed(w->text), before))
      take_over(p, ids, &words[j], w);
    else
      j = i;
  }
  for (int64_t i = 0, j = 1; j < n; j++) {
    struct whisper_word *w = &words[i];
    bool open = !w->text.len || w->text.ptr[w->text.len - 1] != ' ';
    if (open && among(words[j].text, behind))
      take_over(p, ids, w, &words[j]);
    else
      i = j;
  }
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The median of the words' lengths, 0.7 s at most. */
static double usual_length(nn_pass *p, const struct whisper_word *words, int64_t n) {
  double *length = nn_bytes(p, n, sizeof *length), median = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++)
    if (words[i].to > words[i].from) length[count++] = words[i].to - words[i].from;
  if (!count) return 0;
  qsort(length, (size_t)count, sizeof *length, by_size);
  median = (length[(count - 1) / 2] + length[count / 2]) / 2;
  return median < 0.7 ? median : 0.7;
}

int64_t whisper_words(nn_pass *p, const struct listener *l, const float *encoded,
                      const int32_t *ids, int64_t n, int64_t frames, struct whisper_word **out,
                      double *usual) {
  static const char sentence_end[] = ".\u3002!\uff01?\uff1f";
  const struct whisper_model *m = nn_net_of(p);
  viv_str unused;
  frames = frames / 2 < m->config.source ? frames / 2 : m->config.source;
  *usual = 0;
  if (n < 1 || frames < 1 || l->n_start + n + 2 > m->config.target ||
      !nn_text_of(p, ids, n, true, &unused))
    return 0;
  struct whisper_word *words = nn_bytes(p, n, sizeof *words);
  double *at = nn_bytes(p, n + 1, sizeof *at), *chance = nn_bytes(p, n, sizeof *chance);
  nn_mark mark = nn_here(p);
  align(p, l, encoded, ids, n, frames, at, chance);
  int64_t count = split(p, l, ids, n, words);
  for (int64_t i = 0; i < count; i++) {
    struct whisper_word *w = &words[i];
    w->from = at[w->begin];
    w->to = at[w->end];
    for (int64_t t = w->begin; t < w->end; t++) w->chance += chance[t];
    w->chance /= (double)(w->end - w->begin);
  }
  *usual = usual_length(p, words, count);
  for (int64_t i = 1; i < count; i++) {
    if (words[i].to - words[i].from <= 2 * *usual) continue;
    if (among(words[i].text, sentence_end))
      words[i].to = words[i].from + 2 * *usual;
    else if (among(words[i - 1].text, sentence_end))
      words[i].from = words[i].to - 2 * *usual;
  }
  merge(p, ids, words, count);
  nn_release(p, mark);
  *out = words;
  return count;
}

void whisper_fit_words(struct whisper_word *words, int64_t n, double usual, double last,
                       double *from, double *to) {
  if (n < 1) return;
  struct whisper_word *a = &words[0], *b = &words[1], *z = &words[n - 1];
  double most = 2 * usual;
  if (a->to - last > 2 * most &&
      (a->to - a->from > most || (n > 1 && b->to - a->from > 2 * most))) {
    if (n > 1 && b->to - b->from > most) {
      double between = b->to / 2 > b->to - most ? b->to / 2 : b->to - most;
      a->to = b->from = between;
    }
    a->from = a->to - most > 0 ? a->to - most : 0;
  }
  if (*from<a->to && * from - 0.5> a->from) {
    double begin = a->to - usual < *from ? a->to - usual : *from;
    a->from = begin > 0 ? begin : 0;
  } else {
    *from = a->from;
  }
  if (*to > z->from && *to + 0.5 < z->to)
    z->to = z->from + usual > *to ? z->from + usual : *to;
  else
    *to = z->to;
}
