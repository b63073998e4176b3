/* Transforms of signals and recurrent networks. */
#include "ops.h"

#include "nn/audio.h"

/* ---- stft ---- */

struct frames {
  int32_t n_fft, hop;
  int64_t bins;
  bool centred;
  float scale; /* of a normalized transform */
  float *window;
};

static struct frames frames_of(struct golden *g) {
  struct frames f = {.n_fft = (int32_t)num_param(g, "n_fft", 0),
                     .hop = (int32_t)num_param(g, "hop_length", 1),
                     .centred = flag_param(g, "center", true)};
  int64_t length = (int64_t)num_param(g, "win_length", f.n_fft);
  f.bins = f.n_fft / 2 + 1;
  f.scale = flag_param(g, "normalized", false) ? 1.0f / sqrtf((float)f.n_fft) : 1.0f;
  f.window = take_floats(g, f.n_fft);
  memset(f.window, 0, (size_t)f.n_fft * sizeof *f.window);
  nn_window_fill(NN_WINDOW_HANN, true, 0, length, f.window + (f.n_fft - length) / 2);
  return f;
}

static bool stft(struct golden *g) {
  struct frames f = frames_of(g);
  struct array x = input(g, "input");
  int64_t pad = f.centred ? f.n_fft / 2 : 0, samples = x.n + 2 * pad;
  float *padded = take_floats(g, samples);
  bool reflect = !strcmp(text_param(g, "pad_mode", ""), "reflect");
  nn_pad_signal(x.data, x.n, pad, pad, reflect ? VIV_PAD_REFLECT : VIV_PAD_ZEROS, padded);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = f.n_fft,
                .hop = f.hop,
                .rows = 1,
                .samples = samples,
                .frames = 1 + (samples - f.n_fft) / f.hop,
                .window = f.window,
                .x = padded};
  int64_t n = a.frames * f.bins;
  a.out = take_floats(g, 2 * n);
  g->c->stft(g->c, &a);
  float *parts[2] = {take_floats(g, n), take_floats(g, n)};
  for (int64_t t = 0; t < a.frames; t++)
    for (int64_t k = 0; k < 2 * f.bins; k++)
      parts[k % 2][k / 2 * a.frames + t] = f.scale * a.out[t * 2 * f.bins + k];
  output(g, "real", parts[0], n);
  output(g, "imag", parts[1], n);
  return true;
}

/* The changes that a case makes to the spectrum [frames, bins, 2] first. */
static void modify(struct golden *g, float *x, int64_t frames, int64_t bins) {
  const viv_json *how = viv__json_get(g->params, "modify");
  if (!how) return;
  double phase = viv__json_num(how, "phase_of_last_bin", 0);
  int64_t gain_from = (int64_t)viv__json_num(how, "gain_from_bin", 0);
  float gain = (float)viv__json_num(how, "even_frames_gain", 1);
  const viv_json *real = viv__json_get(how, "real_bins");
  for (int64_t i = 0; i < frames * bins; i++) {
    int64_t k = i % bins;
    double angle = phase * (double)k / (double)(bins - 1), c = cos(angle), s = sin(angle);
    double re = x[2 * i] * c - x[2 * i + 1] * s, im = x[2 * i] * s + x[2 * i + 1] * c;
    float m = i / bins % 2 == 0 && k >= gain_from ? gain : 1;
    x[2 * i] = (float)re * m;
    x[2 * i + 1] = (float)im * m;
    for (int64_t r = 0; r < viv__json_count(real); r++)
      if ((int64_t)viv__json_number(viv__json_item(real, r)) == k) x[2 * i + 1] = 0;
  }
}

static bool istft(struct golden *g) {
  struct frames f = frames_of(g);
  struct array re = input(g, "real"), im = input(g, "imag");
  int64_t frames = re.shape[1], full = f.n_fft + f.hop * (frames - 1);
  int64_t cut = f.centred ? f.n_fft / 2 : 0;
  int64_t length = (int64_t)num_param(g, "length", (double)(full - 2 * cut));
  float *spectrum = take_floats(g, 2 * re.n), *y = take_floats(g, full);
  for (int64_t k = 0; k < f.bins; k++)
    for (int64_t t = 0; t < frames; t++) {
      spectrum[(t * f.bins + k) * 2] = re.data[k * frames + t] / f.scale;
      spectrum[(t * f.bins + k) * 2 + 1] = im.data[k * frames + t] / f.scale;
    }
  modify(g, spectrum, frames, f.bins);
  g->c->istft(g->c, f.n_fft, f.hop, f.window, spectrum, 1, frames, y);
  float *out = take_floats(g, length);
  for (int64_t i = 0; i < length; i++) out[i] = i + cut < full ? y[i + cut] : 0;
  output(g, "y", out, length);
  return true;
}

/* ---- recurrent networks ---- */

static struct array named(struct golden *g, const char *name, int64_t layer) {
  char full[64];
  if (layer < 0)
    snprintf(full, sizeof full, "%s", name);
  else
    snprintf(full, sizeof full, "%s_l%lld", name, (long long)layer);
  return input(g, full);
}

/* One layer over x [steps, rows, in] in place of y [steps, rows, hidden]. layer -1: a cell. */
static void layer(struct golden *g, int64_t at, const float *x, int64_t steps, int64_t rows,
                  float *h, float *c, float *y) {
  struct array wi = named(g, "weight_ih", at), wh = named(g, "weight_hh", at);
  viv_rnn a = {.struct_size = sizeof a,
               .kind = VIV_LSTM,
               .input = (int32_t)wi.shape[1],
               .hidden = (int32_t)wh.shape[1],
               .rows = (int32_t)rows,
               .steps = steps,
               .w_input = prepared(g, wi),
               .w_hidden = prepared(g, wh),
               .b_input = named(g, "bias_ih", at).data,
               .b_hidden = named(g, "bias_hh", at).data,
               .x = x,
               .x_step_stride = rows * wi.shape[1],
               .x_row_stride = wi.shape[1],
               .h = h,
               .c = c,
               .y = y,
               .y_step_stride = rows * wh.shape[1],
               .y_row_stride = wh.shape[1]};
  a.scratch = take_floats(g, (int64_t)g->c->rnn_scratch(g->c, &a));
  g->c->rnn(g->c, &a);
}

static bool lstm(struct golden *g) {
  bool skip = !strcmp(text_param(g, "op", ""), "slstm");
  struct array x = input(g, skip ? "x" : "input"), h0 = input(g, "h_0"), c0 = input(g, "c_0");
  int64_t steps = x.shape[0], rows = x.shape[1], hidden = (int64_t)num_param(g, "hidden_size", 0);
  int64_t layers = (int64_t)num_param(g, "num_layers", 1), state = layers * rows * hidden;
  float *h = take_floats(g, state), *c = take_floats(g, state), *from = x.data;
  memset(h, 0, (size_t)state * sizeof *h);
  memset(c, 0, (size_t)state * sizeof *c);
  if (h0.data) memcpy(h, h0.data, (size_t)state * sizeof *h);
  if (c0.data) memcpy(c, c0.data, (size_t)state * sizeof *c);
  for (int64_t l = 0; l < layers; l++) {
    float *y = take_floats(g, steps * rows * hidden);
    layer(g, l, from, steps, rows, h + l * rows * hidden, c + l * rows * hidden, y);
    from = y;
  }
  if (skip) { /* [time, row, channel] -> [row, channel, time] */
    float *y = take_floats(g, x.n);
    static const int32_t perm[3] = {1, 2, 0};
    g->c->add(g->c, from, x.data, x.n);
    g->c->permute(g->c, from, 3, x.shape, perm, y);
    from = y;
  }
  output(g, skip ? "y" : "output", from, steps * rows * hidden);
  output(g, "h_n", h, state);
  output(g, "c_n", c, state);
  return true;
}

static bool lstm_cell(struct golden *g) {
  struct array x = input(g, "input"), h = input(g, "h_0"), c = input(g, "c_0");
  layer(g, -1, x.data, 1, x.shape[0], h.data, c.data, NULL);
  output(g, "h_1", h.data, h.n);
  output(g, "c_1", c.data, c.n);
  return true;
}

const struct op signal_ops[] = {
    {"stft", stft},  {"istft", istft},         {"lstm", lstm},
    {"slstm", lstm}, {"lstm_cell", lstm_cell}, {NULL, NULL},
};
