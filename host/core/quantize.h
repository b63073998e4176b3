/* Writing a model's checkpoint anew with its matrices in another form. Internal. */
#ifndef VIV_HOST_QUANTIZE_H
#define VIV_HOST_QUANTIZE_H

#include "core/record.h"

typedef struct viv__quantize_plan {
  int32_t dtype;  /* VIV_F16, VIV_BF16, or a block format that can be written */
  bool important; /* weigh errors by the recorder's inputs */
  bool (*progress)(void *self, double part); /* false: stop, with VIV_CANCELLED */
  void *self;
  /* filled */
  uint64_t bytes_before, bytes_after; /* of all tensors */
  int64_t taken, kept;                /* tensors in the new form, and as they were */
} viv__quantize_plan;

/* The dtype that a user's words name ("int8", "int4", "q4_0", ... and a group "32", "128", "row" or
 * NULL). VIV_BAD_INPUT: there is no such form. */
int32_t viv__quantize_dtype(const char *name, const char *group, int32_t *dtype, viv_error *error);

/* Writes dst, a folder that does not exist or is empty: model.safetensors, config.json, the
 * tokenizer's and all other side files. m was loaded under the recorder with its weights as stored.
 * Quantised are the matrices that the plugin prepared as such, of 4096 elements and more, whose rows
 * are whole blocks; everything else is copied. [no job of m runs] */
int32_t viv__quantize(viv_model *m, viv__recorder *r, const char *dst, viv__quantize_plan *plan,
                      viv_error *error);

#endif
