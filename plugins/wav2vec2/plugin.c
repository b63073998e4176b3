/* wav2vec 2.0, HuBERT, WavLM: config.json and its side files, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "wav2vec2/wav2vec2.h"

/* ---- config.json, preprocessor_config.json ---- */

static bool is_ctc(const nn_config *k) {
  static const char end[] = "ForCTC";
  viv_str name = nn_architecture(k);
  size_t n = sizeof end - 1;
  return name.len >= n && !memcmp(name.ptr + name.len - n, end, n);
}

static void front_end(nn_config *k, const viv_model_source *source, struct wav2vec2_config *c) {
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  const nn_config none = {k->host, NULL, "preprocessor_config.json", k->error, VIV_OK};
  nn_config f = file ? nn_config_open(k->host, file, none.where, k->error) : none;
  c->rate = nn_int(&f, "sampling_rate", 16000, 1000, 192000);
  c->normalize = nn_flag(&f, "do_normalize", true);
  c->gives_mask = nn_flag(&f, "return_attention_mask", c->wave.frame_norm);
  if (!k->status) k->status = f.status;
}

/* Branches that this plugin does not compute. */
static void refuse_others(nn_config *k) {
  static const char *const keys[] = {"add_adapter", "use_weighted_layer_sum"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!k->status && nn_flag(k, keys[i], false))
      k->status =
          nn_fail(k->error, VIV_NEVER, k->where, "%s is true, which is not computed", keys[i]);
  if (!k->status && nn_key(k, "adapter_attn_dim"))
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "adapter_attn_dim is set; adapters per language are not computed");
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct wav2vec2_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct wav2vec2_config){0};
  viv_str type = nn_text(&k, "model_type", "hubert");
  c->d = nn_need_int(&k, "hidden_size", 1, 1 << 14);
  c->ff = nn_need_int(&k, "intermediate_size", 1, 1 << 16);
  c->layers = (int32_t)nn_need_int(&k, "num_hidden_layers", 1, WAV2VEC2_MAX_LAYERS);
  c->heads = (int32_t)nn_need_int(&k, "num_attention_heads", 1, 1024);
  c->act = nn_activation(&k, "hidden_act", "gelu");
  c->eps = (float)nn_num(&k, "layer_norm_eps", 1e-5, 0, 1);
  c->stable = nn_flag(&k, "do_stable_layer_norm", false);
  nn_divides(&k, c->d, c->heads, "hidden_size and num_attention_heads");
  nn_wave_read(&k, c->d, &c->wave);
  refuse_others(&k);
  if (nn_is(type, "wavlm")) {
    c->buckets = (int32_t)nn_int(&k, "num_buckets", 320, 4, 1 << 16);
    c->far = (int32_t)nn_int(&k, "max_bucket_distance", 800, 2, 1 << 20);
    if (!k.status && c->far <= c->buckets / 4)
      return nn_fail(error, VIV_BAD_INPUT, "config.json",
                     "max_bucket_distance %d must be above a quarter of num_buckets %d",
                     (int)c->far, (int)c->buckets);
  }
  c->prefix = nn_has(host, source, "hubert.encoder.layer_norm.weight")     ? "hubert."
              : nn_has(host, source, "wav2vec2.encoder.layer_norm.weight") ? "wav2vec2."
              : nn_has(host, source, "wavlm.encoder.layer_norm.weight")    ? "wavlm."
                                                                           : "";
  if (is_ctc(&k)) c->vocab = nn_need_int(&k, "vocab_size", 1, 1 << 20);
  if (c->vocab) c->blank = (int32_t)nn_int(&k, "pad_token_id", 0, 0, c->vocab - 1);
  c->units = nn_axis(host, source, "kmeans.centroids", 0, 0);
  c->kmeans_layer = (int32_t)nn_int(&k, "kmeans_layer", c->layers, 0, c->layers);
  if (!k.status) front_end(&k, source, c);
  return k.status;
}

/* ---- vocab.json ---- */

static int32_t read_letters(const viv_host *host, const viv_model_source *source,
                            struct wav2vec2_model *m, viv_error *error) {
  const viv_json *file = host->checkpoint_file(source->checkpoint, nn_str("vocab.json"));
  const viv_json *words =
      host->checkpoint_file(source->checkpoint, nn_str("tokenizer_config.json"));
  int64_t vocab = m->config.vocab;
  if (!file || !vocab || host->json_type(file) != VIV_JSON_OBJECT) return VIV_OK;
  m->letter = host->arena_alloc(source->arena, (uint64_t)vocab * sizeof *m->letter);
  if (!m->letter) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the letters");
  for (int64_t i = 0; i < host->json_count(file); i++) {
    const viv_json *item = host->json_item(file, i);
    double id = host->json_number(item);
    if (host->json_type(item) == VIV_JSON_NUMBER && id >= 0 && id < (double)vocab)
      m->letter[(int64_t)id] = host->json_key(item);
  }
  m->space = nn_str("|");
  if (!words) return VIV_OK;
  nn_config t = nn_config_open(host, words, "tokenizer_config.json", error);
  m->space = nn_text(&t, "word_delimiter_token", "|");
  return t.status;
}

/* ---- weights ---- */

static const nn_layer_names layer_names = {.attention = "attention",
                                           .attention_norm = "layer_norm",
                                           .fc1 = "feed_forward.intermediate_dense",
                                           .fc2 = "feed_forward.output_dense",
                                           .final_norm = "final_layer_norm"};

static void tables(nn_loader *l, void *model) {
  struct wav2vec2_model *w = model;
  const struct wav2vec2_config *c = &w->config;
  nn_encoder_layer no_layer = {0};
  nn_gate no_gate = {0};
  nn_at(l, "%s", c->prefix);
  nn_load_wave(l, &c->wave, "feature_extractor", &w->wave);
  nn_load_pos_conv(l, "encoder.pos_conv_embed.conv", c->d, c->wave.pos_kernel, c->wave.pos_groups,
                   &w->positions);
  nn_load_norm(l, "encoder.layer_norm", c->d, c->eps, &w->norm);
  for (int32_t i = 0; i < c->layers; i++) {
    size_t outer = nn_in(l, "encoder.layers.%d.", (int)i);
    nn_load_encoder_layer(l, &layer_names, c->d, c->ff, c->heads, c->eps,
                          w->layer ? &w->layer[i] : &no_layer);
    if (c->buckets)
      nn_load_gate(l, "attention.gru_rel_pos_linear", "attention.gru_rel_pos_const", c->heads,
                   c->d / c->heads, w->gate ? &w->gate[i] : &no_gate);
    if (c->buckets && !i)
      nn_load_tensor(l, "attention.rel_attn_embed.weight", true, 2,
                     (const int64_t[]){c->buckets, c->heads}, &w->table);
    nn_out(l, outer);
  }
  nn_at(l, "%s", "");
  if (c->vocab) nn_load_linear(l, "lm_head", c->vocab, c->d, true, &w->head);
  if (c->units)
    nn_load_tensor(l, "kmeans.centroids", true, 2, (const int64_t[]){c->units, c->d},
                   &w->centroids);
  nn_ignore(l, "*masked_spec_embed"); /* training only */
  nn_ignore(l, "quantizer.*");
  nn_ignore(l, "project_hid.*");
  nn_ignore(l, "project_q.*");
}

/* ---- the model ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct wav2vec2_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc < 0) return rc;
  const struct wav2vec2_config *c = &m.config;
  uint64_t bytes = sizeof m + (uint64_t)c->layers * (sizeof *m.layer + sizeof *m.gate) +
                   (uint64_t)c->vocab * sizeof *m.letter + 256;
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  out->step_row_bytes = (uint64_t)(8 * c->d + c->ff) * sizeof(float);
  return VIV_OK;
}

/* The tasks that this checkpoint is good for, the one that a person means first. */
static void choose_tasks(struct wav2vec2_model *m) {
  const nn_task text = {"transcribe", wav2vec2_transcribe}, units = {"encode", wav2vec2_encode},
                mean = {"embed", wav2vec2_embed};
  nn_task *t = m->tasks;
  if (m->config.vocab) *t++ = text;
  *t++ = m->config.units ? units : mean;
  *t++ = m->config.units ? mean : units;
  *t++ = (nn_task){"preprocess", wav2vec2_preprocess};
  *t++ = (nn_task){"forward", wav2vec2_forward};
  if (m->config.vocab) *t++ = (nn_task){"postprocess", wav2vec2_postprocess};
  m->net.tasks = m->tasks;
}

static void describe(struct wav2vec2_model *m) {
  const struct wav2vec2_config *c = &m->config;
  size_t used = (size_t)snprintf(
      m->about, sizeof m->about,
      "{\"family\":\"%s\",\"layers\":%d,\"width\":%lld,\"heads\":%d,\"sampling_rate\":%lld,"
      "\"letters\":%lld,\"units\":%lld,\"kmeans_layer\":%d,\"tasks\":[",
      c->buckets ? "wavlm" : "wav2vec2", (int)c->layers, (long long)c->d, (int)c->heads,
      (long long)c->rate, (long long)c->vocab, (long long)c->units, (int)c->kmeans_layer);
  for (const nn_task *t = m->tasks; t->name; t++)
    used += (size_t)snprintf(m->about + used, sizeof m->about - used, "%s\"%s\"",
                             t == m->tasks ? "" : ",", t->name);
  snprintf(m->about + used, sizeof m->about - used, "]}");
  m->net.about = m->about;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct wav2vec2_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = config_read(host, source, &m->config, error);
  choose_tasks(m);
  if (rc >= 0) rc = nn_net_begin(&m->net, host, m->tasks, error);
  if (rc >= 0) rc = read_letters(host, source, m, error);
  if (rc < 0) return rc;
  const struct wav2vec2_config *c = &m->config;
  m->layer = host->arena_alloc(source->arena, (uint64_t)c->layers * sizeof *m->layer);
  m->gate = host->arena_alloc(source->arena, (uint64_t)c->layers * sizeof *m->gate);
  if (!m->layer || !m->gate) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  describe(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("wav2vec2", "0.1.0", {VIV_MODEL_ID, &model_api})
