/* A token model's running job: its lanes (one per row of the request's batch) and its results.
 * Internal to host/tasks. */
#ifndef VIV_HOST_TASK_H
#define VIV_HOST_TASK_H

#include "core/core.h"
#include "vivarium/strategy.h"

enum { VIV__MAX_LOCAL = 16, VIV__MAX_ROWS = 512, VIV__MAX_EOS = 32, VIV__MAX_STOP = 16 };

enum viv__task_kind { VIV__GENERATE = 1, VIV__FORWARD = 2, VIV__SCORE = 3, VIV__EMBED = 4 };

typedef struct viv__task viv__task;

/* An intermediate tensor of one lane, joined over chunks. */
typedef struct viv__tap {
  char *name;
  int32_t kind, dtype, ndim;
  int64_t shape[VIV_MAX_DIMS]; /* of the last piece; axis 0 summed for ROWS */
  viv__buf data;
} viv__tap;

/* One sequence at work. */
typedef struct viv__lane {
  viv__task *task;
  int32_t row;     /* of the request's batch */
  int32_t *prompt; /* [n_prompt] what has to be fed, in order */
  int32_t *column; /* [n_prompt] where each token stands in the request's row */
  int64_t n_prompt, fed;
  int64_t base;  /* tokens the sequence held before this job (a session's) */
  int64_t known; /* tokens of the prompt that were read before (prompts.c) */
  int32_t seq;   /* the model's, -1: none */
  bool owns_seq, done;

  const viv_strategy_api *api;
  viv_strategy *strategy;
  viv_strategy_want want;
  bool has_want;
  int32_t local[VIV__MAX_LOCAL]; /* the strategy's sequence -> the model's; -1: none */
  int32_t *mirror;               /* what sequence 0 holds beyond base: kept for sessions */
  int64_t n_mirror, cap_mirror;
  int32_t *out;
  int64_t n_out, cap_out;
  float *raw, *step_logits; /* raw logits of the last result; of each emitted token */
  int32_t n_raw;
  viv__buf logprobs; /* see logprobs.c */
  viv__detokenizer *detokenizer;
  viv__buf text;  /* decoded and not yet sent */
  viv__buf whole; /* all decoded text, when it is a wanted output */
  const char *finish;
  viv_json *results;                  /* what the strategy found beside its text; NULL: nothing */
  struct viv__constraint *constraint; /* NULL: none */

  viv__tap *taps;
  size_t n_taps;
} viv__lane;

typedef struct viv__out {
  char *name;
  viv_tensor tensor; /* data: viv__malloc */
  uint32_t flags;
} viv__out;

struct viv__task {
  viv_job *job;
  viv_model *m;
  int32_t kind;     /* enum viv__task_kind */
  int32_t n_rows;   /* B */
  int64_t columns;  /* T */
  viv__lane *lanes; /* [n_rows] */
  int64_t chunk;
  uint64_t reserved;
  int32_t status; /* MORE while it runs */
  viv_error error;
  bool complete; /* all is computed; what is left is to emit */
  viv__out *outs;
  size_t n_outs, cap_outs, emitted;
  uint64_t begun_ns, prefilled_ns;
  int64_t prompt_tokens, new_tokens, evals;
  viv_strategy_counters counters;

  /* generate */
  int64_t max_new, min_new;
  struct viv__grammar *grammar; /* NULL: none */
  int32_t eos[VIV__MAX_EOS], n_eos, pad;
  bool logprobs;
  int32_t top_logprobs;
  bool beams; /* several texts at once: their lengths are not n_out */
  bool ignore_eos, skip_special, stream_text;
  bool want_ids, want_sequences, want_step_logits, want_text;
  viv_str stop[VIV__MAX_STOP];
  int32_t n_stop;

  /* forward, score */
  float *logits; /* [B, kept, V] */
  float *nll;    /* [n - 1] */
  int64_t *argmax;
  bool last_only;
  int32_t top_k;

  /* embed, see embed.c */
  int32_t pooling;
  bool normalize;
  double *pooled; /* [B, d] sums of the rows that count */
};

/* One lane's share of a batch. */
typedef struct viv__part {
  viv__lane *lane;
  int32_t first, n; /* rows */
  int32_t first_logit, n_logits;
  bool prefill;
} viv__part;

/* Rows of many lanes, evaluated together. */
typedef struct viv__batch {
  int32_t tokens[2 * VIV__MAX_ROWS], seq[2 * VIV__MAX_ROWS], logit_rows[2 * VIV__MAX_ROWS];
  int32_t n, n_logits;
  uint32_t flags;
  viv__part parts[VIV__MAX_ROWS];
  int32_t n_parts;
} viv__batch;

/* The engine of a model: buffers that rounds reuse. */
typedef struct viv__engine {
  viv_arena *scratch;
  float *logits;
  size_t cap_logits; /* floats */
  int32_t *ids;
  float *values;
  size_t cap_values;
  struct viv__token_trie *trie; /* made for the first job with a grammar */
  uint64_t turn;
  viv__batch batch;
} viv__engine;

/* ---- shared between the task files ---- */

/* viv__job_poll in the form that viv_batch.poll takes. */
int32_t viv__task_poll(void *job);
int32_t viv__task_fail(viv__task *t, int32_t status, const viv_error *error);
/* Reads input_ids / attention_mask, or text / messages through the tokenizer, into lanes. */
int32_t viv__task_read_tokens(viv__task *t, bool allow_text, viv_error *error);
/* Opens a sequence per lane (or takes the session's) and reserves its memory for extra more tokens. */
int32_t viv__task_open_seqs(viv__task *t, int64_t extra, viv_error *error);
/* A prompt whose beginning is known begins behind it; keeps the state behind one that was read (prompts.c). */
int32_t viv__prompt_take_up(viv__lane *lane, viv_error *error);
void viv__prompt_keep(viv__lane *lane);
/* Adds a result tensor; data is taken over (freed also on failure). */
int32_t viv__task_out(viv__task *t, const char *name, int32_t dtype, int32_t ndim,
                      const int64_t *shape, void *data, uint32_t flags);
bool viv__task_wants(const viv__task *t, const char *output);
/* Grows the engine's logits buffer. */
int32_t viv__engine_logits(viv_model *m, int64_t rows, viv_error *error);

int32_t viv__generate_begin(viv__task *t, viv_error *error);
/* Feeds a result (NULL the first time) to the lane's strategy and takes what it answers. */
int32_t viv__generate_resume(viv__lane *lane, const viv_strategy_result *result, viv_error *error);
int32_t viv__generate_result(viv__lane *lane, float *logits, viv_error *error);
int32_t viv__generate_finish(viv__task *t, viv_error *error);
/* logprobs.c: the parameters logprobs and top_logprobs; one emitted token (row NULL: not known from
 * what it was chosen); the outputs. */
int32_t viv__logprobs_read(viv__task *t, viv_error *error);
int32_t viv__logprobs_add(viv__lane *lane, const float *row, int32_t token, viv_error *error);
int32_t viv__logprobs_give(viv__task *t, viv_error *error);
/* Largest k logits of a row, ties to the lowest id. */
void viv__top_k(const float *row, int32_t vocab, int32_t k, int32_t *ids, float *values);

/* Sends decoded text. False: the consumer is slow. */
bool viv__generate_flush(viv__lane *lane);
void viv__generate_release(viv__lane *lane);

int32_t viv__forward_begin(viv__task *t, viv_error *error);
/* One chunk of one lane; marks the task complete after the last. */
int32_t viv__forward_step(viv__task *t, viv_error *error);

int32_t viv__embed_begin(viv__task *t, viv_error *error);
/* One chunk of rows of the next lanes; marks the task complete after the last. */
int32_t viv__embed_step(viv__task *t, viv_error *error);

#endif
