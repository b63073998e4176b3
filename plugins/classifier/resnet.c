/* ResNet with its head: torchvision's names (config.json of the zoo's form) and transformers'. */
#include <string.h>

#include "classifier/classifier.h"
#include "nn/resnet.h"

struct resnet_model {
  struct classifier_model base;
  nn_resnet net;
  bool own;         /* transformers' names */
  double threshold; /* of the gates */
  bool prunes;
  const char *prefix;
};
_Static_assert(sizeof(struct resnet_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

/* torchvision's constructor: block, layers, planes, groups, width_per_group. */
static void read_torchvision(nn_config *k, nn_resnet_spec *s) {
  viv_str block = nn_text(k, "block", "Bottleneck");
  s->basic = nn_is(block, "BasicBlock");
  int32_t planes = (int32_t)nn_int(k, "planes", 64, 1, 4096);
  int64_t groups = nn_int(k, "groups", 1, 1, 1024);
  int64_t width = nn_int(k, "width_per_group", 64, 1, 4096);
  classifier_list(k, "layers", s->layers, 4, NN_RESNET_BLOCKS);
  s->stem = planes;
  s->in_channels = (int32_t)nn_int(k, "in_channels", 3, 1, 64);
  s->groups = (int32_t)groups;
  for (int i = 0; i < 4; i++) {
    s->inner[i] = (int32_t)(((int64_t)planes << i) * width / 64 * groups);
    s->out[i] = (s->basic ? planes : 4 * planes) << i;
    if (!s->basic) nn_divides(k, s->inner[i], groups, "planes, width_per_group and groups");
  }
}

static void config(nn_config *k, const viv_model_source *source, struct classifier_model *base) {
  struct resnet_model *m = (struct resnet_model *)(void *)base;
  nn_resnet_spec *s = &m->net.spec;
  m->own = !nn_key(k, "layers");
  m->prefix = nn_has(k->host, source, "resnet.embedder.embedder.convolution.weight") ? "resnet."
              : nn_has(k->host, source, "features.conv1.weight") ? "features." /* ProtoPNet */
                                                                 : "";
  if (m->own)
    nn_resnet_read(k, s);
  else
    read_torchvision(k, s);
  s->taps = "";
  s->gated = !m->own && nn_has(k->host, source, "layer1.0.conv1.gate.weight");
  m->prunes = nn_flag(k, "dynamic_prune", s->gated);
  m->threshold = nn_num(k, "gate_threshold", 0.5, 0, 1);
  int64_t blocks = 0;
  for (int i = 0; i < 4; i++) blocks += s->layers[i];
  if (!k->status && blocks > NN_RESNET_BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%lld blocks, at most %d are supported",
                        (long long)blocks, (int)NN_RESNET_BLOCKS);
  base->width = s->out[3];
  base->means = true;
  base->classes = classifier_classes(k, source, m->own ? "classifier.1.weight" : "fc.weight");
  base->prepare.height = 256; /* the releases' own, unless the files say */
  base->prepare.crop = base->prepare.shortest = base->prepare.round_crop = true;
}

static void tables(nn_loader *l, void *model) {
  struct resnet_model *m = model;
  nn_resnet_spec spec = m->net.spec;
  nn_at(l, "%s", m->prefix);
  nn_load_resnet(l, &spec, &m->net);
  nn_at(l, "%s", "");
  if (m->base.classes)
    nn_load_linear(l, m->own ? "classifier.1" : "fc", m->base.classes, m->base.width, true,
                   &m->base.head);
  nn_ignore(l, "*num_batches_tracked");
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct resnet_model *m = nn_net_of(p);
  nn_map maps[5] = {{0}};
  nn_map x = {.x = (float *)(uintptr_t)in->pixels, /* read only */
              .batch = in->n,
              .channels = 3,
              .dims = 2,
              .size = {in->height, in->width, 1},
              .layout = VIV_CHANNELS_FIRST};
  if (!m->net.spec.gated) {
    nn_apply_resnet(p, &m->net, &x, 1u << 4, maps);
    return classifier_pool_map(p, &maps[4]);
  }
  nn_gates gates = {.threshold = (float)m->threshold,
                    .open = !nn_param_flag(p, "dynamic_prune", m->prunes),
                    .macs = nn_bytes(p, in->n, sizeof *gates.macs)};
  memset(gates.macs, 0, (size_t)in->n * sizeof *gates.macs);
  nn_apply_gated_resnet(p, &m->net, &x, 1u << 4, maps, &gates);
  if (nn_wants_result(p, "macs")) nn_result(p, VIV_I64, gates.macs, NN_DIMS(in->n), "macs");
  return classifier_pool_map(p, &maps[4]);
}

const struct classifier_variant classifier_resnet = {.model_type = "resnet",
                                                     .bytes = sizeof(struct resnet_model),
                                                     .config = config,
                                                     .tables = tables,
                                                     .network = network};
