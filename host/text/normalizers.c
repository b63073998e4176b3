/* "normalizer" of tokenizer.json: a text rewritten before it is cut, step by
 * step. Which bytes of the original each byte comes from follows the library's
 * rules, since offsets are made of it. */
#include "text/text.h"

#include <string.h>

enum { MAX_STEPS = 64 };

typedef enum step_kind {
  NORMAL_FORM,
  LOWERCASE,
  STRIP_ACCENTS,
  STRIP,
  PREPEND,
  REPLACE,
  NMT,
  BERT,
  PRECOMPILED,
  BYTE_LEVEL
} step_kind;

typedef struct step {
  step_kind kind;
  int form;   /* NORMAL_FORM */
  char *text; /* PREPEND, REPLACE: what is put in */
  size_t text_len;
  viv__pattern *pattern;               /* REPLACE */
  viv__charsmap *map;                  /* PRECOMPILED */
  bool left, right;                    /* STRIP */
  bool clean, chinese, accents, lower; /* BERT */
} step;

struct viv__normalizer {
  size_t n;
  step step[MAX_STEPS];
};

static const char where[] = "tokenizer.json, normalizer";

/* ---- opening ---- */

static int32_t open_bert(const viv_json *node, step *s, viv_error *error) {
  int32_t status = viv__flag_member(node, "clean_text", where, -1, &s->clean, error);
  if (status >= 0)
    status = viv__flag_member(node, "handle_chinese_chars", where, -1, &s->chinese, error);
  if (status >= 0) status = viv__flag_member(node, "lowercase", where, -1, &s->lower, error);
  if (status >= 0)
    status = viv__flag_member(node, "strip_accents", where, s->lower, &s->accents, error);
  return status;
}

static int32_t open_one(const viv_json *node, step *s, viv_error *error) {
  static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
  const char *type = viv__json_text(node, "type", "");
  int32_t status = VIV_OK;
  for (int i = 0; i < 4; i++) {
    if (strcmp(type, forms[i])) continue;
    s->kind = NORMAL_FORM;
    s->form = i;
    return VIV_OK;
  }
  if (!strcmp(type, "Lowercase")) {
    s->kind = LOWERCASE;
  } else if (!strcmp(type, "StripAccents")) {
    s->kind = STRIP_ACCENTS;
  } else if (!strcmp(type, "Nmt")) {
    s->kind = NMT;
  } else if (!strcmp(type, "ByteLevel")) {
    s->kind = BYTE_LEVEL;
  } else if (!strcmp(type, "Strip")) {
    s->kind = STRIP;
    status = viv__flag_member(node, "strip_left", where, -1, &s->left, error);
    if (status >= 0) status = viv__flag_member(node, "strip_right", where, -1, &s->right, error);
  } else if (!strcmp(type, "Prepend")) {
    s->kind = PREPEND;
    status = viv__string_member(node, "prepend", where, &s->text, &s->text_len, error);
  } else if (!strcmp(type, "Replace")) {
    s->kind = REPLACE;
    status = viv__pattern_open(viv__json_get(node, "pattern"), where, &s->pattern, error);
    if (status >= 0)
      status = viv__string_member(node, "content", where, &s->text, &s->text_len, error);
  } else if (!strcmp(type, "BertNormalizer")) {
    s->kind = BERT;
    status = open_bert(node, s, error);
  } else if (!strcmp(type, "Precompiled")) {
    s->kind = PRECOMPILED;
    viv_str map = viv__json_string(viv__json_get(node, "precompiled_charsmap"));
    if (!map.ptr)
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "Precompiled needs a string \"precompiled_charsmap\"");
    status = viv__charsmap_open(map, &s->map, error);
  } else {
    status = VIV_FAIL(error, VIV_NEVER, where, "the type \"%.60s\" is not known", type);
  }
  return status;
}

/* Appends a node's steps; a Sequence is walked in order. JSON depth is bounded
 * by the parser. */
static int32_t open_steps(const viv_json *node, viv__normalizer *n, viv_error *error) {
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  if (!strcmp(viv__json_text(node, "type", ""), "Sequence")) {
    const viv_json *list = viv__json_get(node, "normalizers");
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence needs a list \"normalizers\"");
    int64_t count = viv__json_count(list);
    if (count > MAX_STEPS)
      return VIV_FAIL(error, VIV_NEVER, where, "a Sequence of %lld steps; at most %d",
                      (long long)count, MAX_STEPS);
    for (int64_t i = 0; i < count; i++) {
      int32_t status = open_steps(viv__json_item(list, i), n, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  if (n->n == MAX_STEPS) return VIV_FAIL(error, VIV_NEVER, where, "more than %d steps", MAX_STEPS);
  return open_one(node, &n->step[n->n++], error);
}

int32_t viv__normalizer_open(const viv_json *node, viv__normalizer **out, viv_error *error) {
  viv__normalizer *n = viv__calloc(1, sizeof *n);
  if (!n) return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  int32_t kind = viv__json_type(node), status = VIV_OK;
  if (kind != VIV_JSON_ABSENT && kind != VIV_JSON_NULL) status = open_steps(node, n, error);
  if (status < 0)
    viv__normalizer_free(n);
  else
    *out = n;
  return status;
}

void viv__normalizer_free(viv__normalizer *n) {
  if (!n) return;
  for (size_t i = 0; i < n->n; i++) {
    viv__free(n->step[i].text);
    viv__pattern_free(n->step[i].pattern);
    viv__charsmap_free(n->step[i].map);
  }
  viv__free(n);
}

/* ---- running ---- */

static void lowercase(const viv__aligned *in, viv__aligned *out) {
  viv__edit e = {in, out, 0};
  while (e.at < in->len && !out->failed) {
    size_t next = e.at;
    uint32_t to[2];
    int n = viv__lower(viv__cp(in->text, &next), to);
    for (int i = 0; i < n; i++) viv__edit_put(&e, to[i], i > 0);
  }
}

/* Keeps what has none of the classes. */
static void drop(uint32_t classes, const viv__aligned *in, viv__aligned *out) {
  for (size_t at = 0, next; at < in->len && !out->failed; at = next) {
    next = at;
    if (!(viv__class_of(viv__cp(in->text, &next)) & classes)) viv__aligned_copy(out, in, at, next);
  }
}

static void strip(const step *s, const viv__aligned *in, viv__aligned *out) {
  size_t start = 0, end = in->len;
  while (s->left && start < end) {
    size_t next = start;
    if (!(viv__class_of(viv__cp(in->text, &next)) & CLASS_SPACE)) break;
    start = next;
  }
  while (s->right && end > start) {
    size_t last = viv__cp_back(in->text, end), next = last;
    if (!(viv__class_of(viv__cp(in->text, &next)) & CLASS_SPACE)) break;
    end = last;
  }
  viv__aligned_copy(out, in, start, end);
}

static void replace(const step *s, const viv__aligned *in, viv__aligned *out) {
  viv__finder f = {0};
  size_t at = 0, start, end;
  viv__finder_start(&f, s->pattern, (viv_str){in->text, in->len});
  while (!out->failed && viv__finder_next(&f, &start, &end)) {
    viv__aligned_copy(out, in, at, start);
    viv__span span = end ? in->span[end - 1] : in->span[0];
    if (!end) span.end = span.start;
    viv__aligned_add(out, s->text, s->text_len, span);
    at = end;
  }
  viv__aligned_copy(out, in, at, in->len);
  out->failed |= f.failed;
  viv__finder_stop(&f);
}

static void nmt(const viv__aligned *in, viv__aligned *out) {
  for (size_t at = 0, next; at < in->len && !out->failed; at = next) {
    next = at;
    uint32_t c = viv__cp(in->text, &next);
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
        c == 0x9f)
      continue;
    if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd)
      viv__aligned_add(out, " ", 1, in->span[at]);
    else
      viv__aligned_copy(out, in, at, next);
  }
}

/* ---- BertNormalizer ---- */

static void clean(const viv__aligned *in, viv__aligned *out) {
  for (size_t at = 0, next; at < in->len && !out->failed; at = next) {
    unsigned char ch = (unsigned char)in->text[at];
    next = at + 1;
    if (ch > ' ' && ch < 0x7f) {
      size_t end = next;
      while (end < in->len && in->text[end] > ' ' && in->text[end] < 0x7f) end++;
      viv__aligned_copy(out, in, at, end);
      next = end;
      continue;
    }
    next = at;
    uint32_t class = viv__class_of(viv__cp(in->text, &next));
    if (class & CLASS_OTHER) continue;
    if (class & CLASS_SPACE)
      viv__aligned_add(out, " ", 1, in->span[at]);
    else
      viv__aligned_copy(out, in, at, next);
  }
}

static bool is_chinese(uint32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
         (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void space_chinese(const viv__aligned *in, viv__aligned *out) {
  for (size_t at = 0, next; at < in->len && !out->failed; at = next) {
    next = at;
    bool chinese = is_chinese(viv__cp(in->text, &next));
    while (!chinese && next < in->len && !(in->text[next] & 0x80)) next++;
    if (chinese) viv__aligned_add(out, " ", 1, in->span[at]);
    viv__aligned_copy(out, in, at, next);
    if (chinese) viv__aligned_add(out, " ", 1, in->span[at]);
  }
}

static void swap(viv__aligned *a, viv__aligned *b) {
  viv__aligned t = *a;
  *a = *b;
  *b = t;
  b->len = 0;
}

static void bert(const step *s, viv__aligned *text, viv__aligned *spare) {
  if (s->clean) {
    clean(text, spare);
    swap(text, spare);
  }
  if (s->chinese) {
    space_chinese(text, spare);
    swap(text, spare);
  }
  if (s->accents) {
    viv__normal_form(FORM_NFD, text, spare);
    swap(text, spare);
    drop(CLASS_NONSPACING, text, spare);
    swap(text, spare);
  }
  if (s->lower) {
    lowercase(text, spare);
    swap(text, spare);
  }
}

static void prepend(const step *s, const viv__aligned *in, viv__aligned *out) {
  size_t first = viv__cp_len(in->text[0]);
  viv__aligned_add(out, s->text, s->text_len, in->span[0]);
  viv__aligned_add(out, in->text, first, in->span[first - 1]);
  viv__aligned_copy(out, in, first, in->len);
}

static void byte_level(const viv__aligned *in, viv__aligned *out) {
  for (size_t i = 0; i < in->len && !out->failed; i++) {
    char bytes[4];
    size_t len = viv__utf8_put(viv__char_of_byte((unsigned char)in->text[i]), bytes);
    viv__aligned_add(out, bytes, len, in->span[i]);
  }
}

void viv__normalize(const viv__normalizer *n, viv__aligned *text, viv__aligned *spare) {
  for (size_t i = 0; i < n->n && text->len && !text->failed && !spare->failed; i++) {
    const step *s = &n->step[i];
    spare->len = 0;
    switch (s->kind) {
    case NORMAL_FORM:
      viv__normal_form(s->form, text, spare);
      break;
    case LOWERCASE:
      lowercase(text, spare);
      break;
    case STRIP_ACCENTS:
      drop(CLASS_MARK, text, spare);
      break;
    case STRIP:
      strip(s, text, spare);
      break;
    case PREPEND:
      prepend(s, text, spare);
      break;
    case REPLACE:
      replace(s, text, spare);
      break;
    case NMT:
      nmt(text, spare);
      break;
    case BERT:
      bert(s, text, spare);
      continue;
    case PRECOMPILED:
      viv__charsmap_apply(s->map, text, spare);
      break;
    case BYTE_LEVEL:
      byte_level(text, spare);
      break;
    }
    swap(text, spare);
  }
}
