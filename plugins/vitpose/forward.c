/* ViTPose: the network.
 *
 *   pixels [N, 3, H, W]
 *     |  x = conv p x p, stride p, zeros of 2 around           [N, h w, d]     h = H / p, w = W / p
 *     |  x += P[1..] + P[0]                                    no class token, but its position
 *     |  block i, pre-norm (nn/vit.h)                          ViTPose+: the last features of the
 *     |                                                        MLP come from the data set's expert
 *     |  x = LN(x)
 *     |
 *   simple head:  conv 3x3( upsample x4 bilinear( relu(x) ) )
 *   classic head: conv 1x1( relu(bn(deconv 4x4 s2)) twice )
 *     |
 *   heat maps [N, K, 4 h, 4 w]
 *
 * Official: transformers models/vitpose and models/vitpose_backbone. */
#include <string.h>

#include "vitpose/vitpose.h"

static struct vitpose_maps head(nn_pass *p, const struct vitpose_model *m, float *x, int64_t n,
                                nn_vit_grid grid) {
  const viv_compute *c = nn_compute_of(p);
  nn_map map = {.x = x,
                .batch = (int32_t)n,
                .channels = (int32_t)m->vit.config.d,
                .dims = 2,
                .size = {grid.height, grid.width, 1},
                .layout = VIV_CHANNELS_LAST};
  if (m->simple) {
    int32_t size[2] = {grid.height * m->scale_factor, grid.width * m->scale_factor};
    c->unary(c, VIV_RELU, x, x, nn_elements(&map));
    map = nn_resize_map(p, VIV_LINEAR, false, size, &map);
  } else {
    map = nn_apply_conv(p, &m->deconv[0], VIV_RELU, &map);
    map = nn_apply_conv(p, &m->deconv[1], VIV_RELU, &map);
  }
  nn_map out = nn_conv_shape(p, &m->conv, &map, VIV_CHANNELS_FIRST);
  out.x = nn_room(p, nn_elements(&out));
  nn_conv_to(p, &m->conv, 0, NULL, &map, &out);
  return (struct vitpose_maps){out.x, n, out.channels, out.size[0], out.size[1]};
}

struct vitpose_maps vitpose_network(nn_pass *p, const float *pixels, int64_t n,
                                    const int32_t *expert) {
  const struct vitpose_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  const nn_vit *vit = &m->vit;
  nn_vit_grid grid = nn_vit_grid_of(p, vit, m->size[0], m->size[1]);
  int64_t d = vit->config.d, cells = (int64_t)grid.height * grid.width;
  float *x = nn_vit_patches(p, vit, pixels, n, m->size[0], m->size[1]); /* [n, cells, d] */
  const float *positions = nn_vit_positions(p, vit, grid);
  for (int64_t i = 0; i < n; i++) c->add(c, x + i * cells * d, positions, cells * d);
  for (int64_t r = 0; r < n * cells; r++) c->add(c, x + r * d, vit->positions, d);
  nn_tap(p, x, NN_DIMS(n, cells, d), "embeddings");
  for (int32_t i = 0; i < vit->config.layers; i++) {
    nn_pass_poll(p);
    nn_vit_attention(p, vit, i, n, cells, x);
    nn_vit_mlp(p, vit, i, n, cells, expert, x);
    nn_tap(p, x, NN_DIMS(n, cells, d), "layer.%d", (int)i);
  }
  nn_layer_norm(p, &vit->norm, x, n * cells, x);
  nn_tap(p, x, NN_DIMS(n, cells, d), "layernorm");
  return head(p, m, x, n, grid);
}

/* ---- the flip test ---- */

/* COCO's left and right. */
static const int64_t coco_pairs[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* swap [keypoints]: the keypoint that takes each one's place in a mirrored picture. */
static void read_pairs(nn_pass *p, int64_t keypoints, int64_t *swap) {
  const viv_host *h = nn_host_of(p);
  const viv_json *list = nn_param(p, "flip_pairs");
  int64_t shape[2] = {0, 2}, n = 0, written[2 * VITPOSE_MAX_KEYPOINTS];
  const int64_t *pairs = nn_some_ints(p, "flip_pairs", 2, shape);
  if (pairs) {
    n = shape[0];
  } else if (list) {
    n = h->json_count(list);
    if (n > VITPOSE_MAX_KEYPOINTS)
      nn_stop(p, VIV_BAD_INPUT, "params.flip_pairs", "%lld pairs are too many", (long long)n);
    for (int64_t i = 0; i < 2 * n; i++)
      written[i] = (int64_t)h->json_number(h->json_item(h->json_item(list, i / 2), i % 2));
    pairs = written;
  } else if (keypoints == 17) {
    n = 8;
    pairs = coco_pairs;
  } else {
    nn_stop(p, VIV_BAD_INPUT, "params.flip_pairs",
            "is missing: which of the %lld keypoints are left and right of one another",
            (long long)keypoints);
  }
  for (int64_t i = 0; i < keypoints; i++) swap[i] = i;
  for (int64_t i = 0; i < n; i++) {
    int64_t a = pairs[2 * i], b = pairs[2 * i + 1];
    if (a < 0 || b < 0 || a >= keypoints || b >= keypoints)
      nn_stop(p, VIV_BAD_INPUT, "params.flip_pairs", "pair %lld is [%lld, %lld] of %lld keypoints",
              (long long)i, (long long)a, (long long)b, (long long)keypoints);
    swap[a] = b;
    swap[b] = a;
  }
}

static void mirror(const float *x, int64_t rows, int64_t width, float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < width; j++) y[r * width + j] = x[r * width + width - 1 - j];
}

struct vitpose_maps vitpose_forward(nn_pass *p, const float *pixels, int64_t n) {
  const struct vitpose_model *m = nn_net_of(p);
  int64_t shape[1] = {n}, h = m->size[0], w = m->size[1];
  const int64_t *index = nn_some_ints(p, "dataset_index", 1, shape);
  int32_t *expert = NULL;
  if (m->vit.config.experts) {
    int64_t one = nn_param_int(p, "dataset_index", 0, 0, m->vit.config.experts - 1);
    expert = nn_bytes(p, n, sizeof *expert);
    for (int64_t i = 0; i < n; i++) {
      int64_t e = index ? index[i] : one;
      if (e < 0 || e >= m->vit.config.experts)
        nn_stop(p, VIV_BAD_INPUT, "dataset_index", "%lld is none of the %d experts", (long long)e,
                (int)m->vit.config.experts);
      expert[i] = (int32_t)e;
    }
  }
  struct vitpose_maps maps = vitpose_network(p, pixels, n, expert);
  if (!nn_param_flag(p, "flip_test", false)) return maps;
  float *flipped = nn_room(p, n * 3 * h * w);
  int64_t *swap = nn_bytes(p, maps.keypoints, sizeof *swap), cells = maps.height * maps.width;
  read_pairs(p, maps.keypoints, swap);
  mirror(pixels, n * 3 * h, w, flipped);
  struct vitpose_maps other = vitpose_network(p, flipped, n, expert);
  float *back = nn_room(p, n * maps.keypoints * cells),
        *mean = nn_room(p, n * maps.keypoints * cells);
  for (int64_t i = 0; i < n * maps.keypoints; i++) {
    int64_t from = i - i % maps.keypoints + swap[i % maps.keypoints];
    mirror(other.x + from * cells, maps.height, maps.width, back + i * cells);
  }
  nn_tap(p, back, NN_DIMS(n, maps.keypoints, maps.height, maps.width), "heatmaps_flipped");
  for (int64_t i = 0; i < n * maps.keypoints * cells; i++) mean[i] = (maps.x[i] + back[i]) * 0.5f;
  maps.x = mean;
  return maps;
}
