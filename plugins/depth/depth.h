/* Depth from pictures.
 *
 *   picture -> pixel_values [B, 3, H, W] -> encoder -> head -> predicted_depth [B, h, w]
 *     -> depth.i at the picture's own size
 *
 * A variant is one file: which model_type it serves, its configuration, its tables, its tasks. */
#ifndef PLUGINS_DEPTH_H
#define PLUGINS_DEPTH_H

#include "depth/dpt.h"
#include "depth/picture.h"
#include "nn/vit.h"

enum { DEPTH_MODEL_BYTES = 1 << 18 };

struct depth_model;

struct depth_variant {
  const char *model_type;
  uint64_t bytes; /* of its struct, which begins with struct depth_model */
  void (*config)(nn_config *k, const viv_model_source *source, struct depth_model *m);
  /* Memory beside the struct: how much, and taking it. NULL: none. */
  uint64_t (*more)(const struct depth_model *m);
  int32_t (*begin)(const viv_host *host, viv_arena *arena, struct depth_model *m, viv_error *error);
  nn_tables_fn tables;
  const nn_task *tasks;
  const nn_task *weightless; /* of a folder that holds no weights */
};

extern const struct depth_variant depth_anything;
extern const struct depth_variant depth_anything_hf;
extern const struct depth_variant depth_endodac;
extern const struct depth_variant depth_ccnext;
extern const struct depth_variant depth_prodepth;

struct depth_model {
  nn_net net;
  const struct depth_variant *variant;
  bool weightless;
  const char
      *kind; /* "metric": lengths; "scaled": lengths up to a scale; "inverse": inverse depth up
                       to a scale and a shift */
  /* How the task pose sees motion: the frame beside frame_0, the matrix between them, and the size that
   * its K counts pixels in. NULL: there is none. */
  const char *other, *motion;
  int32_t motion_size[2];
  char about[480];
};

#endif
