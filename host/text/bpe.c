/* BPE: vocabulary and merges of tokenizer.json, and a piece of text to ids.
 *
 * A piece starts as one symbol per character. Candidate merges of neighbours wait in a heap, lowest
 * rank first, leftmost first among equals; symbols form a linked list, so a piece of n characters
 * costs n log n however hostile it is. A candidate that has been overtaken by another merge is seen
 * to be stale when it is taken out. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

static const char place[] = "tokenizer.json, model";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* ---- hashing ---- */

static uint64_t mix(uint64_t a, uint64_t b) {
  unsigned __int128 wide = (unsigned __int128)a * b;
  return (uint64_t)wide ^ (uint64_t)(wide >> 64);
}

static uint64_t hash_u64(uint64_t key) {
  return mix(key ^ 0x9e3779b97f4a7c15u, 0xd6e8feb86659fd93u);
}

static uint64_t hash_text(const char *text, size_t len, uint64_t seed) {
  uint64_t h = seed ^ len, word;
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
  viv__map grown = {viv__calloc(cap, sizeof(uint64_t)), viv__malloc(cap * sizeof(uint64_t)), 0,
                    cap};
  if (!grown.key || !grown.value) {
    viv__map_free(&grown);
    return false;
  }
  for (size_t i = 0; i < m->cap; i++)
    if (m->key[i]) viv__map_put(&grown, m->key[i] - 1, m->value[i]);
  viv__map_free(m);
  *m = grown;
  return true;
}

bool viv__map_put(viv__map *m, uint64_t key, uint64_t value) {
  if (m->n >= m->cap / 2 && !viv__map_reserve(m, m->n + 1)) return false;
  size_t i = hash_u64(key) & (m->cap - 1);
  while (m->key[i] && m->key[i] != key + 1) i = (i + 1) & (m->cap - 1);
  if (!m->key[i]) m->n++;
  m->key[i] = key + 1;
  m->value[i] = value;
  return true;
}

bool viv__map_get(const viv__map *m, uint64_t key, uint64_t *value) {
  if (!m->cap) return false;
  size_t i = hash_u64(key) & (m->cap - 1);
  while (m->key[i] && m->key[i] != key + 1) i = (i + 1) & (m->cap - 1);
  if (!m->key[i]) return false;
  *value = m->value[i];
  return true;
}

void viv__map_free(viv__map *m) {
  viv__free(m->key);
  viv__free(m->value);
  *m = (viv__map){0};
}

/* ---- vocabulary ---- */

/* The slot that holds a spelling, or the free one where it belongs. Half of the hash stands in the
 * slot, so that other spellings are passed over without being read. */
static size_t slot_of(const viv__bpe *bpe, const char *text, size_t len, uint64_t *tag) {
  uint64_t hash = hash_text(text, len, bpe->seed);
  size_t i = hash & (bpe->slots - 1);
  *tag = hash >> 32 << 32;
  for (; bpe->slot[i]; i = (i + 1) & (bpe->slots - 1)) {
    if ((bpe->slot[i] ^ *tag) >> 32) continue;
    const viv__vocab_entry *e = &bpe->entry[(uint32_t)bpe->slot[i] - 1];
    if (e->len == len && !memcmp(e->text, text, len)) break;
  }
  return i;
}

int32_t viv__bpe_find(const viv__bpe *bpe, const char *text, size_t len) {
  uint64_t tag;
  size_t i = slot_of(bpe, text, len, &tag);
  return bpe->slot[i] ? bpe->entry[(uint32_t)bpe->slot[i] - 1].id : -1;
}

static int32_t open_vocab(const cJSON *vocab, viv__bpe *bpe, viv_error *error) {
  if (!cJSON_IsObject(vocab))
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"vocab\" must be an object of token: id");
  size_t n = 0, bytes = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, vocab) {
    n++;
    bytes += strlen(item->string) + 1;
  }
  if (n > (size_t)MAX_TOKEN_ID)
    return VIV_FAIL(error, VIV_NEVER, place, "%zu tokens; at most %d are supported", n,
                    MAX_TOKEN_ID);
  bpe->slots = 16;
  while (bpe->slots < 2 * n) bpe->slots *= 2;
  bpe->pool = viv__malloc(bytes);
  bpe->entry = viv__calloc(n, sizeof *bpe->entry);
  bpe->slot = viv__calloc(bpe->slots, sizeof *bpe->slot);
  if (!bpe->pool || !bpe->entry || !bpe->slot) return no_memory(error);
  bpe->seed = hash_u64(viv__now_ns()); /* so that no file can choose colliding spellings */
  char *at = bpe->pool;
  cJSON_ArrayForEach(item, vocab) {
    double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(id >= 0 && id < MAX_TOKEN_ID) || id != floor(id))
      return VIV_FAIL(error, VIV_BAD_INPUT, place,
                      "the id of token \"%.80s\" is not a whole number from 0 to %d", item->string,
                      MAX_TOKEN_ID - 1);
    size_t len = strlen(item->string);
    uint64_t tag;
    size_t slot = slot_of(bpe, item->string, len, &tag);
    if (bpe->slot[slot]) { /* a key that stands twice: the later one counts */
      bpe->entry[(uint32_t)bpe->slot[slot] - 1].id = (int32_t)id;
      continue;
    }
    memcpy(at, item->string, len + 1);
    bpe->entry[bpe->n] = (viv__vocab_entry){at, (uint32_t)len, (int32_t)id};
    bpe->slot[slot] = tag | ++bpe->n;
    at += len + 1;
  }
  return VIV_OK;
}

/* Tables for what is looked up per character. */
static void index_characters(viv__bpe *bpe) {
  for (unsigned b = 0; b < 256; b++) {
    char name[8];
    int len = snprintf(name, sizeof name, "<0x%02X>", b);
    bpe->byte_id[b] = viv__bpe_find(bpe, name, (size_t)len);
  }
  for (uint32_t cp = 0; cp < 0x180; cp++) {
    char bytes[4];
    bpe->low_id[cp] = viv__bpe_find(bpe, bytes, viv__utf8_put(cp, bytes));
  }
}

/* ---- merges ---- */

/* The two sides of a merge: an array of two strings, or one string with a space. */
static int32_t merge_sides(const cJSON *item, size_t rank, viv_str side[2], viv_error *error) {
  if (cJSON_IsString(item)) {
    char *text = item->valuestring, *space = strchr(text, ' ');
    if (!space || strchr(space + 1, ' '))
      return VIV_FAIL(error, VIV_BAD_INPUT, place, "merge %zu, \"%.80s\", is not two tokens", rank,
                      text);
    side[0] = (viv_str){text, (size_t)(space - text)};
    side[1] = viv__str(space + 1);
    return VIV_OK;
  }
  const cJSON *left = cJSON_IsArray(item) ? item->child : NULL, *right = left ? left->next : NULL;
  if (!cJSON_IsString(left) || !cJSON_IsString(right) || right->next)
    return VIV_FAIL(error, VIV_BAD_INPUT, place,
                    "merge %zu is neither a string \"a b\" nor a list of two strings", rank);
  side[0] = viv__str(left->valuestring);
  side[1] = viv__str(right->valuestring);
  return VIV_OK;
}

/* The entry of a merge's result. Trained vocabularies list the results in the order of the merges,
 * so the entry after the last one found is tried before the hash. */
static const viv__vocab_entry *find_result(const viv__bpe *bpe, size_t next, const char *text,
                                           size_t len) {
  const viv__vocab_entry *e = &bpe->entry[next];
  if (next < bpe->n && e->len == len && !memcmp(e->text, text, len)) return e;
  uint64_t tag, slot = bpe->slot[slot_of(bpe, text, len, &tag)];
  return slot ? &bpe->entry[(uint32_t)slot - 1] : NULL;
}

/* Has the slots of a merge's sides on their way before they are asked for: they lie anywhere in
 * memory, and waiting for them is most of what opening a large vocabulary costs. */
static void fetch_ahead(const viv__bpe *bpe, const cJSON *item) {
  if (!cJSON_IsArray(item)) return;
  for (const cJSON *side = item->child; side; side = side->next) {
    if (!side->valuestring) continue;
    uint64_t hash = hash_text(side->valuestring, strlen(side->valuestring), bpe->seed);
    __builtin_prefetch(&bpe->slot[hash & (bpe->slots - 1)]);
  }
}

static int32_t open_merges(const cJSON *merges, viv__bpe *bpe, viv_error *error) {
  if (!cJSON_IsArray(merges))
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"merges\" must be a list");
  size_t n = 0, rank = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, merges) n++;
  if (!viv__map_reserve(&bpe->merges, n)) return no_memory(error);
  viv__buf joined = {0};
  int32_t status = VIV_OK;
  size_t next = 0;
  const cJSON *ahead = merges->child;
  for (int i = 0; i < 8 && ahead; i++) ahead = ahead->next;
  cJSON_ArrayForEach(item, merges) {
    if (ahead) fetch_ahead(bpe, ahead);
    ahead = ahead ? ahead->next : NULL;
    viv_str side[3] = {{NULL, 0}};
    int32_t id[2];
    status = merge_sides(item, rank, side, error);
    if (status < 0) break;
    joined.len = 0;
    for (int i = 0; i < 2; i++) viv__buf_add(&joined, side[i].ptr, side[i].len);
    if (joined.failed) {
      status = no_memory(error);
      break;
    }
    side[2] = (viv_str){joined.len ? joined.ptr : "", joined.len};
    for (int i = 0; i < 2; i++) id[i] = viv__bpe_find(bpe, side[i].ptr, side[i].len);
    const viv__vocab_entry *made = find_result(bpe, next, side[2].ptr, side[2].len);
    if (id[0] < 0 || id[1] < 0 || !made) {
      viv_str lost = side[id[0] < 0 ? 0 : id[1] < 0 ? 1 : 2];
      status = VIV_FAIL(error, VIV_BAD_INPUT, place,
                        "merge %zu needs the token \"%.*s\", which is not in the vocabulary", rank,
                        (int)(lost.len < 80 ? lost.len : 80), lost.ptr);
      break;
    }
    viv__map_put(&bpe->merges, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1],
                 (uint64_t)rank << 32 | (uint32_t)made->id);
    next = (size_t)(made - bpe->entry) + 1;
    rank++;
  }
  viv__buf_free(&joined);
  return status;
}

static int32_t check_options(const viv_json *model, viv_error *error) {
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (size_t i = 0; i < 2; i++)
    if (*viv__json_text(model, affixes[i], ""))
      return VIV_FAIL(error, VIV_NEVER, place, "\"%s\" is not supported", affixes[i]);
  double dropout = viv__json_num(model, "dropout", 0);
  if (dropout >= 0 && dropout <= 1 && dropout != 0)
    return VIV_FAIL(error, VIV_NEVER, place, "\"dropout\" %g makes encoding random; set it to null",
                    dropout);
  if (dropout != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"dropout\" must lie between 0 and 1");
  return VIV_OK;
}

int32_t viv__bpe_open(const viv_json *model, viv__bpe *bpe, viv_error *error) {
  int32_t status = check_options(model, error);
  if (status < 0) return status;
  bpe->byte_fallback = viv__json_bool(model, "byte_fallback", false);
  bpe->fuse_unk = viv__json_bool(model, "fuse_unk", false);
  bpe->ignore_merges = viv__json_bool(model, "ignore_merges", false);
  status = open_vocab((const cJSON *)viv__json_get(model, "vocab"), bpe, error);
  if (status < 0) return status;
  index_characters(bpe);
  bpe->unk_id = -1;
  viv_str unk = viv__json_string(viv__json_get(model, "unk_token"));
  if (unk.ptr) {
    bpe->unk_id = viv__bpe_find(bpe, unk.ptr, unk.len);
    if (bpe->unk_id < 0)
      return VIV_FAIL(error, VIV_BAD_INPUT, place, "unk_token \"%.80s\" is not in the vocabulary",
                      unk.ptr);
  }
  return open_merges((const cJSON *)viv__json_get(model, "merges"), bpe, error);
}

void viv__bpe_free(viv__bpe *bpe) {
  viv__free(bpe->pool);
  viv__free(bpe->entry);
  viv__free(bpe->slot);
  viv__map_free(&bpe->merges);
}

/* ---- a piece to ids ---- */

void viv__ids_add(viv__ids *ids, int32_t id) {
  if (ids->n == ids->cap) {
    size_t cap = ids->cap ? ids->cap * 2 : 64;
    int32_t *grown = ids->failed ? NULL : viv__realloc(ids->ptr, cap * sizeof *grown);
    if (!grown) {
      ids->failed = true;
      return;
    }
    ids->ptr = grown;
    ids->cap = cap;
  }
  ids->ptr[ids->n++] = id;
}

typedef struct symbol {
  int32_t id;         /* -1: merged into its left neighbour */
  int32_t prev, next; /* -1: none */
} symbol;

typedef struct candidate {
  uint32_t rank;
  int32_t at; /* the left symbol */
  int32_t id; /* what the merge would give */
} candidate;

static bool comes_first(const candidate *a, const candidate *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(candidate *heap, size_t *n, candidate c) {
  size_t i = (*n)++;
  while (i && comes_first(&c, &heap[(i - 1) / 2])) {
    heap[i] = heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  heap[i] = c;
}

static candidate heap_pop(candidate *heap, size_t *n) {
  candidate top = heap[0], last = heap[--*n];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < *n) {
    if (child + 1 < *n && comes_first(&heap[child + 1], &heap[child])) child++;
    if (!comes_first(&heap[child], &last)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = last;
  return top;
}

/* Adds the merge of symbols at and its right neighbour, if there is one. */
static void propose(const viv__bpe *bpe, const symbol *s, int32_t at, candidate *heap, size_t *n) {
  uint64_t value, key;
  if (at < 0 || s[at].next < 0) return;
  key = (uint64_t)(uint32_t)s[at].id << 32 | (uint32_t)s[s[at].next].id;
  if (viv__map_get(&bpe->merges, key, &value))
    heap_push(heap, n, (candidate){(uint32_t)(value >> 32), at, (int32_t)(uint32_t)value});
}

/* The symbols of a piece, at most one per byte. A character that is not in the vocabulary becomes
 * its bytes if all of them are tokens, else the unknown token (fused with a neighbouring one if the
 * file says so), else nothing. As in the library a waiting unknown token comes out after the bytes
 * that follow it. */
static size_t first_symbols(const viv__bpe *bpe, const char *text, size_t len, symbol *s) {
  size_t n = 0;
  bool unk = false;
  for (size_t i = 0; i < len;) {
    size_t start = i;
    uint32_t cp = viv__cp(text, &i);
    int32_t id = cp < 0x180 ? bpe->low_id[cp] : viv__bpe_find(bpe, text + start, i - start);
    if (id >= 0) {
      if (unk) s[n++].id = bpe->unk_id;
      unk = false;
      s[n++].id = id;
      continue;
    }
    bool bytes = bpe->byte_fallback;
    for (size_t k = start; k < i && bytes; k++) bytes = bpe->byte_id[(unsigned char)text[k]] >= 0;
    if (bytes) {
      for (size_t k = start; k < i; k++) s[n++].id = bpe->byte_id[(unsigned char)text[k]];
    } else if (bpe->unk_id >= 0) {
      if (unk && !bpe->fuse_unk) s[n++].id = bpe->unk_id;
      unk = true;
    }
  }
  if (unk) s[n++].id = bpe->unk_id;
  for (size_t i = 0; i < n; i++) {
    s[i].prev = (int32_t)i - 1;
    s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
  }
  return n;
}

static bool room(void **p, size_t *cap, size_t need, size_t size) {
  if (need <= *cap) return true;
  size_t more = need < 256 ? 256 : need + need / 2;
  void *grown = viv__realloc(*p, more * size);
  if (!grown) return false;
  *p = grown;
  *cap = more;
  return true;
}

void viv__bpe_encode(const viv__bpe *bpe, const char *text, size_t len, viv__bpe_work *work,
                     viv__ids *ids) {
  if (!len || ids->failed) return;
  if (bpe->ignore_merges) {
    int32_t whole = viv__bpe_find(bpe, text, len);
    if (whole >= 0) {
      viv__ids_add(ids, whole);
      return;
    }
  }
  /* Each merge takes one symbol and adds at most two candidates to the first len - 1. */
  if (len > INT32_MAX / 4 || !room(&work->symbol, &work->symbols, len, sizeof(symbol)) ||
      !room(&work->heap, &work->heaps, 3 * len, sizeof(candidate))) {
    ids->failed = true;
    return;
  }
  symbol *s = work->symbol;
  candidate *heap = work->heap;
  size_t n = first_symbols(bpe, text, len, s), waiting = 0;
  for (size_t i = 0; i + 1 < n; i++) propose(bpe, s, (int32_t)i, heap, &waiting);
  while (waiting) {
    candidate c = heap_pop(heap, &waiting);
    symbol *left = &s[c.at];
    if (left->id < 0 || left->next < 0) continue;
    symbol *right = &s[left->next];
    uint64_t value, key = (uint64_t)(uint32_t)left->id << 32 | (uint32_t)right->id;
    if (!viv__map_get(&bpe->merges, key, &value) || (int32_t)(uint32_t)value != c.id) continue;
    left->id = c.id;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) s[left->next].prev = c.at;
    propose(bpe, s, left->prev, heap, &waiting);
    propose(bpe, s, c.at, heap, &waiting);
  }
  for (int32_t i = n ? 0 : -1; i >= 0; i = s[i].next) viv__ids_add(ids, s[i].id);
}

void viv__bpe_work_free(viv__bpe_work *work) {
  viv__free(work->symbol);
  viv__free(work->heap);
}
