/* Encodings: windows by truncation, batches made equal by padding. As in the
 * library. */
#include "text/text.h"

#include <math.h>
#include <string.h>

/* Tokens that all windows of a text may have together; a stride near the
 * window's length multiplies them. */
enum { MAX_WINDOW_TOKENS = 1 << 26, MAX_PADDING = 1 << 24 };

void viv__encoding_add(viv__encoding *e, viv__encoded token) {
  if (e->n == e->cap) {
    size_t cap = e->cap ? e->cap * 2 : 16;
    viv__encoded *grown = e->failed ? NULL : viv__realloc(e->token, cap * sizeof *grown);
    if (!grown) {
      e->failed = true;
      return;
    }
    e->token = grown;
    e->cap = cap;
  }
  e->token[e->n++] = token;
}

static void free_overflow(viv__encoding *list, size_t n) {
  for (size_t i = 0; i < n; i++) viv__free(list[i].token);
  viv__free(list);
}

void viv__encoding_free(viv__encoding *e) {
  viv__free(e->token);
  free_overflow(e->overflow, e->overflows);
  *e = (viv__encoding){0};
}

static void append(viv__encoding *to, const viv__encoded *token, size_t n) {
  if (to->failed || !n) return;
  if (to->n + n > to->cap) {
    viv__encoded *grown = viv__realloc(to->token, (to->n + n) * sizeof *grown);
    if (!grown) {
      to->failed = true;
      return;
    }
    to->token = grown;
    to->cap = to->n + n;
  }
  memcpy(to->token + to->n, token, n * sizeof *token);
  to->n += n;
}

bool viv__encoding_copy(viv__encoding *to, const viv__encoding *from, bool overflow) {
  *to = (viv__encoding){0};
  append(to, from->token, from->n);
  to->failed |= from->failed;
  if (!overflow || !from->overflows || to->failed) return !to->failed;
  to->overflow = viv__calloc(from->overflows, sizeof *to->overflow);
  to->failed = !to->overflow;
  for (size_t i = 0; i < from->overflows && !to->failed; i++) {
    to->overflows++;
    append(&to->overflow[i], from->overflow[i].token, from->overflow[i].n);
    to->failed = to->overflow[i].failed;
  }
  return !to->failed;
}

/* A growing list of windows, with what they hold together. */
typedef struct windows {
  viv__encoding *item;
  size_t n, cap, tokens;
  bool failed;
} windows;

/* Adds the window a + b. */
static void add_window(windows *w, const viv__encoding *a, const viv__encoding *b) {
  if (w->n == w->cap) {
    size_t cap = w->cap ? w->cap * 2 : 8;
    viv__encoding *grown = w->failed ? NULL : viv__realloc(w->item, cap * sizeof *grown);
    if (grown) {
      w->item = grown;
      w->cap = cap;
    } else {
      w->failed = true;
    }
  }
  w->tokens += a->n + b->n;
  if (w->failed || w->tokens > MAX_WINDOW_TOKENS) {
    w->failed = true;
    return;
  }
  viv__encoding *e = &w->item[w->n++];
  *e = (viv__encoding){0};
  append(e, a->token, a->n);
  append(e, b->token, b->n);
  w->failed = e->failed;
}

void viv__encoding_merge(viv__encoding *e, const viv__encoding *with) {
  windows w = {0};
  for (size_t i = 0; i < e->overflows && !w.failed; i++) {
    add_window(&w, &e->overflow[i], with);
    for (size_t k = 0; k < with->overflows && !w.failed; k++)
      add_window(&w, &e->overflow[i], &with->overflow[k]);
  }
  for (size_t k = 0; k < with->overflows && !w.failed; k++) add_window(&w, e, &with->overflow[k]);
  append(e, with->token, with->n);
  free_overflow(e->overflow, e->overflows);
  e->overflow = w.item;
  e->overflows = w.n;
  e->failed |= w.failed || with->failed;
}

/* ---- truncation ---- */

/* Leaves the first window (or last, from the left) of `most` tokens; the others
 * go to overflow. */
static int32_t cut(const viv__truncation *t, viv__encoding *e, size_t most, viv_error *error) {
  if (most >= e->n) return VIV_OK;
  windows w = {0};
  static const viv__encoding none = {0};
  size_t stride = most ? most - t->stride : e->n;
  if (most && t->stride >= most)
    return VIV_FAIL(error, VIV_BAD_INPUT, "truncation",
                    "\"stride\" %zu must be less than the %zu tokens that a "
                    "window has room for",
                    t->stride, most);
  if (!most) add_window(&w, &none, e);
  for (size_t at = 0; most && !w.failed; at += stride) {
    bool left = t->side == VIV__SIDE_LEFT;
    size_t end = left ? e->n - at : at + most < e->n ? at + most : e->n;
    size_t start = left ? end > most ? end - most : 0 : at;
    viv__encoding part = {.token = e->token + start, .n = end - start};
    add_window(&w, &part, &none);
    if (left ? start == 0 : end == e->n) break;
  }
  if (w.failed) {
    free_overflow(w.item, w.n);
    return w.tokens > MAX_WINDOW_TOKENS
               ? VIV_FAIL(error, VIV_BAD_INPUT, "truncation",
                          "the windows of this text have more than %d tokens "
                          "together",
                          MAX_WINDOW_TOKENS)
               : VIV_FAIL(error, VIV_NOT_NOW, "truncation", "out of memory");
  }
  viv__free(e->token);
  e->token = NULL;
  e->n = e->cap = 0;
  e->overflow = w.item;
  e->overflows = w.n;
  if (!most) return VIV_OK;
  *e = w.item[0];
  e->overflows = w.n - 1;
  e->overflow = w.item;
  memmove(w.item, w.item + 1, (w.n - 1) * sizeof *w.item);
  return VIV_OK;
}

/* How many tokens each text of a pair keeps when the longer one gives first. */
static void share(size_t most, size_t *first, size_t *second) {
  size_t short_one = *first, long_one = *second;
  bool swapped = short_one > long_one;
  if (swapped) {
    short_one = *second;
    long_one = *first;
  }
  long_one = short_one > most ? short_one : most - short_one;
  if (long_one < short_one) long_one = short_one;
  if (short_one + long_one > most) {
    short_one = most / 2;
    long_one = short_one + most % 2;
  }
  *first = swapped ? long_one : short_one;
  *second = swapped ? short_one : long_one;
}

int32_t viv__truncate(const viv__truncation *t, size_t added, viv__encoding *a, viv__encoding *b,
                      viv_error *error) {
  if (!t->on) return VIV_OK;
  if (t->max_length < added)
    return VIV_FAIL(error, VIV_BAD_INPUT, "truncation",
                    "\"max_length\" %zu leaves no room for the %zu special tokens", t->max_length,
                    added);
  size_t most = t->max_length - added, total = a->n + (b ? b->n : 0);
  if (!most) {
    int32_t status = cut(t, a, 0, error);
    return status >= 0 && b ? cut(t, b, 0, error) : status;
  }
  if (total <= most) return VIV_OK;
  if (t->by == VIV__LONGEST_FIRST && b) {
    size_t first = a->n, second = b->n;
    share(most, &first, &second);
    int32_t status = cut(t, a, first, error);
    return status >= 0 ? cut(t, b, second, error) : status;
  }
  if (t->by == VIV__LONGEST_FIRST) return cut(t, a, most, error);
  viv__encoding *target = t->by == VIV__ONLY_FIRST ? a : b;
  if (!target)
    return VIV_FAIL(error, VIV_BAD_INPUT, "truncation",
                    "\"strategy\" is only_second, but there is no second text");
  if (target->n <= total - most)
    return VIV_FAIL(error, VIV_BAD_INPUT, "truncation",
                    "the text to truncate is too short to bring both to \"max_length\" %zu",
                    t->max_length);
  return cut(t, target, target->n - (total - most), error);
}

static int32_t name_member(const viv_json *node, const char *key, const char *where,
                           const char *const *names, int32_t n, int32_t *out, viv_error *error) {
  const viv_json *member = viv__json_get(node, key);
  viv_str name = viv__json_string(member);
  if (viv__json_type(member) == VIV_JSON_ABSENT) return VIV_OK;
  for (int32_t i = 0; i < n; i++) {
    if (!name.ptr || strcasecmp(names[i], name.ptr) != 0) continue;
    *out = i % 4;
    return VIV_OK;
  }
  return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"%s\" \"%.40s\" is not known; expected %s or %s",
                  key, name.ptr ? name.ptr : "(no string)", names[0], names[1]);
}

static const char *const sides[] = {"right", "left"};

int32_t viv__truncation_open(const viv_json *node, viv__truncation *t, viv_error *error) {
  static const char where[] = "truncation";
  static const char *const ways[] = {"longest_first", "only_first", "only_second", "",
                                     "LongestFirst",  "OnlyFirst",  "OnlySecond"};
  *t = (viv__truncation){0};
  int32_t type = viv__json_type(node);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  if (type != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  double length = 0, stride = 0;
  int32_t status = viv__count_member(node, "max_length", where, 1e18, -1, &length, error);
  if (status >= 0) status = viv__count_member(node, "stride", where, 1e18, 0, &stride, error);
  if (status >= 0) status = name_member(node, "direction", where, sides, 2, &t->side, error);
  if (status >= 0) status = name_member(node, "strategy", where, ways, 7, &t->by, error);
  t->max_length = (size_t)length;
  t->stride = (size_t)stride;
  t->on = status >= 0;
  return status;
}

/* "strategy" is "BatchLongest" or {"Fixed": n}; where it is absent, "length"
 * counts. */
int32_t viv__padding_open(const viv_json *node, viv__padding *p, viv_error *error) {
  static const char where[] = "padding";
  *p = (viv__padding){.token = "[PAD]"};
  int32_t type = viv__json_type(node);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  if (type != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  double length = 0, multiple = 0, id = 0, type_id = 0;
  const viv_json *strategy = viv__json_get(node, "strategy");
  bool fixed = viv__json_type(strategy) == VIV_JSON_OBJECT;
  const char *name = viv__json_text(node, "strategy", "BatchLongest");
  const char *token = viv__json_text(node, "pad_token", "[PAD]");
  if (!fixed && strcmp(name, "BatchLongest") != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "\"strategy\" \"%.40s\" is not known; expected "
                    "BatchLongest or {\"Fixed\": n}",
                    name);
  int32_t status = viv__count_member(fixed ? strategy : node, fixed ? "Fixed" : "length", where,
                                     MAX_PADDING, fixed ? -1 : 0, &length, error);
  if (status >= 0)
    status = viv__count_member(node, "pad_to_multiple_of", where, MAX_PADDING, 0, &multiple, error);
  if (status >= 0)
    status = viv__count_member(node, "pad_id", where, MAX_TOKEN_ID - 1, 0, &id, error);
  if (status >= 0)
    status = viv__count_member(node, "pad_type_id", where, MAX_TOKEN_ID, 0, &type_id, error);
  if (status >= 0) status = name_member(node, "direction", where, sides, 2, &p->side, error);
  if (status >= 0 && strlen(token) >= sizeof p->token)
    status = VIV_FAIL(error, VIV_NEVER, where, "\"pad_token\" has more than %zu bytes",
                      sizeof p->token - 1);
  if (status < 0) return status;
  p->length = (size_t)length;
  p->multiple = (size_t)multiple;
  p->id = (int32_t)id;
  p->type_id = (int32_t)type_id;
  snprintf(p->token, sizeof p->token, "%s", token);
  p->on = true;
  return VIV_OK;
}
