/* viv.workflow/1: a recipe over whole jobs (sample many and vote, judge and decline, make data). It
 * asks for jobs as a strategy asks for evaluations; the host runs them, several at a time. */
#ifndef VIVARIUM_WORKFLOW_H
#define VIVARIUM_WORKFLOW_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_WORKFLOW_ID "viv.workflow/1"

typedef struct viv_workflow viv_workflow; /* the plugin's */

/* One job that the workflow wants. model is a role ("generator", "judge"): the caller of the workflow
 * says which model plays it. */
typedef struct viv_workflow_job {
  uint32_t struct_size;
  int32_t tag; /* comes back with the result */
  viv_str model;
  viv_str task;
  viv_str params; /* a JSON object */
  int32_t n_inputs;
  int32_t reserved;
  const viv_value *const *inputs;
} viv_workflow_job;

/* What came of it: the job's events but the taps, END last. */
typedef struct viv_workflow_result {
  uint32_t struct_size;
  int32_t tag;
  int32_t status;
  int32_t n_events;
  const viv_event *const *events;
  const viv_error *error; /* NULL unless status is negative */
} viv_workflow_result;

/* What the workflow wants: jobs to start and events to emit. Owned by the workflow until the next
 * resume. */
typedef struct viv_workflow_want {
  uint32_t struct_size;
  int32_t n_jobs;
  const viv_workflow_job *const *jobs;
  int32_t n_events;
  int32_t reserved;
  const viv_event *const *events;
} viv_workflow_want;

typedef struct viv_workflow_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  int32_t (*create)(const viv_host *host, viv_str name, const viv_json *params,
                    const viv_value *const *inputs, int32_t n_inputs, viv_arena *arena,
                    viv_workflow **out, viv_error *error); /* [job] */
  /* results: those of jobs that ended since the last call, in the order of their end; none the first
   * time. Answers MORE (waits for at least one running or new job) or DONE. [job] */
  int32_t (*resume)(viv_workflow *workflow, const viv_workflow_result *const *results,
                    int32_t n_results, viv_workflow_want *want, viv_error *error);
  void (*destroy)(viv_workflow *workflow); /* [job] */
} viv_workflow_api;

#ifdef __cplusplus
}
#endif
#endif
