/* A compute table that takes notes of what weights are used for. */
#include "core/record.h"

#include <string.h>

typedef struct matrix {
  const void *data; /* the tensor's, which tells tensors apart */
  int64_t columns;
  double *squares; /* [columns], sums; NULL until a product is seen */
  float *mean;
  double rows;
} matrix;

typedef struct handle {
  const viv_weight *weight;
  size_t matrix;
} handle;

struct viv__recorder {
  viv_compute table; /* first: plugins hand it back as the table that they were given */
  const viv_compute *plain;
  viv_runtime *rt;
  matrix *matrices;
  handle *handles;
  size_t n_matrices, n_handles, cap_matrices, cap_handles;
};

static viv__recorder *recorder(const viv_compute *c) {
  return (viv__recorder *)(uintptr_t)c;
}

/* ---- notes ---- */

static matrix *find(const viv__recorder *r, const void *data) {
  for (size_t i = 0; i < r->n_matrices; i++)
    if (r->matrices[i].data == data) return &r->matrices[i];
  return NULL;
}

static bool room(void **list, size_t n, size_t *cap, size_t size) {
  if (n < *cap) return true;
  size_t grown = *cap ? *cap * 2 : 256;
  void *p = viv__realloc(*list, grown * size);
  if (!p) return false;
  *list = p;
  *cap = grown;
  return true;
}

static int32_t note(viv__recorder *r, const viv_tensor *t, const viv_weight *w, viv_error *error) {
  if (!room((void **)&r->matrices, r->n_matrices, &r->cap_matrices, sizeof *r->matrices) ||
      !room((void **)&r->handles, r->n_handles, &r->cap_handles, sizeof *r->handles))
    return VIV_FAIL(error, VIV_NOT_NOW, "record", "no memory for notes");
  matrix *m = find(r, t->data);
  if (!m) {
    r->matrices[r->n_matrices] = (matrix){.data = t->data, .columns = t->shape[t->ndim - 1]};
    m = &r->matrices[r->n_matrices++];
  }
  r->handles[r->n_handles++] = (handle){w, (size_t)(m - r->matrices)};
  return VIV_OK;
}

/* x [rows, columns] is about to be multiplied with w. Without memory the notes stay incomplete,
 * which only costs quality. */
static void watch(viv__recorder *r, const viv_weight *w, const float *x, int64_t stride,
                  int64_t rows) {
  matrix *m = NULL;
  for (size_t i = 0; i < r->n_handles && !m; i++)
    if (r->handles[i].weight == w) m = &r->matrices[r->handles[i].matrix];
  if (!m) return;
  if (!m->squares) m->squares = viv__calloc((size_t)m->columns, sizeof *m->squares);
  if (!m->squares) return;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < m->columns; k++) {
      double value = (double)x[i * stride + k];
      m->squares[k] += value * value;
    }
  m->rows += (double)rows;
}

/* ---- the table's functions ---- */

static int32_t weight_prepare(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                              int32_t policy, viv_weight **out, viv_error *error) {
  viv__recorder *r = recorder(c);
  int32_t status = r->plain->weight_prepare(c, arena, tensor, policy, out, error);
  return status < 0 ? status : note(r, tensor, *out, error);
}

static int32_t weight_rows(const viv_compute *c, viv_arena *arena, const viv_tensor *tensor,
                           int64_t row_begin, int64_t row_end, int32_t policy, viv_weight **out,
                           viv_error *error) {
  viv__recorder *r = recorder(c);
  int32_t status = r->plain->weight_rows(c, arena, tensor, row_begin, row_end, policy, out, error);
  return status < 0 ? status : note(r, tensor, *out, error);
}

static int64_t columns_of(const viv__recorder *r, const viv_weight *w) {
  for (size_t i = 0; i < r->n_handles; i++)
    if (r->handles[i].weight == w) return r->matrices[r->handles[i].matrix].columns;
  return 0;
}

static void linear(const viv_compute *c, const viv_weight *w, const float *bias, const float *x,
                   float *y, int64_t rows) {
  viv__recorder *r = recorder(c);
  watch(r, w, x, columns_of(r, w), rows);
  r->plain->linear(c, w, bias, x, y, rows);
}

static void linear_to(const viv_compute *c, const viv_weight *w, const float *bias, int32_t act,
                      const float *residual, const float *x, int64_t x_stride, float *y,
                      int64_t y_stride, int64_t rows) {
  viv__recorder *r = recorder(c);
  watch(r, w, x, x_stride, rows);
  r->plain->linear_to(c, w, bias, act, residual, x, x_stride, y, y_stride, rows);
}

static void linears(const viv_compute *c, int32_t n, const viv_weight *const *w,
                    const float *const *bias, const float *x, float *const *y, int64_t rows) {
  viv__recorder *r = recorder(c);
  for (int32_t i = 0; i < n; i++) watch(r, w[i], x, columns_of(r, w[i]), rows);
  r->plain->linears(c, n, w, bias, x, y, rows);
}

/* ---- begin and end ---- */

viv__recorder *viv__record(viv_runtime *rt) {
  viv__recorder *r = viv__calloc(1, sizeof *r);
  if (!r) return NULL;
  r->rt = rt;
  r->plain = rt->compute;
  r->table = *rt->compute; /* self stays the original's, which its functions want */
  r->table.weight_prepare = weight_prepare;
  r->table.weight_rows = weight_rows;
  r->table.linear = linear;
  if (r->table.linear_to) r->table.linear_to = linear_to;
  if (r->table.linears) r->table.linears = linears;
  rt->compute = &r->table;
  return r;
}

void viv__record_end(viv__recorder *r) {
  if (!r) return;
  r->rt->compute = r->plain;
  for (size_t i = 0; i < r->n_matrices; i++) {
    viv__free(r->matrices[i].squares);
    viv__free(r->matrices[i].mean);
  }
  viv__free(r->matrices);
  viv__free(r->handles);
  viv__free(r);
}

bool viv__recorded(const viv__recorder *r, const viv_tensor *t) {
  return t->data && find(r, t->data);
}

const float *viv__recorded_inputs(viv__recorder *r, const viv_tensor *t) {
  matrix *m = find(r, t->data);
  if (!m || !m->squares || m->rows <= 0) return NULL;
  if (!m->mean) m->mean = viv__malloc((size_t)m->columns * sizeof *m->mean);
  for (int64_t k = 0; m->mean && k < m->columns; k++) m->mean[k] = (float)(m->squares[k] / m->rows);
  return m->mean;
}
