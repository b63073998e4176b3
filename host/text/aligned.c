/* Text that knows which bytes of the original it came from, and pieces of it.
 */
#include "text/text.h"

#include <string.h>

void viv__aligned_free(viv__aligned *a) {
  viv__free(a->text);
  viv__free(a->span);
  *a = (viv__aligned){0};
}

bool viv__aligned_room(viv__aligned *a, size_t more) {
  if (a->failed) return false;
  if (more <= a->cap - a->len) return true;
  size_t cap = a->cap ? a->cap * 2 : 256;
  while (cap - a->len < more && cap <= MAX_FORM) cap *= 2;
  char *text = cap <= MAX_FORM ? viv__realloc(a->text, cap) : NULL;
  if (text) a->text = text;
  viv__span *span = text ? viv__realloc(a->span, cap * sizeof *span) : NULL;
  if (!span) {
    a->failed = true;
    return false;
  }
  a->span = span;
  a->cap = cap;
  return true;
}

void viv__aligned_add(viv__aligned *a, const char *text, size_t len, viv__span span) {
  if (!len || !viv__aligned_room(a, len)) return;
  memcpy(a->text + a->len, text, len);
  for (size_t i = 0; i < len; i++) a->span[a->len + i] = span;
  a->len += len;
}

void viv__aligned_copy(viv__aligned *a, const viv__aligned *from, size_t start, size_t end) {
  if (start == end || !viv__aligned_room(a, end - start)) return;
  memcpy(a->text + a->len, from->text + start, end - start);
  memcpy(a->span + a->len, from->span + start, (end - start) * sizeof *a->span);
  a->len += end - start;
}

void viv__aligned_original(viv__aligned *a, const char *text, size_t len, size_t start) {
  if (!len || !viv__aligned_room(a, len)) return;
  memcpy(a->text + a->len, text, len);
  viv__span *span = a->span + a->len;
  for (size_t i = 0; i < len;) {
    size_t n = viv__cp_len(text[i]);
    viv__span s = {(uint32_t)(start + i), (uint32_t)(start + i + n)};
    for (size_t k = 0; k < n; k++) span[i++] = s;
  }
  a->len += len;
}

void viv__edit_put(viv__edit *e, uint32_t cp, int change) {
  const viv__aligned *in = e->in;
  char bytes[4];
  size_t len = viv__utf8_put(cp, bytes), from = e->at;
  viv__span span;
  if (change > 0 && from) from--;
  if (from >= in->len) from = in->len ? in->len - 1 : 0;
  span = in->len ? in->span[from] : (viv__span){0, 0};
  if (change > 0 && !e->at) span.end = span.start; /* nothing stands before it */
  if (change <= 0) viv__edit_skip(e, (size_t)(1 - change));
  viv__aligned_add(e->out, bytes, len, span);
}

void viv__edit_skip(viv__edit *e, size_t characters) {
  while (characters-- && e->at < e->in->len) e->at += viv__cp_len(e->in->text[e->at]);
}

/* ---- pieces ---- */

void viv__pieces_free(viv__pieces *p) {
  viv__aligned_free(&p->body);
  viv__free(p->item);
  *p = (viv__pieces){0};
}

void viv__pieces_add(viv__pieces *p, size_t at, size_t len) {
  if (!len) return;
  if (p->n == p->cap) {
    size_t cap = p->cap ? p->cap * 2 : 64;
    viv__piece *grown = p->body.failed ? NULL : viv__realloc(p->item, cap * sizeof *grown);
    if (!grown) {
      p->body.failed = true;
      return;
    }
    p->item = grown;
    p->cap = cap;
  }
  p->item[p->n++] = (viv__piece){(uint32_t)at, (uint32_t)len};
}
