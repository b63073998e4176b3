/* The calls of a token model that are the same in each plugin. */
#include "nn/nn.h"

#include <string.h>

static nn_model *self(viv_plugin_model *model) {
  return (nn_model *)model;
}
static const nn_model *self_const(const viv_plugin_model *model) {
  return (const nn_model *)model;
}

/* ---- viv.model/1 ---- */

int32_t nn_model_begin(nn_model *m, const viv_host *host, viv_error *error) {
  *m = (nn_model){.host = host, .compute = nn_compute(host, error)};
  return m->compute ? VIV_OK : VIV_NEVER;
}

void nn_plan_write(viv_memory_plan *out, const nn_kv *kv, uint64_t model_bytes,
                   uint64_t row_bytes) {
  viv_memory_plan p = {.struct_size = out->struct_size};
  p.model_bytes = model_bytes;
  nn_kv_plan(kv, &p.session_bytes, &p.session_token_bytes);
  p.step_row_bytes = row_bytes + sizeof(nn_segment);
  p.step_bytes = 64 * 32; /* each piece of scratch begins at a multiple of 64 */
  p.context_max = kv->context_max;
  nn_write(out, out->struct_size, &p, sizeof p);
}

void nn_close(viv_plugin_model *model) {
  (void)model; /* everything is the arena's */
}

viv_str nn_describe(const viv_plugin_model *model) {
  return nn_str(self_const(model)->about);
}

/* ---- viv.token-model/1 ---- */

void nn_special_read(nn_config *c, int64_t vocab, nn_special *out) {
  out->bos = (int32_t)nn_int(c, "bos_token_id", -1, -1, vocab - 1);
  out->pad = (int32_t)nn_int(c, "pad_token_id", -1, -1, vocab - 1);
  out->n_eos = nn_ints(c, "eos_token_id", out->eos, NN_MAX_EOS, 0, vocab - 1);
}

viv_token_info nn_info_of(const nn_special *special) {
  return (viv_token_info){
      .eos = special->eos,
      .n_eos = special->n_eos,
      .bos = special->bos,
      .pad = special->pad,
      .decoder_start = -1,
      .mask_token = -1,
  };
}

int32_t nn_info(const viv_plugin_model *model, viv_token_info *out) {
  viv_token_info info = self_const(model)->info;
  info.struct_size = out->struct_size;
  nn_write(out, out->struct_size, &info, sizeof info);
  return VIV_OK;
}

int32_t nn_seq_open(viv_plugin_model *model, int32_t *seq, viv_error *error) {
  return nn_kv_open(&self(model)->kv, seq, error);
}
void nn_seq_close(viv_plugin_model *model, int32_t seq) {
  nn_kv_close(&self(model)->kv, seq);
}
int64_t nn_seq_len(const viv_plugin_model *model, int32_t seq) {
  return nn_kv_len(&self_const(model)->kv, seq);
}
int32_t nn_seq_truncate(viv_plugin_model *model, int32_t seq, int64_t len, viv_error *error) {
  return nn_kv_truncate(&self(model)->kv, seq, len, error);
}
int32_t nn_seq_gather(viv_plugin_model *model, int32_t seq, int64_t base, const int32_t *index,
                      int32_t n, viv_error *error) {
  return nn_kv_gather(&self(model)->kv, seq, base, index, n, error);
}
int32_t nn_seq_fork(viv_plugin_model *model, int32_t seq, int32_t *out, viv_error *error) {
  return nn_kv_fork(&self(model)->kv, seq, out, error);
}
int32_t nn_snapshot(viv_plugin_model *model, int32_t seq, void *data, uint64_t capacity,
                    uint64_t *bytes, viv_error *error) {
  return nn_kv_snapshot(&self(model)->kv, seq, data, capacity, bytes, error);
}

/* Into a fresh sequence first: what is refused changes nothing. */
int32_t nn_restore(viv_plugin_model *model, int32_t seq, const void *data, uint64_t bytes,
                   viv_error *error) {
  nn_model *m = self(model);
  if (!nn_kv_get(&m->kv, seq))
    return nn_fail(error, VIV_BAD_INPUT, "restore", "there is no sequence %d", (int)seq);
  int32_t fresh;
  int32_t rc = nn_kv_restore(&m->kv, data, bytes, &fresh, error);
  if (rc < 0) return rc;
  bool good = !m->possible || m->possible(m, nn_kv_get(&m->kv, fresh));
  if (good) nn_kv_swap(&m->kv, fresh, seq);
  nn_kv_close(&m->kv, fresh);
  return good ? VIV_OK
              : nn_fail(error, VIV_BAD_INPUT, "restore",
                        "the saved sequence holds tokens that this model does not have");
}

int32_t nn_head(viv_plugin_model *model, const float *rows, int32_t n, int32_t final_norm,
                viv_arena *scratch, float *logits, viv_error *error) {
  const nn_model *m = self(model);
  nn_scratch a = {.host = m->host, .arena = scratch};
  if (n < 0 || (n && (!rows || !logits)))
    return nn_fail(error, VIV_BAD_INPUT, "head", "%d rows, or no memory given", (int)n);
  float *normed = final_norm ? nn_floats(&a, n, m->info.d_model) : NULL;
  if (final_norm && !normed) return nn_fail(error, VIV_NOT_NOW, "head", "no scratch memory");
  if (n) m->logits(m, rows, n, final_norm != 0, normed, logits);
  return VIV_OK;
}

int32_t nn_embed(viv_plugin_model *model, const int32_t *tokens, int32_t n, float *rows,
                 viv_error *error) {
  const nn_model *m = self(model);
  if (n < 0 || (n && (!tokens || !rows)))
    return nn_fail(error, VIV_BAD_INPUT, "embed", "%d tokens, or no memory given", (int)n);
  for (int32_t i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= m->info.vocab_size)
      return nn_fail(error, VIV_BAD_INPUT, "embed", "token %d is not in the vocabulary of %d",
                     (int)tokens[i], (int)m->info.vocab_size);
  if (n) m->compute->gather(m->compute, m->table, tokens, n, rows);
  return VIV_OK;
}

/* ---- the beginning of eval ---- */

#define REFUSE(...) return nn_fail(error, VIV_BAD_INPUT, "eval", __VA_ARGS__)

int32_t nn_batch_read(const nn_model *m, const viv_batch *batch, const viv_eval_out *out,
                      viv_batch *b, nn_scratch *scratch, nn_segment **segments, int32_t *n_segments,
                      viv_error *error) {
  nn_read(b, sizeof *b, batch, batch->struct_size);
  *scratch = (nn_scratch){.host = m->host, .arena = b->scratch};
  if (b->n_rows < 1) REFUSE("a batch of %d rows", (int)b->n_rows);
  *segments = nn_take(scratch, b->n_rows, sizeof **segments);
  if (!*segments) return nn_no_scratch(b, error);
  int32_t rc = nn_batch_check(b, out, &m->info, *segments, n_segments, error);
  for (int32_t i = 0; rc >= 0 && i < *n_segments; i++) {
    const nn_segment *g = &(*segments)[i];
    if (!nn_kv_get(&m->kv, g->seq))
      REFUSE("row %d: there is no sequence %d", (int)g->first, (int)g->seq);
  }
  return rc;
}

int32_t nn_no_scratch(const viv_batch *b, viv_error *error) {
  return nn_fail(error, VIV_NOT_NOW, "eval", "no scratch memory for a batch of %d rows",
                 (int)b->n_rows);
}

int32_t nn_base(const nn_kv_seq *s, const viv_batch *b, int32_t begin, int32_t end, int64_t *base,
                viv_error *error) {
  int32_t first = -1;
  for (int32_t i = begin; i < end; i++) {
    if (nn_bit(b->skip_attn, i)) continue;
    if (first < 0) first = i;
    if (s->run[i].len != s->run[first].len)
      REFUSE("layer %d of a sequence holds %lld tokens, layer %d %lld (an earlier batch left one "
             "out): truncate to the shorter length first, or go on with a fork from before",
             (int)first, (long long)s->run[first].len, (int)i, (long long)s->run[i].len);
  }
  *base = first < 0 ? -1 : s->run[first].len;
  return VIV_OK;
}

int32_t nn_context_check(const nn_model *m, const nn_segment *g, int64_t total, viv_error *error) {
  if (total > m->info.context_max)
    REFUSE("sequence %d would have %lld tokens, the model allows %lld", (int)g->seq,
           (long long)total, (long long)m->info.context_max);
  return VIV_OK;
}

void nn_enter(const nn_model *m, const viv_batch *b, float *x) {
  int64_t d = m->info.d_model;
  if (b->input_kind == VIV_INPUT_TOKENS)
    m->compute->gather(m->compute, m->table, b->tokens, b->n_rows, x);
  else
    memcpy(x, b->rows, (size_t)(b->n_rows * d) * sizeof *x);
  if (!b->layer_begin) nn_tap_rows(b->taps, x, b->n_rows, d, "embed");
}
