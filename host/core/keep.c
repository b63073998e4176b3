/* Tensors of events that outlive them, in the shape that array libraries exchange (DLPack). */
#include "core/core.h"

/* dlpack.h's structs of versions 0.2 to 0.8, which 1.0 and later still call DLManagedTensor. */
typedef struct DLTensor {
  void *data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides; /* in elements */
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor tensor;
  void *context;
  void (*deleter)(struct DLManagedTensor *);
} DLManagedTensor;

enum { CPU = 1, INT = 0, UINT = 1, FLOAT = 2, BFLOAT = 4, BOOLEAN = 6 };

static const struct {
  uint8_t code, bits;
} kinds[] = {
    [VIV_F32] = {FLOAT, 32},   [VIV_F64] = {FLOAT, 64}, [VIV_F16] = {FLOAT, 16},
    [VIV_BF16] = {BFLOAT, 16}, [VIV_I64] = {INT, 64},   [VIV_I32] = {INT, 32},
    [VIV_I16] = {INT, 16},     [VIV_I8] = {INT, 8},     [VIV_U8] = {UINT, 8},
    [VIV_BOOL] = {BOOLEAN, 8},
};

typedef struct kept {
  DLManagedTensor managed; /* first: the deleter is given this */
  viv__event_node *node;
  int64_t shape[VIV_MAX_DIMS], strides[VIV_MAX_DIMS];
} kept;

static void let_go(DLManagedTensor *managed) {
  kept *k = (kept *)managed;
  if (!k) return;
  if (viv__event_let_go(k->node)) viv__free(k->node);
  viv__free(k);
}

/* A view of the node's tensor, which has a name in DLPack. */
static int32_t view(viv__event_node *node, DLManagedTensor **out, viv_error *error) {
  const viv_tensor *t = node->event.tensor;
  kept *k = viv__calloc(1, sizeof *k);
  if (!k) return VIV_FAIL(error, VIV_NOT_NOW, "tensor", "no memory");
  int64_t step = 1;
  for (int32_t i = t->ndim; i-- > 0;) {
    k->shape[i] = t->shape[i];
    k->strides[i] = step;
    step *= t->shape[i];
  }
  k->node = node;
  k->managed =
      (DLManagedTensor){.tensor = {.data = t->data,
                                   .device = {CPU, 0},
                                   .ndim = t->ndim,
                                   .dtype = {kinds[t->dtype].code, kinds[t->dtype].bits, 1},
                                   .shape = k->shape,
                                   .strides = k->strides},
                        .deleter = let_go};
  atomic_fetch_add(&node->holds, 1);
  *out = &k->managed;
  return VIV_OK;
}

int32_t viv_keep_tensor(viv_job *job, DLManagedTensor **out, viv_error *error) {
  if (!job || !out) return VIV_FAIL(error, VIV_BAD_INPUT, "viv_keep_tensor", "job or out is NULL");
  const viv_tensor *t = job->current ? job->current->event.tensor : NULL;
  if (!t)
    return VIV_FAIL(error, VIV_BAD_INPUT, "viv_keep_tensor",
                    "the event that was given last has no tensor");
  if (t->dtype <= 0 || (size_t)t->dtype >= sizeof kinds / sizeof *kinds || !kinds[t->dtype].bits)
    return VIV_FAIL(error, VIV_NEVER, "viv_keep_tensor", "DLPack has no name for dtype %d",
                    t->dtype);
  return view(job->current, out, error);
}

int32_t viv_share_tensor(const DLManagedTensor *shared, DLManagedTensor **out, viv_error *error) {
  if (!shared || !out || shared->deleter != let_go)
    return VIV_FAIL(error, VIV_BAD_INPUT, "viv_share_tensor", "it was not kept by viv_keep_tensor");
  return view(((const kept *)shared)->node, out, error);
}
