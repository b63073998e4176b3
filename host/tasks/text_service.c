/* viv.text/1: plugins' way to the tokenizer of a job's model. */
#include "tasks/text_inputs.h"
#include "vivarium/text.h"

#include <string.h>

static int32_t decode(viv_job *job, const int32_t *ids, int64_t n, int32_t skip_special,
                      viv_str *out, viv_error *error) {
  const viv_model *m = job->model;
  char *text = NULL;
  size_t len = 0;
  *out = (viv_str){NULL, 0};
  if (!m->tokenizer)
    return VIV_FAIL(error, VIV_NEVER, job->task, "the model has no usable tokenizer: %s",
                    m->tokenizer_error ? m->tokenizer_error : "tokenizer.json is absent");
  int32_t status = viv__tokenizer_decode(m->tokenizer, ids, (size_t)(n > 0 ? n : 0),
                                         skip_special != 0, &text, &len, error);
  if (status < 0) return status;
  viv_arena *arena = viv__job_arena(job);
  char *copy = arena ? viv__arena_str(arena, (viv_str){text ? text : "", len}) : NULL;
  viv__free(text);
  if (!copy) return VIV_FAIL(error, VIV_NOT_NOW, job->task, "no memory for %zu bytes", len);
  *out = (viv_str){copy, len};
  return VIV_OK;
}

static int32_t token_id(viv_job *job, viv_str spelling) {
  char name[128];
  if (!job->model->tokenizer || spelling.len >= sizeof name) return -1;
  memcpy(name, spelling.ptr, spelling.len);
  name[spelling.len] = 0;
  return viv__tokenizer_id(job->model->tokenizer, name);
}

const viv_text_api viv__text_api = {.struct_size = sizeof(viv_text_api),
                                    .abi_major = VIV_ABI_MAJOR,
                                    .abi_minor = VIV_ABI_MINOR,
                                    .decode = decode,
                                    .token_id = token_id};
