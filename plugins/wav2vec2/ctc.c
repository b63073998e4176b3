/* From a letter's logits per frame to text: the best letter of each frame, repeats merged, the blank
 * left out. Official: transformers' Wav2Vec2CTCTokenizer.convert_tokens_to_string. */
#include <string.h>

#include "wav2vec2/wav2vec2.h"

/* [frames] of one row; -1 behind the last valid one. */
static void best_letters(const float *logits, int64_t frames, int64_t valid, int64_t vocab,
                         int64_t *out) {
  for (int64_t t = 0; t < frames; t++) {
    const float *row = logits + t * vocab;
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
      if (row[i] > row[best]) best = i;
    out[t] = t < valid ? best : -1;
  }
}

static bool same(viv_str a, viv_str b) {
  return a.len == b.len && !memcmp(a.ptr, b.ptr, a.len);
}

/* Hands over the text of one row. */
static void spell(nn_pass *p, const int64_t *letters, int64_t n) {
  const struct wav2vec2_model *m = nn_net_of(p);
  uint64_t room = 1, used = 0;
  for (int64_t t = 0; t < n; t++)
    if (letters[t] >= 0) room += m->letter[letters[t]].len;
  char *text = nn_bytes(p, (int64_t)room, 1);
  for (int64_t t = 0; t < n && letters[t] >= 0; t++) {
    viv_str s = m->letter[letters[t]];
    if (letters[t] == m->config.blank || (t && letters[t] == letters[t - 1])) continue;
    bool between = same(s, m->space);
    if (!between) memcpy(text + used, s.ptr, s.len);
    if (between) text[used] = ' ';
    used += between ? 1 : s.len;
  }
  uint64_t from = 0;
  while (from < used && text[from] == ' ') from++;
  while (used > from && text[used - 1] == ' ') used--;
  nn_result_text(p, VIV_KIND_TEXT, "text", (viv_str){text + from, used - from});
}

static void need_letters(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  if (!m->letter)
    nn_stop(p, VIV_NEVER, "vocab.json", "is missing beside the checkpoint: it names the letters");
}

int32_t wav2vec2_transcribe(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  need_letters(p);
  struct wav2vec2_heard h = wav2vec2_hear_all(p);
  float *logits = wav2vec2_logits(p, &h);
  int64_t *letters = nn_bytes(p, h.frames, sizeof *letters), vocab = m->config.vocab;
  for (int64_t r = 0; r < h.rows; r++) {
    best_letters(logits + r * h.frames * vocab, h.frames, h.valid[r], vocab, letters);
    spell(p, letters, h.frames);
  }
  return VIV_DONE;
}

int32_t wav2vec2_postprocess(nn_pass *p) {
  const struct wav2vec2_model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, m->config.vocab}, samples[2] = {0, 0};
  if (!m->config.vocab) nn_stop(p, VIV_NEVER, "task", "this checkpoint has no CTC head (lm_head)");
  const float *logits = nn_need_floats(p, "logits", 3, shape);
  int64_t rows = samples[0] = shape[0], frames = shape[1];
  if (rows < 1 || frames < 1) nn_stop(p, VIV_BAD_INPUT, "logits", "is empty");
  const int64_t *mask = nn_some_ints(p, "attention_mask", 2, samples);
  int64_t *letters = nn_bytes(p, rows * frames, sizeof *letters);
  for (int64_t r = 0; r < rows; r++) {
    int64_t real = 0, valid = frames;
    for (int64_t i = 0; mask && i < samples[1]; i++) real += mask[r * samples[1] + i] != 0;
    if (mask) valid = wav2vec2_frames(m, real);
    best_letters(logits + r * frames * shape[2], frames, valid, shape[2], letters + r * frames);
    if (m->letter) spell(p, letters + r * frames, frames);
  }
  nn_result(p, VIV_I64, letters, NN_DIMS(rows, frames), "argmax");
  return VIV_DONE;
}
