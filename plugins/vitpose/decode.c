/* ViTPose: heat maps to keypoints of the picture, as post_process_pose_estimation does. */
#include "vitpose/vitpose.h"

struct decode {
  const struct vitpose_maps *maps;
  const float *box;
  int64_t size[2]; /* of a crop: height, width */
  int32_t kernel;
  double *room; /* [n keypoints, 2 cells] */
  int32_t *peak;
  double *refined;
  float *keypoints, *scores;
};

static void decode_maps(void *ctx, int64_t begin, int64_t end) {
  const struct decode *d = ctx;
  const struct vitpose_maps *m = d->maps;
  int64_t cells = m->height * m->width;
  for (int64_t i = begin; i < end; i++) {
    nn_crop crop = nn_crop_of(d->box + i / m->keypoints * 4, d->size[1], d->size[0]);
    d->scores[i] =
        nn_heatmap_keypoint(m->x + i * cells, m->height, m->width, d->kernel,
                            d->room + i * 2 * cells, d->peak + 2 * i, d->refined + 2 * i);
    nn_heatmap_to_picture(&crop, m->height, m->width, d->refined + 2 * i, d->keypoints + 2 * i);
  }
}

struct vitpose_found vitpose_decode(nn_pass *p, const struct vitpose_maps *maps, const float *box,
                                    int32_t kernel) {
  const struct vitpose_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t n = maps->n * maps->keypoints, cells = maps->height * maps->width;
  struct vitpose_found found = {nn_room(p, 2 * n), nn_room(p, n)};
  float *tap = nn_room(p, 2 * n);
  nn_mark mark = nn_here(p);
  struct decode d = {.maps = maps,
                     .box = box,
                     .size = {m->size[0], m->size[1]},
                     .kernel = kernel,
                     .room = nn_bytes(p, n * 2 * cells, sizeof(double)),
                     .peak = nn_bytes(p, 2 * n, sizeof(int32_t)),
                     .refined = nn_bytes(p, 2 * n, sizeof(double)),
                     .keypoints = found.keypoints,
                     .scores = found.scores};
  c->parallel_for(c, n, 4, decode_maps, &d);
  for (int64_t i = 0; i < 2 * n; i++) tap[i] = (float)d.peak[i];
  nn_tap(p, tap, NN_DIMS(maps->n, maps->keypoints, 2), "argmax");
  for (int64_t i = 0; i < 2 * n; i++) tap[i] = (float)d.refined[i];
  nn_tap(p, tap, NN_DIMS(maps->n, maps->keypoints, 2), "refined");
  nn_release(p, mark);
  return found;
}
