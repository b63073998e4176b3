/* SambaY, the pass (Phi-4-mini-Flash: d 2560, 32 layers, half 16, d_in 5120, 40/20 heads of 64).
 *
 *   token ids -> E [vocab, d] -> x [rows, d]                   residual stream, f32; no positions
 *
 *   self-decoder, every row
 *     even i < half    Mamba                                   state: conv tail, S [d_in, N]
 *     odd  i < half    differential attention, window W        cache: last W keys and values
 *     i = half         Mamba, exports its memory m [rows, d_in]
 *     i = half + 1     LN, keys and values only                cache: all tokens, THE shared one
 *
 *   cross-decoder, only rows whose result somebody wants
 *     i = half + 1     differential attention over the shared cache
 *     even i > half+1  GMU: y = Wout( silu(Win u) * m )        no state at all
 *     odd  i > half+1  differential attention, own queries, the shared keys and values
 *
 *   final LayerNorm, E -> logits
 *
 *   every layer:  x += mixer(LN1(x));  x += fc2(silu(gate) * value), [gate | value] = fc1 LN2(x)
 *
 * The rows that stop after half + 1's keys and values are why a prompt costs linear time: the
 * layers above read other tokens through that one cache alone, so nothing is lost. */
#include <math.h>
#include <string.h>

#include "sambay/sambay.h"

enum sambay_mixer sambay_schedule(int32_t i, int32_t layers) {
  int32_t half = layers / 2;
  if (i % 2 == 0) return i <= half ? SAMBAY_MAMBA : SAMBAY_GMU;
  if (i < half) return SAMBAY_WINDOW;
  return i == half + 1 ? SAMBAY_FULL : SAMBAY_CROSS;
}

/* i counts all layers from 0, whatever their mixer */
double sambay_lambda_init(int32_t i) {
  return 0.8 - 0.6 * exp(-0.3 * i);
}

/* lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init(i), one number per layer */
float sambay_lambda(const struct sambay_layer *w, int64_t dim, int32_t i) {
  double one = 0, two = 0;
  for (int64_t j = 0; j < dim; j++) {
    one += (double)w->lambda_q1[j] * (double)w->lambda_k1[j];
    two += (double)w->lambda_q2[j] * (double)w->lambda_k2[j];
  }
  return (float)(exp(one) - exp(two) + sambay_lambda_init(i));
}

static void layer_norm(const struct sambay_step *s, const float *w, const float *b) {
  const viv_compute *c = s->m->nn.compute;
  c->layer_norm(c, s->x, w, b, s->m->config.eps, s->rows, s->m->config.d, s->u);
}

/* Mamba (selective scan):  (x, z) = Win u;  x~ = silu(conv(x));  (dt, B, C) = Wx x~
 *   delta = softplus(Wdt dt + bias)
 *   S <- exp(delta A) S + delta B x~;   m = S C + D x~;   y = Wout( silu(z) * m )
 *
 *   u, y [rows, d]    m [rows, d_in] stays in s->memory: layer half's is what GMUs read */
static void mamba(struct sambay_step *s, int32_t i, const struct sambay_layer *w, const float *u,
                  float *y) {
  const struct sambay_config *g = &s->m->config;
  const viv_compute *c = s->m->nn.compute;
  int64_t rows = s->rows, d_in = g->d_in, N = g->N, K = g->K;

  c->linear(c, w->in_x, NULL, u, s->in, rows); /* [rows, d_in] */
  c->linear(c, w->in_z, NULL, u, s->z, rows);  /* [rows, d_in] */
  for (int32_t n = 0; n < s->n_segments; n++) {
    const nn_segment *b = &s->segment[n];
    struct sambay_state state = sambay_state_of(g, s->seq[b->first]->state, i);
    float *x = s->in + b->first * d_in; /* [n, d_in] this sequence's rows */
    if (s->keep) {                      /* the K columns before, then these rows */
      float *kept = sambay_kept_inputs(g, s->seq[b->first]->kept, i);
      for (int64_t ch = 0; ch < d_in; ch++) {
        kept[ch] = state.oldest[ch];
        for (int64_t t = 1; t < K; t++) kept[t * d_in + ch] = state.tail[ch * (K - 1) + t - 1];
      }
      memcpy(kept + K * d_in, x, (size_t)(b->n * d_in) * sizeof *x);
    }
    for (int64_t ch = 0; ch < d_in; ch++) /* the column that will stand before the new tail */
      state.oldest[ch] =
          b->n >= K ? x[(b->n - K) * d_in + ch] : state.tail[ch * (K - 1) + b->n - 1];
    viv_causal_conv conv = {
        .struct_size = sizeof conv,
        .silu = 1,
        .rows = b->n,
        .channels = (int32_t)d_in,
        .taps = (int32_t)K,
        .x = x,
        .x_stride = d_in,
        .weight = w->conv,
        .bias = w->conv_bias,
        .tail = state.tail,
        .out = s->conv + b->first * d_in,
    };
    c->causal_conv(c, &conv);
  }
  c->linear(c, w->x_dt, NULL, s->conv, s->low, rows);      /* [rows, R] */
  c->linear(c, w->x_bc, NULL, s->conv, s->bc, rows);       /* [rows, B N | C N] */
  c->linear(c, w->dt, w->dt_bias, s->low, s->delta, rows); /* [rows, d_in] */
  c->unary(c, VIV_SOFTPLUS, s->delta, s->delta, rows * d_in);
  for (int32_t n = 0; n < s->n_segments; n++) {
    const nn_segment *b = &s->segment[n];
    struct sambay_state state = sambay_state_of(g, s->seq[b->first]->state, i);
    float *kept = s->keep ? sambay_kept_states(g, s->seq[b->first]->kept, i) : NULL;
    if (kept) memcpy(kept, state.s, (size_t)(d_in * N) * sizeof *kept); /* before the batch */
    viv_scan scan = {
        .struct_size = sizeof scan,
        .channels = (int32_t)d_in,
        .states = (int32_t)N,
        .rows = b->n,
        .u = s->conv + b->first * d_in,
        .delta = s->delta + b->first * d_in,
        .a = w->a,
        .b = s->bc + b->first * 2 * N,
        .c = s->bc + b->first * 2 * N + N,
        .bc_stride = 2 * N,
        .d = w->skip,
        .state = state.s,
        .states_out = kept ? kept + d_in * N : NULL, /* [n, d_in, N] */
        .y = s->memory + b->first * d_in,
    };
    c->scan(c, &scan);
  }
  c->gate(c, VIV_SILU, s->z, s->memory, rows * d_in); /* z = silu(z) * m */
  c->linear(c, w->mamba_out, NULL, s->z, y, rows);
}

/* Gated memory unit:  y = Wout( silu(Win u) * m )        u, y [rows, d]   m [rows, d_in] */
static void gmu(struct sambay_step *s, const struct sambay_layer *w, const float *u, float *y) {
  const viv_compute *c = s->m->nn.compute;
  c->linear(c, w->gmu_in, NULL, u, s->z, s->rows); /* [rows, d_in] */
  c->gate(c, VIV_SILU, s->z, s->memory, s->rows * s->m->config.d_in);
  c->linear(c, w->gmu_out, NULL, s->z, y, s->rows);
}

/* Keys and values of u [rows, d] go to the rows' slots of cache i. */
static void keys_and_values(struct sambay_step *s, int32_t i, const struct sambay_layer *w,
                            const float *u) {
  const viv_compute *c = s->m->nn.compute;
  int64_t kv = s->m->config.kv;
  c->linear(c, w->wk, w->bk, u, s->k, s->rows); /* [rows, kv_heads, head_dim] */
  c->linear(c, w->wv, w->bv, u, s->v, s->rows); /* [rows, kv_heads, head_dim] */
  for (int32_t n = 0; n < s->n_segments; n++) {
    const nn_segment *b = &s->segment[n];
    nn_kv_put(&s->m->nn.kv, c, s->seq[b->first], i, s->slot + b->first, b->n, s->k + b->first * kv,
              s->v + b->first * kv);
  }
}

/* Differential attention. Query heads 2j and 2j+1 look at keys 2g and 2g+1 of the kv pair
 * g = j / (heads/kv_heads) and both read the pair's values side by side:
 *   o_j = softmax(q_2j . k_2g) V_g - lambda softmax(q_2j+1 . k_2g+1) V_g,  V_g [tokens, 2 head_dim]
 *   y = Wo concat_j( RMSNorm(o_j) (1 - lambda_init) )       (the factor is folded into subln)
 *
 *   u, y [rows, d]    cache: the layer whose keys and values are read; window 0: all of them */
static void differential_attention(struct sambay_step *s, const struct sambay_layer *w,
                                   int32_t cache, int64_t window, const float *u, float *y) {
  const struct sambay_config *g = &s->m->config;
  const viv_compute *c = s->m->nn.compute;
  int64_t rows = s->rows, D = g->head_dim, pairs = g->heads / 2;

  c->linear(c, w->wq, w->bq, u, s->q, rows); /* [rows, heads, D] */
  for (int64_t r = 0; r < rows; r++) s->pages[r] = &s->seq[r]->run[cache].pages;
  viv_attention args = {
      .struct_size = sizeof args,
      .kv_dtype = s->m->nn.kv.dtype,
      .rows = (int32_t)rows,
      .heads = (int32_t)g->heads,
      .head_dim = (int32_t)D,
      .value_dim = (int32_t)(2 * D),
      .kv_heads = (int32_t)g->kv_heads,
      .page_tokens = s->m->nn.kv.page_tokens,
      .k_width = (int32_t)g->kv,
      .v_width = (int32_t)g->kv,
      .k_offset = s->m->k_offset,
      .v_offset = s->m->v_offset,
      .scale = (float)(1 / sqrt((double)D)),
      .window = window,
      .q = s->q,
      .out = s->pair, /* [rows, heads, 2D] */
      .kv = s->pages,
      .visible = s->visible,
  };
  c->attention(c, &args);
  for (int64_t j = 0; j < rows * pairs; j++) {
    const float *one = s->pair + j * 4 * D, *two = one + 2 * D; /* [2D] each */
    float *o = s->diff + j * 2 * D;                             /* [2D] */
    for (int64_t e = 0; e < 2 * D; e++) o[e] = one[e] - w->lambda * two[e];
  }
  c->rms_norm(c, s->diff, w->subln, 1e-5f, rows * pairs, 2 * D, s->diff);
  c->linear(c, w->wo, w->bo, s->diff, y, rows);
}

/* y = fc2( silu(gate) * value ),  [gate | value] = fc1 u       u, y [rows, d] */
static void mlp(struct sambay_step *s, const struct sambay_layer *w, const float *u, float *y) {
  const viv_compute *c = s->m->nn.compute;
  c->linear(c, w->fc1, NULL, u, s->fc, s->rows); /* [rows, 2 ff] */
  c->glu(c, VIV_SILU, s->fc, s->act, s->rows, s->m->config.ff);
  c->linear(c, w->fc2, NULL, s->act, y, s->rows);
}

static void capture(const struct sambay_step *s, int32_t depth) {
  int64_t n = s->rows * s->m->config.d;
  for (int32_t i = 0; i < s->batch->n_capture; i++)
    if (s->batch->capture_layers[i] == depth)
      memcpy(s->hidden + i * n, s->x, (size_t)n * sizeof *s->x);
}

/* Adds what a mixer gave, then the MLP: the second half of every layer. */
static int32_t finish_layer(struct sambay_step *s, int32_t i, bool mixed, viv_error *error) {
  const struct sambay_layer *w = &s->m->layer[i];
  const viv_compute *c = s->m->nn.compute;
  int64_t rows = s->rows, d = s->m->config.d;
  if (mixed) {
    nn_tap_rows(s->taps, s->y, rows, d, "layer.%d.mixer", (int)i);
    c->add(c, s->x, s->y, rows * d);
  }
  if (!nn_bit(s->batch->skip_mlp, i)) {
    layer_norm(s, w->norm2, w->norm2_bias);
    mlp(s, w, s->u, s->y);
    c->add(c, s->x, s->y, rows * d);
  }
  nn_tap_rows(s->taps, s->x, rows, d, "layer.%d", (int)i);
  capture(s, i + 1);
  return nn_poll(s->batch, error);
}

/* Layers 0 to half for all rows, then the shared keys and values. */
int32_t sambay_self_decoder(struct sambay_step *s, viv_error *error) {
  const struct sambay_config *g = &s->m->config;
  int32_t full = g->half + 1;
  capture(s, 0);
  for (int32_t i = 0; i <= g->half; i++) {
    const struct sambay_layer *w = &s->m->layer[i];
    bool mixes = !nn_bit(s->batch->skip_attn, i);
    if (mixes) {
      layer_norm(s, w->norm1, w->norm1_bias);
      if (w->mixer == SAMBAY_MAMBA) {
        mamba(s, i, w, s->u, s->y);
      } else {
        keys_and_values(s, i, w, s->u);
        differential_attention(s, w, i, g->window[i], s->u, s->y);
      }
    }
    int32_t rc = finish_layer(s, i, mixes, error);
    if (rc < 0) return rc;
  }
  nn_tap_rows(s->taps, s->memory, s->rows, g->d_in, "memory");
  if (!nn_bit(s->batch->skip_attn, full)) {
    const struct sambay_layer *w = &s->m->layer[full];
    layer_norm(s, w->norm1, w->norm1_bias);
    keys_and_values(s, full, w, s->u);
  }
  return VIV_OK;
}

/* The rows that are wanted move together; from here on s->rows counts them. */
static void leave_the_others(struct sambay_step *s) {
  const struct sambay_config *g = &s->m->config;
  if (s->n_late == s->rows) return;
  nn_pick(s->x, g->d, s->late, s->n_late, s->late_x);
  nn_pick(s->memory, g->d_in, s->late, s->n_late, s->late_memory);
  for (int64_t i = 0; i < s->n_late; i++) { /* ascending: nothing is overwritten before its use */
    s->visible[i] = s->visible[s->late[i]];
    s->seq[i] = s->seq[s->late[i]];
  }
  s->x = s->late_x;
  s->memory = s->late_memory;
  s->rows = s->n_late;
}

/* Layers half + 1 to the last. */
int32_t sambay_cross_decoder(struct sambay_step *s, viv_error *error) {
  const struct sambay_config *g = &s->m->config;
  leave_the_others(s);
  for (int32_t i = g->half + 1; i < g->layers && s->rows; i++) {
    const struct sambay_layer *w = &s->m->layer[i];
    bool mixes = !nn_bit(s->batch->skip_attn, i);
    if (mixes) {
      layer_norm(s, w->norm1, w->norm1_bias);
      if (w->mixer == SAMBAY_GMU)
        gmu(s, w, s->u, s->y);
      else
        differential_attention(s, w, g->half + 1, 0, s->u, s->y);
    }
    int32_t rc = finish_layer(s, i, mixes, error);
    if (rc < 0) return rc;
  }
  return VIV_OK;
}

/* logits [n, vocab] of x [n, d]; scratch [n, d] */
void sambay_logits(const nn_model *model, const float *x, int64_t n, bool final_norm,
                   float *scratch, float *logits) {
  const struct sambay_model *m = (const struct sambay_model *)model;
  const viv_compute *c = m->nn.compute;
  const struct sambay_config *g = &m->config;
  if (final_norm) c->layer_norm(c, x, m->norm, m->norm_bias, g->eps, n, g->d, scratch);
  c->linear(c, m->head, m->head_bias, final_norm ? scratch : x, logits, n);
}
