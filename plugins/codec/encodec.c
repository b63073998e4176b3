/* EnCodec: SEANet, residual code books, SEANet backwards. The model for 48 kHz works on chunks that
 * overlap, each divided by its loudness. Official: encodec/model.py; transformers'
 * modeling_encodec.py. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"

/* ---- config.json and weights ---- */

/* The keys of SEANet as both families of files spell them. */
void encodec_config(nn_config *k, struct codec_model *m, const viv_model_source *source) {
  struct encodec_model *e = m->encodec;
  struct seanet_config *c = &e->config;
  m->original = nn_has(k->host, source, "encoder.model.0.conv.conv.bias");
  c->names = m->original ? &codec_original : &codec_transformers;
  m->rate = nn_int(k, "sampling_rate", 24000, 1000, 768000);
  m->channels = c->channels = (int32_t)nn_int(k, "audio_channels", 1, 1, 8);
  c->filters = (int32_t)nn_int(k, "num_filters", 32, 1, 1024);
  c->dimension = (int32_t)nn_int(k, "hidden_size", 128, 1, 1 << 14);
  c->kernel = (int32_t)nn_int(k, "kernel_size", 7, 1, 64);
  c->last_kernel = (int32_t)nn_int(k, "last_kernel_size", 7, 1, 64);
  c->residual_kernel = (int32_t)nn_int(k, "residual_kernel_size", 3, 1, 64);
  c->residual_layers = (int32_t)nn_int(k, "num_residual_layers", 1, 0, 4);
  c->dilation_base = (int32_t)nn_int(k, "dilation_growth_rate", 2, 1, 16);
  c->compress = (int32_t)nn_int(k, "compress", 2, 1, c->filters > 1 ? c->filters : 1);
  c->lstm_layers = (int32_t)nn_int(k, "num_lstm_layers", 2, 0, 4);
  c->shortcut = nn_flag(k, "use_conv_shortcut", true);
  c->causal = nn_flag(k, "use_causal_conv", true);
  c->trim_right = nn_num(k, "trim_right_ratio", 1, 0, 1);
  c->n_ratios = nn_ints(k, "upsampling_ratios", c->ratios, CODEC_MAX_RATIOS, 1, 256);
  if (!c->n_ratios) {
    memcpy(c->ratios, (const int32_t[]){8, 5, 4, 2}, 4 * sizeof(int32_t));
    c->n_ratios = 4;
  }
  viv_str pad = nn_text(k, "pad_mode", "reflect");
  c->pad = nn_is(pad, "reflect")     ? VIV_PAD_REFLECT
           : nn_is(pad, "replicate") ? VIV_PAD_REPLICATE
                                     : VIV_PAD_ZEROS;
  viv_str norm = nn_text(k, "norm_type", "weight_norm");
  c->group_norm = nn_is(norm, "time_group_norm");
  if (!k->status && !c->group_norm && !nn_is(norm, "weight_norm"))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "norm_type is neither weight_norm nor time_group_norm");
  m->entries = nn_int(k, "codebook_size", 1024, 2, 1 << 20);
  e->books.k = m->entries;
  e->books.d = c->dimension;
  e->normalize = nn_flag(k, "normalize", false);
  m->hop = seanet_hop(c);
  double seconds = nn_num(k, "chunk_length_s", 0, 0, 3600);
  double overlap = nn_num(k, "overlap", 0, 0, 0.99);
  e->chunk = (int64_t)(seconds * (double)m->rate);
  e->chunk_stride = (int64_t)((1 - overlap) * (double)e->chunk);
  if (e->chunk && e->chunk_stride < 1) e->chunk_stride = 1;
  const viv_json *list = nn_key(k, "target_bandwidths");
  e->n_bandwidths = 0;
  for (int64_t i = 0; i < 8 && i < k->host->json_count(list); i++)
    e->bandwidths[e->n_bandwidths++] = k->host->json_number(k->host->json_item(list, i));
  for (m->levels = 0; m->levels < CODEC_MAX_BOOKS; m->levels++) {
    char name[96];
    snprintf(name, sizeof name,
             m->original ? "quantizer.vq.layers.%d._codebook.embed"
                         : "quantizer.layers.%d.codebook.embed",
             (int)m->levels);
    if (!nn_has(k->host, source, name)) break;
  }
  if (!k->status && !m->levels)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "weights", "the checkpoint holds no code book");
  e->books.n = m->levels;
  m->used = m->levels;
  if (e->n_bandwidths) {
    double n = floor(e->bandwidths[0] * 1000 / codec_book_rate(m));
    m->used = n < 1 ? 1 : n > m->levels ? m->levels : (int32_t)n;
  }
  m->streams = c->causal && !e->chunk && !e->normalize && c->trim_right >= 1;
}

void encodec_tables(nn_loader *l, struct codec_model *m) {
  struct encodec_model *e = m->encodec;
  m->encode_floats = m->decode_floats = 0;
  seanet_tables(l, &e->config, false, &e->encoder, &m->encode_floats);
  seanet_tables(l, &e->config, true, &e->decoder, &m->decode_floats);
  for (int32_t q = 0; q < m->levels; q++) {
    size_t outer = nn_in(
        l, m->original ? "quantizer.vq.layers.%d._codebook." : "quantizer.layers.%d.codebook.",
        (int)q);
    const int64_t shape[2] = {e->books.k, e->books.d};
    nn_load_tensor(l, "embed", true, 2, shape, &e->books.book[q]);
    nn_out(l, outer);
  }
  nn_ignore(l, "quantizer.*.embed_avg"); /* running means of the training */
  nn_ignore(l, "quantizer.*.cluster_size");
  nn_ignore(l, "quantizer.*.inited");
  if (l->pass != NN_PREPARE) return;
  m->encode_warm = (seanet_warm(&e->encoder, false) + m->hop - 1) / m->hop;
  m->decode_warm = seanet_warm(&e->decoder, true);
}

/* ---- encode ---- */

/* One chunk of the sound: its scale, its latents, its codes [row, level, frame]. */
struct chunk {
  int64_t frames;
  int64_t *codes;
  float *scale; /* [rows]; NULL: none */
};

/* x [rows, channels, n] divided by sqrt(mean(mono^2)) + 1e-8, row by row. */
static float *loudness(nn_pass *p, float *x, int64_t rows, int64_t channels, int64_t n) {
  float *scale = nn_room(p, rows);
  for (int64_t r = 0; r < rows; r++, x += channels * n) {
    double sum = 0;
    for (int64_t t = 0; t < n; t++) {
      double mono = 0;
      for (int64_t c = 0; c < channels; c++) mono += (double)x[c * n + t];
      sum += mono / (double)channels * (mono / (double)channels);
    }
    scale[r] = (float)(sqrt(sum / (double)n) + 1e-8);
    for (int64_t i = 0; i < channels * n; i++) x[i] /= scale[r];
  }
  return scale;
}

static struct chunk encode_chunk(nn_pass *p, const float *x, int64_t rows, int64_t n,
                                 int32_t levels, int64_t number) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  struct chunk out = {0};
  float *mine = nn_room(p, rows * m->channels * n);
  memcpy(mine, x, (size_t)(rows * m->channels * n) * sizeof *x);
  if (e->normalize) out.scale = loudness(p, mine, rows, m->channels, n);
  int64_t frames = (n + m->hop - 1) / m->hop;
  out.codes = nn_bytes(p, rows * levels * frames, sizeof *out.codes);
  nn_mark mark = nn_here(p);
  struct codec_signal in = codec_turned(p, mine, rows, m->channels, n);
  struct codec_signal z = seanet_run(p, &e->config, &e->encoder, NULL, &in, !number);
  if (z.n != frames)
    nn_stop(p, VIV_BUG, "encoder", "%lld frames came out, %lld were expected", (long long)z.n,
            (long long)frames);
  if (e->chunk)
    codec_tap(p, &z, "embeddings.%lld", (long long)number);
  else
    codec_tap(p, &z, "embeddings");
  out.frames = z.n;
  for (int64_t r = 0; r < rows; r++)
    codec_quantize(p, &e->books, levels, z.x + r * z.n * z.channels, z.n,
                   out.codes + r * levels * frames, frames);
  nn_release(p, mark);
  return out;
}

int64_t *encodec_encode_part(nn_pass *p, struct codec_state *s, const struct codec_signal *x,
                             int32_t levels, int64_t *frames) {
  const struct encodec_model *e = ((const struct codec_model *)nn_net_of(p))->encodec;
  struct codec_signal z = seanet_run(p, &e->config, &e->encoder, s, x, false);
  int64_t *codes = nn_bytes(p, levels * z.n, sizeof *codes);
  codec_quantize(p, &e->books, levels, z.x, z.n, codes, z.n);
  *frames = z.n;
  return codes;
}

/* As EncodecFeatureExtractor: zeros up to whole chunks. */
static const float *whole_chunks(nn_pass *p, const float *x, int64_t signals, int64_t *n) {
  const struct encodec_model *e = ((const struct codec_model *)nn_net_of(p))->encodec;
  int64_t steps = (*n + e->chunk_stride - 1) / e->chunk_stride;
  int64_t want = (steps - 1) * e->chunk_stride + e->chunk, have = *n;
  if (want <= have) return x;
  float *y = nn_room(p, signals * want);
  for (int64_t i = 0; i < signals; i++) {
    memcpy(y + i * want, x + i * have, (size_t)have * sizeof *x);
    memset(y + i * want + have, 0, (size_t)(want - have) * sizeof *y);
  }
  *n = want;
  return y;
}

/* Samples that the mask [rows, n] or [rows, 1, n] leaves out become zeros. */
static const float *masked(nn_pass *p, const float *x, int64_t rows, int64_t channels, int64_t n) {
  const viv_tensor *t = nn_input(p, "padding_mask");
  if (!t) return x;
  const float *mask = nn_as_floats(p, t, "padding_mask");
  int64_t have = 1;
  for (int32_t i = 0; i < t->ndim; i++) have *= t->shape[i];
  if (have != rows * n && have != n)
    nn_stop(p, VIV_BAD_INPUT, "padding_mask", "has %lld values, the sound has %lld samples",
            (long long)have, (long long)(rows * n));
  float *y = nn_room(p, rows * channels * n);
  for (int64_t i = 0; i < rows * channels; i++)
    for (int64_t t0 = 0; t0 < n; t0++)
      y[i * n + t0] = mask[(have == n ? 0 : i / channels * n) + t0] != 0.0f ? x[i * n + t0] : 0.0f;
  return y;
}

static void emit_chunks(nn_pass *p, const struct chunk *chunk, int64_t chunks, int64_t rows,
                        int32_t levels) {
  const struct codec_model *m = nn_net_of(p);
  if (m->original) {
    for (int64_t i = 0; i < chunks; i++) {
      nn_result(p, VIV_I64, chunk[i].codes, NN_DIMS(rows, levels, chunk[i].frames),
                "audio_codes.%lld", (long long)i);
      if (chunk[i].scale)
        nn_result(p, VIV_F32, chunk[i].scale, NN_DIMS(rows, 1), "audio_scales.%lld", (long long)i);
    }
    return;
  }
  int64_t frames = chunk[0].frames, lines = rows * levels;
  int64_t missing = frames - chunk[chunks - 1].frames;
  int64_t *codes = nn_bytes(p, chunks * lines * frames, sizeof *codes);
  float *scales = nn_room(p, chunks * rows);
  memset(codes, 0, (size_t)(chunks * lines * frames) * sizeof *codes);
  for (int64_t i = 0; i < chunks; i++) {
    for (int64_t j = 0; j < lines; j++)
      memcpy(codes + (i * lines + j) * frames, chunk[i].codes + j * chunk[i].frames,
             (size_t)chunk[i].frames * sizeof *codes);
    for (int64_t r = 0; r < rows && chunk[i].scale; r++) scales[i * rows + r] = chunk[i].scale[r];
  }
  nn_result(p, VIV_I64, codes, NN_DIMS(chunks, rows, levels, frames), "audio_codes");
  if (chunk[0].scale) nn_result(p, VIV_F32, scales, NN_DIMS(chunks, rows, 1), "audio_scales");
  nn_result(p, VIV_I64, &missing, NN_DIMS(1), "last_frame_pad_length");
}

void encodec_encode_chunk(nn_pass *p, const float *x, int64_t n, int32_t levels, int64_t number) {
  const struct codec_model *m = nn_net_of(p);
  const struct codec_signal in = {(float *)(uintptr_t)x, 1, n, m->channels}; /* only read */
  struct chunk c = encode_chunk(p, codec_planar(p, &in), 1, n, levels, number);
  int32_t *out = nn_bytes(p, 2 + c.frames * levels, sizeof *out);
  float scale = c.scale ? c.scale[0] : 1;
  out[0] = (int32_t)c.frames;
  memcpy(&out[1], &scale, sizeof scale);
  for (int64_t i = 0; i < c.frames; i++)
    for (int32_t q = 0; q < levels; q++)
      out[2 + i * levels + q] = (int32_t)c.codes[q * c.frames + i];
  nn_result(p, VIV_I32, out, NN_DIMS(2 + c.frames * levels), "codes");
}

int32_t encodec_encode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  int64_t rows = 0, n = 0;
  bool from_audio = false;
  int32_t levels = codec_levels(p);
  const float *x = codec_sound(p, &rows, &n, &from_audio);
  if (from_audio && e->chunk && !m->original) x = whole_chunks(p, x, rows * m->channels, &n);
  if (!from_audio && e->normalize) x = masked(p, x, rows, m->channels, n);
  int64_t length = e->chunk ? e->chunk : n, stride = e->chunk ? e->chunk_stride : n;
  int64_t chunks = (n + stride - 1) / stride;
  struct chunk *chunk = nn_bytes(p, chunks, sizeof *chunk);
  for (int64_t i = 0; i < chunks; i++) {
    int64_t at = i * stride, some = n - at < length ? n - at : length;
    const float *part = x;
    if (chunks > 1) {
      float *copy = nn_room(p, rows * m->channels * some);
      for (int64_t j = 0; j < rows * m->channels; j++)
        memcpy(copy + j * some, x + j * n + at, (size_t)some * sizeof *copy);
      part = copy;
    }
    chunk[i] = encode_chunk(p, part, rows, some, levels, i);
    nn_progress(p, (double)(i + 1) / (double)chunks);
  }
  emit_chunks(p, chunk, chunks, rows, levels);
  return VIV_DONE;
}

/* ---- decode ---- */

/* Codes of one chunk, [rows, levels, frames] with line and row strides. */
struct part {
  const int64_t *codes;
  int64_t frames, row_stride, line_stride;
  const float *scale;
};

/* One chunk as sound, [rows, channels, *n]. */
static float *decode_part(nn_pass *p, const struct part *c, int64_t rows, int32_t levels,
                          bool tapped, int64_t *n) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  struct codec_signal z = {.batch = rows, .n = c->frames, .channels = e->config.dimension};
  z.x = nn_room(p, rows * z.n * z.channels);
  memset(z.x, 0, (size_t)(rows * z.n * z.channels) * sizeof *z.x);
  for (int64_t r = 0; r < rows; r++)
    codec_look_up(&e->books, levels, c->codes + r * c->row_stride, c->line_stride, z.n,
                  z.x + r * z.n * z.channels);
  struct codec_signal y = seanet_run(p, &e->config, &e->decoder, NULL, &z, tapped);
  float *out = codec_planar(p, &y);
  for (int64_t r = 0; r < rows && c->scale; r++)
    for (int64_t i = 0; i < y.channels * y.n; i++) out[r * y.channels * y.n + i] *= c->scale[r];
  *n = y.n;
  return out;
}

struct codec_signal encodec_decode_part(nn_pass *p, struct codec_state *s, const int64_t *codes,
                                        int32_t levels, int64_t frames) {
  const struct encodec_model *e = ((const struct codec_model *)nn_net_of(p))->encodec;
  struct codec_signal z = {.batch = 1, .n = frames, .channels = e->config.dimension};
  z.x = nn_room(p, z.n * z.channels);
  memset(z.x, 0, (size_t)(z.n * z.channels) * sizeof *z.x);
  codec_look_up(&e->books, levels, codes, frames, frames, z.x);
  return seanet_run(p, &e->config, &e->decoder, s, &z, false);
}

float *encodec_decode_chunk(nn_pass *p, const int64_t *codes, int64_t frames, int32_t levels,
                            const float *scale, int64_t *n) {
  struct part part = {codes, frames, levels * frames, frames, scale};
  return decode_part(p, &part, 1, levels, false, n);
}

/* The chunks added where they overlap, each weighted by a triangle, divided by the weights' sum. */
static float *overlap_add(nn_pass *p, float *const *part, const int64_t *n, int64_t chunks,
                          int64_t signals, int64_t stride, int64_t *total) {
  *total = stride * (chunks - 1) + n[chunks - 1];
  float *out = nn_room(p, signals * *total);
  double *sum = nn_bytes(p, signals * *total, sizeof *sum), *all = nn_bytes(p, *total, sizeof *all);
  memset(sum, 0, (size_t)(signals * *total) * sizeof *sum);
  memset(all, 0, (size_t)*total * sizeof *all);
  for (int64_t i = 0; i < chunks; i++)
    for (int64_t t = 0; t < n[i] && i * stride + t < *total; t++) {
      double w = 0.5 - fabs((double)(t + 1) / (double)(n[0] + 1) - 0.5);
      all[i * stride + t] += w;
      for (int64_t j = 0; j < signals; j++)
        sum[j * *total + i * stride + t] += w * (double)part[i][j * n[i] + t];
    }
  for (int64_t j = 0; j < signals; j++)
    for (int64_t t = 0; t < *total; t++)
      out[j * *total + t] = (float)(sum[j * *total + t] / all[t]);
  return out;
}

/* audio_codes [chunk, row, level, frame]. */
static struct part *stacked_parts(nn_pass *p, int64_t *chunks, int64_t *rows, int32_t *levels) {
  const struct codec_model *m = nn_net_of(p);
  int64_t shape[4] = {0, 0, 0, 0}, one[3] = {0, 0, 1}, missing[1] = {1};
  const int64_t *codes = nn_need_ints(p, "audio_codes", 4, shape);
  const float *scales = nn_some_floats(p, "audio_scales", 3, one);
  const int64_t *cut = nn_some_ints(p, "last_frame_pad_length", 1, missing);
  if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1 || shape[3] < 1)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "holds no codes");
  codec_check(p, "audio_codes", codes, shape[0] * shape[1] * shape[2] * shape[3], m->entries);
  if (scales && one[0] * one[1] != shape[0] * shape[1])
    nn_stop(p, VIV_BAD_INPUT, "audio_scales", "must hold one scale per chunk and row");
  if (cut && (*cut < 0 || *cut >= shape[3]))
    nn_stop(p, VIV_BAD_INPUT, "last_frame_pad_length", "is %lld, a chunk has %lld frames",
            (long long)*cut, (long long)shape[3]);
  struct part *part = nn_bytes(p, shape[0], sizeof *part);
  for (int64_t i = 0; i < shape[0]; i++)
    part[i] = (struct part){.codes = codes + i * shape[1] * shape[2] * shape[3],
                            .frames = shape[3] - (cut && i == shape[0] - 1 ? *cut : 0),
                            .row_stride = shape[2] * shape[3],
                            .line_stride = shape[3],
                            .scale = scales ? scales + i * shape[1] : NULL};
  *chunks = shape[0];
  *rows = shape[1];
  *levels = (int32_t)(shape[2] > m->levels ? m->levels + 1 : shape[2]);
  return part;
}

/* audio_codes.N [row, level, frame]. */
static struct part *numbered_parts(nn_pass *p, int64_t *chunks, int64_t *rows, int32_t *levels) {
  const struct codec_model *m = nn_net_of(p);
  struct part *part = NULL;
  char name[40] = "audio_codes.0", scale[40];
  for (*chunks = 0; nn_input(p, name);) {
    ++*chunks;
    snprintf(name, sizeof name, "audio_codes.%lld", (long long)*chunks);
  }
  part = nn_bytes(p, *chunks, sizeof *part);
  for (int64_t i = 0; i < *chunks; i++) {
    int64_t shape[3] = {i ? *rows : 0, i ? *levels : 0, 0}, one[2] = {0, 1};
    snprintf(name, sizeof name, "audio_codes.%lld", (long long)i);
    snprintf(scale, sizeof scale, "audio_scales.%lld", (long long)i);
    const int64_t *codes = nn_need_ints(p, name, 3, shape);
    if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1)
      nn_stop(p, VIV_BAD_INPUT, name, "holds no codes");
    codec_check(p, name, codes, shape[0] * shape[1] * shape[2], m->entries);
    *rows = one[0] = shape[0];
    *levels = (int32_t)(shape[1] > m->levels ? m->levels + 1 : shape[1]);
    part[i] = (struct part){codes, shape[2], shape[1] * shape[2], shape[2],
                            nn_some_floats(p, scale, 2, one)};
  }
  return part;
}

/* To the length that the caller knows: of the mask, or as it says. */
static int64_t wanted_length(nn_pass *p, int64_t n) {
  const viv_tensor *mask = nn_input(p, "padding_mask");
  int64_t length = nn_param_int(p, "length", n, 1, INT64_MAX / 64);
  if (mask && mask->ndim && mask->shape[mask->ndim - 1] < length)
    length = mask->shape[mask->ndim - 1];
  return length < n ? length : n;
}

int32_t encodec_decode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  int64_t chunks = 0, rows = 0, total = 0;
  int32_t levels = 0;
  struct part *part = nn_input(p, "audio_codes.0") ? numbered_parts(p, &chunks, &rows, &levels)
                                                   : stacked_parts(p, &chunks, &rows, &levels);
  if (levels > m->levels)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "has more lines than the model's %d code books",
            (int)m->levels);
  if (chunks > 1 && !e->chunk)
    nn_stop(p, VIV_BAD_INPUT, "audio_codes", "has %lld chunks, this model works on one",
            (long long)chunks);
  float **sound = nn_bytes(p, chunks, sizeof *sound);
  int64_t *n = nn_bytes(p, chunks, sizeof *n), signals = rows * m->channels;
  for (int64_t i = 0; i < chunks; i++) {
    sound[i] = decode_part(p, &part[i], rows, levels, !i, &n[i]);
    nn_progress(p, (double)(i + 1) / (double)chunks);
  }
  float *y = sound[0];
  total = n[0];
  if (e->chunk) y = overlap_add(p, sound, n, chunks, signals, e->chunk_stride, &total);
  int64_t length = wanted_length(p, total);
  for (int64_t i = 1; i < signals && length < total; i++)
    memmove(y + i * length, y + i * total, (size_t)length * sizeof *y);
  nn_result(p, VIV_F32, y, NN_DIMS(rows, m->channels, length), "audio_values");
  if (nn_wants_result(p, "untrimmed_length"))
    nn_result(p, VIV_I64, &total, NN_DIMS(1), "untrimmed_length");
  return VIV_DONE;
}
