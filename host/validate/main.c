/* viv-validate PLUGIN.so: runs every test in a child of its own and says what came of it.
 *
 * Exit status: 0 all tests passed (some may have been skipped), 1 at least one failed, 2 the
 * command line or the machine is at fault. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "validate/validate.h"

enum { DEFAULT_LEVEL = 10, DEFAULT_SEED = 1 };

struct options {
  const char *plugin, *model, *run_test, *out, *only;
  int level;
  double slower; /* factor on all time limits */
  uint64_t seed;
  bool json, in_process, list;
};

static const char usage[] =
    "usage: viv-validate [options] PLUGIN.so\n"
    "  --level N       1 (files) to 10 (long fuzz); default 10, 5 is the least for a host\n"
    "  --model DIR     a model for the plugin to open; without it positive tests of plugins that\n"
    "                  need weights are skipped\n"
    "  --test NAME     only this test and those it needs\n"
    "  --seed N        of the fuzz tests; default 1\n"
    "  --slower X      multiplies the time limits\n"
    "  --in-process    no child processes, for a debugger\n"
    "  --json          the result as JSON\n"
    "  --list          the tests, without a plugin\n"
    "Levels, seeds and the factor may also stand in VIV_VALIDATE_LEVEL, _SEED and _SLOWER.\n";

/* ---- outcomes ---- */

static void record(struct context *c, int32_t result, const char *format, va_list args) {
  if (c->out->result == RESULT_FAIL) return;
  c->out->result = result;
  vsnprintf(c->out->reason, sizeof c->out->reason, format, args);
}

void viv__v_fail(struct context *c, const char *format, ...) {
  va_list args;
  va_start(args, format);
  record(c, RESULT_FAIL, format, args);
  va_end(args);
}

void viv__v_skip(struct context *c, const char *format, ...) {
  va_list args;
  va_start(args, format);
  record(c, RESULT_SKIP, format, args);
  va_end(args);
}

bool viv__v_failed(const struct context *c) {
  return c->out->result == RESULT_FAIL;
}

static const struct test *find_test(const char *name) {
  for (size_t i = 0; i < viv__n_tests; i++)
    if (!strcmp(viv__tests[i].name, name)) return &viv__tests[i];
  return NULL;
}

/* ---- in the test's process ---- */

static int run_here(const struct options *o, const struct test *test, struct outcome *out) {
  struct context c = {.plugin = o->plugin,
                      .model = o->model,
                      .model_given = o->model != NULL,
                      .seed = o->seed,
                      .out = out,
                      .manifest_error = VIV_ERROR_INIT};
  size_t len = strlen(o->plugin);
  char *text = NULL;
  size_t text_len = 0;
  char made[PATH_MAX];
  c.manifest_path = viv__malloc(len + 6);
  if (!c.manifest_path) return 2;
  snprintf(c.manifest_path, len + 6, "%s", o->plugin);
  if (len > 3 && !strcmp(o->plugin + len - 3, ".so")) c.manifest_path[len - 3] = 0;
  strcat(c.manifest_path, ".json");
  if (viv__read_file(c.manifest_path, 1 << 20, &text, &text_len, &c.manifest_error) == VIV_OK)
    viv__json_parse(text, text_len, c.manifest_path, &c.manifest, &c.manifest_error);
  viv__free(text);
  if (c.manifest && viv__json_type(c.manifest) != VIV_JSON_OBJECT) {
    viv__json_free(c.manifest);
    c.manifest = NULL;
    VIV_FAIL(&c.manifest_error, VIV_BAD_INPUT, c.manifest_path, "is no JSON object");
  }
  if (!c.model) {
    /* The folder of the outcome holds a model directory without weights, made for this run. */
    snprintf(made, sizeof made, "%s", o->out);
    char *slash = strrchr(made, '/');
    if (slash) *slash = 0;
    strncat(made, "/model", sizeof made - strlen(made) - 1);
    c.model = made;
  }
  test->run(&c);
  if (c.checkpoint) viv__checkpoint_close(c.checkpoint);
  viv__json_free(c.manifest);
  viv__free(c.manifest_path);
  if (out->result == RESULT_NONE) out->result = RESULT_PASS;
  return 0;
}

static struct outcome *map_outcome(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(struct outcome))) {
    fprintf(stderr, "viv-validate: %s: %s\n", path, strerror(errno));
    exit(2);
  }
  struct outcome *out = mmap(NULL, sizeof *out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (out == MAP_FAILED) {
    fprintf(stderr, "viv-validate: %s: %s\n", path, strerror(errno));
    exit(2);
  }
  return out;
}

/* ---- in the process that waits ---- */

/* The last words of a file, on one line. */
static void tail_of(const char *path, char *out, size_t cap) {
  char *text = NULL;
  size_t len = 0;
  *out = 0;
  if (viv__read_file(path, 64 << 20, &text, &len, NULL) < 0) return;
  while (len && (text[len - 1] == '\n' || text[len - 1] == ' ')) len--;
  size_t start = len > cap - 1 ? len - (cap - 1) : 0;
  size_t n = len - start;
  memcpy(out, text + start, n);
  out[n] = 0;
  for (char *p = out; *p; p++)
    if ((unsigned char)*p < 0x20) *p = ' ';
  viv__free(text);
}

static void send_to(const char *path, int fd) {
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
  if (file < 0 || dup2(file, fd) < 0) _exit(2);
  close(file);
}

static pid_t start_child(const struct options *o, const struct test *test, const char *work,
                         const char *outcome) {
  char seed[32];
  snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
  pid_t child = fork();
  if (child) return child;
  setpgid(0, 0);
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, 0) < 0) _exit(2);
  if (null > 0) close(null);
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/stdout", work);
  send_to(path, 1);
  snprintf(path, sizeof path, "%s/stderr", work);
  send_to(path, 2);
  execl("/proc/self/exe", "viv-validate", "--run-test", test->name, "--out", outcome, "--seed",
        seed, o->model ? "--model" : o->plugin, o->model, o->plugin, (char *)NULL);
  _exit(2);
}

/* Runs one test in a child and fills out. */
static void run_child(const struct options *o, const struct test *test, const char *work,
                      struct outcome *out) {
  char outcome[PATH_MAX], path[PATH_MAX], words[400];
  snprintf(outcome, sizeof outcome, "%s/outcome", work);
  unlink(outcome);
  struct outcome *shared = map_outcome(outcome);
  uint64_t limit = (uint64_t)((double)test->limit_s * o->slower * 1e9);
  uint64_t until = viv__now_ns() + limit;
  pid_t child = start_child(o, test, work, outcome);
  int status = 0;
  bool late = false;
  pid_t done = 0;
  if (child < 0) {
    fprintf(stderr, "viv-validate: fork: %s\n", strerror(errno));
    exit(2);
  }
  while ((done = waitpid(child, &status, WNOHANG)) == 0) {
    if (!late && viv__now_ns() > until) {
      late = true;
      kill(-child, SIGKILL);
      kill(child, SIGKILL);
    }
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  kill(-child, SIGKILL); /* what the plugin may have left behind */
  *out = *shared;
  munmap(shared, sizeof *shared);
  out->phase[sizeof out->phase - 1] = 0;
  out->reason[sizeof out->reason - 1] = 0;
  const char *phase = out->phase[0] ? out->phase : "starting";
  snprintf(path, sizeof path, "%s/stderr", work);
  tail_of(path, words, sizeof words);
  if (out->result == RESULT_NONE || late) {
    char how[128];
    if (late)
      snprintf(how, sizeof how, "still running after %.0f s", (double)test->limit_s * o->slower);
    else if (WIFSIGNALED(status))
      snprintf(how, sizeof how, "killed by signal %d (%s)", WTERMSIG(status),
               strsignal(WTERMSIG(status)));
    else
      snprintf(how, sizeof how, "ended the process with status %d", WEXITSTATUS(status));
    out->result = RESULT_FAIL;
    snprintf(out->reason, sizeof out->reason, "%s, in %s%s%s", how, phase,
             words[0] ? "; its last words: " : "", words);
    return;
  }
  if (out->result == RESULT_FAIL) return;
  if (words[0]) {
    out->result = RESULT_FAIL;
    snprintf(out->reason, sizeof out->reason, "wrote to standard error: %s", words);
  }
  snprintf(path, sizeof path, "%s/stdout", work);
  tail_of(path, words, sizeof words);
  if (words[0] && out->result != RESULT_FAIL) {
    out->result = RESULT_FAIL;
    snprintf(out->reason, sizeof out->reason, "wrote to standard output: %s", words);
  }
}

/* A model directory without weights, whose config.json is what the manifest says it serves. */
static void make_model(const struct options *o, const char *work) {
  char path[PATH_MAX], *text = NULL;
  size_t len = strlen(o->plugin), text_len = 0;
  viv_json *m = NULL;
  viv__buf config = {0};
  snprintf(path, sizeof path, "%s", o->plugin);
  if (len > 3) snprintf(path + len - 3, sizeof path - len, ".json");
  if (viv__read_file(path, 1 << 20, &text, &text_len, NULL) == VIV_OK)
    viv__json_parse(text, text_len, path, &m, NULL);
  viv_str type = viv__json_string(viv__json_item(viv__json_get(m, "model_types"), 0));
  viv_str arch = viv__json_string(viv__json_item(viv__json_get(m, "architectures"), 0));
  viv__buf_str(&config, "{\"model_type\": ");
  viv__buf_json(&config, type);
  if (arch.len) {
    viv__buf_str(&config, ", \"architectures\": [");
    viv__buf_json(&config, arch);
    viv__buf_str(&config, "]");
  }
  viv__buf_str(&config, "}\n");
  snprintf(path, sizeof path, "%s/model", work);
  mkdir(path, 0700);
  snprintf(path, sizeof path, "%s/model/config.json", work);
  viv_error error = VIV_ERROR_INIT;
  if (config.failed || viv__write_file(path, config.ptr, config.len, &error) < 0) {
    fprintf(stderr, "viv-validate: %s\n", error.message);
    exit(2);
  }
  viv__buf_free(&config);
  viv__json_free(m);
  viv__free(text);
}

static void remove_work(const char *work) {
  static const char *const files[] = {
      "/model/config.json", "/model", "/outcome", "/stdout", "/stderr", ""};
  char path[PATH_MAX];
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(path, sizeof path, "%s%s", work, files[i]);
    if (remove(path) && errno != ENOENT)
      fprintf(stderr, "viv-validate: %s stays behind: %s\n", path, strerror(errno));
  }
}

static bool wanted(const struct options *o, const struct test *t) {
  if (!o->only) return t->level <= o->level;
  for (const struct test *k = find_test(o->only); k; k = k->needs ? find_test(k->needs) : NULL)
    if (k == t) return true;
  return false;
}

static int validate(const struct options *o) {
  static const char *const words[] = {"?", "pass", "FAIL", "skip"};
  char work[] = "/tmp/viv-validate-XXXXXX", outcome[64];
  int32_t *results = viv__calloc(viv__n_tests, sizeof *results);
  int counts[4] = {0};
  viv__buf json = {0};
  if (!results || !mkdtemp(work)) {
    fprintf(stderr, "viv-validate: no work folder in /tmp: %s\n", strerror(errno));
    return 2;
  }
  make_model(o, work);
  snprintf(outcome, sizeof outcome, "%s/outcome", work);
  if (!o->json)
    printf("%s, level %d, seed %llu\n", o->plugin, o->level, (unsigned long long)o->seed);
  viv__buf_str(&json, "{\"plugin\":");
  viv__buf_json(&json, viv__str(o->plugin));
  viv__buf_fmt(&json, ",\"level\":%d,\"seed\":%llu,\"tests\":[", o->level,
               (unsigned long long)o->seed);
  for (size_t i = 0; i < viv__n_tests; i++) {
    const struct test *t = &viv__tests[i];
    const struct test *needs = t->needs ? find_test(t->needs) : NULL;
    struct outcome out = {0};
    if (!wanted(o, t)) continue;
    uint64_t began = viv__now_ns();
    if (needs && wanted(o, needs) && results[needs - viv__tests] != RESULT_PASS) {
      out.result = RESULT_SKIP;
      snprintf(out.reason, sizeof out.reason, "needs %s, which %s", needs->name,
               results[needs - viv__tests] == RESULT_SKIP ? "was skipped" : "failed");
    } else if (o->in_process) {
      struct options here = *o;
      here.out = outcome;
      struct outcome *shared = map_outcome(outcome);
      memset(shared, 0, sizeof *shared);
      if (run_here(&here, t, shared)) return 2;
      out = *shared;
      munmap(shared, sizeof *shared);
    } else {
      run_child(o, t, work, &out);
    }
    double ms = (double)(viv__now_ns() - began) / 1e6;
    results[i] = out.result;
    counts[out.result]++;
    if (!o->json) {
      printf("%2d  %s  %-18s %6.0f ms  %s%s%s\n", t->level, words[out.result], t->name, ms, t->what,
             out.reason[0] ? "\n          " : "", out.reason);
      fflush(stdout);
    }
    viv__buf_fmt(&json, "%s{\"name\":\"%s\",\"level\":%d,\"result\":\"%s\",\"ms\":%.1f,\"reason\":",
                 json.ptr[json.len - 1] == '}' ? "," : "", t->name, t->level,
                 out.result == RESULT_FAIL ? "fail" : words[out.result], ms);
    viv__buf_json(&json, viv__str(out.reason));
    viv__buf_str(&json, "}");
  }
  viv__buf_fmt(&json, "],\"passed\":%d,\"failed\":%d,\"skipped\":%d}\n", counts[RESULT_PASS],
               counts[RESULT_FAIL], counts[RESULT_SKIP]);
  if (o->json && !json.failed) fputs(json.ptr, stdout);
  if (!o->json)
    printf("%d passed, %d failed, %d skipped\n", counts[RESULT_PASS], counts[RESULT_FAIL],
           counts[RESULT_SKIP]);
  viv__buf_free(&json);
  viv__free(results);
  remove_work(work);
  return counts[RESULT_FAIL] || !counts[RESULT_PASS] ? 1 : 0;
}

/* ---- command line ---- */

static int list_tests(void) {
  for (size_t i = 0; i < viv__n_tests; i++)
    printf("%2d  %-18s %s\n", viv__tests[i].level, viv__tests[i].name, viv__tests[i].what);
  return 0;
}

static int bad_usage(const char *what, const char *argument) {
  fprintf(stderr, "viv-validate: %s%s%s\n%s", what, argument ? ": " : "", argument ? argument : "",
          usage);
  return 2;
}

int main(int argc, char **argv) {
  const char *level = getenv("VIV_VALIDATE_LEVEL"), *seed = getenv("VIV_VALIDATE_SEED"),
             *slower = getenv("VIV_VALIDATE_SLOWER");
  struct options o = {.level = level ? atoi(level) : DEFAULT_LEVEL,
                      .seed = seed ? strtoull(seed, NULL, 10) : DEFAULT_SEED,
                      .slower = slower ? atof(slower) : 1};
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(a, "--json"))
      o.json = true;
    else if (!strcmp(a, "--in-process"))
      o.in_process = true;
    else if (!strcmp(a, "--list"))
      o.list = true;
    else if (!strcmp(a, "--help") || !strcmp(a, "-h"))
      return fputs(usage, stdout) < 0;
    else if (a[0] == '-' && a[1] == '-' && !value)
      return bad_usage("needs a value, or is unknown", a);
    else if (!strcmp(a, "--level"))
      o.level = atoi(argv[++i]);
    else if (!strcmp(a, "--model"))
      o.model = argv[++i];
    else if (!strcmp(a, "--seed"))
      o.seed = strtoull(argv[++i], NULL, 10);
    else if (!strcmp(a, "--slower"))
      o.slower = atof(argv[++i]);
    else if (!strcmp(a, "--test"))
      o.only = argv[++i];
    else if (!strcmp(a, "--run-test"))
      o.run_test = argv[++i];
    else if (!strcmp(a, "--out"))
      o.out = argv[++i];
    else if (a[0] == '-')
      return bad_usage("unknown option", a);
    else if (o.plugin)
      return bad_usage("one plugin at a time", a);
    else
      o.plugin = a;
  }
  if (o.list) return list_tests();
  if (!o.plugin || !*o.plugin) return bad_usage("which plugin?", NULL);
  if (o.level < 1 || o.level > 10) return bad_usage("levels are 1 to 10", NULL);
  if (!(o.slower > 0)) return bad_usage("--slower needs a positive number", NULL);
  if ((o.only && !find_test(o.only)) || (o.run_test && !find_test(o.run_test)))
    return bad_usage("no test of this name (see --list)", o.only ? o.only : o.run_test);
  if (o.run_test) {
    if (!o.out) return bad_usage("--run-test needs --out", NULL);
    return run_here(&o, find_test(o.run_test), map_outcome(o.out));
  }
  /* dlopen searches system folders for a name without a slash. */
  char plugin[PATH_MAX], model[PATH_MAX];
  if (!realpath(o.plugin, plugin)) return bad_usage(strerror(errno), o.plugin);
  o.plugin = plugin;
  if (o.model && !realpath(o.model, model)) return bad_usage(strerror(errno), o.model);
  if (o.model) o.model = model;
  return validate(&o);
}
