/* Silero VAD: is somebody speaking in this window of sound? forward.c is the network, segments.c
 * what makes stretches of speech of its probabilities. */
#ifndef PLUGINS_SILERO_H
#define PLUGINS_SILERO_H

#include "nn/audio.h"
#include "nn/modules.h"

enum { SILERO_CONVS = 4, SILERO_HIDDEN = 128 };

struct silero_config {
  int64_t rate, window, context; /* Hz, samples, samples */
  int64_t n_fft, hop, pad;
  int64_t bins; /* n_fft / 2 + 1 */
};

struct silero_model {
  nn_net net;
  struct silero_config config;
  nn_conv stft, conv[SILERO_CONVS];
  const viv_weight *w_input, *w_hidden; /* [4 * hidden, hidden], gates i, f, g, o */
  const float *b_input, *b_hidden;
  const float *final_w, *final_b; /* [hidden], [1] */
  char about[320];
};

/* The parameters of get_speech_timestamps, under its names; lengths of time in samples. */
struct silero_rules {
  double threshold, neg_threshold;
  double min_speech, min_silence, pad, max_speech, min_silence_at_max;
  int64_t window;
  bool longest_silence; /* use_max_poss_sil_at_max_speech */
};
struct silero_segment {
  int64_t start, end; /* samples */
};
/* Segments of n windows' probabilities over `samples` samples; out has room for n + 1. Answers how
 * many. Comparisons are made in double precision, as the official code does. */
int64_t silero_segments(const struct silero_rules *r, const double *probabilities, int64_t n,
                        int64_t samples, struct silero_segment *out,
                        struct silero_segment *silences);
/* VADIterator: one window more. true: an event, {0 start or 1 end, sample}. */
struct silero_watch {
  struct silero_rules rules;
  int64_t windows, silent_since;
  bool triggered;
};
bool silero_watch(struct silero_watch *w, double probability, int32_t *event);
/* All of them: events [n + 1, 2]. */
int64_t silero_events(const struct silero_rules *r, const double *probabilities, int64_t n,
                      int32_t *events);

extern const nn_task silero_tasks[];

#endif
