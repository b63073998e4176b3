/* SEANet, the convolutional network on both sides of EnCodec and Mimi.
 *
 *   encoder  conv k7 -> for each stride, small to large:
 *              residual blocks, ELU, conv k 2s stride s (channels x 2)
 *            -> LSTM with a skip (EnCodec) -> ELU -> conv to the latent's width
 *   decoder  the same backwards, with transposed convolutions
 *   block    shortcut(x) + conv1(ELU(conv3(ELU(x))))
 *
 * Official: encodec/modules/seanet.py; transformers' modeling_encodec.py, modeling_mimi.py. */
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

int64_t seanet_hop(const struct seanet_config *c) {
  int64_t hop = 1;
  for (int32_t i = 0; i < c->n_ratios; i++) hop *= c->ratios[i];
  return hop;
}

/* ---- tables ---- */

struct walk {
  nn_loader *l;
  const struct seanet_config *c;
  struct seanet *net;
  int64_t *floats;
};

static void conv(const struct walk *w, int32_t in, int32_t out, int32_t kernel, int32_t stride,
                 int32_t dilation, bool transposed, struct codec_conv *k) {
  const struct codec_names *names = w->c->names;
  nn_conv_spec spec = {.in = in,
                       .out = out,
                       .kernel = kernel,
                       .stride = stride,
                       .dilation = dilation,
                       .transposed = transposed,
                       .bias = true};
  codec_load_conv(w->l, transposed ? names->convtr : names->conv, spec, &k->conv);
  if (w->c->group_norm)
    nn_load_norm(w->l, transposed ? names->normtr : names->norm, out, 1e-5f, &k->norm);
  if (w->l->pass != NN_PREPARE) return;
  k->kernel = kernel;
  k->stride = stride;
  k->dilation = dilation;
  k->causal = w->c->causal;
  k->pad = w->c->pad;
  k->trim_right = w->c->trim_right;
  codec_place(k, w->floats);
}

/* The next layer; its place in the list is its number in the file. */
static struct seanet_layer *next(const struct walk *w, enum seanet_kind kind, int32_t width) {
  struct seanet_layer *layer = &w->net->layer[w->net->n++];
  layer->kind = kind;
  layer->width = width;
  return layer;
}

static size_t enter(const struct walk *w) {
  return nn_in(w->l, "%s.%s.%d.", w->net->name, w->c->names->list, (int)w->net->n - 1);
}

static void add_conv(const struct walk *w, int32_t in, int32_t out, int32_t kernel, int32_t stride,
                     bool up) {
  struct seanet_layer *layer = next(w, up ? SEANET_UP : SEANET_CONV, out);
  size_t outer = enter(w);
  conv(w, in, out, kernel, stride, 1, up, &layer->conv);
  nn_out(w->l, outer);
}

static void add_blocks(const struct walk *w, int32_t d) {
  int32_t hidden = d / w->c->compress, dilation = 1;
  for (int32_t i = 0; i < w->c->residual_layers; i++, dilation *= w->c->dilation_base) {
    struct seanet_layer *layer = next(w, SEANET_BLOCK, d);
    size_t outer = enter(w), inner = nn_in(w->l, "block.1.");
    conv(w, d, hidden, w->c->residual_kernel, 1, dilation, false, &layer->a);
    nn_out(w->l, inner);
    nn_in(w->l, "block.3.");
    conv(w, hidden, d, 1, 1, 1, false, &layer->b);
    nn_out(w->l, inner);
    if (w->c->shortcut) {
      nn_in(w->l, "shortcut.");
      conv(w, d, d, 1, 1, 1, false, &layer->shortcut);
    }
    nn_out(w->l, outer);
  }
}

static void add_lstm(const struct walk *w, int32_t d) {
  if (!w->c->lstm_layers) return;
  struct seanet_layer *layer = next(w, SEANET_LSTM, d);
  size_t outer = enter(w);
  nn_in(w->l, "lstm.");
  for (int32_t i = 0; i < w->c->lstm_layers; i++) {
    struct seanet_lstm *m = &layer->lstm[i];
    char name[4][24];
    static const char *const forms[4] = {"weight_ih_l%d", "weight_hh_l%d", "bias_ih_l%d",
                                         "bias_hh_l%d"};
    for (int n = 0; n < 4; n++) {
      strcpy(name[n], forms[n]);
      name[n][strlen(name[n]) - 2] = (char)('0' + i);
      name[n][strlen(name[n]) - 1] = 0;
    }
    nn_load(w->l, name[0], &m->w_input, 0, 4 * d, 4 * d, d, NN_MATRIX, true);
    nn_load(w->l, name[1], &m->w_hidden, 0, 4 * d, 4 * d, d, NN_MATRIX, true);
    nn_load(w->l, name[2], &m->b_input, 0, 4 * d, 4 * d, 1, NN_FLOATS, true);
    nn_load(w->l, name[3], &m->b_hidden, 0, 4 * d, 4 * d, 1, NN_FLOATS, true);
    m->at = *w->floats;
    if (w->l->pass == NN_PREPARE) *w->floats += 2 * (int64_t)d;
  }
  nn_out(w->l, outer);
}

void seanet_tables(nn_loader *l, const struct seanet_config *c, bool decoder, struct seanet *net,
                   int64_t *floats) {
  struct walk w = {l, c, net, floats};
  int32_t d = c->filters;
  net->n = 0;
  net->name = decoder ? "decoder" : "encoder";
  if (decoder) {
    d <<= c->n_ratios;
    add_conv(&w, c->dimension, d, c->kernel, 1, false);
    add_lstm(&w, d);
  } else {
    add_conv(&w, c->channels, d, c->kernel, 1, false);
  }
  for (int32_t i = 0; i < c->n_ratios; i++) {
    if (decoder) {
      next(&w, SEANET_ELU, d);
      add_conv(&w, d, d / 2, 2 * c->ratios[i], c->ratios[i], true);
      d /= 2;
      add_blocks(&w, d);
    } else {
      int32_t ratio = c->ratios[c->n_ratios - 1 - i];
      add_blocks(&w, d);
      next(&w, SEANET_ELU, d);
      add_conv(&w, d, 2 * d, 2 * ratio, ratio, false);
      d *= 2;
    }
  }
  if (!decoder) add_lstm(&w, d);
  next(&w, SEANET_ELU, d);
  add_conv(&w, d, decoder ? c->channels : c->dimension, c->last_kernel, 1, false);
}

int64_t seanet_warm(const struct seanet *net, bool decoder) {
  int64_t most = 1, scale = 1;
  for (int32_t i = 0; i < net->n; i++) {
    const struct seanet_layer *layer = &net->layer[i];
    const struct codec_conv *k = layer->kind == SEANET_BLOCK ? &layer->a : &layer->conv;
    if (layer->kind == SEANET_LSTM || layer->kind == SEANET_ELU) continue;
    if (layer->kind == SEANET_UP) {
      scale *= k->stride;
      continue;
    }
    if (k->pad == VIV_PAD_REFLECT) {
      int64_t need = decoder ? (k->history + scale) / scale : (k->history + 1) * scale;
      if (need > most) most = need;
    }
    scale *= k->stride;
  }
  return most;
}

/* ---- the pass ---- */

static struct codec_signal block(nn_pass *p, const struct seanet_config *c,
                                 const struct seanet_layer *layer, struct codec_state *s,
                                 const struct codec_signal *x) {
  bool late = layer->a.norm.w != NULL; /* the ELU comes behind a norm */
  struct codec_signal side = *x;
  struct codec_signal h = codec_convolve(p, &layer->a, s, true, late ? 0 : VIV_ELU, NULL, x);
  if (c->shortcut) side = codec_convolve(p, &layer->shortcut, s, false, 0, NULL, x);
  return codec_convolve(p, &layer->b, s, late, 0, side.x, &h);
}

/* y = LSTM(x) + x over the steps; each row of the batch has a state of its own. */
static struct codec_signal recur(nn_pass *p, const struct seanet_config *c,
                                 const struct seanet_layer *layer, struct codec_state *s,
                                 const struct codec_signal *x) {
  const viv_compute *k = nn_compute_of(p);
  int64_t d = layer->width, n = x->batch * x->n * d;
  struct codec_signal y = *x;
  y.x = nn_room(p, n);
  float *between = nn_room(p, n), *fresh = nn_room(p, 2 * x->batch * d);
  const float *from = x->x;
  for (int32_t i = 0; i < c->lstm_layers; i++) {
    float *state = s ? s->memory + layer->lstm[i].at : fresh;
    float *to = (c->lstm_layers - i) % 2 ? y.x : between;
    if (!s || s->first) memset(state, 0, (size_t)(2 * x->batch * d) * sizeof *state);
    viv_rnn a = {.struct_size = sizeof a,
                 .kind = VIV_LSTM,
                 .input = (int32_t)d,
                 .hidden = (int32_t)d,
                 .rows = (int32_t)x->batch,
                 .steps = x->n,
                 .w_input = layer->lstm[i].w_input,
                 .w_hidden = layer->lstm[i].w_hidden,
                 .b_input = layer->lstm[i].b_input,
                 .b_hidden = layer->lstm[i].b_hidden,
                 .x = from,
                 .x_step_stride = d,
                 .x_row_stride = x->n * d,
                 .h = state,
                 .c = state + x->batch * d,
                 .y = to,
                 .y_step_stride = d,
                 .y_row_stride = x->n * d};
    nn_mark mark = nn_here(p);
    a.scratch = nn_room(p, (int64_t)k->rnn_scratch(k, &a) + 1);
    nn_pass_poll(p);
    k->rnn(k, &a);
    nn_release(p, mark);
    from = to;
  }
  k->add(k, y.x, x->x, n);
  return y;
}

/* As many numbers as the largest signal between two layers holds. */
static int64_t largest(const struct seanet *net, const struct codec_signal *x) {
  int64_t most = 1, n = x->n;
  for (int32_t i = 0; i < net->n; i++) {
    const struct seanet_layer *layer = &net->layer[i];
    if (layer->kind == SEANET_UP) n = n * layer->conv.stride + layer->conv.kernel;
    if (layer->kind == SEANET_CONV) n = n / layer->conv.stride + 2;
    int64_t all = layer->kind == SEANET_ELU ? 0 : x->batch * n * layer->width;
    if (all > most) most = all;
  }
  return most;
}

/* The signal lies in one place, and what a layer needs besides in the same room as the layer's before:
 * memory that a job sees for the first time costs more than copying the signal. */
struct codec_signal seanet_run(nn_pass *p, const struct seanet_config *c, const struct seanet *net,
                               struct codec_state *s, const struct codec_signal *x, bool tapped) {
  struct codec_signal now = *x;
  int64_t most = largest(net, x);
  float *place = nn_room(p, most);
  nn_mark mark = nn_here(p);
  nn_room(p, most * 7 / 2); /* what the largest block takes, in one piece */
  nn_release(p, mark);
  bool elu = false;
  for (int32_t i = 0; i < net->n; i++) {
    const struct seanet_layer *layer = &net->layer[i];
    if (layer->kind == SEANET_ELU) {
      elu = true; /* taken by the convolution that follows */
      continue;
    }
    if (layer->kind == SEANET_BLOCK)
      now = block(p, c, layer, s, &now);
    else if (layer->kind == SEANET_LSTM)
      now = recur(p, c, layer, s, &now);
    else
      now = codec_convolve(p, &layer->conv, s, elu, 0, NULL, &now);
    elu = false;
    if (tapped) codec_tap(p, &now, "%s.%d", net->name, (int)i);
    memcpy(place, now.x, (size_t)(now.batch * now.n * now.channels) * sizeof *now.x);
    now.x = place;
    nn_release(p, mark);
  }
  return now;
}
