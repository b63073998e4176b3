/* Self-supervised label augmentation: a classifier of N classes times M transforms of the picture, and
 * the answer as the mean over all transforms.
 *
 *   t_j = transform j of a picture;  z_j = net(t_j) [N M], class k under transform j at k M + j
 *   single      z_0[k M], of the picture as it is
 *   aggregated  sum over j of z_j[k M + j] / M
 *   distilled   a second head's [N] of the picture as it is (mode sla+sd)
 *
 * Transforms: rotations by quarters counter-clockwise, orders of the colours, or each with each.
 * Lee et al., Self-supervised Label Augmentation via Input Transformations, arXiv:1910.05872.
 * Official: hankook/SLA, its CIFAR ResNet and torchvision's. */
#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"
#include "nn/resnet.h"

enum { SLA_BLOCKS = 256 };

struct sla_block {
  nn_conv a, b;
};

/* augmentations.py: which rotations, and which orders of the colours within each. */
struct augmentation {
  const char *name;
  int32_t turns, step; /* rotations by 0, step, ... quarters */
  int32_t orders;
  const uint8_t (*order)[3];
};
static const uint8_t all_orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
static const uint8_t cycles[3][3] = {{0, 1, 2}, {1, 2, 0}, {2, 0, 1}};
static const struct augmentation augmentations[] = {
    {"rotation", 4, 1, 1, cycles},
    {"rotation2", 2, 2, 1, cycles},
    {"color_perm", 1, 1, 6, all_orders},
    {"color_perm3", 1, 1, 3, cycles},
    {"rot_color_perm6", 2, 2, 3, cycles},
    {"rot_color_perm12", 4, 1, 3, cycles},
    {"rot_color_perm24", 4, 1, 6, all_orders},
};

struct sla_model {
  struct classifier_model base;
  const char *prefix; /* "module." where the official file was saved from several devices */
  const struct augmentation *how;
  int64_t transforms; /* M */
  bool cifar, distilled;
  int32_t width, per_stage; /* of the CIFAR net: channels of the first stage, blocks of each */
  nn_conv stem;
  struct sla_block block[SLA_BLOCKS];
  nn_resnet net; /* torchvision's */
  nn_linear joint, single;
};
_Static_assert(sizeof(struct sla_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

/* ---- configuration and weights ---- */

static void read_net(nn_config *k, struct sla_model *m) {
  viv_str variant = nn_text(k, "variant", "cresnet");
  m->cifar = variant.len >= 7 && !memcmp(variant.ptr, "cresnet", 7);
  if (!m->cifar) {
    nn_resnet_spec *s = &m->net.spec;
    if (!nn_resnet_named(variant, s) && !k->status)
      k->status = nn_fail(k->error, VIV_NEVER, k->where, "variant \"%.*s\" is no known ResNet",
                          (int)(variant.len < 40 ? variant.len : 40), variant.ptr);
    s->names = NN_RESNET_NUMBERED;
    m->base.width = s->out[3];
    return;
  }
  int64_t depth = nn_int(k, "depth", 32, 8, 2 + 6 * (SLA_BLOCKS / 3));
  m->width = (int32_t)nn_int(k, "base_width", 16, 1, 1024);
  m->per_stage = (int32_t)((depth - 2) / 6);
  m->base.width = 4 * (int64_t)m->width;
  if (!k->status && (depth - 2) % 6)
    k->status =
        nn_fail(k->error, VIV_BAD_INPUT, k->where, "depth %lld is not 6 n + 2", (long long)depth);
}

static void config(nn_config *k, const viv_model_source *source, struct classifier_model *base) {
  struct sla_model *m = (struct sla_model *)(void *)base;
  viv_str aug = nn_text(k, "aug", "rotation"), mode = nn_text(k, "mode", "sla");
  read_net(k, m);
  m->prefix = nn_has(k->host, source, "module.base_model.0.weight") ? "module." : "";
  base->classes = nn_need_int(k, "num_classes", 1, 1 << 16);
  for (size_t i = 0; i < sizeof augmentations / sizeof *augmentations; i++)
    if (nn_is(aug, augmentations[i].name)) m->how = &augmentations[i];
  if (!k->status && !m->how)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "aug \"%.*s\" is none of the official ones",
                        (int)(aug.len < 40 ? aug.len : 40), aug.ptr);
  if (k->status) return;
  m->transforms = (int64_t)m->how->turns * m->how->orders;
  m->distilled = nn_is(mode, "sla+sd");
  if (!m->distilled && !nn_is(mode, "sla"))
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "mode is neither sla nor sla+sd");
  if (nn_int(k, "num_transforms", m->transforms, 1, 64) != m->transforms && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s has %lld transforms", m->how->name,
                        (long long)m->transforms);
  if (!m->cifar) return;
  base->prepare = classifier_square(32);
  for (int i = 0; i < 3; i++) base->prepare.mean[i] = base->prepare.std[i] = 0.5f;
}

static void load_cifar(nn_loader *l, struct sla_model *m) {
  nn_conv_spec stem = {.in = 3, .out = m->width, .kernel = 3, .pad = 1, .norm = "1"};
  nn_load_conv(l, "0", &stem, &m->stem);
  int32_t in = m->width, n = 0;
  for (int32_t s = 0; s < 3; s++)
    for (int32_t i = 0; i < m->per_stage && n < SLA_BLOCKS; i++, n++) {
      int32_t out = m->width << s;
      nn_conv_spec a = {
          .in = in, .out = out, .kernel = 3, .stride = s && !i ? 2 : 1, .pad = 1, .norm = "bn_a"};
      nn_conv_spec b = {.in = out, .out = out, .kernel = 3, .pad = 1, .norm = "bn_b"};
      size_t outer = nn_in(l, "%d.%d.", (int)s + 3, (int)i);
      nn_load_conv(l, "conv_a", &a, &m->block[n].a);
      nn_load_conv(l, "conv_b", &b, &m->block[n].b);
      nn_out(l, outer);
      in = out;
    }
}

static void tables(nn_loader *l, void *model) {
  struct sla_model *m = model;
  struct classifier_model *base = &m->base;
  nn_resnet_spec spec = m->net.spec;
  nn_at(l, "%sbase_model.", m->prefix);
  if (m->cifar)
    load_cifar(l, m);
  else
    nn_load_resnet(l, &spec, &m->net);
  nn_at(l, "%sclassifiers.", m->prefix);
  nn_load_linear(l, "0", base->classes * m->transforms, base->width, true, &m->joint);
  if (m->distilled) nn_load_linear(l, "1", base->classes, base->width, true, &m->single);
  nn_at(l, "%s", "");
  nn_ignore(l, "*num_batches_tracked");
}

/* ---- the pass ---- */

/* to = the square x turned by quarters counter-clockwise. */
static void turned(const float *x, int32_t side, int32_t quarters, float *to) {
  for (int32_t i = 0; i < side; i++)
    for (int32_t j = 0; j < side; j++) {
      int32_t y = i, z = j;
      for (int32_t q = 0; q < quarters; q++) {
        int32_t row = z;
        z = side - 1 - y;
        y = row;
      }
      to[(int64_t)i * side + j] = x[(int64_t)y * side + z];
    }
}

/* [n M, 3, h, w]: the transforms of a picture behind one another. */
static nn_map transformed(nn_pass *p, const struct sla_model *m, const classifier_pictures *in) {
  int64_t plane = (int64_t)in->height * in->width;
  const struct augmentation *how = m->how;
  if (how->turns > 1 && in->height != in->width)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%d x %d pixels, but only squares can be turned",
            (int)in->width, (int)in->height);
  int32_t size[2] = {in->height, in->width};
  nn_map y = nn_new_map(p, (int32_t)(in->n * m->transforms), 3, 2, size, VIV_CHANNELS_FIRST);
  float *to = y.x;
  for (int32_t b = 0; b < in->n; b++)
    for (int32_t t = 0; t < how->turns; t++)
      for (int32_t o = 0; o < how->orders; o++)
        for (int32_t c = 0; c < 3; c++, to += plane) {
          const float *from = in->pixels + (3 * (int64_t)b + how->order[o][c]) * plane;
          if (how->turns > 1)
            turned(from, in->width, t * how->step, to);
          else
            memcpy(to, from, (size_t)plane * sizeof *to);
        }
  return y;
}

/* Every second row and column, and as many channels of zeros behind. */
static nn_map subsampled(nn_pass *p, const nn_map *x) {
  int32_t size[2] = {(x->size[0] + 1) / 2, (x->size[1] + 1) / 2};
  nn_map y = nn_new_map(p, x->batch, 2 * x->channels, 2, size, VIV_CHANNELS_LAST);
  memset(y.x, 0, (size_t)nn_elements(&y) * sizeof *y.x);
  for (int32_t b = 0; b < x->batch; b++)
    for (int32_t i = 0; i < size[0]; i++)
      for (int32_t j = 0; j < size[1]; j++)
        memcpy(y.x + (((int64_t)b * size[0] + i) * size[1] + j) * y.channels,
               x->x + (((int64_t)b * x->size[0] + 2 * i) * x->size[1] + 2 * j) * x->channels,
               (size_t)x->channels * sizeof *y.x);
  return y;
}

static void tap_map(nn_pass *p, const nn_map *x, const char *name) {
  if (!nn_taps(p, "%s", name)) return;
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s", name);
}

static nn_map run_cifar(nn_pass *p, const struct sla_model *m, const nn_map *pixels) {
  nn_map x = nn_to_layout(p, pixels, VIV_CHANNELS_LAST);
  x = nn_apply_conv(p, &m->stem, 0, &x);
  tap_map(p, &x, "bn");
  for (int64_t i = 0; i < nn_elements(&x); i++) x.x[i] = x.x[i] > 0 ? x.x[i] : 0;
  const struct sla_block *w = m->block;
  for (int32_t s = 0; s < 3; s++)
    for (int32_t i = 0; i < m->per_stage; i++, w++) {
      nn_pass_poll(p);
      nn_map side = s && !i ? subsampled(p, &x) : x;
      nn_map a = nn_apply_conv(p, &w->a, VIV_RELU, &x);
      x = nn_conv_shape(p, &w->b, &a, VIV_CHANNELS_LAST);
      x.x = nn_room(p, nn_elements(&x));
      nn_conv_to(p, &w->b, VIV_RELU, side.x, &a, &x);
    }
  tap_map(p, &x, "last_stage");
  return x;
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct sla_model *m = nn_net_of(p);
  nn_map x = transformed(p, m, in), maps[5] = {{0}};
  if (m->cifar) {
    maps[4] = run_cifar(p, m, &x);
  } else {
    nn_apply_resnet(p, &m->net, &x, 1u << 4, maps);
    tap_map(p, &maps[4], "last_stage");
  }
  struct classifier_features f = classifier_pool_map(p, &maps[4]);
  f.views = m->transforms;
  nn_tap(p, f.pooled, NN_DIMS(f.batch, m->base.width), "features");
  return f;
}

/* logits [B, classes]: the mean over the transforms; the official tensors on the way if emit. */
static const float *answer(nn_pass *p, const struct classifier_features *f, bool emit) {
  const struct sla_model *m = nn_net_of(p);
  int64_t n = m->base.classes, t = m->transforms, batch = f->batch / t;
  float *joint = nn_apply_linear(p, &m->joint, 0, f->pooled, f->batch); /* [B M, N M] */
  float *single = nn_room(p, batch * n), *mean = nn_room(p, batch * n);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t k = 0; k < n; k++) {
      const float *z = joint + b * t * n * t + k * t;
      float sum = 0;
      for (int64_t j = 0; j < t; j++) sum += z[j * n * t + j] / (float)t;
      single[b * n + k] = z[0];
      mean[b * n + k] = sum;
    }
  if (emit) {
    nn_result(p, VIV_F32, joint, NN_DIMS(f->batch, n * t), "joint_logits");
    nn_result(p, VIV_F32, single, NN_DIMS(batch, n), "single_inference_logits");
    nn_result(p, VIV_F32, mean, NN_DIMS(batch, n), "aggregated_logits");
  }
  if (emit && m->distilled) {
    float *own = nn_room(p, batch * m->base.width); /* of the pictures as they are */
    for (int64_t b = 0; b < batch; b++)
      memcpy(own + b * m->base.width, f->pooled + b * t * m->base.width,
             (size_t)m->base.width * sizeof *own);
    nn_result(p, VIV_F32, nn_apply_linear(p, &m->single, 0, own, batch), NN_DIMS(batch, n),
              "distilled_logits");
  }
  return mean;
}

const struct classifier_variant classifier_sla = {.model_type = "resnet",
                                                  .architecture = "SLA",
                                                  .bytes = sizeof(struct sla_model),
                                                  .config = config,
                                                  .tables = tables,
                                                  .network = network,
                                                  .answer = answer};
