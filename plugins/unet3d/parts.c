/* Blocks of MONAI's networks: monai/networks/blocks/dynunet_block.py, unetr_block.py. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "unet3d/unet3d.h"

/* ---- configuration ---- */

/* "name" or ["name", {arguments}], the name in small letters; *arguments may be NULL. */
static void named(nn_config *k, const char *key, const char *fallback, char name[24],
                  const viv_json **arguments) {
  const viv_host *h = k->host;
  const viv_json *v = nn_key(k, key);
  *arguments = NULL;
  if (v && h->json_type(v) == VIV_JSON_ARRAY) {
    if (h->json_count(v) > 1 && h->json_type(h->json_item(v, 1)) == VIV_JSON_OBJECT)
      *arguments = h->json_item(v, 1);
    v = h->json_count(v) ? h->json_item(v, 0) : NULL;
  }
  viv_str s = v && h->json_type(v) == VIV_JSON_STRING ? h->json_string(v) : nn_str(fallback);
  snprintf(name, 24, "%.*s", (int)(s.len < 23 ? s.len : 23), s.ptr);
  for (char *c = name; *c; c++)
    if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
}

void u3_read_norm(nn_config *k, const char *key, struct u3_style *style) {
  char name[24];
  const viv_json *arguments;
  if (!nn_key(k, key)) return;
  named(k, key, "", name, &arguments);
  style->eps = 1e-5f;
  if (!strcmp(name, "instance")) {
    style->norm = U3_INSTANCE;
    style->affine = false;
  } else if (!strcmp(name, "batch")) {
    style->norm = U3_BATCH;
    style->affine = true;
  } else if (!strcmp(name, "group")) {
    style->norm = U3_GROUP;
    style->affine = true;
  } else if (!k->status) {
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "%s is \"%s\", but must be instance, batch "
                        "or group",
                        key, name);
  }
  if (!arguments || k->status) return;
  nn_config a = nn_config_open(k->host, arguments, key, k->error);
  if (style->norm != U3_BATCH) style->affine = nn_flag(&a, "affine", style->affine);
  style->eps = (float)nn_num(&a, "eps", 1e-5, 0, 1);
  if (style->norm == U3_GROUP) style->groups = (int32_t)nn_need_int(&a, "num_groups", 1, 1 << 12);
  if (a.status) k->status = a.status;
}

void u3_read_act(nn_config *k, const char *key, struct u3_style *style) {
  static const struct {
    const char *name;
    int32_t act;
    double p;
  } known[] = {{"leakyrelu", VIV_LEAKY_RELU, 0.01},
               {"relu", VIV_RELU, 0},
               {"elu", VIV_ELU, 1},
               {"gelu", VIV_GELU, 0},
               {"swish", VIV_SILU, 0},
               {"silu", VIV_SILU, 0},
               {"relu6", VIV_RELU6, 0},
               {"mish", VIV_MISH, 0}};
  char name[24];
  const viv_json *arguments;
  if (!nn_key(k, key)) return;
  named(k, key, "", name, &arguments);
  style->act = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(name, known[i].name)) {
      style->act = known[i].act;
      style->act_param = (float)known[i].p;
    }
  if (!style->act && !k->status)
    k->status =
        nn_fail(k->error, VIV_NEVER, k->where, "%s is \"%s\", which is not supported", key, name);
  if (!arguments || k->status) return;
  nn_config a = nn_config_open(k->host, arguments, key, k->error);
  const char *which = style->act == VIV_ELU ? "alpha" : "negative_slope";
  style->act_param = (float)nn_num(&a, which, (double)style->act_param, -1e3, 1e3);
  if (a.status) k->status = a.status;
}

void u3_triple(nn_config *k, const char *key, int32_t fallback, int32_t out[3]) {
  int32_t n = nn_key(k, key) ? nn_ints(k, key, out, 3, 1, U3_SIDE_MAX) : 0;
  if (n == 0) out[0] = fallback;
  if (n == 2 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be a number or three", key);
  if (n < 3) out[1] = out[2] = out[0];
}

/* ---- loading ---- */

void u3_load_unit(nn_loader *l, const struct u3_style *style, const char *conv, const char *norm,
                  nn_conv_spec spec, struct u3_unit *unit) {
  spec.dims = 3;
  if (style->norm == U3_BATCH) {
    spec.norm = norm;
    spec.norm_eps = style->eps;
  }
  nn_load_conv(l, conv, &spec, &unit->conv);
  if ((style->norm == U3_INSTANCE || style->norm == U3_GROUP) && style->affine)
    nn_load_norm(l, norm, spec.out, style->eps, &unit->norm);
}

void u3_load_block(nn_loader *l, const struct u3_style *style, const char *prefix, int32_t in,
                   int32_t out, const int32_t kernel[3], const int32_t stride[3], bool residual,
                   struct u3_block *block) {
  size_t outer = nn_in(l, "%s", prefix);
  bool strides = stride[0] != 1 || stride[1] != 1 || stride[2] != 1;
  bool third = residual && (in != out || strides);
  for (int i = 0; i < 2 + third; i++) {
    nn_conv_spec spec = {.in = i == 1 ? out : in, .out = out, .kernel = 1, .list_pad = true};
    char conv[24], norm[24];
    for (int k = 0; k < 3; k++) {
      int32_t s = i == 1 ? 1 : stride[k], size = i == 2 ? 1 : kernel[k];
      spec.kernels[k] = size;
      spec.strides[k] = s;
      spec.pads[k] = (size - s + 1) / 2;
    }
    snprintf(conv, sizeof conv, "conv%d.conv", i + 1);
    snprintf(norm, sizeof norm, "norm%d", i + 1);
    u3_load_unit(l, style, conv, norm, spec, &block->unit[i]);
  }
  if (l->pass == NN_PREPARE) {
    block->residual = residual;
    block->third = third;
  }
  nn_out(l, outer);
}

void u3_load_up(nn_loader *l, const char *name, int32_t in, int32_t out, const int32_t kernel[3],
                bool bias, nn_conv *conv) {
  nn_conv_spec spec = {.dims = 3, .in = in, .out = out, .bias = bias, .transposed = true};
  memcpy(spec.kernels, kernel, sizeof spec.kernels);
  memcpy(spec.strides, kernel, sizeof spec.strides);
  nn_load_conv(l, name, &spec, conv);
}

void u3_load_point(nn_loader *l, const char *name, int32_t in, int32_t out, bool bias,
                   nn_conv *conv) {
  nn_conv_spec spec = {.dims = 3, .in = in, .out = out, .kernel = 1, .bias = bias};
  nn_load_conv(l, name, &spec, conv);
}

/* ---- the pass ---- */

void u3_act(nn_pass *p, const struct u3_style *style, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  c->unary_with(c, style->act, style->act_param, x->x, x->x, nn_elements(x));
}

nn_map u3_apply_unit(nn_pass *p, const struct u3_style *style, const struct u3_unit *unit, bool act,
                     const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_apply_conv(p, &unit->conv, 0, x);
  if (style->norm == U3_INSTANCE || style->norm == U3_GROUP)
    c->group_norm(c, y.x, unit->norm.w, unit->norm.b, style->eps,
                  style->norm == U3_GROUP ? style->groups : y.channels, y.batch, y.channels,
                  nn_space(&y), y.layout, y.x);
  if (act) u3_act(p, style, &y);
  return y;
}

nn_map u3_apply_block(nn_pass *p, const struct u3_style *style, const struct u3_block *block,
                      const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map out = nn_conv_shape(p, &block->unit[0].conv, x, -1);
  out.x = nn_room(p, nn_elements(&out));
  nn_mark mark = nn_here(p);
  nn_pass_poll(p);
  nn_map y = u3_apply_unit(p, style, &block->unit[0], true, x);
  y = u3_apply_unit(p, style, &block->unit[1], !block->residual, &y);
  if (block->residual) {
    nn_map r = *x;
    if (block->third) r = u3_apply_unit(p, style, &block->unit[2], false, x);
    c->add(c, y.x, r.x, nn_elements(&y));
    u3_act(p, style, &y);
  }
  memcpy(out.x, y.x, (size_t)nn_elements(&y) * sizeof *y.x);
  nn_release(p, mark);
  return out;
}

nn_map u3_join(nn_pass *p, const nn_map *a, const nn_map *b) {
  return nn_join_channels(p, 2, (const nn_map[]){*a, *b});
}

void u3_tap(nn_pass *p, const nn_map *x, const char *name, int32_t number) {
  char text[48];
  if (number < 0)
    snprintf(text, sizeof text, "%s", name);
  else
    snprintf(text, sizeof text, "%s%d", name, (int)number);
  if (!nn_taps(p, "%s", text)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1], y.size[2]), "%s", text);
  nn_release(p, mark);
}
