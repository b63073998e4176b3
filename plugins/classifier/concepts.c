/* Heads that explain themselves, on any backbone of this family; config.json's `concept_head` names one:
 *
 *   {"kind": "prototype", "epsilon": 1e-4}   ProtoPNet: the last map, perhaps through add_on_layers.0
 *       and .2 (1x1, ReLU, 1x1, sigmoid); prototype_vectors [n, d, 1, 1], last_layer.weight [classes, n]
 *   {"kind": "concept_bottleneck"}           concept_layer [n, width], class_layer [classes, n]
 *   {"kind": "senn"}                         concept_layer [n, width], theta_layer [classes n, width]
 *
 * Concepts are sigmoid(concept_layer(features)), or how much the picture is like each prototype; a
 * class's logit is a sum over them. What a concept is can be overruled (`override`). Formulas and their
 * sources: nn/concepts.h. */
#include "nn/concepts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classifier/classifier.h"

enum { CONCEPTS_MAX = 1 << 16 };

static const char *const kind_names[] = {"", "prototype", "concept_bottleneck", "senn"};

void classifier_read_concepts(nn_config *k, const viv_model_source *source,
                              struct classifier_model *m) {
  struct classifier_concepts *c = &m->concepts;
  const viv_json *node = nn_key(k, "concept_head");
  if (!node || k->status) return;
  nn_config inner = nn_config_open(k->host, node, "config.json concept_head", k->error);
  viv_str kind = nn_text(&inner, "kind", "");
  c->epsilon = nn_num(&inner, "epsilon", 1e-4, 1e-12, 1);
  for (int32_t i = 1; i <= CLASSIFIER_SENN; i++)
    if (nn_is(kind, kind_names[i])) c->kind = i;
  if (inner.status) {
    k->status = inner.status;
    return;
  }
  if (!c->kind || m->classes || m->variant->answer) {
    k->status = nn_fail(k->error, VIV_BAD_INPUT, inner.where, "%s",
                        !c->kind ? "kind must be prototype, concept_bottleneck or senn"
                                 : "this model has a head of its own already");
    return;
  }
  const char *concept =
      c->kind == CLASSIFIER_PROTOTYPE ? "prototype_vectors" : "concept_layer.weight";
  const char *answer = c->kind == CLASSIFIER_PROTOTYPE    ? "last_layer.weight"
                       : c->kind == CLASSIFIER_BOTTLENECK ? "class_layer.weight"
                                                          : "theta_layer.weight";
  c->n = nn_axis(k->host, source, concept, 0, 0);
  c->d = nn_axis(k->host, source, concept, 1, 0);
  c->added = c->kind == CLASSIFIER_PROTOTYPE && nn_has(k->host, source, "add_on_layers.0.weight");
  m->classes = nn_axis(k->host, source, answer, 0, 0);
  if (c->kind == CLASSIFIER_SENN && c->n) m->classes /= c->n;
  if (c->n < 1 || c->n > CONCEPTS_MAX || m->classes < 1)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, inner.where,
                        "the checkpoint has no %s and %s of a concept head", concept, answer);
  int64_t channels = m->map_channels ? m->map_channels : m->width;
  int64_t first = c->added ? nn_axis(k->host, source, "add_on_layers.0.weight", 1, 0) : c->d;
  if (!k->status && c->kind == CLASSIFIER_PROTOTYPE && !m->means && !m->rolls)
    k->status = nn_fail(k->error, VIV_NEVER, inner.where, "this model has no map of features");
  if (!k->status && c->kind == CLASSIFIER_PROTOTYPE && first != channels)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, inner.where,
                        "the head takes %lld channels, but the map has %lld", (long long)first,
                        (long long)channels);
  m->means = false; /* no class activation: the head is not linear in the map */
}

void classifier_load_concepts(nn_loader *l, struct classifier_model *m) {
  struct classifier_concepts *c = &m->concepts;
  nn_at(l, "%s", "");
  if (c->kind == CLASSIFIER_PROTOTYPE) {
    if (c->added) {
      int64_t channels = m->map_channels ? m->map_channels : m->width;
      nn_conv_spec one = {.in = (int32_t)channels, .out = (int32_t)c->d, .kernel = 1, .bias = true};
      nn_load_conv(l, "add_on_layers.0", &one, &c->add_on[0]);
      one.in = (int32_t)c->d;
      nn_load_conv(l, "add_on_layers.2", &one, &c->add_on[1]);
    }
    nn_load_tensor(l, "prototype_vectors", true, 4, (int64_t[]){c->n, c->d, 1, 1}, &c->prototypes);
    nn_load_tensor(l, "last_layer.weight", true, 2, (int64_t[]){m->classes, c->n}, &c->weight);
    nn_ignore(l, "ones"); /* a constant that ProtoPNet saves for its distances */
    return;
  }
  nn_load_linear(l, "concept_layer", c->n, m->width, true, &c->concept);
  if (c->kind == CLASSIFIER_SENN) {
    nn_load_linear(l, "theta_layer", m->classes * c->n, m->width, true, &c->theta);
    return;
  }
  nn_load_tensor(l, "class_layer.weight", true, 2, (int64_t[]){m->classes, c->n}, &c->weight);
  nn_load_tensor(l, "class_layer.bias", true, 1, (int64_t[]){m->classes}, &c->bias);
}

/* ---- answering ---- */

/* What the request says instead of the network: {"concept's number": value}, of every picture. */
static void overrule(nn_pass *p, const struct classifier_concepts *c, int64_t batch,
                     float *concepts) {
  const viv_host *host = nn_host_of(p);
  const viv_json *all = nn_param(p, "override");
  if (!all) return;
  if (c->kind == CLASSIFIER_PROTOTYPE || host->json_type(all) != VIV_JSON_OBJECT)
    nn_stop(p, VIV_BAD_INPUT, "params.override", "%s",
            c->kind == CLASSIFIER_PROTOTYPE
                ? "prototypes are measured, only concepts can be overruled"
                : "must be an object from concept to value");
  for (int64_t i = 0; i < host->json_count(all); i++) {
    const viv_json *one = host->json_item(all, i);
    char key[16] = "", *end = key;
    viv_str name = host->json_key(one);
    if (name.len && name.len < sizeof key) memcpy(key, name.ptr, name.len);
    long at = strtol(key, &end, 10);
    double value = host->json_type(one) == VIV_JSON_NUMBER ? host->json_number(one) : -1;
    if (end == key || *end || at < 0 || at >= c->n || !(value >= 0 && value <= 1))
      nn_stop(p, VIV_BAD_INPUT, "params.override",
              "\"%.*s\": concepts are 0 to %lld, their values 0 to 1",
              (int)(name.len < 40 ? name.len : 40), name.ptr, (long long)c->n - 1);
    for (int64_t b = 0; b < batch; b++) concepts[b * c->n + at] = (float)value;
  }
}

/* Where the last map's numbers lie: channel c of place s of picture b is at x[b * picture + s * place +
 * c * channel]. */
struct places {
  const float *x;
  int64_t picture, place, channel, n, d;
  int32_t height, width;
};

static struct places places_of(nn_pass *p, const struct classifier_model *m,
                               const struct classifier_features *f) {
  bool planes = f->ndim == 4;
  struct places at = {.height = planes ? (int32_t)f->shape[2] : f->grid[0],
                      .width = planes ? (int32_t)f->shape[3] : f->grid[1]};
  at.n = (int64_t)at.height * at.width;
  at.d = planes ? f->shape[1] : f->shape[2];
  at.place = planes ? 1 : at.d;
  at.channel = planes ? at.n : 1;
  at.picture = planes ? at.d * at.n : f->shape[1] * at.d;
  at.x = f->hidden + (planes ? 0 : f->extra * at.d);
  if (m->concepts.added) {
    float *joined = nn_room(p, f->batch * at.n * at.d);
    for (int64_t b = 0; b < f->batch; b++)
      for (int64_t s = 0; s < at.n; s++)
        for (int64_t c = 0; c < at.d; c++)
          joined[(b * at.n + s) * at.d + c] = at.x[b * at.picture + s * at.place + c * at.channel];
    nn_map x = {.x = joined,
                .batch = (int32_t)f->batch,
                .channels = (int32_t)at.d,
                .dims = 2,
                .size = {at.height, at.width, 1},
                .layout = VIV_CHANNELS_LAST};
    nn_map y = nn_apply_conv(p, &m->concepts.add_on[0], VIV_RELU, &x);
    y = nn_apply_conv(p, &m->concepts.add_on[1], VIV_SIGMOID, &y);
    at.x = y.x;
    at.d = y.channels;
    at.place = at.d;
    at.channel = 1;
    at.picture = at.n * at.d;
  }
  return at;
}

static void measure(nn_pass *p, const struct classifier_model *m,
                    const struct classifier_features *f, bool emit, float *concepts,
                    struct classifier_answer *a) {
  const struct classifier_concepts *c = &m->concepts;
  struct places at = places_of(p, m, f);
  float *distances = nn_room(p, f->batch * c->n * at.n), *nearest = nn_room(p, f->batch * c->n);
  int64_t *place = nn_bytes(p, c->n, sizeof *place);
  int32_t *where = nn_bytes(p, f->batch * c->n * 2, sizeof *where);
  for (int64_t b = 0; b < f->batch; b++) {
    float *here = distances + b * c->n * at.n;
    nn_prototype_distances(c->prototypes, c->n, c->d, at.x + b * at.picture, at.n, at.place,
                           at.channel, here);
    nn_prototype_nearest(here, c->n, at.n, c->epsilon, nearest + b * c->n, place,
                         concepts + b * c->n);
    for (int64_t k = 0; k < c->n; k++) {
      where[(b * c->n + k) * 2] = (int32_t)(place[k] / at.width);
      where[(b * c->n + k) * 2 + 1] = (int32_t)(place[k] % at.width);
    }
  }
  a->distances = distances;
  a->height = at.height;
  a->width = at.width;
  if (!emit) return;
  nn_tap(p, distances, NN_DIMS(f->batch, c->n, at.height, at.width), "distances");
  nn_result(p, VIV_F32, nearest, NN_DIMS(f->batch, c->n), "min_distance");
  nn_result(p, VIV_I32, where, NN_DIMS(f->batch, c->n, 2), "min_location");
  nn_result(p, VIV_F32, concepts, NN_DIMS(f->batch, c->n), "similarity");
}

static struct classifier_answer by_concepts(nn_pass *p, const struct classifier_model *m,
                                            const struct classifier_features *f, bool emit) {
  const struct classifier_concepts *c = &m->concepts;
  struct classifier_answer a = {0};
  int64_t each = m->classes * c->n;
  float *concepts = nn_room(p, f->batch * c->n), *given = nn_room(p, f->batch * each);
  float *logits = nn_room(p, f->batch * m->classes), *theta = NULL;
  if (c->kind == CLASSIFIER_PROTOTYPE)
    measure(p, m, f, emit, concepts, &a);
  else
    nn_linear_to(p, &c->concept, VIV_SIGMOID, NULL, f->pooled, f->batch, concepts);
  overrule(p, c, f->batch, concepts);
  if (c->kind == CLASSIFIER_SENN) theta = nn_apply_linear(p, &c->theta, 0, f->pooled, f->batch);
  for (int64_t b = 0; b < f->batch; b++)
    nn_concept_answer(theta ? theta + b * each : c->weight, c->bias, concepts + b * c->n,
                      m->classes, c->n, given + b * each, logits + b * m->classes);
  a.logits = logits;
  a.concepts = concepts;
  a.contributions = given;
  if (!emit) return a;
  if (c->kind != CLASSIFIER_PROTOTYPE)
    nn_result(p, VIV_F32, concepts, NN_DIMS(f->batch, c->n), "concepts");
  if (theta) nn_result(p, VIV_F32, theta, NN_DIMS(f->batch, m->classes, c->n), "theta");
  if (nn_wants_result(p, "contributions"))
    nn_result(p, VIV_F32, given, NN_DIMS(f->batch, m->classes, c->n), "contributions");
  return a;
}

struct classifier_answer classifier_answer_of(nn_pass *p, const struct classifier_features *f,
                                              bool emit) {
  const struct classifier_model *m = nn_net_of(p);
  if (m->concepts.kind) return by_concepts(p, m, f, emit);
  return (struct classifier_answer){
      .logits = m->variant->answer ? m->variant->answer(p, f, emit)
                                   : nn_apply_linear(p, &m->head, 0, f->pooled, f->batch)};
}
