/* "pre_tokenizer" of tokenizer.json: a text cut into pieces that the model sees
 * one by one.
 *
 * Each step cuts the pieces that the one before it left. Cutting moves no
 * bytes; the few steps that rewrite (Metaspace, ByteLevel) build the body anew.
 */
#include "text/text.h"

#include <string.h>

enum { MAX_STEPS = 64 };
enum behaviour { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum step_kind { SPLIT, WHITESPACE, FIXED_LENGTH, SCRIPTS, BYTE_LEVEL, METASPACE };
enum scheme { FIRST, NEVER, ALWAYS };

typedef struct step {
  int kind, behaviour;
  viv__pattern *pattern; /* SPLIT; BYTE_LEVEL and METASPACE, if they cut */
  bool invert;
  size_t length; /* FIXED_LENGTH: characters */
  bool prefix;   /* BYTE_LEVEL: begin with a space */
  char *mark;    /* METASPACE: for a space */
  size_t mark_len;
  int scheme;
} step;

struct viv__pre_tokenizer {
  size_t n;
  step step[MAX_STEPS];
};

static const char where[] = "tokenizer.json, pre_tokenizer";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
}

/* ---- opening ---- */

static int32_t open_behaviour(const viv_json *node, const char *fallback, step *s,
                              viv_error *error) {
  static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                      "Contiguous"};
  const char *name = viv__json_text(node, "behavior", fallback);
  for (int i = 0; i < 5; i++) {
    if (strcmp(names[i], name)) continue;
    s->behaviour = i;
    return VIV_OK;
  }
  return VIV_FAIL(error, VIV_BAD_INPUT, where,
                  "\"behavior\" is \"%.60s\"; expected Removed, Isolated, "
                  "MergedWithPrevious, "
                  "MergedWithNext or Contiguous",
                  name);
}

static int32_t open_metaspace(const viv_json *node, step *s, viv_error *error) {
  static const char *const schemes[] = {"first", "never", "always"};
  const viv_json *old = viv__json_get(node, "add_prefix_space");
  const char *scheme = viv__json_text(node, "prepend_scheme", "always");
  bool cut = true;
  s->kind = METASPACE;
  s->behaviour = MERGED_WITH_NEXT;
  int32_t status = viv__flag_member(node, "split", where, 1, &cut, error);
  if (status >= 0)
    status = viv__character_member(node, "replacement", where, &s->mark, &s->mark_len, error);
  if (status < 0) return status;
  for (s->scheme = 0; s->scheme < 3 && strcmp(schemes[s->scheme], scheme);) s->scheme++;
  if (s->scheme == 3)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"prepend_scheme\" is \"%.40s\"; expected first, never or always", scheme);
  /* Old files say add_prefix_space instead of a scheme. */
  if (viv__json_type(old) == VIV_JSON_BOOL && !viv__json_boolean(old) && s->scheme != NEVER)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"add_prefix_space\" is false, but \"prepend_scheme\" is \"%s\"", scheme);
  if (cut && !(s->pattern = viv__pattern_literal((viv_str){s->mark, s->mark_len})))
    return no_memory(error);
  return VIV_OK;
}

static int32_t open_byte_level(const viv_json *node, step *s, viv_error *error) {
  bool cut = true;
  s->kind = BYTE_LEVEL;
  s->behaviour = ISOLATED;
  int32_t status = viv__flag_member(node, "add_prefix_space", where, 1, &s->prefix, error);
  if (status >= 0) status = viv__flag_member(node, "use_regex", where, 1, &cut, error);
  if (status >= 0 && cut && !(s->pattern = viv__pattern_known(viv__gpt2_regex)))
    return no_memory(error);
  return status;
}

/* Splits at characters of a class. */
static int32_t open_class(step *s, uint32_t classes, int behaviour, viv_error *error) {
  s->kind = SPLIT;
  s->behaviour = behaviour;
  s->pattern = viv__pattern_class(classes);
  return s->pattern ? VIV_OK : no_memory(error);
}

static int32_t open_delimiter(const viv_json *node, step *s, viv_error *error) {
  char *text = NULL;
  size_t len = 0;
  int32_t status = viv__character_member(node, "delimiter", where, &text, &len, error);
  s->kind = SPLIT;
  s->behaviour = REMOVED;
  if (status >= 0 && !(s->pattern = viv__pattern_literal((viv_str){text, len})))
    status = no_memory(error);
  viv__free(text);
  return status;
}

static int32_t open_split(const viv_json *node, step *s, viv_error *error) {
  s->kind = SPLIT;
  int32_t status = open_behaviour(node, "", s, error);
  if (status >= 0) status = viv__flag_member(node, "invert", where, -1, &s->invert, error);
  if (status >= 0)
    status = viv__pattern_open(viv__json_get(node, "pattern"), where, &s->pattern, error);
  return status;
}

/* One entry that is no Sequence. Two steps, where *next is asked for. */
static int32_t open_one(const viv_json *node, step *s, step **next, viv_error *error) {
  const char *type = viv__json_text(node, "type", "");
  if (!strcmp(type, "ByteLevel")) return open_byte_level(node, s, error);
  if (!strcmp(type, "Metaspace")) return open_metaspace(node, s, error);
  if (!strcmp(type, "Split")) return open_split(node, s, error);
  if (!strcmp(type, "CharDelimiterSplit")) return open_delimiter(node, s, error);
  if (!strcmp(type, "WhitespaceSplit")) return open_class(s, CLASS_SPACE, REMOVED, error);
  if (!strcmp(type, "Whitespace")) {
    s->kind = WHITESPACE;
    return VIV_OK;
  }
  if (!strcmp(type, "UnicodeScripts")) {
    s->kind = SCRIPTS;
    return VIV_OK;
  }
  if (!strcmp(type, "BertPreTokenizer")) {
    int32_t status = open_class(s, CLASS_SPACE, REMOVED, error);
    *next = s + 1;
    return status < 0 ? status : open_class(s + 1, CLASS_PUNCTUATION, ISOLATED, error);
  }
  if (!strcmp(type, "Punctuation")) {
    int32_t status = open_class(s, CLASS_PUNCTUATION, ISOLATED, error);
    return status < 0 ? status : open_behaviour(node, "Isolated", s, error);
  }
  if (!strcmp(type, "Digits")) {
    bool each = false;
    int32_t status = viv__flag_member(node, "individual_digits", where, -1, &each, error);
    return status < 0 ? status : open_class(s, CLASS_NUMERIC, each ? ISOLATED : CONTIGUOUS, error);
  }
  if (!strcmp(type, "FixedLength")) {
    double length = 0;
    int32_t status = viv__count_member(node, "length", where, 1e9, 5, &length, error);
    s->kind = FIXED_LENGTH;
    s->length = (size_t)length;
    if (status >= 0 && !s->length)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"length\" of FixedLength must not be 0");
    return status;
  }
  return VIV_FAIL(error, VIV_NEVER, where, "the type \"%.60s\" is not known", type);
}

/* Appends a node's steps; a Sequence is walked in order. JSON depth is bounded
 * by the parser. */
static int32_t open_steps(const viv_json *node, viv__pre_tokenizer *p, viv_error *error) {
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  if (!strcmp(viv__json_text(node, "type", ""), "Sequence")) {
    const viv_json *list = viv__json_get(node, "pretokenizers");
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence needs a list \"pretokenizers\"");
    int64_t count = viv__json_count(list);
    if (count > MAX_STEPS)
      return VIV_FAIL(error, VIV_NEVER, where, "a Sequence of %lld steps; at most %d",
                      (long long)count, MAX_STEPS);
    for (int64_t i = 0; i < count; i++) {
      int32_t status = open_steps(viv__json_item(list, i), p, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  if (p->n + 2 > MAX_STEPS)
    return VIV_FAIL(error, VIV_NEVER, where, "more than %d steps", MAX_STEPS - 1);
  step *s = &p->step[p->n++], *next = NULL;
  int32_t status = open_one(node, s, &next, error);
  if (next) p->n++;
  return status;
}

int32_t viv__pre_tokenizer_open(const viv_json *node, viv__pre_tokenizer **out, viv_error *error) {
  viv__pre_tokenizer *p = viv__calloc(1, sizeof *p);
  if (!p) return no_memory(error);
  int32_t kind = viv__json_type(node), status = VIV_OK;
  if (kind != VIV_JSON_ABSENT && kind != VIV_JSON_NULL) status = open_steps(node, p, error);
  if (status < 0)
    viv__pre_tokenizer_free(p);
  else
    *out = p;
  return status;
}

void viv__pre_tokenizer_free(viv__pre_tokenizer *p) {
  if (!p) return;
  for (size_t i = 0; i < p->n; i++) {
    viv__pattern_free(p->step[i].pattern);
    viv__free(p->step[i].mark);
  }
  viv__free(p);
}

/* ---- the byte-level alphabet ---- */

uint32_t viv__char_of_byte(unsigned char byte) {
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
  return viv__char_of_byte((unsigned char)cp) == cp ? (int)cp : -1;
}

/* ---- cutting ---- */

/* The parts of a piece between and within matches pass one by one; a behaviour
 * says which join. The last part stays open until the next one is known. */
typedef struct joiner {
  const step *s;
  viv__pieces *out;
  size_t base;       /* where the piece begins in the body */
  size_t start, end; /* the open part */
  bool open, before; /* whether there is one; whether the part before was a match */
} joiner;

static void close_part(joiner *j) {
  if (j->open) viv__pieces_add(j->out, j->base + j->start, j->end - j->start);
  j->open = false;
}

static void join(joiner *j, size_t start, size_t end, bool match) {
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
  if (grow && j->open) {
    j->end = end;
    return;
  }
  close_part(j);
  j->start = start;
  j->end = end;
  j->open = !(j->s->behaviour == REMOVED && is_match);
}

/* Cuts body[at, at + len) at the matches of the step's pattern. */
static void split(const step *s, viv__finder *f, const viv__aligned *body, size_t at, size_t len,
                  viv__pieces *out) {
  joiner j = {.s = s, .out = out, .base = at};
  size_t done = 0, start, end;
  viv__finder_start(f, s->pattern, (viv_str){body->text + at, len});
  while (viv__finder_next(f, &start, &end)) {
    if (done < start) join(&j, done, start, false);
    join(&j, start, end, true);
    done = end;
  }
  if (done < len) join(&j, done, len, false);
  close_part(&j);
}

/* \w+ and [^\w\s]+ are pieces, what lies between is dropped. */
static void split_words(const viv__aligned *body, viv__piece piece, viv__pieces *out) {
  size_t at = piece.at, stop = piece.at + (size_t)piece.len, start = at;
  int open = 0;
  while (at < stop) {
    size_t next = at;
    uint32_t class = viv__class_of(viv__cp(body->text, &next));
    int kind = class & CLASS_WORD ? 1 : class & CLASS_SPACE ? 0 : 2;
    if (kind != open) {
      if (open) viv__pieces_add(out, start, at - start);
      start = at;
      open = kind;
    }
    at = next;
  }
  if (open) viv__pieces_add(out, start, stop - start);
}

static void split_lengths(const step *s, const viv__aligned *body, viv__piece piece,
                          viv__pieces *out) {
  size_t at = piece.at, stop = piece.at + (size_t)piece.len;
  while (at < stop) {
    size_t end = at;
    for (size_t n = 0; n < s->length && end < stop; n++) end += viv__cp_len(body->text[end]);
    viv__pieces_add(out, at, end - at);
    at = end;
  }
}

/* Cuts where the script changes. The library loses what comes before the first
 * character that has one. Japanese is one script; a space goes with any. */
static void split_scripts(const viv__aligned *body, viv__piece piece, viv__pieces *out) {
  size_t at = piece.at, stop = piece.at + (size_t)piece.len, start = stop;
  int last = 0;
  while (at < stop) {
    size_t next = at;
    int script = viv__script_of(viv__cp(body->text, &next));
    if (script && script != last) {
      if (start < at) viv__pieces_add(out, start, at - start);
      start = at;
      last = script;
    }
    at = next;
  }
  if (start < stop) viv__pieces_add(out, start, stop - start);
}

/* ---- rewriting ---- */

/* Appends bytes before what begins at `at`: they come from its first character.
 */
static void put_prefix(const viv__aligned *in, size_t at, const char *text, size_t len,
                       viv__aligned *out) {
  viv__aligned_add(out, text, len, in->span[at]);
}

static bool begins_with(const viv__aligned *in, viv__piece piece, const char *text, size_t len) {
  return piece.len >= len && !memcmp(in->text + piece.at, text, len);
}

static void metaspace_piece(const step *s, const viv__aligned *in, viv__piece piece,
                            viv__aligned *out) {
  bool marked = in->text[piece.at] == ' ' || begins_with(in, piece, s->mark, s->mark_len);
  bool first = in->span[piece.at].start == 0;
  if (!marked && (s->scheme == ALWAYS || (s->scheme == FIRST && first)))
    put_prefix(in, piece.at, s->mark, s->mark_len, out);
  size_t at = piece.at, stop = piece.at + (size_t)piece.len;
  while (at < stop && !out->failed) {
    const char *space = memchr(in->text + at, ' ', stop - at);
    size_t end = space ? (size_t)(space - in->text) : stop;
    viv__aligned_copy(out, in, at, end);
    if (space) viv__aligned_add(out, s->mark, s->mark_len, in->span[end]);
    at = end + (space != NULL);
  }
}

/* Rewrites each piece and cuts it, if the step does. */
static void rewrite(const step *s, viv__finder *f, const viv__pieces *in, viv__pieces *out) {
  for (size_t i = 0; i < in->n && !out->body.failed; i++) {
    size_t at = out->body.len;
    viv__piece piece = in->item[i];
    if (s->kind == METASPACE) {
      metaspace_piece(s, &in->body, piece, &out->body);
    } else {
      if (s->prefix && in->body.text[piece.at] != ' ')
        put_prefix(&in->body, piece.at, " ", 1, &out->body);
      viv__aligned_copy(&out->body, &in->body, piece.at, piece.at + (size_t)piece.len);
    }
    if (out->body.failed) return;
    if (s->pattern)
      split(s, f, &out->body, at, out->body.len - at, out);
    else
      viv__pieces_add(out, at, out->body.len - at);
  }
}

/* Rewrites pieces byte by byte in the alphabet. */
static void to_alphabet(const viv__pieces *in, viv__pieces *out) {
  if (!viv__aligned_room(&out->body, 2 * in->body.len)) return;
  for (size_t i = 0; i < in->n && !out->body.failed; i++) {
    size_t at = out->body.len, from = in->item[i].at, stop = from + in->item[i].len;
    for (; from < stop; from++) {
      char bytes[4];
      uint32_t cp = viv__char_of_byte((unsigned char)in->body.text[from]);
      size_t len = cp < 0x80 ? (bytes[0] = (char)cp, 1) : viv__utf8_put(cp, bytes);
      viv__aligned_add(&out->body, bytes, len, in->body.span[from]);
    }
    viv__pieces_add(out, at, out->body.len - at);
  }
}

static void swap(viv__pieces *a, viv__pieces *b) {
  viv__pieces t = *a;
  *a = *b;
  *b = t;
}

static void swap_bodies(viv__pieces *a, viv__pieces *b) {
  viv__aligned t = a->body;
  a->body = b->body;
  b->body = t;
}

static void run_step(const step *s, viv__finder *f, viv__pieces *pieces, viv__pieces *spare) {
  spare->n = 0;
  spare->body.len = 0;
  if (s->kind == METASPACE || s->kind == BYTE_LEVEL) {
    bool plain = s->kind == BYTE_LEVEL && !s->prefix && !s->pattern;
    if (!plain) {
      rewrite(s, f, pieces, spare);
      swap(pieces, spare);
    }
    if (s->kind == METASPACE || pieces->body.failed) return;
    spare->n = 0;
    spare->body.len = 0;
    to_alphabet(pieces, spare);
    swap(pieces, spare);
    return;
  }
  for (size_t i = 0; i < pieces->n && !spare->body.failed && !f->failed; i++) {
    viv__piece piece = pieces->item[i];
    if (s->kind == WHITESPACE)
      split_words(&pieces->body, piece, spare);
    else if (s->kind == SCRIPTS)
      split_scripts(&pieces->body, piece, spare);
    else if (s->kind == FIXED_LENGTH)
      split_lengths(s, &pieces->body, piece, spare);
    else
      split(s, f, &pieces->body, piece.at, piece.len, spare);
  }
  bool failed = spare->body.failed;
  swap_bodies(pieces, spare);
  swap(pieces, spare);
  pieces->body.failed |= failed;
}

void viv__pre_tokenize(const viv__pre_tokenizer *p, viv__pieces *pieces, viv__pieces *spare,
                       const char **why) {
  viv__finder f = {0};
  for (size_t i = 0; i < p->n && !pieces->body.failed && !f.failed; i++)
    run_step(&p->step[i], &f, pieces, spare);
  if (f.failed) {
    *why = "a regular expression of the pre_tokenizer takes too many steps on it";
    pieces->body.failed = true;
  }
  viv__finder_stop(&f);
}
