/* SAM's family: config.json, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "sam/sam.h"

/* ---- config.json ---- */

/* transformers nests the three parts. */
static void transformers_config(nn_config *k, const viv_model_source *source, struct sam_model *m) {
  nn_config v =
      nn_config_open(k->host, nn_key(k, "vision_config"), "config.json, vision_config", k->error);
  nn_config e = nn_config_open(k->host, nn_key(k, "prompt_encoder_config"),
                               "config.json, prompt_encoder_config", k->error);
  nn_config d = nn_config_open(k->host, nn_key(k, "mask_decoder_config"),
                               "config.json, mask_decoder_config", k->error);
  m->side = (int32_t)nn_int(&v, "image_size", 1024, 1, 1 << 13);
  m->width = (int32_t)nn_int(&v, "output_channels", 256, 8, 1 << 13);
  m->mask_channels = (int32_t)nn_int(&e, "mask_input_channels", 16, 4, 1 << 12);
  m->prompt_eps = (float)nn_num(&e, "layer_norm_eps", 1e-6, 0, 1);
  m->prompt_act = nn_activation(&e, "hidden_act", "gelu");
  m->masks = (int32_t)nn_int(&d, "num_multimask_outputs", 3, 1, SAM_MAX_MASKS - 1) + 1;
  m->depth = (int32_t)nn_int(&d, "num_hidden_layers", 2, 1, SAM_MAX_DEPTH);
  m->ff = (int32_t)nn_int(&d, "mlp_dim", 2048, 1, 1 << 16);
  m->heads = (int32_t)nn_int(&d, "num_attention_heads", 8, 1, 256);
  m->iou_depth = (int32_t)nn_int(&d, "iou_head_depth", 3, 2, NN_MLP_MAX);
  m->iou_hidden = (int32_t)nn_int(&d, "iou_head_hidden_dim", 256, 1, 1 << 14);
  m->decoder_eps = (float)nn_num(&d, "layer_norm_eps", 1e-6, 0, 1);
  m->decoder_act = nn_activation(&d, "hidden_act", "relu");
  int64_t rate = nn_int(&d, "attention_downsample_rate", 2, 1, 64);
  if (!d.status && rate != 2)
    d.status = nn_fail(k->error, VIV_NEVER, d.where, "attention_downsample_rate must be 2");
  k->status = v.status ? v.status : e.status ? e.status : d.status;
  if (!k->status && !m->weightless) {
    sam_vit_config(&v, source, m);
    k->status = v.status;
  }
}

static void zoo_config(nn_config *k, const viv_model_source *source, struct sam_model *m) {
  m->side = (int32_t)nn_int(k, "image_size", 1024, 1, 1 << 13);
  m->width = (int32_t)nn_int(k, "prompt_embed_dim", 256, 8, 1 << 13);
  m->mask_channels = (int32_t)nn_int(k, "mask_in_chans", 16, 4, 1 << 12);
  m->masks = (int32_t)nn_int(k, "num_multimask_outputs", 3, 1, SAM_MAX_MASKS - 1) + 1;
  m->depth = (int32_t)nn_int(k, "decoder_depth", 2, 1, SAM_MAX_DEPTH);
  m->ff = (int32_t)nn_int(k, "decoder_mlp_dim", 2048, 1, 1 << 16);
  m->heads = (int32_t)nn_int(k, "decoder_num_heads", 8, 1, 256);
  m->iou_depth = (int32_t)nn_int(k, "iou_head_depth", 3, 1, NN_MLP_MAX);
  m->iou_hidden = (int32_t)nn_int(k, "iou_head_hidden_dim", 256, 1, 1 << 14);
  m->prompt_eps = 1e-6f;
  m->decoder_eps = 1e-5f;
  m->prompt_act = VIV_GELU;
  m->decoder_act = VIV_RELU;
  if (k->status || m->weightless) return;
  if (m->encoder == SAM_TINY)
    sam_tiny_config(k, m);
  else
    sam_vit_config(k, source, m);
  if (m->medical_form) sam_medical_config(k, m);
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct sam_model *m, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  viv_str type = nn_text(&k, "model_type", "");
  m->medical_form = nn_is(type, "esp_medsam");
  bool tiny = nn_is(type, "mobile_sam");
  if (!type.len) /* a release on its own */
    tiny = nn_has(host, source, "image_encoder.patch_embed.seq.0.c.weight");
  m->encoder = m->medical_form || tiny ? SAM_TINY : SAM_VIT;
  m->transformers = nn_key(&k, "vision_config") != NULL;
  m->weightless = !host->tensor_count(source->checkpoint);
  if (m->transformers)
    transformers_config(&k, source, m);
  else
    zoo_config(&k, source, m);
  nn_divides(&k, m->width, 8, "the width of the prompts and 8");
  nn_divides(&k, m->width / 2, m->heads, "half the width of the prompts and the decoder's heads");
  nn_divides(&k, m->mask_channels, 4, "the channels of mask prompts and 4");
  if (!k.status && m->grid > 1 << 10)
    k.status = nn_fail(error, VIV_BAD_INPUT, "config.json",
                       "a grid of %d x %d patches is too large", (int)m->grid, (int)m->grid);
  sam_read_rules(&k, source, m);
  if (!k.status && m->rules.side != m->side)
    k.status = nn_fail(error, VIV_BAD_INPUT, "preprocessor_config.json",
                       "size.longest_edge is %d, but the network takes %d", (int)m->rules.side,
                       (int)m->side);
  return k.status;
}

/* ---- weights ---- */

static void load_neck(nn_loader *l, struct sam_model *m, int32_t in) {
  static const char *const meta[] = {"neck.0", "neck.2", "neck.1", "neck.3"};
  static const char *const hf[] = {"neck.conv1", "neck.conv2", "neck.layer_norm1",
                                   "neck.layer_norm2"};
  const char *const *name = m->transformers ? hf : meta;
  nn_conv_spec first = {.in = in, .out = m->width, .kernel = 1};
  nn_conv_spec second = {.in = m->width, .out = m->width, .kernel = 3, .pad = 1};
  nn_load_conv(l, name[0], &first, &m->neck.conv[0]);
  nn_load_conv(l, name[1], &second, &m->neck.conv[1]);
  for (int i = 0; i < 2; i++) nn_load_norm(l, name[2 + i], m->width, 1e-6f, &m->neck.norm[i]);
}

static void tables(nn_loader *l, void *model) {
  struct sam_model *m = model;
  nn_at(l, "%s",
        m->medical_form   ? "SemiTViT."
        : m->transformers ? "vision_encoder."
                          : "image_encoder.");
  if (m->encoder == SAM_TINY)
    sam_tiny_load(l, m);
  else
    sam_vit_load(l, m);
  load_neck(l, m,
            m->encoder == SAM_TINY ? m->tiny.dims[SAM_STAGES - 1] : (int32_t)m->vit.net.config.d);
  sam_prompt_load(l, m);
  sam_decoder_load(l, m, m->medical_form ? 1 : m->masks, !m->medical_form);
  if (m->medical_form) sam_medical_load(l, m);
  nn_ignore(l, "pixel_mean");
  nn_ignore(l, "pixel_std");
}

/* ---- the model ---- */

static uint64_t grid_bytes(const struct sam_model *m) {
  return (uint64_t)m->grid * (uint64_t)m->grid * (uint64_t)m->width * sizeof(float);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct sam_model m = {0};
  int32_t rc = config_read(host, source, &m, error);
  if (rc < 0) return rc;
  uint64_t bytes = sizeof m + 128 + grid_bytes(&m);
  if (m.encoder == SAM_VIT && !m.weightless) bytes += nn_vit_bytes(&m.vit.net.config);
  if (m.weightless) {
    viv_memory_plan small = {.struct_size = out->struct_size, .model_bytes = bytes};
    nn_write(out, out->struct_size, &small, sizeof small);
    return VIV_OK;
  }
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  viv_memory_plan all = {0};
  nn_read(&all, sizeof all, out, out->struct_size);
  all.session_bytes = grid_bytes(&m) + sizeof(struct sam_session) + 256;
  nn_write(out, out->struct_size, &all, sizeof all);
  return rc;
}

static void describe(struct sam_model *m) {
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"%s\",\"encoder\":\"%s\",\"picture\":%d,\"grid\":%d,\"width\":%d,"
           "\"prompts\":[%s],\"session\":\"embedding\",\"tasks\":[%s]}",
           m->medical_form ? "esp-medsam" : "sam", m->encoder == SAM_TINY ? "TinyViT" : "ViT",
           (int)m->side, (int)m->grid, (int)m->width,
           m->medical_form ? "\"domain_seq\"" : "\"point_coords\",\"box\",\"boxes\",\"mask_input\"",
           m->weightless     ? "\"preprocess\""
           : m->medical_form ? "\"segment\",\"embed_image\",\"preprocess\""
                             : "\"segment\",\"segment_everything\",\"embed_image\",\"preprocess\"");
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct sam_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, sam_tasks, error);
  if (rc >= 0) rc = config_read(host, source, m, error);
  if (rc < 0) return rc;
  if (m->weightless) {
    m->net.tasks = sam_picture_tasks;
  } else {
    if (m->medical_form) m->net.tasks = sam_medical_tasks;
    if (m->encoder == SAM_VIT) rc = nn_vit_begin(host, source->arena, &m->vit.net, error);
    if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
    if (rc >= 0) m->positions = host->arena_alloc(source->arena, grid_bytes(m));
    if (rc >= 0 && !m->positions)
      rc = nn_fail(error, VIV_NOT_NOW, "open", "no memory for the positions");
    if (rc < 0) return rc;
    sam_dense_positions(m, m->positions);
  }
  describe(m);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api =
    NN_NET_API(.plan = plan, .open = open_model, .session_open = sam_session_open,
               .session_close = sam_session_close);

NN_PLUGIN("sam", "0.1.0", {VIV_MODEL_ID, &model_api})
