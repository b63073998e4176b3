/* SambaY: config to sizes, weights to tables, sessions to cache and states. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sambay/sambay.h"

/* ---- config.json ---- */

/* The mamba_* keys may be absent; then the shapes of layer 0 say the same. */
static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct sambay_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  memset(c, 0, sizeof *c);
  if (k.status) return k.status;
  c->d = nn_need_int(&k, "hidden_size", 2, 1 << 18);
  c->ff = nn_need_int(&k, "intermediate_size", 1, 1 << 20);
  c->layers = (int32_t)nn_need_int(&k, "num_hidden_layers", 4, SAMBAY_MAX_LAYERS);
  c->heads = nn_need_int(&k, "num_attention_heads", 2, 1 << 14);
  c->kv_heads = nn_need_int(&k, "num_key_value_heads", 2, 1 << 14);
  c->vocab = nn_need_int(&k, "vocab_size", 1, 1 << 28);
  c->context = nn_int(&k, "max_position_embeddings", 262144, 1, 1 << 30);
  c->eps = (float)nn_num(&k, "layer_norm_eps", 1e-5, 0, 1);
  nn_divides(&k, c->layers, 4, "num_hidden_layers over 4");
  nn_divides(&k, c->kv_heads, 2, "num_key_value_heads over 2 (differential attention pairs them)");
  nn_divides(&k, c->heads, c->kv_heads, "num_attention_heads over num_key_value_heads");
  nn_divides(&k, c->d, c->heads, "hidden_size over num_attention_heads");
  nn_int(&k, "mb_per_layer", 2, 2, 2);
  if (nn_activation(&k, "hidden_act", "silu") != VIV_SILU && !k.status)
    return nn_fail(error, VIV_NEVER, "config.json", "hidden_act must be silu");
  c->half = c->layers / 2;
  c->head_dim = c->d / c->heads;
  c->q = c->heads * c->head_dim;
  c->kv = c->kv_heads * c->head_dim;
  for (int32_t i = 1; i < c->half; i += 2) {
    c->window[i] = nn_int_of_layer(&k, "sliding_window", i, c->layers, 0, 1, INT32_MAX);
    if (!c->window[i] && !k.status)
      return nn_fail(error, VIV_BAD_INPUT, "config.json",
                     "sliding_window gives layer %d no window; it must be a whole number, or a "
                     "list with one at every odd layer below %d",
                     (int)i, (int)c->half);
  }

  int64_t expand = nn_int(&k, "mamba_expand", 0, 1, 64);
  c->d_in = expand ? expand * c->d : nn_axis(host, source, "model.layers.0.attn.D", 0, 2 * c->d);
  c->N = nn_int(&k, "mamba_d_state", nn_axis(host, source, "model.layers.0.attn.A_log", -1, 16), 1,
                1024);
  c->K = nn_int(&k, "mamba_d_conv",
                nn_axis(host, source, "model.layers.0.attn.conv1d.weight", -1, 4), 2, 64);
  int64_t rank = (c->d + 15) / 16;
  const viv_json *named = nn_key(&k, "mamba_dt_rank");
  if (host->json_type(named) == VIV_JSON_NUMBER)
    rank = nn_int(&k, "mamba_dt_rank", rank, 1, 1 << 16);
  else if (!named)
    rank = nn_axis(host, source, "model.layers.0.attn.dt_proj.weight", -1, rank);
  else if (!nn_is(nn_text(&k, "mamba_dt_rank", "auto"), "auto") && !k.status)
    return nn_fail(error, VIV_BAD_INPUT, "config.json",
                   "mamba_dt_rank must be a whole number or \"auto\"");
  c->R = rank;
  c->dt_bc = c->R + 2 * c->N;
  c->tied = nn_flag(&k, "tie_word_embeddings", nn_axis(host, source, "lm_head.weight", 0, 0) == 0);
  c->head_bias = nn_flag(&k, "lm_head_bias", false);
  nn_special_read(&k, c->vocab, &c->special);
  if (!k.status && (c->d_in < 1 || c->d_in > 1 << 20 || c->N < 1 || c->N > 1024 || c->K < 2 ||
                    c->K > 64 || c->R < 1 || c->R > 1 << 16))
    return nn_fail(error, VIV_BAD_INPUT, "model.layers.0.attn",
                   "the shapes say d_in %lld, d_state %lld, d_conv %lld, dt_rank %lld",
                   (long long)c->d_in, (long long)c->N, (long long)c->K, (long long)c->R);
  return k.status;
}

/* ---- weights ---- */

static void tables(nn_loader *l, void *model) {
  struct sambay_model *m = model;
  const struct sambay_config *c = &m->config;
  struct sambay_layer none; /* the checking pass writes no fields, and plan has no layers */
  {
    struct sambay_model *w = m;
    nn_at(l, "%s", "");
    SAMBAY_TOP(NN_LOAD)
  }
  if (c->tied) nn_ignore(l, "lm_head.weight"); /* the embedding once more */
  for (int32_t i = 0; i < c->layers; i++) {
    struct sambay_layer *w = m->layer ? &m->layer[i] : &none;
    enum sambay_mixer mixer = sambay_schedule(i, c->layers);
    int64_t rows = mixer == SAMBAY_CROSS ? c->q : c->q + 2 * c->kv; /* of Wqkv */
    nn_at(l, "model.layers.%d.", (int)i);
    SAMBAY_LAYER(NN_LOAD)
    if (mixer == SAMBAY_MAMBA) {
      SAMBAY_MAMBA_WEIGHTS(NN_LOAD)
    } else if (mixer == SAMBAY_GMU) {
      SAMBAY_GMU_WEIGHTS(NN_LOAD)
    } else {
      SAMBAY_QUERY_WEIGHTS(NN_LOAD)
      if (mixer != SAMBAY_CROSS) {
        SAMBAY_KEY_WEIGHTS(NN_LOAD)
      }
    }
  }
}

/* What follows from the weights once and for all: A, lambda, the scaled norm, heads' places. */
static bool derive(struct sambay_model *m, viv_arena *arena) {
  const struct sambay_config *c = &m->config;
  const viv_host *host = m->nn.host;
  int64_t D = c->head_dim;
  m->k_offset = host->arena_alloc(arena, (uint64_t)c->heads * sizeof *m->k_offset);
  m->v_offset = host->arena_alloc(arena, (uint64_t)c->heads * sizeof *m->v_offset);
  if (!m->k_offset || !m->v_offset) return false;
  for (int64_t h = 0; h < c->heads; h++) {
    int64_t pair = h / 2 / (c->heads / c->kv_heads);
    m->k_offset[h] = (int32_t)((2 * pair + h % 2) * D);
    m->v_offset[h] = (int32_t)(2 * pair * D);
  }
  for (int32_t i = 0; i < c->layers; i++) {
    struct sambay_layer *w = &m->layer[i];
    w->mixer = sambay_schedule(i, c->layers);
    if (w->mixer == SAMBAY_MAMBA) {
      w->a = host->arena_alloc(arena, (uint64_t)(c->d_in * c->N) * sizeof *w->a);
      if (!w->a) return false;
      for (int64_t j = 0; j < c->d_in * c->N; j++) w->a[j] = (float)-exp((double)w->a_log[j]);
    } else if (w->mixer != SAMBAY_GMU) {
      w->subln = host->arena_alloc(arena, (uint64_t)(2 * D) * sizeof *w->subln);
      if (!w->subln) return false;
      for (int64_t j = 0; j < 2 * D; j++)
        w->subln[j] = (float)((double)w->subln_raw[j] * (1 - sambay_lambda_init(i)));
      w->lambda = sambay_lambda(w, D, i);
    }
  }
  return true;
}

static void cache_layers(const struct sambay_config *c, nn_kv_layer *layer) {
  int64_t bytes = c->kv * (int64_t)sizeof(float);
  for (int32_t i = 0; i <= c->half + 1; i++)
    layer[i] = i % 2 ? (nn_kv_layer){bytes, bytes, i < c->half ? c->window[i] : 0}
                     : (nn_kv_layer){0, 0, 0};
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct sambay_model m = {0};
  const struct sambay_config *c = &m.config;
  uint64_t weights = 0;
  int32_t rc = nn_model_begin(&m.nn, host, error);
  if (rc >= 0) rc = config_read(host, source, &m.config, error);
  if (rc >= 0) rc = nn_weights_check(host, m.nn.compute, source, tables, &m, &weights, error);
  if (rc < 0) return rc;
  nn_kv_layer layer[SAMBAY_MAX_LAYERS];
  cache_layers(c, layer);
  nn_kv_init(&m.nn.kv, host, NULL, layer, c->half + 2, SAMBAY_PAGE, 0, c->context,
             sambay_state_bytes(c));
  struct sambay_step s;
  nn_scratch one = {.host = host}, many = {.host = host};
  sambay_take(&one, c, 64, &s);
  sambay_take(&many, c, 128, &s);
  uint64_t row = (many.bytes - one.bytes + 63) / 64;
  uint64_t bytes = weights + sizeof m +
                   (uint64_t)c->layers * (sizeof(struct sambay_layer) + sizeof(nn_kv_layer)) +
                   (uint64_t)((c->half / 2 + 1) * c->d_in * c->N) * sizeof(float) +
                   (uint64_t)(c->layers * 2 * c->head_dim + 2 * c->heads) * sizeof(float) + 4096;
  nn_plan_write(out, &m.nn.kv, bytes, row);
  return VIV_OK;
}

static const char cannot[] =
    "truncation to any length and gather: a recurrent state can't be rolled back (KEEP_STATES "
    "keeps those of the last batch; or fork); tree and full masks, replaced tokens: a recurrence "
    "takes tokens in one order; layer ranges and hidden rows: the upper layers read a memory "
    "that a middle layer made of the same tokens (capture_layers works); experts, encoder, "
    "auxiliary modules and births: it has none";

static void explain(struct sambay_model *m) {
  const struct sambay_config *c = &m->config;
  viv_token_info *i = &m->nn.info;
  *i = nn_info_of(&c->special);
  i->caps = VIV_CAP_STRICT_ROWS | VIV_CAP_SKIP | VIV_CAP_KV_NONE | VIV_CAP_EMBED_IN |
            VIV_CAP_TRUNCATE_KEPT | VIV_CAP_FORK | VIV_CAP_SNAPSHOT | VIV_CAP_HEAD;
  i->n_layers = c->layers;
  i->d_model = (int32_t)c->d;
  i->vocab_size = (int32_t)c->vocab;
  i->context_max = c->context;
  i->cannot = nn_str(cannot);
  snprintf(m->nn.about, sizeof m->nn.about,
           "{\"tasks\": [\"generate\", \"forward\", \"score\"], \"layers\": %d, \"d_model\": %lld, "
           "\"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"ff\": %lld, "
           "\"vocab\": %lld, \"context\": %lld, \"d_inner\": %lld, \"d_state\": %lld, "
           "\"window\": %lld}",
           (int)c->layers, (long long)c->d, (long long)c->heads, (long long)c->kv_heads,
           (long long)c->head_dim, (long long)c->ff, (long long)c->vocab, (long long)c->context,
           (long long)c->d_in, (long long)c->N, (long long)c->window[1]);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  viv_arena *arena = source->arena;
  struct sambay_model *m = host->arena_alloc(arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for a model");
  const struct sambay_config *c = &m->config;
  int32_t rc = nn_model_begin(&m->nn, host, error);
  if (rc >= 0) rc = config_read(host, source, &m->config, error);
  if (rc < 0) return rc;
  m->layer = host->arena_alloc(arena, (uint64_t)c->layers * sizeof *m->layer);
  m->kv_layer = host->arena_alloc(arena, (uint64_t)(c->half + 2) * sizeof *m->kv_layer);
  if (!m->layer || !m->kv_layer) goto no_memory;
  rc = nn_weights_load(host, m->nn.compute, source, tables, m, error);
  if (rc < 0) return rc;
  if (!derive(m, arena)) goto no_memory;
  m->head = c->tied ? m->embed : m->lm_head;
  cache_layers(c, m->kv_layer);
  nn_kv_init(&m->nn.kv, host, arena, m->kv_layer, c->half + 2, SAMBAY_PAGE, 0, c->context,
             sambay_state_bytes(c));
  m->nn.table = m->embed;
  m->nn.logits = sambay_logits;
  explain(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;

no_memory:
  return nn_fail(error, VIV_NOT_NOW, "open", "no memory for %d layers", (int)c->layers);
}

/* ---- the plugin ---- */

static const viv_model_api model_api = NN_MODEL_API(.plan = plan, .open = open_model);
static const viv_token_api token_api =
    NN_TOKEN_API(.eval = sambay_eval, .seq_truncate = sambay_truncate, .embed = nn_embed);

NN_PLUGIN("sambay", "0.1.0", {VIV_MODEL_ID, &model_api}, {VIV_TOKEN_MODEL_ID, &token_api},
          {NN_SELFTEST_ID, &sambay_selftest})
