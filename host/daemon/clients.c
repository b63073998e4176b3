/* Clients: accepting them, knowing who they are, and what their frames ask for. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define POOL_BYTES_LIMIT ((uint64_t)16 << 30) /* of one connection */

client *client_by_serial(vivd *d, uint64_t serial) {
  for (client *c = d->clients; c; c = c->next)
    if (c->serial == serial) return c;
  return NULL;
}

/* ---- answers ---- */

void client_reply(client *c, uint64_t id, int32_t status, const viv_error *error, viv_str json) {
  viv__wire_reply m = {.status = status, .json = json};
  viv__buf b = {0};
  if (status < 0) m.error = *error;
  viv__wire_put_reply(&b, &m);
  peer_send(&c->peer, VIV__WIRE_REPLY, id, &b, -1);
}

void client_fail(client *c, uint64_t id, const viv_error *error) {
  client_reply(c, id, error->code, error, (viv_str){NULL, 0});
}

void client_goodbye(client *c, const char *format, ...) {
  if (!c->peer.open) return;
  char reason[1024], who[32];
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof reason, format, args);
  va_end(args);
  reason[viv__utf8_whole(reason, strlen(reason))] = 0;
  snprintf(who, sizeof who, "%llu", (unsigned long long)c->serial);
  log_fields(c->peer.d, VIV_LOG_WARN, "connection closed", reason, "client", who, NULL);
  peer_pass(&c->peer, VIV__WIRE_GOODBYE, 0, reason, strlen(reason), -1);
  c->peer.lost(&c->peer, NULL);
}

/* ---- pools ---- */

static void drop_pool(client *c, pool *p) {
  for (worker *w = c->peer.d->workers; w; w = w->next)
    for (size_t i = 0; i < sizeof w->pools / sizeof *w->pools; i++)
      if (w->pools[i] == p->number) {
        w->pools[i] = 0;
        peer_pass(&w->peer, VIV__WIRE_UNPOOL, p->number, NULL, 0, -1);
      }
  close(p->fd);
  c->pool_bytes -= p->bytes;
  p->fd = -1;
}

static void take_pool(client *c, const viv__frame *f, int fd) {
  uint64_t bytes = 0;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__wire_number_read(f, &bytes, &error);
  if (status == VIV_OK && fd < 0)
    status = VIV_FAIL(&error, VIV_BAD_INPUT, "POOL", "came without a descriptor");
  if (status == VIV_OK) status = viv__region_check(fd, bytes, false, &error);
  pool *slot = NULL;
  for (int i = 0; i < POOLS && status == VIV_OK; i++) {
    if (c->pools[i].fd < 0 && !slot) slot = &c->pools[i];
    if (c->pools[i].fd >= 0 && c->pools[i].id == f->id)
      status = VIV_FAIL(&error, VIV_BAD_INPUT, "POOL", "that number is in use");
  }
  if (status == VIV_OK && (!slot || bytes > POOL_BYTES_LIMIT - c->pool_bytes))
    status = VIV_FAIL(&error, VIV_BAD_INPUT, "POOL", "a connection has %d pools of 16 GiB at most",
                      POOLS);
  if (status < 0) {
    if (fd >= 0) close(fd);
    client_goodbye(c, "%s: %s", error.where, error.message);
    return;
  }
  *slot = (pool){.id = f->id, .bytes = bytes, .number = ++c->peer.d->next_pool, .fd = fd};
  c->pool_bytes += bytes;
}

static void drop_pool_of(client *c, uint64_t id) {
  for (int i = 0; i < POOLS; i++)
    if (c->pools[i].fd >= 0 && c->pools[i].id == id) {
      drop_pool(c, &c->pools[i]);
      return;
    }
  client_goodbye(c, "UNPOOL %llu: there is no such pool", (unsigned long long)id);
}

/* ---- frames ---- */

static void greet(client *c, const viv__frame *f) {
  viv__wire_hello m;
  viv_error error = VIV_ERROR_INIT;
  if (f->type != VIV__WIRE_HELLO || viv__wire_hello_read(f, &m, &error) < 0) {
    c->peer.d->malformed++;
    client_goodbye(c, "a connection begins with HELLO %s", error.message);
    return;
  }
  if (m.version != VIV__WIRE_VERSION) {
    client_goodbye(c, "the client speaks version %u of the protocol, this daemon %d", m.version,
                   VIV__WIRE_VERSION);
    return;
  }
  c->greeted = true;
  snprintf(c->name, sizeof c->name, "%.*s", (int)m.name.len, m.name.len ? m.name.ptr : "");
  viv__wire_hello reply = {.version = VIV__WIRE_VERSION,
                           .abi_major = VIV_ABI_MAJOR,
                           .abi_minor = VIV_ABI_MINOR,
                           .pid = (uint32_t)getpid()};
  reply.name = viv__str("vivd");
  viv__buf b = {0};
  viv__wire_put_hello(&b, &reply);
  peer_send(&c->peer, VIV__WIRE_WELCOME, 0, &b, -1);
}

static void more_credit(client *c, const viv__frame *f) {
  uint64_t n = 0;
  viv_error error = VIV_ERROR_INIT;
  if (viv__wire_number_read(f, &n, &error) < 0 || !n || n > VIV__WIRE_CREDIT) {
    client_goodbye(c, "CREDIT: must be 1 to %d events", VIV__WIRE_CREDIT);
    return;
  }
  job *j = job_of_client(c, f->id);
  if (!j) return; /* it ended while this was on its way */
  if (j->credit + (int64_t)n > 2 * VIV__WIRE_CREDIT) {
    client_goodbye(c, "CREDIT: more than a job may have");
    return;
  }
  j->credit += (int64_t)n;
  if (j->worker)
    peer_pass(&j->worker->peer, VIV__WIRE_CREDIT_MORE, j->id, f->payload, f->length, -1);
}

static void take_call(client *c, const viv__frame *f, int fd) {
  viv__wire_call m;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__wire_call_read(f, &m, &error);
  if (status >= 0 && fd >= 0 && !viv__str_eq(m.verb, "session_resume"))
    status = VIV_FAIL(&error, VIV_BAD_INPUT, "CALL", "this verb takes no descriptor");
  if (status >= 0) {
    verb_call(c, f->id, &m, fd);
    return;
  }
  if (fd >= 0) close(fd);
  client_goodbye(c, "%s: %s", error.where, error.message);
}

static void on_frame(peer *p, const viv__frame *f, int fd) {
  client *c = (client *)p;
  job *j;
  if (fd >= 0 && ((f->type != VIV__WIRE_POOL && f->type != VIV__WIRE_CALL) || !c->greeted)) {
    close(fd);
    client_goodbye(c, "%s: takes no descriptor", viv__wire_name(f->type));
    return;
  }
  if (!c->greeted) {
    greet(c, f);
    return;
  }
  switch (f->type) {
  case VIV__WIRE_CALL:
    take_call(c, f, fd);
    break;
  case VIV__WIRE_SUBMIT:
    job_submit(c, f);
    break;
  case VIV__WIRE_CREDIT_MORE:
    more_credit(c, f);
    break;
  case VIV__WIRE_FEED:
    job_feed(c, f);
    break;
  case VIV__WIRE_CANCEL:
    if ((j = job_of_client(c, f->id))) job_cancel(j);
    break;
  case VIV__WIRE_POOL:
    take_pool(c, f, fd);
    break;
  case VIV__WIRE_UNPOOL:
    drop_pool_of(c, f->id);
    break;
  default:
    client_goodbye(c, "%s: is not for a client to send", viv__wire_name(f->type));
  }
}

/* ---- coming and going ---- */

static void on_closed(peer *p) {
  client *c = (client *)p;
  for (client **at = &p->d->clients; *at; at = &(*at)->next)
    if (*at == c) {
      *at = c->next;
      break;
    }
  p->d->n_clients--;
  free(c);
}

/* A session ends with the connection that opened it. */
static void end_sessions(client *c) {
  vivd *d = c->peer.d;
  for (session **at = &d->sessions; *at;) {
    session *s = *at;
    if (s->client != c->serial) {
      at = &s->next;
      continue;
    }
    worker *w = worker_by_serial(d, s->worker);
    char params[48];
    int n = snprintf(params, sizeof params, "{\"session\":%llu}", (unsigned long long)s->id);
    if (w) worker_call(w, "session_close", (viv_str){params, (uint64_t)n}, 0, 0, 0);
    *at = s->next;
    free(s);
  }
}

static void on_lost(peer *p, const viv_error *why) {
  client *c = (client *)p;
  if (why && why->code == VIV_BAD_INPUT) {
    p->d->malformed++;
    peer_pass(p, VIV__WIRE_GOODBYE, 0, why->message, strlen(why->message), -1);
    logd(p->d, VIV_LOG_WARN, "connection closed", "client %llu: %s: %s",
         (unsigned long long)c->serial, why->where, why->message);
  }
  jobs_orphan(c);
  end_sessions(c);
  /* After the cancels: a worker makes no region for a job that was cancelled. */
  for (worker *w = p->d->workers; w; w = w->next)
    if (w->model && w->state == WORKER_READY)
      peer_pass(&w->peer, VIV__WIRE_GOODBYE, c->serial, NULL, 0, -1);
  for (int i = 0; i < POOLS; i++)
    if (c->pools[i].fd >= 0) drop_pool(c, &c->pools[i]);
  peer_close(p);
}

static void turn_away(int fd, const char *reason) {
  viv__link link;
  viv__link_open(&link, fd);
  viv__link_put(&link, VIV__WIRE_GOODBYE, 0, reason, strlen(reason), -1);
  viv__link_flush(&link);
  viv__link_close(&link);
}

static void welcome(vivd *d, int fd) {
  struct ucred who;
  socklen_t len = sizeof who;
  d->connections++;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
    close(fd);
    return;
  }
  int grants = config_grants(&d->config, who.uid, who.gid);
  client *c = calloc(1, sizeof *c);
  if (!grants || !c || (int64_t)d->n_clients >= d->config.max_clients) {
    d->rejected++;
    turn_away(fd, !grants ? "this user may not use the daemon"
                  : !c    ? "no memory for a connection"
                          : "too many connections");
    free(c);
    return;
  }
  c->serial = ++d->next_client;
  c->uid = who.uid;
  c->gid = who.gid;
  c->pid = who.pid;
  c->grants = grants;
  for (int i = 0; i < POOLS; i++) c->pools[i].fd = -1;
  c->peer.frame = on_frame;
  c->peer.lost = on_lost;
  c->peer.closed = on_closed;
  if (peer_open(d, &c->peer, fd)) {
    close(fd);
    free(c);
    return;
  }
  c->next = d->clients;
  d->clients = c;
  d->n_clients++;
}

static void on_listen(uv_poll_t *poll, int status, int events) {
  vivd *d = poll->data;
  (void)status;
  (void)events;
  for (int i = 0; i < 64; i++) {
    int fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
      /* The next tick looks again: a loop over a socket that stays readable would burn the core. */
      logd(d, VIV_LOG_ERROR, "accept", "%s", strerror(errno));
      uv_poll_stop(&d->listener);
      d->listening = false;
    }
    if (fd < 0) return;
    welcome(d, fd);
  }
}

/* A socket file that nobody listens on is left from a daemon that was killed. */
static int32_t clear_stale(const struct sockaddr_un *name, viv_error *error) {
  struct stat st;
  if (lstat(name->sun_path, &st)) return VIV_OK;
  if (!S_ISSOCK(st.st_mode))
    return VIV_FAIL(error, VIV_NEVER, name->sun_path, "is there and is no socket");
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool alive =
      fd >= 0 && (!connect(fd, (const struct sockaddr *)name, sizeof *name) || errno == EAGAIN);
  if (fd >= 0) close(fd);
  if (alive) return VIV_FAIL(error, VIV_NEVER, name->sun_path, "another daemon listens there");
  if (unlink(name->sun_path))
    return VIV_FAIL(error, VIV_NEVER, name->sun_path, "a stale socket can't be removed: %s",
                    strerror(errno));
  return VIV_OK;
}

static int32_t make_socket(vivd *d, viv_error *error) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const char *path = d->config.socket;
  if (strlen(path) >= sizeof name.sun_path)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "a socket's path has at most %zu bytes",
                    sizeof name.sun_path - 1);
  memcpy(name.sun_path, path, strlen(path));
  char folder[sizeof name.sun_path];
  snprintf(folder, sizeof folder, "%s", path);
  char *slash = strrchr(folder, '/');
  if (slash && slash != folder) {
    *slash = 0;
    if (mkdir(folder, 0750) && errno != EEXIST)
      return VIV_FAIL(error, VIV_NEVER, folder, "can't be made: %s", strerror(errno));
  }
  int32_t status = clear_stale(&name, error);
  if (status < 0) return status;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  mode_t before = umask(0117);
  bool good =
      fd >= 0 && !bind(fd, (const struct sockaddr *)&name, sizeof name) && !listen(fd, 1024);
  int failed = errno;
  umask(before);
  if (!good) {
    if (fd >= 0) close(fd);
    return VIV_FAIL(error, VIV_NEVER, path, "can't listen: %s", strerror(failed));
  }
  d->listen_fd = fd;
  return VIV_OK;
}

int clients_listen(vivd *d, viv_error *error) {
  int32_t status = VIV_OK;
  d->listen_fd = activation_fd();
  d->socket_activated = d->listen_fd >= 0;
  if (d->socket_activated) {
    fcntl(d->listen_fd, F_SETFD, FD_CLOEXEC);
    fcntl(d->listen_fd, F_SETFL, fcntl(d->listen_fd, F_GETFL) | O_NONBLOCK);
  } else {
    status = make_socket(d, error);
  }
  if (status < 0) return status;
  if (uv_poll_init(&d->loop, &d->listener, d->listen_fd))
    return VIV_FAIL(error, VIV_NOT_NOW, d->config.socket, "can't be watched");
  d->listener.data = d;
  d->listening = true;
  uv_poll_start(&d->listener, UV_READABLE, on_listen);
  return VIV_OK;
}

void clients_listen_again(vivd *d) {
  if (d->listening || d->listen_fd < 0 || d->stopping) return;
  d->listening = true;
  uv_poll_start(&d->listener, UV_READABLE, on_listen);
}

static void on_listener_closed(uv_handle_t *handle) {
  vivd *d = handle->data;
  close(d->listen_fd);
  d->listen_fd = -1;
}

void clients_stop_listening(vivd *d) {
  if (d->listen_fd < 0 || uv_is_closing((uv_handle_t *)&d->listener)) return;
  d->listening = false;
  if (!d->socket_activated) unlink(d->config.socket);
  uv_close((uv_handle_t *)&d->listener, on_listener_closed);
}
