/* linear over weights in block formats: rows are quantised once per call, outputs go over the pool. */
#include "compute/internal.h"
#include "compute/quant_kernels.h"

#include <stdatomic.h>

struct call {
  viv__product p; /* w, y and the rest of the whole matrix and of one block of rows */
  const viv__quant_kernels *kernels;
  viv__row_layout layout;
  const float *x;
  int64_t x_stride;
  char *quantised;
  char *panels; /* [slots] of panel_bytes */
  int64_t panel_bytes;
  _Atomic uint64_t slots; /* a bit for each panel that is free */
};

static void quantize_range(void *ctx, int64_t begin, int64_t end) {
  const struct call *s = ctx;
  s->kernels->quantize(s->p.format, s->x + begin * s->x_stride, s->x_stride, end - begin, s->p.k,
                       s->quantised + begin * s->layout.bytes);
}

/* There are as many panels as threads, up to 64; beyond, a thread waits for its turn. */
static int take_slot(struct call *s) {
  uint64_t free = atomic_load_explicit(&s->slots, memory_order_relaxed);
  for (;;) {
    while (!free) free = atomic_load_explicit(&s->slots, memory_order_relaxed);
    if (atomic_compare_exchange_weak_explicit(&s->slots, &free, free & (free - 1),
                                              memory_order_acquire, memory_order_relaxed))
      return __builtin_ctzll(free);
  }
}

static void give_slot(struct call *s, int slot) {
  atomic_fetch_or_explicit(&s->slots, UINT64_C(1) << slot, memory_order_release);
}

static void product_range(void *ctx, int64_t begin, int64_t end) {
  struct call *s = ctx;
  int slot = take_slot(s);
  viv__product p = s->p;
  p.begin = begin * VIV__PANEL;
  p.end = viv__min(p.outs, end * VIV__PANEL);
  p.panel = s->panels + slot * s->panel_bytes;
  s->kernels->product(&p);
  give_slot(s, slot);
}

void viv__quant_linear(const viv_compute *c, const viv__linear *l) {
  const viv__compute *self = viv__compute_of(c);
  const viv_weight *w = l->w;
  const viv__format *f = viv__format_of(w->dtype);
  struct call s = {
      .kernels = self->quant,
      .layout = viv__row_layout_of(f, w->in),
      .p = {.format = f,
            .w = w->data,
            .row_bytes = (int64_t)viv__row_bytes(w->dtype, w->in),
            .outs = w->out,
            .k = w->in,
            .bias = l->bias,
            .act = l->act,
            .unary = self->kernels->unary,
            .y_stride = l->y_stride},
      .x_stride = l->x_stride,
  };
  int32_t slots = (int32_t)viv__min(64, c->threads);
  s.panel_bytes = (viv__panel_bytes(&s.layout) + 63) / 64 * 64;
  atomic_init(&s.slots, slots == 64 ? ~UINT64_C(0) : (UINT64_C(1) << slots) - 1);
  s.panels = viv__scratch_take(self->scratch);
  s.quantised = s.panels + slots * s.panel_bytes;
  int64_t room = viv__scratch_bytes(c->threads) - slots * s.panel_bytes;
  int64_t block = viv__min(l->rows, viv__max(1, room / s.layout.bytes));
  for (int64_t r = 0; r < l->rows; r += block) {
    int64_t rows = viv__min(block, l->rows - r);
    s.x = l->x + r * l->x_stride;
    viv__parallel(c, rows, viv__max(1, 4 * viv__grain(w->in)), quantize_range, &s);
    s.p.x = s.quantised;
    s.p.rows = rows;
    s.p.y = l->y + r * l->y_stride;
    s.p.residual = l->residual ? l->residual + r * l->y_stride : NULL;
    int64_t panels = (w->out + VIV__PANEL - 1) / VIV__PANEL;
    int64_t work = VIV__PANEL * w->in * rows / 4;
    viv__parallel(c, panels, viv__grain(work), product_range, &s);
  }
  viv__scratch_give(self->scratch, s.panels);
}
