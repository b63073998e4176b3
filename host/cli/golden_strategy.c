/* Listed cases of decoding: {"cases": [{"prompt": [[ids], ...], "params", "sequences"}]} on the case's
 * model, with meta.json's run.defaults under the params, and the outputs scores.N. One row per failing
 * entry, and one for all. */
#include <math.h>
#include <string.h>

#include "cli/golden.h"

struct judge {
  viv__golden_case *c;
  viv_model *model;
  int failed;
};

static const cJSON *member(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* The entry's parameters over the defaults. Behind an end of the entry's own the first end token is
 * the padding, as in transformers. */
static cJSON *params_of(const struct judge *j, const cJSON *entry) {
  const cJSON *item, *end = member(member(entry, "params"), "eos_token_id");
  cJSON *params = cJSON_Duplicate(member(member(j->c->meta, "run"), "defaults"), 1);
  if (!params) params = viv__need(cJSON_CreateObject());
  cJSON_ArrayForEach(item, member(entry, "params")) {
    cJSON_DeleteItemFromObjectCaseSensitive(params, item->string);
    cJSON_AddItemToObject(params, item->string, cJSON_Duplicate(item, 1));
  }
  if (cJSON_IsArray(end)) end = end->child;
  if (end && !member(member(entry, "params"), "pad_token_id")) {
    cJSON_DeleteItemFromObjectCaseSensitive(params, "pad_token_id");
    cJSON_AddItemToObject(params, "pad_token_id", cJSON_Duplicate(end, 1));
  }
  cJSON *outputs = cJSON_AddArrayToObject(params, "outputs");
  cJSON_AddItemToArray(outputs, cJSON_CreateString("sequences"));
  cJSON_AddItemToArray(outputs, cJSON_CreateString("sequences_scores"));
  return params;
}

static viv_tensor prompt_of(const cJSON *entry) {
  const cJSON *rows = member(entry, "prompt"), *row, *id;
  int64_t shape[] = {cJSON_GetArraySize(rows), cJSON_GetArraySize(rows ? rows->child : NULL)};
  viv_tensor t = viv__tensor_make(VIV_I64, 2, shape);
  int64_t r = 0;
  cJSON_ArrayForEach(row, rows) {
    int64_t c = 0;
    cJSON_ArrayForEach(id, row) {
      if (c < shape[1]) ((int64_t *)t.data)[r * shape[1] + c] = id->valueint;
      c++;
    }
    r++;
  }
  return t;
}

/* Where our sequences differ first; false: nowhere. */
static bool differs(const cJSON *wanted, const viv_tensor *got, char *said, size_t size) {
  const cJSON *row, *id;
  int64_t r = 0;
  if (!got || got->ndim != 2 || got->shape[0] != cJSON_GetArraySize(wanted)) {
    snprintf(said, size, "expected %d sequences got %lld", cJSON_GetArraySize(wanted),
             got ? (long long)got->shape[0] : 0LL);
    return true;
  }
  cJSON_ArrayForEach(row, wanted) {
    int64_t c = 0;
    cJSON_ArrayForEach(id, row) {
      int64_t ours = c < got->shape[1] ? ((const int64_t *)got->data)[r * got->shape[1] + c] : -1;
      if (ours != id->valueint) {
        snprintf(said, size, "sequences[%lld][%lld] expected %d got %lld", (long long)r,
                 (long long)c, id->valueint, (long long)ours);
        return true;
      }
      c++;
    }
    if (c != got->shape[1]) {
      snprintf(said, size, "sequences are %lld tokens long, expected %lld",
               (long long)got->shape[1], (long long)c);
      return true;
    }
    r++;
  }
  return false;
}

static void judge_entry(struct judge *j, int index, const cJSON *entry) {
  viv__tensor_list got = {0};
  char name[32], said[400] = "";
  cJSON *params = params_of(j, entry);
  viv_tensor ids = prompt_of(entry), want = {0};
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TENSOR,
                     .name = viv__str("input_ids"),
                     .tensor = &ids};
  bool bad =
      !viv__golden_job(j->model, "generate", params, &input, &got, said, sizeof said) ||
      differs(member(entry, "sequences"), viv__tensors_find(&got, "sequences"), said, sizeof said);
  snprintf(name, sizeof name, "scores.%d", index);
  const viv_tensor *scores = viv__tensors_find(&got, "sequences_scores");
  if (!bad && j->c->outputs && viv__safetensors_find(j->c->outputs, viv__str(name), &want) >= 0) {
    /* Scores are of beams: a single one is not scored. */
    const cJSON *beams = member(params, "num_beams");
    viv__golden_rule rule = {.atol = 1e-5};
    const cJSON *atol = member(member(member(j->c->meta, "tensors"), name), "atol");
    if (cJSON_IsNumber(atol)) rule.atol = atol->valuedouble;
    if (scores || (beams && beams->valueint > 1))
      viv__golden_compare(j->c, viv__golden_add(j->c, "(list)", name), scores, &want, &rule);
  }
  if (bad) {
    char *text = viv__need(cJSON_PrintUnformatted(member(entry, "params")));
    viv__golden_differ(j->c, "cases", index, "%.200s: %s", text, said);
    cJSON_free(text);
    j->failed++;
  }
  viv__tensors_free(&got);
  viv__tensor_drop(&ids);
  cJSON_Delete(params);
}

bool viv__golden_strategies(viv__golden_case *c, viv_model *(*open)(void *), void *context) {
  const cJSON *first = viv__golden_first_entry(c), *entry;
  bool ours = member(first, "prompt") && member(first, "sequences");
  struct judge j = {.c = c};
  if (ours && (j.model = open(context))) {
    int index = 0;
    cJSON_ArrayForEach(entry, member(c->list, "cases")) judge_entry(&j, index++, entry);
    viv__golden_tally(c, "sequences", j.failed, index);
  }
  return ours;
}
