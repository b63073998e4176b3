/* ConvNeXt with its head: mean over the places, norm, linear. timm's names (config.json of the zoo's
 * form, or the checkpoint's) and transformers'. */
#include "classifier/classifier.h"
#include "nn/convnext.h"

struct convnext_model {
  struct classifier_model base;
  nn_convnext net;
  nn_norm norm;
  const char *prefix, *norm_name, *head_name;
  float eps;
};
_Static_assert(sizeof(struct convnext_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

static void config(nn_config *k, const viv_model_source *source, struct classifier_model *base) {
  struct convnext_model *m = (struct convnext_model *)(void *)base;
  nn_convnext_spec *s = &m->net.spec;
  bool within = nn_has(k->host, source, "convnext.embeddings.patch_embeddings.weight");
  bool own = within || nn_has(k->host, source, "embeddings.patch_embeddings.weight");
  s->names = own                                        ? NN_CONVNEXT_TRANSFORMERS
             : nn_has(k->host, source, "stem_0.weight") ? NN_CONVNEXT_FEATURES
                                                        : NN_CONVNEXT_TIMM;
  s->stages = NN_CONVNEXT_STAGES;
  s->in_channels = (int32_t)nn_int(k, own ? "num_channels" : "in_chans", 3, 1, 64);
  s->patch = (int32_t)nn_int(k, "patch_size", 4, 1, 64);
  s->act = own ? nn_activation(k, "hidden_act", "gelu") : VIV_GELU;
  s->no_gamma = own && nn_num(k, "layer_scale_init_value", 1e-6, 0, 1e9) <= 0;
  classifier_list(k, "depths", s->depths, 4, NN_CONVNEXT_BLOCKS);
  classifier_list(k, own ? "hidden_sizes" : "dims", s->dims, 4, 1 << 14);
  int32_t blocks = s->depths[0] + s->depths[1] + s->depths[2] + s->depths[3];
  if (!k->status && blocks > NN_CONVNEXT_BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%d blocks, at most %d are supported",
                        (int)blocks, (int)NN_CONVNEXT_BLOCKS);
  m->prefix = within ? "convnext." : "";
  m->norm_name = within ? "convnext.layernorm" : own ? "layernorm" : "head.norm";
  m->head_name = own ? "classifier" : "head.fc";
  m->eps = own ? (float)nn_num(k, "layer_norm_eps", 1e-12, 0, 1) : 1e-6f;
  base->width = s->dims[3];
  base->means = true;
  base->classes = classifier_classes(k, source, own ? "classifier.weight" : "head.fc.weight");
  base->prepare.height = 256;
  base->prepare.crop = base->prepare.shortest = true;
  base->prepare.filter = VIV_CUBIC;
}

static void tables(nn_loader *l, void *model) {
  struct convnext_model *m = model;
  struct classifier_model *base = &m->base;
  nn_convnext_spec spec = m->net.spec;
  nn_at(l, "%s", m->prefix);
  nn_load_convnext(l, &spec, &m->net);
  nn_at(l, "%s", "");
  if (spec.names != NN_CONVNEXT_FEATURES)
    nn_load_norm(l, m->norm_name, base->width, m->eps, &m->norm);
  if (base->classes) nn_load_linear(l, m->head_name, base->classes, base->width, true, &base->head);
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct convnext_model *m = nn_net_of(p);
  nn_map maps[NN_CONVNEXT_STAGES + 1] = {{0}};
  nn_map x = {.x = (float *)(uintptr_t)in->pixels, /* read only */
              .batch = in->n,
              .channels = 3,
              .dims = 2,
              .size = {in->height, in->width, 1},
              .layout = VIV_CHANNELS_FIRST};
  nn_apply_convnext(p, &m->net, &x, 1u << NN_CONVNEXT_STAGES, maps);
  struct classifier_features f = classifier_pool_map(p, &maps[NN_CONVNEXT_STAGES]);
  if (!m->norm.w) return f;
  float *normed = nn_room(p, f.batch * m->base.width);
  nn_layer_norm(p, &m->norm, f.pooled, f.batch, normed);
  nn_tap(p, normed, NN_DIMS(f.batch, m->base.width), "head.norm");
  f.pooled = normed;
  f.after = &m->norm;
  return f;
}

const struct classifier_variant classifier_convnext = {.model_type = "convnext",
                                                       .bytes = sizeof(struct convnext_model),
                                                       .config = config,
                                                       .tables = tables,
                                                       .network = network};
