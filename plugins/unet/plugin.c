/* Opening DAF_stack: config.json, the table of the plugin. */
#include <stdio.h>

#include "unet/daf.h"

static void read_backbone(nn_config *k, struct daf_model *m) {
  int32_t planes = 64, groups = 32, per_group = 8, layers[4] = {3, 4, 23, 3};
  const viv_json *node = nn_key(k, "backbone");
  if (node) {
    nn_config b = nn_config_open(k->host, node, "config.json, backbone", k->error);
    if (!nn_is(nn_text(&b, "type", "resnext"), "resnext") && !b.status)
      b.status = nn_fail(k->error, VIV_NEVER, b.where, "type must be resnext");
    planes = (int32_t)nn_int(&b, "planes", planes, 1, 1 << 10);
    groups = (int32_t)nn_int(&b, "groups", groups, 1, 1 << 10);
    per_group = (int32_t)nn_int(&b, "width_per_group", per_group, 1, 1 << 10);
    if (nn_key(&b, "layers") && nn_ints(&b, "layers", layers, 4, 1, 64) != 4 && !b.status)
      b.status = nn_fail(k->error, VIV_BAD_INPUT, b.where, "layers must be four numbers");
    if (b.status) k->status = b.status;
  }
  m->spec = (nn_resnet_spec){.names = NN_RESNET_SEQUENTIAL,
                             .in_channels = m->in_channels,
                             .stem = planes,
                             .groups = groups};
  int32_t blocks = 0;
  for (int i = 0; i < 4; i++) {
    m->spec.layers[i] = layers[i];
    m->spec.inner[i] = (int32_t)((int64_t)(planes << i) * per_group / 64) * groups;
    m->spec.out[i] = 4 * planes << i;
    blocks += layers[i];
    if (!k->status && m->spec.inner[i] < 1)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                          "backbone: %d planes with groups of %d have no channels inside",
                          (int)planes, (int)per_group);
  }
  if (!k->status && blocks > NN_RESNET_BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "backbone.layers are %d in all, at most %d", (int)blocks, NN_RESNET_BLOCKS);
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct daf_model *m, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->in_channels = (int32_t)nn_int(&k, "in_channels", 1, 1, 64);
  m->classes = (int32_t)nn_int(&k, "num_classes", 5, 1, 1 << 10);
  m->width = (int32_t)nn_int(&k, "width", 64, 1, 1 << 10);
  m->reduction = (int32_t)nn_int(&k, "pam_reduction", 8, 1, 1 << 10);
  nn_divides(&k, m->width, m->reduction, "width and pam_reduction");
  read_backbone(&k, m);
  return k.status;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct daf_model m = {0};
  int32_t rc = config_read(host, source, &m, error);
  if (rc < 0) return rc;
  return nn_net_plan(host, source, daf_tables, &m, sizeof m + 64, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct daf_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, daf_tasks, error);
  if (rc >= 0) rc = config_read(host, source, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, daf_tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"daf_stack\",\"classes\":%d,\"channels\":%d,"
           "\"tasks\":[\"segment\",\"forward\",\"preprocess\"]}",
           (int)m->classes, (int)m->in_channels);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("unet", "0.1.0", {VIV_MODEL_ID, &model_api})
