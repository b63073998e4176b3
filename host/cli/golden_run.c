/* The calls of one golden case: each becomes a job at the ordinary door, and what it gives is held
 * against outputs.safetensors. */
#include <math.h>
#include <string.h>

#include "cli/golden.h"

/* What a job gave, by name. */
struct results {
  viv__tensor_list tensors;
  cJSON *texts; /* {"name": ["..."]}: texts and JSON in the order in which they came */
};

struct session {
  const char *name;
  viv_session *handle;
};

struct runner {
  viv__golden_case *c;
  const viv__golden_options *o;
  viv_runtime *rt;
  viv_model *model;
  struct session sessions[32];
  int n_sessions;
};

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : "";
}

static void on_event(void *context, const viv_event *e) {
  struct results *r = context;
  if (e->kind == VIV_KIND_TENSOR) {
    /* A tap may have a result's name (the logits of every layer beside those of the last): taps are
     * kept under "tap.NAME", as the cases write them. */
    bool tap = e->flags & VIV_EVENT_TAP, named = e->name.len > 4 && !memcmp(e->name.ptr, "tap.", 4);
    char *name = viv__textf("%s%.*s", tap && !named ? "tap." : "", (int)e->name.len, e->name.ptr);
    viv__tensors_add(&r->tensors, viv__str(name), e->tensor, tap);
    viv__free(name);
  } else if (e->kind == VIV_KIND_TEXT || e->kind == VIV_KIND_JSON) {
    char *name = viv__need(viv__strndup(e->name.ptr, e->name.len));
    char *text = viv__need(viv__strndup(e->bytes.ptr, e->bytes.len));
    viv_json *value = NULL;
    cJSON *list = cJSON_GetObjectItemCaseSensitive(r->texts, name);
    if (!list) list = cJSON_AddArrayToObject(r->texts, name);
    if (e->kind == VIV_KIND_JSON) viv__json_parse(text, e->bytes.len, name, &value, NULL);
    cJSON_AddItemToArray(list, value ? (cJSON *)value : cJSON_CreateString(text));
    viv__free(name);
    viv__free(text);
  }
}

/* ---- what to ask for ---- */

static void add_names(cJSON *list, const cJSON *from) {
  const cJSON *item;
  cJSON_ArrayForEach(item, from) cJSON_AddItemToArray(list, cJSON_CreateString(item->string));
}

/* The call's parameters, and the names of what it must give. */
static cJSON *params_of(const cJSON *call) {
  const cJSON *given = cJSON_GetObjectItemCaseSensitive(call, "params");
  cJSON *params = cJSON_IsObject(given) ? cJSON_Duplicate(given, 1) : cJSON_CreateObject();
  viv__need(params);
  if (!cJSON_GetObjectItemCaseSensitive(params, "outputs")) {
    cJSON *outputs = cJSON_AddArrayToObject(params, "outputs");
    add_names(outputs, cJSON_GetObjectItemCaseSensitive(call, "outputs"));
    add_names(outputs, cJSON_GetObjectItemCaseSensitive(call, "expect"));
  }
  const cJSON *taps = cJSON_GetObjectItemCaseSensitive(call, "taps");
  if (taps && taps->child && !cJSON_GetObjectItemCaseSensitive(params, "taps"))
    add_names(cJSON_AddArrayToObject(params, "taps"), taps);
  return params;
}

/* ---- rules ---- */

static const viv_tensor *mask_of(const cJSON *params, const viv__input_list *inputs) {
  if (strcmp(text_of(params, "padded_outputs"), "zero")) return NULL;
  for (int i = 0; i < inputs->n; i++)
    if (!strcmp(inputs->items[i].name, "attention_mask") &&
        inputs->items[i].value.kind == VIV_KIND_TENSOR)
      return &inputs->items[i].tensor;
  return NULL;
}

static bool is_eos(const cJSON *eos, int64_t id) {
  const cJSON *item;
  if (cJSON_IsNumber(eos)) return (int64_t)eos->valuedouble == id;
  cJSON_ArrayForEach(item,
                     eos) if (cJSON_IsNumber(item) && (int64_t)item->valuedouble == id) return true;
  return false;
}

/* How many steps of each row count: up to its end token. NULL when no row can end early. The tokens
 * are the golden's; of `sequences` the last `steps` columns are the new ones. */
static int64_t *row_ends(const viv__golden_case *c, const cJSON *call, int64_t steps,
                         int64_t *n_rows) {
  const cJSON *params = cJSON_GetObjectItemCaseSensitive(call, "params");
  const cJSON *eos = cJSON_GetObjectItemCaseSensitive(params, "eos_token_id");
  const cJSON *outputs = cJSON_GetObjectItemCaseSensitive(call, "outputs");
  const char *name =
      *text_of(outputs, "ids") ? text_of(outputs, "ids") : text_of(outputs, "sequences");
  viv_tensor ids = {.struct_size = sizeof ids};
  if (!eos || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "ignore_eos")) || !*name ||
      viv__safetensors_find(c->outputs, viv__str(name), &ids) < 0 || ids.ndim < 1)
    return NULL;
  int64_t columns = ids.shape[ids.ndim - 1], rows = columns ? viv__numel(&ids) / columns : 0;
  if (columns < steps || !rows) return NULL;
  int64_t *ends = viv__need(viv__calloc((size_t)rows, sizeof *ends));
  for (int64_t r = 0; r < rows; r++) {
    int64_t first = r * columns + columns - steps, s = 0;
    while (s < steps && !is_eos(eos, viv__tensor_integer(&ids, first + s))) s++;
    ends[r] = s < steps ? s + 1 : steps;
  }
  *n_rows = rows;
  return ends;
}

static void compare_one(struct runner *r, const cJSON *call, const viv__input_list *inputs,
                        const struct results *got, const char *official, const char *tensor,
                        bool tap) {
  viv__golden_case *c = r->c;
  const cJSON *params = cJSON_GetObjectItemCaseSensitive(call, "params");
  const cJSON *meta = cJSON_GetObjectItemCaseSensitive(
      cJSON_GetObjectItemCaseSensitive(c->meta, "tensors"), tensor);
  const cJSON *atol = cJSON_GetObjectItemCaseSensitive(meta, "atol");
  const cJSON *ignore = cJSON_GetObjectItemCaseSensitive(params, "ignore_index");
  const cJSON *steps = cJSON_GetObjectItemCaseSensitive(params, "first_steps");
  viv__golden_row *row = viv__golden_add(c, text_of(call, "name"), tensor);
  viv_tensor golden = {.struct_size = sizeof golden};
  if (!c->outputs || viv__safetensors_find(c->outputs, viv__str(tensor), &golden) < 0) {
    viv__golden_fail(c, row, "outputs.safetensors holds no such tensor");
    return;
  }
  viv__golden_rule rule = {.exact = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(meta, "exact")),
                           .atol = cJSON_IsNumber(atol) ? atol->valuedouble : 0,
                           .has_ignore = cJSON_IsNumber(ignore),
                           .mask = mask_of(params, inputs)};
  if (rule.has_ignore) rule.ignore = (int64_t)ignore->valuedouble;
  if (cJSON_IsNumber(steps)) rule.first_steps = (int64_t)steps->valuedouble;
  int64_t *ends = NULL;
  if (!strcmp(official, "step_logits") && golden.ndim >= 2) {
    ends = row_ends(c, call, golden.shape[golden.ndim - 2], &rule.n_rows);
    rule.row_ends = ends;
  }
  /* What a family sends only when asked may be a tap to it and a result to the case, or the other
   * way round. */
  char *name = viv__textf("tap.%s", official);
  const viv_tensor *ours = viv__tensors_find(&got->tensors, tap ? name : official);
  if (!ours) ours = viv__tensors_find(&got->tensors, tap ? official : name);
  viv__golden_compare(c, row, ours, &golden, &rule);
  viv__free(name);
  viv__free(ends);
}

/* ---- results that are no tensors ---- */

static void flatten(const cJSON *node, cJSON *out) {
  const cJSON *item;
  if (cJSON_IsArray(node))
    cJSON_ArrayForEach(item, node) flatten(item, out);
  else
    cJSON_AddItemToArray(out, cJSON_Duplicate(node, 1));
}

static cJSON *joined_texts(const cJSON *list) {
  viv__buf all = {0};
  const cJSON *item;
  cJSON_ArrayForEach(item, list) if (cJSON_IsString(item)) viv__buf_str(&all, item->valuestring);
  viv__buf_add(&all, "", 1);
  cJSON *out = viv__need(cJSON_CreateArray());
  cJSON_AddItemToArray(out, cJSON_CreateString(viv__need(all.ptr)));
  viv__buf_free(&all);
  return out;
}

/* Texts are compared one by one, streamed pieces of a single one joined; numbers in reading order,
 * whether they came as a tensor or as JSON. */
static void expect_one(struct runner *r, const cJSON *call, const struct results *got,
                       const cJSON *wanted) {
  viv__golden_case *c = r->c;
  viv__golden_row *row = viv__golden_add(c, text_of(call, "name"), wanted->string);
  row->exact = true;
  const cJSON *texts = cJSON_GetObjectItemCaseSensitive(got->texts, wanted->string);
  const viv_tensor *t = viv__tensors_find(&got->tensors, wanted->string);
  cJSON *ours = viv__need(cJSON_CreateArray()), *flat = viv__need(cJSON_CreateArray());
  flatten(wanted, flat);
  if (texts) flatten(texts, ours);
  if (!texts && t)
    for (int64_t i = 0; i < viv__numel(t); i++)
      cJSON_AddItemToArray(ours, cJSON_CreateNumber(viv__tensor_number(t, i)));
  if (texts && cJSON_GetArraySize(flat) == 1 && cJSON_GetArraySize(ours) != 1 &&
      cJSON_IsString(flat->child)) {
    cJSON *one = joined_texts(ours);
    cJSON_Delete(ours);
    ours = one;
  }
  if (!texts && !t) {
    viv__golden_fail(c, row, "missing: the job gave nothing of that name");
  } else if (!cJSON_Compare(ours, flat, 1)) {
    char *a = cJSON_PrintUnformatted(ours), *b = cJSON_PrintUnformatted(flat);
    viv__golden_fail(c, row, "ours %.400s golden %.400s", a ? a : "", b ? b : "");
    cJSON_free(a);
    cJSON_free(b);
  }
  cJSON_Delete(ours);
  cJSON_Delete(flat);
}

/* ---- the order of what is shown ---- */

static int tap_rank(const cJSON *order, const char *tensor) {
  const cJSON *item;
  int rank = 0;
  cJSON_ArrayForEach(item, order) {
    if (cJSON_IsString(item) && !strcmp(item->valuestring, tensor)) return rank;
    rank++;
  }
  return rank;
}

/* With --taps-first intermediate tensors come in the order in which they are computed, so that the
 * first line that fails names the layer. */
static void compare_taps(struct runner *r, const cJSON *call, const viv__input_list *inputs,
                         const struct results *got) {
  const cJSON *order = cJSON_GetObjectItemCaseSensitive(r->c->meta, "taps"), *tap;
  const cJSON *taps = cJSON_GetObjectItemCaseSensitive(call, "taps");
  int ranks = r->o->taps_first ? cJSON_GetArraySize(order) : 0;
  for (int rank = 0; rank <= ranks; rank++) cJSON_ArrayForEach(tap, taps) {
      if (!cJSON_IsString(tap)) continue;
      if (ranks && tap_rank(order, tap->valuestring) != rank) continue;
      compare_one(r, call, inputs, got, tap->string, tap->valuestring, true);
    }
}

static void compare_call(struct runner *r, const cJSON *call, const viv__input_list *inputs,
                         const struct results *got) {
  const cJSON *item;
  if (r->o->taps_first) compare_taps(r, call, inputs, got);
  cJSON_ArrayForEach(item,
                     cJSON_GetObjectItemCaseSensitive(call, "outputs")) if (cJSON_IsString(item))
      compare_one(r, call, inputs, got, item->string, item->valuestring, false);
  if (!r->o->taps_first) compare_taps(r, call, inputs, got);
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(call, "expect"))
      expect_one(r, call, got, item);
}

/* ---- running ---- */

static int32_t session_of(struct runner *r, const cJSON *call, viv_session **out,
                          viv_error *error) {
  const char *name = text_of(call, "session");
  *out = NULL;
  if (!*name) return VIV_OK;
  for (int i = 0; i < r->n_sessions; i++)
    if (!strcmp(r->sessions[i].name, name)) {
      *out = r->sessions[i].handle;
      return VIV_OK;
    }
  if (r->n_sessions == (int)(sizeof r->sessions / sizeof *r->sessions))
    return VIV_FAIL(error, VIV_NOT_NOW, name, "too many sessions in one case");
  int32_t status = viv_session_open(r->model, out, error);
  if (status >= 0) {
    r->sessions[r->n_sessions].name = name;
    r->sessions[r->n_sessions++].handle = *out;
  }
  return status;
}

static void show_inputs(const cJSON *call, const viv__input_list *inputs, const cJSON *params) {
  static const char *const kinds[] = {"", "tensor", "text", "json", "image", "audio"};
  char shape[200];
  printf("  %s: %s\n", text_of(call, "name"), text_of(call, "task"));
  for (int i = 0; i < inputs->n; i++) {
    const viv__input *in = &inputs->items[i];
    if (in->value.kind == VIV_KIND_TENSOR)
      printf("    %-20s tensor %s %s\n", in->name, viv__dtype_name(in->tensor.dtype),
             viv__shape_text(&in->tensor, shape));
    else
      printf("    %-20s %s of %llu bytes\n", in->name, kinds[in->value.kind],
             (unsigned long long)in->value.bytes.len);
  }
  char *text = cJSON_PrintUnformatted(params);
  printf("    params %s\n", text ? text : "");
  cJSON_free(text);
}

static void run_call(struct runner *r, const cJSON *call) {
  viv_error error = VIV_ERROR_INIT;
  viv__input_list inputs = {0};
  struct results got = {.texts = viv__need(cJSON_CreateObject())};
  viv__outcome outcome = {.status = VIV_OK};
  viv_session *session = NULL;
  cJSON *params = params_of(call);
  int32_t status = viv__golden_inputs(r->c, call, &inputs, &error);
  if (status >= 0 && r->o->dry_run) {
    if (!r->o->json) show_inputs(call, &inputs, params);
  } else {
    if (status >= 0) status = session_of(r, call, &session, &error);
    if (status >= 0) {
      const viv_value **values = viv__inputs_values(&inputs);
      status = viv__job_run(r->model, text_of(call, "task"), params, values, inputs.n, session,
                            on_event, &got, &outcome);
      viv__free(values);
      error = outcome.error;
    }
    if (status >= 0) compare_call(r, call, &inputs, &got);
  }
  if (status < 0) {
    viv__golden_row *row = viv__golden_add(r->c, text_of(call, "name"), "(job)");
    row->max_err = INFINITY;
    viv__golden_fail(r->c, row, "%s: %s%s%s%s", viv_status_name(status), error.message,
                     *error.where ? " (" : "", error.where, *error.where ? ")" : "");
  }
  viv__outcome_free(&outcome);
  viv__tensors_free(&got.tensors);
  cJSON_Delete(got.texts);
  cJSON_Delete(params);
  viv__inputs_free(&inputs);
}

static bool open_model(struct runner *r) {
  viv_error error = VIV_ERROR_INIT;
  /* Goldens are results of float weights: what a file holds in blocks is expanded, and other forms
   * are only held against them when they were asked for. */
  cJSON *params = r->o->load ? cJSON_Duplicate(r->o->load, 1) : cJSON_CreateObject();
  viv__need(params);
  if (!cJSON_GetObjectItemCaseSensitive(params, "weights"))
    cJSON_AddStringToObject(params, "weights", "f32");
  char *load = viv__need(cJSON_PrintUnformatted(params));
  cJSON_Delete(params);
  int32_t status = viv__open_runtime(&r->rt, &error);
  if (status >= 0) status = viv_load(r->rt, r->c->model, load, &r->model, &error);
  cJSON_free(load);
  if (status < 0)
    viv__golden_refuse(r->c, VIV__GOLDEN_FAILED, "%s%s%s%s%s",
                       status == VIV_NEVER ? "no plugin: " : "", error.message,
                       *error.where ? " (" : "", error.where, *error.where ? ")" : "");
  return status >= 0;
}

static viv_model *opened(void *context) {
  struct runner *r = context;
  return r->model || open_model(r) ? r->model : NULL;
}

static void run_calls(struct runner *r) {
  const cJSON *call;
  cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(r->c->meta, "calls")) {
    const char *task = text_of(call, "task");
    if (!strcmp(task, "op") && !r->o->dry_run) continue;
    if (r->o->only && !viv__glob(r->o->only, viv__str(text_of(call, "name")))) continue;
    if (viv__interrupted()) break;
    run_call(r, call);
  }
}

void viv__golden_run(viv__golden_case *c, const viv__golden_options *o) {
  struct runner r = {.c = c, .o = o};
  const cJSON *call;
  cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(c->meta, "calls")) c->n_ops +=
      !strcmp(text_of(call, "task"), "op");
  bool calls = viv__golden_has_calls(c);
  if (o->dry_run) {
    run_calls(&r);
    return;
  }
  if (!calls && !c->list) {
    viv__golden_refuse(c, VIV__GOLDEN_SKIPPED,
                       c->n_ops ? "operations: golden_ops runs them" : "the case has no calls");
    return;
  }
  if (calls && open_model(&r)) run_calls(&r);
  if (c->list && c->state != VIV__GOLDEN_FAILED) {
    bool judged = viv__golden_templates(c) || viv__golden_samplings(c) || viv__golden_grammars(c) ||
                  viv__golden_strategies(c, opened, &r) || viv__golden_segments(c, opened, &r) ||
                  viv__golden_texts(c);
    if (!judged && !calls)
      viv__golden_refuse(c, VIV__GOLDEN_SKIPPED, "%s: cases not judged by this runner",
                         text_of(c->meta, "cases"));
    else if (!judged)
      c->note = viv__textf("%s: cases not judged by this runner", text_of(c->meta, "cases"));
  }
  for (int i = 0; i < r.n_sessions; i++) viv_session_close(r.sessions[i].handle);
  if (r.model) viv_unload(r.model);
  if (r.rt) viv_close(r.rt);
  if (c->state == VIV__GOLDEN_OK && !c->n_rows && !o->only)
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "nothing was compared");
}
