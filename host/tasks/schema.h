/* The tasks of pictures: what each takes and gives, written once. docs/tasks.md is the same for
 * people. Internal to the host. */
#ifndef VIV_HOST_SCHEMA_H
#define VIV_HOST_SCHEMA_H

#include "base/base.h"

/* An axis of a result: a fixed size, or one of these. N, K, H and W must agree among the results of
 * one picture. */
enum viv__axis {
  VIV__AXIS_N = -1, /* instances */
  VIV__AXIS_K = -2, /* keypoints */
  VIV__AXIS_H = -3,
  VIV__AXIS_W = -4,
  VIV__AXIS_XY = -5,  /* 2: x, y, or 3: x, y, score */
  VIV__AXIS_ANY = -6, /* whatever the model has */
  VIV__N_AXES = 6
};

enum viv__field {
  VIV__BOXES,           /* F32 [N, 4] x1 y1 x2 y2 */
  VIV__SCORES,          /* F32 [N] */
  VIV__LABELS,          /* I32 or I64 [N] */
  VIV__KEYPOINTS,       /* F32 [N, K, 2 or 3] */
  VIV__KEYPOINT_SCORES, /* F32 [N, K] */
  VIV__SUBJECT_BOXES,
  VIV__OBJECT_BOXES,
  VIV__SUBJECT_LABELS,
  VIV__OBJECT_LABELS,
  VIV__PREDICATES,    /* I32 or I64 [N] */
  VIV__MASKS,         /* U8 or BOOL [N, H, W], not 0 is inside */
  VIV__LABEL_MAP,     /* "labels" of segment: I32, I64 or U8 [H, W] */
  VIV__DEPTH,         /* F32 [H, W] */
  VIV__PROBABILITIES, /* F32 [B, classes]: a row per picture */
  VIV__EMBEDDINGS,    /* F32 [B, d]: a row per picture */
  VIV__HEAT,          /* F32 [H, W] over the picture: how much each part decided */
  VIV__CURVES,        /* F32 [2, points]: the probability as the picture goes, and as it comes */
  VIV__AREAS,         /* F32 [2] under the two */
  VIV__CONCEPTS,      /* F32 [concepts, 2]: how much of it is there, what it gives to the class */
  VIV__N_FIELDS
};

typedef struct viv__field_schema {
  const char *name;
  int32_t field; /* enum viv__field */
  bool integer;  /* I32 or I64 (maps and masks: U8 too); else F32 */
  bool numbered; /* name.i for picture i; else one tensor for the batch */
  bool optional;
  int32_t ndim;
  int32_t shape[3];
} viv__field_schema;

enum { VIV__MAX_FIELDS = 8 };

/* What pictures make one job. */
enum viv__picture_form {
  VIV__ONE_PICTURE = 0,
  VIV__PAIR = 1,    /* two of one moment: left, right */
  VIV__SEQUENCE = 2 /* one, and the one before it where there is one */
};

typedef struct viv__task_schema {
  const char *name;
  double threshold;                          /* instances below it are not shown to a person */
  viv__field_schema fields[VIV__MAX_FIELDS]; /* ends with a NULL name */
  int32_t form;                              /* enum viv__picture_form */
  const char *inputs[2];                     /* names of the job's pictures; NULL: "image" */
} viv__task_schema;

/* The schema of a task, NULL when it is none of pictures. */
const viv__task_schema *viv__task_schema_find(const char *task);
/* The field that a result's name means, and the picture it belongs to (0 for batches); NULL when the
 * task has none of that name. Of names that two fields share, the one with that many axes. */
const viv__field_schema *viv__field_find(const viv__task_schema *schema, viv_str name, int32_t ndim,
                                         int64_t *picture);
/* BAD_INPUT when the tensor is not what the field wants. sizes: what N, K, H, W of this picture are so
 * far, 0 where unknown; filled as they become known. */
int32_t viv__field_check(const viv__field_schema *field, viv_str name, const viv_tensor *t,
                         int64_t sizes[VIV__N_AXES], viv_error *error);

/* ---- inputs ---- */

struct viv_job;
/* Decodes the job's IMAGE inputs in place: the plugin sees a U8 tensor [H, W, 3] of the same name.
 * Parameters of the job: exif_orientation (false), image_channels ("rgb", "rgba", "gray"),
 * image_dtype ("u8", "f32"), max_pixels, max_side. An AUDIO input becomes F32 [channels, samples] of
 * the same name (whole numbers divided by 2^(bits - 1), nothing resampled), and params.sampling_rate
 * is the file's: one that is given must agree; max_samples is the limit. In the tasks above a tensor that stands for the
 * input "image" is checked to be such a picture. Errors: BAD_INPUT, NEVER, NOT_NOW, each with the
 * input's name and number. [job] */
int32_t viv__decode_inputs(struct viv_job *job, viv_error *error);

#endif
