#include "depth/mono.h"

static void load(nn_loader *l, const char *name, const char *inner, int32_t in, int32_t out,
                 nn_conv *conv) {
  nn_conv_spec spec = {
      .in = in, .out = out, .kernel = 3, .pad = 1, .pad_kind = VIV_PAD_REFLECT, .bias = true};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, inner, &spec, conv);
  nn_out(l, outer);
}

void mono_load_block(nn_loader *l, const char *name, int32_t in, int32_t out, nn_conv *conv) {
  load(l, name, "conv.conv", in, out, conv);
}

void mono_load_disp(nn_loader *l, const char *name, int32_t in, nn_conv *conv) {
  load(l, name, "conv", in, 1, conv);
}

nn_map mono_block(nn_pass *p, const nn_conv *conv, const nn_map *x) {
  return nn_apply_conv(p, conv, VIV_ELU, x);
}

nn_map mono_disp(nn_pass *p, const nn_conv *conv, const nn_map *x) {
  return nn_apply_conv(p, conv, VIV_SIGMOID, x);
}

nn_map mono_up(nn_pass *p, const nn_map *x) {
  int32_t size[2] = {2 * x->size[0], 2 * x->size[1]};
  return nn_resize_map(p, VIV_NEAREST, false, size, x);
}
