/* Audio codecs: which system config.json names, its weights, the table of the plugin. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/codec.h"
#include "nn/sound.h"

/* ---- tasks ---- */

static int32_t encode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  if (nn_streamed(p, "audio")) return codec_encode_stream(p);
  switch (m->kind) {
  case CODEC_ENCODEC:
    return encodec_encode(p);
  case CODEC_MIMI:
    return mimi_encode(p);
  case CODEC_DAC:
    return dac_encode(p);
  default:
    return snac_encode(p);
  }
}

static int32_t decode(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  if (nn_streamed(p, "codes")) return codec_decode_stream(p);
  switch (m->kind) {
  case CODEC_ENCODEC:
    return encodec_decode(p);
  case CODEC_MIMI:
    return mimi_decode(p);
  case CODEC_DAC:
    return dac_decode(p);
  default:
    return snac_decode(p);
  }
}

static const nn_task tasks[] = {{"encode", encode}, {"decode", decode}, {NULL, NULL}};

/* ---- the model ---- */

static enum codec_kind kind_of(const nn_config *k) {
  static const char *const names[] = {"encodec", "mimi", "dac", "snac"};
  viv_str type = k->host->json_string(nn_key(k, "model_type"));
  for (int i = 0; i < 4; i++)
    if (nn_is(type, names[i])) return (enum codec_kind)(i + 1);
  return 0;
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct codec_model *m, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  if (k.status) return k.status;
  switch (m->kind) {
  case CODEC_ENCODEC:
    encodec_config(&k, m, source);
    break;
  case CODEC_MIMI:
    mimi_config(&k, m, source);
    break;
  default:
    dac_config(&k, m, source);
  }
  if (!k.status && m->hop > 1 << 20)
    return nn_fail(error, VIV_BAD_INPUT, "config.json", "a frame has %lld samples",
                   (long long)m->hop);
  return k.status;
}

static void tables(nn_loader *l, void *model) {
  struct codec_model *m = model;
  nn_at(l, "%s", "");
  switch (m->kind) {
  case CODEC_ENCODEC:
    encodec_tables(l, m);
    break;
  case CODEC_MIMI:
    mimi_tables(l, m);
    break;
  default:
    dac_tables(l, m);
  }
}

/* The struct of the system; plan() has none of the model's memory and uses the stack's. */
union any {
  struct encodec_model encodec;
  struct mimi_model mimi;
  struct dac_model dac;
};

static int32_t begin(const viv_host *host, const viv_model_source *source, struct codec_model *m,
                     union any *any, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  if (k.status) return k.status;
  m->kind = kind_of(&k);
  if (!m->kind)
    return nn_fail(error, VIV_NEVER, "config.json",
                   "model_type is none of encodec, mimi, dac, snac");
  m->encodec = &any->encodec;
  return config_read(host, source, m, error);
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct codec_model m = {0};
  union any any;
  memset(&any, 0, sizeof any);
  int32_t rc = begin(host, source, &m, &any, error);
  if (rc < 0) return rc;
  uint64_t bytes = sizeof m + sizeof any + 256;
  if (m.kind == CODEC_MIMI) bytes += 2 * (uint64_t)m.mimi->layers * sizeof(struct mimi_layer);
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  /* The widest signals: those at the rate of the waveform, for a second of it. */
  int64_t wide =
      m.kind == CODEC_ENCODEC || m.kind == CODEC_MIMI
          ? m.encodec->config.filters
          : (m.dac->width > m.dac->up_width >> m.dac->n_up ? m.dac->width
                                                           : m.dac->up_width >> m.dac->n_up);
  if (m.kind == CODEC_MIMI) wide = m.mimi->config.filters;
  out->step_bytes = (uint64_t)(4 * wide * m.rate) * sizeof(float);
  return VIV_OK;
}

/* Tells code books of one family apart: FNV-1a over the bits of the first one. */
static unsigned long long checksum(const struct codec_model *m) {
  int64_t d = 0;
  const float *book = NULL;
  unsigned long long hash = 0xcbf29ce484222325u;
  if (m->kind == CODEC_ENCODEC)
    book = m->encodec->books.book[0], d = m->encodec->books.d;
  else if (m->kind == CODEC_MIMI)
    book = m->mimi->books[0].book[0], d = m->mimi->books[0].d;
  else
    book = m->dac->books[0].book, d = m->dac->book_dim;
  for (int64_t i = 0; book && i < m->entries * d; i++) {
    uint32_t bits;
    memcpy(&bits, &book[i], sizeof bits);
    hash = (hash ^ bits) * 0x100000001b3u;
  }
  return hash;
}

static void describe(struct codec_model *m) {
  static const char *const names[] = {"", "encodec", "mimi", "dac", "snac"};
  bool blocks = m->kind == CODEC_DAC || m->kind == CODEC_SNAC;
  int used =
      snprintf(m->about, sizeof m->about,
               "{\"family\":\"%s\",\"sampling_rate\":%lld,\"channels\":%d,\"codebooks\":%d,"
               "\"default_codebooks\":%d,\"codebook_size\":%lld,\"hop\":%lld,"
               "\"frame_rate\":%.17g,\"kbps_per_codebook\":%.17g,\"causal\":%s,"
               "\"first_frames\":[%lld,%lld],\"books\":\"%016llx\",\"group\":%lld,"
               "\"lookahead\":[%lld,%lld]",
               names[m->kind], (long long)m->rate, (int)m->channels, (int)m->levels, (int)m->used,
               (long long)m->entries, (long long)m->hop, (double)m->rate / (double)m->hop,
               codec_book_rate(m) / 1000, m->streams ? "true" : "false", (long long)m->encode_warm,
               (long long)m->decode_warm, checksum(m), (long long)(blocks ? dac_group(m) : 1),
               (long long)(blocks ? dac_encode_reach(m) : 0),
               (long long)(blocks ? dac_decode_reach(m) * m->hop : 0));
  if (m->kind == CODEC_ENCODEC && m->encodec->chunk)
    used += snprintf(m->about + used, sizeof m->about - (size_t)used,
                     ",\"chunk\":%lld,\"chunk_stride\":%lld", (long long)m->encodec->chunk,
                     (long long)m->encodec->chunk_stride);
  if (m->kind == CODEC_SNAC)
    for (int32_t i = 0; i < m->levels && used < (int)sizeof m->about - 40; i++)
      used += snprintf(m->about + used, sizeof m->about - (size_t)used, "%s%d",
                       i ? "," : ",\"strides\":[", (int)m->dac->vq_strides[i]);
  snprintf(m->about + used, sizeof m->about - (size_t)used, "%s",
           m->kind == CODEC_SNAC ? "]}" : "}");
  m->net.about = m->about;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct codec_model *m = host->arena_alloc(source->arena, sizeof *m);
  union any *any = m ? host->arena_alloc(source->arena, sizeof *any) : NULL;
  if (!any) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, tasks, error);
  if (rc >= 0) rc = begin(host, source, m, any, error);
  if (rc < 0) return rc;
  if (m->kind == CODEC_MIMI) {
    uint64_t n = (uint64_t)m->mimi->layers;
    m->mimi->encoder_layer = host->arena_alloc(source->arena, 2 * n * sizeof(struct mimi_layer));
    if (!m->mimi->encoder_layer)
      return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
    m->mimi->decoder_layer = m->mimi->encoder_layer + n;
  }
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  describe(m);
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("codec", "0.1.0", {VIV_MODEL_ID, &model_api})
