/* The kernels in plain C: what runs where nothing better does, and what the others are tested
 * against. Written to be read; sums have a fixed number of partial sums so that a compiler may keep
 * them in a vector. */
#include "compute/kernels.h"

#include <math.h>
#include <string.h>

enum { PARTS = 8 };

/* ---- half precision ---- */

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
  uint16_t h;
  memcpy(&h, at + i * 2, sizeof h);
  return dtype == VIV_F16 ? from_f16(h) : from_bf16(h);
}

static const void *advance(const void *p, int32_t dtype, int64_t elements) {
  return (const char *)p + elements * (dtype == VIV_F32 ? 4 : 2);
}

static void load(int32_t dtype, const void *x, float *y, int64_t n) {
  if (dtype == VIV_F32)
    memcpy(y, x, (size_t)n * sizeof *y);
  else if (dtype == VIV_F16)
    for (int64_t i = 0; i < n; i++) y[i] = element(x, VIV_F16, i);
  else
    for (int64_t i = 0; i < n; i++) y[i] = element(x, VIV_BF16, i);
}

static void store(int32_t dtype, const float *x, void *y, int64_t n) {
  if (dtype == VIV_F32) {
    memcpy(y, x, (size_t)n * sizeof *x);
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
    load(dtype, advance(w, dtype, begin), block, len);
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

static inline float apply(int32_t kind, float x) {
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
  default:
    return x;
  }
}

static void unary(int32_t kind, const float *x, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = apply(kind, x[i]);
}

static void gate_kernel(int32_t kind, const float *gate, const float *value, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = apply(kind, gate[i]) * value[i];
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

/* One row and head: online softmax over blocks of keys. out holds the weighted sum so far. */
static void attend(const viv_attention *a, int32_t head, int32_t row) {
  int64_t dim = a->head_dim, vdim = a->value_dim ? a->value_dim : dim;
  const float *q = a->q + row * (a->q_stride ? a->q_stride : a->heads * dim) + head * dim;
  float *out = a->out + row * (a->out_stride ? a->out_stride : a->heads * vdim) + head * vdim;
  const viv_kv *kv = a->kv[row];
  int64_t end = a->visible[row];
  int64_t begin = a->window > 0 ? viv__max(0, end - a->window) : 0;
  float max = -INFINITY, sum = 0.0f;
  memset(out, 0, (size_t)vdim * sizeof *out);

  while (begin < end) {
    int64_t page = begin / a->page_tokens, first = begin % a->page_tokens;
    int64_t block = first / VIV__KEY_BLOCK * VIV__KEY_BLOCK;
    int64_t n = viv__min(viv__min(block + VIV__KEY_BLOCK, a->page_tokens) - first, end - begin);
    float score[VIV__KEY_BLOCK];
    float block_max = -INFINITY;
    for (int64_t s = 0; s < n; s++) {
      int64_t key = begin + s;
      const void *k =
          advance(kv->k[page], a->kv_dtype, (first + s) * a->k_width + viv__k_offset(a, head));
      score[s] = a->scale * dot(q, k, a->kv_dtype, dim);
      if (a->softcap > 0) score[s] = a->softcap * tanhf(score[s] / a->softcap);
      if (a->mask && key >= a->mask_begin[row] &&
          !a->mask[row * a->mask_stride + (key - a->mask_begin[row])])
        score[s] = -INFINITY;
      block_max = score[s] > block_max ? score[s] : block_max;
    }
    if (block_max > -INFINITY) {
      if (block_max > max) {
        float shrink = expf(max - block_max);
        for (int64_t i = 0; i < vdim; i++) out[i] *= shrink;
        sum *= shrink;
        max = block_max;
      }
      for (int64_t s = 0; s < n; s++) {
        if (score[s] == -INFINITY) continue;
        float p = expf(score[s] - max);
        const void *v =
            advance(kv->v[page], a->kv_dtype, (first + s) * a->v_width + viv__v_offset(a, head));
        sum += p;
        if (a->kv_dtype == VIV_F32)
          for (int64_t i = 0; i < vdim; i++) out[i] += p * element(v, VIV_F32, i);
        else if (a->kv_dtype == VIV_F16)
          for (int64_t i = 0; i < vdim; i++) out[i] += p * element(v, VIV_F16, i);
        else
          for (int64_t i = 0; i < vdim; i++) out[i] += p * element(v, VIV_BF16, i);
      }
    }
    begin += n;
  }
  float scale = sum > 0 ? 1.0f / sum : 0.0f;
  for (int64_t i = 0; i < vdim; i++) out[i] *= scale;
}

static void attention(const viv_attention *a, const int32_t *heads, int32_t n_heads,
                      int32_t row_begin, int32_t row_end) {
  for (int32_t r = row_begin; r < row_end; r++)
    for (int32_t h = 0; h < n_heads; h++) attend(a, heads[h], r);
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
      a->out[t * a->channels + c] = a->silu ? apply(VIV_SILU, sum) : sum;
    }
    for (int64_t k = 0; k < hist; k++) {
      int64_t from = a->rows + k - hist;
      tail[k] = from < 0 ? tail[hist + from] : a->x[from * stride + c];
    }
  }
}

static void scan(const viv_scan *a, int32_t begin, int32_t end) {
  int64_t n = a->states;
  for (int64_t c = begin; c < end; c++) {
    float *state = a->state + c * n;
    for (int64_t t = 0; t < a->rows; t++) {
      int64_t at = t * a->channels + c;
      float u = a->u[at], delta = a->delta[at], y = a->d ? a->d[c] * u : 0.0f;
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

const viv__kernels viv__kernels_portable = {
    .name = "portable",
    .lanes = 16,
    .tile_rows = 4,
    .linear = linear,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .unary = unary,
    .gate = gate_kernel,
    .axpy = axpy,
    .rope = rope,
    .attention = attention,
    .causal_conv = causal_conv,
    .scan = scan,
    .store = store,
    .load = load,
};
