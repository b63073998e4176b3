/* Jobs that read a stream: a thread of its own feeds it while the results are pulled. Internal to
 * host/cli. */
#ifndef VIV_HOST_CLI_PUMP_H
#define VIV_HOST_CLI_PUMP_H

#include <stdatomic.h>

#include "cli/cli.h"

/* Up to `room` bytes of what the job reads. VIV_OK with *bytes above 0; VIV_WAIT: nothing came within
 * a tenth of a second; VIV_DONE: the end; a failure ends the job. Called on the feeding thread. */
typedef int32_t (*viv__pump_source)(void *context, void *data, uint64_t room, uint64_t *bytes,
                                    viv_error *error);
/* A result. A failure, described in error, ends the job. Called on the caller's thread. */
typedef int32_t (*viv__pump_sink)(void *context, const viv_event *event, viv_error *error);

/* Runs the task with the stream `input` to its end. Ctrl-C cancels it. The answer is the outcome's
 * status: the job's, or that of source or sink when one of them failed. */
int32_t viv__pump_run(const viv__loaded *l, const char *task, const cJSON *params,
                      const char *input, viv__pump_source source, void *source_context,
                      viv__pump_sink sink, void *sink_context, viv__outcome *out);

/* Raw samples of standard input, channels side by side, as a source of floats. */
typedef struct viv__pcm {
  const char *kind;       /* "s16" or "f32", in the machine's order */
  int64_t rate, channels; /* Hz */
  atomic_llong came;      /* samples of each channel so far */
  char held[4096];        /* less than a sample of all channels, between two calls */
  size_t n_held;
} viv__pcm;
/* BAD_INPUT with the reason, unless kind, rate and channels can be. */
int32_t viv__pcm_check(const viv__pcm *pcm, viv_error *error);
/* A source; context: the viv__pcm. */
int32_t viv__pcm_read(void *context, void *data, uint64_t room, uint64_t *bytes, viv_error *error);

#endif
