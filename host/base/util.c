/* Errors, strings, buffers, logs and files. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sha256.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- errors ---- */

/* Copies text into a fixed field, cut at a character boundary. */
static void put_text(char *field, size_t cap, const char *text) {
  size_t len = strnlen(text, cap);
  if (len >= cap) len = viv__utf8_whole(text, cap - 1);
  memcpy(field, text, len);
  field[len] = 0;
}

int32_t viv__fail(viv_error *error, int32_t code, const char *source, int line, const char *where,
                  const char *format, ...) {
  if (!error || !VIV_HAS(error, message)) return code;
  char message[sizeof error->message + 8];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  error->code = code;
  error->line = line;
  put_text(error->source, sizeof error->source, source);
  put_text(error->where, sizeof error->where, where ? where : "");
  put_text(error->message, sizeof error->message, message);
  return code;
}

/* ---- strings ---- */

bool viv__str_eq(viv_str a, const char *terminated) {
  return viv__same(a, viv__str(terminated));
}

bool viv__same(viv_str a, viv_str b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool viv__glob(const char *pattern, viv_str text) {
  const char *p = pattern, *star = NULL;
  size_t i = 0, mark = 0;
  while (i < text.len) {
    if (*p == '*') {
      star = p++;
      mark = i;
    } else if (*p && (*p == '?' || *p == text.ptr[i])) {
      p++;
      i++;
    } else if (star) {
      p = star + 1;
      i = ++mark;
    } else {
      return false;
    }
  }
  while (*p == '*') p++;
  return *p == 0;
}

/* Length of the character at s (1 to 4), 0 when it is not valid, -1 when it is cut off. */
static int utf8_char(const unsigned char *s, size_t left) {
  if (s[0] < 0x80) return 1;
  int n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
          : (s[0] & 0xf0) == 0xe0        ? 3
          : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                         : 0;
  if (!n) return 0;
  for (int i = 1; i < n; i++) {
    if ((size_t)i >= left) return -1;
    unsigned char low = 0x80, high = 0xbf;
    if (i == 1) {
      if (s[0] == 0xe0) low = 0xa0;
      if (s[0] == 0xed) high = 0x9f;
      if (s[0] == 0xf0) low = 0x90;
      if (s[0] == 0xf4) high = 0x8f;
    }
    if (s[i] < low || s[i] > high) return 0;
  }
  return n;
}

size_t viv__utf8_whole(const char *text, size_t len) {
  size_t i = 0;
  while (i < len) {
    int n = utf8_char((const unsigned char *)text + i, len - i);
    if (n <= 0) break;
    i += (size_t)n;
  }
  return i;
}

bool viv__utf8_valid(const char *text, size_t len) {
  return viv__utf8_whole(text, len) == len;
}

/* ---- buffers ---- */

void viv__buf_add(viv__buf *b, const void *data, size_t len) {
  if (b->failed || !len) return;
  if (len > SIZE_MAX / 2 - b->len) {
    b->failed = true;
    return;
  }
  if (b->len + len + 1 > b->cap) {
    size_t cap = b->cap ? b->cap : 128;
    while (cap < b->len + len + 1) cap *= 2;
    char *grown = viv__realloc(b->ptr, cap);
    if (!grown) {
      b->failed = true;
      return;
    }
    b->ptr = grown;
    b->cap = cap;
  }
  memcpy(b->ptr + b->len, data, len);
  b->len += len;
  b->ptr[b->len] = 0;
}

void viv__buf_str(viv__buf *b, const char *terminated) {
  viv__buf_add(b, terminated, strlen(terminated));
}

void viv__buf_fmt(viv__buf *b, const char *format, ...) {
  char small[512];
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(small, sizeof small, format, args);
  va_end(args);
  if (n >= 0 && (size_t)n < sizeof small) {
    viv__buf_add(b, small, (size_t)n);
  } else if (n >= 0) {
    char *large = viv__malloc((size_t)n + 1);
    if (large) vsnprintf(large, (size_t)n + 1, format, again);
    if (large)
      viv__buf_add(b, large, (size_t)n);
    else
      b->failed = true;
    viv__free(large);
  } else {
    b->failed = true;
  }
  va_end(again);
}

void viv__buf_json(viv__buf *b, viv_str text) {
  viv__buf_str(b, "\"");
  for (size_t i = 0; i < text.len;) {
    unsigned char ch = (unsigned char)text.ptr[i];
    int n = utf8_char((const unsigned char *)text.ptr + i, text.len - i);
    if (n <= 0) {
      viv__buf_str(b, "\\ufffd");
      i++;
    } else if (ch == '"' || ch == '\\') {
      viv__buf_fmt(b, "\\%c", ch);
      i++;
    } else if (ch == '\n') {
      viv__buf_str(b, "\\n");
      i++;
    } else if (ch < 0x20 || ch == 0x7f) {
      viv__buf_fmt(b, "\\u%04x", ch);
      i++;
    } else {
      viv__buf_add(b, text.ptr + i, (size_t)n);
      i += (size_t)n;
    }
  }
  viv__buf_str(b, "\"");
}

void viv__buf_free(viv__buf *b) {
  viv__free(b->ptr);
  *b = (viv__buf){0};
}

/* ---- logs ---- */

static const char *const level_names[] = {"none", "error", "warn", "info", "debug"};

void viv__log_line(const viv__log *log, int32_t level, viv_str text) {
  if (!log || level < VIV_LOG_ERROR || level > VIV_LOG_DEBUG || level > log->level) return;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  viv__buf line = {0};
  if (log->json) {
    viv__buf_fmt(&line, "{\"time\":%lld.%03ld,\"level\":\"%s\",\"text\":", (long long)now.tv_sec,
                 now.tv_nsec / 1000000, level_names[level]);
    viv__buf_json(&line, text);
    viv__buf_str(&line, "}\n");
  } else {
    viv__buf_fmt(&line, "viv: %s: ", level_names[level]);
    viv__buf_add(&line, text.ptr, text.len);
    viv__buf_str(&line, "\n");
  }
  /* One write per line, so that lines of several threads never mix. A full pipe drops the line. */
  if (!line.failed && write(log->fd, line.ptr, line.len) < 0) errno = 0;
  viv__buf_free(&line);
}

void viv__logf(const viv__log *log, int32_t level, const char *format, ...) {
  if (!log || level > log->level) return;
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  viv__log_line(log, level, viv__str(text));
}

/* ---- files ---- */

bool viv__is_short(int why) {
  return why == ENOMEM || why == EMFILE || why == ENFILE || why == EIO;
}

int32_t viv__read_file(const char *path, size_t limit, char **out, size_t *len, viv_error *error) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0)
    return VIV_FAIL(error,
                    errno == ENOENT        ? VIV_NEVER
                    : viv__is_short(errno) ? VIV_NOT_NOW
                                           : VIV_BAD_INPUT,
                    path, "can't open: %s", strerror(errno));
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
    close(fd);
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "not a regular file");
  }
  if ((uint64_t)st.st_size > limit) {
    close(fd);
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%lld bytes is more than the limit of %zu",
                    (long long)st.st_size, limit);
  }
  size_t cap = (size_t)st.st_size, got = 0;
  char *data = viv__malloc(cap + 1);
  int why = 0;
  while (data && got < cap) {
    ssize_t n = read(fd, data + got, cap - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) why = errno;
    if (n <= 0) break;
    got += (size_t)n;
  }
  close(fd);
  if (!data) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory for %zu bytes", cap);
  if (why) {
    viv__free(data);
    return VIV_FAIL(error, VIV_NOT_NOW, path, "can't be read: %s", strerror(why));
  }
  if (got < cap) {
    viv__free(data);
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "ends after %zu of %zu bytes", got, cap);
  }
  data[got] = 0;
  *out = data;
  *len = got;
  return VIV_OK;
}

int32_t viv__write_file(const char *path, const void *data, size_t len, viv_error *error) {
  viv__buf temp = {0};
  viv__buf_fmt(&temp, "%s.%d.tmp", path, (int)getpid());
  if (temp.failed) {
    viv__buf_free(&temp);
    return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  }
  int fd = open(temp.ptr, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), why = errno;
  bool ok = fd >= 0;
  for (size_t done = 0; ok && done < len;) {
    ssize_t n = write(fd, (const char *)data + done, len - done);
    if (n < 0 && errno == EINTR) continue;
    ok = n > 0;
    why = errno;
    if (ok) done += (size_t)n;
  }
  if (fd >= 0 && close(fd) && ok) {
    ok = false;
    why = errno;
  }
  if (ok && rename(temp.ptr, path)) {
    ok = false;
    why = errno;
  }
  if (!ok && fd >= 0) unlink(temp.ptr);
  viv__buf_free(&temp);
  return ok ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, path, "can't write: %s", strerror(why));
}

char *viv__path_join(const char *folder, const char *name) {
  viv__buf b = {0};
  viv__buf_fmt(&b, "%s%s%s", folder, *folder && folder[strlen(folder) - 1] == '/' ? "" : "/", name);
  if (b.failed) viv__buf_free(&b);
  return b.ptr;
}

static void hex(const uint8_t digest[SHA256_DIGEST_LENGTH], char out[65]) {
  for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void viv__hash_bytes(const void *data, size_t len, char out[65]) {
  SHA2_CTX ctx;
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256Init(&ctx);
  SHA256Update(&ctx, data, len);
  SHA256Final(digest, &ctx);
  hex(digest, out);
}

int32_t viv__hash_file(const char *path, char out[65], viv_error *error) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return VIV_FAIL(error, viv__is_short(errno) ? VIV_NOT_NOW : VIV_BAD_INPUT, path,
                    "can't open: %s", strerror(errno));
  SHA2_CTX ctx;
  SHA256Init(&ctx);
  static const size_t CHUNK = 1 << 16;
  uint8_t *chunk = viv__malloc(CHUNK);
  ssize_t n = -1;
  while (chunk && ((n = read(fd, chunk, CHUNK)) > 0 || (n < 0 && errno == EINTR)))
    if (n > 0) SHA256Update(&ctx, chunk, (size_t)n);
  int why = errno;
  close(fd);
  viv__free(chunk);
  if (!chunk) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (n < 0)
    return VIV_FAIL(error, viv__is_short(why) ? VIV_NOT_NOW : VIV_BAD_INPUT, path, "can't read: %s",
                    strerror(why));
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256Final(digest, &ctx);
  hex(digest, out);
  return VIV_OK;
}

uint64_t viv__now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool viv__spin(const _Atomic uint32_t *bell, uint32_t seen) {
  enum { NS = 40000, LOOKS = 64 };
  uint64_t until = viv__now_ns() + NS;
  do {
    for (int i = 0; i < LOOKS; i++) {
      if (atomic_load_explicit(bell, memory_order_acquire) != seen) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    sched_yield();
  } while (viv__now_ns() < until);
  return false;
}

/* ---- dtypes ---- */

static const struct {
  const char *name;
  size_t size;
} dtypes[] = {{NULL, 0},  {"F32", 4}, {"F64", 8}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
              {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};

/* elements 0: the whole row is one block, of bytes beside its values. */
static const struct block {
  int32_t dtype;
  const char *name;
  uint32_t elements, bytes;
} blocks[] = {{VIV_INT8_ROW, "INT8_ROW", 0, 4},
              {VIV_INT8_G128, "INT8_G128", 128, 130},
              {VIV_INT4_G128, "INT4_G128", 128, 68},
              {VIV_Q4_0, "Q4_0", 32, 18},
              {VIV_Q4_1, "Q4_1", 32, 20},
              {VIV_Q5_0, "Q5_0", 32, 22},
              {VIV_Q5_1, "Q5_1", 32, 24},
              {VIV_Q8_0, "Q8_0", 32, 34},
              {VIV_Q2_K, "Q2_K", 256, 84},
              {VIV_Q3_K, "Q3_K", 256, 110},
              {VIV_Q4_K, "Q4_K", 256, 144},
              {VIV_Q5_K, "Q5_K", 256, 176},
              {VIV_Q6_K, "Q6_K", 256, 210}};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

static const struct block *block_of(int32_t dtype) {
  for (size_t i = 0; i < N_BLOCKS; i++)
    if (blocks[i].dtype == dtype) return &blocks[i];
  return NULL;
}

size_t viv__dtype_size(int32_t dtype) {
  return dtype >= VIV_F32 && dtype <= VIV_BOOL ? dtypes[dtype].size : 0;
}

const char *viv__dtype_name(int32_t dtype) {
  const struct block *b = block_of(dtype);
  if (b) return b->name;
  return dtype >= VIV_F32 && dtype <= VIV_BOOL ? dtypes[dtype].name : "?";
}

int32_t viv__dtype_named(viv_str name) {
  for (int32_t d = VIV_F32; d <= VIV_BOOL; d++)
    if (viv__str_eq(name, dtypes[d].name)) return d;
  for (size_t i = 0; i < N_BLOCKS; i++)
    if (viv__str_eq(name, blocks[i].name)) return blocks[i].dtype;
  return 0;
}

bool viv__is_block(int32_t dtype) {
  return block_of(dtype) != NULL;
}

uint64_t viv__row_bytes(int32_t dtype, int64_t cols) {
  const struct block *b = block_of(dtype);
  uint64_t n = (uint64_t)cols, bytes = 0;
  if (cols <= 0) return 0;
  if (b && !b->elements) {
    bytes = n + b->bytes; /* both below 2^63 */
  } else if (b) {
    if (n % b->elements || __builtin_mul_overflow(n / b->elements, (uint64_t)b->bytes, &bytes))
      return 0;
  } else if (__builtin_mul_overflow(n, (uint64_t)viv__dtype_size(dtype), &bytes)) {
    return 0;
  }
  return bytes > INT64_MAX ? 0 : bytes;
}
