/* Anti-aliased lines, shapes and text over a picture. Internal to the host.
 *
 * Drawn by cairo, which is opened when something is drawn and not before: a program that runs models
 * needs neither it nor the window-system libraries behind it. Text in ASCII is drawn in strokes of
 * our own, so that it looks the same on a machine without fonts; other text asks cairo for a font. */
#ifndef VIV_HOST_CANVAS_H
#define VIV_HOST_CANVAS_H

#include "media/media.h"

typedef struct viv__canvas viv__canvas;

typedef struct viv__ink {
  double r, g, b, a; /* 0 to 1 */
} viv__ink;

/* From dark violet over red to pale yellow for 0 to 1, in even steps of lightness. */
viv__ink viv__heat(double t);

/* A canvas that holds the picture [height, width, 3]. Errors: NEVER (no cairo on this machine),
 * NOT_NOW (memory). */
int32_t viv__canvas_open(const uint8_t *rgb, int32_t width, int32_t height, viv__canvas **out,
                         viv_error *error);
void viv__canvas_read(viv__canvas *c, uint8_t *rgb); /* [height, width, 3] */
void viv__canvas_close(viv__canvas *c);              /* NULL is legal */

/* Coordinates are in pixels, (0, 0) the top left corner of the picture; anything may lie outside or
 * be no number. Lines have a dark rim, so that they are seen on a bright picture as well. */
void viv__canvas_line(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                      viv__ink ink);
void viv__canvas_arrow(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                       viv__ink ink);
void viv__canvas_disc(viv__canvas *c, double x, double y, double radius, viv__ink ink);
void viv__canvas_frame(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                       viv__ink ink);
void viv__canvas_fill(viv__canvas *c, double x0, double y0, double x1, double y1, viv__ink ink);
/* size: the height of a capital letter. y: their top. */
void viv__canvas_text(viv__canvas *c, double x, double y, double size, const char *text,
                      viv__ink ink);
double viv__canvas_text_width(viv__canvas *c, double size, const char *text);

/* The strokes of an ASCII character (font.c): points of two characters each, x '0' to '8', y '0' to
 * '9' and 'a' to 'g', in a grid where capitals reach from y = 0 to 12; a blank begins a new stroke.
 * An empty text where it has none. */
const char *viv__font_strokes(char character);

#endif
