/* DAC and SNAC: a convolutional network with Snake activations on both sides of residual code books
 * that look up by cosine in a small projection.
 *
 *   encoder  conv k7 -> for each stride: units (dilation 1, 3, 9), Snake, conv k 2s stride s
 *            -> DAC: Snake, conv k3; SNAC: local attention, if any, depthwise conv k7
 *   unit     x + conv1(Snake(conv7(Snake(x))))
 *   decoder  conv k7 -> for each stride: Snake, transposed conv k 2s stride s, SNAC's noise, units
 *            -> Snake, conv k7, tanh
 *
 * SNAC quantizes at several frame rates: level i sees the mean of vq_strides[i] steps and gives its
 * row to all of them. Official: dac/model/dac.py, dac/nn/quantize.py; snac/layers.py, snac/vq.py;
 * transformers' modeling_dac.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

/* ---- config.json ---- */

static void read_rates(nn_config *k, const char *key, const int32_t *fallback, int32_t n,
                       int32_t *rates, int32_t *count) {
  *count = nn_ints(k, key, rates, CODEC_MAX_RATIOS, 1, 256);
  if (*count) return;
  for (int32_t i = 0; i < n; i++) rates[i] = fallback[i];
  *count = n;
}

static int64_t common_multiple(int64_t a, int64_t b) {
  int64_t x = a, y = b;
  while (y) {
    int64_t rest = x % y;
    x = y;
    y = rest;
  }
  return a / x * b;
}

int64_t dac_group(const struct codec_model *m) {
  const struct dac_model *e = m->dac;
  return e->snac ? common_multiple(e->vq_strides[0], e->window ? e->window : 1) : 1;
}

int64_t dac_whole(const struct codec_model *m) {
  return m->hop * dac_group(m);
}

void dac_config(nn_config *k, struct codec_model *m, const viv_model_source *source) {
  static const int32_t usual[4] = {2, 4, 8, 8};
  struct dac_model *e = m->dac;
  int32_t turned[CODEC_MAX_RATIOS];
  e->snac = m->kind == CODEC_SNAC;
  e->original = m->original = e->snac || nn_key(k, "encoder_dim") != NULL ||
                              nn_has(k->host, source, "decoder.model.0.bias");
  bool own = e->original;
  m->rate = nn_int(k, own && !e->snac ? "sample_rate" : "sampling_rate", 44100, 1000, 768000);
  m->channels = 1;
  e->width = (int32_t)nn_int(k, own ? "encoder_dim" : "encoder_hidden_size", 64, 1, 1 << 12);
  read_rates(k, own ? "encoder_rates" : "downsampling_ratios", usual, 4, e->rates, &e->n_blocks);
  for (int32_t i = 0; i < e->n_blocks; i++) turned[i] = e->rates[e->n_blocks - 1 - i];
  read_rates(k, own ? "decoder_rates" : "upsampling_ratios", turned, e->n_blocks, e->up_rates,
             &e->n_up);
  e->up_width = (int32_t)nn_int(k, own ? "decoder_dim" : "decoder_hidden_size", 1536,
                                (int64_t)1 << e->n_up, 1 << 16);
  e->latent = (int32_t)nn_int(k, own ? "latent_dim" : "hidden_size",
                              (int64_t)e->width << e->n_blocks, 1, 1 << 18);
  m->entries = nn_int(k, "codebook_size", e->snac ? 4096 : 1024, 2, 1 << 20);
  e->book_dim = nn_int(k, "codebook_dim", 8, 1, 1 << 12);
  m->hop = 1;
  for (int32_t i = 0; i < e->n_blocks; i++) m->hop *= e->rates[i];
  for (int32_t i = 0; i < CODEC_MAX_BOOKS; i++) e->vq_strides[i] = 1;
  if (e->snac) {
    e->window = (int32_t)nn_int(k, "attn_window_size", 0, 1, 4096);
    e->depthwise = nn_flag(k, "depthwise", true);
    e->noise = nn_flag(k, "noise", true);
    m->levels = nn_ints(k, "vq_strides", e->vq_strides, CODEC_MAX_BOOKS, 1, 256);
    if (!m->levels) {
      memcpy(e->vq_strides, (const int32_t[]){8, 4, 2, 1}, 4 * sizeof(int32_t));
      m->levels = 4;
    }
    for (int32_t i = 0; i < m->levels; i++)
      nn_divides(k, e->vq_strides[0], e->vq_strides[i], "vq_strides");
    if (!k->status && e->latent != e->width << e->n_blocks)
      k->status =
          nn_fail(k->error, VIV_BAD_INPUT, k->where, "latent_dim is %d, the encoder gives %d",
                  (int)e->latent, (int)(e->width << e->n_blocks));
  } else {
    m->levels = (int32_t)nn_int(k, "n_codebooks", 9, 1, CODEC_MAX_BOOKS);
  }
  m->used = m->levels;
  if (!k->status && e->window) {
    nn_divides(k, e->latent, 64, "the width of the encoder's attention and its heads of 64");
    nn_divides(k, e->up_width, 64, "decoder_dim and the attention's heads of 64");
  }
}

/* ---- weights ---- */

static void load_unit(nn_loader *l, const struct dac_model *e, int32_t d, int32_t dilation,
                      struct dac_unit *u) {
  const int64_t shape[1] = {d};
  bool own = e->original;
  nn_load_tensor(l, own ? "block.0.alpha" : "snake1.alpha", true, 1, shape, &u->alpha1);
  nn_load_tensor(l, own ? "block.2.alpha" : "snake2.alpha", true, 1, shape, &u->alpha2);
  nn_conv_spec wide = {.in = d,
                       .out = d,
                       .kernel = 7,
                       .dilation = dilation,
                       .pad = 3 * dilation,
                       .bias = true,
                       .groups = e->depthwise ? d : 1};
  codec_load_conv(l, own ? "block.1" : "conv1", wide, &u->conv1);
  codec_load_conv(l, own ? "block.3" : "conv2",
                  (nn_conv_spec){.in = d, .out = d, .kernel = 1, .bias = true}, &u->conv2);
}

/* A block with its units: before the convolution on the way down, behind it on the way up. */
static void load_block(nn_loader *l, const struct dac_model *e, bool up, int32_t in, int32_t out,
                       int32_t stride, struct dac_block *b) {
  static const int32_t dilation[3] = {1, 3, 9};
  const int64_t shape[1] = {in};
  bool own = e->original;
  char name[32];
  int32_t first = up ? (e->noise ? 3 : 2) : 0;
  for (int32_t i = 0; i < 3; i++) {
    size_t outer =
        own ? nn_in(l, "block.%d.", (int)(first + i)) : nn_in(l, "res_unit%d.", (int)i + 1);
    load_unit(l, e, up ? out : in, dilation[i], &b->unit[i]);
    nn_out(l, outer);
  }
  snprintf(name, sizeof name, own ? (up ? "block.0.alpha" : "block.3.alpha") : "snake1.alpha");
  nn_load_tensor(l, name, true, 1, shape, &b->alpha);
  nn_conv_spec spec = {.in = in,
                       .out = out,
                       .kernel = 2 * stride,
                       .stride = stride,
                       .pad = (stride + 1) / 2,
                       .bias = true,
                       .transposed = up,
                       .output_pad = up && e->snac ? stride % 2 : 0};
  codec_load_conv(l, own ? (up ? "block.1" : "block.4") : (up ? "conv_t1" : "conv1"), spec,
                  &b->conv);
  if (up && e->noise)
    codec_load_conv(l, "block.2.linear", (nn_conv_spec){.in = out, .out = out, .kernel = 1},
                    &b->noise);
}

static void load_attention(nn_loader *l, int32_t d, struct dac_attention *a) {
  const int64_t shape[1] = {32};
  nn_load_norm(l, "norm", d, 1e-5f, &a->norm);
  nn_load_linear(l, "to_qkv", 3 * (int64_t)d, d, false, &a->qkv);
  nn_load_linear(l, "to_out", d, d, false, &a->out);
  nn_load_tensor(l, "rel_pos.inv_freq", true, 1, shape, &a->inv_freq);
  if (l->pass == NN_PREPARE) a->heads = d / 64;
}

static void load_encoder(nn_loader *l, struct dac_model *e) {
  bool own = e->original;
  size_t outer = nn_in(l, "encoder.");
  int32_t d = e->width, at = 0;
  char name[32];
  codec_load_conv(l, own ? "block.0" : "conv1",
                  (nn_conv_spec){.in = 1, .out = d, .kernel = 7, .pad = 3, .bias = true},
                  &e->first);
  for (; at < e->n_blocks; at++, d *= 2) {
    size_t inner = own ? nn_in(l, "block.%d.", (int)at + 1) : nn_in(l, "block.%d.", (int)at);
    load_block(l, e, false, d, 2 * d, e->rates[at], &e->down[at]);
    nn_out(l, inner);
  }
  at++;
  if (!e->snac) {
    const int64_t shape[1] = {d};
    snprintf(name, sizeof name, own ? "block.%d.alpha" : "snake1.alpha", (int)at);
    nn_load_tensor(l, name, true, 1, shape, &e->alpha);
    at++;
  } else if (e->window) {
    size_t inner = nn_in(l, "block.%d.", (int)at++);
    load_attention(l, d, &e->attention);
    nn_out(l, inner);
  }
  nn_conv_spec last = {.in = d, .out = e->latent, .kernel = 3, .pad = 1, .bias = true};
  if (e->snac) {
    last.kernel = 7;
    last.pad = 3;
    last.groups = e->depthwise ? d : 1;
  }
  snprintf(name, sizeof name, own ? "block.%d" : "conv2", (int)at);
  codec_load_conv(l, name, last, &e->last);
  nn_out(l, outer);
}

static void load_decoder(nn_loader *l, struct dac_model *e) {
  bool own = e->original;
  size_t outer = nn_in(l, own ? "decoder.model." : "decoder.");
  int32_t d = e->up_width, at = 1;
  char name[32];
  nn_conv_spec first = {.in = e->latent, .out = d, .kernel = 7, .pad = 3, .bias = true};
  if (e->depthwise) {
    first.out = first.groups = e->latent;
    codec_load_conv(l, "1", (nn_conv_spec){.in = e->latent, .out = d, .kernel = 1, .bias = true},
                    &e->up_second);
    at++;
  }
  codec_load_conv(l, own ? "0" : "conv1", first, &e->up_first);
  if (e->window) {
    size_t inner = nn_in(l, "%d.", (int)at++);
    load_attention(l, d, &e->up_attention);
    nn_out(l, inner);
  }
  for (int32_t i = 0; i < e->n_up; i++, d /= 2) {
    size_t inner = own ? nn_in(l, "%d.", (int)at + i) : nn_in(l, "block.%d.", (int)i);
    load_block(l, e, true, d, d / 2, e->up_rates[i], &e->up[i]);
    nn_out(l, inner);
  }
  at += e->n_up;
  const int64_t shape[1] = {d};
  snprintf(name, sizeof name, own ? "%d.alpha" : "snake1.alpha", (int)at);
  nn_load_tensor(l, name, true, 1, shape, &e->up_alpha);
  snprintf(name, sizeof name, own ? "%d" : "conv2", (int)at + 1);
  codec_load_conv(l, name, (nn_conv_spec){.in = d, .out = 1, .kernel = 7, .pad = 3, .bias = true},
                  &e->up_last);
  nn_out(l, outer);
}

static void load_books(nn_loader *l, struct codec_model *m) {
  struct dac_model *e = m->dac;
  const int64_t shape[2] = {m->entries, e->book_dim};
  int32_t d = (int32_t)e->book_dim;
  for (int32_t i = 0; i < m->levels; i++) {
    struct dac_book *b = &e->books[i];
    size_t outer = nn_in(l, "quantizer.quantizers.%d.", (int)i);
    codec_load_conv(l, "in_proj",
                    (nn_conv_spec){.in = e->latent, .out = d, .kernel = 1, .bias = true}, &b->in);
    codec_load_conv(l, "out_proj",
                    (nn_conv_spec){.in = d, .out = e->latent, .kernel = 1, .bias = true}, &b->out);
    nn_load_tensor(l, "codebook.weight", true, 2, shape, &b->book);
    nn_out(l, outer);
    uint64_t bytes = (uint64_t)(shape[0] * shape[1]) * sizeof(float);
    l->bytes += bytes + 64;
    if (l->pass != NN_PREPARE || l->status) continue;
    b->unit = l->host->arena_alloc(l->source->arena, bytes);
    if (!b->unit)
      l->status = nn_fail(l->error, VIV_NOT_NOW, "codebook", "no memory for a code book");
    else
      nn_unit_rows(b->book, shape[0], shape[1], 1e-12, b->unit);
  }
}

void dac_tables(nn_loader *l, struct codec_model *m) {
  m->encode_floats = m->decode_floats = 0;
  load_encoder(l, m->dac);
  load_books(l, m);
  load_decoder(l, m->dac);
}

/* ---- the network ---- */

static void tap_map(nn_pass *p, const nn_map *x, const char *name) {
  nn_tap(p, x->x, NN_DIMS(x->batch, x->channels, x->size[0]), "%s", name);
}

static void tap_numbered(nn_pass *p, const nn_map *x, const char *form, int32_t number) {
  char name[64];
  snprintf(name, sizeof name, "%s.%d", form, (int)number);
  tap_map(p, x, name);
}

static nn_map snake(nn_pass *p, const float *alpha, const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_new_map(p, x->batch, x->channels, 1, x->size, VIV_CHANNELS_FIRST);
  c->snake(c, x->x, alpha, x->batch, x->channels, x->size[0], y.x);
  return y;
}

/* In place. */
static void unit(nn_pass *p, const struct dac_unit *u, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  nn_pass_poll(p);
  nn_map h = snake(p, u->alpha1, x);
  h = nn_apply_conv(p, &u->conv1, 0, &h);
  c->snake(c, h.x, u->alpha2, h.batch, h.channels, h.size[0], h.x);
  nn_conv_to(p, &u->conv2, 0, x->x, &h, x);
  nn_release(p, mark);
}

/* SNAC's local attention: windows of `window` steps on their own, rotary positions from 0 in each. */
static void attend(nn_pass *p, const struct dac_attention *a, int32_t window, nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = x->size[0], d = x->channels, rows = x->batch * n;
  if (n % window)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "%lld steps are no whole number of windows of %d",
            (long long)n, (int)window);
  nn_mark mark = nn_here(p);
  nn_map last = nn_to_layout(p, x, VIV_CHANNELS_LAST);
  float *h = nn_room(p, rows * d), *o = nn_room(p, rows * d), *table = nn_room(p, rows * 64);
  int32_t *pos = nn_bytes(p, rows, sizeof *pos);
  for (int64_t i = 0; i < rows; i++) pos[i] = (int32_t)(i % window);
  nn_layer_norm(p, &a->norm, last.x, rows, h);
  float *qkv = nn_apply_linear(p, &a->qkv, 0, h, rows);
  c->rope_table(c, pos, rows, a->inv_freq, 32, 1.0f, table);
  c->rope_apply(c, qkv, 3 * d, rows, a->heads, 64, table, 32, 0);
  c->rope_apply(c, qkv + d, 3 * d, rows, a->heads, 64, table, 32, 0);
  nn_attention q = {.batch = rows / window,
                    .nq = window,
                    .nk = window,
                    .heads = a->heads,
                    .dim = 64,
                    .q = qkv,
                    .k = qkv + d,
                    .v = qkv + 2 * d,
                    .q_stride = 3 * d,
                    .k_stride = 3 * d,
                    .v_stride = 3 * d};
  nn_attend(p, &q, o);
  nn_linear_to(p, &a->out, 0, last.x, o, rows, h);
  const int64_t shape[3] = {x->batch, n, d};
  const int32_t perm[3] = {0, 2, 1};
  c->permute(c, h, 3, shape, perm, x->x);
  nn_release(p, mark);
}

static nn_map encode_latents(nn_pass *p, const struct dac_model *e, const nn_map *x) {
  const char *form = "encoder.block";
  nn_map y = nn_apply_conv(p, &e->first, 0, x);
  int32_t at = e->original;
  tap_map(p, &y, e->original ? "encoder.block.0" : "encoder.conv1");
  for (int32_t i = 0; i < e->n_blocks; i++) {
    const struct dac_block *b = &e->down[i];
    for (int32_t u = 0; u < 3; u++) unit(p, &b->unit[u], &y);
    nn_map s = snake(p, b->alpha, &y);
    y = nn_apply_conv(p, &b->conv, 0, &s);
    tap_numbered(p, &y, form, at++);
  }
  if (e->snac && e->window) {
    attend(p, &e->attention, e->window, &y);
    tap_numbered(p, &y, form, at++);
  } else if (!e->snac) {
    y = snake(p, e->alpha, &y);
    if (e->original) tap_numbered(p, &y, form, at++);
  }
  y = nn_apply_conv(p, &e->last, 0, &y);
  if (e->original) tap_numbered(p, &y, form, at);
  tap_map(p, &y, "encoder");
  return y;
}

/* y [batch, d, n] += scale by row of W n, noise [batch, 1, n]: SNAC's NoiseBlock. */
static void add_noise(nn_pass *p, const nn_conv *linear, const float *noise, nn_map *y) {
  nn_mark mark = nn_here(p);
  nn_map h = nn_apply_conv(p, linear, 0, y);
  int64_t n = y->size[0];
  for (int64_t b = 0; b < y->batch; b++)
    for (int64_t ch = 0; ch < y->channels; ch++) {
      int64_t at = (b * y->channels + ch) * n;
      for (int64_t t = 0; t < n; t++) y->x[at + t] += noise[b * n + t] * h.x[at + t];
    }
  nn_release(p, mark);
}

/* Normal numbers from a counter, the same on every machine; a stream asks for them by their place. */
static float normal_at(uint64_t seed, uint64_t place) {
  uint64_t z = seed * 0x9e3779b97f4a7c15u + place * 0xd1342543de82ef95u;
  double u[2];
  for (int i = 0; i < 2; i++) {
    z += 0x9e3779b97f4a7c15u;
    uint64_t v = z;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    u[i] = ((double)((v ^ v >> 31) >> 11) + 0.5) * 0x1p-53;
  }
  return (float)(sqrt(-2 * log(u[0])) * cos(2 * 3.14159265358979323846 * u[1]));
}

/* from: place of the first step in the stream. */
static const float *noise_of(nn_pass *p, int32_t block, const nn_map *y, int64_t from) {
  int64_t n = y->size[0], shape[3] = {y->batch, 1, n};
  char name[24];
  snprintf(name, sizeof name, "noise.%d", (int)block);
  const float *given = nn_some_floats(p, name, 3, shape);
  double scale = nn_param_num(p, "noise_scale", 1, 0, 100);
  if (given) return given;
  if (scale <= 0) return NULL;
  uint64_t seed = (uint64_t)nn_param_int(p, "seed", 0, 0, INT64_MAX / 2) * 64 + (uint64_t)block;
  float *noise = nn_room(p, y->batch * n);
  for (int64_t i = 0; i < y->batch * n; i++)
    noise[i] = (float)scale * normal_at(seed + (uint64_t)(i / n) * 8191, (uint64_t)(from + i % n));
  return noise;
}

/* from: the frame of the stream with which z begins. */
static nn_map decode_latents(nn_pass *p, const struct dac_model *e, const nn_map *z, int64_t from) {
  const char *form = e->original ? "decoder.model" : "decoder.block";
  const viv_compute *c = nn_compute_of(p);
  nn_map y = nn_apply_conv(p, &e->up_first, 0, z);
  int32_t at = 0;
  tap_map(p, &y, e->original ? "decoder.model.0" : "decoder.conv1");
  if (e->original) at++;
  if (e->depthwise) {
    y = nn_apply_conv(p, &e->up_second, 0, &y);
    tap_numbered(p, &y, form, at++);
  }
  if (e->window) {
    attend(p, &e->up_attention, e->window, &y);
    tap_numbered(p, &y, form, at++);
  }
  for (int32_t i = 0; i < e->n_up; i++) {
    const struct dac_block *b = &e->up[i];
    nn_map s = snake(p, b->alpha, &y);
    y = nn_apply_conv(p, &b->conv, 0, &s);
    from *= e->up_rates[i];
    const float *noise = e->noise ? noise_of(p, i, &y, from) : NULL;
    if (noise) add_noise(p, &b->noise, noise, &y);
    for (int32_t u = 0; u < 3; u++) unit(p, &b->unit[u], &y);
    tap_numbered(p, &y, form, at++);
  }
  y = snake(p, e->up_alpha, &y);
  if (e->original) tap_numbered(p, &y, form, at++);
  y = nn_apply_conv(p, &e->up_last, 0, &y);
  if (e->original) tap_numbered(p, &y, form, at);
  c->unary(c, VIV_TANH, y.x, y.x, nn_elements(&y));
  return y;
}

/* ---- code books ---- */

/* Rows of the book that the codes [n] name, through out_proj: [1, latent, n]. */
static nn_map rows_of(nn_pass *p, const struct dac_model *e, const struct dac_book *b,
                      const int64_t *codes, int64_t n) {
  int32_t size[1] = {(int32_t)n};
  nn_map v = nn_new_map(p, 1, (int32_t)e->book_dim, 1, size, VIV_CHANNELS_LAST);
  for (int64_t i = 0; i < n; i++)
    memcpy(v.x + i * e->book_dim, b->book + codes[i] * e->book_dim,
           (size_t)e->book_dim * sizeof *v.x);
  nn_map y = nn_conv_shape(p, &b->out, &v, VIV_CHANNELS_FIRST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &b->out, 0, NULL, &v, &y);
  return y;
}

/* The mean of every `stride` steps. */
static nn_map pooled(nn_pass *p, const nn_map *x, int32_t stride) {
  if (stride == 1) return *x;
  int32_t n = x->size[0] / stride, size[1] = {n};
  nn_map y = nn_new_map(p, x->batch, x->channels, 1, size, VIV_CHANNELS_FIRST);
  for (int64_t i = 0; i < (int64_t)x->channels * n; i++) {
    const float *from = x->x + i / n * x->size[0] + i % n * stride;
    float sum = 0;
    for (int32_t j = 0; j < stride; j++) sum += from[j];
    y.x[i] = sum / (float)stride;
  }
  return y;
}

/* One row of the batch: z [1, latent, n] is used up, sum becomes what the codes stand for. codes of
 * level i: [n / stride]. latents of level i, or NULL. */
static void quantize(nn_pass *p, const struct codec_model *m, nn_map *z, int32_t levels,
                     int64_t *const *codes, float *const *latents, float *sum) {
  const struct dac_model *e = m->dac;
  const viv_compute *c = nn_compute_of(p);
  int64_t d = e->book_dim, all = nn_elements(z);
  memset(sum, 0, (size_t)all * sizeof *sum);
  for (int32_t q = 0; q < levels; q++) {
    const struct dac_book *b = &e->books[q];
    int32_t stride = e->vq_strides[q];
    nn_mark mark = nn_here(p);
    nn_map few = pooled(p, z, stride);
    int64_t n = few.size[0];
    nn_map h = nn_conv_shape(p, &b->in, &few, VIV_CHANNELS_LAST);
    h.x = nn_room(p, nn_elements(&h));
    nn_conv_to(p, &b->in, 0, NULL, &few, &h);
    const int64_t shape[2] = {n, d};
    const int32_t perm[2] = {1, 0};
    if (latents) c->permute(c, h.x, 2, shape, perm, latents[q]);
    nn_unit_rows(h.x, n, d, 1e-12, h.x);
    int32_t *chosen = nn_bytes(p, n, sizeof *chosen);
    float *scratch = nn_room(p, (int64_t)nn_nearest_scratch(m->entries, d));
    nn_nearest(c, b->unit, m->entries, d, h.x, n, chosen, scratch);
    for (int64_t i = 0; i < n; i++) codes[q][i] = chosen[i];
    nn_map v = rows_of(p, e, b, codes[q], n);
    for (int64_t i = 0; i < all; i++) {
      float step = v.x[i / z->size[0] * n + i % z->size[0] / stride];
      z->x[i] -= step;
      sum[i] += step;
    }
    nn_release(p, mark);
  }
}

/* ---- tasks ---- */

/* The sound, filled up with zeros to a multiple of `whole`. */
static nn_map input_of(nn_pass *p, const float *x, int64_t rows, int64_t n, int64_t whole) {
  int64_t want = (n + whole - 1) / whole * whole;
  if (want > INT32_MAX / 2)
    nn_stop(p, VIV_BAD_INPUT, "audio", "%lld samples at once are too many", (long long)n);
  int32_t size[1] = {(int32_t)want};
  nn_map y = nn_new_map(p, (int32_t)rows, 1, 1, size, VIV_CHANNELS_FIRST);
  memset(y.x, 0, (size_t)(rows * want) * sizeof *y.x);
  for (int64_t r = 0; r < rows; r++) memcpy(y.x + r * want, x + r * n, (size_t)n * sizeof *x);
  return y;
}

static nn_map row_of(const nn_map *x, int64_t row) {
  nn_map y = *x;
  y.batch = 1;
  y.x += row * nn_elements(&y);
  return y;
}

int32_t dac_encode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  int64_t rows = 0, n = 0;
  bool from_audio = false;
  int32_t levels = codec_levels(p);
  const float *x = codec_sound(p, &rows, &n, &from_audio);
  nn_map in = input_of(p, x, rows, n, from_audio ? m->hop : 1);
  nn_map z = encode_latents(p, e, &in);
  int64_t t = z.size[0], d = e->book_dim;
  int64_t *codes = nn_bytes(p, rows * levels * t, sizeof *codes), *line[CODEC_MAX_BOOKS];
  float *latents = nn_room(p, rows * levels * d * t), *of_level[CODEC_MAX_BOOKS];
  float *sum = nn_room(p, nn_elements(&z));
  for (int64_t r = 0; r < rows; r++) {
    for (int32_t q = 0; q < levels; q++) {
      line[q] = codes + (r * levels + q) * t;
      of_level[q] = latents + (r * levels + q) * d * t;
    }
    nn_map one = row_of(&z, r);
    quantize(p, m, &one, levels, line, of_level, sum + r * nn_elements(&one));
  }
  nn_result(p, VIV_I64, codes, NN_DIMS(rows, levels, t), "audio_codes");
  if (nn_wants_result(p, "quantized_representation"))
    nn_result(p, VIV_F32, sum, NN_DIMS(rows, e->latent, t), "quantized_representation");
  if (nn_wants_result(p, "projected_latents"))
    nn_result(p, VIV_F32, latents, NN_DIMS(rows, levels * d, t), "projected_latents");
  return VIV_DONE;
}

int32_t snac_encode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  int64_t rows = 0, n = 0;
  bool from_audio = false;
  int32_t levels = codec_levels(p);
  const float *x = codec_sound(p, &rows, &n, &from_audio);
  nn_map in = input_of(p, x, rows, n, dac_whole(m));
  nn_map z = encode_latents(p, e, &in);
  int64_t t = z.size[0], d = e->book_dim, *codes[CODEC_MAX_BOOKS], *line[CODEC_MAX_BOOKS];
  float *latents[CODEC_MAX_BOOKS], *of_level[CODEC_MAX_BOOKS], *sum = nn_room(p, nn_elements(&z));
  for (int32_t q = 0; q < levels; q++) {
    codes[q] = nn_bytes(p, rows * t / e->vq_strides[q], sizeof *codes[q]);
    latents[q] = nn_room(p, rows * d * t / e->vq_strides[q]);
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int32_t q = 0; q < levels; q++) {
      line[q] = codes[q] + r * t / e->vq_strides[q];
      of_level[q] = latents[q] + r * d * t / e->vq_strides[q];
    }
    nn_map one = row_of(&z, r);
    quantize(p, m, &one, levels, line, of_level, sum);
  }
  for (int32_t q = 0; q < levels; q++) {
    int64_t few = t / e->vq_strides[q];
    nn_result(p, VIV_I64, codes[q], NN_DIMS(rows, few), "audio_codes.%d", (int)q);
    nn_tap(p, latents[q], NN_DIMS(rows, d, few), "latents.%d", (int)q);
  }
  return VIV_DONE;
}

static void send_sound(nn_pass *p, const nn_map *y) {
  nn_result(p, VIV_F32, y->x, NN_DIMS(y->batch, 1, y->size[0]), "audio_values");
}

int32_t dac_decode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  const viv_compute *c = nn_compute_of(p);
  int64_t shape[3] = {0, 0, 0};
  const int64_t *codes = nn_need_ints(p, "audio_codes", 3, shape);
  int64_t rows = shape[0], n = shape[2];
  if (rows < 1 || shape[1] < 1 || n < 1) nn_stop(p, VIV_BAD_INPUT, "audio_codes", "holds no codes");
  if (shape[1] > m->levels)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "has %lld lines, the model %d code books",
            (long long)shape[1], (int)m->levels);
  if (n > INT32_MAX / m->hop / 2)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "%lld frames at once are too many", (long long)n);
  codec_check(p, "audio_codes", codes, rows * shape[1] * n, m->entries);
  int32_t size[1] = {(int32_t)n};
  nn_map z = nn_new_map(p, (int32_t)rows, e->latent, 1, size, VIV_CHANNELS_FIRST);
  memset(z.x, 0, (size_t)nn_elements(&z) * sizeof *z.x);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t q = 0; q < shape[1]; q++) {
      nn_mark mark = nn_here(p);
      nn_map v = rows_of(p, e, &e->books[q], codes + (r * shape[1] + q) * n, n);
      c->add(c, z.x + r * e->latent * n, v.x, e->latent * n);
      nn_release(p, mark);
    }
  nn_map y = decode_latents(p, e, &z, 0);
  send_sound(p, &y);
  return VIV_DONE;
}

/* The levels that were given, audio_codes.N, must tell of the same time. */
int32_t snac_decode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  int64_t rows = 0, n = 0;
  char name[32] = "audio_codes.0";
  nn_map z = {0};
  nn_need(p, name);
  for (int32_t q = 0; q < m->levels && nn_input(p, name); q++) {
    int64_t shape[2] = {rows, q ? n / e->vq_strides[q] : 0};
    const int64_t *codes = nn_need_ints(p, name, 2, shape);
    if (!q) {
      rows = shape[0];
      n = shape[1] * e->vq_strides[0];
      if (rows < 1 || n < 1 || n > INT32_MAX / m->hop / 2)
        nn_stop(p, VIV_BAD_INPUT, name, "holds %lld codes", (long long)shape[1]);
      int32_t size[1] = {(int32_t)n};
      z = nn_new_map(p, (int32_t)rows, e->latent, 1, size, VIV_CHANNELS_FIRST);
      memset(z.x, 0, (size_t)nn_elements(&z) * sizeof *z.x);
    }
    codec_check(p, name, codes, rows * shape[1], m->entries);
    nn_mark mark = nn_here(p);
    for (int64_t r = 0; r < rows; r++) {
      nn_map v = rows_of(p, e, &e->books[q], codes + r * shape[1], shape[1]);
      float *to = z.x + r * e->latent * n;
      for (int64_t i = 0; i < e->latent * n; i++)
        to[i] += v.x[i / n * shape[1] + i % n / e->vq_strides[q]];
    }
    nn_release(p, mark);
    snprintf(name, sizeof name, "audio_codes.%d", (int)q + 1);
  }
  tap_map(p, &z, "z_q");
  nn_map y = decode_latents(p, e, &z, 0);
  send_sound(p, &y);
  return VIV_DONE;
}

/* ---- blocks of a stream ---- */

enum { UNIT_REACH = 3 * (1 + 3 + 9) }; /* of a block's three units */

int64_t dac_encode_reach(const struct codec_model *m) {
  const struct dac_model *e = m->dac;
  int64_t reach = 3, scale = 1, whole = dac_whole(m);
  for (int32_t i = 0; i < e->n_blocks; i++) {
    reach += (UNIT_REACH + 2 * e->rates[i]) * scale;
    scale *= e->rates[i];
  }
  reach += (3 + e->window) * scale;
  return (reach + whole - 1) / whole * whole;
}

int64_t dac_decode_reach(const struct codec_model *m) {
  const struct dac_model *e = m->dac;
  int64_t group = dac_group(m), scale = 1;
  double reach = 3 + e->window;
  for (int32_t i = 0; i < e->n_up; i++) {
    reach += 2.0 / (double)scale;
    scale *= e->up_rates[i];
    reach += (double)UNIT_REACH / (double)scale;
  }
  reach += 3.0 / (double)scale;
  return ((int64_t)ceil(reach) + group - 1) / group * group;
}

int64_t dac_block(const struct codec_model *m, int64_t reach) {
  int64_t whole = dac_whole(m), n = m->rate * 2 > 4 * reach ? m->rate * 2 : 4 * reach;
  return (n + whole - 1) / whole * whole;
}

/* Steps [begin, begin + n) of a map. */
static nn_map steps_of(nn_pass *p, const nn_map *x, int64_t begin, int64_t n) {
  int32_t size[1] = {(int32_t)n};
  nn_map y = nn_new_map(p, x->batch, x->channels, 1, size, VIV_CHANNELS_FIRST);
  for (int64_t i = 0; i < (int64_t)x->batch * x->channels; i++)
    memcpy(y.x + i * n, x->x + i * x->size[0] + begin, (size_t)n * sizeof *y.x);
  return y;
}

void dac_encode_part(nn_pass *p, const float *x, int64_t n, int64_t left, int64_t body,
                     int32_t levels) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  nn_map in = input_of(p, x, 1, n, 1);
  nn_map all = encode_latents(p, e, &in), z = steps_of(p, &all, left, body);
  int64_t *codes = nn_bytes(p, levels * body, sizeof *codes);
  int64_t *line[CODEC_MAX_BOOKS] = {0};
  float *sum = nn_room(p, nn_elements(&z));
  for (int32_t q = 0; q < levels; q++) line[q] = codes + q * body;
  quantize(p, m, &z, levels, line, NULL, sum);
  int64_t group = dac_group(m), each = 0, at = 0;
  for (int32_t q = 0; q < levels; q++) each += group / e->vq_strides[q];
  int32_t *out = nn_bytes(p, body / group * each, sizeof *out);
  for (int64_t g = 0; g < body / group; g++)
    for (int32_t q = 0; q < levels; q++)
      for (int64_t i = 0, some = group / e->vq_strides[q]; i < some; i++)
        out[at++] = (int32_t)line[q][g * some + i];
  nn_result(p, VIV_I32, out, NN_DIMS(body / group, each), "codes");
}

void dac_decode_part(nn_pass *p, const int32_t *codes, int64_t groups, int64_t left, int64_t body,
                     int64_t place, int32_t levels) {
  const struct codec_model *m = nn_net_of(p);
  const struct dac_model *e = m->dac;
  int64_t group = dac_group(m), n = groups * group, each = 0, before = 0;
  int32_t size[1] = {(int32_t)n};
  nn_map z = nn_new_map(p, 1, e->latent, 1, size, VIV_CHANNELS_FIRST);
  memset(z.x, 0, (size_t)nn_elements(&z) * sizeof *z.x);
  for (int32_t q = 0; q < levels; q++) each += group / e->vq_strides[q];
  for (int32_t q = 0; q < levels; q++) {
    int64_t some = group / e->vq_strides[q], few = groups * some;
    nn_mark mark = nn_here(p);
    int64_t *line = nn_bytes(p, few, sizeof *line);
    for (int64_t i = 0; i < few; i++) line[i] = codes[i / some * each + before + i % some];
    codec_check(p, "codes", line, few, m->entries);
    nn_map v = rows_of(p, e, &e->books[q], line, few);
    for (int64_t i = 0; i < e->latent * n; i++)
      z.x[i] += v.x[i / n * few + i % n / e->vq_strides[q]];
    nn_release(p, mark);
    before += some;
  }
  nn_map y = decode_latents(p, e, &z, place);
  int64_t begin = left * m->hop, have = y.size[0] - begin;
  nn_map part = steps_of(p, &y, begin, body < 0 ? have : body * m->hop);
  send_sound(p, &part);
}
