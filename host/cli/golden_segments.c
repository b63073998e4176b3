/* Listed cases of what lies behind a network that marks stretches of time: {"cases": [{"probs": one
 * number per window, "params", "timestamps": [[begin, end], ...]}]}, each one job of the task
 * "postprocess". The case has no weights: its model is the one of the zoo that has the system's name.
 * One row per failing entry, and one for all. */
#include <stdio.h>
#include <string.h>

#include "cli/golden.h"

static const cJSON *member(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

static double at(const viv_tensor *t, int64_t i) {
  return t->dtype == VIV_I32 ? (double)((const int32_t *)t->data)[i]
                             : (double)((const float *)t->data)[i];
}

/* Where our [n, 2] stretches differ first from the list's, which are samples or seconds; false: nowhere.
 * Seconds come as floats: they have to be the float nearest to the golden's number. */
static bool differs(const cJSON *wanted, const viv_tensor *got, char *said, size_t size) {
  int n = cJSON_GetArraySize(wanted), i = 0;
  const cJSON *stretch;
  if (!got || got->ndim != 2 || got->shape[1] != 2 || got->shape[0] != n ||
      (got->dtype != VIV_I32 && got->dtype != VIV_F32)) {
    snprintf(said, size, "expected %d stretches got %lld", n,
             got && got->ndim == 2 ? (long long)got->shape[0] : -1LL);
    return true;
  }
  cJSON_ArrayForEach(stretch, wanted) {
    for (int side = 0; side < 2; side++) {
      const cJSON *number = cJSON_GetArrayItem(stretch, side);
      double want = cJSON_IsNumber(number) ? number->valuedouble : -1;
      double ours = at(got, 2 * i + side);
      if (ours == (got->dtype == VIV_F32 ? (double)(float)want : want)) continue;
      snprintf(said, size, "timestamps[%d][%d] expected %.9g got %.9g", i, side, want, ours);
      return true;
    }
    i++;
  }
  return false;
}

static bool judge_entry(viv__golden_case *c, viv_model *model, int index, const cJSON *entry) {
  viv__tensor_list got = {0};
  char said[400] = "";
  const cJSON *probs = member(entry, "probs"), *number;
  viv_tensor x = viv__tensor_make(VIV_F64, 1, (int64_t[]){cJSON_GetArraySize(probs)});
  double *values = x.data;
  cJSON_ArrayForEach(number, probs) *values++ = number->valuedouble;
  cJSON *params =
      member(entry, "params") ? cJSON_Duplicate(member(entry, "params"), 1) : cJSON_CreateObject();
  viv__need(params);
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TENSOR,
                     .name = viv__str("probabilities"),
                     .tensor = &x};
  bool bad = !viv__golden_job(model, "postprocess", params, &input, &got, said, sizeof said) ||
             differs(member(entry, "timestamps"), viv__tensors_find(&got, "timestamps"), said,
                     sizeof said);
  if (bad) {
    char *text = viv__need(cJSON_PrintUnformatted(params));
    viv__golden_differ(c, "cases", index, "%.300s: %s", text, said);
    cJSON_free(text);
  }
  viv__tensors_free(&got);
  viv__tensor_drop(&x);
  cJSON_Delete(params);
  return !bad;
}

bool viv__golden_segments(viv__golden_case *c, viv_model *(*open)(void *), void *context) {
  const cJSON *first = viv__golden_first_entry(c), *entry;
  bool ours = cJSON_IsArray(member(first, "probs")) && cJSON_IsArray(member(first, "timestamps"));
  if (ours && !c->model)
    viv__golden_refuse(c, VIV__GOLDEN_FAILED,
                       "the case has no model, and no zoo has one of the system's name \"%s\" "
                       "(VIV_ZOO names a folder of models)",
                       cJSON_GetStringValue(member(c->meta, "system")));
  viv_model *model = ours && c->model ? open(context) : NULL;
  if (model) {
    int index = 0, failed = 0;
    cJSON_ArrayForEach(entry, member(c->list, "cases")) failed +=
        !judge_entry(c, model, index++, entry);
    viv__golden_tally(c, "timestamps", failed, index);
  }
  return ours;
}
