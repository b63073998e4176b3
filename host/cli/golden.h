/* The golden runner's parts. Internal to host/cli.
 *
 * A case is a folder with config.json, weights, inputs.safetensors, outputs.safetensors and
 * meta.json; meta.json's "calls" say what to run. Nothing here knows a system: each call becomes
 * one job through vivarium.h, and what comes back is compared by name. */
#ifndef VIV_HOST_CLI_GOLDEN_H
#define VIV_HOST_CLI_GOLDEN_H

#include "checkpoint/checkpoint.h"
#include "cli/cli.h"

/* One compared tensor (or expectation, or listed text). */
typedef struct viv__golden_row {
  char *call, *tensor;
  double max_err, atol;
  bool exact, ok;
  char *note; /* what is wrong, or NULL */
} viv__golden_row;

enum viv__golden_state { VIV__GOLDEN_OK, VIV__GOLDEN_FAILED, VIV__GOLDEN_SKIPPED };

typedef struct viv__golden_case {
  char *dir;   /* as given */
  char *model; /* what is opened: the folder itself, "model" or the weights' package */
  cJSON *meta;
  cJSON *list;     /* the listed cases that meta.json's "cases" names; NULL: none */
  char *list_path; /* their file */
  viv__safetensors *inputs, *outputs; /* NULL: the case has none */
  viv__golden_row *rows;
  size_t n_rows, n_failed;
  int n_ops;  /* calls of the task "op", which golden_ops runs */
  char *note; /* why the case failed or was skipped as a whole */
  int state;  /* enum viv__golden_state */
} viv__golden_case;

typedef struct viv__golden_options {
  bool json, quiet, taps_first, dry_run;
  const char *only; /* a call's name as a glob, NULL: all */
  cJSON *load;
} viv__golden_options;

/* golden_case.c: reads a case's files; finds its model. A failure stands in note and state. */
void viv__golden_open(const char *dir, viv__golden_case *c);
void viv__golden_close(viv__golden_case *c);
void viv__golden_refuse(viv__golden_case *c, int state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
viv__golden_row *viv__golden_add(viv__golden_case *c, const char *call, const char *tensor);
void viv__golden_fail(viv__golden_case *c, viv__golden_row *row, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool viv__golden_has_calls(const viv__golden_case *c); /* any but "op" */

/* golden_list.c: what the judges of listed cases share. An entry that differs has a row of its own,
 * named NAME[index]; the whole list has one that says how many did. */
enum { VIV__GOLDEN_LIST_LIMIT = 64 << 20 }; /* bytes of a file of listed cases */
const cJSON *viv__golden_first_entry(const viv__golden_case *c); /* of "cases"; NULL: none */
viv__golden_row *viv__golden_differ(viv__golden_case *c, const char *name, int index,
                                    const char *format, ...) __attribute__((format(printf, 4, 5)));
void viv__golden_tally(viv__golden_case *c, const char *name, int failed, int entries);
/* A job of an entry: its tensors are kept in *got, which the caller frees. False: it failed, and
 * said [size] tells why. */
bool viv__golden_job(viv_model *model, const char *task, const cJSON *params,
                     const viv_value *input, viv__tensor_list *got, char *said, size_t size);

/* golden_run.c: all calls of an open case, in order. */
void viv__golden_run(viv__golden_case *c, const viv__golden_options *o);

/* golden_inputs.c: a call's inputs; the forms of CALLS.md. */
int32_t viv__golden_inputs(const viv__golden_case *c, const cJSON *call, viv__input_list *out,
                           viv_error *error);

/* golden_compare.c */
typedef struct viv__golden_rule {
  double atol;
  bool exact;
  bool has_ignore;
  int64_t ignore;          /* positions where the golden holds this are not compared */
  int64_t first_steps;     /* 0: all */
  const viv_tensor *mask;  /* padded_outputs "zero": [B, T], else NULL */
  const int64_t *row_ends; /* step_logits: steps that count, per row; NULL: all */
  int64_t n_rows;
} viv__golden_rule;
/* Fills the row; ours may be NULL (missing). */
void viv__golden_compare(viv__golden_case *c, viv__golden_row *row, const viv_tensor *ours,
                         const viv_tensor *golden, const viv__golden_rule *rule);

/* golden_text.c: the listed texts that a tokenizer's case holds. Answers false when the list is of
 * another kind. */
bool viv__golden_texts(viv__golden_case *c);

/* golden_template.c: the listed chat templates of a case. Answers false when the list is of another
 * kind. */
bool viv__golden_templates(viv__golden_case *c);

/* golden_sampling.c: the listed settings of the logits processors; likewise. */
bool viv__golden_samplings(viv__golden_case *c);

/* golden_grammar.c: the listed schemas and the texts that they let through; likewise. */
bool viv__golden_grammars(viv__golden_case *c);

/* golden_strategy.c: the listed generations of a model, which is opened when there are such (NULL:
 * that failed, and the case knows why); likewise. */
bool viv__golden_strategies(viv__golden_case *c, viv_model *(*open)(void *), void *context);

/* golden_segments.c: the listed probabilities and the stretches of time they mean; likewise. */
bool viv__golden_segments(viv__golden_case *c, viv_model *(*open)(void *), void *context);

#endif
