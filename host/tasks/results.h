/* What the tasks of pictures give, gathered from a job's events, and the forms that people want of it:
 * JSON, COCO's results format, a drawing. Internal to the host; any thread. */
#ifndef VIV_HOST_RESULTS_H
#define VIV_HOST_RESULTS_H

#include <cjson/cJSON.h>

#include "media/media.h"
#include "tasks/schema.h"

/* ---- names (results_names.c) ---- */

typedef struct viv__names {
  char **items; /* NULL entries have no name */
  int64_t n;
  char *source; /* the file that must name every class, NULL: none */
} viv__names;

/* What the numbers of a model mean. */
typedef struct viv__vocabulary {
  viv__names classes, predicates, keypoints;
  int32_t (*skeleton)[2]; /* [n_edges] pairs of keypoints */
  int64_t n_edges;
  int64_t *category_ids; /* [n_category_ids] COCO's id of each class; NULL: the class itself */
  int64_t n_category_ids;
} viv__vocabulary;

/* Names come from labels_path (one a line, a JSON list, or a JSON object from number to name), else
 * from describe's or the configuration's id2label; predicates, keypoints and skeleton from describe
 * ({"predicates": [..], "keypoints": [..], "skeleton": [[15, 13], ..], "category_ids": [..]}), else
 * COCO's 17 points. Any argument may be NULL. Errors: BAD_INPUT (the labels file, or a skeleton that
 * names points which are not there), NEVER (no file). */
int32_t viv__vocabulary_read(viv__vocabulary *v, const cJSON *describe, const cJSON *config,
                             const char *labels_path, viv_error *error);
void viv__vocabulary_free(viv__vocabulary *v);
/* The name of a number. Where there is none: NULL, or BAD_INPUT when a file promised to name all. */
int32_t viv__name_of(const viv__names *names, int64_t index, const char **out, viv_error *error);
int64_t viv__category_id(const viv__vocabulary *v, int64_t label);

/* ---- results (results.c) ---- */

typedef struct viv__picture_results {
  viv_tensor fields[VIV__N_FIELDS]; /* dtype 0: not there. data is owned */
  int64_t sizes[VIV__N_AXES];
} viv__picture_results;

typedef struct viv__results {
  const viv__task_schema *schema;
  viv__picture_results *pictures; /* [n]; tensors of the batch stand in the first */
  int64_t n;
  /* Masks are told as polygons that may miss them by so many pixels; NULL: as run lengths. */
  const double *polygons;
} viv__results;

/* Keeps a copy of an event's tensor when it is one of the task's results; ignores all else. Errors:
 * BUG when its type or shape is not the schema's, NOT_NOW. */
int32_t viv__results_take(viv__results *r, const viv_event *event, viv_error *error);
/* BUG when a result that the schema demands is missing for one of n pictures. */
int32_t viv__results_check(viv__results *r, int64_t n, viv_error *error);
void viv__results_free(viv__results *r);
/* NULL when picture i does not have that field. */
const viv_tensor *viv__result(const viv__results *r, int64_t i, int32_t field);
int64_t viv__result_count(const viv__results *r, int64_t i); /* instances of picture i */
/* 1 where the task gives no scores. */
double viv__result_score(const viv__results *r, int64_t i, int64_t instance);
int64_t viv__result_integer(const viv_tensor *t, int64_t at);
/* Row i of a tensor of the batch; sets *n to its length. */
const float *viv__result_row(const viv__results *r, int64_t i, int32_t field, int64_t *n);
/* The indices of the largest n of values, descending, equal ones by index. */
void viv__top(const float *values, int64_t n_values, int64_t *out, int64_t n);

/* ---- JSON (results_json.c) ---- */

/* Adds picture i's results to an object: "objects", "relations", "classes", "depth" or "embedding".
 * Instances below the threshold are left out. Errors: BAD_INPUT (a class without a name in the labels
 * file). */
int32_t viv__results_json(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, cJSON *into, viv_error *error);
/* Adds picture i's instances to an array in COCO's results format. NEVER: the task has no such form. */
int32_t viv__results_coco(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, int64_t image_id, cJSON *into, viv_error *error);
/* The shortest decimal that is this float again. */
cJSON *viv__float_json(float x);
/* COCO's run-length form of a mask [h, w]: {"size": [h, w], "counts": text}. */
cJSON *viv__mask_rle(const uint8_t *mask, int64_t h, int64_t w);

/* The outlines of a mask [h, w] along the edges of its pixels, each [x0, y0, x1, y1, ...], clockwise on
 * the screen, less corners that can be spared by missing the mask by `tolerance` pixels: added to
 * `outer`, and those of holes to `holes` (NULL: left out), counter-clockwise. Of tolerance 0 the even-odd
 * rule gives the mask back (results_outline.c). NOT_NOW: no memory. */
int32_t viv__mask_polygons(const uint8_t *mask, int64_t h, int64_t w, double tolerance,
                           cJSON *outer, cJSON *holes, viv_error *error);

/* ---- files (results_files.c) ---- */

bool viv__results_file_known(const char *path); /* by its end */
/* Writes picture i's result by the path's end: .png (depth as 16 bits from its least to its largest
 * value; masks and maps as numbers, 8 bits where they suffice), .pfm (depth), .npy (depth, masks, maps,
 * embeddings, probabilities, as they are). NEVER: the task has no such form. */
int32_t viv__results_file(const viv__results *r, int64_t i, const char *path, viv_error *error);

/* Appends picture i's depth as a binary PLY of points with the picture's colours: x right, y down, z
 * forward. intrinsics: fx, fy, cx, cy in pixels of the picture. inverse: the numbers are inverse depth
 * up to a scale; the nearest point comes to stand at z = 1, and what is 100 times as far is left out.
 * NEVER: the task gives no depth (results_points.c). */
int32_t viv__results_points(const viv__results *r, int64_t i, const viv__picture *picture,
                            const double intrinsics[4], bool inverse, viv__buf *out,
                            viv_error *error);

/* ---- drawing (results_draw.c) ---- */

/* Draws picture i's results over the picture (RGB bytes, changed in place; depth and class maps
 * replace it, with a scale). Errors: NEVER (no drawing library), NOT_NOW, BAD_INPUT. */
int32_t viv__results_draw(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, viv__picture *picture, viv_error *error);

/* A tensor as a file of NumPy's format, version 1.0, appended to out. F32, I32, I64, or bytes. */
void viv__npy_write(const viv_tensor *t, viv__buf *out);

#endif
