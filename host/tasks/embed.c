/* The task "embed" of token models: each row's tokens through the model once, the last hidden state
 * (tap last_hidden_state, see token_model.h) pooled to one vector.
 *
 *   mean  sum over the tokens / their number      cls  the first token      last  the last token
 *   then, unless "normalize" is false, x / max(|x|, 1e-12)
 *
 * As sentence-transformers' Pooling and Normalize do it. Rows of several lanes share a batch; pads are
 * never fed, and what a row gives does not depend on its neighbours. */
#include <math.h>
#include <string.h>

#include "tasks/task.h"
#include "tasks/text_inputs.h"

enum pooling { POOL_MEAN, POOL_CLS, POOL_LAST };

static const char hidden_tap[] = "last_hidden_state";

/* One lane's rows in a batch. */
struct share {
  viv__lane *lane;
  int64_t first, n;
};

struct gathering {
  viv__task *t;
  struct share shares[VIV__MAX_ROWS];
  int32_t n_shares;
  int64_t rows;
  bool got;
};

/* ---- beginning ---- */

static int32_t read_params(viv__task *t, viv_error *error) {
  static const char *const names[] = {"mean", "cls", "last"};
  const viv_json *params = t->job->params;
  const char *pooling = viv__json_text(params, "pooling", "mean");
  for (t->pooling = 0; t->pooling < 3 && strcmp(pooling, names[t->pooling]); t->pooling++) continue;
  if (t->pooling == 3)
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.pooling",
                    "is \"%.100s\", but must be mean, cls or last", pooling);
  t->normalize = viv__json_bool(params, "normalize", true);
  if (t->job->session)
    return VIV_FAIL(error, VIV_BAD_INPUT, "session", "embed takes whole texts, not a session");
  if (t->job->n_taps)
    return VIV_FAIL(error, VIV_BAD_INPUT, "taps", "embed has none; the task forward does");
  return VIV_OK;
}

int32_t viv__embed_begin(viv__task *t, viv_error *error) {
  int32_t status = viv__text_inputs(t->job, error);
  if (status >= 0) status = viv__task_read_tokens(t, true, error);
  if (status >= 0) status = read_params(t, error);
  if (status < 0) return status;
  t->pooled = viv__calloc((size_t)t->n_rows, (size_t)t->m->info.d_model * sizeof *t->pooled);
  if (!t->pooled) return VIV_FAIL(error, VIV_NOT_NOW, "embed", "no memory for the vectors");
  return viv__task_open_seqs(t, 0, error);
}

/* ---- the batch ---- */

static int32_t tap_wants(void *self, viv_str name) {
  (void)self;
  return viv__str_eq(name, hidden_tap);
}

static bool counts(const viv__task *t, const viv__lane *lane, int64_t at) {
  return t->pooling == POOL_MEAN || at == (t->pooling == POOL_CLS ? 0 : lane->n_prompt - 1);
}

static void tap_put(void *self, viv_str name, int32_t kind, const viv_tensor *x) {
  struct gathering *g = self;
  int64_t d = g->t->m->info.d_model;
  if (kind != VIV_TAP_ROWS || !viv__str_eq(name, hidden_tap) || x->dtype != VIV_F32 ||
      x->ndim != 2 || x->shape[0] != g->rows || x->shape[1] != d)
    return;
  g->got = true;
  for (int32_t s = 0; s < g->n_shares; s++) {
    const struct share *share = &g->shares[s];
    double *sum = g->t->pooled + share->lane->row * d;
    for (int64_t i = 0; i < share->n; i++) {
      if (!counts(g->t, share->lane, share->lane->fed + i)) continue;
      const float *row = (const float *)x->data + (share->first + i) * d;
      for (int64_t k = 0; k < d; k++) sum[k] += (double)row[k];
    }
  }
}

/* Lanes in order, as many tokens of each as there is room for. */
static void gather(struct gathering *g, int32_t *tokens, int32_t *seq) {
  viv__task *t = g->t;
  for (int32_t i = 0; i < t->n_rows && g->rows < t->chunk; i++) {
    viv__lane *lane = &t->lanes[i];
    int64_t n = lane->n_prompt - lane->fed, room = t->chunk - g->rows;
    if (lane->done) continue;
    if (n > room) n = room;
    g->shares[g->n_shares++] = (struct share){lane, g->rows, n};
    for (int64_t k = 0; k < n; k++) {
      tokens[g->rows] = lane->prompt[lane->fed + k];
      seq[g->rows++] = lane->seq;
    }
  }
}

/* ---- results ---- */

static void scale(const viv__task *t, const viv__lane *lane, float *to) {
  int64_t d = t->m->info.d_model;
  const double *sum = t->pooled + lane->row * d;
  double n = t->pooling == POOL_MEAN ? (double)lane->n_prompt : 1, square = 0;
  for (int64_t k = 0; k < d; k++) square += sum[k] / n * (sum[k] / n);
  double by = t->normalize ? n * fmax(sqrt(square), 1e-12) : n;
  for (int64_t k = 0; k < d; k++) to[k] = (float)(sum[k] / by);
}

static float *cosines(const float *e, int64_t rows, int64_t d) {
  float *out = viv__malloc((size_t)(rows * rows) * sizeof *out);
  for (int64_t r = 0; out && r < rows; r++)
    for (int64_t s = 0; s < rows; s++) {
      double dot = 0, rr = 0, ss = 0;
      for (int64_t k = 0; k < d; k++) {
        double x = (double)e[r * d + k], y = (double)e[s * d + k];
        dot += x * y;
        rr += x * x;
        ss += y * y;
      }
      out[r * rows + s] = (float)(dot / fmax(sqrt(rr) * sqrt(ss), 1e-12));
    }
  return out;
}

static int32_t finish(viv__task *t, viv_error *error) {
  int64_t d = t->m->info.d_model, shape[2] = {t->n_rows, d}, square[2] = {t->n_rows, t->n_rows};
  float *e = viv__malloc((size_t)(t->n_rows * d) * sizeof *e);
  float *cosine = NULL;
  bool wants_cosine = viv__task_wants(t, "cosine");
  for (int32_t i = 0; e && i < t->n_rows; i++) scale(t, &t->lanes[i], e + i * d);
  if (e && wants_cosine) cosine = cosines(e, t->n_rows, d);
  int32_t status = viv__task_out(t, "embeddings", VIV_F32, 2, shape, e, 0);
  if (status >= 0 && wants_cosine)
    status = viv__task_out(t, "cosine", VIV_F32, 2, square, cosine, 0);
  else
    viv__free(cosine);
  t->complete = status >= 0;
  return status < 0 ? VIV_FAIL(error, status, "embed", "no memory for the results") : VIV_OK;
}

int32_t viv__embed_step(viv__task *t, viv_error *error) {
  viv_model *m = t->m;
  struct gathering g = {.t = t};
  int32_t tokens[VIV__MAX_ROWS], seq[VIV__MAX_ROWS];
  gather(&g, tokens, seq);
  viv_tap_sink sink = {.struct_size = sizeof sink, .self = &g, .wants = tap_wants, .put = tap_put};
  viv_batch in = {.struct_size = sizeof in,
                  .n_rows = (int32_t)g.rows,
                  .tokens = tokens,
                  .seq = seq,
                  .taps = &sink,
                  .scratch = m->engine->scratch,
                  .poll_self = t->job,
                  .poll = viv__task_poll};
  viv_eval_out out = {.struct_size = sizeof out};
  int32_t status = m->token->eval(m->handle, &in, &out, error);
  viv__arena_reset(m->engine->scratch);
  t->evals++;
  if (status < 0) return status;
  if (!g.got)
    return VIV_FAIL(error, VIV_NEVER, m->plugin->id,
                    "the plugin does not tell its last hidden state (tap %s), so its models embed "
                    "nothing",
                    hidden_tap);
  for (int32_t s = 0; s < g.n_shares; s++) {
    viv__lane *lane = g.shares[s].lane;
    lane->fed += g.shares[s].n;
    lane->done = lane->fed == lane->n_prompt;
  }
  if (!t->lanes[t->n_rows - 1].done) return VIV_OK;
  t->prefilled_ns = viv__now_ns();
  return finish(t, error);
}
