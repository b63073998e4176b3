/* SAM, MobileSAM and ESP-MedSAM: what a click or a box on a picture means.
 *
 *   picture -> longest side to S, zeros to S x S -> pixel_values [B, 3, S, S]
 *     -> encoder: vision transformer (encoder.c) or TinyViT (tiny_vit.c), neck
 *        -> image_embeddings [B, C, g, g]                               kept in a session
 *   prompts (points, boxes, a mask) -> sparse [P, n, C], dense [P, C, g, g]   (prompt.c)
 *   [iou token, mask tokens, sparse] x (embedding + dense) -> two-way transformer
 *     -> masks [P, T, 4g, 4g], their predicted IoU [P, T]                     (decoder.c)
 *   -> bilinear to S x S, cropped, bilinear to the picture's size             (picture.c)
 *
 * ESP-MedSAM prompts itself: a head on the embedding gives the dense prompt, and a query per kind of
 * picture takes the place of the mask tokens (medical.c).
 *
 * Kirillov et al., Segment Anything, arXiv:2304.02643. Official: facebookresearch/segment-anything;
 * transformers' SamModel; ChaoningZhang/MobileSAM; xq141839/ESP-MedSAM. */
#ifndef PLUGINS_SAM_H
#define PLUGINS_SAM_H

#include "nn/modules.h"
#include "nn/picture.h"
#include "nn/vit.h"

enum {
  SAM_MAX_DEPTH = 8, /* layers of the two-way transformer */
  SAM_MAX_MASKS = 8, /* mask tokens */
  SAM_STAGES = 4,
  SAM_MAX_BLOCKS = 32, /* of all stages of TinyViT */
  SAM_DOMAINS_MAX = 64,
  SAM_AT_ONCE = 8 /* prompts in one pass of the decoder: bounds its memory */
};

enum sam_encoder { SAM_VIT, SAM_TINY };

/* ---- encoders ---- */

struct sam_neck {
  nn_conv conv[2];
  nn_norm norm[2];
};

/* A block's tables of relative positions, [2 side - 1, d / heads]. */
struct sam_relative {
  const float *h, *w;
};

struct sam_vit {
  nn_vit net;
  const float *positions; /* [g, g, d] */
  int32_t window;         /* 0: none */
  bool global[NN_VIT_MAX_LAYERS];
  bool relative; /* positions in the attention */
  struct sam_relative table[NN_VIT_MAX_LAYERS];
};

/* A block of TinyViT; in stage 0 only the convolutions of an MBConv. */
struct sam_tiny_mlp {
  nn_norm norm;
  nn_linear up, down;
};
struct sam_tiny_block {
  nn_conv conv[3];
  nn_norm norm;
  nn_linear qkv, proj;
  const float *biases; /* [heads, window window] */
  const float *extra;  /* ESP-MedSAM's learned key and value [heads, d / heads], or NULL */
  const float *extra_bias;
  nn_conv local;
  struct sam_tiny_mlp mlp, adapter; /* adapter: ESP-MedSAM's */
};
struct sam_tiny {
  int32_t dims[SAM_STAGES], depths[SAM_STAGES], heads[SAM_STAGES], windows[SAM_STAGES];
  int32_t mlp[SAM_STAGES], expand; /* hidden widths, channels inside an MBConv */
  nn_conv patch[2], down[SAM_STAGES - 1][3];
  struct sam_tiny_block block[SAM_MAX_BLOCKS];
};

/* ---- prompts and decoder ---- */

struct sam_two_way {
  nn_mha self, to_image, to_tokens;
  nn_norm norm[4];
  nn_linear up, down;
};

struct sam_decoder {
  const float *iou_token;   /* [C] */
  const float *mask_tokens; /* [T, C] */
  struct sam_two_way layer[SAM_MAX_DEPTH];
  nn_mha last;
  nn_norm last_norm, upscale_norm;
  nn_conv upscale[2];
  nn_mlp hyper[SAM_MAX_MASKS], iou;
};

struct sam_prompt_weights {
  const float *gaussian; /* [2, C/2] */
  const float *point[4]; /* background, foreground, a box's corners: [C] */
  const float *not_a_point, *no_mask;
  nn_conv mask[3];
  nn_norm mask_norm[2];
};

struct sam_medical {
  nn_conv patch[2], prompter;
  nn_norm patch_norm, prompter_norm;
  const float *queries; /* [domains + 1, C] */
  int32_t domains, hidden;
};

/* ---- pictures ---- */

struct sam_rules {
  double factor;
  float mean[3], std[3];
  int32_t filter; /* enum viv_filter */
  int32_t side;   /* of the longest edge after resizing */
  bool square;    /* ESP-MedSAM: OpenCV's resize of both sides, in floats */
};

/* A picture's size, and the part of the network's square that it fills. */
struct sam_size {
  int32_t height, width, new_height, new_width;
};

struct sam_model {
  nn_net net;
  bool transformers; /* names of the checkpoint */
  bool weightless;   /* preprocessing alone */
  bool medical_form; /* ESP-MedSAM */
  int32_t encoder;   /* enum sam_encoder */
  int32_t side, grid, width, mask_channels, masks, depth, ff, heads, iou_depth, iou_hidden;
  float decoder_eps, prompt_eps;
  int32_t decoder_act, prompt_act;
  struct sam_rules rules;
  struct sam_vit vit;
  struct sam_tiny tiny;
  struct sam_neck neck;
  struct sam_prompt_weights prompt;
  struct sam_decoder decoder;
  struct sam_medical medical;
  float *positions; /* [g g, C] of the dense grid */
  char about[320];
};

/* What prompts are asked about: embeddings of a job's pictures. */
struct sam_view {
  int64_t n;
  float *embedding;       /* [n, g g, C]; of ESP-MedSAM with the dense prompt added */
  struct sam_size *sizes; /* [n] */
};

/* What a session keeps. The arena gives nothing back, so a larger batch takes new room. */
struct sam_session {
  const viv_host *host;
  viv_arena *arena;
  int64_t capacity; /* pictures */
  bool full;
  uint64_t hash[2]; /* of the pictures' sizes and pixels */
  struct sam_view view;
};

/* ---- plugin.c ---- */
extern const nn_task sam_tasks[];
extern const nn_task sam_medical_tasks[];
extern const nn_task sam_picture_tasks[]; /* of a folder without weights */

/* ---- encoder.c ---- */
void sam_vit_config(nn_config *k, const viv_model_source *source, struct sam_model *m);
void sam_vit_load(nn_loader *l, struct sam_model *m);
/* pixels [n, 3, S, S] -> [n, g g, C] */
float *sam_encode(nn_pass *p, const struct sam_model *m, const float *pixels, int64_t n);

/* Rows [batch, from, from, d] in the corner of y [batch, to, to, d], zeros around them; or, when `to` is
 * the smaller, what stands in that corner. */
void sam_lay(const float *x, int64_t batch, int64_t from, int64_t to, int64_t d, float *y);

/* ---- tiny_vit.c ---- */
void sam_tiny_config(nn_config *k, struct sam_model *m);
void sam_tiny_load(nn_loader *l, struct sam_model *m);
/* The last stage's map, channels last. */
nn_map sam_tiny_apply(nn_pass *p, const struct sam_model *m, const float *pixels, int64_t n);

/* ---- prompt.c ---- */

/* Prompts in the frame of the resized picture. */
struct sam_prompts {
  int64_t n, points;
  const float *coords;   /* [n, points, 2] */
  const int64_t *labels; /* [n, points] */
  const float *boxes;    /* [n, 4] or NULL */
  const float *mask;     /* [n_masks, 4g, 4g] or NULL; prompt i uses i % n_masks */
  int64_t n_masks;
};
void sam_prompt_load(nn_loader *l, struct sam_model *m);
/* Codes of the dense grid's cells, [g g, C]. */
void sam_dense_positions(const struct sam_model *m, float *out);
/* Tokens of the prompts, [n, *count, C]. */
float *sam_sparse(nn_pass *p, const struct sam_model *m, const struct sam_prompts *in,
                  int64_t *count);
/* [n_masks or 1, g g, C]; *n: how many. Without a mask one row that stands for all cells is laid out
 * over them. */
float *sam_dense(nn_pass *p, const struct sam_model *m, const struct sam_prompts *in, int64_t *n);

/* ---- decoder.c ---- */

void sam_decoder_load(nn_loader *l, struct sam_model *m, int32_t hypernetworks, bool iou);
/* The transformer and the upscaling: queries [n, tokens, C] and keys [n, g g, C] are changed to the
 * layers' last outputs; answers the upscaled keys [n, 4g 4g, C/8]. lead: the axes that n stands for
 * in taps. */
struct sam_lead {
  int32_t ndim;
  int64_t shape[2];
};
float *sam_two_way_apply(nn_pass *p, const struct sam_model *m, struct sam_lead lead, int64_t n,
                         int64_t tokens, float *queries, float *keys);
struct sam_answer {
  int64_t n, outputs;
  float *logits; /* [n, outputs, 4g, 4g] */
  float *iou;    /* [n, outputs] */
};
/* Prompt i is about embedding i / (in->n / view->n). */
struct sam_answer sam_decode(nn_pass *p, const struct sam_model *m, const struct sam_view *view,
                             const struct sam_prompts *in, struct sam_lead lead, bool multimask);

/* ---- picture.c ---- */

/* Numbers of config.json and preprocessor_config.json, and of a request's parameters over them. */
void sam_read_rules(nn_config *k, const viv_model_source *source, struct sam_model *m);
struct sam_rules sam_request_rules(nn_pass *p, const struct sam_model *m);
nn_pixels sam_picture_at(nn_pass *p, int32_t at);
/* A part of it, box x0 y0 x1 y1. */
nn_pixels sam_cut(nn_pass *p, nn_pixels from, const int64_t box[4]);
struct sam_size sam_size_of(const struct sam_rules *r, const struct sam_model *m, int32_t height,
                            int32_t width);
/* [3, S, S]; *resized [new_height, new_width, 3] bytes when that is not NULL. */
void sam_prepare(nn_pass *p, const struct sam_rules *r, const struct sam_model *m, nn_pixels from,
                 float *pixels, const uint8_t **resized);
/* Logits [n, 4g, 4g] at the picture's size, [n, height, width]. */
float *sam_full_size(nn_pass *p, const struct sam_model *m, const struct sam_size *size,
                     const float *logits, int64_t n);

/* ---- view.c ---- */

/* The pictures of the request encoded, or what the session keeps of them; without pictures, what the
 * session keeps. again: encode them even if the session knows them. */
struct sam_view sam_view_of(nn_pass *p, bool again);
/* One picture, encoded for this job alone. */
struct sam_view sam_view_one(nn_pass *p, const struct sam_rules *r, nn_pixels from);
int32_t sam_session_open(viv_plugin_model *model, viv_arena *arena, viv_plugin_session **out,
                         viv_error *error);
void sam_session_close(viv_plugin_session *session);

/* ---- medical.c ---- */
void sam_medical_config(nn_config *k, struct sam_model *m);
void sam_medical_load(nn_loader *l, struct sam_model *m);
/* embedding [n, g g, C] += the dense prompt; hands over patch_map. */
void sam_medical_prompt(nn_pass *p, const struct sam_model *m, float *embedding, int64_t n);
int32_t sam_medical_segment(nn_pass *p);

/* ---- everything.c ---- */
int32_t sam_everything(nn_pass *p);
/* The same for a person: masks.0, scores.0, boxes.0. */
void sam_show_everything(nn_pass *p);

#endif
