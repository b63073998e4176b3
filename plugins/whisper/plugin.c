/* Whisper: config.json and its side files, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "whisper/whisper.h"

/* ---- config.json, preprocessor_config.json ---- */

static void front_end(nn_config *k, const viv_model_source *source, struct whisper_config *c) {
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  nn_config f = nn_config_open(k->host, file ? file : source->config,
                               file ? "preprocessor_config.json" : "config.json", k->error);
  int64_t mels = nn_int(&f, "feature_size", c->mels, 1, 512);
  c->rate = nn_int(&f, "sampling_rate", 16000, 1000, 192000);
  c->mel = (nn_log_mel){.n_fft = (int32_t)nn_int(&f, "n_fft", 400, 16, 1 << 16),
                        .hop = (int32_t)nn_int(&f, "hop_length", 160, 1, 1 << 16),
                        .mels = (int32_t)c->mels,
                        .sample_rate = (double)c->rate};
  int64_t seconds = nn_int(&f, "chunk_length", 30, 1, 3600);
  if (!file) seconds = c->source * 2 * c->mel.hop / c->rate;
  c->window = seconds * c->rate;
  if (k->status) return;
  k->status = f.status;
  if (k->status) return;
  if (mels != c->mels)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "preprocessor_config.json",
                        "feature_size is %lld, but config.json has num_mel_bins %lld",
                        (long long)mels, (long long)c->mels);
  else if (c->window / c->mel.hop != 2 * c->source)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "preprocessor_config.json",
                        "a window of %lld s has %lld frames, but max_source_positions %lld takes "
                        "%lld",
                        (long long)seconds, (long long)(c->window / c->mel.hop),
                        (long long)c->source, (long long)(2 * c->source));
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct whisper_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct whisper_config){0};
  c->d = nn_need_int(&k, "d_model", 1, 1 << 14);
  c->vocab = nn_need_int(&k, "vocab_size", 1, 1 << 22);
  c->mels = nn_int(&k, "num_mel_bins", 80, 1, 512);
  c->source = nn_int(&k, "max_source_positions", 1500, 1, 1 << 16);
  c->target = nn_int(&k, "max_target_positions", 448, 1, 1 << 16);
  c->encoder_layers = (int32_t)nn_need_int(&k, "encoder_layers", 1, WHISPER_MAX_LAYERS);
  c->decoder_layers = (int32_t)nn_need_int(&k, "decoder_layers", 1, WHISPER_MAX_LAYERS);
  c->encoder_heads = (int32_t)nn_need_int(&k, "encoder_attention_heads", 1, 1024);
  c->decoder_heads = (int32_t)nn_need_int(&k, "decoder_attention_heads", 1, 1024);
  c->encoder_ff = nn_need_int(&k, "encoder_ffn_dim", 1, 1 << 16);
  c->decoder_ff = nn_need_int(&k, "decoder_ffn_dim", 1, 1 << 16);
  c->act = nn_activation(&k, "activation_function", "gelu");
  c->scale_embedding = nn_flag(&k, "scale_embedding", false);
  nn_divides(&k, c->d, c->encoder_heads, "d_model and encoder_attention_heads");
  nn_divides(&k, c->d, c->decoder_heads, "d_model and decoder_attention_heads");
  c->prefix = nn_has(host, source, "model.encoder.conv1.weight") ? "model." : "";
  if (!k.status) front_end(&k, source, c);
  return k.status;
}

/* ---- generation_config.json, where absent config.json ---- */

static void read_ids(const nn_config *k, const char *key, int64_t vocab, struct whisper_ids *out) {
  const viv_host *h = k->host;
  const viv_json *list = nn_key(k, key);
  int64_t n = list && h->json_type(list) == VIV_JSON_ARRAY ? h->json_count(list) : 0;
  for (int64_t i = 0; i < n && out->n < WHISPER_MAX_SUPPRESSED; i++) {
    double id = h->json_number(h->json_item(list, i));
    if (id >= 0 && id < (double)vocab) out->id[out->n++] = (int32_t)id;
  }
}

/* "<|en|>": 50259 */
static void read_languages(const nn_config *k, int64_t vocab, struct whisper_rules *r) {
  const viv_host *h = k->host;
  const viv_json *all = nn_key(k, "lang_to_id");
  int64_t n = all && h->json_type(all) == VIV_JSON_OBJECT ? h->json_count(all) : 0;
  for (int64_t i = 0; i < n && r->n_languages < WHISPER_MAX_LANGUAGES; i++) {
    const viv_json *item = h->json_item(all, i);
    viv_str name = h->json_key(item);
    double id = h->json_number(item);
    if (name.len < 5 || memcmp(name.ptr, "<|", 2) || !(id >= 0 && id < (double)vocab)) continue;
    r->language[r->n_languages++] =
        (struct whisper_language){{name.ptr + 2, name.len - 4}, (int32_t)id};
  }
}

/* [[layer, head], ...]; a list that names another place is not believed. */
static void read_heads(const nn_config *k, const struct whisper_config *c,
                       struct whisper_rules *r) {
  const viv_host *h = k->host;
  const viv_json *list = nn_key(k, "alignment_heads");
  int64_t n = list && h->json_type(list) == VIV_JSON_ARRAY ? h->json_count(list) : 0;
  for (int64_t i = 0; i < n && i < WHISPER_MAX_HEADS; i++) {
    const viv_json *pair = h->json_item(list, i);
    if (h->json_type(pair) != VIV_JSON_ARRAY || h->json_count(pair) != 2) break;
    double layer = h->json_number(h->json_item(pair, 0)),
           head = h->json_number(h->json_item(pair, 1));
    if (!(layer >= 0 && layer < c->decoder_layers && head >= 0 && head < c->decoder_heads)) break;
    r->head[i][0] = (int32_t)layer;
    r->head[i][1] = (int32_t)head;
    r->n_heads = (int32_t)i + 1;
  }
}

static int32_t one_id(nn_config *k, const char *key, int64_t fallback, int64_t vocab) {
  const viv_json *node = nn_key(k, key);
  const viv_host *h = k->host;
  if (node && h->json_type(node) == VIV_JSON_ARRAY) {
    double first = h->json_number(h->json_item(node, 0));
    return first >= 0 && first < (double)vocab ? (int32_t)first : (int32_t)fallback;
  }
  return (int32_t)nn_int(k, key, fallback, -1, vocab - 1);
}

static int32_t rules_read(const viv_host *host, const viv_model_source *source,
                          const struct whisper_config *c, struct whisper_rules *r,
                          viv_error *error) {
  int64_t vocab = c->vocab;
  nn_config base = nn_config_open(host, source->config, "config.json", error);
  const viv_json *file =
      host->checkpoint_file(source->checkpoint, nn_str("generation_config.json"));
  nn_config g = nn_config_open(host, file ? file : source->config,
                               file ? "generation_config.json" : "config.json", error);
  *r = (struct whisper_rules){0};
  r->start = one_id(&g, "decoder_start_token_id",
                    one_id(&base, "decoder_start_token_id", 50257, vocab), vocab);
  r->end = one_id(&g, "eos_token_id", one_id(&base, "eos_token_id", 50256, vocab), vocab);
  r->pad = one_id(&g, "pad_token_id", one_id(&base, "pad_token_id", r->end, vocab), vocab);
  r->no_timestamps = one_id(&g, "no_timestamps_token_id", -1, vocab);
  /* The official vocabularies: <|startofprev|>, <|nospeech|>, <|notimestamps|>. */
  r->previous =
      one_id(&g, "prev_sot_token_id", r->no_timestamps >= 2 ? r->no_timestamps - 2 : -1, vocab);
  r->max_initial_timestamp = (int32_t)nn_int(&g, "max_initial_timestamp_index", 50, -1, 1 << 20);
  r->multilingual = nn_flag(&g, "is_multilingual", nn_key(&g, "lang_to_id") != NULL);
  r->transcribe = r->translate = -1;
  if (nn_key(&g, "task_to_id")) {
    nn_config t =
        nn_config_open(host, nn_key(&g, "task_to_id"), "generation_config.json, task_to_id", error);
    r->transcribe = one_id(&t, "transcribe", -1, vocab);
    r->translate = one_id(&t, "translate", -1, vocab);
    if (t.status) return t.status;
  }
  read_languages(&g, vocab, r);
  read_heads(&g, c, r);
  read_ids(&g, "suppress_tokens", vocab, &r->suppress);
  read_ids(&g, "begin_suppress_tokens", vocab, &r->begin_suppress);
  return base.status ? base.status : g.status;
}

/* ---- weights ---- */

static const nn_layer_names layer_names = {.attention = "self_attn",
                                           .attention_norm = "self_attn_layer_norm",
                                           .cross = "encoder_attn",
                                           .cross_norm = "encoder_attn_layer_norm",
                                           .fc1 = "fc1",
                                           .fc2 = "fc2",
                                           .final_norm = "final_layer_norm",
                                           .no_key_bias = true};

static void encoder_tables(nn_loader *l, struct whisper_model *w) {
  const struct whisper_config *c = &w->config;
  nn_encoder_layer none = {0};
  nn_conv_spec conv = {
      .dims = 1, .in = (int32_t)c->mels, .out = (int32_t)c->d, .kernel = 3, .pad = 1, .bias = true};
  size_t outer = nn_in(l, "encoder.");
  nn_load_conv(l, "conv1", &conv, &w->conv1);
  conv.in = (int32_t)c->d;
  conv.stride = 2;
  nn_load_conv(l, "conv2", &conv, &w->conv2);
  nn_load_tensor(l, "embed_positions.weight", true, 2, (const int64_t[]){c->source, c->d},
                 &w->encoder_positions);
  for (int32_t i = 0; i < c->encoder_layers; i++) {
    size_t inner = nn_in(l, "layers.%d.", (int)i);
    nn_load_encoder_layer(l, &layer_names, c->d, c->encoder_ff, c->encoder_heads, 1e-5f,
                          w->encoder ? &w->encoder[i] : &none);
    nn_out(l, inner);
  }
  nn_load_norm(l, "layer_norm", c->d, 1e-5f, &w->encoder_norm);
  nn_out(l, outer);
}

static void decoder_tables(nn_loader *l, struct whisper_model *w) {
  const struct whisper_config *c = &w->config;
  nn_decoder_layer none = {0};
  size_t outer = nn_in(l, "decoder.");
  nn_load_linear(l, "embed_tokens", c->vocab, c->d, false, &w->tokens);
  nn_load_tensor(l, "embed_positions.weight", true, 2, (const int64_t[]){c->target, c->d},
                 &w->decoder_positions);
  for (int32_t i = 0; i < c->decoder_layers; i++) {
    size_t inner = nn_in(l, "layers.%d.", (int)i);
    nn_load_decoder_layer(l, &layer_names, c->d, c->decoder_ff, c->decoder_heads, 1e-5f,
                          w->decoder ? &w->decoder[i] : &none);
    nn_out(l, inner);
  }
  nn_load_norm(l, "layer_norm", c->d, 1e-5f, &w->decoder_norm);
  nn_out(l, outer);
}

static void tables(nn_loader *l, void *model) {
  struct whisper_model *w = model;
  nn_at(l, "%s", w->config.prefix);
  encoder_tables(l, w);
  decoder_tables(l, w);
  nn_ignore(l, "proj_out.weight"); /* the embedding once more */
}

/* ---- the model ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct whisper_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc < 0) return rc;
  const struct whisper_config *c = &m.config;
  uint64_t bytes = sizeof m + (uint64_t)c->encoder_layers * sizeof(nn_encoder_layer) +
                   (uint64_t)c->decoder_layers * sizeof(nn_decoder_layer) + 256;
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  out->step_bytes = (uint64_t)(c->source * (8 * c->d + c->encoder_ff) +
                               2 * c->decoder_layers * (c->source + c->target) * c->d) *
                    sizeof(float);
  return VIV_OK;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct whisper_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, whisper_tasks, error);
  if (rc >= 0) rc = config_read(host, source, &m->config, error);
  if (rc >= 0) rc = rules_read(host, source, &m->config, &m->rules, error);
  if (rc < 0) return rc;
  const struct whisper_config *c = &m->config;
  m->encoder = host->arena_alloc(source->arena, (uint64_t)c->encoder_layers * sizeof *m->encoder);
  m->decoder = host->arena_alloc(source->arena, (uint64_t)c->decoder_layers * sizeof *m->decoder);
  if (!m->encoder || !m->decoder)
    return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"whisper\",\"tasks\":[\"transcribe\",\"detect_language\"],\"encoder_"
           "layers\":%d,\"decoder_layers\":%d,\"width\":%lld,"
           "\"mels\":%lld,\"vocabulary\":%lld,\"sampling_rate\":%lld,\"window_seconds\":%lld,"
           "\"languages\":%d}",
           (int)c->encoder_layers, (int)c->decoder_layers, (long long)c->d, (long long)c->mels,
           (long long)c->vocab, (long long)c->rate, (long long)(c->window / c->rate),
           (int)m->rules.n_languages);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("whisper", "0.1.0", {VIV_MODEL_ID, &model_api})
