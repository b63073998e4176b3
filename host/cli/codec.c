/* Codes of audio codecs: whose they are, as JSON, as NPY. */
#include "cli/codec.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "tasks/results.h"

enum { CODES_FILE_LIMIT = 1 << 28 };

/* ---- the codec ---- */

static int32_t number(const cJSON *own, const char *key, int32_t fallback) {
  return (int32_t)viv__json_num((const viv_json *)own, key, fallback);
}

int32_t viv__codec_of(const viv__loaded *l, const char *model, viv__codec *c, viv_error *error) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model"), *list;
  *c = (viv__codec){0};
  if (!cJSON_GetObjectItemCaseSensitive(own, "codebook_size"))
    return VIV_FAIL(error, VIV_NEVER, model,
                    "the model is no audio codec (viv tokenize encodes texts)");
  viv__vtok_header *h = &c->header;
  const viv_json *json = (const viv_json *)own;
  snprintf(h->codec, sizeof h->codec, "%s", viv__json_text(json, "family", ""));
  snprintf(h->books, sizeof h->books, "%s", viv__json_text(json, "books", ""));
  h->rate = number(own, "sampling_rate", 0);
  h->channels = number(own, "channels", 1);
  h->hop = number(own, "hop", 0);
  h->codebooks = number(own, "codebooks", 0);
  h->size = number(own, "codebook_size", 0);
  h->group = number(own, "group", 1);
  h->chunks = number(own, "chunk", 0) > 0;
  h->bits = viv__vtok_bits(h->size);
  list = cJSON_GetObjectItemCaseSensitive(own, "strides");
  for (int i = 0; i < cJSON_GetArraySize(list) && i < VIV__VTOK_MAX_BOOKS; i++)
    h->strides[h->n_strides++] = (int32_t)cJSON_GetArrayItem(list, i)->valuedouble;
  c->used = number(own, "default_codebooks", h->codebooks);
  list = cJSON_GetObjectItemCaseSensitive(own, "lookahead");
  for (int i = 0; i < 2; i++)
    c->lookahead[i] = (int64_t)viv__json_number((const viv_json *)cJSON_GetArrayItem(list, i));
  return viv__vtok_check(h, model, error);
}

int32_t viv__codec_same(const viv__codec *c, const viv__vtok_header *file, const char *name,
                        viv_error *error) {
  const viv__vtok_header *m = &c->header;
  bool same = !strcmp(m->codec, file->codec) && m->rate == file->rate &&
              m->channels == file->channels && m->hop == file->hop && m->size == file->size &&
              m->group == file->group && m->chunks == file->chunks &&
              (m->n_strides > 0) == (file->n_strides > 0);
  for (int32_t i = 0; same && i < file->n_strides && i < m->n_strides; i++)
    same = m->strides[i] == file->strides[i];
  if (!same)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "these are codes of %s (%d Hz, %d channels, %d codes, %d samples a frame); the "
                    "model is %s (%d Hz, %d channels, %d codes, %d samples a frame)",
                    file->codec, (int)file->rate, (int)file->channels, (int)file->size,
                    (int)file->hop, m->codec, (int)m->rate, (int)m->channels, (int)m->size,
                    (int)m->hop);
  if (file->codebooks > m->codebooks)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "%d code books were used; the model has %d",
                    (int)file->codebooks, (int)m->codebooks);
  if (*file->books && *m->books && strcmp(file->books, m->books))
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "the codes were made with other weights of %s: the code books differ",
                    file->codec);
  return VIV_OK;
}

double viv__codec_kbps(const viv__vtok_header *h) {
  double frames = (double)h->rate / (double)h->hop / (double)h->group;
  return frames * viv__vtok_width(h) * viv__vtok_bits(h->size) / 1000;
}

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

static void lines_json(const viv__vtok_header *h, const int32_t *codes, int64_t units,
                       viv__buf *out) {
  viv__buf_str(out, "\"codes\":[");
  for (int32_t q = 0; q < h->codebooks; q++) {
    int64_t n = h->n_strides ? units * (h->group / h->strides[q]) : units;
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

/* The lines of a JSON object as units, behind what *codes holds. */
static int32_t lines_from(const viv__vtok_header *h, const viv_json *lines, const char *name,
                          viv__buf *codes, int64_t *units, viv_error *error) {
  if (viv__json_count(lines) != h->codebooks)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "codes holds %lld lists for %d code books",
                    (long long)viv__json_count(lines), (int)h->codebooks);
  int64_t some = h->n_strides ? h->group / h->strides[0] : 1;
  *units = viv__json_count(viv__json_item(lines, 0)) / some;
  int64_t all = *units * viv__vtok_width(h);
  int32_t *to = viv__need(viv__calloc((size_t)all + 1, sizeof *to));
  for (int32_t q = 0; q < h->codebooks; q++) {
    const cJSON *line = (const cJSON *)viv__json_item(lines, q), *item;
    int64_t n = h->n_strides ? *units * (h->group / h->strides[q]) : *units, i = 0;
    if (cJSON_GetArraySize(line) != n) {
      viv__free(to);
      return VIV_FAIL(error, VIV_BAD_INPUT, name, "list %d of the codes holds %d, expected %lld",
                      (int)q, cJSON_GetArraySize(line), (long long)n);
    }
    cJSON_ArrayForEach(item, line) {
      double x = cJSON_IsNumber(item) ? item->valuedouble : -1;
      if (!(x >= 0 && x < h->size && x == floor(x))) {
        viv__free(to);
        return VIV_FAIL(error, VIV_BAD_INPUT, name,
                        "code %g at place %lld of list %d is not in the code book of %d", x,
                        (long long)i, (int)q, (int)h->size);
      }
      to[place(h, q, i++)] = (int32_t)x;
    }
  }
  viv__buf_add(codes, to, (size_t)all * sizeof *to);
  viv__free(to);
  return VIV_OK;
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

static int32_t no_table(const viv__vtok_header *h, const char *name, viv_error *error) {
  if (!h->n_strides && !h->chunks) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, name,
                  "codes of %s are no table, which is all that .npy holds: "
                  "use .vtok or .json",
                  h->codec);
}

int32_t viv__codes_npy(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out,
                       viv_error *error) {
  int32_t status = no_table(h, NULL, error);
  if (status < 0) return status;
  int64_t frames = n / h->codebooks;
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_I32,
                  .ndim = 2,
                  .shape = {h->codebooks, frames},
                  .bytes = (uint64_t)n * sizeof(int32_t)};
  int32_t *lines = viv__need(viv__calloc((size_t)n + 1, sizeof *lines));
  for (int32_t q = 0; q < h->codebooks; q++)
    for (int64_t i = 0; i < frames; i++) lines[q * frames + i] = codes[place(h, q, i)];
  t.data = lines;
  viv__npy_write(&t, out);
  viv__free(lines);
  return out->failed ? VIV_FAIL(error, VIV_NOT_NOW, NULL, "no memory") : VIV_OK;
}

int32_t viv__codes_from_npy(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                            viv__buf *codes, int64_t *samples, viv_error *error) {
  char head[256] = "";
  size_t skip = len >= 10 ? 10 + ((uint8_t)bytes[8] | (size_t)(uint8_t)bytes[9] << 8) : 0;
  long long rows = 0, frames = 0;
  int32_t status = no_table(h, name, error), size = 0;
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

static int64_t from_file(void *context, void *data, uint64_t room, viv_error *error) {
  size_t n = fread(data, 1, room, context);
  if (!n && ferror((FILE *)context)) return VIV_FAIL(error, VIV_NOT_NOW, "codes", "can't read");
  return (int64_t)n;
}

static int32_t load_vtok(const char *path, viv__vtok_header *h, viv__buf *codes, int64_t *samples,
                         viv_error *error) {
  viv__vtok_reader r;
  viv__buf block = {0};
  FILE *f = fopen(path, "rbe");
  if (!f) return VIV_FAIL(error, VIV_BAD_INPUT, path, "can't open: %s", strerror(errno));
  int32_t status = viv__vtok_open(from_file, f, path, &r, error);
  *h = r.header;
  while (status == VIV_OK && (status = viv__vtok_next(&r, &block, error)) == VIV_OK)
    viv__buf_add(codes, block.ptr, block.len);
  *samples = r.samples;
  viv__vtok_close(&r);
  viv__buf_free(&block);
  fclose(f);
  return status < 0 ? status : VIV_OK;
}

int32_t viv__codes_load(const char *path, viv__vtok_header *h, viv__buf *codes, int64_t *samples,
                        viv_error *error) {
  enum viv__codes_kind kind = viv__codes_kind(path);
  char *text = NULL;
  size_t len = 0;
  int32_t status = VIV_OK;
  if (!kind)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "codes are read from .vtok, .json or .npy");
  if (kind == VIV__CODES_VTOK)
    status = load_vtok(path, h, codes, samples, error);
  else
    status = viv__read_file(path, CODES_FILE_LIMIT, &text, &len, error);
  if (status >= 0 && kind == VIV__CODES_JSON)
    status = viv__codes_from_json(text, len, path, h, codes, samples, error);
  if (status >= 0 && kind == VIV__CODES_NPY)
    status = viv__codes_from_npy(text, len, path, h, codes, samples, error);
  if (status >= 0 && codes->failed) status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (status >= 0 && !codes->len) status = VIV_FAIL(error, VIV_BAD_INPUT, path, "holds no codes");
  viv__free(text);
  return status;
}

int32_t viv__codes_save(const char *path, const viv__vtok_header *h, const int32_t *codes,
                        int64_t n, int64_t samples, viv_error *error) {
  enum viv__codes_kind kind = viv__codes_kind(path);
  viv__buf out = {0};
  int32_t status = VIV_OK;
  if (kind == VIV__CODES_JSON) status = viv__codes_json(h, codes, n, samples, &out, error);
  if (kind == VIV__CODES_NPY) status = viv__codes_npy(h, codes, n, &out, error);
  if (kind == VIV__CODES_VTOK) {
    int64_t width = viv__vtok_width(h), units = n / width;
    viv__vtok_begin(h, &out);
    for (int64_t at = 0; at < units; at += VIV__VTOK_MAX_UNITS) {
      int64_t some = units - at < VIV__VTOK_MAX_UNITS ? units - at : VIV__VTOK_MAX_UNITS;
      viv__vtok_block(h, codes + at * width, some, &out);
    }
    viv__vtok_end(samples, units, &out);
  }
  if (status >= 0 && !kind)
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "codes are written as .vtok, .json or .npy");
  if (status >= 0 && out.failed) status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (status >= 0) status = viv__write_file(path, out.ptr, out.len, error);
  viv__buf_free(&out);
  return status;
}
