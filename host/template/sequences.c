/* Filters over lists and dicts. */
#include <string.h>

#include "template/internal.h"

#define FILTER(name) static value name(vm *v, value x, value *in, const struct args *a)
#define UNUSED (void)v, (void)in, (void)a

static bool given(value x) {
  return x.kind != V_MISSING && x.kind != V_NONE;
}

/* ---- looking up "a.b.0" in items ---- */

static value part_of(vm *v, value x, const char *s, size_t len) {
  wide i;
  bool digits = len > 0;
  for (size_t k = 0; k < len; k++) digits = digits && s[k] >= '0' && s[k] <= '9';
  if (digits && viv__t_read_int(s, len, 10, &i)) return viv__t_item(v, x, viv__t_int(i));
  return viv__t_item(v, x, viv__t_share(v, s, len));
}

static value attribute(vm *v, value x, value path, value fallback) {
  if (!given(path)) return x;
  if (path.kind != V_STR) {
    x = viv__t_item(v, x, path);
    return x.kind == V_UNDEFINED && given(fallback) ? fallback : x;
  }
  const char *at = path.s->ptr, *end = at + path.s->len;
  for (;;) {
    const char *dot = memchr(at, '.', (size_t)(end - at));
    x = part_of(v, x, at, (size_t)((dot ? dot : end) - at));
    if (x.kind == V_UNDEFINED && given(fallback)) x = fallback;
    if (!dot) return x;
    at = dot + 1;
  }
}

/* For comparisons that don't see cases. */
static value lowered(vm *v, value x) {
  struct text t = {0};
  if (x.kind != V_STR) return x;
  viv__t_put_case(v, &t, x.s, CASE_LOWER);
  return viv__t_text(v, &t);
}

static value key_of(vm *v, value x, value path, bool cases) {
  x = attribute(v, x, path, viv__t_none());
  return cases ? x : lowered(v, x);
}

/* ---- sorting: stable, by merging ---- */

struct keyed {
  value key, item;
};

static bool precedes(vm *v, value a, value b, bool reverse) {
  viv__t_step(v, 1);
  return reverse ? viv__t_order(v, b, a, "<") == -1 : viv__t_order(v, a, b, "<") == -1;
}

static void merge_sort(vm *v, struct keyed *k, struct keyed *space, size_t n, bool reverse) {
  if (n < 2) return;
  size_t half = n / 2, i = 0, j = half, at = 0;
  merge_sort(v, k, space, half, reverse);
  merge_sort(v, k + half, space, n - half, reverse);
  while (i < half && j < n)
    space[at++] = precedes(v, k[j].key, k[i].key, reverse) ? k[j++] : k[i++];
  while (i < half) space[at++] = k[i++];
  while (j < n) space[at++] = k[j++];
  memcpy(k, space, n * sizeof *k);
}

static value sorted(vm *v, struct list *items, struct list *keys, bool reverse) {
  struct keyed *k = viv__t_alloc(v, 2 * (items->n + 1) * sizeof *k);
  value out = viv__t_list(v, V_LIST, items->n);
  for (size_t i = 0; i < items->n; i++) k[i] = (struct keyed){keys->items[i], items->items[i]};
  merge_sort(v, k, k + items->n, items->n, reverse);
  for (size_t i = 0; i < items->n; i++) viv__t_push(v, out.l, k[i].item);
  return out;
}

/* "a,b" sorts by a, then by b. */
static value sort_key(vm *v, value x, value path, bool cases) {
  if (path.kind != V_STR || !memchr(path.s->ptr, ',', path.s->len)) {
    value one = key_of(v, x, path, cases), list = viv__t_list(v, V_LIST, 1);
    if (!given(path)) return one;
    viv__t_push(v, list.l, one);
    return list;
  }
  value keys = viv__t_list(v, V_LIST, 0);
  const char *at = path.s->ptr, *end = at + path.s->len;
  for (;;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    value one = viv__t_share(v, at, (size_t)((comma ? comma : end) - at));
    viv__t_push(v, keys.l, key_of(v, x, one, cases));
    if (!comma) return keys;
    at = comma + 1;
  }
}

FILTER(f_sort) {
  UNUSED;
  value items = viv__t_listed(v, x), keys = viv__t_list(v, V_LIST, items.l->n);
  bool cases = given(in[1]) && viv__t_truth(v, in[1]);
  for (size_t i = 0; i < items.l->n; i++)
    viv__t_push(v, keys.l, sort_key(v, items.l->items[i], in[2], cases));
  return sorted(v, items.l, keys.l, given(in[0]) && viv__t_truth(v, in[0]));
}

FILTER(f_dictsort) {
  UNUSED;
  bool cases = given(in[0]) && viv__t_truth(v, in[0]);
  int by = 0;
  if (given(in[1])) {
    if (in[1].kind == V_STR && viv__t_streq(in[1].s, "value"))
      by = 1;
    else if (in[1].kind != V_STR || !viv__t_streq(in[1].s, "key"))
      viv__t_fail(v, VIV_BAD_INPUT, "You can only sort by either \"key\" or \"value\"");
  }
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (x.kind != V_DICT)
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object has no attribute 'items'", viv__t_type(x));
  x.kind = V_VIEW;
  x.sub = 'i';
  value items = viv__t_listed(v, x), keys = viv__t_list(v, V_LIST, items.l->n);
  for (size_t i = 0; i < items.l->n; i++) {
    value key = items.l->items[i].l->items[by];
    viv__t_push(v, keys.l, cases ? key : lowered(v, key));
  }
  return sorted(v, items.l, keys.l, given(in[2]) && viv__t_truth(v, in[2]));
}

FILTER(f_groupby) {
  UNUSED;
  value items = viv__t_listed(v, x), keys = viv__t_list(v, V_LIST, 0), out, pairs;
  bool cases = given(in[2]) && viv__t_truth(v, in[2]);
  pairs = viv__t_list(v, V_LIST, 0);
  for (size_t i = 0; i < items.l->n; i++) {
    value raw = attribute(v, items.l->items[i], in[0], in[1]);
    value key = cases ? raw : lowered(v, raw);
    viv__t_push(v, keys.l, key);
    value pair = viv__t_tuple2(v, key, items.l->items[i]);
    viv__t_push(v, pair.l, raw);
    viv__t_push(v, pairs.l, pair);
  }
  pairs = sorted(v, pairs.l, keys.l, false);
  out = viv__t_list(v, V_LIST, 0);
  for (size_t i = 0; i < pairs.l->n;) {
    const struct list *first = pairs.l->items[i].l;
    value group = viv__t_list(v, V_LIST, 0);
    for (; i < pairs.l->n && viv__t_equal(v, pairs.l->items[i].l->items[0], first->items[0]); i++)
      viv__t_push(v, group.l, pairs.l->items[i].l->items[1]);
    value one = viv__t_tuple2(v, first->items[2], group);
    one.sub = 1;
    viv__t_push(v, out.l, one);
    if (!group.l->n) break; /* a key that does not equal itself (NaN) */
  }
  return out;
}

FILTER(f_unique) {
  UNUSED;
  struct iter *it = viv__t_iter(v, x);
  value item, seen = viv__t_dict(v), out = viv__t_list(v, V_LIST, 0), was;
  bool cases = given(in[0]) && viv__t_truth(v, in[0]);
  while (viv__t_next(v, it, &item)) {
    value key = key_of(v, item, in[1], cases);
    viv__t_hash(v, key);
    if (viv__t_dict_get(v, seen.d, key, &was)) continue;
    viv__t_dict_set(v, seen.d, key, viv__t_none());
    viv__t_push(v, out.l, item);
  }
  return viv__t_iter_of(v, out.l);
}

static value extreme(vm *v, value x, value *in, bool most) {
  struct iter *it = viv__t_iter(v, x);
  value item, best, best_key;
  bool cases = given(in[0]) && viv__t_truth(v, in[0]);
  if (!viv__t_next(v, it, &best))
    return viv__t_undefined(v, false, "No aggregated item, sequence was empty.");
  best_key = key_of(v, best, in[1], cases);
  while (viv__t_next(v, it, &item)) {
    value key = key_of(v, item, in[1], cases);
    if (viv__t_order(v, key, best_key, most ? ">" : "<") != (most ? 1 : -1)) continue;
    best = item;
    best_key = key;
  }
  return best;
}

FILTER(f_min) {
  UNUSED;
  return extreme(v, x, in, false);
}
FILTER(f_max) {
  UNUSED;
  return extreme(v, x, in, true);
}

FILTER(f_sum) {
  UNUSED;
  struct iter *it = viv__t_iter(v, x);
  value item, total = in[1].kind == V_MISSING ? viv__t_int(0) : in[1];
  if (total.kind == V_STR)
    viv__t_fail(v, VIV_BAD_INPUT, "sum() can't sum strings [use ''.join(seq) instead]");
  while (viv__t_next(v, it, &item))
    total = viv__t_binary(v, '+', total, attribute(v, item, in[0], viv__t_none()));
  return total;
}

/* ---- reading ---- */

FILTER(f_length) {
  UNUSED;
  return viv__t_int((wide)viv__t_len(v, x));
}

FILTER(f_first) {
  UNUSED;
  value out;
  if (viv__t_next(v, viv__t_iter(v, x), &out)) return out;
  return viv__t_undefined(v, false, "No first item, sequence was empty.");
}

static void must_reverse(vm *v, value x) {
  if (x.kind == V_ITER || !viv__t_iterable(x))
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object is not reversible", viv__t_type(x));
}

FILTER(f_last) {
  UNUSED;
  must_reverse(v, x);
  value all = viv__t_listed(v, x);
  if (all.l->n) return all.l->items[all.l->n - 1];
  return viv__t_undefined(v, false, "No last item, sequence was empty.");
}

FILTER(f_reverse) {
  UNUSED;
  if (x.kind == V_STR) return viv__t_slice(v, x, viv__t_none(), viv__t_none(), viv__t_int(-1));
  value all = viv__t_listed(v, x);
  value back = viv__t_slice(v, all, viv__t_none(), viv__t_none(), viv__t_int(-1));
  return x.kind == V_ITER ? back : viv__t_iter_of(v, back.l);
}

FILTER(f_list) {
  UNUSED;
  return viv__t_listed(v, x);
}

FILTER(f_items) {
  UNUSED;
  if (x.kind == V_UNDEFINED) return viv__t_iter_of(v, viv__t_list(v, V_LIST, 0).l);
  if (x.kind != V_DICT) viv__t_fail(v, VIV_BAD_INPUT, "Can only get item pairs from a mapping.");
  x.kind = V_VIEW;
  x.sub = 'i';
  return viv__t_iter_of(v, viv__t_listed(v, x).l);
}

FILTER(f_join) {
  UNUSED;
  struct iter *it = viv__t_iter(v, x);
  struct text t = {0};
  value item;
  const struct str *sep = in[0].kind == V_MISSING ? NULL : viv__t_tostr(v, in[0]);
  for (bool first = true; viv__t_next(v, it, &item); first = false) {
    if (!first && sep) viv__t_put_str(v, &t, sep);
    viv__t_print(v, &t, attribute(v, item, in[1], viv__t_none()));
  }
  return viv__t_text(v, &t);
}

FILTER(f_batch) {
  UNUSED;
  struct iter *it = viv__t_iter(v, x);
  int64_t n = viv__t_index(v, in[0]);
  value item, out = viv__t_list(v, V_LIST, 0), row = viv__t_list(v, V_LIST, 0);
  while (viv__t_next(v, it, &item)) {
    if ((int64_t)row.l->n == n) {
      viv__t_push(v, out.l, row);
      row = viv__t_list(v, V_LIST, 0);
    }
    viv__t_push(v, row.l, item);
  }
  if (row.l->n) {
    while (given(in[1]) && (int64_t)row.l->n < n) viv__t_push(v, row.l, in[1]);
    viv__t_push(v, out.l, row);
  }
  return viv__t_iter_of(v, out.l);
}

FILTER(f_slice) {
  UNUSED;
  value all = viv__t_listed(v, x), out = viv__t_list(v, V_LIST, 0);
  int64_t n = viv__t_index(v, in[0]), at = 0;
  if (!n) viv__t_fail(v, VIV_BAD_INPUT, "integer division or modulo by zero");
  for (int64_t i = 0; i < n; i++) {
    int64_t len = (int64_t)all.l->n / n, extra = (int64_t)all.l->n % n;
    value row = viv__t_list(v, V_LIST, 0);
    for (int64_t k = 0; k < len + (i < extra); k++) viv__t_push(v, row.l, all.l->items[at++]);
    if (given(in[1]) && i >= extra) viv__t_push(v, row.l, in[1]);
    viv__t_push(v, out.l, row);
  }
  return viv__t_iter_of(v, out.l);
}

/* ---- map, select: item by item, as they are asked for ---- */

struct how {
  const struct filter *filter;
  const struct check *check;
  struct args rest;
  value path, fallback;
  bool negate;
};

static bool next_mapped(vm *v, struct iter *it, value *out) {
  const struct how *h = it->how;
  value item;
  if (!viv__t_next(v, it->inner, &item)) return false;
  *out = h->filter ? viv__t_filter(v, h->filter, item, &h->rest)
                   : attribute(v, item, h->path, h->fallback);
  return true;
}

static bool next_selected(vm *v, struct iter *it, value *out) {
  const struct how *h = it->how;
  value item;
  while (viv__t_next(v, it->inner, &item)) {
    value x = attribute(v, item, h->path, viv__t_none());
    bool yes = h->check ? viv__t_check(v, h->check, x, &h->rest) : viv__t_truth(v, x);
    if (yes == h->negate) continue;
    *out = item;
    return true;
  }
  return false;
}

static value lazily(vm *v, value x, struct how *h, bool (*next)(vm *, struct iter *, value *)) {
  struct iter *it = viv__t_alloc(v, sizeof *it);
  if (x.kind == V_UNDEFINED && !x.u->unsafe) return viv__t_iter_of(v, viv__t_list(v, V_LIST, 0).l);
  it->next = next;
  it->how = h;
  it->inner = viv__t_iter(v, x);
  return (value){.kind = V_ITER, .it = it};
}

static struct args after(const struct args *a, int n) {
  struct args rest = *a;
  rest.pos += n;
  rest.n -= n;
  return rest;
}

FILTER(f_map) {
  UNUSED;
  struct how *h = viv__t_alloc(v, sizeof *h);
  h->fallback = h->path = viv__t_none();
  if (!a->n) {
    for (int i = 0; i < a->n_kw; i++) {
      if (viv__t_streq(a->kw[i].name, "attribute"))
        h->path = a->kw[i].val;
      else if (viv__t_streq(a->kw[i].name, "default"))
        h->fallback = a->kw[i].val;
      else
        viv__t_fail(v, VIV_BAD_INPUT, "Unexpected keyword argument '%.*s'", (int)a->kw[i].name->len,
                    a->kw[i].name->ptr);
    }
    if (!a->n_kw) viv__t_fail(v, VIV_BAD_INPUT, "map requires a filter argument");
    return lazily(v, x, h, next_mapped);
  }
  const struct str *name = viv__t_tostr(v, a->pos[0]);
  h->filter = viv__t_find_filter(name);
  if (!h->filter)
    viv__t_fail(v, VIV_BAD_INPUT, "No filter named '%.*s'.", (int)name->len, name->ptr);
  if (!h->filter->fn)
    viv__t_fail(v, VIV_NEVER, "the filter \"%s\" is not offered", h->filter->name);
  h->rest = after(a, 1);
  return lazily(v, x, h, next_mapped);
}

static value select_by(vm *v, value x, const struct args *a, bool by_attribute, bool negate) {
  struct how *h = viv__t_alloc(v, sizeof *h);
  int n = by_attribute;
  h->negate = negate;
  h->path = viv__t_none();
  if (by_attribute) {
    if (!a->n) viv__t_fail(v, VIV_BAD_INPUT, "Missing parameter for attribute name");
    h->path = a->pos[0];
  }
  if (a->n > n) {
    const struct str *name = viv__t_tostr(v, a->pos[n]);
    h->check = viv__t_find_check(name);
    if (!h->check)
      viv__t_fail(v, VIV_BAD_INPUT, "No test named '%.*s'.", (int)name->len, name->ptr);
    h->rest = after(a, n + 1);
  }
  return lazily(v, x, h, next_selected);
}

FILTER(f_select) {
  UNUSED;
  return select_by(v, x, a, false, false);
}
FILTER(f_reject) {
  UNUSED;
  return select_by(v, x, a, false, true);
}
FILTER(f_selectattr) {
  UNUSED;
  return select_by(v, x, a, true, false);
}
FILTER(f_rejectattr) {
  UNUSED;
  return select_by(v, x, a, true, true);
}

const struct filter viv__t_list_filters[] = {
    {"batch", "linecount fill_with", 1, f_batch},
    {"count", "", 0, f_length},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort},
    {"first", "", 0, f_first},
    {"groupby", "attribute default case_sensitive", 1, f_groupby},
    {"items", "", 0, f_items},
    {"join", "d attribute", 0, f_join},
    {"last", "", 0, f_last},
    {"length", "", 0, f_length},
    {"list", "", 0, f_list},
    {"map", NULL, 0, f_map},
    {"max", "case_sensitive attribute", 0, f_max},
    {"min", "case_sensitive attribute", 0, f_min},
    {"reject", NULL, 0, f_reject},
    {"rejectattr", NULL, 0, f_rejectattr},
    {"reverse", "", 0, f_reverse},
    {"select", NULL, 0, f_select},
    {"selectattr", NULL, 0, f_selectattr},
    {"slice", "slices fill_with", 1, f_slice},
    {"sort", "reverse case_sensitive attribute", 0, f_sort},
    {"sum", "attribute start", 0, f_sum},
    {"unique", "case_sensitive attribute", 0, f_unique},
    {0}};
