/* A pickle machine that can build tensors, the containers that hold them, and nothing else.
 *
 * Python's pickle is a program: its GLOBAL opcode names any function and REDUCE calls it. Here the
 * names are a closed list, each with its own C code, and every other name refuses the file. Values
 * live in one arena; strings point into the input. Internal to host/checkpoint. */
#ifndef VIV_HOST_CHECKPOINT_UNPICKLE_H
#define VIV_HOST_CHECKPOINT_UNPICKLE_H

#include "base/base.h"

enum viv__pk_kind {
  VIV__PK_NONE,
  VIV__PK_MARK, /* on the stack only */
  VIV__PK_BOOL,
  VIV__PK_INT,
  VIV__PK_LONG, /* an integer beyond 64 bits, kept as its bytes */
  VIV__PK_FLOAT,
  VIV__PK_STR,
  VIV__PK_BYTES,
  VIV__PK_TUPLE,
  VIV__PK_LIST,
  VIV__PK_DICT,
  VIV__PK_GLOBAL,
  VIV__PK_STORAGE,
  VIV__PK_TENSOR
};

/* Named by the file, filled by whoever finds its bytes. */
typedef struct viv__pk_storage {
  viv_str key;
  int32_t dtype;
  uint64_t numel, bytes;
  const uint8_t *base; /* NULL: not found */
} viv__pk_storage;

/* offset and strides count elements. The view is checked to lie inside storage->bytes. */
typedef struct viv__pk_tensor {
  viv__pk_storage *storage;
  int32_t dtype, ndim;
  uint64_t offset, count; /* count: elements */
  int64_t shape[VIV_MAX_DIMS], stride[VIV_MAX_DIMS];
} viv__pk_tensor;

typedef struct viv__pk {
  uint8_t kind;
  uint16_t depth;   /* levels of containers below */
  uint32_t tensors; /* DICT: how many of its values are tensors under a name */
  union {
    int64_t integer; /* BOOL, INT */
    double real;
    viv_str text; /* STR, BYTES, LONG */
    struct {
      struct viv__pk **items; /* DICT: key, value, key, value, ... */
      uint32_t count, cap;
    } list; /* TUPLE, LIST, DICT */
    const void *global;
    viv__pk_storage *storage;
    viv__pk_tensor *tensor;
  } as;
} viv__pk;

/* A pickle's strings from Python 2 are bytes; both serve as text here. */
static inline bool viv__pk_is_text(const viv__pk *v) {
  return v->kind == VIV__PK_STR || v->kind == VIV__PK_BYTES;
}

/* data, len, file, what and arena are set by the caller; what stands before "byte N" in errors. */
typedef struct viv__unpickler {
  const uint8_t *data;
  size_t len, at;
  const char *file, *what;
  viv_arena *arena;
  viv_error *error;
  /* Every storage that a persistent id described, in the order of the file. */
  viv__pk_storage **storages;
  size_t storage_count, storage_cap;
  /* The machine's own. */
  size_t objects;
  viv__pk **stack, **memo;
  size_t stack_len, stack_cap, memo_cap;
  char where[208];
} viv__unpickler;

/* Runs one pickle from data + at, leaves at behind its STOP and its value in *out. */
int32_t viv__unpickle(viv__unpickler *u, viv__pk **out);
/* The members of a dict that are numbers, texts, lists and dicts of such, as a JSON object; numbers
 * that are keys become text. A member that holds anything else (tensors, bytes), nests deeper than 8
 * or is too large (all members together: 65536 values, 1 MiB of text) is left out. NULL: nothing is
 * left, or no memory (unpickle_json.c). */
viv_json *viv__pk_values(const viv__pk *dict);
/* Frees what is not in the arena. */
void viv__unpickler_free(viv__unpickler *u);

#endif
