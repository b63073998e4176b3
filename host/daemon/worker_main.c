/* The worker process: one model behind one socket, locked in before the first byte of it is read.
 *
 *   vivd --worker THREADS BUDGET PLUGINS PATH PARAMS      descriptor 3: the daemon
 *
 * PLUGINS, PATH and PARAMS may be empty. The daemon is trusted; its clients' bytes, which it passes
 * on, are not. One thread reads frames and pulls events; the library's own threads compute. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/core.h"
#include "daemon/daemon.h"

enum { DAEMON_FD = 3, MAX_JOBS = 1024, MAX_POOLS = 128, READABLE = 512, DEFAULT_JOBS = 16 };

typedef struct running {
  uint64_t id;
  viv_job *job;
  int64_t credit;
  uint64_t seq, deadline_ns, client;
  bool cancelled;
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

typedef struct state {
  viv__link link;
  viv_runtime *rt;
  viv_model *model;
  running jobs[MAX_JOBS];
  size_t n_jobs;
  mapped pools[MAX_POOLS];
  held *sessions;
  results *results;
  bool leaving;
} state;

/* ---- answers ---- */

static void reply(state *s, uint64_t id, int32_t status, const viv_error *error, viv_str json) {
  viv__wire_reply m = {.status = status, .json = json};
  viv__buf b = {0};
  if (status < 0) {
    m.error = *error;
    m.error.code = status;
  }
  viv__wire_put_reply(&b, &m);
  viv__link_put_buf(&s->link, VIV__WIRE_REPLY, id, &b, -1);
}

static void reply_text(state *s, uint64_t id, int32_t status, const viv_error *error,
                       viv_text *text) {
  reply(s, id, status, error, (viv_str){text->ptr, text->len});
  viv_text_free(text);
}

/* ---- events ---- */

/* Bytes in a memfd that nobody can write any more. */
static int frozen(const char *name, const void *bytes, size_t len) {
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
    *fd = frozen("vivarium-result", v->bytes.ptr, v->bytes.len);
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

static void drop_job(state *s, running *r) {
  viv_job_free(r->job);
  *r = s->jobs[--s->n_jobs];
}

/* Sends what the job has; true: it ended and its place is another's now. */
static bool pull(state *s, running *r) {
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
      drop_job(s, r);
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

/* Everything is copied by viv_submit before the daemon's next frame is read. */
static int32_t submit(state *s, const viv__wire_submit *m, viv_job **out, viv_error *error) {
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
                       ? viv_submit(s->model, &q, out, error)
                       : VIV_FAIL(error, VIV_NOT_NOW, "job", "no memory");
  viv__free(task);
  viv__free(params);
  return status;
}

static void on_submit(state *s, const viv__frame *f) {
  static viv__wire_submit m;
  viv_error error = VIV_ERROR_INIT;
  viv_job *made = NULL;
  int32_t status = viv__wire_submit_read(f, &m, &error);
  if (status >= 0 && (!s->model || s->n_jobs == MAX_JOBS))
    status = VIV_FAIL(&error, VIV_NOT_NOW, "worker", "there is no model yet, or too many jobs");
  if (status >= 0) status = submit(s, &m, &made, &error);
  if (status < 0) {
    send_end(s, f->id, 0, status, &error);
    return;
  }
  running *r = &s->jobs[s->n_jobs++];
  /* vivd has put the connection's number where a client names the model. */
  *r = (running){.id = f->id, .job = made, .credit = m.credit, .client = m.model};
  if (m.deadline_ms > 0) r->deadline_ns = viv__now_ns() + (uint64_t)m.deadline_ms * 1000000u;
}

static running *job_of(state *s, uint64_t id) {
  for (size_t i = 0; i < s->n_jobs; i++)
    if (s->jobs[i].id == id) return &s->jobs[i];
  return NULL;
}

static void on_pool(state *s, const viv__frame *f, int fd) {
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

static void on_unpool(state *s, uint64_t number) {
  for (int i = 0; i < MAX_POOLS; i++)
    if (s->pools[i].at && s->pools[i].number == number) {
      munmap(s->pools[i].at, s->pools[i].bytes);
      s->pools[i].at = NULL;
    }
}

/* ---- calls ---- */

static const viv_json *parameters(viv_str text, viv_json **out, viv_error *error) {
  if (viv__json_parse(text.len ? text.ptr : "{}", text.len ? text.len : 2, "CALL", out, error) < 0)
    return NULL;
  return *out;
}

static void call_load(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_text about = {0};
  const char *params = viv__json_text(p, "params", "");
  int32_t status = s->model ? VIV_FAIL(&error, VIV_BUG, "worker", "it has a model already")
                            : viv_load(s->rt, viv__json_text(p, "path", ""),
                                       *params ? params : NULL, &s->model, &error);
  if (status >= 0) status = viv_describe(s->model, &about, &error);
  if (status < 0) {
    reply(s, id, status, &error, (viv_str){NULL, 0});
    return;
  }
  viv_json *of = NULL, *json = NULL;
  if (*params) viv__json_parse(params, strlen(params), "params", &of, NULL);
  viv__json_parse(about.ptr, about.len, "about", &json, NULL);
  viv__buf b = {0};
  viv__buf_fmt(&b, "{\"max_jobs\":%d,\"name\":", (int)viv__json_num(of, "max_jobs", DEFAULT_JOBS));
  viv__buf_json(&b, viv__str(viv__json_text(json, "name", "model")));
  viv__buf_fmt(&b, ",\"about\":%s}", about.ptr);
  reply(s, id, VIV_OK, NULL, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv__json_free(of);
  viv__json_free(json);
  viv_text_free(&about);
}

static void call_tokenize(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_str text = viv__json_string(viv__json_get(p, "text"));
  int32_t *ids = NULL;
  uint64_t n = 0;
  int32_t status = viv_tokenize(s->model, text.len ? text.ptr : "", text.len,
                                viv__json_bool(p, "add_special", false), &ids, &n, &error);
  viv__buf b = {0};
  viv__buf_str(&b, "{\"ids\":[");
  for (uint64_t i = 0; status >= 0 && i < n; i++) viv__buf_fmt(&b, "%s%d", i ? "," : "", ids[i]);
  viv__buf_str(&b, "]}");
  reply(s, id, status, &error, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv_ids_free(ids);
}

static void call_detokenize(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  const cJSON *list = (const cJSON *)viv__json_get(p, "ids"), *item;
  uint64_t n = 0, count = (uint64_t)viv__json_count((const viv_json *)list);
  int32_t *ids = viv__calloc(count + 1, sizeof *ids);
  viv_text text = {0};
  cJSON_ArrayForEach(item, list) if (ids && n < count) ids[n++] = item->valueint;
  int32_t status = ids ? viv_detokenize(s->model, ids, n, viv__json_bool(p, "skip_special", false),
                                        &text, &error)
                       : VIV_FAIL(&error, VIV_NOT_NOW, "ids", "no memory");
  viv__buf b = {0};
  viv__buf_str(&b, "{\"text\":");
  viv__buf_json(&b, (viv_str){text.ptr, text.len});
  viv__buf_str(&b, "}");
  reply(s, id, status, &error, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv_text_free(&text);
  viv__free(ids);
}

static int32_t close_session(state *s, uint64_t number) {
  for (held **at = &s->sessions; *at; at = &(*at)->next)
    if ((*at)->id == number) {
      held *h = *at;
      *at = h->next;
      viv_session_close(h->session);
      viv__free(h);
      break;
    }
  return VIV_OK;
}

/* fd: a memfd with a saved session, -1: a fresh one. */
static int32_t open_session(state *s, uint64_t number, int fd, viv_error *error) {
  held *h = viv__calloc(1, sizeof *h);
  if (!h) return VIV_FAIL(error, VIV_NOT_NOW, "session", "no memory");
  int32_t status;
  if (fd < 0) {
    status = viv_session_open(s->model, &h->session, error);
  } else {
    int64_t len = viv__region_size(fd, error);
    void *at = len > 0 ? mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    status = at == MAP_FAILED
                 ? VIV_FAIL(error, VIV_BAD_INPUT, "session", "what came can't be read")
                 : viv__session_resume(s->model, at, (size_t)len, "session", &h->session, error);
    if (at != MAP_FAILED) munmap(at, (size_t)len);
  }
  if (status < 0) {
    viv__free(h);
    return status;
  }
  h->id = number;
  h->next = s->sessions;
  s->sessions = h;
  return VIV_OK;
}

static int32_t save_session(state *s, uint64_t number, int *fd, viv_error *error) {
  char *data = NULL;
  size_t len = 0;
  held *h = s->sessions;
  while (h && h->id != number) h = h->next;
  if (!h) return VIV_FAIL(error, VIV_NOT_NOW, "session", "the session is gone; open a new one");
  int32_t status = viv__session_save(h->session, "session", &data, &len, error);
  if (status < 0) return status;
  *fd = frozen("vivarium-session", data, len);
  viv__free(data);
  return *fd >= 0 ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "session", "no shared memory for it");
}

/* session_open, session_resume with a descriptor, session_save, session_close. */
static void call_session(state *s, uint64_t id, viv_str verb, const viv_json *p, int fd) {
  viv_error error = VIV_ERROR_INIT;
  viv__buf b = {0};
  uint64_t number = (uint64_t)viv__json_num(p, "session", 0);
  int saved = -1;
  int32_t status = viv__str_eq(verb, "session_close")  ? close_session(s, number)
                   : viv__str_eq(verb, "session_save") ? save_session(s, number, &saved, &error)
                                                       : open_session(s, number, fd, &error);
  viv__buf_fmt(&b, "{\"session\":%llu}", (unsigned long long)number);
  viv__wire_reply m = {.status = status, .json = {b.ptr, b.len}};
  if (status < 0) m.error = error;
  viv__buf out = {0};
  viv__wire_put_reply(&out, &m);
  viv__link_put_buf(&s->link, VIV__WIRE_REPLY, id, &out, saved);
  viv__buf_free(&b);
}

static void call_inspect(state *s, uint64_t id, viv_str verb, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_text json = {0};
  const char *path = viv__json_text(p, "path", ""), *params = viv__json_text(p, "params", "");
  int32_t status;
  if (viv__str_eq(verb, "why"))
    status = viv_why(s->rt, path, &json, &error);
  else if (viv__str_eq(verb, "plan"))
    status = viv_plan(s->rt, path, *params ? params : NULL, &json, &error);
  else if (viv__str_eq(verb, "plugins"))
    status = viv_plugins(s->rt, &json, &error);
  else
    status = viv_machine(s->rt, &json, &error);
  reply_text(s, id, status, &error, &json);
}

static void on_call(state *s, const viv__frame *f, int fd) {
  viv__wire_call m;
  viv_json *json = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__wire_call_read(f, &m, &error);
  const viv_json *p = status >= 0 ? parameters(m.params, &json, &error) : NULL;
  if (!p)
    reply(s, f->id, VIV_BAD_INPUT, &error, (viv_str){NULL, 0});
  else if (viv__str_eq(m.verb, "load"))
    call_load(s, f->id, p);
  else if (viv__str_eq(m.verb, "tokenize"))
    call_tokenize(s, f->id, p);
  else if (viv__str_eq(m.verb, "detokenize"))
    call_detokenize(s, f->id, p);
  else if (m.verb.len > 8 && !memcmp(m.verb.ptr, "session_", 8))
    call_session(s, f->id, m.verb, p, fd);
  else
    call_inspect(s, f->id, m.verb, p);
  viv__json_free(json);
}

/* ---- the loop ---- */

static void on_frame(state *s, const viv__frame *f, int fd) {
  running *r;
  uint64_t n = 0;
  switch (f->type) {
  case VIV__WIRE_CALL:
    on_call(s, f, fd);
    break;
  case VIV__WIRE_SUBMIT:
    on_submit(s, f);
    break;
  case VIV__WIRE_CREDIT_MORE:
    if ((r = job_of(s, f->id)) && viv__wire_number_read(f, &n, NULL) >= 0) r->credit += (int64_t)n;
    break;
  case VIV__WIRE_CANCEL:
    if ((r = job_of(s, f->id))) {
      r->cancelled = true;
      viv_job_cancel(r->job);
    }
    break;
  case VIV__WIRE_POOL:
    on_pool(s, f, fd);
    fd = -1;
    break;
  case VIV__WIRE_UNPOOL:
    on_unpool(s, f->id);
    break;
  case VIV__WIRE_GOODBYE: /* of the connection of that number */
    results_forget(s->results, f->id);
    break;
  default:
    s->leaving = true;
  }
  if (fd >= 0) close(fd);
}

static void take_frames(state *s) {
  viv__frame f;
  viv_error error = VIV_ERROR_INIT;
  int fd;
  int32_t status = viv__link_read(&s->link, &error);
  if (status == VIV_DONE || status < 0) s->leaving = true;
  while (!s->leaving && (status = viv__link_next(&s->link, &f, &fd, &error)) == VIV_OK)
    on_frame(s, &f, fd);
  if (status < 0) s->leaving = true;
}

/* Deadlines of jobs whose reader gives no credit are looked at now and then. */
enum { LOOK_MS = 100 };

static void serve(state *s) {
  static struct pollfd fds[MAX_JOBS + 1];
  while (!s->leaving) {
    for (size_t i = 0; i < s->n_jobs;)
      if (!pull(s, &s->jobs[i])) i++;
    int32_t flushed = viv__link_flush(&s->link);
    if (flushed < 0) return;
    nfds_t n = 1;
    bool waits = false;
    fds[0] = (struct pollfd){.fd = DAEMON_FD,
                             .events = (short)(POLLIN | (flushed == VIV_WAIT ? POLLOUT : 0))};
    for (size_t i = 0; i < s->n_jobs; i++) {
      running *r = &s->jobs[i];
      if (r->credit > 0 || r->cancelled)
        fds[n++] = (struct pollfd){.fd = viv_job_fd(r->job), .events = POLLIN};
      else
        waits = waits || r->deadline_ns;
    }
    if (poll(fds, n, waits ? LOOK_MS : -1) < 0 && errno != EINTR) return;
    if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) take_frames(s);
  }
}

/* ---- before the first frame ---- */

typedef struct paths {
  const char *items[READABLE + 1];
  size_t n;
} paths;

static void add_path(paths *p, const char *path) {
  if (path && *path && p->n < READABLE) p->items[p->n++] = path;
}

/* A model's folder may be made of links into a store, as downloads are: what they name is the model's. */
static void add_model(paths *p, const char *path) {
  struct stat st;
  if (!*path) return;
  add_path(p, realpath(path, NULL));
  DIR *folder = !stat(path, &st) && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
  for (struct dirent *e; folder && (e = readdir(folder));) {
    char *file = viv__path_join(path, e->d_name);
    if (file && e->d_type == DT_LNK && !stat(file, &st) && S_ISREG(st.st_mode))
      add_path(p, realpath(file, NULL));
    viv__free(file);
  }
  if (folder) closedir(folder);
  if (!S_ISDIR(st.st_mode)) { /* a file's companions lie beside it */
    char *beside = realpath(path, NULL), *slash = beside ? strrchr(beside, '/') : NULL;
    if (slash && slash != beside) {
      *slash = 0;
      add_path(p, beside);
    }
  }
}

static void add_plugins(paths *p, const char *plugins) {
  if (*plugins) {
    char *copy = strdup(plugins), *rest = copy;
    for (char *one; copy && (one = strsep(&rest, ":"));) add_path(p, one);
    return;
  }
  char exe[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  char *slash = n > 0 ? memrchr(exe, '/', (size_t)n) : NULL;
  if (!slash) return;
  *slash = 0;
  static const char *const places[] = {"plugins", "vivarium/plugins", "../lib/vivarium/plugins"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    add_path(p, viv__path_join(exe, places[i]));
  add_path(p, VIV_PREFIX "/lib/vivarium/plugins");
}

/* The file of a plugin and how late it may notice a cancel. */
static void find_plugin(state *s, const char *id, viv__buf *note) {
  viv_text list = {0};
  viv_json *json = NULL, *manifest = NULL;
  char hash[65] = "", *text = NULL;
  size_t len = 0;
  if (viv_plugins(s->rt, &list, NULL) < 0) return;
  viv__json_parse(list.ptr, list.len, "plugins", &json, NULL);
  viv_text_free(&list);
  const viv_json *plugins = viv__json_get(json, "plugins");
  for (int64_t i = 0; i < viv__json_count(plugins); i++) {
    const viv_json *p = viv__json_item(plugins, i);
    const char *file = viv__json_text(p, "file", "");
    if (strcmp(viv__json_text(p, "id", ""), id) || viv__hash_file(file, hash, NULL) < 0) continue;
    size_t stem = strlen(file) > 3 ? strlen(file) - 3 : 0;
    char *beside = viv__malloc(stem + 6);
    if (beside) snprintf(beside, stem + 6, "%.*s.json", (int)stem, file);
    if (beside && viv__read_file(beside, 1 << 20, &text, &len, NULL) >= 0)
      viv__json_parse(text, len, beside, &manifest, NULL);
    viv__buf_str(note, ",\"file\":");
    viv__buf_json(note, viv__str(file));
    viv__buf_fmt(note, ",\"sha256\":\"%s\",\"cancel_latency_ms\":%.0f", hash,
                 viv__json_num(manifest, "cancel_latency_ms", 0));
    viv__free(beside);
    viv__free(text);
    viv__json_free(manifest);
    break;
  }
  viv__json_free(json);
}

static void report(state *s, const char *path, const char *params, const char *sandbox) {
  viv__buf note = {0};
  viv_text plan = {0};
  viv_json *json = NULL;
  viv__buf_fmt(&note, "{\"sandbox\":%s", sandbox);
  if (*path && viv_plan(s->rt, path, *params ? params : NULL, &plan, NULL) >= 0) {
    viv__json_parse(plan.ptr, plan.len, "plan", &json, NULL);
    viv_text_free(&plan);
    const char *id = viv__json_text(json, "plugin", "");
    viv__buf_str(&note, ",\"plugin\":");
    viv__buf_json(&note, viv__str(id));
    viv__buf_fmt(&note, ",\"bytes\":%.0f",
                 viv__json_num(viv__json_get(json, "plan"), "needed_bytes", 0));
    find_plugin(s, id, &note);
    viv__json_free(json);
  }
  viv__buf_str(&note, "}");
  viv__link_put_buf(&s->link, VIV__WIRE_NOTE, 0, &note, -1);
}

int worker_main(int argc, char **argv) {
  static state s;
  static paths readable;
  if (argc != 7 || fcntl(DAEMON_FD, F_GETFL) < 0) {
    fprintf(stderr, "vivd --worker is for vivd alone to run\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN); /* of the terminal: the daemon decides */
  const char *plugins = argv[4], *path = argv[5], *params = argv[6];
  add_plugins(&readable, plugins);
  add_model(&readable, path);
  char *sandbox = sandbox_enter(readable.items);
  if (!sandbox) {
    fprintf(stderr, "the worker can't be locked in\n");
    return 1;
  }
  fcntl(DAEMON_FD, F_SETFL, fcntl(DAEMON_FD, F_GETFL) | O_NONBLOCK);
  fcntl(DAEMON_FD, F_SETFD, FD_CLOEXEC);
  viv__link_open(&s.link, DAEMON_FD);
  if (!(s.results = results_new())) return 1;
  viv_error error = VIV_ERROR_INIT;
  viv_options o = {.struct_size = sizeof o,
                   .threads = atoi(argv[2]),
                   .plugin_path = *plugins ? plugins : NULL,
                   .cache_dir = "/nonexistent",
                   .memory_budget = strtoull(argv[3], NULL, 10)};
  if (viv_open(&o, &s.rt, &error) < 0) {
    fprintf(stderr, "%s: %s\n", error.where, error.message);
    return 1;
  }
  report(&s, path, params, sandbox);
  viv__free(sandbox);
  serve(&s);
  while (s.n_jobs) drop_job(&s, &s.jobs[0]);
  while (s.sessions) {
    held *h = s.sessions;
    s.sessions = h->next;
    viv_session_close(h->session);
    viv__free(h);
  }
  viv_close(s.rt);
  viv__link_close(&s.link);
  free(s.results);
  return 0;
}
