/* xNet: a second pretrained backbone as the decoder of the first, which sees what the first made of
 * the picture as a picture.
 *
 *   picture [B, 3, H, W] -> encoder (ConvNeXt) -> its last map f
 *     -> pixel shuffle(1x1 f) -> resized to [H, W]                            "reshape"
 *     -> 1x1 of [reshaped, picture]                                           "mix" [B, 3, H, W]
 *     -> decoder (ConvNeXt) -> four maps -> 1x1 each, summed from the deepest up, 3x3 each, resized to
 *        the finest and joined                                                "pfp"
 *     -> 3x3, GELU, 1x1 -> classes, or max_depth * sigmoid
 *
 * Ning et al., arXiv:2503.07637. No code is public: names and constants are this project's own form,
 * fixed by its golden vectors. */
#include <stdio.h>
#include <string.h>

#include "nn/convnext.h"
#include "segmenter/segmenter.h"

enum { STAGES = NN_CONVNEXT_STAGES };

struct xnet {
  struct segmenter_model base;
  nn_convnext encoder, decoder;
  int32_t shuffle; /* pixels of a place, each way */
  int32_t d;       /* channels of the pyramid */
  float max_depth;
  nn_conv reshape, mix, lateral[STAGES], out[STAGES], head[2];
};
_Static_assert(sizeof(struct xnet) <= SEGMENTER_MODEL_BYTES, "plan's room");

static void read_backbone(nn_config *k, const char *key, const char *where, nn_convnext_spec *s) {
  nn_config b = segmenter_part(k, key, where);
  int64_t blocks = 0;
  s->stages = nn_ints(&b, "depths", s->depths, STAGES, 1, NN_CONVNEXT_BLOCKS);
  int32_t n = nn_ints(&b, "dims", s->dims, STAGES, 1, 1 << 14);
  for (int32_t i = 0; i < s->stages; i++) blocks += s->depths[i];
  if (!b.status && !nn_is(nn_text(&b, "model_type", "convnext"), "convnext"))
    b.status = nn_fail(k->error, VIV_NEVER, where, "only convnext is supported as a backbone");
  if (!b.status && (s->stages != STAGES || n != STAGES || blocks > NN_CONVNEXT_BLOCKS))
    b.status = nn_fail(k->error, VIV_BAD_INPUT, where,
                       "depths and dims must be four numbers each, at most %d blocks",
                       (int)NN_CONVNEXT_BLOCKS);
  if (b.status) k->status = b.status;
}

static void config(nn_config *k, const viv_model_source *source, struct segmenter_model *base) {
  struct xnet *m = (struct xnet *)(void *)base;
  viv_str task = nn_text(k, "task", "depth");
  read_backbone(k, "encoder", "config.json, encoder", &m->encoder.spec);
  read_backbone(k, "decoder", "config.json, decoder", &m->decoder.spec);
  m->shuffle = (int32_t)nn_int(k, "reshape_factor", 8, 1, 64);
  m->d = (int32_t)nn_int(k, "pfp_dim", 256, 1, 1 << 14);
  m->max_depth = (float)nn_num(k, "max_depth", 10, 1e-6, 1e9);
  base->depth = nn_is(task, "depth");
  if (!k->status && !base->depth && !nn_is(task, "segment"))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "task is neither depth nor segment");
  base->classes = nn_axis(k->host, source, "head.2.weight", 0, 1);
}

static void load_one(nn_loader *l, const char *name, int32_t in, int32_t out, int32_t kernel,
                     nn_conv *conv) {
  nn_conv_spec c = {.in = in, .out = out, .kernel = kernel, .pad = kernel / 2, .bias = true};
  nn_load_conv(l, name, &c, conv);
}

static void tables(nn_loader *l, void *model) {
  struct xnet *m = model;
  nn_convnext_spec encoder = m->encoder.spec, decoder = m->decoder.spec;
  char name[32];
  nn_at(l, "encoder.");
  nn_load_convnext(l, &encoder, &m->encoder);
  nn_at(l, "decoder.");
  nn_load_convnext(l, &decoder, &m->decoder);
  nn_at(l, "%s", "");
  load_one(l, "reshape.proj", encoder.dims[3], 3 * m->shuffle * m->shuffle, 1, &m->reshape);
  load_one(l, "mix", 6, 3, 1, &m->mix);
  for (int32_t i = 0; i < STAGES; i++) {
    snprintf(name, sizeof name, "pfp.lateral.%d", (int)i);
    load_one(l, name, decoder.dims[i], m->d, 1, &m->lateral[i]);
    snprintf(name, sizeof name, "pfp.out.%d", (int)i);
    load_one(l, name, m->d, m->d, 3, &m->out[i]);
  }
  load_one(l, "head.0", STAGES * m->d, m->d, 3, &m->head[0]);
  load_one(l, "head.2", m->d, (int32_t)m->base.classes, 1, &m->head[1]);
}

/* ---- the pass ---- */

/* torch's pixel_shuffle: [B, 3 r r, h, w] -> [B, 3, h r, w r], channels first. */
static nn_map shuffled(nn_pass *p, const nn_map *x, int32_t r) {
  int32_t h = x->size[0], w = x->size[1], size[2] = {h * r, w * r};
  nn_map y = nn_new_map(p, x->batch, x->channels / (r * r), 2, size, VIV_CHANNELS_FIRST);
  float *to = y.x;
  for (int32_t b = 0; b < y.batch; b++)
    for (int32_t c = 0; c < y.channels; c++)
      for (int32_t i = 0; i < size[0]; i++)
        for (int32_t j = 0; j < size[1]; j++) {
          int64_t plane = (int64_t)b * x->channels + (c * r + i % r) * r + j % r;
          *to++ = x->x[(plane * h + i / r) * w + j / r];
        }
  return y;
}

/* The maps' channels behind one another; all of one size, channels first. */
static nn_map joined(nn_pass *p, const nn_map *maps, int32_t n) {
  nn_map y = maps[0];
  int64_t space = nn_space(&y), at = 0;
  y.channels = 0;
  for (int32_t i = 0; i < n; i++) y.channels += maps[i].channels;
  y.x = nn_room(p, nn_elements(&y));
  for (int32_t b = 0; b < y.batch; b++)
    for (int32_t i = 0; i < n; i++) {
      int64_t part = maps[i].channels * space;
      memcpy(y.x + at, maps[i].x + b * part, (size_t)part * sizeof *y.x);
      at += part;
    }
  return y;
}

static nn_map first(nn_pass *p, const nn_conv *conv, int32_t act, const nn_map *x) {
  nn_map y = nn_conv_shape(p, conv, x, VIV_CHANNELS_FIRST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, conv, act, NULL, x, &y);
  return y;
}

static nn_map network(nn_pass *p, const nn_map *x, bool extras) {
  const struct xnet *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  nn_map maps[STAGES + 1] = {{0}}, level[STAGES], part[2];
  uint32_t wanted = 1u << STAGES;
  (void)extras;
  for (uint32_t i = 0; i < STAGES; i++)
    if (nn_taps(p, "encoder.%d", (int)i)) wanted |= 2u << i;
  nn_apply_convnext(p, &m->encoder, x, wanted, maps);
  for (int32_t i = 0; i < STAGES; i++)
    if (wanted >> (i + 1) & 1) segmenter_tap(p, &maps[i + 1], "encoder.%d", (int)i);
  nn_map proj = first(p, &m->reshape, 0, &maps[STAGES]);
  part[0] = shuffled(p, &proj, m->shuffle);
  segmenter_tap(p, &part[0], "reshape");
  part[0] = nn_resize_map(p, VIV_LINEAR, false, x->size, &part[0]);
  part[1] = *x;
  nn_map mixed = joined(p, part, 2); /* [B, 6, H, W] */
  mixed = first(p, &m->mix, 0, &mixed);
  segmenter_tap(p, &mixed, "mix");

  nn_apply_convnext(p, &m->decoder, &mixed, 30, maps);
  for (int32_t i = STAGES - 1; i >= 0; i--) {
    segmenter_tap(p, &maps[i + 1], "decoder.%d", (int)i);
    level[i] = first(p, &m->lateral[i], 0, &maps[i + 1]);
    if (i == STAGES - 1) continue;
    nn_map above = nn_resize_map(p, VIV_LINEAR, false, level[i].size, &level[i + 1]);
    c->add(c, level[i].x, above.x, nn_elements(&above));
  }
  for (int32_t i = 0; i < STAGES; i++) {
    level[i] = first(p, &m->out[i], 0, &level[i]);
    if (i) level[i] = nn_resize_map(p, VIV_LINEAR, false, level[0].size, &level[i]);
  }
  nn_map y = joined(p, level, STAGES);
  segmenter_tap(p, &y, "pfp");
  y = first(p, &m->head[0], VIV_GELU, &y);
  y = first(p, &m->head[1], m->base.depth ? VIV_SIGMOID : 0, &y);
  for (int64_t i = 0; m->base.depth && i < nn_elements(&y); i++) y.x[i] *= m->max_depth;
  return y;
}

const struct segmenter_variant segmenter_xnet = {.model_type = "xnet",
                                                 .architecture = "XNet",
                                                 .bytes = sizeof(struct xnet),
                                                 .config = config,
                                                 .tables = tables,
                                                 .network = network};
