/* The tasks "encode" (text to ids) and "decode" (ids to text): the tokenizer alone, for every model
 * that has one. */
#include <stdlib.h>
#include <string.h>

#include "tasks/text_inputs.h"

static int32_t send(viv_job *job, const char *name, int32_t dtype, int32_t ndim,
                    const int64_t *shape, void *data, viv_error *error) {
  viv_tensor t = {.struct_size = sizeof t, .dtype = dtype, .ndim = ndim, .data = data};
  t.bytes = viv__dtype_size(dtype);
  for (int32_t i = 0; i < ndim; i++) {
    t.shape[i] = shape[i];
    t.bytes *= (uint64_t)shape[i];
  }
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = viv__str(name), .tensor = &t};
  int32_t status = viv__job_emit(job, &event);
  if (status < 0) return VIV_FAIL(error, status, name, "the result could not be sent");
  return VIV_DONE;
}

static int32_t encode(viv_job *job, viv_error *error) {
  const viv_model *m = job->model;
  const viv_value *text = viv__job_input(job, "text", VIV_KIND_TEXT);
  bool special = viv__json_bool(job->params, "add_special_tokens", true);
  int32_t *ids = NULL, status;
  size_t n = 0;
  if (!text) return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "encode needs text");
  double limit = viv__json_num(job->params, "max_length", (double)viv__text_limit(m));
  if (limit >= 1 && limit <= 1e9 && viv__json_bool(job->params, "truncation", false))
    status = viv__tokenizer_encode_within(m->tokenizer, text->bytes, special, true, (size_t)limit,
                                          &ids, &n, error);
  else
    status = viv__tokenizer_encode(m->tokenizer, text->bytes, special, true, &ids, &n, error);
  if (status < 0) return status;
  int64_t shape[] = {1, (int64_t)n}, *data = viv__malloc((n + 1) * sizeof *data);
  for (size_t i = 0; data && i < n; i++) data[i] = ids[i];
  status = data ? send(job, "input_ids", VIV_I64, 2, shape, data, error)
                : VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory for %zu ids", n);
  viv__free(ids);
  viv__free(data);
  return status;
}

static int32_t decode(viv_job *job, viv_error *error) {
  const viv_value *input = viv__job_input(job, "ids", VIV_KIND_TENSOR);
  if (!input) input = viv__job_input(job, "input_ids", VIV_KIND_TENSOR);
  if (!input || (input->tensor->dtype != VIV_I64 && input->tensor->dtype != VIV_I32))
    return VIV_FAIL(error, VIV_BAD_INPUT, "ids", "decode needs a tensor of int32 or int64 ids");
  const viv_tensor *x = input->tensor;
  size_t n = x->bytes / viv__dtype_size(x->dtype), len = 0;
  int32_t *ids = viv__malloc((n + 1) * sizeof *ids);
  if (!ids) return VIV_FAIL(error, VIV_NOT_NOW, "ids", "no memory");
  for (size_t i = 0; i < n; i++) {
    int64_t id =
        x->dtype == VIV_I64 ? ((const int64_t *)x->data)[i] : ((const int32_t *)x->data)[i];
    ids[i] = id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
  }
  char *text = NULL;
  int32_t status = viv__tokenizer_decode(job->model->tokenizer, ids, n,
                                         viv__json_bool(job->params, "skip_special_tokens", false),
                                         &text, &len, error);
  viv__free(ids);
  if (status < 0) return status;
  int64_t shape[] = {(int64_t)len};
  status = send(job, "text_utf8", VIV_U8, 1, shape, text, error);
  viv__free(text);
  return status;
}

bool viv__is_coding(const char *task) {
  return !strcmp(task, "encode") || !strcmp(task, "decode");
}

int32_t viv__coding_run(viv_job *job, viv_error *error) {
  if (!job->model->tokenizer)
    return VIV_FAIL(error, VIV_NEVER, job->task, "the model has no usable tokenizer: %s",
                    job->model->tokenizer_error ? job->model->tokenizer_error
                                                : "tokenizer.json is absent");
  return job->task[0] == 'e' ? encode(job, error) : decode(job, error);
}
