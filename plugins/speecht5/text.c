/* SpeechT5 with a decoder of text: what was said, character by character.
 *
 *   E[ids] + sinusoids -> decoder layers, post-norm: x = LN(x + A(x)); x = LN(x + C(x, encoded));
 *   x = LN(x + F(x)) -> Linear without bias (the embedding, where the file has no other)
 *
 * Official: transformers models/speecht5 (SpeechT5ForSpeechToText). */
#include <math.h>
#include <string.h>

#include "nn/text.h"
#include "speecht5/speecht5.h"

struct writer {
  int64_t rows, past;
  nn_decoder_memory *memory;
  const uint8_t *mask;
};

static struct writer begin(nn_pass *p, const struct speecht5_encoded *e, int64_t tokens) {
  const struct speecht5_model *m = nn_net_of(p);
  struct writer w = {.rows = e->rows, .mask = e->mask};
  w.memory = nn_bytes(p, m->config.decoder_layers, sizeof *w.memory);
  for (int32_t i = 0; i < m->config.decoder_layers; i++)
    w.memory[i] = nn_new_memory(p, &m->decoder[i], e->rows, tokens, e->x, e->length);
  return w;
}

/* Reads n more tokens of each row: their states [rows, n, d]. A pad has no place and takes none. */
static float *read_tokens(nn_pass *p, struct writer *w, const int64_t *ids, int64_t n, bool taps) {
  const struct speecht5_model *m = nn_net_of(p);
  const struct speecht5_config *c = &m->config;
  int64_t all = w->rows * n;
  float *x = nn_room(p, all * c->d);
  int32_t *index = nn_bytes(p, all, sizeof *index);
  for (int64_t i = 0; i < all; i++) {
    if (ids[i] < 0 || ids[i] >= c->vocab)
      nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "item %lld is %lld, but must be below %lld",
              (long long)i, (long long)ids[i], (long long)c->vocab);
    index[i] = (int32_t)ids[i];
  }
  nn_compute_of(p)->gather(nn_compute_of(p), m->tokens.w, index, all, x);
  for (int64_t r = 0; r < w->rows; r++)
    for (int64_t t = 0, seen = w->past; t < n; t++) {
      bool pad = ids[r * n + t] == c->pad;
      seen += !pad;
      if (!pad) speecht5_add_place(c, c->pad + seen, x + (r * n + t) * c->d);
    }
  if (taps) nn_tap(p, x, NN_DIMS(w->rows, n, c->d), "decoder.prenet");
  nn_decoder_run run = {.rows = w->rows, .n = n, .d = c->d, .act = c->act, .mask = w->mask};
  for (int32_t i = 0; i < c->decoder_layers; i++) {
    nn_pass_poll(p);
    nn_decode_layer(p, &m->decoder[i], &run, &w->memory[i], x);
    if (taps) nn_tap(p, x, NN_DIMS(w->rows, n, c->d), "decoder.layer.%d", (int)i);
  }
  w->past += n;
  return x;
}

static void logits_of(nn_pass *p, const float *x, int64_t n, float *out) {
  const struct speecht5_model *m = nn_net_of(p);
  nn_linear_to(p, m->config.own_head ? &m->head : &m->tokens, 0, NULL, x, n, out);
}

int32_t speecht5_forward(nn_pass *p) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct speecht5_encoded e = speecht5_encode(p);
  int64_t shape[2] = {e.rows, 0};
  if (nn_wants_result(p, "encoder_last_hidden_state"))
    nn_result(p, VIV_F32, e.x, NN_DIMS(e.rows, e.length, c->d), "encoder_last_hidden_state");
  const int64_t *ids = c->writes ? nn_some_ints(p, "decoder_input_ids", 2, shape) : NULL;
  if (!ids) return VIV_DONE; /* the encoder alone */
  if (shape[1] < 1) nn_stop(p, VIV_BAD_INPUT, "decoder_input_ids", "is empty");
  struct writer w = begin(p, &e, shape[1]);
  float *x = read_tokens(p, &w, ids, shape[1], true);
  int64_t n = e.rows * shape[1];
  float *logits = nn_room(p, n * c->vocab);
  logits_of(p, x, n, logits);
  nn_result(p, VIV_F32, logits, NN_DIMS(e.rows, shape[1], c->vocab), "logits");
  return VIV_DONE;
}

/* ---- greedy ---- */

struct written {
  int64_t rows, steps, most;
  int64_t *ids;  /* [rows, most] new tokens; rows that ended are filled with pads */
  float *logits; /* [rows, most, vocab] or NULL */
};

static struct written write_text(nn_pass *p, bool keep) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  int32_t start = (int32_t)nn_param_int(p, "decoder_start_token_id", c->start, 0, c->vocab - 1);
  int64_t eos = nn_param_int(p, "eos_token_id", c->eos, 0, c->vocab - 1);
  int64_t pad = nn_param_int(p, "pad_token_id", c->pad, 0, c->vocab - 1);
  bool ignore = nn_param_flag(p, "ignore_eos", false);
  int64_t most = nn_param_int(p, "max_new_tokens", c->text_places - 1, 1, c->text_places);
  struct speecht5_encoded e = speecht5_encode(p);
  struct written out = {.rows = e.rows, .most = most};
  out.ids = nn_bytes(p, e.rows * most, sizeof *out.ids);
  out.logits = keep ? nn_room(p, e.rows * most * c->vocab) : NULL;
  struct writer w = begin(p, &e, most);
  int64_t *next = nn_bytes(p, e.rows, sizeof *next), open = e.rows;
  bool *done = nn_bytes(p, e.rows, sizeof *done);
  float *logits = nn_room(p, e.rows * c->vocab);
  for (int64_t r = 0; r < e.rows; r++) {
    next[r] = start;
    done[r] = false;
  }
  for (; out.steps < most && open; out.steps++) {
    nn_mark mark = nn_here(p);
    logits_of(p, read_tokens(p, &w, next, 1, false), e.rows, logits);
    for (int64_t r = 0; r < e.rows; r++) {
      const float *row = logits + r * c->vocab;
      int64_t best = 0;
      for (int64_t i = 1; i < c->vocab; i++)
        if (row[i] > row[best]) best = i;
      if (keep)
        memcpy(out.logits + (r * most + out.steps) * c->vocab, row, (size_t)c->vocab * sizeof *row);
      next[r] = out.ids[r * most + out.steps] = done[r] ? pad : best;
      if (done[r] || ignore || best != eos) continue;
      done[r] = true;
      open--;
    }
    nn_release(p, mark);
  }
  return out;
}

int32_t speecht5_generate(nn_pass *p) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  bool keep = nn_wants_result(p, "step_logits");
  struct written w = write_text(p, keep);
  int64_t n = w.steps + 1, *all = nn_bytes(p, w.rows * n, sizeof *all);
  int64_t start = nn_param_int(p, "decoder_start_token_id", c->start, 0, c->vocab - 1);
  for (int64_t r = 0; r < w.rows; r++) {
    all[r * n] = start;
    memcpy(all + r * n + 1, w.ids + r * w.most, (size_t)w.steps * sizeof *all);
    if (keep)
      memmove(w.logits + r * w.steps * c->vocab, w.logits + r * w.most * c->vocab,
              (size_t)(w.steps * c->vocab) * sizeof *w.logits);
  }
  nn_result(p, VIV_I64, all, NN_DIMS(w.rows, n), "sequences");
  if (keep) nn_result(p, VIV_F32, w.logits, NN_DIMS(w.rows, w.steps, c->vocab), "step_logits");
  return VIV_DONE;
}

int32_t speecht5_transcribe(nn_pass *p) {
  const struct speecht5_config *c = &((const struct speecht5_model *)nn_net_of(p))->config;
  struct written w = write_text(p, false);
  int32_t *ids = nn_bytes(p, w.steps, sizeof *ids);
  for (int64_t r = 0; r < w.rows; r++) {
    int64_t n = 0;
    viv_str text;
    for (int64_t t = 0; t < w.steps && w.ids[r * w.most + t] != c->eos; t++)
      ids[n++] = (int32_t)w.ids[r * w.most + t];
    if (nn_text_of(p, ids, n, true, &text))
      nn_result_text(p, VIV_KIND_TEXT, "text", text);
    else
      nn_result(p, VIV_I32, ids, NN_DIMS(1, n), "ids");
  }
  return VIV_DONE;
}
