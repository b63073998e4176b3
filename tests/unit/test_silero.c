/* Silero over a stream: window by window what the whole recording gives, without taking memory. */
#include <math.h>

#include "pass_rt.h"
#include "speech.h"

#define VAD "zoo/models/silero-vad"

struct heard {
  float chance[4096];
  int32_t events[256];
  int64_t n, n_events;
  int32_t status;
  viv_error error;
};

static void listen(viv_runtime *rt, viv_model *m, const char *task, const float *x, int64_t n,
                   int64_t piece, struct heard *h) {
  viv_stream *s = NULL;
  viv_job *job = NULL;
  viv_event ev;
  viv_error e = VIV_ERROR_INIT;
  memset(h, 0, sizeof *h);
  cr_assert_eq(viv_stream_open(rt, 1 << 16, &s, &e), VIV_OK);
  viv_value value = {
      .struct_size = sizeof value, .kind = VIV_KIND_STREAM, .name = viv__str("audio"), .stream = s};
  const viv_value *list[] = {&value};
  viv_request q = {
      .struct_size = sizeof q, .task = task, .n_inputs = 1, .inputs = list, .max_queued_events = 8};
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  for (int64_t at = 0, open = 1, ended = 0; !ended;) {
    int64_t some = n - at < piece ? n - at : piece;
    if (some && viv_stream_push(s, x + at, (uint64_t)some * 4, 0) == VIV_OK) at += some;
    if (at == n && open) viv_stream_close(s), open = 0;
    while (viv_next_event(job, at == n ? 60000 : 0, &ev) == VIV_OK) {
      if (ev.kind == VIV_KIND_TENSOR && viv__str_eq(ev.name, "probabilities"))
        h->chance[h->n++] = *(const float *)ev.tensor->data;
      if (ev.kind == VIV_KIND_TENSOR && viv__str_eq(ev.name, "events")) {
        memcpy(h->events + 2 * h->n_events, ev.tensor->data, 8);
        h->n_events++;
      }
      if (ev.kind != VIV_KIND_END) continue;
      ended = 1;
      h->status = ev.status;
      if (ev.error) h->error = *ev.error;
    }
  }
  viv_job_free(job);
  viv_stream_free(s);
}

Test(silero, a_stream_gives_what_the_whole_gives) {
  static struct heard h;
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, VAD);
  viv__sound s = speech();
  static const int64_t pieces[] = {100, 512, 9000};
  inputs in = {0};
  results whole, events;
  add_data(&in, "audio", VIV_F32, s.data, 2, (const int64_t[]){1, s.frames});
  run_task(m, "forward", &in, NULL, &whole);
  run_task(m, "voice_activity_events", &in, NULL, &events);
  const viv_tensor *p = result_of(&whole, "probabilities"), *v = result_of(&events, "events");
  cr_assert_gt(v->shape[0], 2);
  for (int i = 0; i < 3; i++) {
    listen(rt, m, "forward", s.data, s.frames, pieces[i], &h);
    cr_assert_eq(h.status, VIV_OK);
    cr_assert_eq(h.n, p->shape[0]);
    for (int64_t k = 0; k < h.n; k++)
      cr_assert(fabsf(h.chance[k] - ((float *)p->data)[k]) < 1e-5f, "window %lld", (long long)k);
    listen(rt, m, "voice_activity_events", s.data, s.frames, pieces[i], &h);
    cr_assert_eq(h.n_events, v->shape[0]);
    cr_assert_arr_eq(h.events, v->data, v->bytes);
  }
  free_results(&whole);
  free_results(&events);
  viv__sound_free(&s);
  viv_unload(m);
  viv_close(rt);
}

Test(silero, a_running_stream_takes_no_memory) {
  static struct heard h;
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, VAD);
  float *x = calloc(512 * 400, sizeof *x);
  long made[3];
  for (int i = 0; i < 3; i++) {
    viv__fail_alloc(0);
    listen(rt, m, "forward", x, i == 2 ? 512 * 400 : 512 * 100, 512, &h);
    made[i] = viv__fail_alloc(0);
  }
  cr_assert_leq(made[2], made[1] + 4, "%ld allocations, then %ld", made[1], made[2]);
  free(x);
  viv_unload(m);
  viv_close(rt);
}

Test(silero, bad_streams_are_refused) {
  static struct heard h;
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, VAD);
  float x[600] = {0};
  x[5] = NAN;
  listen(rt, m, "forward", x, 600, 100, &h);
  cr_assert_eq(h.status, VIV_BAD_INPUT);
  cr_assert(strstr(h.error.message, "sample 5"), "%s", h.error.message);
  listen(rt, m, "forward", x, 0, 100, &h);
  cr_assert(strstr(h.error.message, "no samples"), "%s", h.error.message);
  listen(rt, m, "voice_activity", x, 5, 100, &h);
  cr_assert_eq(h.status, VIV_NEVER);
  viv_unload(m);
  viv_close(rt);
}
