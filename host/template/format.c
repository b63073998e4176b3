/* "%s" % x and "{}".format(x). */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "template/internal.h"

struct spec {
  struct str fill;
  char align, sign, type;
  bool alternate, zero, comma, underscore;
  int width, precision; /* -1: none */
};

static const struct str space = {" ", 1, 1, false}, nought = {"0", 1, 1, false};

/* sign + digits, padded; '=' pads behind the sign. */
static void put_number(vm *v, struct text *t, const char *sign, struct text *digits,
                       const struct spec *s, char usual) {
  char align = s->align ? s->align : s->zero ? '=' : usual;
  const struct str *fill = s->zero && !s->align ? &nought : &s->fill;
  int width = s->width > 0 ? s->width : 0;
  struct text whole = {0};
  if (align == '=') {
    viv__t_puts(v, t, sign);
    value d = viv__t_text(v, digits);
    viv__t_put_str(v, t, viv__t_pad(v, d.s, width - (int)strlen(sign), fill, '>').s);
    return;
  }
  viv__t_puts(v, &whole, sign);
  viv__t_put(v, &whole, digits->ptr, digits->len);
  viv__t_put_str(
      v, t, viv__t_pad(v, viv__t_text(v, &whole).s, width, fill, align == '^' ? 'f' : align).s);
}

static const char *sign_of(bool minus, char style) {
  return minus ? "-" : style == '+' ? "+" : style == ' ' ? " " : "";
}

static void grouped(vm *v, struct text *out, const char *digits, size_t n, const struct spec *s) {
  for (size_t i = 0; i < n; i++) {
    if (i && (n - i) % 3 == 0) viv__t_puts(v, out, s->comma ? "," : "_");
    viv__t_put(v, out, digits + i, 1);
  }
}

static void put_int(vm *v, struct text *t, wide i, const struct spec *s, char type, bool percent) {
  char raw[140];
  size_t at = sizeof raw;
  struct text digits = {0};
  unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
  do {
    raw[--at] = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
    u /= base;
  } while (u);
  char prefix[4] = {'0', type, 0, 0};
  if (s->alternate && base != 10) viv__t_puts(v, &digits, prefix);
  for (int have = (int)(sizeof raw - at); percent && have < s->precision; have++)
    viv__t_puts(v, &digits, "0");
  if (s->comma || s->underscore)
    grouped(v, &digits, raw + at, sizeof raw - at, s);
  else
    viv__t_put(v, &digits, raw + at, sizeof raw - at);
  put_number(v, t, sign_of(i < 0, s->sign), &digits, s, '>');
}

static void put_real(vm *v, struct text *t, double f, const struct spec *s, char type) {
  char format[16], raw[700];
  struct text digits = {0};
  bool minus = signbit(f) && !isnan(f);
  int precision = s->precision < 0 ? 6 : s->precision;
  if (precision > 300) viv__t_fail(v, VIV_BAD_INPUT, "precision %d is too large", precision);
  if (type == 'r') { /* without a type: as printed */
    viv__t_put_float(v, &digits, fabs(f));
  } else {
    bool percent = type == '%';
    if (type == 'n') type = 'g';
    snprintf(format, sizeof format, "%%%s.*%c", s->alternate ? "#" : "", percent ? 'f' : type);
    if (!isfinite(f))
      snprintf(raw, sizeof raw, "%s", isnan(f) ? "nan" : "inf");
    else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
      snprintf(raw, sizeof raw, format, precision, fabs(percent ? f * 100 : f));
#pragma GCC diagnostic pop
    size_t whole = strspn(raw, "0123456789");
    if (s->comma || s->underscore)
      grouped(v, &digits, raw, whole, s);
    else
      viv__t_put(v, &digits, raw, whole);
    viv__t_puts(v, &digits, raw + whole);
    if (percent) viv__t_puts(v, &digits, "%");
  }
  put_number(v, t, sign_of(minus, s->sign), &digits, s, '>');
}

static void put_text(vm *v, struct text *t, const struct str *x, const struct spec *s, char usual) {
  value cut = viv__t_strv(x);
  if (s->precision >= 0)
    cut = viv__t_slice(v, cut, viv__t_none(), viv__t_int(s->precision), viv__t_none());
  char align = s->align ? s->align : usual;
  viv__t_put_str(
      v, t,
      viv__t_pad(v, cut.s, s->width > 0 ? s->width : 0, &s->fill, align == '^' ? 'f' : align).s);
}

static int digits_of(vm *v, const struct str *f, size_t *at) {
  int n = 0;
  while (*at < f->len && isdigit((unsigned char)f->ptr[*at])) {
    n = n * 10 + (f->ptr[(*at)++] - '0');
    if (n > 1000000) viv__t_fail(v, VIV_BAD_INPUT, "a width or precision is too large");
  }
  return n;
}

/* ---- % ---- */

struct source {
  vm *v;
  value args;
  size_t next;
  bool used;
};

static value next_arg(struct source *s) {
  if (s->args.kind != V_TUPLE && !s->used) {
    s->used = true;
    return s->args;
  }
  if (s->args.kind != V_TUPLE || s->next >= s->args.l->n)
    viv__t_fail(s->v, VIV_BAD_INPUT, "not enough arguments for format string");
  return s->args.l->items[s->next++];
}

static int star(struct source *s, const struct str *f, size_t *at) {
  if (*at < f->len && f->ptr[*at] == '*') {
    (*at)++;
    int64_t n = viv__t_index(s->v, next_arg(s));
    if (n > 1000000 || n < -1000000)
      viv__t_fail(s->v, VIV_BAD_INPUT, "a width or precision is too large");
    return (int)n;
  }
  return digits_of(s->v, f, at);
}

static void convert(struct source *s, struct text *t, value x, const struct spec *spec) {
  vm *v = s->v;
  wide i;
  struct text one = {0};
  switch (spec->type) {
  case 's':
    put_text(v, t, viv__t_tostr(v, x), spec, '>');
    return;
  case 'r':
  case 'a':
    viv__t_repr(v, &one, x);
    put_text(v, t, viv__t_text(v, &one).s, spec, '>');
    return;
  case 'c':
    if (viv__t_is_int(x, &i) && i >= 0 && i < 0x110000 && (i < 0xd800 || i > 0xdfff))
      viv__t_put_cp(v, &one, (uint32_t)i);
    else if (x.kind == V_STR && x.s->chars == 1)
      viv__t_put_str(v, &one, x.s);
    else
      viv__t_fail(v, VIV_BAD_INPUT, "%%c requires int or char");
    put_text(v, t, viv__t_text(v, &one).s, spec, '>');
    return;
  case 'd':
  case 'i':
  case 'u':
    if (x.kind == V_FLOAT && isfinite(x.f) && fabs(x.f) < 0x1p126)
      x = viv__t_int((wide)x.f); /* falls through to whole numbers */
    __attribute__((fallthrough));
  case 'x':
  case 'X':
  case 'o':
    if (!viv__t_is_int(x, &i))
      viv__t_fail(v, VIV_BAD_INPUT, "%%%c format: a real number is required, not %s", spec->type,
                  viv__t_type(x));
    put_int(v, t, i, spec, spec->type, true);
    return;
  case 'e':
  case 'E':
  case 'f':
  case 'F':
  case 'g':
  case 'G':
    put_real(v, t, viv__t_real(v, x), spec, spec->type);
    return;
  default:
    viv__t_fail(v, VIV_BAD_INPUT, "unsupported format character '%c'",
                isprint((unsigned char)spec->type) ? spec->type : '?');
  }
}

value viv__t_percent(vm *v, const struct str *f, value args) {
  struct source s = {v, args, 0, false};
  struct text t = {0};
  for (size_t i = 0; i < f->len;) {
    struct spec spec = {.fill = space, .width = -1, .precision = -1};
    if (f->ptr[i] != '%') {
      viv__t_put(v, &t, f->ptr + i++, 1);
      continue;
    }
    i++;
    value x = {.kind = V_MISSING};
    if (i < f->len && f->ptr[i] == '(') {
      const char *end = memchr(f->ptr + i, ')', f->len - i);
      if (!end || args.kind != V_DICT)
        viv__t_fail(v, VIV_BAD_INPUT, end ? "format requires a mapping" : "incomplete format key");
      value key = viv__t_share(v, f->ptr + i + 1, (size_t)(end - f->ptr) - i - 1);
      if (!viv__t_dict_get(v, args.d, key, &x))
        viv__t_fail(v, VIV_BAD_INPUT, "KeyError: %s", viv__t_shown(v, key));
      s.used = true;
      i = (size_t)(end - f->ptr) + 1;
    }
    for (; i < f->len && f->ptr[i] && strchr("-+ #0", f->ptr[i]); i++) {
      if (f->ptr[i] == '-') spec.align = '<';
      if (f->ptr[i] == '0') spec.zero = true;
      if (f->ptr[i] == '#') spec.alternate = true;
      if (f->ptr[i] == '+' || (f->ptr[i] == ' ' && !spec.sign)) spec.sign = f->ptr[i];
    }
    spec.width = star(&s, f, &i);
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (i < f->len && f->ptr[i] == '.') {
      i++;
      spec.precision = star(&s, f, &i);
      if (spec.precision < 0) spec.precision = 0;
    }
    while (i < f->len && f->ptr[i] && strchr("hlL", f->ptr[i])) i++;
    if (i >= f->len) viv__t_fail(v, VIV_BAD_INPUT, "incomplete format");
    spec.type = f->ptr[i++];
    if (spec.type == '%') {
      viv__t_puts(v, &t, "%");
      continue;
    }
    convert(&s, &t, x.kind == V_MISSING ? next_arg(&s) : x, &spec);
  }
  bool left = args.kind == V_TUPLE ? s.next < args.l->n
                                   : !s.used && args.kind != V_DICT && args.kind != V_LIST;
  if (left) viv__t_fail(v, VIV_BAD_INPUT, "not all arguments converted during string formatting");
  return viv__t_text(v, &t);
}

/* ---- str.format ---- */

struct fields {
  vm *v;
  const struct args *a;
  int next; /* the number of the next {}; -1: they are numbered */
  int depth;
};

static value field_value(struct fields *c, const struct str *name) {
  vm *v = c->v;
  size_t at = 0;
  wide i = 0;
  while (at < name->len && name->ptr[at] != '.' && name->ptr[at] != '[') at++;
  value x = {.kind = V_MISSING}, first = viv__t_share(v, name->ptr, at);
  if (!at || viv__t_read_int(name->ptr, at, 10, &i)) {
    if ((at && c->next > 0) || (!at && c->next < 0))
      viv__t_fail(v, VIV_BAD_INPUT,
                  "cannot switch between manual field specification and automatic numbering");
    if (!at)
      i = c->next++;
    else
      c->next = -1;
    if (i < 0 || i >= c->a->n)
      viv__t_fail(v, VIV_BAD_INPUT, "Replacement index %lld out of range for positional args tuple",
                  (long long)i);
    x = c->a->pos[i];
  } else {
    for (int k = 0; k < c->a->n_kw; k++)
      if (viv__t_same(c->a->kw[k].name, first.s)) x = c->a->kw[k].val;
    if (x.kind == V_MISSING) viv__t_fail(v, VIV_BAD_INPUT, "KeyError: %s", viv__t_shown(v, first));
  }
  while (at < name->len) {
    bool item = name->ptr[at++] == '[';
    size_t from = at;
    while (at < name->len && (item ? name->ptr[at] != ']' : !strchr(".[", name->ptr[at]))) at++;
    value key = viv__t_share(v, name->ptr + from, at - from);
    if (item && viv__t_read_int(key.s->ptr, key.s->len, 10, &i)) key = viv__t_int(i);
    x = item ? viv__t_item(v, x, key) : viv__t_attr(v, x, key.s);
    if (item) at += at < name->len;
  }
  return x;
}

static struct spec read_spec(vm *v, const struct str *f) {
  struct spec s = {.fill = space, .width = -1, .precision = -1};
  size_t i = 0;
  int n = 1;
  if (f->len) viv__t_cp(f->ptr, f->len, &n);
  if (f->len > (size_t)n && strchr("<>=^", f->ptr[n]) && f->ptr[n]) {
    s.fill = *viv__t_share(v, f->ptr, (size_t)n).s;
    s.align = f->ptr[n];
    i = (size_t)n + 1;
  } else if (f->len && strchr("<>=^", f->ptr[0]) && f->ptr[0]) {
    s.align = f->ptr[i++];
  }
  if (i < f->len && strchr("+- ", f->ptr[i])) s.sign = f->ptr[i++];
  if (i < f->len && f->ptr[i] == '#') s.alternate = f->ptr[i++];
  if (i < f->len && f->ptr[i] == '0') s.zero = f->ptr[i++];
  if (i < f->len && isdigit((unsigned char)f->ptr[i])) s.width = digits_of(v, f, &i);
  if (i < f->len && f->ptr[i] == ',') s.comma = f->ptr[i++];
  if (i < f->len && f->ptr[i] == '_') s.underscore = f->ptr[i++];
  if (i < f->len && f->ptr[i] == '.') {
    i++;
    s.precision = digits_of(v, f, &i);
  }
  if (i < f->len) s.type = f->ptr[i++];
  if (i < f->len) viv__t_fail(v, VIV_BAD_INPUT, "Invalid format specifier");
  return s;
}

static void put_field(vm *v, struct text *t, value x, const struct str *spec_text) {
  struct spec s = read_spec(v, spec_text);
  wide i;
  bool number = viv__t_is_int(x, &i) && (x.kind == V_INT || s.type);
  if (!spec_text->len) {
    viv__t_print(v, t, x);
  } else if ((number || x.kind == V_FLOAT) && s.type && strchr("eEfFgGn%", s.type)) {
    put_real(v, t, viv__t_real(v, x), &s, s.type);
  } else if (x.kind == V_FLOAT && !s.type) {
    if (s.precision >= 0 || s.comma)
      viv__t_fail(v, VIV_NEVER, "a precision without a type is not offered");
    put_real(v, t, x.f, &s, 'r');
  } else if (number && (!s.type || strchr("dxXob", s.type))) {
    put_int(v, t, i, &s, s.type ? s.type : 'd', false);
  } else if (x.kind == V_STR && (!s.type || s.type == 's') && s.align != '=') {
    if (s.zero && !s.align) s.fill = nought;
    put_text(v, t, x.s, &s, '<');
  } else {
    viv__t_fail(v, VIV_BAD_INPUT, "unsupported format string passed to %s.__format__",
                viv__t_type(x));
  }
}

static const struct str *expand(struct fields *c, const struct str *f);

static size_t field(struct fields *c, struct text *t, const struct str *f, size_t at) {
  vm *v = c->v;
  size_t from = at;
  int depth = 1;
  while (at < f->len && depth) {
    depth += f->ptr[at] == '{' ? 1 : f->ptr[at] == '}' ? -1 : 0;
    at++;
  }
  if (depth) viv__t_fail(v, VIV_BAD_INPUT, "expected '}' before end of string");
  size_t end = at - 1, name = from;
  while (name < end && f->ptr[name] != '!' && f->ptr[name] != ':') name++;
  value x = field_value(c, viv__t_share(v, f->ptr + from, name - from).s);
  if (name < end && f->ptr[name] == '!') {
    char how = name + 1 < end ? f->ptr[name + 1] : 0;
    struct text shown = {0};
    if (how == 'r' || how == 'a')
      viv__t_repr(v, &shown, x);
    else if (how == 's')
      viv__t_print(v, &shown, x);
    else
      viv__t_fail(v, VIV_BAD_INPUT, "Unknown conversion specifier");
    x = viv__t_text(v, &shown);
    name += 2;
  }
  size_t spec = name < end && f->ptr[name] == ':' ? name + 1 : end;
  const struct str *s = viv__t_share(v, f->ptr + spec, end - spec).s;
  put_field(v, t, x, memchr(s->ptr, '{', s->len) ? expand(c, s) : s);
  return at;
}

static const struct str *expand(struct fields *c, const struct str *f) {
  struct text t = {0};
  if (++c->depth > 2) viv__t_fail(c->v, VIV_BAD_INPUT, "Max string recursion exceeded");
  for (size_t i = 0; i < f->len;) {
    char ch = f->ptr[i], next = i + 1 < f->len ? f->ptr[i + 1] : 0;
    if ((ch == '{' || ch == '}') && next == ch) {
      viv__t_put(c->v, &t, &ch, 1);
      i += 2;
    } else if (ch == '}') {
      viv__t_fail(c->v, VIV_BAD_INPUT, "Single '}' encountered in format string");
    } else if (ch == '{') {
      i = field(c, &t, f, i + 1);
    } else {
      viv__t_put(c->v, &t, &ch, 1);
      i++;
    }
  }
  c->depth--;
  return viv__t_text(c->v, &t).s;
}

value viv__t_format(vm *v, const struct str *format, const struct args *a) {
  struct fields c = {v, a, 0, 0};
  return viv__t_strv(expand(&c, format));
}
