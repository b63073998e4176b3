/* Loaded before vivd's libraries: the call FAULT (malloc, read, ...) fails for the FAULT_N-th time that it is
 * made after the process's first recvmsg, in the daemon or, with FAULT_IN=worker, in its first worker, which
 * makes the file FAULT_ONCE. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static atomic_int armed, count;
static const char *which;
static int at;

__attribute__((constructor)) static void begin(void) {
  char line[4096] = "";
  const char *call = getenv("FAULT"), *side = getenv("FAULT_IN"), *n = getenv("FAULT_N");
  int fd = open("/proc/self/cmdline", O_RDONLY);
  ssize_t len = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
  if (fd >= 0) close(fd);
  /* The second argument, after the first one's end. */
  const char *second = len > 0 ? line + strlen(line) + 1 : line;
  int is_worker = !strcmp(second, "--worker"), wants_worker = side && !strcmp(side, "worker");
  if (!call || !n || is_worker != wants_worker) return;
  const char *once = getenv("FAULT_ONCE");
  fd = is_worker && once ? open(once, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
  if (fd >= 0) close(fd);
  if (is_worker && fd < 0) return;
  at = atoi(n);
  which = call;
}

static int fails(const char *call, int error) {
  if (!which || !atomic_load(&armed) || strcmp(which, call)) return 0;
  if (atomic_fetch_add(&count, 1) + 1 != at) return 0;
  errno = error;
  return 1;
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
  return fails("write", ENOSPC) ? -1 : next(fd, data, n);
}

int socketpair(int domain, int type, int protocol, int ends[2]) {
  NEXT(socketpair);
  return fails("socketpair", EMFILE) ? -1 : next(domain, type, protocol, ends);
}

int pipe2(int ends[2], int flags) {
  NEXT(pipe2);
  return fails("pipe2", EMFILE) ? -1 : next(ends, flags);
}
