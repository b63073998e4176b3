/* COCO's files: annotations and results, checked reference by reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_coco.h"

enum { JOINT_NUMBERS = 3 * VIV__COCO_JOINTS };

/* An entry of a file, for messages: "annotations 12 (id 10)". */
struct entry {
  const char *where, *list;
  int64_t at;
  const cJSON *node;
};

static int32_t bad(const struct entry *e, viv_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int32_t bad(const struct entry *e, viv_error *error, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  const cJSON *id = cJSON_GetObjectItemCaseSensitive(e->node, "id");
  if (cJSON_IsNumber(id))
    return VIV_FAIL(error, VIV_BAD_INPUT, e->where, "%s %lld (id %.0f) %s", e->list,
                    (long long)e->at, id->valuedouble, text);
  return VIV_FAIL(error, VIV_BAD_INPUT, e->where, "%s %lld %s", e->list, (long long)e->at, text);
}

static int32_t whole(const struct entry *e, const char *key, int64_t *out, viv_error *error) {
  const cJSON *n = cJSON_GetObjectItemCaseSensitive(e->node, key);
  if (!cJSON_IsNumber(n) || fabs(n->valuedouble) > 9e15 || n->valuedouble != floor(n->valuedouble))
    return bad(e, error, "has no whole number \"%s\"", key);
  *out = (int64_t)n->valuedouble;
  return VIV_OK;
}

static int32_t numbers(const struct entry *e, const char *key, double *out, int n,
                       viv_error *error) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(e->node, key), *item;
  int have = cJSON_GetArraySize(list), at = 0;
  if (!cJSON_IsArray(list) || have != n)
    return bad(e, error, "needs %d numbers in \"%s\", has %d", n, key, have);
  cJSON_ArrayForEach(item, list) {
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
      return bad(e, error, "has something in \"%s\" that is no number", key);
    out[at++] = item->valuedouble;
  }
  return VIV_OK;
}

int64_t viv__coco_index(const int64_t *ids, int64_t n, int64_t id) {
  int64_t low = 0, high = n;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (ids[middle] < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < n && ids[low] == id ? low : -1;
}

/* ---- images and categories ---- */

struct named {
  int64_t id, at;
  const char *name;
};

static int by_id(const void *a, const void *b) {
  int64_t x = ((const struct named *)a)->id, y = ((const struct named *)b)->id;
  return x < y ? -1 : x > y;
}

/* A list of {"id", name_key} in ascending order of id, without repetition. */
static int32_t read_named(const cJSON *doc, const char *where, const char *list,
                          const char *name_key, int64_t **ids, char ***names, int64_t *n_out,
                          viv_error *error) {
  const cJSON *array = cJSON_GetObjectItemCaseSensitive(doc, list), *node;
  int64_t n = cJSON_GetArraySize(array), at = 0;
  int32_t status = VIV_OK;
  if (!cJSON_IsArray(array) || !n)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the file has no list \"%s\"", list);
  struct named *all = viv__need(viv__calloc((size_t)n, sizeof *all));
  cJSON_ArrayForEach(node, array) {
    struct entry e = {where, list, at, node};
    if (status >= 0) status = whole(&e, "id", &all[at].id, error);
    all[at].at = at;
    all[at++].name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(node, name_key));
  }
  qsort(all, (size_t)n, sizeof *all, by_id);
  for (int64_t i = 1; i < n && status >= 0; i++)
    if (all[i].id == all[i - 1].id)
      status = VIV_FAIL(error, VIV_BAD_INPUT, where, "%s %lld and %lld share the id %lld", list,
                        (long long)all[i - 1].at, (long long)all[i].at, (long long)all[i].id);
  if (status >= 0) {
    *ids = viv__need(viv__calloc((size_t)n, sizeof **ids));
    *names = viv__need(viv__calloc((size_t)n, sizeof **names));
    for (int64_t i = 0; i < n; i++) {
      (*ids)[i] = all[i].id;
      if (all[i].name) (*names)[i] = viv__need(viv__strdup(all[i].name));
    }
    *n_out = n;
  }
  viv__free(all);
  return status;
}

int32_t viv__coco_read_set(const cJSON *annotations, const char *where, viv__coco_set *s,
                           viv_error *error) {
  int32_t status = read_named(annotations, where, "images", "file_name", &s->images, &s->files,
                              &s->n_images, error);
  if (status >= 0)
    status = read_named(annotations, where, "categories", "name", &s->categories, &s->names,
                        &s->n_categories, error);
  return status;
}

/* ---- annotations and results ---- */

static int32_t reference(const struct entry *e, const char *key, const int64_t *ids, int64_t n,
                         const char *what, int64_t *out, viv_error *error) {
  int32_t status = whole(e, key, out, error);
  if (status >= 0 && viv__coco_index(ids, n, *out) < 0)
    return bad(e, error, "names the %s %lld, which the annotations do not hold", what,
               (long long)*out);
  return status;
}

static double *take_joints(viv__coco_set *s) {
  return s->joints + JOINT_NUMBERS * s->n_joints++;
}

static int32_t read_truth(viv__coco_set *s, const struct entry *e, viv__coco_truth *t,
                          viv_error *error) {
  int32_t status = reference(e, "image_id", s->images, s->n_images, "image", &t->image, error);
  if (status >= 0)
    status = reference(e, "category_id", s->categories, s->n_categories, "category", &t->category,
                       error);
  if (status >= 0) status = numbers(e, "bbox", t->box, 4, error);
  if (status < 0) return status;
  const cJSON *area = cJSON_GetObjectItemCaseSensitive(e->node, "area");
  const cJSON *crowd = cJSON_GetObjectItemCaseSensitive(e->node, "iscrowd");
  const cJSON *count = cJSON_GetObjectItemCaseSensitive(e->node, "num_keypoints");
  t->area = cJSON_IsNumber(area) ? area->valuedouble : t->box[2] * t->box[3];
  t->crowd = cJSON_IsTrue(crowd) || (cJSON_IsNumber(crowd) && crowd->valuedouble != 0);
  if (s->kind != VIV__COCO_KEYPOINTS) return VIV_OK;
  double *joints = take_joints(s);
  t->joints = joints;
  status = numbers(e, "keypoints", joints, JOINT_NUMBERS, error);
  for (int k = 0; k < VIV__COCO_JOINTS; k++) t->num_keypoints += joints[3 * k + 2] > 0;
  if (cJSON_IsNumber(count)) t->num_keypoints = (int32_t)count->valuedouble;
  return status;
}

static int32_t read_detection(viv__coco_set *s, const struct entry *e, viv__coco_detection *d,
                              viv_error *error) {
  int32_t status = reference(e, "image_id", s->images, s->n_images, "image", &d->image, error);
  if (status >= 0) status = whole(e, "category_id", &d->category, error);
  if (status < 0) return status;
  if (s->kind == VIV__COCO_BOXES) status = numbers(e, "bbox", d->box, 4, error);
  if (s->kind == VIV__COCO_KEYPOINTS) {
    double *joints = take_joints(s);
    d->joints = joints;
    status = numbers(e, "keypoints", joints, JOINT_NUMBERS, error);
  }
  const cJSON *score = cJSON_GetObjectItemCaseSensitive(e->node, "score");
  if (status >= 0 && !cJSON_IsNumber(score)) return bad(e, error, "has no \"score\"");
  if (status >= 0) d->score = score->valuedouble;
  return status;
}

int32_t viv__coco_read_entries(const cJSON *annotations, const char *where, const cJSON *results,
                               const char *results_where, viv__coco_set *s, viv_error *error) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(annotations, "annotations"), *node;
  int64_t n = cJSON_GetArraySize(list), m = cJSON_GetArraySize(results);
  int32_t status = VIV_OK;
  if (!cJSON_IsArray(list))
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the file has no list \"annotations\"");
  if (!cJSON_IsArray(results))
    return VIV_FAIL(error, VIV_BAD_INPUT, results_where,
                    "expected COCO's results: a list of objects");
  s->truths = viv__need(viv__calloc((size_t)n, sizeof *s->truths));
  s->detections = viv__need(viv__calloc((size_t)m, sizeof *s->detections));
  if (s->kind == VIV__COCO_KEYPOINTS)
    s->joints = viv__need(viv__calloc((size_t)(n + m), JOINT_NUMBERS * sizeof *s->joints));
  cJSON_ArrayForEach(node, list) {
    struct entry e = {where, "annotation", s->n_truths, node};
    status = read_truth(s, &e, &s->truths[s->n_truths++], error);
    if (status < 0) return status;
  }
  cJSON_ArrayForEach(node, results) {
    struct entry e = {results_where, "result", s->n_detections, node};
    status = read_detection(s, &e, &s->detections[s->n_detections++], error);
    if (status < 0) return status;
  }
  return VIV_OK;
}

void viv__coco_free(viv__coco_set *s) {
  for (int64_t i = 0; s->files && i < s->n_images; i++) viv__free(s->files[i]);
  for (int64_t i = 0; s->names && i < s->n_categories; i++) viv__free(s->names[i]);
  viv__free(s->files);
  viv__free(s->names);
  viv__free(s->images);
  viv__free(s->categories);
  viv__free(s->truths);
  viv__free(s->detections);
  viv__free(s->joints);
  memset(s, 0, sizeof *s);
}
