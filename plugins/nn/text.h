/* The tokenizer of the job's model, inside a task. */
#ifndef PLUGINS_NN_TEXT_H
#define PLUGINS_NN_TEXT_H

#include "nn/pass.h"

/* The text of n ids, which lives as long as the job; special tokens left out when asked. False: the
 * host or the model has no tokenizer. */
bool nn_text_of(nn_pass *p, const int32_t *ids, int64_t n, bool skip_special, viv_str *out);
/* -1: no such token, or no tokenizer. */
int32_t nn_token_id(nn_pass *p, const char *spelling);

#endif
