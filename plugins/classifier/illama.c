/* iLLaMA: a vision transformer built as LLaMA is.
 *
 *   x = [patches, class token] + positions                             [B, N + 1, d]
 *   x += proj(tril(softmax(rope(q) rope(k)' / sqrt(D))) v),  q, k, v = W RMS(x)
 *   x += fc2(silu(fc1 u) * fc3 u),                           u = RMS(x)
 *   features = RMS(x) of the class token, which stands last and so sees all
 *
 * The causal mask multiplies the weights after the softmax over all keys: rows do not sum to one.
 * Wang et al., Adapting LLaMA Decoder to Vision Transformer, arXiv:2404.06773. Official:
 * techmonsterwang/iLLaMA, models/illama.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"

enum { LAYERS = 128 };

struct illama_block {
  nn_norm norm1, norm2;
  nn_linear qkv, proj, fc1, fc2, fc3;
};

struct illama_model {
  struct classifier_model base;
  int64_t d, ff;
  int32_t layers, heads, image, patch;
  bool bias;
  float soft; /* of the mask: what the keys behind keep of their weight */
  nn_conv embed;
  const float *cls, *positions; /* [d], [N + 1, d] */
  struct illama_block block[LAYERS];
  nn_norm norm;
};
_Static_assert(sizeof(struct illama_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

static void config(nn_config *k, const viv_model_source *source, struct classifier_model *base) {
  struct illama_model *m = (struct illama_model *)(void *)base;
  m->image = (int32_t)nn_int(k, "img_size", 224, 1, 1 << 14);
  m->patch = (int32_t)nn_int(k, "patch_size", 16, 1, 1 << 10);
  m->d = nn_need_int(k, "embed_dim", 2, 1 << 16);
  m->layers = (int32_t)nn_need_int(k, "depth", 1, LAYERS);
  m->heads = (int32_t)nn_need_int(k, "num_heads", 1, 1024);
  m->bias = nn_flag(k, "qkv_bias", true);
  m->soft = (float)nn_num(k, "soft_mask_rate", 0, 0, 1);
  double ratio = nn_num(k, "mlp_ratio", 4, 0.01, 64);
  int64_t multiple = nn_int(k, "multiple_of", 256, 1, 1 << 16);
  int64_t wide = 2 * (int64_t)((double)m->d * ratio) / 3;
  m->ff = (wide + multiple - 1) / multiple * multiple;
  nn_divides(k, m->d, 2 * (int64_t)m->heads, "embed_dim and the pairs of num_heads");
  nn_divides(k, m->image, m->patch, "img_size and patch_size");
  base->width = m->d;
  base->classes = classifier_classes(k, source, "head.weight");
  base->prepare = classifier_square(m->image);
  base->prepare.filter = VIV_CUBIC;
  if (m->image < 384) { /* the releases' own: the middle of a picture a seventh larger */
    base->prepare.crop = base->prepare.shortest = base->prepare.round_crop = true;
    base->prepare.height = m->image * 8 / 7;
  }
}

static void tables(nn_loader *l, void *model) {
  struct illama_model *m = model;
  int64_t d = m->d, side = m->image / m->patch, one[3] = {1, 1, d},
          all[3] = {1, side * side + 1, d};
  nn_conv_spec patch = {
      .in = 3, .out = (int32_t)d, .kernel = m->patch, .stride = m->patch, .bias = true};
  nn_load_conv(l, "patch_embed.proj", &patch, &m->embed);
  nn_load_tensor(l, "cls_token", true, 3, one, &m->cls);
  nn_load_tensor(l, "pos_embed", true, 3, all, &m->positions);
  for (int32_t i = 0; i < m->layers; i++) {
    struct illama_block *w = &m->block[i];
    size_t outer = nn_in(l, "blocks.%d.", (int)i);
    nn_load_rms_norm(l, "norm1", d, 1e-6f, &w->norm1);
    nn_load_linear(l, "attn.qkv", 3 * d, d, m->bias, &w->qkv);
    nn_load_linear(l, "attn.proj", d, d, true, &w->proj);
    nn_load_rms_norm(l, "norm2", d, 1e-6f, &w->norm2);
    nn_load_linear(l, "mlp.fc1", m->ff, d, false, &w->fc1);
    nn_load_linear(l, "mlp.fc2", d, m->ff, false, &w->fc2);
    nn_load_linear(l, "mlp.fc3", m->ff, d, false, &w->fc3);
    nn_out(l, outer);
  }
  nn_load_rms_norm(l, "norm", d, 1e-6f, &m->norm);
  if (m->base.classes) nn_load_linear(l, "head", m->base.classes, d, true, &m->base.head);
  nn_ignore(l, "*freqs_cis");
}

/* ---- the pass ---- */

static void rms(nn_pass *p, const nn_norm *norm, const float *x, int64_t rows, float *y) {
  const viv_compute *c = nn_compute_of(p);
  c->rms_norm(c, x, norm->w, norm->eps, rows, norm->d, y);
}

/* Turns neighbours (2 i, 2 i + 1) of each head by position * 10000^(-2 i / D). */
static void turn(float *x, int64_t position, int32_t heads, int64_t dim) {
  for (int64_t i = 0; i < dim / 2; i++) {
    double angle = (double)position * pow(10000, -2.0 * (double)i / (double)dim);
    float c = (float)cos(angle), s = (float)sin(angle);
    for (int32_t h = 0; h < heads; h++) {
      float *pair = x + h * dim + 2 * i, a = pair[0], b = pair[1];
      pair[0] = a * c - b * s;
      pair[1] = a * s + b * c;
    }
  }
}

struct heads {
  const float *qkv; /* [B, n, 3 d], q and k turned */
  float *out;       /* [B, n, d] */
  float *weights;   /* [tasks, n] */
  int64_t n, d, dim;
  int32_t heads;
  float soft;
};

/* A task is one head of one picture. */
static void attend(void *ctx, int64_t begin, int64_t end) {
  const struct heads *a = ctx;
  float scale = 1 / sqrtf((float)a->dim);
  for (int64_t t = begin; t < end; t++) {
    int64_t b = t / a->heads, h = t % a->heads, stride = 3 * a->d;
    const float *q = a->qkv + b * a->n * stride + h * a->dim, *k = q + a->d, *v = k + a->d;
    float *w = a->weights + t * a->n;
    for (int64_t i = 0; i < a->n; i++) {
      float top = -INFINITY, sum = 0;
      for (int64_t j = 0; j < a->n; j++) {
        float s = 0;
        for (int64_t e = 0; e < a->dim; e++) s += q[i * stride + e] * k[j * stride + e];
        w[j] = s * scale;
        top = w[j] > top ? w[j] : top;
      }
      for (int64_t j = 0; j < a->n; j++) sum += w[j] = expf(w[j] - top);
      float *o = a->out + (b * a->n + i) * a->d + h * a->dim;
      memset(o, 0, (size_t)a->dim * sizeof *o);
      for (int64_t j = 0; j < (a->soft > 0 ? a->n : i + 1); j++) {
        float part = w[j] / sum * (j > i ? a->soft : 1);
        for (int64_t e = 0; e < a->dim; e++) o[e] += part * v[j * stride + e];
      }
    }
  }
}

/* x [B, n, d] += proj(attention(RMS x)) */
static void attention(nn_pass *p, const struct illama_model *m, int32_t layer, int64_t batch,
                      int64_t n, float *x) {
  const struct illama_block *w = &m->block[layer];
  const viv_compute *c = nn_compute_of(p);
  int64_t rows = batch * n, d = m->d;
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * d), *y = nn_room(p, rows * d);
  rms(p, &w->norm1, x, rows, u);
  float *qkv = nn_apply_linear(p, &w->qkv, 0, u, rows);
  for (int64_t r = 0; r < rows; r++) turn(qkv + r * 3 * d, r % n, 2 * m->heads, d / m->heads);
  struct heads a = {.qkv = qkv,
                    .out = u,
                    .weights = nn_room(p, batch * m->heads * n),
                    .n = n,
                    .d = d,
                    .dim = d / m->heads,
                    .heads = m->heads,
                    .soft = m->soft};
  c->parallel_for(c, batch * m->heads, 1, attend, &a);
  nn_linear_to(p, &w->proj, 0, NULL, u, rows, y);
  nn_tap(p, y, NN_DIMS(batch, n, d), "blocks.%d.attn", (int)layer);
  c->add(c, x, y, rows * d);
  nn_release(p, mark);
}

static void mlp(nn_pass *p, const struct illama_model *m, int32_t layer, int64_t rows, float *x) {
  const struct illama_block *w = &m->block[layer];
  nn_mark mark = nn_here(p);
  float *u = nn_room(p, rows * m->d);
  rms(p, &w->norm2, x, rows, u);
  float *gate = nn_apply_linear(p, &w->fc1, VIV_SILU, u, rows);
  float *up = nn_apply_linear(p, &w->fc3, 0, u, rows);
  for (int64_t i = 0; i < rows * m->ff; i++) gate[i] *= up[i];
  nn_linear_to(p, &w->fc2, 0, x, gate, rows, x);
  nn_release(p, mark);
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct illama_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t d = m->d, cells = (int64_t)(m->image / m->patch) * (m->image / m->patch), n = cells + 1;
  if (in->height != m->image || in->width != m->image)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%d x %d pixels, but this model takes %d x %d",
            (int)in->width, (int)in->height, (int)m->image, (int)m->image);
  nn_map pixels = {.x = (float *)(uintptr_t)in->pixels, /* read only */
                   .batch = in->n,
                   .channels = 3,
                   .dims = 2,
                   .size = {in->height, in->width, 1},
                   .layout = VIV_CHANNELS_FIRST};
  nn_map patches = nn_conv_shape(p, &m->embed, &pixels, VIV_CHANNELS_LAST);
  patches.x = nn_room(p, nn_elements(&patches));
  nn_conv_to(p, &m->embed, 0, NULL, &pixels, &patches);
  nn_tap(p, patches.x, NN_DIMS(in->n, cells, d), "patch_embed");
  float *x = nn_room(p, in->n * n * d); /* [B, N + 1, d] */
  for (int32_t b = 0; b < in->n; b++) {
    float *to = x + b * n * d;
    memcpy(to, patches.x + b * cells * d, (size_t)(cells * d) * sizeof *to);
    memcpy(to + cells * d, m->cls, (size_t)d * sizeof *to);
    c->add(c, to, m->positions, n * d);
  }
  for (int32_t i = 0; i < m->layers; i++) {
    nn_pass_poll(p);
    attention(p, m, i, in->n, n, x);
    mlp(p, m, i, in->n * n, x);
    nn_tap(p, x, NN_DIMS(in->n, n, d), "blocks.%d", (int)i);
  }
  rms(p, &m->norm, x, in->n * n, x);
  float *last = nn_room(p, in->n * d);
  for (int32_t b = 0; b < in->n; b++)
    memcpy(last + b * d, x + (b * n + cells) * d, (size_t)d * sizeof *last);
  return (struct classifier_features){
      .batch = in->n, .pooled = last, .hidden = x, .ndim = 3, .shape = {in->n, n, d}};
}

const struct classifier_variant classifier_illama = {.model_type = "illama",
                                                     .bytes = sizeof(struct illama_model),
                                                     .config = config,
                                                     .tables = tables,
                                                     .network = network};
