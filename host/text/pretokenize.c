/* Normalisers and pre-tokenizers of tokenizer.json.
 *
 * A pre-tokenizer cuts each piece that the one before it left. The regular expressions that
 * published tokenizers split by are known by their exact text and matched by hand-written scanners;
 * a text that is not in the table is refused when the file is opened. */
#include "text/text.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Finds the first match in text[from, len): true, and *start < *end. */
typedef bool (*find_fn)(const char *text, size_t len, size_t from, size_t *start, size_t *end);

enum { MAX_FORM = 1 << 30 }; /* bytes of normalised text */
enum behaviour { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum step_kind { PREPEND, REPLACE, NFC, SPLIT, BYTE_LEVEL, METASPACE };

typedef struct step {
  int kind;
  char *from, *to; /* REPLACE; SPLIT: from, when it splits by a string; PREPEND, METASPACE: to */
  size_t from_len, to_len;
  find_fn find; /* SPLIT and BYTE_LEVEL by a pattern */
  int behaviour;
  bool invert;
  bool prefix;          /* BYTE_LEVEL: add a space, METASPACE: prepend ... */
  bool first_only, cut; /* ... but only at the start of the text; cut at each replacement */
} step;

struct viv__steps {
  size_t n;
  step step[16];
};

/* ---- scanners ---- */

/* A cursor over characters with their classes. */
typedef struct scan {
  const char *s;
  size_t len;
} scan;

/* Class and character at `at`; at the end 0, which no class test accepts. *next moves behind it. */
static uint32_t look(const scan *c, size_t at, uint32_t *cp, size_t *next) {
  if (at >= c->len) {
    *cp = 0;
    *next = at;
    return 0;
  }
  *next = at;
  *cp = viv__cp(c->s, next);
  if (*cp < 0x80) {
    unsigned char ch = (unsigned char)*cp;
    if (ch >= 'a' && ch <= 'z') return CLASS_LL | CLASS_WORD;
    if (ch >= 'A' && ch <= 'Z') return CLASS_LU | CLASS_WORD;
    if (ch == ' ') return CLASS_SPACE;
  }
  return viv__class_of(*cp);
}

/* The end of the longest run from `at` of characters with one of these classes; with `not`, of
 * characters with none of them. At most max characters. */
static size_t run(const scan *c, size_t at, uint32_t classes, bool not, size_t max) {
  uint32_t cp;
  size_t next;
  while (at < c->len && max--) {
    if (!(look(c, at, &cp, &next) & classes) != not ) break;
    at = next;
  }
  return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) or, without fold, the lower-case letters only: the end of the match
 * at `at`, or `at`. Folding is Unicode's, so the long s (U+017F) is an s. */
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

/* \s+(?!\S)|\s+ at `at`, which holds white space: a run before something else gives up its last
 * character, unless it is the only one. */
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

/* The end of the match of ` ?X+` where X has one of the classes (or, with not, none), or `at`. */
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

/* (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
 * \s+(?!\S)|\s+ */
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

/* [UPPER]*[LOWER]+ at `at`: the end of the match or `at`. The classes overlap, so where nothing but
 * LOWER follows the upper run, that run gives back up to its last character that is LOWER too. */
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

/* The o200k pattern; see systems/language.md A8. Both word forms may begin with one character that
 * is no letter, digit or line break; a mark may be that prefix or the word's first character, so
 * both are tried, the prefix first. */
static size_t o200k_at(const scan *c, size_t at) {
  size_t from = word_prefix(c, at), end;
  for (int form = 0; form < 2; form++) {
    size_t (*word)(const scan *, size_t) = form ? upper_then_lower : upper_lower;
    end = word(c, from);
    if (end > from) return contraction(c, end, true);
    end = from > at ? word(c, at) : at;
    if (end > at) return contraction(c, end, true);
  }
  end = run(c, at, CLASS_N, false, 3);
  if (end > at) return end;
  end = spaced_run(c, at, CLASS_SPACE | CLASS_L | CLASS_N, true);
  if (end > at) {
    while (newline_at(c, end) || (end < c->len && c->s[end] == '/')) end++;
    return end;
  }
  return spaces_or_lines(c, at);
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

static const struct {
  const char *text;
  find_fn find;
} patterns[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     find_gpt2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_cl100k},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_qwen2},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     find_o200k},
    {"\\p{N}{1,3}", find_digits3},
    {"\\p{N}", find_digit},
    {"\\p{N}+", find_digits},
    {"\\s+", find_spaces},
};

/* ---- pieces ---- */

void viv__pieces_clear(viv__pieces *p) {
  p->text.len = 0;
  p->n = 0;
}

void viv__pieces_free(viv__pieces *p) {
  viv__buf_free(&p->text);
  viv__free(p->item);
  *p = (viv__pieces){0};
}

void viv__pieces_add(viv__pieces *p, const char *text, size_t len, bool first) {
  if (p->n == p->cap) {
    size_t cap = p->cap ? p->cap * 2 : 64;
    viv__piece *grown = p->text.failed ? NULL : viv__realloc(p->item, cap * sizeof *grown);
    if (!grown) {
      p->text.failed = true;
      return;
    }
    p->item = grown;
    p->cap = cap;
  }
  viv__piece piece = {p->text.len, len, first};
  viv__buf_add(&p->text, text, len);
  if (!p->text.failed) p->item[p->n++] = piece;
}

/* Adds text[start, end) of a piece, unless it is empty. */
static void add_part(viv__pieces *out, viv_str piece, bool first, size_t start, size_t end) {
  if (end > start) viv__pieces_add(out, piece.ptr + start, end - start, first && start == 0);
}

/* Finds the next match of a step that splits. */
static bool find_match(const step *s, viv_str text, size_t from, size_t *start, size_t *end) {
  if (s->find) return s->find(text.ptr, text.len, from, start, end);
  if (!s->from_len || from >= text.len) return false;
  const char *hit = memmem(text.ptr + from, text.len - from, s->from, s->from_len);
  if (!hit) return false;
  *start = (size_t)(hit - text.ptr);
  *end = *start + s->from_len;
  return true;
}

/* The parts of a text between and within matches pass one by one; a behaviour says which join.
 * The last part stays open until the next one is known. */
typedef struct joiner {
  const step *s;
  viv_str text;
  bool first;
  viv__pieces *out;
  size_t start, end; /* the open part, start == end: none */
  bool before;       /* whether the part before was a match */
} joiner;

static void join(joiner *j, size_t start, size_t end, bool match) {
  if (start == end) return;
  bool is_match = match != j->s->invert, grow = false;
  switch (j->s->behaviour) {
  case MERGED_WITH_PREVIOUS:
    grow = is_match && !j->before;
    break;
  case MERGED_WITH_NEXT:
    grow = !is_match && j->before;
    break;
  case CONTIGUOUS:
    grow = is_match == j->before;
    break;
  default:
    break;
  }
  j->before = is_match;
  if (grow && j->end > j->start) {
    j->end = end;
    return;
  }
  add_part(j->out, j->text, j->first, j->start, j->end);
  j->start = start;
  j->end = end;
  if (j->s->behaviour == REMOVED && is_match) j->start = end;
}

static void split(const step *s, viv_str text, bool first, viv__pieces *out) {
  joiner j = {.s = s, .text = text, .first = first, .out = out};
  size_t at = 0, start, end;
  while (find_match(s, text, at, &start, &end)) {
    join(&j, at, start, false);
    join(&j, start, end, true);
    at = end;
  }
  join(&j, at, text.len, false);
  add_part(out, text, first, j.start, j.end);
}

/* ---- the byte-level alphabet ---- */

/* Printable Latin-1 stands for itself, the other 68 bytes, in order, for U+0100 and on. */
static uint32_t char_of_byte(unsigned char byte) {
  if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad)) return byte;
  if (byte <= 0x20) return 0x100u + byte;
  if (byte <= 0xa0) return 0x121u + (byte - 0x7fu);
  return 0x143;
}

int viv__byte_of(uint32_t cp) {
  if (cp >= 0x100) {
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
  }
  return char_of_byte((unsigned char)cp) == cp ? (int)cp : -1;
}

/* Rewrites pieces byte by byte in the alphabet. */
static void to_alphabet(const viv__pieces *in, viv__pieces *out) {
  for (size_t i = 0; i < in->n; i++) {
    viv__pieces_add(out, "", 0, in->item[i].first);
    if (out->text.failed) return;
    for (size_t k = 0; k < in->item[i].len; k++) {
      char bytes[4];
      uint32_t cp = char_of_byte((unsigned char)in->text.ptr[in->item[i].at + k]);
      viv__buf_add(&out->text, bytes, viv__utf8_put(cp, bytes));
    }
    out->item[out->n - 1].len = out->text.len - out->item[out->n - 1].at;
  }
}

/* ---- running ---- */

/* out = text with each `from` replaced. A chain of replacements can multiply a text without end, so
 * there is a size that counts as out of memory. */
static void replace_all(const step *s, viv_str text, viv__buf *out) {
  size_t at = 0, start, end;
  while (!out->failed && find_match(s, text, at, &start, &end)) {
    out->failed = out->len > MAX_FORM;
    viv__buf_add(out, text.ptr + at, start - at);
    viv__buf_add(out, s->to, s->to_len);
    at = end;
  }
  viv__buf_add(out, text.ptr + at, text.len - at);
}

void viv__normalize(const viv__steps *steps, viv__buf *text, viv__buf *spare) {
  for (size_t i = 0; i < steps->n && !text->failed; i++) {
    const step *s = &steps->step[i];
    viv_str in = {text->ptr, text->len};
    if (!in.len) return;
    spare->len = 0;
    if (s->kind == PREPEND) {
      viv__buf_add(spare, s->to, s->to_len);
      viv__buf_add(spare, in.ptr, in.len);
    } else if (s->kind == REPLACE) {
      replace_all(s, in, spare);
    } else {
      viv__nfc(in, spare);
    }
    viv__buf swap = *text;
    *text = *spare;
    *spare = swap;
  }
}

static bool starts_with(viv_str text, const char *prefix, size_t len) {
  return text.len >= len && !memcmp(text.ptr, prefix, len);
}

/* One step of pre-tokenization on one piece. A prefix makes a text that stands nowhere yet, so it
 * is put together in scratch. */
static void cut_piece(const step *s, viv_str text, bool first, viv__buf *scratch,
                      viv__pieces *out) {
  if (s->kind != SPLIT) {
    const char *prefix = s->kind == METASPACE ? s->to : " ";
    size_t prefix_len = s->kind == METASPACE ? s->to_len : 1;
    scratch->len = 0;
    viv__buf body = {0};
    if (s->kind == METASPACE) {
      step spaces_out = {.from = (char[]){" "}, .from_len = 1, .to = s->to, .to_len = s->to_len};
      replace_all(&spaces_out, text, &body);
      if (body.failed) out->text.failed = true;
      text = (viv_str){body.ptr, body.len};
    }
    if (s->prefix && (first || !s->first_only) && !starts_with(text, prefix, prefix_len))
      viv__buf_add(scratch, prefix, prefix_len);
    viv__buf_add(scratch, text.ptr, text.len);
    viv__buf_free(&body);
    if (scratch->failed) {
      out->text.failed = true;
      return;
    }
    text = (viv_str){scratch->ptr, scratch->len};
    if (s->kind == METASPACE ? !s->cut : !s->find) {
      add_part(out, text, first, 0, text.len);
      return;
    }
  }
  split(s, text, first, out);
}

void viv__pre_tokenize(const viv__steps *steps, viv__pieces *pieces, viv__pieces *spare) {
  viv__buf scratch = {0};
  for (size_t i = 0; i < steps->n && !pieces->text.failed; i++) {
    const step *s = &steps->step[i];
    for (int pass = 0; pass < 1 + (s->kind == BYTE_LEVEL); pass++) {
      viv__pieces_clear(spare);
      if (pass) to_alphabet(pieces, spare);
      for (size_t k = 0; k < pieces->n && !pass && !spare->text.failed; k++) {
        viv_str text = {pieces->text.ptr + pieces->item[k].at, pieces->item[k].len};
        cut_piece(s, text, pieces->item[k].first, &scratch, spare);
      }
      viv__pieces swap = *pieces;
      *pieces = *spare;
      *spare = swap;
      if (pieces->text.failed) break;
    }
  }
  viv__buf_free(&scratch);
}

/* ---- opening ---- */

void viv__steps_free(viv__steps *steps) {
  if (!steps) return;
  for (size_t i = 0; i < steps->n; i++) {
    viv__free(steps->step[i].from);
    viv__free(steps->step[i].to);
  }
  viv__free(steps);
}

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, "tokenizer.json", "out of memory");
}

/* A copy of a string member; absent or of another type: refused, with the place named. */
static int32_t string_member(const viv_json *node, const char *key, const char *where, char **out,
                             size_t *len, viv_error *error) {
  const viv_json *member = viv__json_get(node, key);
  if (viv__json_type(member) != VIV_JSON_STRING)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "needs a string \"%s\"", key);
  viv_str text = viv__json_string(member);
  if (text.len > MAX_AFFIX)
    return VIV_FAIL(error, VIV_NEVER, where, "\"%s\" is longer than %d bytes", key, MAX_AFFIX);
  *out = viv__strndup(text.ptr, text.len);
  *len = text.len;
  return *out ? VIV_OK : no_memory(error);
}

static find_fn known_pattern(const char *text) {
  for (size_t i = 0; i < COUNT(patterns); i++)
    if (!strcmp(patterns[i].text, text)) return patterns[i].find;
  return NULL;
}

/* "pattern": {"String": s} into from, or {"Regex": r} into find. */
static int32_t open_pattern(const viv_json *node, const char *where, step *s, viv_error *error) {
  const viv_json *pattern = viv__json_get(node, "pattern");
  const char *regex = viv__json_text(pattern, "Regex", NULL);
  if (!regex) return string_member(pattern, "String", where, &s->from, &s->from_len, error);
  s->find = known_pattern(regex);
  if (s->find) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, where,
                  "the regular expression \"%.300s\" is not one of those that this version knows "
                  "(GPT-2, cl100k, Qwen2, o200k, \\p{N}, \\p{N}+, \\p{N}{1,3}, \\s+)",
                  regex);
}

static int32_t open_behaviour(const viv_json *node, const char *where, step *s, viv_error *error) {
  static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                      "Contiguous"};
  const char *name = viv__json_text(node, "behavior", "");
  for (size_t i = 0; i < COUNT(names); i++) {
    if (strcmp(names[i], name)) continue;
    s->behaviour = (int)i;
    s->invert = viv__json_bool(node, "invert", false);
    return VIV_OK;
  }
  return VIV_FAIL(error, VIV_BAD_INPUT, where,
                  "\"behavior\" is \"%.60s\"; expected Removed, Isolated, MergedWithPrevious, "
                  "MergedWithNext or Contiguous",
                  name);
}

static int32_t open_metaspace(const viv_json *node, const char *where, step *s, viv_error *error) {
  s->kind = METASPACE;
  s->behaviour = MERGED_WITH_NEXT;
  s->cut = viv__json_bool(node, "split", true);
  int32_t status = string_member(node, "replacement", where, &s->to, &s->to_len, error);
  if (status < 0) return status;
  size_t one = 0;
  if (s->to_len) viv__cp(s->to, &one);
  if (!one || one != s->to_len)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"replacement\" must be one character, not \"%.40s\"", s->to);
  s->from = viv__strdup(s->to);
  s->from_len = s->to_len;
  if (!s->from) return no_memory(error);
  /* Old files say add_prefix_space instead of a scheme. */
  const viv_json *old = viv__json_get(node, "add_prefix_space");
  const char *scheme = viv__json_text(node, "prepend_scheme", NULL);
  if (!scheme && viv__json_type(old) == VIV_JSON_BOOL && !viv__json_boolean(old))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"add_prefix_space\" is false and there is no \"prepend_scheme\"");
  if (!scheme) scheme = "always";
  s->prefix = strcmp(scheme, "never") != 0;
  s->first_only = !strcmp(scheme, "first");
  if (s->prefix && !s->first_only && strcmp(scheme, "always") != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"prepend_scheme\" is \"%.40s\"; expected first, never or always", scheme);
  return VIV_OK;
}

/* One entry that is no Sequence, as a step. */
static int32_t open_one(const viv_json *node, bool normalizer, step *s, viv_error *error) {
  const char *type = viv__json_text(node, "type", "");
  const char *where = normalizer ? "tokenizer.json, normalizer" : "tokenizer.json, pre_tokenizer";
  int32_t status = VIV_OK;
  if (normalizer && !strcmp(type, "NFC")) {
    s->kind = NFC;
  } else if (normalizer && !strcmp(type, "Prepend")) {
    s->kind = PREPEND;
    status = string_member(node, "prepend", where, &s->to, &s->to_len, error);
  } else if (normalizer && !strcmp(type, "Replace")) {
    s->kind = REPLACE;
    status = open_pattern(node, where, s, error);
    if (status >= 0) status = string_member(node, "content", where, &s->to, &s->to_len, error);
  } else if (!normalizer && !strcmp(type, "Split")) {
    s->kind = SPLIT;
    status = open_pattern(node, where, s, error);
    if (status >= 0) status = open_behaviour(node, where, s, error);
  } else if (!normalizer && !strcmp(type, "Digits")) {
    s->kind = SPLIT;
    s->find = find_digit;
    s->behaviour = viv__json_bool(node, "individual_digits", false) ? ISOLATED : CONTIGUOUS;
  } else if (!normalizer && !strcmp(type, "ByteLevel")) {
    s->kind = BYTE_LEVEL;
    s->behaviour = ISOLATED;
    s->prefix = viv__json_bool(node, "add_prefix_space", true);
    s->find = viv__json_bool(node, "use_regex", true) ? find_gpt2 : NULL;
  } else if (!normalizer && !strcmp(type, "Metaspace")) {
    status = open_metaspace(node, where, s, error);
  } else {
    return VIV_FAIL(error, VIV_NEVER, where,
                    "the type \"%.60s\" is not supported; this version has %s", type,
                    normalizer ? "NFC, Prepend, Replace and Sequence"
                               : "ByteLevel, Digits, Split, Metaspace and Sequence");
  }
  return status;
}

/* Appends a node's steps; a Sequence is walked in order. JSON depth is bounded by the parser. */
static int32_t open_steps(const viv_json *node, bool normalizer, viv__steps *steps,
                          viv_error *error) {
  const char *where = normalizer ? "tokenizer.json, normalizer" : "tokenizer.json, pre_tokenizer";
  if (viv__json_type(node) == VIV_JSON_ABSENT || viv__json_type(node) == VIV_JSON_NULL)
    return VIV_OK;
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  if (!strcmp(viv__json_text(node, "type", ""), "Sequence")) {
    const viv_json *list = viv__json_get(node, normalizer ? "normalizers" : "pretokenizers");
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence needs a list \"%s\"",
                      normalizer ? "normalizers" : "pretokenizers");
    int64_t n = viv__json_count(list);
    if (n > (int64_t)COUNT(steps->step))
      return VIV_FAIL(error, VIV_NEVER, where,
                      "a Sequence of %lld steps; at most %zu are supported", (long long)n,
                      COUNT(steps->step));
    for (int64_t i = 0; i < n; i++) {
      int32_t status = open_steps(viv__json_item(list, i), normalizer, steps, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  if (steps->n == COUNT(steps->step))
    return VIV_FAIL(error, VIV_NEVER, where, "more than %zu steps", COUNT(steps->step));
  return open_one(node, normalizer, &steps->step[steps->n++], error);
}

static int32_t steps_open(const viv_json *node, bool normalizer, viv__steps **out,
                          viv_error *error) {
  viv__steps *steps = viv__calloc(1, sizeof *steps);
  if (!steps) return no_memory(error);
  int32_t status = open_steps(node, normalizer, steps, error);
  if (status < 0)
    viv__steps_free(steps);
  else
    *out = steps;
  return status;
}

int32_t viv__normalizer_open(const viv_json *node, viv__steps **out, viv_error *error) {
  return steps_open(node, true, out, error);
}

int32_t viv__pre_tokenizer_open(const viv_json *node, viv__steps **out, viv_error *error) {
  return steps_open(node, false, out, error);
}
