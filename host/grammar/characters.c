/* Sets of characters as automata over the bytes of UTF-8. */
#include <stdlib.h>
#include <string.h>

#include "grammar/internal.h"

enum { LAST = 0x10ffff };

void viv__charset_add(viv__charset *c, int32_t low, int32_t high) {
  if (c->failed || low > high) return;
  if (c->n == c->cap) {
    int32_t cap = c->cap ? 2 * c->cap : 16;
    viv__range *wider = viv__realloc(c->range, (size_t)cap * sizeof *wider);
    if (!wider) {
      c->failed = true;
      return;
    }
    c->range = wider;
    c->cap = cap;
  }
  c->range[c->n++] = (viv__range){low, high};
}

void viv__charset_free(viv__charset *c) {
  viv__free(c->range);
  *c = (viv__charset){0};
}

static int by_low(const void *a, const void *b) {
  const viv__range *x = a, *y = b;
  return (x->low > y->low) - (x->low < y->low);
}

void viv__charset_normalise(viv__charset *c) {
  int32_t n = 0;
  if (!c->n) return;
  qsort(c->range, (size_t)c->n, sizeof *c->range, by_low);
  for (int32_t i = 1; i < c->n; i++) {
    if (c->range[i].low <= c->range[n].high + 1) {
      if (c->range[i].high > c->range[n].high) c->range[n].high = c->range[i].high;
    } else {
      c->range[++n] = c->range[i];
    }
  }
  c->n = n + 1;
}

void viv__charset_negate(viv__charset *c) {
  viv__charset out = {.failed = c->failed};
  int32_t at = 0;
  viv__charset_normalise(c);
  for (int32_t i = 0; i < c->n; i++) {
    viv__charset_add(&out, at, c->range[i].low - 1);
    at = c->range[i].high + 1;
  }
  viv__charset_add(&out, at, LAST);
  viv__charset_free(c);
  *c = out;
}

int viv__utf8_read(const char *p, const char *end, int32_t *code) {
  unsigned char c = (unsigned char)*p;
  int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
  if (!n || end - p < n || !viv__utf8_valid(p, (size_t)n)) return 0;
  *code = n == 1 ? c : c & (0x7f >> n);
  for (int i = 1; i < n; i++) *code = *code << 6 | (p[i] & 0x3f);
  return n;
}

static int encode(int32_t c, unsigned char out[4]) {
  if (c < 0x80) {
    out[0] = (unsigned char)c;
    return 1;
  }
  int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3f));
  out[0] = (unsigned char)(0xf00 >> n | c);
  return n;
}

/* From low to high, encodings of n bytes. Below a common first part the range splits into a beginning,
 * whole blocks and an end. */
static void add_bytes(viv__grammar *g, viv__net p, const unsigned char *low,
                      const unsigned char *high, int n) {
  static const unsigned char least[] = {0x80, 0x80, 0x80}, most[] = {0xbf, 0xbf, 0xbf};
  if (n == 1) {
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.from, p.to, *low, *high, 0);
    return;
  }
  int first = *low, last = *high;
  if (first == last) {
    viv__net rest = {viv__grammar_state(g), p.to};
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.from, rest.from, first, first, 0);
    add_bytes(g, rest, low + 1, high + 1, n - 1);
    return;
  }
  if (memcmp(low + 1, least, (size_t)n - 1)) {
    viv__net rest = {viv__grammar_state(g), p.to};
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.from, rest.from, first, first, 0);
    add_bytes(g, rest, low + 1, most, n - 1);
    first++;
  }
  if (memcmp(high + 1, most, (size_t)n - 1)) {
    viv__net rest = {viv__grammar_state(g), p.to};
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.from, rest.from, last, last, 0);
    add_bytes(g, rest, least, high + 1, n - 1);
    last--;
  }
  if (first <= last) {
    viv__net rest = {viv__grammar_state(g), p.to};
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.from, rest.from, first, last, 0);
    add_bytes(g, rest, least, most, n - 1);
  }
}

/* The plain form of a character that JSON escapes; NULL: it stands for itself. */
static const char *escape(int32_t c, char buffer[8]) {
  static const char *const named[] = {"\\b", "\\t", "\\n", NULL, "\\f", "\\r"};
  if (c == '"') return "\\\"";
  if (c == '\\') return "\\\\";
  if (c >= 8 && c <= 13 && named[c - 8]) return named[c - 8];
  if (c >= 0x20) return NULL;
  snprintf(buffer, 8, "\\u%04x", (unsigned)c);
  return buffer;
}

int32_t viv__plain_text(viv_str text) {
  int32_t n = 0, code;
  for (size_t i = 0; i < text.len; n++) {
    int len = viv__utf8_read(text.ptr + i, text.ptr + text.len, &code);
    if (!len || code < 0x20 || code == '"' || code == '\\') return 0;
    i += (size_t)len;
  }
  return n;
}

void viv__net_json_text(viv__buf *out, viv_str text) {
  char buffer[8];
  for (size_t i = 0; i < text.len; i++) {
    const char *e = escape((unsigned char)text.ptr[i], buffer);
    if (e)
      viv__buf_str(out, e);
    else
      viv__buf_add(out, text.ptr + i, 1);
  }
}

static void add_text(viv__grammar *g, viv__net p, const char *text) {
  viv__net t = viv__net_bytes(g, viv__str(text));
  viv__grammar_edge(g, VIV__EDGE_EMPTY, p.from, t.from, 0, 0, 0);
  viv__grammar_edge(g, VIV__EDGE_EMPTY, t.to, p.to, 0, 0, 0);
}

static void add_range(viv__grammar *g, viv__net p, int32_t low, int32_t high) {
  static const int32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, LAST};
  for (int i = 0; i < 6 && low <= high; i++) {
    int32_t to = high < ends[i] ? high : ends[i];
    if (low > to) continue;
    unsigned char a[4], b[4];
    int n = encode(low, a);
    encode(to, b);
    if (i != 3) add_bytes(g, p, a, b, n); /* surrogates are no characters */
    low = to + 1;
  }
}

viv__net viv__net_chars(viv__grammar *g, viv__charset *c, bool json) {
  viv__net p = viv__net_never(g);
  char buffer[8];
  if (c->failed) g->failed = true;
  viv__charset_normalise(c);
  for (int32_t i = 0; i < c->n; i++) {
    int32_t low = c->range[i].low, high = c->range[i].high;
    for (int32_t k = low; json && k <= high && k <= '\\'; k++) {
      const char *e = escape(k, buffer);
      if (!e) continue;
      add_text(g, p, e);
      if (low < k) add_range(g, p, low, k - 1);
      low = k + 1;
    }
    if (low <= high) add_range(g, p, low, high);
  }
  return p;
}
