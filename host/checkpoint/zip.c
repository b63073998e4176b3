/* The part of zip that torch.save writes: stored entries, with the 64-bit extension. The central
 * directory at the end of the file is the authority; each entry's local header must agree with it
 * on the name. */
#include <inttypes.h>
#include <string.h>

#include "checkpoint/files.h"

enum {
  END_BYTES = 22,     /* end of central directory, without its comment */
  LOCATOR_BYTES = 20, /* of the 64-bit end record */
  END64_BYTES = 56,   /* 64-bit end record */
  CENTRAL_BYTES = 46, /* a central directory entry, without its texts */
  LOCAL_BYTES = 30,   /* a local header, without its texts */
  MAX_COMMENT = 0xFFFF,
  ENCRYPTED = 1 /* a flag of an entry */
};

static uint64_t little(const uint8_t *p, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
  return value;
}

static bool signed_as(const uint8_t *p, char a, char b) {
  return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

typedef struct reader {
  const uint8_t *data;
  uint64_t len;
  const char *file;
  viv_error *error;
  uint64_t central, central_size, count; /* the central directory */
  char where[VIV__PLACE];
} reader;

#define BAD(r, byte, ...)                                                                          \
  VIV_FAIL((r)->error, VIV_BAD_INPUT,                                                              \
           viv__place((r)->where, (r)->file, "byte %" PRIu64, (uint64_t)(byte)), __VA_ARGS__)

/* Finds the end record, which stands before a comment of unknown length, and the directory. */
static int32_t find_directory(reader *r) {
  uint64_t lowest = r->len > END_BYTES + MAX_COMMENT ? r->len - END_BYTES - MAX_COMMENT : 0;
  uint64_t end = r->len;
  for (uint64_t at = r->len < END_BYTES ? 0 : r->len - END_BYTES + 1; at-- > lowest;) {
    if (!signed_as(r->data + at, 5, 6)) continue;
    if (at + END_BYTES + little(r->data + at + 20, 2) != r->len) continue;
    end = at;
    break;
  }
  if (end == r->len)
    return BAD(r, r->len,
               "the zip archive has no directory at its end: the file is cut; download "
               "it again");
  const uint8_t *p = r->data + end;
  uint64_t limit = end;
  r->count = little(p + 10, 2);
  r->central_size = little(p + 12, 4);
  r->central = little(p + 16, 4);
  if (r->count == 0xFFFF || r->central_size == 0xFFFFFFFF || r->central == 0xFFFFFFFF) {
    if (end < LOCATOR_BYTES || !signed_as(p - LOCATOR_BYTES, 6, 7))
      return BAD(r, end, "the zip archive's 64-bit directory is not announced");
    uint64_t at = little(p - LOCATOR_BYTES + 8, 8);
    limit = end - LOCATOR_BYTES;
    if (at > limit || limit - at < END64_BYTES || !signed_as(r->data + at, 6, 6))
      return BAD(r, end - LOCATOR_BYTES,
                 "the zip archive's 64-bit directory is not at byte %" PRIu64, at);
    r->count = little(r->data + at + 32, 8);
    r->central_size = little(r->data + at + 40, 8);
    r->central = little(r->data + at + 48, 8);
    limit = at;
  }
  if (r->central > limit || r->central_size > limit - r->central)
    return BAD(r, end, "the zip directory, %" PRIu64 " bytes at %" PRIu64 ", is outside the file",
               r->central_size, r->central);
  if (r->count > r->central_size / CENTRAL_BYTES)
    return BAD(r, end, "%" PRIu64 " entries can't fit into a zip directory of %" PRIu64 " bytes",
               r->count, r->central_size);
  return VIV_OK;
}

/* Takes the 64-bit values of those fields that are saturated, in their fixed order. */
static bool widen(const uint8_t *extra, uint64_t extra_len, uint64_t *fields[3]) {
  bool needed = false;
  for (int i = 0; i < 3; i++) needed |= *fields[i] == 0xFFFFFFFF;
  if (!needed) return true;
  while (extra_len >= 4) {
    uint64_t id = little(extra, 2), n = little(extra + 2, 2);
    extra += 4;
    extra_len -= 4;
    if (n > extra_len) return false;
    if (id == 1) {
      for (int i = 0; i < 3; i++) {
        if (*fields[i] != 0xFFFFFFFF) continue;
        if (n < 8) return false;
        *fields[i] = little(extra, 8);
        extra += 8;
        n -= 8;
      }
      return true;
    }
    extra += n;
    extra_len -= n;
  }
  return false;
}

/* Reads the entry at *at of the directory and moves *at behind it. */
static int32_t read_entry(reader *r, uint64_t *at, viv_str *name, viv__zip_entry *out) {
  uint64_t end = r->central + r->central_size, here = *at;
  const uint8_t *p = r->data + here;
  if (end - here < CENTRAL_BYTES || !signed_as(p, 1, 2))
    return BAD(r, here, "the zip directory's entry is cut or damaged");
  uint64_t names = little(p + 28, 2), extras = little(p + 30, 2), comments = little(p + 32, 2);
  if (end - here - CENTRAL_BYTES < names + extras + comments)
    return BAD(r, here, "the zip directory's entry runs over the directory's end");
  *name = (viv_str){(const char *)p + CENTRAL_BYTES, names};
  uint64_t packed = little(p + 20, 4), size = little(p + 24, 4), local = little(p + 42, 4);
  uint64_t *fields[3] = {&size, &packed, &local};
  char shown[VIV__SHOWN];
  viv__shown(shown, *name);
  if (!widen(p + CENTRAL_BYTES + names, extras, fields))
    return BAD(r, here, "the zip entry '%s' lacks its 64-bit sizes", shown);
  if (little(p + 8, 2) & ENCRYPTED) return BAD(r, here, "the zip entry '%s' is encrypted", shown);
  if (little(p + 10, 2) != 0 || packed != size)
    return BAD(r, here, "the zip entry '%s' is compressed; torch.save stores without compression",
               shown);
  if (local > r->central || r->central - local < LOCAL_BYTES)
    return BAD(r, here, "the zip entry '%s' begins at byte %" PRIu64 ", outside the data", shown,
               local);
  const uint8_t *q = r->data + local;
  uint64_t data = local + LOCAL_BYTES + little(q + 26, 2) + little(q + 28, 2);
  if (!signed_as(q, 3, 4) || data > r->central || little(q + 26, 2) != names ||
      memcmp(q + LOCAL_BYTES, name->ptr, names) != 0)
    return BAD(r, local, "the header of the zip entry '%s' does not agree with the directory",
               shown);
  if (size > r->central - data)
    return BAD(r, here,
               "the zip entry '%s' has %" PRIu64 " bytes at %" PRIu64 ", more than the file holds",
               shown, size, data);
  *out = (viv__zip_entry){data, size};
  *at = here + CENTRAL_BYTES + names + extras + comments;
  return VIV_OK;
}

int32_t viv__zip_open(const viv__map *map, const char *file, viv__zip *out, viv_error *error) {
  reader r = {.data = map->data, .len = map->len, .file = file, .error = error};
  int32_t status = find_directory(&r);
  if (status < 0) return status;
  viv__zip z = {0};
  z.names = viv__calloc((size_t)r.count, sizeof *z.names);
  z.entries = viv__calloc((size_t)r.count, sizeof *z.entries);
  if (!z.names || !z.entries)
    status = VIV_FAIL(error, VIV_NOT_NOW, file, "no memory for %" PRIu64 " zip entries", r.count);
  uint64_t at = r.central;
  for (; status >= 0 && z.count < r.count; z.count++)
    status = read_entry(&r, &at, &z.names[z.count], &z.entries[z.count]);
  if (status >= 0) {
    size_t twice = 0;
    status = viv__names_build(&z.table, z.names, z.count, &twice);
    char shown[VIV__SHOWN];
    if (status == VIV_NOT_NOW)
      VIV_FAIL(error, status, file, "no memory for %" PRIu64 " zip entries", r.count);
    else if (status < 0)
      BAD(&r, r.central, "two zip entries are named '%s'", viv__shown(shown, z.names[twice]));
  }
  if (status < 0)
    viv__zip_close(&z);
  else
    *out = z;
  return status;
}

void viv__zip_close(viv__zip *zip) {
  viv__names_free(&zip->table);
  viv__free(zip->names);
  viv__free(zip->entries);
  *zip = (viv__zip){0};
}
