/* The smallest model: task "forward" gives the input tensor x back as y. */
#include <string.h>

#include "vivarium/model.h"

#define STR(text) ((viv_str){(text), sizeof(text) - 1})

struct viv_plugin_model {
  const viv_host *host;
};

struct viv_plugin_job {
  const viv_host *host;
  viv_job *job;
  const viv_tensor *x;
};

static int32_t fail(viv_error *error, int32_t code, const char *message) {
  if (error) {
    error->code = code;
    strncpy(error->message, message, sizeof error->message - 1);
  }
  return code;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  (void)host;
  (void)source;
  (void)error;
  out->model_bytes = 4096;
  return VIV_OK;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  viv_plugin_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return fail(error, VIV_NOT_NOW, "no memory for the model");
  m->host = host;
  *out = m;
  return VIV_OK;
}

static void close_model(viv_plugin_model *model) {
  (void)model;
}

static viv_str describe(const viv_plugin_model *model) {
  (void)model;
  return STR(
      "{\"tasks\":{\"forward\":{\"inputs\":{\"x\":\"tensor\"},\"outputs\":{\"y\":\"tensor\"}}}}");
}

static int32_t job_begin(viv_plugin_model *model, const viv_plugin_request *request, viv_job *job,
                         viv_plugin_job **out, viv_error *error) {
  const viv_host *host = model->host;
  const viv_tensor *x = NULL;
  if (request->task.len != 7 || memcmp(request->task.ptr, "forward", 7))
    return fail(error, VIV_BAD_INPUT, "knows the task forward only");
  for (int32_t i = 0; i < request->n_inputs; i++) {
    const viv_value *in = request->inputs[i];
    if (in->name.len == 1 && *in->name.ptr == 'x' && in->kind == VIV_KIND_TENSOR) x = in->tensor;
  }
  if (!x) return fail(error, VIV_BAD_INPUT, "needs an input tensor x");
  viv_plugin_job *j = host->arena_alloc(host->job_arena(job), sizeof *j);
  if (!j) return fail(error, VIV_NOT_NOW, "no memory for the job");
  *j = (viv_plugin_job){host, job, x};
  *out = j;
  return VIV_OK;
}

static int32_t job_step(viv_plugin_job *j, viv_error *error) {
  (void)error;
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = STR("y"), .tensor = j->x};
  int32_t status = j->host->job_emit(j->job, &event);
  return status == VIV_OK ? VIV_DONE : status;
}

static void job_end(viv_plugin_job *j) {
  (void)j;
}

static const viv_model_api model_api = {.struct_size = sizeof model_api,
                                        .abi_major = VIV_ABI_MAJOR,
                                        .abi_minor = VIV_ABI_MINOR,
                                        .plan = plan,
                                        .open = open_model,
                                        .close = close_model,
                                        .describe = describe,
                                        .job_begin = job_begin,
                                        .job_step = job_step,
                                        .job_end = job_end};

static const void *get_interface(viv_str id) {
  if (id.len == sizeof VIV_MODEL_ID - 1 && !memcmp(id.ptr, VIV_MODEL_ID, id.len)) return &model_api;
  return NULL;
}

static const viv_plugin plugin = {.struct_size = sizeof plugin,
                                  .abi_major = VIV_ABI_MAJOR,
                                  .abi_minor = VIV_ABI_MINOR,
                                  .id = STR("museum-identity"),
                                  .version = STR("1.0.0"),
                                  .get_interface = get_interface};

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  if (host->abi_major < 1 || host->abi_oldest_major > 1) {
    fail(error, VIV_NEVER, "speaks ABI 1.0 to 1.0, which the host's range does not hold");
    return NULL;
  }
  return &plugin;
}
