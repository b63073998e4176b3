/* BEATs: sound as features per patch, as codes, and as AudioSet's classes. forward.c is the network,
 * tasks.c what is made of it, audioset.c the names of the classes. */
#ifndef PLUGINS_BEATS_H
#define PLUGINS_BEATS_H

#include "nn/clips.h"
#include "nn/relative.h"
#include "nn/transformer.h"
#include "nn/wave.h"

enum { BEATS_MAX_LAYERS = 128, BEATS_MELS = 128, BEATS_RATE = 16000 };

struct beats_config {
  int64_t d, ff, embed;    /* embed: of a patch, before the projection */
  int64_t classes;         /* of the head; 0: none */
  int64_t codes, code_dim; /* of the codebook; 0: no tokenizer */
  int32_t layers, heads, act, patch;
  int32_t pos_kernel, pos_groups;
  int32_t buckets, far; /* of relative positions; 0: none */
  bool pre_norm, glu, gated, conv_bias;
  float alpha; /* DeepNorm's weight of what goes round a layer */
};

struct beats_model {
  nn_net net;
  struct beats_config config;
  nn_conv patches;
  nn_norm patch_norm;
  nn_linear projection; /* w NULL: a patch is as wide as the encoder */
  nn_conv positions;
  nn_norm norm;
  nn_encoder_layer *layer; /* [layers] */
  nn_gate *gate;           /* [layers] */
  const float *table;      /* [buckets, heads] */
  nn_linear head;
  nn_linear code_in, code_out;
  const float *codebook; /* [codes, code_dim] */
  nn_task tasks[6];
};

/* A batch of recordings, encoded. */
struct beats_heard {
  int64_t rows, tokens;
  const uint8_t *mask; /* [rows, tokens], 1 = real; NULL: all are */
  float *x;            /* [rows, tokens, d] */
};
/* samples [rows, T] at 16 kHz, mask [rows, T] of real ones or NULL. upto: layers that are run; all of
 * them: behind the last norm too. name: the input, for errors. */
struct beats_heard beats_encode(nn_pass *p, const float *samples, const uint8_t *mask, int64_t rows,
                                int64_t n, int32_t upto, const char *name);

/* What AudioSet calls the class of this identifier ("/m/09x0r": "Speech"); NULL: unknown. */
const char *beats_class_name(viv_str id);

int32_t beats_classify(nn_pass *p);
int32_t beats_tokens(nn_pass *p);
int32_t beats_embed(nn_pass *p);
int32_t beats_forward(nn_pass *p);

#endif
