/* Loaded before the libraries of vivd or viv: calls that fail. Which process: FAULT_IN is daemon, worker (the
 * first one, which makes the file FAULT_ONCE) or client. Which call: FAULT (malloc, read, ...) or "all". When:
 *
 *   FAULT_N=5      the fifth time, counted from the process's first recvmsg
 *   FAULT_SITE=5   once, at the fifth place that makes it, counted from the process's beginning: a place is the
 *                  call and its callers, six deep
 *   FAULT_EVERY=5  every fifth time, from the first recvmsg
 *
 * The file FAULT_HIT tells that it happened, and where. What libuv and the C library do with descriptors of their
 * own is left out: no kernel fails those, and libuv ends the process by design. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

enum { DEPTH = 6, PLACES = 1 << 16 };
enum { NTH, SITE, EVERY };

static atomic_int armed, count;
static const char *which;
static int mode, at;
static uint64_t places[PLACES];
static int n_places;
static int told = -1; /* open from the beginning: a worker that is locked in opens nothing */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside;

static int number(const char *name, int as) {
  const char *n = getenv(name);
  if (!n) return 0;
  at = atoi(n);
  mode = as;
  return 1;
}

__attribute__((constructor)) static void begin(void) {
  char line[4096] = "";
  const char *call = getenv("FAULT"), *side = getenv("FAULT_IN");
  int fd = open("/proc/self/cmdline", O_RDONLY);
  ssize_t len = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
  if (fd >= 0) close(fd);
  /* The program's name, and the second argument, after the first one's end. */
  const char *slash = strrchr(line, '/'), *name = slash ? slash + 1 : line;
  const char *second = len > 0 ? line + strlen(line) + 1 : line;
  const char *role = strcmp(name, "vivd")         ? "client"
                     : strcmp(second, "--worker") ? "daemon"
                                                  : "worker";
  if (!call || strcmp(role, side ? side : "daemon")) return;
  if (!number("FAULT_N", NTH) && !number("FAULT_SITE", SITE) && !number("FAULT_EVERY", EVERY))
    return;
  int is_worker = !strcmp(role, "worker");
  const char *once = getenv("FAULT_ONCE");
  fd = is_worker && once ? open(once, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
  if (fd >= 0) close(fd);
  if (is_worker && fd < 0) return;
  const char *hit = getenv("FAULT_HIT");
  fd = hit ? open(hit, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600) : -1;
  told = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 700) : -1;
  if (fd >= 0) close(fd);
  void *first[2];
  inside = 1;
  backtrace(first, 2); /* what this loads, it loads now */
  inside = 0;
  which = call;
  if (mode == SITE) atomic_store(&armed, 1);
}

static void tell(const char *call, void *const *from, int n) {
  if (told < 0) return;
  dprintf(told, "%s\n", call);
  if (from) backtrace_symbols_fd(from, n, told);
}

/* Whether this place is the one, seen for the first time. */
static int is_site(const char *call) {
  void *from[DEPTH + 2];
  Dl_info lies = {0};
  int n = backtrace(from, DEPTH + 2);
  uint64_t hash = 1469598103934665603u;
  for (const char *c = call; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
  for (int i = 2; i < n; i++) {
    /* Where a library lies differs from run to run; places in it do not. */
    dladdr(from[i], &lies);
    hash = (hash ^ ((uintptr_t)from[i] - (uintptr_t)lies.dli_fbase)) * 1099511628211u;
  }
  if ((!strcmp(call, "read") || !strcmp(call, "write")) && n > 2 && dladdr(from[2], &lies) &&
      lies.dli_fname && (strstr(lies.dli_fname, "libuv") || strstr(lies.dli_fname, "libc.so")))
    return 0;
  pthread_mutex_lock(&lock);
  size_t slot = hash % PLACES;
  while (places[slot] && places[slot] != hash) slot = (slot + 1) % PLACES;
  int fresh = !places[slot] && n_places < PLACES / 2;
  places[slot] = hash;
  int hit = fresh && ++n_places == at;
  pthread_mutex_unlock(&lock);
  if (hit) tell(call, from + 2, n - 2);
  return hit;
}

static int fails(const char *call, int error) {
  if (!which || inside || !atomic_load(&armed)) return 0;
  if (strcmp(which, call) && strcmp(which, "all")) return 0;
  inside = 1;
  int hit = mode == SITE ? is_site(call)
                         : (mode == NTH ? atomic_fetch_add(&count, 1) + 1 == at
                                        : atomic_fetch_add(&count, 1) % at == at - 1);
  inside = 0;
  if (hit) errno = error;
  return hit;
}

void *malloc(size_t size) {
  return fails("malloc", ENOMEM) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
  return fails("calloc", ENOMEM) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size) {
  return fails("realloc", ENOMEM) ? NULL : __libc_realloc(p, size);
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t recvmsg(int fd, struct msghdr *msg, int flags) {
  NEXT(recvmsg);
  atomic_store(&armed, 1);
  return fails("recvmsg", ENOMEM) ? -1 : fails("recvmsg-eintr", EINTR) ? -1 : next(fd, msg, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags) {
  NEXT(sendmsg);
  return fails("sendmsg", ENOBUFS) ? -1 : fails("sendmsg-eintr", EINTR) ? -1 : next(fd, msg, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
  NEXT(accept4);
  return fails("accept4", EMFILE)        ? -1
         : fails("accept4-eintr", EINTR) ? -1
                                         : next(fd, address, len, flags);
}

void *mmap(void *address, size_t len, int prot, int flags, int fd, off_t offset) {
  NEXT(mmap);
  return fails("mmap", ENOMEM) ? MAP_FAILED : next(address, len, prot, flags, fd, offset);
}

int memfd_create(const char *name, unsigned flags) {
  NEXT(memfd_create);
  return fails("memfd_create", EMFILE) ? -1 : next(name, flags);
}

int ftruncate(int fd, off_t len) {
  NEXT(ftruncate);
  return fails("ftruncate", ENOSPC) ? -1 : next(fd, len);
}

ssize_t read(int fd, void *data, size_t n) {
  NEXT(read);
  return fails("read", EIO) ? -1 : fails("read-eintr", EINTR) ? -1 : next(fd, data, n);
}

ssize_t write(int fd, const void *data, size_t n) {
  NEXT(write);
  return fails("write", ENOSPC) ? -1 : fails("write-eintr", EINTR) ? -1 : next(fd, data, n);
}

int open(const char *path, int flags, ...) {
  NEXT(open);
  va_list rest;
  va_start(rest, flags);
  mode_t permissions = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return fails("open", EMFILE) ? -1 : next(path, flags, permissions);
}

int eventfd(unsigned value, int flags) {
  NEXT(eventfd);
  return fails("eventfd", EMFILE) ? -1 : next(value, flags);
}

int fcntl(int fd, int command, ...) {
  NEXT(fcntl);
  va_list rest;
  va_start(rest, command);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  return command == F_DUPFD_CLOEXEC && fails("dup", EMFILE) ? -1 : next(fd, command, argument);
}

int pthread_create(pthread_t *out, const pthread_attr_t *how, void *(*run)(void *), void *with) {
  NEXT(pthread_create);
  return fails("thread", EAGAIN) ? EAGAIN : next(out, how, run, with);
}

int socketpair(int domain, int type, int protocol, int ends[2]) {
  NEXT(socketpair);
  return fails("socketpair", EMFILE) ? -1 : next(domain, type, protocol, ends);
}

int pipe2(int ends[2], int flags) {
  NEXT(pipe2);
  return fails("pipe2", EMFILE) ? -1 : next(ends, flags);
}
