/* viv eval --coco: what a model finds in pictures against COCO-style annotations. */
#include <string.h>

#include "cli/eval_coco.h"

enum { JSON_LIMIT = 1 << 30 };

struct scoring {
  const viv__eval_coco *o;
  viv__coco_set set;
  cJSON *annotations, *results;
  const char *results_where;
  int64_t pictures, failed;
  double seconds, job_seconds; /* of running the model; 0: it was not run */
};

/* ---- running a model ---- */

/* Classes that are named as the annotations' categories are meant by their ids. */
static void match_categories(const viv__coco_set *s, viv__vocabulary *v) {
  int64_t n = v->classes.n;
  int64_t *ids = viv__need(viv__calloc((size_t)n, sizeof *ids));
  bool any = false;
  for (int64_t i = 0; i < n; i++) {
    ids[i] = viv__category_id(v, i);
    for (int64_t c = 0; v->classes.items[i] && c < s->n_categories; c++)
      if (s->names[c] && !strcmp(s->names[c], v->classes.items[i])) {
        ids[i] = s->categories[c];
        any = true;
      }
  }
  if (any) {
    viv__free(v->category_ids);
    v->category_ids = ids;
    v->n_category_ids = n;
  } else {
    viv__free(ids);
  }
}

static int32_t run_one(struct scoring *c, const viv__loaded *l, const viv__task_schema *schema,
                       const viv__detector *detector, const viv__vocabulary *v, const cJSON *params,
                       const char *path, int64_t image, viv_error *error) {
  viv__picture_item item = {.name = viv__need(viv__strdup(path))};
  viv__results results = {0};
  viv__outcome outcome = {0};
  int32_t status = viv__read_file(path, JSON_LIMIT, &item.bytes, &item.len, error);
  if (status >= 0)
    status = viv__picture_job(l, schema, detector, params, &item, &results, &outcome, error);
  c->job_seconds += outcome.seconds;
  if (status >= 0) status = viv__results_coco(&results, 0, v, -1e300, image, c->results, error);
  viv__outcome_free(&outcome);
  viv__results_free(&results);
  viv__item_free(&item);
  return status;
}

/* A picture that fails is reported and counts as one in which nothing was found. */
static int32_t run_pictures(struct scoring *c, const viv__loaded *l, const char *folder,
                            cJSON *params, viv_error *error) {
  const viv__coco_set *s = &c->set;
  const viv__task_schema *schema = viv__picture_task(l, c->o->task);
  viv__vocabulary v;
  if (!schema)
    return VIV_FAIL(error, VIV_NEVER, "--task", "the model has no task of pictures%s%s",
                    c->o->task ? " named " : "", c->o->task ? c->o->task : "");
  int32_t status = viv__model_vocabulary(l, c->o->labels, &v, error);
  if (status < 0) return status;
  match_categories(s, &v);
  viv__detector *detector;
  status = viv__detector_open(l, schema, &c->o->detector, params, &detector, error);
  if (status < 0) {
    viv__vocabulary_free(&v);
    return status;
  }
  uint64_t begun = viv__now_ns();
  int64_t n = c->o->limit && c->o->limit < s->n_images ? c->o->limit : s->n_images;
  for (int64_t i = 0; i < n && status != VIV_CANCELLED; i++) {
    viv_error why = VIV_ERROR_INIT;
    if (!s->files[i]) {
      status = VIV_FAIL(error, VIV_BAD_INPUT, c->o->annotations, "image %lld has no file_name",
                        (long long)s->images[i]);
      break;
    }
    char *path = viv__need(viv__path_join(folder, s->files[i]));
    viv__progress_show("evaluating", (double)i / (double)n);
    status = viv__interrupted()
                 ? VIV_CANCELLED
                 : run_one(c, l, schema, detector, &v, params, path, s->images[i], &why);
    if (status < 0 && status != VIV_CANCELLED) {
      c->failed++;
      viv__report(false, s->files[i], status, &why);
      status = VIV_OK;
    }
    c->pictures++;
    viv__free(path);
  }
  viv__progress_clear();
  c->seconds = (double)(viv__now_ns() - begun) * 1e-9;
  viv__detector_close(detector);
  viv__vocabulary_free(&v);
  return status;
}

static int32_t run_model(struct scoring *c, const char *model, const char *folder, cJSON *params,
                         const cJSON *load, viv_error *error) {
  viv__loaded l = {0};
  c->results = viv__need(cJSON_CreateArray());
  c->results_where = model;
  int32_t status = viv__load_model(model, load, &l, error);
  if (status >= 0) status = run_pictures(c, &l, folder, params, error);
  viv__unload_model(&l);
  if (status >= 0 && c->o->out) {
    char *text = viv__need(cJSON_PrintUnformatted(c->results));
    status = viv__write_file(c->o->out, text, strlen(text), error);
    cJSON_free(text);
  }
  return status;
}

/* ---- the numbers ---- */

static const char *const box_names[VIV__COCO_STATS] = {
    "AP",   "AP50",  "AP75",   "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"};
static const char *const keypoint_names[VIV__COCO_STATS] = {
    "AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"};

static const char *const *stat_names(const struct scoring *c) {
  return c->set.kind == VIV__COCO_BOXES ? box_names : keypoint_names;
}

static void print_stats(const struct scoring *c, const viv__coco_result *r) {
  printf("%s: %lld pictures, %lld annotations, %lld results\n",
         c->set.kind == VIV__COCO_BOXES ? "boxes" : "keypoints", (long long)c->set.n_images,
         (long long)c->set.n_truths, (long long)c->set.n_detections);
  for (int i = 0; i < r->n_stats; i++) {
    if (r->stats[i] < 0)
      printf("%-12s none\n", stat_names(c)[i]);
    else
      printf("%-12s %.4f\n", stat_names(c)[i], r->stats[i]);
  }
  if (c->pictures)
    printf("%lld pictures in %.2f s: %.2f a second, %.1f ms a job\n", (long long)c->pictures,
           c->seconds, (double)c->pictures / c->seconds,
           c->job_seconds / (double)c->pictures * 1e3);
  if (c->failed) printf("%lld pictures failed\n", (long long)c->failed);
}

static void print_stats_json(const struct scoring *c, const viv__coco_result *r) {
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(doc, "kind", c->set.kind == VIV__COCO_BOXES ? "boxes" : "keypoints");
  cJSON_AddNumberToObject(doc, "images", (double)c->set.n_images);
  cJSON_AddNumberToObject(doc, "annotations", (double)c->set.n_truths);
  cJSON_AddNumberToObject(doc, "results", (double)c->set.n_detections);
  for (int i = 0; i < r->n_stats; i++) {
    if (r->stats[i] < 0)
      cJSON_AddNullToObject(doc, stat_names(c)[i]);
    else
      cJSON_AddNumberToObject(doc, stat_names(c)[i], r->stats[i]);
  }
  cJSON *ap = cJSON_AddArrayToObject(doc, "AP_per_threshold");
  for (int i = 0; i < VIV__COCO_THRESHOLDS; i++)
    cJSON_AddItemToArray(ap, cJSON_CreateNumber(r->ap[i]));
  if (c->pictures) {
    cJSON_AddNumberToObject(doc, "pictures", (double)c->pictures);
    cJSON_AddNumberToObject(doc, "failed", (double)c->failed);
    cJSON_AddNumberToObject(doc, "seconds", c->seconds);
    cJSON_AddNumberToObject(doc, "pictures_per_second", (double)c->pictures / c->seconds);
  }
  viv__print_json(doc);
}

/* Named, or what the first result holds. */
static int32_t choose_kind(struct scoring *c, viv_error *error) {
  const char *kind = c->o->kind;
  const cJSON *first = c->results ? c->results->child : NULL;
  bool points = cJSON_GetObjectItemCaseSensitive(first, "keypoints") != NULL;
  if (kind && strcmp(kind, "boxes") && strcmp(kind, "keypoints"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "--kind", "\"%s\" is neither boxes nor keypoints", kind);
  if (kind) points = !strcmp(kind, "keypoints");
  c->set.kind = points ? VIV__COCO_KEYPOINTS : VIV__COCO_BOXES;
  return VIV_OK;
}

static int32_t score(struct scoring *c, viv_error *error) {
  viv__coco_set *s = &c->set;
  viv__coco_result result = {0};
  int32_t status = choose_kind(c, error);
  if (status >= 0)
    status = viv__coco_read_entries(c->annotations, c->o->annotations, c->results, c->results_where,
                                    s, error);
  viv__coco_input in = {.kind = s->kind,
                        .truths = s->truths,
                        .detections = s->detections,
                        .categories = s->categories,
                        .n_truths = s->n_truths,
                        .n_detections = s->n_detections,
                        .n_categories = s->n_categories};
  if (status >= 0) status = viv__coco_evaluate(&in, &result, NULL, error);
  if (status < 0) return status;
  if (c->o->json)
    print_stats_json(c, &result);
  else
    print_stats(c, &result);
  return VIV_OK;
}

int viv__eval_pictures(const viv__eval_coco *o, const char *model, const char *folder,
                       cJSON *params, const cJSON *load) {
  viv_error error = VIV_ERROR_INIT;
  struct scoring c = {.o = o, .results_where = o->results};
  int code = VIV__EXIT_OK;
  int32_t status;
  c.annotations = viv__parse_json_file(o->annotations, JSON_LIMIT, &error);
  status = c.annotations ? VIV_OK : error.code;
  if (status >= 0) status = viv__coco_read_set(c.annotations, o->annotations, &c.set, &error);
  if (status >= 0 && o->results) {
    c.results = viv__parse_json_file(o->results, JSON_LIMIT, &error);
    if (!c.results) status = error.code;
  } else if (status >= 0) {
    status = run_model(&c, model, folder, params, load, &error);
  }
  if (status >= 0) status = score(&c, &error);
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled after %lld pictures\n", (long long)c.pictures);
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->json, NULL, status, &error);
  } else if (c.failed) {
    code = c.failed > 89 ? 99 : 10 + (int)c.failed;
  }
  viv__coco_free(&c.set);
  cJSON_Delete(c.annotations);
  cJSON_Delete(c.results);
  return code;
}
