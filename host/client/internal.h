/* The connection itself, shared by connection.c and submit.c. Internal to host/client. */
#ifndef VIV_HOST_CLIENT_INTERNAL_H
#define VIV_HOST_CLIENT_INTERNAL_H

#include "client/client.h"
#include "wire/wire.h"

/* A sealed memfd that the daemon has, for the large inputs of one job at a time. */
typedef struct viv__slab {
  struct viv__slab *next;
  uint64_t id, bytes;
  char *at;
  bool used;
} viv__slab;

/* Memory of a worker's in which results come. Its first word says that one is there; whoever has read it
 * clears it, and the worker writes the next one. Seen by the events that lie in it: refs. */
typedef struct viv__region {
  struct viv__region *next;
  uint64_t id, bytes;
  char *at;
  _Atomic uint32_t refs;
} viv__region;

/* A call that waits. */
typedef struct viv__pending {
  struct viv__pending *next;
  uint64_t id;
  bool done;
  int32_t status;
  viv_error error;
  char *json; /* [len], terminated; NULL when it failed */
  size_t len;
  int fd; /* that came with the answer; -1: none */
  int sleeps;
} viv__pending;

enum { VIV__REMOTE_SLABS = 32, VIV__REMOTE_BUCKETS = 64 };

typedef struct viv__remote {
  viv_runtime *rt;
  pthread_t reader;
  pthread_mutex_t send; /* the link's outgoing half; taken before state, never within it */
  pthread_mutex_t state;
  pthread_cond_t changed; /* a call was answered, a job ended */
  viv__link link;
  /* Who reads: one thread at a time, the reader's or one that waits for an answer. */
  pthread_cond_t turn; /* the reader's thread may have to read again */
  bool reading;
  int sleepers;       /* threads that wait for what another one reads and has not read yet */
  int described;      /* jobs that have a descriptor: somebody may be in poll() */
  uint64_t waited_ns; /* when a thread last waited for an answer */
  bool lost;
  viv_error reason; /* once lost */
  uint64_t next_id;
  viv__pending *calls;
  viv_job *jobs[VIV__REMOTE_BUCKETS]; /* by remote_id; each is held */
  viv__region *regions;               /* the reader's */
  viv__slab *slabs;
  size_t n_slabs;
} viv__remote;

/* Queues a frame and sends it; takes message and fd over. NOT_NOW: the connection is lost. */
int32_t viv__remote_send(viv__remote *r, int type, uint64_t id, viv__buf *message, int fd,
                         viv_error *error);
/* A stream's way to the daemon; under the send lock. */
struct viv__remote_feed {
  uint64_t room; /* bytes that may be sent */
  bool ended;    /* its end was sent */
};

/* The daemon has room for more of a job's stream. False: it broke the protocol. */
bool viv__remote_room(viv__remote *r, const viv__frame *f, viv_error *error);
/* An event frame, on the reader's thread; false: the daemon broke the protocol. */
bool viv__remote_event(viv__remote *r, const viv__frame *f, int fd, viv_error *error);
/* Reads on this thread what the daemon sends until done(what) is true, until the time (a viv__now_ns, or
 * UINT64_MAX) has come, or the connection is lost. False, at once: another thread reads, and whoever waits
 * is to sleep; it counts as a sleeper, in *sleeps too, until viv__remote_wake, which whoever brings
 * the answer calls, or it itself when it waits no longer. */
bool viv__remote_pump(viv__remote *r, bool (*done)(void *what), void *what, int *sleeps,
                      uint64_t until_ns);
/* The state lock must be held. */
void viv__remote_wake(viv__remote *r, int *sleeps);
/* Ends every job that is left with the reason. The reader's last act. */
void viv__remote_end_jobs(viv__remote *r);
void viv__remote_slabs_free(viv__remote *r);
/* Lets go of the regions of a worker that is gone, of all for UINT64_MAX. The reader's, or after it. */
void viv__remote_regions_drop(viv__remote *r, uint64_t worker);

#endif
