/* Template text to tokens.
 *
 * White space around tags goes by these rules: '-' inside a tag's mark eats all of it on that side;
 * a block or comment that stands alone at the beginning of its line eats what is before it on the
 * line (lstrip_blocks), and the one line break behind it (trim_blocks); '+' keeps both. Tags that
 * print eat nothing by themselves. */
#include <ctype.h>
#include <string.h>

#include "template/internal.h"

struct lexer {
  vm *v;
  const char *s; /* the whole template, line breaks made LF */
  size_t len, at;
  struct token *tokens;
  size_t n, cap;
  bool line_start; /* what came before ended a line */
};

static struct token *add(struct lexer *l, int type, size_t offset) {
  if (l->n == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 64;
    struct token *grown = viv__t_alloc(l->v, cap * sizeof *grown);
    if (l->n) memcpy(grown, l->tokens, l->n * sizeof *grown);
    l->tokens = grown;
    l->cap = cap;
  }
  struct token *t = &l->tokens[l->n++];
  *t = (struct token){.type = type, .offset = offset};
  return t;
}

static bool starts(const struct lexer *l, size_t at, const char *text) {
  size_t n = strlen(text);
  return at + n <= l->len && !memcmp(l->s + at, text, n);
}

/* How many bytes of white space begin at `at`. */
static size_t spaces(const struct lexer *l, size_t at) {
  size_t from = at;
  while (at < l->len) {
    int n;
    if (!viv__t_space(viv__t_cp(l->s + at, l->len - at, &n))) break;
    at += (size_t)n;
  }
  return at - from;
}

/* The end of [from, to) without white space at its end. */
static size_t trimmed(const struct lexer *l, size_t from, size_t to) {
  while (to > from) {
    size_t i = to - 1;
    int n;
    while (i > from && (l->s[i] & 0xc0) == 0x80) i--;
    if (!viv__t_space(viv__t_cp(l->s + i, to - i, &n))) break;
    to = i;
  }
  return to;
}

/* Text up to a tag whose mark is followed by sign; `prints`: the tag is {{. */
static void data(struct lexer *l, size_t from, size_t to, char sign, bool prints) {
  if (sign == '-') {
    to = trimmed(l, from, to);
  } else if (sign != '+' && !prints) {
    size_t line = to;
    while (line > from && l->s[line - 1] != '\n') line--;
    if ((line > from || l->line_start) && line < to && trimmed(l, line, to) == line) to = line;
  }
  if (to == from) return;
  struct token *t = add(l, TK_DATA, from);
  t->val = viv__t_share(l->v, l->s + from, to - from);
  t->text = t->val.s;
}

static char sign_at(const struct lexer *l, size_t at) {
  return at < l->len && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
}

/* Steps over a tag's end at `at` (the mark's length is 2, a sign before it counted by the caller)
 * and what it eats. */
static void after_tag(struct lexer *l, size_t at, char sign, bool trims) {
  at += 2;
  if (sign == '-')
    at += spaces(l, at);
  else if (trims && sign != '+' && at < l->len && l->s[at] == '\n')
    at++;
  l->at = at;
  l->line_start = at && l->s[at - 1] == '\n';
}

static _Noreturn void fail_at(struct lexer *l, size_t at, const char *message) {
  l->v->at = at;
  viv__t_fail(l->v, VIV_BAD_INPUT, "%s", message);
}

static void comment(struct lexer *l, size_t from) {
  size_t at = from + 2;
  while (!starts(l, at, "#}")) {
    if (at >= l->len) fail_at(l, from, "Missing end of comment tag");
    at++;
  }
  char sign = at > from + 2 ? sign_at(l, at - 1) : 0;
  after_tag(l, at, sign, true);
}

/* {% raw %} at `from`: answers where its inner text begins, 0 when it is another tag. */
static size_t raw_begin(struct lexer *l, size_t from) {
  size_t at = from + 2;
  if (sign_at(l, at)) at++;
  at += spaces(l, at);
  if (!starts(l, at, "raw")) return 0;
  at += 3;
  at += spaces(l, at);
  bool eats = starts(l, at, "-%}");
  at += eats;
  if (!starts(l, at, "%}")) return 0;
  at += 2;
  return eats ? at + spaces(l, at) : at;
}

static void raw(struct lexer *l, size_t from, size_t inner) {
  l->line_start = l->s[inner - 1] == '\n';
  for (size_t at = inner; at < l->len; at++) {
    if (!starts(l, at, "{%")) continue;
    char before = sign_at(l, at + 2);
    size_t end = at + 2 + (before != 0);
    end += spaces(l, end);
    if (!starts(l, end, "endraw")) continue;
    end += 6;
    end += spaces(l, end);
    char after = sign_at(l, end);
    end += after != 0;
    if (!starts(l, end, "%}")) continue;
    data(l, inner, at, before, false);
    after_tag(l, end, after, true);
    return;
  }
  fail_at(l, from, "Missing end of raw directive");
}

/* ---- inside of tags ---- */

static uint32_t hex_escape(struct lexer *l, size_t at, int digits) {
  uint32_t cp = 0;
  for (int i = 0; i < digits; i++) {
    char c = at + (size_t)i < l->len ? l->s[at + (size_t)i] : 0;
    int d = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : -1;
    if (d < 0) fail_at(l, at, "truncated escape sequence in a string");
    cp = cp << 4 | (uint32_t)d;
  }
  if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
    fail_at(l, at, "an escape sequence in a string names no character");
  return cp;
}

/* What stands behind a backslash at l->s[at]; answers how many bytes were read. */
static size_t escape(struct lexer *l, size_t at, struct text *out) {
  static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
  char c = l->s[at];
  const char *known = c ? strchr(from, c) : NULL;
  if (c == '\n') return 1; /* a line goes on */
  if (known) {
    viv__t_put(l->v, out, to + (known - from), 1);
    return 1;
  }
  if (c >= '0' && c <= '7') {
    uint32_t cp = 0;
    size_t n = 0;
    while (n < 3 && l->s[at + n] >= '0' && l->s[at + n] <= '7')
      cp = cp * 8 + (uint32_t)(l->s[at + n++] - '0');
    viv__t_put_cp(l->v, out, cp);
    return n;
  }
  if (c == 'N') fail_at(l, at, "characters by name (\\N{...}) are not offered");
  int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits) {
    viv__t_put_cp(l->v, out, hex_escape(l, at + 1, digits));
    return 1 + (size_t)digits;
  }
  viv__t_put(l->v, out, "\\", 1); /* unknown: both characters stay */
  return 0;
}

static void string(struct lexer *l) {
  char quote = l->s[l->at];
  size_t from = l->at, at = from + 1;
  struct text out = {0};
  while (at < l->len && l->s[at] != quote) {
    if (l->s[at] == '\\' && at + 1 < l->len) {
      at++;
      at += escape(l, at, &out);
    } else {
      viv__t_put(l->v, &out, l->s + at++, 1);
    }
  }
  if (at >= l->len) fail_at(l, from, "unexpected char: a string is not closed");
  struct token *t = add(l, TK_STRING, from);
  t->val = viv__t_text(l->v, &out);
  t->text = t->val.s;
  l->at = at + 1;
}

static bool dec(char c) {
  return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; answers where they end. */
static size_t digits_end(const struct lexer *l, size_t at) {
  while (at < l->len && (dec(l->s[at]) || (l->s[at] == '_' && at && dec(l->s[at - 1]) &&
                                           at + 1 < l->len && dec(l->s[at + 1]))))
    at++;
  return at;
}

static void number(struct lexer *l) {
  size_t from = l->at, end = digits_end(l, from);
  bool real = false;
  struct token *t;
  if (l->s[from] == '0' && from + 1 < l->len && strchr("xXbBoO", l->s[from + 1])) {
    end = from + 2;
    while (end < l->len && (isalnum((unsigned char)l->s[end]) || l->s[end] == '_')) end++;
  } else {
    if (end + 1 < l->len && l->s[end] == '.' && dec(l->s[end + 1])) {
      real = true;
      end = digits_end(l, end + 1);
    }
    if (end < l->len && (l->s[end] == 'e' || l->s[end] == 'E')) {
      size_t e = end + 1;
      if (e < l->len && (l->s[e] == '+' || l->s[e] == '-')) e++;
      if (e < l->len && dec(l->s[e])) {
        real = true;
        end = digits_end(l, e);
      }
    }
  }
  t = add(l, real ? TK_FLOAT : TK_INT, from);
  t->text = viv__t_share(l->v, l->s + from, end - from).s;
  wide i = 0;
  double f = 0;
  if (real ? !viv__t_read_float(l->s + from, end - from, &f)
           : !viv__t_read_int(l->s + from, end - from, 0, &i))
    fail_at(l, from, "a number can't be read, or has more than 127 bits");
  t->val = real ? viv__t_float(f) : viv__t_int(i);
  l->at = end;
}

static void name(struct lexer *l) {
  size_t from = l->at, at = from;
  while (at < l->len) {
    int n;
    if (!viv__t_word(viv__t_cp(l->s + at, l->len - at, &n))) break;
    at += (size_t)n;
  }
  struct token *t = add(l, TK_NAME, from);
  t->text = viv__t_share(l->v, l->s + from, at - from).s;
  l->at = at;
}

static void symbol(struct lexer *l, char *open, size_t *depth) {
  static const int twos[] = {OP2('*', '*'), OP2('/', '/'), OP2('=', '='),
                             OP2('!', '='), OP2('>', '='), OP2('<', '=')};
  enum { MAX_OPEN = 256 };
  char c = l->s[l->at];
  int op = (unsigned char)c;
  if (l->at + 1 < l->len)
    for (size_t i = 0; i < sizeof twos / sizeof *twos; i++)
      if (twos[i] == OP2((unsigned char)c, (unsigned char)l->s[l->at + 1])) op = twos[i];
  if (op < 256 && (!c || !strchr("+-/*%~[](){}<>=.:|,;", c))) {
    char message[40];
    snprintf(message, sizeof message, "unexpected char '%c'", (c & 0x80) || c < ' ' ? '?' : c);
    fail_at(l, l->at, message);
  }
  if (strchr("([{", c)) {
    if (*depth == MAX_OPEN) fail_at(l, l->at, "too many open brackets");
    open[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
  } else if (strchr(")]}", c)) {
    if (!*depth || open[--*depth] != c) {
      char message[40];
      snprintf(message, sizeof message, "unexpected '%c'", c);
      fail_at(l, l->at, message);
    }
  }
  add(l, TK_OP, l->at)->op = op;
  l->at += op < 256 ? 1 : 2;
}

/* The inside of {{ }} (prints) or {% %}. */
static void tag(struct lexer *l, size_t from, bool prints) {
  char open[256];
  size_t depth = 0;
  const char *end = prints ? "}}" : "%}";
  add(l, prints ? TK_VAR_BEGIN : TK_BLOCK_BEGIN, from);
  l->at = from + 2 + (sign_at(l, from + 2) != 0);
  for (;;) {
    l->at += spaces(l, l->at);
    viv__t_step(l->v, 1);
    if (l->at >= l->len) return; /* the parser says what is missing */
    char sign = sign_at(l, l->at);
    if (sign == '+' && prints) sign = 0;
    if (!depth && starts(l, l->at + (sign != 0), end)) {
      add(l, prints ? TK_VAR_END : TK_BLOCK_END, l->at);
      after_tag(l, l->at + (sign != 0), sign, !prints);
      return;
    }
    int n;
    uint32_t cp = viv__t_cp(l->s + l->at, l->len - l->at, &n);
    if (dec(l->s[l->at]))
      number(l);
    else if (viv__t_word(cp))
      name(l);
    else if (cp == '"' || cp == '\'')
      string(l);
    else
      symbol(l, open, &depth);
  }
}

struct token *viv__t_lex(vm *v) {
  struct lexer l = {.v = v, .s = v->source.ptr, .len = v->source.len, .line_start = true};
  while (l.at < l.len) {
    size_t from = l.at, at = from;
    while (at < l.len &&
           !(l.s[at] == '{' && at + 1 < l.len && strchr("{%#", l.s[at + 1]) && l.s[at + 1]))
      at++;
    if (at >= l.len) {
      data(&l, from, at, '+', true);
      break;
    }
    char kind = l.s[at + 1];
    data(&l, from, at, sign_at(&l, at + 2), kind == '{');
    size_t inner = kind == '%' ? raw_begin(&l, at) : 0;
    if (kind == '#')
      comment(&l, at);
    else if (inner)
      raw(&l, at, inner);
    else
      tag(&l, at, kind == '{');
  }
  add(&l, TK_END, l.len);
  return l.tokens;
}
