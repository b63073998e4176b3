/* Cases and classes of characters, as Python's str knows them. */
#include <string.h>
#include <utf8proc.h>

#include "template/internal.h"

uint32_t viv__t_cp(const char *s, size_t len, int *bytes) {
  const unsigned char *u = (const unsigned char *)s;
  if (u[0] < 0x80 || len < 2) {
    *bytes = 1;
    return u[0];
  }
  if (u[0] < 0xe0 || len < 3) {
    *bytes = 2;
    return (uint32_t)(u[0] & 31) << 6 | (u[1] & 63);
  }
  if (u[0] < 0xf0 || len < 4) {
    *bytes = 3;
    return (uint32_t)(u[0] & 15) << 12 | (uint32_t)(u[1] & 63) << 6 | (u[2] & 63);
  }
  *bytes = 4;
  return (uint32_t)(u[0] & 7) << 18 | (uint32_t)(u[1] & 63) << 12 | (uint32_t)(u[2] & 63) << 6 |
         (u[3] & 63);
}

size_t viv__t_chars(const char *s, size_t len) {
  size_t n = 0;
  for (size_t i = 0; i < len; i++) n += (s[i] & 0xc0) != 0x80;
  return n;
}

size_t viv__t_byte_of(const struct str *s, size_t at) {
  if (s->chars == s->len) return at;
  size_t i = 0;
  while (at && i < s->len) {
    i++;
    while (i < s->len && (s->ptr[i] & 0xc0) == 0x80) i++;
    at--;
  }
  return i;
}

bool viv__t_space(uint32_t cp) {
  if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32);
  return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
         cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static int category(uint32_t cp) {
  return (int)utf8proc_category((utf8proc_int32_t)cp);
}

bool viv__t_alpha(uint32_t cp) {
  int c = category(cp);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool viv__t_digit(uint32_t cp) {
  return category(cp) == UTF8PROC_CATEGORY_ND;
}

bool viv__t_word(uint32_t cp) {
  int c = category(cp);
  return cp == '_' || viv__t_alpha(cp) || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
}

bool viv__t_upper(uint32_t cp) {
  return utf8proc_isupper((utf8proc_int32_t)cp);
}

bool viv__t_lower(uint32_t cp) {
  return utf8proc_islower((utf8proc_int32_t)cp);
}

/* What repr() shows as it is: no separators but the space, no controls, nothing unassigned. */
bool viv__t_printable(uint32_t cp) {
  int c = category(cp);
  return cp == ' ' || (c != UTF8PROC_CATEGORY_CN && c < UTF8PROC_CATEGORY_ZS);
}

void viv__t_put_cased(vm *v, struct text *t, uint32_t cp, int how) {
  if (how == CASE_LOWER) {
    if (cp == 0x130) { /* I with a dot keeps the dot */
      viv__t_put_cp(v, t, 'i');
      viv__t_put_cp(v, t, 0x307);
      return;
    }
    viv__t_put_cp(v, t, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    return;
  }
  /* Small letters whose capital is several characters (sharp s, ligatures) are those that fold to
   * several; the capital is that of the folded form. */
  if (cp >= 0x80 && viv__t_lower(cp)) {
    utf8proc_int32_t folded[8];
    int last = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)cp, folded, 8, UTF8PROC_CASEFOLD, &last);
    if (n > 1 && n <= 8) {
      for (utf8proc_ssize_t i = 0; i < n; i++)
        viv__t_put_cp(v, t,
                      (uint32_t)(i && how == CASE_TITLE ? folded[i] : utf8proc_toupper(folded[i])));
      return;
    }
  }
  utf8proc_int32_t one = how == CASE_TITLE ? utf8proc_totitle((utf8proc_int32_t)cp)
                                           : utf8proc_toupper((utf8proc_int32_t)cp);
  viv__t_put_cp(v, t, (uint32_t)one);
}

/* A capital sigma at the end of a word has another small form. */
static bool final_sigma(const struct str *s, size_t at, size_t after) {
  int n;
  size_t i = at;
  while (i && (s->ptr[i - 1] & 0xc0) == 0x80) i--;
  if (!i) return false;
  i--;
  while (i && (s->ptr[i] & 0xc0) == 0x80) i--;
  if (!viv__t_alpha(viv__t_cp(s->ptr + i, s->len - i, &n))) return false;
  return after >= s->len || !viv__t_alpha(viv__t_cp(s->ptr + after, s->len - after, &n));
}

void viv__t_put_case(vm *v, struct text *t, const struct str *s, int how) {
  for (size_t i = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    if (cp == 0x3a3 && how == CASE_LOWER && final_sigma(s, i, i + (size_t)n))
      viv__t_put_cp(v, t, 0x3c2);
    else
      viv__t_put_cased(v, t, cp, how);
    i += (size_t)n;
  }
}
