/* Generation that obeys a grammar or a JSON schema. Internal to host/tasks. */
#ifndef VIV_HOST_CONSTRAINT_H
#define VIV_HOST_CONSTRAINT_H

#include "grammar/grammar.h"
#include "tasks/sampler.h"
#include "tasks/task.h"

/* Reads the parameters json_schema (a schema, or its text) and grammar (GBNF). VIV_OK with *out NULL:
 * there is neither. Refuses before anything is generated what the grammar's compiler refuses. */
int32_t viv__constraint_grammar(const viv__task *t, viv__grammar **out, viv_error *error);

/* The bytes that each of n tokens adds to a text. NULL: no memory. */
viv__token_trie *viv__constraint_trie(const viv__tokenizer *tokenizer, int32_t n);

/* One lane's way through the grammar. The strategy's sampler is guided by one matcher; a second
 * follows what is really emitted, so that a strategy that chooses without the sampler is found out. */
typedef struct viv__constraint viv__constraint;
int32_t viv__constraint_open(viv__task *t, const viv__grammar *g, viv__constraint **out,
                             viv_error *error);
void viv__constraint_close(viv__constraint *c);
const viv__sampler_guide *viv__constraint_guide(const viv__constraint *c);
/* Takes an emitted token. *over: nothing but the end may follow. BUG: it breaks the grammar. */
int32_t viv__constraint_take(viv__constraint *c, int32_t token, bool ends, bool *over,
                             viv_error *error);
bool viv__constraint_complete(const viv__constraint *c);

#endif
