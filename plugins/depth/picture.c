/* Official: Depth-Anything-V2, depth_anything_v2/dpt.py image2tensor and util/transform.py (RGB / 255,
 * bicubic on floats, normalised); transformers' DPTImageProcessor (Pillow on bytes). */
#include "depth/picture.h"

#include "nn/boxes.h"

enum { SIDE_MAX = 1 << 13 };

depth_rules depth_official_rules(int64_t side, int64_t multiple) {
  return (depth_rules){.height = side,
                       .width = side,
                       .rule = NN_LOWER,
                       .multiple = multiple,
                       .resize = true,
                       .rescale = true,
                       .normalize = true,
                       .factor = 1.0 / 255,
                       .mean = {0.485f, 0.456f, 0.406f},
                       .std = {0.229f, 0.224f, 0.225f}};
}

void depth_read_rules(nn_config *k, const viv_model_source *source, depth_rules *how) {
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  if (!file || k->status) return;
  nn_config c = nn_config_open(k->host, file, "preprocessor_config.json", k->error);
  const viv_json *size = nn_key(&c, "size");
  if (size && k->host->json_type(size) == VIV_JSON_OBJECT) {
    nn_config s = nn_config_open(k->host, size, "preprocessor_config.json, size", k->error);
    how->height = nn_need_int(&s, "height", 1, SIDE_MAX);
    how->width = nn_need_int(&s, "width", 1, SIDE_MAX);
    if (s.status) c.status = s.status;
  } else if (size) {
    how->height = how->width = nn_int(&c, "size", how->height, 1, SIDE_MAX);
  }
  how->rule = nn_flag(&c, "keep_aspect_ratio", how->rule != NN_FREE) ? NN_NEAREST : NN_FREE;
  how->multiple = nn_int(&c, "ensure_multiple_of", how->multiple, 1, SIDE_MAX);
  how->filter = nn_pillow_filter(nn_int(&c, "resample", 3, 0, 5));
  how->resize = nn_flag(&c, "do_resize", how->resize);
  how->rescale = nn_flag(&c, "do_rescale", how->rescale);
  how->normalize = nn_flag(&c, "do_normalize", how->normalize);
  how->factor = nn_num(&c, "rescale_factor", how->factor, 1e-12, 1e12);
  if (nn_key(&c, "image_mean")) nn_numbers(&c, "image_mean", how->mean, 3, -1e9);
  if (nn_key(&c, "image_std")) nn_numbers(&c, "image_std", how->std, 3, 1e-9);
  if (nn_flag(&c, "do_pad", false) && !c.status)
    c.status = nn_fail(k->error, VIV_NEVER, c.where, "do_pad is not supported");
  if (c.status) k->status = c.status;
}

depth_rules depth_request_rules(nn_pass *p, const depth_rules *how) {
  static const char *const methods[] = {"", "lower_bound", "upper_bound", "minimal"};
  depth_rules r = *how;
  double v[3];
  if (nn_param(p, "input_size")) r.height = r.width = nn_param_int(p, "input_size", 0, 1, SIDE_MAX);
  r.multiple = nn_param_int(p, "ensure_multiple_of", r.multiple, 1, SIDE_MAX);
  if (nn_param(p, "resize_method")) {
    viv_str name = nn_param_text(p, "resize_method", "");
    r.rule = NN_FREE;
    for (int32_t i = NN_LOWER; i <= NN_NEAREST; i++)
      if (nn_is(name, methods[i])) r.rule = i;
    if (r.rule == NN_FREE)
      nn_stop(p, VIV_BAD_INPUT, "params",
              "resize_method is \"%.*s\", but must be lower_bound, upper_bound or minimal",
              (int)(name.len < 60 ? name.len : 60), name.ptr);
  }
  if (nn_param_numbers(p, "image_mean", v, 3) == 3)
    for (int i = 0; i < 3; i++) r.mean[i] = (float)v[i];
  if (nn_param_numbers(p, "image_std", v, 3) == 3)
    for (int i = 0; i < 3; i++) {
      if (!(v[i] > 0)) nn_stop(p, VIV_BAD_INPUT, "params", "image_std must be above 0");
      r.std[i] = (float)v[i];
    }
  return r;
}

void depth_size_of(nn_pass *p, const depth_rules *how, const nn_pixels *from, int32_t size[2]) {
  int64_t height = from->height, width = from->width;
  if (how->resize)
    nn_multiple_size(height, width, how->height, how->width, how->rule, how->multiple, &height,
                     &width);
  if (height > SIDE_MAX || width > SIDE_MAX)
    nn_stop(p, VIV_BAD_INPUT, "image",
            "%d x %d pixels would be resized to %lld x %lld, and each side may have %d: cut the "
            "picture, or ask for a smaller input_size",
            (int)from->height, (int)from->width, (long long)height, (long long)width, SIDE_MAX);
  size[0] = (int32_t)height;
  size[1] = (int32_t)width;
}

const uint8_t *depth_bytes(nn_pass *p, int32_t filter, const nn_pixels *from,
                           const int32_t size[2]) {
  const viv_compute *c = nn_compute_of(p);
  if (size[0] == from->height && size[1] == from->width) return from->x;
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = VIV_RESIZE_PILLOW,
                     .filter = filter,
                     .height = from->height,
                     .width = from->width,
                     .channels = 3,
                     .out_height = size[0],
                     .out_width = size[1],
                     .x = from->x};
  a.out = nn_bytes(p, (int64_t)size[0] * size[1], 3);
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  return a.out;
}

void depth_prepare(nn_pass *p, const depth_rules *how, const nn_pixels *from, const int32_t size[2],
                   float *pixels) {
  const viv_compute *c = nn_compute_of(p);
  float table[3][256];
  for (int k = 0; k < 3; k++)
    for (int v = 0; v < 256; v++) {
      double value = how->rescale ? v * how->factor : v;
      if (how->normalize) value = (value - (double)how->mean[k]) / (double)how->std[k];
      table[k][v] = (float)value;
    }
  nn_mark mark = nn_here(p);
  const uint8_t *x = how->bytes ? depth_bytes(p, how->filter, from, size) : from->x;
  bool same = how->bytes || (size[0] == from->height && size[1] == from->width);
  int64_t n = same ? (int64_t)size[0] * size[1] : (int64_t)from->height * from->width;
  /* Normalising before the resize is the same: the filter's weights sum to 1. */
  float *planes = same ? pixels : nn_room(p, 3 * n);
  for (int64_t k = 0; k < 3; k++)
    for (int64_t i = 0; i < n; i++) planes[k * n + i] = table[k][x[3 * i + k]];
  if (!same) {
    viv_resize a = {.struct_size = sizeof a,
                    .filter = VIV_CUBIC,
                    .dims = 2,
                    .channels = 1,
                    .batch = 3,
                    .size = {from->height, from->width, 1},
                    .out_size = {size[0], size[1], 1},
                    .x = planes,
                    .out = pixels};
    c->resize(c, &a);
  }
  nn_release(p, mark);
}

float *depth_restore(nn_pass *p, const depth_rules *how, const float *map, const int32_t size[2],
                     int32_t height, int32_t width) {
  nn_map x = {.x = (float *)(uintptr_t)map, /* read only */
              .batch = 1,
              .channels = 1,
              .dims = 2,
              .size = {size[0], size[1], 1},
              .layout = VIV_CHANNELS_FIRST};
  int32_t to[2] = {height, width};
  return nn_resize_map(p, how->back_cubic ? VIV_CUBIC : VIV_LINEAR, !how->back_cubic, to, &x).x;
}

depth_batch depth_frames(nn_pass *p, const char *name, const int32_t size[2], bool tap) {
  depth_batch b = {nn_count(p, name), size[0], size[1], NULL};
  int32_t filter = nn_pillow_filter(nn_param_int(p, "resample", 1, 0, 5));
  float factor = (float)nn_param_num(p, "rescale_factor", 1.0 / 255, 1e-12, 1e12);
  int64_t cells = (int64_t)size[0] * size[1];
  if (b.n < 1) nn_stop(p, VIV_BAD_INPUT, name, "is missing: this task needs a picture");
  b.pixels = nn_room(p, b.n * 3 * cells);
  nn_mark mark = nn_here(p);
  float *bytes = nn_room(p, b.n * 3 * cells); /* as they are, for the tap */
  for (int32_t i = 0; i < b.n; i++) {
    nn_pixels from = nn_picture_at(p, name, i, DEPTH_PICTURE_MAX);
    nn_mark inner = nn_here(p);
    nn_pass_poll(p);
    const uint8_t *x = depth_bytes(p, filter, &from, size);
    float *y = b.pixels + i * 3 * cells;
    for (int64_t at = 0; at < 3 * cells; at++) {
      bytes[i * 3 * cells + at] = x[at];
      y[at % 3 * cells + at / 3] = (float)x[at] * factor;
    }
    nn_release(p, inner);
  }
  if (tap) nn_tap(p, bytes, NN_DIMS(b.n, size[0], size[1], 3), "resized");
  nn_release(p, mark);
  return b;
}

nn_map depth_map_of(const depth_batch *b, int32_t channels) {
  return (nn_map){.x = b->pixels,
                  .batch = b->n,
                  .channels = channels,
                  .dims = 2,
                  .size = {b->height, b->width, 1},
                  .layout = VIV_CHANNELS_FIRST};
}

/* ---- disparity ---- */

float *depth_scaled(nn_pass *p, const float *disp, int64_t n, double nearest, double farthest) {
  float *y = nn_room(p, n);
  float low = (float)(1 / farthest), span = (float)(1 / nearest - 1 / farthest);
  for (int64_t i = 0; i < n; i++) y[i] = low + span * disp[i];
  return y;
}

float *depth_inverse(nn_pass *p, const float *x, int64_t n) {
  float *y = nn_room(p, n);
  for (int64_t i = 0; i < n; i++) y[i] = 1 / x[i];
  return y;
}

void depth_give(nn_pass *p, const char *name, const nn_map *depth, float factor) {
  for (int32_t i = 0; i < depth->batch; i++) {
    nn_pixels from = nn_picture_at(p, name, i, DEPTH_PICTURE_MAX);
    if (!nn_wants_result(p, "depth.%d", (int)i)) continue;
    nn_mark mark = nn_here(p);
    nn_map one = *depth;
    int32_t to[2] = {from.height, from.width};
    one.x += i * nn_space(depth);
    one.batch = 1;
    nn_map y = nn_resize_map(p, VIV_LINEAR, false, to, &one);
    for (int64_t k = 0; k < nn_space(&y); k++) y.x[k] *= factor;
    nn_result(p, VIV_F32, y.x, NN_DIMS(from.height, from.width), "depth.%d", (int)i);
    nn_release(p, mark);
  }
}
