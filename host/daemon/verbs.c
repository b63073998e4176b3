/* The verbs of CALL: who may, and what they do. docs/protocol.md lists them. */
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct request {
  client *c;
  vivd *d;
  uint64_t id;
  const viv__wire_call *call;
  int fd;                 /* that came with it, -1: none; whoever takes it sets -1 */
  const viv_json *params; /* an object */
  viv_error error;
} request;

static void answer_json(request *r, cJSON *json) {
  char *text = json ? cJSON_PrintUnformatted(json) : NULL;
  cJSON_Delete(json);
  if (text)
    client_reply(r->c, r->id, VIV_OK, NULL, viv__str(text));
  else if (VIV_FAIL(&r->error, VIV_NOT_NOW, "vivd", "no memory") < 0)
    client_fail(r->c, r->id, &r->error);
  cJSON_free(text);
}

static void answer_ok(request *r) {
  client_reply(r->c, r->id, VIV_OK, NULL, viv__str("{}"));
}

static int32_t named_model(request *r, model **out) {
  const char *name = viv__json_text(r->params, "model", NULL);
  model *m = name ? model_find(r->d, name) : model_by_id(r->d, r->call->model);
  if (!m)
    return VIV_FAIL(&r->error, VIV_NEVER, name ? name : "model",
                    "no such model is loaded; viv ps lists them");
  *out = m;
  return VIV_OK;
}

/* ---- loading ---- */

static int32_t do_load(request *r) {
  const char *path = viv__json_text(r->params, "path", "");
  const char *params = viv__json_text(r->params, "params", "");
  if (*path != '/' || strlen(path) >= 4096)
    return VIV_FAIL(&r->error, VIV_BAD_INPUT, "path",
                    "must be absolute, and shorter than 4096 bytes");
  model *known = NULL;
  for (model *m = r->d->models; m && !known; m = m->next)
    if (!strcmp(m->path, path) && !strcmp(m->params, params)) known = m;
  bool there = known && known->worker && known->state == MODEL_READY;
  /* To use what is there is no control; to bring something in is. */
  if (!there && !(r->c->grants & GRANT_CONTROL))
    return VIV_FAIL(&r->error, VIV_NEVER, "policy",
                    "this user may not load models (class control of the policy)");
  model *m = model_get(r->d, path, params);
  call *k = m ? calloc(1, sizeof *k) : NULL;
  if (!k) return VIV_FAIL(&r->error, VIV_NOT_NOW, "vivd", "no memory");
  *k = (call){.next = m->waiting, .client = r->c->serial, .client_id = r->id};
  m->waiting = k;
  m->used_ns = viv__now_ns();
  if (viv__json_get(r->params, "pin")) m->pinned = viv__json_bool(r->params, "pin", false);
  double keep = viv__json_num(r->params, "keep_alive_s", -1);
  if (keep >= 0 && keep < 1e9) m->keep_alive_ms = (int64_t)(keep * 1000);
  if (there) {
    model_answer(m, NULL);
  } else if (!m->worker) {
    int32_t status = model_start(m, &r->error);
    if (status < 0) {
      m->waiting = k->next;
      free(k);
      return status;
    }
  } else if (m->state == MODEL_DRAINING && m->worker->state == WORKER_READY) {
    model_changed(m, MODEL_READY, NULL); /* it had not begun to leave */
    model_answer(m, NULL);
  }
  return VIV_OK;
}

static int32_t do_unload(request *r) {
  model *m;
  int32_t status = named_model(r, &m);
  if (status < 0) return status;
  model_unload(m);
  answer_ok(r);
  return VIV_OK;
}

static int32_t do_reload(request *r) {
  model *m;
  int32_t status = named_model(r, &m);
  if (status >= 0) status = model_reload(m, &r->error);
  if (status >= 0) answer_ok(r);
  return status;
}

static int32_t do_pin(request *r) {
  model *m;
  int32_t status = named_model(r, &m);
  if (status < 0) return status;
  m->pinned = viv__json_bool(r->params, "pin", true);
  answer_ok(r);
  return VIV_OK;
}

/* ---- looking ---- */

static int32_t do_ps(request *r) {
  cJSON *j = cJSON_CreateObject(), *models = cJSON_AddArrayToObject(j, "models");
  for (const model *m = r->d->models; m; m = m->next) cJSON_AddItemToArray(models, model_json(m));
  cJSON_AddStringToObject(j, "version", viv_version());
  cJSON_AddNumberToObject(j, "clients", (double)r->d->n_clients);
  cJSON_AddNumberToObject(j, "jobs", (double)r->d->n_jobs);
  cJSON_AddNumberToObject(j, "budget_bytes", (double)r->d->config.budget);
  cJSON_AddNumberToObject(j, "uptime_s", (double)(viv__now_ns() - r->d->started_ns) * 1e-9);
  cJSON_AddBoolToObject(j, "draining", r->d->draining);
  cJSON_AddItemToObject(j, "quarantine", cJSON_Duplicate(r->d->bad_plugins, true));
  answer_json(r, j);
  return VIV_OK;
}

/* As viv_models answers. */
static int32_t do_models(request *r) {
  cJSON *list = cJSON_CreateArray();
  for (const model *m = r->d->models; m; m = m->next) {
    if (m->state != MODEL_READY) continue;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "name", m->name);
    cJSON_AddStringToObject(j, "path", m->path);
    cJSON_AddStringToObject(j, "plugin", m->plugin ? m->plugin : "");
    cJSON_AddNumberToObject(j, "bytes", (double)m->bytes);
    cJSON_AddItemToArray(list, j);
  }
  answer_json(r, list);
  return VIV_OK;
}

static int32_t do_logs(request *r) {
  double since = viv__json_num(r->params, "since", 0);
  answer_json(r, journal_json(r->d, since > 0 && since < 1e15 ? (uint64_t)since : 0));
  return VIV_OK;
}

static int32_t do_metrics(request *r) {
  char *text = metrics_text(r->d);
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "text", text ? text : "");
  viv__free(text);
  answer_json(r, j);
  return VIV_OK;
}

/* Questions about files and plugins are answered by a worker that loads nothing. */
static int32_t do_inspect(request *r) {
  char verb[65];
  const char *path = viv__json_text(r->params, "path", NULL);
  snprintf(verb, sizeof verb, "%.*s", (int)r->call->verb.len, r->call->verb.ptr);
  if (path && *path != '/') return VIV_FAIL(&r->error, VIV_BAD_INPUT, "path", "must be absolute");
  if (path && !(r->c->grants & GRANT_CONTROL))
    return VIV_FAIL(&r->error, VIV_NEVER, "policy",
                    "this user may not have files read (class control of the policy)");
  worker *w = worker_start(r->d, NULL, path, &r->error);
  if (!w) return VIV_NOT_NOW;
  worker_call(w, verb, r->call->params, r->c->serial, r->id, 0);
  return VIV_OK;
}

/* ---- a model's own verbs ---- */

static int32_t ready_worker(request *r, worker **out) {
  model *m = model_by_id(r->d, r->call->model);
  if (!m) return VIV_FAIL(&r->error, VIV_NEVER, "model", "there is no such model");
  if (!m->worker || m->worker->state != WORKER_READY)
    return VIV_FAIL(&r->error, VIV_NOT_NOW, m->name, "the model is %s; load it again",
                    model_state_name(m));
  m->used_ns = viv__now_ns();
  *out = m->worker;
  return VIV_OK;
}

static int32_t do_tokens(request *r) {
  char verb[65];
  worker *w = NULL;
  int32_t status = ready_worker(r, &w);
  snprintf(verb, sizeof verb, "%.*s", (int)r->call->verb.len, r->call->verb.ptr);
  if (status >= 0) worker_call(w, verb, r->call->params, r->c->serial, r->id, 0);
  return status;
}

/* session_open, and session_resume with a descriptor. */
static int32_t do_session_open(request *r) {
  worker *w = NULL;
  bool resumed = viv__str_eq(r->call->verb, "session_resume");
  double bytes = viv__json_num(r->params, "bytes", 0);
  if (resumed && r->fd < 0)
    return VIV_FAIL(&r->error, VIV_BAD_INPUT, "session_resume", "came without a descriptor");
  if (resumed && viv__region_check(r->fd, bytes > 0 && bytes < 1e15 ? (uint64_t)bytes : 0, true,
                                   &r->error) < 0)
    return VIV_BAD_INPUT;
  int32_t status = ready_worker(r, &w);
  if (status < 0) return status;
  session *s = calloc(1, sizeof *s);
  if (!s) return VIV_FAIL(&r->error, VIV_NOT_NOW, "session", "no memory");
  *s = (session){.next = r->d->sessions,
                 .id = ++r->d->next_session,
                 .client = r->c->serial,
                 .worker = w->serial};
  r->d->sessions = s;
  char params[48];
  int n = snprintf(params, sizeof params, "{\"session\":%llu}", (unsigned long long)s->id);
  worker_call_with(w, resumed ? "session_resume" : "session_open", (viv_str){params, (uint64_t)n},
                   r->fd, r->c->serial, r->id, s->id);
  r->fd = -1;
  return VIV_OK;
}

static int32_t do_session_save(request *r) {
  uint64_t id = (uint64_t)viv__json_num(r->params, "session", 0);
  const session *s = r->d->sessions;
  while (s && (s->id != id || s->client != r->c->serial)) s = s->next;
  worker *w = s ? worker_by_serial(r->d, s->worker) : NULL;
  if (!w || w->state == WORKER_DEAD)
    return VIV_FAIL(&r->error, VIV_NOT_NOW, "session",
                    "the session ended with the worker that held it");
  worker_call(w, "session_save", r->call->params, r->c->serial, r->id, 0);
  return VIV_OK;
}

static int32_t do_session_close(request *r) {
  uint64_t id = (uint64_t)viv__json_num(r->params, "session", 0);
  for (session **at = &r->d->sessions; *at; at = &(*at)->next) {
    session *s = *at;
    if (s->id != id || s->client != r->c->serial) continue;
    worker *w = worker_by_serial(r->d, s->worker);
    *at = s->next;
    free(s);
    if (w)
      worker_call(w, "session_close", r->call->params, r->c->serial, r->id, 0);
    else
      answer_ok(r);
    return VIV_OK;
  }
  answer_ok(r); /* it ended with its worker */
  return VIV_OK;
}

/* ---- the daemon itself ---- */

static int32_t do_log_level(request *r) {
  static const char *const names[] = {"", "error", "warn", "info", "debug"};
  const char *level = viv__json_text(r->params, "level", "");
  for (int32_t i = 1; i <= VIV_LOG_DEBUG; i++)
    if (!strcmp(level, names[i])) {
      r->d->journal.level = i;
      answer_ok(r);
      return VIV_OK;
    }
  return VIV_FAIL(&r->error, VIV_BAD_INPUT, "level", "\"%s\" is none of error, warn, info, debug",
                  level);
}

static int32_t do_stop(request *r) {
  answer_ok(r);
  vivd_drain(r->d, "asked by a client");
  return VIV_OK;
}

static const struct {
  const char *name;
  int grant;
  int32_t (*run)(request *r);
} verbs[] = {{"load", GRANT_INFER, do_load},
             {"unload", GRANT_CONTROL, do_unload},
             {"reload", GRANT_CONTROL, do_reload},
             {"pin", GRANT_CONTROL, do_pin},
             {"ps", GRANT_INSPECT, do_ps},
             {"models", GRANT_INSPECT, do_models},
             {"logs", GRANT_CONTROL, do_logs},
             {"metrics", GRANT_INSPECT, do_metrics},
             {"why", GRANT_INSPECT, do_inspect},
             {"plan", GRANT_INSPECT, do_inspect},
             {"plugins", GRANT_INSPECT, do_inspect},
             {"machine", GRANT_INSPECT, do_inspect},
             {"tokenize", GRANT_INFER, do_tokens},
             {"detokenize", GRANT_INFER, do_tokens},
             {"session_open", GRANT_INFER, do_session_open},
             {"session_resume", GRANT_INFER, do_session_open},
             {"session_save", GRANT_INFER, do_session_save},
             {"session_close", GRANT_INFER, do_session_close},
             {"log-level", GRANT_CONTROL, do_log_level},
             {"stop", GRANT_CONTROL, do_stop}};

void verb_call(client *c, uint64_t id, const viv__wire_call *m, int fd) {
  request r = {.c = c, .d = c->peer.d, .id = id, .call = m, .fd = fd, .error = VIV_ERROR_INIT};
  viv_json *params = NULL;
  int32_t status = VIV_OK;
  int32_t (*run)(request * r) = NULL;
  if (m->params.len)
    status = viv__json_parse(m->params.ptr, m->params.len, "CALL", &params, &r.error);
  if (status >= 0 && params && viv__json_type(params) != VIV_JSON_OBJECT)
    status = VIV_FAIL(&r.error, VIV_BAD_INPUT, "CALL", "its parameters must be a JSON object");
  r.params = params;
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs && status >= 0 && !run; i++) {
    if (!viv__str_eq(m->verb, verbs[i].name)) continue;
    run = verbs[i].run;
    if (!(c->grants & verbs[i].grant))
      status = VIV_FAIL(&r.error, VIV_NEVER, verbs[i].name,
                        "the daemon's policy does not allow this to this user");
  }
  if (status >= 0 && !run)
    status = VIV_FAIL(&r.error, VIV_NEVER, "CALL", "there is no verb \"%.*s\"", (int)m->verb.len,
                      m->verb.len ? m->verb.ptr : "");
  if (status >= 0) status = run(&r);
  if (status < 0) {
    r.error.code = status;
    client_fail(c, id, &r.error);
  }
  if (r.fd >= 0) close(r.fd);
  viv__json_free(params);
}
