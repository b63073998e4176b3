/* A daemon of a benchmark's own, in a fresh folder, and null jobs for it. */
#ifndef TESTS_VIVD_BENCH_H
#define TESTS_VIVD_BENCH_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

static char dir[] = "/tmp/viv-bench-XXXXXX", socket_path[64];

static inline void die(const char *what, const viv_error *e) {
  fprintf(stderr, "%s: %s: %s: %s\n", program_invocation_short_name, what, e->where, e->message);
  exit(1);
}

static inline void pause_ms(int ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static inline int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static inline void write_text(const char *file, const char *text) {
  viv_error e = VIV_ERROR_INIT;
  if (viv__write_file(file, text, strlen(text), &e) < 0) die("file", &e);
}

/* A model directory that the test plugin of that name takes. */
static inline void model_dir(char out[64], const char *type) {
  char file[96], text[96];
  snprintf(out, 64, "%s/%s", dir, type);
  mkdir(out, 0755);
  snprintf(file, sizeof file, "%s/config.json", out);
  snprintf(text, sizeof text, "{\"model_type\": \"test-%s\"}", type);
  write_text(file, text);
}

static inline void make_folder(void) {
  if (!mkdtemp(dir)) exit(1);
  snprintf(socket_path, sizeof socket_path, "%s/vivd.sock", dir);
}

/* config: JSON or NULL. */
static inline pid_t start_vivd(const char *build, const char *config) {
  char program[512], plugins[1024], state[96], file[96];
  snprintf(program, sizeof program, "%s/vivd", build);
  snprintf(plugins, sizeof plugins, "%s/plugins:%s/badplugins", build, build);
  snprintf(state, sizeof state, "%s/state", dir);
  snprintf(file, sizeof file, "%s/vivd.json", dir);
  write_text(file, config ? config : "{}");
  pid_t pid = fork();
  if (!pid) {
    snprintf(file, sizeof file, "%s/log", dir);
    if (!freopen(file, "a", stderr)) _exit(127);
    snprintf(file, sizeof file, "%s/vivd.json", dir);
    execl(program, "vivd", "--config", file, "--socket", socket_path, "--state", state, "--plugins",
          plugins, "--log", "error", (char *)NULL);
    _exit(127);
  }
  return pid;
}

static inline viv_runtime *dial(void) {
  viv_runtime *rt = NULL;
  viv_error e = VIV_ERROR_INIT;
  for (int i = 0; i < 1000; i++) {
    if (viv_connect(socket_path, &rt, &e) == VIV_OK) return rt;
    pause_ms(10);
  }
  die("vivd", &e);
  return NULL;
}

static inline viv_model *load(viv_runtime *rt, const char *path) {
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  if (viv_load(rt, path, NULL, &m, &e) < 0) die("load", &e);
  return m;
}

/* A job "forward" with so many floats as x; NULL when it was refused. */
static inline viv_job *submit_floats(viv_model *m, const float *x, int64_t floats, bool in_line) {
  viv_error e = VIV_ERROR_INIT;
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {floats},
                  .bytes = (uint64_t)floats * 4,
                  .data = (void *)(uintptr_t)x};
  viv_value in = {
      .struct_size = sizeof in, .kind = VIV_KIND_TENSOR, .name = viv__str("x"), .tensor = &t};
  const viv_value *inputs[] = {&in};
  viv_request q = {.struct_size = sizeof q, .task = "forward", .n_inputs = 1, .inputs = inputs};
  viv_job *job = NULL;
  int32_t status = in_line ? viv_run_inline(m, &q, &job, &e) : viv_submit(m, &q, &job, &e);
  return status < 0 ? NULL : job;
}

static inline void stop(pid_t daemon) {
  kill(daemon, SIGTERM);
  waitpid(daemon, NULL, 0);
}

static inline void finish(pid_t daemon) {
  char command[96];
  stop(daemon);
  snprintf(command, sizeof command, "rm -rf %s", dir);
  if (system(command)) perror(command);
}

#endif
