/* What an unpickled dict holds beside tensors, as JSON: a release's configuration, names of classes. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "checkpoint/unpickle.h"

enum { MAX_VALUES = 1 << 16, MAX_TEXT = 1 << 20, MAX_DEPTH = 8 };

struct budget {
  int64_t values, text;
};

/* cJSON's texts end with a NUL, so that one inside would cut them. */
static char *text_of(viv_str s, struct budget *b) {
  if ((b->text -= (int64_t)s.len) < 0) return NULL;
  if (s.len && (memchr(s.ptr, 0, s.len) || !viv__utf8_valid(s.ptr, s.len))) return NULL;
  return viv__strndup(s.ptr, s.len);
}

static char *key_of(const viv__pk *k, struct budget *b) {
  char number[24];
  if (k->kind == VIV__PK_STR) return text_of(k->as.text, b);
  if (k->kind != VIV__PK_INT) return NULL;
  snprintf(number, sizeof number, "%" PRId64, k->as.integer);
  return viv__strdup(number);
}

static cJSON *json_of(const viv__pk *v, int depth, struct budget *b);

static cJSON *list_of(const viv__pk *v, int depth, struct budget *b) {
  cJSON *list = cJSON_CreateArray();
  for (uint32_t i = 0; list && i < v->as.list.count; i++) {
    cJSON *item = json_of(v->as.list.items[i], depth, b);
    if (item && cJSON_AddItemToArray(list, item)) continue;
    cJSON_Delete(item);
    cJSON_Delete(list);
    list = NULL;
  }
  return list;
}

static bool add_member(cJSON *to, const viv__pk *key, const viv__pk *value, int depth,
                       struct budget *b) {
  char *name = key_of(key, b);
  cJSON *item = name ? json_of(value, depth, b) : NULL;
  bool done = item && cJSON_AddItemToObject(to, name, item);
  if (!done) cJSON_Delete(item);
  viv__free(name);
  return done;
}

static cJSON *json_of(const viv__pk *v, int depth, struct budget *b) {
  if (depth > MAX_DEPTH || --b->values < 0) return NULL;
  switch (v->kind) {
  case VIV__PK_NONE:
    return cJSON_CreateNull();
  case VIV__PK_BOOL:
    return cJSON_CreateBool(v->as.integer != 0);
  case VIV__PK_INT:
    return cJSON_CreateNumber((double)v->as.integer);
  case VIV__PK_FLOAT:
    return isfinite(v->as.real) ? cJSON_CreateNumber(v->as.real) : NULL;
  case VIV__PK_STR: {
    char *text = text_of(v->as.text, b);
    cJSON *item = text ? cJSON_CreateString(text) : NULL;
    viv__free(text);
    return item;
  }
  case VIV__PK_LIST:
  case VIV__PK_TUPLE:
    return list_of(v, depth + 1, b);
  case VIV__PK_DICT: {
    cJSON *object = cJSON_CreateObject();
    for (uint32_t i = 0; object && i + 1 < v->as.list.count; i += 2) {
      if (add_member(object, v->as.list.items[i], v->as.list.items[i + 1], depth + 1, b)) continue;
      cJSON_Delete(object);
      object = NULL;
    }
    return object;
  }
  default:
    return NULL;
  }
}

viv_json *viv__pk_values(const viv__pk *dict) {
  struct budget b = {.values = MAX_VALUES, .text = MAX_TEXT};
  cJSON *all = dict->kind == VIV__PK_DICT ? cJSON_CreateObject() : NULL;
  for (uint32_t i = 0; all && i + 1 < dict->as.list.count; i += 2) {
    struct budget left = b;
    if (add_member(all, dict->as.list.items[i], dict->as.list.items[i + 1], 1, &left)) b = left;
  }
  if (all && all->child) return (viv_json *)all;
  cJSON_Delete(all);
  return NULL;
}
