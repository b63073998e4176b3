/* Causal convolution and selective scan: channels shared out over the pool. */
#include "compute/internal.h"

/* Channels are independent; a task is a vector of them. */
struct channels {
  const viv__kernels *kernels;
  const viv_causal_conv *conv;
  const viv_scan *scan;
};

static void conv_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  int32_t lanes = s->kernels->lanes;
  s->kernels->causal_conv(s->conv, (int32_t)begin * lanes,
                          (int32_t)viv__min(s->conv->channels, end * lanes));
}

static void causal_conv(const viv_compute *c, const viv_causal_conv *args) {
  struct channels s = {viv__compute_of(c)->kernels, args, NULL};
  int64_t n = ((int64_t)args->channels + s.kernels->lanes - 1) / s.kernels->lanes;
  viv__parallel(c, n, viv__grain(args->rows * args->taps * s.kernels->lanes * 2), conv_range, &s);
}

static void scan_range(void *ctx, int64_t begin, int64_t end) {
  const struct channels *s = ctx;
  int32_t lanes = s->kernels->lanes;
  s->kernels->scan(s->scan, (int32_t)begin * lanes,
                   (int32_t)viv__min(s->scan->channels, end * lanes));
}

static void scan(const viv_compute *c, const viv_scan *args) {
  struct channels s = {viv__compute_of(c)->kernels, NULL, args};
  int64_t n = ((int64_t)args->channels + s.kernels->lanes - 1) / s.kernels->lanes;
  viv__parallel(c, n, viv__grain(args->rows * args->states * s.kernels->lanes * 8), scan_range, &s);
}

void viv__table_state(viv_compute *t) {
  t->causal_conv = causal_conv;
  t->scan = scan;
}
