/* Pictures to pixel_values: the rules of preprocessor_config.json, resizing, cropping. */
#include "classifier/picture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "nn/picture.h"

/* ---- configuration ---- */

classifier_rules classifier_square(int32_t side) {
  return (classifier_rules){.resize = true,
                            .rescale = true,
                            .normalize = true,
                            .height = side,
                            .width = side,
                            .crop_height = side,
                            .crop_width = side,
                            .filter = VIV_LINEAR,
                            .factor = 1.0 / 255,
                            .mean = {0.485f, 0.456f, 0.406f},
                            .std = {0.229f, 0.224f, 0.225f}};
}

/* A number for both sides, [height, width], or an object of height and width. */
static void read_sides(nn_config *k, const char *key, int32_t *height, int32_t *width) {
  const viv_json *node = nn_key(k, key);
  if (!node) return;
  if (k->host->json_type(node) == VIV_JSON_OBJECT) {
    nn_config s = nn_config_open(k->host, node, key, k->error);
    *height = (int32_t)nn_need_int(&s, "height", 1, CLASSIFIER_SIDE_MAX);
    *width = (int32_t)nn_need_int(&s, "width", 1, CLASSIFIER_SIDE_MAX);
    if (s.status) k->status = s.status;
    return;
  }
  int32_t side[2] = {0};
  int32_t n = nn_ints(k, key, side, 2, 1, CLASSIFIER_SIDE_MAX);
  if (k->status || n < 1) return;
  *height = side[0];
  *width = n > 1 ? side[1] : side[0];
}

/* The zoo's form of torchvision's transforms. */
static void read_transforms(nn_config *k, classifier_rules *how) {
  const viv_json *node = nn_key(k, "preprocess");
  if (!node || k->status) return;
  nn_config c = nn_config_open(k->host, node, "config.json, preprocess", k->error);
  if (nn_key(&c, "resize_size")) {
    read_sides(&c, "resize_size", &how->height, &how->width);
    how->shortest = true;
  }
  if (nn_key(&c, "crop_size")) {
    read_sides(&c, "crop_size", &how->crop_height, &how->crop_width);
    how->crop = how->round_crop = true;
  }
  if (nn_key(&c, "mean")) nn_numbers(&c, "mean", how->mean, 3, -1e9);
  if (nn_key(&c, "std")) nn_numbers(&c, "std", how->std, 3, 0);
  viv_str filter = nn_text(&c, "interpolation", "bilinear");
  how->filter = nn_is(filter, "bicubic") ? VIV_CUBIC : VIV_LINEAR;
  if (!c.status && !nn_is(filter, "bicubic") && !nn_is(filter, "bilinear"))
    c.status =
        nn_fail(k->error, VIV_NEVER, c.where, "interpolation is neither bilinear nor bicubic");
  if (c.status) k->status = c.status;
}

/* ConvNextImageProcessor: below 384 a larger square of which crop_pct remains, else no crop. */
static void convnext_rule(nn_config *c, classifier_rules *how) {
  double part = nn_num(c, "crop_pct", 224.0 / 256, 0.01, 1);
  int32_t side = how->height;
  how->width = how->crop_height = how->crop_width = side;
  how->crop = how->shortest = side < 384;
  if (how->crop) how->height = (int32_t)((double)side / part);
}

static void read_processor(nn_config *k, const viv_model_source *source, classifier_rules *how) {
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  if (!file || k->status) return;
  nn_config c = nn_config_open(k->host, file, "preprocessor_config.json", k->error);
  viv_str type = nn_text(&c, "image_processor_type", "");
  if (!type.len) type = nn_text(&c, "feature_extractor_type", "");
  bool bit = type.len >= 3 && !memcmp(type.ptr, "Bit", 3);
  bool convnext = type.len >= 8 && !memcmp(type.ptr, "ConvNext", 8);
  const viv_json *size = nn_key(&c, "size");
  if (size && k->host->json_member(size, nn_str("shortest_edge"))) {
    nn_config s = nn_config_open(k->host, size, "preprocessor_config.json, size", k->error);
    how->height = (int32_t)nn_need_int(&s, "shortest_edge", 1, CLASSIFIER_SIDE_MAX);
    how->shortest = true;
    if (s.status) c.status = s.status;
  } else if (size) {
    read_sides(&c, "size", &how->height, &how->width);
    how->shortest = bit && k->host->json_type(size) == VIV_JSON_NUMBER;
  }
  how->crop = nn_flag(&c, "do_center_crop", how->crop);
  read_sides(&c, "crop_size", &how->crop_height, &how->crop_width);
  if (convnext) convnext_rule(&c, how);
  how->resize = nn_flag(&c, "do_resize", how->resize);
  how->rescale = nn_flag(&c, "do_rescale", how->rescale);
  how->normalize = nn_flag(&c, "do_normalize", how->normalize);
  how->factor = nn_num(&c, "rescale_factor", how->factor, 1e-12, 1e12);
  how->filter = nn_pillow_filter(nn_int(&c, "resample", 2, 0, 5));
  if (nn_key(&c, "image_mean")) nn_numbers(&c, "image_mean", how->mean, 3, -1e9);
  if (nn_key(&c, "image_std")) nn_numbers(&c, "image_std", how->std, 3, 0);
  if (c.status) k->status = c.status;
}

void classifier_read_rules(nn_config *k, const viv_model_source *source, classifier_rules *how) {
  read_transforms(k, how);
  read_processor(k, source, how);
}

/* ---- one picture ---- */

static nn_pixels read_picture(nn_pass *p, int32_t at) {
  return nn_picture_at(p, "image", at, 4 * CLASSIFIER_SIDE_MAX);
}

/* The size after resizing. */
static void target(nn_pass *p, const classifier_rules *how, const nn_pixels *pic, int32_t out[2]) {
  int64_t height = how->resize ? how->height : pic->height;
  int64_t width = how->resize ? how->width : pic->width;
  if (how->resize && how->shortest) {
    bool tall = pic->height > pic->width;
    double side = how->height, high = pic->height, wide = pic->width;
    width = tall ? how->height : (int64_t)(side * wide / high);
    height = tall ? (int64_t)(side * high / wide) : how->height;
  }
  if (height > 4 * CLASSIFIER_SIDE_MAX || width > 4 * CLASSIFIER_SIDE_MAX)
    nn_stop(p, VIV_BAD_INPUT, "image", "is a strip that would be resized to %lld x %lld pixels",
            (long long)height, (long long)width);
  out[0] = (int32_t)height;
  out[1] = (int32_t)width;
}

static nn_pixels resized(nn_pass *p, const classifier_rules *how, const nn_pixels *pic,
                         const int32_t size[2]) {
  const viv_compute *c = nn_compute_of(p);
  if (size[0] == pic->height && size[1] == pic->width) return *pic;
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = VIV_RESIZE_PILLOW,
                     .filter = how->filter,
                     .height = pic->height,
                     .width = pic->width,
                     .channels = 3,
                     .out_height = size[0],
                     .out_width = size[1],
                     .x = pic->x};
  a.out = nn_bytes(p, (int64_t)size[0] * size[1], 3);
  nn_mark mark = nn_here(p);
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  nn_release(p, mark);
  return (nn_pixels){a.out, size[0], size[1]};
}

/* Where the crop begins; negative: zeros around a picture that is smaller. */
static int32_t crop_at(const classifier_rules *how, int32_t size, int32_t crop) {
  if (size < crop) return how->round_crop ? -((crop - size) / 2) : -((crop - size + 1) / 2);
  return how->round_crop ? (int32_t)nearbyint((size - crop) / 2.0) : (size - crop) / 2;
}

static void to_planes(const classifier_rules *how, nn_pixels pic, int32_t height, int32_t width,
                      float *out) {
  float table[3][256];
  for (int k = 0; k < 3; k++)
    for (int v = 0; v < 256; v++) {
      double value = how->rescale ? v * how->factor : v;
      if (how->normalize) value = (value - (double)how->mean[k]) / (double)how->std[k];
      table[k][v] = (float)value;
    }
  int32_t top = how->crop ? crop_at(how, pic.height, height) : 0;
  int32_t left = how->crop ? crop_at(how, pic.width, width) : 0;
  int64_t plane = (int64_t)height * width;
  for (int32_t i = 0; i < height; i++)
    for (int32_t j = 0; j < width; j++) {
      int32_t y = i + top, x = j + left;
      bool inside = y >= 0 && y < pic.height && x >= 0 && x < pic.width;
      const uint8_t *from = inside ? pic.x + 3 * ((int64_t)y * pic.width + x) : NULL;
      for (int k = 0; k < 3; k++)
        out[k * plane + (int64_t)i * width + j] = table[k][from ? from[k] : 0];
    }
}

/* ---- the batch ---- */

classifier_pictures classifier_prepare(nn_pass *p, const classifier_rules *how, bool emit) {
  int32_t n = nn_count(p, "image");
  classifier_pictures b = {.n = n};
  float *pixels = NULL;
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  for (int32_t i = 0; i < n; i++) {
    nn_pass_poll(p);
    nn_pixels pic = read_picture(p, i);
    int32_t size[2];
    target(p, how, &pic, size);
    int32_t height = how->crop ? how->crop_height : size[0];
    int32_t width = how->crop ? how->crop_width : size[1];
    if (i == 0) {
      b.height = height;
      b.width = width;
      pixels = nn_room(p, (int64_t)n * 3 * height * width);
    }
    if (height != b.height || width != b.width)
      nn_stop(p, VIV_BAD_INPUT, "image",
              "picture %d comes out as %d x %d pixels and the first as %d x %d: give pictures of "
              "one shape, or one at a time",
              (int)i, (int)height, (int)width, (int)b.height, (int)b.width);
    nn_mark mark = nn_here(p);
    nn_pixels small = resized(p, how, &pic, size);
    if (emit && n == 1)
      nn_result(p, VIV_U8, small.x, NN_DIMS(size[0], size[1], 3), "resized");
    else if (emit)
      nn_result(p, VIV_U8, small.x, NN_DIMS(size[0], size[1], 3), "resized.%d", (int)i);
    to_planes(how, small, height, width, pixels + (int64_t)i * 3 * height * width);
    nn_release(p, mark);
  }
  b.pixels = pixels;
  if (emit) nn_result(p, VIV_F32, pixels, NN_DIMS(n, 3, b.height, b.width), "pixel_values");
  return b;
}

classifier_pictures classifier_read_pictures(nn_pass *p, const classifier_rules *how) {
  if (!nn_count(p, "pixel_values") && nn_count(p, "image")) {
    classifier_pictures b = classifier_prepare(p, how, false);
    nn_tap(p, b.pixels, NN_DIMS(b.n, 3, b.height, b.width), "pixel_values");
    return b;
  }
  int64_t shape[4] = {0, 3, 0, 0};
  classifier_pictures b = {.pixels = nn_need_floats(p, "pixel_values", 4, shape)};
  for (int i = 0; i < 4; i++)
    if (shape[i] < 1 || shape[i] > CLASSIFIER_SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values", "axis %d has the length %lld", i,
              (long long)shape[i]);
  b.n = (int32_t)shape[0];
  b.height = (int32_t)shape[2];
  b.width = (int32_t)shape[3];
  return b;
}

void classifier_place(nn_pass *p, const classifier_rules *how, const classifier_pictures *in,
                      int32_t b, int32_t size[2], int32_t at[2]) {
  size[0] = in->height;
  size[1] = in->width;
  at[0] = at[1] = 0;
  if (nn_count(p, "pixel_values")) return;
  nn_pixels pic = read_picture(p, b);
  target(p, how, &pic, size);
  if (!how->crop) return;
  at[0] = crop_at(how, size[0], in->height);
  at[1] = crop_at(how, size[1], in->width);
}
