/* Causal convolution and selective scan against references in double; pieces give the same bits. */
#include "compute_rt.h"

Test(compute, causal_conv) {
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (int32_t taps = 2; taps < 20; taps += taps < 5 ? 1 : 7)
      for (int32_t channels = 1; channels < 80; channels += 13)
        for (int32_t silu = 0; silu < 2; silu++) {
          enum { ROWS = 23 };
          int64_t stride = channels + 5, hist = taps - 1;
          float *x = numbers(ROWS * stride), *w = numbers(channels * taps);
          float *bias = numbers(channels);
          float *tail = numbers(channels * hist), *first = zeros(channels * hist);
          float *y = zeros(ROWS * channels), *want = zeros(ROWS * channels);
          memcpy(first, tail, (size_t)(channels * hist) * sizeof *tail);
          for (int64_t t = 0; t < ROWS; t++)
            for (int64_t ch = 0; ch < channels; ch++) {
              double sum = bias[ch];
              for (int64_t k = 0; k < taps; k++) {
                int64_t from = t + k - hist;
                sum += (double)w[ch * taps + k] *
                       (from < 0 ? tail[ch * hist + hist + from] : x[from * stride + ch]);
              }
              want[t * channels + ch] = (float)(silu ? sum / (1 + exp(-sum)) : sum);
            }
          viv_causal_conv a = {sizeof a, silu, ROWS, channels, taps, x, stride, w, bias, tail, y};
          three->causal_conv(three, &a);
          near(c, "causal_conv", y, want, ROWS * channels, 1e-6);
          for (int64_t ch = 0; ch < channels; ch++)
            for (int64_t k = 0; k < hist; k++) {
              int64_t from = ROWS + k - hist;
              cr_assert_eq(tail[ch * hist + k],
                           from < 0 ? first[ch * hist + hist + from] : x[from * stride + ch]);
            }
          /* In pieces: the same numbers. */
          a.tail = first;
          a.out = want;
          for (int64_t t = 0, n = 1; t < ROWS; t += n, n = viv__min(n + 1, ROWS - t)) {
            a.x = x + t * stride;
            a.out = want + t * channels;
            a.rows = n;
            c->causal_conv(c, &a);
            if (t + n >= ROWS) break;
          }
          same(c, "causal_conv", want, y, ROWS * channels);
          same(c, "causal_conv tail", first, tail, channels * hist);
          free(x);
          free(w);
          free(bias);
          free(tail);
          free(first);
          free(y);
          free(want);
        }
    viv__compute_free(three);
  }
}

Test(compute, scan) {
  static const int32_t sizes[][2] = {{1, 1},  {8, 16},  {33, 16}, {70, 8},
                                     {17, 5}, {40, 70}, {48, 32}, {20, 24}};
  enum { ROWS = 31 };
  EACH_SET(c, 1) {
    const viv_compute *three = table(isa, 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      int64_t channels = sizes[i][0], n = sizes[i][1], stride = 2 * n + 3;
      int64_t wide = channels + 3; /* u and delta, with room between their rows */
      float *u = numbers(ROWS * wide), *delta = numbers(ROWS * wide);
      float *a = numbers(channels * n), *bc = numbers(ROWS * stride), *d = numbers(channels);
      float *state = numbers(channels * n), *start = zeros(channels * n);
      float *states = zeros(ROWS * channels * n), *y = zeros(ROWS * channels);
      float *want = zeros(ROWS * channels), *want_states = zeros(ROWS * channels * n);
      double *exact = calloc((size_t)(channels * n), sizeof *exact);
      for (int64_t k = 0; k < ROWS * wide; k++) delta[k] = fabsf(delta[k]);
      for (int64_t k = 0; k < channels * n; k++) {
        a[k] = -fabsf(a[k]) * 4;
        exact[k] = start[k] = state[k];
      }
      for (int64_t t = 0; t < ROWS; t++)
        for (int64_t ch = 0; ch < channels; ch++) {
          int64_t at = t * channels + ch, in = t * wide + ch;
          double sum = (double)d[ch] * u[in];
          for (int64_t k = 0; k < n; k++) {
            double *s = exact + ch * n + k;
            *s = exp((double)delta[in] * a[ch * n + k]) * *s +
                 (double)delta[in] * bc[t * stride + k] * u[in];
            sum += *s * bc[t * stride + n + k];
            want_states[at * n + k] = (float)*s;
          }
          want[at] = (float)sum;
        }
      viv_scan args = {.struct_size = sizeof args,
                       .channels = (int32_t)channels,
                       .states = (int32_t)n,
                       .rows = ROWS,
                       .u = u,
                       .delta = delta,
                       .a = a,
                       .b = bc,
                       .c = bc + n,
                       .bc_stride = stride,
                       .d = d,
                       .state = state,
                       .states_out = states,
                       .y = y,
                       .u_stride = wide};
      three->scan(three, &args);
      near(c, "scan", y, want, ROWS * channels, 1e-6);
      near(c, "scan states", states, want_states, ROWS * channels * n, 1e-6);
      same(c, "scan state", state, states + (ROWS - 1) * channels * n, channels * n);
      /* Row by row, dense and in place of u, without the states. */
      float *row = zeros(channels);
      args.state = start;
      args.states_out = NULL;
      args.rows = 1;
      args.u_stride = 0;
      for (int64_t t = 0; t < ROWS; t++) {
        memcpy(row, u + t * wide, (size_t)channels * sizeof *row);
        args.u = args.y = row;
        args.delta = delta + t * wide;
        args.b = bc + t * stride;
        args.c = args.b + n;
        c->scan(c, &args);
        same(c, "scan", row, y + t * channels, channels);
      }
      free(row);
      same(c, "scan state", start, state, channels * n);
      float *all[] = {u, delta, a, bc, d, state, start, states, y, want, want_states};
      for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
      free(exact);
    }
    viv__compute_free(three);
  }
}

/* A channel that holds a NaN keeps it to itself, and the rows before it stay as they were. */
Test(compute, a_nan_stays_in_its_channel) {
  enum { ROWS = 7, CHANNELS = 37, N = 16, BAD = 18, FROM = 3 };
  EACH_SET(c, 2) {
    float *u = numbers(ROWS * CHANNELS), *delta = numbers(ROWS * CHANNELS);
    float *a = numbers(CHANNELS * N), *bc = numbers(ROWS * 2 * N), *y[2];
    for (int i = 0; i < ROWS * CHANNELS; i++) delta[i] = fabsf(delta[i]);
    for (int i = 0; i < CHANNELS * N; i++) a[i] = -fabsf(a[i]);
    for (int bad = 0; bad < 2; bad++) {
      float *state = zeros(CHANNELS * N);
      y[bad] = zeros(ROWS * CHANNELS);
      if (bad) u[FROM * CHANNELS + BAD] = NAN;
      viv_scan s = {.struct_size = sizeof s,
                    .channels = CHANNELS,
                    .states = N,
                    .rows = ROWS,
                    .u = u,
                    .delta = delta,
                    .a = a,
                    .b = bc,
                    .c = bc + N,
                    .bc_stride = 2 * N,
                    .state = state,
                    .y = y[bad]};
      c->scan(c, &s);
      free(state);
    }
    for (int r = 0; r < ROWS; r++)
      for (int ch = 0; ch < CHANNELS; ch++) {
        int i = r * CHANNELS + ch;
        if (ch == BAD && r >= FROM)
          cr_assert(isnan(y[1][i]), "%s: row %d lost its NaN", viv__compute_isa(c), r);
        else
          cr_assert_eq(y[1][i], y[0][i], "%s: [%d, %d] was touched", viv__compute_isa(c), r, ch);
      }
    float *all[] = {u, delta, a, bc, y[0], y[1]};
    for (size_t f = 0; f < sizeof all / sizeof *all; f++) free(all[f]);
  }
}
