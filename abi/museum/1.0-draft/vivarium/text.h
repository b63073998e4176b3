/* viv.text/1: the tokenizer of a job's model, asked for with get_extension(VIV_TEXT_ID), for models that
 * write text in a pass of their own (speech recognition, captions). Token models need none of it: the
 * host writes their text. A host may lack the extension, and a model its tokenizer. */
#ifndef VIVARIUM_TEXT_H
#define VIVARIUM_TEXT_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_TEXT_ID "viv.text/1"

typedef struct viv_text_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  /* The text of n ids, UTF-8, in the job's arena: *out lives as long as the job. skip_special leaves
   * out special tokens. Errors: NEVER (the model has no tokenizer), NOT_NOW (memory). [job] */
  int32_t (*decode)(viv_job *job, const int32_t *ids, int64_t n, int32_t skip_special, viv_str *out,
                    viv_error *error);
  /* The id of a token by its exact spelling, "<|startoftranscript|>"; -1: none, or no tokenizer.
   * [job] */
  int32_t (*token_id)(viv_job *job, viv_str spelling);
} viv_text_api;

#ifdef __cplusplus
}
#endif
#endif
