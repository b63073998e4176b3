/* Jobs through NATS JetStream while everything is killed: nats_jobs BUILD JOBS KILLS. Starts nats-server and
 * `vivd --nats`, publishes the jobs, kills the server, the daemon, its bridge and its worker at random, and
 * holds the results against the jobs: each there once, with the right numbers. */
#include <errno.h>
#include <nats/nats.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>

static char dir[] = "/tmp/viv-nats-XXXXXX", url[64], model[64], socket_path[64];
static const char *build;
static int port;
static pid_t server, vivd;

static void pause_ms(int ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static void die(const char *what, const char *why) {
  fprintf(stderr, "nats_jobs: %s: %s\n", what, why);
  if (server > 0) kill(server, SIGKILL);
  if (vivd > 0) kill(vivd, SIGKILL);
  exit(1);
}

static pid_t start(char *const *args, const char *log) {
  char path[96];
  pid_t pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  snprintf(path, sizeof path, "%s/%s", dir, log);
  if (!freopen(path, "a", stderr) || !freopen(path, "a", stdout)) _exit(127);
  execvp(args[0], args);
  _exit(127);
}

static void start_server(void) {
  char text[16], store[64];
  snprintf(text, sizeof text, "%d", port);
  snprintf(store, sizeof store, "%s/store", dir);
  char *args[] = {"nats-server", "-js", "-sd", store, "-a", "127.0.0.1", "-p", text, NULL};
  server = start(args, "server.log");
}

static void start_vivd(void) {
  char program[512], plugins[512], state[64];
  snprintf(program, sizeof program, "%s/vivd", build);
  snprintf(plugins, sizeof plugins, "%s/badplugins", build);
  snprintf(state, sizeof state, "%s/state", dir);
  char *args[] = {program, "--socket", socket_path, "--plugins", plugins, "--state",
                  state,   "--nats",   url,         "--log",     "warn",  NULL};
  vivd = start(args, "vivd.log");
}

static void end(pid_t *pid) {
  kill(*pid, SIGKILL);
  waitpid(*pid, NULL, 0);
  *pid = 0;
}

static int free_port(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t len = sizeof at;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) ||
      getsockname(fd, (struct sockaddr *)&at, &len))
    die("port", strerror(errno));
  close(fd);
  return ntohs(at.sin_port);
}

static natsConnection *dial(jsCtx **js) {
  natsConnection *nc = NULL;
  natsOptions *o = NULL;
  natsOptions_Create(&o);
  natsOptions_SetURL(o, url);
  natsOptions_SetMaxReconnect(o, -1);
  natsOptions_SetReconnectWait(o, 50);
  for (int i = 0; i < 200 && natsConnection_Connect(&nc, o) != NATS_OK; i++) pause_ms(50);
  natsOptions_Destroy(o);
  if (!nc || natsConnection_JetStream(js, nc, NULL) != NATS_OK)
    die("nats-server", "does not answer");
  return nc;
}

/* Two numbers that belong to the job, which come back. */
static void numbers_of(int number, char base64[13]) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  float x[2] = {(float)number, (float)number + 0.5f};
  unsigned char bytes[8];
  memcpy(bytes, x, 8);
  for (int i = 0; i < 8; i += 3) {
    unsigned bits = 0;
    for (int k = 0; k < 3; k++) bits = bits << 8 | (i + k < 8 ? bytes[i + k] : 0u);
    for (int k = 0; k < 4; k++)
      base64[i / 3 * 4 + k] = i + k <= 8 ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  base64[12] = 0;
}

/* Until the stream has it: a second one of the same id is dropped. */
static void publish(jsCtx *js, int number) {
  char text[400], id[32], base64[13];
  jsPubOptions o;
  numbers_of(number, base64);
  snprintf(id, sizeof id, "job-%d", number);
  int n = snprintf(
      text, sizeof text,
      "{\"model\":\"%s\",\"task\":\"forward\",\"reply\":\"test\",\"inputs\":{\"x\":{\"kind\":"
      "\"tensor\",\"dtype\":\"F32\",\"shape\":[2],\"base64\":\"%s\"}}}",
      model, base64);
  jsPubOptions_Init(&o);
  o.MsgId = id;
  for (int i = 0; i < 2000; i++) {
    if (js_Publish(NULL, js, "vivarium.jobs", text, n, &o, NULL) == NATS_OK) return;
    pause_ms(20);
  }
  die(id, "can't be published");
}

/* Of all that its parent started: the bridge, or the worker. */
static pid_t child_of(pid_t parent, const char *word) {
  char command[160];
  int pid = 0;
  snprintf(command, sizeof command, "pgrep -P %d -f -- '%s' | head -1", (int)parent, word);
  FILE *f = popen(command, "r");
  if (f && fscanf(f, "%d", &pid) != 1) pid = 0;
  if (f) pclose(f);
  return pid;
}

static void accident(unsigned *seed, int kills[4]) {
  int which = rand_r(seed) % 4;
  pid_t child;
  kills[which]++;
  switch (which) {
  case 0:
    end(&server);
    start_server();
    break;
  case 1:
    end(&vivd);
    start_vivd();
    break;
  default:
    child = child_of(vivd, which == 2 ? "vivd-nats" : "--worker");
    if (child > 0) kill(child, SIGKILL);
  }
}

/* How many results there are. */
static int results(jsCtx *js) {
  jsStreamInfo *info = NULL;
  int n = 0;
  if (js_GetStreamInfo(&info, js, "VIVARIUM_RESULTS", NULL, NULL) == NATS_OK)
    n = (int)info->State.Msgs;
  jsStreamInfo_Destroy(info);
  return n;
}

static int check_results(jsCtx *js, int n) {
  char *seen = calloc((size_t)n, 1);
  natsSubscription *sub = NULL;
  int doubled = 0, wrong = 0, lost = 0;
  if (js_PullSubscribe(&sub, js, "vivarium.results.test", "reader", NULL, NULL, NULL) != NATS_OK)
    die("results", "can't be read");
  for (int empty = 0; empty < 3;) {
    natsMsgList list = {0};
    if (natsSubscription_Fetch(&list, sub, 100, 1000, NULL) != NATS_OK) empty++;
    for (int i = 0; i < list.Count; i++) {
      char text[512];
      int number = -1;
      snprintf(text, sizeof text, "%.*s", natsMsg_GetDataLength(list.Msgs[i]),
               natsMsg_GetData(list.Msgs[i]));
      if (sscanf(text, "{\"id\":\"job-%d\"", &number) != 1 || number < 0 || number >= n) {
        wrong++;
      } else {
        doubled += seen[number];
        seen[number] = 1;
        char expected[13];
        numbers_of(number, expected);
        if (!strstr(text, "\"status\":\"ok\"") || !strstr(text, expected)) {
          if (wrong++ < 3) fprintf(stderr, "nats_jobs: %s\n", text);
        }
      }
      natsMsg_Ack(list.Msgs[i], NULL);
    }
    natsMsgList_Destroy(&list);
  }
  for (int i = 0; i < n; i++) lost += !seen[i];
  natsSubscription_Destroy(sub);
  free(seen);
  printf("%d jobs: %d lost, %d doubled, %d wrong\n", n, lost, doubled, wrong);
  return lost || doubled || wrong;
}

int main(int argc, char **argv) {
  unsigned seed = 11;
  int kills[4] = {0};
  jsCtx *js = NULL;
  char file[96];
  if (argc != 4 || !mkdtemp(dir)) return 2;
  build = argv[1];
  int n = atoi(argv[2]), n_kills = atoi(argv[3]), done = 0, published = 0, next = 0;
  port = free_port();
  snprintf(url, sizeof url, "nats://127.0.0.1:%d", port);
  snprintf(model, sizeof model, "%s/model", dir);
  snprintf(socket_path, sizeof socket_path, "%s/vivd.sock", dir);
  snprintf(file, sizeof file, "%s/config.json", model);
  mkdir(model, 0755);
  FILE *f = fopen(file, "w");
  if (!f || fputs("{\"model_type\": \"test-good\"}", f) < 0 || fclose(f)) return 2;
  setenv("VIV_NATS_ACK_WAIT_S", "2", 1);
  start_server();
  start_vivd();
  natsConnection *nc = dial(&js);
  for (int i = 0; i < 200 && js_GetStreamInfo(NULL, js, "VIVARIUM_RESULTS", NULL, NULL) != NATS_OK;
       i++)
    pause_ms(50);
  double limit = (double)time(NULL) + 250;
  while (done < n && (double)time(NULL) < limit) {
    /* Accidents are spread over the jobs: while they come, and while they are worked off. */
    for (int k = 0; k < 50 && published < n; k++) publish(js, published++);
    done = results(js);
    if (next < n_kills && done >= n / (n_kills + 1) * (next + 1)) {
      accident(&seed, kills);
      next++;
    }
    if (published == n) pause_ms(20);
  }
  pause_ms(2500); /* what was not acknowledged comes again, and must not be stored again */
  int failed = check_results(js, n);
  printf("killed: server %d times, daemon %d, bridge %d, worker %d\n", kills[0], kills[1], kills[2],
         kills[3]);
  if (next < n_kills) failed = 1;
  jsCtx_Destroy(js);
  natsConnection_Destroy(nc);
  end(&vivd);
  end(&server);
  snprintf(file, sizeof file, "rm -rf %s", dir);
  if (getenv("VIV_NATS_KEEP") || system(file)) puts(dir);
  nats_Close();
  return failed;
}
