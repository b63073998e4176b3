/* viv score: how likely a model finds a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { TEXT_LIMIT = 64 << 20 };

struct taking {
  viv__score *score;
  int64_t room, got;
  double nll;
};

static void on_event(void *context, const viv_event *event) {
  struct taking *t = context;
  if (event->kind != VIV_KIND_TENSOR) return;
  int64_t n = viv__numel(event->tensor);
  if (viv__str_eq(event->name, "nll")) {
    for (int64_t i = 0; i < n; i++) t->nll += viv__tensor_number(event->tensor, i);
    t->got += n;
  }
  /* The last position's guess has nothing that it could be held against. */
  if (viv__str_eq(event->name, "argmax"))
    for (int64_t i = 0; i + 1 < n && t->score->tokens + i < t->room; i++)
      t->score->argmax[t->score->tokens + i] = (int32_t)viv__tensor_integer(event->tensor, i);
}

static int32_t score_ids(viv_model *model, const int32_t *ids, int64_t n, struct taking *t,
                         viv_error *error) {
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .dtype = VIV_I32,
                       .ndim = 2,
                       .shape = {1, n},
                       .bytes = (uint64_t)n * 4,
                       .data = (void *)(uintptr_t)ids};
  viv_value value = viv__value_tensor("input_ids", &tensor);
  const viv_value *values[1] = {&value};
  viv__outcome outcome;
  int32_t status = viv__job_run(model, "score", NULL, values, 1, NULL, on_event, t, &outcome);
  if (status < 0) *error = outcome.error;
  viv__outcome_free(&outcome);
  t->score->tokens += n - 1;
  return status;
}

/* One text, in windows. */
static int32_t score_one(viv_model *model, viv_str text, int64_t window, struct taking *t,
                         viv_error *error) {
  int32_t *ids = NULL;
  uint64_t n = 0;
  int32_t status = viv_tokenize(model, text.ptr, text.len, 1, &ids, &n, error);
  if (status < 0) return status;
  t->room += (int64_t)n;
  size_t bytes = (size_t)(t->room + 1) * sizeof *t->score->argmax;
  t->score->argmax = viv__need(viv__realloc(t->score->argmax, bytes));
  for (uint64_t at = 0; at + 1 < n && status >= 0; at += (uint64_t)window) {
    uint64_t len = n - at < (uint64_t)window ? n - at : (uint64_t)window;
    if (len > 1) status = score_ids(model, ids + at, (int64_t)len, t, error);
    if (n > (uint64_t)window) viv__progress_show("scoring", (double)at / (double)n);
  }
  viv_ids_free(ids);
  return status;
}

int32_t viv__score_text(viv_model *model, viv_str text, int64_t window, bool lines, viv__score *out,
                        viv_error *error) {
  *out = (viv__score){0};
  struct taking t = {.score = out};
  int32_t status = VIV_OK;
  for (uint64_t at = 0; at < text.len && status >= 0;) {
    const char *end = lines ? memchr(text.ptr + at, '\n', text.len - at) : NULL;
    uint64_t len = end ? (uint64_t)(end - text.ptr) - at : text.len - at;
    if (len) status = score_one(model, (viv_str){text.ptr + at, len}, window, &t, error);
    at += len + 1;
    if (lines) viv__progress_show("scoring", (double)at / (double)text.len);
  }
  viv__progress_clear();
  if (status >= 0 && !t.got)
    status = VIV_FAIL(error, VIV_BAD_INPUT, "text", "a text of two tokens and more can be scored");
  if (status < 0) {
    viv__free(out->argmax);
    *out = (viv__score){0};
    return status;
  }
  out->mean_nll = t.nll / (double)t.got;
  out->perplexity = exp(out->mean_nll);
  return VIV_OK;
}

static void print_score(const viv__score *s, bool json) {
  if (!json) {
    printf("%lld tokens, %.6f nats per token, perplexity %.4f\n", (long long)s->tokens, s->mean_nll,
           s->perplexity);
    return;
  }
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddNumberToObject(doc, "tokens", (double)s->tokens);
  cJSON_AddNumberToObject(doc, "mean_nll", s->mean_nll);
  cJSON_AddNumberToObject(doc, "perplexity", s->perplexity);
  cJSON_AddItemToObject(doc, "argmax", viv__need(cJSON_CreateIntArray(s->argmax, (int)s->tokens)));
  viv__print_json(doc);
}

int viv__cmd_score(int argc, char **argv) {
  bool json = false, lines = false;
  const char *file = NULL;
  int64_t window = VIV__SCORE_WINDOW;
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      {"file", 'f', VIV__OPT_TEXT, "FILE", &file, "the text is FILE's", NULL},
      {"window", 'w', VIV__OPT_INT, "N", &window, "tokens that are scored in one piece (512)",
       NULL},
      {"lines", 'l', VIV__OPT_FLAG, NULL, &lines, "each line is a text of its own", NULL},
      VIV__LOAD_OPTIONS(load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "one JSON object, with the greedy guesses", NULL},
      {0}};
  const viv__usage usage = {
      "viv score sambay-reasoner \"What is 12 + 30?\"\n"
      "viv score model.gguf --file text.txt --dtype int8",
      "score [options] MODEL [TEXT]",
      "Says how likely MODEL finds TEXT (or standard input): the mean of -ln p of each token "
      "given\n"
      "those before it, and its exponential, the perplexity. Long texts are cut into windows."};
  const char *args[2] = {NULL, NULL};
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 2, args, &n);
  if (code < 0 && window < 2) code = viv__usage_error(argv[0], "--window is 2 tokens or more");
  if (code < 0 && !args[1] && !file && isatty(STDIN_FILENO))
    code = viv__usage_error(argv[0], "no text: give it as an argument, a file or through a pipe");
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__loaded l = {0};
    viv__score score = {0};
    char *text = NULL;
    size_t len = 0;
    int32_t status = VIV_OK;
    viv__interrupt_catch();
    if (file)
      status = viv__read_file(file, TEXT_LIMIT, &text, &len, &error);
    else
      text = args[1] ? viv__need(viv__strdup(args[1])) : viv__read_stdin(&len);
    if (args[1]) len = strlen(text);
    if (status >= 0) status = viv__load_model(args[0], load, &l, &error);
    if (status >= 0)
      status = viv__score_text(l.model, (viv_str){text, len}, window, lines, &score, &error);
    if (status >= 0) print_score(&score, json);
    code = status < 0 ? viv__report(json, args[0], status, &error) : VIV__EXIT_OK;
    viv__free(score.argmax);
    viv__free(text);
    viv__unload_model(&l);
  }
  cJSON_Delete(load);
  return code;
}
