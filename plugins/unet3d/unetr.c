/* UNETR: a plain transformer over patches of the volume, whose layers feed a convolutional decoder.
 *
 *   tokens = W patches + positions -> 12 blocks; h_i after block i, z after the last norm
 *   encoder1(x); encoder2(h_3), encoder3(h_6), encoder4(h_9) rise by 8, 4, 2; decoder5(z), .. decoder2
 *
 * Hatamizadeh et al., arXiv:2103.10504; monai/networks/nets/unetr.py. */
#include <stdio.h>
#include <string.h>

#include "unet3d/unet3d.h"

enum { LAYERS = 12 };

static const nn_vit_names vit_names = {.layer = "vit.blocks",
                                       .norm1 = "norm1",
                                       .norm2 = "norm2",
                                       .qkv = "attn.qkv",
                                       .out = "attn.out_proj",
                                       .up = "mlp.linear1",
                                       .down = "mlp.linear2",
                                       .norm = "vit.norm"};

static void config(nn_config *k, struct u3_model *m) {
  struct u3_unetr *u = &m->as.unetr;
  nn_vit_config *c = &u->vit.config;
  m->style = (struct u3_style){
      .norm = U3_INSTANCE, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.01f};
  u3_read_norm(k, "norm_name", &m->style);
  u3_triple(k, "img_size", 96, u->image);
  for (int i = 0; i < 3; i++) {
    u->patch[i] = 16;
    m->roi[i] = u->image[i];
    nn_divides(k, u->image[i], 16, "img_size and the patch of 16");
  }
  u->feature = (int32_t)nn_int(k, "feature_size", 16, 1, 1 << 10);
  u->res_block = nn_flag(k, "res_block", true);
  u->conv_block = nn_flag(k, "conv_block", true);
  /* Older releases call it pos_embed. */
  viv_str kind = nn_text(k, "proj_type", "");
  if (!kind.len) kind = nn_text(k, "pos_embed", "conv");
  u->perceptron = nn_is(kind, "perceptron");
  if (!u->perceptron && !nn_is(kind, "conv") && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "proj_type must be conv or perceptron");
  *c = (nn_vit_config){.layers = LAYERS, .act = VIV_GELU, .eps = 1e-5f, .names = &vit_names};
  c->d = nn_int(k, "hidden_size", 768, 1, 1 << 14);
  c->ff = nn_int(k, "mlp_dim", 3072, 1, 1 << 16);
  c->heads = (int32_t)nn_int(k, "num_heads", 12, 1, 1 << 10);
  c->bias = c->key_bias = nn_flag(k, "qkv_bias", false);
  nn_divides(k, c->d, c->heads, "hidden_size and num_heads");
  u->vit.block = u->room;
}

static void load_rise(nn_loader *l, const struct u3_model *m, const char *prefix, int32_t out,
                      int32_t n, struct u3_rise *w) {
  static const int32_t two[] = {2, 2, 2}, three[] = {3, 3, 3}, one[] = {1, 1, 1};
  const struct u3_unetr *u = &m->as.unetr;
  size_t outer = nn_in(l, "%s", prefix);
  u3_load_up(l, "transp_conv_init.conv", (int32_t)u->vit.config.d, out, two, false, &w->first);
  for (int32_t i = 0; i < n; i++) {
    char up[32], block[32];
    snprintf(up, sizeof up, u->conv_block ? "blocks.%d.0.conv" : "blocks.%d.conv", (int)i);
    snprintf(block, sizeof block, "blocks.%d.1.", (int)i);
    u3_load_up(l, up, out, out, two, false, &w->up[i]);
    if (u->conv_block)
      u3_load_block(l, &m->style, block, out, out, three, one, u->res_block, &w->block[i]);
  }
  nn_out(l, outer);
}

static void tables(nn_loader *l, void *model) {
  static const int32_t two[] = {2, 2, 2}, three[] = {3, 3, 3}, one[] = {1, 1, 1};
  struct u3_model *m = model;
  struct u3_unetr *u = &m->as.unetr;
  int32_t f = u->feature, d = (int32_t)u->vit.config.d;
  int64_t cells = (int64_t)(u->image[0] / 16) * (u->image[1] / 16) * (u->image[2] / 16);
  nn_vit_load(l, &u->vit);
  nn_conv_spec patch = {
      .dims = 3, .in = m->in_channels, .out = d, .kernel = 16, .stride = 16, .bias = true};
  if (u->perceptron)
    nn_load_linear(l, "vit.patch_embedding.patch_embeddings.1", d, 4096 * (int64_t)m->in_channels,
                   true, &u->embed);
  else
    nn_load_conv(l, "vit.patch_embedding.patch_embeddings", &patch, &u->embed_conv);
  nn_load_tensor(l, "vit.patch_embedding.position_embeddings", true, 3,
                 (const int64_t[]){1, cells, d}, &u->positions);
  u3_load_block(l, &m->style, "encoder1.layer.", m->in_channels, f, three, one, u->res_block,
                &u->encode);
  for (int32_t i = 0; i < 3; i++) {
    char name[24];
    snprintf(name, sizeof name, "encoder%d.", (int)i + 2);
    load_rise(l, m, name, f << (i + 1), 2 - i, &u->rise[i]);
  }
  for (int32_t i = 0; i < 4; i++) {
    int32_t out = f << (3 - i), in = i ? 2 * out : d;
    char name[40];
    snprintf(name, sizeof name, "decoder%d.transp_conv.conv", 5 - (int)i);
    u3_load_up(l, name, in, out, two, false, &u->up[i]);
    snprintf(name, sizeof name, "decoder%d.conv_block.", 5 - (int)i);
    u3_load_block(l, &m->style, name, 2 * out, out, three, one, u->res_block, &u->decode[i]);
  }
  u3_load_point(l, "out.conv.conv", f, m->classes, true, &m->out);
  /* Built by recent releases and never called; heads of training. */
  nn_ignore(l, "vit.blocks.*.cross_attn.*");
  nn_ignore(l, "vit.blocks.*.norm_cross_attn.*");
  nn_ignore(l, "deep_*");
  nn_ignore(l, "self_distillation_*");
}

/* Patches of x, each flattened as (depth, height, width, channel). */
static float *flat_patches(nn_pass *p, const nn_map *x, const int32_t grid[3]) {
  int64_t c = x->channels, cells = (int64_t)grid[0] * grid[1] * grid[2], run = 16 * c;
  float *y = nn_room(p, x->batch * cells * 4096 * c), *to = y;
  for (int64_t b = 0; b < x->batch; b++)
    for (int64_t i = 0; i < cells; i++) {
      int64_t at[3] = {i / (grid[1] * grid[2]) * 16, i / grid[2] % grid[1] * 16, i % grid[2] * 16};
      for (int64_t r = 0; r < 256; r++, to += run) {
        int64_t row = ((b * x->size[0] + at[0] + r / 16) * x->size[1] + at[1] + r % 16);
        memcpy(to, x->x + (row * x->size[2] + at[2]) * c, (size_t)run * sizeof *to);
      }
    }
  return y;
}

static nn_map token_map(const struct u3_unetr *u, float *x, int32_t batch, const int32_t grid[3]) {
  return (nn_map){.x = x,
                  .batch = batch,
                  .channels = (int32_t)u->vit.config.d,
                  .dims = 3,
                  .size = {grid[0], grid[1], grid[2]},
                  .layout = VIV_CHANNELS_LAST};
}

static nn_map rise(nn_pass *p, const struct u3_model *m, const struct u3_rise *w, int32_t n,
                   const nn_map *x) {
  nn_map y = nn_apply_conv(p, &w->first, 0, x);
  for (int32_t i = 0; i < n; i++) {
    y = nn_apply_conv(p, &w->up[i], 0, &y);
    if (m->as.unetr.conv_block) y = u3_apply_block(p, &m->style, &w->block[i], &y);
  }
  return y;
}

/* Tokens of x; the levels after blocks 3, 6 and 9 rise on the way. Answers the normed result. */
static nn_map transform(nn_pass *p, const struct u3_model *m, const nn_map *x, nn_map skip[4]) {
  const struct u3_unetr *u = &m->as.unetr;
  const viv_compute *c = nn_compute_of(p);
  int32_t grid[3] = {x->size[0] / 16, x->size[1] / 16, x->size[2] / 16};
  int64_t n = (int64_t)grid[0] * grid[1] * grid[2], d = u->vit.config.d, rows = n * x->batch;
  float *tokens;
  if (u->perceptron)
    tokens = nn_apply_linear(p, &u->embed, 0, flat_patches(p, x, grid), rows);
  else
    tokens = nn_apply_conv(p, &u->embed_conv, 0, x).x;
  for (int64_t b = 0; b < x->batch; b++) c->add(c, tokens + b * n * d, u->positions, n * d);
  nn_tap(p, tokens, NN_DIMS(x->batch, n, d), "patch_embedding");
  for (int32_t i = 0; i < LAYERS; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &u->vit, i, x->batch, n, tokens);
    nn_tap(p, tokens, NN_DIMS(x->batch, n, d), "blocks.%d", (int)i);
    if (i == 0 || i % 3) continue;
    nn_map level = token_map(u, tokens, x->batch, grid);
    skip[i / 3] = rise(p, m, &u->rise[i / 3 - 1], 3 - i / 3, &level);
    u3_tap(p, &skip[i / 3], "encoder", i / 3 + 1);
  }
  nn_layer_norm(p, &u->vit.norm, tokens, rows, tokens);
  nn_tap(p, tokens, NN_DIMS(x->batch, n, d), "vit.norm");
  return token_map(u, tokens, x->batch, grid);
}

static nn_map network(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  const struct u3_unetr *u = &m->as.unetr;
  nn_map skip[4];
  for (int i = 0; i < 3; i++)
    if (x->size[i] != u->image[i])
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "%d x %d x %d voxels, but this network takes %d x %d x %d; segment3d slides it over "
              "larger volumes",
              (int)x->size[0], (int)x->size[1], (int)x->size[2], (int)u->image[0], (int)u->image[1],
              (int)u->image[2]);
  skip[0] = u3_apply_block(p, &m->style, &u->encode, x);
  u3_tap(p, &skip[0], "encoder1", -1);
  nn_map y = transform(p, m, x, skip);
  for (int32_t i = 0; i < 4; i++) {
    nn_map up = nn_apply_conv(p, &u->up[i], 0, &y);
    up = u3_join(p, &up, &skip[3 - i]);
    y = u3_apply_block(p, &m->style, &u->decode[i], &up);
    u3_tap(p, &y, "decoder", 5 - i);
  }
  return nn_apply_conv(p, &m->out, 0, &y);
}

const struct u3_family u3_unetr = {"UNETR", config, tables, network};
