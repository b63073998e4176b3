/* The one JSON reader: cJSON behind the checks that untrusted text needs. */
#include "base/base.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

/* cJSON recurses per level, so the depth is checked before it runs. Answers the offset of the first
 * bracket that is too deep, or -1. */
static long too_deep(const char *text, size_t len) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < len; i++) {
    char ch = text[i];
    if (quoted) {
      if (ch == '\\')
        i++;
      else if (ch == '"')
        quoted = false;
    } else if (ch == '"') {
      quoted = true;
    } else if (ch == '{' || ch == '[') {
      if (++depth > MAX_DEPTH) return (long)i;
    } else if (ch == '}' || ch == ']') {
      depth--;
    }
  }
  return -1;
}

int32_t viv__json_parse(const char *text, size_t len, const char *name, viv_json **out,
                        viv_error *error) {
  long deep = too_deep(text, len);
  if (deep >= 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "JSON nests deeper than %d levels at byte %ld",
                    MAX_DEPTH, deep);
  /* cJSON takes a NUL byte for the end of the text. */
  const char *nul = len ? memchr(text, 0, len) : NULL;
  if (nul)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "JSON holds a NUL byte at byte %ld",
                    (long)(nul - text));
  const char *end = text;
  errno = 0;
  cJSON *doc = cJSON_ParseWithLengthOpts(text, len, &end, 0);
  /* cJSON says the same of bad text and of no memory; malloc does not. */
  if (!doc && errno == ENOMEM)
    return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory for %zu bytes of JSON", len);
  if (!doc)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "not valid JSON near byte %ld of %zu",
                    (long)(end ? end - text : 0), len);
  while (end < text + len && strchr(" \t\r\n", *end)) end++;
  if (end != text + len) {
    cJSON_Delete(doc);
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "text follows the JSON value at byte %ld",
                    (long)(end - text));
  }
  *out = (viv_json *)doc;
  return VIV_OK;
}

void viv__json_free(viv_json *document) {
  cJSON_Delete((cJSON *)document);
}

const viv_json *viv__json_member(const viv_json *node, viv_str key) {
  const cJSON *n = (const cJSON *)node, *child;
  if (!cJSON_IsObject(n)) return NULL;
  cJSON_ArrayForEach(child, n) {
    if (child->string && strlen(child->string) == key.len &&
        (!key.len || !memcmp(child->string, key.ptr, key.len)))
      return (const viv_json *)child;
  }
  return NULL;
}

const viv_json *viv__json_get(const viv_json *node, const char *key) {
  return viv__json_member(node, viv__str(key));
}

const viv_json *viv__json_item(const viv_json *node, int64_t index) {
  const cJSON *n = (const cJSON *)node;
  if ((!cJSON_IsArray(n) && !cJSON_IsObject(n)) || index < 0 || index > INT32_MAX) return NULL;
  const cJSON *child = n->child;
  while (child && index--) child = child->next;
  return (const viv_json *)child;
}

int32_t viv__json_type(const viv_json *node) {
  const cJSON *n = (const cJSON *)node;
  if (!n) return VIV_JSON_ABSENT;
  if (cJSON_IsNull(n)) return VIV_JSON_NULL;
  if (cJSON_IsBool(n)) return VIV_JSON_BOOL;
  if (cJSON_IsNumber(n)) return VIV_JSON_NUMBER;
  if (cJSON_IsString(n)) return VIV_JSON_STRING;
  if (cJSON_IsArray(n)) return VIV_JSON_ARRAY;
  return VIV_JSON_OBJECT;
}

int64_t viv__json_count(const viv_json *node) {
  const cJSON *n = (const cJSON *)node;
  int64_t count = 0;
  if (!cJSON_IsArray(n) && !cJSON_IsObject(n)) return 0;
  for (const cJSON *child = n->child; child; child = child->next) count++;
  return count;
}

double viv__json_number(const viv_json *node) {
  return cJSON_IsNumber((const cJSON *)node) ? ((const cJSON *)node)->valuedouble : 0;
}

int32_t viv__json_boolean(const viv_json *node) {
  return cJSON_IsTrue((const cJSON *)node) ? 1 : 0;
}

viv_str viv__json_string(const viv_json *node) {
  const cJSON *n = (const cJSON *)node;
  return cJSON_IsString(n) ? viv__str(n->valuestring) : (viv_str){NULL, 0};
}

viv_str viv__json_key(const viv_json *node) {
  return node ? viv__str(((const cJSON *)node)->string) : (viv_str){NULL, 0};
}

double viv__json_num(const viv_json *node, const char *key, double fallback) {
  const viv_json *n = viv__json_get(node, key);
  return viv__json_type(n) == VIV_JSON_NUMBER ? viv__json_number(n) : fallback;
}

bool viv__json_bool(const viv_json *node, const char *key, bool fallback) {
  const viv_json *n = viv__json_get(node, key);
  return viv__json_type(n) == VIV_JSON_BOOL ? viv__json_boolean(n) != 0 : fallback;
}

const char *viv__json_text(const viv_json *node, const char *key, const char *fallback) {
  const cJSON *n = (const cJSON *)viv__json_get(node, key);
  return cJSON_IsString(n) ? n->valuestring : fallback;
}
