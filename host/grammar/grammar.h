/* Grammars that constrain what a model writes: from GBNF text or a JSON Schema to the set of tokens
 * that may come next. Internal.
 *
 * A grammar is a recursive transition network over bytes: per rule a non-deterministic automaton
 * whose edges consume a range of bytes, nothing, or a whole other rule. Compiling is where all
 * refusals happen: what is not offered, what no text fulfils and what would recurse without reading
 * is refused by name, so that a job whose grammar was accepted can always go on. A matcher walks the
 * network with all its stacks at once and remembers what it found, so that a state seen before costs
 * a look-up. Grammars are immutable and may be shared between threads; a matcher belongs to one. */
#ifndef VIV_HOST_GRAMMAR_H
#define VIV_HOST_GRAMMAR_H

#include "base/base.h"

typedef struct viv__grammar viv__grammar;

/* GBNF: `name ::= alternative | ...`, "text", [a-z], ., ( ), * + ? {m} {m,} {m,n}, # comments; the
 * rule `root` is where a text begins. Untrusted. BAD_INPUT: it is no grammar (where: line and
 * column), nothing fulfils it, a rule calls itself before it reads anything. */
int32_t viv__grammar_gbnf(viv_str text, viv__grammar **out, viv_error *error);

/* JSON Schema, the part that can be obeyed while writing: type, enum, const, properties, required,
 * additionalProperties, items, prefixItems, minItems, maxItems, minLength, maxLength, pattern,
 * format (date, time, date-time, uuid, ipv4), minimum, maximum, exclusiveMinimum, exclusiveMaximum,
 * multipleOf, anyOf, oneOf of kinds that exclude each other, allOf, $ref into the schema itself.
 * The texts are JSON in plain form: members in the order of properties, no space or one behind a
 * comma or colon, no escape that is not needed, numbers without exponent (a schema that says nothing
 * about additionalProperties admits none beside named properties). Untrusted. BAD_INPUT: it is no
 * schema, or nothing fulfils it. NEVER: a keyword that is not obeyed; where names its place. */
int32_t viv__grammar_schema(viv_str json, viv__grammar **out, viv_error *error);
void viv__grammar_free(viv__grammar *g);

/* ---- tokens ---- */

/* All tokens of a vocabulary, by their bytes. */
typedef struct viv__token_trie viv__token_trie;
/* texts [n]: the bytes that each token adds; an empty one never passes a grammar. */
viv__token_trie *viv__token_trie_new(const viv_str *texts, int32_t n);
void viv__token_trie_free(viv__token_trie *t);

/* ---- matching ---- */

typedef struct viv__matcher viv__matcher;
/* trie: NULL where only bytes are matched. grammar and trie must outlive the matcher. NULL: no
 * memory. */
viv__matcher *viv__matcher_new(const viv__grammar *g, const viv__token_trie *trie);
void viv__matcher_free(viv__matcher *m);
void viv__matcher_begin(viv__matcher *m);
/* False: no text of the grammar goes on like this, and the matcher stays dead. */
bool viv__matcher_bytes(viv__matcher *m, const char *bytes, size_t n);
bool viv__matcher_token(viv__matcher *m, int32_t token);
bool viv__matcher_complete(const viv__matcher *m); /* the text may end here */
bool viv__matcher_goes_on(const viv__matcher *m);  /* a byte may follow */
bool viv__matcher_alive(const viv__matcher *m);
/* Bits of the tokens that may follow, 64 to a word; lives until the matcher moves. NULL: it is dead,
 * or out of memory. */
const uint64_t *viv__matcher_mask(viv__matcher *m);

#endif
