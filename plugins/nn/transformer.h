/* Layers of encoders and of encoder-decoder models as PyTorch checkpoints name them, called from a
 * pass: self-attention with whatever is added to its scores, and decoders that remember what they
 * have seen. Post-norm (BERT, wav2vec 2.0) and pre-norm (Whisper) are told apart by a flag. */
#ifndef PLUGINS_NN_TRANSFORMER_H
#define PLUGINS_NN_TRANSFORMER_H

#include "nn/modules.h"

/* How a family names the parts of a layer. */
typedef struct nn_layer_names {
  const char *attention; /* q_proj, k_proj, v_proj, out_proj stand under it */
  const char *attention_norm;
  const char *cross; /* NULL: no attention to an encoder */
  const char *cross_norm;
  const char *fc1, *fc2;
  const char *final_norm;
  bool no_key_bias;
  bool glu; /* fc1.linear gives [value | gate], and the activation is that of the gate */
} nn_layer_names;

/* ---- encoders ---- */

typedef struct nn_encoder_layer {
  nn_mha attention;
  nn_norm attention_norm;
  nn_linear fc1, gate, fc2; /* gate.w NULL: none */
  nn_norm final_norm;
} nn_encoder_layer;
void nn_load_encoder_layer(nn_loader *l, const nn_layer_names *names, int64_t d, int64_t ff,
                           int32_t heads, float eps, nn_encoder_layer *w);

/* How a layer is run.
 *
 *   post-norm  x = LN(alpha x + A(x));  x = LN(alpha x + F(x))
 *   pre-norm   x = x + A(LN(x));        x = x + F(LN(x)) */
typedef struct nn_encoder_run {
  int64_t rows, length, d;
  bool pre_norm;
  float alpha;         /* 0: 1 */
  int32_t act;         /* enum viv_unary; with glu: enum viv_unary of the gate */
  const uint8_t *mask; /* [rows, length], 0: a key that nobody sees; NULL: all are seen */
  /* What is added to the scaled scores of queries [begin, begin + n) of one row, whose input of the
   * attention is x [length, d] and whose projected queries are q [length, d]: out [heads, n,
   * length]. NULL: nothing. */
  void (*bias)(nn_pass *p, void *self, const float *x, const float *q, int64_t begin, int64_t n,
               float *out);
  void *self;
  const char *tap; /* printf format with one int: the attention's output; NULL: no tap */
  int32_t layer;   /* its number */
} nn_encoder_run;
/* x [rows, length, d] = the layer of x */
void nn_encode_layer(nn_pass *p, const nn_encoder_layer *w, const nn_encoder_run *run, float *x);

/* ---- what a decoder remembers ---- */

/* Keys and values of one attention over rows sequences of one length. */
typedef struct nn_cache {
  int64_t rows, cap, len; /* tokens of a row: room and held */
  int64_t width;          /* heads * dim */
  float *k, *v;           /* [rows, cap, width] */
} nn_cache;
nn_cache nn_new_cache(nn_pass *p, int64_t rows, int64_t cap, int64_t width);
/* Appends k and v [rows, n, width]; there must be room. */
void nn_cache_append(nn_cache *c, const float *k, const float *v, int64_t n);

/* q [rows, n, width] -> out [rows, n, width]. causal: the last n tokens are the queries' own. mask
 * [rows, len], 0: not seen, may be NULL. */
void nn_cache_attend(nn_pass *p, const nn_cache *c, int32_t heads, const float *q, int64_t n,
                     bool causal, const uint8_t *mask, float *out);

/* ---- decoders ---- */

typedef struct nn_decoder_layer {
  nn_mha attention, cross;
  nn_norm attention_norm, cross_norm;
  nn_linear fc1, fc2;
  nn_norm final_norm;
} nn_decoder_layer;
void nn_load_decoder_layer(nn_loader *l, const nn_layer_names *names, int64_t d, int64_t ff,
                           int32_t heads, float eps, nn_decoder_layer *w);

typedef struct nn_decoder_memory {
  nn_cache self, cross;
} nn_decoder_memory;
/* Memory of a layer for rows sequences of at most `tokens` tokens that look at encoded [rows, length,
 * d]: the keys and values of those are computed here, once. */
nn_decoder_memory nn_new_memory(nn_pass *p, const nn_decoder_layer *w, int64_t rows, int64_t tokens,
                                const float *encoded, int64_t length);

typedef struct nn_decoder_run {
  int64_t rows, n, d; /* n new tokens of each row */
  bool pre_norm;
  int32_t act;
  const uint8_t *mask;  /* [rows, length] of the encoder; NULL: all are seen */
  float *cross_queries; /* takes the projected queries of that attention [rows * n, d]; NULL */
} nn_decoder_run;
/* x [rows, n, d] = the layer of x, whose tokens follow those that memory holds. */
void nn_decode_layer(nn_pass *p, const nn_decoder_layer *w, const nn_decoder_run *run,
                     nn_decoder_memory *memory, float *x);

#endif
