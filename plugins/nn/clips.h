/* Recordings that come into a job, as one channel at the model's rate. */
#ifndef PLUGINS_NN_CLIPS_H
#define PLUGINS_NN_CLIPS_H

#include "nn/audio.h"
#include "nn/pass.h"

typedef struct nn_clip {
  const float *x; /* [samples], finite */
  int64_t samples;
} nn_clip;

/* Recording `at` of the inputs of that name: a tensor [T] or [channels, T]. Channels are averaged; the
 * parameter sampling_rate (absent: rate) says its rate, and another one is brought to `rate` as
 * torchaudio's resample does. Leaves the task with BAD_INPUT when there is none, it is empty or holds
 * a sample that is no finite number. */
nn_clip nn_clip_at(nn_pass *p, const char *name, int32_t at, int64_t rate);

/* The rows of a batch. */
typedef struct nn_clips {
  int64_t rows, samples;
  float *x;               /* [rows, samples] */
  const uint8_t *mask;    /* [rows, samples], 1 = real; NULL: all are */
  const int64_t *lengths; /* [rows] real samples */
} nn_clips;
/* All recordings of the name side by side, zeros behind the shorter ones (which the mask tells). */
nn_clips nn_clips_of(nn_pass *p, const char *name, int64_t rate);
/* Samples that the caller prepared: values [rows, T] as they are, with a mask [rows, T] (NULL or the
 * input is absent: none). Rows must be real from their beginning on. */
nn_clips nn_clips_prepared(nn_pass *p, const char *values, const char *mask);
/* Every row to zero mean and unit variance (population, + 1e-7) over its real samples, zeros behind:
 * Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm. */
void nn_clips_normalize(nn_clips *c);

#endif
