/* Prepared weights: a checkpoint's matrix under a dtype policy, and small tensors as floats. */
#include "compute/internal.h"
#include "compute/quant.h"

#include <string.h>

static int64_t elements_of(const viv_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

/* The dtype in which linear will find a matrix with rows of in elements; 0: it can't. */
static int32_t prepared_dtype(int32_t stored, int64_t in, int32_t policy) {
  bool block = viv__is_block(stored), whole = in % 32 == 0;
  bool is_float = stored == VIV_F32 || stored == VIV_F64 || stored == VIV_F16 || stored == VIV_BF16;
  if (!is_float && !block) return 0;
  if (in > VIV__BLOCK_COLS && (policy == VIV_WEIGHTS_INT8 || policy == VIV_WEIGHTS_INT4))
    policy = VIV_WEIGHTS_AS_STORED;
  switch (policy) {
  case VIV_WEIGHTS_AS_STORED:
    return stored == VIV_F64 || (block && in > VIV__BLOCK_COLS) ? VIV_F32 : stored;
  case VIV_WEIGHTS_F32:
    return VIV_F32;
  case VIV_WEIGHTS_BF16:
    return VIV_BF16;
  case VIV_WEIGHTS_F16:
    return VIV_F16;
  case VIV_WEIGHTS_INT8:
    return whole ? VIV_Q8_0 : VIV_INT8_ROW;
  case VIV_WEIGHTS_INT4:
    return whole ? VIV_Q4_1 : VIV_INT8_ROW;
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
  const viv__compute *compute;
  const char *from;
  char *to;
  int64_t in; /* elements of a row */
  int32_t from_dtype, to_dtype;
};

enum { PIECE = 1024 }; /* elements that are converted at once; a multiple of every block */

/* Elements [begin, begin + n) of a row, n at most PIECE and begin a multiple of it. */
static void piece_of_row(const struct convert *s, const char *row, int64_t begin, int64_t n,
                         float *y) {
  if (viv__is_block(s->from_dtype))
    viv__dequantize_row(s->from_dtype, row, s->in, begin, n, y);
  else
    to_floats(s->compute->kernels, s->from_dtype,
              row + (size_t)begin * viv__dtype_size(s->from_dtype), y, n);
}

/* Between formats without blocks rows don't matter: elements [begin, end). */
static void convert_elements(void *ctx, int64_t begin, int64_t end) {
  const struct convert *s = ctx;
  size_t to_size = viv__dtype_size(s->to_dtype);
  float block[PIECE];
  for (int64_t i = begin; i < end; i += PIECE) {
    int64_t n = viv__min(PIECE, end - i);
    piece_of_row(s, s->from, i, n, block);
    s->compute->kernels->store(s->to_dtype, block, s->to + (size_t)i * to_size, n);
  }
}

static void convert_rows(void *ctx, int64_t begin, int64_t end) {
  const struct convert *s = ctx;
  int64_t from_bytes = (int64_t)viv__row_bytes(s->from_dtype, s->in);
  int64_t to_bytes = (int64_t)viv__row_bytes(s->to_dtype, s->in);
  bool to_block = viv__is_block(s->to_dtype);
  int64_t size = (int64_t)viv__dtype_size(s->to_dtype);
  float *floats = viv__scratch_take(s->compute->scratch); /* a row, or a piece of one */
  for (int64_t r = begin; r < end; r++) {
    const char *from = s->from + r * from_bytes;
    char *to = s->to + r * to_bytes;
    for (int64_t i = 0; i < s->in; i += PIECE) {
      int64_t n = viv__min(PIECE, s->in - i);
      float *y = to_block ? floats + i : floats;
      piece_of_row(s, from, i, n, y);
      if (!to_block) s->compute->kernels->store(s->to_dtype, y, to + i * size, n);
    }
    if (to_block) viv__quantize_row(s->to_dtype, floats, NULL, to, s->in);
  }
  viv__scratch_give(s->compute->scratch, floats);
}

static void convert(const viv_compute *c, const struct convert *s, int64_t rows) {
  union { /* the pool's bodies take what they only read as what they may write */
    const struct convert *in;
    void *out;
  } ctx = {s};
  if (viv__is_block(s->from_dtype) || viv__is_block(s->to_dtype))
    viv__parallel(c, rows, viv__grain(s->in), convert_rows, ctx.out);
  else
    viv__parallel(c, rows * s->in, 1 << 16, convert_elements, ctx.out);
}

static int64_t rows_of(const viv_tensor *t) {
  int64_t rows = 1;
  for (int32_t i = 0; i + 1 < t->ndim; i++) rows *= t->shape[i];
  return rows;
}

/* Bytes of the copy of that many rows; 0: none is made. */
static uint64_t copy_bytes(const viv_tensor *tensor, int64_t rows, int32_t policy) {
  int64_t in = tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 0;
  int32_t dtype = prepared_dtype(tensor->dtype, in, policy);
  return dtype && dtype != tensor->dtype ? (uint64_t)rows * viv__row_bytes(dtype, in) : 0;
}

/* Can the tensor be prepared, these rows of it, under that policy? */
static int32_t check(const viv_tensor *tensor, int64_t row_begin, int64_t row_end, int32_t policy,
                     viv_error *error) {
  if (policy < VIV_WEIGHTS_AS_STORED || policy > VIV_WEIGHTS_INT4)
    return VIV_FAIL(error, VIV_BUG, "weight policy", "%d is no enum viv_weight_policy", policy);
  if (tensor->ndim < 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "a weight matrix needs at least one dimension, this tensor is a scalar");
  int64_t in = tensor->shape[tensor->ndim - 1], rows = rows_of(tensor);
  if (!prepared_dtype(tensor->dtype, in, policy))
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "a weight matrix must be F32, F64, F16, BF16 or of a block format, this tensor "
                    "is %s",
                    viv__dtype_name(tensor->dtype));
  if (viv__is_block(tensor->dtype) && !viv__row_bytes(tensor->dtype, in))
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "a row of %lld elements is not a whole number of blocks of %s (%d elements)",
                    (long long)in, viv__dtype_name(tensor->dtype),
                    viv__format_of(tensor->dtype)->span);
  if (row_begin < 0 || row_begin > row_end || row_end > rows)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tensor",
                    "rows %lld to %lld were asked of a matrix of %lld rows", (long long)row_begin,
                    (long long)row_end, (long long)rows);
  return VIV_OK;
}

static int32_t weight_rows(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                           int64_t row_begin, int64_t row_end, int32_t policy, viv_weight **out,
                           viv_error *error) {
  int32_t status = check(tensor, row_begin, row_end, policy, error);
  if (status < 0) return status;
  int64_t in = tensor->shape[tensor->ndim - 1], rows = row_end - row_begin;
  int32_t dtype = prepared_dtype(tensor->dtype, in, policy);
  uint64_t bytes = copy_bytes(tensor, rows, policy);
  const char *from =
      (const char *)tensor->data + (uint64_t)row_begin * viv__row_bytes(tensor->dtype, in);
  viv_weight *w = viv__arena_alloc(arena, sizeof *w);
  void *copy = w && bytes ? viv__arena_alloc(arena, bytes) : NULL;
  if (!w || (bytes && !copy))
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no room for a matrix of %lld x %lld as %s",
                    (long long)rows, (long long)in, viv__dtype_name(dtype));
  if (copy) {
    struct convert s = {viv__compute_of(c), from, copy, in, tensor->dtype, dtype};
    convert(c, &s, rows);
  }
  *w = (viv_weight){.data = copy ? copy : from, .out = rows, .in = in, .dtype = dtype};
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

static uint64_t weight_rows_bytes(const viv_compute *c, const viv_tensor *tensor, int64_t rows,
                                  int32_t policy) {
  (void)c;
  return round_up(sizeof(viv_weight)) + round_up(copy_bytes(tensor, rows, policy));
}

static uint64_t weight_bytes(const viv_compute *c, const viv_tensor *tensor, int32_t policy) {
  return weight_rows_bytes(c, tensor, rows_of(tensor), policy);
}

static const float *floats(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor) {
  if (tensor->dtype == VIV_F32 && tensor->data && (uintptr_t)tensor->data % sizeof(float) == 0)
    return tensor->data;
  bool block = viv__is_block(tensor->dtype);
  int64_t n = elements_of(tensor), in = tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1;
  int64_t row_bytes = (int64_t)viv__row_bytes(tensor->dtype, in);
  if (block ? !row_bytes : !viv__dtype_size(tensor->dtype)) return NULL;
  float *y = viv__arena_alloc(arena, (uint64_t)n * sizeof *y);
  if (!y) return NULL;
  if (!block)
    return to_floats(viv__compute_of(c)->kernels, tensor->dtype, tensor->data, y, n) ? y : NULL;
  for (int64_t r = 0; r * in < n; r++)
    viv__dequantize_row(tensor->dtype, (const char *)tensor->data + r * row_bytes, in, 0, in,
                        y + r * in);
  return y;
}

void viv__table_weights(viv_compute *t) {
  t->weight_prepare = weight_prepare;
  t->weight_rows = weight_rows;
  t->weight_bytes = weight_bytes;
  t->weight_rows_bytes = weight_rows_bytes;
  t->floats = floats;
}
