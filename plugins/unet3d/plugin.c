/* Opening U-Nets over volumes: config.json, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "unet3d/unet3d.h"

static const struct u3_family *const families[] = {&u3_dynunet, &u3_basicunet, &u3_vnet, &u3_unetr,
                                                   &u3_swinunetr};

static const struct u3_family *find_family(nn_config *k) {
  viv_str name = nn_architecture(k);
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (name.len && nn_is(name, families[i]->architecture)) return families[i];
  if (!k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "architectures must name DynUNet, BasicUNet, VNet, UNETR or SwinUNETR");
  return NULL;
}

static void read_prepare(nn_config *k, struct u3_model *m) {
  struct u3_prepare *a = &m->prepare;
  viv_str kind = nn_text(k, "intensity", "none");
  a->kind = nn_is(kind, "ct") ? U3_CT : nn_is(kind, "mr") ? U3_MR : U3_AS_IS;
  if (!a->kind && !nn_is(kind, "none") && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "intensity must be ct, mr or none");
  a->a_min = nn_num(k, "a_min", -175, -1e9, 1e9);
  a->a_max = nn_num(k, "a_max", 250, -1e9, 1e9);
  a->b_min = nn_num(k, "b_min", 0, -1e9, 1e9);
  a->b_max = nn_num(k, "b_max", 1, -1e9, 1e9);
  a->clip_min = nn_num(k, "clip_min", 0, -1e9, 1e9);
  a->clip = nn_flag(k, "clip", true);
  a->nonzero = nn_flag(k, "nonzero", true);
  a->channel_wise = nn_flag(k, "channel_wise", true);
}

static int32_t config_read(const viv_host *host, const viv_model_source *source, struct u3_model *m,
                           viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->family = find_family(&k);
  if (!m->family) return k.status;
  m->in_channels = (int32_t)nn_int(&k, "in_channels", 1, 1, 64);
  m->classes = (int32_t)nn_int(&k, "out_channels", 2, 1, 1 << 12);
  for (int i = 0; i < 3; i++) {
    m->roi[i] = 96;
    m->step[i] = 1;
  }
  if (nn_int(&k, "spatial_dims", 3, 1, 3) != 3 && !k.status)
    k.status = nn_fail(error, VIV_NEVER, "config.json", "spatial_dims must be 3");
  if (!k.status) m->family->config(&k, m);
  if (nn_key(&k, "roi_size") && !k.status) u3_triple(&k, "roi_size", 96, m->roi);
  read_prepare(&k, m);
  if (!k.status && m->style.norm == U3_GROUP && m->style.groups < 1)
    k.status = nn_fail(error, VIV_BAD_INPUT, "config.json", "a group norm needs num_groups");
  return k.status;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct u3_model m = {0};
  int32_t rc = config_read(host, source, &m, error);
  if (rc < 0) return rc;
  return nn_net_plan(host, source, m.family->tables, &m, sizeof m + 64, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct u3_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  memset(m, 0, sizeof *m);
  int32_t rc = nn_net_begin(&m->net, host, u3_tasks, error);
  if (rc >= 0) rc = config_read(host, source, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, m->family->tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"unet3d\",\"architecture\":\"%s\",\"channels\":%d,\"classes\":%d,"
           "\"window\":[%d,%d,%d],\"tasks\":[\"segment3d\",\"forward\"]}",
           m->family->architecture, (int)m->in_channels, (int)m->classes, (int)m->roi[0],
           (int)m->roi[1], (int)m->roi[2]);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("unet3d", "0.1.0", {VIV_MODEL_ID, &model_api})
