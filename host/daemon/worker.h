/* The worker process' own structures. Internal to host/daemon/worker_*.c.
 *
 * Two threads take turns at the daemon's socket. The one whose turn it is reads frames, sends events and,
 * when the model is idle, runs a job itself: a small job then costs no change of threads. While it does, the
 * lock is free; when that takes longer than HERE_NS the other thread takes the turn, so that cancels
 * and other jobs never wait for a slow model. Everything here belongs to who holds the lock. */
#ifndef VIV_HOST_DAEMON_WORKER_H
#define VIV_HOST_DAEMON_WORKER_H

#include "core/core.h"
#include "daemon/daemon.h"

enum { DAEMON_FD = 3, MAX_JOBS = 1024, MAX_POOLS = 128 };

/* An input stream of a job's. The daemon's client may send as much as room says, which is what is free in
 * the stream. */
typedef struct feed {
  viv_stream *stream;
  uint64_t given; /* bytes that room was given for */
} feed;

typedef struct running {
  uint64_t id;
  viv_job *job;
  int64_t credit;
  uint64_t seq, deadline_ns, client;
  bool cancelled;
  feed *feeds; /* [n_feeds] its streams */
  uint32_t n_feeds;
} running;

typedef struct mapped {
  uint64_t number, bytes;
  void *at; /* NULL: the slot is free */
} mapped;

typedef struct held {
  struct held *next;
  uint64_t id;
  viv_session *session;
} held;

typedef struct prompts prompts;

typedef struct state {
  pthread_mutex_t lock;
  viv__link link;
  viv_runtime *rt;
  viv_model *model;
  running jobs[MAX_JOBS];
  size_t n_jobs;
  mapped pools[MAX_POOLS];
  held *sessions;
  results *results;
  prompts *prompts;
  bool leaving;
  int taken; /* an eventfd: a job has read from a stream */
  /* whose turn it is */
  uint64_t turn;    /* counts the changes */
  uint64_t here_ns; /* since when a job has been running on the thread whose turn it is; 0: none */
  int timer;        /* the other thread waits for it */
  bool timer_set;
} state;

/* ---- worker_jobs.c ---- */

/* Bytes in a memfd that nobody can write any more; -1: errno says why. */
int frozen_memory(const char *name, const void *bytes, size_t len);
/* A job of the daemon's, which may run on this thread before this returns; its events are queued. */
void take_submit(state *s, const viv__frame *f);
running *find_running(state *s, uint64_t id);
/* Queues what the job has for the daemon; true: it ended and its place is another's now. */
bool pull_events(state *s, running *r);
void drop_running(state *s, running *r);
void take_feed(state *s, const viv__frame *f);
void give_room(state *s); /* for what jobs have read from their streams */
void map_pool(state *s, const viv__frame *f, int fd); /* takes fd over */
void unmap_pool(state *s, uint64_t number);

/* ---- worker_prompts.c ---- */

/* From now on the model's long prompts are kept by the daemon, in files of so many bytes at most. */
void prompts_begin(state *s, uint64_t most);
void prompts_offer(state *s, int fd); /* the daemon has kept one; takes fd over */
void prompts_send(state *s);          /* queues what is to be kept for the daemon */
void prompts_end(state *s);

/* ---- worker_calls.c ---- */

void take_call(state *s, const viv__frame *f, int fd); /* fd stays the caller's */
void drop_sessions(state *s);

/* ---- worker_turns.c ---- */

/* Serves the daemon until it has no more use for this process. */
void serve(state *s);
/* Around a job that runs on this thread: the lock is free in between. False: meanwhile the turn became
 * the other thread's, and what the caller had read of the state no longer holds. */
void turn_leave(state *s);
bool turn_return(state *s, uint64_t turn);

#endif
