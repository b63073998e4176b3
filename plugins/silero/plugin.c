/* Silero VAD: config.json, weight names, the table of the plugin. */
#include <stdio.h>

#include "silero/silero.h"

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct silero_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct silero_config){0};
  c->rate = nn_int(&k, "sample_rate", 16000, 8000, 16000);
  c->window = nn_int(&k, "window_size_samples", c->rate == 8000 ? 256 : 512, 64, 4096);
  c->context = nn_int(&k, "context_size_samples", c->window / 8, 0, c->window);
  c->n_fft = nn_int(&k, "n_fft", c->window / 2, 16, 4096);
  c->hop = nn_int(&k, "hop_length", c->n_fft / 2, 1, c->n_fft);
  c->pad = nn_int(&k, "reflect_pad_right", c->context, 0, c->context + c->window - 1);
  c->bins = c->n_fft / 2 + 1;
  int64_t steps = c->context + c->window + c->pad < c->n_fft
                      ? 0
                      : (c->context + c->window + c->pad - c->n_fft) / c->hop + 1;
  /* Strides 1, 2, 2, 1 must leave one step for the LSTM. */
  if (!k.status && (steps < 1 || steps > 4))
    return nn_fail(error, VIV_NEVER, "config.json",
                   "a window has %lld frames of the transform; 1 to 4 become one step",
                   (long long)steps);
  return k.status;
}

static void tables(nn_loader *l, void *model) {
  struct silero_model *w = model;
  static const int32_t channels[SILERO_CONVS] = {128, 64, 64, 128}, strides[] = {1, 2, 2, 1};
  int32_t bins = (int32_t)w->config.bins, in = bins;
  const int64_t gates = 4 * SILERO_HIDDEN, d = SILERO_HIDDEN;
  nn_at(l, "%s", "");
  nn_load_conv(l, "stft_conv",
               &(nn_conv_spec){.dims = 1,
                               .in = 1,
                               .out = 2 * bins,
                               .kernel = (int32_t)w->config.n_fft,
                               .stride = (int32_t)w->config.hop},
               &w->stft);
  for (int32_t i = 0; i < SILERO_CONVS; i++) {
    char name[16];
    snprintf(name, sizeof name, "conv%d", (int)i + 1);
    nn_load_conv(l, name,
                 &(nn_conv_spec){.dims = 1,
                                 .in = in,
                                 .out = channels[i],
                                 .kernel = 3,
                                 .stride = strides[i],
                                 .pad = 1,
                                 .bias = true},
                 &w->conv[i]);
    in = channels[i];
  }
  nn_load(l, "lstm_cell.weight_ih", &w->w_input, 0, gates, gates, d, NN_MATRIX, true);
  nn_load(l, "lstm_cell.weight_hh", &w->w_hidden, 0, gates, gates, d, NN_MATRIX, true);
  nn_load_tensor(l, "lstm_cell.bias_ih", true, 1, &gates, &w->b_input);
  nn_load_tensor(l, "lstm_cell.bias_hh", true, 1, &gates, &w->b_hidden);
  nn_load_tensor(l, "final_conv.weight", true, 3, (const int64_t[]){1, d, 1}, &w->final_w);
  nn_load_tensor(l, "final_conv.bias", true, 1, (const int64_t[]){1}, &w->final_b);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct silero_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc >= 0) rc = nn_net_plan(host, source, tables, &m, sizeof m + 64, out, error);
  return rc;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct silero_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, silero_tasks, error);
  if (rc >= 0) rc = config_read(host, source, &m->config, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"silero-vad\",\"tasks\":[\"voice_activity\",\"voice_activity_events\","
           "\"forward\",\"postprocess\"],\"live\":\"voice_activity_events\","
           "\"sampling_rate\":%lld,\"window\":%lld,\"context\":%lld}",
           (long long)m->config.rate, (long long)m->config.window, (long long)m->config.context);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("silero", "0.1.0", {VIV_MODEL_ID, &model_api})
