/* BPE: vocabulary and merges of tokenizer.json, a piece to ids. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char place[] = "tokenizer.json, model";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* Tables for what is looked up per character. */
static void index_characters(viv__text_model *m) {
  viv__vocab_bytes(&m->vocab, m->bpe.byte_id);
  for (uint32_t cp = 0; cp < 0x180; cp++) {
    char bytes[4];
    m->bpe.low_id[cp] = viv__vocab_find(&m->vocab, bytes, viv__utf8_put(cp, bytes));
  }
}

/* ---- merges ---- */

/* The two sides of a merge: an array of two strings, or one string with a
 * space. */
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

/* The entry of a merge's result. Trained vocabularies list the results in the
 * order of the merges, so the entry after the last one found is tried before
 * the hash. */
static const viv__vocab_entry *find_result(const viv__vocab *v, size_t next, const char *text,
                                           size_t len) {
  const viv__vocab_entry *e = &v->entry[next];
  if (next < v->n && e->len == len && !memcmp(e->text, text, len)) return e;
  return viv__vocab_entry_of(v, text, len);
}

/* Has the slots of a merge's sides on their way before they are asked for: they
 * lie anywhere in memory, and waiting for them is most of what opening a large
 * vocabulary costs. */
static void fetch_ahead(const viv__vocab *v, const cJSON *item) {
  if (!cJSON_IsArray(item)) return;
  for (const cJSON *side = item->child; side; side = side->next) {
    if (!side->valuestring) continue;
    viv__vocab_prefetch(v, side->valuestring, strlen(side->valuestring));
  }
}

static int32_t open_merges(const cJSON *merges, viv__text_model *m, viv_error *error) {
  if (!cJSON_IsArray(merges))
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"merges\" must be a list");
  const viv__vocab *v = &m->vocab;
  size_t n = 0, rank = 0, cut = m->bpe.prefix_len;
  const cJSON *item;
  cJSON_ArrayForEach(item, merges) n++;
  if (!viv__map_reserve(&m->bpe.merges, n)) return no_memory(error);
  viv__buf joined = {0};
  int32_t status = VIV_OK;
  size_t next = 0;
  const cJSON *ahead = merges->child;
  for (int i = 0; i < 8 && ahead; i++) ahead = ahead->next;
  cJSON_ArrayForEach(item, merges) {
    if (ahead) fetch_ahead(v, ahead);
    ahead = ahead ? ahead->next : NULL;
    viv_str side[3] = {{NULL, 0}};
    int32_t id[2];
    status = merge_sides(item, rank, side, error);
    if (status < 0) break;
    joined.len = 0;
    /* The right side loses the prefix that marks it as a continuation. */
    size_t lost_bytes = side[1].len < cut ? side[1].len : cut;
    viv__buf_add(&joined, side[0].ptr, side[0].len);
    viv__buf_add(&joined, side[1].ptr + lost_bytes, side[1].len - lost_bytes);
    if (joined.failed) {
      status = no_memory(error);
      break;
    }
    side[2] = (viv_str){joined.len ? joined.ptr : "", joined.len};
    for (int i = 0; i < 2; i++) id[i] = viv__vocab_find(v, side[i].ptr, side[i].len);
    const viv__vocab_entry *made = find_result(v, next, side[2].ptr, side[2].len);
    if (id[0] < 0 || id[1] < 0 || !made) {
      viv_str lost = side[id[0] < 0 ? 0 : id[1] < 0 ? 1 : 2];
      status = VIV_FAIL(error, VIV_BAD_INPUT, place,
                        "merge %zu needs the token \"%.*s\", which is not in the vocabulary", rank,
                        (int)(lost.len < 80 ? lost.len : 80), lost.ptr);
      break;
    }
    viv__map_put(&m->bpe.merges, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1],
                 (uint64_t)rank << 32 | (uint32_t)made->id);
    next = (size_t)(made - v->entry) + 1;
    rank++;
  }
  viv__buf_free(&joined);
  return status;
}

/* ---- scores ---- */

typedef struct scored {
  double score;
  const viv__vocab_entry *entry;
} scored;

static int by_score(const void *a, const void *b) {
  double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* Each way to put a token together of two others is a merge; tokens of equal
 * scores rank equally. */
static bool add_ways(viv__text_model *m, const viv__vocab_entry *e, uint64_t rank) {
  for (size_t cut = viv__cp_len(e->text[0]); cut < e->len; cut += viv__cp_len(e->text[cut])) {
    int32_t left = viv__vocab_find(&m->vocab, e->text, cut);
    int32_t right = viv__vocab_find(&m->vocab, e->text + cut, e->len - cut);
    if (left < 0 || right < 0) continue;
    if (!viv__map_put(&m->bpe.merges, (uint64_t)(uint32_t)left << 32 | (uint32_t)right,
                      rank << 32 | (uint32_t)e->id))
      return false;
  }
  return true;
}

/* "scores", a list by id, in place of "merges": sentencepiece's BPE, which
 * merges the pair whose result has the highest score. No part of the library's
 * format; the files that stand in for a sentencepiece model are written with
 * it. null: a token that no merge makes. */
static int32_t open_scores(const cJSON *list, viv__text_model *m, viv_error *error) {
  size_t n = 0, given = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0, i = 0;
  const cJSON *item;
  double *score = viv__malloc((given + 1) * sizeof *score);
  scored *order = viv__malloc((m->vocab.n + 1) * sizeof *order);
  int32_t status = score && order ? VIV_OK : no_memory(error);
  if (status >= 0 && !cJSON_IsArray(list))
    status = VIV_FAIL(error, VIV_BAD_INPUT, place, "\"scores\" must be a list");
  cJSON_ArrayForEach(item, list) {
    if (status < 0) break;
    if (!cJSON_IsNumber(item) && !cJSON_IsNull(item))
      status = VIV_FAIL(error, VIV_BAD_INPUT, place, "score %zu is neither a number nor null", i);
    score[i++] = cJSON_IsNumber(item) ? item->valuedouble : NAN;
  }
  for (i = 0; i < m->vocab.n && status >= 0; i++) {
    const viv__vocab_entry *e = &m->vocab.entry[i];
    if ((size_t)e->id < given && e->len && !isnan(score[e->id]))
      order[n++] = (scored){score[e->id], e};
  }
  if (status >= 0) qsort(order, n, sizeof *order, by_score);
  uint64_t rank = 0;
  for (i = 0; i < n && status >= 0; i++) {
    if (i && order[i].score < order[i - 1].score) rank++;
    if (!add_ways(m, order[i].entry, rank)) status = no_memory(error);
  }
  viv__free(score);
  viv__free(order);
  return status;
}

/* An affix of characters: absent, null and "" are none. */
static int32_t open_affix(const viv_json *model, const char *key, char **out, size_t *len,
                          viv_error *error) {
  int32_t type = viv__json_type(viv__json_get(model, key));
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  int32_t status = viv__string_member(model, key, place, out, len, error);
  if (status >= 0 && !*len) {
    viv__free(*out);
    *out = NULL;
  }
  return status;
}

static int32_t open_options(const viv_json *model, viv__bpe *bpe, viv_error *error) {
  const viv_json *given = viv__json_get(model, "dropout");
  double dropout = viv__json_num(model, "dropout", 0);
  int32_t type = viv__json_type(given);
  if ((type != VIV_JSON_ABSENT && type != VIV_JSON_NULL && type != VIV_JSON_NUMBER) ||
      !(dropout >= 0 && dropout <= 1))
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"dropout\" must lie between 0 and 1");
  if (dropout != 0)
    return VIV_FAIL(error, VIV_NEVER, place, "\"dropout\" %g makes encoding random; set it to null",
                    dropout);
  int32_t status =
      open_affix(model, "continuing_subword_prefix", &bpe->prefix, &bpe->prefix_len, error);
  if (status >= 0)
    status = open_affix(model, "end_of_word_suffix", &bpe->suffix, &bpe->suffix_len, error);
  if (status >= 0)
    status = viv__flag_member(model, "byte_fallback", place, 0, &bpe->byte_fallback, error);
  if (status >= 0) status = viv__flag_member(model, "fuse_unk", place, 0, &bpe->fuse_unk, error);
  if (status >= 0)
    status = viv__flag_member(model, "ignore_merges", place, 0, &bpe->ignore_merges, error);
  return status;
}

int32_t viv__bpe_open(const viv_json *model, viv__text_model *m, viv_error *error) {
  int32_t status = open_options(model, &m->bpe, error);
  if (status >= 0) status = viv__vocab_open(viv__json_get(model, "vocab"), place, &m->vocab, error);
  if (status < 0) return status;
  index_characters(m);
  const viv_json *unk = viv__json_get(model, "unk_token");
  viv_str name = viv__json_string(unk);
  m->bpe.unk_id = -1;
  if (name.ptr) {
    /* The library misses the token only when a text needs it. */
    m->bpe.unk_id = viv__vocab_find(&m->vocab, name.ptr, name.len);
    if (m->bpe.unk_id < 0) m->bpe.unk_id = -2;
  } else if (viv__json_type(unk) != VIV_JSON_ABSENT && viv__json_type(unk) != VIV_JSON_NULL) {
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"unk_token\" must be a string or null");
  }
  const cJSON *merges = (const cJSON *)viv__json_get(model, "merges"),
              *scores = (const cJSON *)viv__json_get(model, "scores");
  return scores && !merges ? open_scores(scores, m, error) : open_merges(merges, m, error);
}

/* ---- a piece to ids ---- */

typedef struct symbol {
  int32_t id;         /* SYMBOL_GONE: merged into its left neighbour */
  int32_t prev, next; /* -1: none */
  uint32_t len;       /* bytes of the piece */
} symbol;

enum { SYMBOL_GONE = -1 };

enum { SHORT_PIECE = 24 }; /* symbols */

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

/* The symbols of a piece under construction. */
typedef struct maker {
  const viv__text_model *m;
  symbol *s;
  size_t n;
  bool unk; /* an unknown token waits: as in the library it comes out after the
               bytes behind it */
  uint32_t unk_len;
} maker;

static void put(maker *k, int32_t id, size_t len) {
  k->s[k->n] = (symbol){id, (int32_t)k->n - 1, (int32_t)k->n + 1, (uint32_t)len};
  k->n++;
}

static void put_unknown(maker *k) {
  if (k->unk) put(k, k->m->bpe.unk_id, k->unk_len);
  k->unk = false;
}

/* A character that is not in the vocabulary becomes its bytes if all of them
 * are tokens, else the unknown token (fused with a neighbouring one if the file
 * says so), else nothing. text: with its affixes; len: without. */
static void put_strange(maker *k, const char *text, size_t bytes, size_t len) {
  const viv__bpe *bpe = &k->m->bpe;
  bool all = bpe->byte_fallback;
  for (size_t i = 0; i < bytes && all; i++) all = bpe->byte_id[(unsigned char)text[i]] >= 0;
  if (all) {
    for (size_t i = 0; i < bytes; i++) put(k, bpe->byte_id[(unsigned char)text[i]], 1);
  } else if (bpe->unk_id != -1) {
    if (k->unk && !bpe->fuse_unk) put_unknown(k);
    k->unk_len = (uint32_t)(k->unk ? k->unk_len + len : len);
    k->unk = true;
  }
}

/* A character with the affixes that its place asks for. */
static viv_str with_affixes(const viv__bpe *bpe, viv_str ch, bool first, bool last,
                            viv__buf *word) {
  word->len = 0;
  if (!first) viv__buf_add(word, bpe->prefix, bpe->prefix_len);
  viv__buf_add(word, ch.ptr, ch.len);
  if (last) viv__buf_add(word, bpe->suffix, bpe->suffix_len);
  return (viv_str){word->failed ? "" : word->ptr, word->failed ? 0 : word->len};
}

static void first_symbols(maker *k, viv_str piece, viv__buf *word) {
  const viv__bpe *bpe = &k->m->bpe;
  bool affixes = bpe->prefix || bpe->suffix;
  for (size_t i = 0; i < piece.len;) {
    size_t start = i;
    uint32_t cp = viv__cp(piece.ptr, &i);
    viv_str ch = {piece.ptr + start, i - start};
    if (affixes) ch = with_affixes(bpe, ch, !start, i == piece.len, word);
    int32_t id =
        cp < 0x180 && !affixes ? bpe->low_id[cp] : viv__vocab_find(&k->m->vocab, ch.ptr, ch.len);
    if (id < 0) {
      put_strange(k, ch.ptr, ch.len, i - start);
      continue;
    }
    put_unknown(k);
    put(k, id, i - start);
  }
  put_unknown(k);
  if (k->n) k->s[k->n - 1].next = -1;
}

/* Merges the pair of lowest rank, the leftmost of equals, until no pair is
 * left. */
static void merge_all(const viv__bpe *bpe, symbol *s, size_t n, candidate *heap) {
  size_t waiting = 0;
  for (size_t i = 0; i + 1 < n; i++) propose(bpe, s, (int32_t)i, heap, &waiting);
  while (waiting) {
    candidate c = heap_pop(heap, &waiting);
    symbol *left = &s[c.at];
    if (left->id == SYMBOL_GONE || left->next < 0) continue;
    symbol *right = &s[left->next];
    uint64_t value, key = (uint64_t)(uint32_t)left->id << 32 | (uint32_t)right->id;
    if (!viv__map_get(&bpe->merges, key, &value) || (int32_t)(uint32_t)value != c.id) continue;
    left->id = c.id;
    left->len += right->len;
    left->next = right->next;
    right->id = SYMBOL_GONE;
    if (left->next >= 0) s[left->next].prev = c.at;
    propose(bpe, s, left->prev, heap, &waiting);
    propose(bpe, s, c.at, heap, &waiting);
  }
}

/* Short pieces are searched for their best pair anew each time, which needs no
 * heap. */
static void merge_short(const viv__bpe *bpe, symbol *s, size_t n) {
  uint64_t best[SHORT_PIECE];
  for (size_t i = 0; i + 1 < n; i++)
    if (!viv__map_get(&bpe->merges, (uint64_t)(uint32_t)s[i].id << 32 | (uint32_t)s[i + 1].id,
                      &best[i]))
      best[i] = UINT64_MAX;
  while (n > 1) {
    size_t at = 0;
    for (size_t i = 1; i + 1 < n; i++)
      if (best[i] >> 32 < best[at] >> 32) at = i;
    if (best[at] == UINT64_MAX) break;
    s[at].id = (int32_t)(uint32_t)best[at];
    s[at].len += s[at + 1].len;
    n--;
    for (size_t i = at + 1; i < n; i++) s[i] = s[i + 1];
    for (size_t i = at + 1; i + 1 < n; i++) best[i] = best[i + 1];
    for (size_t i = at ? at - 1 : 0; i <= at && i + 1 < n; i++)
      if (!viv__map_get(&bpe->merges, (uint64_t)(uint32_t)s[i].id << 32 | (uint32_t)s[i + 1].id,
                        &best[i]))
        best[i] = UINT64_MAX;
  }
  for (size_t i = 0; i < n; i++) s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
}

void viv__bpe_encode(const viv__text_model *m, viv_str piece, viv__model_work *work,
                     viv__parts *parts) {
  const viv__bpe *bpe = &m->bpe;
  if (bpe->ignore_merges) {
    int32_t whole = viv__vocab_find(&m->vocab, piece.ptr, piece.len);
    if (whole >= 0) {
      viv__parts_add(parts, (viv__part){whole, 0, (uint32_t)piece.len, false});
      return;
    }
  }
  /* Each character has its affixes' bytes at most besides its own. Each merge
   * takes one symbol and adds at most two candidates to the first ones. */
  size_t most = piece.len + (bpe->prefix_len ? piece.len * bpe->prefix_len : 0) + bpe->suffix_len;
  if (most > INT32_MAX / 4 || !viv__room(&work->symbol, &work->symbols, most, sizeof(symbol))) {
    parts->failed = true;
    return;
  }
  maker k = {.m = m, .s = work->symbol};
  first_symbols(&k, piece, &work->word);
  if (k.n <= SHORT_PIECE) {
    merge_short(bpe, k.s, k.n);
  } else if (viv__room(&work->heap, &work->heaps, 3 * k.n, sizeof(candidate))) {
    merge_all(bpe, k.s, k.n, work->heap);
  } else {
    parts->failed = true;
  }
  parts->failed |= work->word.failed;
  uint32_t at = 0;
  for (int32_t i = k.n ? 0 : -1; i >= 0; i = k.s[i].next) {
    viv__parts_add(parts, (viv__part){k.s[i].id, at, at + k.s[i].len, false});
    at += k.s[i].len;
  }
}
