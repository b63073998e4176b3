/* The worker of a loaded model: takes jobs from its queue and runs them, step by step, in turn.
 * Exactly one thread executes a model at any time (the flag busy): its worker, or a caller inside
 * viv_run_inline. */
#include "core/core.h"
#include "tasks/schema.h"
#include "tasks/text_inputs.h"
#include "tasks/tokens.h"

#include <stdlib.h>

/* ---- the queue (any thread, under the model's lock) ---- */

void viv__model_queue(viv_job *job) {
  viv_model *m = job->model;
  pthread_mutex_lock(&m->lock);
  bool stopping = m->stopping;
  if (!stopping) {
    viv_job **at = &m->queue;
    while (*at && ((*at)->priority > job->priority ||
                   ((*at)->priority == job->priority && (*at)->order < job->order)))
      at = &(*at)->next;
    job->next = *at;
    *at = job;
    atomic_fetch_add(&m->bell, 1);
    pthread_cond_broadcast(&m->wake);
  }
  pthread_mutex_unlock(&m->lock);
  if (!stopping) return;
  viv_error error = VIV_ERROR_INIT;
  VIV_FAIL(&error, VIV_NOT_NOW, m->name, "the model is being unloaded");
  viv__job_end(job, VIV_NOT_NOW, &error, NULL);
  viv__job_unref(job);
}

bool viv__model_unqueue(viv_job *job) {
  viv_model *m = job->model;
  bool found = false;
  pthread_mutex_lock(&m->lock);
  for (viv_job **at = &m->queue; *at; at = &(*at)->next)
    if (*at == job) {
      *at = job->next;
      job->next = NULL;
      found = true;
      break;
    }
  pthread_mutex_unlock(&m->lock);
  return found;
}

/* ---- jobs of ordinary models ---- */

/* VIV_DONE: the job needed no steps and its result is sent. */
static int32_t begin(viv_model *m, viv_job *job, viv_error *error) {
  int32_t status = viv__job_poll(job);
  if (status < 0) return status;
  if (viv__is_coding(job->task) && (m->token || m->tokenizer)) return viv__coding_run(job, error);
  if (m->token) return viv__tokens_begin(m, job, error);
  if (!m->api->job_begin)
    return VIV_FAIL(error, VIV_NEVER, m->plugin->id, "the plugin runs no jobs");
  if ((status = viv__decode_inputs(job, error)) < 0) return status;
  if ((status = viv__text_inputs(job, error)) < 0) return status;
  status = m->api->job_begin(m->handle, &job->request, job, &job->plugin_job, error);
  if (status >= 0 && !job->plugin_job)
    return VIV_FAIL(error, VIV_BUG, m->plugin->id, "job_begin answered OK without a job");
  return status < 0 ? status : VIV_OK;
}

static void finish(viv_model *m, viv_job *job, int32_t status, const viv_error *error) {
  char *counters = NULL;
  if (m->token)
    counters = viv__tokens_end(m, job);
  else if (job->plugin_job)
    m->api->job_end(job->plugin_job);
  job->plugin_job = NULL;
  int32_t stopped = viv__job_poll(job);
  /* A plugin may end well although its last event was refused: the result is not whole then. */
  if (stopped < 0 && (status < 0 || job->refused)) status = stopped;
  pthread_mutex_lock(&m->lock);
  if (job->session) job->session->busy = false;
  m->unfinished--;
  pthread_mutex_unlock(&m->lock);
  viv__job_end(job, status, error, counters);
}

/* One step of one job. True when it ended. */
static bool step(viv_model *m, viv_job *job) {
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__job_poll(job);
  if (status == VIV_OK) status = m->api->job_step(job->plugin_job, &error);
  if (status == VIV_MORE) return false;
  if (status == VIV_WAIT) {
    job->waiting = true;
    return false;
  }
  if (status == VIV_OK) {
    status = VIV_FAIL(&error, VIV_BUG, m->plugin->id,
                      "job_step answered OK; MORE, WAIT, DONE or a failure are possible");
  } else if (status > VIV_WAIT) {
    status =
        VIV_FAIL(&error, VIV_BUG, m->plugin->id, "job_step answered the unknown status %d", status);
  }
  finish(m, job, status, &error);
  return true;
}

/* ---- rounds ---- */

static bool runnable(viv_job *job) {
  if (!job->waiting) return true;
  if (!atomic_load(&job->kicked) && viv__job_poll(job) == VIV_OK) return false;
  atomic_store(&job->kicked, 0);
  job->waiting = false;
  return true;
}

static void drop(viv_model *m, viv_job **at) {
  viv_job *job = *at;
  *at = job->next;
  job->next = NULL;
  m->n_active--;
  viv__job_unref(job);
}

/* One step of every active job that can run, or one batch of all token jobs. */
static void run_round(viv_model *m) {
  if (m->token) {
    viv__tokens_round(m);
    for (viv_job **at = &m->active; *at;) {
      viv_error error = VIV_ERROR_INIT;
      int32_t status = viv__tokens_status(*at, &error);
      if (status == VIV_MORE) {
        at = &(*at)->next;
      } else {
        finish(m, *at, status, &error);
        drop(m, at);
      }
    }
    return;
  }
  for (viv_job **at = &m->active; *at;) {
    if (runnable(*at) && step(m, *at))
      drop(m, at);
    else
      at = &(*at)->next;
  }
}

/* Starts a job: it becomes active, or ends at once with why it could not begin. */
static void start(viv_model *m, viv_job *job) {
  viv_error error = VIV_ERROR_INIT;
  int32_t status = begin(m, job, &error);
  if (status < 0 || status == VIV_DONE) {
    finish(m, job, status, &error);
    viv__job_unref(job);
    return;
  }
  viv_job **end = &m->active;
  while (*end) end = &(*end)->next;
  *end = job;
  job->next = NULL;
  m->n_active++;
}

/* The next job of the queue whose session is free. The model's lock must be held. */
static viv_job *take(viv_model *m) {
  for (viv_job **at = &m->queue; *at; at = &(*at)->next) {
    viv_job *job = *at;
    if (job->session && job->session->busy) continue;
    if (job->session) job->session->busy = true;
    m->unfinished++;
    *at = job->next;
    job->next = NULL;
    return job;
  }
  return NULL;
}

static bool has_work(viv_model *m) {
  if (m->n_active < m->max_active)
    for (viv_job *job = m->queue; job; job = job->next)
      if (!job->session || !job->session->busy) return true;
  for (viv_job *job = m->active; job; job = job->next)
    if (!job->waiting || atomic_load(&job->kicked) || viv__job_poll(job) < 0) return true;
  return false;
}

void *viv__worker(void *arg) {
  viv_model *m = arg;
  viv__thread_role(VIV_THREAD_JOB);
  pthread_mutex_lock(&m->lock);
  for (;;) {
    bool spun = false;
    while (m->busy || (!has_work(m) && !(m->stopping && !m->active && !m->queue))) {
      if (spun || m->busy || m->unfinished) {
        pthread_cond_wait(&m->wake, &m->lock);
        spun = true; /* woken for nothing: no second spin */
        continue;
      }
      uint32_t bell = atomic_load(&m->bell);
      pthread_mutex_unlock(&m->lock);
      viv__spin(&m->bell, bell);
      spun = true;
      pthread_mutex_lock(&m->lock);
    }
    if (m->stopping && !m->active && !m->queue) break;
    m->busy = true;
    while (m->n_active < m->max_active) {
      viv_job *job = take(m);
      if (!job) break;
      pthread_mutex_unlock(&m->lock);
      start(m, job);
      pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    run_round(m);
    pthread_mutex_lock(&m->lock);
    m->busy = false;
    pthread_cond_broadcast(&m->wake);
  }
  pthread_mutex_unlock(&m->lock);
  return NULL;
}

/* ---- callers that execute themselves ---- */

/* The lock must be held. */
static void wait_free(viv_model *m) {
  m->claimers++;
  pthread_cond_wait(&m->wake, &m->lock);
  m->claimers--;
}

void viv__model_claim(viv_model *m) {
  pthread_mutex_lock(&m->lock);
  while (m->busy) wait_free(m);
  m->busy = true;
  pthread_mutex_unlock(&m->lock);
}

/* The worker is left asleep when there is nothing for it: a job that was done here costs no change of
 * threads. */
void viv__model_unclaim(viv_model *m) {
  pthread_mutex_lock(&m->lock);
  m->busy = false;
  if (m->active || m->queue || m->stopping || m->claimers) {
    atomic_fetch_add(&m->bell, 1);
    pthread_cond_broadcast(&m->wake);
  }
  pthread_mutex_unlock(&m->lock);
}

static bool is_idle(const viv_model *m, const viv_job *job) {
  return !m->unfinished && !m->queue && !m->stopping && !(job->session && job->session->busy);
}

bool viv__model_claim_idle(viv_job *job) {
  viv_model *m = job->model;
  pthread_mutex_lock(&m->lock);
  bool idle = is_idle(m, job);
  /* A worker that has ended its last job may still be putting it away. */
  while (idle && m->busy) {
    wait_free(m);
    idle = is_idle(m, job);
  }
  if (idle) {
    m->busy = true;
    m->unfinished++;
    if (job->session) job->session->busy = true;
  }
  pthread_mutex_unlock(&m->lock);
  return idle;
}

void viv__run_here(viv_job *job, uint64_t ns) {
  viv_model *m = job->model;
  int32_t role = viv__thread_role(VIV_THREAD_JOB);
  uint64_t until = ns ? viv__now_ns() + ns : UINT64_MAX;
  viv__job_ref(job);
  start(m, job);
  while (m->active && !(ns && m->active->waiting) && viv__now_ns() < until) run_round(m);
  viv__thread_role(role);
}
