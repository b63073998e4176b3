/* "model" of tokenizer.json: a piece to ids. Pieces repeat, so what a text's
 * pieces became is remembered while it is encoded. */
#include "text/text.h"

#include <string.h>

static const char where[] = "tokenizer.json, model";

/* ---- lists ---- */

void viv__parts_add(viv__parts *p, viv__part part) {
  if (p->n == p->cap) {
    size_t cap = p->cap ? p->cap * 2 : 64;
    viv__part *grown = p->failed ? NULL : viv__realloc(p->item, cap * sizeof *grown);
    if (!grown) {
      p->failed = true;
      return;
    }
    p->item = grown;
    p->cap = cap;
  }
  p->item[p->n++] = part;
}

void viv__parts_free(viv__parts *p) {
  viv__free(p->item);
  *p = (viv__parts){0};
}

bool viv__room(void **p, size_t *cap, size_t need, size_t size) {
  if (need <= *cap) return true;
  size_t more = need < 256 ? 256 : need + need / 2;
  void *grown = viv__realloc(*p, more * size);
  if (!grown) return false;
  *p = grown;
  *cap = more;
  return true;
}

/* ---- opening ---- */

/* Files of before 2020 don't name the type; as in the library what is there
 * tells. */
static const char *guess_type(const viv_json *node) {
  if (viv__json_get(node, "merges")) return "BPE";
  if (viv__json_type(viv__json_get(node, "vocab")) == VIV_JSON_ARRAY) return "Unigram";
  if (viv__json_get(node, "max_input_chars_per_word")) return "WordPiece";
  return viv__json_get(node, "unk_token") ? "WordLevel" : "";
}

int32_t viv__text_model_open(const viv_json *node, viv__text_model *m, viv_error *error) {
  static const struct {
    const char *name;
    int kind;
    int32_t (*open)(const viv_json *, viv__text_model *, viv_error *);
  } kinds[] = {
      {"BPE", MODEL_BPE, viv__bpe_open},
      {"Unigram", MODEL_UNIGRAM, viv__unigram_open},
      {"WordPiece", MODEL_WORDPIECE, viv__wordpiece_open},
      {"WordLevel", MODEL_WORDLEVEL, viv__wordpiece_open},
  };
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json", "has no object \"model\"");
  const char *type = viv__json_text(node, "type", guess_type(node));
  for (size_t i = 0; i < 4; i++) {
    if (strcmp(kinds[i].name, type)) continue;
    m->kind = kinds[i].kind;
    return kinds[i].open(node, m, error);
  }
  return VIV_FAIL(error, VIV_NEVER, where,
                  "the type \"%.60s\" is not known; expected BPE, Unigram, "
                  "WordPiece or WordLevel",
                  type);
}

void viv__text_model_free(viv__text_model *m) {
  viv__vocab_free(&m->vocab);
  viv__map_free(&m->bpe.merges);
  viv__free(m->bpe.prefix);
  viv__free(m->bpe.suffix);
  viv__trie_free(&m->trie);
  viv__free(m->unigram.score);
  viv__free(m->wordpiece.prefix);
  viv__free(m->wordpiece.unk);
}

/* ---- pieces seen before ---- */

enum { MAX_CACHED = 1 << 16, MAX_KEY = 128 };

typedef struct cell {
  uint64_t hash;
  uint32_t key_at, key_len, part_at, parts; /* key_len 0: free */
} cell;

struct viv__cache {
  cell *cell;
  size_t cap, n;
  viv__buf keys;
  viv__parts parts;
};

static cell *cell_of(const struct viv__cache *c, viv_str key, uint64_t hash) {
  size_t i = hash & (c->cap - 1);
  for (; c->cell[i].key_len; i = (i + 1) & (c->cap - 1)) {
    const cell *k = &c->cell[i];
    if (k->hash == hash && k->key_len == key.len &&
        !memcmp(c->keys.ptr + k->key_at, key.ptr, key.len))
      break;
  }
  return &c->cell[i];
}

static bool grow_cache(struct viv__cache *c) {
  size_t cap = c->cap ? c->cap * 4 : 64;
  cell *old = c->cell, *grown = viv__calloc(cap, sizeof *grown);
  if (!grown) return false;
  for (size_t i = 0; i < c->cap; i++) {
    size_t k = old[i].hash & (cap - 1);
    if (!old[i].key_len) continue;
    while (grown[k].key_len) k = (k + 1) & (cap - 1);
    grown[k] = old[i];
  }
  viv__free(old);
  c->cell = grown;
  c->cap = cap;
  return true;
}

/* Remembers the parts from `from` on for a piece. Without memory it is
 * forgotten, no more. */
static void remember(struct viv__cache *c, viv_str key, uint64_t hash, const viv__parts *parts,
                     size_t from) {
  if (c->n >= MAX_CACHED || c->keys.failed || c->parts.failed) return;
  if (c->n >= c->cap / 2 && !grow_cache(c)) return;
  size_t key_at = c->keys.len, part_at = c->parts.n;
  viv__buf_add(&c->keys, key.ptr, key.len);
  for (size_t i = from; i < parts->n; i++) viv__parts_add(&c->parts, parts->item[i]);
  if (c->keys.failed || c->parts.failed) return;
  *cell_of(c, key, hash) = (cell){hash, (uint32_t)key_at, (uint32_t)key.len, (uint32_t)part_at,
                                  (uint32_t)(parts->n - from)};
  c->n++;
}

void viv__model_work_free(viv__model_work *work) {
  viv__free(work->symbol);
  viv__free(work->heap);
  viv__free(work->node);
  viv__buf_free(&work->word);
  if (work->cache) {
    viv__free(work->cache->cell);
    viv__buf_free(&work->cache->keys);
    viv__parts_free(&work->cache->parts);
    viv__free(work->cache);
  }
}

/* ---- encoding ---- */

static int32_t encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                      viv__parts *parts, const char **why) {
  if (m->kind == MODEL_UNIGRAM) return viv__unigram_encode(m, piece, work, parts, why);
  if (m->kind != MODEL_BPE) return viv__wordpiece_encode(m, piece, work, parts, why);
  if (m->bpe.unk_id == -2) *why = "a character has no token, and neither has \"unk_token\"";
  size_t before = parts->n;
  viv__bpe_encode(m, piece, work, parts);
  for (size_t i = before; i < parts->n && m->bpe.unk_id == -2; i++)
    if (parts->item[i].id == -2) return VIV_BAD_INPUT;
  return VIV_OK;
}

int32_t viv__text_model_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                               viv__parts *parts, const char **why) {
  if (!piece.len || parts->failed) return VIV_OK;
  if (piece.len > MAX_KEY || m->kind == MODEL_WORDLEVEL) return encode(m, piece, work, parts, why);
  if (!work->cache) work->cache = viv__calloc(1, sizeof *work->cache);
  struct viv__cache *c = work->cache;
  uint64_t hash = viv__hash_text(piece.ptr, piece.len, m->vocab.seed);
  const cell *known = c && c->cap ? cell_of(c, piece, hash) : NULL;
  if (known && known->key_len) {
    for (uint32_t i = 0; i < known->parts; i++)
      viv__parts_add(parts, c->parts.item[known->part_at + i]);
    return VIV_OK;
  }
  size_t before = parts->n;
  int32_t status = encode(m, piece, work, parts, why);
  if (c && status == VIV_OK && !parts->failed) remember(c, piece, hash, parts, before);
  return status;
}
