/* Small pieces that the variants share. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "detr/detr.h"

float detr_sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

float detr_inverse_sigmoid(float x, float eps) {
  x = x < 0 ? 0 : x > 1 ? 1 : x;
  float a = x > eps ? x : eps, b = 1 - x > eps ? 1 - x : eps;
  return logf(a / b);
}

float *detr_sum(nn_pass *p, const float *x, int64_t n, const float *y, int64_t y_n) {
  const viv_compute *c = nn_compute_of(p);
  float *out = nn_room(p, n);
  memcpy(out, x, (size_t)n * sizeof *out);
  for (int64_t at = 0; at < n; at += y_n) c->add(c, out + at, y, y_n < n - at ? y_n : n - at);
  return out;
}

float *detr_repeat(nn_pass *p, const float *y, int64_t n, int64_t batch) {
  float *out = nn_room(p, n * batch);
  for (int64_t b = 0; b < batch; b++) memcpy(out + b * n, y, (size_t)n * sizeof *out);
  return out;
}

float *detr_rows(nn_pass *p, const viv_weight *w, int64_t rows, int64_t d) {
  const viv_compute *c = nn_compute_of(p);
  float *out = nn_room(p, rows * d);
  nn_mark mark = nn_here(p);
  int32_t *ids = nn_bytes(p, rows, sizeof *ids);
  for (int64_t i = 0; i < rows; i++) ids[i] = (int32_t)i;
  c->gather(c, w, ids, rows, out);
  nn_release(p, mark);
  return out;
}

/* ---- taps ---- */

void detr_tap_map(nn_pass *p, const nn_map *map, const char *format, ...) {
  char name[64];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map first = nn_to_layout(p, map, VIV_CHANNELS_FIRST);
  nn_tap(p, first.x, NN_DIMS(first.batch, first.channels, first.size[0], first.size[1]), "%s",
         name);
  nn_release(p, mark);
}

void detr_tap_ints(nn_pass *p, const int32_t *data, int32_t ndim, const int64_t *shape,
                   const char *name) {
  if (!nn_taps(p, "%s", name)) return;
  int64_t n = 1;
  for (int32_t i = 0; i < ndim; i++) n *= shape[i];
  nn_mark mark = nn_here(p);
  float *as_floats = nn_room(p, n);
  for (int64_t i = 0; i < n; i++) as_floats[i] = (float)data[i];
  nn_tap(p, as_floats, ndim, shape, "%s", name);
  nn_release(p, mark);
}

/* ---- positions ---- */

float *detr_sine_tokens(nn_pass *p, const struct detr_levels *lv, int32_t level, nn_sine s) {
  const viv_compute *c = nn_compute_of(p);
  s.height = lv->shape[2 * level];
  s.width = lv->shape[2 * level + 1];
  int64_t cells = s.height * s.width, d = 2 * s.n;
  float *out = nn_room(p, lv->batch * cells * d); /* [B, cells, d] */
  nn_mark mark = nn_here(p);
  float *planes = nn_room(p, cells * d); /* [d, cells] */
  for (int32_t b = 0; b < lv->batch; b++) {
    const uint8_t *padding =
        lv->padding ? lv->padding + b * lv->start[lv->n] + lv->start[level] : NULL;
    if (!padding && b) {
      memcpy(out + b * cells * d, out, (size_t)(cells * d) * sizeof *out);
      continue;
    }
    nn_sine_positions(&s, padding, planes);
    int64_t shape[2] = {d, cells};
    int32_t perm[2] = {1, 0};
    c->permute(c, planes, 2, shape, perm, out + b * cells * d);
  }
  nn_release(p, mark);
  return out;
}

/* ---- layers ---- */

void detr_load_attention(nn_loader *l, const char *name, int64_t d, int32_t heads, nn_mha *mha) {
  size_t outer = nn_in(l, "%s.", name);
  /* The newest releases of transformers call the last one o_proj. */
  const char *out = nn_there(l, "o_proj.weight") ? "o_proj" : "out_proj";
  nn_load_linear(l, "q_proj", d, d, true, &mha->q);
  nn_load_linear(l, "k_proj", d, d, true, &mha->k);
  nn_load_linear(l, "v_proj", d, d, true, &mha->v);
  nn_load_linear(l, out, d, d, true, &mha->o);
  nn_out(l, outer);
  if (l->pass == NN_PREPARE) mha->heads = heads;
}

void detr_load_ffn(nn_loader *l, int64_t d, int64_t ff, int32_t act, struct detr_ffn *w) {
  nn_load_linear(l, "fc1", ff, d, true, &w->one);
  nn_load_linear(l, "fc2", d, ff, true, &w->two);
  nn_load_norm(l, "final_layer_norm", d, 1e-5f, &w->norm);
  if (l->pass == NN_PREPARE) w->act = act;
}

void detr_load_official_ffn(nn_loader *l, const char *suffix, const char *norm, int64_t d,
                            int64_t ff, int32_t act, struct detr_ffn *w) {
  char one[40], two[40];
  snprintf(one, sizeof one, "linear1%s", suffix);
  snprintf(two, sizeof two, "linear2%s", suffix);
  nn_load_linear(l, one, ff, d, true, &w->one);
  nn_load_linear(l, two, d, ff, true, &w->two);
  nn_load_norm(l, norm, d, 1e-5f, &w->norm);
  if (l->pass == NN_PREPARE) w->act = act;
}

void detr_load_encoder(nn_loader *l, int64_t d, int32_t heads, int64_t ff, int32_t act,
                       struct detr_encoder_layer *w) {
  detr_load_attention(l, "self_attn", d, heads, &w->attention);
  nn_load_norm(l, "self_attn_layer_norm", d, 1e-5f, &w->norm);
  detr_load_ffn(l, d, ff, act, &w->ffn);
}

const uint8_t *detr_real_cells(nn_pass *p, const struct detr_levels *lv) {
  if (!lv->padding) return NULL;
  int64_t n = lv->batch * lv->start[lv->n];
  uint8_t *real = nn_bytes(p, n, 1);
  for (int64_t i = 0; i < n; i++) real[i] = !lv->padding[i];
  return real;
}

void detr_add_norm(nn_pass *p, const nn_norm *norm, const float *y, int64_t rows, float *x) {
  const viv_compute *c = nn_compute_of(p);
  c->add(c, x, y, rows * norm->d);
  nn_layer_norm(p, norm, x, rows, x);
}

void detr_apply_ffn(nn_pass *p, const struct detr_ffn *w, int64_t rows, float *x) {
  nn_mark mark = nn_here(p);
  float *inner = nn_apply_linear(p, &w->one, w->act, x, rows); /* [rows, ff] */
  nn_linear_to(p, &w->two, 0, x, inner, rows, x);
  nn_layer_norm(p, &w->norm, x, rows, x);
  nn_release(p, mark);
}

void detr_apply_encoder(nn_pass *p, const struct detr_encoder_layer *w, int64_t batch,
                        int64_t cells, const float *position, const uint8_t *real, float *x) {
  int64_t n = batch * cells * w->norm.d;
  nn_mark mark = nn_here(p);
  float *placed = detr_sum(p, x, n, position, n); /* [B, cells, d] */
  float *y = nn_room(p, n);
  nn_apply_mha(p, &w->attention, batch, placed, cells, placed, x, cells, NULL, real, y);
  detr_add_norm(p, &w->norm, y, batch * cells, x);
  nn_release(p, mark);
  detr_apply_ffn(p, &w->ffn, batch * cells, x);
}
