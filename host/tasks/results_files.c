/* Depth, maps, masks and vectors as files that other programs read: PNG, PFM, NPY. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "tasks/results.h"

static bool ends_with(const char *path, const char *extension) {
  size_t a = strlen(path), b = strlen(extension);
  return a > b && !strcasecmp(path + a - b, extension);
}

bool viv__results_file_known(const char *path) {
  return ends_with(path, ".png") || ends_with(path, ".pfm") || ends_with(path, ".npy");
}

/* ---- NPY, version 1.0 ---- */

static const char *npy_type(int32_t dtype) {
  switch (dtype) {
  case VIV_F32:
    return "<f4";
  case VIV_I64:
    return "<i8";
  case VIV_I32:
    return "<i4";
  default:
    return "|u1";
  }
}

void viv__npy_write(const viv_tensor *t, viv__buf *out) {
  enum { HEAD = 10, ALIGN = 64 };
  viv__buf text = {0};
  viv__buf_fmt(&text, "{'descr': '%s', 'fortran_order': False, 'shape': (", npy_type(t->dtype));
  for (int32_t i = 0; i < t->ndim; i++) viv__buf_fmt(&text, "%lld, ", (long long)t->shape[i]);
  viv__buf_str(&text, "), }");
  while ((HEAD + text.len + 1) % ALIGN && !text.failed) viv__buf_add(&text, " ", 1);
  viv__buf_add(&text, "\n", 1);
  uint8_t len[2] = {(uint8_t)text.len, (uint8_t)(text.len >> 8)};
  viv__buf_add(out, "\x93NUMPY\1\0", 8);
  viv__buf_add(out, len, 2);
  viv__buf_add(out, text.ptr, text.len);
  viv__buf_add(out, t->data, t->bytes);
  out->failed |= text.failed;
  viv__buf_free(&text);
}

/* ---- PFM: rows from the bottom up ---- */

static void pfm(viv__buf *out, const viv_tensor *depth) {
  int64_t h = depth->shape[0], w = depth->shape[1];
  viv__buf_fmt(out, "Pf\n%lld %lld\n-1.0\n", (long long)w, (long long)h);
  for (int64_t y = h - 1; y >= 0; y--)
    viv__buf_add(out, (const float *)depth->data + y * w, (uint64_t)w * sizeof(float));
}

/* ---- PNG ---- */

/* 0 is the least depth, 65535 the largest; the JSON's min and max give the numbers back. */
static void depth_levels(const viv_tensor *depth, uint16_t *out) {
  const float *z = depth->data;
  int64_t n = depth->shape[0] * depth->shape[1];
  float low = INFINITY, high = -INFINITY;
  for (int64_t i = 0; i < n; i++)
    if (isfinite(z[i])) {
      low = fminf(low, z[i]);
      high = fmaxf(high, z[i]);
    }
  double scale = high > low ? 65535.0 / ((double)high - (double)low) : 0;
  for (int64_t i = 0; i < n; i++)
    out[i] = isfinite(z[i]) ? (uint16_t)lround(((double)z[i] - (double)low) * scale) : 0;
}

/* The class of each pixel, or 1 + the instance that covers it: of several the one with the best
 * score. */
static void map_levels(const viv__results *r, int64_t i, uint16_t *out) {
  const viv_tensor *map = viv__result(r, i, VIV__LABEL_MAP), *masks = viv__result(r, i, VIV__MASKS);
  if (!masks) {
    for (int64_t k = 0; k < map->shape[0] * map->shape[1]; k++) {
      int64_t label = viv__result_integer(map, k);
      out[k] = label < 0 || label > 65535 ? 65535 : (uint16_t)label;
    }
    return;
  }
  int64_t pixels = masks->shape[1] * masks->shape[2];
  memset(out, 0, (size_t)pixels * sizeof *out);
  for (int64_t n = 0; n < masks->shape[0] && n < 65535; n++)
    for (int64_t k = 0; k < pixels; k++)
      if (viv__result_integer(masks, n * pixels + k) &&
          (!out[k] || viv__result_score(r, i, n) > viv__result_score(r, i, out[k] - 1)))
        out[k] = (uint16_t)(n + 1);
}

static int32_t png(viv__buf *out, const viv__results *r, int64_t i, const viv_tensor *t,
                   viv_error *error) {
  int64_t h = t->shape[t->ndim - 2], w = t->shape[t->ndim - 1];
  uint16_t *levels = viv__malloc((size_t)(h * w) * sizeof *levels), most = 0;
  if (!levels) return VIV_FAIL(error, VIV_NOT_NOW, "PNG", "no memory");
  bool measured = t->dtype == VIV_F32; /* depth and heat */
  if (measured)
    depth_levels(t, levels);
  else
    map_levels(r, i, levels);
  for (int64_t k = 0; k < h * w; k++)
    if (levels[k] > most) most = levels[k];
  bool bytes = !measured && most < 256;
  for (int64_t k = 0; bytes && k < h * w; k++) ((uint8_t *)levels)[k] = (uint8_t)levels[k];
  int32_t status = viv__png_encode(out, levels, (int32_t)w, (int32_t)h, 1, bytes ? 8 : 16, error);
  viv__free(levels);
  return status;
}

static void write_row(const float *row, int64_t n, viv__buf *out) {
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {n},
                  .bytes = (uint64_t)n * sizeof *row};
  memcpy(&t.data, &row, sizeof row); /* only read */
  viv__npy_write(&t, out);
}

/* ---- the file ---- */

int32_t viv__results_file(const viv__results *r, int64_t i, const char *path, viv_error *error) {
  static const int32_t fields[] = {VIV__DEPTH, VIV__HEAT, VIV__MASKS, VIV__LABEL_MAP};
  const viv_tensor *t = NULL;
  viv__buf out = {0};
  int32_t status = VIV_OK;
  int64_t n = 0;
  for (size_t k = 0; k < sizeof fields / sizeof *fields && !t; k++)
    t = viv__result(r, i, fields[k]);
  bool measured = t && t->dtype == VIV_F32;
  const float *row = viv__result_row(r, i, VIV__EMBEDDINGS, &n);
  if (!row) row = viv__result_row(r, i, VIV__PROBABILITIES, &n);
  if (t && ends_with(path, ".png"))
    status = png(&out, r, i, t, error);
  else if (measured && ends_with(path, ".pfm"))
    pfm(&out, t);
  else if (t && ends_with(path, ".npy"))
    viv__npy_write(t, &out);
  else if (row && ends_with(path, ".npy"))
    write_row(row, n, &out);
  else
    status = VIV_FAIL(error, VIV_NEVER, path, "the results of %s have no form of such a file",
                      r->schema->name);
  if (status >= 0 && out.failed) status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (status >= 0) status = viv__write_file(path, out.ptr, out.len, error);
  viv__buf_free(&out);
  return status;
}
