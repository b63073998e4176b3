/* Watching what a plugin does with its weights. Internal.
 *
 * The runtime's compute table is replaced by a copy of it whose weight_prepare, weight_rows, linear,
 * linear_to and linears also take notes: which tensors are matrices at all, and the mean square of each
 * column's inputs while jobs run. It asks no plugin for anything beyond what it does anyway, so that
 * it works for every family: a norm or a convolution's kernel that happens to be 2-D is never
 * prepared as a matrix, and is not taken for one. */
#ifndef VIV_HOST_RECORD_H
#define VIV_HOST_RECORD_H

#include "core/core.h"

typedef struct viv__recorder viv__recorder;

/* From now on models that this runtime loads are watched. NULL: no memory. [no model is loaded] */
viv__recorder *viv__record(viv_runtime *rt);
/* The runtime's own table again, notes freed. [the watched models are unloaded, no job runs] */
void viv__record_end(viv__recorder *r);

/* Whether the tensor, as the watched model's checkpoint gives it, was prepared as a matrix. */
bool viv__recorded(const viv__recorder *r, const viv_tensor *t);
/* The mean square of what each column was multiplied with, [columns], lives as long as the recorder;
 * NULL: no product was seen. [no job runs] */
const float *viv__recorded_inputs(viv__recorder *r, const viv_tensor *t);

#endif
