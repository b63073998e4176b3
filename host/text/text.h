/* What the files of host/text share: characters, normalisation, pieces, BPE tables. Internal.
 *
 *   unicode.c      classes of characters, NFC, UTF-8 (tables made by gen_unicode.py)
 *   pretokenize.c  normalisers, and pre-tokenizers that cut a text into pieces
 *   bpe.c          vocabulary, merges, a piece to ids
 *   tokenizer.c    tokenizer.json read and checked; a text to ids
 *   detokenize.c   ids to text, whole and streaming
 *   template.c     chat messages to text */
#ifndef VIV_HOST_TEXT_H
#define VIV_HOST_TEXT_H

#include "text/tokenizer.h"

/* ---- unicode.c ---- */

enum viv__class {
  CLASS_LU = 1,
  CLASS_LL = 2,
  CLASS_LT = 4,
  CLASS_LM = 8,
  CLASS_LO = 16,
  CLASS_M = 32,
  CLASS_N = 64,
  CLASS_SPACE = 128, /* White_Space */
  CLASS_P = 256,
  CLASS_S = 512,
  CLASS_WORD = 1024, /* \w of Rust's regex crate */
  CLASS_L = CLASS_LU | CLASS_LL | CLASS_LT | CLASS_LM | CLASS_LO
};
uint32_t viv__class_of(uint32_t cp);
/* The first sequence of s (len > 0): its length if valid; minus the length of the maximal invalid
 * part, which one U+FFFD replaces; 0 if s ends before the sequence does. */
int viv__utf8_step(const char *s, size_t len);
/* The first byte that is not part of valid UTF-8, or len. */
size_t viv__utf8_bad(const char *s, size_t len);
size_t viv__utf8_put(uint32_t cp, char out[4]);
/* Appends text, which must be valid UTF-8, in NFC. out->failed: out of memory. */
void viv__nfc(viv_str text, viv__buf *out);

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

/* ---- pretokenize.c ---- */

/* Strings that normalisers and decoders add are short, so that no file can blow a text up. */
enum { MAX_AFFIX = 1024 };

/* A normaliser or pre-tokenizer, flattened: a Sequence is a list of steps. */
typedef struct viv__steps viv__steps;

/* Pieces of a text, one after the other in one buffer. first: the piece begins where the whole text
 * does, which Metaspace's prepend_scheme "first" asks. */
typedef struct viv__piece {
  size_t at, len;
  bool first;
} viv__piece;
typedef struct viv__pieces {
  viv__buf text;
  viv__piece *item;
  size_t n, cap;
} viv__pieces;
void viv__pieces_clear(viv__pieces *p);
void viv__pieces_free(viv__pieces *p);
/* Failure is remembered in text.failed, as with buffers. */
void viv__pieces_add(viv__pieces *p, const char *text, size_t len, bool first);

/* From the JSON of "normalizer" and "pre_tokenizer"; what is not known is refused by name. A null
 * node gives no steps. The document may be freed afterwards. */
int32_t viv__normalizer_open(const viv_json *node, viv__steps **out, viv_error *error);
int32_t viv__pre_tokenizer_open(const viv_json *node, viv__steps **out, viv_error *error);
void viv__steps_free(viv__steps *steps);
/* Replaces *text by its normalised form; spare is scratch. */
void viv__normalize(const viv__steps *steps, viv__buf *text, viv__buf *spare);
/* Cuts the pieces further; spare is scratch. */
void viv__pre_tokenize(const viv__steps *steps, viv__pieces *pieces, viv__pieces *spare);
/* The byte that a character of the byte-level alphabet stands for, or -1. */
int viv__byte_of(uint32_t cp);

/* ---- bpe.c ---- */

/* 64-bit keys to 64-bit values, open addressing. */
typedef struct viv__map {
  uint64_t *key, *value; /* key + 1, 0 = free */
  size_t n, cap;
} viv__map;
bool viv__map_reserve(viv__map *m, size_t n);                 /* false: out of memory */
bool viv__map_put(viv__map *m, uint64_t key, uint64_t value); /* overwrites */
bool viv__map_get(const viv__map *m, uint64_t key, uint64_t *value);
void viv__map_free(viv__map *m);

typedef struct viv__vocab_entry {
  const char *text;
  uint32_t len;
  int32_t id;
} viv__vocab_entry;
typedef struct viv__bpe {
  viv__vocab_entry *entry; /* in the file's order */
  size_t n;
  char *pool;     /* the spellings, each terminated */
  uint64_t *slot; /* upper half of the hash << 32 | entry + 1, 0 = free */
  size_t slots;
  uint64_t seed;
  viv__map merges;       /* left id << 32 | right id -> rank << 32 | merged id */
  int32_t unk_id;        /* -1: none */
  int32_t byte_id[256];  /* "<0xNN>", -1 = not in the vocabulary */
  int32_t low_id[0x180]; /* single characters, so that the byte alphabet needs no hashing */
  bool byte_fallback, fuse_unk, ignore_merges;
} viv__bpe;
/* Reads "model"; the document may be freed afterwards. */
int32_t viv__bpe_open(const viv_json *model, viv__bpe *bpe, viv_error *error);
void viv__bpe_free(viv__bpe *bpe);
int32_t viv__bpe_find(const viv__bpe *bpe, const char *text, size_t len); /* id or -1 */

typedef struct viv__ids {
  int32_t *ptr;
  size_t n, cap;
  bool failed;
} viv__ids;
void viv__ids_add(viv__ids *ids, int32_t id);
/* Scratch of viv__bpe_encode, zero to begin with. */
typedef struct viv__bpe_work {
  void *symbol, *heap;
  size_t symbols, heaps;
} viv__bpe_work;
/* Appends a piece's ids. ids->failed: out of memory. */
void viv__bpe_encode(const viv__bpe *bpe, const char *text, size_t len, viv__bpe_work *work,
                     viv__ids *ids);
void viv__bpe_work_free(viv__bpe_work *work);

/* ---- detokenize.c ---- */

typedef struct viv__decoder viv__decoder;
int32_t viv__decoder_open(const viv_json *node, viv__decoder **out, viv_error *error);
void viv__decoder_free(viv__decoder *decoder);

/* ---- tokenizer.c ---- */

enum { MAX_TOKEN_ID = 1 << 22 }; /* ids index tables, so a file can't ask for more than this */

typedef struct viv__token {
  viv_str text; /* ptr NULL: no such id */
  bool special;
} viv__token;
/* NULL: unknown id. */
const viv__token *viv__tokenizer_token(const viv__tokenizer *t, int32_t id);
const viv__decoder *viv__tokenizer_decoder(const viv__tokenizer *t);

#endif
