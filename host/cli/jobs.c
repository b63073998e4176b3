/* Running one job to its end, and what its counters say. */
#include "cli/cli.h"

#include <string.h>

enum { POLL_MS = 50 }; /* how late Ctrl-C may be noticed */

viv_value viv__value_text(const char *name, const char *text, size_t len) {
  viv_value v = {.struct_size = sizeof v, .kind = VIV_KIND_TEXT, .name = viv__str(name)};
  v.bytes = (viv_str){text, len};
  return v;
}

viv_value viv__value_json(const char *name, const char *text) {
  viv_value v = viv__value_text(name, text, strlen(text));
  v.kind = VIV_KIND_JSON;
  return v;
}

viv_value viv__value_tensor(const char *name, const viv_tensor *tensor) {
  viv_value v = {.struct_size = sizeof v, .kind = VIV_KIND_TENSOR, .name = viv__str(name)};
  v.tensor = tensor;
  return v;
}

void viv__outcome_take(viv__outcome *out, const viv_event *end) {
  viv_json *counters = NULL;
  out->status = end->status;
  if (end->error) {
    size_t size = end->error->struct_size;
    memcpy(&out->error, end->error, size < sizeof out->error ? size : sizeof out->error);
    out->error.struct_size = sizeof out->error;
  }
  if (end->bytes.len) viv__json_parse(end->bytes.ptr, end->bytes.len, "counters", &counters, NULL);
  out->counters = (cJSON *)counters;
}

static void pull(viv_job *job, viv__event_fn fn, void *context, viv__outcome *out) {
  viv_event event = {.struct_size = sizeof event};
  bool cancelled = false;
  for (;;) {
    int32_t status = viv_next_event(job, POLL_MS, &event);
    if (viv__interrupted() && !cancelled) {
      viv_job_cancel(job);
      cancelled = true;
    }
    if (status == VIV_WAIT) continue;
    if (status != VIV_OK) { /* DONE without an END can't be; a failure is the library's */
      out->status = status < 0 ? status : VIV_BUG;
      return;
    }
    if (event.flags & VIV_EVENT_FINAL) {
      viv__outcome_take(out, &event);
      return;
    }
    if (fn) fn(context, &event);
  }
}

int32_t viv__job_run(viv_model *model, const char *task, const cJSON *params,
                     const viv_value *const *inputs, int n_inputs, viv_session *session,
                     viv__event_fn fn, void *context, viv__outcome *out) {
  memset(out, 0, sizeof *out);
  out->error.struct_size = sizeof out->error;
  char *text = params ? viv__need(cJSON_PrintUnformatted(params)) : NULL;
  viv_request request = {.struct_size = sizeof request,
                         .task = task,
                         .params = text,
                         .inputs = inputs,
                         .n_inputs = n_inputs,
                         .session = session};
  viv_job *job = NULL;
  uint64_t start = viv__now_ns();
  out->status = viv_submit(model, &request, &job, &out->error);
  cJSON_free(text);
  if (out->status >= 0) pull(job, fn, context, out);
  out->seconds = (double)(viv__now_ns() - start) * 1e-9;
  if (job) viv_job_free(job);
  return out->status;
}

void viv__outcome_free(viv__outcome *o) {
  cJSON_Delete(o->counters);
  o->counters = NULL;
}

double viv__counter(const viv__outcome *o, const char *name, double fallback) {
  const cJSON *n = cJSON_GetObjectItemCaseSensitive(o->counters, name);
  return cJSON_IsNumber(n) ? n->valuedouble : fallback;
}

void viv__print_counters(const viv__outcome *o) {
  double prompt = viv__counter(o, "prompt_tokens", -1),
         made = viv__counter(o, "completion_tokens", -1);
  double prefill = viv__counter(o, "prefill_ms", -1), decode = viv__counter(o, "decode_ms", -1);
  const cJSON *reason = cJSON_GetObjectItemCaseSensitive(o->counters, "finish_reason"), *c;
  if (prompt >= 0) {
    fprintf(stderr, "prompt %.0f tokens", prompt);
    if (prefill > 0)
      fprintf(stderr, " in %.1f ms (%.1f tokens/s)", prefill, prompt / prefill * 1e3);
    fprintf(stderr, "; ");
  }
  if (made >= 0) {
    fprintf(stderr, "generated %.0f", made);
    if (decode > 0) fprintf(stderr, " in %.1f ms (%.1f tokens/s)", decode, made / decode * 1e3);
    fprintf(stderr, "; ");
  }
  fprintf(stderr, "%s%s%.2f s in all\n", cJSON_IsString(reason) ? reason->valuestring : "",
          cJSON_IsString(reason) ? "; " : "", o->seconds);
  int others = 0;
  cJSON_ArrayForEach(c, o->counters) {
    static const char *const shown = " prompt_tokens completion_tokens prefill_ms decode_ms ";
    char padded[80];
    snprintf(padded, sizeof padded, " %s ", c->string);
    if (!cJSON_IsNumber(c) || strstr(shown, padded)) continue;
    fprintf(stderr, "%s%s %g", others++ ? ", " : "", c->string, c->valuedouble);
  }
  if (others) fprintf(stderr, "\n");
}
