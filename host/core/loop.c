/* The loop thread: admits jobs, keeps deadlines, ends cancelled jobs that have not started. It never
 * computes and never waits for a worker. */
#include "core/core.h"

#include <sched.h>
#include <stdlib.h>
#include <uv.h>

enum { AWAKE_NS = 40000 };

struct viv__loop {
  viv_runtime *rt;
  uv_loop_t loop;
  uv_async_t async;
  uv_timer_t timer;
  uv_idle_t awake; /* keeps the loop looking for a moment after each submission */
  uint64_t awake_until;
  pthread_t thread;
  pthread_mutex_t lock; /* submitted, last, stopping */
  viv_job *submitted, *last;
  bool stopping;
  viv_job *live; /* jobs that have not ended; the loop thread's own */
};

static void forget(viv_job *job) {
  *job->live_prev = job->live_next;
  if (job->live_next) job->live_next->live_prev = job->live_prev;
  viv__job_unref(job);
}

static void watch(viv__loop *l, viv_job *job) {
  job->live_next = l->live;
  job->live_prev = &l->live;
  if (l->live) l->live->live_prev = &job->live_next;
  l->live = job;
}

static void on_timer(uv_timer_t *timer);

/* Looks at every live job: drops the ended ones, stops the late ones, ends those that are stopped and
 * have not started. Sets the timer for the nearest deadline. */
static void sweep(viv__loop *l) {
  uint64_t now = viv__now_ns(), nearest = UINT64_MAX;
  for (viv_job *job = l->live, *next; job; job = next) {
    next = job->live_next;
    pthread_mutex_lock(&job->lock);
    bool ended = job->ended;
    pthread_mutex_unlock(&job->lock);
    if (ended) {
      forget(job);
      continue;
    }
    int run = VIV__RUN;
    if (atomic_load(&l->rt->closing)) {
      if (atomic_compare_exchange_strong(&job->stop, &run, VIV__CANCEL)) viv__job_kick(job);
    } else if (job->deadline_ns && job->deadline_ns <= now) {
      if (atomic_compare_exchange_strong(&job->stop, &run, VIV__LATE)) viv__job_kick(job);
    } else if (job->deadline_ns && job->deadline_ns < nearest) {
      nearest = job->deadline_ns;
    }
    int32_t status = viv__job_poll(job);
    if (status < 0 && viv__model_unqueue(job)) {
      viv__job_end(job, status, NULL, NULL);
      viv__job_unref(job); /* the queue's */
      forget(job);
    }
  }
  if (nearest != UINT64_MAX) {
    uint64_t ms = nearest > now ? (nearest - now) / 1000000u + 1 : 1;
    uv_timer_start(&l->timer, on_timer, ms, 0);
  }
}

static void on_timer(uv_timer_t *timer) {
  sweep(timer->data);
}

static void on_idle(uv_idle_t *idle) {
  viv__loop *l = idle->data;
  if (viv__now_ns() > l->awake_until) uv_idle_stop(idle);
  sched_yield();
}

static void on_async(uv_async_t *async) {
  viv__loop *l = async->data;
  pthread_mutex_lock(&l->lock);
  viv_job *job = l->submitted;
  l->submitted = l->last = NULL;
  bool stopping = l->stopping;
  pthread_mutex_unlock(&l->lock);
  while (job) {
    viv_job *next = job->next;
    job->next = NULL;
    viv__job_ref(job); /* the live list's; the submission's goes to the queue */
    watch(l, job);
    viv__model_queue(job);
    job = next;
  }
  /* More often comes soon after: to sleep and be woken would take longer than to look for a while. */
  l->awake_until = viv__now_ns() + AWAKE_NS;
  uv_idle_start(&l->awake, on_idle);
  sweep(l);
  if (stopping) {
    uv_close((uv_handle_t *)&l->awake, NULL);
    uv_close((uv_handle_t *)&l->async, NULL);
    uv_close((uv_handle_t *)&l->timer, NULL);
  }
}

static void *loop_main(void *arg) {
  viv__loop *l = arg;
  uv_run(&l->loop, UV_RUN_DEFAULT);
  return NULL;
}

int32_t viv__loop_start(viv_runtime *rt, viv_error *error) {
  viv__loop *l = viv__calloc(1, sizeof *l);
  if (!l) return VIV_FAIL(error, VIV_NOT_NOW, "loop", "no memory");
  l->rt = rt;
  pthread_mutex_init(&l->lock, NULL);
  int failed = uv_loop_init(&l->loop);
  if (failed) {
    viv__free(l);
    return VIV_FAIL(error, VIV_NOT_NOW, "loop", "%s", uv_strerror(failed));
  }
  failed = uv_async_init(&l->loop, &l->async, on_async);
  if (!failed) {
    uv_timer_init(&l->loop, &l->timer);
    uv_idle_init(&l->loop, &l->awake);
    l->async.data = l->timer.data = l->awake.data = l;
    failed = pthread_create(&l->thread, NULL, loop_main, l);
    if (failed) {
      uv_close((uv_handle_t *)&l->awake, NULL);
      uv_close((uv_handle_t *)&l->async, NULL);
      uv_close((uv_handle_t *)&l->timer, NULL);
      uv_run(&l->loop, UV_RUN_DEFAULT);
    }
  }
  if (failed) {
    uv_loop_close(&l->loop);
    pthread_mutex_destroy(&l->lock);
    viv__free(l);
    return VIV_FAIL(error, VIV_NOT_NOW, "loop", "no thread or descriptor for the event loop");
  }
  rt->loop = l;
  return VIV_OK;
}

/* All models are unloaded by then, so no live job is left unended. */
void viv__loop_stop(viv_runtime *rt) {
  viv__loop *l = rt->loop;
  if (!l) return;
  pthread_mutex_lock(&l->lock);
  l->stopping = true;
  pthread_mutex_unlock(&l->lock);
  uv_async_send(&l->async);
  pthread_join(l->thread, NULL);
  while (l->live) forget(l->live);
  uv_loop_close(&l->loop);
  pthread_mutex_destroy(&l->lock);
  viv__free(l);
  rt->loop = NULL;
}

void viv__loop_submit(viv_runtime *rt, viv_job *job) {
  viv__loop *l = rt->loop;
  job->next = NULL;
  pthread_mutex_lock(&l->lock);
  if (l->last)
    l->last->next = job;
  else
    l->submitted = job;
  l->last = job;
  pthread_mutex_unlock(&l->lock);
  uv_async_send(&l->async);
}

void viv__loop_wake(viv_runtime *rt) {
  if (rt->loop) uv_async_send(&rt->loop->async);
}
