/* The conformance list in C, in this process and through a daemon: conformance MODEL TEST_MODEL DIR [SOCKET], as
 * conformance.py. Built against the installed header and the shared library alone. */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vivarium/vivarium.h>

#define PROMPT "Once upon a time"
#define SIXTY "{\"max_new_tokens\": 60}"
#define TWENTY "{\"max_new_tokens\": 20}"
#define ENDLESS "{\"max_new_tokens\": 100000, \"ignore_eos\": true}"
enum { FLOATS = 150528 };

static const char *where = "in-process";
static viv_error failure;

static void check(const char *name, int good) {
  printf("%s - %s: %s\n", good ? "ok" : "not ok", where, name);
  if (!good) exit(1);
}

/* A line that must be the same in every language. */
static void tell(const char *what, const char *a, const char *b) {
  printf("# %s: %s%s", what, a, *a && *b ? ": " : "");
  for (; *b; b++) putchar(*b == '\n' ? ' ' : *b);
  putchar('\n');
}

static viv_error *fresh(void) {
  memset(&failure, 0, sizeof failure);
  failure.struct_size = sizeof failure;
  return &failure;
}

static void must(int32_t status) {
  if (status >= 0) return;
  fprintf(stderr, "%s: %s\n", failure.where, failure.message);
  exit(1);
}

static int32_t submit(viv_model *m, viv_session *s, const char *text, const char *params,
                      int64_t deadline_ms, viv_job **job) {
  viv_value v = {.struct_size = sizeof v, .kind = VIV_KIND_TEXT, .name = {"text", 4}};
  const viv_value *inputs[] = {&v};
  v.bytes = (viv_str){text, strlen(text)};
  viv_request q = {.struct_size = sizeof q,
                   .n_inputs = 1,
                   .task = "generate",
                   .params = params,
                   .inputs = inputs,
                   .session = s,
                   .deadline_ms = deadline_ms};
  return viv_submit(m, &q, job, fresh());
}

/* The END's status; what is said in out, its pieces counted. The failure is kept. */
static int32_t finish(viv_job *job, char out[4096], int *pieces) {
  viv_event e = {.struct_size = sizeof e};
  size_t n = 0;
  int32_t status = VIV_BUG;
  int count = 0;
  while (viv_next_event(job, -1, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TEXT && n + e.bytes.len < 4096) {
      memcpy(out + n, e.bytes.ptr, e.bytes.len);
      n += e.bytes.len;
      count++;
    }
    if (e.flags & VIV_EVENT_FINAL) status = e.status;
    if (e.error) failure = *e.error;
  }
  out[n] = 0;
  if (pieces) *pieces = count;
  viv_job_free(job);
  return status;
}

static int32_t say(viv_model *m, viv_session *s, const char *text, const char *params,
                   int64_t deadline_ms, char out[4096]) {
  viv_job *job = NULL;
  int32_t status = submit(m, s, text, params, deadline_ms, &job);
  return status < 0 ? status : finish(job, out, NULL);
}

static viv_job *floats(viv_model *m, const float *x, int64_t n) {
  viv_tensor t = {.struct_size = sizeof t,
                  .data = (void *)(uintptr_t)x,
                  .bytes = (uint64_t)n * 4,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {n}};
  viv_value v = {.struct_size = sizeof v, .kind = VIV_KIND_TENSOR, .name = {"x", 1}, .tensor = &t};
  const viv_value *inputs[] = {&v};
  viv_request q = {.struct_size = sizeof q, .n_inputs = 1, .task = "forward", .inputs = inputs};
  viv_job *job = NULL;
  must(viv_submit(m, &q, &job, fresh()));
  return job;
}

static void null_jobs(viv_model *m, int n) {
  const float x[3] = {1, 2, 3};
  viv_event e = {.struct_size = sizeof e};
  while (n-- > 0) {
    viv_job *job = floats(m, x, 3);
    while (viv_next_event(job, -1, &e) == VIV_OK) {
    }
    viv_job_free(job);
  }
}

static long resident(void) {
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return pages * 4096;
}

static int descriptors(void) {
  int n = 0;
  DIR *d = opendir("/proc/self/fd");
  while (d && readdir(d)) n++;
  if (d) closedir(d);
  return n;
}

/* What dlpack.h calls DLManagedTensor. */
typedef struct DLManagedTensor {
  float *data;
  int32_t device, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
  void *context;
  void (*deleter)(struct DLManagedTensor *);
} DLManagedTensor;

/* Whether it shows x, in the processor's memory; it is given back. */
static int seen_as(DLManagedTensor *t, const float *x) {
  int good = t->device == 1 && t->ndim == 1 && t->code == 2 && t->bits == 32 && t->lanes == 1 &&
             t->shape[0] == FLOATS && t->strides[0] == 1 && !memcmp(t->data, x, FLOATS * sizeof *x);
  t->deleter(t);
  return good;
}

static void *cancel(void *job) {
  viv_job_cancel(job);
  return NULL;
}

static void jobs(viv_model *m, const char *expected) {
  char text[4096];
  int pieces;
  viv_job *job = NULL;
  viv_event e = {.struct_size = sizeof e};
  pthread_t other;
  must(submit(m, NULL, PROMPT, SIXTY, 0, &job));
  check("load, infer and stream",
        finish(job, text, &pieces) == VIV_OK && pieces > 10 && !strcmp(text, expected));
  must(submit(m, NULL, PROMPT, ENDLESS, 0, &job));
  viv_next_event(job, -1, &e);
  pthread_create(&other, NULL, cancel, job);
  pthread_join(other, NULL);
  check("cancel midway, from another thread", finish(job, text, NULL) == VIV_CANCELLED);
  must(submit(m, NULL, PROMPT, ENDLESS, 0, &job));
  viv_next_event(job, -1, &e);
  viv_job_free(job);
  check("a job that is freed is cancelled", 1);
  check("deadline", say(m, NULL, PROMPT, ENDLESS, 5, text) == VIV_DEADLINE);
  check("bad input names the place",
        say(m, NULL, "x", "{\"top_p\": 7}", 0, text) == VIV_BAD_INPUT &&
            strstr(failure.where, "top_p"));
  tell("bad input", failure.where, failure.message);
}

static void tensors(viv_model *m, viv_model *null, const char *expected) {
  static float x[FLOATS];
  char text[4096];
  viv_job *both = NULL;
  viv_event e = {.struct_size = sizeof e};
  for (int i = 0; i < FLOATS; i++) x[i] = (float)i;
  must(submit(m, NULL, PROMPT, SIXTY, 0, &both));
  viv_job *job = floats(null, x, FLOATS);
  check("a tensor in and out, seen where it lies",
        viv_next_event(job, -1, &e) == VIV_OK && e.kind == VIV_KIND_TENSOR &&
            e.tensor->bytes == sizeof x && !memcmp(e.tensor->data, x, sizeof x));
  struct DLManagedTensor *kept = NULL, *more = NULL;
  must(viv_keep_tensor(job, &kept, fresh()));
  must(viv_share_tensor(kept, &more, fresh()));
  viv_job_free(job);
  check("a tensor that is kept outlives its job", seen_as(kept, x) && seen_as(more, x));
  check("two models at once", finish(both, text, NULL) == VIV_OK && !strcmp(text, expected));
}

static void sessions(viv_model *m, const char *folder) {
  char path[512], text[4096], third[4096], again[4096];
  viv_session *s = NULL, *resumed = NULL;
  snprintf(path, sizeof path, "%s/c.session", folder);
  must(viv_session_open(m, &s, fresh()));
  must(say(m, s, PROMPT, TWENTY, 0, text));
  check("a session goes on", say(m, s, " Then", TWENTY, 0, text) == VIV_OK && *text);
  must(viv_session_save(s, path, fresh()));
  must(say(m, s, " And", TWENTY, 0, third));
  must(viv_session_resume(m, path, &resumed, fresh()));
  must(say(m, resumed, " And", TWENTY, 0, again));
  check("a session is saved and resumed", !strcmp(third, again) && *third);
  viv_session_close(resumed);
  viv_session_close(s);
}

int main(int argc, char **argv) {
  char expected[4096];
  viv_runtime *here = NULL, *rt = NULL;
  viv_model *mine = NULL, *m = NULL, *null = NULL, *gone = NULL;
  int32_t *ids = NULL;
  uint64_t n = 0;
  viv_text text = {0};
  if (argc < 4) return 2;
  must(viv_open(NULL, &here, fresh()));
  must(viv_load(here, argv[1], NULL, &mine, fresh()));
  must(say(mine, NULL, PROMPT, SIXTY, 0, expected));
  tell("said", "", expected);
  if (argc > 4) where = "daemon";
  must(argc > 4 ? viv_connect(argv[4], &rt, fresh()) : viv_open(NULL, &rt, fresh()));
  must(viv_load(rt, argv[1], NULL, &m, fresh()));
  must(viv_load(rt, argv[2], NULL, &null, fresh()));
  jobs(m, expected);
  check("a model that is not there",
        viv_load(rt, "/nowhere/at/all", NULL, &gone, fresh()) == VIV_NEVER &&
            strstr(failure.where, "/nowhere/at/all"));
  tell("absent", failure.where, failure.message);
  tensors(m, null, expected);
  sessions(m, argv[3]);
  must(viv_tokenize(m, "a little dog", 12, 1, &ids, &n, fresh()));
  must(viv_detokenize(m, ids, n, 1, &text, fresh()));
  check("tokens there and back", strstr(text.ptr, "little dog") != NULL);
  viv_ids_free(ids);
  viv_text_free(&text);
  must(viv_describe(m, &text, fresh()));
  check("describe", strstr(text.ptr, "generate") != NULL);
  viv_text_free(&text);
  null_jobs(null, 300);
  long before = resident();
  int files = descriptors();
  null_jobs(null, 1000);
#ifdef __SANITIZE_ADDRESS__
  before = resident(); /* what was freed is kept by the sanitizer, which tells leaks at the end */
#endif
  check("no leak over 1,000 jobs", resident() - before < 2 << 20 && descriptors() <= files);
  viv_close(rt);
  viv_close(here);
  return 0;
}
