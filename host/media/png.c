/* PNG through libpng, both ways. Errors leave by longjmp, as in jpeg.c. */
#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "media/raster.h"

struct png {
  png_structp png;
  png_infop info;
  viv__raster *r;
  size_t at;
  viv__buf *out;
  char text[128];
  jmp_buf jump;
};

static void leave(png_structp png, png_const_charp text) {
  struct png *p = png_get_error_ptr(png);
  snprintf(p->text, sizeof p->text, "%s", text);
  longjmp(p->jump, 1);
}

static void ignore(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void next_bytes(png_structp png, png_bytep data, size_t n) {
  struct png *p = png_get_io_ptr(png);
  if (n > p->r->len - p->at) png_error(png, "the file ends early");
  memcpy(data, p->r->bytes + p->at, n);
  p->at += n;
}

/* An APNG says so in a chunk before its first picture. */
static bool is_animated(const viv__raster *r) {
  for (size_t at = 8; at + 12 <= r->len;) {
    const uint8_t *b = r->bytes + at;
    size_t len = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
    if (!memcmp(b + 4, "acTL", 4)) return true;
    if (!memcmp(b + 4, "IDAT", 4) || len > r->len - at - 12) return false;
    at += len + 12;
  }
  return false;
}

static void read_orientation(struct png *p) {
  png_uint_32 n = 0;
  png_bytep exif = NULL;
  if (png_get_eXIf_1(p->png, p->info, &n, &exif))
    p->r->orientation = viv__exif_orientation(exif, n);
}

static int32_t read_png(struct png *p) {
  viv__raster *r = p->r;
  png_set_user_limits(p->png, 0x7fffffff, 0x7fffffff); /* raster_begin says it better */
  png_set_read_fn(p->png, p, next_bytes);
  png_read_info(p->png, p->info);
  r->width = png_get_image_width(p->png, p->info);
  r->height = png_get_image_height(p->png, p->info);
  bool deep = r->options->f32 && png_get_bit_depth(p->png, p->info) == 16;
  png_set_expand(p->png);
  if (deep)
    png_set_swap(p->png);
  else
    png_set_scale_16(p->png);
  if (r->options->channels != 4) png_set_strip_alpha(p->png);
  if (r->options->channels != 1) png_set_gray_to_rgb(p->png);
  int passes = png_set_interlace_handling(p->png);
  read_orientation(p);
  png_read_update_info(p->png, p->info);
  r->channels = png_get_channels(p->png, p->info);
  r->bits = deep ? 16 : 8;
  int32_t status = viv__raster_begin(r);
  if (status != VIV_OK) return status;
  size_t stride = png_get_rowbytes(p->png, p->info);
  for (int pass = 0; pass < passes; pass++)
    for (int64_t y = 0; y < r->height; y++) png_read_row(p->png, r->raw + (size_t)y * stride, NULL);
  return VIV_OK;
}

/* What changes between setjmp and longjmp stays defined because it lives in the caller's frame. */
static int32_t guarded(struct png *p) {
  viv__raster *r = p->r;
  if (setjmp(p->jump))
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name, "the PNG can't be decoded: %s", p->text);
  p->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, p, leave, ignore);
  p->info = p->png ? png_create_info_struct(p->png) : NULL;
  return p->info ? read_png(p) : VIV_FAIL(r->error, VIV_NOT_NOW, r->name, "no memory");
}

int32_t viv__decode_png(viv__raster *r) {
  struct png p = {.r = r};
  r->format = "PNG";
  r->animated = is_animated(r);
  int32_t status = guarded(&p);
  if (p.png) png_destroy_read_struct(&p.png, &p.info, NULL);
  return status;
}

/* ---- writing ---- */

static void append(png_structp png, png_bytep data, size_t n) {
  struct png *p = png_get_io_ptr(png);
  viv__buf_add(p->out, data, n);
}

static void flush(png_structp png) {
  (void)png;
}

static int32_t write_png(struct png *p, const void *data, int32_t width, int32_t height,
                         int32_t channels, int32_t bits, viv_error *error) {
  static const int types[] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                              PNG_COLOR_TYPE_RGB_ALPHA};
  if (setjmp(p->jump)) return VIV_FAIL(error, VIV_BAD_INPUT, "PNG", "%s", p->text);
  p->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, p, leave, ignore);
  p->info = p->png ? png_create_info_struct(p->png) : NULL;
  if (!p->info) return VIV_FAIL(error, VIV_NOT_NOW, "PNG", "no memory");
  png_set_write_fn(p->png, p, append, flush);
  png_set_compression_level(p->png, 3); /* twice as fast as the default, 2 to 5 % larger */
  png_set_IHDR(p->png, p->info, (png_uint_32)width, (png_uint_32)height, bits, types[channels],
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(p->png, p->info);
  if (bits == 16) png_set_swap(p->png);
  size_t stride = (size_t)width * (size_t)channels * (size_t)(bits / 8);
  for (int32_t y = 0; y < height; y++)
    png_write_row(p->png, (const uint8_t *)data + (size_t)y * stride);
  png_write_end(p->png, NULL);
  return VIV_OK;
}

int32_t viv__png_encode(viv__buf *out, const void *data, int32_t width, int32_t height,
                        int32_t channels, int32_t bits, viv_error *error) {
  struct png p = {.out = out};
  int32_t status = write_png(&p, data, width, height, channels, bits, error);
  if (p.png) png_destroy_write_struct(&p.png, &p.info);
  if (status >= 0 && out->failed)
    return VIV_FAIL(error, VIV_NOT_NOW, "PNG", "no memory for the file");
  return status;
}
