/* Block formats of weights: raw rows to floats. */
#include "ops.h"

static bool dequantize(struct golden *g) {
  viv_tensor raw = {.struct_size = sizeof raw};
  if (!raw_input(g, "data", &raw) || raw.ndim != 2) return false;
  int32_t dtype = viv__dtype_named(viv__str(text_param(g, "type", "")));
  int64_t rows = raw.shape[0];
  int64_t cols = (int64_t)viv__json_num(viv__json_get(g->meta, "run"), "columns", 0);
  if (!dtype || viv__row_bytes(dtype, cols) != raw.bytes / (uint64_t)rows) return false;
  viv_tensor t = raw;
  t.dtype = dtype;
  t.shape[1] = cols;
  const float *x = g->c->floats(g->c, g->arena, &t);
  if (!x) return false;
  output(g, "values", x, rows * cols);
  return true;
}

const struct op quant_ops[] = {{"dequantize", dequantize}, {NULL, NULL}};
