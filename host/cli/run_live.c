/* viv run on sound that is still coming: samples of standard input go into the model as they come, what
 * it says of them is printed as it is known. */
#include <string.h>

#include "cli/run.h"

struct live {
  bool json, open_line;
};

static int32_t take(void *context, const viv_event *event, viv_error *error) {
  struct live *l = context;
  (void)error;
  if (!viv__output_open()) return VIV_OK;
  if (!l->json) {
    if (event->kind != VIV_KIND_TEXT) return VIV_OK;
    fwrite(event->bytes.ptr, 1, event->bytes.len, stdout);
    l->open_line = event->bytes.len && event->bytes.ptr[event->bytes.len - 1] != '\n';
    fflush(stdout);
    return VIV_OK;
  }
  cJSON *doc = NULL;
  char *name = viv__need(viv__strndup(event->name.ptr, event->name.len));
  if (event->kind == VIV_KIND_TENSOR) {
    doc = viv__tensor_json(name, event->tensor);
  } else if (event->kind == VIV_KIND_TEXT) {
    char *text = viv__need(viv__strndup(event->bytes.ptr, event->bytes.len));
    doc = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(doc, name, text);
    viv__free(text);
  }
  viv__free(name);
  if (doc) viv__print_json(doc);
  fflush(stdout);
  return VIV_OK;
}

int viv__run_live(const viv__loaded *l, const char *model, const char *task, viv__pcm *pcm,
                  bool json, cJSON *params) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model");
  struct live live = {.json = json};
  viv_error error = VIV_ERROR_INIT;
  viv__outcome o = {.status = VIV_OK};
  if (!task) task = viv__json_text((const viv_json *)own, "live", NULL);
  int32_t status = viv__pcm_check(pcm, &error);
  if (status >= 0 && !task)
    status = VIV_FAIL(&error, VIV_BAD_INPUT, "--task", "name the task that hears a stream");
  if (status >= 0) {
    cJSON_AddNumberToObject(params, "sampling_rate", (double)pcm->rate);
    cJSON_AddNumberToObject(params, "input_channels", (double)pcm->channels);
    status = viv__pump_run(l, task, params, "audio", viv__pcm_read, pcm, take, &live, &o);
    error = o.error;
  }
  if (live.open_line) putchar('\n');
  viv__outcome_free(&o);
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    return VIV__EXIT_CANCELLED;
  }
  return status < 0 ? viv__report(json, model, status, &error) : VIV__EXIT_OK;
}
