/* What reads samples as they are: the convolutions of wav2vec 2.0 that HuBERT, WavLM and SpeechT5
 * took over, and positions made by a wide convolution, which BEATs has as well.
 *
 *   samples [rows, T]
 *     |  layer i: conv(kernel k_i, stride s_i), norm, activation     [rows, frames, dim_i]
 *     |          norm: of each channel over time behind the first layer ("group"), or of each
 *     |          frame over its channels behind every layer ("layer")
 *     |  LayerNorm, Linear                                           [rows, frames, d]
 *     |  x + gelu(conv(x)), grouped, as wide as 128 frames           [rows, frames, d]
 *
 * Official: transformers models/wav2vec2 (Wav2Vec2FeatureEncoder, Wav2Vec2FeatureProjection,
 * Wav2Vec2PositionalConvEmbedding). */
#ifndef PLUGINS_NN_WAVE_H
#define PLUGINS_NN_WAVE_H

#include "nn/modules.h"

enum { NN_WAVE_MAX = 16 };

typedef struct nn_wave_config {
  int32_t layers;
  int32_t dim[NN_WAVE_MAX], kernel[NN_WAVE_MAX], stride[NN_WAVE_MAX];
  bool frame_norm; /* feat_extract_norm is "layer" */
  bool bias;
  bool projection_norm;
  int32_t act;
  int64_t d;
  float eps;                      /* of the projection's norm */
  int32_t pos_kernel, pos_groups; /* of the positions */
} nn_wave_config;
/* conv_dim, conv_kernel, conv_stride, feat_extract_norm, conv_bias, ... of a config.json whose width
 * is d. A failure is left in k->status. */
void nn_wave_read(nn_config *k, int64_t d, nn_wave_config *out);

typedef struct nn_wave {
  nn_conv conv[NN_WAVE_MAX];
  nn_norm norm[NN_WAVE_MAX]; /* w NULL: none */
  nn_norm projection_norm;
  nn_linear projection;
} nn_wave;
/* EXTRACTOR.conv_layers.i.conv, .layer_norm and feature_projection.*, under the loader's prefix. */
void nn_load_wave(nn_loader *l, const nn_wave_config *c, const char *extractor, nn_wave *w);

/* Frames that so many samples give; 0: too few for one. */
int64_t nn_wave_frames(const nn_wave_config *c, int64_t samples);
/* x [rows, samples] -> [rows, frames, d] in room of the pass. Taps: PREFIX + "conv.%d" [rows,
 * channels, frames], PREFIX + "feature_projection". Too few samples leave the task with BAD_INPUT
 * about the input `name`. */
float *nn_wave_encode(nn_pass *p, const nn_wave_config *c, const nn_wave *w, const char *name,
                      const float *x, int64_t rows, int64_t samples, const char *prefix);

/* A grouped convolution over time whose result has as many frames as its input: padded by half of
 * the kernel, the last frame of an even kernel dropped. Weights under NAME, normalised over all
 * axes but the last. */
void nn_load_pos_conv(nn_loader *l, const char *name, int64_t d, int32_t kernel, int32_t groups,
                      nn_conv *conv);
/* gelu(conv x) of x [rows, length, d], in room of the pass. */
float *nn_pos_conv(nn_pass *p, const nn_conv *conv, int32_t act, const float *x, int64_t rows,
                   int64_t length);

#endif
