/* Spellings and their ids, and tries over spellings. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

enum { MAX_SPELLING = 2048 }; /* bytes of a token; what the models walk from each place of a text */

/* ---- hashing ---- */

static uint64_t mix(uint64_t a, uint64_t b) {
  __extension__ typedef unsigned __int128 wide;
  wide product = (wide)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t viv__hash_u64(uint64_t x) {
  return mix(x ^ 0x9e3779b97f4a7c15u, 0xd6e8feb86659fd93u);
}

uint64_t viv__hash_text(const char *text, size_t len, uint64_t seed) {
  uint64_t h = seed ^ len * 0x9e3779b97f4a7c15u, word;
  for (; len >= 8; text += 8, len -= 8) {
    memcpy(&word, text, 8);
    h = mix(h ^ word, 0x9e3779b97f4a7c15u);
  }
  word = 0;
  memcpy(&word, text, len);
  return mix(h ^ word, 0xd6e8feb86659fd93u);
}

bool viv__map_reserve(viv__map *m, size_t n) {
  size_t cap = 16;
  while (cap / 2 < n) cap *= 2;
  if (cap <= m->cap) return true;
  viv__map grown = {viv__calloc(cap, sizeof(viv__slot)), 0, cap};
  if (!grown.slot) return false;
  for (size_t i = 0; i < m->cap; i++)
    if (m->slot[i].key) viv__map_put(&grown, m->slot[i].key - 1, m->slot[i].value);
  viv__map_free(m);
  *m = grown;
  return true;
}

bool viv__map_put(viv__map *m, uint64_t key, uint64_t value) {
  if (m->n >= m->cap / 2 && !viv__map_reserve(m, m->n + 1)) return false;
  size_t i = viv__hash_u64(key) & (m->cap - 1);
  while (m->slot[i].key && m->slot[i].key != key + 1) i = (i + 1) & (m->cap - 1);
  if (!m->slot[i].key) m->n++;
  m->slot[i] = (viv__slot){key + 1, value};
  return true;
}

bool viv__map_get(const viv__map *m, uint64_t key, uint64_t *value) {
  if (!m->cap) return false;
  size_t i = viv__hash_u64(key) & (m->cap - 1);
  while (m->slot[i].key && m->slot[i].key != key + 1) i = (i + 1) & (m->cap - 1);
  if (!m->slot[i].key) return false;
  *value = m->slot[i].value;
  return true;
}

void viv__map_free(viv__map *m) {
  viv__free(m->slot);
  *m = (viv__map){0};
}

/* ---- vocabulary ---- */

/* The slot that holds a spelling, or the free one where it belongs. Half of the
 * hash stands in the slot, so that other spellings are passed over without
 * being read. */
static size_t slot_of(const viv__vocab *v, const char *text, size_t len, uint64_t *tag) {
  uint64_t hash = viv__hash_text(text, len, v->seed);
  size_t i = hash & (v->slots - 1);
  *tag = hash >> 32 << 32;
  for (; v->slot[i]; i = (i + 1) & (v->slots - 1)) {
    if ((v->slot[i] ^ *tag) >> 32) continue;
    const viv__vocab_entry *e = &v->entry[(uint32_t)v->slot[i] - 1];
    if (e->len == len && !memcmp(e->text, text, len)) break;
  }
  return i;
}

const viv__vocab_entry *viv__vocab_entry_of(const viv__vocab *v, const char *text, size_t len) {
  uint64_t tag, slot = v->slot[slot_of(v, text, len, &tag)];
  return slot ? &v->entry[(uint32_t)slot - 1] : NULL;
}

int32_t viv__vocab_find(const viv__vocab *v, const char *text, size_t len) {
  const viv__vocab_entry *e = viv__vocab_entry_of(v, text, len);
  return e ? e->id : -1;
}

void viv__vocab_prefetch(const viv__vocab *v, const char *text, size_t len) {
  __builtin_prefetch(&v->slot[viv__hash_text(text, len, v->seed) & (v->slots - 1)]);
}

static int32_t reserve(viv__vocab *v, size_t n, size_t bytes, const char *where, viv_error *error) {
  if (n > (size_t)MAX_TOKEN_ID)
    return VIV_FAIL(error, VIV_NEVER, where, "%zu tokens; at most %d are supported", n,
                    MAX_TOKEN_ID);
  v->slots = 16;
  while (v->slots < 2 * n) v->slots *= 2;
  v->pool = viv__malloc(bytes + 1);
  v->entry = viv__calloc(n + 1, sizeof *v->entry);
  v->slot = viv__calloc(v->slots, sizeof *v->slot);
  v->seed = viv__hash_u64(viv__now_ns()); /* so that no file can choose colliding spellings */
  if (!v->pool || !v->entry || !v->slot)
    return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
  return VIV_OK;
}

/* Adds a spelling; *at is where the pool goes on. Of two equal ones the later is found; in a list the
 * earlier keeps its id too. */
static int32_t add(viv__vocab *v, const char *text, size_t len, int32_t id, bool list, char **at,
                   const char *where, viv_error *error) {
  uint64_t tag;
  if (len > MAX_SPELLING)
    return VIV_FAIL(error, VIV_NEVER, where, "token %d, \"%.40s...\", has %zu bytes; at most %d",
                    (int)id, text, len, MAX_SPELLING);
  size_t slot = slot_of(v, text, len, &tag);
  if (v->slot[slot] && !list) {
    v->entry[(uint32_t)v->slot[slot] - 1].id = id;
    return VIV_OK;
  }
  memcpy(*at, text, len);
  (*at)[len] = 0;
  v->entry[v->n] = (viv__vocab_entry){*at, (uint32_t)len, id};
  v->slot[slot] = tag | ++v->n;
  *at += len + 1;
  return VIV_OK;
}

int32_t viv__vocab_open(const viv_json *node, const char *where, viv__vocab *v, viv_error *error) {
  const cJSON *vocab = (const cJSON *)node, *item;
  if (!cJSON_IsObject(vocab))
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"vocab\" must be an object of token: id");
  size_t n = 0, bytes = 0;
  cJSON_ArrayForEach(item, vocab) {
    n++;
    bytes += strlen(item->string) + 1;
  }
  int32_t status = reserve(v, n, bytes, where, error);
  char *at = v->pool;
  if (status < 0) return status;
  cJSON_ArrayForEach(item, vocab) {
    double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(id >= 0 && id < MAX_TOKEN_ID) || id != floor(id))
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "the id of token \"%.80s\" is not a whole number from 0 to %d", item->string,
                      MAX_TOKEN_ID - 1);
    status = add(v, item->string, strlen(item->string), (int32_t)id, false, &at, where, error);
    if (status < 0) return status;
  }
  v->size = v->n;
  return VIV_OK;
}

int32_t viv__vocab_list(const viv_str *text, size_t n, const char *where, viv__vocab *v,
                        viv_error *error) {
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) bytes += text[i].len + 1;
  int32_t status = reserve(v, n, bytes, where, error);
  char *at = v->pool;
  v->size = n;
  for (size_t i = 0; i < n && status >= 0; i++)
    status = add(v, text[i].ptr, text[i].len, (int32_t)i, true, &at, where, error);
  return status;
}

void viv__vocab_free(viv__vocab *v) {
  viv__free(v->pool);
  viv__free(v->entry);
  viv__free(v->slot);
  *v = (viv__vocab){0};
}

void viv__vocab_bytes(const viv__vocab *v, int32_t id[256]) {
  for (unsigned b = 0; b < 256; b++) {
    char name[8];
    int len = snprintf(name, sizeof name, "<0x%02X>", b);
    id[b] = viv__vocab_find(v, name, (size_t)len);
  }
}

/* ---- tries ---- */

bool viv__trie_put(viv__trie *t, const char *text, size_t len, uint64_t value, bool overwrite) {
  uint64_t node = 0, next, taken;
  for (size_t i = 0; i < len; i++, node = next) {
    unsigned char byte = (unsigned char)text[i];
    uint64_t edge = node << 8 | byte;
    if (!i && (next = t->root[byte])) continue;
    if (i && viv__map_get(&t->edge, edge, &next)) continue;
    next = ++t->nodes;
    if (!i)
      t->root[byte] = (uint32_t)next;
    else if (!viv__map_put(&t->edge, edge, next))
      return false;
  }
  if (!overwrite && viv__map_get(&t->end, node, &taken)) return true;
  return viv__map_put(&t->end, node, value);
}

bool viv__trie_step(const viv__trie *t, uint64_t *node, unsigned char byte, bool *ends,
                    uint64_t *value) {
  uint64_t next = 0;
  if (!*node)
    next = t->root[byte];
  else if (!viv__map_get(&t->edge, *node << 8 | byte, &next))
    return false;
  if (!next) return false;
  *node = next;
  *ends = viv__map_get(&t->end, next, value);
  return true;
}

void viv__trie_free(viv__trie *t) {
  viv__map_free(&t->edge);
  viv__map_free(&t->end);
}
