/* The selective scan and the differential attention of SambaY's official sizes, one JSON object a line:
 *
 *   build/bench/bench_sambay [THREADS]      (the processor's)
 *
 * Scan: 5120 channels of 16 states. Attention: 20 pairs of heads of 64 over 10 pairs of keys, values of
 * 128, f32 in pages of 64 tokens; both softmaxes and their difference. "ms" is the fastest call, "processor" the
 * mean of the processor's time. tests/bench/peers/sambay.py puts PyTorch beside it. */
#include "compute/internal.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNELS = 5120, STATES = 16, HEADS = 40, KV_HEADS = 20, DIM = 64, PAGE = 64 };
enum { WIDTH = KV_HEADS * DIM, MOST_ROWS = 2048, MOST_KEYS = 8192, Q = HEADS * DIM };

static const viv_compute *table;

static double processor_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void report(const char *what, int64_t rows, int64_t keys, void (*run)(void *), void *ctx) {
  double best = INFINITY, total = 0;
  int n = 0;
  run(ctx);
  double processor = processor_seconds();
  for (; n < 3 || (total < 0.3 && n < 2000); n++) {
    uint64_t start = viv__now_ns();
    run(ctx);
    double s = (double)(viv__now_ns() - start) * 1e-9;
    total += s;
    best = fmin(best, s);
  }
  processor = (processor_seconds() - processor) / n;
  printf("{\"what\": \"%s\", \"rows\": %lld, \"keys\": %lld, \"ms\": %.6f, \"processor\": %.6f}\n",
         what, (long long)rows, (long long)keys, best * 1e3, processor * 1e3);
  fflush(stdout);
}

static void run_scan(void *ctx) {
  table->scan(table, ctx);
}

static void bench_scan(int64_t rows) {
  float *u = numbers(rows * CHANNELS), *delta = numbers(rows * CHANNELS);
  float *a = numbers(CHANNELS * STATES), *bc = numbers(rows * 2 * STATES), *d = numbers(CHANNELS);
  float *state = numbers(CHANNELS * STATES), *y = numbers(rows * CHANNELS);
  for (int64_t k = 0; k < rows * CHANNELS; k++) delta[k] = fabsf(delta[k]);
  for (int64_t k = 0; k < CHANNELS * STATES; k++) a[k] = -fabsf(a[k]);
  viv_scan s = {.struct_size = sizeof s,
                .channels = CHANNELS,
                .states = STATES,
                .rows = rows,
                .u = u,
                .delta = delta,
                .a = a,
                .b = bc,
                .c = bc + STATES,
                .bc_stride = 2 * STATES,
                .d = d,
                .state = state,
                .y = y};
  report("scan", rows, 0, run_scan, &s);
  float *all[] = {u, delta, a, bc, d, state, y};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

struct pair {
  viv_attention a;
  float *both, *out; /* [rows, HEADS, 2 DIM], [rows, HEADS / 2, 2 DIM] */
};

static void subtract(void *ctx, int64_t begin, int64_t end) {
  struct pair *p = ctx;
  for (int64_t i = begin; i < end; i++)
    for (int64_t h = 0; h < HEADS / 2; h++) {
      const float *one = p->both + (i * HEADS + 2 * h) * 2 * DIM, *two = one + 2 * DIM;
      float *out = p->out + (i * HEADS / 2 + h) * 2 * DIM;
      for (int64_t e = 0; e < 2 * DIM; e++) out[e] = one[e] - 0.2f * two[e];
    }
}

static void run_attention(void *ctx) {
  struct pair *p = ctx;
  table->attention(table, &p->a);
  table->parallel_for(table, p->a.rows, 16, subtract, p);
}

static void bench_attention(int32_t rows, int64_t keys, int64_t window) {
  static const void *k_pages[MOST_KEYS / PAGE], *v_pages[MOST_KEYS / PAGE];
  static const viv_kv *kv[MOST_ROWS];
  static int64_t visible[MOST_ROWS];
  int32_t k_offset[HEADS], v_offset[HEADS];
  float *k = numbers(keys * WIDTH), *v = numbers(keys * WIDTH), *q = numbers(rows * (int64_t)Q);
  struct pair p = {.both = numbers(rows * (int64_t)Q * 2), .out = numbers(rows * (int64_t)Q)};
  viv_kv pages = {k_pages, v_pages};
  for (int64_t i = 0; i < keys / PAGE; i++) {
    k_pages[i] = k + i * PAGE * WIDTH;
    v_pages[i] = v + i * PAGE * WIDTH;
  }
  for (int32_t h = 0; h < HEADS; h++) {
    int32_t of = h / 2 / 2; /* two pairs of heads read one pair of keys */
    k_offset[h] = (2 * of + h % 2) * DIM;
    v_offset[h] = 2 * of * DIM;
  }
  for (int32_t r = 0; r < rows; r++) {
    kv[r] = &pages;
    visible[r] = keys - rows + r + 1;
  }
  p.a = (viv_attention){.struct_size = sizeof p.a,
                        .kv_dtype = VIV_F32,
                        .rows = rows,
                        .heads = HEADS,
                        .head_dim = DIM,
                        .value_dim = 2 * DIM,
                        .kv_heads = KV_HEADS,
                        .page_tokens = PAGE,
                        .k_width = WIDTH,
                        .v_width = WIDTH,
                        .k_offset = k_offset,
                        .v_offset = v_offset,
                        .scale = 0.125f,
                        .window = window,
                        .q = q,
                        .out = p.both,
                        .kv = kv,
                        .visible = visible};
  report(window ? "attention, window of 512" : "attention", rows, keys, run_attention, &p);
  float *all[] = {k, v, q, p.both, p.out};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

int main(int argc, char **argv) {
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(argc > 1 ? atoi(argv[1]) : 0, VIV__ISA_AUTO, &table, &error)) {
    fprintf(stderr, "bench_sambay: %s\n", error.message);
    return 1;
  }
  bench_scan(1);
  bench_scan(512);
  bench_attention(512, 512, 0);
  bench_attention(2048, 2048, 512);
  bench_attention(1, 8192, 0);
  viv__compute_free(table);
  return 0;
}
