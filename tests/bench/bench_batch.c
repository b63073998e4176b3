/* What joining jobs brings, and what a step of generation takes from the heap.
 *
 *   build/bench/bench_batch [--json] [MODEL [DTYPE [TOKENS [JOBS]]]]
 *
 * By default zoo/models/sambay-reasoner, as-stored, 128. 1, 2, 4, 8 and 16 jobs (or only JOBS, for a
 * profile) generate at once; tokens per second together, the median of five rounds, and
 * the ratio to one job of the same round. Then the heap: malloc and its kin are counted, and the counts of a long and a
 * short generation are compared, so that what a job costs once drops out. --json: one object with
 * all rounds, by the clock and by the processor's time. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

/* ---- counting ---- */

static atomic_llong allocations;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) {
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  return __libc_realloc(p, n);
}

/* ---- jobs ---- */

enum { MOST_JOBS = 16, ROUNDS = 5, PROMPT = 8 };

static viv_model *model;

static void die(const char *where, const char *message) {
  fprintf(stderr, "bench_batch: %s: %s\n", where, message);
  exit(1);
}

/* Job i of tokens new ones; its prompt differs from the others'. stream: text comes piece by piece. */
static viv_job *submit(int i, int tokens, bool stream) {
  static int64_t ids[MOST_JOBS][PROMPT];
  viv_error e = VIV_ERROR_INIT;
  viv_job *job = NULL;
  char params[160];
  snprintf(params, sizeof params, "{\"max_new_tokens\":%d,\"ignore_eos\":true}", tokens);
  if (stream) {
    if (viv_submit_text(model, "One", params, &job, &e) < 0) die(e.where, e.message);
    return job;
  }
  for (int t = 0; t < PROMPT; t++) ids[i][t] = 5 + i * 3 + t;
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .dtype = VIV_I64,
                       .ndim = 2,
                       .shape = {1, PROMPT},
                       .bytes = sizeof ids[i],
                       .data = ids[i]};
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TENSOR,
                     .name = viv__str("input_ids"),
                     .tensor = &tensor};
  const viv_value *inputs[] = {&input};
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .params = params,
                   .n_inputs = 1,
                   .inputs = inputs};
  if (viv_submit(model, &q, &job, &e) < 0) die(e.where, e.message);
  return job;
}

static void finish(viv_job *job) {
  viv_event e = {0};
  while (viv_next_event(job, -1, &e) == VIV_OK) {
  }
  if (e.status < 0) die("a job", "did not end well");
  viv_job_free(job);
}

static double seconds_of(int jobs, int tokens) {
  viv_job *job[MOST_JOBS];
  uint64_t start = viv__now_ns();
  for (int i = 0; i < jobs; i++) job[i] = submit(i, tokens, false);
  for (int i = 0; i < jobs; i++) finish(job[i]);
  return (double)(viv__now_ns() - start) * 1e-9;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void profiled(int jobs, int tokens) {
  double best = 1e9;
  for (int r = 0; r < ROUNDS; r++) {
    double s = seconds_of(jobs, tokens);
    if (s < best) best = s;
  }
  printf("%2d jobs %10.1f tokens/s at best\n", jobs, jobs * tokens / best);
}

static double processor_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double median(const double *all) {
  double sorted[ROUNDS];
  memcpy(sorted, all, sizeof sorted);
  qsort(sorted, ROUNDS, sizeof *sorted, by_value);
  return sorted[ROUNDS / 2];
}

static void print_rounds(const char *name, const double *rate) {
  printf("\"%s\": [", name);
  for (int r = 0; r < ROUNDS; r++) printf("%s%.2f", r ? ", " : "", rate[r]);
  printf("]");
}

static void joining(int tokens, bool json) {
  static const int counts[] = {1, 2, 4, 8, 16};
  enum { COUNTS = sizeof counts / sizeof *counts };
  double rate[COUNTS][ROUNDS], processor[COUNTS][ROUNDS], ratio[ROUNDS];
  seconds_of(MOST_JOBS, 4);
  for (int r = 0; r < ROUNDS; r++) /* in turn, so that a busy minute hits all alike */
    for (int i = 0; i < COUNTS; i++) {
      double begun = processor_seconds();
      rate[i][r] = counts[i] * tokens / seconds_of(counts[i], tokens);
      processor[i][r] = counts[i] * tokens / (processor_seconds() - begun);
    }
  for (int i = 0; i < COUNTS; i++) {
    for (int r = 0; r < ROUNDS; r++) ratio[r] = rate[i][r] / rate[0][r];
    if (json) {
      printf("%s{\"jobs\": %d, ", i ? ", " : "\"joined\": [", counts[i]);
      print_rounds("clock", rate[i]);
      printf(", ");
      print_rounds("processor", processor[i]);
      printf("}");
    } else {
      printf("%2d jobs %10.1f tokens/s  %5.2f of one job\n", counts[i], median(rate[i]),
             median(ratio));
    }
  }
  if (json) printf("]");
}

static void heap(int tokens, bool stream, bool json) {
  long long count[2];
  finish(submit(0, 2 * tokens, stream));
  for (int i = 0; i < 2; i++) {
    long long before = atomic_load(&allocations);
    finish(submit(0, (i + 1) * tokens, stream));
    count[i] = atomic_load(&allocations) - before;
  }
  double each = (double)(count[1] - count[0]) / tokens;
  if (json)
    printf(", \"%s\": %.4f", stream ? "heap_text" : "heap_ids", each);
  else
    printf("heap, %s: %lld allocations for %d tokens, %lld for %d: %.3f for each further token\n",
           stream ? "text piece by piece" : "ids at the end", count[0], tokens, count[1],
           2 * tokens, each);
}

int main(int argc, char **argv) {
  bool json = argc > 1 && !strcmp(argv[1], "--json");
  argc -= json;
  argv += json;
  const char *path = argc > 1 ? argv[1] : "zoo/models/sambay-reasoner";
  const char *dtype = argc > 2 ? argv[2] : "as-stored", *build = getenv("VIV_TEST_BUILD");
  int tokens = argc > 3 ? atoi(argv[3]) : 128;
  char plugins[4096], load[160];
  viv_error e = VIV_ERROR_INIT;
  viv_runtime *rt;
  snprintf(plugins, sizeof plugins, "%s/plugins", build ? build : "build");
  snprintf(load, sizeof load, "{\"dtype\":\"%s\"}", dtype);
  viv_options o = {.struct_size = sizeof o, .plugin_path = plugins};
  if (tokens < 1) die("TOKENS", "must be 1 or more");
  if (viv_open(&o, &rt, &e) < 0 || viv_load(rt, path, load, &model, &e) < 0)
    die(e.where, e.message);
  if (!json) printf("%s, %s\n", path, dtype);
  if (argc > 4) {
    int jobs = atoi(argv[4]);
    if (jobs < 1 || jobs > MOST_JOBS) die("JOBS", "must be 1 to 16");
    profiled(jobs, tokens);
    viv_close(rt);
    return 0;
  }
  if (json) printf("{\"tokens\": %d, ", tokens);
  joining(tokens, json);
  heap(tokens, false, json);
  heap(tokens, true, json);
  if (json) printf("}\n");
  viv_close(rt);
  return 0;
}
