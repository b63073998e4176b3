/* Prepared weights: a checkpoint's matrix under a dtype policy, and small tensors as floats. */
#include "compute/internal.h"

#include <string.h>

static int64_t elements_of(const viv_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

/* The dtype in which linear will find the matrix; 0: it can't. */
static int32_t prepared_dtype(int32_t stored, int32_t policy) {
  bool is_float = stored == VIV_F32 || stored == VIV_F64 || stored == VIV_F16 || stored == VIV_BF16;
  if (!is_float) return 0;
  switch (policy) {
  case VIV_WEIGHTS_AS_STORED:
    return stored == VIV_F64 ? VIV_F32 : stored;
  case VIV_WEIGHTS_F32:
    return VIV_F32;
  case VIV_WEIGHTS_BF16:
    return VIV_BF16;
  case VIV_WEIGHTS_F16:
    return VIV_F16;
  default:
    return 0;
  }
}

/* n elements of any dtype as f32; false: dtype has no numbers. */
static bool to_floats(const viv__kernels *kernels, int32_t dtype, const char *from, float *y,
                      int64_t n) {
#define CONVERT(type)                                                                              \
  for (int64_t i = 0; i < n; i++) {                                                                \
    type value;                                                                                    \
    memcpy(&value, from + (size_t)i * sizeof value, sizeof value);                                 \
    y[i] = (float)value;                                                                           \
  }                                                                                                \
  return true
  switch (dtype) {
  case VIV_F32:
  case VIV_F16:
  case VIV_BF16:
    kernels->load(dtype, from, y, n);
    return true;
  case VIV_F64:
    CONVERT(double);
  case VIV_I64:
    CONVERT(int64_t);
  case VIV_I32:
    CONVERT(int32_t);
  case VIV_I16:
    CONVERT(int16_t);
  case VIV_I8:
    CONVERT(int8_t);
  case VIV_U8:
  case VIV_BOOL:
    CONVERT(uint8_t);
  default:
    return false;
  }
#undef CONVERT
}

struct convert {
  const viv__kernels *kernels;
  const char *from;
  char *to;
  int32_t from_dtype, to_dtype;
};

static void convert_range(void *ctx, int64_t begin, int64_t end) {
  const struct convert *s = ctx;
  size_t from_size = viv__dtype_size(s->from_dtype), to_size = viv__dtype_size(s->to_dtype);
  float block[1024];
  for (int64_t i = begin; i < end; i += 1024) {
    int64_t n = viv__min(1024, end - i);
    to_floats(s->kernels, s->from_dtype, s->from + (size_t)i * from_size, block, n);
    s->kernels->store(s->to_dtype, block, s->to + (size_t)i * to_size, n);
  }
}

static int64_t rows_of(const viv_tensor *t) {
  int64_t rows = 1;
  for (int32_t i = 0; i + 1 < t->ndim; i++) rows *= t->shape[i];
  return rows;
}

static int32_t weight_rows(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                           int64_t row_begin, int64_t row_end, int32_t policy, viv_weight **out,
                           viv_error *error) {
  if (policy == VIV_WEIGHTS_INT8 || policy == VIV_WEIGHTS_INT4)
    return VIV_FAIL(error, VIV_NEVER, "weight policy",
                    "the policy %s is not built into this host yet; load the model with "
                    "as_stored, f32, bf16 or f16",
                    policy == VIV_WEIGHTS_INT8 ? "int8" : "int4");
  if (policy < VIV_WEIGHTS_AS_STORED || policy > VIV_WEIGHTS_INT4)
    return VIV_FAIL(error, VIV_BUG, "weight policy", "%d is no enum viv_weight_policy", policy);
  int32_t dtype = prepared_dtype(tensor->dtype, policy);
  if (!dtype)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "a weight matrix must be F32, F64, F16 or BF16, this tensor is %s",
                    viv__dtype_name(tensor->dtype));
  if (tensor->ndim < 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "a weight matrix needs at least one dimension, this tensor is a scalar");
  int64_t in = tensor->shape[tensor->ndim - 1], rows = rows_of(tensor);
  if (row_begin < 0 || row_begin > row_end || row_end > rows)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "rows %lld to %lld were asked of a matrix of %lld rows", (long long)row_begin,
                    (long long)row_end, (long long)rows);

  viv_weight *w = viv__arena_alloc(arena, sizeof *w);
  size_t stored_size = viv__dtype_size(tensor->dtype);
  const char *from = (const char *)tensor->data + (size_t)(row_begin * in) * stored_size;
  void *copy = NULL;
  int64_t n = (row_end - row_begin) * in;
  if (w && dtype != tensor->dtype)
    copy = viv__arena_alloc(arena, (uint64_t)n * viv__dtype_size(dtype));
  if (!w || (dtype != tensor->dtype && !copy))
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no room for a matrix of %lld elements as %s",
                    (long long)n, viv__dtype_name(dtype));
  if (copy) {
    struct convert s = {viv__compute_of(c)->kernels, from, copy, tensor->dtype, dtype};
    viv__parallel(c, n, 1 << 16, convert_range, &s);
  }
  *w = (viv_weight){
      .data = copy ? copy : from, .out = row_end - row_begin, .in = in, .dtype = dtype};
  *out = w;
  return VIV_OK;
}

static int32_t weight_prepare(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                              int32_t policy, viv_weight **out, viv_error *error) {
  return weight_rows(c, arena, tensor, 0, rows_of(tensor), policy, out, error);
}

static uint64_t round_up(uint64_t bytes) { /* as the arena does */
  return (bytes + 63) / 64 * 64;
}

static uint64_t weight_bytes(const viv_compute *c, const viv_tensor *tensor, int32_t policy) {
  (void)c;
  int32_t dtype = prepared_dtype(tensor->dtype, policy);
  uint64_t bytes = round_up(sizeof(viv_weight));
  if (dtype && dtype != tensor->dtype)
    bytes += round_up((uint64_t)elements_of(tensor) * viv__dtype_size(dtype));
  return bytes;
}

static const float *floats(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor) {
  if (tensor->dtype == VIV_F32 && tensor->data && (uintptr_t)tensor->data % sizeof(float) == 0)
    return tensor->data;
  size_t size = viv__dtype_size(tensor->dtype);
  if (!size) return NULL;
  int64_t n = elements_of(tensor);
  float *y = viv__arena_alloc(arena, (uint64_t)n * sizeof *y);
  if (!y || !to_floats(viv__compute_of(c)->kernels, tensor->dtype, tensor->data, y, n)) return NULL;
  return y;
}

void viv__table_weights(viv_compute *t) {
  t->weight_prepare = weight_prepare;
  t->weight_rows = weight_rows;
  t->weight_bytes = weight_bytes;
  t->floats = floats;
}
