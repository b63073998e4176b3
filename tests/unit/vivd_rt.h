/* A daemon of a test's own: started on a socket in a fresh folder, and gone with the test. */
#ifndef TESTS_VIVD_RT_H
#define TESTS_VIVD_RT_H

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "rt.h"

static char dir[64], socket_path[96], config_path[96];
static pid_t daemon_pid;
static rlim_t daemon_files; /* descriptors that it may have; 0: as many as the test */

static inline void pause_ms(int ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static inline void write_text(const char *path, const char *content) {
  FILE *f = fopen(path, "w");
  cr_assert(f && fputs(content, f) >= 0 && fclose(f) == 0, "%s: %s", path, strerror(errno));
}

static inline void start_daemon(void) {
  char program[512], plugins[1024], state[96], log[96];
  snprintf(program, sizeof program, "%s/vivd", env("VIV_TEST_BUILD", "build"));
  snprintf(plugins, sizeof plugins, "%s:%s", env("VIV_TEST_PLUGINS", "build/plugins"),
           env("VIV_TEST_BAD", "build/badplugins"));
  snprintf(state, sizeof state, "%s/state", dir);
  snprintf(log, sizeof log, "%s/log", dir);
  daemon_pid = fork();
  if (!daemon_pid) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit files = {daemon_files, daemon_files};
    if (daemon_files && setrlimit(RLIMIT_NOFILE, &files)) _exit(127);
    if (!freopen(log, "a", stderr) || !freopen("/dev/null", "w", stdout)) _exit(127);
    execl(program, "vivd", "--config", config_path, "--socket", socket_path, "--plugins", plugins,
          "--state", state, (char *)NULL);
    _exit(127);
  }
  for (int i = 0; i < 1000; i++) {
    viv_runtime *rt = NULL;
    viv_error e = VIV_ERROR_INIT;
    if (viv_connect(socket_path, &rt, &e) == VIV_OK) {
      viv_close(rt);
      return;
    }
    pause_ms(10);
  }
  cr_assert_fail("the daemon does not come up");
}

/* Its exit status, -1 when a signal ended it, -2 when it is still there after so many seconds. */
static inline int wait_daemon(int seconds) {
  int status;
  for (int i = 0; i < seconds * 100; i++) {
    if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid) {
      daemon_pid = 0;
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    pause_ms(10);
  }
  return -2;
}

static inline void setup_daemon(void) {
  snprintf(dir, sizeof dir, "/tmp/vivd-test-XXXXXX");
  cr_assert(mkdtemp(dir) != NULL);
  snprintf(socket_path, sizeof socket_path, "%s/vivd.sock", dir);
  snprintf(config_path, sizeof config_path, "%s/vivd.json", dir);
  write_text(config_path, "{\"cancel_grace_ms\": 1000}");
  start_daemon();
}

static inline void teardown_daemon(void) {
  char command[128];
  if (daemon_pid > 0) {
    kill(daemon_pid, SIGKILL);
    wait_daemon(10);
  }
  snprintf(command, sizeof command, "rm -rf %s", dir);
  cr_expect(system(command) == 0);
}

static inline viv_runtime *connect_daemon(void) {
  viv_runtime *rt = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_connect(socket_path, &rt, &e), VIV_OK, "%s: %s", e.where, e.message);
  return rt;
}

/* A model directory that the test plugin of that name takes. */
static inline const char *model_dir(const char *plugin) {
  static char path[160];
  char file[200], config[128];
  snprintf(path, sizeof path, "%s/%s", dir, plugin);
  mkdir(path, 0755);
  snprintf(file, sizeof file, "%s/config.json", path);
  snprintf(config, sizeof config, "{\"model_type\": \"test-%s\"}", plugin);
  write_text(file, config);
  return path;
}

/* A job that gets n floats, which the test plugins give back as y. */
static inline viv_job *submit_floats(viv_model *m, const float *x, int64_t n, int64_t deadline_ms,
                                     int64_t max_queued) {
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {n},
                  .bytes = (uint64_t)n * 4,
                  .data = (void *)(uintptr_t)x};
  viv_value input = {
      .struct_size = sizeof input, .kind = VIV_KIND_TENSOR, .name = viv__str("x"), .tensor = &t};
  const viv_value *inputs[] = {&input};
  viv_request q = {.struct_size = sizeof q,
                   .task = "forward",
                   .n_inputs = 1,
                   .inputs = inputs,
                   .deadline_ms = deadline_ms,
                   .max_queued_events = max_queued};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  return job;
}

#endif
