/* What the files of tests share. Internal to viv-validate. */
#ifndef VIV_VALIDATE_TESTS_H
#define VIV_VALIDATE_TESTS_H

#include "validate/validate.h"

/* ---- tests.c ---- */

uint64_t viv__v_next_random(uint64_t *state); /* splitmix64 */

/* ---- tests_load.c: the files, loading, the tables ---- */

/* Loads for a kind of host; what init and the interface ask for included. */
const viv_host *viv__v_load(struct context *c, int flags);

void viv__v_test_manifest(struct context *c);
void viv__v_test_exports(struct context *c);
void viv__v_test_links(struct context *c);
void viv__v_test_imports(struct context *c);
void viv__v_test_loads(struct context *c);
void viv__v_test_table(struct context *c);
void viv__v_test_interfaces(struct context *c);
void viv__v_test_unknown_interface(struct context *c);
void viv__v_test_init_twice(struct context *c);
void viv__v_test_host_newer(struct context *c);
void viv__v_test_host_other_major(struct context *c);

/* ---- tests_model.c: opening ---- */

#define ARENA_LIMIT ((uint64_t)1 << 31)

struct opened {
  const viv_host *host;
  viv_arena *arena;
  viv_plugin_model *model;
  viv_model_source source;
};

/* A failure must be a known one, and explain itself. */
void viv__v_check_failure(struct context *c, const char *what, int32_t status,
                          const viv_error *error);
/* Loads and opens the model the run has. Without --model a plugin may well refuse the empty model
 * directory that was made up: the test is skipped then. */
bool viv__v_start(struct context *c, struct opened *o, int flags);
void viv__v_close_it(struct context *c, struct opened *o);
bool viv__v_readable_describe(struct context *c, const struct opened *o, viv_json **out);

void viv__v_test_no_extensions(struct context *c);
void viv__v_test_open_bad_config(struct context *c);
void viv__v_test_opens(struct context *c);
void viv__v_test_leaks(struct context *c);
void viv__v_test_no_memory(struct context *c);
void viv__v_test_fuzz_config(struct context *c);

/* ---- tests_job.c ---- */

void viv__v_test_job_runs(struct context *c);
void viv__v_test_job_wait(struct context *c);
void viv__v_test_job_bad_input(struct context *c);
void viv__v_test_cancel(struct context *c);
void viv__v_test_cancelled_before(struct context *c);
void viv__v_test_job_no_memory(struct context *c);
void viv__v_test_fuzz_job(struct context *c);

/* ---- tests_token.c ---- */

void viv__v_test_token_info(struct context *c);
void viv__v_test_token_batches(struct context *c);
void viv__v_test_token_poll(struct context *c);
void viv__v_test_token_snapshot(struct context *c);
void viv__v_test_token_fuzz(struct context *c);

/* ---- tests_strategy.c ---- */

void viv__v_test_strategy(struct context *c);

#endif
