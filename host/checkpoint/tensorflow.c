/* TensorFlow checkpoints of version 2: PREFIX.index beside PREFIX.data-00000-of-00001, ...
 *
 * The index is a sorted table as LevelDB writes it:
 *
 *   blocks:  entry*   varint shared, varint rest, varint value_len, rest of the key, value
 *            u32 restart*, u32 restarts, u8 compression, u32 checksum
 *   footer (the last 48 bytes): varint offset and size of the table of metadata blocks and of the
 *            table of data blocks, zeros, u64 0xdb4775248b80fb57
 *
 * The table of data blocks is a block whose values are offset and size of the others. Under the key ""
 * stands BundleHeaderProto (1: shards, 2: endianness), under each name BundleEntryProto (1: dtype, 2:
 * shape, 3: shard, 4: offset, 5: size, 6: checksum, 7: slices). Names are the variables', kernels height,
 * width, in, out. Texts (what Keras says of its objects) are left out, as they are no tensors. Refused:
 * compressed tables, variables in slices, and big-endian files. Checksums are not compared, since
 * that would read all weights.
 *
 * Official: tensorflow/core/util/tensor_bundle, core/lib/io/table; google/leveldb, doc/table_format.md. */
#include <inttypes.h>
#include <string.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/files.h"

enum { FOOTER = 48, TRAILER = 5, MAX_SHARDS = 1024, MAX_TENSORS = 1 << 20, MAX_NAME = 4096 };

struct viv__tfbundle {
  char *file;     /* the index, for messages */
  viv__map *maps; /* [shards], each opened when its first tensor is met */
  int32_t shards;
  char *prefix; /* of the shards' paths; NULL: maps are the caller's */
  int64_t count, cap;
  viv_str *names; /* [count], in memory */
  viv_tensor *tensors;
  viv__names table;
  viv_arena *memory; /* of the names */
};

/* Bytes that are read from the front; `failed` once something is not there. */
struct bytes {
  const uint8_t *at, *end;
  bool failed;
};

static int32_t no_memory(const viv__tfbundle *t, viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, t->file, "no memory to open the checkpoint");
}

static uint64_t varint(struct bytes *b) {
  uint64_t x = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (b->at == b->end) break;
    uint8_t c = *b->at++;
    x |= (uint64_t)(c & 127) << shift;
    if (c < 128) return x;
  }
  b->failed = true;
  return 0;
}

static uint64_t little(const uint8_t *at, int n) {
  uint64_t x = 0;
  for (int i = n - 1; i >= 0; i--) x = x << 8 | at[i];
  return x;
}

static struct bytes take(struct bytes *b, uint64_t n) {
  struct bytes part = {b->at, b->at, true};
  if (b->failed || n > (uint64_t)(b->end - b->at)) {
    b->failed = true;
    return part;
  }
  part = (struct bytes){b->at, b->at + n, false};
  b->at += n;
  return part;
}

/* ---- protocol buffers ---- */

/* The next field: its number, 0 at the end or when there is none; a number or a part. */
static int field(struct bytes *b, uint64_t *number, struct bytes *part) {
  if (b->failed || b->at == b->end) return 0;
  uint64_t key = varint(b);
  *number = 0;
  *part = (struct bytes){b->at, b->at, false};
  switch (key & 7) {
  case 0:
    *number = varint(b);
    break;
  case 1:
    take(b, 8);
    break;
  case 2:
    *part = take(b, varint(b));
    break;
  case 5:
    take(b, 4);
    break;
  default:
    b->failed = true;
  }
  return b->failed || key >> 3 > 1 << 20 ? 0 : (int)(key >> 3);
}

/* -1: a type that is not served; 0: texts and the like, which are left out. */
static int32_t dtype_of(uint64_t number) {
  switch (number) {
  case 1:
    return VIV_F32;
  case 2:
    return VIV_F64;
  case 3:
    return VIV_I32;
  case 4:
    return VIV_U8;
  case 5:
    return VIV_I16;
  case 6:
    return VIV_I8;
  case 9:
    return VIV_I64;
  case 10:
    return VIV_BOOL;
  case 14:
    return VIV_BF16;
  case 19:
    return VIV_F16;
  case 7:
  case 20:
  case 21:
    return 0;
  default:
    return -1;
  }
}

static int32_t read_shape(struct bytes b, viv_tensor *out, const char *where, viv_error *error) {
  uint64_t number, size;
  struct bytes part, dim;
  for (int f; (f = field(&b, &number, &part));) {
    if (f != 2) continue;
    size = 0;
    for (int g; (g = field(&part, &number, &dim));)
      if (g == 1) size = number;
    if (part.failed || size > INT64_MAX || out->ndim == VIV_MAX_DIMS)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "the shape must be at most %d lengths",
                      VIV_MAX_DIMS);
    out->shape[out->ndim++] = (int64_t)size;
  }
  return b.failed ? VIV_FAIL(error, VIV_BAD_INPUT, where, "the shape is cut off") : VIV_OK;
}

/* ---- variables ---- */

static int32_t keep(viv__tfbundle *t, viv_str name, const viv_tensor *tensor, viv_error *error) {
  if (t->count == t->cap) {
    int64_t cap = t->cap ? 2 * t->cap : 64;
    viv_str *names = viv__realloc(t->names, (size_t)cap * sizeof *names);
    if (names) t->names = names;
    viv_tensor *tensors = viv__realloc(t->tensors, (size_t)cap * sizeof *tensors);
    if (tensors) t->tensors = tensors;
    if (!names || !tensors || cap > MAX_TENSORS) return no_memory(t, error);
    t->cap = cap;
  }
  char *copy = viv__arena_alloc(t->memory, name.len + 1);
  if (!copy) return no_memory(t, error);
  memcpy(copy, name.ptr, name.len);
  copy[name.len] = 0;
  t->names[t->count] = (viv_str){copy, name.len};
  t->tensors[t->count++] = *tensor;
  return VIV_OK;
}

static int32_t shard_of(viv__tfbundle *t, uint64_t shard, const char *where, const viv__map **out,
                        viv_error *error) {
  if (shard >= (uint64_t)t->shards)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "it lies in file %" PRIu64 " of %d", shard,
                    t->shards);
  viv__map *map = &t->maps[shard];
  *out = map;
  if (map->data) return VIV_OK;
  viv__buf path = {0};
  viv__buf_fmt(&path, "%s.data-%05d-of-%05d", t->prefix, (int)shard, t->shards);
  viv__buf_add(&path, "", 1);
  int32_t status = path.failed ? no_memory(t, error) : viv__map_open(path.ptr, map, error);
  viv__buf_free(&path);
  return status;
}

static int32_t read_variable(viv__tfbundle *t, viv_str name, struct bytes b, viv_error *error) {
  char where[VIV__PLACE], shown[VIV__SHOWN];
  viv__place(where, t->file, "variable '%s'", viv__shown(shown, name));
  viv_tensor tensor = {.struct_size = sizeof tensor, .flags = VIV_TENSOR_READ_ONLY};
  uint64_t number, kind = 0, shard = 0, offset = 0, size = 0;
  struct bytes part;
  bool sliced = false;
  int32_t status = VIV_OK;
  for (int f; status >= 0 && (f = field(&b, &number, &part));) {
    if (f == 1) kind = number;
    if (f == 2) status = read_shape(part, &tensor, where, error);
    if (f == 3) shard = number;
    if (f == 4) offset = number;
    if (f == 5) size = number;
    if (f == 7) sliced = true;
  }
  if (status < 0) return status;
  if (b.failed) return VIV_FAIL(error, VIV_BAD_INPUT, where, "its entry is cut off");
  int32_t dtype = dtype_of(kind);
  if (!dtype) return VIV_OK;
  if (dtype < 0)
    return VIV_FAIL(error, VIV_NEVER, where, "its type (%" PRIu64 ") is not read here", kind);
  if (sliced)
    return VIV_FAIL(error, VIV_NEVER, where, "it is stored in slices, which are not joined here");
  tensor.dtype = dtype;
  tensor.bytes = viv__dtype_size(dtype);
  for (int32_t i = 0; i < tensor.ndim; i++)
    if (__builtin_mul_overflow(tensor.bytes, (uint64_t)tensor.shape[i], &tensor.bytes))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "its shape is larger than any file");
  const viv__map *map;
  status = shard_of(t, shard, where, &map, error);
  if (status < 0) return status;
  if (tensor.bytes != size || offset > map->len || size > map->len - offset)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "%" PRIu64 " bytes at %" PRIu64 " are no tensor of %" PRIu64
                    " bytes in a file of %zu",
                    size, offset, tensor.bytes, map->len);
  const uint8_t *data = map->data + offset;
  memcpy(&tensor.data, &data, sizeof data);
  return keep(t, name, &tensor, error);
}

static int32_t read_header(viv__tfbundle *t, struct bytes b, viv_error *error) {
  uint64_t number, shards = 0, endian = 0;
  struct bytes part;
  for (int f; (f = field(&b, &number, &part));) {
    if (f == 1) shards = number;
    if (f == 2) endian = number;
  }
  if (endian)
    return VIV_FAIL(error, VIV_NEVER, t->file, "a big-endian checkpoint is not read here");
  if (b.failed || t->shards || shards < 1 || shards > MAX_SHARDS || (!t->prefix && shards != 1))
    return VIV_FAIL(error, VIV_BAD_INPUT, t->file, "its header names %" PRIu64 " files of data",
                    shards);
  if (!t->maps) t->maps = viv__calloc((size_t)shards, sizeof *t->maps);
  t->shards = (int32_t)shards;
  return t->maps ? VIV_OK : no_memory(t, error);
}

/* Refuses variables that share bytes of a file. */
static int32_t check_spans(const viv__tfbundle *t, viv_error *error) {
  viv__span *spans = viv__malloc((size_t)(t->count + 1) * sizeof *spans);
  int32_t status = spans ? VIV_OK : no_memory(t, error);
  for (int32_t s = 0; s < t->shards && status >= 0; s++) {
    size_t n = 0;
    const uint8_t *data = t->maps[s].data;
    for (int64_t i = 0; data && i < t->count; i++) {
      const uint8_t *at = t->tensors[i].data;
      if (at < data || at > data + t->maps[s].len) continue;
      spans[n++] =
          (viv__span){(uint64_t)(at - data), (uint64_t)(at - data) + t->tensors[i].bytes, i};
    }
    status = viv__spans_check(spans, n, t->file, t->names, error);
  }
  viv__free(spans);
  return status;
}

/* ---- the table ---- */

static int32_t damaged(const viv__tfbundle *t, uint64_t at, const char *what, viv_error *error) {
  return VIV_FAIL(error, VIV_BAD_INPUT, t->file, "the block at byte %" PRIu64 ": %s", at, what);
}

/* Calls take for each entry of the block at [at, at + size) of the index. */
static int32_t each_entry(viv__tfbundle *t, const viv__map *index, uint64_t at, uint64_t size,
                          int32_t (*taken)(viv__tfbundle *t, const viv__map *index, viv_str key,
                                           struct bytes value, viv_error *error),
                          viv_error *error) {
  char key[MAX_NAME];
  size_t len = 0;
  if (at > index->len || size > index->len - at || index->len - at - size < TRAILER || size < 4)
    return damaged(t, at, "it does not lie in the file", error);
  if (index->data[at + size])
    return VIV_FAIL(error, VIV_NEVER, t->file,
                    "the block at byte %" PRIu64 " is compressed, which TensorFlow does not do",
                    at);
  uint64_t restarts = little(index->data + at + size - 4, 4);
  if (restarts > (size - 4) / 4) return damaged(t, at, "its restarts are cut off", error);
  struct bytes b = {index->data + at, index->data + at + size - 4 - 4 * restarts, false};
  while (b.at < b.end) {
    uint64_t shared = varint(&b), rest = varint(&b), n = varint(&b);
    struct bytes more = take(&b, rest), value = take(&b, n);
    if (b.failed || shared > len || rest > sizeof key - shared)
      return damaged(t, at, "an entry is cut off, or its name is too long", error);
    memcpy(key + shared, more.at, rest);
    len = shared + rest;
    int32_t status = taken(t, index, (viv_str){key, len}, value, error);
    if (status < 0) return status;
  }
  return VIV_OK;
}

static int32_t take_entry(viv__tfbundle *t, const viv__map *index, viv_str key, struct bytes value,
                          viv_error *error) {
  (void)index;
  if (!key.len) return read_header(t, value, error);
  if (!t->shards)
    return VIV_FAIL(error, VIV_BAD_INPUT, t->file, "a variable stands before the header");
  return read_variable(t, key, value, error);
}

static int32_t take_block(viv__tfbundle *t, const viv__map *index, viv_str key, struct bytes value,
                          viv_error *error) {
  (void)key;
  uint64_t at = varint(&value), size = varint(&value);
  if (value.failed) return damaged(t, 0, "the table of blocks is cut off", error);
  return each_entry(t, index, at, size, take_entry, error);
}

static int32_t read_index(viv__tfbundle *t, const viv__map *index, viv_error *error) {
  static const uint8_t magic[8] = {0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb};
  if (index->len < FOOTER || memcmp(index->data + index->len - 8, magic, 8) != 0)
    return VIV_FAIL(error, VIV_NEVER, t->file,
                    "this is no index of a TensorFlow checkpoint (version 2)");
  struct bytes b = {index->data + index->len - FOOTER, index->data + index->len - 8, false};
  varint(&b); /* where metadata blocks are listed: there are none */
  varint(&b);
  uint64_t at = varint(&b), size = varint(&b);
  if (b.failed) return VIV_FAIL(error, VIV_BAD_INPUT, t->file, "the footer is cut off");
  int32_t status = each_entry(t, index, at, size, take_block, error);
  size_t twice = 0;
  const viv__map *first;
  if (status >= 0 && !t->shards)
    status = VIV_FAIL(error, VIV_BAD_INPUT, t->file, "the index has no header");
  if (status >= 0) status = shard_of(t, 0, t->file, &first, error);
  if (status >= 0) status = check_spans(t, error);
  if (status < 0 || !t->count) return status;
  status = viv__names_build(&t->table, t->names, (size_t)t->count, &twice);
  char where[VIV__PLACE], shown[VIV__SHOWN];
  if (status == VIV_BAD_INPUT)
    return VIV_FAIL(error, status,
                    viv__place(where, t->file, "variable '%s'", viv__shown(shown, t->names[twice])),
                    "the name stands twice in the index");
  return status < 0 ? no_memory(t, error) : VIV_OK;
}

/* ---- opening ---- */

static int32_t begin(const char *file, viv__tfbundle **out, viv_error *error) {
  viv__tfbundle *t = viv__calloc(1, sizeof *t);
  if (t) t->file = viv__strdup(file);
  if (t) t->memory = viv__arena_new(0);
  *out = t;
  if (t && t->file && t->memory) return VIV_OK;
  return VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the checkpoint");
}

static int32_t end(viv__tfbundle *t, int32_t status, viv__tfbundle **out) {
  if (status < 0)
    viv__tfbundle_close(t);
  else
    *out = t;
  return status;
}

int32_t viv__tfbundle_open(const char *path, viv__tfbundle **out, viv_error *error) {
  viv__tfbundle *t;
  viv__map index = {0};
  int32_t status = begin(path, &t, error);
  size_t len = strlen(path), tail = strlen(".index");
  if (status >= 0 && !(t->prefix = viv__strndup(path, len > tail ? len - tail : len)))
    status = no_memory(t, error);
  if (status >= 0) status = viv__map_open(path, &index, error);
  if (status >= 0) {
    status = read_index(t, &index, error);
    viv__map_close(&index);
  }
  return end(t, status, out);
}

int32_t viv__tfbundle_parse(const void *index, size_t index_len, const void *data, size_t len,
                            const char *name, viv__tfbundle **out, viv_error *error) {
  viv__tfbundle *t;
  int32_t status = begin(name, &t, error);
  viv__map map = {.data = index, .len = index_len};
  if (status >= 0 && !(t->maps = viv__calloc(1, sizeof *t->maps))) status = no_memory(t, error);
  if (status >= 0) {
    t->maps[0] = (viv__map){.data = len ? data : (const void *)"", .len = len};
    status = read_index(t, &map, error);
  }
  return end(t, status, out);
}

void viv__tfbundle_close(viv__tfbundle *t) {
  if (!t) return;
  viv__names_free(&t->table);
  for (int32_t i = 0; t->maps && t->prefix && i < t->shards; i++) viv__map_close(&t->maps[i]);
  viv__free(t->maps);
  viv__free(t->prefix);
  viv__free(t->names);
  viv__free(t->tensors);
  viv__arena_free(t->memory);
  viv__free(t->file);
  viv__free(t);
}

int64_t viv__tfbundle_count(const viv__tfbundle *t) {
  return t->count;
}

int32_t viv__tfbundle_at(const viv__tfbundle *t, int64_t index, viv_str *name, viv_tensor *out) {
  if (index < 0 || index >= t->count) return VIV_NEVER;
  if (name) *name = t->names[index];
  if (out) *out = t->tensors[index];
  return VIV_OK;
}

const viv__map *viv__tfbundle_map(const viv__tfbundle *t) {
  return &t->maps[0];
}
