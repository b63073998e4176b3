/* How a sentence-transformers release makes one vector of a text. It lists its steps in
 * modules.json; the step Pooling is described in a folder of its own. */
#include <string.h>

#include "tasks/text_inputs.h"

/* "sentence_transformers.models.Pooling" -> "Pooling" */
static viv_str last_name(viv_str type) {
  for (size_t i = type.len; i > 0; i--)
    if (type.ptr[i - 1] == '.') return (viv_str){type.ptr + i, type.len - i};
  return type;
}

static int32_t check_modules(const viv_json *modules, viv_error *error) {
  static const char *const known[] = {"Transformer", "Pooling", "Normalize"};
  for (int64_t i = 0; i < viv__json_count(modules); i++) {
    viv_str type = viv__json_string(viv__json_get(viv__json_item(modules, i), "type"));
    viv_str name = last_name(type);
    bool is_known = !type.len;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
      is_known = is_known || viv__str_eq(name, known[k]);
    if (!is_known)
      return VIV_FAIL(error, VIV_NEVER, "modules.json",
                      "the release's vectors pass through a step \"%.*s\", which is not known; the "
                      "parameter pooling takes vectors without it",
                      (int)name.len, name.ptr);
  }
  return VIV_OK;
}

int32_t viv__pooling_input(viv_job *job, viv_error *error) {
  static const char *const modes[][2] = {{"pooling_mode_mean_tokens", "mean"},
                                         {"pooling_mode_cls_token", "cls"},
                                         {"pooling_mode_lasttoken", "last"}};
  const viv_checkpoint *c = job->model->checkpoint;
  const viv_json *file = viv__checkpoint_file(c, viv__str("1_Pooling/config.json"));
  const char *mode = NULL;
  if (viv__json_get(job->params, "pooling")) return VIV_OK;
  int32_t status = check_modules(viv__checkpoint_file(c, viv__str("modules.json")), error);
  if (status < 0) return status;
  for (const cJSON *item = file ? ((const cJSON *)file)->child : NULL; item; item = item->next) {
    const char *own = NULL;
    if (!cJSON_IsTrue(item) || !item->string || strncmp(item->string, "pooling_mode_", 13))
      continue;
    for (size_t k = 0; k < sizeof modes / sizeof *modes; k++)
      if (!strcmp(item->string, modes[k][0])) own = modes[k][1];
    if (!own || mode)
      return VIV_FAIL(error, VIV_NEVER, "1_Pooling/config.json",
                      "%s%s cannot be done; the parameter pooling may be mean, cls or last",
                      item->string, own ? " beside another pooling" : "");
    mode = own;
  }
  return mode ? viv__add_param(job, "pooling", cJSON_CreateString(mode), error) : VIV_OK;
}
