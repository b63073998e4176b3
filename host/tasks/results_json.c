/* Results as JSON for people and programs, and in COCO's results format. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/results.h"

enum { TOP_CLASSES = 5, TOP_CONCEPTS = 10 };

cJSON *viv__float_json(float x) {
  char text[32];
  for (int digits = 6; digits < 10; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, (double)x);
    if (strtof(text, NULL) == x) return cJSON_CreateNumber(strtod(text, NULL));
  }
  return cJSON_CreateNumber((double)x);
}

static void add_float(cJSON *to, const char *name, float x) {
  cJSON_AddItemToObject(to, name, viv__float_json(x));
}

/* [4] as corners, or as COCO's x, y, width, height. */
static void add_box(cJSON *to, const char *name, const float *b, bool coco) {
  cJSON *box = cJSON_AddArrayToObject(to, name);
  for (int c = 0; c < 4; c++)
    cJSON_AddItemToArray(box, viv__float_json(coco && c >= 2 ? b[c] - b[c - 2] : b[c]));
}

static const float *floats(const viv_tensor *t, int64_t at) {
  return (const float *)t->data + at;
}

/* "label" (where it has a name) and "class". */
static int32_t add_class(cJSON *to, const char *label, const char *number, const viv__names *names,
                         int64_t index, viv_error *error) {
  const char *name = NULL;
  int32_t status = viv__name_of(names, index, &name, error);
  if (name) cJSON_AddStringToObject(to, label, name);
  cJSON_AddNumberToObject(to, number, (double)index);
  return status;
}

/* ---- masks ---- */

/* COCO's text form: each count less the one two before it, in groups of five bits from 48 up. */
static void add_count(viv__buf *text, const int64_t *counts, size_t i) {
  int64_t x = counts[i] - (i > 2 ? counts[i - 2] : 0);
  for (bool more = true; more;) {
    int c = (int)(x & 31);
    x >>= 5;
    more = (c & 16) ? x != -1 : x != 0;
    char byte = (char)((more ? c | 32 : c) + 48);
    viv__buf_add(text, &byte, 1);
  }
}

/* The runs go down the columns and begin with one outside. */
cJSON *viv__mask_rle(const uint8_t *mask, int64_t h, int64_t w) {
  viv__buf counts = {0}, text = {0};
  int64_t run = 0;
  bool inside = false;
  for (int64_t x = 0; x < w; x++)
    for (int64_t y = 0; y < h; y++) {
      if ((mask[y * w + x] != 0) != inside) {
        viv__buf_add(&counts, &run, sizeof run);
        run = 0;
        inside = !inside;
      }
      run++;
    }
  viv__buf_add(&counts, &run, sizeof run);
  for (size_t i = 0; !counts.failed && i < counts.len / sizeof run; i++)
    add_count(&text, (const int64_t *)(const void *)counts.ptr, i);
  viv__buf_add(&text, "", 1);
  cJSON *rle = counts.failed || text.failed ? NULL : cJSON_CreateObject();
  cJSON *size = rle ? cJSON_AddArrayToObject(rle, "size") : NULL;
  if (size) {
    cJSON_AddItemToArray(size, cJSON_CreateNumber((double)h));
    cJSON_AddItemToArray(size, cJSON_CreateNumber((double)w));
    cJSON_AddStringToObject(rle, "counts", text.ptr);
  }
  viv__buf_free(&counts);
  viv__buf_free(&text);
  return rle;
}

/* The area and the tight box of a mask. */
static double mask_box(const uint8_t *mask, int64_t h, int64_t w, float box[4]) {
  int64_t left = w, top = h, right = -1, bottom = -1, area = 0;
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++) {
      if (!mask[y * w + x]) continue;
      area++;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  if (!area) left = top = 0;
  box[0] = (float)left;
  box[1] = (float)top;
  box[2] = (float)(right + 1);
  box[3] = (float)(bottom + 1);
  return (double)area;
}

/* ---- instances: detect, pose, segment ---- */

static void add_keypoints(const viv__results *r, int64_t i, int64_t n, const viv__vocabulary *v,
                          cJSON *to) {
  const viv_tensor *t = viv__result(r, i, VIV__KEYPOINTS);
  const viv_tensor *scores = viv__result(r, i, VIV__KEYPOINT_SCORES);
  cJSON *points = cJSON_AddArrayToObject(to, "keypoints");
  int64_t k = t->shape[1], each = t->shape[2];
  for (int64_t p = 0; p < k; p++) {
    const float *xy = floats(t, (n * k + p) * each);
    cJSON *point = cJSON_CreateObject();
    if (p < v->keypoints.n && v->keypoints.items[p])
      cJSON_AddStringToObject(point, "name", v->keypoints.items[p]);
    add_float(point, "x", xy[0]);
    add_float(point, "y", xy[1]);
    if (scores || each == 3) add_float(point, "score", scores ? *floats(scores, n * k + p) : xy[2]);
    cJSON_AddItemToArray(points, point);
  }
}

static int32_t add_instance(const viv__results *r, int64_t i, int64_t n, const viv__vocabulary *v,
                            cJSON *to, viv_error *error) {
  const viv_tensor *labels = viv__result(r, i, VIV__LABELS), *boxes = viv__result(r, i, VIV__BOXES);
  const viv_tensor *masks = viv__result(r, i, VIV__MASKS);
  int32_t status = VIV_OK;
  if (labels)
    status = add_class(to, "label", "class", &v->classes, viv__result_integer(labels, n), error);
  if (viv__result(r, i, VIV__SCORES)) add_float(to, "score", (float)viv__result_score(r, i, n));
  if (boxes) add_box(to, "box", floats(boxes, 4 * n), false);
  if (viv__result(r, i, VIV__KEYPOINTS)) add_keypoints(r, i, n, v, to);
  if (masks) {
    int64_t h = masks->shape[1], w = masks->shape[2];
    const uint8_t *mask = (const uint8_t *)masks->data + n * h * w;
    float box[4];
    double area = mask_box(mask, h, w, box);
    if (!boxes) add_box(to, "box", box, false);
    cJSON_AddNumberToObject(to, "area", area);
    if (r->polygons)
      return viv__mask_polygons(mask, h, w, *r->polygons, cJSON_AddArrayToObject(to, "polygons"),
                                cJSON_AddArrayToObject(to, "holes"), error);
    cJSON *rle = viv__mask_rle(mask, h, w);
    if (!rle) return VIV_FAIL(error, VIV_NOT_NOW, "masks", "no memory");
    cJSON_AddItemToObject(to, "mask", rle);
  }
  return status;
}

static int32_t add_instances(const viv__results *r, int64_t i, const viv__vocabulary *v,
                             double threshold, cJSON *into, viv_error *error) {
  cJSON *objects = cJSON_AddArrayToObject(into, "objects");
  int32_t status = VIV_OK;
  for (int64_t n = 0; n < viv__result_count(r, i) && status >= 0; n++) {
    if (!(viv__result_score(r, i, n) >= threshold)) continue;
    cJSON *object = cJSON_CreateObject();
    status = add_instance(r, i, n, v, object, error);
    cJSON_AddItemToArray(objects, object);
  }
  return status;
}

/* ---- the other tasks ---- */

static int32_t add_relations(const viv__results *r, int64_t i, const viv__vocabulary *v,
                             double threshold, cJSON *into, viv_error *error) {
  static const struct {
    const char *name;
    int32_t boxes, labels;
  } ends[] = {{"subject", VIV__SUBJECT_BOXES, VIV__SUBJECT_LABELS},
              {"object", VIV__OBJECT_BOXES, VIV__OBJECT_LABELS}};
  cJSON *list = cJSON_AddArrayToObject(into, "relations");
  int32_t status = VIV_OK;
  for (int64_t n = 0; n < viv__result_count(r, i) && status >= 0; n++) {
    if (!(viv__result_score(r, i, n) >= threshold)) continue;
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(list, one);
    for (int e = 0; e < 2 && status >= 0; e++) {
      cJSON *end = cJSON_AddObjectToObject(one, ends[e].name);
      status = add_class(end, "label", "class", &v->classes,
                         viv__result_integer(viv__result(r, i, ends[e].labels), n), error);
      add_box(end, "box", floats(viv__result(r, i, ends[e].boxes), 4 * n), false);
    }
    if (status >= 0)
      status = add_class(one, "predicate", "predicate_class", &v->predicates,
                         viv__result_integer(viv__result(r, i, VIV__PREDICATES), n), error);
    add_float(one, "score", (float)viv__result_score(r, i, n));
  }
  return status;
}

/* The share of the picture that each class of a map covers, by class. */
static int32_t add_map(const viv_tensor *map, const viv__vocabulary *v, cJSON *into,
                       viv_error *error) {
  enum { MAX_CLASSES = 4096 };
  int64_t n = map->shape[0] * map->shape[1], *counts = viv__calloc(MAX_CLASSES, sizeof *counts);
  int32_t status = counts ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "labels", "no memory");
  cJSON *classes = cJSON_AddArrayToObject(into, "classes");
  for (int64_t k = 0; k < n && status >= 0; k++) {
    int64_t label = viv__result_integer(map, k);
    if (label >= 0 && label < MAX_CLASSES) counts[label]++;
  }
  for (int64_t c = 0; c < MAX_CLASSES && status >= 0; c++) {
    if (!counts[c]) continue;
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(classes, one);
    status = add_class(one, "label", "class", &v->classes, c, error);
    cJSON_AddNumberToObject(one, "pixels", (double)counts[c]);
    add_float(one, "share", (float)((double)counts[c] / (double)n));
  }
  viv__free(counts);
  return status;
}

/* Depth or heat: its size and what its numbers are like. */
static void add_measured(const viv_tensor *depth, const char *name, cJSON *into) {
  int64_t n = depth->shape[0] * depth->shape[1], finite = 0;
  float low = 0, high = 0;
  double sum = 0;
  for (int64_t k = 0; k < n; k++) {
    float d = *floats(depth, k);
    if (!isfinite(d)) continue;
    if (!finite || d < low) low = d;
    if (!finite || d > high) high = d;
    sum += (double)d;
    finite++;
  }
  cJSON *to = cJSON_AddObjectToObject(into, name);
  cJSON_AddNumberToObject(to, "width", (double)depth->shape[1]);
  cJSON_AddNumberToObject(to, "height", (double)depth->shape[0]);
  add_float(to, "min", low);
  add_float(to, "max", high);
  add_float(to, "mean", finite ? (float)(sum / (double)finite) : 0);
}

static int32_t add_probabilities(const viv__results *r, int64_t i, const viv__vocabulary *v,
                                 double threshold, cJSON *into, viv_error *error) {
  int64_t n, top[TOP_CLASSES];
  const float *row = viv__result_row(r, i, VIV__PROBABILITIES, &n);
  int32_t status = VIV_OK;
  cJSON *classes = cJSON_AddArrayToObject(into, "classes");
  viv__top(row, n, top, TOP_CLASSES);
  for (int64_t k = 0; k < n && k < TOP_CLASSES && status >= 0; k++) {
    if (!((double)row[top[k]] >= threshold)) continue;
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(classes, one);
    status = add_class(one, "label", "class", &v->classes, top[k], error);
    add_float(one, "probability", row[top[k]]);
  }
  return status;
}

/* An explanation: the map's range, the curves that judge it, what concepts give to the class. */
static int32_t add_explanation(const viv__results *r, int64_t i, const viv_tensor *heat,
                               cJSON *into, viv_error *error) {
  static const char *const names[2] = {"deletion", "insertion"};
  const viv_tensor *curves = viv__result(r, i, VIV__CURVES), *areas = viv__result(r, i, VIV__AREAS);
  const viv_tensor *concepts = viv__result(r, i, VIV__CONCEPTS);
  add_measured(heat, "heat", into);
  for (int k = 0; curves && k < 2; k++) {
    cJSON *one = cJSON_AddObjectToObject(into, names[k]);
    if (areas) add_float(one, "area", *floats(areas, k));
    cJSON *list = cJSON_AddArrayToObject(one, "curve");
    for (int64_t at = 0; at < curves->shape[1]; at++)
      cJSON_AddItemToArray(list, viv__float_json(*floats(curves, k * curves->shape[1] + at)));
  }
  if (!concepts) return VIV_OK;
  int64_t n = concepts->shape[0], top[TOP_CONCEPTS];
  float *weight = viv__calloc((size_t)n + 1, sizeof *weight);
  if (!weight) return VIV_FAIL(error, VIV_NOT_NOW, "concepts", "no memory");
  for (int64_t k = 0; k < n; k++) weight[k] = fabsf(*floats(concepts, 2 * k + 1));
  viv__top(weight, n, top, TOP_CONCEPTS);
  viv__free(weight);
  cJSON *list = cJSON_AddArrayToObject(into, "concepts");
  for (int64_t k = 0; k < n && k < TOP_CONCEPTS; k++) {
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(list, one);
    cJSON_AddNumberToObject(one, "concept", (double)top[k]);
    add_float(one, "value", *floats(concepts, 2 * top[k]));
    add_float(one, "contribution", *floats(concepts, 2 * top[k] + 1));
  }
  return VIV_OK;
}

int32_t viv__results_json(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, cJSON *into, viv_error *error) {
  const viv_tensor *map = viv__result(r, i, VIV__LABEL_MAP), *depth = viv__result(r, i, VIV__DEPTH);
  const viv_tensor *heat = viv__result(r, i, VIV__HEAT);
  int64_t n;
  int32_t status = heat ? add_explanation(r, i, heat, into, error) : VIV_OK;
  if (status < 0) return status;
  if (heat && !viv__result(r, 0, VIV__PROBABILITIES)) return VIV_OK;
  if (viv__result(r, i, VIV__PREDICATES)) return add_relations(r, i, v, threshold, into, error);
  if (viv__result(r, 0, VIV__PROBABILITIES))
    return add_probabilities(r, i, v, threshold, into, error);
  if (viv__result(r, 0, VIV__EMBEDDINGS)) {
    const float *row = viv__result_row(r, i, VIV__EMBEDDINGS, &n);
    cJSON *list = cJSON_AddArrayToObject(into, "embedding");
    for (int64_t k = 0; k < n; k++) cJSON_AddItemToArray(list, viv__float_json(row[k]));
    return VIV_OK;
  }
  if (depth) add_measured(depth, "depth", into);
  if (depth) return VIV_OK;
  if (map) return add_map(map, v, into, error);
  return add_instances(r, i, v, threshold, into, error);
}

/* ---- COCO ---- */

static int32_t coco_instance(const viv__results *r, int64_t i, int64_t n, const viv__vocabulary *v,
                             cJSON *to, viv_error *error) {
  const viv_tensor *labels = viv__result(r, i, VIV__LABELS), *boxes = viv__result(r, i, VIV__BOXES);
  const viv_tensor *masks = viv__result(r, i, VIV__MASKS);
  const viv_tensor *points = viv__result(r, i, VIV__KEYPOINTS);
  const viv_tensor *scores = viv__result(r, i, VIV__KEYPOINT_SCORES);
  int64_t category = labels ? viv__category_id(v, viv__result_integer(labels, n)) : 1;
  cJSON_AddNumberToObject(to, "category_id", (double)category);
  if (boxes) add_box(to, "bbox", floats(boxes, 4 * n), true);
  if (points) {
    cJSON *list = cJSON_AddArrayToObject(to, "keypoints");
    int64_t k = points->shape[1], each = points->shape[2];
    for (int64_t p = 0; p < k; p++) {
      const float *xy = floats(points, (n * k + p) * each);
      float score = scores ? *floats(scores, n * k + p) : each == 3 ? xy[2] : 1;
      cJSON_AddItemToArray(list, viv__float_json(xy[0]));
      cJSON_AddItemToArray(list, viv__float_json(xy[1]));
      cJSON_AddItemToArray(list, viv__float_json(score));
    }
  }
  if (masks) {
    int64_t h = masks->shape[1], w = masks->shape[2];
    const uint8_t *mask = (const uint8_t *)masks->data + n * h * w;
    if (r->polygons) {
      int32_t status = viv__mask_polygons(mask, h, w, *r->polygons,
                                          cJSON_AddArrayToObject(to, "segmentation"), NULL, error);
      if (status < 0) return status;
    }
    cJSON *rle = r->polygons ? NULL : viv__mask_rle(mask, h, w);
    if (!rle && !r->polygons) return VIV_FAIL(error, VIV_NOT_NOW, "masks", "no memory");
    if (rle) cJSON_AddItemToObject(to, "segmentation", rle);
  }
  add_float(to, "score", (float)viv__result_score(r, i, n));
  return VIV_OK;
}

int32_t viv__results_coco(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, int64_t image_id, cJSON *into, viv_error *error) {
  int32_t status = VIV_OK;
  bool instances = viv__result(r, i, VIV__BOXES) || viv__result(r, i, VIV__KEYPOINTS) ||
                   viv__result(r, i, VIV__MASKS);
  if (r->n && !instances) /* no picture at all: a detector found nothing to run the model on */
    return VIV_FAIL(error, VIV_NEVER, "--format coco",
                    "COCO's results format holds boxes, keypoints and masks; %s gives none",
                    r->schema->name);
  for (int64_t n = 0; n < viv__result_count(r, i) && status >= 0; n++) {
    if (!(viv__result_score(r, i, n) >= threshold)) continue;
    cJSON *one = cJSON_CreateObject();
    cJSON_AddNumberToObject(one, "image_id", (double)image_id);
    status = coco_instance(r, i, n, v, one, error);
    cJSON_AddItemToArray(into, one);
  }
  return status;
}
