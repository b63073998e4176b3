/* Named tensors that outlive their events: copies, numbers, one-line summaries. */
#include "cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"

enum { SHOWN = 6, JSON_LIMIT = 4096 };

int64_t viv__numel(const viv_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

viv_tensor viv__tensor_make(int32_t dtype, int32_t ndim, const int64_t *shape) {
  viv_tensor t = {.struct_size = sizeof t, .dtype = dtype, .ndim = ndim};
  size_t n = viv__dtype_size(dtype);
  for (int i = 0; i < ndim; i++) {
    t.shape[i] = shape[i];
    if (shape[i] < 0 || __builtin_mul_overflow(n, (size_t)shape[i], &n)) viv__need(NULL);
  }
  t.bytes = n;
  t.data = viv__need(viv__calloc(n ? n : 1, 1));
  return t;
}

viv_tensor viv__tensor_copy(const viv_tensor *t) {
  viv_tensor copy = viv__tensor_make(t->dtype, t->ndim, t->shape);
  if (t->bytes) memcpy(copy.data, t->data, copy.bytes < t->bytes ? copy.bytes : t->bytes);
  return copy;
}

void viv__tensor_drop(viv_tensor *t) {
  viv__free(t->data);
  t->data = NULL;
}

void viv__tensors_add(viv__tensor_list *list, viv_str name, const viv_tensor *t, bool tap) {
  char *copy = viv__need(viv__strndup(name.ptr, name.len));
  for (size_t i = 0; i < list->n; i++)
    if (!strcmp(list->names[i], copy)) {
      viv__tensor_drop(&list->items[i]);
      list->items[i] = viv__tensor_copy(t);
      viv__free(copy);
      return;
    }
  size_t n = list->n + 1;
  list->names = viv__need(viv__realloc(list->names, n * sizeof *list->names));
  list->items = viv__need(viv__realloc(list->items, n * sizeof *list->items));
  list->taps = viv__need(viv__realloc(list->taps, n * sizeof *list->taps));
  list->names[n - 1] = copy;
  list->items[n - 1] = viv__tensor_copy(t);
  list->taps[n - 1] = tap;
  list->n = n;
}

const viv_tensor *viv__tensors_find(const viv__tensor_list *list, const char *name) {
  for (size_t i = 0; i < list->n; i++)
    if (!strcmp(list->names[i], name)) return &list->items[i];
  return NULL;
}

void viv__tensors_free(viv__tensor_list *list) {
  for (size_t i = 0; i < list->n; i++) {
    viv__free(list->names[i]);
    viv__tensor_drop(&list->items[i]);
  }
  viv__free(list->names);
  viv__free(list->items);
  viv__free(list->taps);
  memset(list, 0, sizeof *list);
}

int32_t viv__tensors_write(const viv__tensor_list *list, const char *path, viv_error *error) {
  viv_str *names = viv__need(viv__calloc(list->n, sizeof *names));
  for (size_t i = 0; i < list->n; i++) names[i] = viv__str(list->names[i]);
  int32_t status = viv__safetensors_write(path, names, list->items, (int64_t)list->n, error);
  viv__free(names);
  return status;
}

static float half(uint16_t bits) {
  int sign = bits >> 15, exponent = bits >> 10 & 31, fraction = bits & 1023;
  float x = exponent == 0    ? ldexpf((float)fraction, -24)
            : exponent == 31 ? (fraction ? NAN : INFINITY)
                             : ldexpf((float)(fraction | 1024), exponent - 25);
  return sign ? -x : x;
}

/* The element in its own type, by memcpy: the data of a file need not be aligned. */
#define ELEMENT(type, name)                                                                        \
  type name;                                                                                       \
  memcpy(&name, (const char *)t->data + (size_t)i * sizeof name, sizeof name)

int64_t viv__tensor_integer(const viv_tensor *t, int64_t i) {
  switch (t->dtype) {
  case VIV_I64: {
    ELEMENT(int64_t, x);
    return x;
  }
  case VIV_I32: {
    ELEMENT(int32_t, x);
    return x;
  }
  case VIV_I16: {
    ELEMENT(int16_t, x);
    return x;
  }
  case VIV_I8: {
    ELEMENT(int8_t, x);
    return x;
  }
  case VIV_U8:
  case VIV_BOOL: {
    ELEMENT(uint8_t, x);
    return x;
  }
  default: {
    double x = viv__tensor_number(t, i);
    return x >= -9e18 && x <= 9e18 ? (int64_t)x : INT64_MIN;
  }
  }
}

double viv__tensor_number(const viv_tensor *t, int64_t i) {
  switch (t->dtype) {
  case VIV_F32: {
    ELEMENT(float, x);
    return x;
  }
  case VIV_F64: {
    ELEMENT(double, x);
    return x;
  }
  case VIV_F16: {
    ELEMENT(uint16_t, x);
    return half(x);
  }
  case VIV_BF16: {
    ELEMENT(uint16_t, x);
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
  }
  default:
    return (double)viv__tensor_integer(t, i);
  }
}

bool viv__tensor_is_integer(const viv_tensor *t) {
  return t->dtype >= VIV_I64 && t->dtype <= VIV_BOOL;
}

void viv__tensor_set(viv_tensor *t, int64_t i, double number) {
  char *at = (char *)t->data + (size_t)i * viv__dtype_size(t->dtype);
  float f = (float)number;
  int64_t whole = (int64_t)number;
  int32_t i32 = (int32_t)whole;
  switch (t->dtype) {
  case VIV_F32:
    memcpy(at, &f, sizeof f);
    break;
  case VIV_F64:
    memcpy(at, &number, sizeof number);
    break;
  case VIV_I64:
    memcpy(at, &whole, sizeof whole);
    break;
  case VIV_I32:
    memcpy(at, &i32, sizeof i32);
    break;
  case VIV_U8:
  case VIV_I8:
    *at = (char)whole;
    break;
  case VIV_BOOL:
    *at = number != 0;
    break;
  default:
    break;
  }
}

const char *viv__shape_text(const viv_tensor *t, char *out) {
  size_t at = (size_t)snprintf(out, 200, "[");
  for (int i = 0; i < t->ndim; i++)
    at += (size_t)snprintf(out + at, 200 - at, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
  snprintf(out + at, 200 - at, "]");
  return out;
}

struct range {
  double min, max, mean;
};

static struct range range_of(const viv_tensor *t) {
  int64_t n = viv__numel(t);
  struct range r = {INFINITY, -INFINITY, 0};
  for (int64_t i = 0; i < n; i++) {
    double x = viv__tensor_number(t, i);
    if (x < r.min) r.min = x;
    if (x > r.max) r.max = x;
    r.mean += x / (double)n;
  }
  return r;
}

void viv__tensor_print(FILE *to, const char *name, const viv_tensor *t) {
  char shape[200];
  int64_t n = viv__numel(t);
  fprintf(to, "%-24s %s %s", name, viv__dtype_name(t->dtype), viv__shape_text(t, shape));
  if (t->dtype == VIV_U8 && viv__utf8_valid(t->data, t->bytes) && strstr(name, "utf8")) {
    fprintf(to, "  %.*s\n", (int)t->bytes, (const char *)t->data);
    return;
  }
  if (n) {
    struct range r = range_of(t);
    fprintf(to, "  min %.6g  max %.6g  mean %.6g  (", r.min, r.max, r.mean);
    for (int64_t i = 0; i < n && i < SHOWN; i++)
      fprintf(to, "%s%.6g", i ? " " : "", viv__tensor_number(t, i));
    fprintf(to, "%s)", n > SHOWN ? " ..." : "");
  }
  fputc('\n', to);
}

/* JSON has no NaN and no infinity: null and texts stand for them. */
static cJSON *json_number(double x) {
  if (isnan(x)) return cJSON_CreateNull();
  if (isinf(x)) return cJSON_CreateString(x > 0 ? "inf" : "-inf");
  return cJSON_CreateNumber(x);
}

cJSON *viv__tensor_json(const char *name, const viv_tensor *t) {
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "name", name);
  cJSON_AddStringToObject(o, "dtype", viv__dtype_name(t->dtype));
  cJSON *shape = cJSON_AddArrayToObject(o, "shape");
  for (int i = 0; i < t->ndim; i++)
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[i]));
  int64_t n = viv__numel(t);
  if (n) {
    struct range r = range_of(t);
    cJSON_AddItemToObject(o, "min", json_number(r.min));
    cJSON_AddItemToObject(o, "max", json_number(r.max));
    cJSON_AddItemToObject(o, "mean", json_number(r.mean));
  }
  if (n <= JSON_LIMIT) {
    cJSON *data = cJSON_AddArrayToObject(o, "data");
    for (int64_t i = 0; i < n; i++)
      cJSON_AddItemToArray(data, json_number(viv__tensor_number(t, i)));
  }
  return o;
}
