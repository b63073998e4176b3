/* The two-way transformer and what is read off it.
 *
 *   layer:  q = LN1(self(q + pe, q + pe, q))          the first layer: without pe and residual
 *           q = LN2(q + cross(q + pe, k + pk, k))     tokens look at the picture
 *           q = LN3(q + W2 act(W1 q))
 *           k = LN4(k + cross(k + pk, q + pe, q))     the picture looks at the tokens
 *   q = LN(q + cross(q + pe, k + pk, k))              pe: the tokens as they came
 *   upscaled = gelu(deconv(gelu(LN(deconv k))))       [P, 4g 4g, C/8]
 *   mask t = hyper_t(q_t) . upscaled;  iou = mlp(q_iou)
 *
 * Official: segment_anything.modeling.transformer and mask_decoder; SamMaskDecoder. */
#include <stdio.h>
#include <string.h>

#include "sam/sam.h"

/* ---- weights ---- */

static void load_attention(nn_loader *l, const char *name, int64_t d, int64_t inner, int32_t heads,
                           nn_mha *a) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load_linear(l, "q_proj", inner, d, true, &a->q);
  nn_load_linear(l, "k_proj", inner, d, true, &a->k);
  nn_load_linear(l, "v_proj", inner, d, true, &a->v);
  nn_load_linear(l, "out_proj", d, inner, true, &a->o);
  nn_out(l, outer);
  a->heads = heads;
}

/* transformers calls an MLP's layers proj_in, layers.0 .., proj_out. */
static void load_mlp(nn_loader *l, bool transformers, const char *name, int64_t in, int64_t hidden,
                     int64_t out, int32_t n, nn_mlp *mlp) {
  if (!transformers) {
    nn_load_mlp(l, name, in, hidden, out, n, VIV_RELU, mlp);
    return;
  }
  size_t outer = nn_in(l, "%s.", name);
  nn_load_linear(l, "proj_in", hidden, in, true, &mlp->layer[0]);
  for (int32_t i = 1; i + 1 < n; i++) {
    char layer[24];
    snprintf(layer, sizeof layer, "layers.%d", (int)i - 1);
    nn_load_linear(l, layer, hidden, hidden, true, &mlp->layer[i]);
  }
  nn_load_linear(l, "proj_out", out, hidden, true, &mlp->layer[n - 1]);
  nn_out(l, outer);
  mlp->n = n;
  mlp->act = VIV_RELU;
}

static void load_layer(nn_loader *l, const struct sam_model *m, struct sam_two_way *w) {
  int64_t d = m->width;
  load_attention(l, "self_attn", d, d, m->heads, &w->self);
  load_attention(l, "cross_attn_token_to_image", d, d / 2, m->heads, &w->to_image);
  load_attention(l, "cross_attn_image_to_token", d, d / 2, m->heads, &w->to_tokens);
  for (int i = 0; i < 4; i++) {
    char name[24];
    snprintf(name, sizeof name, m->transformers ? "layer_norm%d" : "norm%d", i + 1);
    nn_load_norm(l, name, d, m->decoder_eps, &w->norm[i]);
  }
  nn_load_linear(l, "mlp.lin1", m->ff, d, true, &w->up);
  nn_load_linear(l, "mlp.lin2", d, m->ff, true, &w->down);
}

void sam_decoder_load(nn_loader *l, struct sam_model *m, int32_t hypernetworks, bool iou) {
  struct sam_decoder *w = &m->decoder;
  bool hf = m->transformers;
  int64_t d = m->width;
  nn_at(l, "%s", "mask_decoder.");
  nn_load_tensor(l, "iou_token.weight", iou, 2, (const int64_t[]){1, d}, &w->iou_token);
  nn_load_tensor(l, "mask_tokens.weight", iou, 2, (const int64_t[]){m->masks, d}, &w->mask_tokens);
  for (int32_t i = 0; i < m->depth; i++) {
    size_t outer = nn_in(l, "transformer.layers.%d.", (int)i);
    load_layer(l, m, &w->layer[i]);
    nn_out(l, outer);
  }
  load_attention(l, "transformer.final_attn_token_to_image", d, d / 2, m->heads, &w->last);
  nn_load_norm(l, hf ? "transformer.layer_norm_final_attn" : "transformer.norm_final_attn", d,
               1e-5f, &w->last_norm);
  nn_conv_spec up = {.in = (int32_t)d,
                     .out = (int32_t)d / 4,
                     .kernel = 2,
                     .stride = 2,
                     .transposed = true,
                     .bias = true};
  nn_load_conv(l, hf ? "upscale_conv1" : "output_upscaling.0", &up, &w->upscale[0]);
  up.in = (int32_t)d / 4;
  up.out = (int32_t)d / 8;
  nn_load_conv(l, hf ? "upscale_conv2" : "output_upscaling.3", &up, &w->upscale[1]);
  nn_load_norm(l, hf ? "upscale_layer_norm" : "output_upscaling.1", d / 4, 1e-6f, &w->upscale_norm);
  for (int32_t i = 0; i < hypernetworks; i++) {
    char name[48];
    snprintf(name, sizeof name, "output_hypernetworks_mlps.%d", (int)i);
    load_mlp(l, hf, name, d, d, d / 8, 3, &w->hyper[i]);
  }
  if (iou)
    load_mlp(l, hf, "iou_prediction_head", d, m->iou_hidden, m->masks, m->iou_depth, &w->iou);
}

/* ---- the transformer ---- */

static float *sum(nn_pass *p, const float *x, const float *y, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  float *out = nn_room(p, n);
  memcpy(out, x, (size_t)n * sizeof *out);
  c->add(c, out, y, n);
  return out;
}

/* k + pk: the positions of the grid for every picture of the batch. */
static float *placed(nn_pass *p, const struct sam_model *m, const float *keys, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  int64_t each = (int64_t)m->grid * m->grid * m->width;
  float *out = nn_room(p, n * each);
  memcpy(out, keys, (size_t)(n * each) * sizeof *out);
  for (int64_t i = 0; i < n; i++) c->add(c, out + i * each, m->positions, each);
  return out;
}

struct two_way {
  const struct sam_model *m;
  int64_t n, tokens, cells;
  const float *pe; /* [n, tokens, C] */
  float *q, *k;
};

/* q = LN(q + mha(q + pe, k + pk, k)); at: k + pk */
static void look_at_picture(nn_pass *p, const struct two_way *t, const nn_mha *mha,
                            const nn_norm *norm, const float *at) {
  const viv_compute *c = nn_compute_of(p);
  int64_t rows = t->n * t->tokens, size = rows * t->m->width;
  float *y = nn_room(p, size);
  nn_apply_mha(p, mha, t->n, sum(p, t->q, t->pe, size), t->tokens, at, t->k, t->cells, NULL, NULL,
               y);
  c->add(c, t->q, y, size);
  nn_layer_norm(p, norm, t->q, rows, t->q);
}

static void layer(nn_pass *p, const struct two_way *t, const struct sam_two_way *w, bool first) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_model *m = t->m;
  int64_t rows = t->n * t->tokens, size = rows * m->width;
  int64_t cells = t->n * t->cells;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, size);
  const float *from = first ? t->q : sum(p, t->q, t->pe, size);
  nn_apply_mha(p, &w->self, t->n, from, t->tokens, from, t->q, t->tokens, NULL, NULL, y);
  if (first)
    memcpy(t->q, y, (size_t)size * sizeof *y);
  else
    c->add(c, t->q, y, size);
  nn_layer_norm(p, &w->norm[0], t->q, rows, t->q);
  const float *at = placed(p, m, t->k, t->n); /* the keys change at the layer's end */
  look_at_picture(p, t, &w->to_image, &w->norm[1], at);
  float *h = nn_apply_linear(p, &w->up, m->decoder_act, t->q, rows);
  nn_linear_to(p, &w->down, 0, t->q, h, rows, t->q);
  nn_layer_norm(p, &w->norm[2], t->q, rows, t->q);
  float *z = nn_room(p, cells * m->width);
  nn_apply_mha(p, &w->to_tokens, t->n, at, t->cells, sum(p, t->q, t->pe, size), t->q, t->tokens,
               NULL, NULL, z);
  c->add(c, t->k, z, cells * m->width);
  nn_layer_norm(p, &w->norm[3], t->k, cells, t->k);
  nn_release(p, mark);
}

/* A tap whose leading axes are those that n stands for. */
static void tap(nn_pass *p, struct sam_lead lead, const float *x, int64_t a, int64_t b, int64_t c,
                const char *format, int at) {
  int64_t shape[5];
  int32_t n = 0;
  for (; n < lead.ndim; n++) shape[n] = lead.shape[n];
  shape[n++] = a;
  shape[n++] = b;
  if (c) shape[n++] = c;
  char name[32];
  snprintf(name, sizeof name, format, at); /* NOLINT: formats of this file */
  nn_tap(p, x, n, shape, "%s", name);
}

float *sam_two_way_apply(nn_pass *p, const struct sam_model *m, struct sam_lead lead, int64_t n,
                         int64_t tokens, float *queries, float *keys) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_decoder *w = &m->decoder;
  int64_t d = m->width, cells = (int64_t)m->grid * m->grid, size = n * tokens * d;
  float *upscaled = nn_room(p, n * 16 * cells * (d / 8));
  nn_mark mark = nn_here(p);
  float *pe = nn_room(p, size);
  memcpy(pe, queries, (size_t)size * sizeof *pe);
  struct two_way t = {m, n, tokens, cells, pe, queries, keys};
  for (int32_t i = 0; i < m->depth; i++) {
    nn_pass_poll(p);
    layer(p, &t, &w->layer[i], !i);
    tap(p, lead, queries, tokens, d, 0, "layer.%d.queries", (int)i);
    tap(p, lead, keys, cells, d, 0, "layer.%d.keys", (int)i);
  }
  look_at_picture(p, &t, &w->last, &w->last_norm, placed(p, m, keys, n));
  nn_map x = {.x = keys,
              .batch = (int32_t)n,
              .channels = (int32_t)d,
              .dims = 2,
              .size = {m->grid, m->grid, 1},
              .layout = VIV_CHANNELS_LAST};
  x = nn_apply_conv(p, &w->upscale[0], 0, &x);
  nn_layer_norm(p, &w->upscale_norm, x.x, nn_space(&x) * n, x.x);
  c->unary(c, VIV_GELU, x.x, x.x, nn_elements(&x));
  nn_map y = nn_conv_shape(p, &w->upscale[1], &x, -1);
  y.x = upscaled;
  nn_conv_to(p, &w->upscale[1], VIV_GELU, NULL, &x, &y);
  nn_release(p, mark);
  return upscaled;
}

/* ---- masks ---- */

static float *tokens_of(nn_pass *p, const struct sam_model *m, const struct sam_prompts *in,
                        struct sam_lead lead, int64_t *tokens) {
  int64_t d = m->width, count = 0, own = 1 + m->masks;
  float *sparse = sam_sparse(p, m, in, &count);
  tap(p, lead, sparse, count, d, 0, "sparse", 0);
  *tokens = own + count;
  float *out = nn_room(p, in->n * *tokens * d);
  for (int64_t i = 0; i < in->n; i++) {
    float *to = out + i * *tokens * d;
    memcpy(to, m->decoder.iou_token, (size_t)d * sizeof *to);
    memcpy(to + d, m->decoder.mask_tokens, (size_t)(m->masks * d) * sizeof *to);
    memcpy(to + own * d, sparse + i * count * d, (size_t)(count * d) * sizeof *to);
  }
  return out;
}

/* to = from + row, at each of the cells. */
static void add_row(const float *from, const float *row, int64_t cells, int64_t d, float *to) {
  for (int64_t i = 0; i < cells; i++)
    for (int64_t k = 0; k < d; k++) to[i * d + k] = from[i * d + k] + row[k];
}

static float *keys_of(nn_pass *p, const struct sam_model *m, const struct sam_view *view,
                      const struct sam_prompts *in) {
  const viv_compute *c = nn_compute_of(p);
  int64_t cells = (int64_t)m->grid * m->grid, each = cells * m->width, n_dense = 0;
  float *out = nn_room(p, in->n * each);
  nn_mark mark = nn_here(p);
  bool shown = nn_taps(p, "dense");
  float *dense = in->mask || shown ? sam_dense(p, m, in, &n_dense) : NULL;
  if (shown) {
    float *planes = nn_room(p, n_dense * each);
    int64_t shape[3] = {n_dense, cells, m->width};
    int32_t perm[3] = {0, 2, 1};
    c->permute(c, dense, 3, shape, perm, planes);
    nn_tap(p, planes, NN_DIMS(n_dense, m->width, m->grid, m->grid), "dense");
  }
  for (int64_t i = 0; i < in->n; i++) {
    const float *from = view->embedding + i / (in->n / view->n) * each;
    if (!in->mask) { /* a whole map of the same row costs more than the sum */
      add_row(from, m->prompt.no_mask, cells, m->width, out + i * each);
      continue;
    }
    memcpy(out + i * each, from, (size_t)each * sizeof *out);
    c->add(c, out + i * each, dense + i % n_dense * each, each);
  }
  nn_release(p, mark);
  return out;
}

struct sam_answer sam_decode(nn_pass *p, const struct sam_model *m, const struct sam_view *view,
                             const struct sam_prompts *in, struct sam_lead lead, bool multimask) {
  const viv_compute *c = nn_compute_of(p);
  int32_t first = multimask ? 1 : 0, outputs = multimask ? m->masks - 1 : 1;
  int64_t d = m->width, small = d / 8, side = 4 * m->grid, cells = side * side, tokens = 0;
  struct sam_answer a = {.n = in->n, .outputs = outputs};
  a.logits = nn_room(p, in->n * outputs * cells);
  a.iou = nn_room(p, in->n * outputs);
  nn_mark mark = nn_here(p);
  float *q = tokens_of(p, m, in, lead, &tokens);
  float *k = keys_of(p, m, view, in);
  float *up = sam_two_way_apply(p, m, lead, in->n, tokens, q, k); /* [n, cells, d/8] */
  tap(p, lead, q, tokens, d, 0, "hs", 0);
  if (nn_taps(p, "upscaled")) {
    float *planes = nn_room(p, in->n * cells * small);
    int64_t shape[3] = {in->n, cells, small};
    int32_t perm[3] = {0, 2, 1};
    c->permute(c, up, 3, shape, perm, planes);
    tap(p, lead, planes, small, side, side, "upscaled", 0);
  }
  for (int64_t i = 0; i < in->n; i++) {
    const float *hs = q + i * tokens * d;
    float *hyper = nn_room(p, outputs * small);
    for (int32_t o = 0; o < outputs; o++)
      memcpy(hyper + o * small,
             nn_apply_mlp(p, &m->decoder.hyper[first + o], hs + (1 + first + o) * d, 1),
             (size_t)small * sizeof *hyper);
    c->gemm(c, 0, 1, outputs, cells, small, 1, hyper, small, up + i * cells * small, small, 0,
            a.logits + i * outputs * cells, cells);
    const float *iou = nn_apply_mlp(p, &m->decoder.iou, hs, 1);
    memcpy(a.iou + i * outputs, iou + first, (size_t)outputs * sizeof *iou);
  }
  nn_release(p, mark);
  return a;
}
