/* The segmenters: which variant a folder holds, opening it, the table of the plugin. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "segmenter/segmenter.h"

/* A new variant is a file and a row. */
static const struct segmenter_variant *const variants[] = {
    &segmenter_segformer, &segmenter_mit,  &segmenter_deeplab, &segmenter_semi,
    &segmenter_adapnet,   &segmenter_ssma, &segmenter_xnet,    &segmenter_upernet};

nn_config segmenter_part(nn_config *k, const char *key, const char *where) {
  const viv_json *node = nn_key(k, key);
  if (!k->status && (!node || k->host->json_type(node) != VIV_JSON_OBJECT))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be an object", key);
  nn_config part = nn_config_open(k->host, node, where, k->error);
  part.status = k->status;
  return part;
}

void segmenter_tap(nn_pass *p, const nn_map *x, const char *format, ...) {
  char name[64];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(name, sizeof name, format, args);
  va_end(args);
  if (n < 0 || !nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s", name);
  nn_release(p, mark);
}

/* NULL: k->status says why not. */
static const struct segmenter_variant *find_variant(nn_config *k) {
  viv_str type = nn_text(k, "model_type", ""), name = nn_architecture(k);
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (nn_is(type, variants[i]->model_type) && nn_is(name, variants[i]->architecture))
      return variants[i];
  if (!k->status)
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "model_type \"%.*s\" with the architecture \"%.*s\" is none of this family",
                        (int)(type.len < 64 ? type.len : 64), type.len ? type.ptr : "",
                        (int)(name.len < 64 ? name.len : 64), name.len ? name.ptr : "");
  return NULL;
}

static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct segmenter_model *m, const struct segmenter_variant *variant,
                          viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->variant = variant;
  m->prepare = (nn_picture){.rescale = true,
                            .normalize = true,
                            .resample = 2,
                            .factor = 1.0 / 255,
                            .mean = {0.485f, 0.456f, 0.406f},
                            .std = {0.229f, 0.224f, 0.225f}};
  variant->config(&k, source, m);
  nn_read_picture(&k, source, &m->prepare);
  return k.status;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  _Alignas(64) unsigned char room[SEGMENTER_MODEL_BYTES];
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  const struct segmenter_variant *variant = find_variant(&k);
  if (!variant) return k.status;
  struct segmenter_model *m = (struct segmenter_model *)(void *)room;
  memset(room, 0, variant->bytes);
  int32_t rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  return nn_net_plan(host, source, variant->tables, m, variant->bytes + 64, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  const struct segmenter_variant *variant = find_variant(&k);
  if (!variant) return k.status;
  struct segmenter_model *m = host->arena_alloc(source->arena, variant->bytes);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, segmenter_tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, variant, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, variant->tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"%s\",\"architecture\":\"%s\",\"classes\":%lld,"
           "\"tasks\":[\"%s\",\"forward\",\"preprocess\"]}",
           variant->model_type, variant->architecture, (long long)m->classes,
           m->depth ? "depth" : "segment");
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("segmenter", "0.1.0", {VIV_MODEL_ID, &model_api})
