#include "depth/mono.h"

#include <stdio.h>

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

/* Official: one ModuleList, level after level from the top, then the disparities. */
void mono_load_decoder(nn_loader *l, const char *name, int32_t top, const int32_t *enc,
                       const int32_t *dec, int32_t scales, mono_decoder *decoder) {
  char number[16], rest[256];
  int32_t n = 0;
  size_t outer = nn_in(l, "%s.decoder.", name);
  for (int32_t i = top; i >= 0; i--) {
    snprintf(number, sizeof number, "%d", (int)n++);
    mono_load_block(l, number, i == top ? enc[top] : dec[i + 1], dec[i], &decoder->up[i][0]);
    snprintf(number, sizeof number, "%d", (int)n++);
    mono_load_block(l, number, dec[i] + (i ? enc[i - 1] : 0), dec[i], &decoder->up[i][1]);
  }
  for (int32_t s = 0; s < top; s++, n++) {
    snprintf(number, sizeof number, "%d", (int)n);
    if (s < scales) mono_load_disp(l, number, dec[s], &decoder->disp[s]);
    snprintf(rest, sizeof rest, "%s%s.*", l->prefix, number);
    if (s >= scales) nn_ignore(l, rest);
  }
  nn_out(l, outer);
  if (l->pass == NN_PREPARE) decoder->top = top;
}

void mono_decode(nn_pass *p, const mono_decoder *d, const nn_map *features, int32_t scales,
                 nn_map *disp) {
  nn_map x = features[d->top];
  for (int32_t i = d->top; i >= 0; i--) {
    nn_pass_poll(p);
    x = mono_block(p, &d->up[i][0], &x);
    x = mono_up(p, &x);
    if (i) {
      nn_map parts[2] = {x, features[i - 1]};
      x = nn_join_channels(p, 2, parts);
    }
    x = mono_block(p, &d->up[i][1], &x);
    if (i < scales) disp[i] = mono_disp(p, &d->disp[i], &x);
  }
}
