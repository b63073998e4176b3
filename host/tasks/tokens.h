/* Tasks over token models: generate, forward, score, encode, decode. Internal.
 *
 * All functions run on the thread that executes the model (worker.c). A round joins what the jobs
 * want into one batch, evaluates it and resumes each strategy: continuous batching. */
#ifndef VIV_HOST_TOKENS_H
#define VIV_HOST_TOKENS_H

#include "core/core.h"

int32_t viv__tokens_open(viv_model *m, viv_error *error);
void viv__tokens_close(viv_model *m);
/* Reads the request. The job becomes part of the following rounds. */
int32_t viv__tokens_begin(viv_model *m, viv_job *job, viv_error *error);
/* One batch of all active jobs. */
void viv__tokens_round(viv_model *m);
/* MORE while the job runs, DONE or the failure afterwards. */
int32_t viv__tokens_status(viv_job *job, viv_error *error);
/* Frees the job's task state; answers its counters as JSON text (viv__free), NULL for none. */
char *viv__tokens_end(viv_model *m, viv_job *job);
/* The tasks' schemas as JSON for viv_describe. */
extern const char viv__tokens_tasks[];
/* What lies in session bytes (tasks/session_file.c), pointing into them. */
typedef struct viv__saved {
  const int32_t *tokens;
  uint64_t n, bytes;
  const char *snapshot; /* [bytes] */
} viv__saved;
enum { VIV__SAVED_HEAD = 80 };
/* Reads them: of the checkpoint id, called name in messages, with so many tokens in its vocabulary. data is
 * untrusted and stands at a multiple of 4; path is for messages. */
int32_t viv__saved_read(const char *id, const char *name, int32_t vocab, const char *data,
                        size_t len, const char *path, viv__saved *out, viv_error *error);
/* The tokens that follow the head; -1: no head of that checkpoint's. */
int64_t viv__saved_head(const char *id, const char data[VIV__SAVED_HEAD]);
/* The bytes of a sequence (-1: none) that began with these tokens. *out: viv__free. */
int32_t viv__saved_write(viv_model *m, const char *id, int32_t seq, const int32_t *tokens,
                         uint64_t n, const char *path, char **out, size_t *len, viv_error *error);
int32_t viv__tokens_session_save(viv_session *s, const char *path, char **out, size_t *len,
                                 viv_error *error); /* viv__free; path is for messages */
int32_t viv__tokens_session_load(viv_session *s, const char *data, size_t len, const char *path,
                                 viv_error *error);
void viv__tokens_session_close(viv_session *s);

#endif
