/* SpeechT5 and HiFi-GAN: config.json, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "speecht5/speecht5.h"

/* ---- config.json, preprocessor_config.json ---- */

/* The numbers of the front end, which stand in a file of their own or, where there is no network, in
 * config.json. */
static int32_t front_read(const viv_host *host, const viv_model_source *source,
                          struct speecht5_front *f, viv_error *error) {
  const viv_json *file =
      host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  nn_config k = nn_config_open(host, file ? file : source->config,
                               file ? "preprocessor_config.json" : "config.json", error);
  *f = (struct speecht5_front){0};
  f->rate = nn_int(&k, "sampling_rate", 16000, 1000, 192000);
  f->mels = nn_int(&k, "num_mel_bins", 80, 1, 4096);
  f->window = (int32_t)(nn_int(&k, "win_length", 64, 1, 1000) * f->rate / 1000);
  f->hop = (int32_t)(nn_int(&k, "hop_length", 16, 1, 1000) * f->rate / 1000);
  f->low = nn_num(&k, "fmin", 80, 0, 96000);
  f->high = nn_num(&k, "fmax", 7600, 0, 96000);
  f->floor = (float)nn_num(&k, "mel_floor", 1e-10, 1e-30, 1);
  f->normalize = nn_flag(&k, "do_normalize", false);
  viv_str window = nn_text(&k, "win_function", "hann_window");
  for (f->n_fft = 1; f->n_fft < f->window;) f->n_fft *= 2;
  if (k.status) return k.status;
  if (!nn_is(window, "hann_window"))
    return nn_fail(error, VIV_NEVER, k.where, "win_function is %.*s, this plugin has hann_window",
                   (int)window.len, window.ptr);
  if (!(f->low < f->high) || f->high > (double)f->rate / 2)
    return nn_fail(error, VIV_BAD_INPUT, k.where,
                   "fmin %g and fmax %g are no range within 0 and half of sampling_rate", f->low,
                   f->high);
  return VIV_OK;
}

static void speech_decoder_read(nn_config *k, struct speecht5_config *c) {
  c->mels = nn_int(k, "num_mel_bins", 80, 1, 4096);
  c->frames = nn_int(k, "reduction_factor", 2, 1, 64);
  c->prenet = nn_int(k, "speech_decoder_prenet_units", 256, 1, 1 << 14);
  c->prenet_layers = (int32_t)nn_int(k, "speech_decoder_prenet_layers", 2, 1, SPEECHT5_MAX_NETS);
  c->postnet = nn_int(k, "speech_decoder_postnet_units", 256, 1, 1 << 14);
  c->postnet_layers = (int32_t)nn_int(k, "speech_decoder_postnet_layers", 5, 0, SPEECHT5_MAX_NETS);
  c->postnet_kernel = (int32_t)nn_int(k, "speech_decoder_postnet_kernel", 5, 1, 1023);
  c->speaker = nn_int(k, "speaker_embedding_dim", 512, 1, 1 << 14);
  c->dropout = nn_num(k, "speech_decoder_prenet_dropout", 0.5, 0, 0.99);
  if (!k->status && c->postnet_kernel % 2 == 0)
    k->status =
        nn_fail(k->error, VIV_BAD_INPUT, k->where,
                "speech_decoder_postnet_kernel is %d, but must be odd", (int)c->postnet_kernel);
}

static int32_t network_read(const viv_host *host, const viv_model_source *source,
                            struct speecht5_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct speecht5_config){0};
  c->d = nn_need_int(&k, "hidden_size", 2, 1 << 14);
  c->vocab = nn_int(&k, "vocab_size", 81, 1, 1 << 22);
  c->encoder_layers = (int32_t)nn_int(&k, "encoder_layers", 12, 1, SPEECHT5_MAX_LAYERS);
  c->decoder_layers = (int32_t)nn_int(&k, "decoder_layers", 6, 1, SPEECHT5_MAX_LAYERS);
  c->encoder_heads = (int32_t)nn_int(&k, "encoder_attention_heads", 12, 1, 1024);
  c->decoder_heads = (int32_t)nn_int(&k, "decoder_attention_heads", 12, 1, 1024);
  c->encoder_ff = nn_int(&k, "encoder_ffn_dim", 3072, 1, 1 << 16);
  c->decoder_ff = nn_int(&k, "decoder_ffn_dim", 3072, 1, 1 << 16);
  c->act = nn_activation(&k, "hidden_act", "gelu");
  c->eps = (float)nn_num(&k, "layer_norm_eps", 1e-5, 0, 1);
  c->reach = (int32_t)nn_int(&k, "encoder_max_relative_position", 160, 1, 1 << 14);
  c->pad = (int32_t)nn_int(&k, "pad_token_id", 1, 0, c->vocab - 1);
  c->eos = (int32_t)nn_int(&k, "eos_token_id", 2, 0, c->vocab - 1);
  c->start = (int32_t)nn_int(&k, "decoder_start_token_id", 2, 0, c->vocab - 1);
  c->text_places = nn_int(&k, "max_text_positions", 450, 2, 1 << 20);
  nn_divides(&k, c->d, c->encoder_heads, "hidden_size and encoder_attention_heads");
  nn_divides(&k, c->d, c->decoder_heads, "hidden_size and decoder_attention_heads");
  c->hears = !nn_has(host, source, "speecht5.encoder.prenet.embed_tokens.weight");
  c->writes = nn_has(host, source, "speecht5.decoder.prenet.embed_tokens.weight");
  c->own_head = nn_has(host, source, "text_decoder_postnet.lm_head.weight");
  if (c->hears) nn_wave_read(&k, c->d, &c->wave);
  if (!c->writes) speech_decoder_read(&k, c);
  if (!k.status && nn_flag(&k, "scale_embedding", false))
    return nn_fail(error, VIV_NEVER, "config.json",
                   "scale_embedding is true, which is not computed");
  return k.status;
}

/* A network, a vocoder, or the feature extractor's file alone. The vocoder may also lie in the network's
 * own checkpoint: tensors "vocoder.*", and its config.json under the key "vocoder". */
static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct speecht5_model *m, struct vocoder_config *v, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  viv_str type = nn_text(&k, "model_type", "");
  const viv_json *inner = nn_key(&k, "vocoder");
  *v = (struct vocoder_config){0};
  if (k.status) return k.status;
  if (nn_is(type, "hifigan")) {
    m->kind = SPEECHT5_VOCODER;
    return vocoder_config_read(&k, v);
  }
  m->kind = nn_key(&k, "hidden_size") ? SPEECHT5_NETWORK : SPEECHT5_FRONT_END;
  int32_t rc = front_read(host, source, &m->front, error);
  if (rc >= 0 && m->kind == SPEECHT5_NETWORK) rc = network_read(host, source, &m->config, error);
  if (rc < 0 || !inner || m->config.writes) return rc;
  nn_config own = nn_config_open(host, inner, "config.json, vocoder", error);
  rc = own.status ? own.status : vocoder_config_read(&own, v);
  if (rc >= 0 && v->mels != m->config.mels)
    return nn_fail(error, VIV_BAD_INPUT, "config.json, vocoder",
                   "model_in_dim is %lld, but num_mel_bins %lld", (long long)v->mels,
                   (long long)m->config.mels);
  return rc;
}

/* ---- weights ---- */

static const nn_layer_names encoder_names = {.attention = "attention",
                                             .attention_norm = "layer_norm",
                                             .fc1 = "feed_forward.intermediate_dense",
                                             .fc2 = "feed_forward.output_dense",
                                             .final_norm = "final_layer_norm"};
static const nn_layer_names decoder_names = {.attention = "self_attn",
                                             .attention_norm = "self_attn_layer_norm",
                                             .cross = "encoder_attn",
                                             .cross_norm = "encoder_attn_layer_norm",
                                             .fc1 = "feed_forward.intermediate_dense",
                                             .fc2 = "feed_forward.output_dense",
                                             .final_norm = "final_layer_norm"};

static void encoder_tables(nn_loader *l, struct speecht5_model *w) {
  const struct speecht5_config *c = &w->config;
  nn_encoder_layer none = {0};
  size_t outer = nn_in(l, "speecht5.encoder.prenet.");
  if (c->hears) {
    nn_load_wave(l, &c->wave, "feature_encoder", &w->wave);
    nn_load_pos_conv(l, "pos_conv_embed.conv", c->d, c->wave.pos_kernel, c->wave.pos_groups,
                     &w->positions);
  } else {
    nn_load_linear(l, "embed_tokens", c->vocab, c->d, false, &w->encoder_tokens);
    nn_load_tensor(l, "encode_positions.alpha", true, 1, (const int64_t[]){1}, &w->encoder_alpha);
  }
  nn_out(l, outer);
  outer = nn_in(l, "speecht5.encoder.wrapped_encoder.");
  nn_load_norm(l, "layer_norm", c->d, c->eps, &w->encoder_norm);
  nn_load_tensor(l, "embed_positions.pe_k.weight", true, 2,
                 (const int64_t[]){2 * c->reach, c->d / c->encoder_heads}, &w->relative);
  for (int32_t i = 0; i < c->encoder_layers; i++) {
    size_t inner = nn_in(l, "layers.%d.", (int)i);
    nn_load_encoder_layer(l, &encoder_names, c->d, c->encoder_ff, c->encoder_heads, c->eps,
                          w->encoder ? &w->encoder[i] : &none);
    nn_out(l, inner);
  }
  nn_out(l, outer);
}

static void speech_decoder_tables(nn_loader *l, struct speecht5_model *w) {
  const struct speecht5_config *c = &w->config;
  char name[24];
  size_t outer = nn_in(l, "speecht5.decoder.prenet.");
  for (int32_t i = 0; i < c->prenet_layers; i++) {
    snprintf(name, sizeof name, "layers.%d", (int)i);
    nn_load_linear(l, name, c->prenet, i ? c->prenet : c->mels, true, &w->prenet[i]);
  }
  nn_load_linear(l, "final_layer", c->d, c->prenet, true, &w->prenet_out);
  nn_load_tensor(l, "encode_positions.alpha", true, 1, (const int64_t[]){1}, &w->decoder_alpha);
  nn_load_linear(l, "speaker_embeds_layer", c->d, c->d + c->speaker, true, &w->speaker);
  nn_out(l, outer);
  outer = nn_in(l, "speech_decoder_postnet.");
  nn_load_linear(l, "feat_out", c->frames * c->mels, c->d, true, &w->feat_out);
  nn_load_linear(l, "prob_out", c->frames, c->d, true, &w->prob_out);
  for (int32_t i = 0; i < c->postnet_layers; i++) {
    nn_conv_spec s = {.dims = 1,
                      .in = (int32_t)(i ? c->postnet : c->mels),
                      .out = (int32_t)(i + 1 < c->postnet_layers ? c->postnet : c->mels),
                      .kernel = c->postnet_kernel,
                      .pad = (c->postnet_kernel - 1) / 2,
                      .norm = "batch_norm"};
    size_t inner = nn_in(l, "layers.%d.", (int)i);
    nn_load_conv(l, "conv", &s, &w->postnet[i]);
    nn_out(l, inner);
  }
  nn_out(l, outer);
}

static void network_tables(nn_loader *l, struct speecht5_model *w) {
  const struct speecht5_config *c = &w->config;
  nn_decoder_layer none = {0};
  nn_at(l, "%s", "");
  encoder_tables(l, w);
  for (int32_t i = 0; i < c->decoder_layers; i++) {
    size_t inner = nn_in(l, "speecht5.decoder.wrapped_decoder.layers.%d.", (int)i);
    nn_load_decoder_layer(l, &decoder_names, c->d, c->decoder_ff, c->decoder_heads, c->eps,
                          w->decoder ? &w->decoder[i] : &none);
    nn_out(l, inner);
  }
  if (c->writes)
    nn_load_linear(l, "speecht5.decoder.prenet.embed_tokens", c->vocab, c->d, false, &w->tokens);
  else
    speech_decoder_tables(l, w);
  if (c->writes && c->own_head)
    nn_load_linear(l, "text_decoder_postnet.lm_head", c->vocab, c->d, false, &w->head);
  nn_ignore(l, "*masked_spec_embed");            /* training only */
  nn_ignore(l, "*pos_sinusoidal_embed.weights"); /* numbers that follow from the sizes */
  nn_ignore(l, "*embed_positions.weights");
  nn_ignore(l, "*encode_positions.pe");
}

static void tables(nn_loader *l, void *model) {
  struct speecht5_model *w = model;
  nn_at(l, "%s", "");
  if (w->kind == SPEECHT5_NETWORK) network_tables(l, w);
  if (!w->vocoder) return;
  nn_at(l, "%s", w->kind == SPEECHT5_NETWORK ? "vocoder." : "");
  vocoder_tables(l, w->vocoder);
}

/* ---- the model ---- */

static bool has_vocoder(const struct vocoder_config *v) {
  return v->stages > 0;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct speecht5_model m = {0};
  struct vocoder v = {0};
  int32_t rc = config_read(host, source, &m, &v.config, error);
  if (rc < 0) return rc;
  if (has_vocoder(&v.config)) m.vocoder = &v;
  const struct speecht5_config *c = &m.config;
  uint64_t bytes = sizeof m + sizeof v + (uint64_t)c->encoder_layers * sizeof(nn_encoder_layer) +
                   (uint64_t)c->decoder_layers * sizeof(nn_decoder_layer) + 256;
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  out->step_row_bytes = (uint64_t)(8 * c->d + c->encoder_ff) * sizeof(float);
  return VIV_OK;
}

/* The tasks that this checkpoint is good for, the one that a person means first. */
static void choose_tasks(struct speecht5_model *m) {
  const struct speecht5_config *c = &m->config;
  nn_task *t = m->tasks;
  bool network = m->kind == SPEECHT5_NETWORK;
  if (network && c->writes) {
    *t++ = (nn_task){"transcribe", speecht5_transcribe};
    *t++ = (nn_task){"generate", speecht5_generate};
  } else if (network) {
    *t++ = (nn_task){"speak", speecht5_speak};
    *t++ = (nn_task){"generate_speech", speecht5_generate_speech};
  }
  if (network) *t++ = (nn_task){"forward", speecht5_forward};
  if (m->kind == SPEECHT5_VOCODER)
    *t++ = (nn_task){"forward", vocoder_forward};
  else
    *t++ = (nn_task){"preprocess", speecht5_preprocess};
  m->net.tasks = m->tasks;
}

static void describe(struct speecht5_model *m) {
  const struct speecht5_config *c = &m->config;
  bool network = m->kind == SPEECHT5_NETWORK;
  int64_t rate = m->vocoder ? m->vocoder->config.rate : m->front.rate;
  size_t used = (size_t)snprintf(
      m->about, sizeof m->about,
      "{\"family\":\"%s\",\"sampling_rate\":%lld,\"hears\":\"%s\",\"gives\":\"%s\",\"width\":%lld,"
      "\"encoder_layers\":%d,\"decoder_layers\":%d,\"speaker_embedding_dim\":%lld,\"vocoder\":%s,"
      "\"tasks\":[",
      m->kind == SPEECHT5_VOCODER ? "hifigan" : "speecht5", (long long)rate,
      !network   ? ""
      : c->hears ? "speech"
                 : "text",
      !network     ? ""
      : c->writes  ? "text"
      : m->vocoder ? "speech"
                   : "spectrogram",
      (long long)c->d, (int)c->encoder_layers, (int)c->decoder_layers, (long long)c->speaker,
      m->vocoder ? "true" : "false");
  for (const nn_task *t = m->tasks; t->name; t++)
    used += (size_t)snprintf(m->about + used, sizeof m->about - used, "%s\"%s\"",
                             t == m->tasks ? "" : ",", t->name);
  snprintf(m->about + used, sizeof m->about - used, "]}");
  m->net.about = m->about;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct speecht5_model *m = host->arena_alloc(source->arena, sizeof *m);
  struct vocoder *v = host->arena_alloc(source->arena, sizeof *v);
  if (!m || !v) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = config_read(host, source, m, &v->config, error);
  choose_tasks(m);
  if (rc >= 0) rc = nn_net_begin(&m->net, host, m->tasks, error);
  if (rc < 0) return rc;
  const struct speecht5_config *c = &m->config;
  if (has_vocoder(&v->config)) m->vocoder = v;
  m->encoder =
      host->arena_alloc(source->arena, (uint64_t)c->encoder_layers * sizeof *m->encoder + 1);
  m->decoder =
      host->arena_alloc(source->arena, (uint64_t)c->decoder_layers * sizeof *m->decoder + 1);
  if (!m->encoder || !m->decoder)
    return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  describe(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("speecht5", "0.1.0", {VIV_MODEL_ID, &model_api})
