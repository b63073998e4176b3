/* What the way through the daemon costs: null jobs (a tensor comes back as it went) one after another, with
 * one number and with the 588 KiB of a picture; events of a stream; and jobs per second from 64 connections,
 * by wall clock and by the daemon's own processor time. Lines beginning "in-process" are the same without a
 * daemon. VIV_BENCH_JOBS (20000) says how many. */
#include <errno.h>
#include <pthread.h>

#include "vivd_bench.h"

enum { PICTURE = 3 * 224 * 224, CONNECTIONS = 64 };

static int n_jobs = 20000;
static double *samples;
static float picture[PICTURE];
static char null_model[64], endless_model[64], first_model[64];

static void report(const char *what, int n) {
  qsort(samples, (size_t)n, sizeof *samples, by_value);
  printf("%-52s min %7.2f  p50 %7.2f  p99 %8.2f  us\n", what, samples[0], samples[n / 2],
         samples[n * 99 / 100]);
}

static viv_job *submit(viv_model *m, int64_t floats, bool in_line) {
  viv_error e = VIV_ERROR_INIT;
  viv_job *job = submit_floats(m, picture, floats, in_line);
  VIV_FAIL(&e, VIV_BUG, "job", "was refused");
  if (!job) die("submit", &e);
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

int main(int argc, char **argv) {
  char plugins[512];
  const char *build = argc > 1 ? argv[1] : getenv("VIV_TEST_BUILD"),
             *jobs = getenv("VIV_BENCH_JOBS");
  viv_error e = VIV_ERROR_INIT;
  viv_runtime *rt = NULL;
  if (!build) build = "build";
  if (jobs && atoi(jobs) >= 1000) n_jobs = atoi(jobs);
  samples = calloc((size_t)n_jobs, sizeof *samples);
  if (!samples) return 1;
  make_folder();
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
  pid_t daemon = start_vivd(build, NULL);
  rt = dial();
  null_jobs(load(rt, null_model), 1, false, "daemon: null job");
  null_jobs(load(rt, null_model), PICTURE, false, "daemon: 588 KiB there and back");
  null_jobs(load(rt, first_model), PICTURE, false, "daemon: 588 KiB there");
  stream(load(rt, endless_model), "daemon: stream");
  viv_close(rt);
  throughput(daemon);
  finish(daemon);
  return 0;
}
