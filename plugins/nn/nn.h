/* What the plugins share, linked statically into each of them: reading config.json, the weight
 * table, rotary frequencies, the paged key/value cache, taps and scratch memory. It stands on the
 * ABI's headers alone: it allocates from the host's arenas only, keeps no globals, and opens no
 * file. Every name begins with nn_. */
#ifndef PLUGINS_NN_H
#define PLUGINS_NN_H

#include <stdbool.h>
#include <stddef.h>

#include "vivarium/compute.h"
#include "vivarium/token_model.h"

/* ---- errors (fail.c) ---- */

/* Fills error (which may be NULL) and answers code. where names the input and the place in it. */
int32_t nn_fail_at(viv_error *error, int32_t code, const char *source, int line, const char *where,
                   const char *format, ...) __attribute__((format(printf, 6, 7)));
#define nn_fail(error, code, where, ...)                                                           \
  nn_fail_at((error), (code), __FILE__, __LINE__, (where), __VA_ARGS__)

/* ---- strings and structs from the other side ---- */

viv_str nn_str(const char *terminated);
bool nn_is(viv_str a, const char *terminated);
/* A struct that may be older or newer than ours: copies what both know and zeroes the rest.
 * Example: viv_batch b; nn_read(&b, sizeof b, batch, batch->struct_size); */
void nn_read(void *mine, size_t mine_size, const void *theirs, uint32_t theirs_size);

/* The other direction: as much of mine as they know. mine.struct_size is theirs then. */
void nn_write(void *theirs, uint32_t theirs_size, const void *mine, size_t mine_size);

/* ---- masks of viv_attention ---- */

/* A row of bits for that many keys. */
static inline int64_t nn_mask_stride(int64_t keys) {
  return (keys + 7) / 8;
}
static inline bool nn_mask_bit(const uint8_t *mask, int64_t i) {
  return mask[i / 8] >> (i % 8) & 1;
}
static inline void nn_mask_set(uint8_t *mask, int64_t i) {
  mask[i / 8] |= (uint8_t)(1 << (i % 8));
}
/* seen [keys]: not 0 where a key is seen; to mask [nn_mask_stride(keys)]. */
static inline void nn_mask_bits(const uint8_t *seen, int64_t keys, uint8_t *mask) {
  for (int64_t at = 0; at < keys; at += 8, mask++) {
    unsigned bits = 0;
    for (int64_t i = 0; i < 8 && at + i < keys; i++) bits |= (seen[at + i] != 0u) << i;
    *mask = (uint8_t)bits;
  }
}

/* ---- the plugin itself (fail.c) ---- */

/* The first members of each table of functions. */
#define NN_ABI(type)                                                                               \
  .struct_size = sizeof(type), .abi_major = VIV_ABI_MAJOR, .abi_minor = VIV_ABI_MINOR

/* The last lines of a plugin.c: its one exported function, which answers the interfaces listed when
 * both sides speak a common ABI.
 *
 *   NN_PLUGIN("llama", "0.1.0", {VIV_MODEL_ID, &model_api}, {VIV_TOKEN_MODEL_ID, &token_api}) */
#define NN_PLUGIN(name, number, ...)                                                               \
  static const void *get_interface(viv_str id) {                                                   \
    static const nn_interface list[] = {__VA_ARGS__};                                              \
    return nn_interface_of(list, sizeof list / sizeof *list, id);                                  \
  }                                                                                                \
  const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {                     \
    static const viv_plugin plugin = {NN_ABI(viv_plugin), .id = {name, sizeof(name) - 1},          \
                                      .version = {number, sizeof(number) - 1},                     \
                                      .get_interface = get_interface};                             \
    return nn_entry(host, &plugin, error);                                                         \
  }

typedef struct nn_interface {
  const char *id;
  const void *api;
} nn_interface;
const void *nn_interface_of(const nn_interface *list, size_t n, viv_str id); /* NULL: not listed */
const viv_plugin *nn_entry(const viv_host *host, const viv_plugin *plugin, viv_error *error);

/* ---- config.json (config.c) ---- */

/* A JSON object that is being read. The first failure is described in error and kept in status;
 * later reads answer their fallback, so that a plugin reads all its keys and checks once.
 *
 *   nn_config c = nn_config_open(host, source->config, "config.json", error);
 *   d->width  = nn_need_int(&c, "hidden_size", 1, 1 << 20);
 *   d->window = nn_int(&c, "sliding_window", 0, 1, INT32_MAX);
 *   if (c.status) return c.status;
 *
 * A key whose value is null counts as absent. */
typedef struct nn_config {
  const viv_host *host;
  const viv_json *node;
  const char *where; /* "config.json", "config.json, rope_scaling" */
  viv_error *error;
  int32_t status;
} nn_config;

nn_config nn_config_open(const viv_host *host, const viv_json *node, const char *where,
                         viv_error *error);
const viv_json *nn_key(const nn_config *c, const char *key); /* NULL: absent or null */
int64_t nn_need_int(nn_config *c, const char *key, int64_t lo, int64_t hi);
int64_t nn_int(nn_config *c, const char *key, int64_t fallback, int64_t lo, int64_t hi);
double nn_num(nn_config *c, const char *key, double fallback, double lo, double hi);
bool nn_flag(nn_config *c, const char *key, bool fallback);
viv_str nn_text(nn_config *c, const char *key, const char *fallback);
/* The first of config.json's "architectures"; empty: it names none. */
viv_str nn_architecture(const nn_config *c);
/* A list of exactly n numbers, each above lo. */
void nn_numbers(nn_config *c, const char *key, float *out, int64_t n, double lo);
/* One integer for all layers or a list with one entry (or null = fallback) per layer. */
int64_t nn_int_of_layer(nn_config *c, const char *key, int64_t layer, int64_t n_layers,
                        int64_t fallback, int64_t lo, int64_t hi);
/* An integer or a list of integers, at most max; answers how many. */
int32_t nn_ints(nn_config *c, const char *key, int32_t *out, int32_t max, int64_t lo, int64_t hi);
/* a must be a multiple of b; what names both for the error. */
void nn_divides(nn_config *c, int64_t a, int64_t b, const char *what);
/* "silu", "gelu", ... of a key as an enum viv_unary. */
int32_t nn_activation(nn_config *c, const char *key, const char *fallback);

/* ---- rotary frequencies (rope.c) ---- */

enum { NN_ROPE_MAX = 512 }; /* half of the rotated dimensions, at most */

/* theta_i and its scaled forms: linear, llama3, yarn, longrope; from `rope_parameters` or from
 * rope_theta and rope_scaling. longrope has two sets: `inv_freq` up to `original` tokens of total
 * length, `long_inv_freq` beyond, for all positions alike. */
typedef struct nn_rope {
  int32_t half;        /* R/2: pairs that are rotated */
  int32_t two_sets;    /* longrope with factors that differ */
  int32_t interleaved; /* `rope_interleaved`: pairs are (2i, 2i+1), not (i, i + R/2) */
  int64_t original;    /* L0 */
  float scale;         /* on cos and sin */
  float inv_freq[NN_ROPE_MAX];
  float long_inv_freq[NN_ROPE_MAX];
} nn_rope;

/* Reads the keys from the whole config.json; a failure is left in c->status. */
void nn_rope_read(nn_config *c, int64_t head_dim, int64_t max_positions, nn_rope *out);

/* ---- weights (weights.c) ---- */

/* One table per kind of layer, an X-macro whose columns are
 *
 *     name in the checkpoint     field   shape                         kind
 *   W("mlp.fc1.weight",          fc1,    ROWS(2 * c->ff), COLS(c->d),  LINEAR)
 *   W("self_attn.q_proj.bias",   bq,     ROWS(c->q), COLS(1),          VECTOR_IF(c->qkv_bias))
 *   W("attn.in_proj.weight",     in_z,   PART(c->in, 2 * c->in, 2 * c->in), COLS(c->d), LINEAR)
 *
 * LINEAR prepares a matrix for compute->linear, VECTOR a small tensor as floats; _IF(x) leaves the
 * field NULL when x is 0. PART takes rows [begin, end) of a tensor that has `total` rows. Axes of
 * length 1 do not count in comparisons. TABLE(NN_FIELD) declares the struct's fields,
 * TABLE(NN_LOAD) loads them from the variables l (the loader) and w (the struct); shapes may name
 * whatever is in scope there. */
#define ROWS(n) 0, (n), (n)
#define PART(begin, end, total) (begin), (end), (total)
#define COLS(n) (n)

#define NN_FIELD(name, field, rows, cols, kind) NN_FIELD_##kind field;
#define NN_FIELD_LINEAR viv_weight *
#define NN_FIELD_LINEAR_IF(x) viv_weight *
#define NN_FIELD_VECTOR const float *
#define NN_FIELD_VECTOR_IF(x) const float *

#define NN_LOAD(name, field, rows, cols, kind)                                                     \
  nn_load(l, name, &w->field, rows, cols, NN_KIND_##kind);
#define NN_KIND_LINEAR NN_MATRIX, true
#define NN_KIND_LINEAR_IF(x) NN_MATRIX, (x)
#define NN_KIND_VECTOR NN_FLOATS, true
#define NN_KIND_VECTOR_IF(x) NN_FLOATS, (x)

enum nn_weight_kind { NN_MATRIX, NN_FLOATS };

/* A walk over the tables checks all tensors and counts their bytes, one notes which names they claim,
 * a last one prepares the weights. */
enum nn_table_walk { NN_CHECK, NN_CLAIM, NN_PREPARE };

typedef struct nn_loader {
  const viv_host *host;
  const viv_compute *compute;
  const viv_model_source *source;
  viv_error *error;
  int32_t pass; /* enum nn_table_walk */
  int32_t status;
  int32_t mismatches;
  char prefix[192];
  char report[400];
  uint64_t bytes;     /* what the weights take from the model's arena */
  struct nn_lot *lot; /* private: names of the checkpoint that nobody has claimed yet */
  int64_t n_strangers, n_named;
  char strangers[200];
} nn_loader;

/* Walks the tables once: calls nn_at, expands the tables with NN_LOAD, and names with nn_ignore what
 * else a checkpoint may hold. Only the last pass writes the fields.
 *
 *   nn_at(l, "%s", "");
 *   LLAMA_TOP(NN_LOAD)
 *   nn_ignore(l, "*rotary_emb.inv_freq");             old releases save what config.json says
 *   if (c->tied) nn_ignore(l, "lm_head.weight");      the embedding once more
 *   for each layer: nn_at(l, "model.layers.%d.", i), LLAMA_LAYER(NN_LOAD) */
typedef void (*nn_tables_fn)(nn_loader *l, void *model);

/* Checks every tensor of the tables, then prepares them. All that are missing or have a wrong shape
 * or dtype are reported in one error, together with those of the checkpoint that no table names: a
 * tensor that is not understood may be a branch that this plugin does not compute, so that the model
 * would open and answer wrongly. */
int32_t nn_weights_load(const viv_host *host, const viv_compute *compute,
                        const viv_model_source *source, nn_tables_fn tables, void *model,
                        viv_error *error);
/* The checking pass alone, for plan(); *bytes: what they will take from the model's arena. */
int32_t nn_weights_check(const viv_host *host, const viv_compute *compute,
                         const viv_model_source *source, nn_tables_fn tables, void *model,
                         uint64_t *bytes, viv_error *error);
/* The names that follow stand under this prefix: nn_at(l, "model.layers.%d.", i). */
void nn_at(nn_loader *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nn_load(nn_loader *l, const char *name, void *field, int64_t begin, int64_t end, int64_t total,
             int64_t cols, enum nn_weight_kind kind, bool wanted);
/* The tensor of that name under the prefix, for loaders of other kinds: true in the walks NN_CHECK and
 * NN_PREPARE when it is there, has this shape (axes of length 1 do not count) and is a float or a
 * block format; what is wrong is reported otherwise. In NN_CLAIM the name is claimed. */
bool nn_find(nn_loader *l, const char *name, int32_t ndim, const int64_t *shape, viv_tensor *out);
/* Tensors of that full name are no part of the model and do no harm: copies and buffers that official
 * releases carry, branches that only training uses. Each * stands for anything:
 * "*rotary_emb.inv_freq", "aux_head.*". Weights that a configuration switches off (biases, say) do
 * not belong here. */
void nn_ignore(nn_loader *l, const char *pattern);
bool nn_has(const viv_host *host, const viv_model_source *source, const char *name);
/* Length of an axis of a tensor, negative ones counted from the last; fallback: it is absent. */
int64_t nn_axis(const viv_host *host, const viv_model_source *source, const char *name,
                int32_t axis, int64_t fallback);
/* The host's compute table, or NULL with an error that says so. */
const viv_compute *nn_compute(const viv_host *host, viv_error *error);

/* ---- scratch (step.c) ---- */

/* All memory of a step is taken before anything is computed, so that nothing can fail half-way
 * through a layer. Take everything, then look at failed once. With arena NULL nothing is taken and
 * bytes counts what would be: the memory plan asks the same function. */
typedef struct nn_scratch {
  const viv_host *host;
  viv_arena *arena;
  uint64_t bytes;
  bool failed;
} nn_scratch;

void *nn_take(nn_scratch *s, int64_t count, size_t size);
float *nn_floats(nn_scratch *s, int64_t rows, int64_t width); /* [rows, width] */

/* ---- batches (step.c) ---- */

/* The rows of one sequence within a batch. */
typedef struct nn_segment {
  int32_t seq;
  int32_t first; /* row */
  int32_t n;     /* rows */
  int32_t tag;   /* the plugin's */
  int64_t base;  /* tokens that the sequence held before this batch */
} nn_segment;

/* Everything about a batch that does not depend on the model: counts, pointers, tokens in range,
 * logit_rows ascending, capture_layers within the range, rows of a sequence side by side. info
 * gives the sizes. segments [n_rows] is filled (base and tag with 0) and *n_segments set. */
int32_t nn_batch_check(const viv_batch *b, const viv_eval_out *out, const viv_token_info *info,
                       nn_segment *segments, int32_t *n_segments, viv_error *error);
static inline bool nn_bit(const uint64_t *bits, int32_t i) {
  return bits && (bits[i / 64] >> (i % 64) & 1);
}
/* VIV_OK, or what the host's poll answers. */
int32_t nn_poll(const viv_batch *b, viv_error *error);
/* rows ids[0..n) of x [., width] side by side in y [n, width] */
void nn_pick(const float *x, int64_t width, const int32_t *ids, int64_t n, float *y);

/* ---- taps (step.c) ---- */

/* 1 when somebody listens to the tensor of that name; a NULL sink has no listeners. */
bool nn_wants(const viv_tap_sink *taps, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Reports x [rows, width] under the name, if wanted. */
void nn_tap_rows(const viv_tap_sink *taps, const float *x, int64_t rows, int64_t width,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Reports x [n], which belongs to the model and not to a sequence. */
void nn_tap_constant(const viv_tap_sink *taps, const float *x, int64_t n, const char *name);
/* Reports a sequence's state x [a, b, c]; trailing axes of 0 are left out. */
void nn_tap_state(const viv_tap_sink *taps, const float *x, int64_t a, int64_t b, int64_t c,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));

/* ---- paged key/value cache (kv.c) ---- */

/* Sequences of a token model. Each layer of a sequence is a list of pages of page_tokens tokens; a
 * page holds keys, then values. Pages are counted: a fork shares them and whoever writes first
 * copies. Besides, a sequence has a block of `state_bytes` that is copied by forks (the states of
 * recurrent layers) and a `tag` for the plugin.
 *
 * Memory comes from the model's arena, which gives nothing back before the model is closed; pages
 * that are let go stand in free lists, one per size, and are used again. When the arena is full
 * the calls answer VIV_NOT_NOW and nothing that the caller can see has changed.
 *
 * Layers count their tokens on their own: a layer that a batch left out (layer ranges, skip sets)
 * stays behind until the sequence is truncated. Layers of 0 bytes hold no pages and only count.
 *
 * A layer with a window lets go of pages that no row can see any more: after a batch it keeps what
 * rows need that stand at the last batch's first token, or `slack` tokens before the end. */
typedef struct nn_kv_layer {
  int64_t k_bytes; /* of one token */
  int64_t v_bytes;
  int64_t window; /* 0: keeps all */
} nn_kv_layer;

typedef struct nn_kv_run {
  viv_kv pages;  /* what attention reads: views of k and v */
  void **k, **v; /* [cap] */
  int64_t cap;   /* pages */
  int64_t len;   /* tokens */
  int64_t first; /* tokens before this one are gone */
} nn_kv_run;

typedef struct nn_kv_seq {
  bool open;
  int32_t tag;
  int64_t last_base; /* tokens before the last batch */
  void *state;       /* [state_bytes] */
  void *kept;        /* the plugin's, for truncation into the last batch; forks have none */
  uint64_t kept_bytes;
  nn_kv_run *run; /* [n_layers] */
} nn_kv_seq;

typedef struct nn_pool {
  const viv_host *host;
  viv_arena *arena;
  struct {
    uint64_t bytes;
    void *free;
  } list[64];
} nn_pool;

typedef struct nn_kv {
  nn_pool pool;
  int32_t n_layers;
  int32_t page_tokens;
  int32_t dtype; /* of keys and values; VIV_F32 */
  int64_t slack;
  int64_t context_max;
  uint64_t state_bytes;
  const nn_kv_layer *layer; /* [n_layers] */
  nn_kv_seq **seq;          /* [n_seqs] */
  int32_t n_seqs;
} nn_kv;

/* layers must live as long as the cache. */
void nn_kv_init(nn_kv *kv, const viv_host *host, viv_arena *arena, const nn_kv_layer *layers,
                int32_t n_layers, int32_t page_tokens, int64_t slack, int64_t context_max,
                uint64_t state_bytes);
/* What a sequence takes: a fixed part and a part per token. */
void nn_kv_plan(const nn_kv *kv, uint64_t *fixed, uint64_t *per_token);

int32_t nn_kv_open(nn_kv *kv, int32_t *seq, viv_error *error);
void nn_kv_close(nn_kv *kv, int32_t seq);
nn_kv_seq *nn_kv_get(const nn_kv *kv, int32_t seq); /* NULL: no such sequence */
int64_t nn_kv_len(const nn_kv *kv, int32_t seq);    /* of its longest layer; -1: no such sequence */

/* Makes tokens [begin, end) of a layer writable: pages exist and belong to this sequence alone. */
int32_t nn_kv_reserve(nn_kv *kv, nn_kv_seq *s, int32_t layer, int64_t begin, int64_t end,
                      viv_error *error);
void *nn_kv_k(const nn_kv *kv, const nn_kv_seq *s, int32_t layer, int64_t token);
void *nn_kv_v(const nn_kv *kv, const nn_kv_seq *s, int32_t layer, int64_t token);
/* After a batch that began at token base: the layer holds len tokens. */
void nn_kv_commit(nn_kv *kv, nn_kv_seq *s, int32_t layer, int64_t base, int64_t len);
/* A block for truncation into the last batch: take it (NULL: no memory), then either let the sequence
 * keep it in the old one's place (NULL: keep none) or give it back. */
void *nn_kv_block(nn_kv *kv, uint64_t bytes);
void nn_kv_block_free(nn_kv *kv, void *block, uint64_t bytes);
void nn_kv_keep(nn_kv *kv, nn_kv_seq *s, void *block, uint64_t bytes);

int32_t nn_kv_truncate(nn_kv *kv, int32_t seq, int64_t len, viv_error *error);
int32_t nn_kv_gather(nn_kv *kv, int32_t seq, int64_t base, const int32_t *index, int32_t n,
                     viv_error *error);
int32_t nn_kv_fork(nn_kv *kv, int32_t seq, int32_t *out, viv_error *error);

/* A sequence as bytes: a header with sizes and a checksum, the state, then keys and values of the
 * tokens that each layer holds; the page size does not matter. restore checks all of it and makes a
 * new sequence, which the plugin may check further before it takes the old one's place (swap). */
int32_t nn_kv_snapshot(const nn_kv *kv, int32_t seq, void *data, uint64_t capacity, uint64_t *bytes,
                       viv_error *error);
int32_t nn_kv_restore(nn_kv *kv, const void *data, uint64_t bytes, int32_t *out, viv_error *error);
void nn_kv_swap(nn_kv *kv, int32_t a, int32_t b);

/* Rows r of k [rows, k_width] and v [rows, v_width] to token slot[r] of the layer. */
void nn_kv_put(const nn_kv *kv, const viv_compute *c, const nn_kv_seq *s, int32_t layer,
               const int64_t *slot, int64_t rows, const float *k, const float *v);
/* Keys (or values) of tokens [begin, end) as out [heads, end - begin, dim]. */
void nn_kv_read(const nn_kv *kv, const viv_compute *c, const nn_kv_seq *s, int32_t layer,
                bool values, int64_t begin, int64_t end, int64_t heads, int64_t dim, float *out);

/* ---- token models (token.c) ---- */

enum { NN_MAX_EOS = 16 };

/* Tokens with a meaning of their own: bos_token_id, pad_token_id (-1: none), eos_token_id. */
typedef struct nn_special {
  int32_t bos, pad, n_eos, eos[NN_MAX_EOS];
} nn_special;
void nn_special_read(nn_config *c, int64_t vocab, nn_special *out);
/* An info with these tokens; the rest is the plugin's to fill. special lives as long as the info. */
viv_token_info nn_info_of(const nn_special *special);

/* What a token model's struct begins with (struct x_model { nn_model nn; ... }), so that the calls
 * below know their way in it. open() fills all of it. */
typedef struct nn_model nn_model;
struct nn_model {
  const viv_host *host;
  const viv_compute *compute;
  nn_kv kv;
  viv_token_info info;
  const viv_weight *table; /* [vocab, d] the embedding */
  /* logits [n, vocab] of x [n, d]; normed [n, d] is scratch of the final norm, if that is wanted */
  void (*logits)(const nn_model *m, const float *x, int64_t n, bool final_norm, float *normed,
                 float *logits);
  /* Can a sequence that came from outside be this model's? NULL: sizes and checksum say enough. */
  bool (*possible)(const nn_model *m, const nn_kv_seq *s);
  char cannot[512]; /* for info.cannot */
  char about[512];  /* what describe() answers */
};

/* Sets host and compute, and all else to zero. */
int32_t nn_model_begin(nn_model *m, const viv_host *host, viv_error *error);
/* The answer of plan(). row_bytes: scratch of one row, its nn_segment not counted. */
void nn_plan_write(viv_memory_plan *out, const nn_kv *kv, uint64_t model_bytes, uint64_t row_bytes);
void nn_close(viv_plugin_model *model);
viv_str nn_describe(const viv_plugin_model *model);

/* The two tables of a token model, with the calls on an nn_model that are the same everywhere; the
 * plugin names the others.
 *
 *   static const viv_model_api model_api = NN_MODEL_API(.plan = plan, .open = open_model);
 *   static const viv_token_api token_api = NN_TOKEN_API(.eval = llama_eval, .embed = nn_embed); */
/* clang-format off */
#define NN_MODEL_API(...)                                                                          \
  {NN_ABI(viv_model_api), .close = nn_close, .describe = nn_describe, __VA_ARGS__}
#define NN_TOKEN_API(...)                                                                          \
  {NN_ABI(viv_token_api), .info = nn_info, .seq_open = nn_seq_open, .seq_close = nn_seq_close,     \
   .seq_len = nn_seq_len, .seq_fork = nn_seq_fork, .snapshot = nn_snapshot, .restore = nn_restore, \
   .head = nn_head, __VA_ARGS__}
/* clang-format on */

int32_t nn_info(const viv_plugin_model *model, viv_token_info *out);
int32_t nn_seq_open(viv_plugin_model *model, int32_t *seq, viv_error *error);
void nn_seq_close(viv_plugin_model *model, int32_t seq);
int64_t nn_seq_len(const viv_plugin_model *model, int32_t seq);
int32_t nn_seq_truncate(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error);
int32_t nn_seq_gather(viv_plugin_model *model, int32_t seq, int64_t base, const int32_t *index,
                      int32_t n, viv_error *error);
int32_t nn_seq_fork(viv_plugin_model *model, int32_t seq, int32_t *out, viv_error *error);
int32_t nn_snapshot(viv_plugin_model *model, int32_t seq, void *data, uint64_t capacity,
                    uint64_t *bytes, viv_error *error);
int32_t nn_restore(viv_plugin_model *model, int32_t seq, const void *data, uint64_t bytes,
                   viv_error *error);
int32_t nn_head(viv_plugin_model *model, const float *rows, int32_t n, int32_t final_norm,
                viv_arena *scratch, float *logits, viv_error *error);
int32_t nn_embed(viv_plugin_model *model, const int32_t *tokens, int32_t n, float *rows,
                 viv_error *error);

/* The first lines of each eval(): b becomes our copy of the batch, which passed nn_batch_check and
 * names only sequences that exist; the segments [n_rows] come from its scratch. What the model itself
 * can't do is refused after that, still before anything is changed. */
int32_t nn_batch_read(const nn_model *m, const viv_batch *batch, const viv_eval_out *out,
                      viv_batch *b, nn_scratch *scratch, nn_segment **segments, int32_t *n_segments,
                      viv_error *error);
int32_t nn_no_scratch(const viv_batch *b, viv_error *error); /* the error of a full scratch arena */
/* How many tokens the layers [begin, end) hold, without those whose attention the batch leaves out:
 * they must agree. -1: it leaves out all of them. */
int32_t nn_base(const nn_kv_seq *s, const viv_batch *b, int32_t begin, int32_t end, int64_t *base,
                viv_error *error);
/* The segment's sequence will have `total` tokens: does the model allow so many? */
int32_t nn_context_check(const nn_model *m, const nn_segment *g, int64_t total, viv_error *error);
/* The batch's rows x [n_rows, d]: embeddings of its tokens, or what it brings. Tap: "embed". */
void nn_enter(const nn_model *m, const viv_batch *b, float *x);

/* ---- self-test ---- */

/* An optional interface of a plugin: checks of its own arithmetic that need no checkpoint. run
 * answers VIV_OK, or VIV_BUG and what failed. */
#define NN_SELFTEST_ID "viv.selftest/1"
typedef struct nn_selftest_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;
  int32_t (*run)(const viv_host *host, viv_error *error); /* [scan] */
} nn_selftest_api;

#endif
