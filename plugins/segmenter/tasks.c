/* The tasks of a segmenter: official tensors step by step, and a class for each pixel of a picture. */
#include <string.h>

#include "segmenter/segmenter.h"

enum { SIDE_MAX = 1 << 16 };

/* A batch under its official name, or the pictures of the other name prepared. */
static nn_map pixels_named(nn_pass *p, const char *values, const char *image, bool *pictures) {
  const struct segmenter_model *m = nn_net_of(p);
  bool last = m->channels_last;
  nn_map x = {.channels = 3, .dims = 2, .size = {0, 0, 1}, .layout = VIV_CHANNELS_FIRST};
  *pictures = !nn_count(p, values) && nn_count(p, image);
  if (*pictures) {
    int64_t n = 0, height = 0, width = 0;
    x.x = nn_take_pictures(p, &m->prepare, image, &n, &height, &width);
    x.batch = (int32_t)n;
    x.size[0] = (int32_t)height;
    x.size[1] = (int32_t)width;
    int64_t plane = nn_space(&x);
    for (int64_t b = 0; m->bgr && b < n; b++)
      for (int64_t i = 0; i < plane; i++) {
        float *red = x.x + 3 * b * plane + i, *blue = red + 2 * plane, swap = *red;
        *red = *blue;
        *blue = swap;
      }
    return last ? nn_to_layout(p, &x, VIV_CHANNELS_LAST) : x;
  }
  int64_t shape[4] = {0, last ? 0 : 3, 0, last ? 3 : 0};
  x.x = (float *)(uintptr_t)nn_need_floats(p, values, 4, shape); /* read only */
  for (int i = 0; i < 4; i++)
    if (shape[i] < 1 || shape[i] > SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, values, "axis %d has the length %lld", i, (long long)shape[i]);
  x.batch = (int32_t)shape[0];
  x.size[0] = (int32_t)shape[last ? 1 : 2];
  x.size[1] = (int32_t)shape[last ? 2 : 3];
  x.layout = last ? VIV_CHANNELS_LAST : VIV_CHANNELS_FIRST;
  return x;
}

/* x[0], and x[1] where the model takes two pictures of one size. */
static void pixels_of(nn_pass *p, nn_map x[2], bool *pictures) {
  const struct segmenter_model *m = nn_net_of(p);
  bool more;
  x[0] = pixels_named(p, "pixel_values", "image", pictures);
  if (!m->second) return;
  x[1] = pixels_named(p, m->second, m->second_image, &more);
  if (x[1].batch != x[0].batch || x[1].size[0] != x[0].size[0] || x[1].size[1] != x[0].size[1])
    nn_stop(p, VIV_BAD_INPUT, m->second,
            "is a batch of %d of %d x %d pixels, but pixel_values one of %d of %d x %d",
            (int)x[1].batch, (int)x[1].size[1], (int)x[1].size[0], (int)x[0].batch,
            (int)x[0].size[1], (int)x[0].size[0]);
}

static void give(nn_pass *p, const nn_map *x, const char *name) {
  if (x->layout == VIV_CHANNELS_LAST)
    nn_result(p, VIV_F32, x->x, NN_DIMS(x->batch, x->size[0], x->size[1], x->channels), "%s", name);
  else
    nn_result(p, VIV_F32, x->x, NN_DIMS(x->batch, x->channels, x->size[0], x->size[1]), "%s", name);
}

static int32_t preprocess(nn_pass *p) {
  const struct segmenter_model *m = nn_net_of(p);
  bool pictures;
  nn_map x[2];
  if (!nn_count(p, "image"))
    nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  pixels_of(p, x, &pictures);
  give(p, &x[0], "pixel_values");
  if (m->second) give(p, &x[1], m->second);
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct segmenter_model *m = nn_net_of(p);
  bool pictures;
  nn_map x[2];
  pixels_of(p, x, &pictures);
  nn_map y = m->variant->network(p, x, true);
  give(p, &y, m->depth ? "predicted_depth" : "logits");
  return VIV_DONE;
}

/* ---- the class of each pixel ---- */

/* [n, 2] height and width of each picture: params.target_sizes, else the pictures themselves, else
 * the pixel_values. */
static int32_t *target_sizes(nn_pass *p, const nn_map *x, bool pictures) {
  const viv_host *h = nn_host_of(p);
  const viv_json *list = nn_param(p, "target_sizes");
  int32_t *sizes = nn_bytes(p, 2 * (int64_t)x->batch, sizeof *sizes);
  if (list && h->json_count(list) != x->batch)
    nn_stop(p, VIV_BAD_INPUT, "params.target_sizes", "has %lld entries for %d pictures",
            (long long)h->json_count(list), (int)x->batch);
  for (int32_t b = 0; b < x->batch; b++)
    for (int32_t i = 0; i < 2; i++) {
      const viv_json *pair = list ? h->json_item(list, b) : NULL;
      double side = x->size[i];
      if (pair && h->json_count(pair) != 2)
        nn_stop(p, VIV_BAD_INPUT, "params.target_sizes", "entry %d must be [height, width]",
                (int)b);
      if (pair)
        side = h->json_number(h->json_item(pair, i));
      else if (pictures)
        side = (double)nn_input_at(p, "image", b)->shape[i];
      if (!(side >= 1 && side <= SIDE_MAX))
        nn_stop(p, VIV_BAD_INPUT, "params.target_sizes", "picture %d: %g is no height or width",
                (int)b, side);
      sizes[2 * b + i] = (int32_t)side;
    }
  return sizes;
}

/* Where output i of n stands among m inputs, and how much of the next one it takes. */
static void place(int32_t i, int32_t n, int32_t m, bool align_corners, int32_t *at, float *part) {
  float x = align_corners ? n > 1 ? (float)i * (float)(m - 1) / (float)(n - 1) : 0.0f
                          : ((float)i + 0.5f) * (float)m / (float)n - 0.5f;
  if (x < 0) x = 0;
  *at = (int32_t)x < m - 1 ? (int32_t)x : m - 1;
  *part = x - (float)*at;
}

/* The largest logit of every pixel, without the resized logits in memory: those of a picture of
 * twelve megapixels would take a gigabyte. logits is channels last, [h, w, classes]. */
static void label_map(nn_pass *p, const struct segmenter_model *m, const float *logits, int32_t h,
                      int32_t w, int32_t height, int32_t width, int32_t *labels) {
  int64_t n = m->classes;
  float *row = nn_room(p, w * n); /* between two rows of logits */
  for (int32_t i = 0; i < height; i++) {
    int32_t y, x;
    float fy, fx;
    if (i % 64 == 0) nn_pass_poll(p);
    place(i, height, h, m->align_corners, &y, &fy);
    const float *top = logits + y * w * n, *bottom = y + 1 < h ? top + w * n : top;
    for (int64_t k = 0; k < w * n; k++) row[k] = top[k] + (bottom[k] - top[k]) * fy;
    for (int32_t j = 0; j < width; j++) {
      place(j, width, w, m->align_corners, &x, &fx);
      const float *left = row + x * n, *right = x + 1 < w ? left + n : left;
      float best = -3.4e38f;
      int32_t label = 0;
      for (int32_t k = 0; k < n; k++) {
        float v = left[k] + (right[k] - left[k]) * fx;
        if (v > best) {
          best = v;
          label = k;
        }
      }
      labels[(int64_t)i * width + j] = label;
    }
  }
}

/* Whether all pictures are to come out in one size. */
static bool all_alike(const int32_t *size, int32_t n) {
  for (int32_t b = 1; b < n; b++)
    if (memcmp(size, size + 2 * b, 2 * sizeof *size) != 0) return false;
  return true;
}

/* What the official code makes of tensors: logits of the targets' size, or probabilities. */
static void official(nn_pass *p, const int32_t *size, const nn_map *y) {
  const struct segmenter_model *m = nn_net_of(p);
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  if (m->probabilities && nn_wants_result(p, "probabilities")) {
    nn_map odds = *y;
    odds.x = nn_room(p, nn_elements(y));
    c->softmax(c, y->x, y->batch * nn_space(y), y->channels, odds.x);
    give(p, &odds, "probabilities");
  }
  if (!m->probabilities && all_alike(size, y->batch) && nn_wants_result(p, "seg_logits")) {
    nn_map big = nn_resize_map(p, VIV_LINEAR, m->align_corners, size, y);
    give(p, &big, "seg_logits");
  }
  nn_release(p, mark);
}

static int32_t segment(nn_pass *p) {
  const struct segmenter_model *m = nn_net_of(p);
  bool pictures;
  nn_map x[2];
  if (m->depth) nn_stop(p, VIV_NEVER, "task", "this model gives depth, not classes");
  pixels_of(p, x, &pictures);
  const int32_t *size = target_sizes(p, &x[0], pictures);
  nn_map y = m->variant->network(p, x, false);
  if (!pictures) official(p, size, &y);
  y = nn_to_layout(p, &y, VIV_CHANNELS_LAST);
  int32_t *all = NULL; /* as one tensor [B, height, width], where that is possible */
  if (!pictures && all_alike(size, y.batch) && nn_wants_result(p, "labels"))
    all = nn_bytes(p, (int64_t)y.batch * size[0] * size[1], sizeof *all);
  for (int32_t b = 0; b < y.batch; b++) {
    nn_mark mark = nn_here(p);
    int32_t height = size[2 * b], width = size[2 * b + 1];
    int32_t *labels = nn_bytes(p, (int64_t)height * width, sizeof *labels);
    label_map(p, m, y.x + b * nn_space(&y) * y.channels, y.size[0], y.size[1], height, width,
              labels);
    nn_result(p, VIV_I32, labels, NN_DIMS(height, width), "labels.%d", (int)b);
    if (all)
      memcpy(all + (int64_t)b * height * width, labels,
             (size_t)height * (size_t)width * sizeof *all);
    nn_release(p, mark);
  }
  if (all) nn_result(p, VIV_I32, all, NN_DIMS(y.batch, size[0], size[1]), "labels");
  return VIV_DONE;
}

static int32_t depth(nn_pass *p) {
  const struct segmenter_model *m = nn_net_of(p);
  bool pictures;
  nn_map x[2];
  if (!m->depth) nn_stop(p, VIV_NEVER, "task", "this model gives classes, not depth");
  pixels_of(p, x, &pictures);
  const int32_t *size = target_sizes(p, &x[0], pictures);
  nn_map y = m->variant->network(p, x, false); /* [B, 1, h, w] */
  for (int32_t b = 0; b < y.batch; b++) {
    nn_mark mark = nn_here(p);
    nn_map one = y;
    one.batch = 1;
    one.x += b * nn_space(&y);
    one = nn_resize_map(p, VIV_LINEAR, false, size + 2 * b, &one);
    nn_result(p, VIV_F32, one.x, NN_DIMS(one.size[0], one.size[1]), "depth.%d", (int)b);
    nn_release(p, mark);
  }
  return VIV_DONE;
}

const nn_task segmenter_tasks[] = {{"segment", segment},
                                   {"depth", depth},
                                   {"forward", forward},
                                   {"preprocess", preprocess},
                                   {NULL, NULL}};
