/* Connecting to a daemon, the thread that reads, and the calls. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/internal.h"

enum { GREETING_MS = 5000, SEND_S = 60 };

/* ---- sending ---- */

int32_t viv__remote_send(viv__remote *r, int type, uint64_t id, viv__buf *message, int fd,
                         viv_error *error) {
  viv__buf none = {0};
  size_t length = message ? message->len : 0;
  if ((int64_t)length > viv__wire_limit(type)) {
    viv__buf_free(message);
    if (fd >= 0) close(fd);
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(type),
                    "%zu bytes are more than the %lld that may cross at once", length,
                    (long long)viv__wire_limit(type));
  }
  pthread_mutex_lock(&r->send);
  bool sent = viv__link_put_buf(&r->link, type, id, message ? message : &none, fd) &&
              viv__link_flush(&r->link) == VIV_OK;
  /* A frame that left in part can't be taken back: the reader notices, and everything ends. */
  if (!sent) shutdown(r->link.fd, SHUT_RDWR);
  pthread_mutex_unlock(&r->send);
  return sent ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "vivd", "the connection is lost");
}

/* ---- reading ---- */

static void take_reply(viv__remote *r, const viv__frame *f, int fd) {
  viv__wire_reply m;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__wire_reply_read(f, &m, &error);
  pthread_mutex_lock(&r->state);
  for (viv__pending **at = &r->calls; *at; at = &(*at)->next) {
    viv__pending *p = *at;
    if (p->id != f->id) continue;
    *at = p->next;
    p->status = status < 0 ? status : m.status;
    p->error = status < 0 ? error : m.error;
    if (p->status >= 0) {
      p->json = viv__strndup(m.json.len ? m.json.ptr : "", m.json.len);
      p->len = m.json.len;
      if (!p->json) p->status = VIV_FAIL(&p->error, VIV_NOT_NOW, "reply", "no memory");
      p->fd = fd;
      fd = -1;
    }
    p->done = true;
    viv__remote_wake(r, &p->sleeps);
    break;
  }
  pthread_cond_broadcast(&r->changed);
  pthread_mutex_unlock(&r->state);
  if (fd >= 0) close(fd);
}

static void lose(viv__remote *r, const viv_error *reason) {
  pthread_mutex_lock(&r->state);
  r->lost = true;
  r->reason = *reason;
  while (r->calls) {
    viv__pending *p = r->calls;
    r->calls = p->next;
    p->status = reason->code;
    p->error = *reason;
    p->done = true;
  }
  pthread_cond_broadcast(&r->changed);
  pthread_mutex_unlock(&r->state);
  viv__remote_end_jobs(r);
}

/* Whether the connection goes on. */
static bool take_frame(viv__remote *r, const viv__frame *f, int fd, viv_error *error) {
  viv_str text;
  if (f->type == VIV__WIRE_EVENT) return viv__remote_event(r, f, fd, error);
  if (f->type == VIV__WIRE_REPLY) {
    take_reply(r, f, fd);
    return true;
  }
  if (fd >= 0) close(fd);
  if (f->type == VIV__WIRE_ROOM) return viv__remote_room(r, f, error);
  if (f->type == VIV__WIRE_UNPOOL) {
    viv__remote_regions_drop(r, f->id);
    return true;
  }
  if (f->type == VIV__WIRE_GOODBYE && viv__wire_text_read(f, &text, error) >= 0)
    VIV_FAIL(error, VIV_NOT_NOW, "vivd", "closed the connection: %.*s", (int)text.len, text.ptr);
  else if (f->type != VIV__WIRE_GOODBYE)
    VIV_FAIL(error, VIV_BUG, "vivd", "sent a %s, which is not for clients",
             viv__wire_name(f->type));
  return false;
}

/* Reads once, on the thread whose turn it is. Whether the connection goes on; if not, everything has been
 * ended. */
static bool read_once(viv__remote *r) {
  viv_error error = VIV_ERROR_INIT;
  viv__frame f;
  int fd;
  int32_t status = viv__link_read(&r->link, &error);
  if (status == VIV_DONE) VIV_FAIL(&error, VIV_NOT_NOW, "vivd", "the daemon is gone");
  bool on = status == VIV_OK || status == VIV_WAIT;
  while (on && (status = viv__link_next(&r->link, &f, &fd, &error)) == VIV_OK)
    on = take_frame(r, &f, fd, &error);
  if (status < 0) on = false;
  if (!on) lose(r, &error);
  return on;
}

/* Whoever waits in short intervals for small answers reads them itself; this thread keeps out of its way
 * that long after the last time, and then sees to what nobody waits for. */
enum { APART_NS = 20000000 };

/* The state lock is held. */
static bool is_apart(const viv__remote *r) {
  return !r->sleepers && !r->described && viv__now_ns() - r->waited_ns < APART_NS;
}

static void *reader(void *context) {
  viv__remote *r = context;
  pthread_mutex_lock(&r->state);
  while (!r->lost) {
    if (r->reading || is_apart(r)) {
      uint64_t until = viv__now_ns() + APART_NS;
      struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
                           .tv_nsec = (long)(until % 1000000000u)};
      pthread_cond_timedwait(&r->turn, &r->state, &t);
      continue;
    }
    r->reading = true;
    pthread_mutex_unlock(&r->state);
    read_once(r);
    pthread_mutex_lock(&r->state);
    r->reading = false;
  }
  pthread_mutex_unlock(&r->state);
  return NULL;
}

/* Whether something can be read before the time has come. */
static bool wait_readable(viv__remote *r, uint64_t until_ns) {
  struct pollfd wait = {.fd = r->link.fd, .events = POLLIN};
  if (until_ns == UINT64_MAX) return true;
  for (;;) {
    uint64_t now = viv__now_ns(), ns = until_ns > now ? until_ns - now : 0;
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    int ready = ppoll(&wait, 1, &t, NULL);
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

bool viv__remote_pump(viv__remote *r, bool (*done)(void *what), void *what, int *sleeps,
                      uint64_t until_ns) {
  pthread_mutex_lock(&r->state);
  r->waited_ns = viv__now_ns();
  bool ours = !r->reading && !r->described && !r->lost;
  if (ours) {
    r->reading = true;
  } else {
    r->sleepers++;
    ++*sleeps;
  }
  pthread_mutex_unlock(&r->state);
  if (!ours) return false;
  while (!done(what) && wait_readable(r, until_ns) && read_once(r)) continue;
  pthread_mutex_lock(&r->state);
  r->reading = false;
  r->waited_ns = viv__now_ns();
  if (r->sleepers || r->described || r->lost) pthread_cond_signal(&r->turn);
  pthread_mutex_unlock(&r->state);
  return true;
}

void viv__remote_wake(viv__remote *r, int *sleeps) {
  r->sleepers -= *sleeps;
  *sleeps = 0;
}

/* ---- calls ---- */

int32_t viv__remote_call(viv_runtime *rt, uint64_t model, const char *verb, const char *params,
                         viv_text *json, viv_error *error) {
  return viv__remote_call_with(rt, model, verb, params, -1, json, NULL, error);
}

struct asked {
  viv__remote *r;
  const viv__pending *p;
};

static bool is_answered(void *what) {
  const struct asked *a = what;
  pthread_mutex_lock(&a->r->state);
  bool done = a->p->done;
  pthread_mutex_unlock(&a->r->state);
  return done;
}

int32_t viv__remote_call_with(viv_runtime *rt, uint64_t model, const char *verb, const char *params,
                              int fd, viv_text *json, int *fd_out, viv_error *error) {
  viv__remote *r = rt->remote;
  viv__pending p = {.error = VIV_ERROR_INIT, .fd = -1};
  viv__buf b = {0};
  viv__wire_call m = {.model = model, .verb = viv__str(verb), .params = viv__str(params)};
  viv__wire_put_call(&b, &m);
  pthread_mutex_lock(&r->state);
  if (r->lost) {
    if (error && VIV_HAS(error, message)) *error = r->reason;
    pthread_mutex_unlock(&r->state);
    viv__buf_free(&b);
    if (fd >= 0) close(fd);
    return r->reason.code;
  }
  p.id = ++r->next_id;
  p.next = r->calls;
  r->calls = &p;
  pthread_mutex_unlock(&r->state);
  int32_t status = viv__remote_send(r, VIV__WIRE_CALL, p.id, &b, fd, error);
  pthread_mutex_lock(&r->state);
  if (status == VIV_BAD_INPUT) { /* it never left, so nobody answers */
    for (viv__pending **at = &r->calls; *at; at = &(*at)->next)
      if (*at == &p) {
        *at = p.next;
        break;
      }
    p.status = status;
    if (error && VIV_HAS(error, message)) p.error = *error;
    p.done = true;
  }
  pthread_mutex_unlock(&r->state);
  viv__remote_pump(r, is_answered, &(struct asked){r, &p}, &p.sleeps, UINT64_MAX);
  pthread_mutex_lock(&r->state);
  while (!p.done) pthread_cond_wait(&r->changed, &r->state);
  viv__remote_wake(r, &p.sleeps);
  pthread_mutex_unlock(&r->state);
  if (p.fd >= 0 && fd_out && p.status >= 0)
    *fd_out = p.fd;
  else if (p.fd >= 0)
    close(p.fd);
  if (p.status < 0) {
    if (error && VIV_HAS(error, message)) *error = p.error;
    viv__free(p.json);
    return p.status;
  }
  if (json)
    *json = (viv_text){p.json, p.len};
  else
    viv__free(p.json);
  return VIV_OK;
}

/* ---- opening and closing ---- */

static int32_t dial(const char *path, int *out, viv_error *error) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  size_t len = strlen(path);
  if (len >= sizeof name.sun_path)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "a socket's path has at most %zu bytes",
                    sizeof name.sun_path - 1);
  memcpy(name.sun_path, path, len);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&name, sizeof name)) {
    int failed = errno;
    if (fd >= 0) close(fd);
    bool refused = failed == EACCES || failed == EPERM;
    return VIV_FAIL(error, refused ? VIV_NEVER : VIV_NOT_NOW, path, "no daemon answers there: %s",
                    strerror(failed));
  }
  struct timeval most = {.tv_sec = SEND_S};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
  *out = fd;
  return VIV_OK;
}

/* Says HELLO and reads what comes back, which is a WELCOME or the reason why not. */
static int32_t greet(viv__remote *r, const char *path, viv_error *error) {
  viv__wire_hello hello = {.version = VIV__WIRE_VERSION,
                           .abi_major = VIV_ABI_MAJOR,
                           .abi_minor = VIV_ABI_MINOR,
                           .pid = (uint32_t)getpid(),
                           .name = viv__str(program_invocation_short_name)};
  viv__buf b = {0};
  viv__frame f;
  int fd = -1;
  viv__wire_put_hello(&b, &hello);
  /* A daemon that turns us away may have closed already; its reason is still there to be read. */
  viv__remote_send(r, VIV__WIRE_HELLO, 0, &b, -1, NULL);
  int32_t status;
  while ((status = viv__link_next(&r->link, &f, &fd, error)) == VIV_WAIT) {
    struct pollfd wait = {.fd = r->link.fd, .events = POLLIN};
    if (poll(&wait, 1, GREETING_MS) <= 0)
      return VIV_FAIL(error, VIV_NOT_NOW, path, "the daemon does not answer");
    status = viv__link_read(&r->link, error);
    if (status == VIV_DONE)
      return VIV_FAIL(error, VIV_NOT_NOW, path, "the daemon closed the connection");
    if (status < 0) return status;
  }
  if (status < 0) return status;
  if (fd >= 0) close(fd);
  viv_str text = {NULL, 0};
  if (f.type == VIV__WIRE_GOODBYE && viv__wire_text_read(&f, &text, error) >= 0)
    return VIV_FAIL(error, VIV_NEVER, path, "%.*s", (int)text.len, text.len ? text.ptr : "");
  if (f.type != VIV__WIRE_WELCOME)
    return VIV_FAIL(error, VIV_NEVER, path, "who listens there is no vivd");
  return viv__wire_hello_read(&f, &hello, error);
}

static void drop(viv__remote *r) {
  viv__link_close(&r->link);
  viv__remote_slabs_free(r);
  viv__remote_regions_drop(r, UINT64_MAX);
  pthread_cond_destroy(&r->changed);
  pthread_cond_destroy(&r->turn);
  pthread_mutex_destroy(&r->state);
  pthread_mutex_destroy(&r->send);
  pthread_mutex_destroy(&r->rt->lock);
  viv__free(r->rt);
  viv__free(r);
}

int32_t viv_connect(const char *socket_path, viv_runtime **out, viv_error *error) {
  if (!out) return VIV_FAIL(error, VIV_BAD_INPUT, "viv_connect", "out is NULL");
  char *path = socket_path ? viv__strdup(socket_path) : viv__wire_socket_path();
  viv_runtime *rt = viv__calloc(1, sizeof *rt);
  viv__remote *r = viv__calloc(1, sizeof *r);
  int fd = -1;
  int32_t status =
      path && rt && r ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "viv_connect", "no memory");
  if (status == VIV_OK) status = dial(path, &fd, error);
  if (status < 0) {
    viv__free(path);
    viv__free(rt);
    viv__free(r);
    return status;
  }
  pthread_mutex_init(&rt->lock, NULL);
  pthread_mutex_init(&r->send, NULL);
  pthread_mutex_init(&r->state, NULL);
  pthread_cond_init(&r->changed, NULL);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&r->turn, &attr);
  pthread_condattr_destroy(&attr);
  rt->log = (viv__log){VIV_LOG_WARN, false, STDERR_FILENO};
  rt->remote = r;
  r->rt = rt;
  viv__link_open(&r->link, fd);
  status = greet(r, path, error);
  if (status >= 0 && pthread_create(&r->reader, NULL, reader, r))
    status = VIV_FAIL(error, VIV_NOT_NOW, path, "no thread can be started");
  viv__free(path);
  if (status < 0) {
    drop(r);
    return status;
  }
  *out = rt;
  return VIV_OK;
}

void viv__remote_close(viv_runtime *rt) {
  viv__remote *r = rt->remote;
  shutdown(r->link.fd, SHUT_RDWR); /* the daemon cancels what runs; the reader ends it here */
  pthread_mutex_lock(&r->state);
  r->waited_ns = 0;
  pthread_cond_signal(&r->turn);
  pthread_mutex_unlock(&r->state);
  pthread_join(r->reader, NULL);
  while (rt->models) viv_unload(rt->models);
  drop(r);
}
