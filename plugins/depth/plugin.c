/* The depth family: which variant a folder holds, opening it, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "depth/depth.h"

/* A new variant is a file and a row. */
static const struct depth_variant *const variants[] = {
    &depth_anything, &depth_anything_hf, &depth_endodac, &depth_ccnext, &depth_prodepth};

static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct depth_model *m, const struct depth_variant *variant,
                          viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->variant = variant;
  m->weightless = variant->weightless && !host->tensor_count(source->checkpoint);
  variant->config(&k, source, m);
  return k.status;
}

static const struct depth_variant *find_variant(const viv_host *host,
                                                const viv_model_source *source, int32_t *status,
                                                viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  viv_str type = nn_text(&k, "model_type", "");
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (nn_is(type, variants[i]->model_type)) return variants[i];
  *status = k.status;
  if (!k.status)
    *status = nn_fail(error, VIV_NEVER, "config.json", "model_type \"%.*s\" is none of this family",
                      (int)(type.len < 64 ? type.len : 64), type.len ? type.ptr : "");
  return NULL;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  _Alignas(64) unsigned char room[DEPTH_MODEL_BYTES] = {0};
  struct depth_model *m = (struct depth_model *)(void *)room;
  int32_t rc = VIV_OK;
  const struct depth_variant *variant = find_variant(host, source, &rc, error);
  if (variant) rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  uint64_t bytes = variant->bytes + 64;
  if (m->weightless) {
    viv_memory_plan small = {.struct_size = out->struct_size, .model_bytes = bytes};
    nn_write(out, out->struct_size, &small, sizeof small);
    return VIV_OK;
  }
  return nn_net_plan(host, source, variant->tables, m,
                     bytes + (variant->more ? variant->more(m) : 0), out, error);
}

static void describe(struct depth_model *m) {
  int n = snprintf(m->about, sizeof m->about, "{\"family\":\"%s\",\"depth\":\"%s\",\"tasks\":[",
                   m->variant->model_type, m->kind);
  for (const nn_task *t = m->net.tasks; t->name && n < (int)sizeof m->about; t++)
    n += snprintf(m->about + n, sizeof m->about - (size_t)n, "%s\"%s\"",
                  t == m->net.tasks ? "" : ",", t->name);
  if (m->motion && n < (int)sizeof m->about)
    n += snprintf(
        m->about + n, sizeof m->about - (size_t)n,
        "],\"motion\":{\"frames\":[\"frame_0\",\"%s\"],\"result\":\"%s\",\"size\":[%d,%d]}}",
        m->other, m->motion, (int)m->motion_size[0], (int)m->motion_size[1]);
  else if (n < (int)sizeof m->about)
    snprintf(m->about + n, sizeof m->about - (size_t)n, "]}");
  m->net.about = m->about;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  int32_t rc = VIV_OK;
  const struct depth_variant *variant = find_variant(host, source, &rc, error);
  if (!variant) return rc;
  struct depth_model *m = host->arena_alloc(source->arena, variant->bytes);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  memset(m, 0, variant->bytes);
  rc = nn_net_begin(&m->net, host, variant->tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, variant, error);
  if (rc >= 0 && m->weightless) m->net.tasks = variant->weightless;
  if (rc >= 0 && !m->weightless) {
    if (variant->begin) rc = variant->begin(host, source->arena, m, error);
    if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, variant->tables, m, error);
  }
  if (rc < 0) return rc;
  describe(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("depth", "0.1.0", {VIV_MODEL_ID, &model_api})
