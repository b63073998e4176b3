/* SAM's picture encoder and the neck that all encoders share.
 *
 *   pixels -> patches p x p + pos_embed                       [B, g, g, d]
 *   block:  x += Wo attention(windows(LN x)),  x += W2 gelu(W1 LN x)
 *     windows: zeros are appended after the norm until w divides the grid; the padding attends
 *     scores:  (q / sqrt(dim)) . k + q . Rh[qi - ki] + q . Rw[qj - kj]
 *   neck:  conv 1x1, LN, conv 3x3, LN                          [B, g g, C]
 *
 * Official: segment_anything.modeling.image_encoder; SamVisionEncoder. */
#include "sam/sam.h"

#include <string.h>

static const nn_vit_names meta_names = {.patch = "patch_embed.proj",
                                        .layer = "blocks",
                                        .norm1 = "norm1",
                                        .norm2 = "norm2",
                                        .qkv = "attn.qkv",
                                        .out = "attn.proj",
                                        .up = "mlp.lin1",
                                        .down = "mlp.lin2"};
static const nn_vit_names hf_names = {.patch = "patch_embed.projection",
                                      .layer = "layers",
                                      .norm1 = "layer_norm1",
                                      .norm2 = "layer_norm2",
                                      .qkv = "attn.qkv",
                                      .out = "attn.proj",
                                      .up = "mlp.lin1",
                                      .down = "mlp.lin2"};

/* ---- configuration ---- */

static void read_globals(nn_config *k, const char *key, struct sam_vit *v, int32_t layers) {
  int32_t at[NN_VIT_MAX_LAYERS];
  if (!nn_key(k, key)) return;
  int32_t n = nn_ints(k, key, at, NN_VIT_MAX_LAYERS, 0, layers - 1);
  for (int32_t i = 0; i < n && !k->status; i++) v->global[at[i]] = true;
}

/* ViT-B, -L and -H, which the releases name by nothing but their tensors. */
static const struct released {
  int64_t d;
  int32_t layers, heads, global[4];
} released[] = {
    {768, 12, 12, {2, 5, 8, 11}}, {1024, 24, 16, {5, 11, 17, 23}}, {1280, 32, 16, {7, 15, 23, 31}}};

/* NULL: the configuration says what it is, or there is none of that width. */
static const struct released *release_of(nn_config *k, const viv_model_source *source) {
  int64_t d = nn_axis(k->host, source, "image_encoder.pos_embed", -1, 0);
  if (nn_key(k, "encoder_embed_dim")) return NULL;
  for (size_t i = 0; i < sizeof released / sizeof *released; i++)
    if (released[i].d == d) return &released[i];
  return NULL;
}

void sam_vit_config(nn_config *k, const viv_model_source *source, struct sam_model *m) {
  struct sam_vit *v = &m->vit;
  nn_vit_config *c = &v->net.config;
  bool hf = m->transformers;
  const struct released *known = hf ? NULL : release_of(k, source);
  if (known) {
    c->d = known->d;
    c->layers = known->layers;
    c->heads = known->heads;
    for (int i = 0; i < 4; i++) v->global[known->global[i]] = true;
  } else {
    c->d = nn_need_int(k, hf ? "hidden_size" : "encoder_embed_dim", 1, 1 << 14);
    c->layers =
        (int32_t)nn_need_int(k, hf ? "num_hidden_layers" : "encoder_depth", 1, NN_VIT_MAX_LAYERS);
    c->heads = (int32_t)nn_need_int(k, hf ? "num_attention_heads" : "encoder_num_heads", 1, 512);
  }
  double ratio = nn_num(k, hf ? "mlp_ratio" : "encoder_mlp_ratio", 4, 0.01, 64);
  c->ff =
      nn_int(k, hf ? "mlp_dim" : "encoder_mlp_dim", (int64_t)((double)c->d * ratio), 1, 1 << 18);
  c->act = hf ? nn_activation(k, "hidden_act", "gelu") : VIV_GELU;
  c->eps = hf ? (float)nn_num(k, "layer_norm_eps", 1e-6, 0, 1) : 1e-6f;
  c->bias = c->key_bias = hf ? nn_flag(k, "qkv_bias", true) : true;
  v->relative = hf ? nn_flag(k, "use_rel_pos", true) : true;
  v->window = (int32_t)nn_int(k, hf ? "window_size" : "encoder_window_size", 14, 0, 1 << 12);
  c->channels = 3;
  c->names = hf ? &hf_names : &meta_names;
  int32_t patch = (int32_t)nn_int(k, hf ? "patch_size" : "vit_patch_size", 16, 1, 1 << 10);
  c->patch[0] = c->patch[1] = patch;
  c->image[0] = c->image[1] = m->side;
  if (!k->status && !known)
    read_globals(k, hf ? "global_attn_indexes" : "encoder_global_attn_indexes", v, c->layers);
  nn_divides(k, c->d, c->heads, "the encoder's width and its heads");
  nn_divides(k, m->side, patch, "image_size and the patch size");
  nn_vit_check(k, c);
  m->grid = c->grid[0];
}

void sam_vit_load(nn_loader *l, struct sam_model *m) {
  struct sam_vit *v = &m->vit;
  const nn_vit_config *c = &v->net.config;
  int64_t g = m->grid, dim = c->d / c->heads;
  nn_vit_load(l, &v->net);
  nn_load_tensor(l, "pos_embed", true, 4, (const int64_t[]){1, g, g, c->d}, &v->positions);
  for (int32_t i = 0; i < c->layers && v->relative; i++) {
    int64_t side = v->global[i] || !v->window ? g : v->window;
    int64_t shape[2] = {2 * side - 1, dim};
    size_t outer = nn_in(l, "%s.%d.attn.", c->names->layer, (int)i);
    nn_load_tensor(l, "rel_pos_h", true, 2, shape, &v->table[i].h);
    nn_load_tensor(l, "rel_pos_w", true, 2, shape, &v->table[i].w);
    nn_out(l, outer);
  }
}

/* ---- attention ---- */

/* What the relative positions add to the scores of rows [first, first + rows) of `count` sequences of
 * side x side tokens each: bias [count, heads, rows, n]. The tables stand transposed and backwards,
 * [dim, 2 side - 1], so that the keys of a query lie in a row. */
struct relative {
  const float *qkv, *h, *w; /* qkv [count, n, 3 d] */
  float *bias;
  int64_t heads, dim, side, first, rows;
};

static void add_row(const float *q, const float *table, int64_t dim, int64_t side, int64_t at,
                    float *out) {
  memset(out, 0, (size_t)side * sizeof *out);
  for (int64_t i = 0; i < dim; i++) {
    const float *from = table + i * (2 * side - 1) + side - 1 - at;
    for (int64_t k = 0; k < side; k++) out[k] += q[i] * from[k];
  }
}

static void fill_bias(void *ctx, int64_t begin, int64_t end) {
  const struct relative *r = ctx;
  int64_t n = r->side * r->side, d = r->heads * r->dim;
  float up[1 << 10], along[1 << 10];
  for (int64_t at = begin; at < end; at++) {
    int64_t seq = at / (r->heads * r->rows), head = at / r->rows % r->heads;
    int64_t row = r->first + at % r->rows;
    const float *q = r->qkv + (seq * n + row) * 3 * d + head * r->dim;
    float *to = r->bias + at * n;
    add_row(q, r->h, r->dim, r->side, row / r->side, up);
    add_row(q, r->w, r->dim, r->side, row % r->side, along);
    for (int64_t y = 0; y < r->side; y++)
      for (int64_t x = 0; x < r->side; x++) to[y * r->side + x] = up[y] + along[x];
  }
}

static float *backwards(nn_pass *p, const float *table, int64_t rows, int64_t dim) {
  float *out = nn_room(p, rows * dim);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < dim; i++) out[i * rows + r] = table[(rows - 1 - r) * dim + i];
  return out;
}

/* out [count, n, d] of qkv [count, n, 3 d], sequences of side x side tokens. Biases of all pairs would
 * be gigabytes for a global block: they are made for some rows at a time. */
static void attend(nn_pass *p, const struct sam_vit *v, int32_t layer, const float *qkv,
                   int64_t count, int64_t side, float *out) {
  enum { ROOM = 1 << 22 };
  const viv_compute *c = nn_compute_of(p);
  const nn_vit_config *net = &v->net.config;
  int64_t d = net->d, n = side * side, dim = d / net->heads, pairs = net->heads * n;
  nn_attention a = {.nk = n,
                    .heads = net->heads,
                    .dim = (int32_t)dim,
                    .q_stride = 3 * d,
                    .k_stride = 3 * d,
                    .v_stride = 3 * d,
                    .bias_per_head = true};
  int64_t some = pairs * n < ROOM ? ROOM / (pairs * n) : 1;
  int64_t rows = pairs * n < ROOM || !v->relative ? n : pairs < ROOM ? ROOM / pairs : 1;
  if (some > count || !v->relative) some = count;
  struct relative r = {.heads = net->heads, .dim = dim, .side = side};
  nn_mark mark = nn_here(p);
  if (v->relative) {
    r.h = backwards(p, v->table[layer].h, 2 * side - 1, dim);
    r.w = backwards(p, v->table[layer].w, 2 * side - 1, dim);
    r.bias = nn_room(p, some * pairs * rows);
  }
  for (int64_t s = 0; s < count; s += some) {
    if (some > count - s) some = count - s;
    for (r.first = 0; r.first < n; r.first += r.rows) {
      r.rows = n - r.first < rows ? n - r.first : rows;
      r.qkv = qkv + s * n * 3 * d;
      if (v->relative) c->parallel_for(c, some * net->heads * r.rows, 16, fill_bias, &r);
      a.batch = a.n_bias = some;
      a.nq = r.rows;
      a.bias = r.bias;
      a.q = r.qkv + r.first * 3 * d;
      a.k = r.qkv + d;
      a.v = r.qkv + 2 * d;
      nn_attend(p, &a, out + (s * n + r.first) * d);
      nn_pass_poll(p);
    }
  }
  nn_release(p, mark);
}

void sam_lay(const float *x, int64_t batch, int64_t from, int64_t to, int64_t d, float *y) {
  int64_t both = from < to ? from : to;
  if (from < to) memset(y, 0, (size_t)(batch * to * to * d) * sizeof *y);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t r = 0; r < both; r++)
      memcpy(y + (b * to + r) * to * d, x + (b * from + r) * from * d,
             (size_t)(both * d) * sizeof *y);
}

/* x [batch, g g, d] += the attention half of a block. */
static void attention(nn_pass *p, const struct sam_model *m, int32_t layer, int64_t batch,
                      float *x) {
  const struct sam_vit *v = &m->vit;
  const nn_vit_block *w = &v->net.block[layer];
  int64_t g = m->grid, d = v->net.config.d, side = v->global[layer] ? 0 : v->window;
  int64_t windows = side ? (g + side - 1) / side : 1, whole = side ? windows * side : g;
  int64_t rows = batch * whole * whole;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * d), *t = nn_room(p, rows * d);
  nn_layer_norm(p, &w->norm1, x, batch * g * g, u);
  nn_vit_grid grid = {(int32_t)whole, (int32_t)whole};
  if (side) {
    sam_lay(u, batch, g, whole, d, t);
    nn_vit_windows(p, t, batch, grid, (int32_t)windows, d, u);
  }
  const float *qkv = nn_apply_linear(p, &w->qkv, 0, u, rows); /* [rows, 3 d] */
  attend(p, v, layer, qkv, batch * windows * windows, side ? side : g, u);
  if (side) {
    nn_vit_unwindows(p, u, batch, grid, (int32_t)windows, d, t);
    sam_lay(t, batch, whole, g, d, u);
  }
  nn_linear_to(p, &w->out, 0, x, u, batch * g * g, x);
  nn_release(p, mark);
}

/* ---- the encoder ---- */

/* x [n, g g, d] */
static float *apply_vit(nn_pass *p, const struct sam_model *m, const float *pixels, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_vit *v = &m->vit;
  int64_t g = m->grid, d = v->net.config.d;
  float *x = nn_vit_patches(p, &v->net, pixels, n, m->side, m->side);
  nn_tap(p, x, NN_DIMS(n, g, g, d), "patch_embed");
  for (int64_t b = 0; b < n; b++) c->add(c, x + b * g * g * d, v->positions, g * g * d);
  for (int32_t i = 0; i < v->net.config.layers; i++) {
    nn_pass_poll(p);
    attention(p, m, i, n, x);
    nn_vit_mlp(p, &v->net, i, n, g * g, NULL, x);
    nn_tap(p, x, NN_DIMS(n, g, g, d), m->transformers ? "layer.%d" : "block.%d", (int)i);
    nn_progress(p, (double)(i + 1) / v->net.config.layers);
  }
  return x;
}

static nn_map neck(nn_pass *p, const struct sam_model *m, nn_map x) {
  for (int i = 0; i < 2; i++) {
    x = nn_apply_conv(p, &m->neck.conv[i], 0, &x);
    nn_layer_norm(p, &m->neck.norm[i], x.x, nn_space(&x) * x.batch, x.x);
  }
  return x;
}

float *sam_encode(nn_pass *p, const struct sam_model *m, const float *pixels, int64_t n) {
  float *out = nn_room(p, n * m->grid * m->grid * m->width);
  nn_mark mark = nn_here(p);
  nn_map x = {.batch = (int32_t)n,
              .channels = (int32_t)m->vit.net.config.d,
              .dims = 2,
              .size = {m->grid, m->grid, 1},
              .layout = VIV_CHANNELS_LAST};
  if (m->encoder == SAM_TINY)
    x = sam_tiny_apply(p, m, pixels, n);
  else
    x.x = apply_vit(p, m, pixels, n);
  x = neck(p, m, x);
  memcpy(out, x.x, (size_t)nn_elements(&x) * sizeof *out);
  nn_release(p, mark);
  return out;
}
