/* Encoder and decoder layers. */
#include "nn/transformer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Queries that share one table of biases: what bounds the table's memory. */
enum { BIAS_QUERIES = 128 };

/* ---- loading ---- */

static void load_attention(nn_loader *l, const char *name, bool no_key_bias, int64_t d,
                           int32_t heads, nn_mha *a) {
  size_t outer = nn_in(l, "%s.", name);
  nn_load_linear(l, "q_proj", d, d, true, &a->q);
  nn_load_linear(l, "k_proj", d, d, !no_key_bias, &a->k);
  nn_load_linear(l, "v_proj", d, d, true, &a->v);
  nn_load_linear(l, "out_proj", d, d, true, &a->o);
  nn_out(l, outer);
  if (l->pass == NN_PREPARE) a->heads = heads;
}

void nn_load_encoder_layer(nn_loader *l, const nn_layer_names *names, int64_t d, int64_t ff,
                           int32_t heads, float eps, nn_encoder_layer *w) {
  load_attention(l, names->attention, names->no_key_bias, d, heads, &w->attention);
  nn_load_norm(l, names->attention_norm, d, eps, &w->attention_norm);
  if (names->glu) {
    size_t outer = nn_in(l, "%s.linear.", names->fc1);
    nn_load_rows(l, "weight", "bias", 0, ff, 2 * ff, d, &w->fc1);
    nn_load_rows(l, "weight", "bias", ff, ff, 2 * ff, d, &w->gate);
    nn_out(l, outer);
  } else {
    nn_load_linear(l, names->fc1, ff, d, true, &w->fc1);
  }
  nn_load_linear(l, names->fc2, d, ff, true, &w->fc2);
  nn_load_norm(l, names->final_norm, d, eps, &w->final_norm);
}

void nn_load_decoder_layer(nn_loader *l, const nn_layer_names *names, int64_t d, int64_t ff,
                           int32_t heads, float eps, nn_decoder_layer *w) {
  load_attention(l, names->attention, names->no_key_bias, d, heads, &w->attention);
  nn_load_norm(l, names->attention_norm, d, eps, &w->attention_norm);
  load_attention(l, names->cross, names->no_key_bias, d, heads, &w->cross);
  nn_load_norm(l, names->cross_norm, d, eps, &w->cross_norm);
  nn_load_linear(l, names->fc1, ff, d, true, &w->fc1);
  nn_load_linear(l, names->fc2, d, ff, true, &w->fc2);
  nn_load_norm(l, names->final_norm, d, eps, &w->final_norm);
}

/* ---- encoders ---- */

/* Three projections of the same rows: q, k, v [n, d] in room of the pass. One row goes in one dispatch;
 * for more linear_to has a faster way. */
static void project(nn_pass *p, const nn_mha *a, const float *x, int64_t n, float *out[3]) {
  const viv_compute *c = nn_compute_of(p);
  const nn_linear *m[3] = {&a->q, &a->k, &a->v};
  const viv_weight *w[3];
  const float *b[3];
  for (int i = 0; i < 3; i++) {
    out[i] = nn_room(p, n * m[i]->out);
    w[i] = m[i]->w;
    b[i] = m[i]->b;
    if (n > 1) nn_linear_to(p, m[i], 0, NULL, x, n, out[i]);
  }
  if (n <= 1) c->linears(c, 3, w, b, x, out, n);
}

/* out [rows, length, d] of the heads */
static void attend(nn_pass *p, const nn_encoder_layer *w, const nn_encoder_run *r, const float *x,
                   float *out) {
  int64_t t = r->length, d = r->d;
  float *qkv[3];
  project(p, &w->attention, x, r->rows * t, qkv);
  nn_attention a = {.batch = r->rows,
                    .nq = t,
                    .nk = t,
                    .heads = w->attention.heads,
                    .dim = (int32_t)(d / w->attention.heads),
                    .q = qkv[0],
                    .k = qkv[1],
                    .v = qkv[2],
                    .mask = r->mask};
  if (!r->bias) {
    nn_attend(p, &a, out);
    return;
  }
  float *bias = nn_room(p, a.heads * (t < BIAS_QUERIES ? t : BIAS_QUERIES) * t);
  a.batch = 1;
  a.bias = bias;
  a.bias_per_head = true;
  for (int64_t b = 0; b < r->rows; b++)
    for (int64_t at = 0; at < t; at += BIAS_QUERIES) {
      int64_t row = b * t * d;
      a.nq = t - at < BIAS_QUERIES ? t - at : BIAS_QUERIES;
      a.q = qkv[0] + row + at * d;
      a.k = qkv[1] + row;
      a.v = qkv[2] + row;
      a.mask = r->mask ? r->mask + b * t : NULL;
      r->bias(p, r->self, x + row, qkv[0] + row, at, a.nq, bias);
      nn_attend(p, &a, out + row + at * d);
    }
}

/* y [n, d] = fc2(act(fc1 x)) + residual */
static void feed_forward(nn_pass *p, const nn_linear *fc1, const nn_linear *gate,
                         const nn_linear *fc2, int32_t act, const float *residual, const float *x,
                         int64_t n, float *y) {
  const viv_compute *c = nn_compute_of(p);
  float *inner;
  if (gate && gate->w) {
    inner = nn_apply_linear(p, gate, 0, x, n);
    c->gate(c, act, inner, nn_apply_linear(p, fc1, 0, x, n), n * fc1->out);
  } else {
    inner = nn_apply_linear(p, fc1, act, x, n);
  }
  nn_linear_to(p, fc2, 0, residual, inner, n, y);
}

/* x = alpha x + y */
static void rejoin(nn_pass *p, float alpha, float *x, const float *y, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  if (alpha != 1.0f) c->scale_shift(c, x, &alpha, NULL, 1, 1, n, x);
  c->add(c, x, y, n);
}

void nn_encode_layer(nn_pass *p, const nn_encoder_layer *w, const nn_encoder_run *r, float *x) {
  int64_t n = r->rows * r->length, size = n * r->d;
  float alpha = r->alpha != 0.0f && !r->pre_norm ? r->alpha : 1.0f;
  nn_mark mark = nn_here(p);
  float *y = nn_room(p, size), *heads = nn_room(p, size);
  const float *in = x;
  if (r->pre_norm) {
    nn_layer_norm(p, &w->attention_norm, x, n, y);
    in = y;
  }
  attend(p, w, r, in, heads);
  nn_linear_to(p, &w->attention.o, 0, NULL, heads, n, y);
  if (r->tap && nn_taps(p, r->tap, (int)r->layer))
    nn_tap(p, y, NN_DIMS(r->rows, r->length, r->d), r->tap, (int)r->layer);
  rejoin(p, alpha, x, y, size);
  if (r->pre_norm) {
    nn_layer_norm(p, &w->final_norm, x, n, y);
    feed_forward(p, &w->fc1, &w->gate, &w->fc2, r->act, x, y, n, x);
  } else {
    nn_layer_norm(p, &w->attention_norm, x, n, x);
    feed_forward(p, &w->fc1, &w->gate, &w->fc2, r->act, NULL, x, n, y);
    rejoin(p, alpha, x, y, size);
    nn_layer_norm(p, &w->final_norm, x, n, x);
  }
  nn_release(p, mark);
}

/* ---- what a decoder remembers ---- */

nn_cache nn_new_cache(nn_pass *p, int64_t rows, int64_t cap, int64_t width) {
  return (nn_cache){.rows = rows,
                    .cap = cap,
                    .width = width,
                    .k = nn_room(p, rows * cap * width),
                    .v = nn_room(p, rows * cap * width)};
}

void nn_cache_append(nn_cache *c, const float *k, const float *v, int64_t n) {
  size_t bytes = (size_t)(n * c->width) * sizeof(float);
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t at = (r * c->cap + c->len) * c->width;
    memcpy(c->k + at, k + r * n * c->width, bytes);
    memcpy(c->v + at, v + r * n * c->width, bytes);
  }
  c->len += n;
}

void nn_cache_attend(nn_pass *p, const nn_cache *c, int32_t heads, const float *q, int64_t n,
                     bool causal, const uint8_t *mask, float *out) {
  const viv_compute *k = nn_compute_of(p);
  int64_t rows = c->rows * n;
  nn_mark mark = nn_here(p);
  viv_kv *kv = nn_bytes(p, c->rows, sizeof *kv);
  const void **page = nn_bytes(p, 2 * c->rows, sizeof *page);
  const viv_kv **of_row = nn_bytes(p, rows, sizeof *of_row);
  int64_t *visible = nn_bytes(p, rows, sizeof *visible);
  int64_t mask_stride = nn_mask_stride(c->len);
  uint8_t *bits = mask ? nn_bytes(p, rows * mask_stride, 1) : NULL;
  int64_t *begin = mask ? nn_bytes(p, rows, sizeof *begin) : NULL;
  for (int64_t r = 0; r < rows; r++) {
    int64_t row = r / n;
    if (r % n == 0) {
      page[2 * row] = c->k + row * c->cap * c->width;
      page[2 * row + 1] = c->v + row * c->cap * c->width;
      kv[row] = (viv_kv){&page[2 * row], &page[2 * row + 1]};
    }
    of_row[r] = &kv[row];
    visible[r] = causal ? c->len - n + r % n + 1 : c->len;
    if (!mask) continue;
    begin[r] = 0;
    nn_mask_bits(mask + row * c->len, c->len, bits + r * mask_stride);
  }
  viv_attention a = {.struct_size = sizeof a,
                     .kv_dtype = VIV_F32,
                     .rows = (int32_t)rows,
                     .heads = heads,
                     .head_dim = (int32_t)(c->width / heads),
                     .kv_heads = heads,
                     .page_tokens = (int32_t)c->cap,
                     .k_width = (int32_t)c->width,
                     .v_width = (int32_t)c->width,
                     .scale = 1.0f / sqrtf((float)(c->width / heads)),
                     .q = q,
                     .out = out,
                     .kv = of_row,
                     .visible = visible,
                     .mask = bits,
                     .mask_stride = mask_stride,
                     .mask_begin = begin};
  k->attention(k, &a);
  nn_release(p, mark);
}

/* ---- decoders ---- */

nn_decoder_memory nn_new_memory(nn_pass *p, const nn_decoder_layer *w, int64_t rows, int64_t tokens,
                                const float *encoded, int64_t length) {
  nn_decoder_memory m = {.self = nn_new_cache(p, rows, tokens, w->attention.q.out)};
  m.cross = (nn_cache){.rows = rows,
                       .cap = length,
                       .len = length,
                       .width = w->cross.q.out,
                       .k = nn_apply_linear(p, &w->cross.k, 0, encoded, rows * length),
                       .v = nn_apply_linear(p, &w->cross.v, 0, encoded, rows * length)};
  return m;
}

/* x = x + o(heads), then the norm of a post-norm layer. */
static void join(nn_pass *p, const nn_linear *o, const nn_norm *norm, bool pre_norm,
                 const float *heads, int64_t n, float *x) {
  nn_linear_to(p, o, 0, x, heads, n, x);
  if (!pre_norm) nn_layer_norm(p, norm, x, n, x);
}

void nn_decode_layer(nn_pass *p, const nn_decoder_layer *w, const nn_decoder_run *r,
                     nn_decoder_memory *memory, float *x) {
  int64_t n = r->rows * r->n;
  nn_mark mark = nn_here(p);
  float *normed = nn_room(p, n * r->d), *heads = nn_room(p, n * r->d), *qkv[3];
  const float *in = r->pre_norm ? normed : x;
  if (r->pre_norm) nn_layer_norm(p, &w->attention_norm, x, n, normed);
  project(p, &w->attention, in, n, qkv);
  nn_cache_append(&memory->self, qkv[1], qkv[2], r->n);
  nn_cache_attend(p, &memory->self, w->attention.heads, qkv[0], r->n, true, NULL, heads);
  join(p, &w->attention.o, &w->attention_norm, r->pre_norm, heads, n, x);

  if (r->pre_norm) nn_layer_norm(p, &w->cross_norm, x, n, normed);
  float *q = nn_apply_linear(p, &w->cross.q, 0, in, n);
  if (r->cross_queries) memcpy(r->cross_queries, q, (size_t)(n * r->d) * sizeof *q);
  nn_cache_attend(p, &memory->cross, w->cross.heads, q, r->n, false, r->mask, heads);
  join(p, &w->cross.o, &w->cross_norm, r->pre_norm, heads, n, x);

  if (r->pre_norm) nn_layer_norm(p, &w->final_norm, x, n, normed);
  feed_forward(p, &w->fc1, NULL, &w->fc2, r->act, x, in, n, x);
  if (!r->pre_norm) nn_layer_norm(p, &w->final_norm, x, n, x);
  nn_release(p, mark);
}
