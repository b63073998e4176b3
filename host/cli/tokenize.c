/* viv tokenize: a text as ids, tokens and their places, or ids as a text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/core.h"

/* A token on one line: control characters are spelled. */
static void print_token(const viv__encoded *t) {
  char place[32] = "";
  if (t->sequence >= 0) snprintf(place, sizeof place, "%u-%u", t->start, t->end);
  printf("%7d  %-13s \"", t->id, place);
  for (size_t i = 0; i < t->text.len; i++) {
    unsigned char ch = (unsigned char)t->text.ptr[i];
    if (ch == '\n')
      printf("\\n");
    else if (ch == '\t')
      printf("\\t");
    else if (ch < 0x20 || ch == 0x7f)
      printf("\\x%02x", ch);
    else
      putchar(ch);
  }
  printf("\"%s\n", t->special ? "  (special)" : "");
}

static cJSON *as_json(const viv__encoding *e) {
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON *ids = cJSON_AddArrayToObject(doc, "ids"), *tokens = cJSON_AddArrayToObject(doc, "tokens"),
        *offsets = cJSON_AddArrayToObject(doc, "offsets"),
        *special = cJSON_AddArrayToObject(doc, "special_tokens_mask");
  for (size_t i = 0; i < e->n; i++) {
    const viv__encoded *t = &e->token[i];
    cJSON *place = cJSON_CreateArray();
    cJSON_AddItemToArray(place, cJSON_CreateNumber(t->start));
    cJSON_AddItemToArray(place, cJSON_CreateNumber(t->end));
    cJSON_AddItemToArray(ids, cJSON_CreateNumber(t->id));
    cJSON_AddItemToArray(tokens, cJSON_CreateString(t->text.ptr));
    cJSON_AddItemToArray(offsets, place);
    cJSON_AddItemToArray(special, cJSON_CreateNumber(t->special));
  }
  return doc;
}

static int32_t encode(viv_model *model, const char *text, size_t len, bool special, bool bytes,
                      bool json, viv_error *error) {
  int32_t *ids = NULL;
  uint64_t n = 0;
  if (!model->tokenizer) return viv_tokenize(model, text, len, special, &ids, &n, error);
  viv__encode_options options = {
      .add_special = special, .parse_special = true, .code_points = !bytes};
  viv__text_pair one = {.text = {text, len}};
  viv__encodings made = {0};
  int32_t status = viv__tokenizer_encode_batch(model->tokenizer, &one, 1, &options, &made, error);
  if (status < 0) return status;
  for (size_t i = 0; i < made.item[0].n && !json; i++) print_token(&made.item[0].token[i]);
  if (json) viv__print_json(as_json(&made.item[0]));
  viv__encodings_free(&made);
  return VIV_OK;
}

static int32_t decode(viv_model *model, const char *text, bool json, viv_error *error) {
  size_t cap = strlen(text) / 2 + 1;
  int32_t *ids = viv__need(viv__calloc(cap, sizeof *ids));
  uint64_t n = 0;
  int32_t status = VIV_OK;
  for (const char *p = text + strspn(text, " ,[]\t\r\n"); *p && status >= 0;) {
    char *end = NULL;
    errno = 0;
    long id = strtol(p, &end, 10);
    if (end == p || errno || id < 0 || id > INT32_MAX)
      status =
          VIV_FAIL(error, VIV_BAD_INPUT, p, "--decode wants token ids, apart by spaces or commas");
    else
      ids[n++] = (int32_t)id;
    p = end + strspn(end, " ,[]\t\r\n");
  }
  viv_text out = {0};
  if (status >= 0) status = viv_detokenize(model, ids, n, 0, &out, error);
  if (status >= 0 && json) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(doc, "text", out.ptr ? out.ptr : "");
    viv__print_json(doc);
  } else if (status >= 0) {
    puts(out.ptr ? out.ptr : "");
  }
  viv_text_free(&out);
  viv__free(ids);
  return status;
}

int viv__cmd_tokenize(int argc, char **argv) {
  bool json = false, ids = false, plain = false, bytes = false;
  const viv__opt options[] = {
      {"decode", 'd', VIV__OPT_FLAG, NULL, &ids, "TEXT is ids, apart by spaces or commas", NULL},
      {"no-special", 0, VIV__OPT_FLAG, NULL, &plain, "without the tokens that open a text", NULL},
      {"bytes", 'b', VIV__OPT_FLAG, NULL, &bytes, "places count bytes, not characters", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "one JSON object", NULL},
      {0}};
  const viv__usage usage = {
      "viv tokenize sambay-reasoner \"What is 12 + 30?\"\n"
      "viv tokenize --decode sambay-reasoner 403,407,261",
      "tokenize [options] MODEL [TEXT]",
      "Prints the ids of TEXT (or of standard input), the characters from and to which\n"
      "each reaches, and the token as the vocabulary spells it."};
  const char *args[2] = {NULL, NULL};
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 2, args, &n);
  if (code >= 0) return code;
  viv_error error = VIV_ERROR_INIT;
  viv__loaded l;
  size_t len = 0;
  if (!args[1] && isatty(STDIN_FILENO))
    return viv__usage_error(argv[0], "no text: give it as an argument or through a pipe");
  char *text =
      args[1] && strcmp(args[1], "-") ? viv__need(viv__strdup(args[1])) : viv__read_stdin(&len);
  if (!len) len = strlen(text);
  viv__local = true; /* places in the text come from the tokenizer itself */
  int32_t status = viv__load_model(args[0], NULL, &l, &error);
  if (status >= 0)
    status = ids ? decode(l.model, text, json, &error)
                 : encode(l.model, text, len, !plain, bytes, json, &error);
  code = status < 0 ? viv__report(json, args[0], status, &error) : VIV__EXIT_OK;
  viv__unload_model(&l);
  viv__free(text);
  return code;
}
