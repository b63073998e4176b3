/* The vocabulary as a trie in depth-first order. Internal to host/grammar. */
#ifndef VIV_HOST_GRAMMAR_TRIE_H
#define VIV_HOST_GRAMMAR_TRIE_H

#include "grammar/grammar.h"

typedef struct viv__trie_node {
  int32_t skip; /* the first node that is no descendant */
  int32_t first_token;
  uint16_t n_tokens, depth; /* depth 1: a token's first byte */
  uint8_t byte;
} viv__trie_node;

struct viv__token_trie {
  viv__trie_node *nodes; /* [n_nodes] */
  int32_t *tokens;       /* ids by their bytes */
  viv_str *text;         /* [n_tokens] */
  char *bytes;
  int32_t n_nodes, n_tokens, depth;
};

viv_str viv__token_trie_text(const viv__token_trie *t, int32_t token);

#endif
