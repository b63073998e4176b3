/* BEiT's relative positions. */
#include <string.h>

#include "nn/vit.h"

/* A table's rows of another grid [(2 gh - 1) (2 gw - 1) + 3, heads]; the last three, which belong to
 * the class token, stay. */
static const float *resized(nn_pass *p, const nn_vit_config *c, const float *table,
                            nn_vit_grid grid) {
  if (grid.height == c->grid[0] && grid.width == c->grid[1]) return table;
  const viv_compute *k = nn_compute_of(p);
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_LINEAR,
                  .dims = 2,
                  .channels = c->heads,
                  .batch = 1,
                  .size = {2 * c->grid[0] - 1, 2 * c->grid[1] - 1, 1},
                  .out_size = {2 * grid.height - 1, 2 * grid.width - 1, 1},
                  .x = table};
  int64_t old = (int64_t)a.size[0] * a.size[1] * c->heads;
  int64_t new = (int64_t)a.out_size[0] * a.out_size[1] * c->heads;
  float *out = nn_room(p, new + 3 * c->heads);
  a.out = out;
  k->resize(k, &a);
  memcpy(out + new, table + old, (size_t)(3 * c->heads) * sizeof *out);
  return out;
}

struct spread {
  const float *table; /* [rows, heads] */
  float *bias;        /* [heads, n, n], added to */
  nn_vit_grid grid;
  int32_t heads;
};

/* A task is one query of one head. From the class token, to it, to itself: the last three rows. */
static void spread(void *ctx, int64_t begin, int64_t end) {
  const struct spread *s = ctx;
  int32_t h = s->grid.height, w = s->grid.width, across = 2 * w - 1;
  int64_t n = 1 + (int64_t)h * w, rows = (int64_t)(2 * h - 1) * across;
  for (int64_t t = begin; t < end; t++) {
    int64_t head = t / n, i = t % n;
    float *to = s->bias + t * n;
    const float *table = s->table + head;
    to[0] += table[(rows + (i ? 1 : 2)) * s->heads];
    if (!i) {
      for (int64_t j = 1; j < n; j++) to[j] += table[rows * s->heads];
      continue;
    }
    int32_t row = (int32_t)((i - 1) / w), column = (int32_t)((i - 1) % w);
    for (int32_t y = 0, j = 1; y < h; y++)
      for (int32_t x = 0; x < w; x++, j++)
        to[j] += table[(int64_t)((row - y + h - 1) * across + column - x + w - 1) * s->heads];
  }
}

const float *nn_vit_relative_bias(nn_pass *p, const nn_vit *vit, int32_t layer, nn_vit_grid grid) {
  const viv_compute *k = nn_compute_of(p);
  const float *tables[2] = {vit->relative, vit->block[layer].relative};
  if (!tables[0] && !tables[1]) return NULL;
  int32_t heads = vit->config.heads;
  int64_t n = 1 + (int64_t)grid.height * grid.width;
  float *bias = nn_room(p, heads * n * n); /* [heads, n, n] */
  memset(bias, 0, (size_t)(heads * n * n) * sizeof *bias);
  for (int i = 0; i < 2; i++) {
    if (!tables[i]) continue;
    nn_mark mark = nn_here(p);
    struct spread s = {resized(p, &vit->config, tables[i], grid), bias, grid, heads};
    k->parallel_for(k, heads * n, 8, spread, &s);
    nn_release(p, mark);
  }
  return bias;
}
