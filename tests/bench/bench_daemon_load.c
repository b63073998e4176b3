/* What the daemon holds under load and accidents: bench_daemon_load [ROW...]. Each row prints what was
 * measured beside its goal. A promise that is broken (a job without its one end, a wrong result, a leak) ends
 * the program with status 1; a time never does. VIV_BENCH_SCALE multiplies the sizes: 1 takes a minute, 10
 * are the sizes of the goals. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/internal.h"
#include "vivd_bench.h"

#define STORIES "tests/models/stories260K"
enum { PICTURE = 3 * 224 * 224, THREADS_MOST = 256 };

static int scale = 1;
static _Atomic int broken;
static char last_error[800]; /* of a job, for whoever looks why it failed */
static const char *build = "build";
/* 256 connections with four jobs each wait at most. */
static const char config[] = "{\"max_queue\": 1024}";
static char null_model[64], endless_model[64];
static pid_t vivd;
static float picture[PICTURE];

static void wrong(const char *what) {
  if (broken++ < 20) fprintf(stderr, "BROKEN: %s\n", what);
}

/* ---- figures ---- */

typedef struct series {
  pthread_mutex_t lock;
  double *at;
  size_t n, cap;
} series;

static void add(series *s, double value) {
  pthread_mutex_lock(&s->lock);
  if (s->n == s->cap) {
    s->cap = s->cap ? s->cap * 2 : 1024;
    s->at = realloc(s->at, s->cap * sizeof *s->at);
  }
  s->at[s->n++] = value;
  pthread_mutex_unlock(&s->lock);
}

static double part(series *s, double p) {
  if (!s->n) return 0;
  qsort(s->at, s->n, sizeof *s->at, by_value);
  size_t i = (size_t)(p * (double)s->n);
  return s->at[i < s->n ? i : s->n - 1];
}

static void clear(series *s) {
  free(s->at);
  *s = (series){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static double now_ms(void) {
  return (double)viv__now_ns() / 1e6;
}

typedef struct footprint {
  long rss_kb, maps, threads, files;
} footprint;

static long count_lines(const char *path) {
  FILE *f = fopen(path, "r");
  long n = 0;
  for (int c; f && (c = fgetc(f)) != EOF;) n += c == '\n';
  if (f) fclose(f);
  return n;
}

static footprint look(pid_t pid) {
  char path[64], line[256];
  footprint p = {0};
  snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
  p.maps = count_lines(path);
  snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) {
    sscanf(line, "VmRSS: %ld", &p.rss_kb);
    sscanf(line, "Threads: %ld", &p.threads);
  }
  if (f) fclose(f);
  snprintf(path, sizeof path, "ls /proc/%d/fd | wc -l", (int)pid);
  f = popen(path, "r");
  if (f && fscanf(f, "%ld", &p.files) != 1) p.files = -1;
  if (f) pclose(f);
  return p;
}

/* A member of a model in `ps`, found by its path. */
static double of_model(viv_runtime *rt, const char *path, const char *field, char state[16]) {
  viv_text text = {0};
  viv_json *json = NULL;
  double v = -1;
  if (viv__remote_call(rt, 0, "ps", NULL, &text, NULL) < 0) return -1;
  viv__json_parse(text.ptr, text.len, "ps", &json, NULL);
  const viv_json *models = viv__json_get(json, "models");
  for (int64_t i = 0; i < viv__json_count(models); i++) {
    const viv_json *m = viv__json_item(models, i);
    if (strcmp(viv__json_text(m, "path", ""), path)) continue;
    v = viv__json_num(m, field, -1);
    if (state) snprintf(state, 16, "%s", viv__json_text(m, "state", ""));
  }
  viv__json_free(json);
  viv_text_free(&text);
  return v;
}

/* ---- jobs that are watched ---- */

/* Reads a job to its end, at most `most` events (then it is cancelled). Answers the END's status; anything but
 * numbered events and one END is broken. */
static int32_t read_all(viv_job *job, int most, const float *x, int64_t floats) {
  viv_event e = {.struct_size = sizeof e};
  uint64_t seq = 0;
  int32_t end = VIV_BUG;
  int ends = 0, status;
  while ((status = viv_next_event(job, 60000, &e)) == VIV_OK) {
    if (e.seq != seq++) wrong("an event with a wrong number");
    if (e.flags & VIV_EVENT_FINAL) {
      ends++;
      end = e.status;
      if (e.error) snprintf(last_error, sizeof last_error, "%s", e.error->message);
    } else if (x && (e.kind != VIV_KIND_TENSOR || e.tensor->bytes != (uint64_t)floats * 4 ||
                     memcmp(e.tensor->data, x, e.tensor->bytes))) {
      wrong("a wrong result");
    }
    if (most && (int)seq == most) viv_job_cancel(job);
  }
  if (status != VIV_DONE || ends != 1) wrong("a job without its one end");
  viv_job_free(job);
  return end;
}

static viv_job *say(viv_model *m, const char *params) {
  viv_job *job = NULL;
  return viv_submit_text(m, "Lily saw a", params, &job, NULL) < 0 ? NULL : job;
}

static void text_of(viv_job *job, char out[4096], int32_t *status) {
  viv_event e = {.struct_size = sizeof e};
  size_t n = 0;
  *status = VIV_BUG;
  while (job && viv_next_event(job, 60000, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TEXT && n + e.bytes.len < 4096) {
      memcpy(out + n, e.bytes.ptr, e.bytes.len);
      n += e.bytes.len;
    }
    if (e.flags & VIV_EVENT_FINAL) *status = e.status;
  }
  out[n] = 0;
  viv_job_free(job);
}

static void on_threads(int n, void *(*run)(void *)) {
  pthread_t threads[THREADS_MOST];
  for (intptr_t i = 0; i < n; i++) pthread_create(&threads[i], NULL, run, (void *)i);
  for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* ---- mixed jobs with cancels and disconnects ---- */

static _Atomic long n_jobs, n_cancelled, n_lost;
static int jobs_each;

static void *mixed(void *context) {
  unsigned seed = 1 + (unsigned)(intptr_t)context;
  viv_runtime *rt = dial();
  viv_model *null = load(rt, null_model), *endless = load(rt, endless_model);
  for (int i = 0; i < jobs_each;) {
    viv_job *jobs[4];
    int64_t floats[4];
    int kinds[4], n = 1 + rand_r(&seed) % 4, cut = !(rand_r(&seed) % 50);
    for (int k = 0; k < n; k++, i++) {
      kinds[k] = rand_r(&seed) % 10;
      floats[k] = kinds[k] == 1 ? PICTURE : 1 + rand_r(&seed) % 1000;
      jobs[k] = submit_floats(kinds[k] ? null : endless, picture, floats[k], false);
      if (!jobs[k]) wrong("a job was not taken");
      if (kinds[k] == 2 && jobs[k]) viv_job_cancel(jobs[k]);
    }
    if (cut) shutdown(rt->remote->link.fd, SHUT_RDWR);
    for (int k = 0; k < n; k++) {
      if (!jobs[k]) continue;
      int32_t status = kinds[k] ? read_all(jobs[k], 0, picture, floats[k])
                                : read_all(jobs[k], 1 + rand_r(&seed) % 30, NULL, 0);
      n_jobs++;
      n_cancelled += status == VIV_CANCELLED;
      n_lost += cut && status == VIV_NOT_NOW;
      if (!cut && status < 0 && status != VIV_CANCELLED) wrong(last_error);
    }
    if (!cut) continue;
    viv_close(rt);
    rt = dial();
    null = load(rt, null_model);
    endless = load(rt, endless_model);
  }
  viv_close(rt);
  return NULL;
}

static void row_mixed(void) {
  int threads = scale >= 10 ? 256 : 64;
  jobs_each = scale >= 10 ? 10000 * scale / threads : 8000 * scale / threads;
  double begun = now_ms();
  on_threads(threads, mixed);
  printf("mixed     %d connections, %ld jobs, %ld cancelled, %ld of cut connections: one end each, "
         "results "
         "equal: %s (%.0f jobs/s)\n",
         threads, n_jobs, n_cancelled, n_lost, broken ? "NO" : "yes",
         (double)n_jobs / (now_ms() - begun) * 1000);
}

/* ---- cancels at random points ---- */

static void row_cancels(void) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, STORIES);
  series late = {.lock = PTHREAD_MUTEX_INITIALIZER};
  char alone[4096], beside[4096];
  int32_t status;
  int n = 100 * scale, different = 0;
  unsigned seed = 7;
  text_of(say(m, "{\"max_new_tokens\": 60}"), alone, &status);
  for (int i = 0; i < n; i++) {
    viv_job *neighbour = say(m, "{\"max_new_tokens\": 60}");
    viv_job *job = say(m, "{\"max_new_tokens\": 100000, \"ignore_eos\": true}");
    viv_event e = {.struct_size = sizeof e};
    for (int k = rand_r(&seed) % 20; k > 0; k--) viv_next_event(job, 60000, &e);
    double begun = now_ms();
    viv_job_cancel(job);
    while (viv_next_event(job, 60000, &e) == VIV_OK)
      if (e.flags & VIV_EVENT_FINAL && e.status != VIV_CANCELLED) wrong("a cancelled job's status");
    add(&late, now_ms() - begun);
    viv_job_free(job);
    text_of(neighbour, beside, &status);
    different += status != VIV_OK || strcmp(alone, beside) != 0;
  }
  if (different) wrong("a neighbour of a cancelled job");
  printf("cancels   %d: ended after %.2f ms p50, %.2f p99, %.2f most (goal 50); neighbours that "
         "differ: %d\n",
         n, part(&late, 0.5), part(&late, 0.99), part(&late, 1), different);
  clear(&late);
  viv_close(rt);
}

/* ---- load, infer, unload ---- */

static void row_cycles(void) {
  viv_runtime *rt = dial();
  char params[160], state[16] = "";
  int n = 100 * scale;
  footprint early = {0}, end;
  snprintf(params, sizeof params, "{\"model\": \"%s\"}", null_model);
  for (int i = 0; i < n; i++) {
    viv_model *m = load(rt, null_model);
    if (read_all(submit_floats(m, picture, 10, false), 0, picture, 10) < 0) wrong("a job failed");
    viv_unload(m);
    viv__remote_call(rt, 0, "unload", params, NULL, NULL);
    for (int k = 0; k < 5000 && strcmp(state, "unloaded"); k++) {
      of_model(rt, null_model, "pid", state);
      if (strcmp(state, "unloaded")) pause_ms(1);
    }
    *state = 0;
    if (i == 9) early = look(vivd);
  }
  end = look(vivd);
  if (end.rss_kb - early.rss_kb > 2048 || end.files != early.files || end.threads != early.threads)
    wrong("load and unload leak");
  printf(
      "cycles    %d: after the 10th and at the end %ld and %ld KiB (goal: 2048 more), %ld and %ld "
      "descriptors, %ld and %ld maps, %ld and %ld threads\n",
      n, early.rss_kb, end.rss_kb, early.files, end.files, early.maps, end.maps, early.threads,
      end.threads);
  viv_close(rt);
}

/* ---- reloads under load ---- */

static _Atomic bool stop_load, in_reload;
static series steady = {.lock = PTHREAD_MUTEX_INITIALIZER},
              disturbed = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Atomic long failed_jobs, good_jobs;

static void *null_load(void *context) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, null_model);
  (void)context;
  while (!stop_load) {
    double begun = now_ms();
    bool reloading = in_reload;
    viv_job *job = submit_floats(m, picture, 10, false);
    if (!job || read_all(job, 0, picture, 10) < 0) failed_jobs++;
    good_jobs++;
    add(reloading ? &disturbed : &steady, now_ms() - begun);
    pause_ms(1);
  }
  viv_close(rt);
  return NULL;
}

static void row_reload(void) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, null_model);
  pthread_t threads[2];
  char params[160], state[16];
  int n = scale >= 10 ? 100 : 20, done = 0;
  stop_load = false;
  failed_jobs = good_jobs = 0;
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, null_load, NULL);
  snprintf(params, sizeof params, "{\"model\": \"%s\"}", null_model);
  pause_ms(2000);
  for (int i = 0; i < n; i++) {
    double before = of_model(rt, null_model, "pid", state), pid = before;
    in_reload = true;
    if (viv__remote_call(rt, 0, "reload", params, NULL, NULL) < 0) continue;
    for (int k = 0; k < 10000 && pid == before; k++) {
      pause_ms(2);
      pid = of_model(rt, null_model, "pid", state);
    }
    done += pid != before;
    in_reload = false;
    pause_ms(50);
  }
  stop_load = true;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  if (failed_jobs || done != n) wrong("a reload cost a job, or did not happen");
  printf("reload    %d of %d under load, %ld jobs, %ld failed; p50 %.3f and %.3f ms, p99 %.3f and "
         "%.3f ms steady "
         "and while reloading: %.2f times (goal 2)\n",
         done, n, good_jobs, failed_jobs, part(&steady, 0.5), part(&disturbed, 0.5),
         part(&steady, 0.99), part(&disturbed, 0.99), part(&disturbed, 0.99) / part(&steady, 0.99));
  clear(&steady);
  clear(&disturbed);
  (void)m;
  viv_close(rt);
}

/* ---- kills ---- */

static _Atomic long other_failed, other_jobs;

static void *beside_load(void *context) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, context);
  while (!stop_load) {
    viv_job *job = say(m, "{\"max_new_tokens\": 5}");
    viv_event e = {.struct_size = sizeof e};
    int32_t status = VIV_BUG;
    while (job && viv_next_event(job, 60000, &e) == VIV_OK)
      if (e.flags & VIV_EVENT_FINAL) status = e.status;
    viv_job_free(job);
    other_failed += status != VIV_OK;
    other_jobs++;
  }
  viv_close(rt);
  return NULL;
}

static void row_workers(void) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, null_model);
  pthread_t other;
  series back = {.lock = PTHREAD_MUTEX_INITIALIZER};
  int n = scale >= 10 ? 100 : 15, told = 0;
  unsigned seed = 3;
  stop_load = false;
  other_failed = other_jobs = 0;
  pthread_create(&other, NULL, beside_load, (void *)(uintptr_t)STORIES);
  for (int i = 0; i < n; i++) {
    /* A job that was done clears the count that leads to quarantine. */
    if (read_all(submit_floats(m, picture, 10, false), 0, picture, 10) < 0) wrong("a job failed");
    double pid = of_model(rt, null_model, "pid", NULL);
    viv_job *jobs[8];
    for (int k = 0; k < 8; k++) jobs[k] = submit_floats(m, picture, PICTURE, false);
    usleep((useconds_t)(rand_r(&seed) % 2000));
    kill((pid_t)pid, SIGKILL);
    double begun = now_ms();
    for (int k = 0; k < 8; k++)
      told += jobs[k] && read_all(jobs[k], 0, picture, PICTURE) == VIV_BUG;
    while (read_all(submit_floats(m, picture, 10, false), 0, picture, 10) < 0) pause_ms(1);
    add(&back, now_ms() - begun);
  }
  stop_load = true;
  pthread_join(other, NULL);
  if (other_failed) wrong("another model's job failed");
  printf("workers   %d killed: %d running jobs told, others kept; back after %.0f ms p50, %.0f "
         "most (goal 1000 + "
         "load); %ld jobs of another model, %ld failed\n",
         n, told, part(&back, 0.5), part(&back, 1), other_jobs, other_failed);
  clear(&back);
  viv_close(rt);
}

static void row_daemons(void) {
  series back = {.lock = PTHREAD_MUTEX_INITIALIZER};
  int n = scale >= 10 ? 100 : 10;
  unsigned seed = 5;
  for (int i = 0; i < n; i++) {
    viv_runtime *rt = dial();
    viv_model *m = load(rt, null_model);
    viv_job *jobs[8];
    for (int k = 0; k < 8; k++) jobs[k] = submit_floats(m, picture, PICTURE, false);
    usleep((useconds_t)(rand_r(&seed) % 2000));
    kill(vivd, SIGKILL);
    waitpid(vivd, NULL, 0);
    for (int k = 0; k < 8; k++)
      if (jobs[k]) read_all(jobs[k], 0, picture, PICTURE);
    viv_close(rt);
    double begun = now_ms();
    vivd = start_vivd(build, config);
    rt = dial();
    if (read_all(submit_floats(load(rt, null_model), picture, 10, false), 0, picture, 10) < 0)
      wrong("a job failed after a restart");
    add(&back, now_ms() - begun);
    viv_close(rt);
  }
  printf("daemons   %d killed: each job had its one end; socket and model back after %.0f ms p50, "
         "%.0f most "
         "(goal 1000 + load)\n",
         n, part(&back, 0.5), part(&back, 1));
  clear(&back);
}

/* ---- overload ---- */

static int ahead;
static series refusals = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Atomic long n_refused, n_without_time;

/* Keeps `ahead` jobs under way; a refused one is tried again after a while. */
static void *push(void *context) {
  viv_runtime *rt = dial();
  viv_model *m = load(rt, STORIES);
  viv_job *jobs[64] = {NULL};
  double begun[64] = {0}, again[64] = {0};
  (void)context;
  while (!stop_load) {
    struct pollfd fds[64];
    int n = 0;
    for (int k = 0; k < ahead; k++) {
      if (!jobs[k] && now_ms() >= again[k]) {
        begun[k] = now_ms();
        jobs[k] = say(m, "{\"max_new_tokens\": 20, \"ignore_eos\": true}");
      }
      viv_event e = {.struct_size = sizeof e};
      while (jobs[k] && viv_next_event(jobs[k], 0, &e) == VIV_OK) {
        if (!(e.flags & VIV_EVENT_FINAL)) continue;
        if (e.status == VIV_OK) {
          good_jobs++;
        } else if (e.status == VIV_NOT_NOW) {
          const char *after = e.error ? strstr(e.error->message, "retry after ") : NULL;
          n_refused++;
          n_without_time += !after;
          add(&refusals, now_ms() - begun[k]);
          again[k] = now_ms() + (after ? atof(after + 12) : 10);
        }
        viv_job_free(jobs[k]);
        jobs[k] = NULL;
      }
      if (jobs[k]) fds[n++] = (struct pollfd){.fd = viv_job_fd(jobs[k]), .events = POLLIN};
    }
    poll(fds, (nfds_t)n, n ? 20 : 5);
  }
  for (int k = 0; k < ahead; k++) viv_job_free(jobs[k]);
  viv_close(rt);
  return NULL;
}

static double rate_of(int threads, int each, int ms) {
  pthread_t t[16];
  stop_load = false;
  ahead = each;
  for (int i = 0; i < threads; i++) pthread_create(&t[i], NULL, push, NULL);
  pause_ms(1000);
  good_jobs = n_refused = n_without_time = 0;
  double begun = now_ms();
  pause_ms(ms);
  double rate = (double)good_jobs / (now_ms() - begun) * 1000;
  stop_load = true;
  for (int i = 0; i < threads; i++) pthread_join(t[i], NULL);
  return rate;
}

static void row_overload(void) {
  kill(vivd, SIGTERM);
  waitpid(vivd, NULL, 0);
  vivd = start_vivd(build, "{\"max_queue\": 16}");
  viv_runtime *rt = dial();
  load(rt, STORIES);
  int ms = scale >= 10 ? 20000 : 4000;
  double peak = rate_of(4, 8, ms); /* 16 run and 16 wait: just what fits */
  clear(&refusals);
  footprint before = look(vivd);
  double over = rate_of(4, 32, ms);
  footprint after = look(vivd);
  if (n_without_time) wrong("a refusal without a time");
  printf("overload  at 4 times: %.0f of %.0f jobs/s, %.0f %% (goal 90); %ld refused after %.2f ms "
         "p50, %.2f p99 "
         "(goal 5), all with a time; memory %ld and %ld KiB\n",
         over, peak, over / peak * 100, n_refused, part(&refusals, 0.5), part(&refusals, 0.99),
         before.rss_kb, after.rss_kb);
  clear(&refusals);
  viv_close(rt);
  kill(vivd, SIGTERM);
  waitpid(vivd, NULL, 0);
  vivd = start_vivd(build, config);
}

/* ---- silent connections ---- */

static double p99_of_null_jobs(viv_model *m, int n, double *p50) {
  series s = {.lock = PTHREAD_MUTEX_INITIALIZER};
  for (int i = 0; i < n; i++) {
    double begun = now_ms();
    if (read_all(submit_floats(m, picture, 10, false), 0, picture, 10) < 0) wrong("a job failed");
    add(&s, now_ms() - begun);
  }
  *p50 = part(&s, 0.5);
  double p99 = part(&s, 0.99);
  clear(&s);
  return p99;
}

static void row_silent(void) {
  enum { SILENT = 1000 };
  static int fds[SILENT];
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  viv_runtime *rt = dial();
  viv_model *m = load(rt, null_model);
  double p50[2], p99[2], sum50[2] = {0}, sum99[2] = {0};
  int rounds = 4, n = 500 * scale;
  memcpy(name.sun_path, socket_path, strlen(socket_path));
  for (int round = 0; round < rounds; round++) {
    p99[0] = p99_of_null_jobs(m, n, &p50[0]);
    for (int i = 0; i < SILENT; i++) {
      fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
      if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)&name, sizeof name))
        wrong("a connection was refused");
      else if (i % 2 && send(fds[i], "VIV1\1\0\1\0", 8, MSG_NOSIGNAL) != 8) /* half a frame */
        wrong("a connection was closed");
    }
    p99[1] = p99_of_null_jobs(m, n, &p50[1]);
    for (int i = 0; i < SILENT; i++) close(fds[i]);
    for (int k = 0; k < 2; k++) sum50[k] += p50[k], sum99[k] += p99[k];
    pause_ms(100);
  }
  printf("silent    1000 connections: null job p50 %.3f and %.3f ms, p99 %.3f and %.3f ms without "
         "and with them: "
         "%+.0f %% (goal +10)\n",
         sum50[0] / rounds, sum50[1] / rounds, sum99[0] / rounds, sum99[1] / rounds,
         (sum99[1] / sum99[0] - 1) * 100);
  viv_close(rt);
}

static const struct {
  const char *name;
  void (*run)(void);
} rows[] = {{"mixed", row_mixed},       {"cancels", row_cancels}, {"cycles", row_cycles},
            {"reload", row_reload},     {"workers", row_workers}, {"daemons", row_daemons},
            {"overload", row_overload}, {"silent", row_silent}};

int main(int argc, char **argv) {
  const char *given = getenv("VIV_TEST_BUILD"), *factor = getenv("VIV_BENCH_SCALE");
  if (given) build = given;
  if (factor && atoi(factor) > 0) scale = atoi(factor);
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 0; i < PICTURE; i++) picture[i] = (float)i;
  make_folder();
  model_dir(null_model, "good");
  model_dir(endless_model, "endless-events");
  vivd = start_vivd(build, config);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    bool wanted = argc < 2;
    for (int k = 1; k < argc; k++) wanted = wanted || !strcmp(argv[k], rows[i].name);
    if (wanted) rows[i].run();
  }
  finish(vivd);
  return broken != 0;
}
