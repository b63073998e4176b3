/* The canvas over cairo. */
#include "media/canvas.h"

#include <cairo.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* clang-format off */
/* Everything that is used of cairo, opened by name: its header gives the types. */
#define CAIRO_FUNCTIONS(F)                                                                         \
  F(image_surface_create_for_data) F(surface_status) F(surface_flush) F(surface_destroy)           \
  F(create) F(destroy) F(set_source_rgba) F(set_line_width) F(set_line_cap) F(set_line_join)       \
  F(new_path) F(move_to) F(line_to) F(arc) F(rectangle) F(stroke) F(stroke_preserve) F(fill)       \
  F(select_font_face) F(set_font_size) F(show_text) F(text_extents)
/* clang-format on */

static struct cairo_table {
#define MEMBER(name) __typeof__(&cairo_##name) name;
  CAIRO_FUNCTIONS(MEMBER)
#undef MEMBER
} cr;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool opened;

/* The library stays open: it is used again with the next picture, and closing it would take its
 * caches away from other threads. */
static void open_cairo(void) {
  void *so = dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);
  bool all = so != NULL;
#define LOAD(name)                                                                                 \
  if (all) *(void **)&cr.name = dlsym(so, "cairo_" #name);                                         \
  all = all && cr.name;
  CAIRO_FUNCTIONS(LOAD)
#undef LOAD
  opened = all;
}

struct viv__canvas {
  cairo_t *cr;
  cairo_surface_t *surface;
  uint32_t *pixels; /* [height, width] 0xffRRGGBB */
  int32_t width, height;
};

int32_t viv__canvas_open(const uint8_t *rgb, int32_t width, int32_t height, viv__canvas **out,
                         viv_error *error) {
  pthread_once(&once, open_cairo);
  if (!opened)
    return VIV_FAIL(error, VIV_NEVER, "libcairo.so.2",
                    "drawing needs the cairo library (Debian: libcairo2)");
  if (width > 32767 || height > 32767)
    return VIV_FAIL(error, VIV_NEVER, "drawing",
                    "%d x %d is too large to draw on; 32767 is the "
                    "longest side",
                    width, height);
  viv__canvas *c = viv__calloc(1, sizeof *c);
  size_t n = (size_t)width * (size_t)height;
  if (c) c->pixels = viv__malloc(n * 4);
  if (!c || !c->pixels) {
    viv__canvas_close(c);
    return VIV_FAIL(error, VIV_NOT_NOW, "drawing", "no memory");
  }
  c->width = width;
  c->height = height;
  for (size_t i = 0; i < n; i++, rgb += 3)
    c->pixels[i] = 0xff000000u | (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
  c->surface = cr.image_surface_create_for_data((unsigned char *)c->pixels, CAIRO_FORMAT_RGB24,
                                                width, height, width * 4);
  if (cr.surface_status(c->surface) == CAIRO_STATUS_SUCCESS) c->cr = cr.create(c->surface);
  if (!c->cr) {
    viv__canvas_close(c);
    return VIV_FAIL(error, VIV_NOT_NOW, "drawing", "cairo can't make a canvas");
  }
  cr.set_line_cap(c->cr, CAIRO_LINE_CAP_ROUND);
  cr.set_line_join(c->cr, CAIRO_LINE_JOIN_ROUND);
  *out = c;
  return VIV_OK;
}

void viv__canvas_read(viv__canvas *c, uint8_t *rgb) {
  cr.surface_flush(c->surface);
  for (size_t i = 0; i < (size_t)c->width * (size_t)c->height; i++, rgb += 3) {
    rgb[0] = (uint8_t)(c->pixels[i] >> 16);
    rgb[1] = (uint8_t)(c->pixels[i] >> 8);
    rgb[2] = (uint8_t)c->pixels[i];
  }
}

void viv__canvas_close(viv__canvas *c) {
  if (!c) return;
  if (c->cr) cr.destroy(c->cr);
  if (c->surface) cr.surface_destroy(c->surface);
  viv__free(c->pixels);
  viv__free(c);
}

/* ---- shapes ---- */

/* Cairo's numbers are fixed-point: what lies far outside would wrap around. False: no number. */
static bool bounded(const viv__canvas *c, double *xy, int n) {
  for (int i = 0; i < n; i++) {
    double limit = 4.0 * (i % 2 ? c->height : c->width) + 1024;
    if (!isfinite(xy[i])) return false;
    xy[i] = xy[i] < -limit ? -limit : xy[i] > limit ? limit : xy[i];
  }
  return true;
}

static void source(viv__canvas *c, viv__ink ink) {
  cr.set_source_rgba(c->cr, ink.r, ink.g, ink.b, ink.a);
}

/* Strokes the path twice: a dark rim, then the ink. */
static void rimmed_stroke(viv__canvas *c, double width, viv__ink ink) {
  double rim = width < 2 ? 0.6 : width < 3 ? 1 : width / 3;
  source(c, (viv__ink){0, 0, 0, 0.55 * ink.a});
  cr.set_line_width(c->cr, width + 2 * rim);
  cr.stroke_preserve(c->cr);
  source(c, ink);
  cr.set_line_width(c->cr, width);
  cr.stroke(c->cr);
}

void viv__canvas_line(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                      viv__ink ink) {
  double p[4] = {x0, y0, x1, y1};
  if (!bounded(c, p, 4)) return;
  cr.new_path(c->cr);
  cr.move_to(c->cr, p[0], p[1]);
  cr.line_to(c->cr, p[2], p[3]);
  rimmed_stroke(c, width, ink);
}

void viv__canvas_arrow(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                       viv__ink ink) {
  double p[4] = {x0, y0, x1, y1};
  if (!bounded(c, p, 4)) return;
  double dx = p[2] - p[0], dy = p[3] - p[1], length = hypot(dx, dy), head = 5 * width;
  if (length < 1) return;
  if (head > length / 2) head = length / 2;
  dx *= head / length;
  dy *= head / length;
  cr.new_path(c->cr);
  cr.move_to(c->cr, p[0], p[1]);
  cr.line_to(c->cr, p[2], p[3]);
  cr.move_to(c->cr, p[2] - dx + dy * 0.5, p[3] - dy - dx * 0.5);
  cr.line_to(c->cr, p[2], p[3]);
  cr.line_to(c->cr, p[2] - dx - dy * 0.5, p[3] - dy + dx * 0.5);
  rimmed_stroke(c, width, ink);
}

void viv__canvas_disc(viv__canvas *c, double x, double y, double radius, viv__ink ink) {
  double p[2] = {x, y};
  if (!bounded(c, p, 2)) return;
  source(c, (viv__ink){0, 0, 0, 0.55});
  cr.new_path(c->cr);
  cr.arc(c->cr, p[0], p[1], radius + (radius < 4 ? 1 : radius / 4), 0, 2 * M_PI);
  cr.fill(c->cr);
  source(c, ink);
  cr.arc(c->cr, p[0], p[1], radius, 0, 2 * M_PI);
  cr.fill(c->cr);
}

void viv__canvas_frame(viv__canvas *c, double x0, double y0, double x1, double y1, double width,
                       viv__ink ink) {
  double p[4] = {x0, y0, x1, y1}, size[2] = {c->width, c->height};
  if (!bounded(c, p, 4)) return;
  /* Lines along pixels are sharp; a box that ends with the picture has its line inside. */
  for (int i = 0; i < 4; i++) {
    if (i < 2 && p[i] < 0 && p[i + 2] > 0) p[i] = 0;
    if (i >= 2 && p[i] > size[i - 2] - 1 && p[i - 2] < size[i - 2]) p[i] = size[i - 2] - 1;
    p[i] = floor(p[i]) + (fmod(width, 2) == 1 ? 0.5 : 0);
  }
  cr.new_path(c->cr);
  cr.rectangle(c->cr, p[0], p[1], p[2] - p[0], p[3] - p[1]);
  rimmed_stroke(c, width, ink);
}

void viv__canvas_fill(viv__canvas *c, double x0, double y0, double x1, double y1, viv__ink ink) {
  double p[4] = {x0, y0, x1, y1};
  if (!bounded(c, p, 4)) return;
  source(c, ink);
  cr.new_path(c->cr);
  cr.rectangle(c->cr, p[0], p[1], p[2] - p[0], p[3] - p[1]);
  cr.fill(c->cr);
}

/* ---- text ---- */

enum { CAPITAL = 12, GAP = 4, BLANK = 5 }; /* of the font's grid */

static bool in_strokes(const char *text) {
  for (; *text; text++)
    if ((unsigned char)*text >= 128) return false;
  return true;
}

static int row_of(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The right edge of a character on the grid. */
static int right_edge(const char *strokes) {
  int right = *strokes ? 0 : BLANK - GAP;
  for (; *strokes; strokes += *strokes == ' ' ? 1 : 2)
    if (*strokes != ' ' && *strokes - '0' > right) right = *strokes - '0';
  return right;
}

static void use_font(viv__canvas *c, double size) {
  cr.select_font_face(c->cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_BOLD);
  cr.set_font_size(c->cr, size / 0.72); /* a capital's share of a font's size */
}

double viv__canvas_text_width(viv__canvas *c, double size, const char *text) {
  if (!in_strokes(text)) {
    cairo_text_extents_t extents;
    use_font(c, size);
    cr.text_extents(c->cr, text, &extents);
    return extents.x_advance;
  }
  int width = 0;
  for (const char *t = text; *t; t++) width += right_edge(viv__font_strokes(*t)) + GAP;
  return width > GAP ? (width - GAP) * size / CAPITAL : 0;
}

void viv__canvas_text(viv__canvas *c, double x, double y, double size, const char *text,
                      viv__ink ink) {
  double unit = size / CAPITAL;
  source(c, ink);
  cr.new_path(c->cr);
  if (!in_strokes(text)) {
    use_font(c, size);
    cr.move_to(c->cr, x, y + size);
    cr.show_text(c->cr, text);
    cr.new_path(c->cr);
    return;
  }
  for (; *text; text++) {
    const char *s = viv__font_strokes(*text);
    bool begun = false;
    for (const char *p = s; *p; p += *p == ' ' ? 1 : 2) {
      if (*p == ' ') {
        begun = false;
        continue;
      }
      double at[2] = {x + (*p - '0') * unit, y + row_of(p[1]) * unit};
      if (begun)
        cr.line_to(c->cr, at[0], at[1]);
      else
        cr.move_to(c->cr, at[0], at[1]);
      begun = true;
    }
    x += (right_edge(s) + GAP) * unit;
  }
  cr.set_line_width(c->cr, size < 9 ? 1.1 : size / 7);
  cr.stroke(c->cr);
}

viv__ink viv__heat(double t) {
  static const double ramp[6][3] = {{0.05, 0.03, 0.20}, {0.33, 0.06, 0.43}, {0.65, 0.16, 0.40},
                                    {0.92, 0.36, 0.22}, {0.99, 0.66, 0.15}, {0.98, 0.98, 0.68}};
  t = t > 0 ? (t < 1 ? t : 1) * 5 : 0; /* no number is the lowest */
  int k = t >= 5 ? 4 : (int)t;
  double f = t - k, c[3];
  for (int i = 0; i < 3; i++) c[i] = (1 - f) * ramp[k][i] + f * ramp[k + 1][i];
  return (viv__ink){c[0], c[1], c[2], 1};
}
