/* Jobs: from SUBMIT to the one END. */
#include "daemon/daemon.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- lists ---- */

void job_link(job *j, job **list) {
  j->next = *list;
  j->prev = list;
  if (*list) (*list)->prev = &j->next;
  *list = j;
}

void job_unlink(job *j) {
  if (!j->prev) return;
  *j->prev = j->next;
  if (j->next) j->next->prev = j->prev;
  j->next = NULL;
  j->prev = NULL;
}

static job **bucket(client *c, uint64_t id) {
  return &c->jobs[(id ^ (id >> 32)) % BUCKETS];
}

job *job_of_client(client *c, uint64_t id) {
  for (job *j = *bucket(c, id); j; j = j->hash_next)
    if (j->client_id == id) return j;
  return NULL;
}

static void leave_client(job *j) {
  if (!j->client) return;
  for (job **at = bucket(j->client, j->client_id); *at; at = &(*at)->hash_next)
    if (*at == j) {
      *at = j->hash_next;
      break;
    }
  j->client->n_jobs--;
  j->client = NULL;
}

/* By priority, then by arrival. */
static void enqueue(model *m, job *j) {
  job **at = &m->queue, *last = m->queue_last;
  if (last && last->priority >= j->priority && last->id < j->id) at = &last->next;
  while (*at &&
         ((*at)->priority > j->priority || ((*at)->priority == j->priority && (*at)->id < j->id)))
    at = &(*at)->next;
  job_link(j, at);
  if (!j->next) m->queue_last = j;
  m->n_queued++;
  m->queued_bytes += j->length;
}

static void dequeue(job *j) {
  model *m = j->model;
  if (m->queue_last == j)
    m->queue_last =
        j->prev == &m->queue ? NULL : (job *)(void *)((char *)j->prev - offsetof(job, next));
  job_unlink(j);
  j->model->n_queued--;
  j->model->queued_bytes -= j->length;
}

/* ---- the end ---- */

static void count_end(job *j, int32_t status) {
  model *m = j->model;
  m->used_ns = viv__now_ns();
  if (status == VIV_OK) {
    m->done++;
    m->failures = 0;
  } else if (status == VIV_CANCELLED) {
    m->cancelled++;
  } else {
    m->failed++;
  }
  if (!j->started_ns) return;
  m->queue_s += (double)(j->started_ns - j->submitted_ns) * 1e-9;
  m->busy_s += (double)(m->used_ns - j->started_ns) * 1e-9;
}

/* Out of every list. The END has been sent, or there is nobody to send it to. */
static void job_drop(job *j) {
  vivd *d = j->model->d;
  if (j->worker) {
    job_unlink(j);
    j->worker->n_jobs--;
  } else if (j->prev) {
    dequeue(j);
  }
  leave_client(j);
  d->n_jobs--;
  viv__free(j->payload);
  viv__free(j);
}

void job_fail(job *j, int32_t status, const char *where, const char *format, ...) {
  viv__wire_event e = {.seq = j->seq,
                       .flags = VIV_EVENT_FINAL,
                       .status = status,
                       .value = {.kind = VIV_KIND_END, .bytes = {"{}", 2}},
                       .error = VIV_ERROR_INIT};
  e.value.name = viv__str("end");
  va_list args;
  va_start(args, format);
  vsnprintf(e.error.message, sizeof e.error.message, format, args);
  va_end(args);
  /* Texts from a worker are cut at a whole character. */
  e.error.message[viv__utf8_whole(e.error.message, strlen(e.error.message))] = 0;
  snprintf(e.error.where, sizeof e.error.where, "%s", where ? where : "");
  e.error.where[viv__utf8_whole(e.error.where, strlen(e.error.where))] = 0;
  e.error.code = status;
  char request[32];
  snprintf(request, sizeof request, "%llu", (unsigned long long)j->id);
  log_fields(j->model->d, VIV_LOG_INFO, "job failed", e.error.message, "request", request, "model",
             j->model->name, "status", viv_status_name(status), NULL);
  if (j->client) {
    viv__buf b = {0};
    viv__wire_put_event(&b, &e);
    peer_send(&j->client->peer, VIV__WIRE_EVENT, j->client_id, &b, -1);
    j->model->d->events_out++;
  }
  count_end(j, status);
  job_drop(j);
}

/* ---- submitting ---- */

static pool *pool_of(client *c, uint64_t id) {
  for (int i = 0; i < POOLS; i++)
    if (c->pools[i].fd >= 0 && c->pools[i].id == id) return &c->pools[i];
  return NULL;
}

/* Names the pools as workers know them. False: one does not exist, or a place lies outside it. */
static bool resolve_pools(client *c, job *j, const viv__wire_submit *m) {
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    const viv__wire_value *v = &m->inputs[i];
    if (v->where != VIV__WIRE_IN_POOL) continue;
    const pool *p = pool_of(c, v->pool);
    if (!p || v->offset > p->bytes || v->bytes.len > p->bytes - v->offset) return false;
    uint64_t number = htole64(p->number);
    memcpy(j->payload + v->pool_at, &number, sizeof number);
  }
  return true;
}

static const session *session_of(vivd *d, const client *c, uint64_t id) {
  for (const session *s = d->sessions; s; s = s->next)
    if (s->id == id && s->client == c->serial) return s;
  return NULL;
}

/* Why a job can't be taken now; NULL: it can. */
static const char *refusal(const vivd *d, const client *c, const model *m, const job *j) {
  if (!(c->grants & GRANT_INFER)) return "this user may not run jobs (class infer of the policy)";
  if (d->draining) return "the daemon is draining; it takes no new jobs";
  if (m->state == MODEL_DRAINING) return "the model is being unloaded; load it again";
  if ((int64_t)m->n_queued >= d->config.max_queue) return "the model's queue is full";
  if (m->queued_bytes + j->length > d->config.queue_bytes)
    return "the jobs that wait for the model hold as many bytes as they may";
  return NULL;
}

/* How long the queue takes, as far as is known; at least 10 ms. */
static long retry_ms(const model *m) {
  uint64_t ended = m->done + m->failed + m->cancelled;
  double each = ended ? m->busy_s / (double)ended : 0.05;
  size_t side_by_side = m->worker && m->worker->max_jobs ? m->worker->max_jobs : 1;
  double ms = each * 1000 * (double)m->n_queued / (double)side_by_side / 4;
  return ms < 10 ? 10 : ms > 60000 ? 60000 : (long)ms;
}

static void admit(client *c, job *j, const viv__wire_submit *m) {
  vivd *d = j->model->d;
  const char *why = refusal(d, c, j->model, j);
  const session *s = m->session ? session_of(d, c, m->session) : NULL;
  viv_error error = VIV_ERROR_INIT;
  if (why) {
    j->model->refused++;
    d->rejected++;
    job_fail(j, c->grants & GRANT_INFER ? VIV_NOT_NOW : VIV_NEVER, "vivd", "%s; retry after %ld ms",
             why, retry_ms(j->model));
    return;
  }
  if (m->session && (!s || !j->model->worker || s->worker != j->model->worker->serial)) {
    job_fail(j, VIV_NOT_NOW, "session",
             "the session ended with the worker that held it; open a new one");
    return;
  }
  if (j->model->state == MODEL_UNLOADED || j->model->state == MODEL_FAILED) {
    if (model_start(j->model, &error) < 0) {
      job_fail(j, error.code, error.where, "%s", error.message);
      return;
    }
  }
  enqueue(j->model, j);
  model_dispatch(j->model);
}

void job_submit(client *c, const viv__frame *f) {
  static viv__wire_submit m; /* large, and the loop has one thread */
  viv_error error = VIV_ERROR_INIT;
  vivd *d = c->peer.d;
  if (viv__wire_submit_read(f, &m, &error) < 0) {
    d->malformed++;
    client_goodbye(c, "%s: %s", error.where, error.message);
    return;
  }
  model *owner = model_by_id(d, m.model);
  job *j = calloc(1, sizeof *j);
  uint8_t *payload = j ? viv__malloc(f->length) : NULL;
  if (!owner || !payload || job_of_client(c, f->id)) {
    free(j);
    viv__free(payload);
    client_goodbye(c, "SUBMIT %llu: %s", (unsigned long long)f->id,
                   !owner    ? "there is no such model"
                   : payload ? "that number is in use"
                             : "no memory");
    return;
  }
  memcpy(payload, f->payload, f->length);
  *j = (job){.id = ++d->next_job,
             .client_id = f->id,
             .client = c,
             .model = owner,
             .session = m.session,
             .payload = payload,
             .length = f->length,
             .priority = m.priority,
             .credit = m.credit,
             .submitted_ns = viv__now_ns()};
  for (uint32_t i = 0; i < m.n_inputs; i++) j->n_streams += m.inputs[i].kind == VIV_KIND_STREAM;
  if (m.deadline_ms)
    j->deadline_ns = j->submitted_ns + (uint64_t)m.deadline_ms % (UINT64_MAX / 4000000) * 1000000u;
  j->hash_next = *bucket(c, f->id);
  *bucket(c, f->id) = j;
  c->n_jobs++;
  d->n_jobs++;
  owner->used_ns = j->submitted_ns;
  if (!resolve_pools(c, j, &m))
    job_fail(j, VIV_BAD_INPUT, "inputs", "a place lies in no pool of this connection");
  else
    admit(c, j, &m);
}

/* ---- running ---- */

static bool knows_pool(const worker *w, uint64_t number) {
  for (size_t i = 0; i < sizeof w->pools / sizeof *w->pools; i++)
    if (w->pools[i] == number) return true;
  return false;
}

/* Gives the worker the pools that the job's inputs lie in and that it does not have yet. */
static bool send_pools(const job *j, const viv__wire_submit *m) {
  worker *w = j->worker;
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    const viv__wire_value *v = &m->inputs[i];
    if (v->where != VIV__WIRE_IN_POOL || knows_pool(w, v->pool)) continue;
    const pool *p = NULL;
    for (int k = 0; j->client && k < POOLS; k++)
      if (j->client->pools[k].fd >= 0 && j->client->pools[k].number == v->pool)
        p = &j->client->pools[k];
    int fd = p ? fcntl(p->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd < 0) return false;
    uint64_t *slot = &w->pools[w->next_pool++ % (sizeof w->pools / sizeof *w->pools)];
    if (*slot) peer_pass(&w->peer, VIV__WIRE_UNPOOL, *slot, NULL, 0, -1);
    *slot = p->number;
    viv__buf b = {0};
    viv__wire_put_number(&b, p->bytes);
    peer_send(&w->peer, VIV__WIRE_POOL, p->number, &b, fd);
  }
  return true;
}

void job_run(job *j, worker *w) {
  static viv__wire_submit m;
  viv__frame f = {.type = VIV__WIRE_SUBMIT, .length = j->length, .payload = j->payload};
  dequeue(j);
  j->worker = w;
  j->started_ns = viv__now_ns();
  job_link(j, &w->jobs);
  w->n_jobs++;
  if (viv__wire_submit_read(&f, &m, NULL) < 0 || !send_pools(j, &m)) {
    job_fail(j, VIV_NOT_NOW, "inputs", "an input's pool is gone, or no descriptor is left for it");
    return;
  }
  int64_t left = 0;
  if (j->deadline_ns) {
    left =
        j->deadline_ns > j->started_ns ? (int64_t)((j->deadline_ns - j->started_ns) / 1000000) : 0;
    if (left < 1) left = 1;
  }
  uint64_t deadline = htole64((uint64_t)left);
  memcpy(j->payload + VIV__WIRE_SUBMIT_DEADLINE, &deadline, sizeof deadline);
  /* A worker has one model; what it needs to know instead is who will see the results. */
  uint64_t owner = htole64(j->client ? j->client->serial : 0);
  memcpy(j->payload, &owner, sizeof owner);
  /* It is kept until the job's end: if the worker dies of it, it can be run again. */
  peer_pass(&w->peer, VIV__WIRE_SUBMIT, j->id, j->payload, j->length, -1);
}

static job *job_of_worker(worker *w, uint64_t id) {
  for (job *j = w->jobs; j; j = j->next)
    if (j->id == id) return j;
  return NULL;
}

/* Results in a region of the worker's: the number that the client knows it under holds the worker's, so that
 * no worker can name another's. */
static int32_t name_region(const worker *w, const viv__frame *f, const viv__wire_value *v, int fd,
                           viv_error *error) {
  if (v->pool >> VIV__WIRE_REGION_BITS)
    return VIV_FAIL(error, VIV_BUG, "EVENT", "a region has too large a number");
  if (fd >= 0 && viv__region_size(fd, error) < 0) return VIV_BUG;
  uint64_t number = htole64(w->serial << VIV__WIRE_REGION_BITS | v->pool);
  /* The frame lies in this connection's own buffer. */
  memcpy((uint8_t *)(uintptr_t)f->payload + v->pool_at, &number, sizeof number);
  return VIV_OK;
}

/* An event of a worker, which is not trusted: numbers, credit and END are checked. */
void job_event(worker *w, const viv__frame *f, int fd) {
  viv__wire_event e;
  viv_error error = VIV_ERROR_INIT;
  job *j = job_of_worker(w, f->id);
  int32_t status = viv__wire_event_read(f, &e, &error);
  if (status == VIV_OK && e.value.where == VIV__WIRE_IN_FD)
    status = viv__region_check(fd, e.value.bytes.len, true, &error);
  if (status == VIV_OK && e.value.where == VIV__WIRE_IN_POOL)
    status = name_region(w, f, &e.value, fd, &error);
  bool final = status == VIV_OK && (e.flags & VIV_EVENT_FINAL);
  if (status == VIV_OK && j && (e.seq != j->seq || (!final && j->credit < 1)))
    status = VIV_FAIL(&error, VIV_BUG, "EVENT", "a wrong number, or no credit was left");
  if (status < 0 || !j) {
    if (fd >= 0) close(fd);
    if (status < 0) worker_kill(w, error.message);
    return;
  }
  j->seq++;
  j->credit--;
  if (j->client) {
    j->client->has_regions |= e.value.where == VIV__WIRE_IN_POOL;
    peer_pass(&j->client->peer, VIV__WIRE_EVENT, j->client_id, f->payload, f->length, fd);
    w->d->events_out++;
  } else if (fd >= 0) {
    close(fd);
  }
  if (!final) {
    if (e.value.kind == VIV_KIND_TEXT) j->model->tokens++;
    return;
  }
  model *m = j->model;
  count_end(j, e.status);
  job_drop(j);
  if (w->state == WORKER_READY) model_dispatch(m);
  if (w->state == WORKER_DRAINING) worker_retire(w);
}

/* ---- streams ---- */

/* Nothing is kept here: a client sends no more than the worker has room for. */
void job_feed(client *c, const viv__frame *f) {
  viv__wire_feed m;
  viv_error error = VIV_ERROR_INIT;
  job *j = job_of_client(c, f->id);
  if (viv__wire_feed_read(f, &m, &error) < 0) {
    c->peer.d->malformed++;
    client_goodbye(c, "%s: %s", error.where, error.message);
    return;
  }
  if (!j) return; /* it ended while this was on its way */
  if (m.stream >= j->n_streams || !j->worker || m.bytes.len > j->room[m.stream]) {
    client_goodbye(c, "FEED: more of a stream than there is room for");
    return;
  }
  j->room[m.stream] -= m.bytes.len;
  peer_pass(&j->worker->peer, VIV__WIRE_FEED, j->id, f->payload, f->length, -1);
}

void job_room(worker *w, const viv__frame *f) {
  viv__wire_feed m;
  viv_error error = VIV_ERROR_INIT;
  job *j = job_of_worker(w, f->id);
  int32_t status = viv__wire_room_read(f, &m, &error);
  if (status >= 0 && j &&
      (m.stream >= j->n_streams || j->room[m.stream] + m.room > VIV__WIRE_STREAM_ROOM))
    status = VIV_FAIL(&error, VIV_BUG, "ROOM", "for a stream that is not there, or too much");
  if (status < 0) {
    worker_kill(w, error.message);
    return;
  }
  if (!j) return;
  j->room[m.stream] += m.room;
  if (j->client)
    peer_pass(&j->client->peer, VIV__WIRE_ROOM, j->client_id, f->payload, f->length, -1);
}

/* ---- stopping ---- */

void job_cancel(job *j) {
  if (!j->worker) {
    job_fail(j, VIV_CANCELLED, NULL, "the job was cancelled");
    return;
  }
  if (j->stopped_ns) return;
  j->stopped_ns = viv__now_ns();
  peer_pass(&j->worker->peer, VIV__WIRE_CANCEL, j->id, NULL, 0, -1);
}

void jobs_orphan(client *c) {
  for (int i = 0; i < BUCKETS; i++)
    while (c->jobs[i]) {
      job *j = c->jobs[i];
      if (j->worker) {
        leave_client(j);
        job_cancel(j);
      } else {
        j->client->n_jobs--;
        c->jobs[i] = j->hash_next;
        j->client = NULL;
        job_cancel(j); /* frees it */
      }
    }
}
