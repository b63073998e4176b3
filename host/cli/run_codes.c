/* viv run of a token model over codes of sound: a file of codes is the prompt, a file of codes the
 * answer, so that viv encode, viv run and viv decode stand in a row. */
#include <string.h>

#include "cli/codec.h"
#include "cli/run.h"
#include "media/code_tokens.h"

enum { MAX_TOKENS = 1024 };

struct talk {
  viv__code_tokens tokens;
  viv__buf codes; /* of the prompt */
  int64_t *ids;   /* the prompt as tokens */
  int64_t n_ids, n_new;
  int32_t *answer; /* codes of the prompt, then the new ones */
  int64_t n_answer;
};

static const viv_json *declared(const viv__loaded *l) {
  return (const viv_json *)cJSON_GetObjectItemCaseSensitive(l->about, "audio_tokens");
}

bool viv__codes_asked(const viv__loaded *l, const char *const *args, int n, const char *out) {
  if (!declared(l) || n > 1) return false;
  return n ? viv__codes_kind(args[0]) != 0 : out && viv__codes_kind(out) != 0;
}

static void on_event(void *context, const viv_event *e) {
  struct talk *t = context;
  if (e->kind != VIV_KIND_TENSOR || !viv__str_eq(e->name, "ids") || e->tensor->dtype != VIV_I64)
    return;
  int64_t n = (int64_t)(e->tensor->bytes / sizeof(int64_t));
  int32_t *codes = viv__need(viv__calloc((size_t)n + 1, sizeof *codes));
  t->n_new = viv__code_tokens_to(&t->tokens, e->tensor->data, n, codes);
  t->answer =
      viv__need(viv__realloc(t->answer, (size_t)(t->n_answer + t->n_new + 1) * sizeof *t->answer));
  memcpy(t->answer + t->n_answer, codes, (size_t)t->n_new * sizeof *codes);
  t->n_answer += t->n_new;
  viv__free(codes);
}

/* The prompt's tokens, and its codes as the answer's beginning. */
static int32_t read_prompt(struct talk *t, const char *file, viv_error *error) {
  viv__vtok_header h = t->tokens.header;
  int64_t samples = 0, n;
  if (file) {
    int32_t status = viv__codes_load(file, &h, &t->codes, &samples, error);
    if (status < 0) return status;
  }
  n = (int64_t)(t->codes.len / sizeof(int32_t));
  t->ids = viv__need(viv__calloc((size_t)n + 2, sizeof *t->ids));
  t->answer = viv__need(viv__calloc((size_t)n + 1, sizeof *t->answer));
  n = viv__code_tokens_from(&t->tokens, &h, file ? file : "codes",
                            (const int32_t *)(const void *)t->codes.ptr, n, t->ids, error);
  if (n < 0) return (int32_t)n;
  if (!n)
    return VIV_FAIL(error, VIV_BAD_INPUT, "codes",
                    "the model names no token that begins a stream: it needs codes to go on from");
  t->n_ids = n;
  int64_t begin = t->tokens.begin >= 0;
  t->n_answer = viv__code_tokens_to(&t->tokens, t->ids + begin, n - begin, t->answer);
  return VIV_OK;
}

/* Each token is one of the code book whose turn it is; the end may come before the first of them. */
static void constrain(const viv__code_tokens *t, cJSON *params) {
  const viv__vtok_header *h = &t->header;
  cJSON *cycle = viv__need(cJSON_CreateArray());
  for (int32_t i = 0; i < viv__vtok_width(h); i++) {
    cJSON *range = viv__need(cJSON_CreateArray());
    cJSON_AddItemToArray(range, cJSON_CreateNumber(viv__code_tokens_base(t, i)));
    cJSON_AddItemToArray(range, cJSON_CreateNumber(h->size));
    cJSON_AddItemToArray(cycle, range);
  }
  cJSON_AddItemToObject(params, "token_cycle", cycle);
  if (t->end >= 0)
    cJSON_AddNumberToObject(params, "eos_token_id", t->end);
  else
    cJSON_AddTrueToObject(params, "ignore_eos");
}

static void report(const struct talk *t, const char *out, bool json) {
  const viv__vtok_header *h = &t->tokens.header;
  int32_t width = viv__vtok_width(h);
  double unit = (double)h->hop * h->group / h->rate;
  if (json) {
    cJSON *doc = viv__need(cJSON_CreateObject()), *list = viv__need(cJSON_CreateArray());
    if (out) cJSON_AddStringToObject(doc, "file", out);
    cJSON_AddStringToObject(doc, "codec", h->codec);
    cJSON_AddNumberToObject(doc, "seconds", (double)(t->n_answer / width) * unit);
    cJSON_AddNumberToObject(doc, "new_seconds", (double)(t->n_new / width) * unit);
    for (int64_t i = t->n_answer - t->n_new; !out && i < t->n_answer; i++)
      cJSON_AddItemToArray(list, cJSON_CreateNumber(t->answer[i]));
    if (out)
      cJSON_Delete(list);
    else
      cJSON_AddItemToObject(doc, "codes", list);
    viv__print_json(doc);
    return;
  }
  for (int64_t i = t->n_answer - t->n_new, k = 0; !out && i < t->n_answer; i++, k++)
    printf("%d%c", (int)t->answer[i], (k + 1) % width ? ' ' : '\n');
  fprintf(stderr, "%s%s%.2f s of new codes of %s%s\n", out ? out : "", out ? ": " : "",
          (double)(t->n_new / width) * unit, h->codec,
          t->n_new ? "" : " (the model ended at once)");
}

int viv__run_codes(const viv__loaded *l, const char *file, const char *out, bool json,
                   cJSON *params) {
  struct talk t = {0};
  viv_error error = VIV_ERROR_INIT;
  viv__outcome outcome = {0};
  const viv_json *about = (const viv_json *)l->about;
  int32_t status =
      viv__code_tokens_read(declared(l), (int32_t)viv__json_num(about, "vocab_size", 0),
                            "config.json", &t.tokens, &error);
  if (status >= 0 && out && !viv__codes_kind(out))
    status = VIV_FAIL(&error, VIV_BAD_INPUT, out, "codes are written as .vtok, .json or .npy");
  if (status >= 0) status = read_prompt(&t, file, &error);
  if (status >= 0) {
    viv_tensor tensor = {.struct_size = sizeof tensor,
                         .dtype = VIV_I64,
                         .ndim = 2,
                         .shape = {1, t.n_ids},
                         .data = t.ids,
                         .bytes = (uint64_t)t.n_ids * sizeof *t.ids};
    viv_value value = viv__value_tensor("input_ids", &tensor);
    const viv_value *values[] = {&value};
    constrain(&t.tokens, params);
    viv__sampling_defaults(params, MAX_TOKENS);
    status = viv__job_run(l->model, "generate", params, values, 1, NULL, on_event, &t, &outcome);
    if (status < 0) error = outcome.error;
  }
  if (status >= 0 && out) {
    const viv__vtok_header *h = &t.tokens.header;
    int64_t units = t.n_answer / viv__vtok_width(h);
    status = viv__codes_save(out, h, t.answer, t.n_answer, units * h->group * h->hop, &error);
  }
  if (status >= 0) report(&t, out, json);
  int code = status == VIV_CANCELLED ? VIV__EXIT_CANCELLED
             : status < 0            ? viv__report(json, file ? file : l->path, status, &error)
                                     : VIV__EXIT_OK;
  viv__outcome_free(&outcome);
  viv__buf_free(&t.codes);
  viv__free(t.ids);
  viv__free(t.answer);
  return code;
}
