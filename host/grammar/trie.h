/* The vocabulary as tries in depth-first order. Internal to host/grammar.
 *
 * Tokens lie in four tries: plain ones (viv__plain_text) and others, each short (at most VIV__SHORT
 * bytes) and long. A mask is put together from what is known about each kind; see masks.c. */
#ifndef VIV_HOST_GRAMMAR_TRIE_H
#define VIV_HOST_GRAMMAR_TRIE_H

#include "grammar/grammar.h"

enum { VIV__SHORT = 16 };
enum viv__trie_part { VIV__TRIE_OTHER, VIV__TRIE_PLAIN, VIV__TRIE_LONG = 2, VIV__TRIE_PARTS = 4 };

typedef struct viv__trie_node {
  int32_t skip; /* the first node that is no descendant */
  int32_t first_token;
  uint16_t n_tokens, depth; /* depth 1: a token's first byte */
  uint8_t byte;
} viv__trie_node;

struct viv__token_trie {
  viv__trie_node *nodes;
  int32_t *tokens; /* ids by part and bytes */
  viv_str *text;   /* [n_tokens] */
  char *bytes;
  int32_t n_tokens, depth;
  int32_t part[VIV__TRIE_PARTS + 1]; /* the nodes of part p: part[p] .. part[p + 1] */
  /* Plain tokens by their characters: ids of k + 1 characters at counted[from[k]..from[k + 1]), and
   * the masks of at most 1 .. VIV__SHORT characters, words 64-bit words each. */
  int32_t *counted, *from;
  int32_t most; /* characters; [most + 1] from */
  uint64_t *upto;
  size_t words;
};

viv_str viv__token_trie_text(const viv__token_trie *t, int32_t token);

#endif
