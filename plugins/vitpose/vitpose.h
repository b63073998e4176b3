/* ViTPose: keypoints of persons whose boxes are given. forward.c is the network, crop.c what stands
 * before it, decode.c what stands after it, tasks.c the doors. */
#ifndef PLUGINS_VITPOSE_H
#define PLUGINS_VITPOSE_H

#include "nn/heatmap.h"
#include "nn/vit.h"

enum { VITPOSE_MAX_KEYPOINTS = 1 << 12 };

struct vitpose_model {
  nn_net net;
  bool weightless; /* the folder holds no weights: it can only cut out persons */
  int32_t size[2]; /* of a crop: height, width */
  float mean[3], std[3];
  double factor; /* of the pixels before mean and std */
  bool rescale, normalize;
  int32_t keypoints, scale_factor;
  int32_t channels; /* between the deconvolutions of the classic head */
  bool simple;
  nn_vit vit;
  nn_conv conv;      /* to heat maps */
  nn_conv deconv[2]; /* classic head */
  char *about;       /* [about_bytes] */
  uint64_t about_bytes;
};

/* Persons of a request: n boxes (x, y, w, h) and the picture that each stands in. */
struct vitpose_persons {
  int64_t n, pictures;
  const float *box;               /* [n, 4] */
  const int64_t *picture;         /* [n], which of the inputs `image` */
  const viv_tensor *const *image; /* [pictures], U8 [H, W, 3] */
};

/* ---- crop.c ---- */

/* The inputs `image` and `boxes` (x, y, width, height) with `image_index`, or the parameters `box` and
 * `boxes` or the inputs `boxes.I` of picture I (corners, as tasks of pictures give them). */
struct vitpose_persons vitpose_read_persons(nn_pass *p);
/* Persons [from, from + n) cut out: pixels [n, H, W, 3] and prepared values [n, 3, H, W]. */
uint8_t *vitpose_cut(nn_pass *p, const struct vitpose_persons *persons, int64_t from, int64_t n);
float *vitpose_values(nn_pass *p, const uint8_t *pixels, int64_t n);

/* ---- forward.c ---- */

struct vitpose_maps {
  const float *x; /* [n, keypoints, height, width] */
  int64_t n, keypoints, height, width;
};
/* pixels [n, 3, H, W]; expert [n] or NULL. */
struct vitpose_maps vitpose_network(nn_pass *p, const float *pixels, int64_t n,
                                    const int32_t *expert);
/* The same, averaged with the mirrored picture's maps when the request has flip_test. */
struct vitpose_maps vitpose_forward(nn_pass *p, const float *pixels, int64_t n);

/* ---- decode.c ---- */

struct vitpose_found {
  float *keypoints; /* [n, keypoints, 2], pixels of the picture */
  float *scores;    /* [n, keypoints] */
};
/* kernel: taps of the blur. Emits the taps argmax and refined. */
struct vitpose_found vitpose_decode(nn_pass *p, const struct vitpose_maps *maps, const float *box,
                                    int32_t kernel);

/* ---- tasks.c ---- */

extern const nn_task vitpose_tasks[], vitpose_crop_tasks[];

#endif
