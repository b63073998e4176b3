/* The tasks of pictures as tables; decoding of pictures and recordings that come in as files. */
#include "tasks/schema.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "core/core.h"
#include "media/media.h"
#include "media/sound.h"

#define N VIV__AXIS_N
#define K VIV__AXIS_K
#define H VIV__AXIS_H
#define W VIV__AXIS_W
#define ANY VIV__AXIS_ANY
/* name, field, integer, numbered, optional, ndim, shape */
#define BOXES(name, field, optional)                                                               \
  {                                                                                                \
    name, field, false, true, optional, 2, {                                                       \
      N, 4                                                                                         \
    }                                                                                              \
  }
#define SCORES                                                                                     \
  {                                                                                                \
    "scores", VIV__SCORES, false, true, false, 1, {                                                \
      N                                                                                            \
    }                                                                                              \
  }
#define DEPTH                                                                                      \
  {                                                                                                \
    "depth", VIV__DEPTH, false, true, false, 2, {                                                  \
      H, W                                                                                         \
    }                                                                                              \
  }
#define CLASSES(name, field, optional)                                                             \
  {                                                                                                \
    name, field, true, true, optional, 1, {                                                        \
      N                                                                                            \
    }                                                                                              \
  }

static const viv__task_schema schemas[] = {
    {.name = "detect",
     .threshold = 0.5,
     .fields = {BOXES("boxes", VIV__BOXES, false), SCORES, CLASSES("labels", VIV__LABELS, false)}},
    {.name = "pose",
     .threshold = 0.3,
     .fields = {{"keypoints", VIV__KEYPOINTS, false, true, false, 3, {N, K, VIV__AXIS_XY}},
                {"keypoint_scores", VIV__KEYPOINT_SCORES, false, true, true, 2, {N, K}},
                SCORES,
                BOXES("boxes", VIV__BOXES, true),
                CLASSES("labels", VIV__LABELS, true)}},
    {.name = "relations",
     .fields = {BOXES("subject_boxes", VIV__SUBJECT_BOXES, false),
                BOXES("object_boxes", VIV__OBJECT_BOXES, false),
                CLASSES("subject_labels", VIV__SUBJECT_LABELS, false),
                CLASSES("object_labels", VIV__OBJECT_LABELS, false),
                CLASSES("predicates", VIV__PREDICATES, false), SCORES}},
    {.name = "segment",
     .threshold = 0.5,
     .fields = {{"masks", VIV__MASKS, true, true, true, 3, {N, H, W}},
                {"scores", VIV__SCORES, false, true, true, 1, {N}},
                BOXES("boxes", VIV__BOXES, true),
                CLASSES("labels", VIV__LABELS, true),
                {"labels", VIV__LABEL_MAP, true, true, true, 2, {H, W}}}},
    {.name = "depth", .fields = {DEPTH}},
    {.name = "stereo_depth", .fields = {DEPTH}, .form = VIV__PAIR, .inputs = {"left", "right"}},
    {.name = "video_depth",
     .fields = {DEPTH},
     .form = VIV__SEQUENCE,
     .inputs = {"frame_0", "frame_-1"}},
    {.name = "classify",
     .fields = {{"probabilities", VIV__PROBABILITIES, false, false, false, 2, {ANY, ANY}}}},
    {.name = "explain",
     .fields = {{"heat", VIV__HEAT, false, true, false, 2, {H, W}},
                {"curves", VIV__CURVES, false, true, true, 2, {2, ANY}},
                {"areas", VIV__AREAS, false, true, true, 1, {2}},
                {"concepts", VIV__CONCEPTS, false, true, true, 2, {ANY, 2}},
                {"probabilities", VIV__PROBABILITIES, false, false, true, 2, {ANY, ANY}}}},
    {.name = "embed",
     .fields = {{"embeddings", VIV__EMBEDDINGS, false, false, false, 2, {ANY, ANY}}}},
};

const viv__task_schema *viv__task_schema_find(const char *task) {
  for (size_t i = 0; task && i < sizeof schemas / sizeof *schemas; i++)
    if (!strcmp(schemas[i].name, task)) return &schemas[i];
  return NULL;
}

/* The number after the dot; -1 where none stands. */
static int64_t picture_number(viv_str digits) {
  int64_t n = 0;
  if (!digits.len || digits.len > 6) return -1;
  for (uint64_t i = 0; i < digits.len; i++) {
    if (digits.ptr[i] < '0' || digits.ptr[i] > '9') return -1;
    n = n * 10 + (digits.ptr[i] - '0');
  }
  return n;
}

const viv__field_schema *viv__field_find(const viv__task_schema *schema, viv_str name, int32_t ndim,
                                         int64_t *picture) {
  const viv__field_schema *found = NULL;
  for (const viv__field_schema *f = schema->fields; f->name; f++) {
    size_t len = strlen(f->name);
    if (name.len < len || memcmp(name.ptr, f->name, len)) continue;
    int64_t number = 0;
    if (f->numbered) {
      if (name.len < len + 2 || name.ptr[len] != '.') continue;
      number = picture_number((viv_str){name.ptr + len + 1, name.len - len - 1});
    } else if (name.len != len) {
      continue;
    }
    if (number < 0) continue;
    if (!found || f->ndim == ndim) {
      found = f;
      *picture = number;
    }
  }
  return found;
}

static bool right_dtype(const viv__field_schema *f, int32_t dtype) {
  if (!f->integer) return dtype == VIV_F32;
  bool bytes = f->field == VIV__MASKS || f->field == VIV__LABEL_MAP;
  return dtype == VIV_I32 || dtype == VIV_I64 || (bytes && (dtype == VIV_U8 || dtype == VIV_BOOL));
}

int32_t viv__field_check(const viv__field_schema *f, viv_str name, const viv_tensor *t,
                         int64_t sizes[VIV__N_AXES], viv_error *error) {
  char where[96];
  snprintf(where, sizeof where, "%.*s", (int)(name.len < 90 ? name.len : 90), name.ptr);
  if (!right_dtype(f, t->dtype))
    return VIV_FAIL(error, VIV_BUG, where, "the model's result is %s, expected %s",
                    viv__dtype_name(t->dtype), f->integer ? "I32 or I64" : "F32");
  if (t->ndim != f->ndim)
    return VIV_FAIL(error, VIV_BUG, where, "the model's result has %d axes, expected %d", t->ndim,
                    f->ndim);
  for (int32_t i = 0; i < t->ndim; i++) {
    int64_t have = t->shape[i], *known = f->shape[i] < 0 ? &sizes[-1 - f->shape[i]] : NULL;
    bool good = true;
    if (f->shape[i] > 0)
      good = have == f->shape[i];
    else if (f->shape[i] == VIV__AXIS_XY)
      good = have == 2 || have == 3;
    else if (f->shape[i] != VIV__AXIS_ANY)
      good = *known == have + 1 || !*known;
    if (!good)
      return VIV_FAIL(error, VIV_BUG, where,
                      "axis %d of the model's result has the size %lld, which does not go with "
                      "its other results",
                      i, (long long)have);
    if (known) *known = have + 1; /* 0 is unknown, so sizes are kept one larger */
  }
  return VIV_OK;
}

/* ---- inputs ---- */

static int32_t read_options(const viv_json *params, viv__picture_options *o, viv_error *error) {
  const char *channels = viv__json_text(params, "image_channels", "rgb");
  const char *dtype = viv__json_text(params, "image_dtype", "u8");
  o->channels = !strcmp(channels, "rgb") ? 3 : !strcmp(channels, "rgba") ? 4 : 1;
  if (o->channels == 1 && strcmp(channels, "gray"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.image_channels",
                    "\"%s\" is none of rgb, rgba, gray", channels);
  o->f32 = !strcmp(dtype, "f32");
  if (!o->f32 && strcmp(dtype, "u8"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.image_dtype", "\"%s\" is neither u8 nor f32",
                    dtype);
  o->orient = viv__json_bool(params, "exif_orientation", false);
  static const char *const limits[] = {"max_pixels", "max_side"};
  int64_t *const targets[] = {&o->max_pixels, &o->max_side};
  for (int i = 0; i < 2; i++) {
    double limit = viv__json_num(params, limits[i], 0);
    if (limit < 0 || limit > 1e15)
      return VIV_FAIL(error, VIV_BAD_INPUT, limits[i], "%g is no limit", limit);
    *targets[i] = (int64_t)limit;
  }
  return VIV_OK;
}

static int32_t decode_input(viv_job *job, viv_value *in, const char *where,
                            const viv__picture_options *o, viv_error *error) {
  viv__picture p;
  int32_t status = viv__picture_decode(in->bytes.ptr, in->bytes.len, where, o, &p, error);
  if (status < 0) return status;
  if (p.animated)
    viv__logf(&job->rt->log, VIV_LOG_WARN, "%s: the %s is animated; its first frame is taken",
              where, p.format);
  viv_tensor *t = viv__arena_alloc(job->arena, sizeof *t);
  if (!t) return VIV_FAIL(error, VIV_NOT_NOW, where, "no memory");
  *t = (viv_tensor){.struct_size = sizeof *t,
                    .flags = VIV_TENSOR_READ_ONLY,
                    .data = p.data,
                    .dtype = p.f32 ? VIV_F32 : VIV_U8,
                    .ndim = 3,
                    .shape = {p.height, p.width, p.channels}};
  t->bytes = (uint64_t)p.height * (uint64_t)p.width * (uint64_t)p.channels * (p.f32 ? 4 : 1);
  in->kind = VIV_KIND_TENSOR;
  in->tensor = t;
  in->bytes = (viv_str){NULL, 0};
  return VIV_OK;
}

/* The plugin reads the file's rate in params.sampling_rate, where a caller of tensors gives it. */
static int32_t put_rate(viv_job *job, const char *where, int32_t rate, viv_error *error) {
  static const char key[] = "sampling_rate";
  if (viv__json_get(job->params, key)) {
    double given = viv__json_num(job->params, key, 0);
    if (given == (double)rate) return VIV_OK;
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the recording has %d samples a second, but params.sampling_rate or another "
                    "recording of the job says %g",
                    rate, given);
  }
  if (!job->params) job->params = (viv_json *)cJSON_CreateObject();
  if (!job->params || !cJSON_AddNumberToObject((cJSON *)job->params, key, rate))
    return VIV_FAIL(error, VIV_NOT_NOW, where, "no memory");
  job->request.params = job->params;
  return VIV_OK;
}

static int32_t decode_sound(viv_job *job, viv_value *in, const char *where, viv_error *error) {
  viv__sound_options o = {.arena = job->arena};
  double limit = viv__json_num(job->params, "max_samples", 0);
  if (limit < 0 || limit > 1e15)
    return VIV_FAIL(error, VIV_BAD_INPUT, "max_samples", "%g is no limit", limit);
  o.max_samples = (int64_t)limit;
  viv__sound s;
  int32_t status = viv__sound_decode(in->bytes.ptr, in->bytes.len, where, &o, &s, error);
  if (status >= 0) status = put_rate(job, where, s.rate, error);
  if (status < 0) return status;
  viv_tensor *t = viv__arena_alloc(job->arena, sizeof *t);
  if (!t) return VIV_FAIL(error, VIV_NOT_NOW, where, "no memory");
  *t = (viv_tensor){.struct_size = sizeof *t,
                    .flags = VIV_TENSOR_READ_ONLY,
                    .data = s.data,
                    .bytes = (uint64_t)s.channels * (uint64_t)s.frames * sizeof *s.data,
                    .dtype = VIV_F32,
                    .ndim = 2,
                    .shape = {s.channels, s.frames}};
  in->kind = VIV_KIND_TENSOR;
  in->tensor = t;
  in->bytes = (viv_str){NULL, 0};
  return VIV_OK;
}

static int32_t check_picture(const viv_tensor *t, const char *where, viv_error *error) {
  bool good =
      t->dtype == VIV_U8 && t->ndim == 3 && t->shape[0] > 0 && t->shape[1] > 0 && t->shape[2] == 3;
  if (good) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, where,
                  "a tensor that stands for a picture is U8 [height, width, 3], not empty; this "
                  "one is %s with %d axes",
                  viv__dtype_name(t->dtype), t->ndim);
}

int32_t viv__decode_inputs(viv_job *job, viv_error *error) {
  const viv__task_schema *schema = viv__task_schema_find(job->task);
  viv__picture_options o = {.arena = job->arena};
  int32_t n_images = 0, status = VIV_OK;
  bool ready = false;
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    n_images += viv__str_eq(job->inputs[i]->name, "image");
  for (int32_t i = 0, nth = 0; i < job->request.n_inputs && status >= 0; i++) {
    const viv_value *in = job->inputs[i];
    bool image = viv__str_eq(in->name, "image");
    char where[128];
    if (image && n_images > 1)
      snprintf(where, sizeof where, "image %d of %d", ++nth, n_images);
    else
      snprintf(where, sizeof where, "%.*s", (int)(in->name.len < 100 ? in->name.len : 100),
               in->name.ptr);
    if (in->kind == VIV_KIND_IMAGE) {
      if (!ready) status = read_options(job->params, &o, error);
      ready = true;
      /* The job's inputs are its own copies; only the request calls them const. */
      if (status >= 0) status = decode_input(job, (viv_value *)(uintptr_t)in, where, &o, error);
    } else if (in->kind == VIV_KIND_AUDIO) {
      status = decode_sound(job, (viv_value *)(uintptr_t)in, where, error);
    } else if (schema && image && in->kind == VIV_KIND_TENSOR) {
      status = check_picture(in->tensor, where, error);
    }
  }
  return status;
}
