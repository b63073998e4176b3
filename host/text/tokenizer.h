/* Text to token ids and back, as the tokenizers library of Hugging Face does
 * it. Internal.
 *
 * Serves tokenizer.json whole (normalizers, pre-tokenizers, BPE, Unigram,
 * WordPiece and WordLevel, added tokens, post-processors, decoders, truncation
 * and padding), and the files of checkpoints that have none: a sentencepiece
 * model, vocab.json with merges.txt, vocab.txt. What a file asks for beyond
 * that is refused by name when it is opened.
 *
 * The JSON parser ends a string at U+0000, so a vocabulary can't hold that
 * character other than as <0x00> or in the byte alphabet; texts can. */
#ifndef VIV_HOST_TOKENIZER_H
#define VIV_HOST_TOKENIZER_H

#include "base/base.h"

typedef struct viv__tokenizer viv__tokenizer;
/* json: text of tokenizer.json; config: text of tokenizer_config.json or empty
 * (for add_bos_token and the like). Untrusted. */
int32_t viv__tokenizer_open(viv_str json, viv_str config, viv__tokenizer **out, viv_error *error);
/* From what files a checkpoint has: tokenizer.json, or a sentencepiece model
 * (tokenizer.model, spiece.model, sentencepiece.bpe.model, spm_char.model), or vocab.json and
 * merges.txt, or vocab.txt, with tokenizer_config.json
 * where they stand beside. `read` answers VIV_OK and a file's bytes, which live
 * until its caller is done, or a failure. *config: tokenizer_config.json, or
 * empty. VIV_BAD_INPUT: there is no such file, or it is broken. */
typedef int32_t (*viv__read_fn)(void *context, const char *name, viv_str *bytes, viv_error *error);
int32_t viv__tokenizer_open_files(viv__read_fn read, void *context, viv_str config,
                                  viv__tokenizer **out, viv_error *error);
/* The same of a folder. */
int32_t viv__tokenizer_open_folder(const char *folder, viv__tokenizer **out, viv_error *error);
void viv__tokenizer_close(viv__tokenizer *t);
int32_t viv__tokenizer_size(const viv__tokenizer *t); /* largest id + 1 */
/* ---- encodings ---- */

/* A token of an encoding. */
typedef struct viv__encoded {
  int32_t id, type_id;
  int32_t word;        /* which piece of the pre-tokenizer it came from; -1: of none */
  int32_t sequence;    /* which text of a pair, 0 or 1; -1: of none */
  uint32_t start, end; /* its place in the text; 0, 0 where sequence is -1 */
  bool special;        /* put in by the post-processor or as padding */
  bool attention;      /* not padding */
  viv_str text;        /* as the library spells it: the vocabulary's form, or what was
                   unknown */
} viv__encoded;

typedef struct viv__encoding {
  viv__encoded *token;
  size_t n, cap;
  struct viv__encoding *overflow; /* the further windows, where truncation cut a text */
  size_t overflows;
  bool failed; /* while it is made: out of memory, or windows beyond all measure
                */
} viv__encoding;

enum viv__side { VIV__SIDE_RIGHT, VIV__SIDE_LEFT };
enum viv__truncate_by { VIV__LONGEST_FIRST, VIV__ONLY_FIRST, VIV__ONLY_SECOND };
/* "truncation" and "padding" of tokenizer.json, or what a caller wants instead.
 */
typedef struct viv__truncation {
  bool on;
  int32_t side, by;
  size_t max_length, stride; /* tokens of a window; tokens that neighbouring windows share */
} viv__truncation;
typedef struct viv__padding {
  bool on;
  int32_t side, id, type_id;
  size_t length, multiple; /* 0: to the longest; 0: of no number */
  char token[64];
} viv__padding;
/* From their JSON, where null and absent are off. where: for errors. */
int32_t viv__truncation_open(const viv_json *node, viv__truncation *t, viv_error *error);
int32_t viv__padding_open(const viv_json *node, viv__padding *p, viv_error *error);
/* What the file says. */
viv__truncation viv__tokenizer_truncation(const viv__tokenizer *t);
viv__padding viv__tokenizer_padding(const viv__tokenizer *t);

typedef struct viv__encode_options {
  bool add_special;   /* apply the post-processor's template */
  bool parse_special; /* literal special tokens become their ids, else they are
                         ordinary text */
  bool code_points;   /* places count code points, else bytes */
  viv__truncation truncation;
  viv__padding padding;
} viv__encode_options;
/* A text or, where pair.ptr is not NULL, two. */
typedef struct viv__text_pair {
  viv_str text, pair;
} viv__text_pair;
typedef struct viv__encodings {
  viv__encoding *item;
  size_t n;
  viv_arena *texts;
} viv__encodings;
/* Encodes a batch, which padding makes equally long. BAD_INPUT: a text is not
 * UTF-8 (its byte is named), truncation leaves no room, the model has no
 * unknown token where it needs one. Spellings live as long as the encodings and
 * the tokenizer. Thread-safe. */
int32_t viv__tokenizer_encode_batch(const viv__tokenizer *t, const viv__text_pair *texts, size_t n,
                                    const viv__encode_options *options, viv__encodings *out,
                                    viv_error *error);
void viv__encodings_free(viv__encodings *e);

/* Ids of a text, in memory that viv__free frees: no truncation, no padding. Or at most `most` ids, for
 * which the text is cut and not the special tokens around it. */
int32_t viv__tokenizer_encode_within(const viv__tokenizer *t, viv_str text, bool add_special,
                                     bool parse_special, size_t most, int32_t **ids, size_t *n,
                                     viv_error *error);
int32_t viv__tokenizer_encode(const viv__tokenizer *t, viv_str text, bool add_special,
                              bool parse_special, int32_t **ids, size_t *n, viv_error *error);

/* ---- decoding ---- */

/* Text of ids, terminated, viv__free. Unknown ids: BAD_INPUT. */
int32_t viv__tokenizer_decode(const viv__tokenizer *t, const int32_t *ids, size_t n,
                              bool skip_special, char **text, size_t *len, viv_error *error);
/* id of a token by its exact spelling ("<|end|>"), -1. */
int32_t viv__tokenizer_id(const viv__tokenizer *t, const char *token);
/* How the vocabulary spells a token; empty: no such id. Lives as long as the tokenizer. */
viv_str viv__tokenizer_spelling(const viv__tokenizer *t, int32_t id);
bool viv__tokenizer_is_special(const viv__tokenizer *t, int32_t id);

/* Streaming decode: what may be shown after each token. Incomplete UTF-8 (also
 * runs of byte-fallback tokens) is held back; finish gives what is left, with
 * U+FFFD for what stayed incomplete. The concatenation equals decode() of all
 * ids, with one exception: of a run of byte-fallback tokens that begins with
 * whole characters and turns invalid later, those characters have been shown
 * already, where decode() would make the whole run U+FFFD. */
typedef struct viv__detokenizer viv__detokenizer;
viv__detokenizer *viv__detokenizer_new(const viv__tokenizer *t, bool skip_special);
void viv__detokenizer_free(viv__detokenizer *d);
/* *text lives until the next call. NOT_NOW: out of memory. BAD_INPUT: no such
 * id. */
int32_t viv__detokenizer_add(viv__detokenizer *d, int32_t id, viv_str *text);
int32_t viv__detokenizer_finish(viv__detokenizer *d, viv_str *text);

#endif
