/* Text to token ids and back, from a tokenizer.json. Internal.
 *
 * Serves byte-level BPE (GPT-2, cl100k, o200k, Digits pre-tokenizers) and SentencePiece-style BPE
 * with byte fallback, added and special tokens, the post-processor's template, streaming decode.
 * What a file asks for beyond that is refused by name when it is opened. */
#ifndef VIV_HOST_TOKENIZER_H
#define VIV_HOST_TOKENIZER_H

#include "base/base.h"

typedef struct viv__tokenizer viv__tokenizer;
/* json: text of tokenizer.json; config: text of tokenizer_config.json or empty (for add_bos_token and
 * the like). Untrusted. */
int32_t viv__tokenizer_open(viv_str json, viv_str config, viv__tokenizer **out, viv_error *error);
void viv__tokenizer_close(viv__tokenizer *t);
int32_t viv__tokenizer_size(const viv__tokenizer *t); /* largest id + 1 */
/* Ids of a text, in memory that viv__free frees. add_special: apply the post-processor's template.
 * Literal special tokens in the text become their ids when parse_special is true, else they are
 * ordinary text. BAD_INPUT: text is not UTF-8 (the byte is named). Thread-safe. */
int32_t viv__tokenizer_encode(const viv__tokenizer *t, viv_str text, bool add_special,
                              bool parse_special, int32_t **ids, size_t *n, viv_error *error);
/* Text of ids, terminated, viv__free. Unknown ids: BAD_INPUT. */
int32_t viv__tokenizer_decode(const viv__tokenizer *t, const int32_t *ids, size_t n,
                              bool skip_special, char **text, size_t *len, viv_error *error);
/* id of a token by its exact spelling ("<|end|>"), -1. */
int32_t viv__tokenizer_id(const viv__tokenizer *t, const char *token);
bool viv__tokenizer_is_special(const viv__tokenizer *t, int32_t id);

/* Streaming decode: what may be shown after each token. Incomplete UTF-8 (also runs of byte-fallback
 * tokens) is held back; finish gives what is left, with U+FFFD for what stayed incomplete. The
 * concatenation equals decode() of all ids, with one exception: of a run of byte-fallback tokens that
 * begins with whole characters and turns invalid later, those characters have been shown already,
 * where decode() would make the whole run U+FFFD. */
typedef struct viv__detokenizer viv__detokenizer;
viv__detokenizer *viv__detokenizer_new(const viv__tokenizer *t, bool skip_special);
void viv__detokenizer_free(viv__detokenizer *d);
/* *text lives until the next call. NOT_NOW: out of memory. BAD_INPUT: no such id. */
int32_t viv__detokenizer_add(viv__detokenizer *d, int32_t id, viv_str *text);
int32_t viv__detokenizer_finish(viv__detokenizer *d, viv_str *text);

/* Chat: renders messages (JSON array of {role, content}) to text by the tokenizer_config's
 * chat_template for the few template forms that need no interpreter, see template.c; NEVER when the
 * form is unknown. viv__free. */
int32_t viv__chat_render(viv_str tokenizer_config, const viv_json *messages, bool add_generation,
                         char **text, size_t *len, viv_error *error);
#endif
