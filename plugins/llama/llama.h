/* Llama, Mistral, Qwen2 and Phi-3: one family, told apart by config.json. forward.c is the model;
 * here stand its sizes, its weights and one step of work. */
#ifndef PLUGINS_LLAMA_H
#define PLUGINS_LLAMA_H

#include "nn/nn.h"

enum { LLAMA_MAX_LAYERS = 1024, LLAMA_PAGE = 32, LLAMA_SLACK = 512 };

struct llama_config {
  int64_t d, ff, heads, kv_heads, head_dim, vocab, context;
  int64_t q, kv, qkv; /* heads * head_dim, kv_heads * head_dim, q + 2 kv */
  int32_t layers, act;
  float eps;
  bool fused; /* qkv_proj and gate_up_proj (Phi-3) */
  bool qkv_bias, o_bias, mlp_bias;
  bool tied;      /* the head is the embedding */
  bool drops;     /* windowed layers let go of old keys */
  int64_t window; /* 0: none */
  bool windowed[LLAMA_MAX_LAYERS];
  nn_special special;
  nn_rope rope;
};

/* clang-format off */
/* columns: name in the checkpoint, field, shape, kind (nn.h) */
#define LLAMA_TOP(W)                                                                       \
  W("model.embed_tokens.weight", embed,   ROWS(c->vocab), COLS(c->d), LINEAR)              \
  W("model.norm.weight",         norm,    ROWS(c->d), COLS(1),        VECTOR)              \
  W("lm_head.weight",            lm_head, ROWS(c->vocab), COLS(c->d), LINEAR_IF(!c->tied))

/* under model.layers.{i}. */
#define LLAMA_LAYER(W)                                                                             \
  W("input_layernorm.weight",          norm1,     ROWS(c->d), COLS(1),     VECTOR)                 \
  W("self_attn.o_proj.weight",         wo,        ROWS(c->d), COLS(c->q),  LINEAR)                 \
  W("self_attn.o_proj.bias",           bo,        ROWS(c->d), COLS(1),     VECTOR_IF(c->o_bias))   \
  W("post_attention_layernorm.weight", norm2,     ROWS(c->d), COLS(1),     VECTOR)                 \
  W("mlp.down_proj.weight",            down,      ROWS(c->d), COLS(c->ff), LINEAR)                 \
  W("mlp.down_proj.bias",              down_bias, ROWS(c->d), COLS(1),     VECTOR_IF(c->mlp_bias))

/* Llama, Mistral, Qwen2 */
#define LLAMA_SPLIT(W)                                                                     \
  W("self_attn.q_proj.weight", wq,        ROWS(c->q), COLS(c->d),  LINEAR)                 \
  W("self_attn.k_proj.weight", wk,        ROWS(c->kv), COLS(c->d), LINEAR)                 \
  W("self_attn.v_proj.weight", wv,        ROWS(c->kv), COLS(c->d), LINEAR)                 \
  W("self_attn.q_proj.bias",   bq,        ROWS(c->q), COLS(1),     VECTOR_IF(c->qkv_bias)) \
  W("self_attn.k_proj.bias",   bk,        ROWS(c->kv), COLS(1),    VECTOR_IF(c->qkv_bias)) \
  W("self_attn.v_proj.bias",   bv,        ROWS(c->kv), COLS(1),    VECTOR_IF(c->qkv_bias)) \
  W("mlp.gate_proj.weight",    gate,      ROWS(c->ff), COLS(c->d), LINEAR)                 \
  W("mlp.gate_proj.bias",      gate_bias, ROWS(c->ff), COLS(1),    VECTOR_IF(c->mlp_bias)) \
  W("mlp.up_proj.weight",      up,        ROWS(c->ff), COLS(c->d), LINEAR)                 \
  W("mlp.up_proj.bias",        up_bias,   ROWS(c->ff), COLS(1),    VECTOR_IF(c->mlp_bias))

/* Phi-3: the same fields from rows of two tensors */
#define LLAMA_FUSED(W)                                                                         \
  W("self_attn.qkv_proj.weight", wq,   PART(0, c->q, c->qkv), COLS(c->d),              LINEAR) \
  W("self_attn.qkv_proj.weight", wk,   PART(c->q, c->q + c->kv, c->qkv), COLS(c->d),   LINEAR) \
  W("self_attn.qkv_proj.weight", wv,   PART(c->q + c->kv, c->qkv, c->qkv), COLS(c->d), LINEAR) \
  W("mlp.gate_up_proj.weight",   gate, PART(0, c->ff, 2 * c->ff), COLS(c->d),          LINEAR) \
  W("mlp.gate_up_proj.weight",   up,   PART(c->ff, 2 * c->ff, 2 * c->ff), COLS(c->d),  LINEAR)
/* clang-format on */

struct llama_layer {
  LLAMA_LAYER(NN_FIELD)
  LLAMA_SPLIT(NN_FIELD)
};

struct llama_model {
  nn_model nn;
  struct llama_config config;
  LLAMA_TOP(NN_FIELD)
  const viv_weight *head;    /* lm_head or embed */
  struct llama_layer *layer; /* [layers] */
  nn_kv_layer *kv_layer;     /* [layers + 1]: the last one holds each token's id and position */
};

/* The keys that the rows of a tree or of given bits may see, for one kind of layer. */
struct llama_mask {
  uint8_t *bits;  /* [rows, stride] or NULL: what visible says, no more */
  int64_t stride; /* bytes */
  int64_t *begin; /* [rows] token of a row's first bit */
  int64_t window; /* for the kernel; what the bits of a windowed layer cover */
};

/* One pass of rows through layers [begin, end). */
struct llama_step {
  const struct llama_model *m;
  const viv_batch *batch; /* skip sets, captured layers, poll */
  const viv_tap_sink *taps;
  float *hidden; /* where captured layers go: [n_capture, rows, d] */
  int64_t rows;
  int32_t begin, end;
  bool store;                /* keys and values of the rows are written at their slots */
  const nn_segment *segment; /* rows by sequence; tag 1: the long rotary set */
  int32_t n_segments;
  int32_t *pos;     /* [rows] rotary position */
  int64_t *slot;    /* [rows] token of the cache that is the row's own */
  int64_t *visible; /* [rows] keys [0, visible) may be seen */
  struct llama_mask full, windowed;
  const viv_kv **pages; /* [rows] cache of the layer at hand */
  float *x;             /* [rows, d] residual stream */
  float *u;             /* [rows, d] after a norm */
  float *y;             /* [rows, d] what a sub-layer adds */
  float *q;             /* [rows, heads, head_dim] */
  float *k, *v;         /* [rows, kv_heads, head_dim] */
  float *a;             /* [rows, heads, head_dim] attention's result */
  float *gate, *up;     /* [rows, ff] */
  float *cos_sin;       /* [rows, R] */
};

/* forward.c */
int32_t llama_layers(struct llama_step *s, viv_error *error);
void llama_logits(const nn_model *model, const float *x, int64_t n, bool final_norm, float *scratch,
                  float *logits);
/* eval.c */
int32_t llama_eval(viv_plugin_model *model, const viv_batch *batch, viv_eval_out *out,
                   viv_error *error);
void llama_take(nn_scratch *a, const struct llama_config *c, int64_t rows, struct llama_step *s);
/* plugin.c: reads config.json. tied_default: what an absent tie_word_embeddings means. */
int32_t llama_config_read(const viv_host *host, const viv_json *json, bool tied_default,
                          struct llama_config *c, viv_error *error);
/* selftest.c */
extern const nn_selftest_api llama_selftest;

#endif
