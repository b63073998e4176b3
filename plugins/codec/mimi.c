/* Mimi: SEANet, a transformer, half the frame rate; one code book for what is said and many for how
 * it sounds, both of the same latent; and the same way back.
 *
 *   encoder  SEANet -> transformer -> conv stride 2 (replicates at its start) -> two quantizers
 *   decoder  sum of both -> transposed conv stride 2, per channel -> transformer -> SEANet
 *   layer    x += s1 Attention(LN(x)); x += s2 fc2(GELU(fc1(LN(x))))
 *
 * Rotary positions, a sliding window. Official: kyutai-labs/moshi, models/compression.py and
 * modules/; transformers' modeling_mimi.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

/* ---- config.json ---- */

static void transformers_config(nn_config *k, struct codec_model *m) {
  struct mimi_model *e = m->mimi;
  struct seanet_config *c = &e->config;
  m->rate = nn_int(k, "sampling_rate", 24000, 1000, 768000);
  m->channels = c->channels = (int32_t)nn_int(k, "audio_channels", 1, 1, 8);
  c->filters = (int32_t)nn_int(k, "num_filters", 64, 1, 1024);
  c->dimension = (int32_t)nn_int(k, "hidden_size", 512, 2, 1 << 14);
  c->kernel = (int32_t)nn_int(k, "kernel_size", 7, 1, 64);
  c->last_kernel = (int32_t)nn_int(k, "last_kernel_size", 3, 1, 64);
  c->residual_kernel = (int32_t)nn_int(k, "residual_kernel_size", 3, 1, 64);
  c->residual_layers = (int32_t)nn_int(k, "num_residual_layers", 1, 0, 4);
  c->dilation_base = (int32_t)nn_int(k, "dilation_growth_rate", 2, 1, 16);
  c->compress = (int32_t)nn_int(k, "compress", 2, 1, c->filters > 1 ? c->filters : 1);
  c->shortcut = nn_flag(k, "use_conv_shortcut", false);
  c->causal = nn_flag(k, "use_causal_conv", true);
  c->trim_right = nn_num(k, "trim_right_ratio", 1, 0, 1);
  c->n_ratios = nn_ints(k, "upsampling_ratios", c->ratios, CODEC_MAX_RATIOS, 1, 256);
  m->entries = nn_int(k, "codebook_size", 2048, 2, 1 << 20);
  e->vq_d = nn_int(k, "vector_quantization_hidden_dimension", 256, 1, 1 << 14);
  m->levels = (int32_t)nn_int(k, "num_quantizers", 32, 2, CODEC_MAX_BOOKS);
  m->used = m->levels;
  e->n_semantic = (int32_t)nn_int(k, "num_semantic_quantizers", 1, 1, m->levels - 1);
  e->layers = (int32_t)nn_int(k, "num_hidden_layers", 8, 1, 256);
  e->heads = (int32_t)nn_int(k, "num_attention_heads", 8, 1, 1024);
  e->head_dim = (int32_t)nn_int(k, "head_dim", c->dimension / e->heads, 2, 512);
  e->window = (int32_t)nn_int(k, "sliding_window", 250, 1, 1 << 20);
  e->ff = nn_int(k, "intermediate_size", 2048, 1, 1 << 18);
  e->eps = (float)nn_num(k, "norm_eps", 1e-5, 0, 1);
  int64_t kv = nn_int(k, "num_key_value_heads", e->heads, 1, 1024);
  if (!k->status && (kv != e->heads || nn_flag(k, "attention_bias", false)))
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "shared key heads and biases of the attention are not computed here");
  double theta = nn_num(k, "rope_theta", 10000, 1, 1e12);
  for (int32_t i = 0; i < e->head_dim / 2; i++)
    e->inv_freq[i] = (float)(1.0 / pow(theta, 2.0 * i / (double)e->head_dim));
  viv_str pad = nn_text(k, "pad_mode", "constant");
  c->pad = nn_is(pad, "replicate") ? VIV_PAD_REPLICATE
           : nn_is(pad, "reflect") ? VIV_PAD_REFLECT
                                   : VIV_PAD_ZEROS;
}

/* A group of kyutai's file, read with the first failure kept. */
static nn_config group(nn_config *k, const char *key) {
  nn_config g = nn_config_open(k->host, nn_key(k, key), key, k->error);
  if (g.status && !k->status) k->status = g.status;
  return g;
}

static void kyutai_config(nn_config *k, struct codec_model *m) {
  struct mimi_model *e = m->mimi;
  struct seanet_config *c = &e->config;
  nn_config s = group(k, "seanet"), q = group(k, "quantizer"), t = group(k, "transformer");
  if (k->status) return;
  m->rate = nn_int(k, "sample_rate", 24000, 1000, 768000);
  m->channels = c->channels = (int32_t)nn_int(k, "channels", 1, 1, 8);
  c->filters = (int32_t)nn_int(&s, "n_filters", 64, 1, 1024);
  c->dimension = (int32_t)nn_int(&s, "dimension", 512, 2, 1 << 14);
  c->kernel = (int32_t)nn_int(&s, "kernel_size", 7, 1, 64);
  c->last_kernel = (int32_t)nn_int(&s, "last_kernel_size", 3, 1, 64);
  c->residual_kernel = (int32_t)nn_int(&s, "residual_kernel_size", 3, 1, 64);
  c->residual_layers = (int32_t)nn_int(&s, "n_residual_layers", 1, 0, 4);
  c->dilation_base = (int32_t)nn_int(&s, "dilation_base", 2, 1, 16);
  c->compress = (int32_t)nn_int(&s, "compress", 2, 1, c->filters > 1 ? c->filters : 1);
  c->shortcut = !nn_flag(&s, "true_skip", true);
  c->causal = nn_flag(&s, "causal", true);
  c->trim_right = nn_num(&s, "trim_right_ratio", 1, 0, 1);
  c->n_ratios = nn_ints(&s, "ratios", c->ratios, CODEC_MAX_RATIOS, 1, 256);
  m->entries = nn_int(&q, "bins", 2048, 2, 1 << 20);
  e->vq_d = nn_int(&q, "dimension", 256, 1, 1 << 14);
  m->levels = (int32_t)nn_int(&q, "n_q", 32, 2, CODEC_MAX_BOOKS);
  m->used = (int32_t)nn_int(k, "num_codebooks", m->levels < 8 ? m->levels : 8, 1, m->levels);
  e->n_semantic = (int32_t)nn_int(&q, "n_q_semantic", 1, 1, m->levels - 1);
  e->layers = (int32_t)nn_int(&t, "num_layers", 8, 1, 256);
  e->heads = (int32_t)nn_int(&t, "num_heads", 8, 1, 1024);
  e->head_dim = c->dimension / e->heads;
  e->window = (int32_t)nn_int(&t, "context", 250, 1, 1 << 20);
  e->ff = nn_int(&t, "dim_feedforward", 2048, 1, 1 << 18);
  e->eps = 1e-5f;
  nn_divides(&t, c->dimension, e->heads, "seanet.dimension and transformer.num_heads");
  double theta = nn_num(&t, "max_period", 10000, 1, 1e12);
  for (int32_t i = 0; i < e->head_dim / 2 && i < 256; i++)
    e->inv_freq[i] = (float)(1.0 / pow(theta, 2.0 * i / (double)e->head_dim));
  viv_str pad = nn_text(&s, "pad_mode", "constant");
  c->pad = nn_is(pad, "replicate") ? VIV_PAD_REPLICATE
           : nn_is(pad, "reflect") ? VIV_PAD_REFLECT
                                   : VIV_PAD_ZEROS;
  const nn_config *const parts[] = {&s, &q, &t};
  for (int i = 0; i < 3 && !k->status; i++) k->status = parts[i]->status;
}

void mimi_config(nn_config *k, struct codec_model *m, const viv_model_source *source) {
  struct mimi_model *e = m->mimi;
  struct seanet_config *c = &e->config;
  e->kyutai = m->original = nn_has(k->host, source, "encoder.model.0.conv.conv.weight");
  c->names = m->original ? &codec_original : &codec_transformers;
  if (e->kyutai && nn_key(k, "seanet"))
    kyutai_config(k, m);
  else
    transformers_config(k, m);
  if (k->status) return;
  if (!c->n_ratios) {
    memcpy(c->ratios, (const int32_t[]){8, 6, 5, 4}, 4 * sizeof(int32_t));
    c->n_ratios = 4;
  }
  if (e->head_dim < 2 || e->head_dim % 2 || e->head_dim > 512)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "the attention's heads have %d values; 2, 4, ... 512 are possible",
                        (int)e->head_dim);
  double frames = ceil((double)m->rate / (double)seanet_hop(c));
  double rate = nn_num(k, "frame_rate", frames / 2, 1e-3, 1e6);
  e->latent_stride = (int32_t)(frames / rate);
  if (!k->status && (e->latent_stride < 1 || e->latent_stride > 64))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "frame_rate %g does not go with %g latents a second", rate, frames);
  m->hop = seanet_hop(c) * e->latent_stride;
  for (int i = 0; i < 2; i++) {
    e->books[i].n = i ? m->levels - e->n_semantic : e->n_semantic;
    e->books[i].k = m->entries;
    e->books[i].d = e->vq_d;
  }
  m->streams = c->causal && c->trim_right >= 1;
}

/* ---- weights ---- */

/* embed = embed_sum / max(usage, 1e-5). */
static void load_book(nn_loader *l, struct mimi_model *e, const char *sum_name,
                      const float **book) {
  const int64_t shape[2] = {e->books[0].k, e->books[0].d}, k = shape[0], d = shape[1];
  const float *sum = NULL, *usage = NULL;
  nn_load_tensor(l, sum_name, true, 2, shape, &sum);
  nn_load_tensor(l, "cluster_usage", true, 1, shape, &usage);
  l->bytes += (uint64_t)(k * d) * sizeof(float) + 64;
  if (l->pass != NN_PREPARE || l->status) return;
  float *out = l->host->arena_alloc(l->source->arena, (uint64_t)(k * d) * sizeof *out);
  if (!out) {
    l->status = nn_fail(l->error, VIV_NOT_NOW, sum_name, "no memory for a code book");
    return;
  }
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < d; j++)
      out[i * d + j] = sum[i * d + j] / (usage[i] > 1e-5f ? usage[i] : 1e-5f);
  *book = out;
}

static void load_layer(nn_loader *l, const struct mimi_model *e, struct mimi_layer *w) {
  int64_t d = e->config.dimension, inner = (int64_t)e->heads * e->head_dim;
  const int64_t shape[1] = {d};
  bool own = e->kyutai;
  nn_load_norm(l, own ? "norm1" : "input_layernorm", d, e->eps, &w->norm1);
  nn_load_norm(l, own ? "norm2" : "post_attention_layernorm", d, e->eps, &w->norm2);
  if (own) {
    nn_load_rows(l, "self_attn.in_proj_weight", NULL, 0, inner, 3 * inner, d, &w->q);
    nn_load_rows(l, "self_attn.in_proj_weight", NULL, inner, inner, 3 * inner, d, &w->k);
    nn_load_rows(l, "self_attn.in_proj_weight", NULL, 2 * inner, inner, 3 * inner, d, &w->v);
  } else {
    nn_load_linear(l, "self_attn.q_proj", inner, d, false, &w->q);
    nn_load_linear(l, "self_attn.k_proj", inner, d, false, &w->k);
    nn_load_linear(l, "self_attn.v_proj", inner, d, false, &w->v);
  }
  nn_load_linear(l, own ? "self_attn.out_proj" : "self_attn.o_proj", d, inner, false, &w->out);
  nn_load_linear(l, own ? "linear1" : "mlp.fc1", e->ff, d, false, &w->fc1);
  nn_load_linear(l, own ? "linear2" : "mlp.fc2", d, e->ff, false, &w->fc2);
  nn_load_tensor(l, own ? "layer_scale_1.scale" : "self_attn_layer_scale.scale", true, 1, shape,
                 &w->scale1);
  nn_load_tensor(l, own ? "layer_scale_2.scale" : "mlp_layer_scale.scale", true, 1, shape,
                 &w->scale2);
}

static void load_transformer(nn_loader *l, const struct mimi_model *e, const char *name,
                             struct mimi_layer *layers, int64_t *floats) {
  struct mimi_layer none = {0};
  for (int32_t i = 0; i < e->layers; i++) {
    struct mimi_layer *w = layers ? &layers[i] : &none;
    size_t outer = nn_in(l, "%s.%slayers.%d.", name, e->kyutai ? "transformer." : "", (int)i);
    load_layer(l, e, w);
    nn_out(l, outer);
    w->at = *floats;
    if (l->pass == NN_PREPARE) *floats += 2 * e->room * e->heads * e->head_dim;
  }
}

static void load_quantizer(nn_loader *l, struct mimi_model *e, int which) {
  static const char *const names[2][2] = {{"semantic_residual_vector_quantizer", "rvq_first"},
                                          {"acoustic_residual_vector_quantizer", "rvq_rest"}};
  size_t outer = nn_in(l, "quantizer.%s.", names[which][e->kyutai]);
  int32_t d = e->config.dimension, q = (int32_t)e->vq_d;
  codec_load_conv(l, "input_proj", (nn_conv_spec){.in = d, .out = q, .kernel = 1},
                  &e->in[which].conv);
  codec_load_conv(l, "output_proj", (nn_conv_spec){.in = q, .out = d, .kernel = 1},
                  &e->out[which].conv);
  for (int i = 0; i < 2; i++) {
    struct codec_conv *k = i ? &e->out[which] : &e->in[which];
    k->kernel = k->stride = k->dilation = 1;
    k->causal = true;
  }
  for (int32_t i = 0; i < e->books[which].n; i++) {
    size_t inner = nn_in(l, e->kyutai ? "vq.layers.%d._codebook." : "layers.%d.codebook.", (int)i);
    load_book(l, e, e->kyutai ? "embedding_sum" : "embed_sum", &e->books[which].book[i]);
    nn_out(l, inner);
  }
  nn_out(l, outer);
}

/* The half-rate convolution and its inverse, per channel on the way back. */
static void load_rate(nn_loader *l, struct codec_model *m, bool up) {
  struct mimi_model *e = m->mimi;
  struct codec_conv *k = up ? &e->up : &e->down;
  int32_t d = e->config.dimension, s = e->latent_stride;
  const char *name = up ? (e->kyutai ? "upsample.convtr.convtr.convtr" : "upsample.conv")
                        : (e->kyutai ? "downsample.conv.conv.conv" : "downsample.conv");
  if (s == 1) return;
  nn_conv_spec spec = {.in = d, .out = d, .kernel = 2 * s, .stride = s, .transposed = up};
  if (up) spec.groups = d;
  codec_load_conv(l, name, spec, &k->conv);
  if (l->pass != NN_PREPARE) return;
  k->kernel = 2 * s;
  k->stride = s;
  k->dilation = 1;
  k->causal = true;
  k->pad = VIV_PAD_REPLICATE;
  k->trim_right = e->config.trim_right;
  codec_place(k, up ? &m->decode_floats : &m->encode_floats);
}

void mimi_tables(nn_loader *l, struct codec_model *m) {
  struct mimi_model *e = m->mimi;
  m->encode_floats = m->decode_floats = 0;
  e->room = 2 * (int64_t)e->window + 64 * e->latent_stride;
  seanet_tables(l, &e->config, false, &e->encoder, &m->encode_floats);
  load_transformer(l, e, "encoder_transformer", e->encoder_layer, &m->encode_floats);
  load_rate(l, m, false);
  load_quantizer(l, e, 0);
  load_quantizer(l, e, 1);
  load_rate(l, m, true);
  load_transformer(l, e, "decoder_transformer", e->decoder_layer, &m->decode_floats);
  seanet_tables(l, &e->config, true, &e->decoder, &m->decode_floats);
  m->encode_warm = m->decode_warm = 1;
  if (l->pass == NN_PREPARE && e->config.pad == VIV_PAD_REFLECT) {
    m->encode_warm = (seanet_warm(&e->encoder, false) + m->hop - 1) / m->hop;
    m->decode_warm = (seanet_warm(&e->decoder, true) + e->latent_stride - 1) / e->latent_stride;
  }
  nn_ignore(l, "quantizer.*initialized");     /* a flag of the training */
  nn_ignore(l, "quantizer.*.codebook.embed"); /* derived, in some files */
}

/* ---- the transformer ---- */

/* x += scale y, scale by channel. */
static void add_scaled(float *x, const float *y, const float *scale, int64_t rows, int64_t d) {
  for (int64_t r = 0; r < rows; r++, x += d, y += d)
    for (int64_t i = 0; i < d; i++) x[i] += scale[i] * y[i];
}

/* Keys and values of the steps that may be seen, [2][rows][inner], with the new ones at the end. */
struct cache {
  float *k, *v;
  int64_t before; /* rows before the new ones */
};

static struct cache cache_of(nn_pass *p, const struct mimi_layer *w, const struct mimi_model *e,
                             struct codec_state *s, int64_t n, int64_t inner) {
  if (!s) {
    float *k = nn_room(p, n * inner), *v = nn_room(p, n * inner);
    return (struct cache){k, v, 0};
  }
  float *k = s->memory + w->at, *v = k + e->room * inner;
  int64_t kept = s->first ? 0 : s->kept, keep = kept < e->window - 1 ? kept : e->window - 1;
  if (n + keep > e->room)
    nn_stop(p, VIV_BUG, "transformer", "%lld steps of a stream came at once", (long long)n);
  if (kept + n > e->room) { /* what no window reaches any more goes */
    memmove(k, k + (kept - keep) * inner, (size_t)(keep * inner) * sizeof *k);
    memmove(v, v + (kept - keep) * inner, (size_t)(keep * inner) * sizeof *v);
    kept = keep;
  }
  return (struct cache){k + kept * inner, v + kept * inner, kept};
}

static void attend(nn_pass *p, const struct mimi_model *e, const struct cache *c, const float *q,
                   int64_t n, float *out) {
  const viv_compute *k = nn_compute_of(p);
  int64_t inner = (int64_t)e->heads * e->head_dim, total = c->before + n;
  const void *pages[2] = {c->k - c->before * inner, c->v - c->before * inner};
  viv_kv kv = {&pages[0], &pages[1]};
  const viv_kv **of_row = nn_bytes(p, n, sizeof *of_row);
  int64_t *visible = nn_bytes(p, n, sizeof *visible);
  for (int64_t i = 0; i < n; i++) {
    of_row[i] = &kv;
    visible[i] = c->before + i + 1;
  }
  viv_attention a = {.struct_size = sizeof a,
                     .kv_dtype = VIV_F32,
                     .rows = (int32_t)n,
                     .heads = e->heads,
                     .head_dim = e->head_dim,
                     .kv_heads = e->heads,
                     .page_tokens = (int32_t)total,
                     .k_width = (int32_t)inner,
                     .v_width = (int32_t)inner,
                     .scale = 1.0f / sqrtf((float)e->head_dim),
                     .window = e->window,
                     .q = q,
                     .out = out,
                     .kv = of_row,
                     .visible = visible};
  k->attention(k, &a);
}

/* x [n, d] of one row of the batch, in place. */
static void layer(nn_pass *p, const struct mimi_model *e, const struct mimi_layer *w,
                  struct codec_state *s, float *x, int64_t n, const float *table) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = e->config.dimension, inner = (int64_t)e->heads * e->head_dim;
  nn_mark mark = nn_here(p);
  float *h = nn_room(p, n * d), *q = nn_room(p, n * inner), *o = nn_room(p, n * inner);
  struct cache kv = cache_of(p, w, e, s, n, inner);
  nn_layer_norm(p, &w->norm1, x, n, h);
  nn_linear_to(p, &w->q, 0, NULL, h, n, q);
  nn_linear_to(p, &w->k, 0, NULL, h, n, kv.k);
  nn_linear_to(p, &w->v, 0, NULL, h, n, kv.v);
  int64_t half = e->head_dim / 2;
  c->rope_apply(c, q, 0, n, e->heads, e->head_dim, table, half, e->kyutai);
  c->rope_apply(c, kv.k, 0, n, e->heads, e->head_dim, table, half, e->kyutai);
  attend(p, e, &kv, q, n, o);
  nn_linear_to(p, &w->out, 0, NULL, o, n, h);
  add_scaled(x, h, w->scale1, n, d);
  nn_layer_norm(p, &w->norm2, x, n, h);
  float *wide = nn_apply_linear(p, &w->fc1, VIV_GELU, h, n);
  nn_linear_to(p, &w->fc2, 0, NULL, wide, n, h);
  add_scaled(x, h, w->scale2, n, d);
  nn_release(p, mark);
}

static void transform(nn_pass *p, const struct mimi_model *e, const struct mimi_layer *layers,
                      const char *name, struct codec_state *s, struct codec_signal *x) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = x->n, d = x->channels, from = s && !s->first ? s->seen : 0;
  nn_mark mark = nn_here(p);
  int32_t *pos = nn_bytes(p, n, sizeof *pos);
  float *table = nn_room(p, n * e->head_dim);
  for (int64_t i = 0; i < n; i++) pos[i] = (int32_t)(from + i);
  c->rope_table(c, pos, n, e->inv_freq, e->head_dim / 2, 1.0f, table);
  for (int32_t i = 0; i < e->layers; i++) {
    nn_pass_poll(p);
    for (int64_t b = 0; b < x->batch; b++) layer(p, e, &layers[i], s, x->x + b * n * d, n, table);
    nn_tap(p, x->x, NN_DIMS(x->batch, n, d), "%s.%d", name, (int)i);
  }
  nn_release(p, mark);
  if (!s) return;
  int64_t kept = s->first ? 0 : s->kept, keep = kept < e->window - 1 ? kept : e->window - 1;
  s->kept = (kept + n > e->room ? keep : kept) + n;
  s->seen = from + n;
}

/* ---- encode ---- */

/* z [batch, n, d] -> codes [batch, levels, n]; both quantizers see the same latent. */
static int64_t *quantize(nn_pass *p, const struct mimi_model *e, const struct codec_signal *z,
                         int32_t levels) {
  int64_t *codes = nn_bytes(p, z->batch * levels * z->n, sizeof *codes);
  nn_mark mark = nn_here(p);
  for (int which = 0; which < 2; which++) {
    int32_t done = which ? e->n_semantic : 0, some = levels - done;
    if (some > e->books[which].n) some = e->books[which].n;
    if (some < 1) continue;
    struct codec_signal x = codec_convolve(p, &e->in[which], NULL, false, 0, NULL, z);
    for (int64_t b = 0; b < z->batch; b++)
      codec_quantize(p, &e->books[which], some, x.x + b * x.n * x.channels, z->n,
                     codes + (b * levels + done) * z->n, z->n);
  }
  nn_release(p, mark);
  return codes;
}

static struct codec_signal to_latents(nn_pass *p, const struct mimi_model *e, struct codec_state *s,
                                      const struct codec_signal *x) {
  struct codec_signal z = seanet_run(p, &e->config, &e->encoder, s, x, true);
  transform(p, e, e->encoder_layer, "encoder_transformer", s, &z);
  if (e->latent_stride > 1) z = codec_convolve(p, &e->down, s, false, 0, NULL, &z);
  codec_tap(p, &z, "downsample");
  return z;
}

int64_t *mimi_encode_part(nn_pass *p, struct codec_state *s, const struct codec_signal *x,
                          int32_t levels, int64_t *frames) {
  const struct mimi_model *e = ((const struct codec_model *)nn_net_of(p))->mimi;
  struct codec_signal z = to_latents(p, e, s, x);
  *frames = z.n;
  return quantize(p, e, &z, levels);
}

int32_t mimi_encode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct mimi_model *e = m->mimi;
  int64_t rows = 0, n = 0;
  bool from_audio = false;
  int32_t levels = codec_levels(p);
  const float *x = codec_sound(p, &rows, &n, &from_audio);
  int64_t whole = e->kyutai ? (n + m->hop - 1) / m->hop * m->hop : n;
  if (whole > n) { /* kyutai's package pads the sound, transformers each convolution */
    float *longer = nn_room(p, rows * m->channels * whole);
    memset(longer, 0, (size_t)(rows * m->channels * whole) * sizeof *longer);
    for (int64_t i = 0; i < rows * m->channels; i++)
      memcpy(longer + i * whole, x + i * n, (size_t)n * sizeof *x);
    x = longer;
  }
  struct codec_signal in = codec_turned(p, x, rows, m->channels, whole);
  struct codec_signal z = to_latents(p, e, NULL, &in);
  int64_t *codes = quantize(p, e, &z, levels);
  nn_result(p, VIV_I64, codes, NN_DIMS(rows, levels, z.n), "audio_codes");
  return VIV_DONE;
}

/* ---- decode ---- */

/* codes [batch, levels, n] -> [batch, n, d] */
static struct codec_signal look_up(nn_pass *p, const struct mimi_model *e, const int64_t *codes,
                                   int64_t batch, int32_t levels, int64_t n) {
  struct codec_signal sum = {.batch = batch, .n = n, .channels = e->config.dimension};
  for (int which = 0; which < 2; which++) {
    int32_t done = which ? e->n_semantic : 0, some = levels - done;
    if (some > e->books[which].n) some = e->books[which].n;
    if (some < 1) continue;
    struct codec_signal v = {.batch = batch, .n = n, .channels = (int32_t)e->vq_d};
    v.x = nn_room(p, batch * n * e->vq_d);
    memset(v.x, 0, (size_t)(batch * n * e->vq_d) * sizeof *v.x);
    for (int64_t b = 0; b < batch; b++)
      codec_look_up(&e->books[which], some, codes + (b * levels + done) * n, n, n,
                    v.x + b * n * e->vq_d);
    sum = codec_convolve(p, &e->out[which], NULL, false, 0, which ? sum.x : NULL, &v);
  }
  return sum;
}

static struct codec_signal to_sound(nn_pass *p, const struct mimi_model *e, struct codec_state *s,
                                    struct codec_signal *z) {
  struct codec_signal y = *z;
  codec_tap(p, &y, "quantized");
  if (e->latent_stride > 1) y = codec_convolve(p, &e->up, s, false, 0, NULL, &y);
  codec_tap(p, &y, "upsample");
  transform(p, e, e->decoder_layer, "decoder_transformer", s, &y);
  return seanet_run(p, &e->config, &e->decoder, s, &y, true);
}

struct codec_signal mimi_decode_part(nn_pass *p, struct codec_state *s, const int64_t *codes,
                                     int32_t levels, int64_t frames) {
  const struct mimi_model *e = ((const struct codec_model *)nn_net_of(p))->mimi;
  struct codec_signal z = look_up(p, e, codes, 1, levels, frames);
  return to_sound(p, e, s, &z);
}

int32_t mimi_decode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct mimi_model *e = m->mimi;
  int64_t shape[3] = {0, 0, 0};
  const int64_t *codes = nn_need_ints(p, "audio_codes", 3, shape);
  if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "holds no codes");
  if (shape[1] > m->levels)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "has %lld lines, the model %d code books",
            (long long)shape[1], (int)m->levels);
  codec_check(p, "audio_codes", codes, shape[0] * shape[1] * shape[2], m->entries);
  struct codec_signal z = look_up(p, e, codes, shape[0], (int32_t)shape[1], shape[2]);
  struct codec_signal y = to_sound(p, e, NULL, &z);
  nn_result(p, VIV_F32, codec_planar(p, &y), NN_DIMS(y.batch, y.channels, y.n), "audio_values");
  return VIV_DONE;
}
