/* Modules of PyTorch checkpoints (linear, norm, convolution, attention): loaded by the names under
 * which torch.nn saves them, and called from a pass. What the families share stands on these.
 *
 * Loading happens in a tables function (nn_tables_fn), like the X-macro tables of nn.h:
 *
 *   size_t outer = nn_in(l, "encoder.layers.%d.", i);
 *   nn_load_norm(l, "norm1", d, 1e-5f, &w->norm1);
 *   nn_load_linear(l, "linear1", ff, d, true, &w->linear1);
 *   nn_out(l, outer); */
#ifndef PLUGINS_NN_MODULES_H
#define PLUGINS_NN_MODULES_H

#include "nn/pass.h"

/* ---- loading ---- */

/* Names that follow stand under this prefix too, until nn_out with what nn_in answered. */
size_t nn_in(nn_loader *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nn_out(nn_loader *l, size_t outer);

/* A tensor of exactly that shape as floats; wanted false: *out stays NULL. */
void nn_load_tensor(nn_loader *l, const char *name, bool wanted, int32_t ndim, const int64_t *shape,
                    const float **out);
/* Does the checkpoint hold PREFIX + name? For what official releases save in two forms. */
bool nn_there(const nn_loader *l, const char *name);

/* torch.nn.Linear: name.weight [out, in], name.bias [out]. */
typedef struct nn_linear {
  const viv_weight *w;
  const float *b; /* NULL: none */
  int64_t in, out;
} nn_linear;
void nn_load_linear(nn_loader *l, const char *name, int64_t out, int64_t in, bool bias,
                    nn_linear *linear);
/* Rows [begin, begin + out) of weight [total, in] and bias [total], by their full names; bias NULL:
 * none. For in_proj_weight and the like. */
void nn_load_rows(nn_loader *l, const char *weight, const char *bias, int64_t begin, int64_t out,
                  int64_t total, int64_t in, nn_linear *linear);

/* torch.nn.LayerNorm and GroupNorm: name.weight [d], name.bias [d]. */
typedef struct nn_norm {
  const float *w, *b; /* NULL: none */
  int64_t d;
  float eps;
} nn_norm;
void nn_load_norm(nn_loader *l, const char *name, int64_t d, float eps, nn_norm *norm);
void nn_load_rms_norm(nn_loader *l, const char *name, int64_t d, float eps, nn_norm *norm);

/* torch.nn.Conv1d/2d/3d and ConvTranspose: name.weight, name.bias. Each number holds for all axes
 * unless its list is given (first entry not 0, or list_pad set). */
typedef struct nn_conv_spec {
  int32_t dims; /* 0: 2 */
  int32_t in, out;
  int32_t kernel, stride, dilation, pad; /* stride and dilation 0: 1 */
  int32_t groups;                        /* 0: 1 */
  int32_t kernels[3], strides[3], dilations[3], pads[3];
  bool list_pad;
  int32_t pad_kind; /* enum viv_pad */
  bool bias;
  bool transposed;
  int32_t output_pad;
  /* name.weight_g and name.weight_v (or torch's newer names of the two, or a weight that was folded
   * already): the norm over all axes but norm_axis. */
  bool weight_norm;
  int32_t norm_axis;
  const char
      *norm;      /* a batch norm to fold in: name.weight, .bias, .running_mean, .running_var under
                        the same prefix; NULL: none */
  float norm_eps; /* 0: 1e-5 */
} nn_conv_spec;
typedef struct nn_conv {
  viv_conv_weight *w;
  int32_t dims, in, out;
  int32_t kernel[3], stride[3], dilation[3], pad[3];
  int32_t pad_kind; /* enum viv_pad */
  int32_t output_pad;
  bool transposed;
} nn_conv;
void nn_load_conv(nn_loader *l, const char *name, const nn_conv_spec *spec, nn_conv *conv);

/* ---- in a pass ---- */

/* y [rows, out] = act(W x + b) [+ residual]; act 0: none. The second form takes room for y. */
void nn_linear_to(nn_pass *p, const nn_linear *linear, int32_t act, const float *residual,
                  const float *x, int64_t rows, float *y);
float *nn_apply_linear(nn_pass *p, const nn_linear *linear, int32_t act, const float *x,
                       int64_t rows);
/* LayerNorm of rows; y may be x. */
void nn_layer_norm(nn_pass *p, const nn_norm *norm, const float *x, int64_t rows, float *y);

/* A feature map: batch x channels over 1 to 3 axes. */
typedef struct nn_map {
  float *x;
  int32_t batch, channels;
  int32_t dims;
  int32_t size[3]; /* height, width, 1 in two dimensions */
  int32_t layout;  /* enum viv_layout */
} nn_map;
int64_t nn_space(const nn_map *map); /* product of size */
int64_t nn_elements(const nn_map *map);
/* Room for a map; size [dims]. */
nn_map nn_new_map(nn_pass *p, int32_t batch, int32_t channels, int32_t dims, const int32_t *size,
                  int32_t layout);
/* The result's shape, without its memory. layout -1: that of x. */
nn_map nn_conv_shape(nn_pass *p, const nn_conv *conv, const nn_map *x, int32_t layout);
/* act(conv(x) + residual) into out, which has nn_conv_shape's form; residual NULL: none. An ELU has
 * alpha 1. */
void nn_conv_to(nn_pass *p, const nn_conv *conv, int32_t act, const float *residual,
                const nn_map *x, nn_map *out);
/* The same with room for the result. */
nn_map nn_apply_conv(nn_pass *p, const nn_conv *conv, int32_t act, const nn_map *x);
/* The map in the other layout (itself when it is that already). */
nn_map nn_to_layout(nn_pass *p, const nn_map *x, int32_t layout);
/* The channels of n maps of one size side by side; all are channels-last. */
nn_map nn_join_channels(nn_pass *p, int32_t n, const nn_map *maps);
/* Pooling with a square kernel; kind: enum viv_pool_kind. */
nn_map nn_pool2d(nn_pass *p, int32_t kind, int32_t kernel, int32_t stride, int32_t pad,
                 bool ceil_mode, const nn_map *x);
/* interpolate to a size [dims]; filter: enum viv_filter. */
nn_map nn_resize_map(nn_pass *p, int32_t filter, bool align_corners, const int32_t *size,
                     const nn_map *x);

/* Attention over plain arrays: batch independent sequences of nq queries and nk keys each.
 * out [batch, nq, heads * value_dim]. */
typedef struct nn_attention {
  int64_t batch, nq, nk;
  int32_t heads, kv_heads; /* kv_heads 0: heads */
  int32_t dim, value_dim;  /* value_dim 0: dim */
  const float *q, *k, *v;  /* [batch, nq, heads * dim], [batch, nk, kv_heads * dim], ... */
  int64_t q_stride, k_stride, v_stride; /* of a row, in elements; 0: dense */
  float scale;                          /* 0: dim^-0.5 */
  bool causal;                          /* query i sees keys [0, nk - nq + i] */
  const float *bias;   /* [n_bias, heads, nq, nk], sequence b uses b % n_bias; NULL: none */
  int64_t n_bias;      /* 0: 1 */
  bool bias_per_head;  /* false: [n_bias, nq, nk] */
  const uint8_t *mask; /* [batch, nk], 0: nobody sees this key; NULL: all are seen */
} nn_attention;
void nn_attend(nn_pass *p, const nn_attention *a, float *out);

/* torch.nn.MultiheadAttention and its split forms: projections and heads. */
typedef struct nn_mha {
  nn_linear q, k, v, o;
  int32_t heads;
} nn_mha;
/* in_proj_weight [3d, d], in_proj_bias, out_proj under name. */
void nn_load_mha(nn_loader *l, const char *name, int64_t d, int32_t heads, nn_mha *mha);
/* o(attention(q(query), k(key), v(value))) for batch sequences; mask and bias as nn_attention. */
void nn_apply_mha(nn_pass *p, const nn_mha *mha, int64_t batch, const float *query, int64_t nq,
                  const float *key, const float *value, int64_t nk, const float *bias,
                  const uint8_t *mask, float *y);

/* MLP of n linear layers name.layers.0 .. with an activation between. */
enum { NN_MLP_MAX = 8 };
typedef struct nn_mlp {
  nn_linear layer[NN_MLP_MAX];
  int32_t n, act;
} nn_mlp;
void nn_load_mlp(nn_loader *l, const char *name, int64_t in, int64_t hidden, int64_t out, int32_t n,
                 int32_t act, nn_mlp *mlp);
float *nn_apply_mlp(nn_pass *p, const nn_mlp *mlp, const float *x, int64_t rows);

#endif
