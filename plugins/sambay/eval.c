/* From a batch to a step: recurrent states, slots of the caches, and which rows are wanted. */
#include <string.h>

#include "sambay/sambay.h"

#define REFUSE(...) return nn_fail(error, VIV_BAD_INPUT, "eval", __VA_ARGS__)

/* ---- states ---- */

static int64_t mamba_layers(const struct sambay_config *c) {
  return c->half / 2 + 1;
}

uint64_t sambay_state_bytes(const struct sambay_config *c) {
  return (uint64_t)(mamba_layers(c) * c->d_in * (c->K + c->N)) * sizeof(float);
}

struct sambay_state sambay_state_of(const struct sambay_config *c, void *block, int32_t layer) {
  float *p = (float *)block + layer / 2 * c->d_in * (c->K + c->N);
  struct sambay_state s = {p, p + c->d_in * (c->K - 1), p + c->d_in * c->K};
  return s;
}

/* After the header, per Mamba layer: states [rows + 1, d_in, N], inputs [K + rows, d_in]. */
static int64_t kept_floats(const struct sambay_config *c, int64_t rows) {
  return c->d_in * ((rows + 1) * c->N + c->K + rows);
}
uint64_t sambay_kept_bytes(const struct sambay_config *c, int64_t rows) {
  return 64 + (uint64_t)(mamba_layers(c) * kept_floats(c, rows)) * sizeof(float);
}
float *sambay_kept_states(const struct sambay_config *c, struct sambay_kept *k, int32_t layer) {
  return (float *)(void *)((char *)k + 64) + layer / 2 * kept_floats(c, k->rows);
}
float *sambay_kept_inputs(const struct sambay_config *c, struct sambay_kept *k, int32_t layer) {
  return sambay_kept_states(c, k, layer) + (k->rows + 1) * c->d_in * c->N;
}

int32_t sambay_truncate(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error) {
  struct sambay_model *m = (struct sambay_model *)model;
  const struct sambay_config *c = &m->config;
  nn_kv_seq *s = nn_kv_get(&m->nn.kv, seq);
  if (!s) return nn_fail(error, VIV_BAD_INPUT, "seq_truncate", "there is no sequence %d", (int)seq);
  struct sambay_kept *kept = s->kept;
  bool whole = true; /* nothing recurrent has to go back */
  for (int32_t i = 0; i <= c->half; i += 2) whole &= s->run[i].len <= len;
  if (!whole && len > 0 && (!kept || len < kept->base || len > kept->base + kept->rows))
    return nn_fail(error, VIV_NEVER, "seq_truncate",
                   "a recurrent state can't be rolled back to length %lld: only to 0, or into the "
                   "last batch when it had KEEP_STATES (fork or snapshot the sequence earlier)",
                   (long long)len);
  /* Lengths first: they say which states went too far; then the states. */
  bool went[SAMBAY_MAX_LAYERS];
  for (int32_t i = 0; i <= c->half; i += 2) went[i] = s->run[i].len > len;
  int32_t rc = nn_kv_truncate(&m->nn.kv, seq, len, error);
  if (rc < 0) return rc;
  for (int32_t i = 0; i <= c->half; i += 2) {
    struct sambay_state state = sambay_state_of(c, s->state, i);
    if (!went[i]) continue;
    if (!len) {
      memset(state.tail, 0, (size_t)(c->d_in * (c->K + c->N)) * sizeof(float));
      continue;
    }
    int64_t j = len - kept->base;
    const float *columns = sambay_kept_inputs(c, kept, i) + j * c->d_in; /* [K, d_in] */
    memcpy(state.s, sambay_kept_states(c, kept, i) + j * c->d_in * c->N,
           (size_t)(c->d_in * c->N) * sizeof(float));
    for (int64_t ch = 0; ch < c->d_in; ch++) {
      state.oldest[ch] = columns[ch];
      for (int64_t t = 0; t < c->K - 1; t++)
        state.tail[ch * (c->K - 1) + t] = columns[(t + 1) * c->d_in + ch];
    }
  }
  if (!len) nn_kv_keep(&m->nn.kv, s, NULL, 0);
  return VIV_OK;
}

/* ---- batches ---- */

void sambay_take(nn_scratch *a, const struct sambay_config *c, int64_t rows,
                 struct sambay_step *s) {
  s->slot = nn_take(a, rows, sizeof *s->slot);
  s->visible = nn_take(a, rows, sizeof *s->visible);
  s->seq = nn_take(a, rows, sizeof *s->seq);
  s->pages = nn_take(a, rows, sizeof *s->pages);
  s->x = nn_floats(a, rows, c->d);
  s->u = nn_floats(a, rows, c->d);
  s->y = nn_floats(a, rows, c->d);
  s->in = nn_floats(a, rows, c->d_in);
  s->z = nn_floats(a, rows, c->d_in);
  s->conv = nn_floats(a, rows, c->d_in);
  s->low = nn_floats(a, rows, c->R);
  s->delta = nn_floats(a, rows, c->d_in);
  s->bc = nn_floats(a, rows, 2 * c->N);
  s->memory = nn_floats(a, rows, c->d_in);
  s->q = nn_floats(a, rows, c->q);
  s->k = nn_floats(a, rows, c->kv);
  s->v = nn_floats(a, rows, c->kv);
  s->pair = nn_floats(a, rows, 2 * c->q);
  s->diff = nn_floats(a, rows, c->q);
  s->fc = nn_floats(a, rows, 2 * c->ff);
  s->act = nn_floats(a, rows, c->ff);
  s->late_x = nn_floats(a, rows, c->d);
  s->late_memory = nn_floats(a, rows, c->d_in);
}

static int32_t check_kinds(const struct sambay_config *c, const viv_batch *b, viv_error *error) {
  int32_t end = b->layer_end ? b->layer_end : c->layers, full = c->half + 1;
  if (b->input_kind == VIV_INPUT_HIDDEN || b->layer_begin || end != c->layers)
    return nn_fail(error, VIV_NEVER, "eval",
                   "layer ranges and hidden rows: upper layers need the memory that layer %d made "
                   "of the same tokens, which no hidden row carries",
                   (int)c->half);
  if (b->mask_kind != VIV_MASK_CAUSAL)
    return nn_fail(error, VIV_NEVER, "eval",
                   "only causal rows: a recurrent state takes tokens in one order");
  if (b->kv_write != VIV_KV_APPEND && b->kv_write != VIV_KV_NONE)
    return nn_fail(error, VIV_NEVER, "eval", "a recurrent state can't have a token replaced");
  if (b->kv_write == VIV_KV_NONE && b->flags & VIV_BATCH_KEEP_STATES)
    REFUSE("KEEP_STATES of a batch that writes nothing");
  for (int32_t i = full; i < c->layers; i++) {
    int32_t source = i == full ? -1 : i % 2 ? full : c->half;
    if (source >= 0 && nn_bit(b->skip_attn, source) && !nn_bit(b->skip_attn, i))
      REFUSE("skip_attn leaves out layer %d, which layer %d reads: leave that out too", (int)source,
             (int)i);
  }
  return VIV_OK;
}

/* Does somebody want rows of the cross-decoder beside the logits? */
static bool wants_all_rows(const struct sambay_config *c, const viv_batch *b) {
  for (int32_t i = 0; i < b->n_capture; i++)
    if (b->capture_layers[i] > c->half + 1) return true;
  if (!b->taps) return false;
  for (int32_t i = c->half + 1; i < c->layers; i++)
    if (nn_wants(b->taps, "layer.%d", (int)i) || nn_wants(b->taps, "layer.%d.mixer", (int)i))
      return true;
  return nn_wants(b->taps, "final_layernorm") || nn_wants(b->taps, "last_hidden_state");
}

/* Caches and states after the batch, with memory for the largest. */
static int64_t cache_begin(const struct sambay_config *c, int32_t i, int64_t len) {
  return i < c->half && len > c->window[i] ? len - c->window[i] : 0;
}
static bool wants_cache(const struct sambay_config *c, const viv_tap_sink *taps, int32_t i,
                        bool values) {
  if (i == c->half + 1) return nn_wants(taps, values ? "shared_v" : "shared_k");
  return nn_wants(taps, values ? "cache.%d.v" : "cache.%d.k", (int)i);
}
static int64_t tap_floats(const struct sambay_config *c, const viv_tap_sink *taps, int64_t len) {
  int64_t most = taps ? c->d_in * c->K : 0;
  for (int32_t i = 1; taps && i <= c->half + 1; i += 2) {
    int64_t n = (len - cache_begin(c, i, len)) * c->kv;
    if (n > most && (wants_cache(c, taps, i, false) || wants_cache(c, taps, i, true))) most = n;
  }
  return most;
}
static void tap_caches(const struct sambay_model *m, const viv_tap_sink *taps, nn_kv_seq *seq,
                       float *memory) {
  const struct sambay_config *c = &m->config;
  int64_t K = c->K;
  for (int32_t i = 0; taps && i <= c->half; i += 2) {
    struct sambay_state state = sambay_state_of(c, seq->state, i);
    for (int64_t ch = 0; ch < c->d_in; ch++) { /* [d_in, K], newest last */
      memory[ch * K] = state.oldest[ch];
      memcpy(memory + ch * K + 1, state.tail + ch * (K - 1), (size_t)(K - 1) * sizeof *memory);
    }
    nn_tap_state(taps, memory, c->d_in, K, 0, "cache.%d.conv", (int)i);
    nn_tap_state(taps, state.s, c->d_in, c->N, 0, "cache.%d.ssm", (int)i);
  }
  for (int32_t i = 1; taps && i <= c->half + 1; i += 2) {
    int64_t len = seq->run[i].len, begin = cache_begin(c, i, len);
    for (int32_t v = 0; v < 2; v++) {
      if (len == begin || !wants_cache(c, taps, i, v)) continue;
      nn_kv_read(&m->nn.kv, m->nn.compute, seq, i, v, begin, len, c->kv_heads, c->head_dim, memory);
      if (i > c->half)
        nn_tap_state(taps, memory, c->kv_heads, len - begin, c->head_dim,
                     v ? "shared_v" : "shared_k");
      else
        nn_tap_state(taps, memory, c->kv_heads, len - begin, c->head_dim,
                     v ? "cache.%d.v" : "cache.%d.k", (int)i);
    }
  }
}

/* Pages for what the segment writes; tokens that nobody counts yet change nothing. */
static int32_t make_room(struct sambay_model *m, const viv_batch *b, const nn_segment *g,
                         viv_error *error) {
  nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
  for (int32_t l = 0; l <= m->config.half + 1; l++) {
    if (nn_bit(b->skip_attn, l)) continue;
    int32_t rc = nn_kv_reserve(&m->nn.kv, seq, l, g->base, g->base + g->n, error);
    if (rc < 0) return rc;
  }
  return VIV_OK;
}

/* A block for each sequence to keep its states in: all of them or none. */
static bool take_blocks(struct sambay_model *m, const nn_segment *g, int32_t n, void **block) {
  for (int32_t i = 0; i < n; i++) {
    block[i] = nn_kv_block(&m->nn.kv, sambay_kept_bytes(&m->config, g[i].n));
    if (block[i]) continue;
    while (i--) nn_kv_block_free(&m->nn.kv, block[i], sambay_kept_bytes(&m->config, g[i].n));
    return false;
  }
  return true;
}

int32_t sambay_eval(viv_plugin_model *model, const viv_batch *batch, viv_eval_out *out,
                    viv_error *error) {
  struct sambay_model *m = (struct sambay_model *)model;
  const struct sambay_config *c = &m->config;
  const viv_compute *compute = m->nn.compute;
  viv_batch b;
  nn_scratch a;
  nn_segment *segment;
  int32_t n_segments;
  int32_t rc = nn_batch_read(&m->nn, batch, out, &b, &a, &segment, &n_segments, error);
  if (rc >= 0) rc = check_kinds(c, &b, error);
  if (rc < 0) return rc;

  struct sambay_step s = {.m = m, .batch = &b, .taps = b.taps, .hidden = out->hidden};
  s.rows = b.n_rows;
  s.keep = (b.flags & VIV_BATCH_KEEP_STATES) != 0;
  s.segment = segment;
  s.n_segments = n_segments;
  sambay_take(&a, c, b.n_rows, &s);
  int64_t tap_size = 0;
  for (int32_t i = 0; i < s.n_segments; i++) {
    nn_segment *g = &segment[i];
    rc = nn_base(nn_kv_get(&m->nn.kv, g->seq), &b, 0, c->half + 2, &g->base, error);
    if (g->base < 0) g->base = 0;
    if (rc >= 0) rc = nn_context_check(&m->nn, g, g->base + g->n, error);
    if (rc < 0) return rc;
    for (int32_t r = g->first; b.pos && r < g->first + g->n; r++)
      if (b.pos[r] != g->base + (r - g->first))
        REFUSE("row %d: position %d, but the next one is %lld, and the model knows no other",
               (int)r, (int)b.pos[r], (long long)(g->base + (r - g->first)));
    int64_t n = tap_floats(c, b.taps, g->base + g->n);
    if (tap_size < n) tap_size = n;
  }
  float *tap_memory = tap_size ? nn_floats(&a, tap_size, 1) : NULL;
  uint64_t state_bytes = sambay_state_bytes(c);
  char *before = b.kv_write == VIV_KV_NONE ? nn_take(&a, s.n_segments, state_bytes) : NULL;
  void **block = s.keep ? nn_take(&a, s.n_segments, sizeof *block) : NULL;
  if (a.failed) return nn_no_scratch(&b, error);

  for (int32_t i = 0; i < s.n_segments; i++) {
    const nn_segment *g = &segment[i];
    nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
    rc = make_room(m, &b, g, error);
    if (rc < 0) return rc;
    for (int32_t r = g->first; r < g->first + g->n; r++) {
      s.seq[r] = seq;
      s.slot[r] = g->base + (r - g->first);
      s.visible[r] = s.slot[r] + 1;
    }
    if (before) memcpy(before + (uint64_t)i * state_bytes, seq->state, state_bytes);
  }
  if (s.keep && !take_blocks(m, segment, s.n_segments, block))
    return nn_fail(error, VIV_NOT_NOW, "eval", "no memory to keep the states of %d rows",
                   (int)b.n_rows);

  /* From here on only a poll can stop us. */
  for (int32_t i = 0; i < s.n_segments && !before; i++) {
    const nn_segment *g = &segment[i];
    struct sambay_kept *kept = s.keep ? block[i] : NULL;
    if (kept) *kept = (struct sambay_kept){g->base, g->n};
    nn_kv_keep(&m->nn.kv, s.seq[g->first], kept, kept ? sambay_kept_bytes(c, g->n) : 0);
  }
  nn_enter(&m->nn, &b, s.x);
  rc = sambay_self_decoder(&s, error);
  if (rc < 0) return rc;
  bool all = wants_all_rows(c, &b);
  s.late = b.logit_rows;
  s.n_late = all ? s.rows : b.n_logit_rows;
  rc = sambay_cross_decoder(&s, error);
  if (rc < 0) return rc;

  for (int32_t i = 0; i < s.n_segments; i++) {
    const nn_segment *g = &segment[i];
    nn_kv_seq *seq = nn_kv_get(&m->nn.kv, g->seq);
    for (int32_t l = 0; !before && l <= c->half + 1; l++)
      if (!nn_bit(b.skip_attn, l)) nn_kv_commit(&m->nn.kv, seq, l, g->base, g->base + g->n);
    if (!before) seq->last_base = g->base;
    tap_caches(m, b.taps, seq, tap_memory);
    if (before) memcpy(seq->state, before + (uint64_t)i * state_bytes, state_bytes);
  }
  if (all && (nn_wants(b.taps, "final_layernorm") || nn_wants(b.taps, "last_hidden_state"))) {
    compute->layer_norm(compute, s.x, m->norm, m->norm_bias, c->eps, s.rows, c->d, s.u);
    nn_tap_rows(b.taps, s.u, s.rows, c->d, "final_layernorm");
    nn_tap_rows(b.taps, s.u, s.rows, c->d, "last_hidden_state");
  }
  const float *x = s.x; /* [n_logit_rows, d] */
  if (s.rows != b.n_logit_rows) {
    nn_pick(s.x, c->d, b.logit_rows, b.n_logit_rows, s.y);
    x = s.y;
  }
  if (b.n_logit_rows) sambay_logits(&m->nn, x, b.n_logit_rows, true, s.u, out->logits);
  return VIV_OK;
}
