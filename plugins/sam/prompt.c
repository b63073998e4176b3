/* Prompts as tokens and maps.
 *
 *   code(x, y) = [sin v, cos v],  v = 2 pi ((2x - 1) G_0 + (2y - 1) G_1)       [C]
 *   points: code + the label's embedding; boxes: two corners, each with its own
 *   masks:  conv 2x2 stride 2, LN, gelu; the same; conv 1x1                     [g g, C]
 *
 * Official: segment_anything.modeling.prompt_encoder; SamPromptEncoder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sam/sam.h"

/* ---- weights ---- */

static void load_mask_prompt(nn_loader *l, struct sam_model *m) {
  static const char *const meta[] = {"mask_downscaling.0", "mask_downscaling.3",
                                     "mask_downscaling.6", "mask_downscaling.1",
                                     "mask_downscaling.4"};
  static const char *const hf[] = {"mask_embed.conv1", "mask_embed.conv2", "mask_embed.conv3",
                                   "mask_embed.layer_norm1", "mask_embed.layer_norm2"};
  const char *const *name = m->transformers ? hf : meta;
  int32_t few = m->mask_channels / 4, all = m->mask_channels;
  nn_conv_spec spec = {.in = 1, .out = few, .kernel = 2, .stride = 2, .bias = true};
  nn_load_conv(l, name[0], &spec, &m->prompt.mask[0]);
  nn_conv_spec second = {.in = few, .out = all, .kernel = 2, .stride = 2, .bias = true};
  nn_load_conv(l, name[1], &second, &m->prompt.mask[1]);
  nn_conv_spec third = {.in = all, .out = m->width, .kernel = 1, .bias = true};
  nn_load_conv(l, name[2], &third, &m->prompt.mask[2]);
  nn_load_norm(l, name[3], few, m->prompt_eps, &m->prompt.mask_norm[0]);
  nn_load_norm(l, name[4], all, m->prompt_eps, &m->prompt.mask_norm[1]);
}

void sam_prompt_load(nn_loader *l, struct sam_model *m) {
  struct sam_prompt_weights *w = &m->prompt;
  int64_t row[2] = {1, m->width}, code[2] = {2, m->width / 2};
  char name[48];
  nn_at(l, "%s", "");
  if (m->transformers) {
    nn_load_tensor(l, "shared_image_embedding.positional_embedding", true, 2, code, &w->gaussian);
    nn_ignore(l, "prompt_encoder.shared_embedding.positional_embedding"); /* the same once more */
  }
  nn_at(l, "%s", "prompt_encoder.");
  nn_load_tensor(l, "pe_layer.positional_encoding_gaussian_matrix", !m->transformers, 2, code,
                 &w->gaussian);
  if (m->medical_form) { /* it is called without prompts, and what it answers is not used */
    nn_ignore(l, "prompt_encoder.point_embeddings.*");
    nn_ignore(l, "prompt_encoder.not_a_point_embed.*");
    nn_ignore(l, "prompt_encoder.no_mask_embed.*");
    nn_ignore(l, "prompt_encoder.mask_downscaling.*");
    return;
  }
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name,
             m->transformers ? "point_embed.%d.weight" : "point_embeddings.%d.weight", i);
    nn_load_tensor(l, name, true, 2, row, &w->point[i]);
  }
  nn_load_tensor(l, "not_a_point_embed.weight", true, 2, row, &w->not_a_point);
  nn_load_tensor(l, "no_mask_embed.weight", true, 2, row, &w->no_mask);
  load_mask_prompt(l, m);
}

/* ---- points and boxes ---- */

/* x, y in [0, 1] */
static void code(const struct sam_model *m, double x, double y, float *out) {
  int64_t half = m->width / 2;
  const float *g = m->prompt.gaussian;
  for (int64_t i = 0; i < half; i++) {
    double v = 2 * 3.14159265358979323846 *
               ((2 * x - 1) * (double)g[i] + (2 * y - 1) * (double)g[half + i]);
    out[i] = (float)sin(v);
    out[half + i] = (float)cos(v);
  }
}

void sam_dense_positions(const struct sam_model *m, float *out) {
  int32_t g = m->grid;
  for (int32_t y = 0; y < g; y++)
    for (int32_t x = 0; x < g; x++)
      code(m, (x + 0.5) / g, (y + 0.5) / g, out + ((int64_t)y * g + x) * m->width);
}

static void add(float *x, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

/* A coordinate of the resized picture is a pixel's corner; its centre is what the network was shown. */
static void put_place(const struct sam_model *m, const float *xy, float *out) {
  code(m, (double)(xy[0] + 0.5f) / m->side, (double)(xy[1] + 0.5f) / m->side, out);
}

static void put_point(const struct sam_model *m, const float *xy, int64_t label, float *out) {
  const struct sam_prompt_weights *w = &m->prompt;
  size_t bytes = (size_t)m->width * sizeof *out;
  if (label == -1) {
    memcpy(out, w->not_a_point, bytes);
  } else if (label == -10 && m->transformers) {
    memset(out, 0, bytes);
  } else {
    put_place(m, xy, out);
    if (label == 0 || label == 1) add(out, w->point[label], m->width);
  }
}

float *sam_sparse(nn_pass *p, const struct sam_model *m, const struct sam_prompts *in,
                  int64_t *count) {
  static const float nowhere[2] = {0, 0};
  bool padded = in->points && !in->boxes;
  int64_t d = m->width;
  *count = in->points + padded + (in->boxes ? 2 : 0);
  float *out = nn_room(p, in->n * *count * d), *to = out;
  for (int64_t i = 0; i < in->n; i++) {
    for (int64_t k = i * in->points; k < (i + 1) * in->points; k++, to += d)
      put_point(m, in->coords + 2 * k, in->labels[k], to);
    if (padded) {
      put_point(m, nowhere, -1, to);
      to += d;
    }
    for (int64_t k = 0; in->boxes && k < 2; k++, to += d) {
      put_place(m, in->boxes + 4 * i + 2 * k, to);
      add(to, m->prompt.point[2 + k], d);
    }
  }
  return out;
}

/* ---- masks ---- */

float *sam_dense(nn_pass *p, const struct sam_model *m, const struct sam_prompts *in, int64_t *n) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_prompt_weights *w = &m->prompt;
  int64_t cells = (int64_t)m->grid * m->grid;
  *n = in->mask ? in->n_masks : 1;
  float *out = nn_room(p, *n * cells * m->width);
  if (!in->mask) {
    for (int64_t i = 0; i < cells; i++)
      memcpy(out + i * m->width, w->no_mask, (size_t)m->width * sizeof *out);
    return out;
  }
  nn_mark mark = nn_here(p);
  nn_map x = {.x = (float *)(uintptr_t)in->mask, /* read only */
              .batch = (int32_t)*n,
              .channels = 1,
              .dims = 2,
              .size = {4 * m->grid, 4 * m->grid, 1},
              .layout = VIV_CHANNELS_LAST};
  for (int i = 0; i < 2; i++) {
    x = nn_apply_conv(p, &w->mask[i], 0, &x);
    nn_layer_norm(p, &w->mask_norm[i], x.x, nn_space(&x) * x.batch, x.x);
    c->unary(c, m->prompt_act, x.x, x.x, nn_elements(&x));
  }
  x = nn_apply_conv(p, &w->mask[2], 0, &x);
  memcpy(out, x.x, (size_t)nn_elements(&x) * sizeof *out);
  nn_release(p, mark);
  return out;
}
