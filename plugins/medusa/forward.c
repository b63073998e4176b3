/* MEDUSA: pictures, the pass, the tasks. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "medusa/medusa.h"

enum { SIDE_MAX = 1 << 14 };

/* ---- pictures ---- */

static const uint8_t *resized(nn_pass *p, const uint8_t *x, int32_t height, int32_t width,
                              int32_t channels, int32_t side) {
  const viv_compute *c = nn_compute_of(p);
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = VIV_RESIZE_OPENCV,
                     .filter = VIV_LINEAR,
                     .height = height,
                     .width = width,
                     .channels = channels,
                     .out_height = side,
                     .out_width = side,
                     .x = x,
                     .out = nn_bytes(p, (int64_t)side * side * channels, 1)};
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  return a.out;
}

/* Minus its mean, over its deviation. */
static void standardise(const uint8_t *x, int64_t n, float *to) {
  double sum = 0, square = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i];
  for (int64_t i = 0; i < n; i++) square += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
  double deviation = sqrt(square / (double)n);
  for (int64_t i = 0; i < n; i++)
    to[i] = (float)(deviation > 0 ? (x[i] - sum / (double)n) / deviation : 0);
}

struct batch {
  int32_t n;
  nn_map pixels, grey; /* [n, 3, s, s], [n, 1, m, m] */
};

static nn_map new_map(nn_pass *p, int32_t n, int32_t channels, int32_t side) {
  int32_t size[2] = {side, side};
  return nn_new_map(p, n, channels, 2, size, VIV_CHANNELS_FIRST);
}

/* One picture, blue first; gray as libpng makes it of a coloured one. */
static void prepare(nn_pass *p, const struct medusa_model *m, int32_t at, bool emit,
                    struct batch *b) {
  const viv_tensor *t = nn_input_at(p, "image", at);
  if (!t || t->dtype != VIV_U8 || t->ndim != 3 || t->shape[2] != 3 || t->shape[0] < 1 ||
      t->shape[1] < 1 || t->shape[0] > INT32_MAX / 4 || t->shape[1] > INT32_MAX / 4)
    nn_stop(p, VIV_BAD_INPUT, "image", "picture %d must be bytes [height, width, 3]", (int)at);
  const uint8_t *x = t->data;
  int32_t height = (int32_t)t->shape[0], width = (int32_t)t->shape[1], s = m->size;
  int64_t pixels = (int64_t)height * width, plane = (int64_t)s * s;
  int64_t grey_plane = (int64_t)m->grey_size * m->grey_size;
  uint8_t *grey = nn_bytes(p, pixels, 1);
  for (int64_t i = 0; i < pixels; i++)
    grey[i] = (uint8_t)((9798 * x[3 * i] + 19235 * x[3 * i + 1] + 3735 * x[3 * i + 2]) >> 15);
  const uint8_t *small = resized(p, grey, height, width, 1, m->grey_size);
  standardise(small, grey_plane, b->grey.x + at * grey_plane);
  const uint8_t *rgb = resized(p, x, height, width, 3, s);
  float *to = b->pixels.x + 3 * at * plane;
  for (int64_t i = 0; i < plane; i++)
    for (int k = 0; k < 3; k++) to[k * plane + i] = (float)rgb[3 * i + 2 - k] / 255;
  if (!emit) return;
  uint8_t *bgr = nn_bytes(p, 3 * plane, 1);
  for (int64_t i = 0; i < plane; i++)
    for (int k = 0; k < 3; k++) bgr[3 * i + k] = rgb[3 * i + 2 - k];
  nn_result(p, VIV_U8, grey, NN_DIMS(height, width), b->n == 1 ? "gray" : "gray.%d", (int)at);
  nn_result(p, VIV_U8, bgr, NN_DIMS(s, s, 3), b->n == 1 ? "resized" : "resized.%d", (int)at);
}

static struct batch prepared(nn_pass *p, bool emit) {
  const struct medusa_model *m = nn_net_of(p);
  struct batch b = {.n = nn_count(p, "image")};
  if (b.n < 1) nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  b.pixels = new_map(p, b.n, 3, m->size);
  b.grey = new_map(p, b.n, 1, m->grey_size);
  for (int32_t i = 0; i < b.n; i++) {
    nn_pass_poll(p);
    nn_mark mark = nn_here(p);
    prepare(p, m, i, emit, &b);
    nn_release(p, mark);
  }
  return b;
}

static nn_map tensor(nn_pass *p, const char *name, int64_t channels) {
  int64_t shape[4] = {0, channels, 0, 0};
  nn_map x = {.channels = (int32_t)channels, .dims = 2, .layout = VIV_CHANNELS_FIRST};
  x.x = (float *)(uintptr_t)nn_need_floats(p, name, 4, shape); /* read only */
  for (int i = 0; i < 4; i++)
    if (shape[i] < 1 || shape[i] > SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, name, "axis %d has the length %lld", i, (long long)shape[i]);
  x.batch = (int32_t)shape[0];
  x.size[0] = (int32_t)shape[2];
  x.size[1] = (int32_t)shape[3];
  x.size[2] = 1;
  return x;
}

static struct batch read_batch(nn_pass *p) {
  if (!nn_count(p, "pixel_values") && nn_count(p, "image")) return prepared(p, false);
  struct batch b = {.pixels = tensor(p, "pixel_values", 3),
                    .grey = tensor(p, "pixel_values_gray", 1)};
  b.n = b.pixels.batch;
  if (b.grey.batch != b.n)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values_gray", "has %d pictures, pixel_values %d",
            (int)b.grey.batch, (int)b.n);
  return b;
}

/* ---- the pass ---- */

static void tap(nn_pass *p, const nn_map *x, const char *what, int32_t i) {
  if (!nn_taps(p, "%s.%d", what, (int)i)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s.%d", what, (int)i);
  nn_release(p, mark);
}

static nn_map pair(nn_pass *p, const struct medusa_pair *w, const nn_map *x) {
  nn_map a = nn_apply_conv(p, &w->a, VIV_RELU, x);
  return nn_apply_conv(p, &w->b, VIV_RELU, &a);
}

/* Channels of a and then of b; channels last. */
static nn_map joined(nn_pass *p, const nn_map *a, const nn_map *b) {
  nn_map y = *a;
  y.channels += b->channels;
  y.x = nn_room(p, nn_elements(&y));
  int64_t rows = y.batch * nn_space(&y);
  for (int64_t r = 0; r < rows; r++) {
    memcpy(y.x + r * y.channels, a->x + r * a->channels, (size_t)a->channels * sizeof *y.x);
    memcpy(y.x + r * y.channels + a->channels, b->x + r * b->channels,
           (size_t)b->channels * sizeof *y.x);
  }
  return y;
}

/* [B, 1, m, m] -> the global attention, of the same size, channels last */
static nn_map global_attention(nn_pass *p, const struct medusa_model *m, const nn_map *grey) {
  nn_map skip[MEDUSA_DEPTH], x = nn_to_layout(p, grey, VIV_CHANNELS_LAST);
  for (int32_t i = 0; i < m->depth; i++) {
    skip[i] = pair(p, &m->down[i], &x);
    x = nn_pool2d(p, VIV_POOL_MAX, 2, 2, 0, false, &skip[i]);
  }
  x = pair(p, &m->mid, &x);
  for (int32_t i = m->depth - 1; i >= 0; i--) {
    nn_pass_poll(p);
    nn_map up = nn_resize_map(p, VIV_LINEAR, false, skip[i].size, &x);
    nn_map both = joined(p, &skip[i], &up);
    x = pair(p, &m->up[i], &both);
  }
  return nn_apply_conv(p, &m->out, VIV_SIGMOID, &x);
}

/* x becomes x A, or x (1 + A); answers A [B, 1, h, w]. */
static nn_map refine(nn_pass *p, const struct medusa_model *m, int32_t i, const nn_map *global,
                     nn_map *x) {
  nn_map g = nn_resize_map(p, VIV_LINEAR, false, x->size, global), both = joined(p, &g, x);
  nn_map hidden = nn_apply_conv(p, &m->hidden[i], VIV_RELU, &both);
  nn_map a = nn_apply_conv(p, &m->local[i], VIV_SIGMOID, &hidden);
  int64_t rows = x->batch * nn_space(x);
  for (int64_t r = 0; r < rows; r++)
    for (int32_t c = 0; c < x->channels; c++)
      x->x[r * x->channels + c] *= m->residual ? 1 + a.x[r] : a.x[r];
  tap(p, x, "refined", i);
  return a;
}

/* logits [B, classes]; with emit the attention maps are handed over. */
static float *network(nn_pass *p, const struct batch *b, bool emit) {
  const struct medusa_model *m = nn_net_of(p);
  nn_map global = global_attention(p, m, &b->grey);
  if (emit) /* one channel: both layouts are the same */
    nn_result(p, VIV_F32, global.x, NN_DIMS(b->n, 1, global.size[0], global.size[1]),
              "global_attention");
  nn_map x = nn_resnet_stem(p, &m->classifier, &b->pixels);
  for (int32_t i = 0; i < 4; i++) {
    x = nn_resnet_stage(p, &m->classifier, i, &x);
    nn_map local = refine(p, m, i, &global, &x);
    if (emit)
      nn_result(p, VIV_F32, local.x, NN_DIMS(b->n, 1, local.size[0], local.size[1]), "attention.%d",
                (int)i);
  }
  int64_t space = nn_space(&x), d = x.channels;
  float *mean = nn_room(p, b->n * d); /* [B, d] */
  for (int32_t n = 0; n < b->n; n++)
    for (int64_t c = 0; c < d; c++) {
      double sum = 0;
      for (int64_t i = 0; i < space; i++) sum += (double)x.x[(n * space + i) * d + c];
      mean[n * d + c] = (float)(sum / (double)space);
    }
  return nn_apply_linear(p, &m->head, 0, mean, b->n);
}

/* ---- tasks ---- */

static int32_t preprocess(nn_pass *p) {
  struct batch b = prepared(p, true);
  nn_result(p, VIV_F32, b.pixels.x, NN_DIMS(b.n, 3, b.pixels.size[0], b.pixels.size[1]),
            "pixel_values");
  nn_result(p, VIV_F32, b.grey.x, NN_DIMS(b.n, 1, b.grey.size[0], b.grey.size[1]),
            "pixel_values_gray");
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct medusa_model *m = nn_net_of(p);
  struct batch b = read_batch(p);
  nn_result(p, VIV_F32, network(p, &b, true), NN_DIMS(b.n, m->classes), "logits");
  return VIV_DONE;
}

static int32_t classify(nn_pass *p) {
  const struct medusa_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  int64_t k = nn_param_int(p, "top_k", m->classes < 5 ? m->classes : 5, 1, m->classes);
  struct batch b = read_batch(p);
  float *odds = network(p, &b, false);
  c->softmax(c, odds, b.n, m->classes, odds);
  int32_t *ids = nn_bytes(p, b.n * k, sizeof *ids);
  c->top_k(c, odds, b.n, m->classes, k, NULL, ids);
  nn_result(p, VIV_F32, odds, NN_DIMS(b.n, m->classes), "probabilities");
  nn_result(p, VIV_I32, ids, NN_DIMS(b.n, k), "top_ids");
  return VIV_DONE;
}

const nn_task medusa_tasks[] = {
    {"classify", classify}, {"forward", forward}, {"preprocess", preprocess}, {NULL, NULL}};
