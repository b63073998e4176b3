/* A detector before the model: what it finds becomes the parameters box_scores and boxes (corners) of
 * the model's task, the same that --box sets by hand. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/run.h"

enum { EVERY_CLASS = -1, NAMES_SHOWN = 8 };

struct viv__detector {
  viv__loaded loaded;
  const viv__task_schema *schema;
  viv__vocabulary words;
  cJSON *params;
  int64_t label; /* whose boxes count, or EVERY_CLASS */
  double threshold;
};

int viv__detector_usage(const char *verb, viv__detector_options *o, const cJSON *numbers) {
  o->threshold = cJSON_GetObjectItemCaseSensitive(numbers, "threshold");
  if (o->model || (!o->wanted && !o->threshold)) return -1;
  return viv__usage_error(verb, "%s says what --detector MODEL is to find, but there is none",
                          o->wanted ? "--detect" : "--detector-threshold");
}

bool viv__takes_prompt(const viv__loaded *l, const char *prompt) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model"), *one;
  cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(
                              own, "prompts")) if (cJSON_IsString(one) &&
                                                   !strcmp(one->valuestring, prompt)) return true;
  return false;
}

/* The number of the class that is wanted: by name, or a number as it is. */
static int32_t find_class(viv__detector *d, const char *wanted, const char *model,
                          viv_error *error) {
  const viv__names *names = &d->words.classes;
  char *end;
  if (isdigit((unsigned char)*wanted)) {
    long long number = strtoll(wanted, &end, 10);
    if (!*end && (!names->n || number < names->n)) {
      d->label = number;
      return VIV_OK;
    }
  }
  for (d->label = 0; d->label < names->n; d->label++)
    if (names->items[d->label] && !strcasecmp(names->items[d->label], wanted)) return VIV_OK;
  if (!names->n)
    return VIV_FAIL(error, VIV_BAD_INPUT, model,
                    "this detector has no names for its classes; say with --detect which number "
                    "\"%s\" has",
                    wanted);
  viv__buf known = {0};
  int64_t shown = 0;
  for (int64_t i = 0; i < names->n && shown < NAMES_SHOWN; i++)
    if (names->items[i]) viv__buf_fmt(&known, "%s%s", shown++ ? ", " : "", names->items[i]);
  VIV_FAIL(error, VIV_BAD_INPUT, model,
           "this detector knows no class \"%s\", but %s%s; name one with --detect", wanted,
           known.ptr ? known.ptr : "", names->n > shown ? ", ..." : "");
  viv__buf_free(&known);
  return error->code;
}

int32_t viv__detector_open(const viv__loaded *beside, const viv__task_schema *task,
                           const viv__detector_options *o, const cJSON *params, viv__detector **out,
                           viv_error *error) {
  static const char *const shared[] = {"exif_orientation", "max_pixels", "max_side"};
  *out = NULL;
  if (!o->model) return VIV_OK;
  if (!viv__takes_prompt(beside, "boxes"))
    return VIV_FAIL(error, VIV_NEVER, "--detector", "%s takes no boxes, so no detector helps it",
                    beside->path);
  if (cJSON_GetObjectItemCaseSensitive(params, "box") ||
      cJSON_GetObjectItemCaseSensitive(params, "boxes"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "--detector",
                    "boxes come from a detector or from --box, not from both");
  viv__detector *d = viv__need(viv__calloc(1, sizeof *d));
  d->params = viv__need(cJSON_CreateObject());
  for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
    const cJSON *same = cJSON_GetObjectItemCaseSensitive(params, shared[i]);
    if (same) cJSON_AddItemToObject(d->params, shared[i], viv__need(cJSON_Duplicate(same, 1)));
  }
  d->schema = viv__task_schema_find("detect");
  d->threshold = o->threshold ? o->threshold->valuedouble : d->schema->threshold;
  cJSON_AddNumberToObject(d->params, "threshold", d->threshold);
  int32_t status = viv__load_beside(beside, o->model, &d->loaded, error);
  if (status >= 0 && !viv__gives_task(&d->loaded, d->schema->name))
    status = VIV_FAIL(error, VIV_NEVER, o->model, "this model does not detect");
  if (status >= 0) status = viv__model_vocabulary(&d->loaded, NULL, &d->words, error);
  bool persons = !strcmp(task->name, "pose");
  d->label = EVERY_CLASS;
  if (status >= 0 && (o->wanted || persons))
    status = find_class(d, o->wanted ? o->wanted : "person", o->model, error);
  if (status < 0)
    viv__detector_close(d);
  else
    *out = d;
  return status;
}

void viv__detector_close(viv__detector *d) {
  if (!d) return;
  viv__vocabulary_free(&d->words);
  viv__unload_model(&d->loaded);
  cJSON_Delete(d->params);
  viv__free(d);
}

/* Adds the boxes that count to the model's parameters; answers how many. */
static int64_t add_boxes(const viv__detector *d, const viv__results *found, cJSON *params) {
  const viv_tensor *boxes = viv__result(found, 0, VIV__BOXES);
  const viv_tensor *labels = viv__result(found, 0, VIV__LABELS);
  cJSON *rows = viv__need(cJSON_AddArrayToObject(params, "boxes"));
  cJSON *scores = viv__need(cJSON_AddArrayToObject(params, "box_scores"));
  int64_t n = 0;
  for (int64_t i = 0; i < viv__result_count(found, 0); i++) {
    const float *b = (const float *)boxes->data + 4 * i;
    double score = viv__result_score(found, 0, i);
    bool wanted = d->label == EVERY_CLASS || viv__result_integer(labels, i) == d->label;
    bool whole = isfinite(b[0] + b[1] + b[2] + b[3]) && b[2] > b[0] && b[3] > b[1];
    if (!wanted || !whole || !(score >= d->threshold)) continue;
    cJSON_AddItemToArray(rows, viv__need(cJSON_CreateFloatArray(b, 4)));
    cJSON_AddItemToArray(scores, viv__need(cJSON_CreateNumber(score)));
    n++;
  }
  return n;
}

int32_t viv__detector_prompts(const viv__detector *d, const viv__picture_item *item, cJSON *params,
                              int64_t *n, double *seconds, viv_error *error) {
  viv__results found = {0};
  viv__outcome outcome = {0};
  int32_t status =
      viv__picture_job(&d->loaded, d->schema, NULL, d->params, item, &found, &outcome, error);
  *seconds = outcome.seconds;
  if (status >= 0) *n = add_boxes(d, &found, params);
  viv__outcome_free(&outcome);
  viv__results_free(&found);
  return status;
}
