/* Worker processes, seen from the daemon: starting, watching, and what their death means. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

worker *worker_by_serial(vivd *d, uint64_t serial) {
  for (worker *w = d->workers; w; w = w->next)
    if (w->serial == serial) return w;
  return NULL;
}

/* ---- calls ---- */

void worker_call(worker *w, const char *verb, viv_str params, uint64_t asker, uint64_t client_id,
                 uint64_t in_session) {
  worker_call_with(w, verb, params, -1, asker, client_id, in_session);
}

void worker_call_with(worker *w, const char *verb, viv_str params, int fd, uint64_t asker,
                      uint64_t client_id, uint64_t in_session) {
  vivd *d = w->d;
  call *k = calloc(1, sizeof *k);
  if (!k) {
    client *c = asker ? client_by_serial(d, asker) : NULL;
    viv_error error = VIV_ERROR_INIT;
    VIV_FAIL(&error, VIV_NOT_NOW, "vivd", "no memory for a call");
    if (fd >= 0) close(fd);
    if (c) client_fail(c, client_id, &error);
    /* What vivd itself asks for is needed: nothing would happen any more. */
    if (!asker) worker_kill(w, error.message);
    return;
  }
  *k = (call){.next = w->calls,
              .id = ++d->next_call,
              .client = asker,
              .client_id = client_id,
              .session = in_session};
  w->calls = k;
  viv__buf b = {0};
  viv__wire_call m = {.model = 0, .verb = viv__str(verb), .params = params};
  viv__wire_put_call(&b, &m);
  if (w->state == WORKER_STARTING && !w->model) {
    /* An inspecting worker gets its one question when it has told that it is locked in. */
    viv__buf_free(&w->first);
    w->first = b;
    return;
  }
  peer_send(&w->peer, VIV__WIRE_CALL, k->id, &b, fd);
}

static call *take_call(worker *w, uint64_t id) {
  for (call **at = &w->calls; *at; at = &(*at)->next)
    if ((*at)->id == id) {
      call *k = *at;
      *at = k->next;
      return k;
    }
  return NULL;
}

/* ---- what it reports ---- */

static void set_text(char **field, const char *text) {
  viv__free(*field);
  *field = viv__strdup(text);
}

/* {"plugin", "file", "sha256", "bytes", "cancel_ms", "sandbox"}: it is locked in, has found who takes
 * the model, and waits to be told to load it. */
static void on_note(worker *w, const viv__frame *f) {
  viv_json *json = NULL;
  viv_str text;
  vivd *d = w->d;
  model *m = w->model;
  viv_error error = VIV_ERROR_INIT;
  if (viv__wire_text_read(f, &text, &error) < 0 ||
      viv__json_parse(text.ptr, text.len, "NOTE", &json, &error) < 0) {
    worker_kill(w, error.message);
    return;
  }
  const viv_json *sandbox = viv__json_get(json, "sandbox");
  char *printed = sandbox ? cJSON_PrintUnformatted((const cJSON *)sandbox) : NULL;
  if (printed) set_text(&w->sandbox, printed);
  cJSON_free(printed);
  if (!m) {
    w->state = WORKER_READY;
    if (w->calls) peer_send(&w->peer, VIV__WIRE_CALL, w->calls->id, &w->first, -1);
    viv__json_free(json);
    return;
  }
  const char *hash = viv__json_text(json, "sha256", "");
  set_text(&m->plugin, viv__json_text(json, "plugin", ""));
  set_text(&m->plugin_file, viv__json_text(json, "file", ""));
  snprintf(m->plugin_hash, sizeof m->plugin_hash, "%s", hash);
  m->bytes = (uint64_t)viv__json_num(json, "bytes", 0);
  w->cancel_ms = (int64_t)viv__json_num(json, "cancel_latency_ms", 0);
  viv__json_free(json);
  if (quarantined(d, m->plugin_hash)) {
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(d->bad_plugins, m->plugin_hash);
    VIV_FAIL(&error, VIV_NEVER, m->plugin_file, "is in quarantine until the file changes: %s",
             cJSON_IsString(why) ? why->valuestring : "it kept dying");
    model_changed(m, MODEL_FAILED, error.message);
    model_answer(m, &error);
    worker_kill(w, "its plugin is in quarantine");
    return;
  }
  if (model_make_room(m, &error) < 0) {
    model_changed(m, MODEL_FAILED, error.message);
    model_answer(m, &error);
    worker_kill(w, "there is no memory for its model");
    return;
  }
  w->state = WORKER_LOADING;
  viv__buf b = {0};
  viv__buf_str(&b, "{\"path\":");
  viv__buf_json(&b, viv__str(m->path));
  viv__buf_str(&b, ",\"params\":");
  viv__buf_json(&b, viv__str(m->params));
  viv__buf_fmt(&b, ",\"prompt_bytes\":%llu}", (unsigned long long)prompts_most(d));
  if (b.failed)
    worker_kill(w, "no memory for a call");
  else
    worker_call(w, "load", (viv_str){b.ptr, b.len}, 0, 0, 0);
  viv__buf_free(&b);
}

/* Its model is there: {"about": {...}, "max_jobs": n, "name": "..."} */
static void on_loaded(worker *w, const viv__wire_reply *r) {
  viv_json *json = NULL;
  viv_error error = VIV_ERROR_INIT;
  model *m = w->model;
  if (r->status < 0) {
    model_changed(m, MODEL_FAILED, r->error.message);
    model_answer(m, &r->error);
    w->state = WORKER_DRAINING;
    worker_retire(w);
    return;
  }
  if (viv__json_parse(r->json.ptr, r->json.len, "REPLY", &json, &error) < 0) {
    worker_kill(w, error.message);
    return;
  }
  char *about = cJSON_PrintUnformatted((const cJSON *)viv__json_get(json, "about"));
  set_text(&m->about, about ? about : "{}");
  cJSON_free(about);
  set_text(&m->name, viv__json_text(json, "name", m->path));
  double max_jobs = viv__json_num(json, "max_jobs", 1);
  w->max_jobs = max_jobs >= 1 && max_jobs <= 1024 ? (size_t)max_jobs : 1;
  viv__json_free(json);
  w->state = WORKER_READY;
  if (m->coming == w) {
    worker *old = m->worker;
    m->worker = w;
    m->coming = NULL;
    if (old) {
      old->state = WORKER_DRAINING;
      worker_retire(old);
    }
  }
  m->used_ns = viv__now_ns();
  prompts_give(w);
  model_changed(m, MODEL_READY, NULL);
  model_answer(m, NULL);
  model_dispatch(m);
}

/* fd: a saved session's, which is passed on; the callee's. */
static void on_reply(worker *w, const viv__frame *f, int fd) {
  viv__wire_reply r;
  viv_error error = VIV_ERROR_INIT;
  vivd *d = w->d;
  int32_t status = viv__wire_reply_read(f, &r, &error);
  call *k = status < 0 ? NULL : take_call(w, f->id);
  if (!k) {
    if (fd >= 0) close(fd);
    worker_kill(w, status < 0 ? error.message : "it answered what nobody asked");
    return;
  }
  if (w->state == WORKER_LOADING && !k->client) {
    if (fd >= 0) close(fd);
    free(k);
    on_loaded(w, &r);
    return;
  }
  client *c = k->client ? client_by_serial(d, k->client) : NULL;
  if (k->session && r.status < 0)
    for (session **at = &d->sessions; *at; at = &(*at)->next)
      if ((*at)->id == k->session) {
        session *s = *at;
        *at = s->next;
        free(s);
        break;
      }
  if (c)
    peer_pass(&c->peer, VIV__WIRE_REPLY, k->client_id, f->payload, f->length, fd);
  else if (fd >= 0)
    close(fd);
  free(k);
  if (!w->model && w->state == WORKER_READY) {
    w->state = WORKER_DRAINING;
    worker_retire(w);
  }
}

static void on_frame(peer *p, const viv__frame *f, int fd) {
  worker *w = (worker *)p;
  viv_error error = VIV_ERROR_INIT;
  if (fd >= 0 && f->type != VIV__WIRE_EVENT && f->type != VIV__WIRE_REPLY &&
      f->type != VIV__WIRE_PROMPT) {
    close(fd);
    worker_kill(w, "it sent a descriptor out of turn");
    return;
  }
  if (f->type == VIV__WIRE_EVENT)
    job_event(w, f, fd);
  else if (f->type == VIV__WIRE_ROOM)
    job_room(w, f);
  else if (f->type == VIV__WIRE_REPLY)
    on_reply(w, f, fd);
  else if (f->type == VIV__WIRE_NOTE && w->state == WORKER_STARTING)
    on_note(w, f);
  else if (f->type == VIV__WIRE_PROMPT && w->state >= WORKER_READY) {
    if (!prompts_take(w, f, fd, &error)) worker_kill(w, error.message);
  } else
    worker_kill(w, "it sent a frame out of turn");
}

/* ---- last words ---- */

static void take_words(worker *w) {
  char chunk[1024];
  ssize_t n;
  while (w->words_open && (n = read(w->words_fd, chunk, sizeof chunk)) > 0) {
    size_t len = (size_t)n;
    if (w->n_words + len > sizeof w->words) { /* the end is what matters */
      size_t gone = w->n_words + len - sizeof w->words;
      memmove(w->words, w->words + gone, w->n_words - gone);
      w->n_words -= gone;
    }
    memcpy(w->words + w->n_words, chunk, len);
    w->n_words += len;
    logd(w->d, VIV_LOG_INFO, "worker says", "worker %llu: %.*s", (unsigned long long)w->serial,
         (int)(len && chunk[len - 1] == '\n' ? len - 1 : len), chunk);
  }
}

/* The last line or two, on one line; empty when it said nothing. */
static const char *last_words(worker *w, char *out, size_t cap) {
  size_t n = w->n_words, from;
  while (n && (w->words[n - 1] == '\n' || w->words[n - 1] == ' ')) n--;
  from = n > cap - 1 ? n - (cap - 1) : 0;
  for (size_t i = from; i < n; i++) {
    unsigned char ch = (unsigned char)w->words[i];
    out[i - from] = ch < 32 ? ' ' : ch > 126 ? '?' : (char)ch;
  }
  out[n - from] = 0;
  return out;
}

static void on_words(uv_poll_t *poll, int status, int events) {
  worker *w = poll->data;
  (void)status;
  (void)events;
  char probe;
  take_words(w);
  if (read(w->words_fd, &probe, 1) == 0) uv_poll_stop(poll);
}

/* ---- death ---- */

static void finished(worker *w) {
  if (--w->closing > 0) return;
  for (worker **at = &w->d->workers; *at; at = &(*at)->next)
    if (*at == w) {
      *at = w->next;
      break;
    }
  while (w->calls) {
    call *k = w->calls;
    w->calls = k->next;
    free(k);
  }
  viv__buf_free(&w->first);
  viv__free(w->sandbox);
  free(w);
}

static void on_peer_closed(peer *p) {
  finished((worker *)p);
}

static void on_words_closed(uv_handle_t *handle) {
  worker *w = handle->data;
  close(w->words_fd);
  finished(w);
}

static void on_process_closed(uv_handle_t *handle) {
  finished(handle->data);
}

/* A reader of the message should know what happened. */
static void end_jobs(worker *w, const char *what) {
  char words[320];
  last_words(w, words, sizeof words);
  while (w->jobs) {
    job *j = w->jobs;
    char *file = replay_write(j);
    job_fail(j, VIV_BUG, j->model->name, "the model's worker %s%s%s%s%s", what,
             *words ? "; its last words: " : "", words,
             file ? "; to run the job again: viv replay " : "", file ? file : "");
    viv__free(file);
  }
}

static void fail_calls(worker *w, const char *what) {
  viv_error error = VIV_ERROR_INIT;
  VIV_FAIL(&error, VIV_NOT_NOW, "worker", "the model's worker %s", what);
  while (w->calls) {
    call *k = w->calls;
    client *c = k->client ? client_by_serial(w->d, k->client) : NULL;
    w->calls = k->next;
    if (c) client_fail(c, k->client_id, &error);
    free(k);
  }
}

static void forget_sessions(worker *w) {
  for (session **at = &w->d->sessions; *at;) {
    session *s = *at;
    if (s->worker != w->serial) {
      at = &s->next;
      continue;
    }
    *at = s->next;
    free(s);
  }
}

/* Nobody but the plugin does this to a worker. One that exits by itself was made to. */
static bool own_fault(int signal_number) {
  return !signal_number || signal_number == SIGSEGV || signal_number == SIGABRT ||
         signal_number == SIGBUS || signal_number == SIGFPE || signal_number == SIGILL ||
         signal_number == SIGSYS;
}

static void on_worker_exit(uv_process_t *process, int64_t exit_status, int signal_number) {
  worker *w = process->data;
  model *m = w->model;
  char what[256], words[400];
  bool expected = w->state == WORKER_DRAINING && !w->killed;
  if (w->killed)
    snprintf(what, sizeof what, "was ended: %s", w->why);
  else if (signal_number)
    snprintf(what, sizeof what, "died of signal %d (%s)", signal_number, strsignal(signal_number));
  else
    snprintf(what, sizeof what, "exited with status %lld", (long long)exit_status);
  w->exited = true;
  take_words(w);
  /* What it had sent before it died still counts. */
  peer_drain(&w->peer);
  w->state = WORKER_DEAD;
  logd(w->d, expected ? VIV_LOG_INFO : VIV_LOG_ERROR, "worker gone", "worker %llu of %s %s",
       (unsigned long long)w->serial, m ? m->name : "no model", what);
  end_jobs(w, what);
  fail_calls(w, what);
  forget_sessions(w);
  for (client *c = w->d->clients; c; c = c->next)
    if (c->has_regions) peer_pass(&c->peer, VIV__WIRE_UNPOOL, w->serial, NULL, 0, -1);
  if (m) {
    last_words(w, words, sizeof words);
    w->model = NULL;
    bool was_current = m->worker == w;
    if (m->worker == w) m->worker = NULL;
    if (m->coming == w) m->coming = NULL;
    if (!expected) {
      viv__buf cause = {0};
      viv__buf_fmt(&cause, "the worker %s%s%s", what, *words ? ": " : "", words);
      model_died(m, cause.ptr ? cause.ptr : what, was_current,
                 w->killed ? w->hung : own_fault(signal_number));
      viv__buf_free(&cause);
    } else {
      model_retired(m, was_current);
    }
  }
  peer_close(&w->peer);
  if (w->words_open) uv_close((uv_handle_t *)&w->words_poll, on_words_closed);
  uv_close((uv_handle_t *)process, on_process_closed);
}

const char worker_hang[] = "it did not stop in time after a cancel";

static void on_lost(peer *p, const viv_error *why) {
  worker *w = (worker *)p;
  /* on_worker_exit follows, and closes; the socket is only not looked at any more. */
  uv_poll_stop(&p->poll);
  if (w->exited) return;
  if (why && why->code == VIV_BAD_INPUT)
    worker_kill(w, why->message);
  else /* it died, and how is on its way; one that only closed its socket is of no more use */
    uv_process_kill(&w->process, SIGKILL);
}

void worker_kill(worker *w, const char *why) {
  if (w->exited || w->killed) return;
  w->killed = true;
  w->hung = why == worker_hang;
  snprintf(w->why, sizeof w->why, "%s", why);
  logd(w->d, VIV_LOG_ERROR, "worker ended", "worker %llu: %s", (unsigned long long)w->serial, why);
  uv_process_kill(&w->process, SIGKILL);
}

void worker_retire(worker *w) {
  if (w->n_jobs || w->exited) return;
  /* It leaves when its connection ends, which half of is enough for. */
  peers_flush(w->d);
  if (w->peer.open) shutdown(w->peer.link.fd, SHUT_WR);
}

/* ---- birth ---- */

static int spawn(worker *w, int theirs, int words, const char *path) {
  vivd *d = w->d;
  char threads[24], budget[24];
  snprintf(threads, sizeof threads, "%lld", (long long)d->config.threads);
  snprintf(budget, sizeof budget, "%llu", (unsigned long long)d->config.budget);
  char *args[] = {d->self,
                  "--worker",
                  threads,
                  budget,
                  d->config.plugin_path ? d->config.plugin_path : "",
                  (char *)(uintptr_t)(path ? path : ""),
                  w->model ? w->model->params : "",
                  NULL};
  uv_stdio_container_t io[4] = {{.flags = UV_IGNORE},
                                {.flags = UV_INHERIT_FD, .data.fd = words},
                                {.flags = UV_INHERIT_FD, .data.fd = words},
                                {.flags = UV_INHERIT_FD, .data.fd = theirs}};
  uv_process_options_t o = {
      .exit_cb = on_worker_exit, .file = d->self, .args = args, .stdio = io, .stdio_count = 4};
  w->process.data = w;
  return uv_spawn(&d->loop, &w->process, &o);
}

worker *worker_start(vivd *d, model *m, const char *path, viv_error *error) {
  int ends[2] = {-1, -1}, words[2] = {-1, -1};
  worker *w = calloc(1, sizeof *w);
  if (!w || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ||
      pipe2(words, O_CLOEXEC | O_NONBLOCK)) {
    VIV_FAIL(error, VIV_NOT_NOW, "worker", "no memory or descriptors: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
      if (ends[i] >= 0) close(ends[i]);
    free(w);
    return NULL;
  }
  w->d = d;
  w->model = m;
  w->serial = ++d->next_worker;
  w->started_ns = viv__now_ns();
  w->peer.frame = on_frame;
  w->peer.lost = on_lost;
  w->peer.closed = on_peer_closed;
  w->words_fd = words[0];
  w->words_poll.data = w;
  fcntl(words[1], F_SETFL, fcntl(words[1], F_GETFL) & ~O_NONBLOCK);
  int failed = spawn(w, ends[1], words[1], path);
  close(ends[1]);
  close(words[1]);
  if (failed) {
    VIV_FAIL(error, VIV_NOT_NOW, d->self, "can't be started: %s", uv_strerror(failed));
    close(ends[0]);
    close(words[0]);
    w->closing = 1;
    w->next = d->workers;
    d->workers = w;
    uv_close((uv_handle_t *)&w->process, on_process_closed);
    return NULL;
  }
  w->closing = 1;
  w->next = d->workers;
  d->workers = w;
  failed = peer_open(d, &w->peer, ends[0]);
  if (!failed) w->closing++;
  if (!failed) failed = uv_poll_init(&d->loop, &w->words_poll, words[0]);
  if (failed) {
    VIV_FAIL(error, VIV_NOT_NOW, "worker", "can't be watched: %s", uv_strerror(failed));
    w->model = NULL;
    if (!w->peer.open) close(ends[0]);
    close(words[0]);
    uv_process_kill(&w->process, SIGKILL);
    return NULL;
  }
  w->words_open = true;
  w->closing++;
  uv_poll_start(&w->words_poll, UV_READABLE, on_words);
  return w;
}
