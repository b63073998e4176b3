/* Everything in a picture: a grid of points over it and over crops of it, of all their masks those
 * that the model trusts and that are stable, doubles removed.
 *
 *   for each crop:  encode; for each point: 3 masks
 *     keep  predicted IoU > pred_iou_thresh,  stability >= stability_score_thresh,
 *           boxes that do not touch a side of the crop which is no side of the picture
 *     non-maximum suppression by predicted IoU
 *   between crops: suppression, smaller crops first
 *
 * Official: segment_anything.automatic_mask_generator.SamAutomaticMaskGenerator. */
#include <math.h>
#include <string.h>

#include "nn/boxes.h"
#include "nn/masks.h"
#include "sam/sam.h"

enum { SIDE_MAX = 256, LAYERS_MAX = 5 };

struct record {
  int64_t crop[4]; /* x0 y0 x1 y1 */
  double point[2];
  float box[4], iou, stability; /* box: in the picture */
  int64_t *runs, n_runs;        /* of the picture's mask */
};

struct options {
  int64_t per_side, layers, downscale;
  double iou, stability, offset, nms, crop_nms, overlap, threshold, min_area;
  const viv_json *grids;
};

struct search {
  const struct sam_model *m;
  struct options o;
  struct sam_rules rules;
  nn_pixels picture;
  struct record *found; /* room for all points of all crops */
  int64_t n;
};

/* ---- options and points ---- */

static struct options read_options(nn_pass *p) {
  struct options o = {.layers = nn_param_int(p, "crop_n_layers", 0, 0, LAYERS_MAX),
                      .downscale =
                          nn_param_int(p, "crop_n_points_downscale_factor", 1, 1, SIDE_MAX),
                      .iou = nn_param_num(p, "pred_iou_thresh", 0.88, -1e9, 1e9),
                      .stability = nn_param_num(p, "stability_score_thresh", 0.95, -1e9, 1e9),
                      .offset = nn_param_num(p, "stability_score_offset", 1, 0, 1e9),
                      .nms = nn_param_num(p, "box_nms_thresh", 0.7, 0, 1),
                      .crop_nms = nn_param_num(p, "crop_nms_thresh", 0.7, 0, 1),
                      .overlap = nn_param_num(p, "crop_overlap_ratio", 512.0 / 1500, 0, 1),
                      .threshold = nn_param_num(p, "mask_threshold", 0, -1e9, 1e9),
                      .min_area = nn_param_num(p, "min_mask_region_area", 0, 0, 1e12),
                      .grids = nn_param(p, "point_grids")};
  nn_param_int(p, "points_per_batch", 64, 1, 1 << 16); /* changes no result */
  o.per_side = nn_param_int(p, "points_per_side", o.grids ? 0 : 32, 0, SIDE_MAX);
  if (!o.per_side == !o.grids)
    nn_stop(p, VIV_BAD_INPUT, "params", "give either points_per_side or point_grids");
  if (o.grids && nn_host_of(p)->json_count(o.grids) <= o.layers)
    nn_stop(p, VIV_BAD_INPUT, "params", "point_grids needs a grid for each of %lld layers",
            (long long)o.layers + 1);
  return o;
}

/* Points of a layer in (0, 1), [*n, 2]. */
static double *points_of(nn_pass *p, const struct options *o, int64_t layer, int64_t *n) {
  const viv_host *h = nn_host_of(p);
  if (o->grids) {
    const viv_json *grid = h->json_item(o->grids, layer);
    *n = h->json_count(grid);
    if (*n > (int64_t)SIDE_MAX * SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, "params", "point_grids: %lld points are too many", (long long)*n);
    double *xy = nn_bytes(p, 2 * *n, sizeof *xy);
    for (int64_t i = 0; i < 2 * *n; i++) {
      const viv_json *at = h->json_item(h->json_item(grid, i / 2), i % 2);
      xy[i] = h->json_type(at) == VIV_JSON_NUMBER ? h->json_number(at) : -1;
      if (!(xy[i] >= 0 && xy[i] <= 1))
        nn_stop(p, VIV_BAD_INPUT, "params", "point_grids must hold pairs of numbers from 0 to 1");
    }
    return xy;
  }
  double side = (double)o->per_side;
  for (int64_t i = 0; i < layer; i++) side /= (double)o->downscale;
  int64_t per = (int64_t)side;
  *n = per * per;
  double *xy = nn_bytes(p, 2 * *n, sizeof *xy);
  nn_point_grid(per, xy);
  return xy;
}

/* ---- one crop ---- */

static void keep_mask(nn_pass *p, struct search *s, const int64_t crop[4], const double point[2],
                      float iou, const struct sam_size *size, const float *logits) {
  const struct options *o = &s->o;
  int64_t h = size->height, w = size->width, box[4];
  const float around[4] = {(float)crop[0], (float)crop[1], (float)crop[2], (float)crop[3]};
  const float whole[4] = {0, 0, (float)s->picture.width, (float)s->picture.height};
  struct record r = {.iou = iou};
  nn_mark mark = nn_here(p);
  const float *full = sam_full_size(p, s->m, size, logits, 1);
  r.stability = nn_mask_stability(full, h * w, (float)o->threshold, (float)o->offset);
  uint8_t *mask = nn_bytes(p, h * w, 1);
  for (int64_t i = 0; i < h * w; i++) mask[i] = (double)full[i] > o->threshold;
  nn_mask_box(mask, h, w, box);
  for (int k = 0; k < 4; k++) r.box[k] = (float)(box[k] + crop[k % 2]);
  bool good = (o->stability <= 0 || (double)r.stability >= o->stability) &&
              !nn_box_near_edge(r.box, around, whole, 20);
  if (good) {
    int64_t height = s->picture.height, width = s->picture.width;
    r.n_runs = nn_mask_runs(mask, h, w, crop[0], crop[1], height, width, NULL);
    r.runs = nn_keep(p, r.n_runs, sizeof *r.runs);
    nn_mask_runs(mask, h, w, crop[0], crop[1], height, width, r.runs);
    memcpy(r.crop, crop, sizeof r.crop);
    for (int k = 0; k < 2; k++) r.point[k] = point[k] + (double)crop[k];
    s->found[s->n++] = r;
  }
  nn_release(p, mark);
}

/* found [from, n) = those that suppression leaves, by descending score. */
static void suppress(nn_pass *p, struct search *s, int64_t from, const float *scores,
                     double threshold) {
  int64_t n = s->n - from;
  nn_mark mark = nn_here(p);
  float *boxes = nn_room(p, 4 * n);
  int32_t *order = nn_bytes(p, n, sizeof *order), *kept = nn_bytes(p, n, sizeof *kept);
  struct record *copy = nn_bytes(p, n, sizeof *copy);
  for (int64_t i = 0; i < n; i++) memcpy(boxes + 4 * i, s->found[from + i].box, 4 * sizeof *boxes);
  memcpy(copy, s->found + from, (size_t)n * sizeof *copy);
  int64_t left = nn_nms(boxes, scores, NULL, n, (float)threshold, order, kept);
  for (int64_t i = 0; i < left; i++) s->found[from + i] = copy[kept[i]];
  s->n = from + left;
  nn_release(p, mark);
}

static void search_crop(nn_pass *p, struct search *s, const int64_t crop[4], int64_t layer,
                        double begin, double share) {
  const struct sam_model *m = s->m;
  int64_t first = s->n, n_points = 0, cells = 16 * (int64_t)m->grid * m->grid;
  nn_mark mark = nn_here(p);
  nn_pixels part = sam_cut(p, s->picture, crop);
  struct sam_view view = sam_view_one(p, &s->rules, part);
  const struct sam_size *size = view.sizes;
  const double *xy = points_of(p, &s->o, layer, &n_points);
  for (int64_t at = 0; at < n_points; at += SAM_AT_ONCE) {
    int64_t n = n_points - at < SAM_AT_ONCE ? n_points - at : SAM_AT_ONCE;
    float coords[2 * SAM_AT_ONCE];
    double places[SAM_AT_ONCE][2];
    int64_t labels[SAM_AT_ONCE];
    nn_mark batch = nn_here(p);
    for (int64_t i = 0; i < n; i++) {
      places[i][0] = xy[2 * (at + i)] * size->width;
      places[i][1] = xy[2 * (at + i) + 1] * size->height;
      coords[2 * i] = (float)(places[i][0] * ((double)size->new_width / size->width));
      coords[2 * i + 1] = (float)(places[i][1] * ((double)size->new_height / size->height));
      labels[i] = 1;
    }
    struct sam_prompts prompts = {.n = n, .points = 1, .coords = coords, .labels = labels};
    struct sam_answer got = sam_decode(p, m, &view, &prompts, (struct sam_lead){1, {n, 0}}, true);
    for (int64_t i = 0; i < n * got.outputs; i++)
      if (s->o.iou <= 0 || (double)got.iou[i] > s->o.iou)
        keep_mask(p, s, crop, places[i / got.outputs], got.iou[i], size, got.logits + i * cells);
    nn_release(p, batch);
    nn_pass_poll(p);
    nn_progress(p, begin + share * (double)(at + n) / (double)n_points);
  }
  int64_t n = s->n - first;
  float *scores = nn_room(p, n);
  for (int64_t i = 0; i < n; i++) scores[i] = s->found[first + i].iou;
  suppress(p, s, first, scores, s->o.nms);
  nn_release(p, mark);
}

/* ---- all of it ---- */

/* Holes and islands below min_area are filled and removed, then doubles that this makes; masks that
 * did not change win. */
static void clean(nn_pass *p, struct search *s) {
  int64_t h = s->picture.height, w = s->picture.width;
  double threshold = fmax(s->o.nms, s->o.crop_nms);
  float *scores = nn_room(p, s->n);
  for (int64_t i = 0; i < s->n; i++) {
    struct record *r = &s->found[i];
    nn_mark mark = nn_here(p);
    uint8_t *mask = nn_bytes(p, h * w, 1);
    int32_t *scratch = nn_bytes(p, 2 * h * w, sizeof *scratch);
    int64_t box[4];
    nn_mask_from_runs(r->runs, r->n_runs, h, w, mask);
    bool holes = nn_mask_small_regions(mask, h, w, s->o.min_area, true, scratch);
    bool islands = nn_mask_small_regions(mask, h, w, s->o.min_area, false, scratch);
    scores[i] = holes || islands ? 0 : 1;
    if (holes || islands) {
      nn_mask_box(mask, h, w, box);
      for (int k = 0; k < 4; k++) r->box[k] = (float)box[k];
      r->n_runs = nn_mask_runs(mask, h, w, 0, 0, h, w, NULL);
      r->runs = nn_keep(p, r->n_runs, sizeof *r->runs);
      nn_mask_runs(mask, h, w, 0, 0, h, w, r->runs);
    }
    nn_release(p, mark);
  }
  suppress(p, s, 0, scores, threshold);
}

static struct search search(nn_pass *p) {
  struct search s = {.m = nn_net_of(p), .o = read_options(p)};
  if (nn_count(p, "image") != 1)
    nn_stop(p, VIV_BAD_INPUT, "image", "everything is looked for in one picture, not in %d",
            (int)nn_count(p, "image"));
  s.rules = sam_request_rules(p, s.m);
  s.picture = sam_picture_at(p, 0);
  int64_t n = nn_crop_count(s.o.layers), room = 0;
  int64_t(*crops)[4] = nn_bytes(p, n, sizeof *crops);
  int64_t *layers = nn_bytes(p, n, sizeof *layers);
  nn_crop_boxes(s.picture.height, s.picture.width, s.o.layers, s.o.overlap, crops, layers);
  for (int64_t i = 0; i < n; i++) {
    int64_t points = 0;
    nn_mark mark = nn_here(p);
    points_of(p, &s.o, layers[i], &points);
    nn_release(p, mark);
    room += points * s.m->masks;
    if (crops[i][2] <= crops[i][0] || crops[i][3] <= crops[i][1])
      nn_stop(p, VIV_BAD_INPUT, "params", "crop_n_layers: a picture of %d x %d has no such crops",
              (int)s.picture.width, (int)s.picture.height);
  }
  s.found = nn_bytes(p, room, sizeof *s.found);
  for (int64_t i = 0; i < n; i++)
    search_crop(p, &s, crops[i], layers[i], (double)i / (double)n, 1 / (double)n);
  if (n > 1) {
    float *scores = nn_room(p, s.n);
    for (int64_t i = 0; i < s.n; i++) {
      const int64_t *c = s.found[i].crop;
      scores[i] = 1 / (float)((c[2] - c[0]) * (c[3] - c[1]));
    }
    suppress(p, &s, 0, scores, s.o.crop_nms);
  }
  if (s.o.min_area > 0 && s.n) clean(p, &s);
  return s;
}

int32_t sam_everything(nn_pass *p) {
  struct search s = search(p);
  int64_t n = s.n, runs = 0;
  float *boxes = nn_room(p, 4 * n), *crops = nn_room(p, 4 * n), *points = nn_room(p, 2 * n);
  float *iou = nn_room(p, n), *stability = nn_room(p, n);
  int64_t *areas = nn_bytes(p, n, sizeof *areas), *lengths = nn_bytes(p, n, sizeof *lengths);
  for (int64_t i = 0; i < n; i++) {
    const struct record *r = &s.found[i];
    for (int k = 0; k < 4; k++) {
      boxes[4 * i + k] = r->box[k] - (k > 1 ? r->box[k - 2] : 0);
      crops[4 * i + k] = (float)(r->crop[k] - (k > 1 ? r->crop[k - 2] : 0));
    }
    for (int k = 0; k < 2; k++) points[2 * i + k] = (float)r->point[k];
    iou[i] = r->iou;
    stability[i] = r->stability;
    areas[i] = nn_mask_runs_area(r->runs, r->n_runs);
    lengths[i] = r->n_runs;
    runs += r->n_runs;
  }
  int64_t *counts = nn_bytes(p, runs, sizeof *counts);
  runs = 0;
  for (int64_t i = 0; i < n; runs += s.found[i++].n_runs)
    memcpy(counts + runs, s.found[i].runs, (size_t)s.found[i].n_runs * sizeof *counts);
  nn_result(p, VIV_F32, boxes, NN_DIMS(n, 4), "boxes_xywh");
  nn_result(p, VIV_I64, areas, NN_DIMS(n), "areas");
  nn_result(p, VIV_F32, crops, NN_DIMS(n, 4), "crop_boxes_xywh");
  nn_result(p, VIV_F32, points, NN_DIMS(n, 2), "points");
  nn_result(p, VIV_F32, iou, NN_DIMS(n), "predicted_iou");
  nn_result(p, VIV_F32, stability, NN_DIMS(n), "stability_score");
  nn_result(p, VIV_I64, lengths, NN_DIMS(n), "rle_lengths");
  nn_result(p, VIV_I64, counts, NN_DIMS(runs), "rle_counts");
  return VIV_DONE;
}

void sam_show_everything(nn_pass *p) {
  struct search s = search(p);
  int64_t n = s.n, h = s.picture.height, w = s.picture.width;
  uint8_t *masks = nn_bytes(p, n * h * w, 1);
  float *scores = nn_room(p, n), *boxes = nn_room(p, 4 * n);
  for (int64_t i = 0; i < n; i++) {
    nn_mask_from_runs(s.found[i].runs, s.found[i].n_runs, h, w, masks + i * h * w);
    scores[i] = s.found[i].iou;
    memcpy(boxes + 4 * i, s.found[i].box, 4 * sizeof *boxes);
  }
  nn_result(p, VIV_U8, masks, NN_DIMS(n, h, w), "masks.0");
  nn_result(p, VIV_F32, scores, NN_DIMS(n), "scores.0");
  nn_result(p, VIV_F32, boxes, NN_DIMS(n, 4), "boxes.0");
}
