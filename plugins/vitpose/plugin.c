/* ViTPose: config.json, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "vitpose/vitpose.h"

static const nn_vit_names names = {.patch = "embeddings.patch_embeddings.projection",
                                   .positions = "embeddings.position_embeddings",
                                   .layer = "encoder.layer",
                                   .norm1 = "layernorm_before",
                                   .norm2 = "layernorm_after",
                                   .query = "attention.attention.query",
                                   .key = "attention.attention.key",
                                   .value = "attention.attention.value",
                                   .out = "attention.output.dense",
                                   .up = "mlp.fc1",
                                   .down = "mlp.fc2",
                                   .experts = "mlp.experts",
                                   .norm = "layernorm"};

/* ---- config.json and preprocessor_config.json ---- */

static void read_three(nn_config *k, const char *key, const float fallback[3], double lo,
                       float out[3]) {
  memcpy(out, fallback, 3 * sizeof *out);
  if (nn_key(k, key)) nn_numbers(k, key, out, 3, lo);
}

static void read_preparation(const viv_host *host, const viv_model_source *source,
                             struct vitpose_model *m, nn_config *outer) {
  static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
  const viv_json *file =
      host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  nn_config k = nn_config_open(host, file, "preprocessor_config.json", outer->error);
  m->factor = nn_num(&k, "rescale_factor", 1.0 / 255, 0, 1e9);
  m->rescale = nn_flag(&k, "do_rescale", true);
  m->normalize = nn_flag(&k, "do_normalize", true);
  read_three(&k, "image_mean", mean, -1e9, m->mean);
  read_three(&k, "image_std", std, 0, m->std);
  if (nn_key(&k, "size")) {
    nn_config size =
        nn_config_open(host, nn_key(&k, "size"), "preprocessor_config.json, size", outer->error);
    m->size[0] = (int32_t)nn_need_int(&size, "height", 2, 1 << 14);
    m->size[1] = (int32_t)nn_need_int(&size, "width", 2, 1 << 14);
    if (size.status) k.status = size.status;
  }
  if (k.status && file && !outer->status) outer->status = k.status;
}

static void read_head(nn_config *k, struct vitpose_model *m) {
  const viv_json *labels = nn_key(k, "id2label");
  int64_t n = labels ? k->host->json_count(labels) : 17;
  m->keypoints = (int32_t)nn_int(k, "num_labels", n > 0 ? n : 17, 1, VITPOSE_MAX_KEYPOINTS);
  m->simple = nn_flag(k, "use_simple_decoder", true);
  m->scale_factor = (int32_t)nn_int(k, "scale_factor", 4, 1, 64);
  m->channels = (int32_t)nn_int(k, "deconv_channels", 256, 1, 1 << 16);
}

static void read_backbone(nn_config *k, struct vitpose_model *m) {
  nn_vit_config *c = &m->vit.config;
  nn_config b = nn_config_open(k->host, nn_key(k, "backbone_config"),
                               "config.json, backbone_config", k->error);
  nn_vit_read(&b, c);
  c->pad = 2;
  c->cls_position = true;
  c->experts = (int32_t)nn_int(&b, "num_experts", 1, 1, 1024);
  if (c->experts == 1) c->experts = 0;
  c->expert_features = c->experts ? (int32_t)nn_int(&b, "part_features", 256, 1, c->d - 1) : 0;
  c->names = &names;
  nn_vit_check(&b, c);
  if (!k->status) k->status = b.status;
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct vitpose_model *m, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  m->weightless = !host->tensor_count(source->checkpoint);
  m->size[0] = 256;
  m->size[1] = 192;
  if (!m->weightless && !k.status) {
    read_head(&k, m);
    read_backbone(&k, m);
    memcpy(m->size, m->vit.config.image, sizeof m->size);
  }
  if (!k.status) read_preparation(host, source, m, &k);
  if (!k.status && !m->weightless &&
      (m->size[0] != m->vit.config.image[0] || m->size[1] != m->vit.config.image[1]))
    return nn_fail(error, VIV_BAD_INPUT, "preprocessor_config.json",
                   "size is %d x %d, but the network takes %d x %d", (int)m->size[0],
                   (int)m->size[1], (int)m->vit.config.image[0], (int)m->vit.config.image[1]);
  return k.status;
}

/* ---- weights ---- */

static void tables(nn_loader *l, void *model) {
  struct vitpose_model *m = model;
  int32_t d = (int32_t)m->vit.config.d;
  nn_at(l, "%s", "backbone.");
  nn_vit_load(l, &m->vit);
  nn_at(l, "%s", "head.");
  if (m->simple) {
    nn_conv_spec conv = {.in = d, .out = m->keypoints, .kernel = 3, .pad = 1, .bias = true};
    nn_load_conv(l, "conv", &conv, &m->conv);
    return;
  }
  nn_conv_spec deconv = {.in = d,
                         .out = m->channels,
                         .kernel = 4,
                         .stride = 2,
                         .pad = 1,
                         .transposed = true,
                         .norm = "batchnorm1"};
  nn_load_conv(l, "deconv1", &deconv, &m->deconv[0]);
  deconv.in = m->channels;
  deconv.norm = "batchnorm2";
  nn_load_conv(l, "deconv2", &deconv, &m->deconv[1]);
  nn_conv_spec conv = {.in = m->channels, .out = m->keypoints, .kernel = 1, .bias = true};
  nn_load_conv(l, "conv", &conv, &m->conv);
}

/* ---- what describe() answers ---- */

enum { NAME_BYTES = 80, EDGE_BYTES = 16, HEAD_BYTES = 448, MAX_EDGES = 1 << 12 };

static void put(struct vitpose_model *m, uint64_t *at, const char *text, uint64_t n) {
  if (*at + n >= m->about_bytes) n = m->about_bytes - 1 - *at;
  memcpy(m->about + *at, text, n);
  m->about[ *at += n] = 0;
}

static void put_text(struct vitpose_model *m, uint64_t *at, const char *text) {
  put(m, at, text, strlen(text));
}

/* A name of config.json in quotes; what JSON would escape becomes a blank. */
static void put_name(struct vitpose_model *m, uint64_t *at, viv_str name) {
  char out[NAME_BYTES];
  uint64_t n = 0;
  out[n++] = '"';
  for (uint64_t i = 0; i < name.len && n < NAME_BYTES - 8; i++) {
    char c = name.ptr[i];
    out[n++] = c == '"' || c == '\\' || (c >= 0 && c < ' ') ? ' ' : c;
  }
  /* A character that was cut in half must not be left. */
  while (n > 1 && name.len > n - 1 && (out[n - 1] & 0xC0) == 0x80) n--;
  if (n > 1 && name.len > n - 1 && (out[n - 1] & 0x80)) n--;
  out[n++] = '"';
  put(m, at, out, n);
}

/* id2label as `keypoints` and edges as `skeleton`, for drawing; absent ones are COCO's. */
static void put_names(struct vitpose_model *m, const viv_host *h, const viv_json *config,
                      uint64_t *at) {
  const viv_json *labels = h->json_member(config, nn_str("id2label"));
  const viv_json *edges = h->json_member(config, nn_str("edges"));
  if (h->json_count(labels) == m->keypoints) {
    put_text(m, at, ",\"keypoints\":[");
    for (int32_t k = 0; k < m->keypoints; k++) {
      char key[16];
      snprintf(key, sizeof key, "%d", (int)k);
      if (k) put_text(m, at, ",");
      put_name(m, at, h->json_string(h->json_member(labels, nn_str(key))));
    }
    put_text(m, at, "]");
  }
  int64_t n = h->json_count(edges);
  bool all = n > 0 && n <= MAX_EDGES;
  for (int64_t i = 0; all && i < 2 * n; i++) {
    double v = h->json_number(h->json_item(h->json_item(edges, i / 2), i % 2));
    all = v >= 0 && v < m->keypoints;
  }
  for (int64_t i = 0; all && i < n; i++) {
    const viv_json *edge = h->json_item(edges, i);
    char pair[EDGE_BYTES + 1];
    snprintf(pair, sizeof pair, "[%d,%d]", (int)h->json_number(h->json_item(edge, 0)),
             (int)h->json_number(h->json_item(edge, 1)));
    put_text(m, at, i ? "," : ",\"skeleton\":[");
    put_text(m, at, pair);
  }
  if (all) put_text(m, at, "]");
}

static uint64_t about_bytes(const viv_host *h, const struct vitpose_model *m,
                            const viv_json *config) {
  int64_t edges = h->json_count(h->json_member(config, nn_str("edges")));
  if (edges > MAX_EDGES) edges = 0;
  return HEAD_BYTES + (uint64_t)m->keypoints * (NAME_BYTES + 1) +
         (uint64_t)edges * (EDGE_BYTES + 1);
}

static void describe(struct vitpose_model *m, const viv_host *h, const viv_json *config) {
  const nn_vit_config *c = &m->vit.config;
  uint64_t at = (uint64_t)snprintf(
      m->about, HEAD_BYTES,
      "{\"family\":\"vitpose\",\"layers\":%d,\"width\":%lld,\"heads\":%d,"
      "\"keypoints_per_person\":%d,\"crop\":[%d,%d],\"head\":\"%s\",\"experts\":%d,"
      "\"prompts\":[%s],\"tasks\":[%s]",
      (int)c->layers, (long long)c->d, (int)c->heads, (int)m->keypoints, (int)m->size[0],
      (int)m->size[1],
      m->weightless ? "none"
      : m->simple   ? "simple"
                    : "classic",
      (int)c->experts, m->weightless ? "" : "\"box\",\"boxes\"",
      m->weightless ? "\"preprocess\"" : "\"pose\",\"preprocess\",\"forward\",\"postprocess\"");
  if (!m->weightless) put_names(m, h, config, &at);
  put_text(m, &at, "}");
}

/* ---- the model ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct vitpose_model m = {0};
  int32_t rc = config_read(host, source, &m, error);
  if (rc < 0) return rc;
  uint64_t bytes = sizeof m + 128 + about_bytes(host, &m, source->config);
  out->model_bytes = bytes;
  if (m.weightless) return VIV_OK;
  return nn_net_plan(host, source, tables, &m, bytes + nn_vit_bytes(&m.vit.config), out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct vitpose_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, vitpose_tasks, error);
  if (rc >= 0) rc = config_read(host, source, m, error);
  if (rc >= 0 && m->weightless)
    m->net.tasks = vitpose_crop_tasks;
  else if (rc >= 0)
    rc = nn_vit_begin(host, source->arena, &m->vit, error);
  if (rc >= 0 && !m->weightless)
    rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  m->about_bytes = about_bytes(host, m, source->config);
  m->about = host->arena_alloc(source->arena, m->about_bytes);
  if (!m->about) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the description");
  describe(m, host, source->config);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("vitpose", "0.1.0", {VIV_MODEL_ID, &model_api})
