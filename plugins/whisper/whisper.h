/* Whisper: speech to text. forward.c is the network, generate.c the choice of tokens, transcribe.c a
 * whole recording, window by window. */
#ifndef PLUGINS_WHISPER_H
#define PLUGINS_WHISPER_H

#include "nn/audio.h"
#include "nn/clips.h"
#include "nn/transformer.h"

enum {
  WHISPER_MAX_LAYERS = 128,
  WHISPER_MAX_SUPPRESSED = 512,
  WHISPER_MAX_LANGUAGES = 256,
  WHISPER_MAX_HEADS = 256
};

/* Ids that are never chosen, or not as the first. */
struct whisper_ids {
  int32_t n, id[WHISPER_MAX_SUPPRESSED];
};

struct whisper_language {
  viv_str code; /* "en" */
  int32_t id;
};

/* What generation_config.json says about the prompt and the rules; -1: no such token. */
struct whisper_rules {
  int32_t start, end, pad, transcribe, translate, no_timestamps, previous;
  int32_t max_initial_timestamp; /* steps of 0.02 s; -1: no limit */
  bool multilingual;
  int32_t n_languages;
  struct whisper_language language[WHISPER_MAX_LANGUAGES];
  struct whisper_ids suppress, begin_suppress;
  int32_t n_heads,
      head[WHISPER_MAX_HEADS][2]; /* layer and head that follow the sound; 0: not told */
};

struct whisper_config {
  int64_t d, vocab, mels;
  int64_t source, target; /* positions of the encoder and of the decoder */
  int64_t encoder_ff, decoder_ff;
  int32_t encoder_layers, decoder_layers, encoder_heads, decoder_heads, act;
  bool scale_embedding;
  const char *prefix;
  nn_log_mel mel;
  int64_t rate, window; /* Hz, samples of a window */
};

struct whisper_model {
  nn_net net;
  struct whisper_config config;
  struct whisper_rules rules;
  nn_conv conv1, conv2;
  const float *encoder_positions; /* [source, d] */
  nn_encoder_layer *encoder;      /* [encoder_layers] */
  nn_norm encoder_norm;
  nn_linear tokens;               /* [vocab, d], the output layer as well */
  const float *decoder_positions; /* [target, d] */
  nn_decoder_layer *decoder;      /* [decoder_layers] */
  nn_norm decoder_norm;
  char about[512];
};

/* Sequences that are being written. */
struct whisper_text {
  int64_t rows, past;        /* past: tokens that the memory holds */
  nn_decoder_memory *memory; /* [decoder_layers] */
  float *
      queries; /* of the attention to the encoder [decoder_layers, rows * n, d], to be filled; NULL */
};

/* A recording's features: out [mels, window / hop]; what is longer than a window is cut, what is shorter
 * filled with zeros. */
void whisper_features(nn_pass *p, const float *x, int64_t samples, float *out);
/* features [rows, mels, 2 * source] -> [rows, source, d] in room of the pass. */
float *whisper_encode(nn_pass *p, const float *features, int64_t rows, int64_t frames);
/* Room for sequences of at most `tokens` tokens about encoded [rows, source, d]. */
struct whisper_text whisper_begin(nn_pass *p, const float *encoded, int64_t rows, int64_t tokens);
/* Reads n more tokens of each row: their last states [rows, n, d] in room of the pass. */
float *whisper_read(nn_pass *p, struct whisper_text *text, const int64_t *ids, int64_t n,
                    bool taps);
/* [n, vocab] of states [n, d] */
void whisper_logits(nn_pass *p, const float *states, int64_t n, float *out);

int32_t whisper_generate(nn_pass *p);
int32_t whisper_transcribe(nn_pass *p);
int32_t whisper_detect_language(nn_pass *p);

extern const nn_task whisper_tasks[];

#endif
