/* Jobs of a daemon: the way of their inputs there and of their events back. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/internal.h"

enum { ALIGN = 64 };
#define SLAB_LEAST (UINT64_C(1) << 20)

/* ---- memory that the daemon sees ---- */

/* The smallest free slab that is large enough; the state lock is held. */
static viv__slab *find_slab(viv__remote *r, uint64_t bytes) {
  viv__slab *best = NULL;
  for (viv__slab *s = r->slabs; s; s = s->next)
    if (!s->used && s->bytes >= bytes && (!best || s->bytes < best->bytes)) best = s;
  if (best) best->used = true;
  return best;
}

static void free_slab(viv__slab *s) {
  munmap(s->at, s->bytes);
  viv__free(s);
}

/* Takes a free slab out of the list to make room for another; NULL: all are used. */
static viv__slab *evict(viv__remote *r) {
  for (viv__slab **at = &r->slabs; *at; at = &(*at)->next)
    if (!(*at)->used) {
      viv__slab *s = *at;
      *at = s->next;
      r->n_slabs--;
      return s;
    }
  return NULL;
}

static int32_t new_slab(viv__remote *r, uint64_t bytes, viv__slab **out, viv_error *error) {
  uint64_t room = SLAB_LEAST;
  while (room < bytes && room < (UINT64_C(1) << 62)) room *= 2;
  viv__slab *s = viv__calloc(1, sizeof *s), *old = NULL;
  void *at = NULL;
  int fd = s ? viv__region_make("vivarium-inputs", room, &at) : -1;
  if (fd < 0) {
    viv__free(s);
    return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no shared memory of %llu bytes",
                    (unsigned long long)room);
  }
  *s = (viv__slab){.bytes = room, .at = at, .used = true};
  pthread_mutex_lock(&r->state);
  bool full = r->n_slabs >= VIV__REMOTE_SLABS;
  if (full) old = evict(r);
  full = full && !old;
  if (!full) {
    s->id = ++r->next_id;
    s->next = r->slabs;
    r->slabs = s;
    r->n_slabs++;
  }
  pthread_mutex_unlock(&r->state);
  if (full) {
    close(fd);
    free_slab(s);
    return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "%d jobs with large inputs run already",
                    VIV__REMOTE_SLABS);
  }
  if (old) {
    viv__remote_send(r, VIV__WIRE_UNPOOL, old->id, NULL, -1, NULL);
    free_slab(old);
  }
  viv__buf b = {0};
  viv__wire_put_number(&b, room);
  *out = s;
  return viv__remote_send(r, VIV__WIRE_POOL, s->id, &b, fd, error);
}

void viv__remote_slabs_free(viv__remote *r) {
  while (r->slabs) {
    viv__slab *s = r->slabs;
    r->slabs = s->next;
    free_slab(s);
  }
}

/* ---- there ---- */

static viv_str bytes_of(const viv_value *v) {
  return v->kind == VIV_KIND_TENSOR ? (viv_str){v->tensor->data, v->tensor->bytes} : v->bytes;
}

/* Texts lie in the frame: they are checked there, and nobody may write them afterwards. */
static bool is_large(const viv_value *v) {
  return v->kind != VIV_KIND_TEXT && bytes_of(v).len > VIV__WIRE_INLINE;
}

/* Finds memory for the large inputs and copies them there. */
static int32_t place_large(viv__remote *r, viv_job *job, viv_error *error) {
  uint64_t sum = 0, at = 0;
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (is_large(job->inputs[i]))
      sum += (bytes_of(job->inputs[i]).len + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
  if (!sum) return VIV_OK;
  pthread_mutex_lock(&r->state);
  viv__slab *s = find_slab(r, sum);
  pthread_mutex_unlock(&r->state);
  int32_t status = s ? VIV_OK : new_slab(r, sum, &s, error);
  job->remote_slab = s;
  for (int32_t i = 0; i < job->request.n_inputs && status >= 0; i++) {
    if (!is_large(job->inputs[i])) continue;
    viv_str b = bytes_of(job->inputs[i]);
    memcpy(s->at + at, b.ptr, b.len);
    at += (b.len + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
  }
  return status;
}

static int32_t encode(viv_job *job, const viv_request *q, viv__buf *out, viv_error *error) {
  const viv__slab *s = job->remote_slab;
  int32_t n = job->request.n_inputs;
  if (n > VIV__WIRE_INPUTS)
    return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "%d inputs; a daemon takes %d", n,
                    VIV__WIRE_INPUTS);
  /* Only the inputs that there are: a whole one is larger than most jobs. */
  viv__wire_submit *m = viv__calloc(1, offsetof(viv__wire_submit, inputs) +
                                           (size_t)(n ? n : 1) * sizeof m->inputs[0]);
  if (!m) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  m->model = job->model->remote_id;
  m->session = job->session ? job->session->remote_id : 0;
  m->priority = job->priority;
  m->credit = (uint32_t)job->max_queued;
  m->deadline_ms = VIV_HAS(q, deadline_ms) && q->deadline_ms > 0 ? q->deadline_ms : 0;
  m->task = viv__str(job->task);
  m->params = viv__str(q->params);
  m->n_inputs = (uint32_t)n;
  uint64_t at = 0;
  for (int32_t i = 0; i < n; i++) {
    const viv_value *v = job->inputs[i];
    viv__wire_value *w = &m->inputs[i];
    *w = (viv__wire_value){.kind = v->kind, .name = v->name, .bytes = bytes_of(v)};
    if (v->kind == VIV_KIND_TENSOR) {
      w->dtype = v->tensor->dtype;
      w->ndim = v->tensor->ndim;
      memcpy(w->shape, v->tensor->shape, sizeof w->shape);
    }
    if (!is_large(v)) continue;
    w->where = VIV__WIRE_IN_POOL;
    w->pool = s->id;
    w->offset = at;
    at += (w->bytes.len + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
  }
  viv__wire_put_submit(out, m);
  viv__free(m);
  if (out->failed) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  if ((int64_t)out->len > viv__wire_limit(VIV__WIRE_SUBMIT))
    return VIV_FAIL(error, VIV_BAD_INPUT, "inputs",
                    "texts and parameters of %zu bytes; a daemon takes %lld", out->len,
                    (long long)viv__wire_limit(VIV__WIRE_SUBMIT));
  return VIV_OK;
}

/* ---- the list of jobs ---- */

static viv_job **bucket(viv__remote *r, uint64_t id) {
  return &r->jobs[id % VIV__REMOTE_BUCKETS];
}

/* Out of the list, its memory free for others; the state lock is held. */
static void leave(viv_job *job) {
  if (!job->live_prev) return;
  *job->live_prev = job->live_next;
  if (job->live_next) job->live_next->live_prev = job->live_prev;
  job->live_prev = NULL;
}

static void release_slab(viv__remote *r, viv_job *job) {
  viv__slab *s = job->remote_slab;
  pthread_mutex_lock(&r->state);
  if (s) s->used = false;
  pthread_mutex_unlock(&r->state);
}

/* What is left of the inputs when they have been sent: the others' bytes are the caller's. */
static void keep_streams(viv_job *job) {
  int32_t n = 0;
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (job->inputs[i]->kind == VIV_KIND_STREAM) job->inputs[n++] = job->inputs[i];
  job->request.n_inputs = n;
}

static int32_t make_feeds(viv_job *job, viv_error *error) {
  int32_t n = 0;
  for (int32_t i = 0; i < job->request.n_inputs; i++) n += job->inputs[i]->kind == VIV_KIND_STREAM;
  if (n > VIV__WIRE_STREAMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "%d streams; a daemon takes %d", n,
                    VIV__WIRE_STREAMS);
  if (n) job->remote_feeds = viv__calloc((size_t)n, sizeof *job->remote_feeds);
  if (n && !job->remote_feeds) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  return VIV_OK;
}

int32_t viv__remote_submit(viv_model *m, const viv_request *request, viv_job **out,
                           viv_error *error) {
  viv__remote *r = m->rt->remote;
  viv__buf frame = {0};
  viv_job *job = NULL;
  int32_t status = viv__job_new(m, request, &job, error);
  if (status < 0) return status;
  if (job->max_queued > VIV__WIRE_CREDIT) job->max_queued = VIV__WIRE_CREDIT;
  status = make_feeds(job, error);
  if (status >= 0) status = place_large(r, job, error);
  if (status >= 0) status = encode(job, request, &frame, error);
  keep_streams(job);
  pthread_mutex_lock(&r->state);
  if (status >= 0 && r->lost) {
    status = r->reason.code;
    if (error && VIV_HAS(error, message)) *error = r->reason;
  }
  if (status >= 0) {
    job->remote_id = ++r->next_id;
    viv_job **list = bucket(r, job->remote_id);
    job->live_next = *list;
    job->live_prev = list;
    if (*list) (*list)->live_prev = &job->live_next;
    *list = job;
    viv__job_ref(job);
  }
  pthread_mutex_unlock(&r->state);
  if (status < 0) {
    viv__buf_free(&frame);
    release_slab(r, job);
    viv__job_detach_streams(job);
    viv__job_unref(job);
    return status;
  }
  /* When this fails the connection is lost, which ends the job like any other that runs. */
  viv__remote_send(r, VIV__WIRE_SUBMIT, job->remote_id, &frame, -1, NULL);
  *out = job;
  return VIV_OK;
}

/* One stream's bytes, as far as there is room; the send lock is held. False: the connection is lost. */
static bool feed_one(viv__remote *r, viv_job *job, uint32_t k, char *piece) {
  struct viv__remote_feed *f = &job->remote_feeds[k];
  while (f->room && !f->ended) {
    viv__wire_feed m = {.stream = k, .bytes = {piece, 0}};
    viv__buf b = {0};
    uint64_t most = f->room < VIV__WIRE_FEED_MOST ? f->room : VIV__WIRE_FEED_MOST;
    int32_t status = viv__stream_take(job->inputs[k]->stream, piece, most, &m.bytes.len);
    if (status == VIV_WAIT) return true;
    if (status == VIV_DONE) m.bytes.len = 0;
    f->ended = status == VIV_DONE;
    f->room -= m.bytes.len;
    viv__wire_put_feed(&b, &m);
    if (!viv__link_put_buf(&r->link, VIV__WIRE_FEED, job->remote_id, &b, -1) ||
        viv__link_flush(&r->link) != VIV_OK)
      return false;
  }
  return true;
}

void viv__remote_feed(viv_job *job) {
  viv__remote *r = job->rt->remote;
  if (!job->remote_feeds) return;
  char *piece = viv__malloc(VIV__WIRE_FEED_MOST);
  bool good = piece != NULL;
  pthread_mutex_lock(&r->send);
  for (int32_t k = 0; good && k < job->request.n_inputs; k++)
    good = feed_one(r, job, (uint32_t)k, piece);
  /* A part that is missing would go unnoticed: the job must not go on. */
  if (!good) shutdown(r->link.fd, SHUT_RDWR);
  pthread_mutex_unlock(&r->send);
  viv__free(piece);
}

bool viv__remote_room(viv__remote *r, const viv__frame *f, viv_error *error) {
  viv__wire_feed m;
  if (viv__wire_room_read(f, &m, error) < 0) return false;
  pthread_mutex_lock(&r->state);
  viv_job *job = *bucket(r, f->id);
  while (job && job->remote_id != f->id) job = job->live_next;
  if (job) viv__job_ref(job);
  pthread_mutex_unlock(&r->state);
  if (!job) return true; /* it ended while this was on its way */
  pthread_mutex_lock(&r->send);
  bool good = job->remote_feeds && (int32_t)m.stream < job->request.n_inputs;
  if (good) job->remote_feeds[m.stream].room += m.room;
  pthread_mutex_unlock(&r->send);
  if (good)
    viv__remote_feed(job);
  else
    VIV_FAIL(error, VIV_BUG, "vivd", "has room for a stream that the job does not have");
  viv__job_unref(job);
  return good;
}

void viv__remote_credit(viv_job *job, int64_t events) {
  viv__buf b = {0};
  viv__wire_put_number(&b, (uint64_t)events);
  viv__remote_send(job->rt->remote, VIV__WIRE_CREDIT_MORE, job->remote_id, &b, -1, NULL);
}

void viv__remote_cancel(viv_job *job) {
  viv__remote_send(job->rt->remote, VIV__WIRE_CANCEL, job->remote_id, NULL, -1, NULL);
}

static bool has_event(void *what) {
  return viv__job_has_event(what);
}

bool viv__remote_await(viv_job *job, uint64_t until_ns) {
  return viv__remote_pump(job->rt->remote, has_event, job, &job->remote_sleeps, until_ns);
}

void viv__remote_awake(viv_job *job) {
  viv__remote *r = job->rt->remote;
  pthread_mutex_lock(&r->state);
  viv__remote_wake(r, &job->remote_sleeps);
  pthread_mutex_unlock(&r->state);
}

void viv__remote_described(viv_job *job) {
  viv__remote *r = job->rt->remote;
  pthread_mutex_lock(&r->state);
  if (job->live_prev && !job->remote_described) {
    job->remote_described = true;
    r->described++;
    pthread_cond_signal(&r->turn);
  }
  pthread_mutex_unlock(&r->state);
}

void viv__remote_settle(viv_model *m) {
  viv__remote *r = m->rt->remote;
  pthread_mutex_lock(&r->state);
  r->sleepers++;
  pthread_cond_signal(&r->turn);
  for (int i = 0; i < VIV__REMOTE_BUCKETS;) {
    bool runs = false;
    for (const viv_job *j = r->jobs[i]; j; j = j->live_next) runs = runs || j->model == m;
    if (runs)
      pthread_cond_wait(&r->changed, &r->state);
    else
      i++;
  }
  r->sleepers--;
  pthread_mutex_unlock(&r->state);
}

/* ---- back ---- */

static void finish(viv__remote *r, viv_job *job, int32_t status, const viv_error *error,
                   char *counters) {
  viv__slab *s = job->remote_slab;
  viv__job_end(job, status, error, counters);
  pthread_mutex_lock(&r->state);
  leave(job);
  if (job->remote_described) r->described--;
  job->remote_described = false;
  if (s) s->used = false;
  pthread_cond_broadcast(&r->changed);
  pthread_mutex_unlock(&r->state);
  viv__job_unref(job);
}

void viv__remote_end_jobs(viv__remote *r) {
  for (int i = 0; i < VIV__REMOTE_BUCKETS; i++)
    while (r->jobs[i]) finish(r, r->jobs[i], r->reason.code, &r->reason, NULL);
}

/* The bytes of a result that came as a descriptor. MAP_FAILED: it is not what was announced. */
static void *map_result(const viv__wire_event *e, int fd, viv_error *error) {
  if (viv__region_check(fd, e->value.bytes.len, true, error) < 0) return MAP_FAILED;
  void *at = mmap(NULL, e->value.bytes.len, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) VIV_FAIL(error, VIV_NOT_NOW, "result", "its memory can't be mapped");
  return at;
}

static void unref_region(viv__region *g) {
  if (atomic_fetch_sub(&g->refs, 1) != 1) return;
  munmap(g->at, g->bytes);
  viv__free(g);
}

/* Its result was read: the worker may write the next one there. */
static void release_region(void *owner) {
  viv__region *g = owner;
  atomic_store_explicit((_Atomic uint32_t *)(void *)g->at, 0, memory_order_release);
  unref_region(g);
}

void viv__remote_regions_drop(viv__remote *r, uint64_t worker) {
  for (viv__region **at = &r->regions; *at;) {
    viv__region *g = *at;
    if (worker != UINT64_MAX && g->id >> VIV__WIRE_REGION_BITS != worker) {
      at = &g->next;
      continue;
    }
    *at = g->next;
    unref_region(g);
  }
}

static viv__region *take_region(viv__remote *r, uint64_t id, int fd, viv_error *error) {
  int64_t bytes = viv__region_size(fd, error);
  viv__region *g = bytes > 0 ? viv__calloc(1, sizeof *g) : NULL;
  void *at = g ? mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (at == MAP_FAILED) {
    viv__free(g);
    VIV_FAIL(error, VIV_NOT_NOW, "result", "its memory can't be mapped");
    return NULL;
  }
  *g = (viv__region){.next = r->regions, .id = id, .bytes = (uint64_t)bytes, .at = at};
  atomic_init(&g->refs, 1);
  r->regions = g;
  return g;
}

/* The region that a result lies in, held for it; NULL: it lies in none. */
static viv__region *find_region(viv__remote *r, const viv__wire_value *v, int fd,
                                viv_error *error) {
  viv__region *g = r->regions;
  while (g && g->id != v->pool) g = g->next;
  if (fd >= 0 && g)
    VIV_FAIL(error, VIV_BUG, "vivd", "sent a region twice");
  else if (fd >= 0)
    g = take_region(r, v->pool, fd, error);
  else if (!g)
    VIV_FAIL(error, VIV_BUG, "vivd", "sent a result in a region that it had not sent");
  if (!g || (error && error->code < 0)) return NULL;
  if (v->offset < VIV__WIRE_REGION_DATA || v->offset % ALIGN || v->offset > g->bytes ||
      v->bytes.len > g->bytes - v->offset) {
    VIV_FAIL(error, VIV_BUG, "vivd", "sent a result that lies outside its region");
    return NULL;
  }
  atomic_fetch_add(&g->refs, 1);
  return g;
}

/* region: what the bytes lie in, NULL: they are copied. */
static int32_t deliver(viv_job *job, const viv__wire_event *e, viv__region *region) {
  viv_tensor t = {.struct_size = sizeof t,
                  .data = (void *)(uintptr_t)e->value.bytes.ptr,
                  .bytes = e->value.bytes.len,
                  .dtype = e->value.dtype,
                  .ndim = e->value.ndim};
  viv_event event = {.struct_size = sizeof event,
                     .kind = e->value.kind,
                     .flags = e->flags,
                     .name = e->value.name,
                     .progress = e->progress};
  if (e->value.kind == VIV_KIND_TENSOR) {
    memcpy(t.shape, e->value.shape, sizeof t.shape);
    event.tensor = &t;
  } else {
    event.bytes = e->value.bytes;
  }
  if (region) return viv__job_lend(job, &event, release_region, region);
  return viv__job_deliver(job, &event);
}

bool viv__remote_event(viv__remote *r, const viv__frame *f, int fd, viv_error *error) {
  viv__wire_event e;
  void *mapped = NULL;
  pthread_mutex_lock(&r->state);
  viv_job *job = *bucket(r, f->id);
  while (job && job->remote_id != f->id) job = job->live_next;
  if (job) viv__remote_wake(r, &job->remote_sleeps);
  pthread_mutex_unlock(&r->state);
  int32_t status = viv__wire_event_read(f, &e, error);
  if (status >= 0 && (!job || e.seq != job->seq))
    status = VIV_FAIL(error, VIV_BUG, "vivd", "sent an event that belongs to no job");
  if (status >= 0 && e.value.where == VIV__WIRE_IN_FD) {
    mapped = map_result(&e, fd, error);
    if (mapped == MAP_FAILED) status = VIV_BUG;
    e.value.bytes.ptr = mapped;
  }
  viv__region *region = NULL;
  if (status >= 0 && e.value.where == VIV__WIRE_IN_POOL) {
    region = find_region(r, &e.value, fd, error);
    if (region)
      e.value.bytes.ptr = region->at + e.value.offset;
    else
      status = VIV_BUG;
  }
  if (fd >= 0) close(fd);
  if (status < 0) return false;
  if (e.flags & VIV_EVENT_FINAL) {
    char *counters = viv__strndup(e.value.bytes.len ? e.value.bytes.ptr : "{}",
                                  e.value.bytes.len ? e.value.bytes.len : 2);
    finish(r, job, e.status, &e.error, counters);
  } else {
    status = deliver(job, &e, region);
  }
  if (mapped) munmap(mapped, e.value.bytes.len);
  return status >= 0 || VIV_FAIL(error, VIV_NOT_NOW, "event", "no memory for an event") >= 0;
}
