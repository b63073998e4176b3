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
      v_store_n(a->out + t * a->channels + c, a->silu ? v_apply(VIV_SILU, sum, sum) : sum, n);
    }
    for (int64_t k = 0; k < hist; k++) {
      int64_t from = a->rows + k - hist;
      vf x = from < 0 ? v_gather_n(a->tail + c * hist + hist + from, hist, n)
                      : v_load_n(a->x + from * stride + c, n);
      v_scatter_n(a->tail + c * hist + k, hist, x, n);
    }
  }
}

/* Up to LANES states of up to LANES channels, from where they lie: v[i] is state i of each. */
INLINE void load_states(const float *from, int64_t stride, int64_t channels, int64_t states,
                        vf *v) {
  if (channels == LANES && states == LANES) {
    UNROLL for (int c = 0; c < LANES; c++) v[c] = v_load(from + c * stride);
    v_transpose(v);
    return;
  }
  for (int64_t i = 0; i < states; i++) v[i] = v_gather_n(from + i, stride, channels);
}

INLINE void store_states(float *to, int64_t stride, int64_t channels, int64_t states, const vf *v) {
  if (channels == LANES && states == LANES) {
    vf t[LANES];
    UNROLL for (int c = 0; c < LANES; c++) t[c] = v[c];
    v_transpose(t);
    UNROLL for (int c = 0; c < LANES; c++) v_store(to + c * stride, t[c]);
    return;
  }
  for (int64_t i = 0; i < states; i++) v_scatter_n(to + i, stride, v[i], channels);
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
  int64_t states = a->states, stride = a->u_stride ? a->u_stride : a->channels;
  for (int64_t c = begin; c < end; c += LANES) {
    int64_t n = viv__min(LANES, end - c);
    vf d = a->d ? v_load_n(a->d + c, n) : v_set(0.0f);
    vf state[TURNED], rate[TURNED];
    if (states <= TURNED) {
      for (int64_t i = 0; i < states; i += LANES) {
        int64_t some = viv__min(LANES, states - i);
        load_states(a->state + c * states + i, states, n, some, state + i);
        load_states(a->a + c * states + i, states, n, some, rate + i);
      }
      for (int64_t t = 0; t < a->rows; t++) {
        int64_t at = t * a->channels + c;
        vf u = v_load_n(a->u + t * stride + c, n), delta = v_load_n(a->delta + t * stride + c, n);
        vf y = scan_row(state, rate, states, delta, u, a->b + t * a->bc_stride,
                        a->c + t * a->bc_stride, d * u);
        v_store_n(a->y + at, y, n);
        for (int64_t i = 0; a->states_out && i < states; i += LANES)
          store_states(a->states_out + at * states + i, states, n, viv__min(LANES, states - i),
                       state + i);
      }
      for (int64_t i = 0; i < states; i += LANES)
        store_states(a->state + c * states + i, states, n, viv__min(LANES, states - i), state + i);
      continue;
    }
    for (int64_t t = 0; t < a->rows; t++) { /* rare: the state stays in memory */
      int64_t at = t * a->channels + c;
      vf u = v_load_n(a->u + t * stride + c, n), delta = v_load_n(a->delta + t * stride + c, n);
      vf y = d * u;
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
