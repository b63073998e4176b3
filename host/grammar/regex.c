/* Regular expressions of schemas as automata over the plain form of a JSON string. */
#include <string.h>

#include "grammar/internal.h"

enum { MAX_COUNT = 10000 };

struct regex {
  viv__grammar *g;
  const char *begin, *p, *end;
  const char *where;
  viv_error *error;
  int32_t status;
  int depth;
};

#define REFUSE(r, code, ...)                                                                       \
  ((r)->status =                                                                                   \
       (r)->status < 0 ? (r)->status : VIV_FAIL((r)->error, (code), (r)->where, __VA_ARGS__))

static viv__net alternatives(struct regex *r);

static bool more(const struct regex *r) {
  return r->status >= 0 && r->p < r->end;
}

static int32_t character(struct regex *r) {
  int32_t c = 0;
  int n = r->p < r->end ? viv__utf8_read(r->p, r->end, &c) : 0;
  if (!n) {
    REFUSE(r, VIV_BAD_INPUT, "the regular expression ends too early, or is not UTF-8");
    r->p = r->end;
    return 0;
  }
  r->p += n;
  return c;
}

static int32_t hex(struct regex *r, int digits) {
  int32_t v = 0;
  for (int i = 0; i < digits; i++) {
    int32_t c = character(r);
    int d = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                 : -1;
    if (d < 0) {
      REFUSE(r, VIV_BAD_INPUT, "a hexadecimal digit is missing in the regular expression");
      return 0;
    }
    v = v * 16 + d;
  }
  return v;
}

/* A class escape goes into the set (negated ones only with what is ASCII, which every dialect agrees
 * about), or the character is answered. -1: it was a class. */
static int32_t escaped(struct regex *r, viv__charset *set) {
  int32_t c = character(r);
  switch (c) {
  case 'd':
    viv__charset_add(set, '0', '9');
    return -1;
  case 'D':
    viv__charset_add(set, 0, '0' - 1);
    viv__charset_add(set, '9' + 1, 127);
    return -1;
  case 'w':
    viv__charset_add(set, '0', '9');
    viv__charset_add(set, 'A', 'Z');
    viv__charset_add(set, 'a', 'z');
    viv__charset_add(set, '_', '_');
    return -1;
  case 'W':
    viv__charset_add(set, 0, '0' - 1);
    viv__charset_add(set, ':', '@');
    viv__charset_add(set, '[', '^');
    viv__charset_add(set, '`', '`');
    viv__charset_add(set, '{', 127);
    return -1;
  case 's':
    viv__charset_add(set, 9, 13);
    viv__charset_add(set, ' ', ' ');
    return -1;
  case 'S':
    viv__charset_add(set, '!', 126);
    return -1;
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  case 'f':
    return '\f';
  case 'v':
    return '\v';
  case '0':
    return 0;
  case 'x':
    return hex(r, 2);
  case 'u': {
    int32_t v = hex(r, 4);
    if (v >= 0xd800 && v < 0xe000) REFUSE(r, VIV_NEVER, "surrogates in a regular expression");
    return v;
  }
  default:
    break;
  }
  if ((c >= '1' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
    REFUSE(r, VIV_NEVER, "\\%c is not offered in a regular expression", (char)c);
  return c;
}

static viv__net class_of(struct regex *r) {
  viv__charset set = {0};
  bool negated = more(r) && *r->p == '^', first = true;
  if (negated) r->p++;
  for (;; first = false) {
    int32_t low = character(r), high;
    if (r->status < 0 || (low == ']' && !first)) break;
    if (low == ']') { /* JavaScript and Python differ about []...] */
      REFUSE(r, VIV_BAD_INPUT, "an empty class in the regular expression");
      break;
    }
    if (low == '\\') low = more(r) && *r->p == 'b' ? (r->p++, '\b') : escaped(r, &set);
    high = low;
    if (low >= 0 && r->end - r->p > 1 && r->p[0] == '-' && r->p[1] != ']') {
      r->p++;
      high = character(r);
      if (high == '\\') high = escaped(r, &set);
      if (high < low)
        REFUSE(r, VIV_BAD_INPUT, "a range that goes backwards in the regular expression");
    }
    if (low >= 0) viv__charset_add(&set, low, high);
  }
  if (negated) viv__charset_negate(&set);
  viv__net p = viv__net_chars(r->g, &set, true);
  viv__charset_free(&set);
  return p;
}

static viv__net atom(struct regex *r) {
  int32_t c = character(r);
  if (c == '[') return class_of(r);
  if (c == '(') {
    if (r->end - r->p > 1 && r->p[0] == '?') {
      if (r->p[1] == ':')
        r->p += 2;
      else
        REFUSE(r, VIV_NEVER, "(?%c is not offered in a regular expression", r->p[1]);
    }
    if (++r->depth > VIV__MAX_DEPTH)
      REFUSE(r, VIV_BAD_INPUT, "groups more than %d deep", VIV__MAX_DEPTH);
    viv__net p = r->status < 0 ? viv__net_empty(r->g) : alternatives(r);
    r->depth--;
    if (!more(r) || *r->p != ')')
      REFUSE(r, VIV_BAD_INPUT, "a ) is missing in the regular expression");
    else
      r->p++;
    return p;
  }
  if (c && strchr("*+?{", (char)c) && c < 128)
    REFUSE(r, VIV_BAD_INPUT, "nothing to repeat before %c in the regular expression", (char)c);
  if (c == '^' || c == '$')
    REFUSE(r, VIV_NEVER, "%c is offered only at the ends of a regular expression", (char)c);
  viv__charset set = {0};
  if (c == '.') {
    viv__charset_add(&set, '\n', '\n');
    viv__charset_add(&set, '\r', '\r');
    viv__charset_add(&set, 0x2028, 0x2029);
    viv__charset_negate(&set);
  } else {
    if (c == '\\') {
      if (more(r) && (*r->p == 'b' || *r->p == 'B'))
        REFUSE(r, VIV_NEVER, "\\%c is not offered in a regular expression", *r->p);
      c = escaped(r, &set);
    }
    if (c >= 0) viv__charset_add(&set, c, c);
  }
  viv__net p = viv__net_chars(r->g, &set, true);
  viv__charset_free(&set);
  return p;
}

static bool count(struct regex *r, int32_t *out) {
  const char *p = r->p;
  *out = 0;
  while (r->p < r->end && *r->p >= '0' && *r->p <= '9' && *out <= MAX_COUNT)
    *out = *out * 10 + (*r->p++ - '0');
  return r->p > p;
}

static viv__net repeated(struct regex *r) {
  viv__net p = atom(r);
  while (more(r) && strchr("*+?{", *r->p)) {
    char c = *r->p++;
    int32_t low = c == '+', high = c == '?' ? 1 : -1;
    if (c == '{') {
      bool ok = count(r, &low);
      high = low;
      if (ok && more(r) && *r->p == ',') {
        r->p++;
        if (!count(r, &high)) high = -1;
      }
      if (!ok || !more(r) || *r->p != '}' || (high >= 0 && high < low)) {
        REFUSE(r, VIV_BAD_INPUT, "a { without {m}, {m,} or {m,n} in the regular expression");
        return p;
      }
      r->p++;
      if (low > MAX_COUNT || high > MAX_COUNT)
        REFUSE(r, VIV_NEVER, "more than %d repetitions in a regular expression", MAX_COUNT);
    }
    if (more(r) && *r->p == '?') r->p++; /* lazy: the same texts */
    if (r->status >= 0) p = viv__net_repeat(r->g, viv__grammar_wrap(r->g, p), low, high);
  }
  return p;
}

static viv__net sequence(struct regex *r) {
  viv__net p = viv__net_empty(r->g);
  while (more(r) && *r->p != '|' && *r->p != ')') {
    if (*r->p == '$' && !r->depth && (r->p + 1 == r->end || r->p[1] == '|')) break;
    p = viv__net_then(r->g, p, repeated(r));
  }
  return p;
}

static viv__net anything(viv__grammar *g) {
  viv__charset all = {0};
  viv__charset_add(&all, 0, 0x10ffff);
  viv__net one = viv__net_chars(g, &all, true);
  viv__charset_free(&all);
  return viv__net_repeat(g, viv__grammar_wrap(g, one), 0, -1);
}

static viv__net alternatives(struct regex *r) {
  viv__net all = {-1, -1};
  bool again;
  do {
    bool outer = !r->depth, from_start = outer && more(r) && *r->p == '^';
    if (from_start) r->p++;
    viv__net one = sequence(r);
    bool to_end = outer && more(r) && *r->p == '$';
    if (to_end) r->p++;
    if (outer && !from_start) one = viv__net_then(r->g, anything(r->g), one);
    if (outer && !to_end) one = viv__net_then(r->g, one, anything(r->g));
    all = all.from < 0 ? one : viv__net_or(r->g, all, one);
    again = more(r) && *r->p == '|';
    if (again) r->p++;
  } while (again);
  return all;
}

int32_t viv__net_regex(viv__grammar *g, viv_str regex, const char *where, viv__net *out,
                       viv_error *error) {
  struct regex r = {g, regex.ptr, regex.ptr, regex.ptr + regex.len, where, error, VIV_OK, 0};
  *out = alternatives(&r);
  if (more(&r)) REFUSE(&r, VIV_BAD_INPUT, "a ) too many in the regular expression");
  return r.status;
}
