/* Tensors of events that are kept: as DLPack's struct, without a copy, for as long as the caller wants. */
#include "rt.h"

/* What dlpack.h calls DLManagedTensor. */
typedef struct DLManagedTensor {
  void *data;
  int32_t device, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
  void *context;
  void (*deleter)(struct DLManagedTensor *);
} DLManagedTensor;

TestSuite(keep, .timeout = 60);

static const char *good_dir(void) {
  static char dir[64];
  snprintf(dir, sizeof dir, "/tmp/viv-keep-XXXXXX");
  cr_assert(mkdtemp(dir));
  char path[96];
  snprintf(path, sizeof path, "%s/config.json", dir);
  FILE *f = fopen(path, "w");
  cr_assert(f);
  fputs("{\"model_type\": \"test-good\"}", f);
  fclose(f);
  return dir;
}

static viv_job *submit_rows(viv_model *m, const float *x, int64_t rows, int64_t columns) {
  viv_tensor t = {.struct_size = sizeof t,
                  .data = (void *)(uintptr_t)x,
                  .bytes = (uint64_t)(rows * columns) * 4,
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {rows, columns}};
  viv_value v = {
      .struct_size = sizeof v, .kind = VIV_KIND_TENSOR, .name = viv__str("x"), .tensor = &t};
  const viv_value *inputs[] = {&v};
  viv_request q = {.struct_size = sizeof q, .n_inputs = 1, .task = "forward", .inputs = inputs};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  return job;
}

Test(keep, a_kept_tensor_outlives_event_job_and_runtime) {
  setenv("VIV_TEST_PLUGINS", env("VIV_TEST_BAD", "build/badplugins"), 1);
  viv_runtime *rt = open_runtime();
  const char *dir = good_dir();
  viv_model *m = load(rt, dir);
  enum { N = 64, LARGE = 60000 };
  static float x[LARGE];
  DLManagedTensor *kept[N], *shared[N];
  viv_error e = VIV_ERROR_INIT;
  for (int i = 0; i < N; i++) {
    int64_t columns = i % 2 ? LARGE / 2 : 3; /* blocks that are used again, and some that are not */
    for (int64_t k = 0; k < 2 * columns; k++) x[k] = (float)(k + i);
    viv_job *job = submit_rows(m, x, 2, columns);
    viv_event event = {.struct_size = sizeof event};
    cr_assert_eq(viv_keep_tensor(job, &kept[i], &e), VIV_BAD_INPUT, "before the first event");
    cr_assert_eq(viv_next_event(job, -1, &event), VIV_OK);
    cr_assert_eq(viv_keep_tensor(job, &kept[i], &e), VIV_OK, "%s", e.message);
    cr_assert_eq(kept[i]->data, event.tensor->data, "it was copied");
    cr_assert_eq(viv_share_tensor(kept[i], &shared[i], &e), VIV_OK);
    cr_assert_eq(viv_next_event(job, -1, &event), VIV_OK);
    cr_assert_eq(event.kind, VIV_KIND_END);
    DLManagedTensor *none = NULL;
    cr_assert_eq(viv_keep_tensor(job, &none, &e), VIV_BAD_INPUT, "the end has no tensor");
    cr_assert(strstr(e.message, "no tensor"));
    viv_job_free(job);
    if (i % 3 == 0) kept[i]->deleter(kept[i]); /* the other one holds it */
  }
  viv_close(rt);
  for (int i = 0; i < N; i++) {
    const DLManagedTensor *t = shared[i];
    int64_t columns = i % 2 ? LARGE / 2 : 3;
    cr_assert(t->device == 1 && t->ndim == 2 && t->code == 2 && t->bits == 32 && t->lanes == 1);
    cr_assert(t->shape[0] == 2 && t->shape[1] == columns);
    cr_assert(t->strides[0] == columns && t->strides[1] == 1 && t->byte_offset == 0);
    for (int64_t k = 0; k < 2 * columns; k++)
      cr_assert_eq(((const float *)t->data)[k], (float)(k + i), "tensor %d, element %d", i, (int)k);
    shared[i]->deleter(shared[i]);
    if (i % 3) kept[i]->deleter(kept[i]);
  }
  char path[96];
  snprintf(path, sizeof path, "%s/config.json", dir);
  unlink(path);
  rmdir(dir);
}

Test(keep, what_was_not_kept_is_not_shared) {
  DLManagedTensor foreign = {.ndim = 0}, *out = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_share_tensor(&foreign, &out, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "viv_keep_tensor"));
  cr_assert_eq(viv_share_tensor(NULL, &out, &e), VIV_BAD_INPUT);
  cr_assert_eq(viv_keep_tensor(NULL, &out, &e), VIV_BAD_INPUT);
}
