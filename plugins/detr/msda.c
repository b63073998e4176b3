/* Levels of a pyramid, and multi-scale deformable attention over them:
 *
 *   V = Wv memory, rows of padded cells 0                          [B, S, M, D]
 *   o = Wo query                                                   [B, Q, M, L, P, 2]: x, y
 *   a = softmax over the L P values of a head of Wa query          [B, Q, M, L, P]
 *   location = reference_l + o / (width_l, height_l)               reference: a point
 *   location = reference_l.xy + o / P * reference_l.wh * scale     reference: a box
 *   y = Wout(sum over L, P of a bilinear(V_l, location))           [B, Q, d]
 *
 * Official: fundamentalvision/Deformable-DETR, models/ops/modules/ms_deform_attn.py. */
#include <math.h>
#include <string.h>

#include "detr/detr.h"

/* ---- levels ---- */

/* Nearest sampling as torch's interpolate does it: the scale in f32. */
static int32_t nearest(int32_t at, int32_t in, int32_t out) {
  float scale = (float)in / (float)out;
  int32_t from = (int32_t)floorf((float)at * scale);
  return from < in ? from : in - 1;
}

static void level_padding(const struct detr_levels *lv, int32_t level, const uint8_t *picture,
                          int32_t height, int32_t width, uint8_t *out) {
  int32_t h = lv->shape[2 * level], w = lv->shape[2 * level + 1];
  for (int32_t i = 0; i < h; i++) {
    const uint8_t *row = picture + (int64_t)nearest(i, height, h) * width;
    for (int32_t j = 0; j < w; j++) out[i * w + j] = row[nearest(j, width, w)] != 0;
  }
}

/* Unpadded share of the first row and the first column: x, y. */
static void level_ratio(const uint8_t *padding, int32_t h, int32_t w, float out[2]) {
  int32_t rows = 0, columns = 0;
  for (int32_t i = 0; i < h; i++) rows += !padding[i * w];
  for (int32_t j = 0; j < w; j++) columns += !padding[j];
  out[0] = (float)columns / (float)w;
  out[1] = (float)rows / (float)h;
}

void detr_set_levels(nn_pass *p, struct detr_levels *lv, const struct detr_batch *batch) {
  lv->start[0] = 0;
  for (int32_t l = 0; l < lv->n; l++)
    lv->start[l + 1] = lv->start[l] + (int64_t)lv->shape[2 * l] * lv->shape[2 * l + 1];
  lv->padding = NULL;
  lv->ratios = NULL;
  if (!batch->padding) return;
  int64_t cells = lv->start[lv->n], pixels = (int64_t)batch->height * batch->width;
  uint8_t *padding = nn_bytes(p, lv->batch * cells, 1);
  float *ratios = nn_room(p, (int64_t)lv->batch * lv->n * 2);
  for (int32_t b = 0; b < lv->batch; b++)
    for (int32_t l = 0; l < lv->n; l++) {
      uint8_t *at = padding + b * cells + lv->start[l];
      level_padding(lv, l, batch->padding + b * pixels, batch->height, batch->width, at);
      level_ratio(at, lv->shape[2 * l], lv->shape[2 * l + 1], ratios + (b * lv->n + l) * 2);
    }
  lv->padding = padding;
  lv->ratios = ratios;
}

float *detr_cell_centres(nn_pass *p, const struct detr_levels *lv) {
  int64_t cells = lv->start[lv->n];
  float *out = nn_room(p, lv->batch * cells * 2), *at = out; /* [B, S, 2] */
  for (int32_t b = 0; b < lv->batch; b++)
    for (int32_t l = 0; l < lv->n; l++) {
      const float *ratio = lv->ratios ? lv->ratios + (b * lv->n + l) * 2 : NULL;
      float h = (float)lv->shape[2 * l], w = (float)lv->shape[2 * l + 1];
      for (int32_t i = 0; i < lv->shape[2 * l]; i++)
        for (int32_t j = 0; j < lv->shape[2 * l + 1]; j++, at += 2) {
          at[0] = ((float)j + 0.5f) / (ratio ? ratio[0] * w : w);
          at[1] = ((float)i + 0.5f) / (ratio ? ratio[1] * h : h);
        }
    }
  return out;
}

/* ---- loading ---- */

void detr_load_msda(nn_loader *l, const char *name, int64_t d, int32_t heads, int32_t levels,
                    int32_t points, struct detr_msda *m) {
  int64_t samples = (int64_t)heads * levels * points;
  size_t outer = nn_in(l, "%s.", name);
  nn_load_linear(l, "sampling_offsets", 2 * samples, d, true, &m->offsets);
  nn_load_linear(l, "attention_weights", samples, d, true, &m->weights);
  nn_load_linear(l, "value_proj", d, d, true, &m->value);
  nn_load_linear(l, "output_proj", d, d, true, &m->output);
  nn_out(l, outer);
  if (l->pass != NN_PREPARE) return;
  m->heads = heads;
  m->levels = levels;
  m->points = points;
}

/* ---- the pass ---- */

struct places {
  const struct detr_msda *m;
  const struct detr_levels *lv;
  const float *reference; /* [batch, nq, coordinates] */
  float *offsets;         /* [batch, nq, heads, levels, points, 2]: become locations */
  int64_t nq;
  int32_t coordinates;
};

/* Offsets to locations, for queries [begin, end) of all pictures. */
static void place(void *ctx, int64_t begin, int64_t end) {
  const struct places *s = ctx;
  const struct detr_msda *m = s->m;
  float scale = m->offset_scale > 0 ? m->offset_scale : 0.5f;
  int64_t per_query = (int64_t)m->heads * m->levels * m->points * 2;
  for (int64_t q = begin; q < end; q++) {
    const float *r = s->reference + q * s->coordinates;
    float *o = s->offsets + q * per_query;
    for (int32_t h = 0; h < m->heads; h++)
      for (int32_t l = 0; l < m->levels; l++) {
        const float one[2] = {1, 1};
        const float *ratio = s->lv->ratios ? s->lv->ratios + (q / s->nq * m->levels + l) * 2 : one;
        float x = r[0] * ratio[0], y = r[1] * ratio[1];
        float step_x = 1.0f / (float)s->lv->shape[2 * l + 1];
        float step_y = 1.0f / (float)s->lv->shape[2 * l];
        if (s->coordinates == 4) {
          step_x = r[2] * ratio[0] * scale / (float)m->points;
          step_y = r[3] * ratio[1] * scale / (float)m->points;
        }
        for (int32_t i = 0; i < m->points; i++, o += 2) {
          o[0] = x + o[0] * step_x;
          o[1] = y + o[1] * step_y;
        }
      }
  }
}

struct singles {
  const struct places *places;
  const float *value, *weights;
  float *out;
  int32_t head_dim;
};

static int32_t cell_of(float at, int32_t n) {
  float cell = truncf(at * (float)n + 0.5f);
  return cell < 0 ? 0 : cell > (float)(n - 1) ? n - 1 : (int32_t)cell;
}

/* RT-DETR v2, "discrete": one cell a sample instead of four. */
static void sample_cells(void *ctx, int64_t begin, int64_t end) {
  const struct singles *s = ctx;
  const struct detr_msda *m = s->places->m;
  const struct detr_levels *lv = s->places->lv;
  int64_t samples = (int64_t)m->levels * m->points, dim = s->head_dim, d = m->heads * dim;
  for (int64_t i = begin; i < end; i++) { /* a head of a query */
    int64_t h = i % m->heads, b = i / m->heads / s->places->nq;
    const float *at = s->places->offsets + i * samples * 2, *a = s->weights + i * samples;
    float *out = s->out + i * dim;
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int64_t k = 0; k < samples; k++) {
      int64_t l = k / m->points;
      int32_t x = cell_of(at[2 * k], lv->shape[2 * l + 1]);
      int32_t y = cell_of(at[2 * k + 1], lv->shape[2 * l]);
      int64_t cell = b * lv->start[lv->n] + lv->start[l] + (int64_t)y * lv->shape[2 * l + 1] + x;
      const float *v = s->value + cell * d + h * dim;
      for (int64_t j = 0; j < dim; j++) out[j] += a[k] * v[j];
    }
  }
}

void detr_apply_msda(nn_pass *p, const struct detr_msda *m, const struct detr_levels *lv,
                     const float *query, int64_t nq, const float *reference, int32_t coordinates,
                     const float *memory, float *out) {
  const viv_compute *c = nn_compute_of(p);
  int64_t cells = lv->start[lv->n], rows = lv->batch * nq, d = m->value.out;
  nn_mark mark = nn_here(p);
  float *value = nn_apply_linear(p, &m->value, 0, memory, lv->batch * cells); /* [B, S, d] */
  for (int64_t i = 0; lv->padding && i < lv->batch * cells; i++)
    if (lv->padding[i]) memset(value + i * d, 0, (size_t)d * sizeof *value);
  struct places s = {.m = m,
                     .lv = lv,
                     .reference = reference,
                     .offsets = nn_apply_linear(p, &m->offsets, 0, query, rows),
                     .nq = nq,
                     .coordinates = coordinates};
  float *weights = nn_apply_linear(p, &m->weights, 0, query, rows); /* [B, Q, M, L, P] */
  c->softmax(c, weights, rows * m->heads, (int64_t)m->levels * m->points, weights);
  c->parallel_for(c, rows, 64, place, &s);
  float *sum = nn_room(p, rows * d);
  if (m->nearest) {
    struct singles one = {&s, value, weights, sum, (int32_t)(d / m->heads)};
    c->parallel_for(c, rows * m->heads, 64, sample_cells, &one);
  } else {
    viv_deform a = {.struct_size = sizeof a,
                    .batch = lv->batch,
                    .queries = (int32_t)nq,
                    .heads = m->heads,
                    .head_dim = (int32_t)(d / m->heads),
                    .levels = m->levels,
                    .points = m->points,
                    .shapes = lv->shape,
                    .values = cells,
                    .value = value,
                    .locations = s.offsets,
                    .weights = weights,
                    .out = sum};
    c->deform(c, &a);
  }
  nn_linear_to(p, &m->output, 0, NULL, sum, rows, out);
  nn_release(p, mark);
}
