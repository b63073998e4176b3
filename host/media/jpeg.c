/* JPEG through libjpeg. Its errors leave by longjmp, so everything that must survive lives in one
 * struct. A file that ends early is refused, as Pillow does; libjpeg alone would paint it gray. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "media/raster.h"

/* A progressive file may repeat scans at will, each as expensive as a decode. */
enum { MAX_SCANS = 256, EXIF_MARKER = JPEG_APP0 + 1 };

struct jpeg {
  struct jpeg_decompress_struct info;
  struct jpeg_error_mgr handler;
  struct jpeg_progress_mgr progress;
  jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
  viv__raster *r;
  uint8_t *row; /* one row of CMYK; NULL: none */
};

static void leave(j_common_ptr info) {
  struct jpeg *j = info->client_data;
  info->err->format_message(info, j->text);
  longjmp(j->jump, 1);
}

/* Level -1 is damage that libjpeg would paper over. */
static void message(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) leave(info);
}

static void count_scans(j_common_ptr info) {
  struct jpeg *j = info->client_data;
  if (j->info.input_scan_number <= MAX_SCANS) return;
  snprintf(j->text, sizeof j->text, "more than %d scans", MAX_SCANS);
  longjmp(j->jump, 1);
}

static int32_t orientation(const struct jpeg *j) {
  for (jpeg_saved_marker_ptr m = j->info.marker_list; m; m = m->next)
    if (m->marker == EXIF_MARKER && m->data_length > 6 && !memcmp(m->data, "Exif\0", 6))
      return viv__exif_orientation(m->data + 6, m->data_length - 6);
  return 1;
}

static int32_t choose_colours(struct jpeg *j) {
  viv__raster *r = j->r;
  switch (j->info.jpeg_color_space) {
  case JCS_GRAYSCALE:
    j->info.out_color_space = JCS_GRAYSCALE;
    r->channels = 1;
    return VIV_OK;
  case JCS_RGB:
  case JCS_YCbCr:
    j->info.out_color_space = JCS_RGB;
    r->channels = 3;
    return VIV_OK;
  case JCS_CMYK:
  case JCS_YCCK:
    j->info.out_color_space = JCS_CMYK;
    r->channels = 3;
    return VIV_OK;
  default:
    return VIV_FAIL(r->error, VIV_NEVER, r->name,
                    "a JPEG of %d colour components is neither gray, RGB nor CMYK",
                    j->info.num_components);
  }
}

static uint32_t times(uint32_t a, uint32_t b) { /* a b / 255, rounded */
  uint32_t t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

/* Ink to light. Adobe's files hold the inks inverted. */
static void from_cmyk(const uint8_t *cmyk, bool inverted, uint8_t *rgb, int64_t n) {
  for (int64_t i = 0; i < n; i++, cmyk += 4, rgb += 3)
    for (int c = 0; c < 3; c++) {
      uint32_t paper = inverted ? cmyk[3] : 255u - cmyk[3];
      rgb[c] = (uint8_t)times(paper, inverted ? cmyk[c] : 255u - cmyk[c]);
    }
}

static int32_t read_rows(struct jpeg *j) {
  viv__raster *r = j->r;
  bool cmyk = j->info.out_color_space == JCS_CMYK;
  if (cmyk && !(j->row = viv__malloc((size_t)r->width * 4)))
    return VIV_FAIL(r->error, VIV_NOT_NOW, r->name, "no memory for a row");
  jpeg_start_decompress(&j->info);
  while (j->info.output_scanline < j->info.output_height) {
    uint8_t *to = r->raw + (size_t)j->info.output_scanline * (size_t)r->width * (size_t)r->channels;
    JSAMPROW row = cmyk ? j->row : to;
    jpeg_read_scanlines(&j->info, &row, 1);
    if (cmyk) from_cmyk(j->row, j->info.saw_Adobe_marker, to, r->width);
  }
  return VIV_OK;
}

static int32_t read_jpeg(struct jpeg *j) {
  viv__raster *r = j->r;
  jpeg_create_decompress(&j->info);
  j->info.client_data = j;
  j->info.progress = &j->progress;
  jpeg_mem_src(&j->info, r->bytes, r->len);
  jpeg_save_markers(&j->info, EXIF_MARKER, 0xffff);
  jpeg_read_header(&j->info, TRUE);
  r->width = j->info.image_width;
  r->height = j->info.image_height;
  r->bits = 8;
  r->orientation = orientation(j);
  int32_t status = choose_colours(j);
  if (status >= 0) status = viv__raster_begin(r);
  return status == VIV_OK ? read_rows(j) : status;
}

/* What changes between setjmp and longjmp stays defined because it lives in the caller's frame. */
static int32_t guarded(struct jpeg *j) {
  if (setjmp(j->jump))
    return VIV_FAIL(j->r->error, VIV_BAD_INPUT, j->r->name, "the JPEG can't be decoded: %s",
                    j->text);
  return read_jpeg(j);
}

int32_t viv__decode_jpeg(viv__raster *r) {
  struct jpeg j = {.r = r};
  r->format = "JPEG";
  j.info.err = jpeg_std_error(&j.handler);
  j.info.client_data = &j;
  j.handler.error_exit = leave;
  j.handler.emit_message = message;
  j.progress.progress_monitor = count_scans;
  int32_t status = guarded(&j);
  jpeg_destroy_decompress(&j.info);
  viv__free(j.row);
  return status;
}
