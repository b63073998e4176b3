/* The paged key/value cache: see nn.h for what it promises.
 *
 * A page is one block: a header with its count of owners, page_tokens rows of keys, page_tokens
 * rows of values. run->k[i] and run->v[i] point into it; what attention gets is a view of these
 * two arrays. Pages and arrays come from a pool of free lists over the model's arena. */
#include "nn/nn.h"

#include <string.h>

enum { HEADER = 64, FIRST_TABLE = 8, MAX_SEQS = 1 << 20 };

typedef struct page {
  uint32_t owners;
} page;

static uint64_t round64(uint64_t n) {
  return (n + 63) / 64 * 64;
}
static int64_t min64(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int32_t no_memory(viv_error *error, const char *what) {
  return nn_fail(error, VIV_NOT_NOW, what,
                 "the model's memory budget is used up: close or truncate sequences, or try later");
}

/* ---- pool ---- */

static void *pool_get(nn_pool *p, uint64_t bytes) {
  bytes = round64(bytes ? bytes : 1);
  for (size_t i = 0; i < sizeof p->list / sizeof *p->list; i++) {
    if (p->list[i].bytes != bytes || !p->list[i].free) continue;
    void *block = p->list[i].free;
    memcpy(&p->list[i].free, block, sizeof(void *));
    return block;
  }
  return p->arena ? p->host->arena_alloc(p->arena, bytes) : NULL;
}

/* Blocks of more than 64 different sizes would be lost until the model is closed; tables grow by
 * doubling and pages have a few sizes, so that there are not that many. */
static void pool_put(nn_pool *p, void *block, uint64_t bytes) {
  if (!block) return;
  bytes = round64(bytes ? bytes : 1);
  for (size_t i = 0; i < sizeof p->list / sizeof *p->list; i++) {
    if (!p->list[i].bytes) p->list[i].bytes = bytes;
    if (p->list[i].bytes != bytes) continue;
    memcpy(block, &p->list[i].free, sizeof(void *));
    p->list[i].free = block;
    return;
  }
}

/* ---- pages ---- */

static uint64_t k_part(const nn_kv *kv, int32_t layer) {
  return round64((uint64_t)kv->layer[layer].k_bytes * (uint64_t)kv->page_tokens);
}
static uint64_t page_bytes(const nn_kv *kv, int32_t layer) {
  return HEADER + k_part(kv, layer) +
         round64((uint64_t)kv->layer[layer].v_bytes * (uint64_t)kv->page_tokens);
}
static bool counts_only(const nn_kv *kv, int32_t layer) {
  return kv->layer[layer].k_bytes + kv->layer[layer].v_bytes == 0;
}
static page *page_of(void *k) {
  return (page *)(void *)((char *)k - HEADER);
}

static void page_drop(nn_kv *kv, int32_t layer, nn_kv_run *run, int64_t i) {
  if (!run->k[i]) return;
  page *p = page_of(run->k[i]);
  if (--p->owners == 0) pool_put(&kv->pool, p, page_bytes(kv, layer));
  run->k[i] = run->v[i] = NULL;
}

/* Page i exists and belongs to this run alone. false: no memory, nothing changed. */
static bool page_own(nn_kv *kv, int32_t layer, nn_kv_run *run, int64_t i) {
  page *old = run->k[i] ? page_of(run->k[i]) : NULL;
  if (old && old->owners == 1) return true;
  page *p = pool_get(&kv->pool, page_bytes(kv, layer));
  if (!p) return false;
  if (old) {
    memcpy(p, old, page_bytes(kv, layer));
    old->owners--;
  }
  p->owners = 1;
  run->k[i] = (char *)p + HEADER;
  run->v[i] = (char *)p + HEADER + k_part(kv, layer);
  return true;
}

static void table_view(nn_kv_run *run) {
  run->pages.k = (const void *const *)run->k;
  run->pages.v = (const void *const *)run->v;
}

/* Room for `pages` pages in the run's two arrays. */
static bool table_grow(nn_kv *kv, nn_kv_run *run, int64_t pages) {
  if (pages <= run->cap) return true;
  int64_t cap = run->cap ? run->cap : FIRST_TABLE;
  while (cap < pages) cap *= 2;
  uint64_t bytes = (uint64_t)cap * sizeof(void *), old = (uint64_t)run->cap * sizeof(void *);
  void **k = pool_get(&kv->pool, bytes), **v = k ? pool_get(&kv->pool, bytes) : NULL;
  if (!v) {
    pool_put(&kv->pool, k, bytes);
    return false;
  }
  memset(k, 0, bytes);
  memset(v, 0, bytes);
  if (run->cap) {
    memcpy(k, run->k, old);
    memcpy(v, run->v, old);
    pool_put(&kv->pool, run->k, old);
    pool_put(&kv->pool, run->v, old);
  }
  run->k = k;
  run->v = v;
  run->cap = cap;
  table_view(run);
  return true;
}

/* Lets go of all pages but those of tokens [begin, end). */
static void keep_only(nn_kv *kv, int32_t layer, nn_kv_run *run, int64_t begin, int64_t end) {
  int64_t P = kv->page_tokens;
  for (int64_t i = run->first / P; i < run->cap; i++)
    if (i < begin / P || i >= (end + P - 1) / P) page_drop(kv, layer, run, i);
}

/* ---- sequences ---- */

void nn_kv_init(nn_kv *kv, const viv_host *host, viv_arena *arena, const nn_kv_layer *layers,
                int32_t n_layers, int32_t page_tokens, int64_t slack, int64_t context_max,
                uint64_t state_bytes) {
  memset(kv, 0, sizeof *kv);
  kv->pool.host = host;
  kv->pool.arena = arena;
  kv->layer = layers;
  kv->n_layers = n_layers;
  kv->page_tokens = page_tokens;
  kv->slack = slack;
  kv->context_max = context_max;
  kv->state_bytes = state_bytes;
  kv->dtype = VIV_F32;
}

void nn_kv_plan(const nn_kv *kv, uint64_t *fixed, uint64_t *per_token) {
  uint64_t P = (uint64_t)kv->page_tokens;
  *fixed = sizeof(nn_kv_seq) + (uint64_t)kv->n_layers * sizeof(nn_kv_run);
  *fixed += round64(kv->state_bytes);
  *per_token = 0;
  for (int32_t l = 0; l < kv->n_layers; l++) {
    if (counts_only(kv, l)) continue;
    /* The last page is half empty; a window holds its tokens, the slack, a page at either end. */
    uint64_t pages = 1, bytes = page_bytes(kv, l);
    if (kv->layer[l].window > 0)
      pages = ((uint64_t)kv->layer[l].window + (uint64_t)kv->slack) / P + 2;
    else
      *per_token += (bytes + P - 1) / P + 4 * sizeof(void *) / P + 1;
    *fixed += pages * bytes + 2 * FIRST_TABLE * sizeof(void *);
  }
}

nn_kv_seq *nn_kv_get(const nn_kv *kv, int32_t seq) {
  if (seq < 0 || seq >= kv->n_seqs || !kv->seq[seq]->open) return NULL;
  return kv->seq[seq];
}

static int64_t longest(const nn_kv *kv, const nn_kv_seq *s) {
  int64_t len = 0;
  for (int32_t l = 0; l < kv->n_layers; l++) len = max64(len, s->run[l].len);
  return len;
}

int64_t nn_kv_len(const nn_kv *kv, int32_t seq) {
  const nn_kv_seq *s = nn_kv_get(kv, seq);
  return s ? longest(kv, s) : -1;
}

static int32_t no_seq(viv_error *error, int32_t seq) {
  return nn_fail(error, VIV_BAD_INPUT, "sequence", "there is no sequence %d", (int)seq);
}

/* A new slot in kv->seq, with its runs and state block. NULL: no memory. */
static nn_kv_seq *seq_new(nn_kv *kv) {
  int32_t n = kv->n_seqs;
  if (n == MAX_SEQS) return NULL;
  if ((n & (n - 1)) == 0) { /* a power of two (or none): the array is full */
    uint64_t old = (uint64_t)n * sizeof *kv->seq, bytes = n ? 2 * old : sizeof *kv->seq;
    nn_kv_seq **grown = pool_get(&kv->pool, bytes);
    if (!grown) return NULL;
    if (n) {
      memcpy(grown, kv->seq, old);
      pool_put(&kv->pool, kv->seq, old);
    }
    kv->seq = grown;
  }
  uint64_t runs = (uint64_t)kv->n_layers * sizeof(nn_kv_run), head = round64(sizeof(nn_kv_seq));
  char *block = pool_get(&kv->pool, head + runs);
  void *state = block && kv->state_bytes ? pool_get(&kv->pool, kv->state_bytes) : NULL;
  if (!block || (kv->state_bytes && !state)) {
    pool_put(&kv->pool, block, head + runs);
    return NULL;
  }
  memset(block, 0, head + runs);
  nn_kv_seq *s = (nn_kv_seq *)(void *)block;
  s->run = (nn_kv_run *)(void *)(block + head);
  s->state = state;
  kv->seq[kv->n_seqs++] = s;
  return s;
}

int32_t nn_kv_open(nn_kv *kv, int32_t *seq, viv_error *error) {
  int32_t id = 0;
  while (id < kv->n_seqs && kv->seq[id]->open) id++;
  nn_kv_seq *s = id < kv->n_seqs ? kv->seq[id] : seq_new(kv);
  if (!s) return no_memory(error, "seq_open");
  s->open = true;
  s->tag = 0;
  s->last_base = 0;
  if (s->state) memset(s->state, 0, kv->state_bytes);
  *seq = id;
  return VIV_OK;
}

static void empty(nn_kv *kv, nn_kv_seq *s) {
  for (int32_t l = 0; l < kv->n_layers; l++) {
    keep_only(kv, l, &s->run[l], 0, 0);
    s->run[l].len = s->run[l].first = 0;
  }
  nn_kv_keep(kv, s, NULL, 0);
}

void nn_kv_close(nn_kv *kv, int32_t seq) {
  nn_kv_seq *s = nn_kv_get(kv, seq);
  if (!s) return;
  empty(kv, s);
  s->open = false;
}

void nn_kv_swap(nn_kv *kv, int32_t a, int32_t b) {
  nn_kv_seq *s = kv->seq[a];
  kv->seq[a] = kv->seq[b];
  kv->seq[b] = s;
}

/* Blocks have sizes of powers of two, so that batches of different lengths share them. */
static uint64_t block_size(uint64_t bytes) {
  uint64_t size = 4096;
  while (size < bytes) size *= 2;
  return size;
}

void *nn_kv_block(nn_kv *kv, uint64_t bytes) {
  return pool_get(&kv->pool, block_size(bytes));
}

void nn_kv_block_free(nn_kv *kv, void *block, uint64_t bytes) {
  pool_put(&kv->pool, block, block_size(bytes));
}

void nn_kv_keep(nn_kv *kv, nn_kv_seq *s, void *block, uint64_t bytes) {
  nn_kv_block_free(kv, s->kept, s->kept_bytes);
  s->kept = block;
  s->kept_bytes = bytes;
}

/* ---- tokens ---- */

int32_t nn_kv_reserve(nn_kv *kv, nn_kv_seq *s, int32_t layer, int64_t begin, int64_t end,
                      viv_error *error) {
  if (counts_only(kv, layer) || begin >= end) return VIV_OK;
  nn_kv_run *run = &s->run[layer];
  int64_t P = kv->page_tokens;
  if (!table_grow(kv, run, (end + P - 1) / P)) return no_memory(error, "cache");
  for (int64_t i = begin / P; i < (end + P - 1) / P; i++)
    if (!page_own(kv, layer, run, i)) return no_memory(error, "cache");
  return VIV_OK;
}

void *nn_kv_k(const nn_kv *kv, const nn_kv_seq *s, int32_t layer, int64_t token) {
  return (char *)s->run[layer].k[token / kv->page_tokens] +
         token % kv->page_tokens * kv->layer[layer].k_bytes;
}

void *nn_kv_v(const nn_kv *kv, const nn_kv_seq *s, int32_t layer, int64_t token) {
  return (char *)s->run[layer].v[token / kv->page_tokens] +
         token % kv->page_tokens * kv->layer[layer].v_bytes;
}

void nn_kv_commit(nn_kv *kv, nn_kv_seq *s, int32_t layer, int64_t base, int64_t len) {
  nn_kv_run *run = &s->run[layer];
  run->len = max64(run->len, len);
  int64_t window = kv->layer[layer].window, P = kv->page_tokens;
  if (!window) return;
  /* The row at the last batch's first token, or `slack` tokens back, still finds its window. */
  int64_t needed = min64(base, run->len - kv->slack) - window + 1;
  if (needed / P * P <= run->first) return;
  keep_only(kv, layer, run, needed, run->len);
  run->first = needed / P * P;
}

/* The token from which on a row at position len - 1 or later needs keys. */
static int64_t window_begin(const nn_kv *kv, int32_t layer, int64_t len) {
  int64_t window = kv->layer[layer].window;
  return window ? max64(0, len - window + 1) : 0;
}

int32_t nn_kv_truncate(nn_kv *kv, int32_t seq, int64_t len, viv_error *error) {
  nn_kv_seq *s = nn_kv_get(kv, seq);
  if (!s) return no_seq(error, seq);
  if (len < 0 || len > longest(kv, s))
    return nn_fail(error, VIV_BAD_INPUT, "seq_truncate", "length %lld of a sequence of %lld tokens",
                   (long long)len, (long long)longest(kv, s));
  for (int32_t l = 0; len && l < kv->n_layers; l++) {
    const nn_kv_run *run = &s->run[l];
    if (run->len > len && window_begin(kv, l, len) < run->first)
      return nn_fail(error, VIV_NEVER, "seq_truncate",
                     "layer %d looks back %lld tokens and has let go of those before token %lld: "
                     "it can't go back to length %lld (fork or snapshot the sequence earlier)",
                     (int)l, (long long)kv->layer[l].window, (long long)run->first, (long long)len);
  }
  for (int32_t l = 0; l < kv->n_layers; l++) {
    nn_kv_run *run = &s->run[l];
    if (run->len <= len) continue;
    run->len = len;
    if (!len) run->first = 0;
    keep_only(kv, l, run, run->first, len);
  }
  s->last_base = min64(s->last_base, len);
  return VIV_OK;
}

int32_t nn_kv_gather(nn_kv *kv, int32_t seq, int64_t base, const int32_t *index, int32_t n,
                     viv_error *error) {
  nn_kv_seq *s = nn_kv_get(kv, seq);
  if (!s) return no_seq(error, seq);
  int64_t len = longest(kv, s);
  if (base < 0 || base > len || n < 0 || (n && !index))
    return nn_fail(error, VIV_BAD_INPUT, "seq_gather", "base %lld and %d indices of %lld tokens",
                   (long long)base, (int)n, (long long)len);
  for (int32_t i = 0; i < n; i++)
    if (index[i] < (i ? index[i - 1] + 1 : 0) || base + index[i] >= len)
      return nn_fail(error, VIV_BAD_INPUT, "seq_gather",
                     "index[%d] is %d: they must ascend and lie within the %lld tokens after %lld",
                     (int)i, (int)index[i], (long long)(len - base), (long long)base);
  for (int32_t l = 0; l < kv->n_layers; l++) {
    const nn_kv_run *run = &s->run[l];
    if (run->len <= base) continue;
    if (n && base + index[n - 1] >= run->len)
      return nn_fail(error, VIV_BAD_INPUT, "seq_gather",
                     "layer %d holds only %lld tokens, because a batch left it out", (int)l,
                     (long long)run->len);
    if (window_begin(kv, l, base + n) < run->first || base < run->first)
      return nn_fail(error, VIV_NEVER, "seq_gather",
                     "layer %d has let go of the tokens before %lld, which its window needs",
                     (int)l, (long long)run->first);
  }
  for (int32_t l = 0; l < kv->n_layers; l++) {
    if (s->run[l].len <= base) continue;
    int32_t rc = nn_kv_reserve(kv, s, l, base, base + n, error);
    if (rc < 0) return rc;
  }
  for (int32_t l = 0; l < kv->n_layers; l++) {
    nn_kv_run *run = &s->run[l];
    if (run->len <= base) continue;
    for (int32_t i = 0; i < n && !counts_only(kv, l); i++) {
      if (index[i] == i) continue;
      memcpy(nn_kv_k(kv, s, l, base + i), nn_kv_k(kv, s, l, base + index[i]),
             (size_t)kv->layer[l].k_bytes);
      memcpy(nn_kv_v(kv, s, l, base + i), nn_kv_v(kv, s, l, base + index[i]),
             (size_t)kv->layer[l].v_bytes);
    }
    run->len = base + n;
    keep_only(kv, l, run, run->first, run->len);
  }
  s->last_base = min64(s->last_base, base);
  return VIV_OK;
}

int32_t nn_kv_fork(nn_kv *kv, int32_t seq, int32_t *out, viv_error *error) {
  if (!nn_kv_get(kv, seq)) return no_seq(error, seq);
  int32_t copy;
  int32_t rc = nn_kv_open(kv, &copy, error);
  if (rc < 0) return rc;
  nn_kv_seq *from = kv->seq[seq], *to = kv->seq[copy];
  int64_t P = kv->page_tokens;
  for (int32_t l = 0; l < kv->n_layers; l++)
    if (!counts_only(kv, l) && !table_grow(kv, &to->run[l], (from->run[l].len + P - 1) / P)) {
      nn_kv_close(kv, copy);
      return no_memory(error, "seq_fork");
    }
  for (int32_t l = 0; l < kv->n_layers; l++) {
    nn_kv_run *a = &from->run[l], *b = &to->run[l];
    b->len = a->len;
    b->first = a->first;
    if (counts_only(kv, l)) continue;
    for (int64_t i = a->first / P; i < (a->len + P - 1) / P; i++) {
      b->k[i] = a->k[i];
      b->v[i] = a->v[i];
      if (a->k[i]) page_of(a->k[i])->owners++;
    }
  }
  to->tag = from->tag;
  to->last_base = from->last_base;
  if (kv->state_bytes) memcpy(to->state, from->state, kv->state_bytes);
  *out = copy;
  return VIV_OK;
}

void nn_kv_put(const nn_kv *kv, const viv_compute *c, const nn_kv_seq *s, int32_t layer,
               const int64_t *slot, int64_t rows, const float *k, const float *v) {
  int64_t element = kv->dtype == VIV_F32 ? 4 : 2;
  int64_t k_width = kv->layer[layer].k_bytes / element;
  int64_t v_width = kv->layer[layer].v_bytes / element;
  for (int64_t r = 0; r < rows; r++) {
    c->store(c, kv->dtype, k + r * k_width, nn_kv_k(kv, s, layer, slot[r]), k_width);
    c->store(c, kv->dtype, v + r * v_width, nn_kv_v(kv, s, layer, slot[r]), v_width);
  }
}

void nn_kv_read(const nn_kv *kv, const viv_compute *c, const nn_kv_seq *s, int32_t layer,
                bool values, int64_t begin, int64_t end, int64_t heads, int64_t dim, float *out) {
  int64_t element = kv->dtype == VIV_F32 ? 4 : 2;
  for (int64_t t = begin; t < end; t++) {
    const char *row = values ? nn_kv_v(kv, s, layer, t) : nn_kv_k(kv, s, layer, t);
    for (int64_t h = 0; h < heads; h++)
      c->load(c, kv->dtype, row + h * dim * element, out + (h * (end - begin) + t - begin) * dim,
              dim);
  }
}

/* ---- snapshots ---- */

/* Little-endian, as everything here. The header, then per layer a line, then the state, then per
 * layer keys and values of tokens [first, len). */
typedef struct snap_header {
  char magic[8];
  uint32_t version;
  uint32_t dtype;
  uint64_t bytes;    /* of everything */
  uint64_t checksum; /* of everything after the header */
  uint64_t state_bytes;
  int64_t last_base;
  int32_t n_layers;
  int32_t tag;
} snap_header;

typedef struct snap_layer {
  int64_t k_bytes, v_bytes, window, first, len;
} snap_layer;

static const char snap_magic[8] = {'V', 'I', 'V', 'S', 'E', 'Q', 0, 1};

/* FNV-1a over 8-byte words, then the rest: finds damage, not forgery. */
static uint64_t checksum(const char *data, uint64_t n) {
  uint64_t h = 0xcbf29ce484222325u, word;
  for (; n >= 8; n -= 8, data += 8) {
    memcpy(&word, data, 8);
    h = (h ^ word) * 0x100000001b3u;
    h ^= h >> 29;
  }
  for (; n; n--, data++) h = (h ^ (unsigned char)*data) * 0x100000001b3u;
  return h;
}

static uint64_t snap_bytes(const nn_kv *kv, const nn_kv_seq *s) {
  uint64_t n = sizeof(snap_header) + (uint64_t)kv->n_layers * sizeof(snap_layer) + kv->state_bytes;
  for (int32_t l = 0; l < kv->n_layers; l++)
    n += (uint64_t)(s->run[l].len - s->run[l].first) *
         (uint64_t)(kv->layer[l].k_bytes + kv->layer[l].v_bytes);
  return n;
}

int32_t nn_kv_snapshot(const nn_kv *kv, int32_t seq, void *data, uint64_t capacity, uint64_t *bytes,
                       viv_error *error) {
  const nn_kv_seq *s = nn_kv_get(kv, seq);
  if (!s) return no_seq(error, seq);
  uint64_t need = snap_bytes(kv, s);
  *bytes = need;
  if (!data || capacity < need) return VIV_OK; /* the caller compares *bytes with its capacity */
  snap_header head = {.version = 1,
                      .dtype = (uint32_t)kv->dtype,
                      .bytes = need,
                      .state_bytes = kv->state_bytes,
                      .last_base = s->last_base,
                      .n_layers = kv->n_layers,
                      .tag = s->tag};
  memcpy(head.magic, snap_magic, sizeof head.magic);
  char *start = (char *)data + sizeof head, *p = start;
  for (int32_t l = 0; l < kv->n_layers; l++) {
    snap_layer line = {kv->layer[l].k_bytes, kv->layer[l].v_bytes, kv->layer[l].window,
                       s->run[l].first, s->run[l].len};
    memcpy(p, &line, sizeof line);
    p += sizeof line;
  }
  if (kv->state_bytes) memcpy(p, s->state, kv->state_bytes);
  p += kv->state_bytes;
  for (int32_t l = 0; l < kv->n_layers; l++) {
    if (counts_only(kv, l)) continue;
    uint64_t k = (uint64_t)kv->layer[l].k_bytes, v = (uint64_t)kv->layer[l].v_bytes;
    for (int64_t t = s->run[l].first; t < s->run[l].len; t++) {
      memcpy(p, nn_kv_k(kv, s, l, t), k);
      memcpy(p + k, nn_kv_v(kv, s, l, t), v);
      p += k + v;
    }
  }
  head.checksum = checksum(start, need - sizeof head);
  memcpy(data, &head, sizeof head);
  return VIV_OK;
}

int32_t nn_kv_restore(nn_kv *kv, const void *data, uint64_t bytes, int32_t *out, viv_error *error) {
  snap_header head;
  const char *p = data, *start = p + sizeof head;
  uint64_t lines = (uint64_t)kv->n_layers * sizeof(snap_layer);
  if (bytes < sizeof head + lines + kv->state_bytes)
    return nn_fail(error, VIV_BAD_INPUT, "restore", "%llu bytes are too few for a saved sequence",
                   (unsigned long long)bytes);
  memcpy(&head, p, sizeof head);
  if (memcmp(head.magic, snap_magic, sizeof head.magic) || head.version != 1)
    return nn_fail(error, VIV_BAD_INPUT, "restore", "this is not a saved sequence of version 1");
  if (head.n_layers != kv->n_layers || head.dtype != (uint32_t)kv->dtype ||
      head.state_bytes != kv->state_bytes)
    return nn_fail(error, VIV_BAD_INPUT, "restore",
                   "the sequence was saved by another model: %d layers of cache and %llu bytes of "
                   "state, this one has %d and %llu",
                   (int)head.n_layers, (unsigned long long)head.state_bytes, (int)kv->n_layers,
                   (unsigned long long)kv->state_bytes);
  if (head.bytes != bytes || head.checksum != checksum(start, bytes - sizeof head))
    return nn_fail(error, VIV_BAD_INPUT, "restore", "the saved sequence is damaged or cut short");

  /* Sizes first, so that nothing is taken for a file that lies. */
  uint64_t need = sizeof head + lines + kv->state_bytes;
  for (int32_t l = 0; l < kv->n_layers; l++) {
    snap_layer line;
    memcpy(&line, start + (uint64_t)l * sizeof line, sizeof line);
    const nn_kv_layer *layer = &kv->layer[l];
    if (line.k_bytes != layer->k_bytes || line.v_bytes != layer->v_bytes ||
        line.window != layer->window)
      return nn_fail(error, VIV_BAD_INPUT, "restore",
                     "the sequence was saved by another model: layer %d differs", (int)l);
    if (line.len < 0 || line.len > kv->context_max || line.first < 0 ||
        line.first > window_begin(kv, l, line.len) || line.first > line.len)
      return nn_fail(error, VIV_BAD_INPUT, "restore", "layer %d holds tokens [%lld, %lld)", (int)l,
                     (long long)line.first, (long long)line.len);
    uint64_t token = (uint64_t)(layer->k_bytes + layer->v_bytes);
    uint64_t n = (uint64_t)(line.len - line.first);
    if (token && n > (bytes - need) / token)
      return nn_fail(error, VIV_BAD_INPUT, "restore", "the saved sequence is cut short in layer %d",
                     (int)l);
    need += n * token;
  }
  if (need != bytes || head.last_base < 0)
    return nn_fail(error, VIV_BAD_INPUT, "restore", "the saved sequence has %llu bytes too many",
                   (unsigned long long)(bytes - need));

  int32_t seq;
  int32_t rc = nn_kv_open(kv, &seq, error);
  if (rc < 0) return rc;
  nn_kv_seq *s = kv->seq[seq];
  p = start + lines;
  if (kv->state_bytes) memcpy(s->state, p, kv->state_bytes);
  p += kv->state_bytes;
  for (int32_t l = 0; l < kv->n_layers; l++) {
    snap_layer line;
    memcpy(&line, start + (uint64_t)l * sizeof line, sizeof line);
    rc = nn_kv_reserve(kv, s, l, line.first, line.len, error);
    if (rc < 0) {
      nn_kv_close(kv, seq);
      return rc;
    }
    s->run[l].len = line.len;
    s->run[l].first = line.first;
    if (counts_only(kv, l)) continue;
    uint64_t k = (uint64_t)line.k_bytes, v = (uint64_t)line.v_bytes;
    for (int64_t t = line.first; t < line.len; t++) {
      memcpy(nn_kv_k(kv, s, l, t), p, k);
      memcpy(nn_kv_v(kv, s, l, t), p + k, v);
      p += k + v;
    }
  }
  s->tag = head.tag;
  s->last_base = min64(head.last_base, longest(kv, s));
  *out = seq;
  return VIV_OK;
}
