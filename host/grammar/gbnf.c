/* Reading GBNF: rules over characters. */
#include <string.h>

#include "grammar/internal.h"

enum { MAX_NAMES = 4096, MAX_COUNT = 10000, MAX_TEXT = 4 << 20 };

struct name {
  viv_str text;
  int32_t rule;
  const char *used; /* where it was first spoken of */
  bool defined;
};

struct gbnf {
  viv__grammar *g;
  const char *begin, *p, *end;
  struct name *names; /* [n] */
  int32_t n, depth, status;
  viv_error *error;
};

static void refuse(struct gbnf *b, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void refuse(struct gbnf *b, const char *at, const char *format, ...) {
  char text[160], where[48];
  int line = 1, column = 1;
  va_list args;
  if (b->status < 0) return;
  for (const char *p = b->begin; p < at; p++) {
    column = *p == '\n' ? 1 : column + 1;
    line += *p == '\n';
  }
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  snprintf(where, sizeof where, "grammar, line %d, column %d", line, column);
  b->status = VIV_FAIL(b->error, VIV_BAD_INPUT, where, "%s", text);
}

static bool more(const struct gbnf *b) {
  return b->status >= 0 && b->p < b->end;
}

/* Blanks and comments; line ends too where a rule goes on. */
static void blanks(struct gbnf *b, bool lines) {
  while (b->p < b->end) {
    if (*b->p == '#')
      while (b->p < b->end && *b->p != '\n') b->p++;
    else if (*b->p == ' ' || *b->p == '\t' || (lines && (*b->p == '\n' || *b->p == '\r')))
      b->p++;
    else
      break;
  }
}

static bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

static struct name *read_name(struct gbnf *b) {
  static struct name none;
  viv_str text = {b->p, 0};
  while (b->p < b->end && name_char(*b->p)) b->p++;
  text.len = (size_t)(b->p - text.ptr);
  for (int32_t i = 0; i < b->n; i++)
    if (viv__same(b->names[i].text, text)) return &b->names[i];
  if (!text.len) refuse(b, b->p, "a rule's name is expected");
  if (b->n == MAX_NAMES) refuse(b, b->p, "more than %d rules", MAX_NAMES);
  if (b->status < 0) return &none;
  b->names[b->n] = (struct name){text, viv__grammar_rule(b->g), text.ptr, false};
  return &b->names[b->n++];
}

static int32_t hex(struct gbnf *b, int digits) {
  int32_t v = 0;
  for (int i = 0; i < digits; i++) {
    int c = b->p < b->end ? *b->p | 32 : 0;
    int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (d < 0) {
      refuse(b, b->p, "a hexadecimal digit is missing");
      return 0;
    }
    v = v * 16 + d;
    b->p++;
  }
  if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) refuse(b, b->p, "no character has this number");
  return v;
}

/* One character, escapes resolved. */
static int32_t character(struct gbnf *b) {
  int32_t c = 0;
  int n = b->p < b->end ? viv__utf8_read(b->p, b->end, &c) : 0;
  if (!n || c == '\n' || c == '\r') {
    refuse(b, b->p, n ? "the line ends inside of a text or class" : "no UTF-8, or the end");
    return 0;
  }
  b->p += n;
  if (c != '\\') return c;
  if (b->p == b->end) {
    refuse(b, b->p, "the grammar ends after a backslash");
    return 0;
  }
  char e = *b->p++;
  switch (e) {
  case 'n':
    return '\n';
  case 'r':
    return '\r';
  case 't':
    return '\t';
  case 'x':
    return hex(b, 2);
  case 'u':
    return hex(b, 4);
  case 'U':
    return hex(b, 8);
  default:
    break;
  }
  if (!strchr("\"\\[]-^/'", e) || !e) refuse(b, b->p - 1, "an unknown escape: \\%c", e);
  return e;
}

static viv__net set_piece(struct gbnf *b, viv__charset *set) {
  viv__net p = viv__net_chars(b->g, set, false);
  viv__charset_free(set);
  return p;
}

static viv__net quoted(struct gbnf *b) {
  viv__net p = viv__net_empty(b->g);
  while (more(b) && *b->p != '"') {
    viv__charset one = {0};
    int32_t c = character(b);
    viv__charset_add(&one, c, c);
    p = viv__net_then(b->g, p, set_piece(b, &one));
  }
  if (!more(b)) refuse(b, b->p, "the text's closing \" is missing");
  b->p++;
  return p;
}

static viv__net class_of(struct gbnf *b) {
  viv__charset set = {0};
  bool negated = more(b) && *b->p == '^';
  b->p += negated;
  while (more(b) && *b->p != ']') {
    int32_t low = character(b), high = low;
    if (b->end - b->p > 1 && *b->p == '-' && b->p[1] != ']') {
      b->p++;
      high = character(b);
      if (high < low) refuse(b, b->p, "a range that goes backwards");
    }
    viv__charset_add(&set, low, high);
  }
  if (!more(b)) refuse(b, b->p, "the class's closing ] is missing");
  b->p++;
  if (negated) viv__charset_negate(&set);
  return set_piece(b, &set);
}

static viv__net alternatives(struct gbnf *b);

static viv__net group(struct gbnf *b) {
  const char *at = b->p;
  if (++b->depth > VIV__MAX_DEPTH) refuse(b, at, "groups are more than %d deep", VIV__MAX_DEPTH);
  viv__net p = b->status < 0 ? viv__net_empty(b->g) : alternatives(b);
  b->depth--;
  if (!more(b) || *b->p != ')')
    refuse(b, b->p, "a ) is missing");
  else
    b->p++;
  return p;
}

static int32_t count(struct gbnf *b) {
  int32_t n = -1;
  blanks(b, true);
  for (; b->p < b->end && *b->p >= '0' && *b->p <= '9' && n <= MAX_COUNT; b->p++)
    n = (n < 0 ? 0 : n * 10) + (*b->p - '0');
  if (n > MAX_COUNT) refuse(b, b->p, "more than %d repetitions", MAX_COUNT);
  blanks(b, true);
  return n;
}

static viv__net repeated(struct gbnf *b, viv__net p) {
  while (more(b) && strchr("*+?{", *b->p) && *b->p) {
    const char *at = b->p;
    char c = *b->p++;
    int32_t low = c == '+', high = c == '?' ? 1 : -1;
    if (c == '{') {
      low = high = count(b);
      if (more(b) && *b->p == ',') {
        b->p++;
        high = count(b);
        if (low < 0) low = 0;
      }
      if (low < 0 || (high >= 0 && high < low) || !more(b) || *b->p != '}')
        refuse(b, at, "{m}, {m,} or {m,n} is expected");
      else
        b->p++;
    }
    if (b->status >= 0) p = viv__net_repeat(b->g, viv__grammar_wrap(b->g, p), low, high);
  }
  return p;
}

static bool rule_begins(struct gbnf *b) {
  const char *p = b->p;
  while (p < b->end && name_char(*p)) p++;
  while (p < b->end && (*p == ' ' || *p == '\t')) p++;
  return b->end - p >= 3 && !memcmp(p, "::=", 3);
}

static viv__net sequence(struct gbnf *b) {
  viv__net p = viv__net_empty(b->g), one;
  for (;;) {
    blanks(b, true);
    if (!more(b) || *b->p == '|' || *b->p == ')') break;
    if (name_char(*b->p)) {
      if (rule_begins(b)) break;
      one = viv__net_rule(b->g, read_name(b)->rule);
    } else {
      char c = *b->p++;
      viv__charset all = {0};
      if (c == '"') {
        one = quoted(b);
      } else if (c == '[') {
        one = class_of(b);
      } else if (c == '(') {
        one = group(b);
      } else if (c == '.') {
        viv__charset_add(&all, 0, 0x10ffff);
        one = set_piece(b, &all);
      } else {
        refuse(b, b->p - 1, "'%c' was not expected", c < ' ' || c > '~' ? '?' : c);
        break;
      }
    }
    p = viv__net_then(b->g, p, repeated(b, one));
  }
  return p;
}

static viv__net alternatives(struct gbnf *b) {
  viv__net p = sequence(b);
  while (more(b) && *b->p == '|') {
    b->p++;
    p = viv__net_or(b->g, p, sequence(b));
  }
  return p;
}

static void read_rules(struct gbnf *b) {
  for (blanks(b, true); more(b); blanks(b, true)) {
    const char *at = b->p;
    struct name *name = read_name(b);
    int32_t i = (int32_t)(name - b->names);
    if (b->status < 0) return;
    blanks(b, false);
    if (b->end - b->p < 3 || memcmp(b->p, "::=", 3)) {
      refuse(b, b->p, "::= is expected");
      return;
    }
    b->p += 3;
    if (name->defined)
      refuse(b, at, "the rule %.*s is there twice", (int)name->text.len, name->text.ptr);
    viv__net body = alternatives(b);
    if (more(b) && *b->p == ')') refuse(b, b->p, "a ) too many");
    if (b->status < 0) return;
    b->names[i].defined = true;
    viv__grammar_define(b->g, b->names[i].rule, body);
  }
}

int32_t viv__grammar_gbnf(viv_str text, viv__grammar **out, viv_error *error) {
  struct gbnf b = {.g = viv__grammar_new(),
                   .begin = text.ptr,
                   .p = text.ptr,
                   .end = text.ptr + text.len,
                   .error = error};
  int32_t root = -1;
  *out = NULL;
  b.names = viv__calloc(MAX_NAMES, sizeof *b.names);
  if (!b.g || !b.names) b.status = VIV_FAIL(error, VIV_NOT_NOW, "grammar", "no memory");
  if (text.len > MAX_TEXT)
    b.status = VIV_FAIL(error, VIV_BAD_INPUT, "grammar", "is over 4 MiB long");
  if (b.status >= 0) read_rules(&b);
  for (int32_t i = 0; b.status >= 0 && i < b.n; i++) {
    viv_str name = b.names[i].text;
    if (!b.names[i].defined)
      refuse(&b, b.names[i].used, "the rule %.*s is not defined", (int)name.len, name.ptr);
    if (viv__str_eq(name, "root")) root = b.names[i].rule;
  }
  if (b.status >= 0 && root < 0) refuse(&b, b.end, "the rule root is missing");
  if (b.status >= 0) {
    b.g->root = root;
    b.status = viv__grammar_finish(b.g, "grammar", error);
  }
  viv__free(b.names);
  if (b.status < 0)
    viv__grammar_free(b.g);
  else
    *out = b.g;
  return b.status;
}
