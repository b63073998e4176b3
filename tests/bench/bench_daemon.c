/* What the way through the daemon costs: null jobs (a tensor comes back as it went) one after another, with
 * one number and with the 588 KiB of a picture; events of a stream; and jobs per second from 64 connections,
 * by wall clock and by the daemon's own processor time. Lines beginning "in-process" are the same without a
 * daemon. Whatever runs job by job is held to one processor, caller, daemon and worker alike, and counts
 * their changes of threads, which no other load alters. VIV_BENCH_JOBS (20000) says how many. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "vivd_bench.h"

enum { PICTURE = 3 * 224 * 224, CONNECTIONS = 64 };

static int n_jobs = 20000;
static double *samples;
static float picture[PICTURE];
static char null_model[64], endless_model[64], first_model[64];

static pid_t daemon_pid; /* 0: none runs */

/* How often the threads of a process have gone to sleep, and those of the processes it has started. */
static long sleeps_of(pid_t pid) {
  char path[96], line[256];
  long sum = 0, n;
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *threads = opendir(path);
  for (struct dirent *e; threads && (e = readdir(threads));) {
    if (e->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/status", (int)pid, e->d_name);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
      if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) sum += n;
    if (f) fclose(f);
    snprintf(path, sizeof path, "/proc/%d/task/%.16s/children", (int)pid, e->d_name);
    if (pid == getpid() || !(f = fopen(path, "r"))) continue;
    while (fscanf(f, "%ld", &n) == 1) sum += sleeps_of((pid_t)n);
    fclose(f);
  }
  if (threads) closedir(threads);
  return sum;
}

static long sleeps(void) {
  return sleeps_of(getpid()) + (daemon_pid ? sleeps_of(daemon_pid) : 0);
}

static void report(const char *what, int n, long slept) {
  qsort(samples, (size_t)n, sizeof *samples, by_value);
  printf("%-52s min %7.2f  p50 %7.2f  p99 %8.2f  us  %5.2f sleeps a job\n", what, samples[0],
         samples[n / 2], samples[n * 99 / 100], (double)slept / n);
}

/* Of this thread and of what it starts from now on. */
static void hold_to_one_processor(bool hold) {
  cpu_set_t all, one;
  CPU_ZERO(&all);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE; i++) CPU_SET(i, &all);
  CPU_SET((unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
  if (sched_setaffinity(0, sizeof one, hold ? &one : &all)) perror("sched_setaffinity");
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
  long before = sleeps();
  for (int i = 0; i < n; i++) {
    uint64_t t = viv__now_ns();
    one(m, floats, in_line);
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
  }
  report(what, n, sleeps() - before);
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

static void throughput(void) {
  pthread_t threads[CONNECTIONS];
  int n = n_jobs * 5 / CONNECTIONS * CONNECTIONS;
  double before = used(daemon_pid);
  uint64_t t = viv__now_ns();
  for (int i = 0; i < CONNECTIONS; i++) pthread_create(&threads[i], NULL, drive, &n);
  for (int i = 0; i < CONNECTIONS; i++) pthread_join(threads[i], NULL);
  double seconds = (double)(viv__now_ns() - t) / 1e9, busy = used(daemon_pid) - before;
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
  hold_to_one_processor(true);
  viv_options o = {.struct_size = sizeof o, .plugin_path = plugins, .log_level = VIV_LOG_ERROR};
  if (viv_open(&o, &rt, &e) < 0) die("open", &e);
  null_jobs(load(rt, null_model), 1, true, "in-process, inline: null job");
  null_jobs(load(rt, null_model), 1, false, "in-process, through the loop: null job");
  null_jobs(load(rt, null_model), PICTURE, false,
            "in-process, through the loop: 588 KiB there and back");
  null_jobs(load(rt, first_model), PICTURE, false, "in-process, through the loop: 588 KiB there");
  stream(load(rt, endless_model), "in-process: stream");
  viv_close(rt);
  daemon_pid = start_vivd(build, NULL);
  rt = dial();
  null_jobs(load(rt, null_model), 1, false, "daemon: null job");
  null_jobs(load(rt, null_model), PICTURE, false, "daemon: 588 KiB there and back");
  null_jobs(load(rt, first_model), PICTURE, false, "daemon: 588 KiB there");
  stream(load(rt, endless_model), "daemon: stream");
  viv_close(rt);
  stop(daemon_pid);
  hold_to_one_processor(false);
  daemon_pid = start_vivd(build, NULL);
  throughput();
  finish(daemon_pid);
  return 0;
}
