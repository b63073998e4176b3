/* Finding in texts: literals, characters of a class, the scanners of well-known
 * patterns, and every other regular expression through PCRE2.
 *
 * A regular expression is untrusted. PCRE2 counts the steps of a match and
 * gives up at a limit; a search begins with a small one and is repeated with a
 * larger one while the text's budget lasts, so that a hostile pattern costs
 * seconds at most, and an honest one is never cut short. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/text.h"

#include <pcre2.h>
#include <string.h>

enum { MAX_REGEX = 1 << 16 }; /* bytes; the longest published one has 5,000 */
enum { FIRST_LIMIT = 1000, STEPS_PER_BYTE = 512, MIN_BUDGET = 200000000 };
enum { HEAP_KIB = 64 << 10 };

struct viv__pattern {
  viv__find_fn find;
  pcre2_code *code;
  char *literal;
  size_t len;
  uint32_t classes; /* one character of these */
};

/* What a search in one text needs. */
typedef struct scratch {
  pcre2_match_data *data;
  pcre2_match_context *context;
} scratch;

/* ---- opening ---- */

static viv__pattern *pattern_new(void) {
  return viv__calloc(1, sizeof(viv__pattern));
}

viv__pattern *viv__pattern_literal(viv_str text) {
  viv__pattern *p = pattern_new();
  if (p) p->literal = viv__strndup(text.ptr, text.len);
  if (p && !p->literal) {
    viv__free(p);
    return NULL;
  }
  if (p) p->len = text.len;
  return p;
}

viv__pattern *viv__pattern_class(uint32_t classes) {
  viv__pattern *p = pattern_new();
  if (p) p->classes = classes;
  return p;
}

viv__pattern *viv__pattern_known(const char *regex) {
  viv__pattern *p = pattern_new();
  if (p) p->find = viv__known_pattern(regex);
  return p;
}

static int32_t compile(viv_str regex, const char *where, viv__pattern *p, viv_error *error) {
  viv__buf pattern = {0};
  const char *why = NULL;
  size_t at = 0;
  if (regex.len > MAX_REGEX)
    return VIV_FAIL(error, VIV_NEVER, where, "a regular expression of %zu bytes; at most %d",
                    (size_t)regex.len, MAX_REGEX);
  if (!viv__oniguruma(regex, &pattern, &why, &at)) {
    bool memory = pattern.failed;
    viv__buf_free(&pattern);
    if (memory) return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
    return VIV_FAIL(error, VIV_NEVER, where, "the regular expression \"%.200s\": %s at byte %zu",
                    regex.ptr, why, at);
  }
  int code = 0;
  PCRE2_SIZE place = 0;
  p->code = pcre2_compile((PCRE2_SPTR)(pattern.ptr ? pattern.ptr : ""), pattern.len,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                              PCRE2_NO_UTF_CHECK,
                          &code, &place, NULL);
  viv__buf_free(&pattern);
  if (p->code) {
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, no more */
    return VIV_OK;
  }
  if (code == PCRE2_ERROR_HEAP_FAILED) return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  char text[160] = "";
  pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
  return VIV_FAIL(error, VIV_BAD_INPUT, where, "the regular expression \"%.200s\": %s", regex.ptr,
                  text);
}

int32_t viv__pattern_open(const viv_json *node, const char *where, viv__pattern **out,
                          viv_error *error) {
  viv_str regex = viv__json_string(viv__json_get(node, "Regex")),
          literal = viv__json_string(viv__json_get(node, "String"));
  if (!regex.ptr && !literal.ptr)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"pattern\" must be {\"String\": text} or {\"Regex\": text}");
  if (!regex.ptr && literal.len > MAX_AFFIX)
    return VIV_FAIL(error, VIV_NEVER, where, "\"String\" is longer than %d bytes", MAX_AFFIX);
  viv__pattern *p = regex.ptr ? pattern_new() : viv__pattern_literal(literal);
  if (!p) return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  int32_t status = VIV_OK;
  if (regex.ptr) {
    p->find = viv__known_pattern(regex.ptr);
    if (!p->find) status = compile(regex, where, p, error);
  }
  if (status < 0)
    viv__pattern_free(p);
  else
    *out = p;
  return status;
}

void viv__pattern_free(viv__pattern *p) {
  if (!p) return;
  pcre2_code_free(p->code);
  viv__free(p->literal);
  viv__free(p);
}

/* ---- finding ---- */

void viv__finder_start(viv__finder *f, const viv__pattern *p, viv_str text) {
  if (f->p != p) {
    viv__finder_stop(f);
    f->p = p;
    f->budget = MIN_BUDGET;
  }
  f->budget += STEPS_PER_BYTE * (uint64_t)text.len;
  f->text = text;
  f->at = 0;
  f->last = SIZE_MAX;
}

static bool prepare(viv__finder *f) {
  if (f->scratch) return true;
  scratch *s = viv__calloc(1, sizeof *s);
  if (s) {
    f->scratch = s;
    s->data = pcre2_match_data_create_from_pattern(f->p->code, NULL);
    s->context = pcre2_match_context_create(NULL);
  }
  if (!s || !s->data || !s->context) return false;
  pcre2_set_heap_limit(s->context, HEAP_KIB);
  return true;
}

/* Searches from f->at; tries that hit the limit are paid from the budget, which
 * long texts fill. */
static bool find_regex(viv__finder *f, size_t *start, size_t *end) {
  if (!prepare(f)) {
    f->failed = true;
    return false;
  }
  scratch *s = f->scratch;
  uint32_t options = PCRE2_NO_UTF_CHECK;
  for (uint64_t limit = FIRST_LIMIT;;) {
    pcre2_set_match_limit(s->context, (uint32_t)limit);
    int n = pcre2_match(f->p->code, (PCRE2_SPTR)f->text.ptr, f->text.len, f->at, options, s->data,
                        s->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT && !(options & PCRE2_NO_JIT)) {
      options |= PCRE2_NO_JIT;
      continue;
    }
    if (n == PCRE2_ERROR_MATCHLIMIT && f->budget > limit && limit < UINT32_MAX / 8) {
      f->budget -= limit;
      limit *= 8;
      continue;
    }
    if (n == PCRE2_ERROR_NOMATCH) return false;
    f->failed = n < 0;
    if (f->failed) return false;
    PCRE2_SIZE *place = pcre2_get_ovector_pointer(s->data);
    *start = place[0] < f->at ? f->at : place[0]; /* \K may set it anywhere */
    *end = place[1] < *start ? *start : place[1];
    return true;
  }
}

static bool find_class(const viv__finder *f, size_t *start, size_t *end) {
  for (size_t at = f->at, next; at < f->text.len; at = next) {
    next = at;
    if (!(viv__class_of(viv__cp(f->text.ptr, &next)) & f->p->classes)) continue;
    *start = at;
    *end = next;
    return true;
  }
  return false;
}

static bool find_literal(const viv__finder *f, size_t *start, size_t *end) {
  const viv__pattern *p = f->p;
  const char *from = f->text.ptr + f->at, *hit = from;
  size_t len = f->text.len - f->at;
  if (p->len == 1)
    hit = memchr(from, p->literal[0], len);
  else if (p->len)
    hit = memmem(from, len, p->literal, p->len);
  if (!hit) return false;
  *start = (size_t)(hit - f->text.ptr);
  *end = *start + p->len;
  return true;
}

bool viv__finder_next(viv__finder *f, size_t *start, size_t *end) {
  const viv__pattern *p = f->p;
  while (f->at <= f->text.len && f->text.len && !f->failed) {
    bool found = p->find      ? p->find(f->text.ptr, f->text.len, f->at, start, end)
                 : p->code    ? find_regex(f, start, end)
                 : p->classes ? find_class(f, start, end)
                              : find_literal(f, start, end);
    if (!found) return false;
    bool again = *start == *end && *end == f->last;
    f->at = *end;
    if (*start == *end) f->at += *end < f->text.len ? viv__cp_len(f->text.ptr[*end]) : 1;
    if (again) continue;
    f->last = *end;
    return true;
  }
  return false;
}

void viv__finder_stop(viv__finder *f) {
  scratch *s = f->scratch;
  if (s) {
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->context);
    viv__free(s);
  }
  f->scratch = NULL;
}
