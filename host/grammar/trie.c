/* Building the vocabulary's trie from its sorted texts. */
#include "grammar/trie.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = 4096 }; /* a longer token never passes a grammar */

struct item {
  viv_str text;
  int32_t id;
};

static int by_text(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
  int c = memcmp(x->text.ptr, y->text.ptr, n);
  if (c) return c;
  if (x->text.len != y->text.len) return x->text.len < y->text.len ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

static void build(viv__token_trie *t, const struct item *item, int32_t n) {
  int32_t open[LONGEST + 1]; /* the nodes of the present path */
  size_t depth = 0;
  for (int32_t i = 0; i < n; i++) {
    viv_str s = item[i].text;
    size_t same = 0;
    while (i && same < depth && same < s.len && s.ptr[same] == item[i - 1].text.ptr[same]) same++;
    for (; depth > same; depth--) t->nodes[open[depth]].skip = t->n_nodes;
    while (depth < s.len) {
      viv__trie_node *node = &t->nodes[t->n_nodes];
      *node = (viv__trie_node){
          .byte = (uint8_t)s.ptr[depth], .first_token = i, .depth = (uint16_t)(depth + 1)};
      open[++depth] = t->n_nodes++;
    }
    if (t->nodes[open[depth]].n_tokens < UINT16_MAX) t->nodes[open[depth]].n_tokens++;
    t->tokens[i] = item[i].id;
    if ((int32_t)depth > t->depth) t->depth = (int32_t)depth;
  }
  for (; depth > 0; depth--) t->nodes[open[depth]].skip = t->n_nodes;
}

viv__token_trie *viv__token_trie_new(const viv_str *texts, int32_t n) {
  viv__token_trie *t = viv__calloc(1, sizeof *t);
  struct item *item = viv__malloc((size_t)(n + 1) * sizeof *item);
  size_t total = 0;
  int32_t used = 0;
  for (int32_t i = 0; i < n; i++) total += texts[i].len <= LONGEST ? texts[i].len : 0;
  bool ok = t && item && total < INT32_MAX;
  if (ok) {
    t->nodes = viv__malloc((total + 1) * sizeof *t->nodes);
    t->tokens = viv__malloc((size_t)(n + 1) * sizeof *t->tokens);
    t->text = viv__calloc((size_t)n + 1, sizeof *t->text);
    t->bytes = viv__malloc(total + 1);
    t->n_tokens = n;
    ok = t->nodes && t->tokens && t->text && t->bytes;
  }
  if (!ok) {
    viv__free(item);
    viv__token_trie_free(t);
    return NULL;
  }
  total = 0;
  for (int32_t i = 0; i < n; i++) {
    if (!texts[i].len || texts[i].len > LONGEST) continue;
    memcpy(t->bytes + total, texts[i].ptr, texts[i].len);
    t->text[i] = (viv_str){t->bytes + total, texts[i].len};
    total += texts[i].len;
    item[used++] = (struct item){t->text[i], i};
  }
  qsort(item, (size_t)used, sizeof *item, by_text);
  build(t, item, used);
  viv__free(item);
  return t;
}

void viv__token_trie_free(viv__token_trie *t) {
  if (!t) return;
  viv__free(t->nodes);
  viv__free(t->tokens);
  viv__free(t->text);
  viv__free(t->bytes);
  viv__free(t);
}

viv_str viv__token_trie_text(const viv__token_trie *t, int32_t token) {
  return token >= 0 && token < t->n_tokens ? t->text[token] : (viv_str){NULL, 0};
}
