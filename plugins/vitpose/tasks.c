/* ViTPose: the tasks. preprocess, forward and postprocess are the official three steps; pose is
 * what a person asks for. */
#include <string.h>

#include "vitpose/vitpose.h"

enum {
  AT_ONCE = 8, /* persons in one pass of the network: bounds its memory */
  KERNEL = 11
};

/* The input boxes of postprocess, one for each map. */
static const float *boxes_for(nn_pass *p, int64_t n) {
  int64_t shape[2] = {n, 4};
  return nn_need_floats(p, "boxes", 2, shape);
}

static int32_t preprocess(nn_pass *p) {
  const struct vitpose_model *m = nn_net_of(p);
  struct vitpose_persons r = vitpose_read_persons(p);
  int64_t h = m->size[0], w = m->size[1];
  float *centre = nn_room(p, 2 * r.n), *scale = nn_room(p, 2 * r.n), *warp = nn_room(p, 6 * r.n);
  for (int64_t i = 0; i < r.n; i++) {
    nn_crop crop = nn_crop_of(r.box + 4 * i, w, h);
    memcpy(centre + 2 * i, crop.centre, sizeof crop.centre);
    memcpy(scale + 2 * i, crop.scale, sizeof crop.scale);
    nn_crop_matrix(&crop, w, h, warp + 6 * i);
  }
  uint8_t *pixels = vitpose_cut(p, &r, 0, r.n);
  nn_result(p, VIV_F32, centre, NN_DIMS(r.n, 2), "center");
  nn_result(p, VIV_F32, scale, NN_DIMS(r.n, 2), "scale");
  nn_result(p, VIV_F32, warp, NN_DIMS(r.n, 2, 3), "warp");
  nn_result(p, VIV_U8, pixels, NN_DIMS(r.n, h, w, 3), "resized");
  nn_result(p, VIV_F32, vitpose_values(p, pixels, r.n), NN_DIMS(r.n, 3, h, w), "pixel_values");
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct vitpose_model *m = nn_net_of(p);
  int64_t shape[4] = {0, 3, m->size[0], m->size[1]};
  const float *pixels = nn_need_floats(p, "pixel_values", 4, shape);
  struct vitpose_maps maps = vitpose_forward(p, pixels, shape[0]);
  nn_result(p, VIV_F32, maps.x, NN_DIMS(maps.n, maps.keypoints, maps.height, maps.width),
            "heatmaps");
  return VIV_DONE;
}

static int32_t kernel_of(nn_pass *p) {
  return (int32_t)nn_param_int(p, "kernel_size", KERNEL, 1, 129);
}

static int32_t postprocess(nn_pass *p) {
  int64_t shape[4] = {0, 0, 0, 0};
  struct vitpose_maps maps = {.x = nn_need_floats(p, "heatmaps", 4, shape)};
  maps.n = shape[0];
  maps.keypoints = shape[1];
  maps.height = shape[2];
  maps.width = shape[3];
  if (maps.height < 2 || maps.width < 2 || maps.height > 1 << 14 || maps.width > 1 << 14)
    nn_stop(p, VIV_BAD_INPUT, "heatmaps", "a map of %lld x %lld has no places between cells",
            (long long)maps.height, (long long)maps.width);
  const float *box = boxes_for(p, maps.n);
  struct vitpose_found f = vitpose_decode(p, &maps, box, kernel_of(p));
  nn_result(p, VIV_F32, f.keypoints, NN_DIMS(maps.n, maps.keypoints, 2), "keypoints");
  nn_result(p, VIV_F32, f.scores, NN_DIMS(maps.n, maps.keypoints), "scores");
  return VIV_DONE;
}

/* A person's score: the mean over keypoints that are seen, as COCO's entries of this model count
 * them, times the detector's score where there is one. */
static float instance_score(const float *scores, int64_t n, float box_score) {
  double sum = 0;
  int64_t seen = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!(scores[i] > 0.2f)) continue;
    sum += (double)scores[i];
    seen++;
  }
  return seen ? (float)(sum / (double)seen) * box_score : 0;
}

struct poses {
  float *keypoints; /* [n, K, 3] */
  float *scores;    /* [n] */
  float *corners;   /* [n, 4] */
};

static void emit_picture(nn_pass *p, const struct vitpose_persons *r, const struct poses *all,
                         int64_t keypoints, int64_t picture) {
  nn_mark mark = nn_here(p);
  int64_t n = 0, width = 3 * keypoints;
  struct poses one = {nn_room(p, r->n * width), nn_room(p, r->n), nn_room(p, r->n * 4)};
  for (int64_t i = 0; i < r->n; i++) {
    if (r->picture[i] != picture) continue;
    memcpy(one.keypoints + n * width, all->keypoints + i * width, (size_t)width * sizeof(float));
    memcpy(one.corners + n * 4, all->corners + i * 4, 4 * sizeof(float));
    one.scores[n++] = all->scores[i];
  }
  nn_result(p, VIV_F32, one.keypoints, NN_DIMS(n, keypoints, 3), "keypoints.%lld",
            (long long)picture);
  nn_result(p, VIV_F32, one.scores, NN_DIMS(n), "scores.%lld", (long long)picture);
  nn_result(p, VIV_F32, one.corners, NN_DIMS(n, 4), "boxes.%lld", (long long)picture);
  nn_release(p, mark);
}

/* How sure the detector is of each box: the input or the parameter box_scores [n]. NULL: nobody asked. */
static const float *box_scores(nn_pass *p, int64_t n) {
  const viv_host *h = nn_host_of(p);
  int64_t shape[1] = {n};
  const float *given = nn_some_floats(p, "box_scores", 1, shape);
  const viv_json *list = given ? NULL : nn_param(p, "box_scores");
  if (!list) return given;
  if (h->json_type(list) != VIV_JSON_ARRAY || h->json_count(list) != n)
    nn_stop(p, VIV_BAD_INPUT, "params.box_scores", "must be a list of %lld numbers, one a box",
            (long long)n);
  float *scores = nn_room(p, n);
  for (int64_t i = 0; i < n; i++) scores[i] = (float)h->json_number(h->json_item(list, i));
  return scores;
}

/* Pictures and boxes in, a row of `keypoints.i` for each person of picture i out. Without boxes each
 * picture is one person. */
static int32_t pose(nn_pass *p) {
  const struct vitpose_model *m = nn_net_of(p);
  struct vitpose_persons r = vitpose_read_persons(p);
  int64_t k = m->keypoints;
  const float *sure = box_scores(p, r.n);
  int32_t kernel = kernel_of(p);
  struct poses all = {nn_room(p, r.n * k * 3), nn_room(p, r.n), nn_room(p, r.n * 4)};
  for (int64_t from = 0; from < r.n; from += AT_ONCE) {
    int64_t n = r.n - from < AT_ONCE ? r.n - from : AT_ONCE;
    nn_mark mark = nn_here(p);
    const float *values = vitpose_values(p, vitpose_cut(p, &r, from, n), n);
    struct vitpose_maps maps = vitpose_forward(p, values, n);
    struct vitpose_found f = vitpose_decode(p, &maps, r.box + 4 * from, kernel);
    for (int64_t i = 0; i < n * k; i++) {
      float *to = all.keypoints + (from * k + i) * 3;
      to[0] = f.keypoints[2 * i];
      to[1] = f.keypoints[2 * i + 1];
      to[2] = f.scores[i];
    }
    for (int64_t i = 0; i < n; i++)
      all.scores[from + i] = instance_score(f.scores + i * k, k, sure ? sure[from + i] : 1);
    nn_release(p, mark);
    nn_progress(p, (double)(from + n) / (double)r.n);
  }
  for (int64_t i = 0; i < r.n; i++) {
    const float *b = r.box + 4 * i;
    float *c = all.corners + 4 * i;
    c[0] = b[0];
    c[1] = b[1];
    c[2] = b[0] + b[2];
    c[3] = b[1] + b[3];
  }
  for (int64_t i = 0; i < r.pictures; i++) emit_picture(p, &r, &all, k, i);
  return VIV_DONE;
}

const nn_task vitpose_tasks[] = {{"preprocess", preprocess},
                                 {"forward", forward},
                                 {"postprocess", postprocess},
                                 {"pose", pose},
                                 {NULL, NULL}};
const nn_task vitpose_crop_tasks[] = {{"preprocess", preprocess}, {NULL, NULL}};
