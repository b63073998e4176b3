/* Models that answer by one pass over tensors: what their jobs promise, on a small BERT. */
#include "rt.h"

#define BERT "tests/goldens/bert/minilm"

enum { WIDTH = 36, MAX_TENSORS = 64 };

struct tensors {
  int32_t status, n;
  char name[MAX_TENSORS][64];
  float *data[MAX_TENSORS];
  uint64_t floats[MAX_TENSORS];
  viv_error error;
};

static viv_tensor ids_tensor(const int64_t *ids, int64_t rows, int64_t columns) {
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_I64,
                  .ndim = 2,
                  .shape = {rows, columns},
                  .bytes = (uint64_t)(rows * columns) * 8};
  memcpy(&t.data, &ids, sizeof ids);
  return t;
}

/* Runs a task over input_ids and, unless NULL, attention_mask. queue 0: the host's own size. */
static void run_pass(viv_model *m, const char *task, const viv_tensor *ids, const viv_tensor *mask,
                     const char *params, int32_t queue, struct tensors *r) {
  viv_value a = {.struct_size = sizeof a,
                 .kind = VIV_KIND_TENSOR,
                 .name = viv__str("input_ids"),
                 .tensor = ids};
  viv_value b = a;
  b.name = viv__str("attention_mask");
  b.tensor = mask;
  const viv_value *inputs[] = {&a, &b};
  viv_request q = {.struct_size = sizeof q,
                   .task = task,
                   .params = params,
                   .n_inputs = ids ? mask ? 2 : 1 : 0,
                   .inputs = inputs,
                   .max_queued_events = queue};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  memset(r, 0, sizeof *r);
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  if (queue) usleep(50000); /* so that the queue is full before anybody reads */
  viv_event event;
  while (viv_next_event(job, 60000, &event) == VIV_OK) {
    if (event.kind == VIV_KIND_TENSOR) {
      snprintf(r->name[r->n], sizeof r->name[0], "%.*s", (int)event.name.len, event.name.ptr);
      r->floats[r->n] = event.tensor->bytes / 4;
      r->data[r->n] = malloc(event.tensor->bytes);
      memcpy(r->data[r->n++], event.tensor->data, event.tensor->bytes);
    }
    if (event.kind == VIV_KIND_END) {
      r->status = event.status;
      if (event.error) r->error = *event.error;
    }
  }
  viv_job_free(job);
}

static const float *named(const struct tensors *r, const char *name) {
  for (int32_t i = 0; i < r->n; i++)
    if (!strcmp(r->name[i], name)) return r->data[i];
  cr_assert_fail("no result %s", name);
  return NULL;
}

static const int64_t two_rows[] = {5, 9, 12, 60, 3, 7, 8, 11, 0, 0};
static const int64_t two_masks[] = {1, 1, 1, 1, 1, 1, 1, 1, 0, 0};

Test(pass, a_padded_row_equals_the_row_alone_to_the_bit) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, BERT);
  viv_tensor ids = ids_tensor(two_rows, 2, 5), mask = ids_tensor(two_masks, 2, 5);
  viv_tensor alone = ids_tensor(two_rows + 5, 1, 3);
  struct tensors both, one;
  run_pass(m, "embed", &ids, &mask, "{\"normalize\":true}", 0, &both);
  run_pass(m, "embed", &alone, NULL, "{\"normalize\":true}", 0, &one);
  cr_assert_eq(both.status, VIV_OK, "%s", both.error.message);
  cr_assert_eq(one.status, VIV_OK, "%s", one.error.message);
  cr_assert_eq(
      memcmp(named(&both, "embeddings") + WIDTH, named(&one, "embeddings"), WIDTH * sizeof(float)),
      0, "padding changed a row");
  viv_close(rt);
}

Test(pass, a_slow_reader_gets_every_result_in_order) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, BERT);
  viv_tensor ids = ids_tensor(two_rows, 2, 5);
  struct tensors slow, fast;
  const char *taps = "{\"taps\":[\"*\"]}";
  run_pass(m, "forward", &ids, NULL, taps, 1, &slow);
  run_pass(m, "forward", &ids, NULL, taps, 0, &fast);
  cr_assert_eq(slow.status, VIV_OK, "%s", slow.error.message);
  cr_assert_eq(slow.n, 6, "4 taps and 2 results, not %d", slow.n);
  cr_assert_eq(fast.n, slow.n);
  for (int32_t i = 0; i < slow.n; i++) {
    cr_assert_str_eq(slow.name[i], fast.name[i]);
    cr_assert_eq(slow.floats[i], fast.floats[i]);
    cr_assert_eq(memcmp(slow.data[i], fast.data[i], slow.floats[i] * 4), 0, "%s", slow.name[i]);
  }
  viv_close(rt);
}

Test(pass, what_is_wrong_with_a_request_is_said) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, BERT);
  static const int64_t wrong[] = {5, 61}, many[33] = {1};
  viv_tensor ids = ids_tensor(two_rows, 2, 5), outside = ids_tensor(wrong, 1, 2);
  viv_tensor mask = ids_tensor(two_masks, 1, 4), longer = ids_tensor(many, 1, 33);
  viv_tensor none = ids_tensor(many, 0, 5);
  struct tensors r;
  struct {
    const char *task;
    const viv_tensor *ids, *mask;
    const char *params, *where, *text;
  } cases[] = {
      {"embed", NULL, NULL, NULL, "input_ids", "is missing"},
      {"embed", &outside, NULL, NULL, "input_ids", "item 1 is 61"},
      {"embed", &ids, &mask, NULL, "attention_mask", "[1, 4]"},
      {"embed", &longer, NULL, NULL, "input_ids", "33 tokens"},
      {"embed", &none, NULL, NULL, "input_ids", "empty"},
      {"embed", &ids, NULL, "{\"pooling\":\"max\"}", "params", "mean or cls"},
      {"embed", &ids, NULL, "{\"normalize\":3}", "params", "normalize"},
      {"fill_mask", &ids, NULL, "{\"mask_token_id\":3}", "task", "no head"},
      {"segment", &ids, NULL, NULL, "task", "forward, embed"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_pass(m, cases[i].task, cases[i].ids, cases[i].mask, cases[i].params, 0, &r);
    cr_assert_lt(r.status, 0, "case %zu passed", i);
    cr_assert(strstr(r.error.where, cases[i].where), "case %zu: where is %s", i, r.error.where);
    cr_assert(strstr(r.error.message, cases[i].text), "case %zu: %s", i, r.error.message);
  }
  run_pass(m, "embed", &ids, NULL, NULL, 0, &r); /* and the model still works */
  cr_assert_eq(r.status, VIV_OK);
  viv_close(rt);
}

Test(pass, a_cancelled_job_ends_so) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, BERT);
  viv_tensor ids = ids_tensor(two_rows, 2, 5);
  viv_value a = {.struct_size = sizeof a,
                 .kind = VIV_KIND_TENSOR,
                 .name = viv__str("input_ids"),
                 .tensor = &ids};
  const viv_value *inputs[] = {&a};
  viv_request q = {.struct_size = sizeof q,
                   .task = "forward",
                   .params = "{\"taps\":[\"*\"]}",
                   .n_inputs = 1,
                   .inputs = inputs,
                   .max_queued_events = 1};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK);
  usleep(20000); /* it stands on its full queue */
  viv_job_cancel(job);
  result r;
  drain(job, &r);
  cr_assert_eq(r.status, VIV_CANCELLED);
  viv_job_free(job);
  viv_close(rt);
}
