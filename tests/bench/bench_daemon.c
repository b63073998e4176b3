/* What the way through the daemon costs: null jobs (a tensor comes back as it went) one after another, with
 * one number and with the 588 KiB of a picture; events of a stream; and jobs per second from 64 connections,
 * by wall clock and by the daemon's own processor time. Lines beginning "in-process" are the same without a
 * daemon. VIV_BENCH_JOBS (20000) says how many. */
#include <pthread.h>
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

enum { PICTURE = 3 * 224 * 224, CONNECTIONS = 64 };

static int n_jobs = 20000;
static double *samples;
static float picture[PICTURE];
static char dir[] = "/tmp/viv-bench-XXXXXX", socket_path[64], null_model[64], endless_model[64],
            first_model[64];

static void die(const char *what, const viv_error *e) {
  fprintf(stderr, "bench_daemon: %s: %s: %s\n", what, e->where, e->message);
  exit(1);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void report(const char *what, int n) {
  qsort(samples, (size_t)n, sizeof *samples, by_value);
  printf("%-52s min %7.2f  p50 %7.2f  p99 %8.2f  us\n", what, samples[0], samples[n / 2],
         samples[n * 99 / 100]);
}

static void model_dir(char out[64], const char *type) {
  char file[96], text[96];
  snprintf(out, 64, "%s/%s", dir, type);
  mkdir(out, 0755);
  snprintf(file, sizeof file, "%s/config.json", out);
  int n = snprintf(text, sizeof text, "{\"model_type\": \"test-%s\"}", type);
  viv_error e = VIV_ERROR_INIT;
  if (viv__write_file(file, text, (size_t)n, &e) < 0) die("model", &e);
}

static viv_job *submit(viv_model *m, int64_t floats, bool in_line) {
  viv_error e = VIV_ERROR_INIT;
  viv_tensor x = {.struct_size = sizeof x,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {floats},
                  .bytes = (uint64_t)floats * 4,
                  .data = picture};
  viv_value in = {
      .struct_size = sizeof in, .kind = VIV_KIND_TENSOR, .name = viv__str("x"), .tensor = &x};
  const viv_value *inputs[] = {&in};
  viv_request q = {.struct_size = sizeof q, .task = "forward", .n_inputs = 1, .inputs = inputs};
  viv_job *job = NULL;
  if ((in_line ? viv_run_inline(m, &q, &job, &e) : viv_submit(m, &q, &job, &e)) < 0)
    die("submit", &e);
  return job;
}

static void one(viv_model *m, int64_t floats, bool in_line) {
  viv_job *job = submit(m, floats, in_line);
  viv_event e;
  while (viv_next_event(job, -1, &e) == VIV_OK)
    if (e.status < 0) die("job", e.error);
  viv_job_free(job);
}

static void null_jobs(viv_model *m, int64_t floats, bool in_line, const char *what) {
  int n = floats > 1 ? n_jobs / 10 : n_jobs;
  for (int i = 0; i < n; i++) {
    uint64_t t = viv__now_ns();
    one(m, floats, in_line);
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
  }
  report(what, n);
}

/* Events of one number each, as fast as they come. */
static void stream(viv_model *m, const char *what) {
  viv_event e;
  viv_job *job = submit(m, 1, false);
  for (int i = 0; i < 1000; i++) viv_next_event(job, -1, &e);
  uint64_t t = viv__now_ns();
  for (int i = 0; i < n_jobs; i++) viv_next_event(job, -1, &e);
  printf("%-52s %7.2f us an event\n", what, (double)(viv__now_ns() - t) / 1e3 / n_jobs);
  viv_job_free(job);
}

static pid_t start(const char *build) {
  char program[512], plugins[512], state[96];
  snprintf(program, sizeof program, "%s/vivd", build);
  snprintf(plugins, sizeof plugins, "%s/badplugins", build);
  snprintf(state, sizeof state, "%s/state", dir);
  pid_t pid = fork();
  if (!pid) {
    execl(program, "vivd", "--socket", socket_path, "--state", state, "--plugins", plugins, "--log",
          "error", (char *)NULL);
    _exit(127);
  }
  return pid;
}

static viv_runtime *dial(void) {
  viv_runtime *rt = NULL;
  viv_error e = VIV_ERROR_INIT;
  for (int i = 0; i < 500; i++) {
    if (viv_connect(socket_path, &rt, &e) == VIV_OK) return rt;
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
  die("vivd", &e);
  return NULL;
}

/* Each connection keeps eight jobs under way, so that one process can drive sixty-four. */
static void *drive(void *context) {
  enum { AHEAD = 8 };
  viv_runtime *rt = dial();
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  int n = *(const int *)context / CONNECTIONS;
  viv_job *jobs[AHEAD] = {NULL};
  if (viv_load(rt, null_model, NULL, &m, &e) < 0) die("load", &e);
  for (int i = 0; i < n + AHEAD; i++) {
    viv_job **slot = &jobs[i % AHEAD];
    viv_event event;
    while (*slot && viv_next_event(*slot, -1, &event) == VIV_OK)
      if (event.status < 0) die("job", event.error);
    viv_job_free(*slot);
    *slot = i < n ? submit(m, 1, false) : NULL;
  }
  viv_close(rt);
  return NULL;
}

/* Seconds of processor time that a process has used. */
static double used(pid_t pid) {
  char path[64];
  unsigned long user = 0, sys = 0;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "r");
  if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                  &sys) != 2)
    user = 0;
  if (f) fclose(f);
  return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static void throughput(pid_t daemon) {
  pthread_t threads[CONNECTIONS];
  int n = n_jobs * 5 / CONNECTIONS * CONNECTIONS;
  double before = used(daemon);
  uint64_t t = viv__now_ns();
  for (int i = 0; i < CONNECTIONS; i++) pthread_create(&threads[i], NULL, drive, &n);
  for (int i = 0; i < CONNECTIONS; i++) pthread_join(threads[i], NULL);
  double seconds = (double)(viv__now_ns() - t) / 1e9, busy = used(daemon) - before;
  printf("%-52s %7.0f a second; %.0f per second of the daemon's core\n",
         "daemon: null jobs from 64 connections", n / seconds, busy > 0 ? n / busy : 0);
}

static viv_model *load(viv_runtime *rt, const char *path) {
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  if (viv_load(rt, path, NULL, &m, &e) < 0) die("load", &e);
  return m;
}

int main(int argc, char **argv) {
  char plugins[512], command[96];
  const char *build = argc > 1 ? argv[1] : getenv("VIV_TEST_BUILD"),
             *jobs = getenv("VIV_BENCH_JOBS");
  viv_error e = VIV_ERROR_INIT;
  viv_runtime *rt = NULL;
  if (!build) build = "build";
  if (jobs && atoi(jobs) >= 1000) n_jobs = atoi(jobs);
  samples = calloc((size_t)n_jobs, sizeof *samples);
  if (!samples || !mkdtemp(dir)) return 1;
  snprintf(socket_path, sizeof socket_path, "%s/vivd.sock", dir);
  model_dir(null_model, "good");
  model_dir(endless_model, "endless-events");
  model_dir(first_model, "first");
  snprintf(plugins, sizeof plugins, "%s/badplugins", build);
  viv_options o = {.struct_size = sizeof o, .plugin_path = plugins, .log_level = VIV_LOG_ERROR};
  if (viv_open(&o, &rt, &e) < 0) die("open", &e);
  null_jobs(load(rt, null_model), 1, true, "in-process, inline: null job");
  null_jobs(load(rt, null_model), 1, false, "in-process, through the loop: null job");
  null_jobs(load(rt, null_model), PICTURE, false,
            "in-process, through the loop: 588 KiB there and back");
  null_jobs(load(rt, first_model), PICTURE, false, "in-process, through the loop: 588 KiB there");
  stream(load(rt, endless_model), "in-process: stream");
  viv_close(rt);
  pid_t daemon = start(build);
  rt = dial();
  null_jobs(load(rt, null_model), 1, false, "daemon: null job");
  null_jobs(load(rt, null_model), PICTURE, false, "daemon: 588 KiB there and back");
  null_jobs(load(rt, first_model), PICTURE, false, "daemon: 588 KiB there");
  stream(load(rt, endless_model), "daemon: stream");
  viv_close(rt);
  throughput(daemon);
  kill(daemon, SIGTERM);
  waitpid(daemon, NULL, 0);
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command) != 0;
}
