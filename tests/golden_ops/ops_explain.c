/* Explanations, of the small networks that the cases name. */
#include "ops.h"

#include "nn/concepts.h"
#include "nn/explain.h"

static bool attention_rollout(struct golden *g) {
  struct array a = input(g, "attention"); /* [layers, B, heads, N, N] */
  int64_t layers = a.shape[0], batch = a.shape[1], heads = a.shape[2], n = a.shape[3];
  float *all = take_floats(g, batch * n * n), *mean = take_floats(g, n * n);
  float *room = take_floats(g, 2 * n * n), *row = take_floats(g, batch * n);
  char name[32];
  for (int64_t i = 0; i < batch * n * n; i++) all[i] = i / n % n == i % n;
  for (int64_t l = 0; l < layers; l++) {
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t i = 0; i < n * n; i++) {
        double sum = 0;
        for (int64_t h = 0; h < heads; h++)
          sum += (double)a.data[((l * batch + b) * heads + h) * n * n + i];
        mean[i] = (float)(sum / (double)heads);
      }
      nn_rollout(g->c, mean, n, all + b * n * n, room);
    }
    snprintf(name, sizeof name, "layer.%d", (int)l);
    output(g, name, all, batch * n * n);
  }
  output(g, "rollout", all, batch * n * n);
  for (int64_t i = 0; i < batch * n; i++) row[i] = all[i / n * n * n + i % n];
  output(g, "cls_row", row, batch * n);
  for (int64_t i = 0; i < batch * n; i++) {
    double sum = 0;
    for (int64_t r = 0; r < n; r++) sum += (double)all[(i / n * n + r) * n + i % n];
    row[i] = (float)(sum / (double)n);
  }
  output(g, "mean_row", row, batch * n);
  return true;
}

/* ---- the networks ---- */

struct network {
  struct golden *g;
  bool deep; /* mlp; else cnn */
  struct array w[3], b[3];
  int64_t classes, target, height, width, features; /* places of the last map: of width / 2 */
  double *hidden[3];
};

static struct network read_network(struct golden *g, struct array x) {
  static const char *const names[2][3] = {{"conv1", "conv2", "fc"}, {"fc1", "fc2", "fc3"}};
  struct network n = {.g = g, .deep = !strcmp(text_param(g, "network", ""), "mlp")};
  char name[32];
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s.weight", names[n.deep][i]);
    n.w[i] = weight(g, "", name);
    snprintf(name, sizeof name, "%s.bias", names[n.deep][i]);
    n.b[i] = weight(g, "", name);
  }
  n.classes = n.w[2].shape[0];
  int64_t places = 1;
  if (!n.deep) {
    n.height = x.shape[2];
    n.width = x.shape[3];
    places = n.height * n.width;
    n.features = ((n.height + 1) / 2) * ((n.width + 1) / 2);
  }
  for (int i = 0; i < 3; i++) n.hidden[i] = take(g, n.w[i].shape[0] * places * 8);
  return n;
}

static void dense(const struct network *n, int layer, const double *x, bool bend, double *y) {
  int64_t out = n->w[layer].shape[0], in = n->w[layer].shape[1];
  for (int64_t o = 0; o < out; o++) {
    double sum = (double)n->b[layer].data[o];
    for (int64_t i = 0; i < in; i++) sum += (double)n->w[layer].data[o * in + i] * x[i];
    y[o] = bend ? tanh(sum) : sum;
  }
}

/* relu(conv 3x3, pad 1) */
static void convolve(const struct network *n, int layer, const double *x, int64_t h, int64_t w,
                     int64_t stride, double *y) {
  int64_t out = n->w[layer].shape[0], in = n->w[layer].shape[1];
  int64_t high = (h + stride - 1) / stride, wide = (w + stride - 1) / stride;
  for (int64_t o = 0; o < out; o++)
    for (int64_t s = 0; s < high * wide; s++) {
      double sum = (double)n->b[layer].data[o];
      for (int64_t t = 0; t < in * 9; t++) {
        int64_t r = s / wide * stride + t % 9 / 3 - 1, c = s % wide * stride + t % 3 - 1;
        if (r >= 0 && r < h && c >= 0 && c < w)
          sum += (double)n->w[layer].data[o * in * 9 + t] * x[(t / 9 * h + r) * w + c];
      }
      y[o * high * wide + s] = sum > 0 ? sum : 0;
    }
}

static double logit(void *self, const double *x) {
  struct network *n = self;
  if (n->deep) {
    dense(n, 0, x, true, n->hidden[0]);
    dense(n, 1, n->hidden[0], true, n->hidden[1]);
    dense(n, 2, n->hidden[1], false, n->hidden[2]);
    return n->hidden[2][n->target];
  }
  int64_t c = n->w[1].shape[0];
  convolve(n, 0, x, n->height, n->width, 1, n->hidden[0]);
  convolve(n, 1, n->hidden[0], n->height, n->width, 2, n->hidden[1]);
  double *mean = n->hidden[0];
  for (int64_t i = 0; i < c; i++) {
    mean[i] = 0;
    for (int64_t s = 0; s < n->features; s++)
      mean[i] += n->hidden[1][i * n->features + s] / (double)n->features;
  }
  dense(n, 2, mean, false, n->hidden[2]);
  return n->hidden[2][n->target];
}

/* Row b of an input as doubles. */
static double *doubles(struct golden *g, struct array x, int64_t b) {
  int64_t n = x.n / x.shape[0];
  double *y = take(g, n * 8);
  for (int64_t i = 0; i < n; i++) y[i] = (double)x.data[b * n + i];
  return y;
}

static int64_t target(struct golden *g, int64_t b) {
  return (int64_t)input(g, "target").data[b];
}

static bool network(struct golden *g) {
  struct array x = input(g, "x");
  struct network n = read_network(g, x);
  int64_t map = n.deep ? 0 : n.w[1].shape[0] * n.features;
  double *y = take(g, x.shape[0] * n.classes * 8), *f = take(g, x.shape[0] * map * 8 + 8);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    logit(&n, doubles(g, x, b));
    memcpy(y + b * n.classes, n.hidden[2], (size_t)n.classes * 8);
    if (map) memcpy(f + b * map, n.hidden[1], (size_t)map * 8);
  }
  output_doubles(g, "logits", y, x.shape[0] * n.classes);
  if (map) output_doubles(g, "features", f, x.shape[0] * map);
  return true;
}

/* ---- class activation, occlusion ---- */

static bool activation(struct golden *g, bool relu) {
  struct array x = input(g, "x");
  struct network n = read_network(g, x);
  int64_t c = n.w[1].shape[0], map = c * n.features, h = (n.height + 1) / 2, w = (n.width + 1) / 2;
  float *f = take_floats(g, map), *y = take_floats(g, x.shape[0] * n.features);
  float *big = take_floats(g, x.shape[0] * n.height * n.width), *gradient = take_floats(g, c);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    n.target = target(g, b);
    logit(&n, doubles(g, x, b));
    for (int64_t i = 0; i < map; i++) f[i] = (float)n.hidden[1][i];
    for (int64_t i = 0; i < c; i++)
      gradient[i] = n.w[2].data[n.target * c + i] / (relu ? (float)n.features : 1);
    nn_class_activation(f, n.features, 1, gradient, c, n.features, relu, y + b * n.features);
  }
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_LINEAR,
                  .dims = 2,
                  .channels = 1,
                  .batch = x.shape[0],
                  .size = {(int32_t)h, (int32_t)w, 1},
                  .out_size = {(int32_t)n.height, (int32_t)n.width, 1},
                  .x = y,
                  .out = big};
  g->c->resize(g->c, &a);
  output(g, "y", y, x.shape[0] * n.features);
  if (relu) output(g, "upsampled", big, x.shape[0] * n.height * n.width);
  return true;
}

static bool cam(struct golden *g) {
  return activation(g, false);
}

static bool grad_cam(struct golden *g) {
  return activation(g, true);
}

static bool occlusion(struct golden *g) {
  struct array x = input(g, "x");
  struct network n = read_network(g, x);
  int64_t patch = (int64_t)num_param(g, "patch", 1), all = 3 * n.height * n.width;
  int64_t cells = ((n.height + patch - 1) / patch) * ((n.width + patch - 1) / patch);
  float *hidden = take_floats(g, all);
  double *y = take(g, x.shape[0] * cells * 8), *at = take(g, all * 8);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    n.target = target(g, b);
    double whole = logit(&n, doubles(g, x, b));
    for (int64_t k = 0; k < cells; k++) {
      nn_occlude(x.data + b * all, n.height, n.width, patch, k, (float)num_param(g, "baseline", 0),
                 hidden);
      for (int64_t i = 0; i < all; i++) at[i] = (double)hidden[i];
      y[b * cells + k] = whole - logit(&n, at);
    }
  }
  output_doubles(g, "y", y, x.shape[0] * cells);
  return true;
}

/* ---- gradients ---- */

static bool saliency(struct golden *g) {
  struct array x = input(g, "x");
  struct network n = read_network(g, x);
  int64_t space = n.height * n.width;
  double *y = take(g, x.shape[0] * space * 8), *slope = take(g, 3 * space * 8);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    n.target = target(g, b);
    nn_gradient(logit, &n, doubles(g, x, b), 3 * space, 1e-6, slope);
    for (int64_t i = 0; i < space; i++)
      y[b * space + i] =
          fmax(fabs(slope[i]), fmax(fabs(slope[space + i]), fabs(slope[2 * space + i])));
  }
  output_doubles(g, "y", y, x.shape[0] * space);
  return true;
}

static bool gradient(struct golden *g) {
  struct array x = input(g, "x");
  struct network n = read_network(g, x);
  int64_t d = x.n / x.shape[0];
  double *y = take(g, x.n * 8), *times = take(g, x.n * 8);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    n.target = target(g, b);
    nn_gradient(logit, &n, doubles(g, x, b), d, 1e-6, y + b * d);
  }
  for (int64_t i = 0; i < x.n; i++) times[i] = y[i] * (double)x.data[i];
  output_doubles(g, "y", y, x.n);
  output_doubles(g, "times_input", times, x.n);
  return true;
}

static bool integrated_gradients(struct golden *g) {
  struct array x = input(g, "x"), from = input(g, "baseline");
  struct network n = read_network(g, x);
  int64_t d = x.n / x.shape[0];
  double *y = take(g, x.n * 8), *room = take(g, 2 * d * 8), *gap = take(g, x.shape[0] * 8);
  for (int64_t b = 0; b < x.shape[0]; b++) {
    n.target = target(g, b);
    gap[b] = nn_integrated_gradients(logit, &n, doubles(g, x, b), doubles(g, from, b), d,
                                     (int32_t)num_param(g, "steps", 32), 1e-6, room, y + b * d);
  }
  output_doubles(g, "y", y, x.n);
  output_doubles(g, "completeness_gap", gap, x.shape[0]);
  return true;
}

/* ---- judging an explanation ---- */

static double probability(void *self, const double *x) {
  struct network *n = self;
  double sum = 0, y = logit(n, x);
  for (int64_t i = 0; i < n->classes; i++) sum += exp(n->hidden[2][i] - y);
  return 1 / sum;
}

static bool deletion_insertion(struct golden *g) {
  struct array x = input(g, "x"), from = input(g, "baseline"), scores = input(g, "scores");
  struct network n = read_network(g, x);
  int64_t d = x.n / x.shape[0], batch = x.shape[0];
  double *room = take(g, 2 * d * 8), *curves[2], *areas[2];
  for (int i = 0; i < 2; i++) {
    curves[i] = take(g, batch * (d + 1) * 8);
    areas[i] = take(g, batch * 8);
  }
  for (int64_t b = 0; b < batch; b++) {
    n.target = target(g, b);
    nn_deletion_insertion(probability, &n, doubles(g, x, b), doubles(g, from, b),
                          doubles(g, scores, b), d, room, curves[0] + b * (d + 1),
                          curves[1] + b * (d + 1));
    for (int i = 0; i < 2; i++) areas[i][b] = nn_curve_area(curves[i] + b * (d + 1), d + 1);
  }
  output_doubles(g, "deletion_curve", curves[0], batch * (d + 1));
  output_doubles(g, "insertion_curve", curves[1], batch * (d + 1));
  output_doubles(g, "deletion_auc", areas[0], batch);
  output_doubles(g, "insertion_auc", areas[1], batch);
  return true;
}

/* ---- heads that explain themselves ---- */

static bool prototype_head(struct golden *g) {
  struct array z = input(g, "z"), vectors = input(g, "prototypes");
  struct array weight = input(g, "class_weight");
  int64_t batch = z.shape[0], d = z.shape[1], places = z.n / batch / d, n = vectors.shape[0];
  int64_t classes = weight.shape[0], width = z.shape[z.ndim - 1], *at = take(g, n * 8);
  float *distances = take_floats(g, batch * n * places), *nearest = take_floats(g, batch * n);
  float *similarity = take_floats(g, batch * n), *logits = take_floats(g, batch * classes);
  float *room = take_floats(g, classes * n);
  int32_t *location = take(g, batch * n * 2 * 4);
  double epsilon = num_param(g, "epsilon", 1e-4);
  for (int64_t b = 0; b < batch; b++) {
    float *here = distances + b * n * places;
    nn_prototype_distances(vectors.data, n, d, z.data + b * d * places, places, 1, places, here);
    nn_prototype_nearest(here, n, places, epsilon, nearest + b * n, at, similarity + b * n);
    nn_concept_answer(weight.data, NULL, similarity + b * n, classes, n, room,
                      logits + b * classes);
    for (int64_t k = 0; k < n; k++) {
      location[(b * n + k) * 2] = (int32_t)(at[k] / width);
      location[(b * n + k) * 2 + 1] = (int32_t)(at[k] % width);
    }
  }
  output(g, "distances", distances, batch * n * places);
  output(g, "min_distance", nearest, batch * n);
  output_ints(g, "min_location", location, batch * n * 2);
  output(g, "similarity", similarity, batch * n);
  output(g, "logits", logits, batch * classes);
  return true;
}

/* The concepts of a batch, sigmoid(W h + b). */
static float *concepts_of(struct golden *g, struct array h, int64_t n) {
  float *c =
      apply(g, input(g, "concept_weight"), input(g, "concept_bias").data, h.data, h.shape[0]);
  g->c->unary(g->c, VIV_SIGMOID, c, c, h.shape[0] * n);
  return c;
}

static bool concept_bottleneck(struct golden *g) {
  struct array h = input(g, "h"), weight = input(g, "y_weight"), bias = input(g, "y_bias");
  struct array instead = input(g, "override"), where = input(g, "override_mask");
  int64_t batch = h.shape[0], classes = weight.shape[0], n = weight.shape[1];
  float *c = concepts_of(g, h, n), *given = take_floats(g, batch * classes * n);
  float *logits = take_floats(g, batch * classes);
  for (int64_t i = 0; instead.data && i < batch * n; i++)
    if (where.data[i] != 0) c[i] = instead.data[i];
  for (int64_t b = 0; b < batch; b++)
    nn_concept_answer(weight.data, bias.data, c + b * n, classes, n, given + b * classes * n,
                      logits + b * classes);
  output(g, "concepts", c, batch * n);
  output(g, "contributions", given, batch * classes * n);
  output(g, "logits", logits, batch * classes);
  return true;
}

static bool senn(struct golden *g) {
  struct array h = input(g, "h");
  int64_t batch = h.shape[0], n = input(g, "concept_weight").shape[0];
  int64_t classes = input(g, "theta_weight").shape[0] / n;
  float *c = concepts_of(g, h, n), *given = take_floats(g, classes * n);
  float *theta = apply(g, input(g, "theta_weight"), input(g, "theta_bias").data, h.data, batch);
  float *logits = take_floats(g, batch * classes);
  for (int64_t b = 0; b < batch; b++)
    nn_concept_answer(theta + b * classes * n, NULL, c + b * n, classes, n, given,
                      logits + b * classes);
  output(g, "theta", theta, batch * classes * n);
  output(g, "logits", logits, batch * classes);
  return true;
}

const struct op explain_ops[] = {{"attention_rollout", attention_rollout},
                                 {"network", network},
                                 {"cam", cam},
                                 {"grad_cam", grad_cam},
                                 {"occlusion", occlusion},
                                 {"saliency", saliency},
                                 {"gradient", gradient},
                                 {"integrated_gradients", integrated_gradients},
                                 {"deletion_insertion", deletion_insertion},
                                 {"prototype_head", prototype_head},
                                 {"concept_bottleneck", concept_bottleneck},
                                 {"senn", senn},
                                 {NULL, NULL}};
