/* What the files of host/template share. Internal to this folder.
 *
 *   memory.c     the pool, limits, failing, growing texts
 *   lexer.c      template text to tokens; white space control
 *   expr.c       tokens to expressions
 *   parser.c     tokens to statements
 *   value.c      values: making, comparing, iterating; dicts
 *   print.c      values as Python prints them; json.dumps
 *   read.c       JSON text to values
 *   operate.c    arithmetic, attributes, subscripts, slices
 *   eval.c       expressions, calls, functions
 *   run.c        statements, scopes, loops, macros
 *   filters.c    filters over texts and numbers
 *   sequences.c  filters over lists and dicts
 *   checks.c     the tests behind `is`
 *   methods.c    methods of strings, lists and dicts
 *   format.c     "%s" % x, "{}".format(x)
 *   unicode.c    cases and classes of characters
 *   chat.c       a conversation's variables, continued messages, named templates
 *
 * Everything that an open template or a rendering makes lies in one pool that is freed as a whole;
 * so a failure is a longjmp to where the pool is owned, and no function here answers a status.
 * Nothing outside of a pool may be held across a call that can fail. */
#ifndef VIV_HOST_TEMPLATE_INTERNAL_H
#define VIV_HOST_TEMPLATE_INTERNAL_H

#include <setjmp.h>
#include <time.h>

#include "template/template.h"

typedef __int128 wide; /* Python's integers, as far as 127 bits go */

/* ---- values ---- */

enum kind {
  V_MISSING, /* an argument that was not given; never seen by a template */
  V_UNDEFINED,
  V_NONE,
  V_BOOL,
  V_INT,
  V_FLOAT,
  V_STR,
  V_LIST,
  V_TUPLE,
  V_DICT,
  V_RANGE,
  V_VIEW,  /* of a dict: keys, values or items */
  V_SPACE, /* namespace() */
  V_FUNC,
  V_METHOD,
  V_MACRO,
  V_LOOP,
  V_ITER, /* what Python's generators are: it runs once */
  V_CYCLER,
  V_JOINER
};

struct str {
  const char *ptr; /* UTF-8 */
  size_t len, chars;
  bool markup; /* escaped for HTML already */
};

typedef struct value {
  uint8_t kind; /* enum kind */
  uint8_t sub;  /* V_VIEW: 'k', 'v', 'i'; V_FUNC: enum func; V_TUPLE: 1 for groupby's */
  union {
    bool b;
    wide i;
    double f;
    const struct str *s;
    struct list *l; /* list, tuple */
    struct dict *d; /* dict, view, namespace */
    struct range *r;
    struct bound *m;
    struct macro *macro;
    struct loop *loop;
    struct iter *it;
    struct cycle *c;
    const struct absent *u; /* V_UNDEFINED */
  };
} value;

/* Lists, tuples and dicts don't change once a template can see them, so slices share items. */
struct list {
  value *items;
  size_t n, cap;
};
struct entry {
  value key, val;
};
struct dict {
  struct entry *at;
  size_t n, cap;
  uint32_t *index; /* [2^bits] entry + 1, NULL while the dict is small */
  int bits;
};
struct range {
  int64_t start, stop, step, n;
};
/* Why something is undefined. unsafe: using it is a SecurityError. */
struct absent {
  const struct str *message;
  bool unsafe;
};
struct bound {
  value self;
  const struct method *method;
};
struct cycle {
  struct list *items;
  size_t pos;
  const struct str *sep; /* joiner */
};

typedef struct vm vm;
struct filter;
struct method;

struct kwarg {
  const struct str *name;
  value val;
};
struct args {
  value *pos;
  int n;
  struct kwarg *kw;
  int n_kw;
};

/* One step of an iteration: false at its end. */
struct iter {
  bool (*next)(vm *v, struct iter *it, value *out);
  value src;
  size_t pos, byte;
  struct iter *inner;
  const void *how; /* map, select: what to do with each */
};

/* ---- programs ---- */

enum token_type {
  TK_END,
  TK_DATA,
  TK_BLOCK_BEGIN,
  TK_BLOCK_END,
  TK_VAR_BEGIN,
  TK_VAR_END,
  TK_NAME,
  TK_STRING,
  TK_INT,
  TK_FLOAT,
  TK_OP
};
/* Operators of two characters have both in op: '*' << 8 | '*'. */
#define OP2(a, b) ((a) << 8 | (b))

struct token {
  int type, op;
  size_t offset; /* in the template, for line and column */
  const struct str *text;
  value val;
};

enum node_kind {
  N_CONST,
  N_NAME,
  N_LIST,
  N_TUPLE,
  N_DICT, /* list: key, value, key, value */
  N_ATTR, /* a.text */
  N_ITEM, /* a[b] */
  N_SLICE,
  N_CALL,
  N_FILTER,
  N_TEST,
  N_UNARY,
  N_BINARY,
  N_CONCAT,
  N_COMPARE,
  N_AND,
  N_OR,
  N_NOT,
  N_COND, /* a if b else c */
  N_NSREF,
  N_KEYWORD, /* an argument text=a */
  N_SPREAD,  /* *a; op 1: **a */
  N_DATA,
  N_PRINT,
  N_IF,  /* a, body, other */
  N_FOR, /* target a in b if c: body else other */
  N_SET,
  N_SET_BLOCK,
  N_MACRO,
  N_CALL_BLOCK,
  N_FILTER_BLOCK,
  N_WITH,
  N_BREAK,
  N_CONTINUE,
  N_GENERATION
};

struct node {
  int kind, op;
  size_t offset;
  struct node *next; /* in a list */
  struct node *a, *b, *c;
  struct node *list; /* elements, arguments, targets */
  struct node *body, *other;
  const struct str *text;
  const void *impl; /* filter, test */
  value val;
  bool flag; /* N_TEST: negated; N_FOR: recursive */
};

struct viv__template {
  struct pool *pool;
  struct str source;
  char *name;
  struct node *body;
};

/* ---- a running program ---- */

struct text {
  char *ptr;
  size_t len, cap;
};

struct scope {
  struct scope *up;
  struct dict vars;
};

struct macro {
  const struct node *node; /* N_MACRO or N_CALL_BLOCK */
  struct scope *scope;
  bool uses_caller, uses_kwargs, uses_varargs;
};

struct loop {
  const struct node *node;
  struct scope *scope;
  struct list *items;
  size_t index;
  int depth;
  value seen; /* what changed() got last */
};

struct vm {
  jmp_buf out;
  struct pool *pool;
  viv_error *error;
  int32_t status;
  const viv__template *t;
  const char *name;
  struct str source; /* for lines and columns */
  size_t at;         /* where in the template */
  int64_t steps;
  int depth;
  struct scope *scope;
  struct text *sink;
  struct text root;
  viv__span *spans;
  size_t n_spans, cap_spans;
  int64_t now;
};

/* memory.c */
enum { MAX_DEPTH = 600 };
struct pool *viv__t_pool(void);
void viv__t_pool_free(struct pool *p);
void *viv__t_alloc(vm *v, size_t bytes);
void viv__t_step(vm *v, size_t n); /* work done; fails at the limit */
void viv__t_enter(vm *v);          /* one level deeper; fails at the limit */
void viv__t_leave(vm *v);
/* Fail with a message and the place v->at. Python's own messages where there are any. */
_Noreturn void viv__t_fail(vm *v, int32_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void viv__t_fail_str(vm *v, int32_t code, const struct str *message);
void viv__t_put(vm *v, struct text *t, const char *ptr, size_t len);
void viv__t_puts(vm *v, struct text *t, const char *s);
void viv__t_put_str(vm *v, struct text *t, const struct str *s);
void viv__t_put_cp(vm *v, struct text *t, uint32_t cp);
void viv__t_putf(vm *v, struct text *t, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
value viv__t_text(vm *v, const struct text *t); /* a string of it */

/* lexer.c, expr.c, parser.c */
struct parser {
  vm *v;
  struct token *tokens; /* ends with TK_END */
  size_t pos;
  int dead;         /* inside what may never run: an unknown name fails only when it does */
  const char *ends; /* open tags, for messages */
  int loops;
  const struct tag *tag;
};
struct token *viv__t_lex(vm *v);
struct node *viv__t_parse(vm *v, struct token *tokens);
struct node *viv__t_node(struct parser *p, int kind);
struct token *viv__t_peek(struct parser *p, int ahead);
bool viv__t_is_op(struct parser *p, int op);
bool viv__t_is_name(struct parser *p, const char *name);
bool viv__t_skip_op(struct parser *p, int op);
bool viv__t_skip_name(struct parser *p, const char *name);
void viv__t_expect_op(struct parser *p, int op);
const struct str *viv__t_expect_name(struct parser *p);
const char *viv__t_describe(struct parser *p, const struct token *t);
struct node *viv__t_expression(struct parser *p);
struct node *viv__t_or(struct parser *p);
struct node *viv__t_primary(struct parser *p, bool with_namespace);
/* Expressions with commas between them, as Python's tuples without brackets. */
enum { TUPLE_SIMPLE = 1, TUPLE_NO_COND = 2, TUPLE_BRACKETS = 4, TUPLE_NAMESPACE = 8 };
struct node *viv__t_tuple(struct parser *p, int flags, const char *end);
struct node *viv__t_filters(struct parser *p, struct node *on, bool inline_first);

/* value.c */
value viv__t_none(void);
value viv__t_bool(bool b);
value viv__t_int(wide i);
value viv__t_float(double f);
value viv__t_str(vm *v, const char *ptr, size_t len);
value viv__t_cstr(vm *v, const char *s);
value viv__t_strv(const struct str *s);
value viv__t_share(vm *v, const char *ptr, size_t len); /* not copied */
value viv__t_undefined(vm *v, bool unsafe, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
value viv__t_list(vm *v, uint8_t kind, size_t cap);
void viv__t_push(vm *v, struct list *l, value x);
value viv__t_tuple2(vm *v, value a, value b);
value viv__t_dict(vm *v);
void viv__t_dict_set(vm *v, struct dict *d, value key, value val);
bool viv__t_dict_get(vm *v, const struct dict *d, value key, value *out);
bool viv__t_get(vm *v, const struct dict *d, const char *key, value *out);
uint64_t viv__t_hash(vm *v, value x); /* fails for what has none */
bool viv__t_truth(vm *v, value x);
bool viv__t_equal(vm *v, value a, value b);
int viv__t_order(vm *v, value a, value b, const char *op); /* <0, 0, >0; 2: neither (NaN) */
bool viv__t_contains(vm *v, value box, value x);
bool viv__t_sized(value x, size_t *n);
size_t viv__t_len(vm *v, value x);
struct iter *viv__t_iter(vm *v, value x);
bool viv__t_iterable(value x);
bool viv__t_next(vm *v, struct iter *it, value *out);
value viv__t_iter_of(vm *v, struct list *l); /* runs once */
value viv__t_listed(vm *v, value x);         /* list(x) */
const char *viv__t_type(value x);            /* "str", "int", ... */
bool viv__t_streq(const struct str *s, const char *c);
bool viv__t_same(const struct str *a, const struct str *b);
int64_t viv__t_index(vm *v, value x); /* an int that fits, else TypeError */

/* print.c */
void viv__t_print(vm *v, struct text *t, value x); /* str(x) */
void viv__t_repr(vm *v, struct text *t, value x);
const struct str *viv__t_tostr(vm *v, value x);
void viv__t_put_float(vm *v, struct text *t, double f);
void viv__t_put_int(vm *v, struct text *t, wide i);
struct json_style {
  bool ascii, sort;
  const struct str *indent; /* NULL: one line */
  const struct str *item, *key;
};
void viv__t_json(vm *v, struct text *t, value x, const struct json_style *style);
const char *viv__t_shown(vm *v, value x); /* repr(x) as a terminated text, for messages */

/* read.c */
value viv__t_read(vm *v, viv_str json, const char *name);
/* Python's int(text, base), base 0 as in programs, and float(text). False: it is none. */
bool viv__t_read_int(const char *s, size_t len, int base, wide *out);
bool viv__t_read_float(const char *s, size_t len, double *out);

/* operate.c */
value viv__t_binary(vm *v, int op, value a, value b);
value viv__t_unary(vm *v, int op, value a);
value viv__t_attr(vm *v, value x, const struct str *name);
value viv__t_item(vm *v, value x, value key);
value viv__t_slice(vm *v, value x, value start, value stop, value step);
double viv__t_real(vm *v, value x);     /* of a number */
bool viv__t_is_int(value x, wide *out); /* int or bool */

/* eval.c, run.c */
value viv__t_eval(vm *v, const struct node *n);
value viv__t_call(vm *v, value fn, const struct args *a);
value viv__t_filter(vm *v, const struct filter *f, value x, const struct args *a);
bool viv__t_lookup(vm *v, const struct str *name, value *out);
void viv__t_run(vm *v, const struct node *n);
value viv__t_macro(vm *v, struct macro *m, const struct args *a);
value viv__t_recurse(vm *v, struct loop *l, value items);
void viv__t_assign(vm *v, const struct node *target, value x);
/* Puts arguments where the names of a signature ("width first blank") say; what was not given is
 * V_MISSING. Too many, unknown and doubled ones fail, and fewer than min. */
void viv__t_bind(vm *v, const char *fn, const struct args *a, const char *names, int min,
                 value *out);
struct macro *viv__t_new_macro(vm *v, const struct node *n);

/* filters.c, sequences.c, checks.c, methods.c, format.c */
enum { MAX_BOUND = 6 };
struct filter {
  const char *name, *names; /* names NULL: takes the arguments as they come */
  int min;
  value (*fn)(vm *v, value x, value *in, const struct args *a); /* NULL: known and not offered */
};
extern const struct filter viv__t_text_filters[], viv__t_list_filters[];
const struct filter *viv__t_find_filter(const struct str *name);
struct check {
  const char *name;
  int args;
  bool (*fn)(vm *v, value x, value *in);
};
const struct check *viv__t_find_check(const struct str *name);
bool viv__t_check(vm *v, const struct check *c, value x, const struct args *a);
struct method {
  const char *name, *names;
  int min;
  value (*fn)(vm *v, value self, value *in, const struct args *a);
};
const struct method *viv__t_find_method(value x, const struct str *name);
value viv__t_call_method(vm *v, const struct bound *b, const struct args *a);
value viv__t_percent(vm *v, const struct str *format, value args);
value viv__t_format(vm *v, const struct str *format, const struct args *a);
const struct str *viv__t_escape(vm *v, value x);
/* One character's worth of padding to a width in characters. align: '<', '>', '^'. */
value viv__t_pad(vm *v, const struct str *s, wide width, const struct str *fill, char align);
value viv__t_split_lines(vm *v, const struct str *s, bool keep);
value viv__t_strip(vm *v, const struct str *s, value chars, bool left, bool right);
value viv__t_replace(vm *v, const struct str *s, const struct str *old, const struct str *by,
                     wide count);

/* unicode.c */
uint32_t viv__t_cp(const char *s, size_t len, int *bytes); /* the character at s, which is valid */
size_t viv__t_chars(const char *s, size_t len);
size_t viv__t_byte_of(const struct str *s, size_t at); /* where the at-th character begins */
bool viv__t_space(uint32_t cp);
bool viv__t_alpha(uint32_t cp);
bool viv__t_digit(uint32_t cp);
bool viv__t_word(uint32_t cp);
bool viv__t_upper(uint32_t cp);
bool viv__t_lower(uint32_t cp);
bool viv__t_printable(uint32_t cp);
enum { CASE_UPPER, CASE_LOWER, CASE_TITLE };
void viv__t_put_case(vm *v, struct text *t, const struct str *s, int how);
void viv__t_put_cased(vm *v, struct text *t, uint32_t cp, int how);
#endif
