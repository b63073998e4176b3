/* Masks of instances: the pieces of the automatic mask generator. */
#include "ops.h"

#include "nn/boxes.h"
#include "nn/masks.h"

/* [n, h, w] of the masks or logits that the call brings. */
struct masks {
  int64_t n, h, w;
  const float *x;
  uint8_t *bits;
};

static struct masks read_masks(struct golden *g, const char *name, double threshold) {
  struct array a = input(g, name);
  struct masks m = {1, a.shape[a.ndim - 2], a.shape[a.ndim - 1], a.data, take(g, a.n)};
  m.n = a.n / (m.h * m.w);
  for (int64_t i = 0; i < a.n; i++) m.bits[i] = (double)a.data[i] > threshold;
  return m;
}

static bool stability(struct golden *g) {
  struct masks m = read_masks(g, "masks", 0);
  float *y = take_floats(g, m.n);
  for (int64_t i = 0; i < m.n; i++)
    y[i] =
        nn_mask_stability(m.x + i * m.h * m.w, m.h * m.w, (float)num_param(g, "mask_threshold", 0),
                          (float)num_param(g, "threshold_offset", 1));
  output(g, "stability_score", y, m.n);
  return true;
}

static bool threshold(struct golden *g) {
  struct masks m = read_masks(g, "masks", num_param(g, "mask_threshold", 0));
  output_bytes(g, "masks", m.bits, m.n * m.h * m.w);
  return true;
}

static bool mask_boxes(struct golden *g) {
  struct masks m = read_masks(g, "masks", 0.5);
  int32_t *y = take(g, 4 * m.n * (int64_t)sizeof *y);
  for (int64_t i = 0; i < m.n; i++) {
    int64_t box[4];
    nn_mask_box(m.bits + i * m.h * m.w, m.h, m.w, box);
    for (int k = 0; k < 4; k++) y[4 * i + k] = (int32_t)box[k];
  }
  output_ints(g, "boxes", y, 4 * m.n);
  return true;
}

static void four(struct golden *g, const char *key, float out[4]) {
  for (int k = 0; k < 4; k++) out[k] = (float)list_param(g, key, k);
}

/* Boxes of a crop in the frame of the picture. */
static float *uncropped(struct golden *g, const struct array *boxes) {
  float *y = take_floats(g, boxes->n);
  for (int64_t i = 0; i < boxes->n; i++)
    y[i] = boxes->data[i] + (float)list_param(g, "crop_box", i % 2);
  return y;
}

static bool near_edge(struct golden *g) {
  struct array boxes = input(g, "boxes");
  float crop[4], picture[4], *moved = uncropped(g, &boxes);
  uint8_t *y = take(g, boxes.n / 4);
  four(g, "crop_box", crop);
  four(g, "orig_box", picture);
  for (int64_t i = 0; i < boxes.n / 4; i++)
    y[i] = nn_box_near_edge(moved + 4 * i, crop, picture, num_param(g, "atol", 20));
  output_bytes(g, "near_crop_edge", y, boxes.n / 4);
  return true;
}

static bool uncrop_boxes(struct golden *g) {
  struct array boxes = input(g, "boxes");
  output(g, "boxes", uncropped(g, &boxes), boxes.n);
  return true;
}

static bool runs(struct golden *g) {
  struct masks m = read_masks(g, "masks", 0.5);
  int64_t left = (int64_t)list_param(g, "crop_box", 0), top = (int64_t)list_param(g, "crop_box", 1);
  int64_t height = (int64_t)num_param(g, "orig_h", 0), width = (int64_t)num_param(g, "orig_w", 0);
  int64_t total = 0, room = m.n * (height * width + 1);
  int32_t *counts = take(g, room * (int64_t)sizeof *counts);
  int32_t *lengths = take(g, m.n * (int64_t)sizeof *lengths);
  int32_t *areas = take(g, m.n * (int64_t)sizeof *areas);
  int64_t *one = take(g, (height * width + 1) * (int64_t)sizeof *one);
  uint8_t *back = take(g, height * width);
  for (int64_t i = 0; i < m.n; i++) {
    int64_t n = nn_mask_runs(m.bits + i * m.h * m.w, m.h, m.w, left, top, height, width, one);
    int64_t set = 0;
    lengths[i] = (int32_t)n;
    areas[i] = (int32_t)nn_mask_runs_area(one, n);
    for (int64_t k = 0; k < n; k++) counts[total++] = (int32_t)one[k];
    nn_mask_from_runs(one, n, height, width, back);
    for (int64_t k = 0; k < height * width; k++) set += back[k];
    if (set != areas[i]) die("mask_from_runs", "the mask has another area than its runs");
  }
  output_ints(g, "rle_counts", counts, total);
  output_ints(g, "rle_lengths", lengths, m.n);
  output_ints(g, "areas", areas, m.n);
  return true;
}

static bool crops(struct golden *g) {
  int64_t layers = (int64_t)num_param(g, "n_layers", 0), n = nn_crop_count(layers);
  int64_t(*boxes)[4] = take(g, n * (int64_t)sizeof *boxes);
  int64_t *layer = take(g, n * (int64_t)sizeof *layer);
  int32_t *flat = take(g, 4 * n * (int64_t)sizeof *flat), *ids = take(g, n * (int64_t)sizeof *ids);
  nn_crop_boxes((int64_t)list_param(g, "im_size", 0), (int64_t)list_param(g, "im_size", 1), layers,
                num_param(g, "overlap_ratio", 0), boxes, layer);
  for (int64_t i = 0; i < n; i++) {
    for (int k = 0; k < 4; k++) flat[4 * i + k] = (int32_t)boxes[i][k];
    ids[i] = (int32_t)layer[i];
  }
  output_ints(g, "crop_boxes", flat, 4 * n);
  output_ints(g, "layer_idxs", ids, n);
  return true;
}

static bool grids(struct golden *g) {
  double side = num_param(g, "n_per_side", 1);
  for (int64_t i = 0; i <= (int64_t)num_param(g, "n_layers", 0); i++) {
    int64_t n = (int64_t)side;
    char name[24];
    double *xy = take(g, 2 * n * n * (int64_t)sizeof *xy);
    snprintf(name, sizeof name, "points.%d", (int)i);
    nn_point_grid(n, xy);
    output_doubles(g, name, xy, 2 * n * n);
    side /= num_param(g, "scale_per_layer", 1);
  }
  return true;
}

static bool small_regions(struct golden *g) {
  struct masks m = read_masks(g, "mask", 0.5);
  int32_t *scratch = take(g, 2 * m.h * m.w * (int64_t)sizeof *scratch);
  int32_t changed = nn_mask_small_regions(m.bits, m.h, m.w, num_param(g, "area_thresh", 0),
                                          !strcmp(text_param(g, "mode", ""), "holes"), scratch);
  output_bytes(g, "mask", m.bits, m.h * m.w);
  output_ints(g, "changed", &changed, 1);
  return true;
}

const struct op mask_ops[] = {
    {"calculate_stability_score", stability}, {"threshold_masks", threshold},
    {"batched_mask_to_box", mask_boxes},      {"is_box_near_crop_edge", near_edge},
    {"uncrop_boxes_xyxy", uncrop_boxes},      {"mask_to_rle", runs},
    {"generate_crop_boxes", crops},           {"build_all_layer_point_grids", grids},
    {"remove_small_regions", small_regions},  {NULL, NULL}};
