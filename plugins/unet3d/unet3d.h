/* U-Nets over volumes, as MONAI names them: DynUNet, BasicUNet, VNet, UNETR, SwinUNETR.
 *
 *   pixel_values [B, C, D, H, W] -> encoder, skips, decoder -> logits [B, classes, D, H, W]
 *
 * A family is one file; blocks that they share stand in parts.c, the window that slides over a whole
 * volume in window.c. Maps are channels-last inside. Heads of dual self-distillation (deep_*) serve
 * training alone and are not read. Official: Project-MONAI/MONAI, monai/networks/nets; dual
 * self-distillation: soumbane/DualSelfDistillation. */
#ifndef PLUGINS_UNET3D_H
#define PLUGINS_UNET3D_H

#include "nn/modules.h"
#include "nn/vit.h"

enum { U3_LEVELS = 8, U3_SWIN_BLOCKS = 48, U3_SIDE_MAX = 1 << 12 };

/* ---- parts.c ---- */

enum u3_norm_kind { U3_NO_NORM = 0, U3_INSTANCE = 1, U3_BATCH = 2, U3_GROUP = 3 };

/* How a network's blocks are normed and bent. */
struct u3_style {
  int32_t norm; /* enum u3_norm_kind; a batch norm is folded into its convolution */
  bool affine;
  int32_t groups;
  float eps;
  int32_t act; /* enum viv_unary */
  float act_param;
};

/* A convolution and its norm. */
struct u3_unit {
  nn_conv conv;
  nn_norm norm;
};

/* UnetBasicBlock: two units; UnetResBlock: the input is added before the last activation, through a
 * third unit where shapes differ. */
struct u3_block {
  struct u3_unit unit[3];
  bool residual, third;
};

/* norm_name and act_name: a name, or [name, {arguments}]. A failure is left in k->status. */
void u3_read_norm(nn_config *k, const char *key, struct u3_style *style);
void u3_read_act(nn_config *k, const char *key, struct u3_style *style);
/* A number for all axes, or three; absent: fallback. */
void u3_triple(nn_config *k, const char *key, int32_t fallback, int32_t out[3]);

void u3_load_unit(nn_loader *l, const struct u3_style *style, const char *conv, const char *norm,
                  nn_conv_spec spec, struct u3_unit *unit);
/* conv1, norm1, conv2, norm2 (conv3, norm3) under the prefix. kernel and stride [3]. */
void u3_load_block(nn_loader *l, const struct u3_style *style, const char *prefix, int32_t in,
                   int32_t out, const int32_t kernel[3], const int32_t stride[3], bool residual,
                   struct u3_block *block);
/* A transposed convolution whose kernel is its stride. */
void u3_load_up(nn_loader *l, const char *name, int32_t in, int32_t out, const int32_t kernel[3],
                bool bias, nn_conv *conv);
void u3_load_point(nn_loader *l, const char *name, int32_t in, int32_t out, bool bias,
                   nn_conv *conv);

void u3_act(nn_pass *p, const struct u3_style *style, nn_map *x); /* in place */
/* act false: without the activation */
nn_map u3_apply_unit(nn_pass *p, const struct u3_style *style, const struct u3_unit *unit, bool act,
                     const nn_map *x);
nn_map u3_apply_block(nn_pass *p, const struct u3_style *style, const struct u3_block *block,
                      const nn_map *x);
/* [a, b] */
nn_map u3_join(nn_pass *p, const nn_map *a, const nn_map *b);
/* The map as official code has it, under a name with a number (-1: none). */
void u3_tap(nn_pass *p, const nn_map *x, const char *name, int32_t number);

/* ---- families ---- */

struct u3_model;

struct u3_family {
  const char *architecture;
  void (*config)(nn_config *k, struct u3_model *m);
  nn_tables_fn tables;
  /* [B, classes, size], channels last, of a channels-last map. */
  nn_map (*network)(nn_pass *p, const struct u3_model *m, const nn_map *x);
};

extern const struct u3_family u3_dynunet, u3_basicunet, u3_vnet, u3_unetr, u3_swinunetr;

struct u3_dynunet {
  int32_t n, kernel[U3_LEVELS][3], stride[U3_LEVELS][3], up[U3_LEVELS][3], filters[U3_LEVELS];
  bool res_block, trans_bias;
  struct u3_block down[U3_LEVELS]; /* input_block, downsamples, bottleneck */
  nn_conv transposed[U3_LEVELS];   /* 0: the deepest */
  struct u3_block decode[U3_LEVELS];
};

struct u3_basicunet {
  int32_t features[6];
  bool bias, interpolate;
  struct u3_unit down[5][2]; /* conv_0, down_1 .. down_4 */
  nn_conv up[4];             /* 0: upcat_4; w NULL: nothing before the interpolation */
  struct u3_unit decode[4][2];
};

enum { U3_VNET_STEPS = 4, U3_VNET_UNITS = 3 };
struct u3_vnet_step {
  struct u3_unit move; /* down_conv or up_conv with bn1 */
  struct u3_unit unit[U3_VNET_UNITS];
};
struct u3_vnet {
  int32_t base, steps; /* channels of the input's transition; levels below it */
  bool bias;
  struct u3_unit in, out;
  struct u3_vnet_step down[U3_VNET_STEPS], up[U3_VNET_STEPS]; /* by level, 0: the uppermost */
  nn_conv last;
};

/* UnetrPrUpBlock: a transposed convolution, then as many times another with a block. */
struct u3_rise {
  nn_conv first, up[2];
  struct u3_block block[2];
};
struct u3_unetr {
  int32_t feature, image[3], patch[3];
  bool res_block, conv_block, perceptron;
  nn_vit vit; /* its blocks and last norm */
  nn_vit_block room[12];
  nn_linear embed;
  nn_conv embed_conv;
  const float *positions; /* [cells, hidden] */
  struct u3_block encode;
  struct u3_rise rise[3]; /* encoder2 .. encoder4 */
  nn_conv up[4];          /* decoder5 .. decoder2 */
  struct u3_block decode[4];
};

struct u3_swin_block {
  nn_norm norm1, norm2;
  nn_linear qkv, proj, up, down;
  const float *table; /* [(2 w0 - 1)(2 w1 - 1)(2 w2 - 1), heads] */
};
struct u3_swinunetr {
  int32_t feature, depths[4], heads[4], window[3], merging; /* enum nn_merge_order */
  double mlp_ratio;
  bool qkv_bias, normalize, v2;
  nn_conv embed;
  struct u3_swin_block block[U3_SWIN_BLOCKS]; /* stage after stage */
  struct u3_block before[4];                  /* of v2 */
  nn_norm merge_norm[4];
  nn_linear merge[4];
  struct u3_block encode[5]; /* encoder1 .. encoder4, encoder10 */
  nn_conv up[5];             /* decoder5 .. decoder1 */
  struct u3_block decode[5];
};

/* How a person's volume is prepared. */
enum u3_intensity { U3_AS_IS = 0, U3_CT = 1, U3_MR = 2 };
struct u3_prepare {
  int32_t kind; /* enum u3_intensity */
  double a_min, a_max, b_min, b_max, clip_min;
  bool clip, nonzero, channel_wise;
};

struct u3_model {
  nn_net net;
  const struct u3_family *family;
  int32_t in_channels, classes;
  int32_t roi[3];  /* the window that slides over larger volumes */
  int32_t step[3]; /* of which the sides of what the network takes must be multiples */
  struct u3_style style;
  struct u3_prepare prepare;
  nn_conv out; /* the last 1x1x1 */
  union {
    struct u3_dynunet dynunet;
    struct u3_basicunet basicunet;
    struct u3_vnet vnet;
    struct u3_unetr unetr;
    struct u3_swinunetr swinunetr;
  } as;
  char about[384];
};

/* Logits of a channels-first batch into out, channels-last. */
nn_map u3_network(nn_pass *p, const struct u3_model *m, const float *x, int64_t batch,
                  const int32_t size[3]);

/* ---- window.c, tasks.c ---- */

/* Logits [classes, size] of one volume x [C, size], by windows as the request says. */
float *u3_slide(nn_pass *p, const struct u3_model *m, const float *x, const int32_t size[3]);

extern const nn_task u3_tasks[];

#endif
