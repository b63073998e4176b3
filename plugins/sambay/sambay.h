/* SambaY (Phi-4-mini-Flash): sizes, weights and one step of work. forward.c is the model. */
#ifndef PLUGINS_SAMBAY_H
#define PLUGINS_SAMBAY_H

#include "nn/nn.h"

enum { SAMBAY_MAX_LAYERS = 512, SAMBAY_PAGE = 32 };

/* What stands in layer i; half = layers / 2. */
enum sambay_mixer {
  SAMBAY_MAMBA,  /* even, up to half; the one at half exports its memory */
  SAMBAY_WINDOW, /* odd, below half: attention over the last `window` tokens */
  SAMBAY_FULL,   /* half + 1: attention over all tokens; its keys and values are shared */
  SAMBAY_GMU,    /* even, above: gates the exported memory */
  SAMBAY_CROSS   /* odd, above: own queries, the shared keys and values */
};

struct sambay_config {
  int64_t d, ff, heads, kv_heads, head_dim, vocab, context;
  int64_t q, kv;         /* heads * head_dim, kv_heads * head_dim */
  int64_t d_in, N, K, R; /* Mamba: inner width, states, convolution taps, rank of dt */
  int64_t dt_bc;         /* R + 2N: rows of x_proj */
  int32_t layers, half;
  float eps;
  bool tied, head_bias;
  nn_special special;
  int64_t window[SAMBAY_MAX_LAYERS]; /* of odd layers below half */
};

/* clang-format off */
/* columns: name in the checkpoint, field, shape, kind (nn.h) */
#define SAMBAY_TOP(W)                                                                               \
  W("model.embed_tokens.weight",    embed,     ROWS(c->vocab), COLS(c->d), LINEAR)                  \
  W("model.final_layernorm.weight", norm,      ROWS(c->d), COLS(1),        VECTOR)                  \
  W("model.final_layernorm.bias",   norm_bias, ROWS(c->d), COLS(1),        VECTOR)                  \
  W("lm_head.weight",               lm_head,   ROWS(c->vocab), COLS(c->d), LINEAR_IF(!c->tied))     \
  W("lm_head.bias",                 head_bias, ROWS(c->vocab), COLS(1),    VECTOR_IF(c->head_bias))

/* under model.layers.{i}., every layer */
#define SAMBAY_LAYER(W)                                                                 \
  W("input_layernorm.weight",          norm1,      ROWS(c->d), COLS(1),         VECTOR) \
  W("input_layernorm.bias",            norm1_bias, ROWS(c->d), COLS(1),         VECTOR) \
  W("post_attention_layernorm.weight", norm2,      ROWS(c->d), COLS(1),         VECTOR) \
  W("post_attention_layernorm.bias",   norm2_bias, ROWS(c->d), COLS(1),         VECTOR) \
  W("mlp.fc1.weight",                  fc1,        ROWS(2 * c->ff), COLS(c->d), LINEAR) \
  W("mlp.fc2.weight",                  fc2,        ROWS(c->d), COLS(c->ff),     LINEAR)

/* in_proj gives [x | z], x_proj gives [dt | B, C]: taken apart here */
#define SAMBAY_MAMBA_WEIGHTS(W)                                                                     \
  W("attn.in_proj.weight",  in_x,      PART(0, c->d_in, 2 * c->d_in), COLS(c->d),           LINEAR) \
  W("attn.in_proj.weight",  in_z,      PART(c->d_in, 2 * c->d_in, 2 * c->d_in), COLS(c->d), LINEAR) \
  W("attn.conv1d.weight",   conv,      ROWS(c->d_in), COLS(c->K),                           VECTOR) \
  W("attn.conv1d.bias",     conv_bias, ROWS(c->d_in), COLS(1),                              VECTOR) \
  W("attn.x_proj.weight",   x_dt,      PART(0, c->R, c->dt_bc), COLS(c->d_in),              LINEAR) \
  W("attn.x_proj.weight",   x_bc,      PART(c->R, c->dt_bc, c->dt_bc), COLS(c->d_in),       LINEAR) \
  W("attn.dt_proj.weight",  dt,        ROWS(c->d_in), COLS(c->R),                           LINEAR) \
  W("attn.dt_proj.bias",    dt_bias,   ROWS(c->d_in), COLS(1),                              VECTOR) \
  W("attn.A_log",           a_log,     ROWS(c->d_in), COLS(c->N),                           VECTOR) \
  W("attn.D",               skip,      ROWS(c->d_in), COLS(1),                              VECTOR) \
  W("attn.out_proj.weight", mamba_out, ROWS(c->d), COLS(c->d_in),                           LINEAR)

#define SAMBAY_GMU_WEIGHTS(W)                                           \
  W("attn.in_proj.weight",  gmu_in,  ROWS(c->d_in), COLS(c->d), LINEAR) \
  W("attn.out_proj.weight", gmu_out, ROWS(c->d), COLS(c->d_in), LINEAR)

/* Wqkv has rows [Q | K | V]; a cross layer's is Q alone (rows = all rows of its Wqkv) */
#define SAMBAY_QUERY_WEIGHTS(W)                                                               \
  W("attn.Wqkv.weight",                   wq,        PART(0, c->q, rows), COLS(c->d), LINEAR) \
  W("attn.Wqkv.bias",                     bq,        PART(0, c->q, rows), COLS(1),    VECTOR) \
  W("attn.out_proj.weight",               wo,        ROWS(c->d), COLS(c->q),          LINEAR) \
  W("attn.out_proj.bias",                 bo,        ROWS(c->d), COLS(1),             VECTOR) \
  W("attn.inner_cross_attn.lambda_q1",    lambda_q1, ROWS(c->head_dim), COLS(1),      VECTOR) \
  W("attn.inner_cross_attn.lambda_k1",    lambda_k1, ROWS(c->head_dim), COLS(1),      VECTOR) \
  W("attn.inner_cross_attn.lambda_q2",    lambda_q2, ROWS(c->head_dim), COLS(1),      VECTOR) \
  W("attn.inner_cross_attn.lambda_k2",    lambda_k2, ROWS(c->head_dim), COLS(1),      VECTOR) \
  W("attn.inner_cross_attn.subln.weight", subln_raw, ROWS(2 * c->head_dim), COLS(1),  VECTOR)

#define SAMBAY_KEY_WEIGHTS(W)                                                   \
  W("attn.Wqkv.weight", wk, PART(c->q, c->q + c->kv, rows), COLS(c->d), LINEAR) \
  W("attn.Wqkv.weight", wv, PART(c->q + c->kv, rows, rows), COLS(c->d), LINEAR) \
  W("attn.Wqkv.bias",   bk, PART(c->q, c->q + c->kv, rows), COLS(1),    VECTOR) \
  W("attn.Wqkv.bias",   bv, PART(c->q + c->kv, rows, rows), COLS(1),    VECTOR)
/* clang-format on */

struct sambay_layer {
  enum sambay_mixer mixer;
  SAMBAY_LAYER(NN_FIELD)
  SAMBAY_MAMBA_WEIGHTS(NN_FIELD)
  float *a; /* [d_in, N] -exp(A_log) */
  SAMBAY_GMU_WEIGHTS(NN_FIELD)
  SAMBAY_QUERY_WEIGHTS(NN_FIELD)
  SAMBAY_KEY_WEIGHTS(NN_FIELD)
  float lambda;
  float *subln; /* [2 head_dim] subln * (1 - lambda_init) */
};

struct sambay_model {
  nn_model nn;
  struct sambay_config config;
  SAMBAY_TOP(NN_FIELD)
  const viv_weight *head;
  struct sambay_layer *layer;   /* [layers] */
  int32_t *k_offset, *v_offset; /* [heads] where a head's key and value pair stand in a cache row */
  nn_kv_layer *kv_layer;        /* [half + 2]: recurrent layers only count tokens there */
};

/* The recurrent state of one Mamba layer of one sequence, in the sequence's state block. */
struct sambay_state {
  float *tail;   /* [d_in, K-1] inputs of the convolution, oldest first */
  float *oldest; /* [d_in] the one before them: a tap shows K columns */
  float *s;      /* [d_in, N] */
};
struct sambay_state sambay_state_of(const struct sambay_config *c, void *block, int32_t layer);
uint64_t sambay_state_bytes(const struct sambay_config *c);

/* What seq_truncate needs to cut inside the last batch: for each Mamba layer the state before the
 * batch and after each of its rows, and the convolution's inputs. It comes from the model's arena
 * (3.1 MB per row in the released model) and is let go by the next batch without KEEP_STATES. */
struct sambay_kept {
  int64_t base, rows;
};
float *sambay_kept_states(const struct sambay_config *c, struct sambay_kept *k, int32_t layer);
float *sambay_kept_inputs(const struct sambay_config *c, struct sambay_kept *k, int32_t layer);
uint64_t sambay_kept_bytes(const struct sambay_config *c, int64_t rows);

struct sambay_step {
  const struct sambay_model *m;
  const viv_batch *batch;
  const viv_tap_sink *taps;
  float *hidden; /* [n_capture, rows, d] */
  bool keep;     /* KEEP_STATES */
  int64_t rows;
  const nn_segment *segment; /* rows by sequence */
  int32_t n_segments;
  const int32_t *late; /* [n_late] rows that go through the cross-decoder */
  int64_t n_late;
  int64_t *slot;        /* [rows] token of the cache that is the row's own */
  int64_t *visible;     /* [rows] keys [0, visible) may be seen */
  nn_kv_seq **seq;      /* [rows] the row's sequence */
  const viv_kv **pages; /* [rows] cache of the layer at hand */
  float *x;             /* [rows, d] residual stream */
  float *u;             /* [rows, d] after a norm */
  float *y;             /* [rows, d] what a sub-layer adds */
  float *in, *z;        /* [rows, d_in] the two halves of in_proj */
  float *conv;          /* [rows, d_in] x~ */
  float *low;           /* [rows, R] */
  float *delta;         /* [rows, d_in] */
  float *bc;            /* [rows, 2N] B and C of a row */
  float *memory;        /* [rows, d_in] y of the last Mamba layer */
  float *q;             /* [rows, heads, head_dim] */
  float *k, *v;         /* [rows, kv_heads, head_dim] */
  float *pair;          /* [rows, heads, 2 head_dim] */
  float *diff;          /* [rows, heads/2, 2 head_dim] */
  float *fc;            /* [rows, 2 ff] */
  float *act;           /* [rows, ff] */
  float *late_x;        /* [rows, d] */
  float *late_memory;   /* [rows, d_in] */
};

/* forward.c */
enum sambay_mixer sambay_schedule(int32_t i, int32_t layers);
double sambay_lambda_init(int32_t i);
float sambay_lambda(const struct sambay_layer *w, int64_t dim, int32_t i);
int32_t sambay_self_decoder(struct sambay_step *s, viv_error *error);
int32_t sambay_cross_decoder(struct sambay_step *s, viv_error *error);
void sambay_logits(const nn_model *model, const float *x, int64_t n, bool final_norm,
                   float *scratch, float *logits);
/* eval.c */
void sambay_take(nn_scratch *a, const struct sambay_config *c, int64_t rows, struct sambay_step *s);
int32_t sambay_eval(viv_plugin_model *model, const viv_batch *batch, viv_eval_out *out,
                    viv_error *error);
int32_t sambay_truncate(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error);
/* selftest.c */
extern const nn_selftest_api sambay_selftest;

#endif
