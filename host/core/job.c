/* A job: its copied request, its event queue, its end. */
#include "client/client.h"
#include "core/core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_QUEUE = 256, PARAMS_LIMIT = 16 << 20 };

/* ---- making ---- */

static int32_t check_tensor(const viv_tensor *t, const char *where, viv_error *error) {
  if (!VIV_HAS(t, shape))
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the tensor's struct_size %u is too small",
                    t->struct_size);
  uint64_t bytes = viv__dtype_size(t->dtype);
  if (!bytes) return VIV_FAIL(error, VIV_BAD_INPUT, where, "unknown dtype %d", t->dtype);
  if (t->ndim < 0 || t->ndim > VIV_MAX_DIMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "%d dimensions; 0 to %d are possible", t->ndim,
                    VIV_MAX_DIMS);
  for (int32_t i = 0; i < t->ndim; i++) {
    if (t->shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "axis %d has the impossible size %lld", i,
                      (long long)t->shape[i]);
  }
  if (bytes != t->bytes)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the shape needs %llu bytes, data has %llu",
                    (unsigned long long)bytes, (unsigned long long)t->bytes);
  if (bytes && !t->data) return VIV_FAIL(error, VIV_BAD_INPUT, where, "data is NULL");
  return VIV_OK;
}

/* Copies one input into the job's arena. A job for a daemon holds the caller's bytes until they are
 * sent, which is before viv_submit returns. */
static int32_t copy_input(viv_job *job, const viv_value *in, viv_value *out, viv_error *error) {
  if (!in || !VIV_HAS(in, stream) || in->kind < VIV_KIND_TENSOR || in->kind > VIV_KIND_STREAM)
    return VIV_FAIL(error, VIV_BAD_INPUT, "inputs",
                    "an input is NULL, too short or of no known kind");
  char *name = viv__arena_str(job->arena, in->name);
  if (!name) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  *out = (viv_value){.struct_size = sizeof *out,
                     .kind = in->kind,
                     .name = {name, in->name.len},
                     .stream = in->stream};
  bool borrow = job->rt->remote != NULL;
  if (in->bytes.len) {
    if (in->kind == VIV_KIND_TEXT && !viv__utf8_valid(in->bytes.ptr, in->bytes.len))
      return VIV_FAIL(error, VIV_BAD_INPUT, name, "the text is not UTF-8 at byte %zu",
                      viv__utf8_whole(in->bytes.ptr, in->bytes.len));
    out->bytes = in->bytes;
    if (!borrow) out->bytes.ptr = viv__arena_str(job->arena, in->bytes);
    if (!out->bytes.ptr) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory for the input");
  }
  if (in->kind == VIV_KIND_TENSOR) {
    if (!in->tensor) return VIV_FAIL(error, VIV_BAD_INPUT, name, "the tensor is NULL");
    int32_t status = check_tensor(in->tensor, name, error);
    if (status < 0) return status;
    viv_tensor *t = viv__arena_alloc(job->arena, sizeof *t);
    void *data = borrow ? in->tensor->data
                 : t    ? viv__arena_raw(job->arena, in->tensor->bytes)
                        : NULL;
    if (!t || (!data && !borrow))
      return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory for %llu bytes",
                      (unsigned long long)in->tensor->bytes);
    if (in->tensor->bytes && !borrow) memcpy(data, in->tensor->data, in->tensor->bytes);
    *t = (viv_tensor){.struct_size = sizeof *t,
                      .flags = VIV_TENSOR_READ_ONLY,
                      .data = data,
                      .bytes = in->tensor->bytes,
                      .dtype = in->tensor->dtype,
                      .ndim = in->tensor->ndim};
    memcpy(t->shape, in->tensor->shape, sizeof t->shape);
    out->tensor = t;
  }
  if (in->kind == VIV_KIND_STREAM) {
    if (!in->stream) return VIV_FAIL(error, VIV_BAD_INPUT, name, "the stream is NULL");
    viv__stream_attach(in->stream, job);
  }
  return VIV_OK;
}

static int32_t copy_inputs(viv_job *job, const viv_request *request, viv_error *error) {
  int32_t n = request->n_inputs;
  if (n < 0 || n > 4096 || (n && !request->inputs))
    return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "%d inputs", n);
  job->request.struct_size = sizeof job->request;
  job->request.task = viv__str(job->task);
  if (!n) return VIV_OK;
  if (!viv__job_arena(job)) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  viv_value *values = viv__arena_alloc(job->arena, (uint64_t)n * sizeof *values);
  job->inputs = viv__arena_alloc(job->arena, (uint64_t)n * sizeof *job->inputs);
  if (!values || !job->inputs) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  for (int32_t i = 0; i < n; i++) {
    int32_t status = copy_input(job, request->inputs[i], &values[i], error);
    if (status < 0) return status;
    job->inputs[i] = &values[i];
    job->request.n_inputs = i + 1;
    job->request.inputs = job->inputs;
  }
  return VIV_OK;
}

static int32_t read_params(viv_job *job, const char *params, viv_error *error) {
  if (!params) return VIV_OK;
  size_t len = strlen(params);
  if (len > PARAMS_LIMIT)
    return VIV_FAIL(error, VIV_BAD_INPUT, "params", "%zu bytes is more than %d", len, PARAMS_LIMIT);
  int32_t status = viv__json_parse(params, len, "params", &job->params, error);
  if (status < 0) return status;
  if (viv__json_type(job->params) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, "params", "must be a JSON object");
  job->request.params = job->params;
  const viv_json *taps = viv__json_get(job->params, "taps");
  int32_t type = viv__json_type(taps);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  if (type != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.taps", "must be a list of names or globs");
  int64_t n = viv__json_count(taps);
  job->taps = viv__calloc((size_t)n, sizeof *job->taps);
  if (!job->taps) return VIV_FAIL(error, VIV_NOT_NOW, "params.taps", "no memory");
  for (int64_t i = 0; i < n; i++) {
    viv_str name = viv__json_string(viv__json_item(taps, i));
    if (!name.len)
      return VIV_FAIL(error, VIV_BAD_INPUT, "params.taps", "item %lld is no text", (long long)i);
    if (!(job->taps[i] = viv__strndup(name.ptr, name.len)))
      return VIV_FAIL(error, VIV_NOT_NOW, "params.taps", "no memory");
    job->n_taps++;
  }
  return VIV_OK;
}

void viv__job_detach_streams(viv_job *job) {
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (job->inputs[i]->kind == VIV_KIND_STREAM) viv__stream_detach(job->inputs[i]->stream);
}

int32_t viv__job_new(viv_model *model, const viv_request *request, viv_job **out,
                     viv_error *error) {
  if (!model || !request || !out || !VIV_HAS(request, session))
    return VIV_FAIL(error, VIV_BAD_INPUT, "request", "model or request is NULL or too short");
  if (!request->task || !*request->task)
    return VIV_FAIL(error, VIV_BAD_INPUT, "request", "names no task");
  if (request->session && request->session->model != model)
    return VIV_FAIL(error, VIV_BAD_INPUT, "session", "belongs to another model");
  viv_job *job = viv__calloc(1, sizeof *job);
  if (!job) return VIV_FAIL(error, VIV_NOT_NOW, "request", "no memory");
  job->rt = model->rt;
  job->model = model;
  atomic_fetch_add(&model->refs, 1);
  job->fd = -1;
  atomic_init(&job->refs, 1);
  pthread_mutex_init(&job->lock, NULL);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&job->readable, &attr);
  pthread_condattr_destroy(&attr);
  job->order = atomic_fetch_add(&model->rt->next_order, 1);
  job->priority = VIV_HAS(request, priority) ? request->priority : 0;
  if (VIV_HAS(request, deadline_ms) && request->deadline_ms > 0)
    job->deadline_ns = viv__now_ns() + (uint64_t)request->deadline_ms * 1000000u;
  job->max_queued = VIV_HAS(request, max_queued_events) && request->max_queued_events > 0
                        ? request->max_queued_events
                        : DEFAULT_QUEUE;
  job->task = viv__strdup(request->task);
  int32_t status = job->task ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "request", "no memory");
  if (status == VIV_OK) status = read_params(job, request->params, error);
  if (status == VIV_OK) status = copy_inputs(job, request, error);
  if (status == VIV_OK && request->session) {
    job->session = request->session;
    atomic_fetch_add(&job->session->refs, 1);
    job->request.session = job->session->handle;
  }
  if (status < 0) {
    viv__job_detach_streams(job);
    viv__job_unref(job);
    return status;
  }
  *out = job;
  return VIV_OK;
}

void viv__job_ref(viv_job *job) {
  atomic_fetch_add(&job->refs, 1);
}

bool viv__event_let_go(viv__event_node *node) {
  if (atomic_fetch_sub(&node->holds, 1) != 1) return false;
  if (node->release) node->release(node->owner);
  node->release = NULL;
  return true;
}

static void free_event(viv_job *job, viv__event_node *node) {
  if (node && node != &job->end && viv__event_let_go(node)) viv__free(node);
}

static void free_events(viv_job *job) {
  free_event(job, job->current);
  for (viv__event_node *n = job->head, *next; n; n = next) {
    next = n->next;
    free_event(job, n);
  }
  for (viv__event_node *n = job->spare, *next; n; n = next) {
    next = n->next;
    viv__free(n);
  }
}

void viv__job_unref(viv_job *job) {
  if (atomic_fetch_sub(&job->refs, 1) != 1) return;
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (job->inputs[i]->kind == VIV_KIND_STREAM) viv__stream_unref(job->inputs[i]->stream);
  viv__free(job->remote_feeds);
  free_events(job);
  if (job->session) viv__session_unref(job->session);
  for (size_t i = 0; i < job->n_taps; i++) viv__free(job->taps[i]);
  viv__free(job->taps);
  viv__free(job->task);
  viv__free(job->counters);
  viv__json_free(job->params);
  viv__arena_free(job->arena);
  if (job->fd >= 0) close(job->fd);
  pthread_cond_destroy(&job->readable);
  pthread_mutex_destroy(&job->lock);
  viv__model_unref(job->model);
  viv__free(job);
}

viv_arena *viv__job_arena(viv_job *job) {
  if (!job->arena) job->arena = viv__arena_new(0);
  return job->arena;
}

const viv_value *viv__job_input(const viv_job *job, const char *name, int32_t kind) {
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (viv__str_eq(job->inputs[i]->name, name) && (!kind || job->inputs[i]->kind == kind))
      return job->inputs[i];
  return NULL;
}

/* ---- the worker's side ---- */

int32_t viv__job_poll(viv_job *job) {
  int stop = atomic_load_explicit(&job->stop, memory_order_relaxed);
  return stop == VIV__RUN ? VIV_OK : stop == VIV__CANCEL ? VIV_CANCELLED : VIV_DEADLINE;
}

int32_t viv__job_wants_tap(viv_job *job, viv_str name) {
  for (size_t i = 0; i < job->n_taps; i++)
    if (viv__glob(job->taps[i], name)) return 1;
  return 0;
}

void viv__job_kick(viv_job *job) {
  if (job->rt->remote) { /* a stream has more for the daemon */
    viv__remote_feed(job);
    return;
  }
  atomic_store(&job->kicked, 1);
  pthread_mutex_lock(&job->model->lock);
  atomic_fetch_add(&job->model->bell, 1);
  pthread_cond_broadcast(&job->model->wake);
  pthread_mutex_unlock(&job->model->lock);
}

/* Blocks of events are used again when they carry a word or two of text or a piece of a stream; those
 * above MOST_NODE, and what would let more than MOST_SPARE bytes lie idle, are freed. */
enum { SMALL_NODE = 1024, MOST_NODE = 128 * 1024, MOST_SPARE = 1024 * 1024 };

/* The lock must be held. */
static void append(viv_job *job, viv__event_node *node) {
  node->event.seq = job->seq++;
  if (job->tail)
    job->tail->next = node;
  else
    job->head = node;
  job->tail = node;
  job->queued++;
  if (job->fd >= 0) {
    uint64_t one = 1;
    ssize_t n;
    do n = write(job->fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    if (n < 0) errno = 0; /* already readable: nothing to add */
  }
  atomic_fetch_add_explicit(&job->bell, 1, memory_order_release);
  pthread_cond_signal(&job->readable);
}

/* A block of at least that many bytes: one that was read already, when it is large enough. */
static viv__event_node *take_node(viv_job *job, size_t bytes) {
  if (bytes < SMALL_NODE) bytes = SMALL_NODE;
  pthread_mutex_lock(&job->lock);
  viv__event_node **at = &job->spare, *node;
  while (*at && (*at)->room < bytes) at = &(*at)->next;
  node = *at;
  if (node) {
    *at = node->next;
    job->spare_bytes -= node->room;
  }
  pthread_mutex_unlock(&job->lock);
  size_t room = node ? node->room : bytes;
  if (!node) node = viv__malloc(bytes);
  if (!node) return NULL;
  memset(node, 0, sizeof *node);
  node->room = room;
  atomic_init(&node->holds, 1);
  return node;
}

/* One block holds the node, its name and, unless they are lent, its bytes and its tensor's data. */
static viv__event_node *copy_event(viv_job *job, const viv_event *e, bool lent) {
  size_t name = (e->name.len + 1 + 63) & ~(size_t)63;
  size_t bytes = lent ? 64 : (e->bytes.len + 1 + 63) & ~(size_t)63;
  size_t data = e->kind == VIV_KIND_TENSOR && !lent ? e->tensor->bytes : 0;
  size_t head = (sizeof(viv__event_node) + 63) & ~(size_t)63;
  if (data > SIZE_MAX / 4 || e->bytes.len > SIZE_MAX / 4 || e->name.len > 4096) return NULL;
  viv__event_node *node = take_node(job, head + name + bytes + data);
  if (!node) return NULL;
  char *name_at = (char *)node + head, *bytes_at = name_at + name, *data_at = bytes_at + bytes;
  if (e->name.len) memcpy(name_at, e->name.ptr, e->name.len);
  name_at[e->name.len] = 0;
  if (e->bytes.len && !lent) memcpy(bytes_at, e->bytes.ptr, e->bytes.len);
  bytes_at[lent ? 0 : e->bytes.len] = 0;
  node->event = (viv_event){.struct_size = sizeof(viv_event),
                            .kind = e->kind,
                            .flags = e->flags & VIV_EVENT_TAP,
                            .name = {name_at, e->name.len},
                            .bytes = {lent && e->bytes.len ? e->bytes.ptr : bytes_at, e->bytes.len},
                            .progress = e->progress};
  if (e->kind == VIV_KIND_TENSOR) {
    if (data) memcpy(data_at, e->tensor->data, data);
    node->tensor = (viv_tensor){.struct_size = sizeof(viv_tensor),
                                .data = lent ? e->tensor->data : data_at,
                                .bytes = e->tensor->bytes,
                                .dtype = e->tensor->dtype,
                                .ndim = e->tensor->ndim};
    memcpy(node->tensor.shape, e->tensor->shape, sizeof node->tensor.shape);
    node->event.tensor = &node->tensor;
  }
  return node;
}

/* A plugin's promise about an event, checked at the crossing. */
static int32_t check_event(viv_job *job, const viv_event *e) {
  const viv__log *log = &job->rt->log;
  const char *plugin = job->model->plugin->id;
  if (viv__thread_is() != VIV_THREAD_JOB) {
    viv__logf(log, VIV_LOG_ERROR, "plugin %s called emit from a thread that runs no job", plugin);
    return VIV_BUG;
  }
  if (!e || !VIV_HAS(e, progress) || e->kind < VIV_KIND_TENSOR || e->kind > VIV_KIND_PROGRESS ||
      e->kind == VIV_KIND_STREAM) {
    viv__logf(log, VIV_LOG_ERROR, "plugin %s emitted an event that is too short or of no kind",
              plugin);
    return VIV_BUG;
  }
  if ((e->name.len && !e->name.ptr) || (e->bytes.len && !e->bytes.ptr)) {
    viv__logf(log, VIV_LOG_ERROR, "plugin %s emitted an event with a text of length and no pointer",
              plugin);
    return VIV_BUG;
  }
  viv_error why = VIV_ERROR_INIT;
  if (e->kind == VIV_KIND_TENSOR && (!e->tensor || check_tensor(e->tensor, "tensor", &why) < 0)) {
    viv__logf(log, VIV_LOG_ERROR, "plugin %s emitted a bad tensor: %s", plugin, why.message);
    return VIV_BUG;
  }
  if ((e->kind == VIV_KIND_TEXT || e->kind == VIV_KIND_JSON) &&
      !viv__utf8_valid(e->bytes.ptr, e->bytes.len)) {
    viv__logf(log, VIV_LOG_ERROR, "plugin %s emitted text that is not UTF-8", plugin);
    return VIV_BUG;
  }
  return VIV_OK;
}

int32_t viv__job_emit(viv_job *job, const viv_event *event) {
  int32_t status = check_event(job, event);
  if (status < 0) return status;
  status = viv__job_poll(job);
  if (status < 0) {
    job->refused = true;
    return status;
  }
  pthread_mutex_lock(&job->lock);
  bool full = !job->unbounded && job->queued >= job->max_queued, ended = job->ended;
  /* Cleared under the lock, so that a read that follows is seen by the worker. */
  if (full) atomic_store(&job->kicked, 0);
  pthread_mutex_unlock(&job->lock);
  if (ended) return VIV_BUG;
  if (full) return VIV_WAIT;
  return viv__job_deliver(job, event);
}

int32_t viv__job_deliver(viv_job *job, const viv_event *event) {
  viv__event_node *node = copy_event(job, event, false);
  if (!node) return VIV_NOT_NOW;
  pthread_mutex_lock(&job->lock);
  append(job, node);
  pthread_mutex_unlock(&job->lock);
  return VIV_OK;
}

int32_t viv__job_lend(viv_job *job, const viv_event *event, void (*release)(void *owner),
                      void *owner) {
  viv__event_node *node = copy_event(job, event, true);
  if (!node) {
    release(owner);
    return VIV_NOT_NOW;
  }
  node->release = release;
  node->owner = owner;
  pthread_mutex_lock(&job->lock);
  append(job, node);
  pthread_mutex_unlock(&job->lock);
  return VIV_OK;
}

void viv__job_end(viv_job *job, int32_t status, const viv_error *error, char *counters) {
  viv__job_detach_streams(job);
  pthread_mutex_lock(&job->lock);
  if (job->ended) {
    pthread_mutex_unlock(&job->lock);
    viv__free(counters);
    return;
  }
  job->ended = true;
  job->counters = counters;
  viv_event *e = &job->end.event;
  *e = (viv_event){.struct_size = sizeof *e,
                   .kind = VIV_KIND_END,
                   .flags = VIV_EVENT_FINAL,
                   .status = status < 0 ? status : VIV_OK,
                   .name = viv__str("end"),
                   .bytes = counters ? viv__str(counters) : viv__str("{}")};
  if (status < 0) {
    job->error = (viv_error)VIV_ERROR_INIT;
    if (error && VIV_HAS(error, message)) job->error = *error;
    job->error.code = status;
    if (!job->error.message[0])
      snprintf(job->error.message, sizeof job->error.message, "%s",
               status == VIV_CANCELLED  ? "the job was cancelled"
               : status == VIV_DEADLINE ? "the job's deadline passed"
                                        : "the model gave no reason");
    e->error = &job->error;
  }
  append(job, &job->end);
  pthread_mutex_unlock(&job->lock);
}

/* ---- the caller's side ---- */

static bool wait_readable(viv_job *job, int64_t timeout_ms) {
  if (timeout_ms < 0) {
    while (!job->head) pthread_cond_wait(&job->readable, &job->lock);
    return true;
  }
  uint64_t until = viv__now_ns() + (uint64_t)timeout_ms * 1000000u;
  struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
                       .tv_nsec = (long)(until % 1000000000u)};
  while (!job->head)
    if (timeout_ms == 0 || pthread_cond_timedwait(&job->readable, &job->lock, &t) == ETIMEDOUT)
      break;
  return job->head != NULL;
}

bool viv__job_has_event(viv_job *job) {
  pthread_mutex_lock(&job->lock);
  bool has = job->head || job->end_given;
  pthread_mutex_unlock(&job->lock);
  return has;
}

/* Waits for an event; the lock is held afterwards, and not before. */
static bool await_event(viv_job *job, int64_t timeout_ms) {
  bool asleep = false;
  if (job->rt->remote && !viv__job_has_event(job)) {
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : viv__now_ns() + (uint64_t)timeout_ms * 1000000u;
    asleep = !viv__remote_await(job, until);
    if (!asleep) timeout_ms = 0; /* what did not come by then did not come in time */
  } else if (timeout_ms != 0) {
    /* The answer to a small job comes sooner than this thread could fall asleep and be woken. */
    viv__spin(&job->bell, 0);
  }
  pthread_mutex_lock(&job->lock);
  bool there = job->head || job->end_given || wait_readable(job, timeout_ms);
  if (!asleep) return there;
  pthread_mutex_unlock(&job->lock);
  viv__remote_awake(job);
  pthread_mutex_lock(&job->lock);
  return there;
}

int32_t viv_next_event(viv_job *job, int64_t timeout_ms, viv_event *event) {
  if (!job || !event) return VIV_BAD_INPUT;
  bool there = await_event(job, timeout_ms);
  if (job->end_given || !there) {
    int32_t status = job->end_given ? VIV_DONE : VIV_WAIT;
    pthread_mutex_unlock(&job->lock);
    return status;
  }
  viv__event_node *node = job->head, *spent = job->current;
  job->head = node->next;
  if (!job->head) job->tail = NULL;
  job->queued--;
  job->current = node;
  if (spent && !viv__event_let_go(spent)) spent = NULL; /* its tensor was kept */
  job->end_given = node == &job->end;
  if (job->fd >= 0 && !job->head && !job->end_given) {
    uint64_t drained;
    if (read(job->fd, &drained, sizeof drained) < 0) errno = 0;
  }
  /* A producer that waits is woken at half, not at every event. */
  bool kick = job->queued == job->max_queued / 2;
  int64_t credit = 0;
  if (job->rt->remote && ++job->taken * 2 >= job->max_queued) {
    credit = job->taken;
    job->taken = 0;
  }
  if (spent && spent->room <= MOST_NODE && job->spare_bytes + spent->room <= MOST_SPARE) {
    spent->next = job->spare;
    job->spare = spent;
    job->spare_bytes += spent->room;
    spent = NULL;
  }
  pthread_mutex_unlock(&job->lock);
  viv__free(spent);
  *event = node->event;
  if (job->end_given) return VIV_OK;
  if (credit)
    viv__remote_credit(job, credit);
  else if (kick && !job->rt->remote && !job->ended)
    viv__job_kick(job);
  return VIV_OK;
}

int viv_job_fd(viv_job *job) {
  pthread_mutex_lock(&job->lock);
  if (job->fd < 0) job->fd = eventfd(job->head ? 1 : 0, EFD_NONBLOCK | EFD_CLOEXEC);
  int fd = job->fd;
  pthread_mutex_unlock(&job->lock);
  if (job->rt->remote) viv__remote_described(job);
  return fd;
}

void viv_job_cancel(viv_job *job) {
  int run = VIV__RUN;
  if (!job || !atomic_compare_exchange_strong(&job->stop, &run, VIV__CANCEL)) return;
  if (job->rt->remote) {
    viv__remote_cancel(job);
    return;
  }
  viv__job_ref(job);
  viv__loop_wake(job->rt);
  viv__job_kick(job);
  viv__job_unref(job);
}

void viv_job_free(viv_job *job) {
  if (!job) return;
  pthread_mutex_lock(&job->lock);
  bool ended = job->ended;
  pthread_mutex_unlock(&job->lock);
  if (!ended) viv_job_cancel(job);
  viv__job_unref(job);
}
