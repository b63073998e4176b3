/* Codes of audio codecs as JSON and NPY. */
#include "media/codes.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>
#include <strings.h>

static bool named(const char *path, const char *end) {
  size_t a = strlen(path), b = strlen(end);
  return a > b && !strcasecmp(path + a - b, end);
}

enum viv__codes_kind viv__codes_kind(const char *path) {
  return named(path, ".vtok")   ? VIV__CODES_VTOK
         : named(path, ".json") ? VIV__CODES_JSON
         : named(path, ".npy")  ? VIV__CODES_NPY
                                : 0;
}

/* ---- lines: one for each code book ---- */

/* Place of code i of code book q among the codes of units that follow each other. */
static int64_t place(const viv__vtok_header *h, int32_t q, int64_t i) {
  if (!h->n_strides) return i * h->codebooks + q;
  int64_t before = 0, some = h->group / h->strides[q];
  for (int32_t k = 0; k < q; k++) before += h->group / h->strides[k];
  return i / some * viv__vtok_width(h) + before + i % some;
}

/* Codes of code book q in that many units. */
static int64_t line_length(const viv__vtok_header *h, int32_t q, int64_t units) {
  return h->n_strides ? units * (h->group / h->strides[q]) : units;
}

static void lines_json(const viv__vtok_header *h, const int32_t *codes, int64_t units,
                       viv__buf *out) {
  viv__buf_str(out, "\"codes\":[");
  for (int32_t q = 0; q < h->codebooks; q++) {
    int64_t n = line_length(h, q, units);
    for (int64_t i = 0; i < n; i++)
      viv__buf_fmt(out, "%s%d", i ? "," : q ? ",[" : "[", (int)codes[place(h, q, i)]);
    viv__buf_str(out, "]");
  }
  viv__buf_str(out, "]");
}

int32_t viv__codes_json(const viv__vtok_header *h, const int32_t *codes, int64_t n, int64_t samples,
                        viv__buf *out, viv_error *error) {
  viv__buf head = {0};
  viv__vtok_begin(h, &head);
  viv__buf_add(out, head.ptr + 12, head.len - 13); /* the header's object, still open */
  viv__buf_fmt(out, ",\"samples\":%lld,", (long long)samples);
  if (!h->chunks) {
    lines_json(h, codes, n / viv__vtok_width(h), out);
  } else {
    viv__buf_str(out, "\"units\":[");
    for (int64_t at = 0; at < n; at += 2 + codes[at] * h->codebooks) {
      float scale;
      memcpy(&scale, &codes[at + 1], sizeof scale);
      viv__buf_fmt(out, "%s{\"scale\":%.9g,", at ? "," : "", (double)scale);
      lines_json(h, codes + at + 2, codes[at], out);
      viv__buf_str(out, "}");
    }
    viv__buf_str(out, "]");
  }
  viv__buf_str(out, "}\n");
  out->failed |= head.failed;
  viv__buf_free(&head);
  return out->failed ? VIV_FAIL(error, VIV_NOT_NOW, NULL, "no memory") : VIV_OK;
}

static int32_t read_line(const viv__vtok_header *h, const cJSON *line, int32_t q, const char *name,
                         int32_t *to, viv_error *error) {
  const cJSON *item;
  int64_t i = 0;
  cJSON_ArrayForEach(item, line) {
    double x = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(x >= 0 && x < h->size && x == floor(x)))
      return VIV_FAIL(error, VIV_BAD_INPUT, name,
                      "code %g at place %lld of list %d is not in the code book of %d", x,
                      (long long)i, (int)q, (int)h->size);
    to[place(h, q, i++)] = (int32_t)x;
  }
  return VIV_OK;
}

/* The lines of a JSON object as units, behind what *codes holds. Memory is taken when all lengths are
 * known to go together. */
static int32_t lines_from(const viv__vtok_header *h, const viv_json *lines, const char *name,
                          viv__buf *codes, int64_t *units, viv_error *error) {
  if (viv__json_count(lines) != h->codebooks)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "codes holds %lld lists for %d code books",
                    (long long)viv__json_count(lines), (int)h->codebooks);
  *units = viv__json_count(viv__json_item(lines, 0)) / line_length(h, 0, 1);
  for (int32_t q = 0; q < h->codebooks; q++) {
    int64_t n = viv__json_count(viv__json_item(lines, q)), want = line_length(h, q, *units);
    if (n != want)
      return VIV_FAIL(error, VIV_BAD_INPUT, name, "list %d of the codes holds %lld, expected %lld",
                      (int)q, (long long)n, (long long)want);
  }
  int64_t all = *units * viv__vtok_width(h);
  int32_t *to = viv__calloc((size_t)all + 1, sizeof *to), status = VIV_OK;
  if (!to) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
  for (int32_t q = 0; q < h->codebooks && status >= 0; q++)
    status = read_line(h, (const cJSON *)viv__json_item(lines, q), q, name, to, error);
  if (status >= 0) viv__buf_add(codes, to, (size_t)all * sizeof *to);
  viv__free(to);
  return status;
}

int32_t viv__codes_from_json(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                             viv__buf *codes, int64_t *samples, viv_error *error) {
  viv_json *doc = NULL;
  int32_t status = viv__json_parse(bytes, len, name, &doc, error);
  if (status < 0) return status;
  int64_t units = 0, frames = 0;
  status = viv__vtok_describe(doc, name, h, error);
  const viv_json *list = viv__json_get(doc, "units");
  if (status >= 0 && !h->chunks)
    status = lines_from(h, viv__json_get(doc, "codes"), name, codes, &frames, error);
  for (int64_t i = 0; status >= 0 && h->chunks && i < viv__json_count(list); i++) {
    const viv_json *one = viv__json_item(list, i);
    float scale = (float)viv__json_num(one, "scale", 1);
    int32_t head[2] = {0};
    size_t at = codes->len;
    viv__buf_add(codes, head, sizeof head);
    status = lines_from(h, viv__json_get(one, "codes"), name, codes, &units, error);
    if (status >= 0 && (!isfinite(scale) || units < 1 || units > VIV__VTOK_MAX_UNITS))
      status = VIV_FAIL(error, VIV_BAD_INPUT, name, "chunk %lld has %lld frames and the scale %g",
                        (long long)i, (long long)units, (double)scale);
    head[0] = (int32_t)units;
    memcpy(&head[1], &scale, sizeof scale);
    if (status >= 0 && !codes->failed) memcpy(codes->ptr + at, head, sizeof head);
    frames += units;
  }
  double most = (double)frames * h->group * h->hop;
  double told = status < 0 ? 0 : viv__json_num(doc, "samples", most);
  if (status >= 0 && !(told >= 0 && told <= most))
    status =
        VIV_FAIL(error, VIV_BAD_INPUT, name, "samples is %g; the codes stand for %g", told, most);
  *samples = (int64_t)told;
  viv__json_free(doc);
  return status;
}

/* ---- NPY, version 1.0 ---- */

int32_t viv__codes_table(const viv__vtok_header *h, const char *name, viv_error *error) {
  if (!h->n_strides && !h->chunks) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, name,
                  "codes of %s are no table, which is all that .npy holds: "
                  "use .vtok or .json",
                  h->codec);
}

int32_t viv__codes_from_npy(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                            viv__buf *codes, int64_t *samples, viv_error *error) {
  char head[256] = "";
  size_t skip = len >= 10 ? 10 + ((uint8_t)bytes[8] | (size_t)(uint8_t)bytes[9] << 8) : 0;
  long long rows = 0, frames = 0;
  int32_t status = viv__codes_table(h, name, error), size = 0;
  if (status < 0) return status;
  if (len < 10 || memcmp(bytes, "\x93NUMPY\1\0", 8) || skip > len)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "no .npy file of version 1.0");
  snprintf(head, sizeof head, "%.*s", (int)(skip - 10 < 255 ? skip - 10 : 255), bytes + 10);
  size = strstr(head, "'<i4'") ? 4 : strstr(head, "'<i8'") ? 8 : strstr(head, "'<i2'") ? 2 : 0;
  const char *shape = strstr(head, "'shape': (");
  if (!size || !strstr(head, "'fortran_order': False") || !shape ||
      sscanf(shape, "'shape': (%lld, %lld)", &rows, &frames) != 2)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "not a table [code book, frame] of 16, 32 or 64-bit whole numbers");
  if (rows < 1 || rows > h->codebooks || frames < 1 || frames > (1 << 30) ||
      len - skip != (size_t)rows * (size_t)frames * (size_t)size)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "%lld code books of %lld frames in %zu bytes; the model has %d code books",
                    rows, frames, len - skip, (int)h->codebooks);
  h->codebooks = (int32_t)rows;
  for (long long i = 0; i < frames; i++)
    for (long long q = 0; q < rows; q++) {
      const char *at = bytes + skip + (size_t)(q * frames + i) * (size_t)size;
      int64_t code = 0;
      for (int32_t k = 0; k < size; k++) code |= (int64_t)((uint64_t)(uint8_t)at[k] << (8 * k));
      if (code < 0 || code >= h->size)
        return VIV_FAIL(error, VIV_BAD_INPUT, name,
                        "the code of code book %lld at frame %lld is not in its %d", q, i,
                        (int)h->size);
      viv__buf_add(codes, &(int32_t){(int32_t)code}, sizeof(int32_t));
    }
  *samples = frames * h->hop;
  return codes->failed ? VIV_FAIL(error, VIV_NOT_NOW, name, "no memory") : VIV_OK;
}
