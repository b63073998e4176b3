/* From what a schema asks to the texts that give it. */
#include <math.h>
#include <string.h>

#include "grammar/schema.h"

enum { MAX_ITEMS = 20000 };

static viv__net text(struct viv__schema *s, const char *bytes) {
  return viv__net_bytes(s->g, viv__str(bytes));
}

static viv__net spaced(struct viv__schema *s, const char *mark) { /* one space may follow */
  viv__net space = viv__net_or(s->g, text(s, " "), viv__net_empty(s->g));
  return viv__net_then(s->g, text(s, mark), space);
}

/* ---- rules of several schemas ---- */

static bool same_nodes(const viv__nodes *a, const viv__nodes *b) {
  for (; a && b && a->node == b->node; a = a->next) b = b->next;
  return !a && !b;
}

int32_t viv__schema_rule(struct viv__schema *s, const viv__nodes *nodes) {
  viv__spec spec = {
      .kinds = VIV__K_ANY, .low = -INFINITY, .high = INFINITY, .max_length = -1, .max_items = -1};
  if (!nodes) return viv__schema_any(s);
  for (const viv__memo *m = s->memo; m; m = m->next)
    if (same_nodes(m->nodes, nodes)) return m->rule;
  viv__memo *m = viv__arena_alloc(s->arena, sizeof *m);
  if (!m) {
    viv__schema_fail(s, VIV_NOT_NOW, "schema", "no memory");
    return 0;
  }
  *m = (viv__memo){nodes, viv__grammar_rule(s->g), s->memo};
  s->memo = m;
  if (++s->depth > VIV__MAX_DEPTH)
    viv__schema_fail(s, VIV_BAD_INPUT, "schema", "is more than %d deep", VIV__MAX_DEPTH);
  for (; nodes && s->status >= 0; nodes = nodes->next) viv__schema_collect(s, &spec, nodes->node);
  if (s->status >= 0) viv__grammar_define(s->g, m->rule, viv__schema_piece(s, &spec));
  s->depth--;
  return m->rule;
}

/* ---- members ---- */

/* What the schemas say about the member of that name; *forbidden when one forbids it. */
static const viv__nodes *member_schemas(struct viv__schema *s, const viv__spec *spec, viv_str name,
                                        bool named) {
  const viv__nodes *out = NULL;
  for (const viv__nodes *o = spec->objects; o; o = o->next) {
    const viv_json *properties = viv__json_get(o->node, "properties"),
                   *own = named ? viv__json_member(properties, name) : NULL;
    if (!own) own = viv__json_get(o->node, "additionalProperties");
    if (own && viv__json_type(own) != VIV_JSON_ABSENT) out = viv__nodes_push(s, out, own);
  }
  return out;
}

static viv_str name_of(const viv_json *node) {
  viv_str key = viv__json_key(node);
  return key.ptr ? key : viv__json_string(node);
}

static bool listed(const viv__nodes *list, viv_str name) {
  for (; list; list = list->next)
    if (viv__same(name_of(list->node), name)) return true;
  return false;
}

static bool required(const viv__spec *spec, viv_str name) {
  for (const viv__nodes *o = spec->objects; o; o = o->next) {
    const viv_json *list = viv__json_get(o->node, "required");
    for (int64_t i = 0; i < viv__json_count(list); i++)
      if (viv__same(viv__json_string(viv__json_item(list, i)), name)) return true;
  }
  return false;
}

/* Names in order: all properties, then what is only required. The list is pushed at its front, so
 * everything is walked backwards. objects itself has the last schema first. */
static const viv__nodes *member_names(struct viv__schema *s, const viv__spec *spec) {
  const viv__nodes *names = NULL, *backwards = NULL, *sources = NULL;
  for (const viv__nodes *o = spec->objects; o; o = o->next)
    sources = viv__nodes_push(s, sources, o->node);
  for (int pass = 0; pass < 2; pass++)
    for (const viv__nodes *o = sources; o; o = o->next) {
      const viv_json *list = viv__json_get(o->node, pass ? "required" : "properties");
      for (int64_t i = 0; i < viv__json_count(list); i++)
        if (!listed(names, name_of(viv__json_item(list, i))))
          names = viv__nodes_push(s, names, viv__json_item(list, i));
    }
  for (; names; names = names->next) backwards = viv__nodes_push(s, backwards, names->node);
  return backwards;
}

static bool extras_allowed(const viv__spec *spec, bool any_names) {
  bool explicit = false;
  for (const viv__nodes *o = spec->objects; o; o = o->next)
    explicit |= viv__json_type(viv__json_get(o->node, "additionalProperties")) != VIV_JSON_ABSENT;
  return explicit || !any_names;
}

static viv__net object_piece(struct viv__schema *s, const viv__spec *spec) {
  viv__grammar *g = s->g;
  const viv__nodes *names = member_names(s, spec);
  viv__net open = text(s, "{"), close = text(s, "}");
  /* Two rows of states: nothing written yet, and something. */
  int32_t none = open.to, some = viv__grammar_state(g);
  for (const viv__nodes *n = names; n && s->status >= 0; n = n->next) {
    viv_str name = name_of(n->node);
    int32_t next_none = viv__grammar_state(g), next_some = viv__grammar_state(g);
    viv__buf key = {0};
    viv__buf_str(&key, "\"");
    viv__net_json_text(&key, name);
    viv__buf_str(&key, "\":");
    if (key.failed) g->failed = true;
    viv__net member = viv__net_bytes(g, (viv_str){key.ptr, key.failed ? 0 : key.len});
    viv__buf_free(&key);
    member = viv__net_then(g, member, viv__net_or(g, text(s, " "), viv__net_empty(g)));
    member = viv__net_then(
        g, member, viv__net_rule(g, viv__schema_rule(s, member_schemas(s, spec, name, true))));
    viv__net comma = spaced(s, ",");
    viv__grammar_edge(g, VIV__EDGE_EMPTY, none, member.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, some, comma.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, comma.to, member.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, member.to, next_some, 0, 0, 0);
    if (!required(spec, name)) {
      viv__grammar_edge(g, VIV__EDGE_EMPTY, none, next_none, 0, 0, 0);
      viv__grammar_edge(g, VIV__EDGE_EMPTY, some, next_some, 0, 0, 0);
    }
    none = next_none;
    some = next_some;
  }
  if (extras_allowed(spec, names != NULL)) {
    viv__net member = viv__net_then(g, viv__schema_other_name(s, names), spaced(s, ":"));
    member = viv__net_then(
        g, member,
        viv__net_rule(g, viv__schema_rule(s, member_schemas(s, spec, viv__str(""), false))));
    viv__net comma = spaced(s, ",");
    int32_t after = viv__grammar_state(g);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, none, member.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, some, comma.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, after, comma.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, comma.to, member.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, member.to, after, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, after, close.from, 0, 0, 0);
  }
  viv__grammar_edge(g, VIV__EDGE_EMPTY, none, close.from, 0, 0, 0);
  viv__grammar_edge(g, VIV__EDGE_EMPTY, some, close.from, 0, 0, 0);
  return (viv__net){open.from, close.to};
}

/* ---- items ---- */

static const viv__nodes *item_schemas(struct viv__schema *s, const viv__spec *spec, int64_t at) {
  const viv__nodes *out = NULL;
  for (const viv__nodes *a = spec->arrays; a; a = a->next) {
    const viv_json *prefix = viv__json_get(a->node, "prefixItems"),
                   *own = at < viv__json_count(prefix) ? viv__json_item(prefix, at)
                                                       : viv__json_get(a->node, "items");
    if (own && viv__json_type(own) != VIV_JSON_ABSENT) out = viv__nodes_push(s, out, own);
  }
  return out;
}

static viv__net array_piece(struct viv__schema *s, const viv__spec *spec) {
  viv__grammar *g = s->g;
  int64_t named = 0;
  for (const viv__nodes *a = spec->arrays; a; a = a->next) {
    int64_t n = viv__json_count(viv__json_get(a->node, "prefixItems"));
    if (n > named) named = n;
  }
  if (named > MAX_ITEMS || spec->max_items > MAX_ITEMS || spec->min_items > MAX_ITEMS) {
    viv__schema_fail(s, VIV_NEVER, spec->min_items > MAX_ITEMS ? "minItems" : "maxItems",
                     "more than %d is not offered", MAX_ITEMS);
    return viv__net_never(g);
  }
  viv__net open = text(s, "["), close = text(s, "]");
  int32_t at = open.to, rest = viv__schema_rule(s, item_schemas(s, spec, named));
  if (!spec->min_items) viv__grammar_edge(g, VIV__EDGE_EMPTY, at, close.from, 0, 0, 0);
  /* The items that are listed, one at least, and then the others as often as may be. */
  int64_t listed = named > 1 ? named : 1, n = 0;
  if (spec->max_items >= 0 && listed > spec->max_items) listed = spec->max_items;
  for (; n < listed && s->status >= 0 && !g->too_large; n++) {
    viv__net item =
        viv__net_rule(g, n < named ? viv__schema_rule(s, item_schemas(s, spec, n)) : rest);
    if (n) item = viv__net_then(g, spaced(s, ","), item);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, at, item.from, 0, 0, 0);
    at = item.to;
    if (n + 1 >= spec->min_items) viv__grammar_edge(g, VIV__EDGE_EMPTY, at, close.from, 0, 0, 0);
  }
  if (n && (spec->max_items < 0 || n < spec->max_items)) {
    int64_t low = spec->min_items > n ? spec->min_items - n : 0,
            high = spec->max_items < 0 ? -1 : spec->max_items - n;
    int32_t further =
        viv__grammar_wrap(g, viv__net_then(g, spaced(s, ","), viv__net_rule(g, rest)));
    viv__net more = viv__net_repeat(g, further, (int32_t)low, (int32_t)high);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, at, more.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, more.to, close.from, 0, 0, 0);
  }
  return (viv__net){open.from, close.to};
}

/* ---- constants ---- */

/* Whether the value obeys the spec without its constants: by the same network, made apart. */
static bool obeys(struct viv__schema *s, const viv__spec *spec, const viv_json *value) {
  uint32_t kind = viv__schema_kind(value);
  if (!(spec->kinds & kind)) return false;
  struct viv__schema apart = *s;
  viv__spec rest = *spec;
  rest.enums = rest.consts = NULL;
  apart.memo = NULL;
  apart.any = apart.text = apart.character = -1;
  apart.g = viv__grammar_new();
  viv__buf text = {0};
  bool ok = apart.g != NULL;
  if (ok) {
    apart.g->root = viv__grammar_rule(apart.g);
    viv__grammar_define(apart.g, apart.g->root, viv__schema_piece(&apart, &rest));
    s->status = apart.status;
    s->steps = apart.steps;
    ok = s->status >= 0 && viv__grammar_finish(apart.g, "schema", NULL) >= 0;
  }
  viv__matcher *m = ok ? viv__matcher_new(apart.g, NULL) : NULL;
  viv__schema_value_text(&text, value);
  ok = m && !text.failed && viv__matcher_bytes(m, text.ptr, text.len) && viv__matcher_complete(m);
  viv__matcher_free(m);
  viv__buf_free(&text);
  viv__grammar_free(apart.g);
  return ok;
}

static bool constants_hold(const viv__spec *spec, const viv_json *value) {
  for (const viv__nodes *c = spec->consts; c; c = c->next)
    if (!viv__schema_equal(c->node, value)) return false;
  for (const viv__nodes *e = spec->enums; e; e = e->next) {
    bool in = false;
    for (int64_t i = 0; i < viv__json_count(e->node) && !in; i++)
      in = viv__schema_equal(viv__json_item(e->node, i), value);
    if (!in) return false;
  }
  return true;
}

static bool only_kinds(const viv__spec *spec) {
  return !spec->objects && !spec->arrays && !spec->pattern && !spec->format && !spec->multiple &&
         !spec->min_length && spec->max_length < 0 && !spec->min_items && spec->max_items < 0 &&
         isinf(spec->low) && isinf(spec->high);
}

static viv__net constants_piece(struct viv__schema *s, const viv__spec *spec) {
  viv__net all = viv__net_never(s->g);
  const viv_json *list = spec->consts ? NULL : spec->enums->node;
  int64_t n = list ? viv__json_count(list) : 1;
  for (int64_t i = 0; i < n && s->status >= 0 && !s->g->too_large; i++) {
    const viv_json *value = list ? viv__json_item(list, i) : spec->consts->node;
    bool fits =
        only_kinds(spec) ? (spec->kinds & viv__schema_kind(value)) != 0 : obeys(s, spec, value);
    if (!fits || !constants_hold(spec, value)) continue;
    viv__net one = viv__schema_value(s, value);
    viv__grammar_edge(s->g, VIV__EDGE_EMPTY, all.from, one.from, 0, 0, 0);
    viv__grammar_edge(s->g, VIV__EDGE_EMPTY, one.to, all.to, 0, 0, 0);
  }
  return all;
}

/* ---- alternatives ---- */

/* Whether no value of the one list of constants is in the other. NULL: no list. */
static bool values_differ(const viv_json *a, const viv_json *b) {
  const viv_json *a_const = viv__json_get(a, "const"), *b_const = viv__json_get(b, "const"),
                 *a_enum = viv__json_get(a, "enum"), *b_enum = viv__json_get(b, "enum");
  bool a_one = viv__json_type(a_const) != VIV_JSON_ABSENT,
       b_one = viv__json_type(b_const) != VIV_JSON_ABSENT;
  int64_t n = a_one ? 1 : viv__json_count(a_enum), m = b_one ? 1 : viv__json_count(b_enum);
  if (!n || !m) return false;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < m; k++)
      if (viv__schema_equal(a_one ? a_const : viv__json_item(a_enum, i),
                            b_one ? b_const : viv__json_item(b_enum, k)))
        return false;
  return true;
}

/* Whether two schemas can't hold for one value: other kinds, other constants, or objects whose
 * required member has other constants. */
static bool exclude(struct viv__schema *s, const viv_json *a, const viv_json *b) {
  viv__spec x = {.kinds = VIV__K_ANY,
                 .low = -INFINITY,
                 .high = INFINITY,
                 .max_length = -1,
                 .max_items = -1},
            y = x;
  viv__schema_collect(s, &x, a);
  viv__schema_collect(s, &y, b);
  if (!(x.kinds & y.kinds)) return true;
  if (values_differ(a, b)) return true;
  if ((x.kinds & y.kinds) != VIV__K_OBJECT) return false;
  for (const viv__nodes *o = x.objects; o; o = o->next) {
    const viv_json *properties = viv__json_get(o->node, "properties");
    for (int64_t i = 0; i < viv__json_count(properties); i++) {
      const viv_json *one = viv__json_item(properties, i);
      viv_str name = viv__json_key(one);
      if (!required(&x, name) || !required(&y, name)) continue;
      for (const viv__nodes *p = y.objects; p; p = p->next)
        if (values_differ(one, viv__json_member(viv__json_get(p->node, "properties"), name)))
          return true;
    }
  }
  return false;
}

static viv__net group_piece(struct viv__schema *s, const viv__spec *spec) {
  const viv_json *list = spec->groups->node;
  viv__net all = viv__net_never(s->g);
  int64_t n = viv__json_count(list);
  if (viv__str_eq(viv__json_key(list), "oneOf"))
    for (int64_t i = 0; i < n && s->status >= 0; i++)
      for (int64_t k = 0; k < i && s->status >= 0; k++)
        if (!exclude(s, viv__json_item(list, i), viv__json_item(list, k)) && s->status >= 0)
          viv__schema_fail(s, VIV_NEVER, "oneOf",
                           "entries %lld and %lld may hold for one value; anyOf is offered",
                           (long long)k, (long long)i);
  if (++s->depth > VIV__MAX_DEPTH)
    viv__schema_fail(s, VIV_BAD_INPUT, "schema", "refers to itself without end");
  for (int64_t i = 0; i < n && s->status >= 0 && !s->g->too_large; i++) {
    viv__spec one = *spec;
    one.groups = spec->groups->next;
    viv__schema_collect(s, &one, viv__json_item(list, i));
    if (s->status >= 0) {
      viv__net p = viv__schema_piece(s, &one);
      viv__grammar_edge(s->g, VIV__EDGE_EMPTY, all.from, p.from, 0, 0, 0);
      viv__grammar_edge(s->g, VIV__EDGE_EMPTY, p.to, all.to, 0, 0, 0);
    }
  }
  s->depth--;
  return all;
}

viv__net viv__schema_piece(struct viv__schema *s, const viv__spec *spec) {
  viv__net all = viv__net_never(s->g), one;
  if (s->status < 0 || s->g->failed || s->g->too_large) return all;
  if (spec->groups) return group_piece(s, spec);
  if (spec->consts || spec->enums) return constants_piece(s, spec);
  for (uint32_t kind = 1; kind <= VIV__K_OBJECT && s->status >= 0; kind *= 2) {
    if (!(spec->kinds & kind)) continue;
    if (kind == VIV__K_NULL)
      one = text(s, "null");
    else if (kind == VIV__K_BOOL)
      one = viv__net_or(s->g, text(s, "true"), text(s, "false"));
    else if (kind == VIV__K_INT)
      one = viv__schema_number(s, spec);
    else if (kind == VIV__K_TEXT)
      one = viv__schema_text(s, spec);
    else if (kind == VIV__K_ARRAY)
      one = array_piece(s, spec);
    else if (kind == VIV__K_OBJECT)
      one = object_piece(s, spec);
    else
      continue; /* numbers that are no integers come with the integers */
    viv__grammar_edge(s->g, VIV__EDGE_EMPTY, all.from, one.from, 0, 0, 0);
    viv__grammar_edge(s->g, VIV__EDGE_EMPTY, one.to, all.to, 0, 0, 0);
  }
  return all;
}
