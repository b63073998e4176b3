/* Methods of strings, lists, tuples and dicts. What would change a list or dict is no method here;
 * operate.c answers for it. */
#include <string.h>

#include "template/internal.h"

#define METHOD(name) static value name(vm *v, value x, value *in, const struct args *a)
#define UNUSED (void)v, (void)x, (void)in, (void)a

static bool given(value x) {
  return x.kind != V_MISSING && x.kind != V_NONE;
}

static const struct str *text(vm *v, value x) {
  if (x.kind == V_STR) return x.s;
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  viv__t_fail(v, VIV_BAD_INPUT, "must be str, not %s", viv__t_type(x));
}

/* ---- what filters use too ---- */

static bool in_set(const struct str *set, uint32_t cp) {
  if (!set) return viv__t_space(cp);
  for (size_t i = 0; i < set->len;) {
    int n;
    if (viv__t_cp(set->ptr + i, set->len - i, &n) == cp) return true;
    i += (size_t)n;
  }
  return false;
}

value viv__t_strip(vm *v, const struct str *s, value chars, bool left, bool right) {
  const struct str *set = given(chars) ? text(v, chars) : NULL;
  size_t from = 0, to = s->len;
  int n;
  if (set) viv__t_step(v, set->len / 16);
  while (left && from < to && in_set(set, viv__t_cp(s->ptr + from, to - from, &n)))
    from += (size_t)n;
  while (right && to > from) {
    size_t i = to - 1;
    while (i > from && (s->ptr[i] & 0xc0) == 0x80) i--;
    if (!in_set(set, viv__t_cp(s->ptr + i, to - i, &n))) break;
    to = i;
  }
  return viv__t_share(v, s->ptr + from, to - from);
}

value viv__t_pad(vm *v, const struct str *s, wide width, const struct str *fill, char align) {
  struct text t = {0};
  wide room = width - (wide)s->chars;
  if (room <= 0) return viv__t_strv(s);
  if (room > 1 << 24) viv__t_fail(v, VIV_BAD_INPUT, "a text is padded too far");
  if (fill && fill->chars != 1)
    viv__t_fail(v, VIV_BAD_INPUT, "The fill character must be exactly one character long");
  /* str.center puts the odd one left when the width is odd, str.format right. */
  wide left = align == '>'   ? room
              : align == '<' ? 0
              : align == 'f' ? room / 2
                             : room / 2 + (room & width & 1);
  for (wide i = 0; i < room; i++) {
    if (i == left) viv__t_put_str(v, &t, s);
    viv__t_put(v, &t, fill ? fill->ptr : " ", fill ? fill->len : 1);
  }
  if (left == room) viv__t_put_str(v, &t, s);
  return viv__t_text(v, &t);
}

static bool line_end(uint32_t cp) {
  return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
         cp == 0x2029;
}

value viv__t_split_lines(vm *v, const struct str *s, bool keep) {
  value out = viv__t_list(v, V_LIST, 0);
  for (size_t i = 0, from = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    size_t end = i;
    i += (size_t)n;
    bool ends = line_end(cp);
    if (ends && cp == '\r' && i < s->len && s->ptr[i] == '\n') i++;
    if (!ends && i < s->len) continue;
    viv__t_push(v, out.l, viv__t_share(v, s->ptr + from, (keep || !ends ? i : end) - from));
    from = i;
  }
  return out;
}

/* The next place of what in s from `at` on, or s->len + 1. */
static size_t find(vm *v, const struct str *s, size_t at, const struct str *what) {
  const char *hit = at > s->len ? NULL : memmem(s->ptr + at, s->len - at, what->ptr, what->len);
  size_t end = hit ? (size_t)(hit - s->ptr) : s->len + 1;
  viv__t_step(v, 1 + (end - (at < end ? at : end)) / 128);
  return end;
}

value viv__t_replace(vm *v, const struct str *s, const struct str *old, const struct str *by,
                     wide count) {
  struct text t = {0};
  size_t at = 0;
  for (; count; count--) {
    size_t hit = old->len ? find(v, s, at, old) : at;
    if (hit > s->len) break;
    viv__t_put(v, &t, s->ptr + at, hit - at);
    viv__t_put_str(v, &t, by);
    at = hit + old->len;
    if (old->len) continue;
    if (at >= s->len) return viv__t_text(v, &t); /* between all characters, and at both ends */
    int n;
    viv__t_cp(s->ptr + at, s->len - at, &n);
    viv__t_put(v, &t, s->ptr + at, (size_t)n);
    at += (size_t)n;
    if (at == s->len && count != 1) {
      viv__t_put_str(v, &t, by);
      return viv__t_text(v, &t);
    }
  }
  viv__t_put(v, &t, s->ptr + at, s->len - at);
  return viv__t_text(v, &t);
}

/* ---- strings ---- */

METHOD(m_upper) {
  UNUSED;
  struct text t = {0};
  viv__t_put_case(v, &t, x.s, CASE_UPPER);
  return viv__t_text(v, &t);
}
METHOD(m_lower) {
  UNUSED;
  struct text t = {0};
  viv__t_put_case(v, &t, x.s, CASE_LOWER);
  return viv__t_text(v, &t);
}

static value words(vm *v, const struct str *s, bool title) {
  struct text t = {0};
  bool inside = false;
  for (size_t i = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    viv__t_put_cased(v, &t, cp, inside ? CASE_LOWER : CASE_TITLE);
    inside = !title || viv__t_upper(cp) || viv__t_lower(cp);
    i += (size_t)n;
  }
  return viv__t_text(v, &t);
}
METHOD(m_title) {
  UNUSED;
  return words(v, x.s, true);
}
METHOD(m_capitalize) {
  UNUSED;
  return words(v, x.s, false);
}
METHOD(m_swapcase) {
  UNUSED;
  struct text t = {0};
  for (size_t i = 0; i < x.s->len;) {
    int n;
    uint32_t cp = viv__t_cp(x.s->ptr + i, x.s->len - i, &n);
    if (viv__t_upper(cp) || viv__t_lower(cp))
      viv__t_put_cased(v, &t, cp, viv__t_upper(cp) ? CASE_LOWER : CASE_UPPER);
    else
      viv__t_put_cp(v, &t, cp);
    i += (size_t)n;
  }
  return viv__t_text(v, &t);
}

METHOD(m_strip) {
  UNUSED;
  return viv__t_strip(v, x.s, in[0], true, true);
}
METHOD(m_lstrip) {
  UNUSED;
  return viv__t_strip(v, x.s, in[0], true, false);
}
METHOD(m_rstrip) {
  UNUSED;
  return viv__t_strip(v, x.s, in[0], false, true);
}

static const struct str *reversed(vm *v, const struct str *s) {
  return viv__t_slice(v, viv__t_strv(s), viv__t_none(), viv__t_none(), viv__t_int(-1)).s;
}

static value flipped(vm *v, value l, bool strings) {
  value out = viv__t_slice(v, l, viv__t_none(), viv__t_none(), viv__t_int(-1));
  for (size_t i = 0; strings && i < out.l->n; i++)
    out.l->items[i] = viv__t_strv(reversed(v, out.l->items[i].s));
  return out;
}

static value split_space(vm *v, const struct str *s, int64_t max) {
  value out = viv__t_list(v, V_LIST, 0);
  size_t at = 0;
  int n;
  for (;;) {
    while (at < s->len && viv__t_space(viv__t_cp(s->ptr + at, s->len - at, &n))) at += (size_t)n;
    if (at >= s->len) return out;
    if (max >= 0 && (int64_t)out.l->n >= max) break;
    size_t from = at;
    while (at < s->len && !viv__t_space(viv__t_cp(s->ptr + at, s->len - at, &n))) at += (size_t)n;
    viv__t_push(v, out.l, viv__t_share(v, s->ptr + from, at - from));
  }
  struct str rest = {s->ptr + at, s->len - at, 0, false};
  rest.chars = viv__t_chars(rest.ptr, rest.len);
  viv__t_push(v, out.l, viv__t_strip(v, &rest, viv__t_none(), false, true));
  return out;
}

static value split(vm *v, const struct str *s, value by, value limit) {
  int64_t max = given(limit) ? viv__t_index(v, limit) : -1;
  if (!given(by)) return split_space(v, s, max);
  const struct str *sep = text(v, by);
  if (!sep->len) viv__t_fail(v, VIV_BAD_INPUT, "empty separator");
  value out = viv__t_list(v, V_LIST, 0);
  size_t at = 0;
  while (max < 0 || (int64_t)out.l->n < max) {
    size_t hit = find(v, s, at, sep);
    if (hit > s->len) break;
    viv__t_push(v, out.l, viv__t_share(v, s->ptr + at, hit - at));
    at = hit + sep->len;
  }
  viv__t_push(v, out.l, viv__t_share(v, s->ptr + at, s->len - at));
  return out;
}

METHOD(m_split) {
  UNUSED;
  return split(v, x.s, in[0], in[1]);
}
/* From the right: what split finds in everything written backwards. */
METHOD(m_rsplit) {
  UNUSED;
  if (!given(in[1]) || viv__t_index(v, in[1]) < 0) return split(v, x.s, in[0], in[1]);
  value by = given(in[0]) ? viv__t_strv(reversed(v, text(v, in[0]))) : in[0];
  return flipped(v, split(v, reversed(v, x.s), by, in[1]), true);
}
METHOD(m_splitlines) {
  UNUSED;
  return viv__t_split_lines(v, x.s, in[0].kind != V_MISSING && viv__t_truth(v, in[0]));
}

static value three(vm *v, value a, value b, value c) {
  value out = viv__t_tuple2(v, a, b);
  viv__t_push(v, out.l, c);
  return out;
}
METHOD(m_partition) {
  UNUSED;
  const struct str *sep = text(v, in[0]);
  if (!sep->len) viv__t_fail(v, VIV_BAD_INPUT, "empty separator");
  size_t hit = find(v, x.s, 0, sep);
  value empty = viv__t_cstr(v, "");
  if (hit > x.s->len) return three(v, x, empty, empty);
  size_t end = hit + sep->len;
  return three(v, viv__t_share(v, x.s->ptr, hit), in[0],
               viv__t_share(v, x.s->ptr + end, x.s->len - end));
}
static size_t find_last(vm *v, const struct str *s, const struct str *what) {
  viv__t_step(v, 1 + s->len / 16);
  if (what->len > s->len) return s->len + 1;
  for (size_t i = s->len - what->len + 1; i--;)
    if (!memcmp(s->ptr + i, what->ptr, what->len) && (i == s->len || (s->ptr[i] & 0xc0) != 0x80))
      return i;
  return s->len + 1;
}
METHOD(m_rpartition) {
  UNUSED;
  const struct str *sep = text(v, in[0]);
  if (!sep->len) viv__t_fail(v, VIV_BAD_INPUT, "empty separator");
  size_t hit = find_last(v, x.s, sep);
  value empty = viv__t_cstr(v, "");
  if (hit > x.s->len) return three(v, empty, empty, x);
  size_t end = hit + sep->len;
  return three(v, viv__t_share(v, x.s->ptr, hit), in[0],
               viv__t_share(v, x.s->ptr + end, x.s->len - end));
}

/* x[start:stop] for the methods that look into a part. */
static const struct str *part(vm *v, value x, value start, value stop, size_t *first) {
  *first = 0;
  if (!given(start) && !given(stop)) return x.s;
  if (start.kind == V_MISSING) start = viv__t_none();
  if (stop.kind == V_MISSING) stop = viv__t_none();
  const struct str *s = viv__t_slice(v, x, start, stop, viv__t_none()).s;
  int64_t i = given(start) ? viv__t_index(v, start) : 0;
  if (i < 0) i += (int64_t)x.s->chars;
  *first = i < 0 ? 0 : (size_t)i;
  return s;
}

static int64_t place(vm *v, value x, value *in, bool last) {
  size_t first, hit;
  const struct str *what = text(v, in[0]), *s = part(v, x, in[1], in[2], &first);
  if (first > x.s->chars) return -1;
  hit = last ? find_last(v, s, what) : find(v, s, 0, what);
  return hit > s->len ? -1 : (int64_t)(first + viv__t_chars(s->ptr, hit));
}
METHOD(m_find) {
  UNUSED;
  return viv__t_int(place(v, x, in, false));
}
METHOD(m_rfind) {
  UNUSED;
  return viv__t_int(place(v, x, in, true));
}
METHOD(m_index) {
  UNUSED;
  int64_t at = place(v, x, in, false);
  if (at < 0) viv__t_fail(v, VIV_BAD_INPUT, "substring not found");
  return viv__t_int(at);
}
METHOD(m_rindex) {
  UNUSED;
  int64_t at = place(v, x, in, true);
  if (at < 0) viv__t_fail(v, VIV_BAD_INPUT, "substring not found");
  return viv__t_int(at);
}
METHOD(m_count) {
  UNUSED;
  size_t first, at = 0;
  const struct str *what = text(v, in[0]), *s = part(v, x, in[1], in[2], &first);
  wide n = 0;
  if (!what->len) return viv__t_int((wide)s->chars + 1);
  while ((at = find(v, s, at, what)) <= s->len) {
    at += what->len;
    n++;
  }
  return viv__t_int(n);
}

static bool at_end(const struct str *s, const struct str *what, bool end) {
  return what->len <= s->len &&
         !memcmp(end ? s->ptr + s->len - what->len : s->ptr, what->ptr, what->len);
}
static value begins_or_ends(vm *v, value x, value *in, bool end) {
  size_t first;
  const struct str *s = part(v, x, in[1], in[2], &first);
  if (in[0].kind == V_TUPLE) {
    for (size_t i = 0; i < in[0].l->n; i++)
      if (at_end(s, text(v, in[0].l->items[i]), end)) return viv__t_bool(true);
    return viv__t_bool(false);
  }
  if (in[0].kind != V_STR && in[0].kind != V_UNDEFINED)
    viv__t_fail(v, VIV_BAD_INPUT, "%s first arg must be str or a tuple of str, not %s",
                end ? "endswith" : "startswith", viv__t_type(in[0]));
  return viv__t_bool(at_end(s, text(v, in[0]), end));
}
METHOD(m_startswith) {
  UNUSED;
  return begins_or_ends(v, x, in, false);
}
METHOD(m_endswith) {
  UNUSED;
  return begins_or_ends(v, x, in, true);
}
METHOD(m_removeprefix) {
  UNUSED;
  const struct str *p = text(v, in[0]);
  return at_end(x.s, p, false) ? viv__t_share(v, x.s->ptr + p->len, x.s->len - p->len) : x;
}
METHOD(m_removesuffix) {
  UNUSED;
  const struct str *p = text(v, in[0]);
  return p->len && at_end(x.s, p, true) ? viv__t_share(v, x.s->ptr, x.s->len - p->len) : x;
}
METHOD(m_replace) {
  UNUSED;
  return viv__t_replace(v, x.s, text(v, in[0]), text(v, in[1]),
                        given(in[2]) ? viv__t_index(v, in[2]) : -1);
}

static value padded(vm *v, value x, value *in, char align) {
  return viv__t_pad(v, x.s, viv__t_index(v, in[0]), given(in[1]) ? text(v, in[1]) : NULL, align);
}
METHOD(m_center) {
  UNUSED;
  return padded(v, x, in, '^');
}
METHOD(m_ljust) {
  UNUSED;
  return padded(v, x, in, '<');
}
METHOD(m_rjust) {
  UNUSED;
  return padded(v, x, in, '>');
}
METHOD(m_zfill) {
  UNUSED;
  struct text t = {0};
  bool sign = x.s->len && (x.s->ptr[0] == '+' || x.s->ptr[0] == '-');
  struct str rest = {x.s->ptr + sign, x.s->len - sign, x.s->chars - sign, false};
  if (sign) viv__t_put(v, &t, x.s->ptr, 1);
  viv__t_put_str(v, &t,
                 viv__t_pad(v, &rest, viv__t_index(v, in[0]) - sign, viv__t_cstr(v, "0").s, '>').s);
  return viv__t_text(v, &t);
}
METHOD(m_expandtabs) {
  UNUSED;
  struct text t = {0};
  int64_t size = given(in[0]) ? viv__t_index(v, in[0]) : 8, column = 0;
  if (size > 4096) viv__t_fail(v, VIV_BAD_INPUT, "a tab is too wide");
  for (size_t i = 0; i < x.s->len; i++) {
    char c = x.s->ptr[i];
    if (c == '\t') {
      for (int64_t k = size > 0 ? size - column % size : 0; k > 0; k--, column++)
        viv__t_puts(v, &t, " ");
      continue;
    }
    viv__t_put(v, &t, &c, 1);
    if ((c & 0xc0) != 0x80) column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  return viv__t_text(v, &t);
}
METHOD(m_join) {
  UNUSED;
  struct text t = {0};
  value item;
  struct iter *it = viv__t_iter(v, in[0]);
  for (size_t i = 0; viv__t_next(v, it, &item); i++) {
    if (item.kind != V_STR)
      viv__t_fail(v, VIV_BAD_INPUT, "sequence item %zu: expected str instance, %s found", i,
                  viv__t_type(item));
    if (i) viv__t_put_str(v, &t, x.s);
    viv__t_put_str(v, &t, item.s);
  }
  return viv__t_text(v, &t);
}
METHOD(m_format) {
  UNUSED;
  return viv__t_format(v, x.s, a);
}

static value every(const struct str *s, bool (*is)(uint32_t)) {
  bool all = s->len > 0;
  for (size_t i = 0; all && i < s->len;) {
    int n;
    all = is(viv__t_cp(s->ptr + i, s->len - i, &n));
    i += (size_t)n;
  }
  return viv__t_bool(all);
}
static bool alnum(uint32_t cp) {
  return cp != '_' && viv__t_word(cp);
}
static bool ascii(uint32_t cp) {
  return cp < 0x80;
}
static bool not_lower(uint32_t cp) {
  return !viv__t_lower(cp);
}
static bool not_upper(uint32_t cp) {
  return !viv__t_upper(cp);
}
static bool uncased(uint32_t cp) {
  return !viv__t_upper(cp) && !viv__t_lower(cp);
}
METHOD(m_isalnum) {
  UNUSED;
  return every(x.s, alnum);
}
METHOD(m_isalpha) {
  UNUSED;
  return every(x.s, viv__t_alpha);
}
METHOD(m_isascii) {
  UNUSED;
  return viv__t_bool(!x.s->len || every(x.s, ascii).b);
}
METHOD(m_isdigit) {
  UNUSED;
  return every(x.s, viv__t_digit);
}
METHOD(m_isspace) {
  UNUSED;
  return every(x.s, viv__t_space);
}
METHOD(m_isupper) {
  UNUSED;
  return viv__t_bool(every(x.s, not_lower).b && !every(x.s, uncased).b);
}
METHOD(m_islower) {
  UNUSED;
  return viv__t_bool(every(x.s, not_upper).b && !every(x.s, uncased).b);
}
METHOD(m_istitle) {
  UNUSED;
  return viv__t_bool(!every(x.s, uncased).b && x.s->len && viv__t_same(words(v, x.s, true).s, x.s));
}
METHOD(m_isprintable) {
  UNUSED;
  return viv__t_bool(!x.s->len || every(x.s, viv__t_printable).b);
}
METHOD(m_isidentifier) {
  UNUSED;
  return viv__t_bool(every(x.s, viv__t_word).b && !(x.s->ptr[0] >= '0' && x.s->ptr[0] <= '9'));
}

/* ---- lists, tuples ---- */

METHOD(m_list_index) {
  UNUSED;
  for (size_t i = 0; i < x.l->n; i++)
    if (viv__t_equal(v, x.l->items[i], in[0])) return viv__t_int((wide)i);
  viv__t_fail(v, VIV_BAD_INPUT, "%s is not in list", viv__t_shown(v, in[0]));
}
METHOD(m_list_count) {
  UNUSED;
  wide n = 0;
  for (size_t i = 0; i < x.l->n; i++) n += viv__t_equal(v, x.l->items[i], in[0]);
  return viv__t_int(n);
}
METHOD(m_copy) {
  UNUSED;
  return x; /* nothing can change it */
}

/* ---- dicts ---- */

static value view(value x, char what) {
  x.kind = V_VIEW;
  x.sub = (uint8_t)what;
  return x;
}
METHOD(m_keys) {
  UNUSED;
  return view(x, 'k');
}
METHOD(m_values) {
  UNUSED;
  return view(x, 'v');
}
METHOD(m_items) {
  UNUSED;
  return view(x, 'i');
}
METHOD(m_get) {
  UNUSED;
  value out;
  viv__t_hash(v, in[0]);
  if (viv__t_dict_get(v, x.d, in[0], &out)) return out;
  return in[1].kind == V_MISSING ? viv__t_none() : in[1];
}

/* ---- others ---- */

METHOD(m_is_integer) {
  UNUSED;
  return viv__t_bool(x.f == (double)(int64_t)x.f);
}
METHOD(m_bit_length) {
  UNUSED;
  wide n = 0;
  for (unsigned __int128 u = (unsigned __int128)(x.i < 0 ? -x.i : x.i); u; u >>= 1) n++;
  return viv__t_int(n);
}
METHOD(m_next) {
  UNUSED;
  value out = x.c->items->items[x.c->pos];
  x.c->pos = (x.c->pos + 1) % x.c->items->n;
  return out;
}
METHOD(m_reset) {
  UNUSED;
  x.c->pos = 0;
  return viv__t_none();
}
METHOD(m_loop_cycle) {
  UNUSED;
  if (!a->n) viv__t_fail(v, VIV_BAD_INPUT, "no items for cycling given");
  return a->pos[x.loop->index % (size_t)a->n];
}
METHOD(m_loop_changed) {
  UNUSED;
  value now = viv__t_list(v, V_TUPLE, 0);
  for (int i = 0; i < a->n; i++) viv__t_push(v, now.l, a->pos[i]);
  bool same = x.loop->seen.kind != V_MISSING && viv__t_equal(v, x.loop->seen, now);
  x.loop->seen = now;
  return viv__t_bool(!same);
}

static const struct method strings[] = {{"capitalize", "", 0, m_capitalize},
                                        {"casefold", "", 0, m_lower},
                                        {"center", "width fillchar", 1, m_center},
                                        {"count", "sub start end", 1, m_count},
                                        {"endswith", "suffix start end", 1, m_endswith},
                                        {"expandtabs", "tabsize", 0, m_expandtabs},
                                        {"find", "sub start end", 1, m_find},
                                        {"format", NULL, 0, m_format},
                                        {"index", "sub start end", 1, m_index},
                                        {"isalnum", "", 0, m_isalnum},
                                        {"isalpha", "", 0, m_isalpha},
                                        {"isascii", "", 0, m_isascii},
                                        {"isdecimal", "", 0, m_isdigit},
                                        {"isdigit", "", 0, m_isdigit},
                                        {"isidentifier", "", 0, m_isidentifier},
                                        {"islower", "", 0, m_islower},
                                        {"isnumeric", "", 0, m_isdigit},
                                        {"isprintable", "", 0, m_isprintable},
                                        {"isspace", "", 0, m_isspace},
                                        {"istitle", "", 0, m_istitle},
                                        {"isupper", "", 0, m_isupper},
                                        {"join", "iterable", 1, m_join},
                                        {"ljust", "width fillchar", 1, m_ljust},
                                        {"lower", "", 0, m_lower},
                                        {"lstrip", "chars", 0, m_lstrip},
                                        {"partition", "sep", 1, m_partition},
                                        {"removeprefix", "prefix", 1, m_removeprefix},
                                        {"removesuffix", "suffix", 1, m_removesuffix},
                                        {"replace", "old new count", 2, m_replace},
                                        {"rfind", "sub start end", 1, m_rfind},
                                        {"rindex", "sub start end", 1, m_rindex},
                                        {"rjust", "width fillchar", 1, m_rjust},
                                        {"rpartition", "sep", 1, m_rpartition},
                                        {"rsplit", "sep maxsplit", 0, m_rsplit},
                                        {"rstrip", "chars", 0, m_rstrip},
                                        {"split", "sep maxsplit", 0, m_split},
                                        {"splitlines", "keepends", 0, m_splitlines},
                                        {"startswith", "prefix start end", 1, m_startswith},
                                        {"strip", "chars", 0, m_strip},
                                        {"swapcase", "", 0, m_swapcase},
                                        {"title", "", 0, m_title},
                                        {"upper", "", 0, m_upper},
                                        {"zfill", "width", 1, m_zfill},
                                        {0}};
static const struct method lists[] = {{"copy", "", 0, m_copy},
                                      {"count", "value", 1, m_list_count},
                                      {"index", "value", 1, m_list_index},
                                      {0}};
static const struct method dicts[] = {{"copy", "", 0, m_copy},     {"get", "key default", 1, m_get},
                                      {"items", "", 0, m_items},   {"keys", "", 0, m_keys},
                                      {"values", "", 0, m_values}, {0}};
static const struct method floats[] = {{"is_integer", "", 0, m_is_integer}, {0}};
static const struct method ints[] = {{"bit_length", "", 0, m_bit_length}, {0}};
static const struct method cyclers[] = {{"next", "", 0, m_next}, {"reset", "", 0, m_reset}, {0}};
static const struct method loops[] = {
    {"changed", NULL, 0, m_loop_changed}, {"cycle", NULL, 0, m_loop_cycle}, {0}};

const struct method *viv__t_find_method(value x, const struct str *name) {
  const struct method *m = x.kind == V_STR      ? strings
                           : x.kind == V_LIST   ? lists
                           : x.kind == V_TUPLE  ? lists + 1
                           : x.kind == V_DICT   ? dicts
                           : x.kind == V_FLOAT  ? floats
                           : x.kind == V_INT    ? ints
                           : x.kind == V_CYCLER ? cyclers
                           : x.kind == V_LOOP   ? loops
                                                : NULL;
  for (; m && m->name; m++)
    if (viv__t_streq(name, m->name)) return m;
  return NULL;
}

value viv__t_call_method(vm *v, const struct bound *b, const struct args *a) {
  value in[MAX_BOUND];
  const struct method *m = b->method;
  viv__t_step(v, 1);
  if (m->names) viv__t_bind(v, m->name, a, m->names, m->min, in);
  return m->fn(v, b->self, in, a);
}
