/* Pictures: every kind that is read gives the pixels that were written, limits hold before memory is
 * taken, damage is refused with a text; and a job's picture reaches the plugin as a tensor. */
#include <stdio.h>

#include <jpeglib.h>

#include <webp/encode.h>

#include "media/media.h"
#include "rt.h"

enum { WIDTH = 5, HEIGHT = 3 };

/* What the tests paint: red grows to the right, green downwards, blue is 40. */
static void paint(uint8_t *rgb, int w, int h) {
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++, rgb += 3) {
      rgb[0] = (uint8_t)(x * 200 / w);
      rgb[1] = (uint8_t)(y * 200 / h);
      rgb[2] = 40;
    }
}

static viv__picture decode_with(const void *bytes, size_t len, const viv__picture_options *o) {
  viv__picture p = {0};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__picture_decode(bytes, len, "test", o, &p, &e), VIV_OK, "%s", e.message);
  return p;
}

static viv__picture decode(const viv__buf *b) {
  return decode_with(b->ptr, b->len, NULL);
}

static void refuse(const void *bytes, size_t len, int32_t status, const char *text) {
  viv__picture p = {0};
  viv_error e = VIV_ERROR_INIT;
  int32_t got = viv__picture_decode(bytes, len, "the-name", NULL, &p, &e);
  cr_expect_eq(got, status, "%d instead of %d: %s", got, status, e.message);
  cr_expect(strstr(e.message, text), "\"%s\" does not say \"%s\"", e.message, text);
  cr_expect_str_eq(e.where, "the-name");
}

static viv__buf png_of(const void *data, int w, int h, int channels, int bits) {
  viv__buf b = {0};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__png_encode(&b, data, w, h, channels, bits, &e), VIV_OK);
  return b;
}

static viv__buf jpeg_of(const uint8_t *data, int w, int h, int channels, J_COLOR_SPACE space,
                        const void *exif, unsigned n_exif) {
  struct jpeg_compress_struct c;
  struct jpeg_error_mgr handler;
  unsigned char *out = NULL;
  unsigned long len = 0;
  viv__buf b = {0};
  c.err = jpeg_std_error(&handler);
  jpeg_create_compress(&c);
  jpeg_mem_dest(&c, &out, &len);
  c.image_width = (JDIMENSION)w;
  c.image_height = (JDIMENSION)h;
  c.input_components = channels;
  c.in_color_space = space;
  jpeg_set_defaults(&c);
  jpeg_set_quality(&c, 100, TRUE);
  for (int i = 0; i < c.num_components; i++)
    c.comp_info[i].h_samp_factor = c.comp_info[i].v_samp_factor = 1;
  jpeg_start_compress(&c, TRUE);
  if (n_exif) jpeg_write_marker(&c, JPEG_APP0 + 1, exif, n_exif);
  while (c.next_scanline < c.image_height) {
    uint8_t row[1024];
    memcpy(row, data + (size_t)c.next_scanline * (size_t)(w * channels), (size_t)(w * channels));
    JSAMPROW rows = row;
    jpeg_write_scanlines(&c, &rows, 1);
  }
  jpeg_finish_compress(&c);
  jpeg_destroy_compress(&c);
  viv__buf_add(&b, out, len);
  free(out);
  return b;
}

static void expect_near(const viv__picture *p, const uint8_t *want, int w, int h, int tolerance) {
  cr_assert_eq(p->width, w);
  cr_assert_eq(p->height, h);
  cr_assert_eq(p->channels, 3);
  const uint8_t *got = p->data;
  for (int i = 0; i < 3 * w * h; i++)
    cr_assert(abs(got[i] - want[i]) <= tolerance, "pixel %d channel %d: %d, expected %d", i / 3,
              i % 3, got[i], want[i]);
}

Test(media, png_gives_back_what_was_written) {
  uint8_t rgb[3 * WIDTH * HEIGHT], gray[] = {0, 100, 255, 7},
                                   rgba[] = {10, 20, 30, 0, 1, 2, 3, 255};
  paint(rgb, WIDTH, HEIGHT);
  viv__buf b = png_of(rgb, WIDTH, HEIGHT, 3, 8);
  viv__picture p = decode(&b);
  expect_near(&p, rgb, WIDTH, HEIGHT, 0);
  cr_expect_str_eq(p.format, "PNG");
  viv__picture_free(&p);
  viv__buf_free(&b);

  b = png_of(gray, 2, 2, 1, 8);
  p = decode(&b);
  expect_near(&p, (const uint8_t[]){0, 0, 0, 100, 100, 100, 255, 255, 255, 7, 7, 7}, 2, 2, 0);
  viv__picture_free(&p);
  viv__buf_free(&b);

  b = png_of(rgba, 2, 1, 4, 8);
  p = decode(&b);
  expect_near(&p, (const uint8_t[]){10, 20, 30, 1, 2, 3}, 2, 1, 0);
  viv__picture_free(&p);
  p = decode_with(b.ptr, b.len, &(viv__picture_options){.channels = 4});
  cr_expect_eq(p.channels, 4);
  cr_expect_arr_eq(p.data, rgba, sizeof rgba);
  viv__picture_free(&p);
  /* 10, 20, 30: (10 * 19595 + 20 * 38470 + 30 * 7471 + 32768) >> 16 = 18 */
  p = decode_with(b.ptr, b.len, &(viv__picture_options){.channels = 1});
  cr_expect_eq(p.channels, 1);
  cr_expect_eq(((uint8_t *)p.data)[0], 18);
  viv__picture_free(&p);
  viv__buf_free(&b);
}

Test(media, sixteen_bits_are_scaled_or_kept_as_float) {
  uint16_t wide[] = {0, 257, 65535, 32768};
  viv__buf b = png_of(wide, 2, 2, 1, 16);
  viv__picture p = decode_with(b.ptr, b.len, &(viv__picture_options){.channels = 1});
  cr_expect_arr_eq(p.data, ((const uint8_t[]){0, 1, 255, 128}), 4);
  viv__picture_free(&p);
  p = decode_with(b.ptr, b.len, &(viv__picture_options){.channels = 3, .f32 = true});
  const float *f = p.data;
  cr_expect_float_eq(f[3], 257.0 / 65535, 1e-7);
  cr_expect_float_eq(f[9 + 2], 32768.0 / 65535, 1e-7);
  viv__picture_free(&p);
  viv__buf_free(&b);
}

Test(media, jpeg_and_webp_come_near) {
  uint8_t rgb[3 * 16 * 16], gray[64];
  paint(rgb, 16, 16);
  viv__buf b = jpeg_of(rgb, 16, 16, 3, JCS_RGB, NULL, 0);
  viv__picture p = decode(&b);
  expect_near(&p, rgb, 16, 16, 4);
  viv__picture_free(&p);
  viv__buf_free(&b);

  memset(gray, 90, sizeof gray);
  b = jpeg_of(gray, 8, 8, 1, JCS_GRAYSCALE, NULL, 0);
  p = decode(&b);
  cr_expect_eq(p.channels, 3);
  cr_expect_eq(((uint8_t *)p.data)[5], 90);
  viv__picture_free(&p);
  viv__buf_free(&b);

  uint8_t *webp = NULL;
  size_t len = WebPEncodeLosslessRGB(rgb, 16, 16, 48, &webp);
  p = decode_with(webp, len, NULL);
  expect_near(&p, rgb, 16, 16, 0);
  cr_expect_not(p.animated);
  refuse(webp, len / 2, VIV_BAD_INPUT, "cut short");
  viv__picture_free(&p);
  WebPFree(webp);
}

Test(media, cmyk_ink_becomes_light) {
  /* Adobe's files are inverted: 255 is no ink. Cyan ink alone is the light 0, 255, 255. */
  uint8_t cmyk[4 * 64];
  for (int i = 0; i < 64; i++) memcpy(cmyk + 4 * i, (const uint8_t[]){0, 255, 255, 255}, 4);
  viv__buf b = jpeg_of(cmyk, 8, 8, 4, JCS_CMYK, NULL, 0);
  viv__picture p = decode(&b);
  const uint8_t *got = p.data;
  cr_expect(got[0] < 6 && got[1] > 249 && got[2] > 249, "%d %d %d", got[0], got[1], got[2]);
  viv__picture_free(&p);
  viv__buf_free(&b);
}

/* A picture of 16 x 8 whose four corners differ, under each orientation. */
Test(media, exif_orientation_is_applied_on_request) {
  static const uint8_t corners[4] = {20, 90, 160, 230}; /* top left, top right, bottom ... */
  /* which raw corner stands top left, top right, bottom left, bottom right */
  static const int turned[9][4] = {{0},          {0, 1, 2, 3}, {1, 0, 3, 2},
                                   {3, 2, 1, 0}, {2, 3, 0, 1}, {0, 2, 1, 3},
                                   {2, 0, 3, 1}, {3, 1, 2, 0}, {1, 3, 0, 2}};
  uint8_t gray[16 * 8];
  for (int y = 0; y < 8; y++)
    for (int x = 0; x < 16; x++) gray[16 * y + x] = corners[2 * (y >= 4) + (x >= 8)];
  for (int o = 1; o <= 8; o++)
    for (int big = 0; big < 2; big++) {
      uint8_t little_endian[] = {'E', 'x', 'i',        'f', 0, 0,    'I', 'I', 42, 0, 8,
                                 0,   0,   0,          1,   0, 0x12, 1,   3,   0,  1, 0,
                                 0,   0,   (uint8_t)o, 0,   0, 0,    0,   0,   0,  0};
      uint8_t big_endian[] = {'E', 'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42,         0, 0, 0, 8, 0, 1,
                              1,   0x12, 0,   3,   0, 0, 0,   1,   0, (uint8_t)o, 0, 0, 0, 0, 0, 0};
      viv__buf b = jpeg_of(gray, 16, 8, 1, JCS_GRAYSCALE, big ? big_endian : little_endian,
                           sizeof big_endian);
      viv__picture p = decode_with(b.ptr, b.len, &(viv__picture_options){.orient = true}), raw;
      int w = o >= 5 ? 8 : 16, h = o >= 5 ? 16 : 8;
      cr_assert_eq(p.width, w);
      cr_assert_eq(p.height, h);
      const uint8_t *got = p.data;
      for (int c = 0; c < 4; c++) {
        int x = c & 1 ? w - 1 : 0, y = c & 2 ? h - 1 : 0, at = 3 * (y * w + x);
        cr_expect(abs(got[at] - corners[turned[o][c]]) < 4, "orientation %d corner %d: %d", o, c,
                  got[at]);
      }
      viv__picture_free(&p);
      /* The same in colour, and larger than a tile. */
      viv__buf rgb_file = {0};
      uint8_t rgb[3 * 80 * 40];
      for (int i = 0; i < 80 * 40; i++)
        memset(rgb + 3 * i, corners[2 * (i / 80 >= 20) + (i % 80 >= 40)], 3);
      rgb_file =
          jpeg_of(rgb, 80, 40, 3, JCS_RGB, big ? big_endian : little_endian, sizeof big_endian);
      raw = decode_with(rgb_file.ptr, rgb_file.len, &(viv__picture_options){.orient = true});
      for (int c = 0; c < 4; c++) {
        int x = c & 1 ? raw.width - 1 : 0, y = c & 2 ? raw.height - 1 : 0;
        int got_rgb = ((const uint8_t *)raw.data)[3 * (y * raw.width + x)];
        cr_expect(abs(got_rgb - corners[turned[o][c]]) < 4, "RGB, orientation %d corner %d: %d", o,
                  c, got_rgb);
      }
      viv__picture_free(&raw);
      viv__buf_free(&rgb_file);
      raw = decode(&b);
      cr_expect_eq(raw.width, 16, "the default leaves the picture as it is");
      viv__picture_free(&raw);
      viv__buf_free(&b);
    }
}

#define FILE_OF(text) text, sizeof(text) - 1
Test(media, text_and_binary_maps) {
  static const struct {
    const char *bytes;
    size_t len;
    uint8_t first[3], last[3];
  } files[] = {
      {FILE_OF("P1 # a comment\n2 1\n01"), {255, 255, 255}, {0, 0, 0}},
      {FILE_OF("P2\n2 1\n4\n0 2"), {0, 0, 0}, {128, 128, 128}},
      {FILE_OF("P3\n2 1 255\n1 2 3  4 5 6\n"), {1, 2, 3}, {4, 5, 6}},
      {FILE_OF("P4\n2 1\n\x40"), {255, 255, 255}, {0, 0, 0}},
      {FILE_OF("P5\n2 1\n255\n\x09\xf0"), {9, 9, 9}, {240, 240, 240}},
      {FILE_OF("P5\n2 1\n65535\n\x00\x00\xff\xff"), {0, 0, 0}, {255, 255, 255}},
      {FILE_OF("P6\n2 1\n255\nabcdef"), {'a', 'b', 'c'}, {'d', 'e', 'f'}},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    viv__picture p = decode_with(files[i].bytes, files[i].len, NULL);
    cr_assert_eq(p.width, 2);
    cr_assert_eq(p.height, 1);
    cr_expect_arr_eq(p.data, files[i].first, 3, "P%zu", i + 1);
    cr_expect_arr_eq((uint8_t *)p.data + 3, files[i].last, 3, "P%zu", i + 1);
    viv__picture_free(&p);
    refuse(files[i].bytes, files[i].len - 2, VIV_BAD_INPUT, "");
  }
  refuse("P6\n0 4\n255\n", 11, VIV_BAD_INPUT, "no pixels (0 x 4)");
  refuse("P6\n2 1\n70000\n", 13, VIV_BAD_INPUT, "largest value");
  refuse("P6\nx", 4, VIV_BAD_INPUT, "width and height");
}

/* A BMP with the given fields and 2 x 2 pixels whose bytes are rows. */
static viv__buf bmp_of(uint32_t bits, uint32_t compression, int32_t w, int32_t h, const void *extra,
                       size_t n_extra, const void *rows, size_t n_rows) {
  viv__buf b = {0};
  uint32_t offset = 54 + (uint32_t)n_extra,
           info[10] = {40, (uint32_t)w, (uint32_t)h, 1 | bits << 16, compression};
  uint32_t head[3] = {offset + (uint32_t)n_rows, 0, offset};
  viv__buf_add(&b, "BM", 2);
  viv__buf_add(&b, head, sizeof head);
  viv__buf_add(&b, info, sizeof info);
  viv__buf_add(&b, extra, n_extra);
  viv__buf_add(&b, rows, n_rows);
  return b;
}

Test(media, bmp_of_all_depths) {
  static const uint8_t want[] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}; /* R G / B W */
  static const uint8_t palette[] = {0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0};
  uint8_t full[4 * 256] = {0};
  memcpy(full, palette, sizeof palette);
  static const uint32_t masks[3] = {0xf800, 0x7e0, 0x1f};
  viv__buf files[] = {
      bmp_of(24, 0, 2, 2, NULL, 0, "\xff\0\0\xff\xff\xff\0\0\0\0\xff\0\xff\0\0\0", 16),
      bmp_of(32, 0, 2, -2, NULL, 0, "\0\0\xff\0\0\xff\0\0\xff\0\0\0\xff\xff\xff\0", 16),
      bmp_of(8, 0, 2, 2, full, sizeof full, "\2\3\0\0\0\1\0\0", 8),
      bmp_of(4, 0, 2, 2, full, 64, "\x23\0\0\0\x01\0\0\0", 8),
      bmp_of(16, 0, 2, -2, NULL, 0, "\0\x7c\xe0\3\x1f\0\xff\x7f", 8),
      bmp_of(16, 3, 2, -2, masks, sizeof masks, "\0\xf8\xe0\7\x1f\0\xff\xff", 8),
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    viv__picture p = decode(&files[i]);
    expect_near(&p, want, 2, 2, 0);
    viv__picture_free(&p);
    refuse(files[i].ptr, files[i].len - 1, VIV_BAD_INPUT, "ends early");
    refuse(files[i].ptr, 30, VIV_BAD_INPUT, "ends inside its header");
    viv__buf_free(&files[i]);
  }
  viv__buf rle = bmp_of(8, 1, 2, 2, full, sizeof full, "\0\1", 2);
  refuse(rle.ptr, rle.len, VIV_NEVER, "run-length");
  viv__buf_free(&rle);
  viv__buf wrong = bmp_of(8, 0, 2, 2, full, 1024, "\2\3\0\0\0\xff\0\0", 8);
  memcpy(wrong.ptr + 46, &(uint32_t){4}, 4); /* the palette holds four colours */
  refuse(wrong.ptr, wrong.len, VIV_BAD_INPUT, "palette");
  viv__buf_free(&wrong);
}

Test(media, what_is_no_picture_is_named) {
  refuse("", 0, VIV_BAD_INPUT, "no bytes");
  refuse("hello world", 11, VIV_BAD_INPUT, "this is no picture");
  refuse("\x89PNG", 4, VIV_BAD_INPUT, "the file ends early");
  refuse("GIF89a.....", 11, VIV_NEVER, "GIF");
  refuse("II*\0....", 8, VIV_NEVER, "TIFF");
  refuse("\0\0\0\x1c"
         "ftypheic",
         12, VIV_NEVER, "HEIC");
  refuse("\xff\xd8\xff\xd9", 4, VIV_BAD_INPUT, "JPEG");
}

Test(media, damage_is_refused) {
  uint8_t rgb[3 * 64 * 64];
  for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * i * 2654435761u >> 13);
  viv__buf png = png_of(rgb, 64, 64, 3, 8), jpeg = jpeg_of(rgb, 64, 64, 3, JCS_RGB, NULL, 0);
  for (size_t cut = 8; cut < png.len - 32; cut += 1 + png.len / 40)
    refuse(png.ptr, cut, VIV_BAD_INPUT, "PNG");
  for (size_t cut = 4; cut < jpeg.len - 16; cut += 1 + jpeg.len / 40)
    refuse(jpeg.ptr, cut, VIV_BAD_INPUT, "JPEG");
  png.ptr[png.len / 2] ^= 0x55;
  refuse(png.ptr, png.len, VIV_BAD_INPUT, "PNG can't be decoded");
  viv__buf_free(&png);
  viv__buf_free(&jpeg);
}

/* The header alone decides: no memory for pixels may be taken. */
Test(media, limits_hold_before_memory_is_taken) {
  uint8_t rgb[3 * 4] = {0};
  viv__buf png = png_of(rgb, 2, 2, 3, 8);
  /* 20000 x 20000; libpng checks the header's sum, so it is made anew. */
  static const uint8_t head[] = {0,    0, 0, 13,   'I',  'H', 'D', 'R', 0, 0, 0x4e,
                                 0x20, 0, 0, 0x4e, 0x20, 8,   2,   0,   0, 0};
  memcpy(png.ptr + 8, head, sizeof head);
  uint32_t crc = 0xffffffff;
  for (size_t i = 4; i < sizeof head; i++) {
    crc ^= head[i];
    for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  for (int i = 0; i < 4; i++) png.ptr[29 + i] = (char)(~crc >> (24 - 8 * i));
  refuse(png.ptr, png.len, VIV_BAD_INPUT, "20000 x 20000 pixels, 400000000 in all");
  viv__picture p;
  cr_expect_eq(viv__picture_probe(png.ptr, png.len, "x",
                                  &(viv__picture_options){.max_pixels = 500000000}, &p, NULL),
               VIV_OK);
  cr_expect_eq(p.width, 20000);
  refuse("P5\n70000 1\n255\n", 15, VIV_BAD_INPUT, "");
  viv_error e = VIV_ERROR_INIT;
  cr_expect_eq(viv__picture_decode("P5\n9 1\n255\n123456789", 20, "x",
                                   &(viv__picture_options){.max_side = 8}, &p, &e),
               VIV_BAD_INPUT);
  cr_expect(strstr(e.message, "max_side"));
  viv__buf_free(&png);
}

static void chunk(viv__buf *b, const char *name, const void *data, size_t len) {
  uint32_t n = (uint32_t)len;
  viv__buf_add(b, name, 4);
  viv__buf_add(b, &n, 4);
  viv__buf_add(b, data, len);
  if (len & 1) viv__buf_add(b, "", 1);
}

/* Two frames of 4 x 4 at (2, 0) of a canvas of 8 x 4, put together by hand. */
Test(media, an_animation_gives_its_first_frame) {
  viv__buf body = {0}, file = {0};
  viv__buf_add(&body, "WEBP", 4);
  chunk(&body, "VP8X", "\2\0\0\0\7\0\0\3\0\0", 10);
  chunk(&body, "ANIM", "\0\0\0\0\0\0", 6);
  for (int i = 0; i < 2; i++) {
    uint8_t rgb[3 * 4 * 4], *webp = NULL;
    memset(rgb, i ? 200 : 50, sizeof rgb);
    size_t len = WebPEncodeLosslessRGB(rgb, 4, 4, 12, &webp);
    viv__buf frame = {0};
    viv__buf_add(&frame, "\1\0\0\0\0\0\3\0\0\3\0\0\x64\0\0\0", 16);
    viv__buf_add(&frame, webp + 12, len - 12);
    chunk(&body, "ANMF", frame.ptr, frame.len);
    viv__buf_free(&frame);
    WebPFree(webp);
  }
  chunk(&file, "RIFF", body.ptr, body.len);
  viv__picture p = decode(&file);
  cr_expect(p.animated);
  cr_assert_eq(p.width, 8);
  cr_assert_eq(p.height, 4);
  const uint8_t *got = p.data;
  cr_expect_eq(got[0], 0);
  cr_expect_eq(got[3 * 2], 50);
  cr_expect_eq(got[3 * 6], 0);
  viv__picture_free(&p);
  viv__buf_free(&file);
  viv__buf_free(&body);
}

Test(media, no_memory_is_not_now) {
  uint8_t rgb[3 * 64 * 64] = {0};
  viv__buf png = png_of(rgb, 64, 64, 3, 8);
  viv__picture p = {0};
  viv_error e = VIV_ERROR_INIT;
  viv__fail_alloc(1);
  cr_expect_eq(viv__picture_decode(png.ptr, png.len, "x", NULL, &p, &e), VIV_NOT_NOW);
  viv__fail_alloc(0);
  viv__buf_free(&png);
}

/* ---- through a job ---- */

static viv_runtime *picture_runtime(void) {
  viv_runtime *rt = NULL;
  viv_error e = VIV_ERROR_INIT;
  viv_options o = {.struct_size = sizeof o,
                   .threads = 1,
                   .plugin_path = env("VIV_TEST_BAD", "build/badplugins"),
                   .log_level = VIV_LOG_ERROR};
  cr_assert_eq(viv_open(&o, &rt, &e), VIV_OK, "%s", e.message);
  return rt;
}

static viv_model *picture_model(viv_runtime *rt) {
  char folder[] = "/tmp/viv-media-XXXXXX", path[64];
  cr_assert(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/config.json", folder);
  cr_assert_eq(viv__write_file(path, "{\"model_type\":\"test-picture\"}", 29, NULL), VIV_OK);
  viv_model *m = load(rt, folder);
  unlink(path);
  rmdir(folder);
  return m;
}

/* Runs a task on inputs; keeps the tensor of that name. */
static int32_t run_pictures(viv_model *m, const char *task, const char *params, const viv_value *in,
                            int n, const char *wanted, float *out, int64_t *count, viv_error *why) {
  const viv_value *inputs[4] = {in, in + 1, in + 2, in + 3};
  viv_request q = {
      .struct_size = sizeof q, .task = task, .params = params, .n_inputs = n, .inputs = inputs};
  viv_job *job = NULL;
  viv_event e = {.struct_size = sizeof e};
  int32_t status = VIV_OK;
  cr_assert_eq(viv_submit(m, &q, &job, why), VIV_OK, "%s", why->message);
  *count = -1;
  while (viv_next_event(job, 60000, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TENSOR && viv__str_eq(e.name, wanted)) {
      *count = (int64_t)(e.tensor->bytes / 4);
      memcpy(out, e.tensor->data, e.tensor->bytes);
    }
    if (e.flags & VIV_EVENT_FINAL) {
      status = e.status;
      if (e.error) *why = *e.error;
    }
  }
  viv_job_free(job);
  return status;
}

static viv_value image(const void *bytes, size_t len) {
  return (viv_value){.struct_size = sizeof(viv_value),
                     .kind = VIV_KIND_IMAGE,
                     .name = viv__str("image"),
                     .bytes = {bytes, len}};
}

Test(media, a_plugin_sees_pixels) {
  viv_runtime *rt = picture_runtime();
  viv_model *m = picture_model(rt);
  uint8_t rgb[3 * 8 * 6] = {0};
  for (int y = 1; y < 4; y++)
    for (int x = 2; x < 7; x++) rgb[3 * (8 * y + x)] = 255; /* a red box */
  viv__buf png = png_of(rgb, 8, 6, 3, 8);
  viv_error e = VIV_ERROR_INIT;
  float boxes[64];
  int64_t n;
  viv_value in[4] = {image(png.ptr, png.len), image(png.ptr, png.len)};
  cr_assert_eq(run_pictures(m, "detect", NULL, in, 2, "boxes.1", boxes, &n, &e), VIV_OK, "%s",
               e.message);
  cr_assert_eq(n, 4);
  cr_expect_arr_eq(boxes, ((const float[]){2, 1, 7, 4}), sizeof(float[4]));

  viv_tensor t = {.struct_size = sizeof t,
                  .data = rgb,
                  .bytes = sizeof rgb,
                  .dtype = VIV_U8,
                  .ndim = 3,
                  .shape = {6, 8, 3}};
  in[0].kind = VIV_KIND_TENSOR;
  in[0].tensor = &t;
  cr_assert_eq(run_pictures(m, "detect", NULL, in, 1, "boxes.0", boxes, &n, &e), VIV_OK);
  cr_expect_eq(n, 4, "a tensor may stand for a picture");
  t.shape[2] = 1;
  t.bytes = 48;
  cr_expect_eq(run_pictures(m, "detect", NULL, in, 1, "boxes.0", boxes, &n, &e), VIV_BAD_INPUT);
  cr_expect(strstr(e.message, "[height, width, 3]"), "%s", e.message);

  in[0] = image(png.ptr, png.len);
  in[1] = image("no picture", 10);
  cr_expect_eq(run_pictures(m, "detect", NULL, in, 2, "boxes.0", boxes, &n, &e), VIV_BAD_INPUT);
  cr_expect_str_eq(e.where, "image 2 of 2");
  cr_expect_eq(run_pictures(m, "detect", "{\"max_pixels\":10}", in, 1, "x", boxes, &n, &e),
               VIV_BAD_INPUT);
  cr_expect_eq(
      run_pictures(m, "detect", "{\"image_channels\":\"cmyk\"}", in, 1, "x", boxes, &n, &e),
      VIV_BAD_INPUT);
  cr_expect_eq(
      run_pictures(m, "detect", "{\"image_channels\":\"gray\"}", in, 1, "x", boxes, &n, &e),
      VIV_BAD_INPUT, "this plugin wants RGB, so it must have been given gray");
  viv__buf_free(&png);
  viv_unload(m);
  viv_close(rt);
}
