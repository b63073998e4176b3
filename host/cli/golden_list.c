/* What the judges of listed cases share: the first entry that tells the list's kind, rows, jobs. */
#include <stdio.h>

#include "cli/golden.h"

const cJSON *viv__golden_first_entry(const viv__golden_case *c) {
  const cJSON *cases = cJSON_GetObjectItemCaseSensitive(c->list, "cases");
  return cJSON_IsArray(cases) ? cases->child : NULL;
}

viv__golden_row *viv__golden_differ(viv__golden_case *c, const char *name, int index,
                                    const char *format, ...) {
  va_list args;
  char entry[64], text[1200];
  snprintf(entry, sizeof entry, "%.40s[%d]", name, index);
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  viv__golden_row *row = viv__golden_add(c, "(list)", entry);
  row->exact = true;
  row->max_err = 1;
  viv__golden_fail(c, row, "%s", text);
  return row;
}

void viv__golden_tally(viv__golden_case *c, const char *name, int failed, int entries) {
  viv__golden_row *row = viv__golden_add(c, "(list)", name);
  row->exact = true;
  row->max_err = failed;
  if (failed) viv__golden_fail(c, row, "%d of %d entries differ", failed, entries);
}

static void keep_tensor(void *context, const viv_event *e) {
  if (e->kind == VIV_KIND_TENSOR) viv__tensors_add(context, e->name, e->tensor, false);
}

bool viv__golden_job(viv_model *model, const char *task, const cJSON *params,
                     const viv_value *input, viv__tensor_list *got, char *said, size_t size) {
  viv__outcome outcome = {.status = VIV_OK};
  int32_t status = viv__job_run(model, task, params, &input, 1, NULL, keep_tensor, got, &outcome);
  if (status < 0)
    snprintf(said, size, "%.250s (%.100s)", outcome.error.message, outcome.error.where);
  viv__outcome_free(&outcome);
  return status >= 0;
}
