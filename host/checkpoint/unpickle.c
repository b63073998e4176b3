/* The pickle machine: opcodes of protocols 2 to 5, as far as checkpoints use them. */
#include "checkpoint/unpickle.h"

#include <inttypes.h>
#include <string.h>

#include "checkpoint/files.h"

enum {
  MAX_STACK = 1 << 20,
  MAX_MEMO = 1 << 22,
  MAX_OBJECTS = 1 << 22,
  MAX_ITEMS = 1 << 24, /* of one container */
  MAX_KEY = 256,       /* bytes of a storage's key */
  MAX_DEPTH = 256,     /* containers in containers */
  MAX_LONG = 255       /* bytes of an integer */
};

static const char *place(viv__unpickler *u) {
  return viv__place(u->where, u->file, "%sbyte %zu", u->what, u->at);
}
#define BAD(u, ...) VIV_FAIL((u)->error, VIV_BAD_INPUT, place(u), __VA_ARGS__)

/* ---- values ---- */

static int32_t no_memory(viv__unpickler *u) {
  return VIV_FAIL(u->error, VIV_NOT_NOW, place(u), "no memory for the file's objects");
}

static void *room(viv__unpickler *u, uint64_t bytes) {
  void *p = viv__arena_alloc(u->arena, bytes);
  if (!p) no_memory(u);
  return p;
}

/* A new value, NULL with the error filled. */
static viv__pk *value(viv__unpickler *u, int kind, int32_t *status) {
  if (u->objects >= MAX_OBJECTS) {
    *status = BAD(u, "the file makes more than %d objects", MAX_OBJECTS);
    return NULL;
  }
  viv__pk *v = room(u, sizeof *v);
  if (!v) {
    *status = VIV_NOT_NOW;
    return NULL;
  }
  u->objects++;
  v->kind = (uint8_t)kind;
  return v;
}

static int32_t push(viv__unpickler *u, viv__pk *v) {
  if (u->stack_len == u->stack_cap) {
    if (u->stack_len >= MAX_STACK) return BAD(u, "the stack is deeper than %d values", MAX_STACK);
    size_t cap = u->stack_cap ? u->stack_cap * 2 : 256;
    viv__pk **grown = viv__realloc(u->stack, cap * sizeof *grown);
    if (!grown) return no_memory(u);
    u->stack = grown;
    u->stack_cap = cap;
  }
  u->stack[u->stack_len++] = v;
  return VIV_OK;
}

static int32_t push_new(viv__unpickler *u, int kind, viv__pk **out) {
  int32_t status = VIV_OK;
  viv__pk *v = value(u, kind, &status);
  if (!v) return status;
  if (out) *out = v;
  return push(u, v);
}

/* The top value, taken off; a mark is not a value. */
static int32_t pop(viv__unpickler *u, viv__pk **out) {
  if (!u->stack_len) return BAD(u, "the pickle takes a value from an empty stack");
  if (u->stack[u->stack_len - 1]->kind == VIV__PK_MARK)
    return BAD(u, "the pickle takes a mark for a value");
  *out = u->stack[--u->stack_len];
  return VIV_OK;
}

/* The values above the topmost mark, which are taken off together with it. They stay readable until
 * the next push. */
static int32_t pop_to_mark(viv__unpickler *u, viv__pk ***items, uint32_t *n) {
  size_t i = u->stack_len;
  while (i && u->stack[i - 1]->kind != VIV__PK_MARK) i--;
  if (!i) return BAD(u, "the pickle refers to a mark that is not there");
  *items = u->stack + i;
  *n = (uint32_t)(u->stack_len - i);
  u->stack_len = i - 1;
  return VIV_OK;
}

/* Appends n items. A container's depth follows its items', so that nothing nests without bound. */
static int32_t append(viv__unpickler *u, viv__pk *c, viv__pk *const *items, uint32_t n) {
  if (n > MAX_ITEMS - c->as.list.count)
    return BAD(u, "a container holds more than %d items", MAX_ITEMS);
  uint32_t need = c->as.list.count + n;
  if (need > c->as.list.cap) {
    uint32_t cap = c->as.list.cap ? c->as.list.cap * 2 : n;
    if (cap < need) cap = need;
    viv__pk **grown = room(u, (uint64_t)cap * sizeof *grown);
    if (!grown) return VIV_NOT_NOW;
    if (c->as.list.count) memcpy(grown, c->as.list.items, c->as.list.count * sizeof *grown);
    c->as.list.items = grown;
    c->as.list.cap = cap;
  }
  for (uint32_t i = 0; i < n; i++) {
    if (items[i]->depth + 1 > c->depth && items[i] != c) c->depth = items[i]->depth + 1;
    c->as.list.items[c->as.list.count++] = items[i];
    /* Dicts grow by whole pairs. Counted here, since a dict that is referred to a million times
     * must not be searched a million times. */
    if (c->kind == VIV__PK_DICT && i % 2)
      c->tensors += items[i]->kind == VIV__PK_TENSOR && viv__pk_is_text(items[i - 1]);
  }
  if (c->depth > MAX_DEPTH) return BAD(u, "the objects nest deeper than %d levels", MAX_DEPTH);
  return VIV_OK;
}

static int32_t make_tuple(viv__unpickler *u, viv__pk *const *items, uint32_t n) {
  int32_t status = VIV_OK;
  viv__pk *t = value(u, VIV__PK_TUPLE, &status);
  if (!t) return status;
  if (n && (status = append(u, t, items, n)) < 0) return status;
  return push(u, t);
}

/* ---- names that a file may ask for ---- */

enum what {
  ORDERED_DICT,
  COUNTER,
  TENSOR_V2,
  TENSOR_V3,
  PARAMETER,
  PARAMETER_WITH_STATE,
  SIZE,
  STORAGE,
  DTYPE
};

typedef struct global {
  const char *module, *name;
  int32_t what, dtype; /* dtype 0 of a storage: it must not be used as one */
} global;

static const global globals[] = {
    {"collections", "OrderedDict", ORDERED_DICT, 0},
    /* The milestones of a learning rate's schedule, beside the weights. */
    {"collections", "Counter", COUNTER, 0},
    /* "args", beside the weights of research code: a mapping of names to plain values. */
    {"argparse", "Namespace", ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR_V2, 0},
    {"torch._utils", "_rebuild_tensor_v3", TENSOR_V3, 0},
    {"torch._utils", "_rebuild_parameter", PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", PARAMETER_WITH_STATE, 0},
    {"torch", "Size", SIZE, 0},
    {"torch", "FloatStorage", STORAGE, VIV_F32},
    {"torch", "DoubleStorage", STORAGE, VIV_F64},
    {"torch", "HalfStorage", STORAGE, VIV_F16},
    {"torch", "BFloat16Storage", STORAGE, VIV_BF16},
    {"torch", "LongStorage", STORAGE, VIV_I64},
    {"torch", "IntStorage", STORAGE, VIV_I32},
    {"torch", "ShortStorage", STORAGE, VIV_I16},
    {"torch", "CharStorage", STORAGE, VIV_I8},
    {"torch", "ByteStorage", STORAGE, VIV_U8},
    {"torch", "BoolStorage", STORAGE, VIV_BOOL},
    {"torch", "UntypedStorage", STORAGE, VIV_U8},
    {"torch.storage", "UntypedStorage", STORAGE, VIV_U8},
    {"torch.storage", "_UntypedStorage", STORAGE, VIV_U8},
    {"torch.storage", "TypedStorage", STORAGE, 0},
    {"torch.storage", "_TypedStorage", STORAGE, 0},
    {"torch", "float32", DTYPE, VIV_F32},
    {"torch", "float64", DTYPE, VIV_F64},
    {"torch", "float16", DTYPE, VIV_F16},
    {"torch", "bfloat16", DTYPE, VIV_BF16},
    {"torch", "int64", DTYPE, VIV_I64},
    {"torch", "int32", DTYPE, VIV_I32},
    {"torch", "int16", DTYPE, VIV_I16},
    {"torch", "int8", DTYPE, VIV_I8},
    {"torch", "uint8", DTYPE, VIV_U8},
    {"torch", "bool", DTYPE, VIV_BOOL},
};

static int32_t push_global(viv__unpickler *u, viv_str module, viv_str name) {
  for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
    if (!viv__str_eq(module, globals[i].module) || !viv__str_eq(name, globals[i].name)) continue;
    viv__pk *v = NULL;
    int32_t status = push_new(u, VIV__PK_GLOBAL, &v);
    if (status >= 0) v->as.global = &globals[i];
    return status;
  }
  char a[VIV__SHOWN], b[VIV__SHOWN];
  return BAD(
      u,
      "the file asks for %s.%s: refused. Only tensors and plain containers are read; save the "
      "weights again with torch.save(model.state_dict(), ...) or as safetensors",
      viv__shown(a, module), viv__shown(b, name));
}

static const global *as_global(const viv__pk *v, int32_t what) {
  const global *g = v->kind == VIV__PK_GLOBAL ? v->as.global : NULL;
  return g && g->what == what ? g : NULL;
}

/* ("storage", type, key, device, numel) and, in the older form, the view that this storage is of
 * another one: only None is known to occur there. */
static int32_t persistent(viv__unpickler *u) {
  viv__pk *id = NULL;
  int32_t status = pop(u, &id);
  if (status < 0) return status;
  viv__pk **item = id->as.list.items;
  if (id->kind != VIV__PK_TUPLE || id->as.list.count < 5 || id->as.list.count > 6 ||
      !viv__pk_is_text(item[0]) || !viv__str_eq(item[0]->as.text, "storage"))
    return BAD(u, "a persistent id that does not describe a storage");
  const global *type = as_global(item[1], STORAGE);
  if (!type || !type->dtype) return BAD(u, "a storage without an element type");
  if (!viv__pk_is_text(item[2])) return BAD(u, "a storage whose key is not text");
  char key[VIV__SHOWN];
  viv__shown(key, item[2]->as.text);
  if (item[2]->as.text.len > MAX_KEY) return BAD(u, "the key of storage '%s' is too long", key);
  if (item[4]->kind != VIV__PK_INT || item[4]->as.integer < 0)
    return BAD(u, "the size of storage '%s' is not a whole number", key);
  if (id->as.list.count == 6 && item[5]->kind != VIV__PK_NONE)
    return BAD(u, "storage '%s' is a view of another storage: this old form can't be read", key);
  uint64_t numel = (uint64_t)item[4]->as.integer, bytes;
  if (__builtin_mul_overflow(numel, (uint64_t)viv__dtype_size(type->dtype), &bytes) ||
      bytes > INT64_MAX)
    return BAD(u, "the size of storage '%s' overflows 63 bits", key);
  viv__pk *v = NULL;
  if ((status = push_new(u, VIV__PK_STORAGE, &v)) < 0) return status;
  viv__pk_storage *s = room(u, sizeof *s);
  if (!s) return VIV_NOT_NOW;
  *s = (viv__pk_storage){
      .key = item[2]->as.text, .dtype = type->dtype, .numel = numel, .bytes = bytes};
  v->as.storage = s;
  if (u->storage_count == u->storage_cap) {
    size_t cap = u->storage_cap ? u->storage_cap * 2 : 64;
    viv__pk_storage **grown = viv__realloc(u->storages, cap * sizeof *grown);
    if (!grown) return no_memory(u);
    u->storages = grown;
    u->storage_cap = cap;
  }
  u->storages[u->storage_count++] = s;
  return VIV_OK;
}

/* Up to VIV_MAX_DIMS whole numbers; -1 with the error filled otherwise. */
static int32_t numbers(viv__unpickler *u, const viv__pk *v, const char *what, int64_t *out) {
  if (v->kind != VIV__PK_TUPLE && v->kind != VIV__PK_LIST)
    return BAD(u, "a tensor's %s is not a tuple", what);
  if (v->as.list.count > VIV_MAX_DIMS)
    return BAD(u, "a tensor of %u dimensions; up to %d can be read", v->as.list.count,
               VIV_MAX_DIMS);
  for (uint32_t i = 0; i < v->as.list.count; i++) {
    const viv__pk *n = v->as.list.items[i];
    if (n->kind != VIV__PK_INT)
      return BAD(u, "a tensor's %s holds something else than numbers", what);
    if (n->as.integer < 0) return BAD(u, "a tensor's %s holds a negative number", what);
    out[i] = n->as.integer;
  }
  return (int32_t)v->as.list.count;
}

/* The view must lie inside its storage: offset + sum of (dim - 1) * stride, in elements. */
static int32_t check_view(viv__unpickler *u, viv__pk_tensor *t) {
  uint64_t size = viv__dtype_size(t->dtype), bytes = size, last = t->offset;
  char key[VIV__SHOWN];
  viv__shown(key, t->storage->key);
  bool empty = false, over = false;
  for (int32_t i = 0; i < t->ndim; i++) empty |= t->shape[i] == 0;
  t->count = empty ? 0 : 1;
  if (empty) return VIV_OK;
  for (int32_t i = 0; i < t->ndim; i++) {
    uint64_t reach;
    over |= __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes);
    over |= __builtin_mul_overflow((uint64_t)t->shape[i] - 1, (uint64_t)t->stride[i], &reach);
    over |= __builtin_add_overflow(last, reach, &last);
  }
  if (over || bytes > INT64_MAX)
    return BAD(u, "the shape or the strides of a view of storage '%s' overflow", key);
  t->count = bytes / size;
  if (last >= t->storage->bytes / size)
    return BAD(u, "a tensor reaches element %" PRIu64 " of storage '%s', which has %" PRIu64, last,
               key, t->storage->bytes / size);
  return VIV_OK;
}

/* (storage, offset, size, stride, requires_grad, hooks[, metadata]); version 3 has the dtype as its
 * seventh. */
static int32_t rebuild_tensor(viv__unpickler *u, const viv__pk *args, bool version3) {
  uint32_t n = args->as.list.count;
  viv__pk **item = args->as.list.items;
  if (n < (version3 ? 7 : 6) || item[0]->kind != VIV__PK_STORAGE)
    return BAD(u, "a tensor without a storage, offset, size and stride");
  if (item[1]->kind != VIV__PK_INT || item[1]->as.integer < 0)
    return BAD(u, "a tensor's offset is not a whole number");
  viv__pk_tensor t = {.storage = item[0]->as.storage, .offset = (uint64_t)item[1]->as.integer};
  t.dtype = t.storage->dtype;
  if (version3) {
    const global *dtype = as_global(item[6], DTYPE);
    if (!dtype) return BAD(u, "a tensor's dtype is missing");
    t.dtype = dtype->dtype;
  }
  t.ndim = numbers(u, item[2], "size", t.shape);
  if (t.ndim < 0) return t.ndim;
  int32_t strides = numbers(u, item[3], "stride", t.stride);
  if (strides < 0) return strides;
  if (strides != t.ndim)
    return BAD(u, "a tensor has %d dimensions and %d strides", t.ndim, strides);
  int32_t status = check_view(u, &t);
  if (status < 0) return status;
  viv__pk *v = NULL;
  if ((status = push_new(u, VIV__PK_TENSOR, &v)) < 0) return status;
  v->as.tensor = room(u, sizeof t);
  if (!v->as.tensor) return VIV_NOT_NOW;
  *v->as.tensor = t;
  return VIV_OK;
}

/* OrderedDict() or OrderedDict([(key, value), ...]). */
static int32_t ordered_dict(viv__unpickler *u, const viv__pk *args) {
  int32_t status = VIV_OK;
  viv__pk *d = value(u, VIV__PK_DICT, &status);
  if (!d) return status;
  const viv__pk *pairs = args->as.list.count ? args->as.list.items[0] : NULL;
  if (args->as.list.count > 1 || (pairs && pairs->kind != VIV__PK_LIST))
    return BAD(u, "an OrderedDict of something else than a list of pairs");
  for (uint32_t i = 0; pairs && i < pairs->as.list.count; i++) {
    const viv__pk *pair = pairs->as.list.items[i];
    if ((pair->kind != VIV__PK_TUPLE && pair->kind != VIV__PK_LIST) || pair->as.list.count != 2)
      return BAD(u, "an OrderedDict of something else than pairs");
    if ((status = append(u, d, pair->as.list.items, 2)) < 0) return status;
  }
  return push(u, d);
}

/* Calls the function below the arguments: REDUCE and NEWOBJ. */
static int32_t call(viv__unpickler *u) {
  viv__pk *args = NULL, *function = NULL;
  int32_t status = pop(u, &args);
  if (status < 0 || (status = pop(u, &function)) < 0) return status;
  if (function->kind != VIV__PK_GLOBAL)
    return BAD(u, "the pickle calls something that is no function");
  if (args->kind != VIV__PK_TUPLE) return BAD(u, "the pickle calls a function without arguments");
  const global *g = function->as.global;
  switch (g->what) {
  case ORDERED_DICT:
    return ordered_dict(u, args);
  case COUNTER:
    if (args->as.list.count != 1 || args->as.list.items[0]->kind != VIV__PK_DICT)
      return BAD(u, "a Counter of something else than one dict");
    return push(u, args->as.list.items[0]);
  case TENSOR_V2:
    return rebuild_tensor(u, args, false);
  case TENSOR_V3:
    return rebuild_tensor(u, args, true);
  case PARAMETER:
  case PARAMETER_WITH_STATE:
    if (!args->as.list.count || args->as.list.items[0]->kind != VIV__PK_TENSOR)
      return BAD(u, "a parameter without its tensor");
    return push(u, args->as.list.items[0]);
  case SIZE:
    if (args->as.list.count != 1 || (args->as.list.items[0]->kind != VIV__PK_TUPLE &&
                                     args->as.list.items[0]->kind != VIV__PK_LIST))
      return BAD(u, "a torch.Size of something else than one tuple");
    return push(u, args->as.list.items[0]);
  default:
    return BAD(u, "the file calls %s.%s, which is no function", g->module, g->name);
  }
}

/* ---- opcodes ---- */

/* The next n bytes, NULL with the error filled. */
static const uint8_t *take(viv__unpickler *u, uint64_t n) {
  if (n > u->len - u->at) {
    BAD(u, "the pickle ends where %" PRIu64 " more bytes are expected", n);
    return NULL;
  }
  const uint8_t *p = u->data + u->at;
  u->at += (size_t)n;
  return p;
}

/* A little-endian number of that many bytes. */
static bool number(viv__unpickler *u, int bytes, uint64_t *out) {
  const uint8_t *p = take(u, (uint64_t)bytes);
  if (!p) return false;
  *out = 0;
  for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | p[i];
  return true;
}

static int32_t push_int(viv__unpickler *u, int64_t n) {
  viv__pk *v = NULL;
  int32_t status = push_new(u, VIV__PK_INT, &v);
  if (status >= 0) v->as.integer = n;
  return status;
}

/* A text or byte string after a length of that many bytes. */
static int32_t push_text(viv__unpickler *u, int kind, int length_bytes) {
  uint64_t n;
  if (!number(u, length_bytes, &n)) return VIV_BAD_INPUT;
  const uint8_t *p = take(u, n);
  if (!p) return VIV_BAD_INPUT;
  viv__pk *v = NULL;
  int32_t status = push_new(u, kind, &v);
  if (status >= 0) v->as.text = (viv_str){(const char *)p, n};
  return status;
}

/* A two's complement integer of any length. */
static int32_t push_long(viv__unpickler *u, int length_bytes) {
  uint64_t n;
  if (!number(u, length_bytes, &n)) return VIV_BAD_INPUT;
  if (n > MAX_LONG) return BAD(u, "an integer of %" PRIu64 " bytes", n);
  const uint8_t *p = take(u, n);
  if (!p) return VIV_BAD_INPUT;
  if (n <= 8) {
    uint64_t value = n && p[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (int i = (int)n - 1; i >= 0; i--) value = value << 8 | p[i];
    return push_int(u, (int64_t)value);
  }
  viv__pk *v = NULL;
  int32_t status = push_new(u, VIV__PK_LONG, &v);
  if (status >= 0) v->as.text = (viv_str){(const char *)p, n};
  return status;
}

static int32_t memo_put(viv__unpickler *u, uint64_t index) {
  if (index >= MAX_MEMO) return BAD(u, "the memo index %" PRIu64 " is above %d", index, MAX_MEMO);
  if (!u->stack_len || u->stack[u->stack_len - 1]->kind == VIV__PK_MARK)
    return BAD(u, "the pickle memorises a value that is not there");
  if (index >= u->memo_cap) {
    size_t cap = u->memo_cap ? u->memo_cap : 256;
    while (cap <= index) cap *= 2;
    viv__pk **grown = viv__realloc(u->memo, cap * sizeof *grown);
    if (!grown) return no_memory(u);
    memset(grown + u->memo_cap, 0, (cap - u->memo_cap) * sizeof *grown);
    u->memo = grown;
    u->memo_cap = cap;
  }
  u->memo[index] = u->stack[u->stack_len - 1];
  return VIV_OK;
}

static int32_t memo_get(viv__unpickler *u, uint64_t index) {
  if (index >= u->memo_cap || !u->memo[index])
    return BAD(u, "the pickle refers to memo %" PRIu64 ", which is not set", index);
  return push(u, u->memo[index]);
}

/* A name that ends with a newline, for GLOBAL. */
static bool line(viv__unpickler *u, viv_str *out) {
  enum { MAX_LINE = 1024 };
  size_t left = u->len - u->at, n = left < MAX_LINE ? left : MAX_LINE;
  const uint8_t *p = u->data + u->at, *end = n ? memchr(p, '\n', n) : NULL;
  if (!end) {
    BAD(u, "a module or function name without an end");
    return false;
  }
  *out = (viv_str){(const char *)p, (uint64_t)(end - p)};
  u->at += (size_t)(end - p) + 1;
  return true;
}

/* The container below n items, or below the mark's items. */
static int32_t extend(viv__unpickler *u, int kind, viv__pk *const *items, uint32_t n) {
  if (!u->stack_len || u->stack[u->stack_len - 1]->kind != kind)
    return BAD(u, "the pickle adds to something that is no %s",
               kind == VIV__PK_LIST ? "list" : "dict");
  if (kind == VIV__PK_DICT && n % 2) return BAD(u, "a dict's last key has no value");
  return append(u, u->stack[u->stack_len - 1], items, n);
}

/* What Python's documentation calls the opcodes: 'x' or \x80. */
enum opcode {
  MARK = '(',
  STOP = '.',
  POP = '0',
  POP_MARK = '1',
  DUP = '2',
  BINFLOAT = 'G',
  BININT = 'J',
  BININT1 = 'K',
  BININT2 = 'M',
  NONE = 'N',
  BINPERSID = 'Q',
  REDUCE = 'R',
  BINSTRING = 'T',
  SHORT_BINSTRING = 'U',
  BINUNICODE = 'X',
  APPEND = 'a',
  BUILD = 'b',
  GLOBAL = 'c',
  DICT = 'd',
  EMPTY_DICT = '}',
  APPENDS = 'e',
  BINGET = 'h',
  LONG_BINGET = 'j',
  LIST = 'l',
  EMPTY_LIST = ']',
  BINPUT = 'q',
  LONG_BINPUT = 'r',
  SETITEM = 's',
  TUPLE = 't',
  EMPTY_TUPLE = ')',
  SETITEMS = 'u',
  BINBYTES = 'B',
  SHORT_BINBYTES = 'C',
  PROTO = 0x80,
  NEWOBJ = 0x81,
  TUPLE1 = 0x85,
  TUPLE2 = 0x86,
  TUPLE3 = 0x87,
  NEWTRUE = 0x88,
  NEWFALSE = 0x89,
  LONG1 = 0x8a,
  LONG4 = 0x8b,
  SHORT_BINUNICODE = 0x8c,
  BINUNICODE8 = 0x8d,
  BINBYTES8 = 0x8e,
  STACK_GLOBAL = 0x93,
  MEMOIZE = 0x94,
  FRAME = 0x95
};

/* One opcode. memoized counts MEMOIZE's indices. */
static int32_t step(viv__unpickler *u, uint8_t op, uint64_t *memoized) {
  viv__pk *v = NULL, *w = NULL, **items = NULL;
  uint64_t n = 0;
  uint32_t count = 0;
  int32_t status = VIV_OK;
  switch (op) {
  case PROTO:
    if (!number(u, 1, &n)) return VIV_BAD_INPUT;
    return n < 2 || n > 5 ? BAD(u, "pickle protocol %" PRIu64 "; 2 to 5 can be read", n) : VIV_OK;
  case FRAME:
    if (!number(u, 8, &n)) return VIV_BAD_INPUT;
    return n > u->len - u->at ? BAD(u, "a frame of %" PRIu64 " bytes runs over the end", n)
                              : VIV_OK;

  case MARK:
    return push_new(u, VIV__PK_MARK, NULL);
  case NONE:
    return push_new(u, VIV__PK_NONE, NULL);
  case NEWTRUE:
  case NEWFALSE:
    if ((status = push_new(u, VIV__PK_BOOL, &v)) >= 0) v->as.integer = op == NEWTRUE;
    return status;
  case BININT:
    return number(u, 4, &n) ? push_int(u, (int32_t)(uint32_t)n) : VIV_BAD_INPUT;
  case BININT1:
    return number(u, 1, &n) ? push_int(u, (int64_t)n) : VIV_BAD_INPUT;
  case BININT2:
    return number(u, 2, &n) ? push_int(u, (int64_t)n) : VIV_BAD_INPUT;
  case LONG1:
    return push_long(u, 1);
  case LONG4:
    return push_long(u, 4);
  case BINFLOAT: /* big-endian, alone among all */
    if (!number(u, 8, &n)) return VIV_BAD_INPUT;
    if ((status = push_new(u, VIV__PK_FLOAT, &v)) < 0) return status;
    n = __builtin_bswap64(n);
    memcpy(&v->as.real, &n, sizeof n);
    return VIV_OK;
  case SHORT_BINSTRING:
    return push_text(u, VIV__PK_BYTES, 1);
  case BINSTRING:
    return push_text(u, VIV__PK_BYTES, 4);
  case SHORT_BINBYTES:
    return push_text(u, VIV__PK_BYTES, 1);
  case BINBYTES:
    return push_text(u, VIV__PK_BYTES, 4);
  case BINBYTES8:
    return push_text(u, VIV__PK_BYTES, 8);
  case SHORT_BINUNICODE:
    return push_text(u, VIV__PK_STR, 1);
  case BINUNICODE:
    return push_text(u, VIV__PK_STR, 4);
  case BINUNICODE8:
    return push_text(u, VIV__PK_STR, 8);

  case POP: /* a mark may be popped, too */
    if (!u->stack_len) return BAD(u, "the pickle takes a value from an empty stack");
    u->stack_len--;
    return VIV_OK;
  case POP_MARK:
    return pop_to_mark(u, &items, &count);
  case DUP:
    if ((status = pop(u, &v)) < 0 || (status = push(u, v)) < 0) return status;
    return push(u, v);
  case BINPUT:
    return number(u, 1, &n) ? memo_put(u, n) : VIV_BAD_INPUT;
  case LONG_BINPUT:
    return number(u, 4, &n) ? memo_put(u, n) : VIV_BAD_INPUT;
  case MEMOIZE:
    return memo_put(u, (*memoized)++);
  case BINGET:
    return number(u, 1, &n) ? memo_get(u, n) : VIV_BAD_INPUT;
  case LONG_BINGET:
    return number(u, 4, &n) ? memo_get(u, n) : VIV_BAD_INPUT;

  case EMPTY_TUPLE:
    return make_tuple(u, NULL, 0);
  case TUPLE1:
  case TUPLE2:
  case TUPLE3: {
    viv__pk *three[3];
    count = (uint32_t)(op - TUPLE1 + 1);
    for (uint32_t i = count; i--;)
      if ((status = pop(u, &three[i])) < 0) return status;
    return make_tuple(u, three, count);
  }
  case TUPLE:
    if ((status = pop_to_mark(u, &items, &count)) < 0) return status;
    return make_tuple(u, items, count);
  case EMPTY_LIST:
    return push_new(u, VIV__PK_LIST, NULL);
  case EMPTY_DICT:
    return push_new(u, VIV__PK_DICT, NULL);
  case LIST:
  case DICT:
    if ((status = pop_to_mark(u, &items, &count)) < 0) return status;
    if (op == DICT && count % 2) return BAD(u, "a dict's last key has no value");
    if (!(v = value(u, op == LIST ? VIV__PK_LIST : VIV__PK_DICT, &status))) return status;
    if (count && (status = append(u, v, items, count)) < 0) return status;
    return push(u, v);
  case APPEND:
    if ((status = pop(u, &v)) < 0) return status;
    return extend(u, VIV__PK_LIST, &v, 1);
  case APPENDS:
    if ((status = pop_to_mark(u, &items, &count)) < 0) return status;
    return extend(u, VIV__PK_LIST, items, count);
  case SETITEM: {
    viv__pk *pair[2];
    if ((status = pop(u, &pair[1])) < 0 || (status = pop(u, &pair[0])) < 0) return status;
    return extend(u, VIV__PK_DICT, pair, 2);
  }
  case SETITEMS:
    if ((status = pop_to_mark(u, &items, &count)) < 0) return status;
    return extend(u, VIV__PK_DICT, items, count);

  case GLOBAL: {
    viv_str module, name;
    if (!line(u, &module) || !line(u, &name)) return VIV_BAD_INPUT;
    return push_global(u, module, name);
  }
  case STACK_GLOBAL:
    if ((status = pop(u, &v)) < 0 || (status = pop(u, &w)) < 0) return status;
    if (!viv__pk_is_text(v) || !viv__pk_is_text(w))
      return BAD(u, "the file asks for a name that is no text");
    return push_global(u, w->as.text, v->as.text);
  case REDUCE:
  case NEWOBJ:
    return call(u);
  case BINPERSID:
    return persistent(u);
  case BUILD: /* an OrderedDict's attributes, such as _metadata: no part of the weights */
    if ((status = pop(u, &v)) < 0) return status;
    if (!u->stack_len || u->stack[u->stack_len - 1]->kind != VIV__PK_DICT)
      return BAD(u, "the file sets the state of an object: refused");
    return VIV_OK;
  default:
    return BAD(u, "the pickle holds opcode 0x%02x, which a checkpoint has no use for: refused", op);
  }
}

int32_t viv__unpickle(viv__unpickler *u, viv__pk **out) {
  uint64_t memoized = 0;
  int32_t status = VIV_OK;
  u->stack_len = 0;
  if (u->memo_cap) memset(u->memo, 0, u->memo_cap * sizeof *u->memo);
  while (u->at < u->len) {
    uint8_t op = u->data[u->at++];
    if (op == STOP) return pop(u, out);
    if ((status = step(u, op, &memoized)) < 0) return status;
  }
  return BAD(u, "the pickle ends without its STOP: the file is cut; download it again");
}

void viv__unpickler_free(viv__unpickler *u) {
  viv__free(u->stack);
  viv__free(u->memo);
  viv__free(u->storages);
  u->stack = u->memo = NULL;
  u->storages = NULL;
}
