/* All tasks of pictures, by colour: the red, green and blue things of a picture are its objects. So a
 * test that paints a red rectangle knows the box, mask and scores that must come out.
 *
 * A pixel is of colour c when its channel c is at least 60 above both others. The class of an object
 * is c, its box is tight around its pixels, its score is the share of the box that they fill. The
 * pose of an object is COCO's 17 points laid into its box, or into those of the parameters box and
 * boxes (with box_scores); the first object relates to each other
 * one; depth is the green channel / 255; probabilities and embeddings are the mean R, G, B. */
#define BEGIN picture_begin
#define STEP picture_step
#define DESCRIBE picture_describe
#include "../common.h"

static inline int32_t picture_begin(viv_plugin_model *model, const viv_plugin_request *request,
                                    viv_job *job, viv_plugin_job **out, viv_error *error);
static inline int32_t picture_step(viv_plugin_job *base, viv_error *error);

static inline viv_str picture_describe(const viv_plugin_model *model) {
  (void)model;
  return STR(
      "{\"tasks\":{\"detect\":{\"inputs\":{\"image\":\"image\"}},\"pose\":{},\"relations\":{},"
      "\"segment\":{},\"depth\":{},\"classify\":{},\"embed\":{}},"
      "\"prompts\":[\"box\",\"boxes\"],\"predicates\":[\"none\",\"left of\",\"right of\"]}");
}

enum { COLOURS = 3, JOINTS = 17, MAX_EVENTS = 4096, MARGIN = 60 };

struct result {
  char name[32];
  viv_tensor tensor;
};

struct picture_job {
  viv_plugin_job base;
  struct result *results;
  int64_t n;
};

/* The objects of one picture. */
struct objects {
  int32_t n;
  int64_t labels[COLOURS];
  float boxes[COLOURS][4], scores[COLOURS];
};

static int colour_of(const uint8_t *p) {
  for (int c = 0; c < COLOURS; c++)
    if (p[c] >= p[(c + 1) % 3] + MARGIN && p[c] >= p[(c + 2) % 3] + MARGIN) return c;
  return -1;
}

static void find_objects(const viv_tensor *image, struct objects *o) {
  int64_t h = image->shape[0], w = image->shape[1], box[COLOURS][4], count[COLOURS] = {0};
  const uint8_t *p = image->data;
  for (int64_t y = 0; y < h; y++)
    for (int64_t x = 0; x < w; x++, p += 3) {
      int c = colour_of(p);
      if (c < 0) continue;
      int64_t *b = box[c];
      if (!count[c]++) {
        b[0] = b[2] = x;
        b[1] = b[3] = y;
      }
      if (x < b[0]) b[0] = x;
      if (x > b[2]) b[2] = x;
      b[3] = y;
    }
  o->n = 0;
  for (int c = 0; c < COLOURS; c++) {
    if (!count[c]) continue;
    int64_t *b = box[c], area = (b[2] + 1 - b[0]) * (b[3] + 1 - b[1]);
    o->labels[o->n] = c;
    for (int i = 0; i < 4; i++) o->boxes[o->n][i] = (float)(b[i] + (i >= 2));
    o->scores[o->n++] = (float)count[c] / (float)area;
  }
}

/* A tensor of the job under NAME.i, or NAME when i < 0. NULL: no memory. */
static void *add(struct picture_job *j, const char *name, int64_t i, int32_t dtype, int32_t ndim,
                 int64_t a, int64_t b, int64_t c) {
  static const int sizes[] = {[VIV_F32] = 4, [VIV_I64] = 8, [VIV_I32] = 4, [VIV_U8] = 1};
  if (j->n == MAX_EVENTS) return NULL;
  struct result *r = &j->results[j->n];
  char digits[12];
  int at = 0, d = 0;
  while (name[at]) {
    r->name[at] = name[at];
    at++;
  }
  if (i >= 0) {
    r->name[at++] = '.';
    do digits[d++] = (char)('0' + i % 10);
    while (i /= 10);
    while (d) r->name[at++] = digits[--d];
  }
  r->name[at] = 0;
  r->tensor = (viv_tensor){.struct_size = sizeof r->tensor,
                           .dtype = dtype,
                           .ndim = ndim,
                           .shape = {a, ndim > 1 ? b : 0, ndim > 2 ? c : 0}};
  r->tensor.bytes = (uint64_t)(a * (ndim > 1 ? b : 1) * (ndim > 2 ? c : 1) * sizes[dtype]);
  r->tensor.data =
      j->base.host->arena_alloc(j->base.host->job_arena(j->base.job), r->tensor.bytes + 1);
  if (r->tensor.data) j->n++;
  return r->tensor.data;
}

static int add_instances(struct picture_job *j, int64_t i, const struct objects *o) {
  float *boxes = add(j, "boxes", i, VIV_F32, 2, o->n, 4, 0);
  float *scores = add(j, "scores", i, VIV_F32, 1, o->n, 0, 0);
  int64_t *labels = add(j, "labels", i, VIV_I64, 1, o->n, 0, 0);
  if (!boxes || !scores || !labels) return 0;
  memcpy(boxes, o->boxes, (size_t)o->n * sizeof *o->boxes);
  memcpy(scores, o->scores, (size_t)o->n * sizeof *o->scores);
  memcpy(labels, o->labels, (size_t)o->n * sizeof *o->labels);
  return 1;
}

static int add_pose(struct picture_job *j, int64_t i, const struct objects *o) {
  /* A person who stands facing the viewer, in a box of 1 by 1. */
  static const float joints[JOINTS][2] = {
      {.5f, .08f},  {.54f, .06f}, {.46f, .06f}, {.6f, .08f},  {.4f, .08f}, {.68f, .22f},
      {.32f, .22f}, {.82f, .38f}, {.18f, .38f}, {.9f, .54f},  {.1f, .54f}, {.62f, .54f},
      {.38f, .54f}, {.64f, .76f}, {.36f, .76f}, {.66f, .98f}, {.34f, .98f}};
  float *k = add(j, "keypoints", i, VIV_F32, 3, o->n, JOINTS, 3);
  if (!k || !add_instances(j, i, o)) return 0;
  for (int32_t n = 0; n < o->n; n++)
    for (int32_t p = 0; p < JOINTS; p++, k += 3) {
      const float *b = o->boxes[n];
      k[0] = b[0] + joints[p][0] * (b[2] - b[0]);
      k[1] = b[1] + joints[p][1] * (b[3] - b[1]);
      k[2] = p == 9 ? 0.1f : 0.9f; /* the left wrist is hardly seen */
    }
  return 1;
}

/* What the caller points at takes the place of what is found, at most COLOURS boxes. */
static void read_prompts(const viv_host *h, const viv_json *params, struct objects *o) {
  const viv_json *box = h->json_member(params, STR("box"));
  const viv_json *boxes = h->json_member(params, STR("boxes"));
  const viv_json *scores = h->json_member(params, STR("box_scores"));
  if (!box && !boxes) return;
  int64_t n = box ? 1 : h->json_count(boxes);
  o->n = (int32_t)(n < COLOURS ? n : COLOURS);
  for (int32_t i = 0; i < o->n; i++) {
    const viv_json *row = box ? box : h->json_item(boxes, i);
    for (int k = 0; k < 4; k++) o->boxes[i][k] = (float)h->json_number(h->json_item(row, k));
    o->scores[i] = scores ? (float)h->json_number(h->json_item(scores, i)) : 1;
    o->labels[i] = 0;
  }
}

static int add_relations(struct picture_job *j, int64_t i, const struct objects *o) {
  int32_t n = o->n > 1 ? o->n - 1 : 0;
  float *from = add(j, "subject_boxes", i, VIV_F32, 2, n, 4, 0);
  float *to = add(j, "object_boxes", i, VIV_F32, 2, n, 4, 0);
  int64_t *a = add(j, "subject_labels", i, VIV_I64, 1, n, 0, 0);
  int64_t *b = add(j, "object_labels", i, VIV_I64, 1, n, 0, 0);
  int64_t *predicates = add(j, "predicates", i, VIV_I64, 1, n, 0, 0);
  float *scores = add(j, "scores", i, VIV_F32, 1, n, 0, 0);
  if (!from || !to || !a || !b || !predicates || !scores) return 0;
  for (int32_t r = 0; r < n; r++) {
    memcpy(from + 4 * r, o->boxes[0], sizeof *o->boxes);
    memcpy(to + 4 * r, o->boxes[r + 1], sizeof *o->boxes);
    a[r] = o->labels[0];
    b[r] = o->labels[r + 1];
    predicates[r] = o->boxes[0][0] < o->boxes[r + 1][0] ? 1 : 2;
    scores[r] = o->scores[0] * o->scores[r + 1];
  }
  return 1;
}

/* Masks of the objects; with the parameter "map" the class of each pixel, 0 for none. */
static int add_segments(struct picture_job *j, int64_t i, const viv_tensor *image,
                        const struct objects *o, int map) {
  int64_t h = image->shape[0], w = image->shape[1];
  const uint8_t *p = image->data;
  uint8_t *masks = map ? NULL : add(j, "masks", i, VIV_U8, 3, o->n, h, w);
  int32_t *labels = map ? add(j, "labels", i, VIV_I32, 2, h, w, 0) : NULL;
  if (!masks && !labels) return 0;
  for (int64_t k = 0; k < h * w; k++) {
    int c = colour_of(p + 3 * k);
    for (int32_t n = 0; masks && n < o->n; n++) masks[n * h * w + k] = o->labels[n] == c;
    if (labels) labels[k] = c + 1;
  }
  return map || add_instances(j, i, o);
}

static int add_depth(struct picture_job *j, int64_t i, const viv_tensor *image) {
  int64_t n = image->shape[0] * image->shape[1];
  float *depth = add(j, "depth", i, VIV_F32, 2, image->shape[0], image->shape[1], 0);
  for (int64_t k = 0; depth && k < n; k++)
    depth[k] = (float)((const uint8_t *)image->data)[3 * k + 1] / 255.0f;
  return depth != NULL;
}

static void means(const viv_tensor *image, float out[3], int share) {
  double sum[3] = {0}, all = 0;
  int64_t n = image->shape[0] * image->shape[1];
  for (int64_t k = 0; k < 3 * n; k++) sum[k % 3] += ((const uint8_t *)image->data)[k];
  for (int c = 0; c < 3; c++) all += sum[c];
  for (int c = 0; c < 3; c++)
    out[c] = (float)(share ? (all > 0 ? sum[c] / all : 1.0 / 3) : sum[c] / (255.0 * (double)n));
}

static int is(viv_str a, const char *text) {
  return a.len == strlen(text) && !memcmp(a.ptr, text, a.len);
}

static int compute(struct picture_job *j, const viv_json *params, viv_str task, int64_t i,
                   const viv_tensor *image, float *row) {
  struct objects o;
  int map = j->base.host->json_boolean(j->base.host->json_member(params, STR("map")));
  find_objects(image, &o);
  if (is(task, "detect")) return add_instances(j, i, &o);
  if (is(task, "pose")) {
    read_prompts(j->base.host, params, &o);
    return add_pose(j, i, &o);
  }
  if (is(task, "relations")) return add_relations(j, i, &o);
  if (is(task, "segment")) return add_segments(j, i, image, &o, map);
  if (is(task, "depth")) return add_depth(j, i, image);
  means(image, row + 3 * i, is(task, "classify"));
  return 1;
}

static inline int32_t picture_begin(viv_plugin_model *model, const viv_plugin_request *request,
                                    viv_job *job, viv_plugin_job **out, viv_error *error) {
  const viv_host *host = model->host;
  int64_t n = 0, i = 0;
  for (int32_t k = 0; k < request->n_inputs; k++) {
    const viv_value *in = request->inputs[k];
    if (!is(in->name, "image") || in->kind != VIV_KIND_TENSOR) continue;
    if (in->tensor->dtype != VIV_U8 || in->tensor->ndim != 3 || in->tensor->shape[2] != 3)
      return fail(error, VIV_BAD_INPUT, "image", "expected a U8 tensor [H, W, 3]");
    n++;
  }
  if (!n) return fail(error, VIV_BAD_INPUT, "image", "a picture is needed");
  viv_arena *arena = host->job_arena(job);
  struct picture_job *j = host->arena_alloc(arena, sizeof *j);
  if (j) j->results = host->arena_alloc(arena, MAX_EVENTS * sizeof *j->results);
  if (!j || !j->results) return fail(error, VIV_NOT_NOW, "job", "no memory");
  j->base.host = host;
  j->base.job = job;
  float *row = NULL;
  if (is(request->task, "classify"))
    row = add(j, "probabilities", -1, VIV_F32, 2, n, 3, 0);
  else if (is(request->task, "embed"))
    row = add(j, "embeddings", -1, VIV_F32, 2, n, 3, 0);
  for (int32_t k = 0; k < request->n_inputs; k++) {
    const viv_value *in = request->inputs[k];
    if (!is(in->name, "image") || in->kind != VIV_KIND_TENSOR) continue;
    if (!compute(j, request->params, request->task, i++, in->tensor, row))
      return fail(error, VIV_NOT_NOW, "job", "no memory for the results");
  }
  *out = &j->base;
  return VIV_OK;
}

static inline int32_t picture_step(viv_plugin_job *base, viv_error *error) {
  struct picture_job *j = (struct picture_job *)base;
  (void)error;
  if (base->step == j->n) return VIV_DONE;
  struct result *r = &j->results[base->step];
  viv_event event = {.struct_size = sizeof event,
                     .kind = VIV_KIND_TENSOR,
                     .name = {r->name, strlen(r->name)},
                     .tensor = &r->tensor};
  int32_t status = base->host->job_emit(base->job, &event);
  if (status != VIV_OK) return status;
  base->step++;
  return VIV_MORE;
}

PLUGIN("picture");
