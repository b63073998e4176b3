/* BEATs: its configuration, weight names, the names of its classes, the table of the plugin. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "beats/beats.h"

/* ---- the configuration ---- */

/* The official file carries its own ("cfg"); beside a config.json it counts where it has the keys. */
static const viv_json *cfg_of(const viv_host *host, const viv_model_source *source) {
  const viv_json *values = host->json_member(source->config, nn_str("checkpoint"));
  const viv_json *cfg = host->json_member(values, nn_str("cfg"));
  return host->json_type(cfg) == VIV_JSON_OBJECT ? cfg : source->config;
}

static int32_t activation_of(nn_config *k, bool *glu) {
  static const struct {
    const char *name;
    int32_t act;
  } known[] = {{"gelu", VIV_GELU}, {"relu", VIV_RELU}, {"gelu_accurate", VIV_GELU_TANH},
               {"tanh", VIV_TANH}, {"glu", VIV_SILU},  {"gelu_fast", VIV_GELU_TANH},
               {"linear", 0}};
  viv_str name = nn_text(k, "activation_fn", "gelu");
  *glu = nn_is(name, "glu");
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (nn_is(name, known[i].name)) return known[i].act;
  if (!k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "activation_fn is \"%.*s\"; gelu, relu, tanh, glu and linear are known",
                        (int)name.len, name.ptr);
  return 0;
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct beats_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, cfg_of(host, source), "config.json", error);
  *c = (struct beats_config){0};
  c->d = nn_int(&k, "encoder_embed_dim", 768, 1, 1 << 14);
  c->ff = nn_int(&k, "encoder_ffn_embed_dim", 3072, 1, 1 << 16);
  c->layers = (int32_t)nn_int(&k, "encoder_layers", 12, 1, BEATS_MAX_LAYERS);
  c->heads = (int32_t)nn_int(&k, "encoder_attention_heads", 12, 1, 1024);
  c->embed = nn_int(&k, "embed_dim", 512, 1, 1 << 14);
  c->patch = (int32_t)nn_int(&k, "input_patch_size", 16, 1, BEATS_MELS);
  c->pos_kernel = (int32_t)nn_int(&k, "conv_pos", 128, 1, 1 << 14);
  c->pos_groups = (int32_t)nn_int(&k, "conv_pos_groups", 16, 1, 1 << 14);
  c->pre_norm = nn_flag(&k, "layer_norm_first", false);
  c->conv_bias = nn_flag(&k, "conv_bias", false);
  c->act = activation_of(&k, &c->glu);
  bool deep = nn_flag(&k, "deep_norm", false);
  c->alpha = deep && !c->pre_norm ? (float)pow(2.0 * c->layers, 0.25) : 1.0f;
  if (nn_flag(&k, "relative_position_embedding", false)) {
    c->buckets = (int32_t)nn_int(&k, "num_buckets", 320, 4, 1 << 16);
    c->far = (int32_t)nn_int(&k, "max_distance", 1280, 2, 1 << 20);
    if (!k.status && c->far <= c->buckets / 4)
      return nn_fail(error, VIV_BAD_INPUT, "config.json",
                     "max_distance %d must be above a quarter of num_buckets %d", (int)c->far,
                     (int)c->buckets);
  }
  c->gated = c->buckets && nn_flag(&k, "gru_rel_pos", false);
  nn_divides(&k, c->d, c->heads, "encoder_embed_dim and encoder_attention_heads");
  nn_divides(&k, c->d, c->pos_groups, "encoder_embed_dim and conv_pos_groups");
  if (nn_has(host, source, "quantize.embedding.weight")) {
    c->codes = nn_int(&k, "quant_n", 1024, 1, 1 << 20);
    c->code_dim = nn_int(&k, "quant_dim", 256, 1, 1 << 14);
  } else if (nn_flag(&k, "finetuned_model", false)) {
    c->classes = nn_int(&k, "predictor_class", 527, 1, 1 << 20);
  }
  return k.status;
}

/* ---- weights ---- */

static void layers(nn_loader *l, struct beats_model *w) {
  const struct beats_config *c = &w->config;
  const nn_layer_names names = {.attention = "self_attn",
                                .attention_norm = "self_attn_layer_norm",
                                .fc1 = "fc1",
                                .fc2 = "fc2",
                                .final_norm = "final_layer_norm",
                                .glu = c->glu};
  nn_encoder_layer no_layer = {0};
  nn_gate no_gate = {0};
  for (int32_t i = 0; i < c->layers; i++) {
    size_t outer = nn_in(l, "encoder.layers.%d.", (int)i);
    nn_load_encoder_layer(l, &names, c->d, c->ff, c->heads, 1e-5f,
                          w->layer ? &w->layer[i] : &no_layer);
    if (c->gated)
      nn_load_gate(l, "self_attn.grep_linear", "self_attn.grep_a", c->heads, c->d / c->heads,
                   w->gate ? &w->gate[i] : &no_gate);
    if (c->buckets && !i)
      nn_load_tensor(l, "self_attn.relative_attention_bias.weight", true, 2,
                     (const int64_t[]){c->buckets, c->heads}, &w->table);
    nn_out(l, outer);
  }
  if (c->buckets) nn_ignore(l, "encoder.layers.*.self_attn.relative_attention_bias.weight");
}

/* The state dict repeats layer 0's table of positions under every layer. */
static void tables(nn_loader *l, void *model) {
  struct beats_model *w = model;
  const struct beats_config *c = &w->config;
  nn_conv_spec patch = {.in = 1,
                        .out = (int32_t)c->embed,
                        .kernel = c->patch,
                        .stride = c->patch,
                        .bias = c->conv_bias};
  nn_at(l, "%s", "");
  nn_load_conv(l, "patch_embedding", &patch, &w->patches);
  nn_load_norm(l, "layer_norm", c->embed, 1e-5f, &w->patch_norm);
  if (c->embed != c->d)
    nn_load_linear(l, "post_extract_proj", c->d, c->embed, true, &w->projection);
  nn_load_pos_conv(l, "encoder.pos_conv.0", c->d, c->pos_kernel, c->pos_groups, &w->positions);
  nn_load_norm(l, "encoder.layer_norm", c->d, 1e-5f, &w->norm);
  layers(l, w);
  if (c->classes) nn_load_linear(l, "predictor", c->classes, c->d, true, &w->head);
  if (!c->codes) return;
  nn_load_linear(l, "quantize_layer.0", c->d, c->d, true, &w->code_in);
  nn_load_linear(l, "quantize_layer.2", c->code_dim, c->d, true, &w->code_out);
  nn_load_tensor(l, "quantize.embedding.weight", true, 2, (const int64_t[]){c->codes, c->code_dim},
                 &w->codebook);
  nn_ignore(l, "quantize.cluster_size"); /* statistics of training */
  nn_ignore(l, "quantize.embedding.embed_avg");
  nn_ignore(l, "quantize.embedding.cluster_size");
  nn_ignore(l, "quantize.embedding.initted");
}

/* ---- what a person sees ---- */

static void choose_tasks(struct beats_model *m) {
  nn_task *t = m->tasks;
  if (m->config.classes) *t++ = (nn_task){"classify", beats_classify};
  if (m->config.codes) *t++ = (nn_task){"encode", beats_tokens};
  *t++ = (nn_task){"embed", beats_embed};
  *t++ = (nn_task){"forward", beats_forward};
  m->net.tasks = m->tasks;
}

/* Text that grows up to a limit. */
struct text {
  char *at;
  size_t used, cap;
};
static void put(struct text *t, const char *s, size_t n) {
  if (t->used + n < t->cap) memcpy(t->at + t->used, s, n);
  if (t->used + n < t->cap) t->used += n;
}

/* "id2label" from the file's label_dict: class number to AudioSet's identifier, told by its name. */
static void put_labels(const struct beats_model *m, const viv_json *labels, struct text *t) {
  const viv_host *h = m->net.host;
  int64_t n = h->json_type(labels) == VIV_JSON_OBJECT ? h->json_count(labels) : 0;
  bool first = true;
  char number[40];
  for (int64_t i = 0; i < n; i++) {
    const viv_json *item = h->json_item(labels, i);
    viv_str index = h->json_key(item), id = h->json_string(item);
    const char *name = beats_class_name(id);
    bool plain = index.len && index.len < 8 && (name || (id.len && id.len < 64));
    for (uint64_t c = 0; plain && c < index.len; c++)
      plain = index.ptr[c] >= '0' && index.ptr[c] <= '9';
    for (uint64_t c = 0; plain && !name && c < id.len; c++)
      plain = (unsigned char)id.ptr[c] >= 0x20 && id.ptr[c] != '"' && id.ptr[c] != '\\';
    if (!plain) continue;
    int len = snprintf(number, sizeof number, "%s\"%.*s\":\"", first ? ",\"id2label\":{" : ",",
                       (int)index.len, index.ptr);
    put(t, number, (size_t)len);
    put(t, name ? name : id.ptr, name ? strlen(name) : id.len);
    put(t, "\"", 1);
    first = false;
  }
  if (!first) put(t, "}", 1);
}

enum { LABEL_BYTES = 96 };

static const viv_json *labels_of(const viv_host *host, const viv_model_source *source) {
  const viv_json *values = host->json_member(source->config, nn_str("checkpoint"));
  return host->json_member(values, nn_str("label_dict"));
}

static uint64_t about_bytes(const viv_host *host, const viv_model_source *source) {
  return 1024 + (uint64_t)host->json_count(labels_of(host, source)) * LABEL_BYTES;
}

static int32_t describe(struct beats_model *m, const viv_model_source *source, viv_error *error) {
  const struct beats_config *c = &m->config;
  const viv_host *host = m->net.host;
  struct text t = {.cap = about_bytes(host, source)};
  t.at = host->arena_alloc(source->arena, t.cap);
  if (!t.at) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the description");
  t.used = (size_t)snprintf(t.at, t.cap,
                            "{\"family\":\"beats\",\"layers\":%d,\"width\":%lld,\"heads\":%d,"
                            "\"sampling_rate\":%d,\"classes\":%lld,\"codes\":%lld,\"tasks\":[",
                            (int)c->layers, (long long)c->d, (int)c->heads, BEATS_RATE,
                            (long long)c->classes, (long long)c->codes);
  for (const nn_task *k = m->tasks; k->name; k++) {
    put(&t, k == m->tasks ? "\"" : ",\"", k == m->tasks ? 1 : 2);
    put(&t, k->name, strlen(k->name));
    put(&t, "\"", 1);
  }
  put(&t, "]", 1);
  put_labels(m, labels_of(host, source), &t);
  put(&t, "}", 2);
  m->net.about = t.at;
  return VIV_OK;
}

/* ---- the model ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct beats_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc < 0) return rc;
  const struct beats_config *c = &m.config;
  uint64_t bytes = sizeof m + (uint64_t)c->layers * (sizeof *m.layer + sizeof *m.gate) +
                   about_bytes(host, source) + 256;
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  out->step_row_bytes = (uint64_t)(8 * c->d + c->ff) * sizeof(float);
  return VIV_OK;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct beats_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = config_read(host, source, &m->config, error);
  choose_tasks(m);
  if (rc >= 0) rc = nn_net_begin(&m->net, host, m->tasks, error);
  if (rc < 0) return rc;
  const struct beats_config *c = &m->config;
  m->layer = host->arena_alloc(source->arena, (uint64_t)c->layers * sizeof *m->layer);
  m->gate = host->arena_alloc(source->arena, (uint64_t)c->layers * sizeof *m->gate);
  if (!m->layer || !m->gate) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc >= 0) rc = describe(m, source, error);
  if (rc < 0) return rc;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("beats", "0.1.0", {VIV_MODEL_ID, &model_api})
