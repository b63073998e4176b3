/* viv fill: the likeliest words at each mask of a text. */
#include <string.h>

#include "cli/cli.h"

struct filling {
  viv_tensor ids, probabilities;
};

static void on_event(void *context, const viv_event *event) {
  struct filling *f = context;
  if (event->kind != VIV_KIND_TENSOR) return;
  if (viv__str_eq(event->name, "top_ids") && !f->ids.data) f->ids = viv__tensor_copy(event->tensor);
  if (viv__str_eq(event->name, "top_probabilities") && !f->probabilities.data)
    f->probabilities = viv__tensor_copy(event->tensor);
}

static int32_t print_word(viv_model *model, const struct filling *f, int64_t mask, int64_t i,
                          bool json, viv_error *error) {
  int64_t at = mask * f->ids.shape[1] + i;
  int32_t id = (int32_t)viv__tensor_integer(&f->ids, at);
  double p = viv__tensor_number(&f->probabilities, at);
  viv_text text = {0};
  int32_t status = viv_detokenize(model, &id, 1, 0, &text, error);
  if (status < 0) return status;
  const char *word = text.ptr ? text.ptr : "";
  word += strspn(word, " ");
  if (json) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddNumberToObject(doc, "mask", (double)mask + 1);
    cJSON_AddStringToObject(doc, "word", word);
    cJSON_AddNumberToObject(doc, "id", id);
    cJSON_AddNumberToObject(doc, "probability", p);
    viv__print_json(doc);
  } else {
    printf("%7.4f  %s\n", p, word);
  }
  viv_text_free(&text);
  return VIV_OK;
}

static int32_t print_words(viv_model *model, const struct filling *f, bool json, viv_error *error) {
  int32_t status = VIV_OK;
  if (!f->ids.data || f->ids.ndim != 2 || viv__numel(&f->probabilities) != viv__numel(&f->ids))
    return VIV_FAIL(error, VIV_BUG, "fill_mask", "the model gave no words");
  for (int64_t mask = 0; mask < f->ids.shape[0]; mask++) {
    if (mask && !json) putchar('\n');
    for (int64_t i = 0; i < f->ids.shape[1] && status >= 0; i++)
      status = print_word(model, f, mask, i, json, error);
  }
  return status;
}

int viv__cmd_fill(int argc, char **argv) {
  bool json = false;
  cJSON *load = viv__need(cJSON_CreateObject()), *params = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      {"top", 0, VIV__OPT_NUMBER, "N", params, "words for each mask (5)", "top_k"},
      VIV__LOAD_OPTIONS(load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "one JSON object per word", NULL},
      {0}};
  const viv__usage usage = {"viv fill bert-base-uncased \"Paris is the [MASK] of France.\"",
                            "fill [options] MODEL TEXT",
                            "Prints the likeliest words at each mask of TEXT, with probabilities; "
                            "masks are written\nas the model writes them: [MASK], <mask>."};
  const char *args[2] = {NULL, NULL};
  int n = 0, code = viv__options(&usage, options, argc, argv, 2, 2, args, &n);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__loaded l = {0};
    struct filling f = {0};
    viv__interrupt_catch();
    int32_t status = viv__load_model(args[0], load, &l, &error);
    if (status >= 0) {
      viv_value value = viv__value_text("text", args[1], strlen(args[1]));
      const viv_value *values[1] = {&value};
      viv__outcome o;
      status = viv__job_run(l.model, "fill_mask", params, values, 1, NULL, on_event, &f, &o);
      if (status < 0) error = o.error;
      viv__outcome_free(&o);
    }
    if (status >= 0) status = print_words(l.model, &f, json, &error);
    code = status < 0 ? viv__report(json, args[0], status, &error) : VIV__EXIT_OK;
    if (f.ids.data) viv__tensor_drop(&f.ids);
    if (f.probabilities.data) viv__tensor_drop(&f.probabilities);
    viv__unload_model(&l);
  }
  cJSON_Delete(params);
  cJSON_Delete(load);
  return code;
}
