/* Sound that comes through a stream (sound.c): F32, the channels of a sample side by side, in pieces of
 * any size. The request's parameters say what it is: sampling_rate (Hz; the model's, if absent) and
 * input_channels (the model's). What nn_sound_read hands out is mixed and resampled to what the model
 * wants, sample for sample what a recording that comes as a whole becomes. */
#ifndef PLUGINS_NN_SOUND_H
#define PLUGINS_NN_SOUND_H

#include "nn/audio.h"
#include "nn/pass.h"

typedef struct nn_sound {
  const char *name; /* of the input */
  int64_t from, to; /* Hz */
  int64_t in, out;  /* channels of the stream, of the model */
  int64_t step;     /* above 1: every step-th sample is taken instead of resampling */
  bool ended;       /* the stream is over */
  int64_t came;     /* samples of the stream so far */
  int64_t given;    /* samples handed out */
  char *bytes;      /* a piece of the stream, [room, in] */
  int64_t have;     /* bytes of it */
  nn_resample r;
  float *kernels, *line; /* [out, window]: samples [begin, came) that outputs still look at */
  int64_t begin, window;
} nn_sound;

/* true: the input of that name is a stream. */
bool nn_streamed(nn_pass *p, const char *name);
/* decimate: of a multiple of the model's rate every k-th sample is taken. Memory of the job, bounded
 * by the rates alone. Leaves the task when the parameters are out of range. */
void nn_sound_open(nn_pass *p, nn_sound *s, const char *name, int64_t rate, int64_t channels,
                   bool decimate);
/* Up to `want` samples to y [want, channels]. VIV_OK: *got of them, at least one; VIV_WAIT: none
 * yet; VIV_DONE: none any more. Leaves the task on samples that are no finite numbers and when the
 * stream ends within a sample. */
int32_t nn_sound_read(nn_pass *p, nn_sound *s, float *y, int64_t want, int64_t *got);

#endif
