/* Which parts of a picture decided: a map of numbers over it, larger where more.
 *
 *   prototypes            how much each place is like the prototype        prototype heads
 *                         that gives most to the class
 *   attention_rollout     what the class token sees through all layers     transformers
 *   cam                   sum over channels of W[class] map                features = the map's mean,
 *   grad_cam              the same along the gradient, above 0             or its layer norm
 *   occlusion             drop of the class's logit with a square greyed   all classifiers
 *   integrated_gradients  over how much of each cell is shown              all classifiers
 *
 * The last has one number for each of cells x cells parts of the picture, which goes from grey (the mean
 * colour) to the picture: gradients by central differences are exact enough over so few.
 *
 * `curves` judges the map: deletion and insertion over as many cells. Concept heads tell what each
 * concept gives to the class besides. */
#include "nn/explain.h"
#include "nn/concepts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "classifier/classifier.h"

enum { CELLS_MAX = 64 };

/* ---- what the model offers ---- */

static viv_str kinds(const viv_plugin_model *model) {
  const struct classifier_model *m = (const struct classifier_model *)(const void *)model;
  return nn_str(m->kinds);
}

const viv_explain_api classifier_explain_api = {NN_ABI(viv_explain_api), .kinds = kinds};

enum { PROTOTYPES, ROLLOUT, GRAD_CAM, CAM, OCCLUSION, INTEGRATED, KINDS };
static const struct {
  const char *name, *meaning;
} all[KINDS] = {{"prototypes", "where the prototype is seen that gives most to the class"},
                {"attention_rollout", "what the class token sees through all layers"},
                {"grad_cam", "what speaks for the class in the last features"},
                {"cam", "the same, and what speaks against it"},
                {"occlusion", "how much the class's logit falls when a square is greyed"},
                {"integrated_gradients", "each cell's share of the class's logit"}};

static bool offered(const struct classifier_model *m, int kind) {
  if (kind == PROTOTYPES) return m->concepts.kind == CLASSIFIER_PROTOTYPE;
  if (kind == ROLLOUT) return m->rolls;
  return m->classes > 0 && (m->means || kind > CAM);
}

void classifier_say_kinds(struct classifier_model *m) {
  int n = snprintf(m->kinds, sizeof m->kinds, "[");
  for (int i = 0; i < KINDS; i++)
    if (offered(m, i))
      n += snprintf(m->kinds + n, sizeof m->kinds - (size_t)n,
                    "%s{\"name\":\"%s\",\"shape\":[\"H\",\"W\"],\"meaning\":\"%s\"}",
                    n > 1 ? "," : "", all[i].name, all[i].meaning);
  snprintf(m->kinds + n, sizeof m->kinds - (size_t)n, "]");
}

/* The kind that the request names, or the first that this model has. */
static int kind_of(nn_pass *p, const struct classifier_model *m) {
  viv_str wanted = nn_param_text(p, "explain", "");
  char names[128] = "";
  for (int i = 0; i < KINDS; i++) {
    if (!offered(m, i)) continue;
    if (!wanted.len || nn_is(wanted, all[i].name)) return i;
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "",
             all[i].name);
  }
  nn_stop(p, VIV_BAD_INPUT, "params.explain", "\"%.*s\" is none of this model's kinds: %s",
          (int)(wanted.len < 40 ? wanted.len : 40), wanted.len ? wanted.ptr : "", names);
}

/* ---- rollout ---- */

struct watch {
  bool on;
  float *rollout; /* [batch, n, n], from the first layer on */
};

void classifier_watch(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                      const float *bias, const float *x) {
  struct watch *w = nn_state(p, sizeof *w);
  if (!w->on) return;
  if (!w->rollout) {
    w->rollout = nn_keep(p, batch * n * n, sizeof *w->rollout);
    for (int64_t i = 0; i < batch * n; i++) w->rollout[i * n + i % n] = 1;
  }
  nn_mark mark = nn_here(p);
  float *mean = nn_room(p, batch * n * n), *room = nn_room(p, 2 * n * n);
  nn_vit_attention_mean(p, vit, layer, batch, n, bias, x, mean);
  for (int64_t b = 0; b < batch; b++)
    nn_rollout(nn_compute_of(p), mean + b * n * n, n, w->rollout + b * n * n, room);
  nn_release(p, mark);
}

/* ---- one picture ---- */

struct case_of {
  nn_pass *p;
  const struct classifier_model *m;
  classifier_pictures one; /* n 1 */
  int64_t target;
  int32_t cells; /* of a side */
  float *pixels; /* [3, height, width], what `shown` makes */
  bool odds;     /* ask for probabilities */
  int64_t calls, expected;
};

/* What the network makes of these pixels for the target: its logit, or its probability. */
static double target_number(struct case_of *k, const float *pixels) {
  nn_mark mark = nn_here(k->p);
  classifier_pictures in = k->one;
  in.pixels = pixels;
  nn_pass_poll(k->p);
  struct classifier_features f = k->m->variant->network(k->p, &in);
  const float *logits = classifier_answer_of(k->p, &f, false).logits;
  double y = (double)logits[k->target], sum = 0;
  for (int64_t i = 0; k->odds && i < k->m->classes; i++) sum += exp((double)logits[i] - y);
  if (k->odds) y = 1 / sum;
  nn_release(k->p, mark);
  nn_progress(k->p, (double)++k->calls / (double)k->expected);
  return y;
}

static int64_t cell_of(const struct case_of *k, int32_t y, int32_t x) {
  return (int64_t)y * k->cells / k->one.height * k->cells + (int64_t)x * k->cells / k->one.width;
}

/* The target's number when the share shown[cell] of each cell is there, the rest grey. */
static double shown(void *self, const double *share) {
  struct case_of *k = self;
  int32_t h = k->one.height, w = k->one.width;
  for (int32_t c = 0; c < 3; c++)
    for (int32_t y = 0; y < h; y++)
      for (int32_t x = 0; x < w; x++) {
        int64_t at = ((int64_t)c * h + y) * w + x;
        k->pixels[at] = k->one.pixels[at] * (float)share[cell_of(k, y, x)];
      }
  return target_number(k, k->pixels);
}

/* A small map over the picture as the network sees it. */
struct small {
  float *x; /* [height, width] */
  int32_t height, width;
};

static struct small integrated(struct case_of *k) {
  enum { STEPS_MAX = 256 };
  k->cells = (int32_t)nn_param_int(k->p, "cells", 7, 1, CELLS_MAX);
  int32_t steps = (int32_t)nn_param_int(k->p, "steps", 8, 1, STEPS_MAX);
  int64_t n = (int64_t)k->cells * k->cells;
  k->expected = 2 * n * steps + 2;
  double *room = nn_bytes(k->p, 5 * n, sizeof *room), *from = room + 2 * n, *to = from + n;
  double *out = to + n;
  for (int64_t i = 0; i < n; i++) {
    from[i] = 0;
    to[i] = 1;
  }
  float gap = (float)nn_integrated_gradients(shown, k, to, from, n, steps, 0.05, room, out);
  struct small s = {nn_room(k->p, n), k->cells, k->cells};
  for (int64_t i = 0; i < n; i++) s.x[i] = (float)out[i];
  nn_result(k->p, VIV_F32, &gap, NN_DIMS(1), "completeness_gap");
  return s;
}

static struct small occluded(struct case_of *k) {
  int32_t h = k->one.height, w = k->one.width, least = h < w ? h : w;
  int32_t patch = (int32_t)nn_param_int(k->p, "patch", least < 14 ? 1 : least / 14, 1, least);
  struct small s = {NULL, (h + patch - 1) / patch, (w + patch - 1) / patch};
  int64_t n = (int64_t)s.height * s.width;
  s.x = nn_room(k->p, n);
  k->expected = n + 1;
  double whole = target_number(k, k->one.pixels);
  for (int64_t i = 0; i < n; i++) {
    nn_occlude(k->one.pixels, h, w, patch, i, 0, k->pixels);
    s.x[i] = (float)(whole - target_number(k, k->pixels));
  }
  return s;
}

static int64_t best_of(const float *logits, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* What is seen of the prototype that gives most to the target, or of the one that is asked for. */
static struct small resembled(nn_pass *p, const struct classifier_model *m,
                              const struct classifier_answer *a, int64_t b, int64_t target) {
  const struct classifier_concepts *c = &m->concepts;
  const float *given = a->contributions + (b * m->classes + target) * c->n;
  int64_t wanted = nn_param_int(p, "prototype", -1, -1, c->n - 1), places = 0;
  if (wanted < 0) wanted = best_of(given, c->n);
  struct small s = {NULL, a->height, a->width};
  places = (int64_t)s.height * s.width;
  s.x = nn_room(p, places);
  for (int64_t i = 0; i < places; i++)
    s.x[i] = nn_prototype_similarity(a->distances[(b * c->n + wanted) * places + i], c->epsilon);
  return s;
}

/* Each concept's value and what it gives to the target. */
static void give_concepts(nn_pass *p, const struct classifier_model *m,
                          const struct classifier_answer *a, int64_t b, int64_t target) {
  int64_t n = m->concepts.n;
  float *rows = nn_room(p, 2 * n);
  for (int64_t j = 0; j < n; j++) {
    rows[2 * j] = a->concepts[b * n + j];
    rows[2 * j + 1] = a->contributions[(b * m->classes + target) * n + j];
  }
  nn_result(p, VIV_F32, rows, NN_DIMS(n, 2), "concepts.%d", (int)b);
}

/* ---- of the features of a batch ---- */

static struct small rolled(nn_pass *p, const struct classifier_features *f, int64_t b) {
  const struct watch *w = nn_state(p, sizeof *w);
  int64_t n = f->shape[1];
  struct small s = {NULL, f->grid[0], f->grid[1]};
  s.x = nn_room(p, n - f->extra);
  memcpy(s.x, w->rollout + b * n * n + f->extra, (size_t)(n - f->extra) * sizeof *s.x);
  return s;
}

static struct small activated(nn_pass *p, const struct classifier_model *m,
                              const struct classifier_features *f, int64_t b, int64_t target,
                              bool relu) {
  const viv_compute *c = nn_compute_of(p);
  bool planes = f->ndim == 4;
  int64_t d = planes ? f->shape[1] : f->shape[2], rows = planes ? 0 : f->shape[1];
  struct small s = {NULL, planes ? (int32_t)f->shape[2] : f->grid[0],
                    planes ? (int32_t)f->shape[3] : f->grid[1]};
  int64_t space = (int64_t)s.height * s.width, place = planes ? 1 : d, channel = planes ? space : 1;
  const float *map = f->hidden + (planes ? b * d * space : (b * rows + f->extra) * d);
  float *row = nn_room(p, m->width), *mean = nn_room(p, d), *gradient = nn_room(p, d);
  int32_t id = (int32_t)target;
  s.x = nn_room(p, space);
  c->gather(c, m->head.w, &id, 1, row);
  row += f->mean_at;
  if (f->after) {
    for (int64_t i = 0; i < d; i++) {
      double sum = 0;
      for (int64_t at = 0; at < space; at++) sum += (double)map[at * place + i * channel];
      mean[i] = (float)(sum / (double)space);
    }
    nn_norm_gradient(f->after, mean, row, gradient);
    row = gradient;
  }
  /* Grad-CAM's gradient is the mean over the places, of which each has 1 / space of it. */
  for (int64_t i = 0; relu && i < d; i++) gradient[i] = row[i] / (float)space;
  nn_class_activation(map, space, place, relu ? gradient : row, d, channel, relu, s.x);
  return s;
}

/* ---- the task ---- */

/* The map at the size of the prepared picture, before its middle is cut out; what is cut off has the
 * map's least value. Answers it as the network sees it, [in->height, in->width]. */
static const float *give(nn_pass *p, const struct classifier_model *m, const struct small *s,
                         const classifier_pictures *in, int32_t b) {
  const viv_compute *c = nn_compute_of(p);
  int32_t size[2], at[2];
  classifier_place(p, &m->prepare, in, b, size, at);
  float *seen = nn_room(p, (int64_t)in->height * in->width), least = INFINITY;
  float *out = nn_room(p, (int64_t)size[0] * size[1]);
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_LINEAR,
                  .dims = 2,
                  .channels = 1,
                  .batch = 1,
                  .size = {s->height, s->width, 1},
                  .out_size = {in->height, in->width, 1},
                  .x = s->x,
                  .out = seen};
  c->resize(c, &a);
  for (int64_t i = 0; i < (int64_t)s->height * s->width; i++) least = fminf(least, s->x[i]);
  for (int32_t y = 0; y < size[0]; y++)
    for (int32_t x = 0; x < size[1]; x++) {
      int32_t i = y - at[0], j = x - at[1];
      bool inside = i >= 0 && i < in->height && j >= 0 && j < in->width;
      out[(int64_t)y * size[1] + x] = inside ? seen[(int64_t)i * in->width + j] : least;
    }
  nn_result(p, VIV_F32, s->x, NN_DIMS(s->height, s->width), "map.%d", (int)b);
  nn_result(p, VIV_F32, out, NN_DIMS(size[0], size[1]), "heat.%d", (int)b);
  return seen;
}

/* How well a map ranks what decides: the target's probability as the cells of the picture are greyed,
 * the one with the highest mean of the map first, and as they come out of the grey in that order. */
static void judge(struct case_of *k, const float *seen, int32_t b) {
  int32_t h = k->one.height, w = k->one.width;
  k->cells = (int32_t)nn_param_int(k->p, "cells", 7, 1, CELLS_MAX);
  if (k->cells > h || k->cells > w)
    nn_stop(k->p, VIV_BAD_INPUT, "params.cells", "%d x %d cells in a picture of %d x %d pixels",
            (int)k->cells, (int)k->cells, (int)w, (int)h);
  int64_t n = (int64_t)k->cells * k->cells;
  double *to = nn_bytes(k->p, 9 * n + 2, sizeof *to), *from = to + n, *scores = from + n;
  double *count = scores + n, *room = count + n, *curves = room + 2 * n; /* [2, n + 1] */
  float *out = nn_room(k->p, 2 * (n + 1)), areas[2];
  for (int64_t i = 0; i < n; i++) {
    from[i] = scores[i] = count[i] = 0;
    to[i] = 1;
  }
  for (int32_t y = 0; y < h; y++)
    for (int32_t x = 0; x < w; x++) {
      int64_t cell = cell_of(k, y, x);
      scores[cell] += (double)seen[(int64_t)y * w + x];
      count[cell]++;
    }
  for (int64_t i = 0; i < n; i++) scores[i] /= count[i];
  k->odds = true;
  k->calls = 0;
  k->expected = 2 * (n + 1);
  nn_deletion_insertion(shown, k, to, from, scores, n, room, curves, curves + n + 1);
  for (int64_t i = 0; i < 2 * (n + 1); i++) out[i] = (float)curves[i];
  for (int i = 0; i < 2; i++) areas[i] = (float)nn_curve_area(curves + i * (n + 1), n + 1);
  nn_result(k->p, VIV_F32, out, NN_DIMS(2, n + 1), "curves.%d", (int)b);
  nn_result(k->p, VIV_F32, areas, NN_DIMS(2), "areas.%d", (int)b);
}

int32_t classifier_explain(nn_pass *p) {
  const struct classifier_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int kind = kind_of(p, m);
  struct watch *w = nn_state(p, sizeof *w);
  classifier_pictures in = classifier_read_pictures(p, &m->prepare);
  w->on = kind == ROLLOUT;
  struct classifier_features f = m->variant->network(p, &in);
  w->on = false;
  struct classifier_answer a = {0};
  if (m->classes) a = classifier_answer_of(p, &f, false);
  const float *logits = a.logits;
  bool curves = nn_param_flag(p, "curves", false);
  if (curves && !logits)
    nn_stop(p, VIV_NEVER, "params.curves",
            "this checkpoint has no classifier whose answer could change");
  int64_t wanted = nn_param_int(p, "target", -1, -1, m->classes ? m->classes - 1 : -1);
  if (logits) {
    float *odds = nn_room(p, in.n * m->classes);
    c->softmax(c, logits, in.n, m->classes, odds);
    nn_result(p, VIV_F32, odds, NN_DIMS(in.n, m->classes), "probabilities");
  }
  for (int32_t b = 0; b < in.n; b++) {
    nn_mark mark = nn_here(p);
    int64_t plane = 3 * (int64_t)in.height * in.width;
    struct case_of k = {.p = p, .m = m, .one = in};
    k.one.n = 1;
    k.one.pixels = in.pixels + b * plane;
    if (logits) k.target = wanted >= 0 ? wanted : best_of(logits + b * m->classes, m->classes);
    k.pixels = nn_room(p, plane);
    struct small s = kind == PROTOTYPES   ? resembled(p, m, &a, b, k.target)
                     : kind == ROLLOUT    ? rolled(p, &f, b)
                     : kind == OCCLUSION  ? occluded(&k)
                     : kind == INTEGRATED ? integrated(&k)
                                          : activated(p, m, &f, b, k.target, kind == GRAD_CAM);
    const float *seen = give(p, m, &s, &in, b);
    if (curves) judge(&k, seen, b);
    if (a.concepts) give_concepts(p, m, &a, b, k.target);
    nn_release(p, mark);
  }
  return VIV_DONE;
}
