/* ConvNeXt: names, loading, the pass. */
#include "nn/convnext.h"

#include <stdio.h>
#include <string.h>

static const float eps = 1e-6f; /* of all norms inside */

/* ---- loading ---- */

static void load_block(nn_loader *l, const nn_convnext_spec *s, int32_t d, nn_convnext_block *w) {
  bool own = s->names == NN_CONVNEXT_TRANSFORMERS;
  nn_conv_spec c = {.in = d, .out = d, .kernel = 7, .pad = 3, .groups = d, .bias = true};
  nn_load_conv(l, own ? "dwconv" : "conv_dw", &c, &w->depthwise);
  nn_load_norm(l, own ? "layernorm" : "norm", d, eps, &w->norm);
  nn_load_linear(l, own ? "pwconv1" : "mlp.fc1", 4 * (int64_t)d, d, true, &w->up);
  nn_load_linear(l, own ? "pwconv2" : "mlp.fc2", d, 4 * (int64_t)d, true, &w->down);
  nn_load_tensor(l, own ? "layer_scale_parameter" : "gamma", !s->no_gamma, 1, &(int64_t){d},
                 &w->gamma);
}

void nn_load_convnext(nn_loader *l, const nn_convnext_spec *s, nn_convnext *net) {
  static const char *const stem[] = {"stem.0", "stem_0", "embeddings.patch_embeddings"};
  static const char *const stem_norm[] = {"stem.1", "stem_1", "embeddings.layernorm"};
  bool own = s->names == NN_CONVNEXT_TRANSFORMERS;
  int32_t patch = s->patch ? s->patch : 4, n = 0;
  nn_conv_spec first = {.in = s->in_channels ? s->in_channels : 3,
                        .out = s->dims[0],
                        .kernel = patch,
                        .stride = patch,
                        .bias = true};
  if (!s->no_stem) {
    nn_load_conv(l, stem[s->names], &first, &net->stem);
    nn_load_norm(l, stem_norm[s->names], s->dims[0], eps, &net->stem_norm);
  }
  for (int32_t i = 0; i < s->stages; i++) {
    char name[32];
    snprintf(name, sizeof name, "%s%d.", s->names == NN_CONVNEXT_FEATURES ? "stages_" : "stages.",
             (int)i);
    size_t outer = nn_in(l, "%s%s", own ? "encoder." : "", name);
    if (i) {
      nn_conv_spec c = {
          .in = s->dims[i - 1], .out = s->dims[i], .kernel = 2, .stride = 2, .bias = true};
      size_t inside = nn_in(l, "%s", own ? "downsampling_layer." : "downsample.");
      nn_load_norm(l, "0", s->dims[i - 1], eps, &net->down_norm[i]);
      nn_load_conv(l, "1", &c, &net->down[i]);
      nn_out(l, inside);
    }
    for (int32_t b = 0; b < s->depths[i] && n < NN_CONVNEXT_BLOCKS; b++, n++) {
      size_t inside = nn_in(l, own ? "layers.%d." : "blocks.%d.", (int)b);
      load_block(l, s, s->dims[i], &net->block[n]);
      nn_out(l, inside);
    }
    nn_out(l, outer);
  }
  if (l->pass == NN_PREPARE) net->spec = *s;
}

/* ---- the pass ---- */

static void tap(nn_pass *p, const nn_map *x, const char *name) {
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s", name);
  nn_release(p, mark);
}

static void apply_norm(nn_pass *p, const nn_norm *norm, const nn_map *x, float *y) {
  nn_layer_norm(p, norm, x->x, x->batch * nn_space(x), y);
}

static void run_block(nn_pass *p, const nn_convnext *net, const nn_convnext_block *w, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  int64_t rows = x->batch * nn_space(x);
  nn_map y = nn_conv_shape(p, &w->depthwise, x, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &w->depthwise, 0, NULL, x, &y);
  apply_norm(p, &w->norm, &y, y.x);
  float *h = nn_apply_linear(p, &w->up, net->spec.act ? net->spec.act : VIV_GELU, y.x, rows);
  if (w->gamma) {
    nn_linear_to(p, &w->down, 0, NULL, h, rows, y.x);
    c->scale_shift(c, y.x, w->gamma, NULL, rows, x->channels, 1, y.x);
    c->add(c, x->x, y.x, rows * x->channels);
  } else {
    nn_linear_to(p, &w->down, 0, x->x, h, rows, x->x);
  }
  nn_release(p, mark);
}

static nn_map conv_last(nn_pass *p, const nn_conv *conv, const nn_map *x) {
  nn_map y = nn_conv_shape(p, conv, x, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, conv, 0, NULL, x, &y);
  return y;
}

nn_map nn_convnext_stage(nn_pass *p, const nn_convnext *net, int32_t s, const nn_map *before) {
  const nn_convnext_block *block = net->block;
  nn_map x = *before;
  char name[40];
  for (int32_t i = 0; i < s; i++) block += net->spec.depths[i];
  if (s) {
    nn_map normed = x;
    normed.x = nn_room(p, nn_elements(&x));
    apply_norm(p, &net->down_norm[s], &x, normed.x);
    x = conv_last(p, &net->down[s], &normed);
  }
  for (int32_t b = 0; b < net->spec.depths[s]; b++, block++) {
    nn_pass_poll(p);
    run_block(p, net, block, &x);
    snprintf(name, sizeof name, "stages.%d.blocks.%d", (int)s, (int)b);
    tap(p, &x, name);
  }
  snprintf(name, sizeof name, "stages.%d", (int)s);
  tap(p, &x, name);
  return x;
}

void nn_apply_convnext(nn_pass *p, const nn_convnext *net, const nn_map *pixels, uint32_t wanted,
                       nn_map maps[NN_CONVNEXT_STAGES + 1]) {
  nn_map x = conv_last(p, &net->stem, pixels);
  apply_norm(p, &net->stem_norm, &x, x.x);
  tap(p, &x, "stem");
  for (int32_t i = 0; i < net->spec.stages && wanted >> (i + 1); i++) {
    x = nn_convnext_stage(p, net, i, &x);
    if (wanted >> (i + 1) & 1) maps[i + 1] = x;
  }
}
