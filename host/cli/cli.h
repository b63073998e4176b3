/* What the verbs of `viv` share: options, messages, finding models, pulling events, tensors.
 * Internal to host/cli.
 *
 * Models are reached through vivarium.h alone. A verb answers the process's exit code, see
 * enum viv__exit, which the man page documents. */
#ifndef VIV_HOST_CLI_H
#define VIV_HOST_CLI_H

#include <cjson/cJSON.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

enum viv__exit {
  VIV__EXIT_OK = 0,
  VIV__EXIT_FAILED = 1,    /* the thing that was asked for did not succeed */
  VIV__EXIT_USAGE = 2,     /* the command line is wrong */
  VIV__EXIT_NEVER = 3,     /* not found, unsupported, refused */
  VIV__EXIT_NOT_NOW = 4,   /* memory, time or another resource is short */
  VIV__EXIT_BAD_INPUT = 5, /* a file, prompt or parameter is wrong */
  VIV__EXIT_CANCELLED = 130
};

/* ---- verbs ---- */

int viv__cmd_run(int argc, char **argv);
int viv__cmd_chat(int argc, char **argv);
int viv__cmd_list(int argc, char **argv);
int viv__cmd_show(int argc, char **argv);
int viv__cmd_why(int argc, char **argv);
int viv__cmd_plugins(int argc, char **argv);
int viv__cmd_golden(int argc, char **argv);
int viv__cmd_eval(int argc, char **argv);
int viv__cmd_bench(int argc, char **argv);
int viv__cmd_score(int argc, char **argv);
int viv__cmd_quantize(int argc, char **argv);
int viv__cmd_embed(int argc, char **argv);
int viv__cmd_fill(int argc, char **argv);
int viv__cmd_classify(int argc, char **argv);
int viv__cmd_encode(int argc, char **argv);
int viv__cmd_decode(int argc, char **argv);
int viv__cmd_tokenize(int argc, char **argv);
int viv__cmd_session(int argc, char **argv);
int viv__cmd_serve(int argc, char **argv);
int viv__cmd_ps(int argc, char **argv);
int viv__cmd_top(int argc, char **argv);
int viv__cmd_replay(int argc, char **argv);
int viv__cmd_load(int argc, char **argv);
int viv__cmd_unload(int argc, char **argv);
int viv__cmd_stop(int argc, char **argv);
int viv__cmd_metrics(int argc, char **argv);
int viv__cmd_logs(int argc, char **argv);
int viv__cmd_doctor(int argc, char **argv);
int viv__cmd_version(int argc, char **argv);
int viv__cmd_new_plugin(int argc, char **argv);

/* ---- options (options.c) ---- */

enum viv__opt_kind {
  VIV__OPT_FLAG, /* bool *, set to true */
  VIV__OPT_TEXT, /* const char ** */
  VIV__OPT_INT,  /* int64_t *, at least 0 */
  VIV__OPT_LIST, /* viv__list *, may be repeated */
  VIV__OPT_FILE, /* cJSON *: sets `key` to the text of that file */
  VIV__OPT_SET,  /* cJSON *: sets `key` to the value, read as JSON where it is JSON, else a text */
  VIV__OPT_TRUE, /* cJSON *: sets `key` to true */
  VIV__OPT_NUMBER, /* cJSON *: sets `key` to a number */
  VIV__OPT_PAIR    /* cJSON *: KEY=JSON */
};

typedef struct viv__list {
  const char *items[64];
  int n;
} viv__list;

typedef struct viv__opt {
  const char *name; /* without the two dashes */
  char letter;      /* 0: none */
  int kind;         /* enum viv__opt_kind */
  const char *arg;  /* what to call the argument in the help, NULL for flags */
  void *target;
  const char *help;
  const char *key;
} viv__opt;

typedef struct viv__usage {
  const char *example; /* shown first: one command a line */
  const char *synopsis;
  const char *about;
} viv__usage;

/* Parses argv[1..]. Options and positional arguments may be mixed; "--" ends the options. Writes at
 * most max positionals and requires at least min. Answers -1 to go on, or an exit code: --help was
 * printed, or the line is wrong and a message was printed. options end with a NULL name. */
int viv__options(const viv__usage *usage, const viv__opt *options, int argc, char **argv, int min,
                 int max, const char **positional, int *n);

/* clang-format off */
/* How tokens are chosen: the same options in every verb that generates. */
#define VIV__GENERATE_OPTIONS(p)                                                                   \
  {"max-tokens", 'n', VIV__OPT_NUMBER, "N", (p), "at most N new tokens", "max_new_tokens"},        \
  {"temp", 't', VIV__OPT_NUMBER, "X", (p), "temperature; 0 is greedy", "temperature"},             \
  {"top-k", 0, VIV__OPT_NUMBER, "N", (p), "sample among the N likeliest", "top_k"},                \
  {"top-p", 0, VIV__OPT_NUMBER, "X", (p), "sample within this probability mass", "top_p"},         \
  {"min-p", 0, VIV__OPT_NUMBER, "X", (p), "drop tokens below X times the likeliest", "min_p"},     \
  {"seed", 0, VIV__OPT_NUMBER, "N", (p), "seed of the random numbers", "seed"},                    \
  {"strategy", 0, VIV__OPT_SET, "NAME", (p), "greedy, sample, or a plugin's", "strategy"},         \
  {"stop", 0, VIV__OPT_SET, "TEXT", (p), "end when this text appears", "stop"},                    \
  {"schema", 0, VIV__OPT_FILE, "FILE", (p), "answer with JSON of this schema", "json_schema"},       \
  {"grammar", 0, VIV__OPT_FILE, "FILE", (p), "answer by this grammar (GBNF)", "grammar"},            \
  {"ignore-eos", 0, VIV__OPT_TRUE, NULL, (p), "go on after the end token", "ignore_eos"},          \
  {"param", 'p', VIV__OPT_PAIR, "KEY=JSON", (p), "any other parameter of the job", NULL}
/* How a model is loaded. */
#define VIV__LOAD_OPTIONS(p)                                                                       \
  {"plugin", 0, VIV__OPT_SET, "ID", (p), "take this plugin", "plugin"},                            \
  {"dtype", 0, VIV__OPT_SET, "KIND", (p), "as-stored, f32, bf16, f16, int8 or int4", "weights"},   \
  {"context", 0, VIV__OPT_NUMBER, "N", (p), "room for N tokens per sequence", "context"},          \
  {"load", 0, VIV__OPT_PAIR, "KEY=JSON", (p), "any other parameter of loading", NULL}
/* Verbs that would use a daemon which runs. */
#define VIV__LOCAL_OPTION                                                                          \
  {"local", 0, VIV__OPT_FLAG, NULL, &viv__local, "in this process, not in the daemon", NULL}
/* clang-format on */

/* Turns temperature, top-k and the like into do_sample where no strategy was named, and sets the
 * length when none was given. */
void viv__sampling_defaults(cJSON *params, int max_tokens);

/* ---- messages (report.c) ---- */

int viv__exit_code(int32_t status);
/* Says on standard error what failed, with --json also as an object on standard output, and answers
 * the exit code. what may be NULL. */
int viv__report(bool json, const char *what, int32_t status, const viv_error *error);
/* A wrong command line: one line and where to read on. */
int viv__usage_error(const char *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Flushes standard output; a failed write (a full disk, a closed pipe) becomes an exit code. */
int viv__finish_output(int code);
/* False after Ctrl-C when standard output would block; what waited in its buffer is dropped. */
bool viv__output_open(void);
/* Prints a JSON value on one line and frees it. */
void viv__print_json(cJSON *json);
/* "4.1 MB", "512 bytes". out holds at least 32 bytes. */
const char *viv__size_text(double bytes, char *out);
const char *viv__count_text(double n, char *out); /* "3.85 B", "260.0 K" */
/* One line on a terminal's standard error that is drawn over; nothing elsewhere. fraction < 0 shows
 * the text alone. clear wipes it. */
void viv__progress_show(const char *what, double fraction);
void viv__progress_clear(void);

/* Memory or exit code 4: a command-line program has nothing better to do. */
void *viv__need(void *p);
char *viv__textf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* All of standard input, terminated, viv__free. */
char *viv__read_stdin(size_t *len);

/* ---- interruption (interrupt.c) ---- */

/* From now on SIGINT and SIGTERM set a flag; a second one ends the process. */
void viv__interrupt_catch(void);
bool viv__interrupted(void);
void viv__interrupt_forget(void);

/* ---- models and the zoo (model_path.c) ---- */

/* The directory or file that MODEL names: a path, or a name in the zoo. NULL when there is none;
 * error then lists the places looked at. viv__free. */
char *viv__model_path(const char *model, viv_error *error);
/* The same as an absolute path, which means the same to a daemon. */
char *viv__model_place(const char *model, viv_error *error);
/* The folders in which zoo models are looked for, in order; n of them; the caller frees each. */
int viv__zoo_folders(char *folders[8]);
char *viv__catalog_path(viv_error *error); /* zoo/catalog.json, viv__free */

/* A runtime with one model, as most verbs need. */
typedef struct viv__loaded {
  viv_runtime *rt;
  viv_model *model;
  char *path;
  cJSON *about; /* viv_describe */
} viv__loaded;
int32_t viv__open_runtime(viv_runtime **out, viv_error *error);
/* --local was given: models are loaded in this process though a daemon may run (daemon.c). */
extern bool viv__local;
/* The socket, whether a daemon answers there, and what confines its workers on this machine. */
cJSON *viv__daemon_about(void);
/* A runtime in the daemon when one runs, else in this process. */
int32_t viv__open_for_models(viv_runtime **out, viv_error *error);
/* Resolves, opens and loads; shows progress on a terminal. load: parameters or NULL. */
int32_t viv__load_model(const char *model, const cJSON *load, viv__loaded *out, viv_error *error);
/* The same in the runtime of a loaded model, which must be unloaded after it. */
int32_t viv__load_beside(const viv__loaded *first, const char *model, viv__loaded *out,
                         viv_error *error);
void viv__unload_model(viv__loaded *l);
bool viv__has_task(const viv__loaded *l, const char *task);
/* viv_text to cJSON, freeing the text; NULL when it is no JSON. */
cJSON *viv__text_json(viv_text *text);
cJSON *viv__parse_json_file(const char *path, size_t limit, viv_error *error);

/* ---- jobs (jobs.c) ---- */

typedef struct viv__outcome {
  int32_t status;
  viv_error error;
  cJSON *counters; /* NULL: none */
  double seconds;
} viv__outcome;
typedef void (*viv__event_fn)(void *context, const viv_event *event);

/* Submits and pulls until the END event; SIGINT cancels the job. END itself is not passed on. The
 * answer is the outcome's status. */
int32_t viv__job_run(viv_model *model, const char *task, const cJSON *params,
                     const viv_value *const *inputs, int n_inputs, viv_session *session,
                     viv__event_fn fn, void *context, viv__outcome *out);
void viv__outcome_free(viv__outcome *o);
/* Takes an END event's status, error and counters into *out. */
void viv__outcome_take(viv__outcome *out, const viv_event *end);
/* "24 tokens in 0.31 s (77.4 tokens/s), prompt 12 in 0.05 s, stop" on standard error. */
void viv__print_counters(const viv__outcome *o);
double viv__counter(const viv__outcome *o, const char *name, double fallback);

viv_value viv__value_text(const char *name, const char *text, size_t len);
viv_value viv__value_json(const char *name, const char *text);
viv_value viv__value_tensor(const char *name, const viv_tensor *tensor);

/* ---- texts (texts.c) ---- */

typedef struct viv__texts {
  viv_str *items; /* [n] */
  size_t n;
  char *held;
} viv__texts;
/* The n arguments; of one that is a file's name the lines, of none or "-" those of standard input.
 * Empty lines are left out. BAD_INPUT: no text at all. viv__texts_free also after a failure. */
int32_t viv__texts_read(viv__texts *t, const char *const *args, int n, viv_error *error);
void viv__texts_free(viv__texts *t);

/* ---- how likely a text is (score.c) ---- */

typedef struct viv__score {
  int64_t tokens;    /* that were predicted */
  double mean_nll;   /* -ln p of a token given those before it, in the mean */
  double perplexity; /* its exponential */
  int32_t *argmax;   /* [tokens] what would have been said greedily, viv__free */
} viv__score;
/* Scores a text of any length: pieces of at most window tokens, each from scratch; with lines each
 * line by itself. VIV_BAD_INPUT: it is shorter than two tokens. */
int32_t viv__score_text(viv_model *model, viv_str text, int64_t window, bool lines, viv__score *out,
                        viv_error *error);
enum { VIV__SCORE_WINDOW = 512 };

/* ---- named tensors (tensors.c) ---- */

typedef struct viv__tensor_list {
  char **names;
  viv_tensor *items; /* data is owned */
  bool *taps;
  size_t n;
} viv__tensor_list;

int64_t viv__numel(const viv_tensor *t);
/* An owned tensor of that shape, zeroed. */
viv_tensor viv__tensor_make(int32_t dtype, int32_t ndim, const int64_t *shape);
viv_tensor viv__tensor_copy(const viv_tensor *t);
void viv__tensor_drop(viv_tensor *t);
/* Adds a copy; an earlier tensor of that name is replaced. */
void viv__tensors_add(viv__tensor_list *list, viv_str name, const viv_tensor *t, bool tap);
const viv_tensor *viv__tensors_find(const viv__tensor_list *list, const char *name);
void viv__tensors_free(viv__tensor_list *list);
int32_t viv__tensors_write(const viv__tensor_list *list, const char *path, viv_error *error);
double viv__tensor_number(const viv_tensor *t, int64_t i);   /* any dtype */
int64_t viv__tensor_integer(const viv_tensor *t, int64_t i); /* any dtype */
bool viv__tensor_is_integer(const viv_tensor *t);
void viv__tensor_set(viv_tensor *t, int64_t i, double number);
/* "[2, 5, 128]"; out holds at least 200 bytes. */
const char *viv__shape_text(const viv_tensor *t, char *out);
/* One line: name, type, shape, range, first numbers. */
void viv__tensor_print(FILE *to, const char *name, const viv_tensor *t);
/* {"name", "dtype", "shape", "min", "max", "mean", "data"}: data only up to 4096 numbers. */
cJSON *viv__tensor_json(const char *name, const viv_tensor *t);

/* ---- files as inputs (inputs.c) ---- */

/* One input of a job that owns what it points to. */
typedef struct viv__input {
  viv_value value;
  char *name, *bytes;
  viv_tensor tensor;
} viv__input;
typedef struct viv__input_list {
  viv__input *items;
  int n;
} viv__input_list;

viv__input *viv__inputs_add(viv__input_list *list, const char *name, int32_t kind);
void viv__inputs_bytes(viv__input *in, char *bytes, size_t len); /* takes bytes over */
void viv__inputs_tensor(viv__input *in, viv_tensor tensor);      /* takes the data over */
/* A file under a name, by its extension: pictures and recordings as they are, .json, .txt, tensors
 * of a .safetensors file (FILE:TENSOR, or the tensor of that name, or the only one). */
int32_t viv__inputs_file(viv__input_list *list, const char *name, const char *path,
                         viv_error *error);
/* NAME=FILE or NAME=@TEXT. */
int32_t viv__inputs_pair(viv__input_list *list, const char *pair, viv_error *error);
void viv__inputs_free(viv__input_list *list);
/* The array that a request wants; the caller frees the array with viv__free. */
const viv_value **viv__inputs_values(const viv__input_list *list);
int32_t viv__media_kind(const char *path); /* VIV_KIND_IMAGE, VIV_KIND_AUDIO or 0 */

#endif
