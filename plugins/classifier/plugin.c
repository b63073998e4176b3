/* The classifier family: which variant a folder holds, opening it, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"

/* A new variant is a file and a row. */
static const struct classifier_variant *const variants[] = {
    &classifier_sla,  &classifier_resnet, &classifier_convnext,         &classifier_swin,
    &classifier_vit,  &classifier_dinov2, &classifier_dinov2_registers, &classifier_illama,
    &classifier_beit, &classifier_cae,
};

/* ---- what variants share ---- */

int64_t classifier_classes(nn_config *k, const viv_model_source *source, const char *name) {
  return nn_axis(k->host, source, name, 0, 0);
}

void classifier_list(nn_config *k, const char *key, int32_t *out, int32_t n, int64_t hi) {
  if (nn_ints(k, key, out, n, 1, hi) != n && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be %d numbers", key, (int)n);
}

struct classifier_features classifier_pool_map(nn_pass *p, const nn_map *x) {
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  int64_t rows = (int64_t)y.batch * y.channels, space = nn_space(&y);
  float *pooled = nn_room(p, rows);
  for (int64_t r = 0; r < rows; r++) {
    double sum = 0;
    for (int64_t i = 0; i < space; i++) sum += (double)y.x[r * space + i];
    pooled[r] = (float)(sum / (double)space);
  }
  return (struct classifier_features){.batch = y.batch,
                                      .pooled = pooled,
                                      .hidden = y.x,
                                      .ndim = 4,
                                      .shape = {y.batch, y.channels, y.size[0], y.size[1]}};
}

/* ---- opening ---- */

/* NULL: *status says why not. */
static const struct classifier_variant *find_variant(const viv_host *host,
                                                     const viv_model_source *source,
                                                     int32_t *status, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  viv_str type = nn_text(&k, "model_type", ""), name = nn_architecture(&k);
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (nn_is(type, variants[i]->model_type) &&
        (!variants[i]->architecture || nn_is(name, variants[i]->architecture)))
      return variants[i];
  *status = k.status;
  if (!k.status)
    *status = nn_fail(error, VIV_NEVER, "config.json", "model_type \"%.*s\" is none of this family",
                      (int)(type.len < 64 ? type.len : 64), type.len ? type.ptr : "");
  return NULL;
}

static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct classifier_model *m, const struct classifier_variant *variant,
                          viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->variant = variant;
  m->prepare = classifier_square(224);
  variant->config(&k, source, m);
  classifier_read_concepts(&k, source, m);
  classifier_read_rules(&k, source, &m->prepare);
  return k.status;
}

static void tables(nn_loader *l, void *model) {
  struct classifier_model *m = model;
  int64_t classes = m->classes;
  if (m->concepts.kind) m->classes = 0; /* the variant's linear head is not there then */
  m->variant->tables(l, model);
  m->classes = classes;
  if (m->concepts.kind) classifier_load_concepts(l, m);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  _Alignas(64) unsigned char room[CLASSIFIER_MODEL_BYTES];
  struct classifier_model *m = (struct classifier_model *)(void *)room;
  int32_t rc;
  const struct classifier_variant *variant = find_variant(host, source, &rc, error);
  if (!variant) return rc;
  memset(room, 0, variant->bytes);
  rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  uint64_t bytes = variant->bytes + 64;
  if (variant->more) bytes += variant->more(m);
  return nn_net_plan(host, source, tables, m, bytes, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  int32_t rc;
  const struct classifier_variant *variant = find_variant(host, source, &rc, error);
  if (!variant) return rc;
  struct classifier_model *m = host->arena_alloc(source->arena, variant->bytes);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  rc = nn_net_begin(&m->net, host, classifier_tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, variant, error);
  if (rc >= 0 && variant->begin) rc = variant->begin(host, source->arena, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  const classifier_rules *how = &m->prepare;
  classifier_say_kinds(m);
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"%s\",\"features\":%lld,\"classes\":%lld,\"picture\":[%d,%d],"
           "\"tasks\":[%s\"embed\",%s\"forward\",\"preprocess\"]}",
           variant->model_type, (long long)m->width, (long long)m->classes,
           (int)(how->crop ? how->crop_height : how->height),
           (int)(how->crop ? how->crop_width : how->width), m->classes ? "\"classify\"," : "",
           m->kinds[1] == '{' ? "\"explain\"," : "");
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("classifier", "0.1.0", {VIV_MODEL_ID, &model_api},
          {VIV_EXPLAIN_ID, &classifier_explain_api})
