/* Tokens to statements. */
#include <string.h>

#include "template/internal.h"

/* Open tags, innermost first: what ends them is said in messages. */
struct tag {
  const struct tag *up;
  const char *name;
  const char *const *ends; /* NULL-terminated */
};

static struct node *statements(struct parser *p);

static _Noreturn void fail_here(struct parser *p, const char *message) {
  p->v->at = viv__t_peek(p, 0)->offset;
  viv__t_fail(p->v, VIV_BAD_INPUT, "%s", message);
}

/* "'elif' or 'else' or 'endif'" */
static void wanted(struct parser *p, struct text *t) {
  viv__t_puts(p->v, t, " Jinja was looking for the following tags: ");
  for (const char *const *end = p->tag->ends; *end; end++)
    viv__t_putf(p->v, t, "%s'%s'", end == p->tag->ends ? "" : " or ", *end);
  viv__t_putf(p->v, t, ". The innermost block that needs to be closed is '%s'.", p->tag->name);
}

static _Noreturn void fail_tag(struct parser *p, const struct token *name) {
  struct text t = {0};
  p->v->at = name ? name->offset : p->v->source.len;
  if (!name)
    viv__t_puts(p->v, &t, "Unexpected end of template.");
  else
    viv__t_putf(p->v, &t, "Encountered unknown tag '%.100s'.", viv__t_describe(p, name));
  if (p->tag) wanted(p, &t);
  viv__t_put(p->v, &t, "", 1);
  viv__t_fail(p->v, VIV_BAD_INPUT, "%s", t.ptr);
}

static void expect_end(struct parser *p, int type, const char *what) {
  const struct token *t = viv__t_peek(p, 0);
  if (t->type == type) {
    p->pos++;
    return;
  }
  p->v->at = t->offset;
  if (t->type == TK_END)
    viv__t_fail(p->v, VIV_BAD_INPUT, "unexpected end of template, expected '%s'.", what);
  viv__t_fail(p->v, VIV_BAD_INPUT, "expected token '%s', got '%.100s'", what,
              viv__t_describe(p, t));
}

static void end_of_block(struct parser *p) {
  expect_end(p, TK_BLOCK_END, "end of statement block");
}

/* What stands between a tag's end and one of the tags of ends; the parser is left on that tag's
 * name. */
static struct node *body(struct parser *p, const char *name, const char *const *ends) {
  struct tag tag = {.up = p->tag, .name = name, .ends = ends};
  viv__t_skip_op(p, ':');
  end_of_block(p);
  p->tag = &tag;
  viv__t_enter(p->v);
  struct node *n = statements(p);
  viv__t_leave(p->v);
  if (viv__t_peek(p, 0)->type == TK_END) fail_tag(p, NULL);
  p->tag = tag.up;
  return n;
}

static struct node *body_to(struct parser *p, const char *name, const char *end) {
  const char *const ends[] = {end, NULL};
  struct node *n = body(p, name, ends);
  p->pos++;
  return n;
}

static void check_target(struct parser *p, const struct node *n) {
  if (n->kind == N_TUPLE) {
    for (const struct node *e = n->list; e; e = e->next) check_target(p, e);
    return;
  }
  if (n->kind == N_NAME || n->kind == N_NSREF) return;
  p->v->at = n->offset;
  viv__t_fail(p->v, VIV_BAD_INPUT, "can't assign to '%s'",
              n->kind == N_CONST  ? "const"
              : n->kind == N_LIST ? "list"
              : n->kind == N_DICT ? "dict"
                                  : "expression");
}

static struct node *target(struct parser *p, int flags, const char *end) {
  struct node *n = viv__t_tuple(p, TUPLE_SIMPLE | flags, end);
  check_target(p, n);
  return n;
}

static struct node *parse_if(struct parser *p, struct node *n) {
  static const char *const ends[] = {"elif", "else", "endif", NULL};
  static const char *const last[] = {"endif", NULL};
  n->a = viv__t_tuple(p, TUPLE_NO_COND, NULL);
  p->dead++;
  n->body = body(p, "if", ends);
  struct node *branch = n;
  while (viv__t_is_name(p, "elif")) {
    branch->other = viv__t_node(p, N_IF);
    branch = branch->other;
    branch->flag = true; /* an elif, not an if inside of else */
    p->pos++;
    branch->a = viv__t_tuple(p, TUPLE_NO_COND, NULL);
    branch->body = body(p, "if", ends);
  }
  if (viv__t_skip_name(p, "else")) branch->other = body(p, "if", last);
  p->pos++;
  p->dead--;
  return n;
}

static struct node *parse_for(struct parser *p, struct node *n) {
  static const char *const ends[] = {"endfor", "else", NULL};
  n->list = target(p, 0, "in");
  if (!viv__t_skip_name(p, "in")) expect_end(p, -1, "in");
  n->b = viv__t_tuple(p, TUPLE_NO_COND, "recursive");
  if (viv__t_skip_name(p, "if")) n->c = viv__t_expression(p);
  n->flag = viv__t_skip_name(p, "recursive");
  p->loops++;
  n->body = body(p, "for", ends);
  p->loops--;
  if (viv__t_skip_name(p, "else"))
    n->other = body_to(p, "for", "endfor");
  else
    p->pos++;
  return n;
}

static struct node *parse_set(struct parser *p, struct node *n) {
  n->list = target(p, TUPLE_NAMESPACE, NULL);
  if (viv__t_skip_op(p, '=')) {
    n->a = viv__t_tuple(p, 0, NULL);
    return n;
  }
  n->kind = N_SET_BLOCK;
  if (viv__t_is_op(p, '|')) n->a = viv__t_filters(p, NULL, false);
  n->body = body_to(p, "set", "endset");
  return n;
}

/* (a, b=1): names with defaults in a. */
static void signature(struct parser *p, struct node *n) {
  struct node **end = &n->list;
  bool defaults = false;
  viv__t_expect_op(p, '(');
  while (!viv__t_is_op(p, ')')) {
    if (n->list) viv__t_expect_op(p, ',');
    *end = viv__t_node(p, N_NAME);
    (*end)->text = viv__t_expect_name(p);
    if (viv__t_skip_op(p, '=')) {
      (*end)->a = viv__t_expression(p);
      defaults = true;
    } else if (defaults) {
      fail_here(p, "non-default argument follows default argument");
    }
    end = &(*end)->next;
  }
  viv__t_expect_op(p, ')');
}

static struct node *parse_macro(struct parser *p, struct node *n) {
  int loops = p->loops;
  n->text = viv__t_expect_name(p);
  signature(p, n);
  p->loops = 0;
  n->body = body_to(p, "macro", "endmacro");
  p->loops = loops;
  return n;
}

static struct node *parse_call(struct parser *p, struct node *n) {
  int loops = p->loops;
  n->text = viv__t_cstr(p->v, "caller").s;
  if (viv__t_is_op(p, '(')) signature(p, n);
  n->a = viv__t_expression(p);
  if (n->a->kind != N_CALL) {
    p->v->at = n->offset;
    viv__t_fail(p->v, VIV_BAD_INPUT, "expected call");
  }
  p->loops = 0;
  n->body = body_to(p, "call", "endcall");
  p->loops = loops;
  return n;
}

static struct node *parse_with(struct parser *p, struct node *n) {
  struct node **end = &n->list;
  while (viv__t_peek(p, 0)->type != TK_BLOCK_END) {
    if (n->list) viv__t_expect_op(p, ',');
    struct node *one = viv__t_node(p, N_SET);
    one->list = target(p, 0, NULL);
    viv__t_expect_op(p, '=');
    one->a = viv__t_expression(p);
    *end = one;
    end = &one->next;
  }
  n->body = body_to(p, "with", "endwith");
  return n;
}

static struct node *parse_print(struct parser *p, struct node *n) {
  struct node **end = &n->list;
  n->kind = N_PRINT;
  while (viv__t_peek(p, 0)->type != TK_BLOCK_END) {
    if (n->list) viv__t_expect_op(p, ',');
    *end = viv__t_expression(p);
    end = &(*end)->next;
  }
  return n;
}

static struct node *parse_filter(struct parser *p, struct node *n) {
  n->a = viv__t_filters(p, NULL, true);
  n->body = body_to(p, "filter", "endfilter");
  return n;
}

static struct node *parse_generation(struct parser *p, struct node *n) {
  int loops = p->loops;
  p->loops = 0;
  n->body = body_to(p, "generation", "endgeneration");
  p->loops = loops;
  return n;
}

static struct node *parse_jump(struct parser *p, struct node *n) {
  if (!p->loops) {
    p->v->at = n->offset;
    viv__t_fail(p->v, VIV_BAD_INPUT, "'%s' outside loop",
                n->kind == N_BREAK ? "break" : "continue");
  }
  return n;
}

static const struct {
  const char *name;
  int kind;
  struct node *(*parse)(struct parser *p, struct node *n);
} kinds[] = {{"if", N_IF, parse_if},
             {"for", N_FOR, parse_for},
             {"set", N_SET, parse_set},
             {"macro", N_MACRO, parse_macro},
             {"call", N_CALL_BLOCK, parse_call},
             {"filter", N_FILTER_BLOCK, parse_filter},
             {"with", N_WITH, parse_with},
             {"print", N_PRINT, parse_print},
             {"break", N_BREAK, parse_jump},
             {"continue", N_CONTINUE, parse_jump},
             {"generation", N_GENERATION, parse_generation}};

static const char *const refused[] = {"block",  "extends", "include",
                                      "import", "from",    "autoescape"};

/* A statement behind {%. NULL: the end of the innermost open tag. */
static struct node *statement(struct parser *p) {
  struct token *t = viv__t_peek(p, 0);
  if (t->type != TK_NAME) fail_here(p, "tag name expected");
  if (p->tag)
    for (const char *const *end = p->tag->ends; *end; end++)
      if (viv__t_is_name(p, *end)) return NULL;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (viv__t_is_name(p, kinds[i].name)) {
      struct node *n = viv__t_node(p, kinds[i].kind);
      p->pos++;
      return kinds[i].parse(p, n);
    }
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (viv__t_is_name(p, refused[i])) {
      p->v->at = t->offset;
      viv__t_fail(p->v, VIV_NEVER, "the tag \"%s\" is not offered", refused[i]);
    }
  fail_tag(p, t);
}

static struct node *statements(struct parser *p) {
  struct node *first = NULL, **end = &first;
  for (;;) {
    struct token *t = viv__t_peek(p, 0);
    struct node *n;
    viv__t_step(p->v, 1);
    if (t->type == TK_END) return first;
    if (t->type == TK_DATA) {
      n = viv__t_node(p, N_DATA);
      n->text = t->text;
      p->pos++;
    } else if (t->type == TK_VAR_BEGIN) {
      p->pos++;
      n = viv__t_node(p, N_PRINT);
      n->list = viv__t_tuple(p, 0, NULL);
      expect_end(p, TK_VAR_END, "end of print statement");
    } else {
      p->pos++;
      n = statement(p);
      if (!n) return first;
      end_of_block(p);
    }
    *end = n;
    end = &n->next;
  }
}

struct node *viv__t_parse(vm *v, struct token *tokens) {
  struct parser p = {.v = v, .tokens = tokens};
  return statements(&p);
}
