/* viv eval --coco: average precision of boxes and keypoints. Internal to the eval*.c files. */
#ifndef VIV_HOST_CLI_EVAL_COCO_H
#define VIV_HOST_CLI_EVAL_COCO_H

#include "cli/run.h"
#include "tasks/coco.h"

/* An annotations file and results in COCO's format, read and cross-checked (eval_read.c). */
typedef struct viv__coco_set {
  int64_t *images; /* [n_images], ascending */
  char **files;    /* [n_images] names, NULL where the file gives none */
  int64_t n_images;
  int64_t *categories; /* [n_categories], ascending */
  char **names;        /* [n_categories] */
  int64_t n_categories;
  viv__coco_truth *truths;
  int64_t n_truths;
  viv__coco_detection *detections;
  int64_t n_detections;
  enum viv__coco_kind kind;
  double *joints; /* what truths and detections point to */
  int64_t n_joints;
} viv__coco_set;

/* Reads images and categories of the annotations. Errors: BAD_INPUT names the entry. */
int32_t viv__coco_read_set(const cJSON *annotations, const char *where, viv__coco_set *s,
                           viv_error *error);
/* Reads the annotations and results for s->kind. Every reference is checked. */
int32_t viv__coco_read_entries(const cJSON *annotations, const char *where, const cJSON *results,
                               const char *results_where, viv__coco_set *s, viv_error *error);
void viv__coco_free(viv__coco_set *s);
/* The index of an id, -1 when it is not there. */
int64_t viv__coco_index(const int64_t *ids, int64_t n, int64_t id);

typedef struct viv__eval_coco {
  const char *annotations, *results, *kind, *labels, *out, *task;
  bool json;
  int64_t limit;
  viv__detector_options detector;
} viv__eval_coco;
/* model and folder: NULL where --results gives what was found. */
int viv__eval_pictures(const viv__eval_coco *o, const char *model, const char *folder,
                       cJSON *params, const cJSON *load);

#endif
