/* The tests behind `is`. */
#include <string.h>

#include "template/internal.h"

#define CHECK(name) static bool name(vm *v, value x, value *in)
#define UNUSED (void)v, (void)x, (void)in

CHECK(c_defined) {
  UNUSED;
  return x.kind != V_UNDEFINED;
}
CHECK(c_undefined) {
  UNUSED;
  return x.kind == V_UNDEFINED;
}
CHECK(c_none) {
  UNUSED;
  return x.kind == V_NONE;
}
CHECK(c_boolean) {
  UNUSED;
  return x.kind == V_BOOL;
}
CHECK(c_true) {
  UNUSED;
  return x.kind == V_BOOL && x.b;
}
CHECK(c_false) {
  UNUSED;
  return x.kind == V_BOOL && !x.b;
}
CHECK(c_integer) {
  UNUSED;
  return x.kind == V_INT;
}
CHECK(c_float) {
  UNUSED;
  return x.kind == V_FLOAT;
}
CHECK(c_number) {
  UNUSED;
  return x.kind == V_INT || x.kind == V_FLOAT || x.kind == V_BOOL;
}
CHECK(c_string) {
  UNUSED;
  return x.kind == V_STR;
}
CHECK(c_mapping) {
  UNUSED;
  return x.kind == V_DICT;
}
CHECK(c_iterable) {
  UNUSED;
  return viv__t_iterable(x) || x.kind == V_LOOP;
}
/* What has a length and can be subscripted. */
CHECK(c_sequence) {
  UNUSED;
  return x.kind == V_STR || x.kind == V_LIST || x.kind == V_TUPLE || x.kind == V_DICT ||
         x.kind == V_RANGE;
}
CHECK(c_callable) {
  UNUSED;
  return x.kind == V_FUNC || x.kind == V_METHOD || x.kind == V_MACRO || x.kind == V_LOOP ||
         x.kind == V_JOINER || x.kind == V_UNDEFINED;
}
CHECK(c_escaped) {
  UNUSED;
  return x.kind == V_STR && x.s->markup;
}
CHECK(c_filter) {
  UNUSED;
  return x.kind == V_STR && viv__t_find_filter(x.s);
}
CHECK(c_test) {
  UNUSED;
  return x.kind == V_STR && viv__t_find_check(x.s);
}

static bool all_of(vm *v, value x, bool (*is)(uint32_t), bool (*is_not)(uint32_t)) {
  const struct str *s = viv__t_tostr(v, x);
  bool any = false;
  for (size_t i = 0; i < s->len;) {
    int n;
    uint32_t cp = viv__t_cp(s->ptr + i, s->len - i, &n);
    if (is_not(cp)) return false;
    any = any || is(cp);
    i += (size_t)n;
  }
  return any;
}
CHECK(c_upper) {
  UNUSED;
  return all_of(v, x, viv__t_upper, viv__t_lower);
}
CHECK(c_lower) {
  UNUSED;
  return all_of(v, x, viv__t_lower, viv__t_upper);
}

CHECK(c_odd) {
  UNUSED;
  return viv__t_equal(v, viv__t_binary(v, '%', x, viv__t_int(2)), viv__t_int(1));
}
CHECK(c_even) {
  UNUSED;
  return viv__t_equal(v, viv__t_binary(v, '%', x, viv__t_int(2)), viv__t_int(0));
}
CHECK(c_divisible) {
  UNUSED;
  return viv__t_equal(v, viv__t_binary(v, '%', x, in[0]), viv__t_int(0));
}
CHECK(c_eq) {
  UNUSED;
  return viv__t_equal(v, x, in[0]);
}
CHECK(c_ne) {
  UNUSED;
  return !viv__t_equal(v, x, in[0]);
}
CHECK(c_lt) {
  UNUSED;
  return viv__t_order(v, x, in[0], "<") == -1;
}
CHECK(c_le) {
  UNUSED;
  int c = viv__t_order(v, x, in[0], "<=");
  return c == -1 || c == 0;
}
CHECK(c_gt) {
  UNUSED;
  return viv__t_order(v, x, in[0], ">") == 1;
}
CHECK(c_ge) {
  UNUSED;
  int c = viv__t_order(v, x, in[0], ">=");
  return c == 1 || c == 0;
}
CHECK(c_in) {
  UNUSED;
  return viv__t_contains(v, in[0], x);
}
/* Python's small integers, texts of one place and constants are one object each. */
CHECK(c_sameas) {
  UNUSED;
  if (x.kind != in[0].kind) return false;
  if (x.kind == V_BOOL) return x.b == in[0].b;
  if (x.kind == V_INT) return x.i == in[0].i && x.i >= -5 && x.i <= 256;
  if (x.kind == V_NONE) return true;
  return x.l == in[0].l;
}

static const struct check checks[] = {
    {"!=", 1, c_ne},
    {"<", 1, c_lt},
    {"<=", 1, c_le},
    {"==", 1, c_eq},
    {">", 1, c_gt},
    {">=", 1, c_ge},
    {"boolean", 0, c_boolean},
    {"callable", 0, c_callable},
    {"defined", 0, c_defined},
    {"divisibleby", 1, c_divisible},
    {"eq", 1, c_eq},
    {"equalto", 1, c_eq},
    {"escaped", 0, c_escaped},
    {"even", 0, c_even},
    {"false", 0, c_false},
    {"filter", 0, c_filter},
    {"float", 0, c_float},
    {"ge", 1, c_ge},
    {"greaterthan", 1, c_gt},
    {"gt", 1, c_gt},
    {"in", 1, c_in},
    {"integer", 0, c_integer},
    {"iterable", 0, c_iterable},
    {"le", 1, c_le},
    {"lessthan", 1, c_lt},
    {"lower", 0, c_lower},
    {"lt", 1, c_lt},
    {"mapping", 0, c_mapping},
    {"ne", 1, c_ne},
    {"none", 0, c_none},
    {"number", 0, c_number},
    {"odd", 0, c_odd},
    {"sameas", 1, c_sameas},
    {"sequence", 0, c_sequence},
    {"string", 0, c_string},
    {"test", 0, c_test},
    {"true", 0, c_true},
    {"undefined", 0, c_undefined},
    {"upper", 0, c_upper},
};

const struct check *viv__t_find_check(const struct str *name) {
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
    if (viv__t_streq(name, checks[i].name)) return &checks[i];
  return NULL;
}

bool viv__t_check(vm *v, const struct check *c, value x, const struct args *a) {
  value in[MAX_BOUND];
  viv__t_step(v, 1);
  viv__t_bind(v, c->name, a, c->args ? "other" : "", c->args, in);
  return c->fn(v, x, in);
}
