/* Operations over time: causal convolution, selective scan, differential attention, recurrent
 * networks. */
#include "ops.h"

static bool causal_conv1d(struct golden *g) {
  bool update = !strcmp(viv__json_text(g->params, "op", ""), "causal_conv1d_update");
  struct array x = input(g, "x"), w = input(g, "weight"), bias = input(g, "bias");
  struct array start = input(g, update ? "conv_state" : "initial_states");
  int64_t batch = x.shape[0], d = x.shape[1], len = x.shape[2], taps = w.shape[1], hist = taps - 1;
  int64_t columns = update ? taps : hist; /* the cache of an update keeps one column more */
  float *out = take_floats(g, x.n), *states = take_floats(g, batch * d * columns);
  for (int64_t b = 0; b < batch; b++) {
    float *tail = take_floats(g, d * hist), *y = take_floats(g, d * len);
    for (int64_t ch = 0; start.data && ch < d; ch++)
      memcpy(tail + ch * hist, start.data + (b * d + ch) * columns + (columns - hist),
             (size_t)hist * sizeof *tail);
    viv_causal_conv a = {
        .struct_size = sizeof a,
        .rows = len,
        .channels = (int32_t)d,
        .taps = (int32_t)taps,
        .silu = !strcmp(viv__json_text(g->params, "activation", ""), "silu"),
        .x = turned(g, x.data + b * d * len, d, len),
        .weight = w.data,
        .bias = bias.data,
        .tail = tail,
        .out = y,
    };
    float oldest[4096];
    for (int64_t ch = 0; ch < d && ch < 4096; ch++) oldest[ch] = tail[ch * hist];
    g->c->causal_conv(g->c, &a);
    put_turned(y, len, d, out + b * d * len);
    for (int64_t ch = 0; ch < d; ch++) {
      float *state = states + (b * d + ch) * columns;
      if (update) state[0] = oldest[ch];
      memcpy(state + (columns - hist), tail + ch * hist, (size_t)hist * sizeof *tail);
    }
  }
  output(g, "out", out, x.n);
  output(g, "final_states", states, batch * d * columns);
  output(g, "conv_state", states, batch * d * columns);
  return true;
}

static bool selective_scan(struct golden *g) {
  bool step = !strcmp(viv__json_text(g->params, "op", ""), "selective_state_update");
  struct array u = input(g, step ? "x" : "u"), delta = input(g, step ? "dt" : "delta");
  struct array a = input(g, "A"), b = input(g, "B"), c = input(g, "C"), d = input(g, "D");
  struct array z = input(g, "z"), bias = input(g, step ? "dt_bias" : "delta_bias");
  struct array start = input(g, step ? "state" : "initial_state");
  bool softplus = viv__json_bool(g->params, step ? "dt_softplus" : "delta_softplus", false);
  int64_t batch = u.shape[0], ch = u.shape[1], len = u.shape[2], n = a.shape[1];
  float *out = take_floats(g, u.n), *states = take_floats(g, batch * ch * n);
  if (start.data) memcpy(states, start.data, (size_t)(batch * ch * n) * sizeof *states);
  for (int64_t i = 0; i < batch; i++) {
    float *dt = turned(g, delta.data + i * ch * len, ch, len), *y = take_floats(g, ch * len);
    for (int64_t t = 0; bias.data && t < len; t++) g->c->add(g->c, dt + t * ch, bias.data, ch);
    if (softplus) g->c->unary(g->c, VIV_SOFTPLUS, dt, dt, ch * len);
    viv_scan s = {
        .struct_size = sizeof s,
        .channels = (int32_t)ch,
        .states = (int32_t)n,
        .rows = len,
        .u = turned(g, u.data + i * ch * len, ch, len),
        .delta = dt,
        .a = a.data,
        .b = turned(g, b.data + i * n * len, n, len),
        .c = turned(g, c.data + i * n * len, n, len),
        .bc_stride = n,
        .d = d.data,
        .state = states + i * ch * n,
        .y = y,
    };
    g->c->scan(g->c, &s);
    if (z.data) {
      float *gate = turned(g, z.data + i * ch * len, ch, len);
      g->c->gate(g->c, VIV_SILU, gate, y, ch * len);
      y = gate;
    }
    put_turned(y, len, ch, out + i * ch * len);
  }
  output(g, "out", out, u.n);
  output(g, "last_state", states, batch * ch * n);
  output(g, "state", states, batch * ch * n);
  return true;
}

/* Pair j of heads: P1 V - lambda P2 V, normed (systems/language.md, section 1). Both heads of a
 * pair read the pair's values, which lie side by side. */
static bool differential_attention(struct golden *g) {
  enum { PAGE = 4, MAX_HEADS = 64 };
  struct array q = input(g, "q"), k = input(g, "k"), v = input(g, "v");
  int64_t batch = q.shape[0], rows = q.shape[1], heads = q.shape[2], dim = q.shape[3];
  int64_t keys = k.shape[1], groups = k.shape[2];
  if (heads > MAX_HEADS) return false;
  struct array norm = weight(g, "", "subln.weight");
  double dot[2] = {0};
  for (int i = 0; i < 2; i++) {
    struct array lq = weight(g, "", i ? "lambda_q2" : "lambda_q1");
    struct array lk = weight(g, "", i ? "lambda_k2" : "lambda_k1");
    for (int64_t d = 0; d < lq.n; d++) dot[i] += (double)lq.data[d] * lk.data[d];
  }
  double init = 0.8 - 0.6 * exp(-0.3 * viv__json_num(g->config, "depth", 0));
  float lambda = (float)(exp(dot[0]) - exp(dot[1]) + init);

  int32_t k_offset[MAX_HEADS], v_offset[MAX_HEADS];
  for (int32_t h = 0; h < heads; h++) {
    int32_t pair = (int32_t)(h / 2 / (heads / groups));
    k_offset[h] = (2 * pair + h % 2) * (int32_t)dim;
    v_offset[h] = 2 * pair * (int32_t)dim;
  }
  float *out = take_floats(g, q.n);
  for (int64_t b = 0; b < batch; b++) {
    int64_t pages = (keys + PAGE - 1) / PAGE, width = groups * dim;
    const void **kp = take(g, pages * (int64_t)sizeof *kp);
    const void **vp = take(g, pages * (int64_t)sizeof *vp);
    for (int64_t p = 0; p < pages; p++) {
      kp[p] = k.data + (b * keys + p * PAGE) * width;
      vp[p] = v.data + (b * keys + p * PAGE) * width;
    }
    viv_kv kv = {kp, vp};
    const viv_kv **row_kv = take(g, rows * (int64_t)sizeof *row_kv);
    int64_t *visible = take(g, rows * (int64_t)sizeof *visible);
    for (int64_t r = 0; r < rows; r++) {
      row_kv[r] = &kv;
      visible[r] = keys - rows + r + 1;
    }
    float *both = take_floats(g, rows * heads * 2 * dim);
    viv_attention a = {
        .struct_size = sizeof a,
        .kv_dtype = VIV_F32,
        .rows = (int32_t)rows,
        .heads = (int32_t)heads,
        .head_dim = (int32_t)dim,
        .value_dim = 2 * (int32_t)dim,
        .page_tokens = PAGE,
        .k_width = (int32_t)width,
        .v_width = (int32_t)width,
        .k_offset = k_offset,
        .v_offset = v_offset,
        .scale = 1.0f / sqrtf((float)dim),
        .window = (int64_t)viv__json_num(g->params, "sliding_window", 0),
        .q = q.data + b * rows * heads * dim,
        .out = both,
        .kv = row_kv,
        .visible = visible,
    };
    g->c->attention(g->c, &a);
    float *o = out + b * rows * heads * dim;
    for (int64_t j = 0; j < rows * heads / 2; j++)
      for (int64_t d = 0; d < 2 * dim; d++)
        o[j * 2 * dim + d] = both[j * 4 * dim + d] - lambda * both[j * 4 * dim + 2 * dim + d];
    g->c->rms_norm(g->c, o, norm.data, 1e-5f, rows * heads / 2, 2 * dim, o);
    for (int64_t i = 0; i < rows * heads * dim; i++) o[i] *= (float)(1.0 - init);
  }
  output(g, "out", out, q.n);
  return true;
}

const struct op sequence_ops[] = {
    {"causal_conv1d", causal_conv1d},
    {"causal_conv1d_update", causal_conv1d},
    {"selective_scan", selective_scan},
    {"selective_state_update", selective_scan},
    {"differential_attention", differential_attention},
    {NULL, NULL},
};
