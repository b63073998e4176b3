/* Token files of audio codecs. Layout: docs/vtok.md. */
#include "media/vtok.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { MAX_JSON = 1 << 16, END_BYTES = 16 };
static const char magic[8] = "VIVTOK1\n";

int32_t viv__vtok_width(const viv__vtok_header *h) {
  if (!h->n_strides) return h->codebooks;
  int32_t n = 0;
  for (int32_t i = 0; i < h->codebooks; i++) n += h->group / h->strides[i];
  return n;
}

int32_t viv__vtok_bits(int32_t size) {
  int32_t bits = 1;
  while (bits < 31 && (INT64_C(1) << bits) < size) bits++;
  return bits;
}

static int32_t in_range(const char *key, int64_t value, int64_t low, int64_t high, const char *name,
                        viv_error *error) {
  if (value >= low && value <= high) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, name, "%s is %lld; %lld to %lld are possible", key,
                  (long long)value, (long long)low, (long long)high);
}

int32_t viv__vtok_check(const viv__vtok_header *h, const char *name, viv_error *error) {
  int32_t bits = viv__vtok_bits(h->size);
  if (!h->codec[0]) return VIV_FAIL(error, VIV_BAD_INPUT, name, "codec is not named");
  if (in_range("sampling_rate", h->rate, 1000, 768000, name, error) < 0 ||
      in_range("channels", h->channels, 1, 8, name, error) < 0 ||
      in_range("hop", h->hop, 1, 1 << 20, name, error) < 0 ||
      in_range("codebooks", h->codebooks, 1, VIV__VTOK_MAX_BOOKS, name, error) < 0 ||
      in_range("codebook_size", h->size, 2, 1 << 20, name, error) < 0 ||
      in_range("group", h->group, 1, 1 << 16, name, error) < 0)
    return VIV_BAD_INPUT;
  if (h->bits != bits && h->bits != 32 && (h->bits != 16 || bits > 16))
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "bits is %d; %d, 16 or 32 hold a code of %d",
                    (int)h->bits, (int)bits, (int)h->size);
  if (h->n_strides && (h->n_strides != h->codebooks || h->chunks))
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "%d strides do not go with %d code books%s",
                    (int)h->n_strides, (int)h->codebooks, h->chunks ? " in chunks" : "");
  for (int32_t i = 0; i < h->n_strides; i++)
    if (h->strides[i] < 1 || h->group % h->strides[i])
      return VIV_FAIL(error, VIV_BAD_INPUT, name, "stride %d of code book %d does not divide %d",
                      (int)h->strides[i], (int)i, (int)h->group);
  return VIV_OK;
}

/* ---- little-endian ---- */

static void put(viv__buf *b, uint64_t value, int bytes) {
  uint8_t raw[8];
  for (int i = 0; i < bytes; i++) raw[i] = (uint8_t)(value >> (8 * i));
  viv__buf_add(b, raw, (size_t)bytes);
}

static uint64_t get(const char *at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint64_t)(uint8_t)at[i] << (8 * i);
  return value;
}

/* ---- writing ---- */

void viv__vtok_begin(const viv__vtok_header *h, viv__buf *out) {
  viv__buf json = {0};
  viv__buf_str(&json, "{\"codec\":");
  viv__buf_json(&json, viv__str(h->codec));
  viv__buf_str(&json, ",\"books\":");
  viv__buf_json(&json, viv__str(h->books));
  viv__buf_fmt(&json,
               ",\"sampling_rate\":%d,\"channels\":%d,\"hop\":%d,\"codebooks\":%d,"
               "\"codebook_size\":%d,\"group\":%d,\"chunks\":%s,\"bits\":%d",
               (int)h->rate, (int)h->channels, (int)h->hop, (int)h->codebooks, (int)h->size,
               (int)h->group, h->chunks ? "true" : "false", (int)h->bits);
  for (int32_t i = 0; i < h->n_strides; i++)
    viv__buf_fmt(&json, "%s%d", i ? "," : ",\"strides\":[", (int)h->strides[i]);
  viv__buf_str(&json, h->n_strides ? "]}" : "}");
  viv__buf_add(out, magic, sizeof magic);
  put(out, json.len, 4);
  viv__buf_add(out, json.ptr, json.len);
  out->failed |= json.failed;
  viv__buf_free(&json);
}

static void pack(const int32_t *codes, int64_t n, int32_t bits, viv__buf *out) {
  uint64_t held = 0;
  int have = 0;
  for (int64_t i = 0; i < n; i++) {
    held |= (uint64_t)(uint32_t)codes[i] << have;
    for (have += bits; have >= 8; have -= 8, held >>= 8) put(out, held & 255, 1);
  }
  if (have) put(out, held & 255, 1);
}

void viv__vtok_block(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out) {
  int64_t frames = h->chunks ? codes[0] : n, all = frames * viv__vtok_width(h);
  int64_t bytes = (all * h->bits + 7) / 8 + (h->chunks ? 4 : 0);
  put(out, (uint64_t)frames, 4);
  put(out, (uint64_t)bytes, 4);
  if (h->chunks) put(out, (uint32_t)codes[1], 4);
  pack(codes + (h->chunks ? 2 : 0), all, h->bits, out);
}

void viv__vtok_end(int64_t samples, int64_t units, viv__buf *out) {
  put(out, 0, 4);
  put(out, END_BYTES, 4);
  put(out, (uint64_t)samples, 8);
  put(out, (uint64_t)units, 8);
}

/* ---- reading ---- */

/* All of `bytes`, or the answer that the file ends in `what`. Memory grows with what was read, not
 * with what the file promises. */
static int32_t need(viv__vtok_reader *r, uint64_t bytes, const char *what, viv_error *error) {
  enum { PIECE = 65536 };
  char piece[PIECE];
  r->block.len = 0;
  while (r->block.len < bytes) {
    uint64_t want = bytes - r->block.len < PIECE ? bytes - r->block.len : PIECE;
    int64_t got = r->source(r->context, piece, want, error);
    if (got < 0) return (int32_t)got;
    if (!got)
      return VIV_FAIL(error, VIV_BAD_INPUT, r->name,
                      "the file is cut short: it ends at byte %lld, within %s",
                      (long long)(r->at + (int64_t)r->block.len), what);
    viv__buf_add(&r->block, piece, (size_t)got);
    if (r->block.failed) return VIV_FAIL(error, VIV_NOT_NOW, r->name, "no memory");
  }
  r->at += (int64_t)bytes;
  return VIV_OK;
}

static int32_t whole(const viv_json *doc, const char *key, int32_t fallback) {
  double x = viv__json_num(doc, key, fallback);
  return x >= INT_MIN && x <= INT_MAX && x == floor(x) ? (int32_t)x : INT_MIN;
}

int32_t viv__vtok_describe(const viv_json *doc, const char *name, viv__vtok_header *h,
                           viv_error *error) {
  *h = (viv__vtok_header){0};
  if (viv__json_type(doc) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the header is no JSON object");
  snprintf(h->codec, sizeof h->codec, "%s", viv__json_text(doc, "codec", ""));
  snprintf(h->books, sizeof h->books, "%s", viv__json_text(doc, "books", ""));
  h->rate = whole(doc, "sampling_rate", 0);
  h->channels = whole(doc, "channels", 0);
  h->hop = whole(doc, "hop", 0);
  h->codebooks = whole(doc, "codebooks", 0);
  h->size = whole(doc, "codebook_size", 0);
  h->group = whole(doc, "group", 1);
  h->bits = whole(doc, "bits", viv__vtok_bits(h->size));
  h->chunks = viv__json_bool(doc, "chunks", false);
  const viv_json *strides = viv__json_get(doc, "strides");
  int64_t n = viv__json_count(strides);
  if (n > VIV__VTOK_MAX_BOOKS)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "%lld strides are too many", (long long)n);
  for (int64_t i = 0; i < n; i++) {
    double x = viv__json_number(viv__json_item(strides, i));
    h->strides[i] = x >= 1 && x <= 1 << 16 ? (int32_t)x : 0;
  }
  h->n_strides = (int32_t)n;
  return viv__vtok_check(h, name, error);
}

static int32_t read_header(viv__vtok_reader *r, viv_error *error) {
  viv_json *doc = NULL;
  int32_t status = viv__json_parse(r->block.ptr, r->block.len, r->name, &doc, error);
  if (status < 0) return status;
  status = viv__vtok_describe(doc, r->name, &r->header, error);
  viv__json_free(doc);
  return status;
}

int32_t viv__vtok_open(viv__vtok_source source, void *context, const char *name,
                       viv__vtok_reader *r, viv_error *error) {
  *r = (viv__vtok_reader){.source = source, .context = context, .name = name};
  int32_t status = need(r, sizeof magic + 4, "its first bytes", error);
  if (status >= 0 && memcmp(r->block.ptr, magic, sizeof magic))
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "not a token file: it does not begin with VIVTOK1");
  if (status < 0) return status;
  uint64_t length = get(r->block.ptr + sizeof magic, 4);
  if (length < 2 || length > MAX_JSON)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the header claims %llu bytes; 2 to %d are read",
                    (unsigned long long)length, MAX_JSON);
  status = need(r, length, "its header", error);
  return status < 0 ? status : read_header(r, error);
}

static int32_t unpack(viv__vtok_reader *r, const char *from, int64_t all, viv__buf *codes,
                      viv_error *error) {
  const viv__vtok_header *h = &r->header;
  uint64_t held = 0;
  int have = 0;
  for (int64_t i = 0; i < all; i++) {
    while (have < h->bits) {
      held |= (uint64_t)(uint8_t)*from++ << have;
      have += 8;
    }
    int32_t code = (int32_t)(held & ((UINT64_C(1) << h->bits) - 1));
    held >>= h->bits;
    have -= h->bits;
    if (code < 0 || code >= h->size)
      return VIV_FAIL(error, VIV_BAD_INPUT, r->name,
                      "code %d in unit %lld is not in the code book of %d", (int)code,
                      (long long)(r->units + (h->chunks ? 0 : i / viv__vtok_width(h))),
                      (int)h->size);
    viv__buf_add(codes, &code, sizeof code);
  }
  return VIV_OK;
}

static int32_t read_end(viv__vtok_reader *r, viv_error *error) {
  int32_t status = need(r, END_BYTES, "its last block", error);
  char more;
  if (status < 0) return status;
  uint64_t samples = get(r->block.ptr, 8), units = get(r->block.ptr + 8, 8);
  if (units != (uint64_t)r->units)
    return VIV_FAIL(error, VIV_BAD_INPUT, r->name, "%lld units were read, the file counts %llu",
                    (long long)r->units, (unsigned long long)units);
  if (samples > INT64_MAX / 64)
    return VIV_FAIL(error, VIV_BAD_INPUT, r->name, "the file claims %llu samples",
                    (unsigned long long)samples);
  int64_t rest = r->source(r->context, &more, 1, error);
  if (rest < 0) return (int32_t)rest;
  if (rest)
    return VIV_FAIL(error, VIV_BAD_INPUT, r->name, "bytes follow the last block, at byte %lld",
                    (long long)r->at);
  r->samples = (int64_t)samples;
  return VIV_DONE;
}

int32_t viv__vtok_next(viv__vtok_reader *r, viv__buf *codes, viv_error *error) {
  const viv__vtok_header *h = &r->header;
  codes->len = 0;
  int32_t status = need(r, 8, "the head of a block", error);
  if (status < 0) return status;
  uint64_t frames = get(r->block.ptr, 4), bytes = get(r->block.ptr + 4, 4);
  if (!frames && bytes == END_BYTES) return read_end(r, error);
  int64_t all = (int64_t)frames * viv__vtok_width(h);
  uint64_t want = ((uint64_t)all * (uint64_t)h->bits + 7) / 8 + (h->chunks ? 4 : 0);
  if (!frames || frames > VIV__VTOK_MAX_UNITS || bytes != want)
    return VIV_FAIL(error, VIV_BAD_INPUT, r->name,
                    "the block at byte %lld has %llu units in %llu bytes", (long long)(r->at - 8),
                    (unsigned long long)frames, (unsigned long long)bytes);
  status = need(r, bytes, "a block", error);
  if (status < 0) return status;
  const char *from = r->block.ptr;
  if (h->chunks) {
    int32_t head[2] = {(int32_t)frames, (int32_t)(uint32_t)get(from, 4)};
    float scale;
    memcpy(&scale, &head[1], sizeof scale);
    if (!isfinite(scale))
      return VIV_FAIL(error, VIV_BAD_INPUT, r->name, "the scale of chunk %lld is no number",
                      (long long)r->units);
    viv__buf_add(codes, head, sizeof head);
    from += 4;
  }
  status = unpack(r, from, all, codes, error);
  if (status >= 0 && codes->failed) status = VIV_FAIL(error, VIV_NOT_NOW, r->name, "no memory");
  if (status >= 0) r->units += h->chunks ? 1 : (int64_t)frames;
  return status;
}

void viv__vtok_close(viv__vtok_reader *r) {
  viv__buf_free(&r->block);
}
