/* The worker's jobs: from the daemon's SUBMIT to the library, and from the library's events to the daemon. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/worker.h"

/* ---- events ---- */

int frozen_memory(const char *name, const void *bytes, size_t len) {
  void *map = NULL;
  int fd = viv__region_make(name, len, &map);
  if (fd < 0) return -1;
  memcpy(map, bytes, len);
  munmap(map, len);
  if (!viv__region_freeze(fd)) return fd;
  close(fd);
  return -1;
}

/* A text is checked by who gets it: nobody may change it afterwards. Nobody will read, and so free, what
 * belongs to a job that was cancelled. */
static bool place_result(state *s, const running *r, viv__wire_value *v, int *fd) {
  result_place p;
  bool plain = v->kind == VIV_KIND_TENSOR || v->kind == VIV_KIND_IMAGE || v->kind == VIV_KIND_AUDIO;
  if (plain && !r->cancelled && results_place(s->results, r->client, v->bytes.len, &p)) {
    memcpy(p.at, v->bytes.ptr, v->bytes.len);
    v->where = VIV__WIRE_IN_POOL;
    v->pool = p.number;
    v->offset = VIV__WIRE_REGION_DATA;
    *fd = p.fd;
  } else {
    *fd = frozen_memory("vivarium-result", v->bytes.ptr, v->bytes.len);
    if (*fd < 0) return false;
    v->where = VIV__WIRE_IN_FD;
  }
  v->bytes.ptr = NULL;
  return true;
}

static bool send_event(state *s, running *r, const viv_event *e) {
  viv__wire_event m = {.seq = r->seq,
                       .flags = e->flags,
                       .status = e->status < 0 ? e->status : 0,
                       .progress = e->progress,
                       .value = {.kind = e->kind, .name = e->name, .bytes = e->bytes}};
  int fd = -1;
  if (e->status < 0 && e->error) m.error = *e->error;
  if (e->kind == VIV_KIND_TENSOR) {
    m.value.dtype = e->tensor->dtype;
    m.value.ndim = e->tensor->ndim;
    memcpy(m.value.shape, e->tensor->shape, sizeof m.value.shape);
    m.value.bytes = (viv_str){e->tensor->data, e->tensor->bytes};
  }
  if (m.value.bytes.len > VIV__WIRE_INLINE && !place_result(s, r, &m.value, &fd)) return false;
  viv__buf b = {0};
  viv__wire_put_event(&b, &m);
  if (!viv__link_put_buf(&s->link, VIV__WIRE_EVENT, r->id, &b, fd)) return false;
  r->seq++;
  r->credit--;
  return true;
}

static void send_end(state *s, uint64_t id, uint64_t seq, int32_t status, const viv_error *error) {
  viv__wire_event m = {.seq = seq, .flags = VIV_EVENT_FINAL, .status = status, .error = *error};
  m.error.code = status;
  m.value.kind = VIV_KIND_END;
  m.value.name = viv__str("end");
  m.value.bytes = viv__str("{}");
  viv__buf b = {0};
  viv__wire_put_event(&b, &m);
  viv__link_put_buf(&s->link, VIV__WIRE_EVENT, id, &b, -1);
}

/* Whether its events are to be taken though nobody gave credit for them: they are dropped up to END. */
static bool stopped(const running *r) {
  return r->cancelled || (r->deadline_ns && viv__now_ns() >= r->deadline_ns);
}

static void free_feeds(feed *feeds, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) viv_stream_free(feeds[i].stream);
  viv__free(feeds);
}

void drop_running(state *s, running *r) {
  viv_job_free(r->job);
  free_feeds(r->feeds, r->n_feeds);
  *r = s->jobs[--s->n_jobs];
}

bool pull_events(state *s, running *r) {
  viv_event e = {.struct_size = sizeof e};
  while (r->credit > 0 || stopped(r)) {
    if (viv_next_event(r->job, 0, &e) != VIV_OK) return false;
    bool final = e.flags & VIV_EVENT_FINAL;
    if (r->credit <= 0 && !final) continue;
    if (!send_event(s, r, &e)) {
      viv_error error = VIV_ERROR_INIT;
      int32_t status =
          VIV_FAIL(&error, VIV_NOT_NOW, "result",
                   "no memory or descriptor to hand a result over: %s", strerror(errno));
      send_end(s, r->id, r->seq, status, &error);
      final = true;
    }
    if (final) {
      drop_running(s, r);
      return true;
    }
  }
  return false;
}

/* ---- jobs ---- */

static const mapped *pool_of(const state *s, uint64_t number) {
  for (int i = 0; i < MAX_POOLS; i++)
    if (s->pools[i].at && s->pools[i].number == number) return &s->pools[i];
  return NULL;
}

/* Everything is copied before the daemon's next frame is read. */
static int32_t make_job(state *s, const viv__wire_submit *m, const feed *feeds, viv_job **out,
                        viv_error *error) {
  static viv_value values[VIV__WIRE_INPUTS];
  static viv_tensor tensors[VIV__WIRE_INPUTS];
  static const viv_value *list[VIV__WIRE_INPUTS];
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    const viv__wire_value *v = &m->inputs[i];
    viv_str bytes = v->bytes;
    if (v->where == VIV__WIRE_IN_POOL) {
      const mapped *p = pool_of(s, v->pool);
      if (!p || v->offset > p->bytes || bytes.len > p->bytes - v->offset)
        return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "a place lies outside its pool");
      bytes.ptr = (const char *)p->at + v->offset;
    }
    values[i] = (viv_value){.struct_size = sizeof values[i], .kind = v->kind, .name = v->name};
    list[i] = &values[i];
    if (v->kind == VIV_KIND_STREAM) {
      values[i].stream = feeds++->stream;
      continue;
    }
    if (v->kind != VIV_KIND_TENSOR) {
      values[i].bytes = bytes;
      continue;
    }
    tensors[i] = (viv_tensor){.struct_size = sizeof tensors[i],
                              .flags = VIV_TENSOR_READ_ONLY,
                              .data = (void *)(uintptr_t)bytes.ptr,
                              .bytes = bytes.len,
                              .dtype = v->dtype,
                              .ndim = v->ndim};
    memcpy(tensors[i].shape, v->shape, sizeof tensors[i].shape);
    values[i].tensor = &tensors[i];
  }
  viv_session *kept = NULL;
  for (const held *h = s->sessions; h; h = h->next)
    if (h->id == m->session) kept = h->session;
  if (m->session && !kept)
    return VIV_FAIL(error, VIV_NOT_NOW, "session", "the session is gone; open a new one");
  char *task = viv__strndup(m->task.ptr, m->task.len);
  char *params = m->params.len ? viv__strndup(m->params.ptr, m->params.len) : NULL;
  viv_request q = {.struct_size = sizeof q,
                   .n_inputs = (int32_t)m->n_inputs,
                   .task = task,
                   .params = params,
                   .inputs = list,
                   .session = kept,
                   .priority = m->priority,
                   .deadline_ms = m->deadline_ms,
                   .max_queued_events = 64};
  int32_t status = task && (params || !m->params.len)
                       ? viv__job_new(s->model, &q, out, error)
                       : VIV_FAIL(error, VIV_NOT_NOW, "job", "no memory");
  viv__free(task);
  viv__free(params);
  return status;
}

running *find_running(state *s, uint64_t id) {
  for (size_t i = 0; i < s->n_jobs; i++)
    if (s->jobs[i].id == id) return &s->jobs[i];
  return NULL;
}

/* ---- streams ---- */

/* What a client may be ahead of a job's reading, for each stream; less is told of only a quarter at a time. */
#define STREAM_BYTES (UINT64_C(1) << 18)

static int32_t open_feeds(state *s, const viv__wire_submit *m, feed **feeds, uint32_t *n,
                          viv_error *error) {
  uint32_t wanted = 0;
  int32_t status = VIV_OK;
  for (uint32_t i = 0; i < m->n_inputs; i++) wanted += m->inputs[i].kind == VIV_KIND_STREAM;
  if (!wanted) return VIV_OK;
  *feeds = viv__calloc(wanted, sizeof **feeds);
  if (!*feeds) return VIV_FAIL(error, VIV_NOT_NOW, "streams", "no memory");
  for (; *n < wanted && status >= 0; *n += status >= 0) {
    status = viv_stream_open(s->rt, STREAM_BYTES, &(*feeds)[*n].stream, error);
    if (status >= 0) viv__stream_ring((*feeds)[*n].stream, s->taken);
  }
  return status;
}

static void give(state *s, const running *r, uint32_t k) {
  feed *f = &r->feeds[k];
  uint64_t may = viv__stream_taken(f->stream) + STREAM_BYTES;
  if (may - f->given < STREAM_BYTES / 4) return;
  viv__wire_feed m = {.stream = k, .room = may - f->given};
  viv__buf b = {0};
  viv__wire_put_room(&b, &m);
  if (viv__link_put_buf(&s->link, VIV__WIRE_ROOM, r->id, &b, -1)) f->given = may;
}

void give_room(state *s) {
  for (size_t i = 0; i < s->n_jobs; i++)
    for (uint32_t k = 0; k < s->jobs[i].n_feeds; k++) give(s, &s->jobs[i], k);
}

void take_feed(state *s, const viv__frame *f) {
  viv__wire_feed m;
  running *r = find_running(s, f->id);
  if (!r || viv__wire_feed_read(f, &m, NULL) < 0 || m.stream >= r->n_feeds) return;
  viv_stream *stream = r->feeds[m.stream].stream;
  if (!m.bytes.len)
    viv_stream_close(stream);
  else if (viv_stream_push(stream, m.bytes.ptr, m.bytes.len, 0) != VIV_OK)
    viv_job_cancel(r->job); /* more than there was room for: its input is not whole */
}

/* ---- running ---- */

/* How long a job may go on here once it is seen to take several rounds. */
enum { ROUNDS_NS = 100000, FLUSH_NS = 50000 };

/* Runs a job on this thread when the model is idle, and hands it to the model's own otherwise. One with a
 * deadline is the library's to watch, one with a stream has to wait for what is still to be read here. */
static void start(state *s, viv_job *made, uint64_t id, bool waits) {
  if (waits || !viv__model_claim_idle(made)) {
    viv__job_ref(made); /* the loop's, then the queue's */
    viv__loop_submit(s->rt, made);
    return;
  }
  uint64_t turn = s->turn, began = viv__now_ns();
  viv__job_ref(made);
  turn_leave(s);
  viv__run_here(made, ROUNDS_NS);
  viv__model_unclaim(made->model);
  viv__job_unref(made);
  if (!turn_return(s, turn)) return;
  running *r = find_running(s, id);
  if (r) pull_events(s, r);
  /* What took a while should not wait for the other frames that have come. */
  if (viv__now_ns() - began > FLUSH_NS) viv__link_flush(&s->link);
}

void take_submit(state *s, const viv__frame *f) {
  static viv__wire_submit m;
  viv_error error = VIV_ERROR_INIT;
  viv_job *made = NULL;
  int32_t status = viv__wire_submit_read(f, &m, &error);
  if (status >= 0 && (!s->model || s->n_jobs == MAX_JOBS))
    status = VIV_FAIL(&error, VIV_NOT_NOW, "worker", "there is no model yet, or too many jobs");
  feed *feeds = NULL;
  uint32_t n_feeds = 0;
  if (status >= 0) status = open_feeds(s, &m, &feeds, &n_feeds, &error);
  if (status >= 0) status = make_job(s, &m, feeds, &made, &error);
  if (status < 0) {
    free_feeds(feeds, n_feeds);
    send_end(s, f->id, 0, status, &error);
    return;
  }
  running *r = &s->jobs[s->n_jobs++];
  /* vivd has put the connection's number where a client names the model. */
  *r = (running){.id = f->id, .job = made, .credit = m.credit, .client = m.model};
  if (m.deadline_ms > 0) r->deadline_ns = viv__now_ns() + (uint64_t)m.deadline_ms * 1000000u;
  r->feeds = feeds;
  r->n_feeds = n_feeds;
  for (uint32_t k = 0; k < n_feeds; k++) give(s, r, k);
  start(s, made, f->id, m.deadline_ms > 0 || n_feeds);
}

void map_pool(state *s, const viv__frame *f, int fd) {
  mapped *slot = NULL;
  uint64_t bytes = 0;
  for (int i = 0; i < MAX_POOLS && !slot; i++)
    if (!s->pools[i].at) slot = &s->pools[i];
  bool good = slot && fd >= 0 && viv__wire_number_read(f, &bytes, NULL) >= 0 && bytes &&
              viv__region_check(fd, bytes, false, NULL) >= 0;
  void *at = good ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (fd >= 0) close(fd);
  if (at != MAP_FAILED) *slot = (mapped){f->id, bytes, at}; /* else its jobs say what is missing */
}

void unmap_pool(state *s, uint64_t number) {
  for (int i = 0; i < MAX_POOLS; i++)
    if (s->pools[i].at && s->pools[i].number == number) {
      munmap(s->pools[i].at, s->pools[i].bytes);
      s->pools[i].at = NULL;
    }
}
