/* A sentencepiece model (tokenizer.model, spiece.model) as a tokenizer.json.
 * Internal. */
#ifndef VIV_HOST_SENTENCEPIECE_H
#define VIV_HOST_SENTENCEPIECE_H

#include "base/base.h"

/* Appends to *out the tokenizer.json that does what the model does. name: the
 * file's, for errors. config: tokenizer_config.json or NULL; its class says
 * which special tokens go around a text. */
int32_t viv__sentencepiece_document(viv_str bytes, const char *name, const viv_json *config,
                                    viv__buf *out, viv_error *error);
#endif
