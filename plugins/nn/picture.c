/* Pictures to tensors. Official: transformers' ViTImageProcessor, BitImageProcessor and their like
 * on their Pillow backend. */
#include "nn/picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/boxes.h"

enum { SIDE_MAX = 1 << 15 };

/* ---- preprocessor_config.json ---- */

/* {"height": .., "width": ..} or a number for both. */
static void read_sides(nn_config *k, const char *key, int32_t *height, int32_t *width) {
  const viv_json *size = nn_key(k, key);
  if (!size) return;
  if (k->host->json_type(size) == VIV_JSON_NUMBER) {
    *height = *width = (int32_t)nn_int(k, key, 224, 1, SIDE_MAX);
    return;
  }
  nn_config s = nn_config_open(k->host, size, key, k->error);
  if (!nn_key(&s, "height") && nn_key(&s, "shortest_edge")) return;
  *height = (int32_t)nn_need_int(&s, "height", 1, SIDE_MAX);
  *width = (int32_t)nn_need_int(&s, "width", 1, SIDE_MAX);
  if (s.status) k->status = s.status;
}

void nn_read_picture(nn_config *outer, const viv_model_source *source, nn_picture *how) {
  const viv_host *h = outer->host;
  const viv_json *file = h->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  if (!file || outer->status) return;
  nn_config k = nn_config_open(h, file, "preprocessor_config.json", outer->error);
  const viv_json *size = nn_key(&k, "size");
  const viv_json *shortest = size ? h->json_member(size, nn_str("shortest_edge")) : NULL;
  if (shortest) {
    nn_config s = nn_config_open(h, size, "preprocessor_config.json, size", outer->error);
    how->height = how->width = 0;
    how->shortest = (int32_t)nn_int(&s, "shortest_edge", 224, 1, SIDE_MAX);
    if (s.status) k.status = s.status;
  }
  read_sides(&k, "size", &how->height, &how->width);
  how->resize = nn_flag(&k, "do_resize", how->resize);
  how->crop = nn_flag(&k, "do_center_crop", how->crop);
  if (how->crop) read_sides(&k, "crop_size", &how->crop_height, &how->crop_width);
  how->resample = (int32_t)nn_int(&k, "resample", how->resample, 0, 5);
  how->rescale = nn_flag(&k, "do_rescale", how->rescale);
  how->factor = nn_num(&k, "rescale_factor", how->factor, 1e-12, 1e12);
  how->normalize = nn_flag(&k, "do_normalize", how->normalize);
  if (nn_key(&k, "image_mean")) nn_numbers(&k, "image_mean", how->mean, 3, -1e9);
  if (nn_key(&k, "image_std")) nn_numbers(&k, "image_std", how->std, 3, 0);
  if (!k.status && how->crop && (how->crop_height < 1 || how->crop_width < 1))
    k.status = nn_fail(outer->error, VIV_BAD_INPUT, "preprocessor_config.json",
                       "do_center_crop is set, but crop_size is missing");
  if (k.status) outer->status = k.status;
}

/* ---- the pass ---- */

struct pixels {
  const uint8_t *x; /* [height, width, 3] */
  int64_t height, width;
};

static struct pixels resized(nn_pass *p, const nn_picture *how, struct pixels from) {
  const viv_compute *c = nn_compute_of(p);
  struct pixels to = {NULL, how->height, how->width};
  if (!how->height)
    nn_aspect_size(from.height, from.width, how->shortest, 0, false, &to.height, &to.width);
  if (to.height < 1 || to.width < 1 || to.height > SIDE_MAX || to.width > SIDE_MAX)
    nn_stop(p, VIV_BAD_INPUT, "image", "%lld x %lld pixels are too long and narrow to be resized",
            (long long)from.width, (long long)from.height);
  if (to.height == from.height && to.width == from.width) return from;
  uint8_t *out = nn_bytes(p, to.height * to.width * 3, 1);
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = VIV_RESIZE_PILLOW,
                     .filter = nn_pillow_filter(how->resample),
                     .height = (int32_t)from.height,
                     .width = (int32_t)from.width,
                     .channels = 3,
                     .out_height = (int32_t)to.height,
                     .out_width = (int32_t)to.width,
                     .x = from.x,
                     .out = out};
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  to.x = out;
  return to;
}

/* What lies outside the picture is black. */
static struct pixels cropped(nn_pass *p, const nn_picture *how, struct pixels from) {
  int64_t h = how->crop_height, w = how->crop_width;
  int64_t top = (int64_t)floor((double)(from.height - h) / 2);
  int64_t left = (int64_t)floor((double)(from.width - w) / 2);
  uint8_t *out = nn_bytes(p, h * w * 3, 1);
  for (int64_t i = 0; i < h; i++)
    for (int64_t j = 0; j < w; j++) {
      int64_t y = top + i, x = left + j;
      bool inside = y >= 0 && x >= 0 && y < from.height && x < from.width;
      for (int64_t k = 0; k < 3; k++)
        out[(i * w + j) * 3 + k] = inside ? from.x[(y * from.width + x) * 3 + k] : 0;
    }
  return (struct pixels){out, h, w};
}

static void to_planes(const nn_picture *how, struct pixels from, float *out) {
  float level[3][256];
  int64_t cells = from.height * from.width;
  for (int k = 0; k < 3; k++)
    for (int v = 0; v < 256; v++) {
      double x = how->rescale ? (double)(float)(v * how->factor) : v;
      level[k][v] = (float)(how->normalize ? (x - (double)how->mean[k]) / (double)how->std[k] : x);
    }
  for (int64_t i = 0; i < cells; i++)
    for (int64_t k = 0; k < 3; k++) out[k * cells + i] = level[k][from.x[3 * i + k]];
}

nn_pixels nn_picture_at(nn_pass *p, const char *name, int32_t at, int64_t most) {
  char where[80];
  const viv_tensor *t = nn_input_at(p, name, at);
  snprintf(where, sizeof where, nn_count(p, name) > 1 ? "%.60s %d" : "%.60s", name, (int)at);
  if (!t || t->dtype != VIV_U8 || t->ndim != 3 || t->shape[2] != 3)
    nn_stop(p, VIV_BAD_INPUT, where, "must be a picture: a file, or U8 [height, width, 3]");
  for (int i = 0; i < 2; i++)
    if (t->shape[i] < 1 || t->shape[i] > most)
      nn_stop(p, VIV_BAD_INPUT, where, "is %lld pixels wide and %lld high, each side may have %lld",
              (long long)t->shape[1], (long long)t->shape[0], (long long)most);
  return (nn_pixels){t->data, (int32_t)t->shape[0], (int32_t)t->shape[1]};
}

int32_t nn_pillow_filter(int64_t number) {
  static const int32_t filters[] = {VIV_NEAREST, VIV_LANCZOS, VIV_LINEAR,
                                    VIV_CUBIC,   VIV_BOX,     VIV_HAMMING};
  return filters[number];
}

float *nn_take_pictures(nn_pass *p, const nn_picture *how, const char *name, int64_t *n,
                        int64_t *height, int64_t *width) {
  float *out = NULL;
  *n = nn_count(p, name);
  for (int32_t i = 0; i < *n; i++) {
    /* The batch is taken behind the first picture's scratch: its size is known then. */
    nn_mark mark = nn_here(p);
    nn_pixels given = nn_picture_at(p, name, i, INT32_MAX);
    struct pixels x = {given.x, given.height, given.width};
    if (how->resize) x = resized(p, how, x);
    if (how->crop) x = cropped(p, how, x);
    if (!i) {
      *height = x.height;
      *width = x.width;
      out = nn_room(p, *n * 3 * x.height * x.width);
    } else if (x.height != *height || x.width != *width) {
      nn_stop(
          p, VIV_BAD_INPUT, name,
          "picture %d is prepared to %lld x %lld, the first one to %lld x %lld: run them one by "
          "one",
          (int)i, (long long)x.width, (long long)x.height, (long long)*width, (long long)*height);
    }
    to_planes(how, x, out + i * 3 * x.height * x.width);
    if (i) nn_release(p, mark);
  }
  return out;
}
