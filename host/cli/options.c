/* Options of the verbs: one table per verb gives parsing and help. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void help(const viv__usage *usage, const viv__opt *options) {
  printf("Example:\n");
  for (const char *line = usage->example; *line;) {
    size_t len = strcspn(line, "\n");
    printf("  %.*s\n", (int)len, line);
    line += len + (line[len] == '\n');
  }
  printf("\nUsage: viv %s\n\n%s\n\nOptions:\n", usage->synopsis, usage->about);
  for (const viv__opt *o = options; o->name; o++) {
    char left[64];
    char letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
             o->arg ? o->arg : "");
    printf("  %-28s %s\n", left, o->help);
  }
  printf("  %-28s %s\n", "-h, --help", "this text");
  printf("\nExit codes: 0 done, 1 failed, 2 usage, 3 not found or refused, 4 not now, 5 bad input, "
         "130 cancelled.\n");
}

static const viv__opt *by_name(const viv__opt *options, const char *name, size_t len) {
  for (const viv__opt *o = options; o->name; o++)
    if (strlen(o->name) == len && !memcmp(o->name, name, len)) return o;
  return NULL;
}

static const viv__opt *by_letter(const viv__opt *options, char letter) {
  for (const viv__opt *o = options; o->name; o++)
    if (o->letter == letter) return o;
  return NULL;
}

static void set_member(cJSON *object, const char *key, cJSON *value) {
  cJSON_DeleteItemFromObjectCaseSensitive(object, key);
  if (!cJSON_AddItemToObject(object, key, viv__need(value))) viv__need(NULL);
}

/* A value from the command line: JSON where it reads as JSON, otherwise the text itself. */
static cJSON *json_or_text(const char *text) {
  viv_json *json = NULL;
  if (viv__json_parse(text, strlen(text), "option", &json, NULL) == VIV_OK) return (cJSON *)json;
  return viv__need(cJSON_CreateString(text));
}

static bool number(const char *text, double *out) {
  char *end = NULL;
  errno = 0;
  *out = strtod(text, &end);
  return end != text && !*end && !errno && isfinite(*out);
}

static int store_file(const char *verb, const viv__opt *o, const char *path) {
  enum { LIMIT = 16 << 20 };
  viv_error error = VIV_ERROR_INIT;
  char *text = NULL;
  size_t len = 0;
  if (viv__read_file(path, LIMIT, &text, &len, &error) < 0)
    return viv__usage_error(verb, "--%s: %s: %s", o->name, path, error.message);
  set_member(o->target, o->key, cJSON_CreateString(text));
  viv__free(text);
  return -1;
}

/* Stores one option; answers -1, or an exit code after a message. */
static int store(const char *verb, const viv__opt *o, const char *arg) {
  double x = 0;
  const char *equals = NULL;
  char *key = NULL;
  viv__list *list = o->target;
  switch (o->kind) {
  case VIV__OPT_FLAG:
    *(bool *)o->target = true;
    return -1;
  case VIV__OPT_TRUE:
    set_member(o->target, o->key, cJSON_CreateTrue());
    return -1;
  case VIV__OPT_TEXT:
    *(const char **)o->target = arg;
    return -1;
  case VIV__OPT_FILE:
    return store_file(verb, o, arg);
  case VIV__OPT_SET:
    set_member(o->target, o->key, cJSON_CreateString(arg));
    return -1;
  case VIV__OPT_INT:
    if (!number(arg, &x) || x < 0 || x > 1e15 || x != floor(x))
      return viv__usage_error(verb, "--%s: \"%s\" is no whole number", o->name, arg);
    *(int64_t *)o->target = (int64_t)x;
    return -1;
  case VIV__OPT_NUMBER:
    if (!number(arg, &x)) return viv__usage_error(verb, "--%s: \"%s\" is no number", o->name, arg);
    set_member(o->target, o->key, cJSON_CreateNumber(x));
    return -1;
  case VIV__OPT_LIST:
    if (list->n == (int)(sizeof list->items / sizeof *list->items))
      return viv__usage_error(verb, "--%s was given too often", o->name);
    list->items[list->n++] = arg;
    return -1;
  default:
    equals = strchr(arg, '=');
    if (!equals || equals == arg)
      return viv__usage_error(verb, "--%s: \"%s\" is not KEY=VALUE", o->name, arg);
    key = viv__need(viv__strndup(arg, (size_t)(equals - arg)));
    set_member(o->target, key, json_or_text(equals + 1));
    viv__free(key);
    return -1;
  }
}

/* --name, --name=value, --name value. */
static int long_option(const viv__opt *options, int argc, char **argv, int *i) {
  const char *name = argv[*i] + 2;
  size_t len = strcspn(name, "=");
  const viv__opt *o = by_name(options, name, len);
  if (!o) return viv__usage_error(argv[0], "there is no option --%.*s", (int)len, name);
  if (!o->arg) {
    if (name[len]) return viv__usage_error(argv[0], "--%s takes no value", o->name);
    return store(argv[0], o, NULL);
  }
  if (name[len]) return store(argv[0], o, name + len + 1);
  if (*i + 1 >= argc) return viv__usage_error(argv[0], "--%s needs a value (%s)", o->name, o->arg);
  return store(argv[0], o, argv[++*i]);
}

/* -v, -vn 3, -n3, -n 3. */
static int short_options(const viv__opt *options, int argc, char **argv, int *i) {
  const char *at = argv[*i] + 1;
  for (; *at; at++) {
    const viv__opt *o = by_letter(options, *at);
    if (!o) return viv__usage_error(argv[0], "there is no option -%c", *at);
    if (o->arg) {
      if (at[1]) return store(argv[0], o, at + 1);
      if (*i + 1 >= argc) return viv__usage_error(argv[0], "-%c needs a value (%s)", *at, o->arg);
      return store(argv[0], o, argv[++*i]);
    }
    int code = store(argv[0], o, NULL);
    if (code >= 0) return code;
  }
  return -1;
}

int viv__options(const viv__usage *usage, const viv__opt *options, int argc, char **argv, int min,
                 int max, const char **positional, int *n) {
  bool ended = false;
  *n = 0;
  for (int i = 1; i < argc; i++) {
    const char *arg = argv[i];
    int code = -1;
    if (!ended && !strcmp(arg, "--")) {
      ended = true;
    } else if (!ended && (!strcmp(arg, "--help") || !strcmp(arg, "-h"))) {
      help(usage, options);
      return viv__finish_output(VIV__EXIT_OK);
    } else if (!ended && !strncmp(arg, "--", 2)) {
      code = long_option(options, argc, argv, &i);
    } else if (!ended && arg[0] == '-' && arg[1]) {
      code = short_options(options, argc, argv, &i);
    } else if (*n >= max) {
      code = viv__usage_error(argv[0], "\"%s\" is one argument too many (usage: viv %s)", arg,
                              usage->synopsis);
    } else {
      positional[(*n)++] = arg;
    }
    if (code >= 0) return code;
  }
  if (*n < min)
    return viv__usage_error(argv[0], "something is missing (usage: viv %s)", usage->synopsis);
  return -1;
}

void viv__sampling_defaults(cJSON *params, int max_tokens) {
  static const char *const keys[] = {"temperature", "top_k", "top_p", "min_p"};
  const cJSON *temperature = cJSON_GetObjectItemCaseSensitive(params, "temperature");
  bool sample = false;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (cJSON_GetObjectItemCaseSensitive(params, keys[i])) sample = true;
  if (temperature && temperature->valuedouble == 0) {
    cJSON_DeleteItemFromObjectCaseSensitive(params, "temperature");
    sample = false;
  }
  if (sample && !cJSON_GetObjectItemCaseSensitive(params, "strategy") &&
      !cJSON_GetObjectItemCaseSensitive(params, "do_sample"))
    set_member(params, "do_sample", cJSON_CreateTrue());
  if (!cJSON_GetObjectItemCaseSensitive(params, "max_new_tokens"))
    set_member(params, "max_new_tokens", cJSON_CreateNumber(max_tokens));
}
