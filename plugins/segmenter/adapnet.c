/* AdapNet++ and SSMA, which joins two of its encoders (a camera's picture and depth, say).
 *
 *   pixels [B, H, W, 3], BGR 0..255, channels last as everything here
 *     encoder:  BN, conv 7x7 / 2, pool / 2, four blocks of pre-activated bottlenecks (strides 1, 2, 2,
 *               1; in the last units half of the 3x3's outputs, or all, dilate), eASPP  [B, H/16, W/16]
 *               skips: 1x1 of blocks 1 and 2
 *     SSMA:     of each pair  out((a, b) * sigmoid(conv(relu(conv (a, b)))))
 *     decoder:  x2, join skip 2, two 3x3; x2, join skip 1, two 3x3; 1x1; x4         [B, H, W, classes]
 *               SSMA's skips are weighed by the mean of what they join
 *
 * Valada et al., Self-Supervised Model Adaptation for Multimodal Semantic Segmentation,
 * arXiv:1808.03833. Official: DeepSceneSeg/AdapNet-pp and SSMA, whose graph this is (its dilations are
 * not the paper's); the numbers in its names are the checkpoint's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/tensorflow.h"
#include "segmenter/segmenter.h"

enum { BLOCKS = 4, UNITS = 64, RATES = 3 };

struct unit {
  nn_same_norm before;                                 /* scale NULL: x is activated already */
  nn_same_conv conv1, conv2, dilated, conv3, shortcut; /* dilated.w NULL: conv2 is all of it */
};

struct easpp {
  nn_same_conv one, reduce[RATES], first[RATES], second[RATES], expand[RATES], image, out;
};

struct encoder {
  nn_same_norm image;
  nn_same_conv stem, skip1, skip2;
  struct unit unit[UNITS];       /* block after block */
  nn_same_norm activate[BLOCKS]; /* the third has none: the next unit's own does it */
  struct easpp easpp;
};

struct gate {
  nn_same_conv reduce, expand, out;
};

struct adapnet {
  struct segmenter_model base;
  bool ssma;
  int32_t stem, filters[BLOCKS], units[BLOCKS], strides[BLOCKS], rates[RATES];
  int32_t skip, mid, out, reduction, skip_reduction;
  struct encoder encoder[2];
  struct gate deep, low, high; /* of eASPP, skip 2 (H/8), skip 1 (H/4) */
  nn_same_conv weigh[2];       /* of skip 2 and skip 1 */
  nn_same_conv up[3], mix[2][2], classify;
};
_Static_assert(sizeof(struct adapnet) <= SEGMENTER_MODEL_BYTES, "plan's room");

/* ---- configuration ---- */

static void list(nn_config *k, const char *key, int32_t *out, int32_t n, int64_t hi) {
  if (nn_key(k, key) && nn_ints(k, key, out, n, 1, hi) != n && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be %d numbers", key, (int)n);
}

static void config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  static const int32_t filters[] = {256, 512, 1024, 2048}, units[] = {3, 4, 6, 3},
                       strides[] = {1, 2, 2, 1}, rates[] = {3, 6, 12};
  struct adapnet *m = (struct adapnet *)(void *)base;
  int64_t n = 0;
  memcpy(m->filters, filters, sizeof filters);
  memcpy(m->units, units, sizeof units);
  memcpy(m->strides, strides, sizeof strides);
  memcpy(m->rates, rates, sizeof rates);
  m->ssma =
      nn_has(k->host, source, "conv511/weights") || nn_has(k->host, source, "conv511/weights/");
  base->classes = nn_need_int(k, "num_classes", 1, 1 << 16);
  m->stem = (int32_t)nn_int(k, "stem", 64, 1, 4096);
  list(k, "filters", m->filters, BLOCKS, 1 << 14);
  list(k, "residual_units", m->units, BLOCKS, UNITS);
  list(k, "strides", m->strides, BLOCKS, 8);
  list(k, "easpp_rates", m->rates, RATES, 1024);
  m->skip = (int32_t)nn_int(k, "skip_channels", 24, 1, 4096);
  m->mid = (int32_t)nn_int(k, "easpp_mid", 64, 1, 4096);
  m->out = (int32_t)nn_int(k, "easpp_out", 256, 1, 4096);
  m->reduction = (int32_t)nn_int(k, "ssma_reduction", 32, 1, 4096);
  m->skip_reduction = (int32_t)nn_int(k, "ssma_skip_reduction", 8, 1, 4096);
  for (int i = 0; i < BLOCKS; i++) {
    nn_divides(k, m->filters[i], 8, "filters and the halves of a quarter of them");
    n += m->units[i];
  }
  if (!k->status && n > UNITS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%lld units, at most %d are supported",
                        (long long)n, (int)UNITS);
  int32_t size[2] = {384, 768};
  list(k, "input_size", size, 2, 1 << 14);
  base->prepare = (nn_picture){.resize = true,
                               .height = size[0],
                               .width = size[1],
                               .resample = 2,
                               .factor = 1,
                               .mean = {0, 0, 0},
                               .std = {1, 1, 1}};
  base->channels_last = base->bgr = true;
  base->second = m->ssma ? "pixel_values_depth" : NULL;
  base->second_image = m->ssma ? "image_depth" : NULL;
  base->probabilities = true;
}

/* ---- weights ---- */

/* scope/weights with scope/BatchNorm, or with scope/biases. */
static void load(nn_loader *l, const char *scope, nn_same_spec spec, bool norm, bool bias,
                 nn_same_conv *conv) {
  char kernel[96], norms[96], biases[96];
  snprintf(kernel, sizeof kernel, "%s/weights", scope);
  snprintf(norms, sizeof norms, "%s/BatchNorm", scope);
  snprintf(biases, sizeof biases, "%s/biases", scope);
  spec.kernel = kernel;
  spec.norm = norm ? norms : NULL;
  spec.bias = bias ? biases : NULL;
  nn_load_same_conv(l, &spec, conv);
}

static void load_one(nn_loader *l, const char *scope, int32_t in, int32_t out, int32_t size,
                     int32_t dilation, nn_same_conv *conv) {
  load(l, scope, (nn_same_spec){.in = in, .out = out, .size = size, .dilation = dilation}, true,
       false, conv);
}

/* What is special about unit `at` of a block, as the official graph has it. */
struct form {
  bool first;       /* of all: the shortcut reads what conv1 made */
  bool activated;   /* x comes activated from a block's end */
  bool half, whole; /* of the 3x3's outputs dilate */
};

static struct form form_of(const struct adapnet *m, int32_t block, int32_t at) {
  bool last = at == m->units[1] - 1;
  return (struct form){.first = block == 0 && at == 0,
                       .activated = at == 0 && block < 3,
                       .half = (block == 1 && last) || (block == 2 && at > 1),
                       .whole = block == 3};
}

static void load_unit(nn_loader *l, const struct adapnet *m, int32_t block, int32_t at, int32_t in,
                      struct unit *w) {
  struct form f = form_of(m, block, at);
  int32_t out = m->filters[block], inner = out / 4, stride = at ? 1 : m->strides[block];
  char scope[64];
  if (!f.activated) { /* kept with the unit before */
    int32_t b = at ? block : block - 1, u = at ? at : m->units[block - 1];
    snprintf(scope, sizeof scope, "block%d/unit_%d/bottleneck_v1/conv3/BatchNorm", (int)b + 1,
             (int)u);
    nn_load_same_norm(l, scope, in, &w->before);
  }
  size_t outer = nn_in(l, "block%d/unit_%d/bottleneck_v1/", (int)block + 1, (int)at + 1);
  load_one(l, "conv1", in, inner, 1, 1, &w->conv1);
  nn_same_spec wide = {.in = inner, .out = inner, .size = 3, .stride = stride};
  if (f.half || f.whole) {
    wide.out = inner / 2;
    wide.total = inner;
    wide.dilation = f.whole ? 2 : 1;
    load(l, "conv2", wide, true, false, &w->conv2);
    wide.first = inner / 2;
    wide.dilation = 2;
    load(l, "conv2", wide, true, false, &w->dilated);
  } else {
    load(l, "conv2", wide, true, false, &w->conv2);
  }
  load(l, "conv3", (nn_same_spec){.in = inner, .out = out, .size = 1}, false, false, &w->conv3);
  if (at == 0)
    load(l, "shortcut",
         (nn_same_spec){.in = f.first ? inner : in, .out = out, .size = 1, .stride = stride}, false,
         false, &w->shortcut);
  nn_out(l, outer);
}

static void load_easpp(nn_loader *l, const struct adapnet *m, struct easpp *w) {
  static const char *const reduce[] = {"conv70", "conv80", "conv90"},
                           *const first[] = {"conv7", "conv8", "conv9"},
                           *const second[] = {"conv247", "conv248", "conv249"},
                           *const expand[] = {"conv71", "conv81", "conv91"};
  int32_t in = m->filters[3];
  load_one(l, "conv256", in, m->out, 1, 1, &w->one);
  for (int i = 0; i < RATES; i++) {
    load_one(l, reduce[i], in, m->mid, 1, 1, &w->reduce[i]);
    load_one(l, first[i], m->mid, m->mid, 3, m->rates[i], &w->first[i]);
    load_one(l, second[i], m->mid, m->mid, 3, m->rates[i], &w->second[i]);
    load_one(l, expand[i], m->mid, m->out, 1, 1, &w->expand[i]);
  }
  load_one(l, "conv57", in, m->out, 1, 1, &w->image);
  load_one(l, "conv10", (RATES + 2) * m->out, m->out, 1, 1, &w->out);
}

static void load_encoder(nn_loader *l, const struct adapnet *m, struct encoder *w) {
  nn_load_same_norm(l, "conv0/BatchNorm", 3, &w->image);
  nn_same_spec stem = {.in = 3, .out = m->stem, .size = 7, .stride = 2};
  load(l, "conv1", stem, true, false, &w->stem);
  int32_t in = m->stem, n = 0;
  for (int32_t b = 0; b < BLOCKS; b++) {
    for (int32_t i = 0; i < m->units[b] && n < UNITS; i++, n++, in = m->filters[b])
      load_unit(l, m, b, i, in, &w->unit[n]);
    char scope[64];
    snprintf(scope, sizeof scope, "block%d/unit_%d/bottleneck_v1/conv3/BatchNorm", (int)b + 1,
             (int)m->units[b]);
    if (b != 2) nn_load_same_norm(l, scope, m->filters[b], &w->activate[b]);
  }
  load_one(l, "conv32", m->filters[0], m->skip, 1, 1, &w->skip1);
  load_one(l, "conv174", m->filters[1], m->skip, 1, 1, &w->skip2);
  load_easpp(l, m, &w->easpp);
}

static void load_gate(nn_loader *l, const char *reduce, const char *expand, int32_t d,
                      int32_t inner, struct gate *w) {
  load(l, reduce, (nn_same_spec){.in = d, .out = inner, .size = 3}, false, true, &w->reduce);
  load(l, expand, (nn_same_spec){.in = inner, .out = d, .size = 3}, false, true, &w->expand);
}

static void load_decoder(nn_loader *l, struct adapnet *m) {
  int32_t d = m->out, classes = (int32_t)m->base.classes;
  nn_same_spec twice = {.in = d, .out = d, .size = 4, .stride = 2, .transposed = true};
  nn_same_spec four = {.in = classes, .out = classes, .size = 8, .stride = 4, .transposed = true};
  load(l, "conv41", twice, true, false, &m->up[0]);
  load_one(l, "conv89", d + m->skip, d, 3, 1, &m->mix[0][0]);
  load_one(l, "conv96", d, d, 3, 1, &m->mix[0][1]);
  load(l, "conv16", twice, true, false, &m->up[1]);
  load_one(l, "conv88", d + m->skip, d, 3, 1, &m->mix[1][0]);
  load_one(l, "conv95", d, d, 3, 1, &m->mix[1][1]);
  load_one(l, "conv78", d, classes, 1, 1, &m->classify);
  load(l, "conv5", four, true, false, &m->up[2]);
}

static void tables(nn_loader *l, void *model) {
  struct adapnet *m = model;
  nn_at(l, "%s", m->ssma ? "rgb/resnet_v2_50/" : "resnet_v2_50/");
  load_encoder(l, m, &m->encoder[0]);
  if (m->ssma) {
    nn_at(l, "depth/resnet_v2_50/");
    load_encoder(l, m, &m->encoder[1]);
    nn_at(l, "%s", "");
    load_gate(l, "conv511", "conv512", 2 * m->out, m->reduction, &m->deep);
    load_one(l, "conv515", 2 * m->out, m->out, 1, 1, &m->deep.out);
    nn_same_spec skip = {.in = 2 * m->skip, .out = m->skip, .size = 3};
    load_gate(l, "conv513", "conv514", 2 * m->skip, m->skip_reduction, &m->low);
    load(l, "conv552", skip, false, true, &m->low.out);
    load_gate(l, "conv518", "conv519", 2 * m->skip, m->skip_reduction, &m->high);
    load(l, "conv553", skip, false, true, &m->high.out);
    load_one(l, "conv550", m->out, m->skip, 1, 1, &m->weigh[0]);
    load_one(l, "conv551", m->out, m->skip, 1, 1, &m->weigh[1]);
  }
  load_decoder(l, m);
  nn_at(l, "%s", "");
  static const char *const training[] = {"*conv911/*",   "*conv912/*",   "*Adam*",
                                         "*global_step", "*beta1_power", "*beta2_power",
                                         "*Momentum*"};
  for (size_t i = 0; i < sizeof training / sizeof *training; i++) nn_ignore(l, training[i]);
}

/* ---- the pass ---- */

/* Maps behind one another as channels of one; a map of one place is spread. */
static nn_map join(nn_pass *p, const nn_map *maps, int32_t n) {
  nn_map y = maps[0];
  y.channels = 0;
  for (int32_t i = 0; i < n; i++) y.channels += maps[i].channels;
  y.x = nn_room(p, nn_elements(&y));
  int64_t per = nn_space(&y), rows = y.batch * per;
  for (int64_t r = 0; r < rows; r++) {
    float *to = y.x + r * y.channels;
    for (int32_t i = 0; i < n; i++) {
      int64_t from = nn_space(&maps[i]) == per ? r : r / per;
      memcpy(to, maps[i].x + from * maps[i].channels, (size_t)maps[i].channels * sizeof *to);
      to += maps[i].channels;
    }
  }
  return y;
}

/* The mean over the places: [B, 1, 1, channels] */
static nn_map mean_of(nn_pass *p, const nn_map *x) {
  int32_t one[2] = {1, 1};
  int64_t space = nn_space(x);
  nn_map y = nn_new_map(p, x->batch, x->channels, 2, one, VIV_CHANNELS_LAST);
  for (int32_t b = 0; b < x->batch; b++)
    for (int32_t c = 0; c < x->channels; c++) {
      double sum = 0;
      for (int64_t i = 0; i < space; i++) sum += (double)x->x[(b * space + i) * x->channels + c];
      y.x[(int64_t)b * x->channels + c] = (float)(sum / (double)space);
    }
  return y;
}

static nn_map activated(nn_pass *p, const nn_same_norm *norm, const nn_map *x) {
  nn_map y = *x;
  y.x = nn_room(p, nn_elements(&y));
  nn_apply_same_norm(norm, x->x, x->batch * nn_space(x), 0, y.x);
  return y;
}

/* c3(c2(c1 p)) + x, or + shortcut(p); p = relu(BN x) */
static nn_map run_unit(nn_pass *p, const struct unit *w, bool first, const nn_map *x) {
  nn_map in = w->before.scale ? activated(p, &w->before, x) : *x;
  nn_map a = nn_apply_same_conv(p, &w->conv1, VIV_RELU, NULL, &in), b[2];
  nn_map side = *x;
  if (w->shortcut.w) side = nn_apply_same_conv(p, &w->shortcut, 0, NULL, first ? &a : &in);
  b[0] = nn_apply_same_conv(p, &w->conv2, VIV_RELU, NULL, &a);
  if (w->dilated.w) {
    b[1] = nn_apply_same_conv(p, &w->dilated, VIV_RELU, NULL, &a);
    b[0] = join(p, b, 2);
  }
  return nn_apply_same_conv(p, &w->conv3, 0, side.x, &b[0]);
}

struct branch {
  const char *name; /* of its taps */
  nn_map skip1, skip2, deep;
};

static void tap(nn_pass *p, const char *branch, const char *name, const nn_map *x) {
  nn_tap(p, x->x, NN_DIMS(x->batch, x->size[0], x->size[1], x->channels), "%s%s", branch, name);
}

static nn_map easpp(nn_pass *p, const struct easpp *w, const char *branch, const nn_map *x) {
  static const char *const names[] = {"IB", "IC", "ID"};
  nn_map part[RATES + 2];
  part[0] = nn_apply_same_conv(p, &w->one, VIV_RELU, NULL, x);
  tap(p, branch, "IA", &part[0]);
  for (int i = 0; i < RATES; i++) {
    nn_map y = nn_apply_same_conv(p, &w->reduce[i], VIV_RELU, NULL, x);
    y = nn_apply_same_conv(p, &w->first[i], VIV_RELU, NULL, &y);
    y = nn_apply_same_conv(p, &w->second[i], VIV_RELU, NULL, &y);
    part[i + 1] = nn_apply_same_conv(p, &w->expand[i], VIV_RELU, NULL, &y);
    tap(p, branch, names[i], &part[i + 1]);
  }
  nn_map mean = mean_of(p, x);
  part[RATES + 1] = nn_apply_same_conv(p, &w->image, VIV_RELU, NULL, &mean);
  nn_map all = join(p, part, RATES + 2);
  return nn_apply_same_conv(p, &w->out, 0, NULL, &all);
}

/* b->name is set; the maps are left on top of the pass's memory. */
static void encode(nn_pass *p, const struct adapnet *m, const struct encoder *w,
                   const nn_map *pixels, struct branch *b) {
  nn_map x = *pixels;
  x.x = nn_room(p, nn_elements(&x));
  nn_apply_same_norm(&w->image, pixels->x, x.batch * nn_space(&x), -INFINITY, x.x);
  x = nn_apply_same_conv(p, &w->stem, VIV_RELU, NULL, &x);
  x = nn_same_max_pool(p, 3, 2, &x);
  const struct unit *unit = w->unit;
  for (int32_t block = 0; block < BLOCKS; block++) {
    for (int32_t i = 0; i < m->units[block]; i++, unit++) {
      nn_pass_poll(p);
      x = run_unit(p, unit, block == 0 && i == 0, &x);
    }
    if (!w->activate[block].scale) continue;
    x = activated(p, &w->activate[block], &x);
    char name[24];
    snprintf(name, sizeof name, "b%d_out", (int)block + 1);
    tap(p, b->name, name, &x);
    if (block == 0) b->skip1 = nn_apply_same_conv(p, &w->skip1, 0, NULL, &x);
    if (block == 1) b->skip2 = nn_apply_same_conv(p, &w->skip2, 0, NULL, &x);
  }
  b->deep = easpp(p, &w->easpp, b->name, &x);
  tap(p, b->name, "skip1", &b->skip1);
  tap(p, b->name, "skip2", &b->skip2);
  tap(p, b->name, "eAspp_out", &b->deep);
}

/* out((a, b) * sigmoid(expand(relu(reduce (a, b))))) */
static nn_map fuse(nn_pass *p, const struct gate *w, const nn_map *a, const nn_map *b,
                   const char *expand, const char *out) {
  nn_map both[2] = {*a, *b}, x = join(p, both, 2);
  nn_map y = nn_apply_same_conv(p, &w->reduce, VIV_RELU, NULL, &x);
  y = nn_apply_same_conv(p, &w->expand, VIV_SIGMOID, NULL, &y);
  tap(p, "", expand, &y);
  for (int64_t i = 0; i < nn_elements(&x); i++) x.x[i] *= y.x[i];
  y = nn_apply_same_conv(p, &w->out, 0, NULL, &x);
  tap(p, "", out, &y);
  return y;
}

/* x2, joined with the skip, mixed. at: 0 for skip 2, 1 for skip 1. */
static nn_map climb(nn_pass *p, const struct adapnet *m, int32_t at, const nn_map *x, nn_map skip) {
  static const char *const ups[] = {"deconv_up1", "deconv_up2"};
  static const char *const sides[] = {"side_out1", "side_out2"};
  nn_map part[2];
  part[0] = nn_apply_same_conv(p, &m->up[at], 0, NULL, x);
  tap(p, "", ups[at], &part[0]);
  if (m->weigh[at].w) {
    nn_map mean = mean_of(p, &part[0]),
           gate = nn_apply_same_conv(p, &m->weigh[at], VIV_RELU, NULL, &mean);
    int64_t rows = nn_space(&skip);
    nn_map weighed = skip;
    weighed.x = nn_room(p, nn_elements(&skip));
    for (int64_t r = 0; r < skip.batch * rows; r++)
      for (int32_t c = 0; c < skip.channels; c++)
        weighed.x[r * skip.channels + c] =
            skip.x[r * skip.channels + c] * gate.x[r / rows * skip.channels + c];
    tap(p, "", sides[at], &weighed);
    skip = weighed;
  }
  if (skip.size[0] != part[0].size[0] || skip.size[1] != part[0].size[1])
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "height and width must be multiples of 16");
  part[1] = skip;
  nn_map y = join(p, part, 2);
  y = nn_apply_same_conv(p, &m->mix[at][0], VIV_RELU, NULL, &y);
  y = nn_apply_same_conv(p, &m->mix[at][1], VIV_RELU, NULL, &y);
  return y;
}

static nn_map network(nn_pass *p, const nn_map *x, bool extras) {
  const struct adapnet *m = nn_net_of(p);
  struct branch b[2] = {{.name = m->ssma ? "rgb." : ""}, {.name = "depth."}};
  (void)extras;
  for (int i = 0; i < (m->ssma ? 2 : 1); i++) encode(p, m, &m->encoder[i], &x[i], &b[i]);
  if (m->ssma) {
    b[0].deep = fuse(p, &m->deep, &b[0].deep, &b[1].deep, "ssma_expand", "in3");
    b[0].skip2 = fuse(p, &m->low, &b[0].skip2, &b[1].skip2, "ssma_skip1_expand", "skip1_out");
    b[0].skip1 = fuse(p, &m->high, &b[0].skip1, &b[1].skip1, "ssma_skip2_expand", "skip2_out");
  }
  nn_map y = climb(p, m, 0, &b[0].deep, b[0].skip2);
  tap(p, "", "up1", &y);
  y = climb(p, m, 1, &y, b[0].skip1);
  y = nn_apply_same_conv(p, &m->classify, VIV_RELU, NULL, &y);
  tap(p, "", "up2", &y);
  return nn_apply_same_conv(p, &m->up[2], 0, NULL, &y);
}

const struct segmenter_variant segmenter_adapnet = {.model_type = "adapnet",
                                                    .architecture = "AdapNet_pp",
                                                    .bytes = sizeof(struct adapnet),
                                                    .config = config,
                                                    .tables = tables,
                                                    .network = network};
const struct segmenter_variant segmenter_ssma = {.model_type = "adapnet",
                                                 .architecture = "SSMA",
                                                 .bytes = sizeof(struct adapnet),
                                                 .config = config,
                                                 .tables = tables,
                                                 .network = network};
