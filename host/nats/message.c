/* Jobs and results as JSON. A text input is a string; everything else is an object with "kind" (text, json,
 * image, audio, tensor) and "base64", for tensors also "dtype" and "shape". Results come the same way, texts of
 * one name joined. */
#include <stdlib.h>
#include <string.h>

#include "nats/bridge.h"

static const char *const kinds[] = {NULL, "tensor", "text", "json", "image", "audio"};

static int sextet(char ch) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *at = ch ? strchr(digits, ch) : NULL;
  return at ? (int)(at - digits) : -1;
}

/* NULL: it is no base64, or there is no memory. */
static unsigned char *decode(const char *text, size_t *n) {
  size_t len = strlen(text);
  unsigned char *out = viv__malloc(len / 4 * 3 + 3);
  uint32_t bits = 0;
  int held = 0;
  *n = 0;
  while (len && text[len - 1] == '=') len--;
  for (size_t i = 0; out && i < len; i++) {
    int value = sextet(text[i]);
    if (value < 0) {
      viv__free(out);
      return NULL;
    }
    bits = bits << 6 | (uint32_t)value;
    held += 6;
    if (held >= 8) out[(*n)++] = (unsigned char)(bits >> (held -= 8));
  }
  return out;
}

void base64_add(viv__buf *b, const void *bytes, size_t len) {
  const unsigned char *in = bytes;
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < len; i += 3) {
    uint32_t bits = 0;
    char four[4];
    for (size_t k = 0; k < 3; k++) bits = bits << 8 | (i + k < len ? in[i + k] : 0u);
    for (size_t k = 0; k < 4; k++) four[k] = i + k <= len ? digits[bits >> (18 - 6 * k) & 63] : '=';
    viv__buf_add(b, four, 4);
  }
}

/* ---- jobs ---- */

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

static int32_t read_tensor(const cJSON *item, viv_tensor *t, void *data, size_t bytes,
                           viv_error *error) {
  const char *dtype = text_of(item, "dtype");
  const cJSON *axis, *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
  *t = (viv_tensor){.struct_size = sizeof *t, .data = data, .bytes = bytes};
  t->dtype = dtype ? viv__dtype_named(viv__str(dtype)) : 0;
  if (!viv__dtype_size(t->dtype) || !cJSON_IsArray(shape) ||
      cJSON_GetArraySize(shape) > VIV_MAX_DIMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, item->string, "needs \"dtype\" and \"shape\"");
  cJSON_ArrayForEach(axis, shape) {
    if (!cJSON_IsNumber(axis) || axis->valuedouble < 0 || axis->valuedouble > 1e15)
      return VIV_FAIL(error, VIV_BAD_INPUT, item->string, "\"shape\" must hold lengths");
    t->shape[t->ndim++] = (int64_t)axis->valuedouble;
  }
  return VIV_OK;
}

static int32_t read_input(order *o, const cJSON *item, viv_error *error) {
  if (o->n == 64) return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "there are more than 64");
  int i = o->n++;
  viv_value *v = &o->values[i];
  *v = (viv_value){.struct_size = sizeof *v, .kind = VIV_KIND_TEXT, .name = viv__str(item->string)};
  o->list[i] = v;
  if (cJSON_IsString(item)) {
    v->bytes = viv__str(item->valuestring);
    return VIV_OK;
  }
  const char *kind = text_of(item, "kind"), *data = text_of(item, "base64");
  size_t bytes = 0;
  v->kind = 0;
  for (int k = 1; kind && k < 6; k++)
    if (!strcmp(kind, kinds[k])) v->kind = k;
  if (!v->kind || !data)
    return VIV_FAIL(error, VIV_BAD_INPUT, item->string,
                    "must be a text, or have \"kind\" (tensor, text, json, image, audio) and "
                    "\"base64\"");
  o->owned[i] = decode(data, &bytes);
  if (!o->owned[i]) return VIV_FAIL(error, VIV_BAD_INPUT, item->string, "is no base64");
  v->bytes = (viv_str){o->owned[i], bytes};
  if (v->kind != VIV_KIND_TENSOR) return VIV_OK;
  v->bytes = (viv_str){NULL, 0};
  v->tensor = &o->tensors[i];
  return read_tensor(item, &o->tensors[i], o->owned[i], bytes, error);
}

/* A subject's tokens, as far as results go. */
static bool is_subject(const char *s) {
  return *s && strlen(s) < 200 && !strpbrk(s, " \t\r\n*>") && *s != '.' &&
         s[strlen(s) - 1] != '.' && !strstr(s, "..");
}

int32_t order_read(order *o, const char *text, size_t len, viv_error *error) {
  memset(o, 0, sizeof *o);
  o->json = cJSON_ParseWithLength(text, len);
  const cJSON *item, *inputs = cJSON_GetObjectItemCaseSensitive(o->json, "inputs");
  const cJSON *load = cJSON_GetObjectItemCaseSensitive(o->json, "load");
  const cJSON *params = cJSON_GetObjectItemCaseSensitive(o->json, "params");
  if (!cJSON_IsObject(o->json))
    return VIV_FAIL(error, VIV_BAD_INPUT, "message", "is no JSON object");
  o->model = text_of(o->json, "model");
  o->task = text_of(o->json, "task");
  o->reply = text_of(o->json, "reply");
  if (!o->model || *o->model != '/')
    return VIV_FAIL(error, VIV_BAD_INPUT, "model", "must be the absolute path of a model");
  if (!o->task) o->task = "generate";
  if (!o->reply) o->reply = "all";
  if (!is_subject(o->reply)) {
    o->reply = "all";
    return VIV_FAIL(error, VIV_BAD_INPUT, "reply", "is no subject");
  }
  if (load) o->load = cJSON_PrintUnformatted(load);
  if (params) o->params = cJSON_PrintUnformatted(params);
  cJSON_ArrayForEach(item, inputs) {
    int32_t status = item->string ? read_input(o, item, error)
                                  : VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "must be an object");
    if (status < 0) return status;
  }
  return VIV_OK;
}

void order_free(order *o) {
  for (int i = 0; i < o->n; i++) viv__free(o->owned[i]);
  cJSON_free(o->load);
  cJSON_free(o->params);
  cJSON_Delete(o->json);
  memset(o, 0, sizeof *o);
}

/* ---- results ---- */

void result_begin(viv__buf *b, const char *id) {
  viv__buf_str(b, "{\"id\":");
  viv__buf_json(b, viv__str(id));
  viv__buf_str(b, ",\"results\":[");
}

void result_add(viv__buf *b, const viv_event *e) {
  if (e->kind < VIV_KIND_TENSOR || e->kind > VIV_KIND_AUDIO) return;
  const viv_tensor *t = e->kind == VIV_KIND_TENSOR ? e->tensor : NULL;
  viv__buf_str(b, b->ptr && b->ptr[b->len - 1] == '[' ? "{\"name\":" : ",{\"name\":");
  viv__buf_json(b, e->name);
  viv__buf_fmt(b, ",\"kind\":\"%s\"", kinds[e->kind]);
  if (e->kind == VIV_KIND_TEXT || e->kind == VIV_KIND_JSON) {
    viv__buf_str(b, ",\"text\":");
    viv__buf_json(b, e->bytes);
  } else {
    viv__buf_str(b, ",\"base64\":\"");
    base64_add(b, t ? t->data : (const void *)e->bytes.ptr, t ? t->bytes : e->bytes.len);
    viv__buf_str(b, "\"");
  }
  if (t) {
    viv__buf_fmt(b, ",\"dtype\":\"%s\",\"shape\":[", viv__dtype_name(t->dtype));
    for (int32_t i = 0; i < t->ndim; i++)
      viv__buf_fmt(b, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    viv__buf_str(b, "]");
  }
  viv__buf_str(b, "}");
}

void result_end(viv__buf *b, int32_t status, const viv_error *error) {
  viv__buf_fmt(b, "],\"status\":\"%s\"", viv_status_name(status < 0 ? status : VIV_OK));
  if (status < 0) {
    viv__buf_str(b, ",\"where\":");
    viv__buf_json(b, viv__str(error->where));
    viv__buf_str(b, ",\"message\":");
    viv__buf_json(b, viv__str(error->message));
  }
  viv__buf_str(b, "}");
}

void result_elsewhere(viv__buf *b, const char *id, const viv__buf *info, int32_t status) {
  viv__buf_str(b, "{\"id\":");
  viv__buf_json(b, viv__str(id));
  viv__buf_str(b, ",\"object\":");
  viv__buf_add(b, info->ptr, info->len);
  viv__buf_fmt(b, ",\"status\":\"%s\"}", viv_status_name(status < 0 ? status : VIV_OK));
}
