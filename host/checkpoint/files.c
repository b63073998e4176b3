/* Mapped files, places for error texts, tables of names. */
#include "checkpoint/files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- mapped files ---- */

int32_t viv__map_open(const char *path, viv__map *out, viv_error *error) {
  /* O_NONBLOCK: opening a FIFO that poses as a model must not hang. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    int why = errno;
    int32_t code = why == ENOENT || why == ENOTDIR                   ? VIV_NEVER
                   : why == EMFILE || why == ENFILE || why == ENOMEM ? VIV_NOT_NOW
                                                                     : VIV_BAD_INPUT;
    return VIV_FAIL(error, code, path, "can't open the file: %s", strerror(why));
  }
  struct stat st;
  int32_t status = VIV_OK;
  if (fstat(fd, &st) != 0) {
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "can't inspect the file: %s", strerror(errno));
  } else if (!S_ISREG(st.st_mode)) {
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "a checkpoint must be a regular file");
  } else if (st.st_size == 0) {
    *out = (viv__map){.data = (const uint8_t *)"", .len = 0, .mapped = false};
  } else {
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
      status = VIV_FAIL(error, VIV_NOT_NOW, path, "can't map %lld bytes: %s", (long long)st.st_size,
                        strerror(errno));
    else
      *out = (viv__map){.data = data, .len = (size_t)st.st_size, .mapped = true};
    /* Weights that are computed on as stored pass by with every token: in pages of 2 MiB far fewer
     * addresses have to be looked up. Refused, or in the cache already, they stay as they are. */
    if (data != MAP_FAILED) madvise(data, (size_t)st.st_size, MADV_HUGEPAGE);
  }
  close(fd);
  return status;
}

void viv__map_close(viv__map *map) {
  if (map->mapped) munmap((void *)(uintptr_t)map->data, map->len);
  *map = (viv__map){.data = (const uint8_t *)"", .len = 0, .mapped = false};
}

/* ---- texts for errors ---- */

const char *viv__place(char out[VIV__PLACE], const char *path, const char *format, ...) {
  char place[VIV__PLACE];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(place, sizeof place, format, args);
  va_end(args);
  size_t used = n < 0 ? 0 : n < (int)sizeof place ? (size_t)n : sizeof place - 1;
  size_t room = VIV__PLACE - 1 - used; /* for "path: " */
  size_t len = strlen(path), at = 0;
  if (room >= 8) {
    const char *tail = path;
    if (len + 2 > room) {
      tail += len - (room - 5);
      while ((*tail & 0xC0) == 0x80) tail++; /* not in the middle of a character */
      len = strlen(tail);
      memcpy(out, "...", 3);
      at = 3;
    }
    memcpy(out + at, tail, len);
    memcpy(out + at + len, ": ", 2);
    at += len + 2;
  }
  memcpy(out + at, place, used);
  out[at + used] = 0;
  return out;
}

const char *viv__shown(char out[VIV__SHOWN], viv_str name) {
  size_t keep = name.len;
  bool cut = keep > VIV__SHOWN - 4;
  if (cut) {
    keep = VIV__SHOWN - 4;
    while (keep > VIV__SHOWN - 8 && (name.ptr[keep] & 0xC0) == 0x80) keep--;
  }
  for (size_t i = 0; i < keep; i++) {
    unsigned char ch = (unsigned char)name.ptr[i];
    out[i] = ch < 0x20 || ch == 0x7F ? '?' : (char)ch;
  }
  if (!viv__utf8_valid(out, keep))
    for (size_t i = 0; i < keep; i++)
      if (out[i] & 0x80) out[i] = '?';
  memcpy(out + keep, cut ? "..." : "", cut ? 4 : 1);
  return out;
}

/* ---- tables of names ---- */

static uint64_t hash(uint64_t seed, viv_str s) {
  uint64_t h = seed ^ s.len;
  for (size_t i = 0; i < s.len; i += 8) {
    uint64_t word = 0;
    size_t n = s.len - i < 8 ? s.len - i : 8;
    memcpy(&word, s.ptr + i, n);
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    h = h * 0xBF58476D1CE4E5B9u + seed;
    h ^= h >> 32;
  }
  return h;
}

int32_t viv__names_build(viv__names *table, const viv_str *names, size_t n, size_t *twice) {
  *table = (viv__names){0};
  size_t slots = 8;
  while (slots < 2 * n) slots *= 2;
  if (n > (size_t)1 << 30) return VIV_NOT_NOW;
  viv__names t = {.names = names, .mask = (uint32_t)(slots - 1)};
  t.slots = viv__calloc(slots, sizeof *t.slots);
  if (!t.slots) return VIV_NOT_NOW;
  if (getrandom(&t.seed, sizeof t.seed, GRND_NONBLOCK) != (ssize_t)sizeof t.seed)
    t.seed = viv__now_ns() * 0x9E3779B97F4A7C15u;
  for (size_t i = 0; i < n; i++) {
    uint32_t at = (uint32_t)hash(t.seed, names[i]) & t.mask;
    for (; t.slots[at]; at = (at + 1) & t.mask) {
      if (viv__same(names[t.slots[at] - 1], names[i])) {
        *twice = i;
        viv__free(t.slots);
        return VIV_BAD_INPUT;
      }
    }
    t.slots[at] = (uint32_t)i + 1;
  }
  *table = t;
  return VIV_OK;
}

int64_t viv__names_find(const viv__names *t, viv_str name) {
  if (!t->slots) return -1;
  uint32_t at = (uint32_t)hash(t->seed, name) & t->mask;
  for (; t->slots[at]; at = (at + 1) & t->mask)
    if (viv__same(t->names[t->slots[at] - 1], name)) return t->slots[at] - 1;
  return -1;
}

void viv__names_free(viv__names *table) {
  viv__free(table->slots);
  *table = (viv__names){0};
}

/* ---- where tensors lie ---- */

/* Empty spans go to the end. */
static int by_begin(const void *a, const void *b) {
  const viv__span *x = a, *y = b;
  bool no_x = x->begin == x->end, no_y = y->begin == y->end;
  if (no_x != no_y) return no_x ? 1 : -1;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

int32_t viv__spans_check(viv__span *spans, size_t n, const char *file, const viv_str *names,
                         viv_error *error) {
  if (n) qsort(spans, n, sizeof *spans, by_begin);
  for (size_t i = 1; i < n && spans[i].begin < spans[i].end; i++) {
    if (spans[i].begin >= spans[i - 1].end) continue;
    char where[VIV__PLACE], one[VIV__SHOWN], two[VIV__SHOWN];
    viv__place(where, file, "tensor '%s'", viv__shown(one, names[spans[i].index]));
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "its data, from byte %" PRIu64 ", overlaps tensor '%s', which ends at %" PRIu64,
                    spans[i].begin, viv__shown(two, names[spans[i - 1].index]), spans[i - 1].end);
  }
  return VIV_OK;
}
