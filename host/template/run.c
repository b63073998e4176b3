/* Statements, scopes, loops, macros.
 *
 * A `for`, a macro, `with` and every captured body have a scope of their own: what is set inside is
 * gone outside. `if` has none. Each turn of a loop begins with an empty scope. */
#include <string.h>

#include "template/internal.h"

enum flow { GO_ON, BREAK, CONTINUE };

static enum flow run(vm *v, const struct node *n);

static void push_scope(vm *v, struct scope *up) {
  struct scope *s = viv__t_alloc(v, sizeof *s);
  s->up = up;
  v->scope = s;
}

static void set(vm *v, const struct str *name, value x) {
  viv__t_dict_set(v, &v->scope->vars, viv__t_strv(name), x);
}

/* ---- assignment ---- */

static void assign_attr(vm *v, const struct node *n, value x) {
  value space;
  if (!viv__t_lookup(v, n->text, &space))
    viv__t_fail(v, VIV_BAD_INPUT, "'%.*s' is undefined", (int)n->text->len, n->text->ptr);
  if (space.kind != V_SPACE)
    viv__t_fail(v, VIV_BAD_INPUT, "cannot assign attribute on non-namespace object");
  if (n->list->text->ptr[0] == '_')
    viv__t_fail(v, VIV_BAD_INPUT,
                "Chat templates cannot store underscore-prefixed attributes on a namespace, but "
                "got '%.*s'. Please rename the attribute.",
                (int)n->list->text->len, n->list->text->ptr);
  viv__t_dict_set(v, space.d, viv__t_strv(n->list->text), x);
}

void viv__t_assign(vm *v, const struct node *n, value x) {
  if (n->kind == N_NAME) {
    set(v, n->text, x);
    return;
  }
  v->at = n->offset;
  if (n->kind == N_NSREF) {
    assign_attr(v, n, x);
    return;
  }
  size_t wanted = 0, i = 0;
  for (const struct node *e = n->list; e; e = e->next) wanted++;
  if (!viv__t_iterable(x) || x.kind == V_UNDEFINED) {
    if (x.kind == V_UNDEFINED) wanted += wanted == 0;
    if (x.kind != V_UNDEFINED)
      viv__t_fail(v, VIV_BAD_INPUT, "cannot unpack non-iterable %s object", viv__t_type(x));
  }
  value items = viv__t_listed(v, x);
  if (items.l->n > wanted)
    viv__t_fail(v, VIV_BAD_INPUT, "too many values to unpack (expected %zu)", wanted);
  if (items.l->n < wanted)
    viv__t_fail(v, VIV_BAD_INPUT, "not enough values to unpack (expected %zu, got %zu)", wanted,
                items.l->n);
  for (const struct node *e = n->list; e; e = e->next) viv__t_assign(v, e, items.l->items[i++]);
}

/* ---- captured bodies ---- */

/* What body writes, in a scope of its own below `up`. */
static value capture(vm *v, const struct node *body, struct scope *up) {
  struct text text = {0}, *sink = v->sink;
  struct scope *scope = v->scope;
  v->sink = &text;
  if (up) push_scope(v, up);
  run(v, body);
  v->sink = sink;
  v->scope = scope;
  return viv__t_text(v, &text);
}

/* A chain of filters whose innermost has nothing before it yet. */
static value filtered(vm *v, const struct node *chain, value x) {
  if (!chain) return x;
  x = filtered(v, chain->a, x);
  struct node call = *chain, constant = {.kind = N_CONST, .offset = chain->offset, .val = x};
  call.a = &constant;
  return viv__t_eval(v, &call);
}

/* ---- macros ---- */

static bool mentions(const struct node *n, const char *name) {
  for (; n; n = n->next) {
    if (n->kind == N_NAME && n->text && viv__t_streq(n->text, name)) return true;
    if (n->kind != N_MACRO && n->kind != N_CALL_BLOCK && mentions(n->body, name)) return true;
    if (mentions(n->a, name) || mentions(n->b, name) || mentions(n->c, name) ||
        mentions(n->list, name) || mentions(n->other, name))
      return true;
  }
  return false;
}

struct macro *viv__t_new_macro(vm *v, const struct node *n) {
  struct macro *m = viv__t_alloc(v, sizeof *m);
  m->node = n;
  m->scope = v->scope;
  m->uses_caller = mentions(n->body, "caller");
  m->uses_kwargs = mentions(n->body, "kwargs");
  m->uses_varargs = mentions(n->body, "varargs");
  return m;
}

static value rest_of(vm *v, const struct args *a, int from) {
  value out = viv__t_list(v, V_TUPLE, 0);
  for (int i = from; i < a->n; i++) viv__t_push(v, out.l, a->pos[i]);
  return out;
}

static const struct kwarg *keyword(const struct args *a, const struct str *name) {
  for (int i = 0; i < a->n_kw; i++)
    if (viv__t_same(a->kw[i].name, name)) return &a->kw[i];
  return NULL;
}

static bool takes(const struct macro *m, const struct str *name) {
  for (const struct node *p = m->node->list; p; p = p->next)
    if (viv__t_same(p->text, name)) return true;
  return false;
}

/* Positional arguments, then keywords, then defaults, which see what was bound before them. */
static void bind_parameters(vm *v, const struct macro *m, const struct args *a) {
  const char *who = m->node->kind == N_MACRO ? "macro" : "caller";
  int i = 0;
  for (const struct node *p = m->node->list; p; p = p->next, i++) {
    const struct kwarg *k = keyword(a, p->text);
    value x;
    if (i < a->n && k)
      viv__t_fail(v, VIV_BAD_INPUT, "%s %.*s got multiple values for argument '%.*s'", who,
                  (int)m->node->text->len, m->node->text->ptr, (int)p->text->len, p->text->ptr);
    if (i < a->n)
      x = a->pos[i];
    else if (k)
      x = k->val;
    else if (p->a)
      x = viv__t_eval(v, p->a);
    else
      x = viv__t_undefined(v, false, "parameter '%.*s' was not provided", (int)p->text->len,
                           p->text->ptr);
    set(v, p->text, x);
  }
  value extra = viv__t_dict(v), caller = viv__t_undefined(v, false, "No caller defined");
  for (int k = 0; k < a->n_kw; k++) {
    if (takes(m, a->kw[k].name)) continue;
    if (m->uses_caller && viv__t_streq(a->kw[k].name, "caller"))
      caller = a->kw[k].val;
    else
      viv__t_dict_set(v, extra.d, viv__t_strv(a->kw[k].name), a->kw[k].val);
  }
  if (m->uses_caller && !takes(m, viv__t_cstr(v, "caller").s))
    set(v, viv__t_cstr(v, "caller").s, caller);
  if (m->uses_kwargs)
    set(v, viv__t_cstr(v, "kwargs").s, extra);
  else if (extra.d->n)
    viv__t_fail(v, VIV_BAD_INPUT, "%s '%.*s' takes no keyword argument '%.*s'", who,
                (int)m->node->text->len, m->node->text->ptr, (int)extra.d->at[0].key.s->len,
                extra.d->at[0].key.s->ptr);
  if (m->uses_varargs)
    set(v, viv__t_cstr(v, "varargs").s, rest_of(v, a, i));
  else if (a->n > i)
    viv__t_fail(v, VIV_BAD_INPUT, "%s '%.*s' takes not more than %d argument(s)", who,
                (int)m->node->text->len, m->node->text->ptr, i);
}

value viv__t_macro(vm *v, struct macro *m, const struct args *a) {
  struct scope *scope = v->scope;
  push_scope(v, m->scope);
  bind_parameters(v, m, a);
  value out = capture(v, m->node->body, NULL);
  v->scope = scope;
  return out;
}

static void run_call(vm *v, const struct node *n) {
  const struct node *call = n->a;
  struct node spread = {.kind = N_KEYWORD, .offset = n->offset}, with = *call, caller;
  caller = (struct node){.kind = N_CONST,
                         .offset = n->offset,
                         .val = {.kind = V_MACRO, .macro = viv__t_new_macro(v, n)}};
  spread.text = n->text;
  spread.a = &caller;
  /* The call gets one more argument, caller=BODY. */
  struct node *last = NULL, **end = &with.list;
  for (const struct node *e = call->list; e; e = e->next) {
    last = viv__t_alloc(v, sizeof *last);
    *last = *e;
    *end = last;
    end = &last->next;
  }
  *end = &spread;
  viv__t_print(v, v->sink, viv__t_eval(v, &with));
}

/* ---- loops ---- */

static value loop_items(vm *v, const struct node *n, value x) {
  value item, out;
  struct scope *scope = v->scope;
  if (!n->c) return x.kind == V_LIST || x.kind == V_TUPLE ? x : viv__t_listed(v, x);
  struct iter *it = viv__t_iter(v, x);
  out = viv__t_list(v, V_LIST, 0);
  while (viv__t_next(v, it, &item)) {
    push_scope(v, scope);
    viv__t_assign(v, n->list, item);
    if (viv__t_truth(v, viv__t_eval(v, n->c))) viv__t_push(v, out.l, item);
  }
  v->scope = scope;
  return out;
}

static void run_loop(vm *v, const struct node *n, value x, int depth) {
  struct loop *l = viv__t_alloc(v, sizeof *l);
  struct scope *scope = v->scope;
  *l = (struct loop){.node = n, .scope = scope, .depth = depth, .seen = {.kind = V_MISSING}};
  l->items = loop_items(v, n, x).l;
  const struct str *name = viv__t_cstr(v, "loop").s;
  for (; l->index < l->items->n; l->index++) {
    push_scope(v, scope);
    set(v, name, (value){.kind = V_LOOP, .loop = l});
    viv__t_assign(v, n->list, l->items->items[l->index]);
    if (run(v, n->body) == BREAK) break;
  }
  v->scope = scope;
  if (l->items->n || !n->other) return;
  push_scope(v, scope);
  run(v, n->other);
  v->scope = scope;
}

value viv__t_recurse(vm *v, struct loop *l, value items) {
  struct text text = {0}, *sink = v->sink;
  struct scope *scope = v->scope;
  if (!l->node->flag)
    viv__t_fail(v, VIV_BAD_INPUT,
                "The loop must have the 'recursive' marker to be called recursively.");
  v->sink = &text;
  v->scope = l->scope;
  run_loop(v, l->node, items, l->depth + 1);
  v->sink = sink;
  v->scope = scope;
  return viv__t_text(v, &text);
}

/* ---- the others ---- */

static enum flow run_with(vm *v, const struct node *n) {
  struct scope *scope = v->scope;
  value values = viv__t_list(v, V_LIST, 0);
  size_t i = 0;
  for (const struct node *s = n->list; s; s = s->next)
    viv__t_push(v, values.l, viv__t_eval(v, s->a));
  push_scope(v, scope);
  for (const struct node *s = n->list; s; s = s->next)
    viv__t_assign(v, s->list, values.l->items[i++]);
  enum flow flow = run(v, n->body);
  v->scope = scope;
  return flow;
}

/* The span is that of the whole text: in a macro it begins where the text stood when the macro was
 * called, as the official renderer counts. */
static void run_generation(vm *v, const struct node *n) {
  size_t start = viv__t_chars(v->root.ptr, v->root.len);
  value text = capture(v, n->body, v->scope);
  viv__t_step(v, v->root.len / 256);
  if (v->n_spans == v->cap_spans) {
    size_t cap = v->cap_spans ? 2 * v->cap_spans : 16;
    viv__span *grown = viv__t_alloc(v, cap * sizeof *grown);
    if (v->n_spans) memcpy(grown, v->spans, v->n_spans * sizeof *grown);
    v->spans = grown;
    v->cap_spans = cap;
  }
  v->spans[v->n_spans++] = (viv__span){start, start + text.s->chars};
  viv__t_put_str(v, v->sink, text.s);
}

static enum flow run_if(vm *v, const struct node *n) {
  while (!viv__t_truth(v, viv__t_eval(v, n->a))) {
    if (!n->other) return GO_ON;
    if (n->other->kind != N_IF || !n->other->flag) return run(v, n->other);
    n = n->other;
  }
  return run(v, n->body);
}

static enum flow run_one(vm *v, const struct node *n) {
  switch (n->kind) {
  case N_DATA:
    viv__t_put_str(v, v->sink, n->text);
    return GO_ON;
  case N_PRINT:
    for (const struct node *e = n->list; e; e = e->next)
      viv__t_print(v, v->sink, viv__t_eval(v, e));
    return GO_ON;
  case N_IF:
    return run_if(v, n);
  case N_FOR:
    run_loop(v, n, viv__t_eval(v, n->b), 0);
    return GO_ON;
  case N_SET:
    viv__t_assign(v, n->list, viv__t_eval(v, n->a));
    return GO_ON;
  case N_SET_BLOCK:
    viv__t_assign(v, n->list, filtered(v, n->a, capture(v, n->body, v->scope)));
    return GO_ON;
  case N_MACRO:
    set(v, n->text, (value){.kind = V_MACRO, .macro = viv__t_new_macro(v, n)});
    return GO_ON;
  case N_CALL_BLOCK:
    run_call(v, n);
    return GO_ON;
  case N_FILTER_BLOCK:
    viv__t_print(v, v->sink, filtered(v, n->a, capture(v, n->body, v->scope)));
    return GO_ON;
  case N_WITH:
    return run_with(v, n);
  case N_GENERATION:
    run_generation(v, n);
    return GO_ON;
  case N_BREAK:
    return BREAK;
  case N_CONTINUE:
    return CONTINUE;
  default:
    viv__t_fail(v, VIV_BUG, "a statement of unknown kind %d", n->kind);
  }
}

static enum flow run(vm *v, const struct node *n) {
  enum flow flow = GO_ON;
  viv__t_enter(v);
  for (; n && flow == GO_ON; n = n->next) {
    viv__t_step(v, 1);
    v->at = n->offset;
    flow = run_one(v, n);
  }
  viv__t_leave(v);
  return flow;
}

void viv__t_run(vm *v, const struct node *n) {
  run(v, n);
}
