/* Names of classes, predicates and keypoints. */
#include <stdlib.h>
#include <string.h>

#include "tasks/results.h"

enum { LABELS_LIMIT = 16 << 20, MAX_NAMES = 1 << 20 };

static void names_free(viv__names *names) {
  for (int64_t i = 0; i < names->n; i++) viv__free(names->items[i]);
  viv__free(names->items);
  viv__free(names->source);
  memset(names, 0, sizeof *names);
}

static int32_t set_name(viv__names *names, int64_t index, const char *text, size_t len,
                        viv_error *error) {
  if (index < 0 || index >= MAX_NAMES)
    return VIV_FAIL(error, VIV_BAD_INPUT, "names", "class %lld is out of range", (long long)index);
  if (index >= names->n) {
    int64_t n = index + 1;
    char **items = viv__realloc(names->items, (size_t)n * sizeof *items);
    if (!items) return VIV_FAIL(error, VIV_NOT_NOW, "names", "no memory");
    memset(items + names->n, 0, (size_t)(n - names->n) * sizeof *items);
    names->items = items;
    names->n = n;
  }
  viv__free(names->items[index]);
  names->items[index] = viv__strndup(text, len);
  return names->items[index] ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "names", "no memory");
}

/* A list of texts, or an object from numbers to texts. Absent: nothing. */
static int32_t names_from_json(viv__names *names, const cJSON *json, const char *where,
                               viv_error *error) {
  const cJSON *item;
  int64_t at = 0;
  int32_t status = VIV_OK;
  cJSON_ArrayForEach(item, json) {
    char *end = NULL;
    int64_t index = cJSON_IsObject(json) ? strtoll(item->string, &end, 10) : at++;
    if (!cJSON_IsString(item) || (end && (end == item->string || *end)))
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "expected names: a list of texts, or an object from number to text");
    status = set_name(names, index, item->valuestring, strlen(item->valuestring), error);
    if (status < 0) return status;
  }
  return VIV_OK;
}

static int32_t names_from_lines(viv__names *names, const char *text, size_t len, const char *path,
                                viv_error *error) {
  int64_t index = 0;
  if (!viv__utf8_valid(text, len))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "the labels are not UTF-8 at byte %zu",
                    viv__utf8_whole(text, len));
  for (const char *line = text, *end = text + len; line < end;) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    if (!stop) stop = end;
    size_t n = (size_t)(stop - line);
    if (n && line[n - 1] == '\r') n--;
    int32_t status = set_name(names, index++, line, n, error);
    if (status < 0) return status;
    line = stop + 1;
  }
  return VIV_OK;
}

static int32_t names_from_file(viv__names *names, const char *path, viv_error *error) {
  char *text = NULL;
  size_t len = 0;
  int32_t status = viv__read_file(path, LABELS_LIMIT, &text, &len, error);
  if (status < 0) return status;
  if (!(names->source = viv__strdup(path)))
    status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  size_t blank = strspn(text, " \t\r\n");
  if (status >= 0 && (text[blank] == '[' || text[blank] == '{')) {
    viv_json *json = NULL;
    status = viv__json_parse(text, len, path, &json, error);
    if (status >= 0) status = names_from_json(names, (const cJSON *)json, path, error);
    viv__json_free(json);
  } else if (status >= 0) {
    status = names_from_lines(names, text, len, path, error);
  }
  viv__free(text);
  if (status >= 0 && !names->n)
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "the file names no class");
  return status;
}

/* ---- keypoints ---- */

static int32_t coco_keypoints(viv__vocabulary *v, viv_error *error) {
  static const char *const names[] = {
      "nose",           "left eye",   "right eye",   "left ear",   "right ear",   "left shoulder",
      "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist", "left hip",
      "right hip",      "left knee",  "right knee",  "left ankle", "right ankle"};
  static const int32_t edges[][2] = {
      {15, 13}, {13, 11}, {16, 14}, {14, 12}, {11, 12}, {5, 11}, {6, 12}, {5, 6}, {5, 7}, {6, 8},
      {7, 9},   {8, 10},  {1, 2},   {0, 1},   {0, 2},   {1, 3},  {2, 4},  {3, 5}, {4, 6}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    int32_t status = set_name(&v->keypoints, (int64_t)i, names[i], strlen(names[i]), error);
    if (status < 0) return status;
  }
  v->n_edges = sizeof edges / sizeof *edges;
  if (!(v->skeleton = viv__malloc(sizeof edges)))
    return VIV_FAIL(error, VIV_NOT_NOW, "skeleton", "no memory");
  memcpy(v->skeleton, edges, sizeof edges);
  return VIV_OK;
}

static int32_t read_skeleton(viv__vocabulary *v, const cJSON *json, viv_error *error) {
  const cJSON *edge;
  int n = cJSON_GetArraySize(json);
  if (!n) return VIV_OK;
  if (!(v->skeleton = viv__calloc((size_t)n, sizeof *v->skeleton)))
    return VIV_FAIL(error, VIV_NOT_NOW, "skeleton", "no memory");
  cJSON_ArrayForEach(edge, json) {
    for (int end = 0; end < 2; end++) {
      const cJSON *point = cJSON_GetArrayItem(edge, end);
      if (!cJSON_IsNumber(point) || point->valuedouble < 0 ||
          point->valuedouble >= (double)v->keypoints.n)
        return VIV_FAIL(error, VIV_BAD_INPUT, "skeleton",
                        "edge %lld is no pair of the %lld keypoints", (long long)v->n_edges,
                        (long long)v->keypoints.n);
      v->skeleton[v->n_edges][end] = (int32_t)point->valuedouble;
    }
    v->n_edges++;
  }
  return VIV_OK;
}

/* ---- COCO's numbers ---- */

static bool named(const viv__names *names, int64_t i, const char *text) {
  return i < names->n && names->items[i] && !strcmp(names->items[i], text);
}

/* COCO numbers its 80 classes with gaps. A model that numbers them without (first "person", last
 * "toothbrush") or that knows only persons is meant in COCO's numbers. */
static int32_t choose_categories(viv__vocabulary *v, const cJSON *list, viv_error *error) {
  static const uint8_t gaps[] = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83};
  const viv__names *c = &v->classes;
  int64_t n = cJSON_GetArraySize(list);
  bool contiguous = !n && c->n == 80 && named(c, 0, "person") && named(c, 79, "toothbrush");
  bool persons = !n && c->n == 1 && named(c, 0, "person");
  if (contiguous) n = 80;
  if (persons) n = 1;
  if (!n) return VIV_OK;
  if (!(v->category_ids = viv__calloc((size_t)n, sizeof *v->category_ids)))
    return VIV_FAIL(error, VIV_NOT_NOW, "category_ids", "no memory");
  v->n_category_ids = n;
  const cJSON *item = list ? list->child : NULL;
  int64_t id = 0;
  for (int64_t i = 0; i < n; i++) {
    for (id++; memchr(gaps, (int)id, sizeof gaps);) id++;
    v->category_ids[i] = item ? (int64_t)item->valuedouble : id;
    if (item) item = item->next;
  }
  return VIV_OK;
}

int32_t viv__vocabulary_read(viv__vocabulary *v, const cJSON *describe, const cJSON *config,
                             const char *labels_path, viv_error *error) {
  const cJSON *names = cJSON_GetObjectItemCaseSensitive(describe, "id2label");
  if (!names) names = cJSON_GetObjectItemCaseSensitive(config, "id2label");
  memset(v, 0, sizeof *v);
  int32_t status = labels_path ? names_from_file(&v->classes, labels_path, error)
                               : names_from_json(&v->classes, names, "id2label", error);
  /* Told before the first picture: the missing class may not come out until the thousandth. */
  if (status >= 0 && labels_path && v->classes.n < cJSON_GetArraySize(names))
    status = VIV_FAIL(error, VIV_BAD_INPUT, labels_path,
                      "the file names %lld classes, but the model has %d", (long long)v->classes.n,
                      cJSON_GetArraySize(names));
  if (status >= 0)
    status =
        names_from_json(&v->predicates, cJSON_GetObjectItemCaseSensitive(describe, "predicates"),
                        "predicates", error);
  const cJSON *points = cJSON_GetObjectItemCaseSensitive(describe, "keypoints");
  if (status >= 0 && points) {
    status = names_from_json(&v->keypoints, points, "keypoints", error);
    if (status >= 0)
      status = read_skeleton(v, cJSON_GetObjectItemCaseSensitive(describe, "skeleton"), error);
  } else if (status >= 0) {
    status = coco_keypoints(v, error);
  }
  if (status >= 0)
    status =
        choose_categories(v, cJSON_GetObjectItemCaseSensitive(describe, "category_ids"), error);
  if (status < 0) viv__vocabulary_free(v);
  return status;
}

void viv__vocabulary_free(viv__vocabulary *v) {
  names_free(&v->classes);
  names_free(&v->predicates);
  names_free(&v->keypoints);
  viv__free(v->skeleton);
  viv__free(v->category_ids);
  memset(v, 0, sizeof *v);
}

int32_t viv__name_of(const viv__names *names, int64_t index, const char **out, viv_error *error) {
  *out = index >= 0 && index < names->n ? names->items[index] : NULL;
  if (*out || !names->source) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, names->source,
                  "the file names %lld classes, but the model gave class %lld", (long long)names->n,
                  (long long)index);
}

int64_t viv__category_id(const viv__vocabulary *v, int64_t label) {
  if (label >= 0 && label < v->n_category_ids) return v->category_ids[label];
  return label;
}
