/* Adapters are a few numbers and the merge is one pass over the matrix, so that a layer with adapters
 * costs what one without costs. */
#include "nn/lora.h"

#include <string.h>

struct adapter {
  const float *w;     /* [out, in] */
  const float *a, *b; /* [rank, in], [out, rank] */
  const float *u, *v; /* [rank], [out]; NULL: 1 */
};

static void merge(const struct adapter *x, const nn_lora *lora, int64_t out, int64_t in, float *y) {
  for (int64_t o = 0; o < out; o++) {
    float *row = y + o * in;
    memcpy(row, x->w + o * in, (size_t)in * sizeof *row);
    for (int32_t r = 0; r < lora->rank; r++) {
      const float *a = x->a + r * in;
      float c = lora->factor * x->b[o * lora->rank + r];
      if (x->u) c *= x->u[r] * x->v[o];
      for (int64_t i = 0; i < in; i++) row[i] += c * a[i];
    }
  }
}

void nn_load_lora_linear(nn_loader *l, const char *name, int64_t out, int64_t in, bool bias,
                         const nn_lora *lora, nn_linear *linear) {
  if (!lora->rank) {
    nn_load_linear(l, name, out, in, bias, linear);
    return;
  }
  const viv_compute *c = l->compute;
  int64_t rank = lora->rank, shape[2] = {out, in}, a[2] = {rank, in}, b[2] = {out, rank};
  struct adapter x = {0};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_tensor(l, "weight", true, 2, shape, &x.w);
  nn_load_tensor(l, "lora_A", true, 2, a, &x.a);
  nn_load_tensor(l, "lora_B", true, 2, b, &x.b);
  nn_load_tensor(l, "lora_U", lora->scaled, 1, &rank, &x.u);
  nn_load_tensor(l, "lora_V", lora->scaled, 1, &out, &x.v);
  if (bias) nn_load(l, "bias", &linear->b, 0, out, out, 1, NN_FLOATS, true);
  nn_out(l, outer);
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {out, in},
                  .bytes = (uint64_t)(out * in) * sizeof(float)};
  if (l->pass == NN_CHECK)
    l->bytes += t.bytes + 64 + c->weight_bytes(c, &t, l->source->weight_policy);
  if (l->pass != NN_PREPARE || l->status) return;
  t.data = l->host->arena_alloc(l->source->arena, t.bytes);
  if (!t.data) {
    l->status = nn_fail(l->error, VIV_NOT_NOW, name, "no memory for the merged matrix");
    return;
  }
  merge(&x, lora, out, in, t.data);
  viv_weight *w = NULL;
  int32_t rc = c->weight_prepare(c, l->source->arena, &t, l->source->weight_policy, &w, l->error);
  if (rc < 0) l->status = rc;
  linear->w = w;
  linear->in = in;
  linear->out = out;
}
