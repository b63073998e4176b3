/* The kernels in plain C: what runs where nothing better does, and what the others are tested
 * against. Written to be read; sums have a fixed number of partial sums so that a compiler may keep
 * them in a vector. */
#include "compute/kernels.h"

#include <math.h>
#include <string.h>

enum { PARTS = 8 };

/* ---- half precision ---- */

void viv__store_i8(const float *x, void *y, int64_t n) {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    float size = fabsf(x[i]);
    finite &= size <= 3.402823466e38f;
    largest = size > largest ? size : largest;
  }
  float scale = largest / 127.0f, inverse = 127.0f / largest;
  if (!(inverse <= 3.402823466e38f)) scale = inverse = 0.0f; /* nothing, or next to it */
  int8_t *to = y;
  for (int64_t i = 0; i < n; i++) to[i] = finite ? (int8_t)rintf(x[i] * inverse) : 0;
  if (!finite) scale = NAN;
  memcpy(to + n, &scale, sizeof scale);
}

void viv__load_i8(const void *x, float *y, int64_t n) {
  const int8_t *from = x;
  float scale;
  memcpy(&scale, from + n, sizeof scale);
  for (int64_t i = 0; i < n; i++) y[i] = (float)from[i] * scale;
}

static float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static uint32_t to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static float from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16;
  uint32_t rest = h & 0x7fff;
  if (rest >= 0x7c00) /* infinity, or a NaN, which becomes quiet */
    return from_bits(sign | 0x7f800000u | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000u : 0));
  if (rest >= 0x400) return from_bits(sign | ((rest << 13) + (112u << 23)));
  float tiny = (float)rest * 0x1p-24f;
  return from_bits(sign | to_bits(tiny));
}

static uint16_t to_f16(float f) {
  uint32_t u = to_bits(f);
  uint32_t sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff));
  if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
  if (u >= 0x38800000u) /* normal: add half a unit, and the last kept bit to break ties to even */
    return (uint16_t)(sign | (u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13);
  /* Denormal: the sum's last bits are the result, rounded by the addition itself. */
  float shifted = from_bits(u) + 0.5f;
  return (uint16_t)(sign | (to_bits(shifted) - to_bits(0.5f)));
}

static float from_bf16(uint16_t h) {
  return from_bits((uint32_t)h << 16);
}

static uint16_t to_bf16(float f) {
  uint32_t u = to_bits(f);
  if ((u & 0x7fffffff) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float element(const void *p, int32_t dtype, int64_t i) {
  const char *at = p;
  if (dtype == VIV_F32) {
    float f;
    memcpy(&f, at + i * 4, sizeof f);
    return f;
  }
  if (dtype == VIV_I8) return (float)(int8_t)at[i];
  uint16_t h;
  memcpy(&h, at + i * 2, sizeof h);
  return dtype == VIV_F16 ? from_f16(h) : from_bf16(h);
}

static const void *advance(const void *p, int32_t dtype, int64_t elements) {
  return (const char *)p + elements * (dtype == VIV_F32 ? 4 : dtype == VIV_I8 ? 1 : 2);
}

/* As floats; VIV_I8 without its scale. */
static void load_raw(int32_t dtype, const void *x, float *y, int64_t n) {
  if (dtype == VIV_F32)
    memcpy(y, x, (size_t)n * sizeof *y);
  else if (dtype == VIV_F16)
    for (int64_t i = 0; i < n; i++) y[i] = element(x, VIV_F16, i);
  else if (dtype == VIV_BF16)
    for (int64_t i = 0; i < n; i++) y[i] = element(x, VIV_BF16, i);
  else
    for (int64_t i = 0; i < n; i++) y[i] = element(x, VIV_I8, i);
}

static void load(int32_t dtype, const void *x, float *y, int64_t n) {
  if (dtype == VIV_I8)
    viv__load_i8(x, y, n);
  else
    load_raw(dtype, x, y, n);
}

static void store(int32_t dtype, const float *x, void *y, int64_t n) {
  if (dtype == VIV_F32) {
    memcpy(y, x, (size_t)n * sizeof *x);
    return;
  }
  if (dtype == VIV_I8) {
    viv__store_i8(x, y, n);
    return;
  }
  char *at = y;
  for (int64_t i = 0; i < n; i++) {
    uint16_t h = dtype == VIV_F16 ? to_f16(x[i]) : to_bf16(x[i]);
    memcpy(at + i * 2, &h, sizeof h);
  }
}

/* ---- sums ---- */

static float total(const float part[PARTS]) {
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

/* sum_i x[i] w[i]. Converted by block, so that the inner loop has one form. */
static float dot(const float *x, const void *w, int32_t dtype, int64_t n) {
  float part[PARTS] = {0};
  float block[256];
  int64_t begin = 0;
  while (begin < n) {
    int64_t len = viv__min(256, n - begin), i = 0;
    load_raw(dtype, advance(w, dtype, begin), block, len);
    for (; i + PARTS <= len; i += PARTS)
      for (int j = 0; j < PARTS; j++) part[j] += x[begin + i + j] * block[i + j];
    for (int j = 0; i < len; i++, j++) part[j] += x[begin + i] * block[i];
    begin += len;
  }
  return total(part);
}

static void linear(const void *w, int32_t dtype, int64_t w_stride, int64_t outs, int64_t k,
                   const float *bias, const float *x, int64_t x_stride, int64_t rows, float *y,
                   int64_t y_stride) {
  for (int64_t o = 0; o < outs; o++)
    for (int64_t r = 0; r < rows; r++)
      y[r * y_stride + o] = dot(x + r * x_stride, advance(w, dtype, o * w_stride), dtype, k) +
                            (bias ? bias[o] : 0.0f);
}

/* ---- rows ---- */

static void layer_norm(const float *x, const float *w, const float *b, float eps, int64_t rows,
                       int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < d; i++) sum += x[i];
    double mean = sum / (double)d;
    for (int64_t i = 0; i < d; i++) squares += (x[i] - mean) * (x[i] - mean);
    double scale = 1.0 / sqrt(squares / (double)d + eps);
    for (int64_t i = 0; i < d; i++)
      y[i] = (float)((x[i] - mean) * scale) * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
  }
}

static void rms_norm(const float *x, const float *w, float eps, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    double squares = 0;
    for (int64_t i = 0; i < d; i++) squares += (double)x[i] * x[i];
    double scale = 1.0 / sqrt(squares / (double)d + eps);
    for (int64_t i = 0; i < d; i++) y[i] = (float)(x[i] * scale) * (w ? w[i] : 1.0f);
  }
}

static void softmax(const float *x, int64_t rows, int64_t d, float *y) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d) {
    float max = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < d; i++) max = x[i] > max ? x[i] : max;
    if (max == -INFINITY) max = 0.0f; /* all masked: zeros, not NaN */
    for (int64_t i = 0; i < d; i++) sum += y[i] = expf(x[i] - max);
    float scale = sum == 0 ? 0.0f : (float)(1.0 / sum);
    for (int64_t i = 0; i < d; i++) y[i] *= scale;
  }
}

/* ---- elements ---- */

static inline float clamp6(float x) {
  return x < 0 ? 0.0f : x > 6.0f ? 6.0f : x;
}

static inline float apply(int32_t kind, float p, float x) {
  switch (kind) {
  case VIV_SILU:
    return x / (1.0f + expf(-x));
  case VIV_GELU:
    return 0.5f * x * erfcf(-0.70710678118654752f * x);
  case VIV_GELU_TANH: /* x/2 (1 + tanh z) = x sigmoid(2z), without the cancellation */
    return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
  case VIV_RELU:
    return x < 0 ? 0.0f : x;
  case VIV_SIGMOID:
    return 1.0f / (1.0f + expf(-x));
  case VIV_TANH:
    return tanhf(x);
  case VIV_SOFTPLUS:
    return x > 20.0f ? x : log1pf(expf(x));
  case VIV_EXP:
    return expf(x);
  case VIV_LEAKY_RELU:
    return x < 0 ? p * x : x;
  case VIV_ELU:
    return x < 0 ? p * expm1f(x) : x;
  case VIV_HARDSWISH:
    return x * clamp6(x + 3.0f) / 6.0f;
  case VIV_HARDSIGMOID:
    return clamp6(x + 3.0f) / 6.0f;
  case VIV_MISH: { /* x tanh(ln(1 + e^x)), without the cancellation */
    float t = expf(-fabsf(x)), n = x > 0 ? 1.0f + 2.0f * t : t * t + 2.0f * t;
    return x * (n / (n + (x > 0 ? 2.0f * t * t : 2.0f)));
  }
  case VIV_RELU6:
    return clamp6(x);
  case VIV_QUICK_GELU:
    return x / (1.0f + expf(-1.702f * x));
  case VIV_SQUARED_RELU:
    return x < 0 ? 0.0f : x * x;
  case VIV_LOG:
    return logf(x);
  case VIV_SQRT:
    return sqrtf(x);
  default:
    return x;
  }
}

static void unary_with(int32_t kind, float p, const float *x, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = apply(kind, p, x[i]);
}

static void unary(int32_t kind, const float *x, float *y, int64_t n) {
  unary_with(kind, viv__unary_default(kind), x, y, n);
}

static void gate_kernel(int32_t kind, const float *gate, const float *value, float *y, int64_t n) {
  float p = viv__unary_default(kind);
  for (int64_t i = 0; i < n; i++) y[i] = apply(kind, p, gate[i]) * value[i];
}

static void multiply(float *x, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] *= y[i];
}

static void scale_shift(const float *x, const float *w, const float *b, bool each, int64_t n,
                        float *y) {
  for (int64_t i = 0; i < n; i++) {
    float v = x[i];
    if (w) v *= w[each ? i : 0];
    if (b) v += b[each ? i : 0];
    y[i] = v;
  }
}

static void axpy(float a, const float *x, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void rope(float *x, int64_t x_stride, int64_t rows, int64_t heads, int64_t head_dim,
                 const float *cos_sin, int64_t half, int32_t interleaved) {
  int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = 0; i < half; i++) {
        float *at = x + r * x_stride + h * head_dim + i * step;
        float c = cos_sin[r * 2 * half + i], s = cos_sin[r * 2 * half + half + i];
        float a = at[0], b = at[other];
        at[0] = a * c - b * s;
        at[other] = b * c + a * s;
      }
}

/* ---- attention ---- */

/* The weighted sum of some keys' values so far. */
struct sum {
  float *out; /* [value_dim] */
  float max, weight;
};

static bool hidden(const viv_attention *a, int32_t row, int64_t key) {
  return a->mask && key >= a->mask_begin[row] &&
         !viv__mask_bit(a->mask + row * a->mask_stride, key - a->mask_begin[row]);
}

/* A slice's int8 values are meant times this. */
static float scale_of(const void *slice, int32_t dtype, int64_t dim) {
  float scale = 1.0f;
  if (dtype == VIV_I8) memcpy(&scale, (const char *)slice + dim, sizeof scale);
  return scale;
}

/* One row and head, the keys [begin, end): online softmax over blocks of keys. */
static void attend(const viv_attention *a, int32_t head, int32_t row, int64_t begin, int64_t end,
                   struct sum *s) {
  int64_t dim = a->head_dim, vdim = a->value_dim ? a->value_dim : dim;
  const float *q = a->q + row * (a->q_stride ? a->q_stride : a->heads * dim) + head * dim;
  const float *bias = a->bias;
  if (bias) bias += row * a->bias_row_stride + head * a->bias_head_stride;
  const viv_kv *kv = a->kv[row];
  while (begin < end) {
    int64_t page = begin / a->page_tokens, first = begin % a->page_tokens;
    int64_t block = first / VIV__KEY_BLOCK * VIV__KEY_BLOCK;
    int64_t n = viv__min(viv__min(block + VIV__KEY_BLOCK, a->page_tokens) - first, end - begin);
    float score[VIV__KEY_BLOCK];
    float block_max = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
      score[i] = -INFINITY;
      if (hidden(a, row, begin + i)) continue;
      const void *k =
          advance(kv->k[page], a->kv_dtype, (first + i) * a->k_width + viv__k_offset(a, head));
      score[i] = a->scale * (scale_of(k, a->kv_dtype, dim) * dot(q, k, a->kv_dtype, dim));
      if (bias) score[i] += bias[begin + i];
      if (a->softcap > 0) score[i] = a->softcap * tanhf(score[i] / a->softcap);
      if (!(score[i] <= block_max)) block_max = score[i]; /* a NaN too */
    }
    if (block_max > s->max) {
      float shrink = expf(s->max - block_max);
      for (int64_t i = 0; i < vdim; i++) s->out[i] *= shrink;
      s->weight *= shrink;
      s->max = block_max;
    }
    for (int64_t i = 0; i < n; i++) {
      if (score[i] == -INFINITY) continue;
      const void *v =
          advance(kv->v[page], a->kv_dtype, (first + i) * a->v_width + viv__v_offset(a, head));
      float p = expf(score[i] - s->max);
      s->weight += p;
      p *= scale_of(v, a->kv_dtype, vdim);
      for (int64_t d = 0; d < vdim; d++) s->out[d] += p * element(v, a->kv_dtype, d);
    }
    begin += n;
  }
}

static void merge(struct sum *s, const float *out, float max, float weight, int64_t vdim) {
  if (max == -INFINITY && weight == 0.0f) return;
  float top = max > s->max ? max : s->max;
  float mine = s->max == top ? 1.0f : expf(s->max - top),
        other = max == top ? 1.0f : expf(max - top);
  for (int64_t i = 0; i < vdim; i++) s->out[i] = s->out[i] * mine + out[i] * other;
  s->weight = s->weight * mine + weight * other;
  s->max = top;
}

static void finish(struct sum *s, int64_t vdim) {
  float scale = s->weight == 0.0f ? 0.0f : 1.0f / s->weight;
  for (int64_t i = 0; i < vdim; i++) s->out[i] *= scale;
}

static float *result_of(const viv_attention *a, int32_t head, int32_t row) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  return a->out + row * (a->out_stride ? a->out_stride : a->heads * vdim) + head * vdim;
}

static void attend_row(const viv_attention *a, int32_t head, int32_t row, int64_t split,
                       float *part) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim, keys = viv__split_keys(a);
  int64_t end = a->visible[row], begin = a->window > 0 ? viv__max(0, end - a->window) : 0;
  struct sum s = {part ? part + (row * a->heads + head) * (vdim + 2) : result_of(a, head, row),
                  -INFINITY, 0.0f};
  memset(s.out, 0, (size_t)vdim * sizeof *s.out);
  if (part) {
    attend(a, head, row, viv__max(begin, split * keys), viv__min(end, (split + 1) * keys), &s);
    s.out[vdim] = s.max;
    s.out[vdim + 1] = s.weight;
    return;
  }
  for (int64_t stop; begin < end; begin = stop) {
    float beside[VIV__SPLIT_DIM];
    stop = viv__min(end, (begin / keys + 1) * keys);
    if (vdim > VIV__SPLIT_DIM) { /* one split */
      attend(a, head, row, begin, stop, &s);
      continue;
    }
    struct sum one = {beside, -INFINITY, 0.0f};
    memset(beside, 0, (size_t)vdim * sizeof *beside);
    attend(a, head, row, begin, stop, &one);
    merge(&s, beside, one.max, one.weight, vdim);
  }
  finish(&s, vdim);
}

static void attention(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                      int32_t row_begin, int32_t row_end, int64_t split, float *part) {
  for (int32_t r = row_begin; r < row_end; r++)
    for (int32_t h = 0; h < n_heads; h++) attend_row(a, heads[h], r, split, part);
}

static void attention_merge(const viv_attention *a, int32_t head, int32_t row, const float *part,
                            int64_t stride, int64_t parts) {
  int64_t vdim = a->value_dim ? a->value_dim : a->head_dim;
  struct sum s = {result_of(a, head, row), -INFINITY, 0.0f};
  memset(s.out, 0, (size_t)vdim * sizeof *s.out);
  for (int64_t i = 0; i < parts; i++, part += stride)
    merge(&s, part, part[vdim], part[vdim + 1], vdim);
  finish(&s, vdim);
}

/* ---- state-space models ---- */

static void causal_conv(const viv_causal_conv *a, int32_t begin, int32_t end) {
  int64_t stride = a->x_stride ? a->x_stride : a->channels, hist = a->taps - 1;
  for (int64_t c = begin; c < end; c++) {
    const float *w = a->weight + c * a->taps;
    float *tail = a->tail + c * hist;
    for (int64_t t = 0; t < a->rows; t++) {
      float sum = a->bias ? a->bias[c] : 0.0f;
      for (int64_t k = 0; k <= hist; k++) {
        int64_t from = t + k - hist;
        sum += w[k] * (from < 0 ? tail[hist + from] : a->x[from * stride + c]);
      }
      a->out[t * a->channels + c] = a->silu ? apply(VIV_SILU, 0.0f, sum) : sum;
    }
    for (int64_t k = 0; k < hist; k++) {
      int64_t from = a->rows + k - hist;
      tail[k] = from < 0 ? tail[hist + from] : a->x[from * stride + c];
    }
  }
}

static void scan(const viv_scan *a, int32_t begin, int32_t end) {
  int64_t n = a->states, stride = a->u_stride ? a->u_stride : a->channels;
  for (int64_t c = begin; c < end; c++) {
    float *state = a->state + c * n;
    for (int64_t t = 0; t < a->rows; t++) {
      int64_t at = t * a->channels + c;
      float u = a->u[t * stride + c], delta = a->delta[t * stride + c],
            y = a->d ? a->d[c] * u : 0.0f;
      for (int64_t i = 0; i < n; i++) {
        float decay = expf(delta * a->a[c * n + i]);
        state[i] = decay * state[i] + delta * u * a->b[t * a->bc_stride + i];
        y += state[i] * a->c[t * a->bc_stride + i];
      }
      if (a->states_out) memcpy(a->states_out + at * n, state, (size_t)n * sizeof *state);
      a->y[at] = y;
    }
  }
}

#include "compute/kernels_conv_portable.h"

const viv__kernels viv__kernels_portable = {
    .name = "portable",
    .lanes = 16,
    .tile_rows = 4,
    .linear = linear,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .unary = unary,
    .unary_with = unary_with,
    .gate = gate_kernel,
    .axpy = axpy,
    .multiply = multiply,
    .scale_shift = scale_shift,
    .rope = rope,
    .attention = attention,
    .attention_merge = attention_merge,
    .causal_conv = causal_conv,
    .scan = scan,
    .store = store,
    .load = load,
    .ops = &viv__ops_portable,
    .conv_tile = conv_tile,
    .conv_strip = conv_strip,
    .transpose = transpose,
    .winograd_in = winograd_in,
    .winograd_out = winograd_out,
    .conv_depthwise = conv_depthwise,
    .pool_rows = pool_rows,
};
