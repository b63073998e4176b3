/* SpeechT5: one encoder and one decoder between nets for speech and text on either side, and HiFi-GAN,
 * which turns its spectrograms into sound. encoder.c, text.c (a decoder that writes), speech.c (one
 * that speaks) and vocoder.c are the networks. */
#ifndef PLUGINS_SPEECHT5_H
#define PLUGINS_SPEECHT5_H

#include "nn/clips.h"
#include "nn/transformer.h"
#include "nn/wave.h"

enum {
  SPEECHT5_MAX_LAYERS = 128,
  SPEECHT5_MAX_NETS = 16, /* layers of the decoder's pre-net and post-net */
  VOCODER_MAX_STAGES = 12,
  VOCODER_MAX_KERNELS = 8,
  VOCODER_MAX_DILATIONS = 8
};

enum speecht5_kind { SPEECHT5_FRONT_END, SPEECHT5_NETWORK, SPEECHT5_VOCODER };

/* preprocessor_config.json */
struct speecht5_front {
  int64_t rate, mels;
  int32_t window, hop, n_fft; /* samples */
  double low, high;
  float floor;
  bool normalize;
};

struct speecht5_config {
  int64_t d, encoder_ff, decoder_ff, vocab;
  int32_t encoder_layers, decoder_layers, encoder_heads, decoder_heads, act;
  int32_t pad, eos, start; /* tokens */
  int32_t reach;           /* of relative positions */
  int64_t text_places;     /* tokens that a decoder of text has places for */
  bool hears, writes;      /* speech comes in; text goes out. Else the other */
  bool own_head;           /* the file holds an output layer beside the embedding */
  float eps;
  nn_wave_config wave;
  int64_t mels, frames; /* frames of a step */
  int64_t prenet, postnet, speaker;
  int32_t prenet_layers, postnet_layers, postnet_kernel;
  double dropout;
};

struct vocoder_config {
  int64_t mels, rate;
  int32_t channels, stages, kernels;
  int32_t rates[VOCODER_MAX_STAGES], widths[VOCODER_MAX_STAGES];
  int32_t kernel[VOCODER_MAX_KERNELS];
  int32_t dilations[VOCODER_MAX_KERNELS], dilation[VOCODER_MAX_KERNELS][VOCODER_MAX_DILATIONS];
  float slope;
  bool normalize;
};

/* x += conv2(lrelu(conv1(lrelu x))), for each dilation. */
struct vocoder_block {
  nn_conv first[VOCODER_MAX_DILATIONS], second[VOCODER_MAX_DILATIONS];
};

struct vocoder {
  struct vocoder_config config;
  nn_conv in, out;
  nn_conv up[VOCODER_MAX_STAGES];
  struct vocoder_block block[VOCODER_MAX_STAGES][VOCODER_MAX_KERNELS];
  const float *mean, *scale; /* [mels] */
};

struct speecht5_model {
  nn_net net;
  int32_t kind; /* enum speecht5_kind */
  struct speecht5_front front;
  struct speecht5_config config;
  /* encoder */
  nn_wave wave;
  nn_conv positions;
  nn_linear encoder_tokens;   /* [vocab, d] */
  const float *encoder_alpha; /* [1] */
  nn_norm encoder_norm;
  const float *relative; /* [2 reach, d / heads] */
  nn_encoder_layer *encoder;
  /* decoder */
  nn_linear tokens, head;
  nn_linear prenet[SPEECHT5_MAX_NETS], prenet_out, speaker;
  const float *decoder_alpha; /* [1] */
  nn_decoder_layer *decoder;
  nn_linear feat_out, prob_out;
  nn_conv postnet[SPEECHT5_MAX_NETS];
  struct vocoder *vocoder;
  nn_task tasks[8];
  char about[512];
};

/* What the encoder made of the job's speech or text. */
struct speecht5_encoded {
  int64_t rows, length;
  float *x;            /* [rows, length, d] */
  const uint8_t *mask; /* [rows, length]; NULL: all are real */
};
struct speecht5_encoded speecht5_encode(nn_pass *p);

/* out [d] += the sinusoids of place (sines, then cosines); the pad's place is zeros. */
void speecht5_add_place(const struct speecht5_config *c, int64_t place, float *out);
/* out [d] += alpha times the sinusoids of place (sine and cosine in turns). */
void speecht5_add_scaled_place(const struct speecht5_config *c, float alpha, int64_t place,
                               float *out);

/* Waveform [rows, *samples] of spectrograms [rows, frames, mels]. */
float *vocoder_run(nn_pass *p, const struct vocoder *v, const float *mel, int64_t rows,
                   int64_t frames, int64_t *samples);
int32_t vocoder_config_read(nn_config *k, struct vocoder_config *c);
void vocoder_tables(nn_loader *l, struct vocoder *v);

int32_t speecht5_preprocess(nn_pass *p);
int32_t speecht5_forward(nn_pass *p);
int32_t speecht5_generate(nn_pass *p);
int32_t speecht5_transcribe(nn_pass *p);
int32_t speecht5_generate_speech(nn_pass *p);
int32_t speecht5_speak(nn_pass *p);
int32_t vocoder_forward(nn_pass *p);

#endif
