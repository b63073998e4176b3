/* The life of a model: unloaded, loading, ready, draining, failed; and its queue's way to a worker. */
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { QUARANTINE_AFTER = 5, BACK_OFF_MS = 100, BACK_OFF_MOST_MS = 30000, FAILED_FOR_MS = 500 };

/* ---- finding ---- */

model *model_by_id(vivd *d, uint64_t id) {
  for (model *m = d->models; m; m = m->next)
    if (m->id == id) return m;
  return NULL;
}

model *model_find(vivd *d, const char *name) {
  char *end;
  unsigned long long id = strtoull(name, &end, 10);
  if (*name && !*end && model_by_id(d, id)) return model_by_id(d, id);
  for (model *m = d->models; m; m = m->next)
    if (!strcmp(m->name, name) || !strcmp(m->path, name)) return m;
  return NULL;
}

model *model_get(vivd *d, const char *path, const char *params) {
  for (model *m = d->models; m; m = m->next)
    if (!strcmp(m->path, path) && !strcmp(m->params, params)) return m;
  model *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  m->d = d;
  m->id = ++d->next_model;
  m->path = viv__strdup(path);
  m->params = viv__strdup(params);
  m->name = viv__strdup(strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
  m->keep_alive_ms = d->config.keep_alive_s * 1000;
  m->state_since = (int64_t)time(NULL);
  m->used_ns = viv__now_ns();
  m->next = d->models;
  d->models = m;
  if (m->path && m->params && m->name) return m;
  model_drop(m);
  return NULL;
}

void model_drop(model *m) {
  for (model **at = &m->d->models; *at; at = &(*at)->next)
    if (*at == m) {
      *at = m->next;
      break;
    }
  viv__free(m->path);
  viv__free(m->params);
  viv__free(m->name);
  viv__free(m->about);
  viv__free(m->cause);
  viv__free(m->plugin);
  viv__free(m->plugin_file);
  free(m);
}

/* ---- states ---- */

static const char *const state_names[] = {"unloaded", "loading", "ready", "draining", "failed"};

const char *model_state_name(const model *m) {
  if (m->state == MODEL_READY && m->worker && m->worker->n_jobs) return "busy";
  return state_names[m->state];
}

void model_changed(model *m, int state, const char *cause) {
  m->state = state;
  m->state_since = (int64_t)time(NULL);
  if (cause) {
    char *copy = viv__strdup(cause);
    viv__free(m->cause);
    m->cause = copy;
  }
  log_fields(m->d, state == MODEL_FAILED ? VIV_LOG_ERROR : VIV_LOG_INFO, "model",
             cause ? cause : "", "model", m->name, "state", state_names[state], NULL);
}

/* {"model": id, "name": ..., "about": {...}} */
static void loaded_json(const model *m, viv__buf *b) {
  viv__buf_fmt(b, "{\"model\":%llu,\"name\":", (unsigned long long)m->id);
  viv__buf_json(b, viv__str(m->name));
  viv__buf_fmt(b, ",\"about\":%s}", m->about ? m->about : "{}");
}

void model_answer(model *m, const viv_error *error) {
  viv__buf b = {0};
  if (!error) loaded_json(m, &b);
  while (m->waiting) {
    call *k = m->waiting;
    client *c = client_by_serial(m->d, k->client);
    m->waiting = k->next;
    if (c && error)
      client_fail(c, k->client_id, error);
    else if (c)
      client_reply(c, k->client_id, VIV_OK, NULL, (viv_str){b.ptr, b.len});
    free(k);
  }
  viv__buf_free(&b);
  while (error && m->queue)
    job_fail(m->queue, error->code < 0 ? error->code : VIV_NOT_NOW, error->where, "%s",
             error->message);
}

/* ---- starting and ending ---- */

int32_t model_start(model *m, viv_error *error) {
  uint64_t now = viv__now_ns();
  if (m->worker) return VIV_OK;
  if (m->d->draining) return VIV_FAIL(error, VIV_NOT_NOW, m->name, "the daemon is draining");
  if (m->restart_ns > now)
    return VIV_FAIL(error, VIV_NOT_NOW, m->name, "%s; it is tried again in %llu ms",
                    m->cause ? m->cause : "it failed",
                    (unsigned long long)((m->restart_ns - now) / 1000000 + 1));
  m->worker = worker_start(m->d, m, m->path, error);
  if (!m->worker) {
    model_changed(m, MODEL_FAILED, error ? error->message : "its worker could not be started");
    return VIV_NOT_NOW;
  }
  m->used_ns = now;
  model_changed(m, MODEL_LOADING, NULL);
  return VIV_OK;
}

int32_t model_reload(model *m, viv_error *error) {
  if (!m->worker) return model_start(m, error);
  if (m->coming) return VIV_FAIL(error, VIV_NOT_NOW, m->name, "is being reloaded already");
  m->coming = worker_start(m->d, m, m->path, error);
  return m->coming ? VIV_OK : VIV_NOT_NOW;
}

/* Running jobs end first, queued ones too; new ones are refused until it is loaded again. */
void model_unload(model *m) {
  m->pinned = false;
  if (!m->worker) {
    if (m->state != MODEL_FAILED) model_changed(m, MODEL_UNLOADED, NULL);
    return;
  }
  if (m->worker->state == WORKER_DRAINING) return;
  model_changed(m, MODEL_DRAINING, NULL);
  if (m->queue || m->worker->state != WORKER_READY) return; /* the tick looks again */
  m->worker->state = WORKER_DRAINING;
  worker_retire(m->worker);
}

/* ---- the budget ---- */

static uint64_t loaded_bytes(const vivd *d, const model *but) {
  uint64_t sum = 0;
  for (const model *m = d->models; m; m = m->next)
    if (m != but && m->worker && m->worker->state >= WORKER_LOADING) sum += m->bytes;
  return sum;
}

static bool idle(const model *m) {
  return m->worker && m->worker->state == WORKER_READY && !m->worker->n_jobs && !m->queue &&
         !m->coming && m->state == MODEL_READY;
}

static bool has_session(const model *m) {
  for (const session *s = m->d->sessions; s; s = s->next)
    if (m->worker && s->worker == m->worker->serial) return true;
  return false;
}

int32_t model_make_room(model *m, viv_error *error) {
  vivd *d = m->d;
  uint64_t budget = d->config.budget, held;
  while ((held = loaded_bytes(d, m)) + m->bytes > budget) {
    model *oldest = NULL;
    for (model *o = d->models; o; o = o->next)
      if (o != m && idle(o) && !o->pinned && !has_session(o) &&
          (!oldest || o->used_ns < oldest->used_ns))
        oldest = o;
    if (!oldest)
      return VIV_FAIL(error, VIV_NOT_NOW, m->name,
                      "needs %.1f MiB; of the daemon's budget of %.1f MiB other models, which are "
                      "busy or pinned, hold %.1f MiB",
                      (double)m->bytes / 1048576, (double)budget / 1048576, (double)held / 1048576);
    log_fields(d, VIV_LOG_INFO, "model", "unloaded to make room", "model", oldest->name, NULL);
    model_unload(oldest);
    oldest->bytes = 0; /* it is leaving */
  }
  return VIV_OK;
}

/* ---- quarantine ---- */

bool quarantined(vivd *d, const char *hash) {
  return *hash && cJSON_HasObjectItem(d->bad_plugins, hash);
}

static char *quarantine_path(const vivd *d) {
  return d->config.state_dir ? viv__path_join(d->config.state_dir, "quarantine.json") : NULL;
}

void quarantine(vivd *d, const char *hash, const char *file, const char *reason) {
  if (!*hash || quarantined(d, hash)) return;
  cJSON_AddStringToObject(d->bad_plugins, hash, reason);
  log_fields(d, VIV_LOG_ERROR, "quarantine", reason, "file", file, "sha256", hash, NULL);
  char *path = quarantine_path(d), *text = path ? cJSON_Print(d->bad_plugins) : NULL;
  if (text) viv__write_file(path, text, strlen(text), NULL);
  cJSON_free(text);
  viv__free(path);
}

void quarantine_read(vivd *d) {
  char *path = quarantine_path(d), *text = NULL;
  size_t len = 0;
  viv_json *json = NULL;
  if (path && viv__read_file(path, 1 << 20, &text, &len, NULL) >= 0)
    viv__json_parse(text, len, path, &json, NULL);
  viv__free(text);
  viv__free(path);
  d->bad_plugins = viv__json_type(json) == VIV_JSON_OBJECT ? (cJSON *)json : cJSON_CreateObject();
  if (json && d->bad_plugins != (cJSON *)json) viv__json_free(json);
}

/* ---- when a worker goes ---- */

void model_retired(model *m, bool current) {
  if (!current) return;
  if (m->state == MODEL_DRAINING || m->state == MODEL_READY) model_changed(m, MODEL_UNLOADED, NULL);
  /* A failed load is not repeated by everybody who asks at once. */
  if (m->state == MODEL_FAILED) m->restart_ns = viv__now_ns() + FAILED_FOR_MS * UINT64_C(1000000);
  viv_error error = VIV_ERROR_INIT;
  if (m->queue && m->state == MODEL_UNLOADED && model_start(m, &error) < 0) model_answer(m, &error);
}

/* Jobs that had not begun wait for the next worker, which comes at once the first time and later and
 * later while no job gets done. */
void model_died(model *m, const char *cause, bool current, bool own_fault) {
  uint64_t now = viv__now_ns();
  m->deaths++;
  if (!current) {
    log_fields(m->d, VIV_LOG_ERROR, "reload", cause, "model", m->name, NULL);
    return;
  }
  bool failed_before = m->state == MODEL_FAILED; /* refused, and killed for it */
  uint64_t wait_ms = m->failures ? BACK_OFF_MS << (m->failures < 10 ? m->failures - 1 : 9) : 0;
  if (wait_ms > BACK_OFF_MOST_MS) wait_ms = BACK_OFF_MOST_MS;
  if (!failed_before) {
    m->failures++;
    m->restart_ns = now + wait_ms * 1000000u;
    model_changed(m, MODEL_FAILED, cause);
  } else {
    m->restart_ns = now + FAILED_FOR_MS * UINT64_C(1000000);
  }
  if (own_fault && m->failures >= QUARANTINE_AFTER && m->plugin_file) {
    viv_error error = VIV_ERROR_INIT;
    quarantine(m->d, m->plugin_hash, m->plugin_file, cause);
    VIV_FAIL(&error, VIV_NEVER, m->plugin_file,
             "is in quarantine until the file changes; it died %d times without finishing a job, "
             "at last: %s",
             m->failures, cause);
    m->failures = 0;
    model_answer(m, &error);
  } else if (!failed_before && m->failures > 10) {
    viv_error error = VIV_ERROR_INIT;
    VIV_FAIL(&error, VIV_NOT_NOW, m->name, "%s", cause);
    model_answer(m, &error);
  }
}

/* ---- work ---- */

void model_dispatch(model *m) {
  worker *w = m->worker;
  while (w && w->state == WORKER_READY && m->queue && w->n_jobs < w->max_jobs) job_run(m->queue, w);
}

static void stop_late_jobs(model *m, uint64_t now) {
  for (job *j = m->queue, *next; j; j = next) {
    next = j->next;
    if (j->deadline_ns && j->deadline_ns <= now)
      job_fail(j, VIV_DEADLINE, NULL, "the job's deadline passed while it was queued");
  }
}

/* A worker that does not stop in the time that its plugin declares hangs. What this loop was late by does
 * not count: the worker may not even have been told. */
static void stop_hangs(worker *w, uint64_t now, uint64_t late) {
  uint64_t grace = (uint64_t)(w->d->config.cancel_grace_ms + w->cancel_ms) * 1000000u;
  for (job *j = w->jobs; j; j = j->next) {
    if (!j->stopped_ns && j->deadline_ns && j->deadline_ns <= now) j->stopped_ns = now;
    if (j->stopped_ns) j->stopped_ns = j->stopped_ns + late < now ? j->stopped_ns + late : now;
    if (j->stopped_ns && now - j->stopped_ns > grace) {
      worker_kill(w, worker_hang);
      return;
    }
  }
  uint64_t limit = (uint64_t)w->d->config.start_limit_s * 1000000000u;
  if (w->state < WORKER_READY && now - w->started_ns > limit)
    worker_kill(w, "it took too long to start");
}

static void rate(model *m, uint64_t now) {
  double s = (double)(now - m->rated_ns) * 1e-9;
  if (s < 1) return;
  m->jobs_per_s = (double)(m->done - m->rated_done) / s;
  m->tokens_per_s = (double)(m->tokens - m->rated_tokens) / s;
  m->rated_ns = now;
  m->rated_done = m->done;
  m->rated_tokens = m->tokens;
}

static void tick_model(model *m, uint64_t now) {
  viv_error error = VIV_ERROR_INIT;
  rate(m, now);
  stop_late_jobs(m, now);
  if (!m->worker && (m->queue || m->waiting || m->pinned) && m->restart_ns <= now &&
      m->state == MODEL_FAILED && !m->d->draining) {
    m->restarts++;
    if (model_start(m, &error) < 0) model_answer(m, &error);
  }
  if (m->state == MODEL_DRAINING && m->worker && !m->queue && m->worker->state == WORKER_READY) {
    m->worker->state = WORKER_DRAINING;
    worker_retire(m->worker);
  }
  if (m->keep_alive_ms && !m->pinned && idle(m) && !has_session(m) &&
      now - m->used_ns > (uint64_t)m->keep_alive_ms * 1000000u)
    model_unload(m);
}

void models_tick(vivd *d) {
  uint64_t now = viv__now_ns(), since = d->ticked_ns ? now - d->ticked_ns : 0;
  uint64_t late = since > 2 * TICK_MS * UINT64_C(1000000) ? since : 0;
  d->ticked_ns = now;
  for (worker *w = d->workers, *next; w; w = next) {
    next = w->next;
    if (!w->exited) stop_hangs(w, now, late);
  }
  for (model *m = d->models; m; m = m->next) tick_model(m, now);
}

/* ---- for people ---- */

/* Resident bytes of a process; 0: unknown. */
static double resident(int pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/statm", pid);
  FILE *f = fopen(path, "re");
  long pages = 0;
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return (double)pages * 4096;
}

cJSON *model_json(const model *m) {
  cJSON *j = cJSON_CreateObject();
  const worker *w = m->worker;
  cJSON_AddNumberToObject(j, "model", (double)m->id);
  cJSON_AddStringToObject(j, "name", m->name);
  cJSON_AddStringToObject(j, "path", m->path);
  cJSON_AddStringToObject(j, "params", m->params);
  cJSON_AddStringToObject(j, "state", model_state_name(m));
  cJSON_AddNumberToObject(j, "since", (double)m->state_since);
  cJSON_AddStringToObject(j, "cause", m->state == MODEL_FAILED && m->cause ? m->cause : "");
  cJSON_AddStringToObject(j, "plugin", m->plugin ? m->plugin : "");
  cJSON_AddBoolToObject(j, "pinned", m->pinned);
  cJSON_AddNumberToObject(j, "bytes", (double)m->bytes);
  cJSON_AddNumberToObject(j, "pid", w ? (double)w->process.pid : 0);
  cJSON_AddNumberToObject(j, "resident_bytes", w ? resident(w->process.pid) : 0);
  cJSON_AddNumberToObject(j, "queued", (double)m->n_queued);
  cJSON_AddNumberToObject(j, "running", w ? (double)w->n_jobs : 0);
  double left = -1;
  if (idle(m) && m->keep_alive_ms && !m->pinned)
    left = (double)m->keep_alive_ms / 1000 - (double)(viv__now_ns() - m->used_ns) * 1e-9;
  if (left >= 0) cJSON_AddNumberToObject(j, "unloads_in_s", left);
  cJSON_AddNumberToObject(j, "done", (double)m->done);
  cJSON_AddNumberToObject(j, "failed", (double)m->failed);
  cJSON_AddNumberToObject(j, "cancelled", (double)m->cancelled);
  cJSON_AddNumberToObject(j, "refused", (double)m->refused);
  cJSON_AddNumberToObject(j, "worker_deaths", (double)m->deaths);
  cJSON_AddNumberToObject(j, "texts", (double)m->tokens);
  cJSON_AddNumberToObject(j, "busy_s", m->busy_s);
  cJSON_AddNumberToObject(j, "jobs_per_s", m->jobs_per_s);
  cJSON_AddNumberToObject(j, "tokens_per_s", m->tokens_per_s);
  if (w && w->sandbox) cJSON_AddItemToObject(j, "sandbox", cJSON_Parse(w->sandbox));
  return j;
}
