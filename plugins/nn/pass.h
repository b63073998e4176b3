/* Models that answer a job by passes over tensors (pictures, sound, encoders), as nn.h serves token
 * models: a task is one function that reads the inputs it needs, computes, and hands over results.
 *
 *   static int32_t forward(nn_pass *p) {
 *     struct vit_model *m = nn_net_of(p);
 *     int64_t shape[4] = {0, 3, 0, 0};                          0: any length, filled in
 *     const float *pixels = nn_need_floats(p, "pixel_values", 4, shape);
 *     float *logits = nn_room(p, shape[0] * m->classes);
 *     ...
 *     nn_result(p, VIV_F32, logits, NN_DIMS(shape[0], m->classes), "logits");
 *     return VIV_DONE;
 *   }
 *
 * Whatever can fail inside a task (an input that is missing, no memory, a cancelled job) leaves the
 * task at once: nn_need_*, nn_room, nn_stop and the like don't return then, and the pass answers
 * with their error. A task therefore holds nothing but memory of the pass and needs no error paths. */
#ifndef PLUGINS_NN_PASS_H
#define PLUGINS_NN_PASS_H

#include "nn/nn.h"

typedef struct nn_pass nn_pass;

/* One task of a model. run answers VIV_DONE; VIV_MORE to be called again after its results were
 * handed over (the host may run others between); VIV_WAIT when a stream has nothing yet. Calls after
 * the first find their place in nn_keep's memory. */
typedef struct nn_task {
  const char *name;
  int32_t (*run)(nn_pass *p);
} nn_task;

/* What such a model's struct begins with (struct x_model { nn_net net; ... }). */
typedef struct nn_net {
  const viv_host *host;
  const viv_compute *compute;
  const nn_task *tasks; /* ends with a name of NULL */
  const char *about;    /* what describe() answers; lives as long as the model */
} nn_net;

/* Sets host, compute and tasks, and all else of the nn_net to zero. */
int32_t nn_net_begin(nn_net *net, const viv_host *host, const nn_task *tasks, viv_error *error);
/* The answer of plan(): the weights of the tables and `bytes` more in the model's arena; the rest of
 * *out is zero and the plugin's to fill. model is as for nn_weights_check. */
int32_t nn_net_plan(const viv_host *host, const viv_model_source *source, nn_tables_fn tables,
                    void *model, uint64_t bytes, viv_memory_plan *out, viv_error *error);

/* clang-format off */
#define NN_NET_API(...)                                                                            \
  {NN_ABI(viv_model_api), .close = nn_net_close, .describe = nn_net_describe,                      \
   .job_begin = nn_net_begin_job, .job_step = nn_net_step, .job_end = nn_net_end, __VA_ARGS__}
/* clang-format on */
void nn_net_close(viv_plugin_model *model);
viv_str nn_net_describe(const viv_plugin_model *model);
int32_t nn_net_begin_job(viv_plugin_model *model, const viv_plugin_request *request, viv_job *job,
                         viv_plugin_job **out, viv_error *error);
int32_t nn_net_step(viv_plugin_job *job, viv_error *error);
void nn_net_end(viv_plugin_job *job);

/* ---- inside a task ---- */

void *nn_net_of(const nn_pass *p); /* the model */
const viv_compute *nn_compute_of(const nn_pass *p);
const viv_host *nn_host_of(const nn_pass *p);
viv_plugin_session *nn_session_of(const nn_pass *p); /* NULL: none */

/* Leaves the task with that error. where: "params.bandwidth", an input's name, ... */
_Noreturn void nn_stop(nn_pass *p, int32_t code, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Leaves the task with a status whose error is already described in nn_error_of(p). */
_Noreturn void nn_leave(nn_pass *p, int32_t status);
viv_error *nn_error_of(nn_pass *p);
/* Leaves the task when the job is cancelled or late; to be called between layers. */
void nn_pass_poll(nn_pass *p);

/* Memory. nn_room gives floats (nn_bytes any bytes), not zeroed, aligned to 64; nn_release gives back
 * all that was taken since the mark. What run leaves taken is given back when it returns. nn_keep's
 * memory is zeroed and stays for the job. */
typedef struct nn_mark {
  void *block;
  uint64_t used;
} nn_mark;
float *nn_room(nn_pass *p, int64_t n);
void *nn_bytes(nn_pass *p, int64_t count, size_t size);
nn_mark nn_here(const nn_pass *p);
void nn_release(nn_pass *p, nn_mark mark);
void *nn_keep(nn_pass *p, int64_t count, size_t size);
/* The job's one state, zeroed at the first call; all calls must name the same size. */
void *nn_state(nn_pass *p, size_t size);

/* Inputs. at counts those of one name. Lists are numbered in the request's order. */
int32_t nn_count(const nn_pass *p, const char *name);
const viv_value *nn_value(const nn_pass *p, const char *name, int32_t at); /* NULL: absent */
const viv_tensor *nn_input(nn_pass *p, const char *name); /* the first tensor; NULL: absent */
const viv_tensor *nn_input_at(nn_pass *p, const char *name, int32_t at);
const viv_tensor *nn_need(nn_pass *p, const char *name);
/* A tensor as f32 (itself when it is that) or i64, its shape checked against shape [ndim], where 0
 * takes any length and is filled in. Missing leading axes of length 1 are supplied. The second form
 * answers NULL when the input is absent. */
const float *nn_need_floats(nn_pass *p, const char *name, int32_t ndim, int64_t *shape);
const float *nn_some_floats(nn_pass *p, const char *name, int32_t ndim, int64_t *shape);
const int64_t *nn_need_ints(nn_pass *p, const char *name, int32_t ndim, int64_t *shape);
const int64_t *nn_some_ints(nn_pass *p, const char *name, int32_t ndim, int64_t *shape);
/* Any tensor's numbers as f32 or i64 in room of the pass. */
const float *nn_as_floats(nn_pass *p, const viv_tensor *t, const char *name);
const int64_t *nn_as_ints(nn_pass *p, const viv_tensor *t, const char *name);

/* Parameters of the request. A value of another type or out of range leaves the task. */
const viv_json *nn_param(const nn_pass *p, const char *key); /* NULL: absent or null */
int64_t nn_param_int(nn_pass *p, const char *key, int64_t fallback, int64_t lo, int64_t hi);
double nn_param_num(nn_pass *p, const char *key, double fallback, double lo, double hi);
bool nn_param_flag(nn_pass *p, const char *key, bool fallback);
viv_str nn_param_text(nn_pass *p, const char *key, const char *fallback);
/* A list of at most max numbers (one number is a list of one); answers how many, 0: absent. */
int32_t nn_param_numbers(nn_pass *p, const char *key, double *out, int32_t max);

/* Results, in the order of the calls; data is copied before they return. A result that the request's
 * `outputs` leaves out is still handed over unless nn_wants_result was asked. */
#define NN_DIMS(...)                                                                               \
  (int32_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) {         \
    __VA_ARGS__                                                                                    \
  }
void nn_result(nn_pass *p, int32_t dtype, const void *data, int32_t ndim, const int64_t *shape,
               const char *format, ...) __attribute__((format(printf, 6, 7)));
void nn_result_text(nn_pass *p, int32_t kind, const char *name, viv_str text); /* TEXT, JSON, ... */
void nn_progress(nn_pass *p, double done);
/* false: the request lists its outputs and this is not among them. */
bool nn_wants_result(const nn_pass *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* An intermediate tensor of f32, if anybody listens. */
void nn_tap(nn_pass *p, const float *data, int32_t ndim, const int64_t *shape, const char *format,
            ...) __attribute__((format(printf, 5, 6)));
bool nn_taps(const nn_pass *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
