/* One evaluation: its scratch memory, its batch, its taps. */
#include "nn/nn.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- scratch ---- */

void *nn_take(nn_scratch *s, int64_t count, size_t size) {
  if (count < 0 || (count && size > (uint64_t)INT64_MAX / (uint64_t)count)) {
    s->failed = true;
    return NULL;
  }
  uint64_t bytes = ((uint64_t)count * size + 63) / 64 * 64;
  s->bytes += bytes;
  if (!s->arena || s->failed) return NULL;
  void *p = s->host->arena_alloc(s->arena, bytes ? bytes : 64);
  if (!p) s->failed = true;
  return p;
}

float *nn_floats(nn_scratch *s, int64_t rows, int64_t width) {
  if (width && rows > INT64_MAX / width) {
    s->failed = true;
    return NULL;
  }
  return nn_take(s, rows * width, sizeof(float));
}

/* ---- batches ---- */

#define REFUSE(...) return nn_fail(error, VIV_BAD_INPUT, "eval", __VA_ARGS__)

int32_t nn_batch_check(const viv_batch *b, const viv_eval_out *out, const viv_token_info *info,
                       nn_segment *segments, int32_t *n_segments, viv_error *error) {
  if (b->input_kind == VIV_INPUT_TOKENS) {
    if (!b->tokens) REFUSE("input_kind is TOKENS, but tokens is NULL");
    for (int32_t r = 0; r < b->n_rows; r++)
      if (b->tokens[r] < 0 || b->tokens[r] >= info->vocab_size)
        REFUSE("row %d: token %d is not in the vocabulary of %d", (int)r, (int)b->tokens[r],
               (int)info->vocab_size);
  } else if (b->input_kind == VIV_INPUT_EMBED || b->input_kind == VIV_INPUT_HIDDEN) {
    if (!b->rows) REFUSE("input_kind is %d, but rows is NULL", (int)b->input_kind);
  } else {
    REFUSE("input_kind %d does not exist", (int)b->input_kind);
  }
  if (!b->seq) REFUSE("seq is NULL");
  if (b->n_logit_rows < 0 || b->n_logit_rows > b->n_rows)
    REFUSE("%d logit rows of a batch of %d", (int)b->n_logit_rows, (int)b->n_rows);
  if (b->n_logit_rows && (!b->logit_rows || !out->logits))
    REFUSE("n_logit_rows is %d, but logit_rows or the memory for logits is NULL",
           (int)b->n_logit_rows);
  for (int32_t i = 0; i < b->n_logit_rows; i++)
    if (b->logit_rows[i] < (i ? b->logit_rows[i - 1] + 1 : 0) || b->logit_rows[i] >= b->n_rows)
      REFUSE("logit_rows[%d] is %d: they must ascend and lie within the batch of %d rows", (int)i,
             (int)b->logit_rows[i], (int)b->n_rows);
  int32_t end = b->layer_end ? b->layer_end : info->n_layers;
  if (b->layer_begin < 0 || end > info->n_layers || b->layer_begin >= end)
    REFUSE("layers [%d, %d) of %d", (int)b->layer_begin, (int)end, (int)info->n_layers);
  if (b->n_capture < 0 || (b->n_capture && (!b->capture_layers || !out->hidden)))
    REFUSE("n_capture is %d, but capture_layers or the memory for hidden is NULL",
           (int)b->n_capture);
  for (int32_t i = 0; i < b->n_capture; i++)
    if (b->capture_layers[i] < b->layer_begin || b->capture_layers[i] > end)
      REFUSE("capture_layers[%d] is %d, outside of %d to %d", (int)i, (int)b->capture_layers[i],
             (int)b->layer_begin, (int)end);
  if (b->n_births) return nn_fail(error, VIV_NEVER, "eval", "this model takes no births");
  if (b->n_expert_ranks)
    return nn_fail(error, VIV_NEVER, "eval", "this model has no experts to choose");

  int32_t n = 0;
  for (int32_t r = 0; r < b->n_rows; r++) {
    if (n && segments[n - 1].seq == b->seq[r]) {
      segments[n - 1].n++;
      continue;
    }
    for (int32_t i = 0; i < n; i++)
      if (segments[i].seq == b->seq[r])
        REFUSE("row %d: the rows of sequence %d must stand next to each other", (int)r,
               (int)b->seq[r]);
    segments[n++] = (nn_segment){.seq = b->seq[r], .first = r, .n = 1};
  }
  *n_segments = n;
  return VIV_OK;
}

int32_t nn_poll(const viv_batch *b, viv_error *error) {
  int32_t rc = b->poll ? b->poll(b->poll_self) : VIV_OK;
  if (rc >= 0) return VIV_OK;
  return nn_fail(error, rc, "eval", "stopped between two layers, as the host asked");
}

void nn_pick(const float *x, int64_t width, const int32_t *ids, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i++)
    memcpy(y + i * width, x + ids[i] * width, (size_t)width * sizeof *y);
}

/* ---- taps ---- */

enum { TAP_NAME = 96 };

static bool wants(const viv_tap_sink *taps, char *name, const char *format, va_list args) {
  int n = vsnprintf(name, TAP_NAME, format, args);
  return n > 0 && n < TAP_NAME && taps->wants(taps->self, nn_str(name));
}

bool nn_wants(const viv_tap_sink *taps, const char *format, ...) {
  if (!taps) return false;
  char name[TAP_NAME];
  va_list args;
  va_start(args, format);
  bool yes = wants(taps, name, format, args);
  va_end(args);
  return yes;
}

static void put(const viv_tap_sink *taps, const char *name, int32_t kind, const float *x, int64_t a,
                int64_t b, int64_t c) {
  viv_tensor t = {.struct_size = sizeof t, .flags = VIV_TENSOR_READ_ONLY, .dtype = VIV_F32};
  int64_t n = a;
  t.shape[t.ndim++] = a;
  if (b) {
    t.shape[t.ndim++] = b;
    n *= b;
  }
  if (c) {
    t.shape[t.ndim++] = c;
    n *= c;
  }
  memcpy(&t.data, &x, sizeof t.data); /* borrowed and read-only, as the flag says */
  t.bytes = (uint64_t)n * sizeof *x;
  taps->put(taps->self, nn_str(name), kind, &t);
}

void nn_tap_rows(const viv_tap_sink *taps, const float *x, int64_t rows, int64_t width,
                 const char *format, ...) {
  if (!taps) return;
  char name[TAP_NAME];
  va_list args;
  va_start(args, format);
  bool yes = wants(taps, name, format, args);
  va_end(args);
  if (yes) put(taps, name, VIV_TAP_ROWS, x, rows, width, 0);
}

void nn_tap_constant(const viv_tap_sink *taps, const float *x, int64_t n, const char *name) {
  if (nn_wants(taps, "%s", name)) put(taps, name, VIV_TAP_CONSTANT, x, n, 0, 0);
}

void nn_tap_state(const viv_tap_sink *taps, const float *x, int64_t a, int64_t b, int64_t c,
                  const char *format, ...) {
  if (!taps) return;
  char name[TAP_NAME];
  va_list args;
  va_start(args, format);
  bool yes = wants(taps, name, format, args);
  va_end(args);
  if (yes) put(taps, name, VIV_TAP_STATE, x, a, b, c);
}
