/* The three things that systemd and a daemon say to each other, without its library: sockets that
 * were opened before we began, readiness, and the watchdog. */
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

/* A number that the environment holds; -1: none. */
static long long number(const char *name) {
  const char *text = getenv(name);
  char *end;
  if (!text || !*text) return -1;
  long long v = strtoll(text, &end, 10);
  return *end ? -1 : v;
}

int activation_fd(void) {
  bool ours = number("LISTEN_PID") == getpid() && number("LISTEN_FDS") == 1;
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  int listening = 0;
  socklen_t len = sizeof listening;
  struct sockaddr_un name;
  socklen_t name_len = sizeof name;
  if (!ours || getsockopt(FIRST_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening ||
      getsockname(FIRST_FD, (struct sockaddr *)&name, &name_len) || name.sun_family != AF_UNIX)
    return -1;
  return FIRST_FD;
}

void notify_state(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  size_t len = path ? strlen(path) : 0;
  if (!len || len >= sizeof to.sun_path) return;
  memcpy(to.sun_path, path, len);
  if (*path == '@') to.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
  /* Nobody is told when it fails: whoever waits for the message will say so. */
  ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, size);
  (void)sent;
  close(fd);
}

uint64_t watchdog_ms(void) {
  long long us = number("WATCHDOG_USEC"), pid = number("WATCHDOG_PID");
  if (us <= 0 || (pid >= 0 && pid != getpid())) return 0;
  return (uint64_t)us / 2000;
}
