/* What the parts of the task "transcribe" share: transcribe.c goes through the recording, window.c writes
 * the tokens of a window, words.c says when each word is spoken. */
#ifndef PLUGINS_WHISPER_LISTEN_H
#define PLUGINS_WHISPER_LISTEN_H

#include "nn/text.h"
#include "whisper/whisper.h"

enum { WHISPER_MAX_TEMPERATURES = 16, WHISPER_MAX_BEFORE = 1024 };
#define WHISPER_STAMP_SECONDS 0.02
enum { WHISPER_STAMP_FRAMES = 2, WHISPER_FRAMES_PER_SECOND = 100 };

/* What a job asks for, and what was heard so far. */
struct listener {
  float *mel;                    /* [mels, total]: the whole recording, then silence of a window */
  int64_t frames, total;         /* of 10 ms: of the recording; of mel */
  int64_t start[4], n_start;     /* start, language, task, perhaps no times */
  int32_t language, first_stamp; /* ids; -1: none */
  bool stamps;                   /* are written and obeyed */
  bool show_stamps, words, remember;
  double no_speech, worst, repeated; /* thresholds; repeated: of the text's compression */
  double temperature[WHISPER_MAX_TEMPERATURES];
  int32_t n_temperatures;
  int32_t best_of; /* tries at a temperature above 0 */
  uint64_t random;
  int64_t most; /* tokens of a window */
  int32_t *all; /* every token of text, for a model without a tokenizer */
  int64_t n_all, cap_all;
  int64_t before[WHISPER_MAX_BEFORE], n_before; /* the last tokens heard, times among them */
};

/* The tokens of one window. */
struct whisper_window {
  int32_t *ids;
  int64_t n;
  double mean_log, silent; /* mean log-probability; that nobody speaks */
  double temperature;
  float *encoded; /* [source, d], until the window's room is released */
};

struct whisper_word {
  int64_t begin, end; /* tokens of text of the window */
  viv_str text;
  double from, to; /* seconds from the window's start */
  double chance;
};

/* The features of the whole recording, whose loudest sound sets their floor. */
void whisper_look(nn_pass *p, struct listener *l, const nn_clip *clip);
/* Encodes n frames from `from` on, and zeros up to a window: [source, d] in room of the pass. */
float *whisper_encode_part(nn_pass *p, const struct listener *l, int64_t from, int64_t n);
/* The window at frame `from`: its tokens to w, chosen at the lowest temperature whose text is neither
 * improbable nor repeats itself. */
void whisper_hear(nn_pass *p, struct listener *l, int64_t from, struct whisper_window *w);

/* The words of the window's n tokens of text ids and when each is spoken within `frames` of 10 ms; *out in
 * room of the pass, *usual their median length. Answers how many; 0: the model has no tokenizer. A word
 * whose text is empty has gone into its neighbour. */
int64_t whisper_words(nn_pass *p, const struct listener *l, const float *encoded,
                      const int32_t *ids, int64_t n, int64_t frames, struct whisper_word **out,
                      double *usual);
/* Words of a segment [*from, *to] that are far too long are cut to it, and it to the others. last: where
 * speech ended before. */
void whisper_fit_words(struct whisper_word *words, int64_t n, double usual, double last,
                       double *from, double *to);

#endif
