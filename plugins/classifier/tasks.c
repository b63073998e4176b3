/* The tasks of a classifier: official tensors step by step, and a person's picture through all of them. */
#include <math.h>

#include "classifier/classifier.h"

static int32_t preprocess(nn_pass *p) {
  const struct classifier_model *m = nn_net_of(p);
  classifier_prepare(p, &m->prepare, true);
  return VIV_DONE;
}

static struct classifier_features features_of(nn_pass *p) {
  const struct classifier_model *m = nn_net_of(p);
  classifier_pictures in = classifier_read_pictures(p, &m->prepare);
  return m->variant->network(p, &in);
}

static int32_t forward(nn_pass *p) {
  const struct classifier_model *m = nn_net_of(p);
  struct classifier_features f = features_of(p);
  if (m->variant->answer) {
    m->variant->answer(p, &f, true);
    return VIV_DONE;
  }
  if (nn_wants_result(p, "last_hidden_state"))
    nn_result(p, VIV_F32, f.hidden, f.ndim, f.shape, "last_hidden_state");
  if (nn_wants_result(p, "features"))
    nn_result(p, VIV_F32, f.pooled, NN_DIMS(f.batch, m->width), "features");
  if (f.first && nn_wants_result(p, "pooler_output"))
    nn_result(p, VIV_F32, f.first, NN_DIMS(f.batch, f.first_width), "pooler_output");
  if (m->classes)
    nn_result(p, VIV_F32, classifier_answer_of(p, &f, true).logits, NN_DIMS(f.batch, m->classes),
              "logits");
  return VIV_DONE;
}

static int32_t classify(nn_pass *p) {
  const struct classifier_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t n = m->classes;
  if (!n)
    nn_stop(p, VIV_NEVER, "task", "this checkpoint has no classifier: embed answers its features");
  int64_t k = nn_param_int(p, "top_k", n < 5 ? n : 5, 1, n);
  struct classifier_features f = features_of(p);
  int64_t batch = f.views ? f.batch / f.views : f.batch;
  const float *logits = classifier_answer_of(p, &f, false).logits;
  float *odds = nn_room(p, batch * n); /* [B, classes] */
  c->softmax(c, logits, batch, n, odds);

  int32_t *ids = nn_bytes(p, batch * k, sizeof *ids), *first = nn_bytes(p, batch, sizeof *first);
  c->top_k(c, odds, batch, n, k, NULL, ids);
  for (int64_t b = 0; b < batch; b++) first[b] = ids[b * k];
  nn_result(p, VIV_F32, odds, NN_DIMS(batch, n), "probabilities");
  nn_result(p, VIV_I32, ids, NN_DIMS(batch, k), "top_ids");
  nn_result(p, VIV_I32, first, NN_DIMS(batch), "labels");
  return VIV_DONE;
}

/* What describes a picture: the head's input, or of a transformer the class token or the mean of its
 * patches. [batch, *width] */
static const float *described(nn_pass *p, const struct classifier_features *f, int64_t *width) {
  const struct classifier_model *m = nn_net_of(p);
  viv_str pooling = nn_param_text(p, "pooling", "features");
  bool mean = nn_is(pooling, "mean"), cls = nn_is(pooling, "cls");
  *width = m->width;
  if (nn_is(pooling, "features")) return f->pooled;
  if (!mean && !cls)
    nn_stop(p, VIV_BAD_INPUT, "params", "pooling is \"%.*s\", but must be features, cls or mean",
            (int)pooling.len, pooling.ptr);
  if (!f->extra)
    nn_stop(p, VIV_BAD_INPUT, "params", "pooling: this model has no class token, only features");
  int64_t n = f->shape[1], d = f->shape[2];
  float *out = nn_room(p, f->batch * d);
  for (int64_t b = 0; b < f->batch; b++)
    for (int64_t i = 0; i < d; i++) {
      const float *x = f->hidden + b * n * d + i;
      double sum = 0;
      for (int64_t t = f->extra; mean && t < n; t++) sum += (double)x[t * d];
      out[b * d + i] = mean ? (float)(sum / (double)(n - f->extra)) : x[0];
    }
  *width = d;
  return out;
}

/* A row for each picture, of length 1 unless normalize is false. */
static int32_t embed(nn_pass *p) {
  bool normalize = nn_param_flag(p, "normalize", true);
  struct classifier_features f = features_of(p);
  int64_t width = 0;
  const float *from = described(p, &f, &width);
  int64_t views = f.views ? f.views : 1, batch = f.batch / views;
  float *e = nn_room(p, batch * width);
  for (int64_t b = 0; b < batch; b++) {
    double square = 0;
    const float *x = from + b * views * width;
    for (int64_t i = 0; i < width; i++) square += (double)x[i] * (double)x[i];
    double scale = normalize ? 1 / fmax(sqrt(square), 1e-12) : 1;
    for (int64_t i = 0; i < width; i++) e[b * width + i] = (float)((double)x[i] * scale);
  }
  nn_result(p, VIV_F32, e, NN_DIMS(batch, width), "embeddings");
  return VIV_DONE;
}

const nn_task classifier_tasks[] = {{"classify", classify},          {"embed", embed},
                                    {"explain", classifier_explain}, {"forward", forward},
                                    {"preprocess", preprocess},      {NULL, NULL}};
