/* Runs golden cases of single operations (shared/goldens, folders op-*) on the compute table and on
 * the plugins' helpers:
 *
 *   golden_ops DIR...
 *
 * Prints one line for each tensor: name, largest error, atol, ok or FAIL with the first index that
 * is off. Operations that neither covers are named and counted apart. Exits with 0 when all known
 * ones hold and at least one ran. VIV_ISA=portable|avx2|avx512 chooses the kernels. */
#include "ops.h"

#include "checkpoint/checkpoint.h"

void die(const char *what, const char *why) {
  fprintf(stderr, "golden_ops: %s: %s\n", what, why);
  exit(2);
}

void *take(struct golden *g, int64_t bytes) {
  void *p = viv__arena_alloc(g->arena, (uint64_t)(bytes + 64)); /* empty arrays have a place too */
  if (!p) die("memory", "none left");
  return p;
}

float *take_floats(struct golden *g, int64_t n) {
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

static viv_str full_name(char *full, size_t size, const char *prefix, const char *name) {
  snprintf(full, size, "%s%s", prefix, name);
  return viv__str(full);
}

struct array weight(struct golden *g, const char *prefix, const char *name) {
  char full[128];
  return array_of(g, g->weights, full_name(full, sizeof full, prefix, name));
}

bool has_weight(struct golden *g, const char *prefix, const char *name) {
  char full[128];
  viv_tensor t = {.struct_size = sizeof t};
  return g->weights &&
         !viv__safetensors_find(g->weights, full_name(full, sizeof full, prefix, name), &t);
}

/* ---- inputs of a call (goldens/CALLS.md, 2 and A1) ---- */

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

static const viv_json *input_node(struct golden *g, const char *name) {
  return viv__json_get(viv__json_get(g->call, "inputs"), name);
}

struct array input(struct golden *g, const char *name) {
  const viv_json *node = input_node(g, name);
  if (viv__json_type(node) == VIV_JSON_STRING)
    return array_of(g, g->inputs, viv__json_string(node));
  viv_str ours = viv__json_string(viv__json_get(node, "output"));
  viv_str tensor = viv__json_string(viv__json_get(node, "tensor"));
  if (!tensor.len && !ours.len) return (struct array){0}; /* absent, or a form that no op uses */
  struct array a = ours.len ? array_of(g, g->outputs, ours) : array_of(g, g->inputs, tensor);
  const viv_json *ranges = viv__json_get(node, "slice");
  if (ranges && a.ndim) a = slice(g, a, ranges);
  if (viv__json_bool(node, "abs", false))
    for (int64_t i = 0; i < a.n; i++) a.data[i] = fabsf(a.data[i]);
  return a;
}

bool raw_input(struct golden *g, const char *name, viv_tensor *out) {
  const viv_json *node = input_node(g, name);
  *out = (viv_tensor){.struct_size = sizeof *out};
  return viv__json_type(node) == VIV_JSON_STRING &&
         !viv__safetensors_find(g->inputs, viv__json_string(node), out);
}

char *file_input(struct golden *g, const char *name) {
  const char *file = viv__json_text(input_node(g, name), "file", NULL);
  if (!file) return NULL;
  char *path = viv__path_join(g->dir, file);
  char *kept = take(g, (int64_t)strlen(path) + 1);
  strcpy(kept, path);
  viv__free(path);
  return kept;
}

/* ---- outputs ---- */

static const viv_json *output_node(struct golden *g, const char *name) {
  const viv_json *node = viv__json_get(viv__json_get(g->call, "outputs"), name);
  return node ? node : viv__json_get(viv__json_get(g->call, "taps"), name);
}

bool wants(struct golden *g, const char *name) {
  return viv__json_type(output_node(g, name)) == VIV_JSON_STRING;
}

void output(struct golden *g, const char *name, const float *ours, int64_t n) {
  if (!wants(g, name)) return;
  viv_str golden = viv__json_string(output_node(g, name));
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

void output_doubles(struct golden *g, const char *name, const double *ours, int64_t n) {
  float *x = take_floats(g, n);
  for (int64_t i = 0; i < n; i++) x[i] = (float)ours[i];
  output(g, name, x, n);
}

void output_ints(struct golden *g, const char *name, const int32_t *ours, int64_t n) {
  float *x = take_floats(g, n);
  for (int64_t i = 0; i < n; i++) x[i] = (float)ours[i];
  output(g, name, x, n);
}

void output_bytes(struct golden *g, const char *name, const uint8_t *ours, int64_t n) {
  float *x = take_floats(g, n);
  for (int64_t i = 0; i < n; i++) x[i] = ours[i];
  output(g, name, x, n);
}

/* ---- parameters ---- */

const char *text_param(struct golden *g, const char *key, const char *fallback) {
  return viv__json_text(g->params, key, fallback);
}
double num_param(struct golden *g, const char *key, double fallback) {
  return viv__json_num(g->params, key, fallback);
}
bool flag_param(struct golden *g, const char *key, bool fallback) {
  return viv__json_bool(g->params, key, fallback);
}
double list_param(struct golden *g, const char *key, int64_t i) {
  return viv__json_number(viv__json_item(viv__json_get(g->params, key), i));
}

/* ---- helpers ---- */

float *turned(struct golden *g, const float *x, int64_t rows, int64_t cols) {
  float *y = take_floats(g, rows * cols);
  put_turned(x, rows, cols, y);
  return y;
}

void put_turned(const float *x, int64_t rows, int64_t cols, float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < cols; k++) y[k * rows + r] = x[r * cols + k];
}

viv_weight *prepared(struct golden *g, struct array w) {
  viv_error error = VIV_ERROR_INIT;
  viv_tensor t = {.struct_size = sizeof t,
                  .data = w.data,
                  .bytes = (uint64_t)w.n * sizeof(float),
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {w.shape[0], w.n / w.shape[0]}};
  viv_weight *out = NULL;
  if (g->c->weight_prepare(g->c, g->arena, &t, VIV_WEIGHTS_AS_STORED, &out, &error))
    die("weight_prepare", error.message);
  return out;
}

float *apply(struct golden *g, struct array w, const float *bias, const float *x, int64_t rows) {
  float *y = take_floats(g, rows * w.shape[0]);
  g->c->linear(g->c, prepared(g, w), bias, x, y, rows);
  return y;
}

/* ---- cases ---- */

static bool run_op(struct golden *g, const char *name) {
  const struct op *const tables[] = {sequence_ops, element_ops, map_ops,        box_ops,
                                     signal_ops,   audio_ops,   evaluation_ops, quant_ops,
                                     scene_ops,    mask_ops,    volume_ops,     explain_ops};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    for (const struct op *op = tables[i]; op->name; op++)
      if (!strcmp(op->name, name)) return op->run(g);
  return false;
}

static int unknown;

static void run_case(struct golden *g, const char *dir) {
  char named[32][64] = {{0}}; /* unknown operations of the case, each said once */
  int names = 0;
  printf("%s\n", dir);
  g->dir = dir;
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
  const char *isa = getenv("VIV_ISA");
  int32_t chosen = !isa || !*isa            ? VIV__ISA_AUTO
                   : !strcmp(isa, "avx512") ? VIV__ISA_AVX512
                   : !strcmp(isa, "avx2")   ? VIV__ISA_AVX2
                                            : VIV__ISA_PORTABLE;
  if (viv__compute_new(0, chosen, &g.c, &error)) die("compute", error.message);
  for (int i = 1; i < argc; i++) run_case(&g, argv[i]);
  printf("%d tensors, %d failed; %d calls of unknown operations\n", g.ran, g.failed, unknown);
  viv__compute_free(g.c);
  return g.ran && !g.failed ? 0 : 1;
}
