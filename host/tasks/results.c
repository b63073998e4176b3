/* Gathers a job's results by the task's schema. */
#include "tasks/results.h"

#include <string.h>

enum { MAX_PICTURES = 1 << 16 };

static int32_t grow(viv__results *r, int64_t n, viv_error *error) {
  if (n <= r->n) return VIV_OK;
  if (n > MAX_PICTURES)
    return VIV_FAIL(error, VIV_BUG, "results", "the model numbers a picture %lld",
                    (long long)(n - 1));
  viv__picture_results *p = viv__realloc(r->pictures, (size_t)n * sizeof *p);
  if (!p) return VIV_FAIL(error, VIV_NOT_NOW, "results", "no memory");
  memset(p + r->n, 0, (size_t)(n - r->n) * sizeof *p);
  r->pictures = p;
  r->n = n;
  return VIV_OK;
}

int32_t viv__results_take(viv__results *r, const viv_event *event, viv_error *error) {
  int64_t picture = 0;
  if (event->kind != VIV_KIND_TENSOR || event->flags & VIV_EVENT_TAP) return VIV_OK;
  const viv_tensor *t = event->tensor;
  const viv__field_schema *f = viv__field_find(r->schema, event->name, t->ndim, &picture);
  if (!f) return VIV_OK;
  int32_t status = grow(r, picture + 1, error);
  if (status < 0) return status;
  viv__picture_results *p = &r->pictures[picture];
  status = viv__field_check(f, event->name, t, p->sizes, error);
  if (status < 0) return status;
  void *data = viv__malloc(t->bytes ? t->bytes : 1);
  if (!data) return VIV_FAIL(error, VIV_NOT_NOW, "results", "no memory");
  if (t->bytes) memcpy(data, t->data, t->bytes);
  viv__free(p->fields[f->field].data);
  p->fields[f->field] = *t;
  p->fields[f->field].data = data;
  p->fields[f->field].release = NULL;
  return VIV_OK;
}

int32_t viv__results_check(viv__results *r, int64_t n, viv_error *error) {
  bool any = false;
  int32_t status = grow(r, n, error);
  if (status < 0) return status;
  for (int64_t i = 0; i < n; i++) {
    for (const viv__field_schema *f = r->schema->fields; f->name; f++) {
      const viv_tensor *t = &r->pictures[f->numbered ? i : 0].fields[f->field];
      any |= t->dtype != 0;
      if (!f->optional && !t->dtype)
        return VIV_FAIL(error, VIV_BUG, f->name, "the model gave no \"%s\" for picture %lld of %s",
                        f->name, (long long)i, r->schema->name);
      if (!f->numbered && t->shape[0] != n)
        return VIV_FAIL(error, VIV_BUG, f->name, "the model gave %lld rows for %lld pictures",
                        (long long)t->shape[0], (long long)n);
    }
  }
  if (!any)
    return VIV_FAIL(error, VIV_BUG, r->schema->name, "the model gave none of the task's results");
  return VIV_OK;
}

void viv__results_free(viv__results *r) {
  for (int64_t i = 0; i < r->n; i++)
    for (int f = 0; f < VIV__N_FIELDS; f++) viv__free(r->pictures[i].fields[f].data);
  viv__free(r->pictures);
  r->pictures = NULL;
  r->n = 0;
}

const viv_tensor *viv__result(const viv__results *r, int64_t i, int32_t field) {
  const viv_tensor *t = i < r->n ? &r->pictures[i].fields[field] : NULL;
  return t && t->dtype ? t : NULL;
}

int64_t viv__result_count(const viv__results *r, int64_t i) {
  int64_t known = i < r->n ? r->pictures[i].sizes[-1 - VIV__AXIS_N] : 0;
  return known ? known - 1 : 0;
}

double viv__result_score(const viv__results *r, int64_t i, int64_t instance) {
  const viv_tensor *t = viv__result(r, i, VIV__SCORES);
  return t ? (double)((const float *)t->data)[instance] : 1;
}

int64_t viv__result_integer(const viv_tensor *t, int64_t at) {
  switch (t->dtype) {
  case VIV_I64:
    return ((const int64_t *)t->data)[at];
  case VIV_I32:
    return ((const int32_t *)t->data)[at];
  default:
    return ((const uint8_t *)t->data)[at];
  }
}

const float *viv__result_row(const viv__results *r, int64_t i, int32_t field, int64_t *n) {
  const viv_tensor *t = viv__result(r, 0, field);
  *n = t ? t->shape[1] : 0;
  return t ? (const float *)t->data + i * t->shape[1] : NULL;
}

void viv__top(const float *values, int64_t n_values, int64_t *out, int64_t n) {
  int64_t have = 0;
  for (int64_t i = 0; i < n_values; i++) {
    int64_t at = have < n ? have++ : n;
    for (; at > 0 && values[out[at - 1]] < values[i]; at--)
      if (at < n) out[at] = out[at - 1];
    if (at < n) out[at] = i;
  }
}
