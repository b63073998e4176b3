/* Tests of token models. */
#include <stdlib.h>
#include <string.h>

#include "validate/tests.h"

struct token_setup {
  struct opened o;
  const viv_token_api *api;
  viv_token_info info;
  viv_arena *scratch;
};

static bool token_start(struct context *c, struct token_setup *t) {
  memset(t, 0, sizeof *t);
  if (!viv__v_start(c, &t->o, 0)) return false;
  t->api = c->table->get_interface(viv__str(VIV_TOKEN_MODEL_ID));
  if (!t->api) {
    viv__v_skip(c, "offers no " VIV_TOKEN_MODEL_ID);
    viv__v_close_it(c, &t->o);
    return false;
  }
  t->info.struct_size = sizeof t->info;
  viv__v_before(c, VIV_THREAD_JOB, "info");
  int32_t status = t->api->info(t->o.model, &t->info);
  viv__v_after(c);
  const viv_token_info *i = &t->info;
  if (status < 0 || i->vocab_size < 1 || i->n_layers < 1 || i->d_model < 1 || i->n_eos < 0 ||
      (i->n_eos && !i->eos) || i->context_max < 0 || i->struct_size != sizeof *i)
    viv__v_fail(c,
                "info answers %d: vocabulary %d, %d layers, width %d, %d end tokens, context %lld, "
                "struct_size %u",
                status, i->vocab_size, i->n_layers, i->d_model, i->n_eos, (long long)i->context_max,
                i->struct_size);
  const int32_t special[] = {i->bos, i->pad, i->decoder_start, i->mask_token};
  for (size_t k = 0; !viv__v_failed(c) && k < 4; k++)
    if (special[k] < -1 || special[k] >= i->vocab_size)
      viv__v_fail(c, "info: special token %d is outside the vocabulary of %d", special[k],
                  i->vocab_size);
  for (int32_t k = 0; !viv__v_failed(c) && k < i->n_eos; k++)
    if (i->eos[k] < 0 || i->eos[k] >= i->vocab_size)
      viv__v_fail(c, "info: end token %d is outside the vocabulary of %d", i->eos[k],
                  i->vocab_size);
  const struct {
    uint32_t cap;
    bool there;
    const char *name;
  } optional[] = {{VIV_CAP_TRUNCATE, t->api->seq_truncate, "seq_truncate"},
                  {VIV_CAP_GATHER, t->api->seq_gather, "seq_gather"},
                  {VIV_CAP_FORK, t->api->seq_fork, "seq_fork"},
                  {VIV_CAP_SNAPSHOT, t->api->snapshot && t->api->restore, "snapshot and restore"},
                  {VIV_CAP_HEAD, t->api->head, "head"},
                  {VIV_CAP_EMBED_IN, t->api->embed, "embed"},
                  {VIV_CAP_ENCODER, t->api->encode, "encode"},
                  {VIV_CAP_AUX, t->api->aux_load && t->api->aux_run, "aux_load and aux_run"}};
  for (size_t k = 0; k < sizeof optional / sizeof *optional; k++)
    if ((i->caps & optional[k].cap) && !optional[k].there)
      viv__v_fail(c, "info promises a capability whose function %s is NULL", optional[k].name);
  t->scratch = viv__arena_new(0);
  if (!viv__v_failed(c)) return true;
  return false;
}

static void token_stop(struct context *c, struct token_setup *t) {
  viv__v_arena_free(c, t->scratch);
  viv__v_close_it(c, &t->o);
}

void viv__v_test_token_info(struct context *c) {
  struct token_setup t;
  if (token_start(c, &t)) token_stop(c, &t);
}

static int32_t token_eval(struct context *c, struct token_setup *t, viv_batch *b, float *logits,
                          const char *what) {
  viv_error error = VIV_ERROR_INIT;
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
  b->struct_size = sizeof *b;
  b->scratch = t->scratch;
  viv__v_before(c, VIV_THREAD_JOB, "eval (%s)", what);
  int32_t status = t->api->eval(t->o.model, b, &out, &error);
  viv__v_after(c);
  viv__v_check_failure(c, "eval", status, &error);
  return status;
}

static int32_t seq_open(struct context *c, struct token_setup *t, int32_t *seq, viv_error *error) {
  viv__v_before(c, VIV_THREAD_JOB, "seq_open");
  int32_t status = t->api->seq_open(t->o.model, seq, error);
  viv__v_after(c);
  return status;
}

enum { LOGIT_GUARD = 64 };

void viv__v_test_token_batches(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t vocab = t.info.vocab_size, seq = -1;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = seq_open(c, &t, &seq, &error);
  float *logits = calloc((size_t)vocab * 4 + LOGIT_GUARD, sizeof *logits);
  if (status < 0 || !logits) {
    viv__v_fail(c, "seq_open: %s", error.message);
    free(logits);
    return;
  }
  for (int i = 0; i < LOGIT_GUARD; i++) logits[4 * (size_t)vocab + (size_t)i] = 12345.0f;
  int32_t tokens[4] = {0, vocab - 1, vocab / 2, 1 % vocab}, seqs[4] = {seq, seq, seq, seq};
  int32_t rows[4] = {0, 1, 2, 3};
  viv_batch good = {
      .n_rows = 4, .tokens = tokens, .seq = seqs, .logit_rows = rows, .n_logit_rows = 4};

  /* What must be refused, and must leave the sequence as it was. */
  const char *const wrong[] = {"a token below 0",
                               "a token beyond the vocabulary",
                               "a sequence that is not open",
                               "a negative sequence",
                               "no rows",
                               "an input kind that does not exist",
                               "layers beyond the last",
                               "a logit row beyond the rows"};
  for (int k = 0; k < 8 && !viv__v_failed(c); k++) {
    int32_t bad_tokens[4], bad_seqs[4], bad_rows[4];
    memcpy(bad_tokens, tokens, sizeof tokens);
    memcpy(bad_seqs, seqs, sizeof seqs);
    memcpy(bad_rows, rows, sizeof rows);
    viv_batch b = good;
    b.tokens = bad_tokens;
    b.seq = bad_seqs;
    b.logit_rows = bad_rows;
    if (k == 0) bad_tokens[2] = -1;
    if (k == 1) bad_tokens[2] = vocab;
    if (k == 2)
      for (int i = 0; i < 4; i++) bad_seqs[i] = 1000000;
    if (k == 3)
      for (int i = 0; i < 4; i++) bad_seqs[i] = -7;
    if (k == 4) b.n_rows = b.n_logit_rows = 0;
    if (k == 5) b.input_kind = 99;
    if (k == 6) b.layer_end = t.info.n_layers + 1;
    if (k == 7) bad_rows[3] = 4;
    if (token_eval(c, &t, &b, logits, wrong[k]) >= 0)
      viv__v_fail(c, "eval takes a batch with %s", wrong[k]);
    viv__v_before(c, VIV_THREAD_JOB, "seq_len");
    int64_t len = t.api->seq_len(t.o.model, seq);
    viv__v_after(c);
    if (len != 0) viv__v_fail(c, "a refused batch (%s) changed its sequence", wrong[k]);
  }
  if (!viv__v_failed(c) && token_eval(c, &t, &good, logits, "4 good rows") < 0)
    viv__v_fail(c, "eval refuses a good batch");
  for (size_t i = 0; !viv__v_failed(c) && i < 4 * (size_t)vocab; i++)
    if (!(logits[i] - logits[i] == 0)) viv__v_fail(c, "logit %zu is NaN or infinite", i);
  for (int i = 0; i < LOGIT_GUARD; i++)
    if (logits[4 * (size_t)vocab + (size_t)i] != 12345.0f)
      viv__v_fail(c, "eval wrote past the logits");
  if (!viv__v_failed(c) && t.api->seq_len(t.o.model, seq) != 4)
    viv__v_fail(c, "after 4 rows seq_len is %lld", (long long)t.api->seq_len(t.o.model, seq));
  viv__v_before(c, VIV_THREAD_JOB, "seq_close, twice and of unknown ones");
  t.api->seq_close(t.o.model, seq);
  t.api->seq_close(t.o.model, seq);
  t.api->seq_close(t.o.model, -1);
  t.api->seq_close(t.o.model, 1 << 30);
  if (t.api->seq_len(t.o.model, seq) != -1)
    viv__v_fail(c, "seq_len of a closed sequence is not -1");
  viv__v_after(c);
  free(logits);
  token_stop(c, &t);
}

static int32_t poll_cancelled(void *self) {
  ++*(int *)self;
  return VIV_CANCELLED;
}

void viv__v_test_token_poll(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t seq = -1, tokens[2] = {0, t.info.vocab_size - 1}, row = 1;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = seq_open(c, &t, &seq, &error);
  float *logits = calloc((size_t)t.info.vocab_size, sizeof *logits);
  int polls = 0, seqs[2] = {seq, seq};
  viv_batch b = {.struct_size = sizeof b,
                 .n_rows = 2,
                 .tokens = tokens,
                 .seq = seqs,
                 .logit_rows = &row,
                 .n_logit_rows = 1,
                 .scratch = t.scratch,
                 .poll_self = &polls,
                 .poll = poll_cancelled};
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
  if (status >= 0 && logits) {
    viv__v_before(c, VIV_THREAD_JOB, "eval (cancelled)");
    status = t.api->eval(t.o.model, &b, &out, &error);
    viv__v_after(c);
    if (polls && status != VIV_CANCELLED)
      viv__v_fail(c, "poll answered CANCELLED, eval answered %d", status);
    else if (!polls && t.info.n_layers > 1)
      viv__v_fail(c, "eval of %d layers never called poll", t.info.n_layers);
    viv__v_before(c, VIV_THREAD_JOB, "seq_close after a cancelled eval");
    t.api->seq_close(t.o.model, seq);
    viv__v_after(c);
  }
  free(logits);
  token_stop(c, &t);
}

void viv__v_test_token_snapshot(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  if (!(t.info.caps & VIV_CAP_SNAPSHOT)) {
    viv__v_skip(c, "can't save sequences");
    token_stop(c, &t);
    return;
  }
  viv_error error = VIV_ERROR_INIT;
  int32_t vocab = t.info.vocab_size, seq = -1, copy = -1, row = 0, token = vocab - 1;
  size_t n = (size_t)vocab;
  float *one = calloc(n, sizeof *one), *two = calloc(n, sizeof *two);
  char *bytes = NULL;
  uint64_t size = 0;
  viv__v_before(c, VIV_THREAD_JOB, "seq_open, twice");
  bool open = t.api->seq_open(t.o.model, &seq, &error) >= 0 &&
              t.api->seq_open(t.o.model, &copy, &error) >= 0;
  viv__v_after(c);
  if (!one || !two || !open) {
    viv__v_fail(c, "two sequences can't be opened: %s", error.message);
    return;
  }
  int32_t tokens[3] = {0, vocab / 3, vocab / 2}, seqs[3] = {seq, seq, seq};
  viv_batch fill = {.n_rows = 3, .tokens = tokens, .seq = seqs};
  token_eval(c, &t, &fill, NULL, "3 rows without logits");
  viv__v_before(c, VIV_THREAD_JOB, "snapshot into nothing");
  t.api->snapshot(t.o.model, seq, NULL, 0, &size, &error);
  viv__v_after(c);
  bytes = size && size < (uint64_t)1 << 32 ? malloc(size) : NULL;
  if (!bytes) {
    viv__v_fail(c, "snapshot says that %llu bytes are needed", (unsigned long long)size);
    return;
  }
  uint64_t used = 0;
  viv__v_before(c, VIV_THREAD_JOB, "snapshot");
  int32_t status = t.api->snapshot(t.o.model, seq, bytes, size, &used, &error);
  viv__v_after(c);
  if (status < 0 || !used || used > size) {
    viv__v_fail(c, "snapshot into the %llu bytes that it asked for: status %d, %llu bytes, %s",
                (unsigned long long)size, status, (unsigned long long)used, error.message);
    used = 0; /* nothing to restore from */
  }
  viv__v_before(c, VIV_THREAD_JOB, "restore");
  status = used ? t.api->restore(t.o.model, copy, bytes, used, &error) : VIV_OK;
  viv__v_after(c);
  if (status < 0) viv__v_fail(c, "restore refuses its own snapshot: %s", error.message);
  viv_batch next = {
      .n_rows = 1, .tokens = &token, .seq = &seq, .logit_rows = &row, .n_logit_rows = 1};
  if (!viv__v_failed(c)) {
    token_eval(c, &t, &next, one, "the original goes on");
    next.seq = &copy;
    token_eval(c, &t, &next, two, "the restored one goes on");
    if (memcmp(one, two, n * sizeof *one))
      viv__v_fail(c, "a restored sequence goes on differently from the original");
  }
  /* Bytes from a file are untrusted. */
  uint64_t random = c->seed;
  viv__v_watch_state(false);
  for (int i = 0; i < 200 && !viv__v_failed(c); i++) {
    char *mutant = malloc(used + 1);
    if (!mutant) break;
    memcpy(mutant, bytes, used);
    uint64_t len = used;
    if (i % 3 == 0) len = viv__v_next_random(&random) % used;
    uint64_t reach = i % 2 && used > 64 ? 64 : used;
    for (int k = 0; k < 1 + i % 4; k++)
      mutant[viv__v_next_random(&random) % reach] ^= (char)(1u << viv__v_next_random(&random) % 8);
    viv__v_before(c, VIV_THREAD_JOB, "restore of damaged bytes, %d of seed %llu", i,
                  (unsigned long long)c->seed);
    error = (viv_error)VIV_ERROR_INIT;
    status = t.api->restore(t.o.model, copy, mutant, len, &error);
    viv__v_after(c);
    viv__v_check_failure(c, "restore", status, &error);
    free(mutant);
  }
  viv__v_watch_state(true);
  free(bytes);
  free(one);
  free(two);
  token_stop(c, &t);
}

void viv__v_test_token_fuzz(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t vocab = t.info.vocab_size;
  uint64_t random = c->seed, until = viv__now_ns() + 10000000000u;
  float *logits = calloc((size_t)vocab * 8, sizeof *logits);
  viv__v_watch_state(false);
  for (int i = 0; logits && i < 400 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    viv_error error = VIV_ERROR_INIT;
    int32_t id = (int32_t)(viv__v_next_random(&random) % 6) - 1, fresh = -1, n;
    int32_t tokens[8], seqs[8], rows[8], parent[8];
    char what[64];
    snprintf(what, sizeof what, "operation %d of seed %llu", i, (unsigned long long)c->seed);
    switch (viv__v_next_random(&random) % 8) {
    case 0:
      viv__v_before(c, VIV_THREAD_JOB, "seq_open (%s)", what);
      t.api->seq_open(t.o.model, &fresh, &error);
      viv__v_after(c);
      break;
    case 1:
      viv__v_before(c, VIV_THREAD_JOB, "seq_close (%s)", what);
      t.api->seq_close(t.o.model, id);
      viv__v_after(c);
      break;
    case 2:
      if (!t.api->seq_truncate) break;
      viv__v_before(c, VIV_THREAD_JOB, "seq_truncate (%s)", what);
      t.api->seq_truncate(t.o.model, id, (int64_t)(viv__v_next_random(&random) % 12) - 2, &error);
      viv__v_after(c);
      break;
    case 3:
      if (!t.api->seq_fork) break;
      viv__v_before(c, VIV_THREAD_JOB, "seq_fork (%s)", what);
      t.api->seq_fork(t.o.model, id, &fresh, &error);
      viv__v_after(c);
      break;
    default:
      n = (int32_t)(1 + viv__v_next_random(&random) % 8);
      for (int32_t k = 0; k < n; k++) {
        tokens[k] = (int32_t)(viv__v_next_random(&random) % (uint64_t)vocab);
        if (viv__v_next_random(&random) % 40 == 0) tokens[k] = (int32_t)viv__v_next_random(&random);
        seqs[k] = id;
        rows[k] = k;
        parent[k] = k - 1;
        if (viv__v_next_random(&random) % 10 == 0)
          parent[k] = (int32_t)(viv__v_next_random(&random) % 10) - 1;
      }
      viv_batch b = {.n_rows = n,
                     .tokens = tokens,
                     .seq = seqs,
                     .logit_rows = rows,
                     .n_logit_rows = n,
                     .mask_kind =
                         viv__v_next_random(&random) % 6 == 0 ? VIV_MASK_PARENT : VIV_MASK_CAUSAL,
                     .kv_write = viv__v_next_random(&random) % 8 == 0 ? VIV_KV_NONE : VIV_KV_APPEND,
                     .parent = parent};
      if (b.mask_kind == VIV_MASK_CAUSAL) b.parent = NULL;
      token_eval(c, &t, &b, logits, what);
      viv__v_arena_reset(c, t.scratch);
    }
  }
  viv__v_watch_state(true);
  free(logits);
  token_stop(c, &t);
}
