/* Convolutions of real networks, batch 1, in both layouts.
 *
 *   build/bench/bench_conv [threads [times [from [to]]]]
 *   build/bench/bench_conv names
 *
 * With "times" only the seconds of each shape are printed, channels first and channels last, one
 * shape a line: what bench_conv.sh compares with oneDNN. */
#include "compute/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conv_shapes.h"
#include "numbers.h"

/* One thread is measured by its processor time, which others on the machine disturb less. */
static uint64_t now_ns(const viv_compute *c) {
  struct timespec t;
  clock_gettime(c->threads > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double seconds_of(const viv_compute *c, const conv_shape *s, int32_t layout) {
  int64_t nx = s->in, ny = s->out, taps = 1;
  viv_conv_desc d = {.struct_size = sizeof d,
                     .dims = s->dims,
                     .groups = s->groups,
                     .transposed = s->transposed,
                     .in_channels = s->in,
                     .out_channels = s->out};
  viv_conv a = {.struct_size = sizeof a, .batch = 1, .x_layout = layout, .out_layout = layout};
  viv_tensor t = {.struct_size = sizeof t, .dtype = VIV_F32, .ndim = 2 + s->dims};
  for (int i = 0; i < s->dims; i++) {
    d.kernel[i] = s->kernel;
    d.stride[i] = s->stride;
    d.dilation[i] = s->dilation;
    a.size[i] = s->size[i];
    a.pad_begin[i] = a.pad_end[i] = s->pad;
    t.shape[2 + i] = s->kernel;
    nx *= s->size[i];
    ny *= conv_shape_out(s, i);
    taps *= s->kernel;
  }
  t.shape[0] = s->transposed ? s->in : s->out;
  t.shape[1] = (s->transposed ? s->out : s->in) / s->groups;
  int64_t nw = t.shape[0] * t.shape[1] * taps;
  float *x = numbers(nx), *y = numbers(ny), *w = numbers(nw), *bias = numbers(s->out);
  t.data = w;
  t.bytes = (uint64_t)nw * 4;
  d.weight = &t;
  d.bias = bias;
  viv_arena *arena = viv__arena_new(0);
  viv_conv_weight *weight;
  if (c->conv_prepare(c, arena, &d, &weight, NULL)) exit(1);
  a.weight = weight;
  a.x = x;
  a.out = y;
  a.scratch = numbers((int64_t)c->conv_scratch(c, &a));
  double best = INFINITY, total = 0;
  c->conv(c, &a);
  for (int i = 0; i < 3 || (total < 0.05 && i < 200); i++) {
    uint64_t start = now_ns(c);
    c->conv(c, &a);
    double time = (double)(now_ns(c) - start) * 1e-9;
    total += time;
    best = fmin(best, time);
  }
  float *all[] = {x, y, w, bias, a.scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  viv__arena_free(arena);
  return best;
}

static void print_names(void) {
  for (int i = 0; i < CONV_SHAPES; i++) {
    const conv_shape *s = conv_shapes + i;
    printf("%d %.0f %s, %d > %d, %d\n", i, conv_shape_flops(s), s->name, s->in, s->out, s->size[0]);
  }
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "names")) {
    print_names();
    return 0;
  }
  const viv_compute *c;
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(argc > 1 ? atoi(argv[1]) : 0, VIV__ISA_AUTO, &c, &error)) {
    fprintf(stderr, "bench_conv: %s\n", error.message);
    return 1;
  }
  bool times = argc > 2 && !strcmp(argv[2], "times");
  int from = argc > 3 ? atoi(argv[3]) : 0, to = argc > 4 ? atoi(argv[4]) : CONV_SHAPES;
  if (!times)
    printf("%d threads, %s kernels\n%-24s channels        size   first, last: milliseconds   "
           "GFLOP/s\n",
           c->threads, viv__compute_isa(c), "");
  for (int i = from; i < to && i < CONV_SHAPES; i++) {
    const conv_shape *s = conv_shapes + i;
    double first = seconds_of(c, s, VIV_CHANNELS_FIRST), last = seconds_of(c, s, VIV_CHANNELS_LAST);
    double flops = conv_shape_flops(s) * 1e-9;
    if (times)
      printf("%d %.9f %.9f\n", i, first, last);
    else
      printf("%-24s %4d > %4d %9d   %9.3f %9.3f   %8.1f %8.1f\n", s->name, s->in, s->out,
             s->size[0], first * 1e3, last * 1e3, flops / first, flops / last);
    fflush(stdout);
  }
  viv__compute_free(c);
  return 0;
}
