/* A model plugin that keeps every promise of the ABI, in pieces. Each test plugin includes this
 * file and replaces the one piece in which it misbehaves, so that its source shows its sin and
 * nothing else. Task "forward": the tensor x comes back as y. */
#ifndef VIV_TEST_PLUGIN_COMMON_H
#define VIV_TEST_PLUGIN_COMMON_H

#include <stddef.h>
#include <string.h>

#include "vivarium/model.h"

struct viv_plugin_model {
  const viv_host *host;
  const void *compute; /* only of those that ask for it */
};

struct viv_plugin_job {
  const viv_host *host;
  viv_job *job;
  const viv_tensor *x; /* lives until job_end */
  int64_t step;
};

#define STR(text) ((viv_str){(text), sizeof(text) - 1})

static inline int32_t fail(viv_error *error, int32_t code, const char *where, const char *message) {
  if (error && error->struct_size >= sizeof *error) {
    error->code = code;
    error->line = 0;
    strncpy(error->source, "tests/plugins", sizeof error->source - 1);
    strncpy(error->where, where, sizeof error->where - 1);
    strncpy(error->message, message, sizeof error->message - 1);
  }
  return code;
}

static inline int32_t good_config(const viv_host *host, const viv_model_source *source,
                                  viv_error *error) {
  const viv_json *type = host->json_member(source->config, STR("model_type"));
  if (host->json_type(type) != VIV_JSON_STRING)
    return fail(error, VIV_BAD_INPUT, "config.json: model_type", "must be a text");
  return VIV_OK;
}

static inline int32_t good_plan(const viv_host *host, const viv_model_source *source,
                                viv_memory_plan *out, viv_error *error) {
  int32_t status = good_config(host, source, error);
  if (status < 0) return status;
  out->model_bytes = 4096;
  out->step_bytes = 1 << 20;
  return VIV_OK;
}

static inline int32_t good_open(const viv_host *host, const viv_model_source *source,
                                viv_plugin_model **out, viv_error *error) {
  int32_t status = good_config(host, source, error);
  if (status < 0) return status;
  viv_plugin_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return fail(error, VIV_NOT_NOW, "open", "the model's arena is full");
  m->host = host;
  *out = m;
  return VIV_OK;
}

static inline void good_close(viv_plugin_model *model) {
  (void)model; /* everything lies in the arena */
}

static inline viv_str good_describe(const viv_plugin_model *model) {
  (void)model;
  return STR(
      "{\"tasks\":{\"forward\":{\"inputs\":{\"x\":\"tensor\"},\"outputs\":{\"y\":\"tensor\"}}}}");
}

static inline int32_t good_begin(viv_plugin_model *model, const viv_plugin_request *request,
                                 viv_job *job, viv_plugin_job **out, viv_error *error) {
  const viv_host *host = model->host;
  const viv_tensor *x = NULL;
  if (request->task.len != 7 || memcmp(request->task.ptr, "forward", 7))
    return fail(error, VIV_BAD_INPUT, "task", "only forward is known");
  for (int32_t i = 0; i < request->n_inputs; i++) {
    const viv_value *in = request->inputs[i];
    if (in->name.len == 1 && in->name.ptr[0] == 'x' && in->kind == VIV_KIND_TENSOR) x = in->tensor;
  }
  if (!x) return fail(error, VIV_BAD_INPUT, "x", "a tensor of this name is needed");
  viv_arena *arena = host->job_arena(job);
  viv_plugin_job *j = arena ? host->arena_alloc(arena, sizeof *j) : NULL;
  if (!j) return fail(error, VIV_NOT_NOW, "job", "no memory");
  j->host = host;
  j->job = job;
  j->x = x;
  *out = j;
  return VIV_OK;
}

static inline int32_t emit_y(viv_plugin_job *j) {
  viv_event event = {
      .struct_size = sizeof event, .kind = VIV_KIND_TENSOR, .name = STR("y"), .tensor = j->x};
  return j->host->job_emit(j->job, &event);
}

static inline int32_t good_step(viv_plugin_job *j, viv_error *error) {
  (void)error;
  int32_t status = j->host->job_poll(j->job);
  if (status < 0) return status;
  status = emit_y(j);
  return status == VIV_OK ? VIV_DONE : status; /* WAIT: the same event again in the next step */
}

static inline void good_end(viv_plugin_job *j) {
  (void)j;
}

#define MODEL_HEAD                                                                                 \
  .struct_size = sizeof(viv_model_api), .abi_major = VIV_ABI_MAJOR, .abi_minor = VIV_ABI_MINOR

/* The interface that most of them offer; a source that replaces a function defines it before. */
#ifndef PLAN
#define PLAN good_plan
#endif
#ifndef OPEN
#define OPEN good_open
#endif
#ifndef BEGIN
#define BEGIN good_begin
#endif
#ifndef STEP
#define STEP good_step
#endif
#ifndef DESCRIBE
#define DESCRIBE good_describe
#endif
#define MODEL_API                                                                                  \
  static const viv_model_api model_api = {                                                         \
      MODEL_HEAD,           .plan = PLAN,       .open = OPEN,     .close = good_close,             \
      .describe = DESCRIBE, .job_begin = BEGIN, .job_step = STEP, .job_end = good_end}

static inline int is_model_id(viv_str id) {
  return id.len == sizeof VIV_MODEL_ID - 1 && !memcmp(id.ptr, VIV_MODEL_ID, id.len);
}

static inline const viv_plugin *check_host(const viv_host *host, viv_error *error,
                                           const viv_plugin *plugin) {
  if (host->abi_major < VIV_ABI_MAJOR || host->abi_oldest_major > VIV_ABI_MAJOR) {
    fail(error, VIV_NEVER, "viv_plugin_entry",
         "this plugin speaks ABI 1.0 only; the host's range of majors does not hold 1");
    return NULL;
  }
  return plugin;
}

#define PLUGIN(name)                                                                               \
  MODEL_API;                                                                                       \
  static const void *get_interface(viv_str id) {                                                   \
    return is_model_id(id) ? &model_api : NULL;                                                    \
  }                                                                                                \
  static const viv_plugin plugin = {.struct_size = sizeof plugin,                                  \
                                    .abi_major = VIV_ABI_MAJOR,                                    \
                                    .abi_minor = VIV_ABI_MINOR,                                    \
                                    .id = STR(name),                                               \
                                    .version = STR("0.1.0"),                                       \
                                    .get_interface = get_interface};                               \
  const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {                     \
    return check_host(host, error, &plugin);                                                       \
  }                                                                                                \
  extern int test_plugin_needs_a_semicolon

#endif
