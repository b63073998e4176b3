/* Codes of an audio codec as tokens of a language model. Internal to the host; any thread.
 *
 * A token model whose vocabulary holds codes says so in its config.json:
 *
 *   "audio_tokens": {"codec": "encodec", "sampling_rate": 24000, "channels": 1, "hop": 320,
 *                    "codebooks": 2, "codebook_size": 1024,  the header of a token file (docs/vtok.md)
 *                    "offset": 3, "begin": 1, "end": 2}
 *
 * Unit follows unit as in a token file, and code c of code book q is token offset + q codebook_size + c.
 * begin stands before all, end behind; either may be absent. */
#ifndef VIV_HOST_CODE_TOKENS_H
#define VIV_HOST_CODE_TOKENS_H

#include "media/vtok.h"

typedef struct viv__code_tokens {
  viv__vtok_header header;
  int32_t offset, begin, end; /* begin, end: -1 where there is none */
} viv__code_tokens;

/* node: the object above; vocab: tokens of the model. BAD_INPUT: a header that can't be, chunks, tokens
 * beyond the vocabulary. */
int32_t viv__code_tokens_read(const viv_json *node, int32_t vocab, const char *name,
                              viv__code_tokens *out, viv_error *error);
/* The first token of the code book that place `at` of a stream of codes belongs to. */
int32_t viv__code_tokens_base(const viv__code_tokens *t, int64_t at);
/* n codes of a file with that header to tokens [n of the model's books + 1], begin first; code books
 * that the model does not know are left out. Answers how many tokens, or BAD_INPUT: another codec, too few
 * code books, other rates. */
int64_t viv__code_tokens_from(const viv__code_tokens *t, const viv__vtok_header *file,
                              const char *name, const int32_t *codes, int64_t n, int64_t *tokens,
                              viv_error *error);
/* Codes of whole units at the start of n tokens, which begin at place 0 of a unit; the end and tokens
 * that are no code where they stand end it. Answers how many codes. */
int64_t viv__code_tokens_to(const viv__code_tokens *t, const int64_t *tokens, int64_t n,
                            int32_t *codes);

#endif
