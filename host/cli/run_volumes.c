/* viv run on medical volumes (NIfTI): one job; each file is a channel, and the labels go back into the
 * place of the first in the patient. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/run.h"
#include "media/nifti.h"

enum { FILE_LIMIT = 1 << 30, MAX_CLASSES = 1 << 15 };

static bool ends_with(const char *path, const char *extension) {
  size_t a = strlen(path), b = strlen(extension);
  return a > b && !strcasecmp(path + a - b, extension);
}

static bool is_volume(const char *path) {
  return ends_with(path, ".nii") || ends_with(path, ".nii.gz");
}

bool viv__volumes_named(const char *const *args, int n) {
  for (int i = 0; i < n; i++)
    if (!is_volume(args[i])) return false;
  return n > 0;
}

/* ---- reading ---- */

static int32_t read_one(const char *path, viv__nifti *out, viv_error *error) {
  char *bytes = NULL;
  size_t len = 0;
  int32_t status = viv__read_file(path, FILE_LIMIT, &bytes, &len, error);
  if (status >= 0) status = viv__nifti_decode(bytes, len, path, 0, out, error);
  viv__free(bytes);
  return status;
}

/* The channels of all files side by side, [C, size]. like: the first file's place, without its data. */
static int32_t read_all(const char *const *args, int n, viv__nifti *like, viv_tensor *out,
                        viv_error *error) {
  float *data = NULL;
  int64_t channels = 0, space = 0;
  int32_t status = VIV_OK;
  for (int i = 0; i < n && status >= 0; i++) {
    viv__nifti v = {.channels = 0};
    status = read_one(args[i], &v, error);
    if (status >= 0 && i && memcmp(v.size, like->size, sizeof v.size))
      status =
          VIV_FAIL(error, VIV_BAD_INPUT, args[i],
                   "is %lld x %lld x %lld voxels, but %s is %lld x %lld x %lld: volumes of one "
                   "patient must lie on one grid",
                   (long long)v.size[0], (long long)v.size[1], (long long)v.size[2], args[0],
                   (long long)like->size[0], (long long)like->size[1], (long long)like->size[2]);
    if (status >= 0 && v.no_numbers)
      fprintf(stderr, "viv: %s: %lld voxels are no numbers, and count as 0\n", args[i],
              (long long)v.no_numbers);
    if (status >= 0) {
      space = v.size[0] * v.size[1] * v.size[2];
      data =
          viv__need(viv__realloc(data, (size_t)((channels + v.channels) * space) * sizeof *data));
      memcpy(data + channels * space, v.data, (size_t)(v.channels * space) * sizeof *data);
      channels += v.channels;
    }
    viv__free(v.data);
    v.data = NULL;
    if (status >= 0 && !i) *like = v;
  }
  *out = (viv_tensor){.struct_size = sizeof *out,
                      .data = data,
                      .bytes = (uint64_t)(channels * space) * sizeof *data,
                      .dtype = VIV_F32,
                      .ndim = 4,
                      .shape = {channels, like->size[0], like->size[1], like->size[2]}};
  return status;
}

/* ---- the job ---- */

struct gather {
  int32_t *labels;
  int64_t n; /* voxels; labels of another number are the plugin's mistake */
  bool wrong;
};

static void on_event(void *context, const viv_event *e) {
  struct gather *g = context;
  if (e->kind == VIV_KIND_PROGRESS) viv__progress_show("windows", e->progress);
  if (e->kind != VIV_KIND_TENSOR || !viv__str_eq(e->name, "labels")) return;
  uint64_t bytes = (uint64_t)g->n * sizeof *g->labels;
  if (e->tensor->dtype != VIV_I32 || e->tensor->bytes != bytes || g->labels) {
    g->wrong = true;
    return;
  }
  g->labels = viv__need(viv__malloc(bytes));
  memcpy(g->labels, e->tensor->data, bytes);
}

/* How many voxels and millilitres each class has. */
static void print_classes(const char *path, const viv__nifti *v, const struct gather *g,
                          const viv__vocabulary *words, bool json) {
  int64_t *count = viv__need(viv__calloc(MAX_CLASSES, sizeof *count));
  double ml = v->spacing[0] * v->spacing[1] * v->spacing[2] / 1000;
  cJSON *line = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(line, "file", path);
  double size[3] = {(double)v->size[0], (double)v->size[1], (double)v->size[2]};
  cJSON_AddItemToObject(line, "size", viv__need(cJSON_CreateDoubleArray(size, 3)));
  cJSON_AddItemToObject(line, "spacing", viv__need(cJSON_CreateDoubleArray(v->spacing, 3)));
  cJSON_AddStringToObject(line, "task", "segment3d");
  cJSON *classes = viv__need(cJSON_AddArrayToObject(line, "classes"));
  for (int64_t i = 0; i < g->n; i++)
    if (g->labels[i] >= 0 && g->labels[i] < MAX_CLASSES) count[g->labels[i]]++;
  if (!json)
    printf("%s  %.0f x %.0f x %.0f voxels of %.3g x %.3g x %.3g mm\n", path, size[0], size[1],
           size[2], v->spacing[0], v->spacing[1], v->spacing[2]);
  for (int64_t c = 0; c < MAX_CLASSES; c++) {
    if (!count[c]) continue;
    const char *name = NULL;
    viv__name_of(&words->classes, c, &name, NULL);
    cJSON *o = viv__need(cJSON_CreateObject());
    if (name) cJSON_AddStringToObject(o, "label", name);
    cJSON_AddNumberToObject(o, "class", (double)c);
    cJSON_AddNumberToObject(o, "voxels", (double)count[c]);
    cJSON_AddNumberToObject(o, "ml", (double)count[c] * ml);
    cJSON_AddItemToArray(classes, o);
    if (!json)
      printf("  %-20s %10lld voxels %10.2f ml\n",
             name ? name : viv__count_text((double)c, (char[32]){0}), (long long)count[c],
             (double)count[c] * ml);
  }
  viv__free(count);
  if (json)
    viv__print_json(line);
  else
    cJSON_Delete(line);
}

static int32_t write_labels(const char *path, const viv__nifti *like, const int32_t *labels,
                            viv_error *error) {
  viv__buf out = {0};
  int32_t status = viv__nifti_labels(like, labels, ends_with(path, ".gz"), &out, error);
  if (status >= 0) status = viv__write_file(path, out.ptr, out.len, error);
  viv__buf_free(&out);
  return status;
}

int viv__run_volumes(const viv__loaded *l, const char *task, const char *const *args, int n,
                     const viv__picture_run *o, cJSON *params) {
  viv_error error = VIV_ERROR_INIT;
  viv__nifti like = {.channels = 0};
  viv_tensor volume = {0};
  viv__vocabulary words = {0};
  viv__outcome outcome = {.status = VIV_OK};
  struct gather g = {0};
  int32_t status = VIV_OK;
  const char *what = args[0];
  if (task && strcmp(task, "segment3d"))
    status = VIV_FAIL(&error, VIV_BAD_INPUT, "--task", "volumes are segmented: segment3d");
  if (status >= 0 && o->out && !is_volume(o->out))
    status =
        VIV_FAIL(&error, VIV_BAD_INPUT, "--out", "\"%s\" should end with .nii or .nii.gz", o->out);
  if (status >= 0) status = viv__model_vocabulary(l, o->labels, &words, &error);
  if (status >= 0) status = read_all(args, n, &like, &volume, &error);
  if (status >= 0) {
    viv_value value = viv__value_tensor("volume", &volume);
    const viv_value *values[] = {&value};
    const char *wanted[] = {"labels"};
    g.n = like.size[0] * like.size[1] * like.size[2];
    cJSON_DeleteItemFromObjectCaseSensitive(params, "outputs");
    cJSON_AddItemToObject(params, "outputs", viv__need(cJSON_CreateStringArray(wanted, 1)));
    status = viv__job_run(l->model, "segment3d", params, values, 1, NULL, on_event, &g, &outcome);
    if (status < 0) error = outcome.error;
    viv__progress_clear();
  }
  if (status >= 0 && (!g.labels || g.wrong))
    status = VIV_FAIL(&error, VIV_BUG, "labels", "the model gave no label for each voxel");
  if (status >= 0 && o->out) status = write_labels(o->out, &like, g.labels, &error);
  int code = VIV__EXIT_OK;
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->json, what, status, &error);
  } else {
    print_classes(what, &like, &g, &words, o->json || !isatty(STDOUT_FILENO));
    if (o->verbose) fprintf(stderr, "%.2f s\n", outcome.seconds);
  }
  viv__outcome_free(&outcome);
  viv__vocabulary_free(&words);
  viv__free(g.labels);
  viv__free(volume.data);
  return code;
}
