/* Masked autoencoders of pictures: an encoder that sees some of the patches, and what fills in the
 * others.
 *
 *   pixel_values -> patches + positions -> the visible ones -> encoder -> ... -> the masked ones
 *
 * `forward` is the whole network under a given mask, as in pre-training; `embed` shows the encoder all
 * patches, and `classify` applies a head to its class token where the checkpoint has one. A variant is
 * a file: its configuration, its tables, these passes. */
#ifndef PLUGINS_AUTOENCODER_H
#define PLUGINS_AUTOENCODER_H

#include "nn/modules.h"
#include "nn/picture.h"
#include "nn/vit.h"

enum { AUTOENCODER_MODEL_BYTES = 1 << 16 };

struct autoencoder_model;

/* pixel_values: [n, 3, size ...], of two or three axes. */
struct autoencoder_pixels {
  const float *x;
  int64_t n;
  int32_t dims;
  int64_t size[3];
};

struct autoencoder_variant {
  const char *architecture;
  uint64_t bytes; /* of its struct, which begins with struct autoencoder_model */
  void (*config)(nn_config *k, const viv_model_source *source, struct autoencoder_model *m);
  uint64_t (*more)(const struct autoencoder_model *m); /* memory beside the struct, and taking it */
  int32_t (*begin)(const viv_host *host, viv_arena *arena, struct autoencoder_model *m,
                   viv_error *error);
  nn_tables_fn tables;
  int32_t (*forward)(nn_pass *p);
  /* The encoder's answer to all patches, [n, *tokens, width], the class token first. */
  float *(*encode)(nn_pass *p, const struct autoencoder_pixels *in, int64_t *tokens);
};

extern const struct autoencoder_variant autoencoder_cae;
extern const struct autoencoder_variant autoencoder_uni4eye;

struct autoencoder_model {
  nn_net net;
  const struct autoencoder_variant *variant;
  nn_picture prepare;
  bool volumes;   /* pixel_values may have three axes */
  int64_t width;  /* of a token */
  nn_linear head; /* [classes, width]; w NULL: none */
  int64_t classes;
  char about[256];
};

/* tasks.c */
extern const nn_task autoencoder_tasks[];
/* The input pixel_values, or the request's pictures. */
struct autoencoder_pixels autoencoder_read(nn_pass *p);

#endif
