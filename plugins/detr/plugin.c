/* The DETR family: which variant a folder holds, opening it, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

/* A new variant is a file and a row. */
static const struct detr_variant *const variants[] = {
    &detr_variant_detr,       &detr_variant_conditional, &detr_variant_deformable,
    &detr_variant_group_pose, &detr_variant_reltr,       &detr_variant_hydra_sgg,
    &detr_variant_rt_detr,    &detr_variant_rt_detr_v2,  &detr_variant_rf_detr,
    &detr_variant_lw_detr,
};

static const nn_task preparing[] = {{"preprocess", detr_preprocess_task}, {NULL, NULL}};

/* config.json names the model; a folder that holds a preprocessor only names that. */
static const struct detr_variant *variant_of(nn_config *k) {
  viv_str type = nn_text(k, "model_type", ""), processor = nn_text(k, "image_processor_type", "");
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
    if (nn_is(type, variants[i]->model_type) ||
        (!type.len && variants[i]->processor && nn_is(processor, variants[i]->processor)))
      return variants[i];
  if (k->status) return NULL;
  k->status =
      nn_fail(k->error, VIV_NEVER, "config.json", "model_type \"%.*s\" is none of this family",
              (int)(type.len < 64 ? type.len : 64), type.len ? type.ptr : "");
  return NULL;
}

int64_t detr_labels(nn_config *k, int64_t fallback) {
  const viv_json *names = nn_key(k, "id2label");
  int64_t n = names ? k->host->json_count(names) : fallback;
  return nn_int(k, "num_labels", n > 0 ? n : fallback, 1, 1 << 20);
}

void detr_read_sizes(nn_config *k, int64_t ff, struct detr_model *m, struct detr_sizes *s) {
  m->d = nn_int(k, "d_model", 256, 4, 1 << 14);
  m->heads = (int32_t)nn_int(k, "decoder_attention_heads", 8, 1, 1024);
  s->encoder_heads = (int32_t)nn_int(k, "encoder_attention_heads", 8, 1, 1024);
  s->encoder_layers = (int32_t)nn_int(k, "encoder_layers", 6, 0, DETR_MAX_LAYERS);
  s->decoder_layers = (int32_t)nn_int(k, "decoder_layers", 6, 1, DETR_MAX_LAYERS);
  s->encoder_ff = nn_int(k, "encoder_ffn_dim", ff, 1, 1 << 18);
  s->decoder_ff = nn_int(k, "decoder_ffn_dim", ff, 1, 1 << 18);
  s->act = nn_activation(k, "activation_function", "relu");
  nn_divides(k, m->d, 4, "d_model and the four sines of a cell");
  nn_divides(k, m->d, m->heads, "d_model and decoder_attention_heads");
  nn_divides(k, m->d, s->encoder_heads, "d_model and encoder_attention_heads");
}

/* Everything that config.json and preprocessor_config.json say. m is the variant's own. */
static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct detr_model *m, const struct detr_variant *variant,
                          viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->variant = variant;
  m->weightless = !host->tensor_count(source->checkpoint);
  variant->prepare(&m->prepare);
  detr_read_prepare(&k, source, &m->prepare);
  if (!m->weightless && !k.status) variant->config(&k, source, m);
  return k.status;
}

/* NULL: *status says why not. */
static const struct detr_variant *find_variant(const viv_host *host, const viv_model_source *source,
                                               int32_t *status, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  const struct detr_variant *variant = variant_of(&k);
  *status = k.status;
  return variant;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  _Alignas(64) unsigned char room[DETR_MODEL_BYTES];
  struct detr_model *m = (struct detr_model *)(void *)room;
  int32_t rc;
  const struct detr_variant *variant = find_variant(host, source, &rc, error);
  if (!variant) return rc;
  memset(room, 0, variant->bytes);
  rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  if (m->weightless) {
    out->model_bytes = variant->bytes + 64;
    return VIV_OK;
  }
  return nn_net_plan(host, source, variant->tables, m, variant->bytes + 64, out, error);
}

/* What `viv show` prints and `viv run` chooses a task by. */
static void describe(struct detr_model *m) {
  char tasks[256] = "";
  size_t at = 0;
  for (const nn_task *t = m->net.tasks; t->name && at < sizeof tasks - 64; t++)
    at += (size_t)snprintf(tasks + at, sizeof tasks - at, "%s\"%s\"", at ? "," : "", t->name);
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"%s\",\"width\":%lld,\"queries\":%lld,\"classes\":%lld,"
           "\"tasks\":[%s]%s%s}",
           m->variant->model_type, (long long)m->d, (long long)m->queries, (long long)m->labels,
           tasks, m->weightless ? ",\"weights\":\"none: pictures can be prepared only\"" : "",
           m->details ? m->details : "");
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  int32_t rc;
  const struct detr_variant *variant = find_variant(host, source, &rc, error);
  if (!variant) return rc;
  struct detr_model *m = host->arena_alloc(source->arena, variant->bytes);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  rc = nn_net_begin(&m->net, host, variant->tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, variant, error);
  if (rc < 0) return rc;
  if (m->weightless)
    m->net.tasks = preparing;
  else
    rc = nn_weights_load(host, m->net.compute, source, variant->tables, m, error);
  if (rc < 0) return rc;
  describe(m);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("detr", "0.1.0", {VIV_MODEL_ID, &model_api})
