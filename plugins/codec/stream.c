/* Codecs over streams: sound comes in pieces of any size, codes go out as soon as they are known,
 * and the other way round. What comes out is that of the whole recording; memory does not grow with
 * its length.
 *
 * Causal systems (Mimi, EnCodec for 24 kHz) keep rows of each convolution, the LSTM's state and the
 * attention's keys. A reflection at the beginning needs the first rows at once, so that the first
 * chunk may be larger than those after it. DAC and SNAC look at both sides: a block is computed
 * together with as much around it as its results depend on, which is thrown away. EnCodec for 48 kHz
 * works on chunks anyway.
 *
 * Sound is what nn/sound.h says. Codes are I32, both ways the same: for each frame one of each code
 * book; SNAC: for each group of frames level by level; EnCodec for 48 kHz: for each chunk the number
 * of its frames, its scale as the bits of an F32, its frames. */
#include <math.h>
#include <string.h>

#include "codec/codec.h"
#include "nn/sound.h"

struct run {
  bool begun, ended, first;
  int32_t levels;
  int64_t unit;    /* bytes that belong together: a sample of all channels, a frame, a group */
  int64_t step;    /* units of a chunk */
  int64_t warm;    /* units of the first chunk */
  int64_t context; /* units around a block */
  int64_t room;    /* bytes of the buffer */
  int64_t have;    /* bytes in it */
  int64_t left;    /* units in it that were dealt with and stay as context */
  int64_t done;    /* units dealt with */
  int64_t chunks;  /* EnCodec for 48 kHz */
  char *buffer;
  nn_sound sound;       /* what is encoded; else codes come in as they are */
  double *sum, *weight; /* overlapping sound: [room of a chunk, channels], [room of a chunk] */
  int64_t waiting;      /* samples of it */
  int64_t whole;        /* samples of the first chunk */
  struct codec_state state;
};

static bool blockwise(const struct codec_model *m) {
  return m->kind == CODEC_DAC || m->kind == CODEC_SNAC;
}

/* ---- the buffer ---- */

/* Sound: whole samples until `bytes` are there. */
static int32_t fill_sound(nn_pass *p, struct run *r, int64_t bytes) {
  while (r->have < bytes && !r->ended) {
    int64_t got = 0;
    int32_t rc = nn_sound_read(p, &r->sound, (float *)(void *)(r->buffer + r->have),
                               (bytes - r->have) / r->unit, &got);
    if (rc == VIV_WAIT) return rc;
    r->ended = rc == VIV_DONE;
    r->have += got * r->unit;
  }
  return VIV_OK;
}

/* Codes, up to `bytes` of them. */
static int32_t fill_codes(nn_pass *p, struct run *r, int64_t bytes) {
  const viv_host *h = nn_host_of(p);
  while (r->have < bytes && !r->ended) {
    uint64_t got = 0;
    int32_t rc = h->stream_read(nn_value(p, "codes", 0)->stream, r->buffer + r->have,
                                (uint64_t)(bytes - r->have), &got);
    if (rc == VIV_WAIT) return VIV_WAIT;
    if (rc < 0) nn_stop(p, rc, "codes", "the stream could not be read");
    r->have += (int64_t)got;
    if (rc != VIV_DONE) continue;
    r->ended = true;
    if (r->have % r->unit)
      nn_stop(p, VIV_BAD_INPUT, "codes", "the stream ends %lld bytes into a unit of %lld",
              (long long)(r->have % r->unit), (long long)r->unit);
  }
  return VIV_OK;
}

/* Reads until `bytes` are there. VIV_OK: they are, or the stream has ended. */
static int32_t fill(nn_pass *p, struct run *r, int64_t bytes) {
  return r->sound.name ? fill_sound(p, r, bytes) : fill_codes(p, r, bytes);
}

static void drop(struct run *r, int64_t bytes) {
  memmove(r->buffer, r->buffer + bytes, (size_t)(r->have - bytes));
  r->have -= bytes;
}

static int64_t step_frames(nn_pass *p) {
  return nn_param_int(p, "chunk_frames", 1, 1, 64);
}

/* Room for `units`, and the state. */
static void start(nn_pass *p, struct run *r, int64_t units, int64_t state_floats) {
  r->begun = r->first = true;
  r->room = units * r->unit;
  r->buffer = nn_keep(p, r->room, 1);
  if (state_floats) r->state.memory = nn_keep(p, state_floats, sizeof(float));
}

/* ---- causal ---- */

/* Lines of codes [levels, frames] frame by frame. */
static void emit_codes(nn_pass *p, const int64_t *codes, int32_t levels, int64_t frames) {
  int32_t *out = nn_bytes(p, frames * levels, sizeof *out);
  for (int64_t i = 0; i < frames; i++)
    for (int32_t q = 0; q < levels; q++) out[i * levels + q] = (int32_t)codes[q * frames + i];
  nn_result(p, VIV_I32, out, NN_DIMS(frames, levels), "codes");
}

static int32_t encode_causal(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  if (!r->begun) {
    int64_t frames = step_frames(p);
    r->levels = codec_levels(p);
    r->unit = m->channels * (int64_t)sizeof(float);
    r->step = frames * m->hop;
    r->warm = (frames > m->encode_warm ? frames : m->encode_warm) * m->hop;
    start(p, r, r->warm, m->encode_floats);
  }
  int64_t want = r->first ? r->warm : r->step, frames = 0;
  int32_t rc = fill(p, r, want * r->unit);
  if (rc) return rc;
  int64_t n = r->have / r->unit;
  if (!n) return VIV_DONE;
  float *x = (float *)(void *)r->buffer;
  r->state.first = r->first;
  r->state.last = n < want;
  if (n < want && m->kind == CODEC_MIMI && m->mimi->kyutai) { /* to whole frames, as its package */
    int64_t whole = (n + m->hop - 1) / m->hop * m->hop;
    memset(x + n * m->channels, 0, (size_t)((whole - n) * r->unit));
    n = whole;
  }
  struct codec_signal in = {x, 1, n, m->channels};
  int64_t *codes = m->kind == CODEC_MIMI
                       ? mimi_encode_part(p, &r->state, &in, r->levels, &frames)
                       : encodec_encode_part(p, &r->state, &in, r->levels, &frames);
  emit_codes(p, codes, r->levels, frames);
  r->first = false;
  r->have = 0;
  return r->state.last ? VIV_DONE : VIV_MORE;
}

/* Frames of I32 codes side by side to lines of I64. */
static int64_t *lines_of(nn_pass *p, const int32_t *codes, int64_t frames, int32_t levels) {
  const struct codec_model *m = nn_net_of(p);
  int64_t *out = nn_bytes(p, frames * levels, sizeof *out);
  for (int64_t i = 0; i < frames; i++)
    for (int32_t q = 0; q < levels; q++) out[q * frames + i] = codes[i * levels + q];
  codec_check(p, "codes", out, frames * levels, m->entries);
  return out;
}

static int32_t decode_causal(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  if (!r->begun) {
    r->levels = codec_levels(p);
    r->unit = r->levels * (int64_t)sizeof(int32_t);
    r->step = step_frames(p);
    r->warm = r->step > m->decode_warm ? r->step : m->decode_warm;
    start(p, r, r->warm, m->decode_floats);
  }
  int64_t want = r->first ? r->warm : r->step;
  int32_t rc = fill(p, r, want * r->unit);
  if (rc) return rc;
  int64_t n = r->have / r->unit;
  if (!n) return VIV_DONE;
  r->state.first = r->first;
  r->state.last = n < want;
  int64_t *codes = lines_of(p, (const int32_t *)(void *)r->buffer, n, r->levels);
  struct codec_signal y = m->kind == CODEC_MIMI
                              ? mimi_decode_part(p, &r->state, codes, r->levels, n)
                              : encodec_decode_part(p, &r->state, codes, r->levels, n);
  nn_result(p, VIV_F32, codec_planar(p, &y), NN_DIMS(1, y.channels, y.n), "audio_values");
  r->first = false;
  r->have = 0;
  return r->state.last ? VIV_DONE : VIV_MORE;
}

/* ---- blocks: DAC and SNAC ---- */

/* The context that stays before the next block, in units. */
static void slide(struct run *r, int64_t body) {
  int64_t dealt = r->left + body, keep = dealt < r->context ? dealt : r->context;
  drop(r, (dealt - keep) * r->unit);
  r->left = keep;
  r->done += body;
}

/* The units of this block; -1: wait. The stream's last block takes all that is left. */
static int64_t next_body(nn_pass *p, struct run *r) {
  int32_t rc = fill(p, r, (r->left + r->step + r->context) * r->unit);
  if (rc) return -1;
  int64_t fresh = r->have / r->unit - r->left;
  return fresh < r->step + r->context ? fresh : r->step;
}

static int32_t encode_blocks(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  int64_t whole = dac_whole(m);
  if (!r->begun) {
    r->levels = codec_levels(p);
    r->unit = (int64_t)sizeof(float);
    r->context = dac_encode_reach(m);
    r->step = dac_block(m, r->context);
    start(p, r, 2 * r->context + r->step + whole, 0);
  }
  int64_t body = next_body(p, r);
  if (body < 0) return VIV_WAIT;
  if (!body) return VIV_DONE;
  bool last = r->ended && r->have / r->unit == r->left + body;
  float *x = (float *)(void *)r->buffer;
  int64_t n = r->have / r->unit;
  if (last) { /* to whole hops, as a recording that comes as a whole */
    int64_t filled = (body + whole - 1) / whole * whole;
    memset(x + n, 0, (size_t)(filled - body) * sizeof *x);
    n += filled - body;
    body = filled;
  } else {
    n = n < r->left + body + r->context ? n : r->left + body + r->context;
    n = n / whole * whole;
  }
  dac_encode_part(p, x, n, r->left / m->hop, body / m->hop, r->levels);
  if (last) return VIV_DONE;
  slide(r, body);
  return VIV_MORE;
}

static int32_t decode_blocks(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  int64_t frames = dac_group(m), each = 0;
  if (!r->begun) {
    r->levels = codec_levels(p);
    for (int32_t q = 0; q < r->levels; q++) each += frames / m->dac->vq_strides[q];
    r->unit = each * (int64_t)sizeof(int32_t);
    r->context = dac_decode_reach(m) / frames;
    r->step = dac_block(m, r->context * frames * m->hop) / (frames * m->hop);
    start(p, r, 2 * r->context + r->step, 0);
  }
  int64_t body = next_body(p, r);
  if (body < 0) return VIV_WAIT;
  if (!body) return VIV_DONE;
  bool last = r->ended && r->have / r->unit == r->left + body;
  dac_decode_part(p, (const int32_t *)(const void *)r->buffer, r->have / r->unit, r->left * frames,
                  last ? -1 : body * frames, (r->done - r->left) * frames, r->levels);
  if (last) return VIV_DONE;
  slide(r, body);
  return VIV_MORE;
}

/* ---- chunks: EnCodec for 48 kHz ---- */

static int32_t encode_chunks(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  if (!r->begun) {
    r->levels = codec_levels(p);
    r->unit = m->channels * (int64_t)sizeof(float);
    start(p, r, 3 * e->chunk, 0);
  }
  int64_t have = r->have / r->unit;
  if (!r->ended) {
    int32_t rc = fill(p, r, e->chunk * r->unit);
    if (rc) return rc;
    have = r->have / r->unit;
    if (r->ended && have && !m->original) { /* zeros to whole chunks, as the feature extractor */
      int64_t steps = (have + e->chunk_stride - 1) / e->chunk_stride;
      int64_t want = (steps - 1) * e->chunk_stride + e->chunk;
      memset(r->buffer + r->have, 0, (size_t)((want - have) * r->unit));
      have = want;
      r->have = want * r->unit;
    }
  }
  if (!have) return VIV_DONE;
  int64_t n = have < e->chunk ? have : e->chunk;
  encodec_encode_chunk(p, (const float *)(const void *)r->buffer, n, r->levels, r->chunks++);
  drop(r, (have < e->chunk_stride ? have : e->chunk_stride) * r->unit);
  return VIV_MORE;
}

/* Sound that no later chunk reaches goes out: `n` samples from the front. */
static void send_front(nn_pass *p, const struct codec_model *m, struct run *r, int64_t n) {
  int64_t ch = m->channels;
  if (n < 1) return;
  float *y = nn_room(p, n * ch);
  for (int64_t t = 0; t < n; t++)
    for (int64_t c = 0; c < ch; c++) y[c * n + t] = (float)(r->sum[t * ch + c] / r->weight[t]);
  nn_result(p, VIV_F32, y, NN_DIMS(1, ch, n), "audio_values");
  r->waiting -= n;
  memmove(r->sum, r->sum + n * ch, (size_t)(r->waiting * ch) * sizeof *r->sum);
  memmove(r->weight, r->weight + n, (size_t)r->waiting * sizeof *r->weight);
}

static void overlap(struct run *r, const float *y, int64_t n, int64_t ch) {
  if (!r->whole) r->whole = n; /* the weights are those of a whole chunk */
  if (r->waiting < n) {
    memset(r->sum + r->waiting * ch, 0, (size_t)((n - r->waiting) * ch) * sizeof *r->sum);
    memset(r->weight + r->waiting, 0, (size_t)(n - r->waiting) * sizeof *r->weight);
    r->waiting = n;
  }
  for (int64_t t = 0; t < n; t++) {
    double w = 0.5 - fabs((double)(t + 1) / (double)(r->whole + 1) - 0.5);
    r->weight[t] += w;
    for (int64_t c = 0; c < ch; c++) r->sum[t * ch + c] += w * (double)y[c * n + t];
  }
}

static int32_t decode_chunks(nn_pass *p, struct run *r) {
  const struct codec_model *m = nn_net_of(p);
  const struct encodec_model *e = m->encodec;
  int64_t most = (e->chunk + m->hop - 1) / m->hop, n = 0;
  if (!r->begun) {
    r->levels = codec_levels(p);
    r->unit = (int64_t)sizeof(int32_t);
    start(p, r, 2 + most * r->levels, 0);
    r->sum = nn_keep(p, (most * m->hop + e->chunk) * m->channels, sizeof *r->sum);
    r->weight = nn_keep(p, most * m->hop + e->chunk, sizeof *r->weight);
  }
  const int32_t *head = (const int32_t *)(const void *)r->buffer;
  int32_t rc = fill(p, r, 2 * r->unit);
  if (rc) return rc;
  if (!r->have) {
    send_front(p, m, r, r->waiting);
    return VIV_DONE;
  }
  if (r->have < 2 * r->unit || head[0] < 1 || head[0] > most)
    nn_stop(p, VIV_BAD_INPUT, "codes", "chunk %lld begins with no number of frames",
            (long long)r->chunks);
  int64_t frames = head[0], bytes = (2 + frames * r->levels) * r->unit;
  if ((rc = fill(p, r, bytes))) return rc;
  if (r->have < bytes)
    nn_stop(p, VIV_BAD_INPUT, "codes", "chunk %lld is cut short", (long long)r->chunks);
  float scale = 1;
  memcpy(&scale, &head[1], sizeof scale);
  if (!isfinite(scale))
    nn_stop(p, VIV_BAD_INPUT, "codes", "the scale of chunk %lld is no number",
            (long long)r->chunks);
  int64_t *codes = lines_of(p, head + 2, frames, r->levels);
  float *y = encodec_decode_chunk(p, codes, frames, r->levels, e->normalize ? &scale : NULL, &n);
  if (r->chunks && r->waiting < e->chunk_stride)
    nn_stop(p, VIV_BAD_INPUT, "codes", "chunk %lld is short, but is not the last",
            (long long)r->chunks - 1);
  send_front(p, m, r, r->chunks++ ? e->chunk_stride : 0);
  overlap(r, y, n, m->channels);
  drop(r, bytes);
  return VIV_MORE;
}

/* ---- tasks ---- */

int32_t codec_encode_stream(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  struct run *r = nn_state(p, sizeof *r);
  if (!r->sound.name) nn_sound_open(p, &r->sound, "audio", m->rate, m->channels, false);
  if (m->streams) return encode_causal(p, r);
  if (blockwise(m)) return encode_blocks(p, r);
  if (m->encodec->chunk) return encode_chunks(p, r);
  nn_stop(p, VIV_NEVER, "audio", "this EnCodec is not causal and has no chunks: no streams");
}

int32_t codec_decode_stream(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  struct run *r = nn_state(p, sizeof *r);
  if (m->streams) return decode_causal(p, r);
  if (blockwise(m)) return decode_blocks(p, r);
  if (m->encodec->chunk) return decode_chunks(p, r);
  nn_stop(p, VIV_NEVER, "codes", "this EnCodec is not causal and has no chunks: no streams");
}
