/* Texts for models that answer by passes, and the tasks of the tokenizer alone. Internal. */
#ifndef VIV_HOST_TEXT_INPUTS_H
#define VIV_HOST_TEXT_INPUTS_H

#include <cjson/cJSON.h>

#include "core/core.h"
#include "vivarium/text.h"

/* Where a job of a model with a tokenizer gives "text" (one or several; a JSON list of texts is the
 * same) and no "input_ids", adds the inputs input_ids, attention_mask and token_type_ids, I64 [B, T]:
 * padded to the longest row; cut to the parameter max_length or else to viv__text_limit, special
 * tokens kept, unless "truncation" is false. "text_pair": as many texts as "text" has. For fill_mask
 * the parameter mask_token_id is added, for embed what viv__pooling_input says. Other jobs stay as
 * they are. Errors: BAD_INPUT, NOT_NOW, NEVER, each with the input's name. [job] */
int32_t viv__text_inputs(viv_job *job, viv_error *error);
/* Tokens that fit into one row: max_seq_length of sentence_bert_config.json, or the least of
 * tokenizer_config.json's model_max_length and config.json's max_position_embeddings. 0: unknown. */
int64_t viv__text_limit(const viv_model *m);

/* Gives the job a parameter; value is taken over, NULL is a failed allocation. */
int32_t viv__add_param(viv_job *job, const char *key, cJSON *value, viv_error *error);

/* ---- pooling.c ---- */

/* Where a job says nothing of "pooling", takes it from the sentence-transformers release that the
 * checkpoint is (1_Pooling/config.json). NEVER: that release makes its vectors by steps that are not
 * there (another pooling, a dense layer): named, rather than other vectors given. [job] */
int32_t viv__pooling_input(viv_job *job, viv_error *error);

/* ---- text_service.c ---- */

extern const viv_text_api viv__text_api;

/* ---- coding.c ---- */

bool viv__is_coding(const char *task); /* encode, decode */
/* Runs encode (text to input_ids, I64 [1, n]) or decode (ids to text_utf8, U8 [bytes]) and sends the
 * result. VIV_DONE, or why not. NEVER: the model has no tokenizer. [job] */
int32_t viv__coding_run(viv_job *job, viv_error *error);

#endif
