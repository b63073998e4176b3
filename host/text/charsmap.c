/* "Precompiled" of tokenizer.json: the character map of a sentencepiece model,
 * in base64.
 *
 *   u32 little-endian: bytes of the trie; a double-array trie of u32 units
 * (Darts-clone's layout); replacements, each ended by a NUL
 *
 * As in the library a grapheme cluster of less than six bytes is looked up as a
 * whole first - where its first bytes that the trie knows decide - and else
 * each of its characters. */
#include "text/text.h"

#include <string.h>
#include <utf8proc.h>

struct viv__charsmap {
  uint32_t *unit;
  size_t units;
  char *text; /* the replacements, terminated */
  size_t len;
};

static const char where[] = "tokenizer.json, normalizer";

/* ---- opening ---- */

static int sextet(char ch) {
  return ch >= 'A' && ch <= 'Z'   ? ch - 'A'
         : ch >= 'a' && ch <= 'z' ? ch - 'a' + 26
         : ch >= '0' && ch <= '9' ? ch - '0' + 52
         : ch == '+'              ? 62
         : ch == '/'              ? 63
                                  : -1;
}

/* The bytes that base64 stands for, in out, which has room for 3/4 of it.
 * False: *bad is the place. */
static bool from_base64(viv_str in, unsigned char *out, size_t *n, size_t *bad) {
  uint32_t bits = 0;
  int held = 0;
  size_t len = in.len;
  *n = 0;
  while (len && in.ptr[len - 1] == '=' && in.len - len < 2) len--;
  for (size_t i = 0; i < len; i++) {
    int value = sextet(in.ptr[i]);
    *bad = i;
    if (value < 0) return false;
    bits = bits << 6 | (uint32_t)value;
    held += 6;
    if (held >= 8) out[(*n)++] = (unsigned char)(bits >> (held -= 8));
  }
  *bad = len;
  return held < 6;
}

static int32_t take_apart(const unsigned char *bytes, size_t n, viv__charsmap *m,
                          viv_error *error) {
  uint32_t trie = 0;
  if (n >= 4) trie = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
  if (n < 4 || trie > n - 4 || trie % 4 || !trie)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"precompiled_charsmap\" says that its trie has %u bytes, "
                    "but holds %zu",
                    (unsigned)trie, n < 4 ? 0 : n - 4);
  m->units = trie / 4;
  m->unit = viv__malloc(trie);
  m->len = n - 4 - trie;
  m->text = viv__strndup((const char *)bytes + 4 + trie, m->len);
  if (!m->unit || !m->text) return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  for (size_t i = 0; i < m->units; i++) {
    const unsigned char *u = bytes + 4 + 4 * i;
    m->unit[i] = u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
  }
  memcpy(m->text, bytes + 4 + trie, m->len);
  size_t whole = viv__utf8_bad(m->text, m->len);
  if (whole < m->len)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the replacements of \"precompiled_charsmap\" are not "
                    "UTF-8 at byte %zu",
                    whole + 4 + trie);
  return VIV_OK;
}

int32_t viv__charsmap_open(viv_str base64, viv__charsmap **out, viv_error *error) {
  viv__charsmap *m = viv__calloc(1, sizeof *m);
  unsigned char *bytes = viv__malloc(base64.len + 1);
  size_t n = 0, bad = 0;
  int32_t status = VIV_OK;
  if (!m || !bytes)
    status = VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  else if (!from_base64(base64, bytes, &n, &bad))
    status = VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "\"precompiled_charsmap\" is not base64 at byte %zu", bad);
  else
    status = take_apart(bytes, n, m, error);
  viv__free(bytes);
  if (status < 0)
    viv__charsmap_free(m);
  else
    *out = m;
  return status;
}

void viv__charsmap_free(viv__charsmap *m) {
  if (!m) return;
  viv__free(m->unit);
  viv__free(m->text);
  viv__free(m);
}

/* ---- running ---- */

static size_t offset_of(uint32_t unit) {
  return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The replacement of the shortest start of text that the trie holds. */
static bool look_up(const viv__charsmap *m, const char *text, size_t len, viv_str *to) {
  size_t node = offset_of(m->unit[0]);
  for (size_t i = 0; i < len && text[i]; i++) {
    node ^= (unsigned char)text[i];
    if (node >= m->units) return false;
    uint32_t unit = m->unit[node];
    if ((unit & (1u << 31 | 0xff)) != (unsigned char)text[i]) return false;
    node ^= offset_of(unit);
    if (node >= m->units) return false;
    if (!(unit >> 8 & 1)) continue;
    size_t at = m->unit[node] & ((1u << 31) - 1);
    if (at > m->len || (at < m->len && ((unsigned char)m->text[at] & 0xc0) == 0x80)) return false;
    *to = viv__str(m->text + at);
    return true;
  }
  return false;
}

/* Pending output: the last character may still have to drop what follows it. */
typedef struct pending {
  viv__edit e;
  bool any;
  uint32_t cp;
  int change;
} pending;

static void push(pending *p, uint32_t cp, int change) {
  if (p->any) viv__edit_put(&p->e, p->cp, p->change);
  p->any = true;
  p->cp = cp;
  p->change = change;
}

static size_t characters(const char *text, size_t len) {
  size_t n = 0;
  for (size_t i = 0; i < len; n++) i += viv__cp_len(text[i]);
  return n;
}

static void substitute(pending *p, const char *from, size_t len, viv_str to) {
  size_t old = characters(from, len), new = characters(to.ptr, to.len), n = 0;
  for (size_t i = 0; i < to.len; n++) {
    uint32_t cp = viv__cp(to.ptr, &i);
    push(p, cp, n >= old);
  }
  if (new < old && p->any) p->change -= (int)(old - new);
}

/* The end of the grapheme cluster that begins at `at`. */
static size_t cluster_end(const viv__aligned *in, size_t at) {
  size_t next = at;
  utf8proc_int32_t state = 0, before = (utf8proc_int32_t)viv__cp(in->text, &next);
  while (next < in->len) {
    size_t end = next;
    utf8proc_int32_t cp = (utf8proc_int32_t)viv__cp(in->text, &end);
    if (utf8proc_grapheme_break_stateful(before, cp, &state)) break;
    before = cp;
    next = end;
  }
  return next;
}

void viv__charsmap_apply(const viv__charsmap *m, const viv__aligned *in, viv__aligned *out) {
  pending p = {.e = {in, out, 0}};
  viv_str to;
  for (size_t at = 0, end; at < in->len && !out->failed; at = end) {
    bool plain = at + 1 < in->len && in->text[at] >= ' ' && in->text[at] < 0x7f &&
                 in->text[at + 1] >= ' ' && in->text[at + 1] < 0x7f;
    end = plain ? at + 1 : cluster_end(in, at);
    if (end - at < 6 && look_up(m, in->text + at, end - at, &to)) {
      substitute(&p, in->text + at, end - at, to);
      continue;
    }
    for (size_t i = at, next; i < end; i = next) {
      next = i;
      uint32_t cp = viv__cp(in->text, &next);
      if (look_up(m, in->text + i, next - i, &to))
        substitute(&p, in->text + i, next - i, to);
      else
        push(&p, cp, 0);
    }
  }
  if (p.any) viv__edit_put(&p.e, p.cp, p.change);
}
