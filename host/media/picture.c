/* Which decoder a file needs, the limits, and the form that the caller asked for. */
#include <string.h>

#include "media/raster.h"

/* ---- limits and memory ---- */

static int32_t wanted_channels(const viv__raster *r) {
  return r->options->channels ? r->options->channels : 3;
}

static int32_t check_size(const viv__raster *r) {
  int64_t side = r->options->max_side ? r->options->max_side : VIV__PICTURE_MAX_SIDE;
  int64_t pixels = r->options->max_pixels ? r->options->max_pixels : VIV__PICTURE_MAX_PIXELS;
  long long w = r->width, h = r->height;
  if (w < 1 || h < 1)
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name, "the %s has no pixels (%lld x %lld)",
                    r->format, w, h);
  if (w > side || h > side)
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name,
                    "the %s is %lld x %lld pixels; a side may have %lld (parameter max_side)",
                    r->format, w, h, (long long)side);
  if (w > pixels / h)
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name,
                    "the %s is %lld x %lld pixels, %lld in all; at most %lld are read (parameter "
                    "max_pixels)",
                    r->format, w, h, w * h, (long long)pixels);
  return VIV_OK;
}

static void *take(const viv__raster *r, uint64_t bytes) {
  return r->options->arena ? viv__arena_alloc(r->options->arena, bytes) : viv__malloc(bytes);
}

int32_t viv__raster_begin(viv__raster *r) {
  int32_t status = check_size(r);
  if (status < 0) return status;
  if (!r->options->orient || r->orientation < 1 || r->orientation > 8) r->orientation = 1;
  if (r->probe) return VIV_DONE;
  uint64_t bytes =
      (uint64_t)r->width * (uint64_t)r->height * (uint64_t)r->channels * (uint64_t)(r->bits / 8);
  r->final =
      r->channels == wanted_channels(r) && r->bits == 8 && !r->options->f32 && r->orientation == 1;
  r->raw = r->final ? take(r, bytes) : viv__malloc(bytes);
  if (!r->raw)
    return VIV_FAIL(r->error, VIV_NOT_NOW, r->name, "no memory for %lld x %lld pixels",
                    (long long)r->width, (long long)r->height);
  return VIV_OK;
}

static void drop_raw(viv__raster *r) {
  if (!r->final || !r->options->arena) viv__free(r->raw);
  r->raw = NULL;
}

/* ---- form ---- */

/* One pixel as R, G, B, A on the scale of its bits. */
static void pixel(const viv__raster *r, int64_t index, uint32_t out[4]) {
  uint32_t v[4] = {0};
  const uint8_t *b = r->raw + index * r->channels * (r->bits / 8);
  for (int32_t c = 0; c < r->channels; c++) {
    uint16_t wide = 0;
    if (r->bits == 16) memcpy(&wide, b + 2 * c, 2);
    v[c] = r->bits == 16 ? wide : b[c];
  }
  bool colour = r->channels > 2;
  out[0] = v[0];
  out[1] = colour ? v[1] : v[0];
  out[2] = colour ? v[2] : v[0];
  out[3] = r->channels == 2 ? v[1] : r->channels == 4 ? v[3] : r->bits == 16 ? 65535 : 255;
}

static void store(const viv__raster *r, const uint32_t p[4], int32_t channels, void *out,
                  int64_t at) {
  float full = r->bits == 16 ? 65535.0f : 255.0f;
  bool gray = channels == 1;
  if (r->options->f32) {
    float *to = (float *)out + at * channels;
    for (int32_t c = 0; c < channels; c++) to[c] = (float)p[c] / full;
    if (gray) to[0] = (0.299f * (float)p[0] + 0.587f * (float)p[1] + 0.114f * (float)p[2]) / full;
    return;
  }
  uint8_t *to = (uint8_t *)out + at * channels, v[4];
  for (int c = 0; c < 4; c++)
    v[c] = r->bits == 16 ? (uint8_t)((p[c] * 255 + 32767) / 65535) : (uint8_t)p[c];
  if (gray)
    to[0] = (uint8_t)((v[0] * 19595u + v[1] * 38470u + v[2] * 7471u + 0x8000u) >> 16);
  else
    memcpy(to, v, (size_t)channels);
}

/* Where the pixels of the turned picture lie in raw: (x, y) is first + x step_x + y step_y. */
struct turn {
  int64_t first, step_x, step_y;
};

static struct turn turn_of(const viv__raster *r) {
  int64_t w = r->width, h = r->height;
  int32_t o = r->orientation;
  bool mirror_x = o == 2 || o == 3 || o == 7 || o == 8;
  bool mirror_y = o == 3 || o == 4 || o == 6 || o == 7;
  int64_t right = mirror_x ? -1 : 1, down = mirror_y ? -w : w;
  return (struct turn){.first = (mirror_x ? w - 1 : 0) + (mirror_y ? (h - 1) * w : 0),
                       .step_x = o >= 5 ? down : right,
                       .step_y = o >= 5 ? right : down};
}

/* A photo of a phone held upright: RGB bytes that only have to be turned. In tiles, because one side
 * walks down columns. */
static void turn_rgb(const viv__raster *r, const viv__picture *out, struct turn t, uint8_t *to) {
  enum { TILE = 32 };
  for (int64_t y0 = 0; y0 < out->height; y0 += TILE)
    for (int64_t x0 = 0; x0 < out->width; x0 += TILE) {
      int64_t y1 = y0 + TILE < out->height ? y0 + TILE : out->height;
      int64_t x1 = x0 + TILE < out->width ? x0 + TILE : out->width;
      for (int64_t y = y0; y < y1; y++)
        for (int64_t x = x0; x < x1; x++)
          memcpy(to + 3 * (y * out->width + x),
                 r->raw + 3 * (t.first + x * t.step_x + y * t.step_y), 3);
    }
}

/* Makes the picture of raw: orientation, channels, type. */
static int32_t convert(viv__raster *r, viv__picture *out) {
  int32_t channels = wanted_channels(r);
  struct turn t = turn_of(r);
  uint64_t bytes =
      (uint64_t)r->width * (uint64_t)r->height * (uint64_t)channels * (r->options->f32 ? 4 : 1);
  void *data = take(r, bytes);
  if (!data)
    return VIV_FAIL(r->error, VIV_NOT_NOW, r->name, "no memory for %lld x %lld pixels",
                    (long long)r->width, (long long)r->height);
  if (channels == 3 && r->channels == 3 && r->bits == 8 && !r->options->f32) {
    turn_rgb(r, out, t, data);
  } else {
    for (int64_t y = 0, at = 0; y < out->height; y++)
      for (int64_t x = 0; x < out->width; x++, at++) {
        uint32_t p[4];
        pixel(r, t.first + x * t.step_x + y * t.step_y, p);
        store(r, p, channels, data, at);
      }
  }
  drop_raw(r);
  out->data = data;
  return VIV_OK;
}

/* ---- which file it is ---- */

static bool starts(const viv__raster *r, size_t at, const char *magic, size_t n) {
  return r->len >= at + n && !memcmp(r->bytes + at, magic, n);
}

/* Kinds that people do have and that are not read here, so that the answer names them. */
static const char *unread_kind(const viv__raster *r) {
  if (starts(r, 0, "GIF8", 4)) return "GIF";
  if (starts(r, 0, "II*\0", 4) || starts(r, 0, "MM\0*", 4)) return "TIFF";
  if (starts(r, 4, "ftypavi", 7)) return "AVIF";
  if (starts(r, 4, "ftyphei", 7) || starts(r, 4, "ftypmif1", 8)) return "HEIC";
  if (starts(r, 0, "\xff\x0a", 2) || starts(r, 4, "JXL ", 4)) return "JPEG XL";
  if (starts(r, 0, "\0\0\0\x0cjP  ", 8)) return "JPEG 2000";
  if (starts(r, 0, "%PDF", 4)) return "PDF";
  if (starts(r, 0, "<svg", 4) || starts(r, 0, "<?xml", 5)) return "SVG";
  if (starts(r, 0, "P7\n", 3)) return "PAM";
  return NULL;
}

static int32_t decode(viv__raster *r) {
  if (starts(r, 0, "\xff\xd8", 2)) return viv__decode_jpeg(r);
  if (starts(r, 0, "\x89PNG", 4)) return viv__decode_png(r);
  if (starts(r, 0, "RIFF", 4) && starts(r, 8, "WEBP", 4)) return viv__decode_webp(r);
  if (starts(r, 0, "BM", 2)) return viv__decode_bmp(r);
  if (r->len > 2 && r->bytes[0] == 'P' && r->bytes[1] >= '1' && r->bytes[1] <= '6')
    return viv__decode_pnm(r);
  const char *kind = unread_kind(r);
  if (kind)
    return VIV_FAIL(r->error, VIV_NEVER, r->name,
                    "%s pictures are not read; save it as PNG, JPEG or WebP", kind);
  if (!r->len) return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name, "the picture has no bytes");
  return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name,
                  "this is no picture: expected JPEG, PNG, WebP, BMP or PBM/PGM/PPM, found bytes "
                  "%02x %02x",
                  r->bytes[0], r->len > 1 ? r->bytes[1] : 0);
}

static int32_t read_picture(const void *bytes, size_t len, const char *name,
                            const viv__picture_options *options, bool probe, viv__picture *out,
                            viv_error *error) {
  static const viv__picture_options plain = {0};
  viv__raster r = {.bytes = bytes,
                   .len = bytes ? len : 0,
                   .name = name,
                   .options = options ? options : &plain,
                   .probe = probe,
                   .error = error,
                   .orientation = 1};
  int32_t status = decode(&r);
  if (status < 0) {
    drop_raw(&r);
    return status;
  }
  viv__picture p = {.width = (int32_t)r.width,
                    .height = (int32_t)r.height,
                    .channels = wanted_channels(&r),
                    .f32 = r.options->f32,
                    .data = r.raw,
                    .format = r.format,
                    .animated = r.animated,
                    .owned = !r.options->arena};
  if (r.orientation >= 5) {
    p.width = (int32_t)r.height;
    p.height = (int32_t)r.width;
  }
  if (!probe && !r.final && (status = convert(&r, &p)) < 0) {
    drop_raw(&r);
    return status;
  }
  *out = p;
  return VIV_OK;
}

int32_t viv__picture_decode(const void *bytes, size_t len, const char *name,
                            const viv__picture_options *options, viv__picture *out,
                            viv_error *error) {
  return read_picture(bytes, len, name, options, false, out, error);
}

int32_t viv__picture_probe(const void *bytes, size_t len, const char *name,
                           const viv__picture_options *options, viv__picture *out,
                           viv_error *error) {
  return read_picture(bytes, len, name, options, true, out, error);
}

void viv__picture_free(viv__picture *picture) {
  if (picture->owned) viv__free(picture->data);
  memset(picture, 0, sizeof *picture);
}
