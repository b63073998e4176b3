/* What the decoders of host/media share. Internal to this folder. */
#ifndef VIV_HOST_RASTER_H
#define VIV_HOST_RASTER_H

#include "media/media.h"

/* One file being read. A decoder reads the header, fills the fields from width on, calls
 * viv__raster_begin, and then writes all rows to raw. */
typedef struct viv__raster {
  const uint8_t *bytes;
  size_t len;
  const char *name;
  const viv__picture_options *options;
  bool probe;
  viv_error *error;

  const char *format;
  int64_t width, height;
  int32_t channels;    /* of raw: 1 gray, 2 gray and alpha, 3, 4 */
  int32_t bits;        /* of raw: 8, or 16 in the machine's order */
  int32_t orientation; /* EXIF's 1 to 8 */
  bool animated;
  uint8_t *raw; /* [height, width, channels] */
  bool final;   /* raw is already what the caller wants, in its memory */
} viv__raster;

/* Checks the limits and takes the memory. VIV_DONE: only the header was wanted, return at once. */
int32_t viv__raster_begin(viv__raster *r);

int32_t viv__decode_jpeg(viv__raster *r);
int32_t viv__decode_png(viv__raster *r);
int32_t viv__decode_webp(viv__raster *r);
int32_t viv__decode_bmp(viv__raster *r);
int32_t viv__decode_pnm(viv__raster *r);

/* The orientation of an EXIF block (TIFF structure), 1 where it is absent or damaged. */
int32_t viv__exif_orientation(const uint8_t *tiff, size_t len);

#endif
