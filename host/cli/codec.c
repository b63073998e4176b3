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

int32_t viv__codes_npy(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out,
                       viv_error *error) {
  int32_t status = viv__codes_table(h, NULL, error);
  if (status < 0) return status;
  int64_t frames = n / h->codebooks;
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_I32,
                  .ndim = 2,
                  .shape = {h->codebooks, frames},
                  .bytes = (uint64_t)n * sizeof(int32_t)};
  int32_t *lines = viv__need(viv__calloc((size_t)n + 1, sizeof *lines));
  for (int32_t q = 0; q < h->codebooks; q++)
    for (int64_t i = 0; i < frames; i++) lines[q * frames + i] = codes[i * h->codebooks + q];
  t.data = lines;
  viv__npy_write(&t, out);
  viv__free(lines);
  return out->failed ? VIV_FAIL(error, VIV_NOT_NOW, NULL, "no memory") : VIV_OK;
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
