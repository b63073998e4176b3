/* Holding one tensor against its golden: |ours - golden| <= atol, element by element. */
#include <math.h>
#include <string.h>

#include "cli/golden.h"

/* The axes longer than one: shapes are compared without the others. */
struct shape {
  int64_t dims[VIV_MAX_DIMS];
  int n;
};

static struct shape squeezed(const viv_tensor *t) {
  struct shape s = {{0}, 0};
  for (int i = 0; i < t->ndim; i++)
    if (t->shape[i] != 1) s.dims[s.n++] = t->shape[i];
  return s;
}

static bool same_shape(const viv_tensor *a, const viv_tensor *b) {
  struct shape x = squeezed(a), y = squeezed(b);
  return x.n == y.n && !memcmp(x.dims, y.dims, (size_t)x.n * sizeof *x.dims);
}

/* Per-step results of which the golden keeps the first n: ours, [.., steps, ..], is cut where its
 * shape first differs. Answers a copy that the caller drops, or ours as it is in *copied false. */
static viv_tensor first_steps(const viv_tensor *ours, const viv_tensor *golden, int64_t n,
                              bool *copied) {
  *copied = false;
  viv_tensor view = *ours;
  int axis = -1;
  int64_t golden_n = viv__numel(golden), ours_n = viv__numel(ours);
  for (int i = 0; i < view.ndim && axis < 0; i++)
    if (view.shape[i] > n && ours_n / view.shape[i] * n == golden_n) axis = i;
  if (axis < 0) return view;
  int64_t shape[VIV_MAX_DIMS];
  memcpy(shape, view.shape, sizeof shape);
  shape[axis] = n;
  viv_tensor part = viv__tensor_make(view.dtype, view.ndim, shape);
  size_t rows = 1, unit = viv__dtype_size(view.dtype);
  for (int i = 0; i < axis; i++) rows *= (size_t)shape[i];
  for (int i = axis + 1; i < view.ndim; i++) unit *= (size_t)shape[i];
  for (size_t r = 0; r < rows; r++)
    memcpy((char *)part.data + r * (size_t)n * unit,
           (const char *)view.data + r * (size_t)view.shape[axis] * unit, (size_t)n * unit);
  *copied = true;
  return part;
}

/* Where element i of [B, T, ...] stands on the first two axes. */
static bool is_masked(const viv_tensor *t, const viv_tensor *mask, int64_t i) {
  if (!mask || t->ndim < 2 || mask->ndim != 2 || t->shape[0] != mask->shape[0] ||
      t->shape[1] != mask->shape[1])
    return false;
  int64_t inner = 1;
  for (int k = 2; k < t->ndim; k++) inner *= t->shape[k];
  return inner && viv__tensor_number(mask, i / inner) == 0;
}

/* Step s of row b, in a golden [B, n, V], after the row's end. */
static bool is_after_end(const viv_tensor *t, const viv__golden_rule *rule, int64_t i) {
  if (!rule->row_ends || t->ndim < 2) return false;
  int step_axis = t->ndim >= 3 ? t->ndim - 2 : 0;
  int64_t inner = 1, steps = t->shape[step_axis];
  for (int k = step_axis + 1; k < t->ndim; k++) inner *= t->shape[k];
  if (!inner || !steps) return false;
  int64_t row = i / (inner * steps), step = i / inner % steps;
  return row < rule->n_rows && step >= rule->row_ends[row];
}

static void place(const viv_tensor *t, int64_t i, char *out, size_t cap) {
  int64_t at[VIV_MAX_DIMS];
  for (int k = t->ndim - 1; k >= 0; k--) {
    at[k] = t->shape[k] ? i % t->shape[k] : 0;
    i = t->shape[k] ? i / t->shape[k] : 0;
  }
  size_t n = (size_t)snprintf(out, cap, "[");
  for (int k = 0; k < t->ndim; k++)
    n += (size_t)snprintf(out + n, cap - n, "%s%lld", k ? ", " : "", (long long)at[k]);
  snprintf(out + n, cap - n, "]");
}

/* The distance of two elements; 0 for equal ones (infinities too), NaN against NaN, infinity for
 * NaN against a number. */
static double distance(const viv_tensor *ours, const viv_tensor *golden, int64_t i, bool masked) {
  if (!masked && viv__tensor_is_integer(ours) && viv__tensor_is_integer(golden)) {
    int64_t a = viv__tensor_integer(ours, i), b = viv__tensor_integer(golden, i);
    return a == b ? 0 : fmax(1, fabs((double)a - (double)b));
  }
  double a = masked ? 0 : viv__tensor_number(ours, i), b = viv__tensor_number(golden, i);
  if (masked) b = 0;
  if (a == b || (isnan(a) && isnan(b))) return 0;
  double d = fabs(a - b);
  return isnan(d) ? INFINITY : d;
}

static void compare_elements(viv__golden_case *c, viv__golden_row *row, const viv_tensor *ours,
                             const viv_tensor *golden, const viv__golden_rule *rule) {
  int64_t n = viv__numel(golden), first = -1, wrong = 0;
  /* A mask is laid over whichever of the two keeps the batch axis of length one. */
  const viv_tensor *layout = golden->ndim >= ours->ndim ? golden : ours;
  for (int64_t i = 0; i < n; i++) {
    if (rule->has_ignore && viv__tensor_integer(golden, i) == rule->ignore) continue;
    if (is_after_end(layout, rule, i)) continue;
    double d = distance(ours, golden, i, is_masked(layout, rule->mask, i));
    if (d > row->max_err) row->max_err = d;
    if (d > (rule->exact ? 0 : rule->atol)) {
      if (first < 0) first = i;
      wrong++;
    }
  }
  if (first < 0) return;
  char at[200];
  place(golden, first, at, sizeof at);
  if (viv__tensor_is_integer(golden))
    viv__golden_fail(c, row, "at %s ours %.17g golden %.17g (%lld of %lld differ)", at,
                     viv__tensor_number(ours, first), viv__tensor_number(golden, first),
                     (long long)wrong, (long long)n);
  else
    viv__golden_fail(c, row, "at %s ours %.9g golden %.9g (%lld of %lld beyond)", at,
                     viv__tensor_number(ours, first), viv__tensor_number(golden, first),
                     (long long)wrong, (long long)n);
}

void viv__golden_compare(viv__golden_case *c, viv__golden_row *row, const viv_tensor *ours,
                         const viv_tensor *golden, const viv__golden_rule *rule) {
  char left[200], right[200];
  row->atol = rule->atol;
  row->exact = rule->exact;
  if (!ours) {
    row->max_err = INFINITY;
    viv__golden_fail(c, row, "missing: the job gave no such tensor");
    return;
  }
  bool copied = false;
  viv_tensor view = *ours;
  if (rule->first_steps > 0 && !same_shape(ours, golden))
    view = first_steps(ours, golden, rule->first_steps, &copied);
  if (!viv__numel(&view) && !viv__numel(golden)) {
    row->max_err = 0; /* an empty result meets an empty golden, whatever its other axes */
  } else if (!same_shape(&view, golden)) {
    row->max_err = INFINITY;
    viv__golden_fail(c, row, "shape: ours %s golden %s", viv__shape_text(&view, left),
                     viv__shape_text(golden, right));
  } else {
    compare_elements(c, row, &view, golden, rule);
  }
  if (copied) viv__tensor_drop(&view);
}
