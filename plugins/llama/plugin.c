/* Llama and its siblings: config to sizes, weights to tables, sessions to the cache. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "llama/llama.h"

static struct llama_model *self(viv_plugin_model *model) {
  return (struct llama_model *)model;
}
static const struct llama_model *self_const(const viv_plugin_model *model) {
  return (const struct llama_model *)model;
}

/* ---- config.json ---- */

static void read_windows(nn_config *k, bool qwen, bool phi_or_mistral, struct llama_config *c) {
  if (!phi_or_mistral && !(qwen && nn_flag(k, "use_sliding_window", false))) return;
  int64_t window = nn_int(k, "sliding_window", 0, 1, INT32_MAX);
  if (window >= c->context) window = 0; /* never full */
  int64_t from = qwen ? nn_int(k, "max_window_layers", c->layers, 0, LLAMA_MAX_LAYERS) : 0;
  const viv_json *types = qwen ? nn_key(k, "layer_types") : NULL;
  for (int32_t i = 0; i < c->layers && window; i++) {
    c->windowed[i] = i >= from;
    if (types)
      c->windowed[i] =
          nn_is(k->host->json_string(k->host->json_item(types, i)), "sliding_attention");
    if (c->windowed[i]) c->window = window;
  }
  c->drops = c->window && c->window + LLAMA_SLACK < c->context;
}

int32_t llama_config_read(const viv_host *host, const viv_json *json, bool tied_default,
                          struct llama_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, json, "config.json", error);
  memset(c, 0, sizeof *c);
  if (k.status) return k.status;
  viv_str type = nn_text(&k, "model_type", "llama");
  bool qwen = nn_is(type, "qwen2"), mistral = nn_is(type, "mistral"), phi = nn_is(type, "phi3");
  if (!k.status && !qwen && !mistral && !phi && !nn_is(type, "llama"))
    return nn_fail(error, VIV_NEVER, "config.json",
                   "model_type is \"%.*s\"; this plugin knows llama, mistral, qwen2 and phi3",
                   (int)(type.len > 60 ? 60 : type.len), type.ptr);

  c->d = nn_need_int(&k, "hidden_size", 1, 1 << 20);
  c->ff = nn_need_int(&k, "intermediate_size", 1, 1 << 22);
  c->layers = (int32_t)nn_need_int(&k, "num_hidden_layers", 1, LLAMA_MAX_LAYERS);
  c->heads = nn_need_int(&k, "num_attention_heads", 1, 1 << 14);
  c->kv_heads = nn_int(&k, "num_key_value_heads", c->heads, 1, 1 << 14);
  nn_divides(&k, c->heads, c->kv_heads, "num_attention_heads over num_key_value_heads");
  if (!nn_key(&k, "head_dim"))
    nn_divides(&k, c->d, c->heads, "hidden_size over num_attention_heads");
  c->head_dim = nn_int(&k, "head_dim", c->d / c->heads, 2, 1 << 12);
  c->q = c->heads * c->head_dim;
  c->kv = c->kv_heads * c->head_dim;
  c->qkv = c->q + 2 * c->kv;
  c->vocab = nn_need_int(&k, "vocab_size", 1, 1 << 28);
  c->context = nn_int(&k, "max_position_embeddings", 2048, 1, 1 << 30);
  c->eps = (float)nn_num(&k, "rms_norm_eps", 1e-6, 0, 1);
  c->act = nn_activation(&k, "hidden_act", "silu");

  bool bias = nn_flag(&k, "attention_bias", false) && !qwen && !mistral && !phi;
  c->qkv_bias = bias || qwen;
  c->o_bias = bias;
  c->mlp_bias = nn_flag(&k, "mlp_bias", false) && !qwen && !mistral && !phi;
  c->fused = phi;
  c->tied = nn_flag(&k, "tie_word_embeddings", tied_default);

  nn_rope_read(&k, c->head_dim, c->context, &c->rope);
  read_windows(&k, qwen, mistral || phi, c);
  c->bos = (int32_t)nn_int(&k, "bos_token_id", -1, -1, c->vocab - 1);
  c->pad = (int32_t)nn_int(&k, "pad_token_id", -1, -1, c->vocab - 1);
  c->n_eos = nn_ints(&k, "eos_token_id", c->eos, LLAMA_MAX_EOS, 0, c->vocab - 1);
  return k.status;
}

/* ---- weights ---- */

static void tables(nn_loader *l, void *model) {
  struct llama_model *m = model;
  const struct llama_config *c = &m->config;
  struct llama_layer none; /* the checking pass writes no fields, and plan has no layers */
  {
    struct llama_model *w = m;
    nn_at(l, "%s", "");
    LLAMA_TOP(NN_LOAD)
  }
  nn_ignore(l, "*rotary_emb.inv_freq"); /* saved by old releases; config.json says the same */
  if (c->tied) nn_ignore(l, "lm_head.weight"); /* the embedding once more */
  for (int32_t i = 0; i < c->layers; i++) {
    struct llama_layer *w = m->layer ? &m->layer[i] : &none;
    nn_at(l, "model.layers.%d.", (int)i);
    LLAMA_LAYER(NN_LOAD)
    if (c->fused) {
      LLAMA_FUSED(NN_LOAD)
    } else {
      LLAMA_SPLIT(NN_LOAD)
    }
  }
}

static bool has_tensor(const viv_host *host, const viv_model_source *source, const char *name) {
  viv_tensor t = {.struct_size = sizeof t};
  return host->tensor_find(source->checkpoint, nn_str(name), &t) >= 0;
}

/* Cache: per layer keys and values in f32, and after them each token's id and position. */
static void cache_layers(const struct llama_config *c, nn_kv_layer *layer) {
  int64_t bytes = c->kv * (int64_t)sizeof(float);
  for (int32_t i = 0; i < c->layers; i++)
    layer[i] = (nn_kv_layer){bytes, bytes, c->windowed[i] && c->drops ? c->window : 0};
  layer[c->layers] = (nn_kv_layer){sizeof(int32_t), sizeof(int32_t), 0};
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct llama_model m = {.host = host, .compute = nn_compute(host, error)};
  struct llama_config *c = &m.config;
  if (!m.compute) return VIV_NEVER;
  int32_t rc = llama_config_read(host, source->config, !has_tensor(host, source, "lm_head.weight"),
                                 c, error);
  uint64_t weights = 0, fixed, token;
  if (rc >= 0) rc = nn_weights_check(host, m.compute, source, tables, &m, &weights, error);
  if (rc < 0) return rc;
  nn_kv_layer layer[LLAMA_MAX_LAYERS + 1];
  cache_layers(c, layer);
  nn_kv_init(&m.kv, host, NULL, layer, c->layers + 1, LLAMA_PAGE, LLAMA_SLACK, c->context, 0);
  nn_kv_plan(&m.kv, &fixed, &token);
  struct llama_step s;
  nn_scratch one = {.host = host}, many = {.host = host};
  llama_take(&one, c, 64, &s);
  llama_take(&many, c, 128, &s);
  uint64_t row = (many.bytes - one.bytes + 63) / 64;
  viv_memory_plan p = {.struct_size = out->struct_size};
  p.model_bytes = weights + sizeof m + (uint64_t)c->layers * sizeof(struct llama_layer) +
                  sizeof(nn_kv_layer) * (uint64_t)(c->layers + 1) + 1024;
  p.session_bytes = fixed;
  p.session_token_bytes = token;
  p.step_row_bytes = row + sizeof(nn_segment) + sizeof(int32_t) + sizeof(int64_t);
  p.step_bytes = 64 * 32;
  p.context_max = c->context;
  memcpy(out, &p, out->struct_size < sizeof p ? out->struct_size : sizeof p);
  return VIV_OK;
}

static void explain(struct llama_model *m) {
  const struct llama_config *c = &m->config;
  snprintf(m->cannot, sizeof m->cannot,
           "%s%s%sexpert override, encoder, auxiliary modules and births: a dense decoder has none",
           c->window ? "full mask: the sliding window is causal; " : "",
           c->drops ? "truncation to any length: layers with a sliding window let go of old keys, "
                      "so that it reaches into the last batch or back 512 tokens; "
                    : "",
           c->rope.two_sets ? "a batch across the original context length: all its rows use the "
                              "long rotary set, as one forward of that length does; "
                            : "");
  snprintf(m->about, sizeof m->about,
           "{\"tasks\": [\"generate\", \"forward\", \"score\"], \"layers\": %d, \"d_model\": %lld, "
           "\"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"ff\": %lld, "
           "\"vocab\": %lld, \"context\": %lld, \"window\": %lld}",
           (int)c->layers, (long long)c->d, (long long)c->heads, (long long)c->kv_heads,
           (long long)c->head_dim, (long long)c->ff, (long long)c->vocab, (long long)c->context,
           (long long)c->window);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  const viv_compute *compute = nn_compute(host, error);
  if (!compute) return VIV_NEVER;
  struct llama_config config;
  int32_t rc = llama_config_read(host, source->config, !has_tensor(host, source, "lm_head.weight"),
                                 &config, error);
  if (rc < 0) return rc;
  uint64_t layers = (uint64_t)config.layers;
  struct llama_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) goto no_memory;
  m->layer = host->arena_alloc(source->arena, layers * sizeof *m->layer);
  m->kv_layer = host->arena_alloc(source->arena, (layers + 1) * sizeof *m->kv_layer);
  if (!m->layer || !m->kv_layer) goto no_memory;
  m->host = host;
  m->compute = compute;
  m->config = config;
  rc = nn_weights_load(host, compute, source, tables, m, error);
  if (rc < 0) return rc;
  m->head = config.tied ? m->embed : m->lm_head;
  cache_layers(&config, m->kv_layer);
  nn_kv_init(&m->kv, host, source->arena, m->kv_layer, config.layers + 1, LLAMA_PAGE, LLAMA_SLACK,
             config.context, 0);
  explain(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;

no_memory:
  return nn_fail(error, VIV_NOT_NOW, "open", "no memory for %d layers", (int)config.layers);
}

static void close_model(viv_plugin_model *model) {
  (void)model; /* everything is the arena's */
}

static viv_str describe(const viv_plugin_model *model) {
  return nn_str(self_const(model)->about);
}

/* ---- viv.token-model/1 ---- */

int32_t llama_info(const viv_plugin_model *model, viv_token_info *out) {
  const struct llama_model *m = self_const(model);
  const struct llama_config *c = &m->config;
  viv_token_info i = {.struct_size = out->struct_size};
  i.caps = VIV_CAP_STRICT_ROWS | VIV_CAP_HIDDEN_IO | VIV_CAP_LAYER_RANGE | VIV_CAP_SKIP |
           VIV_CAP_TREE_MASK | VIV_CAP_KV_REPLACE | VIV_CAP_KV_NONE | VIV_CAP_EMBED_IN |
           VIV_CAP_TRUNCATE_KEPT | VIV_CAP_GATHER | VIV_CAP_FORK | VIV_CAP_SNAPSHOT | VIV_CAP_HEAD;
  if (!c->window) i.caps |= VIV_CAP_BIDIRECTIONAL;
  if (!c->drops) i.caps |= VIV_CAP_TRUNCATE;
  i.n_layers = c->layers;
  i.d_model = (int32_t)c->d;
  i.vocab_size = (int32_t)c->vocab;
  i.context_max = c->context;
  i.eos = c->eos;
  i.n_eos = c->n_eos;
  i.bos = c->bos;
  i.pad = c->pad;
  i.decoder_start = -1;
  i.mask_token = -1;
  i.cannot = nn_str(m->cannot);
  memcpy(out, &i, out->struct_size < sizeof i ? out->struct_size : sizeof i);
  return VIV_OK;
}

static int32_t seq_open(viv_plugin_model *model, int32_t *seq, viv_error *error) {
  return nn_kv_open(&self(model)->kv, seq, error);
}
static void seq_close(viv_plugin_model *model, int32_t seq) {
  nn_kv_close(&self(model)->kv, seq);
}
static int64_t seq_len(const viv_plugin_model *model, int32_t seq) {
  return nn_kv_len(&self_const(model)->kv, seq);
}
static int32_t seq_truncate(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error) {
  return nn_kv_truncate(&self(model)->kv, seq, len, error);
}
static int32_t seq_gather(viv_plugin_model *model, int32_t seq, int64_t base, const int32_t *index,
                          int32_t n, viv_error *error) {
  return nn_kv_gather(&self(model)->kv, seq, base, index, n, error);
}
static int32_t seq_fork(viv_plugin_model *model, int32_t seq, int32_t *out, viv_error *error) {
  return nn_kv_fork(&self(model)->kv, seq, out, error);
}
static int32_t snapshot(viv_plugin_model *model, int32_t seq, void *data, uint64_t capacity,
                        uint64_t *bytes, viv_error *error) {
  return nn_kv_snapshot(&self(model)->kv, seq, data, capacity, bytes, error);
}

static int32_t restore(viv_plugin_model *model, int32_t seq, const void *data, uint64_t bytes,
                       viv_error *error) {
  struct llama_model *m = self(model);
  const struct llama_config *c = &m->config;
  if (!nn_kv_get(&m->kv, seq))
    return nn_fail(error, VIV_BAD_INPUT, "restore", "there is no sequence %d", (int)seq);
  int32_t fresh;
  int32_t rc = nn_kv_restore(&m->kv, data, bytes, &fresh, error);
  if (rc < 0) return rc;
  const nn_kv_seq *s = nn_kv_get(&m->kv, fresh);
  bool good = s->tag == 0 || (s->tag == 1 && c->rope.two_sets);
  for (int64_t t = 0; good && t < s->run[c->layers].len; t++) {
    int32_t token = *(int32_t *)nn_kv_k(&m->kv, s, c->layers, t);
    int32_t pos = *(int32_t *)nn_kv_v(&m->kv, s, c->layers, t);
    good = token >= -1 && token < c->vocab && pos >= 0 && pos < c->context;
  }
  for (int32_t l = 0; good && l < c->layers; l++) good = s->run[l].len <= s->run[c->layers].len;
  if (good) nn_kv_swap(&m->kv, fresh, seq);
  nn_kv_close(&m->kv, fresh);
  return good ? VIV_OK
              : nn_fail(error, VIV_BAD_INPUT, "restore",
                        "the saved sequence holds tokens that this model does not have");
}

static int32_t head(viv_plugin_model *model, const float *rows, int32_t n, int32_t final_norm,
                    viv_arena *scratch, float *logits, viv_error *error) {
  struct llama_model *m = self(model);
  nn_scratch a = {.host = m->host, .arena = scratch};
  if (n < 0 || (n && (!rows || !logits)))
    return nn_fail(error, VIV_BAD_INPUT, "head", "%d rows, or no memory given", (int)n);
  float *normed = final_norm ? nn_floats(&a, n, m->config.d) : NULL;
  if (final_norm && !normed) return nn_fail(error, VIV_NOT_NOW, "head", "no scratch memory");
  if (n) llama_logits(m, rows, n, final_norm != 0, normed, logits);
  return VIV_OK;
}

static int32_t embed(viv_plugin_model *model, const int32_t *tokens, int32_t n, float *rows,
                     viv_error *error) {
  struct llama_model *m = self(model);
  return nn_embed(m->compute, m->embed, m->config.vocab, tokens, n, rows, error);
}

/* ---- the plugin ---- */

static const void *get_interface(viv_str id) {
  static const viv_model_api model_api = {
      .struct_size = sizeof model_api,
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .plan = plan,
      .open = open_model,
      .close = close_model,
      .describe = describe,
  };
  static const viv_token_api token_api = {
      .struct_size = sizeof token_api,
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .info = llama_info,
      .seq_open = seq_open,
      .seq_close = seq_close,
      .seq_len = seq_len,
      .eval = llama_eval,
      .seq_truncate = seq_truncate,
      .seq_gather = seq_gather,
      .seq_fork = seq_fork,
      .snapshot = snapshot,
      .restore = restore,
      .head = head,
      .embed = embed,
  };
  if (nn_is(id, VIV_MODEL_ID)) return &model_api;
  if (nn_is(id, VIV_TOKEN_MODEL_ID)) return &token_api;
  if (nn_is(id, NN_SELFTEST_ID)) return &llama_selftest;
  return NULL;
}

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  static const viv_plugin plugin = {
      .struct_size = sizeof plugin,
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .id = {"llama", 5},
      .version = {"0.1.0", 5},
      .get_interface = get_interface,
  };
  return nn_entry(host, &plugin, error);
}
