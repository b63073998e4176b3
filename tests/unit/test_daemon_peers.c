/* vivd against peers that break the protocol: only their own connection suffers, and it learns why. */
#include "vivd_rt.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/client.h"
#include "wire/wire.h"

TestSuite(peers, .init = setup_daemon, .fini = teardown_daemon, .timeout = 120);

static int dial(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path, sizeof name.sun_path, "%.90s", socket_path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  cr_assert_eq(connect(fd, (const struct sockaddr *)&name, sizeof name), 0, "%s", strerror(errno));
  return fd;
}

static void add_frame(viv__buf *out, int type, uint64_t id, const viv__buf *payload) {
  uint8_t head[VIV__WIRE_HEAD];
  viv__frame f = {.type = (uint16_t)type, .id = id, .length = (uint32_t)payload->len};
  viv__wire_put_head(head, &f);
  viv__buf_add(out, head, sizeof head);
  if (payload->len) viv__buf_add(out, payload->ptr, payload->len);
}

/* A whole conversation: HELLO, load, SUBMIT, CREDIT, CANCEL. */
static void conversation(viv__buf *out) {
  viv__buf b = {0};
  char params[256];
  viv__wire_hello hello = {.version = VIV__WIRE_VERSION, .name = viv__str("test")};
  viv__wire_put_hello(&b, &hello);
  add_frame(out, VIV__WIRE_HELLO, 0, &b);
  viv__buf_free(&b);
  snprintf(params, sizeof params, "{\"path\": \"%s\"}", model_dir("good"));
  viv__wire_call call = {.verb = viv__str("load"), .params = viv__str(params)};
  viv__wire_put_call(&b, &call);
  add_frame(out, VIV__WIRE_CALL, 1, &b);
  viv__buf_free(&b);
  float x[4] = {1, 2, 3, 4};
  viv__wire_submit m = {.model = 1, .credit = 16, .task = viv__str("forward"), .n_inputs = 1};
  m.inputs[0] = (viv__wire_value){.kind = VIV_KIND_TENSOR,
                                  .name = viv__str("x"),
                                  .bytes = {(const char *)x, sizeof x},
                                  .dtype = VIV_F32,
                                  .ndim = 1,
                                  .shape = {4}};
  viv__wire_put_submit(&b, &m);
  add_frame(out, VIV__WIRE_SUBMIT, 2, &b);
  viv__buf_free(&b);
  viv__wire_put_number(&b, 5);
  add_frame(out, VIV__WIRE_CREDIT_MORE, 2, &b);
  viv__buf_free(&b);
  add_frame(out, VIV__WIRE_CANCEL, 2, &b);
}

/* Everything that comes until the daemon closes or has been silent for so long; the last frame's type,
 * 0: none. */
static int listen_to(int fd, int silence_ms, char reason[512]) {
  viv__link link;
  viv_error e = VIV_ERROR_INIT;
  viv__frame f;
  int type = 0, came;
  viv__link_open(&link, fd);
  *reason = 0;
  for (;;) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, silence_ms) <= 0 || viv__link_read(&link, &e) != VIV_OK) break;
    while (viv__link_next(&link, &f, &came, &e) == VIV_OK) {
      type = f.type;
      if (f.type == VIV__WIRE_GOODBYE)
        snprintf(reason, 512, "%.*s", (int)f.length, (const char *)f.payload);
      if (came >= 0) close(came);
    }
  }
  viv__link_close(&link);
  return type;
}

/* Another connection works all the time. */
static void still_well(viv_model *m) {
  float x[2] = {1, 2};
  viv_event e;
  viv_job *job = submit_floats(m, x, 2, 0, 0);
  cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
  cr_assert_eq(e.kind, VIV_KIND_TENSOR, "%s", e.error ? e.error->message : "");
  cr_assert_eq(memcmp(e.tensor->data, x, sizeof x), 0);
  viv_job_free(job);
}

static size_t descriptors(void) {
  char command[128], line[32] = "";
  snprintf(command, sizeof command, "ls /proc/%d/fd | wc -l", (int)daemon_pid);
  FILE *p = popen(command, "r");
  cr_assert(p && fgets(line, sizeof line, p));
  pclose(p);
  return (size_t)atoi(line);
}

Test(peers, a_conversation_may_be_cut_at_every_byte) {
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  viv__buf all = {0};
  conversation(&all);
  still_well(m);
  size_t before = descriptors();
  for (size_t cut = 0; cut <= all.len; cut++) {
    int fd = dial();
    if (cut) cr_assert_eq(send(fd, all.ptr, cut, MSG_NOSIGNAL), (ssize_t)cut);
    close(fd);
    if (cut % 50 == 0) still_well(m);
  }
  still_well(m);
  for (int i = 0; i < 200 && descriptors() > before; i++) pause_ms(10);
  cr_assert_leq(descriptors(), before, "descriptors stay behind");
  viv__buf_free(&all);
  viv_close(rt);
}

/* VIV_MUTANTS says how many; each seed has its own. */
Test(peers, mutants_harm_nobody, .timeout = 600) {
  int n = atoi(env("VIV_MUTANTS", "2000"));
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  viv__buf all = {0};
  conversation(&all);
  char *mutant = malloc(all.len);
  srand((unsigned)atoi(env("VIV_MUTANTS_SEED", "7")));
  for (int i = 0; i < n; i++) {
    memcpy(mutant, all.ptr, all.len);
    int changes = 1 + rand() % 3;
    for (int k = 0; k < changes; k++) {
      static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff};
      mutant[(size_t)rand() % all.len] = (char)(rand() % 2 ? edges[rand() % 5] : (uint8_t)rand());
    }
    int fd = dial();
    send(fd, mutant, all.len, MSG_NOSIGNAL);
    if (i % 20 == 0) {
      char reason[512];
      listen_to(fd, 20, reason); /* closes */
      still_well(m);
    } else {
      close(fd);
    }
  }
  cr_assert_eq(kill(daemon_pid, 0), 0);
  free(mutant);
  viv__buf_free(&all);
  viv_close(rt);
}

/* What is said to a peer that sends these frames after a proper HELLO. */
static const char *said(const viv__buf *frames, int with_fd) {
  static char reason[512];
  viv__buf all = {0}, b = {0};
  viv__wire_hello hello = {.version = VIV__WIRE_VERSION, .name = viv__str("test")};
  viv__wire_put_hello(&b, &hello);
  add_frame(&all, VIV__WIRE_HELLO, 0, &b);
  viv__buf_free(&b);
  int fd = dial();
  cr_assert_eq(send(fd, all.ptr, all.len, MSG_NOSIGNAL), (ssize_t)all.len);
  viv__buf_free(&all);
  union {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec part = {frames->ptr, frames->len};
  struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
  if (with_fd >= 0) {
    msg.msg_control = control.room;
    msg.msg_controllen = sizeof control.room;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &with_fd, sizeof(int));
  }
  cr_assert_eq(sendmsg(fd, &msg, MSG_NOSIGNAL), (ssize_t)frames->len);
  listen_to(fd, 2000, reason);
  return reason;
}

static const char *said_to_head(viv__frame f) {
  static const char *answer;
  viv__buf b = {0};
  uint8_t head[VIV__WIRE_HEAD];
  viv__wire_put_head(head, &f);
  viv__buf_add(&b, head, sizeof head);
  answer = said(&b, -1);
  viv__buf_free(&b);
  return answer;
}

Test(peers, what_breaks_the_rules_is_told_which) {
  char garbage[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  viv__buf b = {.ptr = garbage, .len = sizeof garbage - 1};
  cr_assert(strstr(said(&b, -1), "VIV1"), "%s", said(&b, -1));
  viv__frame f = {.type = VIV__WIRE_CALL, .length = UINT32_MAX};
  cr_assert(strstr(said_to_head(f), "more than"));
  f = (viv__frame){.type = 99};
  cr_assert(strstr(said_to_head(f), "type 99"));
  f = (viv__frame){.type = VIV__WIRE_CANCEL, .flags = 0x80};
  cr_assert(strstr(said_to_head(f), "flags"));
  f = (viv__frame){.type = VIV__WIRE_EVENT};
  cr_assert(*said_to_head(f));
  f = (viv__frame){.type = VIV__WIRE_UNPOOL, .id = 4};
  cr_assert(strstr(said_to_head(f), "pool"));
  f = (viv__frame){.type = VIV__WIRE_POOL, .flags = VIV__WIRE_FD};
  cr_assert(*said_to_head(f));
  cr_assert_eq(kill(daemon_pid, 0), 0);
}

static const char *said_to_pool(int fd, uint64_t bytes) {
  static const char *answer;
  viv__buf b = {0};
  uint8_t head[VIV__WIRE_HEAD];
  viv__frame f = {.type = VIV__WIRE_POOL, .flags = VIV__WIRE_FD, .length = 8, .id = 1};
  viv__wire_put_head(head, &f);
  viv__buf_add(&b, head, sizeof head);
  viv__wire_put_number(&b, bytes);
  answer = said(&b, fd);
  viv__buf_free(&b);
  return answer;
}

Test(peers, unsealed_and_misannounced_memory_is_refused) {
  int fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  cr_assert_eq(ftruncate(fd, 4096), 0);
  cr_assert(strstr(said_to_pool(fd, 4096), "sealed"));
  close(fd);
  fd = viv__region_make("short", 4096, NULL);
  cr_assert(strstr(said_to_pool(fd, 8192), "announced"));
  close(fd);
  fd = open("/dev/null", O_RDWR);
  cr_assert(strstr(said_to_pool(fd, 0), "memfd"));
  close(fd);
}

Test(peers, silent_connections_hold_nobody_up) {
  enum { N = 200 };
  int fds[N];
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  for (int i = 0; i < N; i++) {
    fds[i] = dial();
    if (i % 2) cr_assert_eq(send(fds[i], "VIV1", 1 + i % 4, MSG_NOSIGNAL), 1 + i % 4);
  }
  for (int i = 0; i < 100; i++) still_well(m);
  for (int i = 0; i < N; i++) close(fds[i]);
  viv_close(rt);
}

Test(peers, the_policy_holds_for_other_users) {
  if (geteuid()) cr_skip_test("only root can become another user");
  viv_runtime *mine = connect_daemon();
  char path[160];
  snprintf(path, sizeof path, "%s", model_dir("good"));
  chmod(dir, 0755);
  chmod(socket_path, 0666);
  pid_t child = fork();
  if (!child) {
    viv_runtime *rt = NULL;
    viv_model *m = NULL;
    viv_error e = VIV_ERROR_INIT;
    viv_text text = {0};
    if (setgid(65534) || setuid(65534)) _exit(10);
    if (viv_connect(socket_path, &rt, &e) != VIV_OK) _exit(11);
    if (viv_load(rt, path, NULL, &m, &e) != VIV_NEVER || !strstr(e.message, "control")) _exit(12);
    if (viv__remote_call(rt, 0, "stop", NULL, NULL, &e) != VIV_NEVER) _exit(13);
    if (viv__remote_call(rt, 0, "ps", NULL, &text, &e) != VIV_OK) _exit(14);
    if (viv_why(rt, path, &text, &e) != VIV_NEVER) _exit(15);
    /* Without closing: the process's end is what the daemon sees. */
    _exit(0);
  }
  int status;
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child's step %d", WEXITSTATUS(status));
  /* A configuration that grants nothing turns others away at once; SIGHUP makes it hold. */
  write_text(config_path, "{\"policy\": {\"infer\": [\"self\"]}}");
  kill(daemon_pid, SIGHUP);
  pause_ms(200);
  child = fork();
  if (!child) {
    viv_runtime *rt = NULL;
    viv_error e = VIV_ERROR_INIT;
    if (setgid(65534) || setuid(65534)) _exit(10);
    if (viv_connect(socket_path, &rt, &e) != VIV_NEVER || !strstr(e.message, "may not use"))
      _exit(11);
    _exit(0);
  }
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child's step %d", WEXITSTATUS(status));
  still_well(load(mine, path));
  viv_close(mine);
}

Test(peers, a_wrong_configuration_is_refused_with_its_place) {
  char command[512], line[512] = "";
  static const char *const wrong[][2] = {{"{\"max_queues\": 4}", "max_queues"},
                                         {"{\"policy\": {\"all\": []}}", "\"all\""},
                                         {"{\"policy\": {\"infer\": [\"everyone\"]}}", "everyone"},
                                         {"{\"max_queue\": -1}", "max_queue"},
                                         {"[]", "object"},
                                         {"{", "vivd.json"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    write_text(config_path, wrong[i][0]);
    snprintf(command, sizeof command, "timeout 10 %s/vivd --config %s --socket %s/other 2>&1",
             env("VIV_TEST_BUILD", "build"), config_path, dir);
    FILE *p = popen(command, "r");
    cr_assert(p && fgets(line, sizeof line, p), "%s", wrong[i][0]);
    cr_assert_neq(pclose(p), 0);
    cr_assert(strstr(line, wrong[i][1]), "%s", line);
  }
}

/* Out of descriptors it answers nobody new, serves whom it has, and takes the others when some are free. */
Test(peers, without_descriptors_it_serves_whom_it_has) {
  enum { MANY = 80 };
  int fds[MANY];
  float x[4] = {1, 2, 3, 4};
  viv_event e;
  kill(daemon_pid, SIGTERM);
  cr_assert_eq(wait_daemon(10), 0);
  daemon_files = 48;
  start_daemon();
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, model_dir("good"));
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  memcpy(name.sun_path, socket_path, strlen(socket_path));
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < MANY; i++) {
      fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
      cr_assert_eq(connect(fds[i], (const struct sockaddr *)&name, sizeof name), 0);
    }
    pause_ms(100);
    for (int i = 0; i < 20; i++) {
      viv_job *job = submit_floats(m, x, 4, 0, 0);
      cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
      cr_assert_eq(memcmp(e.tensor->data, x, sizeof x), 0);
      cr_assert_eq(viv_next_event(job, 20000, &e), VIV_OK);
      cr_assert_eq(e.status, VIV_OK);
      viv_job_free(job);
    }
    /* Another model's worker needs descriptors: refused with the reason, and not for ever. */
    viv_model *other = NULL;
    viv_error why = VIV_ERROR_INIT;
    cr_assert_eq(viv_load(rt, model_dir("endless-events"), NULL, &other, &why), VIV_NOT_NOW);
    cr_assert(*why.message);
    for (int i = 0; i < MANY; i++) close(fds[i]);
    viv_close(connect_daemon());
  }
  load(rt, model_dir("endless-events"));
  viv_close(rt);
}

/* A model file that is cut while a worker has it mapped costs that worker's jobs, each one error. */
Test(peers, a_model_that_shrinks_under_its_worker) {
  char command[400], file[200], path[128];
  viv_error e = VIV_ERROR_INIT;
  snprintf(path, sizeof path, "%s/stories", dir);
  snprintf(command, sizeof command, "cp -r %s %s", STORIES, path);
  cr_assert_eq(system(command), 0);
  snprintf(file, sizeof file, "%s/model.safetensors", path);
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, path), *other = load(rt, model_dir("good"));
  result before, r;
  run(m, NULL, "Once upon a time", "{\"max_new_tokens\": 20}", &before);
  cr_assert_eq(before.status, VIV_OK);
  cr_assert_eq(truncate(file, 8192), 0);
  for (int i = 0; i < 3; i++) {
    run(m, NULL, "Once upon a time", "{\"max_new_tokens\": 20}",
        &r); /* fails unless no byte was read */
    cr_assert(r.status == VIV_OK || *r.error.message);
  }
  float x[4] = {1, 2, 3, 4};
  viv_job *job = submit_floats(other, x, 4, 0, 0);
  viv_event event;
  cr_assert_eq(viv_next_event(job, 20000, &event), VIV_OK);
  viv_job_free(job);
  snprintf(command, sizeof command, "cp %s/model.safetensors %s", STORIES, file);
  cr_assert_eq(system(command), 0);
  for (int i = 0; i < 100; i++) {
    viv_model *again = NULL;
    if (viv_load(rt, path, NULL, &again, &e) == VIV_OK) {
      run(again, NULL, "Once upon a time", "{\"max_new_tokens\": 20}", &r);
      if (r.status == VIV_OK) break;
    }
    pause_ms(100);
  }
  cr_assert_eq(r.status, VIV_OK, "%s", r.error.message);
  cr_assert_str_eq(r.text, before.text);
  viv_close(rt);
}

/* ---- a slow job, and what comes with it ---- */

static void greet_and_load(int fd, const char *plugin) {
  viv__buf out = {0}, b = {0};
  char params[256];
  viv__link link;
  viv_error e = VIV_ERROR_INIT;
  viv__frame f = {0};
  int came;
  viv__wire_hello hello = {.version = VIV__WIRE_VERSION, .name = viv__str("test")};
  viv__wire_put_hello(&b, &hello);
  add_frame(&out, VIV__WIRE_HELLO, 0, &b);
  viv__buf_free(&b);
  snprintf(params, sizeof params, "{\"path\": \"%s\"}", model_dir(plugin));
  viv__wire_call call = {.verb = viv__str("load"), .params = viv__str(params)};
  viv__wire_put_call(&b, &call);
  add_frame(&out, VIV__WIRE_CALL, 1, &b);
  viv__buf_free(&b);
  cr_assert_eq(write(fd, out.ptr, out.len), (ssize_t)out.len);
  viv__buf_free(&out);
  viv__link_open(&link, fd);
  while (f.type != VIV__WIRE_REPLY) {
    int32_t status = viv__link_next(&link, &f, &came, &e);
    if (status == VIV_WAIT) status = viv__link_read(&link, &e);
    cr_assert_eq(status, VIV_OK, "%s", e.message);
  }
  viv__buf_free(&link.in);
}

static void add_job(viv__buf *out, uint64_t id, bool stream) {
  viv__buf b = {0};
  float x[2] = {1, 2};
  viv__wire_submit m = {.model = 1, .credit = 16, .task = viv__str("forward"), .n_inputs = 1};
  m.inputs[0] = (viv__wire_value){.kind = VIV_KIND_TENSOR,
                                  .name = viv__str("x"),
                                  .bytes = {(const char *)x, sizeof x},
                                  .dtype = VIV_F32,
                                  .ndim = 1,
                                  .shape = {2}};
  m.inputs[1] = (viv__wire_value){.kind = VIV_KIND_STREAM, .name = viv__str("s"), .bytes = {"", 0}};
  m.n_inputs += stream;
  viv__wire_put_submit(&b, &m);
  add_frame(out, VIV__WIRE_SUBMIT, id, &b);
  viv__buf_free(&b);
}

/* The first frame of that type and number; its payload is valid until the next call. */
static bool await_frame(viv__link *link, int type, uint64_t id, int ms, viv__frame *f) {
  viv_error e = VIV_ERROR_INIT;
  uint64_t until = viv__now_ns() + (uint64_t)ms * 1000000u;
  int came;
  for (;;) {
    while (viv__link_next(link, f, &came, &e) == VIV_OK) {
      if (came >= 0) close(came);
      if (f->type == type && f->id == id) return true;
    }
    struct pollfd wait = {.fd = link->fd, .events = POLLIN};
    uint64_t now = viv__now_ns();
    if (now >= until || poll(&wait, 1, (int)((until - now) / 1000000u) + 1) <= 0) return false;
    if (viv__link_read(link, &e) != VIV_OK) return false;
  }
}

/* All three frames come to the worker at once, and the first one's job takes three seconds. */
Test(peers, what_came_with_a_slow_job_does_not_wait_for_it) {
  int fd = dial();
  viv__buf out = {0}, none = {0};
  viv__link link;
  viv__frame f;
  greet_and_load(fd, "ignores-cancel");
  viv__link_open(&link, fd);
  add_job(&out, 2, false);
  add_job(&out, 3, false);
  add_frame(&out, VIV__WIRE_CANCEL, 3, &none);
  cr_assert_eq(write(fd, out.ptr, out.len), (ssize_t)out.len);
  cr_assert(await_frame(&link, VIV__WIRE_EVENT, 3, 1500, &f), "the cancelled job waits");
  cr_assert(await_frame(&link, VIV__WIRE_EVENT, 2, 10000, &f), "the slow job never ends");
  viv__buf_free(&out);
  viv__link_close(&link);
}

/* ---- streams ---- */

static void add_feed(viv__buf *out, uint64_t id, uint32_t stream, size_t bytes) {
  static char zeros[VIV__WIRE_FEED_MOST];
  viv__buf b = {0};
  viv__wire_feed m = {.stream = stream, .bytes = {zeros, bytes}};
  viv__wire_put_feed(&b, &m);
  add_frame(out, VIV__WIRE_FEED, id, &b);
  viv__buf_free(&b);
}

Test(peers, a_stream_takes_no_more_than_there_is_room_for) {
  static const struct {
    bool streams;
    uint32_t stream;
    int frames;
    const char *reason; /* NULL: nothing is wrong */
  } cases[] = {{true, 0, 4, NULL},
               {true, 0, 5, "more of a stream than there is room for"},
               {true, 1, 1, "more of a stream than there is room for"},
               {true, VIV__WIRE_STREAMS, 1, "so many streams"},
               {false, 0, 1, "more of a stream than there is room for"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int fd = dial();
    char reason[512];
    viv__buf out = {0};
    viv__frame f;
    greet_and_load(fd, "endless-events"); /* it reads no stream, and waits for credit */
    viv__link link;
    viv__link_open(&link, fd);
    add_job(&out, 2, cases[i].streams);
    add_feed(&out, 77, 0, 10); /* of a job that has ended, or never was */
    cr_assert_eq(write(fd, out.ptr, out.len), (ssize_t)out.len);
    viv__buf_free(&out);
    if (cases[i].streams) {
      viv__wire_feed room = {0};
      viv_error e = VIV_ERROR_INIT;
      cr_assert(await_frame(&link, VIV__WIRE_ROOM, 2, 10000, &f), "no room is given");
      cr_assert_eq(viv__wire_room_read(&f, &room, &e), VIV_OK);
      cr_assert_eq(room.room, 4 * VIV__WIRE_FEED_MOST);
    }
    for (int k = 0; k < cases[i].frames; k++)
      add_feed(&out, 2, cases[i].stream, VIV__WIRE_FEED_MOST);
    size_t sent = 0;
    while (sent < out.len) {
      ssize_t n = send(fd, out.ptr + sent, out.len - sent, MSG_NOSIGNAL);
      if (n <= 0) break; /* it has been turned away */
      sent += (size_t)n;
    }
    viv__buf_free(&out);
    viv__buf_free(&link.in);
    int last = listen_to(fd, 500, reason);
    if (cases[i].reason)
      cr_assert(last == VIV__WIRE_GOODBYE && strstr(reason, cases[i].reason), "%zu: %s", i, reason);
    else
      cr_assert_neq(last, VIV__WIRE_GOODBYE, "%s", reason);
  }
}
