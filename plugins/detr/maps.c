/* Maps, channels last, as pyramids need them. */
#include <string.h>

#include "detr/neck.h"

struct copy {
  const float *from;
  float *to;
  int64_t from_step, to_step, n; /* floats of a cell */
};

static void copy_cells(void *ctx, int64_t begin, int64_t end) {
  const struct copy *c = ctx;
  for (int64_t i = begin; i < end; i++)
    memcpy(c->to + i * c->to_step, c->from + i * c->from_step, (size_t)c->n * sizeof(float));
}

nn_map detr_join_maps(nn_pass *p, const nn_map *maps, int32_t n) {
  const viv_compute *c = nn_compute_of(p);
  int32_t channels = 0;
  for (int32_t i = 0; i < n; i++) channels += maps[i].channels;
  nn_map y = nn_new_map(p, maps->batch, channels, 2, maps->size, VIV_CHANNELS_LAST);
  int64_t cells = nn_space(&y) * y.batch, at = 0;
  for (int32_t i = 0; i < n; at += maps[i++].channels) {
    if (maps[i].size[0] != y.size[0] || maps[i].size[1] != y.size[1])
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "the levels of the pyramid don't meet (%d x %d and %d x %d cells): the picture's "
              "sides must be multiples of the coarsest stride",
              (int)y.size[0], (int)y.size[1], (int)maps[i].size[0], (int)maps[i].size[1]);
    struct copy one = {maps[i].x, y.x + at, maps[i].channels, channels, maps[i].channels};
    c->parallel_for(c, cells, 256, copy_cells, &one);
  }
  return y;
}

nn_map detr_cut_map(nn_pass *p, const nn_map *x, int32_t begin, int32_t n) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_new_map(p, x->batch, n, 2, x->size, VIV_CHANNELS_LAST);
  struct copy one = {x->x + begin, y.x, x->channels, n, n};
  c->parallel_for(c, nn_space(x) * x->batch, 256, copy_cells, &one);
  return y;
}

float *detr_flatten_maps(nn_pass *p, const nn_map *maps, int32_t n, const struct detr_batch *batch,
                         struct detr_levels *lv) {
  *lv = (struct detr_levels){.batch = maps->batch, .n = n};
  for (int32_t i = 0; i < n; i++) {
    lv->shape[2 * i] = maps[i].size[0];
    lv->shape[2 * i + 1] = maps[i].size[1];
  }
  detr_set_levels(p, lv, batch);
  int64_t d = maps->channels, cells = lv->start[n];
  float *out = nn_room(p, lv->batch * cells * d);
  for (int32_t b = 0; b < lv->batch; b++)
    for (int32_t i = 0; i < n; i++) {
      int64_t some = nn_space(&maps[i]) * d;
      memcpy(out + (b * cells + lv->start[i]) * d, maps[i].x + b * some,
             (size_t)some * sizeof *out);
    }
  return out;
}
