/* Pictures to maps: ResNet or Swin, as config.json names them. */
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

/* ---- configuration ---- */

/* "resnet50", and narrow ones that say their sizes. */
static void named_resnet(nn_config *k, struct detr_backbone *b, viv_str name) {
  nn_resnet_spec *s = &b->resnet.spec;
  if (!nn_resnet_named(name, s)) {
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "the backbone \"%.*s\" is none that this plugin computes",
                        (int)(name.len < 64 ? name.len : 64), name.ptr);
    return;
  }
  s->stem = (int32_t)nn_int(k, "resnet_stem", s->stem, 1, 4096);
  int32_t layers[4], planes[4];
  if (nn_key(k, "resnet_layers") && nn_ints(k, "resnet_layers", layers, 4, 1, 64) == 4)
    memcpy(s->layers, layers, sizeof layers);
  if (nn_key(k, "resnet_planes") && nn_ints(k, "resnet_planes", planes, 4, 1, 4096) == 4)
    for (int i = 0; i < 4; i++) {
      s->inner[i] = planes[i];
      s->out[i] = s->basic ? planes[i] : 4 * planes[i];
    }
}

/* "swin_L_384_22k", and narrow ones that say their sizes. */
static void read_swin(nn_config *k, viv_str name, nn_swin_spec *s) {
  *s = (nn_swin_spec){.names = NN_SWIN_ORIGINAL};
  bool known = nn_swin_named(name, s);
  if (!known && !nn_key(k, "swin_embed_dim")) {
    k->status = nn_fail(k->error, VIV_NEVER, "config.json",
                        "the backbone \"%.*s\" is none that this plugin computes",
                        (int)(name.len < 64 ? name.len : 64), name.ptr);
    return;
  }
  s->stages = 4;
  s->embed = (int32_t)nn_int(k, "swin_embed_dim", s->embed, 1, 1 << 12);
  s->window = (int32_t)nn_int(k, "swin_window_size", s->window, 1, 64);
  int32_t list[4], blocks = 0;
  if (nn_key(k, "swin_depths") && nn_ints(k, "swin_depths", list, 4, 1, 64) == 4)
    memcpy(s->depths, list, sizeof list);
  if (nn_key(k, "swin_num_heads") && nn_ints(k, "swin_num_heads", list, 4, 1, 1024) == 4)
    memcpy(s->heads, list, sizeof list);
  for (int i = 0; i < 4; i++) {
    blocks += s->depths[i];
    if (s->heads[i] < 1 || s->window < 1 || s->embed < 1) {
      if (!k->status)
        k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                            "swin_embed_dim, swin_depths, swin_num_heads and swin_window_size must "
                            "all be given for this backbone");
      return;
    }
    nn_divides(k, (int64_t)s->embed << i, s->heads[i], "swin_embed_dim and swin_num_heads");
  }
  if (blocks > NN_SWIN_BLOCKS && !k->status)
    k->status =
        nn_fail(k->error, VIV_BAD_INPUT, "config.json", "the backbone has %d blocks", (int)blocks);
}

static int32_t blocks_of(const nn_resnet_spec *s) {
  return s->layers[0] + s->layers[1] + s->layers[2] + s->layers[3];
}

void detr_read_backbone(nn_config *k, const viv_model_source *source, const char *prefix,
                        uint32_t stages, struct detr_backbone *b) {
  viv_str name = nn_text(k, "backbone", "resnet50");
  const viv_json *own = nn_key(k, "backbone_config");
  char probe[128];
  snprintf(b->prefix, sizeof b->prefix, "%s", prefix);
  snprintf(probe, sizeof probe, "%sembedder.embedder.convolution.weight", prefix);
  if (name.len >= 4 && !memcmp(name.ptr, "swin", 4)) {
    b->is_swin = true;
    read_swin(k, name, &b->swin.spec);
    b->swin.spec.norms = stages;
    for (int i = 0; i < 4; i++) b->channels[i] = b->swin.spec.embed << i;
    return;
  }
  if (own) {
    nn_config c = nn_config_open(k->host, own, "config.json, backbone_config", k->error);
    if (nn_key(&c, "backbone")) name = nn_text(&c, "backbone", "");
    if (nn_has(k->host, source, probe)) nn_resnet_read(&c, &b->resnet.spec);
    if (c.status) k->status = c.status;
  }
  if (!b->resnet.spec.stem && !k->status) named_resnet(k, b, name);
  if (nn_flag(k, "dilation", false)) { /* DC5: the last stage keeps the size */
    b->resnet.spec.strides[3] = b->resnet.spec.first_dilation[3] = 1;
    b->resnet.spec.dilations[3] = 2;
  }
  if (!k->status && blocks_of(&b->resnet.spec) > NN_RESNET_BLOCKS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json", "the backbone has %d blocks",
                        (int)blocks_of(&b->resnet.spec));
  for (int i = 0; i < 4; i++) b->channels[i] = b->resnet.spec.out[i];
}

/* ---- loading ---- */

void detr_load_backbone(nn_loader *l, struct detr_backbone *b) {
  size_t outer = nn_in(l, "%s", b->prefix);
  if (b->is_swin) {
    nn_load_swin(l, &b->swin.spec, &b->swin);
  } else {
    nn_load_resnet(l, &b->resnet.spec, &b->resnet);
  }
  nn_out(l, outer);
}

/* ---- the pass ---- */

void detr_apply_backbone(nn_pass *p, const struct detr_backbone *b, const struct detr_batch *batch,
                         uint32_t stages, nn_map maps[5]) {
  nn_map x = {.x = (float *)(uintptr_t)batch->pixels,
              .batch = batch->n,
              .channels = 3,
              .dims = 2,
              .size = {batch->height, batch->width, 1},
              .layout = VIV_CHANNELS_FIRST};
  if (b->is_swin) {
    nn_apply_swin(p, &b->swin, &x, stages, maps);
    for (int32_t s = 1; s < 5; s++)
      if (stages >> s & 1)
        nn_tap(p, maps[s].x, NN_DIMS(batch->n, nn_space(&maps[s]), maps[s].channels),
               "backbone.norm%d", (int)s - 1);
    return;
  }
  for (int32_t s = 1; s < 5; s++)
    if (nn_taps(p, "backbone.layer%d", (int)s)) stages |= 1u << s;
  nn_apply_resnet(p, &b->resnet, &x, stages, maps);
  for (int32_t s = 1; s < 5; s++)
    if (stages >> s & 1) detr_tap_map(p, &maps[s], "backbone.layer%d", (int)s);
}

struct detr_memory detr_project(nn_pass *p, const struct detr_backbone *b, const nn_conv *input,
                                const char *tap, const struct detr_batch *batch) {
  nn_map maps[5];
  detr_apply_backbone(p, b, batch, 1u << 4, maps);
  nn_map x = nn_apply_conv(p, input, 0, &maps[4]);
  detr_tap_map(p, &x, "%s", tap);
  struct detr_levels lv = {.batch = batch->n, .n = 1, .shape = {x.size[0], x.size[1]}};
  detr_set_levels(p, &lv, batch);
  nn_sine sine = {.n = x.channels / 2, .temperature_h = 10000, .temperature_w = 10000};
  struct detr_memory s = {.cells = nn_space(&x),
                          .height = x.size[0],
                          .width = x.size[1],
                          .x = x.x,
                          .position = detr_sine_tokens(p, &lv, 0, sine),
                          .real = detr_real_cells(p, &lv)};
  nn_map position = x;
  position.x = s.position;
  detr_tap_map(p, &position, "%s", strcmp(tap, "input_proj") ? "pos.0" : "pos");
  return s;
}
