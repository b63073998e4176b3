/* The log, one JSON object a line, and the figures in Prometheus' text form. */
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *const levels[] = {"", "error", "warn", "info", "debug"};

static void begin_line(viv__buf *b, int32_t level, const char *event) {
  struct timeval now;
  struct tm utc;
  gettimeofday(&now, NULL);
  gmtime_r(&now.tv_sec, &utc);
  char text[40];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  viv__buf_fmt(b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":", text,
               (long)now.tv_usec / 1000, levels[level]);
  viv__buf_json(b, viv__str(event));
}

static void put_line(vivd *d, viv__buf *b) {
  viv__buf_str(b, "}");
  if (b->failed) {
    viv__buf_free(b);
    return;
  }
  char **slot = &d->journal.lines[d->journal.next++ % JOURNAL_LINES];
  viv__free(*slot);
  *slot = viv__strdup(b->ptr);
  viv__buf_str(b, "\n");
  if (!b->failed && write(STDERR_FILENO, b->ptr, b->len) < 0) {
    /* A full disk must not end the daemon; `viv logs` still has the line. */
  }
  viv__buf_free(b);
}

void logd(vivd *d, int32_t level, const char *event, const char *format, ...) {
  if (level > d->journal.level) return;
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  log_fields(d, level, event, text, NULL);
}

void log_fields(vivd *d, int32_t level, const char *event, const char *message, ...) {
  if (level > d->journal.level) return;
  viv__buf b = {0};
  begin_line(&b, level, event);
  va_list args;
  va_start(args, message);
  for (const char *key; (key = va_arg(args, const char *));) {
    viv__buf_str(&b, ",");
    viv__buf_json(&b, viv__str(key));
    viv__buf_str(&b, ":");
    viv__buf_json(&b, viv__str(va_arg(args, const char *)));
  }
  va_end(args);
  if (*message) {
    viv__buf_str(&b, ",\"message\":");
    viv__buf_json(&b, viv__str(message));
  }
  put_line(d, &b);
}

cJSON *journal_json(const vivd *d, uint64_t since) {
  cJSON *j = cJSON_CreateObject(), *lines = cJSON_AddArrayToObject(j, "lines");
  uint64_t oldest = d->journal.next > JOURNAL_LINES ? d->journal.next - JOURNAL_LINES : 0;
  for (uint64_t i = since > oldest ? since : oldest; i < d->journal.next; i++) {
    const char *line = d->journal.lines[i % JOURNAL_LINES];
    if (line) cJSON_AddItemToArray(lines, cJSON_CreateString(line));
  }
  cJSON_AddNumberToObject(j, "next", (double)d->journal.next);
  return j;
}

void journal_free(vivd *d) {
  for (int i = 0; i < JOURNAL_LINES; i++) viv__free(d->journal.lines[i]);
}

/* ---- figures ---- */

static void head(viv__buf *b, const char *name, const char *type, const char *help) {
  viv__buf_fmt(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label(viv__buf *b, const char *text) {
  for (; *text; text++) {
    if (*text == '\\' || *text == '"') viv__buf_str(b, "\\");
    if (*text == '\n')
      viv__buf_str(b, "\\n");
    else
      viv__buf_add(b, text, 1);
  }
}

static void sample(viv__buf *b, const char *name, const model *m, const char *more, double value) {
  viv__buf_fmt(b, "%s{model=\"", name);
  label(b, m->name);
  viv__buf_fmt(b, "\",id=\"%llu\"%s} %.17g\n", (unsigned long long)m->id, more, value);
}

static void of_models(const vivd *d, viv__buf *b) {
  head(b, "vivd_jobs_total", "counter", "Jobs that ended, by outcome.");
  for (const model *m = d->models; m; m = m->next) {
    sample(b, "vivd_jobs_total", m, ",outcome=\"ok\"", (double)m->done);
    sample(b, "vivd_jobs_total", m, ",outcome=\"failed\"", (double)m->failed);
    sample(b, "vivd_jobs_total", m, ",outcome=\"cancelled\"", (double)m->cancelled);
    sample(b, "vivd_jobs_total", m, ",outcome=\"refused\"", (double)m->refused);
  }
  head(b, "vivd_queue_depth", "gauge", "Jobs that wait for their model.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_queue_depth", m, "", (double)m->n_queued);
  head(b, "vivd_running", "gauge", "Jobs that run.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_running", m, "", m->worker ? (double)m->worker->n_jobs : 0);
  head(b, "vivd_model_bytes", "gauge", "Bytes that a loaded model needs by its plan.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_model_bytes", m, "", m->worker ? (double)m->bytes : 0);
  head(b, "vivd_model_ready", "gauge", "1 while the model is loaded.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_model_ready", m, "", m->state == MODEL_READY);
  head(b, "vivd_texts_total", "counter", "Pieces of text that models said.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_texts_total", m, "", (double)m->tokens);
  head(b, "vivd_queue_seconds_total", "counter", "Seconds that jobs waited.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_queue_seconds_total", m, "", m->queue_s);
  head(b, "vivd_run_seconds_total", "counter", "Seconds that jobs ran.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_run_seconds_total", m, "", m->busy_s);
  head(b, "vivd_worker_deaths_total", "counter", "Workers that died unasked.");
  for (const model *m = d->models; m; m = m->next)
    sample(b, "vivd_worker_deaths_total", m, "", (double)m->deaths);
}

static void plain(viv__buf *b, const char *name, const char *type, const char *help, double value) {
  head(b, name, type, help);
  viv__buf_fmt(b, "%s %.17g\n", name, value);
}

char *metrics_text(vivd *d) {
  viv__buf b = {0};
  of_models(d, &b);
  plain(&b, "vivd_uptime_seconds", "gauge", "Since the daemon started.",
        (double)(viv__now_ns() - d->started_ns) * 1e-9);
  plain(&b, "vivd_connections", "gauge", "Clients that are connected.", (double)d->n_clients);
  plain(&b, "vivd_connections_total", "counter", "Clients that ever connected.",
        (double)d->connections);
  plain(&b, "vivd_malformed_total", "counter", "Connections closed for a malformed frame.",
        (double)d->malformed);
  plain(&b, "vivd_rejected_total", "counter", "Jobs and connections that were refused.",
        (double)d->rejected);
  plain(&b, "vivd_events_total", "counter", "Events sent to clients.", (double)d->events_out);
  plain(&b, "vivd_quarantined_plugins", "gauge", "Plugins in quarantine.",
        (double)cJSON_GetArraySize(d->bad_plugins));
  if (!b.failed) return b.ptr;
  viv__buf_free(&b);
  return NULL;
}
