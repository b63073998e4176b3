/* What stands between a backbone's maps and the decoder in the newer variants: RT-DETR's hybrid
 * encoder, and the projector of LW-DETR and RF-DETR with the decoder that those two share. */
#ifndef PLUGINS_DETR_NECK_H
#define PLUGINS_DETR_NECK_H

#include "detr/detr.h"
#include "nn/vit.h"

/* ---- maps (maps.c) ---- */

/* Channels of n maps of one size side by side, channels last. */
nn_map detr_join_maps(nn_pass *p, const nn_map *maps, int32_t n);
/* Channels [begin, begin + n) of a map. */
nn_map detr_cut_map(nn_pass *p, const nn_map *x, int32_t begin, int32_t n);
/* Maps of several sizes as rows of cells, [batch, S, d]; shapes and starts go to lv. */
float *detr_flatten_maps(nn_pass *p, const nn_map *maps, int32_t n, const struct detr_batch *batch,
                         struct detr_levels *lv);

/* ---- RT-DETR's hybrid encoder (hybrid_encoder.c) ---- */

enum { DETR_CSP_BLOCKS = 3 };

/* Two branches of 1x1, one through RepVGG blocks, added. */
struct detr_csp {
  nn_conv one, two, three; /* three.w NULL: the branches are as wide as the result */
  nn_conv wide[DETR_CSP_BLOCKS], narrow[DETR_CSP_BLOCKS]; /* 3x3 and 1x1 of a RepVGG block */
};

struct detr_hybrid {
  int32_t levels, in[DETR_MAX_LEVELS]; /* channels of the backbone's maps */
  int32_t d, heads, layers, act, ff_act;
  int64_t ff;
  int32_t encoded, encode[DETR_MAX_LEVELS]; /* levels with attention inside */
  float expansion, norm_eps, layer_eps;
  double temperature;
  nn_conv input[DETR_MAX_LEVELS];
  struct detr_encoder_layer layer[DETR_MAX_LAYERS]; /* [encoded * layers] */
  nn_conv lateral[DETR_MAX_LEVELS], down[DETR_MAX_LEVELS];
  struct detr_csp top_down[DETR_MAX_LEVELS], bottom_up[DETR_MAX_LEVELS];
};
/* encoder_* and the like of config.json. */
void detr_read_hybrid(nn_config *k, struct detr_hybrid *e);
/* Names under "model.". */
void detr_load_hybrid(nn_loader *l, struct detr_hybrid *e);
/* maps [levels] of the backbone, fine to coarse, become the encoder's. */
void detr_apply_hybrid(nn_pass *p, const struct detr_hybrid *e, nn_map *maps);

/* ---- the projector of LW-DETR and RF-DETR (projector.c) ---- */

enum { DETR_MAX_FEATURES = 8, DETR_C2F_BLOCKS = 8 };

/* A convolution with a norm behind it: a batch norm, which is folded in, or one over channels. */
struct detr_normed {
  nn_conv conv;
  nn_norm norm; /* w NULL: folded */
};

/* One size of the pyramid. */
struct detr_scale {
  double factor; /* of the size: 2, 1, 0.5 */
  struct detr_normed
      narrow[DETR_MAX_FEATURES]; /* 1x1 before a wide upsampling; conv.w NULL: none */
  struct detr_normed sample[DETR_MAX_FEATURES]; /* up or down; conv.w NULL: factor 1 */
  struct detr_normed one, two;
  struct detr_normed a[DETR_C2F_BLOCKS], b[DETR_C2F_BLOCKS];
  nn_norm norm;
};

struct detr_projector {
  int32_t features, in; /* maps of `in` channels each */
  int32_t out, inner, blocks, act;
  int32_t scales;
  bool original;    /* the first repositories' names: stages.0.0.cv1, not scale_layers.0... */
  bool layer_norms; /* RF-DETR */
  float eps;        /* of the norms behind convolutions */
  struct detr_scale scale[DETR_MAX_LEVELS];
};
/* c2f_num_blocks, hidden_expansion, projector_scale_factors, ... of config.json. */
void detr_read_projector(nn_config *k, struct detr_projector *j);
/* Names under the prefix at the time of the call ("model.backbone.projector."). */
void detr_load_projector(nn_loader *l, struct detr_projector *j);
/* maps [features] of one size -> out [scales]; emits the taps projector.S (projector for one scale
 * of 1, with projector.cv1). */
void detr_apply_projector(nn_pass *p, const struct detr_projector *j, const nn_map *maps,
                          nn_map *out);

/* ---- windows of a vision transformer's tokens (projector.c) ---- */

/* Tokens [batch side side, extra + n, d] without the extra ones and with windows put back: a map. */
nn_map detr_window_map(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                       int64_t extra, int64_t d);
/* The grid of a batch, divisible into side x side windows; else the task ends. */
nn_vit_grid detr_window_grid(nn_pass *p, const nn_vit *vit, const struct detr_batch *batch,
                             int32_t side);

/* ---- the decoder of LW-DETR and RF-DETR (lw_decoder.c) ---- */

struct detr_lw_layer {
  nn_mha self;
  struct detr_msda cross;
  nn_norm self_norm, cross_norm;
  struct detr_ffn ffn;
};

struct detr_lw_decoder {
  int64_t d, ff, queries, labels, stored; /* stored: rows of query_feat, all groups */
  int32_t self_heads, cross_heads, points, levels, layers, act;
  bool original; /* transformer.decoder.layers.0.linear1, not model.decoder.layers.0.mlp.fc1 */
  const float *content; /* [Q, d] */
  const float *place;   /* [Q, 4] */
  nn_linear memory, score, classes;
  nn_norm memory_norm, norm;
  nn_mlp proposal, position, boxes;
  struct detr_lw_layer layer[DETR_MAX_LAYERS];
};
void detr_read_lw_decoder(nn_config *k, const viv_model_source *source, struct detr_model *m,
                          struct detr_lw_decoder *d);
void detr_load_lw_decoder(nn_loader *l, struct detr_lw_decoder *d);
struct detr_found detr_apply_lw_decoder(nn_pass *p, const struct detr_lw_decoder *w,
                                        const struct detr_levels *lv, const float *memory);

#endif
