/* vivd-nats SOCKET URL: what `vivd --nats URL` runs beside itself. */
#include <errno.h>
#include <nats/nats.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "nats/bridge.h"

#define JOBS "vivarium.jobs"
#define RESULTS "vivarium.results."
/* Longer than anybody takes to notice that a result was not acknowledged. */
#define REMEMBER_NS (INT64_C(3600) * 1000000000)
enum { THREADS_MOST = 64, TRIES = 5, PATIENCE_MS = 250 };

static atomic_bool leaving;
static natsConnection *nats;
static const char *socket_path;
static int64_t ack_wait_s = 30;

static void on_signal(int number) {
  (void)number;
  atomic_store(&leaving, true);
}

static void pause_ms(int ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static void say(const char *what, const char *why) {
  fprintf(stderr, "vivd-nats: %s: %s\n", what, why);
}

/* ---- one thread ---- */

/* The daemon may be starting, or be started again. */
static bool reach_daemon(hand *h) {
  viv_error error = VIV_ERROR_INIT;
  while (!h->rt && !atomic_load(&leaving))
    if (viv_connect(socket_path, &h->rt, &error) < 0) pause_ms(PATIENCE_MS);
  return h->rt != NULL;
}

/* Tells the queue in time that the job still runs. */
static int32_t follow(const hand *h, viv_job *job, viv__buf *result, viv_error *error) {
  viv_event e = {.struct_size = sizeof e};
  uint64_t told = viv__now_ns();
  for (;;) {
    int32_t status = viv_next_event(job, (int64_t)(h->patience_ns / 1000000), &e);
    if (viv__now_ns() - told > h->patience_ns) {
      natsMsg_InProgress(h->msg, NULL);
      told = viv__now_ns();
    }
    if (status != VIV_OK) continue;
    if (!(e.flags & VIV_EVENT_FINAL)) {
      result_add(result, &e);
      continue;
    }
    if (e.status < 0 && e.error) *error = *e.error;
    return e.status;
  }
}

static int32_t run(const hand *h, const order *o, viv__buf *result, viv_error *error) {
  viv_model *m = NULL;
  viv_job *job = NULL;
  viv_request q = {.struct_size = sizeof q,
                   .n_inputs = o->n,
                   .task = o->task,
                   .params = o->params,
                   .inputs = o->list};
  int32_t status = viv_load(h->rt, o->model, o->load, &m, error);
  if (status < 0) return status;
  status = viv_submit(m, &q, &job, error);
  if (status >= 0) status = follow(h, job, result, error);
  viv_job_free(job);
  viv_unload(m);
  return status;
}

/* The result's id is the job's: a second one is dropped by the stream. True: it is stored. */
static bool store(const hand *h, const order *o, const char *id, int32_t status, viv__buf *result) {
  char subject[256], result_id[300];
  jsPubOptions options;
  jsErrCode code = 0;
  natsStatus s = NATS_OK;
  if (object_needed(h, result)) {
    viv__buf info = {0}, note = {0};
    s = object_put(h, id, result, &info);
    if (s == NATS_OK) result_elsewhere(&note, id, &info, status);
    viv__buf_free(&info);
    viv__buf_free(result);
    *result = note;
  }
  snprintf(subject, sizeof subject, RESULTS "%s", o->reply ? o->reply : "all");
  snprintf(result_id, sizeof result_id, "%s", id);
  jsPubOptions_Init(&options);
  options.MsgId = result_id;
  if (s == NATS_OK && result->failed) s = NATS_NO_MEMORY;
  if (s == NATS_OK)
    s = js_Publish(NULL, h->js, subject, result->ptr, (int)result->len, &options, &code);
  if (s != NATS_OK) say("a result was not stored", natsStatus_GetText(s));
  return s == NATS_OK;
}

/* Who published it named it; else its place in the stream does. */
static void name_message(natsMsg *msg, char id[256], uint64_t *delivered) {
  const char *given = NULL;
  jsMsgMetaData *meta = NULL;
  *delivered = 1;
  bool named = natsMsgHeader_Get(msg, "Nats-Msg-Id", &given) == NATS_OK && given && *given;
  if (natsMsg_GetMetaData(&meta, msg) == NATS_OK) *delivered = meta->NumDelivered;
  if (named)
    snprintf(id, 256, "%s", given);
  else
    snprintf(id, 256, "seq-%llu", (unsigned long long)(meta ? meta->Sequence.Stream : 0));
  jsMsgMetaData_Destroy(meta);
}

static void serve(hand *h, natsMsg *msg) {
  char id[256];
  uint64_t delivered;
  order *o = calloc(1, sizeof *o);
  viv__buf result = {0};
  viv_error error = VIV_ERROR_INIT;
  h->msg = msg;
  name_message(msg, id, &delivered);
  if (!o || !reach_daemon(h)) {
    natsMsg_Nak(msg, NULL);
    free(o);
    return;
  }
  int32_t status = order_read(o, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), &error);
  result_begin(&result, id);
  if (status >= 0) status = run(h, o, &result, &error);
  /* What may work later, or died with a worker that others killed too, is tried again; not for ever. */
  bool again = status == VIV_NOT_NOW || (status == VIV_BUG && delivered < TRIES);
  if (status == VIV_NOT_NOW || status == VIV_BUG) { /* the daemon may be another one now */
    viv_close(h->rt);
    h->rt = NULL;
  }
  if (again) {
    natsMsg_NakWithDelay(msg, PATIENCE_MS, NULL);
  } else {
    result_end(&result, status, &error);
    jsErrCode code = 0;
    /* Without an acknowledgement it comes again. */
    if (!result.failed && store(h, o, id, status, &result)) natsMsg_AckSync(msg, NULL, &code);
  }
  viv__buf_free(&result);
  order_free(o);
  free(o);
}

static bool subscribe(hand *h) {
  jsSubOptions options;
  jsErrCode code = 0;
  jsSubOptions_Init(&options);
  options.Stream = "VIVARIUM_JOBS";
  options.Consumer = "vivd";
  return js_PullSubscribe(&h->queue, h->js, JOBS, "vivd", NULL, &options, &code) == NATS_OK;
}

static void *work(void *context) {
  hand h = {.nats = nats, .patience_ns = (uint64_t)ack_wait_s * 1000000000u / 3};
  (void)context;
  while (!atomic_load(&leaving)) {
    natsMsgList list = {0};
    if ((!h.js && natsConnection_JetStream(&h.js, nats, NULL) != NATS_OK) ||
        (!h.queue && !subscribe(&h))) {
      pause_ms(PATIENCE_MS);
      continue;
    }
    natsStatus s = natsSubscription_Fetch(&list, h.queue, 1, 1000, NULL);
    if (s == NATS_OK && list.Count) serve(&h, list.Msgs[0]);
    natsMsgList_Destroy(&list);
    if (s != NATS_OK && s != NATS_TIMEOUT) { /* the server is away, or has forgotten the consumer */
      natsSubscription_Destroy(h.queue);
      h.queue = NULL;
      pause_ms(PATIENCE_MS);
    }
  }
  natsSubscription_Destroy(h.queue);
  jsCtx_Destroy(h.js);
  viv_close(h.rt);
  return NULL;
}

/* ---- the streams ---- */

/* Those that are there already are left as their owner made them. */
static natsStatus prepare(int threads) {
  jsCtx *js = NULL;
  jsErrCode code = 0;
  jsStreamConfig jobs, results;
  jsConsumerConfig consumer;
  const char *job_subjects[] = {JOBS}, *result_subjects[] = {RESULTS ">"};
  natsStatus s = natsConnection_JetStream(&js, nats, NULL);
  jsStreamConfig_Init(&jobs);
  jobs.Name = "VIVARIUM_JOBS";
  jobs.Subjects = job_subjects;
  jobs.SubjectsLen = 1;
  jobs.Retention = js_WorkQueuePolicy;
  jobs.Storage = js_FileStorage;
  jobs.Duplicates = REMEMBER_NS;
  jsStreamConfig_Init(&results);
  results.Name = "VIVARIUM_RESULTS";
  results.Subjects = result_subjects;
  results.SubjectsLen = 1;
  results.Storage = js_FileStorage;
  results.Duplicates = REMEMBER_NS;
  if (s == NATS_OK) {
    s = js_AddStream(NULL, js, &jobs, NULL, &code);
    if (code == JSStreamNameExistErr) s = NATS_OK;
  }
  if (s == NATS_OK) {
    s = js_AddStream(NULL, js, &results, NULL, &code);
    if (code == JSStreamNameExistErr) s = NATS_OK;
  }
  if (s == NATS_OK) s = objects_prepare(js, REMEMBER_NS);
  jsConsumerConfig_Init(&consumer);
  consumer.Durable = "vivd";
  consumer.AckPolicy = js_AckExplicit;
  consumer.AckWait = ack_wait_s * 1000000000;
  consumer.MaxAckPending = (int64_t)threads * 16; /* of all machines together */
  if (s == NATS_OK) {
    s = js_AddConsumer(NULL, js, "VIVARIUM_JOBS", &consumer, NULL, &code);
    if (code == JSConsumerNameExistErr || code == JSConsumerExistingActiveErr) s = NATS_OK;
  }
  jsCtx_Destroy(js);
  return s;
}

static natsStatus reach_server(const char *url) {
  natsOptions *o = NULL;
  natsStatus s = natsOptions_Create(&o);
  if (s == NATS_OK) s = natsOptions_SetURL(o, url);
  if (s == NATS_OK) s = natsOptions_SetMaxReconnect(o, -1);
  if (s == NATS_OK) s = natsOptions_SetReconnectWait(o, PATIENCE_MS);
  if (s == NATS_OK) s = natsOptions_SetName(o, "vivd");
  if (s == NATS_OK) s = natsConnection_Connect(&nats, o);
  natsOptions_Destroy(o);
  return s;
}

static int number_of(const char *name, int least, int most, int otherwise) {
  const char *text = getenv(name);
  int n = text ? atoi(text) : otherwise;
  return n < least ? least : n > most ? most : n;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS_MOST];
  int n = number_of("VIV_NATS_JOBS", 1, THREADS_MOST, 16);
  ack_wait_s = number_of("VIV_NATS_ACK_WAIT_S", 1, 3600, 30);
  if (argc != 3) {
    fprintf(stderr, "Usage: vivd-nats SOCKET URL\n\nvivd --nats URL runs it.\n");
    return 2;
  }
  socket_path = argv[1];
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
  struct sigaction act = {.sa_handler = on_signal};
  sigaction(SIGTERM, &act, NULL);
  sigaction(SIGINT, &act, NULL);
  signal(SIGPIPE, SIG_IGN);
  natsStatus s = NATS_ERR;
  for (int i = 0; s != NATS_OK && !atomic_load(&leaving); i++) {
    s = nats ? NATS_OK : reach_server(argv[2]);
    if (s == NATS_OK) s = prepare(n);
    if (s != NATS_OK && !(i % 40)) say(argv[2], natsStatus_GetText(s));
    if (s != NATS_OK) pause_ms(PATIENCE_MS);
  }
  int begun = 0;
  while (begun < n && !atomic_load(&leaving) && !pthread_create(&threads[begun], NULL, work, NULL))
    begun++;
  for (int i = 0; i < begun; i++) pthread_join(threads[i], NULL);
  natsConnection_Destroy(nats);
  nats_Close();
  return s == NATS_OK ? 0 : 1;
}
