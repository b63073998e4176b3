/* The thread pool. One job runs on it at a time; a caller that finds it taken does its own work
 * inline, so concurrent callers never wait for one another. Each caller inside counts as a thread: a
 * job takes only as many workers as are left, so that overlapping jobs don't share a core. With
 * VIV_PIN=1 each worker stays on one of the cores that the process may use, the first being left to
 * the callers, which are not touched.
 *
 * A job is announced by raising `epoch`. Workers join it by counting themselves into `state`, take
 * ranges from `next` until none is left, and count themselves out. The caller works too; when the
 * ranges are gone it closes the job and waits only for the workers that are inside. A worker that
 * wakes late finds the job closed and goes back to sleep: nobody waits for the scheduler to wake a
 * thread that is no longer needed, nor, in a forked child, for threads that do not exist there. */
#include "compute/internal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 20 microseconds: the gap between two kernels of one layer. Longer would take cores from
 * others for nothing. */
enum { SPINS = 1000 };

#define CLOSED (UINT64_C(1) << 31)
#define JOINED (CLOSED - 1) /* mask of the number of workers inside */

struct viv__pool {
  int32_t threads;
  int32_t workers;
  pthread_t *worker;
  atomic_flag taken;
  _Atomic int32_t inside; /* callers of viv__pool_run */
  atomic_bool stop;

  /* epoch << 32 | CLOSED | workers inside. */
  _Alignas(64) _Atomic uint64_t state;
  _Atomic uint32_t epoch;    /* what workers sleep on */
  _Atomic uint32_t sleepers; /* workers that sleep or are about to */
  _Atomic uint32_t left;     /* raised when the last worker leaves a closed job */

  /* The job; written while it is closed and empty, read by those who joined. */
  _Alignas(64) viv__body body;
  void *ctx;
  int64_t n, grain;
  _Atomic uint32_t most; /* workers that may join */
  _Alignas(64) _Atomic int64_t next;
};

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  sched_yield();
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Ranges shrink with what is left: the first are long, so that few hand-overs are needed, and the
 * last are short, so that the threads end together even when the system held one of them up. */
static void work(viv__pool *p) {
  int64_t begin = atomic_load_explicit(&p->next, memory_order_relaxed);
  while (begin < p->n) {
    int64_t left = p->n - begin, size = left / ((int64_t)p->threads * 2);
    if (size < p->grain) size = p->grain;
    if (size > left) size = left;
    if (!atomic_compare_exchange_weak_explicit(&p->next, &begin, begin + size, memory_order_relaxed,
                                               memory_order_relaxed))
      continue;
    p->body(p->ctx, begin, begin + size);
    begin = atomic_load_explicit(&p->next, memory_order_relaxed);
  }
}

/* Counts the calling worker into the job of that epoch; false when it is closed or over. */
static bool join(viv__pool *p, uint32_t epoch) {
  uint64_t s = atomic_load_explicit(&p->state, memory_order_acquire);
  while (s >> 32 == epoch && !(s & CLOSED) &&
         (s & JOINED) < atomic_load_explicit(&p->most, memory_order_relaxed))
    if (atomic_compare_exchange_weak_explicit(&p->state, &s, s + 1, memory_order_acq_rel,
                                              memory_order_acquire))
      return true;
  return false;
}

static void leave(viv__pool *p) {
  uint64_t s = atomic_fetch_sub_explicit(&p->state, 1, memory_order_acq_rel);
  if ((s & CLOSED) && (s & JOINED) == 1) {
    atomic_fetch_add_explicit(&p->left, 1, memory_order_release);
    futex_wake(&p->left, 1);
  }
}

static void *worker_main(void *arg) {
  viv__pool *p = arg;
  uint32_t seen = 0;
  for (;;) {
    uint32_t now = atomic_load_explicit(&p->epoch, memory_order_acquire);
    for (int i = 0; now == seen && i < SPINS; i++) {
      pause_cpu();
      now = atomic_load_explicit(&p->epoch, memory_order_acquire);
    }
    if (now == seen) {
      atomic_fetch_add(&p->sleepers, 1);
      futex_wait(&p->epoch, seen);
      atomic_fetch_sub(&p->sleepers, 1);
      continue;
    }
    seen = now;
    if (atomic_load_explicit(&p->stop, memory_order_acquire)) return NULL;
    if (join(p, seen)) {
      work(p);
      leave(p);
    }
  }
}

/* Worker i to the core i + 1 of those that the process may use, round about; left where it is when
 * the system refuses. */
static void pin(viv__pool *p) {
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all)) return;
  int32_t cores[CPU_SETSIZE], n = 0;
  for (int32_t i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &all)) cores[n++] = i;
  for (int32_t i = 0; n > 0 && i < p->workers; i++) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cores[(i + 1) % n], &one);
    pthread_setaffinity_np(p->worker[i], sizeof one, &one);
  }
}

viv__pool *viv__pool_new(int32_t threads) {
  viv__pool *p = NULL;
  size_t bytes = (sizeof *p + 63) / 64 * 64;
  char *raw = viv__calloc(1, bytes + 64 + sizeof(void *));
  if (!raw) return NULL;
  /* viv__calloc promises no alignment beyond malloc's; the original pointer stands before p. */
  char *at = raw + sizeof(void *);
  at += (64 - (uintptr_t)at % 64) % 64;
  ((void **)(void *)at)[-1] = raw;
  p = (viv__pool *)(void *)at;
  p->threads = 1;
  atomic_flag_clear(&p->taken);
  atomic_init(&p->state, CLOSED);
  if (threads > 1) p->worker = viv__calloc((size_t)threads - 1, sizeof *p->worker);
  if (threads > 1 && !p->worker) {
    viv__free(raw);
    return NULL;
  }
  /* Signals belong to the host's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (p->threads < threads && !pthread_create(&p->worker[p->workers], NULL, worker_main, p)) {
    p->workers++;
    p->threads++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  const char *pinned = getenv("VIV_PIN");
  if (pinned && !strcmp(pinned, "1")) pin(p);
  return p;
}

void viv__pool_free(viv__pool *p) {
  if (!p) return;
  atomic_store(&p->stop, true);
  atomic_fetch_add(&p->epoch, 1);
  futex_wake(&p->epoch, INT_MAX);
  for (int32_t i = 0; i < p->workers; i++) pthread_join(p->worker[i], NULL);
  viv__free(p->worker);
  viv__free(((void **)(void *)p)[-1]);
}

int32_t viv__pool_threads(const viv__pool *p) {
  return p->threads;
}

/* Waits until no worker is inside the closed job. */
static void drain(viv__pool *p) {
  for (int i = 0; i < SPINS; i++) {
    if (!(atomic_load_explicit(&p->state, memory_order_acquire) & JOINED)) return;
    pause_cpu();
  }
  for (;;) {
    uint32_t left = atomic_load_explicit(&p->left, memory_order_acquire);
    if (!(atomic_load_explicit(&p->state, memory_order_acquire) & JOINED)) return;
    futex_wait(&p->left, left);
  }
}

void viv__pool_run(viv__pool *p, int64_t n, int64_t grain, viv__body body, void *ctx) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  if (p->threads < 2) {
    body(ctx, 0, n);
    return;
  }
  int32_t inside = atomic_fetch_add_explicit(&p->inside, 1, memory_order_relaxed) + 1;
  if (n <= grain || inside >= p->threads ||
      atomic_flag_test_and_set_explicit(&p->taken, memory_order_acquire)) {
    body(ctx, 0, n);
    atomic_fetch_sub_explicit(&p->inside, 1, memory_order_relaxed);
    return;
  }
  atomic_store_explicit(&p->most, (uint32_t)(p->threads - inside), memory_order_relaxed);
  p->grain = grain;
  p->n = n;
  p->body = body;
  p->ctx = ctx;
  atomic_store_explicit(&p->next, 0, memory_order_relaxed);
  uint32_t epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed) + 1;
  atomic_store_explicit(&p->state, (uint64_t)epoch << 32, memory_order_release);
  /* In the same total order as the worker's count and its futex check: either it sees the new
   * epoch, or it is seen here among the sleepers. */
  atomic_store(&p->epoch, epoch);
  uint32_t sleepers = atomic_load(&p->sleepers);
  if (sleepers) {
    int64_t others = (n + grain - 1) / grain - 1; /* beyond the caller's first range */
    futex_wake(&p->epoch, others < p->workers ? (int)others : p->workers);
  }
  work(p);
  atomic_fetch_or_explicit(&p->state, CLOSED, memory_order_acq_rel);
  drain(p);
  atomic_flag_clear_explicit(&p->taken, memory_order_release);
  atomic_fetch_sub_explicit(&p->inside, 1, memory_order_relaxed);
}
