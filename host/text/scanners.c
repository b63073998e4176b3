/* The patterns that well-known tokenizers split by, matched by hand: a pattern
 * is known by its exact text. Everything else goes to PCRE2 (pattern.c). */
#include "text/text.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

typedef viv__find_fn find_fn;

/* viv__class_of for most of what texts are made of. */
static const uint32_t ascii[128] = {
    ['\t' ... '\r'] = CLASS_SPACE,
    [' '] = CLASS_SPACE,
    ['!' ... '#'] = CLASS_P,
    ['%' ... '*'] = CLASS_P,
    [',' ... '/'] = CLASS_P,
    ['$'] = CLASS_S,
    ['+'] = CLASS_S,
    ['0' ... '9'] = CLASS_N | CLASS_WORD,
    [':' ... ';'] = CLASS_P,
    ['<' ... '>'] = CLASS_S,
    ['?' ... '@'] = CLASS_P,
    ['A' ... 'Z'] = CLASS_LU | CLASS_WORD,
    ['[' ... ']'] = CLASS_P,
    ['^'] = CLASS_S,
    ['_'] = CLASS_P | CLASS_WORD,
    ['`'] = CLASS_S,
    ['a' ... 'z'] = CLASS_LL | CLASS_WORD,
    ['{'] = CLASS_P,
    ['|'] = CLASS_S,
    ['}'] = CLASS_P,
    ['~'] = CLASS_S,
};

/* A cursor over characters with their classes. */
typedef struct scan {
  const char *s;
  size_t len;
} scan;

/* Class and character at `at`; at the end 0, which no class test accepts. *next
 * moves behind it. */
static uint32_t look(const scan *c, size_t at, uint32_t *cp, size_t *next) {
  if (at >= c->len) {
    *cp = 0;
    *next = at;
    return 0;
  }
  *next = at;
  *cp = viv__cp(c->s, next);
  return *cp < 0x80 ? ascii[*cp] : viv__class_of(*cp);
}

/* The end of the longest run from `at` of characters with one of these classes;
 * with `not`, of characters with none of them. At most max characters. */
static size_t run(const scan *c, size_t at, uint32_t classes, bool not, size_t max) {
  uint32_t cp;
  size_t next;
  while (at < c->len && max) {
    unsigned char ch = (unsigned char)c->s[at];
    if (ch < 0x80 && !(ascii[ch] & classes) == not ) {
      at++;
      max--;
      continue;
    }
    if (ch < 0x80) break;
    max--;
    if (!(look(c, at, &cp, &next) & classes) != not ) break;
    at = next;
  }
  return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) or, without fold, the lower-case letters only:
 * the end of the match at `at`, or `at`. Folding is Unicode's, so the long s
 * (U+017F) is an s. */
static size_t contraction(const scan *c, size_t at, bool fold) {
  static const char endings[][3] = {"s", "t", "re", "ve", "m", "ll", "d"};
  if (at >= c->len || c->s[at] != '\'') return at;
  for (size_t e = 0; e < COUNT(endings); e++) {
    size_t i = at + 1;
    const char *want = endings[e];
    for (; *want && i < c->len; want++) {
      char ch = c->s[i];
      if (fold && ch >= 'A' && ch <= 'Z') ch = (char)(ch - 'A' + 'a');
      if (ch == *want) {
        i++;
      } else if (fold && *want == 's' && c->len - i >= 2 && !memcmp(c->s + i, "\xc5\xbf", 2)) {
        i += 2;
      } else {
        break;
      }
    }
    if (!*want) return i;
  }
  return at;
}

static bool newline_at(const scan *c, size_t at) {
  return at < c->len && (c->s[at] == '\n' || c->s[at] == '\r');
}

static size_t newlines(const scan *c, size_t at) {
  while (newline_at(c, at)) at++;
  return at;
}

/* \s+(?!\S)|\s+ at `at`, which holds white space: a run before something else
 * gives up its last character, unless it is the only one. */
static size_t spaces(const scan *c, size_t at) {
  size_t end = run(c, at, CLASS_SPACE, false, SIZE_MAX);
  if (end == c->len) return end;
  size_t last = viv__cp_back(c->s, end);
  return last > at ? last : end;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+: a run is cut behind its last line break. */
static size_t spaces_or_lines(const scan *c, size_t at) {
  size_t end = run(c, at, CLASS_SPACE, false, SIZE_MAX), i = end;
  while (i > at && !newline_at(c, i - 1)) i--;
  return i > at ? i : spaces(c, at);
}

/* The end of the match of ` ?X+` where X has one of the classes (or, with not,
 * none), or `at`. */
static size_t spaced_run(const scan *c, size_t at, uint32_t classes, bool not ) {
  size_t from = at + (at < c->len && c->s[at] == ' ');
  size_t end = run(c, from, classes, not, SIZE_MAX);
  return end > from ? end : at;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t gpt2_at(const scan *c, size_t at) {
  size_t end = contraction(c, at, false);
  if (end == at) end = spaced_run(c, at, CLASS_L, false);
  if (end == at) end = spaced_run(c, at, CLASS_N, false);
  if (end == at) end = spaced_run(c, at, CLASS_SPACE | CLASS_L | CLASS_N, true);
  return end == at ? spaces(c, at) : end;
}

/* The end of [^\r\n\p{L}\p{N}]? at `at`. */
static size_t word_prefix(const scan *c, size_t at) {
  uint32_t cp;
  size_t next;
  uint32_t class = look(c, at, &cp, &next);
  return class & (CLASS_L | CLASS_N) || cp == '\n' || cp == '\r' ? at : next;
}

/* (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}|
 * ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+| \s+(?!\S)|\s+ */
static size_t cl100k_like_at(const scan *c, size_t at, size_t digits) {
  size_t end = contraction(c, at, true);
  if (end > at) return end;
  size_t from = word_prefix(c, at);
  end = run(c, from, CLASS_L, false, SIZE_MAX);
  if (end > from) return end;
  end = run(c, at, CLASS_N, false, digits);
  if (end > at) return end;
  end = spaced_run(c, at, CLASS_SPACE | CLASS_L | CLASS_N, true);
  if (end > at) return newlines(c, end);
  return spaces_or_lines(c, at);
}

static size_t cl100k_at(const scan *c, size_t at) {
  return cl100k_like_at(c, at, 3);
}

static size_t qwen2_at(const scan *c, size_t at) {
  return cl100k_like_at(c, at, 1);
}

enum {
  UPPER = CLASS_LU | CLASS_LT | CLASS_LM | CLASS_LO | CLASS_M,
  LOWER = CLASS_LL | CLASS_LM | CLASS_LO | CLASS_M
};

/* [UPPER]*[LOWER]+ at `at`: the end of the match or `at`. The classes overlap,
 * so where nothing but LOWER follows the upper run, that run gives back up to
 * its last character that is LOWER too. */
static size_t upper_lower(const scan *c, size_t at) {
  size_t end = run(c, at, UPPER, false, SIZE_MAX);
  size_t lower = run(c, end, LOWER, false, SIZE_MAX);
  if (lower > end) return lower;
  while (end > at) {
    size_t before = viv__cp_back(c->s, end), next;
    uint32_t cp;
    if (look(c, before, &cp, &next) & LOWER) return end;
    end = before;
  }
  return at;
}

/* [UPPER]+[LOWER]* */
static size_t upper_then_lower(const scan *c, size_t at) {
  size_t end = run(c, at, UPPER, false, SIZE_MAX);
  return end > at ? run(c, end, LOWER, false, SIZE_MAX) : at;
}

/* The o200k pattern and its kin. Both word forms may begin with one character
 * that is no letter, digit or line break; a mark may be that prefix or the
 * word's first character, so both are tried, the prefix first. */
static size_t o200k_like_at(const scan *c, size_t at, size_t digits, bool endings) {
  size_t from = word_prefix(c, at), end;
  for (int form = 0; form < 2; form++) {
    size_t (*word)(const scan *, size_t) = form ? upper_then_lower : upper_lower;
    end = word(c, from);
    if (end <= from) end = from > at ? word(c, at) : at;
    if (end > at) return endings ? contraction(c, end, true) : end;
  }
  end = run(c, at, CLASS_N, false, digits);
  if (end > at) return end;
  end = spaced_run(c, at, CLASS_SPACE | CLASS_L | CLASS_N, true);
  if (end > at) {
    while (newline_at(c, end) || (end < c->len && c->s[end] == '/')) end++;
    return end;
  }
  return spaces_or_lines(c, at);
}

static size_t o200k_at(const scan *c, size_t at) {
  return o200k_like_at(c, at, 3, true);
}

static size_t tekken_at(const scan *c, size_t at) {
  return o200k_like_at(c, at, 1, false);
}

/* These patterns match at every position, so finding is matching. */
#define FIND_HERE(name, at_fn)                                                                     \
  static bool name(const char *text, size_t len, size_t from, size_t *start, size_t *end) {        \
    scan c = {text, len};                                                                          \
    if (from >= len) return false;                                                                 \
    *start = from;                                                                                 \
    *end = at_fn(&c, from);                                                                        \
    return true;                                                                                   \
  }
FIND_HERE(find_gpt2, gpt2_at)
FIND_HERE(find_cl100k, cl100k_at)
FIND_HERE(find_qwen2, qwen2_at)
FIND_HERE(find_o200k, o200k_at)
FIND_HERE(find_tekken, tekken_at)

/* A run of at most max characters of these classes, wherever it begins. */
static bool find_run(const char *text, size_t len, size_t from, uint32_t classes, size_t max,
                     size_t *start, size_t *end) {
  scan c = {text, len};
  *start = run(&c, from, classes, true, SIZE_MAX);
  *end = run(&c, *start, classes, false, max);
  return *end > *start;
}

static bool find_digit(const char *text, size_t len, size_t from, size_t *start, size_t *end) {
  return find_run(text, len, from, CLASS_N, 1, start, end);
}

static bool find_digits3(const char *text, size_t len, size_t from, size_t *start, size_t *end) {
  return find_run(text, len, from, CLASS_N, 3, start, end);
}

static bool find_digits(const char *text, size_t len, size_t from, size_t *start, size_t *end) {
  return find_run(text, len, from, CLASS_N, SIZE_MAX, start, end);
}

static bool find_spaces(const char *text, size_t len, size_t from, size_t *start, size_t *end) {
  return find_run(text, len, from, CLASS_SPACE, SIZE_MAX, start, end);
}

const char viv__gpt2_regex[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
                               "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static const struct {
  const char *text;
  find_fn find;
} patterns[] = {
    {viv__gpt2_regex, find_gpt2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_cl100k},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_qwen2},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{"
     "Lm}\\p{Lo}\\p{M}]+"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{"
     "Lm}\\p{Lo}\\p{M}]*"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_o200k},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{"
     "Lm}\\p{Lo}\\p{M}]+|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{"
     "Lm}\\p{Lo}\\p{M}]*|"
     "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_tekken},
    {"\\p{N}{1,3}", find_digits3},
    {"\\p{N}", find_digit},
    {"\\p{N}+", find_digits},
    {"\\s+", find_spaces},
};

viv__find_fn viv__known_pattern(const char *regex) {
  for (size_t i = 0; i < COUNT(patterns); i++)
    if (!strcmp(patterns[i].text, regex)) return patterns[i].find;
  return NULL;
}
