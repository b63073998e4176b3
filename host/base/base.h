/* What every part of the host stands on: errors, logs, arenas, JSON, small files. Internal. */
#ifndef VIV_HOST_BASE_H
#define VIV_HOST_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "vivarium/core.h"

/* The prefix of a growable struct that version 1 had, and a test for a field's presence. */
#define VIV_HAS(p, field)                                                                          \
  ((p)->struct_size >= offsetof(__typeof__(*(p)), field) + sizeof((p)->field))

/* ---- errors ---- */

/* Fills error (which may be NULL) and answers code. where names the input and the place in it, and
 * may be NULL. VIV_FAIL records the line that fails. */
int32_t viv__fail(viv_error *error, int32_t code, const char *source, int line, const char *where,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));
#define VIV_FAIL(error, code, where, ...)                                                          \
  viv__fail((error), (code), __FILE__, __LINE__, (where), __VA_ARGS__)
#define VIV_ERROR_INIT                                                                             \
  { .struct_size = sizeof(viv_error) }

/* ---- strings ---- */

static inline viv_str viv__str(const char *terminated) {
  viv_str s = {terminated, terminated ? __builtin_strlen(terminated) : 0};
  return s;
}
bool viv__str_eq(viv_str a, const char *terminated);
bool viv__same(viv_str a, viv_str b);
/* ? and * as in a shell; anything else is literal. */
bool viv__glob(const char *pattern, viv_str text);
/* Length of the longest prefix of text that ends at a character boundary: valid, whole UTF-8. */
size_t viv__utf8_whole(const char *text, size_t len);
bool viv__utf8_valid(const char *text, size_t len);

/* A growable byte buffer. After a failed growth `failed` stays set and appends do nothing. */
typedef struct viv__buf {
  char *ptr;
  size_t len, cap;
  bool failed;
} viv__buf;
void viv__buf_add(viv__buf *b, const void *data, size_t len);
void viv__buf_str(viv__buf *b, const char *terminated);
void viv__buf_fmt(viv__buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void viv__buf_json(viv__buf *b, viv_str text); /* as a quoted JSON string */
void viv__buf_free(viv__buf *b);

/* ---- memory ---- */

/* All of the host's and plugins' allocations go through these two, so that tests can fail each one
 * in turn (VIV_FAIL_ALLOC, see alloc.c). */
void *viv__malloc(size_t bytes);
void *viv__calloc(size_t n, size_t bytes);
void *viv__realloc(void *p, size_t bytes);
char *viv__strdup(const char *s);
char *viv__strndup(const char *s, size_t n);
void viv__free(void *p);
/* The k-th allocation from now (1 = the next) fails once; 0 switches it off. Answers how many were
 * made since the last call. For tests. */
long viv__fail_alloc(long k);

/* An arena: zeroed, 64-byte-aligned blocks freed as a whole. limit 0: none. */
viv_arena *viv__arena_new(uint64_t limit);
/* Blocks of 4 MiB and more ask the system for pages of 2 MiB: for what lives long and is read as a
 * whole again and again, as weights, which otherwise wait for the translation of addresses. */
void viv__arena_large_pages(viv_arena *a);
void *viv__arena_alloc(viv_arena *arena, uint64_t bytes); /* NULL: limit or memory */
void *viv__arena_raw(viv_arena *arena, uint64_t bytes);   /* the same without clearing it */
char *viv__arena_str(viv_arena *arena, viv_str s);        /* terminated copy */
void viv__arena_reset(viv_arena *arena);                  /* keeps the largest block for reuse */
uint64_t viv__arena_used(const viv_arena *arena);
void viv__arena_free(viv_arena *arena);

/* ---- JSON ---- */

/* Parses untrusted text: at most 64 levels, whole text, no trailing garbage. name is for the error.
 * A viv_json is a cJSON node. */
int32_t viv__json_parse(const char *text, size_t len, const char *name, viv_json **out,
                        viv_error *error);
void viv__json_free(viv_json *document);
const viv_json *viv__json_member(const viv_json *node, viv_str key);
const viv_json *viv__json_get(const viv_json *node, const char *key); /* the same, terminated key */
const viv_json *viv__json_item(const viv_json *node, int64_t index);
int32_t viv__json_type(const viv_json *node);
int64_t viv__json_count(const viv_json *node);
double viv__json_number(const viv_json *node);
int32_t viv__json_boolean(const viv_json *node);
viv_str viv__json_string(const viv_json *node);
viv_str viv__json_key(const viv_json *node);
/* With a default for an absent or wrongly typed member. */
double viv__json_num(const viv_json *node, const char *key, double fallback);
bool viv__json_bool(const viv_json *node, const char *key, bool fallback);
const char *viv__json_text(const viv_json *node, const char *key, const char *fallback);

/* ---- logs ---- */

/* One per runtime; no global. NULL is legal everywhere and drops the line. */
typedef struct viv__log {
  int32_t level;
  bool json;
  int fd;
} viv__log;
void viv__log_line(const viv__log *log, int32_t level, viv_str text);
void viv__logf(const viv__log *log, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- files ---- */

/* Whether an errno tells what the machine lacks now (memory, descriptors, a disk that answers) and not what is
 * wrong with the file: the same call may work later. */
bool viv__is_short(int why);
/* Reads a whole file of at most limit bytes into memory that viv__free frees; terminated. */
int32_t viv__read_file(const char *path, size_t limit, char **out, size_t *len, viv_error *error);
/* Writes to a temporary name in the same folder, then renames. */
int32_t viv__write_file(const char *path, const void *data, size_t len, viv_error *error);
char *viv__path_join(const char *folder, const char *name); /* viv__free */
/* SHA-256 of a file as 64 hex digits, terminated. */
int32_t viv__hash_file(const char *path, char out[65], viv_error *error);
void viv__hash_bytes(const void *data, size_t len, char out[65]);
uint64_t viv__now_ns(void); /* monotonic */
/* Waits for *bell to differ from seen, without sleeping, for at most the time that going to sleep and
 * being woken costs anyway; gives way to other threads meanwhile. True: it changed. */
bool viv__spin(const _Atomic uint32_t *bell, uint32_t seen);

/* ---- dtypes ---- */
size_t viv__dtype_size(int32_t dtype);      /* of an element; 0: a block format, or no dtype */
const char *viv__dtype_name(int32_t dtype); /* "F32", ... as safetensors spells them; "Q4_0" */
/* The dtype of that name, block formats included; 0: none. */
int32_t viv__dtype_named(viv_str name);
bool viv__is_block(int32_t dtype); /* one of the block formats */
/* Bytes of a row of cols elements. 0: no such dtype, cols is not a positive multiple of the block,
 * or the product overflows 63 bits. */
uint64_t viv__row_bytes(int32_t dtype, int64_t cols);

#endif
