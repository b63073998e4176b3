/* Networks that give each pixel of a picture a class:
 *
 *   pixel_values [B, 3, H, W] -> backbone -> maps -> head -> logits [B, classes, h, w]
 *     -> resized to the picture -> the class of each pixel
 *
 * A variant is a row of plugin.c and a file: its configuration, its tables, its network. Pictures,
 * tasks and opening are common: plugin.c, tasks.c. */
#ifndef PLUGINS_SEGMENTER_H
#define PLUGINS_SEGMENTER_H

#include "nn/modules.h"
#include "nn/picture.h"

enum { SEGMENTER_MODEL_BYTES = 1 << 17, SEGMENTER_RATES = 8 };

struct segmenter_model;

struct segmenter_variant {
  const char *model_type, *architecture; /* both must agree */
  uint64_t bytes;                        /* of its struct, which begins with segmenter_model */
  void (*config)(nn_config *k, const viv_model_source *source, struct segmenter_model *m);
  nn_tables_fn tables;
  /* logits of [B, classes, h, w] in either layout; memory of the pass. x in the layout of
   * channels_last, two of them if the model has a second input. Results beside the logits are handed
   * over only if `extras` is set. */
  nn_map (*network)(nn_pass *p, const nn_map *x, bool extras);
};

extern const struct segmenter_variant segmenter_segformer;
extern const struct segmenter_variant segmenter_mit;
extern const struct segmenter_variant segmenter_deeplab;
extern const struct segmenter_variant segmenter_semi;
extern const struct segmenter_variant segmenter_adapnet;
extern const struct segmenter_variant segmenter_ssma;
extern const struct segmenter_variant segmenter_xnet;
extern const struct segmenter_variant segmenter_upernet;

struct segmenter_model {
  nn_net net;
  const struct segmenter_variant *variant;
  nn_picture prepare;
  int64_t classes;
  bool align_corners; /* of the logits' resizing to the picture */
  bool channels_last; /* of pixel_values and logits, as the official graph has them */
  bool bgr;           /* of the colours of pixel_values */
  bool depth;         /* the network gives metres instead of logits */
  bool probabilities; /* segment gives a softmax, not resized logits */
  const char *second, *second_image; /* names of a second picture; NULL: one is enough */
  char about[256];
};

/* plugin.c: the object under a key of config.json; a missing one fails. */
nn_config segmenter_part(nn_config *k, const char *key, const char *where);

/* A map's tap, channels first. */
void segmenter_tap(nn_pass *p, const nn_map *x, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* tasks.c */
extern const nn_task segmenter_tasks[];

#endif
