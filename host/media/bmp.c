/* BMP: the uncompressed forms that Windows and OS/2 programs write. All sizes are checked against the
 * file before memory is taken. */
#include <string.h>

#include "media/raster.h"

enum { RGB = 0, BITFIELDS = 3, ALPHABITFIELDS = 6, FILE_HEADER = 14, CORE = 12, INFO = 40 };

struct bmp {
  viv__raster *r;
  uint32_t bits, compression, masks[4]; /* red, green, blue, alpha */
  size_t header, pixels, stride;
  const uint8_t *palette;
  uint32_t n_palette, entry; /* bytes of an entry */
  bool top_down;
};

static uint32_t u16(const uint8_t *p) {
  return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p) {
  return u16(p) | u16(p + 2) << 16;
}

static int32_t bad(const struct bmp *b, const char *what) {
  return VIV_FAIL(b->r->error, VIV_BAD_INPUT, b->r->name, "the BMP %s", what);
}

static int32_t read_masks(struct bmp *b) {
  const uint8_t *at = b->r->bytes + FILE_HEADER + INFO;
  int n = b->header >= 56 || b->compression == ALPHABITFIELDS ? 4 : 3;
  if (b->compression == RGB) {
    static const uint32_t of16[4] = {0x7c00, 0x3e0, 0x1f, 0};
    static const uint32_t of32[4] = {0xff0000, 0xff00, 0xff, 0};
    memcpy(b->masks, b->bits == 16 ? of16 : of32, sizeof b->masks);
    return VIV_OK;
  }
  if (b->bits != 16 && b->bits != 32) return bad(b, "has bit masks without 16 or 32 bits");
  if (b->r->len < FILE_HEADER + INFO + (size_t)n * 4) return bad(b, "ends inside its bit masks");
  for (int c = 0; c < n; c++) b->masks[c] = u32(at + 4 * c);
  for (int c = 0; c < 3; c++)
    if (!b->masks[c]) return bad(b, "has an empty bit mask");
  return VIV_OK;
}

static int32_t read_header(struct bmp *b) {
  viv__raster *r = b->r;
  const uint8_t *p = r->bytes;
  if (r->len < FILE_HEADER + CORE) return bad(b, "ends inside its header");
  b->header = u32(p + 14);
  bool core = b->header == CORE;
  if ((!core && b->header < INFO) || b->header > 256) return bad(b, "has a header of unknown size");
  if (r->len < FILE_HEADER + b->header) return bad(b, "ends inside its header");
  b->pixels = u32(p + 10);
  r->width = core ? (int64_t)u16(p + 18) : (int32_t)u32(p + 18);
  r->height = core ? (int64_t)u16(p + 20) : (int32_t)u32(p + 22);
  b->bits = u16(p + (core ? 24 : 28));
  b->compression = core ? RGB : u32(p + 30);
  b->entry = core ? 3 : 4;
  b->top_down = r->height < 0;
  if (b->top_down) r->height = -r->height;
  if (b->compression == 1 || b->compression == 2)
    return VIV_FAIL(r->error, VIV_NEVER, r->name,
                    "run-length BMP files are not read; save it as PNG");
  if (b->compression != RGB && b->compression != BITFIELDS && b->compression != ALPHABITFIELDS)
    return VIV_FAIL(r->error, VIV_NEVER, r->name, "a BMP of compression %u is not read",
                    b->compression);
  if (b->bits != 1 && b->bits != 4 && b->bits != 8 && b->bits != 16 && b->bits != 24 &&
      b->bits != 32)
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name, "the BMP has %u bits per pixel", b->bits);
  if (b->bits <= 8) {
    uint32_t used = core ? 0 : u32(p + 46), all = 1u << b->bits;
    size_t start = FILE_HEADER + b->header;
    b->n_palette = used && used < all ? used : all;
    b->palette = p + start;
    if ((r->len - start) / b->entry < b->n_palette) return bad(b, "ends inside its palette");
  }
  return read_masks(b);
}

static uint8_t scaled(uint32_t value, uint32_t mask) {
  if (!mask) return 255;
  int shift = __builtin_ctz(mask);
  uint64_t full = mask >> shift;
  return (uint8_t)((((uint64_t)(value & mask) >> shift) * 255 + full / 2) / full);
}

static int32_t index_row(const struct bmp *b, const uint8_t *row, uint8_t *out) {
  int64_t per = 8 / b->bits;
  for (int64_t x = 0; x < b->r->width; x++, out += 3) {
    uint32_t shift = 8 - b->bits * (uint32_t)(x % per + 1);
    uint32_t index = row[x / per] >> shift & ((1u << b->bits) - 1);
    if (index >= b->n_palette) return bad(b, "names a colour that its palette does not hold");
    const uint8_t *c = b->palette + (size_t)index * b->entry;
    out[0] = c[2];
    out[1] = c[1];
    out[2] = c[0];
  }
  return VIV_OK;
}

static void colour_row(const struct bmp *b, const uint8_t *row, uint8_t *out) {
  int channels = b->r->channels;
  for (int64_t x = 0; x < b->r->width; x++, out += channels) {
    if (b->bits == 24) {
      out[0] = row[3 * x + 2];
      out[1] = row[3 * x + 1];
      out[2] = row[3 * x];
      continue;
    }
    uint32_t v = b->bits == 16 ? u16(row + 2 * x) : u32(row + 4 * x);
    for (int c = 0; c < channels; c++) out[c] = scaled(v, b->masks[c]);
  }
}

int32_t viv__decode_bmp(viv__raster *r) {
  struct bmp b = {.r = r};
  r->format = "BMP";
  int32_t status = read_header(&b);
  if (status < 0) return status;
  r->channels = b.bits > 8 && b.masks[3] && r->options->channels == 4 ? 4 : 3;
  r->bits = 8;
  if (r->width > 0 && r->height > 0) { /* else raster_begin says so */
    b.stride = ((size_t)r->width * b.bits + 31) / 32 * 4;
    if (!r->probe && (b.pixels > r->len || (r->len - b.pixels) / b.stride < (size_t)r->height))
      return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name,
                      "the BMP ends early: %lld x %lld pixels need %llu bytes from byte %zu, the "
                      "file has %zu",
                      (long long)r->width, (long long)r->height,
                      (unsigned long long)b.stride * (unsigned long long)r->height, b.pixels,
                      r->len);
  }
  status = viv__raster_begin(r);
  for (int64_t y = 0; status == VIV_OK && y < r->height; y++) {
    const uint8_t *row =
        r->bytes + b.pixels + (size_t)(b.top_down ? y : r->height - 1 - y) * b.stride;
    uint8_t *out = r->raw + (size_t)y * (size_t)r->width * (size_t)r->channels;
    if (b.bits <= 8)
      status = index_row(&b, row, out);
    else
      colour_row(&b, row, out);
  }
  return status;
}
