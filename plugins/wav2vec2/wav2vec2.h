/* wav2vec 2.0, HuBERT and WavLM: sound as features, as units and, with a CTC head, as text. forward.c
 * is the network, ctc.c the way from its logits to letters. */
#ifndef PLUGINS_WAV2VEC2_H
#define PLUGINS_WAV2VEC2_H

#include "nn/clips.h"
#include "nn/relative.h"
#include "nn/transformer.h"
#include "nn/wave.h"

enum { WAV2VEC2_MAX_LAYERS = 256 };

struct wav2vec2_config {
  nn_wave_config wave;
  int64_t d, ff, rate; /* Hz */
  int64_t vocab;       /* of the CTC head; 0: none */
  int64_t units;       /* rows of kmeans.centroids; 0: the checkpoint has none */
  int32_t layers, heads, act;
  int32_t blank;              /* the CTC head's id of nothing */
  int32_t kmeans_layer;       /* hidden state that the centroids belong to */
  int32_t buckets, far;       /* of WavLM's relative positions; 0: none */
  bool stable;                /* pre-norm layers, the encoder's norm behind them */
  bool normalize, gives_mask; /* preprocessor_config.json */
  float eps;
  const char *prefix;
};

struct wav2vec2_model {
  nn_net net;
  struct wav2vec2_config config;
  nn_wave wave;
  nn_conv positions;
  nn_norm norm;
  nn_encoder_layer *layer; /* [layers] */
  nn_gate *gate;           /* [layers], WavLM */
  const float *table;      /* [buckets, heads], WavLM */
  nn_linear head;
  const float *centroids; /* [units, d] */
  viv_str *letter;        /* [vocab] of vocab.json; ptr NULL: not named. NULL: no such file */
  viv_str space;          /* the letter that stands between words */
  nn_task tasks[8];
  char about[512];
};

/* What has been heard: hidden states of a batch. */
struct wav2vec2_heard {
  int64_t rows, frames;
  int64_t *valid;      /* [rows] frames before the pads */
  const uint8_t *mask; /* [rows, frames]; NULL: all are real */
  float *x;            /* [rows, frames, d] */
};
/* Hidden state `upto` of the job's recordings (`audio`, or `input_values` with `attention_mask`). */
struct wav2vec2_heard wav2vec2_hear(nn_pass *p, int32_t upto);
/* The last hidden state, behind the encoder's norm where that stands last. */
struct wav2vec2_heard wav2vec2_hear_all(nn_pass *p);
/* [rows, frames, vocab] in room of the pass. */
float *wav2vec2_logits(nn_pass *p, const struct wav2vec2_heard *h);
/* Frames of which so many samples are the whole. */
int64_t wav2vec2_frames(const struct wav2vec2_model *m, int64_t samples);

int32_t wav2vec2_transcribe(nn_pass *p);
int32_t wav2vec2_postprocess(nn_pass *p);
int32_t wav2vec2_preprocess(nn_pass *p);
int32_t wav2vec2_forward(nn_pass *p);
int32_t wav2vec2_encode(nn_pass *p);
int32_t wav2vec2_embed(nn_pass *p);

#endif
