/* Short-time Fourier transforms on one thread: "case seconds error", one case of fft_cases.h a line. bench_fft.sh
 * compares them with FFTW and KISS FFT. */
#include "compute/internal.h"

#include "fft_cases.h"

struct work {
  const viv_compute *c;
  viv_stft a;
};

static void transform(void *args) {
  const struct work *w = args;
  w->c->stft(w->c, &w->a);
}

int main(void) {
  struct work w = {0};
  viv_error error = VIV_ERROR_INIT;
  if (viv__compute_new(1, VIV__ISA_AUTO, &w.c, &error)) {
    fprintf(stderr, "bench_fft: %s\n", error.message);
    return 1;
  }
  float *x = numbers(FFT_SAMPLES);
  for (int i = 0; i < FFT_CASES; i++) {
    int n = fft_cases[i].size, hop = fft_cases[i].hop;
    float *window = numbers(n);
    w.a = (viv_stft){.struct_size = sizeof w.a,
                     .n_fft = n,
                     .hop = hop,
                     .rows = 1,
                     .samples = FFT_SAMPLES,
                     .frames = 1 + (FFT_SAMPLES - n) / hop,
                     .window = window,
                     .x = x};
    w.a.out = numbers(w.a.frames * (n / 2 + 1) * 2);
    double seconds = fft_fastest(transform, &w);
    fft_report(i, seconds, x, window, w.a.out);
    free(window);
    free(w.a.out);
  }
  free(x);
  viv__compute_free(w.c);
  return 0;
}
