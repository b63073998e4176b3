/* BERT: the pass.
 *
 *   token ids [B, T], mask [B, T], token types [B, T]
 *     |  x = LN(E[ids] + P[positions] + S[types])               [B, T, d]
 *     |  layer i, `layers` times, post-norm:
 *     |    a = attention(Wq x, Wk x, Wv x)                      keys with mask 0 are not seen
 *     |    x = LN(x + Wo a)
 *     |    x = LN(x + W2 gelu(W1 x))
 *     |
 *   last_hidden_state [B, T, d]; pooler_output tanh(Wp x[:, 0]) [B, d]
 *
 * RoBERTa differs in its positions (pad + 1, + 2, ... over real tokens, pad itself at pads) and in
 * its heads. Official: transformers models/bert and models/roberta. */
#include <math.h>
#include <string.h>

#include "bert/bert.h"

struct batch {
  int64_t rows, length; /* B, T */
  const int64_t *ids;   /* [B, T] */
  const uint8_t *mask;  /* [B, T] or NULL: all are real */
  const float *hidden;  /* [B, T, d] after the last layer */
  const float *pooled;  /* [B, d] or NULL */
};

/* ---- embeddings ---- */

static int32_t *checked_ids(nn_pass *p, const char *name, const int64_t *ids, int64_t n,
                            int64_t below) {
  int32_t *out = nn_bytes(p, n, sizeof *out);
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= below)
      nn_stop(p, VIV_BAD_INPUT, name, "item %lld is %lld, but must be below %lld", (long long)i,
              (long long)ids[i], (long long)below);
    out[i] = (int32_t)ids[i];
  }
  return out;
}

/* Positions of one row of T tokens. */
static void positions_of(nn_pass *p, const struct bert_config *c, const int64_t *ids, int64_t n,
                         int32_t *out) {
  int64_t seen = 0, last = n;
  for (int64_t t = 0; t < n; t++) {
    bool real = ids[t] != c->pad;
    seen += real;
    out[t] = (int32_t)(!c->roberta ? t : real ? c->pad + seen : c->pad);
  }
  if (c->roberta) last = c->pad + seen + 1;
  if (last > c->positions)
    nn_stop(p, VIV_BAD_INPUT, "input_ids", "%lld tokens, the model has places for %lld",
            (long long)n, (long long)(c->roberta ? c->positions - c->pad - 1 : c->positions));
}

static float *embed(nn_pass *p, const struct bert_model *m, const struct batch *b) {
  const struct bert_config *c = &m->config;
  const viv_compute *k = nn_compute_of(p);
  int64_t n = b->rows * b->length, shape[2] = {b->rows, b->length};
  float *x = nn_room(p, n * c->d); /* [B, T, d] */
  nn_mark mark = nn_here(p);
  float *add = nn_room(p, n * c->d);
  int32_t *index = nn_bytes(p, n, sizeof *index);
  k->gather(k, m->words, checked_ids(p, "input_ids", b->ids, n, c->vocab), n, x);
  const int64_t *types = nn_some_ints(p, "token_type_ids", 2, shape);
  if (types)
    memcpy(index, checked_ids(p, "token_type_ids", types, n, c->types), (size_t)n * sizeof *index);
  else
    memset(index, 0, (size_t)n * sizeof *index);
  k->gather(k, m->types, index, n, add);
  k->add(k, x, add, n * c->d);
  for (int64_t r = 0; r < b->rows; r++)
    positions_of(p, c, b->ids + r * b->length, b->length, index + r * b->length);
  k->gather(k, m->places, index, n, add);
  k->add(k, x, add, n * c->d);
  nn_layer_norm(p, &m->norm, x, n, x);
  nn_release(p, mark);
  return x;
}

/* ---- the encoder ---- */

/* x [n, d] = one layer of x */
static void encoder_layer(nn_pass *p, const struct bert_model *m, const struct bert_layer *w,
                          const struct batch *b, float *x) {
  const struct bert_config *c = &m->config;
  int64_t n = b->rows * b->length;
  nn_mark mark = nn_here(p);
  nn_attention a = {.batch = b->rows,
                    .nq = b->length,
                    .nk = b->length,
                    .heads = c->heads,
                    .dim = (int32_t)(c->d / c->heads),
                    .q = nn_apply_linear(p, &w->query, 0, x, n),
                    .k = nn_apply_linear(p, &w->key, 0, x, n),
                    .v = nn_apply_linear(p, &w->value, 0, x, n),
                    .mask = b->mask};
  float *y = nn_room(p, n * c->d);
  nn_attend(p, &a, y);
  nn_linear_to(p, &w->attention_out, 0, x, y, n, x);
  nn_layer_norm(p, &w->attention_norm, x, n, x);
  float *inner = nn_apply_linear(p, &w->intermediate, c->act, x, n); /* [n, ff] */
  nn_linear_to(p, &w->output, 0, x, inner, n, x);
  nn_layer_norm(p, &w->output_norm, x, n, x);
  nn_release(p, mark);
}

static struct batch encode(nn_pass *p) {
  const struct bert_model *m = nn_net_of(p);
  const struct bert_config *c = &m->config;
  int64_t shape[2] = {0, 0};
  struct batch b = {.ids = nn_need_ints(p, "input_ids", 2, shape)};
  b.rows = shape[0];
  b.length = shape[1];
  if (b.rows < 1 || b.length < 1) nn_stop(p, VIV_BAD_INPUT, "input_ids", "is empty");
  const int64_t *mask = nn_some_ints(p, "attention_mask", 2, shape);
  if (mask) {
    uint8_t *bytes = nn_bytes(p, b.rows * b.length, 1);
    for (int64_t i = 0; i < b.rows * b.length; i++) bytes[i] = mask[i] != 0;
    b.mask = bytes;
  }
  float *x = embed(p, m, &b);
  nn_tap(p, x, NN_DIMS(b.rows, b.length, c->d), "embeddings");
  for (int32_t i = 0; i < c->layers; i++) {
    nn_pass_poll(p);
    encoder_layer(p, m, &m->layer[i], &b, x);
    nn_tap(p, x, NN_DIMS(b.rows, b.length, c->d), "layer.%d", (int)i);
  }
  b.hidden = x;
  if (!m->pooler.w) return b;
  float *first = nn_room(p, b.rows * c->d);
  for (int64_t r = 0; r < b.rows; r++)
    memcpy(first + r * c->d, x + r * b.length * c->d, (size_t)c->d * sizeof *x);
  b.pooled = nn_apply_linear(p, &m->pooler, VIV_TANH, first, b.rows);
  return b;
}

/* ---- heads ---- */

/* [B, labels] */
static float *class_logits(nn_pass *p, const struct bert_model *m, const struct batch *b) {
  const struct bert_config *c = &m->config;
  if (!c->roberta) {
    if (!b->pooled)
      nn_stop(p, VIV_BAD_INPUT, "weights", "the classifier needs bert.pooler, which is missing");
    return nn_apply_linear(p, &m->out, 0, b->pooled, b->rows);
  }
  float *first = nn_room(p, b->rows * c->d);
  for (int64_t r = 0; r < b->rows; r++)
    memcpy(first + r * c->d, b->hidden + r * b->length * c->d, (size_t)c->d * sizeof *first);
  return nn_apply_linear(p, &m->out, 0, nn_apply_linear(p, &m->dense, VIV_TANH, first, b->rows),
                         b->rows);
}

/* x [n, d] -> [n, vocab] */
static float *word_logits(nn_pass *p, const struct bert_model *m, const float *x, int64_t n) {
  float *y = nn_apply_linear(p, &m->transform, m->config.act, x, n);
  nn_layer_norm(p, &m->transform_norm, y, n, y);
  return nn_apply_linear(p, &m->decoder, 0, y, n);
}

static void need_head(nn_pass *p, int32_t head, const char *what) {
  const struct bert_model *m = nn_net_of(p);
  if (m->config.head != head)
    nn_stop(p, VIV_NEVER, "task",
            "this checkpoint has no head for %s; config.json's architectures "
            "name it",
            what);
}

/* ---- tasks ---- */

static int32_t forward(nn_pass *p) {
  const struct bert_model *m = nn_net_of(p);
  const struct bert_config *c = &m->config;
  struct batch b = encode(p);
  if (nn_wants_result(p, "last_hidden_state"))
    nn_result(p, VIV_F32, b.hidden, NN_DIMS(b.rows, b.length, c->d), "last_hidden_state");
  if (b.pooled && nn_wants_result(p, "pooler_output"))
    nn_result(p, VIV_F32, b.pooled, NN_DIMS(b.rows, c->d), "pooler_output");
  if (c->head == BERT_CLASSIFIER)
    nn_result(p, VIV_F32, class_logits(p, m, &b), NN_DIMS(b.rows, c->labels), "logits");
  if (c->head == BERT_MASKED_LM && nn_wants_result(p, "logits"))
    nn_result(p, VIV_F32, word_logits(p, m, b.hidden, b.rows * b.length),
              NN_DIMS(b.rows, b.length, c->vocab), "logits");
  return VIV_DONE;
}

/* The mean over real tokens (or the first token), then l2 when asked: sentence-transformers' chain,
 * whose divisors are at least 1e-9 and 1e-12. */
static int32_t embed_task(nn_pass *p) {
  const struct bert_model *m = nn_net_of(p);
  int64_t d = m->config.d;
  viv_str pooling = nn_param_text(p, "pooling", "mean");
  bool mean = nn_is(pooling, "mean"), normalize = nn_param_flag(p, "normalize", true);
  if (!mean && !nn_is(pooling, "cls"))
    nn_stop(p, VIV_BAD_INPUT, "params", "pooling is \"%.*s\", but must be mean or cls",
            (int)pooling.len, pooling.ptr);
  struct batch b = encode(p);
  float *e = nn_room(p, b.rows * d), *cosine = nn_room(p, b.rows * b.rows);
  for (int64_t r = 0; r < b.rows; r++) {
    const float *x = b.hidden + r * b.length * d;
    const uint8_t *real = b.mask ? b.mask + r * b.length : NULL;
    double square = 0;
    for (int64_t i = 0; i < d; i++) {
      double sum = 0, count = 0;
      for (int64_t t = 0; mean && t < b.length; t++) {
        if (real && !real[t]) continue;
        sum += (double)x[t * d + i];
        count += 1;
      }
      double value = mean ? sum / fmax(count, 1e-9) : (double)x[i];
      e[r * d + i] = (float)value;
      square += value * value;
    }
    double scale = 1.0 / fmax(sqrt(square), 1e-12);
    for (int64_t i = 0; normalize && i < d; i++)
      e[r * d + i] = (float)((double)e[r * d + i] * scale);
  }
  nn_result(p, VIV_F32, e, NN_DIMS(b.rows, d), "embeddings");
  if (!nn_wants_result(p, "cosine")) return VIV_DONE;
  for (int64_t r = 0; r < b.rows; r++)
    for (int64_t s = 0; s < b.rows; s++) {
      double dot = 0, rr = 0, ss = 0;
      for (int64_t i = 0; i < d; i++) {
        double x = (double)e[r * d + i], y = (double)e[s * d + i];
        dot += x * y;
        rr += x * x;
        ss += y * y;
      }
      cosine[r * b.rows + s] = (float)(dot / fmax(sqrt(rr) * sqrt(ss), 1e-12));
    }
  nn_result(p, VIV_F32, cosine, NN_DIMS(b.rows, b.rows), "cosine");
  return VIV_DONE;
}

/* Classes that exclude each other share the probability; the pipeline of transformers decides by the
 * same two signs: problem_type, and whether there is more than one class. */
static int32_t classify(nn_pass *p) {
  const struct bert_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  need_head(p, BERT_CLASSIFIER, "classification");
  if (m->config.regression)
    nn_stop(p, VIV_NEVER, "config.json",
            "problem_type is regression: there are no classes; the task forward gives the numbers");
  struct batch b = encode(p);
  float *logits = class_logits(p, m, &b);
  nn_result(p, VIV_F32, logits, NN_DIMS(b.rows, m->config.labels), "logits");
  if (m->config.several)
    c->unary(c, VIV_SIGMOID, logits, logits, b.rows * m->config.labels);
  else
    c->softmax(c, logits, b.rows, m->config.labels, logits);
  nn_result(p, VIV_F32, logits, NN_DIMS(b.rows, m->config.labels), "probabilities");
  return VIV_DONE;
}

/* The most probable words at each mask token, in reading order. */
static int32_t fill_mask(nn_pass *p) {
  const struct bert_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t d = m->config.d, vocab = m->config.vocab, n = 0;
  need_head(p, BERT_MASKED_LM, "masked words");
  int64_t k = nn_param_int(p, "top_k", 5, 1, vocab < 1000 ? vocab : 1000);
  int64_t mask_id = nn_param_int(p, "mask_token_id", -1, -1, vocab - 1);
  if (mask_id < 0) nn_stop(p, VIV_BAD_INPUT, "params", "mask_token_id is missing");
  struct batch b = encode(p);
  for (int64_t i = 0; i < b.rows * b.length; i++) n += b.ids[i] == mask_id;
  if (!n) nn_stop(p, VIV_BAD_INPUT, "input_ids", "holds no mask token (%lld)", (long long)mask_id);
  float *x = nn_room(p, n * d), *values = nn_room(p, n * k);
  int32_t *top = nn_bytes(p, n * k, sizeof *top);
  int64_t at = 0;
  for (int64_t i = 0; i < b.rows * b.length; i++)
    if (b.ids[i] == mask_id) memcpy(x + at++ * d, b.hidden + i * d, (size_t)d * sizeof *x);
  float *logits = word_logits(p, m, x, n);
  c->softmax(c, logits, n, vocab, logits);
  c->top_k(c, logits, n, vocab, k, values, top);
  nn_result(p, VIV_I32, top, NN_DIMS(n, k), "top_ids");
  nn_result(p, VIV_F32, values, NN_DIMS(n, k), "top_probabilities");
  return VIV_DONE;
}

const nn_task bert_tasks[] = {{"forward", forward},
                              {"embed", embed_task},
                              {"classify", classify},
                              {"fill_mask", fill_mask},
                              {NULL, NULL}};
