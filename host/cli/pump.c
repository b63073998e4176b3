/* Feeding a job's stream from one thread and pulling its results on another. */
#include "cli/pump.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "media/sound.h"

enum { PIECE = 16384, RING = 1 << 18, POLL_MS = 100 };

struct feeding {
  viv__pump_source source;
  void *context;
  viv_stream *stream;
  viv_job *job;
  atomic_bool stop;
  int32_t status; /* of the source; read after the thread was joined */
  viv_error error;
};

static void *feed(void *arg) {
  struct feeding *f = arg;
  char *piece = viv__need(viv__malloc(PIECE));
  f->status = VIV_OK;
  while (!atomic_load(&f->stop)) {
    uint64_t n = 0;
    int32_t status = f->source(f->context, piece, PIECE, &n, &f->error);
    if (status == VIV_WAIT) continue;
    if (status == VIV_DONE) break;
    if (status < 0) {
      f->status = status;
      viv_job_cancel(f->job); /* what has come is not the whole */
      break;
    }
    while (!atomic_load(&f->stop) && viv_stream_push(f->stream, piece, n, POLL_MS) == VIV_WAIT)
      ;
  }
  viv_stream_close(f->stream);
  viv__free(piece);
  return NULL;
}

static void pull(viv_job *job, viv__pump_sink sink, void *context, viv__outcome *out,
                 int32_t *failed, viv_error *error) {
  viv_event event = {.struct_size = sizeof event};
  bool cancelled = false;
  for (;;) {
    int32_t status = viv_next_event(job, POLL_MS, &event);
    if (viv__interrupted() && !cancelled) {
      viv_job_cancel(job);
      cancelled = true;
    }
    if (status == VIV_WAIT) continue;
    if (status != VIV_OK) {
      out->status = status < 0 ? status : VIV_BUG;
      return;
    }
    if (event.flags & VIV_EVENT_FINAL) {
      viv__outcome_take(out, &event);
      return;
    }
    if (*failed >= 0 && (*failed = sink(context, &event, error)) < 0) viv_job_cancel(job);
  }
}

int32_t viv__pump_run(const viv__loaded *l, const char *task, const cJSON *params,
                      const char *input, viv__pump_source source, void *source_context,
                      viv__pump_sink sink, void *sink_context, viv__outcome *out) {
  struct feeding f = {.source = source, .context = source_context, .error = VIV_ERROR_INIT};
  viv_error failure = VIV_ERROR_INIT;
  int32_t failed = VIV_OK;
  uint64_t start = viv__now_ns();
  memset(out, 0, sizeof *out);
  out->error.struct_size = sizeof out->error;
  out->status = viv_stream_open(l->rt, RING, &f.stream, &out->error);
  if (out->status < 0) return out->status;
  viv_value value = {.struct_size = sizeof value,
                     .kind = VIV_KIND_STREAM,
                     .name = viv__str(input),
                     .stream = f.stream};
  const viv_value *values[1] = {&value};
  char *text = params ? viv__need(cJSON_PrintUnformatted(params)) : NULL;
  viv_request request = {.struct_size = sizeof request,
                         .task = task,
                         .params = text,
                         .inputs = values,
                         .n_inputs = 1,
                         .max_queued_events = 16};
  out->status = viv_submit(l->model, &request, &f.job, &out->error);
  cJSON_free(text);
  if (out->status >= 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, feed, &f)) {
      out->status = VIV_FAIL(&out->error, VIV_NOT_NOW, NULL, "no thread for the input");
    } else {
      pull(f.job, sink, sink_context, out, &failed, &failure);
      atomic_store(&f.stop, true);
      pthread_join(thread, NULL);
    }
    viv_job_free(f.job);
  }
  viv_stream_free(f.stream);
  if (f.status < 0 || failed < 0) {
    out->status = f.status < 0 ? f.status : failed;
    out->error = f.status < 0 ? f.error : failure;
  }
  out->seconds = (double)(viv__now_ns() - start) * 1e-9;
  return out->status;
}

/* ---- samples of standard input ---- */

int32_t viv__pcm_check(const viv__pcm *pcm, viv_error *error) {
  if (!pcm->kind || (strcmp(pcm->kind, "s16") && strcmp(pcm->kind, "f32")))
    return VIV_FAIL(error, VIV_BAD_INPUT, "standard input",
                    "say what comes: --pcm s16 or --pcm f32, and --rate");
  if (pcm->rate < VIV__SOUND_MIN_RATE || pcm->rate > VIV__SOUND_MAX_RATE)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--rate", "%lld samples a second; %d to %d are read",
                    (long long)pcm->rate, VIV__SOUND_MIN_RATE, VIV__SOUND_MAX_RATE);
  if (pcm->channels < 1 || pcm->channels > VIV__SOUND_MAX_CHANNELS)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--channels", "%lld channels; 1 to %d are read",
                    (long long)pcm->channels, VIV__SOUND_MAX_CHANNELS);
  return VIV_OK;
}

static int32_t read_stdin(char *to, size_t room, size_t *bytes, viv_error *error) {
  struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
  if (poll(&p, 1, POLL_MS) == 0) return VIV_WAIT;
  ssize_t n = read(STDIN_FILENO, to, room);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return VIV_WAIT;
  if (n < 0) return VIV_FAIL(error, VIV_NOT_NOW, "standard input", "%s", strerror(errno));
  *bytes = (size_t)n;
  return n ? VIV_OK : VIV_DONE;
}

int32_t viv__pcm_read(void *context, void *data, uint64_t room, uint64_t *bytes, viv_error *error) {
  viv__pcm *pcm = context;
  size_t size = !strcmp(pcm->kind, "s16") ? 2 : 4, unit = size * (size_t)pcm->channels, got = 0;
  size_t most = sizeof pcm->held < room / 4 * size ? sizeof pcm->held : room / 4 * size;
  int32_t status = read_stdin(pcm->held + pcm->n_held, most - pcm->n_held, &got, error);
  if (status == VIV_DONE && pcm->n_held)
    return VIV_FAIL(error, VIV_BAD_INPUT, "standard input", "the sound ends within a sample");
  if (status != VIV_OK) return status;
  pcm->n_held += got;
  size_t n = pcm->n_held / unit * (size_t)pcm->channels;
  float *y = data;
  for (size_t i = 0; i < n; i++) {
    int16_t whole;
    if (size == 2) {
      memcpy(&whole, pcm->held + 2 * i, 2);
      y[i] = (float)whole / 32768.0f;
    } else {
      memcpy(&y[i], pcm->held + 4 * i, 4);
    }
  }
  memmove(pcm->held, pcm->held + n * size, pcm->n_held - n * size);
  pcm->n_held -= n * size;
  atomic_fetch_add(&pcm->came, (long long)(n / (size_t)pcm->channels));
  *bytes = n * sizeof(float);
  return n ? VIV_OK : VIV_WAIT;
}
