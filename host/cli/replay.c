/* viv replay: runs a job again that a daemon's worker died of (daemon/replay.c writes the file). It runs in
 * this process, where a debugger can see it. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "wire/wire.h"

#define FILE_LIMIT ((size_t)128 << 20)

typedef struct record {
  char *bytes; /* the file; everything below points into it */
  char *path, *params;
  viv__wire_submit job;
} record;

static int32_t take(const char **at, const char *end, char **text) {
  uint32_t n;
  if (end - *at < 4) return VIV_BAD_INPUT;
  memcpy(&n, *at, 4);
  n = le32toh(n);
  if (n > (size_t)(end - *at) - 4) return VIV_BAD_INPUT;
  *text = viv__strndup(*at + 4, n);
  *at += 4 + n;
  return *text ? VIV_OK : VIV_NOT_NOW;
}

static int32_t read_record(const char *file, record *r, viv_error *error) {
  size_t len = 0;
  int32_t status = viv__read_file(file, FILE_LIMIT, &r->bytes, &len, error);
  if (status < 0) return status;
  const char *at = r->bytes + 8, *end = r->bytes + len;
  if (len < 8 || memcmp(r->bytes, "VIVJOB1\n", 8) || take(&at, end, &r->path) < 0 ||
      take(&at, end, &r->params) < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, file, "is no job that a daemon recorded");
  viv__frame f = {
      .type = VIV__WIRE_SUBMIT, .length = (uint32_t)(end - at), .payload = (const uint8_t *)at};
  status = viv__wire_submit_read(&f, &r->job, error);
  for (uint32_t i = 0; status >= 0 && i < r->job.n_inputs; i++)
    if (r->job.inputs[i].where != VIV__WIRE_HERE)
      status = VIV_FAIL(error, VIV_BAD_INPUT, file, "an input does not stand in the file");
  return status;
}

static const char *kind_name(int32_t kind) {
  static const char *const names[] = {"?", "tensor", "text", "json", "image", "audio"};
  return kind > 0 && kind < 6 ? names[kind] : names[0];
}

static void show(const record *r) {
  printf("model %s %s\ntask %.*s %.*s\n", r->path, r->params, (int)r->job.task.len, r->job.task.ptr,
         (int)r->job.params.len, r->job.params.len ? r->job.params.ptr : "");
  for (uint32_t i = 0; i < r->job.n_inputs; i++) {
    const viv__wire_value *v = &r->job.inputs[i];
    printf("input %.*s: %s of %llu bytes\n", (int)v->name.len, v->name.ptr, kind_name(v->kind),
           (unsigned long long)v->bytes.len);
  }
}

static int32_t submit(viv_model *m, record *r, viv_job **job, viv_error *error) {
  uint32_t n = r->job.n_inputs;
  viv_value *values = viv__need(calloc(n + 1, sizeof *values));
  viv_tensor *tensors = viv__need(calloc(n + 1, sizeof *tensors));
  const viv_value **list = viv__need(calloc(n + 1, sizeof *list));
  for (uint32_t i = 0; i < n; i++) {
    const viv__wire_value *v = &r->job.inputs[i];
    values[i] = (viv_value){.struct_size = sizeof *values, .kind = v->kind, .name = v->name};
    list[i] = &values[i];
    if (v->kind != VIV_KIND_TENSOR) {
      values[i].bytes = v->bytes;
      continue;
    }
    tensors[i] = (viv_tensor){.struct_size = sizeof *tensors,
                              .flags = VIV_TENSOR_READ_ONLY,
                              .data = (void *)(uintptr_t)v->bytes.ptr,
                              .bytes = v->bytes.len,
                              .dtype = v->dtype,
                              .ndim = v->ndim};
    memcpy(tensors[i].shape, v->shape, sizeof tensors[i].shape);
    values[i].tensor = &tensors[i];
  }
  char *task = viv__need(viv__strndup(r->job.task.ptr, r->job.task.len));
  char *params = r->job.params.len ? viv__strndup(r->job.params.ptr, r->job.params.len) : NULL;
  viv_request q = {.struct_size = sizeof q,
                   .n_inputs = (int32_t)n,
                   .task = task,
                   .params = params,
                   .inputs = list};
  int32_t status = viv_submit(m, &q, job, error);
  viv__free(task);
  viv__free(params);
  free(values);
  free(tensors);
  free(list);
  return status;
}

/* Texts as they come, a line for everything else. */
static int32_t print_events(viv_job *job, viv_error *error) {
  viv_event e = {.struct_size = sizeof e};
  bool in_text = false;
  while (viv_next_event(job, -1, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TEXT) {
      fwrite(e.bytes.ptr, 1, e.bytes.len, stdout);
      in_text = true;
    } else if (e.kind == VIV_KIND_END) {
      if (in_text) putchar('\n');
      if (e.status < 0 && e.error) *error = *e.error;
      return e.status;
    } else if (e.kind != VIV_KIND_PROGRESS) {
      printf("%s%.*s: %s of %llu bytes\n", in_text ? "\n" : "", (int)e.name.len, e.name.ptr,
             kind_name(e.kind),
             (unsigned long long)(e.kind == VIV_KIND_TENSOR ? e.tensor->bytes : e.bytes.len));
      in_text = false;
    }
    fflush(stdout);
  }
  return VIV_OK;
}

static int32_t run(record *r, viv_error *error) {
  viv_runtime *rt = NULL;
  viv_model *m = NULL;
  viv_job *job = NULL;
  int32_t status = viv__open_runtime(&rt, error);
  if (status < 0) return status;
  status = viv_load(rt, r->path, *r->params ? r->params : NULL, &m, error);
  if (status >= 0) status = submit(m, r, &job, error);
  if (status >= 0) status = print_events(job, error);
  viv_job_free(job);
  viv_close(rt);
  return status;
}

int viv__cmd_replay(int argc, char **argv) {
  bool json = false, only_show = false;
  const viv__opt options[] = {
      {"show", 0, VIV__OPT_FLAG, NULL, &only_show, "say what is in it, and run nothing", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "a failure as JSON", NULL},
      {0}};
  const viv__usage usage = {
      "viv replay ~/.local/state/vivarium/replay/01790000000-7.job", "replay [options] FILE",
      "Runs a job again that a worker of the daemon died of, in this process. The job's\n"
      "error named the file."};
  const char *file = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &file, &n);
  if (code >= 0) return code;
  record *r = viv__need(calloc(1, sizeof *r));
  viv_error error = VIV_ERROR_INIT;
  int32_t status = read_record(file, r, &error);
  if (status >= 0 && only_show)
    show(r);
  else if (status >= 0)
    status = run(r, &error);
  viv__free(r->bytes);
  viv__free(r->path);
  viv__free(r->params);
  free(r);
  return status < 0 ? viv__report(json, NULL, status, &error) : VIV__EXIT_OK;
}
