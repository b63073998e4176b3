/* Plugins frozen at a released ABI, compiled against the headers of then, run in the host of today.
 * */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vivarium/vivarium.h"

#ifndef VIV_TEST_BUILD
#define VIV_TEST_BUILD "build"
#endif

static char dir[] = "/tmp/viv-museum-XXXXXX";
static viv_error error;
static viv_runtime *rt;

static void setup(void) {
  cr_assert(mkdtemp(dir) != NULL);
  const char *build = getenv("VIV_TEST_BUILD");
  char museum[512];
  snprintf(museum, sizeof museum, "%s/museum/1.0-draft", build ? build : VIV_TEST_BUILD);
  viv_options options = {.struct_size = sizeof options,
                         .threads = 1,
                         .plugin_path = museum,
                         .cache_dir = dir,
                         .log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_eq(viv_open(&options, &rt, &error), VIV_OK, "%s", error.message);
}

static void teardown(void) {
  char command[128];
  viv_close(rt);
  snprintf(command, sizeof command, "rm -rf %s", dir);
  cr_expect(system(command) == 0);
}

TestSuite(museum, .init = setup, .fini = teardown, .timeout = 30);

static viv_model *load(const char *type) {
  char path[128], file[160];
  viv_model *model = NULL;
  snprintf(path, sizeof path, "%s/%s", dir, type);
  mkdir(path, 0700);
  snprintf(file, sizeof file, "%s/config.json", path);
  FILE *f = fopen(file, "w");
  cr_assert(f && fprintf(f, "{\"model_type\": \"%s\"}", type) > 0 && fclose(f) == 0);
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_eq(viv_load(rt, path, NULL, &model, &error), VIV_OK, "%s", error.message);
  return model;
}

/* Runs a job with one tensor and copies the result tensor of that name; answers its bytes. */
static uint64_t run(viv_model *model, const char *task, const char *params, const char *in,
                    const viv_tensor *tensor, const char *out, void *data, size_t cap) {
  viv_job *job = NULL;
  viv_event event = {.struct_size = sizeof event};
  viv_value value = {.struct_size = sizeof value,
                     .kind = VIV_KIND_TENSOR,
                     .name = {in, strlen(in)},
                     .tensor = tensor};
  const viv_value *inputs[] = {&value};
  viv_request request = {.struct_size = sizeof request,
                         .n_inputs = 1,
                         .task = task,
                         .params = params,
                         .inputs = inputs};
  uint64_t bytes = 0;
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_eq(viv_submit(model, &request, &job, &error), VIV_OK, "%s", error.message);
  do {
    cr_assert_eq(viv_next_event(job, 10000, &event), VIV_OK);
    if (event.kind == VIV_KIND_TENSOR && event.name.len == strlen(out) &&
        !memcmp(event.name.ptr, out, event.name.len)) {
      cr_assert_leq(event.tensor->bytes, cap);
      bytes = event.tensor->bytes;
      memcpy(data, event.tensor->data, bytes);
    }
  } while (!(event.flags & VIV_EVENT_FINAL));
  cr_assert_eq(event.status, VIV_OK, "%s", event.error ? event.error->message : "");
  viv_job_free(job);
  return bytes;
}

Test(museum, identity) {
  float x[6] = {1, -2, 3, 0.5f, 5, 6}, y[6] = {0};
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .data = x,
                       .bytes = sizeof x,
                       .dtype = VIV_F32,
                       .ndim = 2,
                       .shape = {3, 2}};
  viv_model *model = load("museum-identity");
  cr_expect_eq(run(model, "forward", NULL, "x", &tensor, "y", y, sizeof y), sizeof y);
  cr_expect_arr_eq(x, y, sizeof x);
  viv_unload(model);
}

Test(museum, counter_counts) {
  int64_t ids[3] = {3, 14, 15};
  float logits[3][16] = {{0}};
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .data = ids,
                       .bytes = sizeof ids,
                       .dtype = VIV_I64,
                       .ndim = 2,
                       .shape = {1, 3}};
  viv_model *model = load("museum-counter");
  cr_assert_eq(run(model, "forward", NULL, "input_ids", &tensor, "logits", logits, sizeof logits),
               sizeof logits);
  for (int r = 0; r < 3; r++)
    for (int v = 0; v < 16; v++)
      cr_expect_eq(logits[r][v], v == (ids[r] + 1) % 16 ? 10.0f : 0.0f, "row %d, token %d", r, v);
  viv_unload(model);
}

Test(museum, argmax_with_counter) {
  int64_t ids[2] = {7, 12}, sequence[8] = {0};
  static const int64_t expected[8] = {7, 12, 13, 14, 15, 0, 1, 2};
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .data = ids,
                       .bytes = sizeof ids,
                       .dtype = VIV_I64,
                       .ndim = 2,
                       .shape = {1, 2}};
  viv_model *model = load("museum-counter");
  cr_assert_eq(run(model, "generate",
                   "{\"strategy\": \"museum-argmax\", \"max_new_tokens\": 6,"
                   " \"outputs\": [\"sequences\"]}",
                   "input_ids", &tensor, "sequences", sequence, sizeof sequence),
               sizeof sequence);
  cr_expect_arr_eq(sequence, expected, sizeof sequence);
  viv_unload(model);
}
