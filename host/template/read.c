/* JSON text to values. Not by cJSON, which makes every number a double: a template prints 1 and 1.0
 * and whole numbers of twenty digits as they came. Also Python's int() and float() of a text. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "template/internal.h"

struct reader {
  vm *v;
  const char *s;
  size_t len, at;
};

static _Noreturn void bad(struct reader *r, const char *what) {
  viv__t_fail(r->v, VIV_BAD_INPUT, "not valid JSON near byte %zu of %zu: %s", r->at, r->len, what);
}

static void skip(struct reader *r) {
  while (r->at < r->len && strchr(" \t\r\n", r->s[r->at]) && r->s[r->at]) r->at++;
}

static bool take(struct reader *r, const char *word) {
  size_t n = strlen(word);
  if (r->len - r->at < n || memcmp(r->s + r->at, word, n)) return false;
  r->at += n;
  return true;
}

static uint32_t hex4(struct reader *r) {
  uint32_t cp = 0;
  for (int i = 0; i < 4; i++, r->at++) {
    char c = r->at < r->len ? r->s[r->at] : 0;
    if (!isxdigit((unsigned char)c)) bad(r, "four hex digits must follow \\u");
    cp = cp << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
  }
  return cp;
}

static void escape(struct reader *r, struct text *t) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  char c = r->at < r->len ? r->s[r->at++] : 0;
  const char *known = c ? strchr(from, c) : NULL;
  if (known) {
    viv__t_put(r->v, t, to + (known - from), 1);
    return;
  }
  if (c != 'u') bad(r, "an unknown escape");
  uint32_t cp = hex4(r);
  if (cp >= 0xd800 && cp < 0xdc00 && take(r, "\\u")) {
    uint32_t low = hex4(r);
    if (low < 0xdc00 || low > 0xdfff) bad(r, "half of a surrogate pair");
    cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
  }
  if (cp >= 0xd800 && cp < 0xe000) bad(r, "half of a surrogate pair");
  viv__t_put_cp(r->v, t, cp);
}

static value read_string(struct reader *r) {
  struct text t = {0};
  r->at++;
  for (;;) {
    size_t from = r->at;
    while (r->at < r->len && r->s[r->at] != '"' && r->s[r->at] != '\\' &&
           (unsigned char)r->s[r->at] >= 0x20)
      r->at++;
    viv__t_put(r->v, &t, r->s + from, r->at - from);
    if (r->at >= r->len) bad(r, "a string is not closed");
    if (r->s[r->at] == '"') break;
    if (r->s[r->at] != '\\') bad(r, "a control character in a string");
    r->at++;
    escape(r, &t);
  }
  r->at++;
  return viv__t_text(r->v, &t);
}

static value read_number(struct reader *r) {
  size_t from = r->at;
  bool real = false;
  wide i = 0;
  double f = 0;
  if (r->at < r->len && r->s[r->at] == '-') r->at++;
  size_t digits = r->at;
  while (r->at < r->len && strchr("0123456789.eE+-", r->s[r->at]) && r->s[r->at]) {
    real = real || strchr(".eE", r->s[r->at]);
    r->at++;
  }
  bool zero = r->at - digits > 1 && r->s[digits] == '0' && isdigit((unsigned char)r->s[digits + 1]);
  if (r->at == digits || !isdigit((unsigned char)r->s[digits]) || zero || r->s[r->at - 1] == '.')
    bad(r, "no value");
  if (real) {
    if (!viv__t_read_float(r->s + from, r->at - from, &f)) bad(r, "no number");
    return viv__t_float(f);
  }
  if (!viv__t_read_int(r->s + from, r->at - from, 10, &i))
    bad(r, "whole numbers of more than 127 bits are not offered");
  return viv__t_int(i);
}

static value read_value(struct reader *r);

static value read_list(struct reader *r) {
  value out = viv__t_list(r->v, V_LIST, 0);
  r->at++;
  skip(r);
  if (take(r, "]")) return out;
  for (;;) {
    viv__t_push(r->v, out.l, read_value(r));
    if (take(r, "]")) return out;
    if (!take(r, ",")) bad(r, "a comma or ] is missing");
  }
}

static value read_object(struct reader *r) {
  value out = viv__t_dict(r->v);
  r->at++;
  skip(r);
  if (take(r, "}")) return out;
  for (;;) {
    skip(r);
    if (r->at >= r->len || r->s[r->at] != '"') bad(r, "a key is missing");
    value key = read_string(r);
    skip(r);
    if (!take(r, ":")) bad(r, "a colon is missing");
    viv__t_dict_set(r->v, out.d, key, read_value(r));
    if (take(r, "}")) return out;
    if (!take(r, ",")) bad(r, "a comma or } is missing");
  }
}

static value read_value(struct reader *r) {
  value out;
  viv__t_step(r->v, 1);
  viv__t_enter(r->v);
  skip(r);
  char c = r->at < r->len ? r->s[r->at] : 0;
  if (c == '"')
    out = read_string(r);
  else if (c == '[')
    out = read_list(r);
  else if (c == '{')
    out = read_object(r);
  else if (take(r, "true"))
    out = viv__t_bool(true);
  else if (take(r, "false"))
    out = viv__t_bool(false);
  else if (take(r, "null"))
    out = viv__t_none();
  else if (take(r, "NaN"))
    out = viv__t_float(NAN);
  else if (take(r, "Infinity"))
    out = viv__t_float(INFINITY);
  else if (take(r, "-Infinity"))
    out = viv__t_float(-INFINITY);
  else
    out = read_number(r);
  skip(r);
  viv__t_leave(r->v);
  return out;
}

value viv__t_read(vm *v, viv_str json, const char *name) {
  struct str source = v->source;
  const char *before = v->name;
  struct reader r = {v, json.ptr, json.len, 0};
  v->source.ptr = NULL; /* a failure is not the template's */
  v->name = name;
  if (!viv__utf8_valid(json.ptr, json.len))
    viv__t_fail(v, VIV_BAD_INPUT, "not UTF-8 at byte %zu", viv__utf8_whole(json.ptr, json.len));
  value out = read_value(&r);
  if (r.at < r.len) bad(&r, "text follows the value");
  v->source = source;
  v->name = before;
  return out;
}

/* ---- Python's int(text, base), float(text) ---- */

static void strip(const char **s, size_t *len) {
  while (*len && viv__t_space((unsigned char)**s) && (unsigned char)**s < 0x80) (*s)++, (*len)--;
  while (*len && (unsigned char)(*s)[*len - 1] < 0x80 &&
         viv__t_space((unsigned char)(*s)[*len - 1]))
    (*len)--;
}

bool viv__t_read_int(const char *s, size_t len, int base, wide *out) {
  bool minus = false, after_digit = false;
  wide x = 0;
  strip(&s, &len);
  if (len && (*s == '+' || *s == '-')) minus = *s++ == '-', len--;
  int prefix = len > 1 && *s == '0' ? (s[1] | 32) : 0;
  prefix = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
  if (prefix && (base == 0 || base == prefix)) {
    base = prefix;
    s += 2;
    len -= 2;
    if (len && *s == '_') s++, len--;
  } else if (base == 0) {
    base = 10;
    if (len > 1 && *s == '0') /* 0777 is no number, 000 is */
      for (size_t i = 0; i < len; i++)
        if (s[i] != '0' && s[i] != '_') return false;
  }
  if (!len || base < 2 || base > 36) return false;
  for (size_t i = 0; i < len; i++) {
    if (s[i] == '_' && after_digit) {
      after_digit = false;
      continue;
    }
    int d = isdigit((unsigned char)s[i])   ? s[i] - '0'
            : isalpha((unsigned char)s[i]) ? (s[i] | 32) - 'a' + 10
                                           : 99;
    if (d >= base || __builtin_mul_overflow(x, (wide)base, &x) ||
        __builtin_add_overflow(x, (wide)d, &x))
      return false;
    after_digit = true;
  }
  if (!after_digit) return false;
  *out = minus ? -x : x;
  return true;
}

bool viv__t_read_float(const char *s, size_t len, double *out) {
  char clean[400];
  size_t n = 0;
  strip(&s, &len);
  if (!len || len >= sizeof clean) return false;
  for (size_t i = 0; i < len; i++) {
    bool inner =
        i && i + 1 < len && isdigit((unsigned char)s[i - 1]) && isdigit((unsigned char)s[i + 1]);
    if (s[i] == '_' && inner) continue;
    if (s[i] == '_' || !s[i] || s[i] == 'x' || s[i] == 'X' || s[i] == '(' ||
        isspace((unsigned char)s[i]))
      return false;
    clean[n++] = s[i];
  }
  clean[n] = 0;
  char *end;
  *out = strtod(clean, &end);
  return !*end && end != clean;
}
