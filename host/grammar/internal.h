/* The network that grammars compile to, and what builds it. Internal to host/grammar. */
#ifndef VIV_HOST_GRAMMAR_INTERNAL_H
#define VIV_HOST_GRAMMAR_INTERNAL_H

#include "grammar/grammar.h"

enum { VIV__MAX_STATES = 1 << 20, VIV__MAX_RULES = 1 << 16, VIV__MAX_DEPTH = 96 };
enum viv__edge_kind { VIV__EDGE_EMPTY, VIV__EDGE_BYTES, VIV__EDGE_RULE };

typedef struct viv__edge {
  uint8_t kind, low, high; /* BYTES: low..high */
  int32_t rule;            /* RULE */
  int32_t to, next;        /* the state behind; the state's next edge, -1 */
} viv__edge;

typedef struct viv__rule {
  int32_t start, end; /* -1 until it is defined */
  bool productive, nullable;
  bool plain; /* reads one plain character (viv__plain_text), or an escape */
} viv__rule;

/* A rule several times: the states base.. base + n are the places between, hop k leads from base + k
 * to base + k + 1. Of a loop the last place leads to itself. */
typedef struct viv__chain {
  int32_t base, n, low, rule;
  bool loop;
} viv__chain;

struct viv__grammar {
  int32_t *first; /* [n_states] first edge, -1 */
  viv__edge *edges;
  viv__rule *rules;
  viv__chain *chains; /* ascending */
  int32_t n_states, cap_states, n_edges, cap_edges, n_rules, cap_rules, n_chains, cap_chains, root;
  bool failed; /* no memory */
  bool too_large;
};

/* A piece of a rule: what leads from one state to another. */
typedef struct viv__net {
  int32_t from, to;
} viv__net;

/* Building never fails at once: failed or too_large is set and looked at in the end. */
viv__grammar *viv__grammar_new(void);
int32_t viv__grammar_rule(viv__grammar *g);
int32_t viv__grammar_state(viv__grammar *g);
void viv__grammar_edge(viv__grammar *g, int kind, int32_t from, int32_t to, int low, int high,
                       int32_t rule);
viv__net viv__net_empty(viv__grammar *g);
viv__net viv__net_never(viv__grammar *g);
viv__net viv__net_bytes(viv__grammar *g, viv_str text);
viv__net viv__net_rule(viv__grammar *g, int32_t rule);
viv__net viv__net_then(viv__grammar *g, viv__net a, viv__net b);
viv__net viv__net_or(viv__grammar *g, viv__net a, viv__net b);
/* The rule low to high times; high -1: without end. */
viv__net viv__net_repeat(viv__grammar *g, int32_t rule, int32_t low, int32_t high);
void viv__grammar_define(viv__grammar *g, int32_t rule, viv__net body);
int32_t viv__grammar_wrap(viv__grammar *g, viv__net body); /* a new rule of that body */
/* Removes what can't be completed. BAD_INPUT: nothing is left, or left recursion. */
int32_t viv__grammar_finish(viv__grammar *g, const char *what, viv_error *error);

/* The chain that a state is a place of, or NULL. */
const viv__chain *viv__grammar_chain(const viv__grammar *g, int32_t state);

/* ---- characters ---- */

/* How many characters the text has when all are plain in JSON: valid UTF-8, no escape needed; else 0. */
int32_t viv__plain_text(viv_str text);

typedef struct viv__range {
  int32_t low, high;
} viv__range;
typedef struct viv__charset {
  viv__range *range; /* [n], unordered until normalised */
  int32_t n, cap;
  bool failed;
} viv__charset;
void viv__charset_add(viv__charset *c, int32_t low, int32_t high);
void viv__charset_normalise(viv__charset *c); /* ascending, disjoint */
void viv__charset_negate(viv__charset *c);    /* in 0..10FFFF */
void viv__charset_free(viv__charset *c);
/* One character of the set: its UTF-8, or its plain form inside of a JSON string. */
viv__net viv__net_chars(viv__grammar *g, viv__charset *c, bool json);

/* A character at p (at least one byte before end); its length, or 0: not UTF-8. */
int viv__utf8_read(const char *p, const char *end, int32_t *code);
void viv__net_json_text(viv__buf *out, viv_str text); /* text in plain form, without quotes */

/* A regular expression (ECMAScript's without look-around, back references and flags) as the contents
 * of a JSON string. NEVER: what is not offered. BAD_INPUT: no regular expression. */
int32_t viv__net_regex(viv__grammar *g, viv_str regex, const char *where, viv__net *out,
                       viv_error *error);

/* ---- numbers ---- */

typedef struct viv__bounds {
  const char *low, *high;       /* decimal texts without exponent, NULL: none */
  bool low_strict, high_strict; /* the bound itself is out */
  bool integer;
  int32_t multiple; /* of an integer; 0: of no number */
} viv__bounds;
viv__net viv__net_number(viv__grammar *g, const viv__bounds *b);

#endif
