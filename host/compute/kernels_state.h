/* Causal convolution and selective scan. Part of kernels_impl.h. */

/* A vector of channels at a time. Weights and the rows before the call lie by channel, so they are
 * turned first; more taps than fit are read where they lie. */
static void causal_conv(const viv_causal_conv *a, int32_t begin, int32_t end) {
  enum { TURNED = 16 };
  int64_t stride = a->x_stride ? a->x_stride : a->channels, taps = a->taps, hist = taps - 1;
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    vf w[TURNED], bias = a->bias ? v_load_n(a->bias + c, n) : v_set(0.0f);
    for (int64_t k = 0; k < taps && k < TURNED; k++)
      w[k] = v_gather_n(a->weight + c * taps + k, taps, n);
    for (int64_t t = 0; t < a->rows; t++) {
      vf sum = bias;
      for (int64_t k = 0; k < taps; k++) {
        int64_t from = t + k - hist;
        vf x = from < 0 ? v_gather_n(a->tail + c * hist + hist + from, hist, n)
                        : v_load_n(a->x + from * stride + c, n);
        sum = v_fma(k < TURNED ? w[k] : v_gather_n(a->weight + c * taps + k, taps, n), x, sum);
      }
      v_store_n(a->out + t * a->channels + c, a->silu ? v_apply(VIV_SILU, sum) : sum, n);
    }
    for (int64_t k = 0; k < hist; k++) {
      int64_t from = a->rows + k - hist;
      vf x = from < 0 ? v_gather_n(a->tail + c * hist + hist + from, hist, n)
                      : v_load_n(a->x + from * stride + c, n);
      v_scatter_n(a->tail + c * hist + k, hist, x, n);
    }
  }
}

/* One row of a vector of channels. state and rate are [N] vectors. */
INLINE vf scan_row(vf *state, const vf *rate, int64_t states, vf delta, vf u, const float *b,
                   const float *c, vf y) {
  vf du = delta * u;
  for (int64_t i = 0; i < states; i++) {
    state[i] = v_fma(v_exp(delta * rate[i]), state[i], du * v_set(b[i]));
    y = v_fma(state[i], v_set(c[i]), y);
  }
  return y;
}

/* A vector of channels at a time, their states turned into vectors of one state each; more states
 * than fit are taken in several passes, each of which adds to y. */
static void scan(const viv_scan *a, int32_t begin, int32_t end) {
  enum { TURNED = 64 };
  int64_t states = a->states;
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    vf d = a->d ? v_load_n(a->d + c, n) : v_set(0.0f);
    vf state[TURNED], rate[TURNED];
    if (states <= TURNED) {
      for (int64_t i = 0; i < states; i++) {
        state[i] = v_gather_n(a->state + c * states + i, states, n);
        rate[i] = v_gather_n(a->a + c * states + i, states, n);
      }
      for (int64_t t = 0; t < a->rows; t++) {
        int64_t at = t * a->channels + c;
        vf u = v_load_n(a->u + at, n), delta = v_load_n(a->delta + at, n);
        vf y = scan_row(state, rate, states, delta, u, a->b + t * a->bc_stride,
                        a->c + t * a->bc_stride, d * u);
        v_store_n(a->y + at, y, n);
        if (a->states_out)
          for (int64_t i = 0; i < states; i++)
            v_scatter_n(a->states_out + at * states + i, states, state[i], n);
      }
      for (int64_t i = 0; i < states; i++)
        v_scatter_n(a->state + c * states + i, states, state[i], n);
      continue;
    }
    for (int64_t t = 0; t < a->rows; t++) { /* rare: the state stays in memory */
      int64_t at = t * a->channels + c;
      vf u = v_load_n(a->u + at, n), delta = v_load_n(a->delta + at, n), y = d * u;
      for (int64_t i = 0; i < states; i++) {
        vf one = v_gather_n(a->state + c * states + i, states, n);
        vf r = v_gather_n(a->a + c * states + i, states, n);
        y = scan_row(&one, &r, 1, delta, u, a->b + t * a->bc_stride + i,
                     a->c + t * a->bc_stride + i, y);
        v_scatter_n(a->state + c * states + i, states, one, n);
        if (a->states_out) v_scatter_n(a->states_out + at * states + i, states, one, n);
      }
      v_store_n(a->y + at, y, n);
    }
  }
}
