/* The tasks: a picture's embedding, prompts on it, both steps' official tensors, and what a person
 * gets, one mask for each prompt. */
#include <math.h>
#include <string.h>

#include "nn/masks.h"
#include "sam/sam.h"

enum { POINTS_MAX = 1 << 14, PROMPTS_MAX = 1 << 16 };

/* ---- prompts ---- */

/* A prompt's numbers: an input tensor, or a parameter of the same name (a list, or a list of rows).
 * x NULL: there is neither. */
struct numbers {
  const float *x;
  int64_t n;
  int32_t ndim;
  bool typed; /* from a parameter: a person's */
};

static struct numbers numbers_of(nn_pass *p, const char *name) {
  const viv_host *h = nn_host_of(p);
  struct numbers out = {0};
  const viv_tensor *t = nn_input(p, name);
  if (t) {
    out.x = nn_as_floats(p, t, name);
    out.ndim = t->ndim;
    out.n = 1;
    for (int32_t i = 0; i < t->ndim; i++) out.n *= t->shape[i];
    return out;
  }
  const viv_json *v = nn_param(p, name);
  if (!v) return out;
  int64_t rows = h->json_count(v);
  bool nested = h->json_type(h->json_item(v, 0)) == VIV_JSON_ARRAY;
  int64_t width = nested ? h->json_count(h->json_item(v, 0)) : 1;
  if (h->json_type(v) != VIV_JSON_ARRAY || rows < 1 || width < 1 || width > 8 || rows > PROMPTS_MAX)
    nn_stop(p, VIV_BAD_INPUT, "params", "%s must be a list of numbers, or of rows of numbers",
            name);
  float *x = nn_room(p, rows * width);
  for (int64_t i = 0; i < rows * width; i++) {
    const viv_json *item = h->json_item(v, i / width);
    if (nested && h->json_count(item) != width) item = NULL;
    if (nested && item) item = h->json_item(item, i % width);
    if (!item || h->json_type(item) != VIV_JSON_NUMBER)
      nn_stop(p, VIV_BAD_INPUT, "params", "%s: rows must have the same number of numbers", name);
    x[i] = (float)h->json_number(item);
  }
  return (struct numbers){x, rows * width, nested ? 2 : 1, true};
}

static void check_finite(nn_pass *p, const char *name, const struct numbers *x) {
  for (int64_t i = 0; i < x->n; i++)
    if (!isfinite(x->x[i]) || fabsf(x->x[i]) > 1e6f)
      nn_stop(p, VIV_BAD_INPUT, name, "number %lld is %g, which is no place in a picture",
              (long long)i, (double)x->x[i]);
}

/* A person who points outside the picture has another picture in mind. */
static void check_inside(nn_pass *p, const char *name, const struct numbers *x,
                         const struct sam_size *s) {
  for (int64_t i = 0; x->typed && i < x->n; i += 2)
    if (x->x[i] < 0 || x->x[i + 1] < 0 || x->x[i] > (float)s->width ||
        x->x[i + 1] > (float)s->height)
      nn_stop(p, VIV_BAD_INPUT, name, "(%g, %g) lies outside the picture of %d x %d pixels",
              (double)x->x[i], (double)x->x[i + 1], (int)s->width, (int)s->height);
}

/* Places in the picture -> places in the resized one, each axis by the ratio of its rounded sizes. */
static float *scaled(nn_pass *p, const float *xy, int64_t n, const struct sam_size *s) {
  float *out = nn_room(p, n);
  double by[2] = {(double)s->new_width / s->width, (double)s->new_height / s->height};
  for (int64_t i = 0; i < n; i++) out[i] = (float)((double)xy[i] * by[i % 2]);
  return out;
}

struct asked {
  struct sam_prompts prompts;
  bool several; /* results keep the axis of prompts */
  bool transformers;
  bool any;
};

static void read_points(nn_pass *p, const char *coords, const char *labels, struct asked *a,
                        int64_t pictures, const struct sam_size *s) {
  struct numbers xy = numbers_of(p, coords), label = numbers_of(p, labels);
  if (!xy.x && !label.x) return;
  if (!xy.x) nn_stop(p, VIV_BAD_INPUT, coords, "is missing, though %s is there", labels);
  if (xy.n % 2 || xy.n < 2 || xy.ndim < 1 || xy.ndim > 4)
    nn_stop(p, VIV_BAD_INPUT, coords, "must be pairs of x and y, not %lld numbers",
            (long long)xy.n);
  check_finite(p, coords, &xy);
  check_inside(p, coords, &xy, s);
  const viv_tensor *t = nn_input(p, coords);
  int64_t count = xy.n / 2, each = t && t->ndim >= 2 ? t->shape[t->ndim - 2] : count;
  if (t && t->shape[t->ndim - 1] != 2)
    nn_stop(p, VIV_BAD_INPUT, coords, "must end with an axis of 2: x and y");
  if (each > POINTS_MAX)
    nn_stop(p, VIV_BAD_INPUT, coords, "%lld points in one prompt, at most %d are taken",
            (long long)each, POINTS_MAX);
  int64_t *ids = nn_bytes(p, count, sizeof *ids);
  if (label.x && label.n != count)
    nn_stop(p, VIV_BAD_INPUT, labels, "has %lld labels for %lld points", (long long)label.n,
            (long long)count);
  for (int64_t i = 0; i < count; i++) {
    ids[i] = label.x ? (int64_t)label.x[i] : 1;
    bool known = ids[i] == 0 || ids[i] == 1 || ids[i] == -1 || ids[i] == -10;
    if (label.x && (!known || (float)ids[i] != label.x[i]))
      nn_stop(p, VIV_BAD_INPUT, labels, "label %lld is %g: 1 is inside, 0 outside, -1 padding",
              (long long)i, (double)label.x[i]);
  }
  a->prompts.n = count / each;
  a->prompts.points = each;
  a->prompts.coords = a->transformers ? xy.x : scaled(p, xy.x, xy.n, s);
  a->prompts.labels = ids;
  a->several = xy.ndim > 2;
  a->any = true;
  if (a->prompts.n % pictures)
    nn_stop(p, VIV_BAD_INPUT, coords, "%lld prompts for %lld pictures", (long long)a->prompts.n,
            (long long)pictures);
}

static void read_boxes(nn_pass *p, const char *name, struct asked *a, int64_t pictures,
                       const struct sam_size *s) {
  struct numbers x = numbers_of(p, name);
  if (!x.x) return;
  if (x.n % 4 || x.n < 4)
    nn_stop(p, VIV_BAD_INPUT, name, "must be x0, y0, x1, y1, not %lld numbers", (long long)x.n);
  check_finite(p, name, &x);
  check_inside(p, name, &x, s);
  for (int64_t i = 0; i < x.n; i += 4)
    if (x.x[i + 2] < x.x[i] || x.x[i + 3] < x.x[i + 1] ||
        (x.typed && (x.x[i + 2] == x.x[i] || x.x[i + 3] == x.x[i + 1])))
      nn_stop(p, VIV_BAD_INPUT, name, "(%g, %g, %g, %g) is empty: x0, y0 is the upper left corner",
              (double)x.x[i], (double)x.x[i + 1], (double)x.x[i + 2], (double)x.x[i + 3]);
  if (a->any && a->prompts.n != x.n / 4)
    nn_stop(p, VIV_BAD_INPUT, name, "%lld boxes, but %lld prompts of points", (long long)(x.n / 4),
            (long long)a->prompts.n);
  a->prompts.n = x.n / 4;
  a->prompts.boxes = a->transformers ? x.x : scaled(p, x.x, x.n, s);
  a->several = a->several || x.ndim > 1;
  a->any = true;
  if (a->prompts.n % pictures)
    nn_stop(p, VIV_BAD_INPUT, name, "%lld boxes for %lld pictures", (long long)a->prompts.n,
            (long long)pictures);
}

static struct asked read_prompts(nn_pass *p, const struct sam_view *view) {
  const struct sam_model *m = nn_net_of(p);
  struct asked a = {.prompts = {.n = view->n}};
  a.transformers =
      nn_input(p, "input_points") || nn_input(p, "input_boxes") || nn_input(p, "input_masks");
  bool hf = a.transformers;
  if (view->n > 1 && !hf)
    nn_stop(p, VIV_BAD_INPUT, "image",
            "prompts in pixels are about one picture, not %lld: input_points, input_boxes and "
            "input_masks are of a batch",
            (long long)view->n);
  const struct sam_size *s = view->sizes;
  read_points(p, hf ? "input_points" : "point_coords", hf ? "input_labels" : "point_labels", &a,
              view->n, s);
  if (hf) {
    read_boxes(p, "input_boxes", &a, view->n, s);
  } else {
    read_boxes(p, "box", &a, 1, s);
    if (!a.prompts.boxes) read_boxes(p, "boxes", &a, 1, s);
  }
  int64_t side = 4 * m->grid, shape[4] = {0, 1, side, side};
  a.prompts.mask = nn_some_floats(p, hf ? "input_masks" : "mask_input", 4, shape);
  a.prompts.n_masks = shape[0];
  a.any = a.any || a.prompts.mask;
  if (a.prompts.mask && shape[0] != 1 && shape[0] != view->n && shape[0] != a.prompts.n)
    nn_stop(p, VIV_BAD_INPUT, hf ? "input_masks" : "mask_input",
            "%lld masks for %lld prompts on %lld pictures", (long long)shape[0],
            (long long)a.prompts.n, (long long)view->n);
  if (a.prompts.n > PROMPTS_MAX)
    nn_stop(p, VIV_BAD_INPUT, "prompts", "%lld prompts at once, at most %d are taken",
            (long long)a.prompts.n, PROMPTS_MAX);
  return a;
}

/* ---- the decoder over all prompts ---- */

/* Prompts [from, from + n) of a picture's. */
static struct sam_prompts part(const struct sam_model *m, const struct sam_prompts *all,
                               int64_t pictures, int64_t from, int64_t n) {
  struct sam_prompts s = *all;
  s.n = n;
  if (s.coords) s.coords += from * s.points * 2;
  if (s.labels) s.labels += from * s.points;
  if (s.boxes) s.boxes += from * 4;
  if (s.mask && s.n_masks > 1) {
    int64_t first = s.n_masks == all->n ? from : from / (all->n / pictures);
    s.mask += first * 16 * m->grid * m->grid;
    s.n_masks = s.n_masks == all->n ? n : 1;
  }
  return s;
}

static struct sam_answer answer(nn_pass *p, const struct sam_view *view, const struct asked *a,
                                bool multimask) {
  const struct sam_model *m = nn_net_of(p);
  int64_t n = a->prompts.n, per = n / view->n, cells = 16 * (int64_t)m->grid * m->grid;
  struct sam_lead lead = {1, {n, 0}};
  if (a->transformers) lead = (struct sam_lead){2, {view->n, per}};
  if (n <= SAM_AT_ONCE || nn_param(p, "taps"))
    return sam_decode(p, m, view, &a->prompts, lead, multimask);
  int64_t outputs = multimask ? m->masks - 1 : 1;
  struct sam_answer all = {n, outputs, nn_room(p, n * outputs * cells), nn_room(p, n * outputs)};
  for (int64_t from = 0; from < n;) {
    nn_mark mark = nn_here(p);
    int64_t picture = from / per, left = (picture + 1) * per - from;
    int64_t count = left < SAM_AT_ONCE ? left : SAM_AT_ONCE;
    struct sam_view one = {1, view->embedding + picture * m->grid * m->grid * m->width,
                           view->sizes + picture};
    struct sam_prompts some = part(m, &a->prompts, view->n, from, count);
    struct sam_answer got =
        sam_decode(p, m, &one, &some, (struct sam_lead){1, {count, 0}}, multimask);
    memcpy(all.logits + from * outputs * cells, got.logits,
           (size_t)(count * outputs * cells) * sizeof(float));
    memcpy(all.iou + from * outputs, got.iou, (size_t)(count * outputs) * sizeof(float));
    nn_release(p, mark);
    from += count;
    nn_progress(p, (double)from / (double)n);
  }
  return all;
}

/* ---- results ---- */

static void above(const float *logits, int64_t n, double threshold, uint8_t *out) {
  for (int64_t i = 0; i < n; i++) out[i] = (double)logits[i] > threshold;
}

static void check_room(nn_pass *p, const struct sam_size *s, int64_t masks) {
  if ((int64_t)s->height * s->width > ((int64_t)1 << 32) / (masks > 0 ? masks : 1))
    nn_stop(p, VIV_BAD_INPUT, "prompts",
            "%lld masks of %d x %d pixels at once: ask about fewer, or name low_res_logits in "
            "params.outputs",
            (long long)masks, (int)s->width, (int)s->height);
}

static void emit_meta(nn_pass *p, const struct sam_view *view, const struct asked *a,
                      const struct sam_answer *got) {
  const struct sam_model *m = nn_net_of(p);
  int64_t t = got->outputs, side = 4 * m->grid, skip = !a->several;
  double threshold = nn_param_num(p, "mask_threshold", 0, -1e9, 1e9);
  const struct sam_size *s = view->sizes;
  int64_t low[4] = {got->n, t, side, side}, high[4] = {got->n, t, s->height, s->width};
  nn_result(p, VIV_F32, got->logits, 4 - (int32_t)skip, low + skip, "low_res_logits");
  nn_result(p, VIV_F32, got->iou, 2 - (int32_t)skip, low + skip, "iou_predictions");
  if (!nn_wants_result(p, "mask_logits") && !nn_wants_result(p, "masks")) return;
  check_room(p, s, got->n * t);
  const float *full = sam_full_size(p, m, s, got->logits, got->n * t);
  if (nn_wants_result(p, "mask_logits"))
    nn_result(p, VIV_F32, full, 4 - (int32_t)skip, high + skip, "mask_logits");
  if (!nn_wants_result(p, "masks")) return;
  int64_t cells = got->n * t * s->height * s->width;
  uint8_t *masks = nn_bytes(p, cells, 1);
  above(full, cells, threshold, masks);
  nn_result(p, VIV_U8, masks, 4 - (int32_t)skip, high + skip, "masks");
}

static void emit_transformers(nn_pass *p, const struct sam_view *view,
                              const struct sam_answer *got) {
  const struct sam_model *m = nn_net_of(p);
  int64_t t = got->outputs, side = 4 * m->grid, per = got->n / view->n;
  nn_result(p, VIV_F32, got->logits, NN_DIMS(view->n, per, t, side, side), "pred_masks");
  nn_result(p, VIV_F32, got->iou, NN_DIMS(view->n, per, t), "iou_scores");
  for (int64_t i = 0; i < view->n; i++) {
    const struct sam_size *s = &view->sizes[i];
    if (!nn_wants_result(p, "mask_logits.%lld", (long long)i)) continue;
    nn_mark mark = nn_here(p);
    check_room(p, s, per * t);
    const float *full = sam_full_size(p, m, s, got->logits + i * per * t * side * side, per * t);
    nn_result(p, VIV_F32, full, NN_DIMS(per, t, s->height, s->width), "mask_logits.%lld",
              (long long)i);
    nn_release(p, mark);
  }
}

/* A person's: of each prompt the mask that the model trusts most, unless all are asked for. */
static void show(nn_pass *p, const struct sam_view *view, const struct sam_answer *got) {
  const struct sam_model *m = nn_net_of(p);
  const struct sam_size *s = view->sizes;
  bool all = nn_param_flag(p, "multimask_output", false);
  double threshold = nn_param_num(p, "mask_threshold", 0, -1e9, 1e9);
  int64_t t = got->outputs, n = all ? got->n * t : got->n, cells = (int64_t)s->height * s->width;
  check_room(p, s, n);
  uint8_t *masks = nn_bytes(p, n * cells, 1);
  float *scores = nn_room(p, n), *stability = nn_room(p, n), *boxes = nn_room(p, 4 * n);
  for (int64_t i = 0; i < n; i++) {
    nn_mark mark = nn_here(p);
    int64_t from = i * (all ? 1 : t), best = from, box[4];
    for (int64_t k = from; !all && k < from + t; k++)
      if (got->iou[k] > got->iou[best]) best = k;
    const float *full = sam_full_size(p, m, s, got->logits + best * 16 * m->grid * m->grid, 1);
    above(full, cells, threshold, masks + i * cells);
    scores[i] = got->iou[best];
    stability[i] = nn_mask_stability(full, cells, (float)threshold, 1);
    nn_mask_box(masks + i * cells, s->height, s->width, box);
    for (int k = 0; k < 4; k++) boxes[4 * i + k] = (float)box[k];
    nn_release(p, mark);
  }
  nn_result(p, VIV_U8, masks, NN_DIMS(n, s->height, s->width), "masks.0");
  nn_result(p, VIV_F32, scores, NN_DIMS(n), "scores.0");
  nn_result(p, VIV_F32, boxes, NN_DIMS(n, 4), "boxes.0");
  nn_result(p, VIV_F32, stability, NN_DIMS(n), "stability_scores.0");
}

/* ---- tasks ---- */

static int32_t segment(nn_pass *p) {
  static const char *const prompts[] = {"point_coords", "point_labels", "box",
                                        "boxes",        "mask_input",   "input_points",
                                        "input_labels", "input_boxes",  "input_masks"};
  bool tensors = false, clicks = false;
  for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
    tensors = tensors || nn_input(p, prompts[i]);
    clicks = clicks || nn_param(p, prompts[i]);
  }
  /* Whoever brings a picture, or asks by parameters about the one that the session saw, is a person;
   * tensors are answered by the official ones. */
  bool asked = tensors || clicks;
  bool person = !nn_param(p, "outputs") && (nn_count(p, "image") || (clicks && !tensors));
  if (person && !asked) {
    sam_show_everything(p);
    return VIV_DONE;
  }
  struct sam_view view = sam_view_of(p, false);
  struct asked a = read_prompts(p, &view);
  /* One click may mean a button, a shirt or its wearer: three masks, of which the best is shown. */
  bool open = a.prompts.points == 1 && !a.prompts.boxes && !a.prompts.mask;
  bool multimask = nn_param_flag(p, "multimask_output", person ? open : true);
  struct sam_answer got = answer(p, &view, &a, multimask);
  if (a.transformers)
    emit_transformers(p, &view, &got);
  else if (person)
    show(p, &view, &got);
  else
    emit_meta(p, &view, &a, &got);
  return VIV_DONE;
}

static int32_t embed_image(nn_pass *p) {
  if (!nn_count(p, "image")) nn_stop(p, VIV_BAD_INPUT, "image", "is missing");
  sam_view_of(p, true);
  return VIV_DONE;
}

static int32_t preprocess(nn_pass *p) {
  const struct sam_model *m = nn_net_of(p);
  struct sam_rules r = sam_request_rules(p, m);
  nn_pixels x = sam_picture_at(p, 0);
  struct sam_size s = sam_size_of(&r, m, x.height, x.width);
  float *pixels = nn_room(p, 3 * (int64_t)m->side * m->side);
  const uint8_t *resized = NULL;
  sam_prepare(p, &r, m, x, pixels, &resized);
  if (resized) nn_result(p, VIV_U8, resized, NN_DIMS(s.new_height, s.new_width, 3), "resized");
  nn_result(p, VIV_F32, pixels, NN_DIMS(1, 3, m->side, m->side), "pixel_values");
  int64_t shape[2] = {0, 2};
  const float *xy = nn_some_floats(p, "point_coords", 2, shape);
  if (xy)
    nn_result(p, VIV_F32, scaled(p, xy, 2 * shape[0], &s), NN_DIMS(shape[0], 2), "point_coords");
  return VIV_DONE;
}

const nn_task sam_tasks[] = {{"segment", segment},
                             {"segment_everything", sam_everything},
                             {"embed_image", embed_image},
                             {"preprocess", preprocess},
                             {NULL, NULL}};
const nn_task sam_medical_tasks[] = {{"segment", sam_medical_segment},
                                     {"embed_image", embed_image},
                                     {"preprocess", preprocess},
                                     {NULL, NULL}};
const nn_task sam_picture_tasks[] = {{"preprocess", preprocess}, {NULL, NULL}};
