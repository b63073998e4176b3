/* Characters: classes, UTF-8 as Rust reads it, NFC. The tables are made by gen_unicode.py. */
#include "text/text.h"

#include <string.h>

#include "text/unicode_tables.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The last row whose start is not beyond cp; the start stands above the lowest `bits` bits. */
static uint32_t row_of(const uint32_t *rows, size_t n, int bits, uint32_t cp) {
  size_t low = 0, high = n;
  while (high - low > 1) {
    size_t mid = (low + high) / 2;
    if (rows[mid] >> bits <= cp)
      low = mid;
    else
      high = mid;
  }
  return rows[low] >> bits <= cp ? rows[low] & ((1u << bits) - 1) : 0;
}

uint32_t viv__class_of(uint32_t cp) {
  return row_of(class_rows, COUNT(class_rows), 11, cp);
}

int viv__utf8_step(const char *text, size_t len) {
  const unsigned char *s = (const unsigned char *)text;
  unsigned char first = s[0], low = 0x80, high = 0xbf; /* the range of the second byte */
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return -1;
  int need = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f; /* no surrogates */
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f; /* nothing above U+10FFFF */
  for (int i = 1; i < need; i++) {
    if ((size_t)i == len) return 0;
    if (s[i] < low || s[i] > high) return -i;
    low = 0x80;
    high = 0xbf;
  }
  return need;
}

size_t viv__utf8_bad(const char *s, size_t len) {
  size_t i = 0;
  while (i < len) {
    uint64_t word;
    if (len - i >= 8 && (memcpy(&word, s + i, 8), !(word & 0x8080808080808080u))) {
      i += 8; /* vocabularies and most texts are ASCII for long stretches */
      continue;
    }
    int n = viv__utf8_step(s + i, len - i);
    if (n <= 0) break;
    i += (size_t)n;
  }
  return i;
}

size_t viv__utf8_put(uint32_t cp, char out[4]) {
  if (cp < 0x80) {
    out[0] = (char)cp;
    return 1;
  }
  size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
  static const unsigned char head[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 63));
  out[0] = (char)(head[len] | cp);
  return len;
}

/* ---- NFC ---- */

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

static uint32_t ccc_of(uint32_t cp) {
  return cp < 0x300 ? 0 : row_of(ccc_rows, COUNT(ccc_rows), 8, cp);
}

/* A decomposed character with its combining class, in a buffer of such. */
typedef struct mark {
  uint32_t cp, ccc;
} mark;

static void put_decomposed(uint32_t cp, viv__buf *out) {
  if (cp - S_BASE < S_COUNT) {
    uint32_t s = cp - S_BASE;
    mark part[3] = {{L_BASE + s / (V_COUNT * T_COUNT), 0},
                    {V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT, 0},
                    {T_BASE + s % T_COUNT, 0}};
    viv__buf_add(out, part, sizeof part[0] * (s % T_COUNT ? 3 : 2));
    return;
  }
  size_t low = 0, high = cp < 0xc0 ? 0 : COUNT(decomposition);
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (decomposition[mid].cp < cp)
      low = mid + 1;
    else
      high = mid;
  }
  if (cp >= 0xc0 && low < COUNT(decomposition) && decomposition[low].cp == cp) {
    put_decomposed(decomposition[low].a, out);
    if (decomposition[low].b) put_decomposed(decomposition[low].b, out);
    return;
  }
  mark m = {cp, ccc_of(cp)};
  viv__buf_add(out, &m, sizeof m);
}

/* The character that a and b compose to, or 0. */
static uint32_t compose(uint32_t a, uint32_t b) {
  if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
    return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
  if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
    return a + (b - T_BASE);
  size_t low = 0, high = COUNT(composition);
  while (low < high) {
    size_t mid = (low + high) / 2, d = composition[mid];
    if (decomposition[d].a < a || (decomposition[d].a == a && decomposition[d].b < b))
      low = mid + 1;
    else
      high = mid;
  }
  if (low == COUNT(composition)) return 0;
  size_t d = composition[low];
  return decomposition[d].a == a && decomposition[d].b == b ? decomposition[d].cp : 0;
}

/* Canonical order: runs of marks sorted by class, stable. A counting sort per class would do for
 * hostile runs; merging keeps it n log n without knowing the classes. */
static void sort_marks(mark *m, size_t n, mark *spare) {
  if (n < 2) return;
  size_t half = n / 2, a = 0, b = half;
  sort_marks(m, half, spare);
  sort_marks(m + half, n - half, spare);
  memcpy(spare, m, n * sizeof *m);
  for (size_t i = 0; i < n; i++)
    m[i] = b == n || (a < half && spare[a].ccc <= spare[b].ccc) ? spare[a++] : spare[b++];
}

void viv__nfc(viv_str text, viv__buf *out) {
  /* Characters below U+0300 neither combine nor decompose into what is not composed again. */
  size_t plain = 0;
  while (plain < text.len && (unsigned char)text.ptr[plain] < 0xcc) plain++;
  if (plain == text.len) {
    viv__buf_add(out, text.ptr, text.len);
    return;
  }
  viv__buf marks = {0}, spare = {0};
  for (size_t i = 0; i < text.len;) put_decomposed(viv__cp(text.ptr, &i), &marks);
  if (!marks.failed) viv__buf_add(&spare, marks.ptr, marks.len);
  if (marks.failed || spare.failed) {
    out->failed = true;
    goto done;
  }
  mark *m = (mark *)(void *)marks.ptr;
  size_t n = marks.len / sizeof *m;
  for (size_t i = 0; i < n;) {
    size_t end = i + 1;
    if (m[i].ccc) {
      while (end < n && m[end].ccc) end++;
      sort_marks(m + i, end - i, (mark *)(void *)spare.ptr);
    }
    i = end;
  }
  /* A character composes with the last starter unless one of its class or above stands between. */
  size_t kept = 0, starter = SIZE_MAX;
  for (size_t i = 0; i < n; i++) {
    uint32_t both = 0;
    if (starter != SIZE_MAX) {
      bool next = kept == starter + 1;
      if (next || (m[kept - 1].ccc < m[i].ccc && m[kept - 1].ccc))
        both = compose(m[starter].cp, m[i].cp);
    }
    if (both) {
      m[starter].cp = both;
      continue;
    }
    if (!m[i].ccc) starter = kept;
    m[kept++] = m[i];
  }
  for (size_t i = 0; i < kept; i++) {
    char bytes[4];
    viv__buf_add(out, bytes, viv__utf8_put(m[i].cp, bytes));
  }
done:
  viv__buf_free(&marks);
  viv__buf_free(&spare);
}
