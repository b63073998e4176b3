/* What a JSON Schema comes down to before it becomes a network. Internal to host/grammar. */
#ifndef VIV_HOST_GRAMMAR_SCHEMA_H
#define VIV_HOST_GRAMMAR_SCHEMA_H

#include "grammar/internal.h"

enum viv__json_kinds {
  VIV__K_NULL = 1,
  VIV__K_BOOL = 2,
  VIV__K_INT = 4,
  VIV__K_REAL = 8, /* numbers that are no integers */
  VIV__K_TEXT = 16,
  VIV__K_ARRAY = 32,
  VIV__K_OBJECT = 64,
  VIV__K_ANY = 127
};

/* Lists only grow at their front and are shared between the specs of alternatives. */
typedef struct viv__nodes {
  const viv_json *node;
  const struct viv__nodes *next;
} viv__nodes;

/* All that a value must obey at once. */
typedef struct viv__spec {
  uint32_t kinds;
  const viv__nodes *enums;   /* lists of values, of which the value is in each */
  const viv__nodes *consts;  /* values */
  const viv__nodes *objects; /* schemas that say something about members */
  const viv__nodes *arrays;  /* schemas that say something about items */
  const viv__nodes *groups;  /* anyOf and oneOf lists not yet chosen from */
  const viv_json *pattern, *format;
  double low, high;
  bool low_strict, high_strict;
  int32_t multiple;
  int64_t min_length, max_length, min_items, max_items; /* max -1: none */
} viv__spec;

typedef struct viv__memo {
  const viv__nodes *nodes;
  int32_t rule;
  struct viv__memo *next;
} viv__memo;

struct viv__schema {
  viv__grammar *g;
  viv_arena *arena;
  const viv_json *root;
  viv__memo *memo;
  int32_t any, text, character; /* rules that are made once; -1 */
  int32_t depth;
  int64_t steps;
  int32_t status;
  viv_error *error;
};

/* The first failure stays. */
void viv__schema_fail(struct viv__schema *s, int32_t code, const char *where, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));
const viv__nodes *viv__nodes_push(struct viv__schema *s, const viv__nodes *list,
                                  const viv_json *node);
/* schema.c */
void viv__schema_collect(struct viv__schema *s, viv__spec *spec, const viv_json *node);
/* schema_write.c: the rule of a value that obeys all of the schemas. */
int32_t viv__schema_rule(struct viv__schema *s, const viv__nodes *nodes);
viv__net viv__schema_piece(struct viv__schema *s, const viv__spec *spec);
/* schema_values.c */
viv__net viv__schema_value(struct viv__schema *s, const viv_json *value);
void viv__schema_value_text(viv__buf *out, const viv_json *value);
viv__net viv__schema_text(struct viv__schema *s, const viv__spec *spec);
viv__net viv__schema_number(struct viv__schema *s, const viv__spec *spec);
int32_t viv__schema_any(struct viv__schema *s);
/* A name of a member that is none of those in the list of texts. */
viv__net viv__schema_other_name(struct viv__schema *s, const viv__nodes *names);
uint32_t viv__schema_kind(const viv_json *value);
bool viv__schema_equal(const viv_json *a, const viv_json *b);

#endif
