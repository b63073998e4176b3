/* viv.compute/1: the host's kernels, asked for with get_extension(VIV_COMPUTE_ID).
 *
 * Hot loops live here once, for all plugins: they run on the host's thread pool, choose the
 * processor's best code at run time, and have a portable reference that the others are tested
 * against. Kernels don't fail: the plugin has checked its shapes when it opened the model. All
 * arrays are dense and row-major unless a stride is given; strides count elements.
 *
 * STRICT: the result of a row (or a query row, or a sequence) is the same to the bit whatever other
 * rows share the call, however many threads run. Functions are STRICT unless they say otherwise. */
#ifndef VIVARIUM_COMPUTE_H
#define VIVARIUM_COMPUTE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_COMPUTE_ID "viv.compute/1"

typedef struct viv_compute viv_compute;
typedef struct viv_weight viv_weight; /* a prepared matrix; lives in the arena it was made in */
typedef struct viv_conv_weight viv_conv_weight; /* a prepared convolution, likewise */

enum viv_unary {
  VIV_SILU = 1,
  VIV_GELU = 2, /* exact, with erf */
  VIV_GELU_TANH = 3,
  VIV_RELU = 4,
  VIV_SIGMOID = 5,
  VIV_TANH = 6,
  VIV_SOFTPLUS = 7, /* x for x > 20 */
  VIV_EXP = 8,
  VIV_LEAKY_RELU = 9,   /* x < 0: p x */
  VIV_ELU = 10,         /* x < 0: p (e^x - 1) */
  VIV_HARDSWISH = 11,   /* x clamp(x + 3, 0, 6) / 6 */
  VIV_HARDSIGMOID = 12, /* clamp(x + 3, 0, 6) / 6 */
  VIV_MISH = 13,        /* x tanh(softplus(x)) */
  VIV_RELU6 = 14,
  VIV_QUICK_GELU = 15, /* x sigmoid(1.702 x) */
  VIV_SQUARED_RELU = 16,
  VIV_LOG = 17,
  VIV_SQRT = 18
};

/* How elements of [batch, channels, space...] lie in memory. */
enum viv_layout {
  VIV_CHANNELS_FIRST = 0, /* [batch, channels, space...], as PyTorch */
  VIV_CHANNELS_LAST = 1   /* [batch, space..., channels]: tokens of a picture are this */
};

enum viv_pad {
  VIV_PAD_ZEROS = 0,
  VIV_PAD_REFLECT = 1,
  VIV_PAD_REPLICATE = 2,
  VIV_PAD_CIRCULAR = 3
};

/* Keys and values of one layer of one sequence, in pages of page_tokens tokens each: token t lies in
 * page t / page_tokens at row t % page_tokens. A page whose tokens are all out of every window may
 * be NULL. A plain array is one page. With VIV_I8 each head's slice of a row is its int8 values and
 * then their scale as f32 (at any alignment), dim + 4 elements; widths and offsets count that, and
 * store of VIV_I8 writes one such slice from n floats. */
typedef struct viv_kv {
  const void *const *k; /* [pages] -> [page_tokens, k_width] */
  const void *const *v; /* [pages] -> [page_tokens, v_width] */
} viv_kv;

/* Attention of rows over paged keys and values: for row r and head h
 *   out[r,h] = sum_s softmax_s( scale * q[r,h] . k[s, k_offset[h] ..] ) v[s, v_offset[h] ..]
 * over the keys s < visible[r], s >= visible[r] - window when window > 0, and, when mask is given,
 * for keys s >= mask_begin[r] only where bit s - mask_begin[r] of the row's mask is set: bit i is
 * bit i % 8, the lowest first, of byte mask[r * mask_stride + i / 8]. A row that sees nothing gives
 * zeros. */
typedef struct viv_attention {
  uint32_t struct_size;
  int32_t kv_dtype; /* VIV_F32, VIV_F16, VIV_BF16; VIV_I8: see viv_kv */
  int32_t rows;
  int32_t heads;
  int32_t head_dim;  /* of q and k */
  int32_t value_dim; /* of v and out; 0: head_dim */
  int32_t kv_heads;  /* used when the offsets are NULL: head h reads kv head h/(heads/kv_heads) */
  int32_t page_tokens;
  int32_t k_width; /* elements of one token's row in a page */
  int32_t v_width;
  const int32_t *k_offset; /* [heads] or NULL */
  const int32_t *v_offset; /* [heads] or NULL */
  float scale;
  float softcap;             /* > 0: scores become softcap * tanh(score / softcap) */
  int64_t window;            /* 0: none, else this many keys including the row's own position */
  const float *q;            /* [rows, heads, head_dim], row stride q_stride */
  int64_t q_stride;          /* 0: heads * head_dim */
  float *out;                /* [rows, heads, value_dim], row stride out_stride */
  int64_t out_stride;        /* 0: heads * value_dim */
  const viv_kv *const *kv;   /* [rows] */
  const int64_t *visible;    /* [rows] keys [0, visible) may be seen */
  const uint8_t *mask;       /* bits; NULL: none */
  int64_t mask_stride;       /* bytes from a row's mask to the next one's */
  const int64_t *mask_begin; /* [rows] with mask */
  /* Added to the scaled scores before the softcap and the mask; NULL: none. Element of row r, head h
   * and key s: bias[r * bias_row_stride + h * bias_head_stride + s]; a stride of 0 shares it. */
  const float *bias;
  int64_t bias_row_stride;
  int64_t bias_head_stride;
} viv_attention;

/* Causal depthwise convolution over the rows of one sequence. out must not be x. */
typedef struct viv_causal_conv {
  uint32_t struct_size;
  int32_t silu; /* 1: apply silu to the result */
  int64_t rows;
  int32_t channels;
  int32_t taps;        /* K, 2 or more */
  const float *x;      /* [rows, channels], row stride x_stride */
  int64_t x_stride;    /* 0: channels */
  const float *weight; /* [channels, K]; index K-1 multiplies the current row */
  const float *bias;   /* [channels] or NULL */
  float *tail;         /* [channels, K-1], the rows before this call, oldest first; updated */
  float *out;          /* [rows, channels] */
} viv_causal_conv;

/* Selective scan (Mamba-1) over the rows of one sequence, in row order:
 *   S[c,n] = exp(delta[t,c] A[c,n]) S[c,n] + delta[t,c] B[t,n] u[t,c]
 *   y[t,c] = sum_n S[c,n] C[t,n] + D[c] u[t,c] */
typedef struct viv_scan {
  uint32_t struct_size;
  int32_t channels;
  int32_t states; /* N */
  int32_t reserved;
  int64_t rows;
  const float *u;     /* [rows, channels] */
  const float *delta; /* [rows, channels], after softplus */
  const float *a;     /* [channels, N], = -exp(A_log) */
  const float *b;     /* [rows, N], row stride bc_stride */
  const float *c;     /* [rows, N], row stride bc_stride */
  int64_t bc_stride;
  const float *d;    /* [channels] or NULL */
  float *state;      /* [channels, N]; updated */
  float *states_out; /* [rows, channels, N] state after each row, or NULL */
  float *y;          /* [rows, channels]; may be u */
  int64_t u_stride;  /* of u and delta; 0: channels */
} viv_scan;

/* A convolution over 1 to 3 axes of space, prepared once from its weights: packed and, where it wins,
 * transformed for the algorithm that fits. Unused axes stand last with kernel 1. Not STRICT.
 * Official: torch.nn.Conv1d/2d/3d, ConvTranspose1d/2d/3d. */
typedef struct viv_conv_desc {
  uint32_t struct_size;
  int32_t dims; /* 1 to 3 */
  int32_t groups;
  int32_t transposed;
  int32_t in_channels, out_channels;
  int32_t kernel[3], stride[3], dilation[3];
  int32_t reserved;
  /* [out, in/groups, kernel...]; transposed [in, out/groups, kernel...]. Any float dtype. */
  const viv_tensor *weight;
  const float *scale; /* [out] multiplies the weights of an output: a folded norm; or NULL */
  const float *bias;  /* [out] or NULL, as it is added */
} viv_conv_desc;

/* One pass. Without transposed: out = floor((in + begin + end - dilation (kernel - 1) - 1) / stride)
 * + 1; with it: out = (in - 1) stride - begin - end + dilation (kernel - 1) + output_pad + 1, and pad
 * is zeros. Pads that reflect or wrap may be larger than the input: the pattern goes on. The result is
 * act(conv + bias + residual). x is not out. A 3x3 kernel may be computed by a transform (Winograd),
 * whose error is a few times that of the plain sum. */
typedef struct viv_conv {
  uint32_t struct_size;
  int32_t batch;
  const viv_conv_weight *weight;
  int32_t size[3]; /* of x */
  int32_t pad_begin[3], pad_end[3];
  int32_t output_pad[3];        /* transposed only */
  int32_t pad;                  /* enum viv_pad */
  int32_t x_layout, out_layout; /* enum viv_layout */
  int32_t act;                  /* 0 or an enum viv_unary */
  float act_param;
  int32_t reserved;
  const float *x;
  const float *residual; /* as out, added before act; NULL: none; may be out */
  float *out;
  float *scratch; /* conv_scratch(args) floats */
} viv_conv;

/* Pooling over 1 to 3 axes. Official: torch.nn.MaxPool, AvgPool. Channels count in batch for
 * channels-first data (channels 1); channels-last data has channels > 1. */
enum viv_pool_kind { VIV_POOL_MAX = 1, VIV_POOL_AVERAGE = 2 };
typedef struct viv_pool {
  uint32_t struct_size;
  int32_t kind; /* enum viv_pool_kind */
  int32_t dims;
  int32_t channels;
  int64_t batch;
  int32_t size[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
  int32_t ceil_mode;
  int32_t count_pad; /* average: divide by the whole kernel, padding included */
  const float *x;    /* [batch, space..., channels] */
  float *out;
} viv_pool;

/* Resampling of float maps. Official: torch.nn.functional.interpolate, 1 to 3 axes (nearest and
 * linear), 2 for cubic and antialias. */
enum viv_filter {
  VIV_NEAREST = 1,
  VIV_NEAREST_EXACT = 2,
  VIV_LINEAR = 3,
  VIV_CUBIC = 4, /* a = -0.75; with antialias -0.5 */
  VIV_AREA = 5,
  VIV_LANCZOS = 6, /* resize_u8 only */
  VIV_BOX = 7,     /* resize_u8 only */
  VIV_HAMMING = 8  /* resize_u8 only */
};
typedef struct viv_resize {
  uint32_t struct_size;
  int32_t filter; /* enum viv_filter */
  int32_t dims;
  int32_t channels; /* 1 for channels-first planes, which count in batch */
  int64_t batch;
  int32_t size[3], out_size[3];
  double scale[3]; /* > 0: the scale_factor that official code uses for coordinates; 0: by sizes */
  int32_t align_corners;
  int32_t antialias;
  const float *x; /* [batch, size..., channels] */
  float *out;     /* [batch, out_size..., channels] */
} viv_resize;

/* Resampling of 8-bit pictures, equal to the byte to the official pipelines: Pillow's resize (the
 * antialias of each filter, 22-bit fixed point, horizontal pass first), torchvision's tensor resize
 * with antialias (int16 weights; or through float) and OpenCV's INTER_LINEAR. */
enum viv_resize_form {
  VIV_RESIZE_PILLOW = 1,
  VIV_RESIZE_TORCH_INT16 = 2,
  VIV_RESIZE_TORCH_FLOAT = 3,
  VIV_RESIZE_OPENCV = 4
};
typedef struct viv_resize_u8 {
  uint32_t struct_size;
  int32_t form;   /* enum viv_resize_form */
  int32_t filter; /* enum viv_filter */
  int32_t height, width, channels;
  int32_t out_height, out_width;
  double box[4];    /* left, top, right, bottom of the source part; all 0: the whole */
  const uint8_t *x; /* [height, width, channels] */
  uint8_t *out;     /* [out_height, out_width, channels] */
  void *scratch;    /* resize_u8_scratch(args) bytes */
} viv_resize_u8;

/* Official: torch.nn.functional.grid_sample, 2-D; cubic has a = -0.75. */
enum viv_border { VIV_BORDER_ZEROS = 0, VIV_BORDER_EDGE = 1, VIV_BORDER_REFLECT = 2 };
typedef struct viv_grid_sample {
  uint32_t struct_size;
  int32_t filter; /* VIV_NEAREST, VIV_LINEAR, VIV_CUBIC */
  int32_t border; /* enum viv_border */
  int32_t align_corners;
  int32_t batch, channels, height, width, out_height, out_width;
  int32_t layout; /* enum viv_layout of x and out */
  int32_t reserved;
  const float *x;
  const float *grid; /* [batch, out_height, out_width, 2]: x, y in [-1, 1] */
  float *out;
} viv_grid_sample;

/* Multi-scale deformable attention, the core: for each query and head the weighted sum of bilinear
 * samples (zeros outside, align_corners false) of that head's part of the value maps. Official:
 * ms_deform_attn_core of Deformable DETR. */
typedef struct viv_deform {
  uint32_t struct_size;
  int32_t batch, queries, heads, head_dim, levels, points;
  int32_t reserved;
  const int32_t *shapes;  /* [levels, 2]: height, width */
  int64_t values;         /* S, the sum over levels of height times width */
  const float *value;     /* [batch, S, heads, head_dim] */
  const float *locations; /* [batch, queries, heads, levels, points, 2]: x, y in [0, 1] */
  const float *weights;   /* [batch, queries, heads, levels, points] */
  float *out;             /* [batch, queries, heads, head_dim] */
} viv_deform;

/* Official: torchvision.ops.roi_align. */
typedef struct viv_roi_align {
  uint32_t struct_size;
  int32_t channels, height, width, out_height, out_width;
  int32_t sampling_ratio; /* 0: adaptive */
  int32_t aligned;
  float spatial_scale;
  int32_t reserved;
  int64_t boxes;
  const float *x;   /* [batch, channels, height, width] */
  const float *box; /* [boxes, 5]: picture of the batch, x1, y1, x2, y2 */
  float *out;       /* [boxes, channels, out_height, out_width] */
} viv_roi_align;

/* One direction of one layer of a recurrent network, gates in PyTorch's order: LSTM i, f, g, o; GRU
 * r, z, n. Row r of step t stands at t * step_stride + r * row_stride. STRICT. */
enum viv_rnn_kind { VIV_LSTM = 1, VIV_GRU = 2 };
typedef struct viv_rnn {
  uint32_t struct_size;
  int32_t kind; /* enum viv_rnn_kind */
  int32_t input, hidden;
  int32_t rows; /* sequences */
  int32_t reverse;
  int64_t steps;
  const viv_weight *w_input;       /* [gates * hidden, input] */
  const viv_weight *w_hidden;      /* [gates * hidden, hidden] */
  const float *b_input, *b_hidden; /* [gates * hidden] or NULL */
  const float *x;                  /* strides in elements */
  int64_t x_step_stride, x_row_stride;
  float *h, *c; /* [rows, hidden]; updated; c is NULL for GRU */
  float *y;     /* every step's h, or NULL */
  int64_t y_step_stride, y_row_stride;
  float *scratch; /* rnn_scratch(args) floats */
} viv_rnn;

/* Short-time Fourier transform of real rows. Official: torch.stft with center false (pad before) and
 * return_complex; frame f starts at sample f * hop. */
typedef struct viv_stft {
  uint32_t struct_size;
  int32_t n_fft; /* any length */
  int32_t hop;
  int32_t reserved;
  int64_t rows, samples, frames; /* frames <= 1 + (samples - n_fft) / hop */
  const float *window;           /* [n_fft] or NULL */
  const float *x;                /* [rows, samples] */
  float *out;                    /* [rows, frames, n_fft/2 + 1, 2]: real, imaginary */
} viv_stft;

/* All functions take the table itself first. [job], and weight_prepare and floats [loader]. */
struct viv_compute {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  int32_t threads; /* of the pool, the caller included */
  void *self;

  /* body(ctx, begin, end) over disjoint ranges that cover [0, n), of at least grain each except the
   * last, on pool threads and the calling one; returns when all are done. body must not call
   * parallel_for again. */
  void (*parallel_for)(const viv_compute *c, int64_t n, int64_t grain,
                       void (*body)(void *ctx, int64_t begin, int64_t end), void *ctx);

  /* A matrix [out, in] (leading dimensions are folded into out) for linear, from a tensor that lives
   * as long as the arena. With AS_STORED nothing is copied (but F64, and blocks in rows of more than
   * 65536 elements, become F32). BAD_INPUT: dtype has no weights, or a row is no whole number of
   * blocks. Products of block formats round each row of x to int8 in groups of 32 (scale: the largest
   * magnitude / 127), sum units in integers and add the units in f32 in order: STRICT; a row that
   * holds an infinity or a NaN gives NaN. The policy F32 computes on the same weights without it. */
  int32_t (*weight_prepare)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                            int32_t policy, viv_weight **out, viv_error *error);
  /* The same from rows [row_begin, row_end) of the tensor, for fused projections. */
  int32_t (*weight_rows)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                         int64_t row_begin, int64_t row_end, int32_t policy, viv_weight **out,
                         viv_error *error);
  /* Bytes that weight_prepare will take from the arena, for the memory plan. */
  uint64_t (*weight_bytes)(const viv_compute *c, const viv_tensor *tensor, int32_t policy);

  /* A small tensor as f32: the mapped data itself when it is aligned f32, else a copy in the arena.
   * NULL: the arena is full or the dtype has no numbers. */
  const float *(*floats)(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor);

  /* y[r] = W x[r] + bias, x [rows, in], y [rows, out]; bias may be NULL; y must not be x. */
  void (*linear)(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                 float *y, int64_t rows);
  /* y[i] = row ids[i] of the matrix as f32; ids are valid. */
  void (*gather)(const viv_compute *c, const viv_weight *w, const int32_t *ids, int64_t n,
                 float *y);

  /* C = alpha op(A) op(B) + beta C, row-major, op(A) [m,k], op(B) [k,n]. Not STRICT. */
  void (*gemm)(const viv_compute *c, int32_t trans_a, int32_t trans_b, int64_t m, int64_t n,
               int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
               float beta, float *out, int64_t ldc);

  /* Row-wise; y may be x. w and b may be NULL. Softmax of a row of -infinity gives zeros. */
  void (*layer_norm)(const viv_compute *c, const float *x, const float *w, const float *b,
                     float eps, int64_t rows, int64_t d, float *y);
  void (*rms_norm)(const viv_compute *c, const float *x, const float *w, float eps, int64_t rows,
                   int64_t d, float *y);
  void (*softmax)(const viv_compute *c, const float *x, int64_t rows, int64_t d, float *y);

  void (*unary)(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t n);
  /* gate[i] = f(gate[i]) * value[i] */
  void (*gate)(const viv_compute *c, int32_t kind, float *gate, const float *value, int64_t n);
  /* x [rows, 2n] = [gate | value] -> y [rows, n] = f(gate) * value */
  void (*glu)(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t rows,
              int64_t n);
  void (*add)(const viv_compute *c, float *x, const float *y, int64_t n); /* x += y */

  /* Rotary embeddings. table: cos_sin [rows, R] = R/2 cosines, R/2 sines of pos[r] * inv_freq[i],
   * both times m. apply rotates the first R of each head's head_dim in place; interleaved 0: pairs
   * (i, i+R/2); 1: pairs (2i, 2i+1). x_stride 0: heads * head_dim. */
  void (*rope_table)(const viv_compute *c, const int32_t *pos, int64_t rows, const float *inv_freq,
                     int64_t half, float m, float *cos_sin);
  void (*rope_apply)(const viv_compute *c, float *x, int64_t x_stride, int64_t rows, int64_t heads,
                     int64_t head_dim, const float *cos_sin, int64_t half, int32_t interleaved);

  void (*attention)(const viv_compute *c, const viv_attention *args);
  void (*causal_conv)(const viv_compute *c, const viv_causal_conv *args);
  void (*scan)(const viv_compute *c, const viv_scan *args);

  /* n values of dtype (F32, F16, BF16; I8 with its scale) from f32, round to nearest even: for
   * caches. */
  void (*store)(const viv_compute *c, int32_t dtype, const float *x, void *y, int64_t n);
  void (*load)(const viv_compute *c, int32_t dtype, const void *x, float *y, int64_t n);

  /* linear over strided rows with what usually follows: y = act(W x + bias) + residual; strides
   * count elements; residual (stride y_stride) may be y. act 0: none. STRICT, but over F32, F16
   * and BF16 a call of a single row, like linear, may sum in another order than calls of more. */
  void (*linear_to)(const viv_compute *c, const viv_weight *w, const float *bias, int32_t act,
                    const float *residual, const float *x, int64_t x_stride, float *y,
                    int64_t y_stride, int64_t rows);
  /* Bytes that weight_rows will take from the arena for that many rows of the tensor. */
  uint64_t (*weight_rows_bytes)(const viv_compute *c, const viv_tensor *tensor, int64_t rows,
                                int32_t policy);

  /* Convolution. BAD_INPUT: the weight's shape is not the description's, or a number is out of
   * range. conv_bytes: what conv_prepare takes from the arena. [loader] */
  int32_t (*conv_prepare)(const viv_compute *c, viv_arena *arena, const viv_conv_desc *desc,
                          viv_conv_weight **out, viv_error *error);
  uint64_t (*conv_bytes)(const viv_compute *c, const viv_conv_desc *desc);
  void (*conv)(const viv_compute *c, const viv_conv *args);
  uint64_t (*conv_scratch)(const viv_compute *c, const viv_conv *args); /* floats */

  /* Maps. */
  void (*pool)(const viv_compute *c, const viv_pool *args);
  void (*resize)(const viv_compute *c, const viv_resize *args);
  void (*resize_u8)(const viv_compute *c, const viv_resize_u8 *args);
  uint64_t (*resize_u8_scratch)(const viv_compute *c, const viv_resize_u8 *args); /* bytes */
  void (*grid_sample)(const viv_compute *c, const viv_grid_sample *args);
  void (*deform)(const viv_compute *c, const viv_deform *args);
  void (*roi_align)(const viv_compute *c, const viv_roi_align *args);
  /* y = x with its axes in another order: axis i of y is axis perm[i] of x. ndim <= VIV_MAX_DIMS.
   * STRICT. */
  void (*permute)(const viv_compute *c, const float *x, int32_t ndim, const int64_t *shape,
                  const int32_t *perm, float *y);
  /* Group norm over [batch, channels, space]; groups = channels: instance norm; w and b [channels] or
   * NULL. y may be x. Official: torch.nn.GroupNorm. */
  void (*group_norm)(const viv_compute *c, const float *x, const float *w, const float *b,
                     float eps, int32_t groups, int64_t batch, int64_t channels, int64_t space,
                     int32_t layout, float *y);

  /* Elements. unary_with takes the kinds' parameter p; snake: x + sin^2(alpha[ch] x) / (alpha[ch] +
   * 1e-9) over [batch, channels, n]; scale_shift: y = x w[ch] + b[ch] (either may be NULL) over
   * [batch, channels, n]; y may be x. */
  void (*unary_with)(const viv_compute *c, int32_t kind, float p, const float *x, float *y,
                     int64_t n);
  void (*snake)(const viv_compute *c, const float *x, const float *alpha, int64_t batch,
                int64_t channels, int64_t n, float *y);
  void (*scale_shift)(const viv_compute *c, const float *x, const float *w, const float *b,
                      int64_t batch, int64_t channels, int64_t n, float *y);
  void (*multiply)(const viv_compute *c, float *x, const float *y, int64_t n); /* x *= y */

  /* The k largest of each row, largest first, the lower index first among equals; NaN counts as
   * largest. values may be NULL. argmax is k = 1. STRICT. */
  void (*top_k)(const viv_compute *c, const float *x, int64_t rows, int64_t n, int64_t k,
                float *values, int32_t *indices);

  /* Sequences and signals. */
  void (*rnn)(const viv_compute *c, const viv_rnn *args);
  uint64_t (*rnn_scratch)(const viv_compute *c, const viv_rnn *args); /* floats */
  void (*stft)(const viv_compute *c, const viv_stft *args);
  /* The inverse of stft by overlap-add: spectrum [rows, frames, n_fft/2 + 1, 2] -> out [rows, n_fft
   * + hop (frames - 1)], the sum of the windowed inverse frames divided by the sum of squared windows
   * where that is above 1e-11. window NULL: ones. */
  void (*istft)(const viv_compute *c, int32_t n_fft, int32_t hop, const float *window,
                const float *spectrum, int64_t rows, int64_t frames, float *out);

  /* y[i] = W[i] x + bias[i] for n matrices over the same rows, each to the bit as linear does it, with
   * one hand-over to the pool for all that can share it. w[i] [out_i, in] with one in for all; y[i]
   * [rows, out_i] apart from x and from one another; bias or any bias[i] may be NULL. STRICT. */
  void (*linears)(const viv_compute *c, int32_t n, const viv_weight *const *w,
                  const float *const *bias, const float *x, float *const *y, int64_t rows);
};

#ifdef __cplusplus
}
#endif
#endif
