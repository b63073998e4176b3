/* Listed cases of logits processors: {"cases": [{"logits_row", "input_ids", "prompt_length",
 * "params", "kept"}]} over the rows of inputs "logits", held against the rows of outputs "probs". One
 * row per failing entry, and one for all. */
#include <math.h>
#include <string.h>

#include "cli/golden.h"
#include "tasks/sampler.h"

static const cJSON *member(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* probs [vocab] holds the logits first. */
static int32_t run_entry(const cJSON *entry, int32_t vocab, float *probs, viv_error *error) {
  viv_arena *arena = viv__need(viv__arena_new(0));
  const viv_host host = {.struct_size = sizeof host, .arena_alloc = viv__arena_alloc};
  const viv_sampler_api *api = &viv__sampler_api;
  const cJSON *id, *ids = member(entry, "input_ids"), *length = member(entry, "prompt_length");
  viv_sampler *s = NULL;
  int32_t i = 0;
  int32_t status =
      api->create(&host, arena, (const viv_json *)member(entry, "params"), vocab, 0, &s, error);
  if (status >= 0) {
    cJSON_ArrayForEach(id, ids) {
      api->accept(s, id->valueint, cJSON_IsNumber(length) && i >= length->valueint);
      i++;
    }
    api->probabilities(s, probs);
  }
  viv__arena_free(arena);
  return status;
}

static void judge_entry(viv__golden_case *c, int index, const cJSON *entry, const viv_tensor *in,
                        const viv_tensor *want, double atol, double *worst, int *failed) {
  viv_error error = VIV_ERROR_INIT;
  const cJSON *at = member(entry, "logits_row"), *kept = member(entry, "kept");
  int32_t vocab = (int32_t)in->shape[1], n = 0, first = -1;
  const float *golden = (const float *)want->data + (int64_t)index * vocab;
  double largest = 0;
  if (!cJSON_IsNumber(at) || at->valueint < 0 || at->valueint >= in->shape[0])
    VIV_FAIL(&error, VIV_BAD_INPUT, "logits_row", "names no row");
  float *p = viv__need(viv__malloc((size_t)vocab * sizeof *p));
  if (!*error.message) {
    memcpy(p, (const float *)in->data + (int64_t)at->valueint * vocab, (size_t)vocab * sizeof *p);
    run_entry(entry, vocab, p, &error);
  }
  for (int32_t i = 0; !*error.message && i < vocab; i++) {
    double d = fabs((double)p[i] - golden[i]);
    n += p[i] > 0;
    if (first < 0 && !(d <= atol)) first = i;
    if (!(d <= largest)) largest = d;
  }
  bool count = cJSON_IsNumber(kept) && n != kept->valueint;
  if (largest > *worst) *worst = largest;
  if (*error.message || first >= 0 || count) {
    char *params = viv__need(cJSON_PrintUnformatted(member(entry, "params"))), said[700];
    if (*error.message)
      snprintf(said, sizeof said, "%.400s (%.200s)", error.message, error.where);
    else if (first >= 0)
      snprintf(said, sizeof said, "probs[%d] expected %g got %g", first, golden[first], p[first]);
    else
      snprintf(said, sizeof said, "expected %d tokens kept, got %d", kept->valueint, n);
    viv__golden_row *row = viv__golden_differ(c, "cases", index, "%.200s: %s", params, said);
    row->exact = false;
    row->atol = atol;
    row->max_err = largest;
    (*failed)++;
    cJSON_free(params);
  }
  viv__free(p);
}

static void judge_all(viv__golden_case *c, const viv_tensor *in, const viv_tensor *want) {
  const cJSON *entry, *atol = member(member(member(c->meta, "tensors"), "probs"), "atol");
  double worst = 0, limit = cJSON_IsNumber(atol) ? atol->valuedouble : 1e-5;
  int index = 0, failed = 0;
  cJSON_ArrayForEach(entry, member(c->list, "cases"))
      judge_entry(c, index++, entry, in, want, limit, &worst, &failed);
  viv__golden_row *row = viv__golden_add(c, "(list)", "probs");
  row->atol = limit;
  row->max_err = worst;
  if (failed) viv__golden_fail(c, row, "%d of %d entries differ", failed, index);
}

bool viv__golden_samplings(viv__golden_case *c) {
  bool ours = member(viv__golden_first_entry(c), "logits_row") != NULL;
  viv_tensor in = {0}, want = {0};
  if (ours) {
    bool found = c->inputs && c->outputs &&
                 viv__safetensors_find(c->inputs, viv__str("logits"), &in) >= 0 &&
                 viv__safetensors_find(c->outputs, viv__str("probs"), &want) >= 0;
    if (!found || in.ndim != 2 || want.ndim != 2 || in.dtype != VIV_F32 || want.dtype != VIV_F32 ||
        want.shape[1] != in.shape[1] || in.shape[1] > INT32_MAX ||
        want.shape[0] != cJSON_GetArraySize(member(c->list, "cases")))
      viv__golden_refuse(c, VIV__GOLDEN_FAILED,
                         "needs F32 inputs logits [rows, V] and outputs probs [cases, V]");
    else
      judge_all(c, &in, &want);
  }
  return ours;
}
