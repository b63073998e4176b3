/* Convolution as it stands in the formula, over channels-last data: for a tile of pixels and
 * outputs, all sums stay in registers while the taps and channels pass by. Each pixel of a tile
 * carries its own pointer for each tap, so that padding of any kind, strides, dilations and the
 * phases of a transposed convolution are only tables of pointers. Channels-first inputs are turned
 * once; channels-first results are turned on their way out of a buffer. */
#include "compute/conv.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
  CHUNK_TILES = 32,   /* tiles that pass by one panel of weights */
  CHUNK_DEPTH = 1024, /* channels times taps of a panel: 256 KB with 64 outputs */
  SPLIT_DEPTH = 512,
  MIN_STRIP = 24,
  SHORT_RUN = 64, /* of a sum: shorter ones are looked up */
  CHUNK_PIXELS = CHUNK_TILES * VIV__CONV_ROWS,
  POINTERS = 8192 /* of a chunk */
};

struct direct {
  viv__conv_plan *p;
  const float *x; /* channels last */
  const float *zeros;
  viv__conv_axis axis[3];
  int64_t taps, pixels;
  bool padded;     /* x is a copy with its padding around it */
  bool joins;      /* taps of the last axis lie behind one another where x is steady */
  bool steady;     /* every tap of every pixel lies inside x: one pointer serves all taps */
  int64_t size[3]; /* of x here */
  int64_t strip;   /* where x is steady: pixels that follow one another in x by one step; or 0 */
  int64_t segments;
  viv__conv_segment *segment;
  int32_t *offset; /* [taps * in_group] from a pixel's pointer, where runs are short; or NULL */
  int64_t tiles, chunk, chunks;      /* tiles of an image, of a chunk; chunks of an image */
  int64_t tile_pixels, longer_tiles; /* evenly, not 6, 6, ..., 1: the first ones have one more */
  int64_t out_part, out_parts;       /* outputs of a task; tasks of the outputs of a group */
  int64_t tasks;
  /* of each thread */
  int64_t pointer_floats, buffer_floats, thread_floats;
  float *threads;
  _Atomic int64_t next;
};

/* ---- tiles ---- */

static int64_t tile_begin(const struct direct *s, int64_t tile) {
  return tile * s->tile_pixels + viv__min(tile, s->longer_tiles);
}

/* A pixel of the pass: its place on each axis. */
struct place {
  int64_t j[3];
};

static struct place place_of(const struct direct *s, int64_t pixel) {
  const viv__conv_axis *a = s->axis;
  return (struct place){
      {pixel / a[2].count / a[1].count, pixel / a[2].count % a[1].count, pixel % a[2].count}};
}

static void step(const struct direct *s, struct place *at) {
  if (++at->j[2] < s->axis[2].count) return;
  at->j[2] = 0;
  if (++at->j[1] < s->axis[1].count) return;
  at->j[1] = 0;
  at->j[0]++;
}

/* Where it lies among the outputs. */
static int64_t out_pixel(const struct direct *s, const struct place *pixel) {
  int64_t at = 0;
  for (int i = 0; i < 3; i++)
    at = at * s->p->out[i] + s->axis[i].begin + pixel->j[i] * s->axis[i].step;
  return at;
}

static void point(const struct direct *s, const float *image, const struct place *pixel,
                  const float **to) {
  const viv__conv_axis *a = s->axis;
  const int64_t *size = s->size, *stride = s->p->w->stride;
  int64_t in = s->p->w->in;
  int64_t j0 = pixel->j[0], j1 = pixel->j[1], j2 = pixel->j[2];
  if (s->steady) {
    *to = image + ((j0 * stride[0] * size[1] + j1 * stride[1]) * size[2] + j2 * stride[2]) * in;
    return;
  }
  for (int64_t t0 = 0; t0 < a[0].taps; t0++) {
    int64_t i0 = a[0].index[t0 * a[0].count + j0];
    for (int64_t t1 = 0; t1 < a[1].taps; t1++) {
      int64_t i1 = a[1].index[t1 * a[1].count + j1];
      bool row = i0 >= 0 && i1 >= 0;
      const float *base = row ? image + (i0 * size[1] + i1) * size[2] * in : NULL;
      const int64_t *index = a[2].index + j2;
      for (int64_t t2 = 0; t2 < a[2].taps; t2++, to += VIV__CONV_ROWS, index += a[2].count)
        *to = row && *index >= 0 ? base + *index * in : s->zeros;
    }
  }
}

/* ---- channels-first results ---- */

/* The pixels of a phase lie apart: buffer [pixels, CONV_COLS] -> out. */
static void scatter_out(const struct direct *s, const int64_t *place, int64_t pixels,
                        int64_t channel_at, int64_t cols, const float *buffer) {
  const viv__conv_plan *p = s->p;
  float row[CHUNK_PIXELS];
  for (int64_t o = 0; o < cols; o++, channel_at += p->out_space) {
    const float *residual = p->a->residual ? p->a->residual + channel_at : NULL;
    for (int64_t i = 0; i < pixels; i++) {
      float v = buffer[i * VIV__CONV_COLS + o] + (residual ? residual[place[i]] : 0.0f);
      v = v < p->low ? p->low : v;
      row[i] = v > p->high ? p->high : v;
    }
    viv__conv_act(p, row, pixels);
    for (int64_t i = 0; i < pixels; i++) p->a->out[channel_at + place[i]] = row[i];
  }
}

/* ---- tasks ---- */

/* Segments [begin, end) that together are at most CHUNK_DEPTH deep. */
static int64_t panel_end(const struct direct *s, int64_t begin) {
  int64_t end = begin, depth = 0;
  while (end < s->segments && (end == begin || depth + s->segment[end].length <= CHUNK_DEPTH))
    depth += s->segment[end++].length;
  return end;
}

/* Pixels of one chunk of an image. */
struct chunk {
  int64_t image, group, tiles, pixels, first;
  int64_t place[CHUNK_PIXELS];      /* among the outputs of the batch */
  int64_t tile_at[CHUNK_TILES + 1]; /* pixels of the chunk before each tile */
  const float **pointer;            /* [tiles][taps][CONV_ROWS] */
  const float *x;                   /* of the image and group */
  float *buffer;
};

static void point_chunk(const struct direct *s, int64_t chunk, struct chunk *k) {
  const viv__conv_plan *p = s->p;
  const viv_conv_weight *w = p->w;
  int64_t first_tile = chunk * s->chunk, end_tile = viv__min(s->tiles, first_tile + s->chunk);
  k->x = s->x + k->image * s->size[0] * s->size[1] * s->size[2] * w->in + k->group * w->in_group;
  k->first = tile_begin(s, first_tile);
  k->tiles = end_tile - first_tile;
  k->pixels = tile_begin(s, end_tile) - k->first;
  if (s->strip) return;
  struct place walk = place_of(s, k->first);
  int64_t image_at = k->image * p->out_space, i = 0;
  for (int64_t tile = 0; tile < k->tiles; tile++) {
    const float **to = k->pointer + tile * s->taps * VIV__CONV_ROWS;
    int64_t end = tile_begin(s, first_tile + tile + 1) - k->first;
    k->tile_at[tile] = i;
    for (int64_t r = 0; i < end; i++, r++, step(s, &walk)) {
      point(s, k->x, &walk, to + r);
      k->place[i] = image_at + (w->transposed ? out_pixel(s, &walk) : k->first + i);
    }
  }
  k->tile_at[k->tiles] = i;
}

/* The chunk's tiles by their own pointers; t->x, out and residual are set here. */
static void run_tiles(const struct direct *s, const struct chunk *k, viv__conv_tile *t,
                      int64_t channel) {
  const viv__conv_plan *p = s->p;
  const float *residual[VIV__CONV_ROWS];
  float *out[VIV__CONV_ROWS];
  t->out = out;
  t->residual = p->a->residual && p->out_last ? residual : NULL;
  for (int64_t tile = 0; tile < k->tiles; tile++) {
    int64_t begin = k->tile_at[tile];
    t->rows = (int32_t)(k->tile_at[tile + 1] - begin);
    t->x = k->pointer + tile * s->taps * VIV__CONV_ROWS;
    for (int64_t r = 0; r < t->rows; r++) {
      int64_t at = k->place[begin + r] * p->w->out + channel;
      out[r] = p->out_last ? p->a->out + at : k->buffer + (begin + r) * VIV__CONV_COLS;
      if (t->residual) residual[r] = p->a->residual + at;
    }
    p->kernels->conv_tile(t);
  }
}

struct strip {
  int64_t pixels;
  const float *x;
  int64_t x_step;
  float *out;
  const float *residual; /* or NULL */
  int64_t out_step;
};

static void run_strip(const viv__kernels *kernels, viv__conv_tile *t, struct strip s) {
  const float *rows[VIV__CONV_ROWS], *residuals[VIV__CONV_ROWS];
  float *outs[VIV__CONV_ROWS];
  t->x = rows;
  t->out = outs;
  t->residual = s.residual ? residuals : NULL;
  if (t->offset && !t->add && !s.residual && t->cols % VIV__CONV_BLOCK == 0) {
    int64_t whole = s.pixels / VIV__CONV_ROWS, n = whole * VIV__CONV_ROWS;
    rows[0] = s.x;
    outs[0] = s.out;
    kernels->conv_strip(t, whole, s.x_step, s.out_step);
    s.x += n * s.x_step;
    s.out += n * s.out_step;
    s.pixels -= n;
    if (!s.pixels) return;
  }
  int64_t tiles = (s.pixels + VIV__CONV_ROWS - 1) / VIV__CONV_ROWS;
  int64_t even = s.pixels / tiles, longer = s.pixels % tiles;
  for (int64_t i = 0; i < tiles; i++) {
    t->rows = (int32_t)(even + (i < longer));
    for (int64_t r = 0; r < t->rows; r++) {
      rows[r] = s.x + r * s.x_step;
      outs[r] = s.out + r * s.out_step;
      if (s.residual) residuals[r] = s.residual + r * s.out_step;
    }
    kernels->conv_tile(t);
    s.x += t->rows * s.x_step;
    s.out += t->rows * s.out_step;
    if (s.residual) s.residual += t->rows * s.out_step;
  }
}

/* The same where one step leads from pixel to pixel: no tables. */
static void run_strips(const struct direct *s, const struct chunk *k, viv__conv_tile *t,
                       int64_t channel) {
  const viv__conv_plan *p = s->p;
  const viv__conv_axis *a = s->axis;
  const int64_t *stride = p->w->stride;
  int64_t x_step = stride[2] * p->w->in, out_step = p->out_last ? p->w->out : VIV__CONV_COLS;
  for (int64_t i = 0, n; i < k->pixels; i += n) {
    int64_t pixel = k->first + i, row = pixel / s->strip, at = pixel % s->strip;
    n = viv__min(s->strip - at, k->pixels - i);
    int64_t j0 = row / a[1].count, j1 = row % a[1].count;
    const float *x =
        k->x + (j0 * stride[0] * s->size[1] + j1 * stride[1]) * s->size[2] * p->w->in + at * x_step;
    int64_t result = (k->image * p->out_space + pixel) * p->w->out + channel;
    float *out = p->out_last ? p->a->out + result : k->buffer + i * VIV__CONV_COLS;
    const float *residual = p->a->residual && p->out_last ? p->a->residual + result : NULL;
    run_strip(p->kernels, t, (struct strip){n, x, x_step, out, residual, out_step});
  }
}

/* Outputs [col, col + cols) of the group for all tiles of the chunk. */
static void run_part(const struct direct *s, const struct chunk *k, int64_t col, int64_t cols) {
  const viv__conv_plan *p = s->p;
  const viv_conv_weight *w = p->w;
  int64_t channel = k->group * w->out_group + col;
  int64_t block = k->group * w->blocks + col / VIV__CONV_BLOCK, segment = 0;
  viv__conv_tile t = {.cols = (int32_t)cols,
                      .w_block = w->taps * w->in_group * VIV__CONV_BLOCK,
                      .bias = w->bias ? w->bias + block * VIV__CONV_BLOCK : NULL,
                      .quads = w->quads,
                      .first = col};
  if (w->quads) t.w_block = w->taps * 4 * VIV__CONV_BLOCK;
  t.w = w->packed + block * t.w_block;
  do { /* also without a segment, where no tap meets an input */
    int64_t segment_end = panel_end(s, segment);
    bool last = segment_end == s->segments, cut = last && p->out_last;
    t.segment = s->segment + segment;
    t.offset = s->offset ? s->offset + t.segment->x : NULL;
    t.segments = segment_end - segment;
    t.add = segment > 0;
    t.low = cut ? p->low : -INFINITY;
    t.high = cut ? p->high : INFINITY;
    if (s->strip)
      run_strips(s, k, &t, channel);
    else
      run_tiles(s, k, &t, channel);
    if (last && p->out_last && p->act)
      for (int64_t i = 0; i < k->pixels; i++) {
        int64_t at = s->strip ? k->image * p->out_space + k->first + i : k->place[i];
        viv__conv_act(p, p->a->out + at * w->out + channel, cols);
      }
    segment = segment_end;
  } while (segment < s->segments);
  if (p->out_last) return;
  int64_t at = (k->image * w->out + channel) * p->out_space;
  if (w->transposed)
    scatter_out(s, k->place, k->pixels, at - k->image * p->out_space, cols, k->buffer);
  else
    viv__conv_turn_tile(p, k->buffer, VIV__CONV_COLS, k->pixels, cols, at + k->first);
}

static void run_task(const struct direct *s, int64_t task, float *own) {
  const viv_conv_weight *w = s->p->w;
  int64_t part = task % s->out_parts, rest = task / s->out_parts;
  struct chunk k = {.group = rest % w->groups,
                    .image = rest / w->groups / s->chunks,
                    .pointer = (const float **)(void *)own,
                    .buffer = own + s->pointer_floats};
  point_chunk(s, rest / w->groups % s->chunks, &k);
  int64_t end = viv__min(w->out_group, (part + 1) * s->out_part);
  for (int64_t col = part * s->out_part; col < end; col += VIV__CONV_COLS)
    run_part(s, &k, col, viv__min(VIV__CONV_COLS, end - col));
}

static void worker(void *ctx, int64_t begin, int64_t end) {
  struct direct *s = ctx;
  for (int64_t slot = begin; slot < end; slot++)
    for (;;) {
      int64_t task = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
      if (task >= s->tasks) break;
      run_task(s, task, s->threads + slot * s->thread_floats);
    }
}

/* Lists the sum's runs. Where the taps of the last axis lie behind one another, they make one. */
static void list_segments(struct direct *s) {
  const viv_conv_weight *w = s->p->w;
  const viv__conv_axis *a = s->axis;
  int64_t deep = w->quads ? 4 : w->in_group, joined = s->steady && s->joins ? a[2].taps : 1;
  int64_t run = deep * joined, step = run > CHUNK_DEPTH ? SPLIT_DEPTH : run, row = 0;
  s->segments = 0;
  for (int64_t t0 = 0; t0 < a[0].taps; t0++)
    for (int64_t t1 = 0; t1 < a[1].taps; t1++)
      for (int64_t t2 = 0; t2 < a[2].taps; t2 += joined, row++) {
        int64_t tap = (a[0].tap[t0] * w->kernel[1] + a[1].tap[t1]) * w->kernel[2] + a[2].tap[t2];
        int64_t at = (t0 * w->dilation[0] * s->size[1] + t1 * w->dilation[1]) * s->size[2];
        at = s->steady ? (at + t2 * w->dilation[2]) * w->in : 0;
        for (int64_t i = 0; i < run; i += step)
          s->segment[s->segments++] =
              (viv__conv_segment){.weight = (tap * deep + i) * VIV__CONV_BLOCK,
                                  .length = viv__min(step, run - i),
                                  .x = at + i,
                                  .tap = s->steady ? 0 : row};
      }
}

/* Short runs are one long one over a table of offsets: x of a segment is where its part of the table
 * begins. */
static void list_offsets(struct direct *s) {
  int64_t n = 0;
  for (int64_t i = 0; i < s->segments; i++)
    for (int64_t j = 0; j < s->segment[i].length; j++)
      s->offset[n++] = (int32_t)(s->segment[i].x + j);
  s->segments = 0;
  for (int64_t i = 0; i < n; i += CHUNK_DEPTH)
    s->segment[s->segments++] = (viv__conv_segment){
        .weight = i * VIV__CONV_BLOCK, .length = viv__min(CHUNK_DEPTH, n - i), .x = i};
}

/* ---- x with its padding around it ---- */

/* A tap of few channels is a short run of the sum, and a pointer for each tap and pixel costs more than
 * it. So x is copied once with its padding around it; what has to be turned anyway is, too. */
static bool wants_padding(const viv__conv_plan *p) {
  const viv_conv_weight *w = p->w;
  return !w->transposed && w->taps > 1 &&
         (!p->x_last || w->in <= 16 || (w->in <= 32 && w->taps > 9));
}

static int64_t padded_size(const viv__conv_plan *p, int i) {
  const viv_conv_weight *w = p->w;
  return viv__max(1, (p->out[i] - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1);
}

static bool one_step(const viv_conv_weight *w) {
  return w->stride[0] == 1 && w->stride[1] == 1 && w->stride[2] == 1;
}

/* No tap of any pixel lies beside x. */
static bool needs_no_padding(const viv__conv_plan *p) {
  bool none = !p->w->transposed;
  for (int i = 0; i < 3; i++) none = none && !p->pad[i] && padded_size(p, i) <= p->size[i];
  return none;
}

struct pad {
  const viv__conv_plan *p;
  const int64_t *size; /* of the copy */
  float *to;
};

/* Rows [begin, end) of the copy. */
static void pad_rows(void *ctx, int64_t begin, int64_t end) {
  const struct pad *s = ctx;
  const viv__conv_plan *p = s->p;
  int64_t in = p->w->in, width = s->size[2];
  int64_t between = p->x_last ? in : 1, plane = p->x_last ? 1 : p->in_space;
  int64_t first = viv__min(p->pad[2], width), stop = viv__min(width, p->pad[2] + p->size[2]);
  for (int64_t row = begin; row < end; row++) {
    int64_t i1 = viv__conv_index(p, 1, row % s->size[1] - p->pad[1]);
    int64_t i0 = viv__conv_index(p, 0, row / s->size[1] % s->size[0] - p->pad[0]);
    int64_t image = row / s->size[1] / s->size[0];
    float *to = s->to + row * width * in;
    if (i0 < 0 || i1 < 0) {
      memset(to, 0, (size_t)(width * in) * sizeof *to);
      continue;
    }
    const float *from =
        p->a->x + image * in * p->in_space + (i0 * p->size[1] + i1) * p->size[2] * between;
    if (first < stop && p->x_last)
      memcpy(to + first * in, from, (size_t)((stop - first) * in) * sizeof *to);
    else if (first < stop)
      p->kernels->transpose(from, plane, in, stop - first, to + first * in, in);
    for (int64_t i = 0; i < width; i++) {
      if (i == first) i = stop;
      if (i >= width) break;
      int64_t at = viv__conv_index(p, 2, i - p->pad[2]);
      for (int64_t ch = 0; ch < in; ch++)
        to[i * in + ch] = at < 0 ? 0.0f : from[at * between + ch * plane];
    }
  }
}

/* ---- the pass ---- */

static void run_phase(struct direct *s, const int64_t phase[3]) {
  viv__conv_plan *p = s->p;
  s->taps = s->pixels = 1;
  for (int i = 0; i < 3; i++) {
    viv__conv_axis_fill(p, i, phase[i], &s->axis[i]);
    s->taps *= s->steady ? 1 : s->axis[i].taps;
    s->pixels *= s->axis[i].count;
  }
  if (s->pixels < 1) return;
  bool whole = s->taps == 1 && s->steady && s->p->w->taps == 1 && one_step(s->p->w);
  int64_t width = s->axis[2].count;
  s->strip = !s->steady ? 0 : whole ? s->pixels : width >= MIN_STRIP ? width : 0;
  list_segments(s);
  if (s->offset) list_offsets(s);
  s->tiles = (s->pixels + VIV__CONV_ROWS - 1) / VIV__CONV_ROWS;
  s->tile_pixels = s->pixels / s->tiles;
  s->longer_tiles = s->pixels % s->tiles;
  int64_t largest = viv__min(CHUNK_TILES, POINTERS / (viv__max(1, s->taps) * VIV__CONV_ROWS));
  /* Pixels are cut first, down to a few tiles; then outputs, which all need the same pointers. */
  int64_t images = p->batch * p->w->groups, wanted = p->c->threads > 1 ? 6 * p->c->threads : 1;
  s->chunk = viv__max(1, viv__min(largest, viv__max(8, s->tiles * images / wanted)));
  s->chunks = (s->tiles + s->chunk - 1) / s->chunk;
  int64_t cols = (p->w->out_group + VIV__CONV_COLS - 1) / VIV__CONV_COLS;
  int64_t parts = viv__min(cols, (wanted + images * s->chunks - 1) / (images * s->chunks));
  s->out_part = (cols + parts - 1) / parts * VIV__CONV_COLS;
  s->out_parts = (p->w->out_group + s->out_part - 1) / s->out_part;
  s->tasks = images * s->chunks * s->out_parts;
  atomic_store_explicit(&s->next, 0, memory_order_relaxed);
  viv__parallel(p->c, viv__min(p->c->threads, s->tasks), 1, worker, s);
}

uint64_t viv__conv_direct(viv__conv_plan *p, bool run) {
  const viv_conv_weight *w = p->w;
  struct direct s = {.p = p};
  uint64_t floats = 0;
  s.padded = wants_padding(p) && !(p->x_last && needs_no_padding(p));
  s.steady = s.padded || needs_no_padding(p);
  int64_t split = (w->in_group + SPLIT_DEPTH - 1) / SPLIT_DEPTH;
  s.segment = viv__conv_take(p, &floats, w->taps * split * (int64_t)sizeof *s.segment);
  for (int i = 0; i < 3; i++) {
    s.axis[i].tap = viv__conv_take(p, &floats, w->kernel[i] * 8);
    if (!s.steady) s.axis[i].index = viv__conv_take(p, &floats, w->kernel[i] * p->out[i] * 8);
  }
  float *zeros = viv__conv_take(p, &floats, w->in_group * 4);
  s.pointer_floats = viv__max(POINTERS, w->taps * VIV__CONV_ROWS) * 2;
  s.buffer_floats = p->out_last ? 0 : CHUNK_PIXELS * VIV__CONV_COLS;
  s.thread_floats = s.pointer_floats + s.buffer_floats;
  s.threads = viv__conv_take(p, &floats, p->c->threads * s.thread_floats * 4);
  s.joins = w->groups == 1 && !w->quads && w->dilation[2] == 1;
  float *copy = NULL;
  if (s.padded) {
    for (int i = 0; i < 3; i++) s.size[i] = padded_size(p, i);
    copy = viv__conv_take(p, &floats, p->batch * s.size[0] * s.size[1] * s.size[2] * w->in * 4);
  } else {
    memcpy(s.size, p->size, sizeof s.size);
    copy = viv__conv_take_turned(p, &floats);
  }
  int64_t run_length = w->in_group * (s.joins ? w->kernel[2] : 1), depth = w->taps * w->in_group;
  int64_t span = s.size[0] * s.size[1] * s.size[2] * w->in;
  if (s.steady && !w->quads && run_length < SHORT_RUN && w->taps > 1 && span <= INT32_MAX)
    s.offset = viv__conv_take(p, &floats, depth * (int64_t)sizeof *s.offset);
  if (!run) return floats;

  memset(zeros, 0, (size_t)w->in_group * sizeof *zeros);
  s.zeros = zeros;
  s.x = copy ? copy : p->a->x;
  if (s.padded) {
    struct pad pad = {p, s.size, copy};
    viv__parallel(p->c, p->batch * s.size[0] * s.size[1], viv__grain(s.size[2] * w->in), pad_rows,
                  &pad);
  } else {
    viv__conv_turn_in(p, copy);
  }
  int64_t phases[3] = {1, 1, 1}, phase[3];
  for (int i = 0; i < 3 && w->transposed; i++) phases[i] = w->stride[i];
  for (phase[0] = 0; phase[0] < phases[0]; phase[0]++)
    for (phase[1] = 0; phase[1] < phases[1]; phase[1]++)
      for (phase[2] = 0; phase[2] < phases[2]; phase[2]++) run_phase(&s, phase);
  return floats;
}
