/* The cases of fft_cases.h by a library: -DFFTW by FFTW 3 (single precision, real to complex, plans that were
 * measured), else by KISS FFT. Built by bench_fft.sh. */
#include <string.h>

#ifdef FFTW
#include <fftw3.h>
#else
#include <kiss_fftr.h>
#endif

#include "fft_cases.h"

struct work {
  int n, hop, frames;
  const float *x, *window;
  float *frame, *out;
#ifdef FFTW
  fftwf_plan plan;
#else
  kiss_fftr_cfg plan;
#endif
};

static void transform(void *args) {
  const struct work *w = args;
  for (int f = 0; f < w->frames; f++) {
    const float *from = w->x + (size_t)f * (size_t)w->hop;
    float *to = w->out + (size_t)f * (size_t)(w->n / 2 + 1) * 2;
    for (int j = 0; j < w->n; j++) w->frame[j] = from[j] * w->window[j];
#ifdef FFTW
    fftwf_execute_dft_r2c(w->plan, w->frame, (fftwf_complex *)to);
#else
    kiss_fftr(w->plan, w->frame, (kiss_fft_cpx *)to);
#endif
  }
}

int main(void) {
  float *x = numbers(FFT_SAMPLES);
  for (int i = 0; i < FFT_CASES; i++) {
    int n = fft_cases[i].size, hop = fft_cases[i].hop;
    float *window = numbers(n);
    struct work w = {n, hop, 1 + (FFT_SAMPLES - n) / hop, x, window, numbers(n), NULL, NULL};
    w.out = numbers((int64_t)w.frames * (n / 2 + 1) * 2);
#ifdef FFTW
    w.plan =
        fftwf_plan_dft_r2c_1d(n, w.frame, (fftwf_complex *)w.out, FFTW_PATIENT | FFTW_UNALIGNED);
#else
    w.plan =
        n % 2 ? NULL : kiss_fftr_alloc(n, 0, NULL, NULL); /* its real transform wants even sizes */
#endif
    if (w.plan) {
      double seconds = fft_fastest(transform, &w);
      fft_report(i, seconds, x, window, w.out);
    }
    free(window);
    free(w.frame);
    free(w.out);
  }
  free(x);
  return 0;
}
