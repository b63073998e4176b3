/* linear over weights in block formats: rows are quantised once per call, outputs go over the pool.
 * A call may have several matrices that share the rows. */
#include "compute/internal.h"
#include "compute/quant_kernels.h"

#include <stdatomic.h>

struct call {
  viv__product p[VIV__MOST_LINEARS]; /* of the whole matrix and of one block of rows */
  int64_t panels_of[VIV__MOST_LINEARS];
  int32_t n;
  const viv__quant_kernels *kernels;
  const viv__format *format; /* of the rows that are being quantised */
  int64_t row_bytes, k;
  const float *x;
  int64_t x_stride;
  char *quantised;
  char *panels; /* [slots] of panel_bytes */
  int64_t panel_bytes, panel_slots;
  _Atomic uint64_t slots; /* a bit for each panel that is free */
};

static void quantize_range(void *ctx, int64_t begin, int64_t end) {
  const struct call *s = ctx;
  s->kernels->quantize(s->format, s->x + begin * s->x_stride, s->x_stride, end - begin, s->k,
                       s->quantised + begin * s->row_bytes);
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

/* Panels [begin, end) of all matrices, one matrix's after the other's. */
static void product_range(void *ctx, int64_t begin, int64_t end) {
  struct call *s = ctx;
  int slot = take_slot(s);
  for (int32_t i = 0; i < s->n && end > 0; i++) {
    int64_t count = s->panels_of[i];
    if (begin < count) {
      viv__product p = s->p[i];
      p.begin = begin * VIV__PANEL;
      p.end = viv__min(p.outs, end * VIV__PANEL);
      p.panel = s->panels + slot * s->panel_bytes;
      s->kernels->product(&p);
    }
    begin = viv__max(0, begin - count);
    end -= count;
  }
  give_slot(s, slot);
}

/* One block of rows: x once for each way of quantising, then all products in one run. */
static void block_of_rows(const viv_compute *c, struct call *s, const viv__linear *l, int64_t first,
                          int64_t rows) {
  char *room = s->quantised;
  int64_t panels = 0, work = 0;
  s->x = l->x + first * l->x_stride;
  for (int32_t i = 0; i < s->n; i++) {
    viv__product *p = &s->p[i];
    p->x = NULL;
    for (int32_t j = 0; j < i && !p->x; j++)
      if (s->p[j].format == p->format) p->x = s->p[j].x;
    if (!p->x) {
      p->x = s->quantised = room;
      s->format = p->format;
      s->row_bytes = viv__row_layout_of(p->format, p->k).bytes;
      viv__parallel(c, rows, viv__max(1, 4 * viv__grain(p->k)), quantize_range, s);
      room += rows * s->row_bytes;
    }
    p->rows = rows;
    p->y = l[i].y + first * l[i].y_stride;
    p->residual = l[i].residual ? l[i].residual + first * l[i].y_stride : NULL;
    panels += s->panels_of[i];
    work = VIV__PANEL * p->k * rows;
  }
  viv__parallel(c, panels, viv__grain(work), product_range, s);
  s->quantised = s->panels + s->panel_slots * s->panel_bytes;
}

void viv__quant_linears(const viv_compute *c, const viv__linear *l, int32_t n) {
  const viv__compute *self = viv__compute_of(c);
  struct call s = {.kernels = self->quant, .n = n, .k = l->w->in, .x_stride = l->x_stride};
  int64_t row_bytes = 0;
  for (int32_t i = 0; i < n; i++) {
    const viv_weight *w = l[i].w;
    const viv__format *f = viv__format_of(w->dtype);
    viv__row_layout layout = viv__row_layout_of(f, w->in);
    s.panel_bytes = viv__max(s.panel_bytes, (viv__panel_bytes(&layout) + 63) / 64 * 64);
    row_bytes += layout.bytes;
    s.panels_of[i] = (w->out + VIV__PANEL - 1) / VIV__PANEL;
    s.p[i] = (viv__product){.format = f,
                            .w = w->data,
                            .row_bytes = (int64_t)viv__row_bytes(w->dtype, w->in),
                            .outs = w->out,
                            .k = w->in,
                            .bias = l[i].bias,
                            .act = l[i].act,
                            .unary = self->kernels->unary,
                            .y_stride = l[i].y_stride};
  }
  int32_t slots = (int32_t)viv__min(64, c->threads);
  atomic_init(&s.slots, slots == 64 ? ~UINT64_C(0) : (UINT64_C(1) << slots) - 1);
  s.panel_slots = slots;
  s.panels = viv__scratch_take(self->scratch);
  s.quantised = s.panels + slots * s.panel_bytes;
  int64_t room = viv__scratch_bytes(c->threads) - slots * s.panel_bytes;
  int64_t block = viv__min(l->rows, viv__max(1, room / row_bytes));
  for (int64_t r = 0; r < l->rows; r += block)
    block_of_rows(c, &s, l, r, viv__min(block, l->rows - r));
  viv__scratch_give(self->scratch, s.panels);
}
