/* libvivarium: models in your own process.
 *
 *   viv_runtime *rt;  viv_model *model;  viv_job *job;  viv_event event;  viv_error error;
 *   viv_open(NULL, &rt, &error);
 *   viv_load(rt, "path/to/model", NULL, &model, &error);
 *   viv_submit_text(model, "What is 12 + 30?", "{\"max_new_tokens\": 64}", &job, &error);
 *   while (viv_next_event(job, -1, &event) == VIV_OK) { ... if (event.flags & VIV_EVENT_FINAL) break; }
 *   viv_job_free(job);  viv_unload(model);  viv_close(rt);
 *
 * All functions may be called from any thread; one job's events are pulled by one thread at a time.
 * No callback is needed and none ever enters the caller's code. Structs follow the rules of core.h:
 * set struct_size, zero the rest. Strings that are terminated here are marked const char *. */
#ifndef VIVARIUM_VIVARIUM_H
#define VIVARIUM_VIVARIUM_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef VIV_API
#if defined(VIV_NO_INCLUDES)
#define VIV_API
#elif defined(__GNUC__)
#define VIV_API __attribute__((visibility("default")))
#else
#define VIV_API
#endif
#endif

typedef struct viv_runtime viv_runtime; /* a host: plugins, loop thread, workers */
typedef struct viv_model viv_model;     /* a loaded model */
typedef struct viv_session viv_session; /* state that a model keeps between jobs */

typedef struct viv_options {
  uint32_t struct_size;
  int32_t threads;           /* of the compute pool; 0: VIV_THREADS, else one per core */
  const char *plugin_path;   /* colon-separated folders; NULL: VIV_PLUGIN_PATH, then the folders beside
                                the library and the installed one */
  const char *cache_dir;     /* scan cache and quarantine; NULL: $XDG_CACHE_HOME/vivarium */
  uint64_t memory_budget;    /* bytes for all loaded models and sessions; 0: 80 % of the machine's */
  int32_t log_level;         /* enum viv_log_level; 0: VIV_LOG, else WARN */
  int32_t log_json;          /* 1: JSON lines */
  int32_t log_fd;            /* 0: standard error */
  int32_t safe_mode;         /* 1: first-party plugins only, portable kernels */
} viv_options;

/* A text that the library allocated (terminated); free it with viv_text_free. */
typedef struct viv_text {
  char *ptr;
  uint64_t len;
} viv_text;

VIV_API void viv_text_free(viv_text *text);
VIV_API const char *viv_version(void);
VIV_API const char *viv_status_name(int32_t status);

VIV_API int32_t viv_open(const viv_options *options, viv_runtime **out, viv_error *error);
/* A runtime whose models live in a daemon, vivd: every function below means the same, but a crash costs
 * a job and not this process, and other programs share the models. viv_unload lets go of the model,
 * which stays loaded for others. socket: its path, or NULL: $VIV_SOCKET,
 * $XDG_RUNTIME_DIR/vivarium/vivd.sock, /run/vivarium/vivd.sock. VIV_NOT_NOW: nobody listens there.
 * VIV_NEVER: who listens refuses this user or this version. Streams as inputs need viv_open. */
VIV_API int32_t viv_connect(const char *socket, viv_runtime **out, viv_error *error);
/* Cancels all jobs, waits for them, unloads all models. Handles of the runtime are invalid then. */
VIV_API void viv_close(viv_runtime *runtime);

/* JSON documents: plugins (manifests, states, refusals), machine (CPU features, BLAS core, memory),
 * why (every candidate for a model directory and why each was taken or refused), plan (the memory
 * plan of a model directory, before loading). params as in viv_load. */
VIV_API int32_t viv_plugins(viv_runtime *runtime, viv_text *json, viv_error *error);
VIV_API int32_t viv_machine(viv_runtime *runtime, viv_text *json, viv_error *error);
VIV_API int32_t viv_why(viv_runtime *runtime, const char *path, viv_text *json, viv_error *error);
VIV_API int32_t viv_plan(viv_runtime *runtime, const char *path, const char *params, viv_text *json,
                         viv_error *error);

/* Loads a model directory. params: a JSON object or NULL: "plugin" (id), "weights" ("as-stored",
 * "f32", "bf16", "f16", "int8", "int4"), "max_jobs" (that run side by side, 1 to 64; 16), "context" (at
 * most so many tokens per sequence, not more than the model allows). Blocks, but shortly: files are
 * mapped, not read. VIV_NOT_NOW when the budget does not allow it, with needed and available bytes in
 * the text. */
VIV_API int32_t viv_load(viv_runtime *runtime, const char *path, const char *params, viv_model **out,
                         viv_error *error);
/* Running jobs end first; new ones are refused. Waits for them: a job that stands because nobody reads
 * its events must be read or cancelled, or this waits for ever. */
VIV_API void viv_unload(viv_model *model);
VIV_API int32_t viv_describe(viv_model *model, viv_text *json, viv_error *error);
VIV_API int32_t viv_models(viv_runtime *runtime, viv_text *json, viv_error *error); /* loaded ones */

typedef struct viv_request {
  uint32_t struct_size;
  int32_t n_inputs;
  const char *task;               /* "generate", "forward", ... */
  const char *params;             /* a JSON object or NULL */
  const viv_value *const *inputs; /* [n_inputs], copied before submit returns */
  viv_session *session;           /* NULL: none */
  int32_t priority;               /* larger goes first */
  int32_t reserved;
  int64_t deadline_ms;            /* from now; 0: none */
  int64_t max_queued_events;      /* back-pressure: 0 = 256 */
} viv_request;

VIV_API int32_t viv_submit(viv_model *model, const viv_request *request, viv_job **out,
                           viv_error *error);
/* task "generate" with one text input */
VIV_API int32_t viv_submit_text(viv_model *model, const char *text, const char *params, viv_job **out,
                                viv_error *error);

/* The next event, valid until the next call for this job or viv_job_free. timeout_ms -1 waits for
 * ever, 0 does not wait. VIV_OK: *event is filled. VIV_WAIT: none came in time. VIV_DONE: the END
 * event was already given. */
VIV_API int32_t viv_next_event(viv_job *job, int64_t timeout_ms, viv_event *event);
/* Readable while events wait. Owned by the job; -1 when the system has no descriptors left. */
VIV_API int viv_job_fd(viv_job *job);
/* Takes effect at the job's next poll; the END event says CANCELLED. */
VIV_API void viv_job_cancel(viv_job *job);
/* Cancels the job if it runs. */
VIV_API void viv_job_free(viv_job *job);

/* Runs a job of a model on the calling thread, without the loop, when the instance is idle:
 * VIV_NOT_NOW otherwise. The events are then pulled from *out as usual. */
VIV_API int32_t viv_run_inline(viv_model *model, const viv_request *request, viv_job **out,
                               viv_error *error);

/* Stream inputs: make one, put it in a viv_value, push to it while the job runs, close it. push
 * answers VIV_WAIT when the buffer is full (nothing was taken). */
VIV_API int32_t viv_stream_open(viv_runtime *runtime, uint64_t capacity, viv_stream **out,
                                viv_error *error);
VIV_API int32_t viv_stream_push(viv_stream *stream, const void *data, uint64_t bytes,
                                int64_t timeout_ms);
VIV_API void viv_stream_close(viv_stream *stream); /* the end; the job still reads what is buffered */
VIV_API void viv_stream_free(viv_stream *stream);

/* Sessions: jobs that name one continue its state, one after another. */
VIV_API int32_t viv_session_open(viv_model *model, viv_session **out, viv_error *error);
VIV_API void viv_session_close(viv_session *session);
VIV_API int32_t viv_session_save(viv_session *session, const char *path, viv_error *error);
VIV_API int32_t viv_session_resume(viv_model *model, const char *path, viv_session **out,
                                   viv_error *error);

/* Tokens of a text model. add_special 1: with the template of the tokenizer (a BOS, ...). The arrays
 * are freed with viv_ids_free. */
VIV_API int32_t viv_tokenize(viv_model *model, const char *text, uint64_t len, int32_t add_special,
                             int32_t **ids, uint64_t *n, viv_error *error);
VIV_API int32_t viv_detokenize(viv_model *model, const int32_t *ids, uint64_t n, int32_t skip_special,
                               viv_text *text, viv_error *error);
VIV_API void viv_ids_free(int32_t *ids);

#ifdef __cplusplus
}
#endif
#endif
