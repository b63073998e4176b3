/* viv show: what a model is and what it will need, before anything is loaded. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "cli/cli.h"
#include "cli/tree.h"

/* The line of card.md that names the licence, without its list and emphasis marks. */
static char *licence_of(const char *path) {
  char *card = viv__need(viv__path_join(path, "card.md")), *text = NULL, *found = NULL;
  size_t len = 0;
  if (viv__read_file(card, 1 << 20, &text, &len, NULL) >= 0)
    for (char *line = strtok(text, "\n"); line && !found; line = strtok(NULL, "\n")) {
      char *at = strcasestr(line, "licence");
      if (!at) at = strcasestr(line, "license");
      if (!at || at - line > 8) continue;
      at += strspn(at + 7, "*_: \t") + 7;
      if (*at) found = viv__need(viv__strdup(at));
    }
  if (!found) {
    char *licence = viv__need(viv__path_join(path, "LICENSE"));
    if (!access(licence, R_OK)) found = viv__need(viv__strdup("see the LICENSE beside the model"));
    viv__free(licence);
  }
  viv__free(text);
  viv__free(card);
  return found;
}

/* Sizes and types of the tensors, from the checkpoint's headers. */
static cJSON *weights_of(const char *path, viv_error *error) {
  viv_checkpoint *c = NULL;
  if (viv__checkpoint_open(path, &c, error) < 0) return NULL;
  cJSON *o = viv__need(cJSON_CreateObject()), *types = cJSON_AddObjectToObject(o, "dtypes");
  enum { LAST = VIV_Q6_K };
  double parameters = 0, by_type[LAST + 1] = {0};
  int64_t n = viv__tensor_count(c);
  for (int64_t i = 0; i < n; i++) {
    viv_str name;
    viv_tensor t = {.struct_size = sizeof t};
    if (viv__tensor_at(c, i, &name, &t) < 0) continue;
    parameters += (double)viv__numel(&t);
    if (t.dtype > 0 && t.dtype <= LAST) by_type[t.dtype] += (double)t.bytes;
  }
  cJSON_AddNumberToObject(o, "tensors", (double)n);
  cJSON_AddNumberToObject(o, "parameters", parameters);
  cJSON_AddNumberToObject(o, "file_bytes", (double)viv__checkpoint_bytes(c));
  for (int32_t d = 1; d <= LAST; d++)
    if (by_type[d] > 0) cJSON_AddNumberToObject(types, viv__dtype_name(d), by_type[d]);
  const viv_json *config = viv__checkpoint_config(c);
  if (config) cJSON_AddItemToObject(o, "config", cJSON_Duplicate((const cJSON *)config, 1));
  viv__checkpoint_close(c);
  return o;
}

/* The plan in words; what it holds beyond these is shown as it is. */
static void print_plan(const cJSON *doc) {
  static const struct {
    const char *key, *text;
  } lines[] = {
      {"weights_bytes", "weights"},        {"model_bytes", "prepared tables"},
      {"session_bytes", "per sequence"},   {"session_token_bytes", "per token of a sequence"},
      {"step_bytes", "scratch of a step"}, {"step_row_bytes", "scratch per row"},
      {"needed_bytes", "needed to load"},  {"available_bytes", "available"}};
  const cJSON *inner = cJSON_GetObjectItemCaseSensitive(doc, "plan");
  const cJSON *plan = cJSON_IsObject(inner) ? inner : doc;
  const cJSON *plugin = cJSON_GetObjectItemCaseSensitive(doc, "plugin");
  const cJSON *context = cJSON_GetObjectItemCaseSensitive(plan, "context_max");
  char size[32];
  printf("\nmemory plan\n");
  if (cJSON_IsString(plugin)) printf("  %-24s %s\n", "plugin", plugin->valuestring);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(plan, lines[i].key);
    if (cJSON_IsNumber(item))
      printf("  %-24s %s\n", lines[i].text, viv__size_text(item->valuedouble, size));
  }
  if (cJSON_IsNumber(context))
    printf("  %-24s %.0f tokens\n", "longest sequence", context->valuedouble);
}

static void print_model(const cJSON *doc) {
  char size[32], count[32];
  const cJSON *weights = cJSON_GetObjectItemCaseSensitive(doc, "weights"), *d;
  const cJSON *config = cJSON_GetObjectItemCaseSensitive(weights, "config");
  const cJSON *licence = cJSON_GetObjectItemCaseSensitive(doc, "licence");
  double parameters = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(weights, "parameters"));
  double bytes = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(weights, "file_bytes"));
  printf("%-26s %s\n", "path", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(doc, "path")));
  printf("%-26s %s (%.0f)\n", "parameters", viv__count_text(parameters, count), parameters);
  printf("%-26s %s in %.0f tensors:", "weights", viv__size_text(bytes, size),
         cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(weights, "tensors")));
  cJSON_ArrayForEach(d, cJSON_GetObjectItemCaseSensitive(weights, "dtypes"))
      printf(" %s %s", d->string, viv__size_text(d->valuedouble, size));
  printf("\n%-26s %s\n", "licence",
         cJSON_IsString(licence) ? licence->valuestring : "not stated in a card.md");
  printf("\nconfiguration\n");
  viv__print_tree(config, 2);
  if (cJSON_GetObjectItemCaseSensitive(doc, "plan"))
    print_plan(cJSON_GetObjectItemCaseSensitive(doc, "plan"));
}

/* The plan needs a plugin; without one the rest is still worth showing. */
static int32_t add_plan(cJSON *doc, const char *path, const cJSON *load, viv_error *error) {
  viv_runtime *rt = NULL;
  viv_text text = {0};
  char *place = viv__model_place(path, error);
  char *params = load->child ? viv__need(cJSON_PrintUnformatted(load)) : NULL;
  int32_t status = viv__open_for_models(&rt, error);
  if (status >= 0) status = viv_plan(rt, place, params, &text, error);
  cJSON *plan = status >= 0 ? viv__text_json(&text) : NULL;
  if (plan) cJSON_AddItemToObject(doc, "plan", plan);
  cJSON_free(params);
  viv__free(place);
  if (rt) viv_close(rt);
  return status;
}

int viv__cmd_show(int argc, char **argv) {
  bool json = false;
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      VIV__LOAD_OPTIONS(load),
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "everything as one JSON object", NULL},
      VIV__LOCAL_OPTION,
      {0}};
  const viv__usage usage = {"viv show sambay-reasoner", "show [options] MODEL",
                            "Shows MODEL's configuration, size, licence and memory plan. Nothing "
                            "is loaded."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT, plan_error = VIV_ERROR_INIT;
    char *path = viv__model_path(model, &error);
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON *weights = path ? weights_of(path, &error) : NULL;
    if (!weights) {
      code = viv__report(json, model, error.code, &error);
    } else {
      char *licence = licence_of(path);
      cJSON_AddStringToObject(doc, "path", path);
      if (licence) cJSON_AddStringToObject(doc, "licence", licence);
      cJSON_AddItemToObject(doc, "weights", weights);
      int32_t status = add_plan(doc, path, load, &plan_error);
      if (!json)
        print_model(doc);
      else if (status >= 0)
        viv__print_json(cJSON_Duplicate(doc, 1));
      code = status < 0 ? viv__report(json, "no memory plan", status, &plan_error) : VIV__EXIT_OK;
      viv__free(licence);
    }
    cJSON_Delete(doc);
    viv__free(path);
  }
  cJSON_Delete(load);
  return code;
}
