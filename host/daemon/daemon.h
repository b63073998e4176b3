/* vivd's own structures. Internal to host/daemon.
 *
 * One thread, one libuv loop. A client is a connection; a model is what was loaded by path and
 * parameters; a worker is the process that holds it (two of them while it is being reloaded); a job
 * belongs to a client, to a model, and once it runs to a worker. vivd reads no model and no plugin: it
 * routes frames (wire/wire.h) and keeps the books.
 *
 * A job is in exactly one list: its model's queue or its worker's jobs. It leaves by job_end, which
 * sends the one END, and by no other way. */
#ifndef VIV_HOST_DAEMON_H
#define VIV_HOST_DAEMON_H

#include <cjson/cJSON.h>
#include <sys/types.h>
#include <uv.h>

#include "wire/wire.h"

typedef struct vivd vivd;
typedef struct client client;
typedef struct model model;
typedef struct worker worker;
typedef struct job job;

/* ---- configuration (policy.c) ---- */

enum grant { GRANT_INFER = 1, GRANT_INSPECT = 2, GRANT_CONTROL = 4, GRANT_ALL = 7 };

typedef struct principal {
  bool any, self, group;
  uint32_t id; /* of the user, or of the group */
  int grants;
} principal;

typedef struct config {
  char *socket, *plugin_path, *state_dir;
  principal *principals;
  size_t n_principals;
  int64_t keep_alive_s; /* 0: for ever */
  int64_t max_queue;    /* jobs that wait for one model */
  int64_t max_clients, threads, cancel_grace_ms, start_limit_s;
  uint64_t queue_bytes, budget;
  uint64_t prompt_bytes; /* kept prompts of all models; 0: none are kept */
} config;

/* Defaults, then the file (NULL: /etc/vivarium/vivd.json, where it may be absent). An unknown key is
 * an error: a misspelt permission must not go unnoticed. */
int32_t config_read(config *c, const char *path, viv_error *error);
void config_free(config *c);
/* What a peer may do: the union of what its user and its group are granted. Root and the daemon's own
 * user may do everything. */
int config_grants(const config *c, uid_t uid, gid_t gid);

/* ---- a connection's part that clients and workers share (peer.c) ---- */

typedef struct peer {
  viv__link link;
  uv_poll_t poll;
  vivd *d;
  bool open, dirty, writing;
  struct peer *dirty_next;
  void (*frame)(struct peer *p, const viv__frame *f, int fd); /* fd is the callee's */
  void (*lost)(struct peer *p, const viv_error *why);         /* may be called once */
  void (*closed)(struct peer *p);                             /* its memory may go */
} peer;

int peer_open(vivd *d, peer *p, int fd);
void peer_close(peer *p); /* sends what it can at once */
/* Both queue; everything leaves when the loop's turn ends. */
void peer_send(peer *p, int type, uint64_t id, viv__buf *message, int fd);
void peer_pass(peer *p, int type, uint64_t id, const void *payload, size_t length, int fd);
void peer_drain(peer *p); /* reads what has come, for a peer that is gone */
void peers_flush(vivd *d);

/* ---- clients (clients.c, verbs.c) ---- */

enum { POOLS = 64, BUCKETS = 64 };

typedef struct pool {
  uint64_t id, bytes; /* the client's number */
  uint64_t number;    /* what workers call it */
  int fd;             /* -1: the slot is free */
} pool;

struct client {
  peer peer;
  client *next;
  uint64_t serial;
  uid_t uid;
  gid_t gid;
  pid_t pid;
  int grants;
  bool greeted;
  bool has_regions; /* of workers', for results */
  char name[64];
  pool pools[POOLS];
  uint64_t pool_bytes;
  job *jobs[BUCKETS];
  size_t n_jobs;
};

int clients_listen(vivd *d, viv_error *error);
void clients_stop_listening(vivd *d);
void clients_listen_again(vivd *d); /* after descriptors had run out */
void client_reply(client *c, uint64_t id, int32_t status, const viv_error *error, viv_str json);
void client_fail(client *c, uint64_t id, const viv_error *error);
void client_goodbye(client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A CALL of a client: answers it now, or sees to it that it will be answered. */
void verb_call(client *c, uint64_t id, const viv__wire_call *call, int fd); /* fd: the callee's */

/* ---- calls that wait for a worker's answer ---- */

typedef struct call {
  struct call *next;
  uint64_t id;     /* towards the worker */
  uint64_t client; /* serial of who asked; 0: vivd itself */
  uint64_t client_id;
  uint64_t session; /* session_open: which */
} call;

typedef struct session {
  struct session *next;
  uint64_t id, client, worker; /* serials */
} session;

/* ---- models (models.c) ---- */

enum model_state { MODEL_UNLOADED, MODEL_LOADING, MODEL_READY, MODEL_DRAINING, MODEL_FAILED };

struct model {
  vivd *d;
  model *next;
  uint64_t id;
  char *path, *params, *name; /* params: "" for none */
  char *about;                /* what the worker says of it, JSON; NULL before it was ever ready */
  int state;
  char *cause; /* of the last failure */
  int64_t state_since;
  worker *worker, *coming; /* coming: a reload's */
  job *queue, *queue_last;
  size_t n_queued;
  uint64_t queued_bytes;
  call *waiting; /* load calls to be answered */
  bool pinned;
  int64_t keep_alive_ms; /* 0: for ever */
  uint64_t used_ns;
  uint64_t bytes; /* what it needs, as its plan says */
  char *plugin, *plugin_file, plugin_hash[65];
  int failures; /* worker deaths since a job was done */
  uint64_t restart_ns;
  uint64_t done, failed, cancelled, refused, deaths, restarts, tokens;
  double busy_s, queue_s;
  uint64_t rated_ns, rated_done,
      rated_tokens;                /* when the rates were taken, and what was counted then */
  double jobs_per_s, tokens_per_s; /* over the last second */
};

model *model_find(vivd *d, const char *name); /* a number, a name, a path */
model *model_by_id(vivd *d, uint64_t id);
/* The model of that path and parameters, made when there is none. NULL: no memory. */
model *model_get(vivd *d, const char *path, const char *params);
/* Starts its worker when it has none and may have one. Negative: why not. */
int32_t model_start(model *m, viv_error *error);
int32_t model_reload(model *m, viv_error *error);
void model_unload(model *m);
void model_drop(model *m); /* out of the list, freed; it has neither worker nor jobs */
void model_changed(model *m, int state, const char *cause);
void model_answer(model *m, const viv_error *error); /* its waiting load calls */
void model_dispatch(model *m);
/* A worker left: by its own or another's fault, or as it was told. current: it held the model. */
void model_died(model *m, const char *cause, bool current, bool own_fault);
void model_retired(model *m, bool current);
/* Unloads models that are idle, the longest unused first, until this one fits the budget. */
int32_t model_make_room(model *m, viv_error *error);
void models_tick(vivd *d); /* keep-alive, restarts, deadlines, hangs */
cJSON *model_json(const model *m);
const char *model_state_name(const model *m);
/* Whether a plugin's object has been put in quarantine. */
bool quarantined(vivd *d, const char *hash);
void quarantine_read(vivd *d);
void quarantine(vivd *d, const char *hash, const char *file, const char *reason);

/* ---- workers (workers.c) ---- */

enum worker_state { WORKER_STARTING, WORKER_LOADING, WORKER_READY, WORKER_DRAINING, WORKER_DEAD };

struct worker {
  peer peer;
  uv_process_t process;
  uv_poll_t words_poll;
  int words_fd;
  vivd *d;
  worker *next;
  uint64_t serial;
  model *model; /* NULL: it answers one inspecting call, or its model was dropped */
  int state;
  int closing; /* handles that are not closed yet */
  bool words_open, exited, killed, hung;
  char why[160]; /* it was killed */
  uint64_t started_ns;
  job *jobs;
  size_t n_jobs, max_jobs;
  int64_t cancel_ms; /* how late it may notice a cancel, as its plugin declares */
  call *calls;
  uint64_t pools[128]; /* that it has mapped; a ring, each can be sent again */
  size_t next_pool;
  viv__buf first;   /* inspecting: the CALL to be sent once it is up */
  char words[2048]; /* the end of what it said */
  size_t n_words;
  char *sandbox;
};

/* path: what it may read; NULL: only plugins. */
worker *worker_start(vivd *d, model *m, const char *path, viv_error *error);
extern const char worker_hang[]; /* the reason of a kill that counts as the plugin's fault */
void worker_kill(worker *w, const char *why);
void worker_call(worker *w, const char *verb, viv_str params, uint64_t client, uint64_t client_id,
                 uint64_t session);
/* The same with a descriptor, which is taken over. */
void worker_call_with(worker *w, const char *verb, viv_str params, int fd, uint64_t client,
                      uint64_t client_id, uint64_t session);
void worker_retire(worker *w); /* leaves when its jobs are done */

/* ---- kept prompts (prompts.c) ---- */

uint64_t prompts_most(const vivd *d); /* bytes of one; 0: none are kept */
void prompts_give(worker *w);         /* what was kept for its model, when it has loaded it */
/* A worker's, to be kept on disk; takes fd over. False: it is not what was announced. */
bool prompts_take(worker *w, const viv__frame *f, int fd, viv_error *error);

/* ---- jobs (jobs.c) ---- */

struct job {
  job *next, **prev;  /* the model's queue or the worker's jobs */
  job *hash_next;     /* the client's */
  uint64_t id;        /* towards the worker, and in the log */
  uint64_t client_id; /* the client's number for it */
  client *client;     /* NULL: it has gone */
  model *model;
  worker *worker; /* NULL: queued */
  uint64_t session;
  uint8_t *payload; /* its SUBMIT, with the pools' numbers that workers know */
  uint32_t length;
  int32_t priority;
  int64_t credit; /* events that the worker may still send */
  uint32_t n_streams;
  uint64_t room[VIV__WIRE_STREAMS]; /* bytes that the client may still send */
  uint64_t seq;                     /* of the next event */
  uint64_t submitted_ns, started_ns, deadline_ns, stopped_ns;
};

void job_submit(client *c, const viv__frame *f);
void job_cancel(job *j);
job *job_of_client(client *c, uint64_t id);
/* Ends a job on vivd's own account. */
void job_fail(job *j, int32_t status, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void job_feed(client *c, const viv__frame *f);
void job_room(worker *w, const viv__frame *f);
void job_event(worker *w, const viv__frame *f, int fd);
void job_run(job *j, worker *w);
void jobs_orphan(client *c); /* the client has gone */
/* Records a job that runs, for `viv replay` (replay.c): the file's path, viv__free; NULL: it can't be, or is
 * none of the client's business. */
char *replay_write(const job *j);
void job_link(job *j, job **list);
void job_unlink(job *j);

/* ---- log and figures (journal.c) ---- */

enum { JOURNAL_LINES = 1024 };
typedef struct journal {
  int32_t level;
  char *lines[JOURNAL_LINES];
  uint64_t next;
} journal;

void logd(vivd *d, int32_t level, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A line whose fields are "key", "text" pairs up to a NULL. */
void log_fields(vivd *d, int32_t level, const char *event, const char *message, ...)
    __attribute__((sentinel));
cJSON *journal_json(const vivd *d, uint64_t since);
void journal_free(vivd *d);
char *metrics_text(vivd *d); /* viv__free; NULL: no memory */

/* ---- jobs from other machines (bridge.c) ---- */

void bridge_tick(vivd *d); /* starts vivd-nats when it is wanted and does not run */
void bridge_stop(vivd *d);

/* ---- the whole ---- */

enum { TICK_MS = 20 };

struct vivd {
  uv_loop_t loop;
  uv_poll_t listener;
  uv_prepare_t flush;
  uv_timer_t tick;
  uv_signal_t term, interrupt, hangup;
  config config;
  int listen_fd;
  bool listening, socket_activated, draining, stopping;
  client *clients;
  model *models;
  worker *workers;
  session *sessions;
  peer *dirty;
  cJSON *bad_plugins; /* hash to reason */
  char *self;         /* path of this program */
  char *config_path;
  char *nats_url;       /* NULL: none */
  uv_process_t *bridge; /* NULL: it does not run */
  uint64_t bridge_after_ns;
  journal journal;
  uint64_t next_client, next_model, next_worker, next_job, next_call, next_session, next_pool;
  size_t n_clients, n_jobs, n_keeping; /* keeping: prompts on their way to the disk */
  uint64_t started_ns, drained_ns, ticked_ns;
  uint64_t connections, malformed, rejected, events_out;
};

client *client_by_serial(vivd *d, uint64_t serial);
worker *worker_by_serial(vivd *d, uint64_t serial);
void vivd_drain(vivd *d, const char *why);

/* ---- the worker process (worker_main.c, sandbox.c) ---- */

int worker_main(int argc, char **argv);
/* Where a worker's large results go (worker_results.c). NULL: no memory. */
typedef struct results results;
typedef struct result_place {
  uint64_t number; /* of the region */
  void *at;
  int fd; /* the region's, which the client does not have yet and the caller owns; -1: it has it */
} result_place;
results *results_new(void);
/* Claims room for so many bytes that this client will see; false: there is none, a descriptor of its own
 * has to do. */
bool results_place(results *r, uint64_t client, uint64_t bytes, result_place *out);
void results_forget(results *r, uint64_t client); /* its connection has ended */

/* Locks the calling thread, and all that it starts, in. readable: paths, ended by NULL. Answers a JSON
 * object that tells what is in force, viv__free; NULL: no memory, nothing may be run. */
char *sandbox_enter(const char *const *readable);

/* ---- systemd (notify.c) ---- */

int activation_fd(void); /* the one socket that was passed, or -1 */
void notify_state(const char *state);
uint64_t watchdog_ms(void); /* 0: none */

#endif
