/* The host's own structures. Internal.
 *
 * Threads: the caller's threads submit and pull; one loop thread per runtime (libuv) admits jobs,
 * keeps deadlines and never computes; one worker thread per loaded model runs its jobs. Locks are
 * taken in this order and never the other way: runtime, model, job. */
#ifndef VIV_HOST_CORE_H
#define VIV_HOST_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "template/template.h"
#include "text/tokenizer.h"
#include "vivarium/compute.h"
#include "vivarium/explain.h"
#include "vivarium/model.h"
#include "vivarium/strategy.h"
#include "vivarium/token_model.h"
#include "vivarium/vivarium.h"

/* ---- plugins ---- */

enum viv__plugin_state { VIV__FOUND = 0, VIV__REFUSED = 1, VIV__LOADED = 2 };

/* One manifest that the scan found. Nothing of the shared object has run until load. */
typedef struct viv__plugin {
  char *json_path, *so_path;
  viv_json *manifest;      /* NULL when it could not be read */
  const char *id;          /* the manifest's, or the file's stem */
  int32_t state;           /* enum viv__plugin_state */
  char *reason;            /* why it was refused */
  const viv_plugin *table; /* once loaded */
  const viv_model_api *model;
  const viv_token_api *token;
  const viv_strategy_api *strategy;
  const viv_explain_api *explain;
} viv__plugin;

/* Reads the manifests of all plugin folders into the runtime's list. Refuses none of them loudly:
 * what is wrong stands in the plugin's reason. */
int32_t viv__scan(viv_runtime *rt, viv_error *error);
void viv__scan_free(viv_runtime *rt);
/* Loads the shared object: owner and mode check, quarantine, probe in a child when its hash is new,
 * dlopen, entry, table checks. Idempotent. The runtime's lock must be held. */
int32_t viv__plugin_load(viv_runtime *rt, viv__plugin *p, viv_error *error);
/* The plugin for a configuration, or why none: appends a JSON array of candidates to why when it is
 * not NULL. wanted: a plugin id or NULL. */
int32_t viv__route(viv_runtime *rt, const viv_checkpoint *c, const char *path, const char *wanted,
                   viv__plugin **out, viv__buf *why, viv_error *error);
viv__plugin *viv__find_strategy(viv_runtime *rt, viv_str name);

/* ---- runtime ---- */

typedef struct viv__loop viv__loop;

/* Who keeps the states that long prompts left a model in (tasks/prompts.c); a daemon's worker has one.
 * data: bytes of tasks/session_file.c. All [job]. */
typedef struct viv__prompts {
  void *self;
  char id[65];   /* of the one model's checkpoint */
  uint64_t most; /* bytes of one state */
  /* The bytes of the state with the longest beginning in common with tokens, of at least least; cut: one that
   * goes on differently will do. *data: viv__free. False: there is none. */
  bool (*find)(void *self, const int32_t *tokens, int64_t n, int64_t least, bool cut, char **data,
               size_t *len);
  void (*keep)(void *self, const char *data, size_t len);
} viv__prompts;

struct viv_runtime {
  viv_host host;              /* the table plugins get; host.self is the runtime */
  struct viv__remote *remote; /* client/client.h; NULL: models live in this process */
  viv__log log;
  const viv__prompts *prompts; /* NULL: nobody keeps them */
  const viv_compute *compute;
  pthread_mutex_t lock; /* plugins, models, cache */
  char **folders;       /* plugin search path, in order */
  char **folder_notes;  /* for each: "used", "absent", ... */
  size_t n_folders;
  viv__plugin *plugins;
  size_t n_plugins;
  char *cache_dir; /* NULL: none could be made */
  viv_json *cache;
  viv_model *models;
  viv__loop *loop;
  bool safe_mode;
  atomic_bool closing; /* every live job is to be cancelled */
  uint64_t budget;
  _Atomic uint64_t reserved;
  _Atomic uint64_t next_order;
};

void viv__services_init(viv_runtime *rt);
/* Takes bytes from the budget; NOT_NOW with needed and available in the text. what is for people. */
int32_t viv__reserve(viv_runtime *rt, uint64_t bytes, const char *what, viv_error *error);
void viv__release(viv_runtime *rt, uint64_t bytes);
/* Hands a buffer to the caller as an answer; frees it on failure. */
int32_t viv__give_text(viv__buf *b, viv_text *out, viv_error *error);
/* What the calling thread is, for the tags of the ABI; answers the previous one. */
int32_t viv__thread_role(int32_t role);
int32_t viv__thread_is(void);

/* ---- loop ---- */

int32_t viv__loop_start(viv_runtime *rt, viv_error *error);
void viv__loop_stop(viv_runtime *rt);
/* Hands a job to the loop, which queues it with its model. [any] */
void viv__loop_submit(viv_runtime *rt, viv_job *job);
/* Something changed that the loop should look at (a cancel). [any] */
void viv__loop_wake(viv_runtime *rt);

/* ---- jobs ---- */

typedef struct viv__event_node {
  struct viv__event_node *next;
  size_t room;                  /* bytes of the block that the node begins */
  void (*release)(void *owner); /* NULL, or: the bytes are lent, and are to be given back */
  void *owner;
  atomic_int holds; /* the job's and those of kept tensors; the last one frees the block */
  viv_event event;
  viv_tensor tensor;
} viv__event_node;

/* One hold less on a block of events; true: nobody holds it, and what was lent has been given back. */
bool viv__event_let_go(viv__event_node *node);

enum viv__stop { VIV__RUN = 0, VIV__CANCEL = 1, VIV__LATE = 2 };

struct viv_job {
  viv_runtime *rt;
  viv_model *model;
  viv_session *session;
  atomic_int refs; /* the caller's and the host's */
  char *task;
  viv_json *params; /* NULL: none */
  viv_plugin_request request;
  const viv_value **inputs;
  char **taps;
  size_t n_taps;
  int32_t priority;
  uint64_t deadline_ns; /* 0: none */
  uint64_t order;
  atomic_int stop; /* enum viv__stop */
  viv_arena *arena;

  /* the worker's */
  struct viv_job *next; /* in the submission list, the model's queue or its active list */
  struct viv_job *live_next, **live_prev; /* all jobs the loop watches, or that a daemon runs */
  uint64_t remote_id;                     /* a daemon's: our number for it */
  void *remote_slab;                      /* where its large inputs lie */
  struct viv__remote_feed *remote_feeds;  /* its streams' way to the daemon */
  int64_t taken;                          /* events that were read since credit was given */
  int remote_sleeps;                      /* threads that wait for what another one reads */
  bool remote_described;                  /* its descriptor is looked at */
  viv_plugin_job *plugin_job;
  void *task_state;
  bool waiting;      /* the last step answered WAIT ... */
  atomic_int kicked; /* ... and something has happened since */

  /* the event queue */
  pthread_mutex_t lock;
  pthread_cond_t readable;
  viv__event_node *head, *tail, *current;
  viv__event_node *spare; /* nodes that were read: a stream of tokens or frames needs no heap */
  size_t spare_bytes;
  int64_t queued, max_queued;
  _Atomic uint32_t bell; /* rung by every event */
  uint64_t seq;
  int fd;
  bool ended, end_given, unbounded;
  bool refused;        /* an event was not taken because the job is stopped */
  viv__event_node end; /* part of the job, so that ending can't fail */
  viv_error error;
  char *counters;
};

/* Builds a job from a request: validated, everything copied. */
int32_t viv__job_new(viv_model *model, const viv_request *request, viv_job **out, viv_error *error);
void viv__job_ref(viv_job *job);
void viv__job_unref(viv_job *job);
/* Queues an event: VIV_OK, WAIT (queue full), CANCELLED or DEADLINE, NOT_NOW (memory), BUG (the event
 * breaks the ABI). */
int32_t viv__job_emit(viv_job *job, const viv_event *event);
/* Queues an event that another process' checks let through; NOT_NOW: no memory. */
int32_t viv__job_deliver(viv_job *job, const viv_event *event);
/* The same without copying what a tensor, picture or sound is made of: release(owner) is called once,
 * when nobody can see it any more, or at once when it fails. */
int32_t viv__job_lend(viv_job *job, const viv_event *event, void (*release)(void *owner),
                      void *owner);
bool viv__job_has_event(viv_job *job); /* that viv_next_event would give at once */
/* The one terminal event. Later calls do nothing. counters: JSON text, taken over, or NULL. */
void viv__job_end(viv_job *job, int32_t status, const viv_error *error, char *counters);
int32_t viv__job_poll(viv_job *job);
int32_t viv__job_wants_tap(viv_job *job, viv_str name);
viv_arena *viv__job_arena(viv_job *job);
void viv__job_detach_streams(viv_job *job); /* it is woken by them no more */
void viv__job_kick(viv_job *job);           /* wakes the worker for a waiting job */
const viv_value *viv__job_input(const viv_job *job, const char *name, int32_t kind); /* 0: any */

/* ---- models ---- */

struct viv_model {
  viv_runtime *rt;
  viv_model *next;
  atomic_int
      refs; /* the caller's and one per job: the struct outlives unload while jobs are held */
  char *name, *path;
  uint64_t remote_id; /* a daemon's number for it, and what it says of it */
  char *remote_about;
  viv_json *params;
  viv__plugin *plugin;
  const viv_model_api *api;
  const viv_token_api *token; /* NULL: not a token model */
  viv_checkpoint *checkpoint;
  viv_arena *arena;
  viv_plugin_model *handle;
  viv_memory_plan plan;
  uint64_t weight_bytes, reserved;
  viv_token_info info;
  int32_t *eos;
  viv__tokenizer *tokenizer;  /* NULL: none */
  char *tokenizer_error;      /* why there is none */
  viv__chat *chat;            /* its chat templates, or NULL */
  char *chat_error;           /* why there are none */
  struct viv__engine *engine; /* token models: see tasks/tokens.h */

  pthread_t thread;
  bool has_thread;
  pthread_mutex_t lock; /* queue and flags */
  pthread_cond_t wake;
  viv_job *queue; /* by priority, then order */
  viv_job *active;
  int n_active, max_active;
  int unfinished;        /* jobs that have begun and not ended */
  _Atomic uint32_t bell; /* rung whenever the worker may have something to do */
  bool stopping, busy;   /* busy: a worker or an inline caller is executing */
  int claimers;          /* threads that wait until nobody is */
};

viv_model *viv__model_new(viv_runtime *rt); /* NULL: no memory */
/* Queues a job with its model, in priority order; ends it when the model is stopping. [loop] */
void viv__model_queue(viv_job *job);
/* Takes a queued job out again if it has not started. */
bool viv__model_unqueue(viv_job *job);
void viv__model_unref(viv_model *model);
void *viv__worker(void *model);
/* Waits until nobody executes in the model, and keeps it so until it is given back. */
void viv__model_claim(viv_model *model);
void viv__model_unclaim(viv_model *model);
/* The same for a job that is to run on the calling thread; false: other jobs have begun or wait. */
bool viv__model_claim_idle(viv_job *job);
/* Runs a job of a model that was claimed for it on the calling thread: to its end, or, for ns > 0, to the
 * first round that ends later than that; the model's own thread goes on with what is left when the model is
 * given back. Deadlines are not watched, and it is the caller who cancels it before the runtime closes. */
void viv__run_here(viv_job *job, uint64_t ns);

/* ---- sessions ---- */

struct viv_session {
  viv_model *model;
  atomic_int refs;
  bool busy; /* a job of it is active; under the model's lock */
  viv_arena *arena;
  viv_plugin_session *handle; /* not for token models */
  uint64_t remote_id;         /* a daemon's number for it */
  int32_t seq;                /* token models: the sequence, -1: none yet */
  int32_t *tokens;            /* everything said so far; the sequence holds a prefix of it */
  int64_t n_tokens, cap_tokens;
  uint64_t reserved;
};
/* A session as bytes, for a file or another process; path is for messages. *data: viv__free. */
int32_t viv__session_save(viv_session *session, const char *path, char **data, size_t *len,
                          viv_error *error);
int32_t viv__session_resume(viv_model *model, const char *data, size_t len, const char *path,
                            viv_session **out, viv_error *error);
void viv__session_unref(viv_session *session);

/* ---- streams ---- */

/* The job holds the stream from attach to unref, and is woken by it until detach, which comes when
 * the job ends, while it is still held. */
void viv__stream_attach(viv_stream *stream, viv_job *job);
void viv__stream_detach(viv_stream *stream);
void viv__stream_unref(viv_stream *stream);
int32_t viv__stream_read(viv_stream *stream, void *data, uint64_t capacity, uint64_t *bytes);
/* The same for who passes the bytes on. [any] */
int32_t viv__stream_take(viv_stream *stream, void *data, uint64_t capacity, uint64_t *bytes);
/* fd, an eventfd that outlives the stream, is rung whenever its job has read from it. */
void viv__stream_ring(viv_stream *stream, int fd);
uint64_t viv__stream_taken(viv_stream *stream); /* bytes since it was opened */

#endif
