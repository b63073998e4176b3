/* The plain vision transformer: configuration, weights, and the pass. */
#include "nn/vit.h"

#include <stdio.h>
#include <string.h>

const nn_vit_names nn_vit_hf_names = {.patch = "embeddings.patch_embeddings.projection",
                                      .cls = "embeddings.cls_token",
                                      .positions = "embeddings.position_embeddings",
                                      .layer = "encoder.layer",
                                      .norm1 = "layernorm_before",
                                      .norm2 = "layernorm_after",
                                      .query = "attention.attention.query",
                                      .key = "attention.attention.key",
                                      .value = "attention.attention.value",
                                      .out = "attention.output.dense",
                                      .up = "intermediate.dense",
                                      .down = "output.dense",
                                      .norm = "layernorm"};

#define DINOV2_NAMES                                                                               \
  .patch = "embeddings.patch_embeddings.projection", .cls = "embeddings.cls_token",                \
  .registers = "embeddings.register_tokens", .positions = "embeddings.position_embeddings",        \
  .layer = "encoder.layer", .norm1 = "norm1", .norm2 = "norm2",                                    \
  .query = "attention.attention.query", .key = "attention.attention.key",                          \
  .value = "attention.attention.value", .out = "attention.output.dense",                           \
  .scale1 = "layer_scale1.lambda1", .scale2 = "layer_scale2.lambda1", .norm = "layernorm"

const nn_vit_names nn_vit_dinov2_names = {DINOV2_NAMES, .up = "mlp.fc1", .down = "mlp.fc2"};
const nn_vit_names nn_vit_swiglu_names = {DINOV2_NAMES, .up = "mlp.weights_in",
                                          .down = "mlp.weights_out"};

#define TIMM_NAMES                                                                                 \
  .patch = "patch_embed.proj", .cls = "cls_token", .registers = "register_tokens",                 \
  .positions = "pos_embed", .layer = "blocks", .norm1 = "norm1", .norm2 = "norm2",                 \
  .qkv = "attn.qkv", .out = "attn.proj", .scale1 = "ls1.gamma", .scale2 = "ls2.gamma",             \
  .norm = "norm"

const nn_vit_names nn_vit_timm_names = {TIMM_NAMES, .up = "mlp.fc1", .down = "mlp.fc2"};
const nn_vit_names nn_vit_timm_swiglu_names = {TIMM_NAMES, .up = "mlp.w12", .down = "mlp.w3"};

const nn_vit_names nn_vit_beit_names = {
    .patch = "embeddings.patch_embeddings.projection",
    .cls = "embeddings.cls_token",
    .positions = "embeddings.position_embeddings",
    .layer = "encoder.layer",
    .norm1 = "layernorm_before",
    .norm2 = "layernorm_after",
    .query = "attention.attention.query",
    .key = "attention.attention.key",
    .value = "attention.attention.value",
    .relative = "attention.attention.relative_position_bias.relative_position_bias_table",
    .shared = "encoder.relative_position_bias.relative_position_bias_table",
    .out = "attention.output.dense",
    .scale1 = "lambda_1",
    .scale2 = "lambda_2",
    .up = "intermediate.dense",
    .down = "output.dense",
    .norm = "layernorm"};

const nn_vit_names nn_vit_cae_names = {.patch = "patch_embed.proj",
                                       .cls = "cls_token",
                                       .positions = "pos_embed",
                                       .layer = "blocks",
                                       .norm1 = "norm1",
                                       .norm2 = "norm2",
                                       .qkv = "attn.qkv",
                                       .q_bias = "attn.q_bias",
                                       .v_bias = "attn.v_bias",
                                       .relative = "attn.relative_position_bias_table",
                                       .shared = "rel_pos_bias.relative_position_bias_table",
                                       .out = "attn.proj",
                                       .scale1 = "gamma_1",
                                       .scale2 = "gamma_2",
                                       .up = "mlp.fc1",
                                       .down = "mlp.fc2",
                                       .norm = "norm"};

/* ---- the configuration ---- */

/* A number for both axes, or [height, width]. */
static void pair(nn_config *k, const char *key, int32_t fallback, int32_t out[2]) {
  int32_t n = nn_key(k, key) ? nn_ints(k, key, out, 2, 1, 1 << 16) : 0;
  if (n == 0) out[0] = fallback;
  if (n < 2) out[1] = out[0];
}

/* fallback 0: the key must be there. */
static int64_t int_or(nn_config *k, const char *key, int64_t fallback, int64_t hi) {
  return fallback ? nn_int(k, key, fallback, 1, hi) : nn_need_int(k, key, 1, hi);
}

void nn_vit_read(nn_config *k, nn_vit_config *c) {
  c->d = int_or(k, "hidden_size", c->d, 1 << 16);
  c->layers = (int32_t)int_or(k, "num_hidden_layers", c->layers, NN_VIT_MAX_LAYERS);
  c->heads = (int32_t)int_or(k, "num_attention_heads", c->heads, 1024);
  c->channels = (int32_t)nn_int(k, "num_channels", 3, 1, 64);
  c->act = nn_activation(k, "hidden_act", "gelu");
  c->eps = (float)nn_num(k, "layer_norm_eps", c->eps > 0 ? (double)c->eps : 1e-12, 0, 1);
  c->bias = c->key_bias = nn_flag(k, "qkv_bias", true);
  c->registers = (int32_t)nn_int(k, "num_register_tokens", 0, 0, 1 << 12);
  c->swiglu = nn_flag(k, "use_swiglu_ffn", false);
  double ratio = nn_num(k, "mlp_ratio", 4, 0.01, 1024);
  c->ff = nn_int(k, "intermediate_size", (int64_t)((double)c->d * ratio), 1, 1 << 18);
  /* DINOv2's SwiGLU has two thirds of the width, rounded up to a multiple of 8. */
  if (c->swiglu) c->ff = (c->ff * 2 / 3 + 7) / 8 * 8;
  pair(k, "image_size", c->image[0] ? c->image[0] : 224, c->image);
  pair(k, "patch_size", c->patch[0] ? c->patch[0] : 16, c->patch);
  nn_divides(k, c->d, c->heads, "hidden_size and num_attention_heads");
}

void nn_vit_check(nn_config *k, nn_vit_config *c) {
  for (int i = 0; i < 2 && !k->status; i++) {
    int32_t room = c->image[i] + 2 * c->pad - c->patch[i];
    if (room < 0)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                          "image_size is %d, which is smaller than one patch of %d",
                          (int)c->image[i], (int)c->patch[i]);
    c->grid[i] = room / c->patch[i] + 1;
  }
}

void nn_vit_read_cae(nn_config *k, const viv_model_source *source, const char *prefix,
                     nn_vit_config *c) {
  char name[64];
  pair(k, "img_size", 224, c->image);
  pair(k, "patch_size", 16, c->patch);
  c->channels = 3;
  c->d = nn_need_int(k, "embed_dim", 1, 1 << 16);
  c->layers = (int32_t)nn_need_int(k, "depth", 1, NN_VIT_MAX_LAYERS);
  c->heads = (int32_t)nn_need_int(k, "num_heads", 1, 1024);
  c->ff = (int64_t)((double)c->d * nn_num(k, "mlp_ratio", 4, 0.01, 1024));
  c->act = VIV_GELU;
  c->eps = 1e-6f;
  c->cls = c->cls_position = true;
  c->bias = nn_flag(k, "qkv_bias", true);
  c->unscaled = nn_num(k, "init_values", 0, -1e9, 1e9) <= 0;
  c->relative = nn_flag(k, "use_rel_pos_bias", false);
  c->shared = nn_flag(k, "use_shared_rel_pos_bias", false);
  snprintf(name, sizeof name, "%spos_embed", prefix);
  c->no_positions = !nn_has(k->host, source, name);
  nn_divides(k, c->d, c->heads, "embed_dim and num_heads");
  nn_vit_check(k, c);
}

/* ---- weights ---- */

uint64_t nn_vit_bytes(const nn_vit_config *c) {
  uint64_t block = sizeof(nn_vit_block) + (uint64_t)c->experts * sizeof(nn_linear) + 64;
  return (uint64_t)c->layers * block + 64;
}

int32_t nn_vit_begin(const viv_host *host, viv_arena *arena, nn_vit *vit, viv_error *error) {
  const nn_vit_config *c = &vit->config;
  vit->block = host->arena_alloc(arena, (uint64_t)c->layers * sizeof *vit->block);
  bool failed = !vit->block;
  for (int32_t i = 0; c->experts && !failed && i < c->layers; i++) {
    vit->block[i].expert = host->arena_alloc(arena, (uint64_t)c->experts * sizeof(nn_linear));
    failed = !vit->block[i].expert;
  }
  return failed ? nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers") : VIV_OK;
}

/* [q; k; v] whose biases are stored apart, none of the keys. */
static void load_parts(nn_loader *l, const nn_vit_names *n, int64_t d, nn_vit_block *w) {
  char weight[64];
  snprintf(weight, sizeof weight, "%s.weight", n->qkv);
  nn_load_rows(l, weight, NULL, 0, d, 3 * d, d, &w->query);
  nn_load_rows(l, weight, NULL, d, d, 3 * d, d, &w->key);
  nn_load_rows(l, weight, NULL, 2 * d, d, 3 * d, d, &w->value);
  nn_load_tensor(l, n->q_bias, true, 1, &d, &w->query.b);
  nn_load_tensor(l, n->v_bias, true, 1, &d, &w->value.b);
}

static void load_relative(nn_loader *l, const nn_vit_config *c, const char *name, bool wanted,
                          const float **out) {
  int64_t rows = (2 * (int64_t)c->grid[0] - 1) * (2 * (int64_t)c->grid[1] - 1) + 3;
  nn_load_tensor(l, name, wanted, 2, (const int64_t[]){rows, c->heads}, out);
}

static void load_block(nn_loader *l, const nn_vit_config *c, nn_vit_block *w) {
  const nn_vit_names *n = c->names;
  const int64_t d = c->d, vector[1] = {d};
  nn_load_norm(l, n->norm1, d, c->eps, &w->norm1);
  nn_load_norm(l, n->norm2, d, c->eps, &w->norm2);
  if (n->qkv && n->q_bias && c->bias) {
    load_parts(l, n, d, w);
  } else if (n->qkv) {
    nn_load_linear(l, n->qkv, 3 * d, d, c->bias && !n->q_bias, &w->qkv);
  } else {
    nn_load_linear(l, n->query, d, d, c->bias, &w->query);
    nn_load_linear(l, n->key, d, d, c->key_bias, &w->key);
    nn_load_linear(l, n->value, d, d, c->bias, &w->value);
  }
  nn_load_linear(l, n->out, d, d, true, &w->out);
  nn_load_lora_linear(l, n->up, c->swiglu ? 2 * c->ff : c->ff, d, true, &c->lora, &w->up);
  nn_load_lora_linear(l, n->down, d - c->expert_features, c->ff, true, &c->lora, &w->down);
  for (int32_t e = 0; e < c->experts; e++) {
    nn_linear none = {0};
    size_t outer = nn_in(l, "%s.%d.", n->experts, (int)e);
    nn_linear *expert = w->expert ? &w->expert[e] : &none;
    nn_load_rows(l, "weight", "bias", 0, c->expert_features, c->expert_features, c->ff, expert);
    nn_out(l, outer);
  }
  nn_load_tensor(l, n->scale1, n->scale1 && !c->unscaled, 1, vector, &w->scale1);
  nn_load_tensor(l, n->scale2, n->scale2 && !c->unscaled, 1, vector, &w->scale2);
  load_relative(l, c, n->relative, c->relative, &w->relative);
}

void nn_vit_load(nn_loader *l, nn_vit *vit) {
  const nn_vit_config *c = &vit->config;
  const nn_vit_names *n = c->names;
  nn_conv_spec spec = {.in = c->channels,
                       .out = (int32_t)c->d,
                       .kernels = {c->patch[0], c->patch[1]},
                       .strides = {c->patch[0], c->patch[1]},
                       .pad = c->pad,
                       .bias = true};
  if (n->patch) nn_load_conv(l, n->patch, &spec, &vit->patch);
  int64_t one[3] = {1, 1, c->d}, some[3] = {1, c->registers, c->d};
  int64_t table[3] = {1, c->cls_position + (int64_t)c->grid[0] * c->grid[1], c->d};
  nn_load_tensor(l, n->cls, c->cls, 3, one, &vit->cls);
  nn_load_tensor(l, n->registers, c->registers > 0, 3, some, &vit->registers);
  nn_load_tensor(l, n->positions, n->positions && !c->no_positions, 3, table, &vit->positions);
  load_relative(l, c, n->shared, c->shared, &vit->relative);
  nn_vit_block none = {0};
  for (int32_t i = 0; i < c->layers; i++) {
    size_t outer = nn_in(l, "%s.%d.", n->layer, (int)i);
    load_block(l, c, vit->block ? &vit->block[i] : &none);
    nn_out(l, outer);
  }
  if (n->norm) nn_load_norm(l, n->norm, c->d, c->eps, &vit->norm);
}

/* ---- tokens ---- */

int64_t nn_vit_extra(const nn_vit *vit) {
  return vit->config.cls + (int64_t)vit->config.registers;
}

nn_vit_grid nn_vit_grid_of(nn_pass *p, const nn_vit *vit, int64_t height, int64_t width) {
  const nn_vit_config *c = &vit->config;
  int64_t size[2] = {height, width};
  int32_t grid[2];
  for (int i = 0; i < 2; i++) {
    int64_t room = size[i] + 2 * c->pad - c->patch[i];
    if (room < 0 || size[i] > 1 << 20)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "%lld x %lld pixels: each side must have at least one patch of %d x %d",
              (long long)height, (long long)width, (int)c->patch[0], (int)c->patch[1]);
    grid[i] = (int32_t)(room / c->patch[i] + 1);
  }
  if (c->resize == NN_VIT_SAME && (grid[0] != c->grid[0] || grid[1] != c->grid[1]))
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%lld x %lld pixels, but this model takes %d x %d",
            (long long)height, (long long)width, (int)c->image[0], (int)c->image[1]);
  return (nn_vit_grid){grid[0], grid[1]};
}

float *nn_vit_patches(nn_pass *p, const nn_vit *vit, const float *pixels, int64_t batch,
                      int64_t height, int64_t width) {
  nn_vit_grid_of(p, vit, height, width);
  nn_map in = {.x = (float *)(uintptr_t)pixels, /* read only */
               .batch = (int32_t)batch,
               .channels = vit->config.channels,
               .dims = 2,
               .size = {(int32_t)height, (int32_t)width, 1},
               .layout = VIV_CHANNELS_FIRST};
  nn_map out = nn_conv_shape(p, &vit->patch, &in, VIV_CHANNELS_LAST);
  out.x = nn_room(p, nn_elements(&out));
  nn_conv_to(p, &vit->patch, 0, NULL, &in, &out);
  return out.x;
}

const float *nn_vit_positions(nn_pass *p, const nn_vit *vit, nn_vit_grid grid) {
  const nn_vit_config *c = &vit->config;
  const float *table = vit->positions + (c->cls_position ? c->d : 0); /* [grid, d] */
  if (grid.height == c->grid[0] && grid.width == c->grid[1]) return table;
  const viv_compute *k = nn_compute_of(p);
  float *out = nn_room(p, (int64_t)grid.height * grid.width * c->d);
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_CUBIC,
                  .dims = 2,
                  .channels = (int32_t)c->d,
                  .batch = 1,
                  .size = {c->grid[0], c->grid[1], 1},
                  .out_size = {grid.height, grid.width, 1},
                  .antialias = c->resize == NN_VIT_BICUBIC_ANTIALIAS,
                  .x = table,
                  .out = out};
  if (c->resize == NN_VIT_BICUBIC_OFFSET)
    for (int i = 0; i < 2; i++) a.scale[i] = (a.out_size[i] + 0.1) / a.size[i];
  k->resize(k, &a);
  return out;
}

float *nn_vit_embed(nn_pass *p, const nn_vit *vit, const float *pixels, int64_t batch,
                    int64_t height, int64_t width) {
  const nn_vit_config *c = &vit->config;
  const viv_compute *k = nn_compute_of(p);
  nn_vit_grid grid = nn_vit_grid_of(p, vit, height, width);
  int64_t d = c->d, cells = (int64_t)grid.height * grid.width, extra = nn_vit_extra(vit);
  int64_t n = extra + cells;
  float *x = nn_room(p, batch * n * d); /* [batch, n, d] */
  nn_mark mark = nn_here(p);
  const float *positions = vit->positions ? nn_vit_positions(p, vit, grid) : NULL;
  const float *patches = nn_vit_patches(p, vit, pixels, batch, height, width);
  for (int64_t b = 0; b < batch; b++) {
    float *to = x + b * n * d;
    if (c->cls) {
      memcpy(to, vit->cls, (size_t)d * sizeof *to);
      if (c->cls_position && positions) k->add(k, to, vit->positions, d);
      to += d;
    }
    if (c->registers) memcpy(to, vit->registers, (size_t)(c->registers * d) * sizeof *to);
    to += c->registers * d;
    memcpy(to, patches + b * cells * d, (size_t)(cells * d) * sizeof *to);
    if (positions) k->add(k, to, positions, cells * d);
  }
  nn_release(p, mark);
  return x;
}

/* ---- blocks ---- */

struct scaled {
  float *x;
  const float *y, *scale;
  int64_t d;
};

static void add_scaled(void *ctx, int64_t begin, int64_t end) {
  const struct scaled *s = ctx;
  for (int64_t r = begin; r < end; r++) {
    float *x = s->x + r * s->d;
    const float *y = s->y + r * s->d;
    for (int64_t i = 0; i < s->d; i++) x[i] += s->scale[i] * y[i];
  }
}

/* x [rows, d] += scale * (W y + b); scale NULL: 1 */
static void add_projected(nn_pass *p, const nn_linear *w, const float *scale, const float *y,
                          int64_t rows, float *x) {
  if (!scale) {
    nn_linear_to(p, w, 0, x, y, rows, x);
    return;
  }
  const viv_compute *k = nn_compute_of(p);
  struct scaled s = {x, nn_apply_linear(p, w, 0, y, rows), scale, w->out};
  k->parallel_for(k, rows, 16, add_scaled, &s);
}

static void attention(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                      const float *bias, float *x) {
  const nn_vit_config *c = &vit->config;
  const nn_vit_block *w = &vit->block[layer];
  int64_t rows = batch * n, d = c->d;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * d); /* [batch, n, d] */
  nn_layer_norm(p, &w->norm1, x, rows, u);
  nn_attention a = {.batch = batch,
                    .nq = n,
                    .nk = n,
                    .heads = c->heads,
                    .dim = (int32_t)(d / c->heads),
                    .bias = bias,
                    .bias_per_head = true};
  if (w->qkv.w) {
    const float *qkv = nn_apply_linear(p, &w->qkv, 0, u, rows); /* [batch, n, 3 d] */
    a.q = qkv;
    a.k = qkv + d;
    a.v = qkv + 2 * d;
    a.q_stride = a.k_stride = a.v_stride = 3 * d;
  } else {
    a.q = nn_apply_linear(p, &w->query, 0, u, rows);
    a.k = nn_apply_linear(p, &w->key, 0, u, rows);
    a.v = nn_apply_linear(p, &w->value, 0, u, rows);
  }
  nn_attend(p, &a, u);
  add_projected(p, &w->out, w->scale1, u, rows, x);
  nn_release(p, mark);
}

void nn_vit_attention(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                      float *x) {
  attention(p, vit, layer, batch, n, NULL, x);
}

/* ViTPose+: y [n, d] = [W2 h, expert h] for one sequence. */
static void joined(nn_pass *p, const nn_vit_block *w, const nn_linear *expert, const float *h,
                   int64_t n, float *y) {
  const viv_compute *k = nn_compute_of(p);
  int64_t d = w->down.out + expert->out;
  k->linear_to(k, w->down.w, w->down.b, 0, NULL, h, w->down.in, y, d, n);
  k->linear_to(k, expert->w, expert->b, 0, NULL, h, expert->in, y + w->down.out, d, n);
}

void nn_vit_mlp(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                const int32_t *expert, float *x) {
  const nn_vit_config *c = &vit->config;
  const nn_vit_block *w = &vit->block[layer];
  const viv_compute *k = nn_compute_of(p);
  int64_t rows = batch * n;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * c->d);
  nn_layer_norm(p, &w->norm2, x, rows, u);
  float *h = nn_apply_linear(p, &w->up, c->swiglu ? 0 : c->act, u, rows); /* [rows, ff or 2 ff] */
  if (c->swiglu) {
    float *gated = nn_room(p, rows * c->ff);
    k->glu(k, VIV_SILU, h, gated, rows, c->ff);
    h = gated;
  }
  if (c->experts) {
    for (int64_t b = 0; b < batch; b++)
      joined(p, w, &w->expert[expert ? expert[b] : 0], h + b * n * c->ff, n, u + b * n * c->d);
    k->add(k, x, u, rows * c->d);
  } else {
    add_projected(p, &w->down, w->scale2, h, rows, x);
  }
  nn_release(p, mark);
}

void nn_vit_block_apply(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                        float *x) {
  nn_vit_attention(p, vit, layer, batch, n, x);
  nn_vit_mlp(p, vit, layer, batch, n, NULL, x);
}

void nn_vit_block_biased(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                         const float *bias, float *x) {
  attention(p, vit, layer, batch, n, bias, x);
  nn_vit_mlp(p, vit, layer, batch, n, NULL, x);
}

/* ---- windows ---- */

/* Axes (batch, window row, row in it, window column, column in it) with the middle two swapped: the
 * permutation is its own inverse, but for the shape that it starts from. */
static void window_axes(nn_pass *p, const float *x, int64_t batch, int64_t a, int64_t b, int64_t c,
                        int64_t row, float *y) {
  const viv_compute *k = nn_compute_of(p);
  int64_t shape[5] = {batch, a, b, c, row};
  int32_t perm[5] = {0, 1, 3, 2, 4};
  k->permute(k, x, 5, shape, perm, y);
}

void nn_vit_windows(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                    int64_t d, float *y) {
  window_axes(p, x, batch, side, grid.height / side, side, grid.width / side * d, y);
}

void nn_vit_unwindows(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                      int64_t d, float *y) {
  window_axes(p, x, batch, side, side, grid.height / side, grid.width / side * d, y);
}
