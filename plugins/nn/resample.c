/* torchaudio.functional.resample. With the rates divided by their greatest common divisor (o, n), output
 * sample b n + j is the input around b o under the kernel of phase j. Only the taps under the window
 * are kept. */
#include "nn/audio.h"

#include <math.h>

#define PI 3.14159265358979323846

nn_resample nn_resample_default(int64_t from, int64_t to) {
  return (nn_resample){.from = from, .to = to, .width = 6, .rolloff = 0.99};
}

struct rates {
  int64_t o, n, taps;
  double base; /* the lower rate's band, in units of 1 / o */
};

static struct rates rates_of(const nn_resample *r) {
  int64_t a = r->from, b = r->to;
  while (b) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  struct rates s = {.o = r->from / a, .n = r->to / a};
  s.base = (double)(s.o < s.n ? s.o : s.n) * r->rolloff;
  s.taps = 2 * (int64_t)ceil(r->width * (double)s.o / s.base) + 2;
  return s;
}

int64_t nn_resample_length(const nn_resample *r, int64_t samples) {
  struct rates s = rates_of(r);
  return (s.n * samples + s.o - 1) / s.o;
}

uint64_t nn_resample_scratch(const nn_resample *r) {
  struct rates s = rates_of(r);
  return r->from == r->to ? 0 : (uint64_t)(s.n * s.taps);
}

/* The modified Bessel function of order 0. */
static double bessel_i0(double x) {
  double sum = 1, term = 1;
  for (int k = 1; k < 500 && term > sum * 1e-17; k++) sum += term *= x * x / 4 / ((double)k * k);
  return sum;
}

/* The first input sample, counted from b o, that phase j looks at. */
static int64_t first_of(const struct rates *s, int64_t j) {
  return (int64_t)floor((double)j * (double)s->o / (double)s->n) - (s->taps / 2 - 1);
}

static void fill_phase(const nn_resample *r, const struct rates *s, int64_t j, float *kernel) {
  double width = r->width, scale = s->base / (double)s->o;
  for (int64_t i = 0; i < s->taps; i++) {
    double at = (double)(first_of(s, j) + i) / (double)s->o - (double)j / (double)s->n;
    double t = at * s->base, window, sinc = t == 0 ? 1 : sin(PI * t) / (PI * t);
    if (t < -width || t > width) {
      kernel[i] = 0;
      continue;
    }
    if (r->beta > 0) {
      double u = t / width;
      window = bessel_i0(r->beta * sqrt(1 - u * u)) / bessel_i0(r->beta);
    } else {
      double u = cos(PI * t / width / 2);
      window = u * u;
    }
    kernel[i] = (float)(sinc * window * scale);
  }
}

struct resampling {
  struct rates s;
  const float *x, *kernels;
  float *out;
  int64_t begin, samples; /* of the signal: where x begins, where it ends */
  int64_t at;             /* the output sample that out begins with */
};

static void resample_range(void *ctx, int64_t begin, int64_t end) {
  const struct resampling *q = ctx;
  int64_t taps = q->s.taps;
  for (int64_t i = begin; i < end; i++) {
    int64_t number = q->at + i, phase = number % q->s.n;
    int64_t start = number / q->s.n * q->s.o + first_of(&q->s, phase);
    const float *kernel = q->kernels + phase * taps;
    int64_t from = start < 0 ? -start : 0;
    int64_t to = start + taps > q->samples ? q->samples - start : taps;
    double sum = 0;
    for (int64_t k = from; k < to; k++) sum += (double)kernel[k] * q->x[start - q->begin + k];
    q->out[i] = (float)sum;
  }
}

void nn_resample_kernels(const nn_resample *r, float *kernels) {
  struct rates s = rates_of(r);
  for (int64_t j = 0; j < s.n; j++) fill_phase(r, &s, j, kernels + j * s.taps);
}

int64_t nn_resample_first(const nn_resample *r, int64_t i) {
  struct rates s = rates_of(r);
  int64_t start = i / s.n * s.o + first_of(&s, i % s.n);
  return start < 0 ? 0 : start;
}

int64_t nn_resample_ready(const nn_resample *r, int64_t samples) {
  struct rates s = rates_of(r);
  if (r->from == r->to) return samples;
  /* Phase j of round b needs b o + first(j) + taps samples, and first grows with j. */
  int64_t rounds = (samples - s.taps / 2 - s.o) / s.o, i;
  i = rounds > 0 ? rounds * s.n : 0;
  while (i / s.n * s.o + first_of(&s, i % s.n) + s.taps <= samples) i++;
  return i;
}

void nn_resample_part(const viv_compute *c, const nn_resample *r, const float *kernels,
                      const float *x, int64_t begin, int64_t samples, int64_t at, int64_t n,
                      float *out) {
  struct resampling q = {rates_of(r), x, kernels, out, begin, samples, at};
  c->parallel_for(c, n, 1024, resample_range, &q);
}

void nn_resample_run(const viv_compute *c, const nn_resample *r, const float *x, int64_t samples,
                     float *out, float *scratch) {
  int64_t n = nn_resample_length(r, samples);
  if (r->from == r->to) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i];
    return;
  }
  nn_resample_kernels(r, scratch);
  nn_resample_part(c, r, scratch, x, 0, samples, 0, n, out);
}
