/* Pictures to a batch: sizes, resizing equal to the official pipelines, normalising, padding.
 *
 *   picture U8 [h, w, 3] -> resized U8 [h', w', 3] -> (x factor - mean) / std, planes
 *     -> right and bottom padded with zeros to the batch's largest -> pixel_values [B, 3, H, W]
 *
 * RF-DETR alone resizes after the conversion to floats (on_floats). Official: transformers'
 * DetrImageProcessor and its relatives; datasets/transforms.py of DETR. */
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"
#include "nn/picture.h"

enum { SIDE_MAX = 1 << 15 };

/* ---- configuration ---- */

void detr_usual_prepare(struct detr_prepare *how) {
  *how = (struct detr_prepare){.rule = DETR_ASPECT,
                               .short_edge = 800,
                               .long_edge = 1333,
                               .resample = 2,
                               .resize = true,
                               .rescale = true,
                               .normalize = true,
                               .pad = true,
                               .factor = 1.0 / 255,
                               .mean = {0.485f, 0.456f, 0.406f},
                               .std = {0.229f, 0.224f, 0.225f}};
}

/* One number, {height, width}, {max_height, max_width} or {shortest_edge, longest_edge}. */
static int32_t read_size(const viv_host *host, const viv_json *size, struct detr_prepare *how,
                         viv_error *error) {
  if (host->json_type(size) == VIV_JSON_NUMBER) {
    double edge = host->json_number(size);
    if (!(edge >= 1 && edge <= SIDE_MAX))
      return nn_fail(error, VIV_BAD_INPUT, "size", "is %g, but must be from 1 to %d", edge,
                     SIDE_MAX);
    if (how->rule != DETR_ASPECT_ROUNDED) how->rule = DETR_ASPECT;
    how->short_edge = (int64_t)edge;
    return VIV_OK;
  }
  nn_config s = nn_config_open(host, size, "size", error);
  if (nn_key(&s, "height")) {
    how->rule = DETR_EXACT;
    how->height = nn_need_int(&s, "height", 1, SIDE_MAX);
    how->width = nn_need_int(&s, "width", 1, SIDE_MAX);
  } else if (nn_key(&s, "max_height")) {
    how->rule = DETR_FIT;
    how->height = nn_need_int(&s, "max_height", 1, SIDE_MAX);
    how->width = nn_need_int(&s, "max_width", 1, SIDE_MAX);
  } else {
    if (how->rule != DETR_ASPECT_ROUNDED) how->rule = DETR_ASPECT;
    how->short_edge = nn_int(&s, "shortest_edge", how->short_edge, 1, SIDE_MAX);
    how->long_edge = nn_int(&s, "longest_edge", how->long_edge, 0, SIDE_MAX);
  }
  return s.status;
}

/* The same keys in preprocessor_config.json and config.json (zoo form). */
static void read_keys(nn_config *k, struct detr_prepare *how) {
  const viv_json *size = nn_key(k, "size");
  int32_t status = size && !k->status ? read_size(k->host, size, how, k->error) : VIV_OK;
  if (status < 0) k->status = status;
  how->short_edge = nn_int(k, "short_side", how->short_edge, 1, SIDE_MAX);
  how->long_edge = nn_int(k, "max_size", how->long_edge, 0, SIDE_MAX);
  how->resample = (int32_t)nn_int(k, "resample", how->resample, 0, 5);
  how->resize = nn_flag(k, "do_resize", how->resize);
  how->rescale = nn_flag(k, "do_rescale", how->rescale);
  how->normalize = nn_flag(k, "do_normalize", how->normalize);
  how->pad = nn_flag(k, "do_pad", how->pad);
  how->factor = nn_num(k, "rescale_factor", how->factor, 1e-12, 1e12);
  if (nn_key(k, "image_mean")) nn_numbers(k, "image_mean", how->mean, 3, -1e9);
  if (nn_key(k, "image_std")) nn_numbers(k, "image_std", how->std, 3, 0);
}

void detr_read_prepare(nn_config *k, const viv_model_source *source, struct detr_prepare *how) {
  read_keys(k, how);
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  if (!file || k->status) return;
  nn_config f = nn_config_open(k->host, file, "preprocessor_config.json", k->error);
  read_keys(&f, how);
  if (f.status) k->status = f.status;
}

/* What this request asks for, over what the files say. */
static struct detr_prepare asked_for(nn_pass *p, const struct detr_prepare *how) {
  static const char *const backends[] = {"torchvision", "pil", "original"};
  struct detr_prepare mine = *how;
  double list[3];
  const viv_json *size = nn_param(p, "size");
  int32_t status = size ? read_size(nn_host_of(p), size, &mine, nn_error_of(p)) : VIV_OK;
  if (status < 0) nn_leave(p, status);
  mine.resample = (int32_t)nn_param_int(p, "resample", mine.resample, 0, 5);
  mine.factor = nn_param_num(p, "rescale_factor", mine.factor, 1e-12, 1e12);
  mine.short_edge = nn_param_int(p, "short_side", mine.short_edge, 1, SIDE_MAX);
  mine.long_edge = nn_param_int(p, "max_size", mine.long_edge, 0, SIDE_MAX);
  if (nn_param_numbers(p, "image_mean", list, 3) == 3)
    for (int i = 0; i < 3; i++) mine.mean[i] = (float)list[i];
  if (nn_param_numbers(p, "image_std", list, 3) == 3)
    for (int i = 0; i < 3; i++) mine.std[i] = (float)list[i];
  if (nn_param(p, "backend")) {
    viv_str name = nn_param_text(p, "backend", "");
    mine.backend = -1;
    for (int32_t i = 0; i < 3; i++)
      if (nn_is(name, backends[i])) mine.backend = i;
    if (mine.backend < 0)
      nn_stop(p, VIV_BAD_INPUT, "params.backend", "is none of torchvision, pil, original");
  }
  return mine;
}

/* ---- one picture ---- */

struct picture {
  const uint8_t *x; /* [height, width, 3] */
  int64_t height, width;
  int64_t out_height, out_width;
};

static struct picture read_picture(nn_pass *p, const viv_tensor *t, int32_t at) {
  char where[32];
  snprintf(where, sizeof where, "image %d", (int)at);
  if (!t) nn_stop(p, VIV_BAD_INPUT, where, "is no picture: a file or a U8 tensor [H, W, 3] is");
  if (t->dtype != VIV_U8 || t->ndim != 3 || t->shape[2] != 3)
    nn_stop(p, VIV_BAD_INPUT, where, "must be U8 of the shape [height, width, 3]");
  struct picture pic = {.x = t->data, .height = t->shape[0], .width = t->shape[1]};
  if (pic.height < 1 || pic.width < 1 || pic.height > SIDE_MAX * 4 || pic.width > SIDE_MAX * 4)
    nn_stop(p, VIV_BAD_INPUT, where, "is %lld pixels wide and %lld high", (long long)pic.width,
            (long long)pic.height);
  return pic;
}

static void target_size(const struct detr_prepare *how, struct picture *pic) {
  pic->out_height = pic->height;
  pic->out_width = pic->width;
  if (!how->resize) return;
  if (how->rule == DETR_EXACT) {
    pic->out_height = how->height;
    pic->out_width = how->width;
  } else if (how->rule == DETR_FIT) {
    double h = (double)how->height / (double)pic->height;
    double w = (double)how->width / (double)pic->width, scale = h < w ? h : w;
    pic->out_height = (int64_t)((double)pic->height * scale);
    pic->out_width = (int64_t)((double)pic->width * scale);
  } else {
    nn_aspect_size(pic->height, pic->width, how->short_edge, how->long_edge,
                   how->rule == DETR_ASPECT, &pic->out_height, &pic->out_width);
  }
  /* A strip may round down to nothing, where the official code fails. */
  if (pic->out_height < 1) pic->out_height = 1;
  if (pic->out_width < 1) pic->out_width = 1;
}

/* Pillow's numbers. torchvision has no Lanczos for tensors and takes bicubic. */
static int32_t filter_of(nn_pass *p, const struct detr_prepare *how) {
  if (how->backend == DETR_PIL && how->resample) return nn_pillow_filter(how->resample);
  if (how->resample == 2) return VIV_LINEAR;
  if (how->resample == 1 || how->resample == 3) return VIV_CUBIC;
  nn_stop(p, VIV_BAD_INPUT, "resample", "%d is not supported with this backend",
          (int)how->resample);
}

static int32_t form_of(nn_pass *p, const struct detr_prepare *how, int32_t filter) {
  if (how->backend == DETR_PIL) return VIV_RESIZE_PILLOW;
  bool once = nn_is(nn_param_text(p, "cpu_capability", "AVX512"), "AVX512");
  return filter == VIV_LINEAR && once ? VIV_RESIZE_TORCH_FLOAT : VIV_RESIZE_TORCH_INT16;
}

static const uint8_t *resized(nn_pass *p, const struct detr_prepare *how,
                              const struct picture *pic) {
  const viv_compute *c = nn_compute_of(p);
  if (pic->height == pic->out_height && pic->width == pic->out_width) return pic->x;
  int32_t filter = filter_of(p, how);
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = form_of(p, how, filter),
                     .filter = filter,
                     .height = (int32_t)pic->height,
                     .width = (int32_t)pic->width,
                     .channels = 3,
                     .out_height = (int32_t)pic->out_height,
                     .out_width = (int32_t)pic->out_width,
                     .x = pic->x};
  a.out = nn_bytes(p, pic->out_height * pic->out_width, 3);
  nn_mark mark = nn_here(p);
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  nn_release(p, mark);
  return a.out;
}

/* Bytes to planes of `stride` floats a row, `plane` floats a plane. */
static void to_planes(const struct detr_prepare *how, const uint8_t *x, int64_t height,
                      int64_t width, float *out, int64_t stride, int64_t plane) {
  float table[3][256];
  for (int k = 0; k < 3; k++)
    for (int v = 0; v < 256; v++) {
      double value = how->rescale ? v * how->factor : v;
      if (how->normalize) value = (value - (double)how->mean[k]) / (double)how->std[k];
      table[k][v] = (float)value;
    }
  for (int64_t i = 0; i < height; i++)
    for (int64_t j = 0; j < width; j++, x += 3)
      for (int k = 0; k < 3; k++) out[k * plane + i * stride + j] = table[k][x[k]];
}

/* RF-DETR: transformers rescales, resizes without antialias and normalises; the original predict()
 * rescales, normalises and resizes with antialias. */
static void float_planes(nn_pass *p, const struct detr_prepare *how, const struct picture *pic,
                         float *out, int64_t stride, int64_t plane) {
  const viv_compute *c = nn_compute_of(p);
  bool original = how->backend != DETR_TORCHVISION;
  struct detr_prepare first = *how;
  if (!original) first.normalize = false;
  nn_mark mark = nn_here(p);
  int64_t from = pic->height * pic->width, to = pic->out_height * pic->out_width;
  float *x = nn_room(p, 3 * from), *y = nn_room(p, 3 * to);
  to_planes(&first, pic->x, pic->height, pic->width, x, pic->width, from);
  viv_resize a = {.struct_size = sizeof a,
                  .filter = filter_of(p, how),
                  .dims = 2,
                  .channels = 1,
                  .batch = 3,
                  .size = {(int32_t)pic->height, (int32_t)pic->width, 1},
                  .out_size = {(int32_t)pic->out_height, (int32_t)pic->out_width, 1},
                  .antialias = original,
                  .x = x,
                  .out = y};
  c->resize(c, &a);
  for (int64_t k = 0; k < 3; k++)
    for (int64_t i = 0; i < to; i++) {
      float v = y[k * to + i];
      if (!original && how->normalize) v = (v - how->mean[k]) / how->std[k];
      out[k * plane + i / pic->out_width * stride + i % pic->out_width] = v;
    }
  nn_release(p, mark);
}

/* ---- the batch ---- */

static void emit_mask(nn_pass *p, const struct detr_prepare *how, const uint8_t *padding, int64_t n,
                      int64_t height, int64_t width) {
  const char *name = how->mask_is_padding ? "mask" : "pixel_mask";
  if (!nn_wants_result(p, "%s", name)) return;
  uint8_t *out = nn_bytes(p, n * height * width, 1);
  for (int64_t i = 0; i < n * height * width; i++)
    out[i] = how->mask_is_padding ? padding[i] : !padding[i];
  nn_result(p, VIV_U8, out, NN_DIMS(n, height, width), "%s", name);
}

struct detr_batch detr_prepare_images(nn_pass *p, const struct detr_prepare *defaults, bool emit) {
  struct detr_prepare how = asked_for(p, defaults);
  int32_t n = nn_count(p, "image");
  if (n < 1) nn_stop(p, VIV_BAD_INPUT, "image", "is missing: this task needs a picture");
  struct picture *pics = nn_bytes(p, n, sizeof *pics);
  int64_t *sizes = nn_bytes(p, 2 * n, sizeof *sizes), height = 0, width = 0;
  for (int32_t i = 0; i < n; i++) {
    pics[i] = read_picture(p, nn_input_at(p, "image", i), i);
    target_size(&how, &pics[i]);
    sizes[2 * i] = pics[i].height;
    sizes[2 * i + 1] = pics[i].width;
    if (pics[i].out_height > height) height = pics[i].out_height;
    if (pics[i].out_width > width) width = pics[i].out_width;
  }
  int64_t plane = height * width;
  bool padded = false;
  float *pixels = nn_room(p, n * 3 * plane);
  uint8_t *padding = nn_bytes(p, n * plane, 1);
  memset(pixels, 0, (size_t)(n * 3 * plane) * sizeof *pixels);
  memset(padding, 1, (size_t)(n * plane));
  for (int32_t i = 0; i < n; i++) {
    const struct picture *pic = &pics[i];
    float *out = pixels + i * 3 * plane;
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    if (how.on_floats) {
      float_planes(p, &how, pic, out, width, plane);
    } else {
      const uint8_t *x = resized(p, &how, pic);
      if (emit && nn_wants_result(p, "resized.%d", (int)i))
        nn_result(p, VIV_U8, x, NN_DIMS(pic->out_height, pic->out_width, 3), "resized.%d", (int)i);
      to_planes(&how, x, pic->out_height, pic->out_width, out, width, plane);
    }
    nn_release(p, mark);
    for (int64_t r = 0; r < pic->out_height; r++)
      memset(padding + i * plane + r * width, 0, (size_t)pic->out_width);
    padded = padded || pic->out_height != height || pic->out_width != width;
  }
  if (emit) {
    nn_result(p, VIV_F32, pixels, NN_DIMS(n, 3, height, width), "pixel_values");
    if (how.pad) emit_mask(p, &how, padding, n, height, width);
  }
  return (struct detr_batch){.n = n,
                             .height = (int32_t)height,
                             .width = (int32_t)width,
                             .pixels = pixels,
                             .padding = padded ? padding : NULL,
                             .sizes = sizes};
}

struct detr_batch detr_read_batch(nn_pass *p, const struct detr_prepare *how) {
  int64_t shape[4] = {0, 3, 0, 0};
  struct detr_batch b = {.pixels = nn_need_floats(p, "pixel_values", 4, shape)};
  for (int i = 0; i < 4; i++)
    if (shape[i] < 1 || shape[i] > 4 * SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values", "axis %d has the length %lld", i,
              (long long)shape[i]);
  b.n = (int32_t)shape[0];
  b.height = (int32_t)shape[2];
  b.width = (int32_t)shape[3];
  int64_t mask_shape[3] = {shape[0], shape[2], shape[3]}, n = shape[0] * shape[2] * shape[3];
  const char *name = how->mask_is_padding ? "mask" : "pixel_mask";
  const viv_tensor *given = nn_input(p, name);
  if (!given) return b;
  const int64_t *mask = nn_some_ints(p, name, 3, mask_shape);
  uint8_t *padding = nn_bytes(p, n, 1);
  bool padded = false;
  for (int64_t i = 0; i < n; i++) {
    padding[i] = how->mask_is_padding ? mask[i] != 0 : mask[i] == 0;
    padded = padded || padding[i];
  }
  b.padding = padded ? padding : NULL;
  return b;
}
