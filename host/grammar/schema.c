/* Reading a JSON Schema: which keywords there are, of what form, and what they ask together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/schema.h"

enum { MAX_STEPS = 200000, MAX_MULTIPLE = 1000 };

void viv__schema_fail(struct viv__schema *s, int32_t code, const char *where, const char *format,
                      ...) {
  char text[256];
  va_list args;
  if (s->status < 0) return;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  s->status = VIV_FAIL(s->error, code, where, "%s", text);
}

const viv__nodes *viv__nodes_push(struct viv__schema *s, const viv__nodes *list,
                                  const viv_json *node) {
  viv__nodes *n = viv__arena_alloc(s->arena, sizeof *n);
  if (!n) {
    viv__schema_fail(s, VIV_NOT_NOW, "schema", "no memory");
    return list;
  }
  *n = (viv__nodes){node, list};
  return n;
}

static bool is_schema(const viv_json *node) {
  int32_t type = viv__json_type(node);
  return type == VIV_JSON_OBJECT || type == VIV_JSON_BOOL;
}

/* ---- single keywords: each checks its form and narrows the spec ---- */

static uint32_t kind_named(viv_str name) {
  static const struct {
    const char *name;
    uint32_t kind;
  } all[] = {{"null", VIV__K_NULL},    {"boolean", VIV__K_BOOL},
             {"integer", VIV__K_INT},  {"number", VIV__K_INT | VIV__K_REAL},
             {"string", VIV__K_TEXT},  {"array", VIV__K_ARRAY},
             {"object", VIV__K_OBJECT}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (viv__str_eq(name, all[i].name)) return all[i].kind;
  return 0;
}

static void on_type(struct viv__schema *s, viv__spec *spec, const viv_json *v) {
  uint32_t kinds = 0, one = 1;
  int64_t n = viv__json_type(v) == VIV_JSON_ARRAY ? viv__json_count(v) : 1;
  for (int64_t i = 0; i < n && one; i++) {
    const viv_json *item = viv__json_type(v) == VIV_JSON_ARRAY ? viv__json_item(v, i) : v;
    one = viv__json_type(item) == VIV_JSON_STRING ? kind_named(viv__json_string(item)) : 0;
    kinds |= one;
  }
  if (!one || !n)
    viv__schema_fail(s, VIV_BAD_INPUT, "type", "must be a type's name or a list of them");
  spec->kinds &= kinds;
}

static void on_list_of_schemas(struct viv__schema *s, const char *key, const viv_json *v) {
  bool ok = viv__json_type(v) == VIV_JSON_ARRAY && viv__json_count(v) > 0;
  for (int64_t i = 0; ok && i < viv__json_count(v); i++) ok = is_schema(viv__json_item(v, i));
  if (!ok) viv__schema_fail(s, VIV_BAD_INPUT, key, "must be a list of at least one schema");
}

static void on_required(struct viv__schema *s, const viv_json *v) {
  bool ok = viv__json_type(v) == VIV_JSON_ARRAY;
  for (int64_t i = 0; ok && i < viv__json_count(v); i++) {
    viv_str name = viv__json_string(viv__json_item(v, i));
    ok = viv__json_type(viv__json_item(v, i)) == VIV_JSON_STRING;
    for (int64_t k = 0; ok && k < i; k++)
      ok = !viv__same(name, viv__json_string(viv__json_item(v, k)));
  }
  if (!ok) viv__schema_fail(s, VIV_BAD_INPUT, "required", "must be a list of different names");
}

static void on_properties(struct viv__schema *s, const char *key, const viv_json *v) {
  if (viv__json_type(v) != VIV_JSON_OBJECT)
    viv__schema_fail(s, VIV_BAD_INPUT, key, "must be an object of schemas");
  for (int64_t i = 0; s->status >= 0 && i < viv__json_count(v); i++)
    if (!is_schema(viv__json_item(v, i)))
      viv__schema_fail(s, VIV_BAD_INPUT, key, "\"%.*s\" is no schema",
                       (int)viv__json_key(viv__json_item(v, i)).len,
                       viv__json_key(viv__json_item(v, i)).ptr);
}

static int64_t on_count(struct viv__schema *s, const char *key, const viv_json *v) {
  double d = viv__json_number(v);
  if (viv__json_type(v) != VIV_JSON_NUMBER || !(d >= 0) || d != floor(d))
    viv__schema_fail(s, VIV_BAD_INPUT, key, "must be a whole number from 0");
  return d > 1e9 ? 1000000000 : (int64_t)d;
}

static void on_bound(struct viv__schema *s, viv__spec *spec, const char *key, const viv_json *v,
                     bool low, bool strict) {
  double d = viv__json_number(v);
  if (viv__json_type(v) != VIV_JSON_NUMBER || !isfinite(d))
    viv__schema_fail(s, VIV_BAD_INPUT, key, "must be a number");
  if (low && (d > spec->low || (d == spec->low && strict))) {
    spec->low = d;
    spec->low_strict = strict;
  }
  if (!low && (d < spec->high || (d == spec->high && strict))) {
    spec->high = d;
    spec->high_strict = strict;
  }
}

static void on_multiple(struct viv__schema *s, viv__spec *spec, const viv_json *v) {
  double d = viv__json_number(v);
  if (viv__json_type(v) != VIV_JSON_NUMBER || !(d > 0))
    viv__schema_fail(s, VIV_BAD_INPUT, "multipleOf", "must be a number above 0");
  else if (d != floor(d) || d > MAX_MULTIPLE || (spec->multiple && spec->multiple != (int32_t)d))
    viv__schema_fail(s, VIV_NEVER, "multipleOf", "is offered for one whole number up to %d",
                     MAX_MULTIPLE);
  else
    spec->multiple = (int32_t)d;
}

/* ---- references ---- */

static const viv_json *follow(struct viv__schema *s, const viv_json *v) {
  viv_str path = viv__json_string(v);
  const viv_json *at = s->root;
  if (viv__json_type(v) != VIV_JSON_STRING) {
    viv__schema_fail(s, VIV_BAD_INPUT, "$ref", "must be a text");
    return NULL;
  }
  if (!path.len || *path.ptr != '#' || (path.len > 1 && path.ptr[1] != '/')) {
    viv__schema_fail(s, VIV_NEVER, "$ref", "\"%.*s\": only places in the schema itself (#/...)",
                     (int)path.len, path.ptr);
    return NULL;
  }
  const char *p = path.ptr + 1, *end = path.ptr + path.len;
  while (at && p < end) {
    viv__buf part = {0};
    for (p++; p < end && *p != '/'; p++) {
      char c = *p;
      if (c == '~' && p + 1 < end) c = *++p == '1' ? '/' : '~';
      viv__buf_add(&part, &c, 1);
    }
    viv_str key = {part.ptr ? part.ptr : "", part.len};
    if (viv__json_type(at) == VIV_JSON_ARRAY) {
      char *stop = NULL;
      viv__buf_add(&part, "", 1);
      long i = part.ptr ? strtol(part.ptr, &stop, 10) : -1;
      at = part.len > 1 && stop && !*stop && i >= 0 ? viv__json_item(at, i) : NULL;
    } else {
      at = viv__json_member(at, key);
    }
    viv__buf_free(&part);
  }
  if (!at || !is_schema(at))
    viv__schema_fail(s, VIV_BAD_INPUT, "$ref", "\"%.*s\" names no schema", (int)path.len, path.ptr);
  return at;
}

/* ---- a whole schema ---- */

static bool among(viv_str key, const char *const *list) {
  for (; *list; list++)
    if (viv__str_eq(key, *list)) return true;
  return false;
}

static void narrow(struct viv__schema *s, viv__spec *spec, viv_str key, const viv_json *v) {
  static const char *const notes[] = {
      "title", "description", "default",  "examples",  "$schema",    "$id", "$comment",
      "$defs", "definitions", "readOnly", "writeOnly", "deprecated", NULL};
  if (among(key, notes)) return;
  if (viv__str_eq(key, "type")) {
    on_type(s, spec, v);
  } else if (viv__str_eq(key, "enum")) {
    if (viv__json_type(v) != VIV_JSON_ARRAY)
      viv__schema_fail(s, VIV_BAD_INPUT, "enum", "must be a list of values");
    spec->enums = viv__nodes_push(s, spec->enums, v);
  } else if (viv__str_eq(key, "const")) {
    spec->consts = viv__nodes_push(s, spec->consts, v);
  } else if (viv__str_eq(key, "properties")) {
    on_properties(s, "properties", v);
  } else if (viv__str_eq(key, "required")) {
    on_required(s, v);
  } else if (viv__str_eq(key, "additionalProperties") || viv__str_eq(key, "items")) {
    if (!is_schema(v))
      viv__schema_fail(s, VIV_BAD_INPUT, *key.ptr == 'i' ? "items" : "additionalProperties",
                       "must be a schema");
  } else if (viv__str_eq(key, "prefixItems")) {
    on_list_of_schemas(s, "prefixItems", v);
  } else if (viv__str_eq(key, "anyOf") || viv__str_eq(key, "oneOf")) {
    on_list_of_schemas(s, *key.ptr == 'a' ? "anyOf" : "oneOf", v);
    spec->groups = viv__nodes_push(s, spec->groups, v);
  } else if (viv__str_eq(key, "allOf")) {
    on_list_of_schemas(s, "allOf", v);
    for (int64_t i = 0; s->status >= 0 && i < viv__json_count(v); i++)
      viv__schema_collect(s, spec, viv__json_item(v, i));
  } else if (viv__str_eq(key, "$ref")) {
    const viv_json *to = follow(s, v);
    if (s->status >= 0) viv__schema_collect(s, spec, to);
  } else if (viv__str_eq(key, "minimum") || viv__str_eq(key, "exclusiveMinimum")) {
    on_bound(s, spec, *key.ptr == 'e' ? "exclusiveMinimum" : "minimum", v, true, *key.ptr == 'e');
  } else if (viv__str_eq(key, "maximum") || viv__str_eq(key, "exclusiveMaximum")) {
    on_bound(s, spec, *key.ptr == 'e' ? "exclusiveMaximum" : "maximum", v, false, *key.ptr == 'e');
  } else if (viv__str_eq(key, "multipleOf")) {
    on_multiple(s, spec, v);
  } else if (viv__str_eq(key, "minLength") || viv__str_eq(key, "minItems")) {
    int64_t n = on_count(s, key.ptr[3] == 'L' ? "minLength" : "minItems", v);
    int64_t *to = key.ptr[3] == 'L' ? &spec->min_length : &spec->min_items;
    if (n > *to) *to = n;
  } else if (viv__str_eq(key, "maxLength") || viv__str_eq(key, "maxItems")) {
    int64_t n = on_count(s, key.ptr[3] == 'L' ? "maxLength" : "maxItems", v);
    int64_t *to = key.ptr[3] == 'L' ? &spec->max_length : &spec->max_items;
    if (*to < 0 || n < *to) *to = n;
  } else if (viv__str_eq(key, "pattern") || viv__str_eq(key, "format")) {
    const viv_json **to = *key.ptr == 'p' ? &spec->pattern : &spec->format;
    const char *name = *key.ptr == 'p' ? "pattern" : "format";
    if (viv__json_type(v) != VIV_JSON_STRING)
      viv__schema_fail(s, VIV_BAD_INPUT, name, "must be a text");
    else if (*to && !viv__schema_equal(*to, v))
      viv__schema_fail(s, VIV_NEVER, name, "two of them for one value can't be obeyed together");
    *to = v;
  } else if (viv__str_eq(key, "uniqueItems") && viv__json_type(v) == VIV_JSON_BOOL &&
             !viv__json_boolean(v)) {
    return;
  } else {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)key.len, key.ptr);
    viv__schema_fail(s, VIV_NEVER, name, "the keyword is not offered, and is not ignored");
  }
}

void viv__schema_collect(struct viv__schema *s, viv__spec *spec, const viv_json *node) {
  static const char *const of_objects[] = {"properties", "required", "additionalProperties", NULL};
  static const char *const of_arrays[] = {"items", "prefixItems", NULL};
  bool object = false, array = false;
  if (viv__json_type(node) == VIV_JSON_BOOL && !viv__json_boolean(node)) spec->kinds = 0;
  if (viv__json_type(node) != VIV_JSON_OBJECT) {
    if (viv__json_type(node) != VIV_JSON_BOOL)
      viv__schema_fail(s, VIV_BAD_INPUT, "schema", "must be an object or a truth value");
    return;
  }
  if (++s->depth > VIV__MAX_DEPTH || ++s->steps > MAX_STEPS)
    viv__schema_fail(s, VIV_BAD_INPUT, "schema",
                     s->steps > MAX_STEPS ? "its alternatives explode"
                                          : "refers to itself without end");
  for (int64_t i = 0; s->status >= 0 && i < viv__json_count(node); i++) {
    const viv_json *v = viv__json_item(node, i);
    viv_str key = viv__json_key(v);
    object |= among(key, of_objects);
    array |= among(key, of_arrays);
    narrow(s, spec, key, v);
  }
  if (object) spec->objects = viv__nodes_push(s, spec->objects, node);
  if (array) spec->arrays = viv__nodes_push(s, spec->arrays, node);
  s->depth--;
}

int32_t viv__grammar_schema(viv_str json, viv__grammar **out, viv_error *error) {
  viv_json *root = NULL;
  struct viv__schema s = {.any = -1, .text = -1, .character = -1, .error = error};
  *out = NULL;
  int32_t status = viv__json_parse(json.ptr, json.len, "schema", &root, error);
  if (status < 0) return status;
  s.root = root;
  s.g = viv__grammar_new();
  s.arena = viv__arena_new(256 << 20);
  if (!s.g || !s.arena) viv__schema_fail(&s, VIV_NOT_NOW, "schema", "no memory");
  if (s.status >= 0) s.g->root = viv__schema_rule(&s, viv__nodes_push(&s, NULL, root));
  if (s.status >= 0) s.status = viv__grammar_finish(s.g, "schema", error);
  if (s.arena) viv__arena_free(s.arena);
  viv__json_free(root);
  if (s.status < 0)
    viv__grammar_free(s.g);
  else
    *out = s.g;
  return s.status;
}
