/* What the codecs are made of: convolutions that pad as EnCodec does and can go on with a next chunk,
 * residual code books, turned signals. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

const struct codec_names codec_transformers = {"layers", "conv", "conv", "norm", "norm"};
const struct codec_names codec_original = {"model", "conv.conv", "convtr.convtr", "conv.norm",
                                           "convtr.norm"};

void codec_load_conv(nn_loader *l, const char *name, nn_conv_spec spec, nn_conv *conv) {
  char plain[160];
  snprintf(plain, sizeof plain, "%s.weight", name);
  spec.dims = 1;
  spec.weight_norm = !nn_there(l, plain);
  nn_load_conv(l, name, &spec, conv);
}

void codec_place(struct codec_conv *k, int64_t *floats) {
  int64_t reach = (int64_t)(k->kernel - 1) * k->dilation;
  k->history = k->conv.transposed ? reach / k->stride : reach + 1 - k->stride;
  k->at = *floats;
  *floats += k->history * k->conv.in;
}

/* ---- convolutions ---- */

static void call_conv(nn_pass *p, const nn_conv *conv, int32_t act, const float *residual,
                      const struct codec_signal *x, int64_t begin, int64_t end,
                      struct codec_signal *y) {
  const viv_compute *c = nn_compute_of(p);
  viv_conv a = {.struct_size = sizeof a,
                .batch = (int32_t)x->batch,
                .weight = conv->w,
                .size = {(int32_t)x->n, 1, 1},
                .pad_begin = {(int32_t)begin, 0, 0},
                .pad_end = {(int32_t)end, 0, 0},
                .x_layout = VIV_CHANNELS_LAST,
                .out_layout = VIV_CHANNELS_LAST,
                .act = act,
                .act_param = 1,
                .x = x->x,
                .residual = residual,
                .out = y->x};
  nn_mark mark = nn_here(p);
  a.scratch = nn_room(p, (int64_t)c->conv_scratch(c, &a));
  c->conv(c, &a);
  nn_release(p, mark);
}

static void normalise(nn_pass *p, const struct codec_conv *k, const float *residual,
                      struct codec_signal *y) {
  const viv_compute *c = nn_compute_of(p);
  c->group_norm(c, y->x, k->norm.w, k->norm.b, k->norm.eps, 1, y->batch, y->channels, y->n,
                VIV_CHANNELS_LAST, y->x);
  if (residual) c->add(c, y->x, residual, y->batch * y->n * y->channels);
}

static struct codec_signal new_signal(nn_pass *p, int64_t batch, int64_t n, int32_t channels) {
  struct codec_signal y = {NULL, batch, n, channels};
  if (n > INT32_MAX / 2)
    nn_stop(p, VIV_BAD_INPUT, "size", "%lld samples at once are too many", (long long)n);
  y.x = nn_room(p, batch * n * channels);
  return y;
}

/* Rows [begin, end) around the body [n, w] at y, as the pad mode says. length: where a reflection
 * turns, with the zeros that EnCodec appends to a signal shorter than its padding. */
static void pad_rows(float *y, int64_t n, int64_t w, int64_t begin, int64_t end, int64_t length,
                     int32_t mode) {
  for (int64_t i = begin; i < end; i++) {
    int64_t at = -1;
    if (mode == VIV_PAD_REFLECT) {
      at = i < 0 ? -i : i >= length ? 2 * (length - 1) - i : i;
    } else if (mode == VIV_PAD_REPLICATE) {
      at = i < 0 ? 0 : n - 1;
    }
    if (at >= 0 && at < n)
      memmove(y + i * w, y + at * w, (size_t)w * sizeof *y);
    else
      memset(y + i * w, 0, (size_t)w * sizeof *y);
  }
}

static void copy_in(nn_pass *p, bool elu, const float *x, float *y, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  if (elu)
    c->unary_with(c, VIV_ELU, 1, x, y, n);
  else
    memcpy(y, x, (size_t)n * sizeof *y);
}

/* The input with the rows before it (of the padding or the stream) and the padding behind it. */
static struct codec_signal padded(nn_pass *p, const struct codec_conv *k, struct codec_state *s,
                                  bool elu, const struct codec_signal *x) {
  int64_t left = 0, right = 0, w = x->channels, n = x->n;
  bool first = !s || s->first, last = !s || s->last;
  nn_conv_pads(n, k->kernel, k->stride, k->dilation, k->causal, &left, &right);
  if (!last) right = 0;
  if (!left && !right && !elu) return *x;
  struct codec_signal y = new_signal(p, x->batch, left + n + right, x->channels);
  for (int64_t b = 0; b < x->batch; b++) {
    float *body = y.x + (b * y.n + left) * w;
    copy_in(p, elu, x->x + b * n * w, body, n * w);
    if (first) {
      int64_t wide = left > right ? left : right, length = n <= wide ? wide + 1 : n;
      pad_rows(body, n, w, -left, 0, length, k->pad);
      pad_rows(body, n, w, n, n + right, length, k->pad);
    } else {
      memcpy(body - left * w, s->memory + k->at, (size_t)(left * w) * sizeof *body);
      pad_rows(body - left * w, left + n, w, left + n, left + n + right, left + n, k->pad);
    }
  }
  if (s && k->history)
    memcpy(s->memory + k->at, y.x + (left + n - k->history) * w,
           (size_t)(k->history * w) * sizeof *y.x);
  return y;
}

/* Output t of input row i stands at i stride; the rows kept of the last chunk reach into this one. */
static struct codec_signal transpose(nn_pass *p, const struct codec_conv *k, struct codec_state *s,
                                     bool elu, const struct codec_signal *x) {
  bool first = !s || s->first, last = !s || s->last;
  int64_t before = first ? 0 : k->history, w = x->channels, begin = 0, end = 0;
  struct codec_signal in = *x;
  if (elu || before) {
    in = new_signal(p, x->batch, before + x->n, x->channels);
    for (int64_t b = 0; b < x->batch; b++)
      copy_in(p, elu, x->x + b * x->n * w, in.x + (b * in.n + before) * w, x->n * w);
    if (before) memcpy(in.x, s->memory + k->at, (size_t)(before * w) * sizeof *in.x);
  }
  if (s && k->history) { /* rows that were never there give nothing: zeros */
    int64_t have = in.n < k->history ? in.n : k->history;
    float *keep = s->memory + k->at;
    memset(keep, 0, (size_t)(k->history * w) * sizeof *keep);
    memcpy(keep + (k->history - have) * w, in.x + (in.n - have) * w,
           (size_t)(have * w) * sizeof *keep);
  }
  nn_conv_trims(k->kernel, k->stride, k->causal, k->trim_right, &begin, &end);
  if (!last) end = k->kernel - k->stride;
  begin += before * k->stride;
  int64_t full = (in.n - 1) * k->stride + k->kernel;
  if (!k->norm.w) {
    struct codec_signal y = new_signal(p, x->batch, full - begin - end, k->conv.out);
    call_conv(p, &k->conv, 0, NULL, &in, begin, end, &y);
    return y;
  }
  struct codec_signal all = new_signal(p, x->batch, full, k->conv.out);
  call_conv(p, &k->conv, 0, NULL, &in, 0, 0, &all);
  normalise(p, k, NULL, &all);
  struct codec_signal y = new_signal(p, x->batch, full - begin - end, k->conv.out);
  for (int64_t b = 0; b < x->batch; b++)
    memcpy(y.x + b * y.n * y.channels, all.x + (b * full + begin) * y.channels,
           (size_t)(y.n * y.channels) * sizeof *y.x);
  return y;
}

struct codec_signal codec_convolve(nn_pass *p, const struct codec_conv *k, struct codec_state *s,
                                   bool elu, int32_t act, const float *residual,
                                   const struct codec_signal *x) {
  nn_pass_poll(p);
  if (k->conv.transposed) return transpose(p, k, s, elu, x);
  struct codec_signal in = padded(p, k, s, elu, x);
  int64_t n = (in.n - (int64_t)(k->kernel - 1) * k->dilation - 1) / k->stride + 1;
  struct codec_signal y = new_signal(p, x->batch, n, k->conv.out);
  call_conv(p, &k->conv, k->norm.w ? 0 : act, k->norm.w ? NULL : residual, &in, 0, 0, &y);
  if (k->norm.w) normalise(p, k, residual, &y);
  return y;
}

/* ---- taps ---- */

float *codec_planar(nn_pass *p, const struct codec_signal *x) {
  const viv_compute *c = nn_compute_of(p);
  float *y = nn_room(p, x->batch * x->n * x->channels);
  if (x->channels == 1) {
    memcpy(y, x->x, (size_t)(x->batch * x->n) * sizeof *y);
    return y;
  }
  const int64_t shape[3] = {x->batch, x->n, x->channels};
  const int32_t perm[3] = {0, 2, 1};
  c->permute(c, x->x, 3, shape, perm, y);
  return y;
}

struct codec_signal codec_turned(nn_pass *p, const float *x, int64_t rows, int32_t channels,
                                 int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  struct codec_signal y = new_signal(p, rows, n, channels);
  if (channels == 1) {
    memcpy(y.x, x, (size_t)(rows * n) * sizeof *x);
    return y;
  }
  const int64_t shape[3] = {rows, channels, n};
  const int32_t perm[3] = {0, 2, 1};
  c->permute(c, x, 3, shape, perm, y.x);
  return y;
}

void codec_tap(nn_pass *p, const struct codec_signal *x, const char *format, ...) {
  char name[96];
  va_list args;
  va_start(args, format);
  if (vsnprintf(name, sizeof name, format, args) < 0) name[0] = 0;
  va_end(args);
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_tap(p, codec_planar(p, x), NN_DIMS(x->batch, x->channels, x->n), "%s", name);
  nn_release(p, mark);
}

/* ---- code books ---- */

void codec_quantize(nn_pass *p, const struct codec_books *b, int32_t levels, float *x, int64_t n,
                    int64_t *codes, int64_t stride) {
  nn_mark mark = nn_here(p);
  float *scratch = nn_room(p, (int64_t)nn_nearest_scratch(b->k, b->d));
  int32_t *chosen = nn_bytes(p, n, sizeof *chosen);
  for (int32_t q = 0; q < levels; q++) {
    nn_nearest(nn_compute_of(p), b->book[q], b->k, b->d, x, n, chosen, scratch);
    for (int64_t i = 0; i < n; i++) {
      const float *e = b->book[q] + chosen[i] * b->d;
      codes[q * stride + i] = chosen[i];
      for (int64_t j = 0; j < b->d; j++) x[i * b->d + j] -= e[j];
    }
  }
  nn_release(p, mark);
}

void codec_look_up(const struct codec_books *b, int32_t levels, const int64_t *codes,
                   int64_t stride, int64_t n, float *y) {
  for (int32_t q = 0; q < levels; q++)
    for (int64_t i = 0; i < n; i++) {
      const float *e = b->book[q] + codes[q * stride + i] * b->d;
      for (int64_t j = 0; j < b->d; j++) y[i * b->d + j] += e[j];
    }
}

void codec_check(nn_pass *p, const char *name, const int64_t *codes, int64_t n, int64_t k) {
  for (int64_t i = 0; i < n; i++)
    if (codes[i] < 0 || codes[i] >= k)
      nn_stop(p, VIV_BAD_INPUT, name, "code %lld at place %lld is not in the code book of %lld",
              (long long)codes[i], (long long)i, (long long)k);
}
