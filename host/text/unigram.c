/* Unigram: the most probable way to spell a piece (Kudo 2018,
 * arXiv:1804.10959), found by Viterbi as sentencepiece's optimised encoder
 * does: a character that no token spells costs the lowest score less 10, and
 * neighbouring ones are one unknown token. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

static const char place[] = "tokenizer.json, model";

/* The best path that ends at a byte. */
typedef struct best {
  double score;
  int32_t id;
  int32_t start; /* -1: none */
} best;

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* [[token, score], ...] as spellings and scores. */
static int32_t read_list(const cJSON *list, viv_str *text, double *score, viv_error *error) {
  const cJSON *item;
  size_t i = 0;
  cJSON_ArrayForEach(item, list) {
    const cJSON *token = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *number = token ? token->next : NULL;
    if (!cJSON_IsString(token) || !cJSON_IsNumber(number) || number->next)
      return VIV_FAIL(error, VIV_BAD_INPUT, place,
                      "entry %zu of \"vocab\" is not a list of a token and its score", i);
    text[i] = viv__str(token->valuestring);
    score[i++] = number->valuedouble;
  }
  return VIV_OK;
}

static int32_t open_list(const viv_json *node, viv__text_model *m, viv_error *error) {
  const cJSON *list = (const cJSON *)viv__json_get(node, "vocab");
  if (!cJSON_IsArray(list))
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"vocab\" must be a list of [token, score]");
  size_t n = (size_t)cJSON_GetArraySize(list);
  viv_str *text = viv__calloc(n + 1, sizeof *text);
  m->unigram.score = viv__calloc(n + 1, sizeof *m->unigram.score);
  int32_t status =
      text && m->unigram.score ? read_list(list, text, m->unigram.score, error) : no_memory(error);
  if (status >= 0) status = viv__vocab_list(text, n, place, &m->vocab, error);
  viv__free(text);
  double lowest = INFINITY;
  for (size_t i = 0; i < n && status >= 0; i++)
    if (m->unigram.score[i] < lowest) lowest = m->unigram.score[i];
  m->unigram.unk_score = lowest - 10;
  for (size_t i = 0; i < m->vocab.n && status >= 0; i++) {
    const viv__vocab_entry *e = &m->vocab.entry[i];
    if (!i && !viv__map_reserve(&m->trie.end, m->vocab.n)) status = no_memory(error);
    if (e->len && !viv__trie_put(&m->trie, e->text, e->len, (uint64_t)e->id, true))
      status = no_memory(error);
  }
  if (status < 0) return status;
  viv__vocab_bytes(&m->vocab, m->unigram.byte_id);
  return VIV_OK;
}

int32_t viv__unigram_open(const viv_json *node, viv__text_model *m, viv_error *error) {
  viv__unigram *u = &m->unigram;
  int32_t status = viv__flag_member(node, "byte_fallback", place, 0, &u->byte_fallback, error);
  if (status >= 0) status = open_list(node, m, error);
  if (status < 0) return status;
  const viv_json *unk = viv__json_get(node, "unk_id");
  double id = -1, n = (double)viv__json_count(viv__json_get(node, "vocab"));
  if (viv__json_type(unk) != VIV_JSON_ABSENT && viv__json_type(unk) != VIV_JSON_NULL) {
    id = viv__json_number(unk);
    if (viv__json_type(unk) != VIV_JSON_NUMBER || !(id >= 0 && id < n) || id != floor(id))
      return VIV_FAIL(error, VIV_BAD_INPUT, place,
                      "\"unk_id\" must be one of the %.0f entries of \"vocab\"", n);
  }
  u->unk_id = (int32_t)id;
  return VIV_OK;
}

static void reach(best *to, double score, int32_t id, size_t start) {
  if (to->start >= 0 && !(score > to->score)) return;
  *to = (best){score, id, (int32_t)start};
}

/* Fills the table of best paths; false: an unknown character, and no unknown
 * token. */
static bool walk(const viv__text_model *m, viv_str piece, best *node) {
  const viv__unigram *u = &m->unigram;
  for (size_t at = 0; at < piece.len;) {
    size_t len = viv__cp_len(piece.ptr[at]);
    double here = node[at].score;
    bool single = false, ends;
    uint64_t state = 0, value;
    for (size_t i = at; i < piece.len; i++) {
      if (!viv__trie_step(&m->trie, &state, (unsigned char)piece.ptr[i], &ends, &value)) break;
      if (!ends) continue;
      reach(&node[i + 1], u->score[value] + here, (int32_t)value, at);
      single |= i + 1 - at == len;
    }
    if (!single) {
      if (u->unk_id < 0) return false;
      reach(&node[at + len], u->unk_score + here, u->unk_id, at);
    }
    at += len;
  }
  return true;
}

/* What one token's place becomes: the token, its bytes, or the unknown token.
 */
static bool put(const viv__text_model *m, viv_str piece, size_t start, size_t end,
                viv__parts *parts) {
  const viv__unigram *u = &m->unigram;
  int32_t id = viv__vocab_find(&m->vocab, piece.ptr + start, end - start);
  bool bytes = id < 0 && u->byte_fallback;
  for (size_t i = start; i < end && bytes; i++)
    bytes = u->byte_id[(unsigned char)piece.ptr[i]] >= 0;
  if (bytes) {
    for (size_t i = start; i < end; i++)
      viv__parts_add(parts, (viv__part){u->byte_id[(unsigned char)piece.ptr[i]], (uint32_t)start,
                                        (uint32_t)end, false});
    return true;
  }
  if (id < 0 && u->unk_id < 0) return false;
  viv__parts_add(parts,
                 (viv__part){id >= 0 ? id : u->unk_id, (uint32_t)start, (uint32_t)end, id < 0});
  return true;
}

int32_t viv__unigram_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                            viv__parts *parts, const char **why) {
  const viv__unigram *u = &m->unigram;
  if (piece.len >= INT32_MAX ||
      !viv__room(&work->node, &work->nodes, piece.len + 1, sizeof(best))) {
    parts->failed = true;
    return VIV_OK;
  }
  best *node = work->node;
  for (size_t i = 0; i <= piece.len; i++) node[i] = (best){0, 0, -1};
  bool ok = walk(m, piece, node);
  /* Back to front: each node's start becomes the end of the one before; a run
   * of unknown ones is one. Then the links are turned, so that the parts come
   * in order. */
  size_t end = piece.len;
  int32_t id = ok ? node[end].id : 0;
  while (ok && end > 0) {
    size_t start = (size_t)node[end].start;
    if (id == u->unk_id)
      while (start > 0 && node[start].id == u->unk_id) start = (size_t)node[start].start;
    id = node[start].id;
    node[start].id = (int32_t)end;
    end = start;
  }
  for (size_t at = 0; ok && at < piece.len; at = (size_t)node[at].id)
    ok = put(m, piece, at, (size_t)node[at].id, parts);
  if (ok) return VIV_OK;
  *why = "a character has no token, and \"unk_id\" is null";
  return VIV_BAD_INPUT;
}
