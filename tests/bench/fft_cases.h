/* What bench_fft and its peers transform: ten seconds of noise at 16 kHz, the front ends of Whisper, of
 * BEATs and its kin, and longer windows. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "numbers.h"

enum { FFT_SAMPLES = 160000, FFT_CASES = 5 };

static const struct fft_case {
  int size, hop;
} fft_cases[FFT_CASES] = {{400, 160}, {512, 160}, {1024, 256}, {2048, 512}, {441, 147}};

/* One thread is measured by its processor time, which others on the machine disturb less. */
static double fft_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The fastest of many calls, in seconds. */
static double fft_fastest(void (*run)(void *), void *args) {
  double best = INFINITY, total = 0;
  run(args);
  for (int i = 0; i < 5 || (total < 0.2 && i < 2000); i++) {
    double start = fft_now();
    run(args);
    double s = fft_now() - start;
    total += s;
    if (s < best) best = s;
  }
  return best;
}

/* "case seconds error": the error is the largest of the first frame's bins, as a part of the largest bin, against
 * the definition in double precision. */
static void fft_report(int number, double seconds, const float *x, const float *window,
                       const float *spectrum) {
  int n = fft_cases[number].size;
  double worst = 0, largest = 0;
  for (int k = 0; k <= n / 2; k++) {
    double re = 0, im = 0;
    for (int j = 0; j < n; j++) {
      double turn = -2 * 3.14159265358979323846 * (double)((int64_t)j * k % n) / n;
      re += (double)x[j] * (double)window[j] * cos(turn);
      im += (double)x[j] * (double)window[j] * sin(turn);
    }
    worst = fmax(worst, hypot(re - (double)spectrum[2 * k], im - (double)spectrum[2 * k + 1]));
    largest = fmax(largest, hypot(re, im));
  }
  printf("%d %.9f %.3g\n", number, seconds, worst / largest);
}
