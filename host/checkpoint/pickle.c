/* PyTorch files: what torch.save writes, in both of its forms.
 *
 *   zip     NAME/data.pkl, the pickle of the object, and NAME/data/KEY, the bytes of each storage;
 *   legacy  five pickles (magic number, protocol, machine, object, list of storage keys), then for
 *           each key an int64 count of elements and the bytes.
 *
 * Contiguous tensors are views of the mapping, which may lie at odd addresses; others are copied.
 * Tensors that share a storage (tied weights) share its bytes. */
#include "checkpoint/checkpoint.h"

#include <inttypes.h>
#include <string.h>

#include "checkpoint/files.h"
#include "checkpoint/unpickle.h"

enum {
  MAX_LISTED = 8,        /* keys that an error text lists */
  MAX_NAME = 4096,       /* bytes of a tensor's or part's name */
  MAX_TENSORS = 1 << 20, /* of a file */
  MAX_ITEMS = 1 << 24    /* of all parts together */
};
#define MAX_OBJECT_BYTES ((uint64_t)1 << 30) /* of the arena */
#define MAX_JOINED_BYTES ((uint64_t)64 << 20)
#define MIN_COPIES ((uint64_t)16 << 20)

struct viv__pickle {
  viv__map map;
  int64_t count;
  viv_str *names;      /* in the mapping, or in joined */
  viv_arena *joined;   /* names that were put together from two keys; often NULL */
  viv_tensor *tensors; /* data points into the mapping or into copies */
  void **copies;
  int64_t copy_count;
  uint64_t copied;  /* bytes */
  viv_json *values; /* what lies beside the tensors; often NULL */
};

static int32_t no_memory(viv_error *error, const char *file) {
  return VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the file");
}

/* ---- the zip form ---- */

static const uint8_t *zip_data(const viv__pickle *p, const viv__zip *z, viv_str prefix,
                               const char *name, viv_str key, uint64_t *size, bool *failed) {
  viv__buf full = {0};
  viv__buf_add(&full, prefix.ptr, (size_t)prefix.len);
  viv__buf_str(&full, name);
  viv__buf_add(&full, key.ptr, (size_t)key.len);
  int64_t at = full.failed ? -1 : viv__names_find(&z->table, (viv_str){full.ptr, full.len});
  *failed |= full.failed;
  viv__buf_free(&full);
  if (at < 0) return NULL;
  *size = z->entries[at].size;
  return p->map.data + z->entries[at].at;
}

/* The archive's folder: what stands before its one "data.pkl". */
static int32_t zip_prefix(const viv__zip *z, const char *file, viv_str *out, viv_error *error) {
  static const char pickle[] = "data.pkl";
  size_t n = sizeof pickle - 1;
  bool found = false;
  for (size_t i = 0; i < z->count; i++) {
    viv_str name = z->names[i];
    if (name.len < n || memcmp(name.ptr + name.len - n, pickle, n) != 0) continue;
    viv_str prefix = {name.ptr, name.len - n};
    const char *slash = prefix.len ? memchr(prefix.ptr, '/', prefix.len) : NULL;
    if (prefix.len && slash != prefix.ptr + prefix.len - 1) continue;
    if (found) return VIV_FAIL(error, VIV_BAD_INPUT, file, "the zip archive holds two data.pkl");
    found = true;
    *out = prefix;
  }
  if (found) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, file,
                  "the zip archive holds no data.pkl: it was not written by torch.save");
}

static int32_t zip_storages(viv__pickle *p, const viv__zip *z, viv_str prefix,
                            const viv__unpickler *u, const char *file, viv_error *error) {
  for (size_t i = 0; i < u->storage_count; i++) {
    viv__pk_storage *s = u->storages[i];
    bool failed = false;
    uint64_t size = 0;
    s->base = zip_data(p, z, prefix, "data/", s->key, &size, &failed);
    if (failed) return no_memory(error, file);
    /* A storage that no chosen tensor needs may be absent; resolve() reports the others. */
    if (!s->base || size >= s->bytes) continue;
    char where[VIV__PLACE], key[VIV__SHOWN];
    viv__place(where, file, "data/%s", viv__shown(key, s->key));
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the storage holds %" PRIu64 " bytes, data.pkl speaks of %" PRIu64, size,
                    s->bytes);
  }
  return VIV_OK;
}

static int32_t read_zip(viv__pickle *p, viv__unpickler *u, const char *file, viv__pk **top,
                        viv_error *error) {
  viv__zip z = {0};
  viv_str prefix = {NULL, 0}, none = {NULL, 0};
  int32_t status = viv__zip_open(&p->map, file, &z, error);
  if (status < 0) return status;
  bool failed = false;
  uint64_t size = 0, order_size = 0, constants = 0;
  const uint8_t *pickle = NULL, *order = NULL;
  if ((status = zip_prefix(&z, file, &prefix, error)) < 0) goto end;
  pickle = zip_data(p, &z, prefix, "data.pkl", none, &size, &failed);
  order = zip_data(p, &z, prefix, "byteorder", none, &order_size, &failed);
  if (zip_data(p, &z, prefix, "constants.pkl", none, &constants, &failed)) {
    status = VIV_FAIL(error, VIV_NEVER, file,
                      "this is a TorchScript archive, a program rather than weights; export its "
                      "state_dict with torch.save");
  } else if (failed || !pickle) {
    status = no_memory(error, file);
  } else if (order && (order_size != 6 || memcmp(order, "little", 6) != 0)) {
    status = VIV_FAIL(error, VIV_NEVER, file, "the file's byte order is not \"little\"");
  } else {
    u->data = pickle;
    u->len = (size_t)size;
    u->what = "data.pkl ";
    status = viv__unpickle(u, top);
    if (status >= 0) status = zip_storages(p, &z, prefix, u, file, error);
  }
end:
  viv__zip_close(&z);
  return status;
}

/* ---- the legacy form ---- */

/* What the storage of one key must be, by the persistent ids that speak of it. */
typedef struct block {
  uint64_t numel, bytes;
  bool known;
  const uint8_t *base;
} block;

static int32_t legacy_block(viv__unpickler *u, viv_str key, block *b) {
  char where[VIV__PLACE], shown[VIV__SHOWN];
  viv__place(where, u->file, "storage '%s', byte %zu", viv__shown(shown, key), u->at);
  if (!b->known)
    return VIV_FAIL(u->error, VIV_BAD_INPUT, where,
                    "no tensor says what this storage's elements are");
  if (u->len - u->at < 8)
    return VIV_FAIL(u->error, VIV_BAD_INPUT, where, "the file is cut before this storage");
  uint64_t numel = 0;
  for (int i = 7; i >= 0; i--) numel = numel << 8 | u->data[u->at + (size_t)i];
  u->at += 8;
  if (numel != b->numel)
    return VIV_FAIL(u->error, VIV_BAD_INPUT, where,
                    "the storage has %" PRIu64 " elements, the tensors speak of %" PRIu64, numel,
                    b->numel);
  if (b->bytes > u->len - u->at)
    return VIV_FAIL(u->error, VIV_BAD_INPUT, where,
                    "the storage needs %" PRIu64 " bytes, %zu are left: the file is cut; download "
                    "it again",
                    b->bytes, u->len - u->at);
  b->base = u->data + u->at;
  u->at += (size_t)b->bytes;
  return VIV_OK;
}

/* Finds each storage behind the pickles. keys is the list of keys in the order of the blocks. */
static int32_t legacy_blocks(viv__unpickler *u, const viv__pk *keys, viv_str *names,
                             block *blocks) {
  uint32_t n = keys->as.list.count;
  for (uint32_t i = 0; i < n; i++) {
    const viv__pk *key = keys->as.list.items[i];
    if (!viv__pk_is_text(key))
      return VIV_FAIL(u->error, VIV_BAD_INPUT, u->file, "a storage's key is not text");
    names[i] = key->as.text;
  }
  viv__names table;
  size_t twice = 0;
  int32_t status = viv__names_build(&table, names, n, &twice);
  if (status == VIV_NOT_NOW) return no_memory(u->error, u->file);
  char shown[VIV__SHOWN];
  if (status < 0)
    return VIV_FAIL(u->error, VIV_BAD_INPUT, u->file, "the storage '%s' is listed twice",
                    viv__shown(shown, names[twice]));
  for (size_t i = 0; i < u->storage_count && status >= 0; i++) {
    const viv__pk_storage *s = u->storages[i];
    int64_t at = viv__names_find(&table, s->key);
    if (at < 0) continue; /* resolve() reports it if a tensor needs it */
    block *b = &blocks[at];
    if (b->known && (b->numel != s->numel || b->bytes != s->bytes))
      status = VIV_FAIL(u->error, VIV_BAD_INPUT, u->file,
                        "the storage '%s' is described twice, with different sizes",
                        viv__shown(shown, s->key));
    *b = (block){.numel = s->numel, .bytes = s->bytes, .known = true};
  }
  for (uint32_t i = 0; i < n && status >= 0; i++) status = legacy_block(u, names[i], &blocks[i]);
  for (size_t i = 0; i < u->storage_count && status >= 0; i++) {
    int64_t at = viv__names_find(&table, u->storages[i]->key);
    if (at >= 0) u->storages[i]->base = blocks[at].base;
  }
  viv__names_free(&table);
  return status;
}

static const viv__pk *dict_get(const viv__pk *dict, const char *key);

static int32_t read_legacy(viv__pickle *p, viv__unpickler *u, viv__pk **top, viv_error *error) {
  static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  viv__pk *v = NULL;
  u->data = p->map.data;
  u->len = p->map.len;
  u->what = "";
  int32_t status = viv__unpickle(u, &v);
  if (status < 0) return status;
  if (v->kind != VIV__PK_LONG || v->as.text.len != sizeof magic ||
      memcmp(v->as.text.ptr, magic, sizeof magic) != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, u->file,
                    "a pickle, but not one of torch.save: its magic number is missing");
  if ((status = viv__unpickle(u, &v)) < 0) return status;
  if (v->kind != VIV__PK_INT || v->as.integer != 1001)
    return VIV_FAIL(error, VIV_NEVER, u->file, "the file's protocol is not 1001");
  if ((status = viv__unpickle(u, &v)) < 0) return status;
  const viv__pk *order = v->kind == VIV__PK_DICT ? dict_get(v, "little_endian") : NULL;
  if (order && (order->kind != VIV__PK_BOOL || !order->as.integer))
    return VIV_FAIL(error, VIV_NEVER, u->file, "the file's byte order is not little");
  if ((status = viv__unpickle(u, top)) < 0) return status;
  if ((status = viv__unpickle(u, &v)) < 0) return status;
  if (v->kind != VIV__PK_LIST)
    return VIV_FAIL(error, VIV_BAD_INPUT, u->file, "the list of storages is missing");
  uint32_t n = v->as.list.count;
  viv_str *names = viv__malloc(n * sizeof *names);
  block *blocks = viv__calloc(n, sizeof *blocks);
  status = names && blocks ? legacy_blocks(u, v, names, blocks) : no_memory(error, u->file);
  viv__free(names);
  viv__free(blocks);
  return status;
}

/* ---- the state dict ---- */

/* The last value of a key, as Python has it. */
static const viv__pk *dict_get(const viv__pk *dict, const char *key) {
  const viv__pk *found = NULL;
  for (uint32_t i = 0; i + 1 < dict->as.list.count; i += 2) {
    const viv__pk *k = dict->as.list.items[i];
    if (viv__pk_is_text(k) && viv__str_eq(k->as.text, key)) found = dict->as.list.items[i + 1];
  }
  return found;
}

static uint32_t tensors_in(const viv__pk *v) {
  return v && v->kind == VIV__PK_DICT ? v->tensors : 0;
}

/* The dict of tensors: the top one if it holds any, otherwise the first of the usual keys that
 * does. Failing both, *out is NULL: the top's keys are the model's parts, each a dict with tensors,
 * and names become "part.tensor". What else lies beside the tensors (an epoch, the state of an
 * optimizer) is left alone. */
static int32_t choose(const viv__pk *top, const char *file, const viv__pk **out, viv_error *error) {
  static const char *const usual[] = {"state_dict", "model_state_dict", "model",  "module",
                                      "params",     "params_ema",       "ema",    "model_ema",
                                      "net",        "network",          "weights"};
  if (top->kind == VIV__PK_TENSOR)
    return VIV_FAIL(
        error, VIV_BAD_INPUT, file,
        "the file holds one tensor without a name; a dict of names to tensors is expected");
  if (top->kind != VIV__PK_DICT)
    return VIV_FAIL(error, VIV_BAD_INPUT, file,
                    "the file does not hold a dict of names to tensors");
  if (tensors_in(top)) {
    *out = top;
    return VIV_OK;
  }
  for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
    const viv__pk *inner = dict_get(top, usual[i]);
    if (!tensors_in(inner)) continue;
    *out = inner;
    return VIV_OK;
  }
  for (uint32_t i = 0; i + 1 < top->as.list.count; i += 2) {
    if (!viv__pk_is_text(top->as.list.items[i]) || !tensors_in(top->as.list.items[i + 1])) continue;
    *out = NULL;
    return VIV_OK;
  }
  viv__buf keys = {0};
  uint32_t pairs = top->as.list.count / 2, shown_count = 0;
  for (uint32_t i = 0; i < pairs && shown_count < MAX_LISTED; i++, shown_count++) {
    const viv__pk *k = top->as.list.items[2 * i];
    char shown[VIV__SHOWN];
    viv__buf_fmt(&keys, "%s%s", i ? ", " : "",
                 viv__pk_is_text(k) ? viv__shown(shown, k->as.text) : "(not text)");
  }
  if (pairs > shown_count) viv__buf_fmt(&keys, " and %u more", pairs - shown_count);
  int32_t status =
      keys.failed ? no_memory(error, file)
                  : VIV_FAIL(error, VIV_BAD_INPUT, file,
                             "no tensors at the top of the file or under state_dict, model and the "
                             "like; its keys: %s",
                             keys.len ? keys.ptr : "none");
  viv__buf_free(&keys);
  return status;
}

/* Whether the view's elements lie in row-major order without gaps. Strides of dimensions of size 1
 * say nothing. */
static bool is_dense(const viv__pk_tensor *t) {
  int64_t expected = 1;
  if (!t->count) return true;
  for (int32_t i = t->ndim - 1; i >= 0; i--) {
    if (t->shape[i] != 1 && t->stride[i] != expected) return false;
    expected *= t->shape[i];
  }
  return true;
}

/* Gathers a strided view into dense rows. All positions were checked to lie in the storage. */
static void gather(const viv__pk_tensor *t, const uint8_t *base, uint8_t *out) {
  size_t size = viv__dtype_size(t->dtype);
  int64_t index[VIV_MAX_DIMS] = {0};
  uint64_t at = t->offset;
  for (uint64_t k = 0; k < t->count; k++) {
    memcpy(out + k * size, base + at * size, size);
    for (int32_t d = t->ndim - 1; d >= 0; d--) {
      at += (uint64_t)t->stride[d];
      if (++index[d] < t->shape[d]) break;
      at -= (uint64_t)t->shape[d] * (uint64_t)t->stride[d];
      index[d] = 0;
    }
  }
}

/* Turns a checked view of a storage into a tensor. A view that repeats elements (stride 0) could
 * ask for any amount of memory, so all copies together are bounded by the file's size. */
static int32_t resolve(viv__pickle *p, viv_str name, const viv__pk_tensor *t, const char *file,
                       viv_error *error) {
  char where[VIV__PLACE], shown[VIV__SHOWN], key[VIV__SHOWN];
  viv__place(where, file, "tensor '%s'", viv__shown(shown, name));
  uint64_t size = viv__dtype_size(t->dtype), bytes = t->count * size;
  const uint8_t *base = t->storage->base;
  if (!base)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "its storage '%s' is not in the file",
                    viv__shown(key, t->storage->key));
  viv_tensor *out = &p->tensors[p->count];
  *out = (viv_tensor){.struct_size = sizeof *out,
                      .flags = VIV_TENSOR_READ_ONLY,
                      .bytes = bytes,
                      .dtype = t->dtype,
                      .ndim = t->ndim};
  memcpy(out->shape, t->shape, sizeof t->shape);
  if (is_dense(t)) {
    out->data = (void *)(uintptr_t)(t->count ? base + t->offset * size : base);
  } else {
    if (bytes > 2 * (uint64_t)p->map.len + MIN_COPIES - p->copied)
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "a view of %" PRIu64 " bytes that repeats or reorders its storage; all such "
                      "copies may not exceed twice the file's size",
                      bytes);
    uint8_t *copy = viv__malloc((size_t)bytes);
    if (!copy) return VIV_FAIL(error, VIV_NOT_NOW, where, "no memory for %" PRIu64 " bytes", bytes);
    gather(t, base, copy);
    out->data = p->copies[p->copy_count++] = copy;
    p->copied += bytes;
  }
  p->names[p->count++] = name;
  return VIV_OK;
}

/* "part.name", or name itself when part is empty. An empty answer: no memory. */
static viv_str join(viv__pickle *p, viv_str part, viv_str name) {
  if (!part.len) return name;
  if (!p->joined) p->joined = viv__arena_new(MAX_JOINED_BYTES);
  uint64_t len = part.len + 1 + name.len;
  char *text = p->joined ? viv__arena_alloc(p->joined, len) : NULL;
  if (!text) return (viv_str){NULL, 0};
  memcpy(text, part.ptr, part.len);
  text[part.len] = '.';
  if (name.len) memcpy(text + part.len + 1, name.ptr, name.len);
  return (viv_str){text, len};
}

/* A name that a table of tensors can hold. */
static bool is_good(viv_str name) {
  return name.len && name.len <= MAX_NAME && !memchr(name.ptr, 0, name.len) &&
         viv__utf8_valid(name.ptr, name.len);
}

static int32_t take_dict(viv__pickle *p, viv_str part, const viv__pk *dict, const char *file,
                         viv_error *error) {
  for (uint32_t i = 0; i + 1 < dict->as.list.count; i += 2) {
    const viv__pk *k = dict->as.list.items[i], *v = dict->as.list.items[i + 1];
    if (!viv__pk_is_text(k) || v->kind != VIV__PK_TENSOR) continue;
    viv_str name = k->as.text;
    char shown[VIV__SHOWN];
    if (!is_good(name))
      return VIV_FAIL(error, VIV_BAD_INPUT, file,
                      "a tensor's name, '%s', is empty, too long, holds a NUL or is not UTF-8",
                      viv__shown(shown, name));
    name = join(p, part, name);
    if (!name.len)
      return VIV_FAIL(error, VIV_NOT_NOW, file,
                      "no memory for the tensors' names, or they exceed 64 MiB");
    int32_t status = resolve(p, name, v->as.tensor, file, error);
    if (status < 0) return status;
  }
  return VIV_OK;
}

/* Takes dict's tensors, or those of all parts of top when dict is NULL. */
static int32_t take_tensors(viv__pickle *p, const viv__pk *top, const viv__pk *dict,
                            const char *file, viv_error *error) {
  uint32_t parts = dict ? 0 : top->as.list.count;
  viv__pk **part = top->as.list.items;
  uint64_t n = dict ? tensors_in(dict) : 0, items = 0;
  for (uint32_t i = 0; i + 1 < parts; i += 2) {
    if (!viv__pk_is_text(part[i]) || !tensors_in(part[i + 1])) continue;
    n += tensors_in(part[i + 1]);
    items += part[i + 1]->as.list.count;
  }
  if (n > MAX_TENSORS || items > MAX_ITEMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, file,
                    "the file holds %" PRIu64 " tensors among %" PRIu64
                    " values; up to %d among %d can be read",
                    n, items, MAX_TENSORS, MAX_ITEMS);
  p->names = viv__calloc(n, sizeof *p->names);
  p->tensors = viv__calloc(n, sizeof *p->tensors);
  p->copies = viv__calloc(n, sizeof *p->copies);
  if (!p->names || !p->tensors || !p->copies) return no_memory(error, file);
  char shown[VIV__SHOWN];
  int32_t status = dict ? take_dict(p, (viv_str){NULL, 0}, dict, file, error) : VIV_OK;
  for (uint32_t i = 0; i + 1 < parts && status >= 0; i += 2) {
    viv_str name = part[i]->as.text; /* if it is text */
    if (!viv__pk_is_text(part[i]) || !tensors_in(part[i + 1])) continue;
    if (!is_good(name))
      return VIV_FAIL(error, VIV_BAD_INPUT, file,
                      "a part's name, '%s', is empty, too long, holds a NUL or is not UTF-8",
                      viv__shown(shown, name));
    status = take_dict(p, name, part[i + 1], file, error);
  }
  if (status < 0) return status;
  viv__names table;
  size_t twice = 0;
  status = viv__names_build(&table, p->names, (size_t)p->count, &twice);
  if (status == VIV_NOT_NOW) return no_memory(error, file);
  if (status < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, file, "two tensors are named '%s'",
                    viv__shown(shown, p->names[twice]));
  viv__names_free(&table);
  return VIV_OK;
}

/* ---- the doors ---- */

static int32_t parse(viv__pickle *p, const char *file, viv_error *error) {
  const uint8_t *data = p->map.data;
  size_t len = p->map.len;
  bool zip = len >= 4 && data[0] == 'P' && data[1] == 'K' &&
             ((data[2] == 3 && data[3] == 4) || (data[2] == 5 && data[3] == 6));
  if (!zip && len > 262 && !memcmp(data + 257, "ustar", 5))
    return VIV_FAIL(error, VIV_NEVER, file,
                    "a tar archive from before PyTorch 0.4: load and save it with a newer PyTorch");
  if (!zip && (!len || data[0] != 0x80))
    return VIV_FAIL(error, VIV_BAD_INPUT, file,
                    "neither a zip archive nor a pickle, the two forms that torch.save writes");
  viv__unpickler u = {.file = file, .error = error, .arena = viv__arena_new(MAX_OBJECT_BYTES)};
  if (!u.arena) return no_memory(error, file);
  viv__pk *top = NULL;
  const viv__pk *dict = NULL;
  int32_t status = zip ? read_zip(p, &u, file, &top, error) : read_legacy(p, &u, &top, error);
  if (status >= 0) status = choose(top, file, &dict, error);
  if (status >= 0) status = take_tensors(p, top, dict, file, error);
  if (status >= 0 && dict != top) p->values = viv__pk_values(top);
  viv__unpickler_free(&u);
  viv__arena_free(u.arena);
  return status;
}

static int32_t open_map(viv__map *map, const char *file, viv__pickle **out, viv_error *error) {
  viv__pickle *p = viv__calloc(1, sizeof *p);
  if (!p) {
    viv__map_close(map);
    return no_memory(error, file);
  }
  p->map = *map;
  int32_t status = parse(p, file, error);
  if (status < 0) {
    viv__pickle_close(p);
    return status;
  }
  *out = p;
  return VIV_OK;
}

int32_t viv__pickle_open(const char *path, viv__pickle **out, viv_error *error) {
  viv__map map;
  int32_t status = viv__map_open(path, &map, error);
  return status < 0 ? status : open_map(&map, path, out, error);
}

int32_t viv__pickle_parse(const void *data, size_t len, const char *name, viv__pickle **out,
                          viv_error *error) {
  viv__map map = {.data = len ? data : "", .len = len, .mapped = false};
  return open_map(&map, name, out, error);
}

void viv__pickle_close(viv__pickle *p) {
  if (!p) return;
  for (int64_t i = 0; i < p->copy_count; i++) viv__free(p->copies[i]);
  viv__free(p->copies);
  viv__free(p->tensors);
  viv__free(p->names);
  viv__arena_free(p->joined);
  viv__json_free(p->values);
  viv__map_close(&p->map);
  viv__free(p);
}

int64_t viv__pickle_count(const viv__pickle *p) {
  return p->count;
}

int32_t viv__pickle_at(const viv__pickle *p, int64_t index, viv_str *name, viv_tensor *out) {
  if (index < 0 || index >= p->count) return VIV_NEVER;
  if (name) *name = p->names[index];
  if (out) *out = p->tensors[index];
  return VIV_OK;
}

const viv_json *viv__pickle_values(const viv__pickle *p) {
  return p->values;
}

const viv__map *viv__pickle_map(const viv__pickle *p) {
  return &p->map;
}
