/* viv.token-model/1: stepwise evaluation of token models, beside viv.model/1.
 *
 * A model keeps any number of sequences. eval runs a batch of rows that may belong to many of them;
 * this is the only call that computes with the layers. The host builds the batches: it joins what
 * the decoding strategies of all its jobs ask for. Choosing tokens is no business of the model.
 *
 * Invariants (tests/unit/token_invariants.c runs them on every plugin; those whose capability bit is
 * missing are left out)
 *   a  eval of n causal rows == n evals of one row (STRICT_ROWS: to the bit)
 *   b  truncate, then append the same rows: the same logits
 *   c  mask PARENT with a chain == CAUSAL
 *   d  gather of a path == having fed that path alone
 *   e  layers [0,l), then HIDDEN rows through [l,L) == [0,L)
 *   f  empty skip sets == none
 *   g  EMBED rows from embed(tokens) == TOKENS
 *   h  a fork never sees what is done to the other side
 *   i  REPLACE with identical rows changes nothing
 *   j  expert_ranks 0..k-1 == the default routing
 *   k  restore(snapshot(s)) continues as s would, to the bit */
#ifndef VIVARIUM_TOKEN_MODEL_H
#define VIVARIUM_TOKEN_MODEL_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_TOKEN_MODEL_ID "viv.token-model/1"

enum viv_token_caps {
  VIV_CAP_STRICT_ROWS = 1 << 0,     /* a row's result does not depend on the rows beside it */
  VIV_CAP_HIDDEN_IO = 1 << 1,       /* input_kind HIDDEN and capture_layers */
  VIV_CAP_LAYER_RANGE = 1 << 2,     /* layer_begin, layer_end */
  VIV_CAP_SKIP = 1 << 3,            /* skip_attn, skip_mlp */
  VIV_CAP_TREE_MASK = 1 << 4,       /* mask PARENT and BITS */
  VIV_CAP_BIDIRECTIONAL = 1 << 5,   /* mask FULL */
  VIV_CAP_KV_REPLACE = 1 << 6,      /* kv_write REPLACE */
  VIV_CAP_KV_NONE = 1 << 7,         /* kv_write NONE */
  VIV_CAP_EMBED_IN = 1 << 8,        /* embed(), input_kind EMBED */
  VIV_CAP_EXPERT_OVERRIDE = 1 << 9, /* expert_ranks */
  VIV_CAP_ENCODER = 1 << 10,        /* encode() */
  VIV_CAP_TRUNCATE = 1 << 11,       /* seq_truncate to any length */
  VIV_CAP_TRUNCATE_KEPT = 1 << 12,  /* seq_truncate into the last batch if it had KEEP_STATES */
  VIV_CAP_GATHER = 1 << 13,
  VIV_CAP_FORK = 1 << 14,
  VIV_CAP_SNAPSHOT = 1 << 15,
  VIV_CAP_HEAD = 1 << 16,           /* head() */
  VIV_CAP_AUX = 1 << 17,            /* aux_load(), aux_run() */
  VIV_CAP_BIRTHS = 1 << 18          /* rows that join at a later layer */
};

typedef struct viv_token_info {
  uint32_t struct_size;
  uint32_t caps; /* enum viv_token_caps */
  int32_t n_layers;
  int32_t d_model;
  int32_t vocab_size;
  int32_t n_eos;
  int64_t context_max;
  const int32_t *eos; /* [n_eos], lives as long as the model */
  int32_t bos;        /* -1: none */
  int32_t pad;        /* -1: none */
  int32_t decoder_start; /* -1: none */
  int32_t mask_token;    /* -1: none */
  viv_str cannot;        /* why the missing capabilities are missing, for people */
} viv_token_info;

enum viv_input_kind { VIV_INPUT_TOKENS = 0, VIV_INPUT_EMBED = 1, VIV_INPUT_HIDDEN = 2 };
enum viv_mask_kind { VIV_MASK_CAUSAL = 0, VIV_MASK_FULL = 1, VIV_MASK_PARENT = 2, VIV_MASK_BITS = 3 };
enum viv_kv_write { VIV_KV_APPEND = 0, VIV_KV_REPLACE = 1, VIV_KV_NONE = 2 };

enum viv_batch_flags {
  VIV_BATCH_KEEP_STATES = 1 /* keep what seq_truncate needs to cut anywhere inside this batch */
};

enum viv_tap_kind {
  VIV_TAP_ROWS = 0,    /* first axis = this batch's rows: the host joins chunks */
  VIV_TAP_STATE = 1,   /* a sequence's state after the call: the last one counts */
  VIV_TAP_CONSTANT = 2 /* belongs to the model, not to a sequence (frequencies, tables) */
};

/* Where eval reports intermediate tensors, borrowed until put returns. wants costs little; what nobody
 * wants is not computed. last_hidden_state, ROWS behind the final norm, serves the task embed. */
typedef struct viv_tap_sink {
  uint32_t struct_size;
  int32_t reserved;
  void *self;
  int32_t (*wants)(void *self, viv_str name);
  void (*put)(void *self, viv_str name, int32_t kind, const viv_tensor *tensor);
} viv_tap_sink;

/* One row that joins the batch at a later layer (hidden transfer, residual streams). */
typedef struct viv_birth {
  int32_t row;        /* index of the row in the batch */
  int32_t layer;      /* it exists from this layer on */
  int32_t source_row; /* whose hidden state it is made from */
  int32_t aux_id;     /* the auxiliary module that makes it */
} viv_birth;

/* Rows of one sequence stand next to each other, in the order in which they are appended. All
 * pointers are borrowed until eval returns. Zero and NULL mean the plain case throughout. */
typedef struct viv_batch {
  uint32_t struct_size;
  uint32_t flags;         /* enum viv_batch_flags */
  int32_t n_rows;         /* 1 or more */
  int32_t input_kind;     /* enum viv_input_kind */
  const int32_t *tokens;  /* [n_rows], TOKENS */
  const float *rows;      /* [n_rows, d_model], EMBED or HIDDEN */
  const int32_t *seq;     /* [n_rows] sequence of each row */
  const int32_t *pos;     /* [n_rows] position of each row; NULL: the next ones of its sequence, with
                             PARENT the depth below the root */
  int32_t layer_begin;
  int32_t layer_end;      /* 0: all layers */
  int32_t mask_kind;      /* enum viv_mask_kind */
  int32_t kv_write;       /* enum viv_kv_write */
  const int32_t *parent;  /* [n_rows] PARENT: row of the same sequence whose child this is, -1: root */
  const uint8_t *mask;    /* [n_rows, n_rows] BITS: 1 = row i sees row j of the batch */
  const uint64_t *skip_attn; /* bit l of word l/64: layer l leaves its mixer out; NULL: none */
  const uint64_t *skip_mlp;
  const int32_t *expert_ranks; /* [n_expert_ranks] */
  int32_t n_expert_ranks;
  int32_t n_births;
  const viv_birth *births;
  const int32_t *capture_layers; /* [n_capture] residual stream after that many layers */
  const int32_t *logit_rows;     /* [n_logit_rows] rows whose logits are wanted, ascending */
  int32_t n_capture;
  int32_t n_logit_rows;
  const viv_tap_sink *taps;   /* NULL: none */
  viv_arena *scratch;         /* the step's arena, reset by the host after the call */
  void *poll_self;            /* poll is called between layers; negative: stop and return it, */
  int32_t (*poll)(void *self); /* the batch's sequences are then closed by the host. May be NULL. */
} viv_batch;

/* Host memory that eval fills. */
typedef struct viv_eval_out {
  uint32_t struct_size;
  int32_t reserved;
  float *logits; /* [n_logit_rows, vocab_size], raw */
  float *hidden; /* [n_capture, n_rows, d_model], un-normed */
} viv_eval_out;

/* Functions whose capability bit is missing may be NULL. All are [job] except info. Sequence ids are
 * small non-negative numbers, reused after seq_close. Errors: BAD_INPUT for an id or length that does
 * not exist, NOT_NOW when memory is short (nothing changed then, unless said otherwise). */
typedef struct viv_token_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  int32_t (*info)(const viv_plugin_model *model, viv_token_info *out); /* [any] */

  int32_t (*seq_open)(viv_plugin_model *model, int32_t *seq, viv_error *error);
  void (*seq_close)(viv_plugin_model *model, int32_t seq);
  int64_t (*seq_len)(const viv_plugin_model *model, int32_t seq); /* tokens held, -1: no such id */

  int32_t (*eval)(viv_plugin_model *model, const viv_batch *batch, viv_eval_out *out,
                  viv_error *error);

  int32_t (*seq_truncate)(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error);
  /* Keep the first base tokens, then those at positions base + index[0..n); the indices ascend. */
  int32_t (*seq_gather)(viv_plugin_model *model, int32_t seq, int64_t base, const int32_t *index,
                        int32_t n, viv_error *error);
  int32_t (*seq_fork)(viv_plugin_model *model, int32_t seq, int32_t *out, viv_error *error);

  /* All state of a sequence as bytes that another process with the same checkpoint can restore.
   * snapshot sets *bytes to what is needed; with data NULL that is all it does, and when capacity is
   * smaller it writes nothing else and answers NOT_NOW. restore replaces the
   * state of an open sequence; the bytes are untrusted and checked. */
  int32_t (*snapshot)(viv_plugin_model *model, int32_t seq, void *data, uint64_t capacity,
                      uint64_t *bytes, viv_error *error);
  int32_t (*restore)(viv_plugin_model *model, int32_t seq, const void *data, uint64_t bytes,
                     viv_error *error);

  /* logits [n, vocab_size] of hidden rows [n, d_model]; final_norm 1: apply the final norm first. */
  int32_t (*head)(viv_plugin_model *model, const float *rows, int32_t n, int32_t final_norm,
                  viv_arena *scratch, float *logits, viv_error *error);
  int32_t (*embed)(viv_plugin_model *model, const int32_t *tokens, int32_t n, float *rows,
                   viv_error *error);
  /* Encoder-decoder models: fill the cross-attention memory of a sequence. */
  int32_t (*encode)(viv_plugin_model *model, int32_t seq, const int32_t *tokens, int32_t n,
                    viv_arena *scratch, viv_error *error);
  int32_t (*aux_load)(viv_plugin_model *model, const viv_checkpoint *checkpoint, viv_str kind,
                      int32_t *aux_id, viv_error *error);
  int32_t (*aux_run)(viv_plugin_model *model, int32_t aux_id, const viv_batch *batch, float *out,
                     viv_error *error);
} viv_token_api;

#ifdef __cplusplus
}
#endif
#endif
