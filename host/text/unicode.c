/* Characters: classes, scripts, lower case, UTF-8 as Rust reads it, normal
 * forms.
 *
 * The tables are made by gen_unicode.py; decompositions, compositions and
 * combining classes are utf8proc's, without what is newer than the library's
 * Unicode 9. */
#include "text/text.h"

#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

#include "text/unicode_tables.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { END_OF_UNICODE = 0x110000 };

/* The rows spread out, so that a class is one look-up. */
static uint8_t class_index[END_OF_UNICODE];
static pthread_once_t spread_once = PTHREAD_ONCE_INIT;

static void spread(void) {
  for (size_t i = 0; i < COUNT(class_rows); i++) {
    uint32_t start = class_rows[i] >> 8,
             end = i + 1 < COUNT(class_rows) ? class_rows[i + 1] >> 8 : END_OF_UNICODE;
    memset(class_index + start, (int)(class_rows[i] & 255), end - start);
  }
}

uint32_t viv__class_of(uint32_t cp) {
  pthread_once(&spread_once, spread);
  return cp < END_OF_UNICODE ? class_masks[class_index[cp]] : 0;
}

int viv__script_of(uint32_t cp) {
  size_t low = 0, high = COUNT(script_rows);
  while (high - low > 1) {
    size_t mid = (low + high) / 2;
    if (script_rows[mid] >> 8 <= cp)
      low = mid;
    else
      high = mid;
  }
  return (int)(script_rows[low] & 255);
}

int viv__lower(uint32_t cp, uint32_t out[2]) {
  if (cp < 0x80) {
    out[0] = cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    return 1;
  }
  if (cp == 0x130) { /* the only one that becomes two */
    out[0] = 'i';
    out[1] = 0x307;
    return 2;
  }
  size_t low = 0, high = COUNT(lower_rows);
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (lower_rows[mid].cp < cp)
      low = mid + 1;
    else
      high = mid;
  }
  out[0] = low < COUNT(lower_rows) && lower_rows[low].cp == cp
               ? lower_rows[low].lower
               : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
  return 1;
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

/* ---- normal forms ---- */

/* A decomposed character with its combining class, and how it came about (see
 * viv__edit_put). */
typedef struct mark {
  uint32_t cp;
  int16_t ccc;
  int16_t change;
} mark;

/* Marks that came after the library's tables combine with nothing. */
static int16_t ccc_of(uint32_t cp) {
  if (cp < 0x300) return 0;
  int16_t ccc = utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
  return ccc && !(viv__class_of(cp) & CLASS_MARK) ? 0 : ccc;
}

static void put_decomposed(uint32_t cp, bool compat, viv__buf *out) {
  utf8proc_int32_t part[32];
  int boundary = 0;
  utf8proc_ssize_t n = 1;
  part[0] = (utf8proc_int32_t)cp;
  bool plain =
      cp < 0xa0 || viv__class_of(cp) & (uint32_t)(compat ? CLASS_PLAIN_COMPAT : CLASS_PLAIN);
  if (!plain)
    n = utf8proc_decompose_char((utf8proc_int32_t)cp, part, COUNT(part),
                                UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0), &boundary);
  for (utf8proc_ssize_t i = 0; i < n; i++) {
    mark m = {(uint32_t)part[i], ccc_of((uint32_t)part[i]), i > 0};
    viv__buf_add(out, &m, sizeof m);
  }
}

/* The character that a and b compose to, or 0. */
static uint32_t compose(uint32_t a, uint32_t b) {
  if (b < 0x300) return 0;
  utf8proc_int32_t pair[3] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b, 0};
  if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) return 0;
  return viv__class_of((uint32_t)pair[0]) & CLASS_PLAIN ? 0 : (uint32_t)pair[0];
}

/* Canonical order: runs of marks sorted by class, stable. A counting sort per
 * class would do for hostile runs; merging keeps it n log n without knowing the
 * classes. */
static void sort_marks(mark *m, size_t n, mark *spare) {
  if (n < 2) return;
  size_t half = n / 2, a = 0, b = half;
  sort_marks(m, half, spare);
  sort_marks(m + half, n - half, spare);
  memcpy(spare, m, n * sizeof *m);
  for (size_t i = 0; i < n; i++)
    m[i] = b == n || (a < half && spare[a].ccc <= spare[b].ccc) ? spare[a++] : spare[b++];
}

/* A character composes with the last starter unless one of its class or above
 * stands between. The new one replaces what both replaced. */
static size_t compose_marks(mark *m, size_t n) {
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
      m[starter].change = (int16_t)(m[starter].change + m[i].change - 1);
      continue;
    }
    if (!m[i].ccc) starter = kept;
    m[kept++] = m[i];
  }
  return kept;
}

/* The bytes from `at` that stay as they are: plain characters before another
 * plain one. */
static size_t plain_run(const viv__aligned *in, size_t at) {
  size_t end = at;
  while (end < in->len && !(in->text[end] & 0x80)) end++;
  return end < in->len && end > at ? end - 1 : end;
}

static void form_block(int form, viv__edit *e, size_t end, viv__buf *marks, viv__buf *spare) {
  bool compat = form == FORM_NFKC || form == FORM_NFKD;
  marks->len = spare->len = 0;
  for (size_t i = e->at; i < end;) put_decomposed(viv__cp(e->in->text, &i), compat, marks);
  if (!marks->failed) viv__buf_add(spare, marks->ptr, marks->len);
  if (marks->failed || spare->failed) {
    e->out->failed = true;
    return;
  }
  mark *m = (mark *)(void *)marks->ptr;
  size_t n = marks->len / sizeof *m;
  for (size_t i = 0; i < n;) {
    size_t stop = i + 1;
    if (m[i].ccc) {
      while (stop < n && m[stop].ccc) stop++;
      sort_marks(m + i, stop - i, (mark *)(void *)spare->ptr);
    }
    i = stop;
  }
  if (form == FORM_NFC || form == FORM_NFKC) n = compose_marks(m, n);
  for (size_t i = 0; i < n; i++) viv__edit_put(e, m[i].cp, m[i].change);
}

void viv__normal_form(int form, const viv__aligned *in, viv__aligned *out) {
  viv__buf marks = {0}, spare = {0};
  viv__edit e = {in, out, 0};
  while (e.at < in->len && !out->failed) {
    size_t end = plain_run(in, e.at);
    if (end > e.at) {
      viv__aligned_copy(out, in, e.at, end);
      e.at = end;
      continue;
    }
    /* One plain character, which marks may follow, and all up to the next one.
     */
    end = e.at + viv__cp_len(in->text[e.at]);
    while (end < in->len && in->text[end] & 0x80) end++;
    form_block(form, &e, end, &marks, &spare);
    if (e.at < end) e.at = end;
  }
  viv__buf_free(&marks);
  viv__buf_free(&spare);
}
