/* Silero VAD: the network and its tasks.
 *
 *   window [512] after the last 64 samples of the one before (zeros first), 64 more by reflection
 *     |  |STFT|: a convolution with the stored DFT basis            [129, 4]
 *     |  4 convolutions k3 + ReLU, strides 1, 2, 2, 1               [128]
 *     |  LSTM cell over the windows, ReLU, linear, sigmoid
 *   probability of speech
 *
 * The convolutions of a block of windows are one batch; only the LSTM goes step by step. Official:
 * silero_vad/data/silero_vad.jit, silero_vad/utils_vad.py. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/sound.h"
#include "silero/silero.h"

enum { BLOCK = 64 }; /* windows of one batch of convolutions */

struct clip {
  const float *x; /* [samples] at the model's rate */
  int64_t samples;
  int64_t before; /* samples that lie before x */
  int64_t rate;   /* of the input */
  int64_t step;   /* above 1: every step-th sample of the input was taken */
  bool resampled; /* by a filter, from another rate */
};

/* ---- the network ---- */

/* Window `at` with its context and its reflection: [context + window + pad]. */
static void frame(const struct silero_config *c, const struct clip *clip, int64_t at, float *y) {
  int64_t n = c->context + c->window, from = at * c->window - c->context;
  for (int64_t i = 0; i < n; i++) {
    int64_t k = from + i;
    y[i] = k >= -clip->before && k < clip->samples ? clip->x[k] : 0;
  }
  for (int64_t i = 0; i < c->pad; i++) y[n + i] = y[n - 2 - i];
}

static void tap_window(nn_pass *p, const nn_map *map, int64_t at, const char *name) {
  int64_t n = (int64_t)map->channels * map->size[0];
  nn_tap(p, map->x + at * n, NN_DIMS(1, map->channels, map->size[0]), "%s", name);
}

/* Windows [at, at + n) to the LSTM's inputs y [n, hidden]. tapped: a window of the block or -1. */
static void encode(nn_pass *p, const struct clip *clip, int64_t at, int64_t n, int64_t tapped,
                   float *y) {
  static const char *const names[SILERO_CONVS] = {"conv1", "conv2", "conv3", "conv4"};
  const struct silero_model *m = nn_net_of(p);
  const struct silero_config *c = &m->config;
  nn_mark mark = nn_here(p);
  int32_t length = (int32_t)(c->context + c->window + c->pad);
  nn_map x = nn_new_map(p, (int32_t)n, 1, 1, &length, VIV_CHANNELS_FIRST);
  for (int64_t i = 0; i < n; i++) frame(c, clip, at + i, x.x + i * length);
  nn_map s = nn_apply_conv(p, &m->stft, 0, &x);
  nn_map a = nn_new_map(p, (int32_t)n, (int32_t)c->bins, 1, s.size, VIV_CHANNELS_FIRST);
  int64_t half = c->bins * s.size[0];
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < half; k++) {
      float re = s.x[2 * i * half + k], im = s.x[(2 * i + 1) * half + k];
      a.x[i * half + k] = sqrtf(re * re + im * im);
    }
  if (tapped >= 0) tap_window(p, &a, tapped, "magnitude");
  for (int32_t i = 0; i < SILERO_CONVS; i++) {
    a = nn_apply_conv(p, &m->conv[i], VIV_RELU, &a);
    if (tapped >= 0) tap_window(p, &a, tapped, names[i]);
  }
  memcpy(y, a.x, (size_t)(n * SILERO_HIDDEN) * sizeof *y);
  nn_release(p, mark);
}

/* x [n, hidden] -> y [n, hidden]; state [2, hidden] = h, c. */
static void recur(nn_pass *p, const float *x, int64_t n, float *state, float *y) {
  const struct silero_model *m = nn_net_of(p);
  const viv_compute *k = nn_compute_of(p);
  viv_rnn r = {.struct_size = sizeof r,
               .kind = VIV_LSTM,
               .input = SILERO_HIDDEN,
               .hidden = SILERO_HIDDEN,
               .rows = 1,
               .steps = n,
               .w_input = m->w_input,
               .w_hidden = m->w_hidden,
               .b_input = m->b_input,
               .b_hidden = m->b_hidden,
               .x = x,
               .x_step_stride = SILERO_HIDDEN,
               .x_row_stride = SILERO_HIDDEN,
               .h = state,
               .c = state + SILERO_HIDDEN,
               .y = y,
               .y_step_stride = SILERO_HIDDEN,
               .y_row_stride = SILERO_HIDDEN};
  nn_mark mark = nn_here(p);
  r.scratch = nn_room(p, (int64_t)k->rnn_scratch(k, &r) + 1);
  k->rnn(k, &r);
  nn_release(p, mark);
}

static float probability(const struct silero_model *m, const float *h) {
  double sum = (double)m->final_b[0];
  for (int32_t i = 0; i < SILERO_HIDDEN; i++)
    if (h[i] > 0) sum += (double)h[i] * (double)m->final_w[i];
  return (float)(1.0 / (1.0 + exp(-sum)));
}

/* One probability per window, the last one filled up with zeros: [*windows]. */
static float *listen(nn_pass *p, const struct clip *clip, bool whole_only, int64_t *windows) {
  const struct silero_model *m = nn_net_of(p);
  int64_t w = m->config.window, n = clip->samples / w, d = SILERO_HIDDEN;
  if (!whole_only && clip->samples % w) n++;
  int64_t tapped = nn_param_int(p, "tap_step", 0, 0, INT32_MAX);
  float *out = nn_room(p, n + 1), *state = nn_room(p, 2 * d);
  float *x = nn_room(p, BLOCK * d), *h = nn_room(p, BLOCK * d);
  memset(state, 0, (size_t)(2 * d) * sizeof *state);
  for (int64_t at = 0; at < n; at += BLOCK) {
    int64_t block = n - at < BLOCK ? n - at : BLOCK;
    nn_pass_poll(p);
    encode(p, clip, at, block, tapped >= at && tapped < at + block ? tapped - at : -1, x);
    bool stepwise = false;
    for (int64_t i = 0; i < block; i++)
      stepwise = stepwise || nn_taps(p, "state.%lld", (long long)(at + i));
    if (!stepwise) recur(p, x, block, state, h);
    for (int64_t i = 0; i < block; i++) {
      if (stepwise) {
        recur(p, x + i * d, 1, state, h + i * d);
        nn_tap(p, state, NN_DIMS(2, 1, d), "state.%lld", (long long)(at + i));
      }
      out[at + i] = probability(m, h + i * d);
    }
    nn_progress(p, (double)(at + block) / (double)n);
  }
  *windows = n;
  return out;
}

/* ---- inputs ---- */

/* Channels are averaged; of a multiple of the model's rate every k-th sample is taken, as the official
 * code does; other rates are resampled. */
static struct clip clip_of(nn_pass *p, const char *name) {
  const struct silero_model *m = nn_net_of(p);
  int64_t shape[2] = {0, 0}, to = m->config.rate;
  const float *x = nn_need_floats(p, name, 2, shape);
  struct clip c = {.samples = shape[1], .step = 1};
  c.rate = nn_param_int(p, "sampling_rate", to, 1000, 768000);
  if (shape[0] < 1 || shape[1] < 1) nn_stop(p, VIV_BAD_INPUT, name, "holds no samples");
  float *mono = nn_room(p, c.samples);
  for (int64_t t = 0; t < c.samples; t++) {
    float sum = 0;
    for (int64_t k = 0; k < shape[0]; k++) sum += x[k * c.samples + t];
    mono[t] = shape[0] > 1 ? sum / (float)shape[0] : sum;
    if (!isfinite(mono[t]))
      nn_stop(p, VIV_BAD_INPUT, name, "sample %lld is no finite number", (long long)t);
  }
  c.x = mono;
  if (c.rate % to == 0) {
    c.step = c.rate / to;
    c.samples = (c.samples + c.step - 1) / c.step;
    for (int64_t t = 0; t < c.samples; t++) mono[t] = mono[t * c.step];
    return c;
  }
  nn_resample r = nn_resample_default(c.rate, to);
  int64_t n = nn_resample_length(&r, c.samples);
  float *y = nn_room(p, n), *scratch = nn_room(p, (int64_t)nn_resample_scratch(&r) + 1);
  nn_resample_run(nn_compute_of(p), &r, mono, c.samples, y, scratch);
  c.x = y;
  c.samples = n;
  c.resampled = true;
  return c;
}

/* rate: that of the probabilities' windows. */
static struct silero_rules rules_of(nn_pass *p, int64_t rate) {
  const double never = INFINITY;
  struct silero_rules r = {.window = rate == 8000 ? 256 : 512};
  double per_ms = (double)rate / 1000;
  r.threshold = nn_param_num(p, "threshold", 0.5, 0, 1);
  r.neg_threshold = nn_param_num(p, "neg_threshold", fmax(r.threshold - 0.15, 0.01), -1, 1);
  r.min_speech = nn_param_num(p, "min_speech_duration_ms", 250, 0, 1e9) * per_ms;
  r.min_silence = nn_param_num(p, "min_silence_duration_ms", 100, 0, 1e9) * per_ms;
  r.pad = nn_param_num(p, "speech_pad_ms", 30, 0, 1e9) * per_ms;
  r.min_silence_at_max = nn_param_num(p, "min_silence_at_max_speech", 98, 0, 1e9) * per_ms;
  r.max_speech = nn_param(p, "max_speech_duration_s")
                     ? nn_param_num(p, "max_speech_duration_s", 0, 0, 1e9) * (double)rate
                     : never;
  r.max_speech -= (double)r.window + 2 * r.pad;
  r.longest_silence = nn_param_flag(p, "use_max_poss_sil_at_max_speech", true);
  return r;
}

static double *doubles(nn_pass *p, const float *x, int64_t n) {
  double *y = nn_bytes(p, n + 1, sizeof *y);
  for (int64_t i = 0; i < n; i++) y[i] = (double)x[i];
  return y;
}

/* ---- results ---- */

/* Decimal rounding of the exact value, as Python's round(x, digits). */
static double rounded(double x, int64_t digits) {
  char text[64];
  snprintf(text, sizeof text, "%.*f", (int)digits, x);
  return strtod(text, NULL);
}

static void say_segments(nn_pass *p, const struct silero_segment *s, int64_t n, double rate) {
  char line[96];
  if (!nn_wants_result(p, "text")) return;
  for (int64_t i = 0; i < n; i++) {
    int len = snprintf(line, sizeof line, "%9.3f s  to %9.3f s\n", (double)s[i].start / rate,
                       (double)s[i].end / rate);
    nn_result_text(p, VIV_KIND_TEXT, "text", (viv_str){line, (uint64_t)len});
  }
  if (!n) nn_result_text(p, VIV_KIND_TEXT, "text", nn_str("no speech\n"));
}

static void hand_over(nn_pass *p, const struct silero_segment *s, int64_t n, const struct clip *c,
                      int64_t rate) {
  bool seconds = nn_param_flag(p, "return_seconds", false);
  int64_t digits = nn_param_int(p, "time_resolution", 1, 0, 15);
  double length = (double)c->samples / (double)rate;
  float *times = nn_room(p, 2 * n + 1);
  int32_t *samples = nn_bytes(p, 2 * n + 1, sizeof *samples);
  for (int64_t i = 0; i < n; i++) {
    times[2 * i] = (float)fmax(rounded((double)s[i].start / (double)rate, digits), 0);
    times[2 * i + 1] = (float)fmin(rounded((double)s[i].end / (double)rate, digits), length);
    double scale = c->resampled ? (double)c->rate / (double)rate : (double)c->step;
    samples[2 * i] = (int32_t)((double)s[i].start * scale);
    samples[2 * i + 1] = (int32_t)((double)s[i].end * scale);
  }
  if (nn_wants_result(p, "timestamps"))
    nn_result(p, seconds ? VIV_F32 : VIV_I32, seconds ? (const void *)times : samples,
              NN_DIMS(n, 2), "timestamps");
  say_segments(p, s, n, (double)rate);
}

/* ---- streams ---- */

/* Probabilities go out window by window, events as soon as they are known; between two windows only
 * the network's state and the last samples are kept. */
struct listening {
  bool begun;
  nn_sound sound;
  float *x; /* [context + window]: the context, then the window that is filling */
  int64_t have, windows;
  float *state; /* [2, hidden] */
  struct silero_watch watch;
};

/* One window: the clip's first window has the context's samples before it. */
static float hear_window(nn_pass *p, struct listening *l) {
  const struct silero_model *m = nn_net_of(p);
  const struct silero_config *c = &m->config;
  struct clip clip = {.x = l->x + c->context, .samples = c->window, .before = c->context};
  float *in = nn_room(p, SILERO_HIDDEN), *out = nn_room(p, SILERO_HIDDEN);
  encode(p, &clip, 0, 1, -1, in);
  recur(p, in, 1, l->state, out);
  memmove(l->x, l->x + c->window, (size_t)c->context * sizeof *l->x);
  l->have = 0;
  l->windows++;
  return probability(m, out);
}

static int32_t listen_stream(nn_pass *p, bool events) {
  const struct silero_model *m = nn_net_of(p);
  const struct silero_config *c = &m->config;
  struct listening *l = nn_state(p, sizeof *l);
  if (!l->begun) {
    l->begun = true;
    nn_sound_open(p, &l->sound, "audio", c->rate, 1, true);
    l->x = nn_keep(p, c->context + c->window, sizeof *l->x);
    l->state = nn_keep(p, (int64_t)2 * SILERO_HIDDEN, sizeof *l->state);
    l->watch.rules = rules_of(p, c->rate);
    l->watch.rules.window = c->window;
    l->watch.rules.neg_threshold = l->watch.rules.threshold - 0.15;
  }
  bool ended = false;
  while (l->have < c->window && !ended) {
    int64_t got = 0;
    int32_t rc =
        nn_sound_read(p, &l->sound, l->x + c->context + l->have, c->window - l->have, &got);
    if (rc == VIV_WAIT) return rc;
    ended = rc == VIV_DONE;
    l->have += got;
  }
  if (ended && !l->windows && !l->have) nn_stop(p, VIV_BAD_INPUT, "audio", "holds no samples");
  if (ended && (!l->have || (events && nn_param_flag(p, "drop_last_window", false))))
    return VIV_DONE;
  memset(l->x + c->context + l->have, 0, (size_t)(c->window - l->have) * sizeof *l->x);
  float chance = hear_window(p, l);
  if (!events) nn_result(p, VIV_F32, &chance, NN_DIMS(1), "probabilities");
  int32_t event[2];
  if (events && silero_watch(&l->watch, (double)chance, event)) {
    char line[96];
    int len = snprintf(line, sizeof line, "%9.3f s  %s\n", (double)event[1] / (double)c->rate,
                       event[0] ? "end" : "speech");
    nn_result(p, VIV_I32, event, NN_DIMS(1, 2), "events");
    nn_result_text(p, VIV_KIND_TEXT, "text", (viv_str){line, (uint64_t)len});
  }
  return ended ? VIV_DONE : VIV_MORE;
}

/* ---- tasks ---- */

static int32_t forward(nn_pass *p) {
  if (nn_streamed(p, "audio")) return listen_stream(p, false);
  struct clip c = clip_of(p, nn_input(p, "x") ? "x" : "audio");
  int64_t n = 0;
  float *probabilities = listen(p, &c, false, &n);
  nn_result(p, VIV_F32, probabilities, NN_DIMS(n), "probabilities");
  return VIV_DONE;
}

static int32_t voice_activity(nn_pass *p) {
  if (nn_streamed(p, "audio"))
    nn_stop(p, VIV_NEVER, "audio",
            "where speech ends is known when all is heard: a stream wants voice_activity_events");
  const struct silero_model *m = nn_net_of(p);
  struct clip c = clip_of(p, nn_input(p, "x") ? "x" : "audio");
  struct silero_rules rules = rules_of(p, m->config.rate);
  rules.window = m->config.window;
  int64_t n = 0;
  float *probabilities = listen(p, &c, false, &n);
  struct silero_segment *s = nn_bytes(p, 2 * (n + 1), sizeof *s);
  int64_t found = silero_segments(&rules, doubles(p, probabilities, n), n, c.samples, s, s + n + 1);
  if (nn_wants_result(p, "probabilities"))
    nn_result(p, VIV_F32, probabilities, NN_DIMS(n), "probabilities");
  hand_over(p, s, found, &c, m->config.rate);
  return VIV_DONE;
}

static int32_t events_task(nn_pass *p) {
  if (nn_streamed(p, "audio")) return listen_stream(p, true);
  const struct silero_model *m = nn_net_of(p);
  struct clip c = clip_of(p, nn_input(p, "x") ? "x" : "audio");
  struct silero_rules rules = rules_of(p, m->config.rate);
  rules.window = m->config.window;
  rules.neg_threshold = rules.threshold - 0.15;
  int64_t n = 0;
  float *probabilities = listen(p, &c, nn_param_flag(p, "drop_last_window", false), &n);
  int32_t *events = nn_bytes(p, 2 * n + 2, sizeof *events);
  int64_t found = silero_events(&rules, doubles(p, probabilities, n), n, events);
  nn_result(p, VIV_I32, events, NN_DIMS(found, 2), "events");
  return VIV_DONE;
}

/* Probabilities that somebody else computed, as numbers of params (which are doubles) or a tensor. */
static int32_t postprocess(nn_pass *p) {
  const struct silero_model *m = nn_net_of(p);
  int64_t shape[1] = {0};
  const viv_tensor *t = nn_need(p, "probabilities");
  struct clip c = {.step = nn_param_int(p, "step", 1, 1, 1000)};
  c.rate = nn_param_int(p, "sampling_rate", m->config.rate, 8000, 16000);
  const double *values = t->dtype == VIV_F64 && t->ndim == 1 ? t->data : NULL;
  shape[0] = t->ndim == 1 ? t->shape[0] : 0;
  if (!values) values = doubles(p, nn_need_floats(p, "probabilities", 1, shape), shape[0]);
  int64_t n = shape[0];
  struct silero_rules rules = rules_of(p, c.rate);
  c.samples = nn_param_int(p, "audio_length_samples", n * rules.window, 0, INT32_MAX);
  struct silero_segment *s = nn_bytes(p, 2 * (n + 1), sizeof *s);
  hand_over(p, s, silero_segments(&rules, values, n, c.samples, s, s + n + 1), &c, c.rate);
  return VIV_DONE;
}

const nn_task silero_tasks[] = {{"voice_activity", voice_activity},
                                {"voice_activity_events", events_task},
                                {"forward", forward},
                                {"postprocess", postprocess},
                                {NULL, NULL}};
