/* The DETR family: pictures in, a set of queries out, no suppression of doubles.
 *
 *   pixels [B, 3, H, W] -> backbone -> maps -> projections -> tokens [B, S, d]
 *     -> encoder -> (two-stage: the best cells become queries) -> decoder -> heads
 *
 * One file per variant (detr.c, conditional.c, deformable.c, group_pose.c, reltr.c, rt_detr.c, ...)
 * holds its configuration, its weight names and its network, and one row of the table in plugin.c
 * names it. What variants share is here: the batch and its levels, deformable attention (msda.c),
 * two-stage proposals (two_stage.c), preparation of pictures (preprocess.c), results (post.c), and
 * the tasks of a detector (tasks.c).
 *
 * Tokens lie channels last, cells of a map row by row, levels one after another, as everywhere in
 * the official code once a map is flattened. */
#ifndef PLUGINS_DETR_H
#define PLUGINS_DETR_H

#include "nn/boxes.h"
#include "nn/modules.h"
#include "nn/resnet.h"
#include "nn/swin.h"

enum {
  DETR_MAX_LAYERS = 32,
  DETR_MAX_LEVELS = 6,
  DETR_MODEL_BYTES = 512 << 10 /* a variant's model is no larger: plan() keeps one on its stack */
};

/* ---- preparation of pictures (preprocess.c) ---- */

enum detr_rule {
  DETR_ASPECT = 0,         /* short edge, long edge at most; transformers' rounding */
  DETR_ASPECT_ROUNDED = 1, /* the same with the original DETR's rounding */
  DETR_EXACT = 2,          /* height, width */
  DETR_FIT = 3             /* inside height x width, aspect kept */
};
enum detr_backend {
  DETR_TORCHVISION = 0, /* transformers 5 */
  DETR_PIL = 1,         /* transformers 4, and the official repositories of most variants */
  DETR_ORIGINAL = 2     /* RF-DETR's own predict() */
};
struct detr_prepare {
  int32_t rule;                  /* enum detr_rule */
  int64_t short_edge, long_edge; /* long_edge 0: no limit */
  int64_t height, width;
  int32_t resample; /* PIL's number: 2 bilinear, 3 bicubic, ... */
  int32_t backend;  /* enum detr_backend, unless the request says another */
  bool resize, rescale, normalize, pad;
  bool on_floats;       /* RF-DETR: the picture is resized as floats */
  bool mask_is_padding; /* the mask is called `mask` and 1 is padding, not `pixel_mask` with 0 */
  double factor;        /* of rescale */
  float mean[3], std[3];
};

/* A batch of pictures as a network sees it. */
struct detr_batch {
  int32_t n, height, width;
  const float *pixels;    /* [n, 3, height, width] */
  const uint8_t *padding; /* [n, height, width], 1: no picture there; NULL: pictures everywhere */
  const int64_t *sizes; /* [n, 2] height, width of the pictures that came in; NULL: tensors came */
};

/* The pictures `image` of the request, prepared; emit: hands over pixel_values, the mask and
 * `resized`, as the task preprocess does. */
struct detr_batch detr_prepare_images(nn_pass *p, const struct detr_prepare *how, bool emit);
/* The official tensors pixel_values and pixel_mask or mask. */
struct detr_batch detr_read_batch(nn_pass *p, const struct detr_prepare *how);
/* 800 / 1333, bilinear, ImageNet's mean and deviation. */
void detr_usual_prepare(struct detr_prepare *how);
/* preprocessor_config.json over what `how` holds already (the variant's own defaults). */
void detr_read_prepare(nn_config *k, const viv_model_source *source, struct detr_prepare *how);

/* ---- models and variants (plugin.c) ---- */

struct detr_model;

/* What a detector's network answers. */
struct detr_found {
  int32_t batch, queries, classes; /* classes: columns of logits */
  const float *logits;             /* [batch, queries, classes] */
  const float *boxes;              /* [batch, queries, 4]: centre, size, 0 to 1 */
};

struct detr_variant {
  const char *model_type; /* of config.json */
  const char *processor; /* image_processor_type, for a folder with preprocessor_config.json only */
  size_t bytes;          /* of the variant's model, which begins with struct detr_model */
  const nn_task *tasks;  /* detr_tasks, or a list of its own */
  /* Defaults of preparation; config may be NULL: then it is all that is known. */
  void (*prepare)(struct detr_prepare *how);
  /* config.json into the model. Reports through k. */
  void (*config)(nn_config *k, const viv_model_source *source, struct detr_model *m);
  nn_tables_fn tables;
  /* The network, for detr_tasks. */
  struct detr_found (*network)(nn_pass *p, const struct detr_batch *batch);
};

/* What each variant's model begins with. */
struct detr_model {
  nn_net net;
  const struct detr_variant *variant;
  struct detr_prepare prepare;
  bool weightless;   /* the folder holds no weights: it can only prepare pictures */
  bool softmax;      /* scores are a softmax whose last column is "nothing", not sigmoids */
  int64_t d, labels; /* width; columns of the class head */
  int64_t queries;
  int64_t top_k; /* of sigmoid heads when the request names none */
  int32_t heads;
  const char *details; /* more members of describe()'s object, each after a comma; or NULL */
  char about[8192];
};

/* What transformers' configurations of DETR, Conditional DETR and Deformable DETR have in
 * common. */
struct detr_sizes {
  int32_t encoder_layers, decoder_layers, encoder_heads, act;
  int64_t encoder_ff, decoder_ff;
};
/* Fills m->d and m->heads too; ff: the width inside a layer where the file is silent. */
void detr_read_sizes(nn_config *k, int64_t ff, struct detr_model *m, struct detr_sizes *s);

/* The label count: config's num_labels or id2label. */
int64_t detr_labels(nn_config *k, int64_t fallback);

/* visual_genome.c: members of describe(). */
extern const char detr_visual_genome[];

extern const struct detr_variant detr_variant_detr, detr_variant_conditional,
    detr_variant_deformable, detr_variant_group_pose, detr_variant_reltr, detr_variant_hydra_sgg,
    detr_variant_rt_detr, detr_variant_rt_detr_v2, detr_variant_rf_detr, detr_variant_lw_detr;

/* ---- backbones (backbone.c) ---- */

struct detr_backbone {
  char prefix[64]; /* of its weights */
  bool is_swin;
  nn_resnet resnet;
  nn_swin swin;
  int32_t channels[4]; /* of stages 1 to 4 */
};
/* config.json's `backbone`, `backbone_config`, `dilation`, and the zoo's resnet_* and swin_*.
 * stages: bit s for each stage whose map the model reads (a Swin has a norm for each of them). */
void detr_read_backbone(nn_config *k, const viv_model_source *source, const char *prefix,
                        uint32_t stages, struct detr_backbone *b);
void detr_load_backbone(nn_loader *l, struct detr_backbone *b);
/* maps[s] of each bit s of stages, channels last; emits the taps backbone.layerN or
 * backbone.normN. */
void detr_apply_backbone(nn_pass *p, const struct detr_backbone *b, const struct detr_batch *batch,
                         uint32_t stages, nn_map maps[5]);

/* One level of tokens: the last map through a 1x1 convolution, as DETR, Conditional DETR and RelTR
 * read it. */
struct detr_memory {
  int64_t cells;         /* S */
  int32_t height, width; /* of the map */
  float *x;              /* [B, S, d] */
  float *position;       /* [B, S, d] sines */
  const uint8_t *real;   /* [B, S] or NULL: every cell */
};
/* tap: the name of the projected map; its position's tap is pos.0, or pos where tap is
 * input_proj. */
struct detr_memory detr_project(nn_pass *p, const struct detr_backbone *b, const nn_conv *input,
                                const char *tap, const struct detr_batch *batch);

/* ---- tasks of a detector (tasks.c) ---- */

/* preprocess, forward, postprocess, detect over variant->network. */
extern const nn_task detr_tasks[];
/* The tasks that variants with lists of their own reuse. */
int32_t detr_preprocess_task(nn_pass *p);

/* ---- results (post.c) ---- */

/* Scores, labels and boxes of picture `b` in pixels of (height, width), in the official order:
 * softmax: every query whose best class reaches the threshold, in the queries' order; else the
 * top_k pairs of query and class of sigmoid scores, largest first, those above the threshold. Emits
 * boxes.b, scores.b, labels.b. */
void detr_emit_detections(nn_pass *p, const struct detr_found *f, int32_t b, bool softmax,
                          int64_t top_k, double threshold, int64_t height, int64_t width);
/* [n, 2] height, width of the input target_sizes, NULL when it is absent. */
const int64_t *detr_target_sizes(nn_pass *p, int32_t n);

/* ---- levels and deformable attention (msda.c) ---- */

/* Maps of several sizes as one row of S cells. */
struct detr_levels {
  int32_t batch, n;                   /* pictures, levels */
  int32_t shape[2 * DETR_MAX_LEVELS]; /* height, width of each */
  int64_t start[DETR_MAX_LEVELS + 1]; /* first cell of each; start[n] = S */
  const uint8_t *padding;             /* [batch, S] or NULL: none */
  const float *ratios; /* [batch, n, 2]: unpadded share of the width and height; NULL: 1 */
};

/* batch, n and shape are set: fills start, and from the pictures' mask (NULL: none) padding by
 * nearest sampling and ratios. */
void detr_set_levels(nn_pass *p, struct detr_levels *lv, const struct detr_batch *batch);

/* Official: MSDeformAttn of Deformable DETR. offset_scale: RT-DETR v2's, else 0 (which is 0.5). */
struct detr_msda {
  nn_linear offsets, weights, value, output;
  int32_t heads, levels, points;
  float offset_scale;
  bool nearest; /* RT-DETR v2's decoder_method "discrete": the single cell of a location */
};
void detr_load_msda(nn_loader *l, const char *name, int64_t d, int32_t heads, int32_t levels,
                    int32_t points, struct detr_msda *m);
/* out [batch, nq, d] from query [batch, nq, d], memory [batch, S, d] and reference [batch, nq,
 * coordinates]: points (2) or boxes (4: centre, size), which are multiplied by each level's ratios.
 * out may be query. */
void detr_apply_msda(nn_pass *p, const struct detr_msda *m, const struct detr_levels *lv,
                     const float *query, int64_t nq, const float *reference, int32_t coordinates,
                     const float *memory, float *out);
/* References of the encoder: the middle of each cell in the unpadded picture, [batch, S, 2]. */
float *detr_cell_centres(nn_pass *p, const struct detr_levels *lv);

/* ---- two-stage proposals (two_stage.c) ---- */

/* A box on each cell, [batch, S, 4]: centre of the cell, size 0.05 2^level. logit: their inverse
 * sigmoids, `outside` where a cell is padded or not wholly inside (0.01, 0.99); else the boxes
 * themselves, 0 there. usable [batch, S] (or NULL): 1 where neither. */
float *detr_proposals(nn_pass *p, const struct detr_levels *lv, bool logit, float outside,
                      uint8_t *usable);
/* Zeroes the rows of x [batch S, d] that are not usable. */
void detr_drop_rows(float *x, const uint8_t *usable, int64_t rows, int64_t d);
/* The k cells of each picture with the largest score: logits [batch, S, classes], by the largest of
 * the first `columns` of each cell; ties to the lower cell. [batch, k]; emits the tap
 * topk_index. */
int32_t *detr_top_cells(nn_pass *p, const float *logits, int64_t batch, int64_t cells,
                        int64_t classes, int64_t columns, int64_t k);
/* Rows index [batch, k] of x [batch, cells, d]. */
float *detr_pick_rows(nn_pass *p, const float *x, const int32_t *index, int64_t batch,
                      int64_t cells, int64_t k, int64_t d);

/* ---- small things (blocks.c) ---- */

float detr_sigmoid(float x);
/* log(max(x, eps) / max(1 - x, eps)), x clamped to [0, 1]. */
float detr_inverse_sigmoid(float x, float eps);
/* x + y in new room, [n]. y may be shorter: it repeats every y_n numbers. */
float *detr_sum(nn_pass *p, const float *x, int64_t n, const float *y, int64_t y_n);
/* y repeated for each picture: [n] -> [batch, n]. */
float *detr_repeat(nn_pass *p, const float *y, int64_t n, int64_t batch);
/* A weight's rows as floats, [rows, d]. */
float *detr_rows(nn_pass *p, const viv_weight *w, int64_t rows, int64_t d);
/* A channels-last map as the tap [B, C, H, W]. */
void detr_tap_map(nn_pass *p, const nn_map *map, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An intermediate list of integers, as floats. */
void detr_tap_ints(nn_pass *p, const int32_t *data, int32_t ndim, const int64_t *shape,
                   const char *name);
/* Sine positions of a level, tokens [batch, cells, 2 n]. s: everything but the size. */
float *detr_sine_tokens(nn_pass *p, const struct detr_levels *lv, int32_t level, nn_sine s);

/* q/k/v/out_proj.{weight,bias} under name: transformers' split attention. */
void detr_load_attention(nn_loader *l, const char *name, int64_t d, int32_t heads, nn_mha *mha);
/* x = norm(x + linear2(act(linear1 x))) */
struct detr_ffn {
  nn_linear one, two;
  nn_norm norm;
  int32_t act;
};
void detr_apply_ffn(nn_pass *p, const struct detr_ffn *w, int64_t rows, float *x);
/* x = norm(x + y), rows of d */
void detr_add_norm(nn_pass *p, const nn_norm *norm, const float *y, int64_t rows, float *x);
/* An encoder layer of DETR: queries and keys get the position, values do not. */
struct detr_encoder_layer {
  nn_mha attention;
  nn_norm norm;
  struct detr_ffn ffn;
};
/* Under transformers' names: self_attn.*, self_attn_layer_norm, fc1, fc2, final_layer_norm. */
void detr_load_encoder(nn_loader *l, int64_t d, int32_t heads, int64_t ff, int32_t act,
                       struct detr_encoder_layer *w);
/* fc1, fc2, final_layer_norm. */
void detr_load_ffn(nn_loader *l, int64_t d, int64_t ff, int32_t act, struct detr_ffn *w);
/* linear1SUFFIX, linear2SUFFIX and the norm, as the official repositories name them. */
void detr_load_official_ffn(nn_loader *l, const char *suffix, const char *norm, int64_t d,
                            int64_t ff, int32_t act, struct detr_ffn *w);
/* 1 for each cell that may be seen, as nn_attention's mask; NULL when all may. */
const uint8_t *detr_real_cells(nn_pass *p, const struct detr_levels *lv);
/* x [batch, cells, d]; position likewise; real [batch, cells] 1 where a key may be seen, or
 * NULL. */
void detr_apply_encoder(nn_pass *p, const struct detr_encoder_layer *w, int64_t batch,
                        int64_t cells, const float *position, const uint8_t *real, float *x);

/* ---- pyramids (pyramid.c) ---- */

struct detr_pyramid {
  int32_t maps, levels; /* of the backbone's last maps; and all, the extra ones included */
  nn_conv conv[DETR_MAX_LEVELS];
  nn_norm norm[DETR_MAX_LEVELS];
  const float *embed; /* [levels, d] or NULL: one level */
};
struct detr_scene {
  struct detr_levels lv;
  int64_t cells, d; /* S */
  float *x;         /* [batch, S, d] */
  float *position;  /* [batch, S, d] */
};
/* levels and maps are set: refuses what the norms or the backbone don't allow. */
void detr_check_pyramid(nn_config *k, const struct detr_pyramid *y, int64_t d);
/* PREFIXinput_proj.l.0 and .1, and the level embedding under its full name. */
void detr_load_pyramid(nn_loader *l, const char *prefix, const char *embed, int64_t d,
                       const struct detr_backbone *b, struct detr_pyramid *y);
struct detr_scene detr_apply_pyramid(nn_pass *p, const struct detr_pyramid *y,
                                     const struct detr_backbone *b, nn_sine sine,
                                     const struct detr_batch *batch);

struct detr_deform_layer {
  struct detr_msda attention;
  nn_norm norm;
  struct detr_ffn ffn;
};
/* official: norm1, linear1, linear2, norm2; else transformers' names. */
void detr_load_deform_layer(nn_loader *l, bool official, int64_t d, int64_t ff, int32_t heads,
                            int32_t levels, int32_t points, int32_t act,
                            struct detr_deform_layer *w);
/* s->x through n layers. blank_padding: padded rows of the taps are zeros, which are sines of no
 * meaning in Deformable DETR. */
void detr_apply_deform_encoder(nn_pass *p, const struct detr_deform_layer *layers, int32_t n,
                               bool blank_padding, struct detr_scene *s);

#endif
