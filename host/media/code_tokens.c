/* Codes of an audio codec as tokens of a language model. */
#include "media/code_tokens.h"

#include <math.h>
#include <string.h>

static int32_t token(const viv_json *node, const char *key, int32_t vocab, int32_t fallback,
                     const char *name, int32_t *out, viv_error *error) {
  double x = viv__json_num(node, key, fallback);
  *out = fallback;
  if (!(x >= (fallback < 0 ? -1 : 0) && x < vocab && x == floor(x)))
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "audio_tokens: %s is %g, no token of the vocabulary of %d", key, x, (int)vocab);
  *out = (int32_t)x;
  return VIV_OK;
}

int32_t viv__code_tokens_read(const viv_json *node, int32_t vocab, const char *name,
                              viv__code_tokens *out, viv_error *error) {
  *out = (viv__code_tokens){0};
  int32_t status = viv__vtok_describe(node, name, &out->header, error);
  if (status >= 0) status = token(node, "offset", vocab, 0, name, &out->offset, error);
  if (status >= 0) status = token(node, "begin", vocab, -1, name, &out->begin, error);
  if (status >= 0) status = token(node, "end", vocab, -1, name, &out->end, error);
  if (status < 0) return status;
  const viv__vtok_header *h = &out->header;
  if (h->chunks)
    return VIV_FAIL(error, VIV_NEVER, name,
                    "audio_tokens: chunks have scales, which are no tokens");
  int64_t last = out->offset + (int64_t)h->codebooks * h->size;
  if (last > vocab)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "audio_tokens: %d code books of %d from token %d on end at %lld; there are %d",
                    (int)h->codebooks, (int)h->size, (int)out->offset, (long long)last, (int)vocab);
  return VIV_OK;
}

/* The code book of place `at` of a unit. */
static int32_t book_of(const viv__vtok_header *h, int64_t at) {
  int32_t q = 0;
  if (!h->n_strides) return (int32_t)at;
  for (; at >= h->group / h->strides[q]; q++) at -= h->group / h->strides[q];
  return q;
}

int32_t viv__code_tokens_base(const viv__code_tokens *t, int64_t at) {
  const viv__vtok_header *h = &t->header;
  return t->offset + book_of(h, at % viv__vtok_width(h)) * h->size;
}

static int32_t same_codec(const viv__vtok_header *m, const viv__vtok_header *file, const char *name,
                          viv_error *error) {
  bool strides = m->n_strides || file->n_strides;
  bool same = !strcmp(m->codec, file->codec) && m->rate == file->rate &&
              m->channels == file->channels && m->hop == file->hop && m->size == file->size &&
              m->group == file->group && !file->chunks &&
              (!*m->books || !*file->books || !strcmp(m->books, file->books)) &&
              (!strides || m->n_strides == file->n_strides);
  for (int32_t i = 0; same && i < m->n_strides; i++) same = m->strides[i] == file->strides[i];
  if (!same)
    return VIV_FAIL(
        error, VIV_BAD_INPUT, name,
        "these are codes of %s (%d Hz, %d codes, code books \"%s\"); the language model "
        "knows those of %s (%d Hz, %d codes, code books \"%s\")",
        file->codec, (int)file->rate, (int)file->size, file->books, m->codec, (int)m->rate,
        (int)m->size, m->books);
  if (file->codebooks < m->codebooks)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "holds %d code books; the language model reads %d",
                    (int)file->codebooks, (int)m->codebooks);
  return VIV_OK;
}

int64_t viv__code_tokens_from(const viv__code_tokens *t, const viv__vtok_header *file,
                              const char *name, const int32_t *codes, int64_t n, int64_t *tokens,
                              viv_error *error) {
  const viv__vtok_header *m = &t->header;
  int32_t status = same_codec(m, file, name, error);
  if (status < 0) return status;
  int32_t from = viv__vtok_width(file), width = viv__vtok_width(m);
  int64_t count = 0;
  if (t->begin >= 0) tokens[count++] = t->begin;
  for (int64_t unit = 0; unit < n / from; unit++)
    for (int32_t i = 0; i < width; i++)
      tokens[count++] = viv__code_tokens_base(t, i) + (int64_t)codes[unit * from + i];
  return count;
}

int64_t viv__code_tokens_to(const viv__code_tokens *t, const int64_t *tokens, int64_t n,
                            int32_t *codes) {
  int64_t count = 0;
  for (; count < n; count++) {
    int64_t code = tokens[count] - viv__code_tokens_base(t, count);
    if (code < 0 || code >= t->header.size) break;
    codes[count] = (int32_t)code;
  }
  return count - count % viv__vtok_width(&t->header);
}
