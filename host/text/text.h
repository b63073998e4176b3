/* What the files of host/text share. Internal.
 *
 *   unicode.c         classes of characters, lower case, scripts, normal forms,
 * UTF-8 aligned.c         text that knows which bytes of the original it came
 * from; pieces of it pattern.c         finding: literals, the scanners below,
 * regular expressions with limits oniguruma.c       the regular expressions of
 * tokenizer.json in PCRE2's words scanners.c        the patterns of well-known
 * tokenizers, matched by hand normalizers.c, charsmap.c       "normalizer"
 *   pre_tokenizers.c                "pre_tokenizer"
 *   vocabulary.c, models.c, bpe.c, unigram.c, wordpiece.c     "model"
 *   added_tokens.c                  "added_tokens"
 *   post_processors.c, encoding.c   "post_processor", "truncation", "padding"
 *   decoders.c        "decoder"; ids to text, whole and streaming
 *   tokenizer.c       tokenizer.json as a whole; a text to an encoding
 *   sentencepiece.c, model_files.c  the files that checkpoints without a
 * tokenizer.json have */
#ifndef VIV_HOST_TEXT_H
#define VIV_HOST_TEXT_H

#include "text/tokenizer.h"

/* ---- unicode.c ---- */

enum viv__class {
  CLASS_LU = 1 << 0,
  CLASS_LL = 1 << 1,
  CLASS_LT = 1 << 2,
  CLASS_LM = 1 << 3,
  CLASS_LO = 1 << 4,
  CLASS_M = 1 << 5,
  CLASS_N = 1 << 6,
  CLASS_SPACE = 1 << 7, /* White_Space */
  CLASS_P = 1 << 8,
  CLASS_S = 1 << 9,
  CLASS_WORD = 1 << 10, /* \w of Rust's regex crate */
  /* As the library has them, from tables of other versions of Unicode (see
     gen_unicode.py). */
  CLASS_MARK = 1 << 11,        /* StripAccents */
  CLASS_NONSPACING = 1 << 12,  /* BertNormalizer's accents */
  CLASS_PUNCTUATION = 1 << 13, /* Punctuation, BertPreTokenizer */
  CLASS_OTHER = 1 << 14,       /* BertNormalizer's clean_text */
  CLASS_NUMERIC = 1 << 15,     /* Digits */
  CLASS_PLAIN = 1 << 16,       /* not decomposed although Unicode says so ... */
  CLASS_PLAIN_COMPAT = 1 << 17,
  CLASS_L = CLASS_LU | CLASS_LL | CLASS_LT | CLASS_LM | CLASS_LO
};
uint32_t viv__class_of(uint32_t cp);
int viv__script_of(uint32_t cp); /* a number per script; 0 goes with any */
/* The lower-case form of a character, character by character: 1 or 2 of them.
 */
int viv__lower(uint32_t cp, uint32_t out[2]);

/* The first sequence of s (len > 0): its length if valid; minus the length of
 * the maximal invalid part, which one U+FFFD replaces; 0 if s ends before the
 * sequence does. */
int viv__utf8_step(const char *s, size_t len);
/* The first byte that is not part of valid UTF-8, or len. */
size_t viv__utf8_bad(const char *s, size_t len);
size_t viv__utf8_put(uint32_t cp, char out[4]);

/* The character of valid UTF-8 at *at, which moves behind it. */
static inline uint32_t viv__cp(const char *s, size_t *at) {
  const unsigned char *p = (const unsigned char *)s + *at;
  if (p[0] < 0x80) return (*at)++, p[0];
  if (p[0] < 0xe0) return *at += 2, (uint32_t)(p[0] & 31) << 6 | (p[1] & 63);
  if (p[0] < 0xf0)
    return *at += 3, (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
  return *at += 4, (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 |
                       (uint32_t)(p[2] & 63) << 6 | (p[3] & 63);
}
/* The start of the character that ends before at (at > 0). */
static inline size_t viv__cp_back(const char *s, size_t at) {
  do at--;
  while (at && ((unsigned char)s[at] & 0xc0) == 0x80);
  return at;
}
/* Bytes of the character that begins with this one. */
static inline size_t viv__cp_len(char first) {
  unsigned char c = (unsigned char)first;
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* ---- aligned.c ---- */

enum { MAX_FORM = 1 << 30 }; /* bytes of normalised text: a chain of replacements multiplies it */

/* Normalised text: each byte with the bytes of the original that it came from.
 */
typedef struct viv__span {
  uint32_t start, end;
} viv__span;
typedef struct viv__aligned {
  char *text;
  viv__span *span;
  size_t len, cap;
  bool failed; /* out of memory or beyond MAX_FORM; stays set */
} viv__aligned;
void viv__aligned_free(viv__aligned *a);
bool viv__aligned_room(viv__aligned *a, size_t more);
/* Appends bytes that all came from one place. */
void viv__aligned_add(viv__aligned *a, const char *text, size_t len, viv__span span);
void viv__aligned_copy(viv__aligned *a, const viv__aligned *from, size_t start, size_t end);
/* Appends original text that begins at byte `start` of the whole; valid UTF-8.
 */
void viv__aligned_original(viv__aligned *a, const char *text, size_t len, size_t start);

/* Rewrites a text character by character, with the library's rules of what came
 * from where: a character that takes the place of one has its origin, an
 * inserted one that of the byte before. */
typedef struct viv__edit {
  const viv__aligned *in;
  viv__aligned *out;
  size_t at; /* the next byte of `in` */
} viv__edit;
/* change > 0: cp is inserted; 0: it replaces the next character; -n: and n more
 * are dropped. */
void viv__edit_put(viv__edit *e, uint32_t cp, int change);
void viv__edit_skip(viv__edit *e, size_t characters);

typedef struct viv__piece {
  uint32_t at, len;
} viv__piece;
typedef struct viv__pieces {
  viv__aligned body;
  viv__piece *item;
  size_t n, cap;
} viv__pieces;
void viv__pieces_free(viv__pieces *p);
/* Failure is remembered in body.failed. Empty pieces are left out. */
void viv__pieces_add(viv__pieces *p, size_t at, size_t len);

/* ---- normal forms (unicode.c) ---- */

enum viv__form { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };
/* Appends `in` in a normal form to `out`. */
void viv__normal_form(int form, const viv__aligned *in, viv__aligned *out);

/* ---- pattern.c ---- */

/* Strings that normalisers and decoders add are short, so that no file can blow
 * a text up. */
enum { MAX_AFFIX = 1024 };

typedef struct viv__pattern viv__pattern;
/* From {"String": s} or {"Regex": r}. `where` names the place in errors. */
int32_t viv__pattern_open(const viv_json *node, const char *where, viv__pattern **out,
                          viv_error *error);
/* A pattern of one string; of one character of a class (NULL: out of memory).
 */
viv__pattern *viv__pattern_literal(viv_str text);
viv__pattern *viv__pattern_class(uint32_t classes);
/* A pattern that scanners.c matches. */
viv__pattern *viv__pattern_known(const char *regex);
void viv__pattern_free(viv__pattern *p);
/* Finds the matches in a text one after the other, as Oniguruma's find_iter
 * does: no empty match right behind the match before. */
typedef struct viv__finder {
  const viv__pattern *p;
  viv_str text;
  size_t at, last; /* where to go on; the end of the last match, SIZE_MAX: none */
  void *scratch;
  uint64_t budget; /* steps left for what is hard to match */
  bool failed;     /* the budget is spent, or out of memory */
} viv__finder;
void viv__finder_start(viv__finder *f, const viv__pattern *p, viv_str text);
bool viv__finder_next(viv__finder *f, size_t *start, size_t *end);
void viv__finder_stop(viv__finder *f);

/* ---- oniguruma.c ---- */

/* Appends the PCRE2 pattern that means what `regex` means to Oniguruma. False:
 * *why says what has no equivalent, and *at the byte. */
bool viv__oniguruma(viv_str regex, viv__buf *out, const char **why, size_t *at);

/* ---- scanners.c ---- */

/* Finds the first match in text[from, len): true, and *start < *end. */
typedef bool (*viv__find_fn)(const char *text, size_t len, size_t from, size_t *start, size_t *end);
viv__find_fn viv__known_pattern(const char *regex); /* NULL: not one of those */
extern const char viv__gpt2_regex[];

/* ---- normalizers.c, charsmap.c ---- */

typedef struct viv__normalizer viv__normalizer;
/* A null node gives one that changes nothing. The document may be freed
 * afterwards. */
int32_t viv__normalizer_open(const viv_json *node, viv__normalizer **out, viv_error *error);
void viv__normalizer_free(viv__normalizer *n);
/* Replaces *text by its normalised form; spare is scratch. */
void viv__normalize(const viv__normalizer *n, viv__aligned *text, viv__aligned *spare);

typedef struct viv__charsmap viv__charsmap;
int32_t viv__charsmap_open(viv_str base64, viv__charsmap **out, viv_error *error);
void viv__charsmap_free(viv__charsmap *map);
void viv__charsmap_apply(const viv__charsmap *map, const viv__aligned *in, viv__aligned *out);

/* ---- pre_tokenizers.c ---- */

typedef struct viv__pre_tokenizer viv__pre_tokenizer;
int32_t viv__pre_tokenizer_open(const viv_json *node, viv__pre_tokenizer **out, viv_error *error);
void viv__pre_tokenizer_free(viv__pre_tokenizer *p);
/* Cuts the pieces further; spare is scratch. *why: what failed, if not memory.
 */
void viv__pre_tokenize(const viv__pre_tokenizer *p, viv__pieces *pieces, viv__pieces *spare,
                       const char **why);
/* The byte-level alphabet: printable Latin-1 stands for itself, the other 68
 * bytes, in order, for U+0100 and on. */
uint32_t viv__char_of_byte(unsigned char byte);
int viv__byte_of(uint32_t cp); /* -1: not of the alphabet */

/* ---- vocabulary.c ---- */

enum { MAX_TOKEN_ID = 1 << 22 }; /* ids index tables, so a file can't ask for more than this */

/* 64-bit keys to 64-bit values, open addressing. */
typedef struct viv__slot {
  uint64_t key, value; /* key + 1, 0 = free */
} viv__slot;
typedef struct viv__map {
  viv__slot *slot;
  size_t n, cap;
} viv__map;
bool viv__map_reserve(viv__map *m, size_t n);                 /* false: out of memory */
bool viv__map_put(viv__map *m, uint64_t key, uint64_t value); /* overwrites */
bool viv__map_get(const viv__map *m, uint64_t key, uint64_t *value);
void viv__map_free(viv__map *m);
uint64_t viv__hash_u64(uint64_t x);
uint64_t viv__hash_text(const char *text, size_t len, uint64_t seed);

typedef struct viv__vocab_entry {
  const char *text;
  uint32_t len;
  int32_t id;
} viv__vocab_entry;
typedef struct viv__vocab {
  viv__vocab_entry *entry; /* in the file's order */
  size_t n;
  char *pool;     /* the spellings, each terminated */
  uint64_t *slot; /* upper half of the hash << 32 | entry + 1, 0 = free */
  size_t slots;
  uint64_t seed;
  size_t size; /* entries that the file lists, which numbers the added tokens */
} viv__vocab;
/* From the object {token: id}; `where` names the place in errors. */
int32_t viv__vocab_open(const viv_json *node, const char *where, viv__vocab *v, viv_error *error);
/* From n spellings, whose ids are their indices; of equal ones the last counts.
 */
int32_t viv__vocab_list(const viv_str *text, size_t n, const char *where, viv__vocab *v,
                        viv_error *error);
void viv__vocab_free(viv__vocab *v);
int32_t viv__vocab_find(const viv__vocab *v, const char *text, size_t len); /* id or -1 */
const viv__vocab_entry *viv__vocab_entry_of(const viv__vocab *v, const char *text, size_t len);
void viv__vocab_prefetch(const viv__vocab *v, const char *text, size_t len);
/* The ids of "<0x00>" to "<0xFF>", -1 = not in the vocabulary. */
void viv__vocab_bytes(const viv__vocab *v, int32_t id[256]);

/* A trie over spellings: (node, byte) -> node. */
typedef struct viv__trie {
  viv__map edge, end; /* end: node -> value */
  uint32_t root[256]; /* the edges of the root, 0 = none */
  uint64_t nodes;
} viv__trie;
bool viv__trie_put(viv__trie *t, const char *text, size_t len, uint64_t value, bool overwrite);
void viv__trie_free(viv__trie *t);
/* One step from a node; false: no such edge. *ends: a spelling ends there, with
 * *value. */
bool viv__trie_step(const viv__trie *t, uint64_t *node, unsigned char byte, bool *ends,
                    uint64_t *value);

/* ---- models.c, bpe.c, unigram.c, wordpiece.c ---- */

/* What a model makes of a piece: ids in order, with the bytes of the piece that
 * each covers. Spelled: the token shows that part of the piece and not what the
 * vocabulary says. */
typedef struct viv__part {
  int32_t id;
  uint32_t start, end;
  bool spelled;
} viv__part;
typedef struct viv__parts {
  viv__part *item;
  size_t n, cap;
  bool failed;
} viv__parts;
void viv__parts_add(viv__parts *p, viv__part part);
void viv__parts_free(viv__parts *p);
/* Scratch memory that grows. False: out of memory. */
bool viv__room(void **p, size_t *cap, size_t need, size_t size);

typedef struct viv__bpe {
  viv__map merges;       /* left id << 32 | right id -> rank << 32 | merged id */
  int32_t unk_id;        /* -1: none */
  int32_t byte_id[256];  /* "<0xNN>" */
  int32_t low_id[0x180]; /* single characters, so that the byte alphabet needs
                            no hashing */
  char *prefix, *suffix; /* of all characters but the first; of the last one;
                            NULL: none */
  size_t prefix_len, suffix_len;
  bool byte_fallback, fuse_unk, ignore_merges;
} viv__bpe;
typedef struct viv__unigram {
  double *score; /* by id */
  double unk_score;
  int32_t unk_id; /* -1: none */
  int32_t byte_id[256];
  bool byte_fallback;
} viv__unigram;
typedef struct viv__wordpiece {
  char *prefix, *unk; /* of a word's later parts; what an unknown word becomes */
  size_t prefix_len, unk_len;
  size_t max_characters; /* longer words are unknown; WordLevel: not looked at */
  int32_t unk_id;        /* -1: not in the vocabulary */
} viv__wordpiece;

enum viv__model_kind { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL };
typedef struct viv__text_model {
  int kind;
  viv__vocab vocab;
  viv__trie trie; /* Unigram and WordPiece; value: the id */
  viv__bpe bpe;
  viv__unigram unigram;
  viv__wordpiece wordpiece; /* and WordLevel */
} viv__text_model;
/* Reads "model"; the document may be freed afterwards. */
int32_t viv__text_model_open(const viv_json *node, viv__text_model *m, viv_error *error);
void viv__text_model_free(viv__text_model *m);
int32_t viv__bpe_open(const viv_json *node, viv__text_model *m, viv_error *error);
int32_t viv__unigram_open(const viv_json *node, viv__text_model *m, viv_error *error);
int32_t viv__wordpiece_open(const viv_json *node, viv__text_model *m, viv_error *error);

/* Scratch of the models and what they remember of the pieces of one text; zero
 * to begin with. */
typedef struct viv__model_work {
  void *symbol, *heap, *node;
  size_t symbols, heaps, nodes;
  viv__buf word;
  struct viv__cache *cache;
} viv__model_work;
void viv__model_work_free(viv__model_work *work);
/* Appends a piece's parts. Memory: parts->failed. VIV_BAD_INPUT: the piece
 * needs an unknown token that the model lacks; *why says so. */
int32_t viv__text_model_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                               viv__parts *parts, const char **why);
void viv__bpe_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                     viv__parts *parts);
int32_t viv__unigram_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                            viv__parts *parts, const char **why);
int32_t viv__wordpiece_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                              viv__parts *parts, const char **why);

/* ---- added_tokens.c ---- */

typedef struct viv__added_token {
  char *text;
  size_t len;
  char *form; /* what it matches and decodes to, where it is normalised; else
                 NULL */
  size_t form_len;
  int32_t id;
  bool special, single_word, lstrip, rstrip, normalized;
} viv__added_token;
typedef struct viv__added {
  viv__added_token *item;
  size_t n;
  viv__trie raw, normalized; /* value: the index */
  viv__vocab special;        /* the spellings of the special ones */
} viv__added;
int32_t viv__added_open(const viv_json *list, const viv__vocab *vocab, const viv__normalizer *n,
                        viv__added *added, viv_error *error);
void viv__added_free(viv__added *added);
/* Goes through the places of a text where an added token of a trie stands. */
typedef struct viv__added_search {
  const viv__added *added;
  const viv__trie *trie;
  viv_str text;
  bool parse_special;
  size_t at, done;               /* where to look next; the end of the last match */
  size_t space_start, space_end; /* the last run of white space that was walked */
  size_t start, end;             /* the match, with the white space that it takes */
} viv__added_search;
/* The next one, with its place in start and end; NULL: none. */
const viv__added_token *viv__added_next(viv__added_search *s);

/* ---- encoding.c ---- */

/* Appends a copy of a token. Failure is remembered. */
void viv__encoding_add(viv__encoding *e, viv__encoded token);
void viv__encoding_free(viv__encoding *e);
/* Appends `with` and its windows to e and its windows, each with each, as the
 * library does. */
void viv__encoding_merge(viv__encoding *e, const viv__encoding *with);
bool viv__encoding_copy(viv__encoding *to, const viv__encoding *from, bool overflow);
int32_t viv__truncate(const viv__truncation *t, size_t added, viv__encoding *a, viv__encoding *b,
                      viv_error *error);

/* ---- post_processors.c ---- */

typedef struct viv__post_processor viv__post_processor;
int32_t viv__post_processor_open(const viv_json *node, viv__post_processor **out, viv_error *error);
void viv__post_processor_free(viv__post_processor *p);
/* Replaces the single template by these ids around the text. False: out of
 * memory. */
bool viv__post_processor_wrap(viv__post_processor *p, const viv__encoded *before,
                              const viv__encoded *after);
/* The token that its single template begins (side 0) or ends with, if that is
 * one. */
bool viv__post_processor_side(const viv__post_processor *p, int side, viv__encoded *out);
/* How many tokens it adds, which truncation leaves room for. */
size_t viv__post_processor_added(const viv__post_processor *p, bool pair);
/* Joins one or two encodings (pair NULL: one) to *out; they are used up. */
void viv__post_process(const viv__post_processor *p, viv__encoding *first, viv__encoding *pair,
                       bool add_special, viv__encoding *out);
/* The n-th id that it may add, with its spelling; false: no more. */
bool viv__post_processor_token(const viv__post_processor *p, size_t n, int32_t *id);

/* ---- decoders.c ---- */

typedef struct viv__decoder viv__decoder;
int32_t viv__decoder_open(const viv_json *node, viv__decoder **out, viv_error *error);
void viv__decoder_free(viv__decoder *decoder);
/* What a decoder makes of tokens, terminated, viv__free. NOT_NOW: out of
 * memory. */
int32_t viv__decode_tokens(const viv__decoder *decoder, const viv_str *token, size_t n, char **text,
                           size_t *len);

/* ---- tokenizer.c ---- */

typedef struct viv__token {
  viv_str text; /* ptr NULL: no such id */
  bool special;
} viv__token;
/* NULL: unknown id. */
const viv__token *viv__tokenizer_token(const viv__tokenizer *t, int32_t id);
const viv__decoder *viv__tokenizer_decoder(const viv__tokenizer *t);

/* A copy of a member that must be a string of at most MAX_AFFIX bytes; of one
 * character. */
int32_t viv__string_member(const viv_json *node, const char *key, const char *where, char **out,
                           size_t *len, viv_error *error);
int32_t viv__character_member(const viv_json *node, const char *key, const char *where, char **out,
                              size_t *len, viv_error *error);
/* A member that must be true or false; fallback where it is absent or null, if
 * it may be (0, 1), or -1: it must be there. */
int32_t viv__flag_member(const viv_json *node, const char *key, const char *where, int fallback,
                         bool *out, viv_error *error);
/* A member that must be a whole number from 0 to most; fallback -1: it must be
 * there. */
int32_t viv__count_member(const viv_json *node, const char *key, const char *where, double most,
                          double fallback, double *out, viv_error *error);

#endif
