/* Recurrent networks: one direction of one layer. The inputs of many steps go through their matrix at
 * once; what remains for each step is the hidden state's matrix and the gates. */
#include "compute/internal.h"
#include "compute/ops.h"

#include <string.h>

enum { STEPS = 32 }; /* whose inputs are taken together */

static int64_t gates_of(const viv_rnn *a) {
  return (a->kind == VIV_LSTM ? 4 : 3) * (int64_t)a->hidden;
}

static uint64_t rnn_scratch(const viv_compute *c, const viv_rnn *a) {
  (void)c;
  int64_t together = viv__min(STEPS, viv__max(a->steps, 1)) * a->rows;
  return (uint64_t)(together * (a->input + gates_of(a)) + a->rows * gates_of(a));
}

struct step {
  const viv__ops *ops;
  const viv_rnn *a;
  const float *in, *rec; /* [rows, gates] */
  float *y;              /* of this step, or NULL */
};

static void step_range(void *ctx, int64_t begin, int64_t end) {
  const struct step *s = ctx;
  const viv_rnn *a = s->a;
  int64_t n = a->hidden, gates = gates_of(a);
  for (int64_t r = begin; r < end; r++) {
    float *h = a->h + r * n;
    if (a->kind == VIV_LSTM)
      s->ops->lstm(s->in + r * gates, s->rec + r * gates, n, h, a->c + r * n);
    else
      s->ops->gru(s->in + r * gates, s->rec + r * gates, n, h);
    if (s->y) memcpy(s->y + r * a->y_row_stride, h, (size_t)n * sizeof *h);
  }
}

static void rnn(const viv_compute *c, const viv_rnn *a) {
  int64_t gates = gates_of(a), rows = a->rows;
  int64_t together = viv__min(STEPS, viv__max(a->steps, 1)) * rows;
  float *x = a->scratch, *in = x + together * a->input, *rec = in + together * gates;
  struct step s = {.ops = viv__compute_of(c)->kernels->ops, .a = a, .rec = rec};
  for (int64_t done = 0; done < a->steps; done += STEPS) {
    int64_t n = viv__min(STEPS, a->steps - done);
    for (int64_t i = 0; i < n; i++) {
      int64_t t = a->reverse ? a->steps - 1 - done - i : done + i;
      for (int64_t r = 0; r < rows; r++)
        memcpy(x + (i * rows + r) * a->input, a->x + t * a->x_step_stride + r * a->x_row_stride,
               (size_t)a->input * sizeof *x);
    }
    c->linear(c, a->w_input, a->b_input, x, in, n * rows);
    for (int64_t i = 0; i < n; i++) {
      int64_t t = a->reverse ? a->steps - 1 - done - i : done + i;
      c->linear(c, a->w_hidden, a->b_hidden, a->h, rec, rows);
      s.in = in + i * rows * gates;
      s.y = a->y ? a->y + t * a->y_step_stride : NULL;
      viv__parallel(c, rows, viv__grain(gates * 8), step_range, &s);
    }
  }
}

void viv__table_sequence(viv_compute *t) {
  t->rnn = rnn;
  t->rnn_scratch = rnn_scratch;
}
