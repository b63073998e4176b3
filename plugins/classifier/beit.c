/* BEiT and CAE: vision transformers with relative positions and LayerScale, keys without a bias.
 *
 *   features   the mean of the patches, normed      (fine-tuned)
 *           or the class token after the last norm  (linear probe)
 *           or one query's attention to all tokens, batch norm without parameters (attentive probe)
 *
 * Bao et al., arXiv:2106.08254; Chen et al., Context Autoencoder, arXiv:2202.03026. Official:
 * transformers' BeitForImageClassification; Atten4Vis/CAE, models/modeling_finetune.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"
#include "nn/boxes.h"
#include "nn/vit.h"

struct attentive {
  const float *query; /* [d] */
  nn_norm norm_q, norm_k, norm_v;
  nn_linear q, k, v, proj;
  const float *mean, *variance; /* [d] of the batch norm */
};

struct beit_model {
  struct classifier_model base;
  nn_vit net;
  nn_vit_names names; /* without what this checkpoint has not */
  const char *prefix;
  bool cae, mean, probe, attends;
  float *sines;     /* positions that a checkpoint leaves to be computed; NULL: none */
  bool needs_sines; /* they are wanted */
  nn_norm pooler;   /* of the mean */
  struct attentive attentive;
};
_Static_assert(sizeof(struct beit_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void beit_config(nn_config *k, const viv_model_source *source,
                        struct classifier_model *base) {
  struct beit_model *m = (struct beit_model *)(void *)base;
  nn_vit_config *c = &m->net.config;
  m->prefix = nn_has(k->host, source, "beit.embeddings.cls_token") ? "beit." : "";
  c->eps = 1e-12f;
  nn_vit_read(k, c);
  c->cls = c->cls_position = true;
  c->key_bias = c->swiglu = false;
  c->registers = 0;
  c->unscaled = nn_num(k, "layer_scale_init_value", 0.1, -1e9, 1e9) <= 0;
  c->no_positions = !nn_flag(k, "use_absolute_position_embeddings", false);
  c->relative = nn_flag(k, "use_relative_position_bias", false);
  c->shared = nn_flag(k, "use_shared_relative_position_bias", false);
  c->resize = NN_VIT_BICUBIC;
  nn_vit_check(k, c);
  m->mean = nn_flag(k, "use_mean_pooling", true);
  m->names = nn_vit_beit_names;
  if (m->mean) m->names.norm = NULL;
  c->names = &m->names;
  base->width = c->d;
  base->rolls = true;
  base->means = m->mean;
  base->classes = classifier_classes(k, source, "classifier.weight");
  base->prepare.height = c->image[0];
  base->prepare.width = c->image[1];
  for (int i = 0; i < 3; i++) base->prepare.mean[i] = base->prepare.std[i] = 0.5f;
}

static void cae_config(nn_config *k, const viv_model_source *source,
                       struct classifier_model *base) {
  struct beit_model *m = (struct beit_model *)(void *)base;
  nn_vit_config *c = &m->net.config;
  viv_str probe = nn_text(k, "linear_type", "standard");
  m->cae = true;
  m->prefix = "";
  nn_vit_read_cae(k, source, "", c);
  m->probe = nn_flag(k, "lin_probe", false);
  m->mean = nn_flag(k, "use_mean_pooling", true);
  m->attends = m->probe && nn_is(probe, "attentive");
  if (!k->status && m->probe && !m->attends && !nn_is(probe, "standard"))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "linear_type must be \"standard\" or \"attentive\"");
  m->needs_sines = c->no_positions && nn_flag(k, "sin_pos_emb", true);
  if (m->needs_sines) nn_divides(k, c->d, 4, "embed_dim and the four waves of a position");
  m->names = nn_vit_cae_names;
  if (m->mean) m->names.norm = NULL;
  c->names = &m->names;
  base->width = c->d;
  base->rolls = true;
  base->means = m->mean && !m->probe;
  base->classes = classifier_classes(k, source, "head.weight");
  base->prepare = classifier_square(c->image[0]);
  base->prepare.filter = VIV_CUBIC;
  if (c->image[0] <
      384) { /* as its releases were judged: the middle of a picture a seventh larger */
    base->prepare.crop = base->prepare.shortest = base->prepare.round_crop = true;
    base->prepare.height = c->image[0] * 8 / 7;
  }
}

static uint64_t sine_bytes(const nn_vit_config *c) {
  return (1 + (uint64_t)c->grid[0] * (uint64_t)c->grid[1]) * (uint64_t)c->d * sizeof(float) + 64;
}

static uint64_t more(const struct classifier_model *base) {
  const struct beit_model *m = (const struct beit_model *)(const void *)base;
  return nn_vit_bytes(&m->net.config) + (m->needs_sines ? sine_bytes(&m->net.config) : 0);
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct classifier_model *base,
                     viv_error *error) {
  struct beit_model *m = (struct beit_model *)(void *)base;
  const nn_vit_config *c = &m->net.config;
  if (m->needs_sines) {
    m->sines = host->arena_alloc(arena, sine_bytes(c));
    if (!m->sines) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the positions");
    memset(m->sines, 0, (size_t)c->d * sizeof *m->sines);
    nn_sine_grid(c->grid[0], c->grid[1], c->d, 10000, m->sines + c->d);
    m->net.positions = m->sines;
  }
  return nn_vit_begin(host, arena, &m->net, error);
}

/* ---- weights ---- */

static void load_attentive(nn_loader *l, int64_t d, bool bias, float eps, struct attentive *w) {
  int64_t one[3] = {1, 1, d};
  nn_load_tensor(l, "query_token", true, 3, one, &w->query);
  nn_load_tensor(l, "fc_norm.running_mean", true, 1, &d, &w->mean);
  nn_load_tensor(l, "fc_norm.running_var", true, 1, &d, &w->variance);
  size_t outer = nn_in(l, "attentive_blocks.0.");
  bool early = nn_there(l, "norm1_q.weight"); /* the first release's names */
  nn_load_norm(l, early ? "norm1_q" : "norm_q", d, eps, &w->norm_q);
  nn_load_norm(l, early ? "norm1_k" : "norm_k", d, eps, &w->norm_k);
  nn_load_norm(l, early ? "norm1_v" : "norm_v", d, eps, &w->norm_v);
  nn_load_linear(l, "cross_attn.q", d, d, false, &w->q);
  nn_load_linear(l, "cross_attn.k", d, d, false, &w->k);
  nn_load_linear(l, "cross_attn.v", d, d, false, &w->v);
  nn_load_tensor(l, "cross_attn.q_bias", bias, 1, &d, &w->q.b);
  nn_load_tensor(l, "cross_attn.v_bias", bias, 1, &d, &w->v.b);
  nn_load_linear(l, "cross_attn.proj", d, d, true, &w->proj);
  nn_out(l, outer);
  nn_ignore(l, "attentive_blocks.0.norm2_cross.*"); /* of the same, used by nobody */
  nn_ignore(l, "fc_norm.num_batches_tracked");
}

static void tables(nn_loader *l, void *model) {
  struct beit_model *m = model;
  struct classifier_model *base = &m->base;
  const nn_vit_config *c = &m->net.config;
  nn_at(l, "%s", m->prefix);
  nn_vit_load(l, &m->net);
  if (m->cae && m->attends)
    load_attentive(l, c->d, c->bias, c->eps, &m->attentive);
  else if (m->mean && !m->probe)
    nn_load_norm(l, m->cae ? "fc_norm" : "pooler.layernorm", c->d, c->eps, &m->pooler);
  nn_at(l, "%s", "");
  if (base->classes)
    nn_load_linear(l, m->cae ? "head" : "classifier", base->classes, base->width, true,
                   &base->head);
  nn_ignore(l, "*relative_position_index");
  nn_ignore(l, "*mask_token");
}

/* ---- the pass ---- */

/* LN of the mean of the patches of x [batch, n, d], the class token before them left out. */
static float *mean_of(nn_pass *p, const nn_norm *norm, const float *x, int64_t batch, int64_t n) {
  int64_t d = norm->d;
  float *out = nn_room(p, batch * d);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < d; i++) {
      double sum = 0;
      for (int64_t t = 1; t < n; t++) sum += (double)x[(b * n + t) * d + i];
      out[b * d + i] = (float)(sum / (double)(n - 1));
    }
  nn_layer_norm(p, norm, out, batch, out);
  return out;
}

/* What the probe's query finds among the tokens x [batch, n, d]: [batch, d]. */
static float *asked(nn_pass *p, const struct attentive *w, int32_t heads, const float *x,
                    int64_t batch, int64_t n, int64_t d) {
  float *query = nn_room(p, batch * d), *out = nn_room(p, batch * d);
  float *keys = nn_room(p, batch * n * d), *values = nn_room(p, batch * n * d);
  for (int64_t b = 0; b < batch; b++) memcpy(query + b * d, w->query, (size_t)d * sizeof *query);
  nn_layer_norm(p, &w->norm_q, query, batch, query);
  nn_layer_norm(p, &w->norm_k, x, batch * n, keys);
  nn_layer_norm(p, &w->norm_v, x, batch * n, values);
  nn_attention a = {.batch = batch,
                    .nq = 1,
                    .nk = n,
                    .heads = heads,
                    .dim = (int32_t)(d / heads),
                    .q = nn_apply_linear(p, &w->q, 0, query, batch),
                    .k = nn_apply_linear(p, &w->k, 0, keys, batch * n),
                    .v = nn_apply_linear(p, &w->v, 0, values, batch * n)};
  nn_attend(p, &a, query);
  nn_linear_to(p, &w->proj, 0, NULL, query, batch, out);
  for (int64_t r = 0; r < batch * d; r++)
    out[r] = (float)((double)(out[r] - w->mean[r % d]) / sqrt((double)w->variance[r % d] + 1e-5));
  return out;
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct beit_model *m = nn_net_of(p);
  const nn_vit_config *c = &m->net.config;
  bool other = in->height != c->image[0] || in->width != c->image[1];
  if (other && (m->cae || !nn_param_flag(p, "interpolate_pos_encoding", false)))
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%d x %d pixels, but this model takes %d x %d%s",
            (int)in->height, (int)in->width, (int)c->image[0], (int)c->image[1],
            m->cae ? "" : "; interpolate_pos_encoding lets it take others");
  nn_vit_grid grid = nn_vit_grid_of(p, &m->net, in->height, in->width);
  int64_t d = c->d, n = 1 + (int64_t)grid.height * grid.width;
  if (m->cae && nn_taps(p, "patch_embed"))
    nn_tap(p, nn_vit_patches(p, &m->net, in->pixels, in->n, in->height, in->width),
           NN_DIMS(in->n, n - 1, d), "patch_embed");
  float *x = nn_vit_embed(p, &m->net, in->pixels, in->n, in->height, in->width);
  if (!m->cae) nn_tap(p, x, NN_DIMS(in->n, n, d), "embeddings");
  for (int32_t i = 0; i < c->layers; i++) {
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    const float *bias = nn_vit_relative_bias(p, &m->net, i, grid);
    classifier_watch(p, &m->net, i, in->n, n, bias, x);
    nn_vit_block_biased(p, &m->net, i, in->n, n, bias, x);
    nn_tap(p, x, NN_DIMS(in->n, n, d), m->cae ? "blocks.%d" : "layer.%d", (int)i);
    nn_release(p, mark);
  }
  if (m->names.norm) nn_layer_norm(p, &m->net.norm, x, in->n * n, x);
  struct classifier_features f = {.batch = in->n,
                                  .hidden = x,
                                  .ndim = 3,
                                  .shape = {in->n, n, d},
                                  .first_width = d,
                                  .extra = 1,
                                  .grid = {grid.height, grid.width},
                                  .after = m->pooler.w ? &m->pooler : NULL};
  if (m->attends) {
    f.pooled = asked(p, &m->attentive, c->heads, x, in->n, n, d);
  } else if (m->pooler.w) {
    f.pooled = mean_of(p, &m->pooler, x, in->n, n);
  } else {
    float *first = nn_room(p, in->n * d);
    for (int64_t b = 0; b < in->n; b++)
      memcpy(first + b * d, x + b * n * d, (size_t)d * sizeof *first);
    f.pooled = first;
  }
  if (!m->cae) f.first = f.pooled;
  return f;
}

const struct classifier_variant classifier_beit = {.model_type = "beit",
                                                   .bytes = sizeof(struct beit_model),
                                                   .config = beit_config,
                                                   .more = more,
                                                   .begin = begin,
                                                   .tables = tables,
                                                   .network = network};
const struct classifier_variant classifier_cae = {.model_type = "cae",
                                                  .architecture = "VisionTransformer",
                                                  .bytes = sizeof(struct beit_model),
                                                  .config = cae_config,
                                                  .more = more,
                                                  .begin = begin,
                                                  .tables = tables,
                                                  .network = network};
