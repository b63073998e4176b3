/* ViTPose: persons cut out of pictures, as VitPoseImageProcessor does. */
#include <math.h>
#include <string.h>

#include "vitpose/vitpose.h"

enum { MAX_PERSONS = 1 << 20 };

static void check_picture(nn_pass *p, const viv_tensor *t, int64_t at) {
  if (t->dtype != VIV_U8 || t->ndim != 3 || t->shape[2] != 3 || t->shape[0] < 1 || t->shape[1] < 1)
    nn_stop(p, VIV_BAD_INPUT, "image", "picture %lld must be bytes [height, width, 3]",
            (long long)at);
}

static void check_box(nn_pass *p, const float *box, int64_t at) {
  bool finite = true;
  for (int i = 0; i < 4; i++) finite = finite && isfinite(box[i]);
  if (!finite || !(box[2] > 0) || !(box[3] > 0))
    nn_stop(p, VIV_BAD_INPUT, "boxes",
            "box %lld has the corner (%g, %g) and the sides %g x %g, which must be above 0",
            (long long)at, (double)box[0], (double)box[1], (double)box[2], (double)box[3]);
}

/* Boxes of picture i as a detector names its results: corners, `boxes.i`. */
static const float *boxes_of_picture(nn_pass *p, int64_t i, int64_t *n) {
  char name[32] = "boxes.";
  char digits[24];
  int32_t d = 0;
  for (int64_t v = i; d == 0 || v; v /= 10) digits[d++] = (char)('0' + v % 10);
  for (int32_t k = 0; k < d; k++) name[6 + k] = digits[d - 1 - k];
  int64_t shape[2] = {0, 4};
  const float *x = nn_some_floats(p, name, 2, shape);
  *n = x ? shape[0] : 0;
  return x;
}

/* Corners to x, y, width, height. */
static void add_corners(const float *corners, int64_t n, float *box) {
  for (int64_t i = 0; i < n; i++, corners += 4, box += 4) {
    box[0] = corners[0];
    box[1] = corners[1];
    box[2] = corners[2] - corners[0];
    box[3] = corners[3] - corners[1];
  }
}

/* The parameter `box` or `boxes` of a person who points or of a detector's reader: corners, one row or
 * several. NULL: absent. */
static const float *written_corners(nn_pass *p, int64_t *n) {
  const viv_host *h = nn_host_of(p);
  const viv_json *one = nn_param(p, "box"), *list = one ? one : nn_param(p, "boxes");
  const char *name = one ? "params.box" : "params.boxes";
  if (!list) return NULL;
  *n = one ? 1 : h->json_count(list);
  if (h->json_type(list) != VIV_JSON_ARRAY || *n > MAX_PERSONS)
    nn_stop(p, VIV_BAD_INPUT, name, "must be %s[x0, y0, x1, y1]", one ? "" : "a list of ");
  float *corners = nn_room(p, *n * 4);
  for (int64_t i = 0; i < *n; i++) {
    const viv_json *row = one ? one : h->json_item(list, i);
    if (h->json_type(row) != VIV_JSON_ARRAY || h->json_count(row) != 4)
      nn_stop(p, VIV_BAD_INPUT, name, "item %lld is no [x0, y0, x1, y1]", (long long)i);
    for (int64_t k = 0; k < 4; k++) {
      const viv_json *number = h->json_item(row, k);
      if (h->json_type(number) != VIV_JSON_NUMBER)
        nn_stop(p, VIV_BAD_INPUT, name, "item %lld holds something that is no number",
                (long long)i);
      corners[4 * i + k] = (float)h->json_number(number);
    }
  }
  return corners;
}

/* The picture of each of n boxes: the input image_index, else the first. */
static void read_index(nn_pass *p, struct vitpose_persons *r, int64_t *picture) {
  int64_t count[1] = {r->n};
  const int64_t *index = nn_some_ints(p, "image_index", 1, count);
  for (int64_t i = 0; i < r->n; i++) {
    picture[i] = index ? index[i] : 0;
    if (picture[i] < 0 || picture[i] >= r->pictures)
      nn_stop(p, VIV_BAD_INPUT, "image_index", "box %lld stands in picture %lld of %lld",
              (long long)i, (long long)picture[i], (long long)r->pictures);
  }
}

/* The input `boxes` as the official processor takes them, the parameters, or one whole picture each
 * when there is nothing at all. */
static void read_boxes(nn_pass *p, struct vitpose_persons *r) {
  int64_t shape[2] = {0, 4};
  const float *official = nn_some_floats(p, "boxes", 2, shape);
  const float *corners = official ? NULL : written_corners(p, &shape[0]);
  r->n = official || corners ? shape[0] : r->pictures;
  if (r->n > MAX_PERSONS)
    nn_stop(p, VIV_BAD_INPUT, "boxes", "%lld boxes are too many", (long long)r->n);
  float *box = nn_room(p, r->n * 4);
  int64_t *picture = nn_bytes(p, r->n, sizeof *picture);
  if (official) memcpy(box, official, (size_t)r->n * 4 * sizeof *box);
  if (corners) add_corners(corners, r->n, box);
  if (official || corners) read_index(p, r, picture);
  for (int64_t i = 0; !official && !corners && i < r->n; i++) {
    box[4 * i] = box[4 * i + 1] = 0;
    box[4 * i + 2] = (float)r->image[i]->shape[1];
    box[4 * i + 3] = (float)r->image[i]->shape[0];
    picture[i] = i;
  }
  r->box = box;
  r->picture = picture;
}

struct vitpose_persons vitpose_read_persons(nn_pass *p) {
  struct vitpose_persons r = {.pictures = nn_count(p, "image")};
  if (!r.pictures) nn_stop(p, VIV_BAD_INPUT, "image", "is missing");
  const viv_tensor **image = nn_bytes(p, r.pictures, sizeof *image);
  int64_t found = 0, n;
  for (int64_t i = 0; i < r.pictures; i++) {
    image[i] = nn_input_at(p, "image", (int32_t)i);
    if (!image[i]) nn_stop(p, VIV_BAD_INPUT, "image", "input %lld is no picture", (long long)i);
    check_picture(p, image[i], i);
    if (boxes_of_picture(p, i, &n)) found += n;
  }
  r.image = image;
  bool listed = false;
  for (int64_t i = 0; i < r.pictures && !listed; i++) listed = boxes_of_picture(p, i, &n) != NULL;
  if (!listed) {
    read_boxes(p, &r);
  } else {
    float *box = nn_room(p, found * 4);
    int64_t *picture = nn_bytes(p, found, sizeof *picture);
    for (int64_t i = 0; i < r.pictures; i++) {
      const float *corners = boxes_of_picture(p, i, &n);
      add_corners(corners, n, box + 4 * r.n);
      for (int64_t k = 0; k < n; k++) picture[r.n++] = i;
    }
    r.box = box;
    r.picture = picture;
  }
  for (int64_t i = 0; i < r.n; i++) check_box(p, r.box + 4 * i, i);
  return r;
}

uint8_t *vitpose_cut(nn_pass *p, const struct vitpose_persons *persons, int64_t from, int64_t n) {
  const struct vitpose_model *m = nn_net_of(p);
  int64_t h = m->size[0], w = m->size[1];
  uint8_t *out = nn_bytes(p, n * h * w * 3, 1);
  for (int64_t i = 0; i < n; i++) {
    const viv_tensor *t = persons->image[persons->picture[from + i]];
    nn_crop crop = nn_crop_of(persons->box + 4 * (from + i), w, h);
    float matrix[6];
    nn_crop_matrix(&crop, w, h, matrix);
    nn_crop_pixels(t->data, t->shape[0], t->shape[1], matrix, h, w, out + i * h * w * 3);
  }
  return out;
}

float *vitpose_values(nn_pass *p, const uint8_t *pixels, int64_t n) {
  const struct vitpose_model *m = nn_net_of(p);
  int64_t cells = (int64_t)m->size[0] * m->size[1];
  float *out = nn_room(p, n * 3 * cells), level[3][256];
  for (int c = 0; c < 3; c++)
    for (int v = 0; v < 256; v++) {
      double x = m->rescale ? (double)(float)(v * m->factor) : v;
      level[c][v] = (float)(m->normalize ? (x - (double)m->mean[c]) / (double)m->std[c] : x);
    }
  for (int64_t i = 0; i < n; i++)
    for (int64_t s = 0; s < cells; s++)
      for (int64_t c = 0; c < 3; c++)
        out[(i * 3 + c) * cells + s] = level[c][pixels[(i * cells + s) * 3 + c]];
  return out;
}
