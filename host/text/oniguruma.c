/* The regular expressions of tokenizer.json are Oniguruma's; this gives PCRE2's
 * words for them.
 *
 * What differs, and matters to tokenizers:
 *   \s \w \h \v \b   other characters, so they become explicit classes
 *   \p{Greek}        a script there, script extensions here; long names of
 * categories X{2,3}+          a repetition of a repetition there, possessive
 * here
 *   {,n}  (?m)  \uHHHH  [a[bc]]   other spellings
 *   [a&&b], negated sets in sets, (?x): refused */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/text.h"

#include <ctype.h>
#include <pcre2.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { MAX_DEPTH = 64 };

#define SPACES                                                                                     \
  "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"                       \
  "\\x{202f}\\x{205f}"                                                                             \
  "\\x{3000}"
#define NO_SPACES                                                                                  \
  "\\x00-\\x08\\x0e-\\x1f!-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}"                     \
  "\\x{200b}-\\x{2027}"                                                                            \
  "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"                        \
  "10ffff}"
#define WORDS                                                                                      \
  "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe\\x{24b6}-\\x{"                      \
  "24e9}"                                                                                          \
  "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

typedef struct reader {
  viv_str in;
  size_t at;
  viv__buf *out;
  const char *why;
  size_t group[MAX_DEPTH]; /* where the open groups begin in out */
  size_t depth;
  size_t atom; /* where the last atom begins in out; SIZE_MAX: none */
} reader;

static bool refuse(reader *r, const char *why) {
  if (!r->why) r->why = why;
  return false;
}

static int peek(const reader *r, size_t ahead) {
  return r->at + ahead < r->in.len ? (unsigned char)r->in.ptr[r->at + ahead] : -1;
}

static void put(reader *r, const char *text) {
  viv__buf_str(r->out, text);
}

/* Encloses what was written since `from` in (?:...). */
static void enclose(reader *r, size_t from) {
  size_t len = r->out->len - from;
  viv__buf_add(r->out, "(?:)", 4);
  if (r->out->failed) return;
  char *at = r->out->ptr + from;
  memmove(at + 3, at, len);
  memcpy(at, "(?:", 3);
  at[3 + len] = ')';
}

/* Writes a set of characters, given as what stands between brackets. */
static bool put_set(reader *r, const char *set, const char *complement, bool negated,
                    bool in_class) {
  if (in_class && negated && !complement)
    return refuse(r, "a negated set within a set is not supported");
  if (in_class) {
    put(r, negated ? complement : set);
    return true;
  }
  put(r, negated ? "[^" : "[");
  put(r, set);
  put(r, "]");
  return true;
}

/* ---- properties ---- */

static const struct {
  const char *name, *set, *complement;
} properties[] = {
    {"letter", "\\p{L}", "\\P{L}"},
    {"uppercaseletter", "\\p{Lu}", "\\P{Lu}"},
    {"lowercaseletter", "\\p{Ll}", "\\P{Ll}"},
    {"titlecaseletter", "\\p{Lt}", "\\P{Lt}"},
    {"casedletter", "\\p{L&}", "\\P{L&}"},
    {"modifierletter", "\\p{Lm}", "\\P{Lm}"},
    {"otherletter", "\\p{Lo}", "\\P{Lo}"},
    {"mark", "\\p{M}", "\\P{M}"},
    {"combiningmark", "\\p{M}", "\\P{M}"},
    {"nonspacingmark", "\\p{Mn}", "\\P{Mn}"},
    {"spacingmark", "\\p{Mc}", "\\P{Mc}"},
    {"enclosingmark", "\\p{Me}", "\\P{Me}"},
    {"number", "\\p{N}", "\\P{N}"},
    {"decimalnumber", "\\p{Nd}", "\\P{Nd}"},
    {"letternumber", "\\p{Nl}", "\\P{Nl}"},
    {"othernumber", "\\p{No}", "\\P{No}"},
    {"punctuation", "\\p{P}", "\\P{P}"},
    {"connectorpunctuation", "\\p{Pc}", "\\P{Pc}"},
    {"dashpunctuation", "\\p{Pd}", "\\P{Pd}"},
    {"openpunctuation", "\\p{Ps}", "\\P{Ps}"},
    {"closepunctuation", "\\p{Pe}", "\\P{Pe}"},
    {"initialpunctuation", "\\p{Pi}", "\\P{Pi}"},
    {"finalpunctuation", "\\p{Pf}", "\\P{Pf}"},
    {"otherpunctuation", "\\p{Po}", "\\P{Po}"},
    {"symbol", "\\p{S}", "\\P{S}"},
    {"mathsymbol", "\\p{Sm}", "\\P{Sm}"},
    {"currencysymbol", "\\p{Sc}", "\\P{Sc}"},
    {"modifiersymbol", "\\p{Sk}", "\\P{Sk}"},
    {"othersymbol", "\\p{So}", "\\P{So}"},
    {"separator", "\\p{Z}", "\\P{Z}"},
    {"spaceseparator", "\\p{Zs}", "\\P{Zs}"},
    {"lineseparator", "\\p{Zl}", "\\P{Zl}"},
    {"paragraphseparator", "\\p{Zp}", "\\P{Zp}"},
    {"other", "\\p{C}", "\\P{C}"},
    {"control", "\\p{Cc}", "\\P{Cc}"},
    {"cntrl", "\\p{Cc}", "\\P{Cc}"},
    {"format", "\\p{Cf}", "\\P{Cf}"},
    {"privateuse", "\\p{Co}", "\\P{Co}"},
    {"unassigned", "\\p{Cn}", "\\P{Cn}"},
    {"any", "\\p{Any}", "\\P{Any}"},
    {"assigned", "\\P{Cn}", "\\p{Cn}"},
    {"alpha", "\\p{Alphabetic}", "\\P{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}", NULL},
    {"digit", "\\p{Nd}", "\\P{Nd}"},
    {"lower", "\\p{Lowercase}", "\\P{Lowercase}"},
    {"upper", "\\p{Uppercase}", "\\P{Uppercase}"},
    {"space", SPACES, NO_SPACES},
    {"whitespace", SPACES, NO_SPACES},
    {"word", WORDS, NULL},
    {"punct", "\\p{P}\\p{S}", NULL},
    {"xdigit", "0-9A-Fa-f", "\\x00-/:-@G-`g-\\x{10ffff}"},
    {"ascii", "\\x00-\\x7f", "\\x80-\\x{10ffff}"},
};

static bool compiles(const char *pattern) {
  int code;
  PCRE2_SIZE at;
  pcre2_code *c =
      pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
  pcre2_code_free(c);
  return c != NULL;
}

static bool put_property(reader *r, const char *name, size_t len, bool negated, bool in_class) {
  char plain[48], spelled[48];
  size_t n = 0;
  if (len && name[0] == '^') {
    negated = !negated;
    name++;
    len--;
  }
  if (!len || len >= sizeof spelled) return refuse(r, "an unknown property");
  memcpy(spelled, name, len);
  spelled[len] = 0;
  for (size_t i = 0; i < len; i++) {
    if (name[i] == ' ' || name[i] == '_' || name[i] == '-') continue;
    if (!isalnum((unsigned char)name[i])) return refuse(r, "an unknown property");
    plain[n++] = (char)tolower((unsigned char)name[i]);
  }
  plain[n] = 0;
  for (size_t i = 0; i < COUNT(properties); i++)
    if (!strcmp(properties[i].name, plain))
      return put_set(r, properties[i].set, properties[i].complement, negated, in_class);
  char pattern[72];
  if (n <= 2) {
    plain[0] = (char)toupper((unsigned char)plain[0]);
    snprintf(pattern, sizeof pattern, "\\p{%s}", plain);
  } else {
    /* A script is what stands in no list of extensions. */
    snprintf(pattern, sizeof pattern, "\\p{sc:%s}", spelled);
    if (!compiles(pattern)) snprintf(pattern, sizeof pattern, "\\p{%s}", spelled);
  }
  if (!compiles(pattern)) return refuse(r, "an unknown property");
  if (negated) pattern[1] = 'P';
  put(r, pattern);
  return true;
}

/* ---- escapes ---- */

static int hex_value(int ch) {
  return ch >= '0' && ch <= '9'   ? ch - '0'
         : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
         : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                  : -1;
}

/* Reads 1 to `most` hexadecimal digits. */
static bool read_hex(reader *r, size_t most, uint32_t *value) {
  size_t n = 0;
  for (*value = 0; n < most && hex_value(peek(r, 0)) >= 0; n++)
    *value = *value * 16 + (uint32_t)hex_value(r->in.ptr[r->at++]);
  return n > 0;
}

static bool put_character(reader *r, uint32_t cp) {
  char text[16];
  if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) return refuse(r, "no such character");
  snprintf(text, sizeof text, "\\x{%x}", (unsigned)cp);
  put(r, text);
  return true;
}

/* \uHHHH, \x{H...} and \xHH; r->at stands behind the letter. */
static bool hex_escape(reader *r, char letter) {
  uint32_t cp;
  if (letter == 'u') {
    size_t start = r->at;
    if (!read_hex(r, 4, &cp) || r->at - start != 4) return refuse(r, "\\u needs four digits");
    return put_character(r, cp);
  }
  if (peek(r, 0) == '{') {
    r->at++;
    if (!read_hex(r, 8, &cp) || peek(r, 0) != '}') return refuse(r, "a broken \\x{...}");
    r->at++;
    return put_character(r, cp);
  }
  if (!read_hex(r, 2, &cp)) return refuse(r, "\\x needs digits");
  if (cp >= 0x80) return refuse(r, "\\x of a single byte of UTF-8 is not supported");
  return put_character(r, cp);
}

static bool property_escape(reader *r, bool negated, bool in_class) {
  size_t end = r->at;
  if (peek(r, 0) != '{') return refuse(r, "\\p needs a name in braces");
  while (end < r->in.len && r->in.ptr[end] != '}') end++;
  if (end == r->in.len) return refuse(r, "a broken \\p{...}");
  const char *name = r->in.ptr + r->at + 1;
  size_t len = end - r->at - 1;
  r->at = end + 1;
  return put_property(r, name, len, negated, in_class);
}

/* An escape; r->at stands on the backslash. */
static bool escape(reader *r, bool in_class) {
  int ch = peek(r, 1);
  if (ch < 0) return refuse(r, "a backslash at the end");
  r->at += 2;
  char pair[3] = {'\\', (char)ch, 0};
  switch (ch) {
  case 's':
  case 'S':
    return put_set(r, SPACES, NO_SPACES, ch == 'S', in_class);
  case 'w':
  case 'W':
    return put_set(r, WORDS, NULL, ch == 'W', in_class);
  case 'h':
  case 'H':
    return put_set(r, "0-9A-Fa-f", "\\x00-/:-@G-`g-\\x{10ffff}", ch == 'H', in_class);
  case 'p':
  case 'P':
    return property_escape(r, ch == 'P', in_class);
  case 'u':
  case 'x':
    return hex_escape(r, (char)ch);
  case 'v':
    put(r, "\\x0b");
    return true;
  case 'b':
  case 'B':
    if (in_class && ch == 'B') return refuse(r, "\\B in a set");
    if (in_class)
      put(r, pair);
    else
      put(r, ch == 'b' ? "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))"
                       : "(?:(?<=[" WORDS "])(?=[" WORDS "])|(?<![" WORDS "])(?![" WORDS "]))");
    return true;
  default:
    break;
  }
  if (ch >= 0x80 || !isalnum(ch)) {
    /* A literal; PCRE2 wants no backslash before what is not ASCII. */
    size_t len = viv__cp_len((char)ch);
    if (ch >= 0x80)
      viv__buf_add(r->out, r->in.ptr + r->at - 1, len);
    else
      put(r, pair);
    if (!ch) viv__buf_add(r->out, "", 1);
    r->at += len - 1;
    return true;
  }
  if (strchr(in_class ? "dDntrfae01234567" : "dDntrfaeAzZGRXKk0123456789", ch)) {
    put(r, pair);
    return true;
  }
  return refuse(r, "an escape that is not supported");
}

/* ---- sets ---- */

static bool posix_class(reader *r, bool *done) {
  const char *end;
  *done = false;
  if (peek(r, 1) != ':') return true;
  const char *start = r->in.ptr + r->at + 2;
  size_t left = r->in.len - r->at - 2;
  end = memmem(start, left, ":]", 2);
  if (!end || end - start > 20) return true;
  *done = true;
  r->at += (size_t)(end - start) + 4;
  return put_property(r, start, (size_t)(end - start), false, true);
}

/* The inside of a set; r->at stands behind its bracket (and ^). */
static bool set_inside(reader *r, size_t depth) {
  bool first = true;
  if (depth > MAX_DEPTH) return refuse(r, "sets too deep in one another");
  for (; r->at < r->in.len; first = false) {
    int ch = peek(r, 0);
    bool done = false;
    if (ch == ']' && !first) {
      r->at++;
      return true;
    }
    if (ch == '&' && peek(r, 1) == '&') return refuse(r, "&& in a set is not supported");
    if (ch == '\\') {
      if (!escape(r, true)) return false;
      continue;
    }
    if (ch == '[') {
      if (!posix_class(r, &done)) return false;
      if (done) continue;
      if (peek(r, 1) == '^') return refuse(r, "a negated set within a set is not supported");
      r->at++;
      if (!set_inside(r, depth + 1)) return false;
      continue;
    }
    if (ch == ']' || ch == '[') put(r, "\\");
    viv__buf_add(r->out, r->in.ptr + r->at, 1);
    r->at++;
  }
  return refuse(r, "a set without its end");
}

static bool set(reader *r) {
  r->atom = r->out->len;
  put(r, "[");
  r->at++;
  if (peek(r, 0) == '^') {
    put(r, "^");
    r->at++;
  }
  if (!set_inside(r, 0)) return false;
  put(r, "]");
  return true;
}

/* ---- repetitions ---- */

/* {n}, {n,}, {,m} and {n,m}: false if the brace is a literal one. */
static bool interval(reader *r, bool *single) {
  size_t i = r->at + 1, digits[2] = {0, 0}, part = 0;
  const char *s = r->in.ptr;
  for (; i < r->in.len && s[i] != '}'; i++) {
    if (s[i] == ',' && !part)
      part = 1;
    else if (s[i] >= '0' && s[i] <= '9')
      digits[part]++;
    else
      return false;
  }
  if (i == r->in.len || !(digits[0] + digits[1])) return false;
  put(r, digits[0] ? "{" : "{0");
  viv__buf_add(r->out, s + r->at + 1, i - r->at);
  r->at = i + 1;
  *single = !part;
  return true;
}

/* One repetition of the last atom, with its mode. False: none stands here. */
static bool repetition(reader *r) {
  int ch = peek(r, 0);
  bool single = false, braces = ch == '{';
  size_t from = r->atom;
  if (from == SIZE_MAX) return false;
  if (ch == '*' || ch == '+' || ch == '?') {
    viv__buf_add(r->out, r->in.ptr + r->at++, 1);
  } else if (!braces || !interval(r, &single)) {
    return false;
  }
  ch = peek(r, 0);
  if (ch == '?' && !single) {
    put(r, "?");
    r->at++;
  } else if (ch == '+' && !braces) {
    put(r, "+");
    r->at++;
  }
  ch = peek(r, 0);
  if (ch == '*' || ch == '+' || ch == '?' || ch == '{') enclose(r, from);
  return true;
}

/* ---- groups ---- */

/* (?i), (?m:...), (?i-m): m is "the dot takes line breaks" there, s here. */
static bool options(reader *r) {
  for (; r->at < r->in.len; r->at++) {
    char ch = r->in.ptr[r->at];
    if (ch == ':' || ch == ')') {
      if (ch == ')') r->depth--;
      viv__buf_add(r->out, r->in.ptr + r->at++, 1);
      return true;
    }
    if (ch != 'i' && ch != 'm' && ch != '-')
      return refuse(r, "an option other than i and m is not supported");
    viv__buf_add(r->out, ch == 'm' ? "s" : &ch, 1);
  }
  return refuse(r, "a group without its end");
}

static bool open_group(reader *r) {
  if (r->depth == MAX_DEPTH) return refuse(r, "groups too deep in one another");
  r->group[r->depth++] = r->out->len;
  r->atom = SIZE_MAX;
  r->at++;
  put(r, "(");
  if (peek(r, 0) != '?') return true;
  int kind = peek(r, 1), after = peek(r, 2);
  if (kind == '#') {
    while (r->at < r->in.len && r->in.ptr[r->at] != ')') r->at++;
    r->at++;
    r->depth--;
    r->out->len--;
    return r->at <= r->in.len || refuse(r, "a comment without its end");
  }
  size_t len = kind == ':' || kind == '=' || kind == '!' || kind == '>' ? 2
               : kind == '<' && (after == '=' || after == '!')          ? 3
                                                                        : 0;
  if (len || kind == '<' || kind == '\'') {
    if (!len) len = 2; /* a name, whose characters pass as they are */
    viv__buf_add(r->out, r->in.ptr + r->at, len);
    r->at += len;
    if (len == 2 && (kind == '<' || kind == '\''))
      while (r->at < r->in.len && r->in.ptr[r->at] != (kind == '<' ? '>' : '\''))
        viv__buf_add(r->out, r->in.ptr + r->at++, 1);
    return true;
  }
  put(r, "?");
  r->at++;
  return options(r);
}

static bool item(reader *r) {
  int ch = peek(r, 0);
  if (repetition(r)) return true;
  switch (ch) {
  case '(':
    return open_group(r);
  case ')':
    if (!r->depth) return refuse(r, "a bracket that closes nothing");
    r->atom = r->group[--r->depth];
    break;
  case '[':
    return set(r);
  case '|':
  case '^':
    r->atom = SIZE_MAX;
    break;
  case '\\':
    r->atom = r->out->len;
    return escape(r, false);
  case '{':
    r->atom = r->out->len;
    put(r, "\\"); /* a literal brace */
    break;
  default:
    r->atom = r->out->len;
    break;
  }
  size_t len = viv__cp_len((char)ch);
  viv__buf_add(r->out, r->in.ptr + r->at, len);
  r->at += len;
  return true;
}

bool viv__oniguruma(viv_str regex, viv__buf *out, const char **why, size_t *at) {
  reader r = {.in = regex, .out = out, .atom = SIZE_MAX};
  bool ok = true;
  while (ok && r.at < regex.len && !out->failed) ok = item(&r);
  if (ok && r.depth) ok = refuse(&r, "a group without its end");
  *why = r.why;
  *at = r.at;
  return ok && !out->failed;
}
