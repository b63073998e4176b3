/* The gates of recurrent networks, over vectors. Part of kernels_impl.h. */

static void lstm_kernel(const float *in, const float *rec, int64_t n, float *h, float *c) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    vf gate[4];
    for (int k = 0; k < 4; k++)
      gate[k] = v_load_n(in + k * n + i, len) + v_load_n(rec + k * n + i, len);
    vf cell = v_fma(v_sigmoid(gate[1]), v_load_n(c + i, len), v_sigmoid(gate[0]) * v_tanh(gate[2]));
    v_store_n(c + i, cell, len);
    v_store_n(h + i, v_sigmoid(gate[3]) * v_tanh(cell), len);
  }
}

static void gru_kernel(const float *in, const float *rec, int64_t n, float *h) {
  for (int64_t i = 0; i < n; i += LANES) {
    int64_t len = viv__min(LANES, n - i);
    vf reset = v_sigmoid(v_load_n(in + i, len) + v_load_n(rec + i, len));
    vf update = v_sigmoid(v_load_n(in + n + i, len) + v_load_n(rec + n + i, len));
    vf fresh = v_tanh(v_fma(reset, v_load_n(rec + 2 * n + i, len), v_load_n(in + 2 * n + i, len)));
    v_store_n(h + i, v_fma(update, v_load_n(h + i, len) - fresh, fresh), len);
  }
}
