/* The tasks "forward" (logits and taps under the official names) and "score" (how likely a text is).
 * Lanes run one after another, in chunks through the caches, so that other jobs get their turns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/task.h"

/* ---- beginning ---- */

int32_t viv__forward_begin(viv__task *t, viv_error *error) {
  const viv_json *params = t->job->params;
  int32_t status = viv__task_read_tokens(t, t->kind == VIV__SCORE, error);
  if (status < 0) return status;
  double keep = viv__json_num(params, "logits_to_keep", 0), k = viv__json_num(params, "top_k", 0);
  if (keep != 0 && keep != 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, "logits_to_keep",
                    "0 (all) and 1 (the last) are possible");
  if (!(k >= 0 && k <= t->m->info.vocab_size))
    return VIV_FAIL(error, VIV_BAD_INPUT, "top_k", "must be 0 to %d", t->m->info.vocab_size);
  t->top_k = (int32_t)k;
  t->last_only = keep == 1 || t->top_k;
  if (t->kind == VIV__SCORE) {
    int64_t n = t->lanes[0].n_prompt;
    if (t->n_rows != 1 || n < 2)
      return VIV_FAIL(error, VIV_BAD_INPUT, "input_ids", "score takes one row of 2 or more tokens");
    t->nll = viv__malloc((size_t)n * sizeof *t->nll);
    t->argmax = viv__malloc((size_t)n * sizeof *t->argmax);
    if (!t->nll || !t->argmax) return VIV_FAIL(error, VIV_NOT_NOW, "score", "no memory");
  } else {
    int64_t kept = t->last_only ? 1 : t->columns;
    t->logits =
        viv__calloc((size_t)(t->n_rows * kept), (size_t)t->m->info.vocab_size * sizeof(float));
    if (!t->logits) return VIV_FAIL(error, VIV_NOT_NOW, "forward", "no memory for the logits");
  }
  return viv__task_open_seqs(t, 0, error);
}

/* ---- taps ---- */

static int32_t tap_wants(void *self, viv_str name) {
  return viv__job_wants_tap(((viv__lane *)self)->task->job, name);
}

static viv__tap *find_tap(viv__lane *lane, viv_str name) {
  for (size_t i = 0; i < lane->n_taps; i++)
    if (viv__str_eq(name, lane->taps[i].name)) return &lane->taps[i];
  viv__tap *grown = viv__realloc(lane->taps, (lane->n_taps + 1) * sizeof *grown);
  if (!grown) return NULL;
  lane->taps = grown;
  viv__tap *tap = &grown[lane->n_taps];
  memset(tap, 0, sizeof *tap);
  if (!(tap->name = viv__strndup(name.ptr, name.len))) return NULL;
  lane->n_taps++;
  return tap;
}

static void tap_put(void *self, viv_str name, int32_t kind, const viv_tensor *x) {
  viv__lane *lane = self;
  viv__tap *tap = find_tap(lane, name);
  if (!tap) {
    lane->task->error = (viv_error)VIV_ERROR_INIT;
    VIV_FAIL(&lane->task->error, VIV_NOT_NOW, "taps", "no memory");
    return;
  }
  bool join = kind == VIV_TAP_ROWS && tap->data.len > 0;
  int64_t rows = join ? tap->shape[0] : 0;
  if (!join) tap->data.len = 0;
  viv__buf_add(&tap->data, x->data, x->bytes);
  tap->kind = kind;
  tap->dtype = x->dtype;
  tap->ndim = x->ndim;
  memcpy(tap->shape, x->shape, sizeof tap->shape);
  if (join) tap->shape[0] += rows;
}

/* Rows of a tap go where their tokens stand; pads stay zero. */
static void place_rows(const viv__lane *lane, const viv__tap *tap, char *to, int64_t columns) {
  size_t row = tap->shape[0] ? tap->data.len / (size_t)tap->shape[0] : 0;
  int64_t skip = lane->n_prompt - tap->shape[0]; /* a session's owed tokens come first */
  for (int64_t i = 0; i < tap->shape[0]; i++) {
    int64_t at = skip + i >= 0 ? lane->column[skip + i] : -1;
    if (at >= 0 && at < columns)
      memcpy(to + (size_t)at * row, tap->data.ptr + (size_t)i * row, row);
  }
}

static bool same_shape(const viv__task *t, size_t which) {
  const viv__tap *first = &t->lanes[0].taps[which];
  for (int32_t i = 1; i < t->n_rows; i++) {
    const viv__lane *lane = &t->lanes[i];
    if (which >= lane->n_taps || strcmp(lane->taps[which].name, first->name) ||
        lane->taps[which].data.len != first->data.len)
      return false;
  }
  return true;
}

/* One tap of all lanes: rows [B, T, ...], states stacked [B, ...] (numbered when their shapes
 * differ), constants as they are. */
static int32_t give_tap(viv__task *t, size_t which) {
  const viv__tap *tap = &t->lanes[0].taps[which];
  char name[256];
  snprintf(name, sizeof name, "tap.%s", tap->name);
  int64_t shape[VIV_MAX_DIMS + 1] = {t->n_rows};
  if (tap->kind == VIV_TAP_CONSTANT || tap->ndim + 1 > VIV_MAX_DIMS) {
    void *data = viv__malloc(tap->data.len);
    if (data && tap->data.len) memcpy(data, tap->data.ptr, tap->data.len);
    return viv__task_out(t, name, tap->dtype, tap->ndim, tap->shape, data, VIV_EVENT_TAP);
  }
  memcpy(shape + 1, tap->shape, (size_t)tap->ndim * sizeof *shape);
  if (tap->kind == VIV_TAP_ROWS) {
    shape[1] = t->columns;
    size_t row = tap->shape[0] ? tap->data.len / (size_t)tap->shape[0] : 0;
    size_t plane = row * (size_t)t->columns;
    char *data = viv__calloc((size_t)t->n_rows, plane);
    for (int32_t i = 0; data && i < t->n_rows; i++)
      if (which < t->lanes[i].n_taps)
        place_rows(&t->lanes[i], &t->lanes[i].taps[which], data + (size_t)i * plane, t->columns);
    return viv__task_out(t, name, tap->dtype, tap->ndim + 1, shape, data, VIV_EVENT_TAP);
  }
  if (same_shape(t, which)) {
    char *data = viv__malloc(tap->data.len * (size_t)t->n_rows);
    for (int32_t i = 0; data && i < t->n_rows; i++)
      if (tap->data.len)
        memcpy(data + (size_t)i * tap->data.len, t->lanes[i].taps[which].data.ptr, tap->data.len);
    return viv__task_out(t, name, tap->dtype, tap->ndim + 1, shape, data, VIV_EVENT_TAP);
  }
  for (int32_t i = 0; i < t->n_rows; i++) {
    const viv__lane *lane = &t->lanes[i];
    if (which >= lane->n_taps) continue;
    const viv__tap *own = &lane->taps[which];
    snprintf(name, sizeof name, "tap.%s.%d", own->name, i);
    void *data = viv__malloc(own->data.len);
    if (data && own->data.len) memcpy(data, own->data.ptr, own->data.len);
    int32_t status = viv__task_out(t, name, own->dtype, own->ndim, own->shape, data, VIV_EVENT_TAP);
    if (status < 0) return status;
  }
  return VIV_OK;
}

/* ---- results ---- */

static int32_t give_top(viv__task *t) {
  int64_t vocab = t->m->info.vocab_size, k = t->top_k, shape[] = {t->n_rows, k};
  int64_t *ids = viv__malloc((size_t)(t->n_rows * k) * sizeof *ids);
  float *top = viv__malloc((size_t)(t->n_rows * k) * sizeof *top);
  float *logprobs = viv__malloc((size_t)(t->n_rows * k) * sizeof *logprobs);
  for (int32_t r = 0; ids && top && logprobs && r < t->n_rows; r++) {
    const float *row = t->logits + r * vocab;
    double sum = 0, most = row[0];
    for (int64_t i = 1; i < vocab; i++)
      if (row[i] > most) most = row[i];
    for (int64_t i = 0; i < vocab; i++) sum += exp(row[i] - most);
    for (int64_t j = 0; j < k; j++) {
      int64_t best = -1; /* the next in (logit descending, id ascending) order */
      for (int64_t i = 0; i < vocab; i++) {
        if (j && (row[i] > top[r * k + j - 1] ||
                  (row[i] == top[r * k + j - 1] && i <= ids[r * k + j - 1])))
          continue;
        if (best < 0 || row[i] > row[best]) best = i;
      }
      ids[r * k + j] = best;
      top[r * k + j] = row[best];
      logprobs[r * k + j] = (float)(row[best] - most - log(sum));
    }
  }
  if (!ids || !top || !logprobs) {
    viv__free(ids);
    viv__free(top);
    viv__free(logprobs);
    return VIV_NOT_NOW;
  }
  int32_t status = viv__task_out(t, "top_ids", VIV_I64, 2, shape, ids, 0);
  if (status < 0) {
    viv__free(top);
    viv__free(logprobs);
    return status;
  }
  status = viv__task_out(t, "top_logits", VIV_F32, 2, shape, top, 0);
  if (status < 0) {
    viv__free(logprobs);
    return status;
  }
  return viv__task_out(t, "top_logprobs", VIV_F32, 2, shape, logprobs, 0);
}

static int32_t give_score(viv__task *t) {
  int64_t n = t->lanes[0].n_prompt - 1, all = n + 1, one = 1;
  double sum = 0;
  float *mean = viv__malloc(sizeof *mean);
  for (int64_t i = 0; i < n; i++) sum += t->nll[i];
  if (mean) *mean = (float)(sum / (double)n);
  float *nll = t->nll;
  int64_t *best = t->argmax;
  t->nll = NULL;
  t->argmax = NULL;
  int32_t status = viv__task_out(t, "mean_nll", VIV_F32, 1, &one, mean, 0);
  int32_t second = viv__task_out(t, "nll", VIV_F32, 1, &n, nll, 0);
  int32_t third = viv__task_out(t, "argmax", VIV_I64, 1, &all, best, 0);
  return status < 0 ? status : second < 0 ? second : third;
}

static int32_t finish(viv__task *t, viv_error *error) {
  int32_t status = VIV_OK;
  for (size_t i = 0; status == VIV_OK && i < t->lanes[0].n_taps; i++) status = give_tap(t, i);
  if (status == VIV_OK && t->kind == VIV__SCORE) status = give_score(t);
  if (status == VIV_OK && t->kind == VIV__FORWARD) {
    if (t->top_k) status = give_top(t);
    int64_t shape[] = {t->n_rows, t->last_only ? 1 : t->columns, t->m->info.vocab_size};
    float *logits = t->logits;
    t->logits = NULL;
    if (status == VIV_OK)
      status = viv__task_out(t, "logits", VIV_F32, 3, shape, logits, 0);
    else
      viv__free(logits);
  }
  viv_session *s = t->job->session;
  viv__lane *lane = &t->lanes[0];
  if (s && status == VIV_OK) {
    int64_t n = lane->base + lane->n_prompt;
    int32_t *tokens = viv__realloc(s->tokens, (size_t)n * sizeof *tokens);
    if (tokens) {
      memcpy(tokens + lane->base, lane->prompt, (size_t)lane->n_prompt * sizeof *tokens);
      s->tokens = tokens;
      s->n_tokens = s->cap_tokens = n;
    } else {
      status = VIV_NOT_NOW;
    }
  }
  t->complete = status == VIV_OK;
  return status < 0 ? VIV_FAIL(error, status, t->job->task, "no memory for the results") : VIV_OK;
}

/* ---- chunks ---- */

static void take_logits(viv__task *t, viv__lane *lane, int64_t n, const float *logits) {
  size_t vocab = (size_t)t->m->info.vocab_size;
  for (int64_t i = 0; i < n; i++) {
    int64_t at = lane->fed + i, column = lane->column[at];
    const float *row = logits + (size_t)i * vocab;
    if (t->kind == VIV__FORWARD) {
      if (column >= 0)
        memcpy(t->logits + ((size_t)lane->row * (size_t)t->columns + (size_t)column) * vocab, row,
               vocab * sizeof *row);
      continue;
    }
    int64_t best = 0;
    for (size_t k = 1; k < vocab; k++)
      if (row[k] > row[best]) best = (int64_t)k;
    t->argmax[at] = best;
    if (at + 1 >= lane->n_prompt) continue; /* what follows the last token is not known */
    double sum = 0;
    for (size_t k = 0; k < vocab; k++) sum += exp((double)row[k] - row[best]);
    t->nll[at] = (float)(log(sum) + row[best] - row[lane->prompt[at + 1]]);
  }
}

int32_t viv__forward_step(viv__task *t, viv_error *error) {
  viv_model *m = t->m;
  viv__lane *lane = t->lanes;
  while (lane->done) lane++;
  int64_t n = lane->n_prompt - lane->fed;
  if (n > t->chunk) n = t->chunk;
  bool last = lane->fed + n == lane->n_prompt;
  int32_t seq[VIV__MAX_ROWS], rows[VIV__MAX_ROWS], n_logits = 0;
  for (int64_t i = 0; i < n; i++) {
    seq[i] = lane->seq;
    if (!t->last_only || (last && i == n - 1)) rows[n_logits++] = (int32_t)i;
  }
  int32_t status = viv__engine_logits(m, n_logits, error);
  if (status < 0) return status;
  viv_tap_sink sink = {
      .struct_size = sizeof sink, .self = lane, .wants = tap_wants, .put = tap_put};
  viv_batch in = {.struct_size = sizeof in,
                  .n_rows = (int32_t)n,
                  .tokens = lane->prompt + lane->fed,
                  .seq = seq,
                  .logit_rows = rows,
                  .n_logit_rows = n_logits,
                  .taps = t->job->n_taps ? &sink : NULL,
                  .scratch = m->engine->scratch,
                  .poll_self = t->job,
                  .poll = viv__task_poll};
  viv_eval_out out = {.struct_size = sizeof out, .logits = m->engine->logits};
  status = m->token->eval(m->handle, &in, &out, error);
  viv__arena_reset(m->engine->scratch);
  t->evals++;
  if (status < 0) return status;
  for (size_t i = 0; i < lane->n_taps; i++)
    if (lane->taps[i].data.failed) return VIV_FAIL(error, VIV_NOT_NOW, "taps", "no memory");
  if (t->last_only && n_logits)
    memcpy(t->logits + (size_t)lane->row * (size_t)m->info.vocab_size, m->engine->logits,
           (size_t)m->info.vocab_size * sizeof(float));
  else if (!t->last_only)
    take_logits(t, lane, n, m->engine->logits);
  lane->fed += n;
  lane->done = last;
  if (last && lane->row == t->n_rows - 1) {
    t->prefilled_ns = viv__now_ns();
    return finish(t, error);
  }
  return VIV_OK;
}
