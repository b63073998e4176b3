/* Transforms of signals, recurrent networks and the choice of the largest, for every instruction set,
 * against their definitions in double. */
#include "compute_rt.h"

/* ---- stft ---- */

static void definition(const viv_stft *a, float *out) {
  int64_t bins = a->n_fft / 2 + 1;
  for (int64_t f = 0; f < a->rows * a->frames; f++)
    for (int64_t k = 0; k < bins; k++) {
      const float *x = a->x + f / a->frames * a->samples + f % a->frames * a->hop;
      double re = 0, im = 0;
      for (int64_t j = 0; j < a->n_fft; j++) {
        double v = (double)x[j] * (a->window ? (double)a->window[j] : 1);
        double angle = 2 * acos(-1) * (double)(j * k % a->n_fft) / a->n_fft;
        re += v * cos(angle);
        im -= v * sin(angle);
      }
      out[(f * bins + k) * 2] = (float)re;
      out[(f * bins + k) * 2 + 1] = (float)im;
    }
}

static void check_stft(int32_t n_fft, int32_t hop, int64_t rows, int64_t frames, bool windowed) {
  int64_t samples = n_fft + (frames - 1) * hop + hop / 2, bins = n_fft / 2 + 1;
  int64_t n = rows * frames * bins * 2;
  float *x = numbers(rows * samples), *window = numbers(n_fft), *y = zeros(n), *want = zeros(n);
  char what[64];
  snprintf(what, sizeof what, "stft %d, hop %d, %lld frames", n_fft, hop, (long long)frames);
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = n_fft,
                .hop = hop,
                .rows = rows,
                .samples = samples,
                .frames = frames,
                .window = windowed ? window : NULL,
                .x = x};
  definition(&a, want);
  for (int32_t threads = 1; threads <= 3; threads += 2) EACH_SET(c, threads) {
      memset(y, 0xff, (size_t)n * sizeof *y);
      a.out = y;
      c->stft(c, &a);
      near(c, what, y, want, n, 2e-6);
    }
  free(x);
  free(window);
  free(y);
  free(want);
}

Test(signal, stft_of_any_length) {
  static const int32_t lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,   12,
                                    15, 16, 31, 49, 60, 64, 97, 100, 128, 400};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    check_stft(lengths[i], lengths[i] / 3 + 1, 1, 5, true);
    check_stft(lengths[i], lengths[i] / 4 + 1, 2, 33, i % 2);
  }
  check_stft(251, 100, 1, 2, true); /* a large prime */
  check_stft(512, 160, 3, 64, true);
  check_stft(30, 10, 2, 97, true);
}

Test(signal, a_frame_does_not_depend_on_its_neighbours) {
  enum { N = 48, HOP = 12, FRAMES = 100, BINS = N / 2 + 1 };
  float *x = numbers(N + HOP * FRAMES), *all = zeros(FRAMES * BINS * 2), one[BINS * 2];
  EACH_SET(c, 2) {
    viv_stft a = {.struct_size = sizeof a,
                  .n_fft = N,
                  .hop = HOP,
                  .rows = 1,
                  .samples = N + HOP * (FRAMES - 1),
                  .frames = FRAMES,
                  .x = x,
                  .out = all};
    c->stft(c, &a);
    for (int64_t f = 0; f < FRAMES; f += 2) { /* the real part of a pair either way */
      viv_stft b = a;
      b.samples = N;
      b.frames = 1;
      b.x = x + f * HOP;
      b.out = one;
      c->stft(c, &b);
      near(c, "a frame alone", one, all + f * BINS * 2, BINS * 2, 1e-6);
    }
  }
  free(x);
  free(all);
}

static void check_istft(int32_t n_fft, int32_t hop, int64_t rows, int64_t frames) {
  int64_t samples = n_fft + (frames - 1) * hop, bins = n_fft / 2 + 1;
  float *x = numbers(rows * samples), *window = zeros(n_fft);
  float *spectrum = zeros(rows * frames * bins * 2), *y = zeros(rows * samples);
  for (int32_t i = 0; i < n_fft; i++) window[i] = 0.1f + (float)i / (float)n_fft;
  for (int32_t threads = 1; threads <= 3; threads += 2) EACH_SET(c, threads) {
      viv_stft a = {.struct_size = sizeof a,
                    .n_fft = n_fft,
                    .hop = hop,
                    .rows = rows,
                    .samples = samples,
                    .frames = frames,
                    .window = window,
                    .x = x,
                    .out = spectrum};
      c->stft(c, &a);
      memset(y, 0xff, (size_t)(rows * samples) * sizeof *y);
      c->istft(c, n_fft, hop, window, spectrum, rows, frames, y);
      near(c, "istft of stft", y, x, rows * samples, 3e-5);
    }
  free(x);
  free(window);
  free(spectrum);
  free(y);
}

Test(signal, istft_undoes_stft) {
  check_istft(16, 4, 2, 1);
  check_istft(64, 16, 1, 500);
  check_istft(100, 33, 3, 70);
  check_istft(31, 31, 1, 9);
  check_istft(400, 160, 1, 130);
  check_istft(1, 1, 1, 5);
}

/* Samples that no frame covers are zero, not noise divided by nothing. */
Test(signal, istft_leaves_gaps_silent) {
  float spectrum[2 * 5 * 2], y[20];
  for (int i = 0; i < 20; i++) spectrum[i] = 1;
  EACH_SET(c, 1) {
    c->istft(c, 8, 12, NULL, spectrum, 1, 2, y);
    for (int i = 8; i < 12; i++) cr_assert_eq(y[i], 0);
    cr_assert(fabsf(y[0]) > 0.1f);
  }
}

Test(signal, transforms_do_without_memory) {
  enum { N = 36, HOP = 10, FRAMES = 7, BINS = N / 2 + 1, SAMPLES = N + HOP * (FRAMES - 1) };
  float *x = numbers(SAMPLES), *window = numbers(N), *y = zeros(FRAMES * BINS * 2);
  float *want = zeros(FRAMES * BINS * 2), *back = zeros(SAMPLES), *want_back = zeros(SAMPLES);
  for (int i = 0; i < N; i++) window[i] += 1.5f;
  EACH_SET(c, 2) {
    viv_stft a = {.struct_size = sizeof a,
                  .n_fft = N,
                  .hop = HOP,
                  .rows = 1,
                  .samples = SAMPLES,
                  .frames = FRAMES,
                  .window = window,
                  .x = x,
                  .out = want};
    c->stft(c, &a);
    c->istft(c, N, HOP, window, want, 1, FRAMES, want_back);
    a.out = y;
    viv__fail_alloc(1);
    c->stft(c, &a);
    viv__fail_alloc(1);
    c->istft(c, N, HOP, window, want, 1, FRAMES, back);
    viv__fail_alloc(0);
    near(c, "stft without memory", y, want, FRAMES * BINS * 2, 1e-6);
    near(c, "istft without memory", back, want_back, SAMPLES, 1e-5);
  }
  free(x);
  free(window);
  free(y);
  free(want);
  free(back);
  free(want_back);
}

/* ---- recurrent networks ---- */

static double logistic(double x) {
  return 1 / (1 + exp(-x));
}

struct net {
  int32_t kind, in, hidden, rows;
  int64_t steps;
  float *wi, *wh, *bi, *bh, *x, *h, *c;
};

/* y [steps, rows, hidden]; h and c are updated. */
static void run_definition(const struct net *n, bool reverse, double *h, double *c, double *y) {
  int32_t gates = n->kind == VIV_LSTM ? 4 : 3, d = n->hidden;
  double *in = calloc((size_t)(gates * d), sizeof *in),
         *rec = calloc((size_t)(gates * d), sizeof *rec);
  for (int64_t s = 0; s < n->steps; s++)
    for (int32_t r = 0; r < n->rows; r++) {
      int64_t t = reverse ? n->steps - 1 - s : s;
      const float *x = n->x + (t * n->rows + r) * n->in;
      double *hr = h + r * d, *cr = c + r * d;
      for (int32_t i = 0; i < gates * d; i++) {
        in[i] = n->bi ? (double)n->bi[i] : 0;
        rec[i] = n->bh ? (double)n->bh[i] : 0;
        for (int32_t k = 0; k < n->in; k++) in[i] += (double)n->wi[i * n->in + k] * (double)x[k];
        for (int32_t k = 0; k < d; k++) rec[i] += (double)n->wh[i * d + k] * hr[k];
      }
      for (int32_t i = 0; i < d; i++) {
        double a = in[i] + rec[i], b = in[d + i] + rec[d + i];
        if (n->kind == VIV_LSTM) {
          cr[i] = logistic(b) * cr[i] + logistic(a) * tanh(in[2 * d + i] + rec[2 * d + i]);
          hr[i] = logistic(in[3 * d + i] + rec[3 * d + i]) * tanh(cr[i]);
        } else {
          double fresh = tanh(in[2 * d + i] + logistic(a) * rec[2 * d + i]);
          hr[i] = (1 - logistic(b)) * fresh + logistic(b) * hr[i];
        }
      }
      for (int32_t i = 0; i < d; i++) y[(t * n->rows + r) * d + i] = hr[i];
    }
  free(in);
  free(rec);
}

static void check_rnn(int32_t kind, int32_t in, int32_t hidden, int32_t rows, int64_t steps,
                      bool reverse, bool bias) {
  int32_t gates = kind == VIV_LSTM ? 4 : 3;
  int64_t state = (int64_t)rows * hidden, n = steps * state;
  struct net net = {kind,
                    in,
                    hidden,
                    rows,
                    steps,
                    numbers(gates * hidden * in),
                    numbers((int64_t)gates * hidden * hidden),
                    bias ? numbers(gates * hidden) : NULL,
                    bias ? numbers(gates * hidden) : NULL,
                    numbers(steps * rows * in),
                    numbers(state),
                    numbers(state)};
  double *h = calloc((size_t)state, sizeof *h), *cell = calloc((size_t)state, sizeof *cell);
  double *wide = calloc((size_t)n + 1, sizeof *wide);
  for (int64_t i = 0; i < state; i++) {
    h[i] = net.h[i];
    cell[i] = net.c[i];
  }
  run_definition(&net, reverse, h, cell, wide);
  float *want = zeros(n), *want_h = zeros(state), *y = zeros(2 * n), *mine = zeros(n);
  for (int64_t i = 0; i < n; i++) want[i] = (float)wide[i];
  for (int64_t i = 0; i < state; i++) want_h[i] = (float)h[i];
  EACH_SET(c, 2) {
    viv_arena *arena = viv__arena_new(0);
    viv_tensor ti = tensor_of(net.wi, VIV_F32, gates * hidden, in);
    viv_tensor th = tensor_of(net.wh, VIV_F32, gates * hidden, hidden);
    viv_weight *wi, *wh;
    cr_assert_eq(c->weight_prepare(c, arena, &ti, VIV_WEIGHTS_F32, &wi, NULL), VIV_OK);
    cr_assert_eq(c->weight_prepare(c, arena, &th, VIV_WEIGHTS_F32, &wh, NULL), VIV_OK);
    float *h_now = zeros(state), *c_now = zeros(state);
    memcpy(h_now, net.h, (size_t)state * sizeof *h_now);
    memcpy(c_now, net.c, (size_t)state * sizeof *c_now);
    viv_rnn a = {.struct_size = sizeof a,
                 .kind = kind,
                 .input = in,
                 .hidden = hidden,
                 .rows = rows,
                 .reverse = reverse,
                 .steps = steps,
                 .w_input = wi,
                 .w_hidden = wh,
                 .b_input = net.bi,
                 .b_hidden = net.bh,
                 .x = net.x,
                 .x_step_stride = (int64_t)rows * in,
                 .x_row_stride = in,
                 .h = h_now,
                 .c = kind == VIV_LSTM ? c_now : NULL,
                 .y = y, /* [rows, steps, 2 hidden]: one half of a network in both directions */
                 .y_step_stride = 2 * hidden,
                 .y_row_stride = 2 * hidden * steps};
    a.scratch = zeros((int64_t)c->rnn_scratch(c, &a));
    c->rnn(c, &a);
    for (int64_t i = 0; i < n; i++)
      mine[i] = y[i / hidden % rows * a.y_row_stride + i / state * a.y_step_stride + i % hidden];
    near(c, kind == VIV_LSTM ? "lstm" : "gru", mine, want, n, 2e-5);
    near(c, "its last state", h_now, want_h, state, 2e-5);
    free(a.scratch);
    free(h_now);
    free(c_now);
    viv__arena_free(arena);
  }
  free(net.wi);
  free(net.wh);
  free(net.bi);
  free(net.bh);
  free(net.x);
  free(net.h);
  free(net.c);
  free(h);
  free(cell);
  free(wide);
  free(want);
  free(want_h);
  free(y);
  free(mine);
}

Test(signal, rnn_is_the_definition) {
  for (int32_t kind = VIV_LSTM; kind <= VIV_GRU; kind++) {
    check_rnn(kind, 3, 5, 1, 4, false, true);
    check_rnn(kind, 7, 16, 2, 33, true, true);
    check_rnn(kind, 5, 19, 3, 70, false, false);
    check_rnn(kind, 64, 64, 1, 10, true, true);
  }
}

/* ---- top_k ---- */

static const float *sorted_by;

static int largest_first(const void *pa, const void *pb) {
  int32_t a = *(const int32_t *)pa, b = *(const int32_t *)pb;
  float x = sorted_by[a], y = sorted_by[b];
  if (isnan(x) != isnan(y)) return isnan(x) ? -1 : 1;
  if (!isnan(x) && x != y) return x > y ? -1 : 1;
  return a - b;
}

static void check_top_k(const float *x, int64_t rows, int64_t n, int64_t k) {
  int32_t *want = malloc((size_t)n * sizeof *want), *ids = malloc((size_t)(rows * k) * sizeof *ids);
  float *values = zeros(rows * k);
  EACH_SET(c, 2) {
    c->top_k(c, x, rows, n, k, values, ids);
    for (int64_t r = 0; r < rows; r++) {
      sorted_by = x + r * n;
      for (int32_t i = 0; i < n; i++) want[i] = i;
      qsort(want, (size_t)n, sizeof *want, largest_first);
      for (int64_t i = 0; i < k; i++) {
        cr_assert_eq(ids[r * k + i], want[i], "%s: row %lld of %lld, place %lld: %d, not %d",
                     viv__compute_isa(c), (long long)r, (long long)n, (long long)i, ids[r * k + i],
                     want[i]);
        cr_assert(!memcmp(values + r * k + i, sorted_by + want[i], sizeof(float)));
      }
    }
    c->top_k(c, x, rows, n, 1, NULL, ids);
    cr_assert_eq(ids[rows - 1], want[0]);
  }
  free(want);
  free(ids);
  free(values);
}

Test(signal, top_k_sorts_ties_and_nans) {
  static const int64_t lengths[] = {1, 2, 15, 16, 63, 64, 65, 200, 1000};
  for (int i = 0; i < 9; i++)
    for (int kind = 0; kind < 4; kind++) {
      int64_t n = lengths[i];
      float *x = numbers(3 * n);
      for (int64_t j = 0; j < 3 * n; j++) {
        if (kind == 1) x[j] = floorf(x[j] * 4); /* many equal ones */
        if (kind == 2 && j % 7 == 3) x[j] = NAN;
        if (kind == 3) x[j] = j % 5 ? (float)j : -INFINITY; /* ascending: all are moved */
      }
      check_top_k(x, 3, n, 1);
      check_top_k(x, 3, n, n < 10 ? n : 10);
      check_top_k(x, 3, n, n);
      free(x);
    }
}
