/* BERT and RoBERTa: one encoder, told apart by config.json; forward.c is the model. */
#ifndef PLUGINS_BERT_H
#define PLUGINS_BERT_H

#include "nn/modules.h"

enum { BERT_MAX_LAYERS = 256 };

enum bert_head { BERT_NO_HEAD, BERT_MASKED_LM, BERT_CLASSIFIER };

struct bert_config {
  int64_t d, ff, vocab, positions, types, labels;
  int32_t layers, heads, act;
  int32_t pad; /* RoBERTa: positions begin after it */
  float eps;
  bool roberta;
  int32_t head; /* enum bert_head */
  bool regression;
  bool several; /* classes do not exclude each other: a sigmoid for each */
  bool pooler;  /* tanh(W x_0), which BERT's classifier reads */
  const char *prefix;
};

struct bert_layer {
  nn_linear query, key, value, attention_out;
  nn_norm attention_norm;
  nn_linear intermediate, output;
  nn_norm output_norm;
};

struct bert_model {
  nn_net net;
  struct bert_config config;
  const viv_weight *words;  /* [vocab, d] */
  const viv_weight *places; /* [positions, d] */
  const viv_weight *types;  /* [types, d] */
  nn_norm norm;
  struct bert_layer *layer; /* [layers] */
  nn_linear pooler;
  nn_linear dense, out; /* of the classifier */
  nn_linear transform;  /* of the masked-language head */
  nn_norm transform_norm;
  nn_linear decoder; /* its weight is the embedding */
  char about[256];
};

/* forward.c */
extern const nn_task bert_tasks[];

#endif
