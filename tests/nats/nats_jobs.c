/* Jobs through NATS JetStream while everything is killed: nats_jobs BUILD JOBS KILLS LARGE. Starts nats-server and
 * `vivd --nats`, publishes the jobs, kills the server, the daemon, its bridge and its worker at random, and
 * holds the results against the jobs: each there once, with the right numbers. LARGE jobs more have results of
 * several MB, which come as objects; the bridge is killed while it stores them. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <nats/nats.h>
#include <sha256.h>
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

enum { IDS = 448 }; /* of a large job */

static char dir[] = "/tmp/viv-nats-XXXXXX", url[64], model[64], socket_path[64];
static char stories[PATH_MAX];
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
  char program[512], plugins[1100], state[64];
  snprintf(program, sizeof program, "%s/vivd", build);
  snprintf(plugins, sizeof plugins, "%s/plugins:%s/badplugins", build, build);
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

/* out: (n + 2) / 3 * 4 + 1 bytes. */
static void encode(const void *data, int n, char *out) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *bytes = data;
  for (int i = 0; i < n; i += 3) {
    unsigned bits = 0;
    for (int k = 0; k < 3; k++) bits = bits << 8 | (i + k < n ? bytes[i + k] : 0u);
    for (int k = 0; k < 4; k++) *out++ = i + k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  *out = 0;
}

/* Two numbers that belong to the job, which come back. */
static void numbers_of(int number, char base64[13]) {
  float x[2] = {(float)number, (float)number + 0.5f};
  encode(x, 8, base64);
}

/* Until the stream has it: a second one of the same id is dropped. */
static void publish_as(jsCtx *js, char *id, const char *text, int n) {
  jsPubOptions o;
  jsPubOptions_Init(&o);
  o.MsgId = id;
  for (int i = 0; i < 2000; i++) {
    if (js_Publish(NULL, js, "vivarium.jobs", text, n, &o, NULL) == NATS_OK) return;
    pause_ms(20);
  }
  die(id, "can't be published");
}

static void publish(jsCtx *js, int number) {
  char text[400], id[32], base64[13];
  numbers_of(number, base64);
  snprintf(id, sizeof id, "job-%d", number);
  int n = snprintf(
      text, sizeof text,
      "{\"model\":\"%s\",\"task\":\"forward\",\"reply\":\"test\",\"inputs\":{\"x\":{\"kind\":"
      "\"tensor\",\"dtype\":\"F32\",\"shape\":[2],\"base64\":\"%s\"}}}",
      model, base64);
  publish_as(js, id, text, n);
}

/* All that the model computes of a text, of several MB. */
static void publish_large(jsCtx *js, int number) {
  char text[IDS * 6 + PATH_MAX + 300], id[32], base64[IDS * 6];
  int32_t ids[IDS] = {1};
  for (int i = 1; i < IDS; i++) ids[i] = 400 + (i * 7 + number) % 90;
  encode(ids, sizeof ids, base64);
  snprintf(id, sizeof id, "large-%d", number);
  int n = snprintf(
      text, sizeof text,
      "{\"model\":\"%s\",\"task\":\"forward\",\"reply\":\"test\",\"params\":{\"taps\":[\"*\"]},"
      "\"inputs\":{\"input_ids\":{\"kind\":\"tensor\",\"dtype\":\"I32\",\"shape\":[%d],"
      "\"base64\":\"%s\"}}}",
      stories, IDS, base64);
  publish_as(js, id, text, n);
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

static int messages(jsCtx *js, const char *stream) {
  jsStreamInfo *info = NULL;
  int n = 0;
  if (js_GetStreamInfo(&info, js, stream, NULL, NULL) == NATS_OK) n = (int)info->State.Msgs;
  jsStreamInfo_Destroy(info);
  return n;
}

/* Kills the bridge when it has begun to store an object. True: before that was whole. */
static int kill_midway(jsCtx *js, int number) {
  char text[64];
  unsigned char id[32];
  int had = messages(js, "OBJ_vivarium"), n = had;
  publish_large(js, number);
  for (int i = 0; i < 20000 && (n = messages(js, "OBJ_vivarium")) < had + 2; i++) pause_ms(1);
  pid_t child = child_of(vivd, "vivd-nats");
  if (child > 0) kill(child, SIGKILL);
  int len = snprintf((char *)id, sizeof id, "large-%d", number);
  encode(id, len, text);
  char subject[100];
  snprintf(subject, sizeof subject, "$O.vivarium.M.%s", text);
  natsMsg *whole = NULL;
  int midway = js_GetLastMsg(&whole, js, "OBJ_vivarium", subject, NULL, NULL) != NATS_OK;
  natsMsg_Destroy(whole);
  return midway;
}

/* The bytes of an object, in order, which must be what its description says; NULL: they are not. *chunks: how
 * many there must be. */
static char *read_object(jsCtx *js, const cJSON *object, size_t *len, int *chunks) {
  const char *id = cJSON_GetStringValue(cJSON_GetObjectItem(object, "nuid"));
  const char *digest = cJSON_GetStringValue(cJSON_GetObjectItem(object, "digest"));
  double size = cJSON_GetNumberValue(cJSON_GetObjectItem(object, "size"));
  *chunks = (int)cJSON_GetNumberValue(cJSON_GetObjectItem(object, "chunks"));
  if (!id || !digest || !(size > 0 && size < 1e9)) return NULL;
  char subject[100], encoded[64];
  natsSubscription *sub = NULL;
  jsSubOptions o;
  char *bytes = malloc((size_t)size + 1);
  int got = 0;
  snprintf(subject, sizeof subject, "$O.vivarium.C.%s", id);
  jsSubOptions_Init(&o);
  o.Ordered = true;
  o.Stream = "OBJ_vivarium";
  *len = 0;
  if (js_SubscribeSync(&sub, js, subject, NULL, &o, NULL) != NATS_OK) die(subject, "can't be read");
  for (natsMsg *msg; natsSubscription_NextMsg(&msg, sub, 1000) == NATS_OK; natsMsg_Destroy(msg)) {
    size_t n = (size_t)natsMsg_GetDataLength(msg);
    if (*len + n <= (size_t)size) memcpy(bytes + *len, natsMsg_GetData(msg), n);
    *len += n;
    if (++got == *chunks && *len == (size_t)size) break; /* more would show in the stream's count */
  }
  natsSubscription_Destroy(sub);
  unsigned char sum[SHA256_DIGEST_LENGTH];
  SHA2_CTX ctx;
  SHA256Init(&ctx);
  if (*len == (size_t)size) SHA256Update(&ctx, (const uint8_t *)bytes, *len);
  SHA256Final(sum, &ctx);
  encode(sum, sizeof sum, encoded);
  for (char *c = encoded; *c; c++) *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
  bytes[(size_t)size] = 0;
  if (got == *chunks && !strncmp(digest, "SHA-256=", 8) && !strcmp(digest + 8, encoded))
    return bytes;
  fprintf(stderr, "nats_jobs: %s: %d of %d chunks, %zu of %.0f bytes, %s, not %s\n", id, got,
          *chunks, *len, size, encoded, digest);
  free(bytes);
  return NULL;
}

/* A result that is an object: whole, of the job's own numbers. Counts the messages that it takes. */
static int is_large_result(jsCtx *js, const char *text, int *number, int *taken) {
  cJSON *json = cJSON_Parse(text);
  const cJSON *object = cJSON_GetObjectItem(json, "object");
  size_t len = 0;
  int chunks = 0, good = 0;
  char *bytes =
      object && strstr(text, "\"status\":\"ok\"") ? read_object(js, object, &len, &chunks) : NULL;
  cJSON *result = bytes ? cJSON_Parse(bytes) : NULL;
  const char *id = cJSON_GetStringValue(cJSON_GetObjectItem(result, "id"));
  good = len > 3000000 && id && sscanf(id, "large-%d", number) == 1 &&
         cJSON_GetArraySize(cJSON_GetObjectItem(result, "results")) > 20 &&
         !strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(result, "status")), "ok");
  *taken += chunks + 1;
  cJSON_Delete(result);
  cJSON_Delete(json);
  free(bytes);
  return good;
}

static int check_results(jsCtx *js, int n, int n_large) {
  char *seen = calloc((size_t)n, 1), *seen_large = calloc((size_t)n_large + 1, 1);
  natsSubscription *sub = NULL;
  int doubled = 0, wrong = 0, lost = 0, taken = 0;
  if (js_PullSubscribe(&sub, js, "vivarium.results.test", "reader", NULL, NULL, NULL) != NATS_OK)
    die("results", "can't be read");
  for (int empty = 0; empty < 3;) {
    natsMsgList list = {0};
    if (natsSubscription_Fetch(&list, sub, 100, 1000, NULL) != NATS_OK) empty++;
    for (int i = 0; i < list.Count; i++) {
      char text[1024];
      int number = -1;
      snprintf(text, sizeof text, "%.*s", natsMsg_GetDataLength(list.Msgs[i]),
               natsMsg_GetData(list.Msgs[i]));
      if (strstr(text, "\"object\":")) {
        if (!is_large_result(js, text, &number, &taken) || number < 0 || number >= n_large) {
          wrong++;
        } else {
          doubled += seen_large[number];
          seen_large[number] = 1;
        }
      } else if (sscanf(text, "{\"id\":\"job-%d\"", &number) != 1 || number < 0 || number >= n) {
        if (wrong++ < 3) fprintf(stderr, "nats_jobs: %s\n", text);
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
  for (int i = 0; i < n_large; i++) lost += !seen_large[i];
  natsSubscription_Destroy(sub);
  free(seen);
  free(seen_large);
  int there = messages(js, "OBJ_vivarium");
  printf("%d jobs, %d of several MB: %d lost, %d doubled, %d wrong; %d messages of objects, %d "
         "needed\n",
         n + n_large, n_large, lost, doubled, wrong, there, taken);
  return lost || doubled || wrong || there != taken;
}

int main(int argc, char **argv) {
  unsigned seed = 11;
  int kills[4] = {0};
  jsCtx *js = NULL;
  char file[96];
  if (argc != 5 || !mkdtemp(dir) || !realpath("tests/models/stories260K", stories)) return 2;
  build = argv[1];
  int n_large = atoi(argv[4]), large = 0, midway = 0;
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
  while (done < n + n_large && (double)time(NULL) < limit) {
    /* Accidents are spread over the jobs: while they come, and while they are worked off. */
    for (int k = 0; k < 50 && published < n; k++) publish(js, published++);
    if (large < n_large && published >= n / n_large * large) midway += kill_midway(js, large++);
    done = messages(js, "VIVARIUM_RESULTS");
    if (next < n_kills && done >= n / (n_kills + 1) * (next + 1)) {
      accident(&seed, kills);
      next++;
    }
    if (published == n) pause_ms(20);
  }
  pause_ms(2500); /* what was not acknowledged comes again, and must not be stored again */
  int failed = check_results(js, n, n_large);
  if (n_large) printf("the bridge was killed in the middle of %d objects\n", midway);
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
