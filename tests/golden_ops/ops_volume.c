/* Medical segmentation: layers with attention over places and channels. */
#include "ops.h"

#include "nn/dual_attention.h"

/* x [batch, in, h, w] through the convolution PREFIX.at with the norm PREFIX.(at + 1) and the slope of
 * PREFIX.(at + 2), channels last after it. */
static float *conv_prelu(struct golden *g, const char *prefix, int at, const float *x,
                         int32_t layout, const struct array *like, int32_t batch) {
  viv_error error = VIV_ERROR_INIT;
  char name[32];
  struct array w, b, norm[4], slope;
  static const char *const parts[] = {"weight", "bias", "running_mean", "running_var"};
  snprintf(name, sizeof name, "attn.%d.weight", at);
  w = weight(g, prefix, name);
  snprintf(name, sizeof name, "attn.%d.bias", at);
  b = weight(g, prefix, name);
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "attn.%d.%s", at + 1, parts[i]);
    norm[i] = weight(g, prefix, name);
  }
  snprintf(name, sizeof name, "attn.%d.weight", at + 2);
  slope = weight(g, prefix, name);
  int64_t out = w.shape[0], h = like->shape[2], wide = like->shape[3];
  float *scale = take_floats(g, out), *bias = take_floats(g, out);
  for (int64_t i = 0; i < out; i++) {
    scale[i] = norm[0].data[i] / sqrtf(norm[3].data[i] + 1e-5f);
    bias[i] = (b.data[i] - norm[2].data[i]) * scale[i] + norm[1].data[i];
  }
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w.data,
                  .dtype = VIV_F32,
                  .ndim = 4,
                  .bytes = (uint64_t)w.n * sizeof(float)};
  memcpy(t.shape, w.shape, 4 * sizeof *t.shape);
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = 2,
                     .groups = 1,
                     .in_channels = (int32_t)w.shape[1],
                     .out_channels = (int32_t)out,
                     .kernel = {3, 3, 1},
                     .stride = {1, 1, 1},
                     .dilation = {1, 1, 1},
                     .weight = &t,
                     .scale = scale,
                     .bias = bias};
  viv_conv_weight *prepared_weight = NULL;
  if (g->c->conv_prepare(g->c, g->arena, &d, &prepared_weight, &error))
    die("conv_prepare", error.message);
  float *y = take_floats(g, batch * out * h * wide);
  viv_conv a = {.struct_size = sizeof a,
                .batch = batch,
                .weight = prepared_weight,
                .size = {(int32_t)h, (int32_t)wide, 1},
                .pad_begin = {1, 1, 0},
                .pad_end = {1, 1, 0},
                .x_layout = layout,
                .out_layout = VIV_CHANNELS_LAST,
                .x = x,
                .out = y};
  a.scratch = take_floats(g, (int64_t)g->c->conv_scratch(g->c, &a));
  g->c->conv(g->c, &a);
  g->c->unary_with(g->c, VIV_LEAKY_RELU, slope.data[0], y, y, batch * out * h * wide);
  return y;
}

/* Compares a channels-last batch [b, n, d] with the golden's planes. */
static void planes(struct golden *g, const char *name, const float *x, int64_t b, int64_t n,
                   int64_t d) {
  if (!wants(g, name)) return;
  float *y = take_floats(g, b * n * d);
  for (int64_t i = 0; i < b; i++) put_turned(x + i * n * d, n, d, y + i * n * d);
  output(g, name, y, b * n * d);
}

static bool pam_cam(struct golden *g) {
  const char *prefix = text_param(g, "weights", "");
  bool places = flag_param(g, "use_pam", true);
  struct array x = input(g, "x");
  int64_t b = x.shape[0], n = x.shape[2] * x.shape[3];
  float *in = conv_prelu(g, prefix, 0, x.data, VIV_CHANNELS_FIRST, &x, (int32_t)b);
  float gamma = weight(g, prefix, "attn.3.gamma").data[0];
  int64_t d = weight(g, prefix, "attn.0.weight").shape[0];
  float *y = take_floats(g, b * n * d);
  planes(g, places ? "pam_in" : "cam_in", in, b, n, d);
  for (int64_t i = 0; i < b; i++) {
    const float *one = in + i * n * d;
    float *to = y + i * n * d;
    if (!places) {
      nn_channel_attention(g->c, n, d, one, gamma, take_floats(g, d * d), to);
      continue;
    }
    struct array wq = weight(g, prefix, "attn.3.query_conv.weight"), wk, wv;
    wk = weight(g, prefix, "attn.3.key_conv.weight");
    wv = weight(g, prefix, "attn.3.value_conv.weight");
    wq.ndim = wk.ndim = wv.ndim = 2;
    float *q = apply(g, wq, weight(g, prefix, "attn.3.query_conv.bias").data, one, n);
    float *k = apply(g, wk, weight(g, prefix, "attn.3.key_conv.bias").data, one, n);
    float *v = apply(g, wv, weight(g, prefix, "attn.3.value_conv.bias").data, one, n);
    nn_position_attention(g->c, n, wq.shape[0], d, q, k, v, gamma, one,
                          take_floats(g, nn_position_scratch(n)), to);
  }
  planes(g, places ? "pam" : "cam", y, b, n, d);
  struct array like = x;
  planes(g, "y", conv_prelu(g, prefix, 4, y, VIV_CHANNELS_LAST, &like, (int32_t)b), b, n, d);
  return true;
}

const struct op volume_ops[] = {{"PAM_CAM_Layer", pam_cam}, {NULL, NULL}};
