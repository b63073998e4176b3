/* Passes: a job's task is run, its memory handed out and its results handed over. */
#include "nn/pass.h"
#include "nn/text.h"
#include "vivarium/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_LEN = 128, BLOCK_BYTES = 1 << 20 };

/* Memory of the job's arena, taken and given back as a stack. Blocks behind the current one are
 * free. */
struct block {
  struct block *next;
  uint64_t size, used;
  uint64_t reserved[5]; /* the data begins on a multiple of 64 */
};

/* A result that the host could not take yet. Its bytes (the name, then the data) lie behind it. Once
 * handed over it is free for another, so that a stream with a slow reader takes no more memory. */
struct waiting {
  struct waiting *next;
  uint64_t room; /* bytes */
  viv_event event;
  viv_tensor tensor;
};

struct nn_pass {
  nn_net *net;
  const nn_task *task;
  const viv_plugin_request *request;
  viv_job *job;
  viv_arena *arena;
  viv_error *error;
  struct block *first, *now;
  struct waiting *queue, *last, *spare;
  void *state;
  bool done;
  int32_t status; /* of a task that was left */
  jmp_buf leave;
};

/* ---- models ---- */

int32_t nn_net_begin(nn_net *net, const viv_host *host, const nn_task *tasks, viv_error *error) {
  *net = (nn_net){.host = host, .tasks = tasks, .compute = nn_compute(host, error)};
  return net->compute ? VIV_OK : VIV_NEVER;
}

int32_t nn_net_plan(const viv_host *host, const viv_model_source *source, nn_tables_fn tables,
                    void *model, uint64_t bytes, viv_memory_plan *out, viv_error *error) {
  uint64_t weights = 0;
  const viv_compute *c = nn_compute(host, error);
  if (!c) return VIV_NEVER;
  int32_t rc = nn_weights_check(host, c, source, tables, model, &weights, error);
  if (rc < 0) return rc;
  viv_memory_plan plan = {.struct_size = out->struct_size, .model_bytes = weights + bytes};
  nn_write(out, out->struct_size, &plan, sizeof plan);
  return VIV_OK;
}

void nn_net_close(viv_plugin_model *model) {
  (void)model; /* all of it lies in the model's arena */
}

viv_str nn_net_describe(const viv_plugin_model *model) {
  const char *about = ((const nn_net *)(const void *)model)->about;
  return nn_str(about ? about : "{}");
}

/* ---- memory ---- */

static char *data_of(struct block *b) {
  return (char *)(b + 1);
}

static struct block *block_new(nn_pass *p, uint64_t bytes) {
  _Static_assert(sizeof(struct block) == 64, "data begins on a multiple of 64");
  uint64_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
  struct block *b = p->net->host->arena_alloc(p->arena, size + sizeof *b);
  if (!b)
    nn_stop(p, VIV_NOT_NOW, "memory", "no memory for %llu more bytes of this job",
            (unsigned long long)bytes);
  b->size = size;
  return b;
}

void *nn_bytes(nn_pass *p, int64_t count, size_t size) {
  if (count < 0 || (count && size > (uint64_t)(INT64_MAX - 64) / (uint64_t)count))
    nn_stop(p, VIV_BAD_INPUT, "memory", "the inputs ask for more memory than exists");
  uint64_t bytes = ((uint64_t)count * size + 63) / 64 * 64;
  if (!p->first) p->first = p->now = block_new(p, bytes);
  while (p->now->size - p->now->used < bytes) {
    struct block *next = p->now->next;
    if (!next || next->size < bytes) { /* a larger one goes before those that are too small */
      struct block *b = block_new(p, bytes);
      b->next = next;
      p->now->next = next = b;
    }
    next->used = 0;
    p->now = next;
  }
  void *at = data_of(p->now) + p->now->used;
  p->now->used += bytes;
  return at;
}

float *nn_room(nn_pass *p, int64_t n) {
  return nn_bytes(p, n, sizeof(float));
}

nn_mark nn_here(const nn_pass *p) {
  nn_mark mark = {p->now, p->now ? p->now->used : 0};
  return mark;
}

void nn_release(nn_pass *p, nn_mark mark) {
  if (!p->first) return;
  p->now = mark.block ? mark.block : p->first;
  p->now->used = mark.used;
}

void *nn_keep(nn_pass *p, int64_t count, size_t size) {
  void *at = NULL;
  if (count >= 0 && (!count || size <= (uint64_t)(INT64_MAX - 64) / (uint64_t)count))
    at = p->net->host->arena_alloc(p->arena, (uint64_t)count * size + 1);
  if (!at) nn_stop(p, VIV_NOT_NOW, "memory", "no memory for %lld items", (long long)count);
  return at;
}

void *nn_state(nn_pass *p, size_t size) {
  if (!p->state) p->state = nn_keep(p, 1, size);
  return p->state;
}

/* ---- the task's surroundings ---- */

void *nn_net_of(const nn_pass *p) {
  return p->net;
}
const viv_compute *nn_compute_of(const nn_pass *p) {
  return p->net->compute;
}
const viv_host *nn_host_of(const nn_pass *p) {
  return p->net->host;
}
viv_plugin_session *nn_session_of(const nn_pass *p) {
  return p->request->session;
}
viv_error *nn_error_of(nn_pass *p) {
  return p->error;
}

void nn_leave(nn_pass *p, int32_t status) {
  p->status = status < 0 ? status : VIV_BUG;
  longjmp(p->leave, 1);
}

void nn_stop(nn_pass *p, int32_t code, const char *where, const char *format, ...) {
  char text[700];
  va_list args;
  va_start(args, format);
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  va_end(args);
  nn_fail(p->error, code, where, "%s", text);
  nn_leave(p, code);
}

void nn_pass_poll(nn_pass *p) {
  int32_t rc = p->net->host->job_poll(p->job);
  if (rc < 0) nn_stop(p, rc, p->task->name, "stopped between two layers, as the host asked");
}

/* ---- the tokenizer ---- */

static const viv_text_api *text_api(const nn_pass *p) {
  return p->net->host->get_extension(p->net->host->self, nn_str(VIV_TEXT_ID));
}

bool nn_text_of(nn_pass *p, const int32_t *ids, int64_t n, bool skip_special, viv_str *out) {
  const viv_text_api *api = text_api(p);
  int32_t rc = api ? api->decode(p->job, ids, n, skip_special, out, p->error) : VIV_NEVER;
  if (rc < 0 && rc != VIV_NEVER) nn_leave(p, rc);
  return rc >= 0;
}

int32_t nn_token_id(nn_pass *p, const char *spelling) {
  const viv_text_api *api = text_api(p);
  return api ? api->token_id(p->job, nn_str(spelling)) : -1;
}

/* ---- inputs ---- */

int32_t nn_count(const nn_pass *p, const char *name) {
  int32_t n = 0;
  for (int32_t i = 0; i < p->request->n_inputs; i++) n += nn_is(p->request->inputs[i]->name, name);
  return n;
}

const viv_value *nn_value(const nn_pass *p, const char *name, int32_t at) {
  for (int32_t i = 0; i < p->request->n_inputs; i++)
    if (nn_is(p->request->inputs[i]->name, name) && at-- == 0) return p->request->inputs[i];
  return NULL;
}

const viv_tensor *nn_input_at(nn_pass *p, const char *name, int32_t at) {
  const viv_value *v = nn_value(p, name, at);
  if (!v) return NULL;
  if (v->kind != VIV_KIND_TENSOR)
    nn_stop(p, VIV_BAD_INPUT, name, "must be a tensor for the task %s", p->task->name);
  return v->tensor;
}

const viv_tensor *nn_input(nn_pass *p, const char *name) {
  return nn_input_at(p, name, 0);
}

const viv_tensor *nn_need(nn_pass *p, const char *name) {
  const viv_tensor *t = nn_input(p, name);
  if (!t) nn_stop(p, VIV_BAD_INPUT, name, "is missing; the task %s needs it", p->task->name);
  return t;
}

static int64_t elements(const viv_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

/* The double nearest to an element; whole numbers beyond 2^53 are read by nn_as_ints. */
static double element(const viv_tensor *t, int64_t i) {
  switch (t->dtype) {
  case VIV_F64:
    return ((const double *)t->data)[i];
  case VIV_I64:
    return (double)((const int64_t *)t->data)[i];
  case VIV_I32:
    return ((const int32_t *)t->data)[i];
  case VIV_I16:
    return ((const int16_t *)t->data)[i];
  case VIV_I8:
    return ((const int8_t *)t->data)[i];
  default:
    return ((const uint8_t *)t->data)[i];
  }
}

const float *nn_as_floats(nn_pass *p, const viv_tensor *t, const char *name) {
  if (t->dtype == VIV_F32) return t->data;
  if (t->dtype < VIV_F32 || t->dtype > VIV_BOOL)
    nn_stop(p, VIV_BAD_INPUT, name, "has a dtype without numbers");
  int64_t n = elements(t);
  float *x = nn_room(p, n);
  if (t->dtype == VIV_F16 || t->dtype == VIV_BF16)
    p->net->compute->load(p->net->compute, t->dtype, t->data, x, n);
  else
    for (int64_t i = 0; i < n; i++) x[i] = (float)element(t, i);
  return x;
}

const int64_t *nn_as_ints(nn_pass *p, const viv_tensor *t, const char *name) {
  if (t->dtype == VIV_I64) return t->data;
  if (t->dtype < VIV_I64 || t->dtype > VIV_BOOL)
    nn_stop(p, VIV_BAD_INPUT, name, "must hold whole numbers (I64, I32, I16, I8, U8 or BOOL)");
  int64_t n = elements(t);
  int64_t *x = nn_bytes(p, n, sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = (int64_t)element(t, i);
  return x;
}

static void shape_text(char *text, size_t size, int32_t ndim, const int64_t *shape) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int32_t i = 0; i < ndim && used < size; i++) {
    const char *comma = i ? ", " : "";
    int n = shape[i] ? snprintf(text + used, size - used, "%s%lld", comma, (long long)shape[i])
                     : snprintf(text + used, size - used, "%s*", comma);
    used += (size_t)n;
  }
  if (used < size) snprintf(text + used, size - used, "]");
}

static void check_shape(nn_pass *p, const viv_tensor *t, const char *name, int32_t ndim,
                        int64_t *shape) {
  char want[128], have[160];
  int32_t extra = t->ndim > ndim ? t->ndim - ndim : 0,
          missing = ndim > t->ndim ? ndim - t->ndim : 0;
  bool fits = true;
  for (int32_t i = 0; i < extra; i++) fits = fits && t->shape[i] == 1;
  for (int32_t i = 0; i < ndim; i++) {
    int64_t n = i < missing ? 1 : t->shape[extra + i - missing];
    fits = fits && (shape[i] == n || shape[i] == 0);
  }
  if (!fits) {
    shape_text(want, sizeof want, ndim, shape);
    shape_text(have, sizeof have, t->ndim, t->shape);
    nn_stop(p, VIV_BAD_INPUT, name, "is %s, the task %s takes %s", have, p->task->name, want);
  }
  for (int32_t i = 0; i < ndim; i++) shape[i] = i < missing ? 1 : t->shape[extra + i - missing];
}

const float *nn_some_floats(nn_pass *p, const char *name, int32_t ndim, int64_t *shape) {
  const viv_tensor *t = nn_input(p, name);
  if (!t) return NULL;
  check_shape(p, t, name, ndim, shape);
  return nn_as_floats(p, t, name);
}

const float *nn_need_floats(nn_pass *p, const char *name, int32_t ndim, int64_t *shape) {
  nn_need(p, name);
  return nn_some_floats(p, name, ndim, shape);
}

const int64_t *nn_some_ints(nn_pass *p, const char *name, int32_t ndim, int64_t *shape) {
  const viv_tensor *t = nn_input(p, name);
  if (!t) return NULL;
  check_shape(p, t, name, ndim, shape);
  return nn_as_ints(p, t, name);
}

const int64_t *nn_need_ints(nn_pass *p, const char *name, int32_t ndim, int64_t *shape) {
  nn_need(p, name);
  return nn_some_ints(p, name, ndim, shape);
}

/* ---- parameters ---- */

const viv_json *nn_param(const nn_pass *p, const char *key) {
  const viv_host *h = p->net->host;
  const viv_json *v = h->json_member(p->request->params, nn_str(key));
  int32_t type = h->json_type(v);
  return type == VIV_JSON_NULL || type == VIV_JSON_ABSENT ? NULL : v;
}

static nn_config params_of(nn_pass *p) {
  nn_config c = {p->net->host, p->request->params, "params", p->error, VIV_OK};
  return c;
}

int64_t nn_param_int(nn_pass *p, const char *key, int64_t fallback, int64_t lo, int64_t hi) {
  nn_config c = params_of(p);
  int64_t x = nn_int(&c, key, fallback, lo, hi);
  if (c.status) nn_leave(p, c.status);
  return x;
}

double nn_param_num(nn_pass *p, const char *key, double fallback, double lo, double hi) {
  nn_config c = params_of(p);
  double x = nn_num(&c, key, fallback, lo, hi);
  if (c.status) nn_leave(p, c.status);
  return x;
}

bool nn_param_flag(nn_pass *p, const char *key, bool fallback) {
  nn_config c = params_of(p);
  bool x = nn_flag(&c, key, fallback);
  if (c.status) nn_leave(p, c.status);
  return x;
}

viv_str nn_param_text(nn_pass *p, const char *key, const char *fallback) {
  nn_config c = params_of(p);
  viv_str x = nn_text(&c, key, fallback);
  if (c.status) nn_leave(p, c.status);
  return x;
}

int32_t nn_param_numbers(nn_pass *p, const char *key, double *out, int32_t max) {
  const viv_host *h = p->net->host;
  const viv_json *v = nn_param(p, key);
  if (!v) return 0;
  bool list = h->json_type(v) == VIV_JSON_ARRAY;
  int64_t n = list ? h->json_count(v) : 1;
  if (n > max)
    nn_stop(p, VIV_BAD_INPUT, "params", "%s has %lld items, at most %d are possible", key,
            (long long)n, (int)max);
  for (int64_t i = 0; i < n; i++) {
    const viv_json *item = list ? h->json_item(v, i) : v;
    if (h->json_type(item) != VIV_JSON_NUMBER)
      nn_stop(p, VIV_BAD_INPUT, "params", "%s must hold numbers only", key);
    out[i] = h->json_number(item);
  }
  return (int32_t)n;
}

/* ---- results ---- */

/* One that was handed over and is large enough, or a new one. */
static struct waiting *take_waiting(nn_pass *p, uint64_t bytes) {
  for (struct waiting **at = &p->spare; *at; at = &(*at)->next)
    if ((*at)->room >= bytes) {
      struct waiting *w = *at;
      *at = w->next;
      w->next = NULL;
      return w;
    }
  struct waiting *w = nn_keep(p, (int64_t)(sizeof *w + bytes), 1);
  w->room = bytes;
  return w;
}

/* Hands an event over, or keeps a copy of it until the host can take it. */
static void hand_over(nn_pass *p, const viv_event *event) {
  const viv_host *h = p->net->host;
  int32_t rc = p->queue ? VIV_WAIT : h->job_emit(p->job, event);
  if (rc < 0) nn_stop(p, rc, p->task->name, "the host took no more results");
  if (rc != VIV_WAIT) return;
  const viv_tensor *t = event->tensor;
  uint64_t name = (event->name.len + 63) / 64 * 64, data = t ? t->bytes : event->bytes.len;
  struct waiting *w = take_waiting(p, name + data + 64);
  char *bytes = (char *)(w + 1);
  bytes += (64 - (uintptr_t)bytes % 64) % 64;
  w->event = *event;
  memcpy(bytes, event->name.ptr, event->name.len);
  w->event.name.ptr = bytes;
  if (t) {
    w->tensor = *t;
    w->tensor.data = bytes + name;
    if (data) memcpy(w->tensor.data, t->data, data);
    w->event.tensor = &w->tensor;
  } else if (data) {
    memcpy(bytes + name, event->bytes.ptr, data);
    w->event.bytes.ptr = bytes + name;
  }
  if (p->last)
    p->last->next = w;
  else
    p->queue = w;
  p->last = w;
}

static int32_t flush(nn_pass *p) {
  while (p->queue) {
    struct waiting *w = p->queue;
    int32_t rc = p->net->host->job_emit(p->job, &w->event);
    if (rc) return rc;
    p->queue = w->next;
    w->next = p->spare;
    p->spare = w;
  }
  p->last = NULL;
  return VIV_OK;
}

static size_t size_of(int32_t dtype) {
  static const uint8_t size[] = {0, 4, 8, 2, 2, 8, 4, 2, 1, 1, 1};
  return dtype > 0 && dtype <= VIV_BOOL ? size[dtype] : 0;
}

static void tensor_event(nn_pass *p, uint32_t flags, const char *name, int32_t dtype,
                         const void *data, int32_t ndim, const int64_t *shape) {
  viv_tensor t = {.struct_size = sizeof t,
                  .flags = VIV_TENSOR_READ_ONLY,
                  .dtype = dtype,
                  .ndim = ndim,
                  .bytes = size_of(dtype)};
  for (int32_t i = 0; i < ndim; i++) {
    t.shape[i] = shape[i];
    t.bytes *= (uint64_t)shape[i];
  }
  memcpy(&t.data, &data, sizeof data); /* borrowed and read-only, as the flag says */
  viv_event e = {.struct_size = sizeof e,
                 .kind = VIV_KIND_TENSOR,
                 .flags = flags,
                 .name = nn_str(name),
                 .tensor = &t};
  hand_over(p, &e);
}

void nn_result(nn_pass *p, int32_t dtype, const void *data, int32_t ndim, const int64_t *shape,
               const char *format, ...) {
  char name[NAME_MAX_LEN];
  va_list args;
  va_start(args, format);
  if (vsnprintf(name, sizeof name, format, args) < 0) name[0] = 0;
  va_end(args);
  tensor_event(p, 0, name, dtype, data, ndim, shape);
}

void nn_result_text(nn_pass *p, int32_t kind, const char *name, viv_str text) {
  viv_event e = {.struct_size = sizeof e, .kind = kind, .name = nn_str(name), .bytes = text};
  hand_over(p, &e);
}

void nn_progress(nn_pass *p, double done) {
  viv_event e = {.struct_size = sizeof e,
                 .kind = VIV_KIND_PROGRESS,
                 .name = nn_str("progress"),
                 .progress = done};
  if (!p->queue) hand_over(p, &e); /* what the consumer is too slow for is out of date */
}

bool nn_wants_result(const nn_pass *p, const char *format, ...) {
  const viv_host *h = p->net->host;
  const viv_json *list = nn_param(p, "outputs");
  if (!list) return true;
  char name[NAME_MAX_LEN];
  va_list args;
  va_start(args, format);
  if (vsnprintf(name, sizeof name, format, args) < 0) name[0] = 0;
  va_end(args);
  for (int64_t i = 0; i < h->json_count(list); i++)
    if (nn_is(h->json_string(h->json_item(list, i)), name)) return true;
  return false;
}

bool nn_taps(const nn_pass *p, const char *format, ...) {
  char name[NAME_MAX_LEN];
  va_list args;
  va_start(args, format);
  if (vsnprintf(name, sizeof name, format, args) < 0) name[0] = 0;
  va_end(args);
  return p->net->host->job_wants_tap(p->job, nn_str(name)) == 1;
}

void nn_tap(nn_pass *p, const float *data, int32_t ndim, const int64_t *shape, const char *format,
            ...) {
  char name[NAME_MAX_LEN];
  va_list args;
  va_start(args, format);
  if (vsnprintf(name, sizeof name, format, args) < 0) name[0] = 0;
  va_end(args);
  if (p->net->host->job_wants_tap(p->job, nn_str(name)) == 1)
    tensor_event(p, VIV_EVENT_TAP, name, VIV_F32, data, ndim, shape);
}

/* ---- jobs ---- */

int32_t nn_net_begin_job(viv_plugin_model *model, const viv_plugin_request *request, viv_job *job,
                         viv_plugin_job **out, viv_error *error) {
  nn_net *net = (nn_net *)(void *)model;
  const nn_task *task = net->tasks;
  while (task->name && !nn_is(request->task, task->name)) task++;
  if (!task->name) {
    char known[300] = "";
    for (const nn_task *t = net->tasks; t->name; t++) {
      size_t used = strlen(known);
      snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", t->name);
    }
    return nn_fail(error, VIV_NEVER, "task", "this model has no task %.*s; it has %s",
                   (int)request->task.len, request->task.ptr, known);
  }
  viv_arena *arena = net->host->job_arena(job);
  nn_pass *p = arena ? net->host->arena_alloc(arena, sizeof *p) : NULL;
  if (!p) return nn_fail(error, VIV_NOT_NOW, "memory", "no memory for the job");
  p->net = net;
  p->task = task;
  p->request = request;
  p->job = job;
  p->arena = arena;
  *out = (viv_plugin_job *)p;
  return VIV_OK;
}

/* Runs the task once. Apart, so that nothing of the caller's lives across the jump. */
static int32_t run(nn_pass *p) {
  if (setjmp(p->leave)) return p->status;
  return p->task->run(p);
}

int32_t nn_net_step(viv_plugin_job *job, viv_error *error) {
  nn_pass *p = (nn_pass *)(void *)job;
  p->error = error;
  int32_t rc = flush(p);
  if (rc) return rc;
  if (p->done) return VIV_DONE;
  rc = run(p);
  if (rc < 0) return rc;
  nn_mark start = {p->first, 0};
  nn_release(p, start);
  p->done = rc == VIV_DONE;
  if (p->queue) return VIV_WAIT;
  return rc == VIV_WAIT || rc == VIV_DONE ? rc : VIV_MORE;
}

void nn_net_end(viv_plugin_job *job) {
  (void)job; /* all of it lies in the job's arena */
}
