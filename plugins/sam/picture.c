/* Pictures to the network's square, and masks back.
 *
 *   U8 [h, w, 3] -> Pillow's resize, longest side S -> (x factor - mean) / std -> zeros to [3, S, S]
 *
 * Official: segment_anything.utils.transforms.ResizeLongestSide, Sam.preprocess and postprocess_masks;
 * SamImageProcessor on Pillow; ESP-MedSAM's dataloader.py. */
#include <math.h>
#include <string.h>

#include "sam/sam.h"

enum { PICTURE_MAX = 1 << 16 };

/* ---- rules ---- */

static void read_keys(nn_config *k, struct sam_rules *r) {
  static const char *const mean[] = {"pixel_mean", "image_mean"};
  static const char *const std[] = {"pixel_std", "image_std"};
  for (int i = 0; i < 2; i++) {
    if (nn_key(k, mean[i])) nn_numbers(k, mean[i], r->mean, 3, -1e9);
    if (nn_key(k, std[i])) nn_numbers(k, std[i], r->std, 3, 0);
  }
  r->factor = nn_num(k, "rescale_factor", r->factor, 1e-12, 1e12);
  if (nn_key(k, "resample")) r->filter = nn_pillow_filter(nn_int(k, "resample", 2, 0, 5));
  const viv_json *size = nn_key(k, "size");
  if (!size || k->status || k->host->json_type(size) != VIV_JSON_OBJECT) return;
  nn_config s = nn_config_open(k->host, size, "size", k->error);
  r->side = (int32_t)nn_int(&s, "longest_edge", r->side, 1, PICTURE_MAX);
  if (s.status) k->status = s.status;
}

void sam_read_rules(nn_config *k, const viv_model_source *source, struct sam_model *m) {
  struct sam_rules *r = &m->rules;
  *r = (struct sam_rules){.factor = 1,
                          .mean = {123.675f, 116.28f, 103.53f},
                          .std = {58.395f, 57.12f, 57.375f},
                          .filter = VIV_LINEAR,
                          .side = m->side,
                          .square = m->medical_form};
  /* The released loader of ESP-MedSAM divides by the mean. */
  if (m->medical_form) memcpy(r->std, r->mean, sizeof r->std);
  if (m->transformers) {
    static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
    r->factor = 1.0 / 255;
    memcpy(r->mean, mean, sizeof mean);
    memcpy(r->std, std, sizeof std);
  }
  if (k->status) return;
  read_keys(k, r);
  const viv_json *file =
      k->host->checkpoint_file(source->checkpoint, nn_str("preprocessor_config.json"));
  if (!file || k->status) return;
  nn_config own = nn_config_open(k->host, file, "preprocessor_config.json", k->error);
  read_keys(&own, r);
  if (own.status) k->status = own.status;
}

struct sam_rules sam_request_rules(nn_pass *p, const struct sam_model *m) {
  struct sam_rules r = m->rules;
  double v[3];
  if (nn_param_numbers(p, "image_mean", v, 3) == 3)
    for (int i = 0; i < 3; i++) r.mean[i] = (float)v[i];
  if (nn_param_numbers(p, "image_std", v, 3) == 3)
    for (int i = 0; i < 3; i++) {
      if (!(v[i] > 0)) nn_stop(p, VIV_BAD_INPUT, "params", "image_std must be above 0");
      r.std[i] = (float)v[i];
    }
  r.factor = nn_param_num(p, "rescale_factor", r.factor, 1e-12, 1e12);
  if (nn_param(p, "resample")) r.filter = nn_pillow_filter(nn_param_int(p, "resample", 2, 0, 5));
  const viv_host *h = nn_host_of(p);
  const viv_json *size = nn_param(p, "size");
  const viv_json *longest = size ? h->json_member(size, nn_str("longest_edge")) : NULL;
  if (longest && h->json_number(longest) != r.side)
    nn_stop(p, VIV_BAD_INPUT, "params", "size.longest_edge must be %d, this network's",
            (int)r.side);
  return r;
}

/* ---- pictures ---- */

nn_pixels sam_picture_at(nn_pass *p, int32_t at) {
  return nn_picture_at(p, "image", at, PICTURE_MAX);
}

nn_pixels sam_cut(nn_pass *p, nn_pixels from, const int64_t box[4]) {
  nn_pixels to = {NULL, (int32_t)(box[3] - box[1]), (int32_t)(box[2] - box[0])};
  uint8_t *x = nn_bytes(p, (int64_t)to.height * to.width, 3);
  for (int64_t y = 0; y < to.height; y++)
    memcpy(x + y * to.width * 3, from.x + ((box[1] + y) * from.width + box[0]) * 3,
           (size_t)to.width * 3);
  to.x = x;
  return to;
}

struct sam_size sam_size_of(const struct sam_rules *r, const struct sam_model *m, int32_t height,
                            int32_t width) {
  struct sam_size s = {height, width, m->side, m->side};
  if (r->square) return s;
  double scale = (double)r->side / (height > width ? height : width);
  s.new_height = (int32_t)(height * scale + 0.5);
  s.new_width = (int32_t)(width * scale + 0.5);
  /* A strip keeps a row, which the official code loses. */
  if (s.new_height < 1) s.new_height = 1;
  if (s.new_width < 1) s.new_width = 1;
  return s;
}

/* ESP-MedSAM: both sides to S in floats, as OpenCV does it without rounding. */
static void prepare_square(nn_pass *p, const struct sam_rules *r, const struct sam_model *m,
                           nn_pixels from, float *pixels) {
  const viv_compute *c = nn_compute_of(p);
  int64_t cells = (int64_t)from.height * from.width, space = (int64_t)m->side * m->side;
  float *planes = nn_room(p, 3 * cells);
  for (int64_t i = 0; i < cells; i++)
    for (int64_t k = 0; k < 3; k++) planes[k * cells + i] = from.x[3 * i + k];
  viv_resize a = {.struct_size = sizeof a,
                  .filter = VIV_LINEAR,
                  .dims = 2,
                  .channels = 1,
                  .batch = 3,
                  .size = {from.height, from.width, 1},
                  .out_size = {m->side, m->side, 1},
                  .x = planes,
                  .out = pixels};
  c->resize(c, &a);
  for (int64_t k = 0; k < 3; k++)
    for (int64_t i = k * space; i < (k + 1) * space; i++)
      pixels[i] = (float)(((double)pixels[i] * r->factor - (double)r->mean[k]) / (double)r->std[k]);
}

static const uint8_t *resized_bytes(nn_pass *p, const struct sam_rules *r, nn_pixels from,
                                    struct sam_size s) {
  const viv_compute *c = nn_compute_of(p);
  if (s.new_height == from.height && s.new_width == from.width) return from.x;
  uint8_t *out = nn_bytes(p, (int64_t)s.new_height * s.new_width, 3);
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = VIV_RESIZE_PILLOW,
                     .filter = r->filter,
                     .height = from.height,
                     .width = from.width,
                     .channels = 3,
                     .out_height = s.new_height,
                     .out_width = s.new_width,
                     .x = from.x,
                     .out = out};
  a.scratch = nn_bytes(p, (int64_t)c->resize_u8_scratch(c, &a), 1);
  c->resize_u8(c, &a);
  return out;
}

void sam_prepare(nn_pass *p, const struct sam_rules *r, const struct sam_model *m, nn_pixels from,
                 float *pixels, const uint8_t **resized) {
  if (r->square) {
    nn_mark mark = nn_here(p);
    prepare_square(p, r, m, from, pixels);
    nn_release(p, mark);
    if (resized) *resized = NULL;
    return;
  }
  struct sam_size s = sam_size_of(r, m, from.height, from.width);
  const uint8_t *x = resized_bytes(p, r, from, s);
  int64_t space = (int64_t)m->side * m->side;
  float level[3][256];
  for (int k = 0; k < 3; k++)
    for (int v = 0; v < 256; v++)
      level[k][v] = (float)((v * r->factor - (double)r->mean[k]) / (double)r->std[k]);
  memset(pixels, 0, (size_t)(3 * space) * sizeof *pixels);
  for (int64_t k = 0; k < 3; k++)
    for (int64_t y = 0; y < s.new_height; y++)
      for (int64_t j = 0; j < s.new_width; j++)
        pixels[k * space + y * m->side + j] = level[k][x[(y * s.new_width + j) * 3 + k]];
  if (resized) *resized = x;
}

/* ---- masks ---- */

float *sam_full_size(nn_pass *p, const struct sam_model *m, const struct sam_size *size,
                     const float *logits, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  int64_t h = size->new_height, w = size->new_width, side = m->side;
  float *out = nn_room(p, n * size->height * size->width);
  nn_mark mark = nn_here(p);
  float *square = nn_room(p, side * side);
  viv_resize up = {.struct_size = sizeof up,
                   .filter = VIV_LINEAR,
                   .dims = 2,
                   .channels = 1,
                   .batch = 1,
                   .size = {4 * m->grid, 4 * m->grid, 1},
                   .out_size = {m->side, m->side, 1},
                   .out = square};
  viv_resize last = up;
  last.size[0] = size->new_height;
  last.size[1] = size->new_width;
  last.out_size[0] = size->height;
  last.out_size[1] = size->width;
  last.x = square;
  bool same = h == size->height && w == size->width; /* the second step changes nothing */
  for (int64_t i = 0; i < n; i++) {
    float *to = out + i * size->height * size->width, *rows = same ? to : square;
    up.x = logits + i * 16 * m->grid * m->grid;
    c->resize(c, &up);
    for (int64_t y = 0; (same || w < side) && y < h; y++)
      memmove(rows + y * w, square + y * side, (size_t)w * sizeof *square);
    last.out = to;
    if (!same) c->resize(c, &last);
  }
  nn_release(p, mark);
  return out;
}
