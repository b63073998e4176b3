/* The masked autoencoders: which one a folder holds, opening it, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "autoencoder/autoencoder.h"

/* A new variant is a file and a row. */
static const struct autoencoder_variant *const variants[] = {&autoencoder_cae,
                                                             &autoencoder_uni4eye};

/* NULL: k->status says why not. */
static const struct autoencoder_variant *find_variant(nn_config *k) {
  viv_str name = nn_architecture(k);
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (nn_is(name, variants[i]->architecture)) return variants[i];
  if (!k->status)
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "the architecture \"%.*s\" is none of this family",
                        (int)(name.len < 64 ? name.len : 64), name.len ? name.ptr : "");
  return NULL;
}

static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct autoencoder_model *m, const struct autoencoder_variant *variant,
                          viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->variant = variant;
  m->prepare = (nn_picture){.resize = true,
                            .rescale = true,
                            .normalize = true,
                            .resample = 3,
                            .factor = 1.0 / 255,
                            .mean = {0.485f, 0.456f, 0.406f},
                            .std = {0.229f, 0.224f, 0.225f}};
  variant->config(&k, source, m);
  nn_read_picture(&k, source, &m->prepare);
  return k.status;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  _Alignas(64) unsigned char room[AUTOENCODER_MODEL_BYTES];
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  const struct autoencoder_variant *variant = find_variant(&k);
  if (!variant) return k.status;
  struct autoencoder_model *m = (struct autoencoder_model *)(void *)room;
  memset(room, 0, variant->bytes);
  int32_t rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  return nn_net_plan(host, source, variant->tables, m, variant->bytes + 64 + variant->more(m), out,
                     error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  const struct autoencoder_variant *variant = find_variant(&k);
  if (!variant) return k.status;
  struct autoencoder_model *m = host->arena_alloc(source->arena, variant->bytes);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, autoencoder_tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, variant, error);
  if (rc >= 0) rc = variant->begin(host, source->arena, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, variant->tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"autoencoder\",\"architecture\":\"%s\",\"features\":%lld,"
           "\"classes\":%lld,\"tasks\":[%s\"embed\",\"forward\",\"preprocess\"]}",
           variant->architecture, (long long)m->width, (long long)m->classes,
           m->classes ? "\"classify\"," : "");
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("autoencoder", "0.1.0", {VIV_MODEL_ID, &model_api})
