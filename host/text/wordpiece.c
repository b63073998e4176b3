/* WordPiece: the longest token that a word begins with, then the longest that
 * goes on, and so forth; a word that can't be spelled so is the unknown token.
 * WordLevel: a piece is a token or unknown. */
#include "text/text.h"

#include <string.h>

static const char place[] = "tokenizer.json, model";

int32_t viv__wordpiece_open(const viv_json *node, viv__text_model *m, viv_error *error) {
  viv__wordpiece *w = &m->wordpiece;
  bool word = m->kind == MODEL_WORDPIECE;
  double most = 0;
  int32_t status = viv__string_member(node, "unk_token", place, &w->unk, &w->unk_len, error);
  if (status >= 0 && word)
    status = viv__string_member(node, "continuing_subword_prefix", place, &w->prefix,
                                &w->prefix_len, error);
  if (status >= 0 && word)
    status = viv__count_member(node, "max_input_chars_per_word", place, 1e18, -1, &most, error);
  if (status >= 0) status = viv__vocab_open(viv__json_get(node, "vocab"), place, &m->vocab, error);
  if (status < 0) return status;
  w->max_characters = (size_t)most;
  w->unk_id = viv__vocab_find(&m->vocab, w->unk, w->unk_len);
  for (size_t i = 0; i < m->vocab.n && word; i++) {
    const viv__vocab_entry *e = &m->vocab.entry[i];
    if (e->len && !viv__trie_put(&m->trie, e->text, e->len, (uint64_t)e->id, true))
      return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
  }
  return VIV_OK;
}

/* The longest token at piece[at]: its end, or at. */
static size_t longest(const viv__text_model *m, viv_str piece, size_t at, int32_t *id) {
  const viv__wordpiece *w = &m->wordpiece;
  uint64_t node = 0, value = 0;
  bool ends = false;
  size_t end = at;
  for (size_t i = 0; at && i < w->prefix_len; i++)
    if (!viv__trie_step(&m->trie, &node, (unsigned char)w->prefix[i], &ends, &value)) return at;
  for (size_t i = at; i < piece.len; i++) {
    if (!viv__trie_step(&m->trie, &node, (unsigned char)piece.ptr[i], &ends, &value)) break;
    if (!ends) continue;
    end = i + 1;
    *id = (int32_t)value;
  }
  return end;
}

static bool spell(const viv__text_model *m, viv_str piece, viv__parts *parts) {
  size_t characters = 0, before = parts->n;
  for (size_t i = 0; i < piece.len; characters++) i += viv__cp_len(piece.ptr[i]);
  if (characters > m->wordpiece.max_characters) return false;
  for (size_t at = 0, end; at < piece.len; at = end) {
    int32_t id = -1;
    end = longest(m, piece, at, &id);
    if (end == at) {
      parts->n = before;
      return false;
    }
    viv__parts_add(parts, (viv__part){id, (uint32_t)at, (uint32_t)end, false});
  }
  return true;
}

int32_t viv__wordpiece_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                              viv__parts *parts, const char **why) {
  const viv__wordpiece *w = &m->wordpiece;
  (void)work;
  if (m->kind == MODEL_WORDPIECE && spell(m, piece, parts)) return VIV_OK;
  int32_t id = m->kind == MODEL_WORDLEVEL ? viv__vocab_find(&m->vocab, piece.ptr, piece.len) : -1;
  if (id < 0) id = w->unk_id;
  if (id < 0) {
    *why = "a word has no token, and \"unk_token\" is not in the vocabulary";
    return VIV_BAD_INPUT;
  }
  viv__parts_add(parts, (viv__part){id, 0, (uint32_t)piece.len, false});
  return VIV_OK;
}
