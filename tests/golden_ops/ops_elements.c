/* Operations on elements, rows and weights: activations, norms, low-rank matrices, folded weight
 * norms, block formats. */
#include "ops.h"

#include "nn/audio.h"

/* torch's name and switches -> the table's kind and parameter. */
static bool activation(struct golden *g) {
  static const struct {
    const char *op;
    int32_t kind;
    const char *param;
  } known[] = {{"silu", VIV_SILU, NULL},
               {"relu", VIV_RELU, NULL},
               {"sigmoid", VIV_SIGMOID, NULL},
               {"tanh", VIV_TANH, NULL},
               {"gelu", VIV_GELU, NULL},
               {"softplus", VIV_SOFTPLUS, NULL},
               {"elu", VIV_ELU, "alpha"},
               {"hardswish", VIV_HARDSWISH, NULL},
               {"leaky_relu", VIV_LEAKY_RELU, "negative_slope"},
               {"mish", VIV_MISH, NULL}};
  const char *op = text_param(g, "op", "");
  int32_t kind = 0;
  float p = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(op, known[i].op)) {
      kind = known[i].kind;
      if (known[i].param) p = (float)num_param(g, known[i].param, kind == VIV_ELU ? 1 : 0.01);
    }
  if (kind == VIV_GELU && !strcmp(text_param(g, "approximate", ""), "tanh")) kind = VIV_GELU_TANH;
  if (kind == VIV_SOFTPLUS && (num_param(g, "beta", 1) != 1 || num_param(g, "threshold", 20) != 20))
    return false;
  struct array x = input(g, "x");
  if (!kind || !x.data || !g->c->unary_with) return false;
  float *y = take_floats(g, x.n);
  g->c->unary_with(g->c, kind, p, x.data, y, x.n);
  output(g, "y", y, x.n);
  return true;
}

/* [channel, time], or [batch, channel, time]. */
static bool snake(struct golden *g) {
  struct array x = input(g, "x"), alpha = input(g, "alpha");
  int64_t n = x.shape[x.ndim - 1];
  float *y = take_floats(g, x.n);
  g->c->snake(g->c, x.data, alpha.data, x.n / n / alpha.n, alpha.n, n, y);
  output(g, "y", y, x.n);
  return true;
}

static bool group_norm(struct golden *g) {
  struct array x = input(g, "input");
  const char *prefix = text_param(g, "weights", "");
  struct array w = weight(g, prefix, "weight"), b = weight(g, prefix, "bias");
  int32_t groups = (int32_t)num_param(g, "num_groups", 32);
  float eps = (float)num_param(g, "eps", 1e-5), *y = take_floats(g, x.n);
  int64_t space = x.n / x.shape[0] / x.shape[1];
  g->c->group_norm(g->c, x.data, w.data, b.data, eps, groups, x.shape[0], x.shape[1], space,
                   VIV_CHANNELS_FIRST, y);
  output(g, "y", y, x.n);
  return true;
}

static bool lowrank(struct golden *g) {
  const char *prefix = text_param(g, "weights", "");
  struct array x = input(g, "x"), w1 = weight(g, prefix, "lr1"), w2 = weight(g, prefix, "lr2");
  int64_t rows = x.n / w1.shape[1];
  float *inner = apply(g, w1, NULL, x.data, rows);
  output(g, "y", apply(g, w2, weight(g, prefix, "bias").data, inner, rows), rows * w2.shape[0]);
  return true;
}

static bool weight_norm(struct golden *g) {
  struct array w = input(g, "weight_g"), v = input(g, "weight_v");
  bool all = viv__json_type(viv__json_get(g->params, "dim")) == VIV_JSON_NULL;
  float *y = take_floats(g, v.n);
  nn_weight_norm(w.data, v.data, v.ndim, v.shape, all ? -1 : (int32_t)num_param(g, "dim", 0), y);
  output(g, "weight", y, v.n);
  return true;
}

/* The rows as a tensor of a block format, prepared as f32 and read back. */
static bool dequantize(struct golden *g) {
  viv_error error = VIV_ERROR_INIT;
  viv_tensor raw;
  viv_weight *w = NULL;
  int32_t dtype = viv__dtype_named(viv__str(text_param(g, "type", "")));
  if (!raw_input(g, "data", &raw) || !dtype) return false;
  int64_t rows = raw.shape[0], cols = 512, ids = rows;
  viv_tensor t = {.struct_size = sizeof t,
                  .data = raw.data,
                  .bytes = raw.bytes,
                  .dtype = dtype,
                  .ndim = 2,
                  .shape = {rows, cols}};
  if (g->c->weight_prepare(g->c, g->arena, &t, VIV_WEIGHTS_F32, &w, &error)) return false;
  float *y = take_floats(g, rows * cols);
  int32_t *id = take(g, ids * (int64_t)sizeof *id);
  for (int64_t i = 0; i < ids; i++) id[i] = (int32_t)i;
  g->c->gather(g->c, w, id, ids, y);
  output(g, "values", y, rows * cols);
  return true;
}

const struct op element_ops[] = {
    {"silu", activation},       {"relu", activation},
    {"sigmoid", activation},    {"tanh", activation},
    {"gelu", activation},       {"softplus", activation},
    {"elu", activation},        {"hardswish", activation},
    {"leaky_relu", activation}, {"mish", activation},
    {"snake", snake},           {"group_norm", group_norm},
    {"lowrank", lowrank},       {"weight_norm", weight_norm},
    {"dequantize", dequantize}, {NULL, NULL},
};
