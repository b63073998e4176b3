/* UnFuSeD's encoder, AudioNTT2020: clips of about a second as features, classes and pseudo-labels.
 * forward.c is the network, labels.c the clustering. */
#ifndef PLUGINS_AUDIONTT_H
#define PLUGINS_AUDIONTT_H

#include "nn/clips.h"
#include "nn/modules.h"

enum { AUDIONTT_BLOCKS = 3, AUDIONTT_CHANNELS = 64 };

struct audiontt_config {
  int64_t mels, width, classes; /* width: of the features; classes 0: no head */
  int64_t rate, unit;           /* Hz, samples of a clip */
  int32_t n_fft, hop;
  double low, high; /* Hz */
  bool reflect;     /* how the clip's ends are continued for the first and last frames */
  float mean, std;
};

struct audiontt_model {
  nn_net net;
  struct audiontt_config config;
  nn_conv block[AUDIONTT_BLOCKS];
  nn_linear fc[2], head;
  char about[512];
};

/* What the network makes of clips. */
struct audiontt_seen {
  int64_t rows, steps;
  float *first; /* [rows, mel * channel]: the mean over time behind the first block */
  int64_t first_width;
  float *fc; /* [rows, steps, width] */
};
/* Log-mel [rows, mels, frames] of the job's recordings, each in the middle of a unit. */
float *audiontt_log_mel(nn_pass *p, int64_t *rows, int64_t *frames);
/* The network. whole false: the first block alone. */
struct audiontt_seen audiontt_look(nn_pass *p, bool whole);

int32_t audiontt_preprocess(nn_pass *p);
int32_t audiontt_forward(nn_pass *p);
int32_t audiontt_classify(nn_pass *p);
int32_t audiontt_embed(nn_pass *p);
int32_t audiontt_pseudo_label(nn_pass *p);

#endif
