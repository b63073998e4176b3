/* Boxes and positions of detectors, keypoints of heat maps. */
#include "ops.h"

#include "nn/boxes.h"
#include "nn/heatmap.h"

static const float *corners(struct golden *g, struct array x) {
  if (strcmp(text_param(g, "box_format", ""), "cxcywh") != 0) return x.data;
  float *y = take_floats(g, x.n);
  nn_boxes_to_corners(x.data, x.n / 4, y);
  return y;
}

static bool convert(struct golden *g) {
  struct array x = input(g, "x");
  float *y = take_floats(g, x.n);
  if (!strcmp(text_param(g, "op", ""), "center_to_corners_format"))
    nn_boxes_to_corners(x.data, x.n / 4, y);
  else
    nn_boxes_to_centres(x.data, x.n / 4, y);
  output(g, "y", y, x.n);
  return true;
}

static bool overlaps(struct golden *g) {
  struct array a = input(g, "boxes1"), b = input(g, "boxes2");
  int64_t n = a.n / 4, m = b.n / 4;
  float *iou = take_floats(g, n * m), *unions = take_floats(g, n * m);
  nn_box_giou(corners(g, a), n, corners(g, b), m, iou);
  output(g, "y", iou, n * m);
  nn_box_iou(corners(g, a), n, corners(g, b), m, iou, unions);
  output(g, "iou", iou, n * m);
  output(g, "union", unions, n * m);
  return true;
}

static bool nms(struct golden *g) {
  struct array boxes = input(g, "boxes"), scores = input(g, "scores"), idxs = input(g, "idxs");
  int64_t n = scores.n, *classes = idxs.data ? take(g, n * (int64_t)sizeof *classes) : NULL;
  for (int64_t i = 0; classes && i < n; i++) classes[i] = (int64_t)idxs.data[i];
  int32_t *order = take(g, n * (int64_t)sizeof *order), *keep = take(g, n * (int64_t)sizeof *keep);
  int64_t kept = nn_nms(boxes.data, scores.data, classes, n,
                        (float)num_param(g, "iou_threshold", 0.5), order, keep);
  output_ints(g, "keep", keep, kept);
  return true;
}

static bool multiple_size(struct golden *g) {
  static const char *const rules[] = {"", "lower_bound", "upper_bound", "minimal"};
  struct array rows = input(g, "sizes");
  int32_t *sizes = take(g, rows.n * (int64_t)sizeof *sizes), rule = 0;
  for (int32_t i = 1; i < 4; i++)
    if (!strcmp(text_param(g, "resize_method", ""), rules[i])) rule = i;
  for (int64_t i = 0; i < rows.n / 3; i++) {
    const float *r = rows.data + 3 * i; /* height, width, side */
    int64_t height, width;
    nn_multiple_size((int64_t)r[0], (int64_t)r[1], (int64_t)r[2], (int64_t)r[2], rule,
                     (int64_t)num_param(g, "ensure_multiple_of", 1), &height, &width);
    sizes[2 * i] = (int32_t)height;
    sizes[2 * i + 1] = (int32_t)width;
  }
  output_ints(g, "sizes", sizes, rows.n / 3 * 2);
  return true;
}

static bool aspect_size(struct golden *g) {
  struct array wh = input(g, "wh");
  int32_t *sizes = take(g, wh.n * (int64_t)sizeof *sizes);
  bool unrounded = !strcmp(text_param(g, "rule", ""), "transformers");
  for (int64_t i = 0; i < wh.n; i += 2) {
    int64_t height, width;
    nn_aspect_size((int64_t)wh.data[i + 1], (int64_t)wh.data[i], (int64_t)num_param(g, "size", 0),
                   (int64_t)num_param(g, "max_size", 0), unrounded, &height, &width);
    sizes[i] = (int32_t)height;
    sizes[i + 1] = (int32_t)width;
  }
  output_ints(g, "sizes", sizes, wh.n);
  return true;
}

/* ---- positions ---- */

static bool sine_position(struct golden *g) {
  struct array mask = input(g, "mask");
  int64_t batch = mask.shape[0], cells = mask.n / batch;
  nn_sine s = {.height = mask.shape[1],
               .width = mask.shape[2],
               .n = (int64_t)num_param(g, "num_pos_feats", 6),
               .temperature_h = num_param(g, "temperature_h", 10000),
               .temperature_w = num_param(g, "temperature_w", 10000),
               .deformable = !strcmp(text_param(g, "form", ""), "deformable")};
  uint8_t *padding = take(g, mask.n);
  float *y = take_floats(g, 2 * s.n * mask.n);
  for (int64_t i = 0; i < mask.n; i++) padding[i] = mask.data[i] != 0;
  for (int64_t b = 0; b < batch; b++)
    nn_sine_positions(&s, padding + b * cells, y + b * 2 * s.n * cells);
  for (int64_t i = 0; i < 2 * s.n * mask.n; i++)
    if (!strcmp(text_param(g, "padded_outputs", ""), "zero") &&
        padding[i / (2 * s.n * cells) * cells + i % cells])
      y[i] = 0;
  output(g, "y", y, 2 * s.n * mask.n);
  return true;
}

static bool sine_position_2d(struct golden *g) {
  int64_t height = (int64_t)num_param(g, "height", 1), width = (int64_t)num_param(g, "width", 1);
  int64_t d = (int64_t)num_param(g, "embed_dim", 12);
  float *y = take_floats(g, height * width * d);
  nn_sine_grid(height, width, d, num_param(g, "temperature", 10000), y);
  output(g, "y", y, height * width * d);
  return true;
}

static bool sine_coordinates(struct golden *g) {
  struct array x = input(g, "x");
  int64_t n = (int64_t)num_param(g, "num_pos_feats", 6), width = x.shape[x.ndim - 1];
  float *y = take_floats(g, x.n * n);
  nn_sine_coordinates(x.data, x.n / width, width, n, y);
  output(g, "y", y, x.n * n);
  return true;
}

static bool relative_bucket(struct golden *g) {
  struct array x = input(g, "relative_position");
  int32_t *y = take(g, x.n * (int64_t)sizeof *y);
  for (int64_t i = 0; i < x.n; i++)
    y[i] = nn_relative_bucket((int64_t)x.data[i], flag_param(g, "bidirectional", true),
                              (int32_t)num_param(g, "num_buckets", 32),
                              (int32_t)num_param(g, "max_distance", 128));
  output_ints(g, "buckets", y, x.n);
  return true;
}

/* ---- keypoints ---- */

static bool pose_estimation(struct golden *g) {
  struct array maps = input(g, "heatmaps"), boxes = input(g, "boxes");
  const viv_json *size = viv__json_get(g->config, "size");
  int64_t height = (int64_t)viv__json_num(size, "height", 256);
  int64_t width = (int64_t)viv__json_num(size, "width", 192);
  int32_t kernel = (int32_t)viv__json_num(g->config, "kernel_size", 11);
  int64_t n = maps.shape[0] * maps.shape[1], h = maps.shape[2], w = maps.shape[3];
  double *room = take(g, 2 * h * w * (int64_t)sizeof *room);
  int32_t *peaks = take(g, 2 * n * (int64_t)sizeof *peaks);
  float *refined = take_floats(g, 2 * n), *keypoints = take_floats(g, 2 * n);
  float *scores = take_floats(g, n);
  for (int64_t i = 0; i < n; i++) {
    double at[2];
    nn_crop crop = nn_crop_of(boxes.data + i / maps.shape[1] * 4, width, height);
    scores[i] = nn_heatmap_keypoint(maps.data + i * h * w, h, w, kernel, room, peaks + 2 * i, at);
    nn_heatmap_to_picture(&crop, h, w, at, keypoints + 2 * i);
    refined[2 * i] = (float)at[0];
    refined[2 * i + 1] = (float)at[1];
  }
  output_ints(g, "argmax", peaks, 2 * n);
  output(g, "refined", refined, 2 * n);
  output(g, "keypoints", keypoints, 2 * n);
  output(g, "scores", scores, n);
  return true;
}

const struct op box_ops[] = {
    {"center_to_corners_format", convert},
    {"corners_to_center_format", convert},
    {"box_iou", overlaps},
    {"generalized_box_iou", overlaps},
    {"nms", nms},
    {"batched_nms", nms},
    {"resize_get_size", multiple_size},
    {"get_size_with_aspect_ratio", aspect_size},
    {"sine_position", sine_position},
    {"sine_position_2d", sine_position_2d},
    {"sine_embed_coordinates", sine_coordinates},
    {"relative_position_bucket", relative_bucket},
    {"post_process_pose_estimation", pose_estimation},
    {NULL, NULL},
};
