/* Values as Python prints them, and json.dumps. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "template/internal.h"

void viv__t_put_int(vm *v, struct text *t, wide i) {
  char digits[48];
  size_t at = sizeof digits;
  unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
  do {
    digits[--at] = (char)('0' + (int)(u % 10));
    u /= 10;
  } while (u);
  if (i < 0) digits[--at] = '-';
  viv__t_put(v, t, digits + at, sizeof digits - at);
}

/* The shortest digits that read back as the same number; an exponent below 1e-4 and from 1e16 on. */
void viv__t_put_float(vm *v, struct text *t, double f) {
  char digits[40];
  if (!isfinite(f)) {
    viv__t_puts(v, t, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    return;
  }
  for (int precision = 0; precision < 17; precision++) {
    snprintf(digits, sizeof digits, "%.*e", precision, f);
    if (strtod(digits, NULL) == f) break;
  }
  char *e = strchr(digits, 'e'), *first = digits + (digits[0] == '-');
  int exponent = atoi(e + 1);
  *e = 0;
  if (exponent < -4 || exponent >= 16) {
    viv__t_putf(v, t, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    return;
  }
  if (first != digits) viv__t_puts(v, t, "-");
  if (first[1] == '.') memmove(first + 1, first + 2, strlen(first + 1));
  int n = (int)strlen(first);
  if (exponent < 0) {
    viv__t_puts(v, t, "0.");
    for (int i = -1; i > exponent; i--) viv__t_puts(v, t, "0");
    viv__t_puts(v, t, first);
    return;
  }
  viv__t_put(v, t, first, (size_t)(n <= exponent ? n : exponent + 1));
  for (int i = n; i <= exponent; i++) viv__t_puts(v, t, "0");
  viv__t_puts(v, t, ".");
  viv__t_puts(v, t, n > exponent + 1 ? first + exponent + 1 : "0");
}

static void repr_str(vm *v, struct text *t, const struct str *s) {
  char quote = memchr(s->ptr, '\'', s->len) && !memchr(s->ptr, '"', s->len) ? '"' : '\'';
  if (s->markup) viv__t_puts(v, t, "Markup(");
  viv__t_put(v, t, &quote, 1);
  for (size_t i = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    if (cp == (uint32_t)quote || cp == '\\')
      viv__t_putf(v, t, "\\%c", (int)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t')
      viv__t_putf(v, t, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else if (viv__t_printable(cp))
      viv__t_put(v, t, s->ptr + i, (size_t)n);
    else
      viv__t_putf(v, t, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    i += (size_t)n;
  }
  viv__t_put(v, t, &quote, 1);
  if (s->markup) viv__t_puts(v, t, ")");
}

static void repr_list(vm *v, struct text *t, value x) {
  viv__t_puts(v, t, x.kind == V_LIST ? "[" : "(");
  for (size_t i = 0; i < x.l->n; i++) {
    if (i) viv__t_puts(v, t, ", ");
    viv__t_repr(v, t, x.l->items[i]);
  }
  if (x.kind == V_TUPLE && x.l->n == 1) viv__t_puts(v, t, ",");
  viv__t_puts(v, t, x.kind == V_LIST ? "]" : ")");
}

static void repr_dict(vm *v, struct text *t, const struct dict *d) {
  viv__t_puts(v, t, "{");
  for (size_t i = 0; i < d->n; i++) {
    if (i) viv__t_puts(v, t, ", ");
    viv__t_repr(v, t, d->at[i].key);
    viv__t_puts(v, t, ": ");
    viv__t_repr(v, t, d->at[i].val);
  }
  viv__t_puts(v, t, "}");
}

static void repr_range(vm *v, struct text *t, const struct range *r) {
  viv__t_putf(v, t, "range(%lld, ", (long long)r->start);
  viv__t_putf(v, t, "%lld", (long long)r->stop);
  if (r->step != 1) viv__t_putf(v, t, ", %lld", (long long)r->step);
  viv__t_puts(v, t, ")");
}

void viv__t_repr(vm *v, struct text *t, value x) {
  viv__t_step(v, 1);
  viv__t_enter(v);
  switch (x.kind) {
  case V_UNDEFINED:
    viv__t_puts(v, t, "Undefined");
    break;
  case V_NONE:
    viv__t_puts(v, t, "None");
    break;
  case V_BOOL:
    viv__t_puts(v, t, x.b ? "True" : "False");
    break;
  case V_INT:
    viv__t_put_int(v, t, x.i);
    break;
  case V_FLOAT:
    viv__t_put_float(v, t, x.f);
    break;
  case V_STR:
    repr_str(v, t, x.s);
    break;
  case V_LIST:
  case V_TUPLE:
    repr_list(v, t, x);
    break;
  case V_DICT:
    repr_dict(v, t, x.d);
    break;
  case V_RANGE:
    repr_range(v, t, x.r);
    break;
  case V_VIEW:
    viv__t_putf(v, t, "%s(", viv__t_type(x));
    repr_list(v, t, viv__t_listed(v, x));
    viv__t_puts(v, t, ")");
    break;
  case V_SPACE:
    viv__t_puts(v, t, "<Namespace ");
    repr_dict(v, t, x.d);
    viv__t_puts(v, t, ">");
    break;
  case V_MACRO:
    viv__t_puts(v, t, "<Macro ");
    repr_str(v, t, x.macro->node->text);
    viv__t_puts(v, t, ">");
    break;
  default:
    /* Python would print an address here, another one each time. */
    viv__t_fail(v, VIV_BAD_INPUT, "a %s can't be printed%s", viv__t_type(x),
                x.kind == V_METHOD ? ": is () missing?"
                : x.kind == V_ITER ? ": `| list` makes a list of it"
                                   : "");
  }
  viv__t_leave(v);
}

void viv__t_print(vm *v, struct text *t, value x) {
  if (x.kind == V_STR)
    viv__t_put_str(v, t, x.s);
  else if (x.kind == V_UNDEFINED && x.u->unsafe)
    return;
  else if (x.kind != V_UNDEFINED)
    viv__t_repr(v, t, x);
}

const struct str *viv__t_tostr(vm *v, value x) {
  if (x.kind == V_STR) return x.s;
  struct text t = {0};
  viv__t_print(v, &t, x);
  return viv__t_text(v, &t).s;
}

const char *viv__t_shown(vm *v, value x) {
  struct text t = {0};
  viv__t_repr(v, &t, x);
  viv__t_put(v, &t, "", 1);
  return t.ptr;
}

/* ---- json.dumps ---- */

static void json_str(vm *v, struct text *t, const struct str *s, bool ascii) {
  viv__t_puts(v, t, "\"");
  for (size_t i = 0; i < s->len;) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    const char *known = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
    if (known)
      viv__t_putf(v, t, "\\%c", to[known - from]);
    else if (cp < 0x20 || (ascii && cp >= 0x7f && cp < 0x10000 && cp != 0x7f))
      viv__t_putf(v, t, "\\u%04x", cp);
    else if (ascii && cp >= 0x10000)
      viv__t_putf(v, t, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                  0xdc00 + ((cp - 0x10000) & 0x3ff));
    else
      viv__t_put(v, t, s->ptr + i, (size_t)n);
    i += (size_t)n;
  }
  viv__t_puts(v, t, "\"");
}

struct dump {
  vm *v;
  struct text *t;
  const struct json_style *style;
  int level;
};

static void new_line(struct dump *d) {
  if (!d->style->indent) return;
  viv__t_puts(d->v, d->t, "\n");
  for (int i = 0; i < d->level; i++) viv__t_put_str(d->v, d->t, d->style->indent);
}

static void dump(struct dump *d, value x);

static void dump_float(struct dump *d, double f) {
  if (isfinite(f))
    viv__t_put_float(d->v, d->t, f);
  else
    viv__t_puts(d->v, d->t, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
}

/* Numbers, truth values and None become the texts that JSON has for them. */
static const struct str *key_text(struct dump *d, value key) {
  struct text t = {0};
  struct dump own = {d->v, &t, d->style, 0};
  if (key.kind == V_STR) return key.s;
  if (key.kind != V_NONE && key.kind != V_BOOL && key.kind != V_INT && key.kind != V_FLOAT)
    viv__t_fail(d->v, VIV_BAD_INPUT, "keys must be str, int, float, bool or None, not %s",
                viv__t_type(key));
  dump(&own, key);
  return viv__t_text(d->v, &t).s;
}

static struct entry *in_order(struct dump *d, const struct dict *dict) {
  struct entry *e = viv__t_alloc(d->v, dict->n * sizeof *e + 1);
  if (dict->n) memcpy(e, dict->at, dict->n * sizeof *e);
  if (!d->style->sort) return e;
  for (size_t i = 1; i < dict->n; i++) {
    struct entry one = e[i];
    size_t k = i;
    for (; k && viv__t_order(d->v, one.key, e[k - 1].key, "<") == -1; k--) {
      e[k] = e[k - 1];
      viv__t_step(d->v, 1);
    }
    e[k] = one;
  }
  return e;
}

static void dump_dict(struct dump *d, const struct dict *dict) {
  if (!dict->n) {
    viv__t_puts(d->v, d->t, "{}");
    return;
  }
  struct entry *e = in_order(d, dict);
  viv__t_puts(d->v, d->t, "{");
  d->level++;
  for (size_t i = 0; i < dict->n; i++) {
    if (i) viv__t_put_str(d->v, d->t, d->style->item);
    new_line(d);
    json_str(d->v, d->t, key_text(d, e[i].key), d->style->ascii);
    viv__t_put_str(d->v, d->t, d->style->key);
    dump(d, e[i].val);
  }
  d->level--;
  new_line(d);
  viv__t_puts(d->v, d->t, "}");
}

static void dump_list(struct dump *d, const struct list *l) {
  if (!l->n) {
    viv__t_puts(d->v, d->t, "[]");
    return;
  }
  viv__t_puts(d->v, d->t, "[");
  d->level++;
  for (size_t i = 0; i < l->n; i++) {
    if (i) viv__t_put_str(d->v, d->t, d->style->item);
    new_line(d);
    dump(d, l->items[i]);
  }
  d->level--;
  new_line(d);
  viv__t_puts(d->v, d->t, "]");
}

static void dump(struct dump *d, value x) {
  viv__t_step(d->v, 1);
  viv__t_enter(d->v);
  switch (x.kind) {
  case V_NONE:
    viv__t_puts(d->v, d->t, "null");
    break;
  case V_BOOL:
    viv__t_puts(d->v, d->t, x.b ? "true" : "false");
    break;
  case V_INT:
    viv__t_put_int(d->v, d->t, x.i);
    break;
  case V_FLOAT:
    dump_float(d, x.f);
    break;
  case V_STR:
    json_str(d->v, d->t, x.s, d->style->ascii);
    break;
  case V_LIST:
  case V_TUPLE:
    dump_list(d, x.l);
    break;
  case V_DICT:
    dump_dict(d, x.d);
    break;
  default:
    viv__t_fail(d->v, VIV_BAD_INPUT, "Object of type %s is not JSON serializable", viv__t_type(x));
  }
  viv__t_leave(d->v);
}

void viv__t_json(vm *v, struct text *t, value x, const struct json_style *style) {
  struct dump d = {v, t, style, 0};
  dump(&d, x);
}
