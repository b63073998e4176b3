/* Neural audio codecs: a waveform becomes codes, codes become a waveform. One file per system
 * (encodec.c, mimi.c, dac.c, snac.c); what they share stands in parts.c (convolutions with a state,
 * code books), seanet.c (the network of EnCodec and Mimi) and sound.c (what comes in and goes out).
 *
 * Signals lie channels-last, [batch, n, channels], in the causal systems, which keep rows between
 * calls, and channels-first in DAC and SNAC, whose activation goes by channel. */
#ifndef PLUGINS_CODEC_H
#define PLUGINS_CODEC_H

#include "nn/audio.h"
#include "nn/modules.h"

enum codec_kind { CODEC_ENCODEC = 1, CODEC_MIMI = 2, CODEC_DAC = 3, CODEC_SNAC = 4 };
enum { CODEC_MAX_RATIOS = 8, CODEC_MAX_BOOKS = 64, CODEC_MAX_LAYERS = 64 };

/* ---- parts.c: convolutions ---- */

struct codec_signal {
  float *x; /* [batch, n, channels] */
  int64_t batch, n;
  int32_t channels;
};

/* What a stream keeps between its chunks: rows before the chunk for each convolution, states of the
 * LSTM, keys and values. All of it is one array, in which each layer knows its place. NULL stands
 * for a signal that comes as a whole. */
struct codec_state {
  float *memory;
  bool first, last; /* chunk of the stream */
  int64_t seen;     /* attention: steps so far, and how many of them are kept */
  int64_t kept;
};

struct codec_conv {
  nn_conv conv;
  nn_norm norm; /* w NULL: none */
  int32_t kernel, stride, dilation;
  bool causal;
  int32_t pad;       /* enum viv_pad */
  double trim_right; /* transposed: share of the surplus that is cut at the end */
  int64_t history;   /* rows of the input that a stream keeps */
  int64_t at;        /* of them in codec_state.memory */
};

/* How tensors of a convolution are called. */
struct codec_names {
  const char *list;          /* "layers", "model" */
  const char *conv, *convtr; /* "conv", "conv.conv" */
  const char *norm, *normtr;
};
extern const struct codec_names codec_transformers, codec_original;

/* name.weight, or name.weight_g and name.weight_v, or their newer names. */
void codec_load_conv(nn_loader *l, const char *name, nn_conv_spec spec, nn_conv *conv);
/* Places of the state are given out from *floats. */
void codec_place(struct codec_conv *k, int64_t *floats);
/* y = conv(pad(elu ? ELU(x) : x)), then the norm, + residual; act on top, if there is no norm. */
struct codec_signal codec_convolve(nn_pass *p, const struct codec_conv *k, struct codec_state *s,
                                   bool elu, int32_t act, const float *residual,
                                   const struct codec_signal *x);
/* The tap [batch, channels, n]. */
void codec_tap(nn_pass *p, const struct codec_signal *x, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- parts.c: code books ---- */

struct codec_books {
  int32_t n;
  int64_t k, d;
  const float *book[CODEC_MAX_BOOKS]; /* [k, d] */
};
/* Residual quantisation of rows x [n, d], which are used up: codes[q * stride + i] for q < levels. */
void codec_quantize(nn_pass *p, const struct codec_books *b, int32_t levels, float *x, int64_t n,
                    int64_t *codes, int64_t stride);
/* y [n, d] += the rows that the codes name. */
void codec_look_up(const struct codec_books *b, int32_t levels, const int64_t *codes,
                   int64_t stride, int64_t n, float *y);
/* Leaves the task when a code is not in the book. */
void codec_check(nn_pass *p, const char *name, const int64_t *codes, int64_t n, int64_t k);

/* ---- seanet.c ---- */

struct seanet_config {
  int32_t channels, filters, dimension;
  int32_t kernel, last_kernel, residual_kernel;
  int32_t residual_layers, dilation_base, compress, lstm_layers;
  int32_t n_ratios, ratios[CODEC_MAX_RATIOS]; /* of the decoder; the encoder goes backwards */
  int32_t pad;                                /* enum viv_pad */
  bool causal, shortcut, group_norm;
  double trim_right;
  const struct codec_names *names;
};

struct seanet_lstm {
  const viv_weight *w_input, *w_hidden;
  const float *b_input, *b_hidden;
  int64_t at; /* h, c in the state */
};
enum seanet_kind { SEANET_CONV = 1, SEANET_UP, SEANET_BLOCK, SEANET_LSTM, SEANET_ELU };
struct seanet_layer {
  enum seanet_kind kind;
  int32_t width;
  struct codec_conv conv;           /* CONV, UP */
  struct codec_conv a, b, shortcut; /* BLOCK */
  struct seanet_lstm lstm[4];
};
struct seanet {
  int32_t n;
  const char *name; /* "encoder", "decoder" */
  struct seanet_layer layer[CODEC_MAX_LAYERS];
};
int64_t seanet_hop(const struct seanet_config *c);
/* The layers under their names; places of the state are given out from *floats. */
void seanet_tables(nn_loader *l, const struct seanet_config *c, bool decoder, struct seanet *net,
                   int64_t *floats);
/* Steps that a first chunk needs, so that the reflections at its beginning have what they reflect:
 * samples of an encoder, frames of a decoder. */
int64_t seanet_warm(const struct seanet *net, bool decoder);
struct codec_signal seanet_run(nn_pass *p, const struct seanet_config *c, const struct seanet *net,
                               struct codec_state *s, const struct codec_signal *x, bool tapped);

/* ---- the systems ---- */

struct encodec_model {
  struct seanet_config config;
  struct seanet encoder, decoder;
  struct codec_books books;
  double bandwidths[8]; /* kbit/s */
  int32_t n_bandwidths;
  bool normalize;
  int64_t chunk, chunk_stride; /* samples; 0: not chunked */
};

struct mimi_layer {
  nn_norm norm1, norm2;
  nn_linear qkv, out, fc1, fc2;
  nn_linear q, k, v;            /* transformers' names */
  const float *scale1, *scale2; /* [d] */
  int64_t at;                   /* keys and values in the state: [2, room, d] */
};
struct mimi_model {
  struct seanet_config config;
  struct seanet encoder, decoder;
  struct codec_conv down, up;
  struct mimi_layer *encoder_layer, *decoder_layer;
  struct codec_conv in[2], out[2]; /* of the two quantizers: semantic, acoustic */
  struct codec_books books[2];
  int32_t layers, heads, head_dim, window;
  int32_t n_semantic, latent_stride;
  int64_t ff, vq_d;
  float eps;
  float inv_freq[256];
  bool kyutai;
  int64_t room; /* places of a stream's keys */
};

struct dac_unit {
  const float *alpha1, *alpha2;
  nn_conv conv1, conv2;
};
struct dac_block {
  const float *alpha;
  nn_conv conv, noise;
  struct dac_unit unit[3];
};
struct dac_attention {
  nn_norm norm;
  nn_linear qkv, out;
  const float *inv_freq;
  int32_t heads;
};
struct dac_book {
  nn_conv in, out;
  const float *book;
  float *unit; /* the book with rows of length 1 */
};
/* DAC and SNAC. */
struct dac_model {
  bool original, snac, depthwise, noise;
  int32_t n_blocks, rates[CODEC_MAX_RATIOS], up_rates[CODEC_MAX_RATIOS], n_up;
  int32_t width, up_width, latent; /* channels at the waveform, before the decoder, between */
  int32_t window;                  /* SNAC's attention; 0: none */
  int32_t vq_strides[CODEC_MAX_BOOKS];
  int64_t book_dim;
  nn_conv first, last, up_first, up_second, up_last;
  const float *alpha, *up_alpha;
  struct dac_block down[CODEC_MAX_RATIOS], up[CODEC_MAX_RATIOS];
  struct dac_attention attention, up_attention;
  struct dac_book books[CODEC_MAX_BOOKS];
};

struct codec_model {
  nn_net net;
  enum codec_kind kind;
  bool original; /* the names of the system's own package */
  int64_t rate;  /* Hz */
  int32_t channels;
  int32_t levels;                       /* code books of the file */
  int32_t used;                         /* of them by default */
  int64_t entries;                      /* of a code book */
  int64_t hop;                          /* samples of a frame */
  int64_t encode_floats, decode_floats; /* of a stream's state */
  int64_t encode_warm, decode_warm;     /* frames that a stream's first chunk has at least */
  bool streams;                         /* causal: a stream needs nothing of what follows */
  union {
    struct encodec_model *encodec;
    struct mimi_model *mimi;
    struct dac_model *dac;
  };
  char about[640];
};

/* Reads config.json into m and what m->encodec, ... points to. */
void encodec_config(nn_config *k, struct codec_model *m, const viv_model_source *source);
void mimi_config(nn_config *k, struct codec_model *m, const viv_model_source *source);
void dac_config(nn_config *k, struct codec_model *m, const viv_model_source *source);
void encodec_tables(nn_loader *l, struct codec_model *m);
void mimi_tables(nn_loader *l, struct codec_model *m);
void dac_tables(nn_loader *l, struct codec_model *m);
int32_t encodec_encode(nn_pass *p);
int32_t encodec_decode(nn_pass *p);
int32_t mimi_encode(nn_pass *p);
int32_t mimi_decode(nn_pass *p);
int32_t dac_encode(nn_pass *p);
int32_t dac_decode(nn_pass *p);
int32_t snac_encode(nn_pass *p);
int32_t snac_decode(nn_pass *p);

/* ---- streams (stream.c) ---- */

int32_t codec_encode_stream(nn_pass *p);
int32_t codec_decode_stream(nn_pass *p);

/* One chunk of a causal system: codes [levels, *frames], sound. */
int64_t *encodec_encode_part(nn_pass *p, struct codec_state *s, const struct codec_signal *x,
                             int32_t levels, int64_t *frames);
struct codec_signal encodec_decode_part(nn_pass *p, struct codec_state *s, const int64_t *codes,
                                        int32_t levels, int64_t frames);
int64_t *mimi_encode_part(nn_pass *p, struct codec_state *s, const struct codec_signal *x,
                          int32_t levels, int64_t *frames);
struct codec_signal mimi_decode_part(nn_pass *p, struct codec_state *s, const int64_t *codes,
                                     int32_t levels, int64_t frames);
/* A chunk of EnCodec for 48 kHz. x [n, channels]: its codes and scale are handed over. The sound of
 * codes [levels, frames], times *scale if there is one: [channels, *n]. */
void encodec_encode_chunk(nn_pass *p, const float *x, int64_t n, int32_t levels, int64_t number);
float *encodec_decode_chunk(nn_pass *p, const int64_t *codes, int64_t frames, int32_t levels,
                            const float *scale, int64_t *n);
/* DAC and SNAC. What a length must be a multiple of: samples, frames. */
int64_t dac_whole(const struct codec_model *m);
int64_t dac_group(const struct codec_model *m);
/* How far results look to each side, in such multiples: samples, frames. */
int64_t dac_encode_reach(const struct codec_model *m);
int64_t dac_decode_reach(const struct codec_model *m);
int64_t dac_block(const struct codec_model *m, int64_t reach); /* samples of a block */
/* The codes of `body` frames behind the first `left` ones of x [n] are handed over. */
void dac_encode_part(nn_pass *p, const float *x, int64_t n, int64_t left, int64_t body,
                     int32_t levels);
/* The sound of `body` frames (-1: all) behind the first `left` ones of that many groups of codes;
 * place: of the first frame in the stream. */
void dac_decode_part(nn_pass *p, const int32_t *codes, int64_t groups, int64_t left, int64_t body,
                     int64_t place, int32_t levels);

/* ---- sound.c ---- */

/* The waveform of the request, [rows, channels, n], at the model's rate: input_values as they are, or
 * a recording under audio, resampled and mixed. from_audio: which of them. */
const float *codec_sound(nn_pass *p, int64_t *rows, int64_t *n, bool *from_audio);
/* How many code books the request wants: n_quantizers, else bandwidth in kbit/s, else the default. */
int32_t codec_levels(nn_pass *p);
/* Bits that a code book costs in a second. */
double codec_book_rate(const struct codec_model *m);
/* [rows, n, channels] from [rows, channels, n], and back. */
struct codec_signal codec_turned(nn_pass *p, const float *x, int64_t rows, int32_t channels,
                                 int64_t n);
float *codec_planar(nn_pass *p, const struct codec_signal *x);

#endif
