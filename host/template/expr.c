/* Tokens to expressions. The precedence is Jinja's: from loose to tight  if-else, or, and, not,
 * comparisons, + -, ~, * / // %, **, unary, then postfixes, filters and tests. */
#include <string.h>

#include "template/internal.h"

struct node *viv__t_node(struct parser *p, int kind) {
  struct node *n = viv__t_alloc(p->v, sizeof *n);
  n->kind = kind;
  n->offset = p->tokens[p->pos].offset;
  return n;
}

struct token *viv__t_peek(struct parser *p, int ahead) {
  size_t at = p->pos;
  while (ahead-- && p->tokens[at].type != TK_END) at++;
  return &p->tokens[at];
}

bool viv__t_is_op(struct parser *p, int op) {
  const struct token *t = viv__t_peek(p, 0);
  return t->type == TK_OP && t->op == op;
}

bool viv__t_is_name(struct parser *p, const char *name) {
  const struct token *t = viv__t_peek(p, 0);
  return t->type == TK_NAME && viv__t_streq(t->text, name);
}

bool viv__t_skip_op(struct parser *p, int op) {
  bool is = viv__t_is_op(p, op);
  p->pos += is;
  return is;
}

bool viv__t_skip_name(struct parser *p, const char *name) {
  bool is = viv__t_is_name(p, name);
  p->pos += is;
  return is;
}

static const char *op_text(int op) {
  static _Thread_local char text[3];
  text[0] = (char)(op > 255 ? op >> 8 : op);
  text[1] = (char)(op > 255 ? op & 255 : 0);
  text[2] = 0;
  return text;
}

const char *viv__t_describe(struct parser *p, const struct token *t) {
  static const char *const names[] = {"end of template",          "template data / text",
                                      "begin of statement block", "end of statement block",
                                      "begin of print statement", "end of print statement"};
  if (t->type <= TK_VAR_END) return names[t->type];
  if (t->type == TK_OP) return op_text(t->op);
  char *copy = viv__t_alloc(p->v, t->text->len + 1);
  memcpy(copy, t->text->ptr, t->text->len);
  return copy;
}

static _Noreturn void fail_expected(struct parser *p, const char *what) {
  const struct token *t = viv__t_peek(p, 0);
  p->v->at = t->offset;
  if (t->type == TK_END)
    viv__t_fail(p->v, VIV_BAD_INPUT, "unexpected end of template, expected '%s'.", what);
  viv__t_fail(p->v, VIV_BAD_INPUT, "expected token '%s', got '%.100s'", what,
              viv__t_describe(p, t));
}

void viv__t_expect_op(struct parser *p, int op) {
  char text[3];
  memcpy(text, op_text(op), 3);
  if (!viv__t_skip_op(p, op)) fail_expected(p, text);
}

const struct str *viv__t_expect_name(struct parser *p) {
  const struct token *t = viv__t_peek(p, 0);
  if (t->type != TK_NAME) fail_expected(p, "name");
  p->pos++;
  return t->text;
}

static struct node *binary(struct parser *p, int kind, int op, size_t offset, struct node *a,
                           struct node *b) {
  struct node *n = viv__t_node(p, kind);
  n->op = op;
  n->offset = offset;
  n->a = a;
  n->b = b;
  return n;
}

/* ---- arguments, subscripts ---- */

static void arguments(struct parser *p, struct node *call) {
  struct node **end = &call->list;
  bool keyword = false, spread = false;
  viv__t_expect_op(p, '(');
  for (bool first = true; !viv__t_is_op(p, ')'); first = false) {
    if (!first) {
      viv__t_expect_op(p, ',');
      if (viv__t_is_op(p, ')')) break;
    }
    struct node *arg;
    if (viv__t_is_op(p, '*') || viv__t_is_op(p, OP2('*', '*'))) {
      arg = viv__t_node(p, N_SPREAD);
      arg->op = !viv__t_is_op(p, '*');
      p->pos++;
      arg->a = viv__t_expression(p);
      spread = true;
      keyword = keyword || arg->op;
    } else if (viv__t_peek(p, 0)->type == TK_NAME && viv__t_peek(p, 1)->type == TK_OP &&
               viv__t_peek(p, 1)->op == '=') {
      arg = viv__t_node(p, N_KEYWORD);
      arg->text = viv__t_expect_name(p);
      p->pos++;
      arg->a = viv__t_expression(p);
      keyword = true;
    } else {
      if (keyword || spread) {
        p->v->at = viv__t_peek(p, 0)->offset;
        viv__t_fail(p->v, VIV_BAD_INPUT, "invalid syntax for function call expression");
      }
      arg = viv__t_expression(p);
    }
    *end = arg;
    end = &arg->next;
  }
  viv__t_expect_op(p, ')');
}

static struct node *call(struct parser *p, struct node *fn) {
  struct node *n = viv__t_node(p, N_CALL);
  n->a = fn;
  arguments(p, n);
  return n;
}

/* One part of [..]: an expression or start:stop:step. */
static struct node *subscribed(struct parser *p) {
  struct node *first = NULL;
  if (!viv__t_is_op(p, ':')) {
    first = viv__t_expression(p);
    if (!viv__t_is_op(p, ':')) return first;
  }
  struct node *n = viv__t_node(p, N_SLICE);
  n->a = first;
  p->pos++;
  if (!viv__t_is_op(p, ':') && !viv__t_is_op(p, ']') && !viv__t_is_op(p, ','))
    n->b = viv__t_expression(p);
  if (viv__t_skip_op(p, ':') && !viv__t_is_op(p, ']') && !viv__t_is_op(p, ','))
    n->c = viv__t_expression(p);
  return n;
}

static struct node *subscript(struct parser *p, struct node *on) {
  struct node *n = viv__t_node(p, N_ITEM);
  n->a = on;
  if (viv__t_skip_op(p, '.')) {
    const struct token *t = viv__t_peek(p, 0);
    if (t->type == TK_NAME) {
      n->kind = N_ATTR;
      n->text = t->text;
    } else if (t->type == TK_INT) {
      n->b = viv__t_node(p, N_CONST);
      n->b->val = t->val;
    } else {
      fail_expected(p, "name or number");
    }
    p->pos++;
    return n;
  }
  viv__t_expect_op(p, '[');
  struct node *parts = NULL, **end = &parts;
  int count = 0;
  while (!viv__t_is_op(p, ']')) {
    if (count) viv__t_expect_op(p, ',');
    *end = subscribed(p);
    end = &(*end)->next;
    count++;
  }
  viv__t_expect_op(p, ']');
  if (count == 1) {
    n->b = parts;
  } else {
    n->b = viv__t_node(p, N_TUPLE);
    n->b->list = parts;
  }
  return n;
}

static struct node *postfix(struct parser *p, struct node *n) {
  for (;;) {
    viv__t_step(p->v, 1);
    if (viv__t_is_op(p, '.') || viv__t_is_op(p, '['))
      n = subscript(p, n);
    else if (viv__t_is_op(p, '('))
      n = call(p, n);
    else
      return n;
  }
}

/* A name with dots between its parts. */
static const struct str *dotted(struct parser *p) {
  const struct str *first = viv__t_expect_name(p);
  if (!viv__t_is_op(p, '.')) return first;
  struct text t = {0};
  viv__t_put_str(p->v, &t, first);
  while (viv__t_skip_op(p, '.')) {
    viv__t_puts(p->v, &t, ".");
    viv__t_put_str(p->v, &t, viv__t_expect_name(p));
  }
  return viv__t_text(p->v, &t).s;
}

/* The name of a filter that nobody knows is an error at once, or, where the expression may never be
 * reached, when it is; what others know and we don't offer is refused at once. */
static void resolve_filter(struct parser *p, struct node *n) {
  const struct filter *f = viv__t_find_filter(n->text);
  p->v->at = n->offset;
  if (f && !f->fn) viv__t_fail(p->v, VIV_NEVER, "the filter \"%s\" is not offered", f->name);
  if (!f && !p->dead)
    viv__t_fail(p->v, VIV_BAD_INPUT, "No filter named '%.*s'.", (int)n->text->len, n->text->ptr);
  n->impl = f;
}

struct node *viv__t_filters(struct parser *p, struct node *on, bool inline_first) {
  while (inline_first || viv__t_is_op(p, '|')) {
    if (!inline_first) p->pos++;
    inline_first = false;
    struct node *n = viv__t_node(p, N_FILTER);
    n->text = dotted(p);
    n->a = on;
    resolve_filter(p, n);
    if (viv__t_is_op(p, '(')) arguments(p, n);
    on = n;
  }
  return on;
}

static struct node *test(struct parser *p, struct node *on) {
  struct node *n = viv__t_node(p, N_TEST);
  p->pos++;
  n->flag = viv__t_skip_name(p, "not");
  n->a = on;
  n->offset = viv__t_peek(p, 0)->offset;
  n->text = dotted(p);
  n->impl = viv__t_find_check(n->text);
  if (!n->impl && !p->dead) {
    p->v->at = n->offset;
    viv__t_fail(p->v, VIV_BAD_INPUT, "No test named '%.*s'.", (int)n->text->len, n->text->ptr);
  }
  const struct token *t = viv__t_peek(p, 0);
  if (viv__t_is_op(p, '(')) {
    arguments(p, n);
  } else if (t->type == TK_STRING || t->type == TK_INT || t->type == TK_FLOAT ||
             viv__t_is_op(p, '[') || viv__t_is_op(p, '{') ||
             (t->type == TK_NAME && !viv__t_is_name(p, "else") && !viv__t_is_name(p, "or") &&
              !viv__t_is_name(p, "and"))) {
    if (viv__t_is_name(p, "is")) {
      p->v->at = t->offset;
      viv__t_fail(p->v, VIV_BAD_INPUT, "You cannot chain multiple tests with is");
    }
    n->list = postfix(p, viv__t_primary(p, false));
  }
  return n;
}

static struct node *filters_and_tests(struct parser *p, struct node *n) {
  for (;;) {
    viv__t_step(p->v, 1);
    if (viv__t_is_op(p, '|'))
      n = viv__t_filters(p, n, false);
    else if (viv__t_is_name(p, "is"))
      n = test(p, n);
    else if (viv__t_is_op(p, '('))
      n = call(p, n);
    else
      return n;
  }
}

/* ---- primaries ---- */

static struct node *name_or_constant(struct parser *p, bool with_namespace) {
  struct node *n = viv__t_node(p, N_NAME);
  const struct str *s = viv__t_expect_name(p);
  n->text = s;
  if (viv__t_streq(s, "true") || viv__t_streq(s, "True") || viv__t_streq(s, "false") ||
      viv__t_streq(s, "False")) {
    n->kind = N_CONST;
    n->val = viv__t_bool(s->ptr[0] == 't' || s->ptr[0] == 'T');
  } else if (viv__t_streq(s, "none") || viv__t_streq(s, "None")) {
    n->kind = N_CONST;
    n->val = viv__t_none();
  } else if (s->ptr[0] >= '0' && s->ptr[0] <= '9') {
    p->v->at = n->offset;
    viv__t_fail(p->v, VIV_BAD_INPUT, "Invalid character in identifier");
  } else if (with_namespace && viv__t_is_op(p, '.')) {
    p->pos++;
    n->kind = N_NSREF;
    n->list = viv__t_node(p, N_NAME);
    n->list->text = viv__t_expect_name(p);
  }
  return n;
}

static struct node *list_literal(struct parser *p) {
  struct node *n = viv__t_node(p, N_LIST), **end = &n->list;
  p->pos++;
  while (!viv__t_is_op(p, ']')) {
    if (n->list) {
      viv__t_expect_op(p, ',');
      if (viv__t_is_op(p, ']')) break;
    }
    *end = viv__t_expression(p);
    end = &(*end)->next;
  }
  viv__t_expect_op(p, ']');
  return n;
}

static struct node *dict_literal(struct parser *p) {
  struct node *n = viv__t_node(p, N_DICT), **end = &n->list;
  p->pos++;
  while (!viv__t_is_op(p, '}')) {
    if (n->list) {
      viv__t_expect_op(p, ',');
      if (viv__t_is_op(p, '}')) break;
    }
    *end = viv__t_expression(p);
    viv__t_expect_op(p, ':');
    (*end)->next = viv__t_expression(p);
    end = &(*end)->next->next;
  }
  viv__t_expect_op(p, '}');
  return n;
}

struct node *viv__t_primary(struct parser *p, bool with_namespace) {
  const struct token *t = viv__t_peek(p, 0);
  struct node *n;
  if (t->type == TK_NAME) return name_or_constant(p, with_namespace);
  if (t->type == TK_STRING) {
    n = viv__t_node(p, N_CONST);
    n->val = t->val;
    p->pos++;
    struct text joined = {0};
    for (; viv__t_peek(p, 0)->type == TK_STRING; p->pos++) {
      if (!joined.len) viv__t_put_str(p->v, &joined, n->val.s);
      viv__t_put_str(p->v, &joined, viv__t_peek(p, 0)->text);
      n->val = viv__t_text(p->v, &joined);
    }
    return n;
  }
  if (t->type == TK_INT || t->type == TK_FLOAT) {
    n = viv__t_node(p, N_CONST);
    n->val = t->val;
    p->pos++;
    return n;
  }
  if (viv__t_skip_op(p, '(')) {
    n = viv__t_tuple(p, TUPLE_BRACKETS, NULL);
    viv__t_expect_op(p, ')');
    return n;
  }
  if (viv__t_is_op(p, '[')) return list_literal(p);
  if (viv__t_is_op(p, '{')) return dict_literal(p);
  p->v->at = t->offset;
  viv__t_fail(p->v, VIV_BAD_INPUT, "unexpected '%.100s'", viv__t_describe(p, t));
}

static bool tuple_ends(struct parser *p, const char *end) {
  int type = viv__t_peek(p, 0)->type;
  return type == TK_VAR_END || type == TK_BLOCK_END || viv__t_is_op(p, ')') ||
         (end && viv__t_is_name(p, end));
}

struct node *viv__t_tuple(struct parser *p, int flags, const char *end) {
  struct node *list = NULL, **last = &list;
  bool tuple = false;
  for (;;) {
    if (list) viv__t_expect_op(p, ',');
    if (tuple_ends(p, end)) break;
    *last = flags & TUPLE_SIMPLE    ? viv__t_primary(p, flags & TUPLE_NAMESPACE)
            : flags & TUPLE_NO_COND ? viv__t_or(p)
                                    : viv__t_expression(p);
    last = &(*last)->next;
    if (!viv__t_is_op(p, ',')) break;
    tuple = true;
  }
  if (!tuple && list) return list;
  if (!tuple && !(flags & TUPLE_BRACKETS)) {
    p->v->at = viv__t_peek(p, 0)->offset;
    viv__t_fail(p->v, VIV_BAD_INPUT, "Expected an expression, got '%.100s'",
                viv__t_describe(p, viv__t_peek(p, 0)));
  }
  struct node *n = viv__t_node(p, N_TUPLE);
  n->list = list;
  return n;
}

/* ---- operators ---- */

static struct node *unary(struct parser *p, bool with_filter) {
  struct node *n;
  viv__t_enter(p->v);
  if (viv__t_is_op(p, '-') || viv__t_is_op(p, '+')) {
    n = viv__t_node(p, N_UNARY);
    n->op = viv__t_peek(p, 0)->op;
    p->pos++;
    n->a = unary(p, false);
  } else {
    n = viv__t_primary(p, false);
  }
  n = postfix(p, n);
  if (with_filter) n = filters_and_tests(p, n);
  viv__t_leave(p->v);
  return n;
}

static struct node *power(struct parser *p) {
  size_t offset = viv__t_peek(p, 0)->offset;
  struct node *n = unary(p, true);
  while (viv__t_skip_op(p, OP2('*', '*')))
    n = binary(p, N_BINARY, OP2('*', '*'), offset, n, unary(p, true));
  return n;
}

static struct node *product(struct parser *p) {
  size_t offset = viv__t_peek(p, 0)->offset;
  struct node *n = power(p);
  while (viv__t_is_op(p, '*') || viv__t_is_op(p, '/') || viv__t_is_op(p, OP2('/', '/')) ||
         viv__t_is_op(p, '%')) {
    int op = viv__t_peek(p, 0)->op;
    p->pos++;
    n = binary(p, N_BINARY, op, offset, n, power(p));
  }
  return n;
}

static struct node *concat(struct parser *p) {
  struct node *first = product(p);
  if (!viv__t_is_op(p, '~')) return first;
  struct node *n = viv__t_node(p, N_CONCAT), **end = &first->next;
  n->list = first;
  while (viv__t_skip_op(p, '~')) {
    *end = product(p);
    end = &(*end)->next;
  }
  return n;
}

static struct node *sum(struct parser *p) {
  size_t offset = viv__t_peek(p, 0)->offset;
  struct node *n = concat(p);
  while (viv__t_is_op(p, '+') || viv__t_is_op(p, '-')) {
    int op = viv__t_peek(p, 0)->op;
    p->pos++;
    n = binary(p, N_BINARY, op, offset, n, concat(p));
  }
  return n;
}

/* The operator of a comparison, 0: there is none. 'i' and 'n' are `in` and `not in`. */
static int comparison_op(struct parser *p) {
  static const int ops[] = {OP2('=', '='), OP2('!', '='), '<', OP2('<', '='), '>', OP2('>', '=')};
  const struct token *t = viv__t_peek(p, 0), *next = viv__t_peek(p, 1);
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (viv__t_skip_op(p, ops[i])) return ops[i];
  if (viv__t_skip_name(p, "in")) return 'i';
  if (t->type == TK_NAME && viv__t_streq(t->text, "not") && next->type == TK_NAME &&
      viv__t_streq(next->text, "in")) {
    p->pos += 2;
    return 'n';
  }
  return 0;
}

static struct node *comparison(struct parser *p) {
  struct node *first = sum(p), *n = NULL, **end = NULL;
  size_t offset = viv__t_peek(p, 0)->offset;
  for (int op; (op = comparison_op(p));) {
    if (!n) {
      n = viv__t_node(p, N_COMPARE);
      n->offset = offset;
      n->a = first;
      end = &n->list;
    }
    *end = viv__t_node(p, N_CONST);
    (*end)->op = op;
    (*end)->offset = offset;
    (*end)->a = sum(p);
    end = &(*end)->next;
  }
  return n ? n : first;
}

static struct node *negation(struct parser *p) {
  if (!viv__t_is_name(p, "not")) return comparison(p);
  struct node *n = viv__t_node(p, N_NOT);
  p->pos++;
  viv__t_enter(p->v);
  n->a = negation(p);
  viv__t_leave(p->v);
  return n;
}

static struct node *conjunction(struct parser *p) {
  size_t offset = viv__t_peek(p, 0)->offset;
  struct node *n = negation(p);
  while (viv__t_skip_name(p, "and")) n = binary(p, N_AND, 0, offset, n, negation(p));
  return n;
}

struct node *viv__t_or(struct parser *p) {
  size_t offset = viv__t_peek(p, 0)->offset;
  struct node *n = conjunction(p);
  while (viv__t_skip_name(p, "or")) n = binary(p, N_OR, 0, offset, n, conjunction(p));
  return n;
}

/* Whether an `if` follows before the expression ends, so that its first part may never run. */
static bool conditional(const struct parser *p) {
  int depth = 0;
  for (const struct token *t = &p->tokens[p->pos]; t->type >= TK_NAME; t++) {
    if (t->type == TK_OP && strchr("([{", t->op) && t->op < 128) depth++;
    if (t->type == TK_OP && strchr(")]}", t->op) && t->op < 128 && --depth < 0) return false;
    if (t->type == TK_OP && t->op == ',' && !depth) return false;
    if (t->type == TK_NAME && !depth && viv__t_streq(t->text, "if")) return true;
  }
  return false;
}

struct node *viv__t_expression(struct parser *p) {
  viv__t_enter(p->v);
  bool maybe = !p->dead && conditional(p);
  p->dead += maybe;
  struct node *n = viv__t_or(p);
  while (viv__t_skip_name(p, "if")) {
    struct node *c = viv__t_node(p, N_COND);
    p->dead++;
    c->a = n;
    c->b = viv__t_or(p);
    if (viv__t_skip_name(p, "else")) c->c = viv__t_expression(p);
    p->dead--;
    n = c;
  }
  p->dead -= maybe;
  viv__t_leave(p->v);
  return n;
}
