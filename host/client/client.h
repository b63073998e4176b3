/* A runtime whose models live in a daemon. Internal; vivarium.h's functions come here when the
 * runtime was made by viv_connect.
 *
 * One thread at a time reads what the daemon sends and puts it where it is waited for: replies to
 * the calls that wait, events into the jobs' queues. That is a thread of the connection's own, or, because a
 * change of threads takes longer than a small job, the one that waits for an answer. Whoever sends does so
 * under a lock of its own.
 * When the connection ends, every call and every job that is left ends once, with the reason. */
#ifndef VIV_HOST_CLIENT_H
#define VIV_HOST_CLIENT_H

#include "core/core.h"

void viv__remote_close(viv_runtime *rt);

/* params is a JSON object or NULL; json, the answer, may be NULL. Blocks until it has come. */
int32_t viv__remote_call(viv_runtime *rt, uint64_t model, const char *verb, const char *params,
                         viv_text *json, viv_error *error);
/* The same with a descriptor (-1: none), which is taken over, and with one that may come back. */
int32_t viv__remote_call_with(viv_runtime *rt, uint64_t model, const char *verb, const char *params,
                              int fd, viv_text *json, int *fd_out, viv_error *error);
int32_t viv__remote_load(viv_runtime *rt, const char *path, const char *params, viv_model **out,
                         viv_error *error);
/* why, plan, plugins, machine, models. */
int32_t viv__remote_inspect(viv_runtime *rt, const char *verb, const char *path, const char *params,
                            viv_text *json, viv_error *error);
int32_t viv__remote_tokenize(viv_model *m, viv_str text, bool add_special, int32_t **ids,
                             uint64_t *n, viv_error *error);
int32_t viv__remote_detokenize(viv_model *m, const int32_t *ids, uint64_t n, bool skip_special,
                               viv_text *text, viv_error *error);
int32_t viv__remote_session_open(viv_model *m, uint64_t *id, viv_error *error);
void viv__remote_session_close(viv_model *m, uint64_t id);
/* A session as bytes: read from the daemon into *data (viv__free), and given to it. */
int32_t viv__remote_session_save(viv_model *m, uint64_t id, char **data, size_t *len,
                                 viv_error *error);
int32_t viv__remote_session_resume(viv_model *m, const char *data, size_t len, uint64_t *id,
                                   viv_error *error);

int32_t viv__remote_submit(viv_model *m, const viv_request *request, viv_job **out,
                           viv_error *error);
void viv__remote_credit(viv_job *job, int64_t events);
void viv__remote_cancel(viv_job *job);
/* Sends what the job's streams hold, as far as the daemon has room for it. [any] */
void viv__remote_feed(viv_job *job);
/* Brings the job's next event on the calling thread, which saves a change of threads; until_ns as
 * viv__now_ns. False: another thread reads, so the caller has to sleep until it has brought the event, and
 * to call viv__remote_awake then. */
bool viv__remote_await(viv_job *job, uint64_t until_ns);
void viv__remote_awake(viv_job *job);
/* The job has a descriptor, which must become readable though nobody waits in viv_next_event. */
void viv__remote_described(viv_job *job);
/* Waits until none of the model's jobs runs. */
void viv__remote_settle(viv_model *m);

#endif
