/* Filters over texts and numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "template/internal.h"

#define FILTER(name) static value name(vm *v, value x, value *in, const struct args *a)
#define UNUSED (void)v, (void)in, (void)a

static bool given(value x) {
  return x.kind != V_MISSING;
}

static bool flag(vm *v, value x) {
  return given(x) && viv__t_truth(v, x);
}

static value marked(vm *v, const struct str *s) {
  struct str *out = viv__t_alloc(v, sizeof *out);
  *out = *s;
  out->markup = true;
  return viv__t_strv(out);
}

static value plain(vm *v, const struct str *s) {
  if (!s->markup) return viv__t_strv(s);
  return viv__t_share(v, s->ptr, s->len);
}

/* ---- escaping ---- */

const struct str *viv__t_escape(vm *v, value x) {
  const struct str *s = viv__t_tostr(v, x);
  if (s->markup) return s;
  struct text t = {0};
  for (size_t i = 0; i < s->len; i++) {
    char c = s->ptr[i];
    const char *as = c == '&'    ? "&amp;"
                     : c == '<'  ? "&lt;"
                     : c == '>'  ? "&gt;"
                     : c == '"'  ? "&#34;"
                     : c == '\'' ? "&#39;"
                                 : NULL;
    viv__t_put(v, &t, as ? as : &c, as ? strlen(as) : 1);
  }
  return marked(v, viv__t_text(v, &t).s).s;
}

FILTER(f_escape) {
  UNUSED;
  return viv__t_strv(viv__t_escape(v, x));
}
FILTER(f_forceescape) {
  UNUSED;
  return viv__t_strv(viv__t_escape(v, plain(v, viv__t_tostr(v, x))));
}
FILTER(f_safe) {
  UNUSED;
  return marked(v, viv__t_tostr(v, x));
}

FILTER(f_striptags) {
  UNUSED;
  static const struct {
    const char *name, *text;
  } entities[] = {{"&amp;", "&"},  {"&lt;", "<"},  {"&gt;", ">"},         {"&quot;", "\""},
                  {"&#34;", "\""}, {"&#39;", "'"}, {"&nbsp;", "\xc2\xa0"}};
  const struct str *s = viv__t_tostr(v, x);
  struct text bare = {0}, words = {0}, out = {0};
  for (size_t i = 0; i < s->len; i++) {
    bool comment = s->len - i > 3 && !memcmp(s->ptr + i, "<!--", 4);
    const char *end = s->ptr[i] != '<' ? NULL
                      : comment        ? memmem(s->ptr + i, s->len - i, "-->", 3)
                                       : memchr(s->ptr + i, '>', s->len - i);
    viv__t_step(v, s->ptr[i] == '<' ? 1 + (s->len - i) / 256 : 0);
    if (end)
      i = (size_t)(end - s->ptr) + (comment ? 2 : 0);
    else
      viv__t_put(v, &bare, s->ptr + i, 1);
  }
  bool gap = false;
  for (size_t i = 0; i < bare.len;) {
    int n;
    if (viv__t_space(viv__t_cp(bare.ptr + i, bare.len - i, &n))) {
      gap = words.len > 0;
    } else {
      if (gap) viv__t_puts(v, &words, " ");
      gap = false;
      viv__t_put(v, &words, bare.ptr + i, (size_t)n);
    }
    i += (size_t)n;
  }
  for (size_t i = 0; i < words.len;) {
    size_t k = 0, len = 1;
    for (; k < sizeof entities / sizeof *entities; k++) {
      len = strlen(entities[k].name);
      if (words.len - i >= len && !memcmp(words.ptr + i, entities[k].name, len)) break;
    }
    bool known = k < sizeof entities / sizeof *entities;
    if (!known) len = 1;
    viv__t_put(v, &out, known ? entities[k].text : words.ptr + i,
               known ? strlen(entities[k].text) : 1);
    i += len;
  }
  return viv__t_text(v, &out);
}

FILTER(f_xmlattr) {
  struct text t = {0};
  UNUSED;
  if (x.kind != V_DICT)
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object has no attribute 'items'", viv__t_type(x));
  for (size_t i = 0; i < x.d->n; i++) {
    value key = x.d->at[i].key, val = x.d->at[i].val;
    if (val.kind == V_NONE || val.kind == V_UNDEFINED) continue;
    if (key.kind != V_STR) viv__t_fail(v, VIV_BAD_INPUT, "expected string or bytes-like object");
    for (size_t k = 0; k < key.s->len; k++)
      if (strchr(" \t\n\r\f\v/>=", key.s->ptr[k]))
        viv__t_fail(v, VIV_BAD_INPUT, "Invalid character in attribute name: %s",
                    viv__t_shown(v, key));
    if (t.len || !given(in[0]) || viv__t_truth(v, in[0])) viv__t_puts(v, &t, " ");
    viv__t_put_str(v, &t, viv__t_escape(v, key));
    viv__t_puts(v, &t, "=\"");
    viv__t_put_str(v, &t, viv__t_escape(v, val));
    viv__t_puts(v, &t, "\"");
  }
  return viv__t_text(v, &t);
}

static void quote(vm *v, struct text *t, value x, bool query) {
  const struct str *s = viv__t_tostr(v, x);
  for (size_t i = 0; i < s->len; i++) {
    unsigned char c = (unsigned char)s->ptr[i];
    if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("_.-~", c) ||
        (c == '/' && !query))
      viv__t_put(v, t, s->ptr + i, c != 0);
    else if (c == ' ' && query)
      viv__t_puts(v, t, "+");
    else
      viv__t_putf(v, t, "%%%02X", c);
    if (!c) viv__t_puts(v, t, "%00");
  }
}

FILTER(f_urlencode) {
  struct text t = {0};
  value pair;
  UNUSED;
  if (x.kind == V_STR || !viv__t_iterable(x)) {
    quote(v, &t, x, false);
    return viv__t_text(v, &t);
  }
  if (x.kind == V_DICT) {
    x.kind = V_VIEW;
    x.sub = 'i';
  }
  struct iter *it = viv__t_iter(v, x);
  for (bool first = true; viv__t_next(v, it, &pair); first = false) {
    value two = viv__t_listed(v, pair);
    if (two.l->n != 2)
      viv__t_fail(v, VIV_BAD_INPUT, "not enough values to unpack (expected 2, got %zu)", two.l->n);
    if (!first) viv__t_puts(v, &t, "&");
    quote(v, &t, two.l->items[0], true);
    viv__t_puts(v, &t, "=");
    quote(v, &t, two.l->items[1], true);
  }
  return viv__t_text(v, &t);
}

/* ---- cases ---- */

static value cased(vm *v, value x, int how) {
  struct text t = {0};
  viv__t_put_case(v, &t, viv__t_tostr(v, x), how);
  return viv__t_text(v, &t);
}

FILTER(f_upper) {
  UNUSED;
  return cased(v, x, CASE_UPPER);
}
FILTER(f_lower) {
  UNUSED;
  return cased(v, x, CASE_LOWER);
}

static value capitalized(vm *v, const struct str *s, int first) {
  struct text t = {0};
  int n;
  if (!s->len) return viv__t_strv(s);
  viv__t_put_cased(v, &t, viv__t_cp(s->ptr, s->len, &n), first);
  struct str rest = {s->ptr + n, s->len - (size_t)n, s->chars - 1, false};
  viv__t_put_case(v, &t, &rest, CASE_LOWER);
  return viv__t_text(v, &t);
}

FILTER(f_capitalize) {
  UNUSED;
  return capitalized(v, viv__t_tostr(v, x), CASE_TITLE);
}

/* A word begins behind white space and behind - ( { [ <. */
FILTER(f_title) {
  UNUSED;
  const struct str *s = viv__t_tostr(v, x);
  struct text t = {0};
  bool inside = false;
  for (size_t i = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    viv__t_put_cased(v, &t, cp, inside ? CASE_LOWER : CASE_UPPER);
    inside = !(viv__t_space(cp) || (cp < 0x80 && strchr("-({[<", (int)cp)));
    i += (size_t)n;
  }
  return viv__t_text(v, &t);
}

/* ---- space ---- */

FILTER(f_trim) {
  UNUSED;
  return viv__t_strip(v, viv__t_tostr(v, x), given(in[0]) ? in[0] : viv__t_none(), true, true);
}

FILTER(f_center) {
  UNUSED;
  return viv__t_pad(v, viv__t_tostr(v, x), given(in[0]) ? viv__t_index(v, in[0]) : 80, NULL, '^');
}

FILTER(f_indent) {
  UNUSED;
  const struct str *s = viv__t_tostr(v, x), *by;
  struct text t = {0};
  value width = given(in[0]) ? in[0] : viv__t_int(4);
  by = width.kind == V_STR
           ? width.s
           : viv__t_pad(v, viv__t_cstr(v, "").s, viv__t_index(v, width), NULL, '<').s;
  bool blank = flag(v, in[2]);
  viv__t_put_str(v, &t, s);
  viv__t_puts(v, &t, "\n");
  value lines = viv__t_split_lines(v, viv__t_text(v, &t).s, false);
  t = (struct text){0};
  if (flag(v, in[1])) viv__t_put_str(v, &t, by);
  for (size_t i = 0; i < lines.l->n; i++) {
    if (i) viv__t_puts(v, &t, "\n");
    if (i && (blank || lines.l->items[i].s->len)) viv__t_put_str(v, &t, by);
    viv__t_put_str(v, &t, lines.l->items[i].s);
  }
  return viv__t_text(v, &t);
}

FILTER(f_truncate) {
  UNUSED;
  const struct str *s = viv__t_tostr(v, x);
  int64_t length = given(in[0]) ? viv__t_index(v, in[0]) : 255;
  const struct str *end = given(in[2]) ? viv__t_tostr(v, in[2]) : viv__t_cstr(v, "...").s;
  int64_t leeway = given(in[3]) && in[3].kind != V_NONE ? viv__t_index(v, in[3]) : 5;
  if (length < (int64_t)end->chars)
    viv__t_fail(v, VIV_BAD_INPUT, "expected length >= %zu, got %lld", end->chars,
                (long long)length);
  if (leeway < 0)
    viv__t_fail(v, VIV_BAD_INPUT, "expected leeway >= 0, got %lld", (long long)leeway);
  if ((int64_t)s->chars <= length + leeway) return viv__t_strv(s);
  size_t keep = viv__t_byte_of(s, (size_t)(length - (int64_t)end->chars));
  if (!flag(v, in[1])) {
    const char *space = memrchr(s->ptr, ' ', keep);
    if (space) keep = (size_t)(space - s->ptr);
  }
  struct text t = {0};
  viv__t_put(v, &t, s->ptr, keep);
  viv__t_put_str(v, &t, end);
  return viv__t_text(v, &t);
}

/* ---- wordwrap: as Python's textwrap cuts ---- */

static bool wrap_space(uint32_t cp) {
  return cp && cp < 0x80 && strchr("\t\n\v\f\r ", (int)cp);
}

struct wrap {
  vm *v;
  struct list *chunks;
  const struct str *line;
};

static bool letter_at(const struct wrap *w, size_t at) {
  int n;
  return at < w->line->len && viv__t_word(viv__t_cp(w->line->ptr + at, w->line->len - at, &n)) &&
         !viv__t_digit(viv__t_cp(w->line->ptr + at, w->line->len - at, &n)) &&
         w->line->ptr[at] != '_';
}

static size_t before(const struct str *s, size_t at) {
  while (at && (s->ptr[--at] & 0xc0) == 0x80)
    ;
  return at;
}

/* Words and the spaces between them; a word may also be cut behind a hyphen between letters. */
static void cut(struct wrap *w, bool hyphens) {
  const struct str *s = w->line;
  for (size_t i = 0, from; i < s->len;) {
    int n;
    from = i;
    bool space = wrap_space(viv__t_cp(s->ptr + i, s->len - i, &n));
    while (i < s->len && wrap_space(viv__t_cp(s->ptr + i, s->len - i, &n)) == space) {
      i += (size_t)n;
      if (hyphens && !space && s->ptr[i - 1] == '-' && i - from > 2) {
        size_t one = before(s, i - 1), two = one > from ? before(s, one) : one;
        bool left = letter_at(w, one) && one > from && (letter_at(w, two) || s->ptr[two] == '-');
        size_t after = i;
        if (left && letter_at(w, after)) {
          viv__t_cp(s->ptr + after, s->len - after, &n);
          after += (size_t)n;
          if (letter_at(w, after) || (after < s->len && s->ptr[after] == '-')) break;
        }
      }
    }
    viv__t_push(w->v, w->chunks, viv__t_share(w->v, s->ptr + from, i - from));
  }
}

static void wrap_line(vm *v, struct text *out, const struct str *line, int64_t width,
                      bool break_long, bool hyphens, const struct str *nl) {
  struct wrap w = {v, viv__t_list(v, V_LIST, 0).l, line};
  cut(&w, hyphens);
  value *c = w.chunks->items;
  bool first = true;
  for (size_t i = 0; i < w.chunks->n;) {
    int64_t used = 0;
    size_t from = i, to;
    bool blank = wrap_space((unsigned char)c[i].s->ptr[0]);
    if (blank && !first) {
      i++;
      continue;
    }
    while (i < w.chunks->n && used + (int64_t)c[i].s->chars <= width)
      used += (int64_t)c[i++].s->chars;
    struct text row = {0};
    to = i;
    if (i < w.chunks->n && (int64_t)c[i].s->chars > width) { /* too long for any line */
      size_t room = width - used > 0 ? (size_t)(width - used) : 1;
      if (break_long) {
        size_t at = viv__t_byte_of(c[i].s, room);
        for (size_t k = from; k < to; k++) viv__t_put_str(v, &row, c[k].s);
        viv__t_put(v, &row, c[i].s->ptr, at);
        c[i] = viv__t_share(v, c[i].s->ptr + at, c[i].s->len - at);
        to = from = i;
      } else if (i == from) {
        to = ++i;
      }
    }
    if (!row.len && to > from && wrap_space((unsigned char)c[to - 1].s->ptr[0])) to--;
    for (size_t k = from; k < to; k++) viv__t_put_str(v, &row, c[k].s);
    viv__t_step(v, 1);
    if (!row.len) continue;
    if (!first) viv__t_put_str(v, out, nl);
    first = false;
    viv__t_put(v, out, row.ptr, row.len);
  }
}

FILTER(f_wordwrap) {
  UNUSED;
  const struct str *s = viv__t_tostr(v, x);
  int64_t width = given(in[0]) ? viv__t_index(v, in[0]) : 79;
  const struct str *nl =
      given(in[2]) && in[2].kind != V_NONE ? viv__t_tostr(v, in[2]) : viv__t_cstr(v, "\n").s;
  if (width < 1)
    viv__t_fail(v, VIV_BAD_INPUT, "invalid width %lld (must be > 0)", (long long)width);
  value lines = viv__t_split_lines(v, s, false);
  struct text t = {0};
  for (size_t i = 0; i < lines.l->n; i++) {
    if (i) viv__t_put_str(v, &t, nl);
    wrap_line(v, &t, lines.l->items[i].s, width, !given(in[1]) || viv__t_truth(v, in[1]),
              !given(in[3]) || viv__t_truth(v, in[3]), nl);
  }
  return viv__t_text(v, &t);
}

FILTER(f_wordcount) {
  UNUSED;
  const struct str *s = viv__t_tostr(v, x);
  wide words = 0;
  bool inside = false;
  for (size_t i = 0; i < s->len;) {
    int n;
    bool word = viv__t_word(viv__t_cp(s->ptr + i, s->len - i, &n));
    words += word && !inside;
    inside = word;
    i += (size_t)n;
  }
  return viv__t_int(words);
}

FILTER(f_replace) {
  UNUSED;
  return viv__t_replace(v, viv__t_tostr(v, x), viv__t_tostr(v, in[0]), viv__t_tostr(v, in[1]),
                        given(in[2]) && in[2].kind != V_NONE ? viv__t_index(v, in[2]) : -1);
}

FILTER(f_string) {
  UNUSED;
  return viv__t_strv(viv__t_tostr(v, x));
}

FILTER(f_format) {
  UNUSED;
  if (a->n && a->n_kw)
    viv__t_fail(v, VIV_BAD_INPUT, "can't handle positional and keyword arguments at the same time");
  value args = viv__t_list(v, V_TUPLE, 0);
  for (int i = 0; i < a->n; i++) viv__t_push(v, args.l, a->pos[i]);
  if (a->n_kw) {
    args = viv__t_dict(v);
    for (int i = 0; i < a->n_kw; i++)
      viv__t_dict_set(v, args.d, viv__t_strv(a->kw[i].name), a->kw[i].val);
  }
  return viv__t_percent(v, viv__t_tostr(v, x), args);
}

/* ---- json ---- */

FILTER(f_tojson) {
  UNUSED;
  struct json_style style = {.ascii = flag(v, in[0]), .sort = flag(v, in[3])};
  struct text t = {0};
  if (given(in[1]) && in[1].kind != V_NONE)
    style.indent = in[1].kind == V_STR
                       ? in[1].s
                       : viv__t_pad(v, viv__t_cstr(v, "").s, viv__t_index(v, in[1]), NULL, '<').s;
  style.item = viv__t_cstr(v, style.indent ? "," : ", ").s;
  style.key = viv__t_cstr(v, ": ").s;
  if (given(in[2]) && in[2].kind != V_NONE) {
    value two = viv__t_listed(v, in[2]);
    if (two.l->n != 2 || two.l->items[0].kind != V_STR || two.l->items[1].kind != V_STR)
      viv__t_fail(v, VIV_BAD_INPUT, "separators must be two texts");
    style.item = two.l->items[0].s;
    style.key = two.l->items[1].s;
  }
  viv__t_json(v, &t, x, &style);
  return viv__t_text(v, &t);
}

/* ---- numbers ---- */

FILTER(f_abs) {
  UNUSED;
  wide i;
  if (x.kind == V_FLOAT) return viv__t_float(fabs(x.f));
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (!viv__t_is_int(x, &i))
    viv__t_fail(v, VIV_BAD_INPUT, "bad operand type for abs(): '%s'", viv__t_type(x));
  return i < 0 ? viv__t_unary(v, '-', viv__t_int(i)) : viv__t_int(i);
}

FILTER(f_int) {
  UNUSED;
  wide i = 0;
  double f = 0;
  value fallback = given(in[0]) ? in[0] : viv__t_int(0);
  if (viv__t_is_int(x, &i)) return viv__t_int(i);
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (x.kind == V_STR) {
    int64_t base = given(in[1]) ? viv__t_index(v, in[1]) : 10;
    if (base >= 0 && base <= 36 && base != 1 && viv__t_read_int(x.s->ptr, x.s->len, (int)base, &i))
      return viv__t_int(i);
    if (!viv__t_read_float(x.s->ptr, x.s->len, &f)) return fallback;
  } else if (x.kind == V_FLOAT) {
    f = x.f;
  } else {
    return fallback;
  }
  if (!isfinite(f)) return fallback;
  if (fabs(f) >= 0x1p126)
    viv__t_fail(v, VIV_BAD_INPUT, "whole numbers of more than 127 bits are not offered");
  return viv__t_int((wide)f);
}

FILTER(f_float) {
  UNUSED;
  wide i;
  double f;
  if (x.kind == V_FLOAT) return x;
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (viv__t_is_int(x, &i)) return viv__t_float((double)i);
  if (x.kind == V_STR && viv__t_read_float(x.s->ptr, x.s->len, &f)) return viv__t_float(f);
  return given(in[0]) ? in[0] : viv__t_float(0);
}

/* The nearest decimal of that many digits of the number's exact value, ties to even. */
static double rounded(double f, int64_t digits) {
  char text[400];
  if (!isfinite(f) || digits > 300) return f;
  if (digits >= 0) {
    snprintf(text, sizeof text, "%.*f", (int)digits, f);
    return strtod(text, NULL);
  }
  if (digits < -300) return 0 * f;
  double scale = pow(10, (double)-digits);
  return nearbyint(f / scale) * scale;
}

FILTER(f_round) {
  UNUSED;
  int64_t digits = given(in[0]) ? viv__t_index(v, in[0]) : 0;
  const char *how = "common";
  wide i;
  if (given(in[1])) {
    if (in[1].kind == V_STR && viv__t_streq(in[1].s, "ceil"))
      how = "ceil";
    else if (in[1].kind == V_STR && viv__t_streq(in[1].s, "floor"))
      how = "floor";
    else if (in[1].kind != V_STR || !viv__t_streq(in[1].s, "common"))
      viv__t_fail(v, VIV_BAD_INPUT, "method must be common, ceil or floor");
  }
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (*how == 'c' && how[1] == 'o') {
    if (viv__t_is_int(x, &i) && digits >= 0) return viv__t_int(i);
    if (x.kind == V_INT) return viv__t_int((wide)rounded((double)i, digits));
    if (x.kind != V_FLOAT)
      viv__t_fail(v, VIV_BAD_INPUT, "type %s doesn't define __round__ method", viv__t_type(x));
    return viv__t_float(rounded(x.f, digits));
  }
  double scale = pow(10, (double)digits), scaled = viv__t_real(v, x) * scale;
  return viv__t_float((*how == 'c' ? ceil(scaled) : floor(scaled)) / scale);
}

FILTER(f_filesizeformat) {
  UNUSED;
  static const char prefixes[] = "kMGTPEZY";
  bool binary = flag(v, in[0]);
  double base = binary ? 1024 : 1000, unit = base, bytes = 0;
  struct text t = {0};
  if (x.kind != V_STR)
    bytes = viv__t_real(v, x);
  else if (!viv__t_read_float(x.s->ptr, x.s->len, &bytes))
    viv__t_fail(v, VIV_BAD_INPUT, "could not convert string to float: %s", viv__t_shown(v, x));
  if (bytes == 1) return viv__t_cstr(v, "1 Byte");
  if (bytes < base) {
    viv__t_putf(v, &t, "%lld Bytes", (long long)bytes);
    return viv__t_text(v, &t);
  }
  for (int i = 0; i < 8; i++) {
    unit *= base;
    if (bytes >= unit && i < 7) continue;
    char letter = binary && i == 0 ? 'K' : prefixes[i];
    viv__t_putf(v, &t, "%.1f %c%sB", base * bytes / unit, letter, binary ? "i" : "");
    break;
  }
  return viv__t_text(v, &t);
}

FILTER(f_default) {
  UNUSED;
  bool falsy = flag(v, in[1]) && !viv__t_truth(v, x);
  if (x.kind != V_UNDEFINED && !falsy) return x;
  return given(in[0]) ? in[0] : viv__t_cstr(v, "");
}

FILTER(f_attr) {
  UNUSED;
  const struct str *name = viv__t_tostr(v, in[0]);
  if (x.kind != V_DICT && x.kind != V_UNDEFINED) return viv__t_attr(v, x, name);
  if (x.kind == V_UNDEFINED)
    return viv__t_undefined(v, false, "Undefined has no attribute '%.*s'", (int)name->len,
                            name->ptr);
  value empty = viv__t_dict(v); /* attributes only, no keys */
  return viv__t_attr(v, empty, name);
}

const struct filter viv__t_text_filters[] = {
    {"abs", "", 0, f_abs},
    {"attr", "name", 1, f_attr},
    {"capitalize", "", 0, f_capitalize},
    {"center", "width", 0, f_center},
    {"d", "default_value boolean", 0, f_default},
    {"default", "default_value boolean", 0, f_default},
    {"e", "", 0, f_escape},
    {"escape", "", 0, f_escape},
    {"filesizeformat", "binary", 0, f_filesizeformat},
    {"float", "default", 0, f_float},
    {"forceescape", "", 0, f_forceescape},
    {"format", NULL, 0, f_format},
    {"indent", "width first blank", 0, f_indent},
    {"int", "default base", 0, f_int},
    {"lower", "", 0, f_lower},
    {"pprint", "", 0, NULL},
    {"random", "", 0, NULL},
    {"replace", "old new count", 2, f_replace},
    {"round", "precision method", 0, f_round},
    {"safe", "", 0, f_safe},
    {"string", "", 0, f_string},
    {"striptags", "", 0, f_striptags},
    {"title", "", 0, f_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson},
    {"trim", "chars", 0, f_trim},
    {"truncate", "length killwords end leeway", 0, f_truncate},
    {"upper", "", 0, f_upper},
    {"urlencode", "", 0, f_urlencode},
    {"urlize", "", 0, NULL},
    {"wordcount", "", 0, f_wordcount},
    {"wordwrap", "width break_long_words wrapstring break_on_hyphens", 0, f_wordwrap},
    {"xmlattr", "autospace", 0, f_xmlattr},
    {0}};

const struct filter *viv__t_find_filter(const struct str *name) {
  for (const struct filter *f = viv__t_text_filters; f->name; f++)
    if (viv__t_streq(name, f->name)) return f;
  for (const struct filter *f = viv__t_list_filters; f->name; f++)
    if (viv__t_streq(name, f->name)) return f;
  return NULL;
}
