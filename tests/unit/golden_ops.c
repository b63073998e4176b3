/* Runs golden cases of single operations (shared/goldens, folders op-*) on the compute table:
 *
 *   golden_ops DIR...
 *
 * Prints one line for each tensor: name, largest error, atol, ok or FAIL with the first index that
 * is off. Operations that the table does not cover are named and counted apart. Exits with 0 when
 * all known ones hold and at least one ran. */
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct array {
  float *data; /* NULL: the call has no such input */
  int64_t n;
  int32_t ndim;
  int64_t shape[VIV_MAX_DIMS];
};

struct golden {
  const viv_compute *c;
  viv_arena *arena; /* of the case */
  viv_json *meta, *config;
  viv__safetensors *inputs, *outputs, *weights; /* weights may be NULL */
  const viv_json *call, *params;
  int ran, failed;
};

static void die(const char *what, const char *why) {
  fprintf(stderr, "golden_ops: %s: %s\n", what, why);
  exit(2);
}

static void *take(struct golden *g, int64_t bytes) {
  void *p = viv__arena_alloc(g->arena, (uint64_t)bytes);
  if (!p) die("memory", "none left");
  return p;
}

static float *take_floats(struct golden *g, int64_t n) {
  return take(g, n * (int64_t)sizeof(float));
}

/* ---- files ---- */

static viv_json *read_json(const char *dir, const char *name, bool optional) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__path_join(dir, name), *text = NULL;
  size_t len = 0;
  viv_json *json = NULL;
  int32_t status = viv__read_file(path, 64 << 20, &text, &len, &error);
  if (!status) status = viv__json_parse(text, len, path, &json, &error);
  if (status && !(optional && !text)) die(path, error.message);
  viv__free(text);
  viv__free(path);
  return json;
}

static viv__safetensors *read_tensors(const char *dir, const char *name, bool optional) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__path_join(dir, name);
  viv__safetensors *s = NULL;
  FILE *there = optional ? fopen(path, "rb") : NULL;
  if (there) fclose(there);
  if ((there || !optional) && viv__safetensors_open(path, &s, &error)) die(path, error.message);
  viv__free(path);
  return s;
}

static struct array array_of(struct golden *g, const viv__safetensors *file, viv_str name) {
  struct array a = {0};
  viv_tensor t = {.struct_size = sizeof t};
  if (!file || viv__safetensors_find(file, name, &t)) die("no such tensor", name.ptr);
  const float *data = g->c->floats(g->c, g->arena, &t);
  a.n = 1;
  a.ndim = t.ndim;
  for (int32_t i = 0; i < t.ndim; i++) a.n *= a.shape[i] = t.shape[i];
  a.data = take_floats(g, a.n);
  if (data) memcpy(a.data, data, (size_t)a.n * sizeof *data);
  return a;
}

static struct array weight(struct golden *g, const char *prefix, const char *name) {
  char full[128];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  return array_of(g, g->weights, viv__str(full));
}

/* ---- inputs and outputs of a call (goldens/CALLS.md, 2) ---- */

static struct array slice(struct golden *g, struct array a, const viv_json *ranges) {
  struct array out = {.ndim = a.ndim, .n = 1};
  int64_t first[VIV_MAX_DIMS] = {0}, step[VIV_MAX_DIMS], at[VIV_MAX_DIMS] = {0};
  for (int32_t i = 0; i < a.ndim; i++) {
    const viv_json *range = viv__json_item(ranges, i);
    out.shape[i] = a.shape[i];
    if (viv__json_type(range) == VIV_JSON_ARRAY) {
      first[i] = (int64_t)viv__json_number(viv__json_item(range, 0));
      out.shape[i] = (int64_t)viv__json_number(viv__json_item(range, 1)) - first[i];
    }
    out.n *= out.shape[i];
  }
  step[a.ndim - 1] = 1;
  for (int32_t i = a.ndim - 1; i > 0; i--) step[i - 1] = step[i] * a.shape[i];
  out.data = take_floats(g, out.n);
  for (int64_t k = 0; k < out.n; k++) {
    int64_t from = 0;
    for (int32_t i = 0; i < a.ndim; i++) from += (first[i] + at[i]) * step[i];
    out.data[k] = a.data[from];
    for (int32_t i = a.ndim - 1; i >= 0 && ++at[i] == out.shape[i]; i--) at[i] = 0;
  }
  return out;
}

static struct array input(struct golden *g, const char *name) {
  const viv_json *node = viv__json_get(viv__json_get(g->call, "inputs"), name);
  if (viv__json_type(node) == VIV_JSON_STRING)
    return array_of(g, g->inputs, viv__json_string(node));
  viv_str tensor = viv__json_string(viv__json_get(node, "tensor"));
  if (!tensor.len) return (struct array){0}; /* absent, or a form that no known operation uses */
  struct array a = array_of(g, g->inputs, tensor);
  const viv_json *ranges = viv__json_get(node, "slice");
  if (ranges && a.ndim) a = slice(g, a, ranges);
  if (viv__json_bool(node, "abs", false))
    for (int64_t i = 0; i < a.n; i++) a.data[i] = fabsf(a.data[i]);
  return a;
}

/* Compares ours [n] with the golden that the call names for this output, if it names one. */
static void output(struct golden *g, const char *name, const float *ours, int64_t n) {
  const viv_json *node = viv__json_get(viv__json_get(g->call, "outputs"), name);
  if (viv__json_type(node) != VIV_JSON_STRING) return;
  viv_str golden = viv__json_string(node);
  struct array want = array_of(g, g->outputs, golden);
  const viv_json *rule = viv__json_member(viv__json_get(g->meta, "tensors"), golden);
  double atol = viv__json_num(rule, "atol", 0), worst = 0;
  int64_t first = want.n == n ? -1 : 0;
  for (int64_t i = 0; i < n && want.n == n; i++) {
    double error = fabs((double)ours[i] - want.data[i]);
    if (isnan(ours[i]) && isnan(want.data[i])) error = 0;
    if (!(error <= atol) && first < 0) first = i;
    if (!(error <= worst)) worst = error;
  }
  printf("%-28.*s  max_err %.2e  atol %.2e  ", (int)golden.len, golden.ptr, worst, atol);
  g->ran++;
  if (first < 0) {
    printf("ok\n");
    return;
  }
  g->failed++;
  if (want.n != n)
    printf("FAIL %lld elements, not %lld\n", (long long)n, (long long)want.n);
  else
    printf("FAIL first [%lld] %.9g, not %.9g\n", (long long)first, ours[first], want.data[first]);
}

/* [rows, cols] -> [cols, rows]: official sequences are [channels, time], the table's are not. */
static float *turned(struct golden *g, const float *x, int64_t rows, int64_t cols) {
  float *y = take_floats(g, rows * cols);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < cols; k++) y[k * rows + r] = x[r * cols + k];
  return y;
}

static void put_turned(const float *x, int64_t rows, int64_t cols, float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < cols; k++) y[k * rows + r] = x[r * cols + k];
}

/* ---- operations ---- */

static bool causal_conv1d(struct golden *g) {
  bool update = !strcmp(viv__json_text(g->params, "op", ""), "causal_conv1d_update");
  struct array x = input(g, "x"), w = input(g, "weight"), bias = input(g, "bias");
  struct array start = input(g, update ? "conv_state" : "initial_states");
  int64_t batch = x.shape[0], d = x.shape[1], len = x.shape[2], taps = w.shape[1], hist = taps - 1;
  int64_t columns = update ? taps : hist; /* the cache of an update keeps one column more */
  float *out = take_floats(g, x.n), *states = take_floats(g, batch * d * columns);
  for (int64_t b = 0; b < batch; b++) {
    float *tail = take_floats(g, d * hist), *y = take_floats(g, d * len);
    for (int64_t ch = 0; start.data && ch < d; ch++)
      memcpy(tail + ch * hist, start.data + (b * d + ch) * columns + (columns - hist),
             (size_t)hist * sizeof *tail);
    viv_causal_conv a = {
        .struct_size = sizeof a,
        .rows = len,
        .channels = (int32_t)d,
        .taps = (int32_t)taps,
        .silu = !strcmp(viv__json_text(g->params, "activation", ""), "silu"),
        .x = turned(g, x.data + b * d * len, d, len),
        .weight = w.data,
        .bias = bias.data,
        .tail = tail,
        .out = y,
    };
    float oldest[4096];
    for (int64_t ch = 0; ch < d && ch < 4096; ch++) oldest[ch] = tail[ch * hist];
    g->c->causal_conv(g->c, &a);
    put_turned(y, len, d, out + b * d * len);
    for (int64_t ch = 0; ch < d; ch++) {
      float *state = states + (b * d + ch) * columns;
      if (update) state[0] = oldest[ch];
      memcpy(state + (columns - hist), tail + ch * hist, (size_t)hist * sizeof *tail);
    }
  }
  output(g, "out", out, x.n);
  output(g, "final_states", states, batch * d * columns);
  output(g, "conv_state", states, batch * d * columns);
  return true;
}

static bool selective_scan(struct golden *g) {
  bool step = !strcmp(viv__json_text(g->params, "op", ""), "selective_state_update");
  struct array u = input(g, step ? "x" : "u"), delta = input(g, step ? "dt" : "delta");
  struct array a = input(g, "A"), b = input(g, "B"), c = input(g, "C"), d = input(g, "D");
  struct array z = input(g, "z"), bias = input(g, step ? "dt_bias" : "delta_bias");
  struct array start = input(g, step ? "state" : "initial_state");
  bool softplus = viv__json_bool(g->params, step ? "dt_softplus" : "delta_softplus", false);
  int64_t batch = u.shape[0], ch = u.shape[1], len = u.shape[2], n = a.shape[1];
  float *out = take_floats(g, u.n), *states = take_floats(g, batch * ch * n);
  if (start.data) memcpy(states, start.data, (size_t)(batch * ch * n) * sizeof *states);
  for (int64_t i = 0; i < batch; i++) {
    float *dt = turned(g, delta.data + i * ch * len, ch, len), *y = take_floats(g, ch * len);
    for (int64_t t = 0; bias.data && t < len; t++) g->c->add(g->c, dt + t * ch, bias.data, ch);
    if (softplus) g->c->unary(g->c, VIV_SOFTPLUS, dt, dt, ch * len);
    viv_scan s = {
        .struct_size = sizeof s,
        .channels = (int32_t)ch,
        .states = (int32_t)n,
        .rows = len,
        .u = turned(g, u.data + i * ch * len, ch, len),
        .delta = dt,
        .a = a.data,
        .b = turned(g, b.data + i * n * len, n, len),
        .c = turned(g, c.data + i * n * len, n, len),
        .bc_stride = n,
        .d = d.data,
        .state = states + i * ch * n,
        .y = y,
    };
    g->c->scan(g->c, &s);
    if (z.data) {
      float *gate = turned(g, z.data + i * ch * len, ch, len);
      g->c->gate(g->c, VIV_SILU, gate, y, ch * len);
      y = gate;
    }
    put_turned(y, len, ch, out + i * ch * len);
  }
  output(g, "out", out, u.n);
  output(g, "last_state", states, batch * ch * n);
  output(g, "state", states, batch * ch * n);
  return true;
}

/* Pair j of heads: P1 V - lambda P2 V, normed (systems/language.md, section 1). Both heads of a
 * pair read the pair's values, which lie side by side. */
static bool differential_attention(struct golden *g) {
  enum { PAGE = 4, MAX_HEADS = 64 };
  struct array q = input(g, "q"), k = input(g, "k"), v = input(g, "v");
  int64_t batch = q.shape[0], rows = q.shape[1], heads = q.shape[2], dim = q.shape[3];
  int64_t keys = k.shape[1], groups = k.shape[2];
  if (heads > MAX_HEADS) return false;
  struct array norm = weight(g, "", "subln.weight");
  double dot[2] = {0};
  for (int i = 0; i < 2; i++) {
    struct array lq = weight(g, "", i ? "lambda_q2" : "lambda_q1");
    struct array lk = weight(g, "", i ? "lambda_k2" : "lambda_k1");
    for (int64_t d = 0; d < lq.n; d++) dot[i] += (double)lq.data[d] * lk.data[d];
  }
  double init = 0.8 - 0.6 * exp(-0.3 * viv__json_num(g->config, "depth", 0));
  float lambda = (float)(exp(dot[0]) - exp(dot[1]) + init);

  int32_t k_offset[MAX_HEADS], v_offset[MAX_HEADS];
  for (int32_t h = 0; h < heads; h++) {
    int32_t pair = (int32_t)(h / 2 / (heads / groups));
    k_offset[h] = (2 * pair + h % 2) * (int32_t)dim;
    v_offset[h] = 2 * pair * (int32_t)dim;
  }
  float *out = take_floats(g, q.n);
  for (int64_t b = 0; b < batch; b++) {
    int64_t pages = (keys + PAGE - 1) / PAGE, width = groups * dim;
    const void **kp = take(g, pages * (int64_t)sizeof *kp);
    const void **vp = take(g, pages * (int64_t)sizeof *vp);
    for (int64_t p = 0; p < pages; p++) {
      kp[p] = k.data + (b * keys + p * PAGE) * width;
      vp[p] = v.data + (b * keys + p * PAGE) * width;
    }
    viv_kv kv = {kp, vp};
    const viv_kv **row_kv = take(g, rows * (int64_t)sizeof *row_kv);
    int64_t *visible = take(g, rows * (int64_t)sizeof *visible);
    for (int64_t r = 0; r < rows; r++) {
      row_kv[r] = &kv;
      visible[r] = keys - rows + r + 1;
    }
    float *both = take_floats(g, rows * heads * 2 * dim);
    viv_attention a = {
        .struct_size = sizeof a,
        .kv_dtype = VIV_F32,
        .rows = (int32_t)rows,
        .heads = (int32_t)heads,
        .head_dim = (int32_t)dim,
        .value_dim = 2 * (int32_t)dim,
        .page_tokens = PAGE,
        .k_width = (int32_t)width,
        .v_width = (int32_t)width,
        .k_offset = k_offset,
        .v_offset = v_offset,
        .scale = 1.0f / sqrtf((float)dim),
        .window = (int64_t)viv__json_num(g->params, "sliding_window", 0),
        .q = q.data + b * rows * heads * dim,
        .out = both,
        .kv = row_kv,
        .visible = visible,
    };
    g->c->attention(g->c, &a);
    float *o = out + b * rows * heads * dim;
    for (int64_t j = 0; j < rows * heads / 2; j++)
      for (int64_t d = 0; d < 2 * dim; d++)
        o[j * 2 * dim + d] = both[j * 4 * dim + d] - lambda * both[j * 4 * dim + 2 * dim + d];
    g->c->rms_norm(g->c, o, norm.data, 1e-5f, rows * heads / 2, 2 * dim, o);
    for (int64_t i = 0; i < rows * heads * dim; i++) o[i] *= (float)(1.0 - init);
  }
  output(g, "out", out, q.n);
  return true;
}

static bool activation(struct golden *g) {
  static const struct {
    const char *op;
    int32_t kind;
  } known[] = {{"silu", VIV_SILU}, {"relu", VIV_RELU}, {"sigmoid", VIV_SIGMOID},
               {"tanh", VIV_TANH}, {"gelu", VIV_GELU}, {"softplus", VIV_SOFTPLUS}};
  const char *op = viv__json_text(g->params, "op", "");
  int32_t kind = 0;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(op, known[i].op)) kind = known[i].kind;
  if (kind == VIV_GELU && !strcmp(viv__json_text(g->params, "approximate", ""), "tanh"))
    kind = VIV_GELU_TANH;
  if (kind == VIV_SOFTPLUS &&
      (viv__json_num(g->params, "beta", 1) != 1 || viv__json_num(g->params, "threshold", 20) != 20))
    return false;
  if (!kind) return false;
  struct array x = input(g, "x");
  if (!x.data) return false;
  float *y = take_floats(g, x.n);
  g->c->unary(g->c, kind, x.data, y, x.n);
  output(g, "y", y, x.n);
  return true;
}

static float *apply(struct golden *g, struct array w, const float *bias, const float *x,
                    int64_t rows) {
  viv_error error = VIV_ERROR_INIT;
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w.data,
                  .bytes = (uint64_t)w.n * sizeof(float),
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {w.shape[0], w.shape[1]}};
  viv_weight *prepared = NULL;
  if (g->c->weight_prepare(g->c, g->arena, &t, VIV_WEIGHTS_AS_STORED, &prepared, &error))
    die("weight_prepare", error.message);
  float *y = take_floats(g, rows * w.shape[0]);
  g->c->linear(g->c, prepared, bias, x, y, rows);
  return y;
}

static bool lowrank(struct golden *g) {
  const char *prefix = viv__json_text(g->params, "weights", "");
  struct array x = input(g, "x"), w1 = weight(g, prefix, "lr1"), w2 = weight(g, prefix, "lr2");
  int64_t rows = x.n / w1.shape[1];
  float *inner = apply(g, w1, NULL, x.data, rows);
  output(g, "y", apply(g, w2, weight(g, prefix, "bias").data, inner, rows), rows * w2.shape[0]);
  return true;
}

static bool run_op(struct golden *g, const char *op) {
  if (!strcmp(op, "causal_conv1d") || !strcmp(op, "causal_conv1d_update")) return causal_conv1d(g);
  if (!strcmp(op, "selective_scan") || !strcmp(op, "selective_state_update"))
    return selective_scan(g);
  if (!strcmp(op, "differential_attention")) return differential_attention(g);
  if (!strcmp(op, "lowrank")) return lowrank(g);
  return activation(g);
}

/* ---- cases ---- */

static int unknown;

static void run_case(struct golden *g, const char *dir) {
  char named[32][64] = {{0}}; /* unknown operations of the case, each said once */
  int names = 0;
  printf("%s\n", dir);
  g->arena = viv__arena_new(0);
  g->meta = read_json(dir, "meta.json", false);
  g->config = read_json(dir, "config.json", true);
  g->inputs = read_tensors(dir, "inputs.safetensors", true);
  g->outputs = read_tensors(dir, "outputs.safetensors", true);
  g->weights = read_tensors(dir, "model.safetensors", true);
  const viv_json *calls = viv__json_get(g->meta, "calls");
  for (int64_t i = 0; i < viv__json_count(calls); i++) {
    g->call = viv__json_item(calls, i);
    g->params = viv__json_get(g->call, "params");
    if (strcmp(viv__json_text(g->call, "task", ""), "op")) continue;
    const char *op = viv__json_text(g->params, "op", "?");
    if (run_op(g, op)) continue;
    unknown++;
    int known = 0;
    while (known < names && strncmp(named[known], op, sizeof *named - 1)) known++;
    if (known == names && names < 32) {
      snprintf(named[names++], sizeof *named, "%s", op);
      printf("unknown op: %s\n", op);
    }
  }
  viv__safetensors_close(g->inputs);
  viv__safetensors_close(g->outputs);
  viv__safetensors_close(g->weights);
  viv__json_free(g->meta);
  viv__json_free(g->config);
  viv__arena_free(g->arena);
}

int main(int argc, char **argv) {
  struct golden g = {0};
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(0, VIV__ISA_AUTO, &g.c, &error)) die("compute", error.message);
  for (int i = 1; i < argc; i++) run_case(&g, argv[i]);
  printf("%d tensors, %d failed; %d calls of unknown operations\n", g.ran, g.failed, unknown);
  viv__compute_free(g.c);
  return g.ran && !g.failed ? 0 : 1;
}
