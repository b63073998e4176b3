/* HiFi-GAN: a spectrogram to sound.
 *
 *   (mel - mean) / scale -> conv k7                                   [frames, C]
 *     |  stage i: leaky relu, transposed conv (rate r, kernel w), half the channels
 *     |           mean of residual blocks: x += conv(lrelu(conv_dilated(lrelu x)))
 *   leaky relu (0.01) -> conv k7 -> tanh                              [samples]
 *
 * Official: transformers models/speecht5 (SpeechT5HifiGan); jik876/hifi-gan. */
#include <stdio.h>
#include <string.h>

#include "speecht5/speecht5.h"

/* ---- config.json ---- */

static int32_t read_dilations(nn_config *k, struct vocoder_config *c) {
  const viv_host *h = k->host;
  const viv_json *lists = nn_key(k, "resblock_dilation_sizes");
  if (!lists || h->json_count(lists) != c->kernels)
    return nn_fail(k->error, VIV_BAD_INPUT, k->where,
                   "resblock_dilation_sizes must have a list for each of the %d kernels",
                   (int)c->kernels);
  for (int32_t i = 0; i < c->kernels; i++) {
    const viv_json *list = h->json_item(lists, i);
    int64_t n = h->json_count(list);
    if (n < 1 || n > VOCODER_MAX_DILATIONS)
      return nn_fail(k->error, VIV_BAD_INPUT, k->where,
                     "resblock_dilation_sizes, list %d: 1 to %d numbers are possible", (int)i,
                     VOCODER_MAX_DILATIONS);
    c->dilations[i] = (int32_t)n;
    for (int64_t j = 0; j < n; j++) {
      double d = h->json_number(h->json_item(list, j));
      if (!(d >= 1 && d <= 1024) || d != (double)(int32_t)d)
        return nn_fail(k->error, VIV_BAD_INPUT, k->where,
                       "resblock_dilation_sizes, list %d: %g is no whole number from 1 to 1024",
                       (int)i, d);
      c->dilation[i][j] = (int32_t)d;
    }
  }
  return VIV_OK;
}

int32_t vocoder_config_read(nn_config *k, struct vocoder_config *c) {
  *c = (struct vocoder_config){0};
  c->mels = nn_int(k, "model_in_dim", 80, 1, 4096);
  c->rate = nn_int(k, "sampling_rate", 16000, 1000, 192000);
  c->channels = (int32_t)nn_int(k, "upsample_initial_channel", 512, 1, 1 << 14);
  c->slope = (float)nn_num(k, "leaky_relu_slope", 0.1, 0, 1);
  c->normalize = nn_flag(k, "normalize_before", true);
  c->stages = nn_ints(k, "upsample_rates", c->rates, VOCODER_MAX_STAGES, 1, 1024);
  int32_t widths = nn_ints(k, "upsample_kernel_sizes", c->widths, VOCODER_MAX_STAGES, 1, 4096);
  c->kernels = nn_ints(k, "resblock_kernel_sizes", c->kernel, VOCODER_MAX_KERNELS, 1, 1024);
  if (k->status) return k->status;
  if (c->stages < 1 || widths != c->stages || c->kernels < 1)
    return nn_fail(k->error, VIV_BAD_INPUT, k->where,
                   "upsample_rates has %d entries, upsample_kernel_sizes %d, "
                   "resblock_kernel_sizes %d: the first two must agree and none be empty",
                   (int)c->stages, (int)widths, (int)c->kernels);
  for (int32_t i = 0; i < c->stages; i++)
    if (c->widths[i] < c->rates[i] || c->channels >> (i + 1) < 1)
      return nn_fail(k->error, VIV_BAD_INPUT, k->where,
                     "stage %d: the kernel must be as wide as its rate, and "
                     "upsample_initial_channel be halved by each stage",
                     (int)i);
  for (int32_t i = 0; i < c->kernels; i++)
    if (c->kernel[i] % 2 == 0)
      return nn_fail(k->error, VIV_BAD_INPUT, k->where, "resblock_kernel_sizes must be odd");
  return read_dilations(k, c);
}

/* ---- weights ---- */

static void conv(nn_loader *l, const char *name, nn_conv_spec s, nn_conv *out) {
  s.dims = 1;
  s.bias = true;
  s.weight_norm = true;
  nn_load_conv(l, name, &s, out);
}

static void block_tables(nn_loader *l, const struct vocoder_config *c, int32_t kernel,
                         int32_t channels, struct vocoder_block *b) {
  int32_t w = c->kernel[kernel];
  for (int32_t i = 0; i < c->dilations[kernel]; i++) {
    char name[24];
    int32_t d = c->dilation[kernel][i];
    snprintf(name, sizeof name, "convs1.%d", (int)i);
    conv(l, name,
         (nn_conv_spec){
             .in = channels, .out = channels, .kernel = w, .dilation = d, .pad = (w - 1) * d / 2},
         &b->first[i]);
    snprintf(name, sizeof name, "convs2.%d", (int)i);
    conv(l, name, (nn_conv_spec){.in = channels, .out = channels, .kernel = w, .pad = (w - 1) / 2},
         &b->second[i]);
  }
}

void vocoder_tables(nn_loader *l, struct vocoder *v) {
  const struct vocoder_config *c = &v->config;
  conv(l, "conv_pre",
       (nn_conv_spec){.in = (int32_t)c->mels, .out = c->channels, .kernel = 7, .pad = 3}, &v->in);
  int32_t channels = c->channels;
  for (int32_t i = 0; i < c->stages; i++, channels /= 2) {
    char name[24];
    snprintf(name, sizeof name, "upsampler.%d", (int)i);
    conv(l, name,
         (nn_conv_spec){.in = channels,
                        .out = channels / 2,
                        .kernel = c->widths[i],
                        .stride = c->rates[i],
                        .pad = (c->widths[i] - c->rates[i]) / 2,
                        .transposed = true},
         &v->up[i]);
    for (int32_t j = 0; j < c->kernels; j++) {
      size_t outer = nn_in(l, "resblocks.%d.", (int)(i * c->kernels + j));
      block_tables(l, c, j, channels / 2, &v->block[i][j]);
      nn_out(l, outer);
    }
  }
  conv(l, "conv_post", (nn_conv_spec){.in = channels, .out = 1, .kernel = 7, .pad = 3}, &v->out);
  nn_load_tensor(l, "mean", true, 1, (const int64_t[]){c->mels}, &v->mean);
  nn_load_tensor(l, "scale", true, 1, (const int64_t[]){c->mels}, &v->scale);
}

/* ---- the pass ---- */

/* act(conv x) into the map `out` of its shape. */
static void apply(nn_pass *p, const nn_conv *c, const float *residual, const nn_map *x,
                  nn_map *out) {
  nn_map y = nn_conv_shape(p, c, x, -1);
  y.x = out->x;
  *out = y;
  nn_conv_to(p, c, 0, residual, x, out);
}

static void tap_map(nn_pass *p, const nn_map *m, const char *name) {
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map first = nn_to_layout(p, m, VIV_CHANNELS_FIRST);
  nn_tap(p, first.x, NN_DIMS(m->batch, m->channels, m->size[0]), "%s", name);
  nn_release(p, mark);
}

/* sum += the block of x; three maps of room, all of x's shape. */
static void residual_block(nn_pass *p, const struct vocoder *v, const struct vocoder_block *b,
                           int32_t n, const nn_map *x, float *sum, bool first, float *room[3]) {
  const viv_compute *k = nn_compute_of(p);
  int64_t size = nn_elements(x);
  float *state = room[0];
  memcpy(state, x->x, (size_t)size * sizeof *state);
  for (int32_t i = 0; i < n; i++) {
    nn_map in = *x, mid = *x, out = *x;
    in.x = room[1];
    mid.x = room[2];
    out.x = state;
    k->unary_with(k, VIV_LEAKY_RELU, v->config.slope, state, in.x, size);
    apply(p, &b->first[i], NULL, &in, &mid);
    k->unary_with(k, VIV_LEAKY_RELU, v->config.slope, mid.x, mid.x, size);
    apply(p, &b->second[i], state, &mid, &out);
  }
  if (first)
    memcpy(sum, state, (size_t)size * sizeof *sum);
  else
    k->add(k, sum, state, size);
}

float *vocoder_run(nn_pass *p, const struct vocoder *v, const float *mel, int64_t rows,
                   int64_t frames, int64_t *samples) {
  const struct vocoder_config *c = &v->config;
  const viv_compute *k = nn_compute_of(p);
  int64_t n = rows * frames * c->mels;
  *samples = frames;
  for (int32_t i = 0; i < c->stages; i++)
    *samples = (*samples - 1) * c->rates[i] + c->widths[i] - 2 * ((c->widths[i] - c->rates[i]) / 2);
  if (frames < 1 || *samples > INT32_MAX)
    nn_stop(p, VIV_BAD_INPUT, "spectrogram", "%lld frames can't be made sound", (long long)frames);
  float *out = nn_room(p, rows * *samples);
  nn_mark begin = nn_here(p);
  float *x = nn_room(p, n);
  for (int64_t i = 0; i < n; i++)
    x[i] = c->normalize ? (mel[i] - v->mean[i % c->mels]) / v->scale[i % c->mels] : mel[i];
  nn_map map = {.x = x,
                .batch = (int32_t)rows,
                .channels = (int32_t)c->mels,
                .dims = 1,
                .size = {(int32_t)frames, 1, 1},
                .layout = VIV_CHANNELS_LAST};
  map = nn_apply_conv(p, &v->in, 0, &map);
  tap_map(p, &map, "conv_pre");
  for (int32_t i = 0; i < c->stages; i++) {
    char name[24];
    nn_pass_poll(p);
    k->unary_with(k, VIV_LEAKY_RELU, c->slope, map.x, map.x, nn_elements(&map));
    map = nn_apply_conv(p, &v->up[i], 0, &map);
    snprintf(name, sizeof name, "upsampler.%d", (int)i);
    tap_map(p, &map, name);
    int64_t size = nn_elements(&map);
    float *sum = nn_room(p, size);
    nn_mark mark = nn_here(p);
    float *room[3] = {nn_room(p, size), nn_room(p, size), nn_room(p, size)};
    for (int32_t j = 0; j < c->kernels; j++)
      residual_block(p, v, &v->block[i][j], c->dilations[j], &map, sum, !j, room);
    nn_release(p, mark);
    float share = 1.0f / (float)c->kernels;
    k->scale_shift(k, sum, &share, NULL, 1, 1, size, sum);
    map.x = sum;
  }
  k->unary_with(k, VIV_LEAKY_RELU, 0.01f, map.x, map.x, nn_elements(&map));
  tap_map(p, &map, "before_conv_post");
  map = nn_apply_conv(p, &v->out, 0, &map);
  k->unary(k, VIV_TANH, map.x, out, rows * *samples);
  nn_release(p, begin);
  return out;
}

int32_t vocoder_forward(nn_pass *p) {
  const struct speecht5_model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, m->vocoder->config.mels}, samples;
  const float *mel = nn_need_floats(p, "spectrogram", 3, shape);
  if (shape[0] < 1 || shape[1] < 1) nn_stop(p, VIV_BAD_INPUT, "spectrogram", "is empty");
  float *wave = vocoder_run(p, m->vocoder, mel, shape[0], shape[1], &samples);
  nn_result(p, VIV_F32, wave, NN_DIMS(shape[0], samples), "waveform");
  return VIV_DONE;
}
