/* SegFormer: a hierarchical transformer (MiT) and a light head.
 *
 *   stage i:  x = LN(conv x), strides 4, 2, 2, 2 with overlapping patches
 *     block:  x += proj(attention(q LN x, kv R(LN x)));  x += W2 gelu(depthwise 3x3(W1 LN x))
 *     R:      LN(conv of kernel and stride sr), so that keys are 1 / sr^2 as many as queries
 *     end:    LN
 *   SegFormer's head:  concat of W_i f_i at 1/4 size, the deepest first -> 1x1, BN, ReLU -> classes
 *   DAFormer's head:   concat of W_i f_i, the finest first -> ASPP with depthwise-separable
 *                      convolutions -> 3x3, BN, ReLU -> classes
 *
 * Xie et al., arXiv:2105.15203; Hoyer et al., arXiv:2111.14887. Official: transformers'
 * SegformerForSemanticSegmentation (all norms 1e-5); NVlabs' MixVisionTransformer in mmsegmentation
 * with FST's decode heads. */
#include <stdio.h>
#include <string.h>

#include "segmenter/segmenter.h"

enum { STAGES = 4, BLOCKS = 96 };

struct block {
  nn_norm norm1, norm2, reduced_norm;
  nn_linear q, k, v, proj, fc1, fc2;
  nn_conv reduce, depthwise;
};

struct stage {
  nn_conv patch;
  nn_norm patch_norm, norm;
  nn_linear embed; /* of the head */
};

enum names { MIT, ENCODER, STAGED }; /* NVlabs; transformers to version 4; from version 5 */

struct segformer {
  struct segmenter_model base;
  enum names names;
  int32_t depths[STAGES], dims[STAGES], heads[STAGES], ratios[STAGES], mlp[STAGES];
  int32_t kernels[STAGES], strides[STAGES];
  int64_t embed; /* channels of the head */
  float eps;     /* of the norms of blocks and stages */
  int32_t act, in;
  bool qkv_bias, aspp;
  int32_t rates[SEGMENTER_RATES], n_rates;
  struct stage stage[STAGES];
  struct block block[BLOCKS]; /* stage after stage */
  nn_conv fuse, classify;
  nn_conv branch[SEGMENTER_RATES], point[SEGMENTER_RATES]; /* point.w NULL: branch is all of it */
};
_Static_assert(sizeof(struct segformer) <= SEGMENTER_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void check(nn_config *k, const struct segformer *m) {
  int64_t blocks = 0;
  for (int i = 0; i < STAGES && !k->status; i++) {
    blocks += m->depths[i];
    nn_divides(k, m->dims[i], m->heads[i], "hidden sizes and attention heads");
  }
  if (!k->status && blocks > BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%lld blocks, at most %d are supported",
                        (long long)blocks, (int)BLOCKS);
}

/* Four numbers; without the key the usual ones stay. */
static void four(nn_config *k, const char *key, int64_t hi, int32_t out[STAGES]) {
  if (nn_key(k, key) && nn_ints(k, key, out, STAGES, 1, hi) != STAGES && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be four numbers", key);
}

static void usual(struct segformer *m) {
  static const int32_t ratios[] = {8, 4, 2, 1}, heads[] = {1, 2, 5, 8}, dims[] = {32, 64, 160, 256};
  for (int i = 0; i < STAGES; i++) {
    m->depths[i] = 2;
    m->dims[i] = dims[i];
    m->heads[i] = heads[i];
    m->ratios[i] = ratios[i];
    m->mlp[i] = 4;
    m->kernels[i] = i ? 3 : 7;
    m->strides[i] = i ? 2 : 4;
  }
}

static void config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  struct segformer *m = (struct segformer *)(void *)base;
  m->names = nn_has(k->host, source, "segformer.stages.0.layer_norm.weight") ? STAGED : ENCODER;
  usual(m);
  four(k, "depths", BLOCKS, m->depths);
  four(k, "hidden_sizes", 1 << 14, m->dims);
  four(k, "num_attention_heads", 1024, m->heads);
  four(k, "sr_ratios", 64, m->ratios);
  four(k, "mlp_ratios", 64, m->mlp);
  four(k, "patch_sizes", 64, m->kernels);
  four(k, "strides", 64, m->strides);
  m->in = (int32_t)nn_int(k, "num_channels", 3, 3, 3);
  m->embed = nn_int(k, "decoder_hidden_size", 256, 1, 1 << 14);
  m->act = nn_activation(k, "hidden_act", "gelu");
  m->eps = 1e-5f; /* layer_norm_eps is not read by the official class */
  m->qkv_bias = true;
  base->classes = nn_axis(k->host, source, "decode_head.classifier.weight", 0, 2);
  base->prepare.resize = true;
  base->prepare.height = base->prepare.width = 512;
  check(k, m);
}

static void read_head(nn_config *k, struct segformer *m) {
  nn_config h = segmenter_part(k, "decode_head", "config.json, decode_head");
  viv_str type = nn_text(&h, "type", "");
  m->base.classes = nn_need_int(&h, "num_classes", 1, 1 << 16);
  m->base.align_corners = nn_flag(&h, "align_corners", false);
  m->embed = nn_int(&h, "channels", 256, 1, 1 << 14);
  m->aspp = !nn_is(type, "SegFormerHead") && !nn_is(type, "SegformerHead");
  if (m->aspp && !h.status) {
    nn_config d = segmenter_part(&h, "decoder_params", "config.json, decode_head.decoder_params");
    m->embed = nn_int(&d, "embed_dims", m->embed, 1, 1 << 14);
    nn_config f = segmenter_part(&d, "fusion_cfg", "config.json, decoder_params.fusion_cfg");
    viv_str fusion = nn_text(&f, "type", "aspp");
    m->n_rates = nn_ints(&f, "dilations", m->rates, SEGMENTER_RATES, 1, 1024);
    if (!f.status && (!nn_is(fusion, "aspp") || !nn_flag(&f, "sep", true) ||
                      nn_flag(&f, "pool", false) || m->n_rates < 1))
      f.status = nn_fail(k->error, VIV_NEVER, f.where,
                         "only \"aspp\" with sep, without pool, with its dilations is supported");
    h.status = f.status ? f.status : d.status;
  }
  if (h.status) k->status = h.status;
}

static void mit_config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  struct segformer *m = (struct segformer *)(void *)base;
  (void)source;
  m->names = MIT;
  usual(m);
  nn_config b = segmenter_part(k, "backbone", "config.json, backbone");
  four(&b, "depths", BLOCKS, m->depths);
  four(&b, "embed_dims", 1 << 14, m->dims);
  four(&b, "num_heads", 1024, m->heads);
  four(&b, "sr_ratios", 64, m->ratios);
  four(&b, "mlp_ratios", 64, m->mlp);
  m->in = (int32_t)nn_int(&b, "in_chans", 3, 3, 3);
  m->eps = (float)nn_num(&b, "layer_norm_eps", 1e-6, 1e-12, 1);
  m->qkv_bias = nn_flag(&b, "qkv_bias", true);
  m->act = VIV_GELU;
  check(&b, m);
  if (b.status) k->status = b.status;
  read_head(k, m);
}

/* ---- weights ---- */

static void load_block(nn_loader *l, const struct segformer *m, int32_t stage, struct block *w) {
  bool mit = m->names == MIT, old = m->names == ENCODER;
  int64_t d = m->dims[stage], hidden = d * m->mlp[stage];
  int32_t ratio = m->ratios[stage];
  float eps = m->eps;
  nn_load_norm(l, mit ? "norm1" : old ? "layer_norm_1" : "layernorm_before", d, eps, &w->norm1);
  nn_load_norm(l, mit ? "norm2" : old ? "layer_norm_2" : "layernorm_after", d, eps, &w->norm2);
  bool bias = m->qkv_bias;
  size_t outer = nn_in(l, "%s", mit ? "attn." : old ? "attention.self." : "attention.");
  nn_load_linear(l, mit ? "q" : old ? "query" : "q_proj", d, d, bias, &w->q);
  if (mit) {
    nn_load_rows(l, "kv.weight", bias ? "kv.bias" : NULL, 0, d, 2 * d, d, &w->k);
    nn_load_rows(l, "kv.weight", bias ? "kv.bias" : NULL, d, d, 2 * d, d, &w->v);
  } else {
    nn_load_linear(l, old ? "key" : "k_proj", d, d, bias, &w->k);
    nn_load_linear(l, old ? "value" : "v_proj", d, d, bias, &w->v);
  }
  if (ratio > 1) {
    nn_conv_spec c = {
        .in = (int32_t)d, .out = (int32_t)d, .kernel = ratio, .stride = ratio, .bias = true};
    size_t inside = nn_in(l, "%s", mit || old ? "" : "sequence_reduction.");
    nn_load_conv(l, mit || old ? "sr" : "sequence_reduction", &c, &w->reduce);
    nn_load_norm(l, mit ? "norm" : "layer_norm", d, 1e-5f, &w->reduced_norm);
    nn_out(l, inside);
  }
  nn_out(l, outer);
  nn_load_linear(l,
                 mit   ? "attn.proj"
                 : old ? "attention.output.dense"
                       : "attention.o_proj",
                 d, d, true, &w->proj);
  nn_load_linear(l, old ? "mlp.dense1" : "mlp.fc1", hidden, d, true, &w->fc1);
  nn_load_linear(l, old ? "mlp.dense2" : "mlp.fc2", d, hidden, true, &w->fc2);
  nn_conv_spec c = {.in = (int32_t)hidden,
                    .out = (int32_t)hidden,
                    .kernel = 3,
                    .pad = 1,
                    .groups = (int32_t)hidden,
                    .bias = true};
  nn_load_conv(l, "mlp.dwconv.dwconv", &c, &w->depthwise);
}

static void load_encoder(nn_loader *l, struct segformer *m) {
  bool mit = m->names == MIT, old = m->names == ENCODER;
  int32_t n = 0, in = m->in;
  for (int32_t s = 0; s < STAGES; s++) {
    struct stage *w = &m->stage[s];
    int32_t d = m->dims[s], number = mit ? s + 1 : s;
    nn_conv_spec c = {.in = in,
                      .out = d,
                      .kernel = m->kernels[s],
                      .stride = m->strides[s],
                      .pad = m->kernels[s] / 2,
                      .bias = true};
    size_t outer = nn_in(l,
                         mit   ? "patch_embed%d."
                         : old ? "patch_embeddings.%d."
                               : "stages.%d.patch_embeddings.",
                         (int)number);
    nn_load_conv(l, "proj", &c, &w->patch);
    nn_load_norm(l, mit ? "norm" : "layer_norm", d, 1e-5f, &w->patch_norm);
    nn_out(l, outer);
    for (int32_t i = 0; i < m->depths[s] && n < BLOCKS; i++, n++) {
      outer = nn_in(l,
                    mit   ? "block%d.%d."
                    : old ? "block.%d.%d."
                          : "stages.%d.blocks.%d.",
                    (int)number, (int)i);
      load_block(l, m, s, &m->block[n]);
      nn_out(l, outer);
    }
    outer = nn_in(l, mit ? "norm%d" : old ? "layer_norm.%d" : "stages.%d.layer_norm", (int)number);
    nn_load_norm(l, "", d, m->eps, &w->norm);
    nn_out(l, outer);
    in = d;
  }
}

/* The projections of the stages, under whichever of the official names. */
static void load_embeds(nn_loader *l, struct segformer *m, const char *name, int32_t first) {
  for (int32_t s = 0; s < STAGES; s++) {
    size_t outer = nn_in(l, "%s%d.", name, (int)(s + first));
    nn_load_linear(l, "proj", m->embed, m->dims[s], true, &m->stage[s].embed);
    nn_out(l, outer);
  }
}

static void load_segformer_head(nn_loader *l, struct segformer *m) {
  bool mit = m->names == MIT;
  if (m->names == STAGED)
    load_embeds(l, m, "linear_projections.", 0);
  else if (nn_there(l, "linear_c1.proj.weight"))
    load_embeds(l, m, "linear_c", 1);
  else
    load_embeds(l, m, "linear_c.", 0);
  int32_t d = (int32_t)m->embed;
  nn_conv_spec fuse = {.in = STAGES * d, .out = d, .kernel = 1, .norm = mit ? "bn" : "batch_norm"};
  size_t outer = nn_in(l, "%s", mit ? "linear_fuse." : "");
  nn_load_conv(l, mit ? "conv" : "linear_fuse", &fuse, &m->fuse);
  nn_out(l, outer);
  nn_conv_spec last = {.in = d, .out = (int32_t)m->base.classes, .kernel = 1, .bias = true};
  nn_load_conv(l, mit ? "linear_pred" : "classifier", &last, &m->classify);
}

static void load_daformer_head(nn_loader *l, struct segformer *m) {
  int32_t d = (int32_t)m->embed, wide = STAGES * d;
  load_embeds(l, m, "embed_layers.", 0);
  for (int32_t i = 0; i < m->n_rates; i++) {
    size_t outer = nn_in(l, "fuse_layer.aspp_modules.%d.", (int)i);
    int32_t rate = m->rates[i];
    nn_conv_spec one = {.in = wide, .out = d, .kernel = 1, .norm = "bn"};
    nn_conv_spec depthwise = {.in = wide,
                              .out = wide,
                              .kernel = 3,
                              .pad = rate,
                              .dilation = rate,
                              .groups = wide,
                              .norm = "bn"};
    if (rate == 1) {
      nn_load_conv(l, "conv", &one, &m->branch[i]);
    } else {
      size_t inside = nn_in(l, "depthwise_conv.");
      nn_load_conv(l, "conv", &depthwise, &m->branch[i]);
      nn_out(l, inside);
      nn_in(l, "pointwise_conv.");
      nn_load_conv(l, "conv", &one, &m->point[i]);
    }
    nn_out(l, outer);
  }
  size_t outer = nn_in(l, "fuse_layer.bottleneck.");
  nn_conv_spec fuse = {.in = m->n_rates * d, .out = d, .kernel = 3, .pad = 1, .norm = "bn"};
  nn_load_conv(l, "conv", &fuse, &m->fuse);
  nn_out(l, outer);
  nn_conv_spec last = {.in = d, .out = (int32_t)m->base.classes, .kernel = 1, .bias = true};
  nn_load_conv(l, "conv_seg", &last, &m->classify);
}

static void tables(nn_loader *l, void *model) {
  struct segformer *m = model;
  nn_at(l, "%s",
        m->names == MIT      ? "backbone."
        : m->names == STAGED ? "segformer."
                             : "segformer.encoder.");
  load_encoder(l, m);
  nn_at(l, "decode_head.");
  if (m->aspp)
    load_daformer_head(l, m);
  else
    load_segformer_head(l, m);
  nn_at(l, "%s", "");
  nn_ignore(l, "*num_batches_tracked");
  nn_ignore(l, "auxiliary_head.*");                     /* training only */
  if (!m->aspp) nn_ignore(l, "decode_head.conv_seg.*"); /* the base class's, never run */
}

/* ---- the pass ---- */

/* x += proj(attention(q(y), kv(R(y)))), y = LN x; x: tokens of the map, channels last. */
static void attend(nn_pass *p, const struct segformer *m, const struct block *w, int32_t stage,
                   const nn_map *x) {
  int64_t d = x->channels, n = nn_space(x), rows = x->batch * n;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, rows * d); /* [B, n, d] */
  nn_layer_norm(p, &w->norm1, x->x, rows, y);
  nn_attention a = {.batch = x->batch,
                    .nq = n,
                    .nk = n,
                    .heads = m->heads[stage],
                    .dim = (int32_t)(d / m->heads[stage])};
  const float *keys = y;
  if (w->reduce.w) {
    nn_map from = *x;
    from.x = y;
    nn_map less = nn_apply_conv(p, &w->reduce, 0, &from); /* [B, n / sr^2, d] */
    a.nk = nn_space(&less);
    nn_layer_norm(p, &w->reduced_norm, less.x, x->batch * a.nk, less.x);
    keys = less.x;
  }
  a.q = nn_apply_linear(p, &w->q, 0, y, rows);
  a.k = nn_apply_linear(p, &w->k, 0, keys, x->batch * a.nk);
  a.v = nn_apply_linear(p, &w->v, 0, keys, x->batch * a.nk);
  float *out = nn_room(p, rows * d);
  nn_attend(p, &a, out);
  nn_linear_to(p, &w->proj, 0, x->x, out, rows, x->x);
  nn_release(p, mark);
}

/* x += W2 act(depthwise(W1 LN x)) */
static void mix(nn_pass *p, const struct segformer *m, const struct block *w, const nn_map *x) {
  int64_t rows = x->batch * nn_space(x);
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, rows * x->channels);
  nn_layer_norm(p, &w->norm2, x->x, rows, y);
  nn_map wide = *x; /* [B, h, w, ratio d] */
  wide.channels = (int32_t)w->fc1.out;
  wide.x = nn_apply_linear(p, &w->fc1, 0, y, rows);
  nn_map mixed = nn_apply_conv(p, &w->depthwise, m->act, &wide);
  nn_linear_to(p, &w->fc2, 0, x->x, mixed.x, rows, x->x);
  nn_release(p, mark);
}

static void tap_tokens(nn_pass *p, const nn_map *x, const char *what, int32_t a, int32_t b) {
  char name[48];
  if (b < 0)
    snprintf(name, sizeof name, "%s%d", what, (int)a);
  else
    snprintf(name, sizeof name, "%s%d.%d", what, (int)a, (int)b);
  nn_tap(p, x->x, NN_DIMS(x->batch, nn_space(x), x->channels), "%s", name);
}

/* features[i]: [B, h, w, dims i], channels last */
static void encode(nn_pass *p, const struct segformer *m, const nn_map *x, nn_map *features) {
  bool mit = m->names == MIT;
  const struct block *block = m->block;
  nn_map at = *x;
  for (int32_t s = 0; s < STAGES; s++) {
    const struct stage *w = &m->stage[s];
    nn_map y = nn_conv_shape(p, &w->patch, &at, VIV_CHANNELS_LAST);
    y.x = nn_room(p, nn_elements(&y));
    nn_conv_to(p, &w->patch, 0, NULL, &at, &y);
    int64_t rows = y.batch * nn_space(&y);
    nn_layer_norm(p, &w->patch_norm, y.x, rows, y.x);
    if (mit) tap_tokens(p, &y, "backbone.patch_embed", s + 1, -1);
    for (int32_t i = 0; i < m->depths[s]; i++, block++) {
      nn_pass_poll(p);
      attend(p, m, block, s, &y);
      mix(p, m, block, &y);
      if (mit) tap_tokens(p, &y, "backbone.block", s + 1, i);
    }
    nn_layer_norm(p, &w->norm, y.x, rows, y.x);
    segmenter_tap(p, &y, mit ? "feature.%d" : "hidden.%d", (int)s);
    features[s] = at = y;
  }
}

/* All maps at the finest one's size as channels of one map [B, h, w, sum]. order[i]: which comes at
 * place i. */
static nn_map joined(nn_pass *p, const nn_map *maps, int32_t n, bool deepest_first) {
  nn_map out = maps[0];
  out.channels = 0;
  for (int32_t i = 0; i < n; i++) out.channels += maps[i].channels;
  out.x = nn_room(p, nn_elements(&out));
  int64_t rows = out.batch * nn_space(&out), at = 0;
  for (int32_t i = 0; i < n; i++) {
    nn_mark mark = nn_here(p);
    nn_map from = maps[deepest_first ? n - 1 - i : i];
    if (from.size[0] != out.size[0] || from.size[1] != out.size[1])
      from = nn_resize_map(p, VIV_LINEAR, false, out.size, &from);
    for (int64_t r = 0; r < rows; r++)
      memcpy(out.x + r * out.channels + at, from.x + r * from.channels,
             (size_t)from.channels * sizeof *out.x);
    at += from.channels;
    nn_release(p, mark);
  }
  return out;
}

static nn_map network(nn_pass *p, const nn_map *x, bool extras) {
  const struct segformer *m = nn_net_of(p);
  nn_map features[STAGES], branches[SEGMENTER_RATES];
  (void)extras;
  encode(p, m, x, features);
  for (int32_t s = 0; s < STAGES; s++) {
    nn_map *f = &features[s];
    f->x = nn_apply_linear(p, &m->stage[s].embed, 0, f->x, f->batch * nn_space(f));
    f->channels = (int32_t)m->embed;
    tap_tokens(p, f, "embed.", s, -1);
  }
  nn_map y = joined(p, features, STAGES, !m->aspp); /* [B, h/4, w/4, 4 embed] */
  for (int32_t i = 0; m->aspp && i < m->n_rates; i++) {
    branches[i] = nn_apply_conv(p, &m->branch[i], VIV_RELU, &y);
    if (m->point[i].w) branches[i] = nn_apply_conv(p, &m->point[i], VIV_RELU, &branches[i]);
    segmenter_tap(p, &branches[i], "aspp.%d", (int)i);
  }
  if (m->aspp) y = joined(p, branches, m->n_rates, false);
  y = nn_apply_conv(p, &m->fuse, VIV_RELU, &y); /* [B, h/4, w/4, embed] */
  segmenter_tap(p, &y, m->aspp ? "fuse" : "linear_fuse");
  nn_map logits = nn_conv_shape(p, &m->classify, &y, VIV_CHANNELS_FIRST);
  logits.x = nn_room(p, nn_elements(&logits));
  nn_conv_to(p, &m->classify, 0, NULL, &y, &logits);
  return logits;
}

const struct segmenter_variant segmenter_segformer = {.model_type = "segformer",
                                                      .architecture =
                                                          "SegformerForSemanticSegmentation",
                                                      .bytes = sizeof(struct segformer),
                                                      .config = config,
                                                      .tables = tables,
                                                      .network = network};
const struct segmenter_variant segmenter_mit = {.model_type = "segformer",
                                                .architecture = "EncoderDecoder",
                                                .bytes = sizeof(struct segformer),
                                                .config = mit_config,
                                                .tables = tables,
                                                .network = network};
