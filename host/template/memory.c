/* The pool that a template or a rendering lives in, its limits, and failing. */
#include <stdlib.h>
#include <string.h>

#include "template/internal.h"

/* Generous for conversations of thousands of messages, and reached within seconds by a program that
 * would not end. */
enum { MAX_STEPS = 30000000, BLOCK = 1 << 16 };
#define MAX_MEMORY ((size_t)256 << 20)
#define MAX_TEXT ((size_t)32 << 20)

struct block {
  struct block *next;
};
struct pool {
  struct block *blocks;
  char *at;
  size_t left, total;
};

struct pool *viv__t_pool(void) {
  return viv__calloc(1, sizeof(struct pool));
}

void viv__t_pool_free(struct pool *p) {
  if (!p) return;
  while (p->blocks) {
    struct block *next = p->blocks->next;
    viv__free(p->blocks);
    p->blocks = next;
  }
  viv__free(p);
}

void *viv__t_alloc(vm *v, size_t bytes) {
  enum { HEAD = 16 };
  struct pool *p = v->pool;
  if (bytes > MAX_MEMORY) viv__t_fail(v, VIV_BAD_INPUT, "the template uses too much memory");
  bytes = (bytes + 15) & ~(size_t)15;
  if (bytes > p->left) {
    size_t size = bytes + HEAD > BLOCK ? bytes + HEAD : BLOCK;
    if (size > MAX_MEMORY - p->total)
      viv__t_fail(v, VIV_BAD_INPUT, "the template uses more than %zu MiB of memory",
                  MAX_MEMORY >> 20);
    struct block *b = viv__malloc(size);
    if (!b) viv__t_fail(v, VIV_NOT_NOW, "out of memory");
    p->total += size;
    b->next = p->blocks;
    p->blocks = b;
    /* A large block leaves the rest of the one before in use. */
    if (size > BLOCK) return memset((char *)b + HEAD, 0, bytes);
    p->at = (char *)b + HEAD;
    p->left = size - HEAD;
  }
  void *out = p->at;
  p->at += bytes;
  p->left -= bytes;
  return memset(out, 0, bytes);
}

void viv__t_step(vm *v, size_t n) {
  v->steps += (int64_t)n;
  if (v->steps > MAX_STEPS)
    viv__t_fail(v, VIV_BAD_INPUT, "the template takes more than %d steps: does it end?", MAX_STEPS);
}

void viv__t_enter(vm *v) {
  if (++v->depth > MAX_DEPTH)
    viv__t_fail(v, VIV_BAD_INPUT, "maximum recursion depth exceeded (%d levels)", MAX_DEPTH);
}

void viv__t_leave(vm *v) {
  v->depth--;
}

static _Noreturn void leave(vm *v, int32_t code, const char *message) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i < v->at && i < v->source.len; i++) {
    if (v->source.ptr[i] == '\n') {
      line++;
      column = 1;
    } else if ((v->source.ptr[i] & 0xc0) != 0x80) {
      column++;
    }
  }
  char where[160];
  if (v->source.ptr)
    snprintf(where, sizeof where, "%.90s, line %zu, column %zu", v->name, line, column);
  else
    snprintf(where, sizeof where, "%.120s", v->name);
  v->status = VIV_FAIL(v->error, code, where, "%s", message);
  longjmp(v->out, 1);
}

void viv__t_fail(vm *v, int32_t code, const char *format, ...) {
  char message[700];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  leave(v, code, message);
}

void viv__t_fail_str(vm *v, int32_t code, const struct str *message) {
  char *copy = viv__t_alloc(v, message->len + 1);
  memcpy(copy, message->ptr, message->len);
  leave(v, code, copy);
}

/* ---- growing texts ---- */

void viv__t_put(vm *v, struct text *t, const char *ptr, size_t len) {
  if (!len) return;
  if (len > MAX_TEXT || t->len + len > MAX_TEXT)
    viv__t_fail(v, VIV_BAD_INPUT, "the template writes more than %zu MiB", MAX_TEXT >> 20);
  if (t->len + len > t->cap) {
    size_t cap = t->cap ? t->cap : 32;
    while (cap < t->len + len) cap *= 2;
    char *grown = viv__t_alloc(v, cap);
    if (t->len) memcpy(grown, t->ptr, t->len);
    t->ptr = grown;
    t->cap = cap;
    viv__t_step(v, t->len / 256);
  }
  memcpy(t->ptr + t->len, ptr, len);
  t->len += len;
  viv__t_step(v, len / 256);
}

void viv__t_puts(vm *v, struct text *t, const char *s) {
  viv__t_put(v, t, s, strlen(s));
}

void viv__t_put_str(vm *v, struct text *t, const struct str *s) {
  viv__t_put(v, t, s->ptr, s->len);
}

void viv__t_put_cp(vm *v, struct text *t, uint32_t cp) {
  char out[4];
  size_t n = 1;
  if (cp < 0x80) {
    out[0] = (char)cp;
  } else if (cp < 0x800) {
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 63));
    n = 2;
  } else if (cp < 0x10000) {
    out[0] = (char)(0xe0 | cp >> 12);
    out[1] = (char)(0x80 | (cp >> 6 & 63));
    out[2] = (char)(0x80 | (cp & 63));
    n = 3;
  } else {
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 63));
    out[2] = (char)(0x80 | (cp >> 6 & 63));
    out[3] = (char)(0x80 | (cp & 63));
    n = 4;
  }
  viv__t_put(v, t, out, n);
}

void viv__t_putf(vm *v, struct text *t, const char *format, ...) {
  char out[512];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(out, sizeof out, format, args);
  va_end(args);
  if (n > 0) viv__t_put(v, t, out, (size_t)n < sizeof out ? (size_t)n : sizeof out - 1);
}

value viv__t_text(vm *v, const struct text *t) {
  return viv__t_share(v, t->ptr, t->len);
}
