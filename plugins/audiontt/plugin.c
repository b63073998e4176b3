/* AudioNTT2020: config.json, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "audiontt/audiontt.h"

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct audiontt_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct audiontt_config){0};
  c->mels = nn_int(&k, "n_mels", 64, 8, 512);
  c->width = nn_int(&k, "output_dim", 2048, 1, 1 << 16);
  c->rate = nn_int(&k, "sample_rate", 16000, 1000, 192000);
  c->n_fft = (int32_t)nn_int(&k, "n_fft", 1024, 16, 1 << 16);
  c->hop = (int32_t)nn_int(&k, "hop_length", 160, 1, 1 << 16);
  c->low = nn_num(&k, "fmin", 60, 0, 96000);
  c->high = nn_num(&k, "fmax", 7800, 0, 96000);
  c->unit = nn_int(&k, "unit_length", c->rate, 1, INT64_C(1) << 28);
  c->mean = (float)nn_num(&k, "mean", 0, -1000, 1000);
  c->std = (float)nn_num(&k, "std", 1, 1e-6, 1000);
  viv_str pad = nn_text(&k, "pad_mode", "reflect");
  c->reflect = nn_is(pad, "reflect");
  c->classes = nn_axis(host, source, "final.weight", 0, 0);
  if (k.status) return k.status;
  if (!c->reflect && !nn_is(pad, "constant"))
    return nn_fail(error, VIV_BAD_INPUT, "config.json",
                   "pad_mode is \"%.*s\", but must be reflect or constant", (int)pad.len, pad.ptr);
  if (!(c->low < c->high) || c->high > (double)c->rate / 2)
    return nn_fail(error, VIV_BAD_INPUT, "config.json",
                   "fmin %g and fmax %g are no range within 0 and half of sample_rate", c->low,
                   c->high);
  if ((1 + c->unit / c->hop) / 8 < 1)
    return nn_fail(error, VIV_BAD_INPUT, "config.json",
                   "unit_length %lld gives %lld frames; the network takes 8 or more",
                   (long long)c->unit, (long long)(1 + c->unit / c->hop));
  return VIV_OK;
}

/* The official downstream code saves the encoder under "encoder."; the head may be missing. */
static void tables(nn_loader *l, void *model) {
  struct audiontt_model *w = model;
  const struct audiontt_config *c = &w->config;
  nn_at(l, "%s", "encoder.");
  for (int32_t i = 0; i < AUDIONTT_BLOCKS; i++) {
    size_t outer = nn_in(l, "features_%d.", (int)i + 1);
    nn_conv_spec s = {.in = i ? AUDIONTT_CHANNELS : 1,
                      .out = AUDIONTT_CHANNELS,
                      .kernel = 3,
                      .pad = 1,
                      .bias = true,
                      .norm = "1"};
    nn_load_conv(l, "0", &s, &w->block[i]);
    nn_out(l, outer);
  }
  nn_load_linear(l, "fc.0", c->width, c->mels / 8 * AUDIONTT_CHANNELS, true, &w->fc[0]);
  nn_load_linear(l, "fc.3", c->width, c->width, true, &w->fc[1]);
  nn_at(l, "%s", "");
  if (c->classes) nn_load_linear(l, "final", c->classes, c->width, true, &w->head);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct audiontt_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc < 0) return rc;
  rc = nn_net_plan(host, source, tables, &m, sizeof m + 128, out, error);
  if (rc < 0) return rc;
  int64_t frames = 1 + m.config.unit / m.config.hop;
  out->step_bytes = (uint64_t)(m.config.mels * frames * AUDIONTT_CHANNELS * 2) * sizeof(float);
  return VIV_OK;
}

static const nn_task with_head[] = {
    {"classify", audiontt_classify},         {"embed", audiontt_embed},
    {"pseudo_label", audiontt_pseudo_label}, {"preprocess", audiontt_preprocess},
    {"forward", audiontt_forward},           {NULL, NULL}};

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct audiontt_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  struct audiontt_config c;
  int32_t rc = config_read(host, source, &c, error);
  /* Without a head the first task, classify, is left out. */
  if (rc >= 0) rc = nn_net_begin(&m->net, host, c.classes ? with_head : with_head + 1, error);
  if (rc < 0) return rc;
  m->config = c;
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"audiontt\",\"mels\":%lld,\"width\":%lld,\"classes\":%lld,"
           "\"sampling_rate\":%lld,\"unit_seconds\":%.4g,"
           "\"tasks\":[%s\"embed\",\"pseudo_label\",\"preprocess\",\"forward\"]}",
           (long long)c.mels, (long long)c.width, (long long)c.classes, (long long)c.rate,
           (double)c.unit / (double)c.rate, c.classes ? "\"classify\"," : "");
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("audiontt", "0.1.0", {VIV_MODEL_ID, &model_api})
