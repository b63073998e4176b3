/* The tasks of an autoencoder: the masked network for tensors, features and classes for a person. */
#include <math.h>

#include "autoencoder/autoencoder.h"

enum { SIDE_MAX = 1 << 14 };

struct autoencoder_pixels autoencoder_read(nn_pass *p) {
  const struct autoencoder_model *m = nn_net_of(p);
  struct autoencoder_pixels in = {.dims = 2, .size = {1, 1, 1}};
  if (!nn_count(p, "pixel_values") && nn_count(p, "image")) {
    in.x = nn_take_pictures(p, &m->prepare, "image", &in.n, &in.size[0], &in.size[1]);
    return in;
  }
  const viv_tensor *t = nn_need(p, "pixel_values");
  int64_t shape[5] = {0, 3, 0, 0, 0};
  if (m->volumes && t->ndim == 5) in.dims = 3;
  in.x = nn_need_floats(p, "pixel_values", 2 + in.dims, shape);
  in.n = shape[0];
  for (int i = 0; i < in.dims; i++) in.size[i] = shape[2 + i];
  for (int i = 0; i < 2 + in.dims; i++)
    if (shape[i] < 1 || shape[i] > SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values", "axis %d has the length %lld", i,
              (long long)shape[i]);
  return in;
}

static int32_t preprocess(nn_pass *p) {
  const struct autoencoder_model *m = nn_net_of(p);
  int64_t n = 0, height = 0, width = 0;
  if (!nn_count(p, "image"))
    nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  const float *x = nn_take_pictures(p, &m->prepare, "image", &n, &height, &width);
  nn_result(p, VIV_F32, x, NN_DIMS(n, 3, height, width), "pixel_values");
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct autoencoder_model *m = nn_net_of(p);
  return m->variant->forward(p);
}

/* The class token or the mean of the patches of each input, of length 1 unless normalize is false. */
static int32_t embed(nn_pass *p) {
  const struct autoencoder_model *m = nn_net_of(p);
  viv_str pooling = nn_param_text(p, "pooling", "cls");
  bool mean = nn_is(pooling, "mean"), normalize = nn_param_flag(p, "normalize", true);
  if (!mean && !nn_is(pooling, "cls"))
    nn_stop(p, VIV_BAD_INPUT, "params", "pooling is \"%.*s\", but must be cls or mean",
            (int)pooling.len, pooling.ptr);
  struct autoencoder_pixels in = autoencoder_read(p);
  int64_t tokens = 0, d = m->width;
  const float *x = m->variant->encode(p, &in, &tokens);
  if (nn_wants_result(p, "last_hidden_state"))
    nn_result(p, VIV_F32, x, NN_DIMS(in.n, tokens, d), "last_hidden_state");
  if (!nn_wants_result(p, "embeddings")) return VIV_DONE;
  float *out = nn_room(p, in.n * d);
  for (int64_t b = 0; b < in.n; b++) {
    double square = 0;
    for (int64_t i = 0; i < d; i++) {
      const float *at = x + b * tokens * d + i;
      double sum = 0;
      for (int64_t t = 1; mean && t < tokens; t++) sum += (double)at[t * d];
      out[b * d + i] = mean ? (float)(sum / (double)(tokens - 1)) : at[0];
      square += (double)out[b * d + i] * (double)out[b * d + i];
    }
    double scale = normalize ? 1 / fmax(sqrt(square), 1e-12) : 1;
    for (int64_t i = 0; i < d; i++) out[b * d + i] = (float)((double)out[b * d + i] * scale);
  }
  nn_result(p, VIV_F32, out, NN_DIMS(in.n, d), "embeddings");
  return VIV_DONE;
}

static int32_t classify(nn_pass *p) {
  const struct autoencoder_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t n = m->classes, tokens = 0, d = m->width;
  if (!n)
    nn_stop(p, VIV_NEVER, "task", "this checkpoint has no classifier: embed answers its features");
  int64_t k = nn_param_int(p, "top_k", n < 5 ? n : 5, 1, n);
  struct autoencoder_pixels in = autoencoder_read(p);
  const float *x = m->variant->encode(p, &in, &tokens);
  float *first = nn_room(p, in.n * d), *odds = nn_room(p, in.n * n);
  for (int64_t b = 0; b < in.n; b++)
    for (int64_t i = 0; i < d; i++) first[b * d + i] = x[b * tokens * d + i];
  c->softmax(c, nn_apply_linear(p, &m->head, 0, first, in.n), in.n, n, odds);
  int32_t *ids = nn_bytes(p, in.n * k, sizeof *ids), *best = nn_bytes(p, in.n, sizeof *best);
  c->top_k(c, odds, in.n, n, k, NULL, ids);
  for (int64_t b = 0; b < in.n; b++) best[b] = ids[b * k];
  nn_result(p, VIV_F32, odds, NN_DIMS(in.n, n), "probabilities");
  nn_result(p, VIV_I32, ids, NN_DIMS(in.n, k), "top_ids");
  nn_result(p, VIV_I32, best, NN_DIMS(in.n), "labels");
  return VIV_DONE;
}

const nn_task autoencoder_tasks[] = {{"embed", embed},
                                     {"classify", classify},
                                     {"forward", forward},
                                     {"preprocess", preprocess},
                                     {NULL, NULL}};
