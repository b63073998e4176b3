/* Expressions, calls, and the functions that every template knows. */
#include <math.h>
#include <string.h>

#include "template/internal.h"

/* ---- names ---- */

enum func { F_RANGE, F_DICT, F_SPACE, F_CYCLER, F_JOINER, F_RAISE, F_NOW, F_LIPSUM };
static const char *const functions[] = {
    "range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now", "lipsum"};

bool viv__t_lookup(vm *v, const struct str *name, value *out) {
  for (const struct scope *s = v->scope; s; s = s->up) {
    viv__t_step(v, 1);
    if (viv__t_dict_get(v, &s->vars, viv__t_strv(name), out)) return true;
  }
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    if (viv__t_streq(name, functions[i])) {
      *out = (value){.kind = V_FUNC, .sub = (uint8_t)i};
      return true;
    }
  return false;
}

/* ---- arguments ---- */

void viv__t_bind(vm *v, const char *fn, const struct args *a, const char *names, int min,
                 value *out) {
  int n = 0;
  const char *at = names;
  for (int i = 0; i < MAX_BOUND; i++) out[i] = (value){.kind = V_MISSING};
  for (; *at; n++) {
    size_t len = strcspn(at, " ");
    if (n < a->n) out[n] = a->pos[n];
    for (int k = 0; k < a->n_kw; k++) {
      const struct str *s = a->kw[k].name;
      if (s->len != len || memcmp(s->ptr, at, len)) continue;
      if (out[n].kind != V_MISSING)
        viv__t_fail(v, VIV_BAD_INPUT, "%s() got multiple values for argument '%.*s'", fn, (int)len,
                    at);
      out[n] = a->kw[k].val;
    }
    at += len + (at[len] == ' ');
  }
  if (a->n > n)
    viv__t_fail(v, VIV_BAD_INPUT, "%s() takes at most %d arguments, %d were given", fn, n, a->n);
  for (int k = 0; k < a->n_kw; k++) {
    const struct str *s = a->kw[k].name;
    bool known = false;
    for (at = names; *at;) {
      size_t len = strcspn(at, " ");
      known = known || (s->len == len && !memcmp(s->ptr, at, len));
      at += len + (at[len] == ' ');
    }
    if (!known)
      viv__t_fail(v, VIV_BAD_INPUT, "%s() got an unexpected keyword argument '%.*s'", fn,
                  (int)s->len, s->ptr);
  }
  for (int i = 0; i < min; i++)
    if (out[i].kind == V_MISSING)
      viv__t_fail(v, VIV_BAD_INPUT, "%s() is missing argument %d", fn, i + 1);
}

static void add_positional(vm *v, struct list *l, value x) {
  viv__t_push(v, l, x);
}

static void add_keyword(vm *v, struct args *a, int *cap, const struct str *name, value x) {
  for (int i = 0; i < a->n_kw; i++)
    if (viv__t_same(a->kw[i].name, name))
      viv__t_fail(v, VIV_BAD_INPUT, "got multiple values for keyword argument '%.*s'",
                  (int)name->len, name->ptr);
  if (a->n_kw == *cap) {
    int more = *cap ? 2 * *cap : 4;
    struct kwarg *grown = viv__t_alloc(v, (size_t)more * sizeof *grown);
    if (a->n_kw) memcpy(grown, a->kw, (size_t)a->n_kw * sizeof *grown);
    a->kw = grown;
    *cap = more;
  }
  a->kw[a->n_kw++] = (struct kwarg){name, x};
  viv__t_step(v, (size_t)a->n_kw);
}

static struct args arguments(vm *v, const struct node *list) {
  struct args a = {0};
  value pos = viv__t_list(v, V_LIST, 0), x, item;
  int cap = 0;
  for (const struct node *n = list; n; n = n->next) {
    if (n->kind == N_KEYWORD) {
      add_keyword(v, &a, &cap, n->text, viv__t_eval(v, n->a));
    } else if (n->kind == N_SPREAD && !n->op) {
      struct iter *it = viv__t_iter(v, viv__t_eval(v, n->a));
      while (viv__t_next(v, it, &item)) add_positional(v, pos.l, item);
    } else if (n->kind == N_SPREAD) {
      x = viv__t_eval(v, n->a);
      if (x.kind != V_DICT)
        viv__t_fail(v, VIV_BAD_INPUT, "argument after ** must be a mapping, not %s",
                    viv__t_type(x));
      for (size_t i = 0; i < x.d->n; i++) {
        if (x.d->at[i].key.kind != V_STR) viv__t_fail(v, VIV_BAD_INPUT, "keywords must be strings");
        add_keyword(v, &a, &cap, x.d->at[i].key.s, x.d->at[i].val);
      }
    } else {
      add_positional(v, pos.l, viv__t_eval(v, n));
    }
  }
  if (pos.l->n > 4096) viv__t_fail(v, VIV_BAD_INPUT, "too many arguments");
  a.pos = pos.l->items;
  a.n = (int)pos.l->n;
  return a;
}

/* ---- functions ---- */

static value make_range(vm *v, const struct args *a) {
  enum { MAX_RANGE = 100000 };
  struct range *r = viv__t_alloc(v, sizeof *r);
  if (a->n < 1 || a->n > 3 || a->n_kw)
    viv__t_fail(v, VIV_BAD_INPUT, "range expected 1 to 3 arguments, got %d", a->n + a->n_kw);
  r->step = 1;
  r->stop = viv__t_index(v, a->pos[a->n > 1]);
  if (a->n > 1) r->start = viv__t_index(v, a->pos[0]);
  if (a->n > 2) r->step = viv__t_index(v, a->pos[2]);
  if (!r->step) viv__t_fail(v, VIV_BAD_INPUT, "range() arg 3 must not be zero");
  if (r->step > 0 && r->stop > r->start) r->n = (r->stop - r->start - 1) / r->step + 1;
  if (r->step < 0 && r->stop < r->start) r->n = (r->start - r->stop - 1) / -r->step + 1;
  if (r->n > MAX_RANGE)
    viv__t_fail(v, VIV_BAD_INPUT,
                "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
  return (value){.kind = V_RANGE, .r = r};
}

static value make_dict(vm *v, const struct args *a) {
  value out = viv__t_dict(v), item;
  if (a->n > 1) viv__t_fail(v, VIV_BAD_INPUT, "dict expected at most 1 argument, got %d", a->n);
  if (a->n && a->pos[0].kind == V_DICT) {
    for (size_t i = 0; i < a->pos[0].d->n; i++)
      viv__t_dict_set(v, out.d, a->pos[0].d->at[i].key, a->pos[0].d->at[i].val);
  } else if (a->n) {
    struct iter *it = viv__t_iter(v, a->pos[0]);
    while (viv__t_next(v, it, &item)) {
      value pair = viv__t_listed(v, item);
      if (pair.l->n != 2)
        viv__t_fail(v, VIV_BAD_INPUT,
                    "dictionary update sequence element has length %zu; 2 is required", pair.l->n);
      viv__t_dict_set(v, out.d, pair.l->items[0], pair.l->items[1]);
    }
  }
  for (int i = 0; i < a->n_kw; i++)
    viv__t_dict_set(v, out.d, viv__t_strv(a->kw[i].name), a->kw[i].val);
  return out;
}

static value make_space(vm *v, const struct args *a) {
  value out = make_dict(v, a);
  out.kind = V_SPACE;
  for (size_t i = 0; i < out.d->n; i++) {
    value key = out.d->at[i].key;
    if (key.kind == V_STR && key.s->len && key.s->ptr[0] == '_')
      viv__t_fail(v, VIV_BAD_INPUT,
                  "Chat templates cannot store underscore-prefixed attributes on a namespace, but "
                  "got '%.*s'. Please rename the attribute.",
                  (int)key.s->len, key.s->ptr);
  }
  return out;
}

/* Python passes the format to the C library, but knows %f itself and has no time zone. */
static value now(vm *v, const struct args *a) {
  value in[MAX_BOUND];
  struct timespec clock = {.tv_sec = (time_t)v->now};
  struct tm tm;
  struct text format = {0};
  char out[4096];
  viv__t_bind(v, "strftime_now", a, "format", 1, in);
  if (in[0].kind != V_STR)
    viv__t_fail(v, VIV_BAD_INPUT, "strftime() argument 1 must be str, not %s", viv__t_type(in[0]));
  if (v->now < 0) {
    clock_gettime(CLOCK_REALTIME, &clock);
    localtime_r(&clock.tv_sec, &tm);
  } else {
    gmtime_r(&clock.tv_sec, &tm);
  }
  const struct str *s = in[0].s;
  for (size_t i = 0; i < s->len; i++) {
    char next = s->ptr[i] == '%' && i + 1 < s->len ? s->ptr[i + 1] : 0;
    if (next == 'f')
      viv__t_putf(v, &format, "%06ld", clock.tv_nsec / 1000);
    else if (next == 'z' || next == 'Z')
      ; /* a clock without a zone prints nothing */
    else if (next)
      viv__t_put(v, &format, s->ptr + i, 2);
    else
      viv__t_put(v, &format, s->ptr + i, 1);
    i += next != 0;
  }
  viv__t_put(v, &format, ".", 2); /* so that an empty result differs from one too long */
  size_t n = strftime(out, sizeof out, format.ptr, &tm);
  if (!n) viv__t_fail(v, VIV_BAD_INPUT, "strftime_now: the result is too long");
  return viv__t_str(v, out, viv__utf8_whole(out, n - 1));
}

static value call_function(vm *v, int func, const struct args *a) {
  value in[MAX_BOUND];
  struct cycle *c;
  switch (func) {
  case F_RANGE:
    return make_range(v, a);
  case F_DICT:
    return make_dict(v, a);
  case F_SPACE:
    return make_space(v, a);
  case F_NOW:
    return now(v, a);
  case F_RAISE:
    viv__t_bind(v, "raise_exception", a, "message", 1, in);
    viv__t_fail_str(v, VIV_BAD_INPUT, viv__t_tostr(v, in[0]));
  case F_CYCLER:
    if (!a->n) viv__t_fail(v, VIV_BAD_INPUT, "at least one item has to be provided");
    c = viv__t_alloc(v, sizeof *c);
    c->items = viv__t_list(v, V_LIST, 0).l;
    for (int i = 0; i < a->n; i++) viv__t_push(v, c->items, a->pos[i]);
    return (value){.kind = V_CYCLER, .c = c};
  case F_JOINER:
    viv__t_bind(v, "joiner", a, "sep", 0, in);
    c = viv__t_alloc(v, sizeof *c);
    c->sep = in[0].kind == V_MISSING ? viv__t_cstr(v, ", ").s : viv__t_tostr(v, in[0]);
    return (value){.kind = V_JOINER, .c = c};
  default:
    viv__t_fail(v, VIV_NEVER, "lipsum() is not offered: its text is random");
  }
}

value viv__t_call(vm *v, value fn, const struct args *a) {
  value out;
  viv__t_enter(v);
  switch (fn.kind) {
  case V_FUNC:
    out = call_function(v, fn.sub, a);
    break;
  case V_METHOD:
    out = viv__t_call_method(v, fn.m, a);
    break;
  case V_MACRO:
    out = viv__t_macro(v, fn.macro, a);
    break;
  case V_JOINER:
    out = fn.c->pos++ ? viv__t_strv(fn.c->sep) : viv__t_cstr(v, "");
    break;
  case V_LOOP:
    if (a->n != 1) viv__t_fail(v, VIV_BAD_INPUT, "loop() takes one argument");
    out = viv__t_recurse(v, fn.loop, a->pos[0]);
    break;
  case V_UNDEFINED:
    viv__t_fail_str(v, VIV_BAD_INPUT, fn.u->message);
  default:
    viv__t_fail(v, VIV_BAD_INPUT, "'%s' object is not callable", viv__t_type(fn));
  }
  viv__t_leave(v);
  return out;
}

value viv__t_filter(vm *v, const struct filter *f, value x, const struct args *a) {
  value in[MAX_BOUND];
  viv__t_step(v, 1);
  if (f->names) viv__t_bind(v, f->name, a, f->names, f->min, in);
  return f->fn(v, x, in, a);
}

/* ---- expressions ---- */

static value eval_name(vm *v, const struct node *n) {
  value out;
  if (viv__t_lookup(v, n->text, &out)) return out;
  return viv__t_undefined(v, false, "'%.*s' is undefined", (int)n->text->len, n->text->ptr);
}

static value eval_list(vm *v, const struct node *n) {
  value out = viv__t_list(v, n->kind == N_LIST ? V_LIST : V_TUPLE, 0);
  for (const struct node *e = n->list; e; e = e->next) viv__t_push(v, out.l, viv__t_eval(v, e));
  return out;
}

static value eval_dict(vm *v, const struct node *n) {
  value out = viv__t_dict(v);
  for (const struct node *e = n->list; e; e = e->next->next) {
    value key = viv__t_eval(v, e);
    viv__t_dict_set(v, out.d, key, viv__t_eval(v, e->next));
  }
  return out;
}

static value eval_part(vm *v, const struct node *n) {
  return n ? viv__t_eval(v, n) : (value){.kind = V_NONE};
}

static value eval_item(vm *v, const struct node *n) {
  value x = viv__t_eval(v, n->a);
  if (n->b->kind == N_SLICE) {
    value start = eval_part(v, n->b->a), stop = eval_part(v, n->b->b);
    return viv__t_slice(v, x, start, stop, eval_part(v, n->b->c));
  }
  return viv__t_item(v, x, viv__t_eval(v, n->b));
}

static value eval_filter(vm *v, const struct node *n) {
  value x = viv__t_eval(v, n->a);
  struct args a = arguments(v, n->list);
  v->at = n->offset;
  if (!n->impl)
    viv__t_fail(v, VIV_BAD_INPUT, "No filter named '%.*s'.", (int)n->text->len, n->text->ptr);
  return viv__t_filter(v, n->impl, x, &a);
}

static value eval_test(vm *v, const struct node *n) {
  value x = viv__t_eval(v, n->a);
  struct args a = arguments(v, n->list);
  v->at = n->offset;
  if (!n->impl)
    viv__t_fail(v, VIV_BAD_INPUT, "No test named '%.*s'.", (int)n->text->len, n->text->ptr);
  return viv__t_bool(viv__t_check(v, n->impl, x, &a) != n->flag);
}

static bool compare(vm *v, int op, value a, value b) {
  int c;
  switch (op) {
  case OP2('=', '='):
    return viv__t_equal(v, a, b);
  case OP2('!', '='):
    return !viv__t_equal(v, a, b);
  case 'i':
    return viv__t_contains(v, b, a);
  case 'n':
    return !viv__t_contains(v, b, a);
  case '<':
    return viv__t_order(v, a, b, "<") == -1;
  case OP2('<', '='):
    c = viv__t_order(v, a, b, "<=");
    return c == -1 || c == 0;
  case '>':
    return viv__t_order(v, a, b, ">") == 1;
  default:
    c = viv__t_order(v, a, b, ">=");
    return c == 1 || c == 0;
  }
}

static value eval_compare(vm *v, const struct node *n) {
  value left = viv__t_eval(v, n->a);
  for (const struct node *e = n->list; e; e = e->next) {
    value right = viv__t_eval(v, e->a);
    v->at = n->offset;
    if (!compare(v, e->op, left, right)) return viv__t_bool(false);
    left = right;
  }
  return viv__t_bool(true);
}

static value eval_concat(vm *v, const struct node *n) {
  struct text t = {0};
  for (const struct node *e = n->list; e; e = e->next) viv__t_print(v, &t, viv__t_eval(v, e));
  return viv__t_text(v, &t);
}

static value eval_call(vm *v, const struct node *n) {
  value fn = viv__t_eval(v, n->a);
  struct args a = arguments(v, n->list);
  v->at = n->offset;
  return viv__t_call(v, fn, &a);
}

static value eval_node(vm *v, const struct node *n) {
  value x, y;
  switch (n->kind) {
  case N_CONST:
    return n->val;
  case N_NAME:
    return eval_name(v, n);
  case N_LIST:
  case N_TUPLE:
    return eval_list(v, n);
  case N_DICT:
    return eval_dict(v, n);
  case N_ATTR:
    x = viv__t_eval(v, n->a);
    v->at = n->offset;
    return viv__t_attr(v, x, n->text);
  case N_ITEM:
    return eval_item(v, n);
  case N_CALL:
    return eval_call(v, n);
  case N_FILTER:
    return eval_filter(v, n);
  case N_TEST:
    return eval_test(v, n);
  case N_UNARY:
    return viv__t_unary(v, n->op, viv__t_eval(v, n->a));
  case N_BINARY:
    x = viv__t_eval(v, n->a);
    y = viv__t_eval(v, n->b);
    v->at = n->offset;
    return viv__t_binary(v, n->op, x, y);
  case N_CONCAT:
    return eval_concat(v, n);
  case N_COMPARE:
    return eval_compare(v, n);
  case N_AND:
    x = viv__t_eval(v, n->a);
    return viv__t_truth(v, x) ? viv__t_eval(v, n->b) : x;
  case N_OR:
    x = viv__t_eval(v, n->a);
    return viv__t_truth(v, x) ? x : viv__t_eval(v, n->b);
  case N_NOT:
    return viv__t_bool(!viv__t_truth(v, viv__t_eval(v, n->a)));
  case N_COND:
    if (viv__t_truth(v, viv__t_eval(v, n->b))) return viv__t_eval(v, n->a);
    if (n->c) return viv__t_eval(v, n->c);
    return viv__t_undefined(v, false,
                            "the inline if-expression evaluated to false and no else section was "
                            "defined.");
  case N_SLICE: /* one of several parts of a subscript */
    viv__t_fail(v, VIV_NEVER, "slices of several axes are not offered");
  default:
    viv__t_fail(v, VIV_BUG, "an expression of unknown kind %d", n->kind);
  }
}

value viv__t_eval(vm *v, const struct node *n) {
  viv__t_enter(v);
  viv__t_step(v, 1);
  v->at = n->offset;
  value out = eval_node(v, n);
  viv__t_leave(v);
  return out;
}
