/* Prepared weights of convolutions: checked against their description, scaled, and packed. */
#include "compute/conv.h"

#include <string.h>

enum { MAX_SIDE = 1 << 20 }; /* of a kernel, stride or dilation; keeps every product in 64 bits */

static bool describe(const viv_conv_desc *d, viv_conv_weight *w, viv_error *error) {
#define CHECK(ok, ...)                                                                             \
  if (!(ok)) {                                                                                     \
    VIV_FAIL(error, VIV_BAD_INPUT, "convolution", __VA_ARGS__);                                    \
    return false;                                                                                  \
  }
  CHECK(d->dims >= 1 && d->dims <= 3, "dims is %d, not 1 to 3", d->dims);
  CHECK(d->groups >= 1 && d->in_channels >= 1 && d->out_channels >= 1,
        "groups %d, in_channels %d and out_channels %d must be positive", d->groups, d->in_channels,
        d->out_channels);
  CHECK(d->in_channels % d->groups == 0 && d->out_channels % d->groups == 0,
        "%d groups divide not both %d input and %d output channels", d->groups, d->in_channels,
        d->out_channels);
  *w = (viv_conv_weight){.dims = d->dims,
                         .transposed = d->transposed != 0,
                         .groups = d->groups,
                         .in = d->in_channels,
                         .out = d->out_channels,
                         .in_group = d->in_channels / d->groups,
                         .out_group = d->out_channels / d->groups,
                         .taps = 1};
  for (int i = 0; i < 3; i++) w->kernel[i] = w->stride[i] = w->dilation[i] = 1;
  for (int n = 0; n < d->dims; n++) {
    int i = n + 3 - d->dims;
    w->kernel[i] = d->kernel[n];
    w->stride[i] = d->stride[n];
    w->dilation[i] = d->dilation[n];
    CHECK(w->kernel[i] >= 1 && w->stride[i] >= 1 && w->dilation[i] >= 1 &&
              w->kernel[i] <= MAX_SIDE && w->stride[i] <= MAX_SIDE && w->dilation[i] <= MAX_SIDE,
          "axis %d has kernel %lld, stride %lld, dilation %lld; each must be 1 to %d", n,
          (long long)w->kernel[i], (long long)w->stride[i], (long long)w->dilation[i], MAX_SIDE);
    w->taps *= w->kernel[i];
  }
  w->depthwise = w->in_group == 1 && w->out_group == 1 && w->groups > 1;
  w->winograd = viv__conv_winograd_fits(w);

  /* Narrow groups are joined as long as a block of outputs holds them: the zeros between them cost
   * nothing that an unfilled vector would not. */
  w->joined = 1;
  for (int64_t n = 2; !w->depthwise && n <= w->groups && n * w->out_group <= VIV__CONV_BLOCK; n++)
    if (w->groups % n == 0) w->joined = n;
  const viv_tensor *t = d->weight;
  int64_t want[5] = {w->transposed ? w->in : w->out, w->transposed ? w->out_group : w->in_group,
                     d->kernel[0], d->kernel[1], d->kernel[2]};
  CHECK(t->dtype == VIV_F32 || t->dtype == VIV_F64 || t->dtype == VIV_F16 || t->dtype == VIV_BF16,
        "the weight must be F32, F64, F16 or BF16, this tensor is %s", viv__dtype_name(t->dtype));
  CHECK(t->ndim == d->dims + 2, "the weight must have %d dimensions, this tensor has %d",
        d->dims + 2, t->ndim);
  for (int i = 0; i < d->dims + 2; i++)
    CHECK(t->shape[i] == want[i], "dimension %d of the weight must be %lld, it is %lld", i,
          (long long)want[i], (long long)t->shape[i]);
#undef CHECK
  w->quads = !w->transposed && w->groups > 1 && w->in_group == 4 && w->out_group == 4;
  if (w->quads) w->joined = w->groups;
  w->groups /= w->joined;
  w->in_group *= w->joined;
  w->out_group *= w->joined;
  w->blocks = (w->out_group + VIV__CONV_BLOCK - 1) / VIV__CONV_BLOCK;
  return true;
}

static int64_t channels_up(const viv_conv_weight *w) {
  return (w->out + VIV__CONV_BLOCK - 1) / VIV__CONV_BLOCK * VIV__CONV_BLOCK;
}

static int64_t bias_floats(const viv_conv_weight *w) {
  return w->depthwise ? channels_up(w) : w->groups * w->blocks * VIV__CONV_BLOCK;
}

static int64_t packed_floats(const viv_conv_weight *w) {
  if (w->depthwise) return w->taps * channels_up(w);
  if (w->winograd) return 16 * w->blocks * w->in * VIV__CONV_BLOCK;
  return w->groups * w->blocks * w->taps * (w->quads ? 4 : w->in_group) * VIV__CONV_BLOCK;
}

static uint64_t line_up(uint64_t bytes) { /* as the arena does */
  return (bytes + 63) / 64 * 64;
}

static uint64_t conv_bytes(const viv_compute *c, const viv_conv_desc *desc) {
  (void)c;
  viv_conv_weight w;
  if (!describe(desc, &w, NULL)) return 0;
  uint64_t bytes = line_up(sizeof w) + line_up((uint64_t)packed_floats(&w) * sizeof(float));
  if (desc->bias) bytes += line_up((uint64_t)bias_floats(&w) * sizeof(float));
  return bytes;
}

struct pack {
  const viv__kernels *kernels;
  const viv_conv_weight *w;
  const viv_tensor *tensor;
  const float *scale;
  float *to;
};

/* n elements from element `first` on, as floats. */
static void read_floats(const struct pack *s, int64_t first, int64_t n, float *y) {
  const char *from = s->tensor->data;
  if (s->tensor->dtype != VIV_F64) {
    s->kernels->load(s->tensor->dtype, from + first * (s->tensor->dtype == VIV_F32 ? 4 : 2), y, n);
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    double value;
    memcpy(&value, from + (first + i) * 8, sizeof value);
    y[i] = (float)value;
  }
}

/* Blocks [begin, end) of all groups. The taps of one input and output lie side by side in the
 * tensor; they are read by pieces. */
static void pack_blocks(void *ctx, int64_t begin, int64_t end) {
  const struct pack *s = ctx;
  const viv_conv_weight *w = s->w;
  enum { PIECE = 256 };
  float piece[PIECE];
  int64_t block_floats = w->taps * w->in_group * VIV__CONV_BLOCK;
  for (int64_t block = begin; block < end; block++) {
    int64_t group = block / w->blocks, first = block % w->blocks * VIV__CONV_BLOCK;
    float *to = s->to + block * block_floats;
    memset(to, 0, (size_t)block_floats * sizeof *to);
    int64_t outs = viv__min(VIV__CONV_BLOCK, w->out_group - first);
    for (int64_t o = 0; o < outs; o++) {
      int64_t out = group * w->out_group + first + o;
      float scale = s->scale ? s->scale[out] : 1.0f;
      int64_t ins = w->in_group / w->joined, narrow = w->out_group / w->joined;
      int64_t first_in = (first + o) / narrow * ins; /* of this output's own group */
      for (int64_t own = 0; own < ins; own++) {
        int64_t i = first_in + own;
        int64_t row = w->transposed ? (group * w->in_group + i) * narrow + (first + o) % narrow
                                    : out * ins + own;
        for (int64_t t = 0; t < w->taps; t += PIECE) {
          int64_t n = viv__min(PIECE, w->taps - t);
          read_floats(s, row * w->taps + t, n, piece);
          for (int64_t j = 0; j < n; j++)
            to[((t + j) * w->in_group + i) * VIV__CONV_BLOCK + o] = scale * piece[j];
        }
      }
    }
  }
}

/* Blocks [begin, end) of groups of four. */
static void pack_quads(void *ctx, int64_t begin, int64_t end) {
  const struct pack *s = ctx;
  const viv_conv_weight *w = s->w;
  float *to = s->to + begin * w->taps * 4 * VIV__CONV_BLOCK;
  for (int64_t block = begin; block < end; block++)
    for (int64_t t = 0; t < w->taps; t++)
      for (int64_t i = 0; i < 4; i++)
        for (int64_t o = 0; o < VIV__CONV_BLOCK; o++, to++) {
          int64_t out = block * VIV__CONV_BLOCK + o;
          *to = 0.0f;
          if (out >= w->out) continue;
          read_floats(s, (out * 4 + i) * w->taps + t, 1, to);
          if (s->scale) *to *= s->scale[out];
        }
}

/* Blocks [begin, end) of transformed weights. */
static void pack_winograd(void *ctx, int64_t begin, int64_t end) {
  const struct pack *s = ctx;
  const viv_conv_weight *w = s->w;
  int64_t block_floats = w->in * VIV__CONV_BLOCK, point = w->blocks * block_floats;
  for (int64_t block = begin; block < end; block++)
    for (int64_t i = 0; i < w->in; i++)
      for (int64_t o = 0; o < VIV__CONV_BLOCK; o++) {
        int64_t out = block * VIV__CONV_BLOCK + o;
        float g[9], u[16] = {0};
        if (out < w->out) {
          read_floats(s, (out * w->in + i) * 9, 9, g);
          viv__conv_winograd_weights(g, s->scale ? s->scale[out] : 1.0f, u);
        }
        for (int p = 0; p < 16; p++)
          s->to[p * point + block * block_floats + i * VIV__CONV_BLOCK + o] = u[p];
      }
}

static void pack_depthwise(const struct pack *s) {
  const viv_conv_weight *w = s->w;
  int64_t up = channels_up(w);
  memset(s->to, 0, (size_t)(w->taps * up) * sizeof *s->to);
  for (int64_t ch = 0; ch < w->out; ch++)
    for (int64_t t = 0; t < w->taps; t++) {
      float value;
      read_floats(s, ch * w->taps + t, 1, &value);
      s->to[t * up + ch] = (s->scale ? s->scale[ch] : 1.0f) * value;
    }
}

static int32_t conv_prepare(const viv_compute *c, viv_arena *arena, const viv_conv_desc *desc,
                            viv_conv_weight **out, viv_error *error) {
  viv_conv_weight made;
  if (!describe(desc, &made, error)) return VIV_BAD_INPUT;
  int64_t floats = packed_floats(&made), outs = bias_floats(&made);
  viv_conv_weight *w = viv__arena_alloc(arena, sizeof *w);
  float *packed = viv__arena_alloc(arena, (uint64_t)floats * sizeof *packed);
  float *bias = desc->bias ? viv__arena_alloc(arena, (uint64_t)outs * sizeof *bias) : NULL;
  if (!w || !packed || (desc->bias && !bias))
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no room for a convolution of %lld weights",
                    (long long)floats);
  *w = made;
  struct pack s = {viv__compute_of(c)->kernels, w, desc->weight, desc->scale, packed};
  if (w->depthwise)
    pack_depthwise(&s);
  else
    viv__parallel(c, w->groups * w->blocks, viv__grain(floats / (w->groups * w->blocks)),
                  w->winograd ? pack_winograd
                  : w->quads  ? pack_quads
                              : pack_blocks,
                  &s);
  if (bias) {
    memset(bias, 0, (size_t)outs * sizeof *bias);
    if (w->depthwise) memcpy(bias, desc->bias, (size_t)w->out * sizeof *bias);
    for (int64_t g = 0; !w->depthwise && g < w->groups; g++)
      memcpy(bias + g * w->blocks * VIV__CONV_BLOCK, desc->bias + g * w->out_group,
             (size_t)w->out_group * sizeof *bias);
  }
  w->packed = packed;
  w->bias = bias;
  *out = w;
  return VIV_OK;
}

void viv__table_conv_prepare(viv_compute *t) {
  t->conv_prepare = conv_prepare;
  t->conv_bytes = conv_bytes;
}
