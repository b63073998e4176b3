/* What the files of golden_ops share: the case being run, its tensors, and the tables of operations.
 * The files beside main.c hold the operations by subject; main.c reads cases and compares. */
#ifndef TESTS_GOLDEN_OPS_H
#define TESTS_GOLDEN_OPS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/compute.h"
#include "vivarium/vivarium.h"

struct array {
  float *data; /* NULL: the call has no such input */
  int64_t n;
  int32_t ndim;
  int64_t shape[VIV_MAX_DIMS];
};

struct golden {
  const viv_compute *c;
  const char *dir;
  viv_arena *arena; /* of the case */
  viv_json *meta, *config;
  struct viv__safetensors *inputs, *outputs, *weights; /* weights may be NULL */
  const viv_json *call, *params;
  int ran, failed;
};

/* An operation answers false when it does not know what the call asks for. */
struct op {
  const char *name;
  bool (*run)(struct golden *g);
};
/* Each ends with an entry without a name. */
extern const struct op sequence_ops[], element_ops[], map_ops[], box_ops[], signal_ops[],
    audio_ops[], evaluation_ops[], quant_ops[], scene_ops[], mask_ops[], volume_ops[],
    explain_ops[];

_Noreturn void die(const char *what, const char *why);
/* Memory that lives as long as the case; never NULL. */
void *take(struct golden *g, int64_t bytes);
float *take_floats(struct golden *g, int64_t n);

/* The call's input of that name, or a tensor of model.safetensors. */
struct array input(struct golden *g, const char *name);
struct array weight(struct golden *g, const char *prefix, const char *name);
bool has_weight(struct golden *g, const char *prefix, const char *name);
/* The raw tensor behind an input that is a plain name; false: it is none. */
bool raw_input(struct golden *g, const char *name, viv_tensor *out);
/* The path of an input that is a file; NULL: it is none. */
char *file_input(struct golden *g, const char *name);

/* Compares ours [n] with the golden that the call names for this output or tap, if it names one. */
void output(struct golden *g, const char *name, const float *ours, int64_t n);
void output_doubles(struct golden *g, const char *name, const double *ours, int64_t n);
void output_ints(struct golden *g, const char *name, const int32_t *ours, int64_t n);
void output_bytes(struct golden *g, const char *name, const uint8_t *ours, int64_t n);
bool wants(struct golden *g, const char *name);

const char *text_param(struct golden *g, const char *key, const char *fallback);
double num_param(struct golden *g, const char *key, double fallback);
bool flag_param(struct golden *g, const char *key, bool fallback);
/* The i-th number of a list. */
double list_param(struct golden *g, const char *key, int64_t i);

/* [rows, cols] -> [cols, rows]. */
float *turned(struct golden *g, const float *x, int64_t rows, int64_t cols);
void put_turned(const float *x, int64_t rows, int64_t cols, float *y);
/* W x + bias over rows, through a prepared weight. */
viv_weight *prepared(struct golden *g, struct array w);
float *apply(struct golden *g, struct array w, const float *bias, const float *x, int64_t rows);

#endif
