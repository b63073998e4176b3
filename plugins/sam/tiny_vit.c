/* TinyViT, the encoder of MobileSAM, and the form that ESP-MedSAM gives it.
 *
 *   pixels -> two convolutions 3x3 stride 2                    [B, S/4, S/4, d0]
 *   stage 0:  MBConv:  x = gelu(x + conv1x1(gelu(depthwise(gelu(conv1x1 x)))))
 *   stages 1 to 3, windows of w x w (zeros appended before the norm, they attend):
 *     x += Wo attention(Wqkv LN x), scores + biases[|dy|, |dx|]
 *     x = depthwise 3x3 of x
 *     x += W2 gelu(W1 LN x)                      [+ the same once more, of ESP-MedSAM's adapter]
 *   between:  conv1x1, gelu, depthwise 3x3 (stride 2; 1 before the last stage), gelu, conv1x1
 *
 * All norms of convolutions are folded in. ESP-MedSAM has one more key and value per head, learned,
 * with a bias of its own.
 *
 * Official: MobileSAM's tiny_vit_sam.py; ESP-MedSAM's student_encoder.py. */
#include <stdio.h>
#include <string.h>

#include "sam/sam.h"

/* ---- configuration ---- */

static void four(nn_config *k, const char *key, const int32_t fallback[SAM_STAGES],
                 int32_t out[SAM_STAGES], int32_t hi) {
  memcpy(out, fallback, SAM_STAGES * sizeof *out);
  if (nn_key(k, key) && nn_ints(k, key, out, SAM_STAGES, 1, hi) != SAM_STAGES && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be 4 numbers", key);
}

void sam_tiny_config(nn_config *k, struct sam_model *m) {
  struct sam_tiny *t = &m->tiny;
  static const int32_t dims[] = {64, 128, 160, 320}, depths[] = {2, 2, 6, 2};
  static const int32_t heads[] = {2, 4, 5, 10}, windows[] = {7, 7, 14, 7};
  four(k, "embed_dims", dims, t->dims, 1 << 13);
  four(k, "depths", depths, t->depths, SAM_MAX_BLOCKS);
  four(k, "num_heads", heads, t->heads, 1 << 8);
  four(k, "window_sizes", windows, t->windows, 1 << 10);
  double ratio = nn_num(k, "mlp_ratio", 4, 0.01, 64);
  double expand = nn_num(k, "mbconv_expand_ratio", 4, 0.01, 64);
  if (nn_int(k, "local_conv_size", 3, 1, 99) != 3 && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "local_conv_size must be 3");
  int32_t blocks = 0;
  for (int i = 0; i < SAM_STAGES; i++) {
    blocks += t->depths[i];
    t->mlp[i] = (int32_t)((double)t->dims[i] * ratio);
    if (i) nn_divides(k, t->dims[i], t->heads[i], "embed_dims and num_heads");
  }
  t->expand = (int32_t)((double)t->dims[0] * expand);
  nn_divides(k, t->dims[0], 2, "the first of embed_dims and 2");
  nn_divides(k, m->side, 16, "image_size and 16");
  if (blocks > SAM_MAX_BLOCKS && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "depths: %d blocks, at most %d",
                        (int)blocks, SAM_MAX_BLOCKS);
  m->grid = m->side / 16;
}

/* ---- weights ---- */

static void load_conv(nn_loader *l, const char *name, int32_t in, int32_t out, int32_t kernel,
                      int32_t stride, int32_t groups, nn_conv *conv) {
  nn_conv_spec spec = {.in = in,
                       .out = out,
                       .kernel = kernel,
                       .stride = stride,
                       .pad = kernel / 2,
                       .groups = groups,
                       .norm = "bn"};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, "c", &spec, conv);
  nn_out(l, outer);
}

/* Wide, depthwise, narrow: an MBConv, and the way between stages. */
static void load_three(nn_loader *l, int32_t in, int32_t inner, int32_t out, int32_t stride,
                       nn_conv conv[3]) {
  load_conv(l, "conv1", in, inner, 1, 1, 1, &conv[0]);
  load_conv(l, "conv2", inner, inner, 3, stride, inner, &conv[1]);
  load_conv(l, "conv3", inner, out, 1, 1, 1, &conv[2]);
}

static void load_mlp(nn_loader *l, const char *name, int32_t d, int32_t ff,
                     struct sam_tiny_mlp *w) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load_norm(l, "norm", d, 1e-5f, &w->norm);
  nn_load_linear(l, "fc1", ff, d, true, &w->up);
  nn_load_linear(l, "fc2", d, ff, true, &w->down);
  nn_out(l, outer);
}

static void load_block(nn_loader *l, const struct sam_model *m, int stage,
                       struct sam_tiny_block *w) {
  const struct sam_tiny *t = &m->tiny;
  int32_t d = t->dims[stage], heads = t->heads[stage], side = t->windows[stage];
  if (!stage) {
    load_three(l, d, t->expand, d, 1, w->conv);
    return;
  }
  size_t outer = nn_in(l, "attn.");
  nn_load_norm(l, "norm", d, 1e-5f, &w->norm);
  nn_load_linear(l, "qkv", 3 * (int64_t)d, d, true, &w->qkv);
  nn_load_linear(l, "proj", d, d, true, &w->proj);
  nn_load_tensor(l, "attention_biases", true, 2, (const int64_t[]){heads, (int64_t)side * side},
                 &w->biases);
  nn_load_tensor(l, "deep_QKV_embeddings_med", m->medical_form, 3,
                 (const int64_t[]){heads, 1, d / heads}, &w->extra);
  nn_load_tensor(l, "med_attention_biases", m->medical_form, 1, (const int64_t[]){1},
                 &w->extra_bias);
  nn_out(l, outer);
  load_conv(l, "local_conv", d, d, 3, 1, d, &w->local);
  load_mlp(l, "mlp", d, t->mlp[stage], &w->mlp);
  if (m->medical_form) load_mlp(l, "med_dah", d, t->mlp[stage], &w->adapter);
}

void sam_tiny_load(nn_loader *l, struct sam_model *m) {
  struct sam_tiny *t = &m->tiny;
  int at = 0;
  load_conv(l, "patch_embed.seq.0", 3, t->dims[0] / 2, 3, 2, 1, &t->patch[0]);
  load_conv(l, "patch_embed.seq.2", t->dims[0] / 2, t->dims[0], 3, 2, 1, &t->patch[1]);
  for (int i = 0; i < SAM_STAGES; i++) {
    for (int j = 0; j < t->depths[i]; j++) {
      size_t outer = nn_in(l, "layers.%d.blocks.%d.", i, j);
      load_block(l, m, i, &t->block[at++]);
      nn_out(l, outer);
    }
    if (i + 1 == SAM_STAGES) break;
    size_t outer = nn_in(l, "layers.%d.downsample.", i);
    load_three(l, t->dims[i], t->dims[i + 1], t->dims[i + 1], i == 2 ? 1 : 2, t->down[i]);
    nn_out(l, outer);
  }
  /* The classifier that the encoder was trained with. */
  nn_ignore(l, m->medical_form ? "SemiTViT.norm_head.*" : "image_encoder.norm_head.*");
  nn_ignore(l, m->medical_form ? "SemiTViT.head.*" : "image_encoder.head.*");
  nn_ignore(l, "*attention_bias_idxs");
}

/* ---- the pass ---- */

/* [heads, n, keys] from the table [heads, n] of distances; the key after the n places has its own. */
static float *biases_of(nn_pass *p, const struct sam_tiny_block *w, int64_t heads, int64_t side,
                        int64_t keys) {
  int64_t n = side * side;
  float *out = nn_room(p, heads * n * keys);
  for (int64_t h = 0; h < heads; h++)
    for (int64_t q = 0; q < n; q++) {
      float *row = out + (h * n + q) * keys;
      for (int64_t k = 0; k < n; k++) {
        int64_t dy = q / side - k / side, dx = q % side - k % side;
        row[k] = w->biases[h * n + (dy < 0 ? -dy : dy) * side + (dx < 0 ? -dx : dx)];
      }
      if (keys > n) row[n] = w->extra_bias[0];
    }
  return out;
}

/* x [count, n, d] -> [count, n, d]: attention inside windows of side x side tokens. */
static float *window_attention(nn_pass *p, const struct sam_tiny_block *w, int64_t heads,
                               int64_t side, int64_t count, float *x) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = side * side, d = w->proj.in, dim = d / heads, rows = count * n;
  int64_t keys = n + (w->extra != NULL);
  nn_layer_norm(p, &w->norm, x, rows, x);
  float *packed = nn_apply_linear(p, &w->qkv, 0, x, rows); /* [rows, heads, 3, dim] */
  float *qkv = nn_room(p, 3 * rows * d);                   /* [3, rows, heads, dim] */
  int64_t shape[4] = {rows, heads, 3, dim};
  int32_t perm[4] = {2, 0, 1, 3};
  c->permute(c, packed, 4, shape, perm, qkv);
  float *k = qkv + rows * d, *v = qkv + 2 * rows * d;
  if (w->extra) {
    float *more = nn_room(p, 2 * count * keys * d);
    for (int64_t s = 0; s < 2 * count; s++) {
      memcpy(more + s * keys * d, k + s * n * d, (size_t)(n * d) * sizeof *more);
      memcpy(more + (s * keys + n) * d, w->extra, (size_t)d * sizeof *more);
    }
    k = more;
    v = more + count * keys * d;
  }
  nn_attention a = {.batch = count,
                    .nq = n,
                    .nk = keys,
                    .heads = (int32_t)heads,
                    .dim = (int32_t)dim,
                    .q = qkv,
                    .k = k,
                    .v = v,
                    .bias = biases_of(p, w, heads, side, keys),
                    .bias_per_head = true};
  nn_attend(p, &a, x);
  return nn_apply_linear(p, &w->proj, 0, x, rows);
}

/* x += attention(x) */
static void attention(nn_pass *p, const struct sam_tiny_block *w, int64_t heads, int64_t side,
                      nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int64_t g = x->size[0], d = x->channels, batch = x->batch;
  int64_t windows = (g + side - 1) / side, whole = windows * side, n = batch * whole * whole * d;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, n), *t = nn_room(p, n);
  nn_vit_grid grid = {(int32_t)whole, (int32_t)whole};
  sam_lay(x->x, batch, g, whole, d, t);
  nn_vit_windows(p, t, batch, grid, (int32_t)windows, d, u);
  const float *y = window_attention(p, w, heads, side, batch * windows * windows, u);
  nn_vit_unwindows(p, y, batch, grid, (int32_t)windows, d, t);
  sam_lay(t, batch, whole, g, d, u);
  c->add(c, x->x, u, batch * g * g * d);
  nn_release(p, mark);
}

/* y += W2 gelu(W1 LN x) */
static void add_mlp(nn_pass *p, const struct sam_tiny_mlp *w, const nn_map *x, float *y) {
  int64_t rows = (int64_t)x->batch * nn_space(x);
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * x->channels);
  nn_layer_norm(p, &w->norm, x->x, rows, u);
  nn_linear_to(p, &w->down, 0, y, nn_apply_linear(p, &w->up, VIV_GELU, u, rows), rows, y);
  nn_release(p, mark);
}

static nn_map block(nn_pass *p, const struct sam_model *m, int stage,
                    const struct sam_tiny_block *w, nn_map *x) {
  nn_map y = *x;
  y.x = nn_room(p, nn_elements(x));
  nn_mark mark = nn_here(p);
  if (!stage) {
    nn_map t = nn_apply_conv(p, &w->conv[0], VIV_GELU, x);
    t = nn_apply_conv(p, &w->conv[1], VIV_GELU, &t);
    nn_conv_to(p, &w->conv[2], VIV_GELU, x->x, &t, &y);
  } else {
    attention(p, w, m->tiny.heads[stage], m->tiny.windows[stage], x);
    nn_conv_to(p, &w->local, 0, NULL, x, &y);
    if (w->adapter.up.w) {
      nn_map from = y;
      from.x = nn_room(p, nn_elements(&y));
      memcpy(from.x, y.x, (size_t)nn_elements(&y) * sizeof *y.x);
      add_mlp(p, &w->mlp, &from, y.x);
      add_mlp(p, &w->adapter, &from, y.x);
    } else {
      add_mlp(p, &w->mlp, &y, y.x);
    }
  }
  nn_release(p, mark);
  return y;
}

static void tap(nn_pass *p, const nn_map *x, bool rows, const char *name) {
  int64_t n = x->batch, d = x->channels, h = x->size[0], w = x->size[1];
  if (!nn_taps(p, "%s", name)) return;
  if (rows) {
    nn_tap(p, x->x, NN_DIMS(n, h * w, d), "%s", name);
    return;
  }
  nn_mark mark = nn_here(p);
  nn_map planes = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, planes.x, NN_DIMS(n, d, h, w), "%s", name);
  nn_release(p, mark);
}

static nn_map patches(nn_pass *p, const struct sam_tiny *t, const nn_map *pixels) {
  nn_map y = nn_conv_shape(p, &t->patch[0], pixels, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &t->patch[0], VIV_GELU, NULL, pixels, &y);
  return nn_apply_conv(p, &t->patch[1], 0, &y);
}

nn_map sam_tiny_apply(nn_pass *p, const struct sam_model *m, const float *pixels, int64_t n) {
  const struct sam_tiny *t = &m->tiny;
  nn_map in = {.x = (float *)(uintptr_t)pixels, /* read only */
               .batch = (int32_t)n,
               .channels = 3,
               .dims = 2,
               .size = {m->side, m->side, 1},
               .layout = VIV_CHANNELS_FIRST};
  nn_map x = patches(p, t, &in);
  char name[48];
  int at = 0;
  tap(p, &x, false, "patch_embed");
  for (int i = 0; i < SAM_STAGES; i++) {
    for (int j = 0; j < t->depths[i]; j++) {
      nn_pass_poll(p);
      x = block(p, m, i, &t->block[at++], &x);
      snprintf(name, sizeof name, "layers.%d.blocks.%d", i, j);
      tap(p, &x, i > 0, name);
    }
    if (i + 1 == SAM_STAGES) break;
    for (int j = 0; j < 3; j++) x = nn_apply_conv(p, &t->down[i][j], j < 2 ? VIV_GELU : 0, &x);
    snprintf(name, sizeof name, "layers.%d.downsample", i);
    tap(p, &x, true, name);
    nn_progress(p, (double)(i + 1) / SAM_STAGES);
  }
  return x;
}
