/* viv bench: how fast prompts are read and tokens are made, apart, as llama-bench shows it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

struct test {
  const char *kind; /* "pp" or "tg" */
  int64_t tokens;
  double mean, deviation; /* tokens/s */
  double processor;       /* seconds of it that a run took, of all threads, in the mean */
};

struct bench {
  viv__loaded loaded;
  int64_t repetitions;
  bool json;
  double vocabulary;
};

static double number_of(const cJSON *o, const char *key, double fallback) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

/* Ids without meaning, the same in every run, inside any vocabulary. */
static viv_tensor make_ids(const struct bench *b, int64_t n) {
  int64_t shape[2] = {1, n};
  viv_tensor ids = viv__tensor_make(VIV_I64, 2, shape);
  uint64_t state = 12345;
  int64_t limit = b->vocabulary > 8 ? (int64_t)b->vocabulary : 8;
  for (int64_t i = 0; i < n; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    viv__tensor_set(&ids, i, 3 + (double)((state >> 33) % (uint64_t)(limit - 3)));
  }
  return ids;
}

/* One timed run: a prompt of n tokens of which only the last row's logits are asked for, or n
 * tokens after a prompt of one. */
static int32_t run_once(struct bench *b, const struct test *t, double *seconds, viv_error *error) {
  bool prompt = !strcmp(t->kind, "pp");
  viv_tensor ids = make_ids(b, prompt ? t->tokens : 1);
  viv_value value = viv__value_tensor("input_ids", &ids);
  const viv_value *values[1] = {&value};
  cJSON *params = viv__need(cJSON_CreateObject());
  viv__outcome outcome;
  if (prompt) {
    cJSON_AddNumberToObject(params, "logits_to_keep", 1);
  } else {
    cJSON_AddNumberToObject(params, "max_new_tokens", (double)t->tokens);
    cJSON_AddTrueToObject(params, "ignore_eos");
    cJSON_AddStringToObject(params, "strategy", "greedy");
  }
  int32_t status = viv__job_run(b->loaded.model, prompt ? "forward" : "generate", params, values, 1,
                                NULL, NULL, NULL, &outcome);
  *seconds = outcome.seconds;
  *error = outcome.error;
  viv__outcome_free(&outcome);
  cJSON_Delete(params);
  viv__tensor_drop(&ids);
  return status;
}

/* Of all threads. On a machine that others use too it says more than the clock. */
static double processor_seconds(void) {
  struct timespec t;
  return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) ? 0
                                                     : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int32_t measure(struct bench *b, struct test *t, viv_error *error) {
  double sum = 0, squares = 0, seconds = 0;
  int32_t status = run_once(b, t, &seconds, error); /* pages in, caches warm */
  double begun = processor_seconds();
  for (int64_t i = 0; i < b->repetitions && status >= 0; i++) {
    if (!b->json) viv__progress_show("measuring", (double)i / (double)b->repetitions);
    status = run_once(b, t, &seconds, error);
    double rate = seconds > 0 ? (double)t->tokens / seconds : 0;
    sum += rate;
    squares += rate * rate;
  }
  viv__progress_clear();
  double n = (double)b->repetitions;
  t->mean = sum / n;
  t->processor = (processor_seconds() - begun) / n;
  t->deviation = n > 1 ? sqrt(fmax(0, (squares - sum * sum / n) / (n - 1))) : 0;
  return status;
}

static void print_line(const struct bench *b, const struct test *t, const char *name) {
  char size[32], count[32], label[32], rate[64];
  snprintf(label, sizeof label, "%s%lld", t->kind, (long long)t->tokens);
  snprintf(rate, sizeof rate, "%.2f ± %.2f", t->mean, t->deviation);
  printf("| %-24s | %10s | %10s | %8s | %21s |\n", name,
         viv__size_text(number_of(b->loaded.about, "weights_bytes", 0), size),
         viv__count_text(number_of(b->loaded.about, "parameters", 0), count), label, rate);
  fflush(stdout);
}

static int bench(struct bench *b, const char *model, struct test *tests, int n_tests,
                 const cJSON *load) {
  viv_error error = VIV_ERROR_INIT;
  viv__local = true; /* the library is measured, not the way to it */
  int32_t status = viv__load_model(model, load, &b->loaded, &error);
  if (status < 0) return viv__report(b->json, model, status, &error);
  b->vocabulary = number_of(b->loaded.about, "vocab_size", 0);
  double context = number_of(b->loaded.about, "context_max", 0);
  const char *slash = strrchr(model, '/'), *name = slash && slash[1] ? slash + 1 : model;
  cJSON *results = viv__need(cJSON_CreateArray());
  if (!b->json)
    printf("| %-24s | %10s | %10s | %8s | %20s |\n| %.24s | %.9s: | %.9s: | %.7s: | %.19s: |\n",
           "model", "size", "params", "test", "t/s", "------------------------",
           "--------------------", "--------------------", "--------------------",
           "--------------------");
  for (int i = 0; i < n_tests && status >= 0; i++) {
    struct test *t = &tests[i];
    if (!t->tokens) continue;
    double room = context - (t->kind[0] == 't'); /* generation starts from one token */
    if (context > 0 && (double)t->tokens > room) {
      fprintf(stderr, "viv bench: %s%lld is cut to the context of %.0f tokens\n", t->kind,
              (long long)t->tokens, context);
      t->tokens = (int64_t)room;
    }
    status = measure(b, t, &error);
    if (status < 0) break;
    if (!b->json) print_line(b, t, name);
    cJSON *o = viv__need(cJSON_CreateObject());
    char label[32];
    snprintf(label, sizeof label, "%s%lld", t->kind, (long long)t->tokens);
    cJSON_AddStringToObject(o, "test", label);
    cJSON_AddNumberToObject(o, "tokens", (double)t->tokens);
    cJSON_AddNumberToObject(o, "tokens_per_second", t->mean);
    cJSON_AddNumberToObject(o, "deviation", t->deviation);
    cJSON_AddNumberToObject(o, "processor_ms", t->processor * 1e3);
    cJSON_AddItemToArray(results, o);
  }
  if (status == VIV_CANCELLED) fprintf(stderr, "viv: cancelled\n");
  if (status < 0) {
    cJSON_Delete(results);
    return status == VIV_CANCELLED ? VIV__EXIT_CANCELLED
                                   : viv__report(b->json, model, status, &error);
  }
  if (!b->json) {
    cJSON_Delete(results);
    return VIV__EXIT_OK;
  }
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(doc, "model", name);
  cJSON_AddNumberToObject(doc, "repetitions", (double)b->repetitions);
  cJSON_AddItemToObject(doc, "tests", results);
  viv__print_json(doc);
  return VIV__EXIT_OK;
}

/* ---- one task over given inputs ---- */

static int compare_times(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* The most memory that this process held. Not getrusage: its figure counts the parent's, as it was at
 * the fork. 0: unknown. */
static int64_t peak_bytes(void) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  long long kib = 0;
  while (status && fgets(line, sizeof line, status))
    if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
  if (status) fclose(status);
  return kib * 1024;
}

/* processor: the seconds of a run in the mean. */
static void print_times(const struct bench *b, const char *model, const char *task,
                        const double *seconds, int64_t n, double processor) {
  double median = n % 2 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2;
  if (!b->json) {
    char size[32];
    printf("%s of %s: median %.3f ms, least %.3f, most %.3f (%lld runs); processor time %.3f ms a "
           "run; peak memory %s\n",
           task, model, median * 1e3, seconds[0] * 1e3, seconds[n - 1] * 1e3, (long long)n,
           processor * 1e3, viv__size_text((double)peak_bytes(), size));
    return;
  }
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(doc, "model", model);
  cJSON_AddStringToObject(doc, "task", task);
  cJSON_AddNumberToObject(doc, "repetitions", (double)n);
  cJSON_AddNumberToObject(doc, "median_ms", median * 1e3);
  cJSON_AddNumberToObject(doc, "least_ms", seconds[0] * 1e3);
  cJSON_AddNumberToObject(doc, "most_ms", seconds[n - 1] * 1e3);
  cJSON_AddNumberToObject(doc, "processor_ms", processor * 1e3);
  cJSON_AddNumberToObject(doc, "peak_bytes", (double)peak_bytes());
  viv__print_json(doc);
}

/* The job as a whole, from its submission to its last result. */
static int bench_task(struct bench *b, const char *model, const char *task, const viv__list *files,
                      const cJSON *params, const cJSON *load) {
  viv_error error = VIV_ERROR_INIT;
  viv__input_list inputs = {0};
  double *seconds = viv__need(viv__calloc((size_t)b->repetitions, sizeof *seconds));
  int32_t status = VIV_OK;
  for (int i = 0; i < files->n && status >= 0; i++)
    status = viv__inputs_pair(&inputs, files->items[i], &error);
  viv__local = true;
  if (status >= 0) status = viv__load_model(model, load, &b->loaded, &error);
  const viv_value **values = viv__inputs_values(&inputs);
  double begun = 0;
  for (int64_t i = -1; i < b->repetitions && status >= 0; i++) { /* the first is not counted */
    viv__outcome outcome;
    if (i == 0) begun = processor_seconds();
    status =
        viv__job_run(b->loaded.model, task, params, values, inputs.n, NULL, NULL, NULL, &outcome);
    if (i >= 0) seconds[i] = outcome.seconds;
    error = outcome.error;
    viv__outcome_free(&outcome);
  }
  double processor = processor_seconds() - begun;
  int code = VIV__EXIT_OK;
  if (status < 0) {
    code = viv__report(b->json, model, status, &error);
  } else {
    qsort(seconds, (size_t)b->repetitions, sizeof *seconds, compare_times);
    print_times(b, model, task, seconds, b->repetitions, processor / (double)b->repetitions);
  }
  viv__free(values);
  viv__inputs_free(&inputs);
  viv__free(seconds);
  return code;
}

int viv__cmd_bench(int argc, char **argv) {
  struct bench b = {.repetitions = 5};
  const char *task = NULL;
  viv__list files = {0};
  cJSON *params = viv__need(cJSON_CreateObject());
  struct test tests[] = {{"pp", 128, 0, 0, 0}, {"pp", 512, 0, 0, 0}, {"tg", 64, 0, 0, 0}};
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      {"repetitions", 'r', VIV__OPT_INT, "N", &b.repetitions, "runs of each test (5)", NULL},
      {"prompt", 'p', VIV__OPT_INT, "N", &tests[1].tokens, "tokens of the longer prompt (512)",
       NULL},
      {"generate", 'n', VIV__OPT_INT, "N", &tests[2].tokens, "tokens to make (64)", NULL},
      {"task", 0, VIV__OPT_TEXT, "TASK", &task, "time this task over the inputs instead", NULL},
      {"input", 'i', VIV__OPT_LIST, "NAME=FILE", &files, "an input of that task; may be repeated",
       NULL},
      {"param", 0, VIV__OPT_PAIR, "KEY=JSON", params, "a parameter of that task", NULL},
      VIV__LOAD_OPTIONS(load),
      {"json", 0, VIV__OPT_FLAG, NULL, &b.json, "the result as one JSON object", NULL},
      {0}};
  const viv__usage usage = {
      "viv bench sambay-reasoner", "bench [options] MODEL",
      "Tokens per second of prompt processing (pp) and of generation (tg), "
      "mean ± standard deviation.\nWith --task: the time of that task over the "
      "given inputs.\nOne run before the first is not counted."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code < 0 && b.repetitions < 1)
    code = viv__usage_error(argv[0], "--repetitions is at least 1");
  if (code < 0) {
    viv__interrupt_catch();
    code = task ? bench_task(&b, model, task, &files, params, load)
                : bench(&b, model, tests, sizeof tests / sizeof *tests, load);
  }
  viv__unload_model(&b.loaded);
  cJSON_Delete(load);
  cJSON_Delete(params);
  return code;
}
