/* The host that plugins meet in a test: its services are the library's own, wrapped in checks of
 * who calls them, when, and with what. */
#include <dirent.h>
#include <errno.h>
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "tasks/sampler.h"
#include "validate/validate.h"

extern char **environ;

/* One test per process, and several of the ABI's services carry no context: hence these. */
static struct context *the;
static const viv_compute *compute;
static int host_flags;
static int32_t role; /* enum viv_thread while a call into the plugin runs, else 0 */
static pthread_t caller;
static long arena_count, arena_fail_at;
static bool watching = true;

/* ---- arenas with canaries ---- */

enum { GUARD = 64, CANARY = 0xC7 };

static struct block {
  viv_arena *arena;
  unsigned char *at; /* what the plugin got; GUARD bytes stand before it and after its end */
  uint64_t bytes;
} * blocks;
static size_t n_blocks, cap_blocks;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;

static bool here(const char *service) {
  if (role && pthread_equal(caller, pthread_self())) return true;
  viv__v_fail(the, "called %s from a thread that the host did not call it on", service);
  return false;
}

static void *arena_alloc(viv_arena *arena, uint64_t bytes) {
  here("arena_alloc");
  pthread_mutex_lock(&blocks_lock);
  bool refuse = ++arena_count == arena_fail_at;
  pthread_mutex_unlock(&blocks_lock);
  if (!arena) viv__v_fail(the, "called arena_alloc with a NULL arena");
  if (refuse || !arena || bytes > (uint64_t)1 << 46) return NULL;
  unsigned char *p = viv__arena_alloc(arena, bytes + 2 * GUARD);
  if (!p) return NULL;
  memset(p, CANARY, GUARD);
  memset(p + GUARD + bytes, CANARY, GUARD);
  pthread_mutex_lock(&blocks_lock);
  if (n_blocks == cap_blocks) {
    cap_blocks = cap_blocks ? 2 * cap_blocks : 256;
    blocks = realloc(blocks, cap_blocks * sizeof *blocks);
    if (!blocks) abort();
  }
  blocks[n_blocks++] = (struct block){arena, p + GUARD, bytes};
  pthread_mutex_unlock(&blocks_lock);
  return p + GUARD;
}

static bool intact(const unsigned char *p) {
  for (int i = 0; i < GUARD; i++)
    if (p[i] != CANARY) return false;
  return true;
}

static void check_canaries(void) {
  pthread_mutex_lock(&blocks_lock);
  for (size_t i = 0; i < n_blocks; i++) {
    bool before = intact(blocks[i].at - GUARD), after = intact(blocks[i].at + blocks[i].bytes);
    if (before && after) continue;
    viv__v_fail(the, "wrote %s the %llu bytes that arena_alloc gave it",
                before ? "past the end of" : "before the start of",
                (unsigned long long)blocks[i].bytes);
  }
  pthread_mutex_unlock(&blocks_lock);
}

static void forget(viv_arena *arena) {
  size_t kept = 0;
  check_canaries();
  for (size_t i = 0; i < n_blocks; i++)
    if (blocks[i].arena != arena) blocks[kept++] = blocks[i];
  n_blocks = kept;
}

void viv__v_arena_free(struct context *c, viv_arena *arena) {
  (void)c;
  if (!arena) return;
  forget(arena);
  viv__arena_free(arena);
}

void viv__v_arena_reset(struct context *c, viv_arena *arena) {
  (void)c;
  forget(arena);
  viv__arena_reset(arena);
}

long viv__v_fail_arena(long k) {
  long made = arena_count;
  arena_count = 0;
  arena_fail_at = k;
  return made;
}

/* ---- services ---- */

static const void *get_extension(void *self, viv_str id) {
  if (self != the) viv__v_fail(the, "called get_extension without the host's self");
  if (host_flags & HOST_NO_EXTENSIONS) return NULL;
  if (viv__str_eq(id, VIV_COMPUTE_ID)) return compute;
  if (viv__str_eq(id, VIV_SAMPLER_ID)) return &viv__sampler_api;
  return NULL;
}

static void log_line(void *self, int32_t level, viv_str text) {
  if (self != the) viv__v_fail(the, "called log without the host's self");
  if (level < VIV_LOG_ERROR || level > VIV_LOG_DEBUG)
    viv__v_fail(the, "logged at the level %d, which does not exist", level);
  if (!viv__utf8_valid(text.ptr, text.len)) viv__v_fail(the, "logged text that is not UTF-8");
}

static int32_t thread_check(void *self, int32_t thread) {
  (void)self;
  return role == thread && pthread_equal(caller, pthread_self());
}

static bool loading(const char *service) {
  if (!here(service)) return false;
  if (role == VIV_THREAD_LOADER) return true;
  viv__v_fail(the, "called %s outside of plan and open", service);
  return false;
}

static int32_t tensor_find(const viv_checkpoint *checkpoint, viv_str name, viv_tensor *out) {
  return loading("tensor_find") ? viv__tensor_find(checkpoint, name, out) : VIV_BUG;
}

static int64_t tensor_count(const viv_checkpoint *checkpoint) {
  return loading("tensor_count") ? viv__tensor_count(checkpoint) : 0;
}

static int32_t tensor_at(const viv_checkpoint *checkpoint, int64_t index, viv_str *name,
                         viv_tensor *out) {
  return loading("tensor_at") ? viv__tensor_at(checkpoint, index, name, out) : VIV_BUG;
}

static const viv_json *checkpoint_file(const viv_checkpoint *checkpoint, viv_str name) {
  return loading("checkpoint_file") ? viv__checkpoint_file(checkpoint, name) : NULL;
}

static bool in_job(const viv_job *job, const char *service) {
  if (!here(service)) return false;
  if (role == VIV_THREAD_JOB && job && job->c == the) return true;
  viv__v_fail(the, "called %s outside of a job", service);
  return false;
}

static int32_t job_poll(viv_job *job) {
  if (!in_job(job, "job_poll")) return VIV_CANCELLED;
  job->n_polls++;
  return job->stop;
}

static uint64_t mix(uint64_t h, const void *data, size_t n) {
  const unsigned char *p = data;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h;
}

/* Answers NULL when the tensor is well formed, else what is wrong with it. */
static const char *bad_tensor(const viv_tensor *t, bool *nan_seen) {
  if (!t) return "the tensor is NULL";
  if (t->struct_size < VIV_V1_viv_tensor) return "the tensor's struct_size is too small";
  uint64_t bytes = viv__dtype_size(t->dtype);
  if (!bytes) return "the dtype does not exist";
  if (t->ndim < 0 || t->ndim > VIV_MAX_DIMS) return "the number of dimensions is impossible";
  for (int32_t i = 0; i < t->ndim; i++)
    if (t->shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes))
      return "the shape is impossible";
  if (bytes != t->bytes) return "bytes is not the product of the shape";
  if (bytes && !t->data) return "data is NULL";
  if (t->dtype == VIV_F32) {
    for (uint64_t i = 0; i < bytes; i += sizeof(float)) {
      float value;
      memcpy(&value, (const char *)t->data + i, sizeof value);
      if (!isfinite(value)) *nan_seen = true;
    }
  }
  return NULL;
}

static const char *bad_event(viv_job *job, const viv_event *e) {
  if (!e) return "the event is NULL";
  if (e->struct_size < VIV_V1_viv_event) return "struct_size is smaller than version 1's";
  if (e->kind == VIV_KIND_END) return "a plugin never emits END";
  if (e->kind < VIV_KIND_TENSOR || e->kind > VIV_KIND_PROGRESS || e->kind == VIV_KIND_STREAM)
    return "the kind does not exist";
  if (e->flags & ~(uint32_t)VIV_EVENT_TAP) return "flags other than TAP are set";
  if ((e->name.len && !e->name.ptr) || !viv__utf8_valid(e->name.ptr, e->name.len))
    return "the name is not UTF-8";
  if (!e->name.len && e->kind != VIV_KIND_PROGRESS) return "the event has no name";
  if (e->kind == VIV_KIND_TENSOR) return bad_tensor(e->tensor, &job->nan_seen);
  if (e->kind == VIV_KIND_PROGRESS)
    return e->progress >= 0 && e->progress <= 1 ? NULL : "progress is not between 0 and 1";
  if (e->bytes.len && !e->bytes.ptr) return "bytes is NULL";
  if (e->kind == VIV_KIND_TEXT && !viv__utf8_valid(e->bytes.ptr, e->bytes.len))
    return "the text is not UTF-8";
  if (e->kind == VIV_KIND_JSON) {
    viv_json *doc = NULL;
    if (viv__json_parse(e->bytes.ptr, e->bytes.len, "event", &doc, NULL) < 0)
      return "the bytes are no valid JSON";
    viv__json_free(doc);
  }
  return NULL;
}

static uint64_t hash_event(const viv_event *e) {
  uint64_t h = 0xcbf29ce484222325u;
  h = mix(h, &e->kind, sizeof e->kind);
  h = mix(h, e->name.ptr, e->name.len);
  h = mix(h, e->bytes.ptr, e->bytes.len);
  if (e->kind == VIV_KIND_TENSOR) h = mix(h, e->tensor->data, e->tensor->bytes);
  return h ? h : 1;
}

static int32_t job_emit(viv_job *job, const viv_event *event) {
  if (!in_job(job, "job_emit")) return VIV_BUG;
  const char *bad = bad_event(job, event);
  if (bad) {
    viv__v_fail(the, "emitted a bad event: %s", bad);
    return VIV_BUG;
  }
  if (job->stop) return job->stop;
  if (job->refused_hash) {
    if (hash_event(event) != job->refused_hash) job->repeated_wrong = true;
    job->refused_hash = 0;
  }
  if (job->wait_first > 0) {
    job->wait_first--;
    job->n_waits++;
    job->refused_hash = hash_event(event);
    return VIV_WAIT;
  }
  job->n_events++;
  return VIV_OK;
}

static int32_t job_wants_tap(viv_job *job, viv_str name) {
  (void)name;
  in_job(job, "job_wants_tap");
  return 0;
}

static viv_arena *job_arena(viv_job *job) {
  return in_job(job, "job_arena") ? job->arena : NULL;
}

static int32_t stream_read(viv_stream *stream, void *data, uint64_t capacity, uint64_t *bytes) {
  (void)stream;
  (void)data;
  (void)capacity;
  (void)bytes;
  viv__v_fail(the, "read from a stream that it was not given");
  return VIV_BUG;
}

/* ---- the table ---- */

static int32_t from_the_future(void) {
  return VIV_NEVER;
}

const viv_host *viv__v_host(struct context *c, int flags) {
  the = c;
  host_flags = flags;
  if (!compute) {
    viv_error error = VIV_ERROR_INIT;
    if (viv__compute_new(2, VIV__ISA_AUTO, &compute, &error) < 0) {
      fprintf(stderr, "viv-validate: %s\n", error.message);
      exit(2);
    }
  }
  viv_host host = {
      .struct_size = VIV_V1_viv_host,
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .abi_oldest_major = VIV_ABI_MAJOR,
      .self = c,
      .get_extension = get_extension,
      .log = log_line,
      .thread_check = thread_check,
      .arena_alloc = arena_alloc,
      .json_member = viv__json_member,
      .json_item = viv__json_item,
      .json_type = viv__json_type,
      .json_count = viv__json_count,
      .json_number = viv__json_number,
      .json_boolean = viv__json_boolean,
      .json_string = viv__json_string,
      .json_key = viv__json_key,
      .tensor_find = tensor_find,
      .tensor_count = tensor_count,
      .tensor_at = tensor_at,
      .checkpoint_file = checkpoint_file,
      .job_poll = job_poll,
      .job_emit = job_emit,
      .job_wants_tap = job_wants_tap,
      .job_arena = job_arena,
      .stream_read = stream_read,
  };
  size_t size = VIV_V1_viv_host, page = (size_t)sysconf(_SC_PAGESIZE);
  if (flags & HOST_NEWER) {
    host.abi_minor = 99;
    host.struct_size += 8 * sizeof(void *);
  }
  if (flags & HOST_OTHER_MAJOR) host.abi_major = host.abi_oldest_major = VIV_ABI_MAJOR + 1;
  char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE)) {
    fprintf(stderr, "viv-validate: no memory for a host table\n");
    exit(2);
  }
  size_t room = (flags & HOST_NEWER) ? 8 * sizeof(void *) : 0;
  char *at = pages + page - size - room;
  memcpy(at, &host, size);
  for (size_t i = 0; i < room / sizeof(void *); i++) {
    int32_t (*later)(void) = from_the_future;
    memcpy(at + size + i * sizeof later, &later, sizeof later);
  }
  return (const viv_host *)at;
}

/* ---- the state of the process ---- */

static struct state {
  uint64_t environment, locale, handlers, cwd;
  int rounding, descriptors, threads;
  unsigned control; /* of the floating-point unit, without the sticky flags */
  off_t printed[2];
} before_call;

static int count_entries(const char *folder) {
  DIR *dir = opendir(folder);
  int n = 0;
  if (!dir) return -1;
  for (struct dirent *e; (e = readdir(dir));) n++;
  closedir(dir);
  return n;
}

static void read_state(struct state *s) {
  memset(s, 0, sizeof *s);
  for (char **e = environ; e && *e; e++) s->environment = mix(s->environment, *e, strlen(*e) + 1);
  const char *locale = setlocale(LC_ALL, NULL);
  if (locale) s->locale = mix(1, locale, strlen(locale));
  for (int sig = 1; sig < 32; sig++) {
    struct sigaction action;
    if (sigaction(sig, NULL, &action)) continue;
    s->handlers = mix(s->handlers, &action.sa_handler, sizeof action.sa_handler);
    s->handlers = mix(s->handlers, &action.sa_flags, sizeof action.sa_flags);
  }
  sigset_t mask;
  if (!pthread_sigmask(SIG_SETMASK, NULL, &mask))
    for (int sig = 1; sig < 32; sig++)
      s->handlers = s->handlers * 3 + (uint64_t)sigismember(&mask, sig);
  char cwd[4096];
  if (getcwd(cwd, sizeof cwd)) s->cwd = mix(1, cwd, strlen(cwd));
  mode_t bits = umask(0);
  umask(bits);
  s->cwd = mix(s->cwd, &bits, sizeof bits);
  s->rounding = fegetround();
#if defined(__x86_64__)
  s->control = _mm_getcsr() & 0xffc0u;
#endif
  s->descriptors = count_entries("/proc/self/fd");
  s->threads = count_entries("/proc/self/task");
  for (int fd = 1; fd <= 2; fd++) {
    struct stat st;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode)) s->printed[fd - 1] = st.st_size;
  }
}

void viv__v_watch_state(bool on) {
  watching = on;
}

void viv__v_before(struct context *c, int32_t as, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(c->out->phase, sizeof c->out->phase, format, args);
  va_end(args);
  if (watching) read_state(&before_call);
  caller = pthread_self();
  role = as;
}

void viv__v_after(struct context *c) {
  role = 0;
  check_canaries();
  const char *what = c->out->phase;
  if (watching) {
    struct state now;
    read_state(&now);
    const struct state *was = &before_call;
    if (now.environment != was->environment) viv__v_fail(c, "%s changed the environment", what);
    if (now.locale != was->locale) viv__v_fail(c, "%s changed the locale", what);
    if (now.handlers != was->handlers) viv__v_fail(c, "%s changed a signal handler or mask", what);
    if (now.cwd != was->cwd) viv__v_fail(c, "%s changed the working folder or umask", what);
    if (now.rounding != was->rounding || now.control != was->control)
      viv__v_fail(c, "%s changed the floating-point state", what);
    if (now.descriptors != was->descriptors)
      viv__v_fail(c, "%s left %d file descriptors more", what, now.descriptors - was->descriptors);
    if (now.threads != was->threads)
      viv__v_fail(c, "%s left %d threads more", what, now.threads - was->threads);
    if (now.printed[0] != was->printed[0]) viv__v_fail(c, "%s wrote to standard output", what);
    if (now.printed[1] != was->printed[1]) viv__v_fail(c, "%s wrote to standard error", what);
  }
  snprintf(c->out->phase, sizeof c->out->phase, "the validator's own work");
}
