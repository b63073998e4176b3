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

#endif
