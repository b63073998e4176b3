/* Relative positions that a head adds to its scores, weakened or strengthened by a gate that the
 * query sets: WavLM and BEATs.
 *
 *   bias[h, i, j] = gate[i, h] table[bucket(j - i), h]
 *   gate = ga (gb a[h] - 1) + 2,  (ga, gb) = sigmoid of the two sums of four of W u + b
 *
 * u [d / heads] is the head's part of the attention's input (WavLM) or of its projected query (BEATs).
 * Official: transformers models/wavlm (WavLMAttention), unilm beats/backbone.py. */
#ifndef PLUGINS_NN_RELATIVE_H
#define PLUGINS_NN_RELATIVE_H

#include "nn/modules.h"

/* Bucket of key - query, one of n: half of them for keys behind the query, half of each half one per
 * distance, the others by its logarithm up to max_distance. Official: T5's bidirectional buckets. */
int32_t nn_relative_bucket(int64_t key_minus_query, int32_t n, int32_t max_distance);

/* One layer's gate: all NULL: none, the bias stands as it is. */
typedef struct nn_gate {
  const float *w, *b; /* [8, d / heads], [8] */
  const float *a;     /* [heads] */
} nn_gate;
/* LINEAR.weight, LINEAR.bias and A under the loader's prefix. */
void nn_load_gate(nn_loader *l, const char *linear, const char *a, int64_t heads, int64_t dim,
                  nn_gate *gate);

/* The biases of all layers of a pass over sequences of one length. */
typedef struct nn_relative {
  const nn_gate *gate; /* of the layer that runs */
  bool of_query;       /* u is the projected query */
  int64_t length, d;
  int32_t heads;
  float
      *line; /* [heads, 2 length - 1]: the table's value for j - i = -(length - 1) .. length - 1 */
} nn_relative;
/* table [n, heads] */
nn_relative nn_new_relative(nn_pass *p, const float *table, int32_t n, int32_t max_distance,
                            int64_t length, int64_t d, int32_t heads);
/* As nn_encoder_run.bias, with self a nn_relative. */
void nn_relative_bias(nn_pass *p, void *self, const float *x, const float *q, int64_t begin,
                      int64_t n, float *out);

#endif
