/* The tasks "encode" (text to ids) and "decode" (ids to text): the tokenizer alone. */
#include <stdlib.h>
#include <string.h>

#include "tasks/task.h"

static int32_t encode(viv__task *t, viv_error *error) {
  const viv_value *text = viv__job_input(t->job, "text", VIV_KIND_TEXT);
  int32_t *ids = NULL;
  size_t n = 0;
  if (!text) return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "encode needs text");
  int32_t status = viv__tokenizer_encode(t->m->tokenizer, text->bytes,
                                         viv__json_bool(t->job->params, "add_special_tokens", true),
                                         true, &ids, &n, error);
  if (status < 0) return status;
  double limit = viv__json_num(t->job->params, "max_length", 0);
  if (limit > 0 && viv__json_bool(t->job->params, "truncation", false) && (double)n > limit)
    n = (size_t)limit;
  int64_t shape[] = {1, (int64_t)n};
  int64_t *data = viv__malloc(n * sizeof *data);
  for (size_t i = 0; data && i < n; i++) data[i] = ids[i];
  viv__free(ids);
  return viv__task_out(t, "input_ids", VIV_I64, 2, shape, data, 0);
}

static int32_t decode(viv__task *t, viv_error *error) {
  const viv_value *input = viv__job_input(t->job, "ids", VIV_KIND_TENSOR);
  if (!input) input = viv__job_input(t->job, "input_ids", VIV_KIND_TENSOR);
  if (!input || (input->tensor->dtype != VIV_I64 && input->tensor->dtype != VIV_I32))
    return VIV_FAIL(error, VIV_BAD_INPUT, "ids", "decode needs a tensor of int32 or int64 ids");
  const viv_tensor *x = input->tensor;
  size_t n = x->bytes / viv__dtype_size(x->dtype), len = 0;
  int32_t *ids = viv__malloc(n * sizeof *ids);
  if (!ids) return VIV_FAIL(error, VIV_NOT_NOW, "ids", "no memory");
  for (size_t i = 0; i < n; i++) {
    int64_t id =
        x->dtype == VIV_I64 ? ((const int64_t *)x->data)[i] : ((const int32_t *)x->data)[i];
    ids[i] = id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
  }
  char *text = NULL;
  int32_t status = viv__tokenizer_decode(
      t->m->tokenizer, ids, n, viv__json_bool(t->job->params, "skip_special_tokens", false), &text,
      &len, error);
  viv__free(ids);
  if (status < 0) return status;
  int64_t shape[] = {(int64_t)len};
  return viv__task_out(t, "text_utf8", VIV_U8, 1, shape, text, 0);
}

int32_t viv__coding_begin(viv__task *t, bool encoding, viv_error *error) {
  if (!t->m->tokenizer)
    return VIV_FAIL(error, VIV_NEVER, t->job->task, "the model has no usable tokenizer: %s",
                    t->m->tokenizer_error ? t->m->tokenizer_error : "tokenizer.json is absent");
  int32_t status = encoding ? encode(t, error) : decode(t, error);
  t->complete = status == VIV_OK;
  return status;
}
