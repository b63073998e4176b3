/* viv tokenize: a text as ids and pieces, or ids as a text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* A piece on one line: control characters are spelled. */
static void print_piece(int32_t id, const char *piece) {
  printf("%7d  \"", id);
  for (const char *p = piece; *p; p++) {
    if (*p == '\n')
      printf("\\n");
    else if (*p == '\t')
      printf("\\t");
    else if (*p == '\r')
      printf("\\r");
    else
      putchar(*p);
  }
  printf("\"\n");
}

static int32_t encode(viv_model *model, const char *text, size_t len, bool special, bool json,
                      viv_error *error) {
  int32_t *ids = NULL;
  uint64_t n = 0;
  int32_t status = viv_tokenize(model, text, len, special, &ids, &n, error);
  if (status < 0) return status;
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON *list = cJSON_AddArrayToObject(doc, "ids"), *pieces = cJSON_AddArrayToObject(doc, "pieces");
  for (uint64_t i = 0; i < n; i++) {
    viv_text piece = {0};
    viv_detokenize(model, &ids[i], 1, 0, &piece, NULL);
    const char *shown = piece.ptr ? piece.ptr : "";
    if (json) {
      cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
      cJSON_AddItemToArray(pieces, cJSON_CreateString(shown));
    } else {
      print_piece(ids[i], shown);
    }
    viv_text_free(&piece);
  }
  if (json)
    viv__print_json(doc);
  else
    cJSON_Delete(doc);
  viv_ids_free(ids);
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
  bool json = false, ids = false, plain = false;
  const viv__opt options[] = {
      {"decode", 'd', VIV__OPT_FLAG, NULL, &ids, "TEXT is ids, apart by spaces or commas", NULL},
      {"no-special", 0, VIV__OPT_FLAG, NULL, &plain, "without the tokens that open a text", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "one JSON object", NULL},
      {0}};
  const viv__usage usage = {"viv tokenize sambay-reasoner \"What is 12 + 30?\"\n"
                            "viv tokenize --decode sambay-reasoner 403,407,261",
                            "tokenize [options] MODEL [TEXT]",
                            "Prints the ids and pieces of TEXT (or of standard input)."};
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
  int32_t status = viv__load_model(args[0], NULL, &l, &error);
  if (status >= 0)
    status = ids ? decode(l.model, text, json, &error)
                 : encode(l.model, text, len, !plain, json, &error);
  code = status < 0 ? viv__report(json, args[0], status, &error) : VIV__EXIT_OK;
  viv__unload_model(&l);
  viv__free(text);
  return code;
}
