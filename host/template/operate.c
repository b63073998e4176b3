/* Arithmetic, attributes, subscripts and slices, with Python's rules. */
#include <math.h>
#include <string.h>

#include "template/internal.h"

bool viv__t_is_int(value x, wide *out) {
  *out = x.kind == V_BOOL ? x.b : x.kind == V_INT ? x.i : 0;
  return x.kind == V_BOOL || x.kind == V_INT;
}

double viv__t_real(vm *v, value x) {
  wide i;
  if (x.kind == V_FLOAT) return x.f;
  if (viv__t_is_int(x, &i)) return (double)i;
  viv__t_fail(v, VIV_BAD_INPUT, "must be real number, not %s", viv__t_type(x));
}

static _Noreturn void unsupported(vm *v, const char *op, value a, value b) {
  viv__t_fail(v, VIV_BAD_INPUT, "unsupported operand type(s) for %s: '%s' and '%s'", op,
              viv__t_type(a), viv__t_type(b));
}

static _Noreturn void too_big(vm *v) {
  viv__t_fail(v, VIV_BAD_INPUT, "whole numbers of more than 127 bits are not offered");
}

static value joined(vm *v, value a, value b) {
  struct text t = {0};
  bool markup = a.s->markup || b.s->markup;
  viv__t_put_str(v, &t, markup ? viv__t_escape(v, a) : a.s);
  viv__t_put_str(v, &t, markup ? viv__t_escape(v, b) : b.s);
  value out = viv__t_text(v, &t);
  if (markup) {
    struct str *s = viv__t_alloc(v, sizeof *s);
    *s = *out.s;
    s->markup = true;
    out.s = s;
  }
  return out;
}

static value repeated(vm *v, value x, wide times) {
  size_t n = viv__t_len(v, x);
  if (times < 0) times = 0;
  if (times > 1 << 25 || (n && times > (1 << 25) / (wide)n))
    viv__t_fail(v, VIV_BAD_INPUT, "a repetition is too long");
  if (x.kind == V_STR) {
    struct text t = {0};
    for (wide i = 0; i < times && x.s->len; i++) {
      viv__t_put_str(v, &t, x.s);
      viv__t_step(v, 1);
    }
    return viv__t_text(v, &t);
  }
  value out = viv__t_list(v, x.kind, n * (size_t)times);
  for (wide i = 0; i < times; i++)
    for (size_t k = 0; k < n; k++) viv__t_push(v, out.l, x.l->items[k]);
  return out;
}

static bool repeats(value x) {
  return x.kind == V_STR || x.kind == V_LIST || x.kind == V_TUPLE;
}

static value integer_power(vm *v, wide a, wide b) {
  wide out = 1;
  if (b < 0) {
    if (!a) viv__t_fail(v, VIV_BAD_INPUT, "0.0 cannot be raised to a negative power");
    return viv__t_float(pow((double)a, (double)b));
  }
  if (a == 0 || a == 1) return viv__t_int(b ? a : 1);
  if (a == -1) return viv__t_int(b % 2 ? -1 : 1);
  if (b > 128) too_big(v);
  for (; b; b--)
    if (__builtin_mul_overflow(out, a, &out)) too_big(v);
  return viv__t_int(out);
}

static value integers(vm *v, int op, wide a, wide b) {
  wide out = 0;
  bool over = false;
  switch (op) {
  case '+':
    over = __builtin_add_overflow(a, b, &out);
    break;
  case '-':
    over = __builtin_sub_overflow(a, b, &out);
    break;
  case '*':
    over = __builtin_mul_overflow(a, b, &out);
    break;
  case '/':
    if (!b) viv__t_fail(v, VIV_BAD_INPUT, "division by zero");
    return viv__t_float((double)a / (double)b);
  case OP2('*', '*'):
    return integer_power(v, a, b);
  default: /* // and % round down */
    if (!b)
      viv__t_fail(v, VIV_BAD_INPUT,
                  op == '%' ? "integer modulo by zero" : "integer division or modulo by zero");
    if (b == -1) {
      over = op != '%' && __builtin_sub_overflow((wide)0, a, &out);
      break;
    }
    out = a / b;
    if (a % b && (a % b < 0) != (b < 0)) out--;
    if (op == '%') out = a - out * b;
  }
  if (over) too_big(v);
  return viv__t_int(out);
}

static value reals(vm *v, int op, double a, double b) {
  double rest;
  switch (op) {
  case '+':
    return viv__t_float(a + b);
  case '-':
    return viv__t_float(a - b);
  case '*':
    return viv__t_float(a * b);
  case '/':
    if (b == 0) viv__t_fail(v, VIV_BAD_INPUT, "float division by zero");
    return viv__t_float(a / b);
  case OP2('*', '*'):
    if (a == 0 && b < 0) viv__t_fail(v, VIV_BAD_INPUT, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(b) && b != floor(b))
      viv__t_fail(v, VIV_BAD_INPUT, "complex numbers are not offered");
    rest = pow(a, b);
    if (isinf(rest) && isfinite(a) && isfinite(b))
      viv__t_fail(v, VIV_BAD_INPUT, "(34, 'Numerical result out of range')");
    return viv__t_float(rest);
  default:
    if (b == 0)
      viv__t_fail(v, VIV_BAD_INPUT, op == '%' ? "float modulo" : "float floor division by zero");
    rest = fmod(a, b);
    if (rest != 0) {
      if ((b < 0) != (rest < 0)) rest += b;
    } else {
      rest = copysign(0, b);
    }
    if (op == '%') return viv__t_float(rest);
    double down = (a - rest) / b;
    double whole = floor(down);
    if (down - whole > 0.5) whole += 1;
    return viv__t_float(down == 0 ? copysign(0, a / b) : whole);
  }
}

static const char *op_name(int op) {
  switch (op) {
  case '+':
    return "+";
  case '-':
    return "-";
  case '*':
    return "*";
  case '/':
    return "/";
  case '%':
    return "%";
  case OP2('/', '/'):
    return "//";
  default:
    return "** or pow()";
  }
}

value viv__t_binary(vm *v, int op, value a, value b) {
  wide i, j;
  if (op == '%' && a.kind == V_STR) return viv__t_percent(v, a.s, b);
  if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
    viv__t_fail_str(v, VIV_BAD_INPUT, a.kind == V_UNDEFINED ? a.u->message : b.u->message);
  bool ints = viv__t_is_int(a, &i), other = viv__t_is_int(b, &j);
  if (ints && other) return integers(v, op, i, j);
  if ((ints || a.kind == V_FLOAT) && (other || b.kind == V_FLOAT))
    return reals(v, op, viv__t_real(v, a), viv__t_real(v, b));
  if (op == '*' && repeats(a) && other) return repeated(v, a, j);
  if (op == '*' && repeats(b) && ints) return repeated(v, b, i);
  if (op != '+') unsupported(v, op_name(op), a, b);
  if (a.kind == V_STR && b.kind == V_STR) return joined(v, a, b);
  if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE)) {
    value out = viv__t_list(v, a.kind, a.l->n + b.l->n);
    for (size_t k = 0; k < a.l->n; k++) viv__t_push(v, out.l, a.l->items[k]);
    for (size_t k = 0; k < b.l->n; k++) viv__t_push(v, out.l, b.l->items[k]);
    return out;
  }
  if (repeats(a))
    viv__t_fail(v, VIV_BAD_INPUT, "can only concatenate %s (not \"%s\") to %s", viv__t_type(a),
                viv__t_type(b), viv__t_type(a));
  unsupported(v, "+", a, b);
}

value viv__t_unary(vm *v, int op, value a) {
  wide i;
  if (a.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, a.u->message);
  if (a.kind == V_FLOAT) return op == '-' ? viv__t_float(-a.f) : a;
  if (!viv__t_is_int(a, &i))
    viv__t_fail(v, VIV_BAD_INPUT, "bad operand type for unary %c: '%s'", op, viv__t_type(a));
  if (op == '-' && __builtin_sub_overflow((wide)0, i, &i)) too_big(v);
  return viv__t_int(i);
}

/* ---- attributes and subscripts ---- */

static bool loop_attr(vm *v, struct loop *l, const struct str *name, value *out) {
  static const char *const names[] = {"index",  "index0",   "revindex", "revindex0",
                                      "first",  "last",     "length",   "depth",
                                      "depth0", "previtem", "nextitem"};
  size_t i = 0, n = l->items->n;
  while (i < sizeof names / sizeof *names && !viv__t_streq(name, names[i])) i++;
  wide at = (wide)l->index;
  switch (i) {
  case 0:
    *out = viv__t_int(at + 1);
    break;
  case 1:
    *out = viv__t_int(at);
    break;
  case 2:
    *out = viv__t_int((wide)n - at);
    break;
  case 3:
    *out = viv__t_int((wide)n - at - 1);
    break;
  case 4:
    *out = viv__t_bool(!at);
    break;
  case 5:
    *out = viv__t_bool(l->index + 1 == n);
    break;
  case 6:
    *out = viv__t_int((wide)n);
    break;
  case 7:
    *out = viv__t_int(l->depth + 1);
    break;
  case 8:
    *out = viv__t_int(l->depth);
    break;
  case 9:
    *out = at ? l->items->items[at - 1] : viv__t_undefined(v, false, "there is no previous item");
    break;
  case 10:
    *out = l->index + 1 < n ? l->items->items[at + 1]
                            : viv__t_undefined(v, false, "there is no next item");
    break;
  default:
    return false;
  }
  return true;
}

static bool macro_attr(vm *v, const struct macro *m, const struct str *name, value *out) {
  if (viv__t_streq(name, "name")) {
    *out = viv__t_strv(m->node->text);
  } else if (viv__t_streq(name, "arguments")) {
    *out = viv__t_list(v, V_TUPLE, 0);
    for (const struct node *a = m->node->list; a; a = a->next)
      viv__t_push(v, out->l, viv__t_strv(a->text));
  } else if (viv__t_streq(name, "caller")) {
    *out = viv__t_bool(m->uses_caller);
  } else if (viv__t_streq(name, "catch_kwargs")) {
    *out = viv__t_bool(m->uses_kwargs);
  } else if (viv__t_streq(name, "catch_varargs")) {
    *out = viv__t_bool(m->uses_varargs);
  } else {
    return false;
  }
  return true;
}

/* Methods that would change a list or dict: they are seen and may not be used. */
static bool changes(value x, const struct str *name) {
  static const char *const lists[] = {"append", "clear", "pop",    "reverse",
                                      "insert", "sort",  "extend", "remove"};
  static const char *const dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  size_t n = x.kind == V_LIST   ? sizeof lists / sizeof *lists
             : x.kind == V_DICT ? sizeof dicts / sizeof *dicts
                                : 0;
  for (size_t i = 0; i < n; i++)
    if (viv__t_streq(name, x.kind == V_LIST ? lists[i] : dicts[i])) return true;
  return false;
}

/* What getattr(x, name) finds. */
static bool own_attr(vm *v, value x, const struct str *name, value *out) {
  const struct method *m;
  if (name->len && name->ptr[0] == '_') {
    /* Python's own attributes exist everywhere; which they are does not matter. */
    if (name->len < 5 || name->ptr[1] != '_' || name->ptr[name->len - 1] != '_') return false;
    *out = viv__t_undefined(v, true, "access to attribute '%.*s' of '%s' object is unsafe.",
                            (int)name->len, name->ptr, viv__t_type(x));
    return true;
  }
  if (changes(x, name)) {
    *out = viv__t_undefined(v, true, "access to attribute '%.*s' of '%s' object is unsafe.",
                            (int)name->len, name->ptr, viv__t_type(x));
    return true;
  }
  if (x.kind == V_SPACE) return viv__t_dict_get(v, x.d, viv__t_strv(name), out);
  if (x.kind == V_LOOP && loop_attr(v, x.loop, name, out)) return true;
  if (x.kind == V_MACRO) return macro_attr(v, x.macro, name, out);
  if (x.kind == V_CYCLER && viv__t_streq(name, "current")) {
    *out = x.c->items->items[x.c->pos];
    return true;
  }
  if (x.kind == V_TUPLE && x.sub && viv__t_streq(name, "grouper")) {
    *out = x.l->items[0];
    return true;
  }
  if (x.kind == V_TUPLE && x.sub && viv__t_streq(name, "list")) {
    *out = x.l->items[1];
    return true;
  }
  if (x.kind == V_RANGE &&
      (viv__t_streq(name, "start") || viv__t_streq(name, "stop") || viv__t_streq(name, "step"))) {
    *out = viv__t_int(name->len == 5 ? x.r->start : name->ptr[2] == 'o' ? x.r->stop : x.r->step);
    return true;
  }
  if ((m = viv__t_find_method(x, name))) {
    struct bound *b = viv__t_alloc(v, sizeof *b);
    *b = (struct bound){x, m};
    *out = (value){.kind = V_METHOD, .m = b};
    return true;
  }
  return false;
}

/* What x[key] finds; false where Python raises an error that only means "not there". */
static bool own_item(vm *v, value x, value key, value *out) {
  wide i;
  size_t n;
  if (x.kind == V_DICT) {
    if (key.kind == V_LIST || key.kind == V_DICT) return false;
    return viv__t_dict_get(v, x.d, key, out);
  }
  if (x.kind != V_STR && x.kind != V_LIST && x.kind != V_TUPLE && x.kind != V_RANGE) return false;
  if (!viv__t_is_int(key, &i)) return false;
  n = viv__t_len(v, x);
  if (i < 0) i += (wide)n;
  if (i < 0 || i >= (wide)n) return false;
  if (x.kind == V_RANGE) {
    *out = viv__t_int(x.r->start + (int64_t)i * x.r->step);
  } else if (x.kind == V_STR) {
    size_t at = viv__t_byte_of(x.s, (size_t)i);
    int bytes;
    viv__t_step(v, at / 256);
    viv__t_cp(x.s->ptr + at, x.s->len - at, &bytes);
    *out = viv__t_share(v, x.s->ptr + at, (size_t)bytes);
  } else {
    *out = x.l->items[i];
  }
  return true;
}

static const char *object_name(value x) {
  return x.kind == V_NONE ? "None" : viv__t_type(x);
}

value viv__t_attr(vm *v, value x, const struct str *name) {
  value out;
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (own_attr(v, x, name, &out) || own_item(v, x, viv__t_strv(name), &out)) return out;
  return viv__t_undefined(v, false, "'%s%s' has no attribute '%.*s'", object_name(x),
                          x.kind == V_NONE ? "" : " object", (int)name->len, name->ptr);
}

value viv__t_item(vm *v, value x, value key) {
  value out;
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (own_item(v, x, key, &out)) return out;
  if (key.kind == V_STR && own_attr(v, x, key.s, &out)) return out;
  if (key.kind == V_STR)
    return viv__t_undefined(v, false, "'%s%s' has no attribute '%.*s'", object_name(x),
                            x.kind == V_NONE ? "" : " object", (int)key.s->len, key.s->ptr);
  if (key.kind >= V_SPACE)
    return viv__t_undefined(v, false, "%s object has no such element", object_name(x));
  return viv__t_undefined(v, false, "%s object has no element %.200s", object_name(x),
                          viv__t_shown(v, key));
}

static int64_t bound_of(vm *v, value x, int64_t fallback, int64_t n, int64_t low, int64_t high) {
  if (x.kind == V_NONE || x.kind == V_MISSING) return fallback;
  if (x.kind != V_INT && x.kind != V_BOOL && x.kind != V_UNDEFINED)
    viv__t_fail(v, VIV_BAD_INPUT,
                "slice indices must be integers or None or have an __index__ method");
  int64_t i = viv__t_index(v, x);
  if (i < 0) i += n;
  return i < low ? low : i > high ? high : i;
}

value viv__t_slice(vm *v, value x, value start, value stop, value step) {
  if (x.kind == V_UNDEFINED) viv__t_fail_str(v, VIV_BAD_INPUT, x.u->message);
  if (x.kind != V_STR && x.kind != V_LIST && x.kind != V_TUPLE && x.kind != V_RANGE)
    return viv__t_undefined(v, false, "%s object has no such slice", object_name(x));
  int64_t n = (int64_t)viv__t_len(v, x);
  int64_t by = step.kind == V_NONE || step.kind == V_MISSING ? 1 : viv__t_index(v, step);
  if (!by) viv__t_fail(v, VIV_BAD_INPUT, "slice step cannot be zero");
  int64_t from = bound_of(v, start, by > 0 ? 0 : n - 1, n, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
  int64_t to = bound_of(v, stop, by > 0 ? n : -1, n, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
  int64_t count = by > 0 ? (to > from ? (to - from - 1) / by + 1 : 0)
                         : (from > to ? (from - to - 1) / -by + 1 : 0);
  if (x.kind == V_RANGE) {
    struct range *r = viv__t_alloc(v, sizeof *r);
    *r = (struct range){x.r->start + from * x.r->step, x.r->start + to * x.r->step, x.r->step * by,
                        count};
    return (value){.kind = V_RANGE, .r = r};
  }
  if (x.kind == V_STR) {
    size_t a = count ? viv__t_byte_of(x.s, (size_t)from) : 0;
    if (by == 1) {
      size_t b = count ? viv__t_byte_of(x.s, (size_t)to) : 0;
      return viv__t_share(v, x.s->ptr + a, b - a);
    }
    value chars = viv__t_slice(v, viv__t_listed(v, x), start, stop, step);
    struct text t = {0};
    for (size_t i = 0; i < chars.l->n; i++) viv__t_put_str(v, &t, chars.l->items[i].s);
    return viv__t_text(v, &t);
  }
  value out = viv__t_list(v, x.kind, by == 1 ? 0 : (size_t)count);
  if (by == 1) { /* lists don't change, so the items are shared */
    out.l->items = x.l->items + from;
    out.l->n = out.l->cap = (size_t)count;
  } else {
    for (int64_t i = 0; i < count; i++) viv__t_push(v, out.l, x.l->items[from + i * by]);
  }
  return out;
}
