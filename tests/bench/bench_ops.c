/* Operations on maps and signals at the sizes of real networks.
 *
 *   build/bench/bench_ops [threads]
 *
 * "GB/s" counts what must be read and written once: values that a sample touches, the picture, the
 * spectrum; "of memory" compares with a plain read in the same run. Small maps stay in the cache and
 * may pass 100 %. */
#include "compute/internal.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double fastest(const viv_compute *c, void (*run)(const viv_compute *c, const void *args),
                      const void *args) {
  double best = INFINITY, total = 0;
  run(c, args);
  for (int i = 0; i < 5 || (total < 0.3 && i < 2000); i++) {
    uint64_t start = viv__now_ns();
    run(c, args);
    double s = (double)(viv__now_ns() - start) * 1e-9;
    total += s;
    if (s < best) best = s;
  }
  return best;
}

struct stream {
  const float *x;
  _Atomic int sink;
};

static void read_range(void *ctx, int64_t begin, int64_t end) {
  struct stream *s = ctx;
  typedef int vec __attribute__((vector_size(32), aligned(4), may_alias));
  vec sum[4] = {{0}, {0}, {0}, {0}};
  for (int64_t i = begin; i + 32 <= end; i += 32)
    for (int j = 0; j < 4; j++) sum[j] += *(const vec *)(const void *)(s->x + i + j * 8);
  vec all = sum[0] + sum[1] + sum[2] + sum[3];
  s->sink += all[0] + all[5];
}

enum { STREAM = 32 << 20 };

static void run_stream(const viv_compute *c, const void *args) {
  struct stream s = {.x = args};
  c->parallel_for(c, STREAM, 4096, read_range, &s);
}

static double memory_speed;

static void line(const char *name, double seconds, double bytes) {
  printf("%-48s %9.3f ms %8.1f GB/s  %4.0f%% of memory\n", name, seconds * 1e3,
         bytes / seconds * 1e-9, 100 * bytes / seconds / memory_speed);
  fflush(stdout);
}

/* ---- maps ---- */

static void run_deform(const viv_compute *c, const void *args) {
  c->deform(c, args);
}

/* spread: how far, in the map's width, a query's samples lie from one another. */
static void bench_deform(const viv_compute *c, const char *name, int32_t queries, int32_t levels,
                         int32_t points, const int32_t *shapes, float spread) {
  viv_deform a = {.struct_size = sizeof a,
                  .batch = 1,
                  .queries = queries,
                  .heads = 8,
                  .head_dim = 32,
                  .levels = levels,
                  .points = points,
                  .shapes = shapes};
  for (int32_t l = 0; l < levels; l++) a.values += (int64_t)shapes[2 * l] * shapes[2 * l + 1];
  int64_t samples = (int64_t)queries * 8 * levels * points;
  float *value = numbers(a.values * 256), *at = numbers(samples * 2), *w = numbers(samples);
  for (int64_t i = 0; i < samples; i++) {
    int64_t q = i / (8 * levels * points), across = (int64_t)sqrt(queries);
    at[2 * i] = (float)(q % across) / (float)across + spread * at[2 * i];
    at[2 * i + 1] = (float)(q / across) / (float)across + spread * at[2 * i + 1];
  }
  a.value = value;
  a.locations = at;
  a.weights = w;
  a.out = numbers((int64_t)queries * 256);
  line(name, fastest(c, run_deform, &a), (double)samples * 4 * 32 * 4);
  free(value);
  free(at);
  free(w);
  free(a.out);
}

static void run_grid(const viv_compute *c, const void *args) {
  c->grid_sample(c, args);
}

static void bench_grid(const viv_compute *c, const char *name, int32_t layout, int32_t channels,
                       int32_t side) {
  int64_t cells = (int64_t)side * side;
  viv_grid_sample a = {.struct_size = sizeof a,
                       .filter = VIV_LINEAR,
                       .batch = 1,
                       .channels = channels,
                       .height = side,
                       .width = side,
                       .out_height = side,
                       .out_width = side,
                       .layout = layout};
  float *grid = numbers(2 * cells), *x = numbers(cells * channels);
  for (int64_t i = 0; i < cells; i++) { /* a flow field: near to where it was */
    grid[2 * i] = grid[2 * i] * 0.05f + 2 * (float)(i % side) / (float)side - 1;
    grid[2 * i + 1] = grid[2 * i + 1] * 0.05f + 2 * (float)(i / side) / (float)side - 1;
  }
  a.x = x;
  a.grid = grid;
  a.out = numbers(cells * channels);
  line(name, fastest(c, run_grid, &a), (double)cells * (2 * channels + 2) * 4);
  free(grid);
  free(x);
  free(a.out);
}

static void run_resize(const viv_compute *c, const void *args) {
  c->resize(c, args);
}

static void bench_resize(const viv_compute *c, const char *name, int32_t filter, int32_t channels,
                         int64_t batch, int32_t from, int32_t to, bool antialias) {
  viv_resize a = {.struct_size = sizeof a,
                  .filter = filter,
                  .dims = 2,
                  .channels = channels,
                  .batch = batch,
                  .size = {from, from},
                  .out_size = {to, to},
                  .antialias = antialias};
  int64_t planes = batch * channels, in = planes * from * from, out = planes * to * to;
  float *x = numbers(in);
  a.x = x;
  a.out = numbers(out);
  line(name, fastest(c, run_resize, &a), (double)(in + out) * 4);
  free(x);
  free(a.out);
}

static void run_u8(const viv_compute *c, const void *args) {
  c->resize_u8(c, args);
}

static void bench_u8(const viv_compute *c, const char *name, int32_t form, int32_t filter) {
  viv_resize_u8 a = {.struct_size = sizeof a,
                     .form = form,
                     .filter = filter,
                     .height = 1080,
                     .width = 1920,
                     .channels = 3,
                     .out_height = 800,
                     .out_width = 1422};
  uint8_t *x = calloc(1, 1080 * 1920 * 3);
  for (int64_t i = 0; i < 1080 * 1920 * 3; i++) x[i] = (uint8_t)(i * 7 + i / 999);
  a.x = x;
  a.out = malloc(800 * 1422 * 3);
  a.scratch = malloc(c->resize_u8_scratch(c, &a));
  line(name, fastest(c, run_u8, &a), 1080.0 * 1920 * 3 + 800.0 * 1422 * 3);
  free(x);
  free(a.out);
  free(a.scratch);
}

struct permute {
  const float *x;
  float *y;
  int64_t shape[4];
  int32_t perm[4];
};

static void run_permute(const viv_compute *c, const void *args) {
  const struct permute *p = args;
  c->permute(c, p->x, 4, p->shape, p->perm, p->y);
}

static void bench_permute(const viv_compute *c, const char *name, struct permute p) {
  int64_t n = p.shape[0] * p.shape[1] * p.shape[2] * p.shape[3];
  float *x = numbers(n);
  p.x = x;
  p.y = numbers(n);
  line(name, fastest(c, run_permute, &p), (double)n * 8);
  free(x);
  free(p.y);
}

struct norm {
  const float *x;
  float *y;
  int32_t layout;
};

static void run_norm(const viv_compute *c, const void *args) {
  const struct norm *n = args;
  c->group_norm(c, n->x, NULL, NULL, 1e-5f, 32, 1, 256, 128 * 128, n->layout, n->y);
}

/* ---- signals ---- */

static void run_stft(const viv_compute *c, const void *args) {
  c->stft(c, args);
}

static void bench_stft(const viv_compute *c, const char *name, int32_t n_fft, int32_t hop,
                       int64_t samples) {
  viv_stft a = {.struct_size = sizeof a, .n_fft = n_fft, .hop = hop, .rows = 1, .samples = samples};
  a.frames = 1 + (samples - n_fft) / hop;
  float *x = numbers(samples), *window = numbers(n_fft);
  int64_t out = a.frames * (n_fft / 2 + 1) * 2;
  a.window = window;
  a.x = x;
  a.out = numbers(out);
  line(name, fastest(c, run_stft, &a), (double)(samples + out) * 4);
  free(x);
  free(window);
  free(a.out);
}

struct istft {
  const float *window, *spectrum;
  float *out;
  int32_t n_fft, hop;
  int64_t frames;
};

static void run_istft(const viv_compute *c, const void *args) {
  const struct istft *s = args;
  c->istft(c, s->n_fft, s->hop, s->window, s->spectrum, 1, s->frames, s->out);
}

struct choice {
  const float *x;
  int64_t rows, n, k;
  int32_t *ids;
};

static void run_top_k(const viv_compute *c, const void *args) {
  const struct choice *s = args;
  c->top_k(c, s->x, s->rows, s->n, s->k, NULL, s->ids);
}

static void bench_top_k(const viv_compute *c, const char *name, int64_t rows, int64_t n,
                        int64_t k) {
  float *x = numbers(rows * n);
  struct choice s = {x, rows, n, k, malloc((size_t)(rows * k) * sizeof(int32_t))};
  line(name, fastest(c, run_top_k, &s), (double)(rows * n) * 4);
  free(x);
  free(s.ids);
}

static void bench_maps(const viv_compute *c) {
  static const int32_t rt_detr[] = {80, 80, 40, 40, 20, 20};
  static const int32_t group_pose[] = {100, 134, 50, 67, 25, 34, 13, 17};
  bench_deform(c, "deform, RT-DETR decoder: 300 queries, 3 x 4", 300, 3, 4, rt_detr, 0.1f);
  bench_deform(c, "deform, Group Pose encoder: 17821 queries, 4 x 4", 17821, 4, 4, group_pose,
               0.02f);
  bench_deform(c, "deform, Group Pose decoder: 1800 queries, 4 x 4", 1800, 4, 4, group_pose, 0.1f);
  bench_grid(c, "grid_sample linear, 64 planes of 256 x 256", VIV_CHANNELS_FIRST, 64, 256);
  bench_grid(c, "grid_sample linear, 256 x 256 pixels of 64", VIV_CHANNELS_LAST, 64, 256);
  bench_resize(c, "resize linear x2, 256 planes of 64 x 64", VIV_LINEAR, 1, 256, 64, 128, false);
  bench_resize(c, "resize linear x2, 64 x 64 pixels of 256", VIV_LINEAR, 256, 1, 64, 128, false);
  bench_resize(c, "resize linear x4, 17 planes of 128 x 128", VIV_LINEAR, 1, 17, 128, 512, false);
  bench_resize(c, "resize nearest x2, 256 planes of 64 x 64", VIV_NEAREST, 1, 256, 64, 128, false);
  bench_resize(c, "resize cubic antialias, 3 planes 1024 -> 518", VIV_CUBIC, 1, 3, 1024, 518, true);
  bench_u8(c, "resize_u8 Pillow bilinear, 1920x1080 -> 1422x800", VIV_RESIZE_PILLOW, VIV_LINEAR);
  bench_u8(c, "resize_u8 Pillow bicubic", VIV_RESIZE_PILLOW, VIV_CUBIC);
  bench_u8(c, "resize_u8 torchvision int16 bilinear", VIV_RESIZE_TORCH_INT16, VIV_LINEAR);
  bench_u8(c, "resize_u8 torchvision float bilinear", VIV_RESIZE_TORCH_FLOAT, VIV_LINEAR);
  bench_u8(c, "resize_u8 OpenCV linear", VIV_RESIZE_OPENCV, VIV_LINEAR);
  bench_permute(c, "permute [1, 256, 100, 134] -> channels last",
                (struct permute){.shape = {1, 256, 100, 134}, .perm = {0, 2, 3, 1}});
  bench_permute(c, "permute [1, 900, 8, 32] -> heads first",
                (struct permute){.shape = {1, 900, 8, 32}, .perm = {0, 2, 1, 3}});
  float *x = numbers(256 * 128 * 128), *y = numbers(256 * 128 * 128);
  struct norm n = {x, y, VIV_CHANNELS_FIRST};
  line("group_norm 32, 256 planes of 128 x 128", fastest(c, run_norm, &n), 256.0 * 16384 * 8);
  n.layout = VIV_CHANNELS_LAST;
  line("group_norm 32, 128 x 128 pixels of 256", fastest(c, run_norm, &n), 256.0 * 16384 * 8);
  free(x);
  free(y);
}

static void bench_signals(const viv_compute *c) {
  bench_stft(c, "stft 400, hop 160, 30 s (Whisper)", 400, 160, 480400);
  bench_stft(c, "stft 1024, hop 256, 30 s of 24 kHz", 1024, 256, 720000);
  bench_stft(c, "stft 2048, hop 512, 30 s of 44.1 kHz", 2048, 512, 1323000);
  bench_stft(c, "stft 400, hop 160, one frame", 400, 160, 400);
  int64_t frames = 2800;
  float *spectrum = numbers(frames * 513 * 2), *window = numbers(1024);
  float *y = numbers(1024 + 256 * (frames - 1));
  struct istft s = {window, spectrum, y, 1024, 256, frames};
  line("istft 1024, hop 256, 30 s of 24 kHz", fastest(c, run_istft, &s),
       (double)frames * (513 * 2 + 256) * 4);
  free(spectrum);
  free(window);
  free(y);
  bench_top_k(c, "top_k 300 of 8400 x 80 (detection)", 1, 8400 * 80, 300);
  bench_top_k(c, "top_k 50 of 151936 (vocabulary)", 1, 151936, 50);
  bench_top_k(c, "argmax of 151936", 1, 151936, 1);
}

int main(int argc, char **argv) {
  const viv_compute *c = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(argc > 1 ? atoi(argv[1]) : 0, VIV__ISA_AUTO, &c, &error)) {
    fprintf(stderr, "bench_ops: %s\n", error.message);
    return 1;
  }
  float *x = numbers(STREAM);
  memory_speed = STREAM * 4.0 / fastest(c, run_stream, x);
  free(x);
  printf("%s, %d threads, memory %.1f GB/s\n", viv__compute_isa(c), c->threads,
         memory_speed * 1e-9);
  bench_maps(c);
  bench_signals(c);
  viv__compute_free(c);
  return 0;
}
