/* The table viv.compute/1: splits each operation over the pool and hands the pieces to the kernels
 * that fit the processor. No piece's result depends on how the work was split. */
#include "compute/internal.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Work below this many multiply-adds (or so) is not worth waking a thread for. */
enum { MIN_WORK = 1 << 15 };

/* Pieces of that much work each, in units of `unit`. */
static int64_t grain_of(int64_t work_of_unit) {
  return viv__max(1, MIN_WORK / viv__max(1, work_of_unit));
}

static void parallel_for(const viv_compute *c, int64_t n, int64_t grain, viv__body body,
                         void *ctx) {
  viv__pool_run(viv__compute_of(c)->pool, n, grain, body, ctx);
}

/* ---- weights ---- */

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
    parallel_for(c, n, 1 << 16, convert_range, &s);
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

/* ---- linear ---- */

/* Rows are taken in blocks whose x stays in the cache that the cores share while the weights pass
 * by once; a block's outputs are cut into chunks. A task is one chunk of one block. */
struct linear {
  const viv__kernels *kernels;
  const viv_weight *w;
  const float *bias, *x;
  float *y;
  int64_t rows, row_block, out_chunk, chunks;
};

static void linear_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct linear *s = ctx;
  const viv_weight *w = s->w;
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  for (int64_t i = begin; i < end; i++) {
    int64_t row = i / s->chunks * s->row_block, out = i % s->chunks * s->out_chunk;
    s->kernels->linear((const char *)w->data + out * w->in * size, w->dtype, w->in,
                       viv__min(s->out_chunk, w->out - out), w->in, s->bias ? s->bias + out : NULL,
                       s->x + row * w->in, w->in, viv__min(s->row_block, s->rows - row),
                       s->y + row * w->out + out, w->out);
  }
}

static void linear(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                   float *y, int64_t rows) {
  if (rows < 1 || w->out < 1) return;
  struct linear s = {viv__compute_of(c)->kernels, w, bias, x, y, rows, 0, 0, 0};
  enum { BLOCK_BYTES = 4 << 20, TILE_OUTS = 8, CHUNK_OUTS = 64 };
  int64_t tile = s.kernels->tile_rows, tasks = c->threads > 1 ? c->threads * 8 : 1;
  int64_t tiles = (rows + tile - 1) / tile; /* of rows */
  int64_t fit = viv__max(1, BLOCK_BYTES / (tile * viv__max(1, w->in) * (int64_t)sizeof(float)));
  int64_t blocks = (tiles + fit - 1) / fit;

  /* Outputs are cut first, down to a width that still uses each row of x well; then rows. */
  int64_t per_block = (tasks + blocks - 1) / blocks;
  s.out_chunk = viv__max((w->out + per_block - 1) / per_block, rows > tile ? CHUNK_OUTS : 1);
  s.out_chunk = viv__max(s.out_chunk, grain_of(viv__min(rows, fit * tile) * w->in));
  s.out_chunk = (s.out_chunk + TILE_OUTS - 1) / TILE_OUTS * TILE_OUTS;
  s.chunks = (w->out + s.out_chunk - 1) / s.out_chunk;
  blocks = viv__max(blocks, viv__min(tasks / s.chunks, tiles * tile * w->in * w->out / MIN_WORK));
  s.row_block = (tiles + blocks - 1) / blocks * tile;
  blocks = (rows + s.row_block - 1) / s.row_block;
  parallel_for(c, blocks * s.chunks, 1, linear_tasks, &s);
}

static void gather(const viv_compute *c, const viv_weight *w, const int32_t *ids, int64_t n,
                   float *y) {
  int64_t size = w->dtype == VIV_F32 ? 4 : 2;
  for (int64_t i = 0; i < n; i++)
    viv__compute_of(c)->kernels->load(w->dtype, (const char *)w->data + ids[i] * w->in * size,
                                      y + i * w->in, w->in);
}

/* ---- rows ---- */

struct rows {
  const viv__kernels *kernels;
  const float *x, *w, *b;
  float *y;
  float eps;
  int64_t d;
};

static void layer_norm_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->layer_norm(s->x + begin * s->d, s->w, s->b, s->eps, end - begin, s->d,
                         s->y + begin * s->d);
}

static void layer_norm(const viv_compute *c, const float *x, const float *w, const float *b,
                       float eps, int64_t rows, int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, w, b, y, eps, d};
  parallel_for(c, rows, grain_of(d), layer_norm_range, &s);
}

static void rms_norm_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->rms_norm(s->x + begin * s->d, s->w, s->eps, end - begin, s->d, s->y + begin * s->d);
}

static void rms_norm(const viv_compute *c, const float *x, const float *w, float eps, int64_t rows,
                     int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, w, NULL, y, eps, d};
  parallel_for(c, rows, grain_of(d), rms_norm_range, &s);
}

static void softmax_range(void *ctx, int64_t begin, int64_t end) {
  const struct rows *s = ctx;
  s->kernels->softmax(s->x + begin * s->d, end - begin, s->d, s->y + begin * s->d);
}

static void softmax(const viv_compute *c, const float *x, int64_t rows, int64_t d, float *y) {
  struct rows s = {viv__compute_of(c)->kernels, x, NULL, NULL, y, 0.0f, d};
  parallel_for(c, rows, grain_of(d * 4), softmax_range, &s);
}

/* ---- elements ---- */

struct elements {
  const viv__kernels *kernels;
  const float *x, *value;
  float *y;
  int64_t n; /* of a row, for glu */
  int32_t kind;
};

static void unary_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->unary(s->kind, s->x + begin, s->y + begin, end - begin);
}

static void unary(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, x, NULL, y, n, kind};
  parallel_for(c, n, grain_of(4), unary_range, &s);
}

static void gate_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->gate(s->kind, s->x + begin, s->value + begin, s->y + begin, end - begin);
}

static void gate_elements(const viv_compute *c, int32_t kind, float *gate, const float *value,
                          int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, gate, value, gate, n, kind};
  parallel_for(c, n, grain_of(4), gate_range, &s);
}

static void glu_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  for (int64_t r = begin; r < end; r++)
    s->kernels->gate(s->kind, s->x + r * 2 * s->n, s->x + (r * 2 + 1) * s->n, s->y + r * s->n,
                     s->n);
}

static void glu(const viv_compute *c, int32_t kind, const float *x, float *y, int64_t rows,
                int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, x, x + n, y, n, kind};
  if (rows == 1)
    parallel_for(c, n, grain_of(4), gate_range, &s);
  else
    parallel_for(c, rows, grain_of(n * 4), glu_range, &s);
}

static void add_range(void *ctx, int64_t begin, int64_t end) {
  const struct elements *s = ctx;
  s->kernels->axpy(1.0f, s->x + begin, s->y + begin, end - begin);
}

static void add(const viv_compute *c, float *x, const float *y, int64_t n) {
  struct elements s = {viv__compute_of(c)->kernels, y, NULL, x, n, 0};
  parallel_for(c, n, 1 << 16, add_range, &s);
}

/* ---- rotary embeddings ---- */

struct rope {
  const viv__kernels *kernels;
  const int32_t *pos;
  const float *inv_freq;
  float *x, *cos_sin;
  int64_t x_stride, heads, head_dim, half;
  float m;
  int32_t interleaved;
};

/* In double: an angle of 100000 radians has only two digits of its phase left in f32. */
static void rope_table_range(void *ctx, int64_t begin, int64_t end) {
  const struct rope *s = ctx;
  for (int64_t r = begin; r < end; r++)
    for (int64_t i = 0; i < s->half; i++) {
      double angle = (double)s->pos[r] * s->inv_freq[i];
      s->cos_sin[r * 2 * s->half + i] = (float)(cos(angle) * s->m);
      s->cos_sin[r * 2 * s->half + s->half + i] = (float)(sin(angle) * s->m);
    }
}

static void rope_table(const viv_compute *c, const int32_t *pos, int64_t rows,
                       const float *inv_freq, int64_t half, float m, float *cos_sin) {
  struct rope s = {.pos = pos, .inv_freq = inv_freq, .half = half, .m = m, .cos_sin = cos_sin};
  parallel_for(c, rows, grain_of(half * 64), rope_table_range, &s);
}

static void rope_apply_range(void *ctx, int64_t begin, int64_t end) {
  struct rope *s = ctx;
  s->kernels->rope(s->x + begin * s->x_stride, s->x_stride, end - begin, s->heads, s->head_dim,
                   s->cos_sin + begin * 2 * s->half, s->half, s->interleaved);
}

static void rope_apply(const viv_compute *c, float *x, int64_t x_stride, int64_t rows,
                       int64_t heads, int64_t head_dim, const float *cos_sin, int64_t half,
                       int32_t interleaved) {
  float *table = (float *)(uintptr_t)cos_sin; /* read only here */
  struct rope s = {.kernels = viv__compute_of(c)->kernels,
                   .x = x,
                   .x_stride = x_stride,
                   .heads = heads,
                   .head_dim = head_dim,
                   .cos_sin = table,
                   .half = half,
                   .interleaved = interleaved};
  if (!s.x_stride) s.x_stride = heads * head_dim;
  parallel_for(c, rows, grain_of(heads * half * 2), rope_apply_range, &s);
}

/* ---- attention ---- */

/* Heads that read the same keys and values form a group. A task is one group over a few rows: what
 * it loads of a key serves all of them. Neighbouring groups of the same rows are run together. */
enum { MAX_HEADS = 1024, TASK_QUERIES = 32 };

struct attention {
  const viv__kernels *kernels;
  const viv_attention *a;
  int32_t groups, task_rows;
  int32_t head[MAX_HEADS];      /* sorted by group */
  int32_t begin[MAX_HEADS + 1]; /* of a group in head */
};

static void attention_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct attention *s = ctx;
  const viv_attention *a = s->a;
  for (int64_t i = begin, next; i < end; i = next) {
    int64_t block = i / s->groups, first = block * s->task_rows;
    next = viv__min(end, (block + 1) * s->groups);
    int32_t head = s->begin[i % s->groups], heads = s->begin[(next - 1) % s->groups + 1] - head;
    int32_t row = (int32_t)first, stop = (int32_t)viv__min(a->rows, first + s->task_rows);
    while (row < stop) {
      int32_t same = row + 1;
      while (same < stop && a->kv[same] == a->kv[row]) same++;
      s->kernels->attention(a, s->head + head, heads, row, same);
      row = same;
    }
  }
}

static void group_heads(struct attention *s) {
  const viv_attention *a = s->a;
  int32_t group[MAX_HEADS];
  s->groups = 0;
  for (int32_t h = 0; h < a->heads; h++) {
    int32_t same = 0;
    while (same < h && (viv__k_offset(a, same) != viv__k_offset(a, h) ||
                        viv__v_offset(a, same) != viv__v_offset(a, h)))
      same++;
    group[h] = same < h ? group[same] : s->groups++;
  }
  int32_t n = 0;
  for (int32_t g = 0; g < s->groups; g++) {
    s->begin[g] = n;
    for (int32_t h = 0; h < a->heads; h++)
      if (group[h] == g) s->head[n++] = h;
  }
  s->begin[s->groups] = n;
}

static void attention(const viv_compute *c, const viv_attention *args) {
  struct attention s;
  s.kernels = viv__compute_of(c)->kernels;
  s.a = args;
  if (args->rows < 1 || args->heads < 1) return;
  if (args->heads > MAX_HEADS) { /* no model has so many: correct, but not shared out */
    for (int32_t r = 0; r < args->rows; r++)
      for (int32_t h = 0; h < args->heads; h++) s.kernels->attention(args, &h, 1, r, r + 1);
    return;
  }
  group_heads(&s);
  int32_t largest = 1;
  for (int32_t g = 0; g < s.groups; g++)
    largest = (int32_t)viv__max(largest, s.begin[g + 1] - s.begin[g]);
  s.task_rows = (int32_t)viv__max(1, TASK_QUERIES / largest);
  int64_t blocks = ((int64_t)args->rows + s.task_rows - 1) / s.task_rows;
  int64_t keys = args->visible[args->rows - 1];
  if (args->window > 0) keys = viv__min(keys, args->window);
  int64_t work = viv__min(args->rows, s.task_rows) * largest * args->head_dim * 2;
  int64_t grain = grain_of(work * viv__min(keys, 1 << 20));
  if (args->rows <= s.task_rows) /* decoding: two runs of groups for each thread */
    grain = viv__max(grain, (s.groups + 2 * c->threads - 1) / (2 * c->threads));
  parallel_for(c, blocks * s.groups, grain, attention_tasks, &s);
}

/* ---- state-space models ---- */

/* Channels are independent; a task is a vector of them. */
struct channels {
  const viv__kernels *kernels;
  const viv_causal_conv *conv;
  const viv_scan *scan;
};

static void conv_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  int32_t lanes = s->kernels->lanes;
  s->kernels->causal_conv(s->conv, (int32_t)begin * lanes,
                          (int32_t)viv__min(s->conv->channels, end * lanes));
}

static void causal_conv(const viv_compute *c, const viv_causal_conv *args) {
  struct channels s = {viv__compute_of(c)->kernels, args, NULL};
  int64_t n = ((int64_t)args->channels + s.kernels->lanes - 1) / s.kernels->lanes;
  parallel_for(c, n, grain_of(args->rows * args->taps * s.kernels->lanes * 2), conv_range, &s);
}

static void scan_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  int32_t lanes = s->kernels->lanes;
  s->kernels->scan(s->scan, (int32_t)begin * lanes,
                   (int32_t)viv__min(s->scan->channels, end * lanes));
}

static void scan(const viv_compute *c, const viv_scan *args) {
  struct channels s = {viv__compute_of(c)->kernels, NULL, args};
  int64_t n = ((int64_t)args->channels + s.kernels->lanes - 1) / s.kernels->lanes;
  parallel_for(c, n, grain_of(args->rows * args->states * s.kernels->lanes * 8), scan_range, &s);
}

/* ---- caches ---- */

static void store(const viv_compute *c, int32_t dtype, const float *x, void *y, int64_t n) {
  viv__compute_of(c)->kernels->store(dtype, x, y, n);
}

static void load(const viv_compute *c, int32_t dtype, const void *x, float *y, int64_t n) {
  viv__compute_of(c)->kernels->load(dtype, x, y, n);
}

/* ---- the table ---- */

static int32_t thread_count(void) {
  const char *text = getenv("VIV_THREADS");
  long n = text ? strtol(text, NULL, 10) : 0;
  cpu_set_t set;
  if (n < 1 && !sched_getaffinity(0, sizeof set, &set)) n = CPU_COUNT(&set);
  return n < 1 ? 1 : n > 1024 ? 1024 : (int32_t)n;
}

static bool has_all(const char *const *features, int n) {
  for (int i = 0; i < n; i++)
    if (!viv__cpu_has(viv__str(features[i]))) return false;
  return true;
}

/* NULL: this processor can't run that set. */
static const viv__kernels *kernels_for(int32_t isa) {
#if defined(__x86_64__)
  static const char *const need[] = {"avx2",     "fma",      "f16c",     "avx512f",
                                     "avx512bw", "avx512dq", "avx512vl", "avx512cd"};
  bool avx2 = has_all(need, 3), avx512 = has_all(need, 8);
  if ((isa == VIV__ISA_AUTO || isa == VIV__ISA_AVX512) && avx512) return &viv__kernels_avx512;
  if ((isa == VIV__ISA_AUTO || isa == VIV__ISA_AVX2) && avx2) return &viv__kernels_avx2;
#endif
  if (isa == VIV__ISA_AUTO || isa == VIV__ISA_PORTABLE) return &viv__kernels_portable;
  return NULL;
}

int32_t viv__compute_new(int32_t threads, int32_t isa, const viv_compute **out, viv_error *error) {
  const viv__kernels *kernels = kernels_for(isa);
  if (!kernels)
    return VIV_FAIL(error, VIV_NEVER, "instruction set",
                    "this processor can't run the kernels for %s; it offers %s",
                    isa == VIV__ISA_AVX512 ? "avx512" : "avx2", viv__cpu_features());
  viv__compute *c = viv__calloc(1, sizeof *c);
  viv__pool *pool = c ? viv__pool_new(threads > 0 ? threads : thread_count()) : NULL;
  if (!pool) {
    viv__free(c);
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no memory for the compute pool");
  }
  c->kernels = kernels;
  c->pool = pool;
  c->blas = viv__blas_load();
  c->table = (viv_compute){
      .struct_size = sizeof(viv_compute),
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .threads = viv__pool_threads(pool),
      .self = c,
      .parallel_for = parallel_for,
      .weight_prepare = weight_prepare,
      .weight_rows = weight_rows,
      .weight_bytes = weight_bytes,
      .floats = floats,
      .linear = linear,
      .gather = gather,
      .gemm = viv__gemm,
      .layer_norm = layer_norm,
      .rms_norm = rms_norm,
      .softmax = softmax,
      .unary = unary,
      .gate = gate_elements,
      .glu = glu,
      .add = add,
      .rope_table = rope_table,
      .rope_apply = rope_apply,
      .attention = attention,
      .causal_conv = causal_conv,
      .scan = scan,
      .conv2d = viv__conv2d,
      .conv2d_scratch = viv__conv2d_scratch,
      .store = store,
      .load = load,
  };
  *out = &c->table;
  return VIV_OK;
}

void viv__compute_free(const viv_compute *c) {
  if (!c) return;
  viv__compute *self = c->self;
  viv__pool_free(self->pool);
  viv__free(self);
}

const char *viv__compute_isa(const viv_compute *c) {
  return viv__compute_of(c)->kernels->name;
}

const char *viv__compute_blas(const viv_compute *c) {
  return viv__compute_of(c)->blas ? viv__blas_corename() : "none";
}
