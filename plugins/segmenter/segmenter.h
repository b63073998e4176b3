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
  /* logits [B, classes, h, w], channels first; memory of the pass. x is channels first. Results
   * beside the logits are handed over only if `extras` is set. */
  nn_map (*network)(nn_pass *p, const nn_map *x, bool extras);
};

extern const struct segmenter_variant segmenter_segformer;
extern const struct segmenter_variant segmenter_mit;
extern const struct segmenter_variant segmenter_deeplab;
extern const struct segmenter_variant segmenter_semi;

struct segmenter_model {
  nn_net net;
  const struct segmenter_variant *variant;
  nn_picture prepare;
  int64_t classes;
  bool align_corners; /* of the logits' resizing to the picture */
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
