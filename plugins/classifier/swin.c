/* Swin with its head: norm, mean over the tokens, linear. transformers' names and the original's. */
#include <string.h>

#include "classifier/classifier.h"
#include "nn/swin.h"

struct swin_model {
  struct classifier_model base;
  nn_swin net;
  nn_norm norm;
  const char *prefix;
};
_Static_assert(sizeof(struct swin_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

static void config(nn_config *k, const viv_model_source *source, struct classifier_model *base) {
  struct swin_model *m = (struct swin_model *)(void *)base;
  nn_swin_spec *s = &m->net.spec;
  bool original = nn_has(k->host, source, "patch_embed.proj.weight");
  m->prefix = nn_has(k->host, source, "swin.embeddings.norm.weight") ? "swin." : "";
  s->names = original ? NN_SWIN_ORIGINAL : NN_SWIN_TRANSFORMERS;
  s->in_channels = (int32_t)nn_int(k, "num_channels", 3, 1, 64);
  s->patch = (int32_t)nn_int(k, "patch_size", 4, 1, 64);
  s->embed = (int32_t)nn_int(k, "embed_dim", 96, 1, 4096);
  s->stages = nn_ints(k, "depths", s->depths, NN_SWIN_STAGES, 1, NN_SWIN_BLOCKS);
  int32_t heads = nn_ints(k, "num_heads", s->heads, NN_SWIN_STAGES, 1, 1024), blocks = 0;
  s->window = (int32_t)nn_int(k, "window_size", 7, 1, 64);
  s->mlp_ratio = (float)nn_num(k, "mlp_ratio", 4, 0.01, 64);
  s->eps = (float)nn_num(k, "layer_norm_eps", 1e-5, 1e-12, 1);
  s->act = nn_activation(k, "hidden_act", "gelu");
  s->no_qkv_bias = !nn_flag(k, "qkv_bias", true);
  s->still_when_small = true;
  for (int32_t i = 0; i < s->stages && !k->status; i++) {
    blocks += s->depths[i];
    nn_divides(k, (int64_t)s->embed << i, s->heads[i], "embed_dim and num_heads");
  }
  if (!k->status && (s->stages < 1 || heads != s->stages || blocks > NN_SWIN_BLOCKS))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "depths and num_heads must have 1 to %d entries each, at most %d blocks",
                        (int)NN_SWIN_STAGES, (int)NN_SWIN_BLOCKS);
  if (!k->status && nn_flag(k, "use_absolute_embeddings", false))
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "use_absolute_embeddings is on, this plugin has relative positions only");
  if (k->status) return;
  base->width = (int64_t)s->embed << (s->stages - 1);
  base->means = true;
  base->classes = classifier_classes(k, source, original ? "head.weight" : "classifier.weight");
  base->prepare.height = base->prepare.width = (int32_t)nn_int(k, "image_size", 224, 1, 1 << 14);
  base->prepare.filter = VIV_CUBIC;
}

static void tables(nn_loader *l, void *model) {
  struct swin_model *m = model;
  struct classifier_model *base = &m->base;
  nn_swin_spec spec = m->net.spec;
  bool original = spec.names == NN_SWIN_ORIGINAL;
  nn_at(l, "%s", m->prefix);
  nn_load_swin(l, &spec, &m->net);
  nn_load_norm(l, original ? "norm" : "layernorm", base->width, spec.eps, &m->norm);
  nn_at(l, "%s", "");
  if (base->classes)
    nn_load_linear(l, original ? "head" : "classifier", base->classes, base->width, true,
                   &base->head);
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct swin_model *m = nn_net_of(p);
  int32_t last = m->net.spec.stages;
  nn_map maps[NN_SWIN_STAGES + 1] = {{0}};
  nn_map x = {.x = (float *)(uintptr_t)in->pixels, /* read only */
              .batch = in->n,
              .channels = 3,
              .dims = 2,
              .size = {in->height, in->width, 1},
              .layout = VIV_CHANNELS_FIRST};
  nn_apply_swin(p, &m->net, &x, 1u << last, maps);
  nn_map *y = &maps[last];
  nn_layer_norm(p, &m->norm, y->x, y->batch * nn_space(y), y->x);
  struct classifier_features f = classifier_pool_map(p, y);
  f.hidden = y->x;
  f.ndim = 3;
  f.shape[1] = nn_space(y);
  f.shape[2] = y->channels;
  f.grid[0] = y->size[0];
  f.grid[1] = y->size[1];
  return f;
}

const struct classifier_variant classifier_swin = {.model_type = "swin",
                                                   .bytes = sizeof(struct swin_model),
                                                   .config = config,
                                                   .tables = tables,
                                                   .network = network};
