/* What the tasks over tokens share: reading token inputs into lanes, opening their sequences, and
 * collecting result tensors. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/task.h"

/* ---- reading ---- */

static int64_t integer_at(const viv_tensor *t, int64_t i) {
  switch (t->dtype) {
  case VIV_I64:
    return ((const int64_t *)t->data)[i];
  case VIV_I32:
    return ((const int32_t *)t->data)[i];
  case VIV_I16:
    return ((const int16_t *)t->data)[i];
  case VIV_I8:
    return ((const int8_t *)t->data)[i];
  case VIV_U8:
  case VIV_BOOL:
    return ((const uint8_t *)t->data)[i];
  case VIV_F32:
    return (int64_t)((const float *)t->data)[i]; /* masks only */
  default:
    return -1;
  }
}

/* [B, T], or [T] as one row. */
static int32_t shape_2d(const viv_tensor *t, const char *name, int64_t *rows, int64_t *columns,
                        viv_error *error) {
  if (t->ndim < 1 || t->ndim > 2)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "must be [T] or [B, T], has %d axes", t->ndim);
  *rows = t->ndim == 2 ? t->shape[0] : 1;
  *columns = t->shape[t->ndim - 1];
  if (*rows < 1 || *rows > 1024 || *columns < 1 || *columns > INT32_MAX / 2)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "has %lld rows of %lld tokens", (long long)*rows,
                    (long long)*columns);
  return VIV_OK;
}

static int32_t new_lanes(viv__task *t, int64_t rows, int64_t columns, viv_error *error) {
  t->lanes = viv__calloc((size_t)rows, sizeof *t->lanes);
  if (!t->lanes) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  t->n_rows = (int32_t)rows;
  t->columns = columns;
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    lane->task = t;
    lane->row = i;
    lane->seq = -1;
    for (int k = 0; k < VIV__MAX_LOCAL; k++) lane->local[k] = -1;
    lane->prompt = viv__malloc((size_t)columns * sizeof *lane->prompt);
    lane->column = viv__malloc((size_t)columns * sizeof *lane->column);
    if (!lane->prompt || !lane->column) return VIV_FAIL(error, VIV_NOT_NOW, "inputs", "no memory");
  }
  return VIV_OK;
}

static int32_t read_ids(viv__task *t, const viv_tensor *ids, const viv_tensor *mask,
                        viv_error *error) {
  int64_t rows = 0, columns = 0;
  int32_t status = shape_2d(ids, "input_ids", &rows, &columns, error);
  if (status < 0) return status;
  if (ids->dtype == VIV_F32 || integer_at(ids, 0) == -1)
    if (ids->dtype != VIV_I64 && ids->dtype != VIV_I32)
      return VIV_FAIL(error, VIV_BAD_INPUT, "input_ids", "must hold integers");
  if (mask && (mask->ndim != ids->ndim ||
               memcmp(mask->shape, ids->shape, sizeof(int64_t) * (size_t)ids->ndim)))
    return VIV_FAIL(error, VIV_BAD_INPUT, "attention_mask", "must have the shape of input_ids");
  status = new_lanes(t, rows, columns, error);
  if (status < 0) return status;
  for (int64_t r = 0; r < rows; r++) {
    viv__lane *lane = &t->lanes[r];
    for (int64_t c = 0; c < columns; c++) {
      if (mask && integer_at(mask, r * columns + c) == 0) continue;
      int64_t id = integer_at(ids, r * columns + c);
      if (id < 0 || id >= t->m->info.vocab_size)
        return VIV_FAIL(error, VIV_BAD_INPUT, "input_ids",
                        "token %lld at [%lld, %lld] is not below the vocabulary's size %d",
                        (long long)id, (long long)r, (long long)c, t->m->info.vocab_size);
      lane->column[lane->n_prompt] = (int32_t)c;
      lane->prompt[lane->n_prompt++] = (int32_t)id;
    }
    if (!lane->n_prompt)
      return VIV_FAIL(error, VIV_BAD_INPUT, "attention_mask", "row %lld has no real token",
                      (long long)r);
  }
  return VIV_OK;
}

static int32_t read_text(viv__task *t, viv_str text, bool add_special, viv_error *error) {
  int32_t *ids = NULL;
  size_t n = 0;
  if (!t->m->tokenizer)
    return VIV_FAIL(error, VIV_NEVER, "text",
                    "the model has no usable tokenizer (%s); give input_ids",
                    t->m->tokenizer_error ? t->m->tokenizer_error : "tokenizer.json is absent");
  int32_t status = viv__tokenizer_encode(t->m->tokenizer, text, add_special, true, &ids, &n, error);
  if (status < 0) return status;
  if (!n && t->m->info.bos >= 0 && !t->job->session) {
    viv__free(ids); /* an empty prompt begins with the beginning */
    ids = viv__malloc(sizeof *ids);
    if (!ids) return VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory");
    ids[0] = t->m->info.bos;
    n = 1;
  }
  if (!n) {
    viv__free(ids);
    return VIV_FAIL(error, VIV_BAD_INPUT, "text",
                    "is empty, and the model has no token to begin with");
  }
  status = new_lanes(t, 1, (int64_t)n, error);
  for (size_t i = 0; status == VIV_OK && i < n; i++) {
    if (ids[i] >= t->m->info.vocab_size)
      status = VIV_FAIL(error, VIV_BAD_INPUT, "text",
                        "the tokenizer gives token %d, the model's vocabulary has %d", ids[i],
                        t->m->info.vocab_size);
    t->lanes[0].prompt[i] = ids[i];
    t->lanes[0].column[i] = (int32_t)i;
  }
  if (status == VIV_OK) t->lanes[0].n_prompt = (int64_t)n;
  viv__free(ids);
  return status;
}

/* A JSON value for the chat template: the input of that name, which is taken to the letter, or the
 * parameter. *held is what the answer points into. */
static viv_str template_value(viv__task *t, const char *name, char **held) {
  const viv_value *input = viv__job_input(t->job, name, VIV_KIND_JSON);
  const viv_json *param = viv__json_get(t->job->params, name);
  if (input) return input->bytes;
  if (viv__json_type(param) > VIV_JSON_NULL) *held = cJSON_PrintUnformatted((const cJSON *)param);
  return viv__str(*held);
}

/* messages: JSON text. Parameters: add_generation_prompt (true unless a message is continued),
 * continue_final_message (true, or the field's name), chat_template_kwargs. */
static int32_t read_messages(viv__task *t, viv_str messages, viv_error *error) {
  const viv_json *params = t->job->params;
  char *tools = NULL, *documents = NULL, *variables = NULL;
  viv__rendered r = {0};
  if (!t->m->chat)
    return VIV_FAIL(error, VIV_NEVER, "messages", "the model has no usable chat template (%s)",
                    t->m->chat_error ? t->m->chat_error : "it has no usable tokenizer");
  viv__chat_input in = {.messages = messages, .now = -1};
  in.continue_field = viv__json_text(params, "continue_final_message", NULL);
  if (viv__json_bool(params, "continue_final_message", false)) in.continue_field = "content";
  in.add_generation_prompt = viv__json_bool(params, "add_generation_prompt", !in.continue_field);
  in.tools = template_value(t, "tools", &tools);
  in.documents = template_value(t, "documents", &documents);
  in.variables = template_value(t, "chat_template_kwargs", &variables);
  int32_t status = in.add_generation_prompt && in.continue_field
                       ? VIV_FAIL(error, VIV_BAD_INPUT, "continue_final_message",
                                  "a message is continued, or a new one begun, not both")
                       : viv__chat_text(t->m->chat, &in, &r, error);
  if (status == VIV_OK) status = read_text(t, (viv_str){r.text, r.len}, false, error);
  viv__rendered_free(&r);
  cJSON_free(tools);
  cJSON_free(documents);
  cJSON_free(variables);
  return status;
}

/* One user message, as the parameter "chat" asks for. */
static int32_t read_chat(viv__task *t, viv_str content, viv_error *error) {
  viv__buf b = {0};
  viv__buf_str(&b, "[{\"role\":\"user\",\"content\":");
  viv__buf_json(&b, content);
  viv__buf_str(&b, "}]");
  int32_t status = b.failed ? VIV_FAIL(error, VIV_NOT_NOW, "text", "no memory")
                            : read_messages(t, (viv_str){b.ptr, b.len}, error);
  viv__buf_free(&b);
  return status;
}

int32_t viv__task_read_tokens(viv__task *t, bool allow_text, viv_error *error) {
  viv_job *job = t->job;
  const viv_value *ids = viv__job_input(job, "input_ids", VIV_KIND_TENSOR);
  const viv_value *mask = viv__job_input(job, "attention_mask", VIV_KIND_TENSOR);
  const viv_value *text = viv__job_input(job, "text", VIV_KIND_TEXT);
  const viv_value *messages = viv__job_input(job, "messages", VIV_KIND_JSON);
  int32_t status;
  if (ids) {
    status = read_ids(t, ids->tensor, mask ? mask->tensor : NULL, error);
  } else if (allow_text && text) {
    status =
        viv__json_bool(job->params, "chat", false)
            ? read_chat(t, text->bytes, error)
            : read_text(t, text->bytes,
                        viv__json_bool(job->params, "add_special_tokens", !job->session), error);
  } else if (allow_text && messages) {
    status = read_messages(t, messages->bytes, error);
  } else {
    status = VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "the task \"%s\" needs %s", job->task,
                      allow_text ? "text, messages or input_ids" : "input_ids");
  }
  for (int32_t i = 0; status == VIV_OK && i < t->n_rows; i++)
    t->prompt_tokens += t->lanes[i].n_prompt;
  return status;
}

/* ---- sequences ---- */

/* A session's lane continues its sequence. What the session has said but its sequence does not hold
 * (the last token chosen; everything, when the sequence was lost) is fed first. */
static int32_t continue_session(viv__lane *lane, viv_session *s, viv_error *error) {
  viv_model *m = lane->task->m;
  int64_t held = s->seq >= 0 ? m->token->seq_len(m->handle, s->seq) : 0;
  if (s->seq < 0) {
    int32_t status = m->token->seq_open(m->handle, &s->seq, error);
    if (status < 0) return status;
  }
  if (held < 0 || held > s->n_tokens)
    return VIV_FAIL(error, VIV_BUG, m->plugin->id,
                    "a session's sequence has the length %lld of %lld", (long long)held,
                    (long long)s->n_tokens);
  int64_t owed = s->n_tokens - held, n = owed + lane->n_prompt;
  int32_t *prompt = viv__malloc((size_t)n * sizeof *prompt);
  int32_t *column = viv__malloc((size_t)n * sizeof *column);
  if (!prompt || !column) {
    viv__free(prompt);
    viv__free(column);
    return VIV_FAIL(error, VIV_NOT_NOW, "session", "no memory");
  }
  if (owed) memcpy(prompt, s->tokens + held, (size_t)owed * sizeof *prompt);
  for (int64_t i = 0; i < owed; i++) column[i] = -1;
  memcpy(prompt + owed, lane->prompt, (size_t)lane->n_prompt * sizeof *prompt);
  memcpy(column + owed, lane->column, (size_t)lane->n_prompt * sizeof *column);
  viv__free(lane->prompt);
  viv__free(lane->column);
  lane->prompt = prompt;
  lane->column = column;
  lane->n_prompt = n;
  lane->base = held;
  lane->seq = s->seq;
  return VIV_OK;
}

int32_t viv__task_open_seqs(viv__task *t, int64_t extra, viv_error *error) {
  viv_model *m = t->m;
  viv_session *s = t->job->session;
  if (s && t->n_rows != 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, "session", "a session continues one row, not %d",
                    t->n_rows);
  uint64_t bytes = 0;
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    int64_t total = (s ? s->n_tokens : 0) + lane->n_prompt + extra;
    if (m->info.context_max && total - extra > m->info.context_max)
      return VIV_FAIL(error, VIV_BAD_INPUT, "context_length_exceeded",
                      "%lld tokens; the model's context holds %lld", (long long)(total - extra),
                      (long long)m->info.context_max);
    bytes += m->plan.session_bytes + m->plan.session_token_bytes * (uint64_t)total;
  }
  /* What a session holds stays reserved until it is closed. */
  uint64_t more = !s ? bytes : bytes > s->reserved ? bytes - s->reserved : 0;
  int32_t status = viv__reserve(m->rt, more, s ? "session" : "sequences", error);
  if (status < 0) return status;
  if (s)
    s->reserved += more;
  else
    t->reserved = more;
  for (int32_t i = 0; i < t->n_rows; i++) {
    viv__lane *lane = &t->lanes[i];
    if (s) {
      status = continue_session(lane, s, error);
    } else {
      status = m->token->seq_open(m->handle, &lane->seq, error);
      lane->owns_seq = status >= 0;
    }
    if (status < 0) return status;
    lane->local[0] = lane->seq;
  }
  return VIV_OK;
}

/* ---- results ---- */

bool viv__task_wants(const viv__task *t, const char *output) {
  const viv_json *list = viv__json_get(t->job->params, "outputs");
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (viv__str_eq(viv__json_string(viv__json_item(list, i)), output)) return true;
  return false;
}

int32_t viv__task_out(viv__task *t, const char *name, int32_t dtype, int32_t ndim,
                      const int64_t *shape, void *data, uint32_t flags) {
  if (data && t->n_outs == t->cap_outs) {
    size_t cap = t->cap_outs ? 2 * t->cap_outs : 8;
    viv__out *grown = viv__realloc(t->outs, cap * sizeof *grown);
    if (grown) {
      t->outs = grown;
      t->cap_outs = cap;
    }
  }
  char *copy = data && t->n_outs < t->cap_outs ? viv__strdup(name) : NULL;
  if (!copy) {
    viv__free(data);
    return VIV_NOT_NOW;
  }
  viv__out *out = &t->outs[t->n_outs++];
  *out = (viv__out){
      .name = copy,
      .tensor = {.struct_size = sizeof(viv_tensor), .data = data, .dtype = dtype, .ndim = ndim},
      .flags = flags};
  out->tensor.bytes = viv__dtype_size(dtype);
  for (int32_t i = 0; i < ndim; i++) {
    out->tensor.shape[i] = shape[i];
    out->tensor.bytes *= (uint64_t)shape[i];
  }
  return VIV_OK;
}
