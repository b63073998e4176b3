/* MEDUSA: configuration, weights, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "medusa/medusa.h"

static void read_classifier(nn_config *k, nn_resnet_spec *s) {
  const viv_json *node = nn_key(k, "classifier");
  if (!node) {
    nn_resnet_named(nn_str("resnet50"), s);
    return;
  }
  nn_config c = nn_config_open(k->host, node, "config.json, classifier", k->error);
  int32_t planes = (int32_t)nn_int(&c, "planes", 64, 1, 4096);
  int64_t blocks = 0;
  s->basic = nn_is(nn_text(&c, "block", "Bottleneck"), "BasicBlock");
  if (nn_ints(&c, "layers", s->layers, 4, 1, NN_RESNET_BLOCKS) != 4 && !c.status)
    c.status = nn_fail(k->error, VIV_BAD_INPUT, c.where, "layers must be four numbers");
  s->stem = planes;
  for (int i = 0; i < 4; i++) {
    blocks += s->layers[i];
    s->inner[i] = planes << i;
    s->out[i] = (s->basic ? planes : 4 * planes) << i;
  }
  if (!c.status && blocks > NN_RESNET_BLOCKS)
    c.status = nn_fail(k->error, VIV_BAD_INPUT, c.where, "%lld blocks, at most %d are supported",
                       (long long)blocks, (int)NN_RESNET_BLOCKS);
  if (c.status) k->status = c.status;
}

/* An object of config.json; absent: its values stay as usual. */
static void read_part(nn_config *k, const char *key, const char *where, const char *a, int64_t hi_a,
                      int32_t *to_a, const char *b, int64_t hi_b, int32_t *to_b) {
  const viv_json *node = nn_key(k, key);
  if (!node) return;
  nn_config c = nn_config_open(k->host, node, where, k->error);
  *to_a = (int32_t)nn_int(&c, a, *to_a, 1, hi_a);
  *to_b = (int32_t)nn_int(&c, b, *to_b, 1, hi_b);
  if (c.status) k->status = c.status;
}

static int32_t read_model(const viv_host *host, const viv_model_source *source,
                          struct medusa_model *m, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->base = 32;
  m->depth = 4;
  m->size = 480;
  m->grey_size = 256;
  m->classes = nn_int(&k, "num_classes", 2, 1, 1 << 16);
  m->residual = nn_flag(&k, "attn_residual", false);
  read_part(&k, "unet", "config.json, unet", "base", 1024, &m->base, "depth", MEDUSA_DEPTH,
            &m->depth);
  read_part(&k, "preprocess", "config.json, preprocess", "size", 1 << 13, &m->size, "medusa_size",
            1 << 13, &m->grey_size);
  read_classifier(&k, &m->classifier.spec);
  return k.status;
}

/* ---- weights ---- */

static void load_pair(nn_loader *l, int32_t in, int32_t out, struct medusa_pair *w) {
  nn_conv_spec a = {.in = in, .out = out, .kernel = 3, .pad = 1, .norm = "1"};
  nn_conv_spec b = {.in = out, .out = out, .kernel = 3, .pad = 1, .norm = "4"};
  nn_load_conv(l, "0", &a, &w->a);
  nn_load_conv(l, "3", &b, &w->b);
}

static void load_unet(nn_loader *l, struct medusa_model *m) {
  int32_t in = 1;
  for (int32_t i = 0; i < m->depth; i++) {
    size_t outer = nn_in(l, "down.%d.", (int)i);
    load_pair(l, in, m->base << i, &m->down[i]);
    nn_out(l, outer);
    in = m->base << i;
  }
  size_t outer = nn_in(l, "mid.");
  load_pair(l, in, m->base << m->depth, &m->mid);
  nn_out(l, outer);
  for (int32_t i = 0; i < m->depth; i++) {
    outer = nn_in(l, "up.%d.", (int)i);
    load_pair(l, (m->base << i) + (m->base << (i + 1)), m->base << i, &m->up[i]);
    nn_out(l, outer);
  }
  nn_conv_spec last = {.in = m->base, .out = 1, .kernel = 1, .bias = true};
  nn_load_conv(l, "out", &last, &m->out);
}

static void tables(nn_loader *l, void *model) {
  struct medusa_model *m = model;
  nn_resnet_spec spec = m->classifier.spec;
  nn_at(l, "unet.");
  load_unet(l, m);
  nn_at(l, "classifier.");
  nn_load_resnet(l, &spec, &m->classifier);
  nn_load_linear(l, "fc", m->classes, spec.out[3], true, &m->head);
  for (int32_t i = 0; i < 4; i++) {
    int32_t wide = spec.out[i], narrow = wide / 4 ? wide / 4 : 1;
    nn_conv_spec a = {.in = 1 + wide, .out = narrow, .kernel = 3, .pad = 1, .norm = "1"};
    nn_conv_spec b = {.in = narrow, .out = 1, .kernel = 3, .pad = 1, .bias = true};
    nn_at(l, "attn.%d.", (int)i);
    nn_load_conv(l, "0", &a, &m->hidden[i]);
    nn_load_conv(l, "3", &b, &m->local[i]);
  }
  nn_at(l, "%s", "");
  nn_ignore(l, "*num_batches_tracked");
}

/* ---- opening ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct medusa_model m = {0};
  int32_t rc = read_model(host, source, &m, error);
  return rc < 0 ? rc : nn_net_plan(host, source, tables, &m, sizeof m + 64, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct medusa_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, medusa_tasks, error);
  if (rc >= 0) rc = read_model(host, source, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"medusa\",\"classes\":%lld,\"picture\":[%d,%d],"
           "\"tasks\":[\"classify\",\"forward\",\"preprocess\"]}",
           (long long)m->classes, (int)m->size, (int)m->size);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("medusa", "0.1.0", {VIV_MODEL_ID, &model_api})
