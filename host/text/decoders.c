/* "decoder" of tokenizer.json, and ids to text: a chain of stages through which
 * tokens flow.
 *
 *   ByteLevel     characters of the byte alphabet back to bytes, those to UTF-8
 * as Rust's from_utf8_lossy does over the whole text ByteFallback  a run of
 * <0xNN> tokens is one string of bytes; not UTF-8: each byte is U+FFFD Fuse
 * from here on the text is one token, so that Strip sees its start only
 *   Replace, Strip, Metaspace, WordPiece, BPEDecoder, CTC   on each token
 *
 * Whole and streaming decoding are the same chain. A stream shows what it has
 * when the text so far does not end in U+FFFD, as which an incomplete character
 * reads, and else holds back what is new; the tokenizers library does the same.
 *
 * The one place where a stream can't equal decode(): a run of byte tokens that
 * is valid so far is shown at once (a reader waits for his emoji), but if a
 * later byte makes the run invalid, decode() turns all of it into U+FFFD. The
 * stream then goes on as if a new run had begun. */
#include "text/text.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { MAX_STAGES = 16 };
enum stage_kind {
  JOIN_BY_SPACE,
  BYTE_LEVEL,
  BYTE_FALLBACK,
  FUSE,
  REPLACE,
  STRIP,
  METASPACE,
  WORD_PIECE,
  WORD_END, /* "BPEDecoder" */
  CTC
};

typedef struct stage {
  int kind;
  /* REPLACE: to; STRIP and METASPACE: from is their character; WORD_PIECE: from
   * is the prefix; WORD_END: from is the suffix; CTC: from is padding, to the
   * delimiter of words */
  char *from, *to;
  viv__pattern *pattern; /* REPLACE */
  size_t from_len, to_len;
  size_t start, stop; /* STRIP */
  bool drop_first;    /* METASPACE: the first token loses its replacement
                         characters */
  bool clean_up;      /* WORD_PIECE, CTC */
  bool fused;         /* what comes in is one token in parts */
  bool whole;         /* ... and the stage waits for all of it */
} stage;

struct viv__decoder {
  size_t n;
  stage stage[MAX_STAGES];
};

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- opening ---- */

static const char place[] = "tokenizer.json, decoder";

static int32_t open_strip(const viv_json *node, stage *s, viv_error *error) {
  double start = 0, stop = 0;
  int32_t status = viv__character_member(node, "content", place, &s->from, &s->from_len, error);
  if (status >= 0) status = viv__count_member(node, "start", place, 1e6, -1, &start, error);
  if (status >= 0) status = viv__count_member(node, "stop", place, 1e6, -1, &stop, error);
  s->kind = STRIP;
  s->start = (size_t)start;
  s->stop = (size_t)stop;
  return status;
}

static int32_t open_replace(const viv_json *node, stage *s, viv_error *error) {
  s->kind = REPLACE;
  int32_t status = viv__pattern_open(viv__json_get(node, "pattern"), place, &s->pattern, error);
  if (status >= 0) status = viv__string_member(node, "content", place, &s->to, &s->to_len, error);
  return status;
}

static int32_t open_metaspace(const viv_json *node, stage *s, viv_error *error) {
  const viv_json *old = viv__json_get(node, "add_prefix_space");
  const char *scheme = viv__json_text(node, "prepend_scheme", "always");
  bool never = !strcmp(scheme, "never");
  s->kind = METASPACE;
  s->drop_first = !never;
  if (!never && strcmp(scheme, "first") != 0 && strcmp(scheme, "always") != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, place,
                    "\"prepend_scheme\" is \"%.40s\"; expected first, never or always", scheme);
  if (viv__json_type(old) == VIV_JSON_BOOL && !viv__json_boolean(old) && !never)
    return VIV_FAIL(error, VIV_BAD_INPUT, place,
                    "\"add_prefix_space\" is false, but \"prepend_scheme\" is \"%s\"", scheme);
  return viv__character_member(node, "replacement", place, &s->from, &s->from_len, error);
}

static int32_t open_ctc(const viv_json *node, stage *s, viv_error *error) {
  s->kind = CTC;
  int32_t status = viv__string_member(node, "pad_token", place, &s->from, &s->from_len, error);
  if (status >= 0)
    status = viv__string_member(node, "word_delimiter_token", place, &s->to, &s->to_len, error);
  if (status >= 0) status = viv__flag_member(node, "cleanup", place, -1, &s->clean_up, error);
  return status;
}

/* What looks at whole tokens waits for the end once the text is streamed as
 * one. */
static bool waits(const stage *s, const viv_json *node) {
  viv_str string = viv__json_string(viv__json_get(viv__json_get(node, "pattern"), "String"));
  size_t one = 0;
  if (string.ptr && string.len) viv__cp(string.ptr, &one);
  if (s->kind == REPLACE) return !one || one != string.len;
  return s->kind != STRIP && s->kind != FUSE && s->kind != METASPACE;
}

/* One entry that is no Sequence. *fused: the chain so far ends in one token. */
static int32_t open_stage(const viv_json *node, stage *s, bool *fused, viv_error *error) {
  const char *type = viv__json_text(node, "type", "");
  int32_t status = VIV_OK;
  s->fused = *fused;
  if (!strcmp(type, "ByteLevel")) {
    s->kind = BYTE_LEVEL;
    *fused = true;
  } else if (!strcmp(type, "ByteFallback")) {
    s->kind = BYTE_FALLBACK;
  } else if (!strcmp(type, "Fuse")) {
    s->kind = FUSE;
    *fused = true;
  } else if (!strcmp(type, "Replace")) {
    status = open_replace(node, s, error);
  } else if (!strcmp(type, "Strip")) {
    status = open_strip(node, s, error);
  } else if (!strcmp(type, "Metaspace")) {
    status = open_metaspace(node, s, error);
  } else if (!strcmp(type, "WordPiece")) {
    s->kind = WORD_PIECE;
    status = viv__string_member(node, "prefix", place, &s->from, &s->from_len, error);
    if (status >= 0) status = viv__flag_member(node, "cleanup", place, -1, &s->clean_up, error);
  } else if (!strcmp(type, "BPEDecoder")) {
    s->kind = WORD_END;
    status = viv__string_member(node, "suffix", place, &s->from, &s->from_len, error);
  } else if (!strcmp(type, "CTC")) {
    status = open_ctc(node, s, error);
  } else {
    return VIV_FAIL(error, VIV_NEVER, place, "the type \"%.60s\" is not known", type);
  }
  s->whole = s->fused && waits(s, node);
  return status;
}

static int32_t open_stages(const viv_json *node, viv__decoder *d, bool *fused, viv_error *error) {
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "must be an object or null");
  if (!strcmp(viv__json_text(node, "type", ""), "Sequence")) {
    const viv_json *list = viv__json_get(node, "decoders");
    int64_t n = viv__json_count(list);
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, place, "a Sequence needs a list \"decoders\"");
    if (n > (int64_t)COUNT(d->stage))
      return VIV_FAIL(error, VIV_NEVER, place, "a Sequence of %lld decoders; at most %zu",
                      (long long)n, COUNT(d->stage));
    for (int64_t i = 0; i < n; i++) {
      int32_t status = open_stages(viv__json_item(list, i), d, fused, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  if (d->n == COUNT(d->stage))
    return VIV_FAIL(error, VIV_NEVER, place, "more than %zu decoders", COUNT(d->stage));
  return open_stage(node, &d->stage[d->n++], fused, error);
}

int32_t viv__decoder_open(const viv_json *node, viv__decoder **out, viv_error *error) {
  viv__decoder *d = viv__calloc(1, sizeof *d);
  if (!d) return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
  int32_t status = VIV_OK;
  bool fused = false;
  if (viv__json_type(node) == VIV_JSON_ABSENT || viv__json_type(node) == VIV_JSON_NULL)
    d->stage[d->n++].kind = JOIN_BY_SPACE;
  else
    status = open_stages(node, d, &fused, error);
  if (status < 0)
    viv__decoder_free(d);
  else
    *out = d;
  return status;
}

void viv__decoder_free(viv__decoder *d) {
  if (!d) return;
  for (size_t i = 0; i < d->n; i++) {
    viv__free(d->stage[i].from);
    viv__free(d->stage[i].to);
    viv__pattern_free(d->stage[i].pattern);
  }
  viv__free(d);
}

/* ---- running ---- */

/* What a stage remembers between tokens. */
typedef struct memory {
  viv__buf whole;  /* the fused token so far, for a stage that waits for all of it */
  viv__buf held;   /* BYTE_LEVEL: an incomplete character; BYTE_FALLBACK: the run;
                    STRIP: the tail */
  viv__buf made;   /* scratch */
  viv__buf extra;  /* scratch */
  bool any;        /* a token came before */
  size_t stripped; /* STRIP of a fused text: characters taken from its start so
                      far ... */
  bool begun;      /* ... which are done */
} memory;

struct viv__detokenizer {
  const viv__tokenizer *t; /* NULL: tokens come as texts */
  const viv__decoder *decoder;
  bool skip_special, shown;
  viv__buf ready; /* decoded, not shown or shown by the last call */
  memory memory[MAX_STAGES];
};

static void flow(viv__detokenizer *d, size_t k, const char *text, size_t len);
static void enter(viv__detokenizer *d, size_t k, const char *text, size_t len);

/* The byte that a token of the form <0xNN> stands for, or -1. The library reads
 * the two places with Rust's from_str_radix, which takes a sign. */
static int byte_token(const char *text, size_t len) {
  if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
  int value = 0;
  for (int i = 3; i < 5; i++) {
    char ch = text[i];
    int digit = ch >= '0' && ch <= '9'   ? ch - '0'
                : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                : ch == '+' && i == 3    ? 0
                                         : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/* Passes a run of byte tokens on. */
static void end_run(viv__detokenizer *d, size_t k) {
  viv__buf *run = &d->memory[k].held, *made = &d->memory[k].made;
  if (!run->len) return;
  if (viv__utf8_valid(run->ptr, run->len)) {
    flow(d, k + 1, run->ptr, run->len);
  } else {
    made->len = 0;
    for (size_t i = 0; i < run->len; i++) viv__buf_add(made, replacement, 3);
    if (made->failed)
      d->ready.failed = true;
    else
      flow(d, k + 1, made->ptr, made->len);
  }
  run->len = 0;
}

/* Appends to held bytes and passes on what is decided; the start of a character
 * stays. */
static void add_bytes(viv__detokenizer *d, size_t k, const char *text, size_t len) {
  memory *m = &d->memory[k];
  viv__buf *made = &m->made;
  viv__buf_add(&m->held, text, len);
  if (m->held.failed) {
    d->ready.failed = true;
    return;
  }
  made->len = 0;
  size_t i = 0;
  while (i < m->held.len) {
    int n = viv__utf8_step(m->held.ptr + i, m->held.len - i);
    if (!n) break;
    if (n > 0)
      viv__buf_add(made, m->held.ptr + i, (size_t)n);
    else
      viv__buf_add(made, replacement, 3);
    i += (size_t)(n > 0 ? n : -n);
  }
  if (i) {
    m->held.len -= i;
    memmove(m->held.ptr, m->held.ptr + i, m->held.len);
  }
  if (made->failed)
    d->ready.failed = true;
  else if (made->len)
    flow(d, k + 1, made->ptr, made->len);
}

/* A token of the byte alphabet gives its bytes; one that holds another
 * character, itself. */
static void byte_level(viv__detokenizer *d, size_t k, const char *text, size_t len) {
  char bytes[256];
  size_t n = 0;
  for (size_t i = 0; i < len;)
    if (viv__byte_of(viv__cp(text, &i)) < 0) {
      add_bytes(d, k, text, len);
      return;
    }
  for (size_t i = 0; i < len;) {
    bytes[n++] = (char)viv__byte_of(viv__cp(text, &i));
    if (n == sizeof bytes || i == len) {
      add_bytes(d, k, bytes, n);
      n = 0;
    }
  }
}

/* to = text with each `from` replaced. */
static void substitute(viv__buf *to, const char *text, size_t len, viv_str from, viv_str by) {
  to->len = 0;
  while (len && from.len) {
    const char *hit = memmem(text, len, from.ptr, from.len);
    if (!hit) break;
    viv__buf_add(to, text, (size_t)(hit - text));
    viv__buf_add(to, by.ptr, by.len);
    len -= (size_t)(hit - text) + from.len;
    text = hit + from.len;
  }
  viv__buf_add(to, text, len);
}

static void pass_on(viv__detokenizer *d, size_t k, const viv__buf *made) {
  if (made->failed)
    d->ready.failed = true;
  else
    flow(d, k + 1, made->len ? made->ptr : "", made->len);
}

static void replace(viv__detokenizer *d, size_t k, const stage *s, const char *text, size_t len) {
  viv__buf *made = &d->memory[k].made;
  viv__finder f = {0};
  size_t at = 0, start, end;
  made->len = 0;
  viv__finder_start(&f, s->pattern, (viv_str){text, len});
  while (!made->failed && viv__finder_next(&f, &start, &end)) {
    viv__buf_add(made, text + at, start - at);
    viv__buf_add(made, s->to, s->to_len);
    made->failed |= made->len > MAX_FORM;
    at = end;
  }
  viv__buf_add(made, text + at, len - at);
  made->failed |= f.failed;
  viv__finder_stop(&f);
  pass_on(d, k, made);
}

/* The spaces that English does not have, as the library takes them out. */
static void clean_up(viv__buf *text, viv__buf *spare) {
  static const char *const rules[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                         {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                         {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                         {" 've", "'ve"}, {" 're", "'re"}};
  for (size_t i = 0; i < COUNT(rules); i++) {
    if (!text->len) return;
    substitute(spare, text->ptr, text->len, viv__str(rules[i][0]), viv__str(rules[i][1]));
    viv__buf t = *text;
    *text = *spare;
    *spare = t;
  }
  text->failed |= spare->failed;
}

static void word_piece(viv__detokenizer *d, size_t k, const stage *s, const char *text,
                       size_t len) {
  memory *m = &d->memory[k];
  bool more = len >= s->from_len && !memcmp(text, s->from, s->from_len);
  m->made.len = 0;
  if (m->any && !more) viv__buf_add(&m->made, " ", 1);
  if (m->any && more) {
    text += s->from_len;
    len -= s->from_len;
  }
  viv__buf_add(&m->made, text, len);
  if (s->clean_up) clean_up(&m->made, &m->extra);
  m->any = true;
  pass_on(d, k, &m->made);
}

/* The end of a word becomes a space, but not at the end of the text: what
 * follows it waits. */
static void word_end(viv__detokenizer *d, size_t k, const stage *s, const char *text, size_t len) {
  memory *m = &d->memory[k];
  viv_str suffix = {s->from, s->from_len};
  if (m->any) {
    substitute(&m->made, m->held.len ? m->held.ptr : "", m->held.len, suffix, viv__str(" "));
    m->held.len = 0;
    if (m->made.len) pass_on(d, k, &m->made);
  }
  m->any = true;
  const char *hit = s->from_len ? memmem(text, len, s->from, s->from_len) : NULL;
  size_t sure = hit ? (size_t)(hit - text) : len;
  viv__buf_add(&m->held, text + sure, len - sure);
  d->ready.failed |= m->held.failed;
  flow(d, k + 1, text, sure);
}

/* Tokens that repeat are one; padding is nothing. */
static void ctc(viv__detokenizer *d, size_t k, const stage *s, const char *text, size_t len) {
  memory *m = &d->memory[k];
  if (m->any && m->held.len == len && (!len || !memcmp(m->held.ptr, text, len))) return;
  m->any = true;
  m->held.len = 0;
  viv__buf_add(&m->held, text, len);
  substitute(&m->made, text, len, (viv_str){s->from, s->from_len}, viv__str(""));
  if (s->clean_up && m->made.len) {
    clean_up(&m->made, &m->extra);
    substitute(&m->extra, m->made.ptr, m->made.len, (viv_str){s->to, s->to_len}, viv__str(" "));
    viv__buf t = m->made;
    m->made = m->extra;
    m->extra = t;
  }
  d->ready.failed |= m->held.failed;
  if (m->made.len || m->made.failed) pass_on(d, k, &m->made);
}

static bool has(const stage *s, const char *text, size_t len) {
  return len >= s->from_len && !memcmp(text, s->from, s->from_len);
}

/* Length of text without at most `stop` characters s->from at its end. */
static size_t without_tail(const stage *s, const char *text, size_t len) {
  for (size_t i = 0; i < s->stop && len >= s->from_len; i++) {
    if (!has(s, text + len - s->from_len, s->from_len)) break;
    len -= s->from_len;
  }
  return len;
}

/* Strip on a whole token, or on the next part of the one that the text is.
 * Characters at its end that may turn out to be the last are held. Where the
 * cuts of both sides overlap, nothing is left. */
static void strip(viv__detokenizer *d, size_t k, const stage *s, const char *text, size_t len) {
  memory *m = &d->memory[k];
  if (!s->fused) {
    size_t end = without_tail(s, text, len), at = 0;
    for (size_t i = 0; i < s->start && has(s, text + at, len - at); i++) at += s->from_len;
    flow(d, k + 1, text + (at < end ? at : 0), at < end ? end - at : 0);
    return;
  }
  while (!m->begun && m->stripped < s->start && len) {
    if (!has(s, text, len)) break;
    text += s->from_len;
    len -= s->from_len;
    m->stripped++;
  }
  if (!len) return;
  m->begun = true;
  viv__buf_add(&m->held, text, len);
  if (m->held.failed) {
    d->ready.failed = true;
    return;
  }
  size_t sure = without_tail(s, m->held.ptr, m->held.len);
  if (sure) flow(d, k + 1, m->held.ptr, sure);
  m->held.len -= sure;
  memmove(m->held.ptr, m->held.ptr + sure, m->held.len);
}

static void metaspace(viv__detokenizer *d, size_t k, const stage *s, const char *text, size_t len) {
  memory *m = &d->memory[k];
  bool drop = s->drop_first && (s->fused || !m->any);
  m->any = true;
  substitute(&m->made, text, len, (viv_str){s->from, s->from_len}, viv__str(drop ? "" : " "));
  pass_on(d, k, &m->made);
}

/* A token, or a part of the fused one, enters stage k. */
static void flow(viv__detokenizer *d, size_t k, const char *text, size_t len) {
  const viv__decoder *decoder = d->decoder;
  if (k == decoder->n) {
    viv__buf_add(&d->ready, text, len);
    return;
  }
  if (decoder->stage[k].whole) {
    viv__buf_add(&d->memory[k].whole, text, len);
    d->ready.failed |= d->memory[k].whole.failed;
    return;
  }
  enter(d, k, text, len);
}

/* A token, or a part of the fused one that the stage can take in parts. */
static void enter(viv__detokenizer *d, size_t k, const char *text, size_t len) {
  const stage *s = &d->decoder->stage[k];
  memory *m = &d->memory[k];
  int byte;
  switch (s->kind) {
  case JOIN_BY_SPACE:
    if (m->any) viv__buf_add(&d->ready, " ", 1);
    m->any = true;
    flow(d, k + 1, text, len);
    break;
  case BYTE_LEVEL:
    byte_level(d, k, text, len);
    break;
  case BYTE_FALLBACK:
    byte = byte_token(text, len);
    if (byte < 0) {
      end_run(d, k);
      flow(d, k + 1, text, len);
    } else {
      char ch = (char)byte;
      viv__buf_add(&m->held, &ch, 1);
      if (m->held.failed) d->ready.failed = true;
    }
    break;
  case FUSE:
    flow(d, k + 1, text, len);
    break;
  case REPLACE:
    replace(d, k, s, text, len);
    break;
  case STRIP:
    strip(d, k, s, text, len);
    break;
  case WORD_PIECE:
    word_piece(d, k, s, text, len);
    break;
  case WORD_END:
    word_end(d, k, s, text, len);
    break;
  case CTC:
    ctc(d, k, s, text, len);
    break;
  default:
    metaspace(d, k, s, text, len);
    break;
  }
}

/* The end of the text: what is held comes out. */
static void drain(viv__detokenizer *d) {
  const viv__decoder *decoder = d->decoder;
  for (size_t k = 0; k < decoder->n; k++) {
    memory *m = &d->memory[k];
    const stage *s = &decoder->stage[k];
    if (s->whole && m->whole.len) {
      enter(d, k, m->whole.ptr, m->whole.len);
      m->whole.len = 0;
    }
    if (s->kind == BYTE_FALLBACK) end_run(d, k);
    if (s->kind == BYTE_LEVEL && m->held.len) flow(d, k + 1, replacement, 3);
    if (s->kind == WORD_END && m->held.len) {
      substitute(&m->made, m->held.ptr, m->held.len, (viv_str){s->from, s->from_len}, viv__str(""));
      pass_on(d, k, &m->made);
    }
    m->held.len = 0; /* of a Strip: its last characters, which are cut */
  }
}

/* Passes on runs of byte tokens that are whole characters, and tells whether
 * the text so far ends in U+FFFD, as it does while a character is incomplete.
 */
static bool incomplete(viv__detokenizer *d) {
  const viv__decoder *decoder = d->decoder;
  for (size_t k = 0; k < decoder->n; k++) {
    viv__buf *held = &d->memory[k].held;
    if (decoder->stage[k].kind == BYTE_LEVEL && held->len) return true;
    if (decoder->stage[k].kind != BYTE_FALLBACK || !held->len) continue;
    if (!viv__utf8_valid(held->ptr, held->len)) return true;
    if (held->len >= 3 && !memcmp(held->ptr + held->len - 3, replacement, 3)) return true;
    end_run(d, k);
  }
  return d->ready.len >= 3 && !memcmp(d->ready.ptr + d->ready.len - 3, replacement, 3);
}

viv__detokenizer *viv__detokenizer_new(const viv__tokenizer *t, bool skip_special) {
  viv__detokenizer *d = viv__calloc(1, sizeof *d);
  if (!d) return NULL;
  d->t = t;
  d->decoder = viv__tokenizer_decoder(t);
  d->skip_special = skip_special;
  return d;
}

void viv__detokenizer_free(viv__detokenizer *d) {
  if (!d) return;
  for (size_t k = 0; k < COUNT(d->memory); k++) {
    viv__buf_free(&d->memory[k].held);
    viv__buf_free(&d->memory[k].made);
    viv__buf_free(&d->memory[k].extra);
    viv__buf_free(&d->memory[k].whole);
  }
  viv__buf_free(&d->ready);
  viv__free(d);
}

static void drop_shown(viv__detokenizer *d) {
  if (d->shown) d->ready.len = 0;
  d->shown = false;
}

static void show(viv__detokenizer *d, viv_str *text) {
  *text = (viv_str){d->ready.len ? d->ready.ptr : "", d->ready.len};
  d->shown = true;
}

/* VIV_BAD_INPUT: no such id; nothing changes. */
int32_t viv__detokenizer_add(viv__detokenizer *d, int32_t id, viv_str *text) {
  const viv__token *token = viv__tokenizer_token(d->t, id);
  *text = (viv_str){"", 0};
  if (!token) return VIV_BAD_INPUT;
  drop_shown(d);
  if (!(d->skip_special && token->special)) flow(d, 0, token->text.ptr, token->text.len);
  bool wait = !d->ready.failed && incomplete(d);
  if (d->ready.failed) return VIV_NOT_NOW;
  if (!wait) show(d, text);
  return VIV_OK;
}

int32_t viv__detokenizer_finish(viv__detokenizer *d, viv_str *text) {
  *text = (viv_str){"", 0};
  drop_shown(d);
  drain(d);
  if (d->ready.failed) return VIV_NOT_NOW;
  show(d, text);
  return VIV_OK;
}

/* The text of what flowed in, terminated. */
static int32_t take_all(viv__detokenizer *d, char **text, size_t *len) {
  drain(d);
  viv__buf_add(&d->ready, "", 1); /* so that it is terminated even when it is empty */
  if (d->ready.failed) return VIV_NOT_NOW;
  *text = d->ready.ptr;
  *len = d->ready.len - 1;
  d->ready = (viv__buf){0};
  return VIV_OK;
}

int32_t viv__tokenizer_decode(const viv__tokenizer *t, const int32_t *ids, size_t n,
                              bool skip_special, char **text, size_t *len, viv_error *error) {
  viv__detokenizer *d = viv__detokenizer_new(t, skip_special);
  int32_t status = d ? VIV_OK : VIV_NOT_NOW;
  for (size_t i = 0; i < n && status == VIV_OK; i++) {
    const viv__token *token = viv__tokenizer_token(t, ids[i]);
    if (!token)
      status = VIV_FAIL(error, VIV_BAD_INPUT, "ids",
                        "id %d at position %zu is not in the vocabulary", (int)ids[i], i);
    else if (!(skip_special && token->special))
      flow(d, 0, token->text.ptr, token->text.len);
  }
  if (status == VIV_OK) status = take_all(d, text, len);
  if (status == VIV_NOT_NOW) VIV_FAIL(error, VIV_NOT_NOW, "ids", "out of memory");
  viv__detokenizer_free(d);
  return status;
}

int32_t viv__decode_tokens(const viv__decoder *decoder, const viv_str *token, size_t n, char **text,
                           size_t *len) {
  viv__detokenizer *d = viv__calloc(1, sizeof *d);
  if (!d) return VIV_NOT_NOW;
  d->decoder = decoder;
  for (size_t i = 0; i < n; i++) flow(d, 0, token[i].ptr, token[i].len);
  int32_t status = take_all(d, text, len);
  viv__detokenizer_free(d);
  return status;
}
