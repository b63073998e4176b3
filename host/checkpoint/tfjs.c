/* TensorFlow.js graph and layers models: a JSON document and the raw weights beside it.
 *
 *   {"format": "graph-model", "generatedBy": "...", "modelTopology": {...},
 *    "weightsManifest": [{"paths": ["model.bin", ...],
 *                         "weights": [{"name": "a/b", "shape": [3, 3, 8, 1], "dtype": "float32",
 *                                      "quantization": {"dtype": "float16"}}, ...]}, ...]}
 *
 * The weights of a group lie one after another, without gaps, in the concatenation of its files. A
 * tensor that two files share is copied, all others are served as they lie. Halves are served as
 * F16; 8- and 16-bit quantisation with a scale is refused. The graph itself is not read: a plugin
 * knows its network, and names and shapes are the file's own (kernels are HWIO).
 *
 * Official: tensorflow/tfjs, tfjs-core/src/io. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <string.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/files.h"

enum { MAX_DOCUMENT = 64 << 20, MAX_FILES = 1024, MAX_TENSORS = 1 << 20 };

struct viv__tfjs {
  char *file; /* for messages */
  viv_json *document;
  viv__map *maps; /* [map_count] */
  int32_t map_count;
  int64_t count, cap;
  viv_str *names; /* [count], in the document */
  viv_tensor *tensors;
  viv__names table;
  viv_arena *copies;
};

static int32_t no_memory(const viv__tfjs *t, viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, t->file, "no memory to open the model");
}

/* ---- one weight ---- */

/* The element type in the file, or VIV_NEVER with a reason. */
static int32_t stored_dtype(const viv_json *w, const char *where, viv_error *error) {
  static const struct {
    const char *name;
    int32_t dtype;
  } plain[] = {{"float32", VIV_F32},
               {"float16", VIV_F16},
               {"int32", VIV_I32},
               {"uint8", VIV_U8},
               {"bool", VIV_BOOL}};
  const viv_json *q = viv__json_get(w, "quantization");
  viv_str dtype = viv__json_string(viv__json_get(w, "dtype"));
  if (q) {
    viv_str as = viv__json_string(viv__json_get(q, "dtype"));
    if (viv__str_eq(as, "float16") && viv__str_eq(dtype, "float32")) return VIV_F16;
    char shown[VIV__SHOWN];
    return VIV_FAIL(error, VIV_NEVER, where,
                    "the weights are quantised as '%s'; float16 is read here",
                    viv__shown(shown, as));
  }
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (viv__str_eq(dtype, plain[i].name)) return plain[i].dtype;
  char shown[VIV__SHOWN];
  return VIV_FAIL(error, VIV_NEVER, where, "the dtype '%s' is not read here",
                  viv__shown(shown, dtype));
}

/* Name, dtype, shape and length of a weight; not yet where it lies. */
static int32_t describe(viv__tfjs *t, const viv_json *w, viv_str *name, viv_tensor *out,
                        viv_error *error) {
  char where[VIV__PLACE], shown[VIV__SHOWN];
  *name = viv__json_string(viv__json_get(w, "name"));
  if (!name->len)
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__place(where, t->file, "weightsManifest"),
                    "weight %" PRId64 " has no name", t->count);
  viv__place(where, t->file, "weight '%s'", viv__shown(shown, *name));
  int32_t dtype = stored_dtype(w, where, error);
  if (dtype < 0) return dtype;
  const viv_json *shape = viv__json_get(w, "shape");
  int64_t ndim = viv__json_count(shape);
  if (viv__json_type(shape) != VIV_JSON_ARRAY || ndim > VIV_MAX_DIMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the shape must be a list of at most %d lengths",
                    VIV_MAX_DIMS);
  *out = (viv_tensor){.struct_size = sizeof *out,
                      .flags = VIV_TENSOR_READ_ONLY,
                      .dtype = dtype,
                      .ndim = (int32_t)ndim,
                      .bytes = viv__dtype_size(dtype)};
  for (int64_t i = 0; i < ndim; i++) {
    double n = viv__json_number(viv__json_item(shape, i));
    if (viv__json_type(viv__json_item(shape, i)) != VIV_JSON_NUMBER || !(n >= 0 && n <= 1e12) ||
        n != (double)(int64_t)n || __builtin_mul_overflow(out->bytes, (uint64_t)n, &out->bytes))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "axis %" PRId64 " of the shape is no length", i);
    out->shape[i] = (int64_t)n;
  }
  return VIV_OK;
}

static int32_t keep(viv__tfjs *t, viv_str name, const viv_tensor *tensor, viv_error *error) {
  if (t->count == t->cap) {
    int64_t cap = t->cap ? 2 * t->cap : 64;
    viv_str *names = viv__realloc(t->names, (size_t)cap * sizeof *names);
    if (names) t->names = names;
    viv_tensor *tensors = viv__realloc(t->tensors, (size_t)cap * sizeof *tensors);
    if (tensors) t->tensors = tensors;
    if (!names || !tensors || cap > MAX_TENSORS) return no_memory(t, error);
    t->cap = cap;
  }
  t->names[t->count] = name;
  t->tensors[t->count++] = *tensor;
  return VIV_OK;
}

/* ---- a group ---- */

/* Bytes [at, at + bytes) of the files joined: in place, or copied when several hold them. */
static const void *joined(viv__tfjs *t, const viv__map *maps, int32_t n, uint64_t at,
                          uint64_t bytes) {
  int32_t i = 0;
  while (i < n && at >= maps[i].len && bytes) at -= maps[i++].len;
  if (!bytes || at + bytes <= maps[i].len) return maps[i].data + (bytes ? at : 0);
  uint8_t *copy = viv__arena_alloc(t->copies, bytes);
  for (uint64_t done = 0; copy && done < bytes; at = 0, i++) {
    uint64_t part = maps[i].len - at < bytes - done ? maps[i].len - at : bytes - done;
    memcpy(copy + done, maps[i].data + at, part);
    done += part;
  }
  return copy;
}

static int32_t read_group(viv__tfjs *t, const viv_json *group, const viv__map *maps, int32_t n,
                          viv_error *error) {
  const viv_json *weights = viv__json_get(group, "weights");
  uint64_t total = 0, at = 0;
  for (int32_t i = 0; i < n; i++) total += maps[i].len;
  for (const cJSON *w = weights ? ((const cJSON *)weights)->child : NULL; w; w = w->next) {
    viv_str name;
    viv_tensor tensor;
    int32_t status = describe(t, (const viv_json *)w, &name, &tensor, error);
    if (status < 0) return status;
    char where[VIV__PLACE], shown[VIV__SHOWN];
    if (tensor.bytes > total - at)
      return VIV_FAIL(error, VIV_BAD_INPUT,
                      viv__place(where, t->file, "weight '%s'", viv__shown(shown, name)),
                      "it ends at byte %" PRIu64 " of its group's files, which hold %" PRIu64,
                      at + tensor.bytes, total);
    const void *data = joined(t, maps, n, at, tensor.bytes);
    if (!data) return no_memory(t, error);
    memcpy(&tensor.data, &data, sizeof data);
    at += tensor.bytes;
    if ((status = keep(t, name, &tensor, error)) < 0) return status;
  }
  if (at != total)
    return VIV_FAIL(error, VIV_BAD_INPUT, t->file,
                    "the weights of a group are %" PRIu64 " bytes, but its files hold %" PRIu64
                    ": they do not belong together",
                    at, total);
  return VIV_OK;
}

/* ---- the document ---- */

static int32_t read_document(const char *text, size_t len, const char *file, viv__tfjs **out,
                             viv_error *error) {
  viv__tfjs *t = viv__calloc(1, sizeof *t);
  if (t) t->file = viv__strdup(file);
  if (t) t->copies = viv__arena_new(0);
  int32_t status = VIV_OK;
  if (!t || !t->file || !t->copies)
    status = VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the model");
  else
    status = viv__json_parse(text, len, file, &t->document, error);
  if (status >= 0) {
    const viv_json *manifest = viv__json_get(t->document, "weightsManifest");
    if (viv__json_type(manifest) != VIV_JSON_ARRAY || !viv__json_count(manifest))
      status = VIV_FAIL(error, VIV_NEVER, file,
                        "not a checkpoint that can be read here: a folder, *.safetensors, *.bin, "
                        "*.pt, *.pth, *.gguf, *.index.json or a TensorFlow.js model's *.json (this "
                        "one has no weightsManifest) is");
  }
  if (status < 0) {
    viv__tfjs_close(t);
    return status;
  }
  *out = t;
  return VIV_OK;
}

static int32_t finish(viv__tfjs *t, viv__tfjs **out, int32_t status, viv_error *error) {
  size_t twice = 0;
  if (status >= 0 && t->count) {
    status = viv__names_build(&t->table, t->names, (size_t)t->count, &twice);
    char where[VIV__PLACE], shown[VIV__SHOWN];
    if (status == VIV_BAD_INPUT)
      VIV_FAIL(error, status,
               viv__place(where, t->file, "weight '%s'", viv__shown(shown, t->names[twice])),
               "the name stands twice in the manifest");
    else if (status < 0)
      no_memory(t, error);
  }
  if (status < 0) {
    viv__tfjs_close(t);
    return status;
  }
  *out = t;
  return VIV_OK;
}

/* Maps the files of a group, which lie beside the document; answers how many. */
static int32_t map_files(viv__tfjs *t, const char *folder, const viv_json *group,
                         viv_error *error) {
  const viv_json *paths = viv__json_get(group, "paths");
  int64_t n = viv__json_count(paths);
  if (viv__json_type(paths) != VIV_JSON_ARRAY || n < 1 || n > MAX_FILES - t->map_count)
    return VIV_FAIL(error, VIV_BAD_INPUT, t->file,
                    "a group of the weightsManifest must name 1 to %d files", MAX_FILES);
  viv__map *maps = viv__realloc(t->maps, (size_t)(t->map_count + n) * sizeof *maps);
  if (!maps) return no_memory(t, error);
  t->maps = maps;
  for (int64_t i = 0; i < n; i++) {
    viv_str name = viv__json_string(viv__json_item(paths, i));
    char shown[VIV__SHOWN];
    if (!name.len || memchr(name.ptr, '/', name.len) || viv__str_eq(name, ".") ||
        viv__str_eq(name, ".."))
      return VIV_FAIL(error, VIV_BAD_INPUT, t->file,
                      "the weightsManifest names the file '%s'; a plain file name of this folder "
                      "is expected",
                      viv__shown(shown, name));
    char *plain = viv__strndup(name.ptr, name.len);
    char *path = plain ? viv__path_join(folder, plain) : NULL;
    int32_t status = path ? viv__map_open(path, &maps[t->map_count], error) : no_memory(t, error);
    viv__free(plain);
    viv__free(path);
    if (status < 0) return status;
    t->map_count++;
  }
  return (int32_t)n;
}

int32_t viv__tfjs_open(const char *path, viv__tfjs **out, viv_error *error) {
  char *text = NULL;
  size_t len = 0;
  viv__tfjs *t = NULL;
  int32_t status = viv__read_file(path, MAX_DOCUMENT, &text, &len, error);
  if (status >= 0) status = read_document(text, len, path, &t, error);
  viv__free(text);
  if (status < 0) return status;
  const char *slash = strrchr(path, '/');
  char *folder =
      slash ? viv__strndup(path, slash == path ? 1 : (size_t)(slash - path)) : viv__strdup(".");
  const viv_json *manifest = viv__json_get(t->document, "weightsManifest");
  if (!folder) status = no_memory(t, error);
  for (int64_t g = 0; status >= 0 && g < viv__json_count(manifest); g++) {
    const viv_json *group = viv__json_item(manifest, g);
    int32_t n = map_files(t, folder, group, error);
    status = n < 0 ? n : read_group(t, group, t->maps + t->map_count - n, n, error);
  }
  viv__free(folder);
  return finish(t, out, status, error);
}

int32_t viv__tfjs_parse(const void *document, size_t document_len, const void *data, size_t len,
                        const char *name, viv__tfjs **out, viv_error *error) {
  viv__tfjs *t = NULL;
  int32_t status = read_document(document, document_len, name, &t, error);
  if (status < 0) return status;
  const viv_json *manifest = viv__json_get(t->document, "weightsManifest");
  viv__map map = {.data = len ? data : (const void *)"", .len = len};
  if (viv__json_count(manifest) != 1)
    status = VIV_FAIL(error, VIV_BAD_INPUT, name, "one group is expected here");
  else
    status = read_group(t, viv__json_item(manifest, 0), &map, 1, error);
  return finish(t, out, status, error);
}

void viv__tfjs_close(viv__tfjs *t) {
  if (!t) return;
  viv__names_free(&t->table);
  for (int32_t i = 0; i < t->map_count; i++) viv__map_close(&t->maps[i]);
  viv__free(t->maps);
  viv__free(t->names);
  viv__free(t->tensors);
  viv__json_free(t->document);
  viv__arena_free(t->copies);
  viv__free(t->file);
  viv__free(t);
}

/* ---- what it holds ---- */

int64_t viv__tfjs_count(const viv__tfjs *t) {
  return t->count;
}

int32_t viv__tfjs_at(const viv__tfjs *t, int64_t index, viv_str *name, viv_tensor *out) {
  if (index < 0 || index >= t->count) return VIV_NEVER;
  if (name) *name = t->names[index];
  if (out) *out = t->tensors[index];
  return VIV_OK;
}

const viv__map *viv__tfjs_map(const viv__tfjs *t) {
  return &t->maps[0];
}

/* The address that the model was converted from names it: the path of
 * "https://tfhub.dev/PUBLISHER/MODEL/VARIANT/4" is the architecture. */
int32_t viv__tfjs_side(const viv__tfjs *t, viv_str name, viv__buf *out, viv_error *error) {
  char shown[VIV__SHOWN];
  if (!viv__str_eq(name, "config.json"))
    return VIV_FAIL(error, VIV_NEVER, t->file,
                    "a TensorFlow.js model holds nothing that stands for '%s'",
                    viv__shown(shown, name));
  const char *by = viv__json_text(t->document, "generatedBy", "");
  const char *host = strstr(by, "://"), *path = host ? strchr(host + 3, '/') : NULL;
  viv__buf_str(out, "{\"format\":");
  viv__buf_json(out, viv__str(viv__json_text(t->document, "format", "")));
  viv__buf_str(out, ",\"architectures\":[");
  viv__buf_json(out, viv__str(path ? path + 1 : by));
  viv__buf_str(out, "]}");
  return out->failed ? no_memory(t, error) : VIV_OK;
}
