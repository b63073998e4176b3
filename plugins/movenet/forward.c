/* MoveNet: the pass.
 *
 *   pixels [S, S, 3], bytes, channels last as everything here
 *     |  x = (pixel - offset) scale - shift
 *     |  MobileNetV2: stem 3x3 s2, 17 blocks (expand 1x1 relu6, depthwise 3x3 relu6, project 1x1,
 *     |               + x where size and width stay), last 1x1 relu6      [S/32, S/32, 1280]
 *     |  feature pyramid, three times: y = relu(pointwise(depthwise(up2(y) + lateral(map))))
 *     |                                                                   [S/4, S/4, 24]
 *     |  four heads depthwise 3x3, 1x1 relu, 1x1: centre 1, heatmap 17, regress 34, offsets 34
 *     |
 *   centre   c = argmax sigmoid(centre) * weight                  the person in the middle
 *   guess    g_k = c + regress[c, k]                              (y, x) of each keypoint
 *   cell     m_k = argmax heat_k / (|cell - g_k| + 1.8)           heat = sigmoid(heatmap)
 *   keypoint (m_k + offsets[m_k, k]) / (S/4), score heat_k[m_k]
 *
 * Official: the graph that tfhub.dev publishes; constants are the file's. */
#include <math.h>
#include <string.h>

#include "movenet/movenet.h"

/* ---- the network ---- */

static nn_map block(nn_pass *p, const struct movenet_block *w, const nn_map *x) {
  nn_map y = w->expand.w ? nn_apply_same_conv(p, &w->expand, VIV_RELU6, NULL, x) : *x;
  y = nn_apply_same_conv(p, &w->depthwise, VIV_RELU6, NULL, &y);
  bool stays = w->depthwise.stride == 1 && w->project.out == x->channels;
  return nn_apply_same_conv(p, &w->project, 0, stays ? x->x : NULL, &y);
}

/* up2(y) + lateral(map), mixed */
static nn_map pyramid_level(nn_pass *p, const struct movenet_level *w, const nn_map *map,
                            const nn_map *up) {
  nn_map sum = nn_apply_same_conv(p, &w->lateral, 0, up->x, map);
  sum = nn_apply_same_conv(p, &w->depthwise, 0, NULL, &sum);
  return nn_apply_same_conv(p, &w->pointwise, VIV_RELU, NULL, &sum);
}

static nn_map head(nn_pass *p, const struct movenet_head *w, const nn_map *x) {
  nn_map y = nn_apply_same_conv(p, &w->depthwise, 0, NULL, x);
  y = nn_apply_same_conv(p, &w->hidden, VIV_RELU, NULL, &y);
  return nn_apply_same_conv(p, &w->out, 0, NULL, &y);
}

/* Rows [from, to) of a map; its name says which. */
static void tap_rows(nn_pass *p, const nn_map *map, int32_t from, int32_t to, const char *name) {
  if (map->size[0] < to) return;
  int64_t row = (int64_t)map->size[1] * map->channels;
  nn_tap(p, map->x + from * row, NN_DIMS(to - from, map->size[1], map->channels), "%s", name);
}

/* pixels [size, size, 3] -> features [size / 4, size / 4, 24] */
static nn_map features(nn_pass *p, const struct movenet_model *m, const uint8_t *pixels) {
  int32_t size[2] = {m->size, m->size};
  nn_map x = nn_new_map(p, 1, 3, 2, size, VIV_CHANNELS_LAST), maps[MOVENET_LEVELS];
  for (int64_t i = 0; i < nn_elements(&x); i++)
    x.x[i] = ((float)pixels[i] - m->offset[i % 3]) * m->scale[i % 3] - m->shift[0];
  x = nn_apply_same_conv(p, &m->stem, VIV_RELU6, NULL, &x);
  tap_rows(p, &x, 40, 44, "stem_rows40_44");
  for (int32_t i = 0; i < MOVENET_BLOCKS; i++) {
    nn_pass_poll(p);
    x = block(p, &m->block[i], &x);
    /* The last map of each size but the coarsest, which goes on to the top. */
    if (i == 2) maps[2] = x;
    if (i == 5) maps[1] = x;
    if (i == 9) maps[0] = x;
  }
  x = nn_apply_same_conv(p, &m->last, VIV_RELU6, NULL, &x);
  tap_rows(p, &x, 2, 3, "out_relu_row2");
  x = nn_apply_same_conv(p, &m->top, 0, NULL, &x);
  for (int32_t i = 0; i < MOVENET_LEVELS; i++) {
    nn_map up = nn_resize_map(p, VIV_LINEAR, false, maps[i].size, &x);
    if (!i) tap_rows(p, &up, 4, 8, "up0_rows4_8");
    x = pyramid_level(p, &m->level[i], &maps[i], &up);
  }
  tap_rows(p, &x, 20, 24, "fpn_rows20_24");
  return x;
}

/* ---- decoding ---- */

struct person {
  float keypoints[MOVENET_KEYPOINTS * 3]; /* y, x of the input, 0 to 1; score */
  int32_t centre, cell[MOVENET_KEYPOINTS];
};

static void find_keypoint(const struct movenet_model *m, const float *heat, const float *guess,
                          const float *offsets, int32_t k, struct person *out) {
  int64_t cells = (int64_t)m->cells * m->cells, best = 0;
  float best_score = -1;
  for (int64_t i = 0; i < cells; i++) {
    float dy = m->row[i] - guess[0], dx = m->column[i] - guess[1];
    float score = heat[i * MOVENET_KEYPOINTS + k] / (sqrtf(dy * dy + dx * dx) + m->away[0]);
    if (score > best_score) {
      best_score = score;
      best = i;
    }
  }
  const float *o = offsets + best * 2 * MOVENET_KEYPOINTS + 2 * k;
  out->cell[k] = (int32_t)best;
  out->keypoints[3 * k] = ((float)(best / m->cells) + o[0]) * m->unit[0];
  out->keypoints[3 * k + 1] = ((float)(best % m->cells) + o[1]) * m->unit[1];
  out->keypoints[3 * k + 2] = heat[best * MOVENET_KEYPOINTS + k];
}

static void decode(nn_pass *p, const struct movenet_model *m, const nn_map *x, struct person *out) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = m->cells, cells = n * n;
  nn_map centre = head(p, &m->centre, x), heat = head(p, &m->heatmap, x);
  nn_map regress = head(p, &m->regress, x), offsets = head(p, &m->offsets, x);
  nn_tap(p, centre.x, NN_DIMS(n, n), "center_logit");
  c->unary(c, VIV_SIGMOID, centre.x, centre.x, cells);
  c->multiply(c, centre.x, m->centre_weight, cells);
  nn_tap(p, centre.x, NN_DIMS(n, n), "center_weighted");
  c->unary(c, VIV_SIGMOID, heat.x, heat.x, cells * MOVENET_KEYPOINTS);
  nn_tap(p, heat.x, NN_DIMS(n, n, MOVENET_KEYPOINTS), "kpt_heatmap");
  c->top_k(c, centre.x, 1, cells, 1, NULL, &out->centre);
  const float *at = regress.x + (int64_t)out->centre * 2 * MOVENET_KEYPOINTS;
  nn_tap(p, at, NN_DIMS(2 * MOVENET_KEYPOINTS), "kpt_regress_at_center");
  float offset[2 * MOVENET_KEYPOINTS];
  for (int32_t k = 0; k < MOVENET_KEYPOINTS; k++) {
    float guess[2] = {(float)(out->centre / n) + at[2 * k],
                      (float)(out->centre % n) + at[2 * k + 1]};
    find_keypoint(m, heat.x, guess, offsets.x, k, out);
    memcpy(offset + 2 * k, offsets.x + (int64_t)out->cell[k] * 2 * MOVENET_KEYPOINTS + 2 * k,
           2 * sizeof *offset);
  }
  nn_tap(p, offset, NN_DIMS(MOVENET_KEYPOINTS, 2), "kpt_offset_at_argmax");
}

static void run(nn_pass *p, const uint8_t *pixels, struct person *out) {
  const struct movenet_model *m = nn_net_of(p);
  nn_mark mark = nn_here(p);
  nn_map x = features(p, m, pixels);
  decode(p, m, &x, out);
  nn_release(p, mark);
}

/* ---- pictures ---- */

/* Where a picture lies in the square input: scaled to fit, centred, black around. */
struct fit {
  int32_t height, width, top, left;
};

static struct fit fit_of(int64_t height, int64_t width, int32_t size) {
  int64_t longer = height > width ? height : width;
  struct fit f = {(int32_t)llround((double)height * size / (double)longer),
                  (int32_t)llround((double)width * size / (double)longer), 0, 0};
  if (f.height < 1) f.height = 1;
  if (f.width < 1) f.width = 1;
  f.top = (size - f.height) / 2;
  f.left = (size - f.width) / 2;
  return f;
}

static const viv_tensor *picture_at(nn_pass *p, const char *name, int32_t at) {
  const viv_tensor *t = nn_input_at(p, name, at);
  if (!t || t->dtype != VIV_U8 || t->ndim != 3 || t->shape[2] != 3 || t->shape[0] < 1 ||
      t->shape[1] < 1)
    nn_stop(p, VIV_BAD_INPUT, name, "must be bytes [height, width, 3]");
  return t;
}

/* Bilinear between pixel centres, without antialias, rounded: the reference's resize. */
static uint8_t *squared(nn_pass *p, const viv_tensor *t, struct fit f, int32_t size) {
  const viv_compute *c = nn_compute_of(p);
  uint8_t *out = nn_bytes(p, (int64_t)size * size * 3, 1);
  memset(out, 0, (size_t)size * (size_t)size * 3);
  nn_mark mark = nn_here(p);
  int64_t h = t->shape[0], w = t->shape[1];
  const uint8_t *bytes = t->data;
  float *x = nn_room(p, h * w * 3), *y = nn_room(p, (int64_t)f.height * f.width * 3);
  for (int64_t i = 0; i < h * w * 3; i++) x[i] = (float)bytes[i];
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_LINEAR,
                  .dims = 2,
                  .channels = 3,
                  .batch = 1,
                  .size = {(int32_t)h, (int32_t)w, 1},
                  .out_size = {f.height, f.width, 1},
                  .x = x,
                  .out = y};
  c->resize(c, &a);
  for (int32_t i = 0; i < f.height; i++)
    for (int32_t j = 0; j < f.width * 3; j++)
      out[((f.top + i) * size + f.left) * 3 + j] = (uint8_t)(y[i * f.width * 3 + j] + 0.5f);
  nn_release(p, mark);
  return out;
}

/* The person of picture i in its own pixels. */
static void emit_person(nn_pass *p, const struct person *found, struct fit f, const viv_tensor *t,
                        int32_t i) {
  const struct movenet_model *m = nn_net_of(p);
  float points[MOVENET_KEYPOINTS * 3];
  double sum = 0;
  for (int32_t k = 0; k < MOVENET_KEYPOINTS; k++) {
    const float *at = found->keypoints + 3 * k;
    float y = at[0] * (float)m->size - (float)f.top, x = at[1] * (float)m->size - (float)f.left;
    points[3 * k] = x * (float)t->shape[1] / (float)f.width;
    points[3 * k + 1] = y * (float)t->shape[0] / (float)f.height;
    points[3 * k + 2] = at[2];
    sum += (double)at[2];
  }
  float score = (float)(sum / MOVENET_KEYPOINTS);
  nn_result(p, VIV_F32, points, NN_DIMS(1, MOVENET_KEYPOINTS, 3), "keypoints.%d", (int)i);
  nn_result(p, VIV_F32, &score, NN_DIMS(1), "scores.%d", (int)i);
}

/* ---- tasks ---- */

static void emit_official(nn_pass *p, const struct person *found) {
  nn_result(p, VIV_F32, found->keypoints, NN_DIMS(MOVENET_KEYPOINTS, 3), "keypoints");
  nn_result(p, VIV_I32, &found->centre, NN_DIMS(1), "center_argmax");
  nn_result(p, VIV_I32, found->cell, NN_DIMS(MOVENET_KEYPOINTS), "kpt_argmax");
}

/* `input` [S, S, 3]: the network's own square; answers keypoints (y, x, score), 0 to 1. */
static void run_input(nn_pass *p) {
  const struct movenet_model *m = nn_net_of(p);
  const viv_tensor *t = picture_at(p, "input", 0);
  struct person found;
  if (t->shape[0] != m->size || t->shape[1] != m->size)
    nn_stop(p, VIV_BAD_INPUT, "input",
            "is %lld x %lld, but this model takes %d x %d; any size "
            "may come as `image`",
            (long long)t->shape[0], (long long)t->shape[1], (int)m->size, (int)m->size);
  run(p, t->data, &found);
  emit_official(p, &found);
}

static int32_t forward(nn_pass *p) {
  nn_need(p, "input");
  run_input(p);
  return VIV_DONE;
}

/* Pictures of any size: the person of each, `keypoints.i` in its pixels. */
static int32_t pose(nn_pass *p) {
  const struct movenet_model *m = nn_net_of(p);
  int32_t n = nn_count(p, "image");
  if (nn_count(p, "input")) {
    run_input(p);
    /* A request that also brings the picture and names the official results only is answered. */
    if (!n || !nn_wants_result(p, "keypoints.0")) return VIV_DONE;
  }
  if (!n) nn_stop(p, VIV_BAD_INPUT, "image", "is missing");
  for (int32_t i = 0; i < n; i++) {
    nn_mark mark = nn_here(p);
    const viv_tensor *t = picture_at(p, "image", i);
    struct fit f = fit_of(t->shape[0], t->shape[1], m->size);
    struct person found;
    run(p, squared(p, t, f, m->size), &found);
    emit_person(p, &found, f, t, i);
    nn_release(p, mark);
    nn_progress(p, (double)(i + 1) / (double)n);
  }
  return VIV_DONE;
}

const nn_task movenet_tasks[] = {{"forward", forward}, {"pose", pose}, {NULL, NULL}};
