/* What the decoders of Monodepth2 and its relatives are made of.
 *
 *   block   3x3 over reflected borders, ELU        name.conv.conv
 *   disp    3x3 over reflected borders, sigmoid    name.conv
 *
 * Official: layers.py of monodepth2 (ConvBlock, Conv3x3, upsample). Maps are channels last. */
#ifndef PLUGINS_DEPTH_MONO_H
#define PLUGINS_DEPTH_MONO_H

#include "nn/modules.h"

void mono_load_block(nn_loader *l, const char *name, int32_t in, int32_t out, nn_conv *conv);
void mono_load_disp(nn_loader *l, const char *name, int32_t in, nn_conv *conv);
nn_map mono_block(nn_pass *p, const nn_conv *conv, const nn_map *x);
nn_map mono_disp(nn_pass *p, const nn_conv *conv, const nn_map *x);
nn_map mono_up(nn_pass *p, const nn_map *x); /* each pixel four times */

/* The whole decoder, of top + 1 levels; features[i] stand at 1 / 2^(i+1) of the picture.
 *
 *   x = features[top]; for i = top .. 0: x = block(x); x = block([up(x), features[i-1]]) (i = 0: up(x))
 *   disp i of the scales 0 .. top - 1 from x after level i */
enum { MONO_LEVELS = 5 };
typedef struct mono_decoder {
  int32_t top;
  nn_conv up[MONO_LEVELS][2], disp[MONO_LEVELS];
} mono_decoder;
/* name.decoder.n; enc [top + 1] channels of the features, dec [top + 1] of the levels. scales: how many
 * disparities are loaded, the finest first; what else the file holds of them is let be. */
void mono_load_decoder(nn_loader *l, const char *name, int32_t top, const int32_t *enc,
                       const int32_t *dec, int32_t scales, mono_decoder *decoder);
/* disp [scales], channels last. */
void mono_decode(nn_pass *p, const mono_decoder *decoder, const nn_map *features, int32_t scales,
                 nn_map *disp);

#endif
