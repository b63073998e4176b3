/* A golden call's inputs: every form that CALLS.md allows, made into values of a request.
 *
 *   "ids"                                        a tensor of inputs.safetensors
 *   {"tensor": "ids", "slice": [[0, 1], null]}   a part of it;  "abs": true, its magnitude
 *   {"output": "codes"}                          the golden's own result, so that calls stay alone
 *   {"file": "image.png"}                        bytes; a recording under an official name: samples
 *   {"value": [[86, 87]]}, "dtype"               written out; a text is a text
 *   {"full": [2, 24], "value": 79}               a constant
 *   {"concat": [..]}, {"batch": [..]}            joined along the last, the first axis
 *   [..]                                         several inputs of that name, in order
 */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "cli/golden.h"
#include "cli/wav.h"

enum { FILE_LIMIT = 1 << 30, MAX_NESTING = 16 };

static int32_t tensor_of(const viv__golden_case *c, const cJSON *node, int depth, viv_tensor *out,
                         viv_error *error);

static int32_t stored(viv__safetensors *file, const char *in, const char *name, viv_tensor *out,
                      viv_error *error) {
  viv_tensor view = {.struct_size = sizeof view};
  if (!file || viv__safetensors_find(file, viv__str(name), &view) < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, in, "the case holds no tensor \"%s\" there", name);
  *out = viv__tensor_copy(&view);
  return VIV_OK;
}

static int32_t dtype_named(const cJSON *node) {
  static const struct {
    const char *name;
    int32_t dtype;
  } names[] = {{"f32", VIV_F32}, {"float32", VIV_F32}, {"f64", VIV_F64},  {"float64", VIV_F64},
               {"i64", VIV_I64}, {"int64", VIV_I64},   {"i32", VIV_I32},  {"int32", VIV_I32},
               {"u8", VIV_U8},   {"uint8", VIV_U8},    {"bool", VIV_BOOL}};
  const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(node, "dtype");
  if (!cJSON_IsString(dtype)) return 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcasecmp(dtype->valuestring, names[i].name)) return names[i].dtype;
  return -1;
}

/* ---- values written out ---- */

static bool all_whole(const cJSON *v) {
  const cJSON *item;
  if (cJSON_IsNumber(v)) return v->valuedouble == floor(v->valuedouble);
  cJSON_ArrayForEach(item, v) if (!all_whole(item)) return false;
  return true;
}

static bool only_numbers(const cJSON *v) {
  const cJSON *item;
  if (cJSON_IsNumber(v)) return true;
  if (!cJSON_IsArray(v)) return false;
  cJSON_ArrayForEach(item, v) if (!only_numbers(item)) return false;
  return true;
}

static bool fill(const cJSON *v, viv_tensor *t, int axis, int64_t *at) {
  const cJSON *item;
  if (axis == t->ndim) {
    if (cJSON_IsNumber(v)) viv__tensor_set(t, (*at)++, v->valuedouble);
    return cJSON_IsNumber(v);
  }
  if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != t->shape[axis]) return false;
  cJSON_ArrayForEach(item, v) if (!fill(item, t, axis + 1, at)) return false;
  return true;
}

static int32_t written_out(const cJSON *node, const cJSON *value, viv_tensor *out,
                           viv_error *error) {
  int64_t shape[VIV_MAX_DIMS] = {0}, at = 0;
  int32_t ndim = 0, dtype = dtype_named(node);
  if (dtype < 0) return VIV_FAIL(error, VIV_BAD_INPUT, "dtype", "unknown dtype in a value");
  for (const cJSON *v = value; cJSON_IsArray(v); v = v->child) {
    if (ndim == VIV_MAX_DIMS)
      return VIV_FAIL(error, VIV_BAD_INPUT, "value", "nests deeper than %d axes", VIV_MAX_DIMS);
    shape[ndim++] = cJSON_GetArraySize(v);
  }
  *out = viv__tensor_make(dtype ? dtype : all_whole(value) ? VIV_I64 : VIV_F32, ndim, shape);
  if (fill(value, out, 0, &at)) return VIV_OK;
  viv__tensor_drop(out);
  return VIV_FAIL(error, VIV_BAD_INPUT, "value", "the rows of a value differ in length");
}

static int32_t constant(const cJSON *node, const cJSON *full, viv_tensor *out, viv_error *error) {
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, "value"), *item;
  int64_t shape[VIV_MAX_DIMS] = {0}, n = 1;
  int32_t ndim = 0, dtype = dtype_named(node);
  cJSON_ArrayForEach(item, full) {
    if (ndim == VIV_MAX_DIMS || !cJSON_IsNumber(item) || item->valuedouble < 0 ||
        item->valuedouble > 1e9 || __builtin_mul_overflow(n, (int64_t)item->valuedouble, &n) ||
        n > 1 << 28)
      return VIV_FAIL(error, VIV_BAD_INPUT, "full", "no usable shape");
    shape[ndim++] = (int64_t)item->valuedouble;
  }
  if (!cJSON_IsNumber(value) || dtype < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, "full", "needs a number \"value\" and a known dtype");
  *out = viv__tensor_make(dtype ? dtype : all_whole(value) ? VIV_I64 : VIV_F32, ndim, shape);
  for (int64_t i = 0; i < n; i++) viv__tensor_set(out, i, value->valuedouble);
  return VIV_OK;
}

/* ---- joining and cutting ---- */

/* Appends b to a along an axis: all other axes must agree. a is replaced. */
static int32_t join(viv_tensor *a, const viv_tensor *b, int axis, viv_error *error) {
  bool fits = a->dtype == b->dtype && a->ndim == b->ndim && axis >= 0 && axis < a->ndim;
  for (int i = 0; fits && i < a->ndim; i++) fits = i == axis || a->shape[i] == b->shape[i];
  char left[200], right[200];
  if (!fits)
    return VIV_FAIL(error, VIV_BAD_INPUT, "concat", "%s %s and %s %s can't be joined",
                    viv__dtype_name(a->dtype), viv__shape_text(a, left), viv__dtype_name(b->dtype),
                    viv__shape_text(b, right));
  int64_t shape[VIV_MAX_DIMS];
  memcpy(shape, a->shape, sizeof shape);
  shape[axis] += b->shape[axis];
  viv_tensor both = viv__tensor_make(a->dtype, a->ndim, shape);
  size_t rows = 1;
  for (int i = 0; i < axis; i++) rows *= (size_t)a->shape[i];
  size_t from_a = rows ? a->bytes / rows : 0, from_b = rows ? b->bytes / rows : 0;
  for (size_t r = 0; r < rows; r++) {
    char *to = (char *)both.data + r * (from_a + from_b);
    memcpy(to, (const char *)a->data + r * from_a, from_a);
    memcpy(to + from_a, (const char *)b->data + r * from_b, from_b);
  }
  viv__tensor_drop(a);
  *a = both;
  return VIV_OK;
}

static int32_t joined(const viv__golden_case *c, const cJSON *list, bool first_axis, int depth,
                      viv_tensor *out, viv_error *error) {
  const cJSON *item;
  bool any = false;
  int32_t status = VIV_OK;
  viv_tensor all = {0};
  cJSON_ArrayForEach(item, list) {
    viv_tensor part = {0};
    status = tensor_of(c, item, depth + 1, &part, error);
    if (status >= 0 && any) status = join(&all, &part, first_axis ? 0 : all.ndim - 1, error);
    if (status >= 0 && !any)
      all = part;
    else
      viv__tensor_drop(&part);
    any = true;
    if (status < 0) break;
  }
  if (!any) status = VIV_FAIL(error, VIV_BAD_INPUT, "concat", "nothing to join");
  if (status < 0)
    viv__tensor_drop(&all);
  else
    *out = all;
  return status;
}

/* Cuts one axis to [start, stop). */
static void cut(viv_tensor *t, int axis, int64_t start, int64_t stop) {
  int64_t shape[VIV_MAX_DIMS], old = t->shape[axis];
  memcpy(shape, t->shape, sizeof shape);
  shape[axis] = stop - start;
  viv_tensor part = viv__tensor_make(t->dtype, t->ndim, shape);
  size_t rows = 1, unit = viv__dtype_size(t->dtype);
  for (int i = 0; i < axis; i++) rows *= (size_t)shape[i];
  for (int i = axis + 1; i < t->ndim; i++) unit *= (size_t)shape[i];
  size_t take = (size_t)(stop - start) * unit;
  for (size_t r = 0; r < rows; r++)
    memcpy((char *)part.data + r * take,
           (const char *)t->data + (r * (size_t)old + (size_t)start) * unit, take);
  viv__tensor_drop(t);
  *t = part;
}

static int32_t sliced(const cJSON *slice, viv_tensor *t, viv_error *error) {
  const cJSON *range;
  int axis = 0;
  cJSON_ArrayForEach(range, slice) {
    if (cJSON_IsArray(range)) {
      const cJSON *a = cJSON_GetArrayItem(range, 0), *b = cJSON_GetArrayItem(range, 1);
      if (axis >= t->ndim || !cJSON_IsNumber(a) || !cJSON_IsNumber(b) || a->valuedouble < 0 ||
          b->valuedouble < a->valuedouble || b->valuedouble > (double)t->shape[axis])
        return VIV_FAIL(error, VIV_BAD_INPUT, "slice", "axis %d: no range of this tensor", axis);
      cut(t, axis, (int64_t)a->valuedouble, (int64_t)b->valuedouble);
    }
    axis++;
  }
  return VIV_OK;
}

static void magnitude(viv_tensor *t) {
  for (int64_t i = 0; i < viv__numel(t); i++) {
    double x = viv__tensor_number(t, i);
    if (x < 0) viv__tensor_set(t, i, -x);
  }
}

/* Any form that is a tensor. */
static int32_t tensor_of(const viv__golden_case *c, const cJSON *node, int depth, viv_tensor *out,
                         viv_error *error) {
  if (depth > MAX_NESTING) return VIV_FAIL(error, VIV_BAD_INPUT, "inputs", "nested too deep");
  if (cJSON_IsString(node))
    return stored(c->inputs, "inputs.safetensors", node->valuestring, out, error);
  const cJSON *tensor = cJSON_GetObjectItemCaseSensitive(node, "tensor");
  const cJSON *output = cJSON_GetObjectItemCaseSensitive(node, "output");
  const cJSON *full = cJSON_GetObjectItemCaseSensitive(node, "full");
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, "value");
  const cJSON *concat = cJSON_GetObjectItemCaseSensitive(node, "concat");
  const cJSON *batch = cJSON_GetObjectItemCaseSensitive(node, "batch");
  int32_t status;
  if (cJSON_IsString(tensor))
    status = stored(c->inputs, "inputs.safetensors", tensor->valuestring, out, error);
  else if (cJSON_IsString(output))
    status = stored(c->outputs, "outputs.safetensors", output->valuestring, out, error);
  else if (tensor || output)
    status = tensor_of(c, tensor ? tensor : output, depth + 1, out, error);
  else if (full)
    status = constant(node, full, out, error);
  else if (concat || batch)
    status = joined(c, concat ? concat : batch, !concat, depth, out, error);
  else if (value && only_numbers(value))
    status = written_out(node, value, out, error);
  else
    status = VIV_FAIL(error, VIV_NEVER, "inputs", "an input of a form that CALLS.md does not name");
  const cJSON *slice = cJSON_GetObjectItemCaseSensitive(node, "slice");
  if (status < 0) return status;
  if (cJSON_IsArray(slice)) status = sliced(slice, out, error);
  if (status < 0)
    viv__tensor_drop(out);
  else if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(node, "abs")))
    magnitude(out);
  return status;
}

/* ---- files ---- */

static bool is_recording(const char *path) {
  size_t len = strlen(path);
  return len > 4 && !strcasecmp(path + len - 4, ".wav");
}

/* Under `audio` (and `audio_target`, ...) a recording is a file; under an official tensor argument
 * it is its samples: [1, channels, T] where a codec encodes, [1, T] else. */
static int32_t samples(const char *name, const char *task, const char *path, viv__input_list *out,
                       viv_error *error) {
  char *bytes = NULL;
  size_t len = 0;
  viv_tensor t;
  int32_t status = viv__read_file(path, FILE_LIMIT, &bytes, &len, error);
  if (status < 0) return status;
  status = viv__wav_decode(bytes, len, path, &t, NULL, error);
  viv__free(bytes);
  if (status < 0) return status;
  bool codec =
      !strcmp(name, "input_values") && (!strcmp(task, "encode") || !strcmp(task, "decode"));
  if (!codec) { /* [1, C, T] -> [C, T] */
    t.ndim = 2;
    t.shape[0] = t.shape[1];
    t.shape[1] = t.shape[2];
  }
  viv__inputs_tensor(viv__inputs_add(out, name, VIV_KIND_TENSOR), t);
  return VIV_OK;
}

static int32_t file_input(const viv__golden_case *c, const char *name, const char *task,
                          const cJSON *file, viv__input_list *out, viv_error *error) {
  if (!cJSON_IsString(file) || strstr(file->valuestring, "..") || file->valuestring[0] == '/')
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "\"file\" must name a file of the case's folder");
  char *path = viv__need(viv__path_join(c->dir, file->valuestring));
  int32_t status = is_recording(path) && strncmp(name, "audio", 5)
                       ? samples(name, task, path, out, error)
                       : viv__inputs_file(out, name, path, error);
  viv__free(path);
  return status;
}

/* ---- all of a call ---- */

static int32_t one(const viv__golden_case *c, const char *name, const char *task, const cJSON *node,
                   viv__input_list *out, viv_error *error) {
  const cJSON *file = cJSON_GetObjectItemCaseSensitive(node, "file"), *item;
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(node, "value");
  int32_t status = VIV_OK;
  if (cJSON_IsArray(node)) {
    cJSON_ArrayForEach(item, node) {
      status = one(c, name, task, item, out, error);
      if (status < 0) break;
    }
    return status;
  }
  if (file) return file_input(c, name, task, file, out, error);
  if (value && !cJSON_GetObjectItemCaseSensitive(node, "full") && !only_numbers(value)) {
    char *text =
        cJSON_IsString(value) ? viv__strdup(value->valuestring) : cJSON_PrintUnformatted(value);
    viv__inputs_bytes(
        viv__inputs_add(out, name, cJSON_IsString(value) ? VIV_KIND_TEXT : VIV_KIND_JSON),
        viv__need(text), strlen(text));
    return VIV_OK;
  }
  viv_tensor t = {0};
  status = tensor_of(c, node, 0, &t, error);
  if (status >= 0) viv__inputs_tensor(viv__inputs_add(out, name, VIV_KIND_TENSOR), t);
  return status;
}

int32_t viv__golden_inputs(const viv__golden_case *c, const cJSON *call, viv__input_list *out,
                           viv_error *error) {
  const cJSON *task = cJSON_GetObjectItemCaseSensitive(call, "task"), *input;
  cJSON_ArrayForEach(input, cJSON_GetObjectItemCaseSensitive(call, "inputs")) {
    if (cJSON_IsNull(input)) continue;
    int32_t status =
        one(c, input->string, cJSON_IsString(task) ? task->valuestring : "", input, out, error);
    if (status < 0) return status;
  }
  return VIV_OK;
}
