/* Llama and its siblings: config to sizes, weights to tables, sessions to the cache. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "llama/llama.h"

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
  nn_special_read(&k, c->vocab, &c->special);
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

/* Cache: per layer keys and values in f32, and after them each token's id and position. */
static void cache_layers(const struct llama_config *c, nn_kv_layer *layer) {
  int64_t bytes = c->kv * (int64_t)sizeof(float);
  for (int32_t i = 0; i < c->layers; i++)
    layer[i] = (nn_kv_layer){bytes, bytes, c->windowed[i] && c->drops ? c->window : 0};
  layer[c->layers] = (nn_kv_layer){sizeof(int32_t), sizeof(int32_t), 0};
}

static int32_t begin(struct llama_model *m, const viv_host *host, const viv_model_source *source,
                     viv_error *error) {
  int32_t rc = nn_model_begin(&m->nn, host, error);
  if (rc < 0) return rc;
  bool tied = !nn_has(host, source, "lm_head.weight");
  return llama_config_read(host, source->config, tied, &m->config, error);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct llama_model m = {0};
  const struct llama_config *c = &m.config;
  uint64_t weights = 0;
  int32_t rc = begin(&m, host, source, error);
  if (rc >= 0) rc = nn_weights_check(host, m.nn.compute, source, tables, &m, &weights, error);
  if (rc < 0) return rc;
  nn_kv_layer layer[LLAMA_MAX_LAYERS + 1];
  cache_layers(c, layer);
  nn_kv_init(&m.nn.kv, host, NULL, layer, c->layers + 1, LLAMA_PAGE, LLAMA_SLACK, c->context, 0);
  struct llama_step s;
  nn_scratch one = {.host = host}, many = {.host = host};
  llama_take(&one, c, 64, &s);
  llama_take(&many, c, 128, &s);
  uint64_t row = (many.bytes - one.bytes + 63) / 64;
  uint64_t bytes = weights + sizeof m + (uint64_t)c->layers * sizeof(struct llama_layer) +
                   sizeof(nn_kv_layer) * (uint64_t)(c->layers + 1) + 1024;
  nn_plan_write(out, &m.nn.kv, bytes, row + sizeof *s.pos + sizeof *s.slot);
  return VIV_OK;
}

static void explain(struct llama_model *m) {
  const struct llama_config *c = &m->config;
  viv_token_info *i = &m->nn.info;
  *i = nn_info_of(&c->special);
  i->caps = VIV_CAP_STRICT_ROWS | VIV_CAP_HIDDEN_IO | VIV_CAP_LAYER_RANGE | VIV_CAP_SKIP |
            VIV_CAP_TREE_MASK | VIV_CAP_KV_REPLACE | VIV_CAP_KV_NONE | VIV_CAP_EMBED_IN |
            VIV_CAP_TRUNCATE_KEPT | VIV_CAP_GATHER | VIV_CAP_FORK | VIV_CAP_SNAPSHOT | VIV_CAP_HEAD;
  if (!c->window) i->caps |= VIV_CAP_BIDIRECTIONAL;
  if (!c->drops) i->caps |= VIV_CAP_TRUNCATE;
  i->n_layers = c->layers;
  i->d_model = (int32_t)c->d;
  i->vocab_size = (int32_t)c->vocab;
  i->context_max = c->context;
  i->cannot = nn_str(m->nn.cannot);
  snprintf(m->nn.cannot, sizeof m->nn.cannot,
           "%s%s%sexpert override, encoder, auxiliary modules and births: a dense decoder has none",
           c->window ? "full mask: the sliding window is causal; " : "",
           c->drops ? "truncation to any length: layers with a sliding window let go of old keys, "
                      "so that it reaches into the last batch or back 512 tokens; "
                    : "",
           c->rope.two_sets ? "a batch across the original context length: all its rows use the "
                              "long rotary set, as one forward of that length does; "
                            : "");
  snprintf(m->nn.about, sizeof m->nn.about,
           "{\"tasks\": [\"generate\", \"forward\", \"score\"], \"layers\": %d, \"d_model\": %lld, "
           "\"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"ff\": %lld, "
           "\"vocab\": %lld, \"context\": %lld, \"window\": %lld}",
           (int)c->layers, (long long)c->d, (long long)c->heads, (long long)c->kv_heads,
           (long long)c->head_dim, (long long)c->ff, (long long)c->vocab, (long long)c->context,
           (long long)c->window);
}

/* Can the ids and positions that a saved sequence brings be this model's? */
static bool possible(const nn_model *model, const nn_kv_seq *s) {
  const struct llama_config *c = &((const struct llama_model *)model)->config;
  bool good = s->tag == 0 || (s->tag == 1 && c->rope.two_sets);
  for (int64_t t = 0; good && t < s->run[c->layers].len; t++) {
    int32_t token = *(int32_t *)nn_kv_k(&model->kv, s, c->layers, t);
    int32_t pos = *(int32_t *)nn_kv_v(&model->kv, s, c->layers, t);
    good = token >= -1 && token < c->vocab && pos >= 0 && pos < c->context;
  }
  for (int32_t l = 0; good && l < c->layers; l++) good = s->run[l].len <= s->run[c->layers].len;
  return good;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  viv_arena *arena = source->arena;
  struct llama_model *m = host->arena_alloc(arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for a model");
  const struct llama_config *c = &m->config;
  int32_t rc = begin(m, host, source, error);
  if (rc < 0) return rc;
  m->layer = host->arena_alloc(arena, (uint64_t)c->layers * sizeof *m->layer);
  m->kv_layer = host->arena_alloc(arena, (uint64_t)(c->layers + 1) * sizeof *m->kv_layer);
  if (!m->layer || !m->kv_layer)
    return nn_fail(error, VIV_NOT_NOW, "open", "no memory for %d layers", (int)c->layers);
  rc = nn_weights_load(host, m->nn.compute, source, tables, m, error);
  if (rc < 0) return rc;
  m->head = c->tied ? m->embed : m->lm_head;
  cache_layers(c, m->kv_layer);
  nn_kv_init(&m->nn.kv, host, arena, m->kv_layer, c->layers + 1, LLAMA_PAGE, LLAMA_SLACK,
             c->context, 0);
  m->nn.table = m->embed;
  m->nn.logits = llama_logits;
  m->nn.possible = possible;
  explain(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

/* ---- the plugin ---- */

static const viv_model_api model_api = NN_MODEL_API(.plan = plan, .open = open_model);
static const viv_token_api token_api =
    NN_TOKEN_API(.eval = llama_eval, .seq_truncate = nn_seq_truncate, .seq_gather = nn_seq_gather,
                 .embed = nn_embed);

NN_PLUGIN("llama", "0.1.0", {VIV_MODEL_ID, &model_api}, {VIV_TOKEN_MODEL_ID, &token_api},
          {NN_SELFTEST_ID, &llama_selftest})
