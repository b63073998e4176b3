/* What the readers of this folder share: mapped files, places for error texts, a table of names,
 * stored zip archives and the restricted unpickler. Internal to host/checkpoint. */
#ifndef VIV_HOST_CHECKPOINT_FILES_H
#define VIV_HOST_CHECKPOINT_FILES_H

#include "base/base.h"

/* ---- mapped files (files.c) ---- */

/* A regular file, mapped read-only and shared. A file that somebody truncates while it is mapped
 * raises SIGBUS in whoever reads the missing pages. That can't be caught here: models live in
 * worker processes so that only the worker is lost. */
typedef struct viv__map {
  const uint8_t *data; /* never NULL after a successful open */
  size_t len;
  bool mapped;
} viv__map;
int32_t viv__map_open(const char *path, viv__map *out, viv_error *error);
void viv__map_close(viv__map *map);

/* The mapping behind an open file, for the fingerprint of its ends. */
struct viv__safetensors;
struct viv__pickle;
struct viv__gguf;
struct viv__tfjs;
struct viv__tfbundle;
const viv__map *viv__tfbundle_map(const struct viv__tfbundle *t); /* of its first data file */
const viv__map *viv__tfjs_map(const struct viv__tfjs *t); /* of its first file */
const viv__map *viv__gguf_map(const struct viv__gguf *g);
const viv__map *viv__safetensors_map(const struct viv__safetensors *s);
const viv__map *viv__pickle_map(const struct viv__pickle *p);

/* ---- texts for errors ---- */

enum { VIV__PLACE = 208, VIV__SHOWN = 84 };
/* Writes "path: place" into out and answers out. A long path loses its front, never the place. */
const char *viv__place(char out[VIV__PLACE], const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A name from an untrusted file as printable text: control bytes become '?', the rest is cut. */
const char *viv__shown(char out[VIV__SHOWN], viv_str name);

/* ---- tables of names ---- */

/* Finds an index by name. The hash is seeded per table, so that a file can't choose names that all
 * collide. names stays the caller's and must outlive the table. */
typedef struct viv__names {
  const viv_str *names;
  uint32_t *slots; /* index + 1; 0 is free */
  uint32_t mask;
  uint64_t seed;
} viv__names;
/* VIV_NOT_NOW without memory. Of two equal names the second one's index goes to *twice, and the
 * answer is VIV_BAD_INPUT; the table is then empty. */
int32_t viv__names_build(viv__names *table, const viv_str *names, size_t n, size_t *twice);
int64_t viv__names_find(const viv__names *table, viv_str name); /* -1: none */
void viv__names_free(viv__names *table);

/* ---- where tensors lie ---- */

typedef struct viv__span {
  uint64_t begin, end;
  int64_t index; /* into names */
} viv__span;
/* Refuses tensors that share bytes, which would let one entry's data pass for another's. Sorts the
 * spans; empty ones don't count. */
int32_t viv__spans_check(viv__span *spans, size_t n, const char *file, const viv_str *names,
                         viv_error *error);

/* ---- stored zip archives (zip.c) ---- */

typedef struct viv__zip_entry {
  uint64_t at, size; /* the data, inside the mapping */
} viv__zip_entry;

/* An archive's entries. Compressed, encrypted and doubled entries are refused; checksums are not
 * compared, since that would read all weights. */
typedef struct viv__zip {
  viv_str *names; /* [count], in the mapping */
  viv__zip_entry *entries;
  size_t count;
  viv__names table;
} viv__zip;
int32_t viv__zip_open(const viv__map *map, const char *file, viv__zip *out, viv_error *error);
void viv__zip_close(viv__zip *zip);

#endif
