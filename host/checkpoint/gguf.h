/* What the files that read GGUF share. Internal to host/checkpoint.
 *
 *   gguf.c            header, metadata and tensor table, every field checked against the file's size
 *   gguf_names.c      tensor names to those of the official release
 *   gguf_config.c     metadata to what config.json would say
 *   gguf_tokenizer.c  metadata to what tokenizer.json and tokenizer_config.json would say */
#ifndef VIV_HOST_CHECKPOINT_GGUF_H
#define VIV_HOST_CHECKPOINT_GGUF_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/files.h"

enum viv__gguf_type {
  GGUF_U8 = 0,
  GGUF_I8 = 1,
  GGUF_U16 = 2,
  GGUF_I16 = 3,
  GGUF_U32 = 4,
  GGUF_I32 = 5,
  GGUF_F32 = 6,
  GGUF_BOOL = 7,
  GGUF_STRING = 8,
  GGUF_ARRAY = 9,
  GGUF_U64 = 10,
  GGUF_I64 = 11,
  GGUF_F64 = 12
};

/* One value of the metadata; all of it lies in the file. */
typedef struct viv__gguf_value {
  uint32_t type, item;  /* item: an array's element type */
  uint64_t count;       /* an array's elements; else 1 */
  const uint8_t *data;  /* the number, the string's length, the first element */
  const uint8_t *begin; /* where the value's type stands, for messages */
} viv__gguf_value;

typedef struct viv__gguf_tensor {
  const uint8_t *data;
  uint64_t bytes;
  int32_t dtype, ndim;
  int64_t shape[VIV_MAX_DIMS]; /* row-major: the file's dimensions from the last to the first */
} viv__gguf_tensor;

struct viv__gguf {
  viv__map map;
  char *file; /* for messages */
  int64_t key_count;
  viv_str *key_names;
  viv__gguf_value *values; /* [key_count] */
  viv__names keys;

  int64_t total; /* tensors of the file, of which the first count are served */
  int64_t count;
  viv_str *file_names; /* [total] as the file has them */
  viv_str *names;      /* [total] those of the official release */
  viv__gguf_tensor *tensors;
  viv__names file_table, table;
  viv_arena *made; /* names that are not the file's */

  char *config;
  size_t config_len;
};

/* NULL: there is no such key. */
const viv__gguf_value *viv__gguf_get(const viv__gguf *g, const char *key);
/* A scalar number of any type, or false. */
bool viv__gguf_number(const viv__gguf_value *v, double *out);
/* A string's bytes; ptr NULL when v is none. */
viv_str viv__gguf_string(const viv__gguf_value *v);
/* The next string of an array: *at is where it begins and moves behind it (data to begin with). */
viv_str viv__gguf_next_string(const uint8_t **at);
/* Element i of an array of numbers. */
double viv__gguf_item(const viv__gguf_value *v, uint64_t i);
/* "file: metadata key 'x', byte n" in where. */
const char *viv__gguf_place(char where[VIV__PLACE], const viv__gguf *g, const char *key);
/* A tensor by the name that the file gives it; NULL: none. */
const viv__gguf_tensor *viv__gguf_find_raw(const viv__gguf *g, const char *name);

/* gguf_names.c: fills names; tensors that the configuration speaks for (rotary factors) are put
 * behind the others, and count leaves them out. */
int32_t viv__gguf_rename(viv__gguf *g, viv_error *error);

/* gguf_config.c: writes config.json's text. VIV_NEVER: an architecture that is not known here. */
int32_t viv__gguf_config(const viv__gguf *g, viv__buf *out, viv_error *error);

/* gguf_tokenizer.c: tokenizer.json and tokenizer_config.json. VIV_NEVER: no tokenizer in the file,
 * or a kind that is not known here. */
int32_t viv__gguf_tokenizer(const viv__gguf *g, viv__buf *out, viv_error *error);
int32_t viv__gguf_tokenizer_config(const viv__gguf *g, viv__buf *out, viv_error *error);

#endif
