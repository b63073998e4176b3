/* Medical segmentation: attention over places and channels, pieces of U-Nets over volumes. */
#include "ops.h"

#include "nn/dual_attention.h"
#include "nn/volume.h"

/* A batch of maps over two or three axes. */
struct map {
  int32_t batch, channels, dims, size[3], layout;
  float *x;
};

static struct map map_of(const struct array *a) {
  struct map m = {.batch = (int32_t)a->shape[0],
                  .channels = (int32_t)a->shape[1],
                  .dims = a->ndim - 2,
                  .size = {1, 1, 1},
                  .layout = VIV_CHANNELS_FIRST,
                  .x = a->data};
  for (int i = 0; i < m.dims; i++) m.size[i] = (int32_t)a->shape[2 + i];
  return m;
}

static int64_t space_of(const struct map *m) {
  return (int64_t)m->size[0] * m->size[1] * m->size[2];
}

static struct array part(struct golden *g, const char *prefix, const char *name, const char *end) {
  char whole[96];
  snprintf(whole, sizeof whole, "%s%s", name, end);
  struct array none = {0};
  return has_weight(g, prefix, whole) ? weight(g, prefix, whole) : none;
}

/* The convolution PREFIX.conv with its bias and the batch norm PREFIX.norm, where they are there; the
 * result is channels-last. */
static struct map convolved(struct golden *g, const char *prefix, const char *conv,
                            const char *norm, int32_t stride, bool transposed,
                            const struct map *x) {
  viv_error error = VIV_ERROR_INIT;
  struct array w = part(g, prefix, conv, ".weight"), b = part(g, prefix, conv, ".bias");
  int64_t out = w.shape[transposed ? 1 : 0];
  float *scale = NULL, *bias = b.data;
  if (norm) {
    struct array gain = part(g, prefix, norm, ".weight"), shift = part(g, prefix, norm, ".bias");
    struct array mean = part(g, prefix, norm, ".running_mean");
    struct array variance = part(g, prefix, norm, ".running_var");
    scale = take_floats(g, out);
    bias = take_floats(g, out);
    for (int64_t i = 0; i < out; i++) {
      scale[i] = gain.data[i] / sqrtf(variance.data[i] + 1e-5f);
      bias[i] = ((b.data ? b.data[i] : 0) - mean.data[i]) * scale[i] + shift.data[i];
    }
  }
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w.data,
                  .dtype = VIV_F32,
                  .ndim = w.ndim,
                  .bytes = (uint64_t)w.n * sizeof(float)};
  memcpy(t.shape, w.shape, (size_t)w.ndim * sizeof *t.shape);
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = x->dims,
                     .groups = 1,
                     .transposed = transposed,
                     .in_channels = x->channels,
                     .out_channels = (int32_t)out,
                     .weight = &t,
                     .scale = scale,
                     .bias = bias};
  viv_conv a = {.struct_size = sizeof a,
                .batch = x->batch,
                .x_layout = x->layout,
                .out_layout = VIV_CHANNELS_LAST,
                .x = x->x};
  struct map y = {x->batch, (int32_t)out, x->dims, {1, 1, 1}, VIV_CHANNELS_LAST, NULL};
  for (int i = 0; i < 3; i++) {
    int32_t kernel = i < x->dims ? (int32_t)w.shape[2 + i] : 1, s = i < x->dims ? stride : 1;
    int32_t pad = s == 1 && !transposed ? kernel / 2 : 0;
    d.kernel[i] = kernel;
    d.stride[i] = s;
    d.dilation[i] = 1;
    a.size[i] = x->size[i];
    a.pad_begin[i] = a.pad_end[i] = pad;
    y.size[i] =
        transposed ? (x->size[i] - 1) * s + kernel : (x->size[i] + 2 * pad - kernel) / s + 1;
  }
  viv_conv_weight *prepared_weight = NULL;
  if (g->c->conv_prepare(g->c, g->arena, &d, &prepared_weight, &error))
    die("conv_prepare", error.message);
  a.weight = prepared_weight;
  a.out = y.x = take_floats(g, y.batch * out * space_of(&y));
  a.scratch = take_floats(g, (int64_t)g->c->conv_scratch(g->c, &a));
  g->c->conv(g->c, &a);
  return y;
}

static void bend(struct golden *g, int32_t kind, float p, struct map *x) {
  g->c->unary_with(g->c, kind, p, x->x, x->x, x->batch * x->channels * space_of(x));
}

/* attn.at, its norm attn.(at + 1) and the slope attn.(at + 2). */
static struct map conv_prelu(struct golden *g, const char *prefix, int at, const struct map *x) {
  char conv[24], norm[24], slope[24];
  snprintf(conv, sizeof conv, "attn.%d", at);
  snprintf(norm, sizeof norm, "attn.%d", at + 1);
  snprintf(slope, sizeof slope, "attn.%d.weight", at + 2);
  struct map y = convolved(g, prefix, conv, norm, 1, false, x);
  bend(g, VIV_LEAKY_RELU, weight(g, prefix, slope).data[0], &y);
  return y;
}

/* Compares a channels-last batch with the golden's planes. */
static void planes(struct golden *g, const char *name, const struct map *x) {
  if (!wants(g, name)) return;
  int64_t n = space_of(x), d = x->channels;
  float *y = take_floats(g, x->batch * n * d);
  for (int64_t i = 0; i < x->batch; i++) put_turned(x->x + i * n * d, n, d, y + i * n * d);
  output(g, name, y, x->batch * n * d);
}

static bool pam_cam(struct golden *g) {
  const char *prefix = text_param(g, "weights", "");
  bool places = flag_param(g, "use_pam", true);
  struct array a = input(g, "x");
  struct map x = map_of(&a), in = conv_prelu(g, prefix, 0, &x), y = in;
  float gamma = weight(g, prefix, "attn.3.gamma").data[0];
  int64_t n = space_of(&in), d = in.channels;
  planes(g, places ? "pam_in" : "cam_in", &in);
  y.x = take_floats(g, y.batch * n * d);
  struct map q = in, k = in, v = in;
  if (places) {
    q = convolved(g, prefix, "attn.3.query_conv", NULL, 1, false, &in);
    k = convolved(g, prefix, "attn.3.key_conv", NULL, 1, false, &in);
    v = convolved(g, prefix, "attn.3.value_conv", NULL, 1, false, &in);
  }
  for (int64_t i = 0; i < in.batch; i++) {
    const float *one = in.x + i * n * d;
    if (places)
      nn_position_attention(g->c, n, q.channels, d, q.x + i * n * q.channels,
                            k.x + i * n * q.channels, v.x + i * n * d, gamma, one,
                            take_floats(g, nn_position_scratch(n)), y.x + i * n * d);
    else
      nn_channel_attention(g->c, n, d, one, gamma, take_floats(g, d * d), y.x + i * n * d);
  }
  planes(g, places ? "pam" : "cam", &y);
  y = conv_prelu(g, prefix, 4, &y);
  planes(g, "y", &y);
  return true;
}

/* ---- volumes ---- */

static bool intensity(struct golden *g) {
  struct array x = input(g, "x");
  bool ct = !strcmp(text_param(g, "op", ""), "intensity_ct");
  int64_t parts = flag_param(g, "channel_wise", true) ? x.shape[0] : 1;
  float *y = take_floats(g, x.n);
  memcpy(y, x.data, (size_t)x.n * sizeof *y);
  if (ct)
    nn_scale_range(y, x.n, num_param(g, "a_min", 0), num_param(g, "a_max", 1),
                   num_param(g, "b_min", 0), num_param(g, "b_max", 1), flag_param(g, "clip", true));
  float least = (float)num_param(g, "clip_min", 0);
  for (int64_t i = 0; !ct && i < x.n; i++) y[i] = y[i] < least ? least : y[i];
  for (int64_t i = 0; i < parts; i++)
    nn_normalize_intensity(y + i * (x.n / parts), x.n / parts, flag_param(g, "nonzero", true));
  /* The official transform normalises in place: the tensor that it clipped holds the end result. */
  if (wants(g, "clip_scaled")) output(g, "clip_scaled", y, x.n);
  output(g, "y", y, x.n);
  return true;
}

static bool patch_merging(struct golden *g) {
  const char *prefix = text_param(g, "weights", ""), *order = text_param(g, "patch_merging", "");
  struct array x = input(g, "x"), w = weight(g, prefix, "reduction.weight");
  int32_t size[3], which = !strcmp(order, "v2")     ? NN_MERGE_V2
                           : !strcmp(order, "v1.6") ? NN_MERGE_V1_6
                                                    : NN_MERGE_V0_9;
  int64_t cells = 1, space = 1, d = x.shape[4];
  for (int i = 0; i < 3; i++) {
    size[i] = (int32_t)x.shape[1 + i];
    cells *= (size[i] + 1) / 2;
    space *= size[i];
  }
  int64_t rows = x.shape[0] * cells;
  float *parts = take_floats(g, rows * 8 * d);
  for (int64_t b = 0; b < x.shape[0]; b++)
    nn_merge_patches(x.data + b * space * d, size, d, which, parts + b * cells * 8 * d);
  g->c->layer_norm(g->c, parts, weight(g, prefix, "norm.weight").data,
                   weight(g, prefix, "norm.bias").data, 1e-5f, rows, 8 * d, parts);
  output(g, "y", apply(g, w, NULL, parts, rows), rows * 2 * d);
  return true;
}

/* A head of dual self-distillation: one transposed convolution, as often as the scale doubles. */
static bool deep_up(struct golden *g) {
  const char *prefix = text_param(g, "weights", "");
  struct array a = input(g, "x");
  struct map x = map_of(&a), y = convolved(g, prefix, "conv_block.conv.conv", NULL, 1, false, &x);
  int scale = (int)num_param(g, "scale_factor", 1);
  if (scale == 1) y = convolved(g, prefix, "transp_conv1.deconv", NULL, 1, true, &y);
  for (; scale > 1; scale /= 2) y = convolved(g, prefix, "transp_conv1.deconv", NULL, 2, true, &y);
  planes(g, "y", &y);
  return true;
}

/* ELU(two units(x) + x) */
static struct map units(struct golden *g, const char *prefix, const struct map *x) {
  struct map y = *x;
  for (int i = 0; i < 2; i++) {
    char name[32];
    snprintf(name, sizeof name, "%sops.%d.", prefix, i);
    y = convolved(g, name, "conv_block.conv", "conv_block.adn.N", 1, false, &y);
    bend(g, VIV_ELU, 1, &y);
  }
  g->c->add(g->c, y.x, x->x, y.batch * y.channels * space_of(&y));
  bend(g, VIV_ELU, 1, &y);
  return y;
}

static bool vnet_transitions(struct golden *g) {
  struct array a = input(g, "x");
  struct map x = map_of(&a);
  struct map in = convolved(g, "in_tr.", "conv_block.conv", "conv_block.adn.N", 1, false, &x);
  int64_t n = space_of(&x);
  for (int64_t r = 0; r < n * x.batch; r++)
    for (int32_t k = 0; k < in.channels; k++)
      in.x[r * in.channels + k] += x.x[(r / n * x.channels + k % x.channels) * n + r % n];
  bend(g, VIV_ELU, 1, &in);
  planes(g, "in_tr", &in);
  struct map down = convolved(g, "down_tr32.", "down_conv", NULL, 2, false, &in);
  planes(g, "down_conv", &down);
  down = convolved(g, "down_tr32.", "down_conv", "bn1", 2, false, &in);
  bend(g, VIV_ELU, 1, &down);
  down = units(g, "down_tr32.", &down);
  planes(g, "down_tr", &down);
  struct map up = convolved(g, "up_tr32.", "up_conv", "bn1", 2, true, &down), both = up;
  bend(g, VIV_ELU, 1, &up);
  both.channels = up.channels + in.channels;
  both.x = take_floats(g, n * both.batch * both.channels);
  for (int64_t r = 0; r < n * both.batch; r++) {
    float *to = both.x + r * both.channels;
    memcpy(to, up.x + r * up.channels, (size_t)up.channels * sizeof *to);
    memcpy(to + up.channels, in.x + r * in.channels, (size_t)in.channels * sizeof *to);
  }
  up = units(g, "up_tr32.", &both);
  planes(g, "up_tr", &up);
  up = convolved(g, "out_tr.", "conv_block.conv", "conv_block.adn.N", 1, false, &up);
  bend(g, VIV_ELU, 1, &up);
  up = convolved(g, "out_tr.", "conv2", NULL, 1, false, &up);
  planes(g, "logits", &up);
  return true;
}

const struct op volume_ops[] = {{"PAM_CAM_Layer", pam_cam},
                                {"intensity_ct", intensity},
                                {"intensity_mr", intensity},
                                {"patch_merging", patch_merging},
                                {"deep_up", deep_up},
                                {"vnet_transitions", vnet_transitions},
                                {NULL, NULL}};
