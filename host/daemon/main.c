/* vivd: models for every program of this machine, over a Unix socket. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DRAIN_MOST_S = 30 };

/* ---- ending ---- */

static void stop_everything(vivd *d) {
  if (d->stopping) return;
  d->stopping = true;
  bridge_stop(d);
  notify_state("STOPPING=1");
  uv_timer_stop(&d->tick);
  while (d->n_jobs) {
    for (model *m = d->models; m; m = m->next) {
      while (m->queue) job_fail(m->queue, VIV_NOT_NOW, "vivd", "the daemon is stopping");
    }
    size_t left = d->n_jobs;
    for (worker *w = d->workers; w; w = w->next)
      while (w->jobs) job_fail(w->jobs, VIV_NOT_NOW, "vivd", "the daemon is stopping");
    if (d->n_jobs == left) break;
  }
  peers_flush(d);
  for (client *c = d->clients; c; c = c->next)
    if (c->peer.open) c->peer.lost(&c->peer, NULL);
  for (worker *w = d->workers; w; w = w->next) {
    w->state = WORKER_DRAINING;
    worker_retire(w);
  }
  uv_close((uv_handle_t *)&d->term, NULL);
  uv_close((uv_handle_t *)&d->interrupt, NULL);
  uv_close((uv_handle_t *)&d->hangup, NULL);
  uv_close((uv_handle_t *)&d->tick, NULL);
  uv_close((uv_handle_t *)&d->flush, NULL);
}

/* New jobs are refused; those that run and wait are finished, but not for ever. */
void vivd_drain(vivd *d, const char *why) {
  if (d->draining) return;
  d->draining = true;
  d->drained_ns = viv__now_ns();
  log_fields(d, VIV_LOG_INFO, "draining", why, NULL);
  bridge_stop(d);
  clients_stop_listening(d);
}

static void on_signal(uv_signal_t *signal_handle, int number) {
  vivd *d = signal_handle->data;
  if (number == SIGHUP) {
    viv_error error = VIV_ERROR_INIT;
    config fresh;
    int32_t status = config_read(&fresh, d->config_path, &error);
    if (status < 0) {
      logd(d, VIV_LOG_ERROR, "configuration", "kept as it was: %s: %s", error.where, error.message);
      config_free(&fresh);
      return;
    }
    /* Where it listens and keeps its files stays as it is; the rest holds from now on. */
    free(d->config.principals);
    d->config.principals = fresh.principals;
    d->config.n_principals = fresh.n_principals;
    fresh.principals = NULL;
    d->config.keep_alive_s = fresh.keep_alive_s;
    d->config.max_queue = fresh.max_queue;
    d->config.max_clients = fresh.max_clients;
    d->config.cancel_grace_ms = fresh.cancel_grace_ms;
    d->config.queue_bytes = fresh.queue_bytes;
    d->config.budget = fresh.budget;
    config_free(&fresh);
    logd(d, VIV_LOG_INFO, "configuration", "read again");
    return;
  }
  if (d->draining)
    stop_everything(d); /* asked twice: at once */
  else
    vivd_drain(d, number == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* ---- the loop ---- */

static void on_tick(uv_timer_t *timer) {
  vivd *d = timer->data;
  static uint64_t last_dog;
  uint64_t now = viv__now_ns(), dog = watchdog_ms();
  models_tick(d);
  clients_listen_again(d);
  bridge_tick(d);
  if (dog && now - last_dog > dog * 1000000u) {
    notify_state("WATCHDOG=1");
    last_dog = now;
  }
  if (d->draining && (!d->n_jobs || now - d->drained_ns > DRAIN_MOST_S * UINT64_C(1000000000)))
    stop_everything(d);
}

static void on_flush(uv_prepare_t *prepare) {
  peers_flush(prepare->data);
}

enum { FILES_MOST = 65536 };

static void on_reserved(uv_poll_t *watch, int status, int events) {
  (void)watch;
  (void)status;
  (void)events;
}

/* libuv ends the process when its table of descriptors can't grow. So it grows now, to the most that there can
 * be, by watching the last one for a moment. */
static bool reserve_descriptors(uv_loop_t *loop, rlim_t most) {
  int first = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int last = first < 0 ? -1 : fcntl(first, F_DUPFD_CLOEXEC, (int)most - 1);
  if (first >= 0) close(first);
  uv_poll_t watch;
  bool good = last >= 0 && !uv_poll_init(loop, &watch, last);
  if (good) {
    good = !uv_poll_start(&watch, UV_READABLE, on_reserved);
    uv_close((uv_handle_t *)&watch, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
  }
  if (last >= 0) close(last);
  return good;
}

static int32_t open_loop(vivd *d, viv_error *error) {
  struct rlimit files = {.rlim_max = 1024};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max < FILES_MOST ? files.rlim_max : FILES_MOST;
  setrlimit(RLIMIT_NOFILE, &files);
  if (uv_loop_init(&d->loop)) return VIV_FAIL(error, VIV_NOT_NOW, "loop", "can't be made");
  if (!reserve_descriptors(&d->loop, files.rlim_cur))
    return VIV_FAIL(error, VIV_NOT_NOW, "loop", "there is no room for %llu descriptors",
                    (unsigned long long)files.rlim_cur);
  uv_prepare_init(&d->loop, &d->flush);
  uv_timer_init(&d->loop, &d->tick);
  uv_signal_init(&d->loop, &d->term);
  uv_signal_init(&d->loop, &d->interrupt);
  uv_signal_init(&d->loop, &d->hangup);
  d->flush.data = d->tick.data = d->term.data = d->interrupt.data = d->hangup.data = d;
  uv_prepare_start(&d->flush, on_flush);
  uv_timer_start(&d->tick, on_tick, TICK_MS, TICK_MS);
  if (uv_signal_start(&d->term, on_signal, SIGTERM) ||
      uv_signal_start(&d->interrupt, on_signal, SIGINT) ||
      uv_signal_start(&d->hangup, on_signal, SIGHUP))
    return VIV_FAIL(error, VIV_NOT_NOW, "loop", "can't hear signals");
  return VIV_OK;
}

/* ---- the command line ---- */

static const char usage[] =
    "Usage: vivd [--config FILE] [--socket PATH] [--state DIR] [--plugins PATH] [--log LEVEL]\n"
    "            [--nats URL]\n"
    "       vivd --sandbox\n\n"
    "Serves models over a Unix socket; `viv` uses it when it runs. The socket is the one that "
    "systemd\n"
    "passes, else PATH, else the configuration's, else $XDG_RUNTIME_DIR/vivarium/vivd.sock or\n"
    "/run/vivarium/vivd.sock. --nats takes jobs from a JetStream work queue, too. --sandbox "
    "confines itself like a worker and prints what is in "
    "force.\n";

typedef struct arguments {
  const char *config, *socket, *state, *plugins, *level, *nats;
} arguments;

/* -1 to go on, or an exit code. */
static int read_arguments(int argc, char **argv, arguments *a) {
  const struct {
    const char *name;
    const char **value;
  } options[] = {{"--config", &a->config},   {"--socket", &a->socket}, {"--state", &a->state},
                 {"--plugins", &a->plugins}, {"--log", &a->level},     {"--nats", &a->nats}};
  for (int i = 1; i < argc; i++) {
    bool known = false;
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return fputs(usage, stdout) < 0;
    if (!strcmp(argv[i], "--version")) return printf("vivd %s\n", viv_version()) < 0;
    if (!strcmp(argv[i], "--sandbox")) {
      static const char *const nothing[] = {NULL};
      char *text = sandbox_enter(nothing);
      int failed = !text || puts(text) < 0;
      viv__free(text);
      return failed;
    }
    for (size_t k = 0; k < sizeof options / sizeof *options && !known; k++)
      if (!strcmp(argv[i], options[k].name) && i + 1 < argc) {
        *options[k].value = argv[++i];
        known = true;
      }
    if (!known) {
      fprintf(stderr, "vivd: \"%s\" is no option, or its value is missing\n\n%s", argv[i], usage);
      return 2;
    }
  }
  return -1;
}

/* False: no memory. */
static bool replace(char **field, const char *text) {
  if (!text) return true;
  viv__free(*field);
  *field = viv__strdup(text);
  return *field != NULL;
}

/* A folder for the list of bad plugins; NULL where none can be made. */
static char *state_folder(const config *c) {
  const char *given = c->state_dir, *systemd = getenv("STATE_DIRECTORY");
  const char *home = getenv("XDG_STATE_HOME"), *user = getenv("HOME");
  char *path = given                           ? viv__strdup(given)
               : systemd && *systemd           ? viv__strdup(systemd)
               : home && *home == '/'          ? viv__path_join(home, "vivarium")
               : !geteuid() || !user || !*user ? viv__strdup("/var/lib/vivarium")
                                               : viv__path_join(user, ".local/state/vivarium");
  for (char *slash = path ? path + 1 : NULL; slash && *slash; slash++) {
    if (*slash != '/') continue;
    *slash = 0;
    mkdir(path, 0755);
    *slash = '/';
  }
  if (path && mkdir(path, 0750) && errno != EEXIST) {
    viv__free(path);
    return NULL;
  }
  return path;
}

static int32_t prepare(vivd *d, const arguments *a, viv_error *error) {
  static const char *const levels[] = {"", "error", "warn", "info", "debug"};
  d->started_ns = viv__now_ns();
  d->listen_fd = -1;
  d->journal.level = VIV_LOG_INFO;
  if (!replace(&d->config_path, a->config))
    return VIV_FAIL(error, VIV_NOT_NOW, "vivd", "no memory");
  int32_t status = config_read(&d->config, a->config, error);
  if (status < 0) return status;
  for (int32_t i = 1; a->level && i <= VIV_LOG_DEBUG; i++)
    if (!strcmp(a->level, levels[i])) d->journal.level = i;
  if (!replace(&d->config.socket, a->socket) || !replace(&d->config.plugin_path, a->plugins) ||
      !replace(&d->config.state_dir, a->state) || !replace(&d->nats_url, a->nats))
    return VIV_FAIL(error, VIV_NOT_NOW, "vivd", "no memory");
  char *state = state_folder(&d->config);
  viv__free(d->config.state_dir);
  d->config.state_dir = state;
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) return VIV_FAIL(error, VIV_NEVER, "/proc/self/exe", "can't be read");
  self[n] = 0;
  if (!replace(&d->self, self)) return VIV_FAIL(error, VIV_NOT_NOW, "vivd", "no memory");
  quarantine_read(d);
  status = open_loop(d, error);
  return status < 0 ? status : clients_listen(d, error);
}

static void dispose(vivd *d) {
  while (d->models) model_drop(d->models);
  while (d->sessions) {
    session *s = d->sessions;
    d->sessions = s->next;
    free(s);
  }
  journal_free(d);
  cJSON_Delete(d->bad_plugins);
  config_free(&d->config);
  viv__free(d->self);
  viv__free(d->config_path);
  viv__free(d->nats_url);
}

int main(int argc, char **argv) {
  static vivd d;
  arguments a = {0};
  viv_error error = VIV_ERROR_INIT;
  if (argc > 1 && !strcmp(argv[1], "--worker")) return worker_main(argc, argv);
  int code = read_arguments(argc, argv, &a);
  if (code >= 0) return code;
  signal(SIGPIPE, SIG_IGN);
  if (prepare(&d, &a, &error) < 0) {
    fprintf(stderr, "vivd: %s: %s\n", error.where, error.message);
    return 1;
  }
  logd(&d, VIV_LOG_INFO, "listening", "%s",
       d.socket_activated ? "on a socket that was passed" : d.config.socket);
  notify_state("READY=1");
  uv_run(&d.loop, UV_RUN_DEFAULT);
  peers_flush(&d);
  uv_loop_close(&d.loop);
  log_fields(&d, VIV_LOG_INFO, "stopped", "", NULL);
  dispose(&d);
  return 0;
}
