/* viv.model/1: open a checkpoint, say what it takes and gives, run jobs in steps.
 *
 * Every model plugin offers this interface. A token model (token_model.h) leaves the job functions
 * NULL: the host then runs its tasks (generate, forward, score, ...) over eval. */
#ifndef VIVARIUM_MODEL_H
#define VIVARIUM_MODEL_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_MODEL_ID "viv.model/1"

typedef struct viv_plugin_model viv_plugin_model;     /* the plugin's, one loaded checkpoint */
typedef struct viv_plugin_session viv_plugin_session; /* the plugin's, state between jobs */
typedef struct viv_plugin_job viv_plugin_job;         /* the plugin's, one running job */

enum viv_weight_policy {
  VIV_WEIGHTS_AS_STORED = 0, /* compute on the checkpoint's own dtype */
  VIV_WEIGHTS_F32 = 1,
  VIV_WEIGHTS_BF16 = 2,
  VIV_WEIGHTS_F16 = 3,
  VIV_WEIGHTS_INT8 = 4, /* VIV_Q8_0; rows that are no multiple of 32: VIV_INT8_ROW */
  VIV_WEIGHTS_INT4 = 5  /* VIV_Q4_1; rows that are no multiple of 32: as INT8 */
};

/* What open and plan are given. Everything lives as long as the model. */
typedef struct viv_model_source {
  uint32_t struct_size;
  int32_t weight_policy;      /* enum viv_weight_policy: pass it on to weight_prepare */
  viv_str name;               /* for messages */
  const viv_json *config;     /* config.json */
  const viv_json *params;     /* the load's own parameters, an object or NULL */
  const viv_checkpoint *checkpoint;
  viv_arena *arena; /* the model's arena; NULL in plan */
} viv_model_source;

/* What the model will need, computed from config.json and the checkpoint's headers alone. The host
 * adds the weights' bytes itself. */
typedef struct viv_memory_plan {
  uint32_t struct_size;
  int32_t reserved;
  uint64_t model_bytes;          /* the model's arena: prepared vectors, tables */
  uint64_t session_bytes;        /* fixed part of a sequence's or session's state */
  uint64_t session_token_bytes;  /* growing part, per token (or per frame, ...) */
  uint64_t step_bytes;           /* scratch of a step, fixed part */
  uint64_t step_row_bytes;       /* scratch of a step, per row of a batch */
  int64_t context_max;           /* longest sequence the model allows, 0: no limit or no sequences */
} viv_memory_plan;

/* A request as the plugin sees it: inputs are validated against the task's schema and decoded. */
typedef struct viv_plugin_request {
  uint32_t struct_size;
  int32_t n_inputs;
  viv_str task;                    /* "forward", "segment", ... */
  const viv_value *const *inputs;  /* [n_inputs], live until job_end */
  const viv_json *params;          /* object or NULL, lives until job_end */
  viv_plugin_session *session;     /* NULL: none */
} viv_plugin_request;

typedef struct viv_model_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  /* Fills *out. Errors: BAD_INPUT when config.json is missing keys or contradicts itself. [loader] */
  int32_t (*plan)(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                  viv_error *error);

  /* Opens the checkpoint; the caller owns *out until close. All mismatches between the checkpoint
   * and the plugin's weight table are reported in one error. [loader] */
  int32_t (*open)(const viv_host *host, const viv_model_source *source, viv_plugin_model **out,
                  viv_error *error);
  void (*close)(viv_plugin_model *model);

  /* A JSON object that names the tasks with their inputs and outputs, and whatever `viv show` should
   * print; lives as long as the model. [any] */
  viv_str (*describe)(const viv_plugin_model *model);

  /* Sessions of models that are not token models; NULL: none. save sets *bytes to what is needed;
   * with data NULL that is all it does, and when capacity is smaller it writes nothing else and
   * answers NOT_NOW. [job] */
  int32_t (*session_open)(viv_plugin_model *model, viv_arena *arena, viv_plugin_session **out,
                          viv_error *error);
  void (*session_close)(viv_plugin_session *session);
  int32_t (*session_save)(viv_plugin_session *session, void *data, uint64_t capacity,
                          uint64_t *bytes, viv_error *error);
  int32_t (*session_restore)(viv_plugin_session *session, const void *data, uint64_t bytes,
                             viv_error *error);

  /* A job: begin, step until it answers DONE or fails, end. step answers MORE (call again; the host
   * may run, pre-empt or cancel between), WAIT (emit or a stream answered WAIT), DONE or a failure.
   * end is called once for each begin that succeeded, also after a failure. NULL for token models.
   * [job] */
  int32_t (*job_begin)(viv_plugin_model *model, const viv_plugin_request *request, viv_job *job,
                       viv_plugin_job **out, viv_error *error);
  int32_t (*job_step)(viv_plugin_job *job, viv_error *error);
  void (*job_end)(viv_plugin_job *job);
} viv_model_api;

#ifdef __cplusplus
}
#endif
#endif
