/* Single values of a schema: constants, texts, numbers, and anything at all. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/schema.h"

enum { MAX_LENGTH = 20000 };

uint32_t viv__schema_kind(const viv_json *v) {
  double d;
  switch (viv__json_type(v)) {
  case VIV_JSON_NULL:
    return VIV__K_NULL;
  case VIV_JSON_BOOL:
    return VIV__K_BOOL;
  case VIV_JSON_NUMBER:
    d = viv__json_number(v);
    return d == floor(d) ? VIV__K_INT : VIV__K_REAL;
  case VIV_JSON_STRING:
    return VIV__K_TEXT;
  case VIV_JSON_ARRAY:
    return VIV__K_ARRAY;
  case VIV_JSON_OBJECT:
    return VIV__K_OBJECT;
  default:
    return 0;
  }
}

bool viv__schema_equal(const viv_json *a, const viv_json *b) {
  viv__buf x = {0}, y = {0};
  viv__schema_value_text(&x, a);
  viv__schema_value_text(&y, b);
  bool same = !x.failed && !y.failed && x.len == y.len && !memcmp(x.ptr, y.ptr, x.len);
  viv__buf_free(&x);
  viv__buf_free(&y);
  return same;
}

/* The shortest decimal text that reads back as d, without exponent. */
static void decimal_text(char out[400], double d) {
  char text[40];
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*e", digits - 1, d);
    if (strtod(text, NULL) == d) break;
  }
  char *e = strchr(text, 'e');
  int exponent = e ? atoi(e + 1) : 0, digits = 0, n = 0;
  char mantissa[24];
  for (const char *p = text; p < e; p++)
    if (*p >= '0' && *p <= '9') mantissa[digits++] = *p;
  while (digits > 1 && mantissa[digits - 1] == '0') digits--;
  if (d < 0) out[n++] = '-';
  if (exponent < 0) {
    out[n++] = '0';
    out[n++] = '.';
    for (int i = -1; i > exponent; i--) out[n++] = '0';
    for (int i = 0; i < digits; i++) out[n++] = mantissa[i];
  } else {
    for (int i = 0; i < digits || i <= exponent; i++) {
      if (i == exponent + 1) out[n++] = '.';
      out[n++] = i < digits ? mantissa[i] : '0';
    }
  }
  out[n] = 0;
}

/* ---- constants ---- */

void viv__schema_value_text(viv__buf *out, const viv_json *v) {
  char number[400];
  int32_t type = viv__json_type(v);
  switch (type) {
  case VIV_JSON_BOOL:
    viv__buf_str(out, viv__json_boolean(v) ? "true" : "false");
    break;
  case VIV_JSON_NUMBER:
    decimal_text(number, viv__json_number(v));
    viv__buf_str(out, number);
    break;
  case VIV_JSON_STRING:
    viv__buf_str(out, "\"");
    viv__net_json_text(out, viv__json_string(v));
    viv__buf_str(out, "\"");
    break;
  case VIV_JSON_ARRAY:
  case VIV_JSON_OBJECT:
    viv__buf_str(out, type == VIV_JSON_ARRAY ? "[" : "{");
    for (int64_t i = 0; i < viv__json_count(v); i++) {
      const viv_json *item = viv__json_item(v, i);
      if (i) viv__buf_str(out, ", ");
      if (type == VIV_JSON_OBJECT) {
        viv__buf_str(out, "\"");
        viv__net_json_text(out, viv__json_key(item));
        viv__buf_str(out, "\": ");
      }
      viv__schema_value_text(out, item);
    }
    viv__buf_str(out, type == VIV_JSON_ARRAY ? "]" : "}");
    break;
  default:
    viv__buf_str(out, "null");
    break;
  }
}

/* The constant's text, where the spaces outside of its texts may be absent. */
viv__net viv__schema_value(struct viv__schema *s, const viv_json *value) {
  viv__buf text = {0};
  viv__net p = viv__net_empty(s->g);
  bool quoted = false;
  viv__schema_value_text(&text, value);
  if (text.failed) s->g->failed = true;
  for (size_t i = 0; !text.failed && i < text.len; i++) {
    viv__net one = viv__net_bytes(s->g, (viv_str){text.ptr + i, 1});
    if (text.ptr[i] == ' ' && !quoted) one = viv__net_or(s->g, one, viv__net_empty(s->g));
    if (text.ptr[i] == '"') quoted = !quoted;
    if (text.ptr[i] == '\\' && i + 1 < text.len)
      one = viv__net_then(s->g, one, viv__net_bytes(s->g, (viv_str){text.ptr + ++i, 1}));
    p = viv__net_then(s->g, p, one);
  }
  viv__buf_free(&text);
  return p;
}

/* ---- texts ---- */

static int32_t character(struct viv__schema *s) {
  if (s->character < 0) {
    viv__charset all = {0};
    viv__charset_add(&all, 0, 0x10ffff);
    s->character = viv__grammar_wrap(s->g, viv__net_chars(s->g, &all, true));
    if (s->character < s->g->n_rules) s->g->rules[s->character].plain = true;
    viv__charset_free(&all);
  }
  return s->character;
}

static viv__net quoted(struct viv__schema *s, viv__net inner) {
  viv__net a = viv__net_then(s->g, viv__net_bytes(s->g, viv__str("\"")), inner);
  return viv__net_then(s->g, a, viv__net_bytes(s->g, viv__str("\"")));
}

#define YEAR "(?:\\d{3}[1-9]|\\d{2}[1-9]\\d|\\d[1-9]\\d{2}|[1-9]\\d{3})"
#define LEAP "(?:\\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                       \
  "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)" \
  "|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
  "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define BYTE "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"

static const char *format_regex(viv_str name) {
  static const struct {
    const char *name, *regex;
  } all[] = {{"date", "^" DATE "$"},
             {"time", "^" TIME "$"},
             {"date-time", "^" DATE "T" TIME "$"},
             {"uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
             {"ipv4", "^" BYTE "(?:\\." BYTE "){3}$"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (viv__str_eq(name, all[i].name)) return all[i].regex;
  return NULL;
}

viv__net viv__schema_text(struct viv__schema *s, const viv__spec *spec) {
  bool counted = spec->min_length > 0 || spec->max_length >= 0;
  viv__net p = viv__net_never(s->g);
  viv_str regex = viv__json_string(spec->pattern), name = viv__json_string(spec->format);
  if (spec->format) {
    const char *known = format_regex(name);
    regex = viv__str(known);
    if (!known) {
      viv__schema_fail(s, VIV_NEVER, "format", "\"%.*s\" is not offered", (int)name.len, name.ptr);
      return p;
    }
  }
  if ((spec->pattern != NULL) + (spec->format != NULL) + counted > 1) {
    viv__schema_fail(s, VIV_NEVER, spec->pattern ? "pattern" : "format",
                     "is not offered together with %s",
                     counted ? "minLength or maxLength" : "format");
    return p;
  }
  if (spec->pattern || spec->format) {
    int32_t status =
        viv__net_regex(s->g, regex, spec->pattern ? "pattern" : "format", &p, s->error);
    if (status < 0 && s->status >= 0) s->status = status;
    return status < 0 ? p : quoted(s, p);
  }
  if (counted) {
    if (spec->max_length >= 0 && spec->min_length > spec->max_length) return p;
    if (spec->min_length > MAX_LENGTH || spec->max_length > MAX_LENGTH) {
      viv__schema_fail(s, VIV_NEVER, spec->min_length > MAX_LENGTH ? "minLength" : "maxLength",
                       "more than %d is not offered", MAX_LENGTH);
      return p;
    }
    return quoted(s, viv__net_repeat(s->g, character(s), (int32_t)spec->min_length,
                                     (int32_t)spec->max_length));
  }
  if (s->text < 0)
    s->text = viv__grammar_wrap(s->g, quoted(s, viv__net_repeat(s->g, character(s), 0, -1)));
  return viv__net_rule(s->g, s->text);
}

/* The names make a tree of bytes; a name leaves it before the end of each, or goes on behind it. */
static viv__net names_from(struct viv__schema *s, const viv_str *names, int64_t n, size_t at) {
  viv__grammar *g = s->g;
  viv__net p = viv__net_never(g);
  bool ends = false;
  for (int64_t i = 0; i < n; i++) ends |= names[i].len == at;
  if (!ends) viv__grammar_edge(g, VIV__EDGE_EMPTY, p.from, p.to, 0, 0, 0);
  viv_str *deeper = viv__malloc((size_t)(n + 1) * sizeof *deeper);
  if (!deeper) {
    g->failed = true;
    return p;
  }
  /* Characters that no name has here go on freely. A name's bytes are whole characters, and so is
   * what branches off: by code point. */
  viv__charset other = {0};
  for (int64_t i = 0; i < n; i++) {
    int32_t code = 0;
    if (names[i].len == at) continue;
    int len = viv__utf8_read(names[i].ptr + at, names[i].ptr + names[i].len, &code);
    if (!len) continue;
    viv__charset_add(&other, code, code);
    bool first = true;
    for (int64_t k = 0; k < i; k++)
      first &= names[k].len < at + (size_t)len ||
               memcmp(names[k].ptr + at, names[i].ptr + at, (size_t)len);
    if (!first) continue;
    int64_t m = 0;
    for (int64_t k = i; k < n; k++)
      if (names[k].len >= at + (size_t)len &&
          !memcmp(names[k].ptr + at, names[i].ptr + at, (size_t)len))
        deeper[m++] = names[k];
    viv__charset one = {0};
    viv__charset_add(&one, code, code);
    viv__net branch =
        viv__net_then(g, viv__net_chars(g, &one, true), names_from(s, deeper, m, at + (size_t)len));
    viv__charset_free(&one);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, p.from, branch.from, 0, 0, 0);
    viv__grammar_edge(g, VIV__EDGE_EMPTY, branch.to, p.to, 0, 0, 0);
  }
  viv__charset_negate(&other);
  viv__net free_from =
      viv__net_then(g, viv__net_chars(g, &other, true), viv__net_repeat(g, character(s), 0, -1));
  viv__grammar_edge(g, VIV__EDGE_EMPTY, p.from, free_from.from, 0, 0, 0);
  viv__grammar_edge(g, VIV__EDGE_EMPTY, free_from.to, p.to, 0, 0, 0);
  viv__charset_free(&other);
  viv__free(deeper);
  return p;
}

viv__net viv__schema_other_name(struct viv__schema *s, const viv__nodes *names) {
  int64_t n = 0;
  for (const viv__nodes *k = names; k; k = k->next) n++;
  viv_str *list = viv__malloc((size_t)(n + 1) * sizeof *list);
  if (!list) {
    s->g->failed = true;
    return viv__net_never(s->g);
  }
  n = 0;
  /* A property is named by its key, a required name by its text. */
  for (const viv__nodes *k = names; k; k = k->next)
    list[n++] = viv__json_key(k->node).ptr ? viv__json_key(k->node) : viv__json_string(k->node);
  viv__net p = quoted(s, names_from(s, list, n, 0));
  viv__free(list);
  return p;
}

/* ---- numbers ---- */

viv__net viv__schema_number(struct viv__schema *s, const viv__spec *spec) {
  char low[400], high[400];
  viv__bounds b = {.low_strict = spec->low_strict,
                   .high_strict = spec->high_strict,
                   .integer = !(spec->kinds & VIV__K_REAL) || spec->multiple,
                   .multiple = spec->multiple};
  if (isfinite(spec->low)) {
    decimal_text(low, spec->low);
    b.low = low;
  }
  if (isfinite(spec->high)) {
    decimal_text(high, spec->high);
    b.high = high;
  }
  if (spec->low > spec->high) return viv__net_never(s->g);
  return viv__net_number(s->g, &b);
}

/* ---- anything ---- */

int32_t viv__schema_any(struct viv__schema *s) {
  static const viv__spec all = {
      .kinds = VIV__K_ANY, .low = -INFINITY, .high = INFINITY, .max_length = -1, .max_items = -1};
  if (s->any < 0) {
    s->any = viv__grammar_rule(s->g);
    viv__grammar_define(s->g, s->any, viv__schema_piece(s, &all));
  }
  return s->any;
}
