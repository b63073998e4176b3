/* What the host itself costs: a job that gives one number back, inline and through the loop, against the cost
 * of handing one byte from a thread to another and back (what no queue between threads can beat); and
 * the way from an empty process to a model's first token.
 *
 *   build/bench/bench_overhead [--json] [BUILD]      (--json: an array of objects, microseconds) */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

enum { N = 20000 };
static double samples[N];

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static bool json;

static void report(const char *what, int n) {
  static const char *before = "[";
  qsort(samples, (size_t)n, sizeof *samples, by_value);
  if (json) {
    printf("%s{\"what\": \"%s\", \"least\": %.3f, \"p50\": %.3f, \"p99\": %.3f}", before, what,
           samples[0], samples[n / 2], samples[n * 99 / 100]);
    before = ",\n";
    return;
  }
  printf("%-44s p50 %8.2f  p99 %8.2f  us\n", what, samples[n / 2], samples[n * 99 / 100]);
}

static void die(const viv_error *e) {
  fprintf(stderr, "bench_overhead: %s: %s\n", e->where, e->message);
  exit(1);
}

static void drain(viv_job *job) {
  viv_event e;
  while (viv_next_event(job, -1, &e) == VIV_OK) {
  }
  viv_job_free(job);
}

static void null_jobs(viv_model *m) {
  viv_error e = VIV_ERROR_INIT;
  float one = 1;
  viv_tensor x = {
      .struct_size = sizeof x, .dtype = VIV_F32, .ndim = 1, .shape = {1}, .bytes = 4, .data = &one};
  viv_value in = {
      .struct_size = sizeof in, .kind = VIV_KIND_TENSOR, .name = viv__str("x"), .tensor = &x};
  const viv_value *inputs[] = {&in};
  viv_request q = {.struct_size = sizeof q, .task = "forward", .n_inputs = 1, .inputs = inputs};
  for (int i = 0; i < N; i++) {
    viv_job *job;
    uint64_t t = viv__now_ns();
    if (viv_run_inline(m, &q, &job, &e) < 0) die(&e);
    drain(job);
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
  }
  report("null job, inline", N);
  for (int i = 0; i < N; i++) {
    viv_job *job;
    uint64_t t = viv__now_ns();
    if (viv_submit(m, &q, &job, &e) < 0) die(&e);
    drain(job);
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
  }
  report("null job, through the loop", N);
}

static void *echo(void *arg) {
  int *fds = arg;
  uint64_t v;
  while (read(fds[0], &v, sizeof v) == sizeof v && v < 1000)
    if (write(fds[1], &v, sizeof v) < 0) break;
  return NULL;
}

/* Two eventfd wake-ups: a lower bound for a job that crosses threads and comes back. */
static void wake_ups(void) {
  int fds[2] = {eventfd(0, 0), eventfd(0, 0)};
  pthread_t thread;
  uint64_t one = 1, end = 1000;
  pthread_create(&thread, NULL, echo, fds);
  for (int i = 0; i < N; i++) {
    uint64_t t = viv__now_ns();
    if (write(fds[0], &one, sizeof one) < 0 || read(fds[1], &one, sizeof one) < 0) break;
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
  }
  if (write(fds[0], &end, sizeof end) < 0) return;
  pthread_join(thread, NULL);
  report("thread to thread and back (eventfd)", N);
}

static void first_token(const char *path) {
  enum { RUNS = 21 };
  for (int i = 0; i < RUNS; i++) {
    viv_error e = VIV_ERROR_INIT;
    viv_runtime *rt;
    viv_model *m;
    viv_job *job;
    viv_event event = {0};
    uint64_t t = viv__now_ns();
    if (viv_open(NULL, &rt, &e) < 0 || viv_load(rt, path, NULL, &m, &e) < 0 ||
        viv_submit_text(m, "What is 12 + 30?", "{\"chat\":true,\"max_new_tokens\":1}", &job, &e) <
            0)
      die(&e);
    while (event.kind != VIV_KIND_TEXT && event.kind != VIV_KIND_END)
      if (viv_next_event(job, -1, &event) < 0) break;
    samples[i] = (double)(viv__now_ns() - t) / 1e3;
    viv_job_free(job);
    viv_close(rt);
  }
  report("open, load, first token of the reasoner", RUNS);
}

int main(int argc, char **argv) {
  char plugins[4096];
  viv_error e = VIV_ERROR_INIT;
  viv_runtime *rt;
  viv_model *m;
  json = argc > 1 && !strcmp(argv[1], "--json");
  argc -= json;
  argv += json;
  const char *build = argc > 1 ? argv[1] : getenv("VIV_TEST_BUILD");
  if (!build) build = "build";
  snprintf(plugins, sizeof plugins, "%s/badplugins", build);
  char model[] = "/tmp/viv-null-XXXXXX", config[64];
  if (!mkdtemp(model)) return 1;
  snprintf(config, sizeof config, "%s/config.json", model);
  const char text[] = "{\"model_type\":\"test-good\"}";
  if (viv__write_file(config, text, sizeof text - 1, &e) < 0) die(&e);
  viv_options o = {.struct_size = sizeof o, .plugin_path = plugins};
  if (viv_open(&o, &rt, &e) < 0 || viv_load(rt, model, NULL, &m, &e) < 0) die(&e);
  wake_ups();
  null_jobs(m);
  viv_close(rt);
  unlink(config);
  rmdir(model);
  snprintf(plugins, sizeof plugins, "%s/plugins", build);
  setenv("VIV_PLUGIN_PATH", plugins, 1);
  first_token("zoo/models/sambay-reasoner");
  if (json) printf("]\n");
  return 0;
}
