/* How near the kernels come to what the machine can do: linear against OpenBLAS's own speed and the
 * speed of memory, both measured in the same run; then attention and scan.
 *
 *   build/bench/bench_compute [threads [short]]    (short: without linear)
 *
 * "of peak" compares with OpenBLAS's best product on as many threads, "of memory" the bytes of
 * weights per second with a plain read of memory. One of the two is the limit. */
#include "compute/internal.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Seconds of the fastest of several runs that take a good part of a tenth of a second together. */
static double fastest(void (*run)(void *ctx), void *ctx) {
  double best = INFINITY, total = 0;
  run(ctx);
  for (int i = 0; i < 3 || (total < 0.12 && i < 2000); i++) {
    uint64_t start = viv__now_ns();
    run(ctx);
    double s = (double)(viv__now_ns() - start) * 1e-9;
    total += s;
    if (s < best) best = s;
  }
  return best;
}

/* ---- the limits ---- */

struct product {
  const viv_compute *c;
  int64_t m, n, k;
  float *a, *b, *y;
};

static void run_product(void *ctx) {
  struct product *p = ctx;
  p->c->gemm(p->c, 0, 1, p->m, p->n, p->k, 1.0f, p->a, p->k, p->b, p->k, 0.0f, p->y, p->n);
}

struct stream {
  const viv_compute *c;
  const float *x;
  int64_t n;
  _Atomic int sink;
};

static void read_range(void *ctx, int64_t begin, int64_t end) {
  struct stream *s = ctx;
  typedef int vec __attribute__((vector_size(32), aligned(4)));
  vec sum[4] = {{0}, {0}, {0}, {0}};
  for (int64_t i = begin; i + 32 <= end; i += 32)
    for (int j = 0; j < 4; j++) sum[j] += *(const vec *)(const void *)(s->x + i + j * 8);
  vec all = sum[0] + sum[1] + sum[2] + sum[3];
  int folded = 0;
  for (int j = 0; j < 8; j++) folded += all[j];
  s->sink += folded;
}

static void run_stream(void *ctx) {
  struct stream *s = ctx;
  s->c->parallel_for(s->c, s->n, 4096, read_range, s);
}

/* ---- linear ---- */

struct linear {
  const viv_compute *c;
  const viv_weight *w;
  const float *x;
  float *y;
  int64_t rows;
};

static void run_linear(void *ctx) {
  struct linear *s = ctx;
  s->c->linear(s->c, s->w, NULL, s->x, s->y, s->rows);
}

static void bench_linear(const viv_compute *c, double peak, double memory) {
  static const int64_t shape[][2] = {
      {576, 576}, {768, 3072}, {1536, 576}, {2560, 2560}, {2560, 20480}};
  static const int64_t rows[] = {1, 8, 32, 128, 512};
  printf("\nlinear      in    out  dtype  rows    GFLOP/s  of peak     GB/s  of memory  "
         "sgemm GFLOP/s\n");
  for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
    for (int half = 0; half < 2; half++) {
      int64_t in = shape[i][0], out = shape[i][1];
      viv_arena *arena = viv__arena_new(0);
      float *w = numbers(in * out), *x = numbers(512 * in), *y = numbers(512 * out);
      viv_tensor t = {.struct_size = sizeof t,
                      .data = w,
                      .bytes = (uint64_t)(in * out) * 4,
                      .dtype = VIV_F32,
                      .ndim = 2,
                      .shape = {out, in}};
      viv_weight *weight;
      if (c->weight_prepare(c, arena, &t, half ? VIV_WEIGHTS_BF16 : VIV_WEIGHTS_AS_STORED, &weight,
                            NULL))
        exit(1);
      for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct linear s = {c, weight, x, y, rows[r]};
        struct product p = {c, rows[r], out, in, x, w, y};
        double time = fastest(run_linear, &s), sgemm = fastest(run_product, &p);
        double flops = 2.0 * (double)(rows[r] * in * out);
        double bytes = (double)(in * out) * (half ? 2 : 4);
        printf("        %6lld %6lld  %-5s  %4lld   %8.1f  %6.0f%%  %7.1f  %8.0f%%  %13.1f\n",
               (long long)in, (long long)out, half ? "bf16" : "f32", (long long)rows[r],
               flops / time * 1e-9, 100 * flops / time / peak, bytes / time * 1e-9,
               100 * bytes / time / memory, flops / sgemm * 1e-9);
        fflush(stdout);
      }
      free(w);
      free(x);
      free(y);
      viv__arena_free(arena);
    }
}

/* ---- attention, scan ---- */

static const viv_compute *table;

static void run_attention(void *ctx) {
  table->attention(table, ctx);
}
static void run_scan(void *ctx) {
  table->scan(table, ctx);
}
static void run_causal_conv(void *ctx) {
  table->causal_conv(table, ctx);
}
static void bench_attention(double peak, double memory) {
  enum { PAGE = 64, MAX = 4096 };
  static const struct {
    int rows, heads, kv_heads, dim;
    int64_t keys;
    int32_t dtype;
  } cases[] = {{1, 40, 20, 64, 4096, VIV_F32},    {1, 40, 20, 64, 4096, VIV_BF16},
               {1, 32, 8, 128, 4096, VIV_BF16},   {512, 40, 20, 64, 512, VIV_F32},
               {512, 32, 8, 128, 4096, VIV_BF16}, {512, 12, 12, 64, 512, VIV_F32}};
  printf("\nattention rows  keys heads kv  dim dtype    tokens/s   GFLOP/s  of peak     GB/s  "
         "of memory\n");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t width = cases[i].kv_heads * cases[i].dim, size = cases[i].dtype == VIV_F32 ? 4 : 2;
    float *store = numbers(MAX * width);
    char *k = malloc((size_t)(MAX * width * size)), *v = malloc((size_t)(MAX * width * size));
    table->store(table, cases[i].dtype, store, k, MAX * width);
    table->store(table, cases[i].dtype, store, v, MAX * width);
    const void *kp[MAX / PAGE], *vp[MAX / PAGE];
    for (int p = 0; p < MAX / PAGE; p++) {
      kp[p] = k + p * PAGE * width * size;
      vp[p] = v + p * PAGE * width * size;
    }
    viv_kv kv = {kp, vp};
    const viv_kv *row_kv[512];
    int64_t visible[512], n = (int64_t)cases[i].heads * cases[i].dim, pairs = 0;
    for (int r = 0; r < cases[i].rows; r++) {
      row_kv[r] = &kv;
      visible[r] = cases[i].keys - cases[i].rows + r + 1;
      pairs += visible[r];
    }
    float *q = numbers(cases[i].rows * n), *out = numbers(cases[i].rows * n);
    viv_attention a = {.struct_size = sizeof a,
                       .kv_dtype = cases[i].dtype,
                       .rows = cases[i].rows,
                       .heads = cases[i].heads,
                       .head_dim = cases[i].dim,
                       .kv_heads = cases[i].kv_heads,
                       .page_tokens = PAGE,
                       .k_width = (int32_t)width,
                       .v_width = (int32_t)width,
                       .scale = 0.125f,
                       .q = q,
                       .out = out,
                       .kv = row_kv,
                       .visible = visible};
    double time = fastest(run_attention, &a), flops = 4.0 * (double)(pairs * n);
    double bytes = 2.0 * (double)(cases[i].keys * width * size);
    printf("          %4d  %4lld  %4d %2d %4d  %-5s  %9.0f  %8.1f  %6.0f%%  %7.1f  %8.0f%%\n",
           cases[i].rows, (long long)cases[i].keys, cases[i].heads, cases[i].kv_heads, cases[i].dim,
           cases[i].dtype == VIV_F32 ? "f32" : "bf16", cases[i].rows / time, flops / time * 1e-9,
           100 * flops / time / peak, bytes / time * 1e-9, 100 * bytes / time / memory);
    free(store);
    free(k);
    free(v);
    free(q);
    free(out);
  }
}

static void bench_scan(void) {
  static const int64_t sizes[][3] = {{1, 5120, 16}, {512, 5120, 16}, {512, 1536, 16}};
  printf("\nscan and causal_conv  rows channels states  scan tokens/s  conv tokens/s\n");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int64_t rows = sizes[i][0], ch = sizes[i][1], n = sizes[i][2];
    float *u = numbers(rows * ch), *delta = numbers(rows * ch), *a = numbers(ch * n);
    float *bc = numbers(rows * 2 * n), *state = numbers(ch * n), *y = numbers(rows * ch);
    for (int64_t k = 0; k < rows * ch; k++) delta[k] = fabsf(delta[k]);
    for (int64_t k = 0; k < ch * n; k++) a[k] = -fabsf(a[k]);
    viv_scan s = {.struct_size = sizeof s,
                  .channels = (int32_t)ch,
                  .states = (int32_t)n,
                  .rows = rows,
                  .u = u,
                  .delta = delta,
                  .a = a,
                  .b = bc,
                  .c = bc + n,
                  .bc_stride = 2 * n,
                  .state = state,
                  .y = y};
    viv_causal_conv conv = {sizeof conv, 1, rows, (int32_t)ch, 4, u, 0, a, NULL, state, y};
    double scan_time = fastest(run_scan, &s), conv_time = fastest(run_causal_conv, &conv);
    printf("                      %4lld    %5lld   %4lld  %13.0f  %13.0f\n", (long long)rows,
           (long long)ch, (long long)n, (double)rows / scan_time, (double)rows / conv_time);
    float *all[] = {u, delta, a, bc, state, y};
    for (size_t f = 0; f < sizeof all / sizeof *all; f++) free(all[f]);
  }
}

int main(int argc, char **argv) {
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(argc > 1 ? atoi(argv[1]) : 0, VIV__ISA_AUTO, &table, &error)) {
    fprintf(stderr, "bench_compute: %s\n", error.message);
    return 1;
  }
  const viv_compute *c = table;
  struct product p = {c, 1024, 1024, 1024, numbers(1 << 20), numbers(1 << 20), numbers(1 << 20)};
  double peak = 2.0 * 1024 * 1024 * 1024 / fastest(run_product, &p);
  struct stream s = {.c = c, .n = 64 << 20};
  s.x = numbers(s.n);
  double memory = (double)s.n * sizeof(float) / fastest(run_stream, &s);
  printf("%d threads, %s kernels, OpenBLAS core %s: sgemm %.1f GFLOP/s, memory %.1f GB/s\n",
         c->threads, viv__compute_isa(c), viv__compute_blas(c), peak * 1e-9, memory * 1e-9);
  if (argc < 3) bench_linear(c, peak, memory);
  bench_attention(peak, memory);
  bench_scan();
  viv__compute_free(c);
  return 0;
}
