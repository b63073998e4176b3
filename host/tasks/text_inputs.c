/* Texts become ids before a model that answers by passes sees its job. */
#include "tasks/text_inputs.h"

#include <cjson/cJSON.h>
#include <string.h>

static double positive(const viv_json *file, const char *key) {
  double n = viv__json_num(file, key, 0);
  return n >= 1 && n <= 1e7 ? n : 0; /* model_max_length is 1e30 where nobody knew it */
}

int64_t viv__text_limit(const viv_model *m) {
  const viv_checkpoint *c = m->checkpoint;
  double own =
      positive(viv__checkpoint_file(c, viv__str("sentence_bert_config.json")), "max_seq_length");
  if (own > 0) return (int64_t)own;
  double named =
      positive(viv__checkpoint_file(c, viv__str("tokenizer_config.json")), "model_max_length");
  double places = positive(viv__checkpoint_config(c), "max_position_embeddings");
  if (named > 0 && (places <= 0 || named < places)) return (int64_t)named;
  return (int64_t)places;
}

/* ---- the texts of a job ---- */

struct texts {
  viv_str *items;
  size_t n;
};

static size_t json_texts(const viv_value *in, viv_json **doc, viv_error *error, int32_t *status) {
  *status = viv__json_parse(in->bytes.ptr, in->bytes.len, "text", doc, error);
  if (*status < 0) return 0;
  if (viv__json_type(*doc) != VIV_JSON_ARRAY) {
    *status = VIV_FAIL(error, VIV_BAD_INPUT, "text", "JSON must be a list of texts");
    return 0;
  }
  return (size_t)viv__json_count(*doc);
}

/* Adds one input's texts, which are copied where they come out of JSON. */
static int32_t add_texts(viv_job *job, const viv_value *in, struct texts *t, viv_error *error) {
  viv_json *doc = NULL;
  int32_t status = VIV_OK;
  size_t n = in->kind == VIV_KIND_JSON ? json_texts(in, &doc, error, &status) : 1;
  viv_str *items = NULL;
  if (status >= 0 && !(items = viv__arena_alloc(job->arena, (t->n + n) * sizeof *items)))
    status = VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory for %zu texts", t->n + n);
  if (status >= 0) {
    if (t->n) memcpy(items, t->items, t->n * sizeof *items);
    t->items = items;
  }
  for (size_t i = 0; i < n && status >= 0; i++) {
    viv_str s = in->bytes;
    if (doc) {
      const viv_json *item = viv__json_item(doc, (int64_t)i);
      s = viv__json_string(item);
      if (viv__json_type(item) != VIV_JSON_STRING)
        status = VIV_FAIL(error, VIV_BAD_INPUT, "text", "item %zu is no text", i);
      else if (!(s.ptr = viv__arena_str(job->arena, s)))
        status = VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
    }
    if (!s.ptr) s = viv__str("");
    t->items[t->n++] = s;
  }
  viv__json_free(doc);
  return status;
}

static int32_t collect(viv_job *job, const char *name, struct texts *t, viv_error *error) {
  int32_t status = VIV_OK;
  for (int32_t i = 0; i < job->request.n_inputs && status >= 0; i++) {
    const viv_value *in = job->inputs[i];
    bool text = in->kind == VIV_KIND_TEXT || in->kind == VIV_KIND_JSON;
    if (text && viv__str_eq(in->name, name)) status = add_texts(job, in, t, error);
  }
  return status;
}

/* ---- encoding ---- */

static int32_t options_of(const viv_job *job, viv__encode_options *o, viv_error *error) {
  const viv_model *m = job->model;
  int64_t limit = viv__text_limit(m);
  double most = viv__json_num(job->params, "max_length", limit > 0 ? (double)limit : 0);
  if (most < 0 || most > 1e9)
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.max_length", "%g is no number of tokens", most);
  *o = (viv__encode_options){.add_special = viv__json_bool(job->params, "add_special_tokens", true),
                             .parse_special = true,
                             .padding = viv__tokenizer_padding(m->tokenizer)};
  if (!o->padding.on) {
    double pad = viv__json_num(viv__checkpoint_config(m->checkpoint), "pad_token_id", 0);
    o->padding = (viv__padding){.on = true, .id = pad >= 0 && pad < 1e9 ? (int32_t)pad : 0};
  }
  o->padding.length = o->padding.multiple = 0;
  o->truncation.max_length = (size_t)most;
  o->truncation.on = most > 0 && viv__json_bool(job->params, "truncation", true);
  return VIV_OK;
}

/* An input of the job, I64 [rows, columns], whose numbers the caller writes. NULL: no memory. */
static int64_t *new_input(viv_job *job, viv_value *value, const char *name, size_t rows,
                          size_t columns) {
  size_t bytes = rows * columns * sizeof(int64_t);
  viv_tensor *t = viv__arena_alloc(job->arena, sizeof *t);
  int64_t *data = t ? viv__arena_alloc(job->arena, bytes) : NULL;
  if (!data) return NULL;
  *t = (viv_tensor){.struct_size = sizeof *t,
                    .flags = VIV_TENSOR_READ_ONLY,
                    .data = data,
                    .bytes = bytes,
                    .dtype = VIV_I64,
                    .ndim = 2,
                    .shape = {(int64_t)rows, (int64_t)columns}};
  *value = (viv_value){
      .struct_size = sizeof *value, .kind = VIV_KIND_TENSOR, .name = viv__str(name), .tensor = t};
  return data;
}

static int32_t add_inputs(viv_job *job, const viv__encodings *e, viv_error *error) {
  static const char *const names[] = {"input_ids", "attention_mask", "token_type_ids"};
  size_t have = (size_t)job->request.n_inputs, columns = e->item[0].n;
  if (!columns) return VIV_FAIL(error, VIV_BAD_INPUT, "text", "gives no tokens");
  viv_value *values = viv__arena_alloc(job->arena, 3 * sizeof *values);
  const viv_value **all = viv__arena_alloc(job->arena, (have + 3) * sizeof *all);
  int64_t *data[3] = {NULL, NULL, NULL};
  for (int k = 0; k < 3 && values && all; k++)
    data[k] = new_input(job, &values[k], names[k], e->n, columns);
  if (!data[0] || !data[1] || !data[2])
    return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory for %zu rows of %zu tokens", e->n,
                    columns);
  for (size_t r = 0; r < e->n; r++)
    for (size_t c = 0; c < columns; c++) {
      const viv__encoded *token = &e->item[r].token[c];
      data[0][r * columns + c] = token->id;
      data[1][r * columns + c] = token->attention;
      data[2][r * columns + c] = token->type_id;
    }
  memcpy(all, job->inputs, have * sizeof *all);
  for (int k = 0; k < 3; k++) all[have + (size_t)k] = &values[k];
  job->inputs = all;
  job->request.inputs = all;
  job->request.n_inputs = (int32_t)have + 3;
  return VIV_OK;
}

static int32_t encode(viv_job *job, const struct texts *texts, const struct texts *pairs,
                      viv_error *error) {
  viv__encode_options o;
  int32_t status = options_of(job, &o, error);
  if (status < 0) return status;
  viv__text_pair *all = viv__arena_alloc(job->arena, texts->n * sizeof *all);
  if (!all) return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
  for (size_t i = 0; i < texts->n; i++) {
    all[i] = (viv__text_pair){.text = texts->items[i]};
    if (pairs->n) all[i].pair = pairs->items[i];
  }
  viv__encodings made = {0};
  status = viv__tokenizer_encode_batch(job->model->tokenizer, all, texts->n, &o, &made, error);
  if (status < 0) return status;
  status = add_inputs(job, &made, error);
  viv__encodings_free(&made);
  return status;
}

/* ---- the mask ---- */

/* A special token is written as its text or as an object that holds it. */
static const char *token_text(const viv_json *file, const char *key) {
  const viv_json *node = viv__json_get(file, key);
  if (viv__json_type(node) == VIV_JSON_OBJECT) return viv__json_text(node, "content", NULL);
  return viv__json_text(file, key, NULL);
}

static int32_t mask_of(const viv_model *m) {
  static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
  static const char *const usual[] = {"[MASK]", "<mask>"};
  int32_t id = -1;
  for (int i = 0; i < 2 && id < 0; i++) {
    const char *text =
        token_text(viv__checkpoint_file(m->checkpoint, viv__str(files[i])), "mask_token");
    if (text) id = viv__tokenizer_id(m->tokenizer, text);
  }
  for (int i = 0; i < 2 && id < 0; i++) id = viv__tokenizer_id(m->tokenizer, usual[i]);
  return id;
}

static int32_t add_mask(viv_job *job, viv_error *error) {
  int32_t id = mask_of(job->model);
  if (id < 0 || viv__json_get(job->params, "mask_token_id")) return VIV_OK;
  return viv__add_param(job, "mask_token_id", cJSON_CreateNumber(id), error);
}

int32_t viv__add_param(viv_job *job, const char *key, cJSON *value, viv_error *error) {
  if (!job->params) {
    int32_t status = viv__json_parse("{}", 2, "params", &job->params, error);
    if (status < 0) {
      cJSON_Delete(value);
      return status;
    }
    job->request.params = job->params;
  }
  if (value && cJSON_AddItemToObject((cJSON *)job->params, key, value)) return VIV_OK;
  cJSON_Delete(value);
  return VIV_FAIL(error, VIV_NOT_NOW, "params", "no memory");
}

int32_t viv__text_inputs(viv_job *job, viv_error *error) {
  struct texts texts = {0}, pairs = {0};
  int32_t status = VIV_OK;
  if (!job->model->tokenizer) return VIV_OK;
  if (!strcmp(job->task, "fill_mask")) status = add_mask(job, error);
  if (!strcmp(job->task, "embed")) status = viv__pooling_input(job, error);
  if (status < 0 || viv__job_input(job, "input_ids", 0)) return status;
  status = collect(job, "text", &texts, error);
  if (status >= 0) status = collect(job, "text_pair", &pairs, error);
  if (status < 0 || !texts.n) return status;
  if (pairs.n && pairs.n != texts.n)
    return VIV_FAIL(error, VIV_BAD_INPUT, "text_pair", "%zu texts, but text has %zu", pairs.n,
                    texts.n);
  return encode(job, &texts, &pairs, error);
}
