/* viv.strategy/1: how tokens are chosen.
 *
 * A strategy is a state machine that never calls the model. resume() is given the results of what it
 * asked for last and answers with what it wants next: operations on sequences, rows to evaluate, and
 * tokens to emit. The host gathers the wants of all jobs on a model into one batch, so continuous
 * batching belongs to no strategy and serves all of them. The host emits the text, and ends the job
 * at an end-of-sequence token, a stop string or max_new_tokens: a strategy needs to know of none of
 * these, and what it emits beyond the end is dropped.
 *
 * A plugin may offer several strategies; its manifest lists their names. */
#ifndef VIVARIUM_STRATEGY_H
#define VIVARIUM_STRATEGY_H

#include "token_model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_STRATEGY_ID "viv.strategy/1"
#define VIV_SAMPLER_ID "viv.sampler/1"

typedef struct viv_strategy viv_strategy; /* the plugin's, one job's state */

/* What a strategy is given when it starts. Lives until destroy. */
typedef struct viv_strategy_setup {
  uint32_t struct_size;
  int32_t n_prompt;
  viv_str name;             /* "greedy", "sample", "prompt-lookup", ... */
  const viv_json *params;   /* the job's parameters, object or NULL */
  const viv_token_info *info;
  const int32_t *prompt;    /* [n_prompt] the tokens before the first new one */
  uint64_t seed;            /* equal seeds give equal results */
  viv_arena *arena;         /* the job's */
  int64_t max_new_tokens;   /* a hint: no need to propose beyond it */
} viv_strategy_setup;

enum viv_seq_op_kind {
  VIV_SEQ_TRUNCATE = 1, /* seq loses its last a tokens */
  VIV_SEQ_FORK = 2,     /* new local sequence b from seq */
  VIV_SEQ_DROP = 3,
  VIV_SEQ_GATHER = 4    /* of its last a tokens seq keeps those at index[0..n), in that order */
};

/* Sequences have numbers local to the job; 0 is there from the start and holds what the host has
 * prefilled: all prompt tokens but the last (the first want evaluates that one), after whatever a
 * session held before. So lengths are counted from the end. */
typedef struct viv_seq_op {
  int32_t kind;
  int32_t seq;
  int64_t a;
  int32_t b;
  int32_t n;
  const int32_t *index;
} viv_seq_op;

enum viv_logit_mode {
  VIV_LOGITS_FULL = 0,  /* logits [n_logit_rows, vocab_size] */
  VIV_LOGITS_TOPK = 1,  /* ids, values [n_logit_rows, top_k], largest first, ties: lowest id */
  VIV_LOGITS_ARGMAX = 2 /* ids [n_logit_rows]; values [n_logit_rows, 4]: logit, probability, entropy,
                           top-1 minus top-2 probability */
};

/* What a strategy wants. The strategy owns everything it points to until the next resume. The
 * order is: emit, then ops, then eval; MORE comes with an evaluation, DONE may come without. */
typedef struct viv_strategy_want {
  uint32_t struct_size;
  int32_t n_emit;
  const int32_t *emit;         /* [n_emit] accepted tokens, in order */
  const int32_t *emit_row;     /* [n_emit] row of the last result's logits each was chosen from, or -1 */
  int32_t n_ops;
  int32_t logit_mode;          /* enum viv_logit_mode */
  const viv_seq_op *ops;       /* [n_ops] */
  int32_t top_k;
  int32_t reserved;
  const viv_batch *batch;      /* NULL: no evaluation; seq are local numbers; taps, scratch and poll
                                  are the host's */
  viv_str annotate;            /* JSON object for observers of this step, may be empty */
} viv_strategy_want;

typedef struct viv_strategy_result {
  uint32_t struct_size;
  int32_t n_rows;      /* logit rows */
  const float *logits; /* FULL; may be written to (warping in place) */
  const int32_t *ids;
  const float *values;
  const float *hidden;
} viv_strategy_result;

/* Counters every strategy reports at the end (systems/decoding.md section 0). */
typedef struct viv_strategy_counters {
  uint32_t struct_size;
  int32_t reserved;
  int64_t target_calls; /* evaluations of the whole model, prefill apart */
  int64_t drafted;
  int64_t accepted;
} viv_strategy_counters;

typedef struct viv_strategy_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  /* Capability bits without which the strategy of that name can't run; the host refuses it then with
   * the model's own reason. VIV_NEVER: no such strategy. [any] */
  int32_t (*requires_caps)(viv_str name, uint32_t *all_of, uint32_t *any_of);

  /* BAD_INPUT names the parameter that is wrong. [job] */
  int32_t (*create)(const viv_host *host, const viv_strategy_setup *setup, viv_strategy **out,
                    viv_error *error);
  /* result is NULL the first time. Answers MORE (want is filled), DONE (want may hold last tokens to
   * emit), or a failure. Does no heavy work. [job] */
  int32_t (*resume)(viv_strategy *strategy, const viv_strategy_result *result,
                    viv_strategy_want *want, viv_error *error);
  void (*counters)(const viv_strategy *strategy, viv_strategy_counters *out); /* [job] */
  void (*destroy)(viv_strategy *strategy);                                     /* [job] */
} viv_strategy_api;

/* viv.sampler/1, a host extension: the one warper and the one random generator that all strategies
 * share. process: sequence bias, repetition, n-grams, bad words, lengths, suppression, presence and
 * frequency, logit bias, grammar; then temperature, n-sigma, top-H, -k, -p, min-p, typical, cut-offs. */
typedef struct viv_sampler viv_sampler;

typedef struct viv_sampler_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  /* From a job's parameters, each off unless given: temperature (1), top_k, top_p, min_p, typical_p,
   * epsilon_cutoff, repetition_penalty, presence_penalty, logit_bias, sequence_bias, suppress_tokens
   * and the others of transformers' GenerationConfig. BAD_INPUT names the one that is wrong. */
  int32_t (*create)(const viv_host *host, viv_arena *arena, const viv_json *params,
                    int32_t vocab_size, uint64_t seed, viv_sampler **out, viv_error *error);
  /* Tell the sampler that a token is part of the history: of the prompt (generated 0), or accepted
   * (1). Repetition counts both, presence and frequency count what was generated. With generated -1
   * the whole history is forgotten, and token is ignored: for strategies with several texts. */
  void (*accept)(viv_sampler *sampler, int32_t token, int32_t generated);
  void (*process)(viv_sampler *sampler, float *logits); /* penalties, bias, suppression: no warping */
  void (*probabilities)(viv_sampler *sampler, float *logits); /* process, warp, softmax; in place */
  int32_t (*draw)(viv_sampler *sampler, const float *probabilities);
  int32_t (*argmax)(viv_sampler *sampler, const float *logits); /* lowest index among equals */
  double (*uniform)(viv_sampler *sampler);                      /* [0, 1) */
} viv_sampler_api;

#ifdef __cplusplus
}
#endif
#endif
