/* ResNet: names, loading, the pass. */
#include "nn/resnet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- configuration ---- */

bool nn_resnet_named(viv_str name, nn_resnet_spec *spec) {
  static const struct {
    const char *name;
    bool basic;
    int32_t layers[4];
  } known[] = {{"resnet18", true, {2, 2, 2, 2}},
               {"resnet34", true, {3, 4, 6, 3}},
               {"resnet50", false, {3, 4, 6, 3}},
               {"resnet101", false, {3, 4, 23, 3}},
               {"resnet152", false, {3, 8, 36, 3}}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (!nn_is(name, known[i].name)) continue;
    spec->basic = known[i].basic;
    spec->stem = 64;
    for (int32_t s = 0; s < 4; s++) {
      spec->layers[s] = known[i].layers[s];
      spec->inner[s] = 64 << s;
      spec->out[s] = (spec->basic ? 64 : 256) << s;
    }
    return true;
  }
  return false;
}

void nn_resnet_read(nn_config *k, nn_resnet_spec *s) {
  viv_str kind = nn_text(k, "layer_type", "bottleneck");
  *s = (nn_resnet_spec){.names = NN_RESNET_TRANSFORMERS, .basic = nn_is(kind, "basic")};
  s->stem = (int32_t)nn_int(k, "embedding_size", 64, 2, 4096);
  s->in_channels = (int32_t)nn_int(k, "num_channels", 3, 1, 64);
  s->stride_first = nn_flag(k, "downsample_in_bottleneck", false);
  s->strides[0] = nn_flag(k, "downsample_in_first_stage", false) ? 2 : 1;
  int32_t hidden[4] = {256, 512, 1024, 2048}, depths[4] = {3, 4, 6, 3};
  if (nn_key(k, "hidden_sizes") && nn_ints(k, "hidden_sizes", hidden, 4, 1, 1 << 14) != 4)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "hidden_sizes must be four numbers");
  if (nn_key(k, "depths") && nn_ints(k, "depths", depths, 4, 1, 64) != 4)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "depths must be four numbers");
  for (int i = 0; i < 4; i++) {
    s->layers[i] = depths[i];
    s->out[i] = hidden[i];
    s->inner[i] = hidden[i] / 4 ? hidden[i] / 4 : 1;
  }
}

/* ---- loading ---- */

static void load_stem(nn_loader *l, const nn_resnet_spec *s, nn_resnet *net) {
  bool sequence = s->names == NN_RESNET_SEQUENTIAL, numbered = s->names == NN_RESNET_NUMBERED;
  bool torch = s->names == NN_RESNET_TORCHVISION || sequence || numbered;
  int32_t in = s->in_channels ? s->in_channels : 3;
  for (int32_t i = 0; i < (s->deep_stem ? 3 : 1); i++) {
    nn_conv_spec c = {.in = i == 0 ? in : s->stem / 2,
                      .out = s->deep_stem && i < 2 ? s->stem / 2 : s->stem,
                      .kernel = s->deep_stem ? 3 : 7,
                      .stride = i == 0 ? 2 : 1,
                      .pad = s->deep_stem ? 1 : 3,
                      .norm = sequence || numbered ? "1"
                              : torch              ? "bn1"
                                                   : "normalization",
                      .norm_eps = s->eps};
    size_t outer = nn_in(l, "%s", sequence ? "layer0." : torch ? "" : "embedder.embedder.");
    if (s->deep_stem) nn_in(l, "%d.", (int)i);
    nn_load_conv(l,
                 sequence || numbered ? "0"
                 : torch              ? "conv1"
                                      : "convolution",
                 &c, &net->stem[i]);
    nn_out(l, outer);
  }
}

/* Block `at` of a stage: in and out channels, and the stride and dilation of its 3x3. */
struct shape {
  int32_t stage, at, in, inner, out, stride, dilation;
};

static void load_block(nn_loader *l, const nn_resnet_spec *s, const struct shape *b,
                       nn_resnet_block *w) {
  bool sequence = s->names == NN_RESNET_SEQUENTIAL, numbered = s->names == NN_RESNET_NUMBERED;
  bool torch = s->names == NN_RESNET_TORCHVISION || sequence || numbered;
  const char *form = numbered                    ? "%d.%d."
                     : sequence && b->stage == 0 ? "layer%d.1.%d."
                     : torch                     ? "layer%d.%d."
                                                 : "encoder.stages.%d.layers.%d.";
  size_t outer = nn_in(l, form, (int)b->stage + (numbered ? 4 : torch ? 1 : 0), (int)b->at);
  for (int32_t i = 0; i < (s->basic ? 2 : 3); i++) {
    bool wide = s->basic || i == 1; /* the 3x3 */
    bool strides = s->basic ? i == 0 : s->stride_first ? i == 0 : i == 1;
    nn_conv_spec c = {.in = i == 0     ? b->in
                            : s->basic ? b->out
                                       : b->inner,
                      .out = s->basic || i == 2 ? b->out : b->inner,
                      .kernel = wide ? 3 : 1,
                      .pad = wide ? b->dilation : 0,
                      .dilation = wide ? b->dilation : 1,
                      .stride = strides ? b->stride : 1,
                      .groups = wide && !s->basic ? s->groups : 0,
                      .norm_eps = s->eps};
    char conv[24], norm[24];
    snprintf(conv, sizeof conv, "conv%d", (int)i + 1);
    snprintf(norm, sizeof norm, "bn%d", (int)i + 1);
    c.norm = torch ? norm : "normalization";
    size_t inside = nn_in(l, "%s", "");
    if (!torch) nn_in(l, "layer.%d.", (int)i);
    nn_load_conv(l, torch ? conv : "convolution", &c, &w->conv[i]);
    nn_out(l, inside);
    if (!s->gated || i == (s->basic ? 1 : 2)) continue;
    snprintf(conv, sizeof conv, "conv%d.gate", (int)i + 1);
    nn_load_linear(l, conv, c.out, c.in, true, &w->gate[i]);
  }
  bool rt = s->names == NN_RESNET_RT_DETR;
  bool has = b->at == 0 && (b->in != b->out || b->stride != 1 || (rt && s->basic));
  bool pool = s->pool_shortcut && (s->basic ? b->in != b->out : b->stride == 2);
  if (has) {
    nn_conv_spec c = {.in = b->in,
                      .out = b->out,
                      .kernel = 1,
                      .stride = pool ? 1 : b->stride,
                      .norm = torch ? pool ? "2" : "1" : "normalization",
                      .norm_eps = s->eps};
    size_t inside = nn_in(l, "%s", torch ? "downsample." : pool ? "shortcut.1." : "shortcut.");
    nn_load_conv(l, torch ? pool ? "1" : "0" : "convolution", &c, &w->shortcut);
    nn_out(l, inside);
  }
  if (l->pass == NN_PREPARE) w->pool = has && pool;
  nn_out(l, outer);
}

static int32_t dilation_of(const nn_resnet_spec *s, int32_t stage, int32_t block) {
  int32_t all = s->dilations[stage], first = s->first_dilation[stage];
  int32_t d = block == 0 && first ? first : all ? all : 1;
  bool grid = stage == 3 && block < 3 && s->multi_grid[block];
  return grid ? d * s->multi_grid[block] : d;
}

void nn_load_resnet(nn_loader *l, const nn_resnet_spec *s, nn_resnet *net) {
  if (!s->no_stem) load_stem(l, s, net);
  int32_t n = 0, in = s->stem;
  for (int32_t stage = 0; stage < 4; stage++) {
    int32_t stride = s->strides[stage] ? s->strides[stage] : stage ? 2 : 1;
    for (int32_t i = 0; i < s->layers[stage] && n < NN_RESNET_BLOCKS; i++, n++) {
      struct shape b = {.stage = stage,
                        .at = i,
                        .in = in,
                        .inner = s->inner[stage],
                        .out = s->out[stage],
                        .stride = i ? 1 : stride,
                        .dilation = dilation_of(s, stage, i)};
      load_block(l, s, &b, &net->block[n]);
      in = s->out[stage];
    }
  }
  if (l->pass == NN_PREPARE) net->spec = *s;
}

/* ---- the pass ---- */

/* The pooled stem's shape, and each stage's. */
static void shapes(nn_pass *p, const nn_resnet *net, const nn_map *x, int32_t last,
                   nn_map maps[5]) {
  nn_map at = *x;
  for (int32_t i = 0; !net->spec.no_stem && i < (net->spec.deep_stem ? 3 : 1); i++)
    at = nn_conv_shape(p, &net->stem[i], &at, VIV_CHANNELS_LAST);
  for (int32_t i = 0; !net->spec.no_stem && i < 2; i++)
    at.size[i] = (at.size[i] - 1) / 2 + 1; /* pool 3, stride 2, pad 1 */
  maps[0] = at;
  const nn_resnet_block *block = net->block;
  for (int32_t s = 0; s < last; s++) {
    for (int32_t i = 0; i < (net->spec.basic ? 2 : 3); i++)
      at = nn_conv_shape(p, &block->conv[i], &at, VIV_CHANNELS_LAST);
    block += net->spec.layers[s];
    maps[s + 1] = at;
  }
}

static nn_map roomy(nn_pass *p, nn_map shape) {
  shape.x = nn_room(p, nn_elements(&shape));
  return shape;
}

static nn_map conv_last(nn_pass *p, const nn_conv *conv, const nn_map *x) {
  nn_map y = roomy(p, nn_conv_shape(p, conv, x, VIV_CHANNELS_LAST));
  nn_conv_to(p, conv, VIV_RELU, NULL, x, &y);
  return y;
}

static void add_macs(const nn_gates *g, const nn_conv *conv, const nn_map *y, const uint8_t *in,
                     const uint8_t *out);

static void stem(nn_pass *p, const nn_resnet *net, const nn_gates *gates, const nn_map *x,
                 nn_map *out) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  nn_map at = *x;
  for (int32_t i = 0; i < (net->spec.deep_stem ? 3 : 1); i++) {
    at = conv_last(p, &net->stem[i], &at);
    add_macs(gates, &net->stem[i], &at, NULL, NULL);
  }
  viv_pool pool = {.struct_size = sizeof pool,
                   .kind = VIV_POOL_MAX,
                   .dims = 2,
                   .channels = at.channels,
                   .batch = at.batch,
                   .size = {at.size[0], at.size[1], 1},
                   .kernel = {3, 3, 1},
                   .stride = {2, 2, 1},
                   .dilation = {1, 1, 1},
                   .pad_begin = {1, 1, 0},
                   .pad_end = {1, 1, 0},
                   .x = at.x,
                   .out = out->x};
  c->pool(c, &pool);
  nn_release(p, mark);
}

/* ---- gates ---- */

/* largest [B, channels] of each channel over the places of x, channels last. */
static float *largest(nn_pass *p, const nn_map *x) {
  int64_t space = nn_space(x), c = x->channels;
  float *top = nn_room(p, x->batch * c);
  for (int32_t b = 0; b < x->batch; b++)
    for (int64_t i = 0; i < space; i++)
      for (int64_t k = 0; k < c; k++) {
        float v = x->x[(b * space + i) * c + k];
        if (!i || v > top[b * c + k]) top[b * c + k] = v;
      }
  return top;
}

/* Which outputs of a gated convolution of x stay, [B, channels]; handed over. */
static uint8_t *mask_of(nn_pass *p, const nn_linear *gate, const nn_gates *g, const nn_map *x,
                        const char *name) {
  uint8_t *mask = nn_bytes(p, x->batch * gate->out, 1);
  float *logit = nn_apply_linear(p, gate, 0, largest(p, x), x->batch);
  nn_tap(p, logit, NN_DIMS(x->batch, gate->out), "%s.gate", name);
  for (int64_t i = 0; i < x->batch * gate->out; i++)
    mask[i] = g->open || 1 / (1 + expf(-logit[i])) >= g->threshold;
  if (nn_wants_result(p, "mask.%s", name))
    nn_result(p, VIV_U8, mask, NN_DIMS(x->batch, gate->out), "mask.%s", name);
  return mask;
}

static int64_t count(const uint8_t *mask, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += mask[i];
  return sum;
}

/* Adds a convolution's multiply-adds; in and out: which channels count, NULL: all. */
static void add_macs(const nn_gates *g, const nn_conv *conv, const nn_map *y, const uint8_t *in,
                     const uint8_t *out) {
  int64_t each = nn_space(y) * conv->kernel[0] * conv->kernel[1];
  for (int32_t b = 0; g && b < y->batch; b++)
    g->macs[b] += each * (in ? count(in + (int64_t)b * conv->in, conv->in) : conv->in) *
                  (out ? count(out + (int64_t)b * conv->out, conv->out) : conv->out);
}

static void drop(const uint8_t *mask, nn_map *y) {
  int64_t space = nn_space(y), c = y->channels;
  for (int64_t r = 0; r < y->batch * space; r++)
    for (int64_t k = 0; k < c; k++)
      if (!mask[r / space * c + k]) y->x[r * c + k] = 0;
}

/* ---- blocks ---- */

/* y = relu(block(x)). y holds the shortcut until the last convolution adds to it, so that y may be
 * x where the shortcut is x itself. name: of the block, for its gates. */
static void run_block(nn_pass *p, const nn_resnet *net, const nn_resnet_block *w,
                      const nn_gates *gates, const char *name, const nn_map *x, nn_map *y) {
  int32_t last = net->spec.basic ? 1 : 2;
  const uint8_t *mask = NULL;
  nn_mark mark = nn_here(p);
  if (w->shortcut.w) {
    nn_map from = *x;
    if (w->pool) from = nn_pool2d(p, VIV_POOL_AVERAGE, 2, 2, 0, true, x);
    nn_conv_to(p, &w->shortcut, 0, NULL, &from, y);
    add_macs(gates, &w->shortcut, y, NULL, NULL);
    nn_release(p, mark);
  } else if (y->x != x->x) {
    memcpy(y->x, x->x, (size_t)nn_elements(x) * sizeof *x->x);
  }
  nn_map at = *x;
  for (int32_t i = 0; i < last; i++) {
    char conv[64];
    const uint8_t *in = mask;
    snprintf(conv, sizeof conv, "%s.conv%d", name, (int)i + 1);
    mask = gates && w->gate[i].w ? mask_of(p, &w->gate[i], gates, &at, conv) : NULL;
    at = conv_last(p, &w->conv[i], &at);
    if (mask) drop(mask, &at);
    add_macs(gates, &w->conv[i], &at, in, mask);
  }
  nn_conv_to(p, &w->conv[last], VIV_RELU, y->x, &at, y);
  add_macs(gates, &w->conv[last], y, mask, NULL);
  nn_release(p, mark);
}

static void tap_map(nn_pass *p, const nn_resnet *net, const nn_map *x, const char *name) {
  if (!net->spec.taps || !nn_taps(p, "%s%s", net->spec.taps, name)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s%s", net->spec.taps, name);
  nn_release(p, mark);
}

/* y = stage s of x. */
static void run_stage(nn_pass *p, const nn_resnet *net, int32_t s, const nn_gates *gates,
                      const nn_map *x, nn_map *y) {
  const nn_resnet_block *block = net->block;
  char name[32];
  for (int32_t i = 0; i < s; i++) block += net->spec.layers[i];
  for (int32_t i = 0; i < net->spec.layers[s]; i++, block++) {
    nn_pass_poll(p);
    snprintf(name, sizeof name, "layer%d.%d", (int)s + 1, (int)i);
    run_block(p, net, block, gates, name, i ? y : x, y);
    tap_map(p, net, y, name);
  }
  snprintf(name, sizeof name, "layer%d", (int)s + 1);
  tap_map(p, net, y, name);
}

nn_map nn_resnet_stem(nn_pass *p, const nn_resnet *net, const nn_map *x) {
  nn_map maps[5] = {{0}};
  shapes(p, net, x, 0, maps);
  nn_map y = roomy(p, maps[0]);
  stem(p, net, NULL, x, &y);
  tap_map(p, net, &y, "maxpool");
  return y;
}

nn_map nn_resnet_stage(nn_pass *p, const nn_resnet *net, int32_t stage, const nn_map *x) {
  const nn_resnet_block *block = net->block;
  for (int32_t i = 0; i < stage; i++) block += net->spec.layers[i];
  nn_map shape = *x;
  for (int32_t i = 0; i < (net->spec.basic ? 2 : 3); i++)
    shape = nn_conv_shape(p, &block->conv[i], &shape, VIV_CHANNELS_LAST);
  nn_map y = roomy(p, shape);
  run_stage(p, net, stage, NULL, x, &y);
  return y;
}

void nn_apply_resnet(nn_pass *p, const nn_resnet *net, const nn_map *x, uint32_t wanted,
                     nn_map maps[5]) {
  nn_apply_gated_resnet(p, net, x, wanted, maps, NULL);
}

void nn_apply_gated_resnet(nn_pass *p, const nn_resnet *net, const nn_map *x, uint32_t wanted,
                           nn_map maps[5], const nn_gates *gates) {
  int32_t last = 0;
  for (int32_t s = 1; s < 5; s++)
    if (wanted >> s & 1) last = s;
  nn_map shape[5] = {{0}};
  shapes(p, net, x, last, shape);
  for (int32_t s = 0; s <= last; s++)
    if (wanted >> s & 1) maps[s] = roomy(p, shape[s]);
  /* Below the mark stays what was asked for; the rest goes when all is done. */
  nn_mark mark = nn_here(p);
  nn_map at = *x;
  if (!net->spec.no_stem) {
    at = wanted & 1 ? maps[0] : roomy(p, shape[0]);
    stem(p, net, gates, x, &at);
    tap_map(p, net, &at, "maxpool");
  }
  for (int32_t s = 0; s < last; s++) {
    nn_map y = wanted >> (s + 1) & 1 ? maps[s + 1] : roomy(p, shape[s + 1]);
    run_stage(p, net, s, gates, &at, &y);
    at = y;
  }
  nn_release(p, mark);
}
