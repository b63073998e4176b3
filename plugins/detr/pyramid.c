/* The pyramid of Deformable DETR and its descendants: several maps, projected to one width and laid
 * end to end, and the encoder that attends over all of them.
 *
 *   level l < maps:     GN(1x1 convolution of the map)
 *   levels after them:  GN(3x3, stride 2) of the last raw map, then of the level before
 *   position of a cell: sines + level_embed[l]
 *   encoder layer:      x = LN(x + MSDA(x + pos, the cells' centres, x)); x = LN(x + FFN(x)) */
#include <math.h>
#include <string.h>

#include "detr/detr.h"

enum { GROUPS = 32 };

void detr_check_pyramid(nn_config *k, const struct detr_pyramid *y, int64_t d) {
  nn_divides(k, d, GROUPS, "the width and the 32 groups of the norms of input_proj");
  if (y->levels < y->maps && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "config.json",
                        "num_feature_levels is %d, but the backbone gives %d maps", (int)y->levels,
                        (int)y->maps);
}

void detr_load_pyramid(nn_loader *l, const char *prefix, const char *embed, int64_t d,
                       const struct detr_backbone *b, struct detr_pyramid *y) {
  for (int32_t i = 0; i < y->levels; i++) {
    bool extra = i >= y->maps;
    nn_conv_spec c = {.in = b->channels[extra ? 3 : 4 - y->maps + i],
                      .out = (int32_t)d,
                      .kernel = extra ? 3 : 1,
                      .stride = extra ? 2 : 1,
                      .pad = extra,
                      .bias = true};
    if (i > y->maps) c.in = (int32_t)d;
    size_t outer = nn_in(l, "%sinput_proj.%d.", prefix, (int)i);
    nn_load_conv(l, "0", &c, &y->conv[i]);
    nn_load_norm(l, "1", d, 1e-5f, &y->norm[i]);
    nn_out(l, outer);
  }
  int64_t shape[2] = {y->levels, d};
  nn_load_tensor(l, embed, y->levels > 1, 2, shape, &y->embed);
}

/* Rows of a level's map into x [batch, S, d], or out of it. */
static void lay(const struct detr_levels *lv, int32_t level, int64_t d, const float *map,
                float *x) {
  int64_t cells = lv->start[level + 1] - lv->start[level], all = lv->start[lv->n];
  for (int64_t b = 0; b < lv->batch; b++)
    memcpy(x + (b * all + lv->start[level]) * d, map + b * cells * d,
           (size_t)(cells * d) * sizeof *x);
}

struct detr_scene detr_apply_pyramid(nn_pass *p, const struct detr_pyramid *y,
                                     const struct detr_backbone *b, nn_sine sine,
                                     const struct detr_batch *batch) {
  const viv_compute *c = nn_compute_of(p);
  struct detr_scene s = {.lv = {.batch = batch->n, .n = y->levels}};
  struct detr_levels *lv = &s.lv;
  int64_t d = y->conv[0].out;
  uint32_t stages = 0;
  nn_map maps[5], level[DETR_MAX_LEVELS];
  for (int32_t i = 0; i < y->maps; i++) stages |= 1u << (5 - y->maps + i);
  detr_apply_backbone(p, b, batch, stages, maps);
  for (int32_t i = 0; i < y->levels; i++) {
    const nn_map *from = i < y->maps    ? &maps[5 - y->maps + i]
                         : i == y->maps ? &maps[4]
                                        : &level[i - 1];
    level[i] = nn_apply_conv(p, &y->conv[i], 0, from);
    c->group_norm(c, level[i].x, y->norm[i].w, y->norm[i].b, y->norm[i].eps, GROUPS, level[i].batch,
                  d, nn_space(&level[i]), VIV_CHANNELS_LAST, level[i].x);
    detr_tap_map(p, &level[i], "input_proj.%d", (int)i);
    lv->shape[2 * i] = level[i].size[0];
    lv->shape[2 * i + 1] = level[i].size[1];
  }
  detr_set_levels(p, lv, batch);
  s.cells = lv->start[lv->n];
  s.d = d;
  s.x = nn_room(p, lv->batch * s.cells * d);
  s.position = nn_room(p, lv->batch * s.cells * d);
  for (int32_t i = 0; i < y->levels; i++) {
    nn_mark mark = nn_here(p);
    nn_map position = level[i];
    position.x = detr_sine_tokens(p, lv, i, sine);
    detr_tap_map(p, &position, "pos.%d", (int)i);
    for (int64_t r = 0; y->embed && r < lv->batch * nn_space(&position); r++)
      c->add(c, position.x + r * d, y->embed + i * d, d);
    lay(lv, i, d, level[i].x, s.x);
    lay(lv, i, d, position.x, s.position);
    nn_release(p, mark);
  }
  return s;
}

/* ---- the encoder ---- */

void detr_load_deform_layer(nn_loader *l, bool official, int64_t d, int64_t ff, int32_t heads,
                            int32_t levels, int32_t points, int32_t act,
                            struct detr_deform_layer *w) {
  detr_load_msda(l, "self_attn", d, heads, levels, points, &w->attention);
  nn_load_norm(l, official ? "norm1" : "self_attn_layer_norm", d, 1e-5f, &w->norm);
  if (official)
    detr_load_official_ffn(l, "", "norm2", d, ff, act, &w->ffn);
  else
    detr_load_ffn(l, d, ff, act, &w->ffn);
}

void detr_apply_deform_encoder(nn_pass *p, const struct detr_deform_layer *layers, int32_t n,
                               bool blank_padding, struct detr_scene *s) {
  int64_t rows = s->lv.batch * s->cells, all = rows * s->d;
  nn_mark begin = nn_here(p);
  const float *centres = detr_cell_centres(p, &s->lv);
  for (int32_t i = 0; i < n; i++) {
    nn_mark mark = nn_here(p);
    nn_pass_poll(p);
    float *y = detr_sum(p, s->x, all, s->position, all);
    detr_apply_msda(p, &layers[i].attention, &s->lv, y, s->cells, centres, 2, s->x, y);
    detr_add_norm(p, &layers[i].norm, y, rows, s->x);
    detr_apply_ffn(p, &layers[i].ffn, rows, s->x);
    if (nn_taps(p, "encoder.layers.%d", (int)i)) {
      memcpy(y, s->x, (size_t)all * sizeof *y);
      for (int64_t r = 0; blank_padding && s->lv.padding && r < rows; r++)
        if (s->lv.padding[r]) memset(y + r * s->d, 0, (size_t)s->d * sizeof *y);
      nn_tap(p, y, NN_DIMS(s->lv.batch, s->cells, s->d), "encoder.layers.%d", (int)i);
    }
    nn_release(p, mark);
  }
  nn_release(p, begin);
}
