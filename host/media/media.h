/* Pictures as files: bytes in, pixels out, and PNG back. Internal to the host; any thread, no
 * global state.
 *
 * Read: JPEG (baseline and progressive, gray, YCbCr, RGB, CMYK, YCCK), PNG (all types), WebP,
 * BMP (uncompressed), PBM/PGM/PPM (text and binary). Of an animated WebP or PNG the first frame. A
 * picture's size is checked against the limits before any memory is taken for its pixels. */
#ifndef VIV_HOST_MEDIA_H
#define VIV_HOST_MEDIA_H

#include "base/base.h"

/* A picture of 128 Mi pixels takes 384 MiB as RGB: larger than what any camera of today makes, small
 * enough that a hostile header can't take the machine down. */
#define VIV__PICTURE_MAX_PIXELS (INT64_C(128) << 20)
#define VIV__PICTURE_MAX_SIDE 65500 /* JPEG's own limit */

typedef struct viv__picture_options {
  int32_t channels;   /* 0 or 3: RGB (gray becomes three equal channels, alpha is dropped), 1: gray
                         (0.299 R + 0.587 G + 0.114 B as Pillow rounds it), 4: RGBA */
  bool f32;           /* values 0 to 1 as float, 16-bit files in full; else bytes */
  bool orient;        /* turn the picture as its EXIF orientation says */
  int64_t max_pixels; /* 0: VIV__PICTURE_MAX_PIXELS */
  int64_t max_side;   /* 0: VIV__PICTURE_MAX_SIDE */
  viv_arena *arena;   /* where the pixels go; NULL: viv__picture_free frees them */
} viv__picture_options;

typedef struct viv__picture {
  int32_t width, height, channels;
  bool f32;
  void *data;         /* [height, width, channels], dense */
  const char *format; /* "JPEG", ... */
  bool animated;      /* the file holds more pictures than the one that was read */
  bool owned;
} viv__picture;

/* Fills *out. name stands in front of errors. Errors: BAD_INPUT (no picture, damaged, cut short,
 * above a limit), NEVER (a kind that is not read, by its name), NOT_NOW (memory). */
int32_t viv__picture_decode(const void *bytes, size_t len, const char *name,
                            const viv__picture_options *options, viv__picture *out,
                            viv_error *error);
/* The same from the header alone: data stays NULL. */
int32_t viv__picture_probe(const void *bytes, size_t len, const char *name,
                           const viv__picture_options *options, viv__picture *out,
                           viv_error *error);
void viv__picture_free(viv__picture *picture);

/* Appends a PNG of [height, width, channels] to out. bits 8, or 16 in the machine's byte order.
 * Errors: NOT_NOW (memory). */
int32_t viv__png_encode(viv__buf *out, const void *data, int32_t width, int32_t height,
                        int32_t channels, int32_t bits, viv_error *error);

#endif
