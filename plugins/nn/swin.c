/* Swin transformer: names, loading, the pass. */
#include "nn/swin.h"

#include <stdio.h>
#include <string.h>

/* ---- configuration ---- */

bool nn_swin_named(viv_str name, nn_swin_spec *spec) {
  static const struct {
    const char *name;
    int32_t embed, third, window, heads;
  } known[] = {{"swin_T_224_1k", 96, 6, 7, 3},    {"swin_S_224_1k", 96, 18, 7, 3},
               {"swin_B_224_22k", 128, 18, 7, 4}, {"swin_B_384_22k", 128, 18, 12, 4},
               {"swin_L_224_22k", 192, 18, 7, 6}, {"swin_L_384_22k", 192, 18, 12, 6}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (!nn_is(name, known[i].name)) continue;
    spec->embed = known[i].embed;
    spec->window = known[i].window;
    spec->stages = 4;
    for (int32_t s = 0; s < 4; s++) {
      spec->depths[s] = s == 2 ? known[i].third : 2;
      spec->heads[s] = known[i].heads << s;
    }
    return true;
  }
  return false;
}

/* ---- loading ---- */

static void load_block(nn_loader *l, const nn_swin_spec *s, int64_t d, int32_t heads,
                       nn_swin_block *w) {
  bool own = s->names == NN_SWIN_TRANSFORMERS, bias = !s->no_qkv_bias;
  int64_t span = 2 * s->window - 1, table[2] = {span * span, heads};
  int64_t ff = (int64_t)((s->mlp_ratio > 0 ? s->mlp_ratio : 4.0f) * (float)d);
  float eps = s->eps > 0 ? s->eps : 1e-5f;
  nn_load_norm(l, own ? "layernorm_before" : "norm1", d, eps, &w->before);
  size_t outer = nn_in(l, "%s", own ? "attention.self." : "attn.");
  nn_load_tensor(l, "relative_position_bias_table", true, 2, table, &w->table);
  if (own) {
    nn_load_linear(l, "query", d, d, bias, &w->q);
    nn_load_linear(l, "key", d, d, bias, &w->k);
    nn_load_linear(l, "value", d, d, bias, &w->v);
  } else {
    nn_linear *part[] = {&w->q, &w->k, &w->v};
    for (int64_t i = 0; i < 3; i++)
      nn_load_rows(l, "qkv.weight", bias ? "qkv.bias" : NULL, i * d, d, 3 * d, d, part[i]);
    nn_load_linear(l, "proj", d, d, true, &w->o);
  }
  nn_out(l, outer);
  if (own) nn_load_linear(l, "attention.output.dense", d, d, true, &w->o);
  nn_load_norm(l, own ? "layernorm_after" : "norm2", d, eps, &w->after);
  nn_load_linear(l, own ? "intermediate.dense" : "mlp.fc1", ff, d, true, &w->up);
  nn_load_linear(l, own ? "output.dense" : "mlp.fc2", d, ff, true, &w->down);
}

void nn_load_swin(nn_loader *l, const nn_swin_spec *s, nn_swin *net) {
  bool own = s->names == NN_SWIN_TRANSFORMERS;
  float eps = s->eps > 0 ? s->eps : 1e-5f;
  int32_t patch = s->patch ? s->patch : 4, n = 0;
  nn_conv_spec c = {.in = s->in_channels ? s->in_channels : 3,
                    .out = s->embed,
                    .kernel = patch,
                    .stride = patch,
                    .bias = true};
  nn_load_conv(l, own ? "embeddings.patch_embeddings.projection" : "patch_embed.proj", &c,
               &net->patches);
  nn_load_norm(l, own ? "embeddings.norm" : "patch_embed.norm", s->embed, eps, &net->patch_norm);
  for (int32_t stage = 0; stage < s->stages; stage++) {
    int64_t d = (int64_t)s->embed << stage;
    size_t outer = nn_in(l, "%slayers.%d.", own ? "encoder." : "", (int)stage);
    for (int32_t i = 0; i < s->depths[stage] && n < NN_SWIN_BLOCKS; i++, n++) {
      size_t inside = nn_in(l, "blocks.%d.", (int)i);
      load_block(l, s, d, s->heads[stage], &net->block[n]);
      nn_out(l, inside);
    }
    if (stage + 1 < s->stages) {
      nn_load_norm(l, "downsample.norm", 4 * d, eps, &net->merge_norm[stage]);
      nn_load_linear(l, "downsample.reduction", 2 * d, 4 * d, false, &net->merge[stage]);
    }
    nn_out(l, outer);
    char name[40];
    snprintf(name, sizeof name, "norm%d", (int)stage);
    if (own) snprintf(name, sizeof name, "hidden_states_norms.stage%d", (int)stage + 1);
    if (s->norms >> (stage + 1) & 1) nn_load_norm(l, name, d, eps, &net->out_norm[stage]);
  }
  nn_ignore(l, "*relative_position_index");
  nn_ignore(l, "*attn_mask");
  if (l->pass == NN_PREPARE) net->spec = *s;
}

/* ---- windows ---- */

/* A map cut into windows: padded height and width, and how far it rolls before. Windows are ordered
 * by kind: those in the middle, in the last column, in the last row, in the corner, because the
 * last ones hold cells from both ends of a shifted map and mask each other. */
struct windows {
  int32_t batch, height, width; /* of the map */
  int32_t side, shift, rows, columns;
  int64_t d;
};

static int32_t kind_first(const struct windows *w, int32_t kind) {
  int32_t r = w->rows - 1, c = w->columns - 1;
  return kind == 0 ? 0 : kind == 1 ? r * c : kind == 2 ? r * c + r : r * c + r + c;
}

/* The place of window (row, column) among the windows of all pictures, and its kind. */
static int64_t place_of(const struct windows *w, int32_t b, int32_t row, int32_t column) {
  bool bottom = row == w->rows - 1, right = column == w->columns - 1;
  int32_t kind = 2 * bottom + right;
  int32_t per[4] = {(w->rows - 1) * (w->columns - 1), w->rows - 1, w->columns - 1, 1};
  int32_t at = kind == 0 ? row * (w->columns - 1) + column : kind == 1 ? row : column;
  if (kind == 3) at = 0;
  return (int64_t)w->batch * kind_first(w, kind) + (int64_t)b * per[kind] + at;
}

struct moving {
  const struct windows *w;
  float *map, *cut; /* [batch, height, width, d], [windows, side^2, d] */
  bool back;        /* map += cut */
};

/* Rows of the cut map; what lies outside the map is zeros going out, and is dropped coming back. */
static void move_rows(void *ctx, int64_t begin, int64_t end) {
  const struct moving *m = ctx;
  const struct windows *w = m->w;
  int32_t high = w->rows * w->side, wide = w->columns * w->side;
  for (int64_t at = begin; at < end; at++) { /* a row of a padded, rolled picture */
    int32_t b = (int32_t)(at / high), i = (int32_t)(at % high), from = (i + w->shift) % high;
    for (int32_t j = 0; j < wide; j++) {
      int32_t column = (j + w->shift) % wide;
      int64_t cell = (int64_t)(i % w->side) * w->side + j % w->side;
      int64_t window = place_of(w, b, i / w->side, j / w->side);
      float *cut = m->cut + (window * w->side * w->side + cell) * w->d;
      bool inside = from < w->height && column < w->width;
      float *map = m->map + (((int64_t)b * w->height + from) * w->width + column) * w->d;
      if (m->back && inside)
        for (int64_t k = 0; k < w->d; k++) map[k] += cut[k];
      else if (!m->back && inside)
        memcpy(cut, map, (size_t)w->d * sizeof *cut);
      else if (!m->back)
        memset(cut, 0, (size_t)w->d * sizeof *cut);
    }
  }
}

/* bias [heads, n, n] of a kind of window: the relative table, and -100 between cells that a roll
 * has brought together from the two ends of an axis. */
static void kind_bias(const struct windows *w, const float *table, int32_t heads, int32_t kind,
                      float *bias) {
  int32_t side = w->side, n = side * side, edge = side - w->shift;
  for (int32_t q = 0; q < n; q++)
    for (int32_t k = 0; k < n; k++) {
      int32_t dy = q / side - k / side + side - 1, dx = q % side - k % side + side - 1;
      bool apart = w->shift && kind & 2 && (q / side >= edge) != (k / side >= edge);
      apart = apart || (w->shift && kind & 1 && (q % side >= edge) != (k % side >= edge));
      const float *row = table + (int64_t)(dy * (2 * side - 1) + dx) * heads;
      for (int32_t h = 0; h < heads; h++)
        bias[((int64_t)h * n + q) * n + k] = row[h] - (apart ? 100.0f : 0.0f);
    }
}

/* x += proj(attention in windows of norm(x)) */
static void attend(nn_pass *p, const nn_swin_block *b, int32_t heads, const struct windows *w,
                   float *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  int64_t n = (int64_t)w->side * w->side, count = (int64_t)w->batch * w->rows * w->columns;
  int64_t rows = count * n, cells = (int64_t)w->batch * w->height * w->width;
  float *normed = nn_room(p, cells * w->d), *cut = nn_room(p, rows * w->d);
  nn_layer_norm(p, &b->before, x, cells, normed);
  struct moving m = {w, normed, cut, false};
  c->parallel_for(c, (int64_t)w->batch * w->rows * w->side, 4, move_rows, &m);
  float *q = nn_apply_linear(p, &b->q, 0, cut, rows); /* [windows, n, heads, dim] */
  float *k = nn_apply_linear(p, &b->k, 0, cut, rows);
  float *v = nn_apply_linear(p, &b->v, 0, cut, rows);
  float *out = nn_room(p, rows * w->d), *bias = nn_room(p, heads * n * n);
  for (int32_t kind = 0; kind < 4; kind++) {
    int64_t first = (int64_t)w->batch * kind_first(w, kind);
    int64_t next = kind < 3 ? (int64_t)w->batch * kind_first(w, kind + 1) : count;
    if (first == next) continue;
    kind_bias(w, b->table, heads, kind, bias);
    nn_attention a = {.batch = next - first,
                      .nq = n,
                      .nk = n,
                      .heads = heads,
                      .dim = (int32_t)(w->d / heads),
                      .q = q + first * n * w->d,
                      .k = k + first * n * w->d,
                      .v = v + first * n * w->d,
                      .bias = bias,
                      .bias_per_head = true};
    nn_attend(p, &a, out + first * n * w->d);
  }
  nn_linear_to(p, &b->o, 0, NULL, out, rows, cut);
  m = (struct moving){w, x, cut, true};
  c->parallel_for(c, (int64_t)w->batch * w->rows * w->side, 4, move_rows, &m);
  nn_release(p, mark);
}

static void run_block(nn_pass *p, const nn_swin *net, const nn_swin_block *b, int32_t heads,
                      bool shifted, nn_map *x) {
  const nn_swin_spec *s = &net->spec;
  int32_t small = x->size[0] < x->size[1] ? x->size[0] : x->size[1];
  struct windows w = {.batch = x->batch,
                      .height = x->size[0],
                      .width = x->size[1],
                      .side = s->window,
                      .shift = shifted ? s->window / 2 : 0,
                      .rows = (x->size[0] + s->window - 1) / s->window,
                      .columns = (x->size[1] + s->window - 1) / s->window,
                      .d = x->channels};
  if (s->still_when_small && small <= s->window) w.shift = 0;
  attend(p, b, heads, &w, x->x);
  nn_mark mark = nn_here(p);
  int64_t cells = x->batch * nn_space(x);
  float *y = nn_room(p, cells * w.d);
  nn_layer_norm(p, &b->after, x->x, cells, y);
  float *inner = nn_apply_linear(p, &b->up, s->act ? s->act : VIV_GELU, y, cells);
  nn_linear_to(p, &b->down, 0, x->x, inner, cells, x->x);
  nn_release(p, mark);
}

/* ---- patches ---- */

/* Zeros to the right and below, so that the size is a multiple of the patch. */
static nn_map padded(nn_pass *p, const nn_map *x, int32_t patch) {
  int32_t size[2];
  for (int i = 0; i < 2; i++) size[i] = (x->size[i] + patch - 1) / patch * patch;
  if (size[0] == x->size[0] && size[1] == x->size[1]) return *x;
  nn_map y = nn_new_map(p, x->batch, x->channels, 2, size, VIV_CHANNELS_FIRST);
  memset(y.x, 0, (size_t)nn_elements(&y) * sizeof *y.x);
  for (int64_t r = 0; r < (int64_t)x->batch * x->channels * x->size[0]; r++) {
    int64_t plane = r / x->size[0], row = r % x->size[0];
    memcpy(y.x + (plane * size[0] + row) * size[1], x->x + r * x->size[1],
           (size_t)x->size[1] * sizeof *x->x);
  }
  return y;
}

/* Four cells side by side: (even row, even column), (odd, even), (even, odd), (odd, odd). */
static nn_map merge(nn_pass *p, const nn_norm *norm, const nn_linear *reduction, const nn_map *x) {
  int32_t size[2] = {(x->size[0] + 1) / 2, (x->size[1] + 1) / 2};
  int64_t d = x->channels, cells = (int64_t)size[0] * size[1] * x->batch;
  nn_map y = nn_new_map(p, x->batch, 2 * x->channels, 2, size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  float *four = nn_room(p, cells * 4 * d), *to = four;
  for (int64_t cell = 0; cell < cells; cell++)
    for (int32_t part = 0; part < 4; part++, to += d) {
      int64_t b = cell / ((int64_t)size[0] * size[1]);
      int64_t i = cell / size[1] % size[0] * 2 + part % 2, j = cell % size[1] * 2 + part / 2;
      if (i < x->size[0] && j < x->size[1])
        memcpy(to, x->x + ((b * x->size[0] + i) * x->size[1] + j) * d, (size_t)d * sizeof *to);
      else
        memset(to, 0, (size_t)d * sizeof *to);
    }
  nn_layer_norm(p, norm, four, cells, four);
  nn_linear_to(p, reduction, 0, NULL, four, cells, y.x);
  nn_release(p, mark);
  return y;
}

/* ---- the pass ---- */

static void hand_out(nn_pass *p, const nn_swin *net, int32_t stage, const nn_map *x, nn_map *out) {
  *out = *x;
  out->x = nn_room(p, nn_elements(x));
  if (net->spec.norms >> (stage + 1) & 1)
    nn_layer_norm(p, &net->out_norm[stage], x->x, x->batch * nn_space(x), out->x);
  else
    memcpy(out->x, x->x, (size_t)nn_elements(x) * sizeof *x->x);
}

void nn_apply_swin(nn_pass *p, const nn_swin *net, const nn_map *pixels, uint32_t wanted,
                   nn_map maps[NN_SWIN_STAGES + 1]) {
  const nn_swin_spec *s = &net->spec;
  nn_map whole = padded(p, pixels, net->patches.kernel[0]);
  nn_map x = nn_conv_shape(p, &net->patches, &whole, VIV_CHANNELS_LAST);
  x.x = nn_room(p, nn_elements(&x));
  nn_conv_to(p, &net->patches, 0, NULL, &whole, &x);
  nn_layer_norm(p, &net->patch_norm, x.x, x.batch * nn_space(&x), x.x);
  nn_tap(p, x.x, NN_DIMS(x.batch, nn_space(&x), x.channels), "embeddings");
  const nn_swin_block *block = net->block;
  int32_t last = 0;
  for (int32_t stage = 0; stage < s->stages; stage++)
    if (wanted >> (stage + 1)) last = stage;
  for (int32_t stage = 0; stage <= last; stage++) {
    for (int32_t i = 0; i < s->depths[stage]; i++, block++) {
      nn_pass_poll(p);
      run_block(p, net, block, s->heads[stage], i % 2, &x);
      nn_tap(p, x.x, NN_DIMS(x.batch, nn_space(&x), x.channels), "stage.%d.block.%d", (int)stage,
             (int)i);
    }
    if (wanted >> (stage + 1) & 1) hand_out(p, net, stage, &x, &maps[stage + 1]);
    if (stage == last || stage + 1 == s->stages) break;
    x = merge(p, &net->merge_norm[stage], &net->merge[stage], &x);
    nn_tap(p, x.x, NN_DIMS(x.batch, nn_space(&x), x.channels), "stage.%d.downsample", (int)stage);
  }
}
