/* ViT and DINOv2 with their heads, transformers' names.
 *
 *   ViT:     features = the class token after the last norm                    [B, d]
 *   DINOv2:  features = [class token, mean of the patches], both after it      [B, 2 d]
 *
 * Official: ViTForImageClassification, Dinov2ForImageClassification and the one WithRegisters, which
 * alone resizes positions with antialias. */
#include "nn/vit.h"

#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"

struct vit_model {
  struct classifier_model base;
  nn_vit net;
  nn_linear pooler; /* ViT's tanh(W x_0); w NULL: none */
  const char *prefix;
  bool dino;
};
_Static_assert(sizeof(struct vit_model) <= CLASSIFIER_MODEL_BYTES, "plan's room");

static void read_common(nn_config *k, const viv_model_source *source, struct vit_model *m,
                        const char *within) {
  nn_vit_config *c = &m->net.config;
  char probe[80];
  snprintf(probe, sizeof probe, "%sembeddings.cls_token", within);
  m->prefix = nn_has(k->host, source, probe) ? within : "";
  nn_vit_read(k, c);
  c->cls = c->cls_position = true;
  nn_vit_check(k, c);
  if (!k->status && c->channels != 3)
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "num_channels is %d, pictures have 3",
                        (int)c->channels);
  m->base.rolls = true;
  m->base.classes = classifier_classes(k, source, "classifier.weight");
  m->base.prepare.height = c->image[0];
  m->base.prepare.width = c->image[1];
}

static void vit_config(nn_config *k, const viv_model_source *source,
                       struct classifier_model *base) {
  struct vit_model *m = (struct vit_model *)(void *)base;
  read_common(k, source, m, "vit.");
  m->net.config.names = &nn_vit_hf_names;
  m->net.config.resize = NN_VIT_BICUBIC;
  base->width = m->net.config.d;
  for (int i = 0; i < 3; i++) base->prepare.mean[i] = base->prepare.std[i] = 0.5f;
}

static void dino_config(nn_config *k, const viv_model_source *source, const char *within,
                        int32_t resize, struct vit_model *m) {
  read_common(k, source, m, within);
  m->dino = m->base.means = true;
  m->net.config.names = m->net.config.swiglu ? &nn_vit_swiglu_names : &nn_vit_dinov2_names;
  m->net.config.resize = resize;
  m->base.map_channels = m->net.config.d;
  m->base.width = 2 * m->net.config.d;
  m->base.prepare.filter = VIV_CUBIC;
}

static void dinov2_config(nn_config *k, const viv_model_source *source,
                          struct classifier_model *base) {
  struct vit_model *m = (struct vit_model *)(void *)base;
  dino_config(k, source, "dinov2.", NN_VIT_BICUBIC, m);
  m->net.config.registers = 0;
}

static void registers_config(nn_config *k, const viv_model_source *source,
                             struct classifier_model *base) {
  struct vit_model *m = (struct vit_model *)(void *)base;
  dino_config(k, source, "dinov2_with_registers.", NN_VIT_BICUBIC_ANTIALIAS, m);
  m->net.config.registers = (int32_t)nn_int(k, "num_register_tokens", 4, 0, 1 << 12);
}

static uint64_t more(const struct classifier_model *base) {
  return nn_vit_bytes(&((const struct vit_model *)(const void *)base)->net.config);
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct classifier_model *base,
                     viv_error *error) {
  return nn_vit_begin(host, arena, &((struct vit_model *)(void *)base)->net, error);
}

static void tables(nn_loader *l, void *model) {
  struct vit_model *m = model;
  struct classifier_model *base = &m->base;
  int64_t d = m->net.config.d;
  nn_at(l, "%s", m->prefix);
  nn_vit_load(l, &m->net);
  if (!m->dino && nn_there(l, "pooler.dense.weight"))
    nn_load_linear(l, "pooler.dense", d, d, true, &m->pooler);
  nn_at(l, "%s", "");
  if (base->classes) nn_load_linear(l, "classifier", base->classes, base->width, true, &base->head);
  nn_ignore(l, "*mask_token"); /* pre-training only */
}

/* The class tokens [batch, d], or beside each the mean of its picture's patches [batch, 2 d]. */
static float *pooled(nn_pass *p, const float *x, int64_t batch, int64_t n, int64_t extra, int64_t d,
                     bool mean) {
  int64_t width = mean ? 2 * d : d;
  float *out = nn_room(p, batch * width);
  for (int64_t b = 0; b < batch; b++) {
    const float *token = x + b * n * d;
    float *to = out + b * width;
    memcpy(to, token, (size_t)d * sizeof *to);
    for (int64_t i = 0; mean && i < d; i++) {
      double sum = 0;
      for (int64_t t = extra; t < n; t++) sum += (double)token[t * d + i];
      to[d + i] = (float)(sum / (double)(n - extra));
    }
  }
  return out;
}

static struct classifier_features network(nn_pass *p, const classifier_pictures *in) {
  const struct vit_model *m = nn_net_of(p);
  const nn_vit_config *c = &m->net.config;
  bool other = in->height != c->image[0] || in->width != c->image[1];
  if (!m->dino && other && !nn_param_flag(p, "interpolate_pos_encoding", false))
    nn_stop(p, VIV_BAD_INPUT, "pixel_values",
            "%d x %d pixels, but this model takes %d x %d; interpolate_pos_encoding lets it take "
            "others",
            (int)in->height, (int)in->width, (int)c->image[0], (int)c->image[1]);
  nn_vit_grid grid = nn_vit_grid_of(p, &m->net, in->height, in->width);
  int64_t d = c->d, extra = nn_vit_extra(&m->net);
  int64_t n = extra + (int64_t)grid.height * grid.width;
  float *x = nn_vit_embed(p, &m->net, in->pixels, in->n, in->height, in->width);
  nn_tap(p, x, NN_DIMS(in->n, n, d), "embeddings");
  for (int32_t i = 0; i < c->layers; i++) {
    nn_pass_poll(p);
    classifier_watch(p, &m->net, i, in->n, n, NULL, x);
    nn_vit_block_apply(p, &m->net, i, in->n, n, x);
    nn_tap(p, x, NN_DIMS(in->n, n, d), "layer.%d", (int)i);
  }
  nn_layer_norm(p, &m->net.norm, x, in->n * n, x);
  nn_tap(p, x, NN_DIMS(in->n, n, d), "layernorm");
  struct classifier_features f = {.batch = in->n,
                                  .pooled = pooled(p, x, in->n, n, extra, d, m->dino),
                                  .hidden = x,
                                  .ndim = 3,
                                  .shape = {in->n, n, d},
                                  .grid = {grid.height, grid.width},
                                  .mean_at = d};
  if (m->dino) f.first = pooled(p, x, in->n, n, extra, d, false);
  if (m->pooler.w) f.first = nn_apply_linear(p, &m->pooler, VIV_TANH, f.pooled, in->n);
  f.first_width = d;
  f.extra = extra;
  return f;
}

#define VARIANT(symbol, type, reader)                                                              \
  const struct classifier_variant symbol = {.model_type = (type),                                  \
                                            .bytes = sizeof(struct vit_model),                     \
                                            .config = (reader),                                    \
                                            .more = more,                                          \
                                            .begin = begin,                                        \
                                            .tables = tables,                                      \
                                            .network = network}
VARIANT(classifier_vit, "vit", vit_config);
VARIANT(classifier_dinov2, "dinov2", dinov2_config);
VARIANT(classifier_dinov2_registers, "dinov2_with_registers", registers_config);
