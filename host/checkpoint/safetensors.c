/* Safetensors: eight bytes of header length (little-endian), a JSON header, then raw data.
 *
 *   {"__metadata__": {...},
 *    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *
 * The header is scanned here rather than by cJSON: offsets need 64 bits, which a double can't hold,
 * a name must not be cut at an escaped NUL, and a header may be 100 MB long. Tensors that overlap
 * are refused, gaps between them are not. What a BOOL tensor's bytes hold is not checked: that
 * would read the data.
 *
 * A tensor in a block format stands there as U8 [rows..., bytes of a row], and __metadata__ says what
 * it is: "viv.block.NAME": "Q4_1 [1536, 576]" (docs/formats.md). It is served as that block tensor. */
#include "checkpoint/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/files.h"

#define MAX_HEADER ((uint64_t)100 * 1000 * 1000)
enum { MAX_NESTING = 32 };

static const char block_prefix[] = "viv.block."; /* keys of __metadata__ */
enum { PREFIX = sizeof block_prefix - 1 };

typedef struct entry {
  uint64_t begin, end; /* in the data section */
  int32_t dtype, ndim;
  int64_t shape[VIV_MAX_DIMS];
} entry;

/* "viv.block.NAME": "DTYPE [shape]" */
typedef struct note {
  viv_str name, text;
} note;

struct viv__safetensors {
  viv__map map;
  const uint8_t *data; /* the data section */
  uint64_t data_len;
  int64_t count, cap;
  viv_str *names; /* in the header, or in pool when the header spells them with escapes */
  entry *entries;
  char *pool;
  viv__names table;
  note *notes; /* until the header is read */
  int64_t note_count, note_cap;
};

/* ---- the scanner ---- */

typedef struct scan {
  const char *start, *end, *p; /* the header's text */
  viv__safetensors *s;
  const char *file; /* for messages */
  viv_str tensor;   /* being read; empty between tensors */
  size_t pool_used;
  viv_error *error;
  char where[VIV__PLACE];
} scan;

static const char *place(scan *c) {
  char shown[VIV__SHOWN];
  size_t byte = 8 + (size_t)(c->p - c->start);
  if (c->tensor.len)
    return viv__place(c->where, c->file, "tensor '%s', header byte %zu",
                      viv__shown(shown, c->tensor), byte);
  return viv__place(c->where, c->file, "header byte %zu", byte);
}
#define BAD(c, ...) VIV_FAIL((c)->error, VIV_BAD_INPUT, place(c), __VA_ARGS__)

static void space(scan *c) {
  while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) c->p++;
}

/* Skips white space and takes ch if it comes next. */
static bool take(scan *c, char ch) {
  space(c);
  if (c->p == c->end || *c->p != ch) return false;
  c->p++;
  return true;
}

static int32_t expect(scan *c, char ch, const char *after) {
  if (take(c, ch)) return VIV_OK;
  if (c->p == c->end) return BAD(c, "the header ends where '%c' must follow %s", ch, after);
  return BAD(c, "expected '%c' after %s", ch, after);
}

/* Four hex digits; -1 when they aren't. */
static int32_t hex4(const char *p, const char *end) {
  int32_t value = 0;
  if (end - p < 4) return -1;
  for (int i = 0; i < 4; i++) {
    char ch = p[i];
    int digit = ch >= '0' && ch <= '9'   ? ch - '0'
                : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                         : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

static size_t utf8_put(char *out, uint32_t code) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (char)(0xE0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
  }
  out[0] = (char)(0xF0 | code >> 18);
  out[1] = (char)(0x80 | (code >> 12 & 63));
  out[2] = (char)(0x80 | (code >> 6 & 63));
  out[3] = (char)(0x80 | (code & 63));
  return 4;
}

/* One escape after the backslash: its bytes go to out (up to 4), their number is the answer, 0 when
 * it isn't one. */
static size_t escape(scan *c, char out[4]) {
  static const char plain[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
  if (c->p == c->end) return 0;
  char kind = *c->p++;
  const char *found = kind ? strchr(plain, kind) : NULL;
  if (found) {
    out[0] = means[found - plain];
    return 1;
  }
  if (kind != 'u') return 0;
  int32_t unit = hex4(c->p, c->end);
  if (unit < 0 || (unit >= 0xDC00 && unit < 0xE000)) return 0;
  c->p += 4;
  uint32_t code = (uint32_t)unit;
  if (unit >= 0xD800 && unit < 0xDC00) {
    if (c->end - c->p < 6 || c->p[0] != '\\' || c->p[1] != 'u') return 0;
    int32_t low = hex4(c->p + 2, c->end);
    if (low < 0xDC00 || low >= 0xE000) return 0;
    c->p += 6;
    code = 0x10000 + ((uint32_t)(unit - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
  }
  return utf8_put(out, code);
}

/* A string. out is in the header when nothing is escaped, otherwise decoded into the pool, which a
 * header's strings can't outgrow since an escape is longer than what it stands for. out may be NULL
 * for a string that nobody reads. */
static int32_t string(scan *c, viv_str *out) {
  space(c);
  if (c->p == c->end || *c->p != '"') return BAD(c, "expected a string in double quotes");
  const char *first = ++c->p;
  char *decoded = NULL;
  size_t len = 0;
  while (c->p < c->end && *c->p != '"') {
    if ((unsigned char)*c->p < 0x20)
      return BAD(c, "a string holds the control byte 0x%02x", (unsigned char)*c->p);
    if (*c->p == '\\') {
      if (out && !decoded) {
        if (!c->s->pool) c->s->pool = viv__malloc((size_t)(c->end - c->start));
        if (!c->s->pool)
          return VIV_FAIL(c->error, VIV_NOT_NOW, place(c), "no memory for the tensors' names");
        decoded = c->s->pool + c->pool_used;
        len = (size_t)(c->p - first);
        memcpy(decoded, first, len);
      }
      char bytes[4];
      c->p++;
      size_t n = escape(c, bytes);
      if (!n) return BAD(c, "a string holds an escape that JSON does not have");
      if (decoded) memcpy(decoded + len, bytes, n);
      len += n;
    } else {
      if (decoded) decoded[len] = *c->p;
      len++;
      c->p++;
    }
  }
  if (c->p == c->end) return BAD(c, "the header ends inside a string");
  if (out) {
    *out = decoded ? (viv_str){decoded, len} : (viv_str){first, (uint64_t)(c->p - first)};
    if (decoded) c->pool_used += len;
  }
  c->p++;
  return VIV_OK;
}

/* A whole number from 0 to 2^63 - 1: what sizes and offsets are. */
static int32_t whole(scan *c, const char *what, uint64_t *out) {
  space(c);
  if (c->p < c->end && *c->p == '-') return BAD(c, "%s is negative", what);
  const char *first = c->p;
  uint64_t value = 0;
  for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
    uint64_t digit = (uint64_t)(*c->p - '0');
    if (value > ((uint64_t)INT64_MAX - digit) / 10)
      return BAD(c, "%s does not fit into 63 bits", what);
    value = value * 10 + digit;
  }
  if (c->p == first) return BAD(c, "%s must be a whole number", what);
  if (*first == '0' && c->p - first > 1) return BAD(c, "%s starts with a zero", what);
  if (c->p < c->end && (*c->p == '.' || *c->p == 'e' || *c->p == 'E'))
    return BAD(c, "%s must be a whole number without point or exponent", what);
  *out = value;
  return VIV_OK;
}

/* Passes over a value that nobody reads: __metadata__, or a key of a later version. */
static int32_t skip(scan *c, int depth) {
  int32_t status = VIV_OK;
  space(c);
  if (c->p == c->end) return BAD(c, "the header ends where a value must stand");
  if (depth > MAX_NESTING) return BAD(c, "the header nests deeper than %d levels", MAX_NESTING);
  char open = *c->p;
  if (open == '"') return string(c, NULL);
  if (open == '{' || open == '[') {
    char close = open == '{' ? '}' : ']';
    c->p++;
    if (take(c, close)) return VIV_OK;
    do {
      if (open == '{') {
        if ((status = string(c, NULL)) < 0) return status;
        if ((status = expect(c, ':', "a key")) < 0) return status;
      }
      if ((status = skip(c, depth + 1)) < 0) return status;
    } while (take(c, ','));
    return expect(c, close, "a value");
  }
  static const char *const words[] = {"true", "false", "null"};
  for (int i = 0; i < 3; i++) {
    size_t n = strlen(words[i]);
    if ((size_t)(c->end - c->p) >= n && !memcmp(c->p, words[i], n)) {
      c->p += n;
      return VIV_OK;
    }
  }
  /* A number that is passed over only has to look like one. */
  const char *first = c->p;
  while (c->p < c->end && *c->p && strchr("+-.eE0123456789", *c->p)) c->p++;
  return c->p == first ? BAD(c, "this is not a JSON value") : VIV_OK;
}

/* ---- __metadata__ ---- */

static int32_t add_note(scan *c, viv_str key, viv_str text) {
  viv__safetensors *s = c->s;
  if (s->note_count == s->note_cap) {
    int64_t cap = s->note_cap ? s->note_cap * 2 : 64;
    note *notes = viv__realloc(s->notes, (size_t)cap * sizeof *notes);
    if (!notes) return VIV_FAIL(c->error, VIV_NOT_NOW, place(c), "no memory for __metadata__");
    s->notes = notes;
    s->note_cap = cap;
  }
  s->notes[s->note_count++] = (note){{key.ptr + PREFIX, key.len - PREFIX}, text};
  return VIV_OK;
}

/* Keeps what concerns blocks, passes over the rest. */
static int32_t read_metadata(scan *c) {
  int32_t status = VIV_OK;
  space(c);
  if (c->p == c->end || *c->p != '{') return skip(c, 1);
  c->p++;
  if (take(c, '}')) return VIV_OK;
  do {
    viv_str key, text;
    if ((status = string(c, &key)) < 0) return status;
    if ((status = expect(c, ':', "a key")) < 0) return status;
    if (key.len <= PREFIX || memcmp(key.ptr, block_prefix, PREFIX) != 0) {
      if ((status = skip(c, 2)) < 0) return status;
      continue;
    }
    if ((status = string(c, &text)) < 0) return status;
    if ((status = add_note(c, key, text)) < 0) return status;
  } while (take(c, ','));
  return expect(c, '}', "the metadata");
}

/* "Q4_1 [1536, 576]" */
static bool parse_note(viv_str text, int32_t *dtype, int32_t *ndim, int64_t shape[VIV_MAX_DIMS]) {
  const char *p = text.ptr, *end = text.ptr + text.len;
  const char *space = text.len ? memchr(p, ' ', text.len) : NULL;
  if (!space || space + 1 == end || space[1] != '[' || end[-1] != ']') return false;
  *dtype = viv__dtype_named((viv_str){p, (uint64_t)(space - p)});
  *ndim = 0;
  for (p = space + 2; p < end; p += *p == ',' ? 2 : 1) {
    uint64_t value = 0;
    const char *first = p;
    for (; *p >= '0' && *p <= '9'; p++) {
      if (value > INT64_MAX / 10 - 1) return false;
      value = value * 10 + (uint64_t)(*p - '0');
    }
    if (p == first || *ndim == VIV_MAX_DIMS || !value) return false;
    if (*p != ']' && (*p != ',' || p[1] != ' ')) return false;
    shape[(*ndim)++] = (int64_t)value;
    if (*p == ']') return p + 1 == end && viv__is_block(*dtype);
  }
  return false;
}

/* Turns the tensors of the notes into what they stand for. */
static int32_t apply_notes(viv__safetensors *s, const char *file, viv_error *error) {
  for (int64_t i = 0; i < s->note_count; i++) {
    char where[VIV__PLACE], shown[VIV__SHOWN], text[VIV__SHOWN];
    int32_t dtype = 0, ndim = 0;
    int64_t shape[VIV_MAX_DIMS];
    int64_t at = viv__names_find(&s->table, s->notes[i].name);
    viv__shown(text, s->notes[i].text);
    viv__place(where, file, "tensor '%s'", viv__shown(shown, s->notes[i].name));
    if (at < 0)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "__metadata__ speaks of it, the file lacks it");
    if (!parse_note(s->notes[i].text, &dtype, &ndim, shape))
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "__metadata__ says \"%s\"; a block format and a shape, \"Q4_1 [1536, 576]\", "
                      "are expected",
                      text);
    entry *e = &s->entries[at];
    bool fits = e->dtype == VIV_U8 && e->ndim == ndim &&
                (uint64_t)e->shape[ndim - 1] == viv__row_bytes(dtype, shape[ndim - 1]);
    for (int32_t d = 0; d + 1 < ndim; d++) fits = fits && e->shape[d] == shape[d];
    if (!fits)
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "__metadata__ says \"%s\", which needs U8 rows of %" PRIu64 " bytes", text,
                      viv__row_bytes(dtype, shape[ndim - 1]));
    e->dtype = dtype;
    e->shape[ndim - 1] = shape[ndim - 1];
  }
  viv__free(s->notes);
  s->notes = NULL;
  return VIV_OK;
}

/* ---- tensors ---- */

static int32_t dtype_of(viv_str name) {
  int32_t dtype = viv__dtype_named(name);
  return viv__is_block(dtype) ? 0 : dtype;
}

static int32_t read_shape(scan *c, entry *e) {
  int32_t status = expect(c, '[', "\"shape\":");
  if (status < 0 || take(c, ']')) return status;
  do {
    uint64_t dim;
    if ((status = whole(c, "a dimension", &dim)) < 0) return status;
    if (e->ndim == VIV_MAX_DIMS) return BAD(c, "more than %d dimensions", VIV_MAX_DIMS);
    e->shape[e->ndim++] = (int64_t)dim;
  } while (take(c, ','));
  return expect(c, ']', "the dimensions");
}

static int32_t read_offsets(scan *c, entry *e) {
  int32_t status = expect(c, '[', "\"data_offsets\":");
  if (status < 0) return status;
  if ((status = whole(c, "the first data offset", &e->begin)) < 0) return status;
  if ((status = expect(c, ',', "the first data offset")) < 0) return status;
  if ((status = whole(c, "the second data offset", &e->end)) < 0) return status;
  return expect(c, ']', "the second data offset");
}

/* The checks that a tensor's entry needs on its own; overlaps come when all are known. */
static int32_t check_entry(scan *c, const entry *e) {
  uint64_t bytes = viv__dtype_size(e->dtype);
  bool empty = false;
  for (int32_t i = 0; i < e->ndim; i++) empty |= e->shape[i] == 0;
  if (empty) bytes = 0;
  for (int32_t i = 0; i < e->ndim && !empty; i++)
    if (__builtin_mul_overflow(bytes, (uint64_t)e->shape[i], &bytes) || bytes > INT64_MAX)
      return BAD(c, "the product of the dimensions overflows 63 bits");
  if (e->begin > e->end)
    return BAD(c, "the data begins at %" PRIu64 " and ends before that, at %" PRIu64, e->begin,
               e->end);
  if (e->end > c->s->data_len)
    return BAD(c,
               "the data ends at byte %" PRIu64 " of a data section of %" PRIu64
               " bytes: the file is cut or damaged; download it again",
               e->end, c->s->data_len);
  if (e->end - e->begin != bytes)
    return BAD(c, "shape and dtype %s need %" PRIu64 " bytes, the data offsets span %" PRIu64,
               viv__dtype_name(e->dtype), bytes, e->end - e->begin);
  return VIV_OK;
}

static int32_t read_entry(scan *c, entry *e) {
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
  int seen = 0;
  *e = (entry){0};
  int32_t status = expect(c, '{', "the tensor's name");
  if (status < 0) return status;
  if (!take(c, '}')) {
    do {
      viv_str key, dtype;
      if ((status = string(c, &key)) < 0) return status;
      int bit = viv__str_eq(key, "dtype")          ? DTYPE
                : viv__str_eq(key, "shape")        ? SHAPE
                : viv__str_eq(key, "data_offsets") ? OFFSETS
                                                   : 0;
      if (seen & bit) {
        char shown[VIV__SHOWN];
        return BAD(c, "\"%s\" stands twice", viv__shown(shown, key));
      }
      seen |= bit;
      if ((status = expect(c, ':', "a key")) < 0) return status;
      if (bit == SHAPE) {
        status = read_shape(c, e);
      } else if (bit == OFFSETS) {
        status = read_offsets(c, e);
      } else if (bit == DTYPE) {
        if ((status = string(c, &dtype)) < 0) return status;
        e->dtype = dtype_of(dtype);
        char shown[VIV__SHOWN];
        if (!e->dtype)
          status = BAD(c,
                       "dtype '%s' can't be read here; F64, F32, F16, BF16, I64, I32, I16, I8, "
                       "U8 and BOOL can",
                       viv__shown(shown, dtype));
      } else {
        status = skip(c, 2);
      }
      if (status < 0) return status;
    } while (take(c, ','));
    if ((status = expect(c, '}', "the tensor's entry")) < 0) return status;
  }
  if (seen != (DTYPE | SHAPE | OFFSETS))
    return BAD(c, "the entry has no \"%s\"",
               !(seen & DTYPE)   ? "dtype"
               : !(seen & SHAPE) ? "shape"
                                 : "data_offsets");
  return check_entry(c, e);
}

static int32_t add(scan *c, const entry *e) {
  viv__safetensors *s = c->s;
  if (s->count == s->cap) {
    int64_t cap = s->cap ? s->cap * 2 : 64;
    viv_str *names = viv__realloc(s->names, (size_t)cap * sizeof *names);
    if (names) s->names = names;
    entry *entries = names ? viv__realloc(s->entries, (size_t)cap * sizeof *entries) : NULL;
    if (!entries)
      return VIV_FAIL(c->error, VIV_NOT_NOW, place(c), "no memory for %" PRId64 " tensors", cap);
    s->entries = entries;
    s->cap = cap;
  }
  s->names[s->count] = c->tensor;
  s->entries[s->count++] = *e;
  return VIV_OK;
}

static int32_t read_header(scan *c) {
  int32_t status;
  if (c->p == c->end || *c->p != '{') return BAD(c, "a safetensors header starts with '{'");
  c->p++;
  if (!take(c, '}')) {
    bool metadata = false;
    do {
      viv_str name;
      if ((status = string(c, &name)) < 0) return status;
      if (viv__str_eq(name, "__metadata__")) {
        if (metadata) return BAD(c, "\"__metadata__\" stands twice");
        metadata = true;
        if ((status = expect(c, ':', "\"__metadata__\"")) < 0) return status;
        if ((status = read_metadata(c)) < 0) return status;
        continue;
      }
      if (!name.len) return BAD(c, "a tensor has an empty name");
      if (memchr(name.ptr, 0, name.len)) return BAD(c, "a tensor's name holds a NUL");
      c->tensor = name;
      entry e;
      if ((status = expect(c, ':', "the tensor's name")) < 0) return status;
      if ((status = read_entry(c, &e)) < 0) return status;
      if ((status = add(c, &e)) < 0) return status;
      c->tensor = (viv_str){NULL, 0};
    } while (take(c, ','));
    if ((status = expect(c, '}', "the last entry")) < 0) return status;
  }
  space(c);
  while (c->p < c->end && !*c->p) c->p++; /* some writers pad with NULs */
  return c->p == c->end ? VIV_OK : BAD(c, "text follows the header's closing '}'");
}

static int32_t check_overlaps(const viv__safetensors *s, const char *file, viv_error *error) {
  viv__span *spans = viv__malloc((size_t)s->count * sizeof *spans);
  if (!spans)
    return VIV_FAIL(error, VIV_NOT_NOW, file, "no memory for %" PRId64 " tensors", s->count);
  for (int64_t i = 0; i < s->count; i++)
    spans[i] = (viv__span){s->entries[i].begin, s->entries[i].end, i};
  int32_t status = viv__spans_check(spans, (size_t)s->count, file, s->names, error);
  viv__free(spans);
  return status;
}

/* Fills s, whose map is set. */
static int32_t parse(viv__safetensors *s, const char *file, viv_error *error) {
  const uint8_t *bytes = s->map.data;
  if (s->map.len < 8)
    return VIV_FAIL(
        error, VIV_BAD_INPUT, file,
        "the file has %zu bytes; a safetensors file starts with 8 bytes of header length",
        s->map.len);
  uint64_t header = 0;
  for (int i = 7; i >= 0; i--) header = header << 8 | bytes[i];
  if (header > MAX_HEADER)
    return VIV_FAIL(error, VIV_BAD_INPUT, file,
                    "the header length at byte 0 is %" PRIu64
                    ", above the limit of 100 MB: is this a safetensors file?",
                    header);
  if (header > s->map.len - 8)
    return VIV_FAIL(error, VIV_BAD_INPUT, file,
                    "the header needs %" PRIu64 " bytes, %zu follow its length: the file is cut; "
                    "download it again",
                    header, s->map.len - 8);
  const char *text = (const char *)bytes + 8;
  s->data = bytes + 8 + header;
  s->data_len = s->map.len - 8 - header;
  scan c = {.start = text, .end = text + header, .p = text, .s = s, .file = file, .error = error};
  size_t valid = viv__utf8_whole(text, header);
  if (valid != header) {
    c.p += valid;
    return BAD(&c, "the header is not valid UTF-8");
  }
  int32_t status = read_header(&c);
  if (status < 0) return status;
  size_t twice = 0;
  status = viv__names_build(&s->table, s->names, (size_t)s->count, &twice);
  if (status == VIV_NOT_NOW)
    return VIV_FAIL(error, status, file, "no memory for a table of %" PRId64 " names", s->count);
  if (status < 0) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    viv__place(where, file, "tensor '%s'", viv__shown(shown, s->names[twice]));
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "two tensors have this name");
  }
  status = check_overlaps(s, file, error);
  return status < 0 ? status : apply_notes(s, file, error);
}

/* ---- the doors ---- */

static int32_t open_map(viv__map *map, const char *file, viv__safetensors **out, viv_error *error) {
  viv__safetensors *s = viv__calloc(1, sizeof *s);
  if (!s) {
    viv__map_close(map);
    return VIV_FAIL(error, VIV_NOT_NOW, file, "no memory to open the file");
  }
  s->map = *map;
  int32_t status = parse(s, file, error);
  if (status < 0) {
    viv__safetensors_close(s);
    return status;
  }
  *out = s;
  return VIV_OK;
}

int32_t viv__safetensors_open(const char *path, viv__safetensors **out, viv_error *error) {
  viv__map map;
  int32_t status = viv__map_open(path, &map, error);
  return status < 0 ? status : open_map(&map, path, out, error);
}

int32_t viv__safetensors_parse(const void *data, size_t len, const char *name,
                               viv__safetensors **out, viv_error *error) {
  viv__map map = {.data = len ? data : "", .len = len, .mapped = false};
  return open_map(&map, name, out, error);
}

void viv__safetensors_close(viv__safetensors *s) {
  if (!s) return;
  viv__names_free(&s->table);
  viv__free(s->names);
  viv__free(s->entries);
  viv__free(s->pool);
  viv__free(s->notes);
  viv__map_close(&s->map);
  viv__free(s);
}

int64_t viv__safetensors_count(const viv__safetensors *s) {
  return s->count;
}

int32_t viv__safetensors_at(const viv__safetensors *s, int64_t index, viv_str *name,
                            viv_tensor *out) {
  if (index < 0 || index >= s->count) return VIV_NEVER;
  const entry *e = &s->entries[index];
  if (name) *name = s->names[index];
  if (!out) return VIV_OK;
  *out = (viv_tensor){.struct_size = sizeof *out,
                      .flags = VIV_TENSOR_READ_ONLY,
                      .data = (void *)(uintptr_t)(s->data + e->begin),
                      .bytes = e->end - e->begin,
                      .dtype = e->dtype,
                      .ndim = e->ndim};
  memcpy(out->shape, e->shape, sizeof e->shape);
  return VIV_OK;
}

int32_t viv__safetensors_find(const viv__safetensors *s, viv_str name, viv_tensor *out) {
  return viv__safetensors_at(s, viv__names_find(&s->table, name), NULL, out);
}

const viv__map *viv__safetensors_map(const viv__safetensors *s) {
  return &s->map;
}

/* ---- the writer ---- */

static int32_t check_tensor(const char *path, viv_str name, const viv_tensor *t, viv_error *error) {
  char where[VIV__PLACE], shown[VIV__SHOWN];
  viv__place(where, path, "tensor '%s'", viv__shown(shown, name));
  if (!name.len || memchr(name.ptr, 0, name.len) || !viv__utf8_valid(name.ptr, name.len) ||
      viv__str_eq(name, "__metadata__"))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "a name must be valid UTF-8, not empty, without NUL, not \"__metadata__\"");
  if (t->ndim < 0 || t->ndim > VIV_MAX_DIMS)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "%d dimensions; 0 to %d can be written", t->ndim,
                    VIV_MAX_DIMS);
  bool block = viv__is_block(t->dtype);
  uint64_t bytes = viv__dtype_size(t->dtype);
  if (block) bytes = t->ndim ? viv__row_bytes(t->dtype, t->shape[t->ndim - 1]) : 0;
  if (!bytes)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    block ? "rows are no whole blocks of %s" : "there is no dtype %s",
                    viv__dtype_name(t->dtype));
  for (int32_t i = 0; i < t->ndim - block; i++)
    if (t->shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "dimension %d is negative or too large", i);
  if (bytes != t->bytes)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "shape and dtype need %" PRIu64 " bytes, the tensor has %" PRIu64, bytes,
                    t->bytes);
  return VIV_OK;
}

/* All of data, whatever signals and short writes come between. */
static bool write_all(int fd, const void *data, uint64_t len) {
  const char *p = data;
  while (len) {
    ssize_t n = write(fd, p, len < (1u << 30) ? (size_t)len : (size_t)1 << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    len -= (uint64_t)n;
  }
  return true;
}

/* Tensors with large elements stand first, so that each one's data is aligned without gaps, which
 * other readers refuse. Within one size the caller's order is kept. */
static const size_t element_sizes[] = {8, 4, 2, 1};

static size_t element_size(const viv_tensor *t) {
  return viv__is_block(t->dtype) ? 1 : viv__dtype_size(t->dtype);
}

static void shape_text(viv__buf *b, const viv_tensor *t, bool stored) {
  for (int32_t d = 0; d < t->ndim; d++) {
    int64_t size = t->shape[d];
    if (stored && d + 1 == t->ndim && viv__is_block(t->dtype))
      size = (int64_t)viv__row_bytes(t->dtype, size);
    viv__buf_fmt(b, "%s%" PRId64, !d ? "" : stored ? "," : ", ", size);
  }
}

/* What the tensors of block formats are. */
static void metadata_text(viv__buf *b, const viv_str *names, const viv_tensor *tensors, int64_t n) {
  bool any = false;
  for (int64_t i = 0; i < n; i++) {
    if (!viv__is_block(tensors[i].dtype)) continue;
    viv__buf key = {0};
    viv__buf_str(&key, block_prefix);
    viv__buf_add(&key, names[i].ptr, (size_t)names[i].len);
    viv__buf_str(b, any ? "," : "\"__metadata__\":{");
    any = true;
    if (key.failed)
      b->failed = true;
    else
      viv__buf_json(b, (viv_str){key.ptr, key.len});
    viv__buf_free(&key);
    viv__buf_fmt(b, ":\"%s [", viv__dtype_name(tensors[i].dtype));
    shape_text(b, &tensors[i], false);
    viv__buf_str(b, "]\"");
  }
  if (any) viv__buf_str(b, "},"); /* at least the tensor that it speaks of follows */
}

static void header_text(viv__buf *b, const viv_str *names, const viv_tensor *tensors, int64_t n) {
  uint64_t at = 0;
  bool first = true;
  viv__buf_str(b, "{");
  metadata_text(b, names, tensors, n);
  for (int k = 0; k < 4; k++) {
    for (int64_t i = 0; i < n; i++) {
      const viv_tensor *t = &tensors[i];
      if (element_size(t) != element_sizes[k]) continue;
      if (!first) viv__buf_str(b, ",");
      first = false;
      viv__buf_json(b, names[i]);
      viv__buf_fmt(b, ":{\"dtype\":\"%s\",\"shape\":[",
                   viv__is_block(t->dtype) ? "U8" : viv__dtype_name(t->dtype));
      shape_text(b, t, true);
      viv__buf_fmt(b, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + t->bytes);
      at += t->bytes;
    }
  }
  viv__buf_str(b, "}");
  while (!b->failed && b->len % 8) viv__buf_add(b, " ", 1);
}

/* The data of all tensors in the header's order; false: errno says why, or *status does. */
static bool write_data(int fd, const viv_tensor *tensors, int64_t n, viv__tensor_fn make, void *ctx,
                       int32_t *status, viv_error *error) {
  for (int k = 0; k < 4; k++)
    for (int64_t i = 0; i < n; i++) {
      if (element_size(&tensors[i]) != element_sizes[k]) continue;
      const void *data = tensors[i].data;
      if (make && (*status = make(ctx, i, &data, error)) < 0) return false;
      if (!write_all(fd, data, tensors[i].bytes)) return false;
    }
  return true;
}

int32_t viv__safetensors_write(const char *path, const viv_str *names, const viv_tensor *tensors,
                               int64_t n, viv_error *error) {
  return viv__safetensors_make(path, names, tensors, n, NULL, NULL, error);
}

int32_t viv__safetensors_make(const char *path, const viv_str *names, const viv_tensor *tensors,
                              int64_t n, viv__tensor_fn make, void *ctx, viv_error *error) {
  for (int64_t i = 0; i < n; i++) {
    int32_t status = check_tensor(path, names[i], &tensors[i], error);
    if (status < 0) return status;
  }
  viv__names table;
  size_t twice = 0;
  int32_t status = viv__names_build(&table, names, (size_t)n, &twice);
  if (status == VIV_NOT_NOW)
    return VIV_FAIL(error, status, path, "no memory for a table of %" PRId64 " names", n);
  if (status < 0) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    viv__place(where, path, "tensor '%s'", viv__shown(shown, names[twice]));
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "two tensors have this name");
  }
  viv__names_free(&table);

  viv__buf header = {0}, temporary = {0};
  header_text(&header, names, tensors, n);
  viv__buf_fmt(&temporary, "%s.%ld.tmp", path, (long)getpid());
  viv__buf_add(&temporary, "", 1); /* terminated */
  if (header.failed || temporary.failed) {
    status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory for the header");
  } else if (header.len > MAX_HEADER) {
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "the header would exceed 100 MB");
  } else {
    int fd = open(temporary.ptr, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header.len >> 8 * i);
    bool good = fd >= 0 && write_all(fd, length, 8) && write_all(fd, header.ptr, header.len) &&
                write_data(fd, tensors, n, make, ctx, &status, error);
    int why = errno;
    if (fd >= 0 && close(fd) != 0 && good) {
      good = false;
      why = errno;
    }
    if (good && rename(temporary.ptr, path) != 0) {
      good = false;
      why = errno;
    }
    if (!good) {
      if (status >= 0)
        status = VIV_FAIL(error, VIV_NOT_NOW, path, "can't write the file: %s", strerror(why));
      if (fd >= 0) unlink(temporary.ptr);
    }
  }
  viv__buf_free(&header);
  viv__buf_free(&temporary);
  return status;
}
