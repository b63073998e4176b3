/* vivd --nats URL: the process that takes jobs from a work queue (host/nats), kept running. */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>

#include "daemon/daemon.h"

enum { PAUSE_MS = 1000, PAUSE_ABSENT_MS = 30000 };

static void pause_for(vivd *d, int ms) {
  d->bridge_after_ns = viv__now_ns() + (uint64_t)ms * 1000000u;
}

static void on_closed(uv_handle_t *handle) {
  free(handle);
}

static void on_bridge_exit(uv_process_t *process, int64_t status, int signal_number) {
  vivd *d = process->data;
  d->bridge = NULL;
  pause_for(d, PAUSE_MS);
  logd(d, d->draining ? VIV_LOG_INFO : VIV_LOG_ERROR, "nats",
       "vivd-nats ended: status %lld, signal %d", (long long)status, signal_number);
  uv_close((uv_handle_t *)process, on_closed);
}

void bridge_tick(vivd *d) {
  char program[PATH_MAX + 16];
  if (!d->nats_url || d->bridge || d->draining || d->stopping || viv__now_ns() < d->bridge_after_ns)
    return;
  uv_process_t *process = calloc(1, sizeof *process);
  if (!process) return;
  snprintf(program, sizeof program, "%s-nats", d->self);
  char *args[] = {program, d->config.socket, d->nats_url, NULL};
  uv_stdio_container_t io[3] = {
      {.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = 2}};
  uv_process_options_t o = {
      .exit_cb = on_bridge_exit, .file = program, .args = args, .stdio = io, .stdio_count = 3};
  process->data = d;
  int failed = uv_spawn(&d->loop, process, &o);
  if (!failed) {
    d->bridge = process;
    return;
  }
  logd(d, VIV_LOG_ERROR, "nats", "%s can't be run: %s", program, uv_strerror(failed));
  pause_for(d, PAUSE_ABSENT_MS);
  uv_close((uv_handle_t *)process, on_closed);
}

void bridge_stop(vivd *d) {
  if (d->bridge) uv_process_kill(d->bridge, SIGTERM);
}
