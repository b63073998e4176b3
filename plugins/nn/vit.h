/* The plain vision transformer that many families stand on: ViT, DINOv2 (registers, LayerScale,
 * SwiGLU), ViTPose, the windowed encoders of LW-DETR and RF-DETR.
 *
 *   pixels [B, 3, H, W]
 *     |  patches = conv p x p, stride p                        [B, gh gw, d]
 *     |  x = [class token, registers, patches] + positions     [B, extra + gh gw, d]
 *     |  block i, pre-norm:
 *     |    x += scale1 * Wo attention(Wq u, Wk u, Wv u),  u = LN(x)
 *     |    x += scale2 * W2 act(W1 u),                     u = LN(x)     or SwiGLU
 *     |
 *   x [B, extra + gh gw, d]; LN(x) where the family asks for it
 *
 * The families differ in names, in how positions of another size are made, and in what they do
 * between blocks, which therefore stays the caller's loop:
 *
 *   nn_vit_grid g = nn_vit_grid_of(p, vit, height, width);
 *   float *x = nn_vit_embed(p, vit, pixels, batch, height, width);
 *   for (int32_t i = 0; i < vit->config.layers; i++)
 *     nn_vit_block_apply(p, vit, i, batch, nn_vit_extra(vit) + g.height * g.width, x);
 *
 * Windowed attention is the same block over more and shorter sequences: nn_vit_windows lays the
 * tokens of a window side by side, windows of a picture in order, so that a global block takes the
 * same memory as one long sequence per picture. */
#ifndef PLUGINS_NN_VIT_H
#define PLUGINS_NN_VIT_H

#include "nn/lora.h"
#include "nn/modules.h"

enum { NN_VIT_MAX_LAYERS = 256 };

/* Names of a checkpoint, below the prefix at the time of nn_vit_load. NULL: there is no such part. */
typedef struct nn_vit_names {
  const char *patch;     /* the patch convolution; NULL: the family embeds on its own */
  const char *cls;       /* class token [1, 1, d] */
  const char *registers; /* register tokens [1, R, d] */
  const char *positions; /* [1, rows, d] */
  const char *layer;     /* of the blocks: "encoder.layer" of encoder.layer.0.norm1 */
  const char *norm1, *norm2;
  const char *qkv; /* one matrix [3 d, d], or */
  const char *query, *key, *value;
  const char *q_bias, *v_bias; /* of qkv, whose own bias and that of the keys there are not */
  const char *relative;        /* table of relative positions of a block, and */
  const char *shared;          /* the one of all blocks, below the prefix */
  const char *out;
  const char *scale1, *scale2; /* LayerScale's vectors [d] */
  const char *up, *down;       /* the MLP; with SwiGLU up is [2 ff, d], gate first */
  const char *experts;         /* of ViTPose+'s experts: "mlp.experts" */
  const char *norm;            /* the last norm */
} nn_vit_names;

extern const nn_vit_names nn_vit_hf_names;     /* transformers ViT: intermediate.dense */
extern const nn_vit_names nn_vit_dinov2_names; /* transformers DINOv2: norm1, mlp.fc1 */
extern const nn_vit_names nn_vit_swiglu_names; /* the same with mlp.weights_in */
extern const nn_vit_names nn_vit_timm_names;   /* timm and facebookresearch: blocks.N.attn.qkv */
extern const nn_vit_names nn_vit_timm_swiglu_names; /* the same with mlp.w12 */
extern const nn_vit_names nn_vit_beit_names;        /* transformers BEiT */
extern const nn_vit_names nn_vit_cae_names; /* BEiT's own code and CAE: attn.q_bias, gamma_1 */

/* How positions of another grid are made from the table's. */
enum nn_vit_resize {
  NN_VIT_SAME = 0,    /* refused */
  NN_VIT_BICUBIC = 1, /* a = -0.75, align_corners false */
  NN_VIT_BICUBIC_ANTIALIAS = 2,
  NN_VIT_BICUBIC_OFFSET = 3 /* facebookresearch: coordinates by the scale (new + 0.1) / old */
};

typedef struct nn_vit_config {
  int64_t d, ff;
  int32_t layers, heads, act;
  int32_t channels, patch[2], pad; /* of the patch convolution: height, width; zeros around */
  int32_t image[2];                /* the size that grid belongs to */
  int32_t grid[2];                 /* of the position table */
  int32_t registers;               /* how many; they get no position */
  bool cls;                        /* the class token is part of the sequence */
  bool cls_position;               /* row 0 of the table belongs to the class token */
  bool bias, key_bias;             /* of the projections */
  bool swiglu;
  bool unscaled;         /* no LayerScale, although the names have it */
  bool no_positions;     /* no table of absolute positions */
  bool relative, shared; /* BEiT's relative positions: a table in each block, one for all */
  int32_t resize;        /* enum nn_vit_resize */
  int32_t experts, expert_features; /* ViTPose+; 0: none */
  nn_lora lora;                     /* of the MLP's matrices */
  float eps;
  const nn_vit_names *names;
} nn_vit_config;

typedef struct nn_vit_block {
  nn_norm norm1, norm2;
  nn_linear qkv; /* or the next three */
  nn_linear query, key, value;
  nn_linear out, up, down;
  const float *scale1, *scale2; /* [d] or NULL */
  const float *relative;        /* [(2 gh - 1) (2 gw - 1) + 3, heads] or NULL */
  nn_linear *expert;            /* [experts] or NULL */
} nn_vit_block;

typedef struct nn_vit {
  nn_vit_config config;
  nn_conv patch;
  const float *cls;       /* [d] or NULL */
  const float *registers; /* [registers, d] or NULL */
  const float *positions; /* [cls_position + grid, d] or NULL */
  const float *relative;  /* as a block's, for all of them */
  nn_vit_block *block;    /* [layers] */
  nn_norm norm;
} nn_vit;

typedef struct nn_vit_grid {
  int32_t height, width; /* in patches */
} nn_vit_grid;

/* The keys that transformers' vision encoders share: hidden_size, num_hidden_layers, image_size,
 * patch_size (numbers or pairs), mlp_ratio or intermediate_size, ... What is no key (cls, pad,
 * resize, names) is set by the caller, before nn_vit_check. Sizes and eps that are not 0 before the
 * call stand for absent keys, as in a family whose releases leave out its defaults. */
void nn_vit_read(nn_config *k, nn_vit_config *c);
/* The grid from image, patch and pad; a failure is left in k->status. */
void nn_vit_check(nn_config *k, nn_vit_config *c);
/* CAE's official arguments (img_size, embed_dim, depth, init_values, use_rel_pos_bias, ...) and their
 * grid. no_positions: the checkpoint holds no PREFIX + pos_embed. Names are the caller's to set. */
void nn_vit_read_cae(nn_config *k, const viv_model_source *source, const char *prefix,
                     nn_vit_config *c);
/* Memory for the blocks, to be taken after the configuration is read and before the weights are
 * loaded; nn_vit_bytes is what it takes, for the plan. */
int32_t nn_vit_begin(const viv_host *host, viv_arena *arena, nn_vit *vit, viv_error *error);
uint64_t nn_vit_bytes(const nn_vit_config *c);
/* In a tables function; the blocks may be absent in the walks that only check. */
void nn_vit_load(nn_loader *l, nn_vit *vit);

/* Tokens before the patches. */
int64_t nn_vit_extra(const nn_vit *vit);
/* The grid of a picture of that size; too small a picture leaves the task. */
nn_vit_grid nn_vit_grid_of(nn_pass *p, const nn_vit *vit, int64_t height, int64_t width);
/* The patches alone, [batch, gh gw, d]; pixels [batch, channels, height, width]. */
float *nn_vit_patches(nn_pass *p, const nn_vit *vit, const float *pixels, int64_t batch,
                      int64_t height, int64_t width);
/* Positions of a grid's patches [gh gw, d]: the table's own, or resized into room of the pass. */
const float *nn_vit_positions(nn_pass *p, const nn_vit *vit, nn_vit_grid grid);
/* Tokens with positions, [batch, extra + gh gw, d]. */
float *nn_vit_embed(nn_pass *p, const nn_vit *vit, const float *pixels, int64_t batch,
                    int64_t height, int64_t width);

/* x [batch, n, d] = block `layer` of x. */
void nn_vit_block_apply(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                        float *x);
/* The halves of a block, for families that do something between them. expert: [batch] which of
 * ViTPose+'s experts a sequence takes, or NULL. */
void nn_vit_attention(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                      float *x);
void nn_vit_mlp(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                const int32_t *expert, float *x);

/* What relative positions add to the scores of a block, [heads, n, n] over the class token and the
 * grid's patches: the sum of the block's table and of the shared one, resized bilinearly for a grid
 * that is not the model's own. NULL: the model has neither. Official: BEiT, microsoft/unilm and
 * transformers (BeitRelativePositionBias); Bao et al., arXiv:2106.08254. */
const float *nn_vit_relative_bias(nn_pass *p, const nn_vit *vit, int32_t layer, nn_vit_grid grid);
/* The block with such biases; NULL: without. */
void nn_vit_block_biased(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                         const float *bias, float *x);

/* Tokens of a grid [batch, gh gw, d] -> windows [batch side side, gh/side gw/side, d] (row-major over
 * windows and inside them), and back. The grid must be divisible, see nn_vit_grid_of's caller. */
void nn_vit_windows(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                    int64_t d, float *y);
void nn_vit_unwindows(nn_pass *p, const float *x, int64_t batch, nn_vit_grid grid, int32_t side,
                      int64_t d, float *y);

#endif
