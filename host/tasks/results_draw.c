/* Results drawn over their picture, the same for every model of a task. Sizes follow the picture's
 * shorter side; captions come last and evade one another. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "media/canvas.h"
#include "tasks/results.h"

#define JOINT_THRESHOLD 0.3f
#define CAPTION_HEIGHT 2.25 /* in heights of a capital */
enum { MAX_CAPTIONS = 512, CAPTION_TEXT = 96, PLACES = 6, MAX_ROWS = 4 };

struct caption {
  char text[CAPTION_TEXT];
  viv__ink ink;
  double x0, y0, x1, y1; /* of what it names */
};

struct drawing {
  const viv__results *r;
  int64_t i;
  const viv__vocabulary *v;
  double threshold;
  viv__picture *picture;
  viv__canvas *canvas;
  double line, text; /* width of lines, height of capitals */
  struct caption *captions;
  int n_captions;
};

/* ---- colours ---- */

/* Hues step by 94 degrees, so that neighbouring classes differ and a class keeps its colour in every
 * picture. */
static viv__ink class_ink(int64_t label) {
  double hue = (double)((uint64_t)(label < 0 ? -label : label) * 94 % 360) / 60;
  double x = 1 - fabs(fmod(hue, 2) - 1);
  static const int order[6][3] = {{2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {0, 1, 2}, {1, 0, 2}, {2, 0, 1}};
  double levels[3] = {0, x, 1};
  const int *o = order[(int)hue % 6];
  /* Pure blue and red are dark on dark pictures: every colour has some white in it. */
  return (viv__ink){0.15 + 0.85 * levels[o[0]], 0.15 + 0.85 * levels[o[1]],
                    0.15 + 0.85 * levels[o[2]], 1};
}

static viv__ink on_top_of(viv__ink ink) {
  double light = 0.299 * ink.r + 0.587 * ink.g + 0.114 * ink.b;
  return light > 0.5 ? (viv__ink){0, 0, 0, 1} : (viv__ink){1, 1, 1, 1};
}

static void blend(uint8_t *rgb, viv__ink ink, double alpha) {
  double c[3] = {ink.r, ink.g, ink.b};
  for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)lround((1 - alpha) * rgb[k] + alpha * 255 * c[k]);
}

/* ---- captions ---- */

static const float *floats(const viv_tensor *t, int64_t at) {
  return (const float *)t->data + at;
}

static int32_t label_text(const viv__names *names, int64_t label, char out[64], viv_error *error) {
  const char *name = NULL;
  int32_t status = viv__name_of(names, label, &name, error);
  if (name) {
    snprintf(out, 64, "%s", name);
    out[viv__utf8_whole(out, strlen(out))] = 0;
  } else {
    snprintf(out, 64, "class %lld", (long long)label);
  }
  return status;
}

static void add_caption(struct drawing *d, const char *text, viv__ink ink, const double box[4]) {
  if (d->n_captions == MAX_CAPTIONS) return;
  struct caption *c = &d->captions[d->n_captions++];
  snprintf(c->text, sizeof c->text, "%s", text);
  c->ink = ink;
  c->x0 = box[0];
  c->y0 = box[1];
  c->x1 = box[2];
  c->y1 = box[3];
}

static double overlap(const double a[4], const double b[4]) {
  double w = fmin(a[2], b[2]) - fmax(a[0], b[0]), h = fmin(a[3], b[3]) - fmax(a[1], b[1]);
  return w > 0 && h > 0 ? w * h : 0;
}

/* Above the box's left corner, where there is room; else inside it, below it, at its right, and the
 * same some rows further up and down: the nearest place that covers no earlier caption, or the one that
 * covers least. */
static void place(const struct drawing *d, const struct caption *c, double w, double h,
                  double (*taken)[4], int n_taken, double out[4]) {
  double places[PLACES][2] = {{c->x0, c->y0 - h},     {c->x0, c->y0},     {c->x0, c->y1},
                              {c->x1 - w, c->y0 - h}, {c->x1 - w, c->y0}, {c->x0, c->y1 - h}};
  double least = INFINITY, width = d->picture->width, height = d->picture->height;
  for (int p = 0; p < PLACES * (2 * MAX_ROWS + 1) && least > 0; p++) {
    int rows = (p / PLACES + 1) / 2, away = p / PLACES % 2 ? -rows : rows;
    double left = places[p % PLACES][0], top = places[p % PLACES][1] + away * h;
    double x = fmax(0, fmin(left, width - w)), y = fmax(0, fmin(top, height - h));
    double box[4] = {x, y, x + w, y + h};
    double cost = fabs(top - y) * w; /* pushed back into the picture: over its own box */
    for (int t = 0; t < n_taken; t++) cost += 4 * overlap(box, taken[t]);
    cost += 0.2 * rows * w * h; /* the further away, the harder to see what it names */
    if (cost >= least) continue;
    least = cost;
    memcpy(out, box, sizeof box);
  }
}

static void draw_captions(struct drawing *d) {
  double(*taken)[4] = viv__calloc((size_t)d->n_captions, sizeof *taken);
  int n = 0;
  for (int i = 0; taken && i < d->n_captions; i++) {
    const struct caption *c = &d->captions[i];
    if (!isfinite(c->x0 + c->y0 + c->x1 + c->y1)) continue;
    double pad = d->text * 0.45, w = viv__canvas_text_width(d->canvas, d->text, c->text) + 2 * pad;
    double h = d->text * CAPTION_HEIGHT, *box = taken[n];
    /* On a picture of a few pixels a caption would hide what it names. */
    if (w > d->picture->width || h * 4 > d->picture->height) continue;
    place(d, c, w, h, taken, n++, box);
    viv__ink ground = c->ink;
    ground.a = 0.85;
    viv__canvas_fill(d->canvas, box[0], box[1], box[2], box[3], ground);
    viv__canvas_text(d->canvas, box[0] + pad, box[1] + pad, d->text, c->text, on_top_of(c->ink));
  }
  viv__free(taken);
}

/* ---- instances ---- */

static int64_t label_of(const struct drawing *d, int64_t n) {
  const viv_tensor *labels = viv__result(d->r, d->i, VIV__LABELS);
  return labels ? viv__result_integer(labels, n) : n;
}

static void draw_masks(struct drawing *d, const viv_tensor *masks) {
  int64_t h = masks->shape[1], w = masks->shape[2];
  for (int64_t n = 0; n < masks->shape[0]; n++) {
    if (!(viv__result_score(d->r, d->i, n) >= d->threshold)) continue;
    const uint8_t *m = (const uint8_t *)masks->data + n * h * w;
    viv__ink ink = class_ink(label_of(d, n));
    uint8_t *rgb = d->picture->data;
    for (int64_t y = 0; y < d->picture->height; y++)
      for (int64_t x = 0; x < d->picture->width; x++, rgb += 3) {
        int64_t my = y * h / d->picture->height, mx = x * w / d->picture->width;
        if (!m[my * w + mx]) continue;
        bool rim = mx == 0 || my == 0 || mx == w - 1 || my == h - 1 || !m[my * w + mx - 1] ||
                   !m[my * w + mx + 1] || !m[(my - 1) * w + mx] || !m[(my + 1) * w + mx];
        blend(rgb, ink, rim ? 0.9 : 0.45);
      }
  }
}

/* Left limbs green, right ones orange, the middle and the face blue. */
static viv__ink side_ink(const viv__vocabulary *v, int32_t a, int32_t b) {
  static const viv__ink left = {0, 200 / 255.0, 0, 1}, right = {1, 128 / 255.0, 0, 1};
  static const viv__ink middle = {51 / 255.0, 153 / 255.0, 1, 1};
  const char *first = v->keypoints.items[a], *second = v->keypoints.items[b];
  if (!first || !second || strstr(first, "eye") || strstr(first, "ear") || strstr(second, "eye") ||
      strstr(second, "ear"))
    return middle;
  if (!strncmp(first, "left", 4) && !strncmp(second, "left", 4)) return left;
  if (!strncmp(first, "right", 5) && !strncmp(second, "right", 5)) return right;
  return middle;
}

static void draw_pose(struct drawing *d, const viv_tensor *points, int64_t n, double box[4]) {
  const viv_tensor *scores = viv__result(d->r, d->i, VIV__KEYPOINT_SCORES);
  int64_t k = points->shape[1], each = points->shape[2];
  const float *p = floats(points, n * k * each);
  const float *s = scores ? floats(scores, n * k) : each == 3 ? p + 2 : NULL;
  int64_t step = scores ? 1 : 3;
  box[0] = box[1] = INFINITY;
  box[2] = box[3] = -INFINITY;
  for (int64_t e = 0; e < d->v->n_edges; e++) {
    int32_t a = d->v->skeleton[e][0], b = d->v->skeleton[e][1];
    if (a >= k || b >= k) continue;
    if (s && (s[a * step] < JOINT_THRESHOLD || s[b * step] < JOINT_THRESHOLD)) continue;
    viv__canvas_line(d->canvas, p[a * each] + 0.5, p[a * each + 1] + 0.5, p[b * each] + 0.5,
                     p[b * each + 1] + 0.5, d->line, side_ink(d->v, a, b));
  }
  for (int64_t j = 0; j < k; j++) {
    double x = p[j * each] + 0.5, y = p[j * each + 1] + 0.5;
    box[0] = fmin(box[0], x);
    box[1] = fmin(box[1], y);
    box[2] = fmax(box[2], x);
    box[3] = fmax(box[3], y);
    if (s && s[j * step] < JOINT_THRESHOLD) continue;
    viv__ink ink =
        j < d->v->keypoints.n ? side_ink(d->v, (int32_t)j, (int32_t)j) : (viv__ink){1, 1, 0, 1};
    viv__canvas_disc(d->canvas, x, y, d->line * 1.6, ink);
  }
}

static int32_t draw_instances(struct drawing *d, viv_error *error) {
  const viv_tensor *boxes = viv__result(d->r, d->i, VIV__BOXES);
  const viv_tensor *points = viv__result(d->r, d->i, VIV__KEYPOINTS);
  const viv_tensor *labels = viv__result(d->r, d->i, VIV__LABELS);
  for (int64_t n = 0; n < viv__result_count(d->r, d->i); n++) {
    double box[4] = {0}, score = viv__result_score(d->r, d->i, n);
    if (!(score >= d->threshold)) continue;
    viv__ink ink = class_ink(label_of(d, n));
    char name[64] = "", text[CAPTION_TEXT];
    if (labels) {
      int32_t status = label_text(&d->v->classes, label_of(d, n), name, error);
      if (status < 0) return status;
    }
    if (points) draw_pose(d, points, n, box);
    if (boxes) {
      for (int c = 0; c < 4; c++) box[c] = (double)*floats(boxes, 4 * n + c);
      if (!points) viv__canvas_frame(d->canvas, box[0], box[1], box[2], box[3], d->line, ink);
    }
    snprintf(text, sizeof text, "%s%s%.2f", name, *name ? " " : "", score);
    if (boxes || points) add_caption(d, text, ink, box);
  }
  return VIV_OK;
}

/* ---- relations ---- */

static int32_t draw_end(struct drawing *d, int64_t n, int32_t boxes, int32_t labels,
                        double centre[2], viv_error *error) {
  const float *b = floats(viv__result(d->r, d->i, boxes), 4 * n);
  int64_t label = viv__result_integer(viv__result(d->r, d->i, labels), n);
  double box[4] = {(double)b[0], (double)b[1], (double)b[2], (double)b[3]};
  char name[64];
  int32_t status = label_text(&d->v->classes, label, name, error);
  centre[0] = (box[0] + box[2]) / 2;
  centre[1] = (box[1] + box[3]) / 2;
  if (status < 0) return status;
  /* One thing may stand in many relations: it is framed and named once. */
  for (int c = 0; c < d->n_captions; c++)
    if (!strcmp(d->captions[c].text, name) && fabs(d->captions[c].x0 - box[0]) < 2 &&
        fabs(d->captions[c].y0 - box[1]) < 2)
      return VIV_OK;
  viv__canvas_frame(d->canvas, box[0], box[1], box[2], box[3], d->line, class_ink(label));
  add_caption(d, name, class_ink(label), box);
  return VIV_OK;
}

static int32_t draw_relations(struct drawing *d, viv_error *error) {
  const viv_tensor *predicates = viv__result(d->r, d->i, VIV__PREDICATES);
  int32_t status = VIV_OK;
  for (int64_t n = 0; n < viv__result_count(d->r, d->i) && status >= 0; n++) {
    double from[2], to[2];
    char name[64];
    viv__ink white = {1, 1, 1, 1};
    if (!(viv__result_score(d->r, d->i, n) >= d->threshold)) continue;
    status = draw_end(d, n, VIV__SUBJECT_BOXES, VIV__SUBJECT_LABELS, from, error);
    if (status >= 0) status = draw_end(d, n, VIV__OBJECT_BOXES, VIV__OBJECT_LABELS, to, error);
    if (status >= 0)
      status = label_text(&d->v->predicates, viv__result_integer(predicates, n), name, error);
    if (status < 0) break;
    viv__canvas_arrow(d->canvas, from[0], from[1], to[0], to[1], d->line, white);
    double x = (from[0] + to[0]) / 2, y = (from[1] + to[1]) / 2;
    add_caption(d, name, white, (const double[]){x, y, x, y});
  }
  return status;
}

/* ---- depth, maps, classes ---- */

static void depth_range(const viv_tensor *depth, double *low, double *high) {
  *low = INFINITY;
  *high = -INFINITY;
  for (int64_t k = 0; k < depth->shape[0] * depth->shape[1]; k++) {
    double z = (double)*floats(depth, k);
    if (!isfinite(z)) continue;
    *low = fmin(*low, z);
    *high = fmax(*high, z);
  }
  if (*low > *high) *low = *high = 0;
}

static void paint_depth(struct drawing *d, const viv_tensor *depth, double low, double high) {
  int64_t h = depth->shape[0], w = depth->shape[1];
  uint8_t *rgb = d->picture->data;
  double range = high > low ? high - low : 1;
  for (int64_t y = 0; y < d->picture->height; y++)
    for (int64_t x = 0; x < d->picture->width; x++, rgb += 3) {
      double z = (double)*floats(depth, y * h / d->picture->height * w + x * w / d->picture->width);
      blend(rgb, viv__heat((z - low) / range), 1);
    }
}

/* Over the picture, the stronger the more. */
static void paint_heat(struct drawing *d, const viv_tensor *map, double low, double high) {
  int64_t h = map->shape[0], w = map->shape[1];
  uint8_t *rgb = d->picture->data;
  double range = high > low ? high - low : 1;
  for (int64_t y = 0; y < d->picture->height; y++)
    for (int64_t x = 0; x < d->picture->width; x++, rgb += 3) {
      double z = (double)*floats(map, y * h / d->picture->height * w + x * w / d->picture->width);
      double t = isfinite(z) ? (z - low) / range : 0;
      blend(rgb, viv__heat(t), 0.3 + 0.4 * t);
    }
}

/* A strip at the right edge with the numbers of its ends. */
static void draw_scale(struct drawing *d, double low, double high) {
  double w = d->picture->width, h = d->picture->height, strip = d->text * 1.2;
  double top = round(h * 0.08), bottom = round(h * 0.92), left = round(w - 2.2 * strip);
  double ends[2] = {high, low};
  if (w < 8 * strip || h < 8 * strip) return;
  viv__canvas_fill(d->canvas, left - 2, top - 2, left + strip + 2, bottom + 2,
                   (viv__ink){0, 0, 0, 0.8});
  for (double y = top; y < bottom; y++)
    viv__canvas_fill(d->canvas, left, y, left + strip, fmin(y + 1, bottom),
                     viv__heat(1 - (y - top) / (bottom - top)));
  for (int e = 0; e < 2; e++) {
    char text[32];
    snprintf(text, sizeof text, "%.4g", ends[e]);
    double y = e ? bottom - d->text * 2 : top,
           width = viv__canvas_text_width(d->canvas, d->text, text);
    viv__canvas_fill(d->canvas, left - width - d->text * 1.5, y, left - d->text * 0.5,
                     y + d->text * 2, (viv__ink){0, 0, 0, 0.7});
    viv__canvas_text(d->canvas, left - width - d->text, y + d->text * 0.5, d->text, text,
                     (viv__ink){1, 1, 1, 1});
  }
}

/* How the class's probability falls and rises, in the lower left above their names and areas. */
static void draw_curves(struct drawing *d, const viv_tensor *curves, const viv_tensor *areas) {
  static const char *const names[2] = {"deletion", "insertion"};
  double w = d->picture->width, h = d->picture->height, side = round(fmin(w, h) * 0.3);
  double left = d->text, bottom = h - d->text - 2 * CAPTION_HEIGHT * d->text;
  int64_t n = curves->shape[1];
  bool room = side >= 4 * d->text; /* names fit into every picture */
  if (room)
    viv__canvas_fill(d->canvas, left, bottom - side, left + side, bottom, (viv__ink){0, 0, 0, 0.7});
  for (int k = 0; k < 2; k++) {
    viv__ink ink = class_ink(k + 1);
    const float *y = floats(curves, k * n);
    double step = side / (double)(n > 1 ? n - 1 : 1);
    for (int64_t at = 1; room && at < n; at++)
      viv__canvas_line(d->canvas, left + step * (double)(at - 1), bottom - side * (double)y[at - 1],
                       left + step * (double)at, bottom - side * (double)y[at], d->line, ink);
    char text[CAPTION_TEXT];
    snprintf(text, sizeof text, "%s %.3f", names[k], areas ? (double)*floats(areas, k) : 0);
    double low = h - k * CAPTION_HEIGHT * d->text;
    add_caption(d, text, ink, (const double[]){0, low, 0, low});
  }
}

static void paint_map(struct drawing *d, const viv_tensor *map) {
  int64_t h = map->shape[0], w = map->shape[1];
  uint8_t *rgb = d->picture->data;
  for (int64_t y = 0; y < d->picture->height; y++)
    for (int64_t x = 0; x < d->picture->width; x++, rgb += 3)
      blend(rgb,
            class_ink(viv__result_integer(map, y * h / d->picture->height * w +
                                                   x * w / d->picture->width)),
            0.55);
}

/* Names with colours, one below another, in the lower left corner. */
static int32_t draw_legend(struct drawing *d, const viv_tensor *map, viv_error *error) {
  enum { CLASSES = 4096, SHOWN = 8 };
  float *share = viv__calloc(CLASSES, sizeof *share);
  int64_t top[SHOWN];
  int32_t status = share ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "legend", "no memory");
  for (int64_t k = 0; share && k < map->shape[0] * map->shape[1]; k++) {
    int64_t label = viv__result_integer(map, k);
    if (label >= 0 && label < CLASSES) share[label]++;
  }
  if (share) viv__top(share, CLASSES, top, SHOWN);
  for (int k = 0; k < SHOWN && status >= 0 && share[top[k]] > 0; k++) {
    char name[64];
    double y = d->picture->height - k * CAPTION_HEIGHT * d->text;
    status = label_text(&d->v->classes, top[k], name, error);
    add_caption(d, name, class_ink(top[k]), (const double[]){0, y, 0, y});
  }
  viv__free(share);
  return status;
}

static int32_t draw_classes(struct drawing *d, viv_error *error) {
  enum { SHOWN = 3 };
  int64_t n, top[SHOWN];
  const float *row = viv__result_row(d->r, d->i, VIV__PROBABILITIES, &n);
  int32_t status = VIV_OK;
  viv__top(row, n, top, SHOWN);
  for (int k = 0; k < SHOWN && k < n && status >= 0; k++) {
    char name[64], text[CAPTION_TEXT];
    double y = (1 + k) * CAPTION_HEIGHT * d->text;
    status = label_text(&d->v->classes, top[k], name, error);
    snprintf(text, sizeof text, "%s %.2f", name, (double)row[top[k]]);
    add_caption(d, text, class_ink(top[k]), (const double[]){0, y, 0, y});
  }
  return status;
}

/* ---- the whole ---- */

/* Fills change the picture's pixels; lines and text go over them on the canvas. */
static int32_t draw_on_canvas(struct drawing *d, double low, double high, viv_error *error) {
  const viv_tensor *map = viv__result(d->r, d->i, VIV__LABEL_MAP);
  int32_t status = VIV_OK;
  bool deep = viv__result(d->r, d->i, VIV__DEPTH) != NULL;
  const viv_tensor *curves = viv__result(d->r, d->i, VIV__CURVES);
  if (deep || viv__result(d->r, d->i, VIV__HEAT)) draw_scale(d, low, high);
  if (curves) draw_curves(d, curves, viv__result(d->r, d->i, VIV__AREAS));
  if (viv__result(d->r, d->i, VIV__PREDICATES))
    status = draw_relations(d, error);
  else if (viv__result(d->r, 0, VIV__PROBABILITIES))
    status = draw_classes(d, error);
  else if (map)
    status = draw_legend(d, map, error);
  else if (!deep && !viv__result(d->r, d->i, VIV__HEAT))
    status = draw_instances(d, error);
  if (status >= 0) draw_captions(d);
  return status;
}

int32_t viv__results_draw(const viv__results *r, int64_t i, const viv__vocabulary *v,
                          double threshold, viv__picture *picture, viv_error *error) {
  struct drawing d = {.r = r, .i = i, .v = v, .threshold = threshold, .picture = picture};
  const viv_tensor *depth = viv__result(r, i, VIV__DEPTH), *map = viv__result(r, i, VIV__LABEL_MAP);
  const viv_tensor *masks = viv__result(r, i, VIV__MASKS), *heat_map = viv__result(r, i, VIV__HEAT);
  double side = fmin(picture->width, picture->height), low = 0, high = 0;
  if (viv__result(r, 0, VIV__EMBEDDINGS))
    return VIV_FAIL(error, VIV_NEVER, "--draw", "an embedding can't be drawn");
  d.line = fmax(1, round(side / 256));
  d.text = fmax(7, side / 50);
  if (!(d.captions = viv__calloc(MAX_CAPTIONS, sizeof *d.captions)))
    return VIV_FAIL(error, VIV_NOT_NOW, "drawing", "no memory");
  if (depth) {
    depth_range(depth, &low, &high);
    paint_depth(&d, depth, low, high);
  }
  if (heat_map) {
    depth_range(heat_map, &low, &high);
    paint_heat(&d, heat_map, low, high);
  }
  if (map && !masks) paint_map(&d, map);
  if (masks) draw_masks(&d, masks);
  int32_t status =
      viv__canvas_open(picture->data, picture->width, picture->height, &d.canvas, error);
  if (status >= 0) status = draw_on_canvas(&d, low, high, error);
  if (status >= 0) viv__canvas_read(d.canvas, picture->data);
  viv__canvas_close(d.canvas);
  viv__free(d.captions);
  return status;
}
