/* Llama and its siblings: the pass.
 *
 *   token ids [rows]
 *     |  E [vocab, d]
 *   x [rows, d] ------------------------------------------------ residual stream, f32
 *     |  layer i, `layers` times:
 *     |    u = RMSNorm(x)                                     [rows, d]
 *     |    q = rope(Wq u)  k = rope(Wk u)  v = Wv u           heads, kv_heads, kv_heads x head_dim
 *     |    cache i <- k, v at the rows' slots
 *     |    x += Wo attention(q, cache i)                      head h: kv head h/(heads/kv_heads)
 *     |    u = RMSNorm(x)
 *     |    x += Wdown (silu(Wgate u) * Wup u)                 ff
 *     |
 *   RMSNorm, head [vocab, d] (E itself when tied) -> logits [rows, vocab]
 *
 * Variants, all by config.json: biases on q, k, v (Qwen2) or on every matrix (Llama); a sliding
 * window in every layer (Mistral, Phi-3) or from one layer on (Qwen2); rope scaled (nn/rope.c) and
 * on a part of the head (Phi-4-mini). Phi-3's fused matrices are taken apart when loaded. */
#include <math.h>
#include <string.h>

#include "llama/llama.h"

/* cos_sin of every row; sequences beyond the original length use the long set for all positions. */
static void rotary_tables(struct llama_step *s) {
  const viv_compute *c = s->m->nn.compute;
  const nn_rope *rope = &s->m->config.rope;
  for (int32_t i = 0; i < s->n_segments; i++) {
    const nn_segment *g = &s->segment[i];
    c->rope_table(c, s->pos + g->first, g->n, g->tag ? rope->long_inv_freq : rope->inv_freq,
                  rope->half, rope->scale, s->cos_sin + (int64_t)g->first * 2 * rope->half);
  }
}

/* y = Wo attention(rope(Wq u), K, V),  K and V being the cache with the rows' own rope(Wk u), Wv u
 *
 *   u, y [rows, d]    a row sees the keys that visible, the window and the mask leave it */
static void self_attention(struct llama_step *s, int32_t i, const struct llama_layer *w,
                           const float *u, float *y) {
  const struct llama_config *g = &s->m->config;
  const viv_compute *c = s->m->nn.compute;
  const nn_kv *kv = &s->m->nn.kv;
  int64_t rows = s->rows, half = g->rope.half;
  int32_t pairs = g->rope.interleaved;

  const viv_weight *qkv[] = {w->wq, w->wk, w->wv};
  const float *biases[] = {w->bq, w->bk, w->bv};
  float *to[] = {s->q, s->k, s->v}; /* [rows, heads, head_dim], twice [rows, kv_heads, head_dim] */
  c->linears(c, 3, qkv, biases, u, to, rows);
  c->rope_apply(c, s->q, g->q, rows, g->heads, g->head_dim, s->cos_sin, half, pairs);
  c->rope_apply(c, s->k, g->kv, rows, g->kv_heads, g->head_dim, s->cos_sin, half, pairs);
  for (int32_t n = 0; n < s->n_segments; n++) {
    const nn_segment *b = &s->segment[n];
    const nn_kv_seq *seq = nn_kv_get(kv, b->seq);
    nn_kv_put(kv, c, seq, i, s->slot + b->first, b->n, s->k + b->first * g->kv,
              s->v + b->first * g->kv);
    for (int32_t r = b->first; r < b->first + b->n; r++) s->pages[r] = &seq->run[i].pages;
  }

  const struct llama_mask *mask = g->windowed[i] ? &s->windowed : &s->full;
  viv_attention args = {
      .struct_size = sizeof args,
      .kv_dtype = kv->dtype,
      .rows = (int32_t)rows,
      .heads = (int32_t)g->heads,
      .head_dim = (int32_t)g->head_dim,
      .kv_heads = (int32_t)g->kv_heads,
      .page_tokens = kv->page_tokens,
      .k_width = (int32_t)g->kv,
      .v_width = (int32_t)g->kv,
      .scale = (float)(1 / sqrt((double)g->head_dim)),
      .window = mask->window,
      .q = s->q,
      .out = s->a, /* [rows, heads, head_dim] */
      .kv = s->pages,
      .visible = s->visible,
      .mask = mask->bits,
      .mask_stride = mask->stride,
      .mask_begin = mask->begin,
  };
  c->attention(c, &args);
  c->linear(c, w->wo, w->bo, s->a, y, rows);
}

/* y = Wdown (silu(Wgate u) * Wup u)        u, y [rows, d] */
static void mlp(struct llama_step *s, const struct llama_layer *w, const float *u, float *y) {
  const struct llama_config *g = &s->m->config;
  const viv_compute *c = s->m->nn.compute;
  const viv_weight *both[] = {w->gate, w->up};
  const float *biases[] = {w->gate_bias, w->up_bias};
  float *to[] = {s->gate, s->up}; /* [rows, ff] each */
  c->linears(c, 2, both, biases, u, to, s->rows);
  c->gate(c, g->act, s->gate, s->up, s->rows * g->ff);
  c->linear(c, w->down, w->down_bias, s->gate, y, s->rows);
}

/* The residual stream after `depth` layers, for whoever asked. */
static void capture(const struct llama_step *s, int32_t depth) {
  int64_t n = s->rows * s->m->config.d;
  for (int32_t i = 0; s->hidden && i < s->batch->n_capture; i++)
    if (s->batch->capture_layers[i] == depth)
      memcpy(s->hidden + i * n, s->x, (size_t)n * sizeof *s->x);
}

/* x [rows, d] through layers [begin, end), in place. */
int32_t llama_layers(struct llama_step *s, viv_error *error) {
  const struct llama_config *g = &s->m->config;
  const viv_compute *c = s->m->nn.compute;
  const viv_batch *b = s->batch;
  int64_t rows = s->rows, d = g->d;

  rotary_tables(s);
  capture(s, s->begin);
  for (int32_t i = s->begin; i < s->end; i++) {
    const struct llama_layer *w = &s->m->layer[i];
    if (!nn_bit(b->skip_attn, i)) {
      c->rms_norm(c, s->x, w->norm1, g->eps, rows, d, s->u);
      self_attention(s, i, w, s->u, s->y);
      nn_tap_rows(s->taps, s->y, rows, d, "layer.%d.self_attn", (int)i);
      c->add(c, s->x, s->y, rows * d);
    }
    if (!nn_bit(b->skip_mlp, i)) {
      c->rms_norm(c, s->x, w->norm2, g->eps, rows, d, s->u);
      mlp(s, w, s->u, s->y);
      nn_tap_rows(s->taps, s->y, rows, d, "layer.%d.mlp", (int)i);
      c->add(c, s->x, s->y, rows * d);
    }
    nn_tap_rows(s->taps, s->x, rows, d, "layer.%d", (int)i);
    capture(s, i + 1);
    int32_t rc = nn_poll(b, error);
    if (rc < 0) return rc;
  }
  return VIV_OK;
}

/* logits [n, vocab] of x [n, d]; scratch [n, d] */
void llama_logits(const nn_model *model, const float *x, int64_t n, bool final_norm, float *scratch,
                  float *logits) {
  const struct llama_model *m = (const struct llama_model *)model;
  const viv_compute *c = m->nn.compute;
  if (final_norm) c->rms_norm(c, x, m->norm, m->config.eps, n, m->config.d, scratch);
  c->linear(c, m->head, NULL, final_norm ? scratch : x, logits, n);
}
