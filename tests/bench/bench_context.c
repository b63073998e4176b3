/* What a long context costs: one JSON object for each length.
 *
 *   build/bench/bench_context [MODEL LENGTH...]      (zoo/models/sambay-reasoner 128 384)
 *
 * A prompt of LENGTH ids, then 32 tokens greedily; the times are the job's own counters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

enum { NEW = 32 };

static void die(const char *where, const char *message) {
  fprintf(stderr, "bench_context: %s: %s\n", where, message);
  exit(1);
}

static void measure(viv_model *m, int64_t length) {
  viv_error e = VIV_ERROR_INIT;
  viv_job *job;
  viv_event event = {0};
  int64_t *ids = malloc((size_t)length * sizeof *ids);
  if (!ids) die("the prompt", "no memory");
  for (int64_t i = 0; i < length; i++) ids[i] = 5 + i * 7 % 199;
  viv_tensor tensor = {.struct_size = sizeof tensor,
                       .dtype = VIV_I64,
                       .ndim = 2,
                       .shape = {1, length},
                       .bytes = (uint64_t)length * sizeof *ids,
                       .data = ids};
  viv_value input = {.struct_size = sizeof input,
                     .kind = VIV_KIND_TENSOR,
                     .name = viv__str("input_ids"),
                     .tensor = &tensor};
  const viv_value *inputs[] = {&input};
  char params[80];
  snprintf(params, sizeof params, "{\"max_new_tokens\":%d,\"ignore_eos\":true}", NEW);
  viv_request q = {.struct_size = sizeof q,
                   .task = "generate",
                   .params = params,
                   .n_inputs = 1,
                   .inputs = inputs};
  if (viv_submit(m, &q, &job, &e) < 0) die(e.where, e.message);
  while (viv_next_event(job, -1, &event) == VIV_OK)
    if (event.flags & VIV_EVENT_FINAL) break;
  if (event.status < 0) die("the job", "did not end well");
  printf("{\"length\": %lld, \"new\": %d, \"counters\": %.*s}\n", (long long)length, NEW,
         (int)event.bytes.len, event.bytes.ptr);
  fflush(stdout);
  viv_job_free(job);
  free(ids);
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "zoo/models/sambay-reasoner";
  const char *build = getenv("VIV_TEST_BUILD");
  char plugins[4096];
  viv_error e = VIV_ERROR_INIT;
  viv_runtime *rt;
  viv_model *m;
  snprintf(plugins, sizeof plugins, "%s/plugins", build ? build : "build");
  viv_options o = {.struct_size = sizeof o, .plugin_path = plugins};
  if (viv_open(&o, &rt, &e) < 0 || viv_load(rt, path, NULL, &m, &e) < 0) die(e.where, e.message);
  for (int i = 2; i < argc; i++) {
    int64_t length = atoll(argv[i]);
    if (length < 2) die(argv[i], "is no length of a prompt");
    measure(m, length);
  }
  if (argc < 3) {
    measure(m, 128);
    measure(m, 384);
  }
  viv_close(rt);
  return 0;
}
