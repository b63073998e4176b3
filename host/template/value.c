/* Values: making, comparing, iterating; dicts keep the order of insertion. */
#include <math.h>
#include <string.h>

#include "template/internal.h"

value viv__t_none(void) {
  return (value){.kind = V_NONE};
}
value viv__t_bool(bool b) {
  return (value){.kind = V_BOOL, .b = b};
}
value viv__t_int(wide i) {
  return (value){.kind = V_INT, .i = i};
}
value viv__t_float(double f) {
  return (value){.kind = V_FLOAT, .f = f};
}
value viv__t_strv(const struct str *s) {
  return (value){.kind = V_STR, .s = s};
}

value viv__t_share(vm *v, const char *ptr, size_t len) {
  struct str *s = viv__t_alloc(v, sizeof *s);
  *s = (struct str){.ptr = len ? ptr : "", .len = len, .chars = viv__t_chars(ptr, len)};
  viv__t_step(v, len / 256);
  return viv__t_strv(s);
}

value viv__t_str(vm *v, const char *ptr, size_t len) {
  char *copy = viv__t_alloc(v, len + 1);
  if (len) memcpy(copy, ptr, len);
  return viv__t_share(v, copy, len);
}

value viv__t_cstr(vm *v, const char *s) {
  return viv__t_str(v, s, strlen(s));
}

value viv__t_undefined(vm *v, bool unsafe, const char *format, ...) {
  char message[400];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  struct absent *u = viv__t_alloc(v, sizeof *u);
  u->message = viv__t_str(v, message, viv__utf8_whole(message, strlen(message))).s;
  u->unsafe = unsafe;
  return (value){.kind = V_UNDEFINED, .u = u};
}

value viv__t_list(vm *v, uint8_t kind, size_t cap) {
  struct list *l = viv__t_alloc(v, sizeof *l);
  if (cap > SIZE_MAX / sizeof(value) / 2) viv__t_fail(v, VIV_BAD_INPUT, "a list is too long");
  l->items = cap ? viv__t_alloc(v, cap * sizeof(value)) : NULL;
  l->cap = cap;
  return (value){.kind = kind, .l = l};
}

void viv__t_push(vm *v, struct list *l, value x) {
  if (l->n == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 4;
    value *grown = viv__t_alloc(v, cap * sizeof *grown);
    if (l->n) memcpy(grown, l->items, l->n * sizeof *grown);
    l->items = grown;
    l->cap = cap;
  }
  l->items[l->n++] = x;
  viv__t_step(v, 1);
}

value viv__t_tuple2(vm *v, value a, value b) {
  value t = viv__t_list(v, V_TUPLE, 2);
  viv__t_push(v, t.l, a);
  viv__t_push(v, t.l, b);
  return t;
}

bool viv__t_streq(const struct str *s, const char *c) {
  size_t n = strlen(c);
  return s->len == n && !memcmp(s->ptr, c, n);
}

bool viv__t_same(const struct str *a, const struct str *b) {
  return a->len == b->len && !memcmp(a->ptr, b->ptr, a->len);
}

const char *viv__t_type(value x) {
  static const char *const names[] = {
      "missing", "Undefined",   "NoneType",  "bool",     "int",
      "float",   "str",         "list",      "tuple",    "dict",
      "range",   "dict view",   "Namespace", "function", "builtin_function_or_method",
      "Macro",   "LoopContext", "generator", "Cycler",   "Joiner"};
  if (x.kind == V_STR && x.s->markup) return "Markup";
  if (x.kind == V_VIEW)
    return x.sub == 'k' ? "dict_keys" : x.sub == 'v' ? "dict_values" : "dict_items";
  return names[x.kind];
}

/* ---- dicts ---- */

static uint64_t mix(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdu;
  h ^= h >> 33;
  return h;
}

uint64_t viv__t_hash(vm *v, value x) {
  uint64_t h = 1469598103934665603u;
  double f = 0;
  switch (x.kind) {
  case V_STR:
    for (size_t i = 0; i < x.s->len; i++) h = (h ^ (unsigned char)x.s->ptr[i]) * 1099511628211u;
    viv__t_step(v, x.s->len / 256);
    return mix(h);
  case V_NONE:
    return 77;
  case V_UNDEFINED:
    return 78;
  case V_BOOL:
  case V_INT:
  case V_FLOAT: /* equal numbers of different types are one key */
    f = viv__t_real(v, x);
    if (f == 0) f = 0;
    memcpy(&h, &f, sizeof h);
    return mix(h);
  case V_TUPLE:
    viv__t_enter(v);
    for (size_t i = 0; i < x.l->n; i++) h = mix(h ^ viv__t_hash(v, x.l->items[i]));
    viv__t_leave(v);
    return h;
  case V_LIST:
  case V_DICT:
    viv__t_fail(v, VIV_BAD_INPUT, "unhashable type: '%s'", viv__t_type(x));
  default:
    return mix((uint64_t)(uintptr_t)x.l);
  }
}

/* Where key stands, or n. slot: the place in the index where it is or would be. */
static size_t find(vm *v, const struct dict *d, value key, uint32_t *slot) {
  if (!d->index) {
    for (size_t i = 0; i < d->n; i++) {
      value k = d->at[i].key;
      bool same =
          k.kind == V_STR && key.kind == V_STR ? viv__t_same(k.s, key.s) : viv__t_equal(v, k, key);
      if (same) return i;
    }
    return d->n;
  }
  uint32_t mask = (1u << d->bits) - 1, at = (uint32_t)viv__t_hash(v, key) & mask;
  for (;; at = (at + 1) & mask) {
    viv__t_step(v, 1);
    *slot = at;
    if (!d->index[at]) return d->n;
    if (viv__t_equal(v, d->at[d->index[at] - 1].key, key)) return d->index[at] - 1;
  }
}

static void reindex(vm *v, struct dict *d) {
  uint32_t slot = 0;
  size_t n = d->n;
  d->bits = 5;
  while ((1u << d->bits) < 3 * n) d->bits++;
  d->index = viv__t_alloc(v, sizeof *d->index << d->bits);
  for (d->n = 0; d->n < n; d->n++) {
    find(v, d, d->at[d->n].key, &slot);
    d->index[slot] = (uint32_t)d->n + 1;
  }
}

value viv__t_dict(vm *v) {
  return (value){.kind = V_DICT, .d = viv__t_alloc(v, sizeof(struct dict))};
}

void viv__t_dict_set(vm *v, struct dict *d, value key, value val) {
  enum { SMALL = 8 };
  uint32_t slot = 0;
  viv__t_hash(v, key); /* a key must have one */
  size_t i = find(v, d, key, &slot);
  viv__t_step(v, 1);
  if (i < d->n) {
    d->at[i].val = val;
    return;
  }
  if (d->n == d->cap) {
    size_t cap = d->cap ? 2 * d->cap : 4;
    struct entry *grown = viv__t_alloc(v, cap * sizeof *grown);
    if (d->n) memcpy(grown, d->at, d->n * sizeof *grown);
    d->at = grown;
    d->cap = cap;
  }
  d->at[d->n++] = (struct entry){key, val};
  if (d->index) d->index[slot] = (uint32_t)d->n;
  if (d->n > SMALL && (!d->index || 2 * d->n > (size_t)1 << d->bits)) reindex(v, d);
}

bool viv__t_dict_get(vm *v, const struct dict *d, value key, value *out) {
  uint32_t slot = 0;
  size_t i = find(v, d, key, &slot);
  if (i == d->n) return false;
  *out = d->at[i].val;
  return true;
}

bool viv__t_get(vm *v, const struct dict *d, const char *key, value *out) {
  struct str s = {.ptr = key, .len = strlen(key)};
  return viv__t_dict_get(v, d, viv__t_strv(&s), out);
}

/* ---- truth, order ---- */

bool viv__t_sized(value x, size_t *n) {
  *n = 0;
  switch (x.kind) {
  case V_UNDEFINED:
    return true;
  case V_STR:
    *n = x.s->chars;
    return true;
  case V_LIST:
  case V_TUPLE:
    *n = x.l->n;
    return true;
  case V_DICT:
  case V_VIEW:
    *n = x.d->n;
    return true;
  case V_RANGE:
    *n = (size_t)x.r->n;
    return true;
  case V_LOOP:
    *n = x.loop->items->n;
    return true;
  default:
    return false;
  }
}

size_t viv__t_len(vm *v, value x) {
  size_t n;
  if (!viv__t_sized(x, &n))
    viv__t_fail(v, VIV_BAD_INPUT, "object of type '%s' has no len()", viv__t_type(x));
  return n;
}

bool viv__t_truth(vm *v, value x) {
  size_t n;
  (void)v;
  if (x.kind == V_NONE) return false;
  if (x.kind == V_BOOL) return x.b;
  if (x.kind == V_INT) return x.i != 0;
  if (x.kind == V_FLOAT) return x.f != 0;
  return viv__t_sized(x, &n) ? n > 0 : true;
}

static bool is_number(value x) {
  return x.kind == V_BOOL || x.kind == V_INT || x.kind == V_FLOAT;
}

static bool dicts_equal(vm *v, const struct dict *a, const struct dict *b) {
  value other;
  if (a->n != b->n) return false;
  for (size_t i = 0; i < a->n; i++)
    if (!viv__t_dict_get(v, b, a->at[i].key, &other) || !viv__t_equal(v, a->at[i].val, other))
      return false;
  return true;
}

bool viv__t_equal(vm *v, value a, value b) {
  bool same = true;
  wide i, j;
  if (is_number(a) && is_number(b)) {
    if (viv__t_is_int(a, &i) && viv__t_is_int(b, &j)) return i == j;
    return viv__t_real(v, a) == viv__t_real(v, b);
  }
  if (a.kind != b.kind) return false;
  viv__t_step(v, 1);
  switch (a.kind) {
  case V_UNDEFINED:
  case V_NONE:
    return true;
  case V_STR:
    viv__t_step(v, a.s->len / 256);
    return viv__t_same(a.s, b.s);
  case V_LIST:
  case V_TUPLE:
    if (a.l->n != b.l->n) return false;
    viv__t_enter(v);
    for (size_t k = 0; same && k < a.l->n; k++)
      same = viv__t_equal(v, a.l->items[k], b.l->items[k]);
    viv__t_leave(v);
    return same;
  case V_DICT:
    viv__t_enter(v);
    same = dicts_equal(v, a.d, b.d);
    viv__t_leave(v);
    return same;
  case V_RANGE:
    return a.r->n == b.r->n &&
           (!a.r->n || (a.r->start == b.r->start && (a.r->n == 1 || a.r->step == b.r->step)));
  default:
    return a.l == b.l;
  }
}

int viv__t_order(vm *v, value a, value b, const char *op) {
  wide i, j;
  if (is_number(a) && is_number(b)) {
    if (viv__t_is_int(a, &i) && viv__t_is_int(b, &j)) return i < j ? -1 : i > j;
    double x = viv__t_real(v, a), y = viv__t_real(v, b);
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
  }
  if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
    viv__t_fail_str(v, VIV_BAD_INPUT, a.kind == V_UNDEFINED ? a.u->message : b.u->message);
  if (a.kind == V_STR && b.kind == V_STR) {
    size_t n = a.s->len < b.s->len ? a.s->len : b.s->len;
    int c = memcmp(a.s->ptr, b.s->ptr, n);
    viv__t_step(v, n / 256);
    return c ? (c < 0 ? -1 : 1) : a.s->len < b.s->len ? -1 : a.s->len > b.s->len;
  }
  if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE)) {
    size_t n = a.l->n < b.l->n ? a.l->n : b.l->n, k = 0;
    while (k < n && viv__t_equal(v, a.l->items[k], b.l->items[k])) k++;
    if (k == n) return a.l->n < b.l->n ? -1 : a.l->n > b.l->n;
    viv__t_enter(v);
    int c = viv__t_order(v, a.l->items[k], b.l->items[k], op);
    viv__t_leave(v);
    return c;
  }
  viv__t_fail(v, VIV_BAD_INPUT, "'%s' not supported between instances of '%s' and '%s'", op,
              viv__t_type(a), viv__t_type(b));
}

bool viv__t_contains(vm *v, value box, value x) {
  value got;
  if (box.kind == V_STR) {
    if (x.kind != V_STR)
      viv__t_fail(v, VIV_BAD_INPUT, "'in <string>' requires string as left operand, not %s",
                  viv__t_type(x));
    viv__t_step(v, box.s->len / 64);
    return !x.s->len || memmem(box.s->ptr, box.s->len, x.s->ptr, x.s->len);
  }
  if (box.kind == V_DICT || (box.kind == V_VIEW && box.sub == 'k')) {
    viv__t_hash(v, x);
    return viv__t_dict_get(v, box.d, x, &got);
  }
  if (!viv__t_iterable(box))
    viv__t_fail(v, VIV_BAD_INPUT, "argument of type '%s' is not iterable", viv__t_type(box));
  struct iter *it = viv__t_iter(v, box);
  while (viv__t_next(v, it, &got))
    if (viv__t_equal(v, got, x)) return true;
  return false;
}

/* ---- iterating ---- */

static bool next_item(vm *v, struct iter *it, value *out) {
  (void)v;
  if (it->pos >= it->src.l->n) return false;
  *out = it->src.l->items[it->pos++];
  return true;
}

static bool next_entry(vm *v, struct iter *it, value *out) {
  if (it->pos >= it->src.d->n) return false;
  const struct entry *e = &it->src.d->at[it->pos++];
  if (it->src.kind == V_DICT || it->src.sub == 'k')
    *out = e->key;
  else
    *out = it->src.sub == 'v' ? e->val : viv__t_tuple2(v, e->key, e->val);
  return true;
}

static bool next_char(vm *v, struct iter *it, value *out) {
  const struct str *s = it->src.s;
  int n;
  if (it->byte >= s->len) return false;
  viv__t_cp(s->ptr + it->byte, s->len - it->byte, &n);
  *out = viv__t_share(v, s->ptr + it->byte, (size_t)n);
  it->byte += (size_t)n;
  return true;
}

static bool next_in_range(vm *v, struct iter *it, value *out) {
  (void)v;
  const struct range *r = it->src.r;
  if ((int64_t)it->pos >= r->n) return false;
  *out = viv__t_int(r->start + (int64_t)it->pos++ * r->step);
  return true;
}

static bool next_none(vm *v, struct iter *it, value *out) {
  (void)v, (void)it, (void)out;
  return false;
}

bool viv__t_iterable(value x) {
  switch (x.kind) {
  case V_UNDEFINED:
  case V_STR:
  case V_LIST:
  case V_TUPLE:
  case V_DICT:
  case V_VIEW:
  case V_RANGE:
  case V_ITER:
    return true;
  default:
    return false;
  }
}

struct iter *viv__t_iter(vm *v, value x) {
  if (x.kind == V_ITER) return x.it;
  if (x.kind == V_UNDEFINED && x.u->unsafe) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (!viv__t_iterable(x))
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object is not iterable", viv__t_type(x));
  struct iter *it = viv__t_alloc(v, sizeof *it);
  it->src = x;
  it->next = x.kind == V_STR                         ? next_char
             : x.kind == V_LIST || x.kind == V_TUPLE ? next_item
             : x.kind == V_DICT || x.kind == V_VIEW  ? next_entry
             : x.kind == V_RANGE                     ? next_in_range
                                                     : next_none;
  return it;
}

bool viv__t_next(vm *v, struct iter *it, value *out) {
  viv__t_step(v, 1);
  return it->next(v, it, out);
}

value viv__t_iter_of(vm *v, struct list *l) {
  return (value){.kind = V_ITER, .it = viv__t_iter(v, (value){.kind = V_LIST, .l = l})};
}

value viv__t_listed(vm *v, value x) {
  value out = viv__t_list(v, V_LIST, 0), item;
  struct iter *it = viv__t_iter(v, x);
  while (viv__t_next(v, it, &item)) viv__t_push(v, out.l, item);
  return out;
}

int64_t viv__t_index(vm *v, value x) {
  wide i;
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (!viv__t_is_int(x, &i))
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object cannot be interpreted as an integer",
                viv__t_type(x));
  return i > INT64_MAX / 4 ? INT64_MAX / 4 : i < INT64_MIN / 4 ? INT64_MIN / 4 : (int64_t)i;
}
