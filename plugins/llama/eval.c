/* From a batch to a step: which tokens of the cache the rows stand at, what they see, and what must
 * hold before anything is changed. */
#include <string.h>

#include "llama/llama.h"

#define REFUSE(...) return nn_fail(error, VIV_BAD_INPUT, "eval", __VA_ARGS__)

/* A token's id (-1: the row came as an embedding or hidden state) and its rotary position. */
static int32_t *token_at(const struct llama_model *m, const nn_kv_seq *s, int64_t t) {
  return nn_kv_k(&m->nn.kv, s, m->config.layers, t);
}
static int32_t *pos_at(const struct llama_model *m, const nn_kv_seq *s, int64_t t) {
  return nn_kv_v(&m->nn.kv, s, m->config.layers, t);
}

static bool uses_cache(const viv_batch *b, int32_t layer) {
  return !nn_bit(b->skip_attn, layer);
}

static bool any_window(const struct llama_config *c, const viv_batch *b, int32_t begin,
                       int32_t end) {
  for (int32_t i = begin; i < end; i++)
    if (c->windowed[i] && uses_cache(b, i)) return true;
  return false;
}

/* Rotary position == token index for tokens [from, to): what a window over tokens relies on, and a
 * second computation of the prefix. */
static bool in_order(const struct llama_model *m, const nn_kv_seq *s, int64_t from, int64_t to) {
  for (int64_t t = from < 0 ? 0 : from; t < to; t++)
    if (*pos_at(m, s, t) != t) return false;
  return true;
}

/* Fills slot and pos of the segment's rows. */
static int32_t place_rows(const struct llama_model *m, const viv_batch *b, nn_segment *g,
                          struct llama_step *s, viv_error *error) {
  const struct llama_config *c = &m->config;
  for (int32_t r = g->first; r < g->first + g->n; r++) {
    int32_t parent = b->mask_kind == VIV_MASK_PARENT ? b->parent[r] : -1;
    if (parent < -1 || parent >= r || (parent >= 0 && parent < g->first))
      REFUSE("row %d: its parent %d must be an earlier row of its sequence, or -1", (int)r,
             (int)parent);
    s->slot[r] = g->base + (r - g->first);
    if (b->kv_write == VIV_KV_REPLACE) {
      if (b->pos[r] < 0 || b->pos[r] >= g->base)
        REFUSE("row %d replaces token %d of a sequence of %lld", (int)r, (int)b->pos[r],
               (long long)g->base);
      s->slot[r] = b->pos[r];
    }
    int64_t next = s->slot[r];
    if (b->mask_kind == VIV_MASK_PARENT) next = parent < 0 ? g->base : s->pos[parent] + 1;
    s->pos[r] = b->pos ? b->pos[r] : (int32_t)next;
    if (s->pos[r] < 0 || s->pos[r] >= c->context)
      REFUSE("row %d: position %d, the model allows 0 to %lld", (int)r, (int)s->pos[r],
             (long long)c->context - 1);
  }
  int64_t total = g->base + (b->kv_write == VIV_KV_REPLACE ? 0 : g->n);
  return nn_context_check(&m->nn, g, total, error);
}

/* A window counts positions; the cache counts tokens. They must agree where a window looks. */
static int32_t check_window(const struct llama_model *m, const viv_batch *b, const nn_segment *g,
                            const struct llama_step *s, viv_error *error) {
  const nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  bool tree = b->mask_kind != VIV_MASK_CAUSAL;
  bool ordered = in_order(m, seq, g->base - m->config.window, g->base);
  for (int32_t r = g->first; r < g->first + g->n && !tree; r++) ordered &= s->pos[r] == s->slot[r];
  if (!ordered)
    REFUSE("sequence %d: this model has a sliding window, so that cached positions must be 0, 1, "
           "2, ...: gather the accepted path or truncate first",
           (int)g->seq);
  for (int32_t r = g->first; r < g->first + g->n; r++)
    if (tree && s->pos[r] < g->base)
      REFUSE("row %d: position %d of a row that follows %lld tokens, under a sliding window",
             (int)r, (int)s->pos[r], (long long)g->base);
  for (int32_t i = s->begin; i < s->end; i++)
    for (int32_t r = g->first; r < g->first + g->n; r++)
      if (m->config.windowed[i] && seq->run[i].first > 0 &&
          s->slot[r] - m->config.window + 1 < seq->run[i].first)
        return nn_fail(error, VIV_NEVER, "eval",
                       "row %d replaces token %lld, but layer %d has let go of the keys before "
                       "%lld",
                       (int)r, (long long)s->slot[r], (int)i, (long long)seq->run[i].first);
  return VIV_OK;
}

/* A tree without branches is a causal batch: then it also takes the same path, to the last bit. */
static bool is_chain(const viv_batch *b, const nn_segment *g) {
  for (int32_t r = g->first; r < g->first + g->n; r++) {
    int32_t i = r - g->first;
    if (b->pos && b->pos[r] != g->base + i) return false;
    if (b->mask_kind == VIV_MASK_PARENT && b->parent[r] != (i ? r - 1 : -1)) return false;
    for (int32_t j = 0; b->mask_kind == VIV_MASK_BITS && j < g->n; j++)
      if ((b->mask[(int64_t)r * b->n_rows + g->first + j] != 0) != (j <= i)) return false;
  }
  return b->mask_kind == VIV_MASK_PARENT || b->mask_kind == VIV_MASK_BITS;
}

/* visible of the segment's rows, and the bits of rows that do not see all of them. */
static void look(const viv_batch *b, const nn_segment *g, int64_t window, struct llama_step *s) {
  for (int32_t r = g->first; r < g->first + g->n; r++) {
    int32_t i = r - g->first; /* within the segment */
    s->visible[r] = s->slot[r] + 1;
    if (b->mask_kind == VIV_MASK_CAUSAL) continue;
    if (b->mask_kind == VIV_MASK_FULL) {
      s->visible[r] = b->kv_write == VIV_KV_REPLACE ? g->base : g->base + g->n;
      continue;
    }
    /* Which rows of the segment this one sees, as bits after the cached tokens. */
    struct llama_mask *f = &s->full, *w = &s->windowed;
    uint8_t *row = f->bits + r * f->stride; /* n bits */
    f->begin[r] = g->base;
    if (b->mask_kind == VIV_MASK_PARENT) {
      if (b->parent[r] >= 0) memcpy(row, f->bits + b->parent[r] * f->stride, (size_t)f->stride);
      nn_mask_set(row, i);
    } else {
      s->visible[r] = g->base;
      for (int32_t j = 0; j < g->n; j++) {
        if (!b->mask[(int64_t)r * b->n_rows + g->first + j]) continue;
        nn_mask_set(row, j);
        s->visible[r] = g->base + j + 1;
      }
    }
    if (!w->bits) continue;
    /* The same with the window, which counts positions: bits from begin on. */
    w->begin[r] = s->visible[r] > w->window ? s->visible[r] - w->window : 0;
    for (int64_t t = w->begin[r]; t < s->visible[r]; t++) {
      bool seen = t < g->base || nn_mask_bit(row, t - g->base);
      int64_t at = t < g->base ? t : s->pos[g->first + (t - g->base)];
      if (seen && at > s->pos[r] - window) nn_mask_set(w->bits + r * w->stride, t - w->begin[r]);
    }
  }
}

/* All memory that a pass of `rows` rows needs beside masks. */
void llama_take(nn_scratch *a, const struct llama_config *c, int64_t rows, struct llama_step *s) {
  s->pos = nn_take(a, rows, sizeof *s->pos);
  s->slot = nn_take(a, rows, sizeof *s->slot);
  s->visible = nn_take(a, rows, sizeof *s->visible);
  s->pages = nn_take(a, rows, sizeof *s->pages);
  s->x = nn_floats(a, rows, c->d);
  s->u = nn_floats(a, rows, c->d);
  s->y = nn_floats(a, rows, c->d);
  s->q = nn_floats(a, rows, c->q);
  s->k = nn_floats(a, rows, c->kv);
  s->v = nn_floats(a, rows, c->kv);
  s->a = nn_floats(a, rows, c->q);
  s->gate = nn_floats(a, rows, c->ff);
  s->up = nn_floats(a, rows, c->ff);
  s->cos_sin = nn_floats(a, rows, 2 * c->rope.half);
}

/* The cached keys of a sequence carry one set of rotary frequencies (longrope); when its length
 * passes the original one, in either direction, they are computed again from the tokens. */
static bool must_rerun(const nn_kv_seq *seq, const nn_segment *g) {
  return g->base > 0 && g->tag != seq->tag;
}

static int32_t check_rerun(const struct llama_model *m, const nn_segment *g, viv_error *error) {
  const nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  bool whole = in_order(m, seq, 0, g->base) && nn_kv_len(&m->nn.kv, g->seq) == g->base;
  for (int32_t i = 0; i < m->config.layers; i++) whole &= seq->run[i].len == g->base;
  for (int64_t t = 0; whole && t < g->base; t++) whole = *token_at(m, seq, t) >= 0;
  if (!whole)
    REFUSE("sequence %d passes %lld tokens, where this model's rotary frequencies change and the "
           "cache is computed again from the tokens; it must hold plain tokens in all layers then",
           (int)g->seq, (long long)m->config.rope.original);
  return VIV_OK;
}

enum { RERUN_ROWS = 256 };

/* The cached prefix [0, base) again, in place, with the set that the segment names. */
static int32_t rerun(struct llama_model *m, const viv_batch *b, const nn_segment *g,
                     const struct llama_step *memory, viv_error *error) {
  nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  viv_batch plain = {.struct_size = sizeof plain, .poll = b->poll, .poll_self = b->poll_self};
  for (int64_t t = 0; t < g->base; t += RERUN_ROWS) {
    int64_t n = g->base - t < RERUN_ROWS ? g->base - t : RERUN_ROWS;
    nn_segment chunk = {.seq = g->seq, .n = (int32_t)n, .tag = g->tag, .base = t};
    struct llama_step s = *memory;
    s.batch = &plain;
    s.taps = NULL;
    s.hidden = NULL;
    s.rows = n;
    s.begin = 0;
    s.end = m->config.layers;
    s.segment = &chunk;
    s.n_segments = 1;
    s.full = (struct llama_mask){0};
    s.windowed = (struct llama_mask){.window = m->config.window};
    for (int64_t r = 0; r < n; r++) {
      s.pos[r] = (int32_t)(t + r);
      s.slot[r] = t + r;
      s.visible[r] = t + r + 1;
      m->nn.compute->gather(m->nn.compute, m->embed, token_at(m, seq, t + r), 1,
                            s.x + r * m->config.d);
    }
    int32_t rc = llama_layers(&s, error);
    if (rc < 0) return rc;
  }
  seq->tag = g->tag;
  return VIV_OK;
}

/* `cache.i.k` and `cache.i.v` after the batch, [kv_heads, tokens, head_dim]; of a windowed layer
 * the last window - 1 tokens. */
static int64_t tap_begin(const struct llama_config *c, int32_t i, int64_t len) {
  return c->windowed[i] && len > c->window - 1 ? len - (c->window - 1) : 0;
}
static int64_t tap_floats(const struct llama_config *c, const viv_tap_sink *taps, int32_t i,
                          int64_t len) {
  if (!nn_wants(taps, "cache.%d.k", (int)i) && !nn_wants(taps, "cache.%d.v", (int)i)) return 0;
  return (len - tap_begin(c, i, len)) * c->kv;
}
static void tap_caches(const struct llama_model *m, const viv_tap_sink *taps, const nn_segment *g,
                       float *memory) {
  const struct llama_config *c = &m->config;
  const nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  for (int32_t i = 0; taps && i < c->layers; i++) {
    int64_t len = seq->run[i].len, begin = tap_begin(c, i, len);
    for (int32_t v = 0; v < 2; v++) {
      if (len == begin || !nn_wants(taps, v ? "cache.%d.v" : "cache.%d.k", (int)i)) continue;
      nn_kv_read(&m->nn.kv, m->nn.compute, seq, i, v, begin, len, c->kv_heads, c->head_dim, memory);
      nn_tap_state(taps, memory, c->kv_heads, len - begin, c->head_dim,
                   v ? "cache.%d.v" : "cache.%d.k", (int)i);
    }
  }
}

static int32_t check_kinds(const struct llama_config *c, const viv_batch *b, viv_error *error) {
  if (b->input_kind != VIV_INPUT_HIDDEN && b->layer_begin)
    REFUSE("tokens and embeddings enter at layer 0, not %d", (int)b->layer_begin);
  if (b->mask_kind < VIV_MASK_CAUSAL || b->mask_kind > VIV_MASK_BITS)
    REFUSE("mask_kind %d does not exist", (int)b->mask_kind);
  if (b->kv_write < VIV_KV_APPEND || b->kv_write > VIV_KV_NONE)
    REFUSE("kv_write %d does not exist", (int)b->kv_write);
  if (b->mask_kind == VIV_MASK_PARENT && !b->parent) REFUSE("mask PARENT without parent");
  if (b->mask_kind == VIV_MASK_BITS && !b->mask) REFUSE("mask BITS without mask");
  if (b->kv_write == VIV_KV_REPLACE && !b->pos) REFUSE("kv_write REPLACE needs pos");
  if (b->kv_write == VIV_KV_REPLACE && b->mask_kind >= VIV_MASK_PARENT)
    REFUSE("kv_write REPLACE goes with mask CAUSAL or FULL");
  if (b->mask_kind == VIV_MASK_FULL && c->window)
    return nn_fail(error, VIV_NEVER, "eval", "mask FULL: this model has a causal sliding window");
  return VIV_OK;
}

/* Pages for what the segment writes, and for its prefix when that is computed again. What is written
 * at tokens that nobody counts yet changes nothing. */
static int32_t make_room(struct llama_model *m, const viv_batch *b, const nn_segment *g,
                         const struct llama_step *s, viv_error *error) {
  nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  int32_t layers = m->config.layers, rc = VIV_OK;
  bool again = must_rerun(seq, g);
  for (int32_t l = 0; l <= layers; l++) { /* the last one holds token ids and positions */
    bool mine = l == layers || (l >= s->begin && l < s->end && uses_cache(b, l));
    if (again) rc = nn_kv_reserve(&m->nn.kv, seq, l, 0, g->base, error);
    if (rc >= 0 && mine && b->kv_write != VIV_KV_REPLACE)
      rc = nn_kv_reserve(&m->nn.kv, seq, l, g->base, g->base + g->n, error);
    for (int32_t r = g->first; mine && b->kv_write == VIV_KV_REPLACE && r < g->first + g->n; r++)
      if (rc >= 0) rc = nn_kv_reserve(&m->nn.kv, seq, l, s->slot[r], s->slot[r] + 1, error);
    if (rc < 0) return rc;
    if (again) seq->run[l].first = 0;
  }
  return VIV_OK;
}

/* The rows now belong to their sequence. */
static void settle(struct llama_model *m, const viv_batch *b, const nn_segment *g,
                   const struct llama_step *s) {
  nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  int32_t layers = m->config.layers;
  int64_t len = b->kv_write == VIV_KV_APPEND ? g->base + g->n : g->base;
  if (b->kv_write == VIV_KV_NONE) return;
  for (int32_t r = g->first; r < g->first + g->n; r++) {
    if (s->begin && s->slot[r] < seq->run[layers].len) continue; /* known from the lower layers */
    *token_at(m, seq, s->slot[r]) = b->input_kind == VIV_INPUT_TOKENS ? b->tokens[r] : -1;
    *pos_at(m, seq, s->slot[r]) = s->pos[r];
  }
  for (int32_t l = 0; l <= layers; l++)
    if (l == layers || (l >= s->begin && l < s->end && uses_cache(b, l)))
      nn_kv_commit(&m->nn.kv, seq, l, g->base, len);
  seq->last_base = g->base;
}

/* logits of rows whose layers end early (layer_end) are those of an early exit: norm and head of
 * what the residual stream holds by then. State taps are reported for each sequence in turn. */
int32_t llama_eval(viv_plugin_model *model, const viv_batch *batch, viv_eval_out *out,
                   viv_error *error) {
  struct llama_model *m = (struct llama_model *)model;
  const struct llama_config *c = &m->config;
  const viv_compute *compute = m->nn.compute;
  viv_batch b;
  nn_scratch a;
  nn_segment *segment;
  int32_t n_segments;
  int32_t rc = nn_batch_read(&m->nn, batch, out, &b, &a, &segment, &n_segments, error);
  if (rc >= 0) rc = check_kinds(c, &b, error);
  if (rc < 0) return rc;

  /* Which token of which sequence each row is. */
  int32_t *pos = nn_take(&a, b.n_rows, sizeof *pos);
  int64_t *slot = nn_take(&a, b.n_rows, sizeof *slot);
  if (a.failed) return nn_no_scratch(&b, error);
  struct llama_step s = {.m = m, .segment = segment, .n_segments = n_segments};
  s.pos = pos;
  s.slot = slot;
  s.begin = b.layer_begin;
  s.end = b.layer_end ? b.layer_end : c->layers;
  int64_t rows = b.n_rows, widest = 0, tap_size = 0;
  bool chains = true, windows = c->window && any_window(c, &b, s.begin, s.end);
  for (int32_t i = 0; i < s.n_segments; i++) {
    nn_segment *g = &segment[i];
    const nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
    rc = nn_base(seq, &b, s.begin, s.end, &g->base, error);
    if (g->base < 0) g->base = seq->run[c->layers].len;
    if (rc >= 0) rc = place_rows(m, &b, g, &s, error);
    if (rc < 0) return rc;
    int64_t length = nn_kv_len(&m->nn.kv, g->seq);
    for (int32_t r = g->first; r < g->first + g->n; r++)
      if (length < pos[r] + 1) length = pos[r] + 1;
    g->tag = c->rope.two_sets && length > c->rope.original;
    if (must_rerun(seq, g)) {
      rc = check_rerun(m, g, error);
      if (rc < 0) return rc;
      int64_t n = g->base < RERUN_ROWS ? g->base : RERUN_ROWS;
      if (rows < n) rows = n;
    }
    if (widest < g->n) widest = g->n;
    chains &= is_chain(&b, g);
    for (int32_t l = 0; b.taps && l < c->layers; l++) {
      int64_t n = tap_floats(c, b.taps, l, seq->run[l].len + g->n);
      if (tap_size < n) tap_size = n;
    }
  }
  if (chains) b.mask_kind = VIV_MASK_CAUSAL;
  for (int32_t i = 0; windows && i < s.n_segments; i++) {
    rc = check_window(m, &b, &segment[i], &s, error);
    if (rc < 0) return rc;
  }

  /* Memory and pages. */
  llama_take(&a, c, rows, &s);
  struct llama_step prefix = s; /* has rows of its own for pos and slot */
  s.batch = &b;
  s.taps = b.taps;
  s.hidden = out->hidden;
  s.rows = b.n_rows;
  s.pos = pos;
  s.slot = slot;
  s.windowed.window = c->window;
  float *tap_memory = tap_size ? nn_floats(&a, tap_size, 1) : NULL;
  if (b.mask_kind == VIV_MASK_PARENT || b.mask_kind == VIV_MASK_BITS) {
    s.full.stride = nn_mask_stride(widest);
    s.full.begin = nn_take(&a, b.n_rows, sizeof *s.full.begin);
    s.full.bits = nn_take(&a, b.n_rows * s.full.stride, 1);
    if (windows) {
      s.windowed.window = c->window - 1 + widest;
      s.windowed.stride = nn_mask_stride(s.windowed.window);
      s.windowed.begin = nn_take(&a, b.n_rows, sizeof *s.windowed.begin);
      s.windowed.bits = nn_take(&a, b.n_rows * s.windowed.stride, 1);
    }
  }
  if (a.failed) return nn_no_scratch(&b, error);
  for (int32_t i = 0; i < s.n_segments; i++) {
    rc = make_room(m, &b, &segment[i], &s, error);
    if (rc < 0) return rc;
  }

  /* From here on only a poll can stop us. */
  for (int32_t i = 0; i < s.n_segments; i++) {
    nn_kv_seq *seq = nn_kv_get(&m->nn.kv, segment[i].seq);
    if (must_rerun(seq, &segment[i])) rc = rerun(m, &b, &segment[i], &prefix, error);
    if (rc < 0) return rc;
    seq->tag = segment[i].tag;
  }
  for (int32_t i = 0; i < s.n_segments; i++) look(&b, &segment[i], c->window, &s);
  nn_enter(&m->nn, &b, s.x);
  rc = llama_layers(&s, error);
  if (rc < 0) return rc;

  for (int32_t i = 0; i < s.n_segments; i++) {
    settle(m, &b, &segment[i], &s);
    tap_caches(m, b.taps, &segment[i], tap_memory);
  }
  nn_tap_constant(b.taps, c->rope.inv_freq, c->rope.half, "rope.inv_freq");
  if (c->rope.two_sets)
    nn_tap_constant(b.taps, c->rope.long_inv_freq, c->rope.half, "rope.long_inv_freq");
  if (s.end == c->layers &&
      (nn_wants(b.taps, "final_norm") || nn_wants(b.taps, "last_hidden_state"))) {
    compute->rms_norm(compute, s.x, m->norm, c->eps, s.rows, c->d, s.u);
    nn_tap_rows(b.taps, s.u, s.rows, c->d, "final_norm");
    nn_tap_rows(b.taps, s.u, s.rows, c->d, "last_hidden_state");
  }
  nn_pick(s.x, c->d, b.logit_rows, b.n_logit_rows, s.y);
  if (b.n_logit_rows) llama_logits(&m->nn, s.y, b.n_logit_rows, true, s.u, out->logits);
  return VIV_OK;
}
