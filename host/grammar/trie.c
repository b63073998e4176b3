/* Building the vocabulary's tries from its sorted texts. */
#include "grammar/trie.h"

#include <stdlib.h>
#include <string.h>

#include "grammar/internal.h"

enum { LONGEST = 4096 }; /* a longer token never passes a grammar */

struct item {
  viv_str text;
  int32_t id, part, characters; /* characters: 0 unless plain */
};

static int by_text(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  if (x->part != y->part) return x->part - y->part;
  size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
  int c = memcmp(x->text.ptr, y->text.ptr, n);
  if (c) return c;
  if (x->text.len != y->text.len) return x->text.len < y->text.len ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}

/* Items from first up to the end of their part; where the next part begins. */
static int32_t build(viv__token_trie *t, const struct item *item, int32_t first, int32_t n,
                     int32_t *n_nodes) {
  int32_t open[LONGEST + 1]; /* the nodes of the present path */
  size_t depth = 0;
  int32_t i = first;
  for (; i < n && item[i].part == item[first].part; i++) {
    viv_str s = item[i].text;
    size_t same = 0;
    while (i > first && same < depth && same < s.len && s.ptr[same] == item[i - 1].text.ptr[same])
      same++;
    for (; depth > same; depth--) t->nodes[open[depth]].skip = *n_nodes;
    while (depth < s.len) {
      viv__trie_node *node = &t->nodes[*n_nodes];
      *node = (viv__trie_node){
          .byte = (uint8_t)s.ptr[depth], .first_token = i, .depth = (uint16_t)(depth + 1)};
      open[++depth] = (*n_nodes)++;
    }
    if (t->nodes[open[depth]].n_tokens < UINT16_MAX) t->nodes[open[depth]].n_tokens++;
    t->tokens[i] = item[i].id;
    if ((int32_t)depth > t->depth) t->depth = (int32_t)depth;
  }
  for (; depth > 0; depth--) t->nodes[open[depth]].skip = *n_nodes;
  return i;
}

/* The plain tokens by their characters. */
static bool count(viv__token_trie *t, const struct item *item, int32_t n) {
  int32_t most = 0, plain = 0;
  for (int32_t i = 0; i < n; i++) {
    if (item[i].characters > most) most = item[i].characters;
    plain += item[i].characters > 0;
  }
  t->most = most;
  t->words = (size_t)(t->n_tokens + 63) / 64;
  t->from = viv__calloc((size_t)most + 2, sizeof *t->from);
  t->counted = viv__malloc((size_t)(plain + 1) * sizeof *t->counted);
  t->upto = viv__calloc(VIV__SHORT * t->words + 1, sizeof *t->upto);
  if (!t->from || !t->counted || !t->upto) return false;
  for (int32_t i = 0; i < n; i++)
    if (item[i].characters) t->from[item[i].characters]++;
  for (int32_t k = 1; k <= most; k++) t->from[k] += t->from[k - 1];
  for (int32_t i = n - 1; i >= 0; i--) /* backwards: from[k] ends where k + 1 characters begin */
    if (item[i].characters) {
      t->counted[--t->from[item[i].characters]] = item[i].id;
      for (int32_t k = item[i].characters - 1; k < VIV__SHORT; k++)
        t->upto[(size_t)k * t->words + (size_t)item[i].id / 64] |= (uint64_t)1 << (item[i].id % 64);
    }
  for (int32_t k = 0; k < most; k++) t->from[k] = t->from[k + 1];
  t->from[most] = plain;
  return true;
}

viv__token_trie *viv__token_trie_new(const viv_str *texts, int32_t n) {
  viv__token_trie *t = viv__calloc(1, sizeof *t);
  struct item *item = viv__malloc((size_t)(n + 1) * sizeof *item);
  size_t total = 0;
  int32_t used = 0, n_nodes = 0;
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
  total = 0;
  for (int32_t i = 0; ok && i < n; i++) {
    if (!texts[i].len || texts[i].len > LONGEST) continue;
    memcpy(t->bytes + total, texts[i].ptr, texts[i].len);
    t->text[i] = (viv_str){t->bytes + total, texts[i].len};
    total += texts[i].len;
    int32_t characters = viv__plain_text(t->text[i]);
    int part = (characters ? VIV__TRIE_PLAIN : VIV__TRIE_OTHER) +
               (texts[i].len > VIV__SHORT ? VIV__TRIE_LONG : 0);
    item[used++] = (struct item){t->text[i], i, part, characters};
  }
  if (!ok || !count(t, item, used)) {
    viv__free(item);
    viv__token_trie_free(t);
    return NULL;
  }
  qsort(item, (size_t)used, sizeof *item, by_text);
  for (int32_t part = 0, at = 0; part < VIV__TRIE_PARTS; part++) {
    t->part[part] = n_nodes;
    if (at < used && item[at].part == part) at = build(t, item, at, used, &n_nodes);
    t->part[part + 1] = n_nodes;
  }
  viv__free(item);
  return t;
}

void viv__token_trie_free(viv__token_trie *t) {
  if (!t) return;
  viv__free(t->nodes);
  viv__free(t->tokens);
  viv__free(t->text);
  viv__free(t->bytes);
  viv__free(t->counted);
  viv__free(t->from);
  viv__free(t->upto);
  viv__free(t);
}

viv_str viv__token_trie_text(const viv__token_trie *t, int32_t token) {
  return token >= 0 && token < t->n_tokens ? t->text[token] : (viv_str){NULL, 0};
}
