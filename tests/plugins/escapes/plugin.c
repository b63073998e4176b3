/* Tries to get out of a worker: y[i] is the errno of the i-th attempt, 0 where it succeeded. */
#define STEP bad_step
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common.h"

enum { ATTEMPTS = 9 };

static float attempt(int i) {
  char *const args[] = {(char *)(uintptr_t) "true", NULL};
  long answer = -1;
  errno = 0;
  switch (i) {
  case 0:
    answer = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    break;
  case 1:
    answer = open("/tmp/viv-escaped", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    break;
  case 2:
    answer = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    break;
  case 3:
    answer = socket(AF_INET, SOCK_STREAM, 0);
    break;
  case 4:
    answer = socket(AF_UNIX, SOCK_STREAM, 0);
    break;
  case 5:
    answer = execv("/bin/true", args);
    break;
  case 6:
    answer = kill(getppid(), 0);
    break;
  case 7:
    answer = ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    break;
  default:
    answer = unshare(CLONE_NEWUSER);
  }
  return answer < 0 ? (float)errno : 0;
}

static int32_t bad_step(viv_plugin_job *job, viv_error *error) {
  float y[ATTEMPTS];
  (void)error;
  for (int i = 0; i < ATTEMPTS; i++) y[i] = attempt(i);
  viv_tensor t = {.struct_size = sizeof t,
                  .data = y,
                  .bytes = sizeof y,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {ATTEMPTS}};
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = STR("y"), .tensor = &t};
  int32_t status = job->host->job_emit(job->job, &event);
  return status == VIV_OK ? VIV_DONE : status;
}

PLUGIN("escapes");
