/* Log probabilities of the emitted tokens and of the likeliest ones beside them: of the model's own
 * distribution, before any processor or warper. */
#include <math.h>
#include <string.h>

#include "tasks/task.h"

enum { MOST = 20 };

void viv__top_k(const float *row, int32_t vocab, int32_t k, int32_t *ids, float *values) {
  int32_t n = 0;
  for (int32_t i = 0; i < vocab; i++) {
    if (n == k && !(row[i] > values[n - 1])) continue;
    int32_t at = n < k ? n++ : n - 1;
    while (at > 0 && row[i] > values[at - 1]) {
      values[at] = values[at - 1];
      ids[at] = ids[at - 1];
      at--;
    }
    values[at] = row[i];
    ids[at] = i;
  }
}

int32_t viv__logprobs_read(viv__task *t, viv_error *error) {
  double k = viv__json_num(t->job->params, "top_logprobs", 0);
  if (!(k >= 0 && k <= MOST) || k != floor(k) || k > t->m->info.vocab_size)
    return VIV_FAIL(error, VIV_BAD_INPUT, "top_logprobs", "must be a whole number from 0 to %d",
                    MOST);
  t->top_logprobs = (int32_t)k;
  t->logprobs = k > 0 || viv__json_bool(t->job->params, "logprobs", false);
  return VIV_OK;
}

/* Per token: its log probability, k ids, k log probabilities; all of four bytes. */
int32_t viv__logprobs_add(viv__lane *lane, const float *row, int32_t token, viv_error *error) {
  int32_t vocab = lane->task->m->info.vocab_size, k = lane->task->top_logprobs;
  int32_t ids[MOST] = {0};
  float values[MOST] = {0}, own = 0;
  if (row) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < vocab; i++)
      if (row[i] > top) top = row[i];
    for (int32_t i = 0; i < vocab; i++) sum += exp(row[i] - top);
    double norm = top + log(sum);
    own = (float)(row[token] - norm);
    if (k) viv__top_k(row, vocab, k, ids, values);
    for (int32_t i = 0; i < k; i++) values[i] = (float)(values[i] - norm);
  }
  viv__buf_add(&lane->logprobs, &own, sizeof own);
  viv__buf_add(&lane->logprobs, ids, (size_t)k * sizeof *ids);
  viv__buf_add(&lane->logprobs, values, (size_t)k * sizeof *values);
  return lane->logprobs.failed ? VIV_FAIL(error, VIV_NOT_NOW, "logprobs", "no memory") : VIV_OK;
}

/* logprobs [B, T], top_logprob_ids and top_logprobs [B, T, k]; zeros behind a row's end. */
int32_t viv__logprobs_give(viv__task *t, viv_error *error) {
  int64_t longest = 0, k = t->top_logprobs, per = 1 + 2 * k;
  for (int32_t i = 0; i < t->n_rows; i++)
    if (t->lanes[i].n_out > longest) longest = t->lanes[i].n_out;
  int64_t shape[] = {t->n_rows, longest, k}, n = t->n_rows * longest;
  float *own = viv__calloc((size_t)n + 1, sizeof *own),
        *top = viv__calloc((size_t)(n * k) + 1, sizeof *top);
  int64_t *ids = viv__calloc((size_t)(n * k) + 1, sizeof *ids);
  for (int32_t r = 0; own && top && ids && r < t->n_rows; r++)
    for (int64_t c = 0; c < t->lanes[r].n_out; c++) {
      const char *from = t->lanes[r].logprobs.ptr + c * per * 4;
      int64_t at = r * longest + c;
      memcpy(&own[at], from, 4);
      for (int64_t i = 0; i < k; i++) {
        int32_t id;
        memcpy(&id, from + 4 * (1 + i), 4);
        ids[at * k + i] = id;
        memcpy(&top[at * k + i], from + 4 * (1 + k + i), 4);
      }
    }
  int32_t status = viv__task_out(t, "logprobs", VIV_F32, 2, shape, own, 0);
  if (status == VIV_OK && k) {
    status = viv__task_out(t, "top_logprob_ids", VIV_I64, 3, shape, ids, 0);
    ids = NULL;
    if (status == VIV_OK) {
      status = viv__task_out(t, "top_logprobs", VIV_F32, 3, shape, top, 0);
      top = NULL;
    }
  }
  viv__free(ids);
  viv__free(top);
  return status < 0 ? VIV_FAIL(error, status, "logprobs", "no memory for the results") : VIV_OK;
}
