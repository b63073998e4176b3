/* What a worker may do: read what it was given, compute, and talk on the descriptors it holds.
 *
 * Three layers, each of which is used as far as the kernel has it: no new privileges and limits (always),
 * Landlock (which files, no TCP, no signals to others), seccomp (which system calls; everything not
 * named answers EPERM, so that a library that tries something optional goes on without it). */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- limits ---- */

static bool limit(int what, rlim_t most) {
  struct rlimit l = {most, most};
  return !setrlimit(what, &l);
}

/* ---- Landlock ---- */

/* Newer kernels' rights, which Debian's header of this release does not name. */
#define FS_REFER (UINT64_C(1) << 13)
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define FS_IOCTL_DEV (UINT64_C(1) << 15)
#define NET_BIND_CONNECT UINT64_C(3)
#define SCOPE_ABSTRACT_SIGNAL UINT64_C(3)

struct ruleset { /* struct landlock_ruleset_attr as of ABI 6 */
  uint64_t fs, net, scoped;
};

static long landlock_abi(void) {
  return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static void allow(int rules, const char *path, uint64_t rights) {
  int fd = open(path, O_PATH | O_CLOEXEC);
  struct stat st;
  if (fd < 0) return; /* what is not there can't be read */
  if (!fstat(fd, &st) && !S_ISDIR(st.st_mode)) rights &= ~(uint64_t)LANDLOCK_ACCESS_FS_READ_DIR;
  struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
  syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  close(fd);
}

/* Answers the ABI that is in force, 0: none. */
static long enter_landlock(const char *const *readable) {
  static const char *const system[] = {"/usr/lib",
                                       "/lib",
                                       "/lib64",
                                       "/usr/local/lib",
                                       "/etc/ld.so.cache",
                                       "/proc/cpuinfo",
                                       "/proc/meminfo",
                                       "/proc/self",
                                       "/sys/devices/system",
                                       "/dev/urandom",
                                       NULL};
  const uint64_t read_only = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
  long abi = landlock_abi();
  if (abi < 1) return 0;
  struct ruleset set = {.fs = (UINT64_C(1) << 13) - 1};
  size_t size = sizeof set.fs;
  if (abi >= 2) set.fs |= FS_REFER;
  if (abi >= 3) set.fs |= FS_TRUNCATE;
  if (abi >= 5) set.fs |= FS_IOCTL_DEV;
  if (abi >= 4) {
    set.net = NET_BIND_CONNECT;
    size = 2 * sizeof set.fs;
  }
  if (abi >= 6) {
    set.scoped = SCOPE_ABSTRACT_SIGNAL;
    size = 3 * sizeof set.fs;
  }
  int rules = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);
  if (rules < 0) return 0;
  for (size_t i = 0; system[i]; i++) allow(rules, system[i], read_only);
  for (size_t i = 0; readable[i]; i++) allow(rules, readable[i], read_only);
  allow(rules, "/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
  bool in = !syscall(SYS_landlock_restrict_self, rules, 0);
  close(rules);
  return in ? abi : 0;
}

/* ---- seccomp ---- */

static const char *const calls[] = {"read",
                                    "write",
                                    "readv",
                                    "writev",
                                    "pread64",
                                    "pwrite64",
                                    "recvmsg",
                                    "sendmsg",
                                    "recvfrom",
                                    "sendto",
                                    "shutdown",
                                    "close",
                                    "close_range",
                                    "fstat",
                                    "newfstatat",
                                    "stat",
                                    "lstat",
                                    "statx",
                                    "lseek",
                                    "mmap",
                                    "mprotect",
                                    "munmap",
                                    "mremap",
                                    "madvise",
                                    "brk",
                                    "mincore",
                                    "membarrier",
                                    "rt_sigaction",
                                    "rt_sigprocmask",
                                    "rt_sigreturn",
                                    "rt_sigtimedwait",
                                    "sigaltstack",
                                    "restart_syscall",
                                    "access",
                                    "faccessat",
                                    "faccessat2",
                                    "readlink",
                                    "readlinkat",
                                    "openat",
                                    "open",
                                    "getdents64",
                                    "getcwd",
                                    "fcntl",
                                    "dup",
                                    "dup2",
                                    "dup3",
                                    "pipe",
                                    "pipe2",
                                    "eventfd2",
                                    "epoll_create1",
                                    "epoll_ctl",
                                    "epoll_wait",
                                    "epoll_pwait",
                                    "poll",
                                    "ppoll",
                                    "select",
                                    "pselect6",
                                    "futex",
                                    "futex_waitv",
                                    "set_robust_list",
                                    "get_robust_list",
                                    "rseq",
                                    "fork",
                                    "wait4",
                                    "waitid",
                                    "exit",
                                    "exit_group",
                                    "getpid",
                                    "gettid",
                                    "getppid",
                                    "getuid",
                                    "geteuid",
                                    "getgid",
                                    "getegid",
                                    "kill",
                                    "tgkill",
                                    "tkill",
                                    "sched_yield",
                                    "sched_getaffinity",
                                    "sched_setaffinity",
                                    "nanosleep",
                                    "clock_nanosleep",
                                    "clock_gettime",
                                    "clock_getres",
                                    "gettimeofday",
                                    "time",
                                    "times",
                                    "getrandom",
                                    "memfd_create",
                                    "ftruncate",
                                    "fadvise64",
                                    "readahead",
                                    "statfs",
                                    "fstatfs",
                                    "uname",
                                    "sysinfo",
                                    "getrusage",
                                    "getrlimit",
                                    "prlimit64",
                                    "set_tid_address",
                                    "arch_prctl",
                                    "getcpu",
                                    "getpriority",
                                    "alarm",
                                    "setitimer",
                                    "prctl",
                                    "get_mempolicy",
                                    "sched_getparam",
                                    "sched_getscheduler",
                                    "timerfd_create",
                                    "timerfd_settime",
                                    "getpgrp",
                                    "getsid"};

/* The flags of clone that make a new namespace of any kind. */
#define NAMESPACES UINT64_C(0x7e020080)

/* Answers the number of system calls that are left, 0: no filter is in force. */
static int enter_seccomp(void) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  int n = 1; /* clone */
  if (!filter) return 0;
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    int number = seccomp_syscall_resolve_name(calls[i]);
    if (number >= 0 && !seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0)) n++;
  }
  /* ioctl only asks what a descriptor is; clone3's flags can't be seen, so glibc falls back to clone. */
  int asks[] = {0x5401 /* TCGETS */, 0x541B /* FIONREAD */, 0x5421 /* FIONBIO */};
  for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
    seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                     SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)asks[i]));
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                   SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
  bool in = !seccomp_load(filter);
  seccomp_release(filter);
  return in ? n : 0;
}

/* ---- both ---- */

static char *tell(bool limits, long landlock, int system_calls, bool seccomp) {
  viv__buf b = {0};
  viv__buf_fmt(&b, "{\"no_new_privs\":%s,\"limits\":%s,\"landlock_abi\":%ld,", "true",
               limits ? "true" : "false", landlock);
  viv__buf_fmt(&b, "\"files\":\"%s\",\"network\":\"%s\",\"signals\":\"%s\",",
               landlock ? "read-only: the model, plugins, system libraries" : "not confined",
               seccomp         ? "none: socket() is refused"
               : landlock >= 4 ? "no TCP"
                               : "not confined",
               landlock >= 6 ? "own processes only" : "not confined");
  viv__buf_fmt(&b, "\"seccomp\":%s,\"system_calls\":%d}", seccomp ? "true" : "false", system_calls);
  return b.ptr;
}

char *sandbox_enter(const char *const *readable) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return NULL;
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  bool limits = limit(RLIMIT_CORE, 0);
  limits = limit(RLIMIT_NOFILE, 1024) && limits;
  limits = limit(RLIMIT_MEMLOCK, 0) && limits;
  limits = limit(RLIMIT_MSGQUEUE, 0) && limits;
  long landlock = enter_landlock(readable);
  int n = enter_seccomp();
  return tell(limits, landlock, n, n > 0);
}
