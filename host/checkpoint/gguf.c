/* GGUF, versions 2 and 3, as mapped files (little-endian):
 *
 *   "GGUF", u32 version, u64 tensors, u64 metadata entries
 *   entries   key (u64 length, bytes), u32 type, value
 *   tensors   name, u32 dimensions, u64 each from the innermost, u32 type, u64 offset
 *   data      from the next multiple of general.alignment (32); offsets count from there
 *
 * Block formats are served as they lie. What the metadata means is not known here: the other files
 * of this reader turn it into the side files that a release would have. */
#include "checkpoint/gguf.h"

#include <inttypes.h>
#include <string.h>

enum {
  MAX_DIMS = 4,    /* of the format */
  MAX_NAME = 1024, /* bytes of a key or a tensor's name */
  MAX_ALIGNMENT = 1 << 20,
  MIN_ENTRY = 8 + 4 + 1,     /* an entry and a tensor can't take fewer bytes, so that a count */
  MIN_TENSOR = 8 + 4 + 4 + 8 /* that the file can't hold is seen before memory is asked for */
};

/* ---- the cursor ---- */

typedef struct scan {
  viv__gguf *g;
  size_t at;
  viv_str name; /* key or tensor being read */
  const char *what;
  viv_error *error;
  char where[VIV__PLACE];
} scan;

static const char *place(scan *c) {
  char shown[VIV__SHOWN];
  if (c->name.len)
    return viv__place(c->where, c->g->file, "%s '%s', byte %zu", c->what,
                      viv__shown(shown, c->name), c->at);
  return viv__place(c->where, c->g->file, "byte %zu", c->at);
}
#define BAD(c, ...) VIV_FAIL((c)->error, VIV_BAD_INPUT, place(c), __VA_ARGS__)

static uint64_t little(const uint8_t *p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
  return value;
}

static int32_t number(scan *c, int bytes, const char *what, uint64_t *out) {
  if (c->g->map.len - c->at < (size_t)bytes)
    return BAD(c, "the file ends where %s must stand: it is cut; download it again", what);
  *out = little(c->g->map.data + c->at, bytes);
  c->at += (size_t)bytes;
  return VIV_OK;
}

static int32_t string(scan *c, const char *what, viv_str *out) {
  uint64_t len = 0;
  int32_t status = number(c, 8, what, &len);
  if (status < 0) return status;
  if (len > c->g->map.len - c->at)
    return BAD(c, "%s is %" PRIu64 " bytes long, %zu are left in the file", what, len,
               c->g->map.len - c->at);
  *out = (viv_str){(const char *)c->g->map.data + c->at, len};
  c->at += (size_t)len;
  return VIV_OK;
}

static int32_t check_name(scan *c, viv_str name, const char *what) {
  if (!name.len || name.len > MAX_NAME)
    return BAD(c, "%s has %" PRIu64 " bytes, it must have 1 to %d", what, name.len, MAX_NAME);
  if (!viv__utf8_valid(name.ptr, name.len) || memchr(name.ptr, 0, name.len))
    return BAD(c, "%s is not UTF-8, or holds a NUL", what);
  return VIV_OK;
}

/* ---- metadata ---- */

static size_t scalar_size(uint32_t type) {
  static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < sizeof sizes ? sizes[type] : 0;
}

static int32_t read_value(scan *c, viv__gguf_value *v) {
  uint64_t type = 0, item = 0;
  v->begin = c->g->map.data + c->at;
  v->count = 1;
  int32_t status = number(c, 4, "a value's type", &type);
  if (status < 0) return status;
  if (type > GGUF_F64) return BAD(c, "value type %" PRIu64 " does not exist", type);
  v->type = v->item = (uint32_t)type;
  if (type == GGUF_ARRAY) {
    if ((status = number(c, 4, "an array's type", &item)) < 0) return status;
    if ((status = number(c, 8, "an array's length", &v->count)) < 0) return status;
    if (item == GGUF_ARRAY) return BAD(c, "arrays of arrays can't be read");
    if (item > GGUF_F64) return BAD(c, "value type %" PRIu64 " does not exist", item);
    v->item = (uint32_t)item;
  }
  v->data = c->g->map.data + c->at;
  size_t size = scalar_size(v->item), left = c->g->map.len - c->at;
  if (size) {
    if (v->count > left / size)
      return BAD(c, "%" PRIu64 " values of %zu bytes are announced, %zu bytes are left in the file",
                 v->count, size, left);
    c->at += (size_t)v->count * size;
    return VIV_OK;
  }
  if (v->count > left / 8)
    return BAD(c, "%" PRIu64 " strings are announced, %zu bytes are left in the file", v->count,
               left);
  for (uint64_t i = 0; i < v->count; i++) {
    viv_str text;
    if ((status = string(c, "a string", &text)) < 0) return status;
  }
  return VIV_OK;
}

static int32_t no_memory(const viv__gguf *g, viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, g->file, "no memory to open the file");
}

static int32_t index_names(scan *c, const viv_str *names, int64_t n, const char *what,
                           viv__names *table) {
  size_t twice = 0;
  int32_t status = viv__names_build(table, names, (size_t)n, &twice);
  if (status == VIV_NOT_NOW) return no_memory(c->g, c->error);
  if (status < 0) {
    char shown[VIV__SHOWN];
    viv__place(c->where, c->g->file, "%s '%s'", what, viv__shown(shown, names[twice]));
    return VIV_FAIL(c->error, VIV_BAD_INPUT, c->where, "two have this name");
  }
  return VIV_OK;
}

static int32_t read_metadata(scan *c, uint64_t count) {
  viv__gguf *g = c->g;
  if (count > (g->map.len - c->at) / MIN_ENTRY)
    return BAD(c, "%" PRIu64 " metadata entries are announced, %zu bytes are left in the file",
               count, g->map.len - c->at);
  g->key_names = viv__malloc((size_t)count * sizeof *g->key_names);
  g->values = viv__calloc((size_t)count, sizeof *g->values);
  if (!g->key_names || !g->values) return no_memory(g, c->error);
  for (uint64_t i = 0; i < count; i++) {
    viv_str key;
    int32_t status = string(c, "a metadata key", &key);
    if (status >= 0) status = check_name(c, key, "a metadata key");
    if (status < 0) return status;
    c->name = key;
    if ((status = read_value(c, &g->values[i])) < 0) return status;
    c->name = (viv_str){NULL, 0};
    g->key_names[g->key_count++] = key;
  }
  return index_names(c, g->key_names, g->key_count, "metadata key", &g->keys);
}

/* ---- tensors ---- */

/* The file's type numbers; dtype 0: known, but not read here. */
static const struct {
  uint32_t type;
  int32_t dtype;
  const char *name;
} types[] = {
    {0, VIV_F32, "F32"},    {1, VIV_F16, "F16"},    {2, VIV_Q4_0, "Q4_0"},  {3, VIV_Q4_1, "Q4_1"},
    {6, VIV_Q5_0, "Q5_0"},  {7, VIV_Q5_1, "Q5_1"},  {8, VIV_Q8_0, "Q8_0"},  {9, 0, "Q8_1"},
    {10, VIV_Q2_K, "Q2_K"}, {11, VIV_Q3_K, "Q3_K"}, {12, VIV_Q4_K, "Q4_K"}, {13, VIV_Q5_K, "Q5_K"},
    {14, VIV_Q6_K, "Q6_K"}, {15, 0, "Q8_K"},        {16, 0, "IQ2_XXS"},     {17, 0, "IQ2_XS"},
    {18, 0, "IQ3_XXS"},     {19, 0, "IQ1_S"},       {20, 0, "IQ4_NL"},      {21, 0, "IQ3_S"},
    {22, 0, "IQ2_S"},       {23, 0, "IQ4_XS"},      {24, VIV_I8, "I8"},     {25, VIV_I16, "I16"},
    {26, VIV_I32, "I32"},   {27, VIV_I64, "I64"},   {28, VIV_F64, "F64"},   {29, 0, "IQ1_M"},
    {30, VIV_BF16, "BF16"}, {34, 0, "TQ1_0"},       {35, 0, "TQ2_0"},       {39, 0, "MXFP4"}};

static int32_t read_type(scan *c, viv__gguf_tensor *t) {
  uint64_t type = 0;
  int32_t status = number(c, 4, "a tensor's type", &type);
  if (status < 0) return status;
  const char *name = "unknown";
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (types[i].type == type) {
      t->dtype = types[i].dtype;
      name = types[i].name;
    }
  if (t->dtype) return VIV_OK;
  return VIV_FAIL(c->error, VIV_NEVER, place(c),
                  "tensor type %" PRIu64 " (%s) can't be read here; F32, F16, BF16, Q4_0, Q4_1, "
                  "Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K can",
                  type, name);
}

/* One tensor's entry. offset is left in bytes from the start of the data. */
static int32_t read_tensor(scan *c, viv__gguf_tensor *t, uint64_t *offset) {
  uint64_t ndim = 0, dims[MAX_DIMS] = {0};
  int32_t status = number(c, 4, "a tensor's number of dimensions", &ndim);
  if (status < 0) return status;
  if (ndim < 1 || ndim > MAX_DIMS)
    return BAD(c, "%" PRIu64 " dimensions; 1 to %d are possible", ndim, MAX_DIMS);
  for (uint64_t i = 0; i < ndim; i++) {
    if ((status = number(c, 8, "a dimension", &dims[i])) < 0) return status;
    if (!dims[i] || dims[i] > INT64_MAX)
      return BAD(c, "dimension %" PRIu64 " is %" PRIu64 ", it must be 1 to 2^63 - 1", i, dims[i]);
  }
  if ((status = read_type(c, t)) < 0) return status;
  if ((status = number(c, 8, "a tensor's offset", offset)) < 0) return status;

  t->ndim = (int32_t)ndim;
  for (uint64_t i = 0; i < ndim; i++) t->shape[ndim - 1 - i] = (int64_t)dims[i];
  t->bytes = viv__row_bytes(t->dtype, (int64_t)dims[0]);
  if (!t->bytes)
    return BAD(c, "rows of %" PRIu64 " elements are no whole blocks of %s", dims[0],
               viv__dtype_name(t->dtype));
  for (uint64_t i = 1; i < ndim; i++)
    if (__builtin_mul_overflow(t->bytes, dims[i], &t->bytes) || t->bytes > INT64_MAX)
      return BAD(c, "the product of the dimensions overflows 63 bits");
  return VIV_OK;
}

static int32_t read_alignment(scan *c, uint64_t *out) {
  double value = 0;
  const viv__gguf_value *v = viv__gguf_get(c->g, "general.alignment");
  *out = 32;
  if (!v) return VIV_OK;
  bool whole = viv__gguf_number(v, &value) && value >= 1 && value <= MAX_ALIGNMENT;
  *out = whole ? (uint64_t)value : 0;
  if (*out && !(*out & (*out - 1))) return VIV_OK;
  viv__gguf_place(c->where, c->g, "general.alignment");
  return VIV_FAIL(c->error, VIV_BAD_INPUT, c->where,
                  "the alignment must be a power of two from 1 to %d", MAX_ALIGNMENT);
}

/* Offsets to places in the file. */
static int32_t place_data(scan *c, const uint64_t *offsets) {
  viv__gguf *g = c->g;
  uint64_t alignment = 0;
  int32_t status = read_alignment(c, &alignment);
  if (status < 0) return status;
  uint64_t begin = (c->at + alignment - 1) / alignment * alignment;
  uint64_t left = begin < g->map.len ? g->map.len - begin : 0;
  viv__span *spans = viv__malloc((size_t)g->total * sizeof *spans);
  if (!spans) return no_memory(g, c->error);
  c->what = "tensor";
  for (int64_t i = 0; i < g->total && status >= 0; i++) {
    viv__gguf_tensor *t = &g->tensors[i];
    c->name = g->file_names[i];
    if (offsets[i] % alignment)
      status = BAD(c, "its data begins at offset %" PRIu64 ", which is no multiple of %" PRIu64,
                   offsets[i], alignment);
    else if (offsets[i] > left || t->bytes > left - offsets[i])
      status = BAD(c,
                   "its data, %" PRIu64 " bytes from offset %" PRIu64
                   ", ends behind a data section of %" PRIu64
                   " bytes: the file is cut or damaged; download it again",
                   t->bytes, offsets[i], left);
    else
      t->data = g->map.data + begin + offsets[i];
    spans[i] = (viv__span){offsets[i], offsets[i] + t->bytes, i};
  }
  if (status >= 0)
    status = viv__spans_check(spans, (size_t)g->total, g->file, g->file_names, c->error);
  viv__free(spans);
  return status;
}

static int32_t read_tensors(scan *c, uint64_t count) {
  viv__gguf *g = c->g;
  if (count > (g->map.len - c->at) / MIN_TENSOR)
    return BAD(c, "%" PRIu64 " tensors are announced, %zu bytes are left in the file", count,
               g->map.len - c->at);
  g->file_names = viv__malloc((size_t)count * sizeof *g->file_names);
  g->tensors = viv__calloc((size_t)count, sizeof *g->tensors);
  uint64_t *offsets = viv__malloc((size_t)count * sizeof *offsets);
  int32_t status = g->file_names && g->tensors && offsets ? VIV_OK : no_memory(g, c->error);
  for (uint64_t i = 0; i < count && status >= 0; i++) {
    viv_str name;
    c->name = (viv_str){NULL, 0};
    status = string(c, "a tensor's name", &name);
    if (status >= 0) status = check_name(c, name, "a tensor's name");
    if (status < 0) break;
    c->name = name;
    c->what = "tensor";
    status = read_tensor(c, &g->tensors[i], &offsets[i]);
    g->file_names[g->total++] = name;
  }
  c->name = (viv_str){NULL, 0};
  if (status >= 0) status = index_names(c, g->file_names, g->total, "tensor", &g->file_table);
  if (status >= 0) status = place_data(c, offsets);
  viv__free(offsets);
  return status;
}

static int32_t parse(viv__gguf *g, viv_error *error) {
  scan c = {.g = g, .what = "metadata key", .error = error};
  uint64_t version = 0, tensors = 0, keys = 0;
  if (g->map.len < 4 || memcmp(g->map.data, "GGUF", 4) != 0)
    return BAD(&c, "a GGUF file starts with the letters GGUF");
  c.at = 4;
  int32_t status = number(&c, 4, "the version", &version);
  if (status < 0) return status;
  if (version == 0x02000000 || version == 0x03000000)
    return VIV_FAIL(error, VIV_NEVER, place(&c), "big-endian GGUF files can't be read");
  if (version != 2 && version != 3)
    return VIV_FAIL(error, VIV_NEVER, place(&c),
                    "version %" PRIu64 " can't be read; 2 and 3 can: convert the file again",
                    version);
  if ((status = number(&c, 8, "the number of tensors", &tensors)) < 0) return status;
  if ((status = number(&c, 8, "the number of metadata entries", &keys)) < 0) return status;
  if ((status = read_metadata(&c, keys)) < 0) return status;
  return read_tensors(&c, tensors);
}

/* ---- metadata by key ---- */

const viv__gguf_value *viv__gguf_get(const viv__gguf *g, const char *key) {
  int64_t at = viv__names_find(&g->keys, viv__str(key));
  return at < 0 ? NULL : &g->values[at];
}

static double number_at(uint32_t type, const uint8_t *p) {
  uint64_t bits = little(p, (int)scalar_size(type));
  float single;
  double wide;
  uint32_t low = (uint32_t)bits;
  switch (type) {
  case GGUF_I8:
    return (int8_t)bits;
  case GGUF_I16:
    return (int16_t)bits;
  case GGUF_I32:
    return (int32_t)bits;
  case GGUF_I64:
    return (double)(int64_t)bits;
  case GGUF_F32:
    memcpy(&single, &low, sizeof single);
    return (double)single;
  case GGUF_F64:
    memcpy(&wide, &bits, sizeof wide);
    return wide;
  case GGUF_BOOL:
    return bits != 0;
  default:
    return (double)bits;
  }
}

bool viv__gguf_number(const viv__gguf_value *v, double *out) {
  if (!v || !scalar_size(v->type)) return false;
  *out = number_at(v->type, v->data);
  return true;
}

viv_str viv__gguf_next_string(const uint8_t **at) {
  uint64_t len = little(*at, 8);
  viv_str text = {(const char *)*at + 8, len};
  *at += 8 + len;
  return text;
}

viv_str viv__gguf_string(const viv__gguf_value *v) {
  if (!v || v->type != GGUF_STRING) return (viv_str){NULL, 0};
  const uint8_t *at = v->data;
  return viv__gguf_next_string(&at);
}

double viv__gguf_item(const viv__gguf_value *v, uint64_t i) {
  return number_at(v->item, v->data + i * scalar_size(v->item));
}

const char *viv__gguf_place(char where[VIV__PLACE], const viv__gguf *g, const char *key) {
  const viv__gguf_value *v = viv__gguf_get(g, key);
  if (!v) return viv__place(where, g->file, "metadata key '%s'", key);
  return viv__place(where, g->file, "metadata key '%s', byte %zu", key,
                    (size_t)(v->begin - g->map.data));
}

const viv__gguf_tensor *viv__gguf_find_raw(const viv__gguf *g, const char *name) {
  int64_t at = viv__names_find(&g->file_table, viv__str(name));
  return at < 0 ? NULL : &g->tensors[at];
}

/* ---- the doors ---- */

static int32_t open_map(viv__map *map, const char *file, viv__gguf **out, viv_error *error) {
  viv__gguf *g = viv__calloc(1, sizeof *g);
  if (!g) {
    viv__map_close(map);
    return VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the file");
  }
  g->map = *map;
  g->file = viv__strdup(file);
  viv__buf config = {0};
  int32_t status =
      g->file ? parse(g, error) : VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the file");
  if (status >= 0) status = viv__gguf_config(g, &config, error);
  if (status >= 0 && config.failed) status = no_memory(g, error);
  if (status >= 0) status = viv__gguf_rename(g, error);
  if (status < 0) {
    viv__buf_free(&config);
    viv__gguf_close(g);
    return status;
  }
  g->config = config.ptr;
  g->config_len = config.len;
  *out = g;
  return VIV_OK;
}

int32_t viv__gguf_open(const char *path, viv__gguf **out, viv_error *error) {
  viv__map map;
  int32_t status = viv__map_open(path, &map, error);
  return status < 0 ? status : open_map(&map, path, out, error);
}

int32_t viv__gguf_parse(const void *data, size_t len, const char *name, viv__gguf **out,
                        viv_error *error) {
  viv__map map = {.data = len ? data : "", .len = len, .mapped = false};
  return open_map(&map, name, out, error);
}

void viv__gguf_close(viv__gguf *g) {
  if (!g) return;
  viv__names_free(&g->keys);
  viv__names_free(&g->file_table);
  viv__names_free(&g->table);
  viv__free(g->key_names);
  viv__free(g->values);
  viv__free(g->file_names);
  viv__free(g->names);
  viv__free(g->tensors);
  viv__arena_free(g->made);
  viv__free(g->config);
  viv__free(g->file);
  viv__map_close(&g->map);
  viv__free(g);
}

int64_t viv__gguf_count(const viv__gguf *g) {
  return g->count;
}

int32_t viv__gguf_at(const viv__gguf *g, int64_t index, viv_str *name, viv_tensor *out) {
  if (index < 0 || index >= g->count) return VIV_NEVER;
  const viv__gguf_tensor *t = &g->tensors[index];
  if (name) *name = g->names[index];
  if (!out) return VIV_OK;
  *out = (viv_tensor){.struct_size = sizeof *out,
                      .flags = VIV_TENSOR_READ_ONLY,
                      .data = (void *)(uintptr_t)t->data,
                      .bytes = t->bytes,
                      .dtype = t->dtype,
                      .ndim = t->ndim};
  memcpy(out->shape, t->shape, sizeof t->shape);
  return VIV_OK;
}

int32_t viv__gguf_find(const viv__gguf *g, viv_str name, viv_tensor *out) {
  return viv__gguf_at(g, viv__names_find(&g->table, name), NULL, out);
}

int32_t viv__gguf_side(const viv__gguf *g, viv_str name, viv__buf *out, viv_error *error) {
  int32_t status = VIV_NEVER;
  if (viv__str_eq(name, "config.json")) {
    viv__buf_add(out, g->config, g->config_len);
    status = VIV_OK;
  } else if (viv__str_eq(name, "tokenizer.json")) {
    status = viv__gguf_tokenizer(g, out, error);
  } else if (viv__str_eq(name, "tokenizer_config.json")) {
    status = viv__gguf_tokenizer_config(g, out, error);
  } else {
    char shown[VIV__SHOWN];
    VIV_FAIL(error, VIV_NEVER, g->file, "a GGUF file holds nothing that stands for '%s'",
             viv__shown(shown, name));
  }
  return status >= 0 && out->failed ? no_memory(g, error) : status;
}

const viv__map *viv__gguf_map(const viv__gguf *g) {
  return &g->map;
}
