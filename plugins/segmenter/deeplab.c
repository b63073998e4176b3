/* DeepLab as Learning from Future trains it: a ResNet with a stem of three convolutions whose last
 * stages dilate instead of striding, and heads of dilated convolutions.
 *
 *   unsupervised domain adaptation (mmsegmentation):  ResNetV1c -> sum over rates of conv 3x3
 *   semi-supervised, v2:   the same head on its own ResNet
 *   semi-supervised, v3+:  ASPP (image mean, 1x1, three rates) -> 3x3, resized to stage 1 and joined
 *                          with it -> two 3x3 and 1x1; a second head of that form gives `rep`
 *
 * Chen et al., arXiv:1606.00915, arXiv:1802.02611; Du et al., arXiv:2209.07301. Official: usr922/FST,
 * mmseg's ResNetV1c and DLV2Head, semi_seg/fst/models. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/resnet.h"
#include "segmenter/segmenter.h"

struct stem_norm {
  const float *weight, *bias, *mean, *var; /* [channels] */
};

struct plus { /* DeepLabV3+ */
  nn_conv low, pooled, one, rate[3], head;
};

/* conv, BN, ReLU, conv, BN, ReLU, 1x1 */
struct final {
  nn_conv a, b, c;
};

struct deeplab {
  struct segmenter_model base;
  bool semi, plus, represents;
  int32_t stem[3]; /* channels of the three convolutions */
  nn_conv stem_conv[3];
  struct stem_norm stem_norm; /* semi: bn1 */
  nn_resnet net;
  int32_t in, in_index; /* of the head: channels, stage */
  int32_t rates[SEGMENTER_RATES], n_rates;
  int32_t pads[SEGMENTER_RATES];
  nn_conv sum[SEGMENTER_RATES];
  int32_t planes, classes;
  struct plus aspp;
  struct final classifier, representation;
};
_Static_assert(sizeof(struct deeplab) <= SEGMENTER_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void widths(struct deeplab *m, int32_t base, int32_t stem) {
  nn_resnet_spec *s = &m->net.spec;
  s->no_stem = true;
  s->stem = stem;
  for (int i = 0; i < 4; i++) {
    s->inner[i] = base << i;
    s->out[i] = base << (i + 2);
  }
}

static void check_blocks(nn_config *k, const nn_resnet_spec *s) {
  int64_t blocks = 0;
  for (int i = 0; i < 4; i++) blocks += s->layers[i];
  if (!k->status && blocks > NN_RESNET_BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%lld blocks, at most %d are supported",
                        (long long)blocks, (int)NN_RESNET_BLOCKS);
}

static void four(nn_config *k, const char *key, int64_t hi, int32_t out[4]) {
  if (nn_ints(k, key, out, 4, 1, hi) != 4 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be four numbers", key);
}

/* The dilations of a head; one that has none can't be. */
static void read_rates(nn_config *k, struct deeplab *m) {
  m->n_rates = nn_ints(k, "dilations", m->rates, SEGMENTER_RATES, 1, 1024);
  if (m->n_rates < 1 && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "dilations is missing");
  memcpy(m->pads, m->rates, sizeof m->pads);
}

static void read_backbone(nn_config *k, struct deeplab *m) {
  nn_config b = segmenter_part(k, "backbone", "config.json, backbone");
  nn_resnet_spec *s = &m->net.spec;
  int32_t depth = (int32_t)nn_int(&b, "depth", 101, 50, 152);
  char name[16];
  snprintf(name, sizeof name, "resnet%d", (int)depth);
  bool known = nn_resnet_named(nn_str(name), s) && !s->basic;
  if (nn_key(&b, "stage_blocks"))
    four(&b, "stage_blocks", NN_RESNET_BLOCKS, s->layers);
  else if (!known && !b.status)
    b.status =
        nn_fail(k->error, VIV_NEVER, b.where, "depth %d has no bottleneck ResNet", (int)depth);
  int32_t stem = (int32_t)nn_int(&b, "stem_channels", 64, 2, 4096);
  widths(m, (int32_t)nn_int(&b, "base_channels", 64, 1, 4096), stem);
  m->stem[0] = m->stem[1] = stem / 2;
  m->stem[2] = stem;
  int32_t usual_strides[4] = {1, 2, 2, 2}, none[4] = {1, 1, 1, 1};
  memcpy(s->strides, usual_strides, sizeof usual_strides);
  memcpy(s->dilations, none, sizeof none);
  if (nn_key(&b, "strides")) four(&b, "strides", 8, s->strides);
  if (nn_key(&b, "dilations")) four(&b, "dilations", 64, s->dilations);
  bool contract = nn_flag(&b, "contract_dilation", false);
  for (int i = 0; i < 4; i++)
    s->first_dilation[i] = contract && s->dilations[i] > 1 ? s->dilations[i] / 2 : s->dilations[i];
  s->stride_first = nn_is(nn_text(&b, "style", "pytorch"), "caffe");
  s->taps = "backbone.";
  check_blocks(&b, s);
  if (b.status) k->status = b.status;
}

static void config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  struct deeplab *m = (struct deeplab *)(void *)base;
  (void)source;
  read_backbone(k, m);
  nn_config h = segmenter_part(k, "decode_head", "config.json, decode_head");
  base->classes = m->classes = (int32_t)nn_need_int(&h, "num_classes", 1, 1 << 16);
  base->align_corners = nn_flag(&h, "align_corners", false);
  m->in_index = (int32_t)nn_int(&h, "in_index", 3, 0, 3);
  m->in = m->net.spec.out[m->in_index];
  read_rates(&h, m);
  if (!h.status && nn_int(&h, "in_channels", m->in, 1, 1 << 20) != m->in)
    h.status = nn_fail(k->error, VIV_BAD_INPUT, h.where, "in_channels is not the %d of stage %d",
                       (int)m->in, (int)m->in_index + 1);
  if (h.status) k->status = h.status;
}

static void read_encoder(nn_config *k, struct deeplab *m) {
  nn_config e = segmenter_part(k, "encoder", "config.json, encoder");
  nn_resnet_spec *s = &m->net.spec;
  four(&e, "layers", NN_RESNET_BLOCKS, s->layers);
  int32_t planes = m->planes, dilation = 1;
  widths(m, planes, 2 * planes);
  m->stem[0] = m->stem[1] = planes;
  m->stem[2] = 2 * planes;
  const viv_json *list = nn_key(&e, "replace_stride_with_dilation");
  s->strides[0] = s->dilations[0] = s->first_dilation[0] = 1;
  for (int i = 1; i < 4; i++) { /* torchvision's _make_layer */
    const viv_json *flag = list ? k->host->json_item(list, i - 1) : NULL;
    bool replaced = flag ? k->host->json_boolean(flag) == 1 : i > 1;
    s->first_dilation[i] = dilation;
    s->strides[i] = replaced ? 1 : 2;
    if (replaced) dilation *= 2;
    s->dilations[i] = dilation;
  }
  if (nn_flag(&e, "multi_grid", false)) {
    s->multi_grid[0] = s->multi_grid[1] = 2;
    s->multi_grid[2] = 4;
  }
  s->taps = "";
  check_blocks(&e, s);
  if (!e.status && s->multi_grid[0] && s->layers[3] != 3)
    e.status =
        nn_fail(k->error, VIV_BAD_INPUT, e.where, "multi_grid wants a last stage of 3 blocks");
  if (e.status) k->status = e.status;
}

static void semi_config(nn_config *k, const viv_model_source *source,
                        struct segmenter_model *base) {
  struct deeplab *m = (struct deeplab *)(void *)base;
  m->semi = base->align_corners = true;
  base->classes = m->classes = (int32_t)nn_need_int(k, "num_classes", 1, 1 << 16);
  m->planes = (int32_t)nn_int(k, "planes", 64, 1, 4096);
  read_encoder(k, m);
  nn_config d = segmenter_part(k, "decoder", "config.json, decoder");
  viv_str type = nn_text(&d, "type", "dec_deeplabv2");
  m->plus = nn_is(type, "dec_deeplabv3_plus");
  if (!m->plus && !nn_is(type, "dec_deeplabv2") && !d.status)
    d.status = nn_fail(k->error, VIV_NEVER, d.where,
                       "type is neither dec_deeplabv2 nor dec_deeplabv3_plus");
  m->in_index = 3;
  m->in = m->net.spec.out[3];
  if (m->plus) {
    static const int32_t usual[] = {12, 24, 36};
    m->planes = (int32_t)nn_int(k, "head_planes", 256, 1, 1 << 14);
    m->planes = (int32_t)nn_int(&d, "head_planes", m->planes, 1, 1 << 14);
    memcpy(m->rates, usual, sizeof usual);
    if (nn_key(&d, "dilations") && nn_ints(&d, "dilations", m->rates, 3, 1, 1024) != 3 && !d.status)
      d.status = nn_fail(k->error, VIV_BAD_INPUT, d.where, "dilations must be three numbers");
    m->represents = nn_has(k->host, source, "decoder.representation.0.weight");
  } else {
    read_rates(&d, m);
    if (nn_key(&d, "paddings") &&
        nn_ints(&d, "paddings", m->pads, SEGMENTER_RATES, 0, 1024) != m->n_rates && !d.status)
      d.status = nn_fail(k->error, VIV_BAD_INPUT, d.where, "paddings has not as many as dilations");
  }
  if (d.status) k->status = d.status;
}

/* ---- weights ---- */

static void load_stem(nn_loader *l, struct deeplab *m) {
  static const char *const convs[] = {"0", "3", "6"}, *const norms[] = {"1", "4", "7"};
  size_t outer = nn_in(l, "%s", m->semi ? "conv1." : "stem.");
  for (int32_t i = 0; i < 3; i++) {
    nn_conv_spec c = {.in = i ? m->stem[i - 1] : 3,
                      .out = m->stem[i],
                      .kernel = 3,
                      .stride = i ? 1 : 2,
                      .pad = 1,
                      .norm = i == 2 && m->semi ? NULL : norms[i]};
    nn_load_conv(l, convs[i], &c, &m->stem_conv[i]);
  }
  nn_out(l, outer);
  int64_t n[1] = {m->stem[2]};
  nn_load_tensor(l, "bn1.weight", m->semi, 1, n, &m->stem_norm.weight);
  nn_load_tensor(l, "bn1.bias", m->semi, 1, n, &m->stem_norm.bias);
  nn_load_tensor(l, "bn1.running_mean", m->semi, 1, n, &m->stem_norm.mean);
  nn_load_tensor(l, "bn1.running_var", m->semi, 1, n, &m->stem_norm.var);
}

static void load_sum(nn_loader *l, struct deeplab *m) {
  for (int32_t i = 0; i < m->n_rates; i++) {
    nn_conv_spec c = {.in = m->in,
                      .out = m->classes,
                      .kernel = 3,
                      .pad = m->pads[i],
                      .list_pad = true,
                      .pads = {m->pads[i], m->pads[i]},
                      .dilation = m->rates[i],
                      .bias = true};
    char name[32];
    size_t outer =
        nn_in(l, "%s", m->semi ? "decoder.classifier.conv2d_list." : "decode_head.aspp_modules.");
    snprintf(name, sizeof name, m->semi ? "%d" : "%d.conv", (int)i);
    nn_load_conv(l, name, &c, &m->sum[i]);
    nn_out(l, outer);
  }
}

/* conv name.A and batch norm name.B */
static void load_pair(nn_loader *l, const char *conv, const char *norm, int32_t in, int32_t out,
                      int32_t kernel, int32_t dilation, bool bias, nn_conv *to) {
  nn_conv_spec c = {.in = in,
                    .out = out,
                    .kernel = kernel,
                    .pad = kernel / 2 * dilation,
                    .dilation = dilation,
                    .bias = bias,
                    .norm = norm};
  nn_load_conv(l, conv, &c, to);
}

static void load_final(nn_loader *l, const char *name, int32_t in, int32_t d, int32_t out,
                       struct final *to) {
  size_t outer = nn_in(l, "%s.", name);
  load_pair(l, "0", "1", in, d, 3, 1, true, &to->a);
  load_pair(l, "4", "5", d, d, 3, 1, true, &to->b);
  load_pair(l, "8", NULL, d, out, 1, 1, true, &to->c);
  nn_out(l, outer);
}

static void load_plus(nn_loader *l, struct deeplab *m) {
  struct plus *w = &m->aspp;
  int32_t d = m->planes, low = m->net.spec.out[0];
  size_t outer = nn_in(l, "decoder.");
  load_pair(l, "low_conv.0", "low_conv.1", low, d, 1, 1, true, &w->low);
  size_t inside = nn_in(l, "aspp.");
  load_pair(l, "conv1.1", "conv1.2", m->in, d, 1, 1, false, &w->pooled);
  load_pair(l, "conv2.0", "conv2.1", m->in, d, 1, 1, false, &w->one);
  for (int32_t i = 0; i < 3; i++) {
    char conv[24], norm[24];
    snprintf(conv, sizeof conv, "conv%d.0", (int)i + 3);
    snprintf(norm, sizeof norm, "conv%d.1", (int)i + 3);
    load_pair(l, conv, norm, m->in, d, 3, m->rates[i], false, &w->rate[i]);
  }
  nn_out(l, inside);
  load_pair(l, "head.0", "head.1", 5 * d, d, 3, 1, false, &w->head);
  load_final(l, "classifier", 2 * d, d, m->classes, &m->classifier);
  if (m->represents) load_final(l, "representation", 2 * d, d, d, &m->representation);
  nn_out(l, outer);
}

static void tables(nn_loader *l, void *model) {
  struct deeplab *m = model;
  nn_resnet_spec spec = m->net.spec;
  nn_at(l, "%s", m->semi ? "encoder." : "backbone.");
  load_stem(l, m);
  nn_load_resnet(l, &spec, &m->net);
  nn_at(l, "%s", "");
  if (m->plus)
    load_plus(l, m);
  else
    load_sum(l, m);
  nn_ignore(l, "*num_batches_tracked");
  nn_ignore(l, "auxiliary_head.*"); /* training only */
  nn_ignore(l, "auxor.*");
  nn_ignore(l, "decode_head.conv_seg.*"); /* the base class's, never run */
}

/* ---- the pass ---- */

/* relu(bn1(x)) of the stem's last convolution. */
static void normalise(const struct stem_norm *n, nn_map *x) {
  int64_t rows = x->batch * nn_space(x);
  for (int32_t c = 0; c < x->channels; c++) {
    float scale = n->weight[c] / sqrtf(n->var[c] + 1e-5f), add = n->bias[c] - n->mean[c] * scale;
    for (int64_t r = 0; r < rows; r++) {
      float *v = &x->x[r * x->channels + c];
      *v = fmaxf(*v * scale + add, 0);
    }
  }
}

/* The map after the stem's pool, channels last. */
static nn_map stem(nn_pass *p, const struct deeplab *m, const nn_map *x) {
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_LAST);
  for (int32_t i = 0; i < 3; i++)
    y = nn_apply_conv(p, &m->stem_conv[i], i == 2 && m->semi ? 0 : VIV_RELU, &y);
  segmenter_tap(p, &y, m->semi ? "stem_conv" : "backbone.stem");
  if (m->semi) normalise(&m->stem_norm, &y);
  y = nn_pool2d(p, VIV_POOL_MAX, 3, 2, 1, m->semi, &y);
  segmenter_tap(p, &y, m->semi ? "maxpool" : "backbone.maxpool");
  return y;
}

/* Logits as the sum of dilated convolutions. */
static nn_map sum_of_rates(nn_pass *p, const struct deeplab *m, const nn_map *x) {
  nn_map y = nn_conv_shape(p, &m->sum[0], x, VIV_CHANNELS_FIRST);
  y.x = nn_room(p, nn_elements(&y));
  for (int32_t i = 0; i < m->n_rates; i++) nn_conv_to(p, &m->sum[i], 0, i ? y.x : NULL, x, &y);
  return y;
}

static void put(const nn_map *from, int32_t at, nn_map *to) {
  int64_t rows = to->batch * nn_space(to), per = nn_space(to), source = nn_space(from);
  for (int64_t r = 0; r < rows; r++) /* a map of one place is spread */
    memcpy(to->x + r * to->channels + at, from->x + (source == 1 ? r / per : r) * from->channels,
           (size_t)from->channels * sizeof *to->x);
}

static nn_map wider(nn_pass *p, nn_map x, int32_t channels) {
  x.channels = channels;
  x.x = nn_room(p, nn_elements(&x));
  return x;
}

static nn_map mean_map(nn_pass *p, const nn_map *x) {
  int64_t space = nn_space(x);
  nn_map y = *x;
  y.size[0] = y.size[1] = 1;
  y.x = nn_room(p, nn_elements(&y));
  for (int32_t b = 0; b < x->batch; b++)
    for (int32_t c = 0; c < x->channels; c++) {
      double sum = 0;
      for (int64_t i = 0; i < space; i++) sum += (double)x->x[(b * space + i) * x->channels + c];
      y.x[(int64_t)b * x->channels + c] = (float)(sum / (double)space);
    }
  return y;
}

static nn_map run_final(nn_pass *p, const struct final *w, const nn_map *x) {
  nn_map a = nn_apply_conv(p, &w->a, VIV_RELU, x), b = nn_apply_conv(p, &w->b, VIV_RELU, &a);
  nn_map y = nn_conv_shape(p, &w->c, &b, VIV_CHANNELS_FIRST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &w->c, 0, NULL, &b, &y);
  return y;
}

/* x: the last stage's map, fine: the first stage's. */
static nn_map plus(nn_pass *p, const struct deeplab *m, const nn_map *x, const nn_map *fine,
                   bool extras) {
  const struct plus *w = &m->aspp;
  int32_t d = m->planes;
  nn_map joined = wider(p, *x, 5 * d), mean = mean_map(p, x);
  nn_map part = nn_apply_conv(p, &w->pooled, VIV_RELU, &mean);
  segmenter_tap(p, &part, "image_pool");
  put(&part, 0, &joined);
  for (int32_t i = 0; i < 4; i++) {
    part = nn_apply_conv(p, i ? &w->rate[i - 1] : &w->one, VIV_RELU, x);
    segmenter_tap(p, &part, "aspp.%d", (int)i + 1);
    put(&part, (i + 1) * d, &joined);
  }
  nn_map head = nn_apply_conv(p, &w->head, VIV_RELU, &joined);
  segmenter_tap(p, &head, "fuse");
  head = nn_resize_map(p, VIV_LINEAR, true, fine->size, &head);
  nn_map both = wider(p, *fine, 2 * d), low = nn_apply_conv(p, &w->low, VIV_RELU, fine);
  put(&low, 0, &both);
  put(&head, d, &both);
  if (extras && m->represents) {
    nn_map rep = run_final(p, &m->representation, &both);
    nn_result(p, VIV_F32, rep.x, NN_DIMS(rep.batch, rep.channels, rep.size[0], rep.size[1]), "rep");
  }
  return run_final(p, &m->classifier, &both);
}

static nn_map network(nn_pass *p, const nn_map *x, bool extras) {
  const struct deeplab *m = nn_net_of(p);
  nn_map maps[5] = {{0}}, at = stem(p, m, x);
  uint32_t wanted = 1u << (m->in_index + 1) | 2;
  for (uint32_t s = 0; s < 4 && !m->semi; s++)
    if (nn_taps(p, "feature.%d", (int)s)) wanted |= 2u << s;
  nn_apply_resnet(p, &m->net, &at, wanted, maps);
  for (int32_t s = 0; s < 4 && !m->semi; s++)
    if (wanted >> (s + 1) & 1) segmenter_tap(p, &maps[s + 1], "feature.%d", (int)s);
  const nn_map *last = &maps[m->in_index + 1];
  return m->plus ? plus(p, m, last, &maps[1], extras) : sum_of_rates(p, m, last);
}

const struct segmenter_variant segmenter_deeplab = {.model_type = "deeplabv2",
                                                    .architecture = "EncoderDecoder",
                                                    .bytes = sizeof(struct deeplab),
                                                    .config = config,
                                                    .tables = tables,
                                                    .network = network};
const struct segmenter_variant segmenter_semi = {.model_type = "deeplabv2",
                                                 .architecture = "ModelBuilder",
                                                 .bytes = sizeof(struct deeplab),
                                                 .config = semi_config,
                                                 .tables = tables,
                                                 .network = network};
